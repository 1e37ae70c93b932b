package actor_test

import (
	"context"
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
		tries := 0
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			tries++
			return actor.Outcome{Code: actor.Refused, Err: context.DeadlineExceeded}
		}
		x := newBench(t, b, actor.Options{})
		stop := x.run(x.Engine)
		defer stop()
		x.tell("go")
		elapse(time.Minute)
		if tries < 3 {
			t.Errorf("%d tries in the first minute, want a few", tries)
		}
		elapse(24 * time.Hour)
		if tries > 20 {
			t.Errorf("%d tries in a day, want few", tries)
		}
	})
}
