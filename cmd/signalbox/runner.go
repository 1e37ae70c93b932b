package main

import (
	"context"
	"encoding/json"
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
			tasks, _ := json.Marshal(x.Tasks) // of numbers
			fmt.Fprintf(w, "%s\t%q\t%s\t%q\t%s\t%s\n", x.UUID, x.Name, strings.Join(x.Labels, ","), x.Version, x.Seen.Format(time.RFC3339), tasks)
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
	if a.noJobs {
		return made{}, usageError{errors.New("no trigger of this server is runner, so that none could register; expected SIGNALBOX_TRIGGER=runner")}
	}
	if len(i.Labels) == 0 {
		return made{}, usageError{errors.New("expected at least one label")}
	}
	s, err := a.pool()
	if err != nil {
		return made{}, err
	}
	token, err := s.Invite(ctx, i.Labels, life, i.Once)
	return made{token}, err
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
