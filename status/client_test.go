package status

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
)

// begin creates a run and fails the test if it cannot.
func (l *loop) begin(t *testing.T, r Create) Accepted {
	t.Helper()
	a, err := l.create(r)
	if err != nil {
		t.Fatalf("create %+v: %v", r, err)
	}
	return a
}

func (l *loop) says(t *testing.T, run string, r Update) Accepted {
	t.Helper()
	a, err := l.update(run, r)
	if err != nil {
		t.Fatalf("update %+v: %v", r, err)
	}
	return a
}

func (l *loop) call(t *testing.T, r Create) Accepted {
	t.Helper()
	a, err := l.post(r)
	if err != nil {
		t.Fatalf("post %+v: %v", r, err)
	}
	return a
}

// ends holds how an operation ended: "delivered", "superseded newer_attempt", …
func (l *loop) ends(t *testing.T, a Accepted, want string) *Operation {
	t.Helper()
	o := l.operation(a.Operation.ID)
	if o == nil {
		t.Fatalf("%s is gone, want %q", a.Operation.ID, want)
	}
	if got := strings.TrimSpace(string(o.State) + " " + o.Reason); got != want {
		t.Errorf("%v of %s is %q, want %q", o.Order, o.RunID, got, want)
	}
	return o
}

// refuses holds the code of a refusal.
func refuses(t *testing.T, err error, want Code) (r Refusal) {
	t.Helper()
	var got *Refusal
	if !errors.As(err, &got) || got.Code != want {
		t.Errorf("got %v, want %s", err, want)
		return r
	}
	return *got
}

// shows holds what the forge shows, and how often it was written to.
func (l *loop) shows(t *testing.T, context string, s forge.StatusState, calls int) {
	t.Helper()
	l.rest()
	if is, _ := l.hub.shown(context, ""); is.State != s || l.hub.calls != calls {
		t.Errorf("%s shows %q after %d calls, want %q after %d", context, is.State, l.hub.calls, s, calls)
	}
}

func TestClientLife(t *testing.T) {
	l := newLoop(t)
	cover := 81.5
	a := l.begin(t, Create{Context: "ci/build", Ref: "main", ExternalID: "job-1", PipelineID: 5, Content: Content{
		State: forge.StatusPending, TargetURL: "https://ci.example/1", Description: "waiting", Coverage: &cover,
	}})
	if o := a.Operation; o.State != OpAccepted || o.Order != (Order{1, 1}) || o.RunID != a.Run.ID || !o.AcceptedAt.Equal(start) || o.Effective != forge.StatusPending {
		t.Errorf("accepted %+v", o)
	}
	if s, ok := OperationAt("github", a.Operation.ID); !ok || s != subject {
		t.Errorf("%s is of %s, %t", a.Operation.ID, s, ok)
	}
	l.ends(t, a, "accepted")
	l.step() // claimed and wished for
	l.ends(t, a, "accepted")
	l.rest()
	o := l.ends(t, a, "delivered")
	if !o.DeliveredAt.Equal(start) || o.ForgeRef == nil || *o.ForgeRef != (ForgeRef{"1", 77}) {
		t.Errorf("delivered %+v", o)
	}
	s := l.hub.landed[0]
	if s.Repo != repo || s.SHA != sha || s.Ref != "main" || s.Context != "ci/build" || s.Description != "waiting" || s.TargetURL != "https://ci.example/1" ||
		*s.Coverage != cover || s.Run != a.Run.ID || !s.New || s.ID != "" || s.PipelineID != 5 {
		t.Errorf("written %+v", s)
	}
	// What an update leaves out stays.
	b := l.says(t, a.Run.ID, Update{Content: said(forge.StatusSuccess, "all well")})
	if b.Operation.Order != (Order{1, 2}) || b.Operation.TargetURL != "https://ci.example/1" {
		t.Errorf("accepted %+v", b.Operation)
	}
	l.rest()
	s = l.hub.landed[1]
	if s.New || s.ID != "1" || s.PipelineID != 77 || s.TargetURL != "https://ci.example/1" || *s.Coverage != cover || s.Description != "all well" {
		t.Errorf("written %+v", s)
	}
	c := l.says(t, a.Run.ID, Update{Content: said(forge.StatusFailed)}) // a correction
	l.rest()
	l.ends(t, c, "delivered")
	d := l.begin(t, Create{Context: "ci/build", Ref: "main", Content: said(forge.StatusRunning)})
	l.rest()
	if s = l.hub.landed[3]; !s.New || s.ID != "3" || s.Run == a.Run.ID || d.Operation.Order != (Order{2, 1}) {
		t.Errorf("written %+v", s)
	}
	if want := []forge.Urgency{forge.Cosmetic, forge.Permitting, forge.Shutting, forge.Cosmetic}; !slices.Equal(l.hub.classes, want) {
		t.Errorf("urgencies %v", l.hub.classes)
	}

	target := Target{repo, sha}
	runs, err := l.clients().List(t.Context(), target, Filter{})
	if err != nil || len(runs) != 1 || runs[0].ID != d.Run.ID || runs[0].Owner != "team" || runs[0].PipelineID != 77 || runs[0].Repo != repo {
		t.Errorf("list %+v, %v", runs, err)
	}
	runs, err = l.clients().List(t.Context(), target, Filter{All: true, Context: "ci/build", Ref: "main"})
	if err != nil || len(runs) != 2 || runs[1].ID != a.Run.ID || runs[1].State != forge.StatusFailed || runs[1].ExternalID != "job-1" || runs[1].ForgeRef.ID != "3" {
		t.Errorf("list %+v, %v", runs, err)
	}
	for _, f := range []Filter{{Context: "other"}, {Ref: "other"}, {State: forge.StatusFailed}, {PipelineID: 5}} {
		if runs, err = l.clients().List(t.Context(), target, f); err != nil || len(runs) != 0 {
			t.Errorf("list %+v: %+v, %v", f, runs, err)
		}
	}
	run, ops, err := l.clients().Run(t.Context(), target, a.Run.ID, true)
	if err != nil || run.State != forge.StatusFailed || len(ops) != 3 || ops[0].ID != c.Operation.ID || ops[2].ID != a.Operation.ID || ops[2].Effective != forge.StatusRunning {
		t.Errorf("run %+v %+v, %v", run, ops, err)
	}
}

// The rules of order (docs/statuses.md), each broken once.
func TestOrderingRules(t *testing.T) {
	t.Run("1 attempts are counted by creates", func(t *testing.T) {
		l := newLoop(t)
		for n := int64(1); n <= 3; n++ {
			if a := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)}); a.Operation.Order != (Order{n, 1}) {
				t.Errorf("order %v", a.Operation.Order)
			}
		}
		if a := l.begin(t, Create{Context: "a", Ref: "main", Content: said(forge.StatusRunning)}); a.Operation.Order != (Order{1, 1}) {
			t.Errorf("another ref is another scope: %v", a.Operation.Order)
		}
		// However names and refs are chosen, scopes do not meet.
		for _, r := range []Create{{Context: "x@y"}, {Context: "x", Ref: "y"}, {Context: "x@y", Ref: "z"}, {Context: "x", Ref: "y@z"}, {Context: "x/y"}} {
			r.Content = said(forge.StatusRunning)
			l.begin(t, r)
		}
		if l.rest(); l.hub.calls != 2+5 {
			t.Errorf("%d calls", l.hub.calls)
		}
	})
	t.Run("2 who numbers the updates", func(t *testing.T) {
		l := newLoop(t)
		ours := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)}).Run.ID
		if a := l.says(t, ours, Update{Content: said(forge.StatusRunning, "2")}); a.Operation.Order != (Order{1, 2}) {
			t.Errorf("order %v", a.Operation.Order)
		}
		_, err := l.update(ours, Update{Sequence: 9, Content: said(forge.StatusRunning)})
		if r := refuses(t, err, CodeInvalid); r.Fields["sequence"] == "" {
			t.Errorf("fields %v", r.Fields)
		}
		theirs := l.begin(t, Create{Context: "b", Sequence: 4, Content: said(forge.StatusRunning)}).Run.ID
		_, err = l.update(theirs, Update{Content: said(forge.StatusSuccess)})
		refuses(t, err, CodeSequence)
		if a := l.says(t, theirs, Update{Sequence: 7, Content: said(forge.StatusSuccess)}); a.Operation.Order != (Order{1, 7}) {
			t.Errorf("order %v", a.Operation.Order)
		}
	})
	t.Run("3 an older retry lands last", func(t *testing.T) {
		l := newLoop(t)
		run := l.begin(t, Create{Context: "a", Sequence: 1, Content: said(forge.StatusRunning)}).Run.ID
		five := l.says(t, run, Update{Sequence: 5, Content: said(forge.StatusRunning, "five")})
		l.rest()
		three := l.says(t, run, Update{Sequence: 3, Content: said(forge.StatusSuccess, "three")})
		same := l.says(t, run, Update{Sequence: 5, Content: said(forge.StatusRunning, "five")})
		other := l.says(t, run, Update{Sequence: 5, Content: said(forge.StatusFailed, "five")})
		l.shows(t, "a", forge.StatusRunning, 1)
		l.ends(t, five, "delivered")
		for _, a := range []Accepted{three, other} {
			if o := l.ends(t, a, "superseded newer_sequence"); o.SupersededBy != five.Operation.ID {
				t.Errorf("by %s", o.SupersededBy)
			}
		}
		if o := l.ends(t, same, "delivered duplicate"); o.DeliveredAt.IsZero() || o.ForgeRef == nil {
			t.Errorf("a duplicate has the fate of what it repeats: %+v", o)
		}
	})
	t.Run("4 running after success", func(t *testing.T) {
		l := newLoop(t)
		run := l.begin(t, Create{Context: "a", Content: said(forge.StatusSuccess)}).Run.ID
		for _, s := range []forge.StatusState{forge.StatusRunning, forge.StatusPending} {
			l.ends(t, l.says(t, run, Update{Content: said(s)}), "superseded run_finished")
		}
		l.shows(t, "a", forge.StatusSuccess, 1)
		failed := l.says(t, run, Update{Content: said(forge.StatusFailed)})
		l.shows(t, "a", forge.StatusFailed, 2)
		l.ends(t, failed, "delivered")
		l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
		l.shows(t, "a", forge.StatusRunning, 3)
	})
	t.Run("5 two attempts interleaved", func(t *testing.T) {
		l := newLoop(t)
		old := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
		l.rest()
		newer := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning, "again")})
		late := l.says(t, old.Run.ID, Update{Content: said(forge.StatusSuccess)})
		if late.Run.State != forge.StatusRunning || late.Run.ID != old.Run.ID {
			t.Errorf("a run is as what took effect left it: %+v", late.Run)
		}
		if o := l.ends(t, late, "superseded newer_attempt"); o.SupersededBy != newer.Operation.ID || o.Order != (Order{1, 2}) {
			t.Errorf("%+v", o)
		}
		later := l.says(t, old.Run.ID, Update{Content: said(forge.StatusFailed)})
		if o := l.ends(t, later, "superseded newer_attempt"); o.Order != (Order{1, 3}) {
			t.Errorf("%+v", o)
		}
		l.shows(t, "a", forge.StatusRunning, 2)
		l.ends(t, old, "delivered")
		if run, ops, err := l.clients().Run(t.Context(), Target{repo, sha}, old.Run.ID, true); err != nil || len(ops) != 3 || run.State != forge.StatusRunning {
			t.Errorf("%+v %+v, %v", run, ops, err)
		}
	})
	t.Run("6 only the newest is pushed, and nothing twice", func(t *testing.T) {
		l := newLoop(t)
		one := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning, "1")})
		two := l.says(t, one.Run.ID, Update{Content: said(forge.StatusRunning, "2")})
		three := l.says(t, one.Run.ID, Update{Content: said(forge.StatusRunning, "3")})
		for a, by := range map[*Accepted]string{&one: two.Operation.ID, &two: three.Operation.ID} {
			if o := l.ends(t, *a, "superseded replaced"); o.SupersededBy != by {
				t.Errorf("by %s", o.SupersededBy)
			}
		}
		l.shows(t, "a", forge.StatusRunning, 1)
		same := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning, "3")})
		l.shows(t, "a", forge.StatusRunning, 1)
		l.ends(t, same, "delivered duplicate")
		four := l.says(t, same.Run.ID, Update{Content: said(forge.StatusRunning, "4")})
		l.step() // handed to the outbox, not attempted
		back := l.says(t, same.Run.ID, Update{Content: said(forge.StatusRunning, "3")})
		l.shows(t, "a", forge.StatusRunning, 1)
		l.ends(t, four, "superseded replaced")
		l.ends(t, back, "delivered duplicate")
		l.says(t, same.Run.ID, Update{Content: said(forge.StatusRunning, "5")})
		l.rest()
		if s := l.hub.landed[1]; !s.New || s.Run != same.Run.ID {
			t.Errorf("the first of the run that is written: %+v", s)
		}
	})
}

// Rule 7: a v1 call has its place in the order from its arrival.
func TestOldCallWaits(t *testing.T) {
	l := newLoop(t)
	run := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)}).Run.ID
	l.rest()
	v1 := l.call(t, Create{Context: "a", Content: said(forge.StatusFailed, "from v1")})
	if !v1.Operation.Waiting || v1.Operation.Order != (Order{1, 2}) || v1.Run.ID != run || !l.ends(t, v1, "accepted").Waiting {
		t.Errorf("%+v", v1)
	}
	v2 := l.says(t, run, Update{Content: said(forge.StatusSuccess, "from v2")})
	l.shows(t, "a", forge.StatusSuccess, 2)
	if o := l.ends(t, v1, "superseded newer_sequence"); o.SupersededBy != v2.Operation.ID {
		t.Errorf("%+v", o)
	}
	// Claimed in time it counts, and then it cannot be withdrawn.
	next := l.call(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	if next.Operation.Order != (Order{2, 1}) {
		t.Errorf("a finished run is followed by another: %+v", next.Operation)
	}
	l.step()
	if l.withdraw(next.Operation.ID) {
		t.Error("a claimed call was withdrawn")
	}
	l.shows(t, "a", forge.StatusRunning, 3)
	l.ends(t, next, "delivered")
	// A create overtakes it.
	v1 = l.call(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	created := l.begin(t, Create{Context: "a", Content: said(forge.StatusPending)})
	l.shows(t, "a", forge.StatusPending, 4)
	if o := l.ends(t, v1, "superseded newer_attempt"); o.SupersededBy != created.Operation.ID {
		t.Errorf("%+v", o)
	}
}

func TestOldCallWithdrawn(t *testing.T) {
	l := newLoop(t)
	first := l.call(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	if !l.withdraw(first.Operation.ID) || l.operation(first.Operation.ID) != nil || l.withdraw(first.Operation.ID) {
		t.Error("not withdrawn, or something is left")
	}
	if d := l.document(); len(d.Contexts) != 0 || len(l.records) != 0 {
		t.Errorf("left behind: %+v %v", d.Contexts, l.records)
	}
	done := l.begin(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	l.rest()
	two := l.call(t, Create{Context: "a", Content: said(forge.StatusPending)})
	more := l.call(t, Create{Context: "a", Content: said(forge.StatusRunning)}) // of the same run
	three := l.call(t, Create{Context: "a", Content: said(forge.StatusFailed)})
	four := l.call(t, Create{Context: "a", Content: said(forge.StatusPending)})
	for i, want := range []Order{{2, 1}, {2, 2}, {2, 3}, {3, 1}} {
		if got := []Accepted{two, more, three, four}[i].Operation.Order; got != want {
			t.Errorf("order %v, want %v", got, want)
		}
	}
	attempt := func(want int64) {
		t.Helper()
		if c := l.document().Contexts[scopeOf("a", "")]; c.Attempt != want {
			t.Errorf("attempt %d, want %d", c.Attempt, want)
		}
	}
	l.withdraw(two.Operation.ID)
	attempt(3) // others of its run wait, and a newer one
	l.withdraw(four.Operation.ID)
	attempt(2)
	l.withdraw(more.Operation.ID)
	attempt(2)
	l.withdraw(three.Operation.ID)
	attempt(1)
	if a := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)}); a.Operation.Order != (Order{2, 1}) {
		t.Errorf("the number was not given back: %v", a.Operation.Order)
	}
	l.shows(t, "a", forge.StatusRunning, 2)
	l.ends(t, done, "delivered")
	_, err := l.clients().Withdraw(t.Context(), Target{repo, sha}, "1-2-3-4")
	refuses(t, err, CodeNotFound)
}

func TestOldCallRepeated(t *testing.T) {
	l := newLoop(t)
	full := Create{Context: "a", Content: Content{State: forge.StatusSuccess, Description: "d", TargetURL: "http://old.example/1"}}
	first := l.call(t, full)
	again := l.call(t, full) // while it waits
	if first.Operation.TargetURL != "" || again.Operation.Order != (Order{1, 2}) {
		t.Errorf("%+v %+v", first.Operation, again.Operation)
	}
	l.shows(t, "a", forge.StatusSuccess, 1)
	third := l.call(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	if third.Operation.Waiting || third.Operation.Order.Attempt != 1 {
		t.Errorf("the same again is no new run: %+v", third.Operation)
	}
	l.shows(t, "a", forge.StatusSuccess, 1)
	l.ends(t, third, "delivered duplicate")
	other := l.call(t, Create{Context: "a", Content: said(forge.StatusSuccess, "other")})
	if other.Operation.Order != (Order{2, 1}) {
		t.Errorf("%+v", other.Operation)
	}
	ordered := l.begin(t, Create{Context: "b", Sequence: 3, Content: said(forge.StatusRunning)})
	_, err := l.post(Create{Context: "b", Content: said(forge.StatusSuccess)})
	refuses(t, err, CodeSequence)
	l.says(t, ordered.Run.ID, Update{Sequence: 4, Content: said(forge.StatusSuccess)})
	l.call(t, Create{Context: "b", Content: said(forge.StatusRunning)})
	l.rest()
	for n := range maxWaiting {
		l.call(t, Create{Context: fmt.Sprint("c", n), Content: said(forge.StatusRunning)})
	}
	_, err = l.post(Create{Context: "d", Content: said(forge.StatusRunning)})
	refuses(t, err, CodeBusy)
}

func TestFieldsRefused(t *testing.T) {
	long := strings.Repeat("ä", 256)
	over, under := 100.5, -0.1
	for field, rs := range map[string][]Create{
		"context":     {{Context: ""}, {Context: " "}, {Context: long}, {Context: "a\nb"}, {Context: "a\x00"}, {Context: "\xff"}, {Context: "a "}, {Context: " a"}, {Context: "a\u200b"}, {Context: "a\u00a0b"}, {Context: "\u202ea"}},
		"ref":         {{Ref: long}, {Ref: "a\tb"}},
		"external_id": {{ExternalID: long[:258]}, {ExternalID: "a\x1b"}},
		"state":       {{Content: Content{State: "neutral"}}, {Content: Content{State: "SUCCESS"}}},
		"sequence":    {{Sequence: -1}},
		"pipeline_id": {{PipelineID: -1}},
		"description": {{Content: said("", long)}, {Content: said("", "a\x07")}},
		"target_url": {
			{Content: Content{TargetURL: "http://ci.example"}}, {Content: Content{TargetURL: "javascript:alert(1)"}},
			{Content: Content{TargetURL: "https:///x"}}, {Content: Content{TargetURL: "https://me:secret@ci.example"}},
			{Content: Content{TargetURL: "https://ci.example/" + long}}, {Content: Content{TargetURL: "https://ci.example/%zz"}},
		},
		"coverage": {{Content: Content{Coverage: &over}}, {Content: Content{Coverage: &under}}},
	} {
		for _, r := range rs {
			if r.State == "" {
				r.State = forge.StatusRunning
			}
			if r.Context == "" && field != "context" {
				r.Context = "a"
			}
			l := newLoop(t)
			_, err := l.create(r)
			if got := refuses(t, err, CodeInvalid); len(got.Fields) != 1 || got.Fields[field] == "" {
				t.Errorf("%+v: fields %v, want %s", r, got.Fields, field)
			}
		}
	}
	l := newLoop(t)
	edge := strings.Repeat("ä", 255)
	l.begin(t, Create{Context: edge, Ref: edge, ExternalID: edge[:256], Content: said(forge.StatusRunning, edge[:508]+"\n")})
	run := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)}).Run.ID
	_, err := l.update(run, Update{Content: said("done")})
	refuses(t, err, CodeInvalid)
}

func TestOwners(t *testing.T) {
	l := newLoop(t)
	a := l.begin(t, Create{Context: "a", Content: said(forge.StatusFailed)})
	thief := Caller{Principal: "thief"}
	own := Caller{Principal: "team", Run: "sb1-x"}
	for by, want := range map[Caller]Code{thief: CodeContextOwned, own: CodeForbidden} {
		_, err := l.create(Create{Context: "a", Content: said(forge.StatusSuccess)}, by)
		refuses(t, err, want)
		_, err = l.post(Create{Context: "a", Content: said(forge.StatusSuccess)}, by)
		refuses(t, err, want)
		// Where a forge keeps no refs, or does not mind case, that is the same place.
		_, err = l.create(Create{Context: "a", Ref: "main", Content: said(forge.StatusSuccess)}, by)
		refuses(t, err, want)
		_, err = l.post(Create{Context: "A", Content: said(forge.StatusSuccess)}, by)
		refuses(t, err, want)
	}
	l.begin(t, Create{Context: "A", Ref: "main", Content: said(forge.StatusFailed)})
	_, err := l.update(a.Run.ID, Update{Content: said(forge.StatusSuccess)}, thief)
	refuses(t, err, CodeContextOwned)
	_, err = l.update(a.Run.ID, Update{Content: said(forge.StatusSuccess)}, own)
	refuses(t, err, CodeNotFound)
	for _, id := range []string{"", "x", a.Run.ID + "0", strings.TrimSuffix(a.Run.ID, "1") + "01", strings.ToUpper(a.Run.ID), scopeOf("b", "") + "-1"} {
		_, err = l.update(id, Update{Content: said(forge.StatusSuccess)})
		refuses(t, err, CodeNotFound)
	}

	// The contexts of checks are nobody's, whoever comes first, in whatever case.
	l.gate(7, 1)
	l.presubmit(7, "sb1-a", 2, forge.CheckQueued)
	l.run()
	for _, name := range []string{gateName, "ci GATE", "presubmit", "PreSubmit", "reserved"} {
		_, err = l.create(Create{Context: name, Content: said(forge.StatusSuccess)})
		refuses(t, err, CodeContextOwned)
		_, err = l.post(Create{Context: name, Content: said(forge.StatusSuccess)})
		refuses(t, err, CodeContextOwned)
	}
}

func TestBounds(t *testing.T) {
	l := newLoop(t)
	for n := range maxContexts {
		l.begin(t, Create{Context: fmt.Sprint("c", n), Content: said(forge.StatusRunning)})
	}
	_, err := l.create(Create{Context: "one more", Content: said(forge.StatusRunning)})
	refuses(t, err, CodeTooManyContexts)
	a := l.begin(t, Create{Context: "c7", Content: said(forge.StatusRunning)}) // one that is there
	old := runID(scopeOf("c7", ""), 1)

	edit := func(f func(c *Context)) {
		d := l.document()
		c := d.Contexts[scopeOf("c7", "")]
		f(&c)
		d.Contexts[scopeOf("c7", "")] = c
		l.doc = encoded(d)
	}
	edit(func(c *Context) { c.Runs[0].Count = maxUpdates - 1 })
	l.says(t, a.Run.ID, Update{Content: said(forge.StatusRunning, "the last")})
	_, err = l.update(a.Run.ID, Update{Content: said(forge.StatusSuccess)})
	refuses(t, err, CodeTooManyUpdates)
	_, err = l.post(Create{Context: "c7", Content: said(forge.StatusSuccess)})
	refuses(t, err, CodeTooManyUpdates)
	edit(func(c *Context) { c.Effective.State = forge.StatusFailed })
	l.call(t, Create{Context: "c7", Content: said(forge.StatusSuccess)}) // a full run that has ended is followed by another
	p, err := record[past](t.Context(), l, subject, pastRecord(old))
	if err != nil {
		t.Fatal(err)
	}
	p.Count = maxUpdates - 1
	l.records[pastRecord(old)] = encoded(p)
	l.says(t, old, Update{Content: said(forge.StatusRunning)})
	_, err = l.update(old, Update{Content: said(forge.StatusSuccess)})
	refuses(t, err, CodeTooManyUpdates)
	edit(func(c *Context) { c.Attempt = maxUpdates })
	_, err = l.create(Create{Context: "c7", Content: said(forge.StatusRunning)})
	refuses(t, err, CodeTooManyUpdates)

	// Full to the brim the document is as large as a store takes without effort.
	edit(func(c *Context) { c.Attempt = 3 })
	brim := strings.Repeat("x", 255)
	for n := range maxContexts - 1 {
		url := "https://ci.example/" + brim[:236]
		l.begin(t, Create{Context: fmt.Sprint("c", n), ExternalID: brim[:128], Content: Content{State: forge.StatusRunning, Description: brim, TargetURL: url}})
	}
	l.rest()
	if len(l.doc) > 600<<10 {
		t.Errorf("%d bytes", len(l.doc))
	}
}

func TestExternalID(t *testing.T) {
	l := newLoop(t)
	r := Create{Context: "a", ExternalID: "job-1", Content: said(forge.StatusRunning)}
	first := l.begin(t, r)
	other := r
	other.Description = "other"
	for range 2 { // the run in the document, then past
		again := l.begin(t, r)
		if !again.Existing || again.Run.ID != first.Run.ID || again.Operation.ID != first.Operation.ID || again.Run.State != forge.StatusRunning {
			t.Errorf("%+v", again)
		}
		_, err := l.create(other)
		if got := refuses(t, err, CodeRunExists); got.Run != first.Run.ID {
			t.Errorf("%+v", got)
		}
		l.begin(t, Create{Context: "a", ExternalID: fmt.Sprint("job-", 2+l.document().Contexts[scopeOf("a", "")].Attempt), Content: said(forge.StatusRunning, "newer")})
	}
	if a := l.begin(t, Create{Context: "b", ExternalID: "job-1", Content: said(forge.StatusRunning)}); a.Existing {
		t.Error("an external id is of one context")
	}
	_, err := l.create(r, Caller{Principal: "thief"})
	refuses(t, err, CodeContextOwned)
}

func TestForgeDoesNotKnowTheCommitYet(t *testing.T) {
	l := newLoop(t)
	l.hub.fate = func() fail { return absent }
	a := l.begin(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	l.step()
	l.step()
	o := l.ends(t, a, "accepted")
	if o.LastError == nil || o.LastError.Class != "not found" || o.LastError.Code != 404 || o.LastError.Message == "" || o.Tries != 0 || !o.NextTryAt.After(l.now) {
		t.Errorf("%+v", o)
	}
	l.hub.fate = nil
	l.shows(t, "a", forge.StatusSuccess, 2)
	l.hub.fate = func() fail { return absent }
	b := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.rest()
	if o := l.ends(t, b, "failed refused"); l.now.Sub(b.Operation.AcceptedAt) < laggingFor || l.hub.calls > 30 || o.LastError.Code != 404 {
		t.Errorf("%+v after %d calls", o, l.hub.calls)
	}
}

// What the forge refuses for good is tried once, told to the client and is no dead letter.
func TestRefusedForGood(t *testing.T) {
	l := newLoop(t)
	shown := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.rest()
	l.hub.fate = func() fail { return refused }
	a := l.says(t, shown.Run.ID, Update{Content: said(forge.StatusSuccess)})
	l.shows(t, "a", forge.StatusRunning, 2)
	if o := l.ends(t, a, "failed refused"); o.LastError == nil || *o.LastError != (Trouble{Class: "permanent", Code: 422, Message: o.LastError.Message}) || !o.DeliveredAt.IsZero() {
		t.Errorf("%+v", o)
	}
	if !l.quiet {
		t.Error("an operator is told of a client's mistake")
	}
	l.hub.fate = nil
	l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)}) // as shown, but nobody can be sure of that
	l.shows(t, "a", forge.StatusRunning, 3)
	b := l.begin(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	l.shows(t, "a", forge.StatusSuccess, 4)
	l.ends(t, b, "delivered")
	l.ends(t, a, "failed refused")
}

func TestTriesEnd(t *testing.T) {
	for state, want := range map[forge.StatusState]string{forge.StatusSuccess: "failed exhausted", forge.StatusRunning: "failed exhausted", forge.StatusFailed: "delivering"} {
		l := newLoop(t)
		l.hub.fate = func() fail { return broken }
		a := l.begin(t, Create{Context: "a", Content: said(state)})
		for range 1000 {
			if l.hub.calls == lastTry+1 {
				break
			}
			if !l.step() {
				if len(l.outbox) == 0 {
					break
				}
				l.now = l.outbox[0].NotBefore
			}
		}
		o := l.ends(t, a, want)
		if o.LastError == nil || o.LastError.Class != "retriable" || o.LastError.Code != 502 {
			t.Errorf("%s: %+v", state, o)
		}
		if (o.State == OpFailed) != (l.hub.calls == lastTry) || o.State == OpDelivering && o.Tries != lastTry+1 {
			t.Errorf("%s: %d calls, %+v", state, l.hub.calls, o)
		}
	}
}

// A call whose answer was lost may land late: nothing newer overtakes it, and nothing else waits for it.
func TestLateCallIsNotOvertaken(t *testing.T) {
	l := newLoop(t)
	run := l.begin(t, Create{Context: "a", Content: said(forge.StatusPending, "A")}).Run.ID
	l.rest()
	fates := []fail{broken, late} // the later of two calls is the one to wait for
	l.hub.delay = func() time.Duration { return 40 * time.Second }
	l.hub.fate = func() fail {
		if len(fates) == 0 {
			return works
		}
		f := fates[0]
		fates = fates[1:]
		return f
	}
	b := l.says(t, run, Update{Content: said(forge.StatusRunning, "B")})
	for len(fates) > 0 {
		if !l.step() {
			l.now = l.outbox[0].NotBefore
		}
	}
	if o := l.ends(t, b, "delivering"); o.Tries != 2 || o.LastError.Code != 502 {
		t.Errorf("%+v", o)
	}
	// The forge still shows A, which is what is wanted again. It would not last.
	c := l.says(t, run, Update{Content: said(forge.StatusPending, "A")})
	other := l.begin(t, Create{Context: "b", Content: said(forge.StatusRunning)})
	for l.step() {
	}
	l.ends(t, c, "delivering")
	l.ends(t, b, "superseded replaced")
	if o := l.ends(t, other, "delivered"); !o.DeliveredAt.Equal(l.now) {
		t.Errorf("%+v", o)
	}
	l.rest()
	var got []string
	for _, s := range l.hub.landed {
		if s.Context == "a" {
			got = append(got, s.Description)
		}
	}
	if !slices.Equal(got, []string{"A", "B", "A"}) {
		t.Errorf("the forge saw %q", got)
	}
	l.ends(t, c, "delivered")
}

// A call that may still land is not repeated before it can be believed that it will not.
func TestLateCallIsNotRepeated(t *testing.T) {
	l := newLoop(t)
	l.hub.delay = func() time.Duration { return 40 * time.Second }
	l.hub.fate = func() fail { return late }
	a := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.step()
	l.now = l.now.Add(time.Second)
	l.shows(t, "a", forge.StatusRunning, 1)
	l.ends(t, a, "delivered")
}

// A holder that was paused beyond its lease sends what it had begun, long after anybody waited for it. Nobody can
// prevent that; the read-back puts it right.
func TestCallOfAPausedHolder(t *testing.T) {
	l := newLoop(t)
	l.hub.delay = func() time.Duration { return 100 * time.Second }
	l.hub.fate = func() fail { return late }
	zombie := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.step()
	l.crash = func(at string) bool { return at == "done" }
	l.step()
	l.crash, l.hub.fate = nil, nil
	a := l.says(t, zombie.Run.ID, Update{Content: said(forge.StatusFailed)})
	l.shows(t, "a", forge.StatusFailed, 2)
	l.ends(t, a, "delivered")
	l.ends(t, zombie, "superseded replaced")
	l.now = l.now.Add(time.Minute)
	l.shows(t, "a", forge.StatusRunning, 2)
	l.wakes(t)
	l.shows(t, "a", forge.StatusFailed, 3)
}

// What landed without an answer is found, and is not written twice.
func TestLostAnswerIsFound(t *testing.T) {
	l := newLoop(t)
	fates := []fail{lost, lost}
	l.hub.fate = func() fail {
		if len(fates) == 0 {
			return works
		}
		f := fates[0]
		fates = fates[1:]
		return f
	}
	a := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.shows(t, "a", forge.StatusRunning, 1)
	if o := l.ends(t, a, "delivered"); o.ForgeRef.ID != "1" {
		t.Errorf("%+v", o)
	}
	// The first of a run landed unknown, and something newer is wanted: it goes on with that one.
	b := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning, "again")})
	l.step()
	l.step()
	l.says(t, b.Run.ID, Update{Content: said(forge.StatusSuccess)})
	l.shows(t, "a", forge.StatusSuccess, 3)
	if s := l.hub.landed[2]; s.New || s.ID != "2" {
		t.Errorf("%+v", s)
	}
}

func TestPutOffByTheForge(t *testing.T) {
	for f, class := range map[fail]string{limited: "contention", denied: "auth"} {
		l := newLoop(t)
		l.hub.fate = func() fail { return f }
		a := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
		l.step()
		l.step()
		if o := l.ends(t, a, "accepted"); o.LastError.Class != class || o.Tries != 0 {
			t.Errorf("%+v", o)
		}
		b := l.says(t, a.Run.ID, Update{Content: said(forge.StatusSuccess)})
		l.hub.fate = nil
		l.shows(t, "a", forge.StatusSuccess, 2) // nothing had left: nothing is waited for
		if o := l.ends(t, b, "delivered"); !o.DeliveredAt.Equal(start) || l.hub.finds != 0 {
			t.Errorf("%+v after %d looks", o, l.hub.finds)
		}
	}
}

// Taking a success back is urgent even where its call is only on its way.
func TestSuccessTakenBack(t *testing.T) {
	l := newLoop(t)
	l.begin(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	l.rest()
	l.begin(t, Create{Context: "a", Content: said(forge.StatusPending)})
	l.rest()
	l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.rest()
	l.begin(t, Create{Context: "b", Content: said(forge.StatusSuccess)})
	l.step()
	l.begin(t, Create{Context: "b", Content: said(forge.StatusRunning)})
	l.rest()
	if want := []forge.Urgency{forge.Permitting, forge.Shutting, forge.Cosmetic, forge.Shutting}; !slices.Equal(l.hub.classes, want) {
		t.Errorf("urgencies %v, want %v", l.hub.classes, want)
	}
}

// A success is confirmed: mail may say that its context is the gate's.
func TestSuccessIsConfirmed(t *testing.T) {
	l := newLoop(t)
	a := l.begin(t, Create{Context: gateName, Content: said(forge.StatusSuccess)})
	l.step()
	l.gate(7, 1)
	l.do(0)
	if l.hub.calls != 0 || l.codes[0] != actor.Stale {
		t.Errorf("%d calls, %v", l.hub.calls, l.codes)
	}
	l.want(t, gateName, forge.CheckActionRequired, 1)
	l.ends(t, a, "failed context_owned")
	if l.hub.calls != 0 {
		t.Errorf("%d calls", l.hub.calls)
	}
}

// A context turns out to be the gate's: what clients have under way in it ends, and the gate looks after itself.
func TestGateNameAppearsLater(t *testing.T) {
	l := newLoop(t)
	shown := l.begin(t, Create{Context: gateName, Content: said(forge.StatusRunning)})
	l.rest()
	l.hub.fate = func() fail { return lost }
	out := l.says(t, shown.Run.ID, Update{Content: said(forge.StatusSuccess)})
	l.step()
	l.step() // the call has left
	l.hub.fate = nil
	waits := l.call(t, Create{Context: gateName, Content: said(forge.StatusFailed)})
	l.gate(7, 1)
	l.step()
	l.ends(t, shown, "delivered")
	l.ends(t, out, "failed context_owned")
	l.ends(t, waits, "failed context_owned")
	looks := l.hub.looks
	l.want(t, gateName, forge.CheckActionRequired, 1)
	if l.hub.calls != 2 || l.hub.looks == looks || l.now.Before(start.Add(SettleStatus)) {
		t.Errorf("%d calls, %d looks at %s", l.hub.calls, l.hub.looks-looks, l.now)
	}
	_, err := l.update(shown.Run.ID, Update{Content: said(forge.StatusSuccess)})
	refuses(t, err, CodeContextOwned)
	if c := l.document().Contexts[scopeOf(gateName, "")]; c.pending() || c.Out {
		t.Errorf("%+v", c)
	}
}

// wakes lets time pass until the next planned read-back and what follows of it.
func (l *loop) wakes(t *testing.T) {
	t.Helper()
	if l.rest(); l.wake.IsZero() {
		t.Fatal("nothing is planned")
	}
	l.now = l.wake
	l.rest()
}

// The forge is read back twice after a push. A stranger who posts in the same context is answered once each time.
func TestReadBack(t *testing.T) {
	l := newLoop(t)
	a := l.begin(t, Create{Context: "a", Content: said(forge.StatusFailed)})
	l.rest()
	stranger := l.hub.landed[0]
	stranger.State, stranger.Run = forge.StatusSuccess, "theirs"
	l.hub.landed = append(l.hub.landed, stranger)
	l.wakes(t)
	if l.now.Sub(start) != readSoon || l.hub.finds != 1 {
		t.Errorf("read back at %s", l.now)
	}
	l.shows(t, "a", forge.StatusFailed, 2)
	l.ends(t, a, "delivered")
	l.hub.landed = append(l.hub.landed, stranger)
	l.wakes(t)
	if l.now.Sub(start) != readLate {
		t.Errorf("read back at %s", l.now)
	}
	l.shows(t, "a", forge.StatusFailed, 3)
	if !l.wake.IsZero() {
		t.Errorf("a third read-back is planned at %s", l.wake)
	}
	// After a lost lease, or whenever somebody asks, it is compared as well.
	l.hub.landed = append(l.hub.landed, stranger)
	l.reconcile = "takeover"
	l.shows(t, "a", forge.StatusFailed, 4)
	l.reconcile = "sweep"
	l.shows(t, "a", forge.StatusFailed, 4)

	// Without an answer it is tried again; refused for good it is left.
	l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.rest()
	pushed := l.now
	l.hub.unseen = broken.err()
	l.wakes(t)
	l.hub.unseen = refused.err()
	l.wakes(t)
	if l.now.Sub(pushed) != readSoon+lookAgain || l.hub.calls != 5 {
		t.Errorf("read back after %s", l.now.Sub(pushed))
	}
	l.hub.unseen = nil
	l.wakes(t)
	if l.now.Sub(pushed) != readLate || !l.wake.IsZero() || l.hub.calls != 5 {
		t.Errorf("read back after %s", l.now.Sub(pushed))
	}
}

// Many contexts are read back in batches, and what is being written is not.
func TestReadBackInBatches(t *testing.T) {
	l := newLoop(t)
	for n := range 3 * readBatch {
		l.begin(t, Create{Context: fmt.Sprint("c", n), Content: said(forge.StatusRunning)})
	}
	l.rest()
	l.hub.fate = func() fail { return limited }
	l.begin(t, Create{Context: "c0", Content: said(forge.StatusSuccess)})
	l.step()
	l.reconcile = "takeover"
	l.step()
	if l.hub.finds != readBatch {
		t.Errorf("%d looks in one turn", l.hub.finds)
	}
	for range 5 {
		l.now = l.now.Add(time.Second)
		for l.step() {
		}
	}
	if l.hub.finds != 3*readBatch-1 {
		t.Errorf("%d looks", l.hub.finds)
	}
}

func TestStatusesInADryRun(t *testing.T) {
	l := newLoop(t)
	l.begin(t, Create{Context: "b", Content: said(forge.StatusRunning)})
	a := l.begin(t, Create{Context: "a", Content: said(forge.StatusRunning)})
	l.rest()
	l.hub.calls = 1
	l.dry = true
	b := l.says(t, a.Run.ID, Update{Content: said(forge.StatusSuccess)})
	l.shows(t, "a", forge.StatusRunning, 1)
	if o := l.ends(t, b, "failed dry_run"); o.LastError == nil {
		t.Errorf("%+v", o)
	}
	l.reconcile = "sweep"
	l.rest()
	if l.hub.finds != 0 || !l.wake.IsZero() && l.wake.Sub(l.now) < time.Minute {
		t.Errorf("%d looks, the next at %s", l.hub.finds, l.wake)
	}
	// What is in the outbox when the dry run begins is not written, and one wished for in it is never.
	l.dry = false
	l.says(t, a.Run.ID, Update{Content: said(forge.StatusFailed)})
	l.step()
	l.dry = true
	l.shows(t, "a", forge.StatusRunning, 1)
	l.says(t, a.Run.ID, Update{Content: said(forge.StatusCanceled)})
	l.step()
	l.dry = false
	l.shows(t, "a", forge.StatusRunning, 1)
	c := l.begin(t, Create{Context: "a", Content: said(forge.StatusSuccess)})
	l.shows(t, "a", forge.StatusSuccess, 2)
	if c.Operation.Order.Attempt != 2 {
		t.Errorf("the context began anew: %+v", c.Operation)
	}
}

// reports is what a triggered run's own token says of it.
func (l *loop) reports(t *testing.T, key string, s forge.StatusState) Accepted {
	t.Helper()
	a, err := l.update(key, Update{Content: Content{State: s, Description: "says " + string(s), TargetURL: "https://ci.example/" + key}}, Caller{Principal: "run", Run: key})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestTriggeredRunReports(t *testing.T) {
	const key = "sb1-a"
	l := newLoop(t)
	_, err := l.update(key, Update{Content: said(forge.StatusSuccess)}, Caller{Run: key})
	refuses(t, err, CodeNotFound)
	l.presubmit(7, key, 1, forge.CheckQueued)
	l.presubmit(8, "sb1-b", 1, forge.CheckQueued)
	l.run()
	for _, by := range []Caller{team, {Principal: "run", Run: "sb1-b"}} {
		_, err = l.update(key, Update{Content: said(forge.StatusSuccess)}, by)
		refuses(t, err, CodeNotFound)
	}
	_, err = l.update(key, Update{Content: said("done")}, Caller{Run: key})
	refuses(t, err, CodeInvalid)

	running := l.reports(t, key, forge.StatusRunning)
	l.ends(t, running, "accepted")
	l.rest()
	l.ends(t, running, "delivering")
	r := l.heard[len(l.heard)-1]
	if r.Key != key || r.SHA != sha || r.Seq != 1 || r.State != forge.CheckRunning || r.URL != "https://ci.example/"+key || r.Description != "says running" || r.Op != running.Operation.ID || !r.At.Equal(l.now) {
		t.Errorf("told %+v", r)
	}
	success := l.reports(t, key, forge.StatusSuccess)
	l.rest()
	if o := l.ends(t, running, "superseded replaced"); o.SupersededBy != success.Operation.ID {
		t.Errorf("%+v", o)
	}
	late := l.reports(t, key, forge.StatusRunning) // it comes after the end
	l.ends(t, late, "superseded run_finished")
	l.hub.fail = func() fail { return limited }
	l.presubmit(7, key, 2, forge.CheckSuccess)
	l.step()
	l.ends(t, success, "delivering") // counted, not shown
	l.hub.fail = nil
	l.rest()
	if o := l.ends(t, success, "delivered"); o.ForgeRef == nil || o.Effective != forge.StatusSuccess {
		t.Errorf("%+v", o)
	}
	l.ends(t, l.reports(t, key, forge.StatusFailed), "superseded run_finished")
	run, ops, err := l.clients().Run(t.Context(), Target{repo, sha}, key, true)
	if err != nil || run.Context != "presubmit" || run.State != forge.StatusSuccess || len(ops) != 4 || ops[0].Order.Sequence != 4 {
		t.Errorf("%+v %+v, %v", run, ops, err)
	}
}

func TestTriggeredRunEndsWithoutItsReport(t *testing.T) {
	l := newLoop(t)
	l.presubmit(7, "sb1-a", 1, forge.CheckRunning)
	l.run()
	skipped := l.reports(t, "sb1-a", forge.StatusSkipped)
	if l.rest(); l.heard[0].State != forge.CheckFailure {
		t.Errorf("what was skipped tested nothing: %+v", l.heard)
	}
	l.presubmit(7, "sb1-a", 2, forge.CheckCancelled) // the approval was taken back meanwhile
	l.run()
	l.ends(t, skipped, "superseded run_finished")

	l.presubmit(7, "sb1-b", 1, forge.CheckRunning)
	l.run()
	void := l.reports(t, "sb1-b", forge.StatusSuccess)
	l.rest()
	l.presubmit(7, "sb1-b", 2, forge.CheckRunning) // the pull request says something else of it first
	l.run()
	l.ends(t, void, "delivering")
	l.say(KindPresubmit, Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: "sb1-b", Name: "presubmit", Seq: 3, State: forge.CheckRunning, Heard: 1})
	l.run()
	l.ends(t, void, "superseded not_counted")

	l.hub.fail = func() fail { return refused }
	failed := l.reports(t, "sb1-b", forge.StatusFailed)
	l.presubmit(7, "sb1-b", 4, forge.CheckFailure)
	l.run()
	l.ends(t, failed, "failed refused")

	// A run keeps its place while an answer is owed, and without it the answer is that it is over.
	l.hub.fail = nil
	l.presubmit(7, "sb1-c", 1, forge.CheckRunning)
	l.run()
	open := l.reports(t, "sb1-c", forge.StatusSuccess)
	for n := range 2 * maxRuns {
		l.presubmit(8, fmt.Sprint("sb1-x", n), 1, forge.CheckSuccess)
	}
	l.run()
	l.ends(t, open, "delivering")
	l.presubmit(7, "sb1-c", 2, forge.CheckSuccess)
	l.run()
	l.ends(t, open, "delivered")
	l.doc = encoded(Document{Repo: repo})
	delete(l.records, endRecord("sb1-c", 1))
	l.ends(t, open, "superseded run_finished")
	l.say(KindPresubmit, Presubmit{Pull: pull(7), Ref: ref(7), SHA: sha, Key: "sb1-c", Name: "presubmit", Seq: 3, State: forge.CheckRunning, Heard: 1})
	l.run()
	if next := l.reports(t, "sb1-c", forge.StatusRunning); next.Operation.Order.Sequence != 2 || next.Operation.State != OpAccepted {
		t.Errorf("told the pull request under a number that it has heard: %+v", next.Operation)
	}
}
