package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/state"
)

type jobsCmd struct {
	List    jobsListCmd    `cmd:"" default:"withargs" help:"List the alerts that stand, dead letters, quarantined subjects and failing effects."`
	Retry   jobsRetryCmd   `cmd:"" help:"Put a dead letter's work back, try a failing effect now, or release a subject from quarantine."`
	Discard jobsDiscardCmd `cmd:"" help:"Take a dead letter off the list for good."`
}

type jobsListCmd struct {
	configured
	output
}

func (jobsListCmd) Help() string { return "Example:\n  signalbox jobs list --output json" }

// Run prints the jobs that need a person.
func (c jobsListCmd) Run(ctx context.Context, p process) error {
	now, err := look(ctx, c.Settings, p, admin.jobs)
	if err != nil {
		return err
	}
	return c.show(p.out, now, func(w io.Writer) {
		if len(now.Alerts)+len(now.Jobs) == 0 {
			fmt.Fprintln(w, "nothing needs a person")
		}
		if len(now.Alerts) > 0 {
			fmt.Fprintln(w, "ALERT\tFIRED\tWHAT")
			for _, a := range now.Alerts {
				fmt.Fprintf(w, "%s\t%s\t%s\n", a.Name, a.Fired.Format(time.RFC3339), a.Words)
			}
			fmt.Fprintln(w)
		}
		if len(now.Jobs) > 0 {
			fmt.Fprintln(w, "STATE\tSUBJECT\tID\tSINCE\tWHY")
			for _, j := range now.Jobs {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", j.State, j.Subject, j.ID, j.Since.Format(time.RFC3339), j.Why)
			}
		}
	})
}

// job is one piece of work that needs a person.
type job struct {
	State   string        `json:"state"` // dead, quarantine, failing, open-outside
	Subject state.Subject `json:"subject"`
	ID      string        `json:"id"` // of a dead letter; of other work its key; of a quarantine nothing
	Since   time.Time     `json:"since"`
	Why     string        `json:"why,omitempty"`
}

// jobs are what needs a person: the alerts that stand, and the work behind them.
type jobs struct {
	Alerts []alerts.Alert `json:"alerts"`
	Jobs   []job          `json:"jobs"`
}

// jobs lists the alerts, then dead letters and stuck work, oldest first within each state.
func (a admin) jobs(ctx context.Context) (jobs, error) {
	out := jobs{Alerts: []alerts.Alert{}, Jobs: []job{}}
	standing, err := alerts.Read(ctx, a.store)
	if err != nil {
		return out, err
	}
	out.Alerts = append(out.Alerts, standing.Standing...)
	for _, index := range []string{actor.IndexQuarantine, actor.IndexOpenOutside, actor.IndexDead, actor.IndexFailing} {
		rows, err := a.store.List(ctx, index, "", 1000)
		if err != nil {
			return out, fmt.Errorf("list %s work: %w", index, err)
		}
		for _, r := range rows {
			j := job{State: index, Subject: r.Subject, ID: r.Label, Since: time.UnixMilli(int64(r.Score)).UTC()}
			if j.Why, err = a.why(ctx, index, r); errors.Is(err, errOver) {
				continue
			} else if err != nil {
				return out, err
			}
			out.Jobs = append(out.Jobs, j)
		}
	}
	return out, nil
}

// errOver: it ended, or its time did, since it was listed.
var errOver = errors.New("over")

// why says what a person needs to know of one row.
func (a admin) why(ctx context.Context, index string, r state.Entry) (string, error) {
	if index == actor.IndexDead {
		d, err := actor.ReadDeadLetter(ctx, a.store, r.Subject, r.Label)
		if errors.Is(err, actor.ErrNoDeadLetter) {
			err = errOver
		}
		return d.Why, err
	}
	v, err := actor.See(ctx, a.store, r.Subject)
	if err != nil {
		return "", err
	}
	if index == actor.IndexQuarantine {
		if v.LastPanic != "" {
			return strings.SplitN(v.LastPanic, "\n", 2)[0], nil
		}
		return fmt.Sprintf("the process died of it %d times in a row", v.Crashes), nil
	}
	for _, e := range v.Outbox {
		if e.Key == r.Label {
			return fmt.Sprintf("%s (%d tries)", e.LastError, e.Tries), nil
		}
	}
	return "", errOver
}

// jobArgs name one job as `jobs list` shows it.
type jobArgs struct {
	configured
	Subject string `arg:"" help:"The subject, as jobs list shows it."`
	ID      string `arg:"" optional:"" help:"The id, as jobs list shows it; without one, the subject's quarantine."`
}

type jobsRetryCmd struct{ jobArgs }

func (jobsRetryCmd) Help() string {
	return "Example:\n  signalbox jobs retry github/1296269/pr/7 e12"
}

// Run puts the work back.
func (c jobsRetryCmd) Run(ctx context.Context, p process) error { return c.tell(ctx, p, false) }

type jobsDiscardCmd struct{ jobArgs }

func (jobsDiscardCmd) Help() string {
	return "Example:\n  signalbox jobs discard github/1296269/pr/7 e12"
}

// Run takes the dead letter off the list.
func (c jobsDiscardCmd) Run(ctx context.Context, p process) error { return c.tell(ctx, p, true) }

func (c jobArgs) tell(ctx context.Context, p process, discard bool) error {
	s, err := state.ParseSubject(c.Subject)
	if err != nil {
		return usageError{err}
	}
	return tell(ctx, c.Settings, p, "repairs", admin.repair, repair{Subject: s, ID: c.ID, Discard: discard, By: operatorName()})
}

// repair is an operator's word about one job.
type repair struct {
	Subject state.Subject `json:"subject"`
	ID      string        `json:"id,omitempty"` // empty: the subject's quarantine
	Discard bool          `json:"discard,omitempty"`
	By      string        `json:"by"`
}

func (a admin) repair(ctx context.Context, r repair) (done, error) {
	switch {
	case r.ID == "" && r.Discard:
		return done{}, usageError{errors.New("a quarantine cannot be discarded; retry releases it")}
	case r.ID == "":
		return done{true}, a.engine.Release(ctx, r.Subject, r.By)
	case r.Discard:
		return done{true}, a.engine.Discard(ctx, r.Subject, r.ID, r.By)
	}
	return done{true}, a.engine.Retry(ctx, r.Subject, r.ID, r.By)
}
