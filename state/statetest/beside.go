package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/state"
)

var scheduleCases = []testCase{
	{name: "lists those due longest first, at most limit", run: func(b *bench) {
		// Redis promises the order within a shard only, so these three share one.
		var same []state.Subject
		for i := 0; len(same) < 3; i++ {
			if s := subject(i); len(same) == 0 || s.Shard() == same[0].Shard() {
				same = append(same, s)
			}
		}
		now := b.load(same[0]).Now
		for i, ago := range []time.Duration{2, 3, 1} {
			b.save(state.Commit{Subject: same[i], Doc: []byte("d"), Wake: now.Add(-ago * time.Minute)})
		}
		want := []state.Subject{same[1], same[0], same[2]}
		if got := b.due(10); !slices.Equal(got, want) {
			b.Errorf("all: %v, want %v", got, want)
		}
		if got := b.due(2); !slices.Equal(got, want[:2]) {
			b.Errorf("two: %v, want %v", got, want[:2])
		}
	}},
	{name: "lists nobody who sleeps or is held", run: func(b *bench) {
		if got := b.due(10); len(got) != 0 {
			b.Errorf("an empty store: %v", got)
		}
		now := b.load(subject(1)).Now
		b.save(state.Commit{Subject: subject(1), Doc: []byte("d"), Wake: now.Add(time.Hour)})
		b.save(state.Commit{Subject: subject(2), Doc: []byte("d")})
		b.accept(letter(subject(3), "a"))
		b.begin(subject(3), "A")
		if got := b.due(10); len(got) != 0 {
			b.Errorf("due: %v", got)
		}
	}},
	{name: "lists all of many", run: func(b *bench) {
		want := map[state.Subject]bool{}
		for i := range 300 {
			b.accept(letter(subject(i), fmt.Sprint(i)))
			want[subject(i)] = true
		}
		for _, s := range b.due(1000) {
			if !want[s] {
				b.Errorf("%s twice, or unknown", s)
			}
			delete(want, s)
		}
		if len(want) != 0 {
			b.Errorf("%d subjects with mail are not due", len(want))
		}
		if got := len(b.due(7)); got != 7 {
			b.Errorf("limit 7: %d", got)
		}
	}},
	{name: "subjects come back as they were written", run: func(b *bench) {
		for i, s := range []state.Subject{
			{Instance: "gitlab eu", Project: "-", Kind: "sweep", Key: "a/b%2F"},
			{Instance: "ü", Project: "{s000}", Kind: "pr", Key: "*?[x]:"},
		} {
			b.accept(letter(s, fmt.Sprint(i)))
			b.save(state.Commit{Subject: s, Doc: []byte("d"), Index: []state.Index{{Name: "name", Label: "l"}}})
			if !b.isDue(s) {
				b.Errorf("due: %v, want %v", b.due(10), s)
			}
			if got := b.list("name", "", 10); !slices.ContainsFunc(got, func(e state.Entry) bool { return e.Subject == s }) {
				b.Errorf("listed: %v, want %v", got, s)
			}
		}
	}},
	{name: "deferring changes nothing for a subject that nobody holds", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		for _, x := range []state.Subject{s, subject(2)} {
			if err := b.Store.Defer(b.Context(), x); err != nil {
				b.Fatalf("defer: %v", err)
			}
		}
		if got := b.due(10); !slices.Equal(got, []state.Subject{s}) {
			b.Fatalf("due: %v", got)
		}
	}},
}

var indexCases = []testCase{
	{name: "a commit replaces the subject's places and nobody else's", run: func(b *bench) {
		one, two := subject(1), subject(2)
		put := func(s state.Subject, v int64, x ...state.Index) {
			b.save(state.Commit{Subject: s, Version: v, Doc: []byte("d"), Index: x})
		}
		put(one, 0, state.Index{Name: "waiting", Label: "one", Score: 5}, state.Index{Name: "dead", Label: "one", Score: 1})
		put(two, 0, state.Index{Name: "waiting", Label: "two", Score: 4})
		put(one, 1, state.Index{Name: "waiting", Label: "uno", Score: 3})
		want := []state.Entry{
			{Subject: one, Index: state.Index{Name: "waiting", Label: "uno", Score: 3}},
			{Subject: two, Index: state.Index{Name: "waiting", Label: "two", Score: 4}},
		}
		if diff := cmp.Diff(want, b.list("waiting", "", 10)); diff != "" {
			b.Errorf("waiting:\n%s", diff)
		}
		if got := b.list("dead", "", 10); len(got) != 0 {
			b.Errorf("dead: %v", got)
		}
		put(one, 2)
		if diff := cmp.Diff(want[1:], b.list("waiting", "", 10)); diff != "" {
			b.Errorf("waiting after the set became empty:\n%s", diff)
		}
	}},
	{name: "is read by score, then label, at most limit", run: func(b *bench) {
		var want []state.Entry
		for i, x := range []state.Index{{Label: "b", Score: -2.5}, {Label: "a", Score: 1}, {Label: "c", Score: 1}, {Label: "aa", Score: 1e12 + 0.25}} {
			x.Name = "failing"
			want = append(want, state.Entry{Subject: subject(i), Index: x})
		}
		for _, i := range []int{2, 0, 3, 1} {
			b.save(state.Commit{Subject: want[i].Subject, Doc: []byte("d"), Index: []state.Index{want[i].Index}})
		}
		if diff := cmp.Diff(want, b.list("failing", "", 10)); diff != "" {
			b.Errorf("all:\n%s", diff)
		}
		if diff := cmp.Diff(want[:2], b.list("failing", "", 2)); diff != "" {
			b.Errorf("two:\n%s", diff)
		}
	}},
	{name: "is searched by prefix of the label", run: func(b *bench) {
		s := subject(1)
		var x []state.Index
		for _, l := range []string{"acme/app#1", "acme/app#12", "acme/apple#1", "acme/zoo#1", "acme/äpp#1", "%", "_"} {
			x = append(x, state.Index{Name: "name", Label: l})
		}
		b.save(state.Commit{Subject: s, Doc: []byte("d"), Index: x})
		b.save(state.Commit{Subject: subject(2), Doc: []byte("d"), Index: []state.Index{{Name: "name", Label: "acme/app#2"}}})
		for prefix, want := range map[string][]string{
			"acme/app#": {"acme/app#1", "acme/app#12", "acme/app#2"}, "acme/app#1": {"acme/app#1", "acme/app#12"},
			"acme/ä": {"acme/äpp#1"}, "ACME": nil, "%": {"%"}, "_": {"_"}, "zzz": nil,
			"": {"%", "_", "acme/app#1", "acme/app#12", "acme/app#2", "acme/apple#1", "acme/zoo#1", "acme/äpp#1"},
		} {
			var got []string
			for _, e := range b.list("name", prefix, 100) {
				got = append(got, e.Label)
			}
			if !slices.Equal(got, want) {
				b.Errorf("prefix %q: %q, want %q", prefix, got, want)
			}
		}
		if got := b.list("name", "acme/app", 2); len(got) != 2 || got[0].Label != "acme/app#1" || got[1].Label != "acme/app#12" {
			b.Errorf("prefix with limit 2: %v", got)
		}
	}},
	{name: "a label may be shared by subjects", run: func(b *bench) {
		for i := range 3 {
			b.save(state.Commit{Subject: subject(i), Doc: []byte("d"), Index: []state.Index{{Name: "running", Label: "same", Score: 1}}})
		}
		if got := b.list("running", "", 10); len(got) != 3 {
			b.Errorf("listed: %v", got)
		}
	}},
	{name: "oldest-since tells the age of the oldest unread mail, beside what commits place there", run: func(b *bench) {
		one, two := subject(1), subject(2)
		expect := func(when string, want ...string) {
			b.Helper()
			var got []string
			last := math.Inf(-1)
			for _, x := range b.list(state.OldestSince, "", 10) {
				if x.Score < last {
					b.Errorf("%s: out of order", when)
				}
				last = x.Score
				what := fmt.Sprint(x.Subject.Key, " ", x.Label, " ", x.Score)
				for _, s := range []state.Subject{one, two} {
					if mail := b.load(s).Mail; x.Subject == s && x.Label == state.MailLabel && len(mail) > 0 && x.Score == float64(mail[0].At.UnixMilli()) {
						what = fmt.Sprint(s.Key, " mail ", mail[0].Seq)
					}
				}
				got = append(got, what)
			}
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				b.Errorf("%s:\n%s", when, diff)
			}
		}
		expect("nothing yet")
		b.accept(letter(two, "a"))
		b.pass(20 * time.Millisecond)
		b.fill(one, "b", 3)
		b.accept(letter(one, "b1"))
		expect("stored", "1 mail 1", "2 mail 1")
		b.begin(one, "A")
		expect("begun", "1 mail 1", "2 mail 1")
		place := []state.Index{{Name: state.OldestSince, Label: "entry", Score: 7}}
		b.pass(20 * time.Millisecond)
		b.accept(letter(one, "late"))
		expect("more stored", "1 mail 1", "2 mail 1")
		b.save(state.Commit{Subject: one, Holder: "A", Doc: []byte("d"), Through: 3, Index: place})
		expect("all but the newest decided", "1 entry 7", "1 mail 4", "2 mail 1")
		b.save(state.Commit{Subject: one, Holder: "A", Version: 1, Through: 4})
		expect("all decided", "1 entry 7", "2 mail 1")
		b.save(state.Commit{Subject: two, Doc: []byte("ask"), Index: place})
		expect("an Ask takes no mail", "1 entry 7", "2 entry 7", "2 mail 1")
		b.begin(two, "B")
		b.save(state.Commit{Subject: two, Holder: "B", Version: 1, Doc: []byte("d"), Through: 1, Release: true})
		b.save(state.Commit{Subject: one, Holder: "A", Version: 1, Doc: []byte("d"), Release: true})
		expect("done")
		b.accept(letter(two, "again"))
		expect("again", "2 mail 2")
	}},
}

var besideCases = []testCase{
	{name: "records belong to their subject, are replaced and deleted", run: func(b *bench) {
		one, two := subject(1), subject(2)
		put := func(s state.Subject, v int64, r ...state.Record) {
			b.save(state.Commit{Subject: s, Version: v, Doc: []byte("d"), Put: r})
		}
		want := func(s state.Subject, key, value string) {
			b.Helper()
			if got, err := b.record(s, key); err != nil || got != value {
				b.Errorf("record %s of %s: %q, %v", key, s, got, err)
			}
		}
		put(one, 0, state.Record{Key: "a", Value: []byte("1")}, state.Record{Key: "b", Value: []byte{}}, state.Record{Key: "reply/x:y", Value: []byte{0, 0xff}})
		put(two, 0, state.Record{Key: "a", Value: []byte("2")})
		want(one, "a", "1")
		want(one, "b", "")
		want(one, "reply/x:y", "\x00\xff")
		want(two, "a", "2")
		put(one, 1, state.Record{Key: "a", Value: []byte("3")})
		want(one, "a", "3")
		want(one, "b", "")
		put(one, 2, state.Record{Key: "a"}, state.Record{Key: "never"})
		if got, err := b.record(one, "a"); !errors.Is(err, state.ErrNotFound) {
			b.Errorf("deleted record: %q, %v", got, err)
		}
		want(two, "a", "2")
		if got, err := b.record(two, "b"); !errors.Is(err, state.ErrNotFound) {
			b.Errorf("a record of another subject: %q, %v", got, err)
		}
	}},
	{name: "a record ends with its time to live", run: func(b *bench) {
		s := subject(1)
		b.save(state.Commit{Subject: s, Doc: []byte("d"), Put: []state.Record{
			{Key: "short", Value: []byte("v"), TTL: 40 * time.Millisecond},
			{Key: "long", Value: []byte("v"), TTL: time.Hour},
			{Key: "kept", Value: []byte("v")},
			{Key: "renewed", Value: []byte("v"), TTL: 40 * time.Millisecond},
		}})
		b.save(state.Commit{Subject: s, Version: 1, Doc: []byte("d"), Put: []state.Record{{Key: "renewed", Value: []byte("w")}}})
		b.pass(60 * time.Millisecond)
		if got, err := b.record(s, "short"); !errors.Is(err, state.ErrNotFound) {
			b.Errorf("short: %q, %v", got, err)
		}
		for key, want := range map[string]string{"long": "v", "kept": "v", "renewed": "w"} {
			if got, err := b.record(s, key); err != nil || got != want {
				b.Errorf("%s: %q, %v", key, got, err)
			}
		}
	}},
	{name: "the journal keeps the newest lines in order", run: func(b *bench) {
		s := subject(1)
		if got := b.journal(s, 10); len(got) != 0 {
			b.Errorf("of a subject without a story: %q", got)
		}
		b.save(state.Commit{Subject: subject(2), Doc: []byte("d"), Journal: [][]byte{[]byte("other")}})
		line, total := 0, 0
		for v, n := range []int{1, 0, 3, state.JournalKept - 2, state.JournalKept + 7} {
			var lines [][]byte
			for range n {
				lines = append(lines, fmt.Append(nil, "line ", line))
				line++
			}
			total += n
			b.save(state.Commit{Subject: s, Version: int64(v), Doc: []byte("d"), Journal: lines})
			got := b.journal(s, 10*state.JournalKept)
			if len(got) != min(total, state.JournalKept) {
				b.Fatalf("%d lines written, %d kept", total, len(got))
			}
			for i, l := range got {
				if want := fmt.Sprint("line ", total-len(got)+i); l != want {
					b.Fatalf("line %d of %d: %q, want %q", i, len(got), l, want)
				}
			}
		}
		if got, want := b.journal(s, 2), []string{fmt.Sprint("line ", total-2), fmt.Sprint("line ", total-1)}; !slices.Equal(got, want) {
			b.Errorf("the last two: %q, want %q", got, want)
		}
		if got := b.journal(subject(2), 10); !slices.Equal(got, []string{"other"}) {
			b.Errorf("another subject's story: %q", got)
		}
	}},
	{name: "a raw body comes back as it arrived", run: func(b *bench) {
		s := subject(1)
		for i, raw := range [][]byte{{}, []byte("{}"), bytes.Repeat([]byte(`{"action":"labeled"},`), 5000), {0xff, 0xfe, 0}} {
			d := letter(s, fmt.Sprint(i))
			d.Raw = raw
			b.accept(d)
			if got, err := b.Store.Raw(b.Context(), d.Subject, d.ID); err != nil || !bytes.Equal(got, raw) {
				b.Errorf("raw body of %d bytes: %d bytes, %v", len(raw), len(got), err)
			}
		}
		b.accept(letter(s, "none"))
		for _, id := range []string{"t:test:none", "t:test:never"} {
			if got, err := b.Store.Raw(b.Context(), subject(1), id); !errors.Is(err, state.ErrNotFound) {
				b.Errorf("%s: %q, %v", id, got, err)
			}
		}
	}},
	{name: "a forgotten id keeps its raw body until it arrives again", run: func(b *bench) {
		s := subject(1)
		d := letter(s, "a")
		d.Raw = []byte("first")
		b.accept(d)
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 1, Forget: []string{d.ID}, Release: true})
		if got, err := b.Store.Raw(b.Context(), d.Subject, d.ID); err != nil || string(got) != "first" {
			b.Errorf("after forgetting: %q, %v", got, err)
		}
		d.Raw = []byte("second")
		b.accept(d)
		if got, err := b.Store.Raw(b.Context(), d.Subject, d.ID); err != nil || string(got) != "second" {
			b.Errorf("after it came again: %q, %v", got, err)
		}
	}},
	{name: "the history has one name", run: func(b *bench) {
		first, err := b.Store.Identity(b.Context())
		if err != nil || first == "" {
			b.Fatalf("identity: %q, %v", first, err)
		}
		b.accept(letter(subject(1), "a"))
		if again, err := b.Store.Identity(b.Context()); err != nil || again != first {
			b.Fatalf("identity: %q, then %q, %v", first, again, err)
		}
	}},
}

var leaseCases = []testCase{
	{name: "begin without the lease is not the owner's", lease: true, run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		if _, v, err := b.Store.Begin(b.Context(), s, "A", lease); err != nil || v != state.NotOwner {
			b.Fatalf("without: %v, %v", v, err)
		}
		b.take(s, "B", lease)
		if _, v, err := b.Store.Begin(b.Context(), s, "A", lease); err != nil || v != state.NotOwner {
			b.Fatalf("with another's: %v, %v", v, err)
		}
		if n := b.load(s); n.Holder != "" || !b.isDue(s) {
			b.Fatalf("it left traces: %+v", n)
		}
	}},
	{name: "release deletes the lease's key, but only its own", lease: true, run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		if r := b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Release: true}); !r.Released || b.Token(b, s) != "" {
			b.Fatalf("own: %+v, key holds %q", r, b.Token(b, s))
		}
		b.begin(s, "B")
		b.take(s, "C", lease) // C has the lease and has not begun yet
		if r := b.save(state.Commit{Subject: s, Holder: "B", Version: 1, Doc: []byte("d"), HandBack: true}); !r.Released || b.Token(b, s) != "C" {
			b.Fatalf("another's: %+v, key holds %q", r, b.Token(b, s))
		}
	}},
	{name: "a lease that ran out unchallenged still commits", lease: true, run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		b.Unlock(b, s)
		if r := b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Release: true}); !r.Released {
			b.Fatalf("%+v", r)
		}
	}},
	{name: "mail wakes a subject whose lease ran out", lease: true, run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		b.Unlock(b, s)
		b.accept(letter(s, "a"))
		if !b.isDue(s) {
			b.Fatalf("not due: %+v", b.load(s))
		}
	}},
	{name: "mail behind a lease that nobody began with is due when it ends", lease: true, run: func(b *bench) {
		s := subject(1)
		b.take(s, "A", 40*time.Millisecond)
		b.accept(letter(s, "a"))
		if n := b.load(s); n.Wake.IsZero() {
			b.Fatalf("stranded: %+v", n)
		}
		b.pass(60 * time.Millisecond)
		if !b.isDue(s) {
			b.Fatalf("not due: %+v", b.load(s))
		}
	}},
	{name: "deferring moves a subject to the end of the lease", lease: true, run: func(b *bench) {
		long, short := subject(1), subject(2)
		b.accept(letter(long, "a"))
		b.accept(letter(short, "b"))
		b.take(long, "A", lease)
		b.take(short, "A", 40*time.Millisecond)
		for _, s := range []state.Subject{long, short} {
			if err := b.Store.Defer(b.Context(), s); err != nil {
				b.Fatalf("defer: %v", err)
			}
		}
		if b.isDue(long) {
			b.Fatalf("due under a lease: %+v", b.load(long))
		}
		b.pass(60 * time.Millisecond)
		if !b.isDue(short) {
			b.Fatalf("not due after its lease: %+v", b.load(short))
		}
	}},
}

var laterCases = []testCase{
	{name: "an id is new work after its life", weeks: true, run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		b.Advance(state.IDLife - time.Hour)
		if a := b.accept(letter(s, "a")); !a.Duplicate {
			b.Fatalf("within its life: %+v", a)
		}
		b.Advance(2 * time.Hour)
		if a := b.accept(letter(s, "a")); a.Seq != 2 {
			b.Fatalf("after its life: %+v", a)
		}
		if a := b.accept(letter(s, "a")); !a.Duplicate {
			b.Fatalf("its second life: %+v", a)
		}
	}},
	{name: "a raw body is gone after its life", weeks: true, run: func(b *bench) {
		d := letter(subject(1), "a")
		d.Raw = []byte("raw")
		b.accept(d)
		b.Advance(state.RawLife - time.Hour)
		if _, err := b.Store.Raw(b.Context(), d.Subject, d.ID); err != nil {
			b.Fatalf("within its life: %v", err)
		}
		b.Advance(2 * time.Hour)
		if _, err := b.Store.Raw(b.Context(), d.Subject, d.ID); !errors.Is(err, state.ErrNotFound) {
			b.Fatalf("after its life: %v", err)
		}
	}},
}
