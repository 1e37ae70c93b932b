package github

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/bradleyfalzon/ghinstallation/v2"
	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
)

// secondaryPause is how long to stay away after a secondary rate limit that names no time (GitHub's documentation:
// at least a minute). longestPause bounds what a header may ask for; GitHub's windows are an hour.
const (
	secondaryPause = time.Minute
	longestPause   = time.Hour
)

// classify is the one place where errors get their meaning: whatever a call through go-github, ghinstallation or
// net/http can fail with, as a Fault. The table is engine.md's. The text of the Fault holds what GitHub says of
// itself in "message", never a URL, a header, a body or a credential; so the original error is not wrapped, except
// for the end of a context.
func classify(op string, err error) *forge.Fault {
	f := &forge.Fault{Class: forge.Retriable, Op: op}

	var inner *forge.Fault // the limiter's, through http.Client
	if errors.As(err, &inner) {
		f.Class, f.Status, f.After, f.Err = inner.Class, inner.Status, inner.After, inner.Err
		return f
	}
	if a, ok := readAnswer(err); ok {
		f.Status = a.status
		f.Class, f.After = a.class()
		f.Err = errors.New(a.text())
		return f
	}
	for _, never := range []error{errElsewhere, errRedirect, errTooLarge} {
		if errors.Is(err, never) {
			f.Class, f.Err = forge.Permanent, never
			return f
		}
	}
	for _, end := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			f.Err = end
			return f
		}
	}
	var network *url.Error // its own text begins with the whole URL
	if errors.As(err, &network) {
		err = network.Err
	}
	f.Err = errors.New(said(err.Error()))
	return f
}

// answer is what a refusal says, however it reached us.
type answer struct {
	status  int
	header  http.Header
	message string
	docs    string
	errors  []gh.Error
	token   bool          // the refusal was to give an installation token, not to the call itself
	after   time.Duration // known already, from a limit go-github remembers
}

// readAnswer finds the refusal in an error of go-github or ghinstallation.
func readAnswer(err error) (answer, bool) {
	var (
		refused   *gh.ErrorResponse
		twoFactor *gh.TwoFactorAuthError
		primary   *gh.RateLimitError
		secondary *gh.AbuseRateLimitError
		noToken   *ghinstallation.HTTPError
	)
	switch {
	case errors.As(err, &refused):
		return newAnswer(refused.Response, refused.Message, refused.DocumentationURL, refused.Errors), true
	case errors.As(err, &twoFactor):
		return newAnswer(twoFactor.Response, twoFactor.Message, twoFactor.DocumentationURL, nil), true
	case errors.As(err, &primary):
		a := newAnswer(primary.Response, primary.Message, "", nil)
		// go-github answers from memory without a call; only Rate is filled then.
		a.after = bounded(time.Until(primary.Rate.Reset.Time))
		if wait, limited := a.limit(); limited {
			a.after = wait
		}
		return a, true
	case errors.As(err, &secondary):
		a := newAnswer(secondary.Response, secondary.Message, "", nil)
		a.after = secondaryPause
		if secondary.RetryAfter != nil {
			a.after = bounded(*secondary.RetryAfter)
		}
		return a, true
	case errors.As(err, &noToken) && noToken.Response != nil:
		// ghinstallation leaves the body open.
		defer func() { _ = noToken.Response.Body.Close() }()
		a := newAnswer(noToken.Response, "", "", nil)
		a.message, a.docs = readMessage(noToken.Response.Body)
		a.token = true
		return a, true
	}
	return answer{}, false
}

func newAnswer(res *http.Response, message, docs string, errs []gh.Error) answer {
	return answer{status: res.StatusCode, header: res.Header, message: message, docs: docs, errors: errs}
}

// readMessage reads what GitHub says in the body of a refusal; both parts are empty if it is not GitHub's JSON.
func readMessage(body io.Reader) (message, docs string) {
	var v struct {
		Message string `json:"message"`
		Docs    string `json:"documentation_url"`
	}
	b, err := io.ReadAll(io.LimitReader(body, 64<<10))
	if err != nil || json.Unmarshal(b, &v) != nil {
		return "", ""
	}
	return v.Message, v.Docs
}

// limit says whether the answer is a rate limit, and how long to stay away: retry-after, else the end of the window
// if nothing remains, else a minute (GitHub's own order).
func (a answer) limit() (time.Duration, bool) {
	if a.status != http.StatusForbidden && a.status != http.StatusTooManyRequests {
		return 0, false
	}
	if v := a.header.Get("Retry-After"); v != "" {
		if s, err := strconv.Atoi(v); err == nil {
			return bounded(time.Duration(min(s, int(longestPause/time.Second))) * time.Second), true
		}
		return secondaryPause, true
	}
	if a.header.Get("X-RateLimit-Remaining") == "0" {
		reset, err := strconv.ParseInt(a.header.Get("X-RateLimit-Reset"), 10, 64)
		if err != nil {
			return secondaryPause, true
		}
		return bounded(time.Unix(reset, 0).Sub(forgeTime(a.header))), true
	}
	text := strings.ToLower(a.message)
	secondary := strings.Contains(text, "secondary rate limit") || strings.Contains(text, "abuse detection") ||
		strings.HasSuffix(a.docs, "secondary-rate-limits") || strings.HasSuffix(a.docs, "#abuse-rate-limits")
	return secondaryPause, secondary || a.status == http.StatusTooManyRequests
}

// forgeTime is the clock that made the answer, so that a wrong clock on this machine does not stretch a pause.
func forgeTime(h http.Header) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil {
		return t
	}
	return time.Now()
}

func bounded(d time.Duration) time.Duration { return min(max(d, time.Second), longestPause) }

func (a answer) class() (forge.Class, time.Duration) {
	if a.after != 0 {
		return forge.Contention, a.after
	}
	if wait, limited := a.limit(); limited {
		return forge.Contention, wait
	}
	switch {
	case a.status >= 500 || a.status == http.StatusRequestTimeout:
		return forge.Retriable, 0
	case a.token:
		// A removed or suspended installation answers 403 or 404 here. It must not read as "not found" to
		// whoever asked about a person or a label.
		return forge.Auth, 0
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden && a.blamesCredential():
		return forge.Auth, 0
	case a.status == http.StatusConflict:
		return forge.Contention, 0
	case a.status == http.StatusNotFound,
		// Said for a commit that GitHub's replicas do not show yet as well as for one that never was.
		a.status == http.StatusUnprocessableEntity && strings.HasPrefix(a.message, "No commit found for SHA"):
		return forge.NotFound, 0
	}
	return forge.Permanent, 0
}

// blamesCredential tells "you may not" (missing permission, suspended, single sign-on, address list) from "this
// cannot be done" (archived repository, run that is not from a fork). Only the first is mended by whoever owns the
// credential. The sentences are GitHub's.
func (a answer) blamesCredential() bool {
	if a.header.Get("X-GitHub-SSO") != "" {
		return true
	}
	text := strings.ToLower(a.message)
	for _, part := range []string{
		"resource not accessible by", "must have", "suspended", "saml", "ip allow list", "credentials",
		"login attempts", "personal access token", "requires authentication", "must authenticate", "permission",
	} {
		if strings.Contains(text, part) {
			return true
		}
	}
	return false
}

func (a answer) text() string {
	text := a.message
	if text == "" {
		text = http.StatusText(a.status)
	}
	if len(a.errors) > 0 {
		first := a.errors[0]
		detail := first.Message
		if detail == "" {
			detail = strings.TrimSpace(first.Resource + " " + first.Field + " " + first.Code)
		}
		if detail != "" {
			text += ": " + detail
		}
	}
	if a.token {
		text = "no token for the App's installation: " + text
	}
	return said(text)
}

// maxSaid is the most we repeat of what the other side says, in runes.
const maxSaid = 200

// secret is what no text may carry: GitHub's token forms, authorization headers, user and query of a URL.
var secret = regexp.MustCompile(`gh[pousr]_\w+|github_pat_\w+|(?i:bearer|basic)\s+\S+|eyJ[\w-]+\.[\w.-]+|//[^/@\s]+@|\?[^\s"]*=[^\s"]*`)

// said makes a foreign text fit for an error: one line, no secret, not long.
func said(s string) string {
	s = secret.ReplaceAllString(s, "…")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	s = strings.Join(strings.Fields(s), " ")
	return cut(s, maxSaid)
}

// cut shortens s to at most n runes; what is cut shows as "…".
func cut(s string, n int) string {
	seen := 0
	for i := range s {
		if seen++; seen == n {
			if rest := s[i:]; len([]rune(rest)) > 1 {
				return s[:i] + "…"
			}
			return s
		}
	}
	return s
}

// permanent is a Fault found before any call.
func permanent(op string, err error) *forge.Fault {
	return &forge.Fault{Class: forge.Permanent, Op: op, Err: err}
}

// incomplete is a Fault for an answer that lacks what it must have, as a broken proxy gives it. It is neither a yes
// nor a no.
func incomplete(op string) *forge.Fault {
	return &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("the answer is incomplete")}
}

// fault is classify for the Client's calls: nil stays nil, and an installation that gives no token any more is looked
// up anew next time.
func (c *Client) fault(op string, err error) error {
	if err == nil {
		return nil
	}
	f := classify(op, err)
	var noToken *ghinstallation.HTTPError
	if f.Class == forge.Auth && errors.As(err, &noToken) {
		c.forget(noToken.InstallationID)
	}
	return f
}

func (c *Client) forget(installation int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.installations, installation)
	for name, id := range c.installedAt {
		if id == installation {
			delete(c.installedAt, name)
		}
	}
}
