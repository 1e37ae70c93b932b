// Package webhook is the edge where deliveries of forges arrive: it caps, verifies, names, stores and answers. It
// answers 2xx only for what is durably stored or needs no storing, and never waits for a pull request's lease: what a
// delivery means is decided later, in the turn of its subject.
package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Pattern is where a Handler is mounted in a http.ServeMux. It names no method: the Handler answers others itself.
const Pattern = "/webhooks/{instance}"

const (
	// MaxBody is the largest body taken, in bytes. GitHub sends and GitLab sends no more than 25 MB.
	MaxBody = 25 << 20
	// smallBody is what most deliveries stay beneath by far. Larger ones need one of largeBodies places, so that
	// senders who know no secret cannot make us hold more than largeBodies × MaxBody.
	smallBody   = 1 << 20
	largeBodies = 8
	// promised is how much is allocated on the word of a Content-Length; an ordinary delivery fits.
	promised = 64 << 10
	// storeTimeout leaves time to answer before the forge gives up waiting (GitHub and GitLab: 10 s).
	storeTimeout = 5 * time.Second
	retryAfter   = 10 * time.Second // least Retry-After of a 503
	// longestGUID bounds what a header may put into keys. Forges send UUIDs of 36 characters.
	longestGUID = 64
)

// Forge verifies and routes the deliveries of one configured forge.
type Forge interface {
	// Verify says whether the body was signed with a secret of ours; its errors are forge.ErrSignature….
	Verify(http.Header, []byte) error
	// Route says where a verified delivery goes; its error is a *forge.BadDelivery.
	Route(http.Header, []byte) (forge.Routed, error)
}

// Handler answers deliveries. It is safe for concurrent use.
type Handler struct {
	forges  map[string]Forge
	allowed func(forge.Repo) bool
	tell    func(context.Context, state.Delivery) (state.Accepted, error)
	log     *zap.Logger
	count   *prometheus.CounterVec
	large   chan struct{}
}

var _ http.Handler = (*Handler)(nil)

// New makes the handler of the forges, by name of their instance. Deliveries of repositories that are not allowed are
// answered and forgotten. tell stores a delivery durably before it returns without an error; Body and Raw become its own.
// The error is that of registering metrics.
func New(
	forges map[string]Forge,
	allowed func(forge.Repo) bool,
	tell func(context.Context, state.Delivery) (state.Accepted, error),
	log *zap.Logger,
	metrics prometheus.Registerer,
) (*Handler, error) {
	h := &Handler{
		forges: forges, allowed: allowed, tell: tell, log: log,
		count: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signalbox_webhook_deliveries_total",
			Help: "Requests to the webhook endpoint, by forge and by what became of them.",
		}, []string{"instance", "outcome"}),
		large: make(chan struct{}, largeBodies),
	}
	if err := metrics.Register(h.count); err != nil {
		return nil, fmt.Errorf("register the metrics of webhooks: %w", err)
	}
	for name := range forges {
		for _, o := range outcomes() {
			h.count.WithLabelValues(name, string(o)) // so that a rate over the first event is not blind
		}
	}
	return h, nil
}

// outcome is what became of a request: label of the metric, and reason in the log.
type outcome string

const (
	stored      outcome = "stored"
	duplicate   outcome = "duplicate"
	flagged     outcome = "flagged" // mailbox deep: the subject will be compared with the forge instead
	ping        outcome = "ping"
	ignored     outcome = "ignored"  // a kind nobody handles
	unlisted    outcome = "unlisted" // a repository that is not on the list
	unsigned    outcome = "unsigned" // 401
	malformed   outcome = "malformed"
	tooLarge    outcome = "too_large"
	unsupported outcome = "unsupported" // method, media type or instance
	broken      outcome = "broken"      // the sender did not finish
	busy        outcome = "busy"        // too many large bodies at once
	unstored    outcome = "unstored"    // 503
	failed      outcome = "failed"      // our bug
)

func outcomes() []outcome {
	return []outcome{
		stored, duplicate, flagged, ping, ignored, unlisted, unsigned, malformed, tooLarge, unsupported, broken, busy, unstored, failed,
	}
}

// answer is everything a request ends in. Body and log line are made of it in one place each.
type answer struct {
	status  int
	outcome outcome
	reply   reply
	code    string // of an error
	message string // of an error; shown to the sender
	retry   time.Duration
	cause   error // of an error, for the log only

	delivery string // ID once it is known and checked
	subject  string
	routed   forge.Routed
	bytes    int
}

// reply is the body of a 2xx.
type reply struct {
	Delivery  string `json:"delivery"`
	Duplicate *bool  `json:"duplicate,omitempty"`
	Ping      bool   `json:"ping,omitempty"`
	Ignored   string `json:"ignored,omitempty"` // why
}

func refuse(status int, o outcome, code, message string, cause error) answer {
	return answer{status: status, outcome: o, code: code, message: message, cause: cause}
}

// ServeHTTP answers one delivery, as docs/rules.md, Answers, says.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	instance := r.PathValue("instance")
	a := h.answer(w, r, instance)
	if guid := r.Header.Get("X-GitHub-Delivery"); a.delivery == "" && plain(guid) {
		a.delivery = instance + ":hook:" + guid // a refused delivery is looked for in the forge's log by this
	}
	request := requestID()
	h.record(a, instance, request, time.Since(start))
	write(w, a, request)
}

// answer does the work. A panic in it is our bug and costs this request only.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, instance string) (a answer) {
	defer func() {
		if p := recover(); p != nil {
			a = refuse(http.StatusInternalServerError, failed, "internal", "an error of ours; it is logged under the request id", fmt.Errorf("panic: %v", p))
		}
	}()
	f, known := h.forges[instance]
	if !known {
		return refuse(http.StatusNotFound, unsupported, "unknown_instance", "no forge of this name is configured", nil)
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return refuse(http.StatusMethodNotAllowed, unsupported, "method_not_allowed", "webhooks are sent with POST", nil)
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		text := "expected Content-Type application/json"
		if media == "application/x-www-form-urlencoded" {
			text += ": the hook is set to send forms; change its content type in the hook's settings at the forge"
		}
		return refuse(http.StatusUnsupportedMediaType, unsupported, "unsupported_media_type", text, nil)
	}
	body, release, bad := h.read(w, r)
	defer release()
	if bad != nil {
		return *bad
	}
	a = h.deliver(r.Context(), f, instance, r.Header, body)
	a.bytes = len(body)
	return a
}

// read takes the body in, or answers why not. It allocates as bytes arrive, never as many as a header promises. release
// is called when the body is no longer needed.
func (h *Handler) read(w http.ResponseWriter, r *http.Request) (_ []byte, release func(), bad *answer) {
	release = func() {}
	no := func(status int, o outcome, code, message string, cause error) ([]byte, func(), *answer) {
		a := refuse(status, o, code, message, cause)
		return nil, release, &a
	}
	tooLong := fmt.Sprintf("expected at most %d bytes", MaxBody)
	if r.ContentLength > MaxBody {
		return no(http.StatusRequestEntityTooLarge, tooLarge, "too_large", tooLong, nil)
	}
	var buf bytes.Buffer
	if n := r.ContentLength; n > 0 && n <= promised {
		buf.Grow(int(n) + bytes.MinRead)
	}
	body := http.MaxBytesReader(w, r.Body, MaxBody)
	_, err := buf.ReadFrom(io.LimitReader(body, smallBody))
	if err == nil && buf.Len() == smallBody {
		select {
		case h.large <- struct{}{}:
			release = func() { <-h.large }
		default:
			return no(http.StatusServiceUnavailable, busy, "busy", "too many large deliveries at once; send it again", nil)
		}
		_, err = buf.ReadFrom(body)
	}
	var over *http.MaxBytesError
	switch {
	case err == nil:
		return buf.Bytes(), release, nil
	case errors.As(err, &over):
		return no(http.StatusRequestEntityTooLarge, tooLarge, "too_large", tooLong, nil)
	case errors.Is(err, os.ErrDeadlineExceeded):
		return no(http.StatusRequestTimeout, broken, "timeout", "the body did not arrive in time", nil)
	default:
		return no(http.StatusBadRequest, broken, "incomplete", "the body ended early", err)
	}
}

// deliver verifies, routes and stores. Nothing of the body is parsed before its signature is known to be good.
func (h *Handler) deliver(ctx context.Context, f Forge, instance string, header http.Header, body []byte) answer {
	if err := f.Verify(header, body); err != nil {
		return refuse(http.StatusUnauthorized, unsigned, "signature", signatureText(err), nil)
	}
	routed, err := f.Route(header, body)
	if err != nil {
		text := "not a delivery of this forge"
		if bad := (*forge.BadDelivery)(nil); errors.As(err, &bad) {
			text = bad.Error()
		}
		return refuse(http.StatusBadRequest, malformed, "malformed", text, nil)
	}
	if !plain(routed.GUID) {
		return refuse(http.StatusBadRequest, malformed, "malformed", fmt.Sprintf("delivery id: expected 1 to %d letters, digits, - and _", longestGUID), nil)
	}
	a := answer{status: http.StatusOK, delivery: instance + ":hook:" + routed.GUID, routed: routed}
	a.reply.Delivery = a.delivery
	switch {
	case routed.Ping:
		a.outcome, a.reply.Ping = ping, true
		return a
	case routed.Ignored != "":
		a.outcome, a.reply.Ignored = ignored, routed.Ignored
		return a
	case !h.allowed(routed.Repo):
		a.outcome, a.reply.Ignored = unlisted, "the repository is not on the list of this server"
		return a
	}
	return h.store(ctx, a, state.Delivery{
		Subject: state.Subject{Instance: instance, Project: routed.Project, Kind: routed.Kind, Key: routed.Key},
		ID:      a.delivery,
		Kind:    routed.MailKind, Format: routed.Format, Body: routed.Body,
		Raw:  body,
		Hint: routed.Hint,
	})
}

// store tells the subject. A sender who has hung up meanwhile has still sent a true delivery, so that only time ends
// the attempt; and a forge that saw no answer and sends it again meets the idempotency of its ID.
func (h *Handler) store(ctx context.Context, a answer, d state.Delivery) answer {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	a.subject = d.Subject.String()
	accepted, err := h.tell(ctx, d)
	switch {
	case errors.Is(err, state.ErrFull):
		a.code, a.message, a.retry = "store_full", "not stored: the store is full; send it again later", time.Minute
	case err != nil:
		a.code, a.message, a.retry = "store_unavailable", "not stored: the store did not answer; send it again", retryAfter
	}
	if err != nil {
		a.status, a.outcome, a.cause = http.StatusServiceUnavailable, unstored, err
		return a
	}
	a.status, a.outcome, a.reply.Duplicate = http.StatusAccepted, stored, &accepted.Duplicate
	switch {
	case accepted.Duplicate:
		a.outcome = duplicate
	case accepted.Flagged:
		a.outcome = flagged
	}
	return a
}

// signatureText is the sentence for the sender: one of three, whatever a forge wraps around them.
func signatureText(err error) string {
	for _, known := range []error{forge.ErrSignatureMissing, forge.ErrSignatureMalformed} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return forge.ErrSignatureWrong.Error()
}

// plain says whether a delivery id may stand in keys and logs. It comes from a header, which no signature covers.
func plain(guid string) bool {
	return guid != "" && len(guid) <= longestGUID && !strings.ContainsFunc(guid, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

func requestID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand never fails: it ends the process instead
	return hex.EncodeToString(b[:])
}

func write(w http.ResponseWriter, a answer, request string) {
	head := w.Header()
	head.Set("Content-Type", "application/json")
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Request-Id", request)
	if a.status == http.StatusServiceUnavailable {
		head.Set("Retry-After", strconv.Itoa(int(max(a.retry, retryAfter)/time.Second)))
	}
	var body any = a.reply
	if a.code != "" {
		type fault struct {
			Code      string `json:"code"`
			Message   string `json:"message"`
			RequestID string `json:"request_id"`
		}
		body = struct {
			Error fault `json:"error"`
		}{fault{a.code, a.message, request}}
	}
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(body) // the sender has gone: there is nobody left to tell
}
