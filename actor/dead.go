package actor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

// DeadLetter is work given up, with its whole story, kept 90 days under the record "dead/<ID>" of its subject.
type DeadLetter struct {
	ID      string          `json:"id"`
	Subject state.Subject   `json:"subject"`
	At      time.Time       `json:"at"`
	Why     string          `json:"why"`
	Mail    *state.Mail     `json:"mail,omitempty"`  // given-up mail
	Entry   *Entry          `json:"entry,omitempty"` // or given-up effect
	Data    json.RawMessage `json:"data,omitempty"`
}

// deadKept is how many dead letters one subject lists; older ones stay as records until they expire.
const deadKept = 100

// deadReconcileAfter is the least pause; it leaves Decide time to act on the outcome before the subject compares itself
// with the outside.
const deadReconcileAfter = 10 * time.Second

// bury lists a dead letter in the envelope and answers its record. Where the reconcile after one dead letter ends in
// the next, the pause before the reconcile doubles each time: what is refused for good must not go round for ever.
func (e *envelope) bury(d DeadLetter, now time.Time) state.Record {
	d.At = now
	after := deadReconcileAfter
	if n := len(e.Dead); n > 0 {
		after = min(max(after, 2*now.Sub(e.Dead[n-1].At)), shutEvery)
	}
	e.Dead = append(e.Dead, DeadRef{ID: d.ID, At: now})
	if n := len(e.Dead) - deadKept; n > 0 {
		e.Dead = slices.Delete(e.Dead, 0, n)
	}
	e.planReconcile(now.Add(after), "dead letter")
	return state.Record{Key: "dead/" + d.ID, Value: mustJSON(d), TTL: DeadLife}
}

// ErrNoDeadLetter says that the subject lists no dead letter with that ID, nor is an effect with that key under way.
var ErrNoDeadLetter = errors.New("no such dead letter, and no such effect under way")

// ReadDeadLetter reads one dead letter; ErrNoDeadLetter if it is not there.
func ReadDeadLetter(ctx context.Context, store interface {
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
}, s state.Subject, id string) (DeadLetter, error) {
	b, err := store.Record(ctx, s, "dead/"+id)
	if errors.Is(err, state.ErrNotFound) {
		return DeadLetter{}, fmt.Errorf("%s of %s: %w", id, s, ErrNoDeadLetter)
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter %s of %s: %w", id, s, err)
	}
	var d DeadLetter
	if err := json.Unmarshal(b, &d); err != nil {
		return DeadLetter{}, fmt.Errorf("decode dead letter %s of %s: %w", id, s, err)
	}
	return d, nil
}

// Retry puts a dead letter's work back: an effect into the outbox with its tries at zero, to be looked up before it is
// called; a mail to the end of the mailbox. Under the key of an entry that is still being tried, it is tried now. by is
// who asked, for the journal.
func (e *Engine) Retry(ctx context.Context, s state.Subject, id, by string) error {
	d, err := ReadDeadLetter(ctx, e.store, s, id)
	if errors.Is(err, ErrNoDeadLetter) {
		return e.hurry(ctx, s, id, by)
	}
	if err != nil {
		return err
	}
	if d.Mail != nil {
		// Stored before the letter is taken off the list: a crash in between repeats a mail, which is harmless.
		_, err := e.Tell(ctx, state.Delivery{
			Subject: s, ID: d.Mail.ID + "#retry-" + strconv.FormatInt(d.At.UnixMilli(), 10),
			Kind: d.Mail.Kind, Format: d.Mail.Format, Body: d.Mail.Body,
		})
		if err != nil {
			return err
		}
	}
	return e.amend(ctx, s, func(env *envelope, now time.Time) ([]state.Record, []byte, error) {
		if !env.removeDead(id) {
			return nil, nil, fmt.Errorf("%s of %s: %w", id, s, ErrNoDeadLetter)
		}
		if d.Entry != nil && env.entry(d.Entry.Key) < 0 {
			env.Rev++
			env.Outbox = append(env.Outbox, Entry{Wish: d.Entry.Wish, Rev: env.Rev, Born: now, Unsure: now})
			env.Outbox[len(env.Outbox)-1].NotBefore = time.Time{}
		}
		return []state.Record{{Key: "dead/" + id}}, audit(now, by, "retried dead letter "+id), nil
	})
}

// hurry makes an entry due that waits for its next try.
func (e *Engine) hurry(ctx context.Context, s state.Subject, key, by string) error {
	return e.amend(ctx, s, func(env *envelope, now time.Time) ([]state.Record, []byte, error) {
		i := env.entry(key)
		if i < 0 {
			return nil, nil, fmt.Errorf("%s of %s: %w", key, s, ErrNoDeadLetter)
		}
		if x := &env.Outbox[i]; x.NotBefore.After(now) {
			x.NotBefore = now
		}
		return nil, audit(now, by, "asked for the next try of "+key), nil
	})
}

// Discard takes a dead letter off the list for good. by is who asked, for the journal.
func (e *Engine) Discard(ctx context.Context, s state.Subject, id, by string) error {
	return e.amend(ctx, s, func(env *envelope, now time.Time) ([]state.Record, []byte, error) {
		if !env.removeDead(id) {
			return nil, nil, fmt.Errorf("%s of %s: %w", id, s, ErrNoDeadLetter)
		}
		return []state.Record{{Key: "dead/" + id}}, audit(now, by, "discarded dead letter "+id), nil
	})
}

// Release takes a subject out of quarantine, its crash and panic counters at zero. by is who asked.
func (e *Engine) Release(ctx context.Context, s state.Subject, by string) error {
	return e.amend(ctx, s, func(env *envelope, now time.Time) ([]state.Record, []byte, error) {
		env.Quarantined, env.Hold, env.Crashes, env.Panics = time.Time{}, time.Time{}, 0, 0
		env.planReconcile(now, "released from quarantine")
		return nil, audit(now, by, "released from quarantine"), nil
	})
}

func (e *envelope) removeDead(id string) bool {
	n := len(e.Dead)
	e.Dead = slices.DeleteFunc(e.Dead, func(d DeadRef) bool { return d.ID == id })
	return len(e.Dead) < n
}

func audit(now time.Time, by, what string) []byte {
	return mustJSON(map[string]any{"at": now, "by": by, "why": []string{what}})
}

// mustJSON encodes values of our own types, which always encode.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}
