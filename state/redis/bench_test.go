package redis_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// BenchmarkStore compares, at 64 at once and with 1 KB of mail, what the store does with a plain SET of the same
// size. Rates drift with the machine; the ratios of one run ("of SET") are what to look at. The three take turns in
// small portions, so that the machine's moods meet them alike.
func BenchmarkStore(b *testing.B) {
	for _, fsync := range []string{"always", "everysec"} {
		b.Run(fsync, func(b *testing.B) {
			s := open(b, redistest.Start(b, redistest.Options{AppendFsync: fsync}).URL())
			l := lock.NewRedis(s.Client(), 15*time.Second)
			body := []byte(strings.Repeat("x", 1000))
			mail := func(i int64) state.Delivery {
				d := letter(subject(int(i)), fmt.Sprint(i))
				d.Body = body
				return d
			}
			kinds := []struct {
				name string
				op   func(i int64) error
				took time.Duration
			}{
				{name: "SET", op: func(i int64) error { return s.Client().Set(b.Context(), fmt.Sprint("plain", i), body, 0).Err() }},
				{name: "accept", op: func(i int64) error { _, err := s.Accept(b.Context(), mail(-i)); return err }},
				{name: "cycle", op: func(i int64) error { return cycle(b, s, l, mail(i)) }},
			}
			const portion = 640
			var next atomic.Int64
			total := 0
			for b.Loop() {
				for k := range kinds {
					start := time.Now()
					atOnce(b, 64, portion, func() error { return kinds[k].op(next.Add(1)) })
					kinds[k].took += time.Since(start)
				}
				total += portion
			}
			for _, k := range kinds {
				b.ReportMetric(float64(total)/k.took.Seconds(), k.name+"/s")
				if k.name != "SET" {
					b.ReportMetric(kinds[0].took.Seconds()/k.took.Seconds(), k.name+"-of-SET")
				}
			}
			b.ReportMetric(0, "ns/op") // of three different things together: means nothing
		})
	}
}

// cycle is the whole way of one mail: accept, lease, begin, and the commit that releases.
func cycle(b *testing.B, s *redis.Store, l lock.Locker, d state.Delivery) error {
	ctx := b.Context()
	if _, err := s.Accept(ctx, d); err != nil {
		return err
	}
	lease, err := l.TryLock(ctx, d.Subject.LockKey())
	if err != nil {
		return err
	}
	n, v, err := s.Begin(ctx, d.Subject, lease.Token(), l.TTL())
	if err != nil || v != state.OK {
		return fmt.Errorf("begin: %v, %w", v, err)
	}
	lease.Pause()
	r, err := s.Commit(ctx, state.Commit{
		Subject: d.Subject, Holder: lease.Token(), Version: n.Version, Doc: d.Body[:300], Through: n.Mail[len(n.Mail)-1].Seq,
		Index: []state.Index{{Name: "touched", Label: "t", Score: 1}}, Journal: [][]byte{d.Body[:100]}, Release: true,
	})
	if err != nil || !r.Released {
		return fmt.Errorf("commit: %+v, %w", r, err)
	}
	return lease.Release(ctx)
}

// atOnce does n operations by c goroutines.
func atOnce(b *testing.B, c, n int, op func() error) {
	b.Helper()
	var all sync.WaitGroup
	for range c {
		all.Go(func() {
			for range n / c {
				if err := op(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	all.Wait()
}
