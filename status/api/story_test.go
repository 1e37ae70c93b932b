package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// A run from its beginning to its end, as a CI lives it.
func TestRun(t *testing.T) {
	w := begin(t)
	first := w.want(w.create(`{"context":"ci/test","state":"pending","external_id":"build-1","ref":"main","target_url":"https://ci.example/1",
		"description":"queued","coverage":12.5}`), http.StatusAccepted, `"state":"accepted"`, `"path":"octo/hello"`)
	run := first.at("run.id")
	if first.header.Get("Location") != "/api/v2/status-operations/"+first.at("operation.id") || first.at("links.operation") != first.header.Get("Location") ||
		first.at("operation.order.attempt") != "1" || first.at("run.attempt") != "1" || first.at("links.run") != w.list()+"/"+run || first.at("links.list") != w.list() {
		t.Errorf("%s %v", first.text, first.header)
	}
	if end := w.ended(first); end.at("state") != "delivered" || end.at("forge_ref.pipeline_id") == "" || end.at("delivered_at") == "" || end.at("effective_state") != "pending" {
		t.Error(end.text)
	}
	for _, state := range []string{"running", "success"} {
		if end := w.ended(w.want(w.update(run, `{"state":"`+state+`","description":"`+state+` now"}`), http.StatusAccepted)); end.at("state") != "delivered" {
			t.Error(end.text)
		}
	}
	if got := w.pushed("ci/test"); !slices.Equal(got, []string{"pending queued", "running running now", "success success now"}) {
		t.Errorf("pushed %q", got)
	}

	// What has ended does not go back, but may be corrected.
	back := w.ended(w.want(w.update(run, `{"state":"running","coverage":50}`), http.StatusAccepted))
	if back.at("state") != "superseded" || back.at("reason") != "run_finished" || back.at("superseded_by") == "" || back.at("effective_state") != "success" {
		t.Error(back.text)
	}
	if end := w.ended(w.want(w.update(run, `{"state":"failed"}`), http.StatusAccepted)); end.at("state") != "delivered" {
		t.Error(end.text)
	}

	// The run, with all that was said of it.
	w.want(w.ask(http.MethodGet, first.at("links.run"), ""), http.StatusOK, `"state":"failed"`, `"external_id":"build-1"`, `"coverage":12.5`)
	story := w.want(w.ask(http.MethodGet, first.at("links.run")+"?history=true", ""), http.StatusOK)
	var said []string
	for _, o := range story.body["history"].([]any) {
		said = append(said, object(o, "status")["state"].(string)+" "+object(o)["state"].(string))
	}
	if !slices.Equal(said, []string{"failed delivered", "running superseded", "success delivered", "running delivered", "pending delivered"}) {
		t.Errorf("%q", said)
	}

	// The same create again is the run that is there; another with its id is refused, with where that run is.
	body := `{"context":"ci/test","state":"pending","external_id":"build-2","ref":"main"}`
	second := w.want(w.create(body), http.StatusAccepted)
	w.want(w.create(body, "Idempotency-Key", "again"), http.StatusOK, second.at("run.id"))
	if a := w.want(w.create(body, "Idempotency-Key", "again"), http.StatusOK); a.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("%v", a.header)
	}
	other := w.want(w.create(`{"context":"ci/test","state":"running","external_id":"build-2","ref":"main"}`), http.StatusConflict, "run_exists")
	if other.header.Get("Location") != second.at("links.run") {
		t.Errorf("%v", other.header)
	}
	late := w.ended(w.want(w.update(run, `{"state":"success"}`), http.StatusAccepted))
	if late.at("state") != "superseded" || late.at("reason") != "newer_attempt" {
		t.Error(late.text)
	}
}

func TestClientOrdersItsRun(t *testing.T) {
	w := begin(t)
	h := w.hold("ci")
	first := w.want(w.create(`{"context":"ci","state":"pending","sequence":5}`), http.StatusAccepted)
	w.held(h)
	run := first.at("run.id")
	w.want(w.update(run, `{"state":"running"}`), http.StatusUnprocessableEntity, "sequence_required")
	newest := w.want(w.update(run, `{"state":"success","sequence":9}`), http.StatusAccepted)
	older := w.want(w.update(run, `{"state":"failed","sequence":7}`), http.StatusAccepted)
	if older.at("operation.state") != "superseded" || older.at("operation.reason") != "newer_sequence" || older.at("operation.superseded_by") != newest.at("operation.id") {
		t.Error(older.text)
	}
	// A push is under way, and the poll that does not wait says so.
	now := w.want(w.ask(http.MethodGet, first.at("links.operation"), ""), http.StatusOK)
	if now.header.Get("Retry-After") == "" {
		t.Errorf("%s %v", now.text, now.header)
	}
	h.free()
	if end := w.ended(newest); end.at("state") != "delivered" || end.header.Get("Retry-After") != "" {
		t.Error(end.text)
	}
	w.ended(first)
	if got := w.pushed("ci"); got[len(got)-1] != "success" || len(got) > 2 {
		t.Errorf("pushed %q", got)
	}
}

func TestListFiltersAndPages(t *testing.T) {
	w := begin(t)
	for i := range 23 {
		w.want(w.create(fmt.Sprintf(`{"context":"ci/%02d","state":"running"}`, i)), http.StatusAccepted)
	}
	w.want(w.create(`{"context":"ci/00","state":"pending"}`), http.StatusAccepted)
	w.want(w.create(`{"context":"ci/00","state":"pending","ref":"v1","pipeline_id":4}`), http.StatusAccepted)
	get := func(query string) (contexts []string, a answer) {
		t.Helper()
		a = w.want(w.ask(http.MethodGet, w.list()+query, ""), http.StatusOK)
		var runs []struct {
			Context, State, Ref string
			Attempt             int
		}
		w.must(json.Unmarshal([]byte(a.text), &runs))
		for _, r := range runs {
			contexts = append(contexts, fmt.Sprint(r.Context, " ", r.Attempt))
		}
		return contexts, a
	}
	all, a := get("")
	if len(all) != 20 || a.header.Get("X-Total-Count") != "24" || all[0] != "ci/00 2" || all[1] != "ci/00 1" || !slices.IsSorted(all[2:]) {
		t.Errorf("%v %v", all, a.header)
	}
	if want := fmt.Sprintf(`<%s?page=1>; rel="first", <%s?page=2>; rel="next", <%s?page=2>; rel="last"`, w.list(), w.list(), w.list()); a.header.Get("Link") != want {
		t.Errorf("%s\nwant %s", a.header.Get("Link"), want)
	}
	if rest, a := get("?page=2"); len(rest) != 4 || !strings.Contains(a.header.Get("Link"), `rel="prev"`) || strings.Contains(a.header.Get("Link"), `rel="next"`) {
		t.Errorf("%v %v", rest, a.header)
	}
	if none, a := get("?page=9&per_page=10"); len(none) != 0 || a.text != "[]\n" || !strings.Contains(a.header.Get("Link"), `page=3&per_page=10>; rel="prev"`) {
		t.Errorf("%v %v", none, a.header)
	}
	for query, want := range map[string]string{
		"?context=ci/00":                   "ci/00 2,ci/00 1", // the second is of another ref
		"?context=ci/00&all=true":          "ci/00 2,ci/00 1,ci/00 1",
		"?context=ci/00&ref=v1":            "ci/00 1",
		"?state=pending&per_page=1&page=1": "ci/00 2",
		"?context=nobody":                  "",
		"?pipeline_id=4":                   "ci/00 1",
		"?all=false&state=failed":          "",
	} {
		if got, _ := get(query); strings.Join(got, ",") != want {
			t.Errorf("%s: %v, want %s", query, got, want)
		}
	}
}

// Whatever the forge does meanwhile can be read off the operation.
func TestOperationTellsOfTrouble(t *testing.T) {
	w := begin(t)
	w.forge.Fail("POST /projects/{id}/statuses/{sha}", 1)
	a := w.want(w.create(`{"context":"broken","state":"failed"}`), http.StatusAccepted)
	w.until("a try has failed", func() bool {
		now := w.want(w.ask(http.MethodGet, a.at("links.operation"), ""), http.StatusOK)
		return now.at("tries") == "1" && now.at("next_try_at") != "" && now.at("last_error.class") == "retriable" && now.at("last_error.code") == "502"
	})
	w.ahead.Add(int64(status.SettleStatus)) // until then the call may still take effect
	if end := w.ended(a); end.at("state") != "delivered" {
		t.Error(end.text)
	}
	w.forge.LockCommit(w.sha, 3)
	b := w.ended(w.want(w.create(`{"context":"locked","state":"failed"}`), http.StatusAccepted))
	if b.at("state") != "delivered" || b.at("tries") != "0" {
		t.Error(b.text)
	}
	w.project.LimitPipelines(0)
	c := w.ended(w.want(w.create(`{"context":"refused","state":"failed","pipeline_id":`+b.at("forge_ref.pipeline_id")+`}`), http.StatusAccepted))
	if c.at("state") != "failed" || c.at("reason") != "refused" || c.at("last_error.code") != "422" || c.at("last_error.class") != "permanent" {
		t.Error(c.text)
	}
}

// A context belongs to whoever began it, and the contexts of the gate to nobody else.
func TestContextsHaveOwners(t *testing.T) {
	w := begin(t)
	w.want(w.create(`{"context":"ci","state":"pending"}`), http.StatusAccepted)
	w.want(w.create(`{"context":"CI gate","state":"success"}`), http.StatusForbidden, "context_owned")
	other, err := Issue(w.Context(), w.engine, Grant{Repos: w.grant().Repos}, 0)
	w.must(err)
	w.want(w.create(`{"context":"ci","state":"success"}`, "Authorization", "Bearer "+other), http.StatusForbidden, "context_owned")
	w.want(w.create(`{"context":"ci2","state":"success"}`, "Authorization", "Bearer "+other), http.StatusAccepted)
	w.want(w.create(`{"context":"ci2","state":"success"}`), http.StatusForbidden, "context_owned")
}

func TestBoundsOfACommit(t *testing.T) {
	w := begin(t)
	a := w.want(w.create(`{"context":"much","state":"running"}`), http.StatusAccepted)
	w.ended(a)
	_, err := actor.Ask(t.Context(), w.engine, w.commit(), "", func(d status.Document, _ time.Time) (actor.Step[status.Document], error) {
		for scope, c := range d.Contexts {
			c.Runs[0].Count = 1000
			for i := range 199 {
				d.Contexts[fmt.Sprint(scope, i)] = c
			}
		}
		return actor.Step[status.Document]{Next: d}, nil
	})
	w.must(err)
	w.want(w.update(a.at("run.id"), `{"state":"success"}`), http.StatusUnprocessableEntity, "too_many_updates")
	w.want(w.create(`{"context":"more","state":"running"}`), http.StatusUnprocessableEntity, "too_many_contexts")
}

// The token of a run tells the pull request and does nothing else.
func TestRunToken(t *testing.T) {
	w := begin(t)
	run := presubmitRun
	run.Ref.Repo, run.SHA = w.repo, w.sha
	w.put(status.Document{Repo: w.repo, Runs: map[string]status.RunCheck{
		run.Key: {Name: run.Presubmit, Pull: state.Subject{Instance: "gitlab", Project: fmt.Sprint(w.repo.ID), Kind: "pr", Key: "3"}},
	}})
	token := MintRun(secret, run, w.service.opt.Now())
	as := []string{"Authorization", "Bearer " + token}
	a := w.want(w.update(run.Key, `{"state":"running","target_url":"https://ci.example/7"}`, as...), http.StatusAccepted)
	w.want(w.ask(http.MethodGet, RunURL("", run), "", as...), http.StatusOK, run.Key)
	w.want(w.ask(http.MethodGet, a.at("links.operation"), "", as...), http.StatusOK, run.Key)

	own := w.want(w.create(`{"context":"ci","state":"pending"}`), http.StatusAccepted)
	w.want(w.ask(http.MethodGet, own.at("links.operation"), "", as...), http.StatusNotFound)
	w.want(w.ask(http.MethodGet, own.at("links.run"), "", as...), http.StatusForbidden, "one run only")
	w.want(w.update(own.at("run.id"), `{"state":"success"}`, as...), http.StatusForbidden)
	w.want(w.create(`{"context":"ci","state":"success"}`, as...), http.StatusForbidden)
	w.want(w.ask(http.MethodGet, w.list(), "", as...), http.StatusForbidden)
	w.want(w.ask(http.MethodPost, "/api/v1/projects/"+fmt.Sprint(w.repo.ID)+"/statuses/"+w.sha+"?state=success", "", as...), http.StatusForbidden)
	w.sha = w.project.Push("main")
	w.want(w.update(run.Key, `{"state":"success"}`, as...), http.StatusForbidden)
	// Nor can the token of a project speak for a presubmit.
	w.sha = run.SHA
	w.want(w.update(run.Key, `{"state":"success"}`), http.StatusNotFound)
	w.ahead.Add(int64(RunLife))
	w.want(w.ask(http.MethodGet, RunURL("", run), "", as...), http.StatusUnauthorized)
}
