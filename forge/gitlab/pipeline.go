package gitlab

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// Pipeline is the trigger "gitlab_pipeline" (docs/recipes/gitlab.md): a pipeline of the merge request, run in the target project,
// which GitLab shows on the merge request by itself. GitLab takes no commit in that call, so what it answers is compared
// with what was granted (attack T33).
//
// Pipelines of a merge request from the same project start by themselves on a push; there starting means to find it.
type Pipeline struct{ client *Client }

var (
	_ prmanager.Trigger  = Pipeline{}
	_ prmanager.Finder   = Pipeline{}
	_ prmanager.Watcher  = Pipeline{}
	_ prmanager.Rerunner = Pipeline{}
)

// Pipeline is the trigger over this client.
func (c *Client) Pipeline() Pipeline { return Pipeline{c} }

// Find looks for the newest pipeline of ours for the merge request at exactly the commit. One that was cancelled is not
// what anybody wants started. Calls: 1.
func (t Pipeline) Find(ctx context.Context, run forge.Run) (forge.Receipt, bool, error) {
	me, _, err := t.client.Self(ctx)
	if err != nil {
		return forge.Receipt{}, false, err
	}
	return t.newest(ctx, "find pipeline", run, me.Login)
}

func (t Pipeline) newest(ctx context.Context, op string, run forge.Run, by string) (forge.Receipt, bool, error) {
	list, err := t.list(ctx, op, run, by)
	if err != nil {
		return forge.Receipt{}, false, err
	}
	for _, p := range list {
		if p.Status != string(gl.Canceled) && p.Status != canceling {
			return receipt(p), true, nil
		}
	}
	return forge.Receipt{}, false, nil
}

// Start starts a pipeline: 1 call, with a merge request of the same project 1 more to look for the one that GitLab
// started. Where GitLab took another commit than the granted one, or another project, that pipeline is cancelled and the
// Fault says for how long it ran: the head has moved, and its delivery decides anew.
func (t Pipeline) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	const op = "start pipeline"
	if run.HeadRepoID == run.Ref.Repo.ID && run.HeadRepoID != 0 {
		if found, ok, err := t.newest(ctx, op, run, ""); err != nil || ok {
			return found, err
		}
	}
	return t.start(ctx, op, run)
}

func (t Pipeline) start(ctx context.Context, op string, run forge.Run) (forge.Receipt, error) {
	pid, err := sendable(op, run)
	if err != nil {
		return forge.Receipt{}, err
	}
	asked := time.Now()
	p, _, err := t.client.api.MergeRequests.CreateMergeRequestPipeline(pid, int64(run.Ref.Number), with(ctx))
	if err != nil {
		return forge.Receipt{}, classify(op, err)
	}
	switch {
	case p.ID == 0 || p.SHA == "" || p.ProjectID == 0:
		return forge.Receipt{}, wire.Incomplete(op)
	case p.SHA == run.SHA && p.ProjectID == run.Ref.Repo.ID:
		return receipt(p), nil
	}
	what := fmt.Sprintf("GitLab started pipeline %d on commit %.12s of project %d, which nobody approved", p.ID, p.SHA, p.ProjectID)
	for range cancelTries {
		if err = t.cancel(ctx, p.ProjectID, p.ID); err == nil {
			return forge.Receipt{}, wire.Permanent(op, fmt.Errorf("%s; it was cancelled after %s", what, time.Since(asked).Round(time.Millisecond)))
		}
	}
	return forge.Receipt{}, wire.Permanent(op, fmt.Errorf("%s, and it CANNOT BE CANCELLED: %w", what, err))
}

// cancelTries is how often a pipeline that must not run is cancelled at once, before a person has to.
const cancelTries = 3

// Cancel cancels every pipeline of the merge request at the commit that has not ended, and the one of the receipt: 1
// call, and 2 per pipeline. One that is gone or finished is a success.
func (t Pipeline) Cancel(ctx context.Context, run forge.Run, r forge.Receipt) error {
	const op = "cancel pipeline"
	list, err := t.list(ctx, op, run, "")
	if err != nil {
		return err
	}
	known := false
	for _, p := range list {
		known = known || receipt(p).ID == r.ID
		if ended(p.Status) {
			continue
		}
		if err := t.cancel(ctx, p.ProjectID, p.ID); err != nil {
			return err
		}
	}
	if known || r.ID == "" {
		return nil
	}
	id, err := strconv.ParseInt(r.ID, 10, 64)
	if err != nil {
		return wire.Permanent(op, errors.New("the receipt's id is not a number"))
	}
	return t.cancel(ctx, run.Ref.Repo.ID, id)
}

// cancel cancels one pipeline and reads what became of it: GitLab answers the call alike whatever it did.
func (t Pipeline) cancel(ctx context.Context, projectID, id int64) error {
	const op = "cancel pipeline"
	_, _, err := t.client.api.Pipelines.CancelPipelineBuild(projectID, id, with(ctx))
	if err != nil {
		f := classify(op, err)
		if f.Class == forge.NotFound {
			return nil
		}
		if f.Class != forge.Permanent { // refused for good: perhaps because it has ended
			return f
		}
	}
	now, _, err := t.client.api.Pipelines.GetPipeline(projectID, id, with(ctx))
	if err != nil {
		if f := classify(op, err); f.Class != forge.NotFound {
			return f
		}
		return nil
	}
	if !ended(now.Status) {
		return &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("the pipeline is still " + wire.Said(now.Status))}
	}
	return nil
}

// State answers for the newest pipeline of the merge request at the commit: 1 call.
func (t Pipeline) State(ctx context.Context, run forge.Run, _ forge.Receipt) (prmanager.RunState, error) {
	list, err := t.list(ctx, "read pipelines", run, "")
	if err != nil || len(list) == 0 {
		return prmanager.RunState{}, err
	}
	return prmanager.RunState{Receipt: receipt(list[0]), State: prmanager.RunResult(words(list[0].Status)), Attempt: 1}, nil
}

// Rerun starts a pipeline unless one was made since asked: 1 or 2 calls.
func (t Pipeline) Rerun(ctx context.Context, run forge.Run, asked time.Time) error {
	const op = "run pipeline again"
	list, err := t.list(ctx, op, run, "")
	if err != nil {
		return err
	}
	for _, p := range list {
		if !second(p.CreatedAt).Before(asked.Truncate(time.Second)) {
			return nil
		}
	}
	_, err = t.start(ctx, op, run)
	return err
}

// list is the pipelines of the merge request in the target project at the commit, newest first, started by whom; empty =
// by anybody.
func (t Pipeline) list(ctx context.Context, op string, run forge.Run, by string) ([]*gl.PipelineInfo, error) {
	pid, err := sendable(op, run)
	if err != nil {
		return nil, err
	}
	source, ref, order, sort := mergeRequestEvent, fmt.Sprintf("refs/merge-requests/%d/head", run.Ref.Number), "id", "desc"
	list, _, err := t.client.api.Pipelines.ListProjectPipelines(pid, &gl.ListProjectPipelinesOptions{
		SHA: &run.SHA, Source: &source, Ref: &ref, Username: given(by), OrderBy: &order, Sort: &sort, ListOptions: gl.ListOptions{PerPage: 100},
	}, with(ctx))
	if err != nil {
		return nil, classify(op, err)
	}
	var ours []*gl.PipelineInfo
	for _, p := range list { // a server that does not know a filter ignores it
		if p.SHA == run.SHA && p.ProjectID == run.Ref.Repo.ID && p.Ref == ref {
			ours = append(ours, p)
		}
	}
	return ours, nil
}

const (
	mergeRequestEvent = "merge_request_event" // source of a merge request's pipelines
	canceling         = "canceling"           // client-go has no constant that says it
)

// sendable checks what a pipeline is started, found or cancelled by.
func sendable(op string, run forge.Run) (any, error) {
	if !forge.FullSHA(run.SHA) || run.Ref.Number <= 0 || run.Ref.Repo.ID <= 0 {
		return nil, wire.Permanent(op, errors.New("the run has no full commit SHA, no merge request or no project"))
	}
	return run.Ref.Repo.ID, nil
}

func receipt(p *gl.PipelineInfo) forge.Receipt {
	return forge.Receipt{ID: strconv.FormatInt(p.ID, 10), URL: p.WebURL}
}

// ended says that a pipeline runs no more, or is about to stop. One that waits for a person's press does not run.
func ended(status string) bool {
	switch status {
	case "success", "failed", "canceled", canceling, "skipped", "manual":
		return true
	}
	return false
}

// words says the status of a pipeline in the words of the gate, which are GitHub's. What was skipped has tested nothing
// (P10).
func words(pipeline string) (state, conclusion string) {
	switch pipeline {
	case "success":
		return "completed", "success"
	case "failed", "skipped":
		return "completed", "failure"
	case "canceled":
		return "completed", "cancelled"
	case "running", canceling:
		return "in_progress", ""
	}
	return "queued", ""
}
