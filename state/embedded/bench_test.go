package embedded_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// BenchmarkAccept measures accepts of 1 KB mail over 1000 subjects, alone and from 64 senders. Disks differ by orders
// of magnitude, so beside ns/op it reports how many accepts were done in the time of one plain synced append of 1 KB
// to a file in the same directory, measured in the same run.
func BenchmarkAccept(b *testing.B) {
	for _, senders := range []int{1, 64} {
		for _, raw := range []int{0, 24 << 10} {
			b.Run(fmt.Sprintf("c=%d/raw=%d", senders, raw), func(b *testing.B) { benchmarkAccept(b, senders, raw) })
		}
	}
}

func benchmarkAccept(b *testing.B, senders, raw int) {
	dir := b.TempDir()
	s := open(b, filepath.Join(dir, "signalbox.db"), embedded.Options{})
	appended := syncedAppend(b, filepath.Join(dir, "plain"))
	body := bytes.Repeat([]byte("0123456789abcdef"), 64)
	rawBody := bytes.Repeat([]byte(`{"action":"synchronize","number":7,"sender":{"login":"octocat"}} `), raw/65)
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for range senders {
		wg.Go(func() {
			for {
				i := next.Add(1)
				if i > int64(b.N) {
					return
				}
				d := state.Delivery{
					Subject: state.Subject{Instance: "github", Project: "1", Kind: "pr", Key: fmt.Sprint(i % 1000)},
					ID:      fmt.Sprintf("github:hook:%08x-9a3c-11ef-8f0e-%012x", uint32(i)*2654435761, i),
					Kind:    "pull_request", Format: 1, Body: body,
				}
				if raw > 0 {
					d.Raw = rawBody
				}
				if a, err := s.Accept(b.Context(), d); err != nil || a.Seq == 0 {
					b.Errorf("accept: %+v, %v", a, err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	perAccept := b.Elapsed() / time.Duration(b.N)
	b.ReportMetric(float64(time.Second)/float64(perAccept), "accepts/s")
	b.ReportMetric(float64(appended)/float64(perAccept), "accepts/synced-append")
}

// syncedAppend is the time of one write of 1 KB and fsync.
func syncedAppend(b *testing.B, path string) time.Duration {
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const n = 200
	start := time.Now()
	for range n {
		if _, err := f.Write(make([]byte, 1024)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
	return time.Since(start) / n
}
