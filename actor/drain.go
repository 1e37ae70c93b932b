package actor

import (
	"context"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

// Drained is what a Drain saw.
type Drained struct {
	Subjects int  `json:"subjects"` // that were due, each counted once
	Idle     bool `json:"idle"`     // nothing was due for as long as was asked; false: ctx ended before
}

// drainEvery is how often Drain looks for due subjects. It has a caller who waits, so it looks oftener than poll.
const drainEvery = 25 * time.Millisecond

// Drain has everything that is due done in this process, and answers once nothing has been due here for as long as
// quiet, or ctx or Run has ended. It is for a process that gets time only while it answers a request; the turns are
// Run's, so before Run it waits. The error is the store's.
func (e *Engine) Drain(ctx context.Context, quiet time.Duration) (Drained, error) {
	var out Drained
	seen := map[state.Subject]bool{}
	tick := time.NewTicker(drainEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		due, err := e.store.Due(ctx, 4*e.opt.Turns)
		if ctx.Err() != nil {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("look for due subjects: %w", err)
		}
		for _, s := range due {
			seen[s] = true
			e.poke(s)
		}
		out.Subjects = len(seen)
		if len(due) > 0 || e.busy() {
			last = time.Now()
		} else if time.Since(last) >= quiet {
			out.Idle = true
			return out, nil
		}
		if e.over() {
			return out, nil
		}
		select {
		case <-ctx.Done():
			return out, nil
		case <-tick.C:
		}
	}
}

// busy says whether a turn runs or waits for its place here.
func (e *Engine) busy() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.running) > 0 || len(e.queue) > 0
}

// over says whether Run has been told to end.
func (e *Engine) over() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.hard != nil && !e.taking
}
