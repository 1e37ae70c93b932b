package prmanager

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// turn is one decision at work on its own copy of the document.
type turn struct {
	s   state.Subject
	d   PR
	f   Facts
	now time.Time

	live     bool // the live pull request was read in this turn and is no older than anything we were shown
	first    bool // the document began in this turn
	recheck  bool // something was learned about the past: does the standing label grant still hold?
	reassert bool // tell everything again
	counted  bool // run was counted up
	granted  bool // a grant was made in this turn
	tells    bool // the story gets a line even if nothing follows
	lookRuns bool // compare with what became of the runs
	rerun    time.Time

	asks   []Ask
	wishes []actor.Wish
	line   Line
	why    []string
}

// decide applies the events to the document in order, then judges what is due, and at last computes from the document
// what should be true outside. It is pure: the same arguments always give the same step. asks are the facts that it
// needed and did not have.
func decide(s state.Subject, d PR, f Facts, events []Event, now time.Time) (step actor.Step[PR], asks []Ask) {
	t := &turn{s: s, d: d.clone(), f: f, now: now}
	if d.Dry && !f.Policy.DryRun {
		t.pass(DryRunOver)
		t.d = PR{Ref: d.Ref, Seq: d.Seq, Run: d.Run + 1, Adopting: true} // no number or key is ever used twice
	}
	t.d.Dry = f.Policy.DryRun
	if t.d.Run == 0 && !heardOf[Opened](events) {
		// There may have been a document before, dropped since. Its commits and its CI may still know its numbers and keys,
		// and it cannot have used up a second for each. What labels it judged are older than it was kept, but for a day that
		// two clocks may differ.
		t.d.Seq, t.d.Run, t.d.Baseline = now.Unix(), int(now.Unix()), now.Add(24*time.Hour-kept)
		if heardOf[Reopened](events) {
			t.pass(FirstSight, "nothing is kept of the time before it was closed")
		}
	}
	for _, e := range events {
		t.line.In = append(t.line.In, e.words())
		done, ours := e.(Effected)
		// That something went as wished, or is decided again, is no story by itself.
		t.tells = t.tells || !ours || done.Code != actor.Done && done.Code != actor.Stale
	}
	t.look(events)
	for _, e := range events {
		t.apply(e)
	}
	t.settle()
	t.trigger()
	t.ask()
	t.wish()
	return t.step(), t.asks
}

func heardOf[E Event](events []Event) bool {
	return slices.ContainsFunc(events, func(e Event) bool { _, is := e.(E); return is })
}

// pass notes a box of the flowchart, with what a reader of the story needs besides.
func (t *turn) pass(r Reason, detail ...string) {
	if !t.passed(r) && len(detail) == 0 {
		return
	}
	word := string(r)
	if len(detail) > 0 {
		word += " (" + strings.Join(detail, " ") + ")"
	}
	if !slices.Contains(t.line.Why, word) {
		t.line.Why = append(t.line.Why, word)
	}
}

// passed notes a box without telling it, and answers whether it is new.
func (t *turn) passed(r Reason) bool {
	if slices.Contains(t.why, string(r)) {
		return false
	}
	t.why = append(t.why, string(r))
	return true
}

// need asks for a fact, once.
func (t *turn) need(a Ask) {
	for _, o := range t.asks {
		if o.key() == a.key() {
			return
		}
	}
	t.asks = append(t.asks, a)
}

// look takes the live pull request, if it was read. One that is older than what a delivery or the label history has
// shown is the API lagging: it is asked again and changes nothing.
func (t *turn) look(events []Event) {
	if !t.f.Live.Known {
		return
	}
	newest, repair := t.d.SeenAt, false
	for _, e := range events {
		_, ok := e.(Reconcile)
		repair = repair || ok
		if at, ok := e.(interface{ at() time.Time }); ok {
			newest = later(newest, at.at())
		}
	}
	for _, e := range t.f.History.Value {
		if t.now.Sub(e.At) < lagsAtMost {
			newest = later(newest, e.At.Add(-historyLag)) // two clocks of one forge
		}
	}
	t.d.Adopting = t.d.Adopting || repair && !t.d.seen()
	live := t.f.Live.Value
	if live.UpdatedAt.Before(newest) || Subject(live.Ref) != t.s {
		t.pass(APILags)
		t.f.Live = Fact[forge.Pull]{Looked: true, Why: "the forge still shows an older state"}
		t.need(Ask{Kind: AskLive})
		return
	}
	t.live, t.d.LiveDue = true, false
	t.observe(live)
}

func (s Sighting) at() time.Time { return s.Pull.UpdatedAt }

// apply is the rules, one event each.
func (t *turn) apply(e Event) {
	switch e := e.(type) {
	case Opened:
		t.opened(e)
	case Pushed:
		t.pushed(e)
	case Labelled:
		t.labelled(e)
	case BaseChanged:
		t.sight(e.Sighting)
		t.learn(&t.d.BaseSpan, e.Pull.Base.Name == t.d.Base, e.at())
	case DraftChanged:
		t.sight(e.Sighting)
	case Closed:
		t.sight(e.Sighting)
		t.learn(&t.d.OpenSpan, !t.d.Open, e.at())
	case Reopened:
		t.sight(e.Sighting)
		t.learn(&t.d.OpenSpan, t.d.Open, e.at())
	case ApproveCli:
		t.pass(CliApproved)
		t.refer(e.Ref)
		t.asksApproval(Approval{Channel: ByCli, SHA: e.SHA, By: forge.Actor{Login: e.By}, Reason: plain(e.Reason, 200)})
	case RevokeCli:
		t.pass(CliRevoked)
		t.refer(e.Ref)
		t.d.Asked, t.d.Requests, t.d.AutoDue, t.d.Head.Left = nil, nil, false, 0
		if t.revoke(CliRevoked, plain(e.By, 40)) {
			t.shut(CliRevoked, "approval revoked by operator "+plain(e.By, 40)+"; "+forMaintainer)
		}
	case Written:
		t.written(e.Written)
	case Effected:
		t.effected(e.Result)
	case RunReported:
		t.bench().reported(e.Report, t.counts)
	case Commented:
		t.commented(e.Comment)
	case Pressed:
		t.pressed(e.Pressed)
	case NativeRan:
		t.native(e.Native)
	case Reconcile:
		t.pass(Reconciled)
		t.refer(e.Ref)
		t.d.Adopting = t.d.Adopting || !t.d.seen()
		t.compare()
	case Unhandled:
		t.pass(NothingHandled)
	}
}

// refer gives a document that was never seen the name of what it is about.
func (t *turn) refer(ref forge.Ref) {
	if t.d.Ref.Number == 0 {
		t.d.Ref = ref
	}
}

// sight takes what a delivery shows. Newer than all before, it is the state; late, it only teaches since when things
// are as they are.
func (t *turn) sight(s Sighting) {
	d, p := &t.d, s.Pull
	d.AutoDue = d.AutoDue || d.Adopting && d.seen()
	d.Adopting, d.Label.Alone = false, false
	switch at := p.UpdatedAt; {
	case !d.seen():
		t.observe(p)
		d.LiveDue = true
	case at.After(d.SeenAt), at.Equal(d.SeenAt) && !t.live:
		differs := p.Head.SHA != d.Head.SHA || p.Base.Name != d.Base || p.Open != d.Open
		if differs && at.Equal(d.SeenAt) {
			// Two states within one second. Which is newer the live one tells; until then shutting wins.
			d.LiveDue = true
		}
		t.observe(p)
	default:
		if p.Head.SHA == d.Head.SHA {
			d.Head.Span.shown(at)
		} else if d.Head.First = false; at.Before(d.Head.Span.At) {
			d.Head.Span.Not = later(d.Head.Span.Not, at)
		}
		if p.Base.Name == d.Base {
			d.BaseSpan.shown(at)
		}
		if p.Open == d.Open {
			d.OpenSpan.shown(at)
		}
	}
}

// observe makes the document agree with a pull request that is no older than what it has seen. Every change of state
// comes through here, whoever tells of it first.
func (t *turn) observe(p forge.Pull) {
	d, at := &t.d, p.UpdatedAt
	if !d.seen() {
		t.pass(FirstSight)
		t.first = true
		d.Head = Head{SHA: p.Head.SHA, Span: Span{At: at}, First: true}
		d.Open, d.Merged, d.Draft, d.Base, d.Run = p.Open, p.Merged, p.Draft, p.Base.Name, max(d.Run, 1)
		d.AutoDue = !d.Adopting
	}
	if !p.Open && (d.Open || d.Merged != p.Merged) {
		t.closed(p.Merged, at)
	} else if !d.Open && p.Open {
		t.pass(PRReopened)
		d.Open, d.Merged, d.OpenSpan = true, false, Span{At: at, Not: d.SeenAt}
		d.AutoDue, d.Shut = true, Shut{}
	}
	if d.Base != p.Base.Name {
		t.pass(BaseMoved)
		t.revoke(BaseMoved, "")
		d.Base, d.BaseSpan, d.Head.Left = p.Base.Name, Span{At: at, Not: d.SeenAt}, 0
		d.AutoDue, d.Shut = true, Shut{}
	}
	if d.Head.SHA != p.Head.SHA {
		t.headChanged(p.Head.SHA, at)
	}
	if d.Draft && !p.Draft {
		t.pass(DraftReady)
		d.AutoDue = true
	} else if !d.Draft && p.Draft {
		t.pass(DraftAgain)
	}
	ref := p.Ref
	if ref.Repo.Installation == 0 {
		ref.Repo.Installation = d.Ref.Repo.Installation
	}
	d.Ref, d.Author, d.Draft, d.SeenAt = ref, p.Author, p.Draft, at
	d.HeadRepo, d.SameRepo = p.Head.RepoID, p.SameRepo()
}

func (t *turn) closed(merged bool, at time.Time) {
	d, why := &t.d, PRClosed
	if merged {
		why = PRMerged
	}
	t.pass(why)
	t.revoke(why, "")
	d.Open, d.Merged, d.OpenSpan = false, merged, Span{At: at, Not: d.SeenAt}
	d.AutoDue, d.Head.Left = false, 0
}

// headChanged: whatever was granted was granted for another commit.
func (t *turn) headChanged(sha string, at time.Time) {
	d := &t.d
	t.pass(HeadChanged, short(sha))
	left := 0
	if d.Standing() != nil {
		left = len(d.Grants)
	}
	t.revoke(HeadChanged, "")
	d.Head = Head{SHA: sha, Span: Span{At: at, Not: d.SeenAt}, Left: left}
	d.push(Push{At: at, SHA: sha})
	d.AutoDue, d.Shut = true, Shut{}
}

func (t *turn) opened(e Opened) {
	d := &t.d
	begins := !d.seen() || t.first
	t.sight(e.Sighting)
	if begins {
		d.Label.On = Absent // labels set at creation send their own deliveries
	}
	if d.Opening {
		return
	}
	t.pass(PROpened)
	d.Opening = true
	if e.Pull.Head.SHA == d.Head.SHA && d.Head.First && !d.Head.Brought {
		d.Head.Brought, d.Head.Pusher = true, e.Sender
	}
	if d.Standing() == nil {
		d.AutoDue = true
	}
}

func (t *turn) pushed(e Pushed) {
	d, at := &t.d, e.at()
	t.sight(e.Sighting)
	d.push(Push{At: at, SHA: e.After, By: e.Sender, Known: true})
	t.recheck = true
	switch {
	case e.After == d.Head.SHA:
		again := d.Head.Span.began(at)
		if again { // it left and came back, and we saw neither
			t.pass(HeadChanged, short(e.After))
			t.revoke(HeadChanged, "")
		}
		if again || !d.Head.Brought {
			t.pass(ChangesPushed)
			d.Head.Brought, d.Head.Pusher, d.Head.First = true, e.Sender, false
			d.AutoDue = true
			t.carry(e)
		} else if e.Sender.ID != d.Head.Pusher.ID {
			// One of the two deliveries was written when a later push had moved the head once more, and which of them,
			// nobody can tell. So nobody known has pushed, and nobody's trust reaches this head.
			t.pass(ChangesPushed)
			d.Head.Pusher, d.AutoDue = forge.Actor{}, true
			d.Asked = slices.DeleteFunc(d.Asked, func(a Approval) bool { return a.Channel == ByCarry })
		}
	case e.Pull.Head.SHA != e.After: // the payload was written later than the push: its time says nothing
	case at.After(d.Head.Span.At):
		if d.Head.Span.broke(at, d.SeenAt) {
			t.pass(LatePush, short(e.After))
			t.revoke(LatePush, "")
			d.Head.Brought, d.Head.Pusher, d.Head.First, d.Head.Left = false, forge.Actor{}, false, 0
			d.AutoDue = true
		}
	}
	if e.After != d.Head.SHA && at.Equal(d.SeenAt) {
		d.LiveDue = true // within the second of the newest we know the live one may lag: ask once more
	}
}

// learn books when something became so; or, where it is not so by now, that it was otherwise then.
func (t *turn) learn(s *Span, so bool, at time.Time) {
	if t.recheck = true; so {
		s.began(at)
	} else {
		s.broke(at, t.d.SeenAt)
	}
}

// carry: a trusted person's update of exactly the granted commit may carry its grant over.
func (t *turn) carry(e Pushed) {
	d := &t.d
	if d.Head.Left == 0 || d.Head.Left > len(d.Grants) {
		return
	}
	g := d.Grants[d.Head.Left-1]
	d.Head.Left = 0
	if e.Before != g.SHA || e.Sender.Bot || g.Channel == ByBeing {
		return
	}
	t.asksApproval(Approval{Channel: ByCarry, SHA: e.After, By: e.Sender, Evidence: g.Evidence, Entry: g.Entry})
}

func (t *turn) labelled(e Labelled) {
	t.sight(e.Sighting)
	if slices.ContainsFunc(e.Labels, t.isGate) {
		t.d.LabelDue = &Nudge{At: later(e.at(), t.nudged()), Since: t.now, Whole: t.d.LabelDue != nil && t.d.LabelDue.Whole}
	}
}

func (t *turn) nudged() time.Time {
	if t.d.LabelDue == nil {
		return time.Time{}
	}
	return t.d.LabelDue.At
}

// settle judges everything that is due, with the facts at hand. What cannot be judged stays due.
func (t *turn) settle() {
	d := &t.d
	if d.LiveDue || !d.seen() && (d.Adopting || len(d.Asked)+len(d.Requests) > 0) {
		t.need(Ask{Kind: AskLive})
	}
	if !d.seen() {
		t.asks = slices.DeleteFunc(t.asks, func(Ask) bool { return d.Ref.Number == 0 }) // nobody knows what to read
		return
	}
	if g := d.Standing(); t.recheck && g != nil && g.Channel == ByLabel {
		if when := t.early(g.Evidence, true); when.verdict != inTime {
			t.pass(Held, when.text)
			t.revoke(Held, "")
			t.shut(Held, "labelled "+when.text+"; label again")
		}
	}
	if d.Adopting {
		if t.adopt(); d.Adopting {
			return
		}
	}
	t.judgeLabels()
	t.judgeAuto()
	t.judgeAsked()
	t.judgeRequests()
	t.judgeRuns()
}

// adopt records a pull request that is older than our first contact. Nothing is triggered and no label touched.
func (t *turn) adopt() {
	d := &t.d
	if !t.fresh() {
		d.Adopting = t.needed(AskLive)
		return
	}
	trusted := t.trusts(Auto, d.Author)
	if trusted == unknown && d.SameRepo {
		return
	}
	d.Adopting, d.Baseline, d.Label.Alone = false, d.SeenAt, true
	if trusted == yes && d.SameRepo {
		t.pass(Adopted)
		t.grant(Approval{Channel: ByBeing, SHA: d.Head.SHA, By: d.Author, Evidence: d.SeenAt})
		return
	}
	t.pass(NotAdopted)
	t.shut(NotAdopted, "open since before Signalbox; "+forMaintainer)
}

func (t *turn) needed(k AskKind) bool {
	return slices.ContainsFunc(t.asks, func(a Ask) bool { return a.Kind == k })
}

// judgeAsked judges approvals of a named commit.
func (t *turn) judgeAsked() {
	d := &t.d
	asked := d.Asked
	d.Asked = nil
	for _, a := range asked {
		if a.Channel == ByCarry {
			if a.SHA != d.Head.SHA || !d.Open || d.Standing() != nil {
				continue
			}
			switch t.trusts(Trust, a.By) {
			case unknown:
				d.Asked = append(d.Asked, a)
			case yes:
				if !t.fresh() {
					d.Asked = append(d.Asked, a)
					continue
				}
				t.pass(Carried, name(a.By))
				t.grant(a)
			case no:
			}
			continue
		}
		switch {
		case !t.live:
			t.need(Ask{Kind: AskLive})
			d.Asked = append(d.Asked, a)
		case !d.Open || a.SHA != d.Head.SHA:
			t.pass(StaleApproval, short(a.SHA))
		case d.Standing() != nil && d.Standing().Channel != ByBeing:
			t.pass(AlreadyGranted)
		case a.Channel == ByCli:
			a.Evidence = d.SeenAt
			t.grant(a)
		case !t.judgeAsker(a):
			d.Asked = append(d.Asked, a)
		}
	}
}

// judgeAsker judges a comment's or the button's approval of the live head, and answers whether it could be judged. It
// must have been given for the head as it came, into the base as it is, since it was opened, and since somebody last
// took the label off: heard in order, that would have ended it.
func (t *turn) judgeAsker(a Approval) bool {
	if a.Evidence.IsZero() {
		a.Evidence = t.d.SeenAt
	}
	switch when, doubt := t.since(a.Evidence); {
	case !a.Evidence.After(t.d.Removed):
		t.pass(StaleApproval, short(a.SHA)+": before the label was removed")
		return true
	case when.verdict == tooEarly:
		t.pass(StaleApproval, short(a.SHA)+": "+when.text)
		return true
	case doubt && t.waiting():
		return false
	case doubt:
		t.pass(StaleApproval, short(a.SHA)+": close to a push we were not told of")
		return true
	}
	switch t.trusts(Trust, a.By) {
	case unknown:
		return false
	case no:
		t.pass(ApproverUntrusted, name(a.By))
	case yes:
		t.grant(a)
	}
	return true
}

// judgeAuto is Is_Auto: whether the pull request runs by itself, or why it waits.
func (t *turn) judgeAuto() {
	d := &t.d
	if !d.AutoDue {
		return
	}
	if g := d.Standing(); d.Open && g != nil {
		switch t.rests(g) {
		case unknown:
			return
		case no:
			t.revoke(UntrustedPusher, "")
		case yes:
		}
	}
	if !d.Open || d.Standing() != nil {
		d.AutoDue = false
		return
	}
	refuse := func(r Reason, text string) {
		d.AutoDue = false
		t.shut(r, text)
	}
	switch {
	case d.Paused:
		refuse(IsPaused, "paused because the label was removed; "+forMaintainer)
		return
	case d.Draft:
		refuse(IsDraft, "a draft does not run by itself; mark it ready, or a maintainer sets the label")
		return
	}
	switch t.trusts(Auto, d.Author) {
	case unknown:
		return
	case no:
		refuse(UntrustedAuthor, forMaintainer+"; "+name(d.Author)+" is not trusted to run CI unasked"+t.cure(d.Author))
		return
	case yes:
	}
	if !d.Head.Brought {
		if !d.SameRepo {
			refuse(UnknownPusher, "missed the push, approve once; "+forMaintainer)
			return
		}
	} else {
		switch t.trusts(Auto, d.Head.Pusher) {
		case unknown:
			return
		case no:
			refuse(UntrustedPusher, forMaintainer+"; "+name(d.Head.Pusher)+" pushed and is not trusted to run CI unasked"+t.cure(d.Head.Pusher))
			return
		case yes:
		}
	}
	if !t.fresh() {
		return
	}
	switch t.proven() {
	case unknown:
		return
	case no:
		refuse(UnknownPusher, "somebody else than "+name(d.Head.Pusher)+" may have pushed; "+forMaintainer)
		d.Head.Pusher = forge.Actor{}
		return
	case yes:
	}
	t.pass(IsAuto)
	t.grant(Approval{Channel: ByTrust, SHA: d.Head.SHA, By: d.Author, Evidence: d.Head.Span.At})
}

// proven says whether the head is its pusher's: a forge may have written the delivery when the head had moved once more.
// Whoever pushes to the base repository may write there, and who opened has shown this head.
func (t *turn) proven() answer {
	head := t.d.Head
	if !head.Brought || head.First || t.d.SameRepo {
		return yes
	}
	return t.known(Ask{Kind: AskPush, Who: head.Pusher, Key: head.SHA})
}

// rests says whether a grant that came without anybody's asking still may: who pushed is often heard of later.
func (t *turn) rests(g *Grant) answer {
	head := t.d.Head
	if !head.Brought || g.Channel != ByTrust && (g.Channel != ByCarry || head.Pusher.ID != 0) {
		return yes
	}
	return t.trusts(Auto, head.Pusher)
}

// cure is what an administrator may write where a bot made the pull request wait.
func (t *turn) cure(a forge.Actor) string {
	slug := strings.TrimPrefix(strings.TrimSuffix(name(a), "[bot]"), "@")
	if !a.Bot || !t.d.SameRepo || slug == "" {
		return ""
	}
	return "; to let it: add app:" + slug + " to SIGNALBOX_AUTO"
}

// answer is a fact in three values.
type answer int

const (
	unknown answer = iota
	no
	yes
)

// trusts asks whether somebody satisfies a list, live.
func (t *turn) trusts(l List, who forge.Actor) answer {
	if slices.Equal(t.f.Policy.Trust, t.f.Policy.Auto) {
		l = Trust // one question for both
	}
	if who.ID == 0 || len(t.f.Policy.rules(l)) == 0 || t.f.Self.App && who.ID == t.f.Self.Actor.ID {
		return no
	}
	return t.known(Ask{Kind: AskTrust, List: l, Who: who})
}

// known is the answer to a question that is a yes or a no.
func (t *turn) known(a Ask) answer {
	switch f := t.f.Trusts[a.key()]; {
	case !f.Known:
		t.need(a)
		return unknown
	case f.Value:
		return yes
	}
	return no
}

// fresh says whether something may be granted now: the live pull request was read in this turn, is what the document
// says, and is open.
func (t *turn) fresh() bool {
	if !t.live {
		t.need(Ask{Kind: AskLive})
		return false
	}
	return t.d.Open
}

// written books what a commit told back.
func (t *turn) written(w status.Written) {
	d := &t.d
	if w.Key == "gate" {
		if told, ok := d.Told[w.SHA]; ok && told.Seq == w.Seq {
			told.Shown, told.Why = "", plain(w.Why, 100)
			if w.OK {
				told.Shown, told.Why = w.State, ""
			}
			d.Told[w.SHA] = told
			t.pass(shownOr(w.OK))
		}
		return
	}
	t.bench().written(w)
}

// effected books how one of our effects ended.
func (t *turn) effected(r actor.Result) {
	d := &t.d
	what, key, _ := strings.Cut(r.Key, "/")
	if r.Code == actor.Stale {
		d.LiveDue = !t.live // the world has moved: whoever moved it may not have told us
		return
	}
	switch {
	case what == "gate":
		if r.Code == actor.Done {
			t.gateTold(key, r)
		}
	case what == "label":
		t.labelWritten(r)
	default:
		t.bench().effected(r)
	}
}

// bench is this decision's part about runs.
func (t *turn) bench() bench {
	if t.d.Triggers == nil {
		t.d.Triggers = map[string]Started{}
	}
	return bench{
		s: t.s, ref: t.d.Ref, now: t.now, dry: t.f.Policy.DryRun, runs: t.d.Triggers, seq: &t.d.Seq, want: t.want, pass: t.pass,
		reassert: func(s Started) bool { return t.reassert && s.Order.Run.SHA == t.d.Head.SHA && !s.gone() },
	}
}

// counts says whether what becomes of a run matters: it was started under the grant that stands.
func (t *turn) counts(s Started) bool {
	d := &t.d
	return d.Standing() != nil && s.Order.Run.SHA == d.Head.SHA && s.Base == d.Base && !s.gone()
}

// gateTold: the commit has heard. Nothing more is to be said of a former head once it has heard that it is one.
func (t *turn) gateTold(sha string, r actor.Result) {
	told, ok := t.d.Told[sha]
	var g status.Gate
	if !ok || json.Unmarshal(r.Want, &g) != nil || g.Seq != told.Seq {
		return
	}
	if told.Heard = true; sha == t.d.Head.SHA || told.Open {
		t.d.Told[sha] = told
	} else {
		delete(t.d.Told, sha)
	}
}

// trigger makes a standing grant start what it has not started: one record per run key, never two.
func (t *turn) trigger() {
	d := &t.d
	d.Bare = len(t.f.Policy.Presubmits) == 0
	g := d.Standing()
	if g == nil || g.Channel == ByBeing {
		return
	}
	current := d.current()
	for _, p := range t.f.Policy.Presubmits {
		key := RunKey(t.s, g.SHA, g.Base, d.Run, p.Name)
		if _, used := d.Triggers[key]; used || slices.ContainsFunc(current, func(s Started) bool { return s.Order.Run.Presubmit == p.Name }) {
			if t.granted {
				t.pass(AlreadyRun, plain(p.Name, 60))
			}
			continue
		}
		s := Started{Base: g.Base, N: d.Run, Native: p.Native, Source: p.Source, Stage: Checking, Begun: t.now, Order: RunOrder{
			Trigger: p.Trigger, Base: g.Base, Run: forge.Run{
				Key: key, Ref: d.Ref, SHA: g.SHA, BaseSHA: g.BaseSHA, Base: g.Base, HeadRepoID: d.HeadRepo, Presubmit: p.Name,
			},
		}}
		if p.Native {
			s.Stage, s.Order.Native, s.Order.Rerun = Sent, true, t.rerun
			if p.Held && g.Channel != ByTrust && t.now.Sub(later(d.Head.Span.At, d.OpenSpan.At)) > heldGone {
				s.Why = "Actions drops runs that were held back for 30 days: push or reopen"
			}
		}
		if d.Triggers == nil {
			d.Triggers = map[string]Started{}
		}
		d.Triggers[key] = s
		t.pass(RunTriggered, plain(p.Name, 60))
	}
	d.prune()
}

// prune keeps the document small: records of former heads that are over are dropped, oldest first.
func (d *PR) prune() {
	if len(d.Triggers) <= triggersKept {
		return
	}
	over := slices.DeleteFunc(slices.Collect(maps.Keys(d.Triggers)), func(k string) bool {
		s := d.Triggers[k]
		return s.Order.Run.SHA == d.Head.SHA || !s.Settled && !s.done()
	})
	slices.SortFunc(over, func(a, b string) int {
		if c := d.Triggers[a].Begun.Compare(d.Triggers[b].Begun); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	for _, k := range over[:min(len(over), len(d.Triggers)-triggersKept)] {
		delete(d.Triggers, k)
	}
}

// How questions are asked again, in store time.
const (
	askFirst  = time.Second      // after the first failure; doubled each time
	askMost   = 10 * time.Minute // at most
	askExpiry = 72 * time.Hour   // then what waited for it is given up
	askLoud   = time.Minute      // then the gate's text says so
	// deliveryWait is how long a delivery that must be under way is waited for.
	deliveryWait = time.Minute
)

// ask turns what the decision could not know into questions, each with its own backoff.
func (t *turn) ask() {
	d := &t.d
	var questions []Question
	for _, a := range t.asks {
		if a.Kind == AskRun {
			continue
		}
		asked := false
		q := Question{Ask: a, SHA: d.Head.SHA, Since: t.now, Next: t.now}
		if i := slices.IndexFunc(d.Questions, func(o Question) bool { return o.Ask.key() == a.key() && o.SHA == d.Head.SHA }); i >= 0 {
			asked, q = true, d.Questions[i]
			q.Ask = a
		}
		before := q.text()
		if looked, why, after := t.f.of(a); looked {
			q.Tries++
			q.Why = why
			q.Next = t.now.Add(max(after, min(askMost, askFirst<<min(q.Tries-1, 16))))
		}
		if a.Kind == AskDelivery {
			q.Next = q.Since.Add(deliveryWait)
		}
		q.Loud = !t.now.Before(q.Since.Add(askLoud))
		if !t.now.Before(q.Since.Add(askExpiry)) {
			t.pass(GaveUp, q.text())
			if d.LabelDue != nil {
				d.Label.On = "" // nobody has read it
			}
			d.AutoDue, d.LiveDue, d.Adopting, d.LabelDue, d.Asked, d.Requests = false, false, false, nil, nil, nil
			t.shut(GaveUp, "gave up asking: "+q.text()+"; label again")
			d.Questions = nil
			return
		}
		if asked && before == q.text() {
			t.passed(Unsure) // it is a story only once
		} else {
			t.pass(Unsure, q.text())
		}
		questions = append(questions, q)
	}
	d.Questions = questions
}

// of says how looking for the answer went.
func (f Facts) of(a Ask) (looked bool, why string, after time.Duration) {
	switch a.Kind {
	case AskLive:
		return f.Live.Looked, f.Live.Why, f.Live.After
	case AskHistory:
		if f.History.Known {
			return true, "what was told does not show yet", 0
		}
		return f.History.Looked, f.History.Why, f.History.After
	case AskTrust, AskPush:
		v := f.Trusts[a.key()]
		return v.Looked, v.Why, v.After
	case AskDelivery, AskRun:
	}
	return false, "", 0
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
