// Package wire is the way to a forge over HTTP, whichever forge it is: nothing leaves for another host, no answer is
// read without end, a credential stays inside its limits, and whatever fails there becomes a *forge.Fault whose text
// carries no secret. An adapter puts a Limiter before its credential and a Guard behind it, and adds what only its forge
// says: how limits are told, and what a refusal means.
package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Agent is the User-Agent, by which a forge knows whom to ask about odd traffic.
const Agent = "signalbox"

// maxAnswer is the largest answer body we read, in bytes. A page of 100 workflow runs is about 2 MB.
const maxAnswer = 16 << 20

// Errors of the wire, all permanent: asking again would be answered the same.
var (
	// ErrRedirect is for an adapter's CheckRedirect.
	ErrRedirect  = errors.New("refused a redirect")
	errElsewhere = errors.New("refused to send a credential to another host")
	errTooLarge  = fmt.Errorf("answer larger than %d bytes", maxAnswer)
)

// Guard is the last thing before the network: nothing leaves for another host than the base's, whatever a redirect or a
// page link says, every request says who asks, and no answer is read beyond 16 MiB.
type Guard struct {
	next http.RoundTripper
	base *url.URL
}

// NewGuard guards next, which it never closes; nil = a pool of its own.
func NewGuard(next http.RoundTripper, base *url.URL) *Guard {
	if next == nil {
		// As many kept connections as there are turns in a process (docs/rules.md E9): a forge may speak HTTP/1.1 only.
		next = &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64}
	}
	return &Guard{next, base}
}

// RoundTrip refuses other hosts and caps the answer.
func (g *Guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != g.base.Scheme || req.URL.Host != g.base.Host {
		drop(req)
		return nil, errElsewhere
	}
	if req.Header.Get("User-Agent") == "" {
		req = req.Clone(req.Context())
		req.Header.Set("User-Agent", Agent)
	}
	res, err := g.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	res.Body = &capped{ReadCloser: res.Body, left: maxAnswer}
	return res, nil
}

// drop ends a request that is not sent, as a RoundTripper must.
func drop(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close() // nothing was read from it
	}
}

// capped fails once more than left bytes have been read. Unlike io.LimitReader it does not pretend an end.
type capped struct {
	io.ReadCloser
	left int64
}

func (b *capped) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	return n, err
}
