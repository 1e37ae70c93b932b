package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state"
	statusapi "github.com/signalbox-ci/signalbox/status/api"
)

// admin is what operators may do, whether it is asked of a running server or done by a command on the store itself. What
// it does stands with the command that asks for it.
type admin struct {
	store  reader
	engine *actor.Engine // nil for a command that only reads
	forges []Forge       // whose sweeps take orders
	wait   time.Duration // for a decision; 0 where nobody is there to decide
	noJobs bool          // no gate of this server starts anything on runners, so that it does not speak to them
}

// adminPath begins the paths of the admin API.
const adminPath = "/api/admin/v1/"

// decideWait is how long a server waits to see an order decided.
const decideWait = 15 * time.Second

// adminAPI is served behind the token, and without one on the socket that only the file's owner may open.
func adminAPI(a admin) http.Handler {
	mux := http.NewServeMux()
	offer(mux, "orders", a.order)
	offer(mux, "repairs", a.repair)
	offer(mux, "reconciliations", a.reconcile)
	offer(mux, "redeliveries", a.redeliver)
	offer(mux, "runner-tokens", a.invite)
	offer(mux, "runners", a.addRunner)
	offer(mux, "runner-removals", a.remove)
	offer(mux, "status-tokens", a.grantStatus)
	offer(mux, "status-revocations", a.revokeStatus)
	offer(mux, "status-transfers", a.transferStatus)
	mux.HandleFunc("GET "+adminPath+"alerts", func(w http.ResponseWriter, r *http.Request) {
		standing, err := alerts.Read(r.Context(), a.store)
		finish(w, standing, err)
	})
	return mux
}

// offer serves one thing that operators may do.
func offer[In, Out any](mux *http.ServeMux, name string, do func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+adminPath+name, func(w http.ResponseWriter, r *http.Request) {
		var in In
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil {
			fail(w, http.StatusBadRequest, "malformed", "the body is not what this path takes")
			return
		}
		out, err := do(r.Context(), in)
		finish(w, out, err)
	})
}

// done is the answer of what has no other.
type done struct {
	Done bool `json:"done"`
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
		fail(w, http.StatusInternalServerError, "internal", err.Error())
	}
}

// errUnknownPull: no document of ours has that name.
var errUnknownPull = errors.New("no such pull request is known here; write it as INSTANCE:OWNER/REPO#NUMBER, with the names the forge shows (a pull request is not known before its first event, nor, once it is closed, 90 days after its last)")

// pull finds a pull request by what people type.
func (a admin) pull(ctx context.Context, ref string) (s state.Subject, v actor.View, d prmanager.PR, err error) {
	rows, err := a.store.List(ctx, "name", ref, 10)
	if err != nil {
		return s, v, d, fmt.Errorf("find %s: %w", ref, err)
	}
	for _, r := range rows {
		if r.Label == ref && r.Subject.Kind == "pr" {
			if v, err = actor.See(ctx, a.store, r.Subject); err == nil {
				d, err = decodePR(v)
			}
			return r.Subject, v, d, err
		}
	}
	return s, v, d, fmt.Errorf("%s: %w", ref, errUnknownPull)
}

func decodePR(v actor.View) (prmanager.PR, error) {
	var d prmanager.PR
	if len(v.Doc) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(v.Doc, &d); err != nil {
		return d, fmt.Errorf("decode the document: %w", err)
	}
	return d, nil
}

// ordered is what became of an order.
type ordered struct {
	Ref     string `json:"ref"`
	Stored  bool   `json:"stored"`
	Decided bool   `json:"decided"` // false: stored, and decided when a server runs
	// Refused: it was decided, and an approval does not stand: it named another commit than the head, say.
	Refused bool   `json:"refused,omitempty"`
	Story   string `json:"story,omitempty"`
}

func (o ordered) String() string {
	if !o.Decided {
		o.Story = "stored; it is decided as soon as a server runs on this store"
	}
	return o.Ref + ": " + o.Story
}

// send tells a subject, durably and in order with everything else that happens to it, and waits a while for the
// decision. It is mail and no Ask, because a decision must look at the forge first (docs/rules.md P1).
func (a admin) send(ctx context.Context, s state.Subject, kind string, format int, order any) (v actor.View, decided bool, err error) {
	got, err := a.engine.Tell(ctx, state.Delivery{Subject: s, ID: s.Instance + ":order:" + uuid.NewString(), Kind: kind, Format: format, Body: mustJSON(order)})
	if err != nil {
		return v, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.wait)
	defer cancel()
	for {
		if v, err := actor.See(ctx, a.store, s); err == nil && v.Seq >= got.Seq {
			return v, true, nil
		}
		select {
		case <-ctx.Done():
			return v, false, nil
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// sendPull is send to a pull request; decided by d, if it is.
func (a admin) sendPull(ctx context.Context, ref, kind string, order func(prmanager.PR) any) (out ordered, d prmanager.PR, err error) {
	s, _, d, err := a.pull(ctx, ref)
	if err != nil {
		return out, d, err
	}
	v, decided, err := a.send(ctx, s, kind, prmanager.Format, order(d))
	if err != nil {
		return out, d, err
	}
	if out = (ordered{Ref: ref, Stored: true, Decided: decided}); decided {
		if d, err = decodePR(v); err == nil {
			out.Story = d.Waits()
		}
	}
	return out, d, err
}
