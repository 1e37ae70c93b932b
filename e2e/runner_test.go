//go:build e2e

// Package e2e runs others' programs against the service: a stock Gitea runner, built from its own module, so that nothing
// of it comes into ours, or a runner that is installed, Forgejo's too (`make e2e`); and a GitLab client of npm's (`make
// npm`). Needed are git, bash, the first time the Go proxy, and for the client Node with npm and its registry.
package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// patience bounds every wait; it is only reached when something is broken.
const patience = 30 * time.Second

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("never came true: %s", what)
		}
	}
}

// ear is a pull request as far as the pool knows it: it writes down what it is told.
type ear struct{}

type heard struct {
	Reports []prmanager.Report `json:"reports"`
}

func (ear) Look(context.Context, state.Subject, heard, actor.Inputs, time.Time) struct{} {
	return struct{}{}
}

func (ear) Decide(_ state.Subject, d heard, _ struct{}, in actor.Inputs, _ time.Time) actor.Step[heard] {
	for _, m := range in.Mail {
		var r prmanager.Report
		if err := json.Unmarshal(m.Body, &r); err != nil {
			panic(err)
		}
		d.Reports = append(d.Reports, r)
	}
	return actor.Step[heard]{Next: d}
}

func (ear) Do(context.Context, state.Subject, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
	return actor.Outcome{Code: actor.Done}
}

// clock is the store's; it can be put forward.
type clock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
}

// house is a server with a repository, and the network in front of it, which can lose answers.
type house struct {
	t       *testing.T
	dir     string
	addr    string
	clock   *clock
	store   *embedded.Store
	service *runner.Service
	stop    func()
	sha     string
	file    string // .signalbox/presubmit.yaml
	clone   string // what git fetches
	token   string // with which password; empty = the repository is public
	secrets map[string]string

	mu   sync.Mutex
	lose map[string]int // answers of a call still to be lost
	lost map[string]int
	keys []string // request keys of the FetchTasks whose answers were lost; "" where the runner sent none
}

func newHouse(t *testing.T, file string) *house {
	t.Helper()
	h := &house{t: t, dir: t.TempDir(), addr: "127.0.0.1:0", clock: &clock{}, file: file, lose: map[string]int{}, lost: map[string]int{}}
	h.sha, h.clone = h.repository(), h.dir+"/repo"
	h.open()
	t.Cleanup(func() { h.stop() })
	return h
}

// repository makes one commit with one script.
func (h *house) repository() string {
	h.t.Helper()
	git := func(args ...string) string {
		cmd := exec.CommandContext(h.t.Context(), "git", append([]string{"-C", h.dir + "/repo", "-c", "user.name=x", "-c", "user.email=x@example.org"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			h.t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if err := os.MkdirAll(h.dir+"/repo", 0o700); err != nil {
		h.t.Fatal(err)
	}
	git("init", "-q", "-b", "main", ".")
	if err := os.WriteFile(h.dir+"/repo/check.sh", []byte("echo from the checkout of $(git rev-parse HEAD)\n"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	git("add", "check.sh")
	git("commit", "-qm", "one")
	return git("rev-parse", "HEAD")
}

// open starts the server, or starts it again on the same address and store.
func (h *house) open() {
	t := h.t
	t.Helper()
	st, err := embedded.Open(t.Context(), filepath.Join(h.dir, "x.db"), embedded.Options{Now: h.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	e := actor.New(st, lock.NewLocal(15*time.Second), actor.Options{Poll: 50 * time.Millisecond})
	actor.Register(e, runner.Kind, runner.NewBehaviour(st.Record), actor.KindOptions{MailFormat: runner.Format})
	actor.Register(e, "pr", ear{}, actor.KindOptions{MailFormat: prmanager.Format})
	s, err := runner.New(runner.Options{
		Engine: e, Store: st, Pool: runner.Subject("test", "default"), Key: []byte("a key of the test"), URL: "http://house.invalid",
		Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
		Secrets: func(forge.Repo) map[string]string { return h.secrets }, Source: func(string) (runner.Source, error) { return h, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	var ln net.Listener
	until(t, "the address is free", func() bool {
		ln, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", h.addr)
		return err == nil
	})
	h.addr = ln.Addr().String()
	web := &httptest.Server{Listener: ln, Config: &http.Server{Handler: h.network(s.Handler()), ReadHeaderTimeout: patience}}
	web.Start()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	h.store, h.service = st, s
	h.stop = func() {
		web.CloseClientConnections()
		web.Close()
		cancel()
		if err := errors.Join(<-done, st.Close()); err != nil {
			t.Error(err)
		}
	}
}

// network serves, but loses answers that are to be lost: the call has taken effect.
func (h *house) network(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		call := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		h.mu.Lock()
		// A FetchTask without a task is not worth losing.
		cut := h.lose[call] > 0 && (call != "FetchTask" || rec.Body.Len() > 50)
		if cut {
			h.lose[call]--
			h.lost[call]++
			if call == "FetchTask" {
				h.keys = append(h.keys, r.Header.Get("X-Runner-Request-Key"))
			}
		}
		h.mu.Unlock()
		if cut {
			panic(http.ErrAbortHandler)
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

func (h *house) losing(call string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lose[call] = n
}

// File, Clone and CheckoutToken make the house a forge.
func (h *house) File(context.Context, forge.Repo, string, string) ([]byte, error) {
	return []byte(h.file), nil
}

func (h *house) Clone(forge.Repo) string { return h.clone }

// CheckoutToken is the house's.
func (h *house) CheckoutToken(context.Context, forge.Repo) (string, error) { return h.token, nil }

func (h *house) run() forge.Run {
	return forge.Run{
		Key: "sb1-run", Ref: forge.Ref{Repo: forge.Repo{Instance: "test", ID: 1, Name: "o/r", Private: h.token != ""}, Number: 7}, SHA: h.sha, BaseSHA: h.sha,
	}
}

func (h *house) start() {
	h.t.Helper()
	if _, err := runner.NewTrigger(h.service, h).Start(h.t.Context(), h.run()); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) cancel() {
	h.t.Helper()
	if err := runner.NewTrigger(h.service, h).Cancel(h.t.Context(), h.run(), forge.Receipt{}); err != nil {
		h.t.Fatal(err)
	}
}

// verdict waits for the end of the run and compares it; whatever happens, there is one.
func (h *house) verdict(want forge.CheckState) {
	h.t.Helper()
	var ends []forge.CheckState
	until(h.t, "the run ends", func() bool {
		v, err := actor.See(h.t.Context(), h.store, prmanager.Subject(h.run().Ref))
		if err != nil {
			h.t.Fatal(err)
		}
		var d heard
		if len(v.Doc) > 0 {
			if err := json.Unmarshal(v.Doc, &d); err != nil {
				h.t.Fatal(err)
			}
		}
		ends = nil
		for _, r := range d.Reports {
			if r.State.Completed() {
				ends = append(ends, r.State)
			}
		}
		return len(ends) > 0
	})
	if len(ends) != 1 || ends[0] != want {
		h.t.Errorf("the run ended %v, want %v\n%s", ends, want, h.log())
	}
}

// view is the run as the page that its check links shows it.
func (h *house) view() runner.View {
	h.t.Helper()
	is, err := runner.NewTrigger(h.service, h).State(h.t.Context(), h.run(), forge.Receipt{})
	if err != nil {
		h.t.Fatal(err)
	}
	v, err := h.service.View(h.t.Context(), path.Base(is.Receipt.URL))
	if err != nil {
		h.t.Fatal(err)
	}
	return v
}

// log is the text of all tasks.
func (h *house) log() string {
	h.t.Helper()
	var b strings.Builder
	for _, l := range h.view().Logs {
		fmt.Fprintf(&b, "== task %d, job %s, attempt %d\n", l.Task, l.Job, l.Attempt)
		if _, _, err := h.service.WriteLog(h.t.Context(), &b, l.Task, 0); err != nil {
			h.t.Fatal(err)
		}
	}
	return b.String()
}

func (h *house) exists(name string) bool {
	_, err := os.Stat(filepath.Join(h.dir, name))
	return err == nil
}

func (h *house) touch(name string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), nil, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// hand is a stock runner with its own directory.
type hand struct {
	h    *house
	bin  string
	dir  string
	cmd  *exec.Cmd
	gone chan struct{}
	out  *os.File
}

// build builds the runner of the module beside this package, or takes the one named by the environment, Gitea's or
// Forgejo's.
func build(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("SIGNALBOX_E2E_RUNNER"); bin != "" {
		return bin
	}
	built.once.Do(func() {
		dir, err := os.MkdirTemp("", "signalbox-e2e-") //nolint:usetesting // shared by all tests
		if err != nil {
			built.err = err
			return
		}
		built.dir = dir
		cmd := exec.Command("go", "build", "-mod=readonly", "-o", dir+"/runner", "gitea.com/gitea/runner")
		cmd.Dir = "gitearunner"
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("build the runner: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.dir + "/runner"
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	m.Run()
	_ = os.RemoveAll(built.dir)
}

// newHand registers a runner and starts it. Both runners take the same commands and the same configuration, each reading
// from it what it knows: Forgejo's reports every second anyway.
func newHand(t *testing.T, h *house, label string) *hand {
	t.Helper()
	r := &hand{h: h, bin: build(t), dir: t.TempDir()}
	config := fmt.Sprintf(`
log: {level: info}
runner:
  file: %[1]s/.runner
  capacity: 1
  fetch_interval: 1s
  fetch_interval_max: 1s
  log_report_interval: 1s
  log_report_max_latency: 500ms
  state_report_interval: 1s
  labels: ["%[2]s:host"]
cache: {enabled: false}
host: {workdir_parent: %[1]s/work}
`, r.dir, label)
	if err := os.WriteFile(r.dir+"/config.yaml", []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	token, err := h.service.Invite(t.Context(), []string{label}, time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	reg := r.command(t.Context(), "--config", r.dir+"/config.yaml", "register", "--no-interactive", "--instance", "http://"+h.addr, "--token", token, "--name", label, "--labels", label+":host")
	if out, err := reg.CombinedOutput(); err != nil {
		t.Fatalf("register: %v\n%s", err, out)
	}
	r.start()
	t.Cleanup(func() {
		r.signal(syscall.SIGKILL)
		if t.Failed() {
			b, _ := os.ReadFile(r.dir + "/out")
			t.Logf("the runner's log:\n%s", b)
		}
	})
	return r
}

func (r *hand) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, r.bin, args...)
	cmd.Dir = r.dir
	cmd.Env = []string{"HOME=" + r.dir, "PATH=" + os.Getenv("PATH"), "SHARED=" + r.h.dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// start runs the daemon. Its process id is where a job finds it.
func (r *hand) start() {
	t := r.h.t
	t.Helper()
	out, err := os.OpenFile(r.dir+"/out", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	r.out = out
	r.cmd = r.command(context.WithoutCancel(t.Context()), "--config", r.dir+"/config.yaml", "daemon")
	r.cmd.Stdout, r.cmd.Stderr = out, out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	r.gone = gone
	go func(cmd *exec.Cmd) { // joined by signal, which every runner ends in
		defer close(gone)
		_ = cmd.Wait()
		_ = out.Close()
	}(r.cmd)
	if err := os.WriteFile(filepath.Join(r.h.dir, "pid"), []byte(strconv.Itoa(r.cmd.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// signal sends a signal and waits for the end.
func (r *hand) signal(s syscall.Signal) {
	_ = r.cmd.Process.Signal(s) // it may have ended by itself
	<-r.gone
}

// job is a presubmit of one job.
func job(extra string, steps ...string) string {
	b := "jobs:\n- name: unit\n  runs-on: linux\n  timeout: 5m\n" + extra + "  steps:\n"
	for _, s := range steps {
		b += "  - run: |\n      " + strings.ReplaceAll(s, "\n", "\n      ") + "\n"
	}
	return b
}

// waits is a step that says that it runs and goes on when it is told to, or after a while.
const waits = `echo ran >> "$SHARED/ran"; touch "$SHARED/started"
for i in $(seq 300); do test -e "$SHARED/go" && exit 0; sleep 0.1; done`

func TestSuccess(t *testing.T) {
	h := newHouse(t, job("  env: {WORD: hello}\n  matrix: {n: [one]}\n", `bash check.sh; echo "$WORD $MATRIX_N $SIGNALBOX_PR"`))
	newHand(t, h, "linux")
	h.start()
	h.verdict(forge.CheckSuccess)
	for _, want := range []string{"from the checkout of " + h.sha, "hello one 7"} {
		if strings.Count(h.log(), want+"\n") != 1 {
			t.Errorf("the log does not say %q once:\n%s", want, h.log())
		}
	}
}

func TestFailingStep(t *testing.T) {
	h := newHouse(t, job("", "exit 3", "touch $SHARED/after"))
	newHand(t, h, "linux")
	h.start()
	h.verdict(forge.CheckFailure)
	if h.exists("after") {
		t.Error("the step after the failing one ran")
	}
}

// Gitea's runner reports success for what it cancelled, Forgejo's failure.
func TestCancelIsNotGreen(t *testing.T) {
	h := newHouse(t, job("", waits))
	newHand(t, h, "linux")
	h.start()
	until(t, "the step runs", func() bool { return h.exists("started") })
	h.cancel()
	h.verdict(forge.CheckCancelled)
}

// And for what it leaves behind when it is stopped.
func TestSIGTERMIsNotGreen(t *testing.T) {
	h := newHouse(t, job("", waits))
	r := newHand(t, h, "linux")
	h.start()
	until(t, "the step runs", func() bool { return h.exists("started") })
	r.signal(syscall.SIGTERM)
	h.touch("go")
	h.clock.forward(runner.HeartbeatTTL - time.Second) // should it not have reported
	h.verdict(forge.CheckFailure)
}

// A pull request's code kills its runner: no report ever comes, the lease runs out.
func TestJobKillsItsRunner(t *testing.T) {
	h := newHouse(t, job("", `touch "$SHARED/started"; kill -9 $(cat "$SHARED/pid")`))
	r := newHand(t, h, "linux")
	h.start()
	<-r.gone
	h.clock.forward(runner.HeartbeatTTL + time.Second)
	h.verdict(forge.CheckFailure)
}

// A job that may run again does, on a runner started anew, once the lease of the killed one is over.
func TestKilledRunnerIsReplaced(t *testing.T) {
	h := newHouse(t, job("  retry-safe: true\n", `if test -e "$SHARED/started"; then echo second; exit 0; fi; touch "$SHARED/started"; sleep 20`))
	r := newHand(t, h, "linux")
	h.start()
	until(t, "the step runs", func() bool { return h.exists("started") })
	r.signal(syscall.SIGKILL)
	r.start() // declares itself: what is left of the lease is cut
	until(t, "the task is lost", func() bool {
		h.clock.forward(5 * time.Second)
		return len(h.view().Logs) == 2
	})
	h.verdict(forge.CheckSuccess)
}

// A private repository is checked out with a token that is left nowhere, and secrets are seen by the job alone.
func TestPrivateRepositoryAndSecrets(t *testing.T) {
	const secret = "correct-horse\nbattery-staple"
	h := newHouse(t, job("  secrets: [DEPLOY_KEY]\n", `bash check.sh
if grep -rqF "$(cat "$SHARED/token")" . ; then touch "$SHARED/left"; fi
env > "$SHARED/env"
echo "$DEPLOY_KEY"; printf '%s' "$DEPLOY_KEY" | fold -w 5; cat "$SHARED/token"; test "$DEPLOY_KEY" = "$(printf 'correct-horse\nbattery-staple')"`))
	f := sandbox.New(sandbox.Options{Seed: t.Name()})
	server, err := f.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	u := f.AddUser("u")
	if err := f.AddRepo("o/r", sandbox.RepoOptions{Private: true, Permissions: map[*sandbox.User]string{u: "read"}}).ServeGit(t.Context(), h.dir+"/repo"); err != nil {
		t.Fatal(err)
	}
	h.clone, h.token, h.secrets = server.URL+"/o/r.git", u.Token, map[string]string{"DEPLOY_KEY": secret}
	if err := os.WriteFile(h.dir+"/token", []byte(u.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	newHand(t, h, "linux")
	h.start()
	h.verdict(forge.CheckSuccess)
	log := h.log()
	if !strings.Contains(log, "from the checkout of "+h.sha) {
		t.Errorf("no checkout:\n%s", log)
	}
	env, err := os.ReadFile(h.dir + "/env")
	if err != nil || h.exists("left") || strings.Contains(string(env), u.Token) {
		t.Errorf("the token is left in the checkout (%v) or the job's environment, %v:\n%s", h.exists("left"), err, env)
	}
	for _, hidden := range []string{u.Token, "correct-horse", "battery-staple", " corre\n", " aple\n"} {
		if strings.Contains(log, hidden) {
			t.Errorf("the log shows %q:\n%s", hidden, log)
		}
	}
}

// The whole thing: webhooks, gate, label, a job on this runner, a green check whose link answers, in one process that is
// the product's own.
func TestWebhookToGreenCheck(t *testing.T) {
	bin := t.TempDir() + "/signalbox"
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, "../cmd/signalbox").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.CommandContext(t.Context(), bin, "demo", "--exit", "--runner-bin", build(t)).CombinedOutput()
	for _, want := range []string{
		"ok   the presubmit check links to its log", "      | ", "ok   presubmit check at ", "ok   the job's own check", "ok   the log says once", "ok   the secret is not in the log",
		"Every expectation held.",
	} {
		if err != nil || !strings.Contains(string(out), want) {
			t.Fatalf("%v, without %q:\n%s", err, want, out)
		}
	}
}

// A task whose answer is lost, twice, runs once. A runner that sends a request key (forgejo/runner, pull request 1393) asks
// for it again and gets it: one task, on time. From one that sends none it comes back when its accept lease is over, as
// another task.
func TestLostFetchTask(t *testing.T) {
	h := newHouse(t, job("", `echo ran >> "$SHARED/ran"`))
	h.losing("FetchTask", 2)
	newHand(t, h, "linux")
	h.start()
	keys := func() []string {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Clone(h.keys)
	}
	for n := range 2 {
		until(t, "an answer is lost", func() bool { return len(keys()) > n })
		if keys()[n] == "" {
			h.clock.forward(runner.AcceptTTL)
		}
	}
	h.verdict(forge.CheckSuccess)
	want := 1
	switch k := keys(); {
	case k[0] != k[1]:
		t.Errorf("asked again with another request key: %q", k)
	case k[0] == "":
		want = 3
	}
	if got := len(h.view().Logs); got != want {
		t.Errorf("the job had %d tasks, want %d", got, want)
	}
	if b, err := os.ReadFile(h.dir + "/ran"); err != nil || string(b) != "ran\n" {
		t.Errorf("the job %q, %v", b, err)
	}
}

func TestLostReports(t *testing.T) {
	h := newHouse(t, job("", "for i in 1 2 3; do echo row $i; sleep 1; done"))
	h.losing("UpdateLog", 2)
	h.losing("UpdateTask", 3)
	newHand(t, h, "linux")
	h.start()
	h.verdict(forge.CheckSuccess)
	for _, row := range []string{"row 1", "row 2", "row 3"} {
		if strings.Count(h.log(), " "+row+"\n") != 1 {
			t.Errorf("the log does not say %q once:\n%s", row, h.log())
		}
	}
	if h.lost["UpdateLog"] != 2 || h.lost["UpdateTask"] != 3 {
		t.Errorf("lost %v", h.lost)
	}
}

// A line that is longer than a log costs that line, and nothing that comes behind it. While it is sent the job ends, and
// Forgejo's runner says so before it sends the last rows.
func TestEndlessLine(t *testing.T) {
	h := newHouse(t, job("", `head -c 40000000 /dev/zero | tr '\0' x; echo; echo the end`))
	newHand(t, h, "linux")
	h.start()
	h.verdict(forge.CheckSuccess)
	for _, row := range []string{"bytes is not kept]", "Z the end"} {
		if strings.Count(h.log(), row+"\n") != 1 {
			t.Errorf("the log does not say %q once:\n%s", row, h.log())
		}
	}
}

func TestServerRestartsInMidJob(t *testing.T) {
	h := newHouse(t, job("", waits))
	newHand(t, h, "linux")
	h.start()
	until(t, "the step runs", func() bool { return h.exists("started") })
	h.stop()
	h.clock.forward(4 * time.Minute) // more than a lease: silence for no fault of the runner
	h.touch("go")
	h.open()
	h.verdict(forge.CheckSuccess)
}

func TestLabels(t *testing.T) {
	h := newHouse(t, job("", "echo here")+strings.ReplaceAll(strings.TrimPrefix(job("", `echo there`), "jobs:\n"), "unit", "other"))
	h.file = strings.Replace(h.file, "name: other\n  runs-on: linux", "name: other\n  runs-on: arm", 1)
	newHand(t, h, "linux")
	h.start()
	until(t, "the first job is done", func() bool {
		return slices.Contains(h.view().Jobs, runner.JobView{Name: "unit", State: string(runner.Success)})
	})
	newHand(t, h, "arm")
	h.verdict(forge.CheckSuccess)
	list, err := h.service.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("%v, %v", list, err)
	}
}
