package github

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// GitHub's answers as they come over HTTP, and what each means.
func TestClassify(t *testing.T) {
	const secondary = `{"message":"You have exceeded a secondary rate limit. Please wait a few minutes before you try again.","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"}`
	const primary = `{"message":"API rate limit exceeded for installation ID 5.","documentation_url":"https://docs.github.com/rest/overview/rate-limits-for-the-rest-api"}`
	say := func(s string) string {
		return fmt.Sprintf(`{"message":%q,"documentation_url":"https://docs.github.com/rest"}`, s)
	}
	date := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) string { return fmt.Sprint(date.Add(d).Unix()) }
	for _, c := range []struct {
		name   string
		status int
		header map[string]string
		body   string
		class  forge.Class
		after  time.Duration
	}{
		{"400", 400, nil, say("Problems parsing JSON"), forge.Permanent, 0},
		{"401", 401, nil, say("Bad credentials"), forge.Auth, 0},
		{"401 two factors", 401, map[string]string{"X-GitHub-OTP": "required; app"}, say("Must specify two-factor authentication OTP code."), forge.Auth, 0},
		{"403 App lacks permission", 403, nil, say("Resource not accessible by integration"), forge.Auth, 0},
		{"403 token lacks permission", 403, nil, say("Resource not accessible by personal access token"), forge.Auth, 0},
		{"403 token lacks role", 403, nil, say("Must have push access to view collaborator permission."), forge.Auth, 0},
		{"403 suspended", 403, nil, say("This installation has been suspended"), forge.Auth, 0},
		{"403 not an App", 403, nil, say("You must authenticate via a GitHub App."), forge.Auth, 0},
		{"403 single sign-on", 403, map[string]string{"X-GitHub-SSO": "required; url=https://github.com/orgs/acme/sso"}, say("Resource protected by organization."), forge.Auth, 0},
		{"403 address list", 403, nil, say("Although you appear to have the correct authorization credentials, the `acme` organization has an IP allow list enabled"), forge.Auth, 0},
		{"403 archived", 403, nil, say("Repository was archived so is read-only."), forge.Permanent, 0},
		{"403 not from a fork", 403, nil, say("This run is not from a fork pull request"), forge.Permanent, 0},
		{"403 blocked", 403, nil, say("Repository access blocked"), forge.Permanent, 0},
		{"403 without body", 403, nil, ``, forge.Permanent, 0},
		{"403 primary", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in(25 * time.Minute)}, primary, forge.Contention, 25 * time.Minute},
		{"429 primary", 429, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in(25 * time.Minute)}, primary, forge.Contention, 25 * time.Minute},
		{"403 primary, window over", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in(-time.Minute)}, primary, forge.Contention, time.Second},
		{"403 primary, absurd reset", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": in(1e6 * time.Hour)}, primary, forge.Contention, time.Hour},
		{"403 primary, broken reset", 403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "soon"}, primary, forge.Contention, time.Minute},
		{"403 secondary", 403, map[string]string{"Retry-After": "90"}, secondary, forge.Contention, 90 * time.Second},
		{"429 secondary", 429, map[string]string{"Retry-After": "90"}, secondary, forge.Contention, 90 * time.Second},
		{"403 secondary without time", 403, map[string]string{"X-RateLimit-Remaining": "4000", "X-RateLimit-Reset": in(40 * time.Minute)}, secondary, forge.Contention, time.Minute},
		{"403 abuse, older words", 403, nil, say("You have triggered an abuse detection mechanism. Please retry your request again later."), forge.Contention, time.Minute},
		{"403 absurd retry-after", 403, map[string]string{"Retry-After": "99999999999999999"}, secondary, forge.Contention, time.Hour},
		{"403 negative retry-after", 403, map[string]string{"Retry-After": "-5"}, secondary, forge.Contention, time.Second},
		{"403 retry-after as a date", 403, map[string]string{"Retry-After": "Fri, 01 May 2026 12:05:00 GMT"}, secondary, forge.Contention, time.Minute},
		{"429 of a proxy", 429, nil, `<html>slow down</html>`, forge.Contention, time.Minute},
		{"404", 404, nil, say("Not Found"), forge.NotFound, 0},
		{"408", 408, nil, ``, forge.Retriable, 0},
		{"409", 409, nil, say("Conflict"), forge.Contention, 0},
		{"410", 410, nil, say("Issues are disabled for this repo"), forge.Permanent, 0},
		{"422", 422, nil, `{"message":"Validation Failed","errors":[{"resource":"IssueLabel","field":"name","code":"invalid"}]}`, forge.Permanent, 0},
		{"422 of strings", 422, nil, `{"message":"Unprocessable","errors":["wrong"]}`, forge.Permanent, 0},
		{"422 1000 statuses", 422, nil, say("Validation Failed: This SHA and context has reached the maximum number of statuses."), forge.Permanent, 0},
		{"422 commit not there yet", 422, nil, say("No commit found for SHA: 0123456789012345678901234567890123456789"), forge.NotFound, 0},
		{"451", 451, nil, `{"message":"Repository access blocked","block":{"reason":"dmca"}}`, forge.Permanent, 0},
		{"500", 500, nil, ``, forge.Retriable, 0},
		{"502 of a proxy", 502, nil, `<html>Unicorn!</html>`, forge.Retriable, 0},
		{"503 with retry-after", 503, map[string]string{"Retry-After": "5"}, ``, forge.Retriable, 0},
		{"200 that is no JSON", 200, nil, `<html>login</html>`, forge.Retriable, 0},
		{"200 cut", 200, nil, `{"number":`, forge.Retriable, 0},
		{"200 of the wrong shape", 200, nil, `{"number":"seven"}`, forge.Retriable, 0},
		{"200 of nothing", 200, nil, ``, forge.Retriable, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", date.Format(http.TimeFormat))
				for k, v := range c.header {
					w.Header().Set(k, v)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			})
			_, err := client.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: "acme/widgets"}, Number: 7})
			class := classOf(t, err)
			f := forge.Classify(err)
			if class != c.class || f.After != c.after || c.status >= 400 && f.Status != c.status {
				t.Errorf("%v: class %v, after %v, status %d; expected %v, %v", err, class, f.After, f.Status, c.class, c.after)
			}
		})
	}
}

// What never reached GitHub, or whose answer never came back.
func TestClassify_network(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	for name, fault := range map[string]sandbox.Fault{
		"answer lost": {Cut: true},
		"refused":     {Refuse: true},
	} {
		w.forge.SetFault(func(*http.Request) *sandbox.Fault { return &fault })
		_, err := w.Pull(t.Context(), w.ref(pr))
		if classOf(t, err) != forge.Retriable || strings.Contains(err.Error(), "http://") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.forge.SetFault(func(*http.Request) *sandbox.Fault { return &sandbox.Fault{Wait: make(chan struct{})} })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := w.Pull(ctx, w.ref(pr))
	if classOf(t, err) != forge.Retriable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("timeout: %v", err)
	}
	gone := newClient(t, Options{Instance: "github", APIURL: "http://127.0.0.1:1", Token: "t"})
	if _, err := gone.Pull(t.Context(), w.ref(pr)); classOf(t, err) != forge.Retriable {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestClassify_badToken(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	c := newClient(t, Options{Instance: "github", APIURL: w.url, Token: "ghp_wrong"})
	if _, err := c.Pull(t.Context(), w.ref(pr)); classOf(t, err) != forge.Auth {
		t.Errorf("%v", err)
	}
	foreign := newClient(t, Options{Instance: "github", APIURL: w.url, Token: w.outsider.Token})
	if err := foreign.SetLabel(t.Context(), w.ref(pr), "CICD", true); classOf(t, err) != forge.Auth {
		t.Errorf("a token without rights: %v", err)
	}
}

// Whatever the other side says, no text of ours carries a secret, a URL's query, a line break, or more than a line.
func TestFault_text(t *testing.T) {
	for _, said := range []string{
		"token ghp_0123456789abcdefghijABCDEFGHIJ012345 is bad",
		"ghs_0123456789abcdefghijABCDEFGHIJ012345",
		"github_pat_11ABCDEFG0abcdefghij_sesame was revoked",
		"header Authorization: Bearer sesame.sesame",
		"jwt eyJhbGciOiJSUzI1NiJ9.eyJzZXNhbWUiOjF9.c2VzYW1l expired",
		"see https://github.com/orgs/acme/sso?authorization_request=sesame now",
		"proxy http://user:sesame@proxy.example/ refused",
		"two\nlines\r\nand \x1b[31mred",
		strings.Repeat("ä", 5000),
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = fmt.Fprintf(w, `{"message":%s,"errors":[{"code":"custom","message":%s}]}`, quoted(said), quoted(said))
		})
		_, err := c.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: "acme/widgets"}, Number: 7})
		text := err.Error()
		for _, never := range []string{"sesame", "ghp_", "ghs_", "github_pat_", "eyJ", "\n", "\x1b", "\r"} {
			if strings.Contains(text, never) {
				t.Errorf("%q contains %q", text, never)
			}
		}
		if !utf8.ValidString(text) || utf8.RuneCountInString(text) > 280 {
			t.Errorf("%d runes: %q", utf8.RuneCountInString(text), text)
		}
	}
}

func quoted(s string) string { return strings.ReplaceAll(fmt.Sprintf("%+q", s), `\x1b`, `\u001b`) }
