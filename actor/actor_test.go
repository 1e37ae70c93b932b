package actor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

const ttl = 15 * time.Second

// tally is the document of the test behaviour: the mail it has consumed, in order, and the results it was told.
type tally struct {
	Seen    []string
	Results []string
	Causes  []string // reconciles
	Woken   int
}

// script is a Behaviour made of functions, so that each test says only what matters to it.
type script struct {
	look   func(in actor.Inputs)
	decide func(d tally, in actor.Inputs, now time.Time) actor.Step[tally]
	do     func(ctx context.Context, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome
}

func (b *script) Look(_ context.Context, _ state.Subject, _ tally, in actor.Inputs, _ time.Time) struct{} {
	if b.look != nil {
		b.look(in)
	}
	return struct{}{}
}

func (b *script) Decide(_ state.Subject, d tally, _ struct{}, in actor.Inputs, now time.Time) actor.Step[tally] {
	d = note(d, in)
	if b.decide != nil {
		return b.decide(d, in, now)
	}
	return actor.Step[tally]{Next: d}
}

// note writes every input into the document.
func note(d tally, in actor.Inputs) tally {
	for _, m := range in.Mail {
		d.Seen = append(d.Seen, string(m.Body))
	}
	for _, r := range in.Results {
		d.Results = append(d.Results, r.Key+" "+string(r.Code))
	}
	if in.Reconcile != "" {
		d.Causes = append(d.Causes, in.Reconcile)
	}
	if len(in.Mail)+len(in.Results) == 0 && in.Reconcile == "" {
		d.Woken++
	}
	return d
}

func (b *script) Do(ctx context.Context, _ state.Subject, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	if b.do == nil {
		return actor.Outcome{Code: actor.Done}
	}
	return b.do(ctx, e, now, confirm)
}

var subject = state.Subject{Instance: "test", Project: "1", Kind: "script", Key: "a"}

// bench is one process's worth of engine on a real store, on virtual time.
type bench struct {
	t      *testing.T
	store  *embedded.Store
	locker lock.Locker
	*actor.Engine
	script *script
	mails  int
}

func newBench(t *testing.T, b *script, opt actor.Options) *bench {
	t.Helper()
	store, err := embedded.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), embedded.Options{Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	x := &bench{t: t, store: store, locker: lock.NewLocal(ttl), script: b}
	x.Engine = x.engine(b, opt)
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

// engine makes another engine on the same store and locks, as another process would have.
func (x *bench) engine(b *script, opt actor.Options) *actor.Engine {
	e := actor.New(x.store, x.locker, opt)
	actor.Register(e, "script", b, actor.KindOptions{})
	return e
}

// run starts an engine; the function it answers stops it in order and joins it.
func (x *bench) run(e *actor.Engine) (stop func()) {
	ctx, cancel := context.WithCancel(x.t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				x.t.Error(err)
			}
		})
	}
	return stop
}

func (x *bench) tell(body string) {
	x.t.Helper()
	x.mails++
	x.tellAs("test:"+strconv.Itoa(x.mails)+":"+body, body)
}

func (x *bench) tellAs(id, body string) {
	x.t.Helper()
	_, err := x.Tell(x.t.Context(), state.Delivery{Subject: subject, ID: id, Kind: "note", Format: 1, Body: []byte(body)})
	if err != nil {
		x.t.Fatal(err)
	}
}

func (x *bench) see() (actor.View, tally) {
	x.t.Helper()
	v, err := actor.See(x.t.Context(), x.store, subject)
	if err != nil {
		x.t.Fatal(err)
	}
	var d tally
	if len(v.Doc) > 0 {
		if err := json.Unmarshal(v.Doc, &d); err != nil {
			x.t.Fatal(err)
		}
	}
	return v, d
}

func wish(key string, class actor.Class, want string) actor.Wish {
	return actor.Wish{Key: key, Class: class, Kind: "effect", Want: json.RawMessage(strconv.Quote(want))}
}

func wishing(ws ...actor.Wish) func(tally, actor.Inputs, time.Time) actor.Step[tally] {
	return func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
		s := actor.Step[tally]{Next: d}
		if len(in.Mail) > 0 {
			s.Wishes = ws
		}
		return s
	}
}

// elapse lets virtual time pass: every test here runs in a synctest bubble.
func elapse(d time.Duration) { <-time.After(d) }

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestMailIsDecidedInOrderAndOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		stop := x.run(x.Engine)
		defer stop()
		var want []string
		for i := range 200 {
			body := fmt.Sprint(i)
			want = append(want, body)
			x.tellAs("test:x:"+body, body)
			x.tellAs("test:x:"+body, body) // doubled
		}
		synctest.Wait()
		_, d := x.see()
		equal(t, "mail", d.Seen, want)
	})
}

func TestBatchesAreAtMost64(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		most := 0
		x := newBench(t, &script{look: func(in actor.Inputs) { most = max(most, len(in.Mail)) }}, actor.Options{})
		for i := range 150 {
			x.tell(fmt.Sprint(i))
		}
		defer x.run(x.Engine)()
		synctest.Wait()
		if _, d := x.see(); len(d.Seen) != 150 || most != state.MailBatch {
			t.Errorf("seen %d mails, largest batch %d", len(d.Seen), most)
		}
	})
}

func TestEffectsInOrderOfClassThenAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []string
		b := &script{
			decide: wishing(wish("text", actor.Cosmetic, ""), wish("open1", actor.Permitting, ""), wish("open2", actor.Permitting, ""), wish("shut1", actor.Shutting, ""), wish("shut2", actor.Shutting, "")),
			do: func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
				done = append(done, e.Key)
				return actor.Outcome{Code: actor.Done}
			},
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		synctest.Wait()
		equal(t, "effects", done, []string{"shut1", "shut2", "open1", "open2", "text"})
		_, d := x.see()
		equal(t, "results", d.Results, []string{"shut1 done", "shut2 done", "open1 done", "open2 done", "text done"})
	})
}

// Newer mail waits at most for one effect: it is decided before the next effect is chosen, and may replace it.
func TestNewMailIsDecidedBetweenEffects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []string
		var x *bench
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for _, m := range in.Mail {
				switch string(m.Body) {
				case "open":
					s.Wishes = []actor.Wish{wish("a", actor.Permitting, "on"), wish("b", actor.Permitting, "on")}
				case "shut":
					off := wish("b", actor.Shutting, "off")
					off.Undo = true
					s.Wishes = []actor.Wish{off}
				}
			}
			return s
		}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			done = append(done, e.Key+string(e.Want))
			if e.Key == "a" {
				x.tell("shut")
			}
			return actor.Outcome{Code: actor.Done}
		}
		x = newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("open")
		synctest.Wait()
		equal(t, "effects", done, []string{`a"on"`})
		v, d := x.see()
		equal(t, "results", d.Results, []string{"a done", "b dropped"})
		if len(v.Outbox) != 0 {
			t.Errorf("outbox %v", v.Outbox)
		}
	})
}

func TestUndoOfAnAttemptedWishIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var done []string
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for _, m := range in.Mail {
				w := wish("run", actor.Permitting, string(m.Body))
				w.Undo = string(m.Body) == "cancel"
				s.Wishes = append(s.Wishes, w)
			}
			return s
		}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			done = append(done, string(e.Want))
			if string(e.Want) == `"start"` {
				return actor.Outcome{Code: actor.Failed, Err: errors.New("no answer")}
			}
			if e.Unsure.IsZero() {
				t.Error("the cancel of an attempted start is not marked unsure")
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("start")
		synctest.Wait()
		x.tell("cancel")
		synctest.Wait()
		equal(t, "effects", done, []string{`"start"`, `"cancel"`})
	})
}

// The table of failures: what counts as a try, and when the next one comes.
func TestFailuresTable(t *testing.T) {
	for _, c := range []struct {
		name     string
		out      actor.Outcome
		min, max time.Duration // until the next attempt
		tries    int
		unsure   bool
	}{
		{"failed", actor.Outcome{Code: actor.Failed, Err: errors.New("x")}, 800 * time.Millisecond, 2200 * time.Millisecond, 1, true},
		{"failed, told to wait", actor.Outcome{Code: actor.Failed, Err: errors.New("x"), After: time.Minute}, time.Minute, 61 * time.Second, 1, true},
		{"contention", actor.Outcome{Code: actor.Contention, Err: errors.New("x")}, 0, 1300 * time.Millisecond, 0, false},
		{"rate limit", actor.Outcome{Code: actor.Contention, Err: errors.New("x"), After: time.Hour}, time.Hour, time.Hour + time.Second, 0, false},
		{"credential", actor.Outcome{Code: actor.AuthPause, Err: errors.New("x")}, time.Minute, 61 * time.Second, 0, false},
		{"settling", actor.Outcome{Code: actor.Settling, After: 20 * time.Second, Err: errors.New("x")}, 20 * time.Second, 21 * time.Second, 0, false},
		{"stale", actor.Outcome{Code: actor.Stale, Err: errors.New("x")}, time.Second, 2 * time.Second, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var at []time.Time
				var second actor.Entry
				b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
				b.do = func(_ context.Context, e actor.Entry, now time.Time, _ func(context.Context) error) actor.Outcome {
					at = append(at, time.Now())
					if len(at) == 1 {
						return c.out
					}
					second = e
					return actor.Outcome{Code: actor.Done}
				}
				x := newBench(t, b, actor.Options{})
				defer x.run(x.Engine)()
				x.tell("go")
				elapse(2 * time.Hour)
				synctest.Wait()
				if len(at) != 2 {
					t.Fatalf("%d attempts", len(at))
				}
				if d := at[1].Sub(at[0]); d < c.min || d > c.max {
					t.Errorf("second attempt after %v, want %v to %v", d, c.min, c.max)
				}
				if second.Tries != c.tries || second.Unsure.IsZero() == c.unsure {
					t.Errorf("tries %d, unsure %v", second.Tries, second.Unsure)
				}
			})
		})
	}
}

func TestGivingUp(t *testing.T) {
	for _, c := range []struct {
		class    actor.Class
		out      actor.Outcome
		attempts int // within 30 days; -1 = goes on
		results  []string
	}{
		{actor.Permitting, actor.Outcome{Code: actor.Failed, Err: errors.New("no")}, 25, []string{"w given-up"}},
		{actor.Cosmetic, actor.Outcome{Code: actor.Failed, Err: errors.New("no")}, 25, []string{"w given-up"}},
		{actor.Permitting, actor.Outcome{Code: actor.Refused, Err: errors.New("never")}, 1, []string{"w refused"}},
		{actor.Shutting, actor.Outcome{Code: actor.Failed, Err: errors.New("no")}, -1, nil},
	} {
		t.Run(c.class.String()+" "+string(c.out.Code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				b := &script{decide: wishing(wish("w", c.class, ""))}
				b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
					n++
					return c.out
				}
				x := newBench(t, b, actor.Options{Poll: time.Hour})
				stop := x.run(x.Engine)
				x.tell("go")
				elapse(30 * 24 * time.Hour)
				stop()
				v, d := x.see()
				equal(t, "results", d.Results, c.results)
				if c.attempts < 0 {
					open, err := x.store.List(t.Context(), "open-outside", "", 10)
					if err != nil || len(open) != 1 || len(v.Outbox) != 1 || n < 25+80 {
						t.Errorf("a shutting wish must stay, be repeated and raise the alarm: %d attempts, %d alarms, outbox %v, %v", n, len(open), v.Outbox, err)
					}
					return
				}
				if n != c.attempts {
					t.Errorf("%d attempts, want %d", n, c.attempts)
				}
				if len(v.Dead) != 1 || !slices.Contains(d.Causes, "dead letter") {
					t.Fatalf("dead letters %v, reconciles %v", v.Dead, d.Causes)
				}
				letter, err := actor.ReadDeadLetter(t.Context(), x.store, subject, v.Dead[0].ID)
				if err != nil || letter.Entry == nil || letter.Entry.Key != "w" || letter.Why == "" {
					t.Errorf("dead letter %+v, %v", letter, err)
				}
			})
		})
	}
}

func TestDeadLetterRetriedAndDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := true
		var unsure bool
		b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			if fail {
				return actor.Outcome{Code: actor.Refused, Err: errors.New("no")}
			}
			unsure = !e.Unsure.IsZero()
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		synctest.Wait()
		fail = false
		v, _ := x.see()
		if err := x.Retry(t.Context(), subject, v.Dead[0].ID, "tester"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		v, d := x.see()
		equal(t, "results", d.Results, []string{"w refused", "w done"})
		if len(v.Dead) != 0 || !unsure {
			t.Errorf("dead %v, looked up first %v", v.Dead, unsure)
		}
		if err := x.Retry(t.Context(), subject, "e1", "tester"); !errors.Is(err, actor.ErrNoDeadLetter) {
			t.Errorf("second retry: %v", err)
		}
		fail = true
		x.tell("again")
		synctest.Wait()
		v, _ = x.see()
		if err := x.Discard(t.Context(), subject, v.Dead[0].ID, "tester"); err != nil {
			t.Fatal(err)
		}
		if v, _ = x.see(); len(v.Dead) != 0 {
			t.Errorf("dead %v", v.Dead)
		}
	})
}

// A panic in a decision blames one mail and lets the others through.
func TestPanicGivesUpOnlyTheGuiltyMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		panics := 0
		b := &script{decide: func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			for _, m := range in.Mail {
				if string(m.Body) == "bad" {
					panics++
					panic("cannot stand this")
				}
			}
			return actor.Step[tally]{Next: d}
		}}
		x := newBench(t, b, actor.Options{})
		x.tell("one")
		x.tell("bad")
		x.tell("two")
		defer x.run(x.Engine)()
		elapse(5 * time.Minute)
		synctest.Wait()
		v, d := x.see()
		equal(t, "mail", d.Seen, []string{"one", "two"})
		if len(v.Dead) != 1 || panics != 5 { // once with its batch, then four times alone
			t.Errorf("dead %v after %d panics", v.Dead, panics)
		}
		// The id was forgotten with it: a redelivery is new work.
		x.tellAs("test:2:bad", "good")
		synctest.Wait()
		_, d = x.see()
		equal(t, "mail", d.Seen, []string{"one", "two", "good"})
	})
}

func TestPanicWithoutMailQuarantines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := true
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
			if len(in.Mail) == 0 && bad {
				panic("on waking")
			}
			return actor.Step[tally]{Next: d, Wake: map[bool]time.Time{true: now.Add(time.Second)}[len(in.Mail) > 0]}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(10 * time.Minute)
		synctest.Wait()
		v, _ := x.see()
		rows, err := x.store.List(t.Context(), "quarantine", "", 10)
		if v.Quarantined.IsZero() || err != nil || len(rows) != 1 {
			t.Fatalf("quarantined %v, listed %v, %v", v.Quarantined, rows, err)
		}
		bad = false
		if err := x.Release(t.Context(), subject, "tester"); err != nil {
			t.Fatal(err)
		}
		elapse(time.Minute)
		synctest.Wait()
		v, d := x.see()
		if !v.Quarantined.IsZero() || len(d.Causes) == 0 {
			t.Errorf("after release: %+v %+v", v, d)
		}
	})
}

func TestUndecodableMailIsDeadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{decide: func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for _, m := range in.Mail {
				if string(m.Body) == "garbage" {
					s.Dead = append(s.Dead, actor.DeadMail{Seq: m.Seq, Reason: "not a note"})
				}
			}
			return s
		}}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("garbage")
		x.tell("fine")
		synctest.Wait()
		v, _ := x.see()
		if len(v.Dead) != 1 || v.Unread != 0 {
			t.Fatalf("%+v", v)
		}
		letter, err := actor.ReadDeadLetter(t.Context(), x.store, subject, v.Dead[0].ID)
		if err != nil || letter.Why != "not a note" || string(letter.Mail.Body) != "garbage" {
			t.Errorf("%+v, %v", letter, err)
		}
	})
}

func TestNewerMailAndDocumentAreLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		x.tell("known")
		_, err := x.Tell(t.Context(), state.Delivery{Subject: subject, ID: "test:new", Kind: "note", Format: 99, Body: []byte("future")})
		if err != nil {
			t.Fatal(err)
		}
		defer x.run(x.Engine)()
		elapse(time.Minute)
		synctest.Wait()
		v, d := x.see()
		equal(t, "mail", d.Seen, []string{"known"})
		if v.Unread != 1 || v.Due.IsZero() {
			t.Errorf("the newer mail must wait: %+v", v)
		}
		other := subject
		other.Kind = "kind-of-tomorrow"
		if _, err := x.Tell(t.Context(), state.Delivery{Subject: other, ID: "test:k", Kind: "note", Format: 1}); err != nil {
			t.Fatal(err)
		}
		elapse(time.Minute)
		synctest.Wait()
		if snap, err := x.store.Load(t.Context(), other); err != nil || len(snap.Mail) != 1 {
			t.Errorf("mail of an unknown kind must wait: %+v, %v", snap, err)
		}
	})
}

func TestTellsBetweenSubjectsTakeEffectOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := subject
		other.Key = "b"
		b := &script{decide: func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for _, m := range in.Mail {
				if string(m.Body) == "pass on" {
					s.Wishes = append(s.Wishes, actor.Wish{Key: "tell", Kind: "note", Want: json.RawMessage(`"hello"`), To: &other})
				}
			}
			return s
		}}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("pass on")
		synctest.Wait()
		v, err := actor.See(t.Context(), x.store, other)
		if err != nil || string(v.Doc) == "" {
			t.Fatalf("%+v, %v", v, err)
		}
		var d tally
		if err := json.Unmarshal(v.Doc, &d); err != nil {
			t.Fatal(err)
		}
		equal(t, "told", d.Seen, []string{`"hello"`})
	})
}

// Tells that follow each other share one save; an effect has its own.
func TestTellsShareASave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{decide: func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for i := range 6 {
				if len(in.Mail) > 0 && string(in.Mail[0].Body) == "pass on" {
					w := wish(fmt.Sprint("w", i), actor.Shutting, "1")
					if other := subject; i != 3 {
						other.Key = fmt.Sprint("b", i)
						w.Kind, w.To = "note", &other
					}
					s.Wishes = append(s.Wishes, w)
				}
			}
			return s
		}}
		var at []string
		x := newBench(t, b, actor.Options{Trace: func(s state.Subject, p actor.Point) {
			if s == subject && (p == actor.AtDone || p == actor.AtCommitted) {
				at = append(at, string(p))
			}
		}})
		x.tell("pass on")
		stop := x.run(x.Engine)
		synctest.Wait()
		stop()
		equal(t, "order", at, []string{"committed", "done", "done", "done", "committed", "done", "committed", "done", "done", "committed"})
		v, d := x.see()
		equal(t, "results", d.Results, []string{"w0 done", "w1 done", "w2 done", "w3 done", "w4 done", "w5 done"})
		if len(v.Outbox) > 0 {
			t.Errorf("left in the outbox: %+v", v.Outbox)
		}
	})
}

// A document that is asked again and again is decoded when it has changed, by whomever.
func TestAskRecalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		for name, recall := range map[string]bool{"recalled": true, "read": false} {
			hot, other := x.engine(x.script, actor.Options{}), x.engine(x.script, actor.Options{})
			actor.Register(hot, name, &script{}, actor.KindOptions{Recall: recall})
			s := subject
			s.Kind = name
			var seen []int
			var same bool
			var last *int
			ask := func(e *actor.Engine, save bool) {
				t.Helper()
				_, err := actor.Ask(t.Context(), e, s, "", func(d map[string]*int, _ time.Time) (actor.Step[map[string]*int], error) {
					n := 0
					if d["n"] != nil {
						n = *d["n"]
					}
					same, last = d["n"] != nil && d["n"] == last, d["n"]
					seen = append(seen, n)
					if !save {
						return actor.Step[map[string]*int]{}, errors.New("nothing to save")
					}
					n++
					return actor.Step[map[string]*int]{Next: map[string]*int{"n": &n}}, nil
				})
				if save && err != nil {
					t.Fatal(err)
				}
			}
			ask(hot, true)
			ask(hot, false)
			ask(hot, false)
			if same != recall {
				t.Errorf("%s: decoded once is %v", name, same)
			}
			ask(other, true)
			ask(hot, false)
			ask(hot, true)
			ask(hot, false)
			equal(t, name, seen, []int{0, 1, 1, 1, 2, 2, 3})
		}
	})
}

func TestConfirmRefusesAfterNewMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x *bench
		var calls, refused int
		b := &script{decide: func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			if len(d.Seen) == 1 {
				s.Wishes = []actor.Wish{wish("w", actor.Permitting, "1")}
			}
			return s
		}}
		b.do = func(ctx context.Context, e actor.Entry, _ time.Time, confirm func(context.Context) error) actor.Outcome {
			calls++
			if calls == 1 {
				x.tell("meanwhile")
			}
			if err := confirm(ctx); err != nil {
				refused++
				return actor.Outcome{Code: actor.Stale, Err: err}
			}
			return actor.Outcome{Code: actor.Done}
		}
		x = newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		synctest.Wait()
		_, d := x.see()
		equal(t, "mail", d.Seen, []string{"go", "meanwhile"})
		equal(t, "results", d.Results, []string{"w done"})
		if calls != 2 || refused != 1 {
			t.Errorf("calls %d, refused %d", calls, refused)
		}
	})
}

func TestAskSwapsAndStoresItsReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		defer x.run(x.Engine)()
		processes := []*actor.Engine{x.Engine, x.engine(&script{}, actor.Options{}), x.engine(&script{}, actor.Options{})}
		ask := func(i int, id, note string) ([]byte, error) {
			return actor.Ask(t.Context(), processes[i%len(processes)], subject, id, func(d tally, _ time.Time) (actor.Step[tally], error) {
				d.Seen = append(d.Seen, note)
				return actor.Step[tally]{Next: d, Reply: []byte(fmt.Sprint(len(d.Seen)))}, nil
			})
		}
		var wg sync.WaitGroup
		replies := make([]string, 50)
		for i := range replies {
			wg.Go(func() {
				b, err := ask(i, "same", "once")
				for errors.Is(err, actor.ErrBusy) {
					b, err = ask(i, "same", "once")
				}
				if err != nil {
					t.Error(err)
				}
				replies[i] = string(b)
			})
		}
		wg.Wait()
		_, d := x.see()
		equal(t, "asked", d.Seen, []string{"once"})
		for _, r := range replies {
			if r != "1" {
				t.Errorf("reply %q", r)
			}
		}
		for range 2 { // a reply may be empty
			if _, err := actor.Ask(t.Context(), x.Engine, subject, "silent", func(d tally, _ time.Time) (actor.Step[tally], error) {
				d.Seen = append(d.Seen, "silent")
				return actor.Step[tally]{Next: d}, nil
			}); err != nil {
				t.Error(err)
			}
		}
		_, d = x.see()
		equal(t, "asked", d.Seen, []string{"once", "silent"})
		want := errors.New("no such thing")
		if _, err := actor.Ask(t.Context(), x.Engine, subject, "", func(d tally, _ time.Time) (actor.Step[tally], error) { return actor.Step[tally]{}, want }); !errors.Is(err, want) {
			t.Errorf("error of the decision: %v", err)
		}
	})
}

// The Asks of one process for one subject wait for each other instead of losing their rounds; those for another subject do
// not, and who has waited long enough leaves.
func TestAsksOfOneProcessGoOneAfterAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		other := subject
		other.Key += "-other"
		ask := func(ctx context.Context, s state.Subject, f func()) error {
			_, err := actor.Ask(ctx, x.Engine, s, "", func(d tally, _ time.Time) (actor.Step[tally], error) {
				f()
				d.Seen = append(d.Seen, "asked")
				return actor.Step[tally]{Next: d}, nil
			})
			return err
		}
		const asks = 100
		var decided, inside atomic.Int32
		hold := make(chan struct{})
		var wg sync.WaitGroup
		held := func() {
			if err := ask(t.Context(), subject, func() {
				if inside.Add(1) != 1 {
					t.Error("two at once")
				}
				<-hold
				inside.Add(-1)
				decided.Add(1)
			}); err != nil {
				t.Error(err)
			}
		}
		for range asks - 1 {
			wg.Go(held)
		}
		synctest.Wait()
		hold <- struct{}{} // one leaves while others wait, and then one more comes
		synctest.Wait()
		wg.Go(held)
		synctest.Wait()
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := ask(short, subject, func() { t.Error("it got in") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who stopped waiting: %v", err)
		}
		if err := ask(t.Context(), other, func() {}); err != nil {
			t.Error(err)
		}
		close(hold)
		wg.Wait()
		if _, d := x.see(); decided.Load() != asks || len(d.Seen) != asks {
			t.Errorf("%d Asks decided %d times and left %d lines", asks, decided.Load(), len(d.Seen))
		}
	})
}

// An Ask in the middle of an effect makes the holder's save decide again, and what the effect did is not lost.
func TestAskWhileAnEffectIsOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x *bench
		var did []string
		b := &script{decide: wishing(wish("run", actor.Permitting, "start"))}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			did = append(did, string(e.Want))
			if len(did) == 1 {
				_, err := actor.Ask(t.Context(), x.Engine, subject, "", func(d tally, _ time.Time) (actor.Step[tally], error) {
					w := wish("run", actor.Shutting, "cancel")
					w.Undo = true
					return actor.Step[tally]{Next: d, Wishes: []actor.Wish{w}}, nil
				})
				if err != nil {
					t.Error(err)
				}
			} else if e.Unsure.IsZero() {
				t.Error("the cancel does not know that a start was out")
			}
			return actor.Outcome{Code: actor.Done}
		}
		x = newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		synctest.Wait()
		equal(t, "effects", did, []string{`"start"`, `"cancel"`})
		_, d := x.see()
		equal(t, "results", d.Results, []string{"run done", "run done"})
	})
}

// A holder that stops in the middle of an effect loses its lease; its successor looks first and the old one's save is
// refused.
func TestTakeoverOfAPausedHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		paused, resume := make(chan struct{}), make(chan struct{})
		old := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		old.do = func(ctx context.Context, _ actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			close(paused)
			<-resume // ignores ctx, as a stopped process would
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, old, actor.Options{Poll: 100 * time.Millisecond})
		x.locker = &stalling{Locker: x.locker, stalled: paused}
		x.Engine = x.engine(old, actor.Options{Poll: time.Hour})
		stopOld := x.run(x.Engine)
		x.tell("go")
		<-paused

		var entry actor.Entry
		did := 0
		fresh := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		fresh.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			entry = e
			did++
			return actor.Outcome{Code: actor.Done}
		}
		x.locker = x.locker.(*stalling).Locker
		other := x.engine(fresh, actor.Options{})
		stop := x.run(other)
		defer stop()
		elapse(ttl + 2*time.Second)
		synctest.Wait()
		if did != 1 || entry.Unsure.IsZero() || !entry.Left.Equal(entry.Unsure) {
			t.Errorf("successor did it %d times, unsure %v, left %v", did, entry.Unsure, entry.Left)
		}
		close(resume)
		stopOld()
		_, d := x.see()
		equal(t, "results", d.Results, []string{"w done"}) // the old holder's was dropped
		elapse(time.Minute)
		synctest.Wait()
		_, d = x.see()
		equal(t, "reconciles", d.Causes, []string{"takeover"})
	})
}

// stalling hands out leases that are not renewed any more once stalled is closed, as those of a stopped process.
type stalling struct {
	lock.Locker
	stalled chan struct{}
}

func (s *stalling) TryLock(ctx context.Context, key string) (lock.Lease, error) {
	l, err := s.Locker.TryLock(ctx, key)
	if err == nil {
		go func() {
			<-s.stalled
			l.Pause()
		}()
	}
	return l, err
}

// Crashes in a row: again at once, after 10 s, 1 m, 5 m, then quarantine; each begins when
// the dead holder's lease has ended. No try is counted.
func TestCrashesBackOffAndQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		x.tell("poison")
		var waits []time.Duration
		last := time.Now()
		for range 10 {
			died := make(chan struct{})
			e := x.engine(x.script, actor.Options{Trace: func(_ state.Subject, p actor.Point) {
				if p == actor.AtDecided { // the process dies with a decision made and nothing saved
					close(died)
					runtime.Goexit()
				}
			}})
			stop := x.run(e)
			select {
			case <-died:
				waits = append(waits, time.Since(last).Round(2*time.Second))
			case <-time.After(10 * time.Minute):
			}
			last = time.Now()
			stop()
		}
		equal(t, "waits", waits, []time.Duration{0, 16 * time.Second, 26 * time.Second, 76 * time.Second, 316 * time.Second})
		v, _ := x.see()
		if v.Quarantined.IsZero() || v.Unread != 1 {
			t.Errorf("want quarantine with the mail kept: %+v", v)
		}
		if err := x.Release(t.Context(), subject, "tester"); err != nil {
			t.Fatal(err)
		}
		defer x.run(x.Engine)()
		synctest.Wait()
		v, d := x.see()
		equal(t, "mail", d.Seen, []string{"poison"})
		if v.Crashes != 0 {
			t.Errorf("progress must clear the crashes: %+v", v)
		}
	})
}

func TestOrderlyStopHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := make(chan struct{})
		b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		b.do = func(ctx context.Context, _ actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			close(started)
			<-ctx.Done()
			return actor.Outcome{Code: actor.Failed, Err: ctx.Err()}
		}
		x := newBench(t, b, actor.Options{})
		stop := x.run(x.Engine)
		x.tell("go")
		<-started
		before := time.Now()
		stop()
		if d := time.Since(before); d > 8*time.Second {
			t.Errorf("took %v to stop", d)
		}
		v, _ := x.see()
		if len(v.Outbox) != 1 || v.Outbox[0].Tries != 0 || v.Outbox[0].Unsure.IsZero() || v.Due.After(v.Now) {
			t.Fatalf("not handed back as unsure, without a try, due now: %+v", v)
		}
		// Storing still works, and the next process goes on at once, without calling it a crash.
		x.tell("late")
		var entry actor.Entry
		next := &script{do: func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			entry = e
			return actor.Outcome{Code: actor.Done}
		}}
		defer x.run(x.engine(next, actor.Options{}))()
		synctest.Wait()
		v, d := x.see()
		if entry.Unsure.IsZero() || v.Crashes != 0 || len(d.Causes) != 0 {
			t.Errorf("entry %+v, crashes %d, reconciles %v", entry, v.Crashes, d.Causes)
		}
		equal(t, "mail", d.Seen, []string{"go", "late"})
	})
}

func TestWakesAndIdleSubjectsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		start := time.Now()
		b := &script{decide: func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			if len(in.Mail) > 0 {
				s.Wake = now.Add(time.Hour)
			} else {
				at = append(at, now.Sub(start))
			}
			return s
		}}
		turns := 0
		x := newBench(t, b, actor.Options{Trace: func(_ state.Subject, p actor.Point) {
			if p == actor.AtLocked {
				turns++
			}
		}})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(24 * time.Hour)
		synctest.Wait()
		if len(at) != 1 || at[0] < time.Hour || at[0] > time.Hour+2*time.Second {
			t.Errorf("woken at %v", at)
		}
		if turns > 3 {
			t.Errorf("%d turns for one mail and one wake", turns)
		}
	})
}

// An operator reads in the log what could not be looked at, and not only that it could not be.
func TestTroubleIsInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, said := observer.New(zapcore.InfoLevel)
		b := &script{decide: func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d, Why: []string{"Looked"}}
			if len(in.Mail) > 0 && string(in.Mail[0].Body) == "bad" {
				s.Trouble = "HTTP 401"
			}
			return s
		}}
		x := newBench(t, b, actor.Options{Log: zap.New(core)})
		defer x.run(x.Engine)()
		for _, body := range []string{"good", "bad"} {
			x.tell(body)
			synctest.Wait()
		}
		var got []string
		for _, l := range said.FilterMessage("decided").All() {
			got = append(got, fmt.Sprintf("%s %v %v", l.Level, l.ContextMap()["reason"], l.ContextMap()["error"]))
		}
		equal(t, "log", got, []string{"info [Looked] <nil>", "warn [Looked] HTTP 401"})
	})
}
