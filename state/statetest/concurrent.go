package statetest

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/signalbox-ci/signalbox/state"
)

// together runs f(0) … f(n-1) in goroutines and waits for all of them. f must not end the test: it reports an error.
func (b *bench) together(n int, f func(i int) error) {
	b.Helper()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(i); err != nil {
				b.Errorf("goroutine %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

var concurrentCases = []testCase{
	{name: "one id from fifty senders is appended once", run: func(b *bench) {
		s := subject(1)
		for round := range 5 {
			var appended, duplicate atomic.Int64
			b.together(50, func(int) error {
				a, err := b.Store.Accept(b.Context(), letter(s, fmt.Sprint("same", round)))
				switch {
				case err != nil:
					return err
				case a.Seq > 0:
					appended.Add(1)
				case a.Duplicate:
					duplicate.Add(1)
				}
				return nil
			})
			if appended.Load() != 1 || duplicate.Load() != 49 {
				b.Fatalf("round %d: %d appended, %d duplicates", round, appended.Load(), duplicate.Load())
			}
		}
		if got := seqs(b.load(s).Mail); !slices.Equal(got, span(1, 5)) {
			b.Fatalf("mailbox: %v", got)
		}
	}},
	{name: "mail of one sender stands in the order of its accepts", run: func(b *bench) {
		s := subject(1)
		const senders, each = 6, 10
		b.together(senders, func(i int) error {
			last := int64(0)
			for n := range each {
				a, err := b.Store.Accept(b.Context(), letter(s, fmt.Sprintf("%d.%02d", i, n)))
				if err != nil {
					return err
				}
				if a.Seq <= last {
					return fmt.Errorf("mail %d has number %d after %d", n, a.Seq, last)
				}
				last = a.Seq
			}
			return nil
		})
		mail := b.load(s).Mail
		if !slices.Equal(seqs(mail), span(1, senders*each)) {
			b.Fatalf("numbers: %v", seqs(mail))
		}
		bySender := map[string][]string{}
		for _, m := range mail {
			sender, _, _ := strings.Cut(m.ID, ".")
			bySender[sender] = append(bySender[sender], m.ID)
		}
		for sender, ids := range bySender {
			if len(ids) != each || !slices.IsSorted(ids) {
				b.Errorf("sender %s: %q", sender, ids)
			}
		}
	}},
	{name: "each version is saved by one", run: func(b *bench) {
		s := subject(1)
		var saved atomic.Int64
		b.together(8, func(i int) error {
			for done := 0; done < 5; {
				n, err := b.Store.Load(b.Context(), s)
				if err != nil {
					return err
				}
				r, err := b.Store.Commit(b.Context(), state.Commit{Subject: s, Version: n.Version, Doc: fmt.Append(n.Doc, "x"), Journal: [][]byte{fmt.Append(nil, n.Version+1)}})
				if err != nil {
					return err
				}
				if r.Verdict == state.OK {
					done++
					saved.Add(1)
				}
			}
			return nil
		})
		n := b.load(s)
		if saved.Load() != 40 || n.Version != 40 || len(n.Doc) != 40 {
			b.Fatalf("%d saved, version %d, document %q", saved.Load(), n.Version, n.Doc)
		}
		for i, line := range b.journal(s, 100) {
			if line != fmt.Sprint(i+1) {
				b.Fatalf("journal line %d: %q", i, line)
			}
		}
	}},
	{name: "mail accepted during turns is read once and in order", run: func(b *bench) {
		s := subject(1)
		const total = 200
		var read []int64
		var sent atomic.Bool
		b.together(2, func(i int) error {
			if i == 0 {
				defer sent.Store(true)
				for n := range total {
					if _, err := b.Store.Accept(b.Context(), letter(s, fmt.Sprint(n))); err != nil {
						return err
					}
				}
				return nil
			}
			version := int64(0)
			for turn := 0; ; turn++ {
				last := sent.Load()
				token := fmt.Sprint("T", turn)
				b.take(s, token, lease)
				n, v, err := b.Store.Begin(b.Context(), s, token, lease)
				if err != nil {
					return err
				}
				if v != state.OK {
					return fmt.Errorf("begin: %v", v)
				}
				for mail, released := n.Mail, false; !released; {
					through := int64(0)
					for _, m := range mail {
						read, through = append(read, m.Seq), m.Seq
					}
					r, err := b.Store.Commit(b.Context(), state.Commit{Subject: s, Holder: token, Version: version, Doc: []byte("d"), Through: through, Release: true})
					if err != nil {
						return err
					}
					if r.Verdict != state.OK {
						return fmt.Errorf("commit: %v", r.Verdict)
					}
					version++
					mail, released = r.Mail, r.Released
				}
				if last {
					return nil
				}
			}
		})
		if !slices.Equal(read, span(1, total)) {
			b.Fatalf("read %v", read)
		}
		if n := b.load(s); len(n.Mail) != 0 || !n.Wake.IsZero() {
			b.Fatalf("at the end: %+v", n)
		}
	}},
}
