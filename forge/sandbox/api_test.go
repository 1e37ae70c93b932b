package sandbox_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func TestWhoAsks(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()

	_, _, err := s.as("").Users.Get(ctx, "")
	refused(t, err, 401, "Requires authentication")
	_, _, err = s.as("guessed").Users.Get(ctx, "")
	refused(t, err, 401, "Bad credentials")
	me, res, err := s.as(s.alice.Token).Users.Get(ctx, "")
	check(t, err)
	equal(t, "login", me.GetLogin(), "alice")
	if res.Rate.Limit != 5000 || res.Rate.Remaining != 4999 || res.Header.Get("X-Github-Request-Id") == "" {
		t.Errorf("headers %v", res.Header)
	}
	_, _, err = s.asApp().Users.Get(ctx, "")
	refused(t, err, 403, "Resource not accessible by integration")

	app, _, err := s.as(s.jwt(nil)).Apps.Get(ctx, "")
	check(t, err)
	equal(t, "app", app.GetID(), s.app.ID)
	bot, _, err := s.asApp().Users.Get(ctx, "signalbox[bot]")
	check(t, err)
	equal(t, "bot", bot.GetID(), s.app.Bot.ID)
	equal(t, "type", bot.GetType(), "Bot")
	found, _, err := s.as(s.jwt(nil)).Apps.FindRepositoryInstallation(ctx, "acme", "widget")
	check(t, err)
	equal(t, "installation", found.GetID(), s.install.ID)
	all, _, err := s.as(s.jwt(nil)).Apps.ListInstallations(ctx, nil)
	check(t, err)
	equal(t, "installations", len(all), 1)
	repos, _, err := s.asApp().Apps.ListRepos(ctx, nil)
	check(t, err)
	equal(t, "repositories", repos.GetTotalCount(), 1)

	for name, token := range map[string]string{
		"a person's":   s.alice.Token,
		"expired":      s.jwt(func(c *jwt.RegisteredClaims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(-time.Minute)) }),
		"another's":    s.jwt(func(c *jwt.RegisteredClaims) { c.Issuer = "1" }),
		"not the key":  strings.TrimRight(s.jwt(nil), "=") + "x",
		"for too long": s.jwt(func(c *jwt.RegisteredClaims) { c.ExpiresAt = jwt.NewNumericDate(time.Now().Add(time.Hour)) }),
	} {
		_, res, err := s.as(token).Apps.Get(ctx, "")
		if err == nil || res.StatusCode != http.StatusUnauthorized {
			t.Errorf("%s token was answered %v", name, res.Status)
		}
	}
	other := s.AddRepo("acme/other", sandbox.RepoOptions{Private: true})
	_, _, err = s.as(s.jwt(nil)).Apps.FindRepositoryInstallation(ctx, "acme", "other")
	refused(t, err, 404, "Not Found")
	_, _, err = s.asApp().Repositories.Get(ctx, "acme", "other")
	refused(t, err, 404, "Not Found")
	_, _, err = s.as(s.mallory.Token).Repositories.Get(ctx, "acme", "other")
	refused(t, err, 404, "Not Found")
	other.SetPermission(s.mallory, "read")
	_, _, err = s.as(s.mallory.Token).Repositories.Get(ctx, "acme", "other")
	check(t, err)
}

// An installation on a whole account sees the repositories to come, and no other account's.
func TestInstallAll(t *testing.T) {
	s := newStage(t)
	s.install = s.app.InstallAll(s.mallory)
	api := s.asApp()
	added := s.AddRepo("mallory/added", sandbox.RepoOptions{Private: true})
	_, _, err := api.Repositories.Get(t.Context(), "mallory", "added")
	check(t, err)
	s.AddRepo("acme/secret", sandbox.RepoOptions{Private: true})
	_, _, err = api.Repositories.Get(t.Context(), "acme", "secret")
	refused(t, err, 404, "Not Found")
	found, _, err := s.as(s.jwt(nil)).Apps.FindRepositoryInstallation(t.Context(), "mallory", "added")
	check(t, err)
	equal(t, "installation of "+added.Name(), found.GetID(), s.install.ID)
}

func TestInstallationTokenExpires(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(t, err)
	synctest.Test(t, func(t *testing.T) {
		f := sandbox.New(sandbox.Options{})
		app := f.AddApp(sandbox.AppOptions{Slug: "a", Owner: "acme", Key: &key.PublicKey})
		install := app.Install(f.AddRepo("acme/widget", sandbox.RepoOptions{}))
		s := &stage{t: t, app: app, key: key}
		ask := func(method, path, token string, v any) int {
			r := httptest.NewRequest(method, path, http.NoBody)
			r.Header.Set("Authorization", "Bearer "+token)
			w := httptest.NewRecorder()
			f.ServeHTTP(w, r)
			check(t, json.Unmarshal(w.Body.Bytes(), v))
			return w.Code
		}
		var made struct{ Token string }
		equal(t, "made", ask("POST", fmt.Sprintf("/app/installations/%d/access_tokens", install.ID), s.jwt(nil), &made), 201)
		<-time.After(59 * time.Minute)
		equal(t, "before", ask("GET", "/repos/acme/widget", made.Token, &struct{}{}), 200)
		<-time.After(time.Minute)
		equal(t, "after", ask("GET", "/repos/acme/widget", made.Token, &struct{}{}), 401)
	})
}

// A token may be asked for that sees less and may do less than its installation, and for nothing more.
func TestInstallationTokenOfOneRepository(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	secret, other := s.AddRepo("acme/secret", sandbox.RepoOptions{Private: true}), s.AddRepo("acme/other", sandbox.RepoOptions{Private: true})
	install := s.app.Install(s.repo, secret, other)
	ask := func(perms *github.InstallationPermissions, ids ...int64) (string, error) {
		got, _, err := s.as(s.jwt(nil)).Apps.CreateInstallationToken(ctx, install.ID, &github.InstallationTokenOptions{RepositoryIDs: ids, Permissions: perms})
		return got.GetToken(), err
	}
	token, err := ask(&github.InstallationPermissions{Contents: github.String("read"), Metadata: github.String("read")}, secret.ID)
	check(t, err)
	api := s.as(token)
	_, _, err = api.Repositories.Get(ctx, "acme", "secret")
	check(t, err)
	_, _, err = api.Repositories.Get(ctx, "acme", "other")
	refused(t, err, 404, "Not Found")
	_, _, err = api.PullRequests.Get(ctx, "acme", "secret", 1)
	refused(t, err, 403, "Resource not accessible by integration")
	_, err = ask(nil, s.AddRepo("elsewhere/x", sandbox.RepoOptions{}).ID)
	refused(t, err, 422, "There is at least one repository that does not exist or is not accessible to the parent installation.")
	_, err = ask(&github.InstallationPermissions{Administration: github.String("read")})
	refused(t, err, 422, "The permissions requested are not granted to this installation.")
}

func TestLoginReused(t *testing.T) {
	s := newStage(t)
	s.alice.Rename("alice-moved")
	thief := s.AddUser("alice")
	api := s.as(s.owner.Token)
	got, _, err := api.Repositories.GetPermissionLevel(t.Context(), "acme", "widget", "alice")
	check(t, err)
	equal(t, "id behind the login", got.GetUser().GetID(), thief.ID)
	equal(t, "permission", got.GetPermission(), "read")
	got, _, err = api.Repositories.GetPermissionLevel(t.Context(), "acme", "widget", "alice-moved")
	check(t, err)
	equal(t, "permission", got.GetPermission(), "write")
	u, _, err := api.Users.GetByID(t.Context(), s.alice.ID)
	check(t, err)
	equal(t, "login", u.GetLogin(), "alice-moved")
}

func TestDeletedAccount(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	s.pr.Label(s.mallory, "CICD")
	s.mallory.Delete()
	s.described.quiet.Store(true) // GitHub's description does not know that authors and actors can be null
	events, _, err := api.Issues.ListIssueEvents(ctx, "acme", "widget", 1, nil)
	check(t, err)
	p, _, err := api.PullRequests.Get(ctx, "acme", "widget", 1)
	check(t, err)
	if events[0].Actor != nil || p.User != nil {
		t.Error("a deleted account is still shown")
	}
	_, _, err = api.Users.Get(ctx, "mallory")
	refused(t, err, 404, "Not Found")
	_, _, err = s.as(s.mallory.Token).Users.Get(ctx, "")
	refused(t, err, 401, "Bad credentials")
}

// An App may do what its permissions say, where it is installed, and read what is public elsewhere.
func TestAppPermissions(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	reader := s.AddApp(sandbox.AppOptions{Slug: "reader", Owner: "acme", Key: &s.key.PublicKey, Permissions: map[string]string{
		"metadata": "read", "checks": "read",
	}})
	elsewhere := s.AddRepo("other/thing", sandbox.RepoOptions{})
	elsewhere.OpenPR(s.alice, sandbox.PROptions{})
	s.app, s.install = reader, reader.Install(s.repo)
	api := s.asApp()
	_, _, err := api.Checks.ListCheckRunsForRef(ctx, "acme", "widget", "main", nil)
	check(t, err)
	_, _, err = api.PullRequests.Get(ctx, "other", "thing", 1)
	check(t, err)
	denied := "Resource not accessible by integration"
	_, _, err = api.Checks.CreateCheckRun(ctx, "acme", "widget", github.CreateCheckRunOptions{Name: "x", HeadSHA: s.repo.Tip("main")})
	refused(t, err, 403, denied)
	_, _, err = api.Issues.ListLabelsByIssue(ctx, "acme", "widget", 1, nil)
	refused(t, err, 403, denied)
	_, _, err = api.Issues.AddLabelsToIssue(ctx, "other", "thing", 1, []string{"CICD"})
	refused(t, err, 403, denied)
	_, _, err = api.Repositories.GetPermissionLevel(ctx, "other", "thing", "alice")
	refused(t, err, 403, denied)
	_, _, err = api.Teams.GetTeamMembershipBySlug(ctx, "acme", "none", "alice")
	refused(t, err, 404, "Not Found")
}

func TestPermission(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	for role, want := range map[string]string{
		"admin": "admin", "maintain": "write", "write": "write", "triage": "read", "read": "read", "": "read",
	} {
		s.repo.SetPermission(s.alice, role)
		got, _, err := s.asApp().Repositories.GetPermissionLevel(ctx, "acme", "widget", "alice")
		check(t, err)
		equal(t, "permission of "+role, got.GetPermission(), want)
		equal(t, "name of "+role, got.GetRoleName(), map[bool]string{true: "read", false: role}[role == ""])
	}
	_, _, err := s.as(s.mallory.Token).Repositories.GetPermissionLevel(ctx, "acme", "widget", "alice")
	refused(t, err, 403, "Must have push access to view collaborator permission.")
	_, _, err = s.asApp().Repositories.GetPermissionLevel(ctx, "acme", "widget", "nobody")
	refused(t, err, 404, "nobody is not a user")

	team := s.AddTeam("acme", "reviewers", s.alice)
	got, _, err := s.asApp().Teams.GetTeamMembershipBySlug(ctx, "acme", "reviewers", "alice")
	check(t, err)
	equal(t, "state", got.GetState(), "active")
	team.SetMember(s.alice, "pending")
	members, _, err := s.asApp().Teams.ListTeamMembersBySlug(ctx, "acme", "reviewers", nil)
	check(t, err)
	equal(t, "active members", len(members), 0)
	_, _, err = s.asApp().Teams.GetTeamMembershipBySlug(ctx, "acme", "reviewers", "mallory")
	refused(t, err, 404, "Not Found")
}

func TestPulls(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()

	first := s.pr.Head()
	p, _, err := api.PullRequests.Get(ctx, "acme", "widget", 1)
	check(t, err)
	equal(t, "head", p.GetHead().GetSHA(), first)
	equal(t, "head repo", p.GetHead().GetRepo().GetFullName(), "mallory/widget")
	equal(t, "base", p.GetBase().GetRef(), "main")
	equal(t, "base sha", p.GetBase().GetSHA(), s.repo.Tip("main"))
	equal(t, "updated", p.GetUpdatedAt().String(), "2026-11-21 09:00:00 +0000 UTC")

	s.clock.add(time.Minute)
	second := s.pr.Push(s.mallory)
	s.pr.Lag(1)
	p, _, err = api.PullRequests.Get(ctx, "acme", "widget", 1)
	check(t, err)
	equal(t, "lagging head", p.GetHead().GetSHA(), first)
	s.pr.Lag(0)
	p, _, err = api.PullRequests.Get(ctx, "acme", "widget", 1)
	check(t, err)
	equal(t, "head", p.GetHead().GetSHA(), second)
	equal(t, "updated", p.GetUpdatedAt().Second(), 0)

	draft := s.repo.OpenPR(s.alice, sandbox.PROptions{Draft: true, Base: "release"})
	s.clock.add(time.Minute)
	s.pr.Label(s.alice, "CICD")
	list := func(o github.PullRequestListOptions) (numbers []int) {
		t.Helper()
		found, _, err := api.PullRequests.List(ctx, "acme", "widget", &o)
		check(t, err)
		for _, p := range found {
			numbers = append(numbers, p.GetNumber())
		}
		return numbers
	}
	equal(t, "by creation", cmp.Diff(list(github.PullRequestListOptions{}), []int{2, 1}), "")
	equal(t, "by update", cmp.Diff(list(github.PullRequestListOptions{Sort: "updated", Direction: "desc"}), []int{1, 2}), "")
	equal(t, "by base", cmp.Diff(list(github.PullRequestListOptions{Base: "release"}), []int{2}), "")
	equal(t, "the order of updates begins with the oldest", cmp.Diff(list(github.PullRequestListOptions{Sort: "updated"}), []int{2, 1}), "")
	draft.Close(s.alice)
	equal(t, "closed", cmp.Diff(list(github.PullRequestListOptions{State: "closed"}), []int{2}), "")
	equal(t, "all", cmp.Diff(list(github.PullRequestListOptions{State: "all"}), []int{2, 1}), "")

	since := s.Seq()
	edited, _, err := api.PullRequests.Edit(ctx, "acme", "widget", 1, &github.PullRequest{
		Title: github.String("Better"), Body: github.String("Much."), State: github.String("closed"),
	})
	check(t, err)
	equal(t, "state", edited.GetState(), "closed")
	equal(t, "deliveries", cmp.Diff(s.story(since), []string{
		"pull_request.edited signalbox[bot]", "pull_request.edited signalbox[bot]", "pull_request.closed signalbox[bot]",
	}), "")
	_, _, err = api.PullRequests.Edit(ctx, "acme", "widget", 1, &github.PullRequest{Base: &github.PullRequestBranch{Ref: github.String("gone")}})
	e := refused(t, err, 422, "Validation Failed")
	equal(t, "field", e[0].Field, "base")
	_, _, err = api.PullRequests.Get(ctx, "acme", "widget", 99)
	refused(t, err, 404, "Not Found")

	s.pr.DeleteFork()
	p, _, err = api.PullRequests.Get(ctx, "acme", "widget", 1)
	check(t, err)
	if p.GetHead().Repo != nil {
		t.Error("a deleted fork is still shown")
	}
}

func TestHeads(t *testing.T) {
	s := newStage(t)
	a := s.pr.Head()
	b := s.pr.Push(s.mallory)
	s.pr.ForcePush(s.mallory, a)
	equal(t, "A→B→A", s.pr.Head(), a)
	s.pr.Close(s.mallory)
	c := s.pr.Push(s.mallory)
	equal(t, "a closed one keeps its head", s.pr.Head(), a)
	s.pr.Reopen(s.alice)
	equal(t, "reopened", s.pr.Head(), c)
	if a == b || len(a) != 40 {
		t.Errorf("SHAs %q and %q", a, b)
	}
	second := s.repo.OpenPR(s.alice, sandbox.PROptions{SHA: c})
	equal(t, "same commit", second.Head(), c)
	main := s.repo.Tip("main")
	second.Merge(s.alice)
	if s.repo.Tip("main") == main {
		t.Error("merging moved nothing")
	}
	second.Reopen(s.alice)
	p, _, err := s.asApp().PullRequests.Get(t.Context(), "acme", "widget", 2)
	check(t, err)
	if !p.GetMerged() || p.GetState() != "closed" || p.GetMergedBy().GetLogin() != "alice" {
		t.Errorf("merged: %v", p)
	}
	// The same seed makes the same world.
	x, y := sandbox.New(sandbox.Options{Seed: "a"}), sandbox.New(sandbox.Options{Seed: "a"})
	equal(t, "SHA", x.AddRepo("a/b", sandbox.RepoOptions{}).Tip("main"), y.AddRepo("a/b", sandbox.RepoOptions{}).Tip("main"))
}

func TestLabels(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()

	since := s.Seq()
	s.pr.Label(s.alice, "cicd") // GitHub's labels ignore case
	s.clock.add(time.Minute)
	_, _, err := api.Issues.AddLabelsToIssue(ctx, "acme", "widget", 1, []string{"CICD", "brand new"})
	check(t, err)
	_, err = api.Issues.RemoveLabelForIssue(ctx, "acme", "widget", 1, "CICD")
	check(t, err)
	_, err = api.Issues.RemoveLabelForIssue(ctx, "acme", "widget", 1, "CICD")
	refused(t, err, 404, "Label does not exist")
	_, err = api.Issues.RemoveLabelForIssue(ctx, "acme", "widget", 77, "CICD")
	refused(t, err, 404, "Not Found")
	equal(t, "deliveries", cmp.Diff(s.story(since), []string{
		"pull_request.labeled alice", "pull_request.labeled signalbox[bot]", "pull_request.unlabeled signalbox[bot]",
	}), "")
	names := func(labels []*github.Label) (out []string) {
		for _, l := range labels {
			out = append(out, l.GetName())
		}
		return out
	}
	left, _, err := api.Issues.ListLabelsByIssue(ctx, "acme", "widget", 1, nil)
	check(t, err)
	equal(t, "labels", cmp.Diff(names(left), []string{"brand new"}), "")
	equal(t, "labels", cmp.Diff(s.pr.Labels(), []string{"brand new"}), "")
	var wrote []string
	for _, w := range s.Writes(since) {
		wrote = append(wrote, w.Kind+" "+w.Name+" "+w.Actor)
	}
	equal(t, "writes", cmp.Diff(wrote, []string{"label brand new signalbox[bot]", "unlabel CICD signalbox[bot]"}), "")

	events, _, err := api.Issues.ListIssueEvents(ctx, "acme", "widget", 1, nil)
	check(t, err)
	var history []string
	var last int64
	for _, e := range events {
		if e.GetID() <= last {
			t.Errorf("event ids do not grow: %d after %d", e.GetID(), last)
		}
		last = e.GetID()
		history = append(history, e.GetEvent()+" "+e.GetLabel().GetName()+" "+e.GetActor().GetLogin()+" "+e.GetCreatedAt().Format(time.TimeOnly))
	}
	equal(t, "history", cmp.Diff(history, []string{
		"labeled CICD alice 09:00:00", "labeled brand new signalbox[bot] 09:01:00", "unlabeled CICD signalbox[bot] 09:01:00",
	}), "")
	if events[0].GetActor().GetID() != s.alice.ID || events[1].PerformedViaGithubApp.GetID() != s.app.ID {
		t.Error("the history does not say who it was")
	}

	_, _, err = s.as(s.mallory.Token).Issues.AddLabelsToIssue(ctx, "acme", "widget", 1, []string{"CICD"})
	refused(t, err, 403, "Must have admin rights to Repository.")
	_, _, err = api.Issues.AddLabelsToIssue(ctx, "acme", "widget", 1, []string{strings.Repeat("x", 51)})
	refused(t, err, 422, "Validation Failed")
	_, _, err = api.Issues.CreateLabel(ctx, "acme", "widget", &github.Label{Name: github.String("cicd")})
	e := refused(t, err, 422, "Validation Failed")
	equal(t, "code", e[0].Code, "already_exists")
	_, _, err = api.Issues.CreateLabel(ctx, "acme", "widget", &github.Label{Color: github.String("ffffff")})
	e = refused(t, err, 422, "Validation Failed")
	equal(t, "code", e[0].Code, "missing_field")
	_, _, err = api.Issues.GetLabel(ctx, "acme", "widget", "none")
	refused(t, err, 404, "Not Found")
	got, _, err := api.Issues.GetLabel(ctx, "acme", "widget", "cicd")
	check(t, err)
	equal(t, "name", got.GetName(), "CICD")
	all, _, err := api.Issues.ListLabels(ctx, "acme", "widget", nil)
	check(t, err)
	equal(t, "repository's labels", len(all), 2)
}

func TestTimelineAndPages(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	s.pr.Push(s.mallory)
	s.pr.ForcePush(s.mallory, s.repo.Tip("main"))
	s.pr.Comment(s.alice, "/ok-to-test")
	s.pr.Retitle(s.mallory, "Another")
	s.pr.Close(s.mallory)
	s.pr.Reopen(s.mallory)
	var kinds []string
	opt := &github.ListOptions{PerPage: 3}
	pages := 0
	for {
		events, res, err := api.Issues.ListIssueTimeline(ctx, "acme", "widget", 1, opt)
		check(t, err)
		pages++
		for _, e := range events {
			kinds = append(kinds, e.GetEvent())
		}
		if res.NextPage == 0 {
			equal(t, "first page", res.FirstPage, 1)
			break
		}
		equal(t, "last page", res.LastPage, 3)
		opt.Page = res.NextPage
	}
	equal(t, "pages", pages, 3)
	equal(t, "timeline", cmp.Diff(kinds, []string{
		"committed", "committed", "head_ref_force_pushed", "commented", "renamed", "closed", "reopened",
	}), "")
	comments, _, err := api.Issues.ListComments(ctx, "acme", "widget", 1, nil)
	check(t, err)
	equal(t, "comment", comments[0].GetBody(), "/ok-to-test")
	_, _, err = api.Issues.CreateComment(ctx, "acme", "widget", 1, &github.IssueComment{Body: github.String("Done.")})
	check(t, err)
	_, _, err = api.Issues.CreateComment(ctx, "acme", "widget", 1, &github.IssueComment{})
	refused(t, err, 422, "Validation Failed")
}

func TestBranches(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	tip := s.repo.Advance(s.alice, "release")
	b, _, err := api.Repositories.GetBranch(ctx, "acme", "widget", "release", 0)
	check(t, err)
	equal(t, "branch", b.GetCommit().GetSHA(), tip)
	ref, _, err := api.Git.GetRef(ctx, "acme", "widget", "heads/release")
	check(t, err)
	equal(t, "ref", ref.GetObject().GetSHA(), tip)
	c, _, err := api.Repositories.GetCommit(ctx, "acme", "widget", "release", nil)
	check(t, err)
	equal(t, "commit", c.GetSHA(), tip)
	c, _, err = api.Repositories.GetCommit(ctx, "acme", "widget", s.pr.Head(), nil)
	check(t, err)
	equal(t, "a fork's commit", c.GetSHA(), s.pr.Head())
	_, _, err = api.Git.GetRef(ctx, "acme", "widget", "heads/none")
	refused(t, err, 404, "Not Found")
	_, _, err = api.Repositories.GetBranch(ctx, "acme", "widget", "none", 0)
	if err == nil {
		t.Error("a branch that is not there was answered")
	}
	_, _, err = api.Repositories.GetCommit(ctx, "acme", "widget", "none", nil)
	refused(t, err, 422, "No commit found for SHA: none")
}

func TestChecks(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.asApp()
	sha := s.pr.Head()
	shut := github.CreateCheckRunOptions{
		Name: "CI gate", HeadSHA: sha, Status: github.String("completed"), Conclusion: github.String("action_required"),
		ExternalID: github.String("gate:1"), Output: &github.CheckRunOutput{Title: github.String("Awaiting"), Summary: github.String("…")},
		Actions: []*github.CheckRunAction{{Label: "Approve this commit", Description: "Runs it", Identifier: "approve"}},
	}
	x, _, err := api.Checks.CreateCheckRun(ctx, "acme", "widget", shut)
	check(t, err)
	equal(t, "conclusion", x.GetConclusion(), "action_required")
	equal(t, "gate", s.repo.Gate(sha, "CI gate"), "action_required")
	open := shut
	open.Conclusion, open.Actions = github.String("success"), nil
	y, _, err := api.Checks.CreateCheckRun(ctx, "acme", "widget", open)
	check(t, err)
	equal(t, "gate", s.repo.Gate(sha, "CI gate"), "success")
	for filter, want := range map[string]int{"latest": 1, "all": 2, "": 1} {
		got, _, err := api.Checks.ListCheckRunsForRef(ctx, "acme", "widget", sha, &github.ListCheckRunsOptions{
			CheckName: github.String("CI gate"), Filter: github.String(filter),
		})
		check(t, err)
		equal(t, "filter "+filter, got.GetTotal(), want)
		equal(t, "newest first", got.CheckRuns[0].GetID(), y.GetID())
	}
	// A completed run is never un-completed; its conclusion can change.
	z, _, err := api.Checks.UpdateCheckRun(ctx, "acme", "widget", y.GetID(), github.UpdateCheckRunOptions{Name: "CI gate", Status: github.String("in_progress")})
	check(t, err)
	equal(t, "status", z.GetStatus(), "completed")
	z, _, err = api.Checks.UpdateCheckRun(ctx, "acme", "widget", y.GetID(), github.UpdateCheckRunOptions{Name: "CI gate", Conclusion: github.String("cancelled")})
	check(t, err)
	equal(t, "conclusion", z.GetConclusion(), "cancelled")
	got, _, err := api.Checks.GetCheckRun(ctx, "acme", "widget", x.GetID())
	check(t, err)
	equal(t, "external id", got.GetExternalID(), "gate:1")

	s.clock.add(time.Second)
	since := s.Seq()
	equal(t, "the newest has no button", s.repo.Check(sha, "CI gate").ClickAction(s.alice, "approve"), false)

	queued := github.CreateCheckRunOptions{Name: "presubmit", HeadSHA: sha, Status: github.String("queued"), Actions: []*github.CheckRunAction{
		{Label: "Retry", Description: "Runs it again", Identifier: "retry"},
	}}
	q, _, err := api.Checks.CreateCheckRun(ctx, "acme", "widget", queued)
	check(t, err)
	equal(t, "gate", s.repo.Gate(sha, "presubmit"), "queued")
	equal(t, "buttons show on completed runs only", s.repo.Check(sha, "presubmit").ClickAction(s.alice, "retry"), false)
	_, _, err = api.Checks.UpdateCheckRun(ctx, "acme", "widget", q.GetID(), github.UpdateCheckRunOptions{Name: "presubmit", Conclusion: github.String("failure")})
	check(t, err)
	s.repo.Check(sha, "presubmit").RequestRerun(s.alice)
	equal(t, "deliveries", cmp.Diff(s.story(since), []string{
		"check_run.created signalbox[bot]", "check_run.completed signalbox[bot]", "check_run.rerequested alice",
	}), "")

	// What people ask of a check is told to its own App only, and nobody else may change it.
	s.repo.AddHook(secret, "*")
	other := s.AddApp(sandbox.AppOptions{Slug: "other", Owner: "acme", Key: &s.key.PublicKey})
	mine, installed := s.app, s.install
	s.app, s.install = other, other.Install(s.repo)
	stranger := s.asApp()
	s.app, s.install = mine, installed
	_, _, err = stranger.Checks.UpdateCheckRun(ctx, "acme", "widget", q.GetID(), github.UpdateCheckRunOptions{Name: "presubmit"})
	refused(t, err, 403, fmt.Sprintf("Invalid app_id `%d` - check run can only be modified by the GitHub App that created it.", other.ID))
	since = s.Seq()
	s.repo.Check(sha, "presubmit").RequestRerun(s.alice)
	equal(t, "told", len(s.story(since)), 1)
	s.AddRepo("acme/elsewhere", sandbox.RepoOptions{}).OpenPR(s.alice, sandbox.PROptions{})
	equal(t, "a hook hears of its own repository only", len(s.story(since)), 1)

	for name, bad := range map[string]github.CreateCheckRunOptions{
		"no name":       {HeadSHA: sha},
		"no SHA":        {Name: "x"},
		"unknown SHA":   {Name: "x", HeadSHA: strings.Repeat("0", 40)},
		"bad status":    {Name: "x", HeadSHA: sha, Status: github.String("done")},
		"bad end":       {Name: "x", HeadSHA: sha, Conclusion: github.String("fine")},
		"no conclusion": {Name: "x", HeadSHA: sha, Status: github.String("completed")},
		"half a text":   {Name: "x", HeadSHA: sha, Output: &github.CheckRunOutput{Title: github.String("x")}},
		"long text":     {Name: "x", HeadSHA: sha, Output: &github.CheckRunOutput{Title: github.String("x"), Summary: github.String(strings.Repeat("x", 65536))}},
		"long button":   {Name: "x", HeadSHA: sha, Actions: []*github.CheckRunAction{{Label: strings.Repeat("x", 21), Description: "x", Identifier: "x"}}},
		"four buttons":  {Name: "x", HeadSHA: sha, Actions: make([]*github.CheckRunAction, 4)},
	} {
		_, res, err := api.Checks.CreateCheckRun(ctx, "acme", "widget", bad)
		if err == nil || res.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, _, err = s.as(s.owner.Token).Checks.CreateCheckRun(ctx, "acme", "widget", shut)
	refused(t, err, 403, "You must authenticate via a GitHub App.")
	_, _, err = s.as(s.owner.Token).Checks.GetCheckRun(ctx, "acme", "widget", x.GetID())
	check(t, err)
}

func TestStatuses(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.as(s.owner.Token)
	sha := s.pr.Head()
	post := func(state, name, about string) error {
		_, _, err := api.Repositories.CreateStatus(ctx, "acme", "widget", sha, &github.RepoStatus{
			State: github.String(state), Context: github.String(name), Description: github.String(about), TargetURL: github.String("https://ci.invalid/1"),
		})
		return err
	}
	check(t, post("pending", "CI gate", "Awaiting"))
	check(t, post("success", "CI gate", "Approved"))
	check(t, post("failure", "other", ""))
	equal(t, "gate", s.repo.Gate(sha, "CI gate"), "success")
	list, _, err := api.Repositories.ListStatuses(ctx, "acme", "widget", sha, nil)
	check(t, err)
	equal(t, "statuses", len(list), 3)
	equal(t, "newest first", list[0].GetContext(), "other")
	equal(t, "creator", list[1].GetCreator().GetLogin(), "olivia")
	all, _, err := api.Repositories.GetCombinedStatus(ctx, "acme", "widget", sha, nil)
	check(t, err)
	equal(t, "combined", all.GetState(), "failure")
	equal(t, "contexts", all.GetTotalCount(), 2)
	e := refused(t, post("success", "CI gate", strings.Repeat("é", 141)), 422, "Validation Failed")
	equal(t, "problem", e[0].Message, "description is too long (maximum is 140 characters)")
	check(t, post("success", "CI gate", strings.Repeat("é", 140)))
	refused(t, post("green", "CI gate", ""), 422, "Validation Failed")
	_, _, err = api.Repositories.CreateStatus(ctx, "acme", "widget", strings.Repeat("0", 40), &github.RepoStatus{State: github.String("success")})
	refused(t, err, 422, "No commit found for SHA: "+strings.Repeat("0", 40))
	_, _, err = s.as(s.mallory.Token).Repositories.CreateStatus(ctx, "acme", "widget", sha, &github.RepoStatus{State: github.String("success")})
	refused(t, err, 404, "Not Found")
}

func TestStatusCap(t *testing.T) {
	s := newStage(t)
	api := s.as(s.owner.Token)
	for range 1000 {
		_, _, err := api.Repositories.CreateStatus(t.Context(), "acme", "widget", s.pr.Head(), &github.RepoStatus{State: github.String("pending")})
		check(t, err)
	}
	_, _, err := api.Repositories.CreateStatus(t.Context(), "acme", "widget", s.pr.Head(), &github.RepoStatus{State: github.String("success")})
	e := refused(t, err, 422, "Validation Failed")
	equal(t, "problem", e[0].Message, "This SHA and context has reached the maximum number of statuses.")
}

func TestUpdateBranch(t *testing.T) {
	s := newStage(t)
	before, base := s.pr.Head(), s.repo.Advance(s.alice, "main")
	merged, _, err := s.asApp().Repositories.GetCommit(t.Context(), "acme", "widget", s.pr.UpdateBranch(s.alice), nil)
	check(t, err)
	equal(t, "parents", merged.Parents[0].GetSHA()+" "+merged.Parents[1].GetSHA(), before+" "+base)
	last := s.Deliveries()[len(s.Deliveries())-3] // before the two of the held run
	var body struct{ Before, After string }
	check(t, json.Unmarshal(last.Body, &body))
	equal(t, "before and after", body.Before+" "+body.After, before+" "+merged.GetSHA())
}

func TestBadBodies(t *testing.T) {
	s := newStage(t)
	for body, want := range map[string]int{
		`{"state":`: 400, `{"state": 7}`: 422, ``: 422, strings.Repeat(" ", 2<<20): 413,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/repos/acme/widget/statuses/"+s.pr.Head(), strings.NewReader(body))
		check(t, err)
		req.Header.Set("Authorization", "token "+s.owner.Token)
		s.described.quiet.Store(want == 413) // GitHub answers that one before its API does
		res, err := (&http.Client{}).Do(req)
		check(t, err)
		check(t, res.Body.Close())
		equal(t, fmt.Sprintf("%.20q", body), res.StatusCode, want)
	}
}

func TestGitHubEnterprisePaths(t *testing.T) {
	s := newStage(t)
	for _, base := range []string{"/", "/api/v3/"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.url+base+"repos/acme/widget/issues/1/labels/a%2Fb%20c", nil)
		check(t, err)
		req.Header.Set("Authorization", "token "+s.owner.Token)
		s.pr.Label(s.alice, "a/b c")
		res, err := (&http.Client{}).Do(req)
		check(t, err)
		check(t, res.Body.Close())
		equal(t, base, res.StatusCode, 200)
	}
	calls := s.Calls(0)
	equal(t, "path", calls[0].Path, calls[1].Path)
	equal(t, "actor", calls[0].Actor, "olivia")
}
