package status

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

const (
	kindStatus = "status" // kind of the wishes for clients' statuses
	// SettleStatus is how long after a call that may have left it may still take effect. A GitLab that keeps the commit
	// locked makes calls wait up to a minute, and goes on with those whose caller has gone.
	SettleStatus = 45 * time.Second
	// laggingFor is how long after its acceptance a status may meet a forge that does not know the commit yet.
	laggingFor = time.Minute
	lagging    = 3 * time.Second // between two tries meanwhile
	// lastTry ends an operation that opens or tells. The engine would keep it as a dead letter that somebody can put
	// back; a status put back after newer ones would go backwards.
	lastTry    = 25
	maxMessage = 500 // bytes of a Trouble
)

var errDry = errors.New("nothing is written in a dry run")

// statusOrder is what a wish for a client's status wants.
type statusOrder struct {
	Scope string `json:"scope"`
	Order
	N      int64        `json:"n"`
	At     time.Time    `json:"at"` // accepted
	Status forge.Status `json:"status"`
	Dry    bool         `json:"dry,omitempty"`
	// Void: the context is Signalbox's own now. If the entry this replaces was never attempted both vanish.
	Void bool `json:"void,omitempty"`
}

// failure is what Do hands to Decide, and to readers of the outbox, of a call that failed.
type failure struct {
	Trouble
	Reason string `json:"reason,omitempty"` // of an operation that ends so
}

// statusKey names a context for people, and by its scope for sure.
func statusKey(scope string, c Context) string { return "status/" + c.Name + "/" + scope }

// status is what the forge is asked to show of a context.
func (c *Context) status(repo forge.Repo, sha, scope string, say Content, attempt int64) forge.Status {
	s := forge.Status{
		Repo: repo, SHA: sha, Ref: c.Ref, Context: c.Name, State: say.State, Description: say.Description, TargetURL: say.TargetURL,
		Coverage: say.Coverage, Run: runID(scope, attempt), New: c.Pushed.Run != attempt,
		ID: c.Pushed.Receipt.ID, PipelineID: c.Pushed.Receipt.PipelineID,
	}
	if r := c.run(attempt); s.PipelineID == 0 && r != nil {
		s.PipelineID = r.PipelineID
	}
	return s
}

// reads says when the context is read back; zero = not before somebody asks.
func (c *Context) reads() time.Time {
	if c.pending() || c.Pushed.State == "" {
		return time.Time{}
	}
	return c.Read
}

// readable answers the contexts to be read back, those due longest first; all = whatever their time is.
func (d Document) readable(now time.Time, all bool) []string {
	var due []string
	for scope, c := range d.Contexts {
		at := c.reads()
		if !at.IsZero() && !at.After(now) || all && !c.pending() && c.Pushed.State != "" {
			due = append(due, scope)
		}
	}
	slices.SortFunc(due, func(a, b string) int {
		return cmp.Or(d.Contexts[a].Read.Compare(d.Contexts[b].Read), cmp.Compare(a, b))
	})
	return due
}

func statusFact(scope string) string { return "status/" + scope }

// lookAtStatuses reads back what clients' statuses the forge shows.
func (b *Behaviour) lookAtStatuses(ctx context.Context, s state.Subject, d Document, facts Facts, in actor.Inputs, now time.Time) {
	due := d.readable(now, in.Reconcile != "")
	for _, scope := range due[:min(len(due), readBatch)] {
		c := d.Contexts[scope]
		var f Fact
		at, err := b.forges(s.Instance)
		if err == nil {
			_, f.Shown, err = at.FindStatus(ctx, c.status(d.Repo, s.Key, scope, c.Pushed.Content, c.Pushed.Run))
		}
		f.mark(err)
		facts[statusFact(scope)] = f
	}
}

// readStatuses compares. What differs is asserted once for each read-back: a stranger who posts in the same context is
// not fought in a loop.
func (t *decision) readStatuses(facts Facts, in actor.Inputs) {
	for _, scope := range t.d.readable(t.now, in.Reconcile != "") {
		c := t.d.Contexts[scope]
		switch f, looked := facts[statusFact(scope)]; {
		case t.dry(t.d.Repo):
			c.Read = t.now.Add(readLate)
		case !looked:
			c.Read = t.now // in a further batch
		case f.Unknown != "" && f.After > 0:
			t.because(whyUnknown)
			c.Read = t.now.Add(f.After)
		default:
			if f.Unknown != "" {
				t.because(whyUnknown)
			} else if f.Shown {
				t.because(whySame)
			} else {
				t.because(whyDiffers)
				c.Again = true
			}
			c.Read = c.Pushed.nextRead(t.now)
		}
		t.d.Contexts[scope] = c
	}
}

// statusResult books how the entry of a context ended.
func (t *decision) statusResult(r actor.Result) {
	var o statusOrder
	if err := json.Unmarshal(r.Want, &o); err != nil {
		return // not written by this code; while the context is pending it is asked for again
	}
	c, there := t.d.Contexts[o.Scope]
	if !there || r.Code == actor.Stale {
		return
	}
	c.Out = false
	fresh := c.Ended.Compare(o.Order) < 0
	switch {
	case o.Void, r.Code == actor.Dropped:
	case r.Code == actor.Done:
		var made forge.StatusReceipt
		_ = json.Unmarshal(r.Data, &made) // our own; without it the forge is asked anew which is the newest
		c.Again, c.Opening = false, o.Status.State == forge.StatusSuccess
		at := c.Pushed.At
		if fresh {
			at, c.Read, c.Ended = t.now, t.now.Add(readSoon), o.Order
			t.end(o.Scope, o.Order, o.N, end{State: OpDelivered, Forge: refOf(made)})
		}
		c.Pushed = Pushed{Order: o.Order, Content: o.content(), Run: o.Attempt, Receipt: made, At: at}
	default:
		var f failure
		if json.Unmarshal(r.Data, &f) != nil {
			f.Trouble = Trouble{Class: string(r.Code), Message: clip(r.Error)}
		}
		c.Again, c.Pushed.Content = false, Content{} // an earlier try may have left
		if fresh {
			c.Ended = o.Order
			t.end(o.Scope, o.Order, o.N, end{State: OpFailed, Reason: cmp.Or(f.Reason, ReasonRefused), Trouble: &f.Trouble})
		}
	}
	t.d.Contexts[o.Scope] = c
}

func (o statusOrder) content() Content {
	return Content{State: o.Status.State, TargetURL: o.Status.TargetURL, Description: o.Status.Description, Coverage: o.Status.Coverage}
}

// end records how an operation of a context ended.
func (t *decision) end(scope string, o Order, n int64, e end) {
	e.At = t.now
	t.put(endRecord(runID(scope, o.Attempt), n), e, opLife)
}

// statuses claims what waits and wishes for what is not shown.
func (t *decision) statuses() {
	for _, scope := range slices.Sorted(maps.Keys(t.d.Contexts)) {
		c := t.d.Contexts[scope]
		if len(c.Waiting) == 0 && !c.pending() && !c.Out {
			continue
		}
		c.Runs = slices.Clone(c.Runs)
		if t.isOurs(c.Name) {
			t.dispossess(scope, &c)
		} else {
			t.claim(scope, &c)
			t.show(scope, &c)
		}
		t.d.Contexts[scope] = c
	}
}

// claim lets v1 calls count from now on. Each has kept the place in the order that it took on arrival (rule 7).
func (t *decision) claim(scope string, c *Context) {
	for _, s := range c.Waiting {
		if why := c.overrules(s); why != "" {
			e := c.Effective
			t.end(scope, s.Order, s.N, end{State: OpSuperseded, Reason: why, By: operationID(t.s, runID(scope, e.Attempt), e.N)})
			continue
		}
		t.takeEffect(scope, c, s)
	}
	c.Waiting = nil
}

// show wishes for the effective status, and for nothing where the forge shows it already and nothing has left since.
func (t *decision) show(scope string, c *Context) {
	if !c.pending() {
		return
	}
	e := c.Effective
	shown := !c.Again && c.Pushed.State != "" && e.same(c.Pushed.Content)
	if shown && !c.Out {
		c.Ended, c.Pushed.Order = e.Order, e.Order
		t.end(scope, e.Order, e.N, end{State: OpDelivered, Reason: ReasonDuplicate, Forge: refOf(c.Pushed.Receipt)})
		return
	}
	o := statusOrder{
		Scope: scope, Order: e.Order, N: e.N, At: e.At, Dry: t.dry(t.d.Repo),
		Status: c.status(t.d.Repo, t.s.Key, scope, e.Content, e.Attempt),
	}
	w := actor.Wish{Key: statusKey(scope, *c), Class: c.class(), Kind: kindStatus, Want: encoded(o), Undo: shown}
	c.Asked, c.Out, c.Opening = e.Order, true, c.Opening || e.State == forge.StatusSuccess
	t.wishes = append(t.wishes, w)
}

// dispossess ends what clients have under way in a context that turned out to be Signalbox's own. What they have shown
// is written over by its check, and read back once nothing of theirs can land any more.
func (t *decision) dispossess(scope string, c *Context) {
	for _, s := range c.Waiting {
		t.end(scope, s.Order, s.N, end{State: OpFailed, Reason: ReasonContextOwned})
	}
	c.Waiting = nil
	if c.Ended.Compare(c.Effective.Order) < 0 {
		t.end(scope, c.Effective.Order, c.Effective.N, end{State: OpFailed, Reason: ReasonContextOwned})
	}
	c.Ended, c.Again, c.Pushed.Content = c.Effective.Order, false, Content{}
	if c.Out {
		t.wishes = append(t.wishes, actor.Wish{
			Key: statusKey(scope, *c), Class: actor.Shutting, Kind: kindStatus, Want: encoded(statusOrder{Scope: scope, Void: true}), Undo: true,
		})
	}
	t.d.Recheck = t.now.Add(SettleStatus)
}

// reports ends what the tokens of triggered runs have said, once the check shows it or the pull request went on.
func (t *decision) reports() {
	for _, key := range slices.Sorted(maps.Keys(t.d.Runs)) {
		r := t.d.Runs[key]
		p := r.Report
		if !p.open() {
			continue
		}
		e := end{At: t.now}
		switch {
		case r.Shown.State == p.State && !r.pending():
			e.State, e.Forge = OpDelivered, refOf(forge.StatusReceipt{ID: r.ID})
		case r.Want.State == p.State && r.Error != "" && !r.pending():
			e.State, e.Reason, e.Trouble = OpFailed, ReasonRefused, &Trouble{Class: forge.Permanent.String(), Message: clip(r.Error)}
		case r.Want.State != p.State && r.Want.State.Completed():
			e.State, e.Reason = OpSuperseded, ReasonRunFinished
		case r.Want.State != p.State && p.Heard >= p.N:
			e.State, e.Reason = OpSuperseded, ReasonNotCounted
		default:
			continue
		}
		t.put(endRecord(key, p.N), e, opLife)
		r.Report.Ended = p.N
		t.d.Runs[key] = r
	}
}

// doStatus pushes one client's status. A call that may have left is waited for and looked up first: nothing may land
// after what is newer.
func (b *Behaviour) doStatus(ctx context.Context, s state.Subject, e actor.Entry, now time.Time, confirm func(context.Context) error) actor.Outcome {
	var o statusOrder
	if err := json.Unmarshal(e.Want, &o); err != nil {
		return actor.Outcome{Code: actor.Refused, Err: fmt.Errorf("entry %s cannot be read: %w", e.Key, err)}
	}
	switch {
	case o.Void:
		return actor.Outcome{Code: actor.Refused, Quiet: true, Err: errors.New("the context belongs to Signalbox")}
	case o.Dry || b.dry(o.Status.Repo):
		return actor.Outcome{Code: actor.Refused, Quiet: true, Err: errDry, Note: "would, but this is a dry run", Data: encoded(failure{
			Trouble: Trouble{Class: ReasonDryRun, Message: errDry.Error()}, Reason: ReasonDryRun,
		})}
	}
	at, err := b.forges(s.Instance)
	if err != nil {
		return o.failed(e, now, fmt.Errorf("find the forge of %s: %w", s, err))
	}
	if !e.Unsure.IsZero() {
		left := e.Left
		if left.IsZero() {
			left = e.Unsure
		}
		wait := left.Add(SettleStatus).Sub(now)
		if wait > 0 && !left.After(e.Born) {
			return actor.Outcome{Code: actor.Settling, After: wait, Err: fmt.Errorf("an older status of %s may still appear", o.Status.Context)}
		}
		r, found, err := at.FindStatus(ctx, o.Status)
		switch {
		case err != nil:
			return o.failed(e, now, fmt.Errorf("look for %s on %s: %w", o.Status.Context, s, err))
		case found:
			return actor.Outcome{Code: actor.Done, Data: encoded(r)}
		case wait > 0:
			return actor.Outcome{Code: actor.Settling, After: wait, Err: fmt.Errorf("%s may still appear", o.Status.Context)}
		case r.ID != "" && r.ID != o.Status.ID: // an earlier status of this run has landed, and nobody was told
			o.Status.ID, o.Status.PipelineID, o.Status.New = r.ID, cmp.Or(o.Status.PipelineID, r.PipelineID), false
		}
	}
	if e.Class == actor.Permitting {
		if err := confirm(ctx); err != nil {
			return actor.Outcome{Code: actor.Stale, Err: fmt.Errorf("before writing %s on %s: %w", o.Status.Context, s, err)}
		}
	}
	r, err := at.WriteStatus(forge.WithUrgency(ctx, forge.Urgency(e.Class)), o.Status)
	if err != nil {
		return o.failed(e, now, fmt.Errorf("write %s on %s: %w", o.Status.Context, s, err))
	}
	return actor.Outcome{Code: actor.Done, Data: encoded(r)}
}

// failed is the outcome of a failed call. What is refused for good is its client's to know, not an operator's.
func (o statusOrder) failed(e actor.Entry, now time.Time, err error) actor.Outcome {
	f := forge.Classify(err)
	out := Outcome(err)
	why := failure{Trouble: Trouble{Class: f.Class.String(), Code: f.Status, Message: clip(err.Error())}}
	switch {
	case f.Class == forge.NotFound && now.Before(o.At.Add(laggingFor)):
		out.Code, out.After = actor.Settling, max(out.After, lagging) // the forge has not heard of the commit yet
	case out.Code == actor.Refused:
		out.Quiet, why.Reason = true, ReasonRefused
	case out.Code == actor.Failed && e.Class != actor.Shutting && e.Tries+1 >= lastTry:
		out.Code, out.Quiet, why.Reason = actor.Refused, true, ReasonExhausted
	}
	out.Data = encoded(why)
	return out
}

func clip(s string) string { return cut(s, maxMessage) }
