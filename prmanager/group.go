package prmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Groups is the behaviour of a merge group: what a merge queue tests before it merges. Whoever put the pull requests
// into the queue was allowed to merge them, so the gate is open at once, and each presubmit is started once for the
// group's commit. A merge group needs an App: only check runs count in a merge queue.
type Groups struct {
	forge  func(instance string) (Forge, error)
	policy func(forge.Repo) Policy
}

var _ actor.Behaviour[GroupDoc, GroupFacts] = (*Groups)(nil)

// NewGroups makes the behaviour; it uses the same configuration as New.
func NewGroups(c Config) *Groups { return &Groups{forge: c.Forge, policy: c.Policy} }

// GroupDoc is the document of one merge group. A group never changes its commit.
type GroupDoc struct {
	Repo     forge.Repo         `json:"repo,omitzero"`
	SHA      string             `json:"sha,omitempty"`
	Base     string             `json:"base,omitempty"`
	BaseSHA  string             `json:"base_sha,omitempty"`
	Gone     bool               `json:"gone,omitempty"` // for good
	Triggers map[string]Started `json:"triggers,omitempty"`
	Seq      int64              `json:"seq,omitempty"`
	Told     int64              `json:"told,omitempty"` // the Seq of what the gate was told last; 0 = nothing
	Open     bool               `json:"open,omitempty"` // … and what that was
	Dry      bool               `json:"dry,omitempty"`  // as PR.Dry
}

// GroupFacts are the policy, as whom we act, and what became of runs, by run key.
type GroupFacts struct {
	Policy Policy
	Known  bool // App has been told; until then nothing is done
	App    bool
	Runs   map[string]Fact[RunState]
}

// groupLook is how often the runs of a group are looked at, in case a delivery was lost: a queue waits for them.
const groupLook = 10 * time.Minute

// Look reads the policy, and what became of the runs where nothing was heard for long.
func (b *Groups) Look(ctx context.Context, s state.Subject, d GroupDoc, in actor.Inputs, _ time.Time) GroupFacts {
	repo := d.Repo
	for _, m := range in.Mail {
		if g, err := decode[Group](m.Body); m.Kind == KindGroup && err == nil && GroupSubject(g.Repo, g.SHA) == s {
			repo = g.Repo
		}
	}
	f := GroupFacts{Policy: b.policy(repo), Runs: map[string]Fact[RunState]{}}
	at, err := b.forge(s.Instance)
	if err != nil {
		return f
	}
	f.Known, f.App = true, at.Self.App
	if len(in.Mail) > 0 || len(in.Results) > 0 || d.Dry {
		return f
	}
	for key, r := range d.Triggers {
		if r.Stage == Accepted && !r.done() {
			f.Runs[key] = runState(ctx, at, r)
		}
	}
	return f
}

// Decide opens the gate of the group's commit, starts each presubmit once, and ends both with the group.
func (b *Groups) Decide(s state.Subject, d GroupDoc, f GroupFacts, in actor.Inputs, now time.Time) actor.Step[GroupDoc] {
	d.Triggers = maps.Clone(d.Triggers)
	if d.Triggers == nil {
		d.Triggers = map[string]Started{}
	}
	var dead []actor.DeadMail
	var why []string
	var wishes []actor.Wish
	line := Line{At: now}
	pass := func(r Reason, detail ...string) {
		why = append(why, string(r))
		line.Why = append(line.Why, strings.Join(append([]string{string(r)}, detail...), " "))
	}
	dry := f.Policy.DryRun
	want := func(w actor.Wish, words string) {
		wishes = append(wishes, w)
		if words != "" && dry {
			words = "would " + words
		}
		if words != "" {
			line.Did = append(line.Did, words)
		}
	}
	if d.Dry && !dry {
		pass(DryRunOver)
		d.Told, d.Open = 0, false
		maps.DeleteFunc(d.Triggers, func(_ string, r Started) bool { return r.Order.Receipt.ID == "" }) // never was
	}
	d.Dry = dry
	reassert := in.Reconcile != ""
	work := func() bench {
		return bench{
			s: s, ref: forge.Ref{Repo: d.Repo}, now: now, dry: dry, runs: d.Triggers, seq: &d.Seq, want: want, pass: pass,
			reassert: func(r Started) bool { return reassert && !r.gone() },
		}
	}
	counts := func(r Started) bool { return !d.Gone && !r.gone() }
	for _, r := range in.Results {
		work().effected(r)
	}
	for _, m := range in.Mail {
		var err error
		switch m.Kind {
		case KindGroup:
			var g Group
			if g, err = decode[Group](m.Body); err == nil {
				err = g.check(s)
			}
			if err == nil {
				line.In = append(line.In, g.words())
				pass(g.reason())
				d.Repo, d.SHA, d.Gone = g.Repo, g.SHA, d.Gone || g.Gone
				d.Base, d.BaseSHA = strings.TrimPrefix(g.BaseRef, "refs/heads/"), g.BaseSHA
			}
		case KindReport, status.KindReported:
			read := decode[Report]
			if m.Kind == status.KindReported {
				read = reportOf
			}
			var r Report
			if r, err = read(m.Body); err == nil {
				line.In = append(line.In, RunReported{r}.words())
				work().reported(r, counts)
			}
		case status.KindWritten:
			var w status.Written
			if w, err = decode[status.Written](m.Body); err == nil {
				line.In = append(line.In, Written{w}.words())
				work().written(w)
			}
		case status.KindPressed:
			line.In = append(line.In, "pressed: nothing that a merge group heeds")
		default:
			err = fmt.Errorf("no merge group reads mail of kind %q", plain(m.Kind, 40))
		}
		if err != nil {
			dead = append(dead, actor.DeadMail{Seq: m.Seq, Reason: err.Error()})
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.Runs)) {
		if is := f.Runs[key].Value; d.Triggers[key].behind(is) {
			work().reported(is.report(key), counts)
		}
	}
	if d.SHA != "" && f.App {
		d.settle(s, f.Policy, now, pass)
		d.gate(s, f.Policy, reassert, want)
		w := work()
		w.cancels(reassert)
		w.file()
		w.checks()
		w.triggers()
	}
	slices.Sort(why)
	step := actor.Step[GroupDoc]{Next: d, Keep: kept, Wishes: wishes, Dead: dead, Why: slices.Compact(why)}
	if slices.ContainsFunc(slices.Collect(maps.Values(d.Triggers)), func(r Started) bool { return counts(r) && r.Stage == Accepted && !r.done() && !r.Native }) {
		step.Wake = now.Add(groupLook)
	}
	if d.SHA != "" && !f.Known {
		step.Wake = now.Add(askFirst)
	}
	if d.SHA != "" {
		step.Index = []state.Index{{Name: "name", Label: fmt.Sprintf("%s:%s@%.12s", d.Repo.Instance, d.Repo.Name, d.SHA)}}
	}
	if len(line.Why)+len(line.Did) > 0 {
		line.Head = d.SHA
		step.Journal = [][]byte{encoded(line)}
	}
	return step
}

func (g Group) check(s state.Subject) error {
	switch {
	case GroupSubject(g.Repo, g.SHA) != s:
		return errForeign
	case !isSHA(g.SHA), g.BaseSHA != "" && !isSHA(g.BaseSHA):
		return errSHA
	case len(g.BaseRef) > maxName+len("refs/heads/"), len(g.Repo.Name) > maxName:
		return errLong
	}
	return nil
}

func (g Group) words() string {
	if g.Gone {
		return "merge group gone"
	}
	return "merge group asked for"
}

func (g Group) reason() Reason {
	if g.Gone {
		return GroupGone
	}
	return GroupAsked
}

// settle starts every presubmit once, or stops what runs.
func (d *GroupDoc) settle(s state.Subject, p Policy, now time.Time, pass func(Reason, ...string)) {
	if d.Gone {
		for _, key := range keys(d.Triggers) {
			if r := d.Triggers[key]; !r.gone() && !r.done() {
				r.Stage, r.Settled = Cancelled, !r.Asked
				d.Triggers[key] = r
				pass(CancelRuns, plain(r.Order.Run.Presubmit, 60))
			}
		}
		return
	}
	for _, p := range p.Presubmits {
		key := RunKey(s, d.SHA, d.Base, 1, p.Name)
		if _, used := d.Triggers[key]; used || p.Native { // a native one starts by itself
			continue
		}
		d.Triggers[key] = Started{N: 1, Base: d.Base, Source: p.Source, Stage: Checking, Begun: now, Order: RunOrder{
			Trigger: p.Trigger, Run: forge.Run{
				Key: key, Ref: forge.Ref{Repo: d.Repo}, SHA: d.SHA, BaseSHA: d.BaseSHA, HeadRepoID: d.Repo.ID, Presubmit: p.Name,
			},
		}}
		pass(RunTriggered, plain(p.Name, 60))
	}
}

// gate tells the commit. A group that is gone leaves its check: it was merged with it, or nobody looks at it any more.
func (d *GroupDoc) gate(s state.Subject, p Policy, reassert bool, want func(actor.Wish, string)) {
	open := !d.Gone
	if d.Told == 0 && !open || d.Told != 0 && d.Open == open && !(reassert && open) {
		return
	}
	d.Seq++
	d.Told, d.Open = d.Seq, open
	to := status.Subject(d.Repo, d.SHA)
	w := actor.Wish{Key: "gate/" + d.SHA, Class: actor.Permitting, Kind: status.KindGate, To: &to, Want: encoded(status.Gate{
		Pull: s, Ref: forge.Ref{Repo: d.Repo}, SHA: d.SHA, Check: p.Check, Seq: d.Seq, Open: open, Granted: open, Merged: !open,
		Title: "Merge group: everything in it was approved", Summary: "Merge group: everything in it was approved", Dry: p.DryRun,
	})}
	words := "gate " + short(d.SHA) + " open"
	if !open {
		w.Class, words = actor.Shutting, "gate "+short(d.SHA)+" left"
	}
	want(w, words)
}

// Do starts and cancels runs, as it is done for a pull request.
func (b *Groups) Do(ctx context.Context, s state.Subject, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	if e.Kind != KindTrigger && e.Kind != KindCancel {
		return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("nobody does effects of kind %q", e.Kind)}
	}
	at, err := b.forge(s.Instance)
	if err != nil {
		return status.Outcome(fmt.Errorf("find the forge of %s: %w", s, err))
	}
	var o RunOrder
	if err := json.Unmarshal(e.Want, &o); err != nil {
		return unreadable(e, err)
	}
	return b.policy(o.Run.Ref.Repo).do(forge.WithUrgency(ctx, forge.Urgency(e.Class)), at, o, e, now, confirm)
}
