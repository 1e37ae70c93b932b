package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/signalbox-ci/signalbox/alerts"
)

// pager is somebody's receiver of alerts.
type pager struct {
	*httptest.Server
	mu   sync.Mutex
	told []string
}

func newPager(t *testing.T) *pager {
	t.Helper()
	p := &pager{}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(httpSecret, "whsec_"))
	if err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(r.Header.Get("Webhook-Id") + "." + r.Header.Get("Webhook-Timestamp") + "." + string(body)))
		var n alerts.Notice
		if err := json.Unmarshal(body, &n); err != nil || r.Header.Get("Webhook-Signature") != "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)) {
			t.Errorf("%v, %v: %s", err, r.Header, body)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.told = append(p.told, n.Type+" "+n.Data.Name)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *pager) heard(what string) func() bool {
	return func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Contains(p.told, what)
	}
}

// get reads a path of one instance.
func (s *server) get(path, token string) string {
	s.w.Helper()
	req, err := http.NewRequestWithContext(s.w.Context(), http.MethodGet, s.url+path, nil)
	s.w.must(err)
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := (&http.Client{Timeout: patience}).Do(req)
	s.w.must(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	s.w.must(err)
	return string(b)
}

// An alert is told once, by one instance, and shown by all of them and by the commands; it clears when its cause is
// mended. Whoever starts judges at once, so no minute is waited for here.
func TestAlertStandsOnEveryInstanceUntilItsCauseIsGone(t *testing.T) {
	t.Parallel()
	p := newPager(t)
	w := begin(t, redisStore(t).URL(), "SIGNALBOX_TRIGGER=workflow:gone.yml@ci", "SIGNALBOX_ADMIN_TOKEN=boss",
		"SIGNALBOX_ALERT_URL="+p.URL+"/in?token=x", "SIGNALBOX_ALERT_SECRET="+httpSecret, "SIGNALBOX_HTTP_TRIGGER_PRIVATE=1")
	all := w.serve(1)
	boss := []string{"SIGNALBOX_URL=" + all[0].url}
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.labels(w.maya, pr)
	w.deliver()
	listed := func() jobs {
		return decoded[jobs](t, w.command(exitOK, "", nil, "jobs", "list", "--output", "json"))
	}
	w.until("there is a dead letter", func() bool { return len(listed().Jobs) > 0 })
	dead := listed().Jobs[0]

	all = append(all, w.serve(1)...)
	w.until("the pager was told", p.heard("alert.fired dead-letter"))
	shows := func(stands string) {
		t.Helper()
		for _, s := range all {
			text := s.get("/metrics", "")
			if !strings.Contains(text, `signalbox_alert{alert="dead-letter"} `+stands) || !strings.Contains(text, `signalbox_alert{alert="failing"} 0`) ||
				!strings.Contains(text, "signalbox_alerts_judged_timestamp_seconds ") {
				t.Errorf("%s does not show %s:\n%s", s.url, stands, text)
			}
			list := decoded[alerts.Doc](t, s.get("/api/admin/v1/alerts", "boss"))
			if len(list.Standing) != map[string]int{"0": 0, "1": 1}[stands] || list.Judged.IsZero() {
				t.Errorf("%s lists %+v", s.url, list)
			}
		}
	}
	shows("1")
	if text := w.command(exitOK, dead.Subject.String()+" "+dead.ID, nil, "jobs"); !strings.HasPrefix(text, "ALERT ") || strings.Index(text, "dead-letter ") > strings.Index(text, "STATE ") {
		t.Errorf("the alert is not on top:\n%s", text)
	}
	if got := listed().Alerts; len(got) != 1 || got[0].Subject != dead.Subject || got[0].Key != dead.ID {
		t.Errorf("alerts as JSON: %+v", got)
	}

	w.command(exitOK, "done", boss, "jobs", "discard", dead.Subject.String(), dead.ID)
	all = append(all, w.serve(1)...)
	w.until("the pager was told that it is over", p.heard("alert.cleared dead-letter"))
	shows("0")
	if lines := all[0].said() + all[1].said() + all[2].said(); strings.Count(lines, `"msg":"alert",`) != 1 || strings.Count(lines, `"msg":"alert cleared"`) != 1 || strings.Contains(lines, "token=x") {
		t.Error("the log of all instances does not tell it once each")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.told) != 2 {
		t.Errorf("the pager was told %v", p.told)
	}
}

// A pull request stands where the alert about approvals looks, from when it waits until it is approved.
func TestApprovalThatWaitsIsAnAlert(t *testing.T) {
	t.Parallel()
	p := newPager(t)
	w := begin(t, redisStore(t).URL(), "SIGNALBOX_ALERT_WAIT=1ms", "SIGNALBOX_ALERT_URL="+p.URL, "SIGNALBOX_ALERT_SECRET="+httpSecret, "SIGNALBOX_HTTP_TRIGGER_PRIVATE=1")
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.serve(1) // whoever starts judges at once
	w.until("the pager was told", p.heard("alert.fired approval-waiting"))
	w.labels(w.maya, pr)
	w.settle(pr)
	w.serve(1)
	w.until("the pager was told that it is over", p.heard("alert.cleared approval-waiting"))
}
