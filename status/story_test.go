package status

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
)

const gateName = "CI gate"

func TestLife(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.want(t, gateName, forge.CheckActionRequired, 1)
	c := l.hub.runs[0]
	if c.ExternalID != "gate:1" || !c.Approve || c.Title != "Awaiting #7" || c.Summary != "reason" {
		t.Errorf("shut check = %+v", c)
	}
	if w := l.lastTold(7, "gate"); w.Seq != 1 || !w.OK || w.State != forge.CheckActionRequired {
		t.Errorf("told %+v", w)
	}
	if len(l.index) != 1 || l.index[0].Label != "github:octo/hello@0123456789ab" || l.index[0].Name != "name" || l.index[0].Score != 0 {
		t.Errorf("index = %+v", l.index)
	}

	l.gate(7, 2, granted)
	l.want(t, gateName, forge.CheckSuccess, 2)
	if c := l.hub.runs[1]; c.ExternalID != "gate:2" || c.Approve || c.ID == l.hub.runs[0].ID {
		t.Errorf("open check = %+v", c)
	}
	if w := l.lastTold(7, "gate"); w.Seq != 2 || w.State != forge.CheckSuccess {
		t.Errorf("told %+v", w)
	}

	l.gate(7, 3, granted) // nothing new: told, not written
	l.want(t, gateName, forge.CheckSuccess, 2)
	if w := l.lastTold(7, "gate"); w.Seq != 3 {
		t.Errorf("told %+v", w)
	}

	l.gate(7, 4, closed)
	l.want(t, gateName, forge.CheckCancelled, 3)
	if c := l.hub.runs[2]; c.Title != "Closed" || c.Approve {
		t.Errorf("closed check = %+v", c)
	}
	l.gate(7, 2, granted) // late
	l.want(t, gateName, forge.CheckCancelled, 3)
	if p := l.document().Pulls[pull(7).String()]; p.Title != "" || p.Summary != "" || p.Said != 4 {
		t.Errorf("a pull request that left keeps more than its place: %+v", p)
	}
}

func TestMergedLeavesTheCheck(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1, granted)
	l.want(t, gateName, forge.CheckSuccess, 1)
	l.gate(7, 2, merged)
	l.want(t, gateName, forge.CheckSuccess, 1)
	if w := l.lastTold(7, "gate"); w.Seq != 2 || !w.OK || w.State != forge.CheckSuccess {
		t.Errorf("told %+v", w)
	}
	l.gate(8, 1) // a stranger's pull request at the merged SHA is gated like any
	l.want(t, gateName, forge.CheckActionRequired, 2)
	l.gate(8, 2, closed)
	l.want(t, gateName, forge.CheckActionRequired, 2)
}

func TestNeverOpenIsNotWritten(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 3, closed)
	l.gate(7, 2, granted) // late
	l.want(t, gateName, "", 0)
	if w := l.lastTold(7, "gate"); w.Seq != 3 || !w.OK {
		t.Errorf("told %+v", w)
	}
	l.reconcile = "sweep"
	l.want(t, gateName, "", 0)
	if l.hub.looks != 0 {
		t.Errorf("%d looks for nothing", l.hub.looks)
	}
}

// A stranger opens a pull request at a maintainer's SHA: neither inherits nor squats (T7, T30).
func TestAttack_T07_T30_SharedSHA(t *testing.T) {
	l := newLoop(t)
	l.gate(3, 1, titled("Awaiting CICD label: <img src=x> @evil is [not](trusted)"))
	l.gate(9, 1)
	l.want(t, gateName, forge.CheckActionRequired, 1)
	s := l.hub.runs[0].Summary
	if !strings.Contains(s, "two PRs share this commit: use the label on the one you mean") || !strings.Contains(s, "- #3: ") || !strings.Contains(s, "- #9: ") {
		t.Errorf("summary = %q", s)
	}
	if strings.Contains(s, "<img") && !strings.Contains(s, `\<img`) || strings.Contains(s, " @evil") || strings.Contains(s, "](") {
		t.Errorf("outsider's text unescaped: %q", s)
	}
	l.gate(9, 2, granted)
	l.want(t, gateName, forge.CheckSuccess, 2)
	if c := l.hub.runs[1]; c.Title != "Approved by @maintainer for 0123456" {
		t.Errorf("the deciding pull request is #9, title %q", c.Title)
	}
	l.gate(9, 3, closed) // what is left is the stranger's, and it has no grant
	l.want(t, gateName, forge.CheckActionRequired, 3)
	l.gate(3, 2, closed)
	l.want(t, gateName, forge.CheckCancelled, 4)
}

func TestAttack_T30_HostileNumberOfPulls(t *testing.T) {
	l := newLoop(t)
	l.gate(5000, 7, granted)
	l.run()
	for n := 1; n <= 3*maxPulls; n++ {
		l.gate(n, 1)
		if n%50 == 0 {
			l.run()
		}
	}
	l.run()
	d := l.document()
	if len(d.Pulls) > maxPulls || len(l.doc) > maxPulls*400 {
		t.Fatalf("%d pull requests, %d bytes", len(d.Pulls), len(l.doc))
	}
	if l.hub.state(gateName) != forge.CheckSuccess {
		t.Fatal("the standing grant was squeezed out")
	}
	for n := 1; n <= 3*maxPulls; n++ {
		if w := l.lastTold(n, "gate"); w.Seq != 1 {
			t.Fatalf("#%d was told %+v", n, w)
		}
	}
	writes := l.hub.writes
	for n := 1000; n < 1100; n++ {
		l.gate(n, 1)
		l.run()
	}
	if l.hub.writes != writes {
		t.Errorf("%d more strangers cost %d writes", 100, l.hub.writes-writes)
	}
	l.gate(5000, 8, closed)
	for n := range 6 {
		for k := 1; k <= 50; k++ {
			l.gate(50*n+k, 2, closed)
		}
		l.run()
	}
	for n := 1000; n < 1100; n++ {
		l.gate(n, 2, closed)
	}
	l.run()
	if got := l.hub.state(gateName); got != forge.CheckCancelled || len(l.document().Pulls) > maxPulls {
		t.Errorf("after all left: %s, %d places", got, len(l.document().Pulls))
	}
}

// Squeezed out while a Written was owed: told so, never silently forgotten.
func TestCrowdedOutIsTold(t *testing.T) {
	l := newLoop(t)
	l.hub.fail = func() fail { return denied }
	for n := 1; n <= maxPulls+5; n++ {
		l.gate(n, 1)
	}
	for range 20 {
		l.step()
	}
	if w := l.lastTold(maxPulls+5, "gate"); w.Seq != 1 || w.OK || w.Why == "" {
		t.Errorf("told %+v", w)
	}
}

// Close a gated SHA, reopen it, open another at it: shut each time, never neutral (T28).
func TestAttack_T28_CloseAndReopen(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1, granted)
	l.want(t, gateName, forge.CheckSuccess, 1)
	l.gate(7, 2, closed)
	l.want(t, gateName, forge.CheckCancelled, 2)
	l.gate(7, 3)
	l.want(t, gateName, forge.CheckActionRequired, 3)
	l.gate(7, 4, closed)
	l.gate(8, 1)
	l.want(t, gateName, forge.CheckActionRequired, 4)
}

func TestChangeTakenBackBeforeItLeftIsNotWritten(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.want(t, gateName, forge.CheckActionRequired, 1)
	l.gate(7, 2, granted)
	l.step() // decided, not yet done
	l.gate(7, 3)
	l.want(t, gateName, forge.CheckActionRequired, 1)
	if w := l.lastTold(7, "gate"); w.Seq != 3 || !w.OK || w.State != forge.CheckActionRequired {
		t.Errorf("told %+v", w)
	}
}

// An opening whose answer was lost is taken back: the shutting write leaves at once, and is compared later, when the
// opening can no longer land.
func TestShuttingDoesNotWaitForAnUnsureOpening(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.run()
	var late *forge.Check
	l.hub.fail = func() fail { return broken }
	l.gate(7, 2, granted)
	l.step()
	l.step() // the call fails; it will land late
	l.hub.fail = nil
	at := l.now
	late = &forge.Check{Repo: repo, SHA: sha, Name: gateName, ExternalID: "gate:2", State: forge.CheckSuccess, ID: "late"}
	l.gate(7, 3)
	for l.hub.writes < 2 {
		if !l.step() {
			t.Fatal("the shutting write waits")
		}
	}
	if !l.now.Equal(at) {
		t.Fatalf("shutting took %s", l.now.Sub(at))
	}
	l.hub.runs = append(l.hub.runs, *late)
	l.run()
	if got := l.hub.state(gateName); got != forge.CheckActionRequired {
		t.Fatalf("the late opening stays: %s", got)
	}
}

func TestOpeningWaitsUntilNotFoundIsBelieved(t *testing.T) {
	for _, f := range []fail{lost, broken} {
		l := newLoop(t)
		l.gate(7, 1)
		l.run()
		calls := 0
		l.hub.fail = func() fail {
			if calls++; calls == 1 {
				return f
			}
			return works
		}
		l.gate(7, 2, granted)
		l.want(t, gateName, forge.CheckSuccess, 2)
		if f == lost && calls != 1 {
			t.Errorf("answer lost: %d calls", calls)
		}
		if f == broken && l.now.Sub(start) < Settle {
			t.Errorf("repeated after %s", l.now.Sub(start))
		}
	}
}

func TestRefusedIsToldAndTriedAgainWithTheNextWord(t *testing.T) {
	l := newLoop(t)
	l.hub.fail = func() fail { return refused }
	l.gate(7, 1, granted)
	l.want(t, gateName, "", 0)
	if w := l.lastTold(7, "gate"); w.OK || w.Seq != 1 || !strings.Contains(w.Why, "422") {
		t.Fatalf("told %+v", w)
	}
	l.hub.fail = nil
	l.gate(7, 2, granted)
	l.want(t, gateName, forge.CheckSuccess, 1)
	if w := l.lastTold(7, "gate"); !w.OK || w.Seq != 2 {
		t.Fatalf("told %+v", w)
	}
}

func TestRefusedIsTriedAgainByReconcile(t *testing.T) {
	l := newLoop(t)
	l.hub.fail = func() fail { return refused }
	l.gate(7, 1)
	l.run()
	l.hub.fail, l.reconcile = nil, "sweep"
	l.want(t, gateName, forge.CheckActionRequired, 1)
}

func TestReconcile(t *testing.T) {
	setup := func() *loop {
		l := newLoop(t)
		l.gate(7, 1)
		l.presubmit(7, "sb1-a", 2, forge.CheckQueued)
		l.want(t, gateName, forge.CheckActionRequired, 2)
		return l
	}
	t.Run("as believed", func(t *testing.T) {
		l := setup()
		l.reconcile = "takeover"
		l.want(t, gateName, forge.CheckActionRequired, 2)
		if l.hub.looks != 2 || !slices.Contains(l.why, whySame) {
			t.Errorf("%d looks, %v", l.hub.looks, l.why)
		}
	})
	t.Run("somebody opened it", func(t *testing.T) {
		l := setup()
		l.hub.runs = append(l.hub.runs, forge.Check{Name: gateName, ExternalID: "gate:99", State: forge.CheckSuccess, ID: "x"})
		l.reconcile = "takeover"
		l.want(t, gateName, forge.CheckActionRequired, 4)
		if c := l.hub.newest(gateName); c.ExternalID != "gate:2" {
			t.Errorf("reasserted as %s", c.ExternalID)
		}
	})
	t.Run("presubmit vanished", func(t *testing.T) {
		l := setup()
		l.hub.runs = l.hub.runs[:1]
		l.reconcile = "takeover"
		l.want(t, "presubmit", forge.CheckQueued, 2)
	})
	t.Run("blind at first", func(t *testing.T) {
		l := setup()
		l.hub.blind, l.reconcile = broken.err(), "takeover"
		l.step()
		if !l.wake.Equal(l.now.Add(lookAgain)) {
			t.Fatalf("wake %s", l.wake)
		}
		l.hub.blind = nil
		l.hub.runs = l.hub.runs[1:]
		l.want(t, gateName, forge.CheckActionRequired, 2)
	})
	t.Run("refused look", func(t *testing.T) {
		l := setup()
		l.hub.blind, l.reconcile = refused.err(), "takeover"
		l.want(t, gateName, forge.CheckActionRequired, 2)
	})
	t.Run("not asked", func(t *testing.T) {
		l := setup()
		l.gate(7, 2)
		l.run()
		if l.hub.looks != 0 {
			t.Errorf("%d looks", l.hub.looks)
		}
	})
}

func TestPresubmit(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued)
	l.want(t, "presubmit", forge.CheckQueued, 1)
	l.presubmit(7, "sb1-a", 2, forge.CheckRunning)
	l.want(t, "presubmit", forge.CheckRunning, 1)
	l.presubmit(7, "sb1-a", 3, forge.CheckQueued)
	l.want(t, "presubmit", forge.CheckRunning, 1)
	l.presubmit(7, "sb1-a", 4, forge.CheckFailure)
	l.want(t, "presubmit", forge.CheckFailure, 1)
	l.presubmit(7, "sb1-a", 6, forge.CheckRunning) // late report of the same attempt, whatever its number
	l.want(t, "presubmit", forge.CheckFailure, 1)
	if w := l.lastTold(7, "sb1-a"); w.Seq != 6 || w.State != forge.CheckFailure || !w.OK {
		t.Errorf("told %+v", w)
	}
	l.presubmit(7, "sb1-a", 5, forge.CheckSuccess) // older than what is known
	l.want(t, "presubmit", forge.CheckFailure, 1)
	l.presubmit(7, "sb1-a", 7, forge.CheckRunning, 2)
	l.want(t, "presubmit", forge.CheckRunning, 2)
	l.presubmit(7, "sb1-a", 8, forge.CheckSuccess, 1) // attempt 1 is over
	l.want(t, "presubmit", forge.CheckRunning, 2)
	l.presubmit(7, "sb1-a", 9, forge.CheckSuccess, 2)
	l.want(t, "presubmit", forge.CheckSuccess, 2)
	l.presubmit(7, "sb1-a", 10, forge.CheckFailure, 2) // a correction: a new check run
	l.want(t, "presubmit", forge.CheckFailure, 3)
	for i, c := range l.hub.runs {
		if c.ExternalID != "sb1-a" || c.Approve {
			t.Errorf("check run %d = %+v", i, c)
		}
	}
}

func TestPresubmitNeverPassesByAccident(t *testing.T) {
	for _, s := range []forge.CheckState{"neutral", "skipped", "stale", "", forge.CheckActionRequired} {
		l := newLoop(t)
		l.presubmit(7, "sb1-a", 1, s)
		l.want(t, "presubmit", forge.CheckFailure, 1)
	}
}

func TestPresubmitMayNotWriteTheGate(t *testing.T) {
	for _, gateFirst := range []bool{true, false} {
		l := newLoop(t)
		p := Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: "sb1-a", Name: "ci GATE", Seq: 2, State: forge.CheckSuccess, Tell: true}
		if gateFirst {
			l.gate(7, 1)
			l.say(KindPresubmit, p)
		} else {
			l.say(KindPresubmit, p)
			l.gate(7, 1)
		}
		l.want(t, gateName, forge.CheckActionRequired, 1)
		if w := l.lastTold(7, "sb1-a"); w.OK || w.Why == "" {
			t.Errorf("told %+v", w)
		}
	}
}

func TestCancelledBeforeItWasShown(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued)
	l.step()
	l.presubmit(7, "sb1-a", 2, forge.CheckCancelled)
	l.presubmit(7, "sb1-b", 3, forge.CheckCancelled)
	l.want(t, "presubmit", "", 0)
	for _, k := range []string{"sb1-a", "sb1-b"} {
		if w := l.lastTold(7, k); !w.OK || w.State != forge.CheckCancelled {
			t.Errorf("%s told %+v", k, w)
		}
	}
}

// A retest while the former run is shown: the former ends first, the new one is the newest.
func TestRunsOfOneNameAreShownInOrder(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-b", 1, forge.CheckRunning) // keys sort against age
	l.run()
	l.hub.fail = func() fail { return limited }
	l.presubmit(7, "sb1-b", 2, forge.CheckCancelled)
	for range 5 {
		l.step()
	}
	l.presubmit(7, "sb1-a", 3, forge.CheckQueued)
	for range 5 {
		l.step()
	}
	l.hub.fail = nil
	l.want(t, "presubmit", forge.CheckQueued, 2)
	if l.hub.runs[0].State != forge.CheckCancelled || l.hub.runs[0].ExternalID != "sb1-b" || l.hub.runs[1].ExternalID != "sb1-a" {
		t.Errorf("%+v", l.hub.runs)
	}
	l.presubmit(7, "sb1-b", 4, forge.CheckSuccess) // a late word of the former run covers nothing
	l.want(t, "presubmit", forge.CheckQueued, 2)
	if w := l.lastTold(7, "sb1-b"); w.OK || w.Seq != 4 {
		t.Errorf("told %+v", w)
	}
	// Another pull request's run of the same name is no newer version of this one.
	l.presubmit(8, "sb1-c", 1, forge.CheckQueued)
	l.presubmit(7, "sb1-a", 5, forge.CheckSuccess)
	l.want(t, "presubmit", forge.CheckQueued, 3)
	if l.hub.runs[1].State != forge.CheckSuccess {
		t.Errorf("%+v", l.hub.runs)
	}
}

func TestRunsAreBounded(t *testing.T) {
	l := newLoop(t)
	for i := range 3 * maxRuns {
		l.presubmit(7, fmt.Sprintf("sb1-%03d", i), int64(2*i+1), forge.CheckQueued)
		l.presubmit(7, fmt.Sprintf("sb1-%03d", i), int64(2*i+2), forge.CheckFailure)
		l.run()
	}
	if n := len(l.document().Runs); n > maxRuns {
		t.Errorf("%d runs", n)
	}
}

// jobs tells of a run and of its jobs, each "name state".
func (l *loop) jobs(key string, seq int64, is forge.CheckState, jobs ...string) {
	p := Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: key, Name: "presubmit", Seq: seq, State: is, URL: "https://ci.test/" + key}
	for _, j := range jobs {
		name, state, _ := strings.Cut(j, " ")
		p.Jobs = append(p.Jobs, Job{Name: name, State: forge.CheckState(state), Title: state, URL: p.URL + "#" + name})
	}
	l.say(KindPresubmit, p)
}

func TestJobs(t *testing.T) {
	l := newLoop(t)
	shows := func(name string, is forge.CheckState, made int) {
		t.Helper()
		l.run()
		n := 0
		for _, c := range l.hub.runs {
			if c.Name == name {
				n++
			}
		}
		if got := l.hub.state(name); got != is || n != made {
			t.Errorf("%s shows %q, %d made; want %q, %d", name, got, n, is, made)
		}
	}
	l.gate(7, 1)
	l.run()
	l.jobs("sb1-a", 2, forge.CheckQueued, "unit queued", "lint queued")
	l.step()
	l.gate(7, 3, granted)
	shows("presubmit", forge.CheckQueued, 1)
	var order []string
	for _, c := range l.hub.runs {
		order = append(order, c.Name)
		if job, part := strings.CutPrefix(c.Name, "presubmit / "); part != c.Part || part && (c.ExternalID != "sb1-a/"+job || c.URL != "https://ci.test/sb1-a#"+job || !slices.Equal(c.Pulls, []int{7})) {
			t.Errorf("%+v", c)
		}
	}
	if want := []string{gateName, "presubmit", gateName, "presubmit / lint", "presubmit / unit"}; !slices.Equal(order, want) {
		t.Errorf("written %q: nothing that opens waits for a job", order)
	}
	l.jobs("sb1-a", 3, forge.CheckRunning, "unit in_progress", "lint skipped", " success", "late queued")
	l.jobs("sb1-a", 4, forge.CheckFailure, "unit success", "lint failure", "late cancelled") // before "late" was shown
	shows("presubmit", forge.CheckFailure, 1)
	shows("presubmit / unit", forge.CheckSuccess, 1)
	shows("presubmit / lint", forge.CheckFailure, 1)
	shows("presubmit / late", "", 0)
	shows("presubmit / ", "", 0)
	l.jobs("sb1-a", 3, forge.CheckRunning, "unit failure") // late
	shows("presubmit / unit", forge.CheckSuccess, 1)

	// A press on a job's check means its run; a comparison looks at what counts.
	press := CheckRun{Repo: repo, SHA: sha, CheckID: l.hub.newest("presubmit / lint").ID, Action: ActionRerequested, By: forge.Actor{ID: 9, Login: "mona"}}
	if told := l.hears(t, KindCheckRun, press); !slices.Equal(told, []string{"7 rerun sb1-a"}) {
		t.Errorf("told %q", told)
	}
	looks := l.hub.looks
	l.reconcile = "sweep"
	l.run()
	if l.hub.looks != looks+2 {
		t.Errorf("%d looks", l.hub.looks-looks)
	}

	// The next run's are new checks, and a late word of the former's covers none.
	l.jobs("sb1-b", 5, forge.CheckQueued, "unit queued")
	shows("presubmit / unit", forge.CheckQueued, 2)
	l.jobs("sb1-a", 6, forge.CheckFailure, "unit failure")
	shows("presubmit / unit", forge.CheckQueued, 2)
}

// However many jobs there are, no run loses its place to one.
func TestJobsAreBounded(t *testing.T) {
	l := newLoop(t)
	for i := range 6 {
		var jobs []string
		for n := range maxJobs + 20 {
			jobs = append(jobs, fmt.Sprintf("job-%d success", n))
		}
		l.jobs(fmt.Sprintf("sb1-%d", i), int64(i+1), forge.CheckSuccess, jobs...)
		l.run()
	}
	runs, parts := 0, 0
	for _, r := range l.document().Runs {
		if r.Of == "" {
			runs++
		} else {
			parts++
		}
	}
	if runs != 6 || parts != maxParts {
		t.Errorf("%d runs and %d jobs are kept", runs, parts)
	}
	if n := len(l.hub.runs); n != 6*(1+maxJobs) {
		t.Errorf("%d checks were made", n)
	}
}

func TestGateRenamed(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1, granted)
	l.run()
	l.gate(7, 2, granted, func(g *Gate) { g.Check = "Gate 2" })
	l.want(t, "Gate 2", forge.CheckSuccess, 3)
	if l.hub.state(gateName) != forge.CheckCancelled {
		t.Error("the former name stays open")
	}
}

func TestBadMail(t *testing.T) {
	good := Gate{Pull: pull(7), Ref: ref(7), SHA: sha, Check: gateName, Seq: 1, Open: true, Granted: true}
	bad := map[string]func(*Gate){
		"other sha":     func(g *Gate) { g.SHA = strings.Repeat("f", 40) },
		"other repo":    func(g *Gate) { g.Ref.Repo.ID++ },
		"other project": func(g *Gate) { g.Pull.Project = "1" },
		"other forge":   func(g *Gate) { g.Pull.Instance = "gitlab" },
		"no name":       func(g *Gate) { g.Check = "" },
		"no seq":        func(g *Gate) { g.Seq = 0 },
	}
	for name, f := range bad {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t)
			g := good
			f(&g)
			l.say(KindGate, g)
			l.want(t, gateName, "", 0)
			if len(l.dead) != 1 || l.dead[0].Seq != 1 || l.dead[0].Reason == "" {
				t.Errorf("dead = %+v", l.dead)
			}
		})
	}
	t.Run("not json", func(t *testing.T) {
		l := newLoop(t)
		l.say(KindGate, "x")
		l.say(KindPresubmit, []int{1})
		l.say(KindPresubmit, Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Name: "p", Seq: 1})
		l.gate(7, 1)
		l.want(t, gateName, forge.CheckActionRequired, 1)
		if len(l.dead) != 3 {
			t.Errorf("dead = %+v", l.dead)
		}
	})
	t.Run("unknown kind", func(t *testing.T) {
		l := newLoop(t)
		l.say("nobody's", struct{}{})
		l.want(t, gateName, "", 0)
		if len(l.dead) != 0 || !slices.Contains(l.why, whyNobody) {
			t.Errorf("dead = %+v, why %v", l.dead, l.why)
		}
	})
}

func TestOutcome(t *testing.T) {
	for class, want := range map[forge.Class]actor.Code{
		forge.Retriable: actor.Failed, forge.Contention: actor.Contention, forge.Auth: actor.AuthPause,
		forge.Permanent: actor.Refused, forge.NotFound: actor.Refused,
	} {
		err := fmt.Errorf("write: %w", &forge.Fault{Class: class, After: time.Minute, Err: errors.New("x")})
		if o := Outcome(err); o.Code != want || o.After != time.Minute || !errors.Is(o.Err, err) {
			t.Errorf("%s: %+v", class, o)
		}
	}
	if o := Outcome(errors.New("x")); o.Code != actor.Failed {
		t.Errorf("no fault: %+v", o)
	}
}

func TestDoRefusesWhatItCannotRead(t *testing.T) {
	l := newLoop(t)
	for _, e := range []actor.Entry{
		{Wish: actor.Wish{Kind: "other", Want: []byte("{}")}},
		{Wish: actor.Wish{Kind: kindCheck, Want: []byte("no")}},
	} {
		if o := l.b.Do(t.Context(), subject, e, start, nil); o.Code != actor.Refused || o.Err == nil {
			t.Errorf("%+v", o)
		}
	}
	other := subject
	other.Instance = "nowhere"
	if o := l.b.Do(t.Context(), other, actor.Entry{Wish: actor.Wish{Kind: kindCheck, Want: []byte("{}")}}, start, nil); o.Code != actor.Failed {
		t.Errorf("%+v", o)
	}
}

// Nothing opens with unread mail: confirm stands directly before the call.
func TestConfirmBeforeOpening(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1, granted)
	l.step()
	l.gate(7, 2)
	l.do(0)
	if l.hub.writes != 0 || l.codes[0] != actor.Stale {
		t.Fatalf("%d writes, %v", l.hub.writes, l.codes)
	}
	l = newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued) // the first step of opening
	l.step()
	l.gate(7, 2, closed)
	l.do(0)
	if l.hub.writes != 0 {
		t.Fatal("queued with unread mail")
	}
	// A new text of an open gate is written under the same condition.
	l = newLoop(t)
	l.gate(7, 1, granted)
	l.run()
	l.gate(7, 2, granted, titled("Approved by @other"))
	l.step()
	if e := l.outbox[0]; e.Class != actor.Cosmetic {
		t.Fatalf("class %s", e.Class)
	}
	l.gate(7, 3)
	l.do(0)
	if l.hub.writes != 1 {
		t.Fatal("reopened")
	}
}

func TestClasses(t *testing.T) {
	l := newLoop(t)
	class := func(want actor.Class) {
		t.Helper()
		l.step()
		if got := l.outbox[0].Class; got != want || l.outbox[0].Key != "check/"+gateName {
			t.Errorf("%s %s, want %s", l.outbox[0].Key, got, want)
		}
	}
	l.gate(7, 1)
	class(actor.Shutting)
	l.run()
	l.gate(7, 2, titled("cannot verify @x: GitHub answers 502"))
	class(actor.Cosmetic)
	l.gate(7, 3, granted)
	class(actor.Permitting)
	l.hub.fail = func() fail { return broken }
	l.step()
	l.gate(7, 4, titled("another text")) // may overtake an opening: no mere text
	class(actor.Shutting)
	l.hub.fail = nil
	l.run()
	l.gate(7, 5, closed)
	class(actor.Shutting)
}

// The adapter keeps the last of its budget by the urgency of a write.
func TestUrgency(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.run()
	l.gate(7, 2, titled("text"))
	l.run()
	l.gate(7, 3, granted)
	l.run()
	if want := []forge.Urgency{forge.Shutting, forge.Cosmetic, forge.Permitting}; !slices.Equal(l.hub.urgency, want) {
		t.Errorf("urgency %v, want %v", l.hub.urgency, want)
	}
}

func TestAskedAgainIsToldAgainAndWritesNothing(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.presubmit(7, "sb1-a", 2, forge.CheckQueued)
	l.run()
	l.gate(7, 1)
	l.presubmit(7, "sb1-a", 2, forge.CheckQueued)
	l.run()
	if l.hub.writes != 2 || len(l.told[pull(7).String()+"/gate"]) != 2 || len(l.told[pull(7).String()+"/sb1-a"]) != 2 {
		t.Errorf("%d writes, told %v", l.hub.writes, l.told)
	}
}

func TestSilentIsNotTold(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1, silent)
	l.run()
	if len(l.told) != 0 {
		t.Errorf("told %v", l.told)
	}
	l.gate(7, 2, granted)
	l.step()
	l.gate(7, 3, silent, granted, titled("x")) // the question stays open
	l.run()
	if w := l.lastTold(7, "gate"); w.Seq != 3 || w.State != forge.CheckSuccess {
		t.Errorf("told %+v", w)
	}
}

// A neighbour that never rests does not keep an answer from others; what is told is what is shown, not what is wanted.
func TestToldAlthoughANeighbourKeepsChanging(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.step() // decided
	l.step() // written
	l.gate(3, 1, granted)
	l.run() // result and mail come together: something else is wanted already
	if w := l.lastTold(7, "gate"); w.Seq != 1 || !w.OK || w.State != forge.CheckActionRequired {
		t.Errorf("told %+v", w)
	}
}

// A refusal of what is no longer wanted is nobody's answer.
func TestRefusalOfAFormerWish(t *testing.T) {
	l := newLoop(t)
	l.hub.fail = func() fail { return refused }
	l.gate(7, 1)
	l.step()
	l.step()
	l.hub.fail = nil
	l.gate(3, 1, granted)
	l.run()
	if told := l.told[pull(7).String()+"/gate"]; len(told) != 1 || !told[0].OK || told[0].State != forge.CheckSuccess {
		t.Errorf("told %+v", told)
	}
}

// After a refusal nobody knows what is shown: going back to it is a write.
func TestBackToWhatWasShownBeforeARefusal(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.run()
	l.hub.fail = func() fail { return refused }
	l.gate(7, 2, granted)
	l.run()
	l.hub.fail = nil
	l.gate(7, 3)
	l.want(t, gateName, forge.CheckActionRequired, 2)
}

func TestReconcileLeavesAWriteUnderWayAlone(t *testing.T) {
	for _, first := range []fail{works, refused} {
		l := newLoop(t)
		l.hub.fail = func() fail { return first }
		l.gate(7, 1)
		l.run()
		l.gate(7, 2, granted)
		l.step()
		before := l.document().Gates[gateName].Seq
		l.reconcile = "sweep"
		l.step()
		if g := l.document().Gates[gateName]; g.Seq != before || l.hub.looks != 0 {
			t.Errorf("asked for again while under way, %d looks: %+v", l.hub.looks, g)
		}
	}
}

// Only the check made last is what a forge shows under a name.
func TestReconcileLooksForTheCheckMadeLast(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckFailure)
	l.run()
	l.presubmit(8, "sb1-b", 1, forge.CheckQueued)
	l.run()
	l.presubmit(7, "sb1-a", 2, forge.CheckQueued, 2)
	l.run()
	l.reconcile = "sweep"
	l.want(t, "presubmit", forge.CheckQueued, 3)
	// With a write of that name under way nobody knows which it is.
	l.presubmit(8, "sb1-c", 2, forge.CheckQueued)
	l.hub.fail = func() fail { return lost }
	l.step()
	l.step()
	l.reconcile, l.hub.fail = "takeover", nil
	l.want(t, "presubmit", forge.CheckQueued, 4)
	if l.hub.looks != 2 { // of the sweep, and of the write itself
		t.Errorf("%d looks", l.hub.looks)
	}
}

func TestUpdateMayBeSentTwice(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued)
	l.run()
	calls := 0
	l.hub.fail = func() fail {
		if calls++; calls == 1 {
			return broken
		}
		return works
	}
	l.presubmit(7, "sb1-a", 2, forge.CheckRunning)
	l.want(t, "presubmit", forge.CheckRunning, 1)
	if l.now.Sub(start) >= Settle {
		t.Errorf("an update waited %s", l.now.Sub(start))
	}
}

// Facts that were looked up for an older document say nothing.
func TestStaleFacts(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.run()
	l.gate(7, 2, granted)
	l.run()
	facts := Facts{gateFact(gateName): {Seq: 1}}
	step := l.b.Decide(subject, l.document(), facts, actor.Inputs{Reconcile: "takeover"}, l.now)
	if len(step.Wishes) != 0 {
		t.Errorf("wishes %s", encoded(step.Wishes))
	}
}

func TestSameSeqIsNeverNews(t *testing.T) {
	l := newLoop(t)
	l.gate(7, 1)
	l.run()
	l.gate(7, 1, granted)
	l.want(t, gateName, forge.CheckActionRequired, 1)
}

func TestSummaryStopsAtTen(t *testing.T) {
	l := newLoop(t)
	for n := 1; n <= maxListed+1; n++ {
		l.gate(n, 1)
	}
	l.want(t, gateName, forge.CheckActionRequired, 1)
	s := l.hub.runs[0].Summary
	if strings.Count(s, "\n- #") != maxListed || !strings.HasSuffix(s, "- and more") || !strings.HasPrefix(s, sharedMany) {
		t.Errorf("summary %q", s)
	}
	l.gate(maxListed+2, 1)
	l.want(t, gateName, forge.CheckActionRequired, 1)
}

func TestPresubmitQuestionStaysOpen(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued)
	l.say(KindPresubmit, Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: "sb1-a", Name: "presubmit", Seq: 2, State: forge.CheckRunning})
	l.run()
	if w := l.lastTold(7, "sb1-a"); w.Seq != 2 || w.State != forge.CheckRunning {
		t.Errorf("told %+v", w)
	}
}

func TestPresubmitRefusedIsTriedAgainWithTheNextWord(t *testing.T) {
	l := newLoop(t)
	l.hub.fail = func() fail { return refused }
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued)
	l.run()
	if w := l.lastTold(7, "sb1-a"); w.OK {
		t.Fatalf("told %+v", w)
	}
	l.hub.fail = nil
	l.presubmit(7, "sb1-a", 2, forge.CheckQueued)
	l.want(t, "presubmit", forge.CheckQueued, 1)
	if w := l.lastTold(7, "sb1-a"); !w.OK || w.Seq != 2 {
		t.Fatalf("told %+v", w)
	}
}

// Given up is not the same as not happened: the check may stand there, so its end is written.
func TestCancelledAfterGivingUp(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckQueued)
	l.step()
	x := l.outbox[0]
	l.outbox = nil
	l.results = []actor.Result{{Key: x.Key, Rev: x.Rev, Kind: x.Kind, Want: x.Want, Code: actor.GivenUp, Error: "25 tries"}}
	l.presubmit(7, "sb1-a", 2, forge.CheckCancelled)
	l.want(t, "presubmit", forge.CheckCancelled, 1)
}

func TestNewAttemptBeforeTheFormerEnded(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckRunning)
	l.run()
	l.presubmit(7, "sb1-a", 2, forge.CheckRunning, 2)
	l.want(t, "presubmit", forge.CheckRunning, 2)
	l.presubmit(7, "sb1-a", 3, forge.CheckSuccess, 2)
	l.run()
	l.presubmit(7, "sb1-a", 4, forge.CheckSuccess, 3)
	l.step()
	if c := l.outbox[0].Class; c != actor.Permitting {
		t.Errorf("the success of another attempt is %s", c)
	}
}

// An entry on its way keeps its place, though an older run of a neighbour has news.
func TestRunOnItsWayKeepsItsPlace(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckRunning)
	l.run()
	l.presubmit(8, "sb1-b", 1, forge.CheckQueued)
	l.step()
	l.presubmit(7, "sb1-a", 2, forge.CheckFailure)
	l.step()
	if len(l.outbox) != 1 || l.outbox[0].Rev != 3 || !strings.Contains(string(l.outbox[0].Want), "sb1-b") {
		t.Errorf("outbox %s", encoded(l.outbox))
	}
	l.want(t, "presubmit", forge.CheckQueued, 2)
}

// A newer run that is taken back before it was shown supersedes nothing.
func TestTakenBackRunSupersedesNothing(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-z", 1, forge.CheckRunning)
	l.run()
	l.presubmit(7, "sb1-a", 2, forge.CheckQueued)
	l.step()
	l.presubmit(7, "sb1-z", 3, forge.CheckFailure)
	l.presubmit(7, "sb1-a", 4, forge.CheckCancelled)
	l.want(t, "presubmit", forge.CheckFailure, 1)
}

func TestNeighboursDoNotSupersede(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckRunning)
	l.run()
	l.presubmit(8, "sb1-b", 1, forge.CheckRunning)
	l.run()
	l.presubmit(7, "sb1-a", 2, forge.CheckFailure)
	l.want(t, "presubmit", forge.CheckRunning, 2)
	if l.hub.runs[0].State != forge.CheckFailure {
		t.Errorf("%+v", l.hub.runs)
	}
}

func TestWriteAnswer(t *testing.T) {
	shown := func(seq int64) order { return order{Seq: seq, Check: forge.Check{State: forge.CheckSuccess}} }
	w := Write{Seq: 3, Asked: 3, Undo: 2, Want: Face{State: forge.CheckCancelled}}
	w.answer(actor.Result{Code: actor.Dropped}, shown(2))
	if !w.pending() {
		t.Error("what was dropped is not what is wanted now")
	}
	w.answer(actor.Result{Code: actor.Done}, shown(2))
	if !w.pending() || w.ShownSeq != 2 || w.Shown.State != forge.CheckSuccess {
		t.Errorf("the end of a former wish: %+v", w)
	}
	w.answer(actor.Result{Code: actor.Stale}, shown(3))
	if !w.pending() {
		t.Error("a stale entry is still there")
	}
	w.answer(actor.Result{Code: actor.Done}, shown(3))
	if w.pending() || w.out() {
		t.Errorf("the end of the wish: %+v", w)
	}
}

func TestJournal(t *testing.T) {
	b := New(nil, func(forge.Repo) bool { return false })
	l := newLoop(t)
	l.gate(7, 1)
	step := b.Decide(subject, Document{}, nil, actor.Inputs{Mail: l.mail}, start)
	want := `{"at":"2026-11-21T12:00:00Z","in":["gate github/1296269/pr/7 seq 1 open=true granted=false"],"why":["Gate_Shut"],"did":["write CI gate action_required"]}`
	if len(step.Journal) != 1 || !bytes.Equal(step.Journal[0], []byte(want)) {
		t.Errorf("journal %s", step.Journal)
	}
	if step := b.Decide(subject, step.Next, nil, actor.Inputs{}, start); len(step.Journal) != 0 {
		t.Errorf("journal of nothing: %s", step.Journal)
	}
}

// Opening waits for a look that can be believed, shutting for none.
func TestBlindWhenUnsure(t *testing.T) {
	for _, open := range []bool{true, false} {
		l := newLoop(t)
		l.hub.onLook = func(ctx context.Context) {
			end, _ := ctx.Deadline()
			if short := time.Until(end) <= lookTime; short == open {
				t.Errorf("open=%t: the look is short: %t", open, short)
			}
		}
		o := func(g *Gate) { g.Granted = open }
		l.gate(7, 1, o)
		l.hub.fail = func() fail { return broken }
		l.step()
		l.step()
		l.hub.fail, l.hub.blind = nil, broken.err()
		l.now = l.now.Add(2 * Settle)
		l.step()
		if wrote := l.hub.writes == 1; wrote == open {
			t.Errorf("open=%t: %d writes without seeing", open, l.hub.writes)
		}
	}
}
