package github

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func (w *world) check(sha string) forge.Check {
	return forge.Check{
		Repo: w.where(), SHA: sha, Name: "CI gate", ExternalID: "gate:1", State: forge.CheckActionRequired,
		Title: "Awaiting CICD label: waiting for a maintainer (not a failure)", URL: "https://signalbox.example/pr/1", Approve: true,
	}
}

// shows says whether GitHub has the check as it is.
func (w *world) shows(t *testing.T, c forge.Check) bool {
	t.Helper()
	_, found, err := w.FindCheck(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func (w *world) write(t *testing.T, c forge.Check) string {
	t.Helper()
	id, err := w.WriteCheck(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// A gate: every change is a new completed run, the button is on the shut one.
func TestCheck_gate(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	shut := w.check(pr.Head())
	if w.shows(t, shut) {
		t.Error("found before it was written")
	}
	first := w.write(t, shut)
	run := w.repo.Check(pr.Head(), "CI gate")
	if first == "" || run.State() != "action_required" || !w.shows(t, shut) {
		t.Errorf("id %q, state %s", first, run.State())
	}
	if !run.ClickAction(w.maintainer, "approve") {
		t.Error("no button")
	}
	open := shut
	open.ExternalID, open.State, open.Title, open.Approve = "gate:2", forge.CheckSuccess, "Approved", false
	same := open
	same.ExternalID = shut.ExternalID
	if w.shows(t, open) || w.shows(t, same) {
		t.Error("success found before it was written")
	}
	second := w.write(t, open)
	if second == first || w.repo.Gate(pr.Head(), "CI gate") != "success" || !w.shows(t, open) {
		t.Errorf("id %q, gate %s", second, w.repo.Gate(pr.Head(), "CI gate"))
	}
	if w.shows(t, shut) {
		t.Error("the former state counts as shown, although a newer run hides it")
	}
	if w.repo.Check(pr.Head(), "CI gate").ClickAction(w.maintainer, "approve") {
		t.Error("a button on an open gate")
	}
	closed := open
	closed.ExternalID, closed.State = "gate:3", forge.CheckCancelled
	w.write(t, closed)
	if w.repo.Gate(pr.Head(), "CI gate") != "cancelled" {
		t.Error(w.repo.Gate(pr.Head(), "CI gate"))
	}
}

// A presubmit: one run is updated until it completes; a completed one is never reopened.
func TestCheck_presubmit(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	c := forge.Check{Repo: w.where(), SHA: pr.Head(), Name: "presubmit", ExternalID: "sb1-key", State: forge.CheckQueued, Title: "Queued"}
	c.ID = w.write(t, c)
	for _, state := range []forge.CheckState{forge.CheckRunning, forge.CheckFailure} {
		c.State = state
		if w.shows(t, c) {
			t.Errorf("%s found before it was written", state)
		}
		if id := w.write(t, c); id != c.ID {
			t.Errorf("%s made a new run", state)
		}
		if !w.shows(t, c) {
			t.Errorf("%s not found", state)
		}
	}
	if id := w.write(t, c); id != c.ID {
		t.Error("said twice, the end made a new run")
	}
	c.State = forge.CheckQueued
	again := w.write(t, c)
	if again == c.ID {
		t.Error("a completed run was reopened")
	}
	if w.shows(t, c) {
		t.Error("another run than the wanted one counts")
	}
	if c.ID = again; !w.shows(t, c) {
		t.Error("the new run is not found")
	}
	c.ID = "999999999"
	if id := w.write(t, c); id == c.ID {
		t.Error("an id that does not exist was updated")
	}
	pr.Push(w.outsider)
	moved := c
	moved.ID, moved.SHA = again, pr.Head()
	if id := w.write(t, moved); id == again || w.repo.Check(pr.Head(), "presubmit") == nil {
		t.Error("a run of another commit was updated")
	}
	c.ID, c.State = "999999999", forge.CheckCancelled
	if id := w.write(t, c); id == c.ID {
		t.Error("an id that does not exist was completed")
	}
	moved.State = forge.CheckCancelled
	if id := w.write(t, moved); id == again || w.repo.Check(pr.Head(), "presubmit").State() != "cancelled" {
		t.Error("the end of a run of another commit counts")
	}
	c.ID = "seven"
	if _, err := w.WriteCheck(t.Context(), c); classOf(t, err) != forge.Permanent {
		t.Errorf("%v", err)
	}
}

// Runs of the same name by another App are not ours: neither found nor updated (T26).
func TestCheck_othersApp(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	public, private := appKey(t)
	other := w.forge.AddApp(sandbox.AppOptions{Slug: "other", Owner: "acme", Key: public})
	other.Install(w.repo)
	theirs := newClient(t, Options{Instance: "github", APIURL: w.url, AppID: other.ID, PrivateKey: private})
	c := w.check(pr.Head())
	c.State, c.Approve = forge.CheckQueued, false
	id, err := theirs.WriteCheck(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if w.shows(t, c) {
		t.Error("the other App's run is taken for ours")
	}
	c.ID = id
	if mine := w.write(t, c); mine == id {
		t.Error("the other App's run was updated")
	}
	c.State = forge.CheckFailure
	if mine := w.write(t, c); mine == id {
		t.Error("the other App's run was completed")
	}
	c = w.check(pr.Head())
	w.write(t, c)
	theirState := c
	theirState.State = forge.CheckSuccess
	if _, err = theirs.WriteCheck(t.Context(), theirState); err != nil {
		t.Fatal(err)
	}
	if !w.shows(t, c) {
		t.Error("ours is hidden by the other App's newer run")
	}
}

// A server that does not filter as asked (an older Enterprise Server) cannot make us take another App's run for ours.
func TestCheck_unfiltered(t *testing.T) {
	_, private := appKey(t)
	sha := strings.Repeat("a", 40)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusCreated)
			_, _ = w.Write([]byte(`{"token":"ghs_x","expires_at":"2100-01-01T00:00:00Z"}`))
			return
		}
		_, _ = w.Write([]byte(`{"total_count":2,"check_runs":[
			{"id":8,"name":"CI gate","external_id":"gate:1","status":"completed","conclusion":"success","app":{"id":66}},
			{"id":9,"name":"other","external_id":"gate:1","status":"completed","conclusion":"success","app":{"id":5}}]}`))
	}))
	t.Cleanup(server.Close)
	c := newClient(t, Options{Instance: "github", APIURL: server.URL, AppID: 5, PrivateKey: private})
	id, found, err := c.FindCheck(t.Context(), forge.Check{
		Repo: forge.Repo{Name: "acme/widgets", Installation: 1}, SHA: sha, Name: "CI gate", ExternalID: "gate:1", State: forge.CheckSuccess,
	})
	if err != nil || found || id != "" {
		t.Errorf("%q, %v, %v", id, found, err)
	}
}

func TestCheck_manyRuns(t *testing.T) {
	w := appWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	c := w.check(pr.Head())
	for i := range 101 {
		c.ExternalID = fmt.Sprintf("gate:%d", i)
		w.write(t, c)
	}
	if !w.shows(t, c) {
		t.Error("the newest of 101 is not found")
	}
	c.ExternalID = "gate:0"
	if w.shows(t, c) {
		t.Error("the oldest of 101 counts")
	}
}

// With a token the gate is a commit status.
func TestCheck_status(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	c := w.check(pr.Head())
	for state, want := range map[forge.CheckState]string{
		forge.CheckQueued: "pending", forge.CheckRunning: "pending", forge.CheckActionRequired: "pending",
		forge.CheckSuccess: "success", forge.CheckFailure: "failure", forge.CheckCancelled: "failure",
	} {
		c.State, c.Title = state, "state "+string(state)
		if w.shows(t, c) {
			t.Errorf("%s found before it was written", state)
		}
		if id := w.write(t, c); id != "" {
			t.Errorf("id %q of something that cannot be updated", id)
		}
		if got := w.repo.Gate(pr.Head(), "CI gate"); got != want || !w.shows(t, c) {
			t.Errorf("%s is shown as %s, expected %s", state, got, want)
		}
	}
	c.Title = "another title"
	if w.shows(t, c) {
		t.Error("a status with another description counts")
	}
	c.Title = strings.Repeat("ü", 300)
	w.write(t, c)
	writes := w.forge.Writes(0)
	if title := writes[len(writes)-1].Title; utf8.RuneCountInString(title) != maxDescription || !utf8.ValidString(title) {
		t.Errorf("description %q", title)
	}
	if !w.shows(t, c) {
		t.Error("a description that was cut is not recognised")
	}
	theirs := newClient(t, Options{Instance: "github", APIURL: w.url, Token: w.maintainer.Token})
	if _, err := theirs.WriteCheck(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if w.shows(t, c) {
		t.Error("the newest status is by somebody else, but counts as ours")
	}
	c.URL = ""
	w.write(t, c)
	if !w.shows(t, c) {
		t.Error("a status without link is not found")
	}
}

func TestCheck_refused(t *testing.T) {
	for name, w := range map[string]*world{"App": appWorld(t), "token": tokenWorld(t)} {
		for _, sha := range []string{"", "main", "abc123", "../../x", strings.Repeat("A", 40), strings.Repeat("z", 40)} {
			c := w.check(sha)
			if _, err := w.WriteCheck(t.Context(), c); classOf(t, err) != forge.Permanent {
				t.Errorf("%s: write %q: %v", name, sha, err)
			}
			if _, _, err := w.FindCheck(t.Context(), c); classOf(t, err) != forge.Permanent {
				t.Errorf("%s: find %q: %v", name, sha, err)
			}
		}
		unknown := w.check(strings.Repeat("a", 40))
		if _, err := w.WriteCheck(t.Context(), unknown); classOf(t, err) != forge.NotFound {
			t.Errorf("%s: a commit GitHub does not show: %v", name, err)
		}
		pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
		for _, status := range []int{200, 500} {
			w.forge.SetFault(func(*http.Request) *sandbox.Fault { return &sandbox.Fault{Status: status, Body: `{}`} })
			if _, err := w.WriteCheck(t.Context(), w.check(pr.Head())); classOf(t, err) != forge.Retriable {
				t.Errorf("%s: %d: %v", name, status, err)
			}
		}
		w.forge.SetFault(nil)
	}
}

// GitHub's limits of buttons and texts, which it enforces with a 422.
func TestCheck_limits(t *testing.T) {
	for _, a := range actions(forge.Check{Approve: true}) {
		if len(a.Label) > 20 || len(a.Identifier) > 20 || len(a.Description) > 40 || a.Identifier != "approve" {
			t.Errorf("%+v", a)
		}
	}
	long := output(forge.Check{Title: "t", Summary: strings.Repeat("ü", maxSummary)}).GetSummary()
	if len(long) > maxSummary || !utf8.ValidString(long) {
		t.Errorf("summary of %d bytes", len(long))
	}
	if output(forge.Check{Title: "t"}).GetSummary() != "t" {
		t.Error("no summary")
	}
}
