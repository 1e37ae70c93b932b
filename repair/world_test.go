package repair

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// world is a forge in memory, a store in memory, and the engine's loop on virtual time: what the sweep decides is done
// at the time it asked for.
type world struct {
	t     testing.TB
	b     *Behaviour
	now   time.Time
	every time.Duration

	subjects map[state.Subject]*subject
	pulls    map[string][]Pull // by repository
	repos    []string
	installs []int64 // nil = a token
	log      []attempt
	nolog    error
	fail     func(op string) error // nil = never
	calls    int

	docs    map[state.Subject]prmanager.PR
	records map[string][]byte
	slow    map[state.Subject]bool // never looks at itself
	told    []sent
	asked   []sent
	heard   map[string]bool // ids of mail: the store takes each once
	named   []string
	biggest int
}

type subject struct {
	doc    Sweep
	outbox map[string]actor.Entry
	mail   []state.Mail
	done   []actor.Result
	wake   time.Time
	why    []string
	log    []string // what was said in the log of trouble
	index  []state.Index
}

type attempt struct {
	guid, event string
	id          int64
	at          time.Time
	code        int
}

type sent struct {
	at      time.Time
	what    string // subject, or delivery
	id      string
	unknown bool
}

const pageOf = 7

var start = time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)

func newWorld(t testing.TB, repos ...string) *world {
	w := &world{
		t: t, now: start, every: time.Minute, repos: repos, subjects: map[state.Subject]*subject{}, pulls: map[string][]Pull{},
		docs: map[state.Subject]prmanager.PR{}, records: map[string][]byte{}, heard: map[string]bool{}, slow: map[state.Subject]bool{}, named: repos,
	}
	w.make(Config{Adopt: true})
	return w
}

func (w *world) make(c Config) {
	c.Forge = func(string) (Forge, error) {
		return Forge{Lister: w, Log: w, Named: w.named, Handles: func(e string) bool { return e == "pull_request" }}, nil
	}
	c.Allowed = func(r forge.Repo) bool { return !strings.HasPrefix(r.Name, "foreign/") }
	c.Store, c.Tell, c.Every, c.Pace = w, w.tell, w.every, Unhurried()
	w.b = New(c)
}

// open adds an open pull request that is that old.
func (w *world) open(repo string, age time.Duration) forge.Ref {
	ref := forge.Ref{Repo: w.repo(repo), Number: len(w.pulls[repo]) + 1}
	w.pulls[repo] = append(w.pulls[repo], Pull{Ref: ref, Open: true, CreatedAt: w.now.Add(-age), UpdatedAt: w.now.Add(-age)})
	return ref
}

func (w *world) repo(name string) forge.Repo {
	id := int64(slices.Index(w.repos, name) + 1)
	r := forge.Repo{Instance: "github", ID: id, Name: name}
	if w.installs != nil {
		r.Installation = w.installs[int(id-1)%len(w.installs)]
	}
	return r
}

func (w *world) pull(ref forge.Ref) *Pull {
	return &w.pulls[ref.Repo.Name][ref.Number-1]
}

// know gives the pull request a document as of now.
func (w *world) know(ref forge.Ref) {
	p := w.pull(ref)
	w.docs[prmanager.Subject(ref)] = prmanager.PR{Ref: ref, SeenAt: p.UpdatedAt, Open: p.Open}
}

func (w *world) sweeper() state.Subject {
	if w.installs != nil {
		return Subject("github", Root)
	}
	return Subject("github", Token)
}

func (w *world) seed() {
	x := w.subject(w.sweeper())
	step := w.b.Seed(x.doc, w.now)
	x.doc, x.wake, x.index = step.Next, step.Wake, step.Index
}

func (w *world) subject(s state.Subject) *subject {
	if w.subjects[s] == nil {
		w.subjects[s] = &subject{outbox: map[string]actor.Entry{}}
	}
	return w.subjects[s]
}

func (w *world) order(s state.Subject, o Order) {
	x := w.subject(s)
	x.mail = append(x.mail, state.Mail{Seq: 1, Kind: KindOrder, Format: Format, Body: mustJSON(o)})
}

// run lets d pass.
func (w *world) run(d time.Duration) {
	end := w.now.Add(d)
	for {
		var first *subject
		var who state.Subject
		at := end.Add(1)
		for _, s := range slices.SortedFunc(maps.Keys(w.subjects), func(a, b state.Subject) int { return strings.Compare(a.Key, b.Key) }) {
			x := w.subjects[s]
			if t := x.due(); !t.IsZero() && t.Before(at) {
				at, first, who = t, x, s
			}
		}
		if first == nil {
			w.now = end
			return
		}
		w.now = later(w.now, at)
		w.turn(who, first)
	}
}

func (x *subject) due() time.Time {
	if len(x.mail) > 0 || len(x.done) > 0 {
		return start
	}
	at := x.wake
	for _, e := range x.outbox {
		if at.IsZero() || e.NotBefore.Before(at) {
			at = later(e.NotBefore, start)
		}
	}
	return at
}

func (w *world) turn(s state.Subject, x *subject) {
	ctx := w.t.Context()
	for _, k := range slices.Sorted(maps.Keys(x.outbox)) {
		e := x.outbox[k]
		if e.NotBefore.After(w.now) {
			continue
		}
		delete(x.outbox, k)
		if e.To != nil {
			to := w.subject(*e.To)
			to.mail = append(to.mail, state.Mail{Seq: 1, Kind: e.Kind, Format: 1, Body: e.Want})
			continue
		}
		out := w.b.Do(ctx, s, e, w.now, nil)
		switch out.Code {
		case actor.Done, actor.Refused:
			x.done = append(x.done, actor.Result{Key: e.Key, Kind: e.Kind, Want: e.Want, Code: out.Code})
		default:
			e.NotBefore = w.now.Add(5 * time.Second)
			x.outbox[k] = e
		}
	}
	in := actor.Inputs{Mail: x.mail, Results: x.done}
	if len(in.Mail)+len(in.Results) == 0 && (x.wake.IsZero() || x.wake.After(w.now)) {
		return
	}
	calls := w.calls
	facts := w.b.Look(ctx, s, x.doc, in, w.now)
	if n := w.calls - calls; n > calls0 {
		w.t.Errorf("%d calls to the forge in one look", n)
	}
	step := w.b.Decide(s, x.doc, facts, in, w.now)
	if again := w.b.Decide(s, x.doc, facts, in, w.now); string(mustJSON(again)) != string(mustJSON(step)) {
		w.t.Errorf("two decisions on the same facts differ")
	}
	var doc Sweep
	if err := json.Unmarshal(mustJSON(step.Next), &doc); err != nil { // as a store keeps it
		w.t.Fatal(err)
	}
	w.biggest = max(w.biggest, len(mustJSON(step.Next)))
	x.doc, x.mail, x.done, x.wake, x.index = doc, nil, nil, step.Wake, step.Index
	x.why = append(x.why, step.Why...)
	if step.Trouble != "" {
		x.log = append(x.log, step.Trouble)
	}
	if !x.wake.IsZero() && !x.wake.After(w.now) {
		w.t.Fatalf("%s wakes at once: a busy loop", s)
	}
	for _, r := range step.Put {
		w.records[s.String()+r.Key] = r.Value
	}
	for _, wish := range step.Wishes {
		if old, ok := x.outbox[wish.Key]; ok && string(old.Want) == string(wish.Want) {
			continue
		}
		x.outbox[wish.Key] = actor.Entry{Wish: wish}
	}
	if len(x.outbox) > 150 {
		w.t.Fatalf("%d entries in the outbox", len(x.outbox))
	}
}

const calls0 = calls + 1 // the list of repositories may be the last

func (w *world) tell(_ context.Context, d state.Delivery) (state.Accepted, error) {
	if w.heard[d.ID] {
		return state.Accepted{Duplicate: true}, nil
	}
	w.heard[d.ID] = true
	var r prmanager.Repair
	if err := json.Unmarshal(d.Body, &r); err != nil || d.Kind != prmanager.KindReconcile || prmanager.Subject(r.Ref) != d.Subject {
		w.t.Errorf("told %s a %s of %s", d.Subject, d.Kind, d.Body)
	}
	_, known := w.docs[d.Subject]
	w.told = append(w.told, sent{w.now, d.Subject.String(), d.ID, !known})
	if !w.slow[d.Subject] {
		w.know(r.Ref)
	}
	return state.Accepted{Seq: 1}, nil
}

// Store

func (w *world) Load(_ context.Context, s state.Subject) (state.Snapshot, error) {
	pr, ok := w.docs[s]
	if !ok {
		return state.Snapshot{Now: w.now}, nil
	}
	return state.Snapshot{Version: 1, Now: w.now, Doc: mustJSON(map[string]any{"format": 1, "doc": pr})}, nil
}

func (w *world) Record(_ context.Context, s state.Subject, key string) ([]byte, error) {
	if b, ok := w.records[s.String()+key]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("record: %w", state.ErrNotFound)
}

func (w *world) List(_ context.Context, index, prefix string, limit int) ([]state.Entry, error) {
	var out []state.Entry
	for s, d := range w.docs {
		if l := d.Ref.String(); strings.HasPrefix(l, prefix) {
			out = append(out, state.Entry{Subject: s, Index: state.Index{Name: index, Label: l}})
		}
	}
	slices.SortFunc(out, func(a, b state.Entry) int { return strings.Compare(a.Label, b.Label) })
	return out[:min(limit, len(out))], nil
}

// Forge

func (w *world) call(op string) error {
	w.calls++
	if w.fail != nil {
		return w.fail(op)
	}
	return nil
}

func cut[T any](list []T, page int) ([]T, int) {
	from := min((page-1)*pageOf, len(list))
	to := min(from+pageOf, len(list))
	if to < len(list) {
		return slices.Clone(list[from:to]), page + 1
	}
	return slices.Clone(list[from:to]), 0
}

func (w *world) Installations(_ context.Context, page int) ([]int64, int, error) {
	if err := w.call("installations"); err != nil {
		return nil, 0, err
	}
	ids, next := cut(w.installs, page)
	return ids, next, nil
}

func (w *world) Repos(_ context.Context, installation int64, page int) ([]forge.Repo, int, error) {
	if err := w.call("repos"); err != nil {
		return nil, 0, err
	}
	var list []forge.Repo
	for _, name := range w.repos {
		if r := w.repo(name); r.Installation == installation {
			list = append(list, r)
		}
	}
	repos, next := cut(list, page)
	return repos, next, nil
}

func (w *world) Updated(_ context.Context, repo forge.Repo, since time.Time, page int) ([]Pull, int, error) {
	if err := w.call("updated " + repo.Name); err != nil {
		return nil, 0, err
	}
	list := slices.Clone(w.pulls[repo.Name])
	slices.SortStableFunc(list, func(a, b Pull) int { return b.UpdatedAt.Compare(a.UpdatedAt) })
	out, next := cut(list, page)
	if i := slices.IndexFunc(out, func(p Pull) bool { return p.UpdatedAt.Before(since) }); i >= 0 {
		out, next = out[:i], 0
	}
	return out, next, nil
}

func (w *world) Open(_ context.Context, repo forge.Repo, page int) ([]Pull, int, error) {
	if err := w.call("open " + repo.Name); err != nil {
		return nil, 0, err
	}
	out, next := cut(slices.DeleteFunc(slices.Clone(w.pulls[repo.Name]), func(p Pull) bool { return !p.Open }), page)
	return out, next, nil
}

func (w *world) Failed(_ context.Context, repo forge.Repo, since time.Time, from string) ([]Delivery, string, error) {
	if err := w.call("log"); err != nil {
		return nil, "", err
	}
	if w.nolog != nil {
		return nil, "", w.nolog
	}
	page, _ := split(from)
	newest := slices.Clone(w.log)
	slices.Reverse(newest)
	list, next := cut(newest, page)
	fine := map[string]bool{}
	for _, a := range newest { // one call of the real one reads far more than our page
		fine[a.guid] = fine[a.guid] || a.code == 202
	}
	var out []Delivery
	for _, a := range list {
		if a.at.Before(since) {
			next = 0
			break
		}
		if a.code != 202 {
			out = append(out, Delivery{GUID: a.guid, Event: a.event, ID: a.id, At: a.at})
		}
	}
	out = slices.DeleteFunc(out, func(d Delivery) bool { return fine[d.GUID] })
	if next == 0 {
		return out, "", nil
	}
	return out, join(next, 0), nil
}

func (w *world) Redeliver(_ context.Context, _ forge.Repo, d Delivery) error {
	if err := w.call("redeliver"); err != nil {
		return err
	}
	w.asked = append(w.asked, sent{at: w.now, what: d.GUID})
	return nil
}

func (w *world) lose(guid, event string, code int) {
	w.log = append(w.log, attempt{guid, event, int64(len(w.log) + 1), w.now, code})
}

var errDown = &forge.Fault{Class: forge.Retriable, Op: "test", Status: 502, Err: errors.New("bad gateway")}

func inputs(m state.Mail) actor.Inputs { return actor.Inputs{Mail: []state.Mail{m}} }
