package github

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bradleyfalzon/ghinstallation/v2"
	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// classify is the one place where GitHub's refusals get their meaning, through go-github or ghinstallation, by the table
// of docs/rules.md; all else is the wire's. The text of the Fault holds what GitHub says of itself in "message".
func classify(op string, err error) *forge.Fault {
	a, ok := readAnswer(err)
	if !ok {
		return wire.Fault(op, err)
	}
	f := &forge.Fault{Op: op, Status: a.status, Err: errors.New(a.text())}
	f.Class, f.After = a.class()
	return f
}

// budget is how the headers that tell of limits begin.
const budget = "X-RateLimit-"

// told reads what an answer tells of limits: of the hourly budget, and of a limit that was met. It reads the body of a
// refusal and puts it back.
func told(res *http.Response) (wire.Told, error) {
	var t wire.Told
	if resource := res.Header.Get(budget + "Resource"); resource == "" || resource == "core" {
		t = wire.Budget(res.Header, budget)
	}
	if res.StatusCode != http.StatusForbidden && res.StatusCode != http.StatusTooManyRequests {
		return t, nil
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return t, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	message, docs := readMessage(bytes.NewReader(body))
	wait, limited := newAnswer(res, message, docs, nil).limit()
	if limited {
		t.Pause = wait
		// go-github would take the end of the hourly window for the end of a secondary limit, up to an hour late.
		res.Header.Set("Retry-After", strconv.Itoa(int(wait/time.Second)))
	}
	return t, nil
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
		a.after = wire.Bounded(time.Until(primary.Rate.Reset.Time))
		if wait, limited := a.limit(); limited {
			a.after = wait
		}
		return a, true
	case errors.As(err, &secondary):
		a := newAnswer(secondary.Response, secondary.Message, "", nil)
		a.after = wire.ShortPause
		if secondary.RetryAfter != nil {
			a.after = wire.Bounded(*secondary.RetryAfter)
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
	if d, ok := wire.RetryAfter(a.header); ok {
		return d, true
	}
	if a.header.Get(budget+"Remaining") == "0" {
		return wire.UntilReset(a.header, budget), true
	}
	text := strings.ToLower(a.message)
	secondary := strings.Contains(text, "secondary rate limit") || strings.Contains(text, "abuse detection") ||
		strings.HasSuffix(a.docs, "secondary-rate-limits") || strings.HasSuffix(a.docs, "#abuse-rate-limits")
	return wire.ShortPause, secondary || a.status == http.StatusTooManyRequests
}

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
	return wire.Said(text)
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
