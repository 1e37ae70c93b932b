package statetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/state"
)

// rich gives a subject everything that one can have but mail, and answers its version. Its lease is token's.
func (b *bench) rich(s state.Subject, token string) int64 {
	b.Helper()
	b.accept(letter(s, "of "+s.Key))
	n := b.begin(s, token)
	b.save(state.Commit{
		Subject: s, Holder: token, Version: n.Version, Doc: []byte("d"), Through: 1,
		Index:   []state.Index{{Name: "waiting", Label: s.Key, Score: 1}, {Name: "name", Label: s.Key}},
		Journal: [][]byte{[]byte("line")},
		Put:     []state.Record{{Key: "r", Value: []byte("v"), TTL: time.Millisecond}},
	})
	b.pass(2 * time.Millisecond)
	return n.Version + 1
}

// drop drops a subject, which must work.
func (b *bench) drop(s state.Subject, token string, version int64) {
	b.Helper()
	if r := b.save(state.Commit{Subject: s, Holder: token, Version: version, Drop: true}); !r.Released || len(r.Mail) > 0 {
		b.Fatalf("drop %s at version %d: %+v", s, version, r)
	}
}

var dropCases = []testCase{
	{name: "leaves nothing of the subject", run: func(b *bench) {
		s := subject(1)
		d := letter(s, "of 1")
		d.Raw = []byte("raw")
		b.accept(d)
		b.drop(s, "A", b.rich(s, "A"))
		if left := b.Left(b); len(left) > 0 {
			b.Errorf("left: %q", left)
		}
		n := b.load(s)
		if n.Doc != nil || n.Holder != "" || !n.Wake.IsZero() || len(b.due(10)) > 0 {
			b.Errorf("%+v, due: %v", n, b.due(10))
		}
		for _, index := range []string{"waiting", "name", state.OldestSince} {
			if l := b.list(index, "", 10); len(l) > 0 {
				b.Errorf("index %s: %v", index, l)
			}
		}
		if j := b.journal(s, 10); len(j) > 0 {
			b.Errorf("journal: %q", j)
		}
		if a := b.accept(d); !a.Duplicate {
			b.Errorf("a delivery of before: %+v", a)
		}
		if raw, err := b.Store.Raw(b.Context(), s, d.ID); err != nil || string(raw) != "raw" {
			b.Errorf("its raw body: %q, %v", raw, err)
		}
	}},
	{name: "of a subject nobody wrote to leaves nothing", run: func(b *bench) {
		s := subject(1)
		b.drop(s, "A", b.begin(s, "A").Version)
		if left := b.Left(b); len(left) > 0 {
			b.Errorf("left: %q", left)
		}
	}},
	{name: "touches no neighbour", run: func(b *bench) {
		one, two := subject(1), subject(2)
		for i := 3; two.Shard() != one.Shard(); i++ {
			two = subject(i)
		}
		b.save(state.Commit{Subject: two, Holder: "B", Version: b.rich(two, "B"), HandBack: true, Wake: b.load(two).Now.Add(time.Hour)})
		before := b.traces(two)
		v := b.rich(one, "A")
		b.drop(one, "A", v)
		if diff := cmp.Diff(before, b.traces(two)); diff != "" {
			b.Errorf("the neighbour:\n%s", diff)
		}
		if r := b.save(state.Commit{Subject: two, Version: before.Snapshot.Version, Doc: []byte("e")}); r.Verdict != state.OK {
			b.Errorf("an Ask of the neighbour: %+v", r)
		}
	}},
	{name: "gives way to mail that came before", run: func(b *bench) {
		s := subject(1)
		v := b.rich(s, "A")
		b.accept(letter(s, "b"))
		before := b.traces(s)
		r := b.save(state.Commit{Subject: s, Holder: "A", Version: v, Drop: true})
		if r.Released || !slices.Equal(seqs(r.Mail), span(2, 2)) {
			b.Fatalf("answer: %+v", r)
		}
		if diff := cmp.Diff(before, b.traces(s)); diff != "" {
			b.Fatalf("it did something:\n%s", diff)
		}
		b.save(state.Commit{Subject: s, Holder: "A", Version: v, Doc: []byte("d"), Through: 2})
		b.drop(s, "A", v+1)
	}},
	{name: "mail that comes after it begins a new life", run: func(b *bench) {
		s := subject(1)
		v := b.rich(s, "A")
		b.drop(s, "A", v)
		if a := b.accept(letter(s, "b")); a.Seq != 1 || !b.isDue(s) {
			b.Fatalf("accept: %+v, due: %v", a, b.due(10))
		}
		if c := b.confirm(s, "A", v, 1); c.Verdict != state.NotOwner {
			b.Errorf("confirm of the former life: %+v", c)
		}
		for _, c := range []state.Commit{
			{Subject: s, Holder: "A", Version: v, Drop: true}, // sent again
			{Subject: s, Holder: "A", Version: v, Doc: []byte("old"), Through: 1},
		} {
			b.refused(c, state.NotOwner)
		}
		n := b.begin(s, "B")
		if n.Doc != nil || n.Holder != "" || n.Flagged || !slices.Equal(seqs(n.Mail), span(1, 1)) {
			b.Errorf("begin: %+v", n)
		}
		if c := b.confirm(s, "B", n.Version, 1); c != (state.Confirmed{}) {
			b.Errorf("confirm: %+v", c)
		}
		b.save(state.Commit{Subject: s, Holder: "B", Version: n.Version, Doc: []byte("new"), Through: 1, Release: true})
		if n := b.load(s); string(n.Doc) != "new" || len(b.journal(s, 10)) > 0 || len(b.list("name", "", 10)) > 0 {
			b.Errorf("the new life: %+v", n)
		}
	}},
	{name: "an Ask that has read one life never saves into the next", run: func(b *bench) {
		s, short := subject(1), subject(2)
		for i := 3; short.Shard() != s.Shard(); i++ {
			short = subject(i)
		}
		b.save(state.Commit{Subject: short, Doc: []byte("d")})
		for range 5 {
			b.save(state.Commit{Subject: s, Version: b.load(s).Version, Doc: []byte("d")})
		}
		v := b.rich(s, "A")
		b.drop(s, "A", v)
		b.drop(short, "B", b.begin(short, "B").Version) // ends later, with fewer versions behind it
		old := state.Commit{Subject: s, Version: v, Doc: []byte("old")}
		b.refused(old, state.Moved) // before the next life
		if n := b.load(s); n.Version <= v {
			b.Fatalf("version %d follows %d", n.Version, v)
		}
		for i := range 2 * v {
			n := b.load(s)
			b.save(state.Commit{Subject: s, Version: n.Version, Doc: fmt.Append(nil, i)})
			b.refused(old, state.Moved)
		}
	}},
	{name: "gives way to the reconcile flag", run: func(b *bench) {
		s := subject(1)
		v := b.rich(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Version: v, Doc: []byte("d"), SetFlag: true})
		wake := b.load(s).Now.Add(time.Hour)
		if r := b.save(state.Commit{Subject: s, Holder: "A", Version: v + 1, Drop: true, Wake: wake}); !r.Released {
			b.Fatalf("answer: %+v", r)
		}
		if n := b.load(s); string(n.Doc) != "d" || !n.Flagged || n.Holder != "" || !sameWake(n.Wake, wake) {
			b.Fatalf("afterwards: %+v", n)
		}
	}},
	{name: "is nobody's but the holder's, and saves nothing", run: func(b *bench) {
		s := subject(1)
		v := b.rich(s, "A")
		b.begin(s, "B")
		b.refused(state.Commit{Subject: s, Holder: "A", Version: v, Drop: true}, state.NotOwner)
		b.refused(state.Commit{Subject: s, Holder: "B", Version: v - 1, Drop: true}, state.Moved)
		for _, c := range []state.Commit{
			{}, {Holder: "B", Doc: []byte("e")}, {Holder: "B", Journal: [][]byte{[]byte("line")}}, {Holder: "B", Put: []state.Record{{Key: "r", Value: []byte("v")}}},
		} {
			c.Subject, c.Version, c.Drop = s, v, true
			if r, err := b.Store.Commit(b.Context(), c); err == nil {
				b.Errorf("%+v: %+v", c, r)
			}
		}
		if n := b.load(s); n.Version != v || string(n.Doc) != "d" {
			b.Errorf("afterwards: %+v", n)
		}
	}},
	{name: "and mail at the same time lose nothing", run: func(b *bench) {
		s := subject(1)
		for round := range 30 {
			n := b.begin(s, "A")
			b.save(state.Commit{Subject: s, Holder: "A", Version: n.Version, Doc: []byte("d")})
			b.together(2, func(i int) error {
				var err error
				if i == 0 {
					_, err = b.Store.Accept(b.Context(), letter(s, fmt.Sprint(round)))
				} else {
					_, err = b.Store.Commit(b.Context(), state.Commit{Subject: s, Holder: "A", Version: n.Version + 1, Drop: true})
				}
				return err
			})
			n = b.load(s)
			held := n.Holder == "A" && string(n.Doc) == "d"
			if len(n.Mail) != 1 || !held && (n.Doc != nil || !b.isDue(s)) {
				b.Fatalf("round %d: %+v", round, n)
			}
			n = b.begin(s, "A")
			b.save(state.Commit{Subject: s, Holder: "A", Version: n.Version, Doc: []byte("d"), Through: n.Mail[0].Seq})
			b.drop(s, "A", n.Version+1)
		}
	}},
}
