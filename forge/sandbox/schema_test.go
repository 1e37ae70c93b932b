package sandbox_test

import (
	"encoding/json"
	"net/http"
	"os"
	"sync/atomic"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox/openapi"
)

// described serves the forge and holds every answer against GitHub's description of it.
type described struct {
	next, held http.Handler
	// quiet lets answers pass that a Fault may have made up.
	quiet atomic.Bool
}

func newDescribed(t *testing.T) *described {
	t.Helper()
	github, err := openapi.GitHub()
	check(t, err)
	d := &described{}
	d.held = github.Answers(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.next.ServeHTTP(w, r) }),
		func(err error) { t.Error(err) })
	return d
}

func (d *described) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if d.quiet.Load() {
		d.next.ServeHTTP(w, r)
		return
	}
	d.held.ServeHTTP(w, r)
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(name)
	check(t, err)
	check(t, json.Unmarshal(b, v))
}
