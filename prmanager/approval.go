package prmanager

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
)

// grant writes a standing grant for the head and base as they are. The caller has made sure that it is fresh.
func (t *turn) grant(a Approval) {
	d := &t.d
	if g := d.Standing(); g != nil { // only an adopted one: it is taken over
		g.Ended, g.EndedWhy = t.now, Granted
	}
	d.Grants = append(d.Grants, Grant{
		SHA: d.Head.SHA, Base: d.Base, BaseSHA: t.f.Live.Value.Base.SHA, Channel: a.Channel, By: a.By, At: t.now,
		Reason: a.Reason, Evidence: a.Evidence, Entry: a.Entry,
	})
	if over := len(d.Grants) - grantsKept; over > 0 {
		d.Grants = slices.Delete(d.Grants, 0, over)
	}
	d.AutoDue, d.Shut, d.Head.Left = false, Shut{}, 0
	if a.Channel == ByLabel {
		d.Paused = false
	}
	if t.granted = true; a.Channel != ByBeing {
		d.Label.Alone = false
	}
	t.pass(Granted, string(a.Channel), "to", short(d.Head.SHA))
}

// revoke ends the standing grant, if there is one, and cancels what runs by it. It asks nobody.
func (t *turn) revoke(why Reason, by string) bool {
	g := t.d.Standing()
	if g == nil {
		return false
	}
	g.Ended, g.EndedWhy, g.EndedBy = t.now, why, by
	t.pass(Revoked, string(g.Channel), "of", short(g.SHA))
	t.cancelRuns()
	return true
}

// cancelRuns gives up every run that has no result. The run counter grows, once per decision, so that the same commit
// can be triggered again; a presubmit that has its result keeps it. What a native one has come to says nothing of runs
// that its pending trigger has yet to let go on.
func (t *turn) cancelRuns() {
	for _, key := range slices.Sorted(maps.Keys(t.d.Triggers)) {
		s := t.d.Triggers[key]
		letting := s.Native && s.Pending
		if s.Stage == Superseded && letting {
			s.Stray, s.Undone, s.Settled = true, false, false
			t.d.Triggers[key] = s
			continue
		}
		if s.gone() || s.done() && !letting {
			continue
		}
		s.Stage, s.Settled = Cancelled, !s.Asked
		t.d.Triggers[key] = s
		t.pass(CancelRuns)
		t.count()
	}
}

// count begins a new run of the same commit, once per decision.
func (t *turn) count() {
	if !t.counted {
		t.counted = true
		t.d.Run++
	}
}

// shut says why no grant stands, in words for the gate.
func (t *turn) shut(r Reason, text string) {
	if t.d.Standing() == nil {
		t.d.Shut = Shut{Reason: r, Text: text}
		t.pass(r)
	}
}

// isGate says whether a label's name is the gate label's. Forges match label names without regard to case; only ASCII
// is folded here, since folding more would let a Unicode twin match.
func (t *turn) isGate(label string) bool {
	return fold(label) == fold(t.f.Policy.Label)
}

func fold(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

const (
	// historyLag is how much older than its delivery a label entry may be before the history counts as lagging, and how
	// much older than a label entry the live pull request may be before that does.
	historyLag = 5 * time.Second
	// lagsAtMost is the age from which a label entry says nothing of the live pull request any more: it may have been set
	// without a change of updated_at.
	lagsAtMost = 10 * time.Minute
	// oursWithin is how far from a label write of ours its entry may be.
	oursWithin = time.Minute
)

// judgeLabels judges the label history, each entry once, the newest deciding. Deliveries about labels only bring us
// here: late, doubled and reordered ones therefore change nothing.
func (t *turn) judgeLabels() {
	d := &t.d
	due := d.LabelDue
	if due == nil {
		return
	}
	if !t.f.History.Known {
		t.need(Ask{Kind: AskHistory})
		return
	}
	var fresh []forge.LabelEntry // not judged, oldest first
	var last *forge.LabelEntry   // newest of all
	for i, e := range t.f.History.Value {
		if !t.isGate(e.Label) {
			continue
		}
		if last == nil || last.ID < e.ID {
			last = &t.f.History.Value[i]
		}
		if e.ID > d.Entry && e.At.After(d.Baseline) {
			fresh = append(fresh, e)
		}
	}
	slices.SortFunc(fresh, func(a, b forge.LabelEntry) int { return int(min(max(a.ID-b.ID, -1), 1)) })
	if len(fresh) == 0 && !due.At.IsZero() && (last == nil || last.At.Add(historyLag).Before(due.At)) && t.now.Before(due.Since.Add(deliveryWait)) {
		t.need(Ask{Kind: AskHistory}) // the history does not show yet what the delivery told
		return
	}
	if due.Whole && last != nil && d.Label.Wanted == "" {
		d.Label.On = picture(last.Added)
	} else if due.Whole && last == nil {
		d.Label.On = Absent
	}
	if t.judge(fresh) {
		d.LabelDue = nil
	}
}

func picture(present bool) Picture {
	if present {
		return Present
	}
	return Absent
}

// judge takes unjudged entries, oldest first, and answers whether all of them are judged now.
func (t *turn) judge(fresh []forge.LabelEntry) bool {
	d := &t.d
	if len(fresh) == 0 {
		return true
	}
	newest := fresh[len(fresh)-1]
	d.Label.On = picture(newest.Added)
	theirs := slices.DeleteFunc(slices.Clone(fresh), t.ours)
	if len(theirs) == 0 {
		t.pass(LabelOurs)
		d.Entry = newest.ID
		return true
	}
	decides := theirs[len(theirs)-1]
	var removal *forge.LabelEntry // unseen, of the standing grant, before the deciding entry
	for i, e := range theirs {
		if !e.Added {
			d.Removed = later(d.Removed, e.At)
		}
		if !e.Added && t.concerns(e) {
			removal = &theirs[i]
		}
	}
	if !decides.Added {
		if removal != nil {
			t.labelRemoved(*removal)
		}
		d.Entry = newest.ID
		return true
	}
	switch t.trusts(Trust, decides.Actor) {
	case unknown:
		if removal != nil { // shutting does not wait for the answer about who put it back
			t.labelRemoved(*removal)
			d.Entry = max(d.Entry, removal.ID)
		}
		return false
	case no:
		t.pass(LabelAdded, name(decides.Actor))
		t.pass(LabellerUntrusted)
		if removal != nil {
			t.labelRemoved(*removal)
		}
		t.shut(LabellerUntrusted, name(decides.Actor)+" may not approve; "+forMaintainer)
		d.Entry = newest.ID
		return true
	case yes:
	}
	if !t.labelAdded(decides) {
		return false
	}
	d.Entry = newest.ID
	return true
}

// labelAdded judges a label set by someone trusted and answers whether it could be judged.
func (t *turn) labelAdded(e forge.LabelEntry) bool {
	d := &t.d
	if !t.live {
		t.need(Ask{Kind: AskLive})
		return false
	}
	if !d.Open {
		t.pass(LabelAdded, name(e.Actor))
		t.pass(LabelOnClosed)
		return true
	}
	if t.f.Policy.Strict {
		author, pusher := t.trusts(Trust, d.Author), no
		switch {
		case author == no:
		case d.Head.Brought:
			pusher = t.trusts(Trust, d.Head.Pusher)
		case d.SameRepo:
			pusher = yes
		case t.waiting():
			return false
		}
		if author == unknown || author == yes && pusher == unknown {
			return false
		}
		if author == no || pusher == no {
			t.pass(LabelAdded, name(e.Actor))
			t.pass(StrictRefused)
			t.shut(StrictRefused, "labels do not approve what outsiders write here (strict); "+forMaintainer)
			return true
		}
	}
	when := t.early(e.At, false)
	switch when.verdict {
	case undecided:
		return false
	case tooEarly:
		t.pass(LabelAdded, name(e.Actor))
		t.pass(Held, when.text)
		t.shut(Held, name(e.Actor)+" labelled "+when.text+"; label again")
		return true
	case inTime:
	}
	t.pass(LabelAdded, name(e.Actor))
	if g := d.Standing(); g != nil && g.Channel != ByBeing {
		t.pass(AlreadyGranted)
		if g.Channel == ByLabel { // the newer label is as good a ground, and outlives doubts about the older
			g.Evidence, g.Entry = e.At, e.ID
		}
		return true
	}
	t.grant(Approval{Channel: ByLabel, SHA: d.Head.SHA, By: e.Actor, Evidence: e.At, Entry: e.ID})
	return true
}

// concerns says whether a removal takes back what stands: the standing grant, or the one that may be carried over.
func (t *turn) concerns(e forge.LabelEntry) bool {
	d := &t.d
	g := d.Standing()
	if g == nil {
		if d.Head.Left == 0 || d.Head.Left > len(d.Grants) {
			return slices.ContainsFunc(d.Asked, func(a Approval) bool { return a.Channel == ByCarry })
		}
		g = &d.Grants[d.Head.Left-1]
	}
	switch {
	case g.Entry != 0:
		return e.ID > g.Entry
	case g.Channel == ByTrust, g.Channel == ByBeing:
		return true // whenever it was: it says that this pull request should not run by itself
	}
	return !e.At.Before(g.Evidence)
}

// labelRemoved takes back what a removal concerns. One that ran by trust stays paused, or the next push would start
// it again.
func (t *turn) labelRemoved(e forge.LabelEntry) {
	d := &t.d
	t.pass(LabelRemoved, name(e.Actor))
	d.Head.Left = 0
	d.Asked = slices.DeleteFunc(d.Asked, func(a Approval) bool { return a.Channel == ByCarry })
	if g := d.Standing(); g != nil && (g.Channel == ByTrust || g.Channel == ByBeing) {
		d.Paused = true
	}
	if t.revoke(LabelRemoved, name(e.Actor)) {
		t.shut(LabelRemoved, name(e.Actor)+" removed the label; "+forMaintainer)
	}
}

// ours says whether an entry is one of our own writes: made by our App, or by the account whose token we use within a
// minute of a write of ours, one entry for each write. Such an entry is nobody's will.
func (t *turn) ours(e forge.LabelEntry) bool {
	if e.Actor.ID == 0 || e.Actor.ID != t.f.Self.Actor.ID {
		return false
	}
	if t.f.Self.App {
		return true
	}
	for i := range t.d.Label.Writes {
		w := &t.d.Label.Writes[i]
		end := w.To
		if end.IsZero() {
			end = t.now
		}
		if w.Present == e.Added && (w.Entry == 0 || w.Entry == e.ID) &&
			!e.At.Before(w.From.Add(-oursWithin)) && !e.At.After(end.Add(oursWithin)) {
			w.Entry = e.ID
			return true
		}
	}
	return false
}

type verdict int

const (
	undecided verdict = iota // for want of a fact or a delivery
	inTime
	tooEarly
)

type timing struct {
	verdict verdict
	text    string // of tooEarly: "40 s after a push"
}

// early judges whether a label set at that time can have meant the head as it is: set at or after everything became as
// it is, and at least the hold after the last push by someone untrusted. past asks about a grant that stands already:
// where that cannot be told any more, it is too early.
func (t *turn) early(at time.Time, past bool) timing {
	d := &t.d
	when, doubt := t.since(at)
	if when.verdict == tooEarly {
		return when
	}
	for _, p := range slices.Backward(d.Pushes) {
		if !p.At.Add(t.f.Policy.Hold).After(at) {
			continue
		}
		if !p.Known {
			doubt = true
			continue
		}
		switch t.trusts(Trust, p.By) {
		case unknown:
			if !past {
				return timing{verdict: undecided}
			}
			return timing{tooEarly, "close to a push by " + name(p.By) + ", who cannot be verified"}
		case no:
			if at.Before(p.At) {
				return timing{tooEarly, "before a push"}
			}
			return timing{tooEarly, fmt.Sprintf("%d s after a push", int(at.Sub(p.At).Seconds()))}
		case yes:
		}
	}
	if doubt && (past || !t.waiting()) {
		return timing{tooEarly, "close to a push we were not told of"}
	}
	if doubt {
		return timing{verdict: undecided}
	}
	return timing{verdict: inTime}
}

// since judges whether something done at that time can have meant the head, base and opening as they are; doubt where
// nobody knows when they came.
func (t *turn) since(at time.Time) (when timing, doubt bool) {
	d := &t.d
	if !at.After(d.Denied) {
		return timing{tooEarly, "before the approval was cancelled"}, false
	}
	for _, s := range []struct {
		Span
		text string
		skip bool
	}{
		{d.Head.Span, "before the newest commit", d.Head.First},
		{d.BaseSpan, "before the base branch changed", false},
		{d.OpenSpan, "before it was reopened", false},
	} {
		switch {
		case s.skip || s.At.IsZero():
		case !at.After(s.Not), s.Exact && at.Before(s.At):
			return timing{tooEarly, s.text}, false
		case at.Before(s.At):
			doubt = true
		}
	}
	return timing{verdict: inTime}, doubt
}

// waiting says whether the delivery that would tell how the head came may still arrive; it is asked for as long.
func (t *turn) waiting() bool {
	a := Ask{Kind: AskDelivery}
	for _, q := range t.d.Questions {
		if q.Ask.key() == a.key() && q.SHA == t.d.Head.SHA && !t.now.Before(q.Since.Add(deliveryWait)) {
			return false
		}
	}
	t.need(a)
	return true
}

// labelOrder is the Want of a label wish.
type labelOrder struct {
	Ref     forge.Ref `json:"ref"`
	Label   string    `json:"label"`
	Present bool      `json:"present"`
	Dry     bool      `json:"dry,omitempty"`
}

// Flap guard: so many label writes in so long on one pull request, then none for a while. The ledger still decides.
const (
	flapWrites = 6
	flapWithin = 10 * time.Minute
	flapQuiet  = time.Hour
)

// labelWritten books how a label write ended.
func (t *turn) labelWritten(r actor.Result) {
	l := &t.d.Label
	var o labelOrder
	if err := json.Unmarshal(r.Want, &o); err != nil {
		return // not written by this code
	}
	if l.Wanted == picture(o.Present) || r.Code == actor.Dropped {
		l.Wanted = ""
	}
	switch {
	case r.Code != actor.Refused && r.Code != actor.GivenUp:
	case t.d.Open:
		l.Quiet = t.now.Add(flapQuiet)
	default:
		l.On = "" // a picture of what is over is not worth asking for ever; a reopening begins anew
	}
	if r.Code == actor.Dropped {
		l.Writes = slices.DeleteFunc(l.Writes, func(w LabelWrite) bool { return w.To.IsZero() })
	}
	if r.Code != actor.Done {
		return
	}
	l.On = picture(o.Present)
	for i := range l.Writes {
		if l.Writes[i].To.IsZero() {
			l.Writes[i].To = t.now // also the one it replaced, which may have left
		}
	}
}

// wishLabel makes the label a picture of the ledger: there when the gate is shown open, away when nothing stands.
func (t *turn) wishLabel() {
	d, l := &t.d, &t.d.Label
	g := d.Standing()
	var want Picture
	switch {
	case d.Merged, l.Alone, g != nil && g.Channel == ByBeing:
		return
	case g == nil && (d.LabelDue != nil || !d.Open && l.On == ""):
		return // not judged yet, or never ours to tidy
	case g == nil:
		want = Absent
	case l.On == Present && l.Wanted == Absent:
		want = Present // take the removal back before it happens
	default:
		told := d.Told[d.Head.SHA]
		if !told.Granted || told.Shown != forge.CheckSuccess {
			return
		}
		want = Present
	}
	l.Writes = slices.DeleteFunc(l.Writes, func(w LabelWrite) bool {
		return !w.To.IsZero() && w.To.Add(flapWithin).Before(t.now)
	})
	if l.Wanted == want || l.Wanted == "" && l.On == want || t.now.Before(l.Quiet) {
		return
	}
	recent := 0
	for _, w := range l.Writes {
		if w.From.Add(flapWithin).After(t.now) {
			recent++
		}
	}
	if recent >= flapWrites {
		t.pass(LabelFlaps)
		l.Quiet = t.now.Add(flapQuiet)
		return
	}
	o := labelOrder{Ref: d.Ref, Label: t.f.Policy.Label, Present: want == Present, Dry: t.f.Policy.DryRun}
	w := actor.Wish{Key: "label", Class: actor.Cosmetic, Kind: KindLabel, Want: encoded(o), Undo: l.On == want}
	if want == Absent {
		t.pass(RemoveLabel)
		w.Class = actor.Shutting
	} else {
		t.pass(AddLabel)
	}
	l.Wanted = want
	l.Writes = append(l.Writes, LabelWrite{Present: o.Present, From: t.now})
	t.want(w, "label "+string(want))
}
