package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

const (
	maxHistory = 100  // operations that Run answers
	maxPast    = 1000 // attempts looked up by one List
)

// record reads one record; nil if there is none.
func record[T any](ctx context.Context, store Store, s state.Subject, key string) (*T, error) {
	b, err := store.Record(ctx, s, key)
	if errors.Is(err, state.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", key, s, err)
	}
	v := new(T)
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", key, s, err)
	}
	return v, nil
}

// page is a commit as it was at one moment.
type page struct {
	store Store
	s     state.Subject
	d     Document
	view  actor.View
}

func (c *Clients) see(ctx context.Context, s state.Subject) (page, error) {
	p := page{store: c.store, s: s}
	var err error
	if p.view, err = actor.See(ctx, c.store, s); err != nil {
		return p, err
	}
	if len(p.view.Doc) > 0 {
		if err := json.Unmarshal(p.view.Doc, &p.d); err != nil {
			return p, fmt.Errorf("read %s: %w", s, err)
		}
	}
	return p, nil
}

// OperationAt answers the subject that an operation's id is of, in the instance of the caller's token. Whether the
// caller may read that project is to be checked before Operation is called.
func OperationAt(instance, id string) (state.Subject, bool) {
	s, _, _, ok := parseOperation(instance, id)
	return s, ok
}

// Operation reads one operation. It takes no part: what it answers may be older than what happens meanwhile, but once
// it has answered a final state that stays.
func (c *Clients) Operation(ctx context.Context, instance, id string) (Operation, error) {
	s, run, n, ok := parseOperation(instance, id)
	if !ok {
		return Operation{}, refuse(CodeNotFound, "no such operation")
	}
	p, err := c.see(ctx, s)
	if err != nil {
		return Operation{}, err
	}
	o, err := p.operation(ctx, run, n)
	if err == nil && o == nil {
		err = refuse(CodeNotFound, "no such operation")
	}
	if err != nil {
		return Operation{}, err
	}
	return *o, nil
}

// operation derives one; nil = there is none. Records are read after the document: an end that the document speaks of
// is there.
func (p page) operation(ctx context.Context, run string, n int64) (*Operation, error) {
	rec, err := record[operation](ctx, p.store, p.s, opRecord(run, n))
	if err != nil || rec == nil {
		return nil, err
	}
	scope, _, _ := parseRun(run)
	ctxt := p.d.Contexts[scope]
	o := &Operation{
		ID: operationID(p.s, run, n), RunID: run, State: OpAccepted, Order: rec.Order, Content: rec.Content,
		Effective: ctxt.Effective.State, AcceptedAt: rec.At, Crashes: p.view.Crashes,
	}
	r, ours := p.d.Runs[run]
	if ours {
		o.Effective = shownAs(r.Want.State)
	}
	if rec.Twin != "" {
		return o, p.twin(ctx, rec.Twin, o)
	}
	if rec.End == nil {
		if rec.End, err = record[end](ctx, p.store, p.s, endRecord(run, n)); err != nil {
			return nil, err
		}
	}
	if rec.End != nil {
		o.finish(*rec.End)
		return o, nil
	}
	if ours || ctxt.Name == "" {
		return o, p.reporting(ctx, r, run, n, o)
	}
	switch {
	case slices.ContainsFunc(ctxt.Waiting, func(s Said) bool { return s.Order == o.Order && s.N == n }):
		o.Waiting = true
	case ctxt.Effective.Compare(o.Order) < 0:
		return nil, nil // withdrawn since its record was read
	case ctxt.Effective.Order == o.Order, ctxt.Asked == o.Order && ctxt.Out:
		o.underWay(p.view.Outbox, func(e actor.Entry) bool {
			var w statusOrder
			return e.Kind == kindStatus && json.Unmarshal(e.Want, &w) == nil && w.Scope == scope && w.Order == o.Order
		})
	default:
		err = p.replaced(ctx, run, n, o)
	}
	return o, err
}

// finish fills in how the operation ended.
func (o *Operation) finish(e end) {
	o.State, o.Reason, o.SupersededBy, o.ForgeRef, o.LastError = e.State, e.Reason, e.By, e.Forge, e.Trouble
	if e.State == OpDelivered {
		o.DeliveredAt = e.At
	}
}

// underWay fills in what the outbox knows.
func (o *Operation) underWay(outbox []actor.Entry, mine func(actor.Entry) bool) {
	i := slices.IndexFunc(outbox, mine)
	if i < 0 {
		return
	}
	e := outbox[i]
	o.Tries, o.Contentions, o.NextTryAt = e.Tries, e.Contentions, e.NotBefore
	if e.Attempted() {
		o.State = OpDelivering
	}
	var f failure
	if e.LastError != "" && json.Unmarshal(e.LastData, &f) == nil {
		o.LastError = &f.Trouble
	}
}

// replaced ends an operation after which a newer one was handed on.
func (p page) replaced(ctx context.Context, run string, n int64, o *Operation) error {
	o.State, o.Reason = OpSuperseded, ReasonReplaced
	by, err := record[string](ctx, p.store, p.s, nextRecord(run, n))
	if by != nil {
		o.SupersededBy = *by
	}
	return err
}

// twin gives o the fate of the operation that said the same before.
func (p page) twin(ctx context.Context, id string, o *Operation) error {
	_, run, n, _ := parseOperation(p.s.Instance, id)
	first, err := p.operation(ctx, run, n)
	switch {
	case err != nil:
		return err
	case first == nil: // its record has expired
		o.State = OpDelivered
	default:
		o.State, o.Tries, o.Contentions, o.NextTryAt, o.LastError = first.State, first.Tries, first.Contentions, first.NextTryAt, first.LastError
		o.DeliveredAt, o.ForgeRef, o.Reason, o.SupersededBy = first.DeliveredAt, first.ForgeRef, first.Reason, first.SupersededBy
	}
	if o.State == OpDelivered {
		o.Reason = ReasonDuplicate
	}
	return nil
}

// reporting derives the state of what a triggered run's token said.
func (p page) reporting(ctx context.Context, r RunCheck, run string, n int64, o *Operation) error {
	switch {
	case r.Name == "": // the run has left the document, or everything began anew after a dry run
		o.State, o.Reason = OpSuperseded, ReasonRunFinished
	case n < r.Report.N:
		return p.replaced(ctx, run, n, o)
	default:
		o.underWay(p.view.Outbox, func(e actor.Entry) bool { return e.Key == reportKey(run) })
		if !o.State.Final() && !slices.ContainsFunc(p.view.Outbox, func(e actor.Entry) bool { return e.Key == reportKey(run) }) {
			o.State = OpDelivering // the pull request knows
		}
	}
	return nil
}

// shownAs is the state of a check in the words of statuses.
func shownAs(s forge.CheckState) forge.StatusState {
	switch s {
	case forge.CheckRunning:
		return forge.StatusRunning
	case forge.CheckSuccess:
		return forge.StatusSuccess
	case forge.CheckFailure, forge.CheckActionRequired:
		return forge.StatusFailed
	case forge.CheckCancelled:
		return forge.StatusCanceled
	case forge.CheckQueued:
	}
	return forge.StatusPending
}

// view is a run of c as it is answered.
func view(s state.Subject, scope string, c Context, p past) Run {
	return Run{
		ID: runID(scope, p.Attempt), ExternalID: p.ExternalID, SHA: s.Key, Ref: c.Ref, Context: c.Name, Owner: c.Owner,
		Attempt: p.Attempt, PipelineID: cmp.Or(p.Receipt.PipelineID, p.PipelineID), CreatedAt: p.Created,
		UpdatedAt: p.Last.At, Content: p.Last.Content, ForgeRef: refOf(p.Receipt),
	}
}

// triggered is the run of a presubmit as it is answered.
func triggered(s state.Subject, key string, r RunCheck) Run {
	return Run{
		ID: key, SHA: s.Key, Context: r.Name, Attempt: 1, Content: Content{
			State: shownAs(r.Want.State), TargetURL: r.Want.URL, Description: r.Want.Title,
		}, ForgeRef: refOf(forge.StatusReceipt{ID: r.ID}),
	}
}

// Run reads one run and, if asked, its operations, the newest first, at most 100.
func (c *Clients) Run(ctx context.Context, at Target, id string, history bool) (Run, []Operation, error) {
	p, err := c.see(ctx, at.Subject())
	if err != nil {
		return Run{}, nil, err
	}
	r, count, err := p.run(ctx, id)
	if err != nil {
		return Run{}, nil, err
	}
	r.Repo = at.Repo
	if !history {
		return r, nil, nil
	}
	var ops []Operation
	for n := count; n > 0 && n > count-maxHistory; n-- {
		o, err := p.operation(ctx, id, n)
		if err != nil {
			return Run{}, nil, err
		}
		if o != nil {
			ops = append(ops, *o)
		}
	}
	return r, ops, nil
}

// run finds a run and the number of its operations.
func (p page) run(ctx context.Context, id string) (Run, int64, error) {
	if r, ours := p.d.Runs[id]; ours {
		return triggered(p.s, id, r), r.Report.Count, nil
	}
	scope, attempt, ok := parseRun(id)
	c, there := p.d.Contexts[scope]
	if ok && there {
		old, err := p.attempt(ctx, scope, c, attempt)
		if err != nil {
			return Run{}, 0, err
		}
		if old != nil {
			return view(p.s, scope, c, *old), old.Count, nil
		}
	}
	return Run{}, 0, refuse(CodeNotFound, "no such run")
}

// attempt finds one run of a context; nil = none of that number took effect, or not lately.
func (p page) attempt(ctx context.Context, scope string, c Context, attempt int64) (*past, error) {
	var live past
	found, err := &live, error(nil)
	if r := c.run(attempt); r != nil {
		live = c.past(*r)
	} else {
		found, err = record[past](ctx, p.store, p.s, pastRecord(runID(scope, attempt)))
	}
	if err != nil || found == nil || found.Last.N == 0 {
		return nil, err
	}
	return found, nil
}

// List reads the newest run of each context, with All earlier ones too (of those the first 1000 met), ordered by
// context, then by ref, then the newest attempt first. Runs that no status took effect of are left out.
func (c *Clients) List(ctx context.Context, at Target, f Filter) ([]Run, error) {
	p, err := c.see(ctx, at.Subject())
	if err != nil {
		return nil, err
	}
	scopes := slices.SortedFunc(maps.Keys(p.d.Contexts), func(a, b string) int {
		x, y := p.d.Contexts[a], p.d.Contexts[b]
		return cmp.Or(cmp.Compare(x.Name, y.Name), cmp.Compare(x.Ref, y.Ref))
	})
	var runs []Run
	left := maxPast
	for _, scope := range scopes {
		x := p.d.Contexts[scope]
		if f.Context != "" && f.Context != x.Name || f.Ref != "" && f.Ref != x.Ref {
			continue
		}
		for attempt := x.Effective.Attempt; attempt > 0; attempt-- {
			if attempt < x.Effective.Attempt {
				if left--; left < 0 {
					break
				}
			}
			old, err := p.attempt(ctx, scope, x, attempt)
			if err != nil {
				return nil, err
			}
			if old != nil {
				r := view(p.s, scope, x, *old)
				r.Repo = at.Repo
				if (f.State == "" || f.State == r.State) && (f.PipelineID == 0 || f.PipelineID == r.PipelineID) {
					runs = append(runs, r)
				}
			}
			if !f.All {
				break
			}
		}
	}
	return runs, nil
}
