// Package page shows runs to people, where checks link to: as text for terminals, as a page that follows the log for
// browsers. All that stands in a log was chosen by a stranger; it reaches a browser as text, escaped here or set by the
// script as text.
package page

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/runner"
)

//go:embed page.html
var source string

const (
	// streamFor is how long one stream of events lasts: shorter than the server's timeout of a request, so that the
	// server ends it, and the browser asks for what follows.
	streamFor  = 45 * time.Second
	streamLook = time.Second // pause between two looks at a run
	maxStreams = 64          // of one process; anybody may open one, and each reads the pool once a look
)

// Fail answers a request with an error, in the form of everything else that is served beside the pages.
type Fail func(w http.ResponseWriter, status int, code, message string)

// pages answers for runs.
type pages struct {
	runners  *runner.Service
	draining func() bool
	fail     Fail
	page     *template.Template
	streams  chan struct{} // one token for each that is open
	look     time.Duration
}

// Serve adds the pages to mux. A run's key is in no list: who has the link may read the log. draining says that this
// instance is stopping: then streams end, and browsers come back to another.
func Serve(mux *http.ServeMux, s *runner.Service, draining func() bool, fail Fail) error {
	p, err := newPages(s, draining, fail)
	if err != nil {
		return err
	}
	mux.HandleFunc("GET /runs/{key}", p.show)
	mux.HandleFunc("GET /runs/{key}/events", p.events)
	return nil
}

func newPages(s *runner.Service, draining func() bool, fail Fail) (*pages, error) {
	page, err := template.New("page").Parse(source)
	if err != nil {
		return nil, fmt.Errorf("read the page of runs: %w", err)
	}
	return &pages{s, draining, fail, page, make(chan struct{}, maxStreams), streamLook}, nil
}

// view reads the run that the request names, or answers the request.
func (p *pages) view(w http.ResponseWriter, r *http.Request) (v runner.View, ok bool) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer") // the address may be all that keeps a log private
	v, err := p.runners.View(r.Context(), r.PathValue("key"))
	switch {
	case errors.Is(err, runner.ErrNoRun):
		p.fail(w, http.StatusNotFound, "not_found", "no such run is known here")
	case err != nil:
		p.fail(w, http.StatusServiceUnavailable, "store_unavailable", "the store does not answer")
	}
	return v, err == nil
}

// show writes a run and the logs of its tasks.
func (p *pages) show(w http.ResponseWriter, r *http.Request) {
	v, ok := p.view(w, r)
	if !ok {
		return
	}
	w.Header().Set("Vary", "Accept")
	if r.URL.Query().Has("text") || !strings.Contains(r.Header.Get("Accept"), "text/html") {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		p.text(r.Context(), w, v)
		return
	}
	nonce := rand.Text()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+nonce+"'; script-src 'nonce-"+nonce+
		"'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	if err := p.html(r.Context(), w, v, r.PathValue("key"), nonce); err != nil {
		panic(http.ErrAbortHandler) // half a page is told by a cut connection
	}
}

func (p *pages) text(ctx context.Context, w io.Writer, v runner.View) {
	fmt.Fprintf(w, "run %s: %s\n", v.Run.Key, v.State)
	states := map[string]string{}
	for _, j := range v.Jobs {
		states[j.Name] = j.State
	}
	for _, l := range v.Logs {
		fmt.Fprintf(w, "\n== %s, attempt %d (task %d): %s\n", l.Job, l.Attempt, l.Task, states[l.Job])
		if _, _, err := p.runners.WriteLog(ctx, w, l.Task, 0); errors.Is(err, runner.ErrLogGone) {
			fmt.Fprintf(w, "[%v]\n", err)
		} else if err != nil {
			fmt.Fprintln(w, "[the rest cannot be read now]")
			return
		}
	}
}

// html writes the page as far as the run has come; its script asks for what follows.
func (p *pages) html(ctx context.Context, w io.Writer, v runner.View, name, nonce string) error {
	type job struct {
		runner.JobView
		Anchor string
		Href   template.URL
	}
	head := struct {
		runner.View
		Path, Nonce string
		Jobs        []job
	}{View: v, Path: "/runs/" + name, Nonce: nonce}
	for _, j := range v.Jobs {
		a := runner.Anchor(j.Name)
		head.Jobs = append(head.Jobs, job{j, a, template.URL("#" + a)}) //nolint:gosec // escaped by Anchor
	}
	if err := p.page.ExecuteTemplate(w, "head", head); err != nil {
		return err
	}
	at := make(position, len(v.Logs))
	for _, j := range head.Jobs {
		if err := p.page.ExecuteTemplate(w, "job", j); err != nil {
			return err
		}
		for i, l := range v.Logs {
			if l.Job != j.Name {
				continue
			}
			if err := p.page.ExecuteTemplate(w, "log", l); err != nil {
				return err
			}
			next, _, err := p.runners.WriteLog(ctx, &htmlLines{w: w}, l.Task, 0)
			if errors.Is(err, runner.ErrLogGone) {
				_, err = fmt.Fprintf(w, "[%v]\n", err)
			}
			if err != nil {
				return err
			}
			at[i] = next
			if err := p.page.ExecuteTemplate(w, "end of log", nil); err != nil {
				return err
			}
		}
		if err := p.page.ExecuteTemplate(w, "end of job", j); err != nil {
			return err
		}
	}
	return p.page.ExecuteTemplate(w, "foot", struct {
		runner.View
		Path, Nonce, From string
	}{v, head.Path, nonce, at.String()})
}

// htmlLines writes lines of a log as HTML: the time of day apart, the rest escaped. Each Write is whole lines, or a piece of
// a very long one.
type htmlLines struct {
	w   io.Writer
	buf bytes.Buffer
}

// stampLen is the length of the time at the beginning of a line.
const stampLen = len("2006-01-02T15:04:05.000Z ")

func (h *htmlLines) Write(b []byte) (int, error) {
	h.buf.Reset()
	for line := range bytes.Lines(b) {
		if len(line) > stampLen && line[10] == 'T' && line[stampLen-1] == ' ' {
			h.buf.WriteString("<b>")
			template.HTMLEscape(&h.buf, line[11:19])
			h.buf.WriteString("</b> ")
			line = line[stampLen:]
		}
		template.HTMLEscape(&h.buf, line)
	}
	_, err := h.w.Write(h.buf.Bytes())
	return len(b), err
}

// position is how much of each log of a run, in the order of its tasks, a browser has.
type position []int

func (p position) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(p)), " ", "."), "[]")
}

// parsePosition takes what is no position for the beginning.
func parsePosition(s string) position {
	var p position
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil
		}
		p = append(p, n)
	}
	return p
}

// events streams what becomes of a run (server-sent events): "state" when a job's state changes, "log" with new lines of
// one task, "end" when nothing more comes. The id of an event is the position behind it, by which a browser that was
// cut off goes on.
func (p *pages) events(w http.ResponseWriter, r *http.Request) {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default: // answered without a look into the store
		w.Header().Set("Retry-After", "10")
		p.fail(w, http.StatusServiceUnavailable, "busy", "too many logs are followed here; the page can be reloaded")
		return
	}
	v, ok := p.view(w, r)
	if !ok {
		return
	}
	from := r.Header.Get("Last-Event-ID")
	if from == "" {
		from = r.URL.Query().Get("from")
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	s := stream{w: w, at: parsePosition(from), done: map[int64]bool{}}
	ctx, cancel := context.WithTimeout(r.Context(), streamFor)
	defer cancel()
	tick := time.NewTicker(p.look)
	defer tick.Stop()
	for !p.draining() {
		if err := s.send(ctx, p.runners, v); err != nil || v.Over {
			return // a browser that is cut off comes back
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var err error
		if v, err = p.runners.View(ctx, r.PathValue("key")); err != nil {
			return
		}
	}
}

// stream is one browser that follows a run.
type stream struct {
	w     http.ResponseWriter
	at    position
	state []byte // as last sent
	done  map[int64]bool
}

// send sends what is new.
func (s *stream) send(ctx context.Context, runners *runner.Service, v runner.View) error {
	state, err := json.Marshal(map[string]any{"state": v.State, "jobs": v.Jobs})
	if err != nil {
		return err
	}
	if !bytes.Equal(state, s.state) {
		if err := s.event("state", json.RawMessage(state)); err != nil {
			return err
		}
		s.state = state
	}
	known := len(s.at)
	for len(s.at) < len(v.Logs) {
		s.at = append(s.at, 0)
	}
	for i, l := range v.Logs {
		if s.done[l.Task] {
			continue
		}
		tell := func(part []byte) error {
			return s.event("log", map[string]any{"task": l.Task, "attempt": l.Attempt, "anchor": runner.Anchor(l.Job), "text": string(part)})
		}
		told := i < known
		next, more, err := runners.WriteLog(ctx, partwise(func(part []byte) error {
			told = true
			s.at[i]++ // the event's id is the position behind it
			return tell(part)
		}), l.Task, s.at[i])
		if err != nil && !errors.Is(err, runner.ErrLogGone) {
			return err
		}
		if !more {
			s.done[l.Task] = true
		}
		if s.at[i] = next; told {
			continue
		}
		if err := tell(nil); err != nil { // that there is one
			return err
		}
	}
	if v.Over {
		return s.event("end", struct{}{})
	}
	return s.event("", nil)
}

// partwise hands on a log as it is read, part by part: a stream keeps no whole log in memory.
type partwise func(part []byte) error

func (f partwise) Write(b []byte) (int, error) { return len(b), f(b) }

// event writes one event, or without data a sign of life, and sends it off.
func (s *stream) event(name string, data any) error {
	text := ":\n\n"
	if data != nil {
		b, err := json.Marshal(data)
		if err != nil {
			return err
		}
		text = fmt.Sprintf("event: %s\nid: %s\nretry: 1000\ndata: %s\n\n", name, s.at, b)
	}
	_, err := io.WriteString(s.w, text)
	return errors.Join(err, http.NewResponseController(s.w).Flush())
}
