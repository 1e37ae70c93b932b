package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Store is what the service reads by itself: tokens and their list.
type Store interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error)
}

// Options of a Service. All but the last three are needed.
type Options struct {
	Clients *status.Clients
	Store   Store
	Secret  []byte // the server's secret key: MintRun
	Log     *zap.Logger
	// Wait is how long a call of version 1 waits for its turn before it is withdrawn; 10 s.
	Wait time.Duration
	// Burst is how many writes of one token this server takes at once; a tenth of it comes back each second. 1000: far
	// above what the CI of a large organisation writes, and below what a client in a loop does.
	Burst int
	// Now says when tokens have expired; time.Now.
	Now func() time.Time
}

// Service answers the paths of the status API. It is safe for concurrent use and owns no goroutine.
type Service struct {
	opt      Options
	handler  http.Handler
	paces    sync.Map // *rate.Limiter, by id of the token
	stopping chan struct{}
	stop     func()
}

// New makes the service. Its error is a description that cannot be read: a bug.
func New(o Options) (*Service, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Wait = cmp.Or(o.Wait, 10*time.Second)
	o.Burst = cmp.Or(o.Burst, 1000)
	s := &Service{opt: o, stopping: make(chan struct{})}
	s.stop = sync.OnceFunc(func() { close(s.stopping) })
	description, err := describe()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(description) // the client is gone: nobody is left to tell
	})
	for path, methods := range map[string]map[string]endpoint{
		"/api/v2/projects/{project}/commits/{sha}/statuses":       {http.MethodGet: s.list, http.MethodPost: s.create},
		"/api/v2/projects/{project}/commits/{sha}/statuses/{run}": {http.MethodGet: s.run, http.MethodPatch: s.update},
		"/api/v2/status-operations/{operation}":                   {http.MethodGet: s.operation},
	} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			id := random(8)
			if err := s.serve(w, r, methods); err != nil {
				s.judged(r, err, id).write(w, id)
			}
		})
	}
	// What GitLab's clients put behind a base address is "/api/v4"; with the base ".../api/v1" that is the second path.
	for _, base := range []string{"/api/v1", "/api/v1/api/v4"} {
		mux.HandleFunc(base+"/projects/{project}/statuses/{sha}", func(w http.ResponseWriter, r *http.Request) {
			deprecate(w, r)
			if err := s.serve(w, r, map[string]endpoint{http.MethodPost: s.post}); err != nil {
				s.judged(r, err, random(8)).writeOld(w)
			}
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		refuse(http.StatusNotFound, string(status.CodeNotFound), "nothing is served at this path").write(w, random(8))
	})
	s.handler = mux
	return s, nil
}

// Handler serves /api/v1/, /api/v2/ and /api/openapi.json.
func (s *Service) Handler() http.Handler { return s.handler }

// Stop ends all waiting: what waits is answered with what is known by then. It is for an orderly stop of the server.
func (s *Service) Stop() { s.stop() }

// endpoint answers one method of one path, or says why not.
type endpoint func(*call) (reply, error)

// call is a request whose caller is known.
type call struct {
	*http.Request
	by    status.Caller
	grant Grant
	scope *Scope // of a token of one run
	at    status.Target
	body  []byte
}

// reply is an answer that is a success.
type reply struct {
	status int
	body   any
	header map[string]string
}

// serve finds out who asks about which commit, and has it answered.
func (s *Service) serve(w http.ResponseWriter, r *http.Request, methods map[string]endpoint) error {
	do, ok := methods[r.Method]
	if !ok {
		allowed := make([]string, 0, len(methods))
		for m := range methods {
			allowed = append(allowed, m)
		}
		slices.Sort(allowed)
		return refuse(http.StatusMethodNotAllowed, "method_not_allowed", "this path does not take the method").with("Allow", strings.Join(allowed, ", "))
	}
	if !takesJSON(r.Header.Get("Accept")) {
		return refuse(http.StatusNotAcceptable, "not_acceptable", "answers are application/json")
	}
	c := &call{Request: r}
	if err := s.admit(c); err != nil {
		return err
	}
	if c.Method != http.MethodGet && !s.paced(c) {
		return refuse(http.StatusTooManyRequests, "too_many_requests", "the token writes too fast; send the same request again").with("Retry-After", "1")
	}
	if err := c.locate(); err != nil {
		return err
	}
	var err error
	if c.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			return refuse(http.StatusRequestEntityTooLarge, "too_large", "a body has at most 64 KiB")
		}
		return refuse(http.StatusBadRequest, "malformed", "the body did not arrive as it was announced")
	}
	out, err := do(c)
	if err != nil {
		return told(err, c)
	}
	for name, value := range out.header {
		w.Header().Set(name, value)
	}
	write(w, out.status, out.body)
	return nil
}

const maxBody = 64 << 10

// admit finds out who asks. A job's token of GitLab is none of ours, and is refused by name, because it would be sent
// out of habit.
func (s *Service) admit(c *call) error {
	scheme, token, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		token = ""
	}
	denied := refuse(http.StatusUnauthorized, "unauthorized", "expected a token of signalbox status token, as Authorization: Bearer").
		with("WWW-Authenticate", "Bearer")
	if old(c.Request) {
		token = cmp.Or(c.Header.Get("PRIVATE-TOKEN"), token)
		denied.message = "expected a token of signalbox status token, as PRIVATE-TOKEN"
		if c.Header.Get("JOB-TOKEN") != "" {
			denied.message = "the token of a job cannot be used here; send one of signalbox status token as PRIVATE-TOKEN"
			return denied
		}
	}
	now := s.opt.Now()
	if strings.HasPrefix(token, runPrefix) {
		scope, err := ReadRun(s.opt.Secret, token, now)
		if err != nil {
			return denied
		}
		c.scope, c.by = &scope, status.Caller{Principal: "run", Run: scope.Key}
		c.grant.Repos = []forge.Repo{{Instance: scope.Instance, ID: scope.Project}}
		return nil
	}
	g, ok, err := admitted(c.Context(), s.opt.Store, token, now)
	if err != nil {
		return err
	}
	if !ok {
		return denied
	}
	c.grant, c.by = g, status.Caller{Principal: g.ID}
	return nil
}

// paced says whether the token may write now. A token of one run has its bound in the updates of that run.
func (s *Service) paced(c *call) bool {
	if c.scope != nil {
		return true
	}
	pace, ok := s.paces.Load(c.grant.ID)
	if !ok {
		pace, _ = s.paces.LoadOrStore(c.grant.ID, rate.NewLimiter(rate.Limit(s.opt.Burst)/10, s.opt.Burst))
	}
	return pace.(*rate.Limiter).AllowN(s.opt.Now(), 1)
}

func (c *call) instance() string { return c.grant.Repos[0].Instance }

// mayPost refuses a context that the token is not for.
func (c *call) mayPost(name string) error {
	if c.grant.covers(name) {
		return nil
	}
	return refuse(http.StatusForbidden, string(status.CodeForbidden), "the token is not for this context, but for "+strings.Join(c.grant.Contexts, ", "))
}

// locate finds the commit that the path names, among the projects that the token is for.
func (c *call) locate() error {
	if c.PathValue("sha") == "" {
		return nil // an operation: its id says where
	}
	repo, ok := c.grant.repo(c.PathValue("project"))
	if !ok {
		return refuse(http.StatusNotFound, string(status.CodeNotFound), "the token is for no such project")
	}
	sha := strings.ToLower(c.PathValue("sha"))
	if (len(sha) != 40 && len(sha) != 64) || strings.Trim(sha, "0123456789abcdef") != "" {
		return refuse(http.StatusBadRequest, "malformed", "expected the commit in full: 40 or 64 hexadecimal digits")
	}
	c.at = status.Target{Repo: repo, SHA: sha}
	if c.scope != nil && (c.scope.SHA != sha || c.PathValue("run") != c.scope.Key) {
		return refuse(http.StatusForbidden, string(status.CodeForbidden), "the token is for one run only")
	}
	return nil
}

// members reads the body of a write of version 2.
func (c *call) members() (members, error) {
	if kind, _, err := mime.ParseMediaType(c.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return members{}, refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "expected a body of application/json")
	}
	m, ok := read(c.body, false)
	if !ok {
		return members{}, errMalformed()
	}
	return m, nil
}

func errMalformed() error {
	return refuse(http.StatusBadRequest, "malformed", "the body is not one JSON object")
}

// query reads the parameters of a question.
func (c *call) query() (members, error) {
	values, err := url.ParseQuery(c.URL.RawQuery)
	if err != nil {
		return members{}, refuse(http.StatusBadRequest, "malformed", "the query cannot be read")
	}
	m := newMembers(true)
	m.add(values)
	return m, nil
}

// told is what a refusal of the commit means over HTTP. Other errors are left as they are.
func told(err error, c *call) error {
	var no *status.Refusal
	if !errors.As(err, &no) {
		return err
	}
	p := refuse(http.StatusUnprocessableEntity, string(no.Code), no.Message)
	p.fields = no.Fields
	switch no.Code {
	case status.CodeForbidden, status.CodeContextOwned:
		p.status = http.StatusForbidden
	case status.CodeNotFound:
		p.status = http.StatusNotFound
	case status.CodeRunExists:
		p.status = http.StatusConflict
		p.header.Set("Location", runLink(c.at, no.Run))
	case status.CodeBusy:
		return locked()
	case status.CodeInvalid, status.CodeSequence, status.CodeKeyReused, status.CodeTooManyContexts, status.CodeTooManyUpdates:
	}
	return p
}

// await reads an operation until done says that it is enough, at most for wait, and answers what it is then.
func (s *Service) await(ctx context.Context, instance, id string, wait time.Duration, done func(status.Operation) bool) (status.Operation, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	end := time.NewTimer(wait)
	defer end.Stop()
	for pause, last := 25*time.Millisecond, wait <= 0; ; pause = min(2*pause, time.Second) {
		op, err := s.opt.Clients.Operation(ctx, instance, id)
		if err != nil || last || done(op) {
			return op, err
		}
		next := time.NewTimer(pause)
		select {
		case <-next.C:
		case <-end.C:
			last = true
		case <-s.stopping:
			last = true
		case <-ctx.Done():
			last = true
		}
		next.Stop()
	}
}

func commitLink(at status.Target) string {
	return "/api/v2/projects/" + strconv.FormatInt(at.Repo.ID, 10) + "/commits/" + at.SHA + "/statuses"
}

func runLink(at status.Target, run string) string { return commitLink(at) + "/" + url.PathEscape(run) }

func operationLink(id string) string { return "/api/v2/status-operations/" + url.PathEscape(id) }
