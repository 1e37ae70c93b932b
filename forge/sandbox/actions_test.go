package sandbox_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func (s *stage) inputs() map[string]any {
	return map[string]any{"signalbox": "sb1-abc", "pr": "1", "sha": s.pr.Head(), "base_sha": s.repo.Tip("main")}
}

func (s *stage) dispatch(api *github.Client, file string, in github.CreateWorkflowDispatchEventRequest) error {
	_, err := api.Actions.CreateWorkflowDispatchEventByFileName(s.t.Context(), "acme", "widget", file, in)
	return err
}

func TestWorkflowDispatch(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	ref := "signalbox-presubmit"
	since := s.Seq()
	check(t, s.dispatch(api, "presubmit.yml", github.CreateWorkflowDispatchEventRequest{Ref: ref, Inputs: s.inputs()}))

	runs, _, err := api.Actions.ListWorkflowRunsByFileName(ctx, "acme", "widget", "presubmit.yml", &github.ListWorkflowRunsOptions{Event: "workflow_dispatch"})
	check(t, err)
	run := runs.WorkflowRuns[0]
	equal(t, "title", run.GetDisplayTitle(), "PR 1 "+s.pr.Head()+" sb1-abc")
	equal(t, "sha", run.GetHeadSHA(), s.repo.Tip(ref))
	equal(t, "path", run.GetPath(), ".github/workflows/presubmit.yml")
	equal(t, "state", run.GetStatus()+run.GetConclusion(), "queued")
	equal(t, "defaults", s.repo.Runs()[1].Inputs["level"], any("full"))
	equal(t, "triggers", cmp.Diff(s.Triggers(), map[sandbox.Trigger]int{{Repo: s.repo, PR: 1, SHA: s.pr.Head(), Key: "sb1-abc"}: 1},
		cmp.Comparer(func(a, b *sandbox.Repo) bool { return a == b })), "")

	s.repo.Runs()[1].Start()
	s.repo.Runs()[1].Complete("success")
	_, err = api.Actions.CancelWorkflowRunByID(ctx, "acme", "widget", run.GetID())
	refused(t, err, 409, "Cannot cancel a workflow run that is completed.")
	s.repo.Runs()[1].Rerun(s.alice)
	again, _, err := api.Actions.GetWorkflowRunByID(ctx, "acme", "widget", run.GetID())
	check(t, err)
	equal(t, "attempt", again.GetRunAttempt(), 2)
	_, err = api.Actions.CancelWorkflowRunByID(ctx, "acme", "widget", run.GetID())
	var accepted *github.AcceptedError
	if !errors.As(err, &accepted) {
		t.Fatal(err)
	}
	equal(t, "cancelled", s.repo.Runs()[1].State(), "cancelled")
	_, err = api.Actions.RerunWorkflowByID(ctx, "acme", "widget", run.GetID())
	check(t, err)
	_, err = api.Actions.RerunWorkflowByID(ctx, "acme", "widget", run.GetID())
	refused(t, err, 403, "This workflow is already running")
	bot := "signalbox[bot]"
	equal(t, "deliveries", cmp.Diff(s.story(since), []string{
		"workflow_run.requested " + bot, "workflow_run.in_progress " + bot, "workflow_run.completed " + bot,
		"workflow_run.requested alice", "workflow_run.completed " + bot, "workflow_run.requested " + bot,
	}), "")

	for want, in := range map[string]github.CreateWorkflowDispatchEventRequest{
		"No ref found for: none":                       {Ref: "none", Inputs: s.inputs()},
		"Invalid request.\n\n\"ref\" wasn't supplied.": {Inputs: s.inputs()},
		"Required input 'base_sha' not provided":       {Ref: ref, Inputs: map[string]any{"signalbox": "x", "pr": "1", "sha": "x"}},
		"Unexpected inputs provided: [\"title\"]":      {Ref: ref, Inputs: map[string]any{"title": "x"}},
	} {
		refused(t, s.dispatch(api, "presubmit.yml", in), 422, want)
	}
	refused(t, s.dispatch(api, "none.yml", github.CreateWorkflowDispatchEventRequest{Ref: ref}), 404, "Not Found")
	refused(t, s.dispatch(api, "native.yml", github.CreateWorkflowDispatchEventRequest{Ref: ref}), 422, "Workflow does not have 'workflow_dispatch' trigger")
	refused(t, s.dispatch(s.as(s.mallory.Token), "presubmit.yml", github.CreateWorkflowDispatchEventRequest{Ref: ref}), 403, "Must have admin rights to Repository.")

	req, err := api.NewRequest(http.MethodPost, "repos/acme/widget/actions/workflows/presubmit.yml/dispatches", map[string]any{
		"ref": "refs/heads/" + ref, "inputs": s.inputs(), "return_run_details": true,
	})
	check(t, err)
	var details struct {
		ID  int64  `json:"workflow_run_id"`
		URL string `json:"html_url"`
	}
	_, err = api.Do(ctx, req, &details)
	check(t, err)
	got, _, err := api.Actions.GetWorkflowRunByID(ctx, "acme", "widget", details.ID)
	check(t, err)
	equal(t, "run's page", got.GetHTMLURL(), details.URL)
	_, _, err = api.Actions.GetWorkflowRunByID(ctx, "acme", "widget", 1)
	refused(t, err, 404, "Not Found")
	flows, _, err := api.Actions.ListWorkflows(ctx, "acme", "widget", nil)
	check(t, err)
	equal(t, "workflows", flows.GetTotalCount(), 3)
	flow, _, err := api.Actions.GetWorkflowByFileName(ctx, "acme", "widget", "native.yml")
	check(t, err)
	equal(t, "workflow", flow.GetName(), "native")
}

func TestRepositoryDispatch(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	send := func(api *github.Client, kind string, payload any) error {
		raw, err := json.Marshal(payload)
		check(t, err)
		message := json.RawMessage(raw)
		_, _, err = api.Repositories.Dispatch(ctx, "acme", "widget", github.DispatchRequestOptions{EventType: kind, ClientPayload: &message})
		return err
	}
	check(t, send(api, "signalbox", map[string]any{"key": "sb1-x", "pr": 1, "sha": s.pr.Head(), "base_sha": "b"}))
	check(t, send(api, "something else", map[string]any{}))
	runs, _, err := api.Actions.ListRepositoryWorkflowRuns(ctx, "acme", "widget", &github.ListWorkflowRunsOptions{Event: "repository_dispatch"})
	check(t, err)
	equal(t, "runs", runs.GetTotalCount(), 1)
	run := runs.WorkflowRuns[0]
	equal(t, "run", run.GetDisplayTitle()+" "+run.GetHeadBranch()+" "+run.GetHeadSHA(), "sb1-x main "+s.repo.Tip("main"))
	equal(t, "triggers", s.Triggers()[sandbox.Trigger{Repo: s.repo, PR: 1, SHA: s.pr.Head(), Key: "sb1-x"}], 1)

	refused(t, send(api, "", nil), 422, "Invalid request.\n\n\"event_type\" wasn't supplied.")
	many := map[string]any{}
	for i := range 11 {
		many[fmt.Sprint(i)] = i
	}
	refused(t, send(api, "signalbox", many), 422, "Invalid request.\n\nNo more than 10 properties are allowed; 11 were supplied.")
	refused(t, send(s.as(s.mallory.Token), "signalbox", nil), 404, "Not Found")
}

func TestHeldRuns(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	list := func(o github.ListWorkflowRunsOptions) []*github.WorkflowRun {
		t.Helper()
		runs, _, err := api.Actions.ListRepositoryWorkflowRuns(ctx, "acme", "widget", &o)
		check(t, err)
		return runs.WorkflowRuns
	}
	held := list(github.ListWorkflowRunsOptions{HeadSHA: s.pr.Head(), Event: "pull_request", Status: "action_required"})
	equal(t, "held", len(held), 1)
	equal(t, "state", held[0].GetStatus()+" "+held[0].GetConclusion(), "completed action_required")
	equal(t, "from", held[0].GetHeadRepository().GetFullName(), "mallory/widget")
	equal(t, "a fork's run names no pull request", len(held[0].PullRequests), 0)

	approve := func(id int64) error {
		req, err := api.NewRequest(http.MethodPost, fmt.Sprintf("repos/acme/widget/actions/runs/%d/approve", id), nil)
		check(t, err)
		_, err = api.Do(ctx, req, nil)
		return err
	}
	check(t, approve(held[0].GetID()))
	equal(t, "approved", s.repo.Runs()[0].State(), "queued")
	equal(t, "triggers", s.Triggers()[sandbox.Trigger{Repo: s.repo, PR: 1, SHA: s.pr.Head()}], 1)
	refused(t, approve(held[0].GetID()), 403, "This run is not waiting for approval")
	refused(t, approve(1), 404, "Not Found")

	s.pr.Push(s.alice)
	again := list(github.ListWorkflowRunsOptions{HeadSHA: s.pr.Head()})
	equal(t, "an outsider's is held whoever pushes", again[0].GetConclusion(), "action_required")

	trusted := s.repo.OpenPR(s.alice, sandbox.PROptions{})
	own := list(github.ListWorkflowRunsOptions{HeadSHA: trusted.Head()})
	equal(t, "a trusted one runs", own[0].GetStatus(), "queued")
	equal(t, "and names its pull request", own[0].PullRequests[0].GetNumber(), 2)
	refused(t, approve(own[0].GetID()), 403, "This run is not from a fork pull request")
	s.repo.SetPermission(s.mallory, "write")
	s.pr.Push(s.mallory)
	equal(t, "trusted since", list(github.ListWorkflowRunsOptions{HeadSHA: s.pr.Head()})[0].GetStatus(), "queued")
}

func TestRunsByTime(t *testing.T) {
	s := newStage(t) // one run, at 09:00:00
	s.clock.add(time.Hour)
	s.pr.Push(s.mallory) // another, at 10:00:00
	for created, want := range map[string]int{
		"": 2, "2026-11-21": 2, "2026-11-20": 0, ">=2026-11-21T10:00:00Z": 1, ">2026-11-21T10:00:00Z": 0, "<=2026-11-21T09:00:00Z": 1,
		"<2026-11-21T09:00:00Z": 0, "2026-11-21T09:30:00Z..*": 1, "*..2026-11-21T09:30:00Z": 1, "2026-11-21T09:00:00Z..2026-11-21T10:00:00Z": 2,
		">2026-11-20": 2, ">2026-11-21": 0,
	} {
		runs, _, err := s.asApp().Actions.ListRepositoryWorkflowRuns(t.Context(), "acme", "widget", &github.ListWorkflowRunsOptions{Created: created})
		check(t, err)
		equal(t, "created "+created, runs.GetTotalCount(), want)
	}
	_, _, err := s.asApp().Actions.ListRepositoryWorkflowRuns(t.Context(), "acme", "widget", &github.ListWorkflowRunsOptions{Created: ">=soon"})
	refused(t, err, 422, "Validation Failed")
}

func TestMergeQueue(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	queued := s.AddRepo("acme/queued", sandbox.RepoOptions{MergeQueue: true, Permissions: map[*sandbox.User]string{s.alice: "write"}})
	for name, want := range map[string]int{"queued": 1, "widget": 0} {
		req, err := s.as(s.alice.Token).NewRequest(http.MethodGet, "repos/acme/"+name+"/rules/branches/main", nil)
		check(t, err)
		var rules []struct{ Type string }
		_, err = s.as(s.alice.Token).Do(ctx, req, &rules)
		check(t, err)
		equal(t, "rules of "+name, len(rules), want)
	}
	queued.AddHook(secret, "merge_group", "pull_request")
	pr := queued.OpenPR(s.alice, sandbox.PROptions{})
	since := s.Seq()
	group := pr.Enqueue(s.alice)
	group.Leave(s.alice, "merged")
	group.Leave(s.alice, "merged")
	equal(t, "merged", queued.Tip("main"), group.SHA)
	equal(t, "deliveries", cmp.Diff(s.story(since), []string{
		"merge_group.checks_requested alice", "merge_group.destroyed alice", "pull_request.closed alice",
	}), "")
	req, err := s.as(s.owner.Token).NewRequest(http.MethodGet, "repos/acme/widget/actions/permissions/fork-pr-contributor-approval", nil)
	check(t, err)
	var policy map[string]string
	_, err = s.as(s.owner.Token).Do(ctx, req, &policy)
	check(t, err)
	equal(t, "policy", policy["approval_policy"], "all_external_contributors")
}
