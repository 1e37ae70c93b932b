package gitlab

import (
	"errors"
	"net/http"
	"strings"
	"time"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// classify is the one place where GitLab's refusals get their meaning, by the failures of docs/rules.md; all else is the wire's.
// The text of the Fault holds what GitLab says of itself in "message" or "error".
func classify(op string, err error) *forge.Fault {
	var refused *gl.ErrorResponse
	if !errors.As(err, &refused) {
		return wire.Fault(op, err)
	}
	f := &forge.Fault{Op: op, Status: refused.StatusCode, Class: class(refused.StatusCode, refused.Message)}
	switch {
	case f.Status == http.StatusTooManyRequests && refused.Response != nil:
		f.After = pause(refused.Response.Header)
	case f.Class == forge.Contention && f.Status < 500 && f.Status != http.StatusConflict:
		f.After = wire.ShortPause
	}
	text := refused.Message
	if text == "" || strings.HasPrefix(text, "failed to parse") { // client-go then quotes the body
		text = http.StatusText(f.Status)
	}
	f.Err = errors.New(wire.Said(text))
	return f
}

// budget is how the headers that tell of limits begin.
const budget = "RateLimit-"

// told reads what an answer tells of limits, which count calls in a minute. That one endpoint was asked too often
// GitLab says in JSON (lib/api/helpers/rate_limiter.rb), and it concerns nothing else.
func told(res *http.Response) (wire.Told, error) {
	t := wire.Budget(res.Header, budget)
	if res.StatusCode == http.StatusTooManyRequests && !strings.HasPrefix(res.Header.Get("Content-Type"), "application/json") {
		t.Pause = pause(res.Header)
	}
	return t, nil
}

// pause is how long a 429 asks to stay away.
func pause(h http.Header) time.Duration {
	if d, ok := wire.RetryAfter(h); ok {
		return d
	}
	return wire.UntilReset(h, budget)
}

// class says what a status means. 409 is the lock of a commit. A 403 is the credential's fault: GitLab
// hides what we may not see behind 404, so that only a missing scope or role is left; being refused for what cannot be
// done (an archived project) is told apart by its words.
func class(status int, message string) forge.Class {
	text := strings.ToLower(message)
	switch {
	case status == http.StatusTooManyRequests, status == http.StatusConflict,
		status == http.StatusBadRequest && strings.Contains(text, "too many pipelines created"),
		// Older servers report the lock as a fault of theirs.
		status >= 500 && strings.Contains(text, "lock"):
		return forge.Contention
	case status >= 500, status == http.StatusRequestTimeout:
		return forge.Retriable
	case status == http.StatusForbidden && (strings.Contains(text, "archived") || strings.Contains(text, "read-only")):
		return forge.Permanent
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return forge.Auth
	case status == http.StatusNotFound:
		return forge.NotFound
	}
	return forge.Permanent
}
