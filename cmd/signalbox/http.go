package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state"
	statusapi "github.com/signalbox-ci/signalbox/status/api"
	"github.com/signalbox-ci/signalbox/webhook"
)

// adminPath begins the paths of the admin API.
const adminPath = "/api/admin/v1/"

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
	var b [8]byte
	_, _ = rand.Read(b[:])
	e.Error.Code, e.Error.Message, e.Error.RequestID = code, message, hex.EncodeToString(b[:])
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

// routes are the service's paths for the world.
func routes(hooks http.Handler, a admin, token Secret, st store, draining *atomic.Bool, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(webhook.Pattern, hooks)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		switch err := st.Ping(r.Context()); {
		case draining.Load():
			fail(w, http.StatusServiceUnavailable, "draining", "this instance is stopping")
		case err != nil:
			fail(w, http.StatusServiceUnavailable, "store_unavailable", "the store does not answer")
		default:
			answer(w, http.StatusOK, map[string]string{"status": "ready"})
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	operators := map[string]http.Handler{adminPath: adminAPI(a), "POST " + sweepPath: http.HandlerFunc(a.sweep)}
	for pattern, h := range operators {
		if token.Set() {
			mux.Handle(pattern, bearer(token, h))
			continue
		}
		mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) {
			fail(w, http.StatusNotFound, "admin_off", "the admin API is off: SIGNALBOX_ADMIN_TOKEN is not set on this server")
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "not_found", "nothing is served at this path")
	})
	return mux
}

// bearer lets only those pass who know the token. Hashes are compared, so that not even its length shows in time.
func bearer(token Secret, next http.Handler) http.Handler {
	want := sha256.Sum256([]byte("Bearer " + token.Reveal()))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			fail(w, http.StatusUnauthorized, "unauthorized", "expected the bearer token of SIGNALBOX_ADMIN_TOKEN")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// adminAPI is served behind the token, and without one on the socket that only the file's owner may open.
func adminAPI(a admin) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+adminPath+"orders", func(w http.ResponseWriter, r *http.Request) {
		var o order
		if !read(w, r, &o) {
			return
		}
		out, err := a.order(r.Context(), o, decideWait)
		finish(w, out, err)
	})
	mux.HandleFunc("POST "+adminPath+"repairs", func(w http.ResponseWriter, r *http.Request) {
		var in repair
		if !read(w, r, &in) {
			return
		}
		finish(w, map[string]bool{"done": true}, a.repair(r.Context(), in))
	})
	mux.HandleFunc("POST "+adminPath+"reconciliations", func(w http.ResponseWriter, r *http.Request) {
		var in reconciliation
		if !read(w, r, &in) {
			return
		}
		out, err := a.reconcile(r.Context(), in, decideWait)
		finish(w, out, err)
	})
	mux.HandleFunc("POST "+adminPath+"redeliveries", func(w http.ResponseWriter, r *http.Request) {
		out, err := a.redeliver(r.Context(), decideWait)
		finish(w, out, err)
	})
	mux.HandleFunc("GET "+adminPath+"jobs", func(w http.ResponseWriter, r *http.Request) {
		jobs, err := a.jobs(r.Context())
		finish(w, jobs, err)
	})
	mux.HandleFunc("GET "+adminPath+"alerts", func(w http.ResponseWriter, r *http.Request) {
		standing, err := alerts.Read(r.Context(), a.store)
		finish(w, standing, err)
	})
	runnerAPI(mux, a)
	statusAPI(mux, a)
	return mux
}

func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		fail(w, http.StatusBadRequest, "malformed", "the body is not what this path takes")
		return false
	}
	return true
}

func finish(w http.ResponseWriter, v any, err error) {
	var usage usageError
	switch {
	case err == nil:
		answer(w, http.StatusOK, v)
	case errors.Is(err, errUnknownPull), errors.Is(err, actor.ErrNoDeadLetter), errors.Is(err, errNoForge), errors.Is(err, errNoRepo),
		errors.Is(err, errNoContext), errors.Is(err, statusapi.ErrNoToken), errors.Is(err, runner.ErrNoRunner):
		fail(w, http.StatusNotFound, "not_found", err.Error())
	case errors.As(err, &usage):
		fail(w, http.StatusUnprocessableEntity, "invalid", err.Error())
	case errors.Is(err, actor.ErrBusy), errors.Is(err, state.ErrFull), errors.Is(err, context.DeadlineExceeded):
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusServiceUnavailable, "busy", err.Error())
	default:
		fail(w, http.StatusInternalServerError, "internal", "the store did not answer; the log says more")
	}
}
