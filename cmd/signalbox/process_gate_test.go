package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// presubmitIs waits until the presubmit's check on a commit shows a state. What a run comes to takes its way over the
// repository's runs, so nothing is at rest before that.
func (w *world) presubmitIs(sha, want string, pulls ...*sandbox.PR) {
	w.Helper()
	got := ""
	if !eventually(func() bool {
		w.deliver()
		if c := w.repo.Check(sha, "presubmit"); c != nil {
			got = c.State()
		}
		return got == want
	}) {
		w.Fatalf("presubmit at %.7s is %q, want %q", sha, got, want)
	}
	w.settle(pulls...)
}

// run is the newest run that was started.
func (w *world) run() *sandbox.Run {
	w.Helper()
	runs := w.repo.Runs()
	if len(runs) == 0 {
		w.Fatal("nothing runs")
	}
	return runs[len(runs)-1]
}

// A maintainer presses the button; results land on the pull request; a re-run makes a new check; /retest a new run.
func TestButtonResultsAndCommandsOverTheWire(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.shut(pr)
	sha := pr.Head()

	w.act()
	if !w.repo.Check(sha, gateCheck).ClickAction(w.mallory, "approve") {
		t.Fatal("there is no button")
	}
	w.settle(pr)
	w.shut(pr)
	w.act()
	w.repo.Check(sha, gateCheck).ClickAction(w.maya, "approve")
	w.settle(pr)
	w.open(pr)

	w.presubmitIs(sha, "queued", pr)
	run := w.run()
	w.act()
	run.Start()
	w.presubmitIs(sha, "in_progress", pr)
	w.act()
	run.Complete("skipped")
	w.presubmitIs(sha, "failure", pr) // a skipped run is no pass
	w.act()
	run.Rerun(w.maya)
	w.presubmitIs(sha, "queued", pr)
	w.act()
	run.Complete("success")
	w.presubmitIs(sha, "success", pr)

	w.act()
	pr.Comment(w.mallory, "/retest")
	w.presubmitIs(sha, "queued", pr)
	if again := w.run(); again == run {
		t.Error("/retest of the author started nothing")
	}
	w.gate(pr, sha, "success")

	// Pressed on a check of the former head; and an approval for another commit.
	gate := w.repo.Check(sha, gateCheck)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.shut(pr)
	w.act()
	w.repo.Check(sha, "presubmit").RequestRerun(w.maya)
	gate.RequestRerun(w.maya)
	pr.Comment(w.maya, "/ok-to-test "+sha)
	pr.Comment(w.maya, "> /ok-to-test "+pr.Head())
	pr.Comment(w.mallory, "/ok-to-test "+pr.Head())
	w.settle(pr)
	w.shut(pr)
	w.act()
	pr.Comment(w.maya, "/ok-to-test")
	w.settle(pr)
	w.shut(pr)
	said := 0
	for _, x := range w.forge.Writes(0) {
		if x.Kind == "comment" {
			said++
		}
	}
	if said != 1 {
		t.Errorf("we wrote %d comments, want one", said)
	}
	w.act()
	pr.Comment(w.maya, "fine\n\n/ok-to-test "+pr.Head())
	w.settle(pr)
	w.open(pr)
	w.act()
	pr.Comment(w.mallory, "/ok-to-test cancel")
	w.settle(pr)
	w.shut(pr)
}

// A merge group runs its presubmit once, its result ends its check, and what is gone is cancelled.
func TestMergeGroupOverTheWire(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.maya)
	w.settle(pr)

	w.act()
	g := pr.Enqueue(w.maya)
	w.presubmitIs(g.SHA, "queued")
	w.until("the group's run is started", func() bool {
		w.deliver()
		return w.run().Inputs["sha"] == g.SHA && w.repo.Gate(g.SHA, gateCheck) == "success"
	})
	run := w.run()
	if run.Inputs["pr"] != g.SHA {
		t.Errorf("the run is told pr %v", run.Inputs["pr"])
	}
	w.act()
	run.Complete("success")
	w.presubmitIs(g.SHA, "success")
	w.act()
	g.Leave(w.maya, "merged")
	w.settle(pr)

	other := w.opens(w.maya)
	w.settle(other)
	w.act()
	g = other.Enqueue(w.maya)
	w.presubmitIs(g.SHA, "queued")
	w.act()
	g.Leave(w.maya, "dequeued")
	w.presubmitIs(g.SHA, "cancelled")
	w.until("the group's run is cancelled", func() bool {
		return !slices.ContainsFunc(w.repo.Runs(), func(r *sandbox.Run) bool {
			return r.Inputs["sha"] == g.SHA && r.State() != "cancelled"
		})
	})
}

// A dry run tells in the story what it would do, and writes nothing.
func TestDryRunOverTheWire(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t), "SIGNALBOX_DRY_RUN=true")
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.act()
	pr.Comment(w.maya, "/ok-to-test cancel")
	pr.Comment(w.maya, "/ok-to-test")
	w.settle(pr)
	if writes := w.forge.Writes(0); len(writes) > 0 {
		t.Errorf("written: %+v", writes)
	}
	v, _ := w.see(w.subject(pr))
	d, err := decodePR(v)
	w.must(err)
	if len(d.Grants) != 1 || !strings.HasPrefix(d.Waits(), "Dry run") {
		t.Errorf("%+v: %s", d.Grants, d.Waits())
	}
	if told := w.told(pr); !strings.Contains(told, "would trigger") || !strings.Contains(told, "(would, but this is a dry run)") {
		t.Errorf("the story does not say what would be done:\n%s", told)
	}
	runs := prmanager.RunsSubject(forge.Repo{Instance: "github", ID: w.repo.ID})
	if v, busy := w.see(runs); busy != "" || len(v.Dead) > 0 {
		t.Errorf("%s: %s %+v", runs, busy, v.Dead)
	}
}
