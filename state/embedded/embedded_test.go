package embedded_test

import (
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/state/embedded"
	"github.com/signalbox-ci/signalbox/state/statetest"
)

// clock is a store's time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// open opens the store at path until the test ends.
func open(t testing.TB, path string, opts embedded.Options) *embedded.Store {
	t.Helper()
	s, err := embedded.Open(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		c := newClock()
		return statetest.Harness{
			Store:   open(t, filepath.Join(t.TempDir(), "signalbox.db"), embedded.Options{Now: c.now}),
			Advance: c.advance,
		}
	})
}
