package api

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// everywhere are the operations of the API, each with a request that is taken: method, path, body.
func (w *world) everywhere() (all [][3]string) {
	w.Helper()
	a := w.want(w.create(`{"context":"ci","state":"pending"}`), http.StatusAccepted)
	return [][3]string{
		{"GET", w.list(), ""}, {"POST", w.list(), `{"context":"ci","state":"pending"}`},
		{"GET", a.at("links.run"), ""}, {"PATCH", a.at("links.run"), `{"state":"running"}`},
		{"GET", a.at("links.operation"), ""},
		{"POST", w.oldPath("/api/v1"), `{"name":"old","state":"success"}`},
	}
}

func (w *world) oldPath(base string) string {
	return fmt.Sprintf("%s/projects/%d/statuses/%s", base, w.repo.ID, w.sha)
}

// told is the code of a refusal, or GitLab's words for it.
func (a answer) told() string {
	if a.at("message") != "" {
		return a.at("message")
	}
	return a.at("error.code")
}

func TestEveryPathRefusesAlike(t *testing.T) {
	w := begin(t)
	other := w.grant().Repos[0]
	other.ID, other.Name = other.ID+1, "octo/other"
	elsewhere, err := Issue(t.Context(), w.engine, Grant{Repos: append(w.grant().Repos[:0:0], other)}, 0)
	w.must(err)
	for _, p := range w.everywhere() {
		method, path, body := p[0], p[1], p[2]
		old, operation := strings.HasPrefix(path, "/api/v1/"), strings.Contains(path, "operations")
		refuses := func(name string, status int, code, words string, a answer) {
			t.Helper()
			if a.status != status || (old && !strings.Contains(a.told(), words)) || (!old && (a.told() != code || a.at("error.message") == "" || len(a.at("error.request_id")) != 16)) {
				t.Errorf("%s: %s %s: %d %s, want %d %s", name, method, path, a.status, a.text, status, code)
			}
			if old && (a.header.Get("Deprecation") == "" || a.header.Get("Sunset") != "") {
				t.Errorf("%s: %v", name, a.header)
			}
		}
		for name, header := range map[string]string{
			"none": "", "nonsense": "Bearer x", "another scheme": "Basic " + w.token, "bare": w.token, "cut": "Bearer " + w.token[:len(w.token)-1],
			"longer": "Bearer " + w.token + "0", "unknown": "Bearer " + tokenPrefix + "0000000000000000_00", "run's": "Bearer " + runPrefix + "e30.e30",
		} {
			a := w.ask(method, path, body, "Authorization", header)
			if refuses("token "+name, 401, "unauthorized", "401 Unauthorized", a); a.header.Get("WWW-Authenticate") != "Bearer" {
				t.Errorf("%v", a.header)
			}
		}
		refuses("another project's token", 404, "not_found", "404 Not Found", w.ask(method, path, body, "Authorization", "Bearer "+elsewhere))
		refuses("Accept", 406, "not_acceptable", "406 Not Acceptable", w.ask(method, path, body, "Accept", "text/html, application/json;q=0"))
		a := w.ask(http.MethodDelete, path, "")
		if refuses("DELETE", 405, "method_not_allowed", "405 Method Not Allowed", a); a.header.Get("Allow") == "" {
			t.Errorf("%v", a.header)
		}
		if !operation {
			refuses("unknown project", 404, "not_found", "404 Not Found", w.ask(method, strings.Replace(path, fmt.Sprint(w.repo.ID), "octo%2Fother", 1), body))
			for _, sha := range []string{"abc", strings.Repeat("a", 39), strings.Repeat("g", 40), w.sha + "0"} {
				refuses("commit "+sha, 400, "malformed", "400 Bad Request - expected the commit in full", w.ask(method, strings.Replace(path, w.sha, sha, 1), body))
			}
		}
		if method == "GET" {
			refuses("unknown parameter", 422, "validation", "", w.ask(method, path+"?colour=red", ""))
			continue
		}
		refuses("kind of body", 415, "unsupported_media_type", "415 Unsupported Media Type", w.ask(method, path, body, "Content-Type", "text/plain"))
		refuses("no kind of body", 415, "unsupported_media_type", "415 Unsupported Media Type", w.ask(method, path, body, "Content-Type", ""))
		for _, bad := range []string{"{", "[]", `"x"`, body + body, body + "x", "null"} {
			refuses("body "+bad, 400, "malformed", "400 Bad Request - the body is not one JSON object", w.ask(method, path, bad))
		}
		refuses("large body", 413, "too_large", "413 Request Entity Too Large", w.ask(method, path, strings.Repeat(" ", maxBody)+body))
		if !old {
			refuses("no key", 400, "idempotency_key_required", "", w.ask(method, path, body, "Idempotency-Key", ""))
			refuses("long key", 400, "idempotency_key_required", "", w.ask(method, path, body, "Idempotency-Key", strings.Repeat("k", maxKey+1)))
			refuses("no member", 422, "validation", "", w.ask(method, path, "{}"))
		}
	}
}

// What is wrong with a member is told under its name, of all of them at once.
func TestMembersAreNamed(t *testing.T) {
	w := begin(t)
	run := w.want(w.create(`{"context":"ci","state":"pending"}`), http.StatusAccepted).at("run.id")
	long := strings.Repeat("ü", 256)
	for member, values := range map[string][]string{
		"context":     {`""`, `" "`, `7`, `"` + long + `"`, `"a\u0000"`, `null`},
		"state":       {`"done"`, `""`, `true`, `"Success"`, `null`},
		"external_id": {`["x"]`, `"` + strings.Repeat("x", 129) + `"`},
		"sequence":    {`0`, `-1`, `1.5`, `"1"`, `null`, `99999999999999999999`},
		"ref":         {`{}`, `null`, `"` + long + `"`, `"a\nb"`},
		"pipeline_id": {`0`, `"7"`, `1e400`},
		"target_url":  {`"http://ci.example"`, `"javascript:alert(1)"`, `"https://"`, `"https://u:p@ci.example"`, `"https://ci.example/` + long + `"`, `7`},
		"description": {`"` + long + `"`, `"\u0007"`, `7`},
		"coverage":    {`-1`, `100.1`, `"12"`, `true`},
		"Context":     {`"x"`},
		"colour":      {`"red"`, `null`},
	} {
		for _, v := range values {
			body := fmt.Sprintf(`{"context":"ci/new","state":"running",%q:%s}`, member, v)
			if member == "context" || member == "state" {
				body = strings.Replace(body, fmt.Sprintf(`%q:"`, member), `"ref":"`, 1)
			}
			a := w.want(w.create(body), http.StatusUnprocessableEntity, "validation")
			if fields := object(a.body, "error", "fields"); len(fields) != 1 || fields[member] == nil || fields[member] == "" {
				t.Errorf("%s: %s", body, a.text)
			}
		}
	}
	for member, v := range map[string]string{"context": `"ci"`, "ref": `"main"`, "external_id": `"x"`, "pipeline_id": `1`, "sequence": `3`} {
		a := w.want(w.update(run, fmt.Sprintf(`{"state":"running",%q:%s}`, member, v)), http.StatusUnprocessableEntity, "validation")
		if fields := object(a.body, "error", "fields"); len(fields) != 1 || fields[member] == nil {
			t.Error(a.text)
		}
	}
	a := w.want(w.create(`{"state":7,"`+strings.Repeat("x", 1000)+`":1,"sequence":"1"}`), http.StatusUnprocessableEntity)
	if fields := object(a.body, "error", "fields"); len(fields) != 3 || fields["state"] == nil || len(a.text) > 600 {
		t.Error(a.text)
	}
	for query, name := range map[string]string{
		"?page=0": "page", "?page=x": "page", "?per_page=101": "per_page", "?state=done": "state", "?all=maybe": "all", "?pipeline_id=-1": "pipeline_id", "?x=1": "x",
	} {
		if a := w.want(w.ask("GET", w.list()+query, ""), http.StatusUnprocessableEntity); object(a.body, "error", "fields")[name] == nil {
			t.Errorf("%s: %s", query, a.text)
		}
	}
	w.want(w.ask("GET", w.list()+"?%zz", ""), http.StatusBadRequest)
	w.want(w.ask("GET", w.list()+"/"+run+"?history=1", ""), http.StatusUnprocessableEntity, "history")
	operation := w.create(`{"context":"ci/poll","state":"pending"}`).at("links.operation")
	for _, wait := range []string{"-1", "21", "1s"} {
		w.want(w.ask("GET", operation+"?wait="+wait, ""), http.StatusUnprocessableEntity, "wait")
	}
	for _, path := range []string{w.list() + "/nobody", w.list() + "/" + run + "0", "/api/v2/status-operations/nobody", operation + "0"} {
		w.want(w.ask("GET", path, ""), http.StatusNotFound, "not_found")
	}
	w.want(w.update("nobody", `{"state":"running"}`), http.StatusNotFound, "not_found")
	w.want(w.create(`{"context":"ci/all","state":"skipped","description":"a\nb"}`, "Accept", "text/html;q=0.9, application/*"), http.StatusAccepted)
	w.want(w.create(`{"context":"ci/cased","state":"canceled"}`, "Authorization", "bearer "+w.token, "Content-Type", "application/json; charset=utf-8"), http.StatusAccepted)
}

// The same key and body is the same answer, byte for byte; another body is refused.
func TestIdempotencyKey(t *testing.T) {
	w := begin(t)
	body := `{"context":"ci","state":"pending"}`
	first := w.want(w.create(body, "Idempotency-Key", "k"), http.StatusAccepted)
	w.ended(first)
	again := w.want(w.create(body, "Idempotency-Key", "k"), http.StatusAccepted)
	if again.text != first.text || again.header.Get("Idempotency-Replayed") != "true" || first.header.Get("Idempotency-Replayed") != "" ||
		again.header.Get("Location") != first.header.Get("Location") {
		t.Errorf("%s\n%s %v", first.text, again.text, again.header)
	}
	w.want(w.create(`{"context":"ci","state":"running"}`, "Idempotency-Key", "k"), http.StatusUnprocessableEntity, "idempotency_key_reused")
	byPath := strings.Replace(w.list(), fmt.Sprint(w.repo.ID), "Octo%2Fhello", 1)
	if same := w.ask("POST", byPath, body, "Idempotency-Key", "k"); same.text != first.text {
		t.Errorf("%s\n%s", first.text, same.text)
	}
	// The same key elsewhere, or of somebody else, is another.
	run := first.at("run.id")
	w.want(w.update(run, body[:1]+`"state":"running"}`, "Idempotency-Key", "k"), http.StatusAccepted)
	other, err := Issue(t.Context(), w.engine, Grant{Repos: w.grant().Repos}, 0)
	w.must(err)
	w.want(w.create(body, "Idempotency-Key", "k", "Authorization", "Bearer "+other), http.StatusForbidden)
	// What was refused was not stored: mended, it may be sent with its key.
	w.want(w.create(`{"context":"x","state":"?"}`, "Idempotency-Key", "m"), http.StatusUnprocessableEntity)
	w.want(w.create(`{"context":"x","state":"pending"}`, "Idempotency-Key", "m"), http.StatusAccepted)
}

func TestTokens(t *testing.T) {
	w := begin(t)
	issue := func(g Grant, life time.Duration) string {
		t.Helper()
		g.Repos = w.grant().Repos
		token, err := Issue(t.Context(), w.engine, g, life)
		w.must(err)
		return token
	}
	narrow := issue(Grant{Contexts: []string{"jenkins/*", "lint"}, By: "ann"}, time.Hour)
	as := []string{"Authorization", "Bearer " + narrow}
	for context, want := range map[string]int{"jenkins/unit": 202, "jenkins/": 202, "lint": 202, "lint2": 403, "jenkins": 403, "x jenkins/": 403, "*": 403} {
		w.want(w.create(fmt.Sprintf(`{"context":%q,"state":"running"}`, context), as...), want)
		status := map[int]int{202: 201, 403: 403}[want]
		w.want(w.ask("POST", w.oldPath("/api/v1"), fmt.Sprintf(`{"name":%q,"state":"success"}`, context), as...), status)
	}
	w.want(w.create(`{"context":"lint2","state":"running"}`, as...), 403, "but for jenkins/*, lint")
	w.want(w.create(`{"state":"running"}`, as...), 422)
	list, err := Grants(t.Context(), w.store)
	w.must(err)
	if len(list) != 2 || list[1].By != "ann" || list[1].ID == "" || list[1].Expires.Sub(list[1].Created) != time.Hour {
		t.Fatalf("%+v", list)
	}
	stored, err := w.store.Load(t.Context(), tokenSubject(list[1].ID))
	w.must(err)
	if strings.Contains(string(stored.Doc), narrow[len(narrow)-40:]) {
		t.Error("the token itself is stored")
	}
	w.ahead.Add(int64(time.Hour))
	w.want(w.ask("GET", w.list(), "", as...), 401)
	w.want(w.ask("GET", w.list(), ""), 200)
	w.must(Revoke(t.Context(), w.engine, w.grant().ID))
	w.want(w.ask("GET", w.list(), ""), 401)
	if err := Revoke(t.Context(), w.engine, "0000000000000000"); err == nil {
		t.Error("revoked what there is not")
	}
	if list, err = Grants(t.Context(), w.store); err != nil || len(list) != 1 {
		t.Errorf("%+v %v", list, err)
	}
}

// A store that does not answer stores nothing, and says so everywhere. Nothing that is secret is told or logged.
func TestStoreThatIsGone(t *testing.T) {
	w := begin(t)
	all := w.everywhere()
	w.must(w.store.Close())
	for _, p := range all {
		a := w.ask(p[0], p[1], p[2])
		if a.status != 503 || a.header.Get("Retry-After") == "" || a.told() != "not_stored" && !strings.HasPrefix(a.told(), "503 Service Unavailable") {
			t.Errorf("%v: %d %s", p, a.status, a.text)
		}
	}
	logged := fmt.Sprint(w.logs.All())
	if w.logs.Len() != len(all) || !strings.Contains(logged, "status request failed") {
		t.Errorf("logged %s", logged)
	}
	_, random, _ := strings.Cut(strings.TrimPrefix(w.token, tokenPrefix), "_")
	if strings.Contains(logged, random) {
		t.Errorf("logged a token: %s", logged)
	}
}

func TestOtherPathsAreUnknown(t *testing.T) {
	w := begin(t)
	for _, path := range []string{"/api/v2/statuses", "/api/v1/projects/7", w.list() + "/a/b"} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		got := httptest.NewRecorder()
		if w.service.Handler().ServeHTTP(got, r); got.Code != 404 || !strings.Contains(got.Body.String(), `"not_found"`) {
			t.Errorf("%s: %d %s", path, got.Code, got.Body)
		}
	}
}

func TestDescriptionIsServed(t *testing.T) {
	w := begin(t)
	a := w.want(w.ask("GET", "/api/openapi.json", "", "Authorization", ""), http.StatusOK, `"openapi":"3.1.0"`)
	if len(object(a.body, "paths")) != 5 {
		t.Errorf("%v", object(a.body, "paths"))
	}
}

func FuzzMembers(f *testing.F) {
	f.Add([]byte(`{"context":"ci","state":"pending","sequence":1,"coverage":1e2}`), true)
	f.Add([]byte(`{"state":null,"x":[{}]}`), false)
	f.Fuzz(func(t *testing.T, body []byte, lenient bool) {
		m, ok := read(body, lenient)
		if !ok {
			return
		}
		m.number("sequence")
		m.fraction("coverage")
		m.flag("all")
		m.content()
		if err := m.done(); (err == nil) != (len(m.wrong) == 0) {
			t.Errorf("%v %v", err, m.wrong)
		}
	})
}

// A token that writes too fast is told to come again; it may read, others may write, and nothing was stored under its key.
func TestTokenWritesTooFast(t *testing.T) {
	w := begin(t)
	if w.service.opt.Burst != 1000 {
		t.Errorf("outside of tests a token writes %d times at once", w.service.opt.Burst)
	}
	w.serve(Options{Burst: 3})
	still := w.now() // so that nothing comes back while the test runs
	w.service.opt.Now = func() time.Time { return still.Add(time.Duration(w.ahead.Load())) }
	run := w.want(w.create(`{"context":"ci","state":"pending"}`), http.StatusAccepted).at("run.id")
	w.want(w.update(run, `{"state":"running"}`), http.StatusAccepted)
	w.want(w.old(`{"state":"running","name":"old"}`), http.StatusCreated)
	const again = `{"context":"again","state":"pending"}`
	for form, a := range map[string]answer{
		"create": w.create(again, "Idempotency-Key", "again"),
		"update": w.update(run, `{"state":"success"}`),
		"old":    w.old(`{"state":"success","name":"old"}`),
	} {
		if w.want(a, http.StatusTooManyRequests); a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %v", form, a.header)
		}
	}
	w.want(w.ask(http.MethodGet, w.list(), ""), http.StatusOK)
	elsewhere, err := Issue(t.Context(), w.engine, Grant{Repos: w.grant().Repos}, 0)
	w.must(err)
	w.want(w.create(`{"context":"other","state":"pending"}`, "Authorization", "Bearer "+elsewhere), http.StatusAccepted)
	w.ahead.Add(int64(10 * time.Second))
	if a := w.want(w.create(again, "Idempotency-Key", "again"), http.StatusAccepted); a.header.Get("Idempotency-Replayed") != "" {
		t.Error("what was refused was stored")
	}
}
