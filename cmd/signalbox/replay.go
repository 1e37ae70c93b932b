package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/forge/gitlab"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

type replayCmd struct {
	configured
	Files []string `arg:"" placeholder:"FILE" help:"JSON files, or the ids of stored deliveries as the log shows them: github:hook:GUID; on Redis SUBJECT@ID."`
	output
}

func (replayCmd) Help() string {
	return `Feeds deliveries through parse and decide, offline and in order, under the given configuration, and prints what would
have been decided. Nothing is asked of a forge and nothing is done: a fact that is not recorded beside the delivery is
unknown. The same files and configuration always print the same.

A file holds one JSON object or several, one after another: {"headers": {…}, "body": {…}}, GitHub's export of a delivery
(gh api /app/hook/deliveries/ID), GitLab's (glab api projects/ID/hooks/ID/events), or a payload alone. Beside "body", "facts" may say {"live": …, "labels": […],
"trusted": {"LOGIN": true}}.

Example:
  signalbox replay delivery.json
  signalbox replay github:hook:72d3162e-cc78-11e3-81ab-4c9367dc0958`
}

// recorded is a delivery in a file, or in the store.
type recorded struct {
	message
	Facts recordedFacts `json:"facts"`
	At    time.Time     `json:"delivered_at"`
	// GitHub's export keeps headers and body in Request, GitLab's under names of their own.
	Request struct {
		Headers map[string]any  `json:"headers"`
		Payload json.RawMessage `json:"payload"`
	} `json:"request"`
	RequestHeaders map[string]any  `json:"request_headers"`
	RequestData    json.RawMessage `json:"request_data"`

	instance, guid string // where the store knows them
}

// message is a request. Without an event its name is taken from the shape of the body, without an id its digest.
type message struct {
	Headers map[string]any  `json:"headers"`
	Body    json.RawMessage `json:"body"` // an object, or a string that holds its exact text
}

// parts are header and body as they arrived.
func (m message) parts() (http.Header, []byte) {
	header := http.Header{}
	for name, v := range m.Headers {
		if list, ok := v.([]any); ok && len(list) > 0 {
			v = list[0]
		}
		if s, ok := v.(string); ok {
			header.Set(name, s)
		}
	}
	var text string
	if json.Unmarshal(m.Body, &text) == nil {
		return header, []byte(text)
	}
	return header, m.Body
}

// recordedFacts are the facts of the moment of the delivery; what is missing is unknown.
type recordedFacts struct {
	Live    *forge.Pull        `json:"live"`
	Labels  []forge.LabelEntry `json:"labels"` // null = unknown
	Trusted map[string]bool    `json:"trusted"`
}

// replayed is what would have become of one delivery.
type replayed struct {
	Delivery string          `json:"delivery"`
	Event    string          `json:"event"`
	Action   string          `json:"action,omitempty"`
	Subject  string          `json:"subject,omitempty"`
	Ref      string          `json:"ref,omitempty"`
	Ignored  string          `json:"ignored,omitempty"` // why nothing is decided
	Story    []line          `json:"story,omitempty"`
	Wishes   []replayedWish  `json:"wishes,omitempty"`
	State    prmanager.State `json:"state,omitempty"`
	Waits    string          `json:"waits,omitempty"`
	bad      bool
}

type replayedWish struct {
	Class string `json:"class"`
	Kind  string `json:"kind"`
	Key   string `json:"key"`
}

// Run replays.
func (c replayCmd) Run(ctx context.Context, p process) error {
	cfg, err := c.ResolveOffline(p.environ, p.readFile)
	if err != nil {
		return err
	}
	r := newReplay(cfg)
	var out []replayed
	bad := 0
	for _, name := range c.Files {
		list, err := r.open(ctx, p, name)
		if err != nil {
			return err
		}
		for _, x := range list {
			one, err := r.deliver(ctx, x)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if out = append(out, one); one.bad {
				bad++
			}
		}
	}
	err = c.show(p.out, out, func(w io.Writer) {
		for _, x := range out {
			x.print(w)
		}
	})
	if err == nil && bad > 0 {
		err = fmt.Errorf("%d of %d deliveries cannot be read", bad, len(out))
	}
	return err
}

// replay keeps what the deliveries so far have led to.
type replay struct {
	cfg   Config
	facts recordedFacts // of the delivery at hand
	gate  *prmanager.Behaviour
	pulls map[state.Subject]*replayedPull
	heard map[string]bool
	pins  map[string]int64
}

type replayedPull struct {
	doc prmanager.PR
	now time.Time
	seq int64
}

func newReplay(cfg Config) *replay {
	r := &replay{cfg: cfg, pulls: map[state.Subject]*replayedPull{}, heard: map[string]bool{}, pins: map[string]int64{}}
	r.gate = prmanager.New(prmanager.Config{
		Forge: func(instance string) (prmanager.Forge, error) {
			app := false
			for _, f := range cfg.Forges {
				app = app || f.Name == instance && f.AppID != 0
			}
			return prmanager.Forge{Name: "the record", Self: prmanager.Self{App: app}, Reader: r}, nil
		},
		Policy: wiring{cfg: cfg}.policy, Pins: r,
	})
	return r
}

var _ prmanager.Reader = (*replay)(nil)

// unrecorded is the answer to what nobody wrote down.
func unrecorded(op string) error {
	return &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("not recorded")}
}

// Pull answers the recorded live pull request.
func (r *replay) Pull(context.Context, forge.Ref) (forge.Pull, error) {
	if r.facts.Live == nil {
		return forge.Pull{}, unrecorded("read pull request")
	}
	return *r.facts.Live, nil
}

// LabelHistory answers the recorded label history.
func (r *replay) LabelHistory(context.Context, forge.Ref) ([]forge.LabelEntry, error) {
	if r.facts.Labels == nil {
		return nil, unrecorded("read label history")
	}
	return r.facts.Labels, nil
}

// Trusted answers whether somebody was trusted, by whatever rule.
func (r *replay) Trusted(_ context.Context, _ forge.Repo, who forge.Actor, _ forge.Rule) (bool, error) {
	for login, yes := range r.facts.Trusted {
		if strings.EqualFold(login, who.Login) {
			return yes, nil
		}
	}
	return false, unrecorded("look up trust")
}

// Pushed takes the deliveries at their word.
func (*replay) Pushed(context.Context, forge.Branch, forge.Actor) (bool, error) { return true, nil }

// Pin remembers for as long as the replay lasts.
func (r *replay) Pin(_ context.Context, instance, login string, id int64) (int64, error) {
	key := instance + "/" + login
	if r.pins[key] == 0 {
		r.pins[key] = id
	}
	return r.pins[key], nil
}

// storedForm is the id of a stored delivery, with its subject before it where the store needs that.
var storedForm = regexp.MustCompile(`^(?:([^@]+/[^@]+/[^@]+/[^@]+)@)?([a-z0-9-]{1,32}:hook:[A-Za-z0-9_-]{1,64})$`)

// open reads a file, or a delivery out of the store.
func (r *replay) open(ctx context.Context, p process, name string) ([]recorded, error) {
	if m := storedForm.FindStringSubmatch(name); m != nil {
		body, err := r.stored(ctx, m[1], m[2])
		if err != nil {
			return nil, err
		}
		instance, guid, _ := strings.Cut(m[2], ":hook:")
		return []recorded{{message: message{Body: body}, instance: instance, guid: guid}}, nil
	}
	text, err := p.readFile(name)
	if err != nil {
		return nil, err
	}
	var out []recorded
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("%s: not JSON from byte %d on", name, d.InputOffset())
		}
		var list []json.RawMessage
		if json.Unmarshal(raw, &list) != nil {
			list = []json.RawMessage{raw}
		}
		for _, one := range list {
			var x recorded
			if err := json.Unmarshal(one, &x); err != nil {
				return nil, fmt.Errorf("%s: delivery %d: expected an object with headers and body", name, len(out)+1)
			}
			switch {
			case x.Request.Payload != nil:
				x.message = message{x.Request.Headers, x.Request.Payload}
			case x.RequestData != nil:
				x.message = message{x.RequestHeaders, x.RequestData}
			case x.Body == nil:
				x.Body = one
			}
			out = append(out, x)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: holds no delivery", name)
	}
	return out, nil
}

func (r *replay) stored(ctx context.Context, subject, id string) ([]byte, error) {
	at, err := state.ParseSubject(subject)
	if err != nil && (subject != "" || r.cfg.Store.Scheme != "file") { // the file finds a body by its id alone
		return nil, usageError{fmt.Errorf("%s: in this store a delivery is found by its subject: write SUBJECT@ID, both as the log shows them", id)}
	}
	body, err := lookInto(ctx, r.cfg.Store, func(a admin, ctx context.Context) ([]byte, error) { return a.store.Raw(ctx, at, id) })
	if errors.Is(err, state.ErrNotFound) {
		return nil, fmt.Errorf("%s: no such delivery is stored, or no more: bodies are kept for seven days", id)
	}
	return body, err
}

// deliver takes one delivery through parse and decide.
func (r *replay) deliver(ctx context.Context, x recorded) (replayed, error) {
	header, body := x.parts()
	instance, hook, err := r.hook(x, header, body)
	if err != nil {
		return replayed{}, err
	}
	to, err := hook.Route(header, body)
	out := replayed{Delivery: to.GUID, Event: to.Event, Action: to.Action}
	id := instance + ":hook:" + to.GUID
	switch {
	case err != nil:
		out.Ignored, out.bad = err.Error(), true
	case to.Ping:
		out.Ignored = "a greeting"
	case to.Ignored != "":
		out.Ignored = to.Ignored
	case !r.cfg.Allowed(to.Repo):
		out.Ignored = "SIGNALBOX_REPOS does not name " + to.Repo.Name
	case r.heard[id]:
		out.Ignored = "it arrived before: a delivery takes effect once"
	}
	if out.Ignored != "" {
		return out, nil
	}
	r.heard[id] = true
	s := state.Subject{Instance: instance, Project: to.Project, Kind: to.Kind, Key: to.Key}
	out.Subject = s.String()
	if s.Kind != "pr" {
		out.Ignored = "mail for another kind of subject; only pull requests are replayed"
		return out, nil
	}
	r.facts = x.Facts
	err = r.decide(ctx, s, state.Mail{ID: id, Kind: to.MailKind, Format: to.Format, At: x.At, Body: to.Body}, &out)
	return out, err
}

// decide lets the pull request look at the recorded facts and decide. Effects are not done, and not answered.
func (r *replay) decide(ctx context.Context, s state.Subject, m state.Mail, out *replayed) error {
	p := r.pulls[s]
	if p == nil {
		p = &replayedPull{}
		r.pulls[s] = p
	}
	for _, t := range []time.Time{m.At, mailTime(m.Body)} {
		if t.After(p.now) {
			p.now = t
		}
	}
	p.seq++
	m.Seq, m.At = p.seq, p.now
	in := actor.Inputs{Mail: []state.Mail{m}}
	step := r.gate.Decide(s, p.doc, r.gate.Look(ctx, s, p.doc, in, p.now), in, p.now)
	if len(step.Dead) > 0 {
		out.Ignored, out.bad = "cannot be read: "+step.Dead[0].Reason, true
		return nil
	}
	p.doc = prmanager.PR{} // as a store would give it back
	if err := json.Unmarshal(mustJSON(step.Next), &p.doc); err != nil {
		return fmt.Errorf("keep the document of %s: %w", s, err)
	}
	var err error
	if out.Story, err = lines(step.Journal); err != nil {
		return fmt.Errorf("read the story of %s: %w", s, err)
	}
	for _, w := range step.Wishes {
		out.Wishes = append(out.Wishes, replayedWish{w.Class.String(), w.Kind, w.Key})
	}
	out.Ref, out.State, out.Waits = p.doc.Ref.String(), p.doc.State(), p.doc.Waits()
	return nil
}

// mailTime is when a mail says that it happened, in the forge's time.
func mailTime(body []byte) time.Time {
	var m struct {
		At   time.Time `json:"at"`
		Pull struct {
			UpdatedAt time.Time `json:"updated_at"`
		} `json:"pull"`
	}
	if json.Unmarshal(body, &m) != nil {
		return time.Time{}
	}
	if m.At.IsZero() {
		return m.Pull.UpdatedAt
	}
	return m.At
}

// hook is the receiving side that a delivery is for, which verifies nothing. Headers that the record lacks are added: the
// event by the shape of the body, and an id.
func (r *replay) hook(x recorded, header http.Header, body []byte) (instance string, hook forgeHook, err error) {
	const unverified = "nothing is verified here"
	lacks := func(name, value string) {
		if value != "" && header.Get(name) == "" {
			header.Set(name, value)
		}
	}
	var has map[string]json.RawMessage
	_ = json.Unmarshal(body, &has) // what is no object has nothing, and Route says so
	var object string              // GitLab's
	_ = json.Unmarshal(has["object_kind"], &object)
	kind := kindGitHub
	if object != "" || header.Get("X-Gitlab-Event") != "" {
		kind = kindGitLab
	}
	instance = x.instance
	for _, f := range r.cfg.Forges {
		if instance == "" && f.Kind == kind {
			instance = f.Name
		}
	}
	instance = cmp.Or(instance, kind)
	if kind == kindGitLab {
		lacks("X-Gitlab-Event", object)
		lacks("Idempotency-Key", x.guid)
		hook, err = gitlab.NewHook(gitlab.HookOptions{Instance: instance, Secrets: []string{unverified}, Now: time.Now})
		return instance, hook, err
	}
	event := "unknown"
	for _, member := range []string{"pull_request", "merge_group", "workflow_run", "check_run", "comment"} {
		if has[member] != nil {
			event = member // the last: a comment comes with more than itself
		}
	}
	if event == "comment" {
		event = "issue_comment"
	}
	sum := sha256.Sum256(body)
	lacks("X-GitHub-Event", event)
	lacks("X-GitHub-Delivery", cmp.Or(x.guid, hex.EncodeToString(sum[:8])))
	hook, err = github.NewHook(instance, []string{unverified})
	return instance, hook, err
}

func (x replayed) print(w io.Writer) {
	what := strings.TrimSpace(x.Event + " " + x.Action)
	fmt.Fprintln(w, strings.TrimSpace(what+"  "+x.Delivery+"  "+x.Ref))
	if x.Ignored != "" {
		fmt.Fprintf(w, "    nothing is decided: %s\n", x.Ignored)
		return
	}
	for _, l := range x.Story {
		fmt.Fprint(w, "    ")
		l.print(w)
	}
	if len(x.Story) == 0 {
		fmt.Fprintln(w, "    nothing changes")
	}
	for _, d := range x.Wishes {
		fmt.Fprintf(w, "    would do (%s): %s %s\n", d.Class, d.Kind, d.Key)
	}
	fmt.Fprintf(w, "    %s: %s\n", x.State, x.Waits)
}
