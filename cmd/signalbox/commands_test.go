package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func TestReconcileCommand(t *testing.T) {
	for name, app := range map[string]bool{"token": false, "App": true} {
		t.Run(name, func(t *testing.T) {
			y := newYard(t, app)
			y.up()
			y.send()
			y.pass(time.Minute, 20*time.Second)
			known := y.repo.OpenPR(y.maya, sandbox.PROptions{})
			y.send()
			y.settle()
			unknown := y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true})
			_ = unknown
			for _, d := range y.forge.Due() {
				if err := y.sender.Drop(d.GUID); err != nil {
					t.Fatal(err)
				}
			}
			known.Close(y.maya)
			for _, d := range y.forge.Due() {
				if err := y.sender.Drop(d.GUID); err != nil {
					t.Fatal(err)
				}
			}

			code, out, errs := y.command("reconcile", y.ref(known))
			if code != exitOK || !strings.Contains(out, "Closed") || errs != "" {
				t.Errorf("one: %d %q %q", code, out, errs)
			}
			code, _, errs = y.command("reconcile", y.ref(unknown))
			if code != exitFailed || !strings.Contains(errs, "signalbox reconcile github:octo/hello finds it") {
				t.Errorf("unknown: %d %q", code, errs)
			}
			y.later(time.Hour)
			code, out, errs = y.command("reconcile", "github:octo/hello")
			if code != exitOK || !strings.HasPrefix(out, "github:octo/hello: being compared") {
				t.Errorf("repository: %d %q %q", code, out, errs)
			}
			y.pass(20*time.Second, 2*time.Second)
			if y.repo.Gate(unknown.Head(), "CI gate") == "" {
				t.Error("the unknown one has no gate after its repository was compared")
			}
			code, out, _ = y.command("reconcile", "--output", "json")
			var list []ordered
			if err := json.Unmarshal([]byte(out), &list); code != exitOK || err != nil || len(list) != 1 || list[0].Ref != "github" || !list[0].Decided {
				t.Errorf("everything: %d %q", code, out)
			}
		})
	}
}

func TestRedeliverCommand(t *testing.T) {
	y := newYard(t, true)
	pr := y.repo.OpenPR(y.maya, sandbox.PROptions{})
	for _, d := range y.forge.Due() { // before there was a server
		if err := y.forge.NewSender("http://127.0.0.1:1/webhooks/github").Drop(d.GUID); err != nil {
			t.Fatal(err)
		}
	}
	y.later(time.Minute)
	y.up()
	y.pass(5*time.Minute, 30*time.Second)
	y.send()
	if y.triggers(pr) != 0 {
		t.Fatal("asked for by itself what failed before the first contact")
	}
	code, out, errs := y.command("redeliver")
	if code != exitOK || !strings.Contains(out, "github: ") || !strings.Contains(out, "asked for again") || errs != "" {
		t.Errorf("%d %q %q", code, out, errs)
	}
	y.pass(5*time.Second, time.Second)
	y.send()
	y.settle()
	if n := y.triggers(pr); n != 1 {
		t.Errorf("triggered %d times", n)
	}
}

func TestRepairCommandsWithoutAServer(t *testing.T) {
	y := newYard(t, false)
	y.up()
	y.stop()
	for _, args := range [][]string{{"redeliver"}, {"reconcile"}, {"reconcile", "github:octo/hello"}} {
		var o, e strings.Builder
		if code := run(t.Context(), args, process{y.env, y.read, &o, &e}); code != exitOK || !strings.Contains(o.String(), "as soon as a server runs") {
			t.Errorf("%v: %d %q %q", args, code, o.String(), e.String())
		}
	}
	y.up()
	y.settle()
	d, err := actor.See(t.Context(), y.running.app.store, sweeper(y.running.app.cfg.Forges[0]))
	if err != nil || d.Unread != 0 || len(d.Dead) != 0 {
		t.Errorf("%+v %v", d, err)
	}
}

func TestRepairCommandsWrongUse(t *testing.T) {
	y := newYard(t, false)
	y.up()
	for _, c := range []struct {
		code int
		says string
		args []string
	}{
		{exitUsage, "expected INSTANCE:OWNER/REPO", []string{"reconcile", "octo/hello"}},
		{exitUsage, "expected INSTANCE:OWNER/REPO", []string{"reconcile", "github:octo/hello#x"}},
		{exitUsage, "", []string{"reconcile", "--output", "yaml"}},
		{exitUsage, "", []string{"redeliver", "github"}},
		{exitFailed, "no such forge is configured", []string{"reconcile", "gitlab:octo/hello"}},
		{exitFailed, "shows us no such repository", []string{"reconcile", "github:octo/helo"}},
		{exitUsage, "no trigger of this server is runner", []string{"runner", "token", "--labels", "linux"}},
		{exitUsage, "no trigger of this server is runner", []string{"runner", "add", "--labels", "linux", "--name", "one"}},
	} {
		if code, _, errs := y.command(c.args...); code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%v: %d %q", c.args, code, errs)
		}
	}
}

// Each command shows an example, and what is its own before the configuration that all share.
func TestHelp(t *testing.T) {
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	for _, leaf := range parser.Model.Leaves(false) {
		var out, errs strings.Builder
		code := run(t.Context(), append(strings.Fields(leaf.Path()), "--help"), process{out: &out, err: &errs})
		own, shared, _ := strings.Cut(out.String(), "--config=")
		if code != exitOK || !strings.Contains(own, "Example:") || !strings.Contains(own, leaf.Path()) || strings.Contains(shared, "--output") {
			t.Errorf("%s --help: %d\n%s%s", leaf.Path(), code, out.String(), errs.String())
		}
	}
}

func TestNoStoreToLookInto(t *testing.T) {
	var out, errs strings.Builder
	code := run(t.Context(), []string{"jobs"}, process{environ: []string{"SIGNALBOX_STORE=file:" + t.TempDir() + "/elsewhere.db"}, out: &out, err: &errs})
	if code != exitFailed || !strings.Contains(errs.String(), "elsewhere.db: there is none: set SIGNALBOX_STORE") {
		t.Errorf("%d %s%s", code, out.String(), errs.String())
	}
}

func TestInternalSweep(t *testing.T) {
	y := newYard(t, true)
	y.up()
	y.send()
	pr := y.repo.OpenPR(y.maya, sandbox.PROptions{})
	y.send()
	for _, token := range []string{"", "wrong"} {
		if code, _ := y.post(sweepPath, token); code != http.StatusUnauthorized {
			t.Errorf("token %q: %d", token, code)
		}
	}
	code, body := y.post(sweepPath, "yard-admin-token")
	var out actor.Drained
	if err := json.Unmarshal([]byte(body), &out); code != http.StatusOK || err != nil || !out.Idle {
		t.Errorf("%d %s", code, body)
	}
	if n := y.triggers(pr); n != 1 {
		t.Errorf("triggered %d times when the request was answered", n)
	}
	y.stop()

	y.env = slices.DeleteFunc(y.env, func(v string) bool { return strings.HasPrefix(v, "SIGNALBOX_ADMIN_TOKEN=") })
	y.up()
	if code, body := y.post(sweepPath, "yard-admin-token"); code != http.StatusNotFound || !strings.Contains(body, "admin_off") {
		t.Errorf("without a token: %d %s", code, body)
	}
}

// Of two pull requests, the number of one begins with the other's.
func TestPullRequestIsNamedInFull(t *testing.T) {
	y := newYard(t, false)
	y.up()
	y.send()
	for range 9 { // never heard of
		y.repo.OpenPR(y.maya, sandbox.PROptions{})
		for _, d := range y.forge.Due() {
			if err := y.sender.Drop(d.GUID); err != nil {
				t.Fatal(err)
			}
		}
	}
	pr := y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true})
	y.send()
	y.settle()
	if code, _, errs := y.command("explain", y.ref(pr)); code != exitOK {
		t.Errorf("%s: %d %s", y.ref(pr), code, errs)
	}
	if code, out, errs := y.command("explain", strings.TrimSuffix(y.ref(pr), "0")); code != exitFailed || !strings.Contains(errs, "no such pull request is known here") {
		t.Errorf("the one before it: %d %s%s", code, out, errs)
	}
}
