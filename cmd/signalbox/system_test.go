package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// What sealed a task opens it after every restart, and ids of one forge are never taken for those of another.
func TestStoreKeepsItsKeyAndItsForge(t *testing.T) {
	y := newYard(t, false)
	var keys [][]byte
	for range 2 {
		y.up()
		key, err := secretKey(t.Context(), y.running.app.engine, Secret{})
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		y.stop()
	}
	if len(keys[0]) != 32 || !bytes.Equal(keys[0], keys[1]) {
		t.Errorf("%d and %d bytes, which should be the same 32", len(keys[0]), len(keys[1]))
	}
	y.env = append(slices.Clone(y.env), "SIGNALBOX_GITHUB_API_URL=https://other.example.org/")
	cfg := resolve(t, Settings{}, y.env, nil)
	a, err := newApp(t.Context(), cfg, zap.NewNop(), appOptions{})
	if err == nil {
		_ = a.store.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "first used with") || !strings.Contains(err.Error(), "other.example.org") {
		t.Errorf("another forge on the same store: %v", err)
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
