package main

import (
	"bytes"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/runner"
)

const unitAndLint = "jobs:\n- {name: unit, runs-on: linux, steps: [{run: make}]}\n- {name: lint, runs-on: linux, steps: [{run: make}]}\n"

// beginRunners makes a world whose presubmits run on runners.
func beginRunners(t *testing.T, store string) *world {
	t.Helper()
	w := begin(t, store, "SIGNALBOX_TRIGGER=runner", "SIGNALBOX_URL="+reachedAt, "SIGNALBOX_ADMIN_TOKEN="+wardAdmin)
	w.wire.forge = w.forge // the description has no files of repositories
	w.must(w.repo.ServeGit(t.Context(), defined(t, unitAndLint)))
	return w
}

// at is what a command needs to reach a process.
func (s *server) at() []string { return []string{"SIGNALBOX_URL=" + s.url} }

// enlist registers a runner at a process.
func (w *world) enlist(s *server) *hand {
	w.Helper()
	return enlist(w.T, s.url, strings.TrimSpace(w.command(exitOK, "", s.at(), "runner", "token", "--labels", "linux")), "linux")
}

// granted is an outsider's pull request whose head was approved.
func (w *world) granted() *sandbox.PR {
	w.Helper()
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.labels(w.maya, pr)
	w.settle(pr)
	return pr
}

// shows waits until a commit shows the presubmit and its jobs so.
func (w *world) shows(p *sandbox.PR, sha, sum, unit, lint string) {
	w.Helper()
	for name, want := range map[string]string{"presubmit": sum, "presubmit / unit": unit, "presubmit / lint": lint} {
		if !eventually(func() bool { w.deliver(); return w.repo.Gate(sha, name) == want }) {
			w.Fatalf("%s at %.7s is %q, want %s; its story:\n%s", name, sha, w.repo.Gate(sha, name), want, w.told(p))
		}
	}
}

// An operator sees when each runner last spoke, and what it works on.
func TestRunnersAreListedWithTheirTasks(t *testing.T) {
	t.Parallel()
	w := beginRunners(t, fileStore(t))
	s := w.serve(1)[0]
	h, idle := w.enlist(s), w.enlist(s)
	w.granted()
	id, word := h.fetch()
	number, err := strconv.ParseInt(id, 10, 64)
	w.must(err)
	list := func() []runner.Listed {
		return decoded[[]runner.Listed](t, w.command(exitOK, "", s.at(), "runner", "list", "--output", "json"))
	}
	got := list()
	if len(got) != 2 || got[0].UUID != h.uuid || !slices.Equal(got[0].Tasks, []int64{number}) || got[1].UUID != idle.uuid || len(got[1].Tasks) > 0 {
		t.Errorf("listed %+v", got)
	}
	for _, l := range got {
		if l.Seen.IsZero() || !slices.Equal(l.Labels, []string{"linux"}) {
			t.Errorf("listed %+v", l)
		}
		w.command(exitOK, l.Seen.Format("2006-01-02T15:04:05Z07:00"), s.at(), "runner", "list")
	}
	w.command(exitOK, "["+id+"]", s.at(), "runner", "list")
	h.says(id, "SUCCESS", map[string]string{"verdict": word})
	if got := list(); len(got) != 2 || len(got[0].Tasks) > 0 {
		t.Errorf("listed after the end: %+v", got)
	}
}

// Whatever takes an approval back stops the job that runs for it, and the one that waits, and neither becomes green after.
func TestWhatEndsARunOnRunners(t *testing.T) {
	for name, act := range map[string]func(w *world, s *server, p *sandbox.PR){
		"push":             func(w *world, _ *server, p *sandbox.PR) { w.pushes(w.mallory, p) },
		"removal of label": func(w *world, _ *server, p *sandbox.PR) { w.unlabels(w.maya, p) },
		"close":            func(w *world, _ *server, p *sandbox.PR) { w.act(); p.Close(w.maya) },
		"revoke": func(w *world, s *server, _ *sandbox.PR) {
			w.command(exitOK, "", s.at(), "revoke", "github:octo/hello#1", "--reason", "not this one")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := beginRunners(t, fileStore(t))
			s := w.serve(1)[0]
			h := w.enlist(s)
			pr := w.granted()
			head := pr.Head()
			id, word := h.fetch()
			if told := h.says(id, "UNSPECIFIED", nil); told != "" && told != "UNSPECIFIED" {
				t.Fatalf("a job that is wanted is told %s", told)
			}
			w.shows(pr, head, "in_progress", "in_progress", "queued")
			act(w, s, pr)
			w.until("the runner is told to stop", func() bool {
				w.deliver()
				return h.says(id, "UNSPECIFIED", nil) == "CANCELLED"
			})
			if told := h.says(id, "SUCCESS", map[string]string{"verdict": word}); told != "CANCELLED" {
				t.Errorf("what says success after that is told %s", told)
			}
			var next lent
			if h.call("FetchTask", map[string]any{}, &next); next.Task.ID != "" {
				t.Errorf("the job that waited is lent: %+v", next)
			}
			w.settle(pr)
			w.shows(pr, head, "cancelled", "cancelled", "cancelled")
		})
	}
}

// holdup stands between a process and its Redis. Once a process has sent a write that contains the mark, nothing comes back
// to it any more.
type holdup struct {
	mark    []byte
	to      string
	reached chan struct{}
	once    sync.Once
}

func (h *holdup) listen(t *testing.T) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", h.to)
			if err != nil {
				_ = in.Close()
				return
			}
			wg.Go(func() { h.carry(out, in, false) })
			wg.Go(func() { h.carry(in, out, true) })
		}
	})
	return "redis://" + ln.Addr().String()
}

func (h *holdup) carry(to, from net.Conn, back bool) {
	defer to.Close()
	defer from.Close()
	var seen, buf []byte = nil, make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if !back {
			if seen = append(seen, buf[:n]...); bytes.Contains(seen, h.mark) {
				h.once.Do(func() { close(h.reached) })
			}
			seen = seen[max(0, len(seen)-len(h.mark)):]
		} else {
			select {
			case <-h.reached:
				continue
			default:
			}
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// The server dies after the assignment is saved and before it knows. The runner asks its next process with the key it had,
// and works on that very task.
func TestKillBetweenAssignmentAndAnswer(t *testing.T) {
	t.Parallel()
	r := redisStore(t)
	w := beginRunners(t, r.URL())
	first := w.serve(1)[0]
	h := w.enlist(first)
	pr := w.granted()
	first.signal(syscall.SIGTERM)
	first.wait()

	stop := &holdup{mark: []byte("payload/1"), to: strings.TrimPrefix(r.URL(), "redis://"), reached: make(chan struct{})}
	env := w.env
	w.env = append(slices.Clone(env), "SIGNALBOX_STORE="+stop.listen(t))
	dying := w.serve(1)[0]
	h.url, h.key = dying.url, "3f0c7a52-4f0c-4f6e-9d7e-2b8c7c1b9a10"
	answered := make(chan error, 1)
	go func() { answered <- h.try("FetchTask", map[string]any{}, &lent{}) }()
	w.until("the assignment is on its way", func() bool {
		select {
		case <-stop.reached:
			return true
		default:
			return false
		}
	})
	w.until("the assignment is saved", func() bool {
		v, err := actor.See(t.Context(), w.look(), poolSubject())
		w.must(err)
		return len(decoded[struct{ Tasks []struct{ ID int } }](t, string(v.Doc)).Tasks) == 1
	})
	dying.kill()
	if err := <-answered; err == nil {
		t.Fatal("the runner got an answer")
	}

	w.env = env
	h.url = w.serve(1)[0].url
	id, word := h.fetch()
	if id != "1" {
		t.Errorf("the runner gets task %s", id)
	}
	h.says(id, "SUCCESS", map[string]string{"verdict": word})
	h.key = "4f0c7a52-4f0c-4f6e-9d7e-2b8c7c1b9a10"
	if id, word = h.fetch(); id != "2" {
		t.Errorf("the other job is task %s", id)
	}
	h.says(id, "SUCCESS", map[string]string{"verdict": word})
	w.shows(pr, pr.Head(), "success", "success", "success")
}
