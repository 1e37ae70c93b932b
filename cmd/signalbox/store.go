package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
	"github.com/signalbox-ci/signalbox/state/redis"
)

// reader is what pages and reading commands need of a store.
type reader interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
	List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error)
	// Journal answers the newest lines of a subject's story, oldest first.
	Journal(ctx context.Context, s state.Subject, limit int) ([][]byte, error)
	// Raw answers the body of a delivery as it arrived, kept for state.RawLife; state.ErrNotFound afterwards.
	Raw(ctx context.Context, s state.Subject, id string) ([]byte, error)
	Close() error
}

// store is what a serving process needs of one.
type store interface {
	reader
	actor.Store
	Ping(ctx context.Context) error
	// Failed is closed when the store can never again be trusted to save (an I/O error): the process must exit.
	Failed() <-chan struct{}
}

var (
	_ store  = (*embedded.Store)(nil)
	_ store  = remote{}
	_ reader = (*embedded.Reader)(nil)
)

// remote is a Redis store, whose failures end by themselves.
type remote struct{ *redis.Store }

func (remote) Failed() <-chan struct{} { return nil }

// openStore opens the configured store for serving, with the locker that belongs to it. now is the embedded store's
// clock, nil the machine's.
func openStore(ctx context.Context, c Store, ttl time.Duration, now func() time.Time) (store, lock.Locker, error) {
	if c.Scheme == "file" {
		s, err := embedded.Open(ctx, c.Path, embedded.Options{Now: now})
		if err != nil {
			return nil, nil, fmt.Errorf("open the store %s: %w", c, err)
		}
		return s, lock.NewLocal(ttl), nil
	}
	s, err := redis.Open(ctx, c.Reveal())
	if err != nil {
		return nil, nil, fmt.Errorf("open the store %s: %w", c, err)
	}
	return remote{s}, lock.NewRedis(s.Client(), ttl), nil
}

// openReader opens the configured store for looking only; a server may be running on it.
func openReader(ctx context.Context, c Store) (reader, error) {
	var s reader
	var err error
	if c.Scheme == "file" {
		s, err = embedded.OpenReadOnly(ctx, c.Path)
	} else {
		s, err = redis.Open(ctx, c.Reveal())
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("there is none: set SIGNALBOX_STORE to the one that the server has")
	}
	if err != nil {
		return nil, fmt.Errorf("open the store %s: %w", c, err)
	}
	return s, nil
}
