package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// yard is the whole service and a sandbox forge on one clock that the test moves. Everything else is real: HTTP, the
// engine, the embedded file.
type yard struct {
	t       *testing.T
	ahead   atomic.Int64
	forge   *sandbox.Forge
	repo    *sandbox.Repo
	app     *sandbox.App // nil with a token
	install int64
	env     []string
	dir     string
	key     string
	file    string            // box.yaml, where SIGNALBOX_CONFIG names it
	wire    http.RoundTripper // to the forge; nil = held against GitHub's description

	mallory, maya *sandbox.User

	*running
}

// running is one life of the service.
type running struct {
	app    *app
	url    string
	sender *sandbox.Sender
	stop   func()
}

const yardSecret = "yard-webhook-secret"

func newYard(t *testing.T, withApp bool, env ...string) *yard {
	t.Helper()
	y := &yard{t: t, dir: t.TempDir()}
	y.forge = sandbox.New(sandbox.Options{Seed: t.Name(), Clock: y.now, RateLimit: 1 << 20})
	api, err := y.forge.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = api.Close() })
	me := y.forge.AddUser("signalbox")
	y.mallory, y.maya = y.forge.AddUser("mallory"), y.forge.AddUser("maya")
	y.repo = y.forge.AddRepo("octo/hello", sandbox.RepoOptions{
		Permissions: map[*sandbox.User]string{me: "admin", y.maya: "write"},
		Branches:    []string{"signalbox-presubmit"},
		Workflows: []sandbox.WorkflowOptions{{
			File: ".github/workflows/presubmit.yml", On: []string{"workflow_dispatch"},
			RunName: "PR ${{ inputs.pr }} ${{ inputs.sha }} ${{ inputs.signalbox }}",
			Inputs: []sandbox.Input{
				{Name: "signalbox", Required: true}, {Name: "pr", Required: true}, {Name: "sha", Required: true}, {Name: "base_sha", Required: true},
			},
		}},
	})
	y.env = append([]string{
		"SIGNALBOX_STORE=file:" + filepath.Join(y.dir, "signalbox.db"), "SIGNALBOX_GITHUB_API_URL=" + api.URL,
		"SIGNALBOX_GITHUB_WEBHOOK_SECRET=" + yardSecret, "SIGNALBOX_TRIGGER=workflow:presubmit.yml@signalbox-presubmit",
		"SIGNALBOX_ADMIN_TOKEN=yard-admin-token",
	}, env...)
	if withApp {
		public, private := appKeys(t)
		y.key = private
		y.app = y.forge.AddApp(sandbox.AppOptions{Slug: "signalbox", Owner: "octo", Key: public, Secret: yardSecret})
		y.install = y.app.Install(y.repo).ID
		y.env = append(y.env, "SIGNALBOX_GITHUB_APP_ID="+strconv.FormatInt(y.app.ID, 10), "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=app.pem")
	} else {
		y.repo.AddHook(yardSecret, "pull_request", "issue_comment", "workflow_run")
		y.env = append(y.env, "SIGNALBOX_GITHUB_TOKEN="+me.Token, "SIGNALBOX_REPOS=octo/hello")
	}
	return y
}

var yardKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func appKeys(t *testing.T) (*rsa.PublicKey, string) {
	t.Helper()
	key, err := yardKey()
	if err != nil {
		t.Fatal(err)
	}
	return &key.PublicKey, string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func (y *yard) now() time.Time        { return time.Now().Add(time.Duration(y.ahead.Load())) }
func (y *yard) later(d time.Duration) { y.ahead.Add(int64(d)) }

func (y *yard) read(name string) ([]byte, error) { return files{"app.pem": y.key}.read(name) }

// up starts the service on the yard's file.
func (y *yard) up() {
	y.t.Helper()
	cfg := resolve(y.t, Settings{}, y.env, files{"app.pem": y.key, "box.yaml": y.file})
	if y.wire == nil {
		y.wire = described(y.t)
	}
	a, err := newApp(y.t.Context(), cfg, zap.NewNop(), appOptions{poll: 20 * time.Millisecond, now: y.now, transport: y.wire})
	if err != nil {
		y.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		y.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(y.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.serve(ctx, ln) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			y.t.Errorf("serve: %v", err)
		}
	})
	y.t.Cleanup(stop)
	url := "http://" + ln.Addr().String()
	y.running = &running{app: a, url: url, sender: y.forge.NewSender(url + "/webhooks/github"), stop: stop}
}

// settle waits until nothing is due at this moment of the yard's clock.
func (y *yard) settle() {
	y.t.Helper()
	ctx, cancel := context.WithTimeout(y.t.Context(), time.Minute)
	defer cancel()
	if d, err := y.running.app.engine.Drain(ctx, 0); err != nil || !d.Idle {
		y.t.Fatalf("does not come to rest: %+v %v", d, err)
	}
}

// pass lets d pass, in steps after each of which everything due is done.
func (y *yard) pass(d, step time.Duration) {
	y.t.Helper()
	for ; d > 0; d -= step {
		y.settle()
		y.later(step)
	}
	y.settle()
}

func (y *yard) send() {
	y.t.Helper()
	if err := y.sender.Flush(y.t.Context()); err != nil {
		y.t.Fatal(err)
	}
}

func (y *yard) ref(p *sandbox.PR) string { return fmt.Sprintf("github:octo/hello#%d", p.Number) }

// story is what explain would tell.
func (y *yard) story(p *sandbox.PR) string {
	y.t.Helper()
	st, err := y.running.app.admin.story(y.t.Context(), y.ref(p))
	if err != nil {
		return err.Error()
	}
	var b strings.Builder
	st.print(&b)
	return b.String()
}

func (y *yard) triggers(p *sandbox.PR) int {
	n := 0
	for t, k := range y.forge.Triggers() {
		if t.PR == p.Number && t.SHA == p.Head() {
			n += k
		}
	}
	return n
}

func TestOutageOfAnHour(t *testing.T) {
	for name, c := range map[string]struct {
		app   bool
		pulls int
		mixed int // 0: half of the pull requests lose everything; 1: each loses some
	}{"App": {true, 100, 0}, "token": {false, 20, 1}} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, c.app)
			y.up()
			y.send() // the ping
			y.pass(2*time.Minute, 20*time.Second)
			y.stop()

			// While nobody is there: outsiders open, push, and are approved.
			y.later(time.Minute)
			var pulls []*sandbox.PR
			for range c.pulls {
				pulls = append(pulls, y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true}))
				y.later(10 * time.Second)
			}
			for _, p := range pulls {
				p.Push(y.mallory)
				y.later(10 * time.Second)
			}
			y.later(10 * time.Minute)
			for i, p := range pulls {
				if i%2 == 0 {
					p.Label(y.maya, "CICD")
				} else {
					p.Retitle(y.mallory, "Another title")
				}
				y.later(10 * time.Second)
			}
			due := slices.DeleteFunc(y.forge.Due(), func(d sandbox.Delivery) bool { return d.Event != "pull_request" })
			if len(due) != 3*c.pulls {
				t.Fatalf("%d deliveries, expected %d", len(due), 3*c.pulls)
			}
			for i, d := range due {
				if (i+c.mixed*(i/c.pulls))%2 == 0 {
					if err := y.sender.Drop(d.GUID); err != nil {
						t.Fatal(err)
					}
				}
			}

			y.up()
			y.send() // the other half comes late
			y.settle()
			fresh := y.repo.OpenPR(y.maya, sandbox.PROptions{})
			y.send()
			y.settle()
			if n := y.triggers(fresh); n != 1 {
				t.Errorf("a pull request that arrives during the repair was triggered %d times", n)
			}
			missing := 0
			for _, d := range y.forge.Deliveries() {
				if d.Event == "pull_request" && !slices.ContainsFunc(d.Attempts, func(a sandbox.Attempt) bool { return a.Status == 202 }) {
					missing++
				}
			}
			if missing < c.pulls/2 {
				t.Errorf("the fresh one was decided when only %d deliveries were missing: that shows nothing", missing)
			}
			for range 60 { // ten minutes
				y.pass(10*time.Second, 5*time.Second)
				y.send()
			}
			for _, d := range y.forge.Deliveries() {
				if d.Event != "pull_request" {
					continue
				}
				arrived := 0
				for _, a := range d.Attempts {
					if a.Status == 202 {
						arrived++
					}
				}
				if arrived != 1 || len(d.Attempts) > 2 {
					t.Errorf("delivery %s of #%d %s: %d attempts, %d arrived", d.GUID, d.PR, d.Action, len(d.Attempts), arrived)
				}
			}
			open, shut := "success", "action_required"
			if !c.app {
				shut = "pending"
			}
			for i, p := range pulls {
				want, runs := open, 1
				if i%2 != 0 {
					want, runs = shut, 0
				}
				if got := y.repo.Gate(p.Head(), "CI gate"); got != want || y.triggers(p) != runs {
					t.Errorf("#%d: gate %s, triggered %d times, expected %s and %d\n%s", p.Number, got, y.triggers(p), want, runs, y.story(p))
				}
			}
		})
	}
}

func TestOpenPullRequestsAtFirstStart(t *testing.T) {
	y := newYard(t, true)
	var pulls []*sandbox.PR
	const n = 60
	for i := range n {
		who, labels := y.mallory, []string(nil)
		if i%3 == 0 {
			who = y.maya
		}
		if i%4 == 0 {
			labels = []string{"CICD"}
		}
		pulls = append(pulls, y.repo.OpenPR(who, sandbox.PROptions{Fork: i%3 != 0, Labels: labels}))
	}
	y.later(time.Hour)
	y.up()
	for _, d := range y.forge.Due() { // what was sent before there was a server
		if err := y.sender.Drop(d.GUID); err != nil {
			t.Fatal(err)
		}
	}
	y.later(time.Minute)
	y.pass(5*time.Minute, time.Second)

	writes := y.forge.Writes(0)
	busiest, from := 0, 0
	for i, w := range writes {
		if w.Kind != "check" {
			t.Errorf("%s %s on #%d", w.Kind, w.Name, w.PR)
		}
		for w.At.Sub(writes[from].At) >= time.Minute {
			from++
		}
		busiest = max(busiest, i-from+1)
	}
	if busiest > 20 || len(writes) != n {
		t.Errorf("%d writes, %d in the busiest minute; expected %d and at most 20", len(writes), busiest, n)
	}
	for i, p := range pulls {
		want := "action_required"
		if i%3 == 0 {
			want = "success"
		}
		if got := y.repo.Gate(p.Head(), "CI gate"); got != want {
			t.Errorf("#%d: gate %q, expected %s", p.Number, got, want)
		}
		if slices.Contains(p.Labels(), "CICD") != (i%4 == 0) {
			t.Errorf("#%d: labels %v", p.Number, p.Labels())
		}
	}
	if got := y.forge.Triggers(); len(got) != 0 {
		t.Errorf("triggered %v", got)
	}
}

// post sends an operator's request as curl would.
func (y *yard) post(path, token string) (int, string) {
	y.t.Helper()
	req, err := http.NewRequestWithContext(y.t.Context(), http.MethodPost, y.url+path, http.NoBody)
	if err != nil {
		y.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		y.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		y.t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

// command runs the command line against the running server.
func (y *yard) command(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	env := append(slices.Clone(y.env), "SIGNALBOX_URL="+y.url)
	code = run(y.t.Context(), args, process{env, y.read, &o, &e})
	return code, o.String(), e.String()
}
