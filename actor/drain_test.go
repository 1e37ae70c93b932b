package actor_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
)

// slowly is a script whose decision wishes for effects at these distances from now.
func slowly(distances ...time.Duration) *script {
	return &script{decide: func(d tally, in actor.Inputs, now time.Time) actor.Step[tally] {
		s := actor.Step[tally]{Next: d}
		if len(in.Mail) == 0 {
			return s
		}
		for _, x := range distances {
			w := wish(x.String(), actor.Cosmetic, "done")
			w.NotBefore = now.Add(x)
			s.Wishes = append(s.Wishes, w)
		}
		return s
	}}
}

func TestDrainWorksUntilAllIsQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, slowly(0, 3*time.Second, 6*time.Second, time.Minute), actor.Options{Poll: time.Hour})
		defer x.run(x.Engine)()
		synctest.Wait()
		x.tell("a")
		begun := time.Now()
		out, err := x.Drain(t.Context(), 4*time.Second)
		if err != nil || !out.Idle || out.Subjects != 1 {
			t.Errorf("%+v %v", out, err)
		}
		if took := time.Since(begun); took < 10*time.Second || took > 11*time.Second {
			t.Errorf("took %s, expected 4 s after the last effect within reach", took)
		}
		if _, d := x.see(); len(d.Results) != 3 {
			t.Errorf("done: %v", d.Results)
		}
	})
}

// What is under way is not due, and Drain waits for it all the same.
func TestDrainWaitsForRunningTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := slowly(0)
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			elapse(7 * time.Second)
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{Poll: time.Hour})
		defer x.run(x.Engine)()
		synctest.Wait()
		x.tell("a")
		if out, err := x.Drain(t.Context(), time.Second); err != nil || !out.Idle {
			t.Errorf("%+v %v", out, err)
		}
		if _, d := x.see(); len(d.Results) != 1 {
			t.Errorf("done: %v", d.Results)
		}
	})
}

func TestDrainEndsWithItsContextAndWithRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, slowly(), actor.Options{Poll: time.Hour})
		stop := x.run(x.Engine)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		begun := time.Now()
		if out, err := x.Drain(ctx, time.Minute); err != nil || out.Idle || time.Since(begun) > 3*time.Second {
			t.Errorf("%+v %v after %s", out, err, time.Since(begun))
		}
		stop()
		begun = time.Now()
		if out, err := x.Drain(t.Context(), time.Minute); err != nil || out.Idle || time.Since(begun) > time.Second {
			t.Errorf("after Run: %+v %v after %s", out, err, time.Since(begun))
		}
	})
}
