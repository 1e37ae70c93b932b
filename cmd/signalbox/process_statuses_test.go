package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

const wardAdmin = "ward-admin-token-0123456789abcdef"

// ward is processes before a sandbox GitLab, and a CI that posts statuses to them.
type ward struct {
	*world
	lab     *gitlabsandbox.Forge
	project *gitlabsandbox.Project
	token   string
	asked   atomic.Int64
}

// beginStatuses makes the ward and begins n processes.
func beginStatuses(t *testing.T, store string, n int) *ward {
	t.Helper()
	w := &ward{world: &world{T: t, dir: t.TempDir(), forge: sandbox.New(sandbox.Options{Seed: t.Name()})}, lab: gitlabsandbox.New(time.Now)}
	bot := w.lab.AddUser("project_1_bot_ab", true)
	w.project = w.lab.AddProject("octo/hello", map[*gitlabsandbox.User]int{bot: gitlabsandbox.Developer})
	w.wire = &wire{busy: map[string]int{}, forge: w.lab.Handler()}
	w.wire.server = httptest.NewServer(w.wire)
	t.Cleanup(w.wire.server.Close)
	w.env = []string{
		"SIGNALBOX_STORE=" + store, "SIGNALBOX_GITLAB_URL=" + w.wire.server.URL, "SIGNALBOX_GITLAB_TOKEN=" + bot.Token,
		"SIGNALBOX_GITLAB_WEBHOOK_SECRET=" + labSecret, "SIGNALBOX_REPOS=octo/hello", "SIGNALBOX_LOCK_TTL=2s", "SIGNALBOX_SWEEP=24h",
		"SIGNALBOX_ADMIN_TOKEN=" + wardAdmin,
	}
	t.Cleanup(func() {
		if w.reader != nil {
			_ = w.reader.Close()
		}
	})
	w.serve(n)
	w.token = w.signalbox(exitOK, "status", "token", "--project", "gitlab:octo/hello", "--context", "ci/*")
	return w
}

// signalbox runs a command against the first process and answers what it printed.
func (w *ward) signalbox(code int, args ...string) string {
	w.Helper()
	var out, errs bytes.Buffer
	p := process{append(slices.Clone(w.env), "SIGNALBOX_URL="+w.alive()[0].url), os.ReadFile, &out, &errs}
	if got := run(w.Context(), args, p); got != code {
		w.Fatalf("%v: %d %s", args, got, errs.String())
	}
	return strings.TrimSpace(out.String() + errs.String())
}

// statusAnswer is what the status API answers.
type statusAnswer struct {
	code      int
	text      string
	replayed  bool
	Operation statusOperation
	Run       struct{ ID string }
	statusOperation
}

type statusOperation struct {
	ID, State, Reason string
	Order             status.Order
}

// ask sends a request to one process after another until one answers with anything but 503; the same key makes that one
// request. It may be called from any goroutine.
func (w *ward) ask(method, path, key, body string) (a statusAnswer) {
	if !eventually(func() bool {
		servers := w.alive()
		if len(servers) == 0 {
			return false
		}
		var err error
		a, err = w.once(servers[int(w.asked.Add(1))%len(servers)], method, path, key, body)
		return err == nil && a.code != http.StatusServiceUnavailable
	}) {
		w.Errorf("%s %s: never answered: %d %s", method, path, a.code, a.text)
	}
	return a
}

func (w *ward) once(s *server, method, path, key, body string) (a statusAnswer, err error) {
	r, err := http.NewRequestWithContext(w.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		return a, err
	}
	r.Header.Set("Authorization", "Bearer "+w.token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", key)
	res, err := patient.Do(r)
	if err != nil {
		return a, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	a.code, a.text, a.replayed = res.StatusCode, string(b), res.Header.Get("Idempotency-Replayed") == "true"
	_ = json.Unmarshal(b, &a) // a list is read off the text
	return a, err
}

// patient is a client for long polls.
var patient = &http.Client{Timeout: patience}

func (w *ward) list(sha string) string {
	return fmt.Sprintf("/api/v2/projects/octo%%2Fhello/commits/%s/statuses", sha)
}

// accepts posts or updates and fails the test unless it is accepted.
func (w *ward) accepts(method, path, key, body string) statusAnswer {
	a := w.ask(method, path, key, body)
	if a.code != http.StatusAccepted {
		w.Errorf("%s %s %s: %d %s", method, path, body, a.code, a.text)
	}
	return a
}

// ends polls an operation until it has ended.
func (w *ward) ends(id string, within time.Duration) statusOperation {
	for end := time.Now().Add(within); ; {
		a := w.ask(http.MethodGet, "/api/v2/status-operations/"+id+"?wait=20", "", "")
		if a.code != http.StatusOK || time.Now().After(end) {
			w.Errorf("operation %s: %d %s", id, a.code, a.text)
			return a.statusOperation
		}
		if status.OpState(a.State).Final() {
			return a.statusOperation
		}
	}
}

func (w *ward) commitAt(sha string) state.Subject {
	return status.Subject(forge.Repo{Instance: "gitlab", ID: w.project.ID}, sha)
}

// posts are what the forge took for a context, in order, as "state description".
func (w *ward) posts(sha, context string) (out []string) {
	for _, p := range w.project.Posts(sha) {
		if p.Name == context {
			out = append(out, strings.TrimSpace(p.State+" "+p.Description))
		}
	}
	return out
}

// One key, fifty times at once, on two servers: one operation, one answer.
func TestStatusKeyFiftyTimesAtOnceIsOneOperation(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, redisStore(t).URL(), 2)
	sha := w.project.Push("main")
	answers := make([]statusAnswer, 50)
	var wait sync.WaitGroup
	for i := range answers {
		wait.Go(func() {
			answers[i] = w.accepts(http.MethodPost, w.list(sha), "one", `{"context":"ci/x","state":"success"}`)
		})
	}
	wait.Wait()
	first := 0
	for _, a := range answers {
		if a.text != answers[0].text {
			t.Errorf("another answer: %s\n%s", a.text, answers[0].text)
		}
		if !a.replayed {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d were not replayed, want one", first)
	}
	if a := w.ask(http.MethodPost, w.list(sha), "one", `{"context":"ci/x","state":"failed"}`); a.code != http.StatusUnprocessableEntity || !strings.Contains(a.text, "idempotency_key_reused") {
		t.Errorf("another body: %d %s", a.code, a.text)
	}
	w.ends(answers[0].Operation.ID, patience)
	a := w.ask(http.MethodGet, w.list(sha)+"/"+answers[0].Run.ID+"?history=true", "", "")
	if n := strings.Count(a.text, `"accepted_at"`); n != 1 {
		t.Errorf("%d operations: %s", n, a.text)
	}
	if got := w.posts(sha, "ci/x"); !slices.Equal(got, []string{"success"}) {
		t.Errorf("posted %q", got)
	}
}

// While the forge sits on a write to a commit, everything is accepted, for that commit too.
func TestStatusAcceptNeverWaitsForTheForge(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, redisStore(t).URL(), 1)
	shaA, shaB := w.project.Push("main"), w.project.Push("main")
	sitting := w.holds(false, func(r *http.Request, _ []byte) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, shaA)
	})
	first := w.accepts(http.MethodPost, w.list(shaA), "1", `{"context":"ci/x","state":"running"}`)
	w.held(sitting)
	second := w.accepts(http.MethodPatch, w.list(shaA)+"/"+first.Run.ID, "2", `{"state":"success"}`)
	third := w.accepts(http.MethodPost, w.list(shaA), "3", `{"context":"ci/y","state":"failed"}`)
	other := w.accepts(http.MethodPost, w.list(shaB), "4", `{"context":"ci/x","state":"failed"}`)
	if end := w.ends(other.Operation.ID, patience); end.State != "delivered" { // other commits flow
		t.Errorf("%+v", end)
	}
	if n := len(w.project.Posts(shaA)); n != 0 {
		t.Errorf("%d posts were taken while none could be", n)
	}
	sitting.release()
	for _, a := range []statusAnswer{first, second, third} {
		if end := w.ends(a.Operation.ID, patience); end.State != "delivered" {
			t.Errorf("%+v", end)
		}
	}
	if got := w.posts(shaA, "ci/x"); !slices.Equal(got, []string{"running", "success"}) {
		t.Errorf("posted %q", got)
	}
}

// storm is what eight clients post: runs one after another in each context of each commit, their updates in any order,
// some of everything twice.
type storm struct {
	*ward
	mu     sync.Mutex
	rand   *rand.Rand
	todo   []func()
	open   int // tasks that have not ended
	posted int // statuses, each once
	ids    []string
}

const (
	stormCommits  = 20
	stormContexts = 5
	stormRuns     = 2
	stormUpdates  = 4
)

func (s *storm) add(tasks ...func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.todo, s.open = append(s.todo, tasks...), s.open+len(tasks)
	s.rand.Shuffle(len(s.todo), func(i, j int) { s.todo[i], s.todo[j] = s.todo[j], s.todo[i] })
}

// next takes a task; ok is false once all have ended.
func (s *storm) next() (task func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.todo) > 0 {
		task, s.todo = s.todo[0], s.todo[1:]
	}
	return task, s.open > 0
}

// says posts one status, and every fourth a second time.
func (s *storm) says(method, path, body string) statusAnswer {
	key := uuid.NewString()
	a := s.accepts(method, path, key, body)
	s.mu.Lock()
	again := s.rand.IntN(4) == 0
	s.posted++
	s.ids = append(s.ids, a.Operation.ID)
	s.mu.Unlock()
	if again {
		if b := s.accepts(method, path, key, body); b.text != a.text {
			s.Errorf("sent again: %s\n%s", b.text, a.text)
		}
	}
	return a
}

// run is one run of a context: its create, then at once its updates and the next run.
func (s *storm) run(sha, context string, n int) func() {
	return func() {
		about := func(state string, sequence int) string {
			return fmt.Sprintf(`"state":%q,"sequence":%d,"description":"%d.%d"`, state, sequence, n, sequence)
		}
		a := s.says(http.MethodPost, s.list(sha), fmt.Sprintf(`{"context":%q,%s}`, context, about("pending", 1)))
		var tasks []func()
		for i := 2; i <= stormUpdates+1; i++ {
			state := "running"
			if i == stormUpdates+1 {
				state = []string{"success", "failed"}[n%2]
			}
			tasks = append(tasks, func() {
				s.says(http.MethodPatch, s.list(sha)+"/"+a.Run.ID, "{"+about(state, i)+"}")
			})
		}
		if n < stormRuns {
			tasks = append(tasks, s.run(sha, context, n+1))
		}
		s.add(tasks...)
	}
}

// A GitLab that locks a commit for a while after each post and answers 409 meanwhile. In soak it does so for a minute.
func TestStatusStormEndsInTheNewestAndNeverGoesBack(t *testing.T) {
	t.Parallel()
	lock, within := 100*time.Millisecond, patience
	if soak() {
		lock, within = time.Minute, 17*time.Minute
	}
	w := beginStatuses(t, redisStore(t).URL(), 2)
	w.lab.HoldLocks(lock)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	s := &storm{ward: w, rand: rand.New(rand.NewPCG(seed, 0))}
	var commits []string
	for range stormCommits {
		sha := w.project.Push("main")
		commits = append(commits, sha)
		for c := range stormContexts {
			s.add(s.run(sha, fmt.Sprintf("ci/%d", c), 1))
		}
	}
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for {
				task, ok := s.next()
				if !ok {
					return
				}
				if task == nil { // others may still add some
					<-time.After(time.Millisecond)
					continue
				}
				task()
				s.mu.Lock()
				s.open--
				s.mu.Unlock()
			}
		})
	}
	wait.Wait()
	if want := stormCommits * stormContexts * stormRuns * (1 + stormUpdates); s.posted != want {
		t.Fatalf("%d statuses were posted, want %d", s.posted, want)
	}

	ends := map[string]int{}
	for _, id := range s.ids {
		wait.Go(func() {
			end := w.ends(id, within)
			s.mu.Lock()
			defer s.mu.Unlock()
			ends[end.State]++
		})
	}
	wait.Wait()
	if ends["delivered"]+ends["superseded"] != len(s.ids) || ends["delivered"] == 0 || ends["superseded"] == 0 {
		t.Errorf("operations ended %v", ends)
	}
	posts, taken := 0, 0
	for _, call := range w.lab.Calls() {
		if call == "POST /projects/{id}/statuses/{sha}" {
			posts++
		}
	}
	for _, sha := range commits {
		taken += len(w.project.Posts(sha))
	}
	if posts == taken {
		t.Errorf("no storm: none of %d posts met the lock of its commit", posts)
	}
	newest := fmt.Sprintf("%d.%d", stormRuns, stormUpdates+1)
	for _, sha := range commits {
		shown := w.project.Shown(sha)
		if len(shown) != stormContexts {
			t.Errorf("%.7s shows %+v", sha, shown)
		}
		for _, x := range shown {
			if x.Description != newest {
				t.Errorf("%s at %.7s ends in %s %s, want %s", x.Name, sha, x.State, x.Description, newest)
			}
		}
		last := map[string]string{}
		for _, p := range w.project.Posts(sha) {
			if p.Description < last[p.Name] { // single digits: texts compare as the orders do
				t.Errorf("%s at %.7s went back from %s to %s", p.Name, sha, last[p.Name], p.Description)
			}
			last[p.Name] = p.Description
		}
	}
	t.Logf("operations ended %v; of %d posts %d were taken", ends, posts, taken)
}

// A process dies between acceptance and push, and between push and record. Another delivers; the forge takes each
// status once.
func TestStatusKillDeliversOnce(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, redisStore(t).URL(), 2)
	type victim struct {
		point      actor.Point
		n          int
		sha, state string
		first      statusAnswer
		second     statusAnswer
	}
	var all []*victim
	for _, state := range []string{"success", "failed"} {
		for _, p := range []victim{
			{point: actor.AtLocked, n: 1}, {point: actor.AtBegun, n: 1}, {point: actor.AtDecided, n: 1}, {point: actor.AtCommitted, n: 1},
			{point: actor.AtDoing, n: 1}, {point: actor.AtDone, n: 1}, {point: actor.AtDecided, n: 2},
		} {
			p.state, p.sha = state, w.project.Push("main")
			all = append(all, &p)
		}
	}
	for _, v := range all {
		before := len(w.alive())
		w.arm(w.commitAt(v.sha), v.point, v.n, syscall.SIGKILL)
		v.first = w.accepts(http.MethodPost, w.list(v.sha), v.sha, `{"context":"ci/x","state":"running"}`)
		w.until(fmt.Sprintf("one died: %s %d", v.point, v.n), func() bool { return len(w.alive()) < before })
		v.second = w.accepts(http.MethodPatch, w.list(v.sha)+"/"+v.first.Run.ID, v.sha, `{"state":"`+v.state+`"}`)
		w.spawn()
	}
	for _, v := range all {
		for _, a := range []statusAnswer{v.first, v.second} {
			if end := w.ends(a.Operation.ID, patience); end.State != "delivered" && end.State != "superseded" {
				t.Errorf("%s %d: %+v", v.point, v.n, end)
			}
		}
		got := w.posts(v.sha, "ci/x")
		if !slices.Equal(got, []string{"running", v.state}) && !slices.Equal(got, []string{v.state}) {
			t.Errorf("killed at %s for the time %d: posted %q", v.point, v.n, got)
		}
	}
}

// The official Go client posts where only its base URL is another.
func TestStatusGitLabsOwnClient(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, fileStore(t), 1)
	sha := w.project.Push("main")
	client, err := gl.NewClient(w.token, gl.WithBaseURL(w.alive()[0].url+"/api/v1"))
	w.must(err)
	name, text, at := "ci/x", "building", "https://ci.example/1"
	for _, project := range []any{"octo/hello", w.project.ID} {
		for _, state := range []gl.BuildStateValue{gl.Running, gl.Success} {
			s, res, err := client.Commits.SetCommitStatus(project, sha, &gl.SetCommitStatusOptions{State: state, Name: &name, Description: &text, TargetURL: &at})
			w.must(err)
			if s.Status != string(state) || s.Name != name || s.Description != text || s.TargetURL != at || s.ID == 0 || s.PipelineID == 0 || res.Header.Get("Deprecation") == "" {
				t.Errorf("%+v %v", s, res.Header)
			}
		}
	}
	if got := w.posts(sha, name); !slices.Equal(got, []string{"running building", "success building", "running building", "success building"}) {
		t.Errorf("posted %q", got)
	}
	foreign := "elsewhere"
	_, res, err := client.Commits.SetCommitStatus("octo/hello", sha, &gl.SetCommitStatusOptions{State: gl.Running, Name: &foreign})
	var refusal *gl.ErrorResponse
	if !errors.As(err, &refusal) || res.StatusCode != http.StatusForbidden || !strings.Contains(refusal.Message, "the token is not for this context") {
		t.Errorf("%v", err)
	}
}

// The same at GitHub: an App writes check runs, and a new one for each run of a context; a token writes commit statuses.
func TestStatusAtGitHub(t *testing.T) {
	for name, shown := range map[string]map[string]string{
		"App":   {"pending": "queued", "running": "in_progress", "success": "success", "canceled": "cancelled"},
		"token": {"pending": "pending", "running": "pending", "success": "success", "canceled": "error"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &ward{world: begin(t, fileStore(t), "SIGNALBOX_ADMIN_TOKEN="+wardAdmin)}
			if name == "token" {
				w.env = slices.DeleteFunc(w.env, func(kv string) bool {
					return strings.HasPrefix(kv, "SIGNALBOX_GITHUB_APP_ID") || strings.HasPrefix(kv, "SIGNALBOX_GITHUB_PRIVATE_KEY")
				})
				w.env = append(w.env, "SIGNALBOX_GITHUB_TOKEN="+w.maya.Token)
			}
			w.serve(1)
			w.token = w.signalbox(exitOK, "status", "token", "--project", "github:octo/hello")
			sha := w.repo.Tip("main")
			shows := func(a statusAnswer, state string) string {
				t.Helper()
				if end := w.ends(a.Operation.ID, patience); end.State != "delivered" {
					t.Errorf("%+v", end)
				}
				if got := w.repo.Gate(sha, "jenkins/unit"); got != shown[state] {
					t.Errorf("GitHub shows %q, want %q", got, shown[state])
				}
				return a.Run.ID
			}
			run := shows(w.accepts(http.MethodPost, w.list(sha), "1", `{"context":"jenkins/unit","state":"running","target_url":"https://ci.example/1"}`), "running")
			shows(w.accepts(http.MethodPatch, w.list(sha)+"/"+run, "2", `{"state":"success"}`), "success")
			run = shows(w.accepts(http.MethodPost, w.list(sha), "3", `{"context":"jenkins/unit","state":"pending"}`), "pending")
			shows(w.accepts(http.MethodPatch, w.list(sha)+"/"+run, "4", `{"state":"canceled"}`), "canceled")
			if a := w.ask(http.MethodPost, w.list(sha), "5", `{"context":"`+gateCheck+`","state":"success"}`); a.code != http.StatusForbidden || !strings.Contains(a.text, "context_owned") {
				t.Errorf("%d %s", a.code, a.text)
			}
			if a := w.ask(http.MethodPost, w.list(sha), "6", `{"context":"Presubmit","state":"success"}`); a.code != http.StatusForbidden {
				t.Errorf("%d %s", a.code, a.text)
			}
		})
	}
}

// Tokens are made, listed and revoked by commands, with a server and without one.
func TestStatusTokenCommands(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, fileStore(t), 1)
	sha := w.project.Push("main")
	list := w.signalbox(exitOK, "status", "list")
	if !strings.Contains(list, "gitlab:octo/hello") || !strings.Contains(list, `["ci/*"]`) || !strings.Contains(list, "when revoked") || strings.Contains(list, w.token) {
		t.Errorf("%s", list)
	}
	w.accepts(http.MethodPost, w.list(sha), "1", `{"context":"ci/x","state":"running"}`)
	var grants []struct{ ID string }
	w.must(json.Unmarshal([]byte(w.signalbox(exitOK, "status", "list", "--output", "json")), &grants))
	if len(grants) != 1 || !strings.Contains(w.token, grants[0].ID) {
		t.Fatalf("%+v", grants)
	}
	// A context goes to another token, if that is for the project.
	old := w.token
	w.token = w.signalbox(exitOK, "status", "token", "--project", "gitlab:octo/hello")
	next := strings.Split(w.token, "_")[1]
	give := func(sha, context, to string) []string {
		return []string{"status", "transfer", "--project", "gitlab:octo/hello", "--sha", sha, "--context", context, "--to", to}
	}
	if a := w.ask(http.MethodPost, w.list(sha), "2", `{"context":"ci/x","state":"failed"}`); a.code != http.StatusForbidden {
		t.Errorf("before the transfer: %d %s", a.code, a.text)
	}
	w.signalbox(exitOK, give(sha, "ci/x", next)...)
	w.accepts(http.MethodPost, w.list(sha), "2", `{"context":"ci/x","state":"failed"}`)
	w.signalbox(exitFailed, give(sha, "ci/y", next)...)
	w.signalbox(exitFailed, give(sha, "ci/x", "nobody")...)
	w.signalbox(exitUsage, give("abc", "ci/x", next)...)
	w.signalbox(exitOK, "status", "revoke", next)
	w.token = old
	w.signalbox(exitOK, "status", "revoke", grants[0].ID)
	if a := w.ask(http.MethodGet, w.list(sha), "", ""); a.code != http.StatusUnauthorized {
		t.Errorf("after its revocation: %d %s", a.code, a.text)
	}
	wrong := func(command func(code int, args ...string) string) {
		t.Helper()
		for says, args := range map[string][]string{
			"no such token":                       {"revoke", grants[0].ID},
			"expected INSTANCE:OWNER/REPO":        {"token", "--project", "octo/hello"},
			"no such forge":                       {"token", "--project", "github:octo/hello"},
			"the forge shows us no such":          {"token", "--project", "gitlab:octo/nothing"},
			"expected a time from 1m":             {"token", "--project", "gitlab:octo/hello", "--for", "1s"},
			"expected a name, or the beginning":   {"token", "--project", "gitlab:octo/hello", "--context", "*x*"},
			"missing flags: --project=INSTANCE:O": {"token"},
		} {
			code := exitFailed
			if strings.HasPrefix(says, "missing") || strings.HasPrefix(says, "expected") {
				code = exitUsage
			}
			if got := command(code, append([]string{"status"}, args...)...); !strings.Contains(got, says) {
				t.Errorf("%v: %s", args, got)
			}
		}
	}
	wrong(w.signalbox)

	// Without a server the store itself is used.
	w.alive()[0].signal(syscall.SIGTERM)
	w.until("it has stopped", func() bool { return len(w.alive()) == 0 })
	direct := func(code int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if got := run(t.Context(), args, process{w.env, os.ReadFile, &out, &errs}); got != code {
			t.Errorf("%v without a server: %d %s", args, got, errs.String())
		}
		return strings.TrimSpace(out.String() + errs.String())
	}
	wrong(direct)
	var made struct{ Token string }
	if err := json.Unmarshal([]byte(direct(exitOK, "status", "token", "--project", "gitlab:octo/hello", "--for", "2h", "--output", "json")), &made); err != nil {
		t.Fatal(err)
	}
	w.token = made.Token
	w.serve(1)
	if a := w.ask(http.MethodGet, w.list(sha), "", ""); a.code != http.StatusOK {
		t.Errorf("with a token made on the store: %d %s", a.code, a.text)
	}
}

// A server that stops does not wait for those who wait: it tells them what is known.
func TestStatusWaitEndsWhenTheServerStops(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, fileStore(t), 1)
	sha := w.project.Push("main")
	sitting := w.holds(false, func(r *http.Request, _ []byte) bool { return strings.HasSuffix(r.URL.Path, sha) })
	w.accepts(http.MethodPost, w.list(sha), "1", `{"context":"ci/x","state":"running"}`)
	w.held(sitting)
	s := w.alive()[0]
	answered := make(chan statusAnswer, 1)
	go func() {
		a, err := w.once(s, http.MethodPost, "/api/v1/projects/octo%2Fhello/statuses/"+sha, "", `{"name":"ci/late","state":"success"}`)
		if err != nil {
			t.Errorf("post: %v", err)
		}
		answered <- a
	}()
	w.until("the call waits", func() bool {
		snap, err := w.look().Load(t.Context(), w.commitAt(sha))
		return err == nil && strings.Contains(string(snap.Doc), "ci/late")
	})
	s.signal(syscall.SIGTERM)
	if a := <-answered; a.code != http.StatusConflict || !strings.Contains(a.text, "Resource lock") {
		t.Errorf("%d %s", a.code, a.text)
	}
	sitting.release()
	if code := s.wait(); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.said())
	}
}

// A status that does not get through is in the list of jobs.
func TestStatusThatIsStuckIsAJob(t *testing.T) {
	t.Parallel()
	w := beginStatuses(t, fileStore(t), 1)
	sha := w.project.Push("main")
	w.lab.Fail("POST /projects/{id}/statuses/{sha}", 1_000)
	w.accepts(http.MethodPost, w.list(sha), "1", `{"context":"ci/x","state":"failed"}`)
	w.until("it is listed", func() bool {
		out := w.signalbox(exitOK, "jobs", "list")
		return strings.Contains(out, "failing") && strings.Contains(out, "/commit/"+sha) && strings.Contains(out, "status/ci/x") && strings.Contains(out, "502")
	})
}
