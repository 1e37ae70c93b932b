package wire

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// Limiter keeps one credential inside a forge's limits. While a limit lasts nothing is sent (asking on risks a ban) and
// every call is answered Contention with the time that is left; below a share of the budget only urgent calls are sent.
// It never sleeps and never repeats: when to come again is the engine's business.
type Limiter struct {
	next http.RoundTripper
	read func(*http.Response) (Told, error)

	mu               sync.Mutex
	until            time.Time // of a limit we ran into
	limit, remaining int       // of the budget, as last told; limit 0 = not told
	reset            time.Time
}

// NewLimiter limits next; read says what an answer tells of limits. It may look into the answer's body if it puts it
// back, and its error is the call's.
func NewLimiter(next http.RoundTripper, read func(*http.Response) (Told, error)) *Limiter {
	return &Limiter{next: next, read: read}
}

// Told is what one answer tells of limits.
type Told struct {
	// Of Limit calls Remaining are left until Reset from now. Limit 0 = not told.
	Limit, Remaining int
	Reset            time.Duration
	// Pause is how long to stay away; 0 = no limit was met.
	Pause time.Duration
}

// Shares of the budget, in percent, below which calls of an urgency wait (docs/rules.md, Failures).
const (
	cosmeticReserve   = 20
	permittingReserve = 5
)

// ShortPause is how long to stay away from a limit that names no time (GitHub's documentation: at least a minute).
// longestPause bounds what a header may ask for; GitHub's windows are an hour.
const (
	ShortPause   = time.Minute
	longestPause = time.Hour
)

var (
	errLimited  = errors.New("rate limit reached")
	errReserved = errors.New("the rest of the budget is kept for more urgent calls")
)

// RoundTrip sends the request, or answers a *forge.Fault of class Contention without sending it.
func (l *Limiter) RoundTrip(req *http.Request) (*http.Response, error) {
	if f := l.refuse(forge.UrgencyOf(req.Context()), time.Now()); f != nil {
		drop(req)
		return nil, f
	}
	res, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	told, err := l.read(res)
	if err != nil {
		return nil, err
	}
	l.learn(told, time.Now())
	return res, nil
}

func (l *Limiter) refuse(u forge.Urgency, now time.Time) *forge.Fault {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.until) {
		return &forge.Fault{Class: forge.Contention, After: Bounded(l.until.Sub(now)), Err: errLimited}
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
		return &forge.Fault{Class: forge.Contention, After: Bounded(l.reset.Sub(now)), Err: errReserved}
	}
	return nil
}

func (l *Limiter) learn(t Told, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.Limit > 0 {
		l.limit, l.remaining, l.reset = t.Limit, t.Remaining, now.Add(t.Reset)
	}
	if end := now.Add(t.Pause); t.Pause > 0 && end.After(l.until) {
		l.until = end
	}
}

// Budget reads the headers PREFIXLimit, PREFIXRemaining and PREFIXReset (seconds since 1970).
func Budget(h http.Header, prefix string) Told {
	limit, e1 := strconv.Atoi(h.Get(prefix + "Limit"))
	remaining, e2 := strconv.Atoi(h.Get(prefix + "Remaining"))
	reset, e3 := strconv.ParseInt(h.Get(prefix+"Reset"), 10, 64)
	if errors.Join(e1, e2, e3) != nil {
		return Told{}
	}
	return Told{Limit: limit, Remaining: remaining, Reset: time.Unix(reset, 0).Sub(forgeTime(h))}
}

// RetryAfter is what the header of that name asks for, if it is there.
func RetryAfter(h http.Header) (time.Duration, bool) {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil {
		return Bounded(time.Duration(min(s, int(longestPause/time.Second))) * time.Second), true
	}
	return ShortPause, v != ""
}

// UntilReset is how long the budget of Budget's headers is not renewed.
func UntilReset(h http.Header, prefix string) time.Duration {
	reset, err := strconv.ParseInt(h.Get(prefix+"Reset"), 10, 64)
	if err != nil {
		return ShortPause
	}
	return Bounded(time.Unix(reset, 0).Sub(forgeTime(h)))
}

// forgeTime is the clock that made the answer, so that a wrong clock on this machine does not stretch a pause.
func forgeTime(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

// Bounded is a pause of at least a second and at most an hour.
func Bounded(d time.Duration) time.Duration { return min(max(d, time.Second), longestPause) }
