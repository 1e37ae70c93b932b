// Package embedded is the store in one SQLite file, for one process.
//
// Durability: an operation answers after its transaction is synced to the write-ahead log. Operations that arrive
// together share one transaction and one sync; where one of them fails, the group is done again with a savepoint for
// each, so that it takes nothing of its neighbours with it. All writing is done by one goroutine over one connection;
// reading is done over others that cannot write and see what was answered before they began.
//
// A full disk is an answer (state.ErrFull). Any other error of the disk is the end: after a failed sync nobody knows
// what the file holds, so every further operation answers an error, Failed is closed, and the process must exit and
// let SQLite recover the file at the next Open.
package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	// The driver registers itself as "sqlite".
	_ "modernc.org/sqlite"
)

// DefaultRawQuota bounds the raw bodies kept where Options do not say otherwise, in bytes after compression.
const DefaultRawQuota = 1 << 30

// Options are what a store may be given.
type Options struct {
	// Now is the store's clock; nil = time.Now.
	Now func() time.Time
	// RawQuota bounds the raw bodies kept, in bytes after compression; beyond it the oldest go first.
	// 0 = DefaultRawQuota.
	RawQuota int64
}

// Store is an open file. Its methods are safe for concurrent use and answer errors once it has been closed.
//
// An error that is the context's own says that nothing was stored: a context counts until the writer takes the
// operation up, from then on the answer is awaited.
type Store struct {
	*Reader
	lock *os.File
	pool *sql.DB
	main *session // the writer's, of pool
	ops  chan *op
	quit chan struct{}
	done sync.WaitGroup // the writer
	once sync.Once
	shut error
}

// Open opens the store at path, or creates it (readable by its owner only; parent directories are not made). ctx is
// for opening only. It answers ErrInUse if another process has it open, and state.ErrTooNew if a newer program wrote
// it. Subjects that show a holder become due: nobody who held them is alive.
func Open(ctx context.Context, path string, opts Options) (*Store, error) {
	s, err := open(ctx, path, opts)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	return s, nil
}

func open(ctx context.Context, path string, opts Options) (_ *Store, err error) {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.RawQuota == 0 {
		opts.RawQuota = DefaultRawQuota
	}
	if path, err = resolve(path); err != nil {
		return nil, err
	}
	if err := refuseNetwork(filepath.Dir(path)); err != nil {
		return nil, err
	}
	s := &Store{ops: make(chan *op), quit: make(chan struct{})}
	if s.lock, err = lockFile(path); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.release())
		}
	}()
	if err := createFile(path); err != nil {
		return nil, err
	}
	if s.pool, err = sql.Open("sqlite", dsn(path)); err != nil {
		return nil, err
	}
	conn, err := s.pool.Conn(ctx)
	if err != nil {
		return nil, err
	}
	s.main = newSession(conn)
	w, err := newWriter(ctx, s.main, opts)
	if err != nil {
		return nil, err
	}
	if s.Reader, err = openReader(ctx, path, opts.Now); err != nil {
		return nil, err
	}
	w.ops, w.quit, w.fail, w.tx.gone = s.ops, s.quit, s.broken.set, s.gone
	s.done.Go(w.run)
	return s, nil
}

// Close ends the writer after the operations it has taken up, brings the file up to date and gives up the lock.
// Further calls answer what the first did.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.quit)
		s.done.Wait()
		s.shut = s.release()
	})
	return s.shut
}

// release gives back what open took, the lock last: until then nobody else may write.
func (s *Store) release() error {
	var errs []error
	if s.Reader != nil {
		errs = append(errs, s.Reader.Close())
	}
	if s.main != nil {
		errs = append(errs, s.main.close())
	}
	if s.pool != nil {
		errs = append(errs, s.pool.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}

// Failed is closed when the disk failed and the process must exit; Ping answers why.
func (s *Store) Failed() <-chan struct{} { return s.broken.ch }

// Ping asks whether the store can write.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.do(ctx, func(*tx) error { return nil }); err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// breakage is the error after which nothing is answered any more.
type breakage struct {
	once sync.Once
	ch   chan struct{}
	err  error // readable once ch is closed
}

func (b *breakage) set(err error) {
	b.once.Do(func() {
		b.err = fmt.Errorf("the store has failed and must be opened again: %w", err)
		close(b.ch)
	})
}

func (b *breakage) get() error {
	select {
	case <-b.ch:
		return b.err
	default:
		return nil
	}
}
