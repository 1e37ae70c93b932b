package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// listed answers what jobs list shows in one state.
func (w *world) listed(in string) (of []job) {
	w.Helper()
	for _, j := range decoded[jobs](w.T, w.command(exitOK, "", nil, "jobs", "list", "--output", "json")).Jobs {
		if j.State == in {
			of = append(of, j)
		}
	}
	return of
}

// refuses has the forge answer every such call so, until the function it answers is called.
func (w *world) refuses(method, path string, code int) (mend func()) {
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if r.Method != method || !strings.Contains(r.URL.Path, path) {
			return nil
		}
		return &sandbox.Fault{Status: code, Body: fmt.Sprintf(`{"message":"not today","status":"%d"}`, code)}
	})
	return func() { w.forge.SetFault(nil) }
}

// An effect that fails is listed while it is tried, with the forge's answer, and can be tried at once.
func TestFailingEffectIsListedAndTriedAtOnce(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	mend := w.refuses(http.MethodDelete, "/labels/", http.StatusBadGateway)
	w.labels(w.mallory, pr) // who may not approve: it is to be removed
	w.deliver()
	w.until("its removal has failed five times", func() bool {
		got := w.listed("failing")
		return len(got) == 1 && strings.Contains(got[0].Why, "(5 tries)")
	})
	j := w.listed("failing")[0]
	if j.Subject != w.subject(pr) || !strings.Contains(j.Why, "502") || j.Since.IsZero() {
		t.Errorf("%+v", j)
	}
	w.command(exitFailed, "no such dead letter", nil, "jobs", "discard", j.Subject.String(), j.ID) // it is no dead letter
	mend()
	w.command(exitOK, "done", nil, "jobs", "retry", j.Subject.String(), j.ID)
	w.settle(pr)
	w.label(pr, false)
	if got := w.listed("failing"); len(got) != 0 {
		t.Errorf("still listed: %+v", got)
	}
	if !strings.Contains(w.told(pr), "asked for the next try of "+j.ID) {
		t.Errorf("the story does not say that a person asked for it:\n%s", w.told(pr))
	}
}

// A status that the forge refuses for good is a dead letter of the commit, which a person lists and retries.
func TestRefusedStatusIsListedAndRetried(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	mend := w.refuses(http.MethodPost, "/check-runs", http.StatusUnprocessableEntity)
	pr := w.opens(w.mallory)
	w.deliver()
	w.until("there is a dead letter", func() bool { return len(w.listed("dead")) > 0 })
	j := w.listed("dead")[0]
	if j.Subject != w.commit(pr.Head()) || !strings.Contains(j.Why, "422") {
		t.Errorf("%+v", j)
	}
	mend()
	w.command(exitOK, "done", nil, "jobs", "retry", j.Subject.String(), j.ID)
	w.until("the gate is there", func() bool {
		c := w.repo.Check(pr.Head(), gateCheck)
		return c != nil && c.State() == "action_required"
	})
	for _, j := range w.listed("dead") { // a reconcile meanwhile may have made another
		w.command(exitOK, "done", nil, "jobs", "discard", j.Subject.String(), j.ID)
	}
	if got := w.listed("dead"); len(got) != 0 {
		t.Errorf("still listed: %+v", got)
	}
}

// bystander stands in for the pull request's mind while its process dies.
type bystander struct{}

func (bystander) Look(context.Context, state.Subject, json.RawMessage, actor.Inputs, time.Time) struct{} {
	return struct{}{}
}

func (bystander) Decide(_ state.Subject, d json.RawMessage, _ struct{}, _ actor.Inputs, _ time.Time) actor.Step[json.RawMessage] {
	return actor.Step[json.RawMessage]{Next: d}
}

func (bystander) Do(context.Context, state.Subject, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
	return actor.Outcome{Code: actor.Done}
}

// A subject that five processes in a row died of is listed with its reason, and goes on where it stood when a person
// releases it.
func TestQuarantineIsListedAndReleased(t *testing.T) {
	t.Parallel()
	store := fileStore(t)
	w := begin(t, store)
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	s.kill()

	// The waits between two lives are the engine's own tests' business.
	var ahead atomic.Int64
	file, err := embedded.Open(t.Context(), filepath.Clean(strings.TrimPrefix(store, "file:")), embedded.Options{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	w.must(err)
	subject := w.subject(pr)
	for life := range 6 {
		died := make(chan struct{})
		e := actor.New(file, lock.NewLocal(time.Minute), actor.Options{Poll: 10 * time.Millisecond, Trace: func(s state.Subject, p actor.Point) {
			if s == subject && (p == actor.AtDecided || life == 5 && p == actor.AtReleased) {
				close(died)
				runtime.Goexit()
			}
		}})
		actor.Register(e, "pr", bystander{}, actor.KindOptions{MailFormat: 1 << 10})
		if life == 0 {
			_, err := e.Tell(t.Context(), state.Delivery{Subject: subject, ID: "poison", Kind: actor.KindReconcile, Format: 1, Body: []byte("poison")})
			w.must(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		hours := time.NewTicker(10 * time.Millisecond)
		for alive := true; alive; {
			select {
			case <-died:
				alive = false
			case <-hours.C:
				ahead.Add(int64(time.Minute))
			}
		}
		hours.Stop()
		cancel()
		w.must(<-ended)
	}
	w.must(file.Close())

	got := w.listed("quarantine")
	if len(got) != 1 || got[0].Subject != subject || !strings.Contains(got[0].Why, "died of it 5 times") {
		t.Fatalf("%+v", got)
	}
	w.command(exitOK, subject.String(), nil, "jobs")
	w.command(exitUsage, "retry releases it", nil, "jobs", "discard", subject.String())
	w.serve(1)
	w.labels(w.maya, pr)
	w.deliver()
	w.command(exitOK, "done", nil, "jobs", "retry", subject.String())
	w.until("the gate is open", func() bool { // not at rest: what is planned is planned by the clock that ran ahead
		w.deliver()
		c := w.repo.Check(pr.Head(), gateCheck)
		return c != nil && c.State() == "success"
	})
	if got := w.listed("quarantine"); len(got) != 0 {
		t.Errorf("still listed: %+v", got)
	}
}
