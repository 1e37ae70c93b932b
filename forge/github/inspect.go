package github

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// What follows is read for `signalbox check` only, by a person who waits: one call each unless said otherwise.

// Rights is what a credential may do.
type Rights struct {
	// Permissions of an App's installation, "checks": "write"; nil with a token.
	Permissions map[string]string
	Events      []string // the App's webhook sends
	// Scopes of a classic token. Fine says that it is a token of another kind, which does not tell.
	Scopes []string
	Fine   bool
}

// Rights reads what we may do on a repository.
func (c *Client) Rights(ctx context.Context, repo forge.Repo) (Rights, error) {
	const op = "read our rights"
	if c.app == nil {
		_, res, err := c.token.Users.Get(ctx, "")
		if err != nil {
			return Rights{}, c.fault(op, err)
		}
		r := Rights{Fine: res.Header.Values("X-Oauth-Scopes") == nil}
		for _, s := range strings.Split(res.Header.Get("X-Oauth-Scopes"), ",") {
			if s = strings.TrimSpace(s); s != "" {
				r.Scopes = append(r.Scopes, s)
			}
		}
		return r, nil
	}
	owner, name, ok := strings.Cut(repo.Name, "/")
	if !ok || !plain(owner) || !plain(name) {
		return Rights{}, wire.Permanent(op, errName)
	}
	i, _, err := c.app.Apps.FindRepositoryInstallation(ctx, owner, name)
	if err != nil {
		return Rights{}, c.fault(op, err)
	}
	r := Rights{Events: i.Events}
	b, err := json.Marshal(i.Permissions)
	if err == nil {
		err = json.Unmarshal(b, &r.Permissions)
	}
	if err != nil {
		return Rights{}, wire.Incomplete(op)
	}
	return r, nil
}

// Webhook is how a webhook that sends to us is set.
type Webhook struct {
	URL         string
	ContentType string
	Secret      bool // it has one
	Insecure    bool // it does not verify certificates
	Active      bool
	Events      []string // nil for an App's: Rights has them
	Ours        bool     // its path is the one we serve
}

// Webhooks reads the App's webhook, or with a token those of the repository.
func (c *Client) Webhooks(ctx context.Context, repo forge.Repo) ([]Webhook, error) {
	const op = "read webhooks"
	if c.app != nil {
		config, _, err := c.app.Apps.GetHookConfig(ctx)
		if err != nil {
			return nil, c.fault(op, err)
		}
		return []Webhook{c.webhook(&gh.Hook{ID: gh.Int64(1), Active: gh.Bool(true), Config: config})}, nil
	}
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return nil, err
	}
	list, _, err := client.Repositories.ListHooks(ctx, owner, name, &gh.ListOptions{PerPage: wire.Page})
	if err != nil {
		return nil, c.fault(op, err)
	}
	var out []Webhook
	for _, h := range list {
		out = append(out, c.webhook(h))
	}
	return out, nil
}

func (c *Client) webhook(h *gh.Hook) Webhook {
	at := h.GetConfig()
	return Webhook{
		URL: at.GetURL(), ContentType: at.GetContentType(), Secret: at.GetSecret() != "", Insecure: at.GetInsecureSSL() == "1",
		Active: h.GetActive(), Events: h.Events, Ours: c.ours(h),
	}
}

// Named finds a repository by its name; branch is the default one.
func (c *Client) Named(ctx context.Context, repo forge.Repo) (found forge.Repo, branch string, err error) {
	const op = "read the repository"
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return forge.Repo{}, "", err
	}
	r, _, err := client.Repositories.Get(ctx, owner, name)
	switch {
	case err != nil:
		return forge.Repo{}, "", c.fault(op, err)
	case r.GetID() == 0 || r.GetFullName() == "" || r.GetDefaultBranch() == "":
		return forge.Repo{}, "", wire.Incomplete(op)
	}
	repo.Instance, repo.ID, repo.Name, repo.Private = c.instance, r.GetID(), r.GetFullName(), r.GetPrivate()
	return repo, r.GetDefaultBranch(), nil
}

// HasLabel says whether the repository knows a label.
func (c *Client) HasLabel(ctx context.Context, repo forge.Repo, label string) (bool, error) {
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return false, err
	}
	at, ok := segment(label)
	if !ok {
		return false, wire.Permanent("read the label", errors.New("no label has this name"))
	}
	_, _, err = client.Issues.GetLabel(ctx, owner, name, at)
	err = c.fault("read the label", err)
	if wire.NotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// MakeLabel creates a label.
func (c *Client) MakeLabel(ctx context.Context, repo forge.Repo, label string) error {
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return err
	}
	_, _, err = client.Issues.CreateLabel(ctx, owner, name, &gh.Label{
		Name: &label, Color: gh.String("0e8a16"), Description: gh.String("CI may run the newest commit of this pull request"),
	})
	return c.fault("create the label", err)
}

// Protection is what a branch asks of a pull request.
type Protection struct {
	Required   []Required
	MergeQueue bool
}

// Required is one required check. App is who must write it; 0 = anybody may.
type Required struct {
	Name string
	App  int64
}

// Protection reads rulesets and the older branch protection of a branch: 2 calls.
func (c *Client) Protection(ctx context.Context, repo forge.Repo, branch string) (Protection, error) {
	const op = "read the branch's protection"
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return Protection{}, err
	}
	at, ok := segment(branch)
	if !ok {
		return Protection{}, wire.Permanent(op, errors.New("no branch has this name"))
	}
	read := func(path string, v any) error {
		req, err := client.NewRequest(http.MethodGet, "repos/"+url.PathEscape(owner)+"/"+url.PathEscape(name)+path, nil)
		if err != nil {
			return wire.Permanent(op, errName)
		}
		_, err = client.Do(ctx, req, v)
		return c.fault(op, err)
	}
	var p Protection
	var rules []struct {
		Type       string `json:"type"`
		Parameters struct {
			Checks []struct {
				Context string `json:"context"`
				App     int64  `json:"integration_id"`
			} `json:"required_status_checks"`
		} `json:"parameters"`
	}
	// Where rulesets are not offered (older Enterprise Servers, free private repositories) there are none.
	if err := read("/rules/branches/"+at+"?per_page=100", &rules); err != nil && !wire.NotFound(err) && forge.Classify(err).Status != http.StatusForbidden {
		return Protection{}, err
	}
	for _, r := range rules {
		p.MergeQueue = p.MergeQueue || r.Type == "merge_queue"
		for _, x := range r.Parameters.Checks {
			p.Required = append(p.Required, Required{x.Context, max(x.App, 0)})
		}
	}
	var old struct {
		Protection struct {
			Checks struct {
				Checks []struct {
					Context string `json:"context"`
					App     int64  `json:"app_id"` // null or -1: anybody
				} `json:"checks"`
			} `json:"required_status_checks"`
		} `json:"protection"`
	}
	if err := read("/branches/"+at, &old); err != nil {
		return Protection{}, err
	}
	for _, x := range old.Protection.Checks.Checks {
		p.Required = append(p.Required, Required{x.Context, max(x.App, 0)})
	}
	return p, nil
}

// ForkApproval reads whose workflow runs Actions holds back until somebody approves them, in GitHub's words:
// "all_external_contributors" is what actions_approval needs.
func (c *Client) ForkApproval(ctx context.Context, repo forge.Repo) (string, error) {
	const op = "read the approval policy of Actions"
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return "", err
	}
	req, err := client.NewRequest(http.MethodGet, "repos/"+url.PathEscape(owner)+"/"+url.PathEscape(name)+"/actions/permissions/fork-pr-contributor-approval", nil)
	if err != nil {
		return "", wire.Permanent(op, errName)
	}
	var v struct {
		Policy string `json:"approval_policy"`
	}
	if _, err := client.Do(ctx, req, &v); err != nil {
		return "", c.fault(op, err)
	}
	if v.Policy == "" {
		return "", wire.Incomplete(op)
	}
	return v.Policy, nil
}

// RecentBots counts the pull requests that bots opened, among the 100 newest, by login.
func (c *Client) RecentBots(ctx context.Context, repo forge.Repo) (map[string]int, error) {
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return nil, err
	}
	list, _, err := client.PullRequests.List(ctx, owner, name, &gh.PullRequestListOptions{State: "all", ListOptions: gh.ListOptions{PerPage: wire.Page}})
	if err != nil {
		return nil, c.fault("list pull requests", err)
	}
	bots := map[string]int{}
	for _, p := range list {
		if a := actor(p.User); a.Bot {
			bots[a.Login]++
		}
	}
	return bots, nil
}
