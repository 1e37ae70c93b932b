// Package state is the durable side of a subject: its document under version and fence, its mailbox, its place in
// the schedule, its indexes, records and journal. It knows no pull request and no behaviour. Two stores implement
// the same operations, state/embedded (one SQLite file) and state/redis (five scripts); state/statetest holds both
// to one conformance suite.
//
// Every operation is atomic and may be sent twice: nothing increments in a store except the version of a document
// and the sequence of a mailbox, and both only together with a check that a second sending fails.
package state

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"strings"
	"time"
)

// Subject names one thing whose events are handled strictly one after another:
// "<instance>/<project id>/<kind>/<key>", for example "github/1296269/pr/7". IDs are immutable, so a rename keeps
// the subject; "-" stands where there is none.
type Subject struct {
	Instance, Project, Kind, Key string
}

// String writes the four parts with "/" between them; parts are path-escaped, so the form is unambiguous.
func (s Subject) String() string {
	return url.PathEscape(s.Instance) + "/" + url.PathEscape(s.Project) + "/" + url.PathEscape(s.Kind) + "/" + url.PathEscape(s.Key)
}

// ParseSubject is the inverse of String.
func ParseSubject(v string) (Subject, error) {
	p := strings.Split(v, "/")
	if len(p) != 4 {
		return Subject{}, fmt.Errorf("subject %q: expected instance/project/kind/key", v)
	}
	for i := range p {
		u, err := url.PathUnescape(p[i])
		if err != nil || u == "" {
			return Subject{}, fmt.Errorf("subject %q: part %d is empty or badly escaped", v, i+1)
		}
		p[i] = u
	}
	return Subject{p[0], p[1], p[2], p[3]}, nil
}

// MarshalText and UnmarshalText let a Subject stand in JSON as its string.
func (s Subject) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *Subject) UnmarshalText(b []byte) (err error) { *s, err = ParseSubject(string(b)); return err }

// Shards is the number of shards; fixed for ever, since it decides where a subject's keys live.
const Shards = 256

// Shard is the shard of the subject, 0 to Shards-1.
func (s Subject) Shard() int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.String()))
	return int(h.Sum32() % Shards)
}

// LockKey is the key of the subject's lease. It carries the shard's hash tag, so that on Redis Cluster the lease
// lives in the slot of everything else that belongs to the subject.
func (s Subject) LockKey() string { return fmt.Sprintf("sb:{s%03d}:lk:%s", s.Shard(), s) }

// Delivery is one mail to be stored by Accept.
type Delivery struct {
	Subject Subject
	// ID is the idempotency key, "<instance>:<source>:<guid>"; it takes effect once within IDLife.
	ID     string
	Kind   string // what Body is, for the behaviour that reads it
	Format int    // format of Body; a reader that does not know it leaves the mail alone
	Body   []byte // compact envelope, about 1 KB
	Raw    []byte // the body as it arrived, kept RawLife under ID; nil = none
	// Own marks mail that one subject tells another. It is stored even where the store is too full to take
	// deliveries, so that what has begun ends: above all, so that a gate can still be shut.
	Own bool
	// Hint marks mail that can be re-read at the forge. Beyond HintDepth it is not appended: the reconcile flag is
	// set instead, in the same step.
	Hint bool
}

// Limits and lifetimes of a store.
const (
	IDLife    = 14 * 24 * time.Hour
	RawLife   = 7 * 24 * time.Hour
	HintDepth = 1000 // beyond: hints set the reconcile flag
	MailDepth = 5000 // beyond: Accept answers ErrFull
	MailBatch = 64   // most mail one Begin or Commit returns
	// JournalKept is how many journal lines a subject keeps, the newest.
	JournalKept = 500
)

// Accepted is what Accept did. Exactly one of its three outcomes holds: appended (Seq > 0), Duplicate, or Flagged.
type Accepted struct {
	Seq       int64 // sequence number in the subject's mailbox, from 1
	Duplicate bool  // the ID was stored before; nothing changed
	Flagged   bool  // the mailbox is deep: the reconcile flag was set instead, and the ID remembered
}

// Mail is one durable input of a subject.
type Mail struct {
	Seq    int64     `json:"seq"` // grows by one per mail; not reused in the life of the subject
	ID     string    `json:"id"`
	Kind   string    `json:"kind"`
	Format int       `json:"format"`
	At     time.Time `json:"at"` // the store's time of acceptance
	Body   []byte    `json:"body"`
}

// Snapshot is a subject as stored.
type Snapshot struct {
	Version int64
	Doc     []byte // nil = no document yet
	Mail    []Mail // oldest first, at most MailBatch
	Now     time.Time
	// Holder is the token that began and neither released nor handed back. From Begin it is the one found *before*
	// (not the caller's own): not empty means that it crashed or was paused past its lease.
	Holder string
	// Flagged is the reconcile flag; Commit with ClearFlag takes it down.
	Flagged bool
	// Wake is when the subject is due next; zero = not scheduled.
	Wake time.Time
}

// Index is one place of a subject in a named, ordered list. A commit replaces all places of its subject.
// Within one index a subject may stand under several labels.
type Index struct {
	Name  string  `json:"name"`  // "name", "waiting", "failing", "dead", "running", OldestSince, …
	Label string  `json:"label"` // unique within (Name, subject); for "name" what people type
	Score float64 `json:"score"` // 0 for indexes that are searched by prefix of the label
}

// OldestSince is the index of what waits to be done: each score is the time, Unix milliseconds of the store's clock,
// from which something could be; one in the future is planned. Commits place what their documents know of. Mail is
// the store's own part: each subject with unread mail stands there under MailLabel, by when the oldest was accepted.
const (
	OldestSince = "oldest-since"
	MailLabel   = "mail"
)

// Entry is one row of a listing.
type Entry struct {
	Subject Subject
	Index
}

// Record is a value kept beside the document: a stored reply, a dead letter's story, a frozen payload.
type Record struct {
	Key   string
	Value []byte        // nil deletes
	TTL   time.Duration // 0 = for ever
}

// Commit is one fenced save. Everything in it happens in one atomic step or not at all.
type Commit struct {
	Subject Subject
	// Holder is the token given to Begin. Empty = an Ask: no lease, only Version is compared, and Through, Release,
	// HandBack and Drop must not be used.
	Holder  string
	Version int64 // the version that was read; the saved one is Version+1
	// Doc is the new document; nil leaves document, version and indexes as they are (a release without a change, or
	// of something written in a newer format). Holder and Version are compared all the same.
	Doc     []byte
	Through int64 // mail up to and including this sequence number is removed
	Forget  []string
	// ClearFlag takes the reconcile flag down; SetFlag puts it up.
	ClearFlag, SetFlag bool
	// Wake is when the subject is due next, absolute store time; zero = only when mail comes. While the subject is
	// held its due time is the end of the lease, and Wake counts from the release.
	Wake    time.Time
	Index   []Index
	Put     []Record
	Journal [][]byte // appended; the newest JournalKept are kept
	// Release ends the turn: if no mail is left, the holder is taken out of the document, the lock key is deleted
	// if it still holds Holder, and due := Wake. If mail is left it is returned instead and the holder stays.
	Release bool
	// HandBack releases even if mail is left (orderly stop, lease kept too long, back-off after a crash); due :=
	// Wake even though mail is left, or now where Wake is zero. (New mail makes it due at once, as always.)
	HandBack bool
	// Drop releases too, and ends the subject with the turn: if no mail is left and the reconcile flag is down, its
	// document, places, journal and due time go in the same step, as if it had never been written to. Else it stays and
	// Drop is a Release: the holder gets the mail. Nothing but Wake may be saved with it. Records end by their own TTL, so
	// whoever drops waits for the last of them; what is known of deliveries (ids, raw bodies) belongs to no subject.
	//
	// A life after that starts its mail at 1 again. Its first version is above the last of the life before, so that an
	// Ask that has read the one never saves into the other.
	Drop bool
}

// Valid refuses what no store can do: an Ask that wants what only a holder has, and a Drop that saves something.
func (c Commit) Valid() error {
	if c.Holder == "" && (c.Through != 0 || c.Release || c.HandBack || c.Drop) {
		return errors.New("an Ask consumes no mail and releases nothing")
	}
	if c.Drop && (c.Doc != nil || len(c.Put)+len(c.Journal) > 0) {
		return errors.New("nothing can be saved of a subject that is dropped")
	}
	return nil
}

// Verdict is a store's answer to a fenced operation.
type Verdict int

// The verdicts.
const (
	OK       Verdict = iota
	Moved            // still mine, but the version differs: reload and decide again
	NotOwner         // taken over: drop everything
)

func (v Verdict) String() string { return [...]string{"ok", "moved", "not-owner"}[v] }

// Committed is what Commit did.
type Committed struct {
	Verdict  Verdict
	Released bool   // the lease's key is gone or was not ours any more
	Mail     []Mail // unread mail beyond Through; only for a holder
	Now      time.Time
}

// Confirmed is the answer to Confirm.
type Confirmed struct {
	Verdict Verdict
	Unread  bool // mail arrived that the caller has not read (beyond the given sequence number)
}

// Errors of a store. Others are faults of the moment (network, timeout) and may be retried.
var (
	// ErrFull: nothing was stored; the store, its disk or this mailbox is full. Ask again later.
	ErrFull = errors.New("store full")
	// ErrTooNew: the file or database was written by a newer Signalbox.
	ErrTooNew = errors.New("store written by a newer version")
	// ErrNotFound: no such record or raw body.
	ErrNotFound = errors.New("not found")
)
