package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/httptrigger"
	"github.com/signalbox-ci/signalbox/prmanager"
	sweeps "github.com/signalbox-ci/signalbox/repair"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
	statusapi "github.com/signalbox-ci/signalbox/status/api"
	"github.com/signalbox-ci/signalbox/webhook"
)

// app is the whole service in one value: `serve`, `demo` and the tests run the same one.
type app struct {
	cfg      Config
	log      *zap.Logger
	store    store
	engine   *actor.Engine
	admin    admin
	handler  http.Handler
	statuses *statusapi.Service
	draining atomic.Bool
}

// appOptions are what only demo and tests choose.
type appOptions struct {
	poll      time.Duration
	trace     func(state.Subject, actor.Point)
	now       func() time.Time  // the embedded store's clock; nil = time.Now
	transport http.RoundTripper // towards forges
}

// stopWithin bounds an orderly stop: Cloud Run sends SIGKILL 10 s after SIGTERM (docs/rules.md E8).
const stopWithin = 8 * time.Second

// newApp builds the service and opens its store; nothing is handled before serve.
func newApp(ctx context.Context, cfg Config, log *zap.Logger, opt appOptions) (_ *app, err error) {
	st, locker, err := openStore(ctx, cfg.Store, cfg.LockTTL, opt.now)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, st.Close())
		}
	}()
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	engine := actor.New(st, locker, actor.Options{Poll: opt.poll, Log: log, Registerer: metrics, Trace: opt.trace})

	now := opt.now
	if now == nil {
		now = time.Now
	}
	forges, edges := map[string]connected{}, map[string]webhook.Forge{}
	for _, f := range cfg.Forges {
		c, err := dial(f, opt.transport, now)
		if err != nil {
			return nil, err
		}
		forges[f.Name], edges[f.Name] = c, c.hook
		if err := remember(ctx, engine, f); err != nil {
			return nil, err
		}
	}
	key, err := secretKey(ctx, engine, cfg.SecretKey)
	if err != nil {
		return nil, err
	}
	w := wiring{cfg: cfg, key: key, now: now, forges: forges, engine: engine, base: context.WithoutCancel(ctx)}
	if cfg.HTTPSecret.Set() {
		if w.http, err = httptrigger.New(cfg.HTTPSecret.Reveal(), cfg.HTTPPrivate); err != nil {
			return nil, fmt.Errorf("http trigger: %w", err)
		}
	}
	if cfg.runsJobs() {
		if w.runners, err = w.serveJobs(st, log, metrics); err != nil {
			return nil, fmt.Errorf("runners: %w", err)
		}
	}
	actor.Register(engine, "pr", prmanager.New(w.gate()), actor.KindOptions{MailFormat: prmanager.Format})
	actor.Register(engine, "commit", status.New(w.commits, w.dryRun), actor.KindOptions{MailFormat: status.Format, EffectTimeout: status.EffectTimeout})
	actor.Register(engine, "repo", prmanager.NewRuns(st.Record), actor.KindOptions{MailFormat: prmanager.Format})
	actor.Register(engine, "mq", prmanager.NewGroups(w.gate()), actor.KindOptions{MailFormat: prmanager.Format})

	sweep := sweeps.New(w.sweep(st))
	actor.Register(engine, sweeps.Kind, sweep, actor.KindOptions{MailFormat: sweeps.Format, Clockwork: true})
	for _, f := range cfg.Forges {
		if err := wake(ctx, engine, sweeper(f), sweep.Seed); err != nil {
			return nil, err
		}
	}
	if err := watch(ctx, cfg, engine, st, log, metrics); err != nil {
		return nil, err
	}
	edge, err := webhook.New(edges, cfg.Allowed, engine.Tell, log, metrics)
	if err != nil {
		return nil, err
	}
	a := &app{cfg: cfg, log: log, store: st, engine: engine, admin: admin{st, engine, cfg.Forges, decideWait, !cfg.runsJobs()}}
	a.statuses, err = statusapi.New(statusapi.Options{Clients: status.NewClients(engine, st, w.ours), Store: st, Secret: key, Log: log, Now: now})
	if err != nil {
		return nil, err
	}
	a.handler, err = a.routes(edge, w.runners, metrics)
	return a, err
}

// serve answers on ln, and on the embedded file's socket, until ctx ends; then it stops in order: readiness turns red,
// no new turn starts, storing goes on until the listener has shut, leases are handed back. It closes the store.
func (a *app) serve(ctx context.Context, ln net.Listener) (err error) {
	defer func() { err = errors.Join(err, a.store.Close()) }()
	public, err := webhook.NewServer(a.handler, a.log)
	if err != nil {
		return err
	}
	public.RegisterOnShutdown(a.statuses.Stop)
	servers := []*http.Server{public}
	listeners := []net.Listener{ln}
	if a.cfg.Store.Scheme == "file" {
		sock, err := listenSocket(ctx, socketPath(a.cfg.Store))
		if err != nil {
			a.log.Warn("commands cannot reach this server over its socket", zap.Error(err))
		} else {
			servers = append(servers, &http.Server{Handler: adminAPI(a.admin), ReadHeaderTimeout: 10 * time.Second})
			listeners = append(listeners, sock)
		}
	}
	ended := make(chan error, len(servers)+1)
	for i, s := range servers {
		go func() { ended <- s.Serve(listeners[i]) }()
	}
	turns, stopTurns := context.WithCancel(context.WithoutCancel(ctx))
	defer stopTurns()
	idle := make(chan error, 1)
	go func() { idle <- a.engine.Run(turns) }()

	a.log.Info("serving", zap.String("version", versionText()), zap.Stringer("address", ln.Addr()), zap.Stringer("store", a.cfg.Store))
	select {
	case <-ctx.Done():
		a.log.Info("stopping")
	case err = <-ended:
	case <-a.store.Failed():
		err = errors.New("the store can no longer be trusted to save: leaving, so that a restart finds what was saved")
	}
	a.draining.Store(true)
	stopTurns()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	for _, s := range servers {
		if e := s.Shutdown(stop); e != nil {
			err = errors.Join(err, fmt.Errorf("shut the listener: %w", e), s.Close())
		}
	}
	err = errors.Join(err, <-idle)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// listenSocket listens where only the owner of the file may connect. A socket left behind by a killed process is
// replaced: the lock on the store says that no other server runs.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("replace socket: %w", err)
	}
	var c net.ListenConfig
	ln, err := c.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), ln.Close())
	}
	return ln, nil
}
