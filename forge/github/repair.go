package github

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/repair"
)

var (
	_ repair.Lister = (*Client)(nil)
	_ repair.Log    = (*Client)(nil)
)

// Installations lists the App's installations, without those that are suspended: 1 call a page.
func (c *Client) Installations(ctx context.Context, page int) ([]int64, int, error) {
	const op = "list installations"
	if c.app == nil {
		return nil, 0, wire.Permanent(op, errors.New("a token has none"))
	}
	list, res, err := c.app.Apps.ListInstallations(ctx, &gh.ListOptions{Page: page, PerPage: wire.Page})
	if err != nil {
		return nil, 0, c.fault(op, err)
	}
	var ids []int64
	for _, i := range list {
		if i.GetID() == 0 {
			return nil, 0, wire.Incomplete(op)
		}
		if i.SuspendedAt == nil {
			ids = append(ids, i.GetID())
		}
	}
	return ids, res.NextPage, nil
}

// Repos lists the repositories of an installation, or with 0 all that the token sees: 1 call a page. Archived ones
// take no writes and are left out.
func (c *Client) Repos(ctx context.Context, installation int64, page int) ([]forge.Repo, int, error) {
	const op = "list repositories"
	at := gh.ListOptions{Page: page, PerPage: wire.Page}
	var list []*gh.Repository
	var res *gh.Response
	var err error
	if installation == 0 {
		if c.token == nil {
			return nil, 0, wire.Permanent(op, errors.New("an App asks for an installation's"))
		}
		list, res, err = c.token.Repositories.ListByAuthenticatedUser(ctx, &gh.RepositoryListByAuthenticatedUserOptions{Sort: "full_name", ListOptions: at})
	} else {
		client, e := c.as(installation)
		if e != nil {
			return nil, 0, e
		}
		var l *gh.ListRepositories
		if l, res, err = client.Apps.ListRepos(ctx, &at); l != nil {
			list = l.Repositories
		}
	}
	if err != nil {
		return nil, 0, c.fault(op, err)
	}
	var out []forge.Repo
	for _, r := range list {
		if r.GetID() == 0 || r.GetFullName() == "" {
			return nil, 0, wire.Incomplete(op)
		}
		if !r.GetArchived() {
			out = append(out, forge.Repo{Instance: c.instance, ID: r.GetID(), Name: r.GetFullName(), Installation: installation, Private: r.GetPrivate()})
		}
	}
	return out, res.NextPage, nil
}

// Updated lists pull requests in any state, updated last first, back to since: 1 call a page.
func (c *Client) Updated(ctx context.Context, repo forge.Repo, since time.Time, page int) ([]repair.Pull, int, error) {
	// Without a direction GitHub lists this order ascending.
	list, next, err := c.pulls(ctx, repo, &gh.PullRequestListOptions{State: "all", Sort: "updated", Direction: "desc", ListOptions: gh.ListOptions{Page: page, PerPage: wire.Page}})
	if i := slices.IndexFunc(list, func(p repair.Pull) bool { return p.UpdatedAt.Before(since) }); i >= 0 {
		list, next = list[:i], 0
	}
	return list, next, err
}

// Open lists open pull requests, oldest first: 1 call a page.
func (c *Client) Open(ctx context.Context, repo forge.Repo, page int) ([]repair.Pull, int, error) {
	return c.pulls(ctx, repo, &gh.PullRequestListOptions{State: "open", Sort: "created", Direction: "asc", ListOptions: gh.ListOptions{Page: page, PerPage: wire.Page}})
}

func (c *Client) pulls(ctx context.Context, repo forge.Repo, o *gh.PullRequestListOptions) ([]repair.Pull, int, error) {
	const op = "list pull requests"
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return nil, 0, err
	}
	list, res, err := client.PullRequests.List(ctx, owner, name, o)
	if err != nil {
		return nil, 0, c.fault(op, err)
	}
	var out []repair.Pull
	for _, p := range list {
		base := p.GetBase().GetRepo()
		switch {
		case p.GetNumber() <= 0, base.GetID() == 0, base.GetFullName() == "", p.GetState() == "", p.GetUpdatedAt().IsZero(), p.GetCreatedAt().IsZero():
			return nil, 0, wire.Incomplete(op)
		case repo.ID != 0 && base.GetID() != repo.ID:
			return nil, 0, &forge.Fault{Class: forge.NotFound, Op: op, Status: http.StatusNotFound, Err: errors.New("the name belongs to another repository now")}
		}
		out = append(out, repair.Pull{
			Ref: forge.Ref{Number: p.GetNumber(), Repo: forge.Repo{
				Instance: c.instance, ID: base.GetID(), Name: base.GetFullName(), Installation: repo.Installation, Private: base.GetPrivate(),
			}},
			Open: p.GetState() == "open", CreatedAt: p.GetCreatedAt().Time, UpdatedAt: p.GetUpdatedAt().Time,
		})
	}
	return out, res.NextPage, nil
}

// logPages bounds one call of Failed, in pages of wire.Page attempts.
const logPages = 10

// Failed reads the App's delivery log, or those of the repository's hooks that are ours: 1 call for 100 attempts, with
// a token 1 more for the hooks. A hook is ours if it sends to our path: /webhooks/ and the instance's name.
//
// GitHub's own filter for failures goes by status codes of answers and is not used: what was never answered has none.
func (c *Client) Failed(ctx context.Context, repo forge.Repo, since time.Time, from string) ([]repair.Delivery, string, error) {
	const op = "read the delivery log"
	hooks, read, err := c.logs(ctx, repo)
	if err == nil && len(hooks) == 0 {
		return nil, "", &repair.NoLog{Why: "no webhook of the repository sends to " + hookPath(c.instance)}
	}
	if err != nil {
		return nil, "", noLog(err)
	}
	at, cursor, _ := strings.Cut(from, ":")
	arrived := map[string]bool{}
	var failed []repair.Delivery
	pages := 0
	for _, hook := range hooks {
		id := strconv.FormatInt(hook, 10)
		if at != "" && at != id {
			continue // taken before
		}
		at = ""
		for more := true; more; {
			if pages++; pages > logPages {
				return unarrived(failed, arrived), id + ":" + cursor, nil
			}
			list, res, err := read(ctx, hook, &gh.ListCursorOptions{PerPage: wire.Page, Cursor: cursor})
			if err != nil {
				return nil, "", noLog(c.fault(op, err))
			}
			cursor = res.Cursor
			more = cursor != ""
			for _, d := range list {
				if d.GetGUID() == "" || d.GetID() == 0 || d.GetDeliveredAt().IsZero() {
					return nil, "", wire.Incomplete(op)
				}
				if d.GetDeliveredAt().Before(since) {
					more, cursor = false, ""
					break
				}
				if code := d.GetStatusCode(); code >= 200 && code < 300 {
					arrived[d.GetGUID()] = true
					continue
				}
				if !slices.ContainsFunc(failed, func(x repair.Delivery) bool { return x.GUID == d.GetGUID() }) {
					failed = append(failed, repair.Delivery{GUID: d.GetGUID(), Event: d.GetEvent(), Hook: hook, ID: d.GetID(), At: d.GetDeliveredAt().Time})
				}
			}
		}
		cursor = ""
	}
	return unarrived(failed, arrived), "", nil
}

func unarrived(failed []repair.Delivery, arrived map[string]bool) []repair.Delivery {
	return slices.DeleteFunc(failed, func(d repair.Delivery) bool { return arrived[d.GUID] })
}

// noLog turns "there is none" and "you may not see it" into the state that they are.
func noLog(err error) error {
	f := forge.Classify(err)
	if f.Class != forge.Contention && (f.Status == http.StatusNotFound || f.Status == http.StatusForbidden) {
		return &repair.NoLog{Why: f.Error()}
	}
	return err
}

type readLog func(context.Context, int64, *gh.ListCursorOptions) ([]*gh.HookDelivery, *gh.Response, error)

// logs are the hooks to look at, 0 being the App's, and how their logs are read.
func (c *Client) logs(ctx context.Context, repo forge.Repo) ([]int64, readLog, error) {
	if c.app != nil {
		return []int64{0}, func(ctx context.Context, _ int64, o *gh.ListCursorOptions) ([]*gh.HookDelivery, *gh.Response, error) {
			return c.app.Apps.ListHookDeliveries(ctx, o)
		}, nil
	}
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return nil, nil, err
	}
	list, _, err := client.Repositories.ListHooks(ctx, owner, name, &gh.ListOptions{PerPage: wire.Page})
	if err != nil {
		return nil, nil, c.fault("list webhooks", err)
	}
	var ids []int64
	for _, h := range list {
		if c.ours(h) {
			ids = append(ids, h.GetID())
		}
	}
	return ids, func(ctx context.Context, id int64, o *gh.ListCursorOptions) ([]*gh.HookDelivery, *gh.Response, error) {
		return client.Repositories.ListHookDeliveries(ctx, owner, name, id, o)
	}, nil
}

func hookPath(instance string) string { return "/webhooks/" + instance }

// ours says whether a hook sends to us: other tools' deliveries are none of our business.
func (c *Client) ours(h *gh.Hook) bool {
	u, err := url.Parse(h.GetConfig().GetURL())
	return err == nil && h.GetID() != 0 && strings.HasSuffix(strings.TrimSuffix(u.Path, "/"), hookPath(c.instance))
}

// Redeliver asks for one delivery again: 1 call.
func (c *Client) Redeliver(ctx context.Context, repo forge.Repo, d repair.Delivery) error {
	var err error
	if c.app != nil {
		_, _, err = c.app.Apps.RedeliverHookDelivery(ctx, d.ID)
	} else {
		client, owner, name, e := c.on(ctx, repo)
		if e != nil {
			return e
		}
		_, _, err = client.Repositories.RedeliverHookDelivery(ctx, owner, name, d.Hook, d.ID)
	}
	if accepted := (*gh.AcceptedError)(nil); errors.As(err, &accepted) {
		return nil
	}
	return c.fault("ask for a delivery again", err)
}
