package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/runner"
)

type runnerCmd struct {
	Token  runnerTokenCmd  `cmd:"" help:"Make a registration token for runners."`
	Add    runnerAddCmd    `cmd:"" help:"Let a runner in that does not register, and print what its file needs."`
	List   runnerListCmd   `cmd:"" help:"List the runners, when each last spoke, and what it works on."`
	Remove runnerRemoveCmd `cmd:"" help:"Take a runner out; what it works on is lost."`
}

type runnerTokenCmd struct {
	configured
	Labels []string      `required:"" help:"Labels that a runner may have, separated by commas."`
	For    time.Duration `default:"1h" help:"How long the token is good."`
	Many   bool          `help:"Let it register any number of runners; without this, one."`
	output
}

func (runnerTokenCmd) Help() string { return "Example:\n  signalbox runner token --labels linux,big" }

// Run prints a token.
func (c runnerTokenCmd) Run(ctx context.Context, p process) error {
	out, err := ask(ctx, c.Settings, p, "runner-tokens", admin.invite, invitation{c.Labels, c.For.String(), !c.Many})
	if err != nil {
		return err
	}
	return c.show(p.out, out, func(w io.Writer) { fmt.Fprintln(w, out.Token) })
}

type runnerAddCmd struct {
	configured
	Labels []string `required:"" help:"Labels that the runner may have, separated by commas."`
	Name   string   `required:"" help:"How lists call it."`
	output
}

func (runnerAddCmd) Help() string {
	return "Example:\n  signalbox runner add --labels linux --name builder-1    # for server.connections in a Forgejo runner's file"
}

// Run prints the runner's credentials, as lines of YAML.
func (c runnerAddCmd) Run(ctx context.Context, p process) error {
	out, err := ask(ctx, c.Settings, p, "runners", admin.addRunner, newRunner{c.Name, c.Labels})
	if err != nil {
		return err
	}
	return c.show(p.out, out, func(w io.Writer) { fmt.Fprintf(w, "uuid: %s\ntoken: %s\n", out.UUID, out.Token) })
}

type runnerListCmd struct {
	configured
	output
}

func (runnerListCmd) Help() string { return "Example:\n  signalbox runner list" }

// Run prints the runners.
func (c runnerListCmd) Run(ctx context.Context, p process) error {
	list, err := look(ctx, c.Settings, p, admin.runners)
	if err != nil {
		return err
	}
	return c.show(p.out, list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "no runner is registered")
			return
		}
		fmt.Fprintln(w, "UUID\tNAME\tLABELS\tVERSION\tSEEN\tTASKS")
		for _, x := range list {
			seen, tasks := "never", "-"
			if !x.Seen.IsZero() {
				seen = x.Seen.Format(time.RFC3339)
			}
			if len(x.Tasks) > 0 {
				tasks = fmt.Sprint(x.Tasks)
			}
			fmt.Fprintf(w, "%s\t%q\t%s\t%q\t%s\t%s\n", x.UUID, x.Name, strings.Join(x.Labels, ","), x.Version, seen, tasks)
		}
	})
}

type runnerRemoveCmd struct {
	configured
	UUID string `arg:"" help:"The runner's uuid, as runner list shows it."`
}

func (runnerRemoveCmd) Help() string {
	return "Example:\n  signalbox runner remove 0b0c3a52-4f0c-4f6e-9d7e-2b8c7c1b9a10"
}

// Run takes the runner out.
func (c runnerRemoveCmd) Run(ctx context.Context, p process) error {
	return tell(ctx, c.Settings, p, "runner-removals", admin.remove, removal{c.UUID})
}

// invitation asks for a registration token.
type invitation struct {
	Labels []string `json:"labels"`
	Life   string   `json:"life"` // a duration
	Once   bool     `json:"once"`
}

// made is a token, shown this once.
type made struct {
	Token string `json:"token"`
}

// newRunner asks for the credentials of a runner.
type newRunner struct {
	Name   string   `json:"name"`
	Labels []string `json:"labels"`
}

type removal struct {
	UUID string `json:"uuid"`
}

// pool is the service without its key, which administration does not need.
func (a admin) pool() (*runner.Service, error) {
	return runner.New(runner.Options{Engine: a.engine, Store: a.store, Pool: poolSubject(), Log: zap.NewNop(), Metrics: prometheus.NewRegistry()})
}

func (a admin) invite(ctx context.Context, i invitation) (made, error) {
	life, err := time.ParseDuration(i.Life)
	if err != nil || life < time.Minute || life > 30*24*time.Hour {
		return made{}, usageError{fmt.Errorf("good for %q: expected a time from 1m to 720h", i.Life)}
	}
	s, err := a.openPool()
	if err != nil {
		return made{}, err
	}
	token, err := s.Invite(ctx, i.Labels, life, i.Once)
	return made{token}, badLabels(err)
}

func (a admin) addRunner(ctx context.Context, n newRunner) (runner.Credentials, error) {
	s, err := a.openPool()
	if err != nil {
		return runner.Credentials{}, err
	}
	c, err := s.Add(ctx, n.Name, n.Labels)
	return c, badLabels(err)
}

// openPool is the pool for whoever lets runners in.
func (a admin) openPool() (*runner.Service, error) {
	if a.noJobs {
		return nil, usageError{errors.New("no trigger of this server is runner, so that it does not speak to any; expected SIGNALBOX_TRIGGER=runner")}
	}
	return a.pool()
}

func badLabels(err error) error {
	if errors.Is(err, runner.ErrLabels) {
		return usageError{err}
	}
	return err
}

func (a admin) remove(ctx context.Context, r removal) (done, error) {
	s, err := a.pool()
	if err != nil {
		return done{}, err
	}
	return done{true}, s.Remove(ctx, r.UUID)
}

func (a admin) runners(ctx context.Context) ([]runner.Listed, error) {
	s, err := a.pool()
	if err != nil {
		return nil, err
	}
	return s.List(ctx)
}
