package actor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/state"
)

// errReplied ends a round of Ask whose id has its reply already.
var errReplied = errors.New("replied before")

// Ask reads a subject's document, decides and saves by compare-and-swap on the version: no lease, no waiting for the
// holder, whose next commit finds that the document moved. f is pure and may be called several times. Its Step.Reply is
// returned and, if id is not empty, stored under id for 24 h in the same commit: the same id gets the same reply and
// changes nothing. An error of f is returned as it is and saves nothing. ErrBusy after 20 lost rounds.
//
// The Asks of one process for one subject go one after another, in no promised order: at once they would only lose their
// rounds to each other.
func Ask[D any](ctx context.Context, e *Engine, s state.Subject, id string, f func(d D, now time.Time) (Step[D], error)) ([]byte, error) {
	leave, err := e.enter(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", s, err)
	}
	defer leave()
	reply := "reply/" + id
	var out []byte
	var why []string
	for range askTries {
		saved, err := e.swap(ctx, s, func(env *envelope, now time.Time, inFlight bool) (state.Commit, error) {
			// Looked up after the version was read: a reply stored before that is seen here, one stored after it makes
			// the save fail.
			if id != "" {
				b, err := e.store.Record(ctx, s, reply)
				if err == nil {
					out = b
					return state.Commit{}, errReplied
				}
				if !errors.Is(err, state.ErrNotFound) {
					return state.Commit{}, fmt.Errorf("ask %s: %w", s, err)
				}
			}
			d, ok := env.decoded.(D)
			if !ok {
				if d, err = decodeDoc[D](env.Doc); err != nil {
					return state.Commit{}, err
				}
				e.recall(s, env, d)
			}
			step, err := f(d, now)
			if err != nil {
				return state.Commit{}, err
			}
			next, err := encodeStep(step)
			if err != nil {
				return state.Commit{}, err
			}
			env.Doc, env.Wake, env.Keep, env.Index = next.Next, step.Wake, step.Keep, step.Index
			env.Touched = now
			env.merge(step.Wishes, now, inFlight)
			put := step.Put
			if id != "" {
				// Never nil, which would delete it: an empty reply is one too.
				put = append(put, state.Record{Key: reply, Value: append([]byte{}, step.Reply...), TTL: replyLife})
			}
			out, why = step.Reply, step.Why
			return state.Commit{Put: put, Journal: step.Journal}, nil
		})
		if errors.Is(err, errReplied) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		if saved {
			e.explain(s, why, "")
			return out, nil
		}
		if err := pause(ctx, time.Millisecond+time.Duration(rand.Int64N(int64(20*time.Millisecond)))); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("ask %s: %w", s, ErrBusy)
}

// line is where the Asks for one subject wait for each other.
type line struct {
	place chan struct{} // holds a token while one is under way
	n     int           // how many are there
}

// enter waits for a subject's place, or for the end of ctx.
func (e *Engine) enter(ctx context.Context, s state.Subject) (leave func(), err error) {
	e.mu.Lock()
	l, ok := e.asking[s]
	if !ok {
		l = &line{place: make(chan struct{}, 1)}
		e.asking[s] = l
	}
	l.n++
	e.mu.Unlock()
	gone := func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if l.n--; l.n == 0 {
			delete(e.asking, s)
		}
	}
	select {
	case l.place <- struct{}{}:
		return func() { <-l.place; gone() }, nil
	case <-ctx.Done():
		gone()
		return nil, ctx.Err()
	}
}

// swap is one round of compare-and-swap on a subject's envelope; saved = false where the document had moved. After a
// save the subject is woken here if it has work.
func (e *Engine) swap(ctx context.Context, s state.Subject, f func(env *envelope, now time.Time, inFlight bool) (state.Commit, error)) (saved bool, err error) {
	snap, err := e.store.Load(ctx, s)
	if err != nil {
		return false, fmt.Errorf("load %s: %w", s, err)
	}
	env, err := e.read(s, snap.Doc)
	if err != nil {
		return false, fmt.Errorf("load %s: %w", s, err)
	}
	now := later(snap.Now, env.Now)
	c, err := f(&env, now, snap.Holder != "")
	if err != nil {
		return false, err
	}
	env.saved(now, c.Put)
	c.Subject, c.Version, c.Doc, c.Wake, c.Index = s, snap.Version, mustJSON(env), env.due(now), env.index(e.kindOf(s))
	done, err := e.store.Commit(ctx, c)
	if err != nil {
		return false, fmt.Errorf("save %s: %w", s, err)
	}
	if done.Verdict != state.OK {
		return false, nil
	}
	if !c.Wake.IsZero() && !c.Wake.After(now) {
		e.poke(s)
	}
	return true, nil
}

// recall keeps what an Ask has read of a subject.
func (e *Engine) recall(s state.Subject, env *envelope, doc any) {
	if k := e.kindOf(s); k == nil || !k.Recall {
		return
	}
	kept := env.clone()
	kept.decoded = doc
	e.mu.Lock()
	defer e.mu.Unlock()
	e.recalled[s] = kept
}

// read decodes an envelope, or recalls it. Bytes are compared and not versions, which a store that lost its newest writes
// gives again to others.
func (e *Engine) read(s state.Subject, raw []byte) (envelope, error) {
	e.mu.Lock()
	kept := e.recalled[s]
	e.mu.Unlock()
	if kept != nil && bytes.Equal(kept.raw, raw) {
		return *kept.clone(), nil
	}
	env, err := decodeEnvelope(raw)
	env.raw = raw
	return env, err
}

// amend changes a subject's envelope for an operator: rounds of swap, with records and a journal line.
func (e *Engine) amend(ctx context.Context, s state.Subject, f func(env *envelope, now time.Time) ([]state.Record, []byte, error)) error {
	for range askTries {
		saved, err := e.swap(ctx, s, func(env *envelope, now time.Time, _ bool) (state.Commit, error) {
			put, line, err := f(env, now)
			return state.Commit{Put: put, Journal: [][]byte{line}}, err
		})
		if err != nil || saved {
			return err
		}
		if err := pause(ctx, time.Millisecond+time.Duration(rand.Int64N(int64(20*time.Millisecond)))); err != nil {
			return err
		}
	}
	return fmt.Errorf("amend %s: %w", s, ErrBusy)
}

// View is a subject as a page or command shows it.
type View struct {
	Doc         json.RawMessage `json:"doc"` // the behaviour's document
	Outbox      []Entry         `json:"outbox"`
	Seq         int64           `json:"seq"`    // mail decided up to here
	Unread      int             `json:"unread"` // mail not yet decided, at most state.MailBatch
	Dead        []DeadRef       `json:"dead,omitempty"`
	Quarantined time.Time       `json:"quarantined,omitzero"`
	Crashes     int             `json:"crashes,omitempty"`
	LastPanic   string          `json:"last_panic,omitempty"`
	Due         time.Time       `json:"due,omitzero"`  // when there is something to do
	Ends        time.Time       `json:"ends,omitzero"` // when it is dropped, where nothing is to do
	Now         time.Time       `json:"now"`
}

// See reads a subject without taking part in it.
func See(ctx context.Context, store interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
}, s state.Subject) (View, error) {
	snap, err := store.Load(ctx, s)
	if err != nil {
		return View{}, fmt.Errorf("load %s: %w", s, err)
	}
	env, err := decodeEnvelope(snap.Doc)
	if err != nil {
		return View{}, fmt.Errorf("load %s: %w", s, err)
	}
	due, ends := snap.Wake, env.ends()
	if len(snap.Mail) > 0 || snap.Holder != "" {
		ends = time.Time{}
	} else if !ends.IsZero() {
		due = time.Time{}
	}
	return View{env.Doc, env.Outbox, env.Seq, len(snap.Mail), env.Dead, env.Quarantined, env.Crashes, env.LastPanic, due, ends, snap.Now}, nil
}

// explain logs and counts the boxes that a decision passed.
func (e *Engine) explain(s state.Subject, why []string, trouble string) {
	if len(why) == 0 {
		return
	}
	for _, w := range why {
		e.metrics.reasons.WithLabelValues(s.Kind, w).Inc()
	}
	log := e.log.With(zap.Stringer("subject", s), zap.Strings("reason", why))
	if trouble != "" {
		log.Warn("decided", zap.String("error", trouble))
		return
	}
	log.Info("decided")
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// pause waits for d or the end of ctx, whose error it answers.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
