package github

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/status"
)

var _ status.Checks = (*Client)(nil)

// What GitHub takes: a status description in runes, a summary in bytes, same-named runs or statuses on a commit in
// pages of 100 (A2: 1000 of each).
const (
	maxDescription = 140
	maxSummary     = 65535
	checkPages     = 10
)

// WriteCheck shows the check and answers the id under which it can be updated. As an App it is a check run: with an
// ID the run is updated, unless that run is gone, of another commit, not ours, or would be reopened (a completed run never
// is); then, and without an ID, a new run is made. With a token it is a commit status, which is append-only: the
// id is empty.
//
// A summary that is empty shows the title: GitHub insists on one.
func (c *Client) WriteCheck(ctx context.Context, check forge.Check) (id string, err error) {
	client, owner, name, err := c.on(ctx, check.Repo)
	if err != nil {
		return "", err
	}
	if !forge.FullSHA(check.SHA) {
		return "", wire.Permanent("write check", errSHA)
	}
	if c.app == nil {
		_, err := c.postStatus(ctx, client, owner, name, check.SHA, commitStatus(check))
		return "", err
	}
	if check.ID != "" {
		id, updated, err := c.updateRun(ctx, client, owner, name, check)
		if updated || err != nil {
			return id, err
		}
	}
	const op = "create check run"
	state, conclusion := runState(check.State)
	run, _, err := client.Checks.CreateCheckRun(ctx, owner, name, gh.CreateCheckRunOptions{
		Name: check.Name, HeadSHA: check.SHA, ExternalID: given(check.ExternalID), DetailsURL: given(check.URL),
		Status: &state, Conclusion: conclusion, Output: output(check), Actions: actions(check),
	})
	if err != nil {
		return "", c.fault(op, err)
	}
	if run.GetID() == 0 {
		return "", wire.Incomplete(op)
	}
	return idOf(run), nil
}

func (c *Client) updateRun(ctx context.Context, client *gh.Client, owner, name string, check forge.Check) (id string, updated bool, err error) {
	const op = "update check run"
	number, err := strconv.ParseInt(check.ID, 10, 64)
	if err != nil {
		return "", false, wire.Permanent(op, errors.New("the id is not a number"))
	}
	if !check.State.Completed() { // completing one reopens nothing: nobody need look first
		old, _, err := client.Checks.GetCheckRun(ctx, owner, name, number)
		if err != nil {
			if err = c.fault(op, err); wire.NotFound(err) {
				return "", false, nil
			}
			return "", false, err
		}
		if old.GetStatus() == "completed" || old.GetHeadSHA() != check.SHA || old.GetApp().GetID() != c.appID {
			return "", false, nil
		}
	}
	state, conclusion := runState(check.State)
	run, _, err := client.Checks.UpdateCheckRun(ctx, owner, name, number, gh.UpdateCheckRunOptions{
		Name: check.Name, ExternalID: given(check.ExternalID), DetailsURL: given(check.URL),
		Status: &state, Conclusion: conclusion, Output: output(check), Actions: actions(check),
	})
	if err != nil {
		err = c.fault(op, err)
		if f := forge.Classify(err); f.Status == http.StatusNotFound || f.Status == http.StatusForbidden && f.Class == forge.Permanent {
			return "", false, nil // gone, or another App's
		}
		return "", false, err
	}
	if run.GetID() != number {
		return "", false, wire.Incomplete(op)
	}
	return check.ID, run.GetHeadSHA() == check.SHA, nil
}

// FindCheck says whether GitHub shows the check already: the newest run of ours with this name has the ExternalID
// (and the ID, where one is given) and the wanted state; with a token, the newest status of that context is by us and
// says the same. id is that of our newest run if its ExternalID fits, whatever its state. Runs of other apps are
// ignored (T26); a status of somebody else is not, since the newest of a context counts whoever wrote it.
func (c *Client) FindCheck(ctx context.Context, check forge.Check) (id string, found bool, err error) {
	client, owner, name, err := c.on(ctx, check.Repo)
	if err != nil {
		return "", false, err
	}
	if !forge.FullSHA(check.SHA) {
		return "", false, wire.Permanent("find check", errSHA)
	}
	if c.app == nil {
		_, found, err = c.findStatus(ctx, client, owner, name, check.SHA, commitStatus(check))
		return "", found, err
	}
	newest, err := c.newestRun(ctx, client, owner, name, check)
	if err != nil || newest == nil {
		return "", false, err
	}
	id = idOf(newest)
	return id, inState(newest, check.State) && (check.ID == "" || check.ID == id), nil
}

// newestRun is our newest check run with the name and commit of the check, or nil where that has another ExternalID.
func (c *Client) newestRun(ctx context.Context, client *gh.Client, owner, name string, check forge.Check) (*gh.CheckRun, error) {
	const op = "find check run"
	list := &gh.ListCheckRunsOptions{
		CheckName: &check.Name, Filter: gh.String("all"), AppID: &c.appID, ListOptions: gh.ListOptions{PerPage: 100},
	}
	var newest *gh.CheckRun
	for range checkPages {
		page, res, err := client.Checks.ListCheckRunsForRef(ctx, owner, name, check.SHA, list)
		if err != nil {
			return nil, c.fault(op, err)
		}
		for _, run := range page.CheckRuns {
			if run.GetApp().GetID() == c.appID && run.GetName() == check.Name && run.GetID() > newest.GetID() {
				newest = run
			}
		}
		if list.Page = res.NextPage; list.Page == 0 {
			break
		}
	}
	if newest.GetExternalID() != check.ExternalID {
		return nil, nil
	}
	return newest, nil
}

func idOf(run *gh.CheckRun) string { return strconv.FormatInt(run.GetID(), 10) }

func inState(run *gh.CheckRun, s forge.CheckState) bool {
	state, conclusion := runState(s)
	return run.GetStatus() == state && (conclusion == nil || run.GetConclusion() == *conclusion)
}

// postStatus adds a commit status and answers its id.
func (c *Client) postStatus(ctx context.Context, client *gh.Client, owner, name, sha string, want gh.RepoStatus) (string, error) {
	const op = "create commit status"
	made, _, err := client.Repositories.CreateStatus(ctx, owner, name, sha, &want)
	if err != nil {
		return "", c.fault(op, err)
	}
	if made.GetID() == 0 {
		return "", wire.Incomplete(op)
	}
	return strconv.FormatInt(made.GetID(), 10), nil
}

// findStatus says whether the newest status of the context is by us and says what is wanted; id is that of the newest
// if it is by us.
func (c *Client) findStatus(ctx context.Context, client *gh.Client, owner, name, sha string, want gh.RepoStatus) (id string, found bool, err error) {
	const op = "find commit status"
	me, _, err := c.Self(ctx)
	if err != nil {
		return "", false, err
	}
	list := &gh.ListOptions{PerPage: 100}
	for range checkPages {
		page, res, err := client.Repositories.ListStatuses(ctx, owner, name, sha, list)
		if err != nil {
			return "", false, c.fault(op, err)
		}
		// Newest first: the first of the context is the one that counts.
		if i := slices.IndexFunc(page, func(s *gh.RepoStatus) bool { return s.GetContext() == want.GetContext() }); i >= 0 {
			s := page[i]
			if s.GetCreator().GetID() != me.ID {
				return "", false, nil
			}
			return strconv.FormatInt(s.GetID(), 10), s.GetState() == want.GetState() &&
				s.GetDescription() == want.GetDescription() && s.GetTargetURL() == want.GetTargetURL(), nil
		}
		if list.Page = res.NextPage; list.Page == 0 {
			break
		}
	}
	return "", false, nil
}

// runState says a state in the words of check runs. A gate that is shut is completed: only then the button shows.
func runState(s forge.CheckState) (status string, conclusion *string) {
	if !s.Completed() {
		return string(s), nil
	}
	return "completed", gh.String(string(s))
}

// commitStatus is the check as a commit status. Waiting for a maintainer is pending, not a failure; a cancelled check must
// not satisfy a required one.
func commitStatus(check forge.Check) gh.RepoStatus {
	state := "pending"
	switch check.State {
	case forge.CheckSuccess:
		state = "success"
	case forge.CheckFailure, forge.CheckCancelled:
		state = "failure"
	case forge.CheckQueued, forge.CheckRunning, forge.CheckActionRequired:
	}
	return gh.RepoStatus{
		State: &state, Context: &check.Name, Description: gh.String(wire.Cut(check.Title, maxDescription)), TargetURL: given(check.URL),
	}
}

func output(check forge.Check) *gh.CheckRunOutput {
	summary := cmp.Or(check.Summary, check.Title)
	if len(summary) > maxSummary {
		summary = strings.ToValidUTF8(summary[:maxSummary], "")
	}
	return &gh.CheckRunOutput{Title: &check.Title, Summary: &summary}
}

// actions are the buttons. GitHub's limits: label and identifier 20 characters, description 40.
func actions(check forge.Check) []*gh.CheckRunAction {
	if !check.Approve {
		return nil
	}
	return []*gh.CheckRunAction{{
		Label: "Approve this commit", Identifier: "approve", Description: "Run CI on exactly this commit",
	}}
}

// given is nil for an empty string: GitHub refuses an empty URL.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

var errSHA = errors.New("expected a commit SHA in full")
