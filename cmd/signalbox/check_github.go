package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/github"
)

// githubExamination looks at a GitHub.
type githubExamination struct {
	*examination
	c    *github.Client
	hook forgeHook
}

func (x *githubExamination) credential() {
	if !x.app() {
		x.found.add(isWarning, x.at.Name, "with a token the gate is a commit status, which anyone with statuses: write can overwrite; there are no buttons, and no merge queue",
			"use a GitHub App: docs/operating.md lists its permissions")
	}
}

// events are those of the recipes that find somebody here.
func (x *githubExamination) events() []string {
	return slices.DeleteFunc([]string{"pull_request", "issue_comment", "check_run", "merge_group", "workflow_run"}, func(e string) bool { return !x.hook.Handles(e) })
}

// repo looks at one repository.
func (x *githubExamination) repo(ctx context.Context, r forge.Repo) {
	where := x.at.Name + ":" + r.Name
	found, branch, err := x.c.Named(ctx, r)
	if err != nil {
		x.found.add(isFailure, where, "it cannot be seen: "+err.Error(), "install the App on it, or give the token access")
		return
	}
	r, where = found, x.at.Name+":"+found.Name
	x.allowed(r, where)
	gate := x.cfg.Gate(r)
	queue := x.protection(ctx, r, where, branch, gate)
	x.rights(ctx, r, where, gate, queue)
	x.webhook(ctx, r, where)
	x.label(ctx, r, where, gate)
	x.approval(ctx, r, where, gate)
	x.workflows(ctx, r, where, branch, gate)
	x.runners(ctx, r, where, branch, gate)
	x.bots(ctx, r, where, gate)
}

func (x *githubExamination) protection(ctx context.Context, r forge.Repo, where, branch string, gate Gate) (queue bool) {
	p, err := x.c.Protection(ctx, r, branch)
	if err != nil {
		x.unread(where, "the protection of "+branch, err, "give the App Contents: read, the token access to the repository")
		return false
	}
	if p.MergeQueue && !x.app() {
		x.found.add(isFailure, where, branch+" has a merge queue, and with a token no check of a merge group can be written: nothing would ever merge",
			"use a GitHub App, or take the merge queue off")
	}
	names := []string{gate.Check}
	for _, t := range gate.Triggers {
		if t.Kind != ActionsApproval {
			names = append(names, gate.PresubmitName(t))
		}
	}
	for i, name := range names {
		x.required(where, branch, name, i == 0, p)
	}
	return p.MergeQueue
}

func (x *githubExamination) required(where, branch, name string, isGate bool, p github.Protection) {
	mend := "Settings → Rules → Rulesets: require " + quote(name) + " on " + branch
	if x.app() {
		mend += ", with our App as its source"
	}
	severity := isWarning
	if isGate {
		severity = isFailure
	}
	i := slices.IndexFunc(p.Required, func(q github.Required) bool { return q.Name == name })
	if i < 0 {
		x.found.add(severity, where, branch+" does not require the check "+quote(name)+": pull requests can be merged without it", mend)
		return
	}
	// Where several rules name it, one that pins it to us is enough, and one that pins it to somebody else spoils all.
	ours, others := false, false
	for _, q := range p.Required {
		if q.Name == name {
			ours = ours || q.App == x.at.AppID && x.app()
			others = others || q.App != 0 && q.App != x.at.AppID
		}
	}
	switch {
	case others:
		x.found.add(isFailure, where, "the required check "+quote(name)+" is pinned to another App: ours can never satisfy it", mend)
	case x.app() && !ours:
		x.found.add(isFailure, where, "the required check "+quote(name)+" is not pinned to our App: any workflow that may write checks or statuses can forge it", mend)
	default:
		x.found.add(isFine, where, branch+" requires the check "+quote(name), "")
	}
}

// rights compares what we may do with what the gate does.
func (x *githubExamination) rights(ctx context.Context, r forge.Repo, where string, gate Gate, queue bool) {
	have, err := x.c.Rights(ctx, r)
	if err != nil {
		x.unread(where, "what we may do", err, "")
		return
	}
	teams := slices.ContainsFunc(slices.Concat(gate.Trust, gate.Auto), func(r forge.Rule) bool { return r.Kind == "team" })
	if !x.app() {
		x.scopes(where, have, r.Private, teams)
		return
	}
	need := map[string]string{"metadata": "read", "pull_requests": "write", "checks": "write", "contents": "read"}
	for _, t := range gate.Triggers {
		switch t.Kind {
		case Workflow, ActionsApproval:
			need["actions"] = "write"
		case RepositoryDispatch:
			need["contents"] = "write"
		case HTTP, GitLabPipeline, Runner:
		}
	}
	if teams {
		need["members"] = "read"
	}
	if queue {
		need["merge_queues"] = "read"
	}
	before := len(x.found)
	for _, name := range slices.Sorted(maps.Keys(need)) {
		if got := have.Permissions[name]; got != need[name] && got != "write" && got != "admin" {
			x.found.add(isFailure, where, fmt.Sprintf("the App lacks the permission %s: %s", name, need[name]),
				"grant it in the App's settings, then accept it in the installation's")
		}
	}
	for _, e := range x.events() {
		if !slices.Contains(have.Events, e) && (e != "merge_group" || queue) {
			x.found.add(isFailure, where, "the App's webhook does not send "+e, "tick the event in the App's settings")
		}
	}
	if len(x.found) == before {
		x.found.add(isFine, where, "the App has every permission and event it needs", "")
	}
}

func (x *githubExamination) scopes(where string, have github.Rights, private, teams bool) {
	switch {
	case have.Fine:
		x.found.add(isWarning, where, "the token does not tell what it may do",
			"see to it that it has Pull requests, Commit statuses, Actions and Webhooks: read and write; Contents: read")
	case !slices.Contains(have.Scopes, "repo") && (private || !slices.Contains(have.Scopes, "public_repo")):
		x.found.add(isFailure, where, "the token lacks the scope repo", "make one that has it, or a fine-grained one")
	case teams && !slices.ContainsFunc(have.Scopes, func(s string) bool { return strings.HasSuffix(s, ":org") }):
		x.found.add(isFailure, where, "the token lacks the scope read:org, and the policy names a team", "make one that has it")
	default:
		x.found.add(isFine, where, "the token has the scopes it needs", "")
	}
}

func (x *githubExamination) webhook(ctx context.Context, r forge.Repo, where string) {
	list, err := x.c.Webhooks(ctx, r)
	if err != nil {
		x.unread(where, "the webhook", err, "without it there is no delivery log either: lost deliveries are only found by comparing; give the token Webhooks: read and write")
		return
	}
	path := "/webhooks/" + x.at.Name
	hooks := slices.DeleteFunc(slices.Clone(list), func(h github.Webhook) bool { return !h.Ours })
	if len(hooks) == 0 {
		x.found.add(isFailure, where, "no webhook sends to "+path, "set the address of the webhook to https://YOUR-HOST"+path)
		return
	}
	for _, h := range hooks {
		x.hooked(where, h.URL, h.Insecure, "is active, signed, and sends JSON", func(bad func(what, mend string)) {
			if !h.Active {
				bad("is switched off", "tick Active in its settings")
			}
			if h.ContentType != "json" {
				bad("sends forms", "set its content type to application/json")
			}
			if !h.Secret {
				bad("has no secret: every delivery is refused", "set it to SIGNALBOX_GITHUB_WEBHOOK_SECRET")
			}
			for _, e := range x.events() {
				if !x.app() && !slices.Contains(h.Events, e) && !slices.Contains(h.Events, "*") && e != "merge_group" && e != "check_run" {
					bad("does not send "+e, "tick the event in its settings")
				}
			}
		})
	}
}

// workflows looks whether GitHub would find what is to be dispatched: it must be on the default branch, too.
func (x *githubExamination) workflows(ctx context.Context, r forge.Repo, where, branch string, gate Gate) {
	for _, t := range gate.Triggers {
		if t.Kind != Workflow {
			continue
		}
		for _, at := range []string{branch, t.Ref} {
			file := ".github/workflows/" + t.File
			switch _, err := x.c.File(ctx, r, at, file); {
			case err != nil && forge.Classify(err).Class == forge.NotFound:
				x.found.add(isFailure, where, file+" is not on "+at+": no run can start", "docs/recipes/workflow-dispatch.md says where it stands")
			case err != nil:
				x.unread(where, file+" on "+at, err, "give us access to the repository's contents")
			default:
				x.found.add(isFine, where, file+" is on "+at, "")
			}
		}
	}
}

func (x *githubExamination) approval(ctx context.Context, r forge.Repo, where string, gate Gate) {
	if !slices.ContainsFunc(gate.Triggers, func(t Trigger) bool { return t.Kind == ActionsApproval }) {
		return
	}
	const all, mend = "all_external_contributors", "Settings → Actions → General: require approval for all external contributors"
	switch policy, err := x.c.ForkApproval(ctx, r); {
	case err != nil:
		x.unread(where, "the approval policy of Actions", err, mend+" (see to it by hand, or give us Administration: read)")
	case policy != all:
		x.found.add(isFailure, where, "Actions holds back runs by the policy "+policy+": others start without approval", mend)
	default:
		x.found.add(isFine, where, "Actions holds back the runs of all external contributors", "")
	}
}
