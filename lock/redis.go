package lock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-redsync/redsync/v4"
	redsyncredis "github.com/go-redsync/redsync/v4/redis"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// Redis takes leases as keys of one Redis (alone, behind Sentinel, or a Cluster) through redsync. More than one
// independent Redis would not make them safer: what is saved under a lease is fenced by its token in that same Redis.
type Redis struct {
	sync *redsync.Redsync
	ttl  time.Duration
}

var _ Locker = (*Redis)(nil)

// NewRedis takes leases of ttl over client, which stays the caller's to close. It panics if client lacks
// ContextTimeoutEnabled: without it go-redis ignores deadlines on the socket, and against a server that hangs an
// attempt outlasts the lease it asks for. A ttl below some tens of milliseconds leaves no room for renewal.
func NewRedis(client redis.UniversalClient, ttl time.Duration) *Redis {
	heeds := true
	switch c := client.(type) {
	case *redis.Client:
		heeds = c.Options().ContextTimeoutEnabled
	case *redis.ClusterClient:
		heeds = c.Options().ContextTimeoutEnabled
	}
	if !heeds {
		panic("lock.NewRedis: the client must have ContextTimeoutEnabled")
	}
	return &Redis{redsync.New(pool{goredis.NewPool(client), client}), ttl}
}

// TTL is how long a lease lasts without renewal.
func (r *Redis) TTL() time.Duration { return r.ttl }

// TryLock makes one attempt. If ctx ends meanwhile the key is given back, which may take up to a third of the TTL or
// a second more. What no client can take back is a SET that a hanging server executes late: such a key has no
// holder and ends with its TTL.
func (r *Redis) TryLock(ctx context.Context, key string) (Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("take lease %s: %w", key, err)
	}
	token := uuid.NewString()
	m := r.sync.NewMutex(key,
		redsync.WithExpiry(r.ttl),
		redsync.WithTries(1),
		redsync.WithTimeoutFactor(float64(patience(r.ttl))/float64(r.ttl)),
		redsync.WithGenValueFunc(func() (string, error) { return token, nil }),
		redsync.WithValue(token), // so that a failed attempt can be undone by token too
	)
	err := m.TryLockContext(ctx)
	if ended := ctx.Err(); ended != nil {
		// redsync undoes a failed attempt, but with the same context, and does not look whether that ended after a
		// successful one.
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience(r.ttl))
		defer cancel()
		_, _ = m.UnlockContext(undo)
		return nil, fmt.Errorf("take lease %s: %w", key, ended)
	}
	if isTaken(err) {
		return nil, ErrBusy
	}
	if err != nil {
		return nil, fmt.Errorf("take lease %s: %w", key, err)
	}
	return newLease(ctx, token, r.ttl, redisHold{m}, m.Until()), nil
}

// redisHold is a redsync mutex, which is not safe for concurrent use.
type redisHold struct{ mutex *redsync.Mutex }

func (h redisHold) extend(ctx context.Context) (time.Time, error) {
	ok, err := h.mutex.ExtendContext(ctx)
	switch {
	case isTaken(err): // also when the key merely expired: we cannot tell what happened since
		return time.Time{}, ErrLost
	case err != nil || !ok:
		return time.Time{}, fmt.Errorf("extend lease %s: %w", h.mutex.Name(), err)
	}
	return h.mutex.Until(), nil
}

func (h redisHold) release(ctx context.Context) error {
	_, err := h.mutex.UnlockContext(ctx)
	switch {
	case err == nil, errors.Is(err, redsync.ErrLockAlreadyExpired):
		return nil
	case isTaken(err):
		return ErrLost
	}
	return fmt.Errorf("release lease %s: %w", h.mutex.Name(), err)
}

// isTaken says whether redsync found another value, or none, where ours was expected.
func isTaken(err error) bool {
	var taken *redsync.ErrTaken
	return errors.As(err, &taken)
}

// pool is redsync's own pool but for one thing: at its limit of memory Redis refuses SET, so a full store could never
// be drained, since draining begins with a lease. There the same SET is sent as a script that is allowed to.
type pool struct {
	redsyncredis.Pool
	client redis.UniversalClient
}

// Get answers a connection for the calls of one context.
func (p pool) Get(ctx context.Context) (redsyncredis.Conn, error) {
	c, err := p.Pool.Get(ctx)
	return conn{c, ctx, p.client}, err
}

type conn struct {
	redsyncredis.Conn
	ctx    context.Context
	client redis.UniversalClient
}

// takeWhenFull sets KEYS[1] to ARGV[1] for ARGV[2] milliseconds if nobody holds it. Returns 1 or 0.
const takeWhenFull = `#!lua flags=allow-oom
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0`

// SetNX is what TryLock sends.
func (c conn) SetNX(name, value string, expiry time.Duration) (bool, error) {
	ok, err := c.Conn.SetNX(name, value, expiry)
	if redis.HasErrorPrefix(err, "OOM") {
		return c.client.Eval(c.ctx, takeWhenFull, []string{name}, value, expiry.Milliseconds()).Bool()
	}
	return ok, err
}
