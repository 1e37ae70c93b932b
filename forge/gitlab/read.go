package gitlab

import (
	"context"
	"errors"
	"strings"
	"time"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

var (
	_ prmanager.Reader    = (*Client)(nil)
	_ prmanager.Labeller  = (*Client)(nil)
	_ prmanager.Commenter = (*Client)(nil)
)

// States of a merge request.
const (
	opened = "opened"
	merged = "merged"
)

// isOpen says whether a state is one of an open merge request: "locked" is one that is being merged.
func isOpen(state string) bool { return state == opened || state == "locked" }

// Pull reads the live merge request: 1 call. Its times are whole seconds, as those of hooks are. Base.SHA is the tip of
// the target branch as of the newest push, or empty while GitLab still prepares the merge request.
func (c *Client) Pull(ctx context.Context, ref forge.Ref) (forge.Pull, error) {
	const op = "read merge request"
	pid, err := project(op, ref.Repo)
	if err != nil {
		return forge.Pull{}, err
	}
	live, _, err := c.api.MergeRequests.GetMergeRequest(pid, int64(ref.Number), nil, with(ctx))
	if err != nil {
		return forge.Pull{}, classify(op, err)
	}
	if live.IID != int64(ref.Number) || live.TargetProjectID == 0 || live.SHA == "" || live.TargetBranch == "" || live.State == "" || live.UpdatedAt == nil {
		return forge.Pull{}, wire.Incomplete(op)
	}
	ref.Repo.Instance, ref.Repo.ID = c.instance, live.TargetProjectID
	if name := pathOf(&live.BasicMergeRequest); name != "" {
		ref.Repo.Name = name
	}
	p := forge.Pull{
		Ref: ref, Open: isOpen(live.State), Merged: live.State == merged, Draft: live.Draft,
		Head:      forge.Branch{SHA: live.SHA, Name: live.SourceBranch, RepoID: live.SourceProjectID}, // 0: the fork was deleted
		Base:      forge.Branch{SHA: live.DiffRefs.StartSha, Name: live.TargetBranch, RepoID: live.TargetProjectID},
		UpdatedAt: second(live.UpdatedAt),
	}
	if live.Author != nil {
		p.Author = actor(live.Author.ID, live.Author.Username)
	}
	return p, nil
}

// pathOf is the path of the target project, which the answer has only within the full reference "group/project!7".
func pathOf(m *gl.BasicMergeRequest) string {
	if m.References == nil {
		return ""
	}
	path, _, _ := strings.Cut(m.References.Full, "!")
	return path
}

// LabelHistory reads at least the newest 50 label changes, oldest first: GitLab lists them so and has no other order, and
// the first page says which is the last. An entry whose label was deleted names none.
func (c *Client) LabelHistory(ctx context.Context, ref forge.Ref) ([]forge.LabelEntry, error) {
	const op = "read label history"
	pid, err := project(op, ref.Repo)
	if err != nil {
		return nil, err
	}
	events, err := wire.Newest(func(n int) ([]*gl.LabelEvent, int, error) {
		list, res, err := c.api.ResourceLabelEvents.ListMergeRequestsLabelEvents(pid, int64(ref.Number),
			&gl.ListLabelEventsOptions{ListOptions: gl.ListOptions{Page: int64(n), PerPage: wire.Page}}, with(ctx))
		switch {
		case err != nil:
			return nil, 0, classify(op, err)
		case res.TotalPages == 0 && res.NextPage != 0: // the newest are out of reach
			return nil, 0, wire.Permanent(op, errors.New("GitLab does not say how many label events there are"))
		}
		return list, int(res.TotalPages), nil
	})
	if err != nil {
		return nil, err
	}
	var history []forge.LabelEntry
	for _, e := range events {
		if e.ID == 0 || e.CreatedAt == nil {
			return nil, wire.Incomplete(op)
		}
		if e.Action != "add" && e.Action != "remove" {
			continue
		}
		history = append(history, forge.LabelEntry{
			ID: e.ID, Added: e.Action == "add", Label: e.Label.Name, Actor: actor(e.User.ID, e.User.Username), At: second(e.CreatedAt),
		})
	}
	return history, nil
}

// Pushed asks the push events of the source project, of which each was written with its own push's commit: 1 call. A
// project that is gone or hidden from us shows none. One that is not among the newest 100 is taken for not yet written:
// the same worker that has GitLab tell of a push writes its event only then (app/services/git/branch_push_service.rb).
func (c *Client) Pushed(ctx context.Context, head forge.Branch, who forge.Actor) (bool, error) {
	const op = "read push events"
	if head.RepoID == 0 || who.ID == 0 {
		return false, nil
	}
	action, newest := gl.PushedEventType, "desc"
	events, _, err := c.api.Events.ListProjectVisibleEvents(head.RepoID, &gl.ListProjectVisibleEventsOptions{
		ListOptions: gl.ListOptions{PerPage: wire.Page}, Action: &action, Sort: &newest,
	}, with(ctx))
	if err != nil {
		if err := classify(op, err); !wire.NotFound(err) {
			return false, err
		}
		return false, nil
	}
	for _, e := range events {
		if p := e.PushData; p.RefType == "branch" && p.Ref == head.Name && p.CommitTo == head.SHA {
			return e.AuthorID == who.ID, nil
		}
	}
	return false, &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("the push does not show")}
}

// Trusted asks whether who satisfies the rule (docs/rules.md P4), by id, inherited and shared memberships included. Write is
// Developer, maintain is Maintainer; the membership and the account must be active. The bots of access tokens and
// service accounts are trusted by a user rule only; app rules fit nobody, since GitLab has no Apps.
//
// Nothing is cached: a membership that was lost a second ago must not grant.
func (c *Client) Trusted(ctx context.Context, repo forge.Repo, who forge.Actor, rule forge.Rule) (bool, error) {
	if who.ID == 0 {
		return false, nil
	}
	var yes bool
	var err error
	switch rule.Kind {
	case "permission", "team":
		if who.Bot {
			return false, nil
		}
		if rule.Kind == "team" {
			yes, err = c.inGroup(ctx, who, rule.Value)
		} else {
			yes, err = c.isMember(ctx, repo, who, rule.Value)
		}
	case "user":
		yes, err = c.isUser(ctx, who, rule.Value)
	case "app":
		return false, nil
	default:
		return false, wire.Permanent("look up trust", errors.New("unknown kind of rule"))
	}
	if wire.NotFound(err) {
		return false, nil
	}
	return yes, err
}

func (c *Client) isMember(ctx context.Context, repo forge.Repo, who forge.Actor, least string) (bool, error) {
	const op = "read membership"
	var level gl.AccessLevelValue
	switch least {
	case "write":
		level = gl.DeveloperPermissions
	case "maintain":
		level = gl.MaintainerPermissions
	case "admin":
		level = gl.OwnerPermissions
	default:
		return false, wire.Permanent(op, errors.New("unknown permission"))
	}
	pid, err := project(op, repo)
	if err != nil {
		return false, err
	}
	m, _, err := c.api.ProjectMembers.GetInheritedProjectMember(pid, who.ID, with(ctx))
	if err != nil {
		return false, classify(op, err)
	}
	return holds(op, who, level, gl.GroupMember{ID: m.ID, Username: m.Username, State: m.State, ExpiresAt: m.ExpiresAt, AccessLevel: m.AccessLevel})
}

// inGroup: any role from Guest on, in the group or in one above it, is membership.
func (c *Client) inGroup(ctx context.Context, who forge.Actor, group string) (bool, error) {
	const op = "read group membership"
	if !projectPath.MatchString(group + "/x") {
		return false, wire.Permanent(op, errors.New("expected the path of a group"))
	}
	m, _, err := c.api.GroupMembers.GetInheritedGroupMember(group, who.ID, with(ctx))
	if err != nil {
		return false, classify(op, err)
	}
	return holds(op, who, gl.GuestPermissions, *m)
}

// holds says whether a membership is who's, of a role from least on, and in force: GitLab removes one that has ended
// only within a day of its last.
func holds(op string, who forge.Actor, least gl.AccessLevelValue, m gl.GroupMember) (bool, error) {
	if m.ID == 0 || m.State == "" {
		return false, wire.Incomplete(op)
	}
	over := m.ExpiresAt != nil && !time.Now().Before(time.Time(*m.ExpiresAt))
	return m.ID == who.ID && m.State == "active" && m.AccessLevel >= least && !over && !botName.MatchString(m.Username), nil
}

// isUser says whether login belongs to who at this moment. An account that is blocked is nobody's.
func (c *Client) isUser(ctx context.Context, who forge.Actor, login string) (bool, error) {
	const op = "read user"
	u, _, err := c.api.Users.GetUser(who.ID, nil, with(ctx))
	switch {
	case err != nil:
		return false, classify(op, err)
	case u.ID == 0 || u.Username == "" || u.State == "":
		return false, wire.Incomplete(op)
	}
	return u.ID == who.ID && strings.EqualFold(u.Username, login) && u.State == "active", nil
}

// SetLabel adds or removes one label: 1 call. What is so already is a success; adding creates a label that the project
// lacks; a merge request that is gone needs no removing.
func (c *Client) SetLabel(ctx context.Context, ref forge.Ref, label string, present bool) error {
	op := "remove label"
	if present {
		op = "add label"
	}
	pid, err := project(op, ref.Repo)
	if err != nil {
		return err
	}
	if label == "" || strings.Contains(label, ",") { // a comma would name two
		return wire.Permanent(op, errors.New("no usable label name"))
	}
	o := &gl.UpdateMergeRequestOptions{RemoveLabels: &gl.LabelOptions{label}}
	if present {
		o = &gl.UpdateMergeRequestOptions{AddLabels: &gl.LabelOptions{label}}
	}
	_, _, err = c.api.MergeRequests.UpdateMergeRequest(pid, int64(ref.Number), o, with(ctx))
	if err == nil {
		return nil
	}
	f := classify(op, err)
	if f.Class == forge.NotFound && !present {
		return nil
	}
	return f
}

// Comment writes a note on the merge request: 1 call.
func (c *Client) Comment(ctx context.Context, ref forge.Ref, text string) error {
	const op = "write note"
	pid, err := project(op, ref.Repo)
	if err != nil {
		return err
	}
	if _, _, err = c.api.Notes.CreateMergeRequestNote(pid, int64(ref.Number), &gl.CreateMergeRequestNoteOptions{Body: &text}, with(ctx)); err != nil {
		return classify(op, err)
	}
	return nil
}
