package redis

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/klauspost/compress/s2"
	"github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/state"
)

// settling is how long Accept waits for a server that moves slots, elects a master or loads its data. A forge gives
// a webhook 10 s.
const settling = 6 * time.Second

// Accept stores a delivery. state.ErrFull, with nothing stored, if the mailbox is full, if the server uses more than
// 85 % of its maxmemory (looked at once a second), or if it refuses writes for want of memory or disk. After any
// other error it is unknown whether the delivery was stored; sending it again is safe.
func (s *Store) Accept(ctx context.Context, d state.Delivery) (state.Accepted, error) {
	k := keysOf(d.Subject)
	script := s.accept
	if d.Own {
		script = s.acceptOwn
	} else if s.memory.full(ctx, s.client, k.due()) {
		return state.Accepted{}, fmt.Errorf("accept %s for %s: above %d%% of maxmemory: %w", d.ID, k.subject, acceptBelow, state.ErrFull)
	}
	mail, err := encodeMail(d)
	if err != nil {
		return state.Accepted{}, fmt.Errorf("accept %s for %s: %w", d.ID, k.subject, err)
	}
	var raw []byte // never empty if there is one: s2 begins with the length
	if d.Raw != nil {
		raw = s2.Encode(nil, d.Raw)
	}
	r, err := s.settled(ctx, func() (reply, error) {
		return s.run(ctx, script,
			[]string{k.delivery(d.ID), k.mailbox(), k.due(), k.lease(), k.state(), k.raw(d.ID), k.index(state.OldestSince)},
			k.subject, mail, flag(d.Hint), raw, state.HintDepth, state.MailDepth, state.IDLife.Milliseconds(), state.RawLife.Milliseconds())
	})
	if err != nil {
		if redis.HasErrorPrefix(err, "OOM") || redis.HasErrorPrefix(err, "MISCONF") {
			err = fmt.Errorf("%w: %w", state.ErrFull, err)
		}
		return state.Accepted{}, fmt.Errorf("accept %s for %s: %w", d.ID, k.subject, err)
	}
	switch w := r.text(0); w {
	case "NEW":
		seq, err := r.number(1)
		return state.Accepted{Seq: seq}, err
	case "FLAGGED":
		return state.Accepted{Flagged: true}, nil
	case "DUPLICATE":
		return state.Accepted{Duplicate: true}, nil
	case "FULL":
		return state.Accepted{}, fmt.Errorf("accept %s: mailbox of %s: %w", d.ID, k.subject, state.ErrFull)
	default:
		return state.Accepted{}, fmt.Errorf("accept %s for %s: unknown answer %q", d.ID, k.subject, w)
	}
}

// settled repeats f while the server says that it will be able to in a moment.
func (s *Store) settled(ctx context.Context, f func() (reply, error)) (reply, error) {
	enough := time.NewTimer(settling)
	defer enough.Stop()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, 500*time.Millisecond) {
		r, err := f()
		if !redis.IsTryAgainError(err) && !redis.IsClusterDownError(err) && !redis.IsLoadingError(err) {
			return r, err
		}
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-enough.C:
			again.Stop()
			return nil, err
		case <-ctx.Done():
			again.Stop()
			return nil, errors.Join(ctx.Err(), err)
		}
	}
}

// Begin enters holder into the document and makes the subject due when the lease ends.
func (s *Store) Begin(ctx context.Context, subject state.Subject, holder string, lease time.Duration) (state.Snapshot, state.Verdict, error) {
	k := keysOf(subject)
	r, err := s.run(ctx, s.begin, []string{k.state(), k.mailbox(), k.due(), k.lease(), k.gone()},
		k.subject, holder, upMilli(lease), state.MailBatch, uuid.NewString())
	var v state.Verdict
	if err == nil {
		v, err = r.verdict()
	}
	var snap state.Snapshot
	if err == nil && v == state.OK {
		snap, err = r.snapshot()
	}
	if err != nil {
		return state.Snapshot{}, 0, fmt.Errorf("begin %s: %w", k.subject, err)
	}
	return snap, v, nil
}

// Load reads a subject without taking part.
func (s *Store) Load(ctx context.Context, subject state.Subject) (state.Snapshot, error) {
	k := keysOf(subject)
	r, err := s.run(ctx, s.load, []string{k.state(), k.mailbox(), k.due(), k.gone()}, k.subject, state.MailBatch)
	var snap state.Snapshot
	if err == nil {
		snap, err = r.snapshot()
	}
	if err != nil {
		return state.Snapshot{}, fmt.Errorf("load %s: %w", k.subject, err)
	}
	return snap, nil
}

// snapshot reads the answer of begin and load.
func (r reply) snapshot() (n state.Snapshot, err error) {
	if n.Version, err = r.number(1); err != nil {
		return n, err
	}
	if doc, ok := r[2].(string); ok {
		n.Doc = []byte(doc)
	}
	n.Holder = r.text(3)
	up, err := r.number(4)
	if err != nil {
		return n, err
	}
	n.Flagged = up == 1
	if r.text(5) != "" {
		if n.Wake, err = r.time(5); err != nil {
			return n, err
		}
	}
	if n.Now, err = r.time(6); err != nil {
		return n, err
	}
	n.Mail, err = r.mail(7)
	return n, err
}

// Confirm asks whether holder and version still stand, and whether mail beyond seq waits.
func (s *Store) Confirm(ctx context.Context, subject state.Subject, holder string, version, seq int64) (state.Confirmed, error) {
	k := keysOf(subject)
	r, err := s.run(ctx, s.confirm, []string{k.state(), k.mailbox(), k.gone()}, holder, version, seq)
	var c state.Confirmed
	if err == nil {
		c.Verdict, err = r.verdict()
	}
	if err == nil && c.Verdict == state.OK {
		var unread int64
		unread, err = r.number(1)
		c.Unread = unread == 1
	}
	if err != nil {
		return state.Confirmed{}, fmt.Errorf("confirm %s: %w", k.subject, err)
	}
	return c, nil
}

// Commit saves a step.
func (s *Store) Commit(ctx context.Context, c state.Commit) (state.Committed, error) {
	done, err := s.save(ctx, c)
	if err != nil {
		return state.Committed{}, fmt.Errorf("commit %s: %w", c.Subject, err)
	}
	return done, nil
}

func (s *Store) save(ctx context.Context, c state.Commit) (state.Committed, error) {
	if err := c.Valid(); err != nil {
		return state.Committed{}, err
	}
	for _, x := range c.Index {
		if math.IsNaN(x.Score) { // Redis would refuse it in the midst of the script, which is not rolled back
			return state.Committed{}, fmt.Errorf("index %s: the score of %q is not a number", x.Name, x.Label)
		}
		s.places.add(x.Name)
	}
	for {
		r, err := s.sendCommit(ctx, c, s.places.all())
		if err != nil {
			return state.Committed{}, err
		}
		if r.text(0) == "INDEXES" { // placed by another instance, or before a restart: learnt once per name
			for i := range r[1:] {
				s.places.add(r.text(i + 1))
			}
			continue
		}
		var done state.Committed
		if done.Verdict, err = r.verdict(); err != nil || done.Verdict != state.OK {
			return done, err
		}
		released, err := r.number(1)
		if err != nil {
			return done, err
		}
		done.Released = released == 1
		if done.Now, err = r.time(2); err != nil {
			return done, err
		}
		done.Mail, err = r.mail(3)
		return done, err
	}
}

func (s *Store) sendCommit(ctx context.Context, c state.Commit, indexes []string) (reply, error) {
	k := keysOf(c.Subject)
	ending := ""
	switch {
	case c.HandBack:
		ending = "handback"
	case c.Drop:
		ending = "drop"
	case c.Release:
		ending = "release"
	}
	up := ""
	switch {
	case c.SetFlag:
		up = "set"
	case c.ClearFlag:
		up = "clear"
	}
	var wake int64
	if !c.Wake.IsZero() {
		// Rounded up, so that the subject is never due before the time that was asked for; never 0, which is none.
		wake = max(c.Wake.Add(time.Millisecond-time.Nanosecond).UnixMilli(), 1)
	}
	keys := []string{k.state(), k.mailbox(), k.due(), k.lease(), k.journal(), k.gone(), k.index(state.OldestSince)}
	args := []any{
		k.subject, c.Holder, c.Version, flag(c.Doc != nil), c.Doc,
		c.Through, wake, ending, up, state.MailBatch, state.JournalKept,
		len(indexes), len(c.Index), len(c.Put), len(c.Forget),
	}
	number := make(map[string]int, len(indexes))
	for i, name := range indexes {
		keys, args = append(keys, k.index(name)), append(args, name)
		number[name] = i + 1
	}
	for _, x := range c.Index {
		args = append(args, number[x.Name], x.Label, strconv.FormatFloat(x.Score, 'g', -1, 64))
	}
	for _, p := range c.Put {
		ttl := upMilli(p.TTL)
		if p.Value == nil {
			ttl = -1
		}
		keys, args = append(keys, k.record(p.Key)), append(args, ttl, p.Value)
	}
	for _, id := range c.Forget {
		keys = append(keys, k.delivery(id))
	}
	for _, line := range c.Journal {
		args = append(args, line)
	}
	return s.run(ctx, s.commit, keys, args...)
}

// Defer moves a due subject to the end of the lease that somebody holds on it; no lease, no change.
func (s *Store) Defer(ctx context.Context, subject state.Subject) error {
	k := keysOf(subject)
	if _, err := s.run(ctx, s.postpone, []string{k.due(), k.lease()}, k.subject); err != nil {
		return fmt.Errorf("defer %s: %w", k.subject, err)
	}
	return nil
}

// header is the part of a mail that the scripts do not look into, but for its body.
type header struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Format int    `json:"format"`
}

// encodeMail writes a mail but for its number and time, which the script puts in front.
func encodeMail(d state.Delivery) ([]byte, error) {
	h, err := json.Marshal(header{d.ID, d.Kind, d.Format})
	if err != nil {
		return nil, err
	}
	return append(append(h, '\n'), d.Body...), nil
}

func decodeMail(v string) (state.Mail, error) {
	head, body, _ := strings.Cut(v, "\n")
	part := strings.SplitN(head, " ", 3)
	if len(part) != 3 {
		return state.Mail{}, errors.New("unreadable mail")
	}
	seq, err1 := strconv.ParseInt(part[0], 10, 64)
	ms, err2 := strconv.ParseInt(part[1], 10, 64)
	var h header
	if err := errors.Join(err1, err2, json.Unmarshal([]byte(part[2]), &h)); err != nil {
		return state.Mail{}, fmt.Errorf("unreadable mail: %w", err)
	}
	return state.Mail{Seq: seq, ID: h.ID, Kind: h.Kind, Format: h.Format, At: time.UnixMilli(ms).UTC(), Body: []byte(body)}, nil
}

// mail reads the mail that an answer ends with.
func (r reply) mail(from int) ([]state.Mail, error) {
	var all []state.Mail
	for i := from; i < len(r); i++ {
		m, err := decodeMail(r.text(i))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// names are the indexes this process has heard of: a handful. Each commit passes the keys of all of them, since the
// script must be given every key it may touch and only the state knows where the subject stands.
type names struct {
	mu    sync.Mutex
	known []string // sorted by arrival; replaced, never changed
}

func (n *names) add(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.known {
		if k == name {
			return
		}
	}
	n.known = append(n.known[:len(n.known):len(n.known)], name)
}

func (n *names) all() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.known
}

// upMilli counts begun milliseconds.
func upMilli(d time.Duration) int64 {
	return int64((d + time.Millisecond - 1) / time.Millisecond)
}

func flag(v bool) string {
	if v {
		return "1"
	}
	return ""
}
