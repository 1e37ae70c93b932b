package github

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
)

func became(t *testing.T, w prmanager.Watcher, run forge.Run, r forge.Receipt) prmanager.RunState {
	t.Helper()
	s, err := w.State(t.Context(), run, r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What became of a dispatched run is read by its id, or by its key where there is none.
func TestState(t *testing.T) {
	for _, name := range []string{"workflow", "repository_dispatch"} {
		t.Run(name, func(t *testing.T) {
			w := appWorld(t)
			pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
			trigger := prmanager.Trigger(w.Dispatch())
			if name == "workflow" {
				trigger = w.workflow(t)
			}
			watcher, run := trigger.(prmanager.Watcher), w.run(pr)
			if s := became(t, watcher, run, forge.Receipt{}); s.State != "" {
				t.Errorf("before it was started: %+v", s)
			}
			r, err := trigger.Start(t.Context(), run)
			if err != nil {
				t.Fatal(err)
			}
			runs := w.repo.Runs()
			ci := runs[len(runs)-1]
			for _, c := range []struct {
				do   func()
				want forge.CheckState
				try  int
			}{
				{func() {}, forge.CheckQueued, 1},
				{ci.Start, forge.CheckRunning, 1},
				{func() { ci.Complete("timed_out") }, forge.CheckFailure, 1},
				{func() { ci.Rerun(w.maintainer) }, forge.CheckQueued, 2},
				{func() { ci.Complete("success") }, forge.CheckSuccess, 2},
			} {
				c.do()
				s := became(t, watcher, run, r)
				if s.State != c.want || s.Attempt != c.try || s.Receipt.ID != receipt(ci.ID, "").ID || s.Receipt.URL == "" {
					t.Errorf("%+v, want %s, attempt %d", s, c.want, c.try)
				}
			}
			if s := became(t, watcher, run, receipt(4711, "")); s.State != "" {
				t.Errorf("a run that is gone: %+v", s)
			}
			if _, err := watcher.State(t.Context(), run, forge.Receipt{ID: "x"}); classOf(t, err) != forge.Permanent {
				t.Errorf("%v", err)
			}
		})
	}
}

// A merge group has no number: the recipes' input says its SHA.
func TestDispatches_group(t *testing.T) {
	w := appWorld(t)
	sha := w.repo.Tip("main")
	run := forge.Run{Key: key, Ref: forge.Ref{Repo: w.where()}, SHA: sha, BaseSHA: sha, HeadRepoID: w.repo.ID, Presubmit: "presubmit"}
	for _, trigger := range []prmanager.Trigger{w.workflow(t), w.Dispatch()} {
		if _, err := trigger.Start(t.Context(), run); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range w.repo.Runs() {
		if r.Inputs["pr"] != sha {
			t.Errorf("%s: pr is %v", r.Event, r.Inputs["pr"])
		}
	}
	if n := len(w.repo.Runs()); n != 2 {
		t.Errorf("%d runs", n)
	}
}

// What had ended before it was asked for runs again, once; what is held back is approved and never re-run.
func TestApproval_rerun(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	live, err := w.Pull(t.Context(), w.ref(pr))
	if err != nil {
		t.Fatal(err)
	}
	run, trigger := w.run(pr), w.Approval()
	run.HeadRepoID = live.Head.RepoID
	ci := w.repo.Runs()[0]
	writes := func(kind string) (n int) {
		for _, x := range w.forge.Writes(0) {
			if x.Kind == kind {
				n++
			}
		}
		return n
	}
	if s := became(t, trigger, run, forge.Receipt{}); s.State != forge.CheckActionRequired {
		t.Errorf("held: %+v", s)
	}
	again := func(asked time.Time) {
		t.Helper()
		if err := trigger.Rerun(t.Context(), run, asked); err != nil {
			t.Fatal(err)
		}
	}
	asked := time.Now().Add(24 * time.Hour)
	if again(asked); writes("approve") != 1 || writes("rerun") != 0 {
		t.Errorf("%d approved, %d run again", writes("approve"), writes("rerun"))
	}
	if again(asked); writes("rerun") != 0 {
		t.Error("run again while it runs")
	}
	ci.Complete("failure")
	if s := became(t, trigger, run, forge.Receipt{}); s.State != forge.CheckFailure {
		t.Errorf("failed: %+v", s)
	}
	if again(time.Unix(0, 0)); writes("rerun") != 0 {
		t.Error("run again although it began after that was asked")
	}
	if again(asked); writes("rerun") != 1 || ci.State() != "queued" {
		t.Errorf("%d run again", writes("rerun"))
	}
	ci.Complete("skipped")
	if s := became(t, trigger, run, forge.Receipt{}); s.State != forge.CheckSuccess {
		t.Errorf("skipped: %+v", s)
	}
	// Refused, though somebody else has just re-run it; and refused for good.
	for _, perform := range []bool{true, false} {
		w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
			if strings.HasSuffix(r.URL.Path, "/rerun") {
				return &sandbox.Fault{Status: 403, Body: `{"message":"This workflow is already running"}`, Perform: perform}
			}
			return nil
		})
		err := trigger.Rerun(t.Context(), run, asked)
		if perform && err != nil || !perform && classOf(t, err) != forge.Permanent {
			t.Errorf("performed=%t: %v", perform, err)
		}
		ci.Complete("failure")
	}
}

func TestComment(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	if err := w.Comment(t.Context(), w.ref(pr), "hello"); err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, x := range w.forge.Writes(0) {
		if x.Kind == "comment" && x.PR == pr.Number {
			said++
		}
	}
	if said != 1 {
		t.Errorf("%d comments: %+v", said, w.forge.Writes(0))
	}
	gone := w.ref(pr)
	gone.Number = 4711
	if err := w.Comment(t.Context(), gone, "hello"); classOf(t, err) != forge.NotFound {
		t.Errorf("%v", err)
	}
}
