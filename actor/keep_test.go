package actor_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

const (
	day  = 24 * time.Hour
	kept = 90 * day
)

// seldom lets months pass in few polls.
var seldom = actor.Options{Poll: 6 * time.Hour}

// keeping decides what wishing does, and asks to be kept for so long.
func keeping(d time.Duration, ws ...actor.Wish) func(tally, actor.Inputs, time.Time) actor.Step[tally] {
	f := wishing(ws...)
	return func(t tally, in actor.Inputs, now time.Time) actor.Step[tally] {
		s := f(t, in, now)
		s.Keep, s.Index = d, []state.Index{{Name: "name", Label: "a"}}
		s.Journal = [][]byte{[]byte("decided")}
		return s
	}
}

// there says whether anything is left of the test's subject.
func (x *bench) there() bool {
	x.t.Helper()
	synctest.Wait()
	n, err := x.store.Load(x.t.Context(), subject)
	if err != nil {
		x.t.Fatal(err)
	}
	var left int
	for _, index := range []string{"name", actor.IndexTouched, actor.IndexDead, state.OldestSince} {
		rows, err := x.store.List(x.t.Context(), index, "", 10)
		if err != nil {
			x.t.Fatal(err)
		}
		for _, r := range rows {
			if r.Subject == subject {
				left++
			}
		}
	}
	lines, err := x.store.Journal(x.t.Context(), subject, 10)
	if err != nil {
		x.t.Fatal(err)
	}
	if n.Doc == nil && (left+len(lines)+len(n.Mail) > 0 || !n.Wake.IsZero() || n.Holder != "") {
		x.t.Errorf("no document, but %d places, %d journal lines, %+v", left, len(lines), n)
	}
	return n.Doc != nil
}

// stays and goes check that the subject is there for so long from now, and gone a day later.
func (x *bench) stays(d time.Duration) {
	x.t.Helper()
	elapse(d)
	if !x.there() {
		x.t.Fatalf("gone within %v", d)
	}
}

func (x *bench) goes(after time.Duration) {
	x.t.Helper()
	x.stays(after - day)
	elapse(2 * day)
	if x.there() {
		v, _ := x.see()
		x.t.Fatalf("still there after %v: %+v", after+day, v)
	}
}

func TestSubjectIsDroppedAfterItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{decide: keeping(kept, wish("w", actor.Cosmetic, "x"))}, seldom)
		defer x.run(x.Engine)()
		x.tell("one")
		x.goes(kept)

		x.tell("two") // begins anew
		x.stays(80 * day)
		if v, _ := x.see(); !v.Due.IsZero() || v.Ends.Sub(v.Now) < 9*day || v.Ends.Sub(v.Now) > 10*day {
			t.Errorf("due at %v, ends at %v, now %v", v.Due, v.Ends, v.Now)
		}
		if v, d := x.see(); v.Seq != 1 || len(d.Seen) != 1 || d.Seen[0] != "two" || len(d.Results) != 1 {
			t.Errorf("the second life: %+v, %+v", v, d)
		}
		x.tell("three") // renews
		x.stays(80 * day)
		if _, err := actor.Ask(t.Context(), x.Engine, subject, "", func(d tally, _ time.Time) (actor.Step[tally], error) {
			return actor.Step[tally]{Next: d, Keep: kept}, nil // renews, too
		}); err != nil {
			t.Fatal(err)
		}
		x.goes(kept)
	})
}

func TestSubjectStaysWhereNobodySaysForHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{decide: keeping(kept)}
		x := newBench(t, b, seldom)
		defer x.run(x.Engine)()
		x.tell("one")
		x.stays(80 * day)
		b.decide = keeping(0)
		x.tell("two")
		x.stays(1000 * day)
	})
}

// What is owed, and what needs a person, keeps a subject; once it is cleared the time begins.
func TestSubjectStaysWhileAnythingIsOwed(t *testing.T) {
	var mended atomic.Bool
	failing := func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
		if mended.Load() {
			return actor.Outcome{Code: actor.Done}
		}
		return actor.Outcome{Code: actor.Failed, Err: errors.New("no answer")}
	}
	for name, c := range map[string]struct {
		decide func(tally, actor.Inputs, time.Time) actor.Step[tally]
		do     func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome
		clear  func(x *bench) error
	}{
		"an entry": {
			decide: keeping(kept, wish("w", actor.Shutting, "x")), do: failing,
			clear: func(*bench) error { elapse(day); return nil },
		},
		"a wake": {
			decide: func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
				s := keeping(kept)(d, in, now)
				if len(in.Mail) > 0 {
					s.Wake = now.Add(300 * day)
				}
				return s
			},
			clear: func(*bench) error { return nil },
		},
		"quarantine": {
			decide: func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
				s := keeping(kept)(d, in, now)
				switch {
				case mended.Load():
				case d.Woken > 0:
					panic("a bug")
				default:
					s.Wake = now.Add(day)
				}
				return s
			},
			clear: func(x *bench) error { return x.Release(x.t.Context(), subject, "test") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				mended.Store(false)
				x := newBench(t, &script{decide: c.decide, do: c.do}, seldom)
				defer x.run(x.Engine)()
				x.tell("one")
				x.stays(300 * day)
				if v, _ := x.see(); !v.Ends.IsZero() {
					t.Errorf("it is said to end at %v", v.Ends)
				}
				mended.Store(true)
				if err := c.clear(x); err != nil {
					t.Fatal(err)
				}
				elapse(day)
				x.goes(kept - day)
			})
		})
	}
}

// A dead letter keeps its subject for as long as it is kept itself, or until somebody has dealt with it.
func TestSubjectStaysWithItsDeadLetter(t *testing.T) {
	for _, discarded := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			x := newBench(t, &script{
				decide: keeping(state.IDLife, wish("w", actor.Permitting, "x")),
				do: func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
					return actor.Outcome{Code: actor.Refused, Err: errors.New("no")}
				},
			}, seldom)
			defer x.run(x.Engine)()
			x.tell("one")
			x.stays(80 * day)
			v, _ := x.see()
			if len(v.Dead) != 1 {
				t.Fatalf("%d dead letters", len(v.Dead))
			}
			if _, err := actor.ReadDeadLetter(t.Context(), x.store, subject, v.Dead[0].ID); err != nil {
				t.Error(err)
			}
			if !discarded {
				x.goes(actor.DeadLife - 80*day)
				return
			}
			if err := x.Discard(t.Context(), subject, v.Dead[0].ID, "test"); err != nil {
				t.Fatal(err)
			}
			x.goes(state.IDLife)
		})
	}
}

// Mail that comes while the subject is about to be dropped is decided, and the subject stays.
func TestMailBeforeTheDropKeepsTheSubject(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x *bench
		var armed atomic.Bool
		x = newBench(t, &script{decide: keeping(kept)}, actor.Options{Poll: 6 * time.Hour, Trace: func(_ state.Subject, p actor.Point) {
			if p == actor.AtBegun && armed.CompareAndSwap(true, false) {
				x.tell("two")
			}
		}})
		defer x.run(x.Engine)()
		x.tell("one")
		x.stays(kept - day)
		armed.Store(true)
		x.stays(2 * day)
		if _, d := x.see(); armed.Load() || len(d.Seen) != 2 {
			t.Errorf("armed %v, seen %v", armed.Load(), d.Seen)
		}
		x.goes(kept - day)
	})
}

// The numbers of a second life begin anew, and so do the ids of what it tells: they must be forgotten by then.
func TestTellOfASecondLifeArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := state.Subject{Instance: "test", Project: "1", Kind: "script", Key: "other"}
		w := wish("told", actor.Permitting, "x")
		w.To = &other
		var told int
		x := newBench(t, nil, seldom)
		x.Engine = x.engine(&script{decide: func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
			for _, m := range in.Mail {
				if m.Kind == "effect" {
					told++
					return actor.Step[tally]{Next: d}
				}
			}
			return keeping(time.Hour, w)(d, in, now)
		}}, seldom)
		defer x.run(x.Engine)()
		for life := range 3 {
			x.tell(fmt.Sprint(life))
			x.goes(state.IDLife) // an hour would be too soon
			if told != life+1 {
				t.Fatalf("%d of %d tells arrived", told, life+1)
			}
		}
	})
}

func TestSubjectStaysAsLongAsItsRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{decide: func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
			s := keeping(kept)(d, in, now)
			s.Put = []state.Record{{Key: "long", Value: []byte("v"), TTL: 200 * day}, {Key: "short", Value: []byte("v"), TTL: day}}
			return s
		}}, seldom)
		defer x.run(x.Engine)()
		x.tell("one")
		x.goes(200 * day)
	})
}

// However many end at once, what else falls due is not kept waiting behind them.
func TestManyEndAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{Turns: 16})
		n := 10 * 4 * 16
		for i := range n {
			s := state.Subject{Instance: "test", Project: "1", Kind: "log", Key: fmt.Sprint(i)}
			if _, err := actor.Ask(t.Context(), x.Engine, s, "", func(d tally, _ time.Time) (actor.Step[tally], error) {
				return actor.Step[tally]{Next: d, Keep: kept}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		elapse(kept + time.Second)
		defer x.run(x.Engine)()
		elapse(2 * time.Second)
		synctest.Wait()
		if due, err := x.store.Due(t.Context(), n); err != nil || len(due) > 0 {
			t.Errorf("%d of %d are left, %v", len(due), n, err)
		}
	})
}

// What waits for a place here, or fails, is not looked for again and again: the store is busy or sick enough then.
func TestStoreIsNotAskedFasterThanWorkGetsDone(t *testing.T) {
	for name, sick := range map[string]bool{"slow work": false, "sick store": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				x := newBench(t, &script{}, actor.Options{})
				for i := range 200 {
					s := subject
					s.Key = fmt.Sprint(i)
					if _, err := x.Tell(t.Context(), state.Delivery{Subject: s, ID: fmt.Sprint("test:x:", i), Kind: "note", Format: 1}); err != nil {
						t.Fatal(err)
					}
				}
				spy := &spy{Store: x.store, sick: sick}
				e := actor.New(spy, x.locker, actor.Options{Turns: 4})
				actor.Register(e, "script", &script{
					decide: wishing(wish("w", actor.Cosmetic, "x")),
					do: func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
						elapse(time.Second)
						return actor.Outcome{Code: actor.Done}
					},
				}, actor.KindOptions{})
				defer x.run(e)()
				elapse(20 * time.Second)
				if n := spy.looks.Load(); n > 30 {
					t.Errorf("looked %d times in 20 s", n)
				}
			})
		})
	}
}

// spy counts what is dropped, and the looks for what is due. A sick one lets no turn begin.
type spy struct {
	*embedded.Store
	sick         bool
	drops, looks atomic.Int64
}

func (s *spy) Commit(ctx context.Context, c state.Commit) (state.Committed, error) {
	if c.Drop {
		s.drops.Add(1)
	}
	return s.Store.Commit(ctx, c)
}

func (s *spy) Begin(ctx context.Context, of state.Subject, holder string, lease time.Duration) (state.Snapshot, state.Verdict, error) {
	if s.sick {
		return state.Snapshot{}, 0, errLost
	}
	return s.Store.Begin(ctx, of, holder, lease)
}

func (s *spy) Due(ctx context.Context, limit int) ([]state.Subject, error) {
	s.looks.Add(1)
	return s.Store.Due(ctx, limit)
}

// A turn for a subject that another has dropped meanwhile takes up a place again: it must leave none.
func TestTurnForNothingLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		if _, v, err := x.store.Begin(t.Context(), subject, "other", time.Second); err != nil || v != state.OK {
			t.Fatal(v, err)
		}
		if _, err := x.store.Commit(t.Context(), state.Commit{Subject: subject, Holder: "other", HandBack: true}); err != nil {
			t.Fatal(err)
		}
		spy := &spy{Store: x.store}
		e := actor.New(spy, x.locker, actor.Options{})
		actor.Register(e, "script", x.script, actor.KindOptions{})
		defer x.run(e)()
		elapse(time.Second)
		synctest.Wait()
		if n := spy.drops.Load(); n != 1 || x.there() {
			t.Errorf("dropped %d times", n)
		}
	})
}

// A document that no behaviour reads ends as well; mail, or what a newer program wrote, is left to one who knows it.
func TestDocumentOfNoKindIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, seldom)
		defer x.run(x.Engine)()
		plain, mailed, newer := subject, subject, subject
		plain.Kind, mailed.Kind, newer.Key = "log", "unknown", "newer"
		for _, s := range []state.Subject{plain, mailed} {
			if _, err := actor.Ask(t.Context(), x.Engine, s, "", func(d tally, _ time.Time) (actor.Step[tally], error) {
				return actor.Step[tally]{Next: d, Keep: kept}, nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := x.store.Commit(t.Context(), state.Commit{Subject: newer, Doc: json.RawMessage(`{"format":99,"keep":1,"seq":"of another type"}`), Wake: time.Now().Add(kept)}); err != nil {
			t.Fatal(err)
		}
		left := func(s state.Subject) bool {
			n, err := x.store.Load(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			return n.Doc != nil
		}
		elapse(kept - day)
		synctest.Wait()
		if !left(plain) {
			t.Error("gone too early")
		}
		if _, err := x.Tell(t.Context(), state.Delivery{Subject: mailed, ID: "m", Kind: "note", Format: 1}); err != nil {
			t.Fatal(err)
		}
		// Somebody was to drop it, and died.
		if _, v, err := x.store.Begin(t.Context(), plain, "crashed", time.Second); err != nil || v != state.OK {
			t.Fatal(v, err)
		}
		elapse(30 * day)
		synctest.Wait()
		if left(plain) || !left(mailed) || !left(newer) {
			t.Errorf("left: of no kind %v, with mail %v, of a newer format %v; want only the last two", left(plain), left(mailed), left(newer))
		}
	})
}
