package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The second act without a runner says how to get one, before anything is begun. With one, e2e shows it.
func TestDemoWithoutRunner(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for args, want := range map[string]string{
		"--runner":                     "no runner is on PATH (looked for gitea-runner, act_runner, forgejo-runner): download one from https://",
		"--runner-bin /none/such":      "--runner-bin: ",
		"--runner --runner-bin README": "--runner-bin: ",
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"demo", "--exit"}, strings.Fields(args)...), process{os.Environ(), os.ReadFile, &out, &errs})
		if code != exitFailed || !strings.Contains(errs.String(), want) || out.Len() > 0 {
			t.Errorf("%s: %d %q %q", args, code, errs.String(), out.String())
		}
	}
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	bin := filepath.Join(dir, "act_runner")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := findRunner(""); err != nil || got != bin {
		t.Errorf("%q, %v", got, err)
	}
}

// A runner that does nothing is no reason to say that all is well.
func TestDemoWithAnIdleRunner(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "idle")
	if err := os.WriteFile(bin, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := run(t.Context(), []string{"demo", "--exit", "--runner-bin", bin}, process{os.Environ(), os.ReadFile, &out, &errs})
	if code != exitFailed || !strings.Contains(out.String(), "FAIL the job ends within 2m0s, and its runner not before it") || strings.Contains(out.String(), "Every expectation held") {
		t.Errorf("%d %s\n%s", code, errs.String(), out.String())
	}
}
