package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/httptrigger"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// A CI that is no forge hears of exactly the granted commits, and of the end of each grant.
func TestHTTPTrigger(t *testing.T) {
	var mu sync.Mutex
	var orders []httptrigger.Payload
	ci := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var o httptrigger.Payload
		if err := json.NewDecoder(r.Body).Decode(&o); err != nil || r.Header.Get("Webhook-Signature") == "" {
			t.Errorf("%v: %v", err, r.Header)
		}
		mu.Lock()
		defer mu.Unlock()
		orders = append(orders, o)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer ci.Close()
	y := newYard(t, true)
	y.env = append(y.env, "SIGNALBOX_TRIGGER=http:"+ci.URL+"/start", "SIGNALBOX_HTTP_TRIGGER_SECRET="+httpSecret, "SIGNALBOX_HTTP_TRIGGER_PRIVATE=1")
	y.up()
	rest := func() {
		for range 4 {
			y.send()
			y.settle()
		}
		y.later(3 * time.Minute)
	}
	pr := y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true})
	rest()
	first := pr.Head()
	pr.Label(y.maya, "CICD")
	rest()
	if got := y.repo.Gate(first, "CI gate"); got != "success" {
		t.Errorf("gate %q:\n%s", got, y.story(pr))
	}
	if c := y.repo.Check(first, "presubmit"); c == nil || c.State() != "queued" {
		t.Errorf("presubmit %+v", c)
	}
	pr.Push(y.mallory)
	rest()
	mu.Lock()
	defer mu.Unlock()
	var told []string
	for _, o := range orders {
		told = append(told, o.Action)
		if o.SHA != first || o.PR != pr.Number || o.Repo != "octo/hello" || o.Instance != "github" || o.BaseSHA != y.repo.Tip("main") || o.Key != orders[0].Key {
			t.Errorf("%+v", o)
		}
	}
	if !slices.Equal(told, []string{"start", "cancel"}) {
		t.Errorf("told %v:\n%s", told, y.story(pr))
	}
}
