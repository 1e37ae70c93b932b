package main

import (
	"fmt"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// death is one process killed at one boundary of one life.
type death struct {
	life  string // opening or shutting
	kind  string // of the subject that is being worked on
	point actor.Point
	n     int // the n-th time
	pr    *sandbox.PR
}

func (d death) String() string {
	return fmt.Sprintf("%s, %s %s for the time %d", d.life, d.kind, d.point, d.n)
}

// deaths are one at every boundary, and those around the trigger itself: the second effect of the opening.
func deaths() (all []death) {
	for _, life := range []string{"opening", "shutting"} {
		for _, kind := range []string{"pr", "commit"} {
			for _, p := range []actor.Point{
				actor.AtLocked, actor.AtBegun, actor.AtDecided, actor.AtCommitted, actor.AtDoing, actor.AtDone, actor.AtReleased,
			} {
				all = append(all, death{life: life, kind: kind, point: p, n: 1})
			}
		}
	}
	late := 2
	if soak() {
		late = 4
	}
	for n := 2; n <= late; n++ {
		for _, p := range []actor.Point{actor.AtDecided, actor.AtCommitted, actor.AtDoing, actor.AtDone} {
			all = append(all, death{life: "opening", kind: "pr", point: p, n: n}, death{life: "shutting", kind: "pr", point: p, n: n})
		}
	}
	return all
}

// One of three processes dies by kill -9 at every boundary of a turn, one death per pull request, and another process
// takes its place. Nothing is lost and nothing is done twice.
func TestKillAtEveryBoundaryLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	w := begin(t, redisStore(t).URL())
	w.serve(3)
	cases := deaths()
	var pulls []*sandbox.PR
	for i := range cases {
		cases[i].pr = w.opens(w.mallory)
		pulls = append(pulls, cases[i].pr)
	}
	w.settle(pulls...)
	for _, d := range cases {
		if d.life == "shutting" {
			w.labels(w.maya, d.pr)
		}
	}
	w.settle(pulls...)
	for _, r := range w.repo.Runs() {
		r.Start()
	}
	first := map[*sandbox.PR]string{}
	for _, d := range cases {
		first[d.pr] = d.pr.Head()
		if d.life == "opening" {
			w.labels(w.maya, d.pr)
		} else {
			w.pushes(w.mallory, d.pr)
		}
		victim := w.subject(d.pr)
		if d.kind == "commit" {
			victim = w.commit(d.pr.Head())
		}
		before := len(w.alive())
		w.arm(victim, d.point, d.n, syscall.SIGKILL)
		w.deliver()
		w.until("one died: "+d.String(), func() bool { return len(w.alive()) < before })
		w.spawn()
	}
	w.settle(pulls...)

	for _, d := range cases {
		before := t.Failed()
		if d.life == "opening" {
			w.open(d.pr)
		} else {
			w.shut(d.pr)
			w.gate(d.pr, first[d.pr], "cancelled")
			w.triggered(d.pr, first[d.pr], 1)
			w.triggered(d.pr, d.pr.Head(), 0)
		}
		victim := w.subject(d.pr)
		if d.kind == "commit" {
			victim = w.commit(d.pr.Head())
		}
		marked := slices.Contains([]actor.Point{actor.AtBegun, actor.AtDecided, actor.AtDoing, actor.AtDone}, d.point)
		if marked && w.passed(victim, "Taken_Over") == 0 {
			t.Errorf("nobody knows that %s was taken over:\n%s", victim, w.told(d.pr))
		}
		if t.Failed() && !before {
			t.Errorf("that was: %s", d)
		}
	}
	if len(w.wire.overlaps) > 0 {
		t.Errorf("two writes at once for one subject: %v", w.wire.overlaps)
	}
}

// The worst moments of all: the run has been started, and the process dies before it has saved so, or just after.
func TestKillAfterATriggerFindsItsRun(t *testing.T) {
	t.Parallel()
	for _, point := range []actor.Point{actor.AtDone, actor.AtDecided, actor.AtCommitted} {
		t.Run(string(point), func(t *testing.T) {
			t.Parallel()
			w := begin(t, redisStore(t).URL())
			first := w.serve(1)[0]
			pr := w.opens(w.mallory)
			w.settle(pr)
			started := w.holds(true, dispatches)
			w.labels(w.maya, pr)
			w.deliver()
			w.held(started)
			w.arm(w.subject(pr), point, 1, syscall.SIGKILL)
			started.release()
			if code := first.wait(); code != -1 {
				t.Fatalf("the process ended with %d, want it killed", code)
			}
			w.serve(1)
			w.settle(pr)
			w.open(pr)
			if n := len(w.forge.Triggers()); n != 1 {
				t.Errorf("%d run keys, want 1", n)
			}
		})
	}
}

// kill -9 of the one process on the embedded store while deliveries pour in: whatever was answered 202 is there.
func TestKillUnderLoadKeepsWhatTheEmbeddedStoreAcknowledged(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	s := w.serve(1)[0]
	w.deliver()
	var pulls []*sandbox.PR
	for range 120 {
		pulls = append(pulls, w.opens(w.mallory))
	}
	due := w.forge.Due()
	var mu sync.Mutex
	var wait sync.WaitGroup
	taken := map[string]bool{} // by GUID
	todo := make(chan sandbox.Delivery, len(due))
	for _, d := range due {
		todo <- d
	}
	close(todo)
	for range 8 {
		wait.Go(func() {
			for d := range todo {
				a := s.post(d)
				mu.Lock()
				if a.status == http.StatusAccepted {
					taken[d.GUID] = true
				}
				if len(taken) == len(due)/3 {
					_ = s.cmd.Process.Kill() // from then on every post fails
				}
				mu.Unlock()
			}
		})
	}
	wait.Wait()
	if n := len(taken); n < len(due)/3 || n == len(due) {
		t.Fatalf("%d of %d deliveries were stored before the kill: it was not amid the load", n, len(due))
	}
	s = w.serve(1)[0]
	for _, d := range due {
		if a := s.post(d); a.status != http.StatusAccepted || a.Duplicate == nil || taken[d.GUID] && !*a.Duplicate {
			t.Errorf("%s: acknowledged before the kill: %v; sent again it is answered %+v", d.GUID, taken[d.GUID], a)
		}
	}
	w.settle(pulls...)
	for _, p := range pulls {
		w.shut(p)
		if n := w.passed(w.subject(p), "opened by"); n != 1 {
			t.Errorf("the opening of #%d is decided %d times, want once", p.Number, n)
		}
	}
}
