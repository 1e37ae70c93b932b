package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/runner/page"
	"github.com/signalbox-ci/signalbox/webhook"
)

// apiError is the body of every error answer (docs/rules.md, Answers).
type apiError struct {
	Error struct {
		Code      string `json:"code"`
		Message   string `json:"message"`
		RequestID string `json:"request_id"`
	} `json:"error"`
}

func fail(w http.ResponseWriter, status int, code, message string) {
	var e apiError
	e.Error.Code, e.Error.Message, e.Error.RequestID = code, message, rand.Text()
	answer(w, status, e)
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody is left to tell
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}

// routes are the service's paths for the world. runners is nil where no job runs on any.
func (a *app) routes(hooks http.Handler, runners *runner.Service, metrics prometheus.Gatherer) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.Handle(webhook.Pattern, hooks)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		switch err := a.store.Ping(r.Context()); {
		case a.draining.Load():
			fail(w, http.StatusServiceUnavailable, "draining", "this instance is stopping")
		case err != nil:
			fail(w, http.StatusServiceUnavailable, "store_unavailable", "the store does not answer")
		default:
			answer(w, http.StatusOK, map[string]string{"status": "ready"})
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.Handle(adminPath, bearer(a.cfg.AdminToken, adminAPI(a.admin)))
	mux.Handle("POST "+sweepPath, bearer(a.cfg.AdminToken, http.HandlerFunc(a.admin.sweep)))
	for _, path := range []string{"/api/v1/", "/api/v2/", "/api/openapi.json"} {
		mux.Handle(path, a.statuses.Handler())
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "not_found", "nothing is served at this path")
	})
	if runners == nil {
		return mux, nil
	}
	mux.Handle(runner.Path, runners.Handler())
	return mux, page.Serve(mux, runners, a.draining.Load, fail)
}

// bearer lets only those pass who know the token. Hashes are compared, so that not even its length shows in time.
func bearer(token Secret, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + token.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		switch {
		case !token.Set():
			fail(w, http.StatusNotFound, "admin_off", "the admin API is off: SIGNALBOX_ADMIN_TOKEN is not set on this server")
		case subtle.ConstantTimeCompare(got[:], want[:]) != 1:
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, http.StatusUnauthorized, "unauthorized", "expected the bearer token of SIGNALBOX_ADMIN_TOKEN")
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// sweepPath is asked by a scheduler where an instance gets time only while it answers a request.
const sweepPath = "/internal/sweep"

// How long one such request works at most (Cloud Scheduler waits a minute), and how long nothing must have been due
// for it to end sooner: longer than the distance of two adoptions, so that a request does many of them.
const (
	sweepWithin = 50 * time.Second
	sweepQuiet  = 4 * time.Second
)

// sweep does what is due inside the request.
func (a admin) sweep(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), sweepWithin)
	defer cancel()
	out, err := a.engine.Drain(ctx, sweepQuiet)
	finish(w, out, err)
}
