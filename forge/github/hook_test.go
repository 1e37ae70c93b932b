package github

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

func newHook(tb testing.TB, secrets ...string) *Hook {
	tb.Helper()
	h, err := NewHook("github", secrets)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

func sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func TestNewHook_refuses(t *testing.T) {
	for _, secrets := range [][]string{nil, {}, {""}, {"old", ""}} {
		if _, err := NewHook("github", secrets); err == nil {
			t.Errorf("%q accepted", secrets)
		}
	}
	if _, err := NewHook("", []string{"s"}); err == nil {
		t.Error("an instance without name accepted")
	}
}

func TestVerify(t *testing.T) {
	body := []byte(`{"action":"opened"}`)
	h := newHook(t, "new", "old")
	fits := sign("new", body)
	for _, c := range []struct {
		name  string
		value string
		body  []byte
		want  error
	}{
		{"newest secret", fits, body, nil},
		{"older secret", sign("old", body), body, nil},
		{"upper case", "sha256=" + strings.ToUpper(fits[7:]), body, nil},
		{"unknown secret", sign("other", body), body, forge.ErrSignatureWrong},
		{"body changed", fits, []byte(`{"action":"closed"}`), forge.ErrSignatureWrong},
		{"body cut", fits, body[:5], forge.ErrSignatureWrong},
		{"body empty", fits, nil, forge.ErrSignatureWrong},
		{"empty body, signed", sign("old", nil), nil, nil},
		{"none", "", body, forge.ErrSignatureMissing},
		{"other algorithm", "sha1=" + fits[7:], body, forge.ErrSignatureMalformed},
		{"no algorithm", fits[7:], body, forge.ErrSignatureMalformed},
		{"short", fits[:70], body, forge.ErrSignatureMalformed},
		{"long", fits + "00", body, forge.ErrSignatureMalformed},
		{"no digits", "sha256=", body, forge.ErrSignatureMalformed},
		{"not hex", "sha256=" + strings.Repeat("g", 64), body, forge.ErrSignatureMalformed},
	} {
		header := http.Header{"X-Hub-Signature": {"sha1=0000000000000000000000000000000000000000"}}
		if c.value != "" {
			header.Set("X-Hub-Signature-256", c.value)
		}
		if err := h.Verify(header, c.body); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, expected %v", c.name, err, c.want)
		}
	}
}

func headers(event string) http.Header {
	h := http.Header{}
	h.Set("X-GitHub-Event", event)
	h.Set("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
	return h
}

// fixtures are deliveries cut to what matters, file → event: the directory says which, at the top it is pull_request.
func fixtures(tb testing.TB) map[string]string {
	tb.Helper()
	events := map[string]string{}
	for _, pattern := range []string{"testdata/hook/*.json", "testdata/hook/*/*.json"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			tb.Fatal(pattern, files, err)
		}
		for _, file := range files {
			events[file] = filepath.Base(filepath.Dir(file))
			if events[file] == "hook" {
				events[file] = "pull_request"
			}
		}
	}
	return events
}

// Beside each fixture is where it goes and the mail it becomes.
func TestRoute_golden(t *testing.T) {
	h := newHook(t, "s")
	for file, event := range fixtures(t) {
		t.Run(event+"/"+strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			body, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			to, err := h.Route(headers(event), body)
			if err != nil {
				t.Fatal(err)
			}
			got := struct {
				forge.Routed
				Body stdjson.RawMessage
			}{to, to.Body}
			out, err := stdjson.MarshalIndent(got, "", "\t")
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, '\n')
			golden := strings.TrimSuffix(file, ".json") + ".golden"
			if *rewrite {
				if err := os.WriteFile(golden, out, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(out)); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What the sandbox forge posts, and what the note makes of it, agree with what the API shows.
func TestRoute_sandbox(t *testing.T) {
	w := tokenWorld(t)
	w.repo.AddHook("s", "*")
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	before := pr.Head()
	pr.Label(w.maintainer, "CICD")
	pr.Push(w.outsider)
	pr.Unlabel(w.maintainer, "CICD")
	pr.ConvertToDraft(w.outsider)
	pr.ReadyForReview(w.outsider)
	pr.Retitle(w.outsider, "x")
	pr.ChangeBase(w.maintainer, "signalbox-presubmit")
	pr.Close(w.maintainer)
	pr.Reopen(w.maintainer)
	pr.Merge(w.owner)
	h := newHook(t, "s")
	var said []prmanager.Action
	for _, d := range w.forge.Deliveries() {
		to, err := h.Route(http.Header{"X-Github-Event": {d.Event}, "X-Github-Delivery": {d.GUID}}, d.Body)
		switch {
		case err != nil || to.GUID != d.GUID || to.Event != d.Event:
			t.Fatalf("%s: %+v, %v", d.Event, to, err)
		case d.Event == "ping":
			if !to.Ping {
				t.Errorf("%+v", to)
			}
			continue
		case d.Event == "workflow_run": // told by the next test
			continue
		case d.Event != "pull_request":
			if to.Ignored == "" || to.Kind != "" {
				t.Errorf("%+v", to)
			}
			continue
		}
		var n prmanager.Note
		if err := stdjson.Unmarshal(to.Body, &n); err != nil {
			t.Fatal(err)
		}
		subject := prmanager.Subject(n.Pull.Ref)
		if to.Project != subject.Project || to.Kind != subject.Kind || to.Key != subject.Key || subject != prmanager.Subject(w.ref(pr)) {
			t.Errorf("%+v does not go to %s", to, subject)
		}
		if n.Actions[0] == prmanager.ActionPushed && (n.Before != before || n.After == before || n.After != n.Pull.Head.SHA || n.Sender != who(w.outsider)) {
			t.Errorf("%+v", n)
		}
		said = append(said, n.Actions...)
	}
	want := []prmanager.Action{
		prmanager.ActionOpened, prmanager.ActionLabelled, prmanager.ActionPushed, prmanager.ActionUnlabelled, prmanager.ActionDraft,
		prmanager.ActionReady, "edited", prmanager.ActionBaseChanged, prmanager.ActionClosed, prmanager.ActionReopened, prmanager.ActionClosed,
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// The same for what is said about commits, runs and merge groups.
func TestRoute_sandboxOthers(t *testing.T) {
	w := appWorld(t)
	w.repo.AddHook("s", "*")
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	ref := forge.Ref{Repo: w.where(), Number: pr.Number}
	if _, err := w.WriteCheck(t.Context(), forge.Check{
		Repo: w.where(), SHA: pr.Head(), Name: "CI gate", ExternalID: "gate:1", State: forge.CheckActionRequired, Title: "shut", Approve: true,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.workflow(t).Start(t.Context(), w.run(pr)); err != nil {
		t.Fatal(err)
	}
	runs := w.repo.Runs()
	runs[len(runs)-1].Start()
	runs[len(runs)-1].Complete("success")
	pr.Comment(w.maintainer, "/ok-to-test "+pr.Head())
	pr.Comment(w.outsider, "thanks")
	pr.EditComment(w.outsider, "/retest")
	check := w.repo.Check(pr.Head(), "CI gate")
	if !check.ClickAction(w.maintainer, "approve") {
		t.Fatal("no button")
	}
	check.RequestRerun(w.outsider)
	w.repo.OpenPR(w.maintainer, sandbox.PROptions{}).Enqueue(w.maintainer)
	h := newHook(t, "s")
	got := map[string]int{}
	for _, d := range w.forge.Deliveries() {
		to, err := h.Route(http.Header{"X-Github-Event": {d.Event}, "X-Github-Delivery": {d.GUID}}, d.Body)
		if err != nil || to.Flaw != "" {
			t.Fatalf("%s: %+v, %v", d.Event, to, err)
		}
		if d.Event == "pull_request" || to.Kind == "" {
			continue
		}
		got[to.Kind+" "+to.MailKind+" "+to.Action]++
		switch to.MailKind {
		case prmanager.KindComment:
			c := mail[prmanager.Comment](t, to)
			if c.Ref.Number != ref.Number || c.By != who(w.maintainer) || c.Author != who(w.outsider) || c.At.IsZero() || c.ID == 0 ||
				!slices.Equal(c.Commands, []prmanager.Command{{Verb: prmanager.VerbApprove, SHA: pr.Head()}}) {
				t.Errorf("%+v", c)
			}
		case status.KindCheckRun:
			c := mail[status.CheckRun](t, to)
			if c.SHA != pr.Head() || c.Name != "CI gate" || c.ExternalID != "gate:1" || c.AppID != w.app.ID || c.CheckID == "" ||
				(c.Action == status.ActionRequested) != (c.Identifier == "approve" && c.By == who(w.maintainer)) {
				t.Errorf("%+v", c)
			}
		case status.KindWorkflowRun:
			r := mail[status.WorkflowRun](t, to)
			if r.RunID == 0 || r.Status == "" || r.URL == "" || r.Attempt != 1 || r.At.IsZero() || (to.Kind == "repo") != (r.Key == key && r.Path == presubmit) {
				t.Errorf("%+v", r)
			}
		case prmanager.KindGroup:
			if g := mail[prmanager.Group](t, to); g.SHA == "" || g.BaseSHA != w.repo.Tip("main") || g.BaseRef != "refs/heads/main" || g.Gone || g.At.IsZero() {
				t.Errorf("%+v", g)
			}
		}
	}
	for want, n := range map[string]int{
		"pr comment created": 1, "commit check_run requested_action": 1, "commit check_run rerequested": 1, "mq merge_group checks_requested": 1,
		"repo workflow_run requested": 1, "repo workflow_run in_progress": 1, "repo workflow_run completed": 1,
	} {
		// Two hooks, the repository's and the App's, tell each event.
		if got[want] < n || got[want] > 2*n {
			t.Errorf("%s: %d times; all: %v", want, got[want], got)
		}
	}
}

func TestRoute_others(t *testing.T) {
	h := newHook(t, "s")
	if to, err := h.Route(headers("ping"), []byte(`{"zen":"…","hook_id":1}`)); err != nil || !to.Ping || to.Ignored != "" {
		t.Errorf("%+v, %v", to, err)
	}
	for _, event := range []string{
		"push", "issue_comment", "check_run", "workflow_run", "merge_group", "issues", "projects_v2_item", "check_suite", "label",
		"membership", "team", "installation",
	} {
		if to, err := h.Route(headers(event), []byte(`{"action":"created"}`)); err != nil || to.Ignored == "" || to.Kind != "" || to.Ping {
			t.Errorf("%s: %+v, %v", event, to, err)
		}
		// What nobody handles may have any shape.
		if to, err := h.Route(headers(event), []byte(`{"action":1,"repository":{"id":"x"}}`)); err != nil || to.Ignored == "" || to.Flaw != "" {
			t.Errorf("%s: %+v, %v", event, to, err)
		}
	}
}

// bad is a payload by what is put in the place of parts of a good one.
func bad(replace ...string) string {
	return strings.NewReplacer(replace...).Replace(
		`{"action":"opened","number":7,"pull_request":{"number":7,"state":"open","merged":false,"draft":false,"user":{"id":3,"login":"otto","type":"User"},` +
			`"updated_at":"2026-01-01T00:00:00Z","head":{"sha":"` + strings.Repeat("a", 40) + `","ref":"x","repo":{"id":9}},` +
			`"base":{"sha":"` + strings.Repeat("b", 40) + `","ref":"main","repo":{"id":5}}},` +
			`"repository":{"id":5,"full_name":"acme/widgets","private":false},"sender":{"id":3,"login":"otto","type":"User"}}`)
}

// Deliveries that name no subject are refused, with the field and never the body.
func TestRoute_malformed(t *testing.T) {
	h := newHook(t, "s")
	event := func(set, value string) http.Header {
		head := headers("pull_request")
		head.Set(set, value)
		return head
	}
	deep := strings.Repeat("[", 1<<20)
	for _, c := range []struct {
		name   string
		header http.Header
		body   string
		field  string
	}{
		{"no id", event("X-GitHub-Delivery", ""), bad(), "X-GitHub-Delivery"},
		{"no event", event("X-GitHub-Event", ""), bad(), "X-GitHub-Event"},
		{"strange event", event("X-GitHub-Event", "pull request\n"), bad(), "X-GitHub-Event"},
		{"long event", event("X-GitHub-Event", strings.Repeat("a", 65)), bad(), "X-GitHub-Event"},
		{"empty", headers("pull_request"), "", "body"},
		{"not JSON", headers("pull_request"), "payload=%7B%7D", "body"},
		{"cut", headers("pull_request"), bad()[:200], "body"},
		{"two values", headers("pull_request"), bad() + bad(), "body"},
		{"not JSON, ignored kind", headers("push"), "{", "body"},
		{"not JSON, ping", headers("ping"), "zen", "body"},
		{"deep", headers("pull_request"), deep, "body"},
		{"deep and closed", headers("pull_request"), deep + strings.Repeat("]", 1<<20), "body"},
		{"deep inside", headers("pull_request"), bad(`"action":"opened"`, `"x":`+strings.Repeat(`{"a":`, 1<<20)+"1"+strings.Repeat("}", 1<<20)), "body"},
		{"deep in a part that is read", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":`+strings.Repeat("[", 1<<20)+strings.Repeat("]", 1<<20)+`,"full_name"`), "body"},
		{"an array", headers("pull_request"), "[]", "body"},
		{"null", headers("pull_request"), "null", "repository.id"},
		{"a string", headers("pull_request"), `"x"`, "body"},
		{"nothing", headers("pull_request"), "{}", "repository.id"},
		{"no repository", headers("pull_request"), bad(`"repository"`, `"repo"`), "repository.id"},
		{"repository null", headers("pull_request"), bad(`{"id":5,"full_name":"acme/widgets","private":false}`, "null"), "repository.id"},
		{"repository a number", headers("pull_request"), bad(`{"id":5,"full_name":"acme/widgets","private":false}`, "5"), "repository.id"},
		{"repository id a string", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":"5","full_name"`), "repository.id"},
		{"repository id negative", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":-5,"full_name"`), "repository.id"},
		{"repository id broken", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":5.5,"full_name"`), "repository.id"},
		{"repository id too large", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":9999999999999999999,"full_name"`), "repository.id"},
		{"repository id far too large", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":1e400,"full_name"`), "repository.id"},
		{"repository id very long", headers("pull_request"), bad(`"id":5,"full_name"`, `"id":`+strings.Repeat("9", 1<<16)+`,"full_name"`), "repository.id"},
		{"number zero", headers("pull_request"), bad(`"number":7`, `"number":0`), "pull_request.number"},
		{"number negative", headers("pull_request"), bad(`"number":7`, `"number":-7`), "pull_request.number"},
		{"number a string", headers("pull_request"), bad(`"number":7`, `"number":"7"`), "pull_request.number"},
		{"number null", headers("pull_request"), bad(`"number":7`, `"number":null`), "pull_request.number"},
		{"two numbers", headers("pull_request"), bad(`"pull_request":{"number":7`, `"pull_request":{"number":8`), "pull_request.number"},
	} {
		t.Run(c.name, func(t *testing.T) {
			to, err := h.Route(c.header, []byte(c.body))
			var refused *forge.BadDelivery
			if !errors.As(err, &refused) {
				t.Fatalf("%+v, %v", to, err)
			}
			if refused.Field != c.field {
				t.Errorf("%v, expected field %s", refused, c.field)
			}
			if strings.Contains(err.Error(), "otto") || len(err.Error()) > 100 {
				t.Errorf("quotes the body: %v", err)
			}
		})
	}
}

// The same for the other kinds: what names no subject is refused, if anybody would handle it.
func TestRoute_malformedOthers(t *testing.T) {
	h := newHook(t, "s")
	const repo = `"repository":{"id":5,"full_name":"acme/widgets"}`
	sha := strings.Repeat("a", 40)
	for _, c := range []struct{ name, event, body, field string }{
		{"comment, not JSON", "issue_comment", `{`, "body"},
		{"comment, an array", "issue_comment", `[]`, "body"},
		{"comment, no repository", "issue_comment", `{"action":"created","issue":{"number":7,"pull_request":{}},"comment":{"body":"/retest"}}`, "repository.id"},
		{"comment, no number", "issue_comment", `{"action":"created","issue":{"pull_request":{}},"comment":{"body":"/retest"},` + repo + `}`, "issue.number"},
		{"comment, number a string", "issue_comment", `{"action":"created","issue":{"number":"7","pull_request":{}},"comment":{"body":"/retest"},` + repo + `}`, "issue.number"},
		{"check, no SHA", "check_run", `{"action":"rerequested","check_run":{"id":1},` + repo + `}`, "check_run.head_sha"},
		{"check, short SHA", "check_run", `{"action":"rerequested","check_run":{"id":1,"head_sha":"` + sha[:39] + `"},` + repo + `}`, "check_run.head_sha"},
		{"check, a path", "check_run", `{"action":"rerequested","check_run":{"id":1,"head_sha":"../../` + sha[:34] + `"},` + repo + `}`, "check_run.head_sha"},
		{"check, none", "check_run", `{"action":"rerequested",` + repo + `}`, "check_run.head_sha"},
		{"check, no repository", "check_run", `{"action":"rerequested","check_run":{"id":1,"head_sha":"` + sha + `"}}`, "repository.id"},
		{"run, branch for SHA", "workflow_run", `{"workflow_run":{"event":"pull_request","head_sha":"main"},` + repo + `}`, "workflow_run.head_sha"},
		{"run, SHA a number", "workflow_run", `{"workflow_run":{"event":"pull_request","head_sha":1},` + repo + `}`, "workflow_run.head_sha"},
		{"run, repository a string", "workflow_run", `{"workflow_run":{"event":"pull_request","head_sha":"` + sha + `"},"repository":"x"}`, "repository.id"},
		{"dispatched run, no repository", "workflow_run", `{"workflow_run":{"event":"workflow_dispatch","display_title":"` + key + `"}}`, "repository.id"},
		{"group, none", "merge_group", `{"action":"destroyed",` + repo + `}`, "merge_group.head_sha"},
		{"group, an array", "merge_group", `{"action":"destroyed","merge_group":[],` + repo + `}`, "merge_group.head_sha"},
		{"group, not JSON", "merge_group", `nil`, "body"},
	} {
		to, err := h.Route(headers(c.event), []byte(c.body))
		if refused := (*forge.BadDelivery)(nil); !errors.As(err, &refused) || refused.Field != c.field {
			t.Errorf("%s: %+v, %v; expected field %s", c.name, to, err, c.field)
		}
	}
}

// A run without id cannot be told from another, so that a person has to look.
func TestRoute_withoutID(t *testing.T) {
	h := newHook(t, "s")
	sha := strings.Repeat("a", 40)
	for event, body := range map[string]string{
		"check_run":    `{"action":"rerequested","check_run":{"name":"CI gate","head_sha":"` + sha + `"},"repository":{"id":5}}`,
		"workflow_run": `{"action":"completed","workflow_run":{"event":"pull_request","head_sha":"` + sha + `"},"repository":{"id":5}}`,
	} {
		if to, err := h.Route(headers(event), []byte(body)); err != nil || to.Flaw != event+".id: expected a positive number" || to.Kind != "commit" {
			t.Errorf("%s: %+v, %v", event, to, err)
		}
	}
}

// A mail is as small as what decisions need of it: whoever can write a long name cannot fill the store.
func TestRoute_long(t *testing.T) {
	h := newHook(t, "s")
	long := strings.Repeat("x", 64<<10)
	body := `{"action":"rerequested","check_run":{"id":1,"name":"` + long + `","head_sha":"` + strings.Repeat("a", 40) + `"},"repository":{"id":5,"full_name":"acme/widgets"}}`
	to, err := h.Route(headers("check_run"), []byte(body))
	if err != nil || to.Flaw == "" || len(to.Body) > 0 || to.Kind != "commit" {
		t.Errorf("%+v, %v", to, err)
	}
	comment := `{"action":"created","issue":{"number":7,"pull_request":{}},"comment":{"body":"/retest\n` + strings.Repeat("x", longestComment) + `"},"repository":{"id":5}}`
	if to, err = h.Route(headers("issue_comment"), []byte(comment)); err != nil || to.Ignored == "" {
		t.Errorf("%+v, %v", to, err)
	}
}

// Deliveries whose pull request is known are stored, also where the rest cannot be read: a person sees them.
func TestRoute_flawed(t *testing.T) {
	h := newHook(t, "s")
	for name, c := range map[string]struct {
		body string
		flaw bool
	}{
		"good":                        {bad(), false},
		"null author":                 {bad(`"user":{"id":3,"login":"otto","type":"User"}`, `"user":null`), false},
		"null sender":                 {bad(`"sender":{"id":3,"login":"otto","type":"User"}`, `"sender":null`), false},
		"no sender":                   {bad(`,"sender":{"id":3,"login":"otto","type":"User"}`, ``), false},
		"deleted fork":                {bad(`"repo":{"id":9}`, `"repo":null`), false},
		"null label":                  {bad(`"action":"opened"`, `"action":"labeled","label":null`), false},
		"null installation":           {bad(`"action":"opened"`, `"action":"opened","installation":null`), false},
		"null draft and merged":       {bad(`false`, `null`), false},
		"unknown action":              {bad(`"opened"`, `"`+strings.Repeat("ä", 500)+`"`), false},
		"no action":                   {bad(`"action":"opened",`, ``), false},
		"unknown fields":              {bad(`"action":"opened"`, `"action":"opened","x":[[[{"y":1e999}]]]`), false},
		"no time":                     {bad(`"2026-01-01T00:00:00Z"`, `null`), false}, // prmanager says what is missing
		"time not a time":             {bad(`"2026-01-01T00:00:00Z"`, `"yesterday"`), true},
		"time a number":               {bad(`"2026-01-01T00:00:00Z"`, `1767225600`), true},
		"action a number":             {bad(`"opened"`, `1`), true},
		"draft a string":              {bad(`"draft":false`, `"draft":"no"`), true},
		"head an array":               {bad(`"head":{`, `"head":[],"tail":{`), true},
		"user a string":               {bad(`"user":{"id":3,"login":"otto","type":"User"}`, `"user":"otto"`), true},
		"user id huge":                {bad(`"user":{"id":3`, `"user":{"id":99999999999999999999`), true},
		"sender id very long":         {bad(`"sender":{"id":3`, `"sender":{"id":`+strings.Repeat("3", 200)), true},
		"sender id a float":           {bad(`"sender":{"id":3`, `"sender":{"id":3.5`), true},
		"label a string":              {bad(`"action":"opened"`, `"action":"labeled","label":"CICD"`), true},
		"repository name a number":    {bad(`"acme/widgets"`, `5`), true},
		"pull request null":           {bad(`"pull_request"`, `"pull_request":null,"x"`), true},
		"pull request missing":        {bad(`"pull_request"`, `"x"`), true},
		"pull request a string":       {bad(`"pull_request"`, `"pull_request":"7","x"`), true},
		"changes of the wrong shape":  {bad(`"action":"opened"`, `"action":"edited","changes":[]`), true},
		"before that is no text":      {bad(`"action":"opened"`, `"action":"synchronize","before":1`), true},
		"installation of wrong shape": {bad(`"action":"opened"`, `"action":"opened","installation":"x"`), true},
	} {
		t.Run(name, func(t *testing.T) {
			to, err := h.Route(headers("pull_request"), []byte(c.body))
			if err != nil || to.Project != "5" || to.Kind != "pr" || to.Key != "7" || to.MailKind != prmanager.KindPull || to.Format != prmanager.Format || !to.Hint {
				t.Fatalf("%+v, %v", to, err)
			}
			if (to.Flaw != "") != c.flaw || (len(to.Body) == 0) != c.flaw {
				t.Errorf("flaw %q, body %s", to.Flaw, to.Body)
			}
			if strings.Contains(to.Flaw, "otto") || len(to.Flaw) > 100 {
				t.Errorf("quotes the body: %q", to.Flaw)
			}
			if c.flaw {
				return
			}
			var n prmanager.Note
			if err := stdjson.Unmarshal(to.Body, &n); err != nil {
				t.Error(err)
			}
			if len(n.Actions) != 1 || len(n.Actions[0]) > 200 {
				t.Errorf("%q", n.Actions)
			}
		})
	}
}

// FuzzRoute: whatever arrives, Route answers one of its four answers, and the same as encoding/json would have it.
func FuzzRoute(f *testing.F) {
	for file, event := range fixtures(f) {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(event, body)
	}
	for _, s := range []string{bad(), bad("7", "-1"), bad(`"open"`, `"o\ud800\u0000"`), "{}", "[", "null", bad()[:99], bad("5", "1e5"), bad("{", "[")} {
		f.Add("pull_request", []byte(s))
		f.Add("ping", []byte(s))
		f.Add("push", []byte(s))
		f.Add("issue_comment", []byte(s))
		f.Add("workflow_run", []byte(s))
	}
	h := newHook(f, "s")
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		given := string(body)
		to, err := h.Route(headers(event), body)
		if string(body) != given {
			t.Fatal("the body was changed")
		}
		if err != nil {
			if refused := (*forge.BadDelivery)(nil); !errors.As(err, &refused) || refused.Field == "" || refused.Want == "" {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		ways := 0
		for _, way := range []bool{to.Ping, to.Ignored != "", to.Kind != ""} {
			if way {
				ways++
			}
		}
		if ways != 1 || to.GUID == "" || to.Event != event {
			t.Fatalf("%+v", to)
		}
		if to.Kind == "" {
			return
		}
		if to.Project == "" || to.Key == "" || strings.HasPrefix(to.Project, "-") || strings.HasPrefix(to.Key, "-") || (to.Flaw == "") == (len(to.Body) == 0) {
			t.Fatalf("%+v", to)
		}
		if to.Flaw != "" {
			return
		}
		want := state.Subject{Instance: "github", Project: to.Project, Kind: to.Kind, Key: to.Key}
		if len(to.Body) > 64<<10 {
			t.Fatalf("mail of %d bytes", len(to.Body))
		}
		switch to.MailKind {
		case prmanager.KindPull:
			n := mail[prmanager.Note](t, to)
			if prmanager.Subject(n.Pull.Ref) != want {
				t.Fatalf("%+v goes to %+v", n, want)
			}
			var p pullPayload
			if err := stdjson.Unmarshal(body, &p); err == nil && p.Repository != nil && (p.Repository.ID != n.Pull.Ref.Repo.ID || p.PullRequest.Head.SHA != n.Pull.Head.SHA) {
				t.Fatalf("read otherwise than encoding/json does: %+v, %+v", n, p)
			}
		case prmanager.KindComment:
			if c := mail[prmanager.Comment](t, to); prmanager.Subject(c.Ref) != want || len(c.Commands) == 0 {
				t.Fatalf("%+v goes to %+v", c, want)
			}
		case prmanager.KindGroup:
			if g := mail[prmanager.Group](t, to); prmanager.GroupSubject(g.Repo, g.SHA) != want || !forge.FullSHA(g.SHA) {
				t.Fatalf("%+v goes to %+v", g, want)
			}
		case status.KindCheckRun:
			if c := mail[status.CheckRun](t, to); status.Subject(c.Repo, c.SHA) != want || !forge.FullSHA(c.SHA) {
				t.Fatalf("%+v goes to %+v", c, want)
			}
		case status.KindWorkflowRun:
			r := mail[status.WorkflowRun](t, to)
			if own := r.Event == "pull_request"; own && status.Subject(r.Repo, r.SHA) != want || !own && (prmanager.RunsSubject(r.Repo) != want || r.Key == "") {
				t.Fatalf("%+v goes to %+v", r, want)
			}
		default:
			t.Fatalf("mail of kind %q", to.MailKind)
		}
	})
}

// mail reads what was routed.
func mail[T any](t *testing.T, to forge.Routed) (v T) {
	t.Helper()
	if err := stdjson.Unmarshal(to.Body, &v); err != nil {
		t.Fatalf("the mail cannot be read: %v", err)
	}
	return v
}

// Before the answer a delivery costs one signature and one decoding.
func BenchmarkRoute(b *testing.B) {
	body := []byte(bad(`"action":"opened"`, `"action":"opened","pad":"`+strings.Repeat("x", 200)+`","more":[`+strings.Repeat(`{"url":"https://api.github.com/repos/a/b","n":1,"t":true},`, 380)+`{}]`))
	h := newHook(b, "s")
	head := headers("pull_request")
	head.Set("X-Hub-Signature-256", sign("s", body))
	b.Run("verify", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if err := h.Verify(head, body); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("route", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := h.Route(head, body); err != nil {
				b.Fatal(err)
			}
		}
	})
}
