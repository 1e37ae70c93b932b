package gitlab

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
)

func (w *world) clients(sha, run string, state forge.StatusState) forge.Status {
	return forge.Status{
		Repo: w.at(), SHA: sha, Ref: "branch-1", Context: "ci/build", State: state, Description: "says " + string(state), TargetURL: "https://ci.example/1", Run: run,
	}
}

// put writes a status and takes its receipt over, as the commit's subject does.
func (w *world) put(s *forge.Status) {
	w.t.Helper()
	made, err := w.c.WriteStatus(w.t.Context(), *s)
	if err != nil || made.ID == "" || made.PipelineID == 0 || s.PipelineID != 0 && made.PipelineID != s.PipelineID {
		w.t.Fatalf("write %s: %+v, %v", s.State, made, err)
	}
	s.ID, s.PipelineID, s.New = made.ID, made.PipelineID, false
	if r, found, err := w.c.FindStatus(w.t.Context(), *s); err != nil || !found || r != made {
		w.t.Errorf("%s is not found: %+v, %t, %v", s.State, r, found, err)
	}
}

func TestStatusRuns(t *testing.T) {
	w := newWorld(t)
	sha := w.repo.Open(w.maya, w.repo).Head()
	s := w.clients(sha, "run-1", forge.StatusPending)
	s.New = true
	if r, found, err := w.c.FindStatus(t.Context(), s); found || err != nil || r.ID != "" {
		t.Errorf("found before it was written: %+v, %v", r, err)
	}
	w.put(&s)
	first := s.ID
	for _, s.State = range []forge.StatusState{forge.StatusRunning, forge.StatusSkipped} {
		s.Description = "says " + string(s.State)
		w.put(&s)
	}
	if s.ID != first {
		t.Error("an update made another job")
	}
	// GitLab's jobs cannot be skipped once they run.
	if got := strings.Join(w.repo.Statuses(sha), ", "); got != "ci/build pending, ci/build running, ci/build canceled" {
		t.Errorf("statuses: %s", got)
	}
	// The next run is another job in the same pipeline, also where it says the same.
	s.Run, s.New = "run-2", true
	if _, found, err := w.c.FindStatus(t.Context(), s); found || err != nil {
		t.Errorf("the former run's job counts as the new one's: %v", err)
	}
	w.put(&s)
	if s.ID == first {
		t.Error("a new run moved the job of the former")
	}
	for _, change := range []func(*forge.Status){
		func(s *forge.Status) { s.State = forge.StatusFailed },
		func(s *forge.Status) { s.Description = "another text" },
		func(s *forge.Status) { s.TargetURL = "https://ci.example/2" },
		func(s *forge.Status) { s.Ref = "branch-2" },
		func(s *forge.Status) { s.Coverage = new(float64); *s.Coverage = 50 },
	} {
		other := s
		change(&other)
		if _, found, err := w.c.FindStatus(t.Context(), other); found || err != nil {
			t.Errorf("%+v counts as shown: %v", other, err)
		}
	}
}

// A job that refuses the state it has shows what is wanted; its receipt is read where it is not known.
func TestStatusTwice(t *testing.T) {
	w := newWorld(t)
	sha := w.repo.Open(w.maya, w.repo).Head()
	for _, state := range []forge.StatusState{forge.StatusPending, forge.StatusRunning} {
		s := w.clients(sha, "run-1", state)
		w.put(&s)
		w.put(&s)
		lost := w.clients(sha, "run-1", state)
		w.put(&lost)
		if lost.ID != s.ID {
			t.Errorf("%s: receipt %s, expected %s", state, lost.ID, s.ID)
		}
	}
	// A new run that begins before the former has ended takes its job over, which runs already.
	s := w.clients(sha, "run-2", forge.StatusPending)
	s.New = true
	if r, err := w.c.WriteStatus(t.Context(), s); err != nil || r.ID == "" {
		t.Errorf("%+v, %v", r, err)
	}
	if got := strings.Join(w.repo.Statuses(sha), ", "); got != "ci/build pending, ci/build running" {
		t.Errorf("statuses: %s", got)
	}
}

func TestStatusTexts(t *testing.T) {
	w := newWorld(t)
	for _, change := range []func(*forge.Status){
		func(s *forge.Status) { s.Description = strings.Repeat("ä", 400) },
		func(s *forge.Status) { s.Description, s.TargetURL = "", "" },
		func(s *forge.Status) { s.TargetURL = "javascript:alert(1)" },
		func(s *forge.Status) { s.TargetURL = "https://x.example/" + strings.Repeat("x", 300) },
	} {
		m := w.repo.Open(w.maya, w.repo)
		s := w.clients(m.Head(), "run-1", forge.StatusSuccess)
		s.Ref = ""
		change(&s)
		w.put(&s)
	}
	// What is left out is taken away, as far as GitLab lets it.
	s := w.clients(w.repo.Open(w.maya, w.repo).Head(), "run-1", forge.StatusRunning)
	s.Ref = ""
	w.put(&s)
	s.State, s.Description, s.TargetURL = forge.StatusSuccess, "", ""
	w.put(&s)
	if shown := w.repo.Shown(s.SHA); len(shown) != 1 || shown[0].Description != "" {
		t.Errorf("shown: %+v", shown)
	}
}

// answering is a GitLab that answers posts of a status with one refusal after the other, then takes them; it notes the
// bodies.
func answering(t *testing.T, refusals ...string) (c *Client, bodies func() []string) {
	t.Helper()
	var posted []string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v4/projects/7/statuses/{sha}", func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(b)
		if posted = append(posted, string(b)); len(posted) <= len(refusals) {
			status, message, _ := strings.Cut(refusals[len(posted)-1], " ")
			code := 0
			_, _ = fmt.Sscan(status, &code)
			w.WriteHeader(code)
			_, _ = fmt.Fprintf(w, `{"message":%q}`, message)
			return
		}
		w.WriteHeader(http.StatusCreated)
		_, _ = fmt.Fprint(w, `{"id":5,"pipeline_id":9}`)
	})
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)
	return client(t, api.URL, "glpat-x"), func() []string { return posted }
}

func TestStatusClasses(t *testing.T) {
	s := forge.Status{Repo: forge.Repo{ID: 7}, SHA: strings.Repeat("a", 40), Context: "ci/build", State: forge.StatusRunning, ID: "4", PipelineID: 3}
	for refusal, want := range map[string]forge.Class{
		"409 409 Conflict: Resource lock": forge.Contention,
		"429 Retry later":                 forge.Contention,
		"502 bad gateway":                 forge.Retriable,
		"401 401 Unauthorized":            forge.Auth,
		"403 403 Forbidden":               forge.Auth,
		"422 422 Unprocessable: The number of jobs has exceeded the limit":     forge.Permanent,
		"400 state does not have a valid value":                                forge.Permanent,
		"400 Cannot transition status via :run from :success (Reason(s): x)":   forge.Permanent,
		"400 Cannot transition status via :run from :pending (Reason(s): x)":   forge.Permanent,
		"500 Cannot transition status via :run from :running, says a stranger": forge.Retriable,
	} {
		c, posted := answering(t, refusal)
		if _, err := c.WriteStatus(t.Context(), s); classOf(t, err) != want || len(posted()) != 1 {
			t.Errorf("%s: %v, %d posts", refusal, err, len(posted()))
		}
	}
	// What is known of the job need not be read.
	c, _ := answering(t, "400 Cannot transition status via :run from :running (Reason(s): x)")
	if r, err := c.WriteStatus(t.Context(), s); err != nil || r != (forge.StatusReceipt{ID: "4", PipelineID: 3}) {
		t.Errorf("%+v, %v", r, err)
	}
	c, _ = answering(t, "404 404 References for commit Not Found")
	s.PipelineID = 0
	if _, err := c.WriteStatus(t.Context(), s); classOf(t, err) != forge.NotFound {
		t.Errorf("replica lag: %v", err)
	}
	s.SHA = "main"
	if _, err := c.WriteStatus(t.Context(), s); classOf(t, err) != forge.Permanent {
		t.Errorf("write on a branch: %v", err)
	}
	if _, _, err := c.FindStatus(t.Context(), s); classOf(t, err) != forge.Permanent {
		t.Errorf("find on a branch: %v", err)
	}
}

// A pipeline of a receipt that is gone is forgotten; one that the client named is not exchanged for another.
func TestStatusWithoutItsPipeline(t *testing.T) {
	s := forge.Status{Repo: forge.Repo{ID: 7}, SHA: strings.Repeat("a", 40), Ref: "main", Context: "ci/build", State: forge.StatusRunning, PipelineID: 3}
	c, posted := answering(t, "404 404 Pipeline Not Found")
	if _, err := c.WriteStatus(t.Context(), s); classOf(t, err) != forge.NotFound || len(posted()) != 1 {
		t.Errorf("the client's: %v, %q", err, posted())
	}
	s.ID = "4"
	c, posted = answering(t, "404 404 Pipeline Not Found")
	r, err := c.WriteStatus(t.Context(), s)
	if err != nil || r != (forge.StatusReceipt{ID: "5", PipelineID: 9}) {
		t.Errorf("%+v, %v", r, err)
	}
	has := func(part string) (in []bool) {
		for _, p := range posted() {
			in = append(in, strings.Contains(p, part))
		}
		return in
	}
	if !slices.Equal(has(`"pipeline_id":3`), []bool{true, false}) || !slices.Equal(has(`"ref":"main"`), []bool{true, true}) {
		t.Errorf("posted %q", posted())
	}
}

// Whoever may not push or merge to a protected branch sets no statuses there, and is told why.
func TestStatusOnAProtectedBranch(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.maya, w.repo)
	w.repo.Protect("branch-1")
	_, err := w.c.WriteStatus(t.Context(), w.clients(m.Head(), "run-1", forge.StatusSuccess))
	_, gate := w.c.WriteCheck(t.Context(), w.check(m, forge.CheckSuccess, "fine"))
	for _, err := range []error{err, gate} {
		if classOf(t, err) != forge.Auth || !strings.Contains(err.Error(), "403 Forbidden") || !strings.Contains(err.Error(), "protected branch") {
			t.Errorf("%v", err)
		}
	}
	w.repo.SetMember(w.bot, gitlabsandbox.Maintainer)
	w.write(w.check(m, forge.CheckSuccess, "fine"))
}

// The statuses of another account are neither found nor moved.
func TestStatusOfAnother(t *testing.T) {
	w := newWorld(t)
	other := w.forge.AddUser("project_1_bot_cd", true)
	w.repo.SetMember(other, gitlabsandbox.Developer)
	s := w.clients(w.repo.Open(w.maya, w.repo).Head(), "run-1", forge.StatusRunning)
	w.put(&s)
	theirs := &world{t: t, forge: w.forge, repo: w.repo, c: client(t, w.url, other.Token)}
	t2 := w.clients(s.SHA, "run-1", forge.StatusRunning)
	if _, found, err := theirs.c.FindStatus(t.Context(), t2); found || err != nil {
		t.Errorf("found %v", err)
	}
	theirs.put(&t2)
	if t2.ID == s.ID {
		t.Error("the other's job was moved")
	}
}
