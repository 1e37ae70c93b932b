package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Hook is a webhook: a repository's, or an App's.
type Hook struct {
	ID int64

	f       *Forge
	repo    *Repo // of a repository's hook
	app     *App  // of an App's hook
	url     string
	events  []string // "*" = all
	secret  string
	created time.Time
}

// AddHook adds a repository webhook for these events ("*" = all). It begins with a ping.
func (r *Repo) AddHook(secret string, events ...string) *Hook {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	h := &Hook{ID: r.f.id(), f: r.f, repo: r, events: events, secret: secret, created: r.f.now()}
	r.f.hooks = append(r.f.hooks, h)
	r.f.ping(h)
	return h
}

// Delivery is one event for one webhook. Every webhook gets a GUID of its own; sending again keeps it.
type Delivery struct {
	Seq    int
	GUID   string
	Event  string
	Action string // "" where the event has none
	HookID int64
	Repo   *Repo // nil for an App's ping
	PR     int   // 0 where it is about no single pull request
	At     time.Time
	Body   []byte // as it is posted, byte for byte
	// Attempts are what came of sending it, oldest first; empty = still held back.
	Attempts []Attempt
}

// Attempt is one sending of a delivery, as GitHub's delivery log shows it.
type Attempt struct {
	ID         int64
	At         time.Time
	Status     int // HTTP status; 0 = no answer came
	Redelivery bool
	Duration   time.Duration // wall clock

	delivery *delivery
	answer   string
}

type delivery struct {
	Delivery
	hook    *Hook
	install int64
	queued  bool // among the due
}

// emit records an event for every webhook that asked for it and may see it. body is completed with repository,
// organization, sender and installation.
func (f *Forge) emit(event string, r *Repo, pr int, sender *User, body object, only *App) {
	for _, h := range f.hooks {
		wants := slices.Contains(h.events, event) || slices.Contains(h.events, "*")
		switch {
		case !wants, h.repo != nil && h.repo != r, only != nil && h.app != only:
			continue
		}
		full := maps.Clone(body)
		full["repository"], full["sender"] = f.repoView(r), f.userView(sender)
		if r.owner.kind == "Organization" {
			full["organization"] = f.organizationView(r.owner)
		}
		var install int64
		if h.app != nil {
			i := h.app.on(r)
			if i == nil {
				continue
			}
			install = i.ID
			full["installation"] = object{"id": i.ID, "node_id": node("IntegrationInstallation", i.ID)}
		}
		f.deliver(h, event, r, pr, install, full)
	}
}

func (f *Forge) deliver(h *Hook, event string, r *Repo, pr int, install int64, body object) {
	d := &delivery{hook: h, install: install, Delivery: Delivery{
		Seq: f.next(), GUID: f.guid(), Event: event, Action: text(body["action"]), HookID: h.ID, Repo: r, PR: pr, At: f.now(), Body: encode(body),
	}}
	f.deliveries = append(f.deliveries, d)
	f.queue(d)
}

// queue makes a delivery due.
func (f *Forge) queue(d *delivery) {
	if !d.queued {
		d.queued = true
		f.due = append(f.due, d)
		f.stirred.Broadcast()
	}
}

func (f *Forge) ping(h *Hook) {
	body := object{"zen": "One train, one token.", "hook_id": h.ID, "hook": f.hookView(h)}
	if h.repo != nil {
		body["repository"], body["sender"] = f.repoView(h.repo), f.userView(h.repo.owner)
	}
	f.deliver(h, "ping", h.repo, 0, 0, body)
}

func (f *Forge) deliverPull(p *PR, sender *User, action string, more object) {
	body := object{"action": action, "number": p.Number, "pull_request": f.pullView(p, p.pullState)}
	maps.Copy(body, more)
	f.emit("pull_request", p.repo, p.Number, sender, body, nil)
}

func (f *Forge) deliverComment(p *PR, sender *User, said *comment, action string, more object) {
	body := object{"action": action, "issue": f.issueView(p), "comment": f.commentView(p, said)}
	maps.Copy(body, more)
	f.emit("issue_comment", p.repo, p.Number, sender, body, nil)
}

// deliverCheck tells everybody of created and completed; what people ask of a check goes to its own App only.
func (f *Forge) deliverCheck(x *CheckRun, sender *User, action string, more object) {
	body := object{"action": action, "check_run": f.checkView(x)}
	maps.Copy(body, more)
	var only *App
	if action != "created" && action != "completed" {
		only = x.app
	}
	f.emit("check_run", x.repo, 0, sender, body, only)
}

func (f *Forge) deliverStatus(r *Repo, s *status) {
	body := f.statusView(r, s)
	delete(body, "node_id")
	delete(body, "url")
	body["sha"], body["name"], body["branches"] = s.sha, r.fullName(), []object{}
	body["commit"] = f.commitView(r, f.commits[s.sha])
	f.emit("status", r, 0, s.creator, body, nil)
}

func (f *Forge) deliverRun(x *Run, sender *User, action string) {
	pr := 0
	if x.pr != nil {
		pr = x.pr.Number
	}
	f.emit("workflow_run", x.repo, pr, sender, object{
		"action": action, "workflow_run": f.runView(x), "workflow": f.workflowView(x.repo, x.flow),
	}, nil)
}

// Deliveries answers all deliveries in the order in which they arose.
func (f *Forge) Deliveries() []Delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Delivery, 0, len(f.deliveries))
	for _, d := range f.deliveries {
		out = append(out, d.copy())
	}
	return out
}

func (d *delivery) copy() Delivery {
	c := d.Delivery
	c.Attempts = slices.Clone(d.Attempts)
	return c
}

// Due answers the deliveries that wait for being sent, in order: new ones, and those whose redelivery was asked for.
func (f *Forge) Due() []Delivery {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Delivery, 0, len(f.due))
	for _, d := range f.due {
		out = append(out, d.copy())
	}
	return out
}

// Sender posts deliveries to one address. What it does not send is held back: nothing is sent by itself before Auto.
type Sender struct {
	f      *Forge
	url    string
	client *http.Client

	closed bool // under f.mu
	wait   sync.WaitGroup
}

// NewSender makes a Sender for url. It waits 10 s for an answer, like GitHub.
func (f *Forge) NewSender(url string) *Sender {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hooks {
		h.url = url
	}
	return &Sender{f: f, url: url, client: &http.Client{Timeout: 10 * time.Second}}
}

// Send posts one delivery, the first time or again, and records the answer. An error means that there is no such
// delivery or that ctx ended; a refused connection is an Attempt of status 0.
func (s *Sender) Send(ctx context.Context, guid string) (Attempt, error) {
	s.f.mu.Lock()
	d := s.f.delivery(guid)
	if d != nil {
		s.f.undue(d)
	}
	s.f.mu.Unlock()
	if d == nil {
		return Attempt{}, fmt.Errorf("send delivery %q: there is none of this id", guid)
	}
	return s.post(ctx, d)
}

// Flush sends what is due, one after another in order, until nothing is.
func (s *Sender) Flush(ctx context.Context) error {
	for {
		s.f.mu.Lock()
		d := s.f.take()
		s.f.mu.Unlock()
		if d == nil {
			return nil
		}
		if _, err := s.post(ctx, d); err != nil {
			return err
		}
	}
}

// Drop loses a delivery on its way: the delivery log shows an attempt that nobody answered.
func (s *Sender) Drop(guid string) error {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	d := s.f.delivery(guid)
	if d == nil {
		return fmt.Errorf("drop delivery %q: there is none of this id", guid)
	}
	s.f.undue(d)
	s.f.attempt(d, 0, "", 0)
	return nil
}

// Auto sends deliveries as they arise, with this many at a time (with one, in order), until Close, or until ctx ends,
// which cuts what is under way. The caller must call Close.
func (s *Sender) Auto(ctx context.Context, workers int) {
	context.AfterFunc(ctx, s.stop)
	for range workers {
		s.wait.Go(func() {
			for {
				s.f.mu.Lock()
				for len(s.f.due) == 0 && !s.closed {
					s.f.stirred.Wait()
				}
				if s.closed {
					s.f.mu.Unlock()
					return
				}
				d := s.f.take()
				s.f.mu.Unlock()
				if _, err := s.post(ctx, d); err != nil {
					return // ctx has ended, and the delivery is due again
				}
			}
		})
	}
}

func (s *Sender) stop() {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.closed = true
	s.f.stirred.Broadcast()
}

// Close ends Auto: what is under way is finished, what is due stays due.
func (s *Sender) Close() {
	s.stop()
	s.wait.Wait()
	s.client.CloseIdleConnections()
}

func (f *Forge) delivery(guid string) *delivery {
	for _, d := range f.deliveries {
		if d.GUID == guid {
			return d
		}
	}
	return nil
}

// take takes the first due delivery, nil if there is none.
func (f *Forge) take() *delivery {
	if len(f.due) == 0 {
		return nil
	}
	d := f.due[0]
	f.undue(d)
	return d
}

func (f *Forge) undue(d *delivery) {
	d.queued = false
	f.due = slices.DeleteFunc(f.due, func(x *delivery) bool { return x == d })
}

func (s *Sender) post(ctx context.Context, d *delivery) (Attempt, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(d.Body))
	if err != nil {
		return Attempt{}, fmt.Errorf("send delivery %s: %w", d.GUID, err)
	}
	req.Header = d.headers()
	begun := time.Now()
	status, said := 0, ""
	res, err := s.client.Do(req)
	if err == nil {
		status = res.StatusCode
		b, _ := io.ReadAll(io.LimitReader(res.Body, 4096)) // the status has arrived, that is what counts
		said = string(b)
		_ = res.Body.Close()
	}
	if ctx.Err() != nil {
		s.f.mu.Lock()
		defer s.f.mu.Unlock()
		s.f.queue(d) // whether it arrived nobody knows
		return Attempt{}, fmt.Errorf("send delivery %s: %w", d.GUID, ctx.Err())
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	return *s.f.attempt(d, status, said, time.Since(begun)), nil
}

func (f *Forge) attempt(d *delivery, status int, said string, took time.Duration) *Attempt {
	a := &Attempt{
		ID: f.id(), At: f.now(), Status: status, Redelivery: len(d.Attempts) > 0, Duration: took, delivery: d, answer: said,
	}
	d.Attempts = append(d.Attempts, *a)
	f.attempts = append(f.attempts, a)
	return a
}

// Sign is GitHub's X-Hub-Signature-256 of a body.
func Sign(secret string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	return "sha256=" + hex.EncodeToString(mac.Sum(nil))
}

func (d *delivery) headers() http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("Accept", "*/*")
	h.Set("User-Agent", "GitHub-Hookshot/sandbox")
	h.Set("X-GitHub-Delivery", d.GUID)
	h.Set("X-GitHub-Event", d.Event)
	h.Set("X-GitHub-Hook-ID", strconv.FormatInt(d.HookID, 10))
	if d.hook.app != nil {
		h.Set("X-GitHub-Hook-Installation-Target-Type", "integration")
		h.Set("X-GitHub-Hook-Installation-Target-ID", strconv.FormatInt(d.hook.app.ID, 10))
	} else {
		h.Set("X-GitHub-Hook-Installation-Target-Type", "repository")
		h.Set("X-GitHub-Hook-Installation-Target-ID", strconv.FormatInt(d.hook.repo.ID, 10))
	}
	if d.hook.secret != "" {
		h.Set("X-Hub-Signature-256", Sign(d.hook.secret, d.Body))
	}
	return h
}

// hook finds the webhook an operation is about: the repository's that the path names, or the App's that signed.
func (c *call) hook() (*Hook, *answer) {
	if c.repo == nil {
		a, no := c.f.jwtApp(c.req)
		if no != nil {
			return nil, no
		}
		return a.Hook, nil
	}
	for _, h := range c.f.hooks {
		if h.repo == c.repo && h.ID == c.id("hook") {
			return h, nil
		}
	}
	return nil, notFound()
}

func (f *Forge) listHooks(c *call) answer {
	var found []*Hook
	for _, h := range f.hooks {
		if h.repo == c.repo {
			found = append(found, h)
		}
	}
	return c.page(views(found, f.hookView), "")
}

func (f *Forge) getHook(c *call) answer {
	h, no := c.hook()
	if no != nil {
		return *no
	}
	return ok(f.hookView(h))
}

// listDeliveries answers the attempts, newest first. The cursor of the Link header is the last attempt's id.
func (f *Forge) listDeliveries(c *call) answer {
	h, no := c.hook()
	if no != nil {
		return *no
	}
	q := c.req.URL.Query()
	size := number(q.Get("per_page"))
	if size <= 0 {
		size = 30
	}
	size = min(size, 100)
	cursor := int64(number(strings.TrimPrefix(q.Get("cursor"), "v1_")))
	if q.Get("cursor") != "" && cursor == 0 {
		return *fail(422, "Invalid cursor")
	}
	out := []object{}
	for _, a := range slices.Backward(f.attempts) {
		switch {
		case a.delivery.hook != h, cursor != 0 && a.ID >= cursor:
		case q.Get("status") == "success" && !a.fine(), q.Get("status") == "failure" && a.fine():
		case len(out) == size:
			q.Set("cursor", fmt.Sprintf("v1_%d", out[size-1]["id"]))
			link := fmt.Sprintf("<http://%s%s?%s>; rel=\"next\"", c.req.Host, c.req.URL.EscapedPath(), q.Encode())
			return answer{status: 200, body: out, header: http.Header{"Link": {link}}}
		default:
			out = append(out, f.attemptView(a))
		}
	}
	return ok(out)
}

func (a *Attempt) fine() bool { return a.Status >= 200 && a.Status < 400 }

func (c *call) attempt() (*Attempt, *answer) {
	h, no := c.hook()
	if no != nil {
		return nil, no
	}
	for _, a := range c.f.attempts {
		if a.delivery.hook == h && a.ID == c.id("id") {
			return a, nil
		}
	}
	return nil, notFound()
}

func (f *Forge) getDelivery(c *call) answer {
	a, no := c.attempt()
	if no != nil {
		return *no
	}
	v := f.attemptView(a)
	v["url"] = a.delivery.hook.url
	headers := object{}
	for name, values := range a.delivery.headers() {
		headers[name] = values[0]
	}
	v["request"] = object{"headers": headers, "payload": json.RawMessage(a.delivery.Body)}
	v["response"] = object{"headers": object{}, "payload": a.answer}
	return ok(v)
}

// redeliver makes the delivery due again: a Sender sends it, with the same GUID.
func (f *Forge) redeliver(c *call) answer {
	a, no := c.attempt()
	if no != nil {
		return *no
	}
	f.queue(a.delivery)
	return answer{status: 202, body: object{}}
}

func (f *Forge) attemptView(a *Attempt) object {
	d := a.delivery
	words := http.StatusText(a.Status)
	if a.Status == 0 {
		words = "failed to connect to host"
	}
	v := object{
		"id": a.ID, "guid": d.GUID, "delivered_at": stamp(a.At), "redelivery": a.Redelivery, "duration": a.Duration.Seconds(),
		"status": words, "status_code": a.Status, "event": d.Event, "action": nil, "installation_id": nil, "repository_id": nil,
		"throttled_at": nil,
	}
	if d.Action != "" {
		v["action"] = d.Action
	}
	if d.install != 0 {
		v["installation_id"] = d.install
	}
	if d.Repo != nil {
		v["repository_id"] = d.Repo.ID
	}
	return v
}

// config shows that there is a secret and never which.
func (h *Hook) config() object {
	v := object{"content_type": "json", "url": h.url, "insecure_ssl": "0"}
	if h.secret != "" {
		v["secret"] = "********"
	}
	return v
}

func (f *Forge) hookView(h *Hook) object {
	v := object{
		"id": h.ID, "name": "web", "active": true, "events": slices.Clone(h.events), "updated_at": stamp(h.created), "created_at": stamp(h.created),
		"config": h.config(),
	}
	if h.app != nil {
		v["type"], v["app_id"] = "App", h.app.ID
		v["deliveries_url"] = f.url + "/app/hook/deliveries"
		return v
	}
	api := f.apiURL(h.repo, "/hooks/", h.ID)
	v["type"], v["url"], v["test_url"], v["ping_url"], v["deliveries_url"] = "Repository", api, api+"/test", api+"/pings", api+"/deliveries"
	v["last_response"] = object{"code": nil, "status": "unused", "message": nil}
	for _, a := range slices.Backward(f.attempts) {
		if a.delivery.hook == h {
			v["last_response"] = object{"code": a.Status, "status": "active", "message": http.StatusText(a.Status)}
			break
		}
	}
	return v
}
