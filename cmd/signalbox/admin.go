package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// admin is what operators may do, whether it is asked of a running server or done by a command on the store itself.
type admin struct {
	store  reader
	engine *actor.Engine // nil for a command that only reads
	forges []Forge       // whose sweeps take orders
}

// errUnknownPull: no document of ours has that name.
var errUnknownPull = errors.New("no such pull request is known here; write it as INSTANCE:OWNER/REPO#NUMBER, with the names the forge shows (before its first event a pull request is not known)")

// pull finds a pull request by what people type.
func (a admin) pull(ctx context.Context, ref string) (state.Subject, error) {
	rows, err := a.store.List(ctx, "name", ref, 10)
	if err != nil {
		return state.Subject{}, fmt.Errorf("find %s: %w", ref, err)
	}
	for _, r := range rows {
		if r.Label == ref && r.Subject.Kind == "pr" {
			return r.Subject, nil
		}
	}
	return state.Subject{}, fmt.Errorf("%s: %w", ref, errUnknownPull)
}

// order is a break-glass approval or revocation.
type order struct {
	Ref    string `json:"ref"`
	Revoke bool   `json:"revoke,omitempty"`
	SHA    string `json:"sha,omitempty"`
	By     string `json:"by"`
	Reason string `json:"reason"`
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

// decideWait is how long a command waits to see its order decided.
const decideWait = 15 * time.Second

// order tells the pull request, durably and in order with everything else that happens to it, and waits a while for
// the decision. It is mail and no Ask, because the decision must look at the live pull request first (docs/rules.md P1).
func (a admin) order(ctx context.Context, o order, wait time.Duration) (ordered, error) {
	s, err := a.pull(ctx, o.Ref)
	if err != nil {
		return ordered{}, err
	}
	doc, err := a.document(ctx, s)
	if err != nil {
		return ordered{}, err
	}
	id := s.Instance + ":order:" + uuid.NewString()
	body := mustJSON(prmanager.Order{Ref: doc.Ref, Revoke: o.Revoke, SHA: o.SHA, By: o.By, Reason: o.Reason})
	got, err := a.engine.Tell(ctx, state.Delivery{Subject: s, ID: id, Kind: prmanager.KindOrder, Format: prmanager.Format, Body: body})
	if err != nil {
		return ordered{}, err
	}
	out := ordered{Ref: o.Ref, Stored: true}
	if out.Decided = a.decided(ctx, s, got.Seq, wait); out.Decided {
		if doc, err = a.document(ctx, s); err != nil {
			return out, err
		}
		g := doc.Standing()
		out.Story = doc.Waits()
		out.Refused = !o.Revoke && len(doc.Asked) == 0 && (g == nil || g.SHA != o.SHA)
	}
	return out, err
}

// decided waits until mail up to seq has been decided, at most as long as wait.
func (a admin) decided(ctx context.Context, s state.Subject, seq int64, wait time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	for {
		if v, err := actor.See(ctx, a.store, s); err == nil && v.Seq >= seq {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (a admin) document(ctx context.Context, s state.Subject) (prmanager.PR, error) {
	v, err := actor.See(ctx, a.store, s)
	if err != nil {
		return prmanager.PR{}, err
	}
	return decodePR(v)
}

// repair is an operator's word about one job.
type repair struct {
	Subject state.Subject `json:"subject"`
	ID      string        `json:"id,omitempty"` // empty: the subject's quarantine
	Discard bool          `json:"discard,omitempty"`
	By      string        `json:"by"`
}

func (a admin) repair(ctx context.Context, r repair) error {
	switch {
	case r.ID == "" && r.Discard:
		return usageError{errors.New("a quarantine cannot be discarded; retry releases it")}
	case r.ID == "":
		return a.engine.Release(ctx, r.Subject, r.By)
	case r.Discard:
		return a.engine.Discard(ctx, r.Subject, r.ID, r.By)
	}
	return a.engine.Retry(ctx, r.Subject, r.ID, r.By)
}
