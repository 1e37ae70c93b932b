package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/state"
)

var acceptCases = []testCase{
	{name: "appends in order and makes the subject due", run: func(b *bench) {
		s := subject(1)
		if n := b.load(s); n.Version != 0 || n.Doc != nil || len(n.Mail) != 0 || !n.Wake.IsZero() || n.Now.IsZero() {
			b.Fatalf("a subject nobody wrote to: %+v", n)
		}
		for i := range 3 {
			d := letter(s, fmt.Sprint(i))
			if a := b.accept(d); a != (state.Accepted{Seq: int64(i + 1)}) {
				b.Fatalf("accept %d: %+v", i, a)
			}
		}
		n := b.load(s)
		for i, m := range n.Mail {
			d := letter(s, fmt.Sprint(i))
			if m.Seq != int64(i+1) || m.ID != d.ID || m.Kind != d.Kind || m.Format != d.Format || !bytes.Equal(m.Body, d.Body) {
				b.Errorf("mail %d: %+v", i, m)
			}
			if age := n.Now.Sub(m.At); age < 0 || age > time.Minute {
				b.Errorf("mail %d: accepted at %v, it is %v", i, m.At, n.Now)
			}
		}
		if len(n.Mail) != 3 || !b.isDue(s) {
			b.Fatalf("%d mail, due: %v", len(n.Mail), b.isDue(s))
		}
	}},
	{name: "keeps bodies to the byte", run: func(b *bench) {
		s := subject(1)
		bodies := [][]byte{nil, {0}, {0xff, 0, '\n', '"', 0xc3, 0x28}, bytes.Repeat([]byte("Aß\x00"), 100_000)}
		for i, body := range bodies {
			d := letter(s, fmt.Sprint(i))
			d.Body = body
			b.accept(d)
		}
		for i, m := range b.load(s).Mail {
			if !bytes.Equal(m.Body, bodies[i]) {
				b.Errorf("body %d of %d bytes came back with %d", i, len(bodies[i]), len(m.Body))
			}
		}
	}},
	{name: "an id takes effect once", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		again := letter(s, "a")
		again.Body, again.Raw, again.Hint = []byte("other"), []byte("other"), true
		if a := b.accept(again); a != (state.Accepted{Duplicate: true}) {
			b.Fatalf("second accept: %+v", a)
		}
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 1, Release: true})
		if a := b.accept(again); a != (state.Accepted{Duplicate: true}) {
			b.Fatalf("after its mail was consumed: %+v", a)
		}
		if n := b.load(s); len(n.Mail) != 0 || n.Flagged || !n.Wake.IsZero() {
			b.Fatalf("a duplicate changed something: %+v", n)
		}
		if _, err := b.Store.Raw(b.Context(), again.Subject, again.ID); !errors.Is(err, state.ErrNotFound) {
			b.Fatalf("a duplicate's raw body was kept: %v", err)
		}
	}},
	{name: "a sequence number is never used twice", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 3)
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 3, Release: true})
		if a := b.accept(letter(s, "b")); a.Seq != 4 {
			b.Fatalf("after the mailbox was emptied: %+v", a)
		}
	}},
	{name: "subjects do not share a mailbox", run: func(b *bench) {
		b.fill(subject(1), "a", 2)
		if a := b.accept(letter(subject(2), "b")); a.Seq != 1 {
			b.Fatalf("first mail of another subject: %+v", a)
		}
		if n := b.load(subject(2)); len(n.Mail) != 1 {
			b.Fatalf("mail of another subject: %+v", n.Mail)
		}
	}},
	{name: "a hint to a deep mailbox raises the flag instead", run: func(b *bench) {
		s := subject(1)
		hint := func(id string) state.Delivery { d := letter(s, id); d.Hint = true; return d }
		b.flood(s, state.HintDepth, hint)
		if b.load(s).Flagged {
			b.Fatal("flagged before the mailbox was deep")
		}
		if a := b.accept(hint("x")); a != (state.Accepted{Flagged: true}) {
			b.Fatalf("hint beyond the depth: %+v", a)
		}
		if a := b.accept(hint("x")); a != (state.Accepted{Duplicate: true}) {
			b.Fatalf("its id was not remembered: %+v", a)
		}
		if a := b.accept(letter(s, "y")); a.Seq != state.HintDepth+1 {
			b.Fatalf("mail that cannot be re-read: %+v", a)
		}
		n := b.begin(s, "A")
		if !n.Flagged {
			b.Fatal("the flag is not in the snapshot")
		}
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: state.HintDepth + 1, ClearFlag: true, Release: true})
		if b.load(s).Flagged {
			b.Fatal("the flag stayed up")
		}
		if a := b.accept(hint("z")); a.Seq != state.HintDepth+2 {
			b.Fatalf("hint to the emptied mailbox: %+v", a)
		}
	}},
	{name: "a flag raised during a turn outlives it", run: func(b *bench) {
		s := subject(1)
		hint := func(id string) state.Delivery { d := letter(s, id); d.Hint = true; return d }
		b.flood(s, state.HintDepth, hint)
		b.accept(hint("x"))
		if !b.begin(s, "A").Flagged {
			b.Fatal("the first begin does not see it")
		}
		if a := b.accept(hint("y")); !a.Flagged {
			b.Fatalf("during the turn: %+v", a)
		}
		c := state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: state.HintDepth, ClearFlag: true, Release: true}
		if r := b.save(c); !r.Released {
			b.Fatalf("release: %+v", r)
		}
		if n := b.load(s); !n.Flagged || !b.isDue(s) {
			b.Fatalf("after the turn: %+v", n)
		}
		if !b.begin(s, "B").Flagged {
			b.Fatal("the next begin does not see it")
		}
		b.flood(s, state.HintDepth, func(id string) state.Delivery { return hint("b" + id) })
		b.accept(hint("z"))
		if !b.beginAgain(s, "B").Flagged {
			b.Fatal("a begin sent again does not see what was raised meanwhile")
		}
		c.Holder, c.Version, c.Through = "B", 1, 2*state.HintDepth
		b.save(c)
		if n := b.load(s); n.Flagged || !n.Wake.IsZero() {
			b.Fatalf("after the next turn: %+v", n)
		}
	}},
	{name: "a full mailbox refuses and stores nothing", run: func(b *bench) {
		s := subject(1)
		b.flood(s, state.MailDepth, func(id string) state.Delivery { return letter(s, id) })
		d := letter(s, "x")
		d.Raw = []byte("raw")
		for range 2 { // a second time it would be a duplicate if the id had been kept
			if a, err := b.Store.Accept(b.Context(), d); !errors.Is(err, state.ErrFull) {
				b.Fatalf("accept beyond the depth: %+v, %v", a, err)
			}
		}
		if _, err := b.Store.Raw(b.Context(), d.Subject, d.ID); !errors.Is(err, state.ErrNotFound) {
			b.Fatalf("the refused raw body: %v", err)
		}
		if a := b.accept(letter(s, "a1")); !a.Duplicate {
			b.Fatalf("what is stored already: %+v", a)
		}
		hint := letter(s, "h")
		hint.Hint = true
		if a := b.accept(hint); !a.Flagged {
			b.Fatalf("a hint needs no room: %+v", a)
		}
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 1})
		if a := b.accept(d); a.Seq != state.MailDepth+1 {
			b.Fatalf("once there is room: %+v", a)
		}
	}},
	{name: "never waits for a lease and leaves a held subject to its holder", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		b.begin(s, "A")
		if a := b.accept(letter(s, "b")); a.Seq != 2 {
			b.Fatalf("accept under a lease: %+v", a)
		}
		if n := b.load(s); b.isDue(s) || n.Wake.IsZero() {
			b.Fatalf("held: due at %v, now %v", n.Wake, n.Now)
		}
	}},
	{name: "wakes earlier, never later", run: func(b *bench) {
		s := subject(1)
		n := b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Wake: n.Now.Add(-time.Minute), Release: true})
		before := b.load(s).Wake
		b.accept(letter(s, "a"))
		if after := b.load(s).Wake; after.After(before) {
			b.Fatalf("due moved from %v to %v", before, after)
		}
		n = b.begin(s, "B")
		b.save(state.Commit{Subject: s, Holder: "B", Version: 1, Doc: []byte("d"), Through: 1, Wake: n.Now.Add(time.Hour), Release: true})
		b.accept(letter(s, "b"))
		if !b.isDue(s) {
			b.Fatal("mail to a sleeping subject did not wake it")
		}
	}},
	{name: "answers an error once its context has ended", run: func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		cancel()
		for i := range 20 {
			b.accept(letter(subject(2), fmt.Sprint("b", i))) // the store is awake
			if a, err := b.Store.Accept(ctx, letter(subject(1), fmt.Sprint(i))); err == nil {
				b.Fatalf("accept: %+v", a)
			}
		}
	}},
}

var beginCases = []testCase{
	{name: "of a subject nobody wrote to", run: func(b *bench) {
		s := subject(1)
		n := b.begin(s, "A")
		if n.Version != 0 || n.Doc != nil || len(n.Mail) != 0 || n.Holder != "" || n.Flagged || n.Now.IsZero() {
			b.Fatalf("snapshot: %+v", n)
		}
		if got := b.load(s).Holder; got != "A" {
			b.Fatalf("holder in the document: %q", got)
		}
	}},
	{name: "answers document, version and mail", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", 2)
		b.save(state.Commit{Subject: s, Doc: []byte("d")})
		n := b.begin(s, "A")
		if n.Version != 1 || string(n.Doc) != "d" || n.Holder != "" || !slices.Equal(seqs(n.Mail), span(1, 2)) {
			b.Fatalf("snapshot: %+v", n)
		}
	}},
	{name: "answers at most one batch, the oldest", run: func(b *bench) {
		s := subject(1)
		b.fill(s, "a", state.MailBatch+1)
		if n := b.begin(s, "A"); !slices.Equal(seqs(n.Mail), span(1, state.MailBatch)) {
			b.Fatalf("begin: %v", seqs(n.Mail))
		}
		if n := b.load(s); !slices.Equal(seqs(n.Mail), span(1, state.MailBatch)) {
			b.Fatalf("load: %v", seqs(n.Mail))
		}
	}},
	{name: "is due again at the end of the lease", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		b.take(s, "A", 40*time.Millisecond)
		n, v, err := b.Store.Begin(b.Context(), s, "A", 40*time.Millisecond)
		if err != nil || v != state.OK {
			b.Fatalf("begin: %v, %v", v, err)
		}
		if end := b.load(s).Wake; end.Before(n.Now.Add(40*time.Millisecond)) || end.After(n.Now.Add(time.Second)) {
			b.Fatalf("began at %v for 40 ms, due at %v", n.Now, end)
		}
		b.pass(50 * time.Millisecond)
		if !b.isDue(s) {
			b.Fatal("the lease has ended and the subject is not due")
		}
	}},
	{name: "by the same holder changes nothing", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		first := b.begin(s, "A")
		again := b.beginAgain(s, "A")
		first.Now, again.Now, first.Wake, again.Wake = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if diff := cmp.Diff(first, again); diff != "" {
			b.Fatalf("the second begin differs:\n%s", diff)
		}
	}},
	{name: "by another takes over and says from whom", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		b.begin(s, "A")
		if n := b.begin(s, "B"); n.Holder != "A" || len(n.Mail) != 1 {
			b.Fatalf("snapshot of the successor: %+v", n)
		}
		if n := b.beginAgain(s, "B"); n.Holder != "" {
			b.Fatalf("sent again: taken over from %q", n.Holder)
		}
	}},
	{name: "after an orderly end finds no holder", run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Release: true})
		if n := b.begin(s, "B"); n.Holder != "" {
			b.Fatalf("released, found %q", n.Holder)
		}
		b.save(state.Commit{Subject: s, Holder: "B", Version: 1, Doc: []byte("d"), HandBack: true})
		if n := b.begin(s, "C"); n.Holder != "" {
			b.Fatalf("handed back, found %q", n.Holder)
		}
	}},
}

var confirmCases = []testCase{
	{name: "holder and version stand", run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		if r := b.confirm(s, "A", 0, 0); r != (state.Confirmed{}) {
			b.Fatalf("%+v", r)
		}
	}},
	{name: "moved by an Ask", run: func(b *bench) {
		s := subject(1)
		b.begin(s, "A")
		b.save(state.Commit{Subject: s, Doc: []byte("d")})
		if r := b.confirm(s, "A", 0, 0); r.Verdict != state.Moved {
			b.Fatalf("%+v", r)
		}
		if r := b.confirm(s, "A", 1, 0); r.Verdict != state.OK {
			b.Fatalf("at the new version: %+v", r)
		}
	}},
	{name: "not the owner", run: func(b *bench) {
		s := subject(1)
		if r := b.confirm(s, "A", 0, 0); r.Verdict != state.NotOwner {
			b.Fatalf("never begun: %+v", r)
		}
		b.begin(s, "A")
		b.begin(s, "B")
		if r := b.confirm(s, "A", 0, 0); r.Verdict != state.NotOwner {
			b.Fatalf("taken over: %+v", r)
		}
		b.save(state.Commit{Subject: s, Holder: "B", Doc: []byte("d"), Release: true})
		if r := b.confirm(s, "B", 1, 0); r.Verdict != state.NotOwner {
			b.Fatalf("released: %+v", r)
		}
		if r := b.confirm(s, "", 1, 0); r.Verdict != state.NotOwner {
			b.Fatalf("without a token: %+v", r)
		}
	}},
	{name: "unread mail", run: func(b *bench) {
		s := subject(1)
		b.accept(letter(s, "a"))
		b.begin(s, "A")
		if r := b.confirm(s, "A", 0, 1); r.Unread {
			b.Fatalf("mail 1 has been read: %+v", r)
		}
		b.accept(letter(s, "b"))
		if r := b.confirm(s, "A", 0, 1); r.Verdict != state.OK || !r.Unread {
			b.Fatalf("mail 2 has not: %+v", r)
		}
		b.save(state.Commit{Subject: s, Holder: "A", Doc: []byte("d"), Through: 2})
		if r := b.confirm(s, "A", 1, 2); r.Unread {
			b.Fatalf("both are consumed: %+v", r)
		}
	}},
}
