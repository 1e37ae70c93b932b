package gitlab

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/build"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/repair"
	"github.com/signalbox-ci/signalbox/status"
)

// recorded is the directory of what the client library has recorded of GitLab. It is read where the module lies: what
// others have recorded keeps us from believing our own fixtures.
func recorded(t testing.TB) string {
	t.Helper()
	p, err := build.Import("gitlab.com/gitlab-org/api/client-go/v2", ".", build.FindOnly)
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(p.Dir, "testdata")
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// deliveries are the recorded ones by file, with the event's header, which is not recorded, and what becomes of each:
// why nobody handles it, the field that refuses it, or its subject.
var deliveries = map[string]struct {
	event                      gl.EventType
	ignored, refused, to, flaw string
}{
	"build.json":                         {event: gl.EventTypeBuild, ignored: "no handler for build"},
	"deployment.json":                    {event: gl.EventTypeDeployment, ignored: "no handler for deployment"},
	"emoji_issue.json":                   {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"emoji_merge_request.json":           {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"emoji_note_commit.json":             {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"emoji_note_issue.json":              {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"emoji_note_merge_request.json":      {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"emoji_note_snippet.json":            {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"emoji_snippet.json":                 {event: gl.EventTypeEmoji, ignored: "no handler for emoji"},
	"feature_flag.json":                  {event: gl.EventTypeFeatureFlag, ignored: "no handler for feature_flag"},
	"group_merge_request.json":           {event: gl.EventTypeMergeRequest, refused: "project.id"}, // of 2016: its keys end in spaces
	"issue.json":                         {event: gl.EventTypeIssue, ignored: "no handler for issue"},
	"job.json":                           {event: gl.EventTypeJob, ignored: "no handler for job"},
	"member.json":                        {event: gl.EventTypeMember, ignored: "no handler for member"},
	"merge_request.json":                 {event: gl.EventTypeMergeRequest, to: "1/pr/1", flaw: "object_attributes.target_project_id: expected the id of the project"},
	"milestone_group.json":               {event: gl.EventTypeMilestone, ignored: "no handler for milestone"},
	"milestone_project.json":             {event: gl.EventTypeMilestone, ignored: "no handler for milestone"},
	"note_commit.json":                   {event: gl.EventTypeNote, ignored: "a note that is on no merge request"},
	"note_issue.json":                    {event: gl.EventTypeNote, ignored: "a note that is on no merge request"},
	"note_merge_request.json":            {event: gl.EventTypeNote, ignored: "a note without a command"},
	"note_snippet.json":                  {event: gl.EventTypeNote, ignored: "a note that is on no merge request"},
	"pipeline.json":                      {event: gl.EventTypePipeline, to: "1/commit/bcbb5ec396a2c0f828686f14fac9b80b780504f2"},
	"project.json":                       {event: gl.EventTypeProject, ignored: "no handler for project"},
	"push.json":                          {event: gl.EventTypePush, ignored: "no handler for push"},
	"release.json":                       {event: gl.EventTypeRelease, ignored: "no handler for release"},
	"resource_access_token_group.json":   {event: gl.EventTypeResourceAccessToken, ignored: "no handler for resource_access_token"},
	"resource_access_token_project.json": {event: gl.EventTypeResourceAccessToken, ignored: "no handler for resource_access_token"},
	"service_merge_request.json":         {event: gl.EventTypeMergeRequest, to: "2/pr/2"}, // integrations get what hooks get
	"subgroup.json":                      {event: gl.EventTypeSubGroup, ignored: "no handler for subgroup"},
	"tag_push.json":                      {event: gl.EventTypeTagPush, ignored: "no handler for tag_push"},
	"vulnerability.json":                 {event: gl.EventTypeVulnerability, ignored: "no handler for vulnerability"},
	"wiki_page.json":                     {event: gl.EventTypeWikiPage, ignored: "no handler for wiki_page"},
}

// forRecorded calls do with each recorded delivery, and fails if the library has others than we know of.
func forRecorded(t testing.TB, do func(name, event string, body []byte)) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(recorded(t), "webhooks", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the client library has no recorded deliveries: %v", err)
	}
	for _, file := range files {
		name := filepath.Base(file)
		if _, known := deliveries[name]; !known {
			t.Errorf("%s: say what becomes of it", name)
		}
		do(name, string(deliveries[name].event), readFile(t, file))
	}
	if len(files) < len(deliveries) {
		t.Errorf("%d recorded deliveries, expected %d", len(files), len(deliveries))
	}
}

func TestRoute_recorded(t *testing.T) {
	h := newHook(t)
	forRecorded(t, func(name, event string, body []byte) {
		want := deliveries[name]
		to, err := h.Route(headers("X-Gitlab-Event", event), body)
		var bad *forge.BadDelivery
		switch errors.As(err, &bad); {
		case (bad != nil) != (want.refused != "") || bad != nil && bad.Field != want.refused:
			t.Errorf("%s: %v, expected a refusal for %q", name, err, want.refused)
		case to.Ignored != want.ignored, to.Flaw != want.flaw:
			t.Errorf("%s: ignored %q, flaw %q", name, to.Ignored, to.Flaw)
		case want.to != "" && (strings.Join([]string{to.Project, to.Kind, to.Key}, "/") != want.to || (len(to.Body) == 0) != (want.flaw != "")):
			t.Errorf("%s: %+v", name, to)
		}
	})
}

// What is told of the whole server is nobody's, whatever it looks like.
func TestRoute_recordedOfSystem(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(recorded(t), "systemhooks", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("the client library has no recorded system hooks: %v", err)
	}
	for _, file := range files {
		to, err := newHook(t).Route(headers("X-Gitlab-Event", string(gl.EventTypeSystemHook)), readFile(t, file))
		if err != nil || to.Ignored != "no handler for system" {
			t.Errorf("%s: %+v, %v", filepath.Base(file), to, err)
		}
	}
}

// mail reads a recorded delivery that reaches somebody, with parts of its text exchanged.
func mail[T any](t *testing.T, name string, exchange ...string) (v T) {
	t.Helper()
	body := string(readFile(t, filepath.Join(recorded(t), "webhooks", name)))
	for i := 0; i < len(exchange); i += 2 {
		if !strings.Contains(body, exchange[i]) {
			t.Fatalf("%s has no %s", name, exchange[i])
		}
		body = strings.ReplaceAll(body, exchange[i], exchange[i+1])
	}
	to, err := newHook(t).Route(headers("X-Gitlab-Event", string(deliveries[name].event), "Idempotency-Key", "k"), []byte(body))
	if err != nil || to.Flaw != "" || to.Ignored != "" {
		t.Fatalf("%s: %+v, %v", name, to, err)
	}
	if err := json.Unmarshal(to.Body, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s: %s", what, d)
	}
}

func TestMail_recorded(t *testing.T) {
	at := func(s string) time.Time {
		u, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	test := forge.Actor{ID: 2, Login: "test"}
	repo := forge.Repo{Instance: "gitlab", ID: 2, Name: "test/woodpecker"}
	same(t, "push", prmanager.Note{
		Actions: []prmanager.Action{prmanager.ActionPushed}, Delivery: "k", Sender: test,
		After: "0ab96a10266b95b4b533dcfd98738015fbe70889",
		Pull: forge.Pull{
			Ref: forge.Ref{Repo: repo, Number: 2}, Open: true, Author: test, UpdatedAt: at("2021-09-27T05:01:21Z"),
			Head: forge.Branch{SHA: "0ab96a10266b95b4b533dcfd98738015fbe70889", RepoID: 2}, Base: forge.Branch{Name: "master", RepoID: 2},
		},
	}, mail[prmanager.Note](t, "service_merge_request.json"))

	// The documentation's example shows two projects.
	repo = forge.Repo{Instance: "gitlab", ID: 1, Name: "gitlabhq/gitlab-test"}
	same(t, "opened and relabelled", prmanager.Note{
		Actions:  []prmanager.Action{prmanager.ActionOpened, prmanager.ActionUnlabelled, prmanager.ActionLabelled},
		Delivery: "k", Sender: forge.Actor{ID: 1, Login: "user1"}, Labels: []string{"API", "Platform"},
		Pull: forge.Pull{
			Ref: forge.Ref{Repo: repo, Number: 1}, Open: true, Author: forge.Actor{ID: 51}, UpdatedAt: at("2013-12-03T17:23:34Z"),
			Head: forge.Branch{SHA: "da1560886d4f094c3e6c9ef40349f7d38b5d27d7", RepoID: 14}, Base: forge.Branch{Name: "master", RepoID: 1},
		},
	}, mail[prmanager.Note](t, "merge_request.json", `"target_project_id": 14`, `"target_project_id": 1`))

	repo.Name = "gitlab-org/gitlab-test"
	same(t, "comment", prmanager.Comment{
		Ref: forge.Ref{Repo: forge.Repo{Instance: "gitlab", ID: 5, Name: "gitlab-org/gitlab-test", Private: true}, Number: 1},
		By:  forge.Actor{ID: 1, Login: "root"}, At: at("2015-05-17T18:21:36Z"), ID: 1244, Author: forge.Actor{ID: 8},
		Commands: prmanager.Commands("/retest"),
	}, mail[prmanager.Comment](t, "note_merge_request.json", "This MR needs work.", "/retest"))

	same(t, "run", status.WorkflowRun{
		Repo: repo, SHA: "bcbb5ec396a2c0f828686f14fac9b80b780504f2", RunID: 31, Event: "pull_request", Status: "completed", Conclusion: "success",
		Attempt: 1, HeadRepoID: 1, At: at("2016-08-12T15:26:29Z"),
	}, mail[status.WorkflowRun](t, "pipeline.json"))
}

// What GitLab's API was recorded to answer is read: all that the library has of what we ask for.
func TestAnswers_recorded(t *testing.T) {
	answers := map[string]string{
		"/api/v4/projects/278964/merge_requests/14656": "get_merge_request.json",
		"/api/v4/projects/278964/merge_requests":       "get_merge_requests.json", // of 2019
		"/api/v4/projects/46229026/merge_requests":     "list_group_merge_requests.json",
		"/api/v4/user":                        "get_user_bot.json",
		"/api/v4/users/1":                     "get_user.json",
		"/api/v4/personal_access_tokens/self": "list_personal_access_tokens_single.json",
	}
	dir := recorded(t)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		_, _ = fmt.Fprintf(w, "%s", readFile(t, filepath.Join(dir, name))) // the client sees it
	}))
	t.Cleanup(api.Close)
	c, ctx := client(t, api.URL, "glpat-x"), t.Context()
	me, bot, err := c.Self(ctx)
	same(t, "self", forge.Actor{ID: 2, Login: "project_1_bot_3cca1d029554e372cf8f39df76bf507d", Bot: true}, me)
	if err != nil || !bot {
		t.Errorf("self: %t, %v", bot, err)
	}
	p, err := c.Pull(ctx, forge.Ref{Repo: forge.Repo{ID: 278964, Name: "gitlab-org/gitlab-ee"}, Number: 14656})
	if err != nil {
		t.Error(err)
	}
	same(t, "pull", forge.Pull{
		Ref: forge.Ref{Repo: forge.Repo{Instance: "gitlab", ID: 278964, Name: "gitlab-org/gitlab-ee"}, Number: 14656}, Open: true, Draft: true,
		Author:    forge.Actor{ID: 3614858, Login: "alexkalderimis"},
		Head:      forge.Branch{SHA: "8e0b45049b6253b8984cde9241830d2851168142", Name: "delete-designs-v2", RepoID: 278964},
		Base:      forge.Branch{SHA: "dd692733bb84bc3e9e862e66c099daec2fa00c83", Name: "master", RepoID: 278964},
		UpdatedAt: time.Date(2019, 8, 20, 9, 9, 56, 0, time.UTC),
	}, p)
	yes, err := c.Trusted(ctx, forge.Repo{}, forge.Actor{ID: 1}, forge.Rule{Kind: "user", Value: "john_smith"})
	if err != nil || !yes {
		t.Errorf("user: %t, %v", yes, err)
	}
	token, err := c.Token(ctx)
	if err != nil {
		t.Error(err)
	}
	same(t, "token", Token{Scopes: []string{"api"}}, token)
	const deep = "gitlab-com/gl-infra/platform/runway/provisioner"
	list, next, err := c.Updated(ctx, forge.Repo{ID: 46229026, Name: deep}, time.Time{}, 1)
	if err != nil || next != 0 {
		t.Errorf("list: %d, %v", next, err)
	}
	same(t, "list", []repair.Pull{{
		Ref:       forge.Ref{Repo: forge.Repo{Instance: "gitlab", ID: 46229026, Name: deep}, Number: 1084},
		CreatedAt: time.Date(2025, 9, 25, 13, 39, 2, 0, time.UTC), UpdatedAt: time.Date(2025, 9, 25, 13, 55, 39, 0, time.UTC),
	}}, list)
	if _, _, err := c.Open(ctx, forge.Repo{ID: 278964}, 1); classOf(t, err) != forge.Retriable {
		t.Errorf("a list that does not say which project it is of: %v", err)
	}
}
