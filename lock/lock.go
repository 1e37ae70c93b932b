// Package lock keeps subjects in order across instances: a lease is a Redis key set with SET NX whose value is a UUID
// token, taken over redsync, renewed by a goroutine that owns the redsync mutex and publishes its deadline. Local is
// the twin for one process, a map behind a mutex, with the same promises.
//
// A lease alone fences nothing: whoever saves under it must compare the token in the store (state.Commit does).
package lock

import (
	"context"
	"errors"
	"time"
)

// Errors of this package.
var (
	// ErrBusy: somebody else holds the lease. Nothing is wrong; come back when it ends.
	ErrBusy = errors.New("lease busy")
	// ErrLost: the lease ended: another holder has the key, or the deadline passed without a renewal. It is the
	// cause of the end of Lease.Context.
	ErrLost = errors.New("lease lost")
)

// Locker takes leases. Redis and Local implement it.
type Locker interface {
	// TryLock makes one attempt, without waiting for the holder: ErrBusy if there is one.
	TryLock(ctx context.Context, key string) (Lease, error)
	// TTL is how long a lease lasts without renewal.
	TTL() time.Duration
}

// Lease is one holding of one key. Its methods are safe for concurrent use.
type Lease interface {
	// Token is the UUID v4 stored as the key's value, a new one per acquisition.
	Token() string
	// Deadline is until when the key is surely ours, on this process's monotonic clock; renewals move it.
	Deadline() time.Time
	// Context ends when the lease is lost or released; context.Cause is ErrLost where it was lost.
	Context() context.Context
	// Extend renews now and returns when the new deadline is published; ErrLost if another holder has the key.
	Extend(ctx context.Context) error
	// Pause joins the renewal goroutine: when it returns nobody of ours touches the key until Resume or Release.
	// It is called before a commit that deletes the key itself.
	Pause()
	// Resume starts the renewal again after Pause.
	Resume()
	// Release ends the lease: joins the renewal and deletes the key if its value is still our token. ErrLost if it
	// is another's, nil if the key is gone already. Further calls answer nil.
	Release(ctx context.Context) error
}
