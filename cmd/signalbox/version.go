package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for releases; otherwise the module's own version or commit stands for it.
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
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	text := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && (text == "" || text == "(devel)") {
			text = s.Value[:min(12, len(s.Value))]
		}
	}
	if text == "" {
		return "development"
	}
	return text
}
