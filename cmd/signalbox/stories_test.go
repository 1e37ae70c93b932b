package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// The stories of the gate: testdata/stories/*.txt, each told at every forge by the whole service. A line is a verb, with
// who does it; beneath what happened a line "= …" says how all of it must look. What differs between the forges stands
// in the story, as a line that begins with the forge's name, and in docs/recipes/gitlab.md under "What differs from GitHub".
//
//	set NAME=VALUE            a setting of the service; only at the beginning
//	open WHO [fork] [draft]   the pull request that all else is about
//	push|label|unlabel|close|reopen|merge|ready|draft WHO
//	retarget WHO BRANCH
//	comment WHO TEXT          {head} is its newest commit
//	press WHO                 the button of the gate check
//	leave WHO                 loses every right
//	fail N                    the next N answers to who may write are faults
//	run STATE                 what the newest run comes to: running, success, failed
//	wait DURATION
//
// Each delivery is sent twice, and what is due is done, after every line but those that begin with "~": of these nothing
// is heard until the next one, which may be "deliver", "deliver reversed", "lost", or "lost newest".
//
//	= GATE, LABEL, RUNS       open | shut | closed; labelled | bare; runs of commit a, b, … in the order of the pushes
type stage interface {
	open(who string, fork, draft bool)
	push(who string)
	label(who string, on bool)
	become(who, state string) // closed, opened, merged, draft, ready
	retarget(who, branch string)
	comment(who, text string)
	press(who string)
	leave(who string)
	fail(n int)
	run(state string)

	tick(d time.Duration) // moves the clock
	deliver(reversed bool) (sent int)
	lost(newest bool)
	service() *app

	head() string
	gate() string // open, shut, closed; whatever else it shows
	labelled() bool
	runs() []ran
}

// ran is a run as the forge shows it, in one forge's words for all.
type ran struct{ sha, state string }

// words of the forges for what the stories call otherwise.
var storyWords = map[string]string{
	"success": "open", "pending": "shut", "action_required": "shut", "action required": "shut", "queued": "shut", "canceled": "closed", "cancelled": "closed", "failure": "closed",
}

var runWords = map[string]string{"queued": "waiting", "pending": "waiting", "in_progress": "running", "failure": "failed", "cancelled": "canceled"}

func TestStories(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "stories", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, begin := range map[string]func(*testing.T, []string) stage{
			"github": func(t *testing.T, env []string) stage { return onGitHub(t, true, env) },
			"token":  func(t *testing.T, env []string) stage { return onGitHub(t, false, env) },
			"gitlab": onGitLab,
		} {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+name, func(t *testing.T) {
				t.Parallel()
				(&telling{t: t, forge: name, begin: begin}).tell(string(text))
			})
		}
	}
}

// telling is one story at one forge.
type telling struct {
	stage
	t     *testing.T
	forge string
	begin func(*testing.T, []string) stage
	env   []string
	names map[string]string // of commits
}

func (s *telling) tell(text string) {
	s.names = map[string]string{}
	lines := bufio.NewScanner(strings.NewReader(text))
	told := 0
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), " #")
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		if only, rest, ok := strings.Cut(line, ": "); ok && !strings.ContainsAny(only, " =~") {
			if !slices.Contains(strings.Split(only, "|"), s.forge) {
				continue
			}
			line = rest
		}
		if want, ok := strings.CutPrefix(line, "= "); ok {
			told++
			if got := s.seen(); got != want {
				s.t.Fatalf("line %d: %s\nexpected %s\n%s", n, got, want, s.why())
			}
			continue
		}
		if value, ok := strings.CutPrefix(line, "set "); ok {
			s.env = append(s.env, value)
			continue
		}
		if s.stage == nil {
			s.stage = s.begin(s.t, s.env)
		}
		rest, unheard := strings.CutPrefix(line, "~ ")
		if err := s.do(strings.Fields(rest), rest); err != nil {
			s.t.Fatalf("line %d: %s: %v", n, line, err)
		}
		if !unheard {
			s.settle()
		}
	}
	if told == 0 {
		s.t.Fatal("the story says nothing of what is seen")
	}
}

func (s *telling) do(f []string, line string) error {
	arg := func(i int) string { return append(f, "", "", "")[i] }
	s.tick(2 * time.Second) // the forges tell times in whole seconds
	switch f[0] {
	case "open":
		s.open(f[1], slices.Contains(f, "fork"), slices.Contains(f, "draft"))
		clear(s.names)
	case "push":
		s.push(f[1])
	case "label", "unlabel":
		s.label(f[1], f[0] == "label")
	case "close", "reopen", "merge", "ready", "draft":
		s.become(f[1], f[0])
	case "retarget":
		s.retarget(f[1], arg(2))
	case "comment":
		_, text, _ := strings.Cut(line, f[1]+" ")
		s.comment(f[1], strings.ReplaceAll(text, "{head}", s.head()))
	case "press":
		s.press(f[1])
	case "leave":
		s.leave(f[1])
	case "fail":
		n, err := strconv.Atoi(arg(1))
		if err != nil {
			return err
		}
		s.fail(n)
	case "run":
		s.run(arg(1))
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			return err
		}
		for step := d / 10; d > 0; d -= step {
			s.tick(step)
			s.settle()
		}
	case "deliver":
		s.stage.deliver(arg(1) == "reversed")
	case "lost":
		s.lost(arg(1) == "newest")
	default:
		return fmt.Errorf("no such verb")
	}
	if head := s.head(); s.names[head] == "" {
		s.names[head] = string(rune('a' + len(s.names)))
	}
	return nil
}

// settle delivers and does what is due, until nothing happens any more at this moment of the clock.
func (s *telling) settle() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), time.Minute)
	defer cancel()
	for sent := 1; sent > 0; {
		sent = s.stage.deliver(false)
		if d, err := s.service().engine.Drain(ctx, 0); err != nil || !d.Idle {
			s.t.Fatalf("does not come to rest: %+v %v", d, err)
		}
	}
}

func (s *telling) seen() string {
	label, runs := "bare", []string{}
	if s.labelled() {
		label = "labelled"
	}
	for _, r := range s.runs() {
		runs = append(runs, s.names[r.sha]+" "+r.state)
	}
	if len(runs) == 0 {
		runs = []string{"no run"}
	}
	return s.gate() + ", " + label + ", " + strings.Join(runs, ", ")
}

// why is the story as explain tells it.
func (s *telling) why() string {
	instance := "github"
	if s.forge == "gitlab" {
		instance = s.forge
	}
	story, err := s.service().admin.story(s.t.Context(), instance+":octo/hello#1")
	if err != nil {
		return err.Error()
	}
	b := &strings.Builder{}
	story.print(b)
	return b.String()
}

// hub is the stage at a GitHub.
type hub struct {
	*yard
	who   map[string]*sandbox.User
	pr    *sandbox.PR
	fails atomic.Int64
}

func onGitHub(t *testing.T, app bool, env []string) stage {
	y := newYard(t, app, append([]string{"SIGNALBOX_HOLD=0s", "SIGNALBOX_SWEEP=24h"}, env...)...)
	h := &hub{yard: y, who: map[string]*sandbox.User{"mallory": y.mallory, "maya": y.maya, "guest": y.forge.AddUser("guest")}}
	h.who["robot"] = y.forge.AddApp(sandbox.AppOptions{Slug: "robot", Owner: "octo", Secret: yardSecret}).Bot
	y.repo.SetPermission(h.who["guest"], "triage")
	y.repo.SetPermission(h.who["robot"], "maintain")
	y.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if strings.HasSuffix(r.URL.Path, "/permission") && h.fails.Add(-1) >= 0 {
			return &sandbox.Fault{Status: http.StatusBadGateway, Body: "{}"}
		}
		return nil
	})
	y.up()
	return h
}

func (h *hub) open(who string, fork, draft bool) {
	h.pr = h.repo.OpenPR(h.who[who], sandbox.PROptions{Fork: fork, Draft: draft})
}
func (h *hub) push(who string) { h.pr.Push(h.who[who]) }
func (h *hub) label(who string, on bool) {
	if on {
		h.pr.Label(h.who[who], "CICD")
	} else {
		h.pr.Unlabel(h.who[who], "CICD")
	}
}

func (h *hub) become(who, state string) {
	u := h.who[who]
	switch state {
	case "close":
		h.pr.Close(u)
	case "reopen":
		h.pr.Reopen(u)
	case "merge":
		h.pr.Merge(u)
	case "ready":
		h.pr.ReadyForReview(u)
	case "draft":
		h.pr.ConvertToDraft(u)
	}
}

func (h *hub) retarget(who, branch string) { h.pr.ChangeBase(h.who[who], branch) }
func (h *hub) comment(who, text string)    { h.pr.Comment(h.who[who], text) }
func (h *hub) press(who string) {
	h.repo.Check(h.pr.Head(), "CI gate").ClickAction(h.who[who], "approve")
}
func (h *hub) leave(who string)     { h.repo.SetPermission(h.who[who], "") }
func (h *hub) fail(n int)           { h.fails.Store(int64(n)) }
func (h *hub) tick(d time.Duration) { h.later(d) }
func (h *hub) service() *app        { return h.running.app }
func (h *hub) head() string         { return h.pr.Head() }
func (h *hub) labelled() bool       { return slices.Contains(h.pr.Labels(), "CICD") }
func (h *hub) gate() string         { return storyWord(h.repo.Gate(h.pr.Head(), "CI gate")) }

func (h *hub) run(state string) {
	runs := h.repo.Runs()
	switch run := runs[len(runs)-1]; state {
	case "running":
		run.Start()
	case "failed":
		run.Complete("failure")
	default:
		run.Complete(state)
	}
}

func (h *hub) deliver(reversed bool) int {
	due := h.forge.Due()
	if reversed {
		slices.Reverse(due)
	}
	for _, d := range due {
		for range 2 {
			if a, err := h.sender.Send(h.t.Context(), d.GUID); err != nil || a.Status >= 300 {
				h.t.Fatalf("%s %s was answered %d, %v", d.Event, d.Action, a.Status, err)
			}
		}
	}
	return len(due)
}

func (h *hub) lost(newest bool) {
	if newest {
		h.t.Fatal("GitHub's deliveries are lost all at once")
	}
	for _, d := range h.forge.Due() {
		if err := h.sender.Drop(d.GUID); err != nil {
			h.t.Fatal(err)
		}
	}
}

func (h *hub) runs() []ran {
	var out []ran
	for _, r := range h.repo.Runs() {
		if r.Inputs["pr"] == strconv.Itoa(h.pr.Number) {
			out = append(out, ran{fmt.Sprint(r.Inputs["sha"]), runWord(r.State())})
		}
	}
	return out
}

func storyWord(s string) string {
	if w, ok := storyWords[s]; ok {
		return w
	}
	return s
}

func runWord(s string) string {
	if w, ok := runWords[s]; ok {
		return w
	}
	return s
}

// laboratory is the stage at a GitLab.
type laboratory struct {
	*lab
	who map[string]*gitlabsandbox.User
	m   *gitlabsandbox.Merge
}

func onGitLab(t *testing.T, env []string) stage {
	l := &laboratory{lab: newLab(t, signedHook, append([]string{"SIGNALBOX_HOLD=0s"}, env...)...)}
	l.who = map[string]*gitlabsandbox.User{"mallory": l.mallory, "maya": l.maya, "guest": l.guest, "robot": l.forge.AddUser("project_7_bot_cd", true)}
	l.repo.SetMember(l.who["robot"], gitlabsandbox.Maintainer)
	return l
}

func (l *laboratory) open(who string, fork, draft bool) {
	source := l.repo
	if fork {
		source = l.fork
	}
	l.m = l.repo.Open(l.who[who], source)
	if draft {
		l.lost(false) // it is opened as a draft
		l.become(who, "draft")
	}
}

func (l *laboratory) push(who string) { l.m.Push(l.who[who]) }

func (l *laboratory) label(who string, on bool) {
	if on {
		l.m.Label(l.who[who], "CICD")
	} else {
		l.m.Unlabel(l.who[who], "CICD")
	}
}

func (l *laboratory) become(who, state string) {
	u, draft := l.who[who], state == "draft"
	switch state {
	case "close":
		l.m.Close(u)
	case "reopen":
		l.m.Reopen(u)
	case "merge":
		l.m.Merge(u)
	default:
		l.m.Update(u, gitlabsandbox.Change{Draft: &draft})
	}
}

func (l *laboratory) retarget(who, branch string) {
	l.m.Update(l.who[who], gitlabsandbox.Change{Target: branch})
}
func (l *laboratory) comment(who, text string) { l.m.Comment(l.who[who], text) }
func (l *laboratory) press(string)             { l.t.Fatal("GitLab has no button") }
func (l *laboratory) leave(who string)         { l.repo.SetMember(l.who[who], 0) }
func (l *laboratory) fail(n int)               { l.forge.Fail("GET /projects/{id}/members/all/{user}", n) }
func (l *laboratory) tick(d time.Duration)     { l.ahead.Add(int64(d)) }
func (l *laboratory) service() *app            { return l.app }
func (l *laboratory) head() string             { return l.m.Head() }
func (l *laboratory) labelled() bool           { return slices.Contains(l.m.Labels(), "CICD") }

func (l *laboratory) lost(newest bool) {
	if newest {
		l.forge.DropNewest()
	} else {
		l.forge.Drop()
	}
}

func (l *laboratory) run(state string) {
	all := l.m.Pipelines()
	all[len(all)-1].Become(state)
}

func (l *laboratory) deliver(reversed bool) int {
	if reversed {
		l.forge.Reverse()
	}
	sent, err := l.forge.Deliver(l.t.Context(), l.url, true)
	if bad := slices.IndexFunc(sent, func(s int) bool { return s >= 300 }); err != nil || bad >= 0 {
		l.t.Fatalf("deliveries were answered %v, %v", sent, err)
	}
	return len(sent)
}

// gate reads the note on a merge request from a fork, and the commit status of others.
func (l *laboratory) gate() string {
	for _, n := range l.m.Notes() {
		if n.By != l.bot.Login {
			continue
		}
		part := strings.SplitN(n.Body, " · ", 3)
		if len(part) != 3 || !strings.HasPrefix(part[2], l.m.Head()[:12]) {
			return "a note of another commit"
		}
		return storyWord(part[1])
	}
	shown := l.repo.Shown(l.m.Head())
	if i := slices.IndexFunc(shown, func(s gitlabsandbox.Status) bool { return s.Name == "CI gate" }); i >= 0 {
		return storyWord(shown[i].State)
	}
	return "nothing"
}

func (l *laboratory) runs() []ran {
	var out []ran
	for _, p := range l.m.Pipelines() {
		out = append(out, ran{p.SHA(), runWord(p.Status())})
	}
	return out
}
