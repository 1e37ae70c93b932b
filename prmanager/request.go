package prmanager

import (
	"maps"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

// Request is what somebody asks for in a comment or with a press, other than an approval; it waits to be judged.
type Request struct {
	Verb  Verb        `json:"verb"` // VerbApprove: an approval whose SHA is missing
	By    forge.Actor `json:"by"`
	At    time.Time   `json:"at,omitzero"`   // the forge's time; zero where a press has none
	SHA   string      `json:"sha,omitempty"` // what a press was about; empty = the head
	Key   string      `json:"key,omitempty"` // run key: of VerbRetest, only this presubmit
	Since time.Time   `json:"since"`         // store time
}

// Retests counts the re-runs that the author asked for; beyond authorRetests only trust helps.
type Retests struct {
	SHA string `json:"sha"`
	N   int    `json:"n"`
}

const (
	authorRetests = 3  // by the author without being trusted, for each commit
	askedKept     = 20 // requests that wait for a fact: beyond, new ones are not heard
	answeredKept  = 16
)

// asks notes an approval to be judged, once for each person and commit.
func (t *turn) asksApproval(a Approval) {
	d := &t.d
	d.Asked = slices.DeleteFunc(d.Asked, func(o Approval) bool {
		return o.Channel == a.Channel && o.SHA == a.SHA && o.By.ID == a.By.ID && o.By.Login == a.By.Login
	})
	if len(d.Asked) < askedKept {
		d.Asked = append(d.Asked, a)
	}
}

func (t *turn) requests(r Request) {
	d := &t.d
	r.Since = t.now
	d.Requests = slices.DeleteFunc(d.Requests, func(o Request) bool {
		return o.Verb == r.Verb && o.SHA == r.SHA && o.Key == r.Key && o.By.ID == r.By.ID
	})
	if len(d.Requests) < askedKept {
		d.Requests = append(d.Requests, r)
	}
}

func (t *turn) commented(c Comment) {
	t.refer(c.Ref)
	for _, said := range c.Commands {
		switch {
		case said.Verb == VerbApprove && said.SHA != "":
			t.pass(ApproveComment, name(c.By))
			t.asksApproval(Approval{Channel: ByComment, SHA: said.SHA, By: c.By, Evidence: c.At})
		case said.Verb == VerbApprove, said.Verb == VerbCancel, said.Verb == VerbRetest:
			t.requests(Request{Verb: said.Verb, By: c.By, At: c.At})
		}
	}
}

// pressed: the commit has made sure that it was a check of ours.
func (t *turn) pressed(p status.Pressed) {
	switch p.What {
	case status.PressedApprove:
		t.pass(ApproveClicked, name(p.By))
		if p.Others > 0 { // nobody can tell which of them was meant
			t.pass(StaleApproval, short(p.SHA))
			return
		}
		t.asksApproval(Approval{Channel: ByButton, SHA: p.SHA, By: p.By, Evidence: p.At})
	case status.PressedRerun:
		t.requests(Request{Verb: VerbRetest, By: p.By, At: p.At, SHA: p.SHA, Key: p.Key})
	case status.PressedRecheck:
		t.pass(Rechecked, name(p.By))
		t.compare()
	}
}

// judgeRequests judges what was asked for besides approvals. What cannot be judged for want of a fact stays.
func (t *turn) judgeRequests() {
	asked := t.d.Requests
	t.d.Requests = nil
	for _, r := range asked {
		var judged bool
		switch r.Verb {
		case VerbCancel:
			judged = t.judgeCancel(r)
		case VerbRetest:
			judged = t.judgeRetest(r)
		case VerbApprove:
			judged = t.judgeHelp(r)
		default:
			judged = true
		}
		if !judged {
			t.d.Requests = append(t.d.Requests, r)
		}
	}
}

// judgeCancel: the author, and whoever may approve, may take the approval back. The author's word waits for no lookup.
func (t *turn) judgeCancel(r Request) bool {
	d := &t.d
	if r.By.ID == 0 || r.By.ID != d.Author.ID {
		switch t.trusts(Trust, r.By) {
		case unknown:
			return false
		case no:
			t.pass(CancelRefused, name(r.By))
			return true
		case yes:
		}
	}
	t.pass(CancelComment, name(r.By))
	d.Denied = later(d.Denied, r.At)
	d.Asked = slices.DeleteFunc(d.Asked, func(a Approval) bool { return a.Channel != ByCli && !a.Evidence.After(r.At) })
	d.AutoDue, d.Head.Left = false, 0
	if g := d.Standing(); g != nil && !g.Evidence.After(r.At) && t.revoke(CancelComment, name(r.By)) {
		t.shut(CancelComment, name(r.By)+" cancelled the approval; "+forMaintainer)
	}
	return true
}

// judgeRetest: what runs or has run under the grant that stands is run once more.
func (t *turn) judgeRetest(r Request) bool {
	d := &t.d
	refuse := func(why string) bool {
		t.pass(RetestRefused, why)
		return true
	}
	if d.Standing() == nil && slices.ContainsFunc(d.Asked, func(a Approval) bool { return a.By.ID == r.By.ID }) {
		return false // approved and asked for in one comment; the approval waits for a fact
	}
	g := d.Standing()
	switch {
	case g == nil || g.Channel == ByBeing:
		return refuse("nothing is approved")
	case r.SHA != "" && r.SHA != d.Head.SHA, r.SHA == "" && !d.Head.First && r.At.Before(d.Head.Span.At):
		return refuse("asked for another commit")
	}
	if d.Retests.SHA != d.Head.SHA {
		d.Retests = Retests{SHA: d.Head.SHA}
	}
	free := r.By.ID != 0 && r.By.ID == d.Author.ID && d.Retests.N < authorRetests
	if !free {
		switch t.trusts(Trust, r.By) {
		case unknown:
			return false
		case no:
			return refuse(name(r.By) + " may not ask for it")
		case yes:
		}
	}
	if !t.fresh() {
		return false
	}
	only := d.Triggers[r.Key].Order.Run.Presubmit
	if r.Key != "" && only == "" {
		return refuse("nobody knows that run")
	}
	if free {
		d.Retests.N++
	}
	t.pass(RetestAsked, name(r.By))
	t.rerun, t.d.Shut = later(r.At, t.rerun), Shut{}
	for _, s := range d.current() {
		if only == "" || s.Order.Run.Presubmit == only {
			d.Triggers[s.Order.Run.Key] = s.supersede()
		}
	}
	t.count()
	return true
}

// judgeHelp answers somebody who may approve and has not named the commit: what to paste, once for each commit.
func (t *turn) judgeHelp(r Request) bool {
	d := &t.d
	if !d.Open || slices.Contains(d.Answered, d.Head.SHA) || d.Standing() != nil && d.Standing().Channel != ByBeing {
		return true
	}
	switch t.trusts(Trust, r.By) {
	case unknown:
		return false
	case no:
		t.pass(ApproverUntrusted, name(r.By))
		return true
	case yes:
	}
	if !t.fresh() {
		return t.live
	}
	t.pass(AnswerCommand, short(d.Head.SHA))
	d.Answered = append(d.Answered, d.Head.SHA)
	d.Answered = d.Answered[max(0, len(d.Answered)-answeredKept):]
	t.want(actor.Wish{Key: "comment/" + d.Head.SHA, Class: actor.Cosmetic, Kind: KindSay, Want: encoded(commentOrder{
		Ref: d.Ref, Text: "To approve exactly the commit that is there now:\n```\n/ok-to-test " + d.Head.SHA + "\n```", Dry: t.f.Policy.DryRun,
	})}, "answer what to paste for "+short(d.Head.SHA))
	return true
}

// commentOrder is the Want of a comment.
type commentOrder struct {
	Ref  forge.Ref `json:"ref"`
	Text string    `json:"text"`
	Dry  bool      `json:"dry,omitempty"`
}

// heldGone is when Actions drops a run that it holds back.
const heldGone = 30 * 24 * time.Hour

// nativeRunsKept bounds Started.Runs.
const nativeRunsKept = 100

// native books a run that the forge started by itself. One that is held back although its commit is approved is
// approved too; one that goes on although the approval was taken back is cancelled. A commit that was never approved
// here is the forge's own business: its rules let the run go on.
func (t *turn) native(n status.Native) {
	d := &t.d
	if n.HeadRepoID == 0 || n.HeadRepoID != d.HeadRepo {
		return // the same commit in somebody else's pull request
	}
	var s Started
	for _, key := range keys(d.Triggers) { // the newest, and rather one that counts
		if o := d.Triggers[key]; o.Native && o.Order.Run.SHA == n.SHA && (s.Order.Run.Key == "" || t.counts(o) || !t.counts(s)) {
			s = o
		}
	}
	if s.Order.Run.Key == "" {
		return
	}
	key, id, is := s.Order.Run.Key, runID(n.RunID), NativeRun{State: nativeState(n), Attempt: max(n.Attempt, 1), At: n.At}
	was, known := s.Runs[id]
	if !t.counts(s) {
		t.pass(RunStale)
		// What was told before the end is late. GitLab counts no attempts, and dates what goes on again by its end.
		if late := known && was.State.Completed() && is.Attempt <= was.Attempt && is.At.Before(was.At); is.State != forge.CheckActionRequired && !late {
			d.Triggers[key] = s.strayed(is.State, is.Attempt)
		}
		return
	}
	if known && (is.Attempt < was.Attempt || is.Attempt == was.Attempt && (is.At.Before(was.At) || is.State == was.State ||
		is.State == forge.CheckActionRequired && is.At.Equal(was.At))) || !known && len(s.Runs) >= nativeRunsKept {
		return // late, or said twice
	}
	s.Runs = maps.Clone(s.Runs)
	if s.Runs == nil {
		s.Runs = map[string]NativeRun{}
	}
	s.Runs[id], s.URL = is, n.URL
	s.Result = together(s.Runs)
	if is.State == forge.CheckActionRequired {
		t.pass(RunHeld)
		s.Again = s.Asked
	} else {
		t.pass(NativeReport, string(is.State))
		s.Why = ""
	}
	d.Triggers[key] = s
}

// nativeState reads a run's status and conclusion. Nothing is shown of it by us, so what was skipped here is no
// failure: the forge's own checks say what is required.
func nativeState(n status.Native) forge.CheckState {
	switch {
	case n.Status == "action_required", n.Conclusion == "action_required":
		return forge.CheckActionRequired
	case n.Status == "completed" && (n.Conclusion == "skipped" || n.Conclusion == "neutral"):
		return forge.CheckSuccess
	}
	return RunResult(n.Status, n.Conclusion)
}

// together is the result of several runs: queued while one is held back, running while one runs, else the worst.
func together(runs map[string]NativeRun) forge.CheckState {
	worst := forge.CheckSuccess
	rank := func(s forge.CheckState) int {
		return slices.Index([]forge.CheckState{forge.CheckSuccess, forge.CheckCancelled, forge.CheckFailure, forge.CheckRunning, forge.CheckQueued}, s)
	}
	for _, r := range runs {
		s := r.State
		if s == forge.CheckActionRequired {
			s = forge.CheckQueued
		}
		if rank(s) > rank(worst) {
			worst = s
		}
	}
	return worst
}

// compare asks for a comparison with the forge.
func (t *turn) compare() {
	t.d.LiveDue, t.reassert, t.lookRuns = !t.live, true, true
	if t.d.seen() && !t.d.Adopting {
		t.d.LabelDue = &Nudge{Since: t.now, Whole: true}
	}
}

// judgeRuns books what became of runs whose deliveries were lost, also of those that ended: somebody may have run one
// again at the CI side. (What ended natively shows that by itself.) A run that cannot be looked at is looked at again when
// the next comparison comes.
func (t *turn) judgeRuns() {
	if !t.lookRuns {
		return
	}
	for _, s := range t.d.current() {
		key := s.Order.Run.Key
		if s.Stage != Accepted || s.Native && s.done() || t.d.Standing() == nil {
			continue
		}
		f := t.f.Runs[key]
		switch is := f.Value; {
		case !f.Known:
			t.need(Ask{Kind: AskRun, Key: key})
		case is.State == "":
		case !s.Native:
			if s.behind(is) {
				t.bench().reported(is.report(key), t.counts)
			}
		case is.State == forge.CheckActionRequired:
			t.pass(RunHeld)
			s.Again = true
			t.d.Triggers[key] = s
		case is.State != s.Result:
			t.pass(NativeReport, string(is.State))
			s.Result, s.Why = concluded(is.State), ""
			t.d.Triggers[key] = s
		}
	}
}
