package lock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Answers of Extend that are no verdict about the key.
var (
	errPaused   = errors.New("lease paused")
	errReleased = errors.New("lease released")
)

// hold is one token on one key, as Redis or the map keeps it. Its methods are not for concurrent use.
type hold interface {
	// extend asks for a full TTL from now and answers until when the key is surely ours; ErrLost if it is not ours.
	extend(ctx context.Context) (deadline time.Time, err error)
	// release deletes the key if it is ours. nil too if nobody has it, ErrLost if another does.
	release(ctx context.Context) error
}

// lease is the part of a holding that does not depend on where the key lives: who may touch the hold when, the
// published deadline, and the end of the context.
type lease struct {
	token string
	ttl   time.Duration
	hold  hold

	ctx context.Context
	end context.CancelCauseFunc
	// base carries the values of the acquirer's context, without its end, into calls the lease makes by itself.
	base     context.Context
	deadline atomic.Pointer[time.Time]
	// watch ends the context at the deadline, whatever the renewal is doing then: it may hang in a call.
	watch *time.Timer

	// turn holds one permit: its owner alone touches hold and phase.
	turn  chan struct{}
	phase phase

	order  sync.Mutex // orders Pause, Resume and Release, and guards renews
	renews *renewal   // nil while paused and after release
}

// phase is what the lease's own doing allows; whether the lease was lost is said by its context.
type phase int

const (
	renewing phase = iota
	paused
	released
)

// renewal is one run of the renewing goroutine.
type renewal struct {
	stop   chan struct{} // closed to ask for the end
	joined chan struct{} // closed at the end
}

var _ Lease = (*lease)(nil)

// newLease starts the renewal of a key that was just acquired.
func newLease(ctx context.Context, token string, ttl time.Duration, h hold, deadline time.Time) *lease {
	l := &lease{token: token, ttl: ttl, hold: h, base: context.WithoutCancel(ctx), turn: make(chan struct{}, 1)}
	l.ctx, l.end = context.WithCancelCause(l.base)
	l.deadline.Store(&deadline)
	l.watch = time.AfterFunc(time.Until(deadline), l.expire)
	l.start()
	return l
}

// Token is the key's value.
func (l *lease) Token() string { return l.token }

// Deadline is the published one.
func (l *lease) Deadline() time.Time { return *l.deadline.Load() }

// Context ends with the lease.
func (l *lease) Context() context.Context { return l.ctx }

// expire runs when watch fires: at the first deadline, and then at what renewals have made of it.
func (l *lease) expire() {
	if left := time.Until(l.Deadline()); left > 0 {
		l.watch.Reset(left)
		return
	}
	l.end(ErrLost)
}

// enter takes the turn and changes the phase.
func (l *lease) enter(p phase) {
	l.turn <- struct{}{} // never long: each owner's call has a deadline
	l.phase = p
	<-l.turn
}

// Extend waits for its turn behind a renewal that is under way.
func (l *lease) Extend(ctx context.Context) error {
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	switch l.phase {
	case released:
		return errReleased
	case paused:
		return errPaused
	case renewing:
	}
	return l.extend(ctx)
}

// extend is for the owner of turn. One try takes at most a sixth of the TTL, so that several fit before the deadline.
func (l *lease) extend(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.ttl/6)
	defer cancel()
	deadline, err := l.hold.extend(ctx)
	if errors.Is(err, ErrLost) {
		l.end(ErrLost)
	}
	if err != nil {
		return err
	}
	if l.ctx.Err() != nil {
		return context.Cause(l.ctx) // a lease that was lost stays lost, even if the key could be had again
	}
	l.deadline.Store(&deadline)
	return nil
}

// renew extends each third of the TTL until it is stopped or the lease is lost. An error that does not say whose the
// key is, is tried again soon: several tries fit before the deadline.
func (l *lease) renew(r *renewal) {
	defer close(r.joined)
	// A third of the TTL after the last renewal, also where a pause lay between.
	next := func() time.Duration { return time.Until(l.Deadline()) - l.ttl*2/3 }
	t := time.NewTimer(next())
	defer t.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-l.ctx.Done():
			return
		case <-t.C:
		}
		l.turn <- struct{}{}
		err := l.extend(l.base)
		<-l.turn
		if err == nil {
			t.Reset(next())
		} else {
			t.Reset(l.ttl / 30)
		}
	}
}

// Pause also waits for an Extend that is under way, at most a sixth of the TTL.
func (l *lease) Pause() {
	l.order.Lock()
	defer l.order.Unlock()
	if l.renews != nil {
		l.join()
		l.enter(paused)
	}
}

// Resume starts the renewal again; it does nothing to a lease that is renewed or was released.
func (l *lease) Resume() {
	l.order.Lock()
	defer l.order.Unlock()
	if l.renews == nil && l.phase == paused { // phase changes only under order
		l.enter(renewing)
		l.start()
	}
}

// start and join are for the owner of order.
func (l *lease) start() {
	l.renews = &renewal{stop: make(chan struct{}), joined: make(chan struct{})}
	go l.renew(l.renews)
}

func (l *lease) join() {
	close(l.renews.stop)
	<-l.renews.joined
	l.renews = nil
}

// Release uses the values of ctx but not its end: a key left behind makes everybody wait for the TTL.
func (l *lease) Release(ctx context.Context) error {
	l.order.Lock()
	defer l.order.Unlock()
	if l.phase == released {
		return nil
	}
	if l.renews != nil {
		l.join()
	}
	l.enter(released)
	l.watch.Stop()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience(l.ttl))
	defer cancel()
	err := l.hold.release(ctx)
	l.end(nil)
	return err
}

// patience is how long one attempt to take or to give back a key may last: short enough that an answer that comes
// late finds most of the lease still there, long enough for a loaded network where the TTL is generous.
func patience(ttl time.Duration) time.Duration { return min(ttl/3, time.Second) }
