package actor_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
)

// A behaviour asks again, at each reconcile, for what is refused for good. That must not go round every few seconds:
// a day of it makes few dead letters.
func TestRefusalThatReconcileRepeatsSlowsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			if len(in.Mail) > 0 || in.Reconcile != "" {
				s.Wishes = []actor.Wish{wish("cancel", actor.Shutting, "1")}
			}
			return s
		}
		var tries atomic.Int64
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			tries.Add(1)
			return actor.Outcome{Code: actor.Refused, Err: context.DeadlineExceeded}
		}
		x := newBench(t, b, actor.Options{Poll: 5 * time.Second})
		stop := x.run(x.Engine)
		defer stop()
		x.tell("go")
		elapse(time.Minute)
		if n := tries.Load(); n < 3 {
			t.Errorf("%d tries in the first minute, want a few", n)
		}
		elapse(24 * time.Hour)
		if n := tries.Load(); n > 20 {
			t.Errorf("%d tries in a day, want few", n)
		}
	})
}
