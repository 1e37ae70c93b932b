package gitlab

import (
	"context"
	"errors"
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
		if repo.ID != 0 && m.TargetProjectID != repo.ID {
			return nil, 0, &forge.Fault{Class: forge.NotFound, Op: op, Status: 404, Err: errors.New("the path belongs to another project now")}
		}
		out = append(out, repair.Pull{
			Ref: forge.Ref{Number: int(m.IID), Repo: forge.Repo{
				Instance: c.instance, ID: m.TargetProjectID, Name: name, Private: repo.Private,
			}},
			Open: m.State == opened || m.State == locked, CreatedAt: second(m.CreatedAt), UpdatedAt: second(m.UpdatedAt),
		})
	}
	return out, int(res.NextPage), nil
}

// Failed says that there is no log to go by: GitLab keeps its recent events for two days and sends five of them again in
// a minute, so that comparing merge requests is what repairs (forges.md B).
func (c *Client) Failed(context.Context, forge.Repo, time.Time, string) ([]repair.Delivery, string, error) {
	return nil, "", &repair.NoLog{Why: "GitLab is repaired by comparing merge requests"}
}

// Redeliver is never asked for, as Failed lists nothing.
func (c *Client) Redeliver(context.Context, forge.Repo, repair.Delivery) error {
	return wire.Permanent("send a delivery again", errors.New("GitLab is repaired by comparing merge requests"))
}
