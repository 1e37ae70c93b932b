package github

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
)

// What GitHub takes: a status description in runes, a summary in bytes, same-named runs or statuses on a commit in
// pages of 100 (A2: 1000 of each).
const (
	maxDescription = 140
	maxSummary     = 65535
	checkPages     = 10
)

// WriteCheck shows the check and answers its id. As an App it is a check run: with an ID the run is updated, unless
// that run is gone, completed (it would be reopened, and required checks would see it run) or of another commit; then
// and without an ID a new run is made. With a token it is a commit status, which is append-only and has no id to
// update.
//
// A summary that is empty shows the title: GitHub insists on one.
func (c *Client) WriteCheck(ctx context.Context, check forge.Check) (id string, err error) {
	client, owner, name, err := c.on(ctx, check.Repo)
	if err != nil {
		return "", err
	}
	if !hexSHA(check.SHA) {
		return "", permanent("write check", errSHA)
	}
	if c.app == nil {
		return c.writeStatus(ctx, client, owner, name, check)
	}
	if check.ID != "" {
		id, updated, err := c.updateRun(ctx, client, owner, name, check)
		if updated || err != nil {
			return id, err
		}
	}
	const op = "create check run"
	status, conclusion := runState(check.State)
	run, _, err := client.Checks.CreateCheckRun(ctx, owner, name, gh.CreateCheckRunOptions{
		Name: check.Name, HeadSHA: check.SHA, ExternalID: given(check.ExternalID), DetailsURL: given(check.URL),
		Status: &status, Conclusion: conclusion, Output: output(check), Actions: actions(check),
	})
	if err != nil {
		return "", c.fault(op, err)
	}
	if run.GetID() == 0 {
		return "", incomplete(op)
	}
	return strconv.FormatInt(run.GetID(), 10), nil
}

func (c *Client) updateRun(ctx context.Context, client *gh.Client, owner, name string, check forge.Check) (id string, updated bool, err error) {
	const op = "update check run"
	number, err := strconv.ParseInt(check.ID, 10, 64)
	if err != nil {
		return "", false, permanent(op, errors.New("the id is not a number"))
	}
	old, _, err := client.Checks.GetCheckRun(ctx, owner, name, number)
	if err != nil {
		if err = c.fault(op, err); notFound(err) {
			return "", false, nil
		}
		return "", false, err
	}
	if old.GetStatus() == "completed" || old.GetHeadSHA() != check.SHA || old.GetApp().GetID() != c.appID {
		return "", false, nil
	}
	status, conclusion := runState(check.State)
	run, _, err := client.Checks.UpdateCheckRun(ctx, owner, name, number, gh.UpdateCheckRunOptions{
		Name: check.Name, ExternalID: given(check.ExternalID), DetailsURL: given(check.URL),
		Status: &status, Conclusion: conclusion, Output: output(check), Actions: actions(check),
	})
	if err != nil {
		return "", false, c.fault(op, err)
	}
	if run.GetID() != number {
		return "", false, incomplete(op)
	}
	return check.ID, true, nil
}

// FindCheck looks whether GitHub shows the check already. found means that nothing is left to write: our newest run
// with the ExternalID has the wanted state, or the newest status of that context is by us and says the same. id is
// that of our run with the ExternalID whatever its state, so that it can be updated. Runs and statuses of the same
// name by others are ignored (an App's), or stand in the way (a token's: the newest status of a context counts).
func (c *Client) FindCheck(ctx context.Context, check forge.Check) (id string, found bool, err error) {
	client, owner, name, err := c.on(ctx, check.Repo)
	if err != nil {
		return "", false, err
	}
	if !hexSHA(check.SHA) {
		return "", false, permanent("find check", errSHA)
	}
	if c.app == nil {
		return c.findStatus(ctx, client, owner, name, check)
	}
	const op = "find check run"
	all := "all"
	list := &gh.ListCheckRunsOptions{CheckName: &check.Name, Filter: &all, AppID: &c.appID, ListOptions: gh.ListOptions{PerPage: 100}}
	var newest *gh.CheckRun
	for range checkPages {
		page, res, err := client.Checks.ListCheckRunsForRef(ctx, owner, name, check.SHA, list)
		if err != nil {
			return "", false, c.fault(op, err)
		}
		for _, run := range page.CheckRuns {
			if run.GetApp().GetID() == c.appID && run.GetExternalID() == check.ExternalID && run.GetID() > newest.GetID() {
				newest = run
			}
		}
		if list.Page = res.NextPage; list.Page == 0 {
			break
		}
	}
	if newest == nil {
		return "", false, nil
	}
	status, conclusion := runState(check.State)
	shown := newest.GetStatus() == status && (conclusion == nil || newest.GetConclusion() == *conclusion)
	return strconv.FormatInt(newest.GetID(), 10), shown, nil
}

func (c *Client) writeStatus(ctx context.Context, client *gh.Client, owner, name string, check forge.Check) (string, error) {
	const op = "create commit status"
	want := status(check)
	made, _, err := client.Repositories.CreateStatus(ctx, owner, name, check.SHA, &want)
	if err != nil {
		return "", c.fault(op, err)
	}
	if made.GetID() == 0 {
		return "", incomplete(op)
	}
	return strconv.FormatInt(made.GetID(), 10), nil
}

func (c *Client) findStatus(ctx context.Context, client *gh.Client, owner, name string, check forge.Check) (string, bool, error) {
	const op = "find commit status"
	me, _, err := c.Self(ctx)
	if err != nil {
		return "", false, err
	}
	want := status(check)
	list := &gh.ListOptions{PerPage: 100}
	for range checkPages {
		page, res, err := client.Repositories.ListStatuses(ctx, owner, name, check.SHA, list)
		if err != nil {
			return "", false, c.fault(op, err)
		}
		// Newest first: the first of the context is the one that counts.
		if i := slices.IndexFunc(page, func(s *gh.RepoStatus) bool { return s.GetContext() == check.Name }); i >= 0 {
			s := page[i]
			if s.GetCreator().GetID() != me.ID {
				return "", false, nil
			}
			same := s.GetState() == want.GetState() && s.GetDescription() == want.GetDescription() &&
				s.GetTargetURL() == want.GetTargetURL()
			return strconv.FormatInt(s.GetID(), 10), same, nil
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

// status is the check as a commit status. Waiting for a maintainer is pending, not a failure; a cancelled check must
// not satisfy a required one.
func status(check forge.Check) gh.RepoStatus {
	state := "pending"
	switch check.State {
	case forge.CheckSuccess:
		state = "success"
	case forge.CheckFailure, forge.CheckCancelled:
		state = "failure"
	case forge.CheckQueued, forge.CheckRunning, forge.CheckActionRequired:
	}
	return gh.RepoStatus{
		State: &state, Context: &check.Name, Description: gh.String(cut(check.Title, maxDescription)), TargetURL: given(check.URL),
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

// hexSHA keeps everything but commits out of paths and out of what goes to CI.
func hexSHA(s string) bool {
	return (len(s) == 40 || len(s) == 64) && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})
}
