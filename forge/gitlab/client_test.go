package gitlab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/repair"
)

// world is a GitLab and our client of it.
type world struct {
	t                         *testing.T
	ahead                     atomic.Int64
	forge                     *gitlabsandbox.Forge
	repo, fork                *gitlabsandbox.Project
	bot, maya, mallory, guest *gitlabsandbox.User
	c                         *Client
	url                       string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	w.forge = gitlabsandbox.New(func() time.Time { return noon.Add(time.Duration(w.ahead.Load())) })
	api := httptest.NewServer(w.forge.Handler())
	t.Cleanup(api.Close)
	w.bot, w.maya = w.forge.AddUser("project_1_bot_ab", true), w.forge.AddUser("maya", false)
	w.mallory, w.guest = w.forge.AddUser("mallory", false), w.forge.AddUser("guest", false)
	w.repo = w.forge.AddProject("octo/hello", map[*gitlabsandbox.User]int{
		w.bot: gitlabsandbox.Developer, w.maya: gitlabsandbox.Developer, w.guest: gitlabsandbox.Reporter,
	})
	w.fork = w.forge.AddProject("mallory/hello", nil)
	w.url, w.c = api.URL, client(t, api.URL, w.bot.Token)
	return w
}

func client(t *testing.T, url, token string) *Client {
	t.Helper()
	c, err := New(Options{Instance: "gitlab", URL: url, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (w *world) at() forge.Repo {
	return forge.Repo{Instance: "gitlab", ID: w.repo.ID, Name: w.repo.Path}
}
func (w *world) ref(m *gitlabsandbox.Merge) forge.Ref { return forge.Ref{Repo: w.at(), Number: m.IID} }

func (w *world) head(m *gitlabsandbox.Merge, source *gitlabsandbox.Project) forge.Branch {
	return forge.Branch{SHA: m.Head(), Name: fmt.Sprintf("branch-%d", m.IID), RepoID: source.ID}
}

func (w *world) check(m *gitlabsandbox.Merge, s forge.CheckState, title string) forge.Check {
	return forge.Check{Repo: w.at(), SHA: m.Head(), Name: "CI gate", State: s, Title: title, Pulls: []int{m.IID}}
}

func (w *world) run(m *gitlabsandbox.Merge, source *gitlabsandbox.Project) forge.Run {
	return forge.Run{Key: "sb1-x", Ref: w.ref(m), SHA: m.Head(), HeadRepoID: source.ID}
}

func (w *world) write(c forge.Check) {
	w.t.Helper()
	if id, err := w.c.WriteCheck(w.t.Context(), c); err != nil || id != "" {
		w.t.Fatalf("write %s: %q %v", c.State, id, err)
	}
	if _, found, err := w.c.FindCheck(w.t.Context(), c); err != nil || !found {
		w.t.Fatalf("find %s: %v %v", c.State, found, err)
	}
}

func actorOf(u *gitlabsandbox.User) forge.Actor { return actor(u.ID, u.Login) }

// class is the class of an error that must be a Fault.
func classOf(t *testing.T, err error) forge.Class {
	t.Helper()
	var f *forge.Fault
	if !errors.As(err, &f) {
		t.Fatalf("%v is no fault", err)
	}
	return f.Class
}

func TestPull(t *testing.T) {
	w := newWorld(t)
	w.ahead.Store(int64(1234 * time.Millisecond))
	m := w.repo.Open(w.mallory, w.fork, "bug")
	got, err := w.c.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: w.repo.Path}, Number: m.IID})
	if err != nil {
		t.Fatal(err)
	}
	want := forge.Pull{
		Ref: w.ref(m), Open: true, Author: forge.Actor{ID: w.mallory.ID, Login: "mallory"},
		Head: forge.Branch{SHA: m.Head(), Name: "branch-1", RepoID: w.fork.ID}, Base: forge.Branch{SHA: strings.Repeat("b", 40), Name: "main", RepoID: w.repo.ID},
		UpdatedAt: noon.Add(time.Second),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	m.Merge(w.maya)
	if got, err := w.c.Pull(t.Context(), w.ref(m)); err != nil || got.Open || !got.Merged {
		t.Errorf("merged: %+v %v", got, err)
	}
	other := w.ref(m)
	other.Repo.ID, other.Repo.Name = 0, "octo/none"
	if _, err := w.c.Pull(t.Context(), other); classOf(t, err) != forge.NotFound {
		t.Errorf("another project: %v", err)
	}
	if _, err := w.c.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: "../x"}, Number: 1}); classOf(t, err) != forge.Permanent {
		t.Errorf("no project: %v", err)
	}
}

// scripted is a GitLab that answers each path, with its method, with one text.
func scripted(t *testing.T, answers map[string]string) *Client {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, answer := range answers {
		mux.HandleFunc(strings.Replace(pattern, " ", " /api/v4", 1), func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, answer) })
	}
	api := httptest.NewServer(mux)
	t.Cleanup(api.Close)
	return client(t, api.URL, "glpat-x")
}

// Older servers say "bot" of nobody; service accounts may be called anything.
func TestSelf(t *testing.T) {
	for answer, want := range map[string]bool{
		`{"id":1,"username":"project_1_bot_ab"}`: true, `{"id":1,"username":"renovate","bot":true}`: true, `{"id":1,"username":"maya","bot":false}`: false,
	} {
		me, bot, err := scripted(t, map[string]string{"GET /user": answer}).Self(t.Context())
		if err != nil || bot != want || me.Bot != want || me.ID != 1 {
			t.Errorf("%s: %+v, %t, %v", answer, me, bot, err)
		}
	}
	if _, _, err := scripted(t, map[string]string{"GET /user": `{}`}).Self(t.Context()); classOf(t, err) != forge.Retriable {
		t.Errorf("nobody: %v", err)
	}
}

// The newest counts, in whatever order they come.
func TestNewestStatus(t *testing.T) {
	sha := strings.Repeat("a", 40)
	one := func(id int) string {
		return fmt.Sprintf(`{"id":%d,"status":"success","name":"ci","pipeline_id":%d,"author":{"id":1}}`, id, 100+id)
	}
	for _, list := range []string{one(5) + "," + one(9), one(9) + "," + one(5)} {
		c := scripted(t, map[string]string{
			"GET /user": `{"id":1,"username":"bot"}`, "GET /projects/7/repository/commits/" + sha + "/statuses": "[" + list + "]",
		})
		r, _, err := c.FindStatus(t.Context(), forge.Status{Repo: forge.Repo{ID: 7}, SHA: sha, Context: "ci", State: forge.StatusSuccess})
		if err != nil || r != (forge.StatusReceipt{ID: "9", PipelineID: 109}) {
			t.Errorf("%s: %+v, %v", list, r, err)
		}
	}
}

func TestIsOpen(t *testing.T) {
	for state, want := range map[string]bool{"opened": true, "locked": true, "closed": false, "merged": false, "": false} {
		if isOpen(state) != want {
			t.Errorf("%q is open: %t", state, !want)
		}
	}
}

// Where GitLab does not count its pages, the newest label events are out of reach.
func TestLabelHistoryWithoutAnEnd(t *testing.T) {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Next-Page", "2")
		_, _ = fmt.Fprint(w, `[]`)
	}))
	t.Cleanup(api.Close)
	if _, err := client(t, api.URL, "glpat-x").LabelHistory(t.Context(), forge.Ref{Repo: forge.Repo{ID: 7}, Number: 1}); classOf(t, err) != forge.Permanent {
		t.Errorf("%v", err)
	}
}

func TestLabelHistoryReadsTheNewest(t *testing.T) {
	for _, n := range []int{0, 1, 100, 101, 149, 150, 420} {
		w := newWorld(t)
		m := w.repo.Open(w.mallory, w.fork)
		for i := range n {
			if i%2 == 0 {
				m.Label(w.maya, "CICD")
			} else {
				m.Unlabel(w.guest, "CICD")
			}
		}
		w.forge.Calls()
		got, err := w.c.LabelHistory(t.Context(), w.ref(m))
		if err != nil {
			t.Fatal(err)
		}
		calls := len(w.forge.Calls())
		if len(got) < min(n, 50) || calls > 3 || n <= 100 && calls != 1 {
			t.Errorf("%d events: %d read with %d calls", n, len(got), calls)
		}
		if !slices.IsSortedFunc(got, func(a, b forge.LabelEntry) int { return int(a.ID - b.ID) }) {
			t.Errorf("%d events: not oldest first", n)
		}
		if newest := got[max(0, len(got)-50):]; len(newest) > 0 && newest[len(newest)-1].ID-newest[0].ID != int64(len(newest)-1) {
			t.Errorf("%d events: some of the newest are missing", n)
		}
		if n > 0 {
			last := got[len(got)-1]
			if last.Added != (n%2 == 1) || last.Label != "CICD" || last.Actor.ID != map[bool]int64{true: w.maya.ID, false: w.guest.ID}[n%2 == 1] {
				t.Errorf("%d events: the newest is %+v", n, last)
			}
		}
	}
}

func TestTrusted(t *testing.T) {
	w := newWorld(t)
	gone, blocked, renamed := w.forge.AddUser("gone", false), w.forge.AddUser("blocked", false), w.forge.AddUser("renamed", false)
	otherBot := w.forge.AddUser("project_9_bot_cd", true)
	w.repo.SetMember(blocked, gitlabsandbox.Maintainer)
	w.repo.SetMember(otherBot, gitlabsandbox.Maintainer)
	blocked.State = "blocked"
	past, future := w.forge.AddUser("past", false), w.forge.AddUser("future", false)
	past.Until, future.Until = "2000-01-01", "2999-01-01"
	w.repo.SetMember(past, gitlabsandbox.Developer)
	w.repo.SetMember(future, gitlabsandbox.Developer)
	lead := w.forge.AddUser("lead", false)
	w.repo.SetMember(lead, gitlabsandbox.Maintainer)
	write, maintain := forge.Rule{Kind: "permission", Value: "write"}, forge.Rule{Kind: "permission", Value: "maintain"}
	user := func(login string) forge.Rule { return forge.Rule{Kind: "user", Value: login} }
	for _, c := range []struct {
		who  forge.Actor
		rule forge.Rule
		want bool
	}{
		{actorOf(w.maya), write, true},
		{actorOf(w.maya), maintain, false},
		{actorOf(lead), maintain, true},
		{actorOf(w.guest), write, false},
		{actorOf(w.mallory), write, false},
		{actorOf(gone), write, false},
		{actorOf(blocked), write, false},
		{actorOf(past), write, false}, // the membership has ended and is not removed yet
		{actorOf(future), write, true},
		{actorOf(otherBot), write, false},
		{forge.Actor{ID: otherBot.ID}, write, false}, // a payload that told no login
		{actorOf(otherBot), user(otherBot.Login), true},
		{forge.Actor{}, write, false},
		{forge.Actor{Login: "maya"}, write, false},
		{actorOf(w.mallory), user("Mallory"), true},
		{actorOf(w.mallory), user("maya"), false},
		{forge.Actor{ID: renamed.ID, Login: "maya"}, user("maya"), false}, // the login is another's
		{actorOf(blocked), user("blocked"), false},
		{actorOf(w.maya), forge.Rule{Kind: "app", Value: "maya"}, false},
	} {
		if got, err := w.c.Trusted(t.Context(), w.at(), c.who, c.rule); err != nil || got != c.want {
			t.Errorf("%s by %s: %v %v", c.who.Login, c.rule, got, err)
		}
	}
	w.forge.Fail("GET /projects/{id}/members/all/{user}", 1)
	if _, err := w.c.Trusted(t.Context(), w.at(), actorOf(w.maya), write); classOf(t, err) != forge.Retriable {
		t.Errorf("a failure is an answer: %v", err)
	}
	if _, err := w.c.Trusted(t.Context(), w.at(), actorOf(w.maya), forge.Rule{Kind: "permission", Value: "read"}); classOf(t, err) != forge.Permanent {
		t.Errorf("unknown permission: %v", err)
	}
}

// A team is a group by its path, however deep; members of those above it are members too.
func TestTrustedTeam(t *testing.T) {
	w := newWorld(t)
	blocked, otherBot := w.forge.AddUser("blocked", false), w.forge.AddUser("project_9_bot_cd", true)
	blocked.State = "blocked"
	w.forge.AddGroup("octo", map[*gitlabsandbox.User]int{w.maya: gitlabsandbox.Maintainer})
	past := w.forge.AddUser("past", false)
	past.Until = "2000-01-01"
	w.forge.AddGroup("octo/crew", map[*gitlabsandbox.User]int{past: gitlabsandbox.Developer, w.guest: gitlabsandbox.Guest, blocked: gitlabsandbox.Developer, otherBot: gitlabsandbox.Developer})
	w.forge.AddGroup("octo/crew/deep.er-1", nil)
	for _, c := range []struct {
		who   *gitlabsandbox.User
		group string
		want  bool
	}{
		{w.maya, "octo", true},
		{w.maya, "octo/crew", true},
		{w.maya, "octo/crew/deep.er-1", true},
		{w.guest, "octo/crew", true},
		{w.guest, "octo/crew/deep.er-1", true},
		{w.guest, "octo", false},
		{w.mallory, "octo/crew", false},
		{blocked, "octo/crew", false},
		{past, "octo/crew", false},
		{otherBot, "octo/crew", false},
		{w.maya, "octo/none", false},
	} {
		if got, err := w.c.Trusted(t.Context(), w.at(), actorOf(c.who), forge.Rule{Kind: "team", Value: c.group}); err != nil || got != c.want {
			t.Errorf("%s in %s: %t %v", c.who.Login, c.group, got, err)
		}
	}
	nameless := forge.Actor{ID: otherBot.ID} // a payload that told no login
	if got, err := w.c.Trusted(t.Context(), w.at(), nameless, forge.Rule{Kind: "team", Value: "octo/crew"}); err != nil || got {
		t.Errorf("a bot in octo/crew: %t %v", got, err)
	}
	for _, group := range []string{"", "../octo", "octo/../x", "octo/", "octo crew", "octo/crew?x"} {
		if _, err := w.c.Trusted(t.Context(), w.at(), actorOf(w.maya), forge.Rule{Kind: "team", Value: group}); classOf(t, err) != forge.Permanent {
			t.Errorf("group %q: %v", group, err)
		}
	}
	w.forge.Fail("GET /groups/{group}/members/all/{user}", 1)
	if _, err := w.c.Trusted(t.Context(), w.at(), actorOf(w.maya), forge.Rule{Kind: "team", Value: "octo"}); classOf(t, err) != forge.Retriable {
		t.Errorf("a failure is an answer: %v", err)
	}
}

func TestSetLabel(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork, "bug")
	for _, present := range []bool{true, true, false, false} {
		if err := w.c.SetLabel(t.Context(), w.ref(m), "CICD", present); err != nil {
			t.Fatal(err)
		}
		if slices.Contains(m.Labels(), "CICD") != present || !slices.Contains(m.Labels(), "bug") {
			t.Errorf("present %t: %q", present, m.Labels())
		}
	}
	none := forge.Ref{Repo: w.at(), Number: 99}
	if err := w.c.SetLabel(t.Context(), none, "CICD", false); err != nil {
		t.Errorf("remove where nothing is: %v", err)
	}
	if err := w.c.SetLabel(t.Context(), none, "CICD", true); classOf(t, err) != forge.NotFound {
		t.Errorf("add where nothing is: %v", err)
	}
	if err := w.c.SetLabel(t.Context(), w.ref(m), "a,b", true); classOf(t, err) != forge.Permanent {
		t.Errorf("two labels: %v", err)
	}
}

func TestStatusOfTheSameProject(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.maya, w.repo)
	for _, s := range []forge.CheckState{forge.CheckActionRequired, forge.CheckSuccess, forge.CheckActionRequired, forge.CheckCancelled, forge.CheckActionRequired} {
		w.write(w.check(m, s, "text"))
		w.write(w.check(m, s, "text")) // no second post
	}
	got := strings.Join(w.repo.Statuses(m.Head()), ", ")
	if want := "CI gate pending, CI gate success, CI gate pending, CI gate canceled, CI gate pending"; got != want {
		t.Errorf("statuses: %s", got)
	}
	if n := len(m.Notes()); n != 0 {
		t.Errorf("%d notes", n)
	}
	// Only the text changes: GitLab refuses the same state twice, which is as good.
	if _, err := w.c.WriteCheck(t.Context(), w.check(m, forge.CheckActionRequired, "another text")); err != nil {
		t.Errorf("same state: %v", err)
	}
	// One pipeline for all of them.
	list, err := w.c.newestStatus(t.Context(), places{pid: w.repo.ID, me: w.bot.ID}, m.Head(), "CI gate", "")
	if err != nil || list == nil || list.Ref != "branch-1" {
		t.Errorf("status: %+v %v", list, err)
	}
	w.forge.LockCommit(m.Head(), 1)
	_, err = w.c.WriteCheck(t.Context(), w.check(m, forge.CheckSuccess, "open"))
	if classOf(t, err) != forge.Contention {
		t.Errorf("lock: %v", err)
	}
	w.write(w.check(m, forge.CheckSuccess, "open"))
	long := w.check(m, forge.CheckCancelled, strings.Repeat("ä", 300))
	long.URL = "https://x.example/" + strings.Repeat("x", 300)
	w.write(long)
}

// The gate's status stays in one pipeline, where it would otherwise be left pending, for as long as that takes any.
func TestStatusStaysInItsPipeline(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.maya, w.repo)
	other := w.forge.AddUser("project_1_bot_cd", true)
	w.repo.SetMember(other, gitlabsandbox.Developer)
	shown := func(want string) {
		t.Helper()
		var got []string
		for _, s := range w.repo.Shown(m.Head()) {
			if s.By == w.bot.Login {
				got = append(got, s.State)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("shown: %q, expected %s", got, want)
		}
	}
	w.write(w.check(m, forge.CheckActionRequired, "waits"))
	w.repo.LimitPipelines(1)
	theirs := &world{t: t, forge: w.forge, repo: w.repo, c: client(t, w.url, other.Token)}
	s := w.clients(m.Head(), "run-1", forge.StatusRunning)
	theirs.put(&s)
	w.repo.LimitPipelines(1000)
	w.write(w.check(m, forge.CheckSuccess, "fine"))
	shown("success")
	w.repo.ArchivePipelines()
	w.write(w.check(m, forge.CheckActionRequired, "waits again"))
	shown("success pending")
}

// The head of a merge request is there, whatever a replica says; a former head may be gone.
func TestStatusOfACommitThatIsNotSeen(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.maya, w.repo)
	former := w.check(m, forge.CheckCancelled, "over")
	m.Push(w.maya)
	w.forge.LagReplicas(time.Minute)
	present := w.check(m, forge.CheckSuccess, "fine")
	for c, want := range map[*forge.Check]forge.Class{&former: forge.NotFound, &present: forge.Retriable} {
		if _, err := w.c.WriteCheck(t.Context(), *c); classOf(t, err) != want {
			t.Errorf("%s: %v", c.Title, err)
		}
		if _, _, err := w.c.FindCheck(t.Context(), *c); classOf(t, err) != want {
			t.Errorf("find %s: %v", c.Title, err)
		}
	}
}

func TestNoteOnAFork(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork)
	m.Comment(w.mallory, marker("CI gate")+"**CI gate** · success") // whoever copies the marker
	old := w.check(m, forge.CheckSuccess, "Approved by @maya for abc")
	w.write(w.check(m, forge.CheckActionRequired, "Awaiting CICD label"))
	w.write(old)
	part := w.check(m, forge.CheckQueued, "queued")
	part.Name, part.Part = "presubmit / unit", true
	w.write(part)
	notes := m.Notes()
	if len(notes) != 2 || notes[1].By != w.bot.Login || strings.Contains(notes[1].Body, "@maya") || !strings.Contains(notes[1].Body, "Approved by") {
		t.Fatalf("notes: %+v", notes)
	}
	if s := w.repo.Statuses(m.Head()); len(s) != 0 {
		t.Errorf("statuses: %q", s)
	}
	m.Push(w.mallory)
	w.write(w.check(m, forge.CheckActionRequired, "Awaiting again"))
	old.State, old.Title = forge.CheckCancelled, "No head of an open pull request"
	w.write(old) // the former head says good-bye too late
	if n := m.Notes(); len(n) != 2 || !strings.Contains(n[1].Body, "Awaiting again") {
		t.Errorf("notes: %+v", n)
	}
	for range 150 {
		m.Comment(w.mallory, "chat")
	}
	w.write(w.check(m, forge.CheckSuccess, "Approved"))
	if n := m.Notes(); len(n) != 152 {
		t.Errorf("%d notes", len(n))
	}
	m.Close(w.mallory)
	w.write(w.check(m, forge.CheckCancelled, "Closed"))
	if n := m.Notes()[1].Body; !strings.Contains(n, "Closed") {
		t.Errorf("note: %q", n)
	}
}

// What others say is never an order in our name: GitLab obeys lines of a note that begin with a slash.
func TestNoteOrdersNothing(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork)
	for _, text := range []string{"/merge", "fine\n/close", "  /merge", "\t/close", "fine\n\r/merge"} {
		c := w.check(m, forge.CheckFailure, text)
		w.write(c)
		c.Title, c.Summary = "failed", text
		w.write(c)
	}
	if p, err := w.c.Pull(t.Context(), w.ref(m)); err != nil || !p.Open {
		t.Errorf("%+v, %v", p, err)
	}
	for _, n := range m.Notes() {
		if strings.Contains(n.Body, "\n/") {
			t.Errorf("%q", n.Body)
		}
	}
}

func TestPipeline(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork)
	p, run := w.c.Pipeline(), w.run(m, w.fork)
	if _, found, err := p.Find(t.Context(), run); found || err != nil {
		t.Fatalf("found %v %v", found, err)
	}
	first, err := p.Start(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if got, found, err := p.Find(t.Context(), run); !found || err != nil || got != first || first.ID == "" || first.URL == "" {
		t.Errorf("find: %+v %v %v, want %+v", got, found, err, first)
	}
	m.Pipelines()[0].Become("running")
	if s, err := p.State(t.Context(), run, first); err != nil || s.State != forge.CheckRunning {
		t.Errorf("state %+v %v", s, err)
	}
	if err := p.Cancel(t.Context(), run, forge.Receipt{}); err != nil || m.Pipelines()[0].Status() != "canceled" {
		t.Errorf("cancel: %v, %s", err, m.Pipelines()[0].Status())
	}
	if err := p.Cancel(t.Context(), run, first); err != nil {
		t.Errorf("cancel again: %v", err)
	}
	if err := p.Cancel(t.Context(), run, forge.Receipt{ID: "4711"}); err != nil {
		t.Errorf("cancel what is gone: %v", err)
	}
	if _, found, _ := p.Find(t.Context(), run); found {
		t.Error("a cancelled one was found")
	}
	asked := noon.Add(time.Minute)
	w.ahead.Store(int64(2 * time.Minute))
	for range 2 {
		if err := p.Rerun(t.Context(), run, asked); err != nil || len(m.Pipelines()) != 2 {
			t.Errorf("again: %v, %d pipelines", err, len(m.Pipelines()))
		}
	}
	// Somebody else's merge request at another head is none of ours.
	other := w.repo.Open(w.mallory, w.fork)
	if s, err := p.State(t.Context(), w.run(other, w.fork), forge.Receipt{}); err != nil || s.State != "" {
		t.Errorf("another's: %+v %v", s, err)
	}
}

// What each status of a pipeline means: for the gate, for what is to be cancelled, for what is to be found again.
func TestPipelineStatuses(t *testing.T) {
	for status, want := range map[string]struct {
		state        forge.CheckState
		ended, found bool
	}{
		"created": {forge.CheckQueued, false, true}, "waiting_for_resource": {forge.CheckQueued, false, true}, "preparing": {forge.CheckQueued, false, true},
		"pending": {forge.CheckQueued, false, true}, "scheduled": {forge.CheckQueued, false, true}, "manual": {forge.CheckQueued, true, true},
		"running": {forge.CheckRunning, false, true}, "canceling": {forge.CheckRunning, true, false},
		"success": {forge.CheckSuccess, true, true}, "failed": {forge.CheckFailure, true, true}, "skipped": {forge.CheckFailure, true, true},
		"canceled": {forge.CheckCancelled, true, false},
	} {
		w := newWorld(t)
		m := w.repo.Open(w.mallory, w.fork)
		p, run := w.c.Pipeline(), w.run(m, w.fork)
		r, err := p.Start(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		m.Pipelines()[0].Become(status)
		s, err := p.State(t.Context(), run, r)
		if err != nil || s.State != want.state {
			t.Errorf("%s is %s, %v", status, s.State, err)
		}
		if _, found, err := p.Find(t.Context(), run); err != nil || found != want.found {
			t.Errorf("%s: found %t, %v", status, found, err)
		}
		if ended(status) != want.ended {
			t.Errorf("%s: ended is not %t", status, want.ended)
		}
	}
	c := scripted(t, map[string]string{"POST /projects/7/merge_requests/1/pipelines": `{"id":5}`})
	run := forge.Run{Ref: forge.Ref{Repo: forge.Repo{ID: 7}, Number: 1}, SHA: strings.Repeat("a", 40)}
	if _, err := c.Pipeline().Start(t.Context(), run); classOf(t, err) != forge.Retriable {
		t.Errorf("an answer without a commit: %v", err)
	}
}

func TestPipelineT33(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork)
	run := w.run(m, w.fork)
	w.forge.BeforePipeline(func() { m.Push(w.mallory) })
	_, err := w.c.Pipeline().Start(t.Context(), run)
	if classOf(t, err) != forge.Permanent || !strings.Contains(err.Error(), "was cancelled after") {
		t.Errorf("start: %v", err)
	}
	if got := m.Pipelines(); len(got) != 1 || got[0].SHA() == run.SHA || got[0].Status() != "canceled" {
		t.Errorf("pipelines: %d", len(got))
	}
	// The cancel fails once, then every time.
	for failures, want := range map[int]string{1: "was cancelled after", 2 * cancelTries: "CANNOT BE CANCELLED"} {
		run := w.run(m, w.fork)
		w.forge.BeforePipeline(func() { m.Push(w.mallory) })
		w.forge.Fail("POST /projects/{id}/pipelines/{pipeline}/cancel", failures)
		if _, err := w.c.Pipeline().Start(t.Context(), run); classOf(t, err) != forge.Permanent || !strings.Contains(err.Error(), want) {
			t.Errorf("%d failures: %v", failures, err)
		}
	}
}

// What we may not cancel is not done: it is tried again, and a person hears of it.
func TestPipelineNotOursToCancel(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork)
	r, err := w.c.Pipeline().Start(t.Context(), w.run(m, w.fork))
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"maintainer", "no_one"} {
		w.repo.Set("ci_restrict_pipeline_cancellation_role", role)
		if err := w.c.Pipeline().Cancel(t.Context(), w.run(m, w.fork), r); classOf(t, err) != forge.Auth {
			t.Errorf("%s: %v", role, err)
		}
	}
}

// Where pipelines of forks may not run in the project, GitLab starts them in the fork, if we may.
func TestPipelineInTheFork(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.mallory, w.fork)
	w.repo.Set("ci_allow_fork_pipelines_to_run_in_parent_project", false)
	_, err := w.c.Pipeline().Start(t.Context(), w.run(m, w.fork))
	if classOf(t, err) != forge.Permanent || !strings.Contains(err.Error(), "Insufficient permissions") || len(m.Pipelines()) > 0 {
		t.Errorf("no right in the fork: %v", err)
	}
	w.fork.SetMember(w.bot, gitlabsandbox.Developer)
	_, err = w.c.Pipeline().Start(t.Context(), w.run(m, w.fork))
	if classOf(t, err) != forge.Permanent || !strings.Contains(err.Error(), fmt.Sprintf("of project %d, which nobody approved; it was cancelled", w.fork.ID)) {
		t.Errorf("in the fork: %v", err)
	}
	if got := m.Pipelines(); len(got) != 1 || got[0].Status() != "canceled" {
		t.Errorf("%d pipelines", len(got))
	}
}

// A server that knows none of the filters and whose cancel does nothing.
func TestPipelineOnACarelessServer(t *testing.T) {
	sha := strings.Repeat("a", 40)
	pipeline := func(id int, sha, ref string, project int) string {
		return fmt.Sprintf(`{"id":%d,"sha":%q,"ref":%q,"project_id":%d,"status":"running","created_at":"2026-08-03T12:00:00Z"}`, id, sha, ref, project)
	}
	var cancelled atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v4/user", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"id":1,"username":"bot"}`) })
	mux.HandleFunc("GET /api/v4/projects/7/pipelines", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(w, "[%s,%s,%s,%s]", pipeline(4, sha, "refs/merge-requests/9/head", 7), pipeline(3, sha, "refs/merge-requests/1/head", 8),
			pipeline(2, strings.Repeat("b", 40), "refs/merge-requests/1/head", 7), pipeline(1, sha, "refs/merge-requests/1/head", 7))
	})
	mux.HandleFunc("POST /api/v4/projects/7/pipelines/{id}/cancel", func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "1" {
			cancelled.Add(1)
		}
		_, _ = fmt.Fprint(w, pipeline(1, sha, "x", 7))
	})
	mux.HandleFunc("GET /api/v4/projects/7/pipelines/1", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, pipeline(1, sha, "x", 7)) })
	api := httptest.NewServer(mux)
	defer api.Close()
	p := client(t, api.URL, "glpat-x").Pipeline()
	run := forge.Run{Key: "sb1-x", Ref: forge.Ref{Repo: forge.Repo{ID: 7}, Number: 1}, SHA: sha, HeadRepoID: 8}
	if got, found, err := p.Find(t.Context(), run); err != nil || !found || got.ID != "1" {
		t.Errorf("find: %+v %v %v", got, found, err)
	}
	if err := p.Cancel(t.Context(), run, forge.Receipt{}); err == nil || classOf(t, err) != forge.Retriable || cancelled.Load() != 1 {
		t.Errorf("a pipeline that goes on counts as cancelled: %v, %d cancels", err, cancelled.Load())
	}
}

func TestPipelineOfTheSameProjectIsFound(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.maya, w.repo)
	run := w.run(m, w.repo)
	first, err := w.c.Pipeline().Start(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := w.c.Pipeline().Start(t.Context(), run); err != nil || again != first || len(m.Pipelines()) != 1 {
		t.Errorf("%+v %v, %d pipelines", again, err, len(m.Pipelines()))
	}
}

func TestBudget(t *testing.T) {
	w := newWorld(t)
	same, forked := w.repo.Open(w.maya, w.repo), w.repo.Open(w.mallory, w.fork)
	if _, bot, err := w.c.Self(t.Context()); err != nil || !bot {
		t.Fatalf("self: %v %v", bot, err)
	}
	ctx := t.Context()
	for _, c := range []struct {
		what  string
		calls int
		do    func() error
	}{
		{"self again", 0 + 1, func() error { _, _, err := w.c.Self(ctx); return err }},
		{"pull", 1, func() error { _, err := w.c.Pull(ctx, w.ref(same)); return err }},
		{"history", 1, func() error { _, err := w.c.LabelHistory(ctx, w.ref(same)); return err }},
		{"pushed", 1, func() error { _, err := w.c.Pushed(ctx, w.head(forked, w.fork), actorOf(w.mallory)); return err }},
		{"permission", 1, func() error {
			_, err := w.c.Trusted(ctx, w.at(), actorOf(w.maya), forge.Rule{Kind: "permission", Value: "write"})
			return err
		}},
		{"bot", 0, func() error {
			_, err := w.c.Trusted(ctx, w.at(), actorOf(w.bot), forge.Rule{Kind: "permission", Value: "write"})
			return err
		}},
		{"nobody", 0, func() error {
			_, err := w.c.Trusted(ctx, w.at(), forge.Actor{Login: "maya"}, forge.Rule{Kind: "permission", Value: "write"})
			return err
		}},
		{"label", 1, func() error { return w.c.SetLabel(ctx, w.ref(same), "CICD", true) }},
		{"status", 3, func() error { _, err := w.c.WriteCheck(ctx, w.check(same, forge.CheckSuccess, "x")); return err }},
		{"status as it is", 2, func() error { _, err := w.c.WriteCheck(ctx, w.check(same, forge.CheckSuccess, "x")); return err }},
		{"find status", 2, func() error { _, _, err := w.c.FindCheck(ctx, w.check(same, forge.CheckSuccess, "x")); return err }},
		{"client's status", 1, func() error {
			_, err := w.c.WriteStatus(ctx, w.clients(same.Head(), "run-1", forge.StatusRunning))
			return err
		}},
		{"client's status that its job refuses", 2, func() error {
			_, err := w.c.WriteStatus(ctx, w.clients(same.Head(), "run-1", forge.StatusRunning))
			return err
		}},
		{"find client's status", 1, func() error {
			_, _, err := w.c.FindStatus(ctx, w.clients(same.Head(), "run-1", forge.StatusRunning))
			return err
		}},
		{"note", 3, func() error { _, err := w.c.WriteCheck(ctx, w.check(forked, forge.CheckSuccess, "x")); return err }},
		{"start", 1, func() error { _, err := w.c.Pipeline().Start(ctx, w.run(forked, w.fork)); return err }},
		{"find pipeline", 1, func() error { _, _, err := w.c.Pipeline().Find(ctx, w.run(forked, w.fork)); return err }},
		{"cancel", 3, func() error { return w.c.Pipeline().Cancel(ctx, w.run(forked, w.fork), forge.Receipt{}) }},
		{"cancel what has ended", 1, func() error { return w.c.Pipeline().Cancel(ctx, w.run(forked, w.fork), forge.Receipt{}) }},
	} {
		if err := c.do(); err != nil {
			t.Errorf("%s: %v", c.what, err)
		}
		if calls := w.forge.Calls(); len(calls) != c.calls {
			t.Errorf("%s: %q, want %d calls", c.what, calls, c.calls)
		}
	}
}

func TestPushed(t *testing.T) {
	w := newWorld(t)
	m := w.repo.Open(w.maya, w.fork)
	opened := w.head(m, w.fork)
	m.Push(w.maya)
	m.Push(w.mallory)
	head := w.head(m, w.fork)
	ask := func(head forge.Branch, who *gitlabsandbox.User, yes bool, fault ...forge.Class) {
		t.Helper()
		is, err := w.c.Pushed(t.Context(), head, actorOf(who))
		if is != yes || (err != nil) != (len(fault) == 1) || err != nil && classOf(t, err) != fault[0] {
			t.Errorf("%s by %s: %t, %v; expected %t, %v", head.SHA, who.Login, is, err, yes, fault)
		}
	}
	ask(head, w.mallory, true)
	ask(head, w.maya, false)
	ask(opened, w.maya, true)
	ask(head, &gitlabsandbox.User{}, false)

	elsewhere, unwritten, gone := head, head, head
	elsewhere.Name, unwritten.SHA, gone.RepoID = "branch-2", strings.Repeat("c", 40), 0
	ask(elsewhere, w.mallory, false, forge.Retriable)
	ask(unwritten, w.mallory, false, forge.Retriable)
	ask(gone, w.mallory, false)
	if calls := w.forge.Calls(); len(calls) != 5 {
		t.Errorf("%q: nobody is asked about nobody's push, nor of a project that is gone", calls)
	}
	gone.RepoID = 999999
	ask(gone, w.mallory, false)

	w.forge.Fail("GET /projects/{id}/events", 1)
	ask(head, w.mallory, false, forge.Retriable)
	for range 99 {
		m.Push(w.maya)
	}
	ask(head, w.mallory, true) // the hundredth
	m.Push(w.maya)
	ask(head, w.mallory, false, forge.Retriable)
	w.fork.Set("visibility", "private")
	ask(w.head(m, w.fork), w.maya, false)
}

func TestSweepLists(t *testing.T) {
	w := newWorld(t)
	a := w.repo.Open(w.mallory, w.fork)
	w.ahead.Store(int64(time.Hour))
	b := w.repo.Open(w.maya, w.repo)
	got, next, err := w.c.Updated(t.Context(), forge.Repo{Name: w.repo.Path}, noon.Add(time.Minute), 1)
	if err != nil || next != 0 || len(got) != 1 || got[0].Ref.Number != b.IID || got[0].Ref.Repo.ID != w.repo.ID {
		t.Errorf("updated: %+v %d %v", got, next, err)
	}
	got, _, err = w.c.Open(t.Context(), w.at(), 1)
	if err != nil || len(got) != 2 || got[0].Ref.Number != a.IID || !got[0].Open {
		t.Errorf("open: %+v %v", got, err)
	}
	repos, _, err := w.c.Repos(t.Context(), 0, 1)
	if err != nil || len(repos) != 1 || repos[0].Name != "octo/hello" {
		t.Errorf("repos: %+v %v", repos, err)
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		header map[string]string
		want   forge.Class
		after  time.Duration
	}{
		{400, `{"message":"400 Bad request"}`, nil, forge.Permanent, 0},
		{400, `{"message":{"base":["Too many pipelines created in the last minute. Try again later."]}}`, nil, forge.Contention, wire.ShortPause},
		{401, `{"message":"401 Unauthorized"}`, nil, forge.Auth, 0},
		{403, `{"error":"insufficient_scope"}`, nil, forge.Auth, 0},
		{403, `{"message":"403 Forbidden - project is archived"}`, nil, forge.Permanent, 0},
		{403, `{"message":"You cannot perform write operations on a read-only instance"}`, nil, forge.Permanent, 0},
		{404, `{"message":"404 Not found"}`, nil, forge.NotFound, 0},
		{408, ``, nil, forge.Retriable, 0},
		{409, `{"message":"409 Conflict: Resource lock"}`, nil, forge.Contention, 0},
		{422, `{"message":"job limit exceeded"}`, nil, forge.Permanent, 0},
		{429, `Retry later`, map[string]string{"Retry-After": "17"}, forge.Contention, 17 * time.Second},
		{429, ``, nil, forge.Contention, wire.ShortPause},
		{429, ``, map[string]string{"Retry-After": "999999"}, forge.Contention, time.Hour},
		{500, `{"message":"500 Internal Server Error"}`, nil, forge.Retriable, 0},
		{500, `{"message":"Failed to obtain a lock"}`, nil, forge.Contention, 0},
		{502, `<html>`, nil, forge.Retriable, 0},
		{302, ``, map[string]string{"Location": "https://elsewhere.example/"}, forge.Permanent, 0},
		{302, ``, map[string]string{"Location": "/api/v4/user"}, forge.Permanent, 0},
		{200, `{`, nil, forge.Retriable, 0},
		{200, `{}`, nil, forge.Retriable, 0},
	} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for k, v := range c.header {
				w.Header().Set(k, v)
			}
			w.WriteHeader(c.status)
			_, _ = fmt.Fprint(w, c.body)
		}))
		_, err := client(t, api.URL, "glpat-secret-token").Pull(t.Context(), forge.Ref{Repo: forge.Repo{ID: 1}, Number: 1})
		api.Close()
		f := forge.Classify(err)
		if f.Class != c.want || f.After != c.after {
			t.Errorf("%d %s: %v after %v, want %v after %v", c.status, c.body, f.Class, f.After, c.want, c.after)
		}
		if strings.Contains(fmt.Sprint(err), "secret-token") || strings.Contains(fmt.Sprint(err), api.URL) || strings.Contains(fmt.Sprint(err), "<html>") {
			t.Errorf("%d: the error tells too much: %v", c.status, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := client(t, "http://127.0.0.1:1", "glpat-x").Pull(ctx, forge.Ref{Repo: forge.Repo{ID: 1}, Number: 1})
	if !errors.Is(err, context.Canceled) || classOf(t, err) != forge.Retriable {
		t.Errorf("end of a context: %v", err)
	}
}

func TestLimiter(t *testing.T) {
	var calls, remaining atomic.Int64
	remaining.Store(100)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls.Add(1)
		w.Header().Set("RateLimit-Limit", "100")
		w.Header().Set("RateLimit-Remaining", fmt.Sprint(remaining.Load()))
		w.Header().Set("RateLimit-Reset", fmt.Sprint(time.Now().Add(30*time.Second).Unix()))
		if remaining.Load() == 0 {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		_, _ = fmt.Fprint(w, `{"id":7,"username":"bot"}`)
	}))
	defer api.Close()
	c := client(t, api.URL, "glpat-x")
	ask := func(u forge.Urgency) error {
		_, err := c.Trusted(forge.WithUrgency(t.Context(), u), forge.Repo{ID: 1}, forge.Actor{ID: 7}, forge.Rule{Kind: "user", Value: "bot"})
		if forge.Classify(err).Class == forge.Contention {
			return err
		}
		return nil
	}
	step := func(left int64, want ...forge.Urgency) {
		t.Helper()
		remaining.Store(left)
		_ = ask(forge.Shutting)
		for _, u := range []forge.Urgency{forge.Shutting, forge.Permitting, forge.Cosmetic} {
			before := calls.Load()
			err := ask(u)
			if sent := calls.Load() > before; sent != slices.Contains(want, u) || sent != (err == nil) {
				t.Errorf("%d left, urgency %d: sent %t, %v", left, u, sent, err)
			}
		}
	}
	step(50, forge.Shutting, forge.Permitting, forge.Cosmetic)
	step(19, forge.Shutting, forge.Permitting)
	step(4, forge.Shutting)
	step(0)
}

// One endpoint that is asked too often, which strangers can bring about, keeps nothing else waiting.
func TestLimitOfOneEndpoint(t *testing.T) {
	for kind, others := range map[string]bool{"application/json": true, "text/plain": false} {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/api/v4/users/") {
				w.Header().Set("Content-Type", kind)
				w.Header().Set("Retry-After", "600")
				w.WriteHeader(http.StatusTooManyRequests)
				_, _ = fmt.Fprint(w, `{"message":{"error":"This endpoint has been requested too many times. Try again later."}}`)
				return
			}
			_, _ = fmt.Fprint(w, `{"id":7,"username":"bot"}`)
		}))
		c := client(t, api.URL, "glpat-x")
		_, err := c.Trusted(t.Context(), forge.Repo{ID: 1}, forge.Actor{ID: 7}, forge.Rule{Kind: "user", Value: "bot"})
		if f := forge.Classify(err); f.Class != forge.Contention || f.After != 10*time.Minute {
			t.Errorf("%s: %v", kind, err)
		}
		if _, _, err := c.Self(t.Context()); (err == nil) != others {
			t.Errorf("%s: others are answered %v", kind, err)
		}
		api.Close()
	}
}

func TestNewRefuses(t *testing.T) {
	for name, o := range map[string]Options{
		"no name":       {URL: "https://gitlab.com/", Token: "glpat-x"},
		"no URL":        {Instance: "gitlab", Token: "glpat-x"},
		"another":       {Instance: "gitlab", URL: "ftp://x/", Token: "glpat-x"},
		"with a secret": {Instance: "gitlab", URL: "https://a:b@x/", Token: "glpat-x"},
		"no token":      {Instance: "gitlab", URL: "https://gitlab.com/"},
		"a broken one":  {Instance: "gitlab", URL: "https://gitlab.com/", Token: "glpat-x\n"},
	} {
		if _, err := New(o); err == nil || strings.Contains(err.Error(), "glpat") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// GitLab keeps no log that we could go by; that it has disabled our hook can be seen, by whoever may.
func TestDisabledHookIsSeen(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		level       int
		url, status string
		disabled    bool
	}{
		{gitlabsandbox.Maintainer, "https://box.example/webhooks/gitlab", "executable", false},
		{gitlabsandbox.Maintainer, "https://box.example/webhooks/gitlab", "", false}, // older GitLab does not tell
		{gitlabsandbox.Maintainer, "https://box.example/webhooks/gitlab/?x=1", "temporarily_disabled", true},
		{gitlabsandbox.Maintainer, "https://box.example/webhooks/gitlab", "disabled", true},
		{gitlabsandbox.Maintainer, "https://other.example/hook", "disabled", false},
		{gitlabsandbox.Developer, "https://box.example/webhooks/gitlab", "disabled", false},
	} {
		p := w.forge.AddProject("octo/"+c.status+strconv.Itoa(c.level)+strings.Trim(c.url, "htps:/.?=1&"), map[*gitlabsandbox.User]int{w.bot: c.level})
		p.SetHook(gitlabsandbox.Hook{Secret: "s", URL: c.url, Status: c.status})
		lost, next, err := w.c.Failed(t.Context(), forge.Repo{Instance: "gitlab", ID: p.ID, Name: p.Path}, time.Time{}, "")
		var none *repair.NoLog
		if len(lost) > 0 || next != "" || !errors.As(err, &none) || none.Why == "" || (none.Disabled != "") != c.disabled {
			t.Errorf("%+v: %v %q %v", c, lost, next, err)
		}
	}
	w.forge.Fail("GET /projects/{id}/hooks", 1)
	if _, _, err := w.c.Failed(t.Context(), w.at(), time.Time{}, ""); classOf(t, err) != forge.Retriable {
		t.Errorf("down: %v", err)
	}
}
