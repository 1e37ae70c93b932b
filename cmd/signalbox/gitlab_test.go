package main

import (
	"context"
	"net"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// lab is the whole service and a GitLab on one clock that the test moves.
type lab struct {
	t     *testing.T
	ahead atomic.Int64
	forge *gitlabsandbox.Forge
	repo  *gitlabsandbox.Project
	fork  *gitlabsandbox.Project
	url   string
	env   []string
	app   *app

	bot, mallory, maya, guest *gitlabsandbox.User
}

const (
	labSecret  = "lab-webhook-secret"
	labSigning = "whsec_bGFiLXNpZ25pbmcta2V5LW9mLTMyLWJ5dGVzLWhlcmU="
)

func newLab(t *testing.T, hook gitlabsandbox.Hook, env ...string) *lab {
	t.Helper()
	l := &lab{t: t}
	l.forge = gitlabsandbox.New(l.now)
	api := httptest.NewServer(l.forge.Handler())
	t.Cleanup(api.Close)
	l.bot, l.mallory, l.maya, l.guest = l.forge.AddUser("project_1_bot_ab", true), l.forge.AddUser("mallory", false), l.forge.AddUser("maya", false), l.forge.AddUser("guest", false)
	l.repo = l.forge.AddProject("octo/hello", map[*gitlabsandbox.User]int{l.bot: gitlabsandbox.Developer, l.maya: gitlabsandbox.Developer, l.guest: gitlabsandbox.Reporter})
	l.fork = l.forge.AddProject("mallory/hello", map[*gitlabsandbox.User]int{l.mallory: gitlabsandbox.Maintainer})
	l.repo.SetHook(hook)
	env = append([]string{
		"SIGNALBOX_STORE=file:" + filepath.Join(t.TempDir(), "signalbox.db"), "SIGNALBOX_GITLAB_URL=" + api.URL, "SIGNALBOX_GITLAB_TOKEN=" + l.bot.Token,
		"SIGNALBOX_GITLAB_WEBHOOK_SECRET=" + labSecret, "SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN=" + labSigning,
		"SIGNALBOX_TRIGGER=gitlab_pipeline", "SIGNALBOX_REPOS=octo/hello", "SIGNALBOX_SWEEP=24h",
	}, env...)
	a, err := newApp(t.Context(), resolve(t, Settings{}, env, nil), zap.NewNop(), appOptions{poll: 20 * time.Millisecond, now: l.now})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.serve(ctx, ln) }()
	t.Cleanup(sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	}))
	l.env = env
	l.app, l.url = a, "http://"+ln.Addr().String()+"/webhooks/gitlab"
	return l
}

var signedHook = gitlabsandbox.Hook{SigningToken: labSigning}

func (l *lab) now() time.Time { return time.Now().Add(time.Duration(l.ahead.Load())) }

// settle delivers what has happened, each delivery twice, until nothing happens any more at this moment of the clock.
func (l *lab) settle() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	for {
		sent, err := l.forge.Deliver(ctx, l.url, true)
		if err != nil {
			l.t.Fatal(err)
		}
		if bad := slices.IndexFunc(sent, func(s int) bool { return s != 200 && s != 202 }); bad >= 0 {
			l.t.Fatalf("a delivery was answered %d", sent[bad])
		}
		if d, err := l.app.engine.Drain(ctx, 0); err != nil || !d.Idle {
			l.t.Fatalf("does not come to rest: %+v %v", d, err)
		}
		if len(sent) == 0 {
			return
		}
	}
}

// pass lets d pass, in steps after each of which everything due is done.
func (l *lab) pass(d, step time.Duration) {
	l.t.Helper()
	for ; d > 0; d -= step {
		l.ahead.Add(int64(step))
		l.settle()
	}
}

// gate is the last line of the story, for failures.
func (l *lab) gate(m *gitlabsandbox.Merge) string {
	l.t.Helper()
	s, err := l.app.admin.story(l.t.Context(), forge.Ref{Repo: forge.Repo{Instance: "gitlab", Name: l.repo.Path}, Number: m.IID}.String())
	if err != nil {
		l.t.Fatal(err)
	}
	return string(s.State) + ": " + s.Waits
}

func (l *lab) pipelines(m *gitlabsandbox.Merge) string {
	var out []string
	for _, p := range m.Pipelines() {
		out = append(out, p.SHA()+" "+p.Status())
	}
	return strings.Join(out, ", ")
}

func (l *lab) want(what, got, want string) {
	l.t.Helper()
	if got != want {
		l.t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// note is the one note of ours on a merge request.
func (l *lab) note(m *gitlabsandbox.Merge) string {
	l.t.Helper()
	var ours []string
	for _, n := range m.Notes() {
		if n.By == l.bot.Login {
			ours = append(ours, n.Body)
		}
	}
	if len(ours) != 1 {
		l.t.Fatalf("%d notes of ours, want 1: %q", len(ours), ours)
	}
	return ours[0]
}

// What the gate decides stands in testdata/stories, for both forges. Here is what only GitLab has: where the gate is
// shown, changes of several things at once, pipelines that take no commit, groups beneath groups.

// A merge request from a fork has one note, edited in place, and no status.
func TestGitLab_NoteOnAMergeRequestFromAFork(t *testing.T) {
	l := newLab(t, signedHook)
	m := l.repo.Open(l.mallory, l.fork)
	l.settle()
	if n := l.note(m); !strings.Contains(n, "Awaiting") || !strings.Contains(n, m.Head()[:12]) {
		t.Errorf("note: %q", n)
	}
	l.ahead.Add(int64(time.Minute))
	m.Label(l.maya, "CICD")
	l.settle()
	if n := l.note(m); !strings.Contains(n, "success") {
		t.Errorf("note: %q", n)
	}
	m.Pipelines()[0].Become("success")
	l.settle()
	if g := l.gate(m); !strings.HasPrefix(g, string(prmanager.StateDone)) {
		t.Errorf("gate: %s", g)
	}
	l.want("statuses of a fork's commit", strings.Join(l.repo.Statuses(m.Head()), ", "), "")
}

func TestGitLab_Attack_T21_LabelAndPushInOneUpdate(t *testing.T) {
	l := newLab(t, signedHook, "SIGNALBOX_HOLD=2m")
	m := l.repo.Open(l.mallory, l.fork)
	l.settle()
	l.ahead.Add(int64(10 * time.Minute))
	m.Update(l.maya, gitlabsandbox.Change{Add: []string{"CICD"}})
	m.Update(l.mallory, gitlabsandbox.Change{Push: true}) // before the label was heard of
	l.settle()
	l.want("pipelines", l.pipelines(m), "")

	l.ahead.Add(int64(10 * time.Minute))
	m.Update(l.mallory, gitlabsandbox.Change{Push: true, Add: []string{"CICD"}})
	l.settle()
	l.want("pipelines", l.pipelines(m), "")
	l.want("labels", strings.Join(m.Labels(), ","), "")
}

func TestGitLab_Attack_T33_HeadMovesBeforeThePipeline(t *testing.T) {
	l := newLab(t, signedHook)
	m := l.repo.Open(l.mallory, l.fork)
	l.settle()
	l.ahead.Add(int64(time.Minute))
	old := m.Head()
	l.forge.BeforePipeline(func() { m.Push(l.mallory) })
	m.Label(l.maya, "CICD")
	l.settle()
	l.pass(20*time.Second, 10*time.Second)
	if m.Head() == old {
		t.Fatal("the head has not moved")
	}
	l.want("pipelines", l.pipelines(m), m.Head()+" canceled")
	if g := l.gate(m); !strings.HasPrefix(g, string(prmanager.StateAwaiting)) {
		t.Errorf("gate: %s", g)
	}
}

func TestGitLab_SameProjectHasACommitStatus(t *testing.T) {
	l := newLab(t, gitlabsandbox.Hook{Secret: labSecret}) // the older form of proof
	m := l.repo.Open(l.maya, l.repo)
	l.settle()
	l.pass(20*time.Second, 10*time.Second)
	l.want("pipelines", l.pipelines(m), m.Head()+" pending")
	l.want("statuses", strings.Join(l.repo.Statuses(m.Head()), ", "), "CI gate success")
	for _, n := range m.Notes() {
		t.Errorf("a note: %q", n.Body)
	}

	old := m.Head()
	m.Unlabel(l.maya, "CICD")
	l.settle()
	l.pass(20*time.Second, 10*time.Second)
	l.want("pipelines", l.pipelines(m), old+" canceled")
	l.forge.LockCommit(old, 2)
	m.Close(l.maya)
	l.settle()
	l.pass(time.Minute, 10*time.Second)
	l.want("statuses", strings.Join(l.repo.Statuses(old), ", "), "CI gate success, CI gate pending, CI gate canceled")
}

// Trust in a group that stands beneath others; who is a member above it is one of it.
func TestGitLab_TeamOfANestedGroup(t *testing.T) {
	l := newLab(t, signedHook, "SIGNALBOX_TRUST=team:octo/crew/core")
	l.forge.AddGroup("octo", nil)
	l.forge.AddGroup("octo/crew", map[*gitlabsandbox.User]int{l.guest: gitlabsandbox.Developer})
	l.forge.AddGroup("octo/crew/core", nil)
	m := l.repo.Open(l.mallory, l.fork)
	l.settle()
	l.ahead.Add(int64(time.Minute))
	m.Label(l.maya, "CICD") // a Developer of the project, in no group
	l.settle()
	l.want("pipelines", l.pipelines(m), "")
	l.ahead.Add(int64(time.Minute))
	m.Label(l.guest, "CICD")
	l.settle()
	l.want("pipelines", l.pipelines(m), m.Head()+" pending")
}
