package actor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

// envelopeFormat is the newest form of a stored document that this code reads and the one it writes.
const envelopeFormat = 1

// errNewer: a document or mail of a format this code does not know. It is left alone for newer code (guarantee 11).
var errNewer = errors.New("written in a newer format")

// envelope is what the store keeps as the document: the behaviour's own document, and beside it everything the engine
// must remember across turns, so that one commit saves both.
type envelope struct {
	Format int             `json:"format"`
	Doc    json.RawMessage `json:"doc,omitempty"`
	Now    time.Time       `json:"now,omitzero"` // newest time seen; time of this subject never runs backwards
	// Touched is when it last decided something, the end of an entry for one; a try that failed is nothing to decide.
	Touched time.Time `json:"touched,omitzero"`

	Seq      int64 `json:"seq,omitempty"`      // mail consumed up to here
	Rev      int64 `json:"rev,omitempty"`      // revision given to the newest entry
	Attempts int64 `json:"attempts,omitempty"` // attempts recorded: an outcome is applied once, however often its save is resent

	Outbox  []Entry       `json:"outbox,omitempty"`
	Results []Result      `json:"results,omitempty"` // outcomes that Decide has not consumed
	Wake    time.Time     `json:"wake,omitzero"`     // asked for by the behaviour
	Index   []state.Index `json:"index,omitempty"`   // asked for by the behaviour
	Keep    time.Duration `json:"keep,omitempty"`    // asked for by the behaviour
	// Records is when the last record ends that was put with a TTL; those of dead letters are among them.
	Records time.Time `json:"records,omitzero"`

	Reconcile []planned `json:"reconcile,omitempty"` // compare with the outside from then on

	Hold         time.Time `json:"hold,omitzero"` // no work before: back-off after a crash or panic
	Crashes      int       `json:"crashes,omitempty"`
	Panics       int       `json:"panics,omitempty"`
	AloneThrough int64     `json:"alone_through,omitempty"` // mail up to here is decided one by one: one of it panicked
	Quarantined  time.Time `json:"quarantined,omitzero"`
	LastPanic    string    `json:"last_panic,omitempty"`

	Dead []DeadRef `json:"dead,omitempty"`

	raw     []byte // as it was read for an Ask
	decoded any    // Doc, where it is recalled
}

// The engine's own indexes. Labels are keys of entries, or ids of dead letters; scores are Unix milliseconds of the
// store's clock, from which something has been so.
const (
	IndexDead        = "dead"
	IndexQuarantine  = "quarantine"
	IndexFailing     = "failing"      // entries that did not succeed at once
	IndexStuck       = "stuck"        // those of them that failed stuckAfter times
	IndexContended   = "contended"    // entries that the far side puts off again and again, or whose credential it refuses
	IndexOpenOutside = "open-outside" // shutting entries whose tries are used up
	// IndexTouched has every subject that does not work by the clock (KindOptions), the newest first: its score is minus
	// the time at which it last decided something.
	IndexTouched = "touched"

	outboxLabel = "outbox" // of the document's place in state.OldestSince
)

// DeadRef points at a dead letter's record.
type DeadRef struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

func decodeEnvelope(b []byte) (envelope, error) {
	env := envelope{Format: envelopeFormat}
	if len(b) == 0 {
		return env, nil
	}
	err := json.Unmarshal(b, &env)
	if env.Format > envelopeFormat { // whatever else it holds may be of other types
		return env, fmt.Errorf("document format %d, this version knows %d: %w", env.Format, envelopeFormat, errNewer)
	}
	if err != nil {
		return env, fmt.Errorf("decode document: %w", err)
	}
	env.Format = envelopeFormat
	return env, nil
}

// clone is deep enough that apply and record on the copy leave the original as it was read.
func (e *envelope) clone() *envelope {
	c := *e
	c.Outbox = slices.Clone(e.Outbox)
	c.Results = slices.Clone(e.Results)
	c.Dead = slices.Clone(e.Dead)
	return &c
}

func (e *envelope) entry(key string) int {
	return slices.IndexFunc(e.Outbox, func(x Entry) bool { return x.Key == key })
}

// pick answers the entry to do next: shutting before permitting before cosmetic, then the oldest. nil = none is due.
func (e *envelope) pick(now time.Time) *Entry {
	var best *Entry
	for i := range e.Outbox {
		x := &e.Outbox[i]
		if x.NotBefore.After(now) {
			continue
		}
		if best == nil || x.Class < best.Class || x.Class == best.Class && x.Rev < best.Rev {
			best = x
		}
	}
	return best
}

// saved notes what is saved at now, before anything is computed from it.
func (e *envelope) saved(now time.Time, put []state.Record) {
	e.Now = now
	for _, r := range put {
		if r.TTL > 0 {
			e.Records = later(e.Records, now.Add(r.TTL))
		}
	}
}

// ends answers when the subject is dropped if nothing comes: the zero time = never. In quarantine no turn gets there.
func (e *envelope) ends() time.Time {
	if e.Keep == 0 || !e.since().IsZero() {
		return time.Time{}
	}
	return later(e.Now.Add(max(e.Keep, state.IDLife)), e.Records)
}

// due answers when there is something to do that no new mail brings: the zero time = never.
func (e *envelope) due(now time.Time) time.Time {
	if !e.Quarantined.IsZero() {
		return now.Add(shutEvery)
	}
	t := e.since()
	if t.IsZero() {
		t = e.ends()
	}
	if !t.IsZero() && e.Hold.After(t) {
		t = e.Hold
	}
	return t
}

// since answers from when on there is something to do that no new mail brings: the zero time = there is nothing.
func (e *envelope) since() time.Time {
	var t time.Time
	sooner := func(x time.Time) {
		if t.IsZero() || x.Before(t) {
			t = x
		}
	}
	if len(e.Results) > 0 {
		sooner(e.Now)
	}
	if !e.Wake.IsZero() {
		sooner(e.Wake)
	}
	for _, p := range e.Reconcile {
		sooner(p.At)
	}
	for _, x := range e.Outbox {
		sooner(later(x.Born, x.NotBefore))
	}
	return t
}

// planned is a reconcile to come.
type planned struct {
	At  time.Time `json:"at"`
	Why string    `json:"why"`
}

// planReconcile makes the subject compare itself with the outside at that time. One plan per reason: the newest.
func (e *envelope) planReconcile(at time.Time, why string) {
	plans := slices.DeleteFunc(slices.Clone(e.Reconcile), func(p planned) bool { return p.Why == why })
	e.Reconcile = append(plans, planned{at, why})
}

// takeReconcile takes the plans that are due off the list and answers their reasons, "" if there is none.
func (e *envelope) takeReconcile(now time.Time) string {
	var why []string
	e.Reconcile = slices.DeleteFunc(slices.Clone(e.Reconcile), func(p planned) bool {
		if !p.At.After(now) {
			why = append(why, p.Why)
		}
		return !p.At.After(now)
	})
	return strings.Join(why, ", ")
}

// merge puts wishes into the outbox. inFlight says that another process may be attempting an entry at this moment
// (an Ask under somebody's lease): then nothing counts as never attempted.
func (e *envelope) merge(wishes []Wish, now time.Time, inFlight bool) {
	for _, w := range wishes {
		i := e.entry(w.Key)
		if i < 0 {
			e.Rev++
			e.Outbox = append(e.Outbox, Entry{Wish: w, Rev: e.Rev, Born: now})
			continue
		}
		old := e.Outbox[i]
		if old.Kind == w.Kind && bytes.Equal(old.Want, w.Want) && sameSubject(old.To, w.To) {
			continue
		}
		attempted := old.Attempted() || inFlight
		if w.Undo && !attempted {
			e.Outbox = slices.Delete(e.Outbox, i, i+1)
			e.Results = append(e.Results, Result{Key: old.Key, Rev: old.Rev, Kind: old.Kind, Want: old.Want, Code: Dropped})
			continue
		}
		e.Rev++
		// The tries begin anew; since when it has been failing belongs to the thing outside.
		next := Entry{Wish: w, Rev: e.Rev, Born: now, Unsure: old.Unsure, Left: old.Left, FailingFrom: old.FailingFrom, Contended: old.Contended}
		if w.Class == Shutting {
			next.Exhausted = old.Exhausted // another picture of it does not shut it
		}
		if attempted && next.Unsure.IsZero() {
			next.Unsure, next.Left = now, now
		}
		e.Outbox[i] = next
	}
}

func sameSubject(a, b *state.Subject) bool { return a == b || a != nil && b != nil && *a == *b }

// again makes the shutting entries whose tries are used up due at once: somebody looks at the outside now.
func (e *envelope) again(now time.Time) {
	for i := range e.Outbox {
		if x := &e.Outbox[i]; !x.Exhausted.IsZero() && x.NotBefore.After(now) {
			x.NotBefore = now
		}
	}
}

// index is the behaviour's places and the engine's own. k is nil for a subject that no behaviour reads.
func (e *envelope) index(k *kind) []state.Index {
	out := slices.Clone(e.Index)
	place := func(name, label string, since time.Time) {
		out = append(out, state.Index{Name: name, Label: label, Score: float64(since.UnixMilli())})
	}
	if k != nil && !k.Clockwork && !e.Touched.IsZero() {
		out = append(out, state.Index{Name: IndexTouched, Score: -float64(e.Touched.UnixMilli())})
	}
	for _, d := range e.Dead {
		place(IndexDead, d.ID, d.At)
	}
	for _, x := range e.Outbox {
		if x.Tries > 0 || x.Contentions > 0 {
			place(IndexFailing, x.Key, x.FailingFrom)
		}
		if x.Tries >= stuckAfter {
			place(IndexStuck, x.Key, x.FailingFrom)
		}
		if x.Contentions > 0 {
			place(IndexContended, x.Key, x.Contended)
		}
		if !x.Exhausted.IsZero() {
			place(IndexOpenOutside, x.Key, x.Exhausted)
		}
	}
	if !e.Quarantined.IsZero() {
		place(IndexQuarantine, "", e.Quarantined)
	} else if t := e.since(); !t.IsZero() {
		place(state.OldestSince, outboxLabel, t)
	}
	return out
}
