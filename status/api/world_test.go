package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlab"
	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
	"github.com/signalbox-ci/signalbox/status"
)

var secret = []byte("a secret key of thirty-two bytes")

// world is the service on a real store and engine, before a sandbox GitLab over HTTP, held against its description.
type world struct {
	*testing.T
	forge   *gitlabsandbox.Forge
	project *gitlabsandbox.Project
	repo    forge.Repo
	sha     string
	store   *embedded.Store
	engine  *actor.Engine
	service *Service
	url     string
	token   string // for the project, every context
	logs    *observer.ObservedLogs

	ahead atomic.Int64 // of the clock that everybody has
	mu    sync.Mutex
	holds []*hold
}

// hold stops the next post of a context before the forge has seen it.
type hold struct {
	context string
	reached chan struct{}
	freed   chan struct{}
	free    func()
}

func begin(t *testing.T) *world {
	t.Helper()
	w := &world{T: t}
	w.forge = gitlabsandbox.New(w.now)
	bot := w.forge.AddUser("project_1_bot_ab", true)
	w.project = w.forge.AddProject("octo/hello", map[*gitlabsandbox.User]int{bot: gitlabsandbox.Developer})
	w.repo = forge.Repo{Instance: "gitlab", ID: w.project.ID, Name: "octo/hello"}
	w.sha = w.project.Push("main")
	lab := httptest.NewServer(w.wire(w.forge.Handler()))
	t.Cleanup(lab.Close)
	client, err := gitlab.New(gitlab.Options{Instance: "gitlab", URL: lab.URL, Token: bot.Token})
	w.must(err)

	w.store, err = embedded.Open(t.Context(), filepath.Join(t.TempDir(), "signalbox.db"), embedded.Options{Now: w.now})
	w.must(err)
	w.engine = actor.New(w.store, lock.NewLocal(15*time.Second), actor.Options{Poll: 20 * time.Millisecond})
	actor.Register(w.engine, "commit", status.New(
		func(string) (status.Forge, error) { return client, nil }, func(forge.Repo) bool { return false },
	), actor.KindOptions{MailFormat: status.Format, EffectTimeout: 25 * time.Second})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	t.Cleanup(func() { // last of all: the store is closed when nobody uses it any more
		stop()
		if err := <-ended; err != nil {
			t.Errorf("engine: %v", err)
		}
		_ = w.store.Close() // a test may have closed it
	})
	w.serve(Options{})
	w.token, err = Issue(t.Context(), w.engine, Grant{Repos: []forge.Repo{w.repo}, By: "test"}, 0)
	w.must(err)
	return w
}

// serve begins a service with some options of the test's own.
func (w *world) serve(o Options) {
	w.Helper()
	core, logs := observer.New(zap.DebugLevel)
	w.logs = logs
	o.Clients = status.NewClients(w.engine, w.store, func(_ forge.Repo, name string) bool { return name == "CI gate" })
	o.Store, o.Secret, o.Log = w.store, secret, zap.New(core)
	o.Now = w.now
	var err error
	w.service, err = New(o)
	w.must(err)
	server := httptest.NewServer(theDescription().hold(w.service.Handler(), func(err error) { w.Error(err) }))
	w.Cleanup(server.Close)
	w.Cleanup(w.service.Stop)
	w.url = server.URL
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) wire(next http.Handler) http.Handler {
	return http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if h := w.holding(r, body); h != nil {
			close(h.reached)
			<-h.freed
		}
		next.ServeHTTP(out, r)
	})
}

func (w *world) holding(r *http.Request, body []byte) *hold {
	w.mu.Lock()
	defer w.mu.Unlock()
	var in struct{ Name, Context string }
	_ = json.Unmarshal(body, &in) // a call without a body is none of those
	for i, h := range w.holds {
		if r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/statuses/") && (in.Name == h.context || in.Context == h.context) {
			w.holds = append(w.holds[:i:i], w.holds[i+1:]...)
			return h
		}
	}
	return nil
}

// hold makes the next post of a context stop until it is freed, at the latest at the end of the test.
func (w *world) hold(context string) *hold {
	freed := make(chan struct{})
	h := &hold{context, make(chan struct{}), freed, sync.OnceFunc(func() { close(freed) })}
	w.Cleanup(h.free)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds = append(w.holds, h)
	return h
}

// held waits until a post is held.
func (w *world) held(h *hold) {
	w.Helper()
	select {
	case <-h.reached:
	case <-time.After(patience):
		w.Fatalf("the post of %s never left", h.context)
	}
}

// patience bounds every wait. It is reached only when something is broken.
const patience = time.Minute

func (w *world) until(what string, ok func() bool) {
	w.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(patience); !ok(); {
		select {
		case <-tick.C:
		case <-end:
			w.Fatalf("never came true: %s", what)
		}
	}
}

// answer is what a request was answered.
type answer struct {
	status int
	header http.Header
	text   string
	body   map[string]any
}

// at finds a member by its path: "operation.order.attempt".
func (a answer) at(path string) string {
	var v any = a.body
	for _, p := range strings.Split(path, ".") {
		o, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = o[p]
	}
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// ask sends a request with the world's token and, where it writes, a fresh key. Headers are name, value, …; an empty
// value takes the header away.
func (w *world) ask(method, path, body string, headers ...string) answer {
	w.Helper()
	r, err := http.NewRequestWithContext(w.Context(), method, w.url+path, strings.NewReader(body))
	w.must(err)
	r.Header.Set("Authorization", "Bearer "+w.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", random(8))
	}
	for i := 0; i < len(headers); i += 2 {
		if r.Header.Set(headers[i], headers[i+1]); headers[i+1] == "" {
			r.Header.Del(headers[i])
		}
	}
	res, err := http.DefaultClient.Do(r) //nolint:forbidigo // towards a test's own server, within a test's own context
	w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	w.must(err)
	a := answer{status: res.StatusCode, header: res.Header, text: string(b)}
	_ = json.Unmarshal(b, &a.body) // a list is read from text
	return a
}

// want fails the test if an answer has another status, or lacks one of the words.
func (w *world) want(a answer, status int, words ...string) answer {
	w.Helper()
	if a.status != status {
		w.Fatalf("%d %s, want %d", a.status, a.text, status)
	}
	for _, x := range words {
		if !strings.Contains(a.text, x) {
			w.Errorf("%d %s, want %s", a.status, a.text, x)
		}
	}
	return a
}

func (w *world) list() string {
	return fmt.Sprintf("/api/v2/projects/%d/commits/%s/statuses", w.repo.ID, w.sha)
}

func (w *world) create(body string, headers ...string) answer {
	w.Helper()
	return w.ask(http.MethodPost, w.list(), body, headers...)
}

func (w *world) update(run, body string, headers ...string) answer {
	w.Helper()
	return w.ask(http.MethodPatch, w.list()+"/"+run, body, headers...)
}

// ended polls an operation until it has ended.
func (w *world) ended(a answer) (end answer) {
	w.Helper()
	id := a.at("operation.id")
	w.until("operation "+id+" ends", func() bool {
		end = w.want(w.ask(http.MethodGet, "/api/v2/status-operations/"+id+"?wait=20", ""), http.StatusOK)
		return status.OpState(end.at("state")).Final()
	})
	return end
}

// pushed are the posts that the forge took for a context, as "state description".
func (w *world) pushed(context string) (out []string) {
	for _, p := range w.project.Posts(w.sha) {
		if p.Name == context {
			out = append(out, strings.TrimSpace(p.State+" "+p.Description))
		}
	}
	return out
}

// put stores a commit's document as a pull request would have left it.
func (w *world) put(d status.Document) {
	w.Helper()
	_, err := actor.Ask(w.Context(), w.engine, status.Subject(w.repo, w.sha), "", func(status.Document, time.Time) (actor.Step[status.Document], error) {
		return actor.Step[status.Document]{Next: d}, nil
	})
	w.must(err)
}

// grant is what the world's token is for.
func (w *world) grant() Grant {
	w.Helper()
	list, err := Grants(w.Context(), w.store)
	w.must(err)
	return list[0]
}

func (w *world) commit() state.Subject { return status.Subject(w.repo, w.sha) }
