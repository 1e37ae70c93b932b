package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// hand is a runner that does what the test says, in the protocol's JSON.
type hand struct {
	t                     *testing.T
	url, uuid, token, key string
}

// enlist registers a runner that has been invited.
func enlist(t *testing.T, url, invited string, labels ...string) *hand {
	t.Helper()
	h := &hand{t: t, url: url}
	var made struct{ Runner struct{ UUID, Token string } }
	h.call("Register", map[string]any{"token": invited, "name": "hand", "labels": labels}, &made)
	h.uuid, h.token = made.Runner.UUID, made.Runner.Token
	return h
}

func (h *hand) call(method string, in, out any) {
	h.t.Helper()
	if err := h.try(method, in, out); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hand) try(method string, in, out any) error {
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, h.url+"/api/actions/runner.v1.RunnerService/"+method, bytes.NewReader(mustJSON(in)))
	if err != nil {
		return err
	}
	for k, v := range map[string]string{"Content-Type": "application/json", "X-Runner-Uuid": h.uuid, "X-Runner-Token": h.token, "X-Runner-Request-Key": h.key} {
		req.Header.Set(k, v)
	}
	res, err := web.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s, %w", method, res.Status, err)
	}
	return nil
}

// lent is the answer to a FetchTask.
type lent struct {
	Task struct {
		ID      string
		Payload []byte `json:"workflowPayload"`
	}
}

// verdict is the word that makes the task green.
func (l lent) verdict() string {
	word := regexp.MustCompile(`SIGNALBOX_VERDICT: "?(\w+)`).FindSubmatch(l.Task.Payload)
	if word == nil {
		return ""
	}
	return string(word[1])
}

// fetch gets a task: its id, and the word that makes it green.
func (h *hand) fetch() (id, verdict string) {
	h.t.Helper()
	var got lent
	h.call("FetchTask", map[string]any{}, &got)
	if got.Task.ID == "" || got.verdict() == "" {
		h.t.Fatalf("no task: %+v", got)
	}
	return got.Task.ID, got.verdict()
}

// says reports, and answers what the runner is told.
func (h *hand) says(id, result string, outputs map[string]string) string {
	h.t.Helper()
	var got struct{ State struct{ Result string } }
	h.call("UpdateTask", map[string]any{"state": map[string]any{"id": id, "result": "RESULT_" + result}, "outputs": outputs}, &got)
	return strings.TrimPrefix(got.State.Result, "RESULT_")
}

// definedYard is a yard whose repository has a definition of jobs on main.
func definedYard(t *testing.T, app bool, definition string) *yard {
	t.Helper()
	y := newYard(t, app, "SIGNALBOX_URL="+reachedAt)
	y.env = append(y.env, "SIGNALBOX_TRIGGER=runner")
	y.wire = &http.Transport{DisableKeepAlives: true} // the description has no files of repositories
	y.define(definition)
	y.up()
	return y
}

// defined is a git repository with a definition of jobs on main.
func defined(t *testing.T, definition string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	file := filepath.Join(dir, ".signalbox", "presubmit.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(definition), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "x"}} {
		if out, err := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v %s", args, err, out)
		}
	}
	return dir
}

// define puts a definition of jobs at the tip of main.
func (y *yard) define(definition string) {
	y.t.Helper()
	if err := y.repo.ServeGit(y.t.Context(), defined(y.t, definition)); err != nil {
		y.t.Fatal(err)
	}
}

// enlist registers a runner.
func (y *yard) enlist(labels ...string) *hand {
	y.t.Helper()
	invited, err := y.running.app.admin.invite(y.t.Context(), invitation{labels, "1h", true})
	if err != nil {
		y.t.Fatal(err)
	}
	return enlist(y.t, y.url, invited.Token, labels...)
}

// rest sends and does what is due, as long as one thing follows from another.
func (y *yard) rest() {
	y.t.Helper()
	for range 4 {
		y.send()
		y.settle()
	}
}

// What is wrong with the definition is told where its author looks: file, line and reason stand in the check. It is no work
// for an operator, and once it is mended a word starts the run anew.
func TestRunnerDefinitionIsRefused(t *testing.T) {
	for name, app := range map[string]bool{"App": true, "token": false} {
		t.Run(name, func(t *testing.T) {
			y := definedYard(t, app, "jobs:\n- name: unit\n  runs-on: linux\n  steps: [{run: make}]\n  timeout: 48h\n")
			pr := y.repo.OpenPR(y.maya, sandbox.PROptions{})
			y.rest()
			var shown sandbox.Write
			for _, w := range y.forge.Writes(0) {
				if w.Name == "presubmit" && w.SHA == pr.Head() {
					shown = w
				}
			}
			if want := ".signalbox/presubmit.yaml:5: timeout: expected a duration like 30m, from 1s to 24h"; shown.State != "failure" || !strings.Contains(shown.Title, want) {
				t.Errorf("presubmit %+v, want %q:\n%s", shown, want, y.story(pr))
			}
			if got := y.repo.Gate(pr.Head(), "CI gate"); got == "success" {
				t.Errorf("gate %q", got)
			}
			if st := y.story(pr); !strings.Contains(st, ".signalbox/presubmit.yaml:5: timeout: expected") {
				t.Errorf("the story does not tell why:\n%s", st)
			}
			if left, err := y.running.app.admin.jobs(t.Context()); err != nil || len(left.Jobs)+len(left.Alerts) > 0 {
				t.Errorf("left for an operator: %+v, %v", left, err)
			}
			y.define("jobs:\n- {name: unit, runs-on: linux, steps: [{run: make}]}\n")
			y.later(time.Minute)
			pr.Comment(y.maya, "/retest")
			y.rest()
			if got := y.repo.Gate(pr.Head(), "CI gate"); got != "success" {
				t.Errorf("gate %q after the definition was mended:\n%s", got, y.story(pr))
			}
			if p, err := y.running.app.admin.jobs(t.Context()); err != nil || len(p.Jobs) > 0 {
				t.Errorf("left for an operator: %+v, %v", p, err)
			}
		})
	}
}

// Each job of a presubmit is a check of the pull request's head, linked to its log; the presubmit is their sum.
func TestRunnerJobsAreChecks(t *testing.T) {
	y := definedYard(t, true, "jobs:\n- {name: unit, runs-on: linux, steps: [{run: make}], matrix: {go: ['1.25', '1.26']}}\n- {name: lint, runs-on: big, steps: [{run: make}]}\n")
	h := y.enlist("linux", "big")
	pr := y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true})
	y.rest()
	y.later(3 * time.Minute)
	pr.Label(y.maya, "CICD")
	y.rest()
	shows := func(sum, lint, one, other string) {
		t.Helper()
		y.rest()
		for name, want := range map[string]string{"presubmit": sum, "presubmit / lint": lint, "presubmit / unit (1.25)": one, "presubmit / unit (1.26)": other} {
			switch c := y.repo.Check(pr.Head(), name); {
			case c == nil:
				t.Errorf("%s is not there:\n%s", name, y.story(pr))
			case c.State() != want:
				t.Errorf("%s is %s, want %s:\n%s", name, c.State(), want, y.story(pr))
			case name != "presubmit" && !strings.HasPrefix(c.DetailsURL(), reachedAt+"/runs/sb1-"):
				t.Errorf("%s leads to %s", name, c.DetailsURL())
			}
		}
	}
	shows("queued", "queued", "queued", "queued")
	if got := y.repo.Gate(pr.Head(), "CI gate"); got != "success" {
		t.Errorf("gate %q:\n%s", got, y.story(pr))
	}
	first, word := h.fetch()
	shows("queued", "queued", "queued", "queued") // assigned
	h.says(first, "UNSPECIFIED", nil)
	shows("in_progress", "queued", "in_progress", "queued")
	second, _ := h.fetch()
	h.says(first, "SUCCESS", map[string]string{"verdict": word})
	h.says(second, "FAILURE", nil)
	shows("in_progress", "queued", "success", "failure")
	third, word := h.fetch()
	h.says(third, "SUCCESS", map[string]string{"verdict": word})
	shows("failure", "success", "success", "failure")

	// A press on the check of one job runs all of them again, and a push ends what they were at.
	y.later(time.Minute)
	y.repo.Check(pr.Head(), "presubmit / unit (1.26)").RequestRerun(y.maya)
	shows("queued", "queued", "queued", "queued")
	fourth, _ := h.fetch()
	h.says(fourth, "UNSPECIFIED", nil)
	shows("in_progress", "queued", "in_progress", "queued")
	former := pr.Head()
	pr.Push(y.mallory)
	y.rest()
	for _, name := range []string{"presubmit", "presubmit / lint", "presubmit / unit (1.25)", "presubmit / unit (1.26)"} {
		if c := y.repo.Check(former, name); c.State() != "cancelled" {
			t.Errorf("%s of the former head is %s:\n%s", name, c.State(), y.story(pr))
		}
	}
}

// Without the App each job of a presubmit is a commit status.
func TestRunnerJobsAreStatuses(t *testing.T) {
	const definition = "jobs:\n- {name: unit, runs-on: linux, steps: [{run: make}]}\n- {name: lint, runs-on: linux, steps: [{run: make}]}\n"
	story := func(h *hand, shows func(sum, unit, lint string)) {
		shows("pending", "pending", "pending")
		first, word := h.fetch()
		h.says(first, "SUCCESS", map[string]string{"verdict": word})
		shows("pending", "success", "pending")
		second, _ := h.fetch()
		h.says(second, "SUCCESS", map[string]string{"verdict": "not its word"})
		shows("failure", "success", "failure")
	}
	t.Run("GitHub", func(t *testing.T) {
		y := definedYard(t, false, definition)
		pr := y.repo.OpenPR(y.maya, sandbox.PROptions{})
		y.rest()
		story(y.enlist("linux"), func(sum, unit, lint string) {
			t.Helper()
			y.rest()
			for name, want := range map[string]string{"presubmit": sum, "presubmit / unit": unit, "presubmit / lint": lint} {
				if got := y.repo.Gate(pr.Head(), name); got != want {
					t.Errorf("%s is %q, want %s:\n%s", name, got, want, y.story(pr))
				}
			}
		})
	})
	t.Run("GitLab", func(t *testing.T) {
		l := newLab(t, signedHook, "SIGNALBOX_TRIGGER=runner", "SIGNALBOX_URL="+reachedAt)
		l.repo.AddFile(".signalbox/presubmit.yaml", definition)
		m := l.repo.Open(l.maya, l.repo)
		l.settle()
		invited, err := l.app.admin.invite(t.Context(), invitation{[]string{"linux"}, "1h", true})
		if err != nil {
			t.Fatal(err)
		}
		story(enlist(t, strings.TrimSuffix(l.url, "/webhooks/gitlab"), invited.Token, "linux"), func(sum, unit, lint string) {
			t.Helper()
			l.settle()
			got := map[string]string{}
			for _, s := range l.repo.Shown(m.Head()) {
				got[s.Name] = strings.ReplaceAll(strings.ReplaceAll(s.State, "failed", "failure"), "running", "pending")
			}
			for name, want := range map[string]string{"presubmit": sum, "presubmit / unit": unit, "presubmit / lint": lint} {
				if got[name] != want {
					t.Errorf("%s is %q, want %s: %s", name, got[name], want, l.gate(m))
				}
			}
		})
	})
}
