package actor

import (
	"math/rand/v2"
	"time"
)

// The numbers of the table of failures in docs/rules.md.
const (
	maxTries     = 25            // then a permitting or cosmetic entry becomes a dead letter
	stuckAfter   = 3             // tries after which an entry that fails is no passing fault
	shutEvery    = 6 * time.Hour // a shutting entry that used up its tries is repeated so often, for ever
	DeadLife     = 90 * 24 * time.Hour
	replyLife    = 24 * time.Hour // of a stored Ask reply
	askTries     = 20             // compare-and-swap rounds before ErrBusy
	maxCrashes   = 5              // the fifth in a row quarantines the subject
	suspectAfter = 2              // crashes in a row from which a subject runs alone in its process
	maxPanics    = 4              // the fourth in a row gives the mail up
)

// tryBackoff is the wait after the n-th counted try, n from 1.
func tryBackoff(n int) time.Duration {
	d := shutEvery
	if n < 20 {
		d = min(d, time.Second<<(n-1))
	}
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// contentionBackoff is the wait after the k-th answer "busy" in a row, k from 1: full jitter, never zero.
func contentionBackoff(k int) time.Duration {
	ceiling := 30 * time.Second
	if k < 8 {
		ceiling = min(ceiling, 250*time.Millisecond<<(k-1))
	}
	return time.Millisecond + time.Duration(rand.Int64N(int64(ceiling)))
}

// authBackoff is the wait after the k-th refusal of the credential in a row, k from 1.
func authBackoff(k int) time.Duration { return min(15*time.Minute, time.Minute<<(min(k, 5)-1)) }

// crashBackoff is the wait after the n-th crash in a row, n from 1; the caller quarantines at maxCrashes.
func crashBackoff(n int) time.Duration {
	return [...]time.Duration{0, 10 * time.Second, time.Minute, 5 * time.Minute}[min(n, 4)-1]
}

// panicBackoff is the wait after the n-th panic in a row, n from 1; the caller gives up at maxPanics.
func panicBackoff(n int) time.Duration {
	return [...]time.Duration{0, 10 * time.Second, time.Minute}[min(n, 3)-1]
}
