package prmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// queue runs one merge group over a world, as sim does a pull request: it borrows sim's outbox.
type queue struct {
	*sim
	b    *Groups
	s    state.Subject
	d    GroupDoc
	wake time.Time
	told []string
	dead int
}

func newQueue(t *testing.T) *queue {
	m := newSim(t, newWorld())
	m.policy.Presubmits = []Presubmit{presubmit("unit*"), presubmit("actions!")}
	return &queue{sim: m, s: GroupSubject(testRepo, sha("9a")), b: NewGroups(Config{Forge: m.b.forge, Policy: m.b.policy})}
}

func (q *queue) group(gone bool) Group {
	return Group{Repo: testRepo, SHA: sha("9a"), BaseSHA: sha("ba5e"), BaseRef: "refs/heads/main", Gone: gone, At: q.w.now}
}

// hear takes one mail, or only the time where kind is empty, and works until nothing is due.
func (q *queue) hear(kind string, body any) {
	q.t.Helper()
	if kind != "" {
		q.post(kind, body)
	}
	for first := true; first || len(q.mail)+len(q.results) > 0 || q.effect(); first = false {
		in := actor.Inputs{Mail: q.mail, Results: q.results}
		if q.mail, q.results = nil, nil; !first && len(in.Mail)+len(in.Results) == 0 {
			continue
		}
		step := q.b.Decide(q.s, q.d, q.b.Look(q.t.Context(), q.s, q.d, in, q.w.now), in, q.w.now)
		q.d, q.wake = GroupDoc{}, step.Wake
		if err := json.Unmarshal(encoded(step.Next), &q.d); err != nil {
			q.t.Fatal(err)
		}
		q.dead += len(step.Dead)
		for _, w := range step.Why {
			q.why[w] = true
		}
		q.merge(step.Wishes)
	}
}

// effect does one entry: a tell to the commit, which tells back, or a trigger.
func (q *queue) effect() bool {
	if len(q.outbox) == 0 {
		return false
	}
	slices.SortStableFunc(q.outbox, func(a, b actor.Entry) int { return int(a.Class - b.Class) })
	e := q.outbox[0]
	if e.NotBefore.After(q.w.now) {
		return false
	}
	out := actor.Outcome{Code: actor.Done}
	if e.To == nil {
		out = q.b.Do(q.t.Context(), q.s, e, q.w.now, func(context.Context) error { return nil })
	} else {
		q.told = append(q.told, fmt.Sprintf("%s %s", e.Kind, e.To.Kind))
		switch e.Kind {
		case status.KindGate:
			var g status.Gate
			_ = json.Unmarshal(e.Want, &g)
			q.told = append(q.told, fmt.Sprintf("open=%t granted=%t merged=%t dry=%t", g.Open, g.Granted, g.Merged, g.Dry))
		case status.KindPresubmit:
			var p status.Presubmit
			_ = json.Unmarshal(e.Want, &p)
			q.told = append(q.told, string(p.State))
			for _, j := range p.Jobs {
				q.told = append(q.told, j.Name+" "+string(j.State))
			}
			if p.Tell {
				q.post(status.KindWritten, status.Written{Key: p.Key, SHA: p.SHA, Seq: p.Seq, OK: true})
			}
		}
	}
	switch out.Code {
	case actor.Done, actor.Refused:
		q.outbox = q.outbox[1:]
		r := actor.Result{Key: e.Key, Kind: e.Kind, Want: e.Want, Code: out.Code, Data: out.Data}
		if out.Err != nil {
			r.Error = out.Err.Error()
		}
		q.results = append(q.results, r)
	default:
		q.outbox[0].NotBefore = q.w.now.Add(max(out.After, time.Second))
	}
	return true
}

func (q *queue) want(told string) {
	q.t.Helper()
	if got := strings.Join(q.told, ", "); got != told {
		q.t.Errorf("told %s\nwant %s", got, told)
	}
	q.told = nil
}

func (q *queue) only() Started {
	q.t.Helper()
	if len(q.d.Triggers) != 1 {
		q.t.Fatalf("started: %+v", q.d.Triggers)
	}
	return q.d.Triggers[keys(q.d.Triggers)[0]]
}

// The gate is open at once, the presubmit is started once, and its result ends its check.
func TestGroup(t *testing.T) {
	q := newQueue(t)
	q.hear(KindGroup, q.group(false))
	q.want("gate commit, open=true granted=true merged=false dry=false, run repo, presubmit commit, queued, run repo")
	q.hear(KindGroup, q.group(false)) // said twice
	q.want("")
	run := q.only().Order.Run
	if r := q.w.runs[run.Key]; r == nil || r.starts != 1 || run.SHA != sha("9a") || run.BaseSHA != sha("ba5e") || run.Ref.Number != 0 || len(q.w.runs) != 1 {
		t.Fatalf("%+v, %+v", run, q.w.runs)
	}
	if q.wake.IsZero() {
		t.Error("nobody looks in case a delivery is lost")
	}
	q.hear(KindReport, Report{Key: run.Key, State: forge.CheckRunning, Attempt: 1, RunID: run.Key, Jobs: []Job{{Name: "unit", State: forge.CheckRunning}}})
	q.hear(KindReport, Report{Key: run.Key, State: "timed_out", Attempt: 1, RunID: run.Key})
	q.want("presubmit commit, in_progress, unit in_progress, presubmit commit, failure, unit failure")
	if !q.wake.IsZero() {
		t.Error("looks on, though all is over")
	}
	q.hear(KindGroup, q.group(true))
	q.want("gate commit, open=false granted=false merged=true dry=false")
	if q.w.calls["cancel"] != 0 {
		t.Error("cancelled what had ended")
	}
	for _, r := range []Reason{GroupAsked, GroupGone} {
		if !q.why[string(r)] {
			t.Errorf("%s was never passed", r)
		}
	}
}

func TestGroup_gone(t *testing.T) {
	q := newQueue(t)
	q.hear(KindGroup, q.group(false))
	q.told = nil
	q.hear(KindGroup, q.group(true))
	q.want("gate commit, open=false granted=false merged=true dry=false, presubmit commit, cancelled")
	if r := q.w.runs[q.only().Order.Run.Key]; !r.cancelled {
		t.Error("still runs")
	}
	q.hear(KindGroup, q.group(false)) // late
	q.want("")

	q = newQueue(t)
	q.hear(KindGroup, q.group(true)) // before it was asked for
	q.hear(KindGroup, q.group(false))
	q.want("")
	if len(q.w.runs) != 0 {
		t.Error("started for a group that is gone")
	}
}

// A result whose delivery was lost is looked for: the queue waits for it.
func TestGroup_lostResult(t *testing.T) {
	q := newQueue(t)
	q.hear(KindGroup, q.group(false))
	q.told = nil
	q.w.after[q.only().Order.Run.Key] = RunState{State: forge.CheckSuccess, Attempt: 1}
	q.hear("", nil)
	q.want("presubmit commit, success")
}

func TestGroup_edges(t *testing.T) {
	q := newQueue(t)
	q.w.self = Self{Actor: q.w.actor("max")} // a person's token cannot make check runs
	q.hear(KindGroup, q.group(false))
	q.want("")

	q = newQueue(t)
	q.policy.DryRun = true
	q.hear(KindGroup, q.group(false))
	q.want("gate commit, open=true granted=true merged=false dry=true, run repo, presubmit commit, queued")
	if len(q.w.runs) != 0 {
		t.Error("a dry run started something")
	}
	q.policy.DryRun = false
	q.hear("", nil)
	q.want("gate commit, open=true granted=true merged=false dry=false, run repo, presubmit commit, queued, run repo")
	if len(q.w.runs) != 1 {
		t.Errorf("started: %+v", q.w.runs)
	}

	q = newQueue(t)
	q.w.down["trigger"] = 404
	q.hear(KindGroup, q.group(false))
	q.want("gate commit, open=true granted=true merged=false dry=false, run repo, presubmit commit, queued, presubmit commit, failure")

	q = newQueue(t)
	other := q.group(false)
	other.Repo.ID++
	q.hear(KindGroup, other)
	q.hear(KindGroup, []byte("{"))
	q.hear("nonsense", 1)
	q.hear(status.KindPressed, status.Pressed{What: status.PressedRerun})
	if q.want(""); q.dead != 3 {
		t.Errorf("%d dead letters", q.dead)
	}
}
