package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/httptrigger"
	"github.com/signalbox-ci/signalbox/prmanager"
	sweeps "github.com/signalbox-ci/signalbox/repair" // repair is an operator's word here
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
	statusapi "github.com/signalbox-ci/signalbox/status/api"
)

// wiring hands the configured forges and policies to the behaviours.
type wiring struct {
	cfg     Config
	key     []byte // the server's secret key
	now     func() time.Time
	forges  map[string]connected
	http    *httptrigger.Client // nil where there is no secret to sign with
	engine  *actor.Engine
	runners *runner.Service // nil where no trigger needs it
	// base is the process's context: who we are is asked once, outside of any turn.
	base context.Context //nolint:containedctx // lives as long as the process, as its owner does
}

// selfWait bounds the question who we are; until it is answered everything that needs the answer stays shut.
const selfWait = 5 * time.Second

func (w wiring) gate() prmanager.Config {
	return prmanager.Config{Forge: w.forge, Policy: w.policy, Pins: w}
}

func (w wiring) forge(instance string) (prmanager.Forge, error) {
	c, err := w.client(instance)
	if err != nil {
		return prmanager.Forge{}, err
	}
	ctx, cancel := context.WithTimeout(w.base, selfWait)
	defer cancel()
	me, app, err := c.Self(ctx)
	if err != nil {
		return prmanager.Forge{}, fmt.Errorf("forge %s: %w", instance, err)
	}
	triggers := map[string]prmanager.Trigger{}
	for _, t := range w.cfg.Triggers() {
		if !w.cfg.fits(instance, t) {
			continue
		}
		starter, err := w.starter(c, t)
		if err != nil {
			return prmanager.Forge{}, fmt.Errorf("forge %s: trigger %s: %w", instance, t, err)
		}
		triggers[t.String()] = starter
	}
	return prmanager.Forge{
		Name: c.title, Self: prmanager.Self{Actor: me, App: app}, Reader: c, Labeller: c, Commenter: c, Triggers: triggers,
	}, nil
}

func (w wiring) client(instance string) (connected, error) {
	c, ok := w.forges[instance]
	if !ok {
		return connected{}, fmt.Errorf("no forge %q is configured any more", instance)
	}
	return c, nil
}

func (w wiring) commits(instance string) (status.Forge, error) {
	c, err := w.client(instance)
	return c.forgeClient, err
}

// starter is the adapter of one configured trigger.
func (w wiring) starter(c connected, t Trigger) (prmanager.Trigger, error) {
	switch t.Kind {
	case RepositoryDispatch, Workflow, ActionsApproval, GitLabPipeline:
		return c.starter(t)
	case HTTP:
		if w.http == nil {
			return nil, errors.New("no secret is configured to sign its requests with")
		}
		return w.http.Trigger(t.URL, w.results)
	case Runner:
		if w.runners == nil {
			return nil, errors.New("no runners are served")
		}
		return runner.NewTrigger(w.runners, c), nil
	}
	return nil, fmt.Errorf("%s is no trigger", t.Kind)
}

// results is where the CI of an http trigger tells how a run goes. It cannot where nobody has said at which address we
// are reached.
func (w wiring) results(run forge.Run) (url, token string) {
	if w.cfg.URL == "" {
		return "", ""
	}
	return statusapi.RunURL(w.cfg.URL, run), statusapi.MintRun(w.key, run, w.now())
}

func (w wiring) policy(repo forge.Repo) prmanager.Policy {
	g := w.cfg.Gate(repo)
	p := prmanager.Policy{Label: g.Label, Check: g.Check, Trust: g.Trust, Auto: g.Auto, Hold: g.Hold.For, Strict: g.Hold.Strict, DryRun: w.cfg.DryRun}
	for _, t := range g.Triggers {
		p.Presubmits = append(p.Presubmits, prmanager.Presubmit{
			Name: g.PresubmitName(t), Trigger: t.String(), Native: t.native(), Held: t.Kind == ActionsApproval, Source: source(t),
		})
	}
	return p
}

func (w wiring) dryRun(forge.Repo) bool { return w.cfg.DryRun }

// source is what deliveries about the runs of a trigger look like.
func source(t Trigger) prmanager.Source {
	switch t.Kind {
	case Workflow:
		return prmanager.Source{Event: "workflow_dispatch", Path: ".github/workflows/" + t.File}
	case RepositoryDispatch:
		return prmanager.Source{Event: "repository_dispatch"} // whichever workflow listens
	default:
		return prmanager.Source{}
	}
}

// serveJobs builds the service that runners speak to.
func (w wiring) serveJobs(st store, log *zap.Logger, m prometheus.Registerer) (*runner.Service, error) {
	actor.Register(w.engine, runner.Kind, runner.NewBehaviour(st.Record), actor.KindOptions{MailFormat: runner.Format, Recall: true})
	source := func(instance string) (runner.Source, error) {
		c, err := w.client(instance)
		return c.forgeClient, err
	}
	return runner.New(runner.Options{
		Engine: w.engine, Store: st, Pool: poolSubject(), Key: w.key, URL: w.cfg.URL, Secrets: w.cfg.JobSecrets, Source: source, Log: log, Metrics: m,
	})
}

// sweep is what the repair needs of the rest.
func (w wiring) sweep(st store) sweeps.Config {
	return sweeps.Config{
		Forge: func(instance string) (sweeps.Forge, error) {
			c, err := w.client(instance)
			if err != nil {
				return sweeps.Forge{}, err
			}
			f := sweeps.Forge{Lister: c, Log: c, Handles: c.hook.Handles}
			f.Named, f.Wild = w.cfg.named(instance)
			return f, nil
		},
		Allowed: w.cfg.Allowed, Store: st, Tell: w.engine.Tell,
		Every: w.cfg.Sweep, Pace: sweeps.Unhurried(), Adopt: w.cfg.Adopt, DryRun: w.cfg.DryRun,
	}
}

// sweeper is the subject that sweeps a forge by itself, once it was woken.
func sweeper(f Forge) state.Subject {
	if f.Token.Set() {
		return sweeps.Subject(f.Name, sweeps.Token)
	}
	return sweeps.Subject(f.Name, sweeps.Root)
}

// poolSubject is the one pool of runners. It serves every forge, so it belongs to none.
func poolSubject() state.Subject { return runner.Subject("-", "default") }

// ours says whether a context is one that Signalbox itself writes at a repository. Forges do not mind its case.
func (w wiring) ours(repo forge.Repo, name string) bool {
	g := w.cfg.Gate(repo)
	return strings.EqualFold(name, g.Check) || strings.EqualFold(name, g.Presubmit) ||
		slices.ContainsFunc(g.Triggers, func(t Trigger) bool {
			own := g.PresubmitName(t)
			return strings.EqualFold(name, own) || t.Kind == Runner && beginsFolded(name, own+" / ")
		})
}

// beginsFolded is strings.HasPrefix as strings.EqualFold compares: letters that are the same can differ in length.
func beginsFolded(s, prefix string) bool {
	letters := []rune(s)
	return strings.EqualFold(string(letters[:min(len(letters), utf8.RuneCountInString(prefix))]), prefix)
}
