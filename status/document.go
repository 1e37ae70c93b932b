package status

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Bounds of a document: anybody may open any number of pull requests at a public SHA (attack T30).
const (
	maxPulls   = 100
	maxRuns    = 64
	maxParts   = 128  // checks of jobs, over all runs
	maxJobs    = 64   // of one run
	maxListed  = 10   // pull requests named in a summary; beyond, a further one changes no text and costs no write
	maxTitle   = 200  // bytes kept of a title
	maxSummary = 4096 // bytes kept of a summary
)

// Document is what the commit remembers: who said what of it, and what the forge shows.
type Document struct {
	Repo  forge.Repo           `json:"repo"`            // as the newest mail named it
	Pulls map[string]Pull      `json:"pulls,omitempty"` // by subject
	Gates map[string]GateCheck `json:"gates,omitempty"` // by name of the check
	Runs  map[string]RunCheck  `json:"runs,omitempty"`  // by run key; those of jobs by run key, "/" and name
	// Contexts are those of clients, by scope.
	Contexts map[string]Context `json:"contexts,omitempty"`
	Count    int64              `json:"count"` // grows with mail and results; orders Heard, Born and Made
	// Recheck is when the checks are read back at the forge without anybody asking; zero = never.
	Recheck time.Time `json:"recheck,omitzero"`
	// Dry: decided in a dry run. What it then believes to be shown never was.
	Dry bool `json:"dry,omitempty"`
}

// Pull is the newest Gate of one pull request. One that left keeps its place without its texts: its Said is what a
// late older Gate is recognised by.
type Pull struct {
	Subject state.Subject `json:"subject"`
	Number  int           `json:"number"`
	Check   string        `json:"check"`
	Said    int64         `json:"said"` // newest Gate.Seq
	Open    bool          `json:"open,omitempty"`
	Granted bool          `json:"granted,omitempty"`
	Title   string        `json:"title,omitempty"`
	Summary string        `json:"summary,omitempty"`
	Heard   int64         `json:"heard"` // Document.Count when it spoke
	Owed
}

// Owed is a Written that somebody waits for.
type Owed struct {
	Tell  bool  `json:"tell,omitempty"`
	Since int64 `json:"since,omitempty"` // the Write.Seq that takes the message into account
}

// fresh marks an Owed whose message has not been taken into account yet; it never outlives a Decide.
const fresh = -1

// GateCheck is the gate check of one name.
type GateCheck struct {
	Write
	// Merged: a pull request with this head was merged. From then on nothing is written for its going.
	Merged bool `json:"merged,omitempty"`
}

// RunCheck is the presubmit check of one run.
type RunCheck struct {
	Write
	Pull state.Subject `json:"pull"`
	Name string        `json:"name"`
	Of   string        `json:"of,omitempty"`   // of the check of a job: the key of its run
	Said int64         `json:"said"`           // newest Presubmit.Seq
	Born int64         `json:"born"`           // Document.Count when the run was first heard of; orders runs of one name
	Made int64         `json:"made,omitempty"` // Document.Count when its newest check was made; 0 = none was
	Owed
	Report Report `json:"report,omitzero"`
}

// Face is what can be seen of a check.
type Face struct {
	State   forge.CheckState `json:"state"`
	Title   string           `json:"title,omitempty"`
	Summary string           `json:"summary,omitempty"`
	URL     string           `json:"url,omitempty"`
	Attempt int              `json:"attempt,omitempty"`
}

// Write is where one check stands between what is wanted and what is shown.
type Write struct {
	Seq   int64       `json:"seq"` // counts the changes of Want; each change is written at most once
	Want  Face        `json:"want"`
	Class actor.Class `json:"class"`
	Asked int64       `json:"asked,omitempty"` // newest Seq handed to the outbox
	Ended int64       `json:"ended,omitempty"` // newest Seq whose end is known
	// Undo is the Seq that only takes back a change: if that never left, there is nothing to write.
	Undo  int64  `json:"undo,omitempty"`
	Error string `json:"error,omitempty"` // why Ended is not shown

	Shown    Face   `json:"shown,omitzero"` // zero = nothing, or nobody knows
	ShownSeq int64  `json:"shown_seq,omitempty"`
	ID       string `json:"id,omitempty"` // the forge's id of what is shown
}

// pending says that the end of the newest change is not known.
func (w *Write) pending() bool { return w.Ended < w.Seq }

// out says that an entry of the outbox may be on its way to the forge.
func (w *Write) out() bool { return w.Ended < w.Asked }

// change makes f the wanted face and says whether it was another before.
func (w *Write) change(f Face) bool {
	if f == w.Want {
		return false
	}
	// Only a text that cannot overtake an opening or a shutting is cosmetic.
	cosmetic := f.State == w.Shown.State && f.Attempt == w.Shown.Attempt && (!w.out() || w.Class == actor.Cosmetic)
	w.Want, w.Class = f, classOf(f.State)
	if cosmetic {
		w.Class = actor.Cosmetic
	}
	w.Seq++
	if f == w.Shown {
		w.takeBack()
	}
	return true
}

// takeBack makes the newest change one that needs no write unless an earlier one has left.
func (w *Write) takeBack() {
	if w.Undo = w.Seq; !w.out() {
		w.settle("")
	}
}

// again asks for the wanted face once more, as if nothing were shown.
func (w *Write) again() {
	w.Shown, w.ShownSeq, w.ID, w.Error = Face{}, 0, "", ""
	w.Seq++
	w.Class = classOf(w.Want.State)
}

// settle ends the newest change without a write; why is empty where the forge shows all that is needed.
func (w *Write) settle(why string) { w.Ended, w.Error = w.Seq, why }

// answer takes the end of an entry.
func (w *Write) answer(r actor.Result, o order) {
	switch r.Code {
	case actor.Done:
		var done receipt
		_ = json.Unmarshal(r.Data, &done) // our own; without an id a new check run is made, which is right too
		w.Shown, w.ShownSeq, w.ID, w.Error = o.face(), o.Seq, done.ID, ""
	case actor.Dropped:
		// The forge shows what it showed. Unless the wish has changed since, that is what is wanted.
		if w.Undo == w.Seq {
			w.settle("")
		}
		return
	case actor.Refused, actor.GivenUp:
		// Given up is not the same as not happened: nobody knows what is shown.
		w.Shown, w.ShownSeq, w.ID, w.Error = Face{}, 0, "", cmp.Or(r.Error, string(r.Code))
	default: // the entry is still there
		return
	}
	w.Ended = max(w.Ended, o.Seq)
}

// classOf is the class of a write that changes the state.
func classOf(s forge.CheckState) actor.Class {
	switch s {
	case forge.CheckSuccess, forge.CheckQueued: // queued is the first step of opening (P7)
		return actor.Permitting
	case forge.CheckRunning:
		return actor.Cosmetic
	default:
		return actor.Shutting
	}
}

// order is what a wish for a check wants: Check, with the place it is booked under.
type order struct {
	Run     string      `json:"run,omitempty"` // run key; empty = the gate
	Seq     int64       `json:"seq"`
	Attempt int         `json:"attempt,omitempty"`
	Check   forge.Check `json:"check"`
	Dry     bool        `json:"dry,omitempty"` // wished for in a dry run: never written for real
}

func (o order) face() Face {
	return Face{State: o.Check.State, Title: o.Check.Title, Summary: o.Check.Summary, URL: o.Check.URL, Attempt: o.Attempt}
}

// receipt is what Do hands to Decide.
type receipt struct {
	ID string `json:"id,omitempty"`
	// Early: an earlier call for this check may still take effect, after this one.
	Early bool `json:"early,omitempty"`
}

// wake is when the forge is to be read back next; zero = not before somebody asks.
func (d Document) wake() time.Time {
	at := d.Recheck
	for _, c := range d.Contexts {
		if r := c.reads(); !r.IsZero() && (at.IsZero() || r.Before(at)) {
			at = r
		}
	}
	return at
}

// clone lets Decide work on a document without touching the one it was given.
func (d Document) clone() Document {
	d.Pulls, d.Gates, d.Runs, d.Contexts = filled(d.Pulls), filled(d.Gates), filled(d.Runs), filled(d.Contexts)
	return d
}

func filled[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

// at answers the pull requests of one gate, by number.
func (d Document) at(check string) []Pull {
	var out []Pull
	for _, p := range d.Pulls {
		if p.Check == check {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b Pull) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Subject.String(), b.Subject.String()))
	})
	return out
}

// numbers are the pull requests that a gate check is about, as far as a summary names them: the open ones first.
func numbers(pulls []Pull) []int {
	var open, left []int
	for _, p := range pulls {
		switch {
		case p.Number == 0: // a merge group
		case p.Open:
			open = append(open, p.Number)
		default:
			left = append(left, p.Number)
		}
	}
	all := append(open, left...)
	return all[:min(len(all), maxListed)]
}

// owner is the pull request that a run is of; nobody's for a merge group.
func (d Document) owner(r RunCheck) []int {
	if p := d.Pulls[r.Pull.String()]; p.Number != 0 {
		return []int{p.Number}
	}
	return nil
}

// runsByAge answers the keys of the runs, the oldest first.
func (d Document) runsByAge() []string {
	return slices.SortedFunc(maps.Keys(d.Runs), func(a, b string) int {
		return cmp.Or(cmp.Compare(d.Runs[a].Born, d.Runs[b].Born), cmp.Compare(a, b))
	})
}

// squeeze forgets what need not be kept and answers the pull requests that lost their place although a Written is
// owed to them. A standing grant never loses its place. Without its place a pull request's late Gates would be
// believed again; that they come once is then the mailbox's promise alone.
func (d *Document) squeeze() (lost []Pull) {
	for k, p := range d.Pulls {
		if !p.Open {
			p.Title, p.Summary = "", ""
			d.Pulls[k] = p
		}
	}
	if n := len(d.Pulls) - maxPulls; n > 0 {
		// First those that left, longest ago first; then the newest of the ungranted.
		rank := func(p Pull) (int, int64) {
			if !p.Open {
				return 0, p.Heard
			}
			return 1, -int64(p.Number)
		}
		keys := slices.SortedFunc(maps.Keys(d.Pulls), func(a, b string) int {
			ra, ha := rank(d.Pulls[a])
			rb, hb := rank(d.Pulls[b])
			return cmp.Or(cmp.Compare(ra, rb), cmp.Compare(ha, hb), cmp.Compare(a, b))
		})
		keys = slices.DeleteFunc(keys, func(k string) bool { return d.Pulls[k].Open && d.Pulls[k].Granted })
		for _, k := range keys[:min(n, len(keys))] {
			if p := d.Pulls[k]; p.Tell {
				lost = append(lost, p)
			}
			delete(d.Pulls, k)
		}
	}
	spare := map[bool]int{false: -maxRuns, true: -maxParts} // so that no run gives way to jobs
	for _, r := range d.Runs {
		spare[r.Of != ""]++
	}
	for _, k := range d.runsByAge() {
		if r := d.Runs[k]; spare[r.Of != ""] > 0 && !r.pending() && !r.Tell && !r.Report.open() {
			delete(d.Runs, k)
			spare[r.Of != ""]--
		}
	}
	return lost
}
