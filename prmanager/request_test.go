package prmanager

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

func (m *sim) hearComment(c Comment) {
	m.post(KindComment, c)
	m.run("")
}

// outboxed is the kind of the entry under a key, "" where there is none.
func (m *sim) outboxed(key string) string {
	for _, e := range m.outbox {
		if e.Key == key {
			return e.Kind
		}
	}
	return ""
}

// What was asked for before somebody cancelled comes late: it grants nothing. What is asked for afterwards does.
func TestCancel_lateApprovals(t *testing.T) {
	m, w := attack(t)
	approve, label := w.comment("mona", "/ok-to-test SHA:a1"), w.setLabel("mona", "CICD", true)
	cancel := w.comment("bob", "/ok-to-test cancel")
	m.hearComment(cancel)
	m.hearComment(approve)
	m.hear(label)
	m.pass(time.Hour)
	mustBeShut(t, m)
	neverStarted(t, w, "a1")
	m.hearComment(w.comment("mona", "/ok-to-test SHA:a1"))
	mustBeOpen(t, m)
	m.hearComment(cancel) // late itself: the approval is newer
	mustBeOpen(t, m)
}

// An attempt that was begun while nothing was approved is nobody's result, also after the next approval.
func TestVoidAttempt(t *testing.T) {
	m, w := approved(t)
	key := keys(m.d.Triggers)[0]
	report := func(state forge.CheckState, attempt int) {
		m.post(KindReport, Report{Key: key, State: state, Attempt: attempt, RunID: key})
		m.run("")
	}
	report(forge.CheckFailure, 1)
	m.hear(w.setLabel("max", "CICD", false))
	report(forge.CheckRunning, 2)
	m.hear(w.setLabel("mona", "CICD", true))
	report(forge.CheckSuccess, 2)
	if s := w.checks[key].State; s != forge.CheckFailure {
		t.Errorf("the check shows %s", s)
	}
	report(forge.CheckSuccess, 3)
	if s := w.checks[key].State; s != forge.CheckSuccess {
		t.Errorf("of a later attempt the check shows %s", s)
	}
}

// The repository's runs know a key before its trigger may leave, or the first news of the run would be nobody's.
func TestFiledBeforeTriggered(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.policy.Presubmits = []Presubmit{presubmit("unit*")}
	m.held = true
	m.hear(w.open("mona", "a1"))
	key := keys(m.d.Triggers)[0]
	m.post(status.KindWritten, status.Written{Key: key, SHA: sha("a1"), Seq: m.d.Triggers[key].Seq, OK: true})
	if m.run(""); m.outboxed("run/"+key) != "" || m.outboxed("file/"+key) != KindRun {
		t.Errorf("triggered before it was filed: %+v", m.outbox)
	}
	m.held = false
	m.run("")
	mustBeOpen(t, m)
}

// More held runs wait to be approved when the head moves: the runs let go on before are cancelled all the same.
func TestHeldWhileMoved(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.policy.Presubmits = []Presubmit{presubmit("actions!")}
	m.hear(w.open("bob", "a1"), w.setLabel("mona", "CICD", true))
	mustBeOpen(t, m)
	m.held = true
	m.post(status.KindNative, status.Native{SHA: sha("a1"), RunID: 1, Conclusion: "action_required", HeadRepoID: w.pull.Head.RepoID, At: w.now})
	m.run("")
	if key := "run/" + keys(m.d.Triggers)[0]; m.outboxed(key) != KindTrigger {
		t.Fatalf("not approved: %+v", m.outbox)
	}
	m.hear(w.push("bob", "b2"))
	m.held = false
	m.run("")
	mustBeShut(t, m)
}

// The run has ended before the trigger's own answer came: it is not started once more.
func TestEndedBeforeItsAnswer(t *testing.T) {
	m, w := attack(t)
	w.down["trigger"] = 502
	m.hear(w.setLabel("mona", "CICD", true))
	key := keys(m.d.Triggers)[0]
	if m.outboxed("run/"+key) != KindTrigger {
		t.Fatalf("%+v", m.outbox)
	}
	m.held = true
	m.post(KindReport, Report{Key: key, State: forge.CheckSuccess, Attempt: 1, RunID: "5"})
	if m.run(""); m.outboxed("run/"+key) != KindCancel {
		t.Errorf("still to be started: %+v", m.outbox)
	}
}

// Run again after a refusal: the gate opens when it is accepted, not before.
func TestRetest_afterRefusal(t *testing.T) {
	m, w := approved(t)
	w.down["trigger"] = 404
	m.hearComment(w.comment("mona", "/retest"))
	if g := w.gate(sha("a1")); g != forge.CheckActionRequired {
		t.Fatalf("refused, and the gate shows %s", g)
	}
	clear(w.down)
	m.held = true
	m.hearComment(w.comment("mona", "/retest"))
	if m.d.Passing() {
		t.Error("passing before it was accepted")
	}
	m.held = false
	m.run("")
	m.pass(time.Minute)
	if g := w.gate(sha("a1")); g != forge.CheckSuccess {
		t.Errorf("accepted, and the gate shows %s", g)
	}
}

// No effect reaches the forge in a dry run, nor one that was wished for in a dry run after it.
func TestDryEffects(t *testing.T) {
	run := forge.Run{Key: "sb1-x", Ref: forge.Ref{Repo: testRepo, Number: 7}, SHA: sha("a1")}
	for _, dry := range []bool{true, false} {
		w := newWorld()
		w.open("bob", "a1")
		m := newSim(t, w)
		m.policy.DryRun = !dry
		for _, e := range []actor.Wish{
			{Kind: KindLabel, Want: encoded(labelOrder{Ref: run.Ref, Label: "CICD", Present: true, Dry: dry})},
			{Kind: KindTrigger, Want: encoded(RunOrder{Trigger: "ci", Base: "main", Run: run, Dry: dry})},
			{Kind: KindTrigger, Want: encoded(RunOrder{Trigger: "actions", Base: "main", Run: run, Rerun: w.now, Dry: dry})},
			{Kind: KindCancel, Want: encoded(RunOrder{Trigger: "ci", Run: run, Receipt: forge.Receipt{ID: "1"}, Dry: dry})},
			{Kind: KindSay, Want: encoded(commentOrder{Ref: run.Ref, Text: "x", Dry: dry})},
		} {
			do := func() actor.Outcome {
				return m.b.Do(t.Context(), m.s, actor.Entry{Wish: e}, w.now, func(context.Context) error { return nil })
			}
			if out := do(); out.Code != actor.Done || out.Note == "" || len(w.story) > 0 {
				t.Errorf("%s, decided dry=%t: %+v, %q", e.Kind, dry, out, w.story)
			}
		}
		m.policy.DryRun = false
		e := actor.Entry{Wish: actor.Wish{Kind: KindLabel, Want: encoded(labelOrder{Ref: run.Ref, Label: "CICD", Present: true})}}
		if m.b.Do(t.Context(), m.s, e, w.now, func(context.Context) error { return nil }); !slices.Equal(w.story, []string{"forge: label present"}) {
			t.Errorf("this test shows nothing: %q", w.story)
		}
	}
}

// After a lost answer a comment is not written twice, and a re-run is asked for again, since that is safe.
func TestUnsureEffects(t *testing.T) {
	w := newWorld()
	w.open("bob", "a1")
	m := newSim(t, w)
	run := forge.Run{Key: "sb1-x", Ref: w.pull.Ref, SHA: sha("a1")}
	do := func(kind string, want any) actor.Outcome {
		e := actor.Entry{Wish: actor.Wish{Kind: kind, Want: encoded(want)}, Unsure: w.now, Tries: 1}
		return m.b.Do(t.Context(), m.s, e, w.now, func(context.Context) error { return nil })
	}
	if out := do(KindSay, commentOrder{Ref: run.Ref, Text: "x"}); out.Code != actor.Done || len(w.said) > 0 {
		t.Errorf("%+v, said %q", out, w.said)
	}
	w.runs[run.Key] = &ran{run: run, starts: 1, native: true}
	if out := do(KindTrigger, RunOrder{Trigger: "actions", Base: "main", Run: run, Native: true, Rerun: w.now}); out.Code != actor.Done || w.reruns != 1 {
		t.Errorf("%+v, %d re-runs", out, w.reruns)
	}
	// A native cancel is done at once, and once more when a call that was on its way must have come through.
	out := do(KindCancel, RunOrder{Trigger: "actions", Run: run, Native: true})
	if out.Code != actor.Settling || out.After != Settle || !w.runs[run.Key].cancelled {
		t.Errorf("%+v", out)
	}
}
