package github

import (
	"context"
	"fmt"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// Approval is the trigger "actions_approval" (docs/recipes/actions-approval.md): GitHub Actions holds back the runs of pull requests from
// outside, and starting means to approve those at exactly the granted commit. It never re-runs instead. There may be
// several runs, now and later, so there is no receipt; where Actions holds nothing back (a trusted pull request)
// starting is a no-op.
type Approval struct{ client *Client }

var (
	_ prmanager.Trigger = Approval{}
	_ prmanager.Finder  = Approval{}
)

// Approval is the trigger over this client.
func (c *Client) Approval() Approval { return Approval{c} }

// Find says whether Actions runs or has run the commit with nothing held back.
func (t Approval) Find(ctx context.Context, run forge.Run) (forge.Receipt, bool, error) {
	runs, err := t.runs(ctx, "find native runs", run, "")
	if err != nil || len(runs) == 0 {
		return forge.Receipt{}, false, err
	}
	for _, r := range runs {
		if held(r) {
			return forge.Receipt{}, false, nil
		}
	}
	return forge.Receipt{}, true, nil
}

// Start approves every run that is held back for the commit: 1 call, and one per run.
func (t Approval) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	const op = "approve workflow run"
	runs, err := t.runs(ctx, op, run, "action_required")
	if err != nil {
		return forge.Receipt{}, err
	}
	for _, r := range runs {
		if !held(r) {
			continue
		}
		if err := t.approve(ctx, op, run, r.GetID()); err != nil {
			return forge.Receipt{}, err
		}
	}
	return forge.Receipt{}, nil
}

// approve approves one run. A run that a maintainer approved at GitHub meanwhile is refused by GitHub, but as wanted.
func (t Approval) approve(ctx context.Context, op string, run forge.Run, id int64) error {
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return err
	}
	refused := t.client.post(ctx, client, op, fmt.Sprintf("repos/%s/%s/actions/runs/%d/approve", owner, name, id), nil, nil)
	if refused == nil || forge.Classify(refused).Class != forge.Permanent {
		return refused
	}
	now, _, err := client.Actions.GetWorkflowRunByID(ctx, owner, name, id)
	if err != nil {
		return t.client.fault(op, err)
	}
	if held(now) {
		return refused
	}
	return nil
}

// Cancel cancels every run of the commit that has not ended: 1 call, and one per run. Held ones stay held.
func (t Approval) Cancel(ctx context.Context, run forge.Run, _ forge.Receipt) error {
	runs, err := t.runs(ctx, "find native runs", run, "")
	if err != nil {
		return err
	}
	for _, r := range runs {
		if r.GetStatus() == "completed" {
			continue
		}
		if err := t.client.cancel(ctx, run, receipt(r.GetID(), ""), nil); err != nil {
			return err
		}
	}
	return nil
}

// held says whether a run waits for a maintainer: it is shown as completed with this conclusion until then.
func held(r *gh.WorkflowRun) bool {
	return r.GetConclusion() == "action_required" || r.GetStatus() == "action_required"
}

// runs are those of event pull_request at the commit whose head lives where the pull request's does: the same commit
// in somebody else's fork is somebody else's pull request.
func (t Approval) runs(ctx context.Context, op string, run forge.Run, status string) ([]*gh.WorkflowRun, error) {
	if !forge.FullSHA(run.SHA) || run.HeadRepoID == 0 {
		return nil, wire.Permanent(op, errHead)
	}
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return nil, err
	}
	var runs []*gh.WorkflowRun
	opts := &gh.ListWorkflowRunsOptions{
		Event: "pull_request", Status: status, HeadSHA: run.SHA, ListOptions: gh.ListOptions{PerPage: 100},
	}
	for range runPages {
		page, res, err := client.Actions.ListRepositoryWorkflowRuns(ctx, owner, name, opts)
		if err != nil {
			return nil, t.client.fault(op, err)
		}
		for _, r := range page.WorkflowRuns {
			if r.GetHeadSHA() == run.SHA && r.GetEvent() == "pull_request" && r.GetHeadRepository().GetID() == run.HeadRepoID {
				runs = append(runs, r)
			}
		}
		if opts.Page = res.NextPage; opts.Page == 0 {
			break
		}
	}
	return runs, nil
}
