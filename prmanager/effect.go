package prmanager

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Kinds of the wishes that Do makes true. Those to a commit have the kinds of package status.
const (
	KindLabel   = "label"
	KindTrigger = "trigger"
	KindCancel  = "cancel"
	KindSay     = "say"
)

// want wishes for something, with words for the story, or none.
func (t *turn) want(w actor.Wish, words string) {
	t.wishes = append(t.wishes, w)
	switch {
	case words == "":
	case t.f.Policy.DryRun:
		t.line.Did = append(t.line.Did, "would "+words)
	default:
		t.line.Did = append(t.line.Did, words)
	}
}

// wish computes from the document what should be true outside, and wishes for what was not wished for yet. The order
// is that of safety: what shuts comes first and waits for nothing; what opens goes step by step, each step wished for
// when the one before is told back: grant stored, presubmit check shown, trigger accepted, gate success shown, label.
func (t *turn) wish() {
	d := &t.d
	d.LabelName = t.f.Policy.Label
	if !d.seen() || d.Adopting {
		return
	}
	if g := d.Standing(); g != nil && (d.Passing() || !d.starting()) {
		g.Opened = d.Passing() // a refusal shuts it again, until something is accepted
	}
	t.tellGates()
	t.wishAbsent()
	b := t.bench()
	b.cancels(t.reassert)
	b.file()
	b.checks()
	for key, s := range d.Triggers {
		if s.gone() || s.Order.Run.SHA != d.Head.SHA {
			s.Jobs = nil // they are over, and their checks have been told so
			d.Triggers[key] = s
		}
	}
	b.triggers()
	t.wishPresent()
}

func (t *turn) wishAbsent() {
	if t.d.Standing() == nil {
		t.wishLabel()
	}
}

func (t *turn) wishPresent() {
	if t.d.Standing() != nil {
		t.wishLabel()
	}
}

// startingWait is how long "starting presubmit" is kept back: nearly always the gate opens first, and nobody needs a
// check in between.
const startingWait = 10 * time.Second

// tellGates tells the commit of the head how the gate stands, and those of former heads that it is theirs no more.
func (t *turn) tellGates() {
	d := &t.d
	former := slices.DeleteFunc(slices.Sorted(maps.Keys(d.Told)), func(sha string) bool { return sha == d.Head.SHA })
	for _, sha := range append([]string{d.Head.SHA}, former...) {
		old, known := d.Told[sha]
		says := Told{Title: "No head of an open pull request"}
		if sha == d.Head.SHA {
			text := d.Waits()
			says = Told{Open: d.Open, Merged: d.Merged, Granted: d.Passing(), Title: cut(text, 140), Summary: text}
			if !known && !d.Open {
				continue // nothing of ours is there
			}
		}
		says.Seq, says.Heard, says.Shown, says.Why = old.Seq, old.Heard, old.Shown, old.Why
		if known && says == old && !t.reassert {
			continue
		}
		d.Seq++
		says.Seq, says.Heard, says.Shown, says.Why = d.Seq, false, "", ""
		if d.Told == nil {
			d.Told = map[string]Told{}
		}
		d.Told[sha] = says
		to := status.Subject(d.Ref.Repo, sha)
		w := actor.Wish{Key: "gate/" + sha, Class: actor.Shutting, Kind: status.KindGate, To: &to, Want: encoded(status.Gate{
			Pull: t.s, Ref: d.Ref, SHA: sha, Check: t.f.Policy.Check, Seq: says.Seq,
			Open: says.Open, Merged: says.Merged, Granted: says.Granted, Title: says.Title, Summary: says.Summary, Tell: says.Granted, Dry: t.f.Policy.DryRun,
		})}
		words := "gate " + short(sha) + " shut"
		if !says.Granted && d.starting() && (!known || old.Heard && !old.Granted) {
			w.NotBefore = t.now.Add(startingWait)
		}
		switch {
		case says.Granted:
			w.Class, words = actor.Permitting, "gate "+short(sha)+" open"
			t.pass(GateOpen)
		case says.Merged, sha != d.Head.SHA:
			words = "gate " + short(sha) + " left"
			t.pass(GateLeft)
		default:
			t.pass(GateShut)
		}
		t.want(w, words)
	}
}

// kept is how long what is over is known after its last event: a pull request that is closed, or was never seen, a
// merge group. Should it begin again, it is one never heard of.
const kept = 90 * 24 * time.Hour

// step ends the decision.
func (t *turn) step() actor.Step[PR] {
	d := &t.d
	st := d.State()
	asks := st == StateAwaiting && !d.Draft // a draft asks for nobody's approval yet
	if !asks {
		d.Since = time.Time{}
	} else if d.Since.IsZero() {
		d.Since = t.now
	}
	step := actor.Step[PR]{Next: t.d, Wishes: t.wishes, Wake: t.wake(), Compared: t.reassert, Why: t.why}
	if !d.Open {
		step.Keep = kept
	}
	if d.Ref.Number != 0 {
		label := d.Ref.String()
		step.Index = []state.Index{{Name: "name", Label: label}}
		switch {
		case asks:
			step.Index = append(step.Index, state.Index{Name: "waiting", Label: label, Score: float64(d.Since.UnixMilli())})
		case st == StateRunning:
			step.Index = append(step.Index, state.Index{Name: "running", Label: label})
		}
	}
	if t.tells || len(t.line.Why)+len(t.line.Did) > 0 {
		t.line.At, t.line.State, t.line.Head = t.now, st, d.Head.SHA
		step.Journal = [][]byte{encoded(t.line)}
	}
	return step
}

// wake is when something falls due by itself.
func (t *turn) wake() time.Time {
	d := &t.d
	var at time.Time
	soonest := func(v time.Time) {
		if v.After(t.now) && (at.IsZero() || v.Before(at)) {
			at = v
		}
	}
	for _, q := range d.Questions {
		soonest(later(q.Next, t.now.Add(time.Millisecond)))
		soonest(q.Since.Add(askLoud))
	}
	if d.Label.Quiet.After(t.now) && d.seen() && !d.Merged && (d.Standing() == nil) != (d.Label.On == Absent) {
		soonest(d.Label.Quiet)
	}
	return at
}

// Line is one line of a pull request's story: one decision. It is what explain prints and the page shows.
type Line struct {
	At    time.Time `json:"at"`            // store time
	In    []string  `json:"in,omitempty"`  // what was heard, in words
	Why   []string  `json:"why,omitempty"` // the boxes passed, each with what a reader needs besides
	Did   []string  `json:"did,omitempty"` // what was wished for
	State State     `json:"state"`         // after it
	Head  string    `json:"head,omitempty"`
}

// String is the line for people.
func (l Line) String() string {
	part := func(words []string, none string) string {
		if len(words) == 0 {
			return none
		}
		return strings.Join(words, "; ")
	}
	return fmt.Sprintf("%s  %s → %s → %s [%s]", l.At.UTC().Format(time.DateTime),
		part(l.In, "time passed"), part(l.Why, "nothing changes"), part(l.Did, "nothing to do"), l.State)
}

// encoded is v in JSON. Only types of ours are encoded, none of which can fail.
func encoded(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}
