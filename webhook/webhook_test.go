package webhook

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	secret    = "the-present-secret"
	oldSecret = "the-secret-of-last-year"
	guid      = "72d3162e-cc78-11e3-81ab-4c9367dc0958"
	pull      = `{"action":"opened","number":7,"repository":{"id":1296269,"full_name":"acme/widgets"}}`
)

// octopus signs and routes like GitHub, of which this package knows nothing.
type octopus struct{ secrets []string }

func sign(secret string, body []byte) string {
	m := hmac.New(sha256.New, []byte(secret))
	_, _ = m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}

func (o octopus) Verify(h http.Header, body []byte) error {
	got := h.Get("X-Hub-Signature-256")
	if got == "" {
		return fmt.Errorf("verify: %w", forge.ErrSignatureMissing)
	}
	for _, s := range o.secrets {
		if hmac.Equal([]byte(got), []byte(sign(s, body))) {
			return nil
		}
	}
	return fmt.Errorf("verify: %w", forge.ErrSignatureWrong)
}

func (o octopus) Route(h http.Header, body []byte) (forge.Routed, error) {
	r := forge.Routed{GUID: h.Get("X-GitHub-Delivery"), Event: h.Get("X-GitHub-Event")}
	if r.Event == "" {
		return r, &forge.BadDelivery{Field: "X-GitHub-Event", Want: "the name of an event"}
	}
	var p struct {
		Action     string `json:"action"`
		Number     int    `json:"number"`
		Repository struct {
			ID       int64  `json:"id"`
			FullName string `json:"full_name"`
		} `json:"repository"`
	}
	if err := json.Unmarshal(body, &p); err != nil {
		return r, &forge.BadDelivery{Field: "body", Want: "a JSON object"}
	}
	r.Action = p.Action
	r.Repo = forge.Repo{Instance: "github", ID: p.Repository.ID, Name: p.Repository.FullName}
	switch {
	case r.Event == "ping":
		r.Ping = true
	case r.Event == "star":
		r.Ignored = "star: nobody handles it"
	case r.Event == "panic":
		panic("a bug of the forge's")
	case p.Repository.ID == 0:
		return r, &forge.BadDelivery{Field: "repository.id", Want: "a number"}
	default:
		r.Project, r.Kind, r.Key = fmt.Sprint(p.Repository.ID), "pr", fmt.Sprint(p.Number)
		r.MailKind, r.Format, r.Body, r.Hint = "pull_request", 1, []byte(`{"n":7}`), true
	}
	return r, nil
}

// box is a sink that takes an id once, like a store.
type box struct {
	mu   sync.Mutex
	mail []state.Delivery
	err  error
	ctx  context.Context
}

func (b *box) tell(ctx context.Context, d state.Delivery) (state.Accepted, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ctx = ctx
	if b.err != nil {
		return state.Accepted{}, b.err
	}
	for _, m := range b.mail {
		if m.ID == d.ID {
			return state.Accepted{Duplicate: true}, nil
		}
	}
	b.mail = append(b.mail, d)
	return state.Accepted{Seq: int64(len(b.mail))}, nil
}

func (b *box) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *box) stored() []state.Delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mail
}

// edge is the handler behind the real server.
type edge struct {
	*httptest.Server
	handler *Handler
	box     *box
	logs    *observer.ObservedLogs
}

func newHandler(t testing.TB, tell func(context.Context, state.Delivery) (state.Accepted, error), log *zap.Logger) *Handler {
	t.Helper()
	h, err := New(
		map[string]Forge{"github": octopus{[]string{"the-next-secret", secret}}},
		func(r forge.Repo) bool { return strings.HasPrefix(r.Name, "acme/") },
		tell, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func open(t testing.TB, change ...func(*http.Server)) *edge {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	log := zap.New(core)
	e := &edge{box: &box{}, logs: logs}
	e.handler = newHandler(t, e.box.tell, log)
	mux := http.NewServeMux()
	mux.Handle(Pattern, e.handler)
	server, err := NewServer(mux, log)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range change {
		c(server)
	}
	e.Server = httptest.NewUnstartedServer(mux)
	e.Config = server
	e.Start()
	t.Cleanup(e.Close)
	return e
}

// signed is an ordinary delivery.
func (e *edge) signed(t testing.TB, body string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL+"/webhooks/github", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-GitHub-Event", "pull_request")
	r.Header.Set("X-GitHub-Delivery", guid)
	r.Header.Set("X-Hub-Signature-256", sign(secret, []byte(body)))
	return r
}

type said struct {
	Delivery  string `json:"delivery"`
	Duplicate *bool  `json:"duplicate"`
	Ping      bool   `json:"ping"`
	Ignored   string `json:"ignored"`
	Error     struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		RequestID string `json:"request_id"`
	} `json:"error"`
}

func (e *edge) send(t testing.TB, r *http.Request) (*http.Response, said) {
	t.Helper()
	res, err := e.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	return res, read(t, res)
}

func read(t testing.TB, res *http.Response) said {
	t.Helper()
	defer func() { _ = res.Body.Close() }()
	var s said
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		t.Fatalf("answer %d is not JSON: %v", res.StatusCode, err)
	}
	if got := res.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("Content-Type %q", got)
	}
	if res.StatusCode >= 400 && (s.Error.Code == "" || s.Error.Message == "" || s.Error.RequestID != res.Header.Get("X-Request-Id")) {
		t.Errorf("answer %d has the error %+v", res.StatusCode, s.Error)
	}
	return s
}

func TestDeliveryIsStoredAsItArrived(t *testing.T) {
	e := open(t)
	res, s := e.send(t, e.signed(t, pull))
	if res.StatusCode != http.StatusAccepted || s.Delivery != "github:hook:"+guid || s.Duplicate == nil || *s.Duplicate {
		t.Fatalf("answered %d %+v", res.StatusCode, s)
	}
	want := []state.Delivery{{
		Subject: state.Subject{Instance: "github", Project: "1296269", Kind: "pr", Key: "7"},
		ID:      "github:hook:" + guid, Kind: "pull_request", Format: 1, Body: []byte(`{"n":7}`), Raw: []byte(pull), Hint: true,
	}}
	if d := cmp.Diff(want, e.box.stored()); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

func TestAnswers(t *testing.T) {
	deep := `{"action":` + strings.Repeat("[", 200_000) + strings.Repeat("]", 200_000) + `}`
	for _, c := range []struct {
		name    string
		body    string
		change  func(*http.Request)
		status  int
		code    string
		says    string // part of the message, or of "ignored"
		stored  bool
		outcome outcome
	}{
		{name: "good", status: 202, stored: true, outcome: stored},
		{name: "signed with the other of two secrets", change: header("X-Hub-Signature-256", sign("the-next-secret", []byte(pull))), status: 202, stored: true, outcome: stored},
		{name: "content type with charset", change: header("Content-Type", "application/json; charset=utf-8"), status: 202, stored: true, outcome: stored},
		{name: "unknown action", body: `{"action":"pondered","number":7,"repository":{"id":1,"full_name":"acme/widgets"}}`, status: 202, stored: true, outcome: stored},

		{name: "ping", change: header("X-GitHub-Event", "ping"), status: 200, outcome: ping},
		{name: "a kind nobody handles", change: header("X-GitHub-Event", "star"), status: 200, says: "nobody handles", outcome: ignored},
		{name: "a repository not on the list", body: strings.Replace(pull, "acme/", "stranger/", 1), status: 200, says: "not on the list", outcome: unlisted},

		{name: "no signature", change: header("X-Hub-Signature-256", ""), status: 401, code: "signature", says: "signature missing", outcome: unsigned},
		{name: "forged signature", change: header("X-Hub-Signature-256", sign("guessed", []byte(pull))), status: 401, code: "signature", says: "signature wrong: other secret, form-encoded hook, or a proxy that rewrites the body", outcome: unsigned},
		{name: "signed with an old secret", change: header("X-Hub-Signature-256", sign(oldSecret, []byte(pull))), status: 401, code: "signature", says: "other secret", outcome: unsigned},
		{name: "signature of another body", change: header("X-Hub-Signature-256", sign(secret, []byte(pull+" "))), status: 401, code: "signature", outcome: unsigned},
		{name: "garbage, unsigned: not parsed", body: "<xml>", change: header("X-Hub-Signature-256", "sha256=00"), status: 401, code: "signature", outcome: unsigned},

		{name: "empty body", body: "-", status: 400, code: "malformed", says: "body: expected", outcome: malformed},
		{name: "truncated JSON", body: pull[:40], status: 400, code: "malformed", says: "body: expected", outcome: malformed},
		{name: "valid JSON of the wrong shape", body: `[{"action":1}]`, status: 400, code: "malformed", says: "body: expected", outcome: malformed},
		{name: "JSON null", body: `null`, status: 400, code: "malformed", says: "repository.id: expected", outcome: malformed},
		{name: "absurd nesting", body: deep, status: 400, code: "malformed", outcome: malformed},
		{name: "no event", change: header("X-GitHub-Event", ""), status: 400, code: "malformed", says: "X-GitHub-Event: expected", outcome: malformed},
		{name: "no delivery id", change: header("X-GitHub-Delivery", ""), status: 400, code: "malformed", says: "delivery id: expected", outcome: malformed},
		{name: "endless delivery id", change: header("X-GitHub-Delivery", strings.Repeat("a", 65)), status: 400, code: "malformed", says: "delivery id: expected", outcome: malformed},
		{name: "delivery id that would be a key", change: header("X-GitHub-Delivery", "a:b{c}"), status: 400, code: "malformed", says: "delivery id: expected", outcome: malformed},

		{name: "form", change: header("Content-Type", "application/x-www-form-urlencoded"), status: 415, code: "unsupported_media_type", says: "change its content type", outcome: unsupported},
		{name: "no content type", change: header("Content-Type", ""), status: 415, code: "unsupported_media_type", outcome: unsupported},
		{name: "GET", change: func(r *http.Request) { r.Method = http.MethodGet }, status: 405, code: "method_not_allowed", outcome: unsupported},
		{name: "another forge", change: func(r *http.Request) { r.URL.Path = "/webhooks/gitlab" }, status: 404, code: "unknown_instance", outcome: unsupported},
		{name: "our bug", change: header("X-GitHub-Event", "panic"), status: 500, code: "internal", outcome: failed},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := open(t)
			body := c.body
			switch body {
			case "":
				body = pull
			case "-":
				body = ""
			}
			r := e.signed(t, body)
			if c.change != nil {
				c.change(r)
			}
			res, s := e.send(t, r)
			if res.StatusCode != c.status || s.Error.Code != c.code {
				t.Errorf("answered %d %q, want %d %q", res.StatusCode, s.Error.Code, c.status, c.code)
			}
			if text := s.Error.Message + s.Ignored; !strings.Contains(text, c.says) || strings.Contains(text, "verify:") {
				t.Errorf("says %q, want %q in it", text, c.says)
			}
			if got := len(e.box.stored()) == 1; got != c.stored {
				t.Errorf("stored: %v", e.box.stored())
			}
			if c.status == http.StatusMethodNotAllowed && res.Header.Get("Allow") != http.MethodPost {
				t.Errorf("Allow: %q", res.Header.Get("Allow"))
			}
			if s.Ping != (c.outcome == ping) {
				t.Errorf("ping: %v", s.Ping)
			}
			instance := strings.TrimPrefix(strings.TrimSuffix(r.URL.Path, "gitlab"), "/webhooks/")
			if n := testutil.ToFloat64(e.handler.count.WithLabelValues(instance, string(c.outcome))); n != 1 {
				t.Errorf("counted %v times as %s", n, c.outcome)
			}
			if n := e.logs.FilterMessage("delivery " + string(c.outcome)).Len(); n != 1 || e.logs.Len() != 1 {
				t.Errorf("logged %v", e.logs.All())
			}
		})
	}
}

func header(key, value string) func(*http.Request) {
	return func(r *http.Request) {
		r.Header.Set(key, value)
		if value == "" {
			r.Header.Del(key)
		}
	}
}

// The line has the keys that operators search for, and nothing that the sender must not find in our logs.
func TestLogNeverShowsBodiesOrSecrets(t *testing.T) {
	e := open(t)
	const canary = "canary-in-the-body"
	body := strings.Replace(pull, `"number"`, `"title":"`+canary+`","number"`, 1)
	e.send(t, e.signed(t, body))
	forged := e.signed(t, body)
	forged.Header.Set("X-Hub-Signature-256", sign(oldSecret, []byte(body)))
	e.send(t, forged)
	e.box.fail(errors.New("the store has gone"))
	e.send(t, e.signed(t, body))
	lines := e.logs.All()
	if len(lines) != 3 {
		t.Fatalf("%d lines", len(lines))
	}
	for _, l := range lines {
		fields, err := json.Marshal(l.ContextMap())
		if err != nil {
			t.Fatal(err)
		}
		for _, hidden := range []string{canary, secret, oldSecret, "sha256="} {
			if strings.Contains(string(fields)+l.Message, hidden) {
				t.Errorf("the log shows %s: %s", hidden, fields)
			}
		}
		if l.ContextMap()["delivery"] != "github:hook:"+guid || l.ContextMap()["request"] == "" || l.ContextMap()["reason"] == "" {
			t.Errorf("the log lacks its keys: %s", fields)
		}
	}
	if got := lines[0].ContextMap()["subject"]; got != "github/1296269/pr/7" {
		t.Errorf("subject %v", got)
	}
	if lines[2].Level != zapcore.ErrorLevel || lines[2].ContextMap()["cause"] != "the store has gone" {
		t.Errorf("a store that fails is logged as %v %v", lines[2].Level, lines[2].ContextMap())
	}
}

func TestStoreDown(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		code  string
		retry string
	}{
		"full":        {fmt.Errorf("accept: %w", state.ErrFull), "store_full", "60"},
		"unreachable": {errors.New("dial tcp: connection refused"), "store_unavailable", "10"},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t)
			e.box.fail(c.err)
			res, s := e.send(t, e.signed(t, pull))
			if res.StatusCode != http.StatusServiceUnavailable || s.Error.Code != c.code || res.Header.Get("Retry-After") != c.retry {
				t.Errorf("answered %d %+v, Retry-After %q", res.StatusCode, s.Error, res.Header.Get("Retry-After"))
			}
			if strings.Contains(s.Error.Message, "dial") {
				t.Errorf("tells a stranger of our network: %q", s.Error.Message)
			}
			if n := len(e.box.stored()); n != 0 {
				t.Fatalf("%d half-stored", n)
			}
			// The forge sends it again: it is new work, not a duplicate.
			e.box.fail(nil)
			if res, s := e.send(t, e.signed(t, pull)); res.StatusCode != http.StatusAccepted || *s.Duplicate {
				t.Errorf("then answered %d, duplicate %v", res.StatusCode, *s.Duplicate)
			}
		})
	}
}

func TestStoreThatHangsIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHandler(t, func(ctx context.Context, _ state.Delivery) (state.Accepted, error) {
			<-ctx.Done()
			return state.Accepted{}, ctx.Err()
		}, zap.NewNop())
		w := httptest.NewRecorder()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/github", strings.NewReader(pull))
		r.SetPathValue("instance", "github")
		r.Header = (&edge{Server: &httptest.Server{}}).signed(t, pull).Header
		h.ServeHTTP(w, r)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("answered %d", w.Code)
		}
	})
}

// What has arrived whole is stored, even if its sender no longer listens.
func TestSenderHangsUp(t *testing.T) {
	b := &box{}
	h := newHandler(t, b.tell, zap.NewNop())
	ctx, hangUp := context.WithCancel(t.Context())
	hangUp()
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/webhooks/github", strings.NewReader(pull))
	r.SetPathValue("instance", "github")
	r.Header = (&edge{Server: &httptest.Server{}}).signed(t, pull).Header
	inTell := make(chan error, 1)
	h.tell = func(ctx context.Context, d state.Delivery) (state.Accepted, error) {
		inTell <- ctx.Err()
		return b.tell(ctx, d)
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
	if err := <-inTell; err != nil || len(b.stored()) != 1 {
		t.Errorf("context of the store: %v; stored %v", err, b.stored())
	}
}

func TestDuplicatesAtOnce(t *testing.T) {
	e := open(t)
	const n = 50
	fresh := make(chan bool, n)
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			res, s := e.send(t, e.signed(t, pull))
			if res.StatusCode != http.StatusAccepted || s.Duplicate == nil {
				t.Errorf("answered %d", res.StatusCode)
				return
			}
			fresh <- !*s.Duplicate
		})
	}
	wg.Wait()
	close(fresh)
	first := 0
	for f := range fresh {
		if f {
			first++
		}
	}
	if first != 1 || len(e.box.stored()) != 1 {
		t.Errorf("%d answered as first, %d stored", first, len(e.box.stored()))
	}
	count := e.handler.count
	if s, d := testutil.ToFloat64(count.WithLabelValues("github", "stored")), testutil.ToFloat64(count.WithLabelValues("github", "duplicate")); s != 1 || d != n-1 {
		t.Errorf("counted %v stored and %v duplicates", s, d)
	}
}

func TestDeepMailboxIsAccepted(t *testing.T) {
	e := open(t)
	e.handler.tell = func(context.Context, state.Delivery) (state.Accepted, error) {
		return state.Accepted{Flagged: true}, nil
	}
	if res, s := e.send(t, e.signed(t, pull)); res.StatusCode != http.StatusAccepted || *s.Duplicate {
		t.Errorf("answered %d %+v", res.StatusCode, s)
	}
	if n := testutil.ToFloat64(e.handler.count.WithLabelValues("github", "flagged")); n != 1 {
		t.Errorf("counted %v", n)
	}
}

// padded is a good delivery of exactly n bytes.
func padded(n int) string { return pull + strings.Repeat(" ", n-len(pull)) }

func TestLargestBody(t *testing.T) {
	e := open(t)
	body := padded(MaxBody)
	if res, s := e.send(t, e.signed(t, body)); res.StatusCode != http.StatusAccepted {
		t.Errorf("%d bytes answered %d %+v", MaxBody, res.StatusCode, s)
	}
	if got := e.box.stored(); len(got) != 1 || len(got[0].Raw) != MaxBody {
		t.Error("not stored whole")
	}
	// One byte more, length unknown beforehand.
	r := e.signed(t, body+" ")
	r.ContentLength = -1
	r.Header.Set("X-GitHub-Delivery", "another")
	if res, s := e.send(t, r); res.StatusCode != http.StatusRequestEntityTooLarge || s.Error.Code != "too_large" {
		t.Errorf("%d bytes answered %d %+v", MaxBody+1, res.StatusCode, s)
	}
	if len(e.box.stored()) != 1 {
		t.Error("stored what is too large")
	}
}

// A length that is too large is refused before anything of the body has come.
func TestPromiseOf26MiB(t *testing.T) {
	e := open(t)
	c := e.dial(t)
	_, _ = fmt.Fprintf(c, "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", 26<<20)
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := read(t, res); res.StatusCode != http.StatusRequestEntityTooLarge || !res.Close {
		t.Errorf("answered %d %+v, close %v", res.StatusCode, s, res.Close)
	}
}

// Strangers who send large bodies find a door that closes; ordinary deliveries do not notice.
func TestLargeBodiesAtOnce(t *testing.T) {
	e := open(t)
	for range largeBodies {
		e.handler.large <- struct{}{}
	}
	r := e.signed(t, padded(smallBody+1))
	if res, s := e.send(t, r); res.StatusCode != http.StatusServiceUnavailable || s.Error.Code != "busy" || res.Header.Get("Retry-After") == "" {
		t.Errorf("answered %d %+v", res.StatusCode, s)
	}
	if res, _ := e.send(t, e.signed(t, padded(smallBody-1))); res.StatusCode != http.StatusAccepted {
		t.Errorf("a small one meanwhile answered %d", res.StatusCode)
	}
	<-e.handler.large
	for _, id := range []string{"a", "b"} { // the place is given back
		r := e.signed(t, padded(smallBody+1))
		r.Header.Set("X-GitHub-Delivery", id)
		if res, _ := e.send(t, r); res.StatusCode != http.StatusAccepted {
			t.Errorf("then answered %d", res.StatusCode)
		}
	}
}

func (e *edge) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", e.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil { // a server that waits for ever fails the test
		t.Fatal(err)
	}
	return c
}

// Someone who says little is cut off by the timeouts of the real server (here shorter), and leaves no goroutine behind:
// TestMain looks for those.
func TestSlowLoris(t *testing.T) {
	hasty := func(s *http.Server) { s.ReadHeaderTimeout, s.ReadTimeout = 50*time.Millisecond, 100*time.Millisecond }
	head := "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
	for name, c := range map[string]struct {
		sent   string
		status int // 0 = cut off without a word
	}{
		"silent":           {"", 0},
		"within a header":  {head + "X-GitHub-Ev", 0},
		"within the body":  {head + "Content-Length: 1000\r\n\r\n{", http.StatusRequestTimeout},
		"between chunks":   {head + "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n", http.StatusRequestTimeout},
		"after a delivery": {head + "Content-Length: 2\r\n\r\n{}", http.StatusUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			e := open(t, hasty, func(s *http.Server) { s.IdleTimeout = 50 * time.Millisecond })
			conn := e.dial(t)
			_, _ = io.WriteString(conn, c.sent)
			answer, err := io.ReadAll(conn) // ends when the server hangs up
			if err != nil {
				t.Fatal(err)
			}
			if c.status == 0 {
				if len(answer) != 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 408")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 400")) {
					t.Errorf("answered %q", answer)
				}
				return
			}
			res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
			if err != nil {
				t.Fatalf("%v in %q", err, answer)
			}
			if read(t, res); res.StatusCode != c.status {
				t.Errorf("answered %d, want %d", res.StatusCode, c.status)
			}
			if len(e.box.stored()) != 0 {
				t.Error("stored")
			}
		})
	}
}

func TestBodyThatEndsEarly(t *testing.T) {
	e := open(t)
	c := e.dial(t)
	_, _ = io.WriteString(c, "POST /webhooks/github HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := read(t, res); res.StatusCode != http.StatusBadRequest || s.Error.Code != "incomplete" {
		t.Errorf("answered %d %+v", res.StatusCode, s)
	}
}

func TestEndlessHeaders(t *testing.T) {
	e := open(t)
	r := e.signed(t, pull)
	r.Header.Set("X-Padding", strings.Repeat("a", 2*MaxHeaderBytes))
	res, err := e.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusRequestHeaderFieldsTooLarge || len(e.box.stored()) != 0 {
		t.Errorf("answered %d", res.StatusCode)
	}
}

// A server without one of these can be held for ever by whoever says nothing.
func TestServerHasEveryLimit(t *testing.T) {
	s, err := NewServer(http.NotFoundHandler(), zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if s.ReadHeaderTimeout <= 0 || s.ReadTimeout < s.ReadHeaderTimeout || s.WriteTimeout <= s.ReadTimeout || s.IdleTimeout <= 0 || s.MaxHeaderBytes <= 0 {
		t.Errorf("%+v", s)
	}
}

func TestMetricsAreRegisteredOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	none := func(context.Context, state.Delivery) (state.Accepted, error) { return state.Accepted{}, nil }
	if _, err := New(map[string]Forge{"github": octopus{}}, nil, none, zap.NewNop(), reg); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(reg, "signalbox_webhook_deliveries_total"); err != nil || n != len(outcomes()) {
		t.Errorf("%d series at the start, %v", n, err)
	}
	if _, err := New(nil, nil, none, zap.NewNop(), reg); err == nil {
		t.Error("a second handler shares the metric")
	}
}
