package main

import (
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// town is one repository of a federation, its people, and who may approve there.
type town struct {
	repo                     *sandbox.Repo
	me, mallory, writer, may *sandbox.User // may approves; writer may write, which is not enough where a team decides
	pr                       *sandbox.PR
}

// One server gates two organisations of one GitHub, each with an installation of its own and one with a team that
// decides, and an Enterprise Server behind a token. Ids of repositories and numbers of pull requests are the same on both
// forges: nothing of one may ever be taken for the other's.
func TestFederation(t *testing.T) {
	for _, path := range []string{"/api/v3", "/api/v3/"} {
		t.Run(path, func(t *testing.T) {
			y := &yard{t: t, dir: t.TempDir()}
			start := func(seed string) (*sandbox.Forge, string) {
				f := sandbox.New(sandbox.Options{Seed: seed, Clock: y.now, RateLimit: 1 << 20})
				api, err := f.Start()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = api.Close() })
				return f, api.URL
			}
			hub, hubURL := start("hub")
			corp, corpURL := start("corp")
			corp.SetFault(func(r *http.Request) *sandbox.Fault {
				if !strings.HasPrefix(r.RequestURI, "/api/v3/") {
					t.Errorf("%s is no address of an Enterprise Server", r.RequestURI)
				}
				return nil
			})
			y.forge = hub
			settle := func(f *sandbox.Forge, name string) town {
				x := town{me: f.AddUser("signalbox"), mallory: f.AddUser("mallory"), writer: f.AddUser("wanda"), may: f.AddUser("maya")}
				x.repo = f.AddRepo(name, sandbox.RepoOptions{Permissions: map[*sandbox.User]string{x.me: "admin", x.writer: "write", x.may: "write"}})
				return x
			}
			acme, plain := settle(hub, "acme/widgets"), settle(corp, "acme/widgets")
			beta := town{mallory: acme.mallory, writer: acme.writer, may: acme.may}
			beta.repo = hub.AddRepo("beta/gears", sandbox.RepoOptions{Permissions: map[*sandbox.User]string{acme.may: "write"}})
			if acme.repo.ID != plain.repo.ID {
				t.Fatalf("ids %d and %d: the forges are not alike", acme.repo.ID, plain.repo.ID)
			}
			crew := hub.AddTeam("acme", "crew", acme.may)
			crew.SetMember(acme.mallory, "pending")

			public, private := appKeys(t)
			y.key = private
			app := hub.AddApp(sandbox.AppOptions{Slug: "signalbox", Owner: "acme", Key: public, Secret: yardSecret})
			if a, b := app.Install(acme.repo), app.Install(beta.repo); a.ID == b.ID {
				t.Fatal("one installation for two organisations")
			}
			plain.repo.AddHook(yardSecret, "pull_request", "issue_comment", "workflow_run")
			y.file = `
forges:
  octocorp: {kind: github, api_url: "` + corpURL + path + `", token: ` + plain.me.Token + `, webhook_secret: ` + yardSecret + `}
repositories:
  github:acme/*: {trust: [team:acme/crew], auto: none}
`
			y.env = []string{
				"SIGNALBOX_STORE=file:" + filepath.Join(y.dir, "signalbox.db"), "SIGNALBOX_CONFIG=box.yaml", "SIGNALBOX_GITHUB_API_URL=" + hubURL,
				"SIGNALBOX_GITHUB_WEBHOOK_SECRET=" + yardSecret, "SIGNALBOX_GITHUB_APP_ID=" + strconv.FormatInt(app.ID, 10),
				"SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=app.pem",
			}
			y.up()
			corpSender := corp.NewSender(y.url + "/webhooks/octocorp")
			rest := func() {
				t.Helper()
				for range 4 {
					y.send()
					if err := corpSender.Flush(t.Context()); err != nil {
						t.Fatal(err)
					}
					y.settle()
				}
				y.later(3 * time.Minute)
			}
			towns := []*town{&acme, &beta, &plain}
			for _, x := range towns {
				x.pr = x.repo.OpenPR(x.mallory, sandbox.PROptions{Fork: true})
			}
			rest()
			// gates wants each gate open or shut, and the label to be its picture.
			gates := func(when string, open ...*town) {
				t.Helper()
				rest()
				for _, x := range towns {
					want := "action_required"
					if x == &plain {
						want = "pending"
					}
					if slices.Contains(open, x) {
						want = "success"
					}
					if got := x.repo.Gate(x.pr.Head(), "CI gate"); got != want {
						t.Errorf("%s: gate of %s is %q, want %q", when, x.repo.Name(), got, want)
					}
					if got := slices.Contains(x.pr.Labels(), "CICD"); got != (want == "success") {
						t.Errorf("%s: label on %s: %v", when, x.repo.Name(), got)
					}
				}
			}
			gates("opened")
			acme.pr.Label(acme.writer, "CICD")
			gates("labelled by one who may write, but is not of the team")
			acme.pr.Label(acme.mallory, "CICD")
			gates("labelled by one who is invited to the team")
			acme.pr.Label(acme.may, "CICD")
			gates("labelled by one of the team", &acme)
			plain.pr.Label(plain.writer, "CICD")
			gates("labelled on the other forge", &acme, &plain)
			beta.pr.Label(beta.writer, "CICD")
			gates("labelled by a stranger to the other organisation", &acme, &plain)
			beta.pr.Label(beta.may, "CICD")
			gates("labelled in the other organisation", &acme, &beta, &plain)
			crew.SetMember(acme.may, "")
			acme.pr.Push(acme.mallory)
			rest()
			acme.pr.Label(acme.may, "CICD")
			gates("labelled by one who has left the team", &beta, &plain)
			plain.pr.Close(plain.mallory)
			rest()
			if got := beta.repo.Gate(beta.pr.Head(), "CI gate"); got != "success" {
				t.Errorf("closing on one forge left the gate %q on the other", got)
			}
		})
	}
}
