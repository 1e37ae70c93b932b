package alerts

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// Store is what is read of ours, without taking part.
type Store interface {
	List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error)
}

// Config is what New needs.
type Config struct {
	Store   Store
	Log     *zap.Logger
	Waiting time.Duration // age of ApprovalWaiting; 0 turns it off
	// Post tells a receiver of a change; nil = there is none. id is the same for each repetition. It is called within
	// a turn of our own subject, so it keeps nobody else waiting.
	Post func(ctx context.Context, id string, body []byte) actor.Outcome
}

// Behaviour judges the alerts.
type Behaviour struct {
	store Store
	log   *zap.Logger
	rules []rule
	post  func(ctx context.Context, id string, body []byte) actor.Outcome
}

var _ actor.Behaviour[Doc, Facts] = (*Behaviour)(nil)

// New makes the behaviour.
func New(c Config) *Behaviour {
	return &Behaviour{store: c.Store, log: c.Log, rules: rules(c.Waiting), post: c.Post}
}

// Seed is the step that has the alerts judged when a process starts. From then on they wake themselves.
func Seed(d Doc, now time.Time) actor.Step[Doc] { return actor.Step[Doc]{Next: d, Wake: now} }

// Look reads the indexes.
func (b *Behaviour) Look(ctx context.Context, _ state.Subject, _ Doc, _ actor.Inputs, _ time.Time) Facts {
	f := Facts{Rows: map[string][]state.Entry{}}
	limits := map[string]int{actor.IndexTouched: 1}
	for _, r := range b.rules {
		limits[r.index] = most
	}
	for index, limit := range limits {
		rows, err := b.store.List(ctx, index, "", limit)
		if err != nil {
			f.Why = err.Error()
			continue
		}
		f.Rows[index] = append([]state.Entry{}, rows...) // nil would be one that could not be read
	}
	return f
}

// Do writes a line to the log, or tells the receiver.
func (b *Behaviour) Do(ctx context.Context, _ state.Subject, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
	switch e.Kind {
	case kindLog:
		var n Notice
		if err := json.Unmarshal(e.Want, &n); err != nil {
			return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("entry %s cannot be read: %w", e.Key, err)}
		}
		b.write(n)
		return actor.Outcome{Code: actor.Done}
	case kindPost:
		if b.post == nil {
			return actor.Outcome{Code: actor.Done, Note: "there is no receiver any more"}
		}
		return b.post(ctx, fmt.Sprintf("alert-%d-%d", e.Born.UnixMilli(), e.Rev), e.Want)
	}
	return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("nobody does effects of kind %q", e.Kind)}
}

func (b *Behaviour) write(n Notice) {
	a := n.Data
	fields := []zap.Field{
		zap.String("alert", a.Name), zap.Stringer("subject", a.Subject), zap.String("key", a.Key), zap.Int("count", a.Count),
		zap.Time("since", a.Since), zap.String("words", a.Words),
	}
	if n.Type == Cleared {
		b.log.Info("alert cleared", fields...)
		return
	}
	b.log.Error("alert", fields...)
}
