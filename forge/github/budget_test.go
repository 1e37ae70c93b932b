package github

import (
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// TestBudget holds the table in the package's documentation: what each fact and effect costs once the process is
// warm (the installation is known, its token fetched, Self asked).
func TestBudget(t *testing.T) {
	shape := regexp.MustCompile(`/([0-9a-f]{40}|[0-9]{6,})`)
	token, app := tokenWorld(t), appWorld(t)
	for name, w := range map[string]*world{"token": token, "App": app} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			w.forge.AddTeam("acme", "crew", w.maintainer)
			pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
			ref, gate := w.ref(pr), w.check(pr.Head())
			live, err := w.Pull(ctx, ref)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err = w.Self(ctx); err != nil {
				t.Fatal(err)
			}
			run := w.run(pr)
			run.HeadRepoID = live.Head.RepoID
			workflow := w.workflow(t)
			var receipt forge.Receipt
			var id string
			trusts := func(kind, value string) func() error {
				return func() error {
					_, err := w.Trusted(ctx, w.where(), who(w.maintainer), forge.Rule{Kind: kind, Value: value})
					return err
				}
			}
			find := func() error { _, _, err := w.FindCheck(ctx, gate); return err }
			update := []string{"GET /check-runs/{id}", "PATCH /check-runs/{id}"}
			create, look := "POST /check-runs", "GET /commits/{sha}/check-runs"
			if name == "token" {
				update, create, look = []string{"POST /statuses/{sha}"}, "POST /statuses/{sha}", "GET /commits/{sha}/statuses"
			}
			for _, step := range []struct {
				what string
				do   func() error
				want []string
			}{
				{"pull", func() error { _, err := w.Pull(ctx, ref); return err }, []string{"GET /pulls/1"}},
				{"history", func() error { _, err := w.LabelHistory(ctx, ref); return err }, []string{"GET /issues/1/events"}},
				{"permission", trusts("permission", "write"), []string{"GET /collaborators/maria/permission"}},
				{"team", trusts("team", "acme/crew"), []string{"GET /user/{id}", "GET /orgs/acme/teams/crew/memberships/maria"}},
				{"user", trusts("user", "maria"), []string{"GET /users/maria"}},
				{"app", func() error {
					_, err := w.Trusted(ctx, w.where(), forge.Actor{ID: 5, Bot: true}, forge.Rule{Kind: "app", Value: "dependabot"})
					return err
				}, []string{"GET /users/dependabot[bot]"}},
				{"bot by permission", func() error {
					_, err := w.Trusted(ctx, w.where(), forge.Actor{ID: 5, Bot: true}, forge.Rule{Kind: "permission", Value: "write"})
					return err
				}, nil},
				{"label", func() error { return w.SetLabel(ctx, ref, "CICD", true) }, []string{"POST /issues/1/labels"}},
				{"unlabel", func() error { return w.SetLabel(ctx, ref, "CICD", false) }, []string{"DELETE /issues/1/labels/CICD"}},
				{"create check", func() (err error) {
					id, err = w.WriteCheck(ctx, forge.Check{
						Repo: w.where(), SHA: pr.Head(), Name: "presubmit", ExternalID: key, State: forge.CheckQueued,
					})
					return err
				}, []string{create}},
				{"update check", func() error {
					_, err := w.WriteCheck(ctx, forge.Check{
						Repo: w.where(), SHA: pr.Head(), Name: "presubmit", ExternalID: key, State: forge.CheckRunning, ID: id,
					})
					return err
				}, update},
				{"complete check", func() error {
					_, err := w.WriteCheck(ctx, forge.Check{
						Repo: w.where(), SHA: pr.Head(), Name: "presubmit", ExternalID: key, State: forge.CheckSuccess, ID: id,
					})
					return err
				}, update[len(update)-1:]},
				{"find check", find, []string{look}},
				{"client's status", func() error {
					_, err := w.WriteStatus(ctx, w.clients(pr.Head(), "run-1", forge.StatusRunning))
					return err
				}, []string{create}},
				{"find client's status", func() error {
					_, _, err := w.FindStatus(ctx, w.clients(pr.Head(), "run-1", forge.StatusRunning))
					return err
				}, []string{look}},
				{"start", func() (err error) { receipt, err = workflow.Start(ctx, run); return err }, []string{"POST /actions/workflows/presubmit.yml/dispatches"}},
				{"find run", func() error { _, _, err := workflow.(prmanager.Finder).Find(ctx, run); return err }, []string{"GET /actions/workflows/presubmit.yml/runs"}},
				{"cancel", func() error { return workflow.Cancel(ctx, run, receipt) }, []string{"POST /actions/runs/{id}/cancel"}},
				{"dispatch", func() error { _, err := w.Dispatch().Start(ctx, run); return err }, []string{"POST /dispatches"}},
				{"find dispatched", func() error { _, _, err := w.Dispatch().Find(ctx, run); return err }, []string{"GET /actions/runs"}},
				{"approve", func() error { _, err := w.Approval().Start(ctx, run); return err }, []string{"GET /actions/runs", "POST /actions/runs/{id}/approve"}},
				{"approve nothing", func() error { _, err := w.Approval().Start(ctx, run); return err }, []string{"GET /actions/runs"}},
			} {
				got := w.calls(t, func() {
					if err := step.do(); err != nil {
						t.Errorf("%s: %v", step.what, err)
					}
				})
				for i := range got {
					got[i] = shape.ReplaceAllStringFunc(got[i], func(s string) string {
						if len(s) == 41 {
							return "/{sha}"
						}
						return "/{id}"
					})
				}
				if !slices.Equal(got, step.want) {
					t.Errorf("%s: %s", step.what, cmp.Diff(step.want, got))
				}
			}
		})
	}
}
