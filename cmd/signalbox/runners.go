package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state"
)

// poolSubject is the one pool of runners. It serves every forge, so it belongs to none.
func poolSubject() state.Subject { return runner.Subject("-", "default") }

// runsJobs says whether any gate starts its presubmits on runners.
func (c Config) runsJobs() bool {
	return slices.ContainsFunc(c.Triggers(), func(t Trigger) bool { return t.Kind == Runner })
}

// serveRunners builds the service that runners speak to.
func serveRunners(w wiring, st store, log *zap.Logger, m prometheus.Registerer) (*runner.Service, error) {
	actor.Register(w.engine, runner.Kind, runner.NewBehaviour(st.Record), actor.KindOptions{MailFormat: runner.Format})
	source := func(instance string) (runner.Source, error) {
		c, err := w.client(instance)
		return c.source, err
	}
	return runner.New(runner.Options{
		Engine: w.engine, Store: st, Pool: poolSubject(), Key: w.key, URL: w.cfg.URL, Secrets: w.cfg.JobSecrets, Source: source, Log: log, Metrics: m,
	})
}

// secretKey is the configured key, or the one that the store's first server made.
func secretKey(ctx context.Context, e *actor.Engine, configured Secret) ([]byte, error) {
	if configured.Set() {
		return []byte(configured.Reveal()), nil
	}
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails
	type kept struct {
		Key []byte `json:"key"`
	}
	key, err := actor.Ask(ctx, e, state.Subject{Instance: "-", Project: "-", Kind: "system", Key: "secret"}, "", func(d kept, _ time.Time) (actor.Step[kept], error) {
		if len(d.Key) == 0 {
			d.Key = fresh
		}
		return actor.Step[kept]{Next: d, Reply: d.Key}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep a secret key in the store: %w", err)
	}
	return key, nil
}

// withRunners adds the runners' paths, and the pages that checks link to. A run's key is in no list: who has the link
// may read the log.
func withRunners(next http.Handler, s *runner.Service, draining *atomic.Bool) (http.Handler, error) {
	pages, err := newRunPages(s, draining)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle(runner.Path, s.Handler())
	mux.HandleFunc("GET /runs/{key}", pages.show)
	mux.HandleFunc("GET /runs/{key}/events", pages.events)
	mux.Handle("/", next)
	return mux, nil
}

// invitation asks for a registration token.
type invitation struct {
	Labels []string `json:"labels"`
	Life   string   `json:"life"` // a duration
	Once   bool     `json:"once"`
}

type invited struct {
	Token string `json:"token"`
}

type removal struct {
	UUID string `json:"uuid"`
}

// runnerOperator administers runners.
type runnerOperator interface {
	invite(ctx context.Context, i invitation) (invited, error)
	remove(ctx context.Context, r removal) error
}

// pool is the service without its key, which administration does not need.
func (a admin) pool() (*runner.Service, error) {
	return runner.New(runner.Options{Engine: a.engine, Store: a.store, Pool: poolSubject(), Log: zap.NewNop(), Metrics: prometheus.NewRegistry()})
}

func (a admin) invite(ctx context.Context, i invitation) (invited, error) {
	life, err := time.ParseDuration(i.Life)
	if err != nil || life < time.Minute || life > 30*24*time.Hour {
		return invited{}, usageError{errors.New("expected a life from 1m to 720h")}
	}
	if len(i.Labels) == 0 {
		return invited{}, usageError{errors.New("expected at least one label")}
	}
	s, err := a.pool()
	if err != nil {
		return invited{}, err
	}
	token, err := s.Invite(ctx, i.Labels, life, i.Once)
	return invited{token}, err
}

func (a admin) remove(ctx context.Context, r removal) error {
	s, err := a.pool()
	if err != nil {
		return err
	}
	return s.Remove(ctx, r.UUID)
}

func (c client) invite(ctx context.Context, i invitation) (out invited, err error) {
	return out, c.post(ctx, "runner-tokens", i, &out)
}

func (c client) remove(ctx context.Context, r removal) error {
	return c.post(ctx, "runner-removals", r, nil)
}

// runnerAPI are the admin API's paths about runners.
func runnerAPI(mux *http.ServeMux, a admin) {
	mux.HandleFunc("POST "+adminPath+"runner-tokens", func(w http.ResponseWriter, r *http.Request) {
		var in invitation
		if !read(w, r, &in) {
			return
		}
		out, err := a.invite(r.Context(), in)
		finish(w, out, err)
	})
	mux.HandleFunc("POST "+adminPath+"runner-removals", func(w http.ResponseWriter, r *http.Request) {
		var in removal
		if !read(w, r, &in) {
			return
		}
		finish(w, map[string]bool{"done": true}, a.remove(r.Context(), in))
	})
}

type runnerCmd struct {
	Token  runnerTokenCmd  `cmd:"" help:"Make a registration token for runners."`
	List   runnerListCmd   `cmd:"" help:"List the runners, when each last spoke, and what it works on."`
	Remove runnerRemoveCmd `cmd:"" help:"Take a runner out; what it works on is lost."`
}

type runnerTokenCmd struct {
	Settings `embed:""`
	Labels   []string      `required:"" help:"Labels that a runner may have, separated by commas."`
	For      time.Duration `default:"1h" help:"How long the token is good."`
	Many     bool          `help:"Let it register any number of runners; without this, one."`
	Output   string        `enum:"text,json" default:"text" help:"text or json."`
}

func (runnerTokenCmd) Help() string { return "Example:\n  signalbox runner token --labels linux,big" }

// Run prints a token.
func (c runnerTokenCmd) Run(ctx context.Context, p process) (err error) {
	op, done, err := connect(ctx, c.Settings, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	out, err := op.invite(ctx, invitation{c.Labels, c.For.String(), !c.Many})
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(p.out, out)
	}
	_, err = fmt.Fprintln(p.out, out.Token)
	return err
}

type runnerListCmd struct {
	Settings `embed:""`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (runnerListCmd) Help() string { return "Example:\n  signalbox runner list" }

// Run prints the runners.
func (c runnerListCmd) Run(ctx context.Context, p process) (err error) {
	r, err := look(ctx, c.Settings, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s, err := admin{store: r}.pool()
	if err != nil {
		return err
	}
	list, err := s.List(ctx)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(p.out, list)
	}
	if len(list) == 0 {
		_, err = fmt.Fprintln(p.out, "no runner is registered")
		return err
	}
	w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "UUID\tNAME\tLABELS\tVERSION\tSEEN\tTASKS")
	for _, x := range list {
		tasks, _ := json.Marshal(x.Tasks) // of numbers
		fmt.Fprintf(w, "%s\t%q\t%s\t%q\t%s\t%s\n", x.UUID, x.Name, strings.Join(x.Labels, ","), x.Version, x.Seen.Format(time.RFC3339), tasks)
	}
	return w.Flush()
}

type runnerRemoveCmd struct {
	Settings `embed:""`
	UUID     string `arg:"" help:"The runner's uuid, as runner list shows it."`
}

func (runnerRemoveCmd) Help() string {
	return "Example:\n  signalbox runner remove 0b0c3a52-4f0c-4f6e-9d7e-2b8c7c1b9a10"
}

// Run takes the runner out.
func (c runnerRemoveCmd) Run(ctx context.Context, p process) (err error) {
	op, done, err := connect(ctx, c.Settings, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := op.remove(ctx, removal{c.UUID}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.out, "done")
	return err
}
