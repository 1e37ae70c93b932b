package page

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"code.gitea.io/actions-proto-go/runner/v1/runnerv1connect"
	rpc "connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"gopkg.in/yaml.v3"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// lodge is a runner service with its pages, and a runner that does what the test says.
type lodge struct {
	*testing.T
	service  *runner.Service
	pages    *pages
	url      string
	http     *http.Client
	draining atomic.Bool
	peer     runnerv1connect.RunnerServiceClient
	uuid     string
	token    string
}

// definition is the one file of the lodge's forge.
func (*lodge) File(context.Context, forge.Repo, string, string) ([]byte, error) {
	return []byte("jobs:\n- {name: unit tests, runs-on: linux, steps: [{run: make}], matrix: {v: [\"1.0\"]}}\n- {name: lint, runs-on: other, steps: [{run: make}]}\n"), nil
}

func (*lodge) Clone(forge.Repo) string { return "https://forge.example.org/o/r.git" }

func (*lodge) CheckoutToken(context.Context, forge.Repo) (string, error) {
	return "token-of-the-test", nil
}

func newLodge(t *testing.T) *lodge {
	t.Helper()
	l := &lodge{T: t}
	st, err := embedded.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), embedded.Options{})
	l.must(err)
	t.Cleanup(func() { _ = st.Close() })
	e := actor.New(st, lock.NewLocal(15*time.Second), actor.Options{})
	actor.Register(e, runner.Kind, runner.NewBehaviour(st.Record), actor.KindOptions{MailFormat: runner.Format})
	l.service, err = runner.New(runner.Options{
		Engine: e, Store: st, Pool: runner.Subject("-", "default"), Key: []byte("a key of the test"), URL: "https://ci.example.org", Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
		Source: func(string) (runner.Source, error) { return l, nil },
	})
	l.must(err)
	fail := func(w http.ResponseWriter, status int, code, _ string) {
		w.WriteHeader(status)
		fmt.Fprint(w, code)
	}
	mux := http.NewServeMux()
	mux.Handle(runner.Path, l.service.Handler())
	l.must(Serve(mux, l.service, l.draining.Load, fail))
	l.pages, err = newPages(l.service, l.draining.Load, fail)
	l.must(err)
	l.pages.look = 10 * time.Millisecond
	mux.HandleFunc("GET /quick/{key}/events", l.pages.events)
	web := httptest.NewServer(mux)
	t.Cleanup(func() {
		l.draining.Store(true)
		web.Close()
	})
	l.url, l.http = web.URL, web.Client()
	invited, err := l.service.Invite(t.Context(), []string{"linux"}, time.Hour, true)
	l.must(err)
	l.peer = runnerv1connect.NewRunnerServiceClient(web.Client(), l.url+"/api/actions", rpc.WithInterceptors(rpc.UnaryInterceptorFunc(func(next rpc.UnaryFunc) rpc.UnaryFunc {
		return func(ctx context.Context, r rpc.AnyRequest) (rpc.AnyResponse, error) {
			r.Header().Set("x-runner-uuid", l.uuid)
			r.Header().Set("x-runner-token", l.token)
			return next(ctx, r)
		}
	})))
	r, err := l.peer.Register(t.Context(), rpc.NewRequest(&runnerv1.RegisterRequest{Token: invited, Name: "x", Labels: []string{"linux"}}))
	l.must(err)
	l.uuid, l.token = r.Msg.GetRunner().GetUuid(), r.Msg.GetRunner().GetToken()
	return l
}

func (l *lodge) must(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

// start starts a run and answers its link.
func (l *lodge) start(key string, private bool) string {
	l.Helper()
	got, err := runner.NewTrigger(l.service, l).Start(l.Context(), forge.Run{
		Key: key, SHA: strings.Repeat("a", 40), BaseSHA: strings.Repeat("b", 40),
		Ref: forge.Ref{Repo: forge.Repo{Instance: "test", ID: 1, Name: "o/<r>", Private: private}, Number: 7},
	})
	l.must(err)
	return strings.Replace(got.URL, "https://ci.example.org", l.url, 1)
}

func (l *lodge) fetch() *runnerv1.Task {
	l.Helper()
	r, err := l.peer.FetchTask(l.Context(), rpc.NewRequest(&runnerv1.FetchTaskRequest{}))
	l.must(err)
	if r.Msg.GetTask() == nil {
		l.Fatal("there is no task")
	}
	return r.Msg.GetTask()
}

func (l *lodge) rows(task, at int64, rows ...string) {
	l.Helper()
	m := &runnerv1.UpdateLogRequest{TaskId: task, Index: at}
	for _, r := range rows {
		m.Rows = append(m.Rows, &runnerv1.LogRow{Content: r})
	}
	_, err := l.peer.UpdateLog(l.Context(), rpc.NewRequest(m))
	l.must(err)
}

// end ends the log, and reports success with the word of the task's last step.
func (l *lodge) end(task *runnerv1.Task) {
	l.Helper()
	_, err := l.peer.UpdateLog(l.Context(), rpc.NewRequest(&runnerv1.UpdateLogRequest{TaskId: task.GetId(), NoMore: true}))
	l.must(err)
	var w struct {
		Jobs map[string]struct {
			Steps []struct{ Env map[string]string }
		}
	}
	l.must(yaml.Unmarshal(task.GetWorkflowPayload(), &w))
	steps := w.Jobs["presubmit"].Steps
	_, err = l.peer.UpdateTask(l.Context(), rpc.NewRequest(&runnerv1.UpdateTaskRequest{
		State:   &runnerv1.TaskState{Id: task.GetId(), Result: runnerv1.Result_RESULT_SUCCESS},
		Outputs: map[string]string{"verdict": steps[len(steps)-1].Env["SIGNALBOX_VERDICT"]},
	}))
	l.must(err)
}

func (l *lodge) get(url string, header ...string) (*http.Response, string) {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), http.MethodGet, url, nil)
	l.must(err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := l.http.Do(req)
	l.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	l.must(err)
	return res, string(b)
}

const hostile = `</pre><script>alert(1)</script><img src=x onerror=alert(2)>` + "\x1b[31m\u2028]]>&amp; {{.}}"

func TestRunPage(t *testing.T) {
	l := newLodge(t)
	url := l.start("sb1-one", false)
	task := l.fetch()
	l.rows(task.GetId(), 0, hostile, "two")

	res, text := l.get(url, "Accept", "*/*")
	if want := "run sb1-one: running\n\n== unit tests (1.0), attempt 1 (task 1): running\n"; !strings.HasPrefix(text, want) || !strings.HasSuffix(text, "Z two\n") ||
		!strings.Contains(text, "<script>alert(1)") || strings.Contains(text, "\x1b") || res.Header.Get("Content-Type") != "text/plain; charset=utf-8" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%v\n%s", res.Header, text)
	}
	res, html := l.get(url, "Accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
	policy := res.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "script-src 'nonce-", "connect-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
		if !strings.Contains(policy, want) || strings.Contains(policy, "unsafe") {
			t.Errorf("policy %q lacks %q", policy, want)
		}
	}
	for _, want := range []string{
		`id="job-unit%20tests%20%281.0%29"`, `href="#job-unit%20tests%20%281.0%29"`, `href="/runs/sb1-one?text"`, "&lt;script&gt;alert(1)&lt;/script&gt;", "<b>00:00:00</b> two",
		`<span data-job="lint" data-state="queued">queued</span>`, "o/&lt;r&gt; #7", `let from = "1"`,
	} {
		if !strings.Contains(html, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Count(html, "<script") != 1 || strings.Count(html, "</pre>") != 1 || strings.Contains(html, "<img") || strings.Contains(html, "o/<r>") {
		t.Errorf("the page:\n%s", html)
	}
	if _, again := l.get(url, "Accept", "text/html"); again == html {
		t.Error("two answers have one nonce")
	}
	if _, text := l.get(url+"?text", "Accept", "text/html"); !strings.HasPrefix(text, "run sb1-one") {
		t.Errorf("as text: %.40q", text)
	}
	for _, unknown := range []string{"/runs/sb1-other", "/runs/sb1-other/events", "/runs/sb1-one.x/none"} {
		if res, _ := l.get(l.url + unknown); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", unknown, res.Status)
		}
	}
}

// Who knows all that a run key is made of still cannot read the log of a private repository.
func TestRunPageOfAPrivateRepository(t *testing.T) {
	l := newLodge(t)
	url := l.start("sb1-p", true)
	if !strings.HasPrefix(url, l.url+"/runs/sb1-p.") {
		t.Errorf("link %s", url)
	}
	for at, want := range map[string]int{
		url: 200, l.url + "/runs/sb1-p": 404, l.url + "/runs/sb1-p.": 404, l.url + "/runs/sb1-p." + strings.Repeat("0", 40): 404, l.url + "/runs/sb1-p/events": 404,
	} {
		if res, body := l.get(at); res.StatusCode != want {
			t.Errorf("%s: %s %s", at, res.Status, body)
		}
	}
}

// follower reads a stream of events.
type follower struct {
	*lodge
	in *bufio.Scanner
	id string // of the last event
}

func (l *lodge) follow(key, after string) *follower {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), http.MethodGet, l.url+"/quick/"+key+"/events?from=", nil)
	l.must(err)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	res, err := l.http.Do(req)
	l.must(err)
	l.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		l.Fatalf("%s %v", res.Status, res.Header)
	}
	in := bufio.NewScanner(res.Body)
	in.Buffer(nil, 1<<20)
	return &follower{l, in, ""}
}

// next is the next event; its name is empty at the end of the stream.
func (f *follower) next() (name string, data map[string]any) {
	f.Helper()
	for f.in.Scan() {
		key, value, _ := strings.Cut(f.in.Text(), ": ")
		switch key {
		case "event":
			name = value
		case "id":
			f.id = value
		case "data":
			f.must(json.Unmarshal([]byte(value), &data))
		case "":
			if name != "" {
				return name, data
			}
		}
	}
	return "", nil
}

// log is the text of the next event, which must be of kind log.
func (f *follower) log() string {
	f.Helper()
	name, data := f.next()
	if name != "log" {
		f.Fatalf("%s %v instead of a log", name, data)
	}
	return fmt.Sprint(data["text"])
}

// A long log is never held as one text: it comes in pieces, each with the position behind it.
func TestRunEventsOfALongLog(t *testing.T) {
	l := newLodge(t)
	l.start("sb1-one", false)
	l.rows(l.fetch().GetId(), 0, strings.Repeat("x", 300<<10), "the end")
	f := l.follow("sb1-one", "")
	if name, _ := f.next(); name != "state" {
		t.Fatalf("%s comes first", name)
	}
	first := f.log()
	after := f.id
	rest := f.log()
	if n := strings.Count(first+rest, "x"); n != 300<<10 || len(first) > 256<<10 || !strings.HasSuffix(rest, "Z the end\n") {
		t.Errorf("%d x in %d and %d bytes", n, len(first), len(rest))
	}
	g := l.follow("sb1-one", after)
	if name, _ := g.next(); name != "state" {
		t.Fatalf("%s comes first", name)
	}
	if got := g.log(); got != rest {
		t.Errorf("%d bytes behind the first piece, not %d", len(got), len(rest))
	}
}

func TestRunEvents(t *testing.T) {
	l := newLodge(t)
	l.start("sb1-one", false)
	f := l.follow("sb1-one", "")
	if name, data := f.next(); name != "state" || data["state"] != "queued" {
		t.Fatalf("%s %v", name, data)
	}
	task := l.fetch()
	for name, data := f.next(); name != "log"; name, data = f.next() { // told that there is one, empty as it is
		if name != "state" {
			t.Fatalf("%s %v", name, data)
		}
	}
	l.rows(task.GetId(), 0, hostile)
	for name, data := f.next(); name != "log"; name, data = f.next() {
		if name != "state" || data["state"] != "running" {
			t.Fatalf("%s %v", name, data)
		}
	}
	l.rows(task.GetId(), 1, "two")
	if got := f.log(); !strings.HasSuffix(got, "Z two\n") {
		t.Fatalf("log %q", got)
	}

	// Cut off there, by a stop of the server, and come back to another.
	l.draining.Store(true)
	if name, _ := f.next(); name != "" {
		t.Fatalf("%s of a server that stops", name)
	}
	if name, _ := l.follow("sb1-one", "").next(); name != "" {
		t.Fatalf("%s of a server that was stopping before", name)
	}
	l.draining.Store(false)
	l.rows(task.GetId(), 2, "three")
	g := l.follow("sb1-one", f.id)
	if name, data := g.next(); name != "state" || data["state"] != "running" {
		t.Fatalf("%s %v", name, data)
	}
	if got := g.log(); !strings.HasSuffix(got, "Z three\n") || strings.Contains(got, "two") {
		t.Fatalf("log %q", got)
	}
	l.end(task)
	l.must(runner.NewTrigger(l.service, l).Cancel(t.Context(), forge.Run{Key: "sb1-one"}, forge.Receipt{}))
	last := ""
	for name, data := g.next(); name != ""; name, data = g.next() {
		if last = name; name == "state" && data["state"] == "cancelled" && strings.Contains(fmt.Sprint(data["jobs"]), "state:success") {
			last = "all"
		}
	}
	if last != "end" {
		t.Errorf("the last event is %q", last)
	}

	// What no server of ours has said is the beginning.
	for _, id := range []string{"x", "-1", "1.x", "99999999999999999999", "7.7.7", strings.Repeat("1.", 9000)} {
		h := l.follow("sb1-one", id)
		for name := "-"; name != ""; name, _ = h.next() {
			last = name
		}
		if last != "end" {
			t.Errorf("from %.20q: %s", id, last)
		}
	}
	for range maxStreams {
		l.pages.streams <- struct{}{}
	}
	for _, key := range []string{"sb1-one", "unknown"} { // which nobody looks up any more
		if res, _ := l.get(l.url + "/quick/" + key + "/events"); res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
			t.Errorf("one too many: %s", res.Status)
		}
	}
}
