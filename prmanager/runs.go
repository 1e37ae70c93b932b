package prmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Runs is the subject of a repository that knows which run of the CI side belongs to which pull request or merge
// group. A run sits on the commit of some branch, never on the pull request's, so it is never matched by commit: first
// by its key, if it comes from where the trigger's runs come from, and from then on by its id.
//
// What it knows is kept in records beside the document, one for each key: a busy repository has thousands, and a turn
// needs one or two.
type Runs struct {
	record func(ctx context.Context, s state.Subject, key string) ([]byte, error)
}

var _ actor.Behaviour[RunsBook, RunFacts] = (*Runs)(nil)

// NewRuns makes the behaviour. record reads one record of a subject and answers state.ErrNotFound where there is none.
func NewRuns(record func(ctx context.Context, s state.Subject, key string) ([]byte, error)) *Runs {
	return &Runs{record}
}

// RunsBook is the document: only what could not be looked up yet.
type RunsBook struct {
	Waiting []status.WorkflowRun `json:"waiting,omitempty"` // oldest first
}

// RunFacts are the records of the keys that a turn is about; a key without a record has a zero one.
type RunFacts map[string]Fact[RunOf]

const (
	// runsLife is how long a key is known after it was last heard of: runs can be re-run for 30 days.
	runsLife = 35 * 24 * time.Hour
	// runsWaiting bounds RunsBook.Waiting; the oldest gives way, and a comparison finds what became of its run.
	runsWaiting = 200
	runsRetry   = 5 * time.Second
)

func runRecord(key string) string { return "run/" + key }

// heardRuns decodes the mail.
func heardRuns(s state.Subject, in actor.Inputs) (filed []RunOf, ran []status.WorkflowRun, dead []actor.DeadMail) {
	for _, m := range in.Mail {
		var err error
		switch m.Kind {
		case KindRun:
			var r RunOf
			if r, err = decode[RunOf](m.Body); err == nil && (r.Subject.Instance != s.Instance || r.Subject.Project != s.Project || r.Key == "") {
				err = errForeign
			}
			if err == nil {
				filed = append(filed, r)
			}
		case status.KindWorkflowRun:
			var w status.WorkflowRun
			if w, err = decode[status.WorkflowRun](m.Body); err == nil && RunsSubject(w.Repo) != s {
				err = errForeign
			}
			if err == nil && w.Key != "" {
				ran = append(ran, w)
			}
		default:
			err = fmt.Errorf("no run is told by mail of kind %q", plain(m.Kind, 40))
		}
		if err != nil {
			dead = append(dead, actor.DeadMail{Seq: m.Seq, Reason: err.Error()})
		}
	}
	return filed, ran, dead
}

// Look reads the records of the keys that the mail is about.
func (b *Runs) Look(ctx context.Context, s state.Subject, d RunsBook, in actor.Inputs, _ time.Time) RunFacts {
	_, ran, _ := heardRuns(s, in)
	facts := RunFacts{}
	for _, w := range append(slices.Clone(d.Waiting), ran...) {
		if _, looked := facts[w.Key]; looked {
			continue
		}
		raw, err := b.record(ctx, s, runRecord(w.Key))
		f := Fact[RunOf]{Known: err == nil || errors.Is(err, state.ErrNotFound), Looked: true}
		if err == nil {
			_ = json.Unmarshal(raw, &f.Value) // our own
		}
		facts[w.Key] = f
	}
	return facts
}

// Decide files keys and reports what became of their runs.
func (b *Runs) Decide(s state.Subject, d RunsBook, facts RunFacts, in actor.Inputs, now time.Time) actor.Step[RunsBook] {
	filed, ran, dead := heardRuns(s, in)
	step := actor.Step[RunsBook]{Keep: kept, Dead: dead}
	known := map[string]RunOf{}
	put := func(r RunOf) {
		known[r.Key] = r
		step.Put = append(step.Put, state.Record{Key: runRecord(r.Key), Value: encoded(r), TTL: runsLife})
	}
	for _, r := range filed {
		put(r)
	}
	for _, w := range append(slices.Clone(d.Waiting), ran...) {
		r, ok := known[w.Key]
		if f := facts[w.Key]; !ok && !f.Known {
			step.Next.Waiting = append(step.Next.Waiting, w)
			step.Wake = now.Add(runsRetry)
			continue
		} else if !ok {
			r = f.Value
		}
		id := runID(w.RunID)
		switch {
		case r.Key == "", r.RunID != "" && r.RunID != id:
			continue // not ours, whatever its title says
		case r.RunID == "" && (w.Event != r.Source.Event || r.Source.Path != "" && w.Path != r.Source.Path):
			continue
		case r.RunID == "":
			r.RunID = id
			put(r)
		}
		step.Why = []string{string(RunReport)}
		is := RunResult(w.Status, w.Conclusion)
		step.Wishes = append(step.Wishes, actor.Wish{
			// Each attempt and state has a key of its own: one that was not delivered yet must not be lost to a late other.
			Key: fmt.Sprintf("report/%s/%d/%s", w.Key, w.Attempt, is), Class: actor.Shutting, Kind: KindReport, To: &r.Subject,
			Want: encoded(Report{Key: w.Key, State: is, URL: w.URL, RunID: id, Attempt: w.Attempt}),
		})
	}
	step.Next.Waiting = step.Next.Waiting[max(0, len(step.Next.Waiting)-runsWaiting):]
	return step
}

// Do does nothing: all that is wished for is told.
func (b *Runs) Do(_ context.Context, _ state.Subject, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("nobody does effects of kind %q", e.Kind)}
}

// RunResult reads a run's status and conclusion, in GitHub's words. Only success is a pass (P10).
func RunResult(state, conclusion string) forge.CheckState {
	switch {
	case state == "in_progress":
		return forge.CheckRunning
	case state != "completed":
		return forge.CheckQueued
	case conclusion == "success":
		return forge.CheckSuccess
	case conclusion == "cancelled":
		return forge.CheckCancelled
	}
	return forge.CheckFailure
}

func runID(id int64) string { return strconv.FormatInt(id, 10) }
