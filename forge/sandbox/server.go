package sandbox

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object on its way out.
type object = map[string]any

// answer is what an operation answers; a nil body answers none.
type answer struct {
	status int
	body   any
	header http.Header
}

func ok(body any) answer { return answer{status: 200, body: body} }

// fail is GitHub's shape of an error without details.
func fail(status int, message string) *answer {
	return &answer{status: status, body: object{
		"message": message, "documentation_url": docs, "status": strconv.Itoa(status),
	}}
}

const docs = "https://docs.github.com/rest"

func notFound() *answer { return fail(404, "Not Found") }

// invalid is GitHub's 422. Each problem names resource, field and code; code custom has a message.
func invalid(problems ...object) *answer {
	a := fail(422, "Validation Failed")
	a.body.(object)["errors"] = problems
	return a
}

func problem(resource, field, code string) object {
	return object{"resource": resource, "field": field, "code": code}
}

func custom(resource, field, message string) object {
	return object{"resource": resource, "field": field, "code": "custom", "message": message}
}

// call is one request while the forge's mutex is held.
type call struct {
	f    *Forge
	req  *http.Request
	cred *credential // nil only for operations that authenticate by themselves
	repo *Repo       // of operations under /repos
	raw  []byte
}

func (c *call) actor() *User { return c.cred.actor() }

func (c *call) path(name string) string { return c.req.PathValue(name) }

func (c *call) id(name string) int64 {
	n, err := strconv.ParseInt(c.path(name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// body decodes the request; an empty one leaves v as it is.
func (c *call) body(v any) *answer {
	if len(strings.TrimSpace(string(c.raw))) == 0 {
		return nil
	}
	err := json.Unmarshal(c.raw, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrong):
		return fail(422, fmt.Sprintf("Invalid request.\n\nFor '%s', %s is not a %s.", wrong.Field, wrong.Value, wrong.Type))
	case err != nil:
		return fail(400, "Problems parsing JSON")
	}
	return nil
}

// page answers one page of items and links to the others; under, if not empty, names the list in an object that has
// a total_count too.
func (c *call) page(items []object, under string) answer {
	query := c.req.URL.Query()
	size := number(query.Get("per_page"))
	switch {
	case size <= 0:
		size = 30
	case size > 100:
		size = 100
	}
	at := max(number(query.Get("page")), 1)
	last := max((len(items)+size-1)/size, 1)
	from := min((at-1)*size, len(items))
	a := ok(items[from:min(from+size, len(items))])
	if under != "" {
		a.body = object{"total_count": len(items), under: a.body}
	}
	var links []string
	link := func(page int, rel string) {
		query.Set("page", strconv.Itoa(page))
		links = append(links, fmt.Sprintf("<http://%s%s?%s>; rel=%q", c.req.Host, c.req.URL.EscapedPath(), query.Encode(), rel))
	}
	if at > 1 {
		link(min(at-1, last), "prev")
	}
	if at < last {
		link(at+1, "next")
		link(last, "last")
	}
	if at > 1 {
		link(1, "first")
	}
	if links != nil {
		a.header = http.Header{"Link": {strings.Join(links, ", ")}}
	}
	return a
}

// views renders a list; it is never nil, so that an empty one is [].
func views[T any](items []T, view func(T) object) []object {
	out := make([]object, 0, len(items))
	for _, x := range items {
		out = append(out, view(x))
	}
	return out
}

// Fault is what a test does to one request. The zero value does nothing.
type Fault struct {
	Wait    <-chan struct{} // before anything else, until closed (or until the caller goes away: nothing is performed then)
	Status  int             // answer this instead, with Header and Body; 0 = the operation's own answer
	Header  http.Header
	Body    string
	Perform bool // where Status is set: carry the operation out all the same
	Cut     bool // perform, then close the connection without an answer
	Refuse  bool // close the connection without performing
}

// SetFault has pick look at each request before it is performed; a nil Fault leaves it alone. pick may call verbs:
// that is how the world changes between two calls of a client. It must be safe for concurrent use. nil ends it.
func (f *Forge) SetFault(pick func(*http.Request) *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = pick
}

// SecondaryLimit is GitHub's answer to a client that is too fast (403, or 429 of late).
func SecondaryLimit(status int, after time.Duration) *Fault {
	a := fail(status, "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.")
	a.body.(object)["documentation_url"] = "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api#about-secondary-rate-limits"
	return &Fault{
		Status: status, Body: string(encode(a.body)),
		Header: http.Header{"Retry-After": {strconv.Itoa(int(after / time.Second))}},
	}
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("sandbox: an answer of our own making does not encode: %v", err)) // a bug of this package
	}
	return b
}

// ServeHTTP serves the REST API at / and, as GitHub Enterprise Server does, at /api/v3/.
func (f *Forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, found := strings.CutPrefix(r.URL.EscapedPath(), "/api/v3/"); found {
		path, err := url.PathUnescape("/" + rest)
		if err != nil {
			f.refuse(w, fail(400, "Problems parsing the path"))
			return
		}
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawPath = path, "/"+rest
	}
	f.mux.ServeHTTP(w, r)
}

// serve answers one request by op, or by what a Fault wants.
func (f *Forge) serve(w http.ResponseWriter, r *http.Request, op operation) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		f.refuse(w, fail(413, "The request body is too large or broke off"))
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(raw)) // for a fault's picker to read
	f.mu.Lock()
	pick := f.fault
	f.mu.Unlock()
	var fault Fault
	if pick != nil {
		if x := pick(r); x != nil {
			fault = *x
		}
	}
	if fault.Wait != nil {
		select {
		case <-fault.Wait:
		case <-r.Context().Done():
			f.note(r, &Fault{Refuse: true}, 0)
			return
		}
	}
	switch {
	case fault.Refuse:
		f.note(r, &fault, 0)
		panic(http.ErrAbortHandler)
	case fault.Status != 0 && !fault.Perform:
		header := f.note(r, &fault, fault.Status)
		maps.Copy(header, fault.Header)
		f.reply(w, header, fault.Status, []byte(fault.Body))
		return
	}
	status, header, body := f.perform(r, raw, op, &fault)
	switch {
	case fault.Cut:
		panic(http.ErrAbortHandler)
	case fault.Status != 0:
		maps.Copy(header, fault.Header)
		status, body = fault.Status, []byte(fault.Body)
	}
	f.reply(w, header, status, body)
}

// refuse answers what is no request of the API.
func (f *Forge) refuse(w http.ResponseWriter, a *answer) { f.reply(w, nil, a.status, encode(a.body)) }

// note records a request that a Fault kept from being performed, and answers the headers of every answer.
func (f *Forge) note(r *http.Request, fault *Fault, status int) http.Header {
	f.mu.Lock()
	defer f.mu.Unlock()
	cred := f.credential(r)
	f.record(r, cred, status, fault)
	header := http.Header{}
	f.window(r, cred).show(header, f.limit)
	return header
}

func (f *Forge) record(r *http.Request, cred *credential, status int, fault *Fault) {
	done := Call{
		Seq: f.next(), At: f.now(), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Status: status,
		Lost: fault.Cut || fault.Status != 0 && fault.Perform, Denied: fault.Refuse || fault.Status != 0 && !fault.Perform,
	}
	if cred != nil {
		done.Actor = cred.actor().login
	}
	f.calls = append(f.calls, done)
}

// perform carries a request out under the mutex and renders the answer there too, so that it is of one moment.
func (f *Forge) perform(r *http.Request, raw []byte, op operation, fault *Fault) (status int, header http.Header, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	cred := f.credential(r)
	window := f.window(r, cred)
	var a answer
	if window.used > f.limit {
		a = *fail(403, "API rate limit exceeded for "+window.whose+".")
	} else {
		a = op(&call{f: f, req: r, cred: cred, raw: raw})
	}
	f.record(r, cred, a.status, fault)
	header = a.header.Clone()
	if header == nil {
		header = http.Header{}
	}
	window.show(header, f.limit)
	if cred != nil && cred.install == nil {
		header.Set("X-OAuth-Scopes", "repo, read:org")
	}
	if a.body != nil {
		body = encode(a.body)
	}
	return a.status, header, body
}

func (f *Forge) reply(w http.ResponseWriter, header http.Header, status int, body []byte) {
	f.mu.Lock()
	f.made++
	id := fmt.Sprintf("%04X:%08X", f.made&0xffff, f.made)
	f.mu.Unlock()
	maps.Copy(w.Header(), header)
	w.Header().Set("X-GitHub-Request-Id", id)
	w.Header().Set("X-GitHub-Media-Type", "github.v3; format=json")
	w.Header().Set("Server", "github.com")
	if len(body) > 0 {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a caller that has gone away is its own business
}

// window counts one credential's calls in its hour.
type window struct {
	whose string
	used  int
	reset time.Time
}

func (f *Forge) window(r *http.Request, cred *credential) *window {
	whose := "127.0.0.1"
	if cred != nil {
		whose = fmt.Sprintf("user ID %d", cred.actor().ID)
	}
	if cred != nil && cred.install != nil {
		whose = fmt.Sprintf("installation ID %d", cred.install.ID)
	}
	w := f.windows[whose]
	if w == nil || !time.Now().Before(w.reset) {
		w = &window{whose: whose, reset: time.Now().Add(time.Hour)}
		f.windows[whose] = w
	}
	if r.URL.Path != "/rate_limit" {
		w.used++
	}
	return w
}

func (w *window) view(limit int) object {
	return object{
		"limit": limit, "used": min(w.used, limit), "remaining": max(limit-w.used, 0), "reset": w.reset.Unix(), "resource": "core",
	}
}

func (w *window) show(h http.Header, limit int) {
	for name, v := range w.view(limit) {
		h.Set("X-RateLimit-"+name, fmt.Sprint(v))
	}
}

// operation is one endpoint.
type operation func(*call) answer

// routes is the table of the API. Operations under /repos say what they need; others judge for themselves.
func (f *Forge) routes() *http.ServeMux {
	mux := http.NewServeMux()
	on := func(pattern string, op operation) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { f.serve(w, r, op) })
	}
	on("/", func(*call) answer { return *notFound() })
	signed := func(pattern string, op operation) {
		on(pattern, func(c *call) answer {
			if c.cred == nil {
				if bearer(c.req) == "" {
					return *fail(401, "Requires authentication")
				}
				return *fail(401, "Bad credentials")
			}
			return op(c)
		})
	}
	repo := func(method, path string, n need, op operation) {
		signed(method+" /repos/{owner}/{repo}"+path, func(c *call) answer {
			c.repo = f.repo(c.path("owner"), c.path("repo"))
			if no := f.refusal(c.cred, c.repo, n); no != nil {
				return *no
			}
			return op(c)
		})
	}
	signed("GET /user", f.getUser)
	signed("GET /user/repos", f.listUserRepos)
	signed("GET /users/{login}", f.getUserByLogin)
	signed("GET /user/{id}", f.getUserByID)
	signed("GET /orgs/{org}/teams/{slug}/memberships/{login}", f.getMembership)
	signed("GET /orgs/{org}/teams/{slug}/members", f.listMembers)
	signed("GET /rate_limit", f.getRateLimit)
	on("GET /meta", f.getMeta)

	on("GET /app", f.getApp)
	on("GET /app/installations", f.listInstallations)
	on("POST /app/installations/{id}/access_tokens", f.accessToken)
	on("GET /repos/{owner}/{repo}/installation", f.repoInstallation)
	signed("GET /installation/repositories", f.installationRepos)

	read := need{app: "metadata", role: "read"}
	repo("GET", "", read, f.getRepo)
	repo("GET", "/collaborators/{login}/permission", need{
		app: "metadata", role: "write",
		words: "Must have push access to view collaborator permission.",
	}, f.getPermission)
	repo("GET", "/commits/{ref}", need{app: "contents", role: "read"}, f.getCommit)
	repo("GET", "/contents/{path...}", need{app: "contents", role: "read"}, f.getContents)
	mux.HandleFunc("GET /{owner}/{repo}/info/refs", f.fetch)
	mux.HandleFunc("POST /{owner}/{repo}/git-upload-pack", f.fetch)
	repo("GET", "/git/ref/{ref...}", need{app: "contents", role: "read"}, f.getRef)
	repo("GET", "/branches/{branch...}", need{app: "contents", role: "read"}, f.getBranch)

	repo("GET", "/rules/branches/{branch...}", read, f.listRules)

	pulls := need{app: "pull_requests", role: "read"}
	repo("GET", "/pulls", pulls, f.listPulls)
	repo("GET", "/pulls/{number}", pulls, f.getPull)
	repo("PATCH", "/pulls/{number}", need{app: "pull_requests:write", role: "write"}, f.patchPull)
	repo("GET", "/issues/{number}/events", pulls, f.listEvents)
	repo("GET", "/issues/{number}/timeline", pulls, f.listTimeline)
	repo("GET", "/issues/{number}/comments", pulls, f.listComments)
	repo("POST", "/issues/{number}/comments", need{app: "pull_requests:write", role: "read"}, f.postComment)
	repo("GET", "/issues/{number}/labels", pulls, f.listIssueLabels)
	label := need{app: "pull_requests:write", role: "triage"}
	repo("POST", "/issues/{number}/labels", label, f.postIssueLabels)
	repo("DELETE", "/issues/{number}/labels/{name}", label, f.deleteIssueLabel)
	repo("GET", "/labels", pulls, f.listLabels)
	repo("POST", "/labels", need{app: "pull_requests:write", role: "write", hide: true}, f.postLabel)
	repo("GET", "/labels/{name}", pulls, f.getLabel)

	checks := need{app: "checks", role: "read"}
	repo("POST", "/check-runs", need{app: "checks:write", role: "read"}, f.postCheck)
	repo("PATCH", "/check-runs/{id}", need{app: "checks:write", role: "read"}, f.patchCheck)
	repo("GET", "/check-runs/{id}", checks, f.getCheck)
	repo("GET", "/commits/{ref}/check-runs", checks, f.listChecks)
	repo("POST", "/statuses/{sha}", need{app: "statuses:write", role: "write", hide: true}, f.postStatus)
	repo("GET", "/commits/{ref}/statuses", need{app: "statuses", role: "read"}, f.listStatuses)
	repo("GET", "/commits/{ref}/status", need{app: "statuses", role: "read"}, f.getCombined)

	actions := need{app: "actions", role: "read"}
	act := need{app: "actions:write", role: "write"}
	repo("POST", "/dispatches", need{app: "contents:write", role: "write", hide: true}, f.postDispatch)
	repo("GET", "/actions/workflows", actions, f.listWorkflows)
	repo("GET", "/actions/workflows/{file}", actions, f.getWorkflow)
	repo("POST", "/actions/workflows/{file}/dispatches", act, f.postWorkflowDispatch)
	repo("GET", "/actions/workflows/{file}/runs", actions, f.listRuns)
	repo("GET", "/actions/runs", actions, f.listRuns)
	repo("GET", "/actions/runs/{id}", actions, f.getRun)
	repo("POST", "/actions/runs/{id}/cancel", act, f.cancelRun)
	repo("POST", "/actions/runs/{id}/approve", act, f.approveRun)
	repo("POST", "/actions/runs/{id}/rerun", act, f.rerunRun)
	repo("GET", "/actions/permissions/fork-pr-contributor-approval", need{app: "administration", role: "admin"}, f.getForkApproval)

	hooks := need{app: "repository_hooks", role: "admin", hide: true}
	repo("GET", "/hooks", hooks, f.listHooks)
	repo("GET", "/hooks/{hook}", hooks, f.getHook)
	repo("GET", "/hooks/{hook}/deliveries", hooks, f.listDeliveries)
	repo("GET", "/hooks/{hook}/deliveries/{id}", hooks, f.getDelivery)
	repo("POST", "/hooks/{hook}/deliveries/{id}/attempts",
		need{app: "repository_hooks:write", role: "admin", hide: true}, f.redeliver)
	on("GET /app/hook/config", f.getAppHook)
	on("GET /app/hook/deliveries", f.listDeliveries)
	on("GET /app/hook/deliveries/{id}", f.getDelivery)
	on("POST /app/hook/deliveries/{id}/attempts", f.redeliver)
	return mux
}

func (f *Forge) getRateLimit(c *call) answer {
	rate := f.window(c.req, c.cred).view(f.limit)
	return ok(object{"rate": rate, "resources": object{
		"core": rate, "search": object{"limit": 30, "used": 0, "remaining": 30, "reset": rate["reset"], "resource": "search"},
	}})
}

func (f *Forge) getMeta(*call) answer {
	return ok(object{"verifiable_password_authentication": false, "hooks": []string{"127.0.0.0/8", "::1/128"}})
}

// Server is a Forge on a port of the loopback interface.
type Server struct {
	URL string // without a slash at the end; the API is at URL/ and URL/api/v3/

	http *http.Server
	done chan struct{}
}

// Start serves f on a free port and makes its links point there. Close ends it.
func (f *Forge) Start() (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // an address that needs no lookup: there is nothing to wait for
	if err != nil {
		return nil, fmt.Errorf("listen for the sandbox forge: %w", err)
	}
	s := &Server{
		URL:  "http://" + listener.Addr().String(),
		http: &http.Server{Handler: f, ReadHeaderTimeout: 10 * time.Second},
		done: make(chan struct{}),
	}
	f.mu.Lock()
	f.url = s.URL
	f.mu.Unlock()
	go func() { // joined by Close
		defer close(s.done)
		_ = s.http.Serve(listener) // answers ErrServerClosed, and nothing else once it listens
	}()
	return s, nil
}

// Close stops serving at once, cutting what is under way, and waits for the listener's end.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	if err != nil {
		return fmt.Errorf("close the sandbox forge: %w", err)
	}
	return nil
}

// stamp is GitHub's form of a time.
func stamp(t time.Time) string { return t.Format(time.RFC3339) }

// maybe is stamp where null means never.
func maybe(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

func node(kind string, id int64) string {
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%02d:%s%d", len(kind), kind, id))
}
