package github

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// limiter keeps one credential inside GitHub's limits. While a limit lasts nothing is sent (asking on risks a ban)
// and every call is answered Contention with the time that is left; below a share of the hourly budget only urgent
// calls are sent. It never sleeps and never repeats: when to come again is the engine's business.
type limiter struct {
	next http.RoundTripper

	mu               sync.Mutex
	until            time.Time // of a limit we ran into
	limit, remaining int       // of the hourly budget, as last told; limit 0 = not told
	reset            time.Time
}

// Shares of the hourly budget, in percent, below which calls of an urgency wait (engine.md, failures).
const (
	cosmeticReserve   = 20
	permittingReserve = 5
)

var (
	errLimited  = errors.New("rate limit reached")
	errReserved = errors.New("the rest of the hourly budget is kept for more urgent calls")
)

// RoundTrip sends the request, or answers a *forge.Fault of class Contention without sending it.
func (l *limiter) RoundTrip(req *http.Request) (*http.Response, error) {
	if f := l.refuse(forge.UrgencyOf(req.Context()), time.Now()); f != nil {
		if req.Body != nil {
			_ = req.Body.Close() // RoundTripper's contract; nothing was read from it
		}
		return nil, f
	}
	res, err := l.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := l.learn(res); err != nil {
		return nil, err
	}
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

// learn takes what the answer says of limits. It reads the body of a refusal and puts it back.
func (l *limiter) learn(res *http.Response) error {
	now := time.Now()
	if resource := res.Header.Get("X-RateLimit-Resource"); resource == "" || resource == "core" {
		limit, e1 := strconv.Atoi(res.Header.Get("X-RateLimit-Limit"))
		remaining, e2 := strconv.Atoi(res.Header.Get("X-RateLimit-Remaining"))
		reset, e3 := strconv.ParseInt(res.Header.Get("X-RateLimit-Reset"), 10, 64)
		if errors.Join(e1, e2, e3) == nil {
			l.mu.Lock()
			l.limit, l.remaining = limit, remaining
			l.reset = now.Add(time.Unix(reset, 0).Sub(forgeTime(res.Header)))
			l.mu.Unlock()
		}
	}
	if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusTooManyRequests {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	message, docs := readMessage(bytes.NewReader(body))
	wait, limited := newAnswer(res, message, docs, nil).limit()
	if !limited {
		return nil
	}
	// go-github would take the end of the hourly window for the end of a secondary limit, up to an hour late.
	res.Header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	l.mu.Lock()
	defer l.mu.Unlock()
	if end := now.Add(wait); end.After(l.until) {
		l.until = end
	}
	return nil
}
