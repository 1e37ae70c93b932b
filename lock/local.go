package lock

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Local takes leases within one process, for the embedded store and for tests. Keys expire as they do in Redis: a
// holder that stopped renewing can be taken over.
type Local struct {
	ttl  time.Duration
	mu   sync.Mutex
	held map[string]localKey
}

type localKey struct {
	token string
	until time.Time
}

var _ Locker = (*Local)(nil)

// NewLocal makes a Local whose leases last ttl without renewal.
func NewLocal(ttl time.Duration) *Local { return &Local{ttl: ttl, held: make(map[string]localKey)} }

// TTL is how long a lease lasts without renewal.
func (l *Local) TTL() time.Duration { return l.ttl }

// TryLock takes the key if nobody holds it, or if the one who did let it expire.
func (l *Local) TryLock(ctx context.Context, key string) (Lease, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("take lease %s: %w", key, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if k, ok := l.held[key]; ok && now.Before(k.until) {
		return nil, ErrBusy
	}
	k := localKey{uuid.NewString(), now.Add(l.ttl)}
	l.held[key] = k
	return newLease(ctx, k.token, l.ttl, localHold{l, key, k.token}, k.until), nil
}

// localHold is one token on one key of the map.
type localHold struct {
	local      *Local
	key, token string
}

func (h localHold) extend(context.Context) (time.Time, error) {
	h.local.mu.Lock()
	defer h.local.mu.Unlock()
	now := time.Now()
	if k := h.local.held[h.key]; k.token != h.token || !now.Before(k.until) {
		return time.Time{}, ErrLost
	}
	until := now.Add(h.local.ttl)
	h.local.held[h.key] = localKey{h.token, until}
	return until, nil
}

func (h localHold) release(context.Context) error {
	h.local.mu.Lock()
	defer h.local.mu.Unlock()
	k, ok := h.local.held[h.key]
	if ok && k.token != h.token {
		return ErrLost
	}
	delete(h.local.held, h.key)
	return nil
}
