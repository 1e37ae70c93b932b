package github

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func TestNew_refuses(t *testing.T) {
	_, key := appKey(t)
	for name, o := range map[string]Options{
		"no instance":       {Token: "t"},
		"nobody":            {Instance: "github"},
		"token and App":     {Instance: "github", Token: "t", AppID: 1, PrivateKey: key},
		"key without App":   {Instance: "github", PrivateKey: key},
		"negative App":      {Instance: "github", AppID: -1, PrivateKey: key},
		"App without key":   {Instance: "github", AppID: 1},
		"not a key":         {Instance: "github", AppID: 1, PrivateKey: []byte("sesame")},
		"token with end":    {Instance: "github", Token: "sesame\n"},
		"URL without host":  {Instance: "github", Token: "t", APIURL: "https:///api"},
		"URL of files":      {Instance: "github", Token: "t", APIURL: "file:///etc"},
		"URL with password": {Instance: "github", Token: "t", APIURL: "https://u:sesame@ghe.example/"},
		"URL with query":    {Instance: "github", Token: "t", APIURL: "https://ghe.example/?token=sesame"},
		"URL broken":        {Instance: "github", Token: "t", APIURL: "https://sesame\x7f"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := New(o)
			if err == nil {
				t.Fatal("accepted")
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error %q shows a secret", err)
			}
		})
	}
}

func TestBaseURL(t *testing.T) {
	for given, want := range map[string]string{
		"https://api.github.com":         "https://api.github.com/",
		"https://api.github.com/":        "https://api.github.com/",
		"https://api.acme.ghe.com":       "https://api.acme.ghe.com/",
		"https://ghe.example":            "https://ghe.example/api/v3/",
		"https://ghe.example/":           "https://ghe.example/api/v3/",
		"https://ghe.example/api/v3":     "https://ghe.example/api/v3/",
		"https://ghe.example/api/v3/":    "https://ghe.example/api/v3/",
		"https://proxy.example/github":   "https://proxy.example/github/",
		"http://127.0.0.1:8081":          "http://127.0.0.1:8081/",
		"http://localhost:8081":          "http://localhost:8081/",
		"http://[::1]:8081/api/v3":       "http://[::1]:8081/api/v3/",
		"https://127.0.0.1.example.org/": "https://127.0.0.1.example.org/api/v3/",
	} {
		u, err := baseURL(given)
		if err != nil || u.String() != want {
			t.Errorf("%s: %v, %v; expected %s", given, u, err, want)
		}
	}
}

// An Enterprise Server answers under /api/v3/, tokens of its installations included.
func TestEnterprise(t *testing.T) {
	w := newForge(t)
	public, private := appKey(t)
	app := w.forge.AddApp(sandbox.AppOptions{Slug: "signalbox-acme", Owner: "acme", Key: public})
	app.Install(w.repo)
	outside := ""
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if !strings.HasPrefix(r.RequestURI, "/api/v3/") {
			outside = r.RequestURI
		}
		return nil
	})
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	for name, o := range map[string]Options{
		"token": {Token: w.me.Token},
		"App":   {AppID: app.ID, PrivateKey: private},
	} {
		o.Instance, o.APIURL = "ghe", w.url+"/api/v3"
		c := newClient(t, o)
		if _, err := c.Pull(t.Context(), w.ref(pr)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if outside != "" {
		t.Errorf("a call went to %s, outside of /api/v3/", outside)
	}
}

func TestSelf(t *testing.T) {
	w := tokenWorld(t)
	calls := w.calls(t, func() {
		for range 2 {
			me, app, err := w.Self(t.Context())
			if err != nil || app || me != who(w.me) {
				t.Errorf("token: %+v, App %v, %v; expected %+v", me, app, err, who(w.me))
			}
		}
	})
	if len(calls) != 1 {
		t.Errorf("token: asked %v", calls)
	}

	w = appWorld(t)
	want := forge.Actor{ID: w.app.Bot.ID, Login: "signalbox-acme[bot]", Bot: true}
	calls = w.calls(t, func() {
		for range 2 {
			me, app, err := w.Self(t.Context())
			if err != nil || !app || me != want {
				t.Errorf("App: %+v, App %v, %v; expected %+v", me, app, err, want)
			}
		}
	})
	if len(calls) != 4 { // App, installations, token, user
		t.Errorf("App: asked %v", calls)
	}
}

func TestSelf_installedNowhere(t *testing.T) {
	w := newForge(t)
	public, private := appKey(t)
	app := w.forge.AddApp(sandbox.AppOptions{Slug: "lonely", Owner: "acme", Key: public})
	c := newClient(t, Options{Instance: "github", APIURL: w.url, AppID: app.ID, PrivateKey: private})
	_, isApp, err := c.Self(t.Context())
	if classOf(t, err) != forge.NotFound || !isApp {
		t.Errorf("%v", err)
	}
}

// The installation comes from the delivery; where it does not, it is looked up once.
func TestInstallation(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	read := func(ref forge.Ref) []string {
		return w.calls(t, func() {
			if _, err := w.Pull(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
		})
	}
	first := read(w.ref(pr))
	if len(first) != 3 || first[0] != "GET /installation" || !strings.HasSuffix(first[1], "/access_tokens") {
		t.Errorf("first: %v", first)
	}
	if again := read(w.ref(pr)); len(again) != 1 {
		t.Errorf("again: %v", again)
	}
	known := w.ref(pr)
	known.Repo.Installation = w.installedAt["acme/widgets"]
	w.Client = newClient(t, Options{Instance: "github", APIURL: w.url, AppID: w.appID, PrivateKey: w.key})
	if calls := read(known); len(calls) != 2 {
		t.Errorf("known: %v", calls)
	}
}

// An installation that gives no token is the credential's fault, never a "not found" to the question asked; it is
// looked up anew, so that an App which was removed and installed again works on.
func TestInstallation_gone(t *testing.T) {
	w := appWorld(t)
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if strings.HasSuffix(r.URL.Path, "/access_tokens") {
			return &sandbox.Fault{Status: 404, Body: `{"message":"Not Found"}`}
		}
		return nil
	})
	ask := func() error {
		_, err := w.Trusted(t.Context(), w.where(), who(w.maintainer), forge.Rule{Kind: "permission", Value: "write"})
		return err
	}
	if c := classOf(t, ask()); c != forge.Auth {
		t.Errorf("class %v", c)
	}
	w.forge.SetFault(nil)
	calls := w.calls(t, func() {
		if err := ask(); err != nil {
			t.Error(err)
		}
	})
	if len(calls) != 3 || calls[0] != "GET /installation" {
		t.Errorf("afterwards: %v", calls)
	}
}

// A repository that no installation sees is the credential's fault too.
func TestInstallation_none(t *testing.T) {
	w := appWorld(t)
	other := w.forge.AddRepo("other/thing", sandbox.RepoOptions{})
	_, err := w.Trusted(t.Context(), forge.Repo{ID: other.ID, Name: other.Name()}, who(w.maintainer), forge.Rule{Kind: "permission", Value: "write"})
	if c := classOf(t, err); c != forge.Auth {
		t.Errorf("class %v", c)
	}
}

func TestRepositoryName(t *testing.T) {
	w := tokenWorld(t)
	for _, name := range []string{"", "acme", "acme/", "/widgets", "acme/widgets/x", "acme/..", "../widgets", "acme/wid gets", "acme/w?x=1", "acme/ẃidgets"} {
		calls := w.calls(t, func() {
			_, err := w.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: name}, Number: 1})
			if classOf(t, err) != forge.Permanent {
				t.Errorf("%q: %v", name, err)
			}
		})
		if len(calls) != 0 {
			t.Errorf("%q: called %v", name, calls)
		}
	}
}

// Redirects: a renamed repository is followed on its own host; nothing is sent to another host, and no redirect may
// turn a write into a read.
func TestRedirects(t *testing.T) {
	var elsewhere []string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
	}))
	t.Cleanup(other.Close)

	pull := `{"number":7,"state":"open","updated_at":"2026-01-01T00:00:00Z","head":{"sha":"aa"},"base":{"sha":"bb","repo":{"id":5,"full_name":"acme/new"}}}`
	var seen []string
	var target string
	var status int
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Method+" "+r.URL.Path)
		switch {
		case strings.HasPrefix(r.URL.Path, "/repos/"):
			w.Header().Set("Location", target)
			w.WriteHeader(status)
		case r.Method == http.MethodPost:
			_, _ = w.Write([]byte(`[]`))
		default:
			_, _ = w.Write([]byte(pull))
		}
	})
	ref := forge.Ref{Repo: forge.Repo{ID: 5, Name: "acme/old"}, Number: 7}

	target, status = "/repositories/5/pulls/7", http.StatusMovedPermanently
	if p, err := c.Pull(t.Context(), ref); err != nil || p.Ref.Repo.Name != "acme/new" {
		t.Errorf("renamed: %+v, %v", p, err)
	}
	target, status = "/repositories/5/issues/7/labels", http.StatusTemporaryRedirect
	if err := c.SetLabel(t.Context(), ref, "CICD", true); err != nil {
		t.Errorf("renamed, write: %v", err)
	}
	seen = nil
	target, status = "/repositories/5/issues/7/labels", http.StatusMovedPermanently
	if err := c.SetLabel(t.Context(), ref, "CICD", true); classOf(t, err) != forge.Permanent {
		t.Errorf("write become read: %v", err)
	}
	if slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(s, "GET") }) {
		t.Errorf("write become read: %v", seen)
	}
	target, status = other.URL+"/steal", http.StatusTemporaryRedirect
	if _, err := c.Pull(t.Context(), ref); classOf(t, err) != forge.Permanent {
		t.Errorf("elsewhere: %v", err)
	}
	if len(elsewhere) != 0 {
		t.Errorf("the other host was sent %q", elsewhere)
	}
	target, status = "/repos/acme/old/pulls/7", http.StatusMovedPermanently
	if _, err := c.Pull(t.Context(), ref); classOf(t, err) != forge.Permanent {
		t.Errorf("in a circle: %v", err)
	}
}

// An answer without end is given up, and says so.
func TestAnswer_tooLarge(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"title":"`))
		chunk := []byte(strings.Repeat("x", 1<<20))
		for range 17 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	_, err := c.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: "acme/widgets"}, Number: 1})
	if classOf(t, err) != forge.Permanent || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("%v", err)
	}
}
