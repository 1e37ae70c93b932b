package main

import (
	"net/http"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/forge/sandbox/openapi"
)

// described is a transport that holds each request against GitHub's description of its API.
func described(t *testing.T) http.RoundTripper {
	t.Helper()
	d, err := openapi.GitHub()
	if err != nil {
		t.Fatal(err)
	}
	pool := &http.Transport{}
	t.Cleanup(pool.CloseIdleConnections)
	return d.Requests(pool, func(err error) { t.Error(err) })
}

// TestBudgetOfALife counts what one life costs at GitHub's API: an outsider's pull request is opened, labelled, pushed,
// labelled again, closed. docs/architecture.md states the sums.
func TestBudgetOfALife(t *testing.T) {
	facts := []string{"GET issues/#/events", "GET collaborators/maya/permission", "GET pulls/#"}
	const dispatch, cancel, unlabel = "POST actions/workflows/presubmit.yml/dispatches", "POST actions/runs/#/cancel", "DELETE issues/#/labels/CICD"
	for name, c := range map[string]struct {
		app          bool
		check, close string // makes a check, completes one
		most         int
	}{
		"App":   {true, "POST check-runs", "PATCH check-runs/#", 29},
		"token": {false, "POST statuses/#", "POST statuses/#", 29},
	} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, c.app, "SIGNALBOX_SWEEP=24h")
			y.up()
			y.send()
			warm := y.repo.OpenPR(y.maya, sandbox.PROptions{}) // who we are, and a token, are asked for once per process
			rest := func() {
				for range 4 { // what we do is told to us again
					y.send()
					y.settle()
				}
			}
			rest()
			y.pass(5*time.Minute, time.Minute) // the first repair
			warm.Close(y.maya)
			rest()
			y.pass(5*time.Minute, time.Minute)

			var pr *sandbox.PR
			opens := slices.Concat(facts, []string{c.check, "GET pulls/#", dispatch, c.check})
			total := 0
			for _, step := range []struct {
				what string
				do   func()
				want []string
			}{
				{"open", func() { pr = y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true}) }, []string{
					"GET pulls/#", "GET collaborators/mallory/permission", c.check,
				}},
				{"label", func() { pr.Label(y.maya, "CICD") }, opens},
				{"push", func() { pr.Push(y.mallory) }, []string{
					"GET collaborators/mallory/permission", c.check, unlabel, "GET issues/#/events", cancel, c.check, c.close,
				}},
				{"label again", func() { pr.Label(y.maya, "CICD") }, opens},
				{"close", func() { pr.Close(y.mallory) }, []string{unlabel, "GET issues/#/events", c.check, cancel, c.close}},
			} {
				y.later(3 * time.Minute)
				since := y.forge.Seq()
				step.do()
				rest()
				allowed := slices.Clone(step.want)
				for _, call := range y.forge.Calls(since) {
					path := regexp.MustCompile(`^/repos/octo/hello/`).ReplaceAllString(call.Path, "")
					made := call.Method + " " + regexp.MustCompile(`/([0-9a-f]{40}|[0-9]+)`).ReplaceAllString(path, "/#")
					total++
					i := slices.Index(allowed, made) // in any order: subjects work beside each other
					if i < 0 {
						t.Errorf("%s: %s is one too many", step.what, made)
						continue
					}
					allowed = slices.Delete(allowed, i, i+1)
				}
			}
			if total > c.most {
				t.Errorf("%d calls, at most %d are stated", total, c.most)
			}
		})
	}
}
