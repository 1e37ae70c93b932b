package github

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
)

const key = "sb1-abcdefghijklmnopqrstuvwxyz"

func (w *world) run(p *sandbox.PR) forge.Run {
	return forge.Run{Key: key, Ref: w.ref(p), SHA: p.Head(), BaseSHA: w.repo.Tip("main"), HeadRepoID: w.repo.ID, Presubmit: "presubmit"}
}

func (w *world) workflow(t *testing.T) prmanager.Trigger {
	t.Helper()
	trigger, err := w.Workflow("presubmit.yml", "signalbox-presubmit")
	if err != nil {
		t.Fatal(err)
	}
	return trigger
}

func find(t *testing.T, trigger prmanager.Trigger, run forge.Run) (forge.Receipt, bool) {
	t.Helper()
	r, found, err := trigger.(prmanager.Finder).Find(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	return r, found
}

// Both dispatching triggers: start once, be found by the key, be cancelled by receipt or by key.
func TestDispatches(t *testing.T) {
	for _, name := range []string{"workflow", "repository_dispatch"} {
		t.Run(name, func(t *testing.T) {
			w := appWorld(t)
			pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true, Title: "title says " + key})
			trigger := prmanager.Trigger(w.Dispatch())
			if name == "workflow" {
				trigger = w.workflow(t)
			}
			run := w.run(pr)
			if r, found := find(t, trigger, run); found {
				t.Errorf("found %+v before it was started", r)
			}
			if err := trigger.Cancel(t.Context(), run, forge.Receipt{}); err != nil {
				t.Errorf("cancel nothing: %v", err)
			}
			started, err := trigger.Start(t.Context(), run)
			if err != nil {
				t.Fatal(err)
			}
			want := map[sandbox.Trigger]int{{Repo: w.repo, PR: pr.Number, SHA: pr.Head(), Key: key}: 1}
			if diff := cmp.Diff(fmt.Sprint(want), fmt.Sprint(w.forge.Triggers())); diff != "" {
				t.Error(diff)
			}
			r, found := find(t, trigger, run)
			if !found || r.ID == "" || r.URL == "" {
				t.Fatalf("%+v, %v", r, found)
			}
			if name == "workflow" && started != r {
				t.Errorf("started %+v, found %+v", started, r)
			}
			other := run
			other.Key = "sb1-zzzzzzzzzzzzzzzzzzzzzzzzzz"
			if r, found = find(t, trigger, other); found {
				t.Errorf("another key finds %+v", r)
			}
			if err = trigger.Cancel(t.Context(), run, forge.Receipt{}); err != nil {
				t.Fatal(err)
			}
			runs := w.repo.Runs()
			if state := runs[len(runs)-1].State(); state != "cancelled" {
				t.Errorf("the run is %s", state)
			}
			for _, again := range []forge.Receipt{{}, r, {ID: "999999999"}} { // ended, or gone
				if r.ID == "" && again == r {
					continue
				}
				if err = trigger.Cancel(t.Context(), run, again); err != nil {
					t.Errorf("cancel %+v again: %v", again, err)
				}
			}
			if err = trigger.Cancel(t.Context(), run, forge.Receipt{ID: "x"}); classOf(t, err) != forge.Permanent {
				t.Errorf("%v", err)
			}
		})
	}
}

// What leaves towards CI: hex, numbers, our key. Nothing an outsider wrote (docs/rules.md, What leaves).
func TestDispatches_payload(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true, Title: "$(evil)", Branch: "evil"})
	run := w.run(pr)
	run.BaseSHA = "" // resolved from the live pull request
	var bodies []string
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if strings.HasSuffix(r.URL.Path, "/dispatches") {
			b, _ := io.ReadAll(r.Body)
			bodies = append(bodies, string(b))
			return &sandbox.Fault{Status: 204}
		}
		return nil
	})
	for _, trigger := range []prmanager.Trigger{w.workflow(t), w.Dispatch()} {
		if r, err := trigger.Start(t.Context(), run); err != nil || r != (forge.Receipt{}) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	want := []string{
		fmt.Sprintf(`{"ref":"signalbox-presubmit","inputs":{"base_sha":%q,"pr":"1","sha":%q,"signalbox":%q},"return_run_details":true}`, w.repo.Tip("main"), pr.Head(), key),
		fmt.Sprintf(`{"event_type":"signalbox","client_payload":{"key":%q,"pr":1,"sha":%q,"base_sha":%q}}`, key, pr.Head(), w.repo.Tip("main")),
	}
	for i := range want {
		if i >= len(bodies) || strings.TrimSpace(bodies[i]) != want[i] {
			t.Errorf("sent %q, expected %s", bodies, want[i])
		}
	}
	for name, bad := range map[string]forge.Run{
		"no key":        {Ref: run.Ref, SHA: run.SHA, BaseSHA: run.SHA},
		"foreign key":   {Ref: run.Ref, Key: "x", SHA: run.SHA, BaseSHA: run.SHA},
		"short SHA":     {Ref: run.Ref, Key: key, SHA: run.SHA[:7], BaseSHA: run.SHA},
		"branch":        {Ref: run.Ref, Key: key, SHA: "main", BaseSHA: run.SHA},
		"base a branch": {Ref: run.Ref, Key: key, SHA: run.SHA, BaseSHA: "main"},
	} {
		for _, trigger := range []prmanager.Trigger{w.workflow(t), w.Dispatch()} {
			if _, err := trigger.Start(t.Context(), bad); classOf(t, err) != forge.Permanent {
				t.Errorf("%s: %v", name, err)
			}
			if _, _, err := trigger.(prmanager.Finder).Find(t.Context(), forge.Run{Ref: run.Ref}); classOf(t, err) != forge.Permanent {
				t.Errorf("an empty key finds everything: %v", err)
			}
		}
	}
	if len(bodies) != 2 {
		t.Errorf("sent %d dispatches", len(bodies))
	}
}

// An Enterprise Server that does not know return_run_details: nothing was started, so it is asked again without.
func TestWorkflow_olderServer(t *testing.T) {
	for _, status := range []int{400, 422} {
		w := tokenWorld(t)
		pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
		w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
			b, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(b)))
			if strings.Contains(string(b), "return_run_details") {
				return &sandbox.Fault{Status: status, Body: `{"message":"Invalid request.\n\n\"return_run_details\" is not a permitted key."}`}
			}
			return nil
		})
		trigger := w.workflow(t)
		r, err := trigger.Start(t.Context(), w.run(pr))
		if err != nil || r != (forge.Receipt{}) {
			t.Errorf("%d: %+v, %v", status, r, err)
		}
		if _, found := find(t, trigger, w.run(pr)); !found {
			t.Errorf("%d: not found afterwards", status)
		}
	}
}

// A refusal for another reason is not repeated.
func TestWorkflow_refused(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	for _, c := range []struct {
		file, ref string
		class     forge.Class
	}{{"presubmit.yml", "no-such-branch", forge.Permanent}, {"ci.yml", "main", forge.Permanent}, {"none.yml", "main", forge.NotFound}} {
		trigger, err := w.Workflow(c.file, c.ref)
		if err != nil {
			t.Fatal(err)
		}
		calls := w.calls(t, func() {
			_, err := trigger.Start(t.Context(), w.run(pr))
			if classOf(t, err) != c.class || !strings.Contains(err.Error(), c.file+" on "+c.ref) {
				t.Errorf("%+v: %v", c, err)
			}
		})
		if len(calls) != 1 {
			t.Errorf("%+v: %v", c, calls)
		}
		if _, _, err := trigger.Find(t.Context(), w.run(pr)); c.class == forge.NotFound && (err == nil || !strings.Contains(err.Error(), c.file)) {
			t.Errorf("%+v: find: %v", c, err)
		}
	}
	for _, c := range [][2]string{{"", "main"}, {"../x.yml", "main"}, {"a/b.yml", "main"}, {"ci.yml", ""}} {
		if _, err := w.Workflow(c[0], c[1]); err == nil {
			t.Errorf("%q accepted", c)
		}
	}
}

// 409 is a success only for a run that has ended.
func TestCancel_conflict(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	trigger := w.workflow(t)
	r, err := trigger.Start(t.Context(), w.run(pr))
	if err != nil {
		t.Fatal(err)
	}
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if strings.HasSuffix(r.URL.Path, "/cancel") {
			return &sandbox.Fault{Status: 409, Body: `{"message":"Cannot cancel a workflow re-run that has not yet queued."}`}
		}
		return nil
	})
	if err = trigger.Cancel(t.Context(), w.run(pr), r); classOf(t, err) != forge.Contention {
		t.Errorf("a run that goes on: %v", err)
	}
	runs := w.repo.Runs()
	runs[len(runs)-1].Complete("success")
	if err = trigger.Cancel(t.Context(), w.run(pr), r); err != nil {
		t.Errorf("a run that has ended: %v", err)
	}
}

// Busy repositories: the run is on a later page.
func TestFind_pages(t *testing.T) {
	for at, want := range map[int]bool{0: true, 99: true, 100: true, 299: true, 300: false} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			page := 1
			_, _ = fmt.Sscan(r.URL.Query().Get("page"), &page)
			var runs []map[string]any
			for i := range 100 {
				title := "another"
				if (page-1)*100+i == at {
					title = "PR 1 " + key
				}
				runs = append(runs, map[string]any{"id": i + 1, "event": "workflow_dispatch", "display_title": title})
			}
			w.Header().Set("Link", fmt.Sprintf(`<http://%s%s?page=%d>; rel="next"`, r.Host, r.URL.Path, page+1))
			_ = json.NewEncoder(w).Encode(map[string]any{"total_count": 1000, "workflow_runs": runs})
		})
		trigger, err := c.Workflow("ci.yml", "main")
		if err != nil {
			t.Fatal(err)
		}
		if _, found := find(t, trigger, forge.Run{Key: key, Ref: forge.Ref{Repo: forge.Repo{Name: "a/b"}}}); found != want {
			t.Errorf("at %d: %v", at, found)
		}
	}
}

// A pull request's own title, or a run of another event, is no dispatched run of ours.
func TestFind_otherEvents(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, `{"workflow_runs":[{"id":1,"event":"pull_request","display_title":%q},{"id":2,"event":"push","display_title":%q}]}`, key, key)
	})
	trigger, err := c.Workflow("ci.yml", "main")
	if err != nil {
		t.Fatal(err)
	}
	for _, trigger := range []prmanager.Trigger{trigger, c.Dispatch()} {
		if r, found := find(t, trigger, forge.Run{Key: key, Ref: forge.Ref{Repo: forge.Repo{Name: "a/b"}}}); found {
			t.Errorf("%+v", r)
		}
	}
}

// actions_approval: exactly the held runs of this commit from this fork are approved, none is re-run.
func TestApproval(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	squatter := w.forge.AddUser("sam")
	w.repo.OpenPR(squatter, sandbox.PROptions{Fork: true, SHA: pr.Head()}) // the same commit from another fork
	live, err := w.Pull(t.Context(), w.ref(pr))
	if err != nil {
		t.Fatal(err)
	}
	run := w.run(pr)
	run.HeadRepoID = live.Head.RepoID
	trigger := w.Approval()
	if _, found := find(t, trigger, run); found {
		t.Error("found while it is held back")
	}
	calls := w.calls(t, func() {
		if r, err := trigger.Start(t.Context(), run); err != nil || r != (forge.Receipt{}) {
			t.Errorf("%+v, %v", r, err)
		}
	})
	if n := len(calls); n != 2+2 && n != 2 { // the first call of a world also finds the installation
		t.Errorf("%v", calls)
	}
	runs := w.repo.Runs()
	if runs[0].State() != "queued" || runs[1].State() != "action_required" {
		t.Errorf("ours is %s, the other fork's %s", runs[0].State(), runs[1].State())
	}
	if _, found := find(t, trigger, run); !found {
		t.Error("not found although it runs")
	}
	if _, err = trigger.Start(t.Context(), run); err != nil {
		t.Errorf("nothing left to approve: %v", err)
	}
	if err = trigger.Cancel(t.Context(), run, forge.Receipt{}); err != nil || runs[0].State() != "cancelled" {
		t.Errorf("%v, %s", err, runs[0].State())
	}
	if err = trigger.Cancel(t.Context(), run, forge.Receipt{}); err != nil {
		t.Errorf("cancel again: %v", err)
	}
	for _, write := range w.forge.Writes(0) {
		if write.Kind == "rerun" {
			t.Error("re-run instead of approved")
		}
	}
	run.HeadRepoID = 0
	if _, err = trigger.Start(t.Context(), run); classOf(t, err) != forge.Permanent {
		t.Errorf("deleted fork: %v", err)
	}
}

// A maintainer approves at GitHub between our look and our call: that is as good as ours. A refusal for good is not.
func TestApproval_refused(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	live, err := w.Pull(t.Context(), w.ref(pr))
	if err != nil {
		t.Fatal(err)
	}
	run := w.run(pr)
	run.HeadRepoID = live.Head.RepoID
	refuse := func(perform bool) {
		w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
			if strings.HasSuffix(r.URL.Path, "/approve") {
				return &sandbox.Fault{Status: 403, Body: `{"message":"This run is not from a fork pull request"}`, Perform: perform}
			}
			return nil
		})
	}
	refuse(false)
	if _, err = w.Approval().Start(t.Context(), run); classOf(t, err) != forge.Permanent {
		t.Errorf("refused: %v", err)
	}
	refuse(true)
	if _, err = w.Approval().Start(t.Context(), run); err != nil {
		t.Errorf("approved by somebody else: %v", err)
	}
}
