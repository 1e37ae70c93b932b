package main

import (
	"net/http"
	"sync"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// flood posts one delivery 50 times at once, spread over all processes, and wants one of them to have been new.
func (w *world) flood(d sandbox.Delivery) {
	w.Helper()
	var mu sync.Mutex
	var wait sync.WaitGroup
	fresh, to := 0, w.alive()
	for i := range 50 {
		wait.Go(func() {
			a := to[i%len(to)].post(d)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case a.status != http.StatusAccepted || a.Duplicate == nil:
				w.Errorf("%s: answered %+v, want 202", d.Action, a)
			case !*a.Duplicate:
				fresh++
			}
		})
	}
	wait.Wait()
	if fresh != 1 {
		w.Errorf("%s: of 50 equal deliveries %d were new, want 1", d.Action, fresh)
	}
}

func TestFiftyDuplicatesAtOnceOverThreeProcessesHaveOneEffect(t *testing.T) {
	t.Parallel()
	w := begin(t, redisStore(t).URL())
	w.serve(3)
	pr := w.opens(w.mallory)
	w.flood(w.delivery(pr, "opened"))
	w.settle(pr)
	w.shut(pr)

	w.labels(w.maya, pr)
	w.flood(w.delivery(pr, "labeled"))
	w.settle(pr)
	w.open(pr)
	for _, words := range []string{"opened by", "label added by"} {
		if n := w.passed(w.subject(pr), words); n != 1 {
			t.Errorf("%q is decided %d times, want once:\n%s", words, n, w.told(pr))
		}
	}
	opened := 0
	for _, x := range w.forge.Writes(0) {
		if x.Kind == "check" && x.Name == gateCheck && x.State == "success" {
			opened++
		}
	}
	if opened != 1 {
		t.Errorf("the gate was opened %d times, want once", opened)
	}
}

// order sends the newest deliveries of these actions in this order, not in the order in which they arose.
func (w *world) order(pr *sandbox.PR, actions ...string) {
	w.Helper()
	for _, action := range actions {
		w.send(w.delivery(pr, action).GUID)
	}
}

func TestLateSynchronize(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	first := pr.Head()
	w.labels(w.maya, pr)
	w.settle(pr)
	w.pushes(w.mallory, pr)
	late := w.delivery(pr, "synchronize")
	w.must(w.servers[0].sender.Drop(late.GUID)) // it stays on its way for long
	w.unlabels(w.maya, pr)
	w.labels(w.maya, pr)
	w.order(pr, "unlabeled", "labeled")
	w.settle(pr)
	w.open(pr)
	w.gate(pr, first, "cancelled")
	w.triggered(pr, first, 1)
	w.send(late.GUID)
	w.settle(pr)
	w.open(pr) // it tells of the push that has been approved since
}
