package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/prmanager"
	sweeps "github.com/signalbox-ci/signalbox/repair"
	"github.com/signalbox-ci/signalbox/state"
)

type reconcileCmd struct {
	Settings `embed:""`
	What     string `arg:"" optional:"" placeholder:"REPO[#N]" help:"INSTANCE:OWNER/REPO or INSTANCE:OWNER/REPO#NUMBER; without it, everything."`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (reconcileCmd) Help() string {
	return `A pull request is compared at once. A repository, or everything, is compared by the sweep, slowly enough that
arriving webhooks never wait for it.

Example:
  signalbox reconcile github:octo/hello#7
  signalbox reconcile github:octo/hello`
}

// repoForm is a repository as people type it.
var repoForm = regexp.MustCompile(`^[a-z0-9-]{1,32}:[^\s#:]+/[^\s#:]+$`)

// Run orders the comparison.
func (c reconcileCmd) Run(ctx context.Context, p process) error {
	if c.What != "" && !repoForm.MatchString(c.What) && !refForm.MatchString(c.What) {
		return usageError{fmt.Errorf("%q: expected INSTANCE:OWNER/REPO or INSTANCE:OWNER/REPO#NUMBER, for example github:octo/hello#7", c.What)}
	}
	return ask(ctx, p, c.Settings, c.Output, func(op operator) ([]ordered, error) {
		return op.reconcile(ctx, reconciliation{What: c.What, By: operatorName()})
	})
}

type redeliverCmd struct {
	Settings `embed:""`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (redeliverCmd) Help() string {
	return `The forge's delivery log is read as far back as it goes (GitHub: three days), and what never arrived is asked for
again, one a second, nothing twice within an hour.

Example:
  signalbox redeliver`
}

// Run orders a pass through the delivery log.
func (c redeliverCmd) Run(ctx context.Context, p process) error {
	return ask(ctx, p, c.Settings, c.Output, func(op operator) ([]ordered, error) { return op.redeliver(ctx) })
}

// ask carries an order to the sweeps out and tells what became of it.
func ask(ctx context.Context, p process, s Settings, output string, do func(operator) ([]ordered, error)) (err error) {
	op, done, err := connect(ctx, s, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	out, err := do(op)
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(p.out, out)
	}
	for _, o := range out {
		if !o.Decided {
			o.Story = "stored; it is done as soon as a server runs on this store"
		}
		if _, err := fmt.Fprintf(p.out, "%s: %s\n", o.Ref, o.Story); err != nil {
			return err
		}
	}
	return nil
}

// reconciliation is an operator's order to compare with the forge.
type reconciliation struct {
	What string `json:"what,omitempty"` // INSTANCE:OWNER/REPO[#NUMBER]; empty = everything
	By   string `json:"by"`
}

// errNoForge: an order for a forge that this configuration does not have.
var errNoForge = errors.New("no such forge is configured")

// reconcile tells one pull request, or orders the sweep to compare a repository or everything.
func (a admin) reconcile(ctx context.Context, r reconciliation, wait time.Duration) ([]ordered, error) {
	if strings.Contains(r.What, "#") {
		out, err := a.compare(ctx, r, wait)
		return []ordered{out}, err
	}
	instance, repo, _ := strings.Cut(r.What, ":")
	return a.sweeps(ctx, instance, sweeps.Order{Full: true, Only: repo}, wait, func(v actor.View, d sweeps.Sweep) string {
		return "being compared; " + d.Words()
	})
}

func (a admin) compare(ctx context.Context, r reconciliation, wait time.Duration) (ordered, error) {
	s, err := a.pull(ctx, r.What)
	if errors.Is(err, errUnknownPull) {
		repo, _, _ := strings.Cut(r.What, "#")
		return ordered{}, fmt.Errorf("%w; signalbox reconcile %s finds it if it is open", err, repo)
	}
	if err != nil {
		return ordered{}, err
	}
	doc, err := a.document(ctx, s)
	if err != nil {
		return ordered{}, err
	}
	got, err := a.engine.Tell(ctx, state.Delivery{
		Subject: s, ID: s.Instance + ":order:" + uuid.NewString(), Kind: prmanager.KindReconcile, Format: prmanager.Format,
		Body: mustJSON(prmanager.Repair{Ref: doc.Ref, Why: "ordered by " + r.By}),
	})
	if err != nil {
		return ordered{}, err
	}
	out := ordered{Ref: r.What, Stored: true}
	if out.Decided = a.decided(ctx, s, got.Seq, wait); out.Decided {
		out.Story, err = a.sentence(ctx, s)
	}
	return out, err
}

// redeliver orders a pass through the delivery logs of all forges.
func (a admin) redeliver(ctx context.Context, wait time.Duration) ([]ordered, error) {
	return a.sweeps(ctx, "", sweeps.Order{Log: true}, wait, func(v actor.View, d sweeps.Sweep) string {
		n := 0
		for _, e := range v.Outbox {
			if strings.HasPrefix(e.Key, sweeps.RedeliverKey) {
				n++
			}
		}
		return fmt.Sprintf("%d deliveries are being asked for again; %s", n, d.Words())
	})
}

// sweeps orders something of the sweep of one forge, or of all where instance is empty, and tells how it stands.
func (a admin) sweeps(ctx context.Context, instance string, o sweeps.Order, wait time.Duration, words func(actor.View, sweeps.Sweep) string) ([]ordered, error) {
	var out []ordered
	for _, f := range a.forges {
		if instance != "" && f.Name != instance {
			continue
		}
		if !f.Token.Set() && f.AppID == 0 {
			return nil, fmt.Errorf("forge %s: its token or App is not configured here, so that its sweep cannot be named", f.Name)
		}
		s := sweeper(f)
		got, err := a.engine.Tell(ctx, state.Delivery{
			Subject: s, ID: f.Name + ":order:" + uuid.NewString(), Kind: sweeps.KindOrder, Format: sweeps.Format, Body: mustJSON(o),
		})
		if err != nil {
			return nil, err
		}
		x := ordered{Ref: f.Name, Stored: true}
		if o.Only != "" {
			x.Ref += ":" + o.Only
		}
		if x.Decided = a.decided(ctx, s, got.Seq, wait); x.Decided {
			v, err := actor.See(ctx, a.store, s)
			if err != nil {
				return nil, err
			}
			d, err := sweeps.Decode(v.Doc)
			if err != nil {
				return nil, err
			}
			x.Story = words(v, d)
		}
		out = append(out, x)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %w", instance, errNoForge)
	}
	return out, nil
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
