package github

import (
	"context"
	"encoding/json"
	"fmt"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// Dispatch is the trigger "repository_dispatch" (docs/recipes/repository-dispatch.md): event_type "signalbox", client_payload {key, pr, sha,
// base_sha}. GitHub answers no run id, so a run is found again by its title, if the workflow puts the key there. A
// crash between sending and recording may send it twice where the workflow does not: at least once.
type Dispatch struct{ client *Client }

var (
	_ prmanager.Trigger = Dispatch{}
	_ prmanager.Finder  = Dispatch{}
)

// Dispatch is the trigger over this client.
func (c *Client) Dispatch() Dispatch { return Dispatch{c} }

// Find looks among the newest 300 dispatched runs of the repository for one whose title has the key.
func (t Dispatch) Find(ctx context.Context, run forge.Run) (forge.Receipt, bool, error) {
	const op = "find dispatched run"
	if run.Key == "" {
		return forge.Receipt{}, false, wire.Permanent(op, errKey)
	}
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return forge.Receipt{}, false, err
	}
	const event = "repository_dispatch"
	return t.client.findRun(op, func(page gh.ListOptions) (*gh.WorkflowRuns, *gh.Response, error) {
		return client.Actions.ListRepositoryWorkflowRuns(ctx, owner, name,
			&gh.ListWorkflowRunsOptions{Event: event, ExcludePullRequests: true, ListOptions: page})
	}, titled(event, run.Key))
}

// Start sends the event. The receipt is empty: GitHub gives none.
func (t Dispatch) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	const op = "send repository_dispatch"
	run, err := t.client.sendable(ctx, op, run)
	if err != nil {
		return forge.Receipt{}, err
	}
	client, owner, name, err := t.client.on(ctx, run.Ref.Repo)
	if err != nil {
		return forge.Receipt{}, err
	}
	var pr any = run.Ref.Number
	if run.Ref.Number == 0 {
		pr = run.SHA
	}
	payload, err := json.Marshal(clientPayload{run.Key, pr, run.SHA, run.BaseSHA})
	if err != nil {
		return forge.Receipt{}, wire.Permanent(op, fmt.Errorf("encode payload: %w", err))
	}
	_, _, err = client.Repositories.Dispatch(ctx, owner, name,
		gh.DispatchRequestOptions{EventType: "signalbox", ClientPayload: (*json.RawMessage)(&payload)})
	return forge.Receipt{}, t.client.fault(op, err)
}

type clientPayload struct {
	Key     string `json:"key"`
	PR      any    `json:"pr"` // number, or of a merge group its SHA
	SHA     string `json:"sha"`
	BaseSHA string `json:"base_sha"`
}

// Cancel cancels the run of the receipt, or the one that Find finds; nothing found is a success.
func (t Dispatch) Cancel(ctx context.Context, run forge.Run, r forge.Receipt) error {
	return t.client.cancel(ctx, run, r, t.Find)
}
