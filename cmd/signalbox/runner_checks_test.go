package main

import (
	"bytes"
	"encoding/json"
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
	y           *yard
	uuid, token string
}

func (h *hand) call(method string, in, out any) {
	h.y.t.Helper()
	req, err := http.NewRequestWithContext(h.y.t.Context(), http.MethodPost, h.y.url+"/api/actions/runner.v1.RunnerService/"+method, bytes.NewReader(mustJSON(in)))
	if err != nil {
		h.y.t.Fatal(err)
	}
	for k, v := range map[string]string{"Content-Type": "application/json", "X-Runner-Uuid": h.uuid, "X-Runner-Token": h.token} {
		req.Header.Set(k, v)
	}
	res, err := web.Do(req)
	if err != nil {
		h.y.t.Fatal(err)
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil || res.StatusCode != http.StatusOK {
		h.y.t.Fatalf("%s: %s, %v", method, res.Status, err)
	}
}

// fetch gets a task: its id, and the word that makes it green.
func (h *hand) fetch() (id, verdict string) {
	h.y.t.Helper()
	var got struct {
		Task struct {
			ID      string
			Payload []byte `json:"workflowPayload"`
		}
	}
	h.call("FetchTask", map[string]any{}, &got)
	word := regexp.MustCompile(`SIGNALBOX_VERDICT: "?(\w+)`).FindSubmatch(got.Task.Payload)
	if got.Task.ID == "" || word == nil {
		h.y.t.Fatalf("no task: %+v", got)
	}
	return got.Task.ID, string(word[1])
}

func (h *hand) says(id, result string, outputs map[string]string) {
	h.call("UpdateTask", map[string]any{"state": map[string]any{"id": id, "result": "RESULT_" + result}, "outputs": outputs}, &struct{}{})
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

// define puts a definition of jobs at the tip of main.
func (y *yard) define(definition string) {
	t := y.t
	t.Helper()
	dir := t.TempDir()
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
	if err := y.repo.ServeGit(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
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
	invited, err := y.running.app.admin.invite(t.Context(), invitation{[]string{"linux", "big"}, "1h", true})
	if err != nil {
		t.Fatal(err)
	}
	h := &hand{y: y}
	var made struct{ Runner struct{ UUID, Token string } }
	h.call("Register", map[string]any{"token": invited.Token, "name": "hand", "labels": []string{"linux", "big"}}, &made)
	h.uuid, h.token = made.Runner.UUID, made.Runner.Token

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
