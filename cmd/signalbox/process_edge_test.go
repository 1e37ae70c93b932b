package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// raw opens a connection to the process and says these words.
func (s *server) raw(words string) net.Conn {
	s.w.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	s.w.must(err)
	s.w.must(c.SetDeadline(time.Now().Add(patience)))
	s.w.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, words)
	s.w.must(err)
	return c
}

// answerOn is what the process answers on a raw connection, 0 if it just hangs up.
func answerOn(w *world, c net.Conn) int {
	w.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return 0
	}
	w.must(err)
	_ = res.Body.Close()
	return res.StatusCode
}

// goroutines is how many the process says it has.
func (s *server) goroutines() (n int) {
	s.w.Helper()
	res, err := web.Get(s.url + "/metrics")
	s.w.must(err)
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "go_goroutines %d", &n); err == nil {
			return n
		}
	}
	s.w.Fatal("no go_goroutines among the metrics")
	return 0
}

func TestBadInputGetsItsStatusAndTheProcessServesOn(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	s := w.serve(1)[0]
	w.deliver()
	before := s.goroutines()

	// Senders who say little and never end.
	var slow []net.Conn
	for range 50 {
		slow = append(slow, s.raw("POST /webhooks/github HTTP/1.1\r\nHost: signalbox\r\nX-Slow: "))
	}
	var stalled net.Conn
	if soak() {
		stalled = s.raw("POST /webhooks/github HTTP/1.1\r\nHost: signalbox\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
	}

	good := map[string]string{"Content-Type": "application/json", "X-GitHub-Delivery": "00000000-0000-4000-a000-000000000001", "X-GitHub-Event": "pull_request"}
	with := func(k, v string) map[string]string {
		h := map[string]string{}
		for k, v := range good {
			h[k] = v
		}
		h[k] = v
		return h
	}
	opened := string(w.delivery(w.opens(w.mallory), "opened").Body)
	for _, c := range []struct {
		what   string
		header map[string]string
		body   string
		secret string
		status int
	}{
		{"garbage", good, "\x00\xff garbage", hookSecret, 400},
		{"empty", good, "", hookSecret, 400},
		{"truncated", good, opened[:len(opened)/2], hookSecret, 400},
		{"wrong shape", good, `{"action":["opened"],"pull_request":7}`, hookSecret, 400},
		{"another shape", good, `[1,2,3]`, hookSecret, 400},
		{"absurd nesting", good, strings.Repeat("[", 1<<20), hookSecret, 400},
		{"no event", with("X-GitHub-Event", ""), opened, hookSecret, 400},
		{"no id", with("X-GitHub-Delivery", ""), opened, hookSecret, 400},
		{"strange id", with("X-GitHub-Delivery", "a:b*c"), opened, hookSecret, 400},
		{"forged", good, opened, "another secret", 401},
		{"form", with("Content-Type", "application/x-www-form-urlencoded"), "payload=" + opened, hookSecret, 415},
		{"unhandled kind", with("X-GitHub-Event", "star"), `{"action":"created"}`, hookSecret, 200},
	} {
		header := map[string]string{"X-Hub-Signature-256": sandbox.Sign(c.secret, []byte(c.body))}
		for k, v := range c.header {
			header[k] = v
		}
		if a := s.request(header, []byte(c.body)); a.status != c.status {
			t.Errorf("%s is answered %+v, want %d", c.what, a, c.status)
		}
	}
	if a := s.request(good, []byte(opened)); a.status != http.StatusUnauthorized {
		t.Errorf("an unsigned delivery is answered %+v, want 401", a)
	}
	big := s.raw(fmt.Sprintf("POST /webhooks/github HTTP/1.1\r\nHost: signalbox\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{", 26<<20))
	if got := answerOn(w, big); got != http.StatusRequestEntityTooLarge {
		t.Errorf("26 MiB are answered %d, want 413", got)
	}
	if got := answerOn(w, s.raw("\x16\x03\x01 no HTTP at all\r\n\r\n")); got != http.StatusBadRequest {
		t.Errorf("what is no HTTP is answered %d, want 400", got)
	}
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		if got := answerOn(w, s.raw(method+" /webhooks/github HTTP/1.1\r\nHost: signalbox\r\n\r\n")); got != http.StatusMethodNotAllowed {
			t.Errorf("%s is answered %d, want 405", method, got)
		}
	}

	if _, err := w.look().Load(t.Context(), w.subject(&sandbox.PR{Number: 1})); err != nil {
		t.Fatal(err)
	}
	if n := len(w.journal(w.subject(&sandbox.PR{Number: 1}))); n > 0 {
		t.Errorf("something of all that was decided: %d lines", n)
	}
	pr := w.opens(w.mallory) // the slow ones still hang there
	w.settle(pr)
	w.shut(pr)
	for _, c := range slow {
		b, err := io.ReadAll(c)
		if errors.Is(err, os.ErrDeadlineExceeded) || strings.HasPrefix(string(b), "HTTP/1.1 2") {
			t.Errorf("a slow sender was answered %q, %v; want the connection to be closed", b, err)
		}
	}
	if stalled != nil {
		if got := answerOn(w, stalled); got != http.StatusRequestTimeout {
			t.Errorf("a body that never comes is answered %d, want 408", got)
		}
	}
	w.until("no goroutine is left", func() bool { return s.goroutines() <= before+3 })
}
