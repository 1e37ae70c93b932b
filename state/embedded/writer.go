package embedded

import (
	"context"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/signalbox-ci/signalbox/state"
)

const (
	// groupMax bounds how many operations share a transaction, and so how long the first of them waits.
	groupMax = 256
	// checkpointAfter is the number of operations after which the write-ahead log is carried into the database.
	checkpointAfter = 1000
	// sweepEvery and sweepChunk pace retention: so many rows of a table at a time.
	sweepEvery = time.Minute
	sweepChunk = 200
	// walLimit is what is left of the log's file after a burst, in bytes.
	walLimit = 64 << 20
	// cacheKiB is the writer's page cache; the index over delivery ids is hit at random.
	cacheKiB = 32 << 10
)

// errClosed is what operations answer after Close.
var errClosed = errors.New("store closed")

// op is one operation on its way through the writer.
type op struct {
	run  func(*tx) error
	err  error
	done chan struct{}
}

// do hands an operation to the writer and waits for its answer. The writer takes an operation up at once or not at
// all, so an end of ctx can never leave one behind that is done later.
func (s *Store) do(ctx context.Context, run func(*tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o := &op{run: run, done: make(chan struct{})}
	select {
	case s.ops <- o:
		<-o.done
		return o.err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.Failed():
		return s.broken.get()
	case <-s.quit:
		return errClosed
	}
}

// writer owns the one connection that writes.
type writer struct {
	ops  <-chan *op
	quit <-chan struct{}
	fail func(error)
	tx   tx

	group []*op     // scratch
	fresh int       // operations since the last checkpoint
	swept time.Time // when retention last had nothing left to do
}

// newWriter sets up the connection and brings the file to the current format.
func newWriter(ctx context.Context, main *session, opts Options) (*writer, error) {
	conn := main.conn
	// Format first: a file that is not ours is left as it is.
	found, err := checkSchema(ctx, conn)
	if err != nil {
		return nil, err
	}
	var mode string
	if err := conn.QueryRowContext(ctx, "PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return nil, err
	}
	if mode != "wal" {
		return nil, fmt.Errorf("its file system allows no write-ahead log (journal mode %q)", mode)
	}
	settings := fmt.Sprintf("PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA temp_store = MEMORY; PRAGMA wal_autocheckpoint = 0; "+
		"PRAGMA journal_size_limit = %d; PRAGMA cache_size = -%d", walLimit, cacheKiB)
	if _, err := conn.ExecContext(ctx, settings); err != nil {
		return nil, err
	}
	if found == 0 {
		if err := createSchema(ctx, conn); err != nil {
			return nil, err
		}
	}
	// Whoever held a subject died with the process that had the file open.
	if _, err := conn.ExecContext(ctx, "UPDATE subject SET due = ? WHERE holder <> ''", millis(opts.Now())); err != nil {
		return nil, err
	}
	main.ctx = context.WithoutCancel(ctx)
	return &writer{tx: tx{session: main, clock: opts.Now, rawQuota: opts.RawQuota, rawBytes: unknown}}, nil
}

// run is the writer's life; it ends with quit or with the disk.
func (w *writer) run() {
	for {
		select {
		case <-w.quit:
			return
		case o := <-w.ops:
			if err := w.write(o); err != nil {
				w.fail(err)
				return
			}
		}
		if err := w.tend(); err != nil {
			w.fail(err)
			return
		}
	}
}

// errApart: an operation of the group failed, so they have to be done apart.
var errApart = errors.New("an operation of the group failed")

// write does first, and what else is waiting, in one transaction, and answers all of them. Its error is fatal.
func (w *writer) write(first *op) error {
	w.group = append(w.group[:0], first)
	err := w.transaction(w.together)
	if errors.Is(err, errApart) {
		err = w.transaction(w.apart)
	}
	w.fresh += len(w.group)
	if errors.Is(err, state.ErrFull) {
		w.fresh = checkpointAfter // a log that was carried over is written anew from its beginning: that is room
	}
	for _, o := range w.group {
		if err != nil {
			o.err = err // also where its own part had gone well
		}
		close(o.done)
	}
	clear(w.group)
	return fatal(err)
}

// together does the group in the hope that none of it fails, and lets it grow by what arrives meanwhile. A savepoint
// copies every page that is touched after it; without them a group costs a third less.
func (w *writer) together() error {
	for i := 0; i < len(w.group); i++ {
		o := w.group[i]
		if w.do(o); fatal(o.err) != nil {
			return o.err
		}
		if o.err != nil {
			return errApart
		}
		if len(w.group) < groupMax {
			select {
			case o := <-w.ops:
				w.group = append(w.group, o)
			default:
			}
		}
	}
	return w.tx.saveRawBytes()
}

// apart does each operation of the group in a savepoint of its own, so that one that fails takes nothing of its
// neighbours with it.
func (w *writer) apart() error {
	for _, o := range w.group {
		if err := w.tx.exec("SAVEPOINT op"); err != nil {
			return err
		}
		before := w.tx.rawBytes
		w.do(o)
		if fatal(o.err) != nil {
			return o.err
		}
		if o.err != nil {
			w.tx.rawBytes = before
			if err := w.tx.exec("ROLLBACK TO op"); err != nil {
				return errors.Join(o.err, err) // SQLite has rolled back the whole transaction by itself
			}
		}
		if err := w.tx.exec("RELEASE op"); err != nil {
			return err
		}
	}
	return w.tx.saveRawBytes()
}

// do runs an operation inside the transaction; it may be run again after a rollback.
func (w *writer) do(o *op) {
	w.tx.now = millis(w.tx.clock())
	o.err = classify(o.run(&w.tx))
}

// transaction runs f between BEGIN and COMMIT. After an error nothing of it is stored.
func (w *writer) transaction(f func() error) error {
	err := w.tx.exec("BEGIN IMMEDIATE")
	if err == nil {
		if err = f(); err == nil {
			if err = w.tx.exec("COMMIT"); err == nil {
				return nil
			}
		}
		// SQLite may have rolled back by itself; then this one has nothing left to do and says so.
		_ = w.tx.exec("ROLLBACK")
	}
	w.tx.rawBytes = unknown
	return classify(err)
}

// tend looks after the file between groups: the log is carried over, what has outlived its time is deleted. Its error
// is fatal.
func (w *writer) tend() error {
	if w.fresh >= checkpointAfter {
		// Readers may keep part of the log in use; the rest is carried over next time.
		switch err := classify(w.tx.exec("PRAGMA wal_checkpoint(PASSIVE)")); {
		case err == nil:
			w.fresh = 0
		case fatal(err) != nil:
			return err
		} // else there is no room for it yet: again after the next group
	}
	now := w.tx.clock()
	if since := now.Sub(w.swept); 0 <= since && since < sweepEvery {
		return nil
	}
	var more bool
	err := w.transaction(func() (err error) {
		w.tx.now = millis(now)
		more, err = w.tx.sweep()
		return err
	})
	if err != nil || !more {
		w.swept = now // after an error that is not the end: in a minute again
	}
	return fatal(err)
}

// diskError marks an error after which nothing may be answered any more.
type diskError struct{ error }

func (e diskError) Unwrap() error { return e.error }

// fatal answers err if it is the end of the store.
func fatal(err error) error {
	var d diskError
	if errors.As(err, &d) {
		return err
	}
	return nil
}

// classify makes SQLite's errors ours: a full disk is state.ErrFull, a disk or file that cannot be trusted is fatal.
func classify(err error) error {
	var e *sqlite.Error
	if err == nil || fatal(err) != nil || errors.Is(err, state.ErrFull) || !errors.As(err, &e) {
		return err
	}
	switch code := e.Code(); code & 0xff {
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w", state.ErrFull, err)
	case sqlite3.SQLITE_IOERR:
		if code == sqlite3.SQLITE_IOERR_SHMSIZE { // the log's index could not grow: the disk is full
			return fmt.Errorf("%w: %w", state.ErrFull, err)
		}
		return diskError{err}
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return diskError{err}
	}
	return err
}
