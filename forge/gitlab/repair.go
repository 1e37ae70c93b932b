package gitlab

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/repair"
)

var (
	_ repair.Lister = (*Client)(nil)
	_ repair.Log    = (*Client)(nil)
)

// Installations is for Apps, which GitLab has none of.
func (c *Client) Installations(context.Context, int) ([]int64, int, error) {
	return nil, 0, wire.Permanent("list installations", errors.New("GitLab has none"))
}

// Repos lists the projects that the token is a member of: 1 call a page. Archived ones take no writes and are left out.
func (c *Client) Repos(ctx context.Context, _ int64, page int) ([]forge.Repo, int, error) {
	const op = "list projects"
	yes, no, order, sort := true, false, "id", "asc"
	list, res, err := c.api.Projects.ListProjects(&gl.ListProjectsOptions{
		Membership: &yes, Archived: &no, Simple: &yes, OrderBy: &order, Sort: &sort, ListOptions: gl.ListOptions{Page: int64(page), PerPage: wire.Page},
	}, with(ctx))
	if err != nil {
		return nil, 0, classify(op, err)
	}
	var out []forge.Repo
	for _, p := range list {
		if p.ID == 0 || p.PathWithNamespace == "" {
			return nil, 0, wire.Incomplete(op)
		}
		out = append(out, forge.Repo{Instance: c.instance, ID: p.ID, Name: p.PathWithNamespace, Private: p.Visibility != gl.PublicVisibility})
	}
	return out, int(res.NextPage), nil
}

// Updated lists merge requests in any state, updated last first, back to since: 1 call a page.
func (c *Client) Updated(ctx context.Context, repo forge.Repo, since time.Time, page int) ([]repair.Pull, int, error) {
	all, order, sort := "all", "updated_at", "desc"
	return c.pulls(ctx, repo, &gl.ListProjectMergeRequestsOptions{
		State: &all, UpdatedAfter: &since, OrderBy: &order, Sort: &sort, ListOptions: gl.ListOptions{Page: int64(page), PerPage: wire.Page},
	})
}

// Open lists open merge requests, oldest first: 1 call a page.
func (c *Client) Open(ctx context.Context, repo forge.Repo, page int) ([]repair.Pull, int, error) {
	state, order, sort := opened, "created_at", "asc"
	return c.pulls(ctx, repo, &gl.ListProjectMergeRequestsOptions{
		State: &state, OrderBy: &order, Sort: &sort, ListOptions: gl.ListOptions{Page: int64(page), PerPage: wire.Page},
	})
}

func (c *Client) pulls(ctx context.Context, repo forge.Repo, o *gl.ListProjectMergeRequestsOptions) ([]repair.Pull, int, error) {
	const op = "list merge requests"
	pid, err := project(op, repo)
	if err != nil {
		return nil, 0, err
	}
	list, res, err := c.api.MergeRequests.ListProjectMergeRequests(pid, o, with(ctx))
	if err != nil {
		return nil, 0, classify(op, err)
	}
	var out []repair.Pull
	for _, m := range list {
		name := pathOf(m)
		if m.IID <= 0 || m.TargetProjectID == 0 || m.State == "" || m.UpdatedAt == nil || m.CreatedAt == nil || name == "" {
			return nil, 0, wire.Incomplete(op)
		}
		out = append(out, repair.Pull{
			Ref: forge.Ref{Number: int(m.IID), Repo: forge.Repo{
				Instance: c.instance, ID: m.TargetProjectID, Name: name, Private: repo.Private,
			}},
			Open: isOpen(m.State), CreatedAt: second(m.CreatedAt), UpdatedAt: second(m.UpdatedAt),
		})
	}
	return out, int(res.NextPage), nil
}

// noLog is why there is nothing to go by.
const noLog = "GitLab is repaired by comparing merge requests"

// Failed lists nothing: GitLab keeps its recent events for two days and sends five of them again in a minute, so that
// comparing merge requests is what repairs. It looks whether GitLab has disabled the project's hook to us,
// which loses events without a trace: 1 call, which takes a Maintainer. Hooks of groups are not seen.
func (c *Client) Failed(ctx context.Context, repo forge.Repo, _ time.Time, _ string) ([]repair.Delivery, string, error) {
	list, err := c.Webhooks(ctx, repo)
	if status := forge.Classify(err).Status; err != nil && status != http.StatusForbidden && status != http.StatusNotFound {
		return nil, "", err
	}
	none := &repair.NoLog{Why: noLog}
	if slices.ContainsFunc(list, func(h Webhook) bool { return h.Disabled }) {
		none.Disabled = "GitLab has disabled the webhook after failures, for now or for good"
	}
	return nil, "", none
}

// ours says whether a hook sends to us: other tools' hooks are none of our business.
func (c *Client) ours(address string) bool {
	u, err := url.Parse(address)
	return err == nil && strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), "/webhooks/"+c.instance)
}

// Redeliver is never asked for, as Failed lists nothing.
func (c *Client) Redeliver(context.Context, forge.Repo, repair.Delivery) error {
	return wire.Permanent("send a delivery again", errors.New(noLog))
}
