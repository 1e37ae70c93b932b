package runner

import (
	"strings"
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"gopkg.in/yaml.v3"
)

func hasSecret(name string) bool { return name == "DEPLOY_KEY" || name == "NPM_TOKEN" }

// lent is what a job asks for.
func lent(j JobSpec) loan {
	l := loan{secrets: map[string]string{}}
	for _, name := range j.Secrets {
		l.secrets[name] = "the value of " + name
	}
	return l
}

const goodFile = `# a comment
jobs:
  - name: unit
    runs-on: [linux, big]
    timeout: 20m
    retry-safe: true
    env: {A: "1", B: two words}
    secrets: [NPM_TOKEN]
    matrix:
      go: ["1.25", "1.26"]
      data-base: [pg]
    steps:
      - name: build
        run: make
      - run: |
          make test
  - name: lint
    runs-on: linux
    steps: [{run: make lint}]
`

func TestParsePresubmit(t *testing.T) {
	got, err := ParsePresubmit([]byte(goodFile), hasSecret)
	if err != nil {
		t.Fatal(err)
	}
	unit := func(v string) JobSpec {
		return JobSpec{
			Name: "unit (" + v + ", pg)", RunsOn: []string{"linux", "big"}, Timeout: 20 * time.Minute, RetrySafe: true,
			Env:     map[string]string{"A": "1", "B": "two words", "MATRIX_GO": v, "MATRIX_DATA_BASE": "pg"},
			Secrets: []string{"NPM_TOKEN"},
			Steps:   []StepSpec{{Name: "build", Run: "make"}, {Run: "make test\n"}},
		}
	}
	want := []JobSpec{unit("1.25"), unit("1.26"), {
		Name: "lint", RunsOn: []string{"linux"}, Timeout: time.Hour, Env: map[string]string{}, Steps: []StepSpec{{Run: "make lint"}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestParsePresubmitRefuses(t *testing.T) {
	job := func(lines string) string {
		return "jobs:\n- name: unit\n  runs-on: linux\n  steps: [{run: make}]\n" + lines
	}
	for text, says := range map[string]string{
		"":                                       ":1: the file is empty",
		"jobs: []\n":                             ":1: expected jobs",
		"a: b\n":                                 `:1: unknown key "a"`,
		"- x\n":                                  ":1: expected a mapping",
		"jobs:\n\tx":                             "line 2",
		"jobs: 1\n---\njobs: 2\n":                "one document",
		job("  timeout: 5\n"):                    ":5: timeout",
		job("  timeout: 48h\n"):                  ":5: timeout",
		job("  retry-safe: maybe\n"):             ":5: retry-safe",
		job("  retry-safe: \"true\"\n"):          ":5: retry-safe",
		job("  name: again\n"):                   ":5: name is given twice",
		job("  env: [a]\n"):                      ":5: env",
		job("  env:\n    A-B: x\n"):              ":6: env",
		job("  env:\n    SIGNALBOX_SHA: x\n"):    ":6: env: names that begin with SIGNALBOX_",
		job("  env:\n    A: ${{ secrets.X }}\n"): ":6: env: A: ${{ … }} is not evaluated",
		job("  matrix: {go: []}\n"):              ":5: matrix: go",
		job("  matrix: {go: [[a]]}\n"):           ":5: matrix: go",
		job("  matrix: {go: [a, a]}\n"):          `"a" is given twice`,
		job("  matrix: {go: [a], GO: [b]}\n"):    ":5: matrix",
		job("  matrix: {a: [x]}\n  env: {MATRIX_A: y}\n"):                                      "which the matrix",
		job("  secrets: NPM_TOKEN\n"):                                                          ":5: secrets: expected a list",
		job("  secrets:\n  - NPM_TOKEN\n  - OTHER\n"):                                          `:7: secrets: this repository has no secret "OTHER"`,
		job("  secrets: [NPM_TOKEN, NPM_TOKEN]\n"):                                             ":5: secrets: NPM_TOKEN is named twice",
		job("  secrets: [npm_token]\n"):                                                        ":5: secrets: this repository has no",
		job("  secrets: [NPM_TOKEN]\n  env: {NPM_TOKEN: x}\n"):                                 `:2: job "unit" has NPM_TOKEN as a secret and in env`,
		job("- name: unit\n  runs-on: linux\n  steps: [{run: make}]\n"):                        `:5: a second job is named "unit"`,
		job("- &a {name: b, runs-on: c, steps: [{run: d}]}\n"):                                 ":5: anchors",
		"jobs:\n- runs-on: linux\n  steps: [{run: make}]\n":                                    ":2: the job has no name",
		"jobs:\n- name: unit\n  steps: [{run: make}]\n":                                        "no runs-on",
		"jobs:\n- name: unit\n  runs-on: linux\n":                                              "no steps",
		"jobs:\n- name: unit\n  runs-on: linux\n  steps:\n  - run: ''\n":                       ":5: the step has nothing to run",
		"jobs:\n- name: unit\n  runs-on: linux\n  steps:\n  - uses: x\n":                       `:5: unknown key "uses"`,
		"jobs:\n- name: unit\n  runs-on: linux\n  steps:\n  - run: echo ${{ github.token }}\n": ":5: run: ${{ … }}",
		"jobs:\n- name: \"unit\\n::x\"\n  runs-on: linux\n  steps:\n  - run: x\n":              ":2: name",
		job("  matrix: {a: [1,2,3,4,5,6,7,8,9], b: [1,2,3,4,5,6,7,8,9]}\n"):                    "more than 64 combinations",
		job("  matrix: {a: [" + strings.Repeat("x", 60) + "], b: [" + strings.Repeat("y", 60) + "], c: [" + strings.Repeat("z", 60) + "]}\n"): "is longer than 150",
		"jobs:\n" + strings.Repeat(" ", maxFile): "larger than",
	} {
		if _, err := ParsePresubmit([]byte(text), hasSecret); err == nil || !strings.Contains(err.Error(), says) || !strings.HasPrefix(err.Error(), File+":") {
			t.Errorf("%.60q: %v, want %q", text, err, says)
		}
	}
}

func FuzzParsePresubmit(f *testing.F) {
	f.Add([]byte(goodFile))
	f.Add([]byte("jobs:\n- {name: a, runs-on: b, steps: [{run: c}], matrix: {x: [1]}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		jobs, err := ParsePresubmit(text, hasSecret)
		if err != nil {
			return
		}
		for _, j := range jobs {
			b, err := freeze([]byte("k"), Task{ID: 1, Job: 1, Attempt: 1}, definition{Run: run("r"), Clone: "c", Job: j}, lent(j))
			if err != nil {
				continue // a text that no protobuf takes
			}
			oneJob(t, b, j)
		}
	})
}

// oneJob reads a payload as a runner does.
func oneJob(t *testing.T, b []byte, j JobSpec) workflowJob {
	t.Helper()
	var task runnerv1.Task
	if err := proto.Unmarshal(b, &task); err != nil {
		t.Fatal(err)
	}
	var w workflow
	if err := yaml.Unmarshal(task.GetWorkflowPayload(), &w); err != nil || len(w.Jobs) != 1 {
		t.Fatalf("%d jobs, %v", len(w.Jobs), err)
	}
	got := w.Jobs[jobID]
	if len(got.Steps) != len(j.Steps)+2 {
		t.Fatalf("%d steps", len(got.Steps))
	}
	for i, s := range j.Steps {
		if got.Steps[i+1].Run != s.Run {
			t.Fatalf("step %d runs %q, want %q", i, got.Steps[i+1].Run, s.Run)
		}
	}
	return got
}

func TestPayload(t *testing.T) {
	jobs, err := ParsePresubmit([]byte(goodFile), hasSecret)
	if err != nil {
		t.Fatal(err)
	}
	key := []byte("k")
	frozen := func(id int64) []byte {
		b, err := freeze(key, Task{ID: id, Job: 3, Attempt: 1}, definition{Run: run("r"), Clone: "https://x/o/r.git", Job: jobs[0]}, lent(jobs[0]))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	j := oneJob(t, frozen(1), jobs[0])
	last := j.Steps[len(j.Steps)-1]
	if last.ID != "verdict" || last.Env["SIGNALBOX_VERDICT"] != nonce(key, 1) || j.Outputs["verdict"] == "" || j.Env["MATRIX_GO"] != "1.25" {
		t.Errorf("%+v", j)
	}
	if n := strings.Count(string(frozen(1)), nonce(key, 1)); n != 1 {
		t.Errorf("the verdict's word stands %d times in the payload", n)
	}
	if again := frozen(1); string(again) != string(frozen(1)) || nonce(key, 1) == nonce(key, 2) || nonce(key, 1) == nonce([]byte("l"), 1) {
		t.Error("the same must be the same, another another")
	}
	var task runnerv1.Task
	if err := proto.Unmarshal(frozen(1), &task); err != nil {
		t.Fatal(err)
	}
	if len(task.GetSecrets()) == 0 {
		t.Error("Gitea's runner panics without secrets")
	}
	for _, name := range []string{"job", "repository", "sha", "ref", "event_name", "event", "run_id", "run_number", "run_attempt", "token",
		"gitea_default_actions_url", "forgejo_default_actions_url", "gitea_runtime_token", "forgejo_runtime_token"} {
		if task.GetContext().GetFields()[name] == nil {
			t.Errorf("the context has no %s", name)
		}
	}
}
