package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

type jobsCmd struct {
	List    jobsListCmd    `cmd:"" default:"withargs" help:"List dead letters, quarantined subjects and failing effects."`
	Retry   jobsRetryCmd   `cmd:"" help:"Put a dead letter's work back, or release a subject from quarantine."`
	Discard jobsDiscardCmd `cmd:"" help:"Take a dead letter off the list for good."`
}

type jobsListCmd struct {
	Settings `embed:""`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (jobsListCmd) Help() string { return "Example:\n  signalbox jobs list --output json" }

// Run prints the jobs that need a person.
func (c jobsListCmd) Run(ctx context.Context, p process) (err error) {
	cfg, err := c.ResolveOffline(p.environ, p.readFile)
	if err != nil {
		return err
	}
	r, err := openReader(ctx, cfg.Store)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	jobs, err := admin{store: r}.jobs(ctx)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		if jobs == nil {
			jobs = []job{}
		}
		return printJSON(p.out, jobs)
	}
	if len(jobs) == 0 {
		_, err = fmt.Fprintln(p.out, "nothing needs a person")
		return err
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "STATE\tSUBJECT\tID\tSINCE\tWHY")
	for _, j := range jobs {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", j.State, j.Subject, j.ID, j.Since.Format(time.RFC3339), j.Why)
	}
	return w.Flush()
}

// jobArgs name one job as `jobs list` shows it.
type jobArgs struct {
	Settings `embed:""`
	Subject  string `arg:"" help:"The subject, as jobs list shows it."`
	ID       string `arg:"" optional:"" help:"The dead letter's id; without one, the subject's quarantine."`
}

type jobsRetryCmd struct{ jobArgs }

func (jobsRetryCmd) Help() string {
	return "Example:\n  signalbox jobs retry github/1296269/pr/7 e12"
}

// Run puts the work back.
func (c jobsRetryCmd) Run(ctx context.Context, p process) error { return c.repair(ctx, p, false) }

type jobsDiscardCmd struct{ jobArgs }

func (jobsDiscardCmd) Help() string {
	return "Example:\n  signalbox jobs discard github/1296269/pr/7 e12"
}

// Run takes the dead letter off the list.
func (c jobsDiscardCmd) Run(ctx context.Context, p process) error { return c.repair(ctx, p, true) }

func (c jobArgs) repair(ctx context.Context, p process, discard bool) (err error) {
	s, err := state.ParseSubject(c.Subject)
	if err != nil {
		return usageError{err}
	}
	cfg, err := c.ResolveOffline(p.environ, p.readFile)
	if err != nil {
		return err
	}
	op, done, err := connect(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := op.repair(ctx, repair{Subject: s, ID: c.ID, Discard: discard, By: operatorName()}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, "done")
	return err
}
