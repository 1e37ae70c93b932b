package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlab"
)

// gitlabExamination looks at a GitLab.
type gitlabExamination struct {
	*examination
	c *gitlab.Client
}

// Access levels of GitLab.
const (
	developerLevel  = 30
	maintainerLevel = 40
)

// expiresSoon is when somebody should think of the next token.
const expiresSoon = 14 * 24 * time.Hour

func (x *gitlabExamination) credential(ctx context.Context, me forge.Actor, bot bool) {
	const mend = "use a project access token with the role Developer and the scope api: code of merge requests gets its account's job token"
	switch {
	case !bot:
		x.found.add(isWarning, x.at.Name, "the token is a person's", mend)
	case strings.HasPrefix(me.Login, "group_"):
		x.found.add(isWarning, x.at.Name, "the token is a group's, good for every project of it", mend)
	}
	t, err := x.c.Token(ctx)
	switch {
	case err != nil:
		x.unread(x.at.Name, "what the token may do", err, "see to it that it has the scope api")
	case !slices.Contains(t.Scopes, "api"):
		x.found.add(isFailure, x.at.Name, "the token lacks the scope api", mend)
	case !t.Expires.IsZero() && time.Until(t.Expires) < expiresSoon:
		x.found.add(isWarning, x.at.Name, "the token expires on "+t.Expires.Format(time.DateOnly), "make the next one, and restart with it")
	default:
		x.found.add(isFine, x.at.Name, "the token has the scope it needs", "")
	}
}

// repo looks at one project.
func (x *gitlabExamination) repo(ctx context.Context, r forge.Repo) {
	where := x.at.Name + ":" + r.Name
	found, set, err := x.c.Named(ctx, r)
	if err != nil {
		x.found.add(isFailure, where, "it cannot be seen: "+err.Error(), "make the token in this project")
		return
	}
	r, where = found, x.at.Name+":"+found.Name
	gate := x.cfg.Gate(r)
	pipelines := slices.ContainsFunc(gate.Triggers, func(t Trigger) bool { return t.Kind == GitLabPipeline })
	x.allowed(r, where)
	x.role(where, set.Level)
	x.merging(where, set, pipelines)
	if pipelines {
		x.pipelines(where, set)
	}
	x.webhook(ctx, r, where)
	x.label(ctx, r, where, gate)
	x.runners(ctx, r, where, set.Branch, gate)
	x.bots(ctx, r, where, gate)
}

func (x *gitlabExamination) role(where string, level int) {
	switch {
	case level < developerLevel:
		x.found.add(isFailure, where, fmt.Sprintf("our access level is %d, and Developer (%d) is needed", level, developerLevel), "make the token anew with the role Developer")
	case level > developerLevel:
		x.found.add(isWarning, where, fmt.Sprintf("our access level is %d, more than Developer (%d): code of merge requests gets our job token", level, developerLevel),
			"use the role Developer; a Maintainer's token is only needed for Signalbox to see that the webhook was disabled")
	default:
		x.found.add(isFine, where, "our role is Developer", "")
	}
}

// setting tells of a setting that should be want; a nil is one that we are not told of.
func (x *gitlabExamination) setting(where, name string, is *bool, want bool, severity, wrong, mend string) {
	switch {
	case is == nil:
		x.found.add(isWarning, where, "GitLab does not tell us of the setting "+name, "see to it by hand: "+mend)
	case *is != want:
		x.found.add(severity, where, wrong, mend)
	default:
		x.found.add(isFine, where, fmt.Sprintf("%s is %t", name, want), "")
	}
}

// merging looks at what keeps a merge request from being merged. The gate itself blocks nothing at GitLab.
func (x *gitlabExamination) merging(where string, set gitlab.Settings, pipelines bool) {
	severity := isWarning // there may be another rule, which is not for us to see
	if pipelines {
		severity = isFailure
	}
	x.setting(where, "only_allow_merge_if_pipeline_succeeds", set.MustSucceed, true, severity,
		"merge requests can be merged without a pipeline that succeeded", "Settings → Merge requests: Pipelines must succeed")
	if set.MustSucceed != nil && *set.MustSucceed {
		x.setting(where, "allow_merge_on_skipped_pipeline", set.SkippedSucceeds, false, severity,
			"a skipped pipeline counts as one that succeeded", "Settings → Merge requests: take off Skipped pipelines are considered successful")
	}
}

// pipelines looks at what gitlab_pipeline builds on.
func (x *gitlabExamination) pipelines(where string, set gitlab.Settings) {
	x.setting(where, "ci_allow_fork_pipelines_to_run_in_parent_project", set.ForkPipelines, true, isFailure,
		"pipelines of forks may not run in this project: nothing can be started", "Settings → CI/CD → General pipelines: let pipelines of forks run in this project")
	if set.MergedResults != nil { // not every GitLab has them
		x.setting(where, "merge_pipelines_enabled", set.MergedResults, false, isFailure,
			"merged results pipelines run a commit that nobody approved: each is cancelled", "Settings → Merge requests: take off Enable merged results pipelines")
	}
	if set.Cancel != "" && set.Cancel != "developer" && (set.Cancel != "maintainer" || set.Level <= developerLevel) { // not every GitLab has it
		x.found.add(isFailure, where, "we may not cancel pipelines: what is approved no more would run on", "Settings → CI/CD → General pipelines: let Developers cancel pipelines and jobs")
	}
	const mend = "keep it elsewhere: Settings → CI/CD → General pipelines → CI/CD configuration file: .gitlab-ci.yml@group/ci"
	switch path := set.ConfigPath; {
	case path == nil:
		x.found.add(isWarning, where, "GitLab does not tell us where the CI configuration file is", mend)
	case !strings.Contains(*path, "@") && !strings.Contains(*path, "://"):
		x.found.add(isWarning, where, "the CI configuration file is in the project: a fork's branch can rewrite it", mend)
	default:
		x.found.add(isFine, where, "the CI configuration file is elsewhere", "")
	}
}

func (x *gitlabExamination) webhook(ctx context.Context, r forge.Repo, where string) {
	path := "/webhooks/" + x.at.Name
	hooks, err := x.c.Webhooks(ctx, r)
	if err != nil {
		x.unread(where, "the webhook", err, "only Maintainers see it: look at Settings → Webhooks by hand, also whether GitLab has disabled it")
		return
	}
	if len(hooks) == 0 {
		x.found.add(isFailure, where, "no webhook of the project sends to "+path, "add one to https://YOUR-HOST"+path+", unless a group above has it")
		return
	}
	for _, h := range hooks {
		secret, signed := h.Secret != nil && *h.Secret, h.Signed != nil && *h.Signed
		x.hooked(where, h.URL, h.Insecure, "is on and sends what it must", func(bad func(what, mend string)) {
			for _, e := range h.Missing {
				bad("does not send "+e, "tick the event in its settings")
			}
			switch {
			case h.Disabled:
				bad("is disabled after failures: what happens meanwhile is only found by the sweep", "mend what it failed of, then send a test from its settings")
			case signed && len(x.at.SigningTokens) == 0:
				bad("is signed, and we have no signing token: every delivery is refused", "set SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN to its signing token")
			case !signed && secret && len(x.at.WebhookSecrets) == 0:
				bad("has a secret token only, and we have none: every delivery is refused", "set SIGNALBOX_GITLAB_WEBHOOK_SECRET to it, or give the webhook our signing token")
			case !signed && h.Secret != nil && !secret:
				bad("has neither a secret nor a signing token: every delivery is refused", "set one in its settings")
			}
		})
	}
}
