package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/forge/sandbox/openapi"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redistest"
	"github.com/signalbox-ci/signalbox/status"
)

// The tests in process_*_test.go run Signalbox as real processes on a real store against the sandbox forge, over HTTP.
// The processes are this test binary: with asSignalbox set it is signalbox, with faults that the tests choose.
const (
	asSignalbox = "PROCESS_TEST"
	faultFile   = "PROCESS_TEST_FAULT"
)

func TestMain(m *testing.M) {
	if os.Getenv(asSignalbox) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := process{os.Environ(), os.ReadFile, os.Stdout, os.Stderr}
	if len(os.Args) < 2 || os.Args[1] != "serve" {
		os.Exit(run(ctx, os.Args[1:], p))
	}
	go func() { // the test holds the other end: no process outlives it
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(exitFailed)
	}()
	if err := serveUnderTest(ctx, p); err != nil {
		fmt.Fprintln(p.err, "signalbox:", err)
		os.Exit(exitFailed)
	}
	os.Exit(exitOK)
}

// serveUnderTest is serveCmd.Run on the listener that the test opened, with quick polls and faults.
func serveUnderTest(ctx context.Context, p process) error {
	cfg, err := Settings{}.Resolve(p.environ, p.readFile)
	if err != nil {
		return err
	}
	log, err := newLog(p.err, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return err
	}
	a, err := newApp(ctx, cfg, log, appOptions{poll: 200 * time.Millisecond, trace: injected(os.Getenv(faultFile))})
	if err != nil {
		return err
	}
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	return a.serve(ctx, ln)
}

// fault says at which boundary the first process that passes it gets a signal: the n-th time that the subject is there,
// whichever processes it was in before.
type fault struct {
	ID      int            `json:"id"`
	Subject state.Subject  `json:"subject"`
	Point   actor.Point    `json:"point"`
	N       int            `json:"n"`
	Signal  syscall.Signal `json:"signal"`
}

func injected(file string) func(state.Subject, actor.Point) {
	return func(s state.Subject, point actor.Point) {
		b, err := os.ReadFile(file)
		var f fault
		if err != nil || json.Unmarshal(b, &f) != nil || f.Subject != s || f.Point != point {
			return
		}
		for i := 1; i <= f.N; i++ {
			passed, err := os.OpenFile(fmt.Sprintf("%s.%d.%d", file, f.ID, i), os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				continue // somebody passed there for the i-th time before
			}
			_ = passed.Close()
			if i == f.N {
				_ = syscall.Kill(os.Getpid(), f.Signal)
				for f.Signal == syscall.SIGKILL || !exists(fmt.Sprintf("%s.%d.go", file, f.ID)) {
					<-time.After(time.Millisecond) // the signal is on its way; after SIGCONT the test says when to go on
				}
			}
			return
		}
	}
}

func exists(file string) bool { _, err := os.Stat(file); return err == nil }

// soak says whether the long forms of the tests are asked for (make soak).
func soak() bool { return os.Getenv("SIGNALBOX_SOAK") == "1" }

// patience bounds every wait. It is reached only when something is broken.
const patience = 2 * time.Minute

const (
	hookSecret = "process-test-secret"
	gateCheck  = "CI gate"
	gateLabel  = "CICD"
)

// world is a forge with one repository, its people, and processes that gate it on one store.
type world struct {
	*testing.T
	forge         *sandbox.Forge
	wire          *wire
	repo          *sandbox.Repo
	maya, mallory *sandbox.User // maya may write; mallory may set labels, which proves nothing
	dir           string
	env           []string // what an operator would set

	ahead   atomic.Int64 // of the forge's clock
	reader  reader
	next    atomic.Int64 // process asked first
	begun   int
	faults  int
	mu      sync.Mutex
	servers []*server // that get deliveries
}

// begin makes the world; its processes are begun by serve. more are settings over the usual ones.
func begin(t *testing.T, store string, more ...string) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir()}
	w.wire = &wire{busy: map[string]int{}}
	w.wire.server = httptest.NewUnstartedServer(w.wire)
	w.forge = sandbox.New(sandbox.Options{
		Seed: t.Name(), RateLimit: 1 << 30, URL: "http://" + w.wire.server.Listener.Addr().String(),
		Clock: func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	})
	described, err := openapi.GitHub()
	w.must(err)
	w.wire.forge = described.Both(w.forge, func(err error) { w.Error(err) }) // whole lives, held against GitHub's description
	w.wire.server.Start()
	t.Cleanup(w.wire.server.Close)
	w.maya, w.mallory = w.forge.AddUser("maya"), w.forge.AddUser("mallory")
	input := func(name string) sandbox.Input { return sandbox.Input{Name: name, Required: true} }
	w.repo = w.forge.AddRepo("octo/hello", sandbox.RepoOptions{
		Permissions: map[*sandbox.User]string{w.maya: "write", w.mallory: "triage"},
		Branches:    []string{"ci"},
		Workflows: []sandbox.WorkflowOptions{{
			File: ".github/workflows/presubmit.yml", On: []string{"workflow_dispatch"}, RunName: "${{ inputs.signalbox }}",
			Inputs: []sandbox.Input{input("signalbox"), input("pr"), input("sha"), input("base_sha")},
		}},
	})
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	w.must(err)
	pemFile := filepath.Join(w.dir, "app.pem")
	w.must(os.WriteFile(pemFile, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600))
	app := w.forge.AddApp(sandbox.AppOptions{Slug: "signalbox", Owner: "octo", Key: &key.PublicKey, Secret: hookSecret})
	app.Install(w.repo)
	w.env = append([]string{
		"SIGNALBOX_STORE=" + store, "SIGNALBOX_GITHUB_API_URL=" + w.wire.server.URL + "/",
		"SIGNALBOX_GITHUB_APP_ID=" + strconv.FormatInt(app.ID, 10), "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=" + pemFile,
		"SIGNALBOX_GITHUB_WEBHOOK_SECRET=" + hookSecret, "SIGNALBOX_TRIGGER=workflow:presubmit.yml@ci", "SIGNALBOX_HOLD=0s",
		"SIGNALBOX_LOCK_TTL=2s", "SIGNALBOX_SWEEP=24h",
	}, more...)
	t.Cleanup(func() {
		if w.reader != nil {
			_ = w.reader.Close()
		}
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// until polls ok and fails the test if it never holds.
func (w *world) until(what string, ok func() bool) {
	w.Helper()
	if !eventually(ok) {
		w.Fatalf("never came true: %s", what)
	}
}

func eventually(ok func() bool) bool {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
	return true
}

// server is one signalbox process.
type server struct {
	w      *world
	url    string
	log    string
	cmd    *exec.Cmd
	stdin  io.Closer
	gone   chan struct{} // closed when the process has ended
	sender *sandbox.Sender
}

// serve begins processes and returns when each is ready.
func (w *world) serve(n int) []*server {
	w.Helper()
	var begun []*server
	for range n {
		begun = append(begun, w.spawn())
	}
	for _, s := range begun {
		s.ready()
	}
	return begun
}

// spawn begins a process and does not wait.
func (w *world) spawn() *server {
	w.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	file, err := ln.(*net.TCPListener).File()
	w.must(err)
	s := &server{w: w, url: "http://" + ln.Addr().String(), gone: make(chan struct{})}
	w.begun++
	s.log = filepath.Join(w.dir, fmt.Sprintf("log.%d", w.begun))
	out, err := os.Create(s.log)
	w.must(err)
	s.cmd = exec.CommandContext(context.WithoutCancel(w.Context()), os.Args[0], "serve")
	s.cmd.Env = append(slices.Clone(w.env), asSignalbox+"=1", faultFile+"="+filepath.Join(w.dir, "fault"))
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr, s.cmd.ExtraFiles = w.dir, out, out, []*os.File{file}
	s.stdin, err = s.cmd.StdinPipe()
	w.must(err)
	w.must(s.cmd.Start())
	w.must(errors.Join(ln.Close(), file.Close(), out.Close())) // the process has its own
	s.sender = w.forge.NewSender(s.url + "/webhooks/github")
	w.mu.Lock()
	w.servers = append(w.servers, s)
	w.mu.Unlock()
	go func() { // joined below
		defer close(s.gone)
		_ = s.cmd.Wait() // how it ended is in ProcessState
	}()
	w.Cleanup(func() {
		s.kill()
		s.sender.Close()
		if w.Failed() {
			w.Logf("%s says:\n%s", s.log, tail(s.said(), 60))
		}
	})
	return s
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

func (s *server) ready() {
	s.w.Helper()
	s.w.until(s.url+" is ready", func() bool {
		if s.ended() {
			s.w.Fatalf("the process ended at once:\n%s", s.said())
		}
		res, err := web.Get(s.url + "/readyz")
		if err != nil {
			return false
		}
		_ = res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// web is a client that keeps no connection, so that each request meets the listener.
var web = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (s *server) said() string {
	b, _ := os.ReadFile(s.log)
	return string(b)
}

func (s *server) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

func (s *server) signal(sig syscall.Signal) {
	s.w.Helper()
	s.w.must(s.cmd.Process.Signal(sig))
}

// kill ends the process at once and waits for its end. One that has ended is left alone.
func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.gone
}

// wait answers the exit code of a process that ends by itself; -1 = killed by a signal.
func (s *server) wait() int {
	s.w.Helper()
	s.w.until(s.url+" ended", s.ended)
	return s.cmd.ProcessState.ExitCode()
}

// frozen says whether the process has been stopped by SIGSTOP.
func (s *server) frozen() bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/stat")
	return err == nil && strings.Contains(string(b), ") T ")
}

// only lets deliveries go to this process alone.
func (w *world) only(s *server) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.servers = []*server{s}
}

// alive are the processes that have not ended.
func (w *world) alive() []*server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.servers), func(s *server) bool { return s.ended() })
}

// arm makes the first process that takes the subject past the point for the n-th time get the signal.
func (w *world) arm(s state.Subject, p actor.Point, n int, sig syscall.Signal) {
	w.Helper()
	w.faults++
	b, err := json.Marshal(fault{ID: w.faults, Subject: s, Point: p, N: n, Signal: sig})
	w.must(err)
	file := filepath.Join(w.dir, "fault")
	w.must(os.WriteFile(file+".new", b, 0o600))
	w.must(os.Rename(file+".new", file))
}

// resume lets a process go on that a fault has stopped.
func (w *world) resume(s *server) {
	w.Helper()
	w.must(os.WriteFile(filepath.Join(w.dir, fmt.Sprintf("fault.%d.go", w.faults)), nil, 0o600))
	s.signal(syscall.SIGCONT)
}

// What people do. Between two acts the forge's clock, which shows whole seconds, moves on.

func (w *world) act() { w.ahead.Add(int64(2 * time.Second)) }

func (w *world) opens(u *sandbox.User) *sandbox.PR {
	w.act()
	return w.repo.OpenPR(u, sandbox.PROptions{Fork: u != w.maya})
}

func (w *world) labels(u *sandbox.User, p *sandbox.PR)   { w.act(); p.Label(u, gateLabel) }
func (w *world) unlabels(u *sandbox.User, p *sandbox.PR) { w.act(); p.Unlabel(u, gateLabel) }
func (w *world) pushes(u *sandbox.User, p *sandbox.PR)   { w.act(); p.Push(u) }

// deliver sends what is due, in order, each delivery until a process has stored it.
func (w *world) deliver() {
	for _, d := range w.forge.Due() {
		w.send(d.GUID)
	}
}

// send posts one delivery to one process after another until it is answered 2xx.
func (w *world) send(guid string) {
	if !eventually(func() bool {
		all := w.alive()
		if len(all) == 0 {
			return false
		}
		a, err := all[int(w.next.Add(1))%len(all)].sender.Send(w.Context(), guid)
		return err == nil && a.Status >= 200 && a.Status < 300
	}) {
		w.Errorf("delivery %s was never stored", guid)
	}
}

// answered is the reply to a delivery.
type answered struct {
	status    int // 0 = none came
	retry     string
	Delivery  string
	Duplicate *bool
	Error     struct{ Code, Message string }
}

// post sends a delivery once and answers what came back.
func (s *server) post(d sandbox.Delivery) answered {
	return s.request(map[string]string{
		"Content-Type": "application/json", "X-GitHub-Delivery": d.GUID, "X-GitHub-Event": d.Event,
		"X-Hub-Signature-256": sandbox.Sign(hookSecret, d.Body),
	}, d.Body)
}

func (s *server) request(header map[string]string, body []byte) (a answered) {
	req, err := http.NewRequestWithContext(s.w.Context(), http.MethodPost, s.url+"/webhooks/github", bytes.NewReader(body))
	if err != nil {
		return a
	}
	for k, v := range header {
		req.Header.Set(k, v)
	}
	res, err := web.Do(req)
	if err != nil {
		return a
	}
	defer res.Body.Close()
	a.status, a.retry = res.StatusCode, res.Header.Get("Retry-After")
	if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
		s.w.Errorf("%s answered %d with a body that is no JSON: %v", s.url, a.status, err)
	}
	return a
}

// delivery is the newest delivery of a pull request with this action.
func (w *world) delivery(p *sandbox.PR, action string) sandbox.Delivery {
	w.Helper()
	for _, d := range slices.Backward(w.forge.Deliveries()) {
		if d.PR == p.Number && d.Action == action {
			return d
		}
	}
	w.Fatalf("#%d has no delivery %q", p.Number, action)
	return sandbox.Delivery{}
}

// Looking into the store.

func (w *world) look() reader {
	w.Helper()
	if w.reader == nil {
		cfg, err := Settings{}.ResolveOffline(w.env, os.ReadFile)
		w.must(err)
		w.reader, err = openReader(w.Context(), cfg.Store)
		w.must(err)
	}
	return w.reader
}

func (w *world) subject(p *sandbox.PR) state.Subject {
	return prmanager.Subject(forge.Ref{Repo: forge.Repo{Instance: "github", ID: w.repo.ID}, Number: p.Number})
}

func (w *world) commit(sha string) state.Subject {
	return status.Subject(forge.Repo{Instance: "github", ID: w.repo.ID}, sha)
}

func (w *world) journal(s state.Subject) []line {
	w.Helper()
	raw, err := w.look().Journal(w.Context(), s, state.JournalKept)
	w.must(err)
	lines := make([]line, len(raw))
	for i, b := range raw {
		w.must(json.Unmarshal(b, &lines[i]))
	}
	return lines
}

// passed counts the lines of a subject's journal that name a reason or an input that begins so.
func (w *world) passed(s state.Subject, word string) (n int) {
	w.Helper()
	for _, l := range w.journal(s) {
		if slices.ContainsFunc(append(l.Why, l.In...), func(x string) bool { return strings.HasPrefix(x, word) }) {
			n++
		}
	}
	return n
}

// settle delivers what arises until everything is at rest: no mail unread, no effect to be done, nothing planned.
func (w *world) settle(pulls ...*sandbox.PR) {
	w.Helper()
	busy := "nothing was looked at"
	if !eventually(func() bool {
		w.deliver()
		busy = w.busy(pulls)
		return busy == "" && len(w.forge.Due()) == 0
	}) {
		w.Fatalf("it never came to rest: %s", busy)
	}
}

func (w *world) busy(pulls []*sandbox.PR) string {
	for _, p := range pulls {
		s := w.subject(p)
		v, busy := w.see(s)
		if busy != "" {
			return busy
		}
		d, err := decodePR(v)
		if err != nil {
			return err.Error()
		}
		if d.Head.SHA != p.Head() {
			return fmt.Sprintf("%s is at %.7s, and the forge at %.7s", s, d.Head.SHA, p.Head())
		}
		for sha := range d.Told {
			if _, busy := w.see(w.commit(sha)); busy != "" {
				return busy
			}
		}
	}
	return ""
}

func (w *world) see(s state.Subject) (actor.View, string) {
	v, err := actor.See(w.Context(), w.look(), s)
	switch {
	case err != nil:
		return v, err.Error()
	case !v.Quarantined.IsZero():
		w.Fatalf("%s is in quarantine: %+v", s, v)
	case v.Unread > 0, len(v.Outbox) > 0, !v.Due.IsZero():
		return v, fmt.Sprintf("%s: %d unread, due %s (now %s), outbox %+v", s, v.Unread, v.Due, v.Now, v.Outbox)
	}
	return v, ""
}

// What must be true, read off the forge's own record.

func (w *world) gate(p *sandbox.PR, sha, want string) {
	w.Helper()
	if got := w.repo.Gate(sha, gateCheck); got != want {
		w.Errorf("gate of #%d at %.7s is %q, want %q; its story:\n%s", p.Number, sha, got, want, w.told(p))
	}
}

func (w *world) label(p *sandbox.PR, want bool) {
	w.Helper()
	if got := slices.Contains(p.Labels(), gateLabel); got != want {
		w.Errorf("label on #%d: %v, want %v; its story:\n%s", p.Number, got, want, w.told(p))
	}
}

// triggered wants so many runs started for a commit, and never one run key twice.
func (w *world) triggered(p *sandbox.PR, sha string, want int) {
	w.Helper()
	got := 0
	for t, n := range w.forge.Triggers() {
		if t.PR != p.Number || t.SHA != sha {
			continue
		}
		got += n
		if n > 1 {
			w.Errorf("run key %s of #%d was triggered %d times", t.Key, p.Number, n)
		}
	}
	if got != want {
		w.Errorf("#%d at %.7s was triggered %d times, want %d; its story:\n%s", p.Number, sha, got, want, w.told(p))
	}
}

// running counts the runs of a pull request that nobody has ended.
func (w *world) running(p *sandbox.PR) (n int) {
	for _, r := range w.repo.Runs() {
		if r.Inputs["pr"] == strconv.Itoa(p.Number) && (r.State() == "queued" || r.State() == "in_progress") {
			n++
		}
	}
	return n
}

// open wants a gate that is open as it must be: label, one run, check.
func (w *world) open(p *sandbox.PR) {
	w.Helper()
	w.gate(p, p.Head(), "success")
	w.label(p, true)
	w.triggered(p, p.Head(), 1)
}

// shut wants a gate that is shut as it must be: no label, nothing running.
func (w *world) shut(p *sandbox.PR) {
	w.Helper()
	w.gate(p, p.Head(), "action_required")
	w.label(p, false)
	if n := w.running(p); n > 0 {
		w.Errorf("%d runs of #%d go on behind a shut gate; its story:\n%s", n, p.Number, w.told(p))
	}
}

func (w *world) told(p *sandbox.PR) string {
	b := &strings.Builder{}
	for _, l := range w.journal(w.subject(p)) {
		l.print(b)
	}
	return b.String()
}

// wire stands between the processes and the forge. It holds calls, and sees two writes for one subject at once.
type wire struct {
	forge  http.Handler
	server *httptest.Server

	mu       sync.Mutex
	holds    []*hold
	busy     map[string]int
	overlaps []string
}

// hold stops one call: before the forge has seen it, or after, so that only the answer is missing.
type hold struct {
	match   func(r *http.Request, body []byte) bool
	after   bool
	reached chan struct{} // closed when a call is held
	release func()
	freed   chan struct{}
}

// holds makes the next call that matches stop. The call goes on with release, at the latest at the end of the test.
func (w *world) holds(after bool, match func(r *http.Request, body []byte) bool) *hold {
	h := &hold{match: match, after: after, reached: make(chan struct{}), freed: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.freed) })
	w.Cleanup(h.release)
	w.wire.mu.Lock()
	defer w.wire.mu.Unlock()
	w.wire.holds = append(w.wire.holds, h)
	return h
}

// held waits until a call is held.
func (w *world) held(h *hold) {
	w.Helper()
	w.until("a call is held", func() bool {
		select {
		case <-h.reached:
			return true
		default:
			return false
		}
	})
}

func dispatches(r *http.Request, _ []byte) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/dispatches")
}

// writesGate matches the write of the gate check of one commit in one state.
func writesGate(sha, conclusion string) func(*http.Request, []byte) bool {
	return func(r *http.Request, body []byte) bool {
		var in struct {
			Name, Conclusion string
			SHA              string `json:"head_sha"`
		}
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/check-runs") &&
			json.Unmarshal(body, &in) == nil && in.Name == gateCheck && in.SHA == sha && in.Conclusion == conclusion
	}
}

func (x *wire) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the caller has gone
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	x.mu.Lock()
	var held *hold
	for i, h := range x.holds {
		if h.match(r, body) {
			held, x.holds = h, slices.Delete(x.holds, i, i+1)
			break
		}
	}
	of := written(r, body)
	if of != "" {
		if x.busy[of]++; x.busy[of] > 1 {
			x.overlaps = append(x.overlaps, of+" by "+r.Method+" "+r.URL.Path)
		}
	}
	x.mu.Unlock()
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.busy[of]--
	}()
	if held != nil && !held.after {
		close(held.reached)
		<-held.freed
	}
	if held == nil || !held.after {
		x.forge.ServeHTTP(out, r)
		return
	}
	kept := httptest.NewRecorder()
	x.forge.ServeHTTP(kept, r)
	close(held.reached)
	<-held.freed
	for k, v := range kept.Header() {
		out.Header()[k] = v
	}
	out.WriteHeader(kept.Code)
	_, _ = out.Write(kept.Body.Bytes())
}

// written names the subject for which a call writes, "" if it writes nothing or for none of ours.
func written(r *http.Request, body []byte) string {
	if r.Method == http.MethodGet {
		return ""
	}
	var in struct {
		SHA    string `json:"head_sha"`
		Inputs struct{ PR string }
	}
	_ = json.Unmarshal(body, &in) // a call without a body is known by its path
	part := strings.Split(r.URL.Path, "/")
	switch {
	case in.SHA != "":
		return "commit " + in.SHA
	case in.Inputs.PR != "":
		return "pull request " + in.Inputs.PR
	case len(part) > 5 && part[4] == "issues":
		return "pull request " + part[5]
	}
	return ""
}

// redisStore runs a Redis for the test that keeps what it has acknowledged.
func redisStore(t *testing.T) *redistest.Server {
	t.Helper()
	return redistest.Start(t, redistest.Options{AppendFsync: "always"})
}

// fileStore names an embedded store for the test.
func fileStore(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "signalbox.db") }
