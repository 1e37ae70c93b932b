package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// What R12 wants counted is counted, and docs/operating.md tells operators what to make of it.
func TestMetrics(t *testing.T) {
	at := &clock{}
	st, err := embedded.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), embedded.Options{Now: at.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	metrics := prometheus.NewRegistry()
	e := actor.New(st, lock.NewLocal(15*time.Second), actor.Options{Registerer: metrics})
	actor.Register(e, Kind, NewBehaviour(st.Record), actor.KindOptions{MailFormat: Format})
	service, err := New(Options{Engine: e, Store: st, Pool: Subject("test", "default"), Key: []byte("a key of the test"), Log: zap.NewNop(), Metrics: metrics})
	if err != nil {
		t.Fatal(err)
	}
	c := calls{service}
	p := &peer{t: t, uuid: uuid.NewString(), token: "secret"}
	ask := func(f func(x *turn)) {
		t.Helper()
		if err := service.ask(t.Context(), func(x *turn) error { f(x); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	ask(func(x *turn) {
		x.changed = true
		x.p.Runners = map[string]Runner{p.uuid: {ID: 1, Name: "a", TokenHash: hashed(p.token), Allowed: []string{"linux"}, Labels: []string{"linux"}}}
	})
	fetch := func(key string) int64 {
		t.Helper()
		r := request(&crowd{peer: p}, &runnerv1.FetchTaskRequest{})
		r.Header().Set(keyHeader, key)
		got, err := c.FetchTask(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return got.Msg.GetTask().GetId()
	}
	says := func(task int64, is runnerv1.Result) {
		t.Helper()
		if _, err := c.UpdateTask(t.Context(), request(&crowd{peer: p}, &runnerv1.UpdateTaskRequest{State: &runnerv1.TaskState{Id: task, Result: is}})); err != nil {
			t.Fatal(err)
		}
	}
	if err := service.want(t.Context(), order("r", spec("one", false), spec("two", false))); err != nil {
		t.Fatal(err)
	}
	key := uuid.NewString()
	first := fetch(key)
	if again := fetch(key); again != first {
		t.Fatalf("tasks %d and %d", first, again)
	}
	says(first, runnerv1.Result_RESULT_SUCCESS) // and no verdict
	if spent := fetch(key); spent != 0 {
		t.Fatalf("task %d for a key that is spent", spent)
	}
	fetch("")
	at.forward(AcceptTTL)
	ask(func(x *turn) { x.elapse() })
	says(fetch(""), runnerv1.Result_RESULT_UNSPECIFIED)
	at.forward(HeartbeatTTL)
	ask(func(x *turn) { x.elapse() })

	told, err := os.ReadFile("../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	all, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counted := map[string]float64{}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			word := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() != "kind" {
					word = l.GetValue()
				}
			}
			counted[word] += m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for word, want := range map[string]float64{
		"replayed": 1, "spent": 1, "signalbox_runner_accept_seconds": 2, whyExpired: 1, whyLost: 1, whyNoVerdict: 1, whyKeyless: 2,
	} {
		if counted[word] != want {
			t.Errorf("%s is counted %v times, want %v", word, counted[word], want)
		}
		if !strings.Contains(string(told), "`"+word+"`") {
			t.Errorf("docs/operating.md does not tell of %s", word)
		}
	}
}
