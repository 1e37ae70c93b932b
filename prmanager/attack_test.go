package prmanager

import (
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// The attacks of docs/rules.md, as far as the decision alone withstands them. Each plays against a world whose state is
// already what the attacker made it when our look comes.

// attack begins with bob's pull request at a1, known and shut.
func attack(t *testing.T) (*sim, *world) {
	t.Helper()
	w := newWorld()
	m := newSim(t, w)
	m.hear(w.open("bob", "a1"))
	mustBeShut(t, m)
	return m, w
}

func approved(t *testing.T) (*sim, *world) {
	t.Helper()
	m, w := attack(t)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeOpen(t, m)
	return m, w
}

// mustBeShut: nothing runs, no head and no former head shows success, the label is gone.
func mustBeShut(t *testing.T, m *sim) {
	t.Helper()
	if g := m.d.Standing(); g != nil {
		t.Errorf("a grant stands: %+v", *g)
	}
	for s := range m.w.gates {
		if m.w.gate(s) == forge.CheckSuccess {
			t.Errorf("the gate is open on %s", s[:4])
		}
	}
	if live := m.w.live(); len(live) > 0 {
		t.Errorf("runs: %v", live)
	}
	if m.w.on {
		t.Error("the label is still there")
	}
}

func mustBeOpen(t *testing.T, m *sim) {
	t.Helper()
	head := m.w.pull.Head.SHA
	if m.d.Standing() == nil || m.w.gate(head) != forge.CheckSuccess || len(m.w.live()) != 1 || m.w.live()[0] != head {
		t.Fatalf("not open on %s: %s", head[:4], m.seen())
	}
}

// neverStarted: whatever the end is, nothing was started for this commit in between.
func neverStarted(t *testing.T, w *world, short string) {
	t.Helper()
	for _, r := range w.runs {
		if r.run.SHA == sha(short) && r.starts > 0 {
			t.Errorf("a run was started for %s", short)
		}
	}
}

func mustPass(t *testing.T, m *sim, r Reason) {
	t.Helper()
	if !m.why[string(r)] {
		t.Errorf("%s was never passed: %v", r, m.why)
	}
}

// A maintainer labels a1; before our turn bob has pushed b2. The label's delivery comes after, or before, the push's.
func TestAttack_T01(t *testing.T) {
	for _, late := range []bool{false, true} {
		m, w := attack(t)
		label, push := w.setLabel("mona", "CICD", true), w.push("bob", "b2")
		if late {
			m.hear(push, label)
		} else {
			m.hear(label, push)
		}
		m.pass(10 * time.Minute)
		mustBeShut(t, m)
		neverStarted(t, w, "b2")
		neverStarted(t, w, "a1")
	}
}

// Bob pushes when he sees the maintainer's page open: the label comes within the hold.
func TestAttack_T02(t *testing.T) {
	for _, late := range []bool{false, true} {
		m, w := attack(t)
		w.now = w.now.Add(time.Hour)
		push, label := w.push("bob", "b2"), w.setLabel("mona", "CICD", true)
		if late {
			m.hear(label, push)
		} else {
			m.hear(push, label)
		}
		m.pass(time.Hour) // waiting never turns it into a grant
		mustBeShut(t, m)
		neverStarted(t, w, "b2")
		mustPass(t, m, Held)
	}
}

// The commit's own dates are the attacker's: no type of ours carries them, the arrival is the delivery's.
func TestAttack_T03(t *testing.T) {
	m, w := attack(t)
	w.now = w.now.Add(time.Hour)
	label := w.setLabel("mona", "CICD", true)
	push := w.push("bob", "b2")
	m.hear(push, label)
	if got := m.d.Head.Span.At; !got.Equal(w.arrived[sha("b2")]) {
		t.Errorf("the head arrived at %s, recorded %s", w.arrived[sha("b2")], got)
	}
	mustBeShut(t, m)
}

// A→B→A: the grant for A does not come back with A, not even if all is heard at the end.
func TestAttack_T04(t *testing.T) {
	for _, late := range []bool{false, true} {
		m, w := approved(t)
		away := w.push("bob", "b2")
		if !late {
			m.hear(away)
		}
		back := w.push("bob", "a1")
		if late {
			m.hear(back, away)
		} else {
			m.hear(back)
		}
		m.pass(10 * time.Minute)
		mustBeShut(t, m)
		w.now = w.now.Add(time.Hour)
		m.hear(w.setLabel("max", "CICD", true))
		mustBeOpen(t, m)
		if len(w.runs) != 2 {
			t.Errorf("the revoked run stands for the new approval: %d runs", len(w.runs))
		}
	}
}

// Close, push, reopen: no grant survives, in whatever order it is heard.
func TestAttack_T05(t *testing.T) {
	permute(3, func(order []int) {
		m, w := approved(t)
		notes := []Note{w.close("bob", false), w.push("bob", "b2"), w.reopen("bob")}
		for _, i := range order {
			m.hear(notes[i])
		}
		m.pass(10 * time.Minute)
		mustBeShut(t, m)
		neverStarted(t, w, "b2")
	})
}

// The base is switched to a branch with secrets, and perhaps back.
func TestAttack_T06(t *testing.T) {
	m, w := approved(t)
	m.hear(w.base("bob", "release"))
	mustBeShut(t, m)

	m, w = approved(t)
	away, back := w.base("bob", "release"), w.base("bob", "main")
	m.hear(back, away)
	mustBeShut(t, m)
}

// A stranger's second pull request at the same SHA has nothing of the first one's approval.
func TestAttack_T07(t *testing.T) {
	m, w := approved(t)
	other := w.pull
	other.Ref.Number = 8
	key := RunKey(m.s, sha("a1"), "main", 1, "presubmit")
	if key == RunKey(Subject(other.Ref), sha("a1"), "main", 1, "presubmit") {
		t.Error("two pull requests share a run key")
	}
	w2 := newWorld()
	w2.ids = map[string]int64{"bob": 1000}
	m2 := newSim(t, w2)
	m2.s = Subject(other.Ref)
	note := w2.open("eve", "a1")
	note.Pull.Ref.Number, w2.pull.Ref.Number = 8, 8
	m2.hear(note)
	mustBeShut(t, m2)
	if g := w2.gates[sha("a1")]; g.Pull != m2.s || g.Granted {
		t.Errorf("told its commit %+v", g)
	}
}

// Triage may label and may not write: the permission decides, not that the forge let them label.
func TestAttack_T08(t *testing.T) {
	m, w := attack(t)
	m.hear(w.setLabel("triager", "CICD", true))
	mustBeShut(t, m)
	mustPass(t, m, LabellerUntrusted)
}

// A bot labels because an outsider asked it to. An App is trusted only on branches of the repository itself.
func TestAttack_T09(t *testing.T) {
	m, w := attack(t)
	m.policy.Trust = []forge.Rule{{Kind: "permission", Value: "write"}, {Kind: "app", Value: "helper"}}
	m.hear(w.setLabel("helper[bot]", "CICD", true))
	mustBeShut(t, m)
	m.hear(w.setLabel(w.self.Actor.Login, "CICD", true)) // somebody made our own App do it
	mustBeShut(t, m)
	mustPass(t, m, LabelOurs)
}

// A label set at creation is judged by who set it.
func TestAttack_T10(t *testing.T) {
	for _, late := range []bool{false, true} {
		w := newWorld()
		m := newSim(t, w)
		w.step = 0
		opened, label := w.open("bob", "a1"), w.setLabel("bob", "CICD", true)
		if late {
			m.hear(label, opened)
		} else {
			m.hear(opened, label)
		}
		mustBeShut(t, m)
	}
}

// A trusted author's pull request to which an outsider may push.
func TestAttack_T14(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.hear(w.open("mona", "a1"))
	mustBeOpen(t, m)
	m.hear(w.push("bob", "b2"))
	mustBeShut(t, m)
	mustPass(t, m, UntrustedPusher)

	// The push is missed and found by looking: from a fork nobody vouches for it.
	w = newWorld()
	m = newSim(t, w)
	m.hear(w.open("mona", "a1"))
	w.push("bob", "b2")
	m.post(KindReconcile, Repair{Ref: w.pull.Ref})
	m.run("")
	mustBeShut(t, m)
	mustPass(t, m, UnknownPusher)
}

// The API is down, in every part and every way, while an untrusted person labels: never trusted by it.
func TestAttack_T17(t *testing.T) {
	for _, part := range []string{"trust", "live", "history", "trust bob"} {
		for _, code := range []int{403, 404, 429, 500, 502} {
			m, w := attack(t)
			w.down[part] = code
			m.hear(w.setLabel("bob", "CICD", true))
			m.pass(time.Hour)
			if g := m.d.Standing(); g != nil || w.gate(sha("a1")) == forge.CheckSuccess {
				t.Errorf("%s answers %d: open", part, code)
			}
			w.down[part] = 0
			m.pass(time.Hour)
			mustBeShut(t, m)
		}
	}
}

// The removal of the label fails: the gate is shut meanwhile, and the removal comes.
func TestAttack_T18(t *testing.T) {
	m, w := approved(t)
	w.down["label"] = 502
	m.hear(w.push("bob", "b2"))
	if m.d.Standing() != nil || w.gate(sha("b2")) != forge.CheckActionRequired || len(w.live()) > 0 {
		t.Errorf("with the label stuck: %s", m.seen())
	}
	w.down["label"] = 0
	m.pass(time.Hour)
	mustBeShut(t, m)
}

// Label and push in one GitLab update.
func TestAttack_T21(t *testing.T) {
	m, w := attack(t)
	w.now = w.now.Add(time.Hour)
	w.step = 0
	w.setLabel("bob", "bug", true)
	w.setLabel("mona", "CICD", true)
	n := w.push("bob", "b2")
	n.Actions, n.Labels = []Action{ActionLabelled, ActionPushed}, []string{"bug", "CICD"}
	m.hear(n)
	m.pass(10 * time.Minute)
	mustBeShut(t, m)
	neverStarted(t, w, "b2")
}

// Author and approver are looked up live at each decision: who is no member any more grants nothing more.
func TestAttack_T22(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.hear(w.open("mona", "a1"))
	mustBeOpen(t, m)
	w.trusted["mona"] = false
	m.hear(w.push("mona", "b2"))
	mustBeShut(t, m)

	m, w = approved(t)
	w.trusted["mona"] = false
	m.hear(w.push("mona", "b2")) // would have been carried
	mustBeShut(t, m)
	w.now = w.now.Add(time.Hour)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeShut(t, m)
}

// A label whose name looks, or folds, like the gate's is another label.
func TestAttack_T23(t *testing.T) {
	for _, twin := range []string{"СICD", "CİCD", "CICD ", "CICD\u200b", "ＣＩＣＤ"} {
		m, w := attack(t)
		m.hear(w.setLabel("mona", twin, true))
		if m.d.Standing() != nil {
			t.Errorf("%q grants", twin)
		}
	}
	m, w := attack(t)
	m.policy.Label, w.label = "task-ok", "task-ok"
	for _, twin := range []string{"ta\u017fk-ok", "tas\u212a-ok", "task-o\u212a"} { // fold to ASCII in Unicode
		m.hear(w.setLabel("mona", twin, true))
	}
	mustBeShut(t, m)
	m.hear(w.setLabel("mona", "Task-OK", true))
	mustBeOpen(t, m)
}

// A maintainer named by login gives the login up, and somebody else takes it.
func TestAttack_T24(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.policy.Trust = []forge.Rule{{Kind: "user", Value: "Mona"}}
	m.policy.Auto = m.policy.Trust
	m.hear(w.open("bob", "a1"), w.setLabel("mona", "CICD", true))
	mustBeOpen(t, m)
	w.ids["old-mona"], w.ids["mona"] = w.ids["mona"], 6666
	m.hear(w.push("bob", "b2"))
	w.now = w.now.Add(time.Hour)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeShut(t, m)
	mustPass(t, m, LabellerUntrusted)
}

// Closing shows cancelled, never neutral or skipped; what follows begins shut.
func TestAttack_T28(t *testing.T) {
	m, w := approved(t)
	m.hear(w.close("bob", false))
	if got := w.gate(sha("a1")); got != forge.CheckCancelled {
		t.Errorf("closed: the gate shows %s", got)
	}
	m.hear(w.reopen("bob"))
	if got := w.gate(sha("a1")); got != forge.CheckActionRequired {
		t.Errorf("reopened: the gate shows %s", got)
	}
	mustBeShut(t, m)
}

// Removed and set again, delivered the other way round, and removed at last though the adding is heard last.
func TestAttack_T29(t *testing.T) {
	m, w := approved(t)
	off := w.setLabel("max", "CICD", false)
	on := w.setLabel("mona", "CICD", true)
	m.hear(on, off)
	mustBeOpen(t, m)

	m, w = approved(t)
	off = w.setLabel("max", "CICD", false)
	on = w.setLabel("mona", "CICD", true)
	last := w.setLabel("max", "CICD", false)
	m.hear(last, on, off)
	mustBeShut(t, m)
}

// An outsider opens a pull request at a maintainer's public SHA first: it gets no name and takes none.
func TestAttack_T30(t *testing.T) {
	m, w := attack(t) // bob squats a1
	maintainers := state.Subject{Instance: "github", Project: "77", Kind: "pr", Key: "9"}
	if RunKey(m.s, sha("a1"), "main", 1, "presubmit") == RunKey(maintainers, sha("a1"), "main", 1, "presubmit") {
		t.Error("the squatter has the run key")
	}
	if g := w.gates[sha("a1")]; !g.Open || g.Granted || g.Pull != m.s {
		t.Errorf("told the commit %+v", g)
	}
	mustBeShut(t, m)
}

// A maintainer removes the label, a triager puts it back at once: the removal counts.
func TestAttack_T31(t *testing.T) {
	for _, heard := range []int{0, 1, 2} { // both, only the removal's delivery, only the adding's
		m, w := approved(t)
		notes := []Note{w.setLabel("max", "CICD", false), w.setLabel("triager", "CICD", true)}
		switch heard {
		case 0:
			m.hear(notes...)
		default:
			m.hear(notes[heard-1])
		}
		mustBeShut(t, m)
		mustPass(t, m, LabelRemoved)
	}
	// Who put it back cannot be verified: shutting does not wait for that.
	m, w := approved(t)
	w.down["trust triager"] = 502
	w.setLabel("max", "CICD", false)
	m.hear(w.setLabel("triager", "CICD", true))
	if m.d.Standing() != nil || len(w.live()) > 0 {
		t.Error("waits for the lookup")
	}
}

// On a person's token our own label writes are nobody's will, that person's labels count like anyone's.
func TestAttack_T36(t *testing.T) {
	w := newWorld()
	w.self = Self{Actor: w.actor("mona")}
	m := newSim(t, w)
	m.hear(w.open("max", "a1")) // runs by trust: we set the label with mona's token
	mustBeOpen(t, m)
	if !w.on {
		t.Fatal("we set no label")
	}
	m.hear(w.push("bob", "b2"))
	mustBeShut(t, m)
	w.now = w.now.Add(time.Hour)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeOpen(t, m)

	// Our own write, whose delivery comes while the next head is there, is no approval of it.
	w = newWorld()
	w.self = Self{Actor: w.actor("mona")}
	m = newSim(t, w)
	m.policy.Hold = 0
	m.hear(w.open("max", "a1"))
	ours := w.note("mona", ActionLabelled)
	ours.Labels = []string{"CICD"}
	w.step = 0
	m.hear(w.push("bob", "b2"), ours)
	mustBeShut(t, m)
	mustPass(t, m, LabelOurs)
}

// An outsider pushes, and a maintainer presses Update branch without looking: what came in between was not approved.
func TestAttack_T37(t *testing.T) {
	permute(2, func(order []int) {
		m, w := approved(t)
		notes := []Note{w.push("bob", "b2"), w.push("mona", "c3")}
		for _, i := range order {
			m.hear(notes[i])
		}
		m.pass(10 * time.Minute)
		mustBeShut(t, m)
		neverStarted(t, w, "c3")
	})
	// Without the outsider's push it carries the approval over.
	m, w := approved(t)
	m.hear(w.push("mona", "b2"))
	mustBeOpen(t, m)
	mustPass(t, m, Carried)
}

// A comment with a short SHA, or with a full one of another commit, approves nothing.
func TestAttack_T11(t *testing.T) {
	m, w := attack(t)
	w.trusted["eve"] = true
	for _, text := range []string{"/ok-to-test a100000", "/ok-to-test " + sha("a1")[:39], "/ok-to-test A1" + sha("a1")[2:], "/ok-to-test SHA:b2", "/ok-to-test main", "/ok-to-test"} {
		m.post(KindComment, w.comment("eve", text))
		m.run("")
		mustBeShut(t, m)
	}
	// The right one, written while a1 was the head; by the time of our look it is b2, and later a1 again.
	c := w.comment("mona", "/ok-to-test SHA:a1")
	away, back := w.push("bob", "b2"), w.push("bob", "a1")
	m.post(KindComment, c)
	m.hear(away, back)
	m.pass(10 * time.Minute)
	mustBeShut(t, m)
	neverStarted(t, w, "b2")
	if len(w.said) != 1 {
		t.Errorf("we wrote %d comments, want one", len(w.said))
	}
}

// An outsider asks for a re-run; the author asks more often than an author may; nobody gets one without a grant.
func TestAttack_T12(t *testing.T) {
	m, w := attack(t)
	starts := func() (n int) {
		for _, r := range w.runs {
			n += r.starts
		}
		return n
	}
	ask := func(who string) int {
		before := starts()
		m.post(KindComment, w.comment(who, "/retest"))
		m.run("")
		return starts() - before
	}
	if n := ask("mona") + ask("bob") + ask("eve"); n != 0 {
		t.Fatalf("%d runs without a grant", n)
	}
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeOpen(t, m)
	if n := ask("eve") + ask("ghost"); n != 0 {
		t.Errorf("%d runs for outsiders", n)
	}
	for i := range 6 {
		if n := ask("bob"); (n == 1) != (i < 3) {
			t.Errorf("request %d of the author: %d runs", i, n)
		}
	}
	if n := ask("mona"); n != 1 {
		t.Errorf("%d runs for a maintainer", n)
	}
	mustPass(t, m, RetestRefused)
}

// A re-run is asked for on a former commit: in the page of a check that is still open, or in a comment written before
// the push.
func TestAttack_T13(t *testing.T) {
	m, w := approved(t)
	old := keys(m.d.Triggers)[0]
	comment := w.comment("mona", "/retest")
	m.hear(w.push("bob", "b2"))
	m.pass(time.Hour)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeOpen(t, m)
	n := len(w.runs)
	for _, at := range []time.Time{{}, w.now} {
		m.post(status.KindPressed, status.Pressed{SHA: sha("a1"), What: status.PressedRerun, Key: old, By: w.actor("mona"), At: at})
		m.post(status.KindPressed, status.Pressed{SHA: sha("a1"), What: status.PressedApprove, By: w.actor("mona"), At: at})
	}
	m.post(KindComment, comment)
	m.run("")
	if len(w.runs) != n {
		t.Errorf("started: %v", w.live())
	}
	mustBeOpen(t, m)
	mustPass(t, m, RetestRefused)
	mustPass(t, m, StaleApproval)
}

// A command in a quote, in code, in HTML or behind other words is none. (That only created comments are heard is the
// hook's to test.)
func TestAttack_T16(t *testing.T) {
	m, w := attack(t)
	for _, text := range []string{
		"> /ok-to-test SHA:a1", "> eve said|/ok-to-test SHA:a1", "```|/ok-to-test SHA:a1|```", "~~~ |/ok-to-test SHA:a1",
		"    /ok-to-test SHA:a1", "<!-- |/ok-to-test SHA:a1| -->", "<details>|/ok-to-test SHA:a1|</details>", "please /ok-to-test SHA:a1",
		"/ok-to-test SHA:a1 or not", "/OK-TO-TEST SHA:a1",
	} {
		m.post(KindComment, w.comment("mona", text))
		m.run("")
		if m.d.Standing() != nil {
			t.Fatalf("%q was heard", text)
		}
	}
	mustBeShut(t, m)
}

// Somebody merges as soon as the gate shows success: the presubmit's check must be there, queued, before that, or
// nothing would hold the merge back.
func TestAttack_T38(t *testing.T) {
	m, w := attack(t)
	m.held = true
	m.hear(w.setLabel("mona", "CICD", true))
	for range 100 {
		m.held = false
		more := m.effect()
		m.held = true
		if w.gate(sha("a1")) == forge.CheckSuccess {
			if len(w.checks) != 1 || len(w.runs) != 1 {
				t.Fatalf("the gate is open with checks %v and runs %v", w.checks, w.runs)
			}
			mustBeOpen(t, m)
			return
		}
		if m.run(""); !more && len(m.results)+len(m.mail) == 0 {
			break
		}
	}
	t.Fatalf("the gate never opened: %s", m.seen())
}

// A person presses Re-run in the CI's own page on a commit whose approval was taken back, or that is no head any more:
// the run is cancelled, and what comes of it is nobody's result.
func TestAttack_T39(t *testing.T) {
	for _, native := range []bool{false, true} {
		for _, ended := range []bool{false, true} {
			for _, pushed := range []bool{false, true} {
				w := newWorld()
				m := newSim(t, w)
				if native {
					m.policy.Presubmits = []Presubmit{presubmit("actions!")}
				}
				report := func(state forge.CheckState, attempt int) {
					w.tick()
					for _, k := range keys(m.d.Triggers) {
						if r := m.d.Triggers[k].Order.Run; r.SHA == sha("a1") && !native {
							m.post(KindReport, Report{Key: k, State: state, Attempt: attempt, RunID: k})
						}
					}
					if native {
						n := status.Native{SHA: sha("a1"), RunID: 5, Status: "in_progress", HeadRepoID: w.pull.Head.RepoID, Attempt: attempt, At: w.now}
						if state.Completed() {
							n.Status, n.Conclusion = "completed", string(state)
						}
						m.post(status.KindNative, n)
					}
					m.run("")
				}
				m.hear(w.open("bob", "a1"), w.setLabel("mona", "CICD", true))
				mustBeOpen(t, m)
				if ended {
					report(forge.CheckFailure, 1)
				}
				if pushed {
					m.hear(w.push("bob", "b2"))
				} else {
					m.hear(w.setLabel("max", "CICD", false))
				}
				m.pass(time.Minute)
				for _, r := range w.runs {
					r.cancelled = false // it runs again
				}
				before := w.calls["cancel"]
				report(forge.CheckRunning, 2)
				if w.calls["cancel"] != before+1 {
					t.Errorf("native=%t ended=%t pushed=%t: cancelled %d times", native, ended, pushed, w.calls["cancel"]-before)
				}
				report(forge.CheckSuccess, 2)
				mustBeShut(t, m)
				for k, c := range w.checks {
					if c.State == forge.CheckSuccess {
						t.Errorf("%s shows success", k)
					}
				}
			}
		}
	}
}
