package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// examined is what check found, and its exit code.
func (y *yard) examined(args ...string) (int, findings) {
	y.t.Helper()
	var o, e bytes.Buffer
	code := run(y.t.Context(), append([]string{"check", "--output", "json"}, args...), process{y.env, y.read, &o, &e})
	var f findings
	if err := json.Unmarshal(o.Bytes(), &f); err != nil {
		y.t.Fatalf("%v: exit code %d: %q %q", args, code, o.String(), e.String())
	}
	return code, f
}

func (f findings) of(severity string) []string {
	var out []string
	for _, x := range f {
		if x.Severity == severity {
			out = append(out, x.What)
		}
	}
	return out
}

// answers makes the forge answer these paths, by their ends, in these words; of several ends the longest counts.
func (y *yard) answers(by map[string]string) {
	ends := slices.SortedFunc(maps.Keys(by), func(a, b string) int { return len(b) - len(a) })
	y.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		i := slices.IndexFunc(ends, func(end string) bool { return strings.HasSuffix(r.URL.Path, end) })
		if r.Method != http.MethodGet || i < 0 {
			return nil
		}
		body := by[ends[i]]
		if status, err := strconv.Atoi(body); err == nil {
			return &sandbox.Fault{Status: status, Body: fmt.Sprintf(`{"message":"Status %d"}`, status)}
		}
		return &sandbox.Fault{Status: http.StatusOK, Body: body}
	})
}

// sound is the answers of a repository that is set up as the recipes say.
func (y *yard) sound() map[string]string {
	id := int64(0)
	if y.app != nil {
		id = y.app.ID
	}
	return map[string]string{"/rules/branches/main": fmt.Sprintf(`[{"type":"required_status_checks","parameters":{"required_status_checks":[
		{"context":"CI gate","integration_id":%d},{"context":"presubmit","integration_id":%[1]d}]}}]`, id)}
}

func TestCheckFindsNothingWrong(t *testing.T) {
	for name, app := range map[string]bool{"token": false, "App": true} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, app)
			y.forge.NewSender("https://ci.example/webhooks/github")
			y.answers(y.sound())
			code, found := y.examined("--fix", "github:octo/hello")
			if bad := found.of(isFailure); code != exitOK || len(bad) > 0 {
				t.Errorf("%d %q", code, bad)
			}
			if created := found.of(isFine); !slices.Contains(created, `the label "CICD" was created`) {
				t.Errorf("%q", created)
			}
			since := y.forge.Seq()
			if code, found = y.examined(); code != exitOK { // the repositories of the allow-list, or of the App
				t.Errorf("%d %q", code, found.of(isFailure))
			}
			for _, c := range y.forge.Calls(since) {
				if c.Method != http.MethodGet && !strings.HasSuffix(c.Path, "/access_tokens") {
					t.Errorf("without --fix it called %s %s", c.Method, c.Path)
				}
			}
			var o, e bytes.Buffer
			if code := run(t.Context(), []string{"check", "octo/hello"}, process{y.env, y.read, &o, &e}); code != exitOK || !strings.Contains(o.String(), "ok       github:octo/hello: ") {
				t.Errorf("%d\n%s%s", code, o.String(), e.String())
			}
		})
	}
}

func TestCheckFindings(t *testing.T) {
	const rules, branch, hooks, hook = "/rules/branches/main", "/branches/main", "/repos/octo/hello/hooks", "/app/hook/config"
	required := func(gate int64) string {
		return fmt.Sprintf(`[{"type":"required_status_checks","parameters":{"required_status_checks":[{"context":"CI gate","integration_id":%d}]}}]`, gate)
	}
	theirs := func(active bool, events, kind, secret string) string {
		return fmt.Sprintf(`[{"id":5,"active":%t,"events":[%s],"config":{"url":"https://user:pw@ci.example/webhooks/github?k=hidden","content_type":%q,"insecure_ssl":"0"%s}}]`, active, events, kind, secret)
	}
	good := `,"secret":"********"`
	for _, c := range []struct {
		name     string
		app      bool
		by       map[string]string
		env      []string
		severity string
		want     string
	}{
		{"not required", true, map[string]string{rules: "[]"}, nil, isFailure, `main does not require the check "CI gate"`},
		{"not pinned", true, map[string]string{rules: required(0)}, nil, isFailure, `"CI gate" is not pinned to our App`},
		{"pinned to another", true, map[string]string{rules: required(7)}, nil, isFailure, `"CI gate" is pinned to another App`},
		{"pinned, and we have a token", false, map[string]string{rules: required(7)}, nil, isFailure, `"CI gate" is pinned to another App`},
		{"presubmit not required", false, map[string]string{rules: required(0)}, nil, isWarning, `does not require the check "presubmit"`},
		{"older protection", false, map[string]string{rules: "404", branch: `{"name":"main","protection":{"required_status_checks":{"checks":[{"context":"CI gate","app_id":null}]}}}`},
			nil, isFine, `requires the check "CI gate"`},
		{"protection of anybody", true, map[string]string{rules: "[]", branch: `{"name":"main","protection":{"required_status_checks":{"checks":[{"context":"CI gate","app_id":-1}]}}}`},
			nil, isFailure, `is not pinned to our App`},
		{"no protection to be read", true, map[string]string{rules: "500"}, nil, isWarning, "the protection of main cannot be read"},
		{"merge queue with a token", false, map[string]string{rules: `[{"type":"merge_queue"}]`}, nil, isFailure, "main has a merge queue"},
		{"label", true, nil, nil, isFailure, `the label "CICD" does not exist`},
		{"hook is off", false, map[string]string{hooks: theirs(false, `"pull_request"`, "json", good)}, nil, isFailure, "the webhook to ci.example is switched off"},
		{"hook sends forms", false, map[string]string{hooks: theirs(true, `"pull_request"`, "form", good)}, nil, isFailure, "the webhook to ci.example sends forms"},
		{"hook without secret", false, map[string]string{hooks: theirs(true, `"pull_request"`, "json", "")}, nil, isFailure, "the webhook to ci.example has no secret"},
		{"hook without the event", false, map[string]string{hooks: theirs(true, `"push"`, "json", good)}, nil, isFailure, "does not send pull_request"},
		{"no hook", false, map[string]string{hooks: "[]"}, nil, isFailure, "no webhook sends to /webhooks/github"},
		{"hooks not to be seen", false, map[string]string{hooks: "404"}, nil, isWarning, "the webhook cannot be read"},
		{"App's hook elsewhere", true, map[string]string{hook: `{"url":"https://elsewhere/hook","content_type":"json","secret":"*"}`}, nil, isFailure, "no webhook sends to /webhooks/github"},
		{"App's hook, certificate", true, map[string]string{hook: `{"url":"https://h/webhooks/github","content_type":"json","secret":"*","insecure_ssl":"1"}`}, nil, isWarning, "does not verify our certificate"},
		{"App's permissions", true, map[string]string{"/installation": `{"id":1,"permissions":{"metadata":"read","checks":"read"},"events":["pull_request"]}`}, nil, isFailure, "the App lacks the permission checks: write"},
		{"App's permission for the trigger", true, map[string]string{"/installation": `{"id":1,"permissions":{"metadata":"read","checks":"write"},"events":["pull_request"]}`}, nil, isFailure, "the App lacks the permission actions: write"},
		{"App's events", true, map[string]string{"/installation": `{"id":1,"permissions":{},"events":["push"]}`}, nil, isFailure, "the App's webhook does not send pull_request"},
		{"team without members", true, map[string]string{"/installation": `{"id":1,"permissions":{}}`}, []string{"SIGNALBOX_TRUST=team:octo/crew"}, isFailure, "the App lacks the permission members: read"},
		{"approval policy", true, map[string]string{"/fork-pr-contributor-approval": `{"approval_policy":"first_time_contributors"}`}, []string{"SIGNALBOX_TRIGGER=actions_approval"}, isFailure, "by the policy first_time_contributors"},
		{"approval policy, unreadable", true, map[string]string{"/fork-pr-contributor-approval": "403"}, []string{"SIGNALBOX_TRIGGER=actions_approval"}, isWarning, "the approval policy of Actions cannot be read"},
		{"no workflow", true, map[string]string{"/contents/.github/workflows/presubmit.yml": "404"}, nil, isFailure, "presubmit.yml is not on main: no run can start"},
		{"no branch for it", true, nil, []string{"SIGNALBOX_TRIGGER=workflow:presubmit.yml@gone"}, isFailure, "presubmit.yml is not on gone: no run can start"},
		{"workflow not to be seen", true, map[string]string{"/contents/.github/workflows/presubmit.yml": "500"}, nil, isWarning, "presubmit.yml on main cannot be read"},
		{"not on the list", true, nil, []string{"SIGNALBOX_REPOS=octo/other"}, isFailure, "SIGNALBOX_REPOS does not name it"},
		{"credential", false, map[string]string{"/user": "401"}, nil, isFailure, "the forge does not take our credential"},
		{"repository", true, map[string]string{"/repos/octo/hello": "404"}, nil, isFailure, "it cannot be seen"},
		{"token", false, nil, nil, isWarning, "with a token the gate is a commit status"},
		{"bot", true, nil, nil, isWarning, "@helper[bot] opened 1 of the last 100 pull requests"},
		{"directory", true, nil, []string{"SIGNALBOX_STORE=file:/nowhere/at/all.db"}, isFailure, "the directory /nowhere/at does not exist"},
	} {
		t.Run(c.name, func(t *testing.T) {
			y := newYard(t, c.app)
			y.forge.NewSender("https://ci.example/webhooks/github")
			for _, v := range c.env {
				name, _, _ := strings.Cut(v, "=")
				y.env = append(slices.DeleteFunc(y.env, func(o string) bool { return strings.HasPrefix(o, name+"=") }), v)
			}
			if c.name == "bot" {
				helper := y.forge.AddApp(sandbox.AppOptions{Slug: "helper", Owner: "octo"})
				y.repo.OpenPR(helper.Bot, sandbox.PROptions{})
			}
			by := y.sound()
			for k, v := range c.by {
				by[k] = strings.Replace(v, `"id":1,`, fmt.Sprintf(`"id":%d,`, y.install), 1)
			}
			y.answers(by)
			code, found := y.examined("github:octo/hello")
			if !slices.ContainsFunc(found.of(c.severity), func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Errorf("%s: found %q", c.severity, found)
			}
			if want := len(found.of(isFailure)) > 0; (code == exitFailed) != want {
				t.Errorf("exit code %d with failures %q", code, found.of(isFailure))
			}
			hook := func(severity string) bool {
				return slices.ContainsFunc(found.of(severity), func(s string) bool { return strings.HasPrefix(s, "the webhook to ") })
			}
			if hook(isFine) && (hook(isFailure) || hook(isWarning)) {
				t.Errorf("one webhook is fine and is not: %q", found)
			}
			for _, f := range found {
				if strings.Contains(f.What+f.Mend, "pw@") || strings.Contains(f.What, "hidden") {
					t.Errorf("tells a secret: %+v", f)
				}
				if f.Severity == isFailure && f.Mend == "" {
					t.Errorf("does not say how to mend: %+v", f)
				}
			}
		})
	}
}

func TestCheckTokenScopes(t *testing.T) {
	y := newYard(t, false, "SIGNALBOX_TRUST=team:octo/crew")
	for scopes, want := range map[string]string{"repo, read:org": "", "read:org": "scope repo", "repo": "scope read:org"} {
		y.forge.SetFault(func(r *http.Request) *sandbox.Fault {
			if r.URL.Path != "/user" {
				return nil
			}
			return &sandbox.Fault{Status: http.StatusOK, Perform: true, Body: `{"id":5,"login":"signalbox"}`, Header: http.Header{"X-Oauth-Scopes": {scopes}}}
		})
		_, found := y.examined("github:octo/hello")
		bad := slices.DeleteFunc(found.of(isFailure), func(s string) bool { return !strings.Contains(s, "lacks the scope") })
		if want == "" && len(bad) > 0 || want != "" && (len(bad) != 1 || !strings.Contains(bad[0], want)) {
			t.Errorf("%q: %q", scopes, bad)
		}
	}
}

func TestCheckRedis(t *testing.T) {
	y := newYard(t, true)
	server := redistest.Start(t, redistest.Options{})
	y.env = append(slices.DeleteFunc(y.env, func(v string) bool { return strings.HasPrefix(v, "SIGNALBOX_STORE=") }), "SIGNALBOX_STORE="+server.URL())
	y.answers(y.sound())
	_, found := y.examined("github:octo/hello")
	if len(slices.DeleteFunc(found, func(f finding) bool { return f.Where != "store" })) == 0 {
		t.Error("says nothing of the store")
	}
}

func TestCheckWrongUse(t *testing.T) {
	y := newYard(t, false)
	for _, c := range []struct {
		code int
		says string
		env  []string
		args []string
	}{
		{exitUsage, "expected INSTANCE:OWNER/REPO", y.env, []string{"check", "github:octo"}},
		{exitUsage, "no such forge is configured", y.env, []string{"check", "gitlab:octo/hello"}},
		{exitUsage, "the configuration is refused", nil, []string{"check"}},
	} {
		var o, e bytes.Buffer
		if code := run(t.Context(), c.args, process{c.env, y.read, &o, &e}); code != c.code || !strings.Contains(e.String(), c.says) {
			t.Errorf("%v: %d %q", c.args, code, e.String())
		}
	}
}
