package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/prmanager"
	sweeps "github.com/signalbox-ci/signalbox/repair"
)

type reconcileCmd struct {
	configured
	What string `arg:"" optional:"" placeholder:"REPO[#N]" help:"INSTANCE:OWNER/REPO or INSTANCE:OWNER/REPO#NUMBER; without it, everything."`
	output
}

func (reconcileCmd) Help() string {
	return `A pull request is compared at once. A repository, or everything, is compared by the sweep, slowly enough that
arriving webhooks never wait for it.

Example:
  signalbox reconcile github:octo/hello#7
  signalbox reconcile github:octo/hello`
}

// Run orders the comparison.
func (c reconcileCmd) Run(ctx context.Context, p process) error {
	if c.What != "" && !repoForm.MatchString(c.What) && !refForm.MatchString(c.What) {
		return usageError{fmt.Errorf("%q: expected INSTANCE:OWNER/REPO or INSTANCE:OWNER/REPO#NUMBER, for example github:octo/hello#7", c.What)}
	}
	out, err := ask(ctx, c.Settings, p, "reconciliations", admin.reconcile, reconciliation{What: c.What, By: operatorName()})
	if err != nil {
		return err
	}
	return c.showOrders(p, out)
}

type redeliverCmd struct {
	configured
	output
}

func (redeliverCmd) Help() string {
	return `The forge's delivery log is read as far back as it goes (GitHub: three days), and what never arrived is asked for
again, one a second, nothing twice within an hour.

Example:
  signalbox redeliver`
}

// Run orders a pass through the delivery log.
func (c redeliverCmd) Run(ctx context.Context, p process) error {
	out, err := ask(ctx, c.Settings, p, "redeliveries", admin.redeliver, struct{}{})
	if err != nil {
		return err
	}
	return c.showOrders(p, out)
}

func (o output) showOrders(p process, list []ordered) error {
	return o.show(p.out, list, func(w io.Writer) {
		for _, x := range list {
			fmt.Fprintln(w, x)
		}
	})
}

// reconciliation is an operator's order to compare with the forge.
type reconciliation struct {
	What string `json:"what,omitempty"` // INSTANCE:OWNER/REPO[#NUMBER]; empty = everything
	By   string `json:"by"`
}

// reconcile tells one pull request, or orders the sweep to compare a repository or everything.
func (a admin) reconcile(ctx context.Context, r reconciliation) ([]ordered, error) {
	if repo, _, one := strings.Cut(r.What, "#"); one {
		out, _, err := a.sendPull(ctx, r.What, prmanager.KindReconcile, func(d prmanager.PR) any {
			return prmanager.Repair{Ref: d.Ref, Why: "ordered by " + r.By}
		})
		if errors.Is(err, errUnknownPull) {
			err = fmt.Errorf("%w; signalbox reconcile %s finds it if it is open", err, repo)
		}
		return []ordered{out}, err
	}
	instance, repo, _ := strings.Cut(r.What, ":")
	if repo != "" {
		if _, err := a.named(ctx, r.What); err != nil {
			return nil, err // a misspelt one would be compared, and nothing found
		}
	}
	return a.sweeps(ctx, instance, sweeps.Order{Full: true, Only: repo}, func(v actor.View, d sweeps.Sweep) string {
		return "being compared; " + d.Words()
	})
}

// redeliver orders a pass through the delivery logs of all forges.
func (a admin) redeliver(ctx context.Context, _ struct{}) ([]ordered, error) {
	return a.sweeps(ctx, "", sweeps.Order{Log: true}, func(v actor.View, d sweeps.Sweep) string {
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
func (a admin) sweeps(ctx context.Context, instance string, o sweeps.Order, words func(actor.View, sweeps.Sweep) string) ([]ordered, error) {
	var out []ordered
	for _, f := range a.forges {
		if instance != "" && f.Name != instance {
			continue
		}
		if !f.Token.Set() && f.AppID == 0 {
			return nil, fmt.Errorf("forge %s: its token or App is not configured here, so that its sweep cannot be named", f.Name)
		}
		v, decided, err := a.send(ctx, sweeper(f), sweeps.KindOrder, sweeps.Format, o)
		if err != nil {
			return nil, err
		}
		x := ordered{Ref: f.Name, Stored: true, Decided: decided}
		if o.Only != "" {
			x.Ref += ":" + o.Only
		}
		if decided {
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
