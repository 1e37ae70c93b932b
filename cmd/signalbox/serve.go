package main

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"
)

type serveCmd struct {
	configured
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
	redis.SetLogger(redisLog{log})
	a, err := newApp(ctx, cfg, log, appOptions{})
	if err != nil {
		return err
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return errors.Join(fmt.Errorf("listen on %s: %w", cfg.Listen, err), a.store.Close())
	}
	return a.serve(ctx, ln)
}

// redisLog brings what the Redis client says by itself (a dial that failed) into our log.
type redisLog struct{ log *zap.Logger }

// Printf takes one line of the client's.
func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.log.Warn("redis client", zap.String("text", fmt.Sprintf(format, v...)))
}
