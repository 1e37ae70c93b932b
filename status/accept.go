package status

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Report is where the reports of one triggered run stand: what its CI side says by the run's own token.
type Report struct {
	Count int64            `json:"count,omitempty"` // accepted
	N     int64            `json:"n,omitempty"`     // newest that was handed on
	State forge.CheckState `json:"state,omitempty"`
	Ended int64            `json:"ended,omitempty"` // newest whose end is known
	Heard int64            `json:"heard,omitempty"` // newest that the pull request has taken into account
}

func (r Report) open() bool { return r.Ended < r.N }

func refuse(code Code, format string, a ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, a...)}
}

// checkFields refuses what no status can be.
func checkFields(r Create) *Refusal {
	bad := map[string]string{}
	text := func(field, s string, most int, lines bool) {
		switch {
		case !utf8.ValidString(s):
			bad[field] = "not UTF-8"
		case utf8.RuneCountInString(s) > most:
			bad[field] = fmt.Sprintf("longer than %d characters", most)
		case strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) && (!lines || r != '\n' && r != '\r' && r != '\t') }):
			bad[field] = "has control characters"
		}
	}
	text("context", r.Context, 255, false)
	text("ref", r.Ref, 255, false)
	text("external_id", r.ExternalID, 128, false)
	text("target_url", r.TargetURL, 255, false)
	text("description", r.Description, 255, true)
	// A context that looks like another one may count as that one at a forge, and some are Signalbox's own.
	switch {
	case strings.TrimSpace(r.Context) == "":
		bad["context"] = "required"
	case bad["context"] == "" && strings.ContainsFunc(r.Context, func(r rune) bool { return !unicode.IsPrint(r) }):
		bad["context"] = "has characters that cannot be seen"
	case strings.TrimSpace(r.Context) != r.Context:
		bad["context"] = "begins or ends with a space"
	}
	switch r.State {
	case forge.StatusPending, forge.StatusRunning, forge.StatusSuccess, forge.StatusFailed, forge.StatusCanceled, forge.StatusSkipped:
	default:
		bad["state"] = "expected pending, running, success, failed, canceled or skipped"
	}
	if u, err := url.Parse(r.TargetURL); r.TargetURL != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		bad["target_url"] = "expected an absolute https URL without user or password"
	}
	if r.Sequence < 0 {
		bad["sequence"] = "expected 1 or more"
	}
	if r.PipelineID < 0 {
		bad["pipeline_id"] = "expected 1 or more"
	}
	if c := r.Coverage; c != nil && (math.IsNaN(*c) || *c < 0 || *c > 100) {
		bad["coverage"] = "expected 0 to 100"
	}
	if len(bad) == 0 {
		return nil
	}
	return &Refusal{Code: CodeInvalid, Message: "the status cannot be accepted as it is", Fields: bad}
}

// enter finds the context for a write by its principal, or makes it. ours says which are Signalbox's by configuration.
func (t *decision) enter(by Caller, name, ref string, ours func(forge.Repo, string) bool) (string, Context, error) {
	scope := scopeOf(name, ref)
	c, there := t.d.Contexts[scope]
	switch {
	case by.Run != "":
		return "", c, refuse(CodeForbidden, "this token may report its own run and nothing else")
	case ours(t.d.Repo, name) || t.isOurs(name):
		return "", c, refuse(CodeContextOwned, "this context belongs to Signalbox")
	case there && c.Owner != by.Principal, !there && t.isAnothers(by, name):
		return "", c, refuse(CodeContextOwned, "this context belongs to another principal")
	case !there && len(t.d.Contexts) >= maxContexts:
		return "", c, refuse(CodeTooManyContexts, "this commit has %d contexts", maxContexts)
	case !there:
		c = Context{Name: name, Ref: ref, Owner: by.Principal}
	}
	c.Runs, c.Waiting = slices.Clone(c.Runs), slices.Clone(c.Waiting)
	return scope, c, nil
}

// isOurs says whether a check of this name is Signalbox's own.
func (t *decision) isOurs(name string) bool {
	if t.isGate(name) {
		return true
	}
	for _, r := range t.d.Runs {
		if strings.EqualFold(r.Name, name) {
			return true
		}
	}
	return false
}

// isAnothers says whether another principal has the context under some ref. A forge may show both in one place.
func (t *decision) isAnothers(by Caller, name string) bool {
	for _, c := range t.d.Contexts {
		if c.Owner != by.Principal && strings.EqualFold(c.Name, name) {
			return true
		}
	}
	return false
}

// create decides a create. old is the run that has its external id, where that has left the document.
func (t *decision) create(by Caller, r Create, ours func(forge.Repo, string) bool, old *past) (Accepted, error) {
	if err := checkFields(r); err != nil {
		return Accepted{}, err
	}
	scope, c, err := t.enter(by, r.Context, r.Ref, ours)
	if err != nil {
		return Accepted{}, err
	}
	digest := ""
	if r.ExternalID != "" {
		sum := sha256.Sum256(encoded(r))
		digest = hex.EncodeToString(sum[:])
		i := slices.IndexFunc(c.Runs, func(x ClientRun) bool { return x.ExternalID == r.ExternalID })
		switch {
		case i >= 0:
			return t.existing(scope, c, c.past(c.Runs[i]), digest)
		case old != nil:
			return t.existing(scope, c, *old, digest)
		}
	}
	run, err := c.begin(r, t.now)
	if err != nil {
		return Accepted{}, err
	}
	run.Digest, run.Ordered, run.Sequence, run.Count = digest, r.Sequence > 0, max(r.Sequence, 1), 1
	c.Runs = append(c.Runs, run)
	s := Said{Order: Order{run.Attempt, run.Sequence}, N: 1, Content: r.Content, At: t.now}
	return t.accept(scope, c, past{ClientRun: run}, s), nil
}

// begin makes the next run of a context.
func (c *Context) begin(r Create, now time.Time) (ClientRun, error) {
	if c.Attempt >= maxUpdates {
		return ClientRun{}, refuse(CodeTooManyUpdates, "this context has had %d runs", maxUpdates)
	}
	c.Attempt++
	return ClientRun{Attempt: c.Attempt, ExternalID: r.ExternalID, PipelineID: r.PipelineID, Created: now}, nil
}

// existing answers a create whose external id is known.
func (t *decision) existing(scope string, c Context, p past, digest string) (Accepted, error) {
	id := runID(scope, p.Attempt)
	if p.Digest != digest {
		return Accepted{}, &Refusal{Code: CodeRunExists, Message: "another run of this context has this external id", Run: id}
	}
	return Accepted{Run: view(t.s, scope, c, p), Operation: Operation{ID: operationID(t.s, id, 1), RunID: id, State: OpAccepted}, Existing: true}, nil
}

// update decides an update of a run of a context. old is the run, where it has left the document.
func (t *decision) update(by Caller, id string, r Update, ours func(forge.Repo, string) bool, old *past) (Accepted, error) {
	scope, attempt, ok := parseRun(id)
	c, there := t.d.Contexts[scope]
	if !ok || !there {
		return Accepted{}, refuse(CodeNotFound, "no such run")
	}
	if err := checkFields(Create{Context: c.Name, Sequence: r.Sequence, Content: r.Content}); err != nil {
		return Accepted{}, err
	}
	scope, c, err := t.enter(by, c.Name, c.Ref, ours)
	if err != nil {
		return Accepted{}, err
	}
	live := c.run(attempt)
	var run past
	switch {
	case live != nil:
		run = c.past(*live)
	case old != nil:
		run = *old
	default:
		return Accepted{}, refuse(CodeNotFound, "no such run")
	}
	switch {
	case run.Count >= maxUpdates:
		return Accepted{}, refuse(CodeTooManyUpdates, "this run has had %d updates", maxUpdates)
	case run.Ordered && r.Sequence == 0:
		return Accepted{}, refuse(CodeSequence, "this run was created with a sequence: each update needs a larger one")
	case !run.Ordered && r.Sequence != 0:
		return Accepted{}, &Refusal{Code: CodeInvalid, Message: "the status cannot be accepted as it is", Fields: map[string]string{
			"sequence": "this run was created without one, so that its updates count as they come",
		}}
	}
	s := run.next(c, r.Sequence, r.Content, t.now)
	if live == nil {
		t.retire(scope, run)
	} else {
		*live = run.ClientRun
	}
	return t.accept(scope, c, run, s), nil
}

// next numbers another status of a run. What it leaves out is taken from the newest one of the run.
func (r *ClientRun) next(c Context, sequence int64, say Content, now time.Time) Said {
	sequence = cmp.Or(sequence, r.Sequence+1)
	r.Sequence, r.Count = max(r.Sequence, sequence), r.Count+1
	if old := c.newest(); old.Attempt == r.Attempt {
		say.TargetURL, say.Description = cmp.Or(say.TargetURL, old.TargetURL), cmp.Or(say.Description, old.Description)
		say.Coverage = cmp.Or(say.Coverage, old.Coverage)
	}
	return Said{Order: Order{r.Attempt, sequence}, N: r.Count, Content: say, At: now}
}

// accept stores one status of a run of c at its place in the order.
func (t *decision) accept(scope string, c Context, run past, s Said) Accepted {
	op, e := operation{}, c.Effective
	switch why := c.overrules(s); {
	case s.Order == e.Order && s.same(e.Content):
		op.Twin = operationID(t.s, runID(scope, e.Attempt), e.N)
	case why != "":
		op.End = &end{State: OpSuperseded, Reason: why, By: operationID(t.s, runID(scope, e.Attempt), e.N), At: t.now}
	default:
		t.takeEffect(scope, &c, s)
		run.Last = s
	}
	return t.store(scope, c, run, s, op)
}

// store keeps the context and the operation's record, and answers.
func (t *decision) store(scope string, c Context, run past, s Said, op operation) Accepted {
	id := runID(scope, s.Attempt)
	op.Order, op.Content, op.At = s.Order, s.Content, s.At
	t.d.Contexts[scope] = c
	t.put(opRecord(id, s.N), op, opLife)
	o := Operation{
		ID: operationID(t.s, id, s.N), RunID: id, State: OpAccepted, Order: s.Order, Content: s.Content,
		Effective: c.Effective.State, AcceptedAt: s.At,
	}
	if op.End != nil {
		o.State, o.Reason, o.SupersededBy = op.End.State, op.End.Reason, op.End.By
	}
	return Accepted{Operation: o, Run: view(t.s, scope, c, run)}
}

// takeEffect makes s what should be shown. Runs that cannot count any more leave the document.
func (t *decision) takeEffect(scope string, c *Context, s Said) {
	if old := c.Effective; c.Ended.Compare(old.Order) < 0 {
		next := operationID(t.s, runID(scope, s.Attempt), s.N)
		t.put(nextRecord(runID(scope, old.Attempt), old.N), next, opLife)
	}
	for _, r := range c.Runs {
		if r.Attempt < s.Attempt {
			t.retire(scope, c.past(r))
		}
	}
	c.Runs = slices.DeleteFunc(c.Runs, func(r ClientRun) bool { return r.Attempt < s.Attempt })
	c.Effective = s
}

// past is a run of c as its record keeps it.
func (c *Context) past(r ClientRun) past {
	p := past{ClientRun: r}
	if c.Effective.Attempt == r.Attempt {
		p.Last = c.Effective
	}
	if c.Pushed.Run == r.Attempt {
		p.Receipt = c.Pushed.Receipt
	}
	return p
}

func (t *decision) retire(scope string, p past) {
	t.put(pastRecord(runID(scope, p.Attempt)), p, pastLife)
	if p.ExternalID != "" {
		t.put(externalRecord(scope, p.ExternalID), p.Attempt, pastLife)
	}
}

func (t *decision) put(key string, v any, life time.Duration) {
	t.puts = append(t.puts, state.Record{Key: key, Value: encoded(v), TTL: life})
}

// post decides a v1 call. Its order key is taken now (rule 7): it continues the newest run, or begins one where that is
// finished. It says what is shown already: then nothing waits.
func (t *decision) post(by Caller, r Create, ours func(forge.Repo, string) bool) (Accepted, error) {
	r.ExternalID, r.Sequence = "", 0
	if !strings.HasPrefix(r.TargetURL, "https://") {
		r.TargetURL = "" // the old endpoint takes what its clients have always sent; no other link is shown anywhere
	}
	if err := checkFields(r); err != nil {
		return Accepted{}, err
	}
	scope, c, err := t.enter(by, r.Context, r.Ref, ours)
	if err != nil {
		return Accepted{}, err
	}
	waiting := 0
	for _, x := range t.d.Contexts {
		waiting += len(x.Waiting)
	}
	newest := c.newest()
	run := c.run(newest.Attempt)
	repeats := run != nil && newest.said(r.Content)
	if waiting >= maxWaiting {
		return Accepted{}, refuse(CodeBusy, "%d calls are waiting for this commit", waiting)
	}
	if run == nil || newest.State.Terminal() && !repeats {
		begun, err := c.begin(r, t.now)
		if err != nil {
			return Accepted{}, err
		}
		c.Runs = append(c.Runs, begun)
		run = &c.Runs[len(c.Runs)-1]
	}
	switch {
	case run.Count >= maxUpdates:
		return Accepted{}, refuse(CodeTooManyUpdates, "this run has had %d updates", maxUpdates)
	case run.Ordered && !repeats:
		return Accepted{}, refuse(CodeSequence, "the newest run of this context was created with a sequence: update it with a larger one")
	}
	s := run.next(c, 0, r.Content, t.now)
	if repeats && newest.Order == c.Effective.Order {
		return t.store(scope, c, c.past(*run), s, operation{Twin: operationID(t.s, runID(scope, newest.Attempt), newest.N)}), nil
	}
	c.Waiting = append(c.Waiting, s)
	a := t.store(scope, c, past{ClientRun: *run, Last: s}, s, operation{})
	a.Operation.Waiting = true
	return a, nil
}

// said says whether a v1 call repeats s.
func (s Said) said(c Content) bool {
	return s.State == c.State && s.TargetURL == cmp.Or(c.TargetURL, s.TargetURL) && s.Description == cmp.Or(c.Description, s.Description)
}

// withdraw takes back a v1 call that no turn has claimed, and says whether it did. Its attempt number is given back if it
// is still the newest and nobody else uses it.
func (t *decision) withdraw(id string, n int64) bool {
	scope, attempt, _ := parseRun(id)
	c, there := t.d.Contexts[scope]
	i := slices.IndexFunc(c.Waiting, func(s Said) bool { return s.Attempt == attempt && s.N == n })
	if !there || i < 0 {
		return false
	}
	c.Runs, c.Waiting = slices.Clone(c.Runs), slices.Delete(slices.Clone(c.Waiting), i, i+1)
	used := func(attempt int64) bool {
		return attempt <= c.Effective.Attempt || slices.ContainsFunc(c.Waiting, func(s Said) bool { return s.Attempt == attempt })
	}
	for c.Attempt > 0 && !used(c.Attempt) {
		c.Runs = slices.DeleteFunc(c.Runs, func(r ClientRun) bool { return r.Attempt == c.Attempt })
		c.Attempt--
	}
	t.puts = append(t.puts, state.Record{Key: opRecord(id, n)})
	if t.d.Contexts[scope] = c; c.Attempt == 0 {
		delete(t.d.Contexts, scope)
	}
	return true
}

// report decides what a triggered run's token says of its run: the pull request is told, and its check goes on as the
// pull request says.
func (t *decision) report(by Caller, key string, r Update) (Accepted, error) {
	run, there := t.d.Runs[key]
	if !there || by.Run != key {
		return Accepted{}, refuse(CodeNotFound, "no such run")
	}
	if err := checkFields(Create{Context: key, Content: r.Content}); err != nil {
		return Accepted{}, err
	}
	p := &run.Report
	if p.Count >= maxUpdates {
		return Accepted{}, refuse(CodeTooManyUpdates, "this run has had %d updates", maxUpdates)
	}
	p.Count++
	op := operation{Order: Order{1, p.Count}, Content: r.Content, At: t.now}
	o := Operation{
		ID: operationID(t.s, key, p.Count), RunID: key, State: OpAccepted, Order: op.Order, Content: r.Content, AcceptedAt: t.now,
	}
	is := reported(r.State)
	over := run.Want.State.Completed() && run.Want.State != is || p.State != "" && p.State.Completed() && !is.Completed()
	if over {
		op.End = &end{State: OpSuperseded, Reason: ReasonRunFinished, At: t.now}
		o.State, o.Reason = op.End.State, op.End.Reason
	} else {
		if p.open() {
			t.put(nextRecord(key, p.N), o.ID, opLife)
		}
		p.N, p.State = p.Count, is
		t.wishes = append(t.wishes, actor.Wish{
			Key: reportKey(key), Class: actor.Shutting, Kind: KindReported, To: &run.Pull, Want: encoded(Reported{
				Key: key, SHA: t.s.Key, Seq: p.N, State: is, URL: r.TargetURL, Description: r.Description, Op: o.ID, At: t.now,
			}),
		})
	}
	t.put(opRecord(key, p.Count), op, opLife)
	t.d.Runs[key] = run
	return Accepted{Operation: o, Run: triggered(t.s, key, run)}, nil
}

func reportKey(run string) string { return "reported/" + run }

// reported is what a client's state means for a triggered run: what was skipped tested nothing (docs/rules.md P10).
func reported(s forge.StatusState) forge.CheckState {
	switch s {
	case forge.StatusPending:
		return forge.CheckQueued
	case forge.StatusRunning:
		return forge.CheckRunning
	case forge.StatusSuccess:
		return forge.CheckSuccess
	case forge.StatusCanceled:
		return forge.CheckCancelled
	case forge.StatusFailed, forge.StatusSkipped:
	}
	return forge.CheckFailure
}
