package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// Workflow is the trigger "workflow:FILE@REF" (docs/recipes/workflow-dispatch.md): the workflow FILE is dispatched on the protected branch
// REF with the inputs signalbox (the run key), pr, sha and base_sha, all strings.
type Workflow struct {
	client    *Client
	file, ref string
}

var (
	_ prmanager.Trigger = Workflow{}
	_ prmanager.Finder  = Workflow{}
)

// Workflow is the trigger for one file, "presubmit.yml", and one branch. Its error says which of them is unusable.
func (c *Client) Workflow(file, ref string) (Workflow, error) {
	switch {
	case !plain(file):
		return Workflow{}, fmt.Errorf("workflow %q: expected a file name under .github/workflows", file)
	case ref == "":
		return Workflow{}, errors.New("workflow: expected FILE@REF with a branch")
	}
	return Workflow{c, file, ref}, nil
}

// Find looks among the newest 300 dispatched runs of the file for one whose title has the key.
func (t Workflow) Find(ctx context.Context, run forge.Run) (forge.Receipt, bool, error) {
	op := "find a run of " + t.file
	if run.Key == "" {
		return forge.Receipt{}, false, wire.Permanent(op, errKey)
	}
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return forge.Receipt{}, false, err
	}
	const event = "workflow_dispatch"
	return t.client.findRun(op, func(page gh.ListOptions) (*gh.WorkflowRuns, *gh.Response, error) {
		return client.Actions.ListWorkflowRunsByFileName(ctx, owner, name, t.file,
			&gh.ListWorkflowRunsOptions{Event: event, ExcludePullRequests: true, ListOptions: page})
	}, titled(event, run.Key))
}

// dispatchRequest is the body of a dispatch. go-github v66 does not know return_run_details.
type dispatchRequest struct {
	Ref     string            `json:"ref"`
	Inputs  map[string]string `json:"inputs"`
	Details bool              `json:"return_run_details,omitempty"`
}

type dispatchAnswer struct {
	ID  int64  `json:"workflow_run_id"`
	URL string `json:"html_url"`
}

// Start dispatches the workflow: 1 call where GitHub answers the run's id. An older Enterprise Server answers
// without one (the receipt is empty and Find finds the run later), or refuses the field by name; then nothing was
// started and the dispatch is repeated without it.
func (t Workflow) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	op := "dispatch " + t.file + " on " + t.ref
	run, err := t.client.sendable(ctx, op, run)
	if err != nil {
		return forge.Receipt{}, err
	}
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return forge.Receipt{}, err
	}
	body := dispatchRequest{Ref: t.ref, Details: true, Inputs: map[string]string{
		"signalbox": run.Key, "pr": subject(run), "sha": run.SHA, "base_sha": run.BaseSHA,
	}}
	send := func() (made dispatchAnswer, err error) {
		path := fmt.Sprintf("repos/%s/%s/actions/workflows/%s/dispatches", owner, name, t.file)
		err = t.client.post(ctx, client, op, path, body, &made)
		return made, err
	}
	made, err := send()
	if f := forge.Classify(err); err != nil && (f.Status == http.StatusBadRequest || f.Status == http.StatusUnprocessableEntity) &&
		strings.Contains(f.Err.Error(), "return_run_details") {
		body.Details = false
		made, err = send()
	}
	if err != nil || made.ID == 0 {
		return forge.Receipt{}, err
	}
	return receipt(made.ID, made.URL), nil
}

// Cancel cancels the run of the receipt, or the one that Find finds; nothing found is a success.
func (t Workflow) Cancel(ctx context.Context, run forge.Run, r forge.Receipt) error {
	return t.client.cancel(ctx, run, r, t.Find)
}
