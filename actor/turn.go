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

	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
)

const (
	newerWait = 10 * time.Second // until something in a newer format is looked at again
	storeWait = 5 * time.Second  // bounds one operation of the store within a turn
	reloads   = 10               // failed saves in a row after which a turn gives up until the next poll
)

// errTaken: another holder has the subject. The turn drops everything; the successor starts from what is saved.
var errTaken = errors.New("taken over")

// turn is one holding of one subject's lease.
type turn struct {
	*Engine
	k     *kind
	s     state.Subject
	lease lock.Lease
	hard  context.Context

	base  time.Time // subject's time at began
	began time.Time // monotonic

	env     *envelope // as saved
	version int64
	mail    []state.Mail // unread
	flagged bool
	tried   []attempt // outcomes not saved yet: of one effect, or of several tells
	faults  int       // saves in a row whose answer did not come
}

// attempt is the outcome of one Do on its way into the envelope.
type attempt struct {
	n       int64 // number in envelope.Attempts, so that it is applied once
	entry   Entry
	out     Outcome
	at      time.Time
	orderly bool // cut short by an orderly stop: no try is counted
}

// turn takes the lease of s and works until nothing is due, the lease is lost, or the engine stops.
func (e *Engine) turn(hard context.Context, s state.Subject) error {
	end := "error"
	defer func() { e.metrics.turns.WithLabelValues(s.Kind, end).Inc() }()

	free := context.WithoutCancel(hard) // the last save of an orderly stop must get through
	lease, err := e.locker.TryLock(free, s.LockKey())
	if errors.Is(err, lock.ErrBusy) {
		end = "busy"
		return e.store.Defer(free, s)
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", s, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(free, storeWait)
		defer cancel()
		if err := lease.Release(ctx); err != nil && !errors.Is(err, lock.ErrLost) {
			e.log.Warn("cannot release a lease; it will expire", zap.Stringer("subject", s), zap.Error(err))
		}
	}()
	e.opt.Trace(s, AtLocked)

	t := &turn{Engine: e, k: e.kindOf(s), s: s, lease: lease, hard: hard, began: time.Now()}
	before, err := t.begin()
	if err == nil {
		e.opt.Trace(s, AtBegun)
		err = t.run(before)
	}
	if cause := context.Cause(lease.Context()); err != nil && cause != nil {
		err = cause // whatever failed did so because the lease ended
	}
	switch {
	case err == nil:
		end = "released"
		e.opt.Trace(s, AtReleased)
	case errors.Is(err, errTaken), errors.Is(err, lock.ErrLost):
		end = "lost"
		e.metrics.faults.WithLabelValues(s.Kind, "lost-lease").Inc()
		e.log.Warn("lease lost: dropping this turn", zap.Stringer("subject", s), zap.Error(err))
		return nil
	case errors.Is(err, errNewer):
		end = "newer"
		e.metrics.faults.WithLabelValues(s.Kind, "newer-format").Inc()
		return t.leave(newerWait)
	}
	return err
}

// op bounds one operation of the store.
func (t *turn) op() (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.lease.Context(), storeWait)
}

// now is the subject's time: the store's at Begin, or the newest in the document if that is later, plus what has
// passed since (guarantee 10).
func (t *turn) now() time.Time { return t.base.Add(time.Since(t.began)) }

// begin reads the subject under our token and answers the holder found before us.
func (t *turn) begin() (string, error) {
	ctx, cancel := t.op()
	defer cancel()
	snap, verdict, err := t.store.Begin(ctx, t.s, t.lease.Token(), t.locker.TTL())
	if cause := context.Cause(t.lease.Context()); cause != nil {
		return "", cause
	}
	if err != nil {
		return "", fmt.Errorf("begin %s: %w", t.s, err)
	}
	if verdict != state.OK {
		return "", errTaken
	}
	t.version, t.flagged = snap.Version, snap.Flagged
	env, err := decodeEnvelope(snap.Doc)
	if err != nil {
		return "", err
	}
	t.env, t.mail = &env, unread(snap.Mail, env.Seq)
	t.base, t.began = later(later(snap.Now, env.Now), t.base.Add(time.Since(t.began))), time.Now()
	return snap.Holder, nil
}

// unread drops what the document has consumed.
func unread(mail []state.Mail, seq int64) []state.Mail {
	return slices.DeleteFunc(mail, func(m state.Mail) bool { return m.Seq <= seq })
}

// run is the turn after Begin.
func (t *turn) run(before string) error {
	started := time.Now()
	if before != "" && t.k != nil {
		if err := t.takeover(before); err != nil || t.env == nil {
			return err
		}
	}
	switch now := t.now(); {
	case !t.env.Quarantined.IsZero():
		return t.leave(shutEvery)
	case t.env.Hold.After(now):
		return t.leave(t.env.Hold.Sub(now))
	}
	if t.env.Crashes >= suspectAfter {
		select {
		case t.suspect <- struct{}{}:
			defer func() { <-t.suspect }()
		case <-t.hard.Done(): // handed back below
		case <-t.lease.Context().Done():
		}
	}
	for {
		if err := context.Cause(t.lease.Context()); err != nil {
			return err
		}
		env, now := t.env.clone(), t.now()
		put, journal := t.record(env)
		if t.stopping() || time.Since(started) > t.opt.KeepLease {
			over, err := t.save(env, state.Commit{Put: put, Journal: journal, HandBack: true}, len(t.tried) > 0)
			if err != nil || over {
				return err
			}
			continue
		}
		if t.flagged {
			env.planReconcile(now, "depth")
		}
		in, err := t.inputs(env, now)
		if errors.Is(err, errNewer) && len(t.tried) > 0 {
			// What the attempt did is saved before the rest is left to newer code.
			if _, err := t.save(env, state.Commit{Put: put, Journal: journal}, true); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		wake := !env.Wake.IsZero() && !env.Wake.After(now)
		var released bool
		switch {
		case len(in.Mail) > 0 || len(in.Results) > 0 || in.Reconcile != "" || wake:
			released, err = t.decide(env, in, put, journal)
		case len(t.tried) > 0:
			released, err = t.save(env, state.Commit{Put: put, Journal: journal}, true)
		default:
			if env.pick(now) != nil {
				err = t.doNext(env, now)
			} else {
				released, err = t.save(env, state.Commit{}, false)
			}
		}
		if err != nil || released {
			return err
		}
	}
}

// takeover records that the holder before us neither released nor handed back: a crash, or a pause beyond its lease.
// Whatever it may have started is unsure from now on, and once its last call must have ended the subject compares
// itself with the outside (guarantee 3). t.env is nil where the turn is over.
func (t *turn) takeover(before string) error {
	t.metrics.faults.WithLabelValues(t.s.Kind, "takeover").Inc()
	for {
		env, now := t.env.clone(), t.now()
		env.Crashes++
		for i := range env.Outbox {
			if env.Outbox[i].Unsure.IsZero() {
				env.Outbox[i].Unsure = now
			}
			env.Outbox[i].Left = now
		}
		env.planReconcile(now.Add(t.locker.TTL()+t.k.EffectTimeout), "takeover")
		c := state.Commit{Journal: [][]byte{mustJSON(map[string]any{"at": now, "why": []string{"Taken_Over"}, "crashes": env.Crashes})}}
		if env.Crashes >= maxCrashes {
			env.Quarantined = now
			c.HandBack, c.Wake = true, now.Add(shutEvery)
		} else if wait := crashBackoff(env.Crashes); wait > 0 {
			env.Hold = now.Add(wait)
			c.HandBack, c.Wake = true, env.Hold
		}
		env.saved(now, nil)
		over, err := t.commit(env, c, true)
		if err != nil {
			return err
		}
		if t.env != env {
			continue // not saved but read again, where Begin no longer names the holder before us
		}
		t.log.Warn("took over from a holder that did not release", zap.Stringer("subject", t.s),
			zap.String("holder", before), zap.Int("crashes", env.Crashes), zap.Bool("quarantined", !env.Quarantined.IsZero()))
		if !env.Quarantined.IsZero() {
			t.metrics.faults.WithLabelValues(t.s.Kind, "quarantine").Inc()
		}
		if over {
			t.env = nil
		}
		return nil
	}
}

// inputs gathers what the next Decide consumes.
func (t *turn) inputs(env *envelope, now time.Time) (Inputs, error) {
	mail := t.mail
	if t.k == nil && (len(mail) > 0 || !env.since().IsZero()) {
		return Inputs{}, fmt.Errorf("kind %q: %w", t.s.Kind, errNewer)
	}
	if i := slices.IndexFunc(mail, func(m state.Mail) bool { return m.Format > t.k.MailFormat && m.Kind != KindReconcile }); i == 0 {
		return Inputs{}, fmt.Errorf("mail %s: %w", mail[0].ID, errNewer)
	} else if i > 0 {
		mail = mail[:i]
	}
	if len(mail) > 0 && mail[0].Seq <= env.AloneThrough {
		mail = mail[:1]
	}
	return Inputs{Mail: mail, Results: env.Results, Reconcile: env.takeReconcile(now)}, nil
}

// decide lets the behaviour look and decide, and saves the step. env is a copy of the saved envelope with the pending
// attempt recorded; put and journal belong to that attempt.
func (t *turn) decide(env *envelope, in Inputs, put []state.Record, journal [][]byte) (bool, error) {
	now := t.now()
	all := in.Mail
	in.Mail = nil
	for _, m := range all {
		if m.Kind == KindReconcile {
			in.Reconcile = string(m.Body)
		} else {
			in.Mail = append(in.Mail, m)
		}
	}
	step, err := t.think(env, in, now)
	if err := context.Cause(t.lease.Context()); err != nil {
		return false, err
	}
	if err != nil {
		in.Mail = all
		return t.panicked(in, err)
	}
	t.opt.Trace(t.s, AtDecided)

	env.Doc, env.Index, env.Results, env.Wake, env.Keep = step.Next, step.Index, nil, step.Wake, step.Keep
	if !env.Wake.IsZero() && !env.Wake.After(now) {
		env.Wake = now.Add(time.Second) // a behaviour that asks for the past gets a second, not a busy loop
	}
	c := state.Commit{Put: append(put, step.Put...), Journal: append(journal, step.Journal...)}
	if n := len(all); n > 0 {
		env.Seq = all[n-1].Seq
	}
	env.Panics, env.LastPanic = 0, ""
	env.Touched = now
	env.merge(step.Wishes, now, false)
	if step.Compared || in.Reconcile != "" {
		env.again(now)
	}
	for _, d := range step.Dead {
		if i := slices.IndexFunc(all, func(m state.Mail) bool { return m.Seq == d.Seq }); i >= 0 {
			c.Put = append(c.Put, t.buryMail(env, all[i], d.Reason, now))
			c.Forget = append(c.Forget, all[i].ID)
		}
	}
	t.explain(t.s, step.Why, step.Trouble)
	return t.save(env, c, true)
}

// buryMail gives one mail up. Its id must be forgotten in the same commit.
func (t *turn) buryMail(env *envelope, m state.Mail, why string, now time.Time) state.Record {
	t.metrics.faults.WithLabelValues(t.s.Kind, "dead-letter").Inc()
	t.log.Error("dead letter: mail given up", zap.Stringer("subject", t.s), zap.String("delivery", m.ID), zap.String("reason", why))
	return env.bury(DeadLetter{ID: "m" + strconv.FormatInt(m.Seq, 10), Subject: t.s, Why: why, Mail: &m}, now)
}

// think runs Look and Decide and turns a panic into an error.
func (t *turn) think(env *envelope, in Inputs, now time.Time) (step decided, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	l, err := t.k.look(t.lease.Context(), t.s, env.Doc, in, now)
	if err != nil {
		return step, err
	}
	return t.k.decide(t.s, l, in, now)
}

// panicked handles our own bug: the inputs are tried again at once, after 10 s and after 1 m, mail one by one, and the
// fourth time the mail is given up. Without mail to blame the subject is quarantined.
func (t *turn) panicked(in Inputs, cause error) (bool, error) {
	env, now := t.env.clone(), t.now()
	put, journal := t.record(env)
	c := state.Commit{Put: put, Journal: journal}
	if env.Panics == 0 && len(in.Mail) > 0 {
		env.AloneThrough = in.Mail[len(in.Mail)-1].Seq
	}
	env.Panics++
	env.LastPanic = cause.Error()
	t.metrics.faults.WithLabelValues(t.s.Kind, "panic").Inc()
	t.log.Error("a decision failed: this is a bug in Signalbox", zap.Stringer("subject", t.s), zap.Int("panics", env.Panics), zap.Error(cause))
	switch {
	case env.Panics >= maxPanics && len(in.Mail) > 0:
		m := in.Mail[0]
		env.Seq, env.Panics = m.Seq, 0
		c.Put = append(c.Put, t.buryMail(env, m, "a decision failed on it: "+firstLine(cause), now))
		c.Forget = []string{m.ID}
	case env.Panics >= maxPanics:
		env.Quarantined = now
		t.metrics.faults.WithLabelValues(t.s.Kind, "quarantine").Inc()
		c.HandBack, c.Wake = true, now.Add(shutEvery)
	default:
		if wait := panicBackoff(env.Panics); wait > 0 {
			env.Hold = now.Add(wait)
			c.HandBack, c.Wake = true, env.Hold
		}
	}
	env.saved(now, c.Put)
	return t.commit(env, c, true)
}

func firstLine(err error) string {
	s := err.Error()
	for i, r := range s {
		if r == '\n' {
			return s[:i]
		}
	}
	return s
}

// save is a commit that ends the turn where nothing more is due, and the subject where it has been kept long enough.
// changed = false saves nothing but the release.
func (t *turn) save(env *envelope, c state.Commit, changed bool) (bool, error) {
	now := t.now()
	if changed || !c.HandBack {
		env.Crashes = 0 // progress: whatever crashed before did not this time
	}
	if changed = changed || t.flagged || t.env.Crashes != 0; changed {
		env.saved(now, c.Put)
	}
	last := int64(0)
	if n := len(t.mail); n > 0 {
		last = t.mail[n-1].Seq
	}
	if !c.HandBack {
		c.Release = env.pick(now) == nil && len(env.Results) == 0 && last <= env.Seq
		if env.Wake.IsZero() || env.Wake.After(now) {
			c.Wake = env.due(now)
		} else {
			c.Release = false
		}
		// One of which nothing was ever saved needs no place either.
		if end := env.ends(); c.Release && (env.Now.IsZero() || !end.IsZero() && !end.After(now)) {
			c.Release, c.Drop = false, true
		}
	}
	return t.commit(env, c, changed)
}

// commit saves env and answers whether the turn is over. Where the document has moved, or the answer did not come, the
// subject is read again under the same token and the caller's loop decides anew: nothing is lost, since unsaved
// attempts stay pending and saved ones are recognised by their number.
func (t *turn) commit(env *envelope, c state.Commit, changed bool) (bool, error) {
	c.Subject, c.Holder, c.Version, c.Through = t.s, t.lease.Token(), t.version, env.Seq
	if changed {
		c.Doc, c.Index, c.ClearFlag = mustJSON(env), env.index(t.k), t.flagged
	}
	ending := c.Release || c.HandBack || c.Drop
	if ending {
		t.lease.Pause() // the commit deletes the lease's key: nobody of ours may renew it meanwhile
	}
	ctx, cancel := t.op()
	done, err := t.store.Commit(ctx, c)
	cancel()
	if ending && !done.Released {
		t.lease.Resume()
	}
	if cause := context.Cause(t.lease.Context()); cause != nil && !done.Released {
		return false, cause
	}
	switch {
	case err != nil:
		t.faults++
		if t.faults > reloads {
			return false, fmt.Errorf("save %s: %w", t.s, err)
		}
		t.log.Warn("a save got no answer: reading the subject again", zap.Stringer("subject", t.s), zap.Error(err))
		if err := pause(t.lease.Context(), tryBackoff(1)/4); err != nil {
			return false, context.Cause(t.lease.Context())
		}
		_, err := t.begin()
		return false, err
	case done.Verdict == state.NotOwner:
		return false, errTaken
	case done.Verdict == state.Moved:
		_, err := t.begin()
		return false, err
	}
	if c.Drop && done.Released && !env.Now.IsZero() {
		t.log.Info("dropped: kept long enough, and nothing is owed", zap.Stringer("subject", t.s), zap.Time("last_change", env.Now))
	}
	t.faults = 0
	t.tried = nil
	t.env = env
	if changed {
		t.version, t.flagged = t.version+1, false
		t.opt.Trace(t.s, AtCommitted)
	}
	t.mail = unread(done.Mail, env.Seq)
	return done.Released, nil
}

// leave ends the turn without touching the document; the subject is due again after d.
func (t *turn) leave(d time.Duration) error {
	t.lease.Pause()
	ctx, cancel := t.op()
	defer cancel()
	at := time.Now()
	if !t.base.IsZero() {
		at = t.now()
	}
	done, err := t.store.Commit(ctx, state.Commit{
		Subject: t.s, Holder: t.lease.Token(), Version: t.version, HandBack: true, Wake: at.Add(d),
	})
	if err != nil {
		return fmt.Errorf("leave %s alone: %w", t.s, err)
	}
	if done.Verdict == state.NotOwner {
		return errTaken
	}
	return nil
}
