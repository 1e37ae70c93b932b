// Signalbox gates CI on pull requests: a forge sends webhooks, each pull request is one actor that handles its events
// strictly one after another, and a pull request of somebody untrusted waits for a trusted person's approval of one
// commit. This package is flags, environment and file; it builds everything and holds one file per command.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], process{os.Environ(), os.ReadFile, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// process is what a command may touch of the process it runs in.
type process struct {
	environ  []string
	readFile func(string) ([]byte, error)
	out, err io.Writer
}

// The exit codes of every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// cli is the command line.
type cli struct {
	Serve     serveCmd     `cmd:"" help:"Run the service."`
	Demo      demoCmd      `cmd:"" help:"Watch the main job with nothing installed: a sandbox forge, a recorded life, every decision explained."`
	Check     checkCmd     `cmd:"" help:"Say what is wrong with the configuration and with what it depends on, and how to mend it."`
	Explain   explainCmd   `cmd:"" help:"Tell a pull request's story and what it waits for."`
	Approve   approveCmd   `cmd:"" help:"Break glass: approve one commit of a pull request. Audited."`
	Revoke    revokeCmd    `cmd:"" help:"Break glass: take back the approval of a pull request. Audited."`
	Replay    replayCmd    `cmd:"" help:"Say what would have been decided on recorded deliveries, offline."`
	Reconcile reconcileCmd `cmd:"" help:"Compare with the forge: one pull request, a repository, or all."`
	Redeliver redeliverCmd `cmd:"" help:"Ask the forge for the deliveries that never arrived."`
	Jobs      jobsCmd      `cmd:"" help:"List, retry or discard dead letters and stuck work."`
	Runner    runnerCmd    `cmd:"" help:"Registration of CI runners."`
	Status    statusCmd    `cmd:"" help:"Tokens with which CI systems post statuses."`
	Version   versionCmd   `cmd:"" help:"Print the version."`
}

// usageError is a mistake in how a command was called: exit code 2.
type usageError struct{ error }

func run(ctx context.Context, args []string, p process) int {
	var c cli
	exited, code := false, 0
	parser, err := kong.New(&c, kong.Name("signalbox"),
		kong.Description("Gates CI on pull requests: one actor per pull request, one approval per commit."),
		kong.UsageOnError(), kong.Writers(p.out, p.err), kong.Exit(func(c int) { exited, code = true, c }),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(p))
	if err != nil {
		fmt.Fprintln(p.err, "signalbox:", err)
		return exitFailed
	}
	k, err := parser.Parse(args)
	if exited {
		return code
	}
	if err != nil {
		fmt.Fprintf(p.err, "signalbox: %v\nRun signalbox --help for the commands.\n", err)
		return exitUsage
	}
	err = k.Run()
	var problems Problems
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &problems):
		fmt.Fprintf(p.err, "signalbox: the configuration is refused:\n%v\n", problems)
		return exitUsage
	case errors.As(err, &usage):
		fmt.Fprintln(p.err, "signalbox:", usage.Error())
		return exitUsage
	}
	fmt.Fprintln(p.err, "signalbox:", err)
	return exitFailed
}
