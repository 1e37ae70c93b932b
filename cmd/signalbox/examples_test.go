package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/state"
)

// TestExamples sends every delivery that GitHub publishes as an example (forge/github/testdata/examples.go) to the whole
// service, as it would come, about repositories and people that the forge knows nothing of: each is accepted, read and
// decided, and none breaks anything. What nobody handles is answered 200.
func TestExamples(t *testing.T) {
	text, err := os.ReadFile("../../forge/github/testdata/examples.json")
	if err != nil {
		t.Fatal(err)
	}
	var examples map[string][]json.RawMessage
	if err := json.Unmarshal(text, &examples); err != nil {
		t.Fatal(err)
	}
	hook, err := github.NewHook("github", []string{yardSecret})
	if err != nil {
		t.Fatal(err)
	}
	for name, app := range map[string]bool{"App": true, "token": false} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, app)
			y.env = slices.DeleteFunc(y.env, func(kv string) bool { return strings.HasPrefix(kv, "SIGNALBOX_REPOS=") })
			y.up()
			subjects := map[state.Subject]int{}
			for event, list := range examples {
				for i, body := range list {
					guid := fmt.Sprintf("%s-%d", event, i)
					header := http.Header{"X-Github-Event": {event}, "X-Github-Delivery": {guid}}
					to, err := hook.Route(header, body)
					if err != nil {
						t.Fatal(guid, err)
					}
					want := http.StatusOK
					if to.Kind != "" {
						want = http.StatusAccepted
						subjects[state.Subject{Instance: "github", Project: to.Project, Kind: to.Kind, Key: to.Key}]++
					}
					header.Set("X-Hub-Signature-256", sandbox.Sign(yardSecret, body))
					header.Set("Content-Type", "application/json")
					req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, y.url+"/webhooks/github", bytes.NewReader(body))
					if err != nil {
						t.Fatal(err)
					}
					req.Header = header
					res, err := web.Do(req)
					if err != nil {
						t.Fatal(err)
					}
					_ = res.Body.Close()
					if res.StatusCode != want {
						t.Errorf("%s is answered %d, want %d", guid, res.StatusCode, want)
					}
				}
			}
			y.pass(10*time.Minute, 2*time.Minute)
			for s, n := range subjects {
				v, err := actor.See(t.Context(), y.running.app.store, s)
				switch {
				case err != nil:
					t.Error(err)
				case v.Seq < int64(n) || v.Unread > 0:
					t.Errorf("%s: of %d, %d are decided and %d unread", s, n, v.Seq, v.Unread)
				case !v.Quarantined.IsZero() || v.Crashes > 0 || v.LastPanic != "":
					t.Errorf("%s broke: %+v", s, v)
				}
				for _, d := range v.Dead {
					t.Errorf("%s: dead letter %+v", s, d)
				}
			}
			if len(subjects) < 5 {
				t.Errorf("%d subjects", len(subjects))
			}
		})
	}
}
