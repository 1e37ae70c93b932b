package github

import (
	"cmp"
	"context"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/status"
)

var _ status.Statuses = (*Client)(nil)

// maxTitle is how much of a client's description a check run shows in its title, in runes.
const maxTitle = 255

// WriteStatus shows a client's status. As an App it is a check run whose external id is the run: s.ID is updated as
// WriteCheck does it, a completed one is never reopened, and a New one is made anew. With a token it is a commit status,
// of which GitHub takes 1000 for a commit and context; the next is refused for good (422).
//
// What was skipped is a failure. GitHub counts a status for every pull request that has the commit, into whichever
// branch and however late, so that nobody can know that the context is required nowhere; shown as success it would
// pass there without a test (docs/rules.md P10).
func (c *Client) WriteStatus(ctx context.Context, s forge.Status) (forge.StatusReceipt, error) {
	if c.app != nil {
		id, err := c.WriteCheck(ctx, checkOf(s))
		return forge.StatusReceipt{ID: id}, err
	}
	client, owner, name, err := c.on(ctx, s.Repo)
	if err != nil {
		return forge.StatusReceipt{}, err
	}
	if !forge.FullSHA(s.SHA) {
		return forge.StatusReceipt{}, wire.Permanent("create commit status", errSHA)
	}
	id, err := c.postStatus(ctx, client, owner, name, s.SHA, statusOf(s))
	return forge.StatusReceipt{ID: id}, err
}

// FindStatus says whether GitHub shows the status already, with state, text and link; a link that was once given to a
// check run cannot be taken away, so that none fits any. The receipt is that of our newest in the context if it is of
// the run (token: if it is by us), whatever it shows. A New status is never the one of s.ID.
func (c *Client) FindStatus(ctx context.Context, s forge.Status) (r forge.StatusReceipt, found bool, err error) {
	client, owner, name, err := c.on(ctx, s.Repo)
	if err != nil {
		return forge.StatusReceipt{}, false, err
	}
	if !forge.FullSHA(s.SHA) {
		return forge.StatusReceipt{}, false, wire.Permanent("find status", errSHA)
	}
	if c.app == nil {
		r.ID, found, err = c.findStatus(ctx, client, owner, name, s.SHA, statusOf(s))
		return r, found && !(s.New && r.ID == s.ID), err
	}
	want := checkOf(s)
	run, err := c.newestRun(ctx, client, owner, name, want)
	if err != nil || run == nil {
		return forge.StatusReceipt{}, false, err
	}
	r.ID = idOf(run)
	return r, inState(run, want.State) && run.GetOutput().GetTitle() == want.Title && (want.URL == "" || run.GetDetailsURL() == want.URL), nil
}

// checkOf is a client's status as a check run.
func checkOf(s forge.Status) forge.Check {
	check := forge.Check{
		Repo: s.Repo, SHA: s.SHA, Name: s.Context, ExternalID: s.Run, Title: wire.Cut(text(s), maxTitle), URL: link(s.TargetURL),
	}
	if !s.New {
		check.ID = s.ID
	}
	switch s.State {
	case forge.StatusRunning:
		check.State = forge.CheckRunning
	case forge.StatusSuccess:
		check.State = forge.CheckSuccess
	case forge.StatusFailed, forge.StatusSkipped:
		check.State = forge.CheckFailure
	case forge.StatusCanceled:
		check.State = forge.CheckCancelled
	case forge.StatusPending:
		check.State = forge.CheckQueued
	}
	return check
}

// statusOf is a client's status as a commit status.
func statusOf(s forge.Status) gh.RepoStatus {
	want := commitStatus(checkOf(s))
	if s.State == forge.StatusCanceled {
		want.State = gh.String("error")
	}
	return want
}

// text is the description, or the state where there is none: a check run needs a title.
func text(s forge.Status) string {
	if s.State == forge.StatusSkipped && s.Description != "" {
		return "skipped: " + s.Description
	}
	return cmp.Or(s.Description, string(s.State))
}

// link is a client's URL if it is safe to be shown as a link, or none.
func link(url string) string {
	if !strings.HasPrefix(url, "https://") {
		return ""
	}
	return url
}
