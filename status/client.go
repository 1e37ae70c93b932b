package status

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Code names why a request of a client was refused (docs/statuses.md, Errors).
type Code string

// The codes of a Refusal.
const (
	CodeInvalid         Code = "validation"             // a field; Fields says which and why
	CodeForbidden       Code = "forbidden"              // the token may not do this at all
	CodeContextOwned    Code = "context_owned"          // another principal's context, or Signalbox's own
	CodeNotFound        Code = "not_found"              // no such run, operation or context
	CodeRunExists       Code = "run_exists"             // the external id is another run's; Run says whose
	CodeSequence        Code = "sequence_required"      // the run is ordered by its client
	CodeKeyReused       Code = "idempotency_key_reused" // the same key with another body
	CodeTooManyContexts Code = "too_many_contexts"
	CodeTooManyUpdates  Code = "too_many_updates"
	CodeBusy            Code = "resource_lock" // v1 only: as many calls as may wait are waiting
)

// Refusal is the answer to a request that was not accepted. Nothing of it was stored.
type Refusal struct {
	Code    Code
	Message string
	Fields  map[string]string // by name of the field, what is wrong with it
	Run     string            // of CodeRunExists
}

func (r *Refusal) Error() string { return string(r.Code) + ": " + r.Message }

// Caller is who asks, as its token says. Whether it may speak of this repository is the API's to check.
type Caller struct {
	Principal string // owner of what it creates first
	// Run is the run key ("sb1-…") of a triggered run's own token: it may report that run and nothing else.
	Run string
}

// Target is the commit that a request is about. SHA is in full and in lower case.
type Target struct {
	Repo forge.Repo
	SHA  string
}

// Subject is the subject of the commit.
func (t Target) Subject() state.Subject { return Subject(t.Repo, t.SHA) }

// Key makes a request idempotent for 24 h (docs/statuses.md). The zero Key does not.
type Key struct {
	Scope string // whatever sets the caller's keys apart: method, path and the Idempotency-Key
	Body  string // digest of the request's body
}

// Content is what can be seen of a status.
type Content struct {
	State       forge.StatusState `json:"state"`
	TargetURL   string            `json:"target_url,omitempty"`
	Description string            `json:"description,omitempty"`
	Coverage    *float64          `json:"coverage,omitempty"` // percent
}

// Create begins a run: a new attempt in a context.
type Create struct {
	Context    string `json:"context"`
	Ref        string `json:"ref,omitempty"`
	ExternalID string `json:"external_id,omitempty"`
	PipelineID int64  `json:"pipeline_id,omitempty"`
	// Sequence, from 1, makes the run one that its client orders: every update must then have a larger one. 0 = Signalbox
	// numbers the updates as they come.
	Sequence int64 `json:"sequence,omitempty"`
	Content
}

// Update says something new of a run. What it leaves out of the Content stays as it was.
type Update struct {
	Sequence int64 `json:"sequence,omitempty"` // 0 = none was given
	Content
}

// Order is the order key of one accepted status. Keys of one context compare by Attempt, then by Sequence.
type Order struct {
	Attempt  int64 `json:"attempt"`
	Sequence int64 `json:"sequence"`
}

// Compare is negative where o comes before p.
func (o Order) Compare(p Order) int {
	return cmp.Or(cmp.Compare(o.Attempt, p.Attempt), cmp.Compare(o.Sequence, p.Sequence))
}

// OpState is how far an operation has come. It is derived whenever it is asked for.
type OpState string

// The states of an operation; the last three are final.
const (
	OpAccepted   OpState = "accepted"   // stored; no call for it can have left
	OpDelivering OpState = "delivering" // a call may have left, and is repeated until its end is known
	OpDelivered  OpState = "delivered"  // the forge shows it, or showed it until a newer one came
	OpSuperseded OpState = "superseded" // it took no effect, or a newer one was pushed instead
	OpFailed     OpState = "failed"     // refused for good, or given up after the last try
)

// Final says whether the state changes no more.
func (s OpState) Final() bool { return s == OpDelivered || s == OpSuperseded || s == OpFailed }

// Reasons of an operation's state.
const (
	ReasonDuplicate    = "duplicate"      // delivered: the same was said or shown already
	ReasonRunFinished  = "run_finished"   // superseded: a finished run does not go back, or the pull request went on
	ReasonNewerAttempt = "newer_attempt"  // superseded: a newer run of the context counts
	ReasonNewer        = "newer_sequence" // superseded: a newer status of the run counts
	ReasonNotCounted   = "not_counted"    // superseded: the pull request does not count what its run says
	ReasonReplaced     = "replaced"       // superseded: a newer status was pushed instead
	ReasonRefused      = "refused"        // failed: the forge takes it in no case
	ReasonExhausted    = "exhausted"      // failed: the last try was made
	ReasonContextOwned = "context_owned"  // failed: the context turned out to be Signalbox's own
	ReasonDryRun       = "dry_run"        // failed: nothing is written in a dry run
)

// Trouble is what kept the newest try of an operation from its end.
type Trouble struct {
	Class   string `json:"class"`          // forge.Class in words
	Code    int    `json:"code,omitempty"` // HTTP status of the forge; 0 = no answer came
	Message string `json:"message"`
}

// ForgeRef is what the forge made of an operation.
type ForgeRef struct {
	ID         string `json:"id,omitempty"`
	PipelineID int64  `json:"pipeline_id,omitempty"`
}

// Operation is one accepted write.
type Operation struct {
	ID      string          `json:"id"`
	RunID   string          `json:"run_id"`
	State   OpState         `json:"state"`
	Reason  string          `json:"reason,omitempty"`
	Order   Order           `json:"order"`
	Content `json:"status"` // what the write said; apart, since both have a state
	// Effective is the state that counts in the context now, whoever set it.
	Effective    forge.StatusState `json:"effective_state,omitempty"`
	SupersededBy string            `json:"superseded_by,omitempty"` // id of an operation, where one is known
	Tries        int               `json:"tries"`
	Contentions  int               `json:"contentions"`
	Crashes      int               `json:"crashes"`
	NextTryAt    time.Time         `json:"next_try_at,omitzero"`
	LastError    *Trouble          `json:"last_error,omitempty"`
	AcceptedAt   time.Time         `json:"accepted_at"`
	DeliveredAt  time.Time         `json:"delivered_at,omitzero"`
	ForgeRef     *ForgeRef         `json:"forge_ref,omitempty"`
	// Waiting: a v1 call that no turn has claimed yet; Withdraw can still take it back.
	Waiting bool `json:"-"`
}

// Run is one run in a context, as it is now: Content is the newest status of it that took effect.
type Run struct {
	ID         string     `json:"id"`
	ExternalID string     `json:"external_id,omitempty"`
	Repo       forge.Repo `json:"-"`
	SHA        string     `json:"sha"`
	Ref        string     `json:"ref,omitempty"`
	Context    string     `json:"context"`
	Owner      string     `json:"owner"`
	Attempt    int64      `json:"attempt"`
	PipelineID int64      `json:"pipeline_id,omitempty"` // the forge's answer, else the client's wish
	CreatedAt  time.Time  `json:"created_at"`
	UpdatedAt  time.Time  `json:"updated_at"`
	Content
	ForgeRef *ForgeRef `json:"forge_ref,omitempty"`
}

// Accepted is the answer to a request that is stored now.
type Accepted struct {
	Operation Operation
	Run       Run
	Existing  bool // a create whose external id and body are those of a run that is there: nothing is new
	Replayed  bool // the answer of an earlier request with the same Key
}

// Store is what reading needs of a store.
type Store interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	// Record answers state.ErrNotFound where there is none.
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
}

// Clients accepts and reads the statuses of clients. It is safe for concurrent use. Its errors are a *Refusal,
// actor.ErrBusy, or a fault of the store; after the last two nothing is known of the request, and it may be repeated
// with the same Key.
type Clients struct {
	engine *actor.Engine
	store  Store
	ours   func(forge.Repo, string) bool
}

// NewClients makes the one that accepts for all commits. ours says by configuration which contexts are Signalbox's own
// (the name of the gate check, of presubmits); whatever a commit was told to show is its own besides.
func NewClients(e *actor.Engine, s Store, ours func(repo forge.Repo, context string) bool) *Clients {
	return &Clients{engine: e, store: s, ours: ours}
}

// Filter narrows a List; a zero field narrows nothing.
type Filter struct {
	Context    string
	Ref        string
	PipelineID int64
	State      forge.StatusState
	All        bool // earlier attempts too
}

// errNothing ends an Ask that has nothing to save.
var errNothing = errors.New("nothing to save")

// Create accepts a new run.
func (c *Clients) Create(ctx context.Context, by Caller, at Target, r Create, k Key) (Accepted, error) {
	a, err := c.accept(ctx, by, at, k, func(t *decision) (Accepted, error) { return c.creating(ctx, t, by, r) })
	if err != nil || !a.Existing {
		return a, err
	}
	o, err := c.Operation(ctx, at.Repo.Instance, a.Operation.ID)
	var gone *Refusal
	if errors.As(err, &gone) {
		return a, nil // longer ago than operations are kept
	}
	a.Operation = o
	return a, err
}

func (c *Clients) creating(ctx context.Context, t *decision, by Caller, r Create) (Accepted, error) {
	var old *past
	if r.ExternalID != "" {
		scope := scopeOf(r.Context, r.Ref)
		attempt, err := record[int64](ctx, c.store, t.s, externalRecord(scope, r.ExternalID))
		if err == nil && attempt != nil {
			old, err = record[past](ctx, c.store, t.s, pastRecord(runID(scope, *attempt)))
		}
		if err != nil {
			return Accepted{}, err
		}
	}
	return t.create(by, r, c.ours, old)
}

// Update accepts a new status of a run. The run of a triggered presubmit has its run key ("sb1-…") for an id; its
// status goes to the pull request, whose check it is.
func (c *Clients) Update(ctx context.Context, by Caller, at Target, run string, r Update, k Key) (Accepted, error) {
	return c.accept(ctx, by, at, k, func(t *decision) (Accepted, error) { return c.updating(ctx, t, by, run, r) })
}

func (c *Clients) updating(ctx context.Context, t *decision, by Caller, run string, r Update) (Accepted, error) {
	if _, triggered := t.d.Runs[run]; triggered || by.Run != "" {
		return t.report(by, run, r)
	}
	old, err := record[past](ctx, c.store, t.s, pastRecord(run))
	if err != nil {
		return Accepted{}, err
	}
	return t.update(by, run, r, c.ours, old)
}

// Post accepts a status in the old synchronous way: it continues the newest run of the context, or begins one where that
// is finished. It takes its order now, and counts from when a turn of the commit has claimed it; until then
// Operation.Waiting holds and Withdraw takes it back. A link that is not https is left out.
func (c *Clients) Post(ctx context.Context, by Caller, at Target, r Create) (Accepted, error) {
	return c.accept(ctx, by, at, Key{}, func(t *decision) (Accepted, error) { return t.post(by, r, c.ours) })
}

// stored is the reply of an accepted request. Mark tells the request that was accepted from those that repeat it.
type stored struct {
	Mark string   `json:"mark"`
	Body string   `json:"body"`
	Of   Accepted `json:"of"`
}

// accept runs one decision as an Ask on the commit: no lease, and no push in flight hinders it. What f reads of records
// it reads after the document, in the same round of the compare-and-swap.
func (c *Clients) accept(ctx context.Context, by Caller, at Target, k Key, f func(t *decision) (Accepted, error)) (Accepted, error) {
	mine, id := rand.Text(), ""
	if k != (Key{}) {
		sum := sha256.Sum256(encoded([]string{by.Principal, by.Run, k.Scope}))
		id = "client/" + hex.EncodeToString(sum[:])
	}
	var made Accepted
	b, err := actor.Ask(ctx, c.engine, at.Subject(), id, func(d Document, now time.Time) (actor.Step[Document], error) {
		t := &decision{s: at.Subject(), d: d.clone(), now: now}
		if len(t.d.Pulls) == 0 {
			t.d.Repo = at.Repo // else as the pull requests name it
		}
		var err error
		if made, err = f(t); err != nil {
			return actor.Step[Document]{}, err
		}
		step := t.step()
		step.Wake, step.Reply = now, encoded(stored{mine, k.Body, made})
		return step, nil
	})
	if err != nil {
		return Accepted{}, err
	}
	var r stored
	if err := json.Unmarshal(b, &r); err != nil {
		return Accepted{}, fmt.Errorf("read the stored answer of %s: %w", at.Subject(), err)
	}
	switch {
	case r.Mark == mine:
		r.Of = made
	case r.Body != k.Body:
		return Accepted{}, refuse(CodeKeyReused, "this idempotency key was used with another body")
	default:
		r.Of.Replayed = true
	}
	r.Of.Run.Repo = at.Repo
	return r.Of, nil
}

// Withdraw takes back an operation of Post that no turn has claimed, and says whether it did: then nothing is left of
// it. A claimed one goes on to its end.
func (c *Clients) Withdraw(ctx context.Context, at Target, operation string) (bool, error) {
	s, run, n, ok := parseOperation(at.Repo.Instance, operation)
	if !ok || s != at.Subject() {
		return false, refuse(CodeNotFound, "no such operation")
	}
	return c.change(ctx, s, func(t *decision) (bool, error) { return t.withdraw(run, n), nil })
}

// Transfer gives a context to another principal. Whether the caller may is the API's to check (an administrator).
func (c *Clients) Transfer(ctx context.Context, at Target, context, ref, to string) error {
	_, err := c.change(ctx, at.Subject(), func(t *decision) (bool, error) {
		scope := scopeOf(context, ref)
		x, there := t.d.Contexts[scope]
		if !there {
			return false, refuse(CodeNotFound, "no such context")
		}
		x.Owner = to
		t.d.Contexts[scope] = x
		return true, nil
	})
	return err
}

// change is a decision that is told by whether it changed anything.
func (c *Clients) change(ctx context.Context, s state.Subject, f func(t *decision) (bool, error)) (bool, error) {
	_, err := actor.Ask(ctx, c.engine, s, "", func(d Document, now time.Time) (actor.Step[Document], error) {
		t := &decision{s: s, d: d.clone(), now: now}
		if did, err := f(t); err != nil || !did {
			return actor.Step[Document]{}, cmp.Or(err, errNothing)
		}
		step := t.step()
		step.Wake = now
		return step, nil
	})
	if errors.Is(err, errNothing) {
		return false, nil
	}
	return err == nil, err
}
