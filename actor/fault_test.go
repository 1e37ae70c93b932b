package actor_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

var errLost = errors.New("the answer was lost")

// lossy is a real store on a bad line: it can save without its answer arriving, and it can change its history.
type lossy struct {
	*embedded.Store
	commits  atomic.Int64
	lose     int64 // the n-th commit is done and its answer lost
	identity atomic.Pointer[string]
}

func (l *lossy) Commit(ctx context.Context, c state.Commit) (state.Committed, error) {
	done, err := l.Store.Commit(ctx, c)
	if l.commits.Add(1) == l.lose {
		return state.Committed{}, errLost
	}
	return done, err
}

func (l *lossy) Identity(ctx context.Context) (string, error) {
	if id := l.identity.Load(); id != nil {
		return *id, nil
	}
	return l.Store.Identity(ctx)
}

// Whichever save's answer is lost, everything takes effect once and is written down once.
func TestLostAnswersOfSaves(t *testing.T) {
	for n := int64(1); n <= 5; n++ {
		t.Run(strconv.FormatInt(n, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				did := 0
				b := &script{decide: wishing(wish("a", actor.Permitting, ""), wish("b", actor.Permitting, ""))}
				b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
					did++
					return actor.Outcome{Code: actor.Done}
				}
				x := newBench(t, b, actor.Options{})
				e := actor.New(&lossy{Store: x.store, lose: n}, x.locker, actor.Options{})
				actor.Register(e, "script", b, actor.KindOptions{})
				defer x.run(e)()
				x.tell("go")
				elapse(2 * time.Minute)
				synctest.Wait()
				v, d := x.see()
				equal(t, "mail", d.Seen, []string{"go"})
				equal(t, "results", d.Results, []string{"a done", "b done"})
				if did != 2 || len(v.Outbox) != 0 {
					t.Errorf("%d effects, outbox %v", did, v.Outbox)
				}
				lines, err := x.store.Journal(t.Context(), subject, 100)
				effects := slices.DeleteFunc(lines, func(l []byte) bool { return !strings.Contains(string(l), `"effect"`) })
				if err != nil || len(effects) != 2 {
					t.Errorf("journal %s, %v", lines, err)
				}
			})
		})
	}
}

// So does each of several tells that share a save.
func TestLostAnswersOfSavesOfTells(t *testing.T) {
	for n := int64(1); n <= 4; n++ {
		synctest.Test(t, func(t *testing.T) {
			var ws []actor.Wish
			for i := range 3 {
				w, other := wish(fmt.Sprint("w", i), actor.Permitting, "1"), subject
				other.Kind, other.Key = "unread", fmt.Sprint("b", i)
				w.To = &other
				ws = append(ws, w)
			}
			b := &script{decide: wishing(ws...)}
			x := newBench(t, b, actor.Options{})
			e := actor.New(&lossy{Store: x.store, lose: n}, x.locker, actor.Options{})
			actor.Register(e, "script", b, actor.KindOptions{})
			defer x.run(e)()
			x.tell("go")
			elapse(2 * time.Minute)
			synctest.Wait()
			v, d := x.see()
			equal(t, "results", d.Results, []string{"w0 done", "w1 done", "w2 done"})
			if len(v.Outbox) != 0 {
				t.Errorf("outbox %v", v.Outbox)
			}
			for _, w := range ws {
				if told, err := x.store.Load(t.Context(), *w.To); err != nil || len(told.Mail) != 1 {
					t.Errorf("%s heard %d times, %v", w.To, len(told.Mail), err)
				}
			}
		})
	}
}

// A store on another history may have lost acknowledged writes: what was touched lately is compared with the outside,
// and effects are looked up before their first try.
func TestFailoverReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var unsure []bool
		b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			unsure = append(unsure, !e.Unsure.IsZero())
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		store := &lossy{Store: x.store}
		e := actor.New(store, x.locker, actor.Options{})
		actor.Register(e, "script", b, actor.KindOptions{})
		defer x.run(e)()
		x.tell("before")
		elapse(time.Minute)
		other := "another history"
		store.identity.Store(&other)
		elapse(time.Minute)
		x.tell("after")
		elapse(time.Hour)
		x.tell("long after")
		elapse(time.Minute)
		synctest.Wait()
		_, d := x.see()
		equal(t, "reconciles", d.Causes, []string{"failover"})
		equal(t, "looked up first", unsure, []bool{false, true, false})
	})
}

// An effect starts only with more than half of the lease left.
func TestNoEffectOnAShortLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stalled := make(chan struct{})
		var did []string
		b := &script{decide: wishing(wish("a", actor.Permitting, ""), wish("b", actor.Permitting, ""))}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			did = append(did, e.Key)
			if e.Key == "a" {
				close(stalled) // from now on nobody renews
				elapse(ttl/2 + time.Second)
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		x.locker = &stalling{Locker: x.locker, stalled: stalled}
		x.Engine = x.engine(b, actor.Options{Poll: time.Hour})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(ttl)
		synctest.Wait()
		equal(t, "effects", did, []string{"a"})
	})
}

// A turn does not keep its lease for ever, however much there is to do.
func TestLongTurnsHandBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ws []actor.Wish
		for i := range 100 {
			ws = append(ws, wish(fmt.Sprintf("w%02d", i), actor.Permitting, ""))
		}
		turns, did := 0, 0
		b := &script{decide: wishing(ws...)}
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			did++
			elapse(9 * time.Second)
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{Trace: func(_ state.Subject, p actor.Point) {
			if p == actor.AtLocked {
				turns++
			}
		}})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(20 * time.Minute)
		synctest.Wait()
		if v, _ := x.see(); did != 100 || turns < 3 || v.Crashes != 0 {
			t.Errorf("%d effects in %d turns, %d crashes", did, turns, v.Crashes)
		}
	})
}

// Beyond its depth a mailbox takes no more hints; the subject compares itself with the outside instead.
func TestDeepMailboxReconciles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		for i := range state.HintDepth + 10 {
			_, err := x.Tell(t.Context(), state.Delivery{Subject: subject, ID: fmt.Sprint("test:", i), Kind: "note", Format: 1, Hint: true})
			if err != nil {
				t.Fatal(err)
			}
		}
		defer x.run(x.Engine)()
		elapse(time.Minute)
		synctest.Wait()
		v, d := x.see()
		if len(d.Seen) != state.HintDepth || v.Unread != 0 {
			t.Errorf("%d seen, %d unread", len(d.Seen), v.Unread)
		}
		equal(t, "reconciles", d.Causes, []string{"depth"})
	})
}

func TestWakeInThePastIsNoBusyLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{decide: func(d tally, _ actor.Inputs, now time.Time) actor.Step[tally] {
			return actor.Step[tally]{Next: d, Wake: now.Add(-time.Hour)}
		}}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(time.Minute)
		if _, d := x.see(); d.Woken < 20 || d.Woken > 65 {
			t.Errorf("woken %d times in a minute", d.Woken)
		}
	})
}

// Subjects that crashed twice run one at a time, so that one poison does not take its neighbours along.
func TestSuspectsRunAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		for _, key := range []string{"a", "b", "c"} {
			s := subject
			s.Key = key
			if _, err := x.Tell(t.Context(), state.Delivery{Subject: s, ID: "test:" + key, Kind: "note", Format: 1}); err != nil {
				t.Fatal(err)
			}
			dieTwice(t, x, s)
		}
		var now, most atomic.Int64
		b := &script{look: func(in actor.Inputs) {
			if len(in.Mail) == 0 {
				return // the reconciles that follow are no suspects any more
			}
			most.Store(max(most.Load(), now.Add(1)))
			elapse(time.Second)
			now.Add(-1)
		}}
		defer x.run(x.engine(b, actor.Options{}))()
		elapse(2 * time.Minute)
		synctest.Wait()
		if most.Load() != 1 {
			t.Errorf("%d suspects at once", most.Load())
		}
	})
}

// dieTwice leaves a subject as two processes leave it that die right after Begin, the second with the first's takeover
// saved.
func dieTwice(t *testing.T, x *bench, s state.Subject) {
	t.Helper()
	for range 2 {
		lease, err := x.locker.TryLock(t.Context(), s.LockKey())
		if err != nil {
			t.Fatal(err)
		}
		snap, _, err := x.store.Begin(t.Context(), s, lease.Token(), ttl)
		if err != nil {
			t.Fatal(err)
		}
		if snap.Holder != "" {
			doc := []byte(`{"format":1,"crashes":1}`)
			if _, err := x.store.Commit(t.Context(), state.Commit{Subject: s, Holder: lease.Token(), Version: snap.Version, Doc: doc}); err != nil {
				t.Fatal(err)
			}
		}
		if err := lease.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// deaf is a store that takes long to take what one subject tells another.
type deaf struct {
	*embedded.Store
	wait time.Duration
}

func (d *deaf) Accept(ctx context.Context, x state.Delivery) (state.Accepted, error) {
	if x.Own {
		select {
		case <-ctx.Done():
			return state.Accepted{}, ctx.Err()
		case <-time.After(d.wait):
		}
	}
	return d.Store.Accept(ctx, x)
}

// Newer mail waits for one effect at most, also where many tells are to share a save.
func TestMailDoesNotWaitForManyTells(t *testing.T) {
	for name, wait := range map[string]time.Duration{"none gets through": time.Minute, "each gets through late": 9 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var ws []actor.Wish
				for i := range 20 {
					w, other := wish(fmt.Sprint("w", i), actor.Permitting, "1"), subject
					other.Key = fmt.Sprint("b", i)
					w.To = &other
					ws = append(ws, w)
				}
				x := newBench(t, &script{}, actor.Options{})
				e := actor.New(&deaf{x.store, wait}, x.locker, actor.Options{})
				actor.Register(e, "script", &script{decide: wishing(ws...)}, actor.KindOptions{})
				defer x.run(e)()
				x.tell("go")
				elapse(time.Second)
				x.tell("stop")
				elapse(10 * time.Second)
				synctest.Wait()
				_, d := x.see()
				equal(t, "seen", d.Seen, []string{"go", "stop"})
			})
		})
	}
}
