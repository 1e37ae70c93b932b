package status

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

const sha = "0123456789abcdef0123456789abcdef01234567"

var (
	repo    = forge.Repo{Instance: "github", ID: 1296269, Name: "octo/hello"}
	subject = Subject(repo, sha)
	start   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func pull(n int) state.Subject {
	return state.Subject{Instance: "github", Project: "1296269", Kind: "pr", Key: strconv.Itoa(n)}
}

func ref(n int) forge.Ref { return forge.Ref{Repo: repo, Number: n} }

// fail is what the forge does with the next call.
type fail int

const (
	works   fail = iota
	lost         // takes effect, the answer is lost
	broken       // 502, no effect
	limited      // 429
	denied       // 401
	refused      // 422
)

func (f fail) err() error {
	switch f {
	case lost, broken:
		return &forge.Fault{Class: forge.Retriable, Op: "write check", Status: 502, Err: errors.New("bad gateway")}
	case limited:
		return &forge.Fault{Class: forge.Contention, Op: "write check", Status: 429, After: time.Second, Err: errors.New("slow down")}
	case denied:
		return &forge.Fault{Class: forge.Auth, Op: "write check", Status: 401, Err: errors.New("bad credentials")}
	case refused:
		return &forge.Fault{Class: forge.Permanent, Op: "write check", Status: 422, Err: errors.New("no")}
	}
	return nil
}

// hub is a forge with check runs, in the order they were made.
type hub struct {
	shelf
	runs    []forge.Check
	fail    func() fail // for each write; nil = works
	blind   error       // for each look
	onWrite func(forge.Check)
	onLook  func(context.Context)
	urgency []forge.Urgency // of each write
	bad     []string        // what no forge should be asked
	writes  int
	looks   int
}

func (h *hub) FindCheck(ctx context.Context, c forge.Check) (string, bool, error) {
	h.looks++
	if h.onLook != nil {
		h.onLook(ctx)
	}
	if h.blind != nil {
		return "", false, h.blind
	}
	n := h.newest(c.Name)
	if n == nil || n.ExternalID != c.ExternalID || n.State != c.State || c.ID != "" && c.ID != n.ID {
		return "", false, nil
	}
	return n.ID, true, nil
}

func (h *hub) WriteCheck(ctx context.Context, c forge.Check) (string, error) {
	f := works
	if h.fail != nil {
		f = h.fail()
	}
	if f != works && f != lost {
		return "", f.err()
	}
	h.writes++
	h.urgency = append(h.urgency, forge.UrgencyOf(ctx))
	if h.onWrite != nil {
		h.onWrite(c)
	}
	if c.SHA != sha || c.Repo.ID != repo.ID {
		h.bad = append(h.bad, fmt.Sprintf("written elsewhere: %+v", c))
	}
	if c.ID == "" {
		c.ID = strconv.Itoa(1000 + len(h.runs))
		h.runs = append(h.runs, c)
		return c.ID, f.err()
	}
	i := slices.IndexFunc(h.runs, func(r forge.Check) bool { return r.ID == c.ID })
	switch {
	case i < 0:
		h.bad = append(h.bad, "update of an unknown check run")
	case h.runs[i].State.Completed() && !c.State.Completed():
		h.bad = append(h.bad, fmt.Sprintf("%s reopened as %s", h.runs[i].State, c.State))
	default:
		h.runs[i] = c
	}
	return c.ID, f.err()
}

func (h *hub) newest(name string) *forge.Check {
	for i := range slices.Backward(h.runs) {
		if h.runs[i].Name == name {
			return &h.runs[i]
		}
	}
	return nil
}

func (h *hub) state(name string) forge.CheckState {
	if c := h.newest(name); c != nil {
		return c.State
	}
	return ""
}

// loop is the engine in small: one subject, its mail, its outbox; everything that is saved goes through JSON.
type loop struct {
	t         failer
	dry       bool
	b         *Behaviour
	hub       *hub
	doc       []byte
	outbox    []actor.Entry
	results   []actor.Result
	mail      []state.Mail
	wake      time.Time
	reconcile string
	now       time.Time
	seq, rev  int64
	told      map[string][]Written // by "<pull>/<key>"
	why       []string
	dead      []actor.DeadMail
	codes     []actor.Code
	crash     func(at string) bool // "decided": before the save; "done": after the call, before its outcome is saved
	decides   int
	index     []state.Index
	records   map[string][]byte
	heard     []Reported
	quiet     bool // the newest refusal was
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
	Context() context.Context
}

func newLoop(t failer) *loop {
	l := &loop{t: t, hub: &hub{}, now: start, told: map[string][]Written{}, records: map[string][]byte{}}
	l.hub.clock = func() time.Time { return l.now }
	l.b = New(func(instance string) (Forge, error) {
		if instance != "github" {
			return nil, errors.New("no such forge")
		}
		return l.hub, nil
	}, func(forge.Repo) bool { return l.dry })
	return l
}

func (l *loop) say(kind string, body any) {
	l.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		l.t.Fatalf("%v", err)
	}
	l.seq++
	l.mail = append(l.mail, state.Mail{Seq: l.seq, Kind: kind, Format: Format, At: l.now, Body: b})
}

func (l *loop) gate(n int, seq int64, o ...func(*Gate)) {
	l.t.Helper()
	g := Gate{Pull: pull(n), Ref: ref(n), SHA: sha, Check: "CI gate", Seq: seq, Open: true, Title: fmt.Sprintf("Awaiting #%d", n), Summary: "reason", Tell: true}
	for _, f := range o {
		f(&g)
	}
	l.say(KindGate, g)
}

func granted(g *Gate)             { g.Granted, g.Title = true, "Approved by @maintainer for 0123456" }
func closed(g *Gate)              { g.Open, g.Title = false, "Closed" }
func merged(g *Gate)              { g.Open, g.Merged, g.Title = false, true, "Merged" }
func silent(g *Gate)              { g.Tell = false }
func titled(s string) func(*Gate) { return func(g *Gate) { g.Title = s } }

func (l *loop) presubmit(n int, key string, seq int64, s forge.CheckState, attempt ...int) {
	l.t.Helper()
	p := Presubmit{Pull: pull(n), Ref: ref(n), SHA: sha, Key: key, Name: "presubmit", Seq: seq, State: s, Title: string(s), Tell: true}
	if len(attempt) > 0 {
		p.Attempt = attempt[0]
	}
	l.say(KindPresubmit, p)
}

func (l *loop) document() Document {
	l.t.Helper()
	var d Document
	if l.doc != nil {
		if err := json.Unmarshal(l.doc, &d); err != nil {
			l.t.Fatalf("document: %v", err)
		}
	}
	return d
}

func (l *loop) decide() {
	l.t.Helper()
	in := actor.Inputs{Mail: l.mail, Results: l.results, Reconcile: l.reconcile}
	d := l.document()
	facts := l.b.Look(l.t.Context(), subject, d, in, l.now)
	step := l.b.Decide(subject, d, facts, in, l.now)
	if again := l.b.Decide(subject, d, facts, in, l.now); string(encoded(again)) != string(encoded(step)) {
		l.t.Fatalf("Decide is not pure:\n%s\n%s", encoded(step), encoded(again))
	}
	if before := encoded(d); l.doc != nil && !bytes.Equal(before, l.doc) {
		l.t.Fatalf("Decide changed its document:\n%s\n%s", l.doc, before)
	}
	l.decides++
	if l.crash != nil && l.crash("decided") {
		return
	}
	l.mail, l.results, l.reconcile = nil, nil, ""
	l.why, l.dead, l.index = append(l.why, step.Why...), append(l.dead, step.Dead...), step.Index
	l.save(step)
	if !l.wake.IsZero() && !l.wake.After(l.now) {
		l.wake = l.now.Add(time.Second)
	}
}

func (l *loop) save(step actor.Step[Document]) {
	l.doc, l.wake = encoded(step.Next), step.Wake
	for _, r := range step.Put {
		if l.records[r.Key] = r.Value; r.Value == nil {
			delete(l.records, r.Key)
		}
	}
	for _, w := range step.Wishes {
		l.merge(w)
	}
}

func (l *loop) merge(w actor.Wish) {
	i := slices.IndexFunc(l.outbox, func(x actor.Entry) bool { return x.Key == w.Key })
	if i < 0 {
		l.rev++
		l.outbox = append(l.outbox, actor.Entry{Wish: w, Rev: l.rev, Born: l.now})
		return
	}
	old := l.outbox[i]
	if old.Kind == w.Kind && bytes.Equal(old.Want, w.Want) {
		return
	}
	if w.Undo && !old.Attempted() {
		l.outbox = slices.Delete(l.outbox, i, i+1)
		l.results = append(l.results, actor.Result{Key: old.Key, Rev: old.Rev, Kind: old.Kind, Want: old.Want, Code: actor.Dropped})
		return
	}
	l.rev++
	next := actor.Entry{Wish: w, Rev: l.rev, Born: l.now, Unsure: old.Unsure, Left: old.Left}
	if old.Attempted() && next.Unsure.IsZero() {
		next.Unsure, next.Left = l.now, l.now
	}
	l.outbox[i] = next
}

// step does one thing and says whether there was anything to do.
func (l *loop) step() bool {
	l.t.Helper()
	if len(l.mail)+len(l.results) > 0 || l.reconcile != "" || !l.wake.IsZero() && !l.wake.After(l.now) {
		l.decide()
		return true
	}
	best := -1
	for i, x := range l.outbox {
		if !x.NotBefore.After(l.now) && (best < 0 || x.Class < l.outbox[best].Class || x.Class == l.outbox[best].Class && x.Rev < l.outbox[best].Rev) {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	l.do(best)
	return true
}

func (l *loop) do(i int) {
	l.t.Helper()
	x := l.outbox[i]
	finish := func(o actor.Outcome) {
		r := actor.Result{Key: x.Key, Rev: x.Rev, Kind: x.Kind, Want: x.Want, Code: o.Code, Data: o.Data}
		if o.Err != nil {
			r.Error = o.Err.Error()
		}
		l.results = append(l.results, r)
		l.outbox = slices.Delete(l.outbox, i, i+1)
	}
	if x.To != nil && x.Kind == KindReported {
		var r Reported
		if err := json.Unmarshal(x.Want, &r); err != nil {
			l.t.Fatalf("reported %s: %v", x.Want, err)
		}
		l.heard = append(l.heard, r)
	}
	if x.To != nil && x.Kind != KindWritten {
		finish(actor.Outcome{Code: actor.Done})
		return
	}
	if x.To != nil {
		var w Written
		if err := json.Unmarshal(x.Want, &w); err != nil || w.SHA != sha {
			l.t.Fatalf("told %s: %v", x.Want, err)
		}
		l.told[x.To.String()+"/"+w.Key] = append(l.told[x.To.String()+"/"+w.Key], w)
		finish(actor.Outcome{Code: actor.Done})
		return
	}
	out := l.b.Do(l.t.Context(), subject, x, l.now, func(context.Context) error {
		if len(l.mail) > 0 {
			return errors.New("unread mail")
		}
		return nil
	})
	l.codes, l.quiet = append(l.codes, out.Code), out.Quiet
	e := &l.outbox[i]
	if l.crash != nil && l.crash("done") {
		for i := range l.outbox {
			if l.outbox[i].Unsure.IsZero() {
				l.outbox[i].Unsure = l.now
			}
			l.outbox[i].Left = l.now
		}
		l.reconcile = "takeover"
		return
	}
	if out.Err != nil {
		e.LastError, e.LastData = out.Err.Error(), out.Data
	}
	switch out.Code {
	case actor.Done, actor.Refused:
		finish(out)
	case actor.Failed:
		if e.Unsure.IsZero() {
			e.Unsure = l.now
		}
		e.Left = l.now
		e.Tries++
		e.NotBefore = l.now.Add(time.Second << min(e.Tries, 8))
	case actor.Stale:
	default:
		e.NotBefore = l.now.Add(max(out.After, time.Second))
	}
}

// run works until nothing is left, letting time pass where everything waits.
func (l *loop) run() {
	l.t.Helper()
	for range 10_000 {
		if l.step() {
			continue
		}
		next := l.wake
		for _, x := range l.outbox {
			if next.IsZero() || x.NotBefore.Before(next) {
				next = x.NotBefore
			}
		}
		if next.IsZero() {
			return
		}
		l.now = next
	}
	l.t.Fatalf("the loop does not come to rest: outbox %s", encoded(l.outbox))
}

func (l *loop) lastTold(n int, key string) Written {
	w := l.told[pull(n).String()+"/"+key]
	if len(w) == 0 {
		return Written{}
	}
	return w[len(w)-1]
}

func (l *loop) want(t *testing.T, name string, s forge.CheckState, runs int) {
	t.Helper()
	l.run()
	if got := l.hub.state(name); got != s {
		t.Fatalf("%s shows %q, want %q", name, got, s)
	}
	if len(l.hub.runs) != runs {
		t.Fatalf("%d check runs, want %d: %s", len(l.hub.runs), runs, encoded(l.hub.runs))
	}
	if len(l.hub.bad) > 0 {
		t.Fatalf("the forge was asked what it should not be: %v", l.hub.bad)
	}
}
