package alerts

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// Kinds of wishes.
const (
	kindLog  = "log"
	kindPost = "post"
)

// Decide judges every alert and makes wishes of what has changed: one line for the log and, where there is a receiver,
// one call. A newer change of the same alert takes the place of one that was not told yet.
func (b *Behaviour) Decide(_ state.Subject, d Doc, f Facts, in actor.Inputs, now time.Time) actor.Step[Doc] {
	next := Doc{Judged: now, Up: d.Up, Standing: []Alert{}}
	if now.Sub(d.Judged) > gap {
		next.Up = now
	}
	step := actor.Step[Doc]{Wake: now.Add(every)}
	for _, m := range in.Mail {
		step.Dead = append(step.Dead, actor.DeadMail{Seq: m.Seq, Reason: "the alerts read no mail"})
	}
	for _, name := range Names() {
		var old *Alert
		if i, found := d.find(name); found {
			old = &d.Standing[i]
		}
		a, stands, known := b.judge(name, f, next.Up, now)
		switch {
		case !known:
			if old != nil {
				next.Standing = append(next.Standing, *old)
			}
		case stands && old != nil:
			a.Fired = old.Fired
			next.Standing = append(next.Standing, a)
		case stands:
			a.Fired = now
			next.Standing = append(next.Standing, a)
			b.told(&step, Notice{Fired, now, a})
		case old != nil:
			b.told(&step, Notice{Cleared, now, *old})
		}
	}
	if f.Why != "" {
		step.Why = append(step.Why, LookFailed)
		step.Journal = append(step.Journal, mustJSON(map[string]any{"at": now, "why": []string{LookFailed + ": " + f.Why}}))
	}
	step.Next = next
	return step
}

// told adds what a change is told by.
func (b *Behaviour) told(step *actor.Step[Doc], n Notice) {
	want := mustJSON(n)
	step.Wishes = append(step.Wishes, actor.Wish{Key: kindLog + "/" + n.Data.Name, Class: actor.Cosmetic, Kind: kindLog, Want: want})
	if b.post != nil {
		step.Wishes = append(step.Wishes, actor.Wish{Key: kindPost + "/" + n.Data.Name, Class: actor.Cosmetic, Kind: kindPost, Want: want})
	}
	if !slices.Contains(step.Why, n.Type) {
		step.Why = append(step.Why, n.Type)
	}
	step.Journal = append(step.Journal, mustJSON(map[string]any{
		"at": n.At, "why": []string{n.Type}, "alert": n.Data.Name, "subject": n.Data.Subject, "words": n.Data.Words,
	}))
}

// judge says whether an alert stands, or that nobody knows.
func (b *Behaviour) judge(name string, f Facts, up, now time.Time) (a Alert, stands, known bool) {
	if name == Stalled {
		return f.stalled(up, now)
	}
	i := slices.IndexFunc(b.rules, func(r rule) bool { return r.name == name })
	if i < 0 {
		return a, false, true // turned off
	}
	r := b.rules[i]
	rows, known := f.Rows[r.index], f.Rows[r.index] != nil
	before := now.Add(-r.age)
	if name == OldestWork {
		rows, known = f.runnable()
		if up.After(before) {
			return a, false, known // what waits could not be done for as long
		}
	}
	a = Alert{Name: name}
	for _, x := range rows {
		since := at(x)
		switch {
		case since.After(before):
			continue
		case r.life > 0 && now.Sub(since) >= r.life:
			continue
		case a.Count == 0:
			a.Since, a.Subject, a.Key = since, x.Subject, x.Label
		}
		a.Count++
	}
	if a.Count > 0 {
		a.Words = fmt.Sprintf("%s since %s: %s", r.words, a.Since.Format(time.RFC3339), a.Subject)
		if a.Key != "" {
			a.Words += " " + a.Key
		}
		if a.Count > 1 {
			a.Words += fmt.Sprintf(", and %d more", a.Count-1)
		}
	}
	return a, a.Count > 0, known
}

// stalled: there has been work to do for some minutes, and nothing that anybody outside would notice was done in them.
func (f Facts) stalled(up, now time.Time) (a Alert, stands, known bool) {
	rows, known := f.runnable()
	touched, read := f.Rows[actor.IndexTouched]
	if !known || !read {
		return a, false, false
	}
	last := up
	if len(touched) > 0 {
		last = later(last, time.UnixMilli(int64(-touched[0].Score)).UTC())
	}
	if now.Sub(last) < silence || len(rows) == 0 || at(rows[0]).After(now.Add(-silence)) {
		return a, false, true
	}
	return Alert{
		Name: Stalled, Since: last, Count: 1, Subject: rows[0].Subject, Key: rows[0].Label,
		Words: fmt.Sprintf("nothing was done since %s, and work is due: %s", last.Format(time.RFC3339), rows[0].Subject),
	}, true, true
}

// runnable are the rows of what waits, without those in quarantine, which have an alert of their own, and ours.
func (f Facts) runnable() ([]state.Entry, bool) {
	rows, known := f.Rows[state.OldestSince]
	shut, read := f.Rows[actor.IndexQuarantine]
	return slices.DeleteFunc(slices.Clone(rows), func(x state.Entry) bool {
		return x.Subject == Subject() || slices.ContainsFunc(shut, func(q state.Entry) bool { return q.Subject == x.Subject })
	}), known && read
}

// at is the time that a row's score tells.
func at(x state.Entry) time.Time { return time.UnixMilli(int64(x.Score)).UTC() }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // plain data of our own
	}
	return b
}
