// Package httptrigger starts presubmits at any CI by one signed HTTP request (docs/recipes/http.md).
//
// A request is a POST of Payload in JSON, signed by the Standard Webhooks rules: webhook-id, webhook-timestamp and
// webhook-signature, an HMAC-SHA256 of "id.timestamp.body" in base64 behind "v1,". The Idempotency-Key is the same for
// every repetition of one order, and there can be repetitions: the CI must answer a second start of a key with success
// and start nothing. Any 2xx means accepted; the answer's body is not read.
//
// No redirect is followed, no proxy is used, and no address is spoken to that is not public, unless the Client may speak
// to private ones: otherwise whoever controls the DNS of the CI could make Signalbox post to its own neighbours.
package httptrigger

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// Payload is the body of an order.
type Payload struct {
	Action   string `json:"action"`   // "start" or "cancel"
	Key      string `json:"key"`      // run key
	Instance string `json:"instance"` // configured name of the forge
	Repo     string `json:"repo"`     // base repository, "owner/name"
	PR       int    `json:"pr"`       // 0 for a merge group
	SHA      string `json:"sha"`      // what is to be tested, in full
	BaseSHA  string `json:"base_sha"` // tip of the base branch when it was granted; may be empty
	// Of a start: where and with what the CI tells how the run goes. Empty where it cannot.
	StatusURL   string `json:"status_url"`
	StatusToken string `json:"status_token"`
}

// Bounds of one call, beneath the deadline of its context.
const (
	dialWithin   = 5 * time.Second
	answerWithin = 15 * time.Second
	maxHeader    = 64 << 10 // bytes of the answer's header
	maxDrained   = 64 << 10 // bytes of the answer's body, read only so that the connection can be used again
	maxPause     = time.Hour
)

// keyLengths are those that Standard Webhooks allows, in bytes.
const minKey, maxKey = 24, 64

// start is what Payload.Action says of a start.
const start = "start"

// Client posts orders. It is safe for concurrent use and owns no goroutine but those of its connections.
type Client struct {
	key  []byte
	http http.Client
}

// New makes a client that signs with secret, "whsec_" and 24 to 64 bytes in base64. private lets it speak to loopback and
// private addresses too.
func New(secret string, private bool) (*Client, error) {
	key, err := ParseSecret(secret)
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: dialWithin, Control: func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil || !mayDial(to.Addr(), private) {
			return errAddress
		}
		return nil
	}}
	return &Client{key: key, http: http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: dialWithin, ResponseHeaderTimeout: answerWithin,
			MaxResponseHeaderBytes: maxHeader, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// ParseSecret reads a signing secret. Its error does not show it.
func ParseSecret(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, "whsec_")
	key, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(key) < minKey || len(key) > maxKey {
		return nil, fmt.Errorf("not a signing secret; expected whsec_ and %d to %d bytes in base64, as made by: echo whsec_$(openssl rand -base64 32)", minKey, maxKey)
	}
	return key, nil
}

// Results answers where the CI tells how a run goes, and a fresh token that is good for that alone. Empty: it cannot.
type Results func(run forge.Run) (url, token string)

// Trigger is the trigger for one address. It is no prmanager.Finder: there is no way to ask, and the CI knows runs by
// their keys.
type Trigger struct {
	client  *Client
	url     string
	results Results
}

var _ prmanager.Trigger = Trigger{}

// Trigger is the trigger that posts to address, an absolute http or https URL. results must be safe for concurrent use.
func (c *Client) Trigger(address string, results Results) (Trigger, error) {
	if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return Trigger{}, errors.New("expected an absolute http or https URL without user or password")
	}
	return Trigger{c, address, results}, nil
}

// Start orders the run: 1 call. The receipt's id is the run key: by that name the CI knows the run.
func (t Trigger) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	if err := t.post(ctx, "start the run over HTTP", start, run.Key, run); err != nil {
		return forge.Receipt{}, err
	}
	return forge.Receipt{ID: run.Key}, nil
}

// Cancel orders the end of the run: 1 call. A CI that knows no such run may answer 404 or 410.
func (t Trigger) Cancel(ctx context.Context, run forge.Run, _ forge.Receipt) error {
	err := t.post(ctx, "cancel the run over HTTP", "cancel", run.Key+"-cancel", run)
	if status := forge.Classify(err).Status; err != nil && (status == http.StatusNotFound || status == http.StatusGone) {
		return nil
	}
	return err
}

// post sends one order. id is what makes repetitions of it one.
func (t Trigger) post(ctx context.Context, op, action, id string, run forge.Run) error {
	if !strings.HasPrefix(run.Key, "sb1-") || !hexSHA(run.SHA) || run.BaseSHA != "" && !hexSHA(run.BaseSHA) {
		return &forge.Fault{Class: forge.Permanent, Op: op, Err: errRun}
	}
	order := Payload{
		Action: action, Key: run.Key, Instance: run.Ref.Repo.Instance, Repo: run.Ref.Repo.Name, PR: run.Ref.Number,
		SHA: run.SHA, BaseSHA: run.BaseSHA,
	}
	if action == start {
		order.StatusURL, order.StatusToken = t.results(run)
	}
	body, err := json.Marshal(order)
	if err != nil {
		return &forge.Fault{Class: forge.Permanent, Op: op, Err: err}
	}
	return t.client.Post(ctx, op, t.url, id, body)
}

// Post sends one signed request to an absolute http or https URL: 1 call. id is what makes repetitions of it one, body
// is JSON. The error is a *forge.Fault named after op, and shows no part of the address.
func (c *Client) Post(ctx context.Context, op, address, id string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(body))
	if err != nil {
		return &forge.Fault{Class: forge.Permanent, Op: op, Err: errors.New("no request can be made of the address")}
	}
	at := strconv.FormatInt(time.Now().Unix(), 10)
	for name, value := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "signalbox", "Idempotency-Key": id,
		"Webhook-Id": id, "Webhook-Timestamp": at, "Webhook-Signature": c.sign(id, at, body),
	} {
		req.Header.Set(name, value)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return unanswered(op, err)
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, maxDrained) // the answer is known already
	return refused(op, res)
}

// sign is the value of webhook-signature.
func (c *Client) sign(id, at string, body []byte) string {
	mac := hmac.New(sha256.New, c.key)
	_, _ = fmt.Fprintf(mac, "%s.%s.%s", id, at, body) // a hash never fails
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// What no repetition mends.
var (
	errRun     = errors.New("the run has no key or no full commit SHA")
	errAddress = errors.New("the receiver's address is not public; SIGNALBOX_HTTP_TRIGGER_PRIVATE=1 allows private ones")
)

// unanswered is the meaning of a call that got no answer. The error's own text has the URL, which may hold a token.
func unanswered(op string, err error) error {
	f := &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("no answer")}
	switch {
	case errors.Is(err, errAddress):
		f.Class, f.Err = forge.Permanent, errAddress
	case errors.Is(err, context.Canceled):
		f.Err = context.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		f.Err = context.DeadlineExceeded
	}
	return f
}

// refused is the meaning of an answer; nil = accepted.
func refused(op string, res *http.Response) error {
	f := &forge.Fault{Class: forge.Permanent, Op: op, Status: res.StatusCode, Err: errors.New("the receiver refuses")}
	switch code := res.StatusCode; {
	case code >= 200 && code < 300:
		return nil
	case code >= 300 && code < 400:
		f.Err = errors.New("the receiver redirects, and redirects are not followed")
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		f.Class, f.Err = forge.Auth, errors.New("the receiver refuses our signature")
	case code == http.StatusConflict, code == http.StatusTooManyRequests:
		f.Class, f.After, f.Err = forge.Contention, after(res), errors.New("the receiver is busy")
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly:
		f.Class, f.After, f.Err = forge.Retriable, after(res), errors.New("the receiver is failing")
	}
	return f
}

// after reads Retry-After in seconds, no longer than maxPause.
func after(res *http.Response) time.Duration {
	n, err := strconv.Atoi(res.Header.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return time.Duration(min(n, int(maxPause/time.Second))) * time.Second
}

// mayDial says whether an address may be spoken to. Link-local ones never: cloud machines find their own credentials
// there. What package netip does not tell of special addresses is IANA's registries'.
func mayDial(ip netip.Addr, private bool) bool {
	ip = ip.Unmap().WithZone("")
	within := func(prefixes ...string) bool {
		for _, p := range prefixes {
			if netip.MustParsePrefix(p).Contains(ip) {
				return true
			}
		}
		return false
	}
	switch {
	case within("64:ff9b::/96"): // the network translates it to an address of version 4 (RFC 6052)
		b := ip.As16()
		return mayDial(netip.AddrFrom4([4]byte(b[12:])), private)
	case within("0.0.0.0/8", "192.0.0.0/24", "198.18.0.0/15", "240.0.0.0/4", "64:ff9b:1::/48", "100::/64", "2001::/32", "2002::/16"):
		return false
	case ip.IsLoopback(), ip.IsPrivate(), within("100.64.0.0/10"): // the last is for carriers (RFC 6598)
		return private
	}
	return ip.IsGlobalUnicast()
}

func hexSHA(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}
