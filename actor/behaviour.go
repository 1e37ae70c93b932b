// Package actor runs subjects: one goroutine actor per subject that has work, its events handled strictly one after
// another, kept in order across instances by a lease and a fence. It knows no pull request: what a subject means is a
// Behaviour's business. There are two entrances (Tell: durable, ordered, asynchronous; Ask: a synchronous
// read-decide-save) and one exit (Wishes: what should be true outside, kept in the document's outbox until it is).
package actor

import (
	"context"
	"encoding/json"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

// Behaviour is what one kind of subject means. D is its document (encoded as JSON), F the facts it looks up.
//
// A turn is: Look, Decide, commit; then one effect (Do) whose outcome is the next input; then new mail; and so on.
// Look and Do may do I/O and may be called for the same input again after a crash. Decide is pure: no clock, no I/O,
// no randomness; it is called again with fresh state when a commit finds that the document has moved.
type Behaviour[D, F any] interface {
	// Look gathers what Decide needs for these inputs. A fact is yes, no, or unknown with a reason; Look has no
	// error result, because "could not look" is itself a fact that Decide must handle.
	Look(ctx context.Context, s state.Subject, d D, in Inputs, now time.Time) F
	// Decide consumes all of in.
	Decide(s state.Subject, d D, facts F, in Inputs, now time.Time) Step[D]
	// Do makes one wish true. An entry whose call may have left before (e.Unsure not zero) is looked up first.
	// confirm must be called directly before a permitting call that cannot be taken back; when it answers an error
	// Do returns Outcome{Code: Stale} without calling. ctx ends when the lease does.
	Do(ctx context.Context, s state.Subject, e Entry, now time.Time, confirm func(context.Context) error) Outcome
}

// Inputs is what one Decide consumes. At least one part is not empty, or the wake time has come.
type Inputs struct {
	Mail    []state.Mail // in order of Seq
	Results []Result     // outcomes of entries, in the order they happened
	// Reconcile names why the document must be compared with the outside ("takeover", "dead letter", "depth",
	// "failover"); empty = it need not.
	Reconcile string
}

// Step is what Decide answers.
type Step[D any] struct {
	Next   D
	Wishes []Wish
	// Wake asks for a turn at that time even if no mail comes; zero = none. It replaces the former one.
	Wake time.Time
	// Keep is for how long the subject is kept after its last change once nothing is owed: no mail, no entry, no wake, no
	// reconcile to come, no quarantine. Then it is dropped, as if it had never been heard of. It replaces the former one;
	// 0 = for ever, as whoever puts a record without a TTL must ask for. It is never shorter than state.IDLife, so that
	// nothing that a next life tells has the id of something told in this, nor than its records live, a dead letter's too.
	Keep time.Duration
	// Compared: the document was compared with the outside, so what should be shut and could not be is tried at once.
	// The engine knows it by itself of what it asked for (Inputs.Reconcile).
	Compared bool
	Index    []state.Index // replaces the subject's places
	Put      []state.Record
	Journal  [][]byte // lines of the subject's story
	// Dead lists mail that cannot be decoded: it becomes a dead letter, its ID is forgotten, so that a
	// redelivery is new work.
	Dead []DeadMail
	// Reply is the answer of an Ask.
	Reply []byte
	// Why names the boxes of the flowchart that were passed, in order: log line, metric label, journal.
	Why []string
	// Trouble is what a person should read in the log beside Why: what could not be looked at, and the answer that came.
	// It holds no secret and nothing of a payload; empty = nothing.
	Trouble string
}

// DeadMail is a mail given up by Decide, with the reason a person needs.
type DeadMail struct {
	Seq    int64
	Reason string
}

// Class orders effects: everything that shuts comes before everything that opens, texts come last.
type Class int

// The classes of effects, in the order they are done.
const (
	Shutting Class = iota
	Permitting
	Cosmetic
)

func (c Class) String() string { return [...]string{"shutting", "permitting", "cosmetic"}[c] }

// Wish is something that should be true outside. Key names the outside thing (one label, one run, one check); Want is
// the wanted state. A wish with the Key of an entry in the outbox replaces it if Want differs, else changes nothing.
type Wish struct {
	Key   string          `json:"key"`
	Class Class           `json:"class"`
	Kind  string          `json:"kind"`           // what Do switches on
	Want  json.RawMessage `json:"want,omitempty"` // nil is allowed
	// To makes the wish a Tell: it is stored in that subject's mailbox as mail of this Kind with body Want, under
	// the id "<sender>#<key>#<rev>", so it takes effect once. The engine does it; Do is not called.
	To *state.Subject `json:"to,omitempty"`
	// Undo: if the entry it replaces was never attempted, both vanish (Result with Code Dropped).
	Undo bool `json:"undo,omitempty"`
	// NotBefore delays the first try; afterwards it is the next try.
	NotBefore time.Time `json:"not_before,omitzero"`
}

// Entry is a wish in the outbox, with its history.
type Entry struct {
	Wish
	Rev  int64     `json:"rev"` // unique within the subject; grows
	Born time.Time `json:"born"`
	// Unsure is since when a call for this key may have left without its answer being recorded; zero = none has.
	Unsure time.Time `json:"unsure,omitzero"`
	// Left is when the newest such call ended as far as anybody knows, and moves with each: what must not be overtaken
	// by an earlier call waits from then on.
	Left        time.Time `json:"left,omitzero"`
	Tries       int       `json:"tries,omitempty"`
	Contentions int       `json:"contentions,omitempty"` // in a row
	LastError   string    `json:"last_error,omitempty"`
	// LastData is the Data that came with LastError.
	LastData    json.RawMessage `json:"last_data,omitempty"`
	FailingFrom time.Time       `json:"failing_from,omitzero"`
	Contended   time.Time       `json:"contended,omitzero"` // since when in a row
	// Exhausted is since when a shutting entry has used up its tries; newer shutting wishes of its key keep it.
	Exhausted time.Time `json:"exhausted,omitzero"`
}

// Attempted says whether a call for this entry may ever have left.
func (e Entry) Attempted() bool { return e.Tries > 0 || !e.Unsure.IsZero() }

// Code says how an attempt ended.
type Code string

// The codes. Done, Refused, GivenUp and Dropped end an entry and reach Decide as a Result. Stale keeps the entry and
// reaches Decide too, unless it was confirm that refused. The others keep the entry and are the engine's business.
const (
	Done       Code = "done"       // it is so now (also when it was so already)
	Failed     Code = "failed"     // a try is counted; the call may have left
	Contention Code = "contention" // busy or rate limited: no try is counted, nothing left
	AuthPause  Code = "auth"       // the credential is refused: no try is counted, long pause, alert
	Refused    Code = "refused"    // permanent; becomes a dead letter
	Stale      Code = "stale"      // confirm said no, or the world moved: nothing left, decide again
	Settling   Code = "settling"   // looked up, not found, too early to believe it: nothing left
	GivenUp    Code = "given-up"   // by the engine after the last try
	Dropped    Code = "dropped"    // by the engine: undone before it was ever attempted
)

// Outcome is what Do answers.
type Outcome struct {
	Code  Code
	Err   error         // why, for every code but Done; never contains a secret
	After time.Duration // wait at least this long before the next try
	Data  json.RawMessage
	// Note is a word for the story, where the code does not say all: that a dry run did not do it.
	Note string
	// Quiet: a Refused that is an ordinary answer and needs no dead letter; Decide handles it.
	Quiet bool
}

// Result is an outcome as an input of Decide.
type Result struct {
	Key   string          `json:"key"`
	Rev   int64           `json:"rev"`
	Kind  string          `json:"kind"`
	Want  json.RawMessage `json:"want,omitempty"`
	Code  Code            `json:"code"`
	Error string          `json:"error,omitempty"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// Store is what the engine needs of a store; state/embedded and state/redis are the two. All times are the store's.
type Store interface {
	// Accept stores a delivery: deduplicates by ID, appends to the mailbox and makes the subject due, atomically.
	// It never waits for a lease.
	Accept(ctx context.Context, d state.Delivery) (state.Accepted, error)
	// Begin enters the holder's token into the document and answers what a turn starts from. Called again with the
	// same token it changes nothing. NotOwner: the lease's key does not hold this token.
	Begin(ctx context.Context, s state.Subject, holder string, lease time.Duration) (state.Snapshot, state.Verdict, error)
	// Confirm asks whether holder and version still stand, and whether mail beyond seq has come.
	Confirm(ctx context.Context, s state.Subject, holder string, version, seq int64) (state.Confirmed, error)
	// Commit saves a turn's step, or with an empty Holder an Ask's.
	Commit(ctx context.Context, c state.Commit) (state.Committed, error)
	// Due lists subjects whose time has come, at most limit, those due longest first within a shard.
	Due(ctx context.Context, limit int) ([]state.Subject, error)
	// Defer moves a subject whose lease is busy to the end of that lease, if it is still held.
	Defer(ctx context.Context, s state.Subject) error
	// Load reads without taking part: for Ask, pages and commands.
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	// Record reads one record; state.ErrNotFound if there is none.
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
	// List reads an index: entries whose label begins with prefix, by score and then label. A prefix other than ""
	// needs an index whose scores are all 0.
	List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error)
	// Identity names the history the store is on (Redis: master_replid); a change means that acknowledged writes
	// may be gone.
	Identity(ctx context.Context) (string, error)
}
