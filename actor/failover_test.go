package actor_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// failing over, a store is on another history from one moment to the next.
type failingOver struct {
	*embedded.Store
	other atomic.Bool
}

func (s *failingOver) Identity(context.Context) (string, error) {
	if s.other.Load() {
		return "other", nil
	}
	return "first", nil
}

// After a failover an effect that was never tried is looked up first. Its doubt must age: a look that finds nothing
// has to be believed once the settle time is over, not put off for as long as the caution lasts.
func TestDoubtAfterAFailoverEndsWithTheSettleTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const settle = 30 * time.Second
		b := &script{decide: wishing(wish("run", actor.Permitting, "1"))}
		looks := 0
		b.do = func(_ context.Context, e actor.Entry, now time.Time, _ func(context.Context) error) actor.Outcome {
			if e.Unsure.IsZero() {
				t.Error("not looked up first")
			}
			if wait := e.Unsure.Add(settle).Sub(now); wait > 0 {
				looks++
				return actor.Outcome{Code: actor.Settling, After: wait}
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		store := &failingOver{Store: x.store}
		x.Engine = actor.New(store, x.locker, actor.Options{})
		actor.Register(x.Engine, "script", b, actor.KindOptions{})
		stop := x.run(x.Engine)
		defer stop()
		elapse(2 * time.Second)
		store.other.Store(true)
		elapse(2 * time.Second)
		x.tell("go")
		elapse(settle + 5*time.Second)
		if _, d := x.see(); looks != 1 || len(d.Results) != 1 {
			t.Errorf("after the settle time: %d looks, results %q, want one look and the effect done", looks, d.Results)
		}
	})
}
