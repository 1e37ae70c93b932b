package statetest

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/state"
)

// model is what a subject must look like, in the plainest possible form.
type model struct {
	version int64
	doc     string
	holder  string
	flagged bool
	seq     int64
	mail    []string // ids, the last has number seq
	known   map[string]bool
	journal []string
	places  []state.Index
	record  string
	// due is when the subject runs next: zero = never, past = now, else the time asked for; a held one is due at
	// the end of its lease, whatever stands here.
	due time.Time
}

var past = time.Unix(1, 0)

func (m *model) first() int64 { return m.seq - int64(len(m.mail)) + 1 }

func (m *model) accept(id string) state.Accepted {
	if m.known[id] {
		return state.Accepted{Duplicate: true}
	}
	m.known[id] = true
	m.seq++
	m.mail = append(m.mail, id)
	if m.holder == "" {
		m.due = past
	}
	return state.Accepted{Seq: m.seq}
}

// unread is what a turn is given: the oldest batch.
func (m *model) unread() []int64 {
	return span(m.first(), min(m.seq, m.first()+state.MailBatch-1))
}

func (m *model) begin(holder string) (found string) {
	if m.holder != holder {
		found, m.holder = m.holder, holder
	}
	return found
}

func (m *model) verdict(holder string, version int64) state.Verdict {
	switch {
	case holder != "" && holder != m.holder:
		return state.NotOwner
	case version != m.version:
		return state.Moved
	}
	return state.OK
}

func (m *model) commit(c state.Commit) (v state.Verdict, released bool, mail []int64) {
	if v := m.verdict(c.Holder, c.Version); v != state.OK {
		return v, false, nil
	}
	m.version++
	m.doc, m.places = string(c.Doc), c.Index
	for len(m.mail) > 0 && m.first() <= c.Through {
		m.mail = m.mail[1:]
	}
	for _, id := range c.Forget {
		delete(m.known, id)
	}
	m.flagged = m.flagged && !c.ClearFlag || c.SetFlag
	for _, r := range c.Put {
		m.record = string(r.Value)
	}
	for _, l := range c.Journal {
		m.journal = append(m.journal, string(l))
	}
	switch {
	case c.Holder == "":
		if m.holder == "" && !c.Wake.IsZero() && (m.due.IsZero() || c.Wake.Before(m.due)) {
			m.due = c.Wake
		}
		return state.OK, false, nil
	case c.HandBack && c.Wake.IsZero():
		m.holder, m.due = "", past
		return state.OK, true, nil
	case c.HandBack, c.Release && len(m.mail) == 0:
		m.holder, m.due = "", c.Wake
		return state.OK, true, nil
	}
	return state.OK, false, m.unread()
}

var modelCases = []testCase{
	{name: "any sequence of operations by several holders, some sent twice", run: func(b *bench) {
		var runs atomic.Int64
		rapid.Check(b.T, func(t *rapid.T) {
			s := subject(int(runs.Add(1))) // a fresh one for each run on the same store
			m := &model{known: map[string]bool{}, version: b.load(s).Version}
			var last *state.Commit
			later := b.load(s).Now.Add(24 * time.Hour).Truncate(time.Second)
			token := rapid.SampledFrom([]string{"A", "B", "C"})
			wake := rapid.SampledFrom([]time.Time{{}, past, later, later.Add(time.Hour)})

			send := func(c state.Commit) {
				v, released, mail := m.commit(c)
				got, err := b.Store.Commit(b.Context(), c)
				if err != nil {
					t.Fatalf("commit %+v: %v", c, err)
				}
				if got.Verdict != v || v == state.OK && (got.Released != released || !slices.Equal(seqs(got.Mail), append([]int64{}, mail...))) {
					t.Fatalf("commit %+v\nanswered %v, released %v, mail %v\nexpected %v, released %v, mail %v",
						c, got.Verdict, got.Released, seqs(got.Mail), v, released, mail)
				}
				last = &c
			}
			drawCommit := func(t *rapid.T, holder string) state.Commit {
				c := state.Commit{
					Subject: s, Holder: holder,
					Version:   m.version - rapid.SampledFrom([]int64{0, 0, 0, 0, 1, -1}).Draw(t, "stale by"),
					Doc:       fmt.Append(nil, rapid.IntRange(0, 99).Draw(t, "doc")),
					ClearFlag: rapid.Bool().Draw(t, "clear"), SetFlag: rapid.Bool().Draw(t, "set"),
					Wake: wake.Draw(t, "wake"),
				}
				c.SetFlag = c.SetFlag && !c.ClearFlag
				for i := range rapid.IntRange(0, 2).Draw(t, "places") {
					c.Index = append(c.Index, state.Index{Name: "running-" + s.Key, Label: fmt.Sprint(i), Score: float64(i)})
				}
				for i := range rapid.IntRange(0, 2).Draw(t, "lines") {
					c.Journal = append(c.Journal, fmt.Append(nil, c.Version, ".", i))
				}
				if v := rapid.SampledFrom([]string{"", "keep", "x", "y"}).Draw(t, "record"); v != "keep" {
					c.Put = []state.Record{{Key: "r"}}
					if v != "" {
						c.Put[0].Value = []byte(v)
					}
				}
				return c
			}
			id := func(t *rapid.T) string { return fmt.Sprint("m:", s.Key, ":", rapid.IntRange(0, 20).Draw(t, "id")) }

			t.Repeat(map[string]func(*rapid.T){
				"accept": func(t *rapid.T) {
					d := state.Delivery{Subject: s, ID: id(t), Kind: "letter", Hint: rapid.Bool().Draw(t, "hint")}
					want := m.accept(d.ID)
					if got, err := b.Store.Accept(b.Context(), d); err != nil || got != want {
						t.Fatalf("accept %s: %+v, %v, want %+v", d.ID, got, err, want)
					}
				},
				"begin": func(t *rapid.T) {
					h := token.Draw(t, "holder")
					found := m.begin(h)
					b.take(s, h, lease)
					got, v, err := b.Store.Begin(b.Context(), s, h, lease)
					if err != nil || v != state.OK {
						t.Fatalf("begin as %s: %v, %v", h, v, err)
					}
					if got.Holder != found || got.Version != m.version || string(got.Doc) != m.doc || got.Flagged != m.flagged || !slices.Equal(seqs(got.Mail), m.unread()) {
						t.Fatalf("begin as %s: %+v\nwant %+v, found %q", h, got, m, found)
					}
				},
				"confirm": func(t *rapid.T) {
					h, version, seq := token.Draw(t, "holder"), m.version-rapid.Int64Range(0, 1).Draw(t, "stale by"), rapid.Int64Range(0, m.seq).Draw(t, "seq")
					got, err := b.Store.Confirm(b.Context(), s, h, version, seq)
					v := m.verdict(h, version)
					if err != nil || got.Verdict != v || v == state.OK && got.Unread != (len(m.mail) > 0 && seq < m.seq) {
						t.Fatalf("confirm as %s at %d beyond %d: %+v, %v, want %v of %+v", h, version, seq, got, err, v, m)
					}
				},
				"commit": func(t *rapid.T) {
					c := drawCommit(t, token.Draw(t, "holder"))
					c.Through = rapid.Int64Range(0, m.seq).Draw(t, "through")
					switch rapid.IntRange(0, 3).Draw(t, "end") {
					case 0:
						c.HandBack = true
					case 1, 2:
						c.Release = true
					}
					if rapid.Bool().Draw(t, "forgets") {
						c.Forget = []string{id(t)}
					}
					send(c)
				},
				"drop": func(t *rapid.T) {
					if m.record != "" {
						t.Skip("whoever drops waits for the last record")
					}
					c := state.Commit{Subject: s, Holder: token.Draw(t, "holder"), Version: m.version, Drop: true, Wake: wake.Draw(t, "wake")}
					v := m.verdict(c.Holder, c.Version)
					got, err := b.Store.Commit(b.Context(), c)
					if err != nil || got.Verdict != v || got.Released != (v == state.OK && len(m.mail) == 0) {
						t.Fatalf("drop as %s: %+v, %v, want %v of %+v", c.Holder, got, err, v, m)
					}
					switch n := b.load(s); {
					case !got.Released:
					case m.flagged:
						m.holder, m.due = "", c.Wake
					case n.Version <= m.version:
						t.Fatalf("version %d follows %d", n.Version, m.version)
					default:
						*m = model{version: n.Version, known: m.known}
					}
				},
				"ask": func(t *rapid.T) { send(drawCommit(t, "")) },
				"resend": func(t *rapid.T) {
					if last == nil {
						t.Skip("nothing was sent")
					}
					before := m.version
					send(*last)
					if last.Version < before && m.version != before {
						t.Fatal("the model took a commit twice")
					}
				},
				"": func(t *rapid.T) { b.compare(t, s, m) },
			})
		})
	}},
}

// compare holds the stored subject against the model.
func (b *bench) compare(t *rapid.T, s state.Subject, m *model) {
	n := b.load(s)
	if n.Version != m.version || string(n.Doc) != m.doc || n.Holder != m.holder || n.Flagged != m.flagged || !slices.Equal(seqs(n.Mail), m.unread()) {
		t.Fatalf("stored: %+v\nwant: %+v", n, m)
	}
	for i, x := range n.Mail {
		if x.ID != m.mail[i] {
			t.Fatalf("mail %d is %s, want %s", x.Seq, x.ID, m.mail[i])
		}
	}
	dueNow := !n.Wake.IsZero() && !n.Wake.After(n.Now)
	switch {
	case m.holder != "":
		if n.Wake.IsZero() || dueNow {
			t.Fatalf("held, due at %v, now %v", n.Wake, n.Now)
		}
	case m.due == past:
		if !dueNow {
			t.Fatalf("should be due now (%v), is at %v", n.Now, n.Wake)
		}
	case !sameWake(n.Wake, m.due):
		t.Fatalf("due at %v, want %v", n.Wake, m.due)
	}
	if len(n.Mail) > 0 && n.Wake.IsZero() {
		t.Fatalf("mail, but not scheduled: %+v", n)
	}
	journal := b.journal(s, 2*state.JournalKept)
	if want := m.journal[max(0, len(m.journal)-state.JournalKept):]; !slices.Equal(journal, want) {
		t.Fatalf("journal: %q, want %q", journal, want)
	}
	var places []state.Index
	for _, e := range b.list("running-"+s.Key, "", 10) {
		places = append(places, e.Index)
	}
	if diff := cmp.Diff(m.places, places); diff != "" {
		t.Fatalf("places:\n%s", diff)
	}
	if v, _ := b.record(s, "r"); v != m.record {
		t.Fatalf("record: %q, want %q", v, m.record)
	}
}
