package github

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// runPages bounds the search for a run, in pages of 100, newest first. A key is looked for soon after it was sent;
// beyond 300 younger runs of the same kind it counts as not found.
const runPages = 3

// findRun searches pages of runs for the newest one that match accepts.
func (c *Client) findRun(op string, list func(gh.ListOptions) (*gh.WorkflowRuns, *gh.Response, error), match func(*gh.WorkflowRun) bool) (forge.Receipt, bool, error) {
	opts := gh.ListOptions{PerPage: 100}
	for range runPages {
		page, res, err := list(opts)
		if err != nil {
			return forge.Receipt{}, false, c.fault(op, err)
		}
		for _, run := range page.WorkflowRuns {
			if match(run) {
				return receipt(run.GetID(), run.GetHTMLURL()), true, nil
			}
		}
		if opts.Page = res.NextPage; opts.Page == 0 {
			break
		}
	}
	return forge.Receipt{}, false, nil
}

// titled says whether a run was dispatched for the key: the workflow puts it into its run-name (docs/recipes/workflow-dispatch.md).
// Only who may write to the repository can dispatch, so a title cannot be forged from outside.
func titled(event, key string) func(*gh.WorkflowRun) bool {
	return func(run *gh.WorkflowRun) bool {
		return run.GetEvent() == event && strings.Contains(run.GetDisplayTitle(), key)
	}
}

func receipt(id int64, url string) forge.Receipt {
	return forge.Receipt{ID: strconv.FormatInt(id, 10), URL: url}
}

// cancelRun cancels by id: 1 call, 2 where GitHub answers 409. A run that is completed or gone is a success.
func (c *Client) cancelRun(ctx context.Context, client *gh.Client, owner, name, id string) error {
	const op = "cancel run"
	number, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return wire.Permanent(op, errors.New("the receipt's id is not a number"))
	}
	_, err = client.Actions.CancelWorkflowRunByID(ctx, owner, name, number)
	if accepted := (*gh.AcceptedError)(nil); err == nil || errors.As(err, &accepted) {
		return nil
	}
	refused := c.fault(op, err)
	f := forge.Classify(refused)
	switch {
	case f.Class == forge.NotFound:
		return nil
	case f.Status != http.StatusConflict:
		return refused
	}
	// 409 is said of completed runs, but also of a re-run that is not queued yet, which will run.
	run, _, err := client.Actions.GetWorkflowRunByID(ctx, owner, name, number)
	if err != nil {
		if err = c.fault(op, err); wire.NotFound(err) {
			return nil
		}
		return err
	}
	if run.GetStatus() == "completed" {
		return nil
	}
	return refused
}

// What must never leave: a run without key, commit or head repository would match, or test, anything.
var (
	errKey  = errors.New("the run has no key or no full commit SHA")
	errHead = errors.New("the run has no full commit SHA, or its head repository is gone")
)

// post makes a call that go-github v66 does not know.
func (c *Client) post(ctx context.Context, client *gh.Client, op, path string, body, into any) error {
	req, err := client.NewRequest(http.MethodPost, path, body)
	if err != nil {
		return wire.Permanent(op, errors.New("no request can be made of it"))
	}
	_, err = client.Do(ctx, req, into)
	return c.fault(op, err)
}

// sendable checks what goes to CI, and fills in the commit of the base branch where the caller has none (1 call).
func (c *Client) sendable(ctx context.Context, op string, run forge.Run) (forge.Run, error) {
	if !strings.HasPrefix(run.Key, "sb1-") || !forge.FullSHA(run.SHA) || run.BaseSHA != "" && !forge.FullSHA(run.BaseSHA) {
		return run, wire.Permanent(op, errKey)
	}
	if run.BaseSHA == "" {
		live, err := c.Pull(ctx, run.Ref)
		if err != nil {
			return run, err
		}
		run.BaseSHA = live.Base.SHA
	}
	return run, nil
}

// cancel stops the run of the receipt, or the one find knows of.
func (c *Client) cancel(ctx context.Context, run forge.Run, r forge.Receipt,
	find func(context.Context, forge.Run) (forge.Receipt, bool, error),
) error {
	if r.ID == "" {
		found, ok, err := find(ctx, run)
		if err != nil || !ok {
			return err
		}
		r = found
	}
	client, owner, name, err := c.on(ctx, run.Ref.Repo)
	if err != nil {
		return err
	}
	return c.cancelRun(ctx, client, owner, name, r.ID)
}
