package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	pingv1 "code.gitea.io/actions-proto-go/ping/v1"
	"code.gitea.io/actions-proto-go/ping/v1/pingv1connect"
	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"code.gitea.io/actions-proto-go/runner/v1/runnerv1connect"
	"connectrpc.com/connect"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"gopkg.in/yaml.v3"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// patience bounds every wait; it is only reached when something is broken.
const patience = 60 * time.Second

// network is one connection pool for all runners.
var network = &http.Client{Timeout: patience}

// ear is a pull request as far as this package knows it: it writes down what it is told.
type ear struct{}

type heard struct {
	Reports []prmanager.Report `json:"reports"`
}

func (ear) Look(context.Context, state.Subject, heard, actor.Inputs, time.Time) struct{} {
	return struct{}{}
}

func (ear) Decide(_ state.Subject, d heard, _ struct{}, in actor.Inputs, _ time.Time) actor.Step[heard] {
	for _, m := range in.Mail {
		d.Reports = append(d.Reports, decoded[prmanager.Report](m.Body))
	}
	return actor.Step[heard]{Next: d}
}

func (ear) Do(context.Context, state.Subject, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
	return actor.Outcome{Code: actor.Done}
}

// server is one process's worth: engine, service, listener.
type server struct {
	*Service
	url    string
	engine *actor.Engine
	store  interface {
		Store
		actor.Store
	}
}

type anyStore interface {
	actor.Store
	Store
}

func serve(t testing.TB, st anyStore, l lock.Locker) *server {
	t.Helper()
	e := actor.New(st, l, actor.Options{})
	actor.Register(e, Kind, NewBehaviour(st.Record), actor.KindOptions{MailFormat: Format, Recall: true})
	actor.Register(e, "pr", ear{}, actor.KindOptions{MailFormat: prmanager.Format})
	s, err := New(Options{
		Engine: e, Store: st, Pool: Subject("test", "default"), Key: []byte("a key of the test"), URL: "https://ci.example.org/",
		Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(s.Handler())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		web.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &server{s, web.URL + "/api/actions", e, st}
}

// clock can be put forward.
type clock struct {
	mu sync.Mutex
	by time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.by)
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.by += d
}

func alone(t testing.TB) (*server, *clock) {
	t.Helper()
	c := &clock{}
	st, err := embedded.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), embedded.Options{Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return serve(t, st, lock.NewLocal(15*time.Second)), c
}

// peer is a runner as the server meets it.
type peer struct {
	runnerv1connect.RunnerServiceClient
	t           testing.TB
	uuid, token string
}

func (p *peer) with(key string) connect.ClientOption {
	return connect.WithInterceptors(connect.UnaryInterceptorFunc(func(next connect.UnaryFunc) connect.UnaryFunc {
		return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
			r.Header().Set(uuidHeader, p.uuid)
			r.Header().Set(tokenHeader, p.token)
			if key != "" {
				r.Header().Set(keyHeader, key)
			}
			return next(ctx, r)
		}
	}))
}

func register(t testing.TB, s *server, labels ...string) *peer {
	t.Helper()
	token, err := s.Invite(t.Context(), labels, time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	r, err := runnerv1connect.NewRunnerServiceClient(network, s.url).
		Register(t.Context(), connect.NewRequest(&runnerv1.RegisterRequest{Name: "fake", Token: token, Labels: labels, Version: "v0"}))
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, uuid: r.Msg.GetRunner().GetUuid(), token: r.Msg.GetRunner().GetToken()}
	p.RunnerServiceClient = runnerv1connect.NewRunnerServiceClient(network, s.url, p.with(""))
	return p
}

// keyed is FetchTask with a request key.
func (p *peer) keyed(s *server, key string) (*runnerv1.FetchTaskResponse, error) {
	r, err := runnerv1connect.NewRunnerServiceClient(network, s.url, p.with(key)).
		FetchTask(p.t.Context(), connect.NewRequest(&runnerv1.FetchTaskRequest{}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (p *peer) update(id int64, is runnerv1.Result, outputs map[string]string) (*runnerv1.UpdateTaskResponse, error) {
	r, err := p.UpdateTask(p.t.Context(), connect.NewRequest(&runnerv1.UpdateTaskRequest{State: &runnerv1.TaskState{Id: id, Result: is}, Outputs: outputs}))
	if err != nil {
		return nil, err
	}
	return r.Msg, nil
}

func (p *peer) rows(id, index int64, seal bool, text ...string) (int64, error) {
	var rows []*runnerv1.LogRow
	for _, s := range text {
		rows = append(rows, &runnerv1.LogRow{Time: timestamppb.New(time.Unix(0, 0)), Content: s})
	}
	r, err := p.UpdateLog(p.t.Context(), connect.NewRequest(&runnerv1.UpdateLogRequest{TaskId: id, Index: index, Rows: rows, NoMore: seal}))
	if err != nil {
		return 0, err
	}
	return r.Msg.GetAckIndex(), nil
}

// verdictOf is what the last step of a payload would hand back.
func verdictOf(task *runnerv1.Task) map[string]string {
	var w workflow
	if err := yaml.Unmarshal(task.GetWorkflowPayload(), &w); err != nil {
		panic(err)
	}
	steps := w.Jobs[jobID].Steps
	return map[string]string{"verdict": steps[len(steps)-1].Env["SIGNALBOX_VERDICT"]}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// reports waits until the pull request has been told that a run is over, and answers all it was told.
func reports(t testing.TB, s *server, r forge.Run) (out []prmanager.Report) {
	t.Helper()
	redistest.Until(t, "run "+r.Key+" is over", func() bool {
		v, err := actor.See(t.Context(), s.store, prmanager.Subject(r.Ref))
		if err != nil {
			t.Fatal(err)
		}
		out = nil
		over := false
		if len(v.Doc) > 0 {
			for _, x := range decoded[heard](v.Doc).Reports {
				if x.Key == r.Key {
					out = append(out, x)
					over = over || x.State.Completed()
				}
			}
		}
		return over
	})
	return out
}

func TestOneJobFromWishToVerdict(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	key := uuid.NewString()
	first := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, key))
	again := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, key))
	if first.GetTask() == nil || first.GetTasksVersion() < 1 || again.GetTasksVersion() != 0 {
		t.Fatalf("first %v, again %v", first, again)
	}
	a, _ := proto.MarshalOptions{Deterministic: true}.Marshal(first.GetTask())
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(again.GetTask())
	if string(a) != string(b) {
		t.Fatal("the replay differs")
	}
	id := first.GetTask().GetId()
	if ack := must[int64](t)(p.rows(id, 0, false, "one", "two")); ack != 2 {
		t.Fatalf("ack %d", ack)
	}
	if ack := must[int64](t)(p.rows(id, 5, false, "gap")); ack != 2 {
		t.Fatalf("ack %d after a gap", ack)
	}
	if ack := must[int64](t)(p.rows(id, 1, false, "two", "three")); ack != 3 {
		t.Fatalf("ack %d after an overlap", ack)
	}
	for range 2 { // sealed twice
		if ack := must[int64](t)(p.rows(id, 3, true)); ack != 3 {
			t.Fatalf("ack %d", ack)
		}
	}
	if ack := must[int64](t)(p.rows(id, 3, true, "late")); ack != 4 {
		t.Fatalf("rows after the seal must be taken off the runner, ack %d", ack)
	}
	u := must[*runnerv1.UpdateTaskResponse](t)(p.update(id, runnerv1.Result_RESULT_SUCCESS, verdictOf(first.GetTask())))
	if u.GetState().GetResult() != runnerv1.Result_RESULT_SUCCESS || !slices.Equal(u.GetSentOutputs(), []string{"verdict"}) {
		t.Fatalf("end: %v", u)
	}
	if after := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, key)); after.GetTask() != nil || after.GetTasksVersion() == 0 {
		t.Fatalf("the spent key gets %v", after)
	}
	got := reports(t, s, run("r"))
	if end := got[len(got)-1]; got[0].State != forge.CheckQueued || end.State != forge.CheckSuccess || len(end.Jobs) != 1 || end.Jobs[0].Name != "unit" {
		t.Fatalf("told %+v", got)
	}
	var text strings.Builder
	_, more, err := s.WriteLog(t.Context(), &text, id, 0)
	if want := "1970-01-01T00:00:00.000Z one\n1970-01-01T00:00:00.000Z two\n1970-01-01T00:00:00.000Z three\n"; err != nil || more || text.String() != want {
		t.Fatalf("log %q, more %v, %v", text.String(), more, err)
	}
	v, err := s.became(t.Context(), "r")
	if err != nil || !v.Known || v.Result != Success || len(v.Logs) != 1 || v.Logs[0].Task != id || !slices.Equal(v.Told, got[len(got)-1].Jobs) {
		t.Fatalf("run %+v, %v", v, err)
	}
}

// Runners of Forgejo tell how many tasks they could take. Each call gets one all the same, whatever it says.
func TestCapacityChangesNothing(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r", spec("one", false), spec("two", false))); err != nil {
		t.Fatal(err)
	}
	ask := &runnerv1.FetchTaskRequest{}
	ask.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 2, protowire.VarintType), 5)) // task_capacity
	got := must[*connect.Response[runnerv1.FetchTaskResponse]](t)(p.FetchTask(t.Context(), connect.NewRequest(ask))).Msg
	if got.GetTask() == nil || len(got.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("answered %v", got)
	}
	if p := must[Pool](t)(s.see(t.Context())); len(p.Tasks) != 1 {
		t.Errorf("%d tasks are lent", len(p.Tasks))
	}
}

// Two identical calls at once, on two servers, get one task.
func TestIdenticalCallsAtOnce(t *testing.T) {
	servers := several(t, 2)
	p := register(t, servers[0], "linux")
	for i := range 30 {
		for _, n := range []string{"a", "b"} {
			if err := servers[0].want(t.Context(), order(fmt.Sprint("r", i, n))); err != nil {
				t.Fatal(err)
			}
		}
		key := uuid.NewString()
		var wg sync.WaitGroup
		ids := make([]int64, 4)
		for n := range ids {
			wg.Go(func() {
				r, err := p.keyed(servers[n%2], key)
				if err != nil {
					t.Error(err)
					return
				}
				ids[n] = r.GetTask().GetId()
			})
		}
		wg.Wait()
		if ids[0] == 0 || slices.Max(ids) != slices.Min(ids) {
			t.Fatalf("one key, tasks %v", ids)
		}
	}
}

// The server dies between the commit and its answer; another goes on with what was saved.
func TestRestartBetweenCommitAndAnswer(t *testing.T) {
	servers := several(t, 2)
	p := register(t, servers[0], "linux")
	if err := servers[0].want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	key := uuid.NewString()
	lost := must[*runnerv1.FetchTaskResponse](t)(p.keyed(servers[0], key)) // the runner never sees it
	got := must[*runnerv1.FetchTaskResponse](t)(p.keyed(servers[1], key))
	if got.GetTask().GetId() != lost.GetTask().GetId() || string(got.GetTask().GetWorkflowPayload()) != string(lost.GetTask().GetWorkflowPayload()) {
		t.Fatal("not the same task")
	}
}

func TestLeasesRunOut(t *testing.T) {
	s, c := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	first := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")) // no key, and the answer is lost
	c.forward(61 * time.Second)
	var second *runnerv1.FetchTaskResponse
	redistest.Until(t, "the task is lent again", func() bool {
		second = must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, ""))
		return second.GetTask() != nil
	})
	if u := must[*runnerv1.UpdateTaskResponse](t)(p.update(first.GetTask().GetId(), 0, nil)); u.GetState().GetResult() != runnerv1.Result_RESULT_CANCELLED {
		t.Fatalf("the expired task is told %v", u)
	}
	must[*runnerv1.UpdateTaskResponse](t)(p.update(second.GetTask().GetId(), 0, nil))
	c.forward(HeartbeatTTL + time.Second)
	if got := reports(t, s, run("r")); got[len(got)-1].State != forge.CheckFailure {
		t.Fatalf("told %+v", got)
	}
}

func TestBadInput(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	other := register(t, s, "linux")
	stranger := &peer{t: t, uuid: uuid.NewString(), token: "x"}
	stranger.RunnerServiceClient = runnerv1connect.NewRunnerServiceClient(network, s.url, stranger.with(""))
	thief := &peer{t: t, uuid: p.uuid, token: other.token}
	thief.RunnerServiceClient = runnerv1connect.NewRunnerServiceClient(network, s.url, thief.with(""))
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	code := func(_ any, err error) connect.Code { return connect.CodeOf(err) }
	for _, who := range []*peer{stranger, thief} {
		for name, got := range map[string]connect.Code{
			"FetchTask":  code(who.keyed(s, "")),
			"UpdateTask": code(who.update(1, 0, nil)),
			"UpdateLog":  code(who.rows(1, 0, false, "x")),
			"Declare":    code(who.Declare(t.Context(), connect.NewRequest(&runnerv1.DeclareRequest{}))),
		} {
			if got != connect.CodeUnauthenticated {
				t.Errorf("%s of a stranger: %v", name, got)
			}
		}
	}
	if got := code(p.Register(t.Context(), connect.NewRequest(&runnerv1.RegisterRequest{Token: "no", Labels: []string{"linux"}}))); got != connect.CodeInvalidArgument {
		t.Errorf("bad registration token: %v", got)
	}
	for _, key := range []string{"no uuid", strings.Repeat("a", 5000), uuid.NewString() + strings.Repeat(" ", 60)} {
		h := http.Header{}
		h.Set(keyHeader, key)
		if got := requestKey(h); got != "" {
			t.Errorf("key %.40q counts as %q", key, got)
		}
	}
	task := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "no uuid")).GetTask()
	if got := code(other.update(task.GetId(), runnerv1.Result_RESULT_SUCCESS, verdictOf(task))); got != connect.CodeNotFound {
		t.Errorf("another's task: %v", got)
	}
	if got := code(other.rows(task.GetId(), 0, false, "x")); got != connect.CodeNotFound {
		t.Errorf("another's log: %v", got)
	}
	if got := code(p.update(4711, 0, nil)); got != connect.CodeNotFound {
		t.Errorf("no task: %v", got)
	}
	if u := must[*runnerv1.UpdateTaskResponse](t)(p.update(task.GetId(), runnerv1.Result_RESULT_SKIPPED, verdictOf(task))); u.GetState().GetResult() != runnerv1.Result_RESULT_FAILURE {
		t.Errorf("skipped became %v", u)
	}
	if got := code(other.update(task.GetId(), 0, nil)); got != connect.CodeNotFound {
		t.Errorf("another's task that has ended: %v", got)
	}
	if got := code(other.rows(task.GetId(), 0, false, "x")); got != connect.CodeNotFound {
		t.Errorf("another's log that has ended: %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), lateFetch/2)
	defer cancel()
	if err := s.want(t.Context(), order("r2")); err != nil {
		t.Fatal(err)
	}
	if r, err := p.FetchTask(ctx, connect.NewRequest(&runnerv1.FetchTaskRequest{})); err == nil && r.Msg.GetTask() != nil {
		t.Error("a task is assigned to a caller that is about to leave")
	}
	if p, err := s.see(t.Context()); err != nil || len(p.Tasks) != 0 {
		t.Errorf("tasks %v, %v", p.Tasks, err)
	}
	res, err := network.Post(s.url+"/runner.v1.RunnerService/FetchSingleTask", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); !strings.Contains(string(body), `"unimplemented"`) {
		t.Errorf("unknown call: %d %s", res.StatusCode, body)
	}
	pong, err := pingv1connect.NewPingServiceClient(network, s.url).Ping(t.Context(), connect.NewRequest(&pingv1.PingRequest{Data: "x"}))
	if err != nil || pong.Msg.GetData() != "Hello, x!" {
		t.Errorf("ping: %v, %v", pong, err)
	}
}

// A runner that an operator has added is one without having registered, and never has more labels than it was given.
func TestAddedRunner(t *testing.T) {
	s, _ := alone(t)
	for _, labels := range [][]string{nil, {""}, {"linux", "a b"}, {strings.Repeat("x", 64)}} {
		if _, err := s.Add(t.Context(), "none", labels); !errors.Is(err, ErrLabels) {
			t.Errorf("added with %q: %v", labels, err)
		}
		if _, err := s.Invite(t.Context(), labels, time.Hour, true); !errors.Is(err, ErrLabels) {
			t.Errorf("invited with %q: %v", labels, err)
		}
	}
	c := must[Credentials](t)(s.Add(t.Context(), "builder-1", []string{"linux", "big"}))
	if list := must[[]Listed](t)(s.List(t.Context())); len(list) != 1 || !list[0].Seen.IsZero() || list[0].Name != "builder-1" || list[0].UUID != c.UUID {
		t.Errorf("before it has spoken: %+v", list)
	}
	p := &peer{t: t, uuid: c.UUID, token: "another"}
	p.RunnerServiceClient = runnerv1connect.NewRunnerServiceClient(network, s.url, p.with(""))
	if _, err := p.keyed(s, ""); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("with another token: %v", err)
	}
	p.token = c.Token
	d := must[*connect.Response[runnerv1.DeclareResponse]](t)(p.Declare(t.Context(), connect.NewRequest(&runnerv1.DeclareRequest{Labels: []string{"linux", "secret"}})))
	if got := d.Msg.GetRunner().GetLabels(); !slices.Equal(got, []string{"linux"}) {
		t.Errorf("declared: %v", got)
	}
	if list := must[[]Listed](t)(s.List(t.Context())); list[0].Seen.IsZero() {
		t.Errorf("after it has spoken: %+v", list)
	}
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	if task := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask(); task == nil {
		t.Error("it got no task")
	}
}

// What a job leaves behind on an ephemeral runner is worth nothing once the job has ended.
func TestEphemeralRunner(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	r := must[*connect.Response[runnerv1.RegisterResponse]](t)(p.Register(t.Context(), connect.NewRequest(&runnerv1.RegisterRequest{
		Token: must[string](t)(s.Invite(t.Context(), []string{"linux"}, time.Hour, true)), Ephemeral: true,
	}))).Msg.GetRunner()
	p.uuid, p.token = r.GetUuid(), r.GetToken()
	d := must[*connect.Response[runnerv1.DeclareResponse]](t)(p.Declare(t.Context(), connect.NewRequest(&runnerv1.DeclareRequest{Labels: []string{"linux"}})))
	if !r.GetEphemeral() || !d.Msg.GetRunner().GetEphemeral() {
		t.Errorf("registered %t, declared %t", r.GetEphemeral(), d.Msg.GetRunner().GetEphemeral())
	}
	if err := s.want(t.Context(), order("r", spec("one", false), spec("two", false))); err != nil {
		t.Fatal(err)
	}
	task := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask()
	if second := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask(); second != nil {
		t.Errorf("a second task, %d", second.GetId())
	}
	must[*runnerv1.UpdateTaskResponse](t)(p.update(task.GetId(), runnerv1.Result_RESULT_SUCCESS, verdictOf(task)))
	if _, err := p.keyed(s, ""); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("after its job: %v", err)
	}
}

// Nobody makes the server read much before it knows who sends it, in whatever form.
func TestLargeCalls(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	task := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask().GetId()
	row := strings.Repeat("x", 2*callLimit)
	code := func(_ any, err error) connect.Code { return connect.CodeOf(err) }
	if got := code(p.Register(t.Context(), connect.NewRequest(&runnerv1.RegisterRequest{Name: row}))); got != connect.CodeResourceExhausted {
		t.Errorf("a large Register: %v", got)
	}
	for name, form := range map[string]struct {
		opts []connect.ClientOption
		want connect.Code // 0 = none
	}{
		"plain": {}, "packed": {opts: []connect.ClientOption{connect.WithSendGzip()}},
		"gRPC": {[]connect.ClientOption{connect.WithGRPCWeb()}, connect.CodeInvalidArgument},
		"JSON": {[]connect.ClientOption{connect.WithProtoJSON()}, connect.CodeInvalidArgument},
	} {
		for _, who := range []*peer{p, {t: t, uuid: p.uuid, token: "x"}} {
			c := runnerv1connect.NewRunnerServiceClient(network, s.url, append(form.opts, who.with(""))...)
			want := form.want
			if who != p {
				want = connect.CodeUnauthenticated
			}
			_, err := c.UpdateLog(t.Context(), connect.NewRequest(&runnerv1.UpdateLogRequest{TaskId: task, Rows: []*runnerv1.LogRow{{Content: row}}}))
			if (err == nil) != (want == 0) || err != nil && connect.CodeOf(err) != want {
				t.Errorf("%s, known %t: %v, want %v", name, who == p, err, want)
			}
		}
	}
	for name, header := range map[string]http.Header{
		"of unknown length": {"Content-Type": {"application/proto"}},
		"long":              {"Content-Type": {"application/proto"}, "Content-Length": {"2097152"}},
		"packed":            {"Content-Type": {"application/proto"}, "Content-Length": {"100"}, "Content-Encoding": {"gzip"}},
		"packed inside":     {"Content-Type": {"application/grpc-web+proto"}, "Content-Length": {"100"}},
	} {
		read := &counted{Reader: strings.NewReader(row)}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/actions/runner.v1.RunnerService/UpdateLog", read)
		r.Header = header
		if n, err := strconv.ParseInt(header.Get("Content-Length"), 10, 64); err == nil {
			r.ContentLength = n
		}
		s.Handler().ServeHTTP(httptest.NewRecorder(), r)
		if read.n != 0 {
			t.Errorf("a report that is %s: %d bytes of a stranger were read", name, read.n)
		}
	}
}

// Strangers do not stand in the line of the pool's decisions, where runners would wait behind them.
func TestStrangersDoNotQueue(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	within, leave, left := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		left <- s.ask(t.Context(), func(*turn) error { close(within); <-leave; return nil })
	}()
	<-within
	code := func(_ any, err error) connect.Code { return connect.CodeOf(err) }
	stranger := &peer{t: t, uuid: p.uuid, token: "x"}
	c := runnerv1connect.NewRunnerServiceClient(network, s.url, stranger.with(""))
	if got := code(c.FetchTask(t.Context(), connect.NewRequest(&runnerv1.FetchTaskRequest{}))); got != connect.CodeUnauthenticated {
		t.Errorf("a stranger's FetchTask: %v", got)
	}
	if got := code(c.Register(t.Context(), connect.NewRequest(&runnerv1.RegisterRequest{Token: "x", Labels: []string{"linux"}}))); got != connect.CodeInvalidArgument {
		t.Errorf("a stranger's Register: %v", got)
	}
	close(leave)
	if err := <-left; err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), p.uuid); err != nil {
		t.Fatal(err)
	}
	if got := code(p.keyed(s, "")); got != connect.CodeUnauthenticated {
		t.Errorf("a runner that was removed: %v", got)
	}
}

// counted says how much was read.
type counted struct {
	io.Reader
	n int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.n += n
	return n, err
}

// Decisions of one process wait for each other instead of losing to each other.
func TestOneDecisionAtATime(t *testing.T) {
	s, _ := alone(t)
	if err := s.ask(t.Context(), func(*turn) error {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := s.ask(ctx, func(*turn) error {
			t.Error("a second decision within the first")
			return nil
		}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// parted is a text, and how long the longest piece of it was that was written at once.
type parted struct {
	strings.Builder
	longest int
}

func (p *parted) Write(b []byte) (int, error) {
	p.longest = max(p.longest, len(b))
	return p.Builder.Write(b)
}

func TestLogParts(t *testing.T) {
	line := strings.Repeat("é", 20<<10) + "\n" // 40 KiB and one byte
	for name, text := range map[string]string{
		"nothing": "", "one": line, "many": strings.Repeat(line, 20), "no end": strings.Repeat(line, 7) + "x",
		"a long line": "x" + strings.Repeat("é", logPart) + "\n" + line, "full": strings.Repeat("x", logPart),
	} {
		got := parts([]byte(text))
		for i, p := range got {
			if len(p) > logPart || !utf8.Valid(p) || name == "many" && i+1 < len(got) && p[len(p)-1] != '\n' {
				t.Errorf("%s: part %d has %d bytes", name, i, len(p))
			}
		}
		if string(bytes.Join(got, nil)) != text {
			t.Errorf("%s: something is missing", name)
		}
	}
}

func TestLogQuota(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	id := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask().GetId()
	row := strings.Repeat("x", 1<<20)
	for i := range int64(20) {
		if ack := must[int64](t)(p.rows(id, i, false, row)); ack != i+1 {
			t.Fatalf("ack %d", ack)
		}
	}
	var text parted
	if _, _, err := s.WriteLog(t.Context(), &text, id, 0); err != nil {
		t.Fatal(err)
	}
	if text.longest > logPart {
		t.Errorf("%d bytes in one piece", text.longest)
	}
	if n := text.Len(); n > logQuota+100 || !strings.HasSuffix(text.String(), logMarker+"\n") {
		t.Fatalf("%d bytes kept", n)
	}
}

// several is a number of servers on one Redis.
func several(t testing.TB, n int) (out []*server) {
	t.Helper()
	r := redistest.Start(t, redistest.Options{})
	for range n {
		st, err := redis.Open(t.Context(), r.URL())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		out = append(out, serve(t, st, lock.NewRedis(st.Client(), 15*time.Second)))
	}
	return out
}

var errCut = errors.New("the connection was cut")

// cut is a network that loses requests and answers at random, and sends each call to any server.
type cut struct {
	servers []*server
	share   float64 // of calls that are lost, half of them after they took effect
}

func (c cut) Do(r *http.Request) (*http.Response, error) {
	before, after := rand.Float64() < c.share/2, rand.Float64() < c.share/2
	if before {
		return nil, errCut
	}
	to := c.servers[rand.IntN(len(c.servers))].url
	u := *r.URL
	u.Host = strings.TrimPrefix(strings.TrimSuffix(to, "/api/actions"), "http://")
	r.URL = &u
	res, err := network.Do(r)
	if err != nil { // a server was killed
		return nil, errCut
	}
	b, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil || after {
		return nil, errCut
	}
	res.Body = io.NopCloser(bytes.NewReader(b))
	return res, nil
}

// witness sees what runners get. A task whose answer was lost shows as one that nobody ran.
type witness struct {
	mu   sync.Mutex
	keys map[string]int64 // runner/key → task
	of   map[int64]string // task → runner/key
	ran  map[string]int   // job → executions
	bad  []string
}

func (w *witness) delivered(at string, task int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if was, ok := w.keys[at]; ok && was != task {
		w.bad = append(w.bad, fmt.Sprintf("key %s: tasks %d and %d", at, was, task))
	}
	if was, ok := w.of[task]; ok && was != at {
		w.bad = append(w.bad, fmt.Sprintf("task %d: keys %s and %s", task, was, at))
	}
	w.keys[at], w.of[task] = task, at
}

// work is a runner with the manners of forgejo/runner pull request 1393: a key per call, kept until a call succeeds.
func (p *peer) work(ctx context.Context, w *witness, net cut) {
	client := func(key string) runnerv1connect.RunnerServiceClient {
		return runnerv1connect.NewRunnerServiceClient(net, "http://anywhere/api/actions", p.with(key))
	}
	retry := func(call func() error) bool {
		for ctx.Err() == nil {
			err := call()
			if err == nil {
				return true
			}
			if c := connect.CodeOf(err); !errors.Is(err, errCut) && c != connect.CodeUnavailable && ctx.Err() == nil {
				p.t.Errorf("a runner is answered %v", err)
				return false
			}
		}
		return false
	}
	idle := time.NewTicker(10 * time.Millisecond)
	defer idle.Stop()
	for ctx.Err() == nil {
		key := uuid.NewString()
		var task *runnerv1.Task
		if !retry(func() error {
			r, err := client(key).FetchTask(ctx, connect.NewRequest(&runnerv1.FetchTaskRequest{}))
			if err == nil {
				task = r.Msg.GetTask()
			}
			return err
		}) {
			return
		}
		if task == nil {
			select {
			case <-ctx.Done():
			case <-idle.C:
			}
			continue
		}
		w.delivered(p.uuid+"/"+key, task.GetId())
		w.mu.Lock()
		w.ran[task.GetContext().GetFields()["run_id"].GetStringValue()]++
		w.mu.Unlock()
		c, sent := client(key), int64(0) // the key sticks to the shared client: it must mean nothing here
		report := func(seal bool) {
			retry(func() error {
				r, err := c.UpdateLog(ctx, connect.NewRequest(&runnerv1.UpdateLogRequest{
					TaskId: task.GetId(), Index: sent, Rows: []*runnerv1.LogRow{{Content: "row"}, {Content: "row"}}[:1+rand.IntN(2)], NoMore: seal,
				}))
				if err == nil && r.Msg.GetAckIndex() < sent {
					p.t.Error("submitted logs are lost")
				}
				if err == nil {
					sent = r.Msg.GetAckIndex()
				}
				return err
			})
		}
		for sent < 3 && ctx.Err() == nil {
			report(false)
		}
		is, outputs := runnerv1.Result_RESULT_SUCCESS, verdictOf(task)
		if task.GetId()%5 == 0 {
			is, outputs = runnerv1.Result_RESULT_FAILURE, nil
		}
		end := func(told runnerv1.Result) {
			retry(func() error {
				r, err := c.UpdateTask(ctx, connect.NewRequest(&runnerv1.UpdateTaskRequest{State: &runnerv1.TaskState{Id: task.GetId(), Result: is}, Outputs: outputs}))
				if err == nil && r.Msg.GetState().GetResult() != told {
					p.t.Errorf("task %d says %v and is told %v", task.GetId(), is, r.Msg.GetState().GetResult())
				}
				return err
			})
		}
		end(runnerv1.Result_RESULT_UNSPECIFIED) // before the last rows, as may be
		report(true)
		end(is)
	}
}

// Many jobs wanted at once, three server processes on one Redis that are killed one after another, a network that loses a fifth of all
// calls: every run ends once, every job ran once, no key has two tasks and no task two keys. SIGNALBOX_SOAK=1 makes it ten
// thousand jobs.
func TestManyJobsOverABadNetwork(t *testing.T) {
	runs, peers := 150, 6
	if os.Getenv("SIGNALBOX_SOAK") != "" {
		runs, peers = 5000, 16
	}
	servers, kill := processes(t, 3)
	w := &witness{keys: map[string]int64{}, of: map[int64]string{}, ran: map[string]int{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for range peers {
		p := register(t, servers[0], "linux")
		wg.Go(func() { p.work(ctx, w, cut{servers, .2}) })
	}
	var all []forge.Run
	for i := range runs { // more at once than there is room for in the document
		o := order(fmt.Sprint("r", i), spec("one", false), spec("two", false))
		o.Run.Ref.Number = i + 1
		for err := servers[i%3].want(t.Context(), o); err != nil; err = servers[i%3].want(t.Context(), o) {
			if !errors.Is(err, actor.ErrBusy) { // the pull request would ask again
				t.Fatal(err)
			}
		}
		all = append(all, o.Run)
	}
	results := map[forge.CheckState]int{}
	kills := 0
	for i := range runs {
		r := all[i]
		if i%(runs/10) == runs/20 {
			kill(kills % 3)
			kills++
		}
		got := patiently(t, servers[i%3], r)
		ends := 0
		for _, x := range got {
			if x.State.Completed() {
				ends++
				results[x.State]++
			}
		}
		if ends != 1 {
			t.Errorf("run %s was told %+v", r.Key, got)
		}
	}
	stop()
	wg.Wait()
	for _, b := range w.bad {
		t.Error(b)
	}
	if len(w.ran) != 2*runs || slices.Max(slices.Collect(maps.Values(w.ran))) != 1 {
		t.Errorf("%d jobs ran, one of them %d times", len(w.ran), slices.Max(slices.Collect(maps.Values(w.ran))))
	}
	p, err := servers[0].see(t.Context())
	if err != nil || len(p.Jobs)+len(p.Tasks)+len(p.Runs) != 0 || p.waits() || p.LastTask != int64(2*runs) {
		t.Errorf("left over: %d jobs, %d tasks, %d runs of %d tasks, %v", len(p.Jobs), len(p.Tasks), len(p.Runs), p.LastTask, err)
	}
	t.Logf("%d runs: %v; %d tasks, %d kills", runs, results, p.LastTask, kills)
}

// patiently is reports, as long as anything at all goes on.
func patiently(t *testing.T, s *server, r forge.Run) []prmanager.Report {
	t.Helper()
	for {
		before := must[Pool](t)(s.see(t.Context()))
		end := time.NewTimer(patience / 4)
		tick := time.NewTicker(20 * time.Millisecond)
		over := false
		for waiting := true; waiting && !over; {
			v, err := s.became(t.Context(), r.Key)
			if err != nil {
				t.Fatal(err)
			}
			over = v.Result != InProgress && v.Result != Started
			select {
			case <-end.C:
				waiting = false
			case <-tick.C:
			}
		}
		end.Stop()
		tick.Stop()
		if over {
			return reports(t, s, r)
		}
		if after := must[Pool](t)(s.see(t.Context())); after.LastTask == before.LastTask {
			t.Fatalf("nothing goes on: %d jobs, %d tasks, %d waiting", len(after.Jobs), len(after.Tasks), after.LastSeat-after.Seated)
		}
	}
}
