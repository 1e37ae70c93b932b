// Package prmanager is the mind of one pull request: which events it hears, what it must know to judge them, what it
// decides, and what should then be true outside. Deciding is pure and level-triggered: events say that something may
// have changed, the document and the forge say what is. The rules are drawn in flowchart.md.
package prmanager

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// PR is the document of one pull request. Its zero value is a pull request never heard of. Times are the forge's
// unless said otherwise; "store time" is the engine's now.
type PR struct {
	Ref forge.Ref `json:"ref,omitzero"`

	// SeenAt is the newest updated_at of anything that showed this pull request; zero = never seen. An older showing
	// is late: it may teach when something happened, and moves no state.
	SeenAt   time.Time   `json:"seen_at,omitzero"`
	Author   forge.Actor `json:"author,omitzero"`
	Open     bool        `json:"open,omitempty"`
	Merged   bool        `json:"merged,omitempty"`
	Draft    bool        `json:"draft,omitempty"`
	HeadRepo int64       `json:"head_repo,omitempty"` // 0 where the fork was deleted
	SameRepo bool        `json:"same_repo,omitempty"` // the head branch is in the base repository
	Head     Head        `json:"head,omitzero"`
	Base     string      `json:"base,omitempty"`       // name of the base branch
	BaseSpan Span        `json:"base_span,omitzero"`   // since when it is that one
	OpenSpan Span        `json:"open_span,omitzero"`   // since when it is open, or closed
	Pushes   []Push      `json:"pushes,omitempty"`     // the newest known; the first head counts as no push
	Opening  bool        `json:"opening,omitempty"`    // the delivery of the opening has been judged
	Paused   bool        `json:"paused,omitempty"`     // label removed from one that ran by trust
	Baseline time.Time   `json:"baseline,omitzero"`    // label entries up to here count as judged (adoption, or a document that was dropped)
	Entry    int64       `json:"last_entry,omitempty"` // newest label entry judged

	// Grants is the approval ledger, oldest first. At most one stands.
	Grants   []Grant            `json:"grants,omitempty"`
	Run      int                `json:"run,omitempty"`      // the counter in the run key, from 1; from the clock where the opening was not seen
	Triggers map[string]Started `json:"triggers,omitempty"` // by run key: the record that makes a trigger unique

	// Work that waits for a fact. Each is dropped when what it is about is gone.
	AutoDue   bool       `json:"auto_due,omitempty"` // Is_Auto is to be judged for this head
	LiveDue   bool       `json:"live_due,omitempty"` // compare with the live pull request
	Adopting  bool       `json:"adopting,omitempty"` // found by reconcile, not judged yet
	LabelDue  *Nudge     `json:"label_due,omitempty"`
	Asked     []Approval `json:"asked,omitempty"`
	Requests  []Request  `json:"requests,omitempty"`
	Questions []Question `json:"questions,omitempty"`

	Removed  time.Time `json:"removed,omitzero"`   // newest removal of the label, not by us: no comment or press before it grants
	Denied   time.Time `json:"denied,omitzero"`    // newest /ok-to-test cancel that was heeded: nothing asked before it grants
	Retests  Retests   `json:"retests,omitzero"`   // by the author
	Answered []string  `json:"answered,omitempty"` // commits for which the ready-to-paste comment was written, the newest few

	// Dry: decided in a dry run. What the document then believes to be at the forge never was, so once writing is
	// allowed it begins anew.
	Dry bool `json:"dry,omitempty"`

	Label LabelState `json:"label,omitzero"`

	// Seq numbers what is told to commits; it only grows.
	Seq  int64           `json:"seq,omitempty"`
	Told map[string]Told `json:"told,omitempty"` // by SHA: what its commit was told last

	Shut  Shut      `json:"shut,omitzero"`
	Since time.Time `json:"since,omitzero"` // store time since when it awaits approval
	// LabelName and Bare are what texts need of the policy, as of the last decision.
	LabelName string `json:"label_name,omitempty"`
	Bare      bool   `json:"bare,omitempty"` // no presubmit configured
}

// Head is the newest commit of the pull request, as far as we know.
type Head struct {
	SHA  string `json:"sha"`
	Span Span   `json:"span,omitzero"`
	// Pusher is the sender of the delivery that brought this head; Brought says that this delivery has been seen.
	Pusher  forge.Actor `json:"pusher,omitzero"`
	Brought bool        `json:"brought,omitempty"`
	// First: no other head of this pull request is known, so no label can be meant for one.
	First bool `json:"first,omitempty"`
	// Left is the grant that ended when this head came, by index+1 into Grants: an "Update branch" may carry it over.
	Left int `json:"left,omitempty"`
}

// Span is since when something has been as it is. Deliveries come late and out of order, so At is only the earliest
// time known, and zero where nothing is known to have been otherwise; it is the true one once Exact.
type Span struct {
	At    time.Time `json:"at,omitzero"`
	Not   time.Time `json:"not,omitzero"` // the newest time at which it is known to have been otherwise
	Exact bool      `json:"exact,omitempty"`
}

// shown: at that time it was so already.
func (s *Span) shown(at time.Time) {
	if !s.Exact && at.After(s.Not) && at.Before(s.At) {
		s.At = at
	}
}

// began: a delivery says that it became so at that time. The answer is whether it must have been otherwise between
// the At known before and now: it left and came back.
func (s *Span) began(at time.Time) (again bool) {
	switch {
	case s.At.IsZero(): // taken for granted until now
		s.At, s.Exact = at, true
		return true
	case !at.After(s.Not):
		return false
	case s.Exact && at.After(s.At):
		s.At = at
		return true
	case !s.Exact:
		if at.Before(s.At) {
			s.At = at
		}
		s.Exact = true
	}
	return false
}

// broke: a late delivery says that at that time it was otherwise, while by now it is so again. The answer is whether
// that was after the At known before; then nobody knows since when it is so again, at the latest since seen.
func (s *Span) broke(at, seen time.Time) (again bool) {
	again = at.After(s.At)
	if again {
		s.At, s.Exact = seen, false
	}
	if at.After(s.Not) {
		s.Not = at
	}
	return again
}

// Push is one push to the head branch. By is zero where its delivery has not come.
type Push struct {
	At    time.Time   `json:"at"`
	SHA   string      `json:"sha"`
	By    forge.Actor `json:"by,omitzero"`
	Known bool        `json:"known,omitempty"` // its delivery has come
}

// pushesKept bounds PR.Pushes. They matter for as long as the hold.
const pushesKept = 16

// push notes a push. The delivery of a push replaces what was only seen of it.
func (d *PR) push(p Push) {
	d.Pushes = slices.DeleteFunc(d.Pushes, func(o Push) bool {
		return o.SHA == p.SHA && (o.At.Equal(p.At) || p.Known && !o.Known)
	})
	i, _ := slices.BinarySearchFunc(d.Pushes, p, func(a, b Push) int { return a.At.Compare(b.At) })
	d.Pushes = slices.Insert(d.Pushes, i, p)
	if len(d.Pushes) > pushesKept {
		d.Pushes = d.Pushes[len(d.Pushes)-pushesKept:]
	}
}

// Channel is how an approval came.
type Channel string

// The channels.
const (
	ByTrust   Channel = "auto"    // author and pusher run without asking
	ByLabel   Channel = "label"   // the gate label, set by someone trusted
	ByCarry   Channel = "carried" // a trusted person updated the branch of a granted head
	ByCli     Channel = "cli"     // an operator's order
	ByBeing   Channel = "adopted" // was there before us, and would have run by trust; triggers nothing
	ByButton  Channel = "button"
	ByComment Channel = "comment"
)

// Grant is one line of the approval ledger: this SHA into this base was approved. It is the truth of the gate; the
// label is only its picture.
type Grant struct {
	SHA     string      `json:"sha"`
	Base    string      `json:"base"`
	BaseSHA string      `json:"base_sha,omitempty"` // tip of the base branch when granted
	Channel Channel     `json:"channel"`
	By      forge.Actor `json:"by,omitzero"`
	At      time.Time   `json:"at"` // store time
	Reason  string      `json:"reason,omitempty"`
	// Evidence is when what it rests on happened, in the forge's time: the label was set, the head came. Entry is the
	// label entry it rests on, if any.
	Evidence time.Time `json:"evidence,omitzero"`
	Entry    int64     `json:"entry,omitempty"`
	// Opened: the gate has been open by it. It then stays open while a presubmit is run once more.
	Opened   bool      `json:"opened,omitempty"`
	Ended    time.Time `json:"ended,omitzero"` // store time; zero = it stands
	EndedBy  string    `json:"ended_by,omitempty"`
	EndedWhy Reason    `json:"ended_why,omitempty"`
}

// grantsKept bounds the ledger in the document; the journal has the whole story.
const grantsKept = 50

// Standing is the grant that stands for the head and base of an open pull request, or nil.
func (d *PR) Standing() *Grant {
	if len(d.Grants) == 0 || !d.Open {
		return nil
	}
	g := &d.Grants[len(d.Grants)-1]
	if !g.Ended.IsZero() || g.SHA != d.Head.SHA || g.Base != d.Base {
		return nil
	}
	return g
}

// Approval asks for a grant of one commit and waits to be judged.
type Approval struct {
	Channel  Channel     `json:"channel"`
	SHA      string      `json:"sha"`
	By       forge.Actor `json:"by"`
	Reason   string      `json:"reason,omitempty"`
	Evidence time.Time   `json:"evidence,omitzero"`
	Entry    int64       `json:"entry,omitempty"`
}

// Nudge says that the label history should be read.
type Nudge struct {
	At    time.Time `json:"at,omitzero"` // the forge's time of the delivery; zero = by reconcile
	Since time.Time `json:"since"`       // store time
	Whole bool      `json:"whole,omitempty"`
}

// Question is a fact that the document waits for. The gate stays as it is meanwhile.
type Question struct {
	Ask   Ask       `json:"ask"`
	SHA   string    `json:"sha"`   // the head it was asked for
	Since time.Time `json:"since"` // store time, like the others here
	Tries int       `json:"tries,omitempty"`
	Next  time.Time `json:"next"`
	Why   string    `json:"why,omitempty"`  // why there is no answer, for texts
	Loud  bool      `json:"loud,omitempty"` // it has lasted a minute: the gate's text says so
}

// Picture is whether the gate label is on the pull request.
type Picture string

// The pictures; the empty one is "nobody knows".
const (
	Present Picture = "present"
	Absent  Picture = "absent"
)

// LabelState is what we know of the label and have done to it.
type LabelState struct {
	On     Picture      `json:"on,omitempty"`     // what we believe to be at the forge
	Wanted Picture      `json:"wanted,omitempty"` // the write in the outbox, if any
	Writes []LabelWrite `json:"writes,omitempty"` // ours of the last ten minutes
	Quiet  time.Time    `json:"quiet,omitzero"`   // store time; no writes before, because of flaps or a refusal
	Alone  bool         `json:"alone,omitempty"`  // adopted: left as it is until something happens
}

// LabelWrite is one label write of ours; it accounts for at most one entry of the label history.
type LabelWrite struct {
	Present bool      `json:"present"`
	From    time.Time `json:"from"`           // store time when it was wished
	To      time.Time `json:"to,omitzero"`    // store time when it was done; zero = under way
	Entry   int64     `json:"entry,omitzero"` // the entry it accounts for
}

// Told is what a commit was told last.
type Told struct {
	Seq     int64  `json:"seq"`
	Open    bool   `json:"open,omitempty"`
	Merged  bool   `json:"merged,omitempty"`
	Granted bool   `json:"granted,omitempty"`
	Title   string `json:"title"`
	Summary string `json:"summary,omitempty"`
	Heard   bool   `json:"heard,omitempty"` // the commit has it in its mailbox
	// Shown is what the forge shows for it, once told back; Why is why it does not.
	Shown forge.CheckState `json:"shown,omitempty"`
	Why   string           `json:"why,omitempty"`
}

// Shut is why no grant stands.
type Shut struct {
	Reason Reason `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"`
}

// State is where a pull request is in the flowchart. It is computed, never stored.
type State string

// The states.
const (
	StateUnseen   State = "unseen"
	StateClosed   State = "closed"
	StateAwaiting State = "awaiting" // no standing grant for head and base
	StateRunning  State = "running"  // a grant, and a presubmit without result
	StateDone     State = "done"     // a grant, and every presubmit has its result or there is none
)

// State computes the state.
func (d *PR) State() State {
	switch g := d.Standing(); {
	case !d.seen():
		return StateUnseen
	case !d.Open:
		return StateClosed
	case g == nil:
		return StateAwaiting
	case g.Channel == ByBeing:
		return StateDone
	}
	for _, s := range d.current() {
		if !s.done() {
			return StateRunning
		}
	}
	return StateDone
}

// Passing says whether the gate may be open: a grant stands and every presubmit it started was taken.
func (d *PR) Passing() bool {
	g := d.Standing()
	if g == nil {
		return false
	}
	if g.Channel == ByBeing {
		return true
	}
	for _, s := range d.current() {
		if s.Stage == Refused || s.Stage != Accepted && !s.done() && !g.Opened {
			return false
		}
	}
	return true
}

// starting says whether a grant stands and the gate may open any moment.
func (d *PR) starting() bool {
	g := d.Standing()
	return g != nil && !d.Passing() && !slices.ContainsFunc(d.current(), func(s Started) bool { return s.Stage == Refused })
}

// current lists the presubmits of the head and base that count now, by name: of each the newest that was neither
// cancelled nor superseded.
func (d *PR) current() []Started {
	newest := map[string]Started{}
	for _, s := range d.Triggers {
		r := s.Order.Run
		if r.SHA == d.Head.SHA && s.Base == d.Base && !s.gone() {
			if o, ok := newest[r.Presubmit]; !ok || o.N < s.N {
				newest[r.Presubmit] = s
			}
		}
	}
	out := make([]Started, 0, len(newest))
	for _, n := range slices.Sorted(maps.Keys(newest)) {
		out = append(out, newest[n])
	}
	return out
}

func (d *PR) seen() bool { return !d.SeenAt.IsZero() }

// clone copies what a decision may write to.
func (d PR) clone() PR {
	d.Pushes, d.Grants = slices.Clone(d.Pushes), slices.Clone(d.Grants)
	d.Asked, d.Requests, d.Questions = slices.Clone(d.Asked), slices.Clone(d.Requests), slices.Clone(d.Questions)
	d.Answered = slices.Clone(d.Answered)
	d.Label.Writes = slices.Clone(d.Label.Writes)
	d.Triggers, d.Told = maps.Clone(d.Triggers), maps.Clone(d.Told)
	if d.LabelDue != nil {
		due := *d.LabelDue
		d.LabelDue = &due
	}
	return d
}

// Waits says in one sentence what the pull request waits for and from whom, or why it waits for nothing. It is the
// gate check's text and what explain begins with.
func (d *PR) Waits() string {
	if d.Dry {
		return "Dry run, nothing is written: " + d.waits()
	}
	return d.waits()
}

func (d *PR) waits() string {
	g := d.Standing()
	switch {
	case !d.seen():
		return "Never seen"
	case d.Merged:
		return "Merged"
	case !d.Open:
		return "Closed: nothing runs until it is reopened"
	case g == nil:
		return "Awaiting " + plain(d.LabelName, 50) + " label: " + d.waitsFor()
	}
	s := "trusted author and pusher"
	switch g.Channel {
	case ByTrust:
	case ByBeing:
		s = "trusted author, open since before Signalbox: nothing was started"
	case ByCarry:
		s = "Approved by " + name(g.By) + " for " + short(g.SHA) + ", who updated the approved branch"
	case ByCli:
		s = "Approved by operator " + plain(g.By.Login, 40) + " for " + short(g.SHA)
	case ByLabel, ByButton, ByComment:
		s = "Approved by " + name(g.By) + " for " + short(g.SHA)
	}
	if g.Channel == ByBeing {
		return s
	}
	for _, p := range d.current() {
		what := plain(p.Order.Run.Presubmit, 60)
		switch {
		case p.Stage == Refused:
			return s + ", but " + what + " cannot be started: " + p.Why
		case p.Stage != Accepted && !p.done() && !g.Opened:
			return s + ": starting " + what
		case p.Native && p.Why != "":
			return s + "; but " + p.Why
		}
	}
	if d.Bare {
		return s + "; no presubmit configured"
	}
	return s
}

func (d *PR) waitsFor() string {
	for _, q := range d.Questions {
		if q.Loud {
			return q.text()
		}
	}
	if d.Shut.Text != "" {
		return d.Shut.Text
	}
	return forMaintainer
}

// forMaintainer is what everything that is shut waits for in the end.
const forMaintainer = "waiting for a maintainer (not a failure)"

// RunKey names one run: the same pull request, commit, base branch, run counter and presubmit always make the same
// key, and no two different ones do. It is "sb1-" and 26 characters of lower-case base32.
func RunKey(s state.Subject, sha, base string, run int, presubmit string) string {
	var b strings.Builder
	for _, f := range []string{s.String(), sha, base, strconv.Itoa(run), presubmit} {
		fmt.Fprintf(&b, "%d:%s,", len(f), f) // lengths, so that no field can spill into the next
	}
	sum := sha256.Sum256([]byte(b.String()))
	return "sb1-" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:])[:26])
}
