package alerts_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// patient is a subject whose ailments each test chooses. Every mail makes it wish for one effect.
type patient struct {
	class  actor.Class
	out    atomic.Pointer[actor.Outcome] // of its effect; nil = it succeeds
	index  atomic.Pointer[state.Index]   // where it stands from its next decision on; its score is taken from the clock
	panics atomic.Bool
	tries  atomic.Int64
}

func (p *patient) Look(context.Context, state.Subject, int, actor.Inputs, time.Time) struct{} {
	return struct{}{}
}

func (p *patient) Decide(_ state.Subject, n int, _ struct{}, in actor.Inputs, now time.Time) actor.Step[int] {
	step := actor.Step[int]{Next: n + len(in.Mail)}
	if len(in.Mail) > 0 {
		step.Wake = now.Add(time.Second) // a decision without mail
		want := json.RawMessage(`"` + string(in.Mail[0].Body) + `"`)
		step.Wishes = []actor.Wish{{Key: "effect", Class: p.class, Kind: "effect", Want: want}}
	} else if p.panics.Load() {
		panic("cannot stand it")
	}
	if x := p.index.Load(); x != nil {
		step.Index = []state.Index{{Name: x.Name, Label: x.Label, Score: float64(now.UnixMilli())}}
	}
	return step
}

func (p *patient) Do(context.Context, state.Subject, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
	p.tries.Add(1)
	if out := p.out.Load(); out != nil {
		return *out
	}
	return actor.Outcome{Code: actor.Done}
}

func (p *patient) ails(code actor.Code) {
	p.out.Store(&actor.Outcome{Code: code, Err: errors.New("it hurts")})
}

var sick = state.Subject{Instance: "test", Project: "1", Kind: "patient", Key: "a"}

// ward is a process that watches a patient, on virtual time.
type ward struct {
	*testing.T
	*patient
	*actor.Engine
	store  *embedded.Store
	locker lock.Locker
	config alerts.Config
	poll   time.Duration
	logged *observer.ObservedLogs
	stop   func()

	mu     sync.Mutex
	posted []alerts.Notice
	ids    []string
	answer actor.Outcome // of the receiver
}

func newWard(t *testing.T, poll time.Duration) *ward {
	t.Helper()
	store, err := embedded.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), embedded.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	core, logged := observer.New(zapcore.DebugLevel)
	w := &ward{
		T: t, patient: &patient{class: actor.Permitting}, store: store, locker: lock.NewLocal(15 * time.Second), logged: logged,
		poll: poll, answer: actor.Outcome{Code: actor.Done},
	}
	w.config = alerts.Config{Store: store, Log: zap.New(core), Waiting: time.Hour, Post: w.post}
	w.Engine = w.instance(1)
	t.Cleanup(func() {
		w.stop()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	w.stop = w.run(w.Engine)
	return w
}

// instance is another process on the same store, whose code reads mail up to a format.
func (w *ward) instance(format int) *actor.Engine {
	e := actor.New(w.store, w.locker, actor.Options{Poll: w.poll})
	actor.Register(e, "patient", w.patient, actor.KindOptions{MailFormat: format})
	actor.Register(e, alerts.Kind, alerts.New(w.config), actor.KindOptions{Clockwork: true})
	if _, err := actor.Ask(w.Context(), e, alerts.Subject(), "", func(d alerts.Doc, now time.Time) (actor.Step[alerts.Doc], error) {
		return alerts.Seed(d, now), nil
	}); err != nil {
		w.Fatal(err)
	}
	return e
}

// run starts an instance; what it answers stops and joins it.
func (w *ward) run(e *actor.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(w.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	return func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.Error(err)
			}
		})
	}
}

func (w *ward) post(_ context.Context, id string, body []byte) actor.Outcome {
	w.mu.Lock()
	defer w.mu.Unlock()
	var n alerts.Notice
	if err := json.Unmarshal(body, &n); err != nil {
		w.Error(err)
	}
	w.posted, w.ids = append(w.posted, n), append(w.ids, id)
	return w.answer
}

func (w *ward) tell(s state.Subject, body string, format int) {
	w.Helper()
	if _, err := w.Tell(w.Context(), state.Delivery{Subject: s, ID: "t:" + s.Key + body, Kind: "note", Format: format, Body: []byte(body)}); err != nil {
		w.Fatal(err)
	}
}

func (w *ward) read() alerts.Doc {
	w.Helper()
	d, err := alerts.Read(w.Context(), w.store)
	if err != nil {
		w.Fatal(err)
	}
	return d
}

// standing are the names of what stands.
func (w *ward) standing() []string {
	w.Helper()
	var names []string
	for _, a := range w.read().Standing {
		names = append(names, a.Name)
	}
	return names
}

func (w *ward) stands(name string) bool { return slices.Contains(w.standing(), name) }

// told are the changes of one alert, as the log and as the receiver got them.
func (w *ward) told(name string) (logged, posted []string) {
	for _, e := range w.logged.All() {
		if e.ContextMap()["alert"] == name {
			logged = append(logged, e.Level.String()+" "+e.Message)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.posted {
		if n.Data.Name == name {
			posted = append(posted, n.Type)
		}
	}
	return logged, posted
}

func elapse(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// Each alert fires by itself, not too early and within a minute of its time, is told once, and clears by itself.
func TestEachAlertFiresAndClearsItself(t *testing.T) {
	const soon = 2 * time.Minute
	seen := map[string]bool{}
	for _, c := range []struct {
		name  string
		ail   func(*ward)
		quiet time.Duration // it does not stand yet after so long …
		fires time.Duration // … and does after so long
		mend  func(*ward)
		clear time.Duration // and is gone after so long
		words string
	}{
		{
			name: alerts.Contention, quiet: 4 * time.Minute, fires: 7 * time.Minute, clear: soon, words: "test/1/patient/a effect",
			ail:  func(w *ward) { w.ails(actor.Contention); w.tell(sick, "go", 1) },
			mend: func(w *ward) { w.out.Store(nil) },
		}, {
			name: alerts.Contention, quiet: 4 * time.Minute, fires: 7 * time.Minute, clear: 18 * time.Minute, words: "credential",
			ail:  func(w *ward) { w.ails(actor.AuthPause); w.tell(sick, "go", 1) },
			mend: func(w *ward) { w.out.Store(nil) },
		}, {
			name: alerts.DeadLetter, fires: soon, clear: soon, words: "test/1/patient/a e1",
			ail: func(w *ward) { w.ails(actor.Refused); w.tell(sick, "go", 1) },
			mend: func(w *ward) {
				if err := w.Discard(w.Context(), sick, "e1", "tester"); err != nil {
					w.Error(err)
				}
			},
		}, {
			name: alerts.Failing, quiet: 14 * time.Minute, fires: 17 * time.Minute, clear: 45 * time.Minute, words: "test/1/patient/a effect",
			ail:  func(w *ward) { w.ails(actor.Failed); w.tell(sick, "go", 1) },
			mend: func(w *ward) { w.out.Store(nil) },
		}, {
			name: alerts.Hook, fires: soon, clear: soon, words: "the forge cannot reach us",
			ail: func(w *ward) {
				w.index.Store(&state.Index{Name: alerts.IndexHook, Label: "the forge cannot reach us"})
				w.tell(sick, "go", 1)
			},
			mend: func(w *ward) { w.index.Store(nil); w.tell(sick, "well", 1) },
		}, {
			// Written by newer code, which alone can read it.
			name: alerts.OldestWork, quiet: 14 * time.Minute, fires: 17 * time.Minute, clear: soon, words: "test/1/patient/a mail",
			ail:  func(w *ward) { w.tell(sick, "go", 2) },
			mend: func(w *ward) { w.stop(); w.stop = w.run(w.instance(2)) },
		}, {
			name: alerts.OpenOutside, quiet: 48 * time.Hour, fires: 108 * time.Hour, clear: 8 * time.Hour, words: "test/1/patient/a effect",
			ail:  func(w *ward) { w.class = actor.Shutting; w.ails(actor.Failed); w.tell(sick, "go", 1) },
			mend: func(w *ward) { w.out.Store(nil) },
		}, {
			name: alerts.Quarantine, fires: 5 * time.Minute, clear: soon, words: "test/1/patient/a",
			ail: func(w *ward) { w.panics.Store(true); w.tell(sick, "go", 1) },
			mend: func(w *ward) {
				w.panics.Store(false)
				if err := w.Release(w.Context(), sick, "tester"); err != nil {
					w.Error(err)
				}
			},
		}, {
			name: alerts.Stalled, quiet: 4 * time.Minute, fires: 7 * time.Minute, clear: soon, words: "test/1/patient/a",
			ail:  func(w *ward) { w.tell(sick, "go", 2) },
			mend: func(w *ward) { w.stop(); w.stop = w.run(w.instance(2)) },
		}, {
			name: alerts.ApprovalWaiting, quiet: 58 * time.Minute, fires: 63 * time.Minute, clear: soon, words: "o/r#1",
			ail: func(w *ward) {
				w.index.Store(&state.Index{Name: "waiting", Label: "github:o/r#1"})
				w.tell(sick, "go", 1)
			},
			mend: func(w *ward) { w.index.Store(nil); w.tell(sick, "approved", 1) },
		},
	} {
		t.Run(c.name+" "+c.words, func(t *testing.T) {
			seen[c.name] = true
			synctest.Test(t, func(t *testing.T) {
				w := newWard(t, min(max(10*time.Second, c.quiet/200), 4*time.Minute))
				elapse(time.Hour)
				if got := w.standing(); len(got) != 0 {
					t.Fatalf("of a healthy system: %v", got)
				}
				began := time.Now()
				c.ail(w)
				elapse(c.quiet)
				if c.quiet > 0 && w.stands(c.name) {
					t.Errorf("stands after %v", c.quiet)
				}
				elapse(c.fires - c.quiet)
				i := slices.IndexFunc(w.read().Standing, func(a alerts.Alert) bool { return a.Name == c.name })
				if i < 0 {
					t.Fatalf("after %v only %v stand", c.fires, w.standing())
				}
				a := w.read().Standing[i]
				if a.Subject != sick || a.Count != 1 || !strings.Contains(a.Words, c.words) || a.Fired.Before(began) {
					t.Errorf("%+v", a)
				}
				elapse(5 * time.Minute)
				if d := w.read(); !slices.ContainsFunc(d.Standing, func(b alerts.Alert) bool { return b.Name == a.Name && b.Fired.Equal(a.Fired) }) {
					t.Errorf("fired anew: %+v", d.Standing)
				}
				c.mend(w)
				elapse(c.clear)
				if w.stands(c.name) {
					t.Errorf("still stands %v after it was mended: %+v", c.clear, w.read().Standing)
				}
				logged, posted := w.told(c.name)
				if !slices.Equal(logged, []string{"error alert", "info alert cleared"}) || !slices.Equal(posted, []string{alerts.Fired, alerts.Cleared}) {
					t.Errorf("logged %q, posted %q", logged, posted)
				}
				if story, err := w.store.Journal(t.Context(), alerts.Subject(), 100); err != nil || strings.Count(string(slices.Concat(story...)), `"alert":"`+c.name) != 2 {
					t.Errorf("the story: %s, %v", story, err)
				}
			})
		})
	}
	runbook, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range alerts.Names() {
		if !seen[name] {
			t.Errorf("no case for %s", name)
		}
		if !strings.Contains(string(runbook), "\n### "+name+"\n") {
			t.Errorf("no section of the runbook for %s", name)
		}
	}
}

// blind is a store one of whose indexes cannot be read.
type blind struct {
	*embedded.Store
	index atomic.Pointer[string]
}

func (b *blind) List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error) {
	if x := b.index.Load(); x != nil && *x == index {
		return nil, errors.New("cannot be read")
	}
	return b.Store.List(ctx, index, prefix, limit)
}

// What cannot be read is neither yes nor no: what stands goes on standing, nothing fires, and the rest is judged.
func TestUnknownChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		store := &blind{Store: w.store}
		w.config.Store = store
		w.stop()
		w.stop = w.run(w.instance(1))
		dead, quarantine := actor.IndexDead, actor.IndexQuarantine

		store.index.Store(&dead)
		w.ails(actor.Refused)
		w.tell(sick, "go", 1)
		w.tell(state.Subject{Instance: "test", Project: "1", Kind: "nobody's", Key: "b"}, "go", 1)
		elapse(20 * time.Minute)
		if got := w.standing(); !slices.Equal(got, []string{alerts.OldestWork, alerts.Stalled}) {
			t.Errorf("while the dead letters cannot be read: %v", got)
		}
		// Whether what waits is in quarantine is not known either.
		store.index.Store(&quarantine)
		elapse(2 * time.Minute)
		if got := w.standing(); !slices.Equal(got, []string{alerts.DeadLetter, alerts.OldestWork, alerts.Stalled}) {
			t.Errorf("while the quarantine cannot be read: %v", got)
		}
		store.index.Store(&dead)
		if err := w.Discard(t.Context(), sick, "e1", "tester"); err != nil {
			t.Fatal(err)
		}
		elapse(2 * time.Minute)
		if !w.stands(alerts.DeadLetter) {
			t.Error("cleared without being read")
		}
		story, err := w.store.Journal(t.Context(), alerts.Subject(), 100)
		if err != nil || !strings.Contains(string(slices.Concat(story...)), "cannot be read") {
			t.Errorf("the story does not tell why: %s, %v", story, err)
		}
	})
}

// An alert that nobody judges cannot say that nobody works. Whoever reads it can.
func TestSilenceOfTheWatchIsAnAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		elapse(time.Hour)
		w.stop()
		elapse(3 * time.Minute) // the last judgement is up to a minute and a poll older
		if got := w.standing(); len(got) != 0 {
			t.Errorf("after 3 minutes: %v", got)
		}
		elapse(3 * time.Minute)
		d := w.read()
		if len(d.Standing) != 1 || d.Standing[0].Name != alerts.Stalled || !d.Standing[0].Since.Equal(d.Judged) {
			t.Errorf("after 6 minutes: %+v", d)
		}
		w.stop = w.run(w.instance(1))
		elapse(time.Minute)
		if got := w.standing(); len(got) != 0 {
			t.Errorf("when it is judged again: %v", got)
		}
	})
}

// What became old while nobody was there to work gets the time again that it has otherwise.
func TestDowntimeIsNobodysDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		elapse(time.Hour)
		w.stop()
		w.tell(sick, "go", 2)
		elapse(3 * time.Hour)
		w.stop = w.run(w.instance(1))
		elapse(4 * time.Minute)
		if got := w.standing(); len(got) != 0 {
			t.Errorf("4 minutes after the start: %v", got)
		}
		elapse(2 * time.Minute)
		if got := w.standing(); !slices.Equal(got, []string{alerts.Stalled}) {
			t.Errorf("6 minutes after the start: %v", got)
		}
		elapse(11 * time.Minute)
		if got := w.standing(); !slices.Equal(got, []string{alerts.OldestWork, alerts.Stalled}) {
			t.Errorf("17 minutes after the start: %v", got)
		}
	})
}

// As long as something else gets done, one subject that waits is no standstill.
func TestOneThatWaitsIsNoStandstill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		w.tell(sick, "go", 2)
		well := sick
		well.Key = "b"
		for i := range 10 {
			w.tell(well, string(rune('a'+i)), 1)
			elapse(4 * time.Minute)
			if w.stands(alerts.Stalled) {
				t.Fatalf("after %d minutes", 4*i)
			}
		}
		if !w.stands(alerts.OldestWork) {
			t.Errorf("only %v", w.standing())
		}
	})
}

// Mail of a subject in quarantine waits for a person, not for an instance.
func TestQuarantineIsNotWaitingWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		w.panics.Store(true)
		w.tell(sick, "go", 1)
		elapse(5 * time.Minute)
		w.tell(sick, "more", 1)
		elapse(time.Hour)
		if got := w.standing(); !slices.Equal(got, []string{alerts.Quarantine}) {
			t.Errorf("%v", got)
		}
	})
}

// However many instances there are, each change is told once.
func TestManyInstancesTellOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, time.Second)
		for range 3 {
			defer w.run(w.instance(1))()
		}
		w.ails(actor.Refused)
		w.tell(sick, "go", 1)
		elapse(10 * time.Minute)
		if logged, posted := w.told(alerts.DeadLetter); len(logged) != 1 || len(posted) != 1 {
			t.Errorf("logged %v, posted %v", logged, posted)
		}
	})
}

// A receiver that is down is tried on; it keeps nothing else waiting, and in the end hears of the newest state only.
func TestReceiverDownDelaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		w.answer = actor.Outcome{Code: actor.Failed, Err: errors.New("down")}
		w.ails(actor.Refused)
		w.tell(sick, "go", 1)
		elapse(5 * time.Minute)
		if err := w.Discard(t.Context(), sick, "e1", "tester"); err != nil {
			t.Fatal(err)
		}
		elapse(5 * time.Minute)
		if logged, _ := w.told(alerts.DeadLetter); len(logged) != 2 {
			t.Errorf("logged %v", logged)
		}
		elapse(20 * time.Minute)
		if !w.stands(alerts.Failing) {
			t.Errorf("that nobody can be told is itself one: %v", w.standing())
		}
		w.mu.Lock()
		w.answer, w.posted = actor.Outcome{Code: actor.Done}, nil
		ids := map[string]bool{}
		for _, id := range w.ids {
			ids[id] = true
		}
		if len(ids) != 3 { // fired, cleared, and that of Failing
			t.Errorf("repetitions have other ids: %v", w.ids)
		}
		w.mu.Unlock()
		elapse(2 * time.Hour)
		if _, posted := w.told(alerts.DeadLetter); !slices.Equal(posted, []string{alerts.Cleared}) {
			t.Errorf("heard %v", posted)
		}
		if got := w.standing(); len(got) != 0 {
			t.Errorf("still %v", got)
		}
	})
}

// Work is due for long enough, and nothing was done for as long.
func TestStandstill(t *testing.T) {
	b := alerts.New(alerts.Config{})
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	row := func(kind string, score time.Time, sign float64) state.Entry {
		return state.Entry{Subject: state.Subject{Instance: "a", Project: "b", Kind: kind, Key: "c"}, Index: state.Index{Score: sign * float64(score.UnixMilli())}}
	}
	for name, c := range map[string]struct {
		waits, touched []state.Entry
		stands         bool
	}{
		"nothing ever done":   {[]state.Entry{row("pr", now.Add(-6*time.Minute), 1)}, nil, true},
		"done long ago":       {[]state.Entry{row("pr", now.Add(-6*time.Minute), 1)}, []state.Entry{row("pr", now.Add(-6*time.Minute), -1)}, true},
		"done lately":         {[]state.Entry{row("pr", now.Add(-6*time.Minute), 1)}, []state.Entry{row("pr", now.Add(-4*time.Minute), -1)}, false},
		"a sweep that waits":  {[]state.Entry{row("sweep", now.Add(-6*time.Minute), 1)}, nil, true},
		"nothing waits":       {nil, []state.Entry{row("pr", now.Add(-time.Hour), -1)}, false},
		"waits not long":      {[]state.Entry{row("pr", now.Add(-4*time.Minute), 1)}, []state.Entry{row("pr", now.Add(-time.Hour), -1)}, false},
		"planned for later":   {[]state.Entry{row("pr", now.Add(time.Hour), 1)}, []state.Entry{row("pr", now.Add(-time.Hour), -1)}, false},
		"only the judgement":  {[]state.Entry{{Subject: alerts.Subject(), Index: state.Index{Score: float64(now.Add(-time.Hour).UnixMilli())}}}, nil, false},
		"the older one waits": {[]state.Entry{row("pr", now.Add(-6*time.Minute), 1), row("pr", now.Add(-time.Minute), 1)}, nil, true},
	} {
		f := alerts.Facts{Rows: map[string][]state.Entry{state.OldestSince: c.waits, actor.IndexTouched: c.touched, actor.IndexQuarantine: {}}}
		for _, index := range []string{state.OldestSince, actor.IndexTouched} {
			f.Rows[index] = append([]state.Entry{}, f.Rows[index]...)
		}
		d := b.Decide(alerts.Subject(), alerts.Doc{Judged: now.Add(-time.Minute), Up: now.Add(-time.Hour)}, f, actor.Inputs{}, now).Next
		if got := len(d.Standing) == 1 && d.Standing[0].Name == alerts.Stalled; got != c.stands || len(d.Standing) > 1 {
			t.Errorf("%s: %+v", name, d.Standing)
		}
	}
}

// What waits may be in quarantine, which is no waiting: without that list nobody knows.
func TestWaitingIsUnknownWithoutTheQuarantine(t *testing.T) {
	b := alerts.New(alerts.Config{})
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	f := alerts.Facts{Rows: map[string][]state.Entry{
		state.OldestSince:  {{Subject: sick, Index: state.Index{Score: float64(now.Add(-time.Hour).UnixMilli())}}},
		actor.IndexTouched: {},
	}}
	d := alerts.Doc{Judged: now.Add(-time.Minute), Up: now.Add(-2 * time.Hour)}
	if got := b.Decide(alerts.Subject(), d, f, actor.Inputs{}, now).Next.Standing; len(got) != 0 {
		t.Errorf("%+v", got)
	}
	f.Rows[actor.IndexQuarantine] = []state.Entry{{Subject: sick}}
	if got := b.Decide(alerts.Subject(), d, f, actor.Inputs{}, now).Next.Standing; len(got) != 1 || got[0].Name != alerts.Quarantine {
		t.Errorf("%+v", got)
	}
	f.Rows[actor.IndexQuarantine] = []state.Entry{}
	if got := b.Decide(alerts.Subject(), d, f, actor.Inputs{}, now).Next.Standing; len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

// After 90 days a dead letter can be read no more, and nobody is called for it.
func TestForgottenDeadLettersAreNoAlert(t *testing.T) {
	b := alerts.New(alerts.Config{})
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	rows := map[string][]state.Entry{actor.IndexDead: {
		{Subject: sick, Index: state.Index{Label: "e1", Score: float64(now.Add(-actor.DeadLife).UnixMilli())}},
		{Subject: sick, Index: state.Index{Label: "e2", Score: float64(now.Add(-actor.DeadLife + time.Hour).UnixMilli())}},
	}}
	decide := func() []alerts.Alert {
		return b.Decide(alerts.Subject(), alerts.Doc{Judged: now}, alerts.Facts{Rows: rows}, actor.Inputs{}, now).Next.Standing
	}
	if got := decide(); len(got) != 1 || got[0].Count != 1 || got[0].Key != "e2" {
		t.Errorf("%+v", got)
	}
	rows[actor.IndexDead] = rows[actor.IndexDead][:1]
	if got := decide(); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}

// Mail is nothing that the alerts read: it must not stay.
func TestMailToTheAlertsIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWard(t, 10*time.Second)
		w.tell(alerts.Subject(), "hello", 1)
		elapse(2 * time.Minute)
		if v, err := actor.See(t.Context(), w.store, alerts.Subject()); err != nil || v.Unread != 0 || len(v.Dead) != 1 {
			t.Errorf("%+v, %v", v, err)
		}
	})
}
