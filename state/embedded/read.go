package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/signalbox-ci/signalbox/state"
)

// readers bounds how many reads run at once.
const readers = 4

// Reader reads a store that this or another process has open, and never writes it. Its methods are safe for
// concurrent use and answer errors once it has been closed.
type Reader struct {
	pool   *sql.DB
	clock  func() time.Time
	broken *breakage
	// gone is the version of a subject that is not there. It outlives whoever has read a former life, which is this
	// process; so no file need keep it.
	gone   *atomic.Int64
	free   chan *session // always readers of them; nil = not connected yet
	closed chan struct{}
	once   sync.Once
	shut   error
}

// OpenReadOnly opens an existing store for commands that only look, also while a server has it open. It takes no
// lock. state.ErrTooNew: a newer program wrote it.
func OpenReadOnly(ctx context.Context, path string) (*Reader, error) {
	r, err := func() (*Reader, error) {
		path, err := resolve(path)
		if err != nil {
			return nil, err
		}
		if _, err := os.Stat(path); err != nil { // the driver would not say which file is missing
			return nil, err
		}
		return openReader(ctx, path, time.Now)
	}()
	if err != nil {
		return nil, fmt.Errorf("open store %s to read: %w", path, err)
	}
	return r, nil
}

func openReader(ctx context.Context, path string, now func() time.Time) (_ *Reader, err error) {
	pool, err := sql.Open("sqlite", dsn(path, "mode=ro", "_pragma=query_only(1)"))
	if err != nil {
		return nil, err
	}
	r := &Reader{
		pool: pool, clock: now, broken: &breakage{ch: make(chan struct{})}, gone: &atomic.Int64{},
		free: make(chan *session, readers), closed: make(chan struct{}),
	}
	for range readers {
		r.free <- nil
	}
	if err := r.read(ctx, func(s *session) error {
		found, err := checkSchema(ctx, s.conn)
		if err == nil && found == 0 {
			err = errors.New("it is empty")
		}
		return err
	}); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Close ends the reading, after the reads that are under way. Further calls answer what the first did.
func (r *Reader) Close() error {
	r.once.Do(func() {
		close(r.closed)
		var errs []error
		for range readers {
			if s := <-r.free; s != nil {
				errs = append(errs, s.close())
			}
		}
		r.shut = errors.Join(append(errs, r.pool.Close())...)
	})
	return r.shut
}

// read runs f with a connection of its own.
func (r *Reader) read(ctx context.Context, f func(*session) error) error {
	if err := r.broken.get(); err != nil {
		return err
	}
	select { // first, since select has no preference
	case <-r.closed:
		return errClosed
	default:
	}
	var s *session
	select {
	case s = <-r.free:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closed:
		return errClosed
	}
	defer func() { r.free <- s }()
	if s == nil {
		conn, err := r.pool.Conn(ctx)
		if err != nil {
			return err
		}
		s = newSession(conn)
	}
	s.ctx = ctx
	return f(s)
}

// Ping asks whether the store can be read.
func (r *Reader) Ping(ctx context.Context) error {
	_, err := r.Identity(ctx)
	return err
}

// snapshot reads a subject by its name.
func snapshot(s *session, name string, now int64, gone *atomic.Int64) (state.Snapshot, error) {
	n := state.Snapshot{Now: fromMillis(now)}
	var id int64
	var due sql.NullInt64
	err := s.row(`SELECT id, version, holder, flag > 0, due, doc FROM subject LEFT JOIN document ON subject = id WHERE name = ?`,
		[]any{name}, &id, &n.Version, &n.Holder, &n.Flagged, &due, &n.Doc)
	if errors.Is(err, sql.ErrNoRows) {
		n.Version = gone.Load()
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if due.Valid {
		n.Wake = fromMillis(due.Int64)
	}
	n.Mail, err = mail(s, id)
	return n, err
}

// mail reads the oldest batch of a mailbox.
func mail(s *session, subject int64) ([]state.Mail, error) {
	return all(s, func(rows *sql.Rows, m *state.Mail) error {
		var at int64
		err := rows.Scan(&m.Seq, &m.ID, &m.Kind, &m.Format, &at, &m.Body)
		m.At = fromMillis(at)
		return err
	}, "SELECT seq, id, kind, format, at, body FROM mail WHERE subject = ? ORDER BY seq LIMIT ?", subject, state.MailBatch)
}

// Load reads a subject without taking part.
func (r *Reader) Load(ctx context.Context, subject state.Subject) (n state.Snapshot, err error) {
	err = r.read(ctx, func(s *session) (err error) {
		// One transaction, so that document and mail are of the same moment.
		if err := s.exec("BEGIN"); err != nil {
			return err
		}
		n, err = snapshot(s, subject.String(), millis(r.clock()), r.gone)
		s.ctx = context.WithoutCancel(ctx)
		return errors.Join(err, s.exec("ROLLBACK"))
	})
	if err != nil {
		return state.Snapshot{}, fmt.Errorf("load %s: %w", subject, err)
	}
	return n, nil
}

// Confirm says whether holder and version still stand, and whether there is mail beyond seq.
func (r *Reader) Confirm(ctx context.Context, subject state.Subject, holder string, version, seq int64) (state.Confirmed, error) {
	var h head
	var last int64
	err := r.read(ctx, func(s *session) error {
		return s.row("SELECT version, holder, unread, seq FROM subject WHERE name = ?", []any{subject.String()},
			&h.version, &h.holder, &h.unread, &last)
	})
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return state.Confirmed{}, fmt.Errorf("confirm %s: %w", subject, err)
	}
	if holder == "" { // an Ask has nothing to confirm
		return state.Confirmed{Verdict: state.NotOwner}, nil
	}
	return state.Confirmed{Verdict: h.judge(holder, version), Unread: h.unread > 0 && last > seq}, nil
}

// Due lists at most limit subjects whose time has come, those due longest first.
func (r *Reader) Due(ctx context.Context, limit int) ([]state.Subject, error) {
	list, err := query(ctx, r, func(rows *sql.Rows, s *state.Subject) error { return scanSubject(rows, s) },
		"SELECT name FROM subject WHERE due <= ? ORDER BY due LIMIT ?", millis(r.clock()), limit)
	if err != nil {
		return nil, fmt.Errorf("list due subjects: %w", err)
	}
	return list, nil
}

// query is all for a Reader.
func query[T any](ctx context.Context, r *Reader, scan func(*sql.Rows, *T) error, text string, args ...any) (list []T, err error) {
	err = r.read(ctx, func(s *session) (err error) {
		list, err = all(s, scan, text, args...)
		return err
	})
	return list, err
}

// scanSubject reads a row whose first column is a subject's name.
func scanSubject(rows *sql.Rows, s *state.Subject, rest ...any) error {
	var name string
	if err := rows.Scan(append([]any{&name}, rest...)...); err != nil {
		return err
	}
	return s.UnmarshalText([]byte(name))
}

// Record reads one record; state.ErrNotFound if there is none, or its time is over.
func (r *Reader) Record(ctx context.Context, subject state.Subject, key string) ([]byte, error) {
	value, err := r.value(ctx, "SELECT value FROM record JOIN subject ON id = subject WHERE name = ? AND key = ? AND (expires IS NULL OR expires > ?)",
		subject.String(), key, millis(r.clock()))
	if err != nil {
		return nil, fmt.Errorf("record %s of %s: %w", key, subject, err)
	}
	return value, nil
}

// Raw reads the raw body that was kept under a delivery's id; state.ErrNotFound if there is none, or no more.
func (r *Reader) Raw(ctx context.Context, _ state.Subject, id string) ([]byte, error) {
	body, err := r.value(ctx, "SELECT body FROM raw WHERE id = ? AND at > ?", id, millis(r.clock())-state.RawLife.Milliseconds())
	if err == nil {
		body, err = s2.Decode(nil, body)
	}
	if err != nil {
		return nil, fmt.Errorf("raw body of %s: %w", id, err)
	}
	return body, nil
}

// value reads the one value of a query.
func (r *Reader) value(ctx context.Context, text string, args ...any) (v []byte, err error) {
	err = r.read(ctx, func(s *session) error { return s.row(text, args, &v) })
	if errors.Is(err, sql.ErrNoRows) {
		err = state.ErrNotFound
	}
	return v, err
}

// List reads an index: at most limit places whose label begins with prefix, by score and then label. A prefix other
// than "" needs an index whose scores are all 0.
func (r *Reader) List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error) {
	text, args := "SELECT subject.name, label, score FROM place JOIN subject ON id = subject WHERE place.name = ?", []any{index}
	if index == state.OldestSince && prefix == "" {
		// Who has mail is due; so few rows are looked at, and storing a delivery writes none for this.
		text, args = text+" UNION ALL SELECT name, ?, (SELECT at FROM mail WHERE mail.subject = s.id ORDER BY seq LIMIT 1)"+
			" FROM subject s WHERE due IS NOT NULL AND unread > 0", append(args, state.MailLabel)
	}
	if prefix != "" {
		// No label contains the byte 0xff, so it stands for whatever may follow the prefix.
		text, args = text+" AND score = 0 AND label >= ? AND label < ?", append(args, prefix, prefix+"\xff")
	}
	list, err := query(ctx, r, func(rows *sql.Rows, e *state.Entry) error {
		e.Name = index
		return scanSubject(rows, &e.Subject, &e.Label, &e.Score)
	}, text+" ORDER BY score, label LIMIT ?", append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("list index %s: %w", index, err)
	}
	return list, nil
}

// Journal reads the newest limit lines of a subject's story, the oldest of them first.
func (r *Reader) Journal(ctx context.Context, subject state.Subject, limit int) ([][]byte, error) {
	list, err := query(ctx, r, func(rows *sql.Rows, line *[]byte) error { return rows.Scan(line) },
		"SELECT line FROM journal JOIN subject ON id = subject WHERE name = ? ORDER BY n DESC LIMIT ?", subject.String(), limit)
	if err != nil {
		return nil, fmt.Errorf("journal of %s: %w", subject, err)
	}
	slices.Reverse(list)
	return list, nil
}

// Identity names the history that the file holds; it never changes.
func (r *Reader) Identity(ctx context.Context) (name string, err error) {
	if err := r.read(ctx, func(s *session) error { return s.row("SELECT identity FROM meta", nil, &name) }); err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	return name, nil
}

// millis is t on the store's grid, not after it.
func millis(t time.Time) int64 { return t.UnixMilli() }

// millisUp is t on the store's grid, not before it, so that nobody wakes too early.
func millisUp(t time.Time) int64 { return t.Add(time.Millisecond - time.Nanosecond).UnixMilli() }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
