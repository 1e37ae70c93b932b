package webhook

import (
	"net/http"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/github"
)

// What a real GitHub hook makes of bad input, seen from the sender's side.
func TestBadInputAtGitHub(t *testing.T) {
	const genuine = `{"action":"opened","number":7,"pull_request":{"number":7,"state":"open","updated_at":"2026-11-20T10:00:00Z",` +
		`"user":{"id":5,"login":"mallory"},"head":{"sha":"0123456789012345678901234567890123456789","ref":"x","repo":{"id":99}},` +
		`"base":{"sha":"9876543210987654321098765432109876543210","ref":"main","repo":{"id":1296269}}},` +
		`"repository":{"id":1296269,"full_name":"acme/widgets"},"sender":{"id":5,"login":"mallory"}}`
	swap := func(old, by string) string {
		if !strings.Contains(genuine, old) {
			t.Fatalf("%s is not in the delivery", old)
		}
		return strings.Replace(genuine, old, by, 1)
	}
	for _, c := range []struct {
		name   string
		body   string
		status int
		stored bool
	}{
		{"genuine", genuine, http.StatusAccepted, true},
		{"deleted fork", swap(`"repo":{"id":99}`, `"repo":null`), http.StatusAccepted, true},
		{"null author", swap(`"user":{"id":5,"login":"mallory"}`, `"user":null`), http.StatusAccepted, true},
		{"null sender", swap(`"sender":{"id":5,"login":"mallory"}`, `"sender":null`), http.StatusAccepted, true},
		{"unknown action", swap(`"opened"`, `"pondered"`), http.StatusAccepted, true},
		{"truncated", genuine[:len(genuine)/2], http.StatusBadRequest, false},
		{"empty", "", http.StatusBadRequest, false},
		{"null", "null", http.StatusBadRequest, false},
		{"a list", "[]", http.StatusBadRequest, false},
		{"a repository of the wrong type", swap(`"repository":{"id":1296269,"full_name":"acme/widgets"}`, `"repository":"acme/widgets"`), http.StatusBadRequest, false},
		{"no number", swap(`"number":7,"pull_request":{"number":7,`, `"pull_request":{`), http.StatusBadRequest, false},
		{"absurd nesting", swap(`"opened"`, strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000)), http.StatusBadRequest, false},
		{"absurd nesting of what nobody reads", swap(`"opened"`, `"opened","x":`+strings.Repeat(`{"x":`, 100_000)+"1"+strings.Repeat("}", 100_000)), http.StatusBadRequest, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t)
			hook, err := github.NewHook("github", []string{secret})
			if err != nil {
				t.Fatal(err)
			}
			e.handler.forges["github"] = hook
			res, s := e.send(t, e.signed(t, c.body))
			if res.StatusCode != c.status {
				t.Errorf("answered %d %+v, want %d", res.StatusCode, s, c.status)
			}
			if got := len(e.box.stored()) == 1; got != c.stored {
				t.Errorf("stored %v", e.box.stored())
			}
		})
	}
}
