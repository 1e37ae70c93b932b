package prmanager

import (
	"testing"
	"time"
)

// newWitnessed is a forge that has kept who pushed what.
func newWitnessed(t *testing.T) (*sim, *world) {
	w := newWorld()
	w.keeps = true
	return newSim(t, w), w
}

// A trusted person's push is overtaken by an outsider's before the forge tells of it. What it tells first must not run.
func TestDoc_PusherProven(t *testing.T) {
	for _, draft := range []bool{false, true} {
		m, w := newWitnessed(t)
		m.hear(w.open("mona", "a1"))
		mustBeOpen(t, m)
		first, second := w.push("mona", "b2"), w.push("bob", "c3")
		first.Before, first.After, first.Pull = "", second.After, second.Pull
		m.hear(first)
		mustBeShut(t, m)
		mustPass(t, m, UnknownPusher)
		if started := w.calls["trigger"]; started != 1 {
			t.Errorf("%d runs were started, want that of the first commit", started)
		}
		if draft { // what was found out once stays so
			m.hear(w.draft("mona", true), w.draft("mona", false))
			mustBeShut(t, m)
		}
		m.hear(second)
		mustBeShut(t, m)
		third := w.push("max", "d4")
		third.Before = ""
		m.hear(third)
		mustBeOpen(t, m)
	}
}

// What does not show yet is asked again, and opens nothing until it does; nor does an answer about another head.
func TestDoc_PusherProvenLate(t *testing.T) {
	m, w := newWitnessed(t)
	m.hear(w.open("mona", "a1"))
	w.down["push"] = 502
	pushed := w.push("mona", "b2")
	pushed.Before = "" // or the approval would be carried over
	m.hear(pushed)
	mustBeShut(t, m)
	m.pass(10 * time.Minute)
	mustBeShut(t, m)
	if q := m.d.Questions; len(q) != 1 || q[0].text() != "cannot tell yet who pushed: GitHub answers 502" {
		t.Errorf("%+v", q)
	}
	w.down["push"] = 0
	m.pass(20 * time.Minute)
	mustBeOpen(t, m)

	w.pushes = nil
	w.pull.Head.SHA = sha("c3")
	m.hear(w.note("mona", ActionOpened))
	mustBeShut(t, m)
}

// Strict: nor does a label approve what somebody else may have pushed.
func TestDoc_PusherProvenStrict(t *testing.T) {
	m, w := newWitnessed(t)
	m.policy.Strict = true
	m.hear(w.open("mona", "a1"))
	first, second := w.push("mona", "b2"), w.push("bob", "c3")
	first.Before, first.After, first.Pull = "", second.After, second.Pull
	m.hear(first)
	w.now = w.now.Add(time.Hour)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeShut(t, m)
	mustPass(t, m, StrictRefused)
}

// The label history makes the live pull request old: who pushed is asked only when it was read anew.
func TestLookAfterHistory(t *testing.T) {
	m, w := newWitnessed(t)
	w.open("mona", "a1")
	w.push("mona", "b2")
	push := Ask{Kind: AskPush, Who: w.actor("mona"), Key: w.pull.Head.SHA}
	at, err := m.b.forge(instance)
	if err != nil {
		t.Fatal(err)
	}
	f := m.b.look(t.Context(), at, Facts{}, func(f Facts) ([]Ask, PR) {
		switch {
		case !f.Live.Known:
			return []Ask{{Kind: AskLive}}, PR{}
		case !f.History.Known:
			return []Ask{push, {Kind: AskHistory}}, PR{}
		}
		return []Ask{push}, PR{}
	}, func(Ask) (Fact[bool], bool) { return Fact[bool]{}, false })
	if !f.Trusts[push.key()].Value || w.calls["push"] != 1 {
		t.Errorf("%+v after %d questions", f.Trusts, w.calls["push"])
	}
}

// Nobody is asked who pushed where that decides nothing: of the head that was opened, in the base repository, of a draft,
// or where somebody untrusted told of it.
func TestDoc_PusherProvenOnlyWhereNeeded(t *testing.T) {
	for _, how := range []string{"same", "draft", "bob"} {
		m, w := newWitnessed(t)
		author := "mona"
		m.hear(w.open(author, "a1", how))
		if how == "bob" {
			author = "bob"
		}
		m.hear(w.push(author, "b2"))
		if n := w.calls["push"]; n != 0 {
			t.Errorf("%s: asked %d times", how, n)
		}
	}
}
