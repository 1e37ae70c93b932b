package embedded

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/s2"

	"github.com/signalbox-ci/signalbox/state"
)

// unknown is the sum of raw bodies before it is read, and after a transaction was lost.
const unknown = -1

// tx is the writer's view of the file inside a transaction. It belongs to the writer's goroutine; its context has no
// end, since an operation once taken up is finished.
type tx struct {
	*session
	clock    func() time.Time
	now      int64 // of the operation, milliseconds
	rawQuota int64
	rawBytes int64 // sum of raw bodies, or unknown
	rawSaved int64 // what meta.raw_bytes holds
	gone     *atomic.Int64
}

// Accept stores a delivery; see state.Delivery. Its raw body is kept only where the mail is.
func (s *Store) Accept(ctx context.Context, d state.Delivery) (state.Accepted, error) {
	var raw []byte
	if d.Raw != nil {
		raw = s2.Encode(nil, d.Raw)
	}
	var a state.Accepted
	err := s.do(ctx, func(t *tx) (err error) {
		a, err = t.accept(d, raw)
		return err
	})
	if err != nil {
		return state.Accepted{}, fmt.Errorf("accept %s: %w", d.ID, err)
	}
	return a, nil
}

func (t *tx) accept(d state.Delivery, raw []byte) (a state.Accepted, err error) {
	fresh, err := t.remember(d.ID)
	if err != nil || !fresh {
		return state.Accepted{Duplicate: err == nil}, err
	}
	depth := state.MailDepth
	if d.Hint {
		depth = state.HintDepth
	}
	// A held subject keeps the end of its lease: its holder takes the mail, since releasing looks into the mailbox.
	var id int64
	err = t.row(`INSERT INTO subject (name, version, seq, unread, due) VALUES (?1, ?4, 1, 1, ?2)
		ON CONFLICT (name) DO UPDATE SET seq = seq + 1, unread = unread + 1,
			due = CASE WHEN due IS NULL OR (holder = '' AND due > ?2) THEN ?2 ELSE due END
		WHERE unread < ?3
		RETURNING id, seq`, []any{d.Subject.String(), t.now, depth, t.gone.Load()}, &id, &a.Seq)
	switch {
	case errors.Is(err, sql.ErrNoRows) && d.Hint:
		a = state.Accepted{Flagged: true} // due it is already, with that much mail
		return a, t.exec("UPDATE subject SET flag = ? WHERE name = ?", flagRaised, d.Subject.String())
	case errors.Is(err, sql.ErrNoRows):
		return a, fmt.Errorf("%s has %d unread mail: %w", d.Subject, state.MailDepth, state.ErrFull)
	case err != nil:
		return a, err
	}
	if err := t.exec("INSERT INTO mail (subject, seq, id, kind, format, at, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
		id, a.Seq, d.ID, d.Kind, d.Format, t.now, notNil(d.Body)); err != nil {
		return a, err
	}
	if raw == nil {
		return a, nil
	}
	return a, t.keepRaw(d.ID, raw)
}

// remember notes a delivery's id and says whether it is new, or so old that it counts as new.
func (t *tx) remember(id string) (fresh bool, err error) {
	const insert = "INSERT INTO delivery (id, at) VALUES (?, ?) ON CONFLICT DO NOTHING"
	n, err := t.changed(insert, id, t.now)
	if n == 1 || err != nil {
		return n == 1, err
	}
	// Deleted and inserted, not updated: the lowest n must stay the oldest.
	if n, err = t.changed("DELETE FROM delivery WHERE id = ? AND at <= ?", id, t.now-state.IDLife.Milliseconds()); n == 0 || err != nil {
		return false, err
	}
	n, err = t.changed(insert, id, t.now)
	return n == 1, err
}

// keepRaw stores a compressed raw body in the place of a former one and makes room by dropping the oldest.
func (t *tx) keepRaw(id string, body []byte) error {
	if err := t.loadRawBytes(); err != nil {
		return err
	}
	const insert = "INSERT INTO raw (id, at, size, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
	n, err := t.changed(insert, id, t.now, len(body), body)
	if err != nil {
		return err
	}
	if n == 0 {
		if _, err := t.dropRaw("DELETE FROM raw WHERE id = ? RETURNING size", id); err != nil {
			return err
		}
		if err := t.exec(insert, id, t.now, len(body), body); err != nil {
			return err
		}
	}
	t.rawBytes += int64(len(body))
	for t.rawBytes > t.rawQuota {
		if n, err := t.dropRaw("DELETE FROM raw WHERE n = (SELECT min(n) FROM raw) RETURNING size"); n == 0 || err != nil {
			return err
		}
	}
	return nil
}

// dropRaw runs a DELETE that returns sizes, keeps the sum right and answers the number of rows.
func (t *tx) dropRaw(query string, args ...any) (int, error) {
	sizes, err := all(t.session, func(rows *sql.Rows, size *int64) error { return rows.Scan(size) }, query, args...)
	for _, size := range sizes {
		t.rawBytes -= size
	}
	return len(sizes), err
}

func (t *tx) loadRawBytes() error {
	if t.rawBytes != unknown {
		return nil
	}
	if err := t.row("SELECT raw_bytes FROM meta", nil, &t.rawSaved); err != nil {
		return err
	}
	t.rawBytes = t.rawSaved
	return nil
}

// saveRawBytes writes the sum of raw bodies, once for all operations of a transaction.
func (t *tx) saveRawBytes() error {
	if t.rawBytes == unknown || t.rawBytes == t.rawSaved {
		return nil
	}
	t.rawSaved = t.rawBytes
	return t.exec("UPDATE meta SET raw_bytes = ?", t.rawBytes)
}

// Begin enters the holder's token; see actor.Store. Leases of the embedded store live in the process that has it
// open, so the caller is believed to have taken one: the verdict is always state.OK.
func (s *Store) Begin(ctx context.Context, subject state.Subject, holder string, lease time.Duration) (state.Snapshot, state.Verdict, error) {
	var n state.Snapshot
	err := s.do(ctx, func(t *tx) (err error) {
		n, err = t.begin(subject, holder, lease)
		return err
	})
	if err != nil {
		return state.Snapshot{}, state.OK, fmt.Errorf("begin %s: %w", subject, err)
	}
	return n, state.OK, nil
}

func (t *tx) begin(subject state.Subject, holder string, lease time.Duration) (state.Snapshot, error) {
	name := subject.String()
	if err := t.exec("INSERT INTO subject (name, version) VALUES (?, ?) ON CONFLICT DO NOTHING", name, t.gone.Load()); err != nil {
		return state.Snapshot{}, err
	}
	n, err := snapshot(t.session, name, t.now, t.gone)
	if err != nil {
		return n, err
	}
	if n.Holder == holder {
		n.Holder = ""
		return n, t.exec("UPDATE subject SET flag = min(flag, ?) WHERE name = ?", flagShown, name)
	}
	due := t.now + lease.Milliseconds()
	n.Wake = fromMillis(due)
	return n, t.exec("UPDATE subject SET holder = ?, due = ?, flag = min(flag, ?) WHERE name = ?", holder, due, flagShown, name)
}

// Commit saves a turn's step, or with an empty Holder an Ask's; see state.Commit.
func (s *Store) Commit(ctx context.Context, c state.Commit) (state.Committed, error) {
	if err := c.Valid(); err != nil {
		return state.Committed{}, fmt.Errorf("commit %s: %w", c.Subject, err)
	}
	var r state.Committed
	err := s.do(ctx, func(t *tx) (err error) {
		r, err = t.commit(c)
		return err
	})
	if err != nil {
		return state.Committed{}, fmt.Errorf("commit %s: %w", c.Subject, err)
	}
	return r, nil
}

// head is the row of a subject as Commit reads and rewrites it; id 0 = there is none yet.
type head struct {
	id, version, unread int64
	holder              string
	flag                int
	due                 sql.NullInt64
}

// The reconcile flag. One that Accept raised asks for a look at the forge later than any turn that has begun: until a
// begin has shown it, no commit takes it down, and the end of a turn leaves the subject due.
const (
	flagDown = iota
	flagShown
	flagRaised
)

func (t *tx) head(name string) (h head, err error) {
	err = t.row("SELECT id, version, holder, flag, unread, due FROM subject WHERE name = ?", []any{name},
		&h.id, &h.version, &h.holder, &h.flag, &h.unread, &h.due)
	if errors.Is(err, sql.ErrNoRows) {
		return head{version: t.gone.Load()}, nil
	}
	return h, err
}

// judge compares what a caller read with what stands there. An empty token is an Ask's.
func (h *head) judge(holder string, version int64) state.Verdict {
	switch {
	case holder != "" && holder != h.holder:
		return state.NotOwner
	case version != h.version:
		return state.Moved
	}
	return state.OK
}

func (t *tx) commit(c state.Commit) (state.Committed, error) {
	r := state.Committed{Now: fromMillis(t.now)}
	name := c.Subject.String()
	h, err := t.head(name)
	if err != nil {
		return r, err
	}
	if r.Verdict = h.judge(c.Holder, c.Version); r.Verdict != state.OK {
		return r, nil
	}
	if c.Drop {
		if h.unread == 0 && h.flag == flagDown {
			r.Released = true
			return r, t.drop(h)
		}
		c.Release = true
	}
	if h.id == 0 {
		if err := t.row("INSERT INTO subject (name) VALUES (?) RETURNING id", []any{name}, &h.id); err != nil {
			return r, err
		}
	}
	if c.Through > 0 {
		n, err := t.changed("DELETE FROM mail WHERE subject = ? AND seq <= ?", h.id, c.Through)
		if err != nil {
			return r, err
		}
		h.unread -= n
	}
	if err := t.save(h.id, c); err != nil {
		return r, err
	}
	if c.Doc != nil {
		h.version++
	}
	switch {
	case h.flag == flagRaised:
	case c.SetFlag:
		h.flag = flagShown
	case c.ClearFlag:
		h.flag = flagDown
	}
	r.Released = h.schedule(c, t.now)
	if err := t.exec("UPDATE subject SET version = ?, holder = ?, flag = ?, unread = ?, due = ? WHERE id = ?",
		h.version, h.holder, h.flag, h.unread, h.due, h.id); err != nil {
		return r, err
	}
	if c.Holder != "" && !r.Released && h.unread > 0 {
		r.Mail, err = mail(t.session, h.id)
	}
	return r, err
}

// drop deletes all that belongs to a subject, also records that have ended and wait for the sweep: its id will be
// another's.
func (t *tx) drop(h head) error {
	t.gone.Store(max(t.gone.Load(), h.version+1))
	for _, table := range []string{"document", "mail", "place", "record", "journal"} {
		if err := t.exec("DELETE FROM "+table+" WHERE subject = ?", h.id); err != nil {
			return err
		}
	}
	return t.exec("DELETE FROM subject WHERE id = ?", h.id)
}

// schedule applies the end of a turn, if this commit is one, and says whether the holder was taken out.
func (h *head) schedule(c state.Commit, now int64) (released bool) {
	wake := sql.NullInt64{Int64: millisUp(c.Wake), Valid: !c.Wake.IsZero()}
	switch {
	case c.Holder == "":
		// An Ask may only bring the time forward; a held subject keeps the end of its lease, its holder will see that
		// the document moved.
		if h.holder == "" && wake.Valid && (!h.due.Valid || wake.Int64 < h.due.Int64) {
			h.due = wake
		}
		return false
	case !c.HandBack && (!c.Release || h.unread > 0):
		return false
	case h.flag == flagRaised, c.HandBack && !wake.Valid:
		wake = sql.NullInt64{Int64: now, Valid: true}
	}
	h.holder, h.due = "", wake
	return true
}

// save writes what stands beside the subject's row.
func (t *tx) save(id int64, c state.Commit) error {
	if c.Doc != nil {
		if err := t.exec("INSERT INTO document (subject, doc) VALUES (?, ?) ON CONFLICT (subject) DO UPDATE SET doc = excluded.doc", id, c.Doc); err != nil {
			return err
		}
		if err := t.index(id, c.Index); err != nil {
			return err
		}
	}
	for _, d := range c.Forget {
		if err := t.exec("DELETE FROM delivery WHERE id = ?", d); err != nil {
			return err
		}
	}
	for _, r := range c.Put {
		if err := t.put(id, r); err != nil {
			return err
		}
	}
	return t.journal(id, c.Journal)
}

// index replaces the places of a subject.
func (t *tx) index(id int64, places []state.Index) error {
	if err := t.exec("DELETE FROM place WHERE subject = ?", id); err != nil {
		return err
	}
	for _, x := range places {
		if err := t.exec("INSERT OR REPLACE INTO place (name, score, label, subject) VALUES (?, ?, ?, ?)", x.Name, x.Score, x.Label, id); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) put(id int64, r state.Record) error {
	if r.Value == nil {
		return t.exec("DELETE FROM record WHERE subject = ? AND key = ?", id, r.Key)
	}
	expires := sql.NullInt64{Int64: t.now + r.TTL.Milliseconds(), Valid: r.TTL > 0}
	return t.exec(`INSERT INTO record (subject, key, expires, value) VALUES (?, ?, ?, ?)
		ON CONFLICT (subject, key) DO UPDATE SET expires = excluded.expires, value = excluded.value`, id, r.Key, expires, r.Value)
}

func (t *tx) journal(id int64, lines [][]byte) error {
	if len(lines) == 0 {
		return nil
	}
	var last int64
	if err := t.row("SELECT ifnull(max(n), 0) FROM journal WHERE subject = ?", []any{id}, &last); err != nil {
		return err
	}
	for _, l := range lines {
		last++
		if err := t.exec("INSERT INTO journal (subject, n, line) VALUES (?, ?, ?)", id, last, notNil(l)); err != nil {
			return err
		}
	}
	return t.exec("DELETE FROM journal WHERE subject = ? AND n <= ?", id, last-state.JournalKept)
}

// Defer does nothing here. It serves a fleet, whose poll would meet a lease held elsewhere again and again; leases of
// the embedded store are held by this very process, and a subject is past its time under one only while its turn
// outlasts the lease it began with.
func (s *Store) Defer(context.Context, state.Subject) error { return nil }

// sweep deletes a chunk of each thing that has outlived its time and says whether there may be more.
func (t *tx) sweep() (more bool, err error) {
	deliveries, err := t.changed("DELETE FROM delivery WHERE n IN (SELECT n FROM delivery ORDER BY n LIMIT ?) AND at <= ?",
		sweepChunk, t.now-state.IDLife.Milliseconds())
	if err != nil {
		return false, err
	}
	records, err := t.changed("DELETE FROM record WHERE (subject, key) IN (SELECT subject, key FROM record WHERE expires <= ? LIMIT ?)",
		t.now, sweepChunk)
	if err != nil {
		return false, err
	}
	if err := t.loadRawBytes(); err != nil {
		return false, err
	}
	raws, err := t.dropRaw("DELETE FROM raw WHERE n IN (SELECT n FROM raw ORDER BY n LIMIT ?) AND at <= ? RETURNING size",
		sweepChunk, t.now-state.RawLife.Milliseconds())
	if err != nil {
		return false, err
	}
	return deliveries == sweepChunk || records == sweepChunk || raws == sweepChunk, t.saveRawBytes()
}

// notNil keeps an empty value from being stored as NULL.
func notNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
