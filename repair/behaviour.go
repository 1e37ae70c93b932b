package repair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// Behaviour is a sweep as a subject of the engine.
type Behaviour struct {
	forge   func(instance string) (Forge, error)
	allowed func(forge.Repo) bool
	store   Store
	send    func(context.Context, state.Delivery) (state.Accepted, error)
	every   time.Duration
	pace    Pace
	adopt   bool
	dryRun  bool
}

var _ actor.Behaviour[Sweep, Facts] = (*Behaviour)(nil)

// New makes the behaviour.
func New(c Config) *Behaviour {
	return &Behaviour{
		forge: c.Forge, allowed: c.Allowed, store: c.Store, send: c.Tell, every: c.Every, pace: c.Pace, adopt: c.Adopt, dryRun: c.DryRun,
	}
}

// Seed is the step that wakes a sweep when a process starts. One that lives goes on where it stands; only a pause that
// was configured longer before is cut short.
func (b *Behaviour) Seed(d Sweep, now time.Time) actor.Step[Sweep] {
	d.Next = earlier(d.Next, now.Add(b.every))
	return actor.Step[Sweep]{Next: d, Wake: now, Index: d.places(now)}
}

// Kinds of wishes.
const (
	kindTell      = "tell"
	kindRedeliver = "redeliver"
)

// Do tells a pull request, or asks the forge for a delivery. Both are harmless twice: the mail has an id of its own,
// and so has the delivery.
func (b *Behaviour) Do(ctx context.Context, s state.Subject, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
	switch e.Kind {
	case kindTell:
		var t told
		if err := json.Unmarshal(e.Want, &t); err != nil {
			return unreadable(e, err)
		}
		_, err := b.send(ctx, state.Delivery{
			Subject: prmanager.Subject(t.Ref), ID: t.ID, Kind: prmanager.KindReconcile, Format: prmanager.Format,
			Body: mustJSON(prmanager.Repair{Ref: t.Ref, Why: t.Why}), Hint: true,
		})
		switch {
		case errors.Is(err, state.ErrFull):
			return actor.Outcome{Code: actor.Contention, Err: err}
		case err != nil:
			return actor.Outcome{Code: actor.Failed, Err: err}
		}
		return actor.Outcome{Code: actor.Done}
	case kindRedeliver:
		var a asked
		if err := json.Unmarshal(e.Want, &a); err != nil {
			return unreadable(e, err)
		}
		f, err := b.forge(s.Instance)
		if err == nil {
			err = f.Log.Redeliver(forge.WithUrgency(ctx, forge.Cosmetic), a.Repo, a.Delivery)
		}
		return outcome(err)
	}
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("nobody does effects of kind %q", e.Kind)}
}

func unreadable(e actor.Entry, err error) actor.Outcome {
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("entry %s of kind %q cannot be read: %w", e.Key, e.Kind, err)}
}

// outcome is what a request for a delivery came to. One that the forge refuses for good is no dead letter: the pull
// request is compared anyway.
func outcome(err error) actor.Outcome {
	if err == nil {
		return actor.Outcome{Code: actor.Done}
	}
	f := forge.Classify(err)
	o := actor.Outcome{Code: actor.Failed, Err: err, After: f.After}
	switch f.Class {
	case forge.Contention:
		o.Code = actor.Contention
	case forge.Auth, forge.Permanent, forge.NotFound:
		o.Code, o.Quiet = actor.Refused, true
	case forge.Retriable:
	}
	return o
}
