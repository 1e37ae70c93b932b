package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// refused wants a delivery answered 503 with a time to come again.
func (w *world) refused(s *server, d sandbox.Delivery, code string) {
	w.Helper()
	a := s.post(d)
	if a.status != http.StatusServiceUnavailable || a.retry == "" || a.Error.Code != code {
		w.Errorf("answered %+v, want 503 %s with Retry-After", a, code)
	}
}

func TestStoreDownWhileAcceptingStoresNothing(t *testing.T) {
	t.Parallel()
	store := redisStore(t)
	w := begin(t, store.URL())
	s := w.serve(1)[0]
	w.deliver()
	pr := w.opens(w.mallory)
	opened := w.delivery(pr, "opened")
	store.Kill()
	w.refused(s, opened, "store_unavailable")
	res, err := web.Get(s.url + "/readyz")
	w.must(err)
	w.must(res.Body.Close())
	if res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("readyz answers %d without a store, want 503", res.StatusCode)
	}
	store.Restart()
	s.ready()
	for _, k := range store.Client().Keys(t.Context(), "*").Val() {
		if strings.Contains(k, opened.GUID) || strings.Contains(k, w.subject(pr).String()) {
			t.Errorf("half stored: %s", k)
		}
	}
	if a := s.post(opened); a.status != http.StatusAccepted || a.Duplicate == nil || *a.Duplicate {
		t.Errorf("sent again it is answered %+v, want 202 and new", a)
	}
	w.settle(pr)
	w.shut(pr)
}

func TestStoreDownDuringATurnIsResumed(t *testing.T) {
	t.Parallel()
	store := redisStore(t)
	w := begin(t, store.URL())
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	started := w.holds(true, dispatches)
	w.labels(w.maya, pr)
	w.deliver()
	w.held(started)
	store.Kill()
	w.until("the process misses its store", func() bool { return strings.Contains(s.said(), "cannot look for due subjects") })
	store.Restart()
	w.until("the process knows that the history is another", func() bool { return strings.Contains(s.said(), "the store changed its history") })
	started.release()
	w.settle(pr)
	w.open(pr)
}

func TestFullRedisRefusesThenDrainsAndAcceptsAgain(t *testing.T) {
	t.Parallel()
	store := redistest.Start(t, redistest.Options{AppendFsync: "always", MaxMemory: "32mb"})
	w := begin(t, store.URL())
	s := w.serve(1)[0]
	waiting, late := w.opens(w.mallory), w.opens(w.mallory)
	w.settle(waiting, late)
	started := w.holds(false, dispatches)
	w.labels(w.maya, waiting)
	w.deliver()
	w.held(started) // in mid-turn while memory runs out

	keys, filler := store.Client(), strings.Repeat("x", 256<<10)
	var fill []string
	for {
		k := fmt.Sprintf("filler:%d", len(fill))
		if err := keys.Set(t.Context(), k, filler, 0).Err(); err != nil {
			break // above maxmemory
		}
		fill = append(fill, k)
	}
	w.labels(w.maya, late)
	labeled := w.delivery(late, "labeled")
	w.until("deliveries are refused", func() bool { return s.post(labeled).status != http.StatusAccepted })
	w.refused(s, labeled, "store_full")

	started.release()
	w.until("what was begun is drained", func() bool { return w.busy([]*sandbox.PR{waiting}) == "" })
	w.open(waiting)

	w.must(keys.Del(t.Context(), fill...).Err())
	w.settle(waiting, late) // send posts until it is stored
	w.open(late)
}
