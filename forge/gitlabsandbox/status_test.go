package gitlabsandbox_test

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
)

// The rules of commit statuses, each as the real GitLab has it.
func TestStatusRules(t *testing.T) {
	now := time.Date(2026, 8, 3, 12, 0, 0, 0, time.UTC)
	f := gitlabsandbox.New(func() time.Time { return now })
	api := f.Handler()
	bot, other := f.AddUser("bot", true), f.AddUser("other", true)
	p := f.AddProject("octo/hello", map[*gitlabsandbox.User]int{bot: gitlabsandbox.Developer, other: gitlabsandbox.Developer})
	sha := p.Push("main")
	call := func(by *gitlabsandbox.User, method, path, body string) (int, string) {
		r := httptest.NewRequest(method, fmt.Sprintf("/api/v4/projects/%d/%s", p.ID, path), strings.NewReader(body))
		r.Header.Set("Private-Token", by.Token)
		w := httptest.NewRecorder()
		api.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	type job struct {
		ID       int64
		Ref      string
		Pipeline int64 `json:"pipeline_id"`
	}
	post := func(by *gitlabsandbox.User, want int, text, state string, more ...string) (j job) {
		t.Helper()
		body := fmt.Sprintf(`{"state":%q,"name":"ci"%s}`, state, strings.Join(more, ""))
		status, answer := call(by, "POST", "statuses/"+sha, body)
		if status != want || !strings.Contains(answer, text) {
			t.Errorf("%s: %d %s, expected %d %s", body, status, answer, want, text)
		}
		if err := json.Unmarshal([]byte(answer), &j); err != nil {
			t.Fatal(err)
		}
		return j
	}
	first := post(bot, 201, `"status":"pending"`, "pending")
	if first.Ref != "main" {
		t.Errorf("ref %q", first.Ref)
	}
	post(bot, 400, "Cannot transition status via :enqueue from :pending", "pending")
	if j := post(bot, 201, "", "running"); j != first {
		t.Errorf("%+v moved to %+v", first, j)
	}
	post(bot, 400, "Cannot transition status via :run from :running", "running")
	post(bot, 400, "Cannot transition status via :enqueue from :running", "pending")
	post(bot, 400, "Cannot transition status via :skip from :running", "skipped")
	if j := post(other, 201, "", "running"); j.ID == first.ID || j.Pipeline != first.Pipeline {
		t.Errorf("another account's is %+v", j)
	}
	post(bot, 201, "", "success")
	again := post(bot, 201, "", "success")
	if again.ID == first.ID || again.Pipeline != first.Pipeline {
		t.Errorf("after the end comes %+v", again)
	}
	if got := p.Shown(sha); len(got) != 1 || got[0].Job != again.ID {
		t.Errorf("shown: %+v", got)
	}
	if got := strings.Join(p.Statuses(sha), ", "); got != "ci pending, ci running, ci running, ci success, ci success" {
		t.Errorf("posts: %s", got)
	}
	for query, want := range map[string]int{"": 1, "?all=true": 3, "?ref=main": 1, "?ref=x": 0, "?name=ci": 1, "?name=x": 0, "?pipeline_id=1": 0} {
		_, answer := call(bot, "GET", "repository/commits/"+sha+"/statuses"+query, "")
		if n := strings.Count(answer, `"status"`); n != want {
			t.Errorf("list %s: %d, expected %d", query, n, want)
		}
	}

	// Another ref is another pipeline; a pipeline must be the commit's and the ref's.
	if j := post(bot, 201, "", "pending", `,"ref":"v1"`); j.Pipeline == first.Pipeline || j.Ref != "v1" {
		t.Errorf("of another ref: %+v", j)
	}
	pipeline := func(id int64) string { return fmt.Sprintf(`,"pipeline_id":%d`, id) }
	if j := post(bot, 201, "", "running", pipeline(first.Pipeline)); j.Pipeline != first.Pipeline {
		t.Errorf("in the first pipeline: %+v", j)
	}
	post(bot, 404, "Pipeline for pipeline_id", "success", pipeline(first.Pipeline), `,"ref":"v1"`)
	post(bot, 404, "Pipeline for pipeline_id", "success", pipeline(1))

	// A full pipeline takes updates, refuses jobs where it was named, and is left for a new one where not.
	p.LimitPipelines(1)
	post(bot, 201, "", "success", pipeline(first.Pipeline))
	post(bot, 422, "number of jobs", "success", pipeline(first.Pipeline))
	if j := post(bot, 201, "", "success", `,"ref":"main"`); j.Pipeline == first.Pipeline {
		t.Errorf("a full pipeline took %+v", j)
	}
	p.LimitPipelines(1000)

	post(bot, 400, "too long", "failed", `,"description":"`+strings.Repeat("x", 256)+`"`)
	post(bot, 400, "blocked", "failed", `,"target_url":"javascript:alert(1)"`)
	post(bot, 400, "valid value", "neutral")

	// The lock is the commit's, lasts as long as it is held, and is let go.
	f.HoldLocks(time.Minute)
	post(bot, 201, "", "failed")
	now = now.Add(59 * time.Second)
	post(other, 409, "Resource lock", "failed")
	free := sha
	sha = p.Push("main")
	post(bot, 201, "", "failed")
	sha = free
	now = now.Add(time.Second)
	post(other, 201, "", "failed")
	f.HoldLocks(0)
	now = now.Add(time.Minute)
	f.LockCommit(sha, 1)
	post(bot, 409, "Resource lock", "failed")
	post(bot, 201, "", "failed")

	f.LagReplicas(time.Minute)
	sha = p.Push("main")
	post(bot, 404, "Commit Not Found", "failed")
	if status, _ := call(bot, "GET", "repository/commits/"+sha+"/statuses", ""); status != 404 {
		t.Errorf("a commit that no replica has: %d", status)
	}
	now = now.Add(time.Minute)
	post(bot, 201, "", "failed")
}
