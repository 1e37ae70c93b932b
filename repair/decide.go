package repair

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// What a decision of a sweep may say of itself; metric labels and words of its story.
const (
	AskedAgain  = "Asked_Again"  // deliveries that never arrived are asked for again
	NotAsked    = "Not_Asked"    // dry run: they would be
	Adopting    = "Adopting"     // pull requests never heard of are told to look at themselves
	Comparing   = "Comparing"    // known ones are
	Compared    = "Compared"     // all open pull requests have been compared
	LookFailed  = "Look_Failed"  // the forge could not be looked at; everything is as it was
	LogMissing  = "Log_Missing"  // there is no delivery log to read
	PlaceMissed = "Place_Missed" // a repository refused to be looked at
)

// begin takes up what was ordered and what the time has come for. Look and Decide both start from what it answers.
func (b *Behaviour) begin(s state.Subject, d Sweep, in actor.Inputs, now time.Time) (Sweep, []actor.DeadMail) {
	var dead []actor.DeadMail
	if d.First.IsZero() {
		d.First = now
	}
	for _, m := range in.Mail {
		var o Order
		if err := json.Unmarshal(m.Body, &o); err != nil || m.Kind != KindOrder {
			dead = append(dead, actor.DeadMail{Seq: m.Seq, Reason: "no sweep reads mail of this kind or body"})
			continue
		}
		d.ordered(s.Key, o, now)
	}
	if len(d.walks()) > 0 && now.Sub(d.Look) > patient && !d.Look.IsZero() {
		d.Held = true // nobody was there: the log comes first again
	}
	alone := installation(s.Key) == 0
	if alone && !now.Before(d.Next) {
		d.Next, d.Compare = now.Add(b.every), true
		if !d.Log.under() {
			d.readLog(now)
		}
	}
	if !d.Compare || !d.settled(now) {
		return d, dead
	}
	held := d.Held
	d.Compare, d.Held = false, false
	switch {
	case s.Key == Root:
		if held || !d.Installs.under() {
			d.Installs.begin(now)
		}
	default:
		if held || !d.Updated.under() {
			whole := !d.Updated.Since.IsZero() && now.Sub(d.Updated.Since) > max(5*b.every, patient)
			d.Updated.begin(now)
			d.Updated.Whole = whole
		}
		if !d.Full.under() && !now.Before(d.Full.Since.Add(daily)) {
			d.Full.begin(now)
		}
	}
	return d, dead
}

func (d *Sweep) ordered(key string, o Order, now time.Time) {
	d.Compare = d.Compare || o.Compare && now.Sub(o.At) <= patient // an older one was written before a gap
	if o.Log && installation(key) == 0 {
		d.Look = time.Time{}
		d.Log.begin(now)
		d.Log.Floor, d.Log.Whole = now.Add(-kept), true
	}
	switch {
	case !o.Full:
	case key == Root:
		if d.Pass.Full && d.Pass.Only != o.Only {
			o.Only = ""
		}
		d.Pass = Order{Full: true, Only: o.Only}
		d.Look = time.Time{}
		d.Installs.begin(now)
	case d.Full.under() && d.Full.Only == "": // that one gets there
	default:
		only := o.Only
		if d.Full.under() && d.Full.Only != only {
			only = ""
		}
		d.Look = time.Time{}
		d.Full.begin(now)
		d.Full.Only = only
	}
}

// readLog begins a pass through the delivery log, back to the last one; once an hour further, for those that were
// asked for and failed again. What failed before our first contact is nobody's loss.
func (d *Sweep) readLog(now time.Time) {
	since := d.Log.Since
	if since.IsZero() {
		since = d.First
	}
	d.Log.begin(now)
	d.Log.Floor = since.Add(-margin)
	if now.Sub(d.Deep) >= again {
		d.Deep = now
		d.Log.Floor = earlier(d.Log.Floor, now.Add(-(asks+1)*again))
	}
	if d.Log.Floor.Before(d.First) {
		d.Log.Floor = d.First
	}
}

// turn is one decision at work.
type turn struct {
	*Behaviour
	s      state.Subject
	d      Sweep
	now    time.Time
	counts map[string]int
	step   actor.Step[Sweep]
}

// Decide takes what was found, as far as the lanes have room, and leaves the walks standing there.
func (b *Behaviour) Decide(s state.Subject, d Sweep, facts Facts, in actor.Inputs, now time.Time) actor.Step[Sweep] {
	t := &turn{Behaviour: b, s: s, now: now, counts: map[string]int{}}
	t.d, t.step.Dead = b.begin(s, d, in, now)
	for _, f := range facts.Found {
		w := t.d.walk(f.Walk)
		if !w.under() || w.At != f.From {
			continue // behind a lane that was full, or the walk began anew
		}
		if at, all := t.take(w, f); !all {
			w.At = at
			continue
		}
		t.took(w, f)
	}
	t.fault(facts)
	t.step.Next = t.d
	t.step.Index = t.d.places(now)
	t.step.Wake = t.wake()
	t.tell(facts)
	return t.step
}

// took moves the walk on.
func (t *turn) took(w *Walk, f Found) {
	if note := cmp.Or(f.NoLog, f.Missed); note != "" {
		w.Note = note
	}
	if f.Disabled != "" {
		t.d.Disabled.meet(w, t.now, t.now, f.Disabled)
	}
	if w.At = f.To; !f.Over {
		return
	}
	switch f.Walk {
	case throughAll:
		t.counts[Compared]++
		t.missed(w)
	case throughUpdated:
		t.missed(w)
	case throughInstalls:
		t.d.Pass = Order{}
	case throughLog:
		if w.Note != t.d.NoLog && w.Note != "" {
			t.counts[LogMissing]++
		}
		t.d.NoLog = w.Note
		t.d.Lost.over(w)
		t.d.Disabled.over(w)
	}
	w.end()
}

// missed notes what a walk had to leave out. It is a story only once.
func (t *turn) missed(w *Walk) {
	if w.Note != t.d.Missed && w.Note != "" {
		t.counts[PlaceMissed]++
	}
	t.d.Missed = w.Note
}

// take makes wishes of what was found. Where a lane is full it answers where the walk has to stand to see the rest.
func (t *turn) take(w *Walk, f Found) (Cursor, bool) {
	for _, id := range f.Installs {
		to := Subject(t.s.Instance, strconv.FormatInt(id, 10))
		o := t.d.Pass
		o.Compare, o.At = true, w.Begun
		t.wish(actor.Wish{Key: "sweep/" + to.Key, Kind: KindOrder, To: &to}, o)
	}
	for _, x := range f.Lost {
		if !t.ask(w, x) {
			return f.From, false
		}
	}
	for _, x := range f.Pulls {
		if !t.judge(w, f.Walk, x) {
			return x.At, false
		}
	}
	return Cursor{}, true
}

// ask has the forge send a delivery again; false = there is no room now.
func (t *turn) ask(w *Walk, x Lost) bool {
	if x.N > 0 && t.now.Sub(x.Asked) >= arrives && !t.dryRun {
		t.d.Lost.meet(w, x.At, t.now, "deliveries fail at the forge, also when they are sent again")
	}
	if x.N >= asks && !w.Whole || x.N > 0 && t.now.Sub(x.Asked) < again {
		return true
	}
	at, ok := slot(&t.d.Slots.Ask, t.now, t.pace.Ask)
	switch {
	case !ok:
		return false
	case t.dryRun:
		t.counts[NotAsked]++
	default:
		if x.N == 0 {
			t.d.Asked = later(t.d.Asked, at)
		}
		t.counts[AskedAgain]++
		t.wish(actor.Wish{Key: RedeliverKey + x.GUID, Kind: kindRedeliver, NotBefore: at}, asked{x.Repo, x.Delivery})
	}
	t.step.Put = append(t.step.Put, state.Record{Key: memoryKey(x.GUID), Value: mustJSON(memory{at, x.N + 1}), TTL: kept})
	return true
}

// judge tells a pull request to look at itself if it may have missed something; false = there is no room now.
func (t *turn) judge(w *Walk, p path, x Seen) bool {
	lane, pace, word := &t.d.Slots.Known, t.pace.Known, Comparing
	why, id := "sweep", "sweep:"+prmanager.Subject(x.Ref).String()+":"+strconv.FormatInt(x.UpdatedAt.Unix(), 10)
	switch {
	case !x.Known:
		if !x.Open || !t.adopt || t.now.Sub(x.CreatedAt) < grace {
			return true
		}
		lane, pace, word = &t.d.Slots.Adopt, t.pace.Adopt, Adopting
	case p == throughAll:
		if !x.All && x.Name == x.Ref.Repo.Name {
			return true // told, or to be told, as one of our documents
		}
		why, id = "daily comparison", "all:"+prmanager.Subject(x.Ref).String()+":"+strconv.FormatInt(w.Begun.Unix(), 10)
	case t.now.Sub(x.UpdatedAt) < settle, !w.Whole && !x.UpdatedAt.After(x.SeenAt):
		return true
	}
	at, ok := slot(lane, t.now, pace)
	if !ok {
		return false
	}
	t.counts[word]++
	t.wish(actor.Wish{Key: "tell/" + prmanager.Subject(x.Ref).String(), Kind: kindTell, NotBefore: at}, told{x.Ref, t.s.Instance + ":" + id, why})
	return true
}

// slot takes the next free time of a lane; there is none further than ahead.
func slot(next *time.Time, now time.Time, pace time.Duration) (time.Time, bool) {
	at := later(*next, now)
	if at.Sub(now) >= ahead {
		return time.Time{}, false
	}
	*next = at.Add(pace)
	return at, true
}

// fault plans the next look. Nothing moved but what was found before the fault.
func (t *turn) fault(facts Facts) {
	switch {
	case facts.Fault != "":
		if t.d.Fault.Tries == 0 {
			t.d.Fault.Since = t.now
		}
		if t.d.Fault.Why != facts.Fault {
			t.counts[LookFailed]++
		}
		t.d.Fault.Tries, t.d.Fault.Why = t.d.Fault.Tries+1, facts.Fault
		wait := min(patient, 5*time.Second<<min(t.d.Fault.Tries-1, 10))
		t.d.Look = t.now.Add(max(wait, facts.After))
	case len(facts.Found) > 0:
		t.d.Fault = Fault{}
		t.d.Look = t.now.Add(min(rest, t.every))
	}
}

// wake is when there is something to do that no mail brings.
func (t *turn) wake() time.Time {
	var at time.Time
	sooner := func(x time.Time) {
		if at.IsZero() || x.Before(at) {
			at = x
		}
	}
	if installation(t.s.Key) == 0 {
		sooner(t.d.Next)
	}
	if len(t.d.walks()) > 0 {
		sooner(later(t.d.Look, t.now.Add(time.Second)))
	}
	if t.d.Compare && !t.d.Log.under() {
		sooner(later(t.d.Asked.Add(arrives), t.now.Add(time.Second)))
	}
	return at
}

// tell writes the line of the story, if there is one.
func (t *turn) tell(facts Facts) {
	type line struct {
		At  time.Time `json:"at"`
		Why []string  `json:"why"`
	}
	l := line{At: t.now}
	for _, word := range []string{AskedAgain, NotAsked, Adopting, Comparing, Compared, LogMissing, PlaceMissed, LookFailed} {
		n := t.counts[word]
		if n == 0 {
			continue
		}
		t.step.Why = append(t.step.Why, word)
		trouble := map[string]string{LogMissing: t.d.NoLog, PlaceMissed: t.d.Missed, LookFailed: facts.Fault}[word]
		switch {
		case trouble != "":
			t.step.Trouble = trouble // the gravest comes last
			word += " (" + trouble + ")"
		case word != Compared:
			word += fmt.Sprintf(" (%d)", n)
		}
		l.Why = append(l.Why, word)
	}
	if len(l.Why) > 0 {
		t.step.Journal = append(t.step.Journal, mustJSON(l))
	}
}

func (t *turn) wish(w actor.Wish, want any) {
	w.Class, w.Want = actor.Cosmetic, mustJSON(want)
	t.step.Wishes = append(t.step.Wishes, w)
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // plain data of our own
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// Words says in one sentence how a sweep stands.
func (d *Sweep) Words() string {
	var now []string
	for _, p := range d.walks() {
		now = append(now, map[path]string{
			throughLog: "reading the delivery log", throughInstalls: "listing installations",
			throughUpdated: "comparing what was updated", throughAll: "comparing everything",
		}[p])
	}
	s := "at rest"
	if len(now) > 0 {
		s = strings.Join(now, ", ")
	}
	if d.Fault.Tries > 0 {
		s += "; the forge cannot be looked at since " + d.Fault.Since.UTC().Format(time.RFC3339) + ": " + d.Fault.Why
	}
	if d.NoLog != "" {
		s += "; no delivery log: " + d.NoLog
	}
	return s
}
