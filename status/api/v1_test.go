package api

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
)

// old posts a status as GitLab's clients do.
func (w *world) old(body string, headers ...string) answer {
	w.Helper()
	return w.ask(http.MethodPost, w.oldPath("/api/v1"), body, append([]string{"Authorization", "", "PRIVATE-TOKEN", w.token, "Idempotency-Key", ""}, headers...)...)
}

// soon is an answer that must not wait for a call in flight.
func (w *world) soon(c <-chan answer) answer {
	w.Helper()
	select {
	case a := <-c:
		return a
	case <-time.After(pushWithin / 2):
		w.Fatal("it waits for the end of a call")
		return answer{}
	}
}

func TestOldFormIsGitLabs(t *testing.T) {
	w := begin(t)
	a := w.want(w.old(`{"state":"running","name":"ci","context":"ignored","target_url":"https://ci.example/1","description":"go","ref":"main","coverage":"12.5",
		"allow_failure":true,"coverage_2":null}`), http.StatusCreated)
	for path, want := range map[string]string{
		"sha": w.sha, "ref": "main", "status": "running", "name": "ci", "target_url": "https://ci.example/1", "description": "go", "coverage": "12.5",
		"allow_failure": "false", "author.username": "signalbox", "finished_at": "",
	} {
		if a.at(path) != want {
			t.Errorf("%s: %q, want %q", path, a.at(path), want)
		}
	}
	if a.at("id") == "0" || a.at("pipeline_id") == "0" || a.at("started_at") == "" || a.at("created_at") == "" {
		t.Error(a.text)
	}
	if a.header.Get("Deprecation") != "@1795219200" || a.header.Get("Link") != fmt.Sprintf(`<%s>; rel="successor-version"`, w.list()) || a.header.Get("Sunset") != "" {
		t.Errorf("%v", a.header)
	}
	// Every way in which clients write it.
	form := url.Values{"state": {"success"}, "context": {"form"}, "coverage": {"50"}}
	w.want(w.old(form.Encode(), "Content-Type", "application/x-www-form-urlencoded"), http.StatusCreated, `"name":"form"`, `"coverage":50`)
	w.want(w.ask(http.MethodPost, w.oldPath("/api/v1")+"?description=d&target_url=https%3A%2F%2Fx.example&"+form.Encode(), ""), http.StatusCreated, `"description":"d"`)
	w.want(w.ask(http.MethodPost, w.oldPath("/api/v1/api/v4")+"?state=success&ref=main&pipeline_id="+a.at("pipeline_id"), ""), http.StatusCreated, `"name":"default"`)
	w.want(w.ask(http.MethodPost, w.oldPath("/api/v1")+"?state=failed&name=body-counts", `{"state":"success"}`), http.StatusCreated, `"status":"success"`)
	b := &bytes.Buffer{}
	m := multipart.NewWriter(b)
	w.must(m.WriteField("state", "canceled"))
	w.must(m.WriteField("name", "parts"))
	w.must(m.Close())
	w.want(w.old(b.String(), "Content-Type", m.FormDataContentType()), http.StatusCreated, `"status":"canceled"`)
	byPath := strings.Replace(w.oldPath("/api/v1"), fmt.Sprint(w.repo.ID), "octo%2Fhello", 1)
	w.want(w.ask(http.MethodPost, strings.Replace(byPath, w.sha, strings.ToUpper(w.sha), 1), `{"state":"skipped","name":"path"}`), http.StatusCreated)
	w.want(w.old(`{"state":"success","name":"placed","pipeline_id":"`+a.at("pipeline_id")+`"}`), http.StatusCreated)
	// A link that nobody may be sent to is left out, and the same again says nothing new.
	w.want(w.old(`{"state":"pending","name":"plain","target_url":"http://ci.example/1"}`), http.StatusCreated, `"target_url":null`, `"started_at":null`)
	w.want(w.old(`{"state":"pending","name":"plain"}`), http.StatusCreated)
	if got := w.pushed("plain"); len(got) != 1 {
		t.Errorf("pushed %q", got)
	}
	// After its end comes a new run.
	w.want(w.old(`{"state":"success","name":"ci","ref":"main"}`), http.StatusCreated, `"description":"go"`)
	w.want(w.old(`{"state":"running","name":"ci","ref":"main"}`), http.StatusCreated, `"description":null`)
	if got := w.pushed("ci"); !slices.Equal(got, []string{"running go", "success go", "running"}) {
		t.Errorf("pushed %q", got)
	}
}

func TestOldFormRefuses(t *testing.T) {
	w := begin(t)
	for body, want := range map[string]string{
		`{"name":"ci"}`:                                "422 Unprocessable Entity - ",
		`{"state":"done"}`:                             "state expected pending",
		`{"state":"success","pipeline_id":"x"}`:        "pipeline_id expected a whole number",
		`{"state":"success","coverage":"x","name":[]}`: "coverage expected a number; name expected a text",
	} {
		if a := w.want(w.old(body), 422); !strings.Contains(a.at("message"), want) {
			t.Errorf("%s: %s", body, a.text)
		}
	}
	w.want(w.old(`{"state":"success"}`, "PRIVATE-TOKEN", "", "JOB-TOKEN", "glcbt-x"), 401, "token of a job")
	w.want(w.old(`{"state":"success"}`, "JOB-TOKEN", "glcbt-x"), 401, "token of a job")
	w.want(w.old(`{"state":"success"}`, "PRIVATE-TOKEN", "glpat-x"), 401, "as PRIVATE-TOKEN")
	w.want(w.old(`a=%zz`, "Content-Type", "application/x-www-form-urlencoded"), 400)
	w.want(w.old("--x\r\nnonsense\r\n\r\n", "Content-Type", "multipart/form-data; boundary=x"), 400)
	w.want(w.old("--x\r\nContent-Disposition: form-data; name=\"state\"; filename=\"f\"\r\n\r\nsuccess\r\n--x--\r\n", "Content-Type", "multipart/form-data; boundary=x"), 400)
	w.want(w.old(`{"state":"success","name":"CI gate"}`), 403, "403 Forbidden")
	// What the forge does not know may only not have arrived everywhere, for a minute.
	unknown := make(chan answer, 1)
	go func() { unknown <- w.old(`{"state":"failed","pipeline_id":999999}`) }()
	w.until("the forge has put it off", func() bool {
		v, err := actor.See(t.Context(), w.store, w.commit())
		return err == nil && len(v.Outbox) == 1 && v.Outbox[0].NotBefore.After(v.Now)
	})
	w.ahead.Add(int64(time.Minute))
	w.want(<-unknown, 404, "404 Not Found - ")
	w.project.LimitPipelines(0)
	in := w.want(w.old(`{"state":"failed","name":"own"}`), 201).at("pipeline_id")
	w.want(w.old(`{"state":"failed","name":"more","pipeline_id":`+in+`}`), 422, "422 Unprocessable Entity")
}

// A call that cannot begin is withdrawn and leaves nothing; of one that is on its way the truth is told.
func TestOldFormWaits(t *testing.T) {
	w := begin(t)
	if w.service.opt.Wait != 10*time.Second {
		t.Errorf("outside of tests it waits for %s", w.service.opt.Wait)
	}
	w.serve(Options{Wait: 50 * time.Millisecond})
	h := w.hold("first")
	first := make(chan answer, 1)
	go func() { first <- w.old(`{"state":"running","name":"first"}`) }()
	w.held(h)
	a := w.want(w.old(`{"state":"running","name":"second"}`), http.StatusConflict)
	if a.text != `{"message":"409 Conflict: Resource lock"}`+"\n" || a.header.Get("Retry-After") == "" {
		t.Errorf("%s %v", a.text, a.header)
	}
	if got := w.want(w.ask(http.MethodGet, w.list()+"?all=true", ""), http.StatusOK).text; strings.Contains(got, "second") {
		t.Errorf("left behind: %s", got)
	}
	// Version 2 does not wait for that, and a call that waited does not come after what was accepted meanwhile.
	w.want(w.create(`{"context":"third","state":"success"}`), http.StatusAccepted)
	w.service.Stop() // the server is to stop: the one in flight hears what is known
	told := w.soon(first)
	w.want(told, http.StatusAccepted, `"status":"running"`, `"id":0`)
	if told.header.Get("Location") == "" || told.header.Get("Retry-After") == "" {
		t.Errorf("%v", told.header)
	}
	h.free()
	w.serve(Options{})
	w.until("what was in flight has arrived", func() bool {
		return w.want(w.ask(http.MethodGet, told.header.Get("Location")+"?wait=20", ""), http.StatusOK).at("state") == "delivered"
	})
	w.want(w.old(`{"state":"running","name":"third"}`), http.StatusCreated)
	if got := w.pushed("second"); len(got) != 0 {
		t.Errorf("pushed %q", got)
	}
}

// A call that the forge has put off is not waited for any longer: the status is kept, and comes when it can.
func TestOldFormIsPutOff(t *testing.T) {
	w := begin(t)
	w.serve(Options{Wait: 50 * time.Millisecond})
	w.forge.LockCommit(w.sha, 1_000_000)
	told := make(chan answer, 1)
	go func() { told <- w.old(`{"state":"success","name":"ci"}`) }()
	a := w.want(w.soon(told), http.StatusAccepted)
	w.forge.LockCommit(w.sha, 0)
	w.until("it has come", func() bool {
		return w.want(w.ask(http.MethodGet, a.header.Get("Location")+"?wait=20", ""), http.StatusOK).at("state") == "delivered"
	})
}

// The order of a call is that of its arrival: what version 2 accepts while it waits counts.
func TestOldFormDoesNotOverrideWhatCameLater(t *testing.T) {
	w := begin(t)
	h := w.hold("blocks")
	w.want(w.create(`{"context":"blocks","state":"running"}`), http.StatusAccepted)
	w.held(h)
	waiting := make(chan answer, 1)
	go func() { waiting <- w.old(`{"state":"failed","name":"ci","description":"older"}`) }()
	w.until("the call waits", func() bool {
		v, err := w.store.Load(t.Context(), w.commit())
		return err == nil && strings.Contains(string(v.Doc), `"older"`)
	})
	w.want(w.create(`{"context":"ci","state":"success","description":"newer"}`), http.StatusAccepted)
	h.free()
	w.want(<-waiting, http.StatusCreated, `"description":"older"`)
	w.until("the newer one has come", func() bool { return len(w.pushed("ci")) > 0 })
	if got := w.pushed("ci"); !slices.Equal(got, []string{"success newer"}) {
		t.Errorf("pushed %q", got)
	}
}

// Only so many calls can wait for one commit; the next one is told at once to come again.
func TestOldFormIsFull(t *testing.T) {
	w := begin(t)
	w.serve(Options{Wait: patience})
	h := w.hold("blocks")
	w.want(w.create(`{"context":"blocks","state":"running"}`), http.StatusAccepted)
	w.held(h)
	const most = 64
	waiting := make(chan answer, most)
	for i := range most {
		name := fmt.Sprintf("ci/%d.", i)
		go func() { waiting <- w.old(fmt.Sprintf(`{"state":"running","name":%q}`, name)) }()
		w.until(name+" waits", func() bool {
			v, err := actor.See(t.Context(), w.store, w.commit())
			return err == nil && strings.Contains(string(v.Doc), name)
		})
	}
	refused := make(chan answer, 1)
	go func() { refused <- w.old(`{"state":"running","name":"ci/more"}`) }()
	if a := w.want(w.soon(refused), http.StatusConflict, "409 Conflict: Resource lock"); a.header.Get("Retry-After") == "" {
		t.Errorf("%v", a.header)
	}
	h.free()
	for range most {
		w.want(<-waiting, http.StatusCreated)
	}
}
