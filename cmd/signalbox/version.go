package main

import (
	"cmp"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases; otherwise the module's own stands for it, or its commit.
var version string

type versionCmd struct{ output }

func (versionCmd) Help() string { return "Example:\n  signalbox version" }

// Run prints the version.
func (c versionCmd) Run(p process) error {
	return c.show(p.out, map[string]string{"version": versionText(), "go": runtime.Version()}, func(w io.Writer) {
		fmt.Fprintf(w, "signalbox %s (%s)\n", versionText(), runtime.Version())
	})
}

func versionText() string {
	text := version
	if info, ok := debug.ReadBuildInfo(); ok {
		text = cmp.Or(text, info.Main.Version)
	}
	return cmp.Or(text, "development")
}
