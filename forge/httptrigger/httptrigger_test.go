package httptrigger

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
)

const (
	key     = "sb1-abcdefghijklmnopqrstuvwxyz"
	signing = "0123456789abcdef0123456789abcdef"
)

var secret = "whsec_" + base64.StdEncoding.EncodeToString([]byte(signing))

func run() forge.Run {
	return forge.Run{
		Key: key, SHA: strings.Repeat("a", 40), BaseSHA: strings.Repeat("b", 40), HeadRepoID: 9, Presubmit: "presubmit",
		Ref: forge.Ref{Repo: forge.Repo{Instance: "github", ID: 5, Name: "acme/widgets"}, Number: 7},
	}
}

// ci is a CI that answers as handler does, and a trigger that may speak to it.
func ci(t *testing.T, handler http.HandlerFunc) Trigger {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return trigger(t, server.URL+"/start?x=1", true)
}

func trigger(t *testing.T, url string, private bool) Trigger {
	t.Helper()
	c, err := New(secret, private)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.http.CloseIdleConnections)
	made, err := c.Trigger(url, func(r forge.Run) (string, string) { return "https://signalbox/" + r.Key, "token of " + r.Key })
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// fault is the Fault that every error must be.
func fault(t *testing.T, err error) *forge.Fault {
	t.Helper()
	f, ok := err.(*forge.Fault) //nolint:errorlint // itself, not something around one
	if !ok {
		t.Fatalf("%v (%T) is no Fault", err, err)
	}
	return f
}

// What is sent, byte by byte: the receiver's half is written down here from the specification, not from our code.
func TestOrders(t *testing.T) {
	var got []*http.Request
	var bodies []string
	to := ci(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, bodies = append(got, r), append(bodies, string(b))
		w.WriteHeader(http.StatusAccepted)
	})
	before := time.Now().Unix()
	for range 2 { // a repetition is the same order
		if r, err := to.Start(t.Context(), run()); err != nil || r != (forge.Receipt{ID: key}) {
			t.Fatal(r, err)
		}
	}
	if err := to.Cancel(t.Context(), run(), forge.Receipt{}); err != nil {
		t.Fatal(err)
	}
	rest := `,"key":"` + key + `","instance":"github","repo":"acme/widgets","pr":7,"sha":"` + strings.Repeat("a", 40) +
		`","base_sha":"` + strings.Repeat("b", 40) + `","status_url":`
	first := `{"action":"start"` + rest + `"https://signalbox/` + key + `","status_token":"token of ` + key + `"}`
	if diff := cmp.Diff([]string{first, first, `{"action":"cancel"` + rest + `"","status_token":""}`}, bodies); diff != "" {
		t.Error(diff)
	}
	for i, r := range got {
		id := []string{key, key, key + "-cancel"}[i]
		h := r.Header
		at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
		if err != nil || at < before || at > time.Now().Unix() {
			t.Errorf("timestamp %q", h.Get("Webhook-Timestamp"))
		}
		mac := hmac.New(sha256.New, []byte(signing))
		mac.Write([]byte(h.Get("Webhook-Id") + "." + h.Get("Webhook-Timestamp") + "." + bodies[i]))
		if want := "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)); h.Get("Webhook-Signature") != want {
			t.Errorf("signature %q, want %q", h.Get("Webhook-Signature"), want)
		}
		if r.Method != http.MethodPost || r.URL.String() != "/start?x=1" || h.Get("Idempotency-Key") != id || h.Get("Webhook-Id") != id ||
			h.Get("Content-Type") != "application/json" || h.Get("User-Agent") != "signalbox" {
			t.Errorf("%s %s %v", r.Method, r.URL, h)
		}
	}
}

func TestOrders_unusable(t *testing.T) {
	to := ci(t, func(http.ResponseWriter, *http.Request) { t.Error("something was sent") })
	for name, change := range map[string]func(*forge.Run){
		"no key":      func(r *forge.Run) { r.Key = "" },
		"foreign key": func(r *forge.Run) { r.Key = "x" },
		"short SHA":   func(r *forge.Run) { r.SHA = r.SHA[:7] },
		"branch":      func(r *forge.Run) { r.SHA = "main" },
		"base branch": func(r *forge.Run) { r.BaseSHA = "main" },
	} {
		bad := run()
		change(&bad)
		if _, err := to.Start(t.Context(), bad); fault(t, err).Class != forge.Permanent {
			t.Errorf("%s: %v", name, err)
		}
		if err := to.Cancel(t.Context(), bad, forge.Receipt{}); fault(t, err).Class != forge.Permanent {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		retry  string
		class  forge.Class
		after  time.Duration
		cancel bool // a cancel is a success all the same
	}{
		{301, "", forge.Permanent, 0, false},
		{302, "", forge.Permanent, 0, false},
		{307, "", forge.Permanent, 0, false},
		{304, "", forge.Permanent, 0, false},
		{400, "", forge.Permanent, 0, false},
		{401, "", forge.Auth, 0, false},
		{403, "", forge.Auth, 0, false},
		{404, "", forge.Permanent, 0, true},
		{408, "", forge.Retriable, 0, false},
		{409, "3", forge.Contention, 3 * time.Second, false},
		{410, "", forge.Permanent, 0, true},
		{422, "60", forge.Permanent, 0, false},
		{425, "", forge.Retriable, 0, false},
		{429, "60", forge.Contention, time.Minute, false},
		{429, "9999999999", forge.Contention, time.Hour, false},
		{429, "-1", forge.Contention, 0, false},
		{429, "soon", forge.Contention, 0, false},
		{500, "", forge.Retriable, 0, false},
		{503, "5", forge.Retriable, 5 * time.Second, false},
	} {
		calls := 0
		to := ci(t, func(w http.ResponseWriter, _ *http.Request) {
			calls++
			w.Header().Set("Location", "/elsewhere")
			if c.retry != "" {
				w.Header().Set("Retry-After", c.retry)
			}
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, "the-body "+strings.Repeat("x", 2*maxDrained))
		})
		_, err := to.Start(t.Context(), run())
		f := fault(t, err)
		if f.Class != c.class || f.After != c.after || f.Status != c.status || f.Op == "" || strings.Contains(err.Error(), "the-body") {
			t.Errorf("%d: %+v", c.status, f)
		}
		if err = to.Cancel(t.Context(), run(), forge.Receipt{}); (err == nil) != c.cancel {
			t.Errorf("cancel, %d: %v", c.status, err)
		}
		if calls != 2 {
			t.Errorf("%d: %d calls", c.status, calls)
		}
	}
}

// Nobody can keep a turn busy: a body without end is left, a header without end is refused.
func TestAnswers_endless(t *testing.T) {
	to := ci(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	if _, err := to.Start(t.Context(), run()); err != nil {
		t.Error(err)
	}
	to = ci(t, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 2*maxHeader)) })
	if _, err := to.Start(t.Context(), run()); fault(t, err).Class != forge.Retriable {
		t.Error(err)
	}
}

func TestUnanswered(t *testing.T) {
	server := httptest.NewServer(nil)
	server.Close()
	to := trigger(t, server.URL+"/?token=hidden", true)
	_, err := to.Start(t.Context(), run())
	if f := fault(t, err); f.Class != forge.Retriable || f.Status != 0 || strings.Contains(err.Error(), "hidden") {
		t.Errorf("%+v", f)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = to.Start(ctx, run()); fault(t, err).Class != forge.Retriable || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A neighbour is not spoken to, by whatever name it is called.
func TestPrivate(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a neighbour was spoken to") }))
	defer server.Close()
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"} {
		_, err := trigger(t, "http://"+host+port, false).Start(t.Context(), run())
		if f := fault(t, err); f.Class != forge.Permanent || !strings.Contains(err.Error(), "SIGNALBOX_HTTP_TRIGGER_PRIVATE") {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestMayDial(t *testing.T) {
	for address, want := range map[string][2]bool{ // without and with leave to speak to private addresses
		"8.8.8.8": {true, true}, "2606:4700::1111": {true, true}, "::ffff:8.8.8.8": {true, true}, "64:ff9b::808:808": {true, true},
		"172.32.0.1": {true, true}, "100.128.0.1": {true, true}, "192.0.2.1": {true, true},
		"127.0.0.1": {false, true}, "127.8.9.1": {false, true}, "::1": {false, true}, "::ffff:127.0.0.1": {false, true},
		"10.1.2.3": {false, true}, "172.16.0.1": {false, true}, "192.168.1.1": {false, true}, "fd00::1": {false, true},
		"100.64.0.1": {false, true}, "64:ff9b::a00:1": {false, true}, "::ffff:10.0.0.1": {false, true}, "::ffff:100.64.0.1": {false, true}, "::ffff:0.1.2.3": {false, false},
		"169.254.169.254": {false, false}, "fe80::1": {false, false}, "fe80::1%eth0": {false, false}, "::ffff:169.254.169.254": {false, false},
		"64:ff9b::a9fe:a9fe": {false, false}, "64:ff9b:1::1": {false, false}, "2002:7f00:1::": {false, false}, "2001::1": {false, false},
		"0.0.0.0": {false, false}, "0.1.2.3": {false, false}, "::": {false, false}, "224.0.0.1": {false, false}, "ff02::1": {false, false},
		"255.255.255.255": {false, false}, "240.0.0.1": {false, false}, "192.0.0.8": {false, false}, "198.18.0.1": {false, false}, "100::1": {false, false},
	} {
		ip := netip.MustParseAddr(address)
		if got := [2]bool{mayDial(ip, false), mayDial(ip, true)}; got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
	}
	if mayDial(netip.Addr{}, true) {
		t.Error("no address at all")
	}
}

func TestNew_refuses(t *testing.T) {
	encode := func(n int) string { return "whsec_" + base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for name, c := range map[string]struct {
		secret string
		ok     bool
	}{
		"none": {"", false}, "no prefix": {secret[6:], false}, "not base64": {"whsec_!", false},
		"too short": {encode(23), false}, "shortest": {encode(24), true}, "longest": {encode(64), true}, "too long": {encode(65), false},
	} {
		_, err := New(c.secret, false)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && len(c.secret) > 10 && strings.Contains(err.Error(), c.secret[6:]) {
			t.Errorf("%s: the error shows the secret", name)
		}
	}
	c, err := New(secret, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, url := range []string{"", "ci.example.org/start", "ftp://ci.example.org", "https://", "https://u:p@ci.example.org", "http://[::1", "/start"} {
		if _, err := c.Trigger(url, nil); err == nil {
			t.Errorf("%q accepted", url)
		}
	}
}
