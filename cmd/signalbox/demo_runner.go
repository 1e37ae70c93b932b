package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/state"
)

// act is the demo's second act: a repository that is a real git repository, and a real runner for its jobs.
type act struct {
	bin    string
	dir    string
	repo   *sandbox.Repo
	change string // the commit that mallory proposes
	pr     *sandbox.PR
}

const (
	actRepo   = "octo/tested"
	actSecret = "the-secret-of-the-demo"
	// actConfig is the part of the configuration that has no variables.
	actConfig = `secret_key: ZGVtbyBkZW1vIGRlbW8gZGVtbyBkZW1vIGRlbW8gISE=
repositories:
  ` + actRepo + `:
    trigger: runner
    secrets: {DEMO_SECRET: ` + actSecret + `}
`
	actPresubmit = `jobs:
  - name: greet
    runs-on: demo
    timeout: 2m
    secrets: [DEMO_SECRET]
    steps:
      - name: hello
        run: bash hello.sh
      - name: slowly
        run: for i in 1 2 3; do echo "line $i of 3"; sleep 1; done
      - name: secret
        run: echo "a secret in a log looks like this -> $DEMO_SECRET"
`
	runnerStop = 10 * time.Second // how long a runner may take to stop
	jobWithin  = 2 * time.Minute
)

// findRunner finds a runner's binary.
func findRunner(path string) (string, error) {
	if path != "" {
		bin, err := exec.LookPath(path)
		if err != nil {
			return "", fmt.Errorf("--runner-bin: %w", err)
		}
		return filepath.Abs(bin)
	}
	names := []string{"gitea-runner", "act_runner", "forgejo-runner"}
	for _, name := range names {
		if bin, err := exec.LookPath(name); err == nil {
			return filepath.Abs(bin)
		}
	}
	return "", fmt.Errorf("no runner is on PATH (looked for %s): download one from https://gitea.com/gitea/runner/releases or https://code.forgejo.org/forgejo/runner/releases and name it with --runner-bin", strings.Join(names, ", "))
}

// secondAct makes the repository: main has the definition, and mallory's commit a file.
func (d *demo) secondAct(ctx context.Context, bin, dir string, c cast) (*act, error) {
	a := &act{bin: bin, dir: dir}
	src := filepath.Join(dir, "repository")
	if err := os.MkdirAll(filepath.Join(src, ".signalbox"), 0o700); err != nil {
		return nil, fmt.Errorf("make a repository for the demo: %w", err)
	}
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", src, "-c", "user.name=demo", "-c", "user.email=demo@example.org", "-c", "commit.gpgsign=false"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("make a repository for the demo: git %s: %w: %s", args[0], err, out)
		}
		return strings.TrimSpace(string(out)), nil
	}
	commit := func(file, text, message string) (string, error) {
		if err := os.WriteFile(filepath.Join(src, file), []byte(text), 0o600); err != nil {
			return "", fmt.Errorf("make a repository for the demo: %w", err)
		}
		if _, err := git("add", file); err != nil {
			return "", err
		}
		if _, err := git("commit", "-q", "-m", message); err != nil {
			return "", err
		}
		return git("rev-parse", "HEAD")
	}
	if _, err := git("init", "-q", "-b", "main", "."); err != nil {
		return nil, err
	}
	if _, err := commit(".signalbox/presubmit.yaml", actPresubmit, "Define the presubmit"); err != nil {
		return nil, err
	}
	if _, err := git("checkout", "-q", "-b", "change"); err != nil {
		return nil, err
	}
	var err error
	if a.change, err = commit("hello.sh", "echo \"hello from commit $(git rev-parse HEAD)\"\n", "Say hello"); err != nil {
		return nil, err
	}
	a.repo = d.forge.AddRepo(actRepo, sandbox.RepoOptions{Private: true, Permissions: map[*sandbox.User]string{c.maya: "write", c.mallory: "read"}})
	return a, a.repo.ServeGit(ctx, src)
}

// runJob shows the second act: a stranger's pull request waits, is approved, and its job runs on a runner.
func (d *demo) runJob(ctx context.Context, url string, c cast) (err error) {
	a := d.tested
	d.repo, d.told = a.repo, map[state.Subject]int{}
	if err := d.show(ctx, []step{
		{"second act, a private repository, whose presubmit runs on runners of its own: mallory, who may read it, opens #1", func() {
			a.pr = a.repo.OpenPR(c.mallory, sandbox.PROptions{Fork: true, SHA: a.change})
		}, func() {
			d.gate(a.pr, a.change, "action_required")
			d.presubmit("")
		}},
		{"three minutes later maya sets the label: a job waits for a runner", func() { d.later(3 * time.Minute); a.pr.Label(c.maya, demoLabel) }, func() {
			d.gate(a.pr, a.change, "success")
			d.presubmit("queued")
		}},
	}); err != nil {
		return err
	}
	d.steps++
	d.sayf("\n%2d. %s is registered and begins\n", d.steps, filepath.Base(a.bin))
	working, stop, err := d.begin(ctx, url)
	if err != nil {
		return err
	}
	link := ""
	d.await(ctx, func() bool { // a check links to its log once the pool has told of the run
		link = a.repo.Check(a.change, "presubmit").DetailsURL()
		return strings.HasPrefix(link, url+"/runs/")
	})
	d.check(strings.HasPrefix(link, url+"/runs/"), "the presubmit check links to its log, %s, live:", link)
	over := false
	if strings.HasPrefix(link, url+"/runs/") {
		over, err = d.follow(working, link)
	}
	stop()
	if err != nil || !over {
		return err
	}
	return d.show(ctx, []step{{"the job has ended, and the pull request is told", func() {
		d.await(ctx, func() bool { s := a.repo.Gate(a.change, "presubmit"); return s != "queued" && s != "in_progress" })
	}, func() {
		d.presubmit("success")
		own := d.repo.Gate(a.change, "presubmit / greet")
		d.check(own == "success", "the job's own check at %.7s is %q (want \"success\")", a.change, own)
		log, err := fetch(ctx, link)
		d.check(err == nil && strings.Count(log, "hello from commit "+a.change+"\n") == 1, "the log says once what the script said in a checkout of %.7s", a.change)
		_, unsigned := fetch(ctx, link[:strings.LastIndexByte(link, '.')])
		d.check(unsigned != nil, "without the link's signature nobody reads the log of a private repository")
		d.check(err == nil && strings.Contains(log, "looks like this -> ***\n") && !strings.Contains(log, actSecret), "the secret is not in the log")
	}}})
}

// await waits for what comes from the pool of runners by way of the pull request, which settle does not see coming.
func (d *demo) await(ctx context.Context, ok func() bool) {
	ctx, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *demo) presubmit(want string) {
	got := d.repo.Gate(d.tested.change, "presubmit")
	d.check(got == want, "presubmit check at %.7s is %q (want %q)", d.tested.change, got, want)
}

// begin registers a runner and begins it. working ends when the runner does; stop ends both.
func (d *demo) begin(ctx context.Context, url string) (working context.Context, stop func(), err error) {
	home := filepath.Join(d.tested.dir, "runner")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make a place for the runner: %w", err)
	}
	config := filepath.Join(home, "config.yaml")
	text := fmt.Sprintf("log: {level: warn}\nrunner: {file: %[1]q, fetch_interval: 1s, labels: [\"demo:host\"]}\ncache: {enabled: false}\nhost: {workdir_parent: %[2]q}\n",
		filepath.Join(home, ".runner"), filepath.Join(home, "work"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, nil, fmt.Errorf("configure the runner: %w", err)
	}
	token, err := d.app.admin.invite(ctx, invitation{Labels: []string{"demo"}, Life: "10m", Once: true})
	if err != nil {
		return nil, nil, err
	}
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, d.tested.bin, append([]string{"--config", config}, args...)...)
		cmd.Dir, cmd.Env = home, append(os.Environ(), "HOME="+home)
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = runnerStop
		return cmd
	}
	if out, err := command(ctx, "register", "--no-interactive", "--instance", url, "--token", token.Token, "--name", "demo", "--labels", "demo:host").CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("register the runner: %w: %s", err, out)
	}
	var said strings.Builder
	working, cancel := context.WithCancel(ctx)
	daemon := command(working, "daemon")
	daemon.Stdout, daemon.Stderr = &said, &said
	if err := daemon.Start(); err != nil {
		cancel()
		return nil, nil, fmt.Errorf("begin the runner: %w", err)
	}
	ended := make(chan struct{})
	go func() { // joined by stop
		defer close(ended)
		_ = daemon.Wait() // what it did is seen in what became of the job
		cancel()
	}()
	return working, func() {
		cancel()
		<-ended
		if len(d.failed) > 0 {
			d.sayf("the runner said:\n%s\n", said.String())
		}
	}, nil
}

// follow prints a run's log while it comes, as the page in a browser would; over says that the run has ended.
func (d *demo) follow(ctx context.Context, url string) (over bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, jobWithin)
	defer cancel()
	last := ""
	for {
		over, err := d.events(ctx, url, &last)
		switch {
		case over:
			return true, nil
		case ctx.Err() != nil:
			d.failf("the job ends within %s, and its runner not before it", jobWithin)
			return false, nil
		case err != nil:
			return false, err
		}
	}
}

// events prints one stream of events from where the last one ended.
func (d *demo) events(ctx context.Context, url string, last *string) (over bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/events", nil)
	if err != nil {
		return false, fmt.Errorf("follow the log: %w", err)
	}
	req.Header.Set("Last-Event-ID", *last)
	res, err := (&http.Client{}).Do(req)
	if err != nil {
		return false, fmt.Errorf("follow the log: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return false, fmt.Errorf("follow the log: %s", res.Status)
	}
	in, event := bufio.NewReader(res.Body), ""
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false, nil //nolint:nilerr // the stream has ended, as each does after a while
		}
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch key {
		case "event":
			if event = value; event == "end" {
				return true, nil
			}
		case "id":
			*last = value
		case "data":
			var data struct{ State, Text string }
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				return false, fmt.Errorf("follow the log: %w", err)
			}
			if event == "state" {
				d.sayf("    the run is %s\n", data.State)
			}
			for l := range strings.Lines(data.Text) {
				d.sayf("      | %s", l)
			}
		}
	}
}

// fetch reads a page as a terminal gets it.
func fetch(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", url, err)
	}
	res, err := (&http.Client{}).Do(req)
	if err != nil {
		return "", fmt.Errorf("read %s: %w", url, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return "", errors.Join(fmt.Errorf("read %s: %s", url, res.Status), err)
	}
	return string(b), nil
}
