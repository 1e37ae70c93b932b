package status

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
)

// tells answers what the commit wishes to tell pull requests of presses and runs, in order.
func (l *loop) tells(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, e := range l.outbox {
		switch e.Kind {
		case KindPressed:
			var p Pressed
			if err := json.Unmarshal(e.Want, &p); err != nil || p.SHA != sha || p.By.ID != 9 {
				t.Fatalf("%s: %v", e.Want, err)
			}
			out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s", e.To.Key, p.What, p.Key)))
		case KindNative:
			var n Native
			if err := json.Unmarshal(e.Want, &n); err != nil || n.SHA != sha {
				t.Fatalf("%s: %v", e.Want, err)
			}
			out = append(out, fmt.Sprintf("%s run %d %s of %d", e.To.Key, n.RunID, n.Status, n.HeadRepoID))
		}
	}
	return out
}

// hears takes one mail and answers what is told of it.
func (l *loop) hears(t *testing.T, kind string, body any) []string {
	t.Helper()
	l.say(kind, body)
	l.decide()
	out := l.tells(t)
	l.run()
	return out
}

func TestPressed(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.presubmit(7, "sb1-a", 2, forge.CheckFailure)
	l.run()
	d := l.document()
	gate, run := d.Gates[gateName].ID, d.Runs["sb1-a"].ID
	press := func(id string, change ...func(*CheckRun)) CheckRun {
		c := CheckRun{Repo: repo, SHA: sha, CheckID: id, Name: gateName, ExternalID: "gate:1", Action: ActionRequested, Identifier: "approve", By: forge.Actor{ID: 9, Login: "mona"}}
		for _, f := range change {
			f(&c)
		}
		return c
	}
	rerun := func(c *CheckRun) { c.Action, c.Identifier = ActionRerequested, "" }
	for _, c := range []struct {
		name string
		in   CheckRun
		want []string
	}{
		{"approve", press(gate), []string{"7 approve"}},
		{"approve again", press(gate), []string{"7 approve"}},
		{"another button", press(gate, func(c *CheckRun) { c.Identifier = "deploy" }), nil},
		{"a check of the same name, and the same external id", press("4711"), nil},
		{"a check without an id", press(""), nil},
		{"the presubmit's check has no button", press(run), nil},
		{"re-run of the presubmit", press(run, rerun), []string{"7 rerun sb1-a"}},
		{"re-run of the gate", press(gate, rerun), []string{"7 recheck"}},
		{"re-run of a foreign check", press("4711", rerun), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := l.hears(t, KindCheckRun, c.in); !slices.Equal(got, c.want) {
				t.Errorf("told %q, want %q", got, c.want)
			}
		})
	}
	// The button of an older gate run, in a page that is still open.
	l.gate(7, 3, titled("Another text"))
	l.run()
	if now := l.document().Gates[gateName].ID; now == gate {
		t.Fatal("the new text did not make a new check run")
	}
	if got := l.hears(t, KindCheckRun, press(gate)); got != nil {
		t.Errorf("pressed on the older run, told %q", got)
	}
	// Two pull requests at one commit: nobody can tell which was meant. One left: the other.
	l.gate(8, 1)
	l.run()
	gate = l.document().Gates[gateName].ID
	if got := l.hears(t, KindCheckRun, press(gate)); got != nil {
		t.Errorf("several pull requests, told %q", got)
	}
	if got := l.hears(t, KindCheckRun, press(gate, rerun)); !slices.Equal(got, []string{"7 recheck", "8 recheck"}) {
		t.Errorf("told %q", got)
	}
	l.gate(7, 4, closed)
	l.run()
	gate = l.document().Gates[gateName].ID
	if got := l.hears(t, KindCheckRun, press(gate)); !slices.Equal(got, []string{"8 approve"}) {
		t.Errorf("told %q", got)
	}
	l.say(KindCheckRun, press(gate, func(c *CheckRun) { c.SHA = strings.Repeat("f", 40) }))
	if l.run(); len(l.dead) != 1 {
		t.Errorf("dead = %+v", l.dead)
	}
}

// A native run is told to every pull request of the commit, also to one whose head it is no longer; a merge group has
// none.
func TestNative(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.gate(8, 1)
	l.gate(8, 2, closed)
	group := Gate{Pull: subject, Ref: ref(0), SHA: sha, Check: gateName, Seq: 1, Open: true, Granted: true, Title: "Merge group"}
	group.Pull.Kind = "mq"
	l.say(KindGate, group)
	l.run()
	run := WorkflowRun{Repo: repo, SHA: sha, RunID: 5, Event: "pull_request", Status: "requested", HeadRepoID: 3}
	if got := l.hears(t, KindWorkflowRun, run); !slices.Equal(got, []string{"7 run 5 requested of 3", "8 run 5 requested of 3"}) {
		t.Errorf("told %q", got)
	}
	run.Event = "pull_request_target"
	if got := l.hears(t, KindWorkflowRun, run); got != nil {
		t.Errorf("told %q", got)
	}
}

// In a dry run nothing is written, nor is what was wished for in one once it is over; then everything begins anew.
func TestDryRun(t *testing.T) {
	l := newLoop(t)
	dry := func(g *Gate) { g.Dry = true }
	l.dry = true
	l.gate(7, 1, granted, dry)
	l.say(KindPresubmit, Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: "sb1-a", Name: "presubmit", Seq: 2, State: forge.CheckQueued, Tell: true, Dry: true})
	l.run()
	l.reconcile = "sweep"
	l.run()
	if l.hub.writes+l.hub.looks != 0 {
		t.Fatalf("a dry run wrote %d checks and read %d back", l.hub.writes, l.hub.looks)
	}
	if told := l.told[pull(7).String()+"/gate"]; len(told) == 0 || !told[0].OK || told[0].State != forge.CheckSuccess {
		t.Errorf("told back %+v", l.told)
	}
	l.gate(7, 3, dry) // in the outbox when the dry run ends
	l.decide()
	if !slices.ContainsFunc(l.outbox, func(e actor.Entry) bool { return e.Kind == kindCheck }) {
		t.Fatal("this test shows nothing")
	}
	l.dry = false
	l.gate(7, 4, granted, dry) // in the mailbox
	l.say(KindPresubmit, Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: "sb1-a", Name: "presubmit", Seq: 5, State: forge.CheckRunning, Dry: true})
	l.run()
	if l.hub.writes != 0 {
		t.Fatalf("%d checks were written of what a dry run wished for", l.hub.writes)
	}
	// What it believed to be shown is written now that it is wished for in earnest.
	l.dry = true
	l.gate(7, 6, granted, dry)
	l.run()
	l.dry = false
	l.gate(7, 7, granted)
	l.run()
	l.want(t, gateName, forge.CheckSuccess, 1)
	// What was wished for in earnest before a dry run is not written during it.
	l.gate(7, 8)
	l.decide()
	l.dry = true
	l.run()
	l.want(t, gateName, forge.CheckSuccess, 1)
}

// A gate whose write was refused has no check: a press on a check without an id is not on it.
func TestPressed_nothingShown(t *testing.T) {
	l := newLoop(t)
	l.hub.fail = func() fail { return refused }
	l.gate(7, 1)
	l.run()
	if l.document().Gates[gateName].ID != "" {
		t.Fatal("this test shows nothing")
	}
	press := CheckRun{Repo: repo, SHA: sha, Name: gateName, ExternalID: "gate:1", Action: ActionRequested, Identifier: PressedApprove, By: forge.Actor{ID: 9}}
	if got := l.hears(t, KindCheckRun, press); got != nil {
		t.Errorf("told %q", got)
	}
}
