package sandbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-github/v66/github"
	"go.uber.org/goleak"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// receiver is a webhook's other end: it checks deliveries as Signalbox does and remembers them.
type receiver struct {
	*httptest.Server
	t      *testing.T
	mu     sync.Mutex
	status int
	got    []string // GUIDs
	came   chan string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{t: t, status: http.StatusAccepted, came: make(chan string, 100)}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		r.t.Error(err)
	}
	if err := github.ValidateSignature(req.Header.Get("X-Hub-Signature-256"), body, []byte(secret)); err != nil {
		r.t.Error(err)
	}
	if _, err := github.ParseWebHook(github.WebHookType(req), body); err != nil {
		r.t.Error(err)
	}
	if !strings.HasPrefix(req.UserAgent(), "GitHub-Hookshot/") || req.Header.Get("X-Github-Hook-Id") == "" ||
		req.Header.Get("Content-Type") != "application/json" || req.Header.Get("X-Github-Hook-Installation-Target-Type") == "" {
		r.t.Errorf("headers %v", req.Header)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, github.DeliveryID(req))
	w.WriteHeader(r.status)
	r.came <- github.DeliveryID(req)
}

func (r *receiver) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) answer(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func TestDeliveriesSentLateTwiceAndNever(t *testing.T) {
	s, r := newStage(t), newReceiver(t)
	ctx := t.Context()
	sender := s.NewSender(r.URL)
	defer sender.Close()
	check(t, sender.Flush(ctx))
	begun := len(r.received())

	s.pr.Label(s.alice, "CICD")
	s.pr.Push(s.mallory)
	s.pr.Close(s.mallory)
	due := s.Due()
	equal(t, "due", len(due), 5) // the held native run of the push tells of itself, twice
	equal(t, "nothing sent by itself", len(r.received()), begun)
	labeled, pushed, closed := due[0], due[1], due[4]
	equal(t, "order", labeled.Action+pushed.Action+closed.Action, "labeledsynchronizeclosed")

	check(t, sender.Drop(closed.GUID))
	first, err := sender.Send(ctx, pushed.GUID)
	check(t, err)
	equal(t, "status", first.Status, 202)
	again, err := sender.Send(ctx, pushed.GUID)
	check(t, err)
	equal(t, "redelivery", fmt.Sprint(first.Redelivery, again.Redelivery), "false true")
	_, err = sender.Send(ctx, labeled.GUID)
	check(t, err)
	equal(t, "received", cmp.Diff(r.received()[begun:], []string{pushed.GUID, pushed.GUID, labeled.GUID}), "")
	check(t, sender.Flush(ctx))
	equal(t, "flushed", len(s.Due()), 0)
	equal(t, "the dropped one never came", slices.Contains(r.received(), closed.GUID), false)
	if _, err := sender.Send(ctx, "none"); err == nil {
		t.Error("sent a delivery that there is not")
	}

	r.answer(503)
	s.pr.Reopen(s.alice)
	check(t, sender.Flush(ctx))
	r.Close()
	last, err := sender.Send(ctx, labeled.GUID)
	check(t, err)
	equal(t, "nobody answered", last.Status, 0)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := sender.Send(ended, pushed.GUID); err == nil {
		t.Error("sending went on after its context")
	}
	equal(t, "unsent is due again", s.Due()[0].GUID, pushed.GUID)
}

func TestRedelivery(t *testing.T) {
	s, r := newStage(t), newReceiver(t)
	ctx, admin := t.Context(), s.as(s.owner.Token)
	hook := s.repo.AddHook(secret, "pull_request")
	sender := s.NewSender(r.URL)
	defer sender.Close()
	check(t, sender.Flush(ctx))

	s.pr.Label(s.alice, "CICD")
	var lost []string
	for _, d := range s.Due() {
		check(t, sender.Drop(d.GUID))
		lost = append(lost, d.GUID)
	}
	equal(t, "App's and repository's", len(lost), 2)

	hooks, _, err := admin.Repositories.ListHooks(ctx, "acme", "widget", nil)
	check(t, err)
	equal(t, "hook", hooks[0].GetID(), hook.ID)
	one, _, err := admin.Repositories.GetHook(ctx, "acme", "widget", hook.ID)
	check(t, err)
	equal(t, "url", one.GetConfig().GetURL(), r.URL)
	log, res, err := admin.Repositories.ListHookDeliveries(ctx, "acme", "widget", hook.ID, &github.ListCursorOptions{PerPage: 1})
	check(t, err)
	equal(t, "newest", log[0].GetGUID(), lost[1])
	equal(t, "status", log[0].GetStatus()+" "+log[0].GetAction(), "failed to connect to host labeled")
	before, _, err := admin.Repositories.ListHookDeliveries(ctx, "acme", "widget", hook.ID, &github.ListCursorOptions{PerPage: 1, Cursor: res.Cursor})
	check(t, err)
	equal(t, "older", before[0].GetEvent(), "ping")
	full, _, err := admin.Repositories.GetHookDelivery(ctx, "acme", "widget", hook.ID, log[0].GetID())
	check(t, err)
	var body struct{ Action string }
	check(t, json.Unmarshal(full.Request.GetRawPayload(), &body))
	equal(t, "payload", body.Action, "labeled")
	_, res2, err := admin.Repositories.RedeliverHookDelivery(ctx, "acme", "widget", hook.ID, log[0].GetID())
	if res2 == nil || res2.StatusCode != http.StatusAccepted {
		t.Errorf("redelivery: %v", err)
	}

	app := s.as(s.jwt(nil))
	log, _, err = app.Apps.ListHookDeliveries(ctx, nil)
	check(t, err)
	equal(t, "App's newest", log[0].GetGUID(), lost[0])
	equal(t, "installation", log[0].GetInstallationID(), s.install.ID)
	_, _, err = app.Apps.GetHookDelivery(ctx, log[0].GetID())
	check(t, err)
	_, res2, err = app.Apps.RedeliverHookDelivery(ctx, log[0].GetID())
	if res2 == nil || res2.StatusCode != http.StatusAccepted {
		t.Errorf("redelivery: %v", err)
	}
	check(t, sender.Flush(ctx))
	equal(t, "both came", cmp.Diff(r.received()[len(r.received())-2:], []string{lost[1], lost[0]}), "")
	log, _, err = app.Apps.ListHookDeliveries(ctx, nil)
	check(t, err)
	equal(t, "redelivered", fmt.Sprint(log[0].GetRedelivery(), log[0].GetStatusCode()), "true 202")

	for status, want := range map[string]int{"success": 5, "failure": 1} { // the stage's four and the redelivery; the dropped one
		req, err := app.NewRequest(http.MethodGet, "app/hook/deliveries?status="+status, nil)
		check(t, err)
		var some []*github.HookDelivery
		_, err = app.Do(ctx, req, &some)
		check(t, err)
		equal(t, status, len(some), want)
	}

	_, _, err = s.as(s.alice.Token).Repositories.ListHooks(ctx, "acme", "widget", nil)
	refused(t, err, 404, "Not Found")
	_, _, err = admin.Repositories.GetHookDelivery(ctx, "acme", "widget", hook.ID, 1)
	refused(t, err, 404, "Not Found")
	_, _, err = admin.Repositories.ListHookDeliveries(ctx, "acme", "widget", hook.ID, &github.ListCursorOptions{Cursor: "x"})
	refused(t, err, 422, "Invalid cursor")
	_, _, err = s.as(s.alice.Token).Apps.ListHookDeliveries(ctx, nil)
	refused(t, err, 401, "A JSON web token could not be decoded")
}

func TestAuto(t *testing.T) {
	s, r := newStage(t), newReceiver(t)
	leak := goleak.IgnoreCurrent()
	begun := len(s.Deliveries())
	sender := s.NewSender(r.URL)
	sender.Auto(t.Context(), 1)
	s.pr.Label(s.alice, "CICD")
	s.pr.Unlabel(s.alice, "CICD")
	var want, got []string
	for _, d := range s.Deliveries() {
		want = append(want, d.GUID)
	}
	limit := time.After(10 * time.Second)
	for range begun + 2 {
		select {
		case guid := <-r.came:
			got = append(got, guid)
		case <-limit:
			t.Fatal("deliveries did not come")
		}
	}
	equal(t, "in order", cmp.Diff(got, want), "")
	sender.Close()
	s.pr.Label(s.alice, "CICD")
	equal(t, "held back after Close", len(s.Due()), 1)
	r.CloseClientConnections()
	goleak.VerifyNone(t, leak)
}

// Close lets a delivery that is under way end, and its answer is in the log.
func TestCloseFinishes(t *testing.T) {
	s := newStage(t)
	reached, gate := make(chan struct{}, 10), make(chan struct{})
	r := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached <- struct{}{}
		<-gate
		w.WriteHeader(http.StatusAccepted)
	}))
	defer r.Close()
	sender := s.NewSender(r.URL)
	sender.Auto(t.Context(), 1)
	<-reached
	var wait sync.WaitGroup
	wait.Go(func() { close(gate) })
	sender.Close()
	wait.Wait()
	equal(t, "attempts", len(s.Deliveries()[0].Attempts), 1)
	equal(t, "status", s.Deliveries()[0].Attempts[0].Status, 202)
}

// shapes is what testdata/facts.go keeps of the example payloads.
type shapes struct {
	Events, Shapes map[string]any
}

// differs says where a payload has a key that no example has, or lacks one that all examples have. Objects that are
// null or empty here are not looked into.
func (x *shapes) differs(want, got any, at string) (problems []string) {
	if name, is := want.(string); is {
		want = x.Shapes[name]
	}
	w, is := want.(map[string]any)
	if !is {
		return nil
	}
	switch g := got.(type) {
	case []any:
		for _, v := range g {
			problems = append(problems, x.differs(w["[]"], v, at+"[]")...)
		}
	case map[string]any:
		for name, sub := range w {
			plain, optional := strings.CutSuffix(name, "?")
			v, there := g[plain]
			if !there && !optional {
				problems = append(problems, "no "+at+"."+plain)
			}
			problems = append(problems, x.differs(sub, v, at+"."+plain)...)
		}
		for name := range g {
			if _, always := w[name]; !always {
				if _, sometimes := w[name+"?"]; !sometimes {
					problems = append(problems, "unknown "+at+"."+name)
				}
			}
		}
	}
	return problems
}

// TestPayloadShapes compares every kind of delivery with the keys of GitHub's examples.
func TestPayloadShapes(t *testing.T) {
	s := newStage(t)
	ctx := t.Context()
	s.repo.AddHook(secret, "*")
	sha := s.pr.Head()
	done := s.repo.OpenPR(s.alice, sandbox.PROptions{Labels: []string{"CICD"}, Body: "Please.", Draft: true})
	done.ReadyForReview(s.alice)
	done.ConvertToDraft(s.alice)
	done.Enqueue(s.alice).Leave(s.alice, "merged")
	s.pr.Label(s.alice, "CICD")
	s.pr.Unlabel(s.alice, "CICD")
	s.pr.Push(s.mallory)
	s.pr.ChangeBase(s.mallory, "release")
	s.pr.Comment(s.alice, "x")
	s.pr.EditComment(s.alice, "y")
	s.pr.Close(s.mallory)
	s.pr.Reopen(s.mallory)
	_, _, err := s.asApp().Checks.CreateCheckRun(ctx, "acme", "widget", github.CreateCheckRunOptions{
		Name: "CI gate", HeadSHA: done.Head(), Conclusion: github.String("action_required"),
		Actions: []*github.CheckRunAction{{Label: "Approve", Description: "Runs it", Identifier: "approve"}},
	})
	check(t, err)
	s.repo.Check(done.Head(), "CI gate").RequestRerun(s.alice)
	equal(t, "clicked", s.repo.Check(done.Head(), "CI gate").ClickAction(s.alice, "approve"), true)
	_, _, err = s.as(s.owner.Token).Repositories.CreateStatus(ctx, "acme", "widget", sha, &github.RepoStatus{State: github.String("success")})
	check(t, err)

	var facts shapes
	readJSON(t, "testdata/payloads.json", &facts)
	// What GitHub sends today and the examples, which are of several years, do not all show.
	known := []string{
		".user_view_type", ".has_discussions", ".allow_forking", ".custom_properties", ".client_id", ".app.slug", ".verified_at",
		".referenced_workflows", ".reactions", ".performed_via_github_app", ".state_reason", ".timeline_url", ".issue.pull_request",
		".installation", ".organization",
	}
	seen := map[string]bool{}
	for _, d := range s.Deliveries() {
		kind := strings.TrimSuffix(d.Event+"."+d.Action, ".")
		seen[kind] = true
		if facts.Events[kind] == nil || kind == "ping" && d.HookID == s.app.Hook.ID {
			continue // no example: an action that nobody recorded, or the ping of an App's hook
		}
		var body any
		check(t, json.Unmarshal(d.Body, &body))
		for _, p := range facts.differs(facts.Events[kind], body, "") {
			switch missing := strings.HasPrefix(p, "no "); {
			case p == "no .installation" && d.HookID != s.app.Hook.ID:
			case !missing && kind == "check_run.rerequested": // examples from the preview of 2018, which had less
			case !missing && slices.ContainsFunc(known, func(k string) bool { return strings.HasSuffix(p, k) }):
			default:
				t.Errorf("%s: %s", kind, p)
			}
		}
	}
	for kind := range facts.Events {
		if !seen[kind] {
			t.Errorf("no delivery was a %s", kind)
		}
	}
}
