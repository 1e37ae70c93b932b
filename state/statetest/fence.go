package statetest

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/state"
)

// full is a commit that uses everything a holder may.
func full(s state.Subject, token string, version int64) state.Commit {
	return state.Commit{
		Subject: s, Holder: token, Version: version, Doc: []byte("saved"), Through: 1,
		Forget:  []string{"t:test:a1"},
		SetFlag: true,
		Index:   []state.Index{{Name: "waiting", Label: "x", Score: 2}},
		Put:     []state.Record{{Key: "r", Value: []byte("v")}},
		Journal: [][]byte{[]byte("line")},
	}
}

// traces is all that a commit could have left, without times.
type traces struct {
	Snapshot state.Snapshot
	Index    []state.Entry
	Record   string
	Journal  []string
}

func (b *bench) traces(s state.Subject) traces {
	b.Helper()
	n := b.load(s)
	n.Now = time.Time{}
	v, err := b.record(s, "r")
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		b.Fatalf("record: %v", err)
	}
	return traces{n, b.list("waiting", "", 10), v, b.journal(s, 10)}
}

// refused asserts that a commit is answered with this verdict and leaves no trace.
func (b *bench) refused(c state.Commit, want state.Verdict) {
	b.Helper()
	before := b.traces(c.Subject)
	if r := b.commit(c); r.Verdict != want || r.Released {
		b.Fatalf("commit as %q at version %d: %+v, want %v", c.Holder, c.Version, r, want)
	}
	if diff := cmp.Diff(before, b.traces(c.Subject)); diff != "" {
		b.Fatalf("the refused commit left traces:\n%s", diff)
	}
	for _, id := range c.Forget {
		if a := b.accept(state.Delivery{Subject: c.Subject, ID: id, Kind: "probe"}); !a.Duplicate {
			b.Fatalf("the refused commit forgot %s: %+v", id, a)
		}
	}
}

var commitCases = []testCase{
	{name: "saves everything in one step", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 3)
		b.begin(s, "A")
		r := b.save(full(s, "A", 0))
		if r.Released || r.Now.IsZero() || !slices.Equal(seqs(r.Mail), span(2, 3)) {
			b.Fatalf("answer: %+v", r)
		}
		got := b.traces(s)
		n := got.Snapshot
		if n.Version != 1 || string(n.Doc) != "saved" || n.Holder != "A" || !n.Flagged || !slices.Equal(seqs(n.Mail), span(2, 3)) {
			b.Errorf("subject: %+v", n)
		}
		want := traces{n, []state.Entry{{Subject: s, Index: state.Index{Name: "waiting", Label: "x", Score: 2}}}, "v", []string{"line"}}
		if diff := cmp.Diff(want, got); diff != "" {
			b.Errorf("what was saved:\n%s", diff)
		}
		if a := b.accept(letter(s, "a1")); a.Seq != 4 {
			b.Errorf("the forgotten id: %+v", a)
		}
	}},
	{name: "sent again is moved and changes nothing", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 3)
		b.begin(s, "A")
		c := full(s, "A", 0)
		c.Forget = nil
		b.save(c)
		b.refused(c, state.Moved)
	}},
	{name: "sent again after its release is not the owner's and changes nothing", run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		c := state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Journal: [][]byte{[]byte("line")}, Release: true}
		b.save(c)
		b.refused(c, state.NotOwner)
	}},
	{name: "at another version is moved and changes nothing", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 3)
		b.begin(s, "A")
		b.refused(full(s, "A", 1), state.Moved)
		c := full(s, "A", 7)
		c.Release, c.HandBack = true, true
		b.refused(c, state.Moved)
	}},
	{name: "of a holder that was taken over changes nothing", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 3)
		b.begin(s, "A")
		b.begin(s, "B")
		c := full(s, "A", 0)
		b.refused(c, state.NotOwner)
		c.Release = true
		b.refused(c, state.NotOwner)
		if got := b.load(s).Holder; got != "B" {
			b.Fatalf("the successor's token was replaced by %q", got)
		}
	}},
	{name: "without begin is not the owner's", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 1)
		b.refused(full(s, "A", 0), state.NotOwner)
		b.refused(state.Commit{Subject: subject(2), Holder: "A", Doc: []byte("d")}, state.NotOwner)
	}},
	{name: "answers at most one batch of what is unread", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", state.MailBatch+10)
		b.begin(s, "A")
		if r := b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 2}); !slices.Equal(seqs(r.Mail), span(3, state.MailBatch+2)) {
			b.Fatalf("answer: %v", seqs(r.Mail))
		}
	}},
	{name: "without release stays held until the end of the lease", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		n := b.begin(s, "A")
		end := b.load(s).Wake
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 1, Wake: n.Now.Add(-time.Minute)})
		if n := b.load(s); n.Holder != "A" || n.Wake.Before(end) || b.isDue(s) {
			b.Fatalf("lease ends at %v: %+v", end, n)
		}
	}},
	{name: "release with mail left returns it and keeps the holder", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 2)
		b.begin(s, "A")
		end := b.load(s).Wake
		r := b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 1, Release: true})
		if r.Released || !slices.Equal(seqs(r.Mail), span(2, 2)) {
			b.Fatalf("answer: %+v", r)
		}
		if n := b.load(s); n.Holder != "A" || n.Wake.Before(end) || b.isDue(s) {
			b.Fatalf("after it: %+v", n)
		}
		r = b.save(state.Commit{Subject: s, Holder: "A", Version: 1, Doc: []byte("d"), Through: 2, Release: true})
		if !r.Released || len(r.Mail) != 0 {
			b.Fatalf("second release: %+v", r)
		}
	}},
	{name: "release sets the wake time", run: func(b *bench) {
		s := subject(1)
		for i, c := range []struct {
			wake func(now time.Time) time.Time
			due  bool
		}{
			{func(time.Time) time.Time { return time.Time{} }, false},
			{func(now time.Time) time.Time { return now.Add(time.Hour) }, false},
			{func(now time.Time) time.Time { return now.Add(-time.Hour) }, true},
		} {
			wake := c.wake(b.begin(s, "A").Now)
			r := b.save(state.Commit{Subject: s, Holder: "A", Version: int64(i), Doc: []byte("d"), Wake: wake, Release: true})
			n := b.load(s)
			if !r.Released || n.Holder != "" || b.isDue(s) != c.due || !sameWake(n.Wake, wake) {
				b.Errorf("released to wake at %v: %+v, then %+v", wake, r, n)
			}
		}
	}},
	{name: "wakes not before its time, and then", run: func(b *bench) {
		s := subject(1)
		wake := b.begin(s, "A").Now.Add(40*time.Millisecond + 300*time.Microsecond)
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Wake: wake, Release: true})
		if n := b.load(s); n.Wake.Before(wake) {
			b.Fatalf("to wake at %v, due at %v", wake, n.Wake)
		}
		b.pass(60 * time.Millisecond)
		if !b.isDue(s) {
			b.Fatal("did not wake")
		}
	}},
	{name: "hand back leaves unread mail due", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 2)
		n := b.begin(s, "A")
		wake := n.Now.Add(time.Hour)
		r := b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 1, Wake: wake, HandBack: true})
		if !r.Released {
			b.Fatalf("answer: %+v", r)
		}
		if n := b.load(s); n.Holder != "" || !slices.Equal(seqs(n.Mail), span(2, 2)) || b.isDue(s) || !sameWake(n.Wake, wake) {
			b.Fatalf("after it: %+v", n)
		}
		b.begin(s, "B")
		b.save(state.Commit{Subject: s, Holder: "B", Version: 1, Doc: []byte("d"), HandBack: true})
		if n := b.load(s); n.Holder != "" || len(n.Mail) != 1 || !b.isDue(s) {
			b.Fatalf("without a time it is due now: %+v", n)
		}
	}},
	{name: "a commit without a document leaves document, version and places", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 2)
		b.begin(s, "A")
		b.save(full(s, "A", 0))
		before := b.load(s)
		wake := before.Now.Add(time.Hour)
		b.refused(state.Commit{Subject: s, Holder: "A", Version: 7, HandBack: true}, state.Moved)
		r := b.save(state.Commit{Subject: s, Holder: "A", Version: 1, Wake: wake, HandBack: true})
		after := b.load(s)
		if !r.Released || after.Version != 1 || string(after.Doc) != string(before.Doc) || !sameWake(after.Wake, wake) {
			b.Errorf("answer %+v, then %+v", r, after)
		}
		rows, err := b.Store.List(b.Context(), full(s, "A", 0).Index[0].Name, "", 10)
		if err != nil || len(rows) != len(full(s, "A", 0).Index) {
			b.Errorf("places %v, %v", rows, err)
		}
	}},
	{name: "hand back without mail keeps the wake time", run: func(b *bench) {
		s := subject(1)
		now := b.begin(s, "A").Now
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Wake: now.Add(time.Hour), HandBack: true})
		if n := b.load(s); n.Holder != "" || b.isDue(s) || !sameWake(n.Wake, now.Add(time.Hour)) {
			b.Errorf("to wake in an hour from %v: %+v", now, n)
		}
		b.begin(s, "B")
		b.save(state.Commit{Subject: s, Holder: "B", Version: 1, Doc: []byte("d"), Wake: now.Add(-time.Second), HandBack: true})
		if !b.isDue(s) {
			b.Errorf("the wake time has passed: %+v", b.load(s))
		}
	}},
	{name: "the flag goes up and down", run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		for i, c := range []struct{ set, clear, want bool }{{true, false, true}, {false, false, true}, {false, true, false}, {false, false, false}} {
			b.save(state.Commit{Subject: s, Holder: "A", Version: int64(i), Doc: []byte("d"), SetFlag: c.set, ClearFlag: c.clear})
			if got := b.load(s).Flagged; got != c.want {
				b.Errorf("commit %d (set %v, clear %v): flagged %v", i, c.set, c.clear, got)
			}
		}
	}},
	{name: "a forgotten id is new work", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 2)
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 2, Forget: []string{"t:test:a1", "t:test:never"}})
		if a := b.accept(letter(s, "a1")); a.Seq != 3 {
			b.Errorf("forgotten: %+v", a)
		}
		if a := b.accept(letter(s, "a2")); !a.Duplicate {
			b.Errorf("not forgotten: %+v", a)
		}
	}},
	{name: "removes only mail up to the sequence number", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 5)
		b.begin(s, "A")
		for i, through := range []int64{0, 2, 1, 4} {
			b.save(state.Commit{Subject: s, Holder: "A", Version: int64(i), Doc: []byte("d"), Through: through})
			if got, want := seqs(b.load(s).Mail), span(max(through, []int64{0, 0, 2, 0}[i])+1, 5); !slices.Equal(got, want) {
				b.Fatalf("through %d: left %v, want %v", through, got, want)
			}
		}
	}},
}

// sameWake compares a stored wake time with the one asked for; a store may keep milliseconds, rounded up.
func sameWake(got, want time.Time) bool {
	if want.IsZero() || got.IsZero() {
		return want.IsZero() == got.IsZero()
	}
	d := got.Sub(want)
	return 0 <= d && d <= 2*time.Millisecond
}

var askCases = []testCase{
	{name: "compares the version only", run: func(b *bench) {
		s := subject(1)
		ask := func(v int64) state.Commit {
			return state.Commit{Subject: s, Version: v, Doc: fmt.Append(nil, "d", v), Journal: [][]byte{[]byte("line")},
				Index: []state.Index{{Name: "waiting", Label: "x"}}, Put: []state.Record{{Key: "r", Value: []byte("v")}}}
		}
		b.refused(ask(1), state.Moved)
		b.save(ask(0))
		b.refused(ask(0), state.Moved)
		b.save(ask(1))
		if n := b.load(s); n.Version != 2 || string(n.Doc) != "d1" || !n.Wake.IsZero() || n.Holder != "" {
			b.Fatalf("after two: %+v", n)
		}
		if v, err := b.record(s, "r"); v != "v" || err != nil {
			b.Fatalf("record: %q, %v", v, err)
		}
	}},
	{name: "disturbs neither holder nor mail", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 2)
		n := b.begin(s, "A")
		end := b.load(s).Wake
		if r := b.save(state.Commit{Subject: s, Doc: []byte("d"), Wake: n.Now.Add(-time.Minute)}); len(r.Mail) != 0 || r.Released {
			b.Fatalf("answer: %+v", r)
		}
		after := b.load(s)
		if after.Holder != "A" || len(after.Mail) != 2 || after.Wake.Before(end.Add(-2*time.Millisecond)) { // a store may round what is left of a lease
			b.Fatalf("lease ends at %v: %+v", end, after)
		}
		if r := b.commit(state.Commit{Subject: s, Holder: "A", Doc: []byte("mine"), Through: 2, Release: true}); r.Verdict != state.Moved {
			b.Fatalf("the holder was not told: %+v", r)
		}
		again := b.beginAgain(s, "A")
		if again.Version != 1 || string(again.Doc) != "d" || again.Holder != "" || len(again.Mail) != 2 {
			b.Fatalf("begun again: %+v", again)
		}
		if r := b.save(state.Commit{Subject: s, Holder: "A", Version: 1, Doc: []byte("mine"), Through: 2, Release: true}); !r.Released {
			b.Fatalf("then: %+v", r)
		}
	}},
	{name: "wakes earlier, never later", run: func(b *bench) {
		s := subject(1)
		now := b.load(s).Now
		for i, c := range []struct{ ask, want time.Duration }{{0, 0}, {2 * time.Hour, 2 * time.Hour}, {3 * time.Hour, 2 * time.Hour}, {0, 2 * time.Hour}, {time.Hour, time.Hour}, {-time.Hour, -time.Hour}} {
			at := func(d time.Duration) time.Time {
				if d == 0 {
					return time.Time{}
				}
				return now.Add(d)
			}
			b.save(state.Commit{Subject: s, Version: int64(i), Doc: []byte("d"), Wake: at(c.ask)})
			if n := b.load(s); !sameWake(n.Wake, at(c.want)) {
				b.Errorf("ask %d to wake in %v: due at %v, now %v, want in %v", i, c.ask, n.Wake, now, c.want)
			}
		}
		if !b.isDue(s) {
			b.Error("not due")
		}
	}},
	{name: "leaves unread mail due", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		b.save(state.Commit{Subject: s, Doc: []byte("d"), Wake: b.load(s).Now.Add(time.Hour)})
		if !b.isDue(s) {
			b.Fatalf("not due: %+v", b.load(s))
		}
	}},
	{name: "may not touch the mailbox or a lease", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		for _, c := range []state.Commit{
			{Subject: s, Doc: []byte("d"), Through: 1},
			{Subject: s, Doc: []byte("d"), Release: true},
			{Subject: s, Doc: []byte("d"), HandBack: true},
		} {
			if r, err := b.Store.Commit(b.Context(), c); err == nil {
				b.Errorf("%+v: %+v", c, r)
			}
		}
		if n := b.load(s); n.Version != 0 || len(n.Mail) != 1 {
			b.Errorf("something was saved: %+v", n)
		}
	}},
}
