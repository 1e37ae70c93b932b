package gitlab

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// What follows is read for `signalbox check` only, by a person who waits: one call each.

// Token is what our token may do, wherever its account has a role.
type Token struct {
	Scopes  []string
	Expires time.Time // a day; zero = never
}

// Token reads what our token may do.
func (c *Client) Token(ctx context.Context) (Token, error) {
	t, _, err := c.api.PersonalAccessTokens.GetSinglePersonalAccessToken(with(ctx))
	if err != nil {
		return Token{}, classify("read our token", err)
	}
	out := Token{Scopes: t.Scopes}
	if t.ExpiresAt != nil {
		out.Expires = time.Time(*t.ExpiresAt)
	}
	return out, nil
}

// Settings are how a project is set. A nil is what GitLab does not tell us: it has not that setting, or tells it to
// Maintainers only.
type Settings struct {
	Branch          string // the default one
	Level           int    // our role, as an access level; 0 = none
	ConfigPath      *string
	ForkPipelines   *bool  // pipelines of forks may run in the project
	MergedResults   *bool  // pipelines run on commits that GitLab makes up
	MustSucceed     *bool  // "Pipelines must succeed"
	SkippedSucceeds *bool  // to which a skipped one counts too
	Cancel          string // the role that may cancel pipelines: developer, maintainer, no_one; empty = not told
}

// Named finds a project by its name, and how it is set.
func (c *Client) Named(ctx context.Context, repo forge.Repo) (forge.Repo, Settings, error) {
	const op = "read the project"
	type access struct {
		Level int `json:"access_level"`
	}
	var v struct {
		ID          int64  `json:"id"`
		Path        string `json:"path_with_namespace"`
		Visibility  string `json:"visibility"`
		Branch      string `json:"default_branch"`
		Permissions struct {
			Project *access `json:"project_access"`
			Group   *access `json:"group_access"`
		} `json:"permissions"`
		ConfigPath      *string `json:"ci_config_path"`
		ForkPipelines   *bool   `json:"ci_allow_fork_pipelines_to_run_in_parent_project"`
		MergedResults   *bool   `json:"merge_pipelines_enabled"`
		MustSucceed     *bool   `json:"only_allow_merge_if_pipeline_succeeds"`
		SkippedSucceeds *bool   `json:"allow_merge_on_skipped_pipeline"`
		Cancel          string  `json:"ci_restrict_pipeline_cancellation_role"`
	}
	if err := c.read(ctx, op, repo, "", &v); err != nil {
		return forge.Repo{}, Settings{}, err
	}
	if v.ID == 0 || v.Path == "" {
		return forge.Repo{}, Settings{}, wire.Incomplete(op)
	}
	repo.Instance, repo.ID, repo.Name, repo.Private = c.instance, v.ID, v.Path, v.Visibility != string(gl.PublicVisibility)
	s := Settings{
		Branch: v.Branch, ConfigPath: v.ConfigPath, ForkPipelines: v.ForkPipelines, MergedResults: v.MergedResults,
		MustSucceed: v.MustSucceed, SkippedSucceeds: v.SkippedSucceeds, Cancel: v.Cancel,
	}
	for _, a := range []*access{v.Permissions.Project, v.Permissions.Group} {
		if a != nil {
			s.Level = max(s.Level, a.Level)
		}
	}
	return repo, s, nil
}

// Webhook is how a webhook that sends to us is set. A nil is what this GitLab does not tell.
type Webhook struct {
	URL            string
	Missing        []string // events that it does not send
	Secret, Signed *bool    // it has a secret token, a signing token
	Insecure       bool     // it does not verify certificates
	Disabled       bool     // GitLab has switched it off after failures, for now or for good
}

// executable is the status of a hook that GitLab calls.
const executable = "executable"

// Webhooks reads those of the project's webhooks that send to us, which takes a Maintainer. Those of groups are not seen.
func (c *Client) Webhooks(ctx context.Context, repo forge.Repo) ([]Webhook, error) {
	var list []struct {
		URL      string `json:"url"`
		Merges   bool   `json:"merge_requests_events"`
		Notes    bool   `json:"note_events"`
		Pipes    bool   `json:"pipeline_events"`
		Verifies *bool  `json:"enable_ssl_verification"`
		Status   string `json:"alert_status"`
		Secret   *bool  `json:"token_present"`
		Signed   *bool  `json:"signing_token_present"`
	}
	if err := c.read(ctx, "list webhooks", repo, fmt.Sprintf("/hooks?per_page=%d", wire.Page), &list); err != nil {
		return nil, err
	}
	var out []Webhook
	for _, h := range list {
		if !c.ours(h.URL) {
			continue
		}
		w := Webhook{
			URL: h.URL, Secret: h.Secret, Signed: h.Signed, Insecure: h.Verifies != nil && !*h.Verifies,
			Disabled: h.Status != "" && h.Status != executable,
		}
		for _, e := range []struct {
			name string
			sent bool
		}{{"Merge request events", h.Merges}, {"Comments", h.Notes}, {"Pipeline events", h.Pipes}} {
			if !e.sent {
				w.Missing = append(w.Missing, e.name)
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// read reads what client-go has no type for that tells "no" from "not told".
func (c *Client) read(ctx context.Context, op string, repo forge.Repo, path string, v any) error {
	pid, err := project(op, repo)
	if err != nil {
		return err
	}
	path, query, _ := strings.Cut(path, "?")
	req, err := c.api.NewRequest(http.MethodGet, "projects/"+gl.PathEscape(fmt.Sprint(pid))+path, nil, []gl.RequestOptionFunc{with(ctx)})
	if err != nil {
		return classify(op, err)
	}
	req.URL.RawQuery = query
	if _, err = c.api.Do(req, v); err != nil {
		return classify(op, err)
	}
	return nil
}

// HasLabel says whether the project, or a group above it, knows a label.
func (c *Client) HasLabel(ctx context.Context, repo forge.Repo, label string) (bool, error) {
	const op = "read the label"
	pid, err := project(op, repo)
	if err != nil {
		return false, err
	}
	if _, _, err = c.api.Labels.GetLabel(pid, label, with(ctx)); notThere(err) {
		return false, nil
	} else if err != nil {
		return false, classify(op, err)
	}
	return true, nil
}

// MakeLabel creates a label of the project.
func (c *Client) MakeLabel(ctx context.Context, repo forge.Repo, label string) error {
	const op = "create the label"
	pid, err := project(op, repo)
	if err != nil {
		return err
	}
	color, about := "#0e8a16", "CI may run the newest commit of this merge request"
	if _, _, err = c.api.Labels.CreateLabel(pid, &gl.CreateLabelOptions{Name: &label, Color: &color, Description: &about}, with(ctx)); err != nil {
		return classify(op, err)
	}
	return nil
}

// RecentBots counts the merge requests that bots opened, among the 100 newest, by login.
func (c *Client) RecentBots(ctx context.Context, repo forge.Repo) (map[string]int, error) {
	const op = "list merge requests"
	pid, err := project(op, repo)
	if err != nil {
		return nil, err
	}
	all := "all"
	list, _, err := c.api.MergeRequests.ListProjectMergeRequests(pid,
		&gl.ListProjectMergeRequestsOptions{State: &all, ListOptions: gl.ListOptions{PerPage: wire.Page}}, with(ctx))
	if err != nil {
		return nil, classify(op, err)
	}
	bots := map[string]int{}
	for _, m := range list {
		if m.Author != nil && botName.MatchString(m.Author.Username) {
			bots[m.Author.Username]++
		}
	}
	return bots, nil
}
