package main

import (
	"testing"

	"github.com/alecthomas/kong"
)

// Every flag is a setting of its key, and those that are yes or no can be said both ways.
func TestFlagsReachTheSettings(t *testing.T) {
	var cli struct {
		Serve struct {
			Settings
		} `cmd:""`
	}
	p, err := kong.New(&cli)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Parse([]string{"serve", "--dry-run", "--no-adopt", "--hold=strict", "--lock-ttl=9s", "--log-format", "gcp", "--config=a.yaml"}); err != nil {
		t.Fatal(err)
	}
	got := cli.Serve.flags()
	for key, want := range map[string]string{"dry_run": "true", "adopt": "false", "allow_ephemeral": "", "hold": "strict", "lock_ttl": "9s", "log_format": "gcp", "label": ""} {
		if got[key] != want {
			t.Errorf("%s = %q, want %q", key, got[key], want)
		}
	}
	if cli.Serve.Config != "a.yaml" {
		t.Errorf("config = %q", cli.Serve.Config)
	}
}
