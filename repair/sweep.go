// Package repair compares what Signalbox knows with the forge and asks the forge for deliveries that were lost
// (docs/rules.md, Adoption). It decides nothing about a pull request: it only tells one that it should look at itself, slowly
// enough that webhooks that arrive meanwhile never wait for it.
//
// A sweep is a subject like any other, so it runs once and not per instance, and its timer is its due time. With a
// token there is one, Token. For an App there is Root, which reads the App's delivery log and finds its
// installations, and one for each of them, which compares its repositories when Root tells it to.
//
// A sweep begins with the delivery log: what the forge sends again is better than what can be seen afterwards (who
// pushed, for one). Only once that has settled are pull requests compared.
package repair

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Kind is the kind of subject.
const Kind = "sweep"

// Keys of the subjects that sweep by themselves; the others are ids of installations.
const (
	Root  = "root"  // of an App
	Token = "token" // of a token
)

// KindOrder is the one kind of mail a sweep reads, with a body of Order in this format.
const (
	KindOrder = "order"
	Format    = 1
)

// Subject is the subject that sweeps a forge by itself (Root or Token), or one of its installations.
func Subject(instance, key string) state.Subject {
	return state.Subject{Instance: instance, Project: "-", Kind: Kind, Key: key}
}

// Order asks a sweep for something before its time.
type Order struct {
	Log     bool `json:"log,omitempty"`     // read the delivery log as far back as the forge keeps it
	Compare bool `json:"compare,omitempty"` // look for pull requests updated since the last time
	Full    bool `json:"full,omitempty"`    // compare all open pull requests
	// Only names the one repository of a Full; empty = all.
	Only string `json:"only,omitempty"`
	// At makes two orders of different times different.
	At time.Time `json:"at,omitzero"`
}

// Distances in time. What is compared with the forge's clock has room for clocks that differ by minutes.
const (
	margin  = 15 * time.Minute // how far a walk looks back beyond where the last one began; more than grace
	grace   = 10 * time.Minute // how long the delivery that opened a pull request is waited for before it is adopted
	settle  = time.Minute      // how long any other delivery is waited for
	daily   = 24 * time.Hour   // between two comparisons of everything
	patient = 10 * time.Minute // how long comparing waits for the delivery log at most
	arrives = 2 * time.Minute  // how long a delivery that was asked for may take
	again   = time.Hour        // before the same delivery is asked for again
	asks    = 3                // how often one is asked for
	kept    = 72 * time.Hour   // how far back GitHub's log goes
	ahead   = time.Minute      // how far ahead tells and requests are planned: what bounds the outbox
	rest    = 30 * time.Second // between two looks of a walk that goes on
	calls   = 15               // to the forge in one look, at most
	items   = 400              // read in one look before it ends
)

// Sweep is the document. It holds positions and times, never lists of pull requests. Times are the store's.
type Sweep struct {
	First time.Time `json:"first,omitzero"` // our first contact
	Next  time.Time `json:"next,omitzero"`  // when the next sweep begins; unused by an installation
	Look  time.Time `json:"look,omitzero"`  // no look at the forge before

	Log      Walk `json:"log,omitzero"`      // through the delivery log
	Updated  Walk `json:"updated,omitzero"`  // through pull requests updated since
	Full     Walk `json:"full,omitzero"`     // through all open ones
	Installs Walk `json:"installs,omitzero"` // through the App's installations

	Compare bool  `json:"compare,omitempty"` // to be begun once the log has settled
	Held    bool  `json:"held,omitempty"`    // … and what was under way before a gap waits for that too
	Pass    Order `json:"pass,omitzero"`     // what the installations are told besides

	Deep   time.Time `json:"deep,omitzero"`    // when the log was last read back beyond the last time
	Asked  time.Time `json:"asked,omitzero"`   // when the newest of the deliveries asked for was to leave
	NoLog  string    `json:"no_log,omitempty"` // why a log cannot be read
	Slots  Slots     `json:"slots,omitzero"`
	Fault  Fault     `json:"fault,omitzero"`
	Missed string    `json:"missed,omitempty"` // why a repository was left out of the last walk

	Lost     Trouble `json:"lost,omitzero"`     // deliveries that do not arrive although they were asked for again
	Disabled Trouble `json:"disabled,omitzero"` // of a hook that the forge does not call
}

// Trouble is what keeps deliveries from arriving, until a walk through the log no longer meets it.
type Trouble struct {
	Since time.Time `json:"since,omitzero"` // zero = there is none
	Seen  time.Time `json:"seen,omitzero"`  // when it was met last
	From  time.Time `json:"from,omitzero"`  // the oldest that the last walk met; the forge's clock
	Why   string    `json:"why,omitempty"`
}

// meet is called for each of a walk.
func (t *Trouble) meet(w *Walk, from, now time.Time, why string) {
	if t.Since.IsZero() {
		t.Since = now
	}
	if t.Seen.Before(w.Begun) || from.Before(t.From) {
		t.From = from
	}
	t.Seen, t.Why = now, why
}

// over ends it where a walk went back as far as it does, or as far as walks go, without meeting it.
func (t *Trouble) over(w *Walk) {
	if t.Seen.Before(w.Begun) && (!t.From.Before(w.Floor) || w.Begun.Sub(w.Floor) >= again) {
		*t = Trouble{}
	}
}

// places are the sweep's in the index of what keeps deliveries from arriving.
func (d *Sweep) places(now time.Time) (out []state.Index) {
	place := func(since time.Time, why string) {
		out = append(out, state.Index{Name: alerts.IndexHook, Label: why, Score: float64(since.UnixMilli())})
	}
	if !d.Lost.Since.IsZero() {
		place(d.Lost.Since, d.Lost.Why)
	}
	if !d.Disabled.Since.IsZero() {
		place(d.Disabled.Since, d.Disabled.Why)
	}
	if d.Fault.Tries > 0 && now.Sub(d.Fault.Since) >= margin {
		place(d.Fault.Since, "the forge cannot be looked at, so nobody knows whether deliveries arrive")
	}
	return out
}

// Walk is a position in something too long for one look.
type Walk struct {
	Since time.Time `json:"since,omitzero"` // when the one before began; zero = there was none
	Begun time.Time `json:"begun,omitzero"` // zero = none is under way
	Floor time.Time `json:"floor,omitzero"` // of the log: read back to here
	// Whole: of Updated, after a gap, whatever was seen of them meanwhile; of Log, however often they were asked for.
	Whole bool   `json:"whole,omitempty"`
	Note  string `json:"note,omitempty"` // what could not be looked at
	Only  string `json:"only,omitempty"` // of Full: this repository
	At    Cursor `json:"at,omitzero"`
}

func (w *Walk) under() bool { return !w.Begun.IsZero() }

func (w *Walk) begin(now time.Time) { *w = Walk{Since: w.Since, Begun: now, At: Cursor{Page: 1}} }

func (w *Walk) end() {
	if w.Only == "" {
		w.Since = w.Begun
	}
	*w = Walk{Since: w.Since}
}

// Cursor is a place in a list of repositories and a position there.
type Cursor struct {
	Page  int    `json:"page,omitempty"`  // of the list, from 1
	Place int    `json:"place,omitempty"` // on that page
	Token string `json:"token,omitempty"` // within the repository
}

// Slots are the times before which each lane is taken.
type Slots struct {
	Adopt time.Time `json:"adopt,omitzero"`
	Known time.Time `json:"known,omitzero"`
	Ask   time.Time `json:"ask,omitzero"`
}

// Fault is why looking at the forge has to wait.
type Fault struct {
	Since time.Time `json:"since,omitzero"`
	Tries int       `json:"tries,omitempty"`
	Why   string    `json:"why,omitempty"`
}

// told is the Want of a wish to tell a pull request.
type told struct {
	Ref forge.Ref `json:"ref"`
	ID  string    `json:"id"`
	Why string    `json:"why"`
}

// asked is the Want of a wish for a delivery, and with At and N the record of it.
type asked struct {
	Repo     forge.Repo `json:"repo,omitzero"`
	Delivery Delivery   `json:"delivery"`
}

// memory is the record that a delivery was asked for.
type memory struct {
	At time.Time `json:"at"`
	N  int       `json:"n"`
}

func memoryKey(guid string) string { return "asked/" + guid }

// settled says whether comparing may begin: the log has been read to its end and what was asked for has had time to
// arrive; or it is taking too long.
func (d *Sweep) settled(now time.Time) bool {
	if d.Log.under() {
		return now.Sub(d.Log.Begun) >= patient
	}
	return !now.Before(d.Asked.Add(arrives))
}

// path names a walk.
type path string

// The walks, in the order in which they get to look.
const (
	throughLog      path = "log"
	throughInstalls path = "installations"
	throughUpdated  path = "updated"
	throughAll      path = "all"
)

// walks are those under way, in order.
func (d *Sweep) walks() []path {
	var out []path
	for _, p := range []path{throughLog, throughInstalls, throughUpdated, throughAll} {
		if d.walk(p).under() && (p == throughLog || !d.Held) {
			out = append(out, p)
		}
	}
	return out
}

func (d *Sweep) walk(p path) *Walk {
	switch p {
	case throughLog:
		return &d.Log
	case throughInstalls:
		return &d.Installs
	case throughUpdated:
		return &d.Updated
	default:
		return &d.Full
	}
}

// installation is the id in the key of a subject; 0 for Root and Token.
func installation(key string) int64 {
	id, err := strconv.ParseInt(key, 10, 64)
	if err != nil {
		return 0
	}
	return id
}

// RedeliverKey begins the keys of the outbox's entries that ask for a delivery; its id follows.
const RedeliverKey = "redeliver/"

// Decode reads a stored document; nothing stored is the zero Sweep.
func Decode(b []byte) (d Sweep, err error) {
	if len(b) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("decode the document of a sweep: %w", err)
	}
	return d, nil
}
