package sandbox_test

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v4"
	"github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// clock is a forge's clock that a test moves.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 21, 9, 0, 0, 500_000_000, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// stage is the world most tests begin with: acme/widget, its maintainer, an outsider with a fork, and our two ways in.
type stage struct {
	*sandbox.Forge
	described *described
	t         *testing.T
	url       string
	clock     *clock
	alice     *sandbox.User // writes
	mallory   *sandbox.User // an outsider
	owner     *sandbox.User // administers; her token is ours
	repo      *sandbox.Repo
	pr        *sandbox.PR // mallory's, from a fork
	app       *sandbox.App
	install   *sandbox.Installation
	key       *rsa.PrivateKey
}

const secret = "the webhook's own"

func newStage(t *testing.T) *stage {
	t.Helper()
	s := &stage{t: t, clock: newClock()}
	d := newDescribed(t)
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)
	s.url = server.URL
	s.Forge = sandbox.New(sandbox.Options{Clock: s.clock.now, Seed: t.Name(), URL: server.URL})
	s.described, d.next = d, s.Forge
	s.alice, s.mallory, s.owner = s.AddUser("alice"), s.AddUser("mallory"), s.AddUser("olivia")
	s.repo = s.AddRepo("acme/widget", sandbox.RepoOptions{
		Permissions: map[*sandbox.User]string{s.alice: "write", s.owner: "admin"},
		Branches:    []string{"release", "signalbox-presubmit"},
		Labels:      []string{"CICD"},
		Workflows: []sandbox.WorkflowOptions{
			{
				File: ".github/workflows/presubmit.yml", Name: "presubmit", On: []string{"workflow_dispatch"},
				RunName: "PR ${{ inputs.pr }} ${{ inputs.sha }} ${{ inputs.signalbox }}",
				Inputs: []sandbox.Input{
					{Name: "signalbox", Required: true},
					{Name: "pr", Required: true},
					{Name: "sha", Required: true},
					{Name: "base_sha", Required: true},
					{Name: "level", Default: "full"},
				},
			},
			{
				File: ".github/workflows/dispatched.yml", Name: "dispatched", On: []string{"repository_dispatch"}, Types: []string{"signalbox"},
				RunName: "${{ github.event.client_payload.key }}",
			},
			{File: ".github/workflows/native.yml", Name: "native", On: []string{"pull_request"}},
		},
	})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	s.key = key
	s.app = s.AddApp(sandbox.AppOptions{Slug: "signalbox", Owner: "acme", Key: &key.PublicKey, Secret: secret})
	s.install = s.app.Install(s.repo)
	s.pr = s.repo.OpenPR(s.mallory, sandbox.PROptions{Fork: true, Title: "Improve it"})
	return s
}

// as is a client with a token; "" = none.
func (s *stage) as(token string) *github.Client {
	s.t.Helper()
	c, err := github.NewClient(&http.Client{}).WithEnterpriseURLs(s.url, s.url)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		c = c.WithAuthToken(token)
	}
	return c
}

func (s *stage) jwt(change func(*jwt.RegisteredClaims)) string {
	s.t.Helper()
	claims := jwt.RegisteredClaims{
		Issuer: strconv.FormatInt(s.app.ID, 10), IssuedAt: jwt.NewNumericDate(time.Now().Add(-time.Minute)),
		ExpiresAt: jwt.NewNumericDate(time.Now().Add(5 * time.Minute)),
	}
	if change != nil {
		change(&claims)
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodRS256, claims).SignedString(s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return token
}

// asApp is a client with an installation token.
func (s *stage) asApp() *github.Client {
	s.t.Helper()
	token, _, err := s.as(s.jwt(nil)).Apps.CreateInstallationToken(s.t.Context(), s.install.ID, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.as(token.GetToken())
}

// refused wants an error answer of this status and message, and answers its problems.
func refused(t *testing.T, err error, status int, message string) []github.Error {
	t.Helper()
	var e *github.ErrorResponse
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an answer of status %d", err, status)
	}
	if e.Response.StatusCode != status || e.Message != message {
		t.Fatalf("got %d %q, want %d %q", e.Response.StatusCode, e.Message, status, message)
	}
	return e.Errors
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// story is what was delivered, as "event.action sender".
func (s *stage) story(since int) []string {
	var lines []string
	for _, d := range s.Deliveries() {
		if d.Seq <= since {
			continue
		}
		var body struct{ Sender struct{ Login string } }
		if err := json.Unmarshal(d.Body, &body); err != nil {
			s.t.Fatal(err)
		}
		line := d.Event
		if d.Action != "" {
			line += "." + d.Action
		}
		lines = append(lines, fmt.Sprint(line, " ", body.Sender.Login))
	}
	return lines
}
