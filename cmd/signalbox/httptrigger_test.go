package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/signalbox-ci/signalbox/forge/httptrigger"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// httpCI is a CI that is no forge. It believes nothing that is not signed.
type httpCI struct {
	*httptest.Server
	mu     sync.Mutex
	orders []httptrigger.Payload
}

func newHTTPCI(t *testing.T) *httpCI {
	ci := &httpCI{}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(httpSecret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	ci.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(r.Header.Get("Webhook-Id") + "." + r.Header.Get("Webhook-Timestamp") + "." + string(body)))
		var o httptrigger.Payload
		if r.Header.Get("Webhook-Signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) || json.Unmarshal(body, &o) != nil {
			t.Errorf("refused: %v %s", r.Header, body)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		ci.mu.Lock()
		defer ci.mu.Unlock()
		ci.orders = append(ci.orders, o)
		w.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(ci.Close)
	return ci
}

// told are the orders so far.
func (ci *httpCI) told() []httptrigger.Payload {
	ci.mu.Lock()
	defer ci.mu.Unlock()
	return slices.Clone(ci.orders)
}

// reachedAt is where the yard says to be reached; its requests go to where it listens.
const reachedAt = "https://signalbox.example.org/box"

// result is what a CI tells of the run of an order, and the code it is answered.
func (y *yard) result(o httptrigger.Payload, token, body string) int {
	y.t.Helper()
	path, ok := strings.CutPrefix(o.StatusURL, reachedAt)
	if !ok || o.StatusToken == "" {
		y.t.Fatalf("no way back: %+v", o)
	}
	req, err := http.NewRequestWithContext(y.t.Context(), http.MethodPatch, y.url+path, bytes.NewBufferString(body))
	if err != nil {
		y.t.Fatal(err)
	}
	for name, value := range map[string]string{"Authorization": "Bearer " + token, "Content-Type": "application/json", "Idempotency-Key": uuid.NewString()} {
		req.Header.Set(name, value)
	}
	res, err := web.Do(req)
	if err != nil {
		y.t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// A CI that is no forge hears of exactly the granted commits, and of the end of each grant. What it tells back with the
// token of a run ends the check of that run, and of no other.
func TestHTTPTrigger(t *testing.T) {
	ci := newHTTPCI(t)
	y := newYard(t, true, "SIGNALBOX_HTTP_TRIGGER_SECRET="+httpSecret, "SIGNALBOX_HTTP_TRIGGER_PRIVATE=1", "SIGNALBOX_URL="+reachedAt+"/")
	y.env = append(y.env, "SIGNALBOX_TRIGGER=http:"+ci.URL+"/start")
	y.up()
	rest := func() {
		for range 4 {
			y.send()
			y.settle()
		}
		y.later(3 * time.Minute)
	}
	pr := y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true})
	shows := func(sha, state, title string) {
		t.Helper()
		rest()
		var last sandbox.Write
		for _, w := range y.forge.Writes(0) {
			if w.Name == "presubmit" && w.SHA == sha {
				last = w
			}
		}
		if last.State != state || title != "" && last.Title != title {
			t.Errorf("presubmit %+v, want %s %q:\n%s", last, state, title, y.story(pr))
		}
	}
	rest()
	first := pr.Head()
	pr.Label(y.maya, "CICD")
	shows(first, "queued", "Queued")
	if got := y.repo.Gate(first, "CI gate"); got != "success" {
		t.Errorf("gate %q:\n%s", got, y.story(pr))
	}
	a := ci.told()[0]
	if a.Action != "start" || a.SHA != first || a.PR != pr.Number || a.Repo != "octo/hello" || a.Instance != "github" || a.BaseSHA != y.repo.Tip("main") {
		t.Errorf("%+v", a)
	}
	if code := y.result(a, a.StatusToken, `{"state":"running","description":"<b>40</b> of 120","target_url":"https://ci.example.org/7"}`); code != http.StatusAccepted {
		t.Errorf("running: %d", code)
	}
	shows(first, "in_progress", "·b·40·/b· of 120")
	if c := y.repo.Check(first, "presubmit"); c.DetailsURL() != "https://ci.example.org/7" {
		t.Errorf("%+v", c)
	}

	// The head moves on: what is told of the former one changes nothing there, and its token opens nothing else.
	pr.Push(y.mallory)
	shows(first, "cancelled", "")
	y.later(10 * time.Minute)
	pr.Label(y.maya, "CICD")
	second := pr.Head()
	shows(second, "queued", "Queued")
	told := ci.told()
	b := told[len(told)-1]
	if len(told) != 3 || told[1].Action != "cancel" || told[1].Key != a.Key || told[1].StatusToken != "" || b.SHA != second || b.Key == a.Key {
		t.Fatalf("told %+v:\n%s", told, y.story(pr))
	}
	const passed = `{"state":"success","description":"120 tests passed"}`
	for name, c := range map[string]struct {
		token string
		code  int
	}{
		"another run's token": {a.StatusToken, http.StatusForbidden},
		"a forged one":        {b.StatusToken[:len(b.StatusToken)-2] + "xx", http.StatusUnauthorized},
		"none":                {"", http.StatusUnauthorized},
	} {
		if code := y.result(b, c.token, passed); code != c.code {
			t.Errorf("%s is answered %d, want %d", name, code, c.code)
		}
	}
	if code := y.result(a, a.StatusToken, passed); code != http.StatusAccepted {
		t.Errorf("a superseded run's result is answered %d", code)
	}
	shows(second, "queued", "Queued")
	shows(first, "cancelled", "")

	if code := y.result(b, b.StatusToken, passed); code != http.StatusAccepted {
		t.Errorf("success: %d", code)
	}
	shows(second, "success", "120 tests passed")
	if story := y.story(pr); !strings.Contains(story, "is success: 120 tests passed") {
		t.Errorf("the story does not tell the end:\n%s", story)
	}
	y.later(24 * time.Hour)
	if code := y.result(b, b.StatusToken, `{"state":"failed"}`); code != http.StatusUnauthorized {
		t.Errorf("an expired token is answered %d", code)
	}
	shows(second, "success", "120 tests passed")

	// What was skipped tested nothing.
	pr.Push(y.mallory)
	rest()
	y.later(10 * time.Minute)
	pr.Label(y.maya, "CICD")
	rest()
	told = ci.told()
	c := told[len(told)-1]
	if code := y.result(c, c.StatusToken, `{"state":"skipped"}`); code != http.StatusAccepted {
		t.Errorf("skipped: %d", code)
	}
	shows(pr.Head(), "failure", "")
}

// Where nobody has said at which address Signalbox is reached, nothing can be told back, and nothing is promised.
func TestHTTPTrigger_nowhere(t *testing.T) {
	ci := newHTTPCI(t)
	y := newYard(t, true, "SIGNALBOX_HTTP_TRIGGER_SECRET="+httpSecret, "SIGNALBOX_HTTP_TRIGGER_PRIVATE=1")
	y.env = append(y.env, "SIGNALBOX_TRIGGER=http:"+ci.URL+"/start")
	y.up()
	y.repo.OpenPR(y.maya, sandbox.PROptions{})
	for range 4 {
		y.send()
		y.settle()
	}
	if told := ci.told(); len(told) != 1 || told[0].StatusURL+told[0].StatusToken != "" {
		t.Errorf("told %+v", told)
	}
}
