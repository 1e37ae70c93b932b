package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
	"github.com/signalbox-ci/signalbox/runner"
)

// works is a GitLab whose project is set up as the recipe says.
type works struct {
	t         *testing.T
	forge     *gitlabsandbox.Forge
	repo      *gitlabsandbox.Project
	bot, maya *gitlabsandbox.User
	env       []string
}

var soundHook = gitlabsandbox.Hook{SigningToken: labSigning, URL: "https://user:pw@ci.example/webhooks/gitlab?k=hidden", Status: "executable"}

func newWorks(t *testing.T) *works {
	t.Helper()
	w := &works{t: t, forge: gitlabsandbox.New(time.Now)}
	api := httptest.NewServer(w.forge.Handler())
	t.Cleanup(api.Close)
	w.bot, w.maya = w.forge.AddUser("project_1_bot_ab", true), w.forge.AddUser("maya", false)
	w.repo = w.forge.AddProject("octo/hello", map[*gitlabsandbox.User]int{w.bot: gitlabsandbox.Developer, w.maya: gitlabsandbox.Developer})
	w.repo.SetHook(soundHook)
	w.env = []string{
		"SIGNALBOX_STORE=file:" + filepath.Join(t.TempDir(), "signalbox.db"), "SIGNALBOX_GITLAB_URL=" + api.URL, "SIGNALBOX_GITLAB_TOKEN=" + w.bot.Token,
		"SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN=" + labSigning, "SIGNALBOX_TRIGGER=gitlab_pipeline",
	}
	return w
}

// set exchanges a variable of the environment.
func (w *works) set(variable string) {
	name, _, _ := strings.Cut(variable, "=")
	w.env = append(slices.DeleteFunc(w.env, func(v string) bool { return strings.HasPrefix(v, name+"=") }), variable)
}

func (w *works) examined(args ...string) (int, findings) {
	w.t.Helper()
	var o, e bytes.Buffer
	code := run(w.t.Context(), append([]string{"check", "--output", "json"}, args...), process{w.env, files{}.read, &o, &e})
	var f findings
	if err := json.Unmarshal(o.Bytes(), &f); err != nil {
		w.t.Fatalf("%v: exit code %d: %q %q", args, code, o.String(), e.String())
	}
	return code, f
}

func TestCheckGitLabFindsNothingWrong(t *testing.T) {
	w := newWorks(t)
	code, found := w.examined("--fix", "octo/hello")
	if bad := found.of(isFailure); code != exitOK || len(bad) > 0 {
		t.Errorf("%d %q", code, bad)
	}
	if fine := found.of(isFine); !slices.Contains(fine, `the label "CICD" was created`) || !slices.Contains(fine, "the CI configuration file is elsewhere") {
		t.Errorf("%q", fine)
	}
	w.forge.Calls()
	if code, found = w.examined(); code != exitOK || !slices.ContainsFunc(found, func(f finding) bool { return f.Where == "gitlab:octo/hello" }) { // the token's own project
		t.Errorf("%d %+v", code, found)
	}
	for _, c := range w.forge.Calls() {
		if !strings.HasPrefix(c, "GET ") {
			t.Errorf("without --fix it called %s", c)
		}
	}
	// A Maintainer's token sees the webhook too, and cancels what is left to Maintainers.
	w.repo.SetMember(w.bot, gitlabsandbox.Maintainer)
	w.repo.Set("ci_restrict_pipeline_cancellation_role", "maintainer")
	code, found = w.examined()
	if fine := found.of(isFine); code != exitOK || !slices.Contains(fine, "the webhook to ci.example is on and sends what it must") {
		t.Errorf("%d %q", code, fine)
	}
	w.repo.SetHook(gitlabsandbox.Hook{Secret: "s", Old: true, URL: soundHook.URL})
	if code, found = w.examined(); code != exitOK {
		t.Errorf("an older GitLab: %d %q", code, found.of(isFailure))
	}
}

func TestCheckGitLabFindings(t *testing.T) {
	hook := func(change func(*gitlabsandbox.Hook)) func(*works) {
		return func(w *works) {
			h := soundHook
			change(&h)
			w.repo.SetMember(w.bot, gitlabsandbox.Maintainer)
			w.repo.SetHook(h)
		}
	}
	setting := func(name string, value any) func(*works) { return func(w *works) { w.repo.Set(name, value) } }
	const forks, succeed, skipped, config = "ci_allow_fork_pipelines_to_run_in_parent_project", "only_allow_merge_if_pipeline_succeeds", "allow_merge_on_skipped_pipeline", "ci_config_path"
	const cancel = "ci_restrict_pipeline_cancellation_role"
	for name, c := range map[string]struct {
		do             func(*works)
		severity, want string
	}{
		"credential":           {func(w *works) { w.set("SIGNALBOX_GITLAB_TOKEN=glpat-wrong") }, isFailure, "the forge does not take our credential"},
		"a person's token":     {func(w *works) { w.set("SIGNALBOX_GITLAB_TOKEN=" + w.maya.Token) }, isWarning, "the token is a person's"},
		"a group's token":      {func(w *works) { w.bot.Login = "group_1_bot_ab" }, isWarning, "the token is a group's"},
		"scope":                {func(w *works) { w.bot.Scopes = []string{"read_api"} }, isFailure, "lacks the scope api"},
		"expires":              {func(w *works) { w.bot.Expires = time.Now().Add(3 * 24 * time.Hour).Format(time.DateOnly) }, isWarning, "the token expires on 20"},
		"no project":           {func(w *works) { w.set("SIGNALBOX_REPOS=octo/other") }, isFailure, "it cannot be seen"},
		"role too low":         {func(w *works) { w.repo.SetMember(w.bot, gitlabsandbox.Reporter) }, isFailure, "our access level is 20"},
		"role too high":        {func(w *works) { w.repo.SetMember(w.bot, gitlabsandbox.Maintainer) }, isWarning, "more than Developer"},
		"merge without":        {setting(succeed, false), isFailure, "can be merged without a pipeline"},
		"merge without, http":  {func(w *works) { w.repo.Set(succeed, false); w.set("SIGNALBOX_TRIGGER=") }, isWarning, "can be merged without a pipeline"},
		"merge on skipped":     {setting(skipped, true), isFailure, "a skipped pipeline counts"},
		"not told":             {setting(succeed, nil), isWarning, "does not tell us of the setting " + succeed},
		"forks":                {setting(forks, false), isFailure, "pipelines of forks may not run"},
		"forks, not told":      {setting(forks, nil), isWarning, "does not tell us of the setting " + forks},
		"merged results":       {setting("merge_pipelines_enabled", true), isFailure, "merged results pipelines"},
		"cancelled by none":    {setting(cancel, "no_one"), isFailure, "we may not cancel pipelines"},
		"by Maintainers":       {setting(cancel, "maintainer"), isFailure, "we may not cancel pipelines"},
		"configuration here":   {setting(config, ""), isWarning, "a fork's branch can rewrite it"},
		"configuration's path": {setting(config, "ci/main.yml"), isWarning, "a fork's branch can rewrite it"},
		"configuration":        {setting(config, nil), isWarning, "does not tell us where the CI configuration"},
		"configuration by URL": {setting(config, "https://ci.example/x.yml"), isFine, "the CI configuration file is elsewhere"},
		"hooks not to be seen": {func(*works) {}, isWarning, "the webhook cannot be read"},
		"no hook":              {hook(func(h *gitlabsandbox.Hook) { h.URL = "https://ci.example/other" }), isFailure, "no webhook of the project sends to /webhooks/gitlab"},
		"hook's events":        {hook(func(h *gitlabsandbox.Hook) { h.Less = true }), isFailure, "the webhook to ci.example does not send Merge request events"},
		"hook is off":          {hook(func(h *gitlabsandbox.Hook) { h.Status = "disabled" }), isFailure, "is disabled after failures"},
		"hook is off a while":  {hook(func(h *gitlabsandbox.Hook) { h.Status = "temporarily_disabled" }), isFailure, "is disabled after failures"},
		"hook proves nothing":  {hook(func(h *gitlabsandbox.Hook) { h.SigningToken = "" }), isFailure, "has neither a secret nor a signing token"},
		"hook's other secret":  {hook(func(h *gitlabsandbox.Hook) { h.SigningToken, h.Secret = "", "s" }), isFailure, "has a secret token only, and we have none"},
		"hook signs": {func(w *works) {
			hook(func(*gitlabsandbox.Hook) {})(w)
			w.set("SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN=")
			w.set("SIGNALBOX_GITLAB_WEBHOOK_SECRET=s")
		}, isFailure, "is signed, and we have no signing token"},
		"hook's certificate": {hook(func(h *gitlabsandbox.Hook) { h.Insecure = true }), isWarning, "does not verify our certificate"},
		"label":              {func(*works) {}, isFailure, `the label "CICD" does not exist`},
		"not on the list":    {func(w *works) { w.set("SIGNALBOX_REPOS=octo/*"); w.repo.Path = "other/hello" }, isFailure, "SIGNALBOX_REPOS does not name it"},
		"bot":                {func(w *works) { w.repo.Open(w.forge.AddUser("service_account_helper", false), w.repo) }, isWarning, "@service_account_helper opened 1 of the last 100"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorks(t)
			w.set("SIGNALBOX_REPOS=octo/hello")
			c.do(w)
			args := []string(nil)
			if name == "not on the list" {
				args = []string{"other/hello"}
			}
			code, found := w.examined(args...)
			if !slices.ContainsFunc(found.of(c.severity), func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("%s: found %q", c.severity, found)
			}
			if want := len(found.of(isFailure)) > 0; (code == exitFailed) != want {
				t.Errorf("exit code %d with failures %q", code, found.of(isFailure))
			}
			for _, f := range found {
				if text := f.What + f.Mend; strings.Contains(text, "pw@") || strings.Contains(text, "hidden") || strings.Contains(text, "glpat-") {
					t.Errorf("tells a secret: %+v", f)
				}
				if f.Severity == isFailure && f.Mend == "" {
					t.Errorf("does not say how to mend: %+v", f)
				}
			}
		})
	}
}

// The jobs of the default branch, and the runners that the store knows.
func TestCheckRunners(t *testing.T) {
	const file = ".signalbox/presubmit.yaml"
	w := newWorks(t)
	w.set("SIGNALBOX_TRIGGER=runner")
	w.set("SIGNALBOX_URL=https://box.example")
	w.set("SIGNALBOX_REPOS=octo/hello")
	says := func(severity, want string) {
		t.Helper()
		_, found := w.examined("octo/hello")
		if !slices.ContainsFunc(found.of(severity), func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%s %q: found %q", severity, want, found)
		}
	}
	says(isFailure, file+" is not on main")
	w.repo.AddFile(file, "jobs: 5\n")
	says(isFailure, file+":1: ")
	w.repo.AddFile(file, "jobs:\n  - name: test\n    runs-on: [linux, big]\n    steps:\n      - run: make test\n")
	says(isWarning, "the list of runners cannot be read") // the store's file is not there yet

	var ahead atomic.Int64
	ahead.Store(-int64(2 * time.Hour))
	a, err := newApp(t.Context(), resolve(t, Settings{}, w.env, nil), zap.NewNop(), appOptions{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	defer a.store.Close()
	register := func(labels ...string) {
		t.Helper()
		to, err := a.admin.invite(t.Context(), invitation{Labels: labels, Life: "1h"})
		if err != nil {
			t.Fatal(err)
		}
		r := httptest.NewRequest(http.MethodPost, runner.Path+"runner.v1.RunnerService/Register", bytes.NewReader(mustJSON(map[string]any{"token": to.Token, "name": "one", "labels": labels})))
		r.Header.Set("Content-Type", "application/json")
		answer := httptest.NewRecorder()
		if a.handler.ServeHTTP(answer, r); answer.Code != 200 {
			t.Fatal(answer.Body)
		}
	}
	const none = `no runner has the labels linux,big that the job "test" asks for`
	says(isFailure, none)
	register("linux")
	register("big", "other")
	says(isFailure, none)
	if _, err := a.admin.addRunner(t.Context(), newRunner{"silent", []string{"linux", "big"}}); err != nil {
		t.Fatal(err)
	}
	says(isWarning, `no runner for the job "test" has spoken yet`)
	register("big", "linux")
	says(isWarning, `no runner for the job "test" has spoken since 20`)
	ahead.Store(0)
	register("big", "linux", "other")
	says(isFine, `the job "test" finds a runner`)

	w.repo.Set("visibility", "private")
	says(isFailure, "runners cannot check it out")
}
