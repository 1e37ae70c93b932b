package github

import (
	"context"
	"errors"
	"net/url"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

var _ prmanager.Reader = (*Client)(nil)

// Pull reads the live pull request: 1 call. A repository that answers under the name but has another id (the name was
// given to a new repository) is a permanent Fault: nothing of ours is there.
func (c *Client) Pull(ctx context.Context, ref forge.Ref) (forge.Pull, error) {
	const op = "read pull request"
	client, owner, name, err := c.on(ctx, ref.Repo)
	if err != nil {
		return forge.Pull{}, err
	}
	live, _, err := client.PullRequests.Get(ctx, owner, name, ref.Number)
	if err != nil {
		return forge.Pull{}, c.fault(op, err)
	}
	base := live.GetBase().GetRepo()
	switch {
	case live.GetNumber() != ref.Number, base.GetID() == 0, live.GetHead().GetSHA() == "", live.GetBase().GetSHA() == "",
		live.GetState() == "", live.GetUpdatedAt().IsZero():
		return forge.Pull{}, wire.Incomplete(op)
	case ref.Repo.ID != 0 && base.GetID() != ref.Repo.ID:
		return forge.Pull{}, wire.Permanent(op, errors.New("the name belongs to another repository now"))
	}
	ref.Repo.Instance = c.instance
	ref.Repo.ID, ref.Repo.Name, ref.Repo.Private = base.GetID(), base.GetFullName(), base.GetPrivate()
	return forge.Pull{
		Ref:    ref,
		Open:   live.GetState() == "open",
		Merged: live.GetMerged(),
		Draft:  live.GetDraft(),
		Author: actor(live.User),
		// A deleted fork leaves head.repo null: RepoID 0.
		Head:      forge.Branch{SHA: live.GetHead().GetSHA(), Name: live.GetHead().GetRef(), RepoID: live.GetHead().GetRepo().GetID()},
		Base:      forge.Branch{SHA: live.GetBase().GetSHA(), Name: live.GetBase().GetRef(), RepoID: base.GetID()},
		UpdatedAt: live.GetUpdatedAt().Time,
	}, nil
}

// LabelHistory reads the label changes among at least the newest 50 issue events, oldest first. GitHub lists issue events
// oldest first and has no other order, so the first page says which is the last: 1 call up to 100 events of any kind, 2
// or 3 beyond.
func (c *Client) LabelHistory(ctx context.Context, ref forge.Ref) ([]forge.LabelEntry, error) {
	const op = "read label history"
	client, owner, name, err := c.on(ctx, ref.Repo)
	if err != nil {
		return nil, err
	}
	events, err := wire.Newest(func(n int) ([]*gh.IssueEvent, int, error) {
		list, res, err := client.Issues.ListIssueEvents(ctx, owner, name, ref.Number, &gh.ListOptions{Page: n, PerPage: wire.Page})
		if err != nil {
			return nil, 0, c.fault(op, err)
		}
		return list, res.LastPage, nil
	})
	if err != nil {
		return nil, err
	}
	var history []forge.LabelEntry
	for _, e := range events {
		kind, label := e.GetEvent(), e.GetLabel().GetName()
		// A null label names nothing that could be judged.
		if kind != "labeled" && kind != "unlabeled" || label == "" {
			continue
		}
		history = append(history, forge.LabelEntry{
			ID: e.GetID(), Added: kind == "labeled", Label: label, Actor: actor(e.Actor), At: e.GetCreatedAt().Time,
		})
	}
	return history, nil
}

// Pushed is a yes without a call: GitHub's deliveries show the head that their sender pushed.
func (c *Client) Pushed(context.Context, forge.Branch, forge.Actor) (bool, error) { return true, nil }

// Trusted asks whether who satisfies the rule (docs/rules.md P4). It is about who.ID: an answer that is about another
// account is a no. A deleted account and one without id are trusted by nobody. A bot is trusted by an app or user
// rule only: an App's write permission is no person's judgement.
//
// Nothing is cached: a membership that was lost a second ago must not grant.
func (c *Client) Trusted(ctx context.Context, repo forge.Repo, who forge.Actor, rule forge.Rule) (bool, error) {
	if who.ID == 0 {
		return false, nil
	}
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return false, err
	}
	var yes bool
	switch rule.Kind {
	case "permission":
		if who.Bot {
			return false, nil
		}
		yes, err = c.mayWrite(ctx, client, owner, name, who, rule.Value)
	case "team":
		if who.Bot {
			return false, nil
		}
		yes, err = c.inTeam(ctx, client, who, rule.Value)
	case "user":
		yes, err = c.isUser(ctx, client, who, rule.Value)
	case "app":
		if !who.Bot {
			return false, nil
		}
		yes, err = c.isUser(ctx, client, who, rule.Value+"[bot]")
	default:
		return false, wire.Permanent("look up trust", errors.New("unknown kind of rule"))
	}
	if wire.NotFound(err) {
		return false, nil
	}
	return yes, err
}

// mayWrite reads the field permission, which maps maintain to write and triage to read; role_name only where a rule
// asks for maintain, since it may be the name of a custom role.
func (c *Client) mayWrite(ctx context.Context, client *gh.Client, owner, name string, who forge.Actor, least string) (bool, error) {
	const op = "read permission"
	login, ok := segment(who.Login)
	if !ok {
		return false, wire.Incomplete(op)
	}
	level, _, err := client.Repositories.GetPermissionLevel(ctx, owner, name, login)
	switch {
	case err != nil:
		return false, c.fault(op, err)
	case level.Permission == nil || level.User == nil:
		return false, wire.Incomplete(op)
	case level.User.GetID() != who.ID, level.User.GetType() == "Bot":
		return false, nil
	}
	admin := level.GetPermission() == "admin"
	switch least {
	case "write":
		return admin || level.GetPermission() == "write", nil
	case "maintain":
		return admin || level.GetRoleName() == "maintain", nil
	case "admin":
		return admin, nil
	}
	return false, wire.Permanent(op, errors.New("unknown permission"))
}

// inTeam goes from the id to the present login, so that a login taken over by another account is never asked about.
func (c *Client) inTeam(ctx context.Context, client *gh.Client, who forge.Actor, team string) (bool, error) {
	const op = "read team membership"
	org, slug, ok := strings.Cut(team, "/")
	if !ok || !plain(org) || !plain(slug) {
		return false, wire.Permanent(op, errors.New("expected ORG/SLUG"))
	}
	user, _, err := client.Users.GetByID(ctx, who.ID)
	if err != nil {
		return false, c.fault(op, err)
	}
	login, ok := segment(user.GetLogin())
	if !ok || user.GetID() != who.ID {
		return false, wire.Incomplete(op)
	}
	member, _, err := client.Teams.GetTeamMembershipBySlug(ctx, org, slug, login)
	switch {
	case err != nil:
		return false, c.fault(op, err)
	case member.State == nil:
		return false, wire.Incomplete(op)
	}
	return member.GetState() == "active", nil
}

// isUser says whether login belongs to who at this moment.
func (c *Client) isUser(ctx context.Context, client *gh.Client, who forge.Actor, login string) (bool, error) {
	const op = "read user"
	if !plain(strings.TrimSuffix(login, "[bot]")) {
		return false, wire.Permanent(op, errors.New("expected a login"))
	}
	user, _, err := client.Users.Get(ctx, url.PathEscape(login))
	switch {
	case err != nil:
		return false, c.fault(op, err)
	case user.GetID() == 0:
		return false, wire.Incomplete(op)
	}
	return user.GetID() == who.ID, nil
}
