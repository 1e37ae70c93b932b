package prmanager

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// Policy is the gate of one repository. It comes from the server's configuration; a pull request cannot change it.
type Policy struct {
	Label      string // name of the gate label
	Check      string // name of the gate check
	Presubmits []Presubmit
	// Trust is who may approve, Auto whose pull requests run without asking; the first satisfied rule decides, and
	// an empty list is nobody.
	Trust, Auto []forge.Rule
	// Hold is how long after an untrusted push a label is too early to have meant it. Strict: labels never grant
	// where author or pusher is untrusted.
	Hold   time.Duration
	Strict bool
	// DryRun: look and decide, and write nothing at the forge.
	DryRun bool
}

// Presubmit is one check that is triggered for an approved commit.
type Presubmit struct {
	Name    string // of its check
	Trigger string // name of the trigger that starts it
	Native  bool   // the CI reports on the pull request by itself: no check of ours
	Held    bool   // the CI holds outsiders' runs back by itself, for 30 days at most
	Source  Source // what deliveries about its runs look like; zero = there are none
}

// Self is as whom we act at a forge.
type Self struct {
	Actor forge.Actor
	// App: an App's bot account, whose labels are ours and never anybody's will. Otherwise a person's token, and that
	// person's labels count like anyone's, unless they account for a write of ours.
	App bool
}

// List names one of the policy's lists of rules.
type List string

// The lists.
const (
	Trust List = "trust"
	Auto  List = "auto"
)

// Ask is a question to the forge.
type Ask struct {
	Kind AskKind     `json:"kind"`
	List List        `json:"list,omitempty"` // of AskTrust
	Who  forge.Actor `json:"who,omitzero"`   // of AskTrust and AskPush
	Key  string      `json:"key,omitempty"`  // of AskRun; of AskPush, the commit
}

// AskKind is what an Ask is about.
type AskKind string

// The questions.
const (
	AskLive    AskKind = "live"    // the live pull request
	AskHistory AskKind = "history" // the label history
	AskTrust   AskKind = "trust"   // whether Who satisfies List
	AskPush    AskKind = "push"    // whether Who brought the head Key; asked with the live pull request at hand
	AskRun     AskKind = "run"     // what became of the run Key; asked once, and not again without an answer
	// AskDelivery is asked of nobody: a delivery that must be under way (the push that brought the head, say) would
	// tell.
	AskDelivery AskKind = "delivery"
)

// key makes equal questions equal, whatever login a person has by now.
func (a Ask) key() string {
	return string(a.Kind) + "/" + string(a.List) + "/" + strconv.FormatInt(a.Who.ID, 10) + a.Key
}

// Fact is an answer: known, or unknown for a reason. The zero Fact is one that nobody looked for.
type Fact[T any] struct {
	Value  T
	Known  bool
	Looked bool          // a look was tried in this turn
	Why    string        // of unknown, for texts: "GitHub answers 502"
	After  time.Duration // the forge asked not to be asked before
}

// Facts are the answers that one decision may use, all of them looked up in the same turn.
type Facts struct {
	Policy  Policy
	Self    Self
	Live    Fact[forge.Pull]
	History Fact[[]forge.LabelEntry]
	Trusts  map[string]Fact[bool]     // by Ask.key, those of AskPush too
	Runs    map[string]Fact[RunState] // by run key
}

// Pins remembers which account a login in a `user:` rule means.
type Pins interface {
	// Pin answers the id that login is pinned to at the instance, after pinning it for ever to id if it was not
	// pinned before. A login that its owner gave up and somebody else took therefore stays the first owner's. The
	// error says that it could not be remembered or read.
	Pin(ctx context.Context, instance, login string, id int64) (int64, error)
}

// looks bounds the rounds of Look: in each, Decide is asked what it still needs to know. The longest chain is trust,
// live pull, the new head's trust, who pushed it, label history, labeller's trust.
const looks = 8

// look answers every question that the decision would ask. The decision itself says what it needs: it is run on what
// is known so far until it asks nothing new, so that looking can never drift from deciding.
func (b *Behaviour) look(ctx context.Context, forgeOf Forge, f Facts, undecided func(Facts) ([]Ask, PR), known func(Ask) (Fact[bool], bool)) Facts {
	f.Trusts, f.Runs = map[string]Fact[bool]{}, map[string]Fact[RunState]{}
	tried := map[string]bool{}
	for range looks {
		asks, d := undecided(f)
		if i := slices.IndexFunc(asks, func(a Ask) bool { return a.Kind == AskHistory }); i > 0 {
			asks[0], asks[i] = asks[i], asks[0]
		}
		fresh := false
		for _, a := range asks {
			head := f.Live.Value.Head
			if tried[a.key()] || a.Kind == AskDelivery || a.Kind == AskPush && head.SHA != a.Key {
				continue
			}
			tried[a.key()], fresh = true, true
			waiting, wait := known(a)
			switch a.Kind {
			case AskLive:
				if wait {
					f.Live = Fact[forge.Pull]{Why: waiting.Why}
					continue
				}
				f.Live = fact[forge.Pull](forgeOf.Name)(forgeOf.Reader.Pull(ctx, d.Ref))
			case AskHistory:
				if wait {
					f.History = Fact[[]forge.LabelEntry]{Why: waiting.Why}
					continue
				}
				// The live pull request is read after the labels, again if need be: a label set in between is for
				// another head than one that was read before it.
				f.Live = Fact[forge.Pull]{}
				delete(tried, Ask{Kind: AskLive}.key())
				f.History = fact[[]forge.LabelEntry](forgeOf.Name)(forgeOf.Reader.LabelHistory(ctx, d.Ref))
			case AskTrust:
				if wait {
					f.Trusts[a.key()] = waiting
					continue
				}
				f.Trusts[a.key()] = b.trusted(ctx, forgeOf, f.Policy, d, a)
			case AskPush:
				if wait {
					f.Trusts[a.key()] = waiting
					continue
				}
				f.Trusts[a.key()] = fact[bool](forgeOf.Name)(forgeOf.Reader.Pushed(ctx, head, a.Who))
			case AskRun:
				f.Runs[a.Key] = runState(ctx, forgeOf, d.Triggers[a.Key])
			case AskDelivery:
			}
		}
		if !fresh {
			break
		}
	}
	return f
}

// runState looks at one run, where its trigger can.
func runState(ctx context.Context, forgeOf Forge, s Started) Fact[RunState] {
	w, ok := forgeOf.Triggers[s.Order.Trigger].(Watcher)
	if !ok {
		return Fact[RunState]{Known: true, Looked: true}
	}
	return fact[RunState](forgeOf.Name)(w.State(ctx, s.Order.Run, s.Order.Receipt))
}

// trusted asks the rules of a list in order, until one is satisfied. One that cannot be asked makes the answer
// unknown unless another is satisfied: an error is neither a yes nor a no.
func (b *Behaviour) trusted(ctx context.Context, forgeOf Forge, p Policy, d PR, a Ask) Fact[bool] {
	unknown := Fact[bool]{Known: true, Looked: true}
	for _, r := range p.rules(a.List) {
		if r.Kind == "app" && !d.SameRepo {
			continue // an App on a fork's branch acts for whoever owns the fork
		}
		ok, err := forgeOf.Reader.Trusted(ctx, d.Ref.Repo, a.Who, r)
		if ok && err == nil && r.Kind == "user" {
			var owner int64
			owner, err = b.pins.Pin(ctx, d.Ref.Repo.Instance, strings.ToLower(r.Value), a.Who.ID)
			if err != nil {
				unknown = Fact[bool]{Looked: true, Why: "its account cannot be remembered"}
				continue
			}
			ok = owner == a.Who.ID
		}
		switch {
		case err != nil:
			unknown = fact[bool](forgeOf.Name)(false, err)
		case ok:
			return Fact[bool]{Value: true, Known: true, Looked: true}
		}
	}
	return unknown
}

func (p Policy) rules(l List) []forge.Rule {
	if l == Auto {
		return p.Auto
	}
	return p.Trust
}

// fact makes a Fact of what a port answered. Its Why names the forge and a number, never what came over the wire.
func fact[T any](forgeName string) func(T, error) Fact[T] {
	return func(v T, err error) Fact[T] {
		if err == nil {
			return Fact[T]{Value: v, Known: true, Looked: true}
		}
		fault := forge.Classify(err)
		why := forgeName + " does not answer"
		switch {
		case fault.Class == forge.Contention:
			why = forgeName + " asks us to wait"
		case fault.Status != 0:
			why = fmt.Sprintf("%s answers %d", forgeName, fault.Status)
		}
		return Fact[T]{Looked: true, Why: why, After: fault.After}
	}
}

// text tells a question that has lasted.
func (q Question) text() string {
	why := q.Why
	if why == "" {
		why = "no answer yet"
	}
	switch q.Ask.Kind {
	case AskLive:
		return "cannot read the pull request: " + why
	case AskHistory:
		return "cannot read who set the label: " + why
	case AskTrust:
		return "cannot verify " + name(q.Ask.Who) + ": " + why
	case AskPush:
		return "cannot tell yet who pushed: " + why
	case AskDelivery, AskRun:
	}
	return "the delivery of the last push has not come"
}
