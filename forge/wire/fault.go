package wire

import (
	"context"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"github.com/signalbox-ci/signalbox/forge"
)

// Fault is what an error means that is no refusal by the forge itself: the Limiter's, the Guard's, the end of a context,
// the network. What the forge answers its adapter classifies. The text holds no URL, header, body or credential; so the
// error is not wrapped, except for the end of a context.
func Fault(op string, err error) *forge.Fault {
	f := &forge.Fault{Class: forge.Retriable, Op: op}
	if inner := (*forge.Fault)(nil); errors.As(err, &inner) { // the Limiter's, through http.Client
		f.Class, f.Status, f.After, f.Err = inner.Class, inner.Status, inner.After, inner.Err
		return f
	}
	for _, never := range []error{errElsewhere, ErrRedirect, errTooLarge} {
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
	if network := (*url.Error)(nil); errors.As(err, &network) { // its own text begins with the whole URL
		err = network.Err
	}
	f.Err = errors.New(Said(err.Error()))
	return f
}

// Permanent is a Fault found before any call, or one that another attempt will not change.
func Permanent(op string, err error) *forge.Fault {
	return &forge.Fault{Class: forge.Permanent, Op: op, Err: err}
}

// Incomplete is a Fault for an answer that lacks what it must have, as a broken proxy gives it. It is neither a yes nor
// a no.
func Incomplete(op string) *forge.Fault {
	return &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("the answer is incomplete")}
}

// NotFound says that an error is a Fault of that class.
func NotFound(err error) bool { return err != nil && forge.Classify(err).Class == forge.NotFound }

// maxSaid is the most we repeat of what the other side says, in runes.
const maxSaid = 200

// secret is what no text may carry: the token forms of GitHub and GitLab, signing secrets, authorization headers, user
// and query of a URL.
var secret = regexp.MustCompile(`gh[pousr]_\w+|github_pat_\w+|gl(pat|ptt|rt|dt|oas|cbt|imt|agent|ft)-[\w.-]+|whsec_\S+|` +
	`(?i:bearer|basic|private-token:?)\s+\S+|eyJ[\w-]+\.[\w.-]+|//[^/@\s]+@|\?[^\s"]*=[^\s"]*`)

// Said makes a foreign text fit for an error: one line, no secret, not long.
func Said(s string) string {
	s = secret.ReplaceAllString(s, "…")
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, s)
	return Cut(strings.Join(strings.Fields(s), " "), maxSaid)
}

// Cut shortens s to at most n runes; what is cut shows as "…".
func Cut(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}
