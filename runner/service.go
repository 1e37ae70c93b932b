package runner

import (
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	pingv1 "code.gitea.io/actions-proto-go/ping/v1"
	"code.gitea.io/actions-proto-go/ping/v1/pingv1connect"
	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"code.gitea.io/actions-proto-go/runner/v1/runnerv1connect"
	"connectrpc.com/connect"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Path is where runners expect the service below their instance address.
const Path = "/api/actions/"

const (
	uuidHeader  = "x-runner-uuid"
	tokenHeader = "x-runner-token"
	keyHeader   = "x-runner-request-key"
)

const (
	callLimit   = 2 << 20 // of any call, in bytes, but UpdateLog, which trim bounds; an output has up to 1 MiB
	lateFetch   = 500 * time.Millisecond
	fetchRounds = 20
)

var (
	errUnchanged = errors.New("nothing to save")
	errLate      = errors.New("the caller will not hear the answer")
	errUnknown   = connect.NewError(connect.CodeUnauthenticated, errors.New("unregistered runner"))
	errBadToken  = connect.NewError(connect.CodeInvalidArgument, errors.New("the registration token is unknown, spent or expired, or grants none of these labels"))
	errNoSource  = errors.New("its forge is not configured any more")
	errNoTask    = connect.NewError(connect.CodeNotFound, errors.New("no such task of this runner"))
)

// Store is what the service reads beside its Asks.
type Store interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	// Record answers state.ErrNotFound if there is none.
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
}

// Options are what a Service needs; all but URL, Secrets and Source are required.
type Options struct {
	Engine *actor.Engine
	Store  Store // the engine's
	Pool   state.Subject
	Key    []byte // secret of this installation: what is derived from it is given to tasks
	URL    string // of this server, for the links in checks; empty = none
	// Secrets are what jobs of a repository may ask for by name; nil = none. A value is looked up when a job is assigned.
	Secrets func(repo forge.Repo) map[string]string
	// Source is the forge of a configured name; nil where every repository is public.
	Source  func(instance string) (Source, error)
	Log     *zap.Logger
	Metrics prometheus.Registerer
}

// Service is the runner.v1 and ping.v1 services over one pool, and its administration. It is safe for concurrent use,
// in any number of processes on one store.
type Service struct {
	engine *actor.Engine
	store  Store
	pool   state.Subject
	key    []byte
	sealed cipher.AEAD
	url    string
	secret func(repo forge.Repo) map[string]string
	source func(instance string) (Source, error)
	log    *zap.Logger
	met    sync.Map // uuid and hash of the token of callers that were runners; some may have been removed since
	calls  *prometheus.CounterVec
	accept prometheus.Histogram
}

// New makes the service. The error is that of deriving a key or registering metrics.
func New(o Options) (*Service, error) {
	sealed, err := sealing(o.Key)
	if err != nil {
		return nil, err
	}
	s := &Service{engine: o.Engine, store: o.Store, pool: o.Pool, key: o.Key, sealed: sealed, url: strings.TrimSuffix(o.URL, "/"),
		secret: o.Secrets, source: o.Source, log: o.Log,
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "signalbox_runner_fetches_total", Help: "FetchTask calls by what they were answered: assigned, replayed, spent, late, none.",
		}, []string{"answer"}),
		accept: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "signalbox_runner_accept_seconds", Help: "From assigning a task to its runner's first report.", Buckets: []float64{.1, .5, 1, 2, 5, 10, 30, 60},
		}),
	}
	for _, c := range []prometheus.Collector{s.calls, s.accept} {
		if err := o.Metrics.Register(c); err != nil {
			return nil, fmt.Errorf("register runner metrics: %w", err)
		}
	}
	return s, nil
}

// Handler serves everything below Path.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	limit := connect.WithConditionalHandlerOptions(func(c connect.Spec) []connect.HandlerOption {
		if c.Procedure == runnerv1connect.RunnerServiceUpdateLogProcedure {
			return nil
		}
		return []connect.HandlerOption{connect.WithReadMaxBytes(callLimit)}
	})
	for _, h := range []func() (string, http.Handler){
		func() (string, http.Handler) { return pingv1connect.NewPingServiceHandler(s, limit) },
		func() (string, http.Handler) { return runnerv1connect.NewRunnerServiceHandler(calls{s}, limit) },
	} {
		service, handler := h()
		mux.Handle(service, handler)
	}
	open := map[string]bool{pingv1connect.PingServicePingProcedure: true, runnerv1connect.RunnerServiceRegisterProcedure: true}
	known := map[string]bool{
		pingv1connect.PingServicePingProcedure: true, runnerv1connect.RunnerServiceRegisterProcedure: true,
		runnerv1connect.RunnerServiceDeclareProcedure: true, runnerv1connect.RunnerServiceFetchTaskProcedure: true,
		runnerv1connect.RunnerServiceUpdateTaskProcedure: true, runnerv1connect.RunnerServiceUpdateLogProcedure: true,
	}
	refuse := connect.NewErrorWriter()
	return http.StripPrefix(strings.TrimSuffix(Path, "/"), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !known[r.URL.Path] {
			// The request's form does not matter: a call that does not exist has none.
			_ = refuse.Write(w, r, connect.NewError(connect.CodeUnimplemented, errors.New("no such call")))
			return
		}
		if !open[r.URL.Path] {
			if err := s.meet(r.Context(), callerOf(r.Header)); err != nil {
				_ = refuse.Write(w, r, s.failed(r.Context(), r.URL.Path, err))
				return
			}
		}
		if r.URL.Path == runnerv1connect.RunnerServiceUpdateLogProcedure {
			if err := trim(r); err != nil {
				_ = refuse.Write(w, r, connect.NewError(connect.CodeInvalidArgument, err))
				return
			}
		}
		mux.ServeHTTP(w, r)
	}))
}

// meet turns strangers away before anything of theirs is read, and before they could stand in the line of the pool's
// decisions, where runners would wait behind them. Whether a caller still is a runner the decision says.
func (s *Service) meet(ctx context.Context, who caller) error {
	key := who.uuid + "/" + hashed(who.token)
	if _, ok := s.met.Load(key); ok {
		return nil
	}
	p, err := s.see(ctx)
	if err == nil {
		err = who.check(p)
	}
	if err == nil {
		s.met.Store(key, nil)
	}
	return err
}

// ask is one decision of the pool; nothing is saved if nothing has changed.
func (s *Service) ask(ctx context.Context, f func(t *turn) error) error {
	_, err := actor.Ask(ctx, s.engine, s.pool, "", func(p Pool, now time.Time) (actor.Step[Pool], error) {
		t := begin(p, now)
		if err := f(t); err != nil {
			return actor.Step[Pool]{}, err
		}
		if !t.changed {
			return actor.Step[Pool]{}, errUnchanged
		}
		return t.step(), nil
	})
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// see reads the pool without taking part.
func (s *Service) see(ctx context.Context) (p Pool, err error) {
	v, err := actor.See(ctx, s.store, s.pool)
	if err == nil && len(v.Doc) > 0 {
		err = json.Unmarshal(v.Doc, &p)
	}
	if err != nil {
		return Pool{}, fmt.Errorf("read pool: %w", err)
	}
	return p, nil
}

func (s *Service) runURL(run forge.Run) string {
	if s.url == "" {
		return ""
	}
	return s.url + "/runs/" + s.pageKey(run)
}

// failed is an error as runners get it. They try again after unavailable.
func (s *Service) failed(ctx context.Context, call string, err error) error {
	var c *connect.Error
	if errors.As(err, &c) {
		return c
	}
	if ctx.Err() == nil {
		s.log.Warn("a runner's call failed", zap.String("call", call), zap.Error(err))
	}
	return connect.NewError(connect.CodeUnavailable, errors.New("try again"))
}

// caller is who calls, as the headers say.
type caller struct{ uuid, token string }

func callerOf(h http.Header) caller { return caller{h.Get(uuidHeader), h.Get(tokenHeader)} }

// check compares a caller with the runners known (R2).
func (c caller) check(p Pool) error {
	if r, ok := p.Runners[c.uuid]; !ok || !same(r.TokenHash, c.token) {
		return errUnknown
	}
	return nil
}

// Ping answers.
func (s *Service) Ping(_ context.Context, r *connect.Request[pingv1.PingRequest]) (*connect.Response[pingv1.PingResponse], error) {
	return connect.NewResponse(&pingv1.PingResponse{Data: "Hello, " + clip(r.Msg.GetData(), 1000) + "!"}), nil
}

// calls are the RPCs of runner.v1.
type calls struct{ s *Service }

var (
	_ runnerv1connect.RunnerServiceHandler = calls{}
	_ pingv1connect.PingServiceHandler     = (*Service)(nil)
)

// Register admits a runner that has a registration token.
func (c calls) Register(ctx context.Context, r *connect.Request[runnerv1.RegisterRequest]) (*connect.Response[runnerv1.RegisterResponse], error) {
	id, secret := uuid.NewString(), random()
	var runner Runner
	p, err := c.s.see(ctx)
	if err == nil && !p.invites(r.Msg.GetToken()) {
		err = errBadToken
	}
	if err != nil {
		return nil, c.s.failed(ctx, "Register", err)
	}
	err = c.s.ask(ctx, func(t *turn) error {
		var ok bool
		if runner, ok = t.register(r.Msg.GetToken(), id, secret, r.Msg.GetName(), r.Msg.GetVersion(), r.Msg.GetLabels(), r.Msg.GetEphemeral()); !ok {
			return errBadToken
		}
		return nil
	})
	if err != nil {
		return nil, c.s.failed(ctx, "Register", err)
	}
	out := runner.message(id)
	out.Token = secret
	return connect.NewResponse(&runnerv1.RegisterResponse{Runner: out}), nil
}

func (r Runner) message(id string) *runnerv1.Runner {
	return &runnerv1.Runner{
		Id: r.ID, Uuid: id, Name: r.Name, Version: r.Version, Labels: r.Labels, Status: runnerv1.RunnerStatus_RUNNER_STATUS_IDLE, Ephemeral: r.Ephemeral,
	}
}

// Declare is the first call of a runner's process.
func (c calls) Declare(ctx context.Context, r *connect.Request[runnerv1.DeclareRequest]) (*connect.Response[runnerv1.DeclareResponse], error) {
	who := callerOf(r.Header())
	var runner Runner
	err := c.s.ask(ctx, func(t *turn) error {
		if err := who.check(t.p); err != nil {
			return err
		}
		runner = t.declare(who.uuid, r.Msg.GetVersion(), r.Msg.GetLabels())
		return nil
	})
	if err != nil {
		return nil, c.s.failed(ctx, "Declare", err)
	}
	return connect.NewResponse(&runnerv1.DeclareResponse{Runner: runner.message(who.uuid)}), nil
}

// requestKey is the key of a FetchTask; what is no UUID is none (R3).
func requestKey(h http.Header) string {
	v := h.Get(keyHeader)
	if len(v) > 64 {
		return ""
	}
	u, err := uuid.Parse(v)
	if err != nil {
		return ""
	}
	return u.String()
}

// FetchTask lends the caller one task, the same for the same key (R3).
func (c calls) FetchTask(ctx context.Context, r *connect.Request[runnerv1.FetchTaskRequest]) (*connect.Response[runnerv1.FetchTaskResponse], error) {
	who, key := callerOf(r.Header()), requestKey(r.Header())
	var (
		got     fetched
		version int64
		served  int64
		frozen  []byte
		l       looked
	)
	for round := 0; ; round++ {
		err := c.s.ask(ctx, func(t *turn) (err error) {
			if err := who.check(t.p); err != nil {
				return err
			}
			served, version = t.p.Runners[who.uuid].Tasks, t.p.Version+1
			got, err = t.fetch(who.uuid, key, l, func(k Task, _ Job) ([]byte, error) {
				if end, ok := ctx.Deadline(); ctx.Err() != nil || ok && time.Until(end) < lateFetch {
					return nil, errLate
				}
				if frozen, err = freeze(c.s.key, k, l.def, l.loan); err != nil {
					return nil, err
				}
				return c.s.seal(k.ID, frozen), nil
			})
			return err
		})
		if errors.Is(err, errLate) {
			c.s.calls.WithLabelValues("late").Inc()
			return connect.NewResponse(&runnerv1.FetchTaskResponse{TasksVersion: version}), nil
		}
		if err == nil && got.Need != 0 && round == fetchRounds {
			err = actor.ErrBusy
		}
		if err == nil && got.Need != 0 {
			l, err = c.s.lookFor(ctx, who.uuid, key, got.Need, served)
			if err == nil {
				continue
			}
		}
		if err != nil {
			return nil, c.s.failed(ctx, "FetchTask", err)
		}
		break
	}
	out := &runnerv1.FetchTaskResponse{TasksVersion: version}
	answer := "none"
	switch {
	case got.Replay:
		record, err := c.s.store.Record(ctx, c.s.pool, payloadRecord(got.Task))
		if err != nil {
			return nil, c.s.failed(ctx, "FetchTask", err)
		}
		if out.Task, err = c.s.open(got.Task, record); err != nil {
			// Not an error for the runner: it would ask with this key, and so keep the task alive, for ever.
			c.s.log.Warn("a task cannot be handed out again", zap.Error(err))
			answer = "spent"
			break
		}
		out.TasksVersion, answer = 0, "replayed"
	case got.Spent:
		answer = "spent"
	case got.Task != 0:
		out.Task, answer = &runnerv1.Task{}, "assigned"
		if err := proto.Unmarshal(frozen, out.Task); err != nil {
			return nil, c.s.failed(ctx, "FetchTask", fmt.Errorf("decode task %d: %w", got.Task, err))
		}
	}
	c.s.calls.WithLabelValues(answer).Inc()
	return connect.NewResponse(out), nil
}

// lookFor reads what the decision of a FetchTask needs. served was read before: whoever assigns this runner another
// task meanwhile changes it, so the answer on the key is never older than the decision thinks.
func (s *Service) lookFor(ctx context.Context, runner, key string, job, served int64) (looked, error) {
	l := looked{job: job, served: served}
	if key != "" {
		_, err := s.store.Record(ctx, s.pool, keyRecord(runner, key))
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return looked{}, fmt.Errorf("look for a request key: %w", err)
		}
		l.spent = err == nil
	}
	raw, err := s.store.Record(ctx, s.pool, jobRecord(job))
	if errors.Is(err, state.ErrNotFound) {
		return looked{}, nil // it has ended meanwhile
	}
	if err == nil {
		err = json.Unmarshal(raw, &l.def)
	}
	if err != nil {
		return looked{}, fmt.Errorf("read the definition of job %d: %w", job, err)
	}
	if !l.spent {
		l.loan, err = s.lend(ctx, l.def)
	}
	return l, err
}

// lend looks up what a job gets beside its definition. What will not be there later either is no error but the job's
// end, or it would stand in the way of all behind it.
func (s *Service) lend(ctx context.Context, d definition) (loan, error) {
	l := loan{secrets: map[string]string{}}
	repo := d.Run.Ref.Repo
	if len(d.Job.Secrets) > 0 {
		all := s.secretsOf(repo)
		for _, name := range d.Job.Secrets {
			v, ok := all[name]
			if !ok {
				return loan{broken: "the secret " + name + " is not given to this repository any more"}, nil
			}
			l.secrets[name] = v
		}
	}
	if !repo.Private {
		return l, nil
	}
	err := errNoSource
	if s.source != nil {
		var from Source
		if from, err = s.source(repo.Instance); err == nil {
			l.token, err = from.CheckoutToken(ctx, repo)
		}
	}
	if f := forge.Classify(err); err != nil && (f.Class == forge.Retriable || f.Class == forge.Contention) {
		return loan{}, fmt.Errorf("lend %s to a runner: %w", repo.Name, err)
	} else if err != nil {
		return loan{broken: "this repository cannot be checked out: " + strings.ReplaceAll(err.Error(), "${{", "")}, nil
	}
	return l, nil
}

func (s *Service) secretsOf(repo forge.Repo) map[string]string {
	if s.secret == nil {
		return nil
	}
	return s.secret(repo)
}

// reported is the word of a runner on a task, and what it is to be told; open says that the task had not ended before. One
// that has is looked up.
func (s *Service) reported(ctx context.Context, who caller, r report) (is Result, open bool, err error) {
	var out reported
	waited := time.Duration(-1)
	err = s.ask(ctx, func(t *turn) error {
		if err := who.check(t.p); err != nil {
			return err
		}
		waited = -1
		if k := t.p.task(r.Task); k != nil && k.State == taskLeased {
			waited = t.now.Sub(k.LeasedAt)
		}
		t.seen(who.uuid)
		out = t.report(r)
		return nil
	})
	if err != nil {
		return "", false, err
	}
	if out.Known {
		if waited >= 0 {
			s.accept.Observe(waited.Seconds())
		}
		return out.Result, true, nil
	}
	raw, err := s.store.Record(ctx, s.pool, taskRecord(r.Task))
	if errors.Is(err, state.ErrNotFound) {
		return "", false, errNoTask
	}
	var e ended
	if err == nil {
		err = json.Unmarshal(raw, &e)
	}
	if err != nil {
		return "", false, fmt.Errorf("read the end of task %d: %w", r.Task, err)
	}
	if e.Runner != who.uuid {
		return "", false, errNoTask
	}
	if r.Result == InProgress { // it goes on with what is over: no other answer stops it
		return Cancelled, false, nil
	}
	return e.Result, false, nil
}

// UpdateTask is a heartbeat, or the last word.
func (c calls) UpdateTask(ctx context.Context, r *connect.Request[runnerv1.UpdateTaskRequest]) (*connect.Response[runnerv1.UpdateTaskResponse], error) {
	who, id := callerOf(r.Header()), r.Msg.GetState().GetId()
	w := report{Runner: who.uuid, Task: id, Result: said(r.Msg.GetState().GetResult())}
	out := &runnerv1.UpdateTaskResponse{State: &runnerv1.TaskState{Id: id}}
	for name, v := range r.Msg.GetOutputs() {
		// All are acknowledged, or they would be sent again; only the verdict has a meaning.
		out.SentOutputs = append(out.SentOutputs, name)
		if name == "verdict" {
			if w.Verdict = verdictBad; v == nonce(c.s.key, id) {
				w.Verdict = verdictGood
			}
		}
	}
	if w.Result != InProgress {
		book, err := c.s.book(ctx, id)
		if err != nil {
			return nil, c.s.failed(ctx, "UpdateTask", fmt.Errorf("read the log of task %d: %w", id, err))
		}
		w.Open = book.Len > 0 && !book.Sealed
	}
	is, _, err := c.s.reported(ctx, who, w)
	if err != nil {
		return nil, c.s.failed(ctx, "UpdateTask", err)
	}
	out.State.Result = is.message()
	return connect.NewResponse(out), nil
}

// said is a runner's result in our words; a job of one that it skipped has not passed.
func said(r runnerv1.Result) Result {
	switch r {
	case runnerv1.Result_RESULT_UNSPECIFIED:
		return InProgress
	case runnerv1.Result_RESULT_SUCCESS:
		return Success
	case runnerv1.Result_RESULT_CANCELLED:
		return Cancelled
	case runnerv1.Result_RESULT_FAILURE, runnerv1.Result_RESULT_SKIPPED:
	}
	return Failure
}

func (r Result) message() runnerv1.Result {
	switch r {
	case InProgress, Started:
		return runnerv1.Result_RESULT_UNSPECIFIED
	case Success:
		return runnerv1.Result_RESULT_SUCCESS
	case Failure:
		return runnerv1.Result_RESULT_FAILURE
	case Cancelled, InfraLost, Expired, Abandoned:
	}
	return runnerv1.Result_RESULT_CANCELLED
}

// UpdateLog appends rows, and is a heartbeat too. A task's log ends with the task, as its secrets do: rows that come
// later could be masked no more, and are taken off the runner and dropped.
func (c calls) UpdateLog(ctx context.Context, r *connect.Request[runnerv1.UpdateLogRequest]) (*connect.Response[runnerv1.UpdateLogResponse], error) {
	who, id := callerOf(r.Header()), r.Msg.GetTaskId()
	_, open, err := c.s.reported(ctx, who, report{Runner: who.uuid, Task: id})
	var m mask
	if err == nil && open {
		m, open, err = c.s.maskOf(ctx, id)
	}
	ack := r.Msg.GetIndex() + int64(len(r.Msg.GetRows()))
	if err == nil && open {
		ack, err = c.s.append(ctx, id, r.Msg.GetIndex(), r.Msg.GetRows(), r.Msg.GetNoMore(), m)
	}
	if err != nil {
		return nil, c.s.failed(ctx, "UpdateLog", err)
	}
	return connect.NewResponse(&runnerv1.UpdateLogResponse{AckIndex: ack}), nil
}

// maskOf is what a task's log must not show: secrets, the task's own token, and the verdict's word, which runners print with
// the environment of its step; open is false if the task has ended meanwhile.
func (s *Service) maskOf(ctx context.Context, task int64) (m mask, open bool, err error) {
	record, err := s.store.Record(ctx, s.pool, payloadRecord(task))
	if errors.Is(err, state.ErrNotFound) {
		return m, false, nil
	}
	if err != nil {
		return m, false, fmt.Errorf("read the payload of task %d: %w", task, err)
	}
	t, err := s.open(task, record)
	if err != nil { // rows that cannot be masked are not kept
		s.log.Warn("rows of a log are dropped", zap.Error(err))
		return m, false, nil
	}
	delete(t.Secrets, taskToken)
	return newMask(t.GetSecrets(), ours(s.key, "task", task), nonce(s.key, task)), true, nil
}

// ErrLabels says that no job could ask for a runner with these labels.
var ErrLabels = errors.New("expected one or more labels, each of up to 63 letters, digits, dots, dashes and underscores")

func checkLabels(labels []string) error {
	for _, l := range labels {
		if len(names([]string{l})) == 0 {
			return fmt.Errorf("label %.70q: %w", l, ErrLabels)
		}
	}
	if len(labels) == 0 {
		return ErrLabels
	}
	return nil
}

// Invite makes a registration token that grants labels until it expires, or to the first runner only. The error may be
// ErrLabels.
func (s *Service) Invite(ctx context.Context, labels []string, life time.Duration, once bool) (token string, err error) {
	if err := checkLabels(labels); err != nil {
		return "", err
	}
	token, labels = random(), names(labels)
	err = s.ask(ctx, func(t *turn) error {
		t.invite(registrationToken{Hash: hashed(token), Labels: labels, Expires: t.now.Add(life), Once: once})
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("make a registration token: %w", err)
	}
	return token, nil
}

// Credentials are what a runner shows with each of its calls. Of the token only a hash is kept.
type Credentials struct {
	UUID  string `json:"uuid"`
	Token string `json:"token"`
}

// Add admits a runner that does not register: its file gets the credentials (Forgejo's server.connections). The
// error may be ErrLabels.
func (s *Service) Add(ctx context.Context, name string, labels []string) (Credentials, error) {
	if err := checkLabels(labels); err != nil {
		return Credentials{}, err
	}
	c := Credentials{uuid.NewString(), random()}
	err := s.ask(ctx, func(t *turn) error {
		t.enlist(c.UUID, c.Token, Runner{Name: name, Allowed: names(labels)})
		return nil
	})
	if err != nil {
		return Credentials{}, fmt.Errorf("add runner: %w", err)
	}
	return c, nil
}

// ErrNoRunner says that no runner has this uuid.
var ErrNoRunner = errors.New("no such runner")

// Remove takes a runner out; its tasks are lost at once.
func (s *Service) Remove(ctx context.Context, id string) error {
	err := s.ask(ctx, func(t *turn) error {
		if !t.remove(id) {
			return ErrNoRunner
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("remove runner: %w", err)
	}
	return nil
}

// Listed is a runner as a list shows it.
type Listed struct {
	UUID    string    `json:"uuid"`
	Name    string    `json:"name"`
	Labels  []string  `json:"labels"`
	Version string    `json:"version"`
	Seen    time.Time `json:"seen,omitzero"` // last contact, to a minute; zero = none yet
	Tasks   []int64   `json:"tasks,omitempty"`
}

// List is all runners, in the order they were admitted.
func (s *Service) List(ctx context.Context) ([]Listed, error) {
	p, err := s.see(ctx)
	if err != nil {
		return nil, err
	}
	return p.list(), nil
}
