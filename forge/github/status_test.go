package github

import (
	"fmt"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func (w *world) clients(sha, run string, state forge.StatusState) forge.Status {
	return forge.Status{Repo: w.where(), SHA: sha, Context: "ci/build", State: state, Description: "says " + string(state), TargetURL: "https://ci.example/1", Run: run}
}

// put writes a status and holds what is found against it: not before, and its receipt after.
func (w *world) put(t *testing.T, s forge.Status) forge.StatusReceipt {
	t.Helper()
	if r, found, err := w.FindStatus(t.Context(), s); err != nil || found {
		t.Errorf("%s is found before it was written: %+v, %v", s.State, r, err)
	}
	made, err := w.WriteStatus(t.Context(), s)
	if err != nil || made.ID == "" {
		t.Fatalf("write %s: %+v, %v", s.State, made, err)
	}
	if r, found, err := w.FindStatus(t.Context(), s); err != nil || !found || r != made {
		t.Errorf("%s is not found: %+v, %t, %v", s.State, r, found, err)
	}
	return made
}

var states = []struct {
	of                forge.StatusState
	asStatus, asCheck string
}{
	{forge.StatusPending, "pending", "queued"},
	{forge.StatusRunning, "pending", "in_progress"},
	{forge.StatusSuccess, "success", "success"},
	{forge.StatusFailed, "failure", "failure"},
	{forge.StatusCanceled, "error", "cancelled"},
	{forge.StatusSkipped, "failure", "failure"},
}

// Every state in both forms; skipped and neutral, which satisfy a required check, are never written.
func TestStatus_states(t *testing.T) {
	token, app := tokenWorld(t), appWorld(t)
	for _, c := range states {
		for w, want := range map[*world]string{token: c.asStatus, app: c.asCheck} {
			sha := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true}).Head()
			s := w.clients(sha, "run-1", c.of)
			s.New = true
			w.put(t, s)
			if got := w.repo.Gate(sha, "ci/build"); got != want {
				t.Errorf("%s is shown as %s, expected %s", c.of, got, want)
			}
			writes := w.forge.Writes(0)
			if title := writes[len(writes)-1].Title; (c.of == forge.StatusSkipped) != strings.HasPrefix(title, "skipped: ") {
				t.Errorf("%s says %q", c.of, title)
			}
		}
	}
}

// A run of a client moves one check run; a completed one is corrected, never reopened; the next run is a new one.
func TestStatus_runs(t *testing.T) {
	w := appWorld(t)
	sha := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true}).Head()
	s := w.clients(sha, "run-1", forge.StatusPending)
	s.New = true
	first := w.put(t, s)
	s.ID, s.New = first.ID, false
	for _, state := range []forge.StatusState{forge.StatusRunning, forge.StatusSuccess, forge.StatusFailed} {
		s.State = state
		if r := w.put(t, s); r != first {
			t.Errorf("%s made another check run", state)
		}
	}
	s.State = forge.StatusRunning
	if r := w.put(t, s); r == first {
		t.Error("a completed check run was reopened")
	}
	second := s
	second.Run, second.State, second.New = "run-2", forge.StatusFailed, true
	if r := w.put(t, second); r.ID == s.ID || w.repo.Check(sha, "ci/build").State() != "failure" {
		t.Error("the next run moved the check run of the former")
	}
	if r, found, err := w.FindStatus(t.Context(), s); found || err != nil || r.ID != "" {
		t.Errorf("a former run counts as shown: %+v, %v", r, err)
	}
	text, link := second, second
	text.Description, link.TargetURL = "another text", "https://ci.example/2"
	for _, other := range []forge.Status{text, link} {
		if r, found, err := w.FindStatus(t.Context(), other); found || err != nil || r.ID == "" {
			t.Errorf("another text or link counts as shown: %+v, %v", r, err)
		}
	}
}

// With a token a new run that says what the former said is told apart by the id of the former.
func TestStatus_sameTwice(t *testing.T) {
	w := tokenWorld(t)
	s := w.clients(w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true}).Head(), "run-1", forge.StatusSuccess)
	s.ID = w.put(t, s).ID
	s.Run, s.New = "run-2", true
	w.put(t, s)
	theirs := newClient(t, Options{Instance: "github", APIURL: w.url, Token: w.maintainer.Token})
	if _, err := theirs.WriteStatus(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if r, found, err := w.FindStatus(t.Context(), s); found || err != nil || r.ID != "" {
		t.Errorf("the newest is by somebody else, but counts as ours: %+v, %v", r, err)
	}
}

func TestStatus_texts(t *testing.T) {
	for name, w := range map[string]*world{"token": tokenWorld(t), "App": appWorld(t)} {
		for i, change := range []func(*forge.Status){
			func(s *forge.Status) { s.Description = strings.Repeat("ü", 400) },
			func(s *forge.Status) { s.Description = "" },
			func(s *forge.Status) { s.TargetURL = "" },
			func(s *forge.Status) { s.TargetURL = "javascript:alert(1)" },
			func(s *forge.Status) { s.TargetURL = "http://ci.example/" },
		} {
			t.Run(fmt.Sprint(name, i), func(t *testing.T) {
				s := w.clients(w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true}).Head(), "run-1", forge.StatusSuccess)
				change(&s)
				w.put(t, s)
			})
		}
	}
	for _, url := range []string{"", "http://ci.example/", "javascript:alert(1)", "//ci.example", "HTTPS"} {
		if got := link(url); got != "" {
			t.Errorf("link %q", got)
		}
	}
}

// What GitHub refuses, by class: the cap of statuses is for good.
func TestStatus_refused(t *testing.T) {
	token, app := tokenWorld(t), appWorld(t)
	for name, w := range map[string]*world{"token": token, "App": app} {
		s := w.clients("main", "run-1", forge.StatusSuccess)
		if _, err := w.WriteStatus(t.Context(), s); classOf(t, err) != forge.Permanent {
			t.Errorf("%s: write on a branch: %v", name, err)
		}
		if _, _, err := w.FindStatus(t.Context(), s); classOf(t, err) != forge.Permanent {
			t.Errorf("%s: find on a branch: %v", name, err)
		}
		s.SHA = strings.Repeat("a", 40)
		if _, err := w.WriteStatus(t.Context(), s); classOf(t, err) != forge.NotFound {
			t.Errorf("%s: a commit that GitHub does not show: %v", name, err)
		}
	}
	s := token.clients(token.repo.OpenPR(token.outsider, sandbox.PROptions{Fork: true}).Head(), "run-1", forge.StatusPending)
	for i := range 1000 {
		s.Description = fmt.Sprint(i)
		if _, err := token.WriteStatus(t.Context(), s); err != nil {
			t.Fatalf("status %d: %v", i, err)
		}
	}
	s.State = forge.StatusSuccess
	if _, err := token.WriteStatus(t.Context(), s); classOf(t, err) != forge.Permanent || !strings.Contains(err.Error(), "maximum number of statuses") {
		t.Errorf("the 1001st: %v", err)
	}
}
