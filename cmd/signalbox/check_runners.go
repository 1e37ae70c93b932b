package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/runner"
)

// quietRunner is how long a runner may not have spoken before somebody should look. Runners ask every few seconds.
const quietRunner = time.Hour

// runners looks whether the jobs that the default branch defines find somebody to run them.
func (x *examination) runners(ctx context.Context, r forge.Repo, where, branch string, gate Gate) {
	if !slices.ContainsFunc(gate.Triggers, func(t Trigger) bool { return t.Kind == Runner }) {
		return
	}
	if r.Private {
		if _, err := x.c.CheckoutToken(ctx, r); err != nil {
			x.found.add(isFailure, where, "runners cannot check it out: "+err.Error(), "docs/recipes/runner.md says what private repositories need")
		}
	}
	text, err := x.c.File(ctx, r, branch, runner.File)
	switch {
	case err != nil && forge.Classify(err).Class == forge.NotFound:
		x.found.add(isFailure, where, runner.File+" is not on "+branch+": no run can start", "docs/recipes/runner.md shows one")
		return
	case err != nil:
		x.unread(where, runner.File, err, "give us access to the repository's contents")
		return
	}
	secrets := x.cfg.JobSecrets(r)
	jobs, err := runner.ParsePresubmit(text, func(name string) bool { _, ok := secrets[name]; return ok })
	if err != nil {
		x.found.add(isFailure, where, "on "+branch+" "+err.Error(), "mend the file: no run of it can start")
		return
	}
	pool, err := lookInto(ctx, x.cfg.Store, admin.runners)
	if err != nil {
		x.unread(where, "the list of runners", err, "run check where the store can be read")
		return
	}
	for _, j := range jobs {
		labels := strings.Join(j.RunsOn, ",")
		var seen time.Time
		fit := false
		for _, p := range pool {
			if !slices.ContainsFunc(j.RunsOn, func(l string) bool { return !slices.Contains(p.Labels, l) }) {
				fit = true
				if p.Seen.After(seen) {
					seen = p.Seen
				}
			}
		}
		switch {
		case !fit:
			x.found.add(isFailure, where, "no runner has the labels "+labels+" that the job "+quote(j.Name)+" asks for: it would wait", "register one: signalbox runner token --labels "+labels)
		case time.Since(seen) > quietRunner:
			since := "yet"
			if !seen.IsZero() {
				since = "since " + seen.UTC().Format(time.RFC3339)
			}
			x.found.add(isWarning, where, "no runner for the job "+quote(j.Name)+" has spoken "+since, "start one with the labels "+labels)
		default:
			x.found.add(isFine, where, "the job "+quote(j.Name)+" finds a runner", "")
		}
	}
}
