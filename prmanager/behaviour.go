package prmanager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Settle is how long after a call that may have left "not found" is not believed.
const Settle = 30 * time.Second

// Forge is one configured forge as a pull request needs it.
type Forge struct {
	Name      string // what texts call it: "GitHub"
	Self      Self
	Reader    Reader
	Labeller  Labeller
	Commenter Commenter
	Triggers  map[string]Trigger // by the name a policy uses
}

// Config is what New needs. Every function must be safe for concurrent use.
type Config struct {
	Forge  func(instance string) (Forge, error)
	Policy func(forge.Repo) Policy
	Pins   Pins
}

// Behaviour is a pull request as a subject of the engine.
type Behaviour struct {
	forge  func(instance string) (Forge, error)
	policy func(forge.Repo) Policy
	pins   Pins
}

var _ actor.Behaviour[PR, Facts] = (*Behaviour)(nil)

// New makes the behaviour.
func New(c Config) *Behaviour { return &Behaviour{forge: c.Forge, policy: c.Policy, pins: c.Pins} }

// heard is the inputs of a turn as events, oldest first: what our effects came to, then the mail.
func heard(s state.Subject, in actor.Inputs) (events []Event, dead []actor.DeadMail) {
	for _, r := range in.Results {
		events = append(events, Effected{r})
	}
	for _, m := range in.Mail {
		e, err := parse(s, m)
		if err != nil {
			dead = append(dead, actor.DeadMail{Seq: m.Seq, Reason: err.Error()})
			continue
		}
		events = append(events, e...)
	}
	if in.Reconcile != "" {
		events = append(events, Reconcile{Repair{Why: in.Reconcile}})
	}
	return events, dead
}

// repo is the repository as the document or, before there is one, the events name it.
func repo(s state.Subject, d PR, events []Event) forge.Repo {
	if d.Ref.Number != 0 {
		return d.Ref.Repo
	}
	for _, e := range events {
		switch e := e.(type) {
		case interface{ pull() forge.Pull }:
			return e.pull().Ref.Repo
		case Commented:
			return e.Ref.Repo
		case ApproveCli:
			return e.Ref.Repo
		case RevokeCli:
			return e.Ref.Repo
		case Reconcile:
			if e.Ref.Number != 0 {
				return e.Ref.Repo
			}
		}
	}
	return forge.Repo{Instance: s.Instance}
}

func (s Sighting) pull() forge.Pull { return s.Pull }

// Look answers what Decide would ask, no more: most turns ask nothing. A question with a backoff of its own is left
// alone until its time, unless mail came.
func (b *Behaviour) Look(ctx context.Context, s state.Subject, d PR, in actor.Inputs, now time.Time) Facts {
	events, _ := heard(s, in)
	f := Facts{Policy: b.policy(repo(s, d, events))}
	at, err := b.forge(s.Instance)
	if err != nil {
		return f // everything stays unknown
	}
	f.Self = at.Self
	undecided := func(f Facts) ([]Ask, PR) {
		step, asks := decide(s, d, f, events, now)
		return asks, step.Next
	}
	known := func(a Ask) (Fact[bool], bool) {
		for _, q := range d.Questions {
			if q.Ask.key() == a.key() && now.Before(q.Next) && len(in.Mail) == 0 && in.Reconcile == "" {
				return Fact[bool]{Why: q.Why}, true
			}
		}
		return Fact[bool]{}, false
	}
	return b.look(ctx, at, f, undecided, known)
}

// Decide judges the inputs by the facts.
func (b *Behaviour) Decide(s state.Subject, d PR, facts Facts, in actor.Inputs, now time.Time) actor.Step[PR] {
	events, dead := heard(s, in)
	step, _ := decide(s, d, facts, events, now)
	step.Dead = dead
	return step
}

// Do makes one wish true: a label write, a trigger, a cancel. A trigger re-reads the live pull request directly
// before it starts: what moved since the decision is decided again and not started.
func (b *Behaviour) Do(ctx context.Context, s state.Subject, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	at, err := b.forge(s.Instance)
	if err != nil {
		return status.Outcome(fmt.Errorf("find the forge of %s: %w", s, err))
	}
	ctx = forge.WithUrgency(ctx, forge.Urgency(e.Class)) // both name the same three orders
	switch e.Kind {
	case KindLabel:
		var o labelOrder
		if err := json.Unmarshal(e.Want, &o); err != nil {
			return unreadable(e, err)
		}
		if o.Dry || b.policy(o.Ref.Repo).DryRun {
			return would()
		}
		if o.Present {
			if err := confirm(ctx); err != nil {
				return stale(fmt.Errorf("before labelling %s: %w", s, err))
			}
		}
		if err := at.Labeller.SetLabel(ctx, o.Ref, o.Label, o.Present); err != nil {
			return status.Outcome(fmt.Errorf("set label of %s to present=%t: %w", s, o.Present, err))
		}
		return actor.Outcome{Code: actor.Done}
	case KindTrigger, KindCancel:
		var o RunOrder
		if err := json.Unmarshal(e.Want, &o); err != nil {
			return unreadable(e, err)
		}
		return b.policy(o.Run.Ref.Repo).do(ctx, at, o, e, now, confirm)
	case KindSay:
		var o commentOrder
		if err := json.Unmarshal(e.Want, &o); err != nil {
			return unreadable(e, err)
		}
		switch {
		case o.Dry || b.policy(o.Ref.Repo).DryRun:
			return would()
		case !e.Unsure.IsZero():
			return actor.Outcome{Code: actor.Done} // it may have been said: rather once too few than twice
		}
		if err := confirm(ctx); err != nil {
			return stale(fmt.Errorf("before answering on %s: %w", s, err))
		}
		if err := at.Commenter.Comment(ctx, o.Ref, o.Text); err != nil {
			return status.Outcome(fmt.Errorf("answer on %s: %w", s, err))
		}
		return actor.Outcome{Code: actor.Done}
	}
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("nobody does effects of kind %q", e.Kind)}
}

// do starts or cancels a run.
func (p Policy) do(ctx context.Context, at Forge, o RunOrder, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	if o.Dry || p.DryRun {
		return would()
	}
	trigger, ok := at.Triggers[o.Trigger]
	if !ok {
		return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("no trigger %q is configured any more", o.Trigger)}
	}
	if e.Kind == KindCancel {
		return cancel(ctx, trigger, o, e, now)
	}
	return start(ctx, at.Reader, trigger, o, e, now, confirm)
}

// start starts a run once: a call that may have left before is looked for first where that is possible, and "not
// found" is not believed before Settle.
func start(ctx context.Context, r Reader, trigger Trigger, o RunOrder, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	if at, ok := trigger.(Finder); ok && !e.Unsure.IsZero() && o.Rerun.IsZero() { // running again is safe to be sent twice
		receipt, found, err := at.Find(ctx, o.Run)
		switch wait := e.Unsure.Add(Settle).Sub(now); {
		case err != nil:
			return status.Outcome(fmt.Errorf("look for run %s: %w", o.Run.Key, err))
		case found:
			return actor.Outcome{Code: actor.Done, Data: encoded(receipt)}
		case wait > 0:
			return actor.Outcome{Code: actor.Settling, After: wait, Err: fmt.Errorf("run %s may still appear", o.Run.Key)}
		}
	}
	if o.Run.Ref.Number != 0 { // a merge group never moves
		live, err := r.Pull(ctx, o.Run.Ref)
		if err != nil {
			return status.Outcome(fmt.Errorf("read %s before starting run %s: %w", o.Run.Ref, o.Run.Key, err))
		}
		if !live.Open || live.Head.SHA != o.Run.SHA || live.Base.Name != o.Base {
			return stale(fmt.Errorf("%s has moved since run %s was granted", o.Run.Ref, o.Run.Key))
		}
	}
	if err := confirm(ctx); err != nil {
		return stale(fmt.Errorf("before starting run %s: %w", o.Run.Key, err))
	}
	if again, ok := trigger.(Rerunner); ok && !o.Rerun.IsZero() {
		if err := again.Rerun(ctx, o.Run, o.Rerun); err != nil {
			return status.Outcome(fmt.Errorf("run %s again: %w", o.Run.Key, err))
		}
		return actor.Outcome{Code: actor.Done}
	}
	receipt, err := trigger.Start(ctx, o.Run)
	if err != nil {
		out := status.Outcome(err) // it says what was attempted, and the check has little room for its end, the reason
		_, out.Quiet = errors.AsType[*Mistake](err)
		return out
	}
	return actor.Outcome{Code: actor.Done, Data: encoded(receipt)}
}

// cancel stops a run. One whose receipt never came is looked for first, where that is possible. Else a start that is
// under way may still come after the cancel, which is therefore said again.
func cancel(ctx context.Context, trigger Trigger, o RunOrder, e actor.Entry, now time.Time) actor.Outcome {
	at, finds := trigger.(Finder)
	if o.Receipt.ID == "" && !o.Native && finds {
		receipt, found, err := at.Find(ctx, o.Run)
		switch wait := later(e.Born, e.Unsure).Add(Settle).Sub(now); {
		case err != nil && forge.Classify(err).Class == forge.NotFound:
			return actor.Outcome{Code: actor.Done} // there is no such workflow: nothing was started
		case err != nil:
			return status.Outcome(fmt.Errorf("look for run %s to cancel it: %w", o.Run.Key, err))
		case found:
			o.Receipt = receipt
		case wait > 0:
			return actor.Outcome{Code: actor.Settling, After: min(wait, Settle/6), Err: fmt.Errorf("run %s may still appear", o.Run.Key)}
		default:
			return actor.Outcome{Code: actor.Done}
		}
	}
	if err := trigger.Cancel(ctx, o.Run, o.Receipt); err != nil {
		return status.Outcome(fmt.Errorf("cancel run %s: %w", o.Run.Key, err))
	}
	if wait := e.Unsure.Add(Settle).Sub(now); (o.Native || !finds) && !e.Unsure.IsZero() && wait > 0 {
		return actor.Outcome{Code: actor.Settling, After: wait, Err: fmt.Errorf("a run started for %s may still appear", o.Run.Key)}
	}
	return actor.Outcome{Code: actor.Done}
}

func unreadable(e actor.Entry, err error) actor.Outcome {
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("entry %s of kind %q cannot be read: %w", e.Key, e.Kind, err)}
}

// would is the end of every effect in a dry run.
func would() actor.Outcome {
	return actor.Outcome{Code: actor.Done, Note: "would, but this is a dry run"}
}

func stale(err error) actor.Outcome { return actor.Outcome{Code: actor.Stale, Err: err} }
