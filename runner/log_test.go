package runner

import (
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
)

// The document that counts the rows ends with the last of them.
func TestALogGoesWithItsRows(t *testing.T) {
	s, c := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	id := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask().GetId()
	log := s.logSubject(id)
	must[int64](t)(p.rows(id, 0, true, "row"))
	for _, step := range []struct {
		pass time.Duration
		left bool
	}{{taskMemory - time.Hour, true}, {2 * time.Hour, false}} {
		c.forward(step.pass)
		if _, err := s.engine.Drain(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		n, err := s.store.Load(t.Context(), log)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.store.Record(t.Context(), log, rowsRecord(0)); (n.Doc != nil) != step.left || (err == nil) != step.left {
			t.Errorf("after %v: document %q, rows %v; want them: %v", step.pass, n.Doc, err, step.left)
		}
	}
}
