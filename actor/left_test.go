package actor_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
)

// Unsure is since the first call that may have left, Left since the newest; both outlive the wish they were for, as the
// data of the newest failure outlives its try.
func TestNewestCallThatMayHaveLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var failed []time.Time
		want := "first"
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			if len(in.Mail) > 0 {
				s.Wishes = []actor.Wish{wish("w", actor.Permitting, want)}
			}
			return s
		}
		b.do = func(_ context.Context, e actor.Entry, now time.Time, _ func(context.Context) error) actor.Outcome {
			var first, newest time.Time
			if n := len(failed); n > 0 {
				first, newest = failed[0], failed[n-1]
			}
			if !e.Unsure.Equal(first) || !e.Left.Equal(newest) {
				t.Errorf("try %d: unsure since %s, left %s; want %s and %s", len(failed)+1, e.Unsure, e.Left, first, newest)
			}
			if len(failed) == 3 {
				return actor.Outcome{Code: actor.Done}
			}
			failed = append(failed, now)
			return actor.Outcome{Code: actor.Failed, Err: errors.New("no answer"), Data: json.RawMessage(`{"code":502}`)}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(2 * time.Second)
		synctest.Wait()
		if v, _ := x.see(); len(v.Outbox) != 1 || string(v.Outbox[0].LastData) != `{"code":502}` || v.Outbox[0].LastError != "no answer" {
			t.Errorf("outbox %+v", v.Outbox)
		}
		want = "second"
		x.tell("another")
		elapse(time.Minute)
		synctest.Wait()
		if v, _ := x.see(); len(failed) != 3 || len(v.Outbox) != 0 {
			t.Errorf("%d failures, outbox %+v", len(failed), v.Outbox)
		}
	})
}
