package main

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

type demoCmd struct {
	Exit      bool   `help:"End with the summary instead of serving on."`
	Runner    bool   `help:"Add a second act: a real job on a stock Gitea or Forgejo runner, and its live log."`
	RunnerBin string `placeholder:"PATH" help:"The runner's binary; default: one that is found on PATH. Implies --runner."`
}

func (demoCmd) Help() string {
	return `Starts the real server on an embedded store and, in the same process, a sandbox forge that behaves like GitHub.
A pull request's life is sent as signed webhooks over HTTP, some twice, some late. Each step shows what happened, what
was decided and why, and what was done. The exit status is 0 only if the forge's own record is as it must be.

With --runner a job then runs for real: a git repository, a runner that is registered and begun here, and stopped at the
end. It executes on this machine, needs git and bash, and does what the account shown may do.

Example:
  signalbox demo --exit
  signalbox demo --exit --runner-bin ./gitea-runner`
}

const (
	demoSecret = "demo-webhook-secret"
	demoGate   = "CI gate"
	demoLabel  = "CICD"
)

// demo is one showing.
type demo struct {
	out    io.Writer
	forge  *sandbox.Forge
	repo   *sandbox.Repo
	extra  *sandbox.Hook // a second webhook on the same repository: everything arrives twice, under other ids
	sender *sandbox.Sender
	app    *app
	ahead  atomic.Int64 // how far the forge's clock runs ahead, so that waiting costs nothing
	told   map[state.Subject]int
	wrote  int // sequence number of the last write that was shown
	steps  int // shown so far
	failed []string
	tested *act // the second act; nil = there is none
}

// Run shows the main job.
func (c demoCmd) Run(ctx context.Context, p process) (err error) {
	bin := ""
	if c.Runner || c.RunnerBin != "" {
		if bin, err = findRunner(c.RunnerBin); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "signalbox-demo-")
	if err != nil {
		return fmt.Errorf("make a place for the demo's store: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{out: p.out, told: map[state.Subject]int{}}
	d.forge = sandbox.New(sandbox.Options{Seed: "demo", Clock: func() time.Time { return time.Now().Add(time.Duration(d.ahead.Load())) }})
	api, err := d.forge.Start()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, api.Close()) }()
	people := d.people()
	if bin != "" {
		if d.tested, err = d.secondAct(ctx, bin, filepath.Join(dir, "act"), people); err != nil {
			return err
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	url := "http://" + ln.Addr().String()
	cfg, err := d.config(api.URL, url, filepath.Join(dir, "signalbox.db"))
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	log, err := newLog(p.err, "error", "console")
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	d.app, err = newApp(ctx, cfg, log, appOptions{poll: 100 * time.Millisecond})
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	serving, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.app.serve(serving, ln) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	d.sender = d.forge.NewSender(url + "/webhooks/github")

	d.sayf("Signalbox %s on %s, store %s\n", versionText(), url, cfg.Store)
	d.sayf("A sandbox forge on %s behaves like GitHub; its own record is what counts at the end.\n", api.URL)
	if err := d.show(ctx, d.life(ctx, people)); err != nil {
		return err
	}
	if d.tested != nil {
		if err := d.runJob(ctx, url, people); err != nil {
			return err
		}
	}
	d.summary()
	if !c.Exit && len(d.failed) == 0 {
		d.sayf("\nThe server stays up: %s/metrics, %s/readyz. Stop it with Ctrl-C.\n", url, url)
		<-ctx.Done()
	}
	if len(d.failed) > 0 {
		return fmt.Errorf("%d expectations did not hold", len(d.failed))
	}
	return nil
}

// cast are the people of the life.
type cast struct{ mallory, maya *sandbox.User }

func (d *demo) people() cast {
	c := cast{mallory: d.forge.AddUser("mallory"), maya: d.forge.AddUser("maya")}
	d.repo = d.forge.AddRepo("octo/hello", sandbox.RepoOptions{
		Permissions: map[*sandbox.User]string{c.maya: "write", c.mallory: "triage"}, // triage may label: that proves nothing
		Branches:    []string{"signalbox-presubmit"},
		Workflows: []sandbox.WorkflowOptions{{
			File: ".github/workflows/presubmit.yml", On: []string{"workflow_dispatch"},
			RunName: "PR ${{ inputs.pr }} ${{ inputs.sha }} ${{ inputs.signalbox }}",
			Inputs: []sandbox.Input{
				{Name: "signalbox", Required: true}, {Name: "pr", Required: true}, {Name: "sha", Required: true}, {Name: "base_sha", Required: true},
			},
		}},
	})
	return c
}

// config is what an operator would set for this forge: an App, one workflow, defaults for the rest.
func (d *demo) config(api, url, store string) (Config, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return Config{}, fmt.Errorf("make the App's key: %w", err)
	}
	app := d.forge.AddApp(sandbox.AppOptions{Slug: "signalbox", Owner: "octo", Key: &key.PublicKey, Secret: demoSecret})
	settings, repos, file := Settings{}, []*sandbox.Repo{}, ""
	if d.tested != nil {
		settings.Config, repos, file = "signalbox.yaml", append(repos, d.tested.repo), actConfig
	}
	app.Install(d.repo, repos...)
	d.extra = d.repo.AddHook(demoSecret, "pull_request")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	return settings.Resolve([]string{
		"SIGNALBOX_STORE=file:" + store,
		"SIGNALBOX_URL=" + url,
		"SIGNALBOX_GITHUB_API_URL=" + api,
		"SIGNALBOX_GITHUB_APP_ID=" + strconv.FormatInt(app.ID, 10),
		"SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=app.pem",
		"SIGNALBOX_GITHUB_WEBHOOK_SECRET=" + demoSecret,
		"SIGNALBOX_TRIGGER=workflow:presubmit.yml@signalbox-presubmit",
	}, func(name string) ([]byte, error) {
		if name == settings.Config {
			return []byte(file), nil
		}
		return text, nil
	})
}

// step is one thing that happens, and what the forge must show then.
type step struct {
	what string
	do   func()
	want func()
}

// life is the recorded life of a few pull requests.
func (d *demo) life(ctx context.Context, c cast) []step {
	var one, two, three *sandbox.PR
	var first, second string
	return []step{
		{"mallory, a stranger, opens #1 from a fork (the webhook arrives twice)", func() {
			one = d.repo.OpenPR(c.mallory, sandbox.PROptions{Fork: true})
			first = one.Head()
		}, func() {
			d.gate(one, first, "action_required")
			d.runs(one, first, 0)
		}},
		{"mallory sets the label herself: triage may label, but not approve", func() { one.Label(c.mallory, demoLabel) }, func() {
			d.gate(one, first, "action_required")
			d.label(one, false)
			d.runs(one, first, 0)
		}},
		{"three minutes later maya, a maintainer, sets the label", func() { d.later(3 * time.Minute); one.Label(c.maya, demoLabel) }, func() {
			d.gate(one, first, "success")
			d.label(one, true)
			d.runs(one, first, 1)
		}},
		{"the run begins, and mallory pushes other code under the approval", func() {
			for _, r := range d.repo.Runs() {
				r.Start()
			}
			d.later(time.Minute)
			second = one.Push(c.mallory)
		}, func() {
			d.gate(one, second, "action_required")
			d.label(one, false)
			d.runs(one, second, 0)
			d.cancelled(one, first)
		}},
		{"the webhook that maya labelled the OLD commit arrives again, late, under another id", func() { d.release(ctx, "labeled", one) }, func() {
			d.gate(one, second, "action_required")
			d.label(one, false)
			d.runs(one, second, 0)
		}},
		{"maya has read the new commit and labels it", func() { d.later(3 * time.Minute); one.Label(c.maya, demoLabel) }, func() {
			d.gate(one, second, "success")
			d.label(one, true)
			d.runs(one, second, 1)
		}},
		{"meanwhile maya opens #2 herself: nobody needs to approve it", func() { two = d.repo.OpenPR(c.maya, sandbox.PROptions{}) }, func() {
			d.gate(two, two.Head(), "success")
			d.runs(two, two.Head(), 1)
		}},
		{"and #3, a draft: it waits until it is ready or somebody labels it", func() { three = d.repo.OpenPR(c.maya, sandbox.PROptions{Draft: true}) }, func() {
			d.gate(three, three.Head(), "action_required")
			d.runs(three, three.Head(), 0)
		}},
		{"mallory closes #1 while its presubmit runs", func() {
			for _, r := range d.repo.Runs() {
				r.Start()
			}
			one.Close(c.mallory)
		}, func() {
			d.gate(one, second, "cancelled")
			d.cancelled(one, second)
		}},
		{"every delivery of the second webhook arrives at last, newest first", func() { d.release(ctx, "", nil) }, func() {
			d.gate(one, second, "cancelled")
			d.gate(two, two.Head(), "success")
			d.gate(three, three.Head(), "action_required")
			d.runs(one, first, 1)
			d.runs(one, second, 1)
			d.runs(two, two.Head(), 1)
			d.runs(three, three.Head(), 0)
		}},
	}
}

// show lets it happen, step by step.
func (d *demo) show(ctx context.Context, steps []step) error {
	for _, s := range steps {
		d.steps++
		d.sayf("\n%2d. %s\n", d.steps, s.what)
		s.do()
		if err := d.deliver(ctx); err != nil {
			return err
		}
		if err := d.settle(ctx); err != nil {
			return err
		}
		d.tell(ctx)
		s.want()
	}
	return nil
}

func (d *demo) later(t time.Duration) { d.ahead.Add(int64(t)) }

// deliver posts what the App's webhook has to say, and the first of it twice. The second webhook's is held back.
func (d *demo) deliver(ctx context.Context) error {
	doubled := false
	for _, x := range d.forge.Due() {
		if x.HookID == d.extra.ID {
			continue
		}
		times := 1
		if !doubled && x.Event == "pull_request" {
			doubled, times = true, 2
		}
		for range times {
			if _, err := d.sender.Send(ctx, x.GUID); err != nil {
				return err
			}
		}
	}
	return nil
}

// release sends held-back deliveries, newest first: of one action of one pull request the newest only, or all.
func (d *demo) release(ctx context.Context, action string, pr *sandbox.PR) {
	held := d.forge.Due()
	slices.Reverse(held)
	for _, x := range held {
		if x.HookID != d.extra.ID || action != "" && (x.Action != action || x.PR != pr.Number) {
			continue
		}
		if _, err := d.sender.Send(ctx, x.GUID); err != nil {
			d.failf("delivery %s was not sent: %v", x.GUID, err)
		}
		if action != "" {
			return
		}
	}
}

// settleWithin bounds how long one step may take before the demo says so.
const settleWithin = 30 * time.Second

// settle waits until every event that was sent is decided and every effect is done.
func (d *demo) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for {
		busy, err := d.busy(ctx)
		if err != nil {
			return err
		}
		if busy == "" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server did not come to rest: %s", busy)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *demo) busy(ctx context.Context) (string, error) {
	subjects := map[state.Subject]bool{}
	for _, x := range d.forge.Deliveries() {
		if x.PR > 0 && x.Event == "pull_request" && len(x.Attempts) > 0 {
			subjects[d.subject(x.PR)] = true
		}
	}
	rows, err := d.app.store.List(ctx, "touched", "", 1000)
	if err != nil {
		return "", err
	}
	for _, r := range rows {
		subjects[r.Subject] = true
	}
	for s := range subjects {
		v, err := actor.See(ctx, d.app.store, s)
		if err != nil {
			return "", err
		}
		if v.Unread > 0 || len(v.Outbox) > 0 {
			return s.String(), nil
		}
		if s.Kind != "pr" {
			continue
		}
		pr, err := decodePR(v)
		if err != nil {
			return "", err
		}
		for sha := range pr.Told { // its commits have mail of it before they are ever touched
			v, err := actor.See(ctx, d.app.store, status.Subject(pr.Ref.Repo, sha))
			if err != nil {
				return "", err
			}
			if v.Unread > 0 || len(v.Outbox) > 0 {
				return sha, nil
			}
		}
	}
	return "", nil
}

func (d *demo) subject(number int) state.Subject {
	return prmanager.Subject(forge.Ref{Repo: forge.Repo{Instance: "github", ID: d.repo.ID}, Number: number})
}

// tell prints what the server has decided since the last step, and what it then changed at the forge.
func (d *demo) tell(ctx context.Context) {
	for n := 1; n <= 3; n++ {
		s := d.subject(n)
		lines, err := d.app.admin.journal(ctx, s)
		if err != nil {
			d.failf("%v", err)
			return
		}
		for _, l := range lines[min(d.told[s], len(lines)):] {
			switch {
			case len(l.In) == 0 || strings.HasPrefix(l.In[0], "shown:") || l.Effect != "":
			case len(l.Why) == 0:
				d.sayf("    #%d  %s → nothing changes\n", n, strings.Join(l.In, "; "))
			default:
				d.sayf("    #%d  %s → %s\n", n, strings.Join(l.In, "; "), strings.Join(l.Why, ", "))
			}
		}
		d.told[s] = len(lines)
	}
	for _, w := range d.forge.Writes(d.wrote) {
		switch w.Kind {
		case "check":
			d.sayf("         → check %q on %.7s: %s  %q\n", w.Name, w.SHA, w.State, w.Title)
		case "dispatch":
			d.sayf("         → workflow %s started for #%d at %.7s\n", w.Name, w.PR, w.SHA)
		case "cancel":
			d.sayf("         → workflow run %d cancelled\n", w.ID)
		default:
			d.sayf("         → %s %s on #%d\n", w.Kind, w.Name, w.PR)
		}
		d.wrote = w.Seq
	}
}

// Expectations, each read off the forge's own record.

func (d *demo) check(ok bool, format string, args ...any) {
	mark := "ok  "
	if !ok {
		mark = "FAIL"
		d.failed = append(d.failed, fmt.Sprintf(format, args...))
	}
	d.sayf("   %s %s\n", mark, fmt.Sprintf(format, args...))
}

func (d *demo) failf(format string, args ...any) { d.check(false, format, args...) }

func (d *demo) gate(pr *sandbox.PR, sha, want string) {
	got := d.repo.Gate(sha, demoGate)
	d.check(got == want, "gate of #%d at %.7s is %s (want %s)", pr.Number, sha, got, want)
}

func (d *demo) label(pr *sandbox.PR, want bool) {
	got := slices.Contains(pr.Labels(), demoLabel)
	d.check(got == want, "label on #%d: %v (want %v)", pr.Number, got, want)
}

func (d *demo) runs(pr *sandbox.PR, sha string, want int) {
	got := 0
	for t, n := range d.forge.Triggers() {
		if t.PR == pr.Number && t.SHA == sha {
			got += n
		}
	}
	d.check(got == want, "presubmit of #%d at %.7s triggered %d times (want %d)", pr.Number, sha, got, want)
}

func (d *demo) cancelled(pr *sandbox.PR, sha string) {
	state := "never started"
	for _, r := range d.repo.Runs() {
		if r.Inputs["sha"] == sha && r.Inputs["pr"] == strconv.Itoa(pr.Number) {
			state = r.State()
		}
	}
	d.check(state == "cancelled", "run of #%d at %.7s is %s (want cancelled)", pr.Number, sha, state)
}

// summary is the closing table.
func (d *demo) summary() {
	sent, accepted, other, twice := 0, 0, 0, 0
	for _, x := range d.forge.Deliveries() {
		for _, a := range x.Attempts {
			sent++
			switch a.Status {
			case 202:
				accepted++
			default:
				other++
			}
		}
		if len(x.Attempts) > 1 {
			twice += len(x.Attempts) - 1
		}
	}
	keys := map[string]int{}
	most := 0
	for t, n := range d.forge.Triggers() {
		keys[fmt.Sprintf("#%d at %.7s", t.PR, t.SHA)] += n
		most = max(most, n)
	}
	d.sayf("\nDeliveries   %d sent, %d answered 202 (%d of them repeats of the same id), %d answered 200 (ping, kinds nobody handles)\n", sent, accepted, twice, other)
	d.sayf("Triggers     ")
	for i, k := range slices.Sorted(maps.Keys(keys)) {
		if i > 0 {
			d.sayf(", ")
		}
		d.sayf("%s: %d", k, keys[k])
	}
	d.sayf("\nAPI calls    %d\n", len(d.forge.Calls(0)))
	d.check(most == 1, "no run key was triggered more than once (most: %d)", most)
	d.check(accepted+other == sent && other > 0, "every delivery was answered 2xx")
	if len(d.failed) == 0 {
		d.sayf("\nEvery expectation held.\n")
		return
	}
	d.sayf("\n%d expectations did not hold:\n", len(d.failed))
	for _, f := range d.failed {
		d.sayf("  %s\n", f)
	}
}

func (d *demo) sayf(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }
