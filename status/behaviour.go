package status

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Settle is how long after a call that may have left "not found" is not believed (docs/rules.md E6).
const Settle = 30 * time.Second

const (
	kindCheck = "check" // kind of the wishes that Do makes true
	// lookTime bounds the look before a repeated shutting write, so that there is time left to shut.
	lookTime = 3 * time.Second
	// lookAgain is when a read-back without an answer is tried again.
	lookAgain = time.Minute
)

// EffectTimeout bounds one write at a forge: a GitLab whose commit is locked makes those of clients' statuses wait. A
// check gets checkTime of it.
const EffectTimeout = 25 * time.Second

const checkTime = 10 * time.Second

// Forge is what a commit needs of a forge.
type Forge interface {
	Checks
	Statuses
}

// Checks is what the checks of Signalbox itself need of a forge. Every error is a *forge.Fault.
type Checks interface {
	// FindCheck says whether the newest check of our own named c.Name on c.SHA has c.ExternalID (and c.ID, where that
	// is set) and shows c.State. Where a forge keeps no external ids, name and state decide.
	FindCheck(ctx context.Context, c forge.Check) (id string, found bool, err error)
	// WriteCheck shows c: as an update of c.ID, or as a new check if that is empty. It answers the forge's id, or ""
	// where checks cannot be updated.
	WriteCheck(ctx context.Context, c forge.Check) (id string, err error)
}

// Behaviour is the commit as a subject of the engine.
type Behaviour struct {
	forges func(instance string) (Forge, error)
	dry    func(forge.Repo) bool
}

var _ actor.Behaviour[Document, Facts] = (*Behaviour)(nil)

// New makes the behaviour; forges answers the forge of a configured instance, dry whether nothing is to be written for
// a repository. Both must be safe for concurrent use; dry is configuration: it always answers the same.
func New(forges func(instance string) (Forge, error), dry func(forge.Repo) bool) *Behaviour {
	return &Behaviour{forges: forges, dry: dry}
}

// Facts are what was read back at the forge, by check. They are nil unless a comparison is due.
type Facts map[string]Fact

// Fact is yes, no or unknown about one check or status that should be shown.
type Fact struct {
	Seq     int64         // the Write.ShownSeq that was looked for
	Shown   bool          // yes: the forge shows it
	Unknown string        // why neither yes nor no
	After   time.Duration // when to look again; 0 = not before somebody asks
}

func gateFact(name string) string { return "gate/" + name }
func runFact(key string) string   { return "run/" + key }

// due says whether the checks are to be compared with the forge.
func due(d Document, in actor.Inputs, now time.Time) bool {
	return in.Reconcile != "" || !d.Recheck.IsZero() && !now.Before(d.Recheck)
}

// Look reads the checks back where a comparison is due: the gates, and of each presubmit name the check made last.
// Those with a write under way are left out; the write looks for itself. A dry run has nothing to compare.
func (b *Behaviour) Look(ctx context.Context, s state.Subject, d Document, in actor.Inputs, now time.Time) Facts {
	if d.Dry || b.dry(d.Repo) {
		return nil
	}
	facts := Facts{}
	b.lookAtStatuses(ctx, s, d, facts, in, now)
	if due(d, in, now) {
		b.lookAtChecks(ctx, s, d, facts)
	}
	return facts
}

func (b *Behaviour) lookAtChecks(ctx context.Context, s state.Subject, d Document, facts Facts) {
	look := func(id string, w Write, c forge.Check) {
		if w.pending() || w.Shown == (Face{}) {
			return
		}
		f := Fact{Seq: w.ShownSeq}
		at, err := b.forges(s.Instance)
		if err == nil {
			_, f.Shown, err = at.FindCheck(ctx, faced(c, d.Repo, s.Key, w.Shown))
		}
		f.mark(err)
		facts[id] = f
	}
	for name, g := range d.Gates {
		look(gateFact(name), g.Write, forge.Check{Name: name, ExternalID: gateID(g.ShownSeq), Pulls: numbers(d.at(name))})
	}
	newest, busy := map[string]string{}, map[string]bool{}
	for k, r := range d.Runs {
		if r.Of != "" {
			continue // its run's says what counts; a look at each job would cost more calls than it is worth
		}
		busy[r.Name] = busy[r.Name] || r.out()
		if r.Made > d.Runs[newest[r.Name]].Made {
			newest[r.Name] = k
		}
	}
	for name, k := range newest {
		if r := d.Runs[k]; !busy[name] {
			look(runFact(k), r.Write, forge.Check{Name: name, ExternalID: k, ID: r.ID, Pulls: d.owner(r)})
		}
	}
}

// mark makes the fact unknown where the look failed.
func (f *Fact) mark(err error) {
	if err == nil {
		return
	}
	f.Unknown = err.Error()
	if o := Outcome(err); o.Code == actor.Failed || o.Code == actor.Contention {
		f.After = max(o.After, lookAgain)
	}
}

// Decide compares, books results, takes the mail, applies the rules and tells back. It compares first, since the facts
// are about the document as it was when Look saw it.
func (b *Behaviour) Decide(s state.Subject, d Document, facts Facts, in actor.Inputs, now time.Time) actor.Step[Document] {
	t := &decision{s: s, d: d.clone(), now: now}
	if d.Dry && !b.dry(d.Repo) {
		// What a dry run believes to be shown never was: the pull requests begin anew too, and tell it again.
		t.because(whyDryOver)
		t.d, facts = Document{Repo: d.Repo, Count: d.Count, Contexts: d.Contexts}.clone(), nil
	}
	t.dry = b.dry
	t.readStatuses(facts, in)
	if due(d, in, now) {
		t.readBack(facts)
	}
	t.results(in.Results)
	t.mail(in.Mail)
	t.gates()
	t.runs()
	t.statuses()
	t.reports()
	t.tell()
	t.d.Dry = t.d.Repo.ID != 0 && b.dry(t.d.Repo)
	return t.step()
}

// Do writes one check or one client's status. A call that may have left before is looked up first. What opens waits until "not found" can be
// believed; what shuts does not wait (P2): shown twice it is as shut, and an earlier opening that lands after it is
// found by the comparison that Early asks for.
func (b *Behaviour) Do(ctx context.Context, s state.Subject, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	if e.Kind == kindStatus {
		return b.doStatus(ctx, s, e, now, confirm)
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var o order
	if err := json.Unmarshal(e.Want, &o); err != nil || e.Kind != kindCheck {
		return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("entry %s of kind %q cannot be read: %w", e.Key, e.Kind, err)}
	}
	if o.Dry || b.dry(o.Check.Repo) {
		return actor.Outcome{Code: actor.Done, Data: encoded(receipt{}), Note: "would, but this is a dry run"}
	}
	checks, err := b.forges(s.Instance)
	if err != nil {
		return Outcome(fmt.Errorf("find the forge of %s: %w", s, err))
	}
	shutting := e.Class == actor.Shutting
	early := false
	if !e.Unsure.IsZero() {
		id, found, err := lookUp(ctx, checks, o.Check, shutting)
		wait := e.Unsure.Add(Settle).Sub(now)
		early = shutting && wait > 0
		switch {
		case found && err == nil:
			return done(id, early)
		case shutting:
		case err != nil:
			return Outcome(fmt.Errorf("look for %s on %s: %w", o.Check.Name, s, err))
		case wait > 0 && o.Check.ID == "": // an update may be sent twice
			return actor.Outcome{Code: actor.Settling, After: wait, Err: fmt.Errorf("%s may still appear", o.Check.Name)}
		}
	}
	if e.Class == actor.Permitting || o.Check.State == forge.CheckSuccess {
		if err := confirm(ctx); err != nil {
			return actor.Outcome{Code: actor.Stale, Err: fmt.Errorf("before writing %s on %s: %w", o.Check.Name, s, err)}
		}
	}
	// Both orders of urgency are the same by construction of forge.Urgency.
	id, err := checks.WriteCheck(forge.WithUrgency(ctx, forge.Urgency(e.Class)), o.Check)
	if err != nil {
		return Outcome(fmt.Errorf("write %s on %s: %w", o.Check.Name, s, err))
	}
	return done(id, early)
}

func lookUp(ctx context.Context, checks Checks, c forge.Check, shutting bool) (string, bool, error) {
	if shutting {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lookTime)
		defer cancel()
	}
	return checks.FindCheck(ctx, c)
}

func done(id string, early bool) actor.Outcome {
	return actor.Outcome{Code: actor.Done, Data: encoded(receipt{ID: id, Early: early})}
}

// Outcome is the one place where a forge's fault becomes the engine's word for it (docs/rules.md, Failures); pull
// requests use it too.
func Outcome(err error) actor.Outcome {
	f := forge.Classify(err)
	o := actor.Outcome{Code: actor.Failed, Err: err, After: f.After}
	switch f.Class {
	case forge.Contention:
		o.Code = actor.Contention
	case forge.Auth:
		o.Code = actor.AuthPause
	case forge.Permanent, forge.NotFound:
		o.Code = actor.Refused
	case forge.Retriable:
	}
	return o
}
