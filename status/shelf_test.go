package status

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Further ways in which a write may end.
const (
	late   fail = 100 + iota // no answer, takes effect up to 40 s later
	absent                   // 404
)

// shelf is a forge with statuses: it appends whatever it is told and shows the newest, as all of them do.
type shelf struct {
	clock   func() time.Time
	fate    func() fail // of each write; nil = works
	delay   func() time.Duration
	unseen  error // for each look
	landed  []forge.Status
	coming  []arrival
	calls   int
	finds   int
	classes []forge.Urgency
	onPost  func(context.Context, forge.Status)
}

type arrival struct {
	at time.Time
	s  forge.Status
}

// arrive lets what is on its way land.
func (h *shelf) arrive() {
	slices.SortStableFunc(h.coming, func(a, b arrival) int { return a.at.Compare(b.at) })
	for len(h.coming) > 0 && !h.coming[0].at.After(h.clock()) {
		h.landed = append(h.landed, h.coming[0].s)
		h.coming = h.coming[1:]
	}
}

func (h *shelf) shown(context, ref string) (forge.Status, int) {
	h.arrive()
	for i, s := range slices.Backward(h.landed) {
		if s.Context == context && s.Ref == ref {
			return s, i + 1
		}
	}
	return forge.Status{}, 0
}

func (h *shelf) FindStatus(_ context.Context, s forge.Status) (forge.StatusReceipt, bool, error) {
	h.finds++
	if h.unseen != nil {
		return forge.StatusReceipt{}, false, h.unseen
	}
	is, id := h.shown(s.Context, s.Ref)
	if id == 0 || is.Run != s.Run {
		return forge.StatusReceipt{}, false, nil
	}
	same := Content{State: is.State, TargetURL: is.TargetURL, Description: is.Description, Coverage: is.Coverage}.same(
		Content{State: s.State, TargetURL: s.TargetURL, Description: s.Description, Coverage: s.Coverage})
	return receiptNo(id), same, nil
}

func receiptNo(id int) forge.StatusReceipt {
	return forge.StatusReceipt{ID: strconv.Itoa(id), PipelineID: 77}
}

func (h *shelf) WriteStatus(ctx context.Context, s forge.Status) (forge.StatusReceipt, error) {
	h.arrive()
	h.calls++
	h.classes = append(h.classes, forge.UrgencyOf(ctx))
	if h.onPost != nil {
		h.onPost(ctx, s)
	}
	f := works
	if h.fate != nil {
		f = h.fate()
	}
	switch f {
	case works, lost:
		h.landed = append(h.landed, s)
		return receiptNo(len(h.landed)), f.err()
	case late:
		h.coming = append(h.coming, arrival{h.clock().Add(h.delay()), s})
		return forge.StatusReceipt{}, lost.err()
	case absent:
		return forge.StatusReceipt{}, &forge.Fault{Class: forge.NotFound, Op: "write status", Status: 404, Err: errors.New("no such commit")}
	}
	return forge.StatusReceipt{}, f.err()
}

// The loop as the store that clients' reads need.

func (l *loop) Load(context.Context, state.Subject) (state.Snapshot, error) {
	return state.Snapshot{Version: 1, Now: l.now, Doc: encoded(struct {
		Format int           `json:"format"`
		Doc    Document      `json:"doc"`
		Outbox []actor.Entry `json:"outbox"`
	}{1, l.document(), l.outbox})}, nil
}

func (l *loop) Record(_ context.Context, _ state.Subject, key string) ([]byte, error) {
	if v, ok := l.records[key]; ok {
		return v, nil
	}
	return nil, state.ErrNotFound
}

func (l *loop) clients() *Clients {
	return &Clients{store: l, ours: func(_ forge.Repo, name string) bool { return name == "reserved" }}
}

// ask is one Ask, as Clients.accept makes it.
func (l *loop) ask(f func(c *Clients, t *decision) (Accepted, error)) (Accepted, error) {
	l.t.Helper()
	before := l.doc
	t := &decision{s: subject, d: l.document().clone(), now: l.now}
	t.d.Repo = repo
	a, err := f(l.clients(), t)
	if string(before) != string(l.doc) {
		l.t.Fatalf("an acceptance changed the document it was given")
	}
	if err != nil {
		return a, err
	}
	l.save(t.step())
	l.wake = l.now
	return a, nil
}

var team = Caller{Principal: "team"}

func (l *loop) create(r Create, by ...Caller) (Accepted, error) {
	l.t.Helper()
	return l.ask(func(c *Clients, t *decision) (Accepted, error) {
		return c.creating(l.t.Context(), t, append(by, team)[0], r)
	})
}

func (l *loop) update(run string, r Update, by ...Caller) (Accepted, error) {
	l.t.Helper()
	return l.ask(func(c *Clients, t *decision) (Accepted, error) {
		return c.updating(l.t.Context(), t, append(by, team)[0], run, r)
	})
}

func (l *loop) post(r Create, by ...Caller) (Accepted, error) {
	l.t.Helper()
	return l.ask(func(c *Clients, t *decision) (Accepted, error) { return t.post(append(by, team)[0], r, c.ours) })
}

func (l *loop) withdraw(op string) bool {
	l.t.Helper()
	_, run, n, _ := parseOperation(subject.Instance, op)
	did := false
	_, _ = l.ask(func(_ *Clients, t *decision) (Accepted, error) {
		if did = t.withdraw(run, n); !did {
			return Accepted{}, errNothing
		}
		return Accepted{}, nil
	})
	return did
}

// operation reads one; nil = there is none.
func (l *loop) operation(id string) *Operation {
	l.t.Helper()
	o, err := l.clients().Operation(l.t.Context(), subject.Instance, id)
	var r *Refusal
	if errors.As(err, &r) && r.Code == CodeNotFound {
		return nil
	}
	if err != nil {
		l.t.Fatalf("read %s: %v", id, err)
	}
	return &o
}

// rest works until nothing is left to do now; readBacks that are planned stay planned.
func (l *loop) rest() {
	l.t.Helper()
	for range 10_000 {
		if l.step() {
			continue
		}
		var next time.Time
		for _, x := range l.outbox {
			if next.IsZero() || x.NotBefore.Before(next) {
				next = x.NotBefore
			}
		}
		if next.IsZero() {
			return
		}
		l.now = next
	}
	l.t.Fatalf("the loop does not come to rest: outbox %s", encoded(l.outbox))
}

func said(s forge.StatusState, text ...string) Content {
	return Content{State: s, Description: cmp.Or(append(text, "")...)}
}
