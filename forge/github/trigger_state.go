package github

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

var (
	_ prmanager.Watcher  = Workflow{}
	_ prmanager.Watcher  = Dispatch{}
	_ prmanager.Watcher  = Approval{}
	_ prmanager.Rerunner = Approval{}
)

// subject is what the recipes' input "pr" says: the number of the pull request, or the SHA of a merge group.
func subject(run forge.Run) string {
	if run.Ref.Number == 0 {
		return run.SHA
	}
	return strconv.Itoa(run.Ref.Number)
}

// State reads the run of the receipt, or the one that Find finds: 1 call, or one more for each page searched.
func (t Workflow) State(ctx context.Context, run forge.Run, r forge.Receipt) (prmanager.RunState, error) {
	return t.client.state(ctx, run, r, t.Find)
}

// State is as Workflow's.
func (t Dispatch) State(ctx context.Context, run forge.Run, r forge.Receipt) (prmanager.RunState, error) {
	return t.client.state(ctx, run, r, t.Find)
}

func (c *Client) state(ctx context.Context, run forge.Run, r forge.Receipt,
	find func(context.Context, forge.Run) (forge.Receipt, bool, error),
) (prmanager.RunState, error) {
	const op = "read run"
	if r.ID == "" {
		found, ok, err := find(ctx, run)
		if err != nil || !ok {
			return prmanager.RunState{}, err
		}
		r = found
	}
	number, err := strconv.ParseInt(r.ID, 10, 64)
	if err != nil {
		return prmanager.RunState{}, wire.Permanent(op, errors.New("the receipt's id is not a number"))
	}
	client, owner, name, err := c.on(ctx, run.Ref.Repo)
	if err != nil {
		return prmanager.RunState{}, err
	}
	is, _, err := client.Actions.GetWorkflowRunByID(ctx, owner, name, number)
	if err = c.fault(op, err); wire.NotFound(err) {
		return prmanager.RunState{}, nil // deleted: it will never say more
	} else if err != nil {
		return prmanager.RunState{}, err
	}
	return prmanager.RunState{
		Receipt: receipt(is.GetID(), is.GetHTMLURL()), State: prmanager.RunResult(is.GetStatus(), is.GetConclusion()), Attempt: is.GetRunAttempt(),
	}, nil
}

// State answers for all runs of the commit together: 1 call for each page. Held back is held back, whatever the others
// do; what Actions skipped is no failure, since its own checks say what is required.
func (t Approval) State(ctx context.Context, run forge.Run, _ forge.Receipt) (prmanager.RunState, error) {
	runs, err := t.runs(ctx, "read native runs", run, "")
	if err != nil || len(runs) == 0 {
		return prmanager.RunState{}, err
	}
	all := prmanager.RunState{State: forge.CheckSuccess, Attempt: 1}
	worse := map[forge.CheckState]int{
		forge.CheckSuccess: 0, forge.CheckCancelled: 1, forge.CheckFailure: 2, forge.CheckQueued: 3, forge.CheckRunning: 4, forge.CheckActionRequired: 5,
	}
	for _, r := range runs {
		is := prmanager.RunResult(r.GetStatus(), r.GetConclusion())
		switch {
		case held(r):
			is = forge.CheckActionRequired
		case r.GetConclusion() == "skipped", r.GetConclusion() == "neutral":
			is = forge.CheckSuccess
		}
		if worse[is] > worse[all.State] {
			all.State = is
		}
	}
	return all, nil
}

// Rerun approves what is held back and runs again what had ended before asked, at exactly the commit: 1 call for each
// page, and one per run. An attempt that began since is the one that was asked for.
func (t Approval) Rerun(ctx context.Context, run forge.Run, asked time.Time) error {
	const op = "re-run workflow run"
	if _, err := t.Start(ctx, run); err != nil {
		return err
	}
	runs, err := t.runs(ctx, op, run, "completed")
	if err != nil {
		return err
	}
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return err
	}
	for _, r := range runs {
		if held(r) || r.GetStatus() != "completed" || !began(r).Before(asked) {
			continue
		}
		err := t.client.post(ctx, client, op, fmt.Sprintf("repos/%s/%s/actions/runs/%d/rerun", owner, name, r.GetID()), nil, nil)
		if err == nil {
			continue
		}
		if c := forge.Classify(err).Class; c != forge.Permanent && c != forge.NotFound {
			return err
		}
		// Somebody else may have re-run it, which is as good.
		now, _, gone := client.Actions.GetWorkflowRunByID(ctx, owner, name, r.GetID())
		if gone = t.client.fault(op, gone); gone == nil && now.GetStatus() == "completed" {
			return err
		} else if gone != nil && !wire.NotFound(gone) {
			return gone
		}
	}
	return nil
}

// began is when the newest attempt began.
func began(r *gh.WorkflowRun) time.Time {
	if r.RunStartedAt != nil {
		return r.RunStartedAt.Time
	}
	return r.GetCreatedAt().Time
}
