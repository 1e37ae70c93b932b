package webhook

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/state"
)

// BenchmarkDelivery measures one 24 KB delivery through the handler against the least that any receiver must do: read,
// HMAC-SHA256, 202. Both run in turn, in memory, so that "ratio" (handler / least) holds on a machine that drifts.
func BenchmarkDelivery(b *testing.B) {
	hook, err := github.NewHook("github", []string{secret})
	if err != nil {
		b.Fatal(err)
	}
	// As large as GitHub's, and like them mostly links that nobody reads.
	links := strings.Repeat(`"comments_url":"https://api.github.com/repos/acme/widgets/comments{/number}",`, 300)
	body := `{"action":"opened","number":7,"pull_request":{` + links + `"number":7,"state":"open","updated_at":"2026-11-20T10:00:00Z"},` +
		`"repository":{"id":1296269,"full_name":"acme/widgets"}}`
	mac := sign(secret, []byte(body))
	n := 0
	request := func() *http.Request {
		n++
		r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/webhooks/github", strings.NewReader(body))
		r.SetPathValue("instance", "github")
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("X-GitHub-Event", "pull_request")
		r.Header.Set("X-GitHub-Delivery", strconv.Itoa(n))
		r.Header.Set("X-Hub-Signature-256", mac)
		return r
	}
	least := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, err := io.ReadAll(r.Body)
		if err != nil || sign(secret, got) != r.Header.Get("X-Hub-Signature-256") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusAccepted)
	})
	handler := newHandler(b, func(context.Context, state.Delivery) (state.Accepted, error) {
		return state.Accepted{Seq: 1}, nil
	}, zap.NewNop())
	handler.forges = map[string]Forge{"github": hook}

	timed := func(h http.Handler) time.Duration {
		r, w := request(), httptest.NewRecorder()
		start := time.Now()
		h.ServeHTTP(w, r)
		took := time.Since(start)
		if w.Code != http.StatusAccepted {
			b.Fatalf("answered %d: %s", w.Code, w.Body)
		}
		return took
	}
	var ours, theirs time.Duration
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		ours += timed(handler)
		theirs += timed(least)
	}
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "handler-ns/op")
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "least-ns/op")
}
