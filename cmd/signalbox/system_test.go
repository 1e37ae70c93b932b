package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
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
