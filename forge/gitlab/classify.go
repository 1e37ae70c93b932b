package gitlab

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
)

// classify is the one place where errors get their meaning, by the table of engine.md. The text of the Fault holds what
// GitLab says of itself in "message" or "error", never a URL, a header, a body or a credential; so the original error is
// not wrapped, except for the end of a context.
func classify(op string, err error) *forge.Fault {
	f := &forge.Fault{Class: forge.Retriable, Op: op}

	var inner *forge.Fault // the limiter's, through http.Client
	if errors.As(err, &inner) {
		f.Class, f.Status, f.After, f.Err = inner.Class, inner.Status, inner.After, inner.Err
		return f
	}
	var refused *gl.ErrorResponse
	if errors.As(err, &refused) {
		f.Status = refused.StatusCode
		f.Class = class(refused.StatusCode, refused.Message)
		switch {
		case f.Status == http.StatusTooManyRequests && refused.Response != nil:
			f.After = pause(refused.Response.Header)
		case f.Class == forge.Contention && f.Status < 500 && f.Status != http.StatusConflict:
			f.After = limitPause
		}
		text := refused.Message
		if text == "" || strings.HasPrefix(text, "failed to parse") { // client-go then quotes the body
			text = http.StatusText(f.Status)
		}
		f.Err = errors.New(said(text))
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

// class says what a status means. 409 is the lock of a commit (forges.md A1). A 403 is the credential's fault: GitLab
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

func notFound(err error) bool { return err != nil && forge.Classify(err).Class == forge.NotFound }

// maxSaid is the most we repeat of what the other side says, in runes.
const maxSaid = 200

// secret is what no text may carry: GitLab's token forms, authorization headers, user and query of a URL.
var secret = regexp.MustCompile(`gl(pat|ptt|rt|dt|oas|cbt|imt|agent|ft)-[\w.-]+|whsec_\S+|(?i:bearer|basic|private-token:?)\s+\S+|//[^/@\s]+@|\?[^\s"]*=[^\s"]*`)

// said makes a foreign text fit for an error: one line, no secret, not long.
func said(s string) string {
	s = secret.ReplaceAllString(s, "…")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	return cut(strings.Join(strings.Fields(s), " "), maxSaid)
}

// cut shortens s to at most n runes; what is cut shows as "…".
func cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// permanent is a Fault found before any call, or one that another attempt will not change.
func permanent(op string, err error) *forge.Fault {
	return &forge.Fault{Class: forge.Permanent, Op: op, Err: err}
}

// incomplete is a Fault for an answer that lacks what it must have, as a broken proxy gives it. It is neither a yes nor
// a no.
func incomplete(op string) *forge.Fault {
	return &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("the answer is incomplete")}
}
