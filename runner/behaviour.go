package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// Format is the format of a pool's mail. It has none: what comes, comes as an Ask.
const Format = 1

// admitRetry is the pause after a waiting run's record could not be read.
const admitRetry = 5 * time.Second

// Behaviour takes the turns of a pool: its deadlines, and runs that had to wait for room.
type Behaviour struct {
	record func(ctx context.Context, s state.Subject, key string) ([]byte, error)
}

var _ actor.Behaviour[Pool, Facts] = (*Behaviour)(nil)

// NewBehaviour makes the behaviour; record reads one record of a subject.
func NewBehaviour(record func(ctx context.Context, s state.Subject, key string) ([]byte, error)) *Behaviour {
	return &Behaviour{record}
}

// Facts are what a turn has looked up.
type Facts struct {
	Next *Order // the run that waits longest; nil = none, or it could not be read
}

// Look reads the run that waits longest, if there is room for it.
func (b *Behaviour) Look(ctx context.Context, s state.Subject, d Pool, _ actor.Inputs, now time.Time) Facts {
	t := begin(d, now)
	if len(d.Waiting) == 0 || !t.admits() {
		return Facts{}
	}
	raw, err := b.record(ctx, s, runRecord(d.Waiting[0]))
	if err != nil {
		return Facts{}
	}
	var o Order
	if err := json.Unmarshal(raw, &o); err != nil {
		return Facts{}
	}
	return Facts{Next: &o}
}

// Decide does what deadlines ask for and admits what waited.
func (b *Behaviour) Decide(_ state.Subject, d Pool, f Facts, in actor.Inputs, now time.Time) actor.Step[Pool] {
	t := begin(d, now)
	t.elapse()
	if f.Next != nil {
		t.waited(*f.Next)
	}
	s := t.step()
	if f.Next == nil && !s.Wake.IsZero() && !s.Wake.After(now) {
		s.Wake = now.Add(admitRetry)
	}
	for _, m := range in.Mail {
		s.Dead = append(s.Dead, actor.DeadMail{Seq: m.Seq, Reason: fmt.Sprintf("a pool takes no mail of kind %.40q", m.Kind)})
	}
	return s
}

// Do does nothing: all that is wished for is told.
func (b *Behaviour) Do(_ context.Context, _ state.Subject, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("nobody does effects of kind %q", e.Kind)}
}
