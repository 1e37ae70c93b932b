package main

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/state"
)

// holder is the token on a subject's lease, "" if nobody has it.
func holder(w *world, c *redis.Client, s state.Subject) string {
	w.Helper()
	token, err := c.Get(w.Context(), s.LockKey()).Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		w.Fatal(err)
	}
	return token
}

// dropped waits until a process has noticed that it lost a subject, n times in all.
func (s *server) dropped(of state.Subject, n int) {
	s.w.Helper()
	s.w.until("the lost lease is noticed", func() bool {
		seen := 0
		for l := range strings.Lines(s.said()) {
			if strings.Contains(l, "lease lost: dropping this turn") && strings.Contains(l, `"`+of.String()+`"`) {
				seen++
			}
		}
		return seen >= n
	})
}

func freeze(s *server) {
	s.w.Helper()
	s.signal(syscall.SIGSTOP)
	s.w.until("the process is frozen", s.frozen)
}

// wrote says whether the gate check was written in a state since then.
func (w *world) wrote(since int, state string) bool {
	return slices.ContainsFunc(w.forge.Writes(since), func(x sandbox.Write) bool { return x.Name == gateCheck && x.State == state })
}

// A holder is stopped while the answer to its dispatch is on the way, past the end of its lease. The next one finds the
// run and starts none. When the first goes on it saves nothing, does nothing, and leaves the lease of the other alone.
func TestPausedHolderDoesNothingWhenItGoesOn(t *testing.T) {
	t.Parallel()
	store := redisStore(t)
	w := begin(t, store.URL())
	keys := store.Client()
	first := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	started := w.holds(true, dispatches)
	w.labels(w.maya, pr)
	w.deliver()
	w.held(started)
	freeze(first)
	mine := holder(w, keys, w.subject(pr))
	before := w.forge.Seq()
	if mine == "" || len(w.forge.Triggers()) != 1 {
		t.Fatalf("token %q, triggers %v: not in mid-effect", mine, w.forge.Triggers())
	}

	looked := w.holds(true, func(r *http.Request, _ []byte) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/workflows/presubmit.yml/runs")
	})
	w.serve(1)
	w.held(looked) // the second one is in mid-effect now
	second := holder(w, keys, w.subject(pr))
	if second == "" || second == mine {
		t.Fatalf("token %q after %q: not taken over", second, mine)
	}
	started.release()
	first.signal(syscall.SIGCONT)
	first.dropped(w.subject(pr), 1)
	if now := holder(w, keys, w.subject(pr)); now != second {
		t.Errorf("the lease of the second holder is %q now, it was %q", now, second)
	}
	if x := w.forge.Writes(before); len(x) > 0 {
		t.Errorf("writes after the pause: %+v", x)
	}
	looked.release()
	w.settle(pr)
	w.open(pr)
	if n := w.passed(w.subject(pr), "Taken_Over"); n != 1 {
		t.Errorf("taken over %d times, want once:\n%s", n, w.told(pr))
	}
}

// A process is stopped while its "success" is on the wire; the commit is taken over, and the approval taken back. The
// late write arrives after all that: the reconcile of the takeover finds it and shuts the gate again.
func TestWriteThatArrivesAfterTheTakeoverIsRepaired(t *testing.T) {
	t.Parallel()
	w := begin(t, redisStore(t).URL())
	first := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	late := w.holds(false, writesGate(pr.Head(), "success"))
	w.labels(w.maya, pr)
	w.deliver()
	w.held(late)
	freeze(first)
	before := w.forge.Seq()
	second := w.serve(1)[0]
	w.unlabels(w.maya, pr)
	w.only(second)
	w.deliver()
	commit := w.commit(pr.Head())
	w.until("the commit is taken over", func() bool { return w.passed(commit, "Taken_Over") == 1 })
	w.until("the second has shut the gate", func() bool { return w.wrote(before, "action_required") })
	late.release()
	w.until("the late write has arrived", func() bool { return w.wrote(before, "success") })
	first.signal(syscall.SIGCONT)
	first.dropped(commit, 1)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 1)
	if w.passed(commit, "Reasserted") == 0 {
		t.Error("nobody has compared the gate with the forge")
	}
}

// stale stops the first process at a point of the subject's next turn, lets the world move on under a second one, and
// answers when the first has gone on and noticed.
func (w *world) stale(s state.Subject, p actor.Point, begin func(), taken func(), moves func(second *server)) {
	w.Helper()
	first := w.alive()[0]
	w.arm(s, p, 1, syscall.SIGSTOP)
	begin()
	w.deliver()
	w.until("the first process is stopped", first.frozen)
	taken()
	second := w.serve(1)[0]
	w.only(second)
	moves(second)
	seq := w.forge.Seq()
	w.resume(first)
	first.dropped(s, 1)
	if x := w.forge.Writes(seq); len(x) > 0 {
		w.Errorf("writes after the pause: %+v", x)
	}
}

// A lease vanishes from Redis (a failover may lose it) while its holder is paused with a grant that it has decided and
// not saved. The holder believes in its lease when it goes on: only the fence is left to refuse its save.
func TestSaveOfAHolderThatWasTakenOverIsRefused(t *testing.T) {
	t.Parallel()
	store := redisStore(t)
	w := begin(t, store.URL(), "SIGNALBOX_LOCK_TTL=5m")
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.stale(w.subject(pr), actor.AtDecided,
		func() { w.labels(w.maya, pr) },
		func() { w.must(store.Client().Del(w.Context(), w.subject(pr).LockKey()).Err()) },
		func(*server) {
			w.unlabels(w.maya, pr)
			w.deliver()
			w.until("the second has decided", func() bool { return w.passed(w.subject(pr), "label removed") == 1 })
		})
	if n := w.passed(w.subject(pr), "Grant"); n > 0 {
		t.Errorf("the stale grant was saved:\n%s", w.told(pr))
	}
	w.triggered(pr, pr.Head(), 0)
	w.gate(pr, pr.Head(), "action_required")
}

// A holder is paused between the save of a shut gate and its write. What is approved meanwhile stays open: nothing
// begins under a lease that has ended.
func TestEffectDoesNotBeginUnderALeaseThatHasEnded(t *testing.T) {
	t.Parallel()
	w := begin(t, redisStore(t).URL())
	w.serve(1)
	pr := w.opens(w.mallory)
	w.stale(w.commit(pr.Head()), actor.AtCommitted, func() {}, func() {}, func(*server) {
		w.settle(pr)
		w.labels(w.maya, pr)
		w.settle(pr)
		w.open(pr)
	})
	w.settle(pr)
	w.open(pr)
}

// Mail that is stored while a trigger looks at the live pull request for the last time stops it.
func TestMailThatArrivesBeforeATriggerStopsIt(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	queued := func() bool {
		for _, x := range w.forge.Writes(0) {
			if x.Kind == "check" && x.Name == "presubmit" {
				return true
			}
		}
		return false
	}
	lastLook := w.holds(true, func(r *http.Request, _ []byte) bool {
		return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/pulls/1") && queued()
	})
	w.labels(w.maya, pr)
	w.deliver()
	w.held(lastLook)
	w.unlabels(w.maya, pr)
	w.deliver()
	lastLook.release()
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}
