package redis_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

func subject(n int) state.Subject {
	return state.Subject{Instance: "github", Project: "1296269", Kind: "pr", Key: fmt.Sprint(n)}
}

func letter(s state.Subject, id string) state.Delivery {
	return state.Delivery{Subject: s, ID: "github:test:" + id, Kind: "letter", Format: 1, Body: []byte(id)}
}

func accept(tb testing.TB, s *redis.Store, d state.Delivery) state.Accepted {
	tb.Helper()
	a, err := s.Accept(tb.Context(), d)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// begin takes the lease by hand, whoever has it, and begins.
func begin(tb testing.TB, s *redis.Store, sub state.Subject, token string) state.Snapshot {
	tb.Helper()
	if err := s.Client().Set(tb.Context(), sub.LockKey(), token, time.Hour).Err(); err != nil {
		tb.Fatal(err)
	}
	n, v, err := s.Begin(tb.Context(), sub, token, time.Hour)
	if err != nil || v != state.OK {
		tb.Fatalf("begin as %s: %v, %v", token, v, err)
	}
	return n
}

func save(tb testing.TB, s *redis.Store, c state.Commit) state.Committed {
	tb.Helper()
	r, err := s.Commit(tb.Context(), c)
	if err != nil || r.Verdict != state.OK {
		tb.Fatalf("commit as %q at %d: %v, %v", c.Holder, c.Version, r.Verdict, err)
	}
	return r
}

func load(tb testing.TB, s *redis.Store, sub state.Subject) state.Snapshot {
	tb.Helper()
	n, err := s.Load(tb.Context(), sub)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}

func isDue(tb testing.TB, s *redis.Store, sub state.Subject) bool {
	tb.Helper()
	due, err := s.Due(tb.Context(), 1000)
	if err != nil {
		tb.Fatal(err)
	}
	return slices.Contains(due, sub)
}

func TestKilledRedisKeepsWhatWasAcknowledged(t *testing.T) {
	server := redistest.Start(t, redistest.Options{AppendFsync: "always"})
	s := open(t, server.URL())
	const writers = 32
	for round := range 3 {
		acknowledged := make([][]string, writers)
		var total atomic.Int64
		enough := make(chan struct{})
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for n := 0; ; n++ {
					d := letter(subject(round*writers+w), fmt.Sprintf("%d-%d-%d", round, w, n))
					d.Body = []byte(strings.Repeat("x", 1000))
					if _, err := s.Accept(t.Context(), d); err != nil {
						return // killed; this one may or may not be there
					}
					acknowledged[w] = append(acknowledged[w], d.ID)
					if total.Add(1) == 2000 {
						close(enough)
					}
				}
			})
		}
		<-enough
		server.Kill()
		all.Wait()
		server.Restart()
		// go-redis looks once a second whether a server that refused many connections is back.
		redistest.Until(t, "the client has noticed", func() bool { return s.Ping(t.Context()) == nil })
		for w, ids := range acknowledged {
			sub := subject(round*writers + w)
			for i := 0; i < len(ids); {
				mail := load(t, s, sub).Mail
				if len(mail) == 0 {
					t.Fatalf("round %d: %s lost %d of %d", round, sub, len(ids)-i, len(ids))
				}
				for _, m := range mail {
					if i < len(ids) && m.ID != ids[i] {
						t.Fatalf("round %d: %s: found %s, acknowledged %s", round, sub, m.ID, ids[i])
					}
					i++
				}
				if !isDueWithin(t, s, sub) {
					t.Fatalf("round %d: %s has mail and is not due", round, sub)
				}
				token := fmt.Sprint("T", i)
				n := begin(t, s, sub, token)
				save(t, s, state.Commit{Subject: sub, Holder: token, Version: n.Version, Doc: []byte("d"), Through: mail[len(mail)-1].Seq, HandBack: true})
			}
		}
	}
}

// isDueWithin looks at the subject itself, for tests with more subjects than one listing of those due holds.
func isDueWithin(tb testing.TB, s *redis.Store, sub state.Subject) bool {
	n := load(tb, s, sub)
	return !n.Wake.IsZero() && !n.Wake.After(n.Now)
}

func TestOperationsEndWithTheirContextWhileRedisHangs(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := open(t, server.URL())
	sub := subject(1)
	begin(t, s, sub, "A")
	server.Stop()
	// It has no deadline, so it shows when the first of the client's own timeouts has passed.
	patient := make(chan struct{})
	var one sync.WaitGroup
	one.Go(func() {
		_ = s.Ping(t.Context())
		close(patient)
	})
	for name, op := range map[string]func(context.Context) error{
		"accept":  func(ctx context.Context) error { _, err := s.Accept(ctx, letter(sub, "a")); return err },
		"begin":   func(ctx context.Context) error { _, _, err := s.Begin(ctx, sub, "A", time.Hour); return err },
		"confirm": func(ctx context.Context) error { _, err := s.Confirm(ctx, sub, "A", 0, 0); return err },
		"commit": func(ctx context.Context) error {
			_, err := s.Commit(ctx, state.Commit{Subject: sub, Holder: "A"})
			return err
		},
		"due":      func(ctx context.Context) error { _, err := s.Due(ctx, 1); return err },
		"defer":    func(ctx context.Context) error { return s.Defer(ctx, sub) },
		"load":     func(ctx context.Context) error { _, err := s.Load(ctx, sub); return err },
		"record":   func(ctx context.Context) error { _, err := s.Record(ctx, sub, "r"); return err },
		"list":     func(ctx context.Context) error { _, err := s.List(ctx, "name", "", 1); return err },
		"journal":  func(ctx context.Context) error { _, err := s.Journal(ctx, sub, 1); return err },
		"raw":      func(ctx context.Context) error { _, err := s.Raw(ctx, sub, "x"); return err },
		"identity": func(ctx context.Context) error { _, err := s.Identity(ctx); return err },
		"ping":     s.Ping,
		"findings": func(ctx context.Context) error { _, err := s.Findings(ctx); return err },
		"open":     func(ctx context.Context) error { _, err := redis.Open(ctx, server.URL()); return err },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if err := op(ctx); err == nil || ctx.Err() == nil {
			t.Errorf("%s: %v before its context ended (%v)", name, err, ctx.Err())
		}
		cancel()
		select {
		case <-patient:
			t.Fatalf("%s ended by a timeout of the client", name)
		default:
		}
	}
	server.Cont()
	one.Wait()
}

func TestFullRedisRefusesThenDrains(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	s := open(t, server.URL())
	c := server.Client()
	ctx := t.Context()
	limit := func(bytes int64) {
		t.Helper()
		if err := c.ConfigSet(ctx, "maxmemory", fmt.Sprint(bytes)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	used := func() int64 {
		t.Helper()
		var n int64
		info := c.InfoMap(ctx, "memory").Item("Memory", "used_memory")
		if _, err := fmt.Sscan(info, &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	sub := subject(1)
	for i := range 300 {
		d := letter(sub, fmt.Sprint(i))
		d.Body = []byte(strings.Repeat("x", 50_000))
		accept(t, s, d)
	}

	// Redis would still take it, but what is left is for the work that drains.
	limit(used() * 10 / 9)
	redistest.Until(t, "nine tenths are too much", func() bool {
		_, err := s.Accept(ctx, letter(subject(2), "x"))
		return errors.Is(err, state.ErrFull)
	})
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatalf("Redis itself is full already: %v", err)
	}
	if n := load(t, s, subject(2)); len(n.Mail) > 1 {
		t.Fatalf("stored although refused: %+v", n)
	}

	// Above the limit Redis refuses by itself; leases and turns go on.
	limit(used() * 9 / 10)
	if err := c.Set(ctx, "k", "v", 0).Err(); !goredis.HasErrorPrefix(err, "OOM") {
		t.Fatalf("Redis is not full: %v", err)
	}
	fresh := open(t, server.URL())
	if _, err := fresh.Accept(ctx, letter(sub, "y")); !errors.Is(err, state.ErrFull) {
		t.Fatalf("accept: %v, want ErrFull", err)
	}
	told := letter(subject(3), "told by another subject")
	told.Own = true
	accept(t, s, told)
	lease, err := lock.NewRedis(s.Client(), time.Minute).TryLock(ctx, sub.LockKey())
	if err != nil {
		t.Fatal(err)
	}
	if _, v, err := s.Begin(ctx, sub, lease.Token(), time.Minute); err != nil || v != state.OK {
		t.Fatalf("begin: %v, %v", v, err)
	}
	if c, err := s.Confirm(ctx, sub, lease.Token(), 0, 0); err != nil || c.Verdict != state.OK || !c.Unread {
		t.Fatalf("confirm: %+v, %v", c, err)
	}
	if err := s.Defer(ctx, sub); err != nil {
		t.Fatal(err)
	}
	done := state.Committed{Mail: load(t, s, sub).Mail}
	for version := int64(0); !done.Released; version++ {
		done = save(t, s, state.Commit{
			Subject: sub, Holder: lease.Token(), Version: version, Doc: []byte("d"), Through: done.Mail[len(done.Mail)-1].Seq,
			Put: []state.Record{{Key: "r", Value: []byte("v")}}, Journal: [][]byte{[]byte("line")},
			Index: []state.Index{{Name: "running", Label: "x", Score: float64(version)}}, Release: true,
		})
	}
	if err := lease.Release(ctx); err != nil {
		t.Fatal(err)
	}
	redistest.Until(t, "the drained store accepts again", func() bool {
		_, err := s.Accept(ctx, letter(subject(2), "z"))
		if err != nil && !errors.Is(err, state.ErrFull) {
			t.Fatal(err)
		}
		return err == nil
	})
}

func TestFailoverChangesTheIdentityAndWorkGoesOn(t *testing.T) {
	g := redistest.StartSentinels(t, redistest.Options{AppendFsync: "always"})
	if _, err := redis.Open(t.Context(), g.Watchers[0].URL()); err == nil || !strings.Contains(err.Error(), "a sentinel: use redis-sentinel") {
		t.Fatalf("a sentinel as redis://: %v", err)
	}
	if _, err := redis.Open(t.Context(), strings.Replace(g.URL(), redistest.MasterName, "nobody", 1)); err == nil {
		t.Fatal("a master that no sentinel knows was opened")
	}
	s := open(t, g.URL())
	ctx := t.Context()
	before, err := s.Identity(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		accept(t, s, letter(subject(1), fmt.Sprint(i)))
	}
	if n, err := g.Master.Client().Wait(ctx, 1, 10*time.Second).Result(); err != nil || n != 1 {
		t.Fatalf("the replica is not in step: %d, %v", n, err)
	}
	if again, err := s.Identity(ctx); err != nil || again != before {
		t.Fatalf("identity %q, then %q, %v", before, again, err)
	}
	g.Master.Kill()
	redistest.Until(t, "the replica has taken over", func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		after, err := s.Identity(ctx)
		return err == nil && after != before
	})
	redistest.Until(t, "mail is accepted", func() bool {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := s.Accept(ctx, letter(subject(1), "20"))
		return err == nil
	})
	lease, err := lock.NewRedis(s.Client(), time.Minute).TryLock(ctx, subject(1).LockKey())
	if err != nil {
		t.Fatal(err)
	}
	n, v, err := s.Begin(ctx, subject(1), lease.Token(), time.Minute)
	if err != nil || v != state.OK || len(n.Mail) != 21 {
		t.Fatalf("begin: %v, %v, %d mail", v, err, len(n.Mail))
	}
	if r := save(t, s, state.Commit{Subject: subject(1), Holder: lease.Token(), Doc: []byte("d"), Through: 21, Release: true}); !r.Released {
		t.Fatalf("%+v", r)
	}
	if err := lease.Release(ctx); err != nil {
		t.Fatal(err)
	}
}

// refusals counts the answers of the server that begin with a word, and tells of the first.
type refusals struct {
	word  string
	first chan struct{}
	once  sync.Once
}

func (h *refusals) DialHook(next goredis.DialHook) goredis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h *refusals) ProcessHook(next goredis.ProcessHook) goredis.ProcessHook {
	return func(ctx context.Context, cmd goredis.Cmder) error {
		err := next(ctx, cmd)
		if goredis.HasErrorPrefix(err, h.word) {
			h.once.Do(func() { close(h.first) })
		}
		return err
	}
}

func (h *refusals) ProcessPipelineHook(next goredis.ProcessPipelineHook) goredis.ProcessPipelineHook {
	return next
}

// While a slot is on its way between two nodes, or is nobody's, accept waits inside the call.
func TestAcceptWaitsForAClusterToSettle(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.Options{})
	sub := subject(1)
	slot := int(cluster.Nodes[0].Client().ClusterKeySlot(t.Context(), sub.LockKey()).Val())
	src, dst := cluster.Nodes[slot*3/16384], cluster.Nodes[(slot*3/16384+1)%3]
	id := func(n *redistest.Server) string { return n.Client().ClusterMyID(t.Context()).Val() }
	do := func(n *redistest.Server, args ...any) {
		t.Helper()
		if err := n.Client().Do(t.Context(), args...).Err(); err != nil {
			t.Fatalf("%v: %v", args, err)
		}
	}
	for _, c := range []struct {
		word        string
		disturb     func()
		settleAgain func()
	}{
		{"TRYAGAIN", func() {
			do(dst, "cluster", "setslot", slot, "importing", id(src))
			do(src, "cluster", "setslot", slot, "migrating", id(dst))
		}, func() {
			do(src, "cluster", "setslot", slot, "stable")
			do(dst, "cluster", "setslot", slot, "stable")
		}},
		{"CLUSTERDOWN", func() { do(src, "cluster", "delslots", slot) }, func() { do(src, "cluster", "addslots", slot) }},
	} {
		t.Run(c.word, func(t *testing.T) {
			s := open(t, cluster.URL())
			before := accept(t, s, letter(sub, c.word+" before")).Seq
			seen := &refusals{word: c.word, first: make(chan struct{})}
			s.Client().AddHook(seen)
			c.disturb()
			type answer struct {
				a   state.Accepted
				err error
			}
			got := make(chan answer, 1)
			var one sync.WaitGroup
			one.Go(func() {
				a, err := s.Accept(t.Context(), letter(sub, c.word+" during"))
				got <- answer{a, err}
			})
			select {
			case <-seen.first:
			case r := <-got:
				t.Fatalf("accept did not meet %s: %+v, %v", c.word, r.a, r.err)
			}
			c.settleAgain()
			one.Wait()
			if r := <-got; r.err != nil || r.a.Seq != before+1 {
				t.Fatalf("accept: %+v, %v", r.a, r.err)
			}
		})
	}
}
