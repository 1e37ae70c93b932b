// Package statetest is the one conformance suite that every store must pass. It knows a store only by what it
// promises: each subtest is named after a sentence of package state or of the engine's guarantees.
package statetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

// Store is the engine's view of a store together with what pages and commands read. It repeats actor.Store, which
// the stores must not import.
type Store interface {
	Accept(ctx context.Context, d state.Delivery) (state.Accepted, error)
	Begin(ctx context.Context, s state.Subject, holder string, lease time.Duration) (state.Snapshot, state.Verdict, error)
	Confirm(ctx context.Context, s state.Subject, holder string, version, seq int64) (state.Confirmed, error)
	Commit(ctx context.Context, c state.Commit) (state.Committed, error)
	Due(ctx context.Context, limit int) ([]state.Subject, error)
	Defer(ctx context.Context, s state.Subject) error
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
	List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error)
	Identity(ctx context.Context) (string, error)
	// Raw answers a raw body kept under a delivery's ID; state.ErrNotFound if there is none (any more).
	Raw(ctx context.Context, s state.Subject, id string) ([]byte, error)
	// Journal answers the newest limit lines of a subject's story, the oldest of them first.
	Journal(ctx context.Context, s state.Subject, limit int) ([][]byte, error)
}

// Harness is an empty store and the levers the suite needs beside it.
type Harness struct {
	Store Store
	// Lock makes the lease's key of the subject (state.Subject.LockKey) hold token for ttl, whoever held it before:
	// the suite plays expiry with it. Nil where the store does not look at leases; then Unlock and Token are nil too.
	Lock func(t testing.TB, s state.Subject, token string, ttl time.Duration)
	// Unlock deletes the lease's key, whatever it holds.
	Unlock func(t testing.TB, s state.Subject)
	// Token is what the lease's key holds; empty = there is none.
	Token func(t testing.TB, s state.Subject) string
	// Advance moves the store's time. Nil where it cannot be moved: short spans are then really waited for, and the
	// group "weeks later" is left out.
	Advance func(d time.Duration)
	// Left names everything that the store holds beside ids and raw bodies of deliveries.
	Left func(t testing.TB) []string
}

// Run runs the suite. open is called once for each subtest and answers a store without subjects; what it opens it
// also closes, with t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	groups := []struct {
		name  string
		cases []testCase
	}{
		{"accept", acceptCases},
		{"begin", beginCases},
		{"confirm", confirmCases},
		{"commit", commitCases},
		{"ask", askCases},
		{"drop", dropCases},
		{"schedule", scheduleCases},
		{"index", indexCases},
		{"beside", besideCases},
		{"lease", leaseCases},
		{"weeks later", laterCases},
		{"at once", concurrentCases},
		{"model", modelCases},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for _, c := range g.cases {
				t.Run(c.name, func(t *testing.T) {
					h := open(t)
					if c.lease && h.Lock == nil {
						return // the store promises nothing here
					}
					if c.weeks && h.Advance == nil {
						return // its time cannot be moved that far
					}
					c.run(&bench{T: t, Harness: h})
				})
			}
		})
	}
}

// testCase is one sentence and its proof.
type testCase struct {
	name  string
	run   func(*bench)
	lease bool // only for stores that look at leases
	weeks bool // only where time can be moved
}

// bench is a test with a store on it. Its verbs fail the test on an error.
type bench struct {
	*testing.T
	Harness
}

// lease is longer than any test takes; a lease that must end is given its own length.
const lease = time.Hour

// subject is the n-th subject of a test.
func subject(n int) state.Subject {
	return state.Subject{Instance: "github", Project: "1296269", Kind: "pr", Key: fmt.Sprint(n)}
}

// letter is a plain delivery to the subject under the id "t:test:<id>".
func letter(s state.Subject, id string) state.Delivery {
	return state.Delivery{Subject: s, ID: "t:test:" + id, Kind: "letter", Format: 3, Body: []byte("body of " + id)}
}

func (b *bench) accept(d state.Delivery) state.Accepted {
	b.Helper()
	a, err := b.Store.Accept(b.Context(), d)
	if err != nil {
		b.Fatalf("accept %s: %v", d.ID, err)
	}
	return a
}

// fill accepts n letters with ids "<prefix>1" to "<prefix>n".
func (b *bench) fill(s state.Subject, prefix string, n int) {
	b.Helper()
	for i := range n {
		if a := b.accept(letter(s, fmt.Sprint(prefix, i+1))); a.Seq == 0 {
			b.Fatalf("letter %s%d was not appended: %+v", prefix, i+1, a)
		}
	}
}

// flood is fill by many senders at once, for numbers that would take long one after another; the letters arrive in any
// order.
func (b *bench) flood(s state.Subject, n int, write func(id string) state.Delivery) {
	b.Helper()
	const senders = 50
	b.together(senders, func(from int) error {
		for i := from + 1; i <= n; i += senders {
			if a, err := b.Store.Accept(b.Context(), write(fmt.Sprint("a", i))); err != nil || a.Seq == 0 {
				return fmt.Errorf("letter a%d of %d to %s was not appended: %+v, %w", i, n, s, a, err)
			}
		}
		return nil
	})
}

// take makes the subject's lease token's, whoever has it.
func (b *bench) take(s state.Subject, token string, ttl time.Duration) {
	if b.Lock != nil {
		b.Lock(b, s, token, ttl)
	}
}

// begin takes the lease and begins.
func (b *bench) begin(s state.Subject, token string) state.Snapshot {
	b.Helper()
	b.take(s, token, lease)
	return b.beginAgain(s, token)
}

// beginAgain begins without taking the lease.
func (b *bench) beginAgain(s state.Subject, token string) state.Snapshot {
	b.Helper()
	n, v, err := b.Store.Begin(b.Context(), s, token, lease)
	if err != nil || v != state.OK {
		b.Fatalf("begin %s as %s: %v, %v", s, token, v, err)
	}
	return n
}

func (b *bench) commit(c state.Commit) state.Committed {
	b.Helper()
	r, err := b.Store.Commit(b.Context(), c)
	if err != nil {
		b.Fatalf("commit %s as %q at version %d: %v", c.Subject, c.Holder, c.Version, err)
	}
	return r
}

// save is a commit that must be accepted.
func (b *bench) save(c state.Commit) state.Committed {
	b.Helper()
	r := b.commit(c)
	if r.Verdict != state.OK {
		b.Fatalf("commit %s as %q at version %d: %v", c.Subject, c.Holder, c.Version, r.Verdict)
	}
	return r
}

func (b *bench) confirm(s state.Subject, token string, version, seq int64) state.Confirmed {
	b.Helper()
	r, err := b.Store.Confirm(b.Context(), s, token, version, seq)
	if err != nil {
		b.Fatalf("confirm %s as %s: %v", s, token, err)
	}
	return r
}

func (b *bench) load(s state.Subject) state.Snapshot {
	b.Helper()
	n, err := b.Store.Load(b.Context(), s)
	if err != nil {
		b.Fatalf("load %s: %v", s, err)
	}
	return n
}

func (b *bench) due(limit int) []state.Subject {
	b.Helper()
	d, err := b.Store.Due(b.Context(), limit)
	if err != nil {
		b.Fatalf("due: %v", err)
	}
	return d
}

// isDue says whether the subject is among those due, and checks that its own Wake agrees.
func (b *bench) isDue(s state.Subject) bool {
	b.Helper()
	found := false
	for _, d := range b.due(1000) {
		found = found || d == s
	}
	n := b.load(s)
	if passed := !n.Wake.IsZero() && !n.Wake.After(n.Now); passed && !found {
		b.Fatalf("%s: wake time %v has passed at %v, but it is not listed as due", s, n.Wake, n.Now)
	}
	return found
}

func (b *bench) list(index, prefix string, limit int) []state.Entry {
	b.Helper()
	l, err := b.Store.List(b.Context(), index, prefix, limit)
	if err != nil {
		b.Fatalf("list %s %q: %v", index, prefix, err)
	}
	return l
}

func (b *bench) journal(s state.Subject, limit int) []string {
	b.Helper()
	l, err := b.Store.Journal(b.Context(), s, limit)
	if err != nil {
		b.Fatalf("journal of %s: %v", s, err)
	}
	var lines []string
	for _, x := range l {
		lines = append(lines, string(x))
	}
	return lines
}

func (b *bench) record(s state.Subject, key string) (string, error) {
	v, err := b.Store.Record(b.Context(), s, key)
	return string(v), err
}

// pass lets d of the store's time pass, by moving it or by watching it go.
func (b *bench) pass(d time.Duration) {
	b.Helper()
	if b.Advance != nil {
		b.Advance(d)
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := b.load(subject(0)).Now.Add(d); !b.load(subject(0)).Now.After(end); {
		select {
		case <-tick.C:
		case <-b.Context().Done():
			b.Fatal("the store's time stands still")
		}
	}
}

// seqs are the sequence numbers of mail.
func seqs(mail []state.Mail) []int64 {
	n := []int64{}
	for _, m := range mail {
		n = append(n, m.Seq)
	}
	return n
}

// span is from, from+1, … to.
func span(from, to int64) []int64 {
	n := []int64{}
	for ; from <= to; from++ {
		n = append(n, from)
	}
	return n
}
