package prmanager

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Guards that random and exhaustive lives meet too rarely, or that another guard hides there: one scene each.

func onlyKey(t *testing.T, m *sim) string {
	t.Helper()
	for key := range m.d.Triggers {
		if len(m.d.Triggers) == 1 {
			return key
		}
	}
	t.Fatalf("%d runs", len(m.d.Triggers))
	return ""
}

func TestDoc_OursNeverTrusted(t *testing.T) {
	w := newWorld()
	me := w.self.Actor.Login
	w.ids[me], w.trusted[me] = w.self.Actor.ID, true
	m := newSim(t, w)
	m.hear(w.open(me, "a1", "same"))
	mustBeShut(t, m)
}

func TestDoc_GhostNeverTrusted(t *testing.T) {
	w := newWorld()
	w.ids["nobody"], w.trusted["nobody"] = 0, true
	m := newSim(t, w)
	m.hear(w.open("ghost", "a1", "same"))
	mustBeShut(t, m)
}

// A trusted pusher does not make up for an author nobody can verify.
func TestDoc_UnknownAuthor(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.hear(w.open("bob", "a1"))
	w.down["trust bob"] = 502
	m.hear(w.push("mona", "b2"))
	mustBeShut(t, m)
}

func TestDoc_CarriedByNoBot(t *testing.T) {
	m, w := approved(t)
	w.trusted["update[bot]"] = true
	m.hear(w.push("update[bot]", "b2"))
	mustBeShut(t, m)
}

// The removal is heard between the new head and the push that would carry the grant over.
func TestDoc_RemovedBeforeCarried(t *testing.T) {
	for _, trust := range []int{0, 502} { // of who pushed, when the push is heard first
		m, w := approved(t)
		removal, update := w.setLabel("max", "CICD", false), w.push("mona", "b2")
		if trust != 0 {
			w.down["trust mona"] = trust
			m.hear(update, removal)
			w.down["trust mona"] = 0
			m.pass(10 * time.Minute)
		} else {
			m.hear(removal, update)
		}
		mustBeShut(t, m)
	}
}

// The head and the removal are found by looking; the push that would carry the grant over is heard last.
func TestDoc_RemovalFoundBeforeCarried(t *testing.T) {
	m, w := approved(t)
	w.setLabel("max", "CICD", false)
	update := w.push("mona", "b2")
	m.post(KindReconcile, Repair{Ref: w.pull.Ref})
	m.run("")
	m.hear(update)
	mustBeShut(t, m)
}

// Strict: a trusted author's pull request with an outsider's push gets nothing by a label.
func TestDoc_StrictPusher(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.policy.Strict = true
	m.hear(w.open("mona", "a1"), w.push("bob", "b2"))
	w.now = w.now.Add(time.Hour)
	m.hear(w.setLabel("mona", "CICD", true))
	mustBeShut(t, m)
	mustPass(t, m, StrictRefused)
}

// What runs by trust was pushed by somebody trusted, also where that is heard only after it runs: the head was seen before
// its push was heard of, in the base repository, where whoever pushes may write.
func TestDoc_PusherHeardLate(t *testing.T) {
	for who, open := range map[string]bool{"max": true, "bob": false} {
		w := newWorld()
		m := newSim(t, w)
		m.hear(w.open("mona", "a1", "same"))
		first := w.push("mona", "b2")
		second := w.push(who, "c3")
		m.hear(first)
		mustBeOpen(t, m)
		m.hear(second)
		if open {
			mustBeOpen(t, m)
			continue
		}
		mustBeShut(t, m)
		mustPass(t, m, UntrustedPusher)
	}
}

// A forge writes what it tells of a push when the head has moved once more: nobody knows then who moved it, and neither
// the trust in one of them nor an approval of what was there before reaches it.
func TestDoc_PusherDisputed(t *testing.T) {
	for _, start := range []func(*testing.T) (*sim, *world){approved, func(t *testing.T) (*sim, *world) {
		w := newWorld()
		m := newSim(t, w)
		m.hear(w.open("mona", "a1", "same"))
		return m, w
	}} {
		for _, how := range []string{"in order", "reversed", "together", "unverified"} {
			m, w := start(t)
			mustBeOpen(t, m)
			heard := []Note{w.push("mona", "b2"), w.push("bob", "c3")}
			heard[0].After, heard[0].Pull = heard[1].After, heard[1].Pull
			if how == "reversed" {
				slices.Reverse(heard)
			}
			if how == "together" {
				m.hear(heard...)
			} else {
				if how == "unverified" {
					w.down["trust mona"] = 502
				}
				m.hear(heard[0])
				m.hear(heard[1])
				if how == "unverified" {
					w.down["trust mona"] = 0
					m.pass(10 * time.Minute)
				}
			}
			mustBeShut(t, m)
			m.hear(heard[0])
			mustBeShut(t, m)
		}
	}
}

// An outsider pushed away and back; only the push away is heard of.
func TestDoc_AwayAndBack(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	m.hear(w.open("mona", "a1"))
	mustBeOpen(t, m)
	away := w.push("bob", "b2")
	w.push("bob", "a1")
	m.hear(w.setLabel("max", "bug", true), away)
	mustBeShut(t, m)
	mustPass(t, m, LatePush)
}

// At first contact nothing is known of the push before the label; when it is heard, the hold counts after all.
func TestDoc_HoldLearnedLate(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	w.open("bob", "a1")
	push, label := w.push("bob", "b2"), w.setLabel("mona", "CICD", true)
	m.hear(label)
	mustBeOpen(t, m)
	m.hear(push)
	mustBeShut(t, m)

	// Who pushed cannot be verified: what stands in doubt does not stand.
	m = newSim(t, newWorld())
	w = m.w
	w.open("bob", "a1")
	push, label = w.push("bob", "b2"), w.setLabel("mona", "CICD", true)
	m.hear(label)
	w.down["trust bob"] = 502
	m.hear(push)
	if m.d.Standing() != nil {
		t.Error("the grant stands on an unverified push")
	}
}

func TestDoc_FirstSightReadsLive(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	opened := w.open("bob", "a1")
	w.push("bob", "b2")
	m.hear(opened)
	if m.d.Head.SHA != sha("b2") {
		t.Errorf("head %s", m.d.Head.SHA)
	}
}

// Two states within a second, and an API that still shows the older: asked once more.
func TestDoc_SameSecond(t *testing.T) {
	w := newWorld()
	w.step = 0
	m := newSim(t, w)
	m.hear(w.open("mona", "a1"))
	lagging := w.pull
	w.lagging = &lagging
	push := w.push("bob", "b2")
	m.hear(push)
	w.lagging = nil
	m.pass(time.Minute)
	if m.d.Head.SHA != sha("b2") || m.d.Standing() != nil {
		t.Errorf("head %s, grant %v", m.d.Head.SHA, m.d.Standing())
	}
}

func TestDoc_AdoptedOnlyFromHereAndOpen(t *testing.T) {
	for _, how := range []string{"fork", "closed"} {
		w := newWorld()
		m := newSim(t, w)
		if how == "fork" {
			w.open("mona", "a1")
		} else {
			w.open("mona", "a1", "same")
			w.close("mona", false)
		}
		m.post(KindReconcile, Repair{Ref: w.pull.Ref})
		m.run("")
		if len(m.d.Grants) > 0 {
			t.Errorf("%s: granted %+v", how, m.d.Grants)
		}
	}
}

// An answer about an older wish says nothing about the newer.
func TestDoc_WrittenOfOldWish(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	w.refuse = "wait" // answers are refusals, so that nothing opens by itself
	m.hear(w.open("mona", "a1"))
	m.held = true
	key := onlyKey(t, m)
	s := m.d.Triggers[key]
	s.Stage, s.Why = Checking, ""
	m.d.Triggers[key] = s
	m.post(status.KindWritten, status.Written{Key: key, SHA: sha("a1"), Seq: s.Seq - 1, State: forge.CheckQueued, OK: true})
	m.run("")
	if got := m.d.Triggers[key].Stage; got != Checking {
		t.Errorf("stage %s", got)
	}
	told := m.d.Told[sha("a1")]
	m.post(status.KindWritten, status.Written{Key: "gate", SHA: sha("a1"), Seq: told.Seq - 1, State: forge.CheckSuccess, OK: true})
	m.run("")
	if got := m.d.Told[sha("a1")].Shown; got != "" {
		t.Errorf("shown %s", got)
	}
}

// A trigger that was still under way when its run was cancelled turns out to have started, under a receipt the pending
// cancel does not have: it is cancelled all the same.
func TestDoc_StartedAfterAll(t *testing.T) {
	m, w := approved(t)
	key := onlyKey(t, m)
	m.held = true
	m.hear(w.push("bob", "b2"))
	s := m.d.Triggers[key]
	s.Order.Receipt = forge.Receipt{}
	m.results = append(m.results, actor.Result{Key: "run/" + key, Kind: KindTrigger, Code: actor.Done, Data: encoded(forge.Receipt{ID: "other"})})
	m.held = false
	m.run("")
	mustBeShut(t, m)

	// And again after the cancel is through.
	w.runs[key].cancelled = false
	m.results = append(m.results, actor.Result{Key: "run/" + key, Kind: KindTrigger, Code: actor.Done, Data: encoded(forge.Receipt{ID: "third"})})
	m.run("")
	mustBeShut(t, m)
}

// A trigger that waits and was never attempted vanishes with its cancel: nobody is called.
func TestDoc_NeverAttempted(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	w.down["trigger"] = 429
	m.hear(w.open("mona", "a1"))
	m.hear(w.push("bob", "b2"))
	if w.calls["trigger"] == 0 || w.calls["find"]+w.calls["cancel"] > 0 || len(m.outbox) > 0 {
		t.Errorf("calls %v, outbox %v", w.calls, m.outbox)
	}
}

// The world moved and nobody told: the trigger that finds out makes us look.
func TestDoc_StaleLooks(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	w.down["trigger"] = 429
	m.hear(w.open("mona", "a1"))
	w.push("bob", "b2")
	w.down["trigger"] = 0
	m.pass(time.Minute)
	if m.d.Head.SHA != sha("b2") {
		t.Error("the document still has the old head")
	}
	mustBeShut(t, m)
}

// A removal of the label that has not happened yet is taken back by the next grant, before the gate is open again.
func TestDoc_RemovalTakenBack(t *testing.T) {
	m, w := approved(t)
	w.down["label"], w.down["trigger"] = 429, 429
	m.post(KindOrder, Order{Ref: w.pull.Ref, Revoke: true, By: "root", Reason: "x"})
	m.run("")
	m.post(KindOrder, Order{Ref: w.pull.Ref, SHA: sha("a1"), By: "root", Reason: "y"})
	m.run("")
	w.down["label"] = 0
	m.pass(time.Minute)
	if n := len(w.entries); n != 1 || !w.on {
		t.Errorf("the label moved: %+v", w.entries)
	}
	w.down["trigger"] = 0
	m.pass(time.Hour)
	if n := len(w.entries); n != 1 || m.d.Label.Wanted != "" {
		t.Errorf("the label moved: %+v", w.entries)
	}
}

// The record of a key is enough: even where the counter should have moved on, it is not triggered again.
func TestDoc_KeyIsUsedOnce(t *testing.T) {
	m, w := approved(t)
	m.post(KindOrder, Order{Ref: w.pull.Ref, Revoke: true, By: "root", Reason: "x"})
	m.run("")
	m.d.Run = 1
	m.post(KindOrder, Order{Ref: w.pull.Ref, SHA: sha("a1"), By: "root", Reason: "y"})
	m.run("")
	for _, r := range w.runs {
		if r.starts != 1 {
			t.Errorf("%s started %d times", r.run.Key, r.starts)
		}
	}
	mustPass(t, m, AlreadyRun)
}

func TestSpan(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	s := Span{At: at(50), Not: at(20)}
	for _, early := range []int64{60, 20, 10} {
		if s.shown(at(early)); !s.At.Equal(at(50)) {
			t.Fatalf("shown at %d: %+v", early, s)
		}
	}
	if s.shown(at(40)); !s.At.Equal(at(40)) {
		t.Errorf("shown earlier: %+v", s)
	}
	if s.began(at(20)) || s.Exact {
		t.Errorf("began before it was otherwise: %+v", s)
	}
	if s.began(at(45)) || !s.Exact || !s.At.Equal(at(40)) {
		t.Errorf("its own beginning, told of later: %+v", s)
	}
	if s.shown(at(30)); !s.At.Equal(at(40)) {
		t.Errorf("shown before it began: %+v", s)
	}
	if s.began(at(40)) || !s.began(at(60)) || !s.At.Equal(at(60)) {
		t.Errorf("began again: %+v", s)
	}
	if s.broke(at(55), at(70)) || !s.Not.Equal(at(55)) || !s.At.Equal(at(60)) {
		t.Errorf("broke before: %+v", s)
	}
	if !s.broke(at(65), at(70)) || !s.At.Equal(at(70)) || s.Exact || !s.Not.Equal(at(65)) {
		t.Errorf("broke since: %+v", s)
	}
	if since := (Span{}); !since.began(at(5)) || !since.At.Equal(at(5)) {
		t.Errorf("taken for granted: %+v", since)
	}
}

func TestStanding(t *testing.T) {
	ok := PR{Open: true, Head: Head{SHA: "a"}, Base: "main", Grants: []Grant{{SHA: "a", Base: "main"}}}
	if ok.Standing() == nil {
		t.Error("does not stand")
	}
	for name, change := range map[string]func(*PR){
		"closed":     func(d *PR) { d.Open = false },
		"other head": func(d *PR) { d.Head.SHA = "b" },
		"other base": func(d *PR) { d.Base = "release" },
		"ended":      func(d *PR) { d.Grants[0].Ended = time.Unix(1, 0) },
		"none":       func(d *PR) { d.Grants = nil },
	} {
		d := ok.clone()
		if change(&d); d.Standing() != nil {
			t.Errorf("%s: stands", name)
		}
	}
}

func TestRunKey(t *testing.T) {
	s := state.Subject{Instance: "github", Project: "77", Kind: "pr", Key: "7"}
	if got := RunKey(s, sha("a1"), "main", 1, "presubmit"); got != "sb1-n4prilvkur3pgeqg4wd2nw77hh" {
		t.Errorf("the key of old documents changed: %s", got)
	}
	seen := map[string]bool{}
	for _, k := range []string{
		RunKey(s, "a", "main1", 1, "x"), RunKey(s, "a", "main", 11, "x"), RunKey(s, "a1:m", "ain", 1, "x"), RunKey(s, "a", "m", 1, "ain,x"),
		RunKey(s, "a", "main", 1, "1,x"), RunKey(s, "a", "main", 1, "x"), RunKey(s, "a,", "main", 1, "x"), RunKey(s, "a", ",main", 1, "x"),
	} {
		if seen[k] || len(k) != 30 || strings.ToLower(k) != k {
			t.Errorf("key %q", k)
		}
		seen[k] = true
	}
}

// What a login or a forge's words can do to a text.
func TestTexts(t *testing.T) {
	for in, want := range map[string]string{
		"mona": "@mona", "dependabot[bot]": "@dependabot[bot]", "": "someone", "<script>": "@script", "a`b*c\nd": "@abcd", "ünï": "@n",
	} {
		if got := name(forge.Actor{Login: in}); got != want {
			t.Errorf("name(%q) = %q, want %q", in, got, want)
		}
	}
	if got := plain("<b>@all\x1b[2J `x` *y* [z](javascript:1)\n", 100); strings.ContainsAny(got, "<>@\x1b`*[]\n") {
		t.Errorf("plain: %q", got)
	}
	if got := cut("ééééé", 8); got != "éé…" {
		t.Errorf("cut: %q", got)
	}
}

func TestMail(t *testing.T) {
	w := newWorld()
	good := w.open("bob", "a1")
	s := Subject(good.Pull.Ref)
	mail := func(kind string, body any) state.Mail {
		raw, ok := body.([]byte)
		if !ok {
			raw = encoded(body)
		}
		return state.Mail{Kind: kind, Format: Format, Body: raw}
	}
	if _, err := parse(s, mail(KindPull, good)); err != nil {
		t.Fatal(err)
	}
	order := Order{Ref: good.Pull.Ref, SHA: sha("a1"), By: "root", Reason: "x"}
	if _, err := parse(s, mail(KindOrder, order)); err != nil {
		t.Fatal(err)
	}
	note := func(f func(*Note)) state.Mail {
		n := good
		f(&n)
		return mail(KindPull, n)
	}
	ordered := func(f func(*Order)) state.Mail {
		o := order
		f(&o)
		return mail(KindOrder, o)
	}
	newer := mail(KindPull, good)
	newer.Format++
	for name, m := range map[string]state.Mail{
		"newer format":      newer,
		"unknown kind":      mail("telegram", good),
		"no JSON":           mail(KindPull, []byte(`{"pull":`)),
		"empty":             mail(KindPull, []byte{}),
		"wrong shape":       mail(KindPull, []byte(`{"actions":"opened"}`)),
		"other number":      note(func(n *Note) { n.Pull.Ref.Number = 8 }),
		"other repository":  note(func(n *Note) { n.Pull.Ref.Repo.ID = 78 }),
		"short SHA":         note(func(n *Note) { n.Pull.Head.SHA = "a1" }),
		"SHA with a text":   note(func(n *Note) { n.Pull.Head.SHA = strings.Repeat("<", 40) }),
		"before is no SHA":  note(func(n *Note) { n.Before = "main" }),
		"no time":           note(func(n *Note) { n.Pull.UpdatedAt = time.Time{} }),
		"endless base":      note(func(n *Note) { n.Pull.Base.Name = strings.Repeat("x", 300) }),
		"endless labels":    note(func(n *Note) { n.Labels = make([]string, 101) }),
		"endless label":     note(func(n *Note) { n.Labels = []string{strings.Repeat("x", 2000)} }),
		"order for another": ordered(func(o *Order) { o.Ref.Number = 8 }),
		"order, short SHA":  ordered(func(o *Order) { o.SHA = "a1" }),
		"repair of another": mail(KindReconcile, Repair{}),
		"report, no JSON":   mail(KindReport, []byte("x")),
		"written, no JSON":  mail(status.KindWritten, []byte("[]")),
	} {
		if e, err := parse(s, m); err == nil {
			t.Errorf("%s: read as %v", name, e)
		}
	}
	// A deleted fork, a deleted author: ordinary.
	n := good
	n.Pull.Head.RepoID, n.Pull.Author, n.Sender = 0, forge.Actor{}, forge.Actor{}
	if _, err := parse(s, mail(KindPull, n)); err != nil {
		t.Error(err)
	}
	// Mail that cannot be read stops nothing.
	m := newSim(t, w)
	m.post(KindPull, []byte("{"))
	m.post(KindPull, good)
	m.run("")
	if m.d.Head.SHA != sha("a1") || !slices.Contains(w.story, "dead letter: "+errBody.Error()) {
		t.Errorf("story %v", w.story)
	}
}

func TestOurs(t *testing.T) {
	at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	me, other := forge.Actor{ID: 5}, forge.Actor{ID: 6}
	entry := func(added bool, after time.Duration, who forge.Actor) forge.LabelEntry {
		return forge.LabelEntry{ID: 9, Added: added, Actor: who, At: at.Add(after)}
	}
	done := []LabelWrite{{Present: true, From: at, To: at.Add(10 * time.Second)}}
	for name, c := range map[string]struct {
		app    bool
		writes []LabelWrite
		e      forge.LabelEntry
		want   bool
	}{
		"app":               {true, nil, entry(true, time.Hour, me), true},
		"app, other":        {true, done, entry(true, 0, other), false},
		"token":             {false, done, entry(true, 5*time.Second, me), true},
		"token, other":      {false, done, entry(true, 5*time.Second, other), false},
		"token, no write":   {false, nil, entry(true, 0, me), false},
		"token, other way":  {false, done, entry(false, 5*time.Second, me), false},
		"token, a minute":   {false, done, entry(true, 70*time.Second, me), true},
		"token, too late":   {false, done, entry(true, 71*time.Second, me), false},
		"token, too early":  {false, done, entry(true, -61*time.Second, me), false},
		"token, under way":  {false, []LabelWrite{{Present: true, From: at}}, entry(true, 4*time.Minute, me), true},
		"token, used up":    {false, []LabelWrite{{Present: true, From: at, To: at, Entry: 8}}, entry(true, 0, me), false},
		"token, this entry": {false, []LabelWrite{{Present: true, From: at, To: at, Entry: 9}}, entry(true, 0, me), true},
	} {
		tn := &turn{d: PR{Label: LabelState{Writes: slices.Clone(c.writes)}}, f: Facts{Self: Self{Actor: me, App: c.app}}, now: at.Add(5 * time.Minute)}
		if got := tn.ours(c.e); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestEarly(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	bob, mona, eve := forge.Actor{ID: 1, Login: "bob"}, forge.Actor{ID: 2, Login: "mona"}, forge.Actor{ID: 3, Login: "eve"}
	for name, c := range map[string]struct {
		d    PR
		past bool
		want verdict // for a label at 100 with a hold of 30
	}{
		"nothing known":             {d: PR{}, want: inTime},
		"head came before":          {d: PR{Head: Head{Span: Span{At: at(90), Exact: true}}}, want: inTime},
		"head came with it":         {d: PR{Head: Head{Span: Span{At: at(100), Exact: true}}}, want: inTime},
		"head came after":           {d: PR{Head: Head{Span: Span{At: at(101), Exact: true}}}, want: tooEarly},
		"head came, seen later":     {d: PR{Head: Head{Span: Span{At: at(101)}}}, want: undecided},
		"… asked of a grant":        {d: PR{Head: Head{Span: Span{At: at(101)}}}, past: true, want: tooEarly},
		"other head then":           {d: PR{Head: Head{Span: Span{At: at(120), Not: at(100)}}}, want: tooEarly},
		"the first head":            {d: PR{Head: Head{First: true, Span: Span{At: at(120)}}}, want: inTime},
		"base changed after":        {d: PR{BaseSpan: Span{At: at(101), Exact: true}}, want: tooEarly},
		"reopened after":            {d: PR{OpenSpan: Span{At: at(101), Exact: true}}, want: tooEarly},
		"closed then":               {d: PR{OpenSpan: Span{At: at(101), Not: at(100)}}, want: tooEarly},
		"untrusted push in hold":    {d: PR{Pushes: []Push{{At: at(71), By: bob, Known: true}}}, want: tooEarly},
		"untrusted push, held long": {d: PR{Pushes: []Push{{At: at(70), By: bob, Known: true}}}, want: inTime},
		"untrusted push after":      {d: PR{Pushes: []Push{{At: at(500), By: bob, Known: true}}}, want: tooEarly},
		"trusted push":              {d: PR{Pushes: []Push{{At: at(99), By: mona, Known: true}}}, want: inTime},
		"trusted after untrusted":   {d: PR{Pushes: []Push{{At: at(80), By: bob, Known: true}, {At: at(90), By: mona, Known: true}}}, want: tooEarly},
		"who cannot be verified":    {d: PR{Pushes: []Push{{At: at(99), By: eve, Known: true}}}, want: undecided},
		"… asked of a grant.":       {d: PR{Pushes: []Push{{At: at(99), By: eve, Known: true}}}, past: true, want: tooEarly},
		"push not heard of":         {d: PR{Pushes: []Push{{At: at(99)}}}, want: undecided},
		"… waited for long enough": {d: PR{Pushes: []Push{{At: at(99)}}, Questions: []Question{{
			Ask: Ask{Kind: AskDelivery}, Since: at(100),
		}}}, want: tooEarly},
	} {
		tn := &turn{d: c.d, now: at(100).Add(deliveryWait), f: Facts{
			Policy: Policy{Hold: 30 * time.Second, Trust: []forge.Rule{{Kind: "permission", Value: "write"}}},
			Trusts: map[string]Fact[bool]{
				Ask{Kind: AskTrust, List: Trust, Who: bob}.key():  {Known: true},
				Ask{Kind: AskTrust, List: Trust, Who: mona}.key(): {Known: true, Value: true},
			},
		}}
		if got := tn.early(at(100), c.past); got.verdict != c.want {
			t.Errorf("%s: %+v, want %d", name, got, c.want)
		}
	}
}

func TestDo(t *testing.T) {
	w := newWorld()
	w.open("mona", "a1")
	m := newSim(t, w)
	run := forge.Run{Key: "sb1-x", Ref: w.pull.Ref, SHA: sha("a1"), BaseSHA: sha("ba5e"), Presubmit: "presubmit"}
	order := RunOrder{Trigger: "ci", Base: "main", Run: run}
	entry := func(kind string, want any) actor.Entry {
		return actor.Entry{Wish: actor.Wish{Key: "run/sb1-x", Kind: kind, Want: encoded(want)}, Born: w.now}
	}
	start, stop := entry(KindTrigger, order), entry(KindCancel, order)
	on := entry(KindLabel, labelOrder{Ref: w.pull.Ref, Label: "CICD", Present: true})
	off := entry(KindLabel, labelOrder{Ref: w.pull.Ref, Label: "CICD"})
	unsure := func(e actor.Entry, ago time.Duration) actor.Entry {
		e.Unsure, e.Born = w.now.Add(-ago), w.now.Add(-ago)
		return e
	}
	moved := func(f func(*forge.Pull)) func(*world) {
		return func(w *world) { f(&w.pull) }
	}
	for name, c := range map[string]struct {
		e      actor.Entry
		world  func(*world)
		no     bool // confirm refuses
		want   actor.Code
		starts int // "trigger" calls
		after  time.Duration
	}{
		"starts":             {e: start, want: actor.Done, starts: 1},
		"head moved":         {e: start, world: moved(func(p *forge.Pull) { p.Head.SHA = sha("b2") }), want: actor.Stale},
		"closed":             {e: start, world: moved(func(p *forge.Pull) { p.Open = false }), want: actor.Stale},
		"base moved":         {e: start, world: moved(func(p *forge.Pull) { p.Base.Name = "release" }), want: actor.Stale},
		"refused to confirm": {e: start, no: true, want: actor.Stale},
		"live unknown":       {e: start, world: func(w *world) { w.down["live"] = 502 }, want: actor.Failed},
		"busy":               {e: start, world: func(w *world) { w.down["trigger"] = 429 }, want: actor.Contention, starts: 1},
		"credential":         {e: start, world: func(w *world) { w.down["trigger"] = 401 }, want: actor.AuthPause, starts: 1},
		"refused":            {e: start, world: func(w *world) { w.down["trigger"] = 404 }, want: actor.Refused, starts: 1},
		"fails":              {e: start, world: func(w *world) { w.down["trigger"] = 503 }, want: actor.Failed, starts: 1},
		"unsure, it runs":    {e: unsure(start, time.Second), world: func(w *world) { w.runs["sb1-x"] = &ran{run: run, starts: 1} }, want: actor.Done},
		"unsure, not yet":    {e: unsure(start, 29*time.Second), want: actor.Settling, after: time.Second},
		"unsure, never left": {e: unsure(start, 30*time.Second), want: actor.Done, starts: 1},
		"cancels":            {e: stop, world: func(w *world) { w.runs["sb1-x"] = &ran{run: run, starts: 1} }, want: actor.Done},
		"nothing to cancel?": {e: stop, want: actor.Settling, after: 5 * time.Second},
		"nothing to cancel":  {e: unsure(stop, 30*time.Second), want: actor.Done},
		"label":              {e: on, want: actor.Done},
		"label, unconfirmed": {e: on, no: true, want: actor.Stale},
		"unlabel":            {e: off, no: true, want: actor.Done}, // shutting asks nobody
		"no such trigger":    {e: entry(KindTrigger, RunOrder{Trigger: "gone"}), want: actor.Refused},
		"no such kind":       {e: entry("dance", order), want: actor.Refused},
		"unreadable":         {e: entry(KindTrigger, "x"), want: actor.Refused},
		"unreadable label":   {e: entry(KindLabel, "x"), want: actor.Refused},
	} {
		saved := w.pull
		w.down, w.runs, w.calls = map[string]int{}, map[string]*ran{}, map[string]int{}
		if c.world != nil {
			c.world(w)
		}
		got := m.b.Do(t.Context(), m.s, c.e, w.now, func(context.Context) error {
			if c.no {
				return errors.New("mail came")
			}
			return nil
		})
		if got.Code != c.want || got.After != c.after || w.calls["trigger"] != c.starts || (got.Err == nil) != (got.Code == actor.Done) {
			t.Errorf("%s: %+v after %d starts, want %s", name, got, w.calls["trigger"], c.want)
		}
		w.pull = saved
	}
}

// The calls that a life costs. Each effect's end, each told-back check costs none.
func TestBudget(t *testing.T) {
	w := newWorld()
	m := newSim(t, w)
	for _, c := range []struct {
		what string
		note func() Note
		want string
	}{
		{"opened", func() Note { return w.open("bob", "a1") }, "live 1 trust 1"},
		{"labelled by a maintainer", func() Note { return w.setLabel("mona", "CICD", true) }, "history 1 live 2 trigger 1 trust 1"},
		{"another label", func() Note { return w.setLabel("mona", "bug", true) }, ""},
		{"pushed", func() Note { return w.push("bob", "b2") }, "cancel 1 label 1 trust 1"},
		{"labelled by the outsider", func() Note { return w.setLabel("bob", "CICD", true) }, "history 1 label 1 trust 1"},
		{"closed", func() Note { return w.close("bob", false) }, ""},
	} {
		clear(w.calls)
		n := c.note()
		m.hear(n)
		var got []string
		for _, op := range []string{"cancel", "find", "history", "label", "live", "trigger", "trust"} {
			if w.calls[op] > 0 {
				got = append(got, op+" "+string(rune('0'+w.calls[op])))
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s: %q, want %q", c.what, s, c.want)
		}
	}
}
