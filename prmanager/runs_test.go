package prmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// ledger runs the subject of a repository's runs over records in memory.
type ledger struct {
	t       *testing.T
	records map[string][]byte
	down    error
	d       RunsBook
	wake    time.Time
	seq     int64
	dead    int
}

func (l *ledger) record(_ context.Context, _ state.Subject, key string) ([]byte, error) {
	if l.down != nil {
		return nil, l.down
	}
	if b, ok := l.records[key]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("read: %w", state.ErrNotFound)
}

// hear takes mail in one turn and answers the reports told.
func (l *ledger) hear(mail ...any) []string {
	l.t.Helper()
	var in actor.Inputs
	for _, m := range mail {
		l.seq++
		kind := status.KindWorkflowRun
		switch m := m.(type) {
		case RunOf:
			kind = KindRun
		case string:
			kind = m
		}
		in.Mail = append(in.Mail, state.Mail{Seq: l.seq, Kind: kind, Format: Format, Body: encoded(m)})
	}
	b, s, now := NewRuns(l.record), RunsSubject(testRepo), time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	step := b.Decide(s, l.d, b.Look(l.t.Context(), s, l.d, in, now), in, now)
	l.d = RunsBook{}
	if err := json.Unmarshal(encoded(step.Next), &l.d); err != nil {
		l.t.Fatal(err)
	}
	l.wake = step.Wake
	l.dead += len(step.Dead)
	for _, r := range step.Put {
		if r.TTL != runsLife {
			l.t.Errorf("%s is kept for %s", r.Key, r.TTL)
		}
		l.records[r.Key] = r.Value
	}
	var out []string
	for _, w := range step.Wishes {
		var r Report
		if err := json.Unmarshal(w.Want, &r); err != nil || w.Kind != KindReport {
			l.t.Fatalf("%+v: %v", w, err)
		}
		out = append(out, fmt.Sprintf("%s %s %s run %s attempt %d", w.To.Kind, w.To.Key, r.State, r.RunID, r.Attempt))
	}
	return out
}

func TestRuns(t *testing.T) {
	const key = "sb1-abcdefghijklmnopqrstuvwxyz"
	pr := Subject(forge.Ref{Repo: testRepo, Number: 7})
	ours := RunOf{Key: key, Subject: pr, Source: Source{Event: "workflow_dispatch", Path: ".github/workflows/presubmit.yml"}}
	run := func(id int64, change ...func(*status.WorkflowRun)) status.WorkflowRun {
		w := status.WorkflowRun{
			Repo: testRepo, SHA: sha("fade"), RunID: id, Key: key, Event: "workflow_dispatch", Path: ".github/workflows/presubmit.yml",
			Status: "in_progress", Attempt: 1,
		}
		for _, c := range change {
			c(&w)
		}
		return w
	}
	ended := func(how string) func(*status.WorkflowRun) {
		return func(w *status.WorkflowRun) { w.Status, w.Conclusion = "completed", how }
	}
	begin := func(t *testing.T) *ledger {
		l := &ledger{t: t, records: map[string][]byte{}}
		if out := l.hear(ours); out != nil {
			t.Fatal(out)
		}
		return l
	}
	equal := func(t *testing.T, got []string, want ...string) {
		t.Helper()
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("told %q, want %q", got, want)
		}
	}

	t.Run("by key, then by id", func(t *testing.T) {
		l := begin(t)
		equal(t, l.hear(run(5)), "pr 7 in_progress run 5 attempt 1")
		equal(t, l.hear(run(6, ended("success")))) // the same title, another run
		equal(t, l.hear(run(5, ended("success"), func(w *status.WorkflowRun) { w.Attempt = 2 })), "pr 7 success run 5 attempt 2")
	})
	t.Run("the receipt decides", func(t *testing.T) {
		l := begin(t)
		l.hear(run(6))
		told := ours
		told.RunID = "5"
		equal(t, l.hear(told, run(6, ended("success")), run(5, ended("failure"))), "pr 7 failure run 5 attempt 1")
	})
	t.Run("in one turn", func(t *testing.T) {
		l := &ledger{t: t, records: map[string][]byte{}}
		equal(t, l.hear(ours, run(5), run(5, ended("success"))), "pr 7 in_progress run 5 attempt 1", "pr 7 success run 5 attempt 1")
	})
	// Whoever may write a title, of an issue or a pull request, may write a key into it.
	for name, forged := range map[string]func(*status.WorkflowRun){
		"of another event":    func(w *status.WorkflowRun) { w.Event = "issue_comment" },
		"of another workflow": func(w *status.WorkflowRun) { w.Path = ".github/workflows/x.yml" },
		"of nobody's key":     func(w *status.WorkflowRun) { w.Key = "sb1-zzzzzzzzzzzzzzzzzzzzzzzzzz" },
		"without a key":       func(w *status.WorkflowRun) { w.Key = "" },
	} {
		t.Run(name, func(t *testing.T) {
			l := begin(t)
			equal(t, l.hear(run(9, forged, ended("success"))))
			equal(t, l.hear(run(5)), "pr 7 in_progress run 5 attempt 1")
		})
	}
	for conclusion, want := range map[string]forge.CheckState{
		"success": forge.CheckSuccess, "cancelled": forge.CheckCancelled, "failure": forge.CheckFailure, "skipped": forge.CheckFailure,
		"neutral": forge.CheckFailure, "stale": forge.CheckFailure, "startup_failure": forge.CheckFailure, "timed_out": forge.CheckFailure,
		"action_required": forge.CheckFailure, "": forge.CheckFailure, "SUCCESS": forge.CheckFailure,
	} {
		if got := RunResult("completed", conclusion); got != want {
			t.Errorf("completed/%s is %s, want %s", conclusion, got, want)
		}
	}
	for _, waiting := range []string{"queued", "requested", "waiting", "pending", ""} {
		if got := RunResult(waiting, "success"); got != forge.CheckQueued {
			t.Errorf("%s is %s", waiting, got)
		}
	}
	t.Run("the store does not answer", func(t *testing.T) {
		l := begin(t)
		l.down = errors.New("down")
		equal(t, l.hear(run(5)))
		if l.wake.IsZero() || len(l.d.Waiting) != 1 {
			t.Fatalf("lost: %+v", l.d)
		}
		for range 300 {
			l.hear(run(5))
		}
		if len(l.d.Waiting) != runsWaiting {
			t.Errorf("%d wait", len(l.d.Waiting))
		}
		l.d.Waiting = l.d.Waiting[:1]
		l.down = nil
		equal(t, l.hear(), "pr 7 in_progress run 5 attempt 1")
		if len(l.d.Waiting) != 0 {
			t.Errorf("waits: %+v", l.d)
		}
	})
	t.Run("unreadable", func(t *testing.T) {
		l := begin(t)
		foreign, elsewhere := ours, run(5, func(w *status.WorkflowRun) { w.Repo.ID++ })
		foreign.Subject.Project = "1"
		equal(t, l.hear(foreign, elsewhere, "nonsense"))
		if l.dead != 3 {
			t.Errorf("%d dead letters", l.dead)
		}
	})
}
