// Package redistest starts real Redis servers for tests: one alone, a cluster of three, or a master with a replica
// and three sentinels. A server lives on a free port of 127.0.0.1 with its data in the test's own directory, and ends
// with the test, or with the test's process if that dies first. Where the programs are missing a test fails with a
// sentence on how to install them; it is never skipped.
package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// patience bounds every wait for a server. It is only reached when something is broken.
const patience = 30 * time.Second

// Options says how a server differs from a bare one: no limit on memory, nothing kept on disk.
type Options struct {
	MaxMemory   string // as in redis.conf, for example "8mb"; empty = no limit
	Policy      string // maxmemory-policy; empty = noeviction
	AppendFsync string // "always", "everysec" or "no" turns the append-only file on; empty = off
	Port        int    // 0 = a free one
	Dir         string // where data and log are; empty = a new directory of the test
	Args        []string
}

// Server is one redis-server, or a sentinel. Its methods fail the test when the process does not do as asked.
// They are not for concurrent use.
type Server struct {
	Port int
	Dir  string

	tb   testing.TB
	path string
	args []string
	cmd  *exec.Cmd
	gone chan struct{} // closed when cmd has been reaped
}

// Start runs a server and answers when it takes commands.
func Start(tb testing.TB, o Options) *Server {
	tb.Helper()
	args := []string{
		"--bind", "127.0.0.1", "--protected-mode", "no", "--daemonize", "no", "--save", "",
		"--maxmemory", or(o.MaxMemory, "0"), "--maxmemory-policy", or(o.Policy, "noeviction"),
	}
	if o.AppendFsync != "" {
		args = append(args, "--appendonly", "yes", "--appendfsync", o.AppendFsync)
	}
	return launch(tb, "redis-server", o.Port, o.Dir, func(port int, dir string) []string {
		return append(append([]string{"--port", strconv.Itoa(port), "--dir", dir}, args...), o.Args...)
	})
}

// launch tries a few ports: one found free may be taken before the server listens on it.
func launch(tb testing.TB, program string, port int, dir string, args func(port int, dir string) []string) *Server {
	tb.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		tb.Fatalf("this test needs a real %s: install Redis 7 or newer (Debian: apt-get install redis-server redis-sentinel; macOS: brew install redis) and have it on PATH", program)
	}
	if dir == "" {
		dir = tb.TempDir()
	}
	s := &Server{tb: tb, path: path, Dir: dir}
	// Registered after TempDir, so that the process has ended before its directory is removed.
	tb.Cleanup(s.kill)
	tries := 5
	if port != 0 {
		tries = 1
	}
	for range tries {
		if s.Port = port; port == 0 {
			s.Port = FreePort(tb)
		}
		s.args = args(s.Port, dir)
		if err = s.run(); err == nil {
			return s
		}
		s.kill()
	}
	tb.Fatalf("start %s: %v\n%s", program, err, s.Log())
	return nil
}

func (s *Server) run() error {
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	// Not ended by the test's context: what a test cleans up may still need the server.
	cmd := exec.CommandContext(context.WithoutCancel(s.tb.Context()), s.path, s.args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = s.Dir, log, log, dieWithParent()
	if err := cmd.Start(); err != nil {
		return err
	}
	gone := make(chan struct{})
	s.cmd, s.gone = cmd, gone
	go func() { // joined by kill, which every server ends in
		defer close(gone)
		_ = cmd.Wait() // killed is how they all end
	}()
	return s.ready()
}

// ready waits until the server answers and has loaded its data.
func (s *Server) ready() error {
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1, DialerRetries: 1})
	defer c.Close() //nolint:errcheck // nothing was written
	ctx, cancel := context.WithTimeout(s.tb.Context(), patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		// The process id is compared, since a port that was just freed may be answered by somebody else's server.
		info, err := c.Info(ctx, "server").Result()
		if err == nil && strings.Contains(info, fmt.Sprintf("process_id:%d\r", s.cmd.Process.Pid)) && c.Ping(ctx).Err() == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-s.gone:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		}
	}
}

// Addr is host:port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port)) }

// URL is the server's redis:// URL.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Client is a new client of this server with ContextTimeoutEnabled, closed with the test.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), ContextTimeoutEnabled: true, DialerRetries: 1})
	s.tb.Cleanup(func() { _ = c.Close() })
	return c
}

// Log is what the server has written to its log, for a failing test to show.
func (s *Server) Log() string {
	b, err := os.ReadFile(filepath.Join(s.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Kill ends the process with SIGKILL and returns when it is gone.
func (s *Server) Kill() { s.tb.Helper(); s.kill() }

func (s *Server) kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.gone
	s.cmd = nil
}

// Restart starts the killed server again, same port and same data.
func (s *Server) Restart() {
	s.tb.Helper()
	s.kill()
	if err := s.run(); err != nil {
		s.tb.Fatalf("restart %s: %v\n%s", s.path, err, s.Log())
	}
}

// Stop freezes the process with SIGSTOP: connections stand, nothing is answered.
func (s *Server) Stop() { s.tb.Helper(); s.signal(syscall.SIGSTOP) }

// Cont lets a frozen process go on; what was sent meanwhile is then executed.
func (s *Server) Cont() { s.tb.Helper(); s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.tb.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.tb.Fatalf("%v to %s: %v", sig, s.path, err)
	}
}

// FreePort is a TCP port of 127.0.0.1 on which nobody listened a moment ago.
func FreePort(tb testing.TB) int {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatalf("find a free port: %v", err)
	}
	defer l.Close() //nolint:errcheck // it was never used
	return l.Addr().(*net.TCPAddr).Port
}

// Until polls ok until it holds and fails the test if it never does.
func Until(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(patience)
	defer end.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			tb.Fatalf("never came true: %s", what)
		}
	}
}

func or(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}
