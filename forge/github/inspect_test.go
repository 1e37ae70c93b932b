package github

import (
	"slices"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// TestInspect reads everything that check looks at, each with as few calls as it says; newClient holds every request
// against GitHub's description.
func TestInspect(t *testing.T) {
	for name, w := range map[string]*world{"token": tokenWorld(t), "App": appWorld(t)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			if w.app == nil {
				w.repo.AddHook("s", "pull_request")
			}
			w.forge.NewSender("https://ci.example/webhooks/github")
			helper := w.forge.AddApp(sandbox.AppOptions{Slug: "helper", Owner: "acme"})
			w.repo.OpenPR(helper.Bot, sandbox.PROptions{})
			w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})

			repo, branch, err := w.Named(ctx, forge.Repo{Name: "Acme/Widgets"})
			if err != nil || repo != w.where() || branch != "main" {
				t.Errorf("%+v %q: %v", repo, branch, err)
			}
			rights, err := w.Rights(ctx, w.where())
			if app := w.app != nil; err != nil || app && rights.Permissions["checks"] != "write" || app && !slices.Contains(rights.Events, "pull_request") ||
				!app && (rights.Fine || !slices.Contains(rights.Scopes, "repo")) {
				t.Errorf("%+v: %v", rights, err)
			}
			hooks, err := w.Webhooks(ctx, w.where())
			if err != nil || len(hooks) != 1 || !hooks[0].Ours || !hooks[0].Active || hooks[0].ContentType != "json" || hooks[0].Secret != (w.app == nil) {
				t.Errorf("%+v: %v", hooks, err)
			}
			if has, err := w.HasLabel(ctx, w.where(), "CICD"); has || err != nil {
				t.Errorf("%v: %v", has, err)
			}
			if err := w.MakeLabel(ctx, w.where(), "CICD"); err != nil {
				t.Error(err)
			}
			if has, err := w.HasLabel(ctx, w.where(), "CICD"); !has || err != nil {
				t.Errorf("after creating it: %v: %v", has, err)
			}
			if p, err := w.Protection(ctx, w.where(), "main"); err != nil || p.MergeQueue || len(p.Required) != 0 {
				t.Errorf("%+v: %v", p, err)
			}
			if _, err := w.Protection(ctx, w.where(), ".."); classOf(t, err) != forge.Permanent {
				t.Error(err)
			}
			policy, err := w.ForkApproval(ctx, w.where())
			if w.app == nil && (err != nil || policy != "all_external_contributors") || w.app != nil && classOf(t, err) != forge.Auth {
				t.Errorf("%q: %v", policy, err)
			}
			if bots, err := w.RecentBots(ctx, w.where()); err != nil || len(bots) != 1 || bots["helper[bot]"] != 1 {
				t.Errorf("%v: %v", bots, err)
			}
		})
	}
}
