// Package alerts says when Signalbox needs a person (docs/rules.md, Failures). It judges by the stores' indexes alone, once
// a minute and once for all instances: it is a subject like any other, whose document is the list of what stands. Each
// alert has a name that never changes, fires by itself and clears by itself.
package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// Kind is what Subject is registered as with the engine: other subjects of its kind are not ours.
const Kind = "system/alerts"

// Subject is the one there is.
func Subject() state.Subject {
	return state.Subject{Instance: "-", Project: "-", Kind: "system", Key: "alerts"}
}

// The names of the alerts; labels of metrics and headings of docs/operating.md.
const (
	OldestWork      = "oldest-work"      // work that could be done waits too long
	Failing         = "failing"          // an effect fails again and again
	DeadLetter      = "dead-letter"      // work was given up
	Quarantine      = "quarantine"       // a subject crashes the process, or cannot be decided
	OpenOutside     = "open-outside"     // a gate should be shut and the forge does not take it
	Stalled         = "stalled"          // work is due and nothing gets done
	Contention      = "contention"       // the far side puts an effect off, or refuses the credential
	ApprovalWaiting = "approval-waiting" // a pull request waits for an approval
	Hook            = "hook"             // deliveries do not arrive, even when they are sent again
)

// IndexHook is where sweeps place what is wrong with the way of deliveries, in words as the label.
const IndexHook = "hook"

const (
	every = time.Minute // between two judgements
	// gap is how long nobody may have judged before it counts as a time in which nobody worked: what became old in it
	// is given the time again that it has otherwise.
	gap = 10 * time.Minute
	// silence is how long nothing may be done while work is due; the same for our own judgement.
	silence = 5 * time.Minute
	most    = 100 // rows of an index that are read and counted
)

// rule is an alert that stands while an index has a row older than age.
type rule struct {
	name, index string
	age         time.Duration
	life        time.Duration // rows older than this are forgotten; 0 = none is
	words       string        // of one row
}

// rules are all alerts but Stalled, by name. waiting is the age of ApprovalWaiting, which 0 turns off.
func rules(waiting time.Duration) []rule {
	all := []rule{
		{name: Contention, index: actor.IndexContended, age: 5 * time.Minute, words: "an effect is put off again and again, or the credential is refused"},
		{name: DeadLetter, index: actor.IndexDead, life: actor.DeadLife, words: "work was given up"},
		{name: Failing, index: actor.IndexStuck, age: 15 * time.Minute, words: "an effect keeps failing"},
		{name: Hook, index: IndexHook, words: "deliveries do not arrive"},
		{name: OldestWork, index: state.OldestSince, age: 15 * time.Minute, words: "work waits to be done"},
		{name: OpenOutside, index: actor.IndexOpenOutside, words: "a gate should be shut, and the forge does not take it"},
		{name: Quarantine, index: actor.IndexQuarantine, words: "a subject is in quarantine"},
	}
	if waiting > 0 {
		all = append(all, rule{name: ApprovalWaiting, index: "waiting", age: waiting, words: "a pull request waits for an approval"})
	}
	return all
}

// Names are those of all alerts, sorted; the ones that a configuration turns off too.
func Names() []string {
	names := []string{Stalled}
	for _, r := range rules(1) {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}

// Alert is one that stands. Times are the store's.
type Alert struct {
	Name    string        `json:"name"`
	Fired   time.Time     `json:"fired"`
	Since   time.Time     `json:"since"`         // of the oldest of what it is about
	Count   int           `json:"count"`         // of what it is about, counted up to 100
	Subject state.Subject `json:"subject"`       // of the oldest
	Key     string        `json:"key,omitempty"` // which effect, dead letter or pull request of the subject, or a reason
	Words   string        `json:"words"`         // the same as a sentence
}

// Doc is the document.
type Doc struct {
	Judged   time.Time `json:"judged,omitzero"` // newest judgement
	Up       time.Time `json:"up,omitzero"`     // since when there has been one every few minutes
	Standing []Alert   `json:"standing"`        // by name
}

// Facts are the rows of the indexes, oldest first. One that could not be read is missing, and what hangs on it stays as
// it is.
type Facts struct {
	Rows map[string][]state.Entry
	Why  string // why one is missing
}

// Notice is the body of an outgoing webhook, in the form that Standard Webhooks recommends.
type Notice struct {
	Type string    `json:"type"` // Fired or Cleared
	At   time.Time `json:"timestamp"`
	Data Alert     `json:"data"`
}

// The types of a Notice, and words of the story.
const (
	Fired   = "alert.fired"
	Cleared = "alert.cleared"
	// LookFailed is no Notice: an index could not be read.
	LookFailed = "alert.look-failed"
)

// Read answers what stands. Where nobody has judged for some minutes, that itself is an alert: Stalled.
func Read(ctx context.Context, store interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
}) (Doc, error) {
	v, err := actor.See(ctx, store, Subject())
	if err != nil {
		return Doc{}, fmt.Errorf("read the alerts: %w", err)
	}
	d := Doc{Standing: []Alert{}}
	if len(v.Doc) > 0 {
		if err := json.Unmarshal(v.Doc, &d); err != nil {
			return Doc{}, fmt.Errorf("read the alerts: %w", err)
		}
	}
	if i, found := d.find(Stalled); !found && !d.Judged.IsZero() && v.Now.Sub(d.Judged) >= silence {
		d.Standing = slices.Insert(d.Standing, i, Alert{
			Name: Stalled, Fired: d.Judged.Add(silence), Since: d.Judged, Count: 1, Subject: Subject(), Words: "no instance has judged the alerts",
		})
	}
	return d, nil
}

func (d Doc) find(name string) (int, bool) {
	return slices.BinarySearchFunc(d.Standing, name, func(a Alert, name string) int {
		switch {
		case a.Name < name:
			return -1
		case a.Name > name:
			return 1
		}
		return 0
	})
}
