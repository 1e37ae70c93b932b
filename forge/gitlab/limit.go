package gitlab

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// limiter keeps the credential inside GitLab's limits, which count calls in a minute. While a limit lasts nothing is
// sent and every call is answered Contention with the time that is left; below a share of the budget only urgent calls
// are sent. It never sleeps and never repeats: when to come again is the engine's business.
type limiter struct {
	next http.RoundTripper

	mu               sync.Mutex
	until            time.Time // of a limit we ran into
	limit, remaining int       // as last told; limit 0 = not told
	reset            time.Time
}

// Shares of the budget, in percent, below which calls of an urgency wait (engine.md, failures).
const (
	cosmeticReserve   = 20
	permittingReserve = 5
)

// limitPause is how long to stay away after a 429 that names no time; longestPause bounds what a header may ask for.
const (
	limitPause   = time.Minute
	longestPause = time.Hour
)

var (
	errLimited  = errors.New("rate limit reached")
	errReserved = errors.New("the rest of the budget is kept for more urgent calls")
)

// RoundTrip sends the request, or answers a *forge.Fault of class Contention without sending it.
func (l *limiter) RoundTrip(req *http.Request) (*http.Response, error) {
	if f := l.refuse(forge.UrgencyOf(req.Context()), time.Now()); f != nil {
		drop(req)
		return nil, f
	}
	res, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	l.learn(res, time.Now())
	return res, nil
}

func (l *limiter) refuse(u forge.Urgency, now time.Time) *forge.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.until) {
		return &forge.Fault{Class: forge.Contention, After: bounded(l.until.Sub(now)), Err: errLimited}
	}
	reserve := 0
	switch u {
	case forge.Cosmetic:
		reserve = cosmeticReserve
	case forge.Permitting:
		reserve = permittingReserve
	case forge.Shutting:
	}
	if l.remaining*100 < l.limit*reserve && now.Before(l.reset) {
		return &forge.Fault{Class: forge.Contention, After: bounded(l.reset.Sub(now)), Err: errReserved}
	}
	return nil
}

// learn takes what the answer says of limits.
func (l *limiter) learn(res *http.Response, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	limit, e1 := strconv.Atoi(res.Header.Get("RateLimit-Limit"))
	remaining, e2 := strconv.Atoi(res.Header.Get("RateLimit-Remaining"))
	reset, e3 := strconv.ParseInt(res.Header.Get("RateLimit-Reset"), 10, 64)
	if errors.Join(e1, e2, e3) == nil {
		l.limit, l.remaining = limit, remaining
		l.reset = now.Add(time.Unix(reset, 0).Sub(forgeTime(res.Header)))
	}
	if res.StatusCode == http.StatusTooManyRequests {
		if end := now.Add(pause(res.Header)); end.After(l.until) {
			l.until = end
		}
	}
}

// pause is how long a 429 asks to stay away.
func pause(h http.Header) time.Duration {
	if s, err := strconv.Atoi(h.Get("Retry-After")); err == nil {
		return bounded(time.Duration(min(s, int(longestPause/time.Second))) * time.Second)
	}
	if reset, err := strconv.ParseInt(h.Get("RateLimit-Reset"), 10, 64); err == nil {
		return bounded(time.Unix(reset, 0).Sub(forgeTime(h)))
	}
	return limitPause
}

// forgeTime is the clock that made the answer, so that a wrong clock on this machine does not stretch a pause.
func forgeTime(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

func bounded(d time.Duration) time.Duration { return min(max(d, time.Second), longestPause) }
