package actor

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/state"
)

// errRefused is what confirm answers when the effect must not be started any more.
var errRefused = errors.New("no longer the holder of an unchanged document")

// Tells share one save while they are few and the store takes them quickly: what they have come to, and mail that came
// meanwhile, waits for it.
const (
	tellsAtOnce = 64
	tellsWithin = time.Second
)

// doNext attempts the entry of env that is to be done next, and with a tell those that follow it: a tell that is repeated
// after a crash is heard once, so that one save is enough for many. env loses what was attempted.
func (t *turn) doNext(env *envelope, now time.Time) error {
	for range tellsAtOnce {
		x := env.pick(now)
		if x == nil || len(t.tried) > 0 && x.To == nil {
			return nil
		}
		next := *x
		if err := t.do(next); err != nil || next.To == nil || t.stopping() || t.now().Sub(now) > tellsWithin {
			return err
		}
		env.Outbox = slices.Delete(env.Outbox, env.entry(next.Key), env.entry(next.Key)+1)
	}
	return nil
}

// do attempts one entry. Its outcome stays pending in t.tried until a commit has saved it.
func (t *turn) do(x Entry) error {
	// An effect starts only with more than half the lease left (guarantee 3).
	if ttl := t.locker.TTL(); time.Until(t.lease.Deadline()) <= ttl/2 {
		ctx, cancel := t.op()
		err := t.lease.Extend(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("extend the lease of %s before %s: %w", t.s, x.Key, err)
		}
	}
	if x.Unsure.IsZero() && t.lookUpFirst() {
		x.Unsure = t.now()
	}
	t.opt.Trace(t.s, AtDoing)
	ctx, cancel := context.WithTimeout(t.lease.Context(), t.k.EffectTimeout)
	stop := context.AfterFunc(t.hard, cancel)
	refused := false
	out := t.attemptOnce(ctx, x, &refused)
	stop()
	cancel()
	if err := context.Cause(t.lease.Context()); err != nil {
		return err // the successor finds the entry unsure
	}
	t.opt.Trace(t.s, AtDone)
	if refused {
		// Nothing has left. The store's answer to the next commit says what happened: mail, moved, or taken.
		return t.refresh()
	}
	t.tried = append(t.tried, attempt{n: t.env.Attempts + int64(len(t.tried)) + 1, entry: x, out: out, at: t.now(), orderly: t.hard.Err() != nil})
	t.metrics.effects.WithLabelValues(t.s.Kind, x.Kind, string(out.Code)).Inc()
	fields := []zap.Field{zap.Stringer("subject", t.s), zap.String("effect", x.Kind), zap.String("key", x.Key), zap.String("code", string(out.Code))}
	if out.Err != nil {
		fields = append(fields, zap.Error(out.Err), zap.Int("tries", x.Tries))
	}
	t.log.Info("effect", fields...)
	return nil
}

// refresh reads the subject again under our token.
func (t *turn) refresh() error {
	_, err := t.begin()
	return err
}

// attemptOnce runs Do, or the engine's own effect, and turns a panic into a failure.
func (t *turn) attemptOnce(ctx context.Context, x Entry, refused *bool) (out Outcome) {
	defer func() {
		if p := recover(); p != nil {
			t.metrics.faults.WithLabelValues(t.s.Kind, "panic").Inc()
			t.log.Error("an effect panicked: this is a bug in Signalbox", zap.Stringer("subject", t.s), zap.String("key", x.Key), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
			out = Outcome{Code: Failed, Err: fmt.Errorf("panic in the effect: %v", p)}
		}
	}()
	if x.To != nil {
		_, err := t.Tell(ctx, state.Delivery{
			Subject: *x.To, ID: t.s.String() + "#" + x.Key + "#" + strconv.FormatInt(x.Rev, 10),
			Kind: x.Kind, Format: 1, Body: x.Want, Own: true,
		})
		if err != nil {
			return Outcome{Code: Failed, Err: err}
		}
		return Outcome{Code: Done}
	}
	return t.k.do(ctx, t.s, x, t.now(), func(ctx context.Context) error {
		c, err := t.store.Confirm(ctx, t.s, t.lease.Token(), t.version, t.env.Seq)
		if err != nil {
			*refused = true
			return fmt.Errorf("confirm: %w", err)
		}
		if c.Verdict != state.OK || c.Unread {
			*refused = true
			return errRefused
		}
		return nil
	})
}

// record applies the pending attempts to env, once, and answers the records and journal lines that go with them.
func (t *turn) record(env *envelope) (put []state.Record, journal [][]byte) {
	for _, a := range t.tried {
		if a.n > env.Attempts {
			p, j := t.recordOne(env, a)
			put, journal = append(put, p...), append(journal, j...)
		}
	}
	return put, journal
}

func (t *turn) recordOne(env *envelope, a attempt) (put []state.Record, journal [][]byte) {
	env.Attempts = a.n
	x, out := a.entry, a.out
	if x.To == nil {
		line := map[string]any{"at": a.at, "effect": x.Kind, "key": x.Key, "code": out.Code}
		if out.Err != nil {
			line["error"] = out.Err.Error()
		}
		if out.Note != "" {
			line["note"] = out.Note
		}
		journal = append(journal, mustJSON(line))
	}
	i := env.entry(x.Key)
	if i < 0 || env.Outbox[i].Rev != x.Rev {
		// An Ask replaced the wish while the call was out, and marked the newer one unsure. What the call did is still
		// an input.
		if out.Code == Done || out.Code == Refused {
			env.Results = append(env.Results, result(x, out.Code, out))
		}
		return put, journal
	}
	cur := &env.Outbox[i]
	if cur.Unsure.IsZero() {
		cur.Unsure = x.Unsure // looked up first after a failover: "not found" is believed from then on, not from the next look
	}
	if out.Err != nil {
		cur.LastError, cur.LastData = out.Err.Error(), out.Data
		if cur.FailingFrom.IsZero() {
			cur.FailingFrom = a.at
		}
	}
	finish := func(code Code) {
		env.Results = append(env.Results, result(x, code, out))
		env.Outbox = slices.Delete(env.Outbox, i, i+1)
	}
	bury := func(why string) {
		dead := *cur
		put = append(put, env.bury(DeadLetter{ID: "e" + strconv.FormatInt(x.Rev, 10), Subject: t.s, Why: why, Entry: &dead, Data: out.Data}, a.at))
		t.metrics.faults.WithLabelValues(t.s.Kind, "dead-letter").Inc()
		t.log.Error("dead letter: effect given up", zap.Stringer("subject", t.s), zap.String("effect", x.Kind), zap.String("key", x.Key), zap.String("reason", why))
	}
	if out.Code != Contention && out.Code != AuthPause {
		cur.Contentions, cur.Contended = 0, time.Time{}
	} else if cur.Contentions++; cur.Contended.IsZero() {
		cur.Contended = a.at
	}
	switch out.Code {
	case Done:
		finish(Done)
	case Refused:
		if !out.Quiet {
			bury(cur.LastError)
		}
		finish(Refused)
	case Contention:
		cur.NotBefore = a.at.Add(max(out.After, contentionBackoff(cur.Contentions)))
	case AuthPause:
		cur.NotBefore = a.at.Add(max(out.After, authBackoff(cur.Contentions)))
	case Settling:
		cur.NotBefore = a.at.Add(max(out.After, time.Second))
	case Stale:
		cur.NotBefore = a.at.Add(max(out.After, time.Second))
		env.Results = append(env.Results, result(x, Stale, out))
	default: // Failed
		if cur.Unsure.IsZero() {
			cur.Unsure = a.at
		}
		cur.Left = a.at
		if a.orderly {
			break
		}
		cur.Tries++
		cur.NotBefore = a.at.Add(max(out.After, tryBackoff(cur.Tries)))
		if cur.Tries < maxTries || cur.To != nil {
			break
		}
		if cur.Class == Shutting {
			cur.NotBefore = a.at.Add(shutEvery)
			if cur.Exhausted.IsZero() {
				cur.Exhausted = a.at
			}
			t.metrics.faults.WithLabelValues(t.s.Kind, "open-outside").Inc()
			break
		}
		bury(fmt.Sprintf("given up after %d tries: %s", cur.Tries, cur.LastError))
		finish(GivenUp)
	}
	return put, journal
}

func result(x Entry, code Code, out Outcome) Result {
	r := Result{Key: x.Key, Rev: x.Rev, Kind: x.Kind, Want: x.Want, Code: code, Data: out.Data}
	if out.Err != nil {
		r.Error = out.Err.Error()
	}
	return r
}
