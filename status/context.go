package status

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Bounds of what clients may store on one commit, and lifetimes of their records.
const (
	maxContexts = 200
	maxUpdates  = 1000 // operations of one run, and runs of one context
	maxWaiting  = 64   // v1 calls that no turn has claimed
	// An operation's record is written when it is accepted and read for 14 days after its end, which the last try puts
	// off by three days at most. Its end is written later and must not be forgotten earlier.
	opLife   = 17 * 24 * time.Hour
	pastLife = 14 * 24 * time.Hour
	// kept is how long a commit is known after its last change, unless it is the head of an open pull request.
	kept = 90 * 24 * time.Hour
)

// Read-backs after a push (docs/statuses.md).
const (
	readSoon = 2 * time.Minute
	readLate = time.Hour
	// readBatch is how many contexts one Look reads back, so that a commit with many does not make its mail wait.
	readBatch = 16
)

// Context is one ordering scope: a context, and a ref where the client named one.
type Context struct {
	Name    string `json:"name"`
	Ref     string `json:"ref,omitempty"`
	Owner   string `json:"owner"`   // principal
	Attempt int64  `json:"attempt"` // the newest given
	// Runs are those whose statuses can still count, by attempt: the one of Effective, and newer ones of Waiting.
	Runs      []ClientRun `json:"runs,omitempty"`
	Effective Said        `json:"effective,omitzero"` // what should be shown; zero = nothing yet
	Waiting   []Said      `json:"waiting,omitempty"`  // v1 calls that no turn has claimed, by arrival

	Asked Order `json:"asked,omitzero"` // newest handed to the outbox
	Out   bool  `json:"out,omitempty"`  // the outbox has an entry
	Ended Order `json:"ended,omitzero"` // newest whose end is known
	Again bool  `json:"again,omitempty"`
	// Opening: a success may be shown.
	Opening bool      `json:"opening,omitempty"`
	Pushed  Pushed    `json:"pushed,omitzero"`
	Read    time.Time `json:"read,omitzero"` // when it is read back; zero = never
}

// ClientRun is the small state of a run.
type ClientRun struct {
	Attempt    int64     `json:"attempt"`
	ExternalID string    `json:"external_id,omitempty"`
	Digest     string    `json:"digest,omitempty"`  // of the create that has ExternalID
	Ordered    bool      `json:"ordered,omitempty"` // by its client
	Sequence   int64     `json:"sequence"`          // newest accepted
	Count      int64     `json:"count"`             // operations accepted
	PipelineID int64     `json:"pipeline_id,omitempty"`
	Created    time.Time `json:"created"`
}

// Said is one status with its place in the order. N numbers the operations of its run from 1.
type Said struct {
	Order
	N int64 `json:"n"`
	Content
	At time.Time `json:"at"`
}

// Pushed is the newest status that the forge took.
type Pushed struct {
	Order
	Content                     // zero = nobody knows what is shown
	Run     int64               `json:"run"` // attempt that the forge has it under
	Receipt forge.StatusReceipt `json:"receipt,omitzero"`
	At      time.Time           `json:"at"`
}

// past is a run that left the document, as its record keeps it.
type past struct {
	ClientRun
	Last    Said                `json:"last,omitzero"` // newest that took effect; zero = none did
	Receipt forge.StatusReceipt `json:"receipt,omitzero"`
}

// scopeOf is the key of a context in the document and in ids. Contexts and refs have no control characters.
func scopeOf(name, ref string) string {
	sum := sha256.Sum256([]byte(ref + "\n" + name))
	return hex.EncodeToString(sum[:12])
}

func runID(scope string, attempt int64) string { return scope + "-" + strconv.FormatInt(attempt, 10) }

// parseRun is the inverse of runID.
func parseRun(id string) (scope string, attempt int64, ok bool) {
	scope, n, _ := strings.Cut(id, "-")
	attempt, err := strconv.ParseInt(n, 10, 64)
	return scope, attempt, err == nil && attempt > 0 && runID(scope, attempt) == id
}

// operationID names the n-th operation of a run, wherever it is asked for: with it come project and commit.
func operationID(s state.Subject, run string, n int64) string {
	return fmt.Sprintf("%s-%s-%s-%d", s.Project, s.Key, run, n)
}

// parseOperation is the inverse of operationID.
func parseOperation(instance, id string) (s state.Subject, run string, n int64, ok bool) {
	p := strings.SplitN(id, "-", 3)
	if len(p) < 3 {
		return s, "", 0, false
	}
	i := strings.LastIndexByte(p[2], '-')
	if i < 0 {
		return s, "", 0, false
	}
	s = state.Subject{Instance: instance, Project: p[0], Kind: "commit", Key: p[1]}
	n, err := strconv.ParseInt(p[2][i+1:], 10, 64)
	run = p[2][:i]
	return s, run, n, err == nil && n > 0 && p[0] != "" && p[1] != "" && operationID(s, run, n) == id
}

// Keys of records.
func opRecord(run string, n int64) string   { return "op/" + run + "/" + strconv.FormatInt(n, 10) }
func endRecord(run string, n int64) string  { return "end/" + run + "/" + strconv.FormatInt(n, 10) }
func nextRecord(run string, n int64) string { return "next/" + run + "/" + strconv.FormatInt(n, 10) }
func pastRecord(run string) string          { return "past/" + run }
func externalRecord(scope, external string) string {
	sum := sha256.Sum256([]byte(external))
	return "external/" + scope + "/" + hex.EncodeToString(sum[:12])
}

// operation is the record of an operation; its end has one of its own, unless it ended when it was accepted.
type operation struct {
	Order
	Content
	At   time.Time `json:"at"`
	Twin string    `json:"twin,omitempty"` // id of the operation that said the same, whose fate it shares
	End  *end      `json:"end,omitempty"`
}

// end is how an operation ended.
type end struct {
	State   OpState   `json:"state"` // a final one
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"` // operation that superseded it
	At      time.Time `json:"at"`
	Forge   *ForgeRef `json:"forge,omitempty"`
	Trouble *Trouble  `json:"trouble,omitempty"`
}

func refOf(r forge.StatusReceipt) *ForgeRef {
	if r == (forge.StatusReceipt{}) {
		return nil
	}
	return &ForgeRef{ID: r.ID, PipelineID: r.PipelineID}
}

// same says whether two statuses look the same.
func (c Content) same(o Content) bool {
	covered := c.Coverage == nil && o.Coverage == nil || c.Coverage != nil && o.Coverage != nil && *c.Coverage == *o.Coverage
	return covered && c.State == o.State && c.TargetURL == o.TargetURL && c.Description == o.Description
}

// pending says that the forge is to be told something.
func (c *Context) pending() bool { return c.Ended.Compare(c.Effective.Order) < 0 || c.Again }

func (c *Context) run(attempt int64) *ClientRun {
	if i := slices.IndexFunc(c.Runs, func(r ClientRun) bool { return r.Attempt == attempt }); i >= 0 {
		return &c.Runs[i]
	}
	return nil
}

// newest is the newest status accepted, claimed or not: what a v1 call follows.
func (c *Context) newest() Said {
	s := c.Effective
	for _, w := range c.Waiting {
		if w.Compare(s.Order) > 0 {
			s = w
		}
	}
	return s
}

// overrules says why s does not take effect (docs/statuses.md, 1, 3 and 4); "" = it does.
func (c *Context) overrules(s Said) string {
	e := c.Effective
	switch {
	case s.Attempt < e.Attempt:
		return ReasonNewerAttempt
	case s.Compare(e.Order) <= 0:
		return ReasonNewer
	case s.Attempt == e.Attempt && e.State.Terminal() && !s.State.Terminal():
		return ReasonRunFinished
	}
	return ""
}

// class is how urgent the effective status is. A status may be required for merging: a success opens, what ends without
// one shuts, and so does whatever takes a success back. Anything else is a text.
func (c *Context) class() actor.Class {
	switch s := c.Effective.State; {
	case s == forge.StatusSuccess:
		return actor.Permitting
	case s.Terminal() || c.Opening:
		return actor.Shutting
	}
	return actor.Cosmetic
}

// nextRead is the read-back after the one at t. A re-assertion is no push: read-backs are two for each, and do not
// fight a stranger for ever.
func (p Pushed) nextRead(t time.Time) time.Time {
	if late := p.At.Add(readLate); t.Before(late) && !p.At.IsZero() {
		return late
	}
	return time.Time{}
}
