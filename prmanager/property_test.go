package prmanager

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

// TestProperties lives random lives: people do anything, deliveries are late, doubled, reordered or lost, the API lags
// and fails, effects fail or lose their answers. After every decision the invariants of deciding hold; in the end, when
// everything works again and one reconcile has been through, the world is as the ledger says. The test fails if a
// reason was never visited, since then it shows nothing about it.
func TestProperties(t *testing.T) {
	var mu sync.Mutex
	visited := map[string]int{}
	for range 12 { // times 100 lives, so that the rare reasons come up too
		rapid.Check(t, func(rt *rapid.T) {
			l := newLife(rt)
			for range rapid.IntRange(1, 40).Draw(rt, "length") {
				l.act()
			}
			l.end()
			mu.Lock()
			defer mu.Unlock()
			for r := range l.m.why {
				visited[r]++
			}
		})
	}
	for _, r := range reasons(t) {
		if strings.HasPrefix(r, "Group_") {
			continue // of merge groups
		}
		t.Logf("%-20s %d", r, visited[r])
		if visited[r] == 0 && !t.Failed() {
			t.Errorf("%s was never visited", r)
		}
	}
}

type life struct {
	rt    *rapid.T
	m     *sim
	w     *world
	notes []Note // told by the world, delivered or not
	next  int    // first not delivered
	said  []Comment
	heard int64
}

func newLife(rt *rapid.T) *life {
	w := newWorld()
	m := newSim(rt, w)
	l := &life{rt: rt, m: m, w: w}
	l.m.policy.Hold = rapid.SampledFrom([]time.Duration{0, 15 * time.Second, 2 * time.Minute}).Draw(rt, "hold")
	l.m.policy.Strict = rapid.IntRange(0, 5).Draw(rt, "strict") == 0
	switch rapid.IntRange(0, 4).Draw(rt, "policy") {
	case 0:
		m.policy.Auto = nil
	case 1:
		m.policy.Trust = []forge.Rule{{Kind: "user", Value: "mona"}, {Kind: "app", Value: "helper"}}
	case 2, 3:
		m.policy.Presubmits = []Presubmit{presubmit("unit*"), presubmit("native!"), presubmit("http?")}
	}
	if rapid.IntRange(0, 4).Draw(rt, "bare") == 0 {
		m.policy.Presubmits = nil
	}
	m.policy.DryRun = rapid.IntRange(0, 9).Draw(rt, "dry") == 0
	if rapid.Bool().Draw(rt, "token") {
		w.self = Self{Actor: w.actor("max")}
	}
	w.step = rapid.SampledFrom([]time.Duration{0, time.Second, 10 * time.Second, 3 * time.Minute}).Draw(rt, "step")
	m.after = l.check
	var how []string
	for _, h := range []string{"same", "draft"} {
		if rapid.IntRange(0, 3).Draw(rt, h) == 0 {
			how = append(how, h)
		}
	}
	l.told(w.open(l.who("author"), "a1", how...))
	return l
}

// who draws a person. Some choose their names to hurt.
func (l *life) who(label string) string {
	return rapid.SampledFrom([]string{"mona", "max", "bob", "eve", "ghost", "<img/src=x>", "helper[bot]"}).Draw(l.rt, label)
}

func (l *life) who2() forge.Actor { return l.w.actor(l.who("presser")) }

func (l *life) told(n Note) { l.notes = append(l.notes, n) }

// act lets one thing happen.
func (l *life) act() {
	w, m, rt := l.w, l.m, l.rt
	switch rapid.SampledFrom([]string{
		"push", "push", "label", "label", "label", "unlabel", "draft", "close", "reopen", "base", "assign", "flap",
		"deliver", "deliver", "deliver", "deliver", "deliver", "again", "lose", "late", "batch",
		"wait", "wait", "days", "months", "fault", "mend", "mend", "lag", "answer lost", "refuse", "approve", "revoke", "reconcile", "report", "again after the result", "approved", "approved", "refused", "updated", "paused", "demote",
		"comment", "comment", "comment", "press", "retest", "native", "native", "attempt", "became", "silence", "amid", "amid", "told",
	}).Draw(rt, "act") {
	case "push":
		// A few commits only, so that heads come back.
		l.told(w.push(l.who("pusher"), rapid.SampledFrom([]string{"a1", "b2", "c3"}).Draw(rt, "head")))
	case "label":
		if !w.on {
			l.told(w.setLabel(l.who("labeller"), w.label, true))
		}
	case "unlabel":
		if w.on {
			l.told(w.setLabel(l.who("unlabeller"), w.label, false))
		}
	case "flap":
		for range 7 {
			if !w.on {
				m.hear(w.setLabel("bob", w.label, true))
			}
		}
	case "draft":
		l.told(w.draft(l.who("drafter"), !w.pull.Draft))
	case "close":
		if w.pull.Open {
			l.told(w.close(l.who("closer"), rapid.IntRange(0, 3).Draw(rt, "merge") == 0))
		}
	case "reopen":
		if !w.pull.Open && !w.pull.Merged {
			l.told(w.reopen(l.who("reopener")))
		}
	case "base":
		l.told(w.base(l.who("mover"), rapid.SampledFrom([]string{"main", "release"}).Draw(rt, "base")))
	case "assign":
		l.told(w.note("bob", "assigned"))
	case "deliver":
		l.deliver()
	case "again":
		if l.next > 0 {
			m.hear(l.notes[rapid.IntRange(0, l.next-1).Draw(rt, "which")])
		}
	case "lose":
		if l.next < len(l.notes) {
			l.next++
		}
	case "late": // the newest before the others
		if n := len(l.notes); l.next < n-1 {
			l.notes[l.next], l.notes[n-1] = l.notes[n-1], l.notes[l.next]
			l.deliver()
		}
	case "batch":
		for ; l.next < len(l.notes); l.next++ {
			m.post(KindPull, l.notes[l.next])
		}
		m.run("")
	case "wait":
		m.pass(rapid.SampledFrom([]time.Duration{time.Second, 40 * time.Second, 5 * time.Minute, 2 * time.Hour}).Draw(rt, "time"))
	case "days":
		w.down["history"] = 500
		if !w.on {
			m.hear(w.setLabel("mona", w.label, true))
		}
		m.pass(75 * time.Hour)
	case "months": // closed for so long that nothing is left of it, nor any delivery under way
		m.hear(l.notes[l.next:]...)
		if w.pull.Open {
			m.hear(w.close("mona", false))
		}
		m.pass(kept + time.Hour)
		l.notes, l.next, l.said = nil, 0, nil
		for _, r := range w.runs {
			r.cancelled = true // whatever it was, it is over
		}
	case "fault":
		part := rapid.SampledFrom([]string{"live", "history", "trust", "trust mona", "label", "trigger", "cancel", "comment", "state"}).Draw(rt, "part")
		w.down[part] = rapid.SampledFrom([]int{404, 500, 502}).Draw(rt, "code")
	case "mend":
		clear(w.down)
		w.lagging, w.refuse = nil, ""
	case "lag":
		p := w.pull
		w.lagging = &p
	case "answer lost":
		m.lose = true
	case "refuse":
		w.refuse = "too many checks"
	case "approve":
		m.post(KindOrder, Order{Ref: w.pull.Ref, SHA: rapid.SampledFrom([]string{sha("a1"), sha("b2"), w.pull.Head.SHA}).Draw(rt, "sha"), By: "root@host", Reason: "\x1b[31m"})
		m.run("")
	case "revoke":
		m.post(KindOrder, Order{Ref: w.pull.Ref, Revoke: true, By: "root", Reason: "wrong"})
		m.run("")
	case "reconcile":
		m.post(KindReconcile, Repair{Ref: w.pull.Ref, Why: "sweep"})
		m.run("")
	case "report":
		for _, k := range keys(m.d.Triggers) {
			m.post(KindReport, Report{Key: k, State: rapid.SampledFrom([]forge.CheckState{forge.CheckRunning, forge.CheckSuccess, forge.CheckFailure, "skipped"}).Draw(rt, "result"), Jobs: l.jobs()})
		}
		m.run("")
	case "again after the result":
		l.approved()
		for _, k := range keys(m.d.Triggers) {
			m.post(KindReport, Report{Key: k, State: forge.CheckSuccess})
		}
		if m.run(""); w.on {
			m.hear(w.setLabel("max", w.label, false), w.setLabel("mona", w.label, true))
		}
	case "comment":
		text := rapid.SampledFrom([]string{"/ok-to-test SHA:a1", "/ok-to-test SHA:b2", "/ok-to-test", "/ok-to-test cancel", "/retest", "/ok-to-test SHA:b2|/retest"}).Draw(rt, "text")
		c := w.comment(l.who("commenter"), text)
		if rapid.Bool().Draw(rt, "kept") {
			l.said = append(l.said, c)
			return
		}
		for _, c := range append(l.said, c, c) { // late, and twice
			m.post(KindComment, c)
			m.run("")
		}
		l.said = nil
	case "press":
		w.tick()
		for _, k := range append(keys(m.d.Triggers), "sb1-nobody") {
			s := m.d.Triggers[k].Order.Run.SHA
			if s == "" {
				s = w.pull.Head.SHA
			}
			m.post(status.KindPressed, status.Pressed{
				SHA: s, Key: k, By: l.who2(), At: rapid.SampledFrom([]time.Time{{}, w.now}).Draw(rt, "pressed at"), Others: rapid.IntRange(0, 4).Draw(rt, "others") / 4,
				What: rapid.SampledFrom([]string{status.PressedApprove, status.PressedRerun, status.PressedRecheck, "x"}).Draw(rt, "what"),
			})
			m.run("")
		}
	case "retest":
		l.approved()
		for range 4 {
			m.post(KindComment, w.comment(w.pull.Author.Login, "/retest"))
			m.run("")
		}
	case "native":
		if rapid.Bool().Draw(rt, "after approval") {
			l.approved()
		}
		for _, s := range []string{sha("a1"), sha("b2"), w.pull.Head.SHA} {
			w.tick()
			n := status.Native{SHA: s, RunID: rapid.Int64Range(1, 3).Draw(rt, "run"), HeadRepoID: w.pull.Head.RepoID, At: w.now, Attempt: rapid.IntRange(0, 2).Draw(rt, "attempt"), Status: "completed"}
			switch n.Conclusion = rapid.SampledFrom([]string{"", "action_required", "success", "failure", "skipped", "cancelled"}).Draw(rt, "conclusion"); n.Conclusion {
			case "":
				n.Status = "in_progress"
			case "cancelled":
				n.HeadRepoID++
			}
			m.post(status.KindNative, n)
		}
		m.run("")
	case "attempt":
		for _, k := range keys(m.d.Triggers) {
			m.post(KindReport, Report{
				Key: k, Attempt: rapid.IntRange(0, 3).Draw(rt, "attempt"), RunID: rapid.SampledFrom([]string{"", k, "7"}).Draw(rt, "id"),
				State: rapid.SampledFrom([]forge.CheckState{forge.CheckQueued, forge.CheckRunning, forge.CheckSuccess, forge.CheckCancelled}).Draw(rt, "state"),
			})
		}
		m.run("")
	case "told":
		l.heard++
		for _, k := range append(keys(m.d.Triggers), "sb1-nobody") {
			m.post(status.KindReported, status.Reported{
				Key: k, SHA: w.pull.Head.SHA, Seq: l.heard - rapid.Int64Range(0, 1).Draw(rt, "late"), Description: "<b>@everyone",
				State: rapid.SampledFrom([]forge.CheckState{forge.CheckQueued, forge.CheckRunning, forge.CheckSuccess, forge.CheckFailure}).Draw(rt, "state"),
			})
		}
		m.run("")
	case "became":
		for _, k := range keys(m.d.Triggers) {
			w.after[k] = RunState{State: rapid.SampledFrom([]forge.CheckState{"", forge.CheckRunning, forge.CheckActionRequired, forge.CheckFailure}).Draw(rt, "state"), Attempt: 1}
		}
		m.post(KindReconcile, Repair{Ref: w.pull.Ref, Why: "sweep"})
		m.run("")
	case "amid": // right before the forge answers the next read of a kind
		read := rapid.SampledFrom([]string{"live", "history", "trust"}).Draw(rt, "read")
		verb := rapid.SampledFrom([]func() Note{
			func() Note { return w.push("bob", "c3") },
			func() Note { return w.setLabel("mona", w.label, !w.on) },
			func() Note { return w.base("mona", "release") },
		}).Draw(rt, "verb")
		w.amid = func(op string) {
			if op == read {
				w.amid = nil
				l.told(verb())
			}
		}
	case "silence":
		w.mute = !w.mute
	case "approved":
		l.approved()
	case "refused":
		w.down["trigger"] = 404
		l.approved()
	case "paused":
		if w.on {
			m.hear(w.setLabel("max", w.label, false), w.push(w.pull.Author.Login, "e5"))
		}
	case "updated":
		l.approved()
		m.hear(w.push("mona", "d4"))
	case "demote":
		w.trusted["mona"] = !w.trusted["mona"]
	}
}

// jobs draws what a CI side may tell of jobs.
func (l *life) jobs() (out []Job) {
	for range rapid.IntRange(0, 3).Draw(l.rt, "jobs") * rapid.SampledFrom([]int{1, 1, 1, 50}).Draw(l.rt, "times") {
		out = append(out, Job{
			Name:    rapid.SampledFrom([]string{"", "unit", "lint", "<b>@everyone</b>", strings.Repeat("x", 300)}).Draw(l.rt, "job") + strings.Repeat("i", len(out)/4),
			State:   rapid.SampledFrom([]forge.CheckState{forge.CheckQueued, forge.CheckRunning, forge.CheckSuccess, forge.CheckFailure, "neutral"}).Draw(l.rt, "state"),
			Attempt: rapid.IntRange(0, 2).Draw(l.rt, "task"), Note: rapid.SampledFrom([]string{"", "\x1b[31m"}).Draw(l.rt, "note"),
		})
	}
	return out
}

// approved: a maintainer waits until all is quiet and labels.
func (l *life) approved() {
	l.w.now = l.w.now.Add(5 * time.Minute)
	for l.next < len(l.notes) {
		l.deliver()
	}
	if !l.w.on {
		l.m.hear(l.w.setLabel("mona", l.w.label, true))
	}
}

func (l *life) deliver() {
	if l.next < len(l.notes) {
		l.next++
		l.m.hear(l.notes[l.next-1])
	}
}

// check is what holds after every single decision.
func (l *life) check(in actor.Inputs, before PR, f Facts, step actor.Step[PR]) {
	d, rt := step.Next, l.rt
	g := d.Standing()
	answered := map[string]int64{}
	for _, w := range step.Wishes {
		switch w.Kind {
		case KindTrigger:
			var o RunOrder
			_ = json.Unmarshal(w.Want, &o)
			s, ok := d.Triggers[o.Run.Key]
			if g == nil || !ok || !s.Asked || o.Run.SHA != g.SHA || o.Base != g.Base || o.Run.SHA != d.Head.SHA {
				rt.Fatalf("a trigger without grant or record: %+v, grant %+v", o, g)
			}
			if old, was := before.Triggers[o.Run.Key]; was && old.Asked && !s.Native {
				rt.Fatalf("triggered again: %s", o.Run.Key)
			}
			if o.Run.Ref != d.Ref || strings.ContainsAny(fmt.Sprint(o.Run.Key, o.Run.SHA, o.Run.BaseSHA), "<>@ ") {
				rt.Fatalf("a run carries too much: %+v", o.Run)
			}
		case KindLabel:
			var o labelOrder
			_ = json.Unmarshal(w.Want, &o)
			if o.Present && (g == nil || g.Channel == ByBeing) {
				rt.Fatalf("a label without grant")
			}
		case status.KindPresubmit:
			var told status.Presubmit
			_ = json.Unmarshal(w.Want, &told)
			answered[told.Key] = told.Heard
			s, names := d.Triggers[told.Key], map[string]bool{}
			for _, j := range told.Jobs {
				if names[j.Name] || j.Name == "" || len(told.Jobs) > jobsKept || strings.ContainsAny(j.Name+j.Title+told.Title, "<>@\x1b`*") {
					rt.Fatalf("jobs are told that are no jobs: %q", told.Jobs)
				}
				if names[j.Name] = true; told.State.Completed() && !j.State.Completed() || s.gone() && !s.done() && j.State != forge.CheckCancelled && !j.State.Completed() {
					rt.Fatalf("%s is %s, and its job %s: %+v", told.Key, told.State, j.State, s)
				}
			}
		case status.KindGate:
			var told status.Gate
			_ = json.Unmarshal(w.Want, &told)
			if told.Granted && (g == nil || told.SHA != g.SHA || !told.Open || !d.Passing()) {
				rt.Fatalf("told a grant that does not stand: %+v", told)
			}
			if (w.Class == actor.Permitting) != told.Granted {
				rt.Fatalf("gate %+v is told as %s", told, w.Class)
			}
			if len(told.Title) > 140 || strings.ContainsAny(told.Title+told.Summary, "<>\x1b`*") {
				rt.Fatalf("text is not safe: %q", told.Title)
			}
		}
	}
	for k, s := range d.Triggers {
		if s.Heard > before.Triggers[k].Heard && answered[k] != s.Heard && !s.Native {
			rt.Fatalf("%s was told number %d and answers nothing", k, s.Heard)
		}
	}
	for k, s := range d.Triggers { // I1
		if !s.gone() && !s.done() && (g == nil || s.Order.Run.SHA != g.SHA || s.Base != g.Base) {
			rt.Fatalf("run %s goes on without a grant: %+v", k, s)
		}
	}
	for k, s := range d.Triggers {
		if was := before.Triggers[k]; len(s.Jobs) > 0 && (s.Order.Run.SHA != d.Head.SHA || s.gone()) || len(s.Jobs) > jobsKept {
			rt.Fatalf("%s keeps %d jobs, %+v", k, len(s.Jobs), was)
		}
	}
	for commit, told := range d.Told { // I5
		if told.Granted && (g == nil || commit != d.Head.SHA) {
			rt.Fatalf("%s is told to be open, grant %+v", commit, g)
		}
	}
	if d.Seq < before.Seq || d.Run < before.Run || before.Run > 0 && d.Run > before.Run+1 && !before.Dry {
		rt.Fatalf("counters: seq %d to %d, run %d to %d", before.Seq, d.Seq, before.Run, d.Run)
	}
	if g != nil && (before.Standing() == nil || before.Standing().At != g.At || before.Standing().SHA != g.SHA || before.Standing().Channel != g.Channel) {
		l.checkGrant(f, *g)
	}
	if standing := slices.IndexFunc(d.Grants[:max(len(d.Grants)-1, 0)], func(g Grant) bool { return g.Ended.IsZero() }); standing >= 0 {
		rt.Fatalf("two grants stand: %+v", d.Grants)
	}
	stale := slices.ContainsFunc(in.Results, func(r actor.Result) bool { return r.Code == actor.Stale })
	if len(in.Results) > 0 && len(in.Mail) == 0 && !stale && len(f.Trusts) > 0 && !before.Dry && len(before.Questions) == 0 && !before.AutoDue {
		rt.Fatalf("an effect's end made us look: %s %s, before %s", in.Results[0].Key, in.Results[0].Code, encoded(before))
	}
}

// checkGrant: a grant was made for the live head, by somebody whom the forge trusts now.
func (l *life) checkGrant(f Facts, g Grant) {
	live := f.Live.Value
	if !f.Live.Known || !live.Open || live.Head.SHA != g.SHA || live.Base.Name != g.Base {
		l.rt.Fatalf("granted without a fresh look: %+v, live %+v", g, f.Live)
	}
	trusted := func(who forge.Actor) bool {
		for _, known := range f.Trusts {
			if known.Value && known.Known {
				return who.ID != 0 && (who.ID == l.w.ids["mona"] || who.ID == l.w.ids["max"] || who.ID == l.w.ids["helper[bot]"])
			}
		}
		return false
	}
	if g.Channel != ByCli && !trusted(g.By) {
		l.rt.Fatalf("granted by somebody not trusted: %+v", g)
	}
	if g.Channel == ByLabel && g.By.ID == l.w.self.Actor.ID && l.w.self.App {
		l.rt.Fatalf("granted by our own label")
	}
}

// end mends everything, lets one reconcile through, and compares.
func (l *life) end() {
	w, m, rt := l.w, l.m, l.rt
	if m.policy.DryRun {
		for _, write := range []string{"label", "trigger", "cancel", "comment"} {
			if n := w.calls[write]; n > 0 {
				rt.Fatalf("a dry run wrote: %s %d times", write, n)
			}
		}
		if len(w.gates)+len(w.checks) > 0 && slices.ContainsFunc(slices.Collect(maps.Values(w.gates)), func(g status.Gate) bool { return g.Seq > 0 }) {
			rt.Fatalf("a dry run wrote checks")
		}
		m.policy.DryRun = false
	}
	clear(w.after)
	clear(w.down)
	w.lagging, w.refuse, w.amid, m.lose = nil, "", nil, false
	w.now = w.now.Add(time.Second)
	m.pass(8 * time.Hour)
	m.post(KindReconcile, Repair{Ref: w.pull.Ref, Why: "the end"})
	m.run("")
	m.pass(8 * time.Hour)

	d, g := &m.d, m.d.Standing()
	var wrong []string
	say := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if d.Head.SHA != w.pull.Head.SHA || d.Open != w.pull.Open || d.Base != w.pull.Base.Name || d.Merged != w.pull.Merged {
		say("the document is behind: %+v", *d)
	}
	shown := w.gate(d.Head.SHA)
	if (shown == forge.CheckSuccess) != d.Passing() { // I2
		say("gate %s, passing %t", shown, d.Passing())
	}
	for commit := range w.gates { // I5
		if commit != d.Head.SHA && w.gate(commit) != "" && w.gate(commit) != forge.CheckCancelled && w.gate(commit) != "left" {
			say("gate %s on the former head %s", w.gate(commit), commit[:2])
		}
	}
	for k, r := range w.runs { // I1, and once
		s := d.Triggers[k]
		if r.starts > 1 && s.Order.Trigger != "blind" {
			say("%s started %d times", k, r.starts)
		}
		over := r.native && slices.ContainsFunc(slices.Collect(maps.Values(d.Triggers)), func(o Started) bool {
			return o.Native && o.done() && o.Order.Run.SHA == r.run.SHA // told to have ended, whichever key it is under
		})
		if !r.cancelled && !over && !s.done() && (g == nil || r.run.SHA != g.SHA || s.Base != g.Base) {
			say("%s runs for nobody", k)
		}
	}
	if g != nil && g.Channel != ByBeing { // I4
		for _, p := range m.policy.Presubmits {
			if !slices.ContainsFunc(d.current(), func(s Started) bool { return s.Order.Run.Presubmit == p.Name && s.Stage != Checking && s.Stage != Sent }) {
				say("%s was not triggered", p.Name)
			}
		}
	}
	if !d.Merged && !d.Label.Alone && (g == nil || g.Channel != ByBeing) && (g == nil || d.Passing()) && w.on != (g != nil) && (d.Open || d.Label.On != "") { // I3
		say("label %t, grant %v", w.on, g)
	}
	if len(d.Questions) > 0 || len(m.outbox) > 0 {
		say("left over: %+v %+v", d.Questions, m.outbox)
	}
	if wrong != nil {
		rt.Fatalf("%s\n%s", strings.Join(wrong, "\n"), strings.Join(w.story[max(0, len(w.story)-60):], "\n"))
	}
}
