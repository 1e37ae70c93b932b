package main

import (
	"context"
	"fmt"
	"net"
)

type serveCmd struct {
	Settings `embed:""`
}

func (serveCmd) Help() string {
	return `Example:
  SIGNALBOX_GITHUB_TOKEN=… SIGNALBOX_GITHUB_WEBHOOK_SECRET=… SIGNALBOX_TRIGGER=workflow:presubmit.yml@signalbox-presubmit signalbox serve`
}

// Run serves until SIGTERM or SIGINT.
func (c serveCmd) Run(ctx context.Context, p process) error {
	cfg, err := c.Resolve(p.environ, p.readFile)
	if err != nil {
		return err
	}
	log, err := newLog(p.err, cfg.LogLevel, cfg.LogFormat)
	if err != nil {
		return err
	}
	a, err := newApp(ctx, cfg, log, appOptions{})
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", cfg.Listen, err)
	}
	return a.serve(ctx, ln)
}
