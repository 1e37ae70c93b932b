package redis_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// Eight actors work on four subjects under leases of 15 ms. They stall, with the renewal standing still, for up to
// three leases, and send a third of their commits twice. A document is the list of the mail applied to it; each mail
// must stand in it once and in order.
func TestChaos(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	const actors, subjects, each, ttl = 8, 4, 1000, 15 * time.Millisecond
	var refused, taken, twice, finished atomic.Int64
	var all sync.WaitGroup
	for p := range 2 { // two forges' connections that deliver the same
		s := open(t, server.URL())
		all.Go(func() {
			for i := range subjects * each {
				d := letter(subject(i%subjects), fmt.Sprint(i))
				if _, err := s.Accept(t.Context(), d); err != nil {
					t.Errorf("sender %d: %v", p, err)
					return
				}
			}
		})
	}
	for a := range actors {
		s := open(t, server.URL())
		l := lock.NewRedis(s.Client(), ttl)
		rng := rand.New(rand.NewPCG(1, uint64(a)))
		turn := func(sub state.Subject) error {
			lease, err := l.TryLock(t.Context(), sub.LockKey())
			if errors.Is(err, lock.ErrBusy) {
				return s.Defer(t.Context(), sub)
			}
			if err != nil {
				return nil // an attempt has 5 ms; the machine may be busy
			}
			defer func() { _ = lease.Release(t.Context()) }()
			n, v, err := s.Begin(t.Context(), sub, lease.Token(), ttl)
			if err != nil || v != state.OK {
				return err
			}
			if n.Holder != "" {
				taken.Add(1)
			}
			for version, doc, mail := n.Version, n.Doc, n.Mail; ; {
				var applied []int64
				if len(doc) > 0 {
					if err := json.Unmarshal(doc, &applied); err != nil {
						return err
					}
				}
				mail = mail[:min(len(mail), 1+rng.IntN(8))]
				c := state.Commit{Subject: sub, Holder: lease.Token(), Version: version, Release: true}
				for _, m := range mail {
					applied = append(applied, m.Seq)
					c.Through = m.Seq
				}
				if c.Doc, err = json.Marshal(applied); err != nil {
					return err
				}
				if rng.IntN(6) == 0 {
					lease.Pause()
					stall(time.Duration(rng.Int64N(int64(3 * ttl))))
					lease.Resume()
				}
				r, err := s.Commit(t.Context(), c)
				if err != nil {
					return err
				}
				if rng.IntN(3) == 0 {
					again, err := s.Commit(t.Context(), c)
					if err != nil || again.Verdict == state.OK {
						return fmt.Errorf("sent twice: %v, then %v, %w", r.Verdict, again.Verdict, err)
					}
					twice.Add(1)
				}
				if r.Verdict != state.OK {
					refused.Add(1)
					return nil
				}
				if r.Released {
					if len(applied) == each {
						finished.Add(1)
					}
					return nil
				}
				version, doc, mail = version+1, c.Doc, r.Mail
			}
		}
		all.Go(func() {
			tick := time.NewTicker(2 * time.Millisecond)
			defer tick.Stop()
			for finished.Load() < subjects {
				due, err := s.Due(t.Context(), subjects)
				if err == nil && len(due) > 0 {
					err = turn(due[rng.IntN(len(due))])
				}
				if err != nil {
					t.Errorf("actor %d: %v", a, err)
				}
				select {
				case <-tick.C:
				case <-t.Context().Done():
					return
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	all.Wait()
	s := open(t, server.URL())
	for i := range subjects {
		n := load(t, s, subject(i))
		var applied []int64
		if err := json.Unmarshal(n.Doc, &applied); err != nil {
			t.Fatal(err)
		}
		for k, seq := range applied {
			if seq != int64(k+1) {
				t.Fatalf("%s: application %d is mail %d", subject(i), k+1, seq)
			}
		}
		if len(applied) != each || len(n.Mail) != 0 || n.Holder != "" {
			t.Fatalf("%s: %d applied, %d left, holder %q", subject(i), len(applied), len(n.Mail), n.Holder)
		}
	}
	t.Logf("%d zombie commits refused, %d takeovers, %d commits sent twice", refused.Load(), taken.Load(), twice.Load())
	if refused.Load() == 0 || taken.Load() == 0 || twice.Load() == 0 {
		t.Fatal("nothing went wrong, so nothing was tried")
	}
}

// stall is a process that gets no time.
func stall(d time.Duration) {
	t := time.NewTimer(d)
	<-t.C
}

// An orphan lease, set by a SET that a hanging server executed late, has no holder that would ever begin. Whatever
// comes together, a subject with mail is due no later than its lease would have ended.
func TestMailIsNeverStranded(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	var runs atomic.Int64
	rapid.Check(t, func(rt *rapid.T) {
		sub := subject(int(runs.Add(1)))
		c, ctx := s.Client(), t.Context()
		var version int64
		holder := ""
		fatal := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		wake := func(rt *rapid.T) time.Time {
			return rapid.SampledFrom([]time.Time{{}, time.Unix(1, 0), time.Now().Add(24 * time.Hour)}).Draw(rt, "wake")
		}
		ids := 0
		commit := func(rt *rapid.T, cm state.Commit) {
			cm.Subject, cm.Version = sub, version
			if rapid.Bool().Draw(rt, "doc") {
				cm.Doc = []byte("d")
			}
			r, err := s.Commit(ctx, cm)
			fatal(err)
			if r.Verdict == state.OK && cm.Doc != nil {
				version++
			}
			if r.Released {
				holder = ""
			}
		}
		// A lease given back early leaves its subject due at the end it would have had.
		var end time.Time
		take := func(token string, ttl time.Duration) {
			now, err := c.Time(ctx).Result()
			fatal(err)
			fatal(c.SetNX(ctx, sub.LockKey(), token, ttl).Err())
			if e := now.Add(ttl); e.After(end) {
				end = e
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"accept": func(rt *rapid.T) {
				ids++
				_, err := s.Accept(ctx, letter(sub, fmt.Sprint(sub.Key, "-", ids)))
				fatal(err)
			},
			"orphan lease": func(rt *rapid.T) {
				take("orphan", time.Duration(rapid.IntRange(1, 60_000).Draw(rt, "ms"))*time.Millisecond)
			},
			"lease ends": func(*rapid.T) { fatal(c.Del(ctx, sub.LockKey()).Err()) },
			"begin": func(rt *rapid.T) {
				token := fmt.Sprint("T", rapid.IntRange(0, 3).Draw(rt, "token"))
				take(token, time.Minute)
				_, v, err := s.Begin(ctx, sub, token, time.Minute)
				fatal(err)
				if v == state.OK {
					holder = token
				}
			},
			"commit": func(rt *rapid.T) {
				if holder == "" {
					return // nobody holds it
				}
				commit(rt, state.Commit{Holder: holder, Wake: wake(rt), Through: int64(rapid.IntRange(0, ids).Draw(rt, "through")),
					Release: rapid.Bool().Draw(rt, "release")})
			},
			"hand back": func(rt *rapid.T) {
				if holder == "" {
					return // nobody holds it
				}
				commit(rt, state.Commit{Holder: holder, HandBack: true})
			},
			"ask":   func(rt *rapid.T) { commit(rt, state.Commit{Wake: wake(rt)}) },
			"defer": func(*rapid.T) { fatal(s.Defer(ctx, sub)) },
			"": func(rt *rapid.T) {
				n, err := s.Load(ctx, sub)
				fatal(err)
				latest := n.Now
				if end.After(latest) {
					latest = end
				}
				// Begin reads the clock a little later than the lease was taken.
				if len(n.Mail) > 0 && (n.Wake.IsZero() || n.Wake.After(latest.Add(time.Second))) {
					rt.Fatalf("%d mail, due at %v, now %v, leases ended by %v", len(n.Mail), n.Wake, n.Now, end)
				}
			},
		})
	})
}

// A hint that comes to a deep mailbox during a turn asks for a look at the forge later than the one the turn decided
// by. The turn may not take that flag down, and the subject is due again.
func TestAFlagRaisedDuringATurnOutlivesIt(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	sub := subject(1)
	for i := range state.HintDepth {
		accept(t, s, letter(sub, fmt.Sprint(i)))
	}
	hint := letter(sub, "hint")
	hint.Hint = true
	accept(t, s, hint)
	if !begin(t, s, sub, "A").Flagged {
		t.Fatal("the flag is not up")
	}
	hint.ID += "2"
	if a := accept(t, s, hint); !a.Flagged {
		t.Fatalf("%+v", a)
	}
	save(t, s, state.Commit{Subject: sub, Holder: "A", SetFlag: true})
	c := state.Commit{Subject: sub, Holder: "A", Doc: []byte("d"), Through: state.HintDepth, ClearFlag: true, Release: true}
	if r := save(t, s, c); !r.Released {
		t.Fatalf("%+v", r)
	}
	if n := load(t, s, sub); !n.Flagged || !isDue(t, s, sub) {
		t.Fatalf("after the turn: %+v", n)
	}
	if !begin(t, s, sub, "B").Flagged {
		t.Fatal("the next turn does not see the flag")
	}
	c.Holder, c.Version = "B", 1
	save(t, s, c)
	if n := load(t, s, sub); n.Flagged || !n.Wake.IsZero() {
		t.Fatalf("after the next turn: %+v", n)
	}
}

// relay passes bytes between client and server until told to lose an answer: it lets the server execute the next
// request and then breaks the connection.
type relay struct {
	net.Listener
	server string
	lose   atomic.Bool
	all    sync.WaitGroup
}

func startRelay(t *testing.T, server string) *relay {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, server: server}
	r.all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.all.Go(func() { r.carry(t.Context(), client) })
		}
	})
	return r
}

func (r *relay) carry(ctx context.Context, client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.server)
	if err != nil {
		return
	}
	var up sync.WaitGroup
	up.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	defer up.Wait()
	defer client.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil || r.lose.CompareAndSwap(true, false) {
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

// Where an answer gets lost go-redis sends the same script again. The second answer must be as good as the first.
func TestALostAnswerChangesNothing(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	r := startRelay(t, server.Addr())
	s, err := redis.Open(t.Context(), "redis://"+r.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = r.Close(); r.all.Wait() })
	sub := subject(1)
	accept(t, s, letter(sub, "a"))
	begin(t, s, sub, "A")
	save(t, s, state.Commit{Subject: sub, Holder: "A"}) // from here on the server knows the scripts

	r.lose.Store(true)
	if a := accept(t, s, letter(sub, "b")); r.lose.Load() || !a.Duplicate {
		t.Fatalf("accept: %+v, lost %v", a, !r.lose.Load())
	}
	if err := s.Client().Set(t.Context(), sub.LockKey(), "B", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	r.lose.Store(true)
	n, v, err := s.Begin(t.Context(), sub, "B", time.Hour)
	if err != nil || v != state.OK || r.lose.Load() {
		t.Fatalf("begin: %v, %v, lost %v", v, err, !r.lose.Load())
	}
	if n.Holder != "A" || len(n.Mail) != 2 {
		t.Fatalf("begin forgot whom it took over: %+v", n)
	}
	r.lose.Store(true)
	c := state.Commit{Subject: sub, Holder: "B", Doc: []byte("d"), Through: 2, Journal: [][]byte{[]byte("line")}, Release: true}
	if done, err := s.Commit(t.Context(), c); err != nil || done.Verdict != state.NotOwner || r.lose.Load() {
		t.Fatalf("commit: %+v, %v, lost %v", done, err, !r.lose.Load())
	}
	if n := load(t, s, sub); n.Version != 1 || n.Holder != "" || len(n.Mail) != 0 {
		t.Fatalf("saved: %+v", n)
	}
	if lines, err := s.Journal(t.Context(), sub, 10); err != nil || len(lines) != 1 {
		t.Fatalf("journal: %q, %v", lines, err)
	}
}

// An instance need not know the indexes in which another has placed a subject.
func TestPlacesOfAnotherInstanceAreReplaced(t *testing.T) {
	url := redistest.StartCluster(t, redistest.Options{}).URL()
	one, two := open(t, url), open(t, url)
	sub := subject(1)
	var places []state.Index
	for i, name := range []string{"waiting", "failing", "name"} {
		places = append(places, state.Index{Name: name, Label: "x", Score: float64(i)})
	}
	save(t, one, state.Commit{Subject: sub, Doc: []byte("d"), Index: places})
	save(t, two, state.Commit{Subject: sub, Version: 1, Doc: []byte("d"), Index: []state.Index{{Name: "dead", Label: "y"}}})
	for name, want := range map[string]int{"waiting": 0, "failing": 0, "name": 0, "dead": 1} {
		if got, err := one.List(t.Context(), name, "", 10); err != nil || len(got) != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestCommitRefusesWhatItCannotKeep(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	sub := subject(1)
	for name, c := range map[string]state.Commit{
		"a score that is no number": {Index: []state.Index{{Name: "waiting", Label: "x", Score: math.NaN()}}},
		"an Ask that consumes mail": {Through: 1},
		"an Ask that releases":      {Release: true},
		"an Ask that hands back":    {HandBack: true},
	} {
		c.Subject, c.Doc = sub, []byte("d")
		if r, err := s.Commit(t.Context(), c); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if n := load(t, s, sub); n.Version != 0 {
		t.Fatalf("%+v", n)
	}
}

func TestCommitWithoutDocument(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	sub := subject(1)
	place := []state.Index{{Name: "waiting", Label: "x"}}
	accept(t, s, letter(sub, "a"))
	save(t, s, state.Commit{Subject: sub, Doc: []byte("d"), Index: place})
	n := begin(t, s, sub, "A")
	later := n.Now.Add(time.Hour)
	if r, err := s.Commit(t.Context(), state.Commit{Subject: sub, Holder: "A", HandBack: true, Wake: later}); err != nil || r.Verdict != state.Moved {
		t.Fatalf("at another version: %+v, %v", r, err)
	}
	save(t, s, state.Commit{Subject: sub, Holder: "A", Version: 1, HandBack: true, Wake: later})
	n = load(t, s, sub)
	if n.Version != 1 || string(n.Doc) != "d" || n.Holder != "" || len(n.Mail) != 1 || !n.Wake.Equal(later) {
		t.Fatalf("handed back: %+v", n)
	}
	if got, err := s.List(t.Context(), "waiting", "", 1); err != nil || len(got) != 1 {
		t.Fatalf("its place: %v, %v", got, err)
	}
	if accept(t, s, letter(sub, "b")); !isDue(t, s, sub) {
		t.Fatal("new mail did not wake it")
	}
}

func TestAskBehindAnOrphanLeaseWakesAtItsEnd(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	for n, held := range []bool{false, true} {
		sub := subject(n)
		if held {
			if err := s.Client().Set(t.Context(), sub.LockKey(), "orphan", time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
		}
		save(t, s, state.Commit{Subject: sub, Doc: []byte("d")})
		if got := load(t, s, sub); !got.Wake.IsZero() {
			t.Fatalf("held %v: asked for no time, due at %v", held, got.Wake)
		}
		save(t, s, state.Commit{Subject: sub, Version: 1, Doc: []byte("d"), Wake: time.Unix(1, 0)})
		got := load(t, s, sub)
		if got.Wake.IsZero() || got.Wake.After(got.Now) != held || got.Wake.After(got.Now.Add(time.Minute)) {
			t.Fatalf("held %v: due at %v, now %v", held, got.Wake, got.Now)
		}
	}
}

func TestCommitKeepsTheHeldSubjectAwayFromOthers(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	sub := subject(1)
	if err := s.Client().Set(t.Context(), sub.LockKey(), "A", time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	n, v, err := s.Begin(t.Context(), sub, "A", time.Millisecond) // the lease was renewed since
	if err != nil || v != state.OK {
		t.Fatal(v, err)
	}
	save(t, s, state.Commit{Subject: sub, Holder: "A"})
	if got := load(t, s, sub).Wake; got.Before(n.Now.Add(30 * time.Minute)) {
		t.Fatalf("due at %v under a lease of an hour, now %v", got, n.Now)
	}
}

// A turn reads a subject that is not there, and while it looks around the versions of its shard must not begin again: else
// it would overwrite what an Ask has begun the subject with meanwhile.
func TestVersionsOfWhatIsNotThereNeverGoBack(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	one, two := subject(1), subject(2)
	for i := 3; two.Shard() != one.Shard(); i++ {
		two = subject(i)
	}
	save(t, s, state.Commit{Subject: two, Holder: "B", Version: begin(t, s, two, "B").Version, Drop: true})
	read := begin(t, s, one, "A")

	// Hours pass: whatever ends in them has ended.
	for _, k := range s.Client().Keys(t.Context(), "*").Val() {
		if s.Client().TTL(t.Context(), k).Val() > time.Minute {
			s.Client().Del(t.Context(), k)
		}
	}
	save(t, s, state.Commit{Subject: one, Version: load(t, s, one).Version, Doc: []byte("of the Ask")})
	r, err := s.Commit(t.Context(), state.Commit{Subject: one, Holder: "A", Version: read.Version, Doc: []byte("of the turn")})
	if err != nil || r.Verdict != state.Moved {
		t.Errorf("%v, %v: %s", r.Verdict, err, load(t, s, one).Doc)
	}
}

func TestDefer(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	now := load(t, s, subject(0)).Now
	for n, c := range []struct {
		name              string
		due, lease, wants time.Duration // from now; 0 = none
	}{
		{"due, held", -time.Minute, time.Hour, time.Hour},
		{"due, free again", -time.Minute, 0, -time.Minute},
		{"due after the lease", 2 * time.Hour, time.Hour, 2 * time.Hour},
		{"not scheduled", 0, time.Hour, 0},
	} {
		sub := subject(n)
		if c.due != 0 {
			save(t, s, state.Commit{Subject: sub, Doc: []byte("d"), Wake: now.Add(c.due)})
		}
		if c.lease != 0 {
			if err := s.Client().Set(t.Context(), sub.LockKey(), "A", c.lease).Err(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Defer(t.Context(), sub); err != nil {
			t.Fatal(err)
		}
		got := load(t, s, sub).Wake
		if got.IsZero() != (c.wants == 0) || c.wants != 0 && got.Sub(now.Add(c.wants)).Abs() > time.Minute/2 {
			t.Errorf("%s: due at %v, now %v", c.name, got, now)
		}
	}
}

func TestDueIsFairAcrossShards(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	now := load(t, s, subject(0)).Now
	var want []state.Subject
	for i := range 40 {
		save(t, s, state.Commit{Subject: subject(i), Doc: []byte("d"), Wake: now.Add(-time.Duration(i+1) * time.Minute)})
		want = append(want, subject(39-i))
	}
	for _, limit := range []int{0, 1, 7, 40, 100} {
		if got, err := s.Due(t.Context(), limit); err != nil || !slices.Equal(got, want[:min(limit, 40)]) {
			t.Errorf("limit %d: %v, %v", limit, got, err)
		}
	}
}

func TestAnEndedContextStoresNothing(t *testing.T) {
	s := open(t, redistest.Start(t, redistest.Options{}).URL())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Accept(ctx, letter(subject(1), "a")); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want Canceled", err)
	}
	if n := load(t, s, subject(1)); len(n.Mail) != 0 {
		t.Fatalf("%+v", n)
	}
}
