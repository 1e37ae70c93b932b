package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/signalbox-ci/signalbox/state"
)

// readers bounds how many reads run at once.
const readers = 4

// Reader reads a store that this or another process has open, and never writes it. Its methods are safe for
// concurrent use.
type Reader struct {
	db     *sql.DB
	clock  func() time.Time
	broken *breakage

	mu         sync.Mutex
	statements map[string]*sql.Stmt
}

// OpenReadOnly opens an existing store for commands that only look, also while a server has it open. It takes no
// lock. state.ErrTooNew: a newer program wrote it.
func OpenReadOnly(ctx context.Context, path string) (*Reader, error) {
	r, err := func() (*Reader, error) {
		abs, err := filepath.Abs(path)
		if err != nil {
			return nil, err
		}
		return openReader(ctx, abs, time.Now)
	}()
	if err != nil {
		return nil, fmt.Errorf("open store %s to read: %w", path, err)
	}
	return r, nil
}

func openReader(ctx context.Context, path string, now func() time.Time) (*Reader, error) {
	db, err := sql.Open("sqlite", dsn(path, "mode=ro", "_pragma=query_only(1)", fmt.Sprintf("_pragma=busy_timeout(%d)", busyTimeout.Milliseconds())))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(readers)
	db.SetMaxIdleConns(readers)
	if err := func() error {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		found, err := checkSchema(ctx, conn)
		if err == nil && found == 0 {
			err = errors.New("it is empty")
		}
		return errors.Join(err, conn.Close())
	}(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return &Reader{db: db, clock: now, broken: &breakage{ch: make(chan struct{})}, statements: map[string]*sql.Stmt{}}, nil
}

// Close ends the reading.
func (r *Reader) Close() error { return r.db.Close() }

// Ping asks whether the store can be read.
func (r *Reader) Ping(ctx context.Context) error {
	_, err := r.Identity(ctx)
	return err
}

// querier runs the reads that both a Reader and the writer's transaction need.
type querier interface {
	row(query string, args []any, dest ...any) error
	rows(query string, args ...any) (*sql.Rows, error)
}

// view is one consistent look at the file.
type view struct {
	ctx context.Context
	r   *Reader
	tx  *sql.Tx // nil for a single statement, which is consistent in itself
}

func (v view) prepare(query string) (*sql.Stmt, error) {
	if err := v.r.broken.get(); err != nil {
		return nil, err
	}
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	s := v.r.statements[query]
	if s == nil {
		var err error
		if s, err = v.r.db.PrepareContext(v.ctx, query); err != nil {
			return nil, err
		}
		v.r.statements[query] = s
	}
	if v.tx != nil {
		return v.tx.StmtContext(v.ctx, s), nil
	}
	return s, nil
}

func (v view) row(query string, args []any, dest ...any) error {
	s, err := v.prepare(query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(v.ctx, args...).Scan(dest...)
}

func (v view) rows(query string, args ...any) (*sql.Rows, error) {
	s, err := v.prepare(query)
	if err != nil {
		return nil, err
	}
	return s.QueryContext(v.ctx, args...)
}

// all reads every row of a query with scan.
func all[T any](q querier, scan func(*sql.Rows, *T) error, query string, args ...any) ([]T, error) {
	rows, err := q.rows(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err has it
	var list []T
	for rows.Next() {
		var x T
		if err := scan(rows, &x); err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, rows.Err()
}

// snapshot reads a subject by its name; a subject nobody wrote to is at version 0.
func snapshot(q querier, name string, now int64) (state.Snapshot, error) {
	n := state.Snapshot{Now: fromMillis(now)}
	var id int64
	var due sql.NullInt64
	err := q.row(`SELECT id, version, holder, flagged, due, doc FROM subject LEFT JOIN document ON subject = id WHERE name = ?`,
		[]any{name}, &id, &n.Version, &n.Holder, &n.Flagged, &due, &n.Doc)
	if errors.Is(err, sql.ErrNoRows) {
		return n, nil
	}
	if err != nil {
		return n, err
	}
	if due.Valid {
		n.Wake = fromMillis(due.Int64)
	}
	n.Mail, err = mail(q, id)
	return n, err
}

// mail reads the oldest batch of a mailbox.
func mail(q querier, subject int64) ([]state.Mail, error) {
	return all(q, func(rows *sql.Rows, m *state.Mail) error {
		var at int64
		err := rows.Scan(&m.Seq, &m.ID, &m.Kind, &m.Format, &at, &m.Body)
		m.At = fromMillis(at)
		return err
	}, "SELECT seq, id, kind, format, at, body FROM mail WHERE subject = ? ORDER BY seq LIMIT ?", subject, state.MailBatch)
}

// Load reads a subject without taking part.
func (r *Reader) Load(ctx context.Context, s state.Subject) (state.Snapshot, error) {
	n, err := r.load(ctx, s)
	if err != nil {
		return state.Snapshot{}, fmt.Errorf("load %s: %w", s, err)
	}
	return n, nil
}

func (r *Reader) load(ctx context.Context, s state.Subject) (state.Snapshot, error) {
	if err := r.broken.get(); err != nil {
		return state.Snapshot{}, err
	}
	tx, err := r.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return state.Snapshot{}, err
	}
	n, err := snapshot(view{ctx, r, tx}, s.String(), millis(r.clock()))
	return n, errors.Join(err, tx.Rollback())
}

// Confirm says whether holder and version still stand, and whether there is mail beyond seq.
func (r *Reader) Confirm(ctx context.Context, s state.Subject, holder string, version, seq int64) (state.Confirmed, error) {
	var h head
	var last int64
	err := view{ctx: ctx, r: r}.row("SELECT version, holder, unread, seq FROM subject WHERE name = ?", []any{s.String()},
		&h.version, &h.holder, &h.unread, &last)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return state.Confirmed{}, fmt.Errorf("confirm %s: %w", s, err)
	}
	if holder == "" {
		return state.Confirmed{Verdict: state.NotOwner}, nil
	}
	return state.Confirmed{Verdict: h.judge(holder, version), Unread: h.unread > 0 && last > seq}, nil
}

// Due lists at most limit subjects whose time has come, those due longest first.
func (r *Reader) Due(ctx context.Context, limit int) ([]state.Subject, error) {
	list, err := all(view{ctx: ctx, r: r}, func(rows *sql.Rows, s *state.Subject) error { return scanSubject(rows, s) },
		"SELECT name FROM subject WHERE due <= ? ORDER BY due LIMIT ?", millis(r.clock()), limit)
	if err != nil {
		return nil, fmt.Errorf("list due subjects: %w", err)
	}
	return list, nil
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
func (r *Reader) Record(ctx context.Context, s state.Subject, key string) ([]byte, error) {
	value, err := r.value(ctx, "SELECT value FROM record JOIN subject ON id = subject WHERE name = ? AND key = ? AND (expires IS NULL OR expires > ?)",
		s.String(), key, millis(r.clock()))
	if err != nil {
		return nil, fmt.Errorf("record %s of %s: %w", key, s, err)
	}
	return value, nil
}

// Raw reads the raw body that was kept under a delivery's id; state.ErrNotFound if there is none, or no more.
func (r *Reader) Raw(ctx context.Context, id string) ([]byte, error) {
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
func (r *Reader) value(ctx context.Context, query string, args ...any) ([]byte, error) {
	var v []byte
	err := view{ctx: ctx, r: r}.row(query, args, &v)
	if errors.Is(err, sql.ErrNoRows) {
		err = state.ErrNotFound
	}
	return v, err
}

// List reads an index: at most limit places whose label begins with prefix, by score and then label. A prefix other
// than "" needs an index whose scores are all 0.
func (r *Reader) List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error) {
	query, args := "SELECT subject.name, label, score FROM place JOIN subject ON id = subject WHERE place.name = ?", []any{index}
	if prefix != "" {
		// No label contains the byte 0xff, so it stands for whatever may follow the prefix.
		query, args = query+" AND score = 0 AND label >= ? AND label < ?", append(args, prefix, prefix+"\xff")
	}
	list, err := all(view{ctx: ctx, r: r}, func(rows *sql.Rows, e *state.Entry) error {
		e.Name = index
		return scanSubject(rows, &e.Subject, &e.Label, &e.Score)
	}, query+" ORDER BY score, label LIMIT ?", append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("list index %s: %w", index, err)
	}
	return list, nil
}

// Journal reads the newest limit lines of a subject's story, the oldest of them first.
func (r *Reader) Journal(ctx context.Context, s state.Subject, limit int) ([][]byte, error) {
	list, err := all(view{ctx: ctx, r: r}, func(rows *sql.Rows, line *[]byte) error { return rows.Scan(line) },
		"SELECT line FROM journal JOIN subject ON id = subject WHERE name = ? ORDER BY n DESC LIMIT ?", s.String(), limit)
	if err != nil {
		return nil, fmt.Errorf("journal of %s: %w", s, err)
	}
	slices.Reverse(list)
	return list, nil
}

// Identity names the history that the file holds; it never changes.
func (r *Reader) Identity(ctx context.Context) (string, error) {
	var v string
	if err := (view{ctx: ctx, r: r}).row("SELECT identity FROM meta", nil, &v); err != nil {
		return "", fmt.Errorf("identity: %w", err)
	}
	return v, nil
}

// millis is t on the store's grid, not after it.
func millis(t time.Time) int64 { return t.UnixMilli() }

// millisUp is t on the store's grid, not before it, so that nobody wakes too early.
func millisUp(t time.Time) int64 { return t.Add(time.Millisecond - time.Nanosecond).UnixMilli() }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
