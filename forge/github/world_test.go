package github

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/forge/sandbox/openapi"
)

// world is a sandbox GitHub with one repository, reached by real HTTP, and a client of it.
type world struct {
	*Client
	forge                           *sandbox.Forge
	repo                            *sandbox.Repo
	app                             *sandbox.App // App mode
	me, owner, maintainer, outsider *sandbox.User
	url                             string
}

const (
	presubmit = ".github/workflows/presubmit.yml"
	native    = ".github/workflows/ci.yml"
)

func newForge(t *testing.T) *world {
	t.Helper()
	f := sandbox.New(sandbox.Options{Seed: t.Name()})
	server, err := f.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	w := &world{forge: f, url: server.URL}
	w.me, w.owner = f.AddUser("signalbox"), f.AddUser("olga")
	w.maintainer, w.outsider = f.AddUser("maria"), f.AddUser("otto")
	inputs := []sandbox.Input{{Name: "signalbox", Required: true}, {Name: "pr", Required: true}, {Name: "sha", Required: true}, {Name: "base_sha", Required: true}}
	w.repo = f.AddRepo("acme/widgets", sandbox.RepoOptions{
		Branches:    []string{"signalbox-presubmit"},
		Permissions: map[*sandbox.User]string{w.me: "admin", w.owner: "admin", w.maintainer: "write"},
		Workflows: []sandbox.WorkflowOptions{
			{File: presubmit, On: []string{"workflow_dispatch"}, Inputs: inputs, RunName: "PR ${{ inputs.pr }} ${{ inputs.sha }} ${{ inputs.signalbox }}"},
			{File: ".github/workflows/dispatched.yml", On: []string{"repository_dispatch"}, RunName: "${{ github.event.client_payload.key }}"},
			{File: native, On: []string{"pull_request"}},
		},
	})
	return w
}

// tokenWorld has a client with the token of user "signalbox", an admin.
func tokenWorld(t *testing.T) *world {
	t.Helper()
	w := newForge(t)
	w.Client = newClient(t, Options{Instance: "github", APIURL: w.url, Token: w.me.Token})
	return w
}

// appWorld has a client of an App that is installed on the repository.
func appWorld(t *testing.T) *world {
	t.Helper()
	w := newForge(t)
	public, private := appKey(t)
	w.app = w.forge.AddApp(sandbox.AppOptions{Slug: "signalbox-acme", Owner: "acme", Key: public})
	w.app.Install(w.repo)
	w.Client = newClient(t, Options{Instance: "github", APIURL: w.url, AppID: w.app.ID, PrivateKey: private})
	return w
}

var appKeys = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func appKey(t *testing.T) (*rsa.PublicKey, []byte) {
	t.Helper()
	key, err := appKeys()
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

// newClient is a client whose requests are held against GitHub's description of its API.
func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	described, err := openapi.GitHub()
	if err != nil {
		t.Fatal(err)
	}
	if o.Transport == nil {
		pool := &http.Transport{}
		t.Cleanup(pool.CloseIdleConnections)
		o.Transport = pool
	}
	o.Transport = described.Requests(o.Transport, func(err error) { t.Error(err) })
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// serve is a client of a GitHub that answers as handler does.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return newClient(t, Options{Instance: "github", APIURL: server.URL, Token: "ghp_0123456789abcdefghijABCDEFGHIJ012345"})
}

func (w *world) ref(p *sandbox.PR) forge.Ref {
	return forge.Ref{Repo: w.where(), Number: p.Number}
}

func (w *world) where() forge.Repo {
	return forge.Repo{Instance: "github", ID: w.repo.ID, Name: w.repo.Name()}
}

// calls says which calls something makes, as "GET /path".
func (w *world) calls(t *testing.T, something func()) []string {
	t.Helper()
	since := w.forge.Seq()
	something()
	var calls []string
	for _, c := range w.forge.Calls(since) {
		calls = append(calls, c.Method+" "+strings.TrimPrefix(c.Path, "/repos/acme/widgets"))
	}
	return calls
}

func who(u *sandbox.User) forge.Actor { return forge.Actor{ID: u.ID, Login: u.Login()} }

// classOf is the class of an error that must be a Fault.
func classOf(t *testing.T, err error) forge.Class {
	t.Helper()
	f, ok := err.(*forge.Fault) //nolint:errorlint // every error is a Fault itself, not something around one
	if !ok {
		t.Fatalf("error %v (%T), expected a *forge.Fault", err, err)
	}
	if f.Op == "" || f.Err == nil {
		t.Errorf("fault %#v lacks its operation or its reason", f)
	}
	return f.Class
}
