package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// Format is the format of a pool's mail. It has none: what comes, comes as an Ask.
const Format = 1

// admitRetry is the pause after the records of waiting runs could not be read.
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
	Next []*Order // the runs that wait longest, as far as there may be room and they could be read; nil: cancelled meanwhile
}

// Look reads the runs that wait longest, if there is room for them.
func (b *Behaviour) Look(ctx context.Context, s state.Subject, d Pool, _ actor.Inputs, _ time.Time) (f Facts) {
	for seat, room := d.Seated+1, d.room(); seat <= d.LastSeat && room > 0 && len(f.Next) < maxOpenJobs; seat++ {
		o, err := b.seated(ctx, s, seat)
		if err != nil {
			break // those behind it wait, too
		}
		if o != nil {
			room -= len(o.Jobs)
		}
		f.Next = append(f.Next, o)
	}
	return f
}

// seated reads the run in a seat; nil if it has left.
func (b *Behaviour) seated(ctx context.Context, s state.Subject, seat int64) (*Order, error) {
	var in waiting
	raw, err := b.record(ctx, s, seatRecord(seat))
	if err == nil {
		err = json.Unmarshal(raw, &in)
	}
	if err == nil {
		raw, err = b.record(ctx, s, runRecord(in.Run))
	}
	var o Order
	if err == nil {
		err = json.Unmarshal(raw, &o)
	}
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the run in seat %d: %w", seat, err)
	}
	return &o, nil
}

// Decide does what deadlines ask for and admits what waited.
func (b *Behaviour) Decide(_ state.Subject, d Pool, f Facts, in actor.Inputs, now time.Time) actor.Step[Pool] {
	t := begin(d, now)
	t.elapse()
	t.waited(f.Next)
	s := t.step()
	if len(f.Next) == 0 && !s.Wake.IsZero() && !s.Wake.After(now) {
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
