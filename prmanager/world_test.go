package prmanager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// world is a forge with one pull request, its commits' subjects and a CI. Its verbs are what people do there; each
// answers the delivery that tells of it. Time passes only where a verb or a test says so.
type world struct {
	now     time.Time
	step    time.Duration // passes before each verb
	pull    forge.Pull
	label   string
	on      bool
	entries []forge.LabelEntry
	nextID  int64

	trusted map[string]bool  // login: may write
	ids     map[string]int64 // login: account
	self    Self
	pins    map[string]int64

	down    map[string]int // "live", "history", "trust", "trust LOGIN", "label", "trigger", "cancel": HTTP status
	lagging *forge.Pull    // what the API still shows
	refuse  string         // why commits cannot show checks

	gates  map[string]status.Gate      // by SHA: newest heard
	checks map[string]status.Presubmit // by run key
	runs   map[string]*ran
	filed  map[string]RunOf    // by run key: what the repository's runs were told
	said   []string            // comments of ours
	after  map[string]RunState // by run key: what a look at the CI side shows
	reruns int
	mute   bool // the CI answers no receipts
	calls  map[string]int
	amid   func(op string) // lets things happen right before the forge answers a read
	story  []string

	// what really happened, for the oracle
	arrived  map[string]time.Time // head: newest arrival
	pushedBy map[string]string
	pushes   []Push
	keeps    bool      // pushes are asked for
	moved    time.Time // newest close, reopening or retarget
	// approvals are those by comment and button: of which commit, and when.
	approvals []Push
}

type ran struct {
	run       forge.Run
	starts    int
	cancelled bool
	native    bool
}

var (
	_ Reader   = (*world)(nil)
	_ Labeller = (*world)(nil)
	_ Trigger  = (*world)(nil)
	_ Pins     = (*world)(nil)
)

// actions is a native CI: what it holds back is let go on, as often as asked.
type actions struct{ *world }

var (
	_ Watcher  = actions{}
	_ Rerunner = actions{}
)

func (a actions) Start(_ context.Context, run forge.Run) (forge.Receipt, error) {
	if err := a.fault("trigger"); err != nil {
		return forge.Receipt{}, err
	}
	if a.runs[run.Key] == nil {
		a.runs[run.Key] = &ran{run: run, starts: 1, native: true}
	}
	a.tell("actions: approve runs of %s", run.SHA[:7])
	return forge.Receipt{}, nil
}

// Cancel stops all runs of the commit: they are not told apart by key.
func (a actions) Cancel(_ context.Context, run forge.Run, _ forge.Receipt) error {
	if err := a.fault("cancel"); err != nil {
		return err
	}
	for _, r := range a.runs {
		r.cancelled = r.cancelled || r.native && r.run.SHA == run.SHA
	}
	a.tell("actions: cancel runs of %s", run.SHA[:7])
	return nil
}

func (a actions) Rerun(_ context.Context, run forge.Run, asked time.Time) error {
	if err := a.fault("trigger"); err != nil {
		return err
	}
	if a.runs[run.Key] == nil {
		a.runs[run.Key] = &ran{run: run, starts: 1, native: true}
	}
	if asked.IsZero() || asked.After(a.now) {
		return fmt.Errorf("asked at %s", asked)
	}
	a.reruns++
	a.tell("actions: run %s again", run.SHA[:7])
	return nil
}

func (a actions) State(_ context.Context, run forge.Run, _ forge.Receipt) (RunState, error) {
	return a.after[run.Key], a.fault("state")
}

// watched is a CI whose runs can be looked at.
type watched struct{ *world }

var _ Watcher = watched{}

func (c watched) State(_ context.Context, run forge.Run, _ forge.Receipt) (RunState, error) {
	return c.after[run.Key], c.fault("state")
}

// blind is a CI that cannot be asked: it knows runs by their keys.
type blind struct{ w *world }

var _ Trigger = blind{}

func (b blind) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	return b.w.Start(ctx, run)
}

func (b blind) Cancel(ctx context.Context, run forge.Run, r forge.Receipt) error {
	return b.w.Cancel(ctx, run, r)
}

// Comment is what we write.
func (w *world) Comment(_ context.Context, _ forge.Ref, text string) error {
	if err := w.fault("comment"); err != nil {
		return err
	}
	w.said = append(w.said, text)
	w.tell("forge: we comment %q", text)
	return nil
}

// comment is somebody's; "|" begins a line, "SHA:a1" is a full commit.
func (w *world) comment(who, text string) Comment {
	w.tick()
	w.pull.UpdatedAt = w.now
	text = regexp.MustCompile(`SHA:(\w+)`).ReplaceAllStringFunc(strings.ReplaceAll(text, "|", "\n"), func(s string) string { return sha(s[4:]) })
	return Comment{Ref: w.pull.Ref, By: w.actor(who), At: w.now, ID: w.now.Unix(), Author: w.pull.Author, Commands: Commands(text)}
}

func newWorld() *world {
	return &world{
		now: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC), step: 10 * time.Second, label: "CICD", nextID: 100,
		trusted: map[string]bool{"mona": true, "max": true}, ids: map[string]int64{}, pins: map[string]int64{},
		self: Self{Actor: forge.Actor{ID: 1, Login: "signalbox[bot]", Bot: true}, App: true},
		down: map[string]int{}, gates: map[string]status.Gate{}, checks: map[string]status.Presubmit{},
		runs: map[string]*ran{}, filed: map[string]RunOf{}, after: map[string]RunState{}, calls: map[string]int{}, arrived: map[string]time.Time{}, pushedBy: map[string]string{},
	}
}

const instance = "github"

var testRepo = forge.Repo{Instance: instance, ID: 77, Name: "octo/hello", Installation: 5}

func (w *world) actor(login string) forge.Actor {
	if login == w.self.Actor.Login {
		return w.self.Actor
	}
	if login == "ghost" {
		return forge.Actor{}
	}
	if w.ids[login] == 0 {
		w.ids[login] = int64(1000 + len(w.ids))
	}
	return forge.Actor{ID: w.ids[login], Login: login, Bot: strings.HasSuffix(login, "[bot]")}
}

// sha makes a full commit of a short name of hexadecimal digits.
func sha(short string) string { return short + strings.Repeat("0", 40-len(short)) }

func (w *world) tick() { w.now = w.now.Add(w.step) }

func (w *world) note(who string, a ...Action) Note {
	return Note{Actions: a, Pull: w.pull, Sender: w.actor(who)}
}

func (w *world) open(who, head string, how ...string) Note {
	w.tick()
	fork := int64(900)
	if slices.Contains(how, "same") {
		fork = testRepo.ID
	}
	w.pull = forge.Pull{
		Ref: forge.Ref{Repo: testRepo, Number: 7}, Open: true, Draft: slices.Contains(how, "draft"), Author: w.actor(who),
		Head: forge.Branch{SHA: sha(head), RepoID: fork}, Base: forge.Branch{SHA: sha("ba5e"), Name: "main", RepoID: testRepo.ID},
		UpdatedAt: w.now,
	}
	w.arrived[sha(head)] = w.now
	return w.note(who, ActionOpened)
}

func (w *world) push(who, head string) Note {
	w.tick()
	before := w.pull.Head.SHA
	w.pull.Head.SHA, w.pull.UpdatedAt = sha(head), w.now
	w.arrived[sha(head)] = w.now
	w.pushes = append(w.pushes, Push{At: w.now, SHA: sha(head), By: w.actor(who)})
	n := w.note(who, ActionPushed)
	n.Before, n.After = before, sha(head)
	return n
}

func (w *world) setLabel(who, label string, on bool) Note {
	w.tick()
	w.entry(w.actor(who), label, on)
	a := ActionUnlabelled
	if on {
		a = ActionLabelled
	}
	n := w.note(who, a)
	n.Labels = []string{label}
	return n
}

func (w *world) entry(who forge.Actor, label string, on bool) {
	gate := fold(label) == fold(w.label)
	if gate && w.on == on {
		return // nothing changes, nothing is recorded
	}
	if gate {
		w.on = on
	}
	w.nextID++
	w.entries = append(w.entries, forge.LabelEntry{ID: w.nextID, Added: on, Label: label, Actor: who, At: w.now})
	w.pull.UpdatedAt = w.now
}

func (w *world) base(who, name string) Note {
	w.tick()
	from := w.pull.Base.Name
	w.pull.Base.Name, w.pull.UpdatedAt, w.moved = name, w.now, w.now
	n := w.note(who, ActionBaseChanged)
	n.BaseFrom = from
	return n
}

func (w *world) draft(who string, draft bool) Note {
	w.tick()
	w.pull.Draft, w.pull.UpdatedAt = draft, w.now
	if draft {
		return w.note(who, ActionDraft)
	}
	return w.note(who, ActionReady)
}

func (w *world) close(who string, merged bool) Note {
	w.tick()
	w.pull.Open, w.pull.Merged, w.pull.UpdatedAt, w.moved = false, merged, w.now, w.now
	return w.note(who, ActionClosed)
}

func (w *world) reopen(who string) Note {
	w.tick()
	w.pull.Open, w.pull.UpdatedAt, w.moved = true, w.now, w.now
	return w.note(who, ActionReopened)
}

func (w *world) fault(op string, keys ...string) error {
	w.calls[op]++
	if w.amid != nil {
		w.amid(op)
	}
	for _, k := range append(keys, op) {
		if code := w.down[k]; code != 0 {
			class := forge.Retriable
			switch {
			case code == 429:
				class = forge.Contention
			case code == 401:
				class = forge.Auth
			case code < 500:
				class = forge.Permanent
			}
			return &forge.Fault{Class: class, Op: op, Status: code, Err: errors.New("<b>@everyone</b> down")}
		}
	}
	return nil
}

func (w *world) Pull(context.Context, forge.Ref) (forge.Pull, error) {
	if err := w.fault("live"); err != nil {
		return forge.Pull{}, err
	}
	if w.lagging != nil {
		return *w.lagging, nil
	}
	return w.pull, nil
}

func (w *world) LabelHistory(context.Context, forge.Ref) ([]forge.LabelEntry, error) {
	if err := w.fault("history"); err != nil {
		return nil, err
	}
	return slices.Clone(w.entries), nil
}

func (w *world) Trusted(_ context.Context, _ forge.Repo, who forge.Actor, rule forge.Rule) (bool, error) {
	if err := w.fault("trust", "trust "+who.Login); err != nil {
		return false, err
	}
	for login, id := range w.ids {
		if id != who.ID {
			continue
		}
		switch rule.Kind {
		case "permission":
			return w.trusted[login], nil
		case "user":
			return strings.EqualFold(login, rule.Value), nil
		case "app":
			return login == rule.Value+"[bot]", nil
		}
	}
	return false, nil
}

func (w *world) Pushed(_ context.Context, head forge.Branch, who forge.Actor) (bool, error) {
	if !w.keeps {
		return true, nil // its deliveries are written at once
	}
	if err := w.fault("push"); err != nil {
		return false, err
	}
	for _, p := range slices.Backward(w.pushes) {
		if p.SHA == head.SHA {
			return p.By.ID == who.ID, nil
		}
	}
	return false, &forge.Fault{Class: forge.Retriable, Op: "push"}
}

func (w *world) Pin(_ context.Context, _, login string, id int64) (int64, error) {
	if w.pins[login] == 0 {
		w.pins[login] = id
	}
	return w.pins[login], nil
}

func (w *world) SetLabel(_ context.Context, _ forge.Ref, label string, present bool) error {
	if err := w.fault("label"); err != nil {
		return err
	}
	w.entry(w.self.Actor, label, present)
	w.tell("forge: label %s", picture(present))
	return nil
}

func (w *world) Find(_ context.Context, run forge.Run) (forge.Receipt, bool, error) {
	w.calls["find"]++
	r, ok := w.runs[run.Key]
	return forge.Receipt{ID: run.Key}, ok && r.starts > 0, nil
}

func (w *world) Start(_ context.Context, run forge.Run) (forge.Receipt, error) {
	if err := w.fault("trigger"); err != nil {
		return forge.Receipt{}, err
	}
	if w.runs[run.Key] == nil {
		w.runs[run.Key] = &ran{run: run}
	}
	w.runs[run.Key].starts++
	w.tell("ci: start %s for %s into %s", run.Presubmit, run.SHA[:7], run.BaseSHA[:7])
	if w.mute {
		return forge.Receipt{}, nil
	}
	return forge.Receipt{ID: run.Key, URL: "https://ci.test/" + run.SHA[:7]}, nil
}

func (w *world) Cancel(_ context.Context, run forge.Run, _ forge.Receipt) error {
	if err := w.fault("cancel"); err != nil {
		return err
	}
	if r := w.runs[run.Key]; r != nil {
		r.cancelled = true
	}
	w.tell("ci: cancel %s for %s", run.Presubmit, run.SHA[:7])
	return nil
}

func (w *world) tell(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf(format, args...))
}

// gate is what the forge shows on a commit, by this one pull request.
func (w *world) gate(sha string) forge.CheckState {
	switch g, ok := w.gates[sha]; {
	case !ok || g.Seq == 0:
		return ""
	case g.Merged:
		return "left"
	case g.Granted:
		return forge.CheckSuccess
	case g.Open:
		return forge.CheckActionRequired
	default:
		return forge.CheckCancelled
	}
}

// live lists the runs that go on, by commit.
func (w *world) live() []string {
	var out []string
	for _, r := range w.runs {
		if r.starts > 0 && !r.cancelled {
			out = append(out, r.run.SHA)
		}
	}
	slices.Sort(out)
	return out
}

// sim runs one pull request as the engine would, in one thread: a turn, then one effect after the other, each outcome
// an input. It follows the engine's rules for replacing and undoing wishes; what the engine itself does about leases
// and crashes is tested there.
type sim struct {
	t       tester
	w       *world
	b       *Behaviour
	policy  Policy
	s       state.Subject
	d       PR
	outbox  []actor.Entry
	results []actor.Result
	mail    []state.Mail
	rev     int64
	seq     int64
	wake    time.Time
	keep    time.Duration
	touched time.Time
	held    bool // effects stay in the outbox
	light   bool // without the checks that every decision is pure
	why     map[string]bool
	lose    bool                                                           // the next effect's answer is lost, as in a crash
	after   func(in actor.Inputs, before PR, f Facts, step actor.Step[PR]) // looks at every decision
}

// tester is what a simulation needs of its test: of one life drawn at random, too, so that a failure is made small and
// can be repeated.
type tester interface {
	Helper()
	Context() context.Context
	Fatal(args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

func newSim(t tester, w *world) *sim {
	m := &sim{t: t, w: w, why: map[string]bool{}, policy: Policy{
		Label: "CICD", Check: "CI gate", Hold: 2 * time.Minute, Presubmits: []Presubmit{{Name: "presubmit", Trigger: "ci"}},
		Trust: []forge.Rule{{Kind: "permission", Value: "write"}}, Auto: []forge.Rule{{Kind: "permission", Value: "write"}},
	}}
	m.s = Subject(forge.Ref{Repo: testRepo, Number: 7})
	m.b = New(Config{
		Forge: func(string) (Forge, error) {
			return Forge{Name: "GitHub", Self: w.self, Reader: w, Labeller: w, Commenter: w, Triggers: map[string]Trigger{"ci": watched{w}, "actions": actions{w}, "blind": blind{w}}}, nil
		},
		Policy: func(forge.Repo) Policy { return m.policy },
		Pins:   w,
	})
	return m
}

// post puts mail into the mailbox.
func (m *sim) post(kind string, body any) {
	m.seq++
	raw, ok := body.([]byte)
	if !ok {
		raw = encoded(body)
	}
	m.mail = append(m.mail, state.Mail{Seq: m.seq, ID: fmt.Sprint(m.seq), Kind: kind, Format: Format, At: m.w.now, Body: raw})
}

// hear delivers notes, each in a turn of its own, and works until nothing is due.
func (m *sim) hear(notes ...Note) {
	for _, n := range notes {
		m.post(KindPull, n)
		m.run("")
	}
}

// run works until nothing is due now.
func (m *sim) run(reconcile string) {
	for range 1000 {
		due := !m.wake.IsZero() && !m.wake.After(m.w.now)
		if len(m.mail) > 0 || len(m.results) > 0 || reconcile != "" || due {
			m.turn(actor.Inputs{Mail: m.mail, Results: m.results, Reconcile: reconcile})
			reconcile = ""
			continue
		}
		if m.held || !m.effect() {
			return
		}
	}
	m.t.Fatalf("no rest after 1000 steps: %v", m.w.story[max(0, len(m.w.story)-20):])
}

// pass lets time go by, in steps that miss no wake.
func (m *sim) pass(d time.Duration) {
	end := m.w.now.Add(d)
	for steps := 0; ; steps++ {
		if steps > 2000 { // what goes on every second for hours would ask the forge as often
			m.t.Fatalf("no rest in %s: %v", d, m.w.story[max(0, len(m.w.story)-20):])
		}
		at := m.wake
		for _, e := range m.outbox {
			if at.IsZero() || e.NotBefore.After(m.w.now) && e.NotBefore.Before(at) {
				at = e.NotBefore
			}
		}
		if at.IsZero() || at.After(end) {
			break
		}
		if at.After(m.w.now) {
			m.w.now = at
		} else {
			m.w.now = m.w.now.Add(time.Second)
		}
		m.run("")
	}
	m.w.now = end
	m.run("")
	if m.keep > 0 && len(m.outbox) == 0 && m.wake.IsZero() && !m.touched.Add(m.keep).After(end) {
		m.w.tell("dropped: nobody has heard of it for %v", m.keep)
		m.d, m.keep = PR{}, 0
	}
}

func (m *sim) turn(in actor.Inputs) {
	m.mail, m.results = nil, nil
	f := m.b.Look(m.t.Context(), m.s, m.d, in, m.w.now)
	before := m.d
	step := m.b.Decide(m.s, m.d, f, in, m.w.now)
	if m.light {
		m.d, m.wake = step.Next, step.Wake
		for _, w := range step.Why {
			m.why[w] = true
		}
		m.merge(step.Wishes)
		return
	}
	frozen := encoded(before)
	if again := m.b.Decide(m.s, m.d, f, in, m.w.now); !bytes.Equal(encoded(step), encoded(again)) || !bytes.Equal(frozen, encoded(before)) {
		m.t.Fatalf("Decide is not a function of what it is given:\n%s\n%s", encoded(step), encoded(again))
	}
	for _, w := range step.Why {
		m.why[w] = true
	}
	for _, j := range step.Journal {
		var l Line
		if err := json.Unmarshal(j, &l); err != nil {
			m.t.Fatal(err)
		}
		m.w.tell("%s", l.String()[len(time.DateTime)+2:])
	}
	for _, d := range step.Dead {
		m.w.tell("dead letter: %s", d.Reason)
	}
	// The document lives as JSON between turns.
	m.d = PR{}
	if err := json.Unmarshal(encoded(step.Next), &m.d); err != nil {
		m.t.Fatal(err)
	}
	m.keep, m.touched = step.Keep, m.w.now
	if m.wake = step.Wake; !m.wake.IsZero() && !m.wake.After(m.w.now) {
		m.wake = m.w.now.Add(time.Second)
	}
	m.merge(step.Wishes)
	if m.after != nil {
		m.after(in, before, f, step)
	}
}

func (m *sim) merge(wishes []actor.Wish) {
	for _, w := range wishes {
		i := slices.IndexFunc(m.outbox, func(e actor.Entry) bool { return e.Key == w.Key })
		if i < 0 {
			m.rev++
			m.outbox = append(m.outbox, actor.Entry{Wish: w, Rev: m.rev, Born: m.w.now})
			continue
		}
		old := m.outbox[i]
		switch {
		case old.Kind == w.Kind && bytes.Equal(old.Want, w.Want):
		case w.Undo && !old.Attempted():
			m.outbox = slices.Delete(m.outbox, i, i+1)
			m.results = append(m.results, actor.Result{Key: old.Key, Rev: old.Rev, Kind: old.Kind, Want: old.Want, Code: actor.Dropped})
		default:
			m.rev++
			next := actor.Entry{Wish: w, Rev: m.rev, Born: m.w.now, Unsure: old.Unsure}
			if old.Attempted() && next.Unsure.IsZero() {
				next.Unsure = m.w.now
			}
			m.outbox[i] = next
		}
	}
}

// effect does the next due entry and answers whether there was one.
func (m *sim) effect() bool {
	best := -1
	for i, e := range m.outbox {
		if e.NotBefore.After(m.w.now) {
			continue
		}
		if best < 0 || e.Class < m.outbox[best].Class || e.Class == m.outbox[best].Class && e.Rev < m.outbox[best].Rev {
			best = i
		}
	}
	if best < 0 {
		return false
	}
	e := m.outbox[best]
	out := actor.Outcome{Code: actor.Done}
	if e.To != nil {
		m.commit(e)
	} else {
		out = m.b.Do(m.t.Context(), m.s, e, m.w.now, func(context.Context) error { return nil })
	}
	end := func(c actor.Code) {
		r := actor.Result{Key: e.Key, Rev: e.Rev, Kind: e.Kind, Want: e.Want, Code: c, Data: out.Data}
		if out.Err != nil {
			r.Error = out.Err.Error()
		}
		m.results = append(m.results, r)
		if c != actor.Stale {
			m.outbox = slices.Delete(m.outbox, best, best+1)
		}
	}
	cur := &m.outbox[best]
	if m.lose && e.To == nil {
		if m.lose = false; cur.Unsure.IsZero() {
			cur.Unsure = m.w.now
		}
		return true
	}
	switch out.Code {
	case actor.Done, actor.Refused:
		end(out.Code)
	case actor.Stale:
		cur.NotBefore = m.w.now.Add(time.Second)
		end(out.Code)
	case actor.Settling, actor.Contention, actor.AuthPause:
		cur.NotBefore = m.w.now.Add(max(out.After, time.Second))
	default:
		cur.Tries++
		if cur.Unsure.IsZero() {
			cur.Unsure = m.w.now
		}
		cur.NotBefore = m.w.now.Add(time.Second << min(cur.Tries-1, 14))
	}
	return true
}

// commit is the commit's subject: it takes what is told and tells back.
func (m *sim) commit(e actor.Entry) {
	w := m.w
	switch e.Kind {
	case status.KindGate:
		var g status.Gate
		_ = json.Unmarshal(e.Want, &g)
		was := w.gates[g.SHA]
		if *e.To != status.Subject(g.Ref.Repo, g.SHA) || g.Seq <= w.gates[g.SHA].Seq {
			m.t.Fatalf("gate told to %s under number %d after %d", e.To, g.Seq, w.gates[g.SHA].Seq)
		}
		w.gates[g.SHA] = g
		shows := w.gate(g.SHA)
		if g.Dry {
			w.gates[g.SHA] = was
		}
		if !m.dry(g.Dry, "commit %s: gate %s: %s", g.SHA[:7], shows, g.Title) {
			return
		}
		if g.Tell {
			m.back(status.Written{Key: "gate", SHA: g.SHA, Seq: g.Seq, State: shows})
		}
	case KindRun:
		var r RunOf
		_ = json.Unmarshal(e.Want, &r)
		w.filed[r.Key] = r
	case status.KindPresubmit:
		var p status.Presubmit
		_ = json.Unmarshal(e.Want, &p)
		var parts []string
		for _, j := range p.Jobs {
			parts = append(parts, fmt.Sprintf("; %s / %s %s", p.Name, j.Name, j.State))
			if j.Title != words(j.State) {
				parts = append(parts, ": "+j.Title)
			}
		}
		if p.Title != words(p.State) && p.State == forge.CheckFailure {
			parts = append(parts, " ("+p.Title+")")
		}
		if p.Heard > 0 {
			parts = append(parts, fmt.Sprintf(" (%s), heard %d", p.Title, p.Heard))
		}
		if !m.dry(p.Dry, "commit %s: %s %s%s", p.SHA[:7], p.Name, p.State, strings.Join(parts, "")) {
			return
		}
		if !p.Dry {
			w.checks[p.Key] = p
		}
		if p.Tell {
			m.back(status.Written{Key: p.Key, SHA: p.SHA, Seq: p.Seq, State: p.State})
		}
	}
}

// dry tells what a commit does with a message: nothing with one from a dry run that is over.
func (m *sim) dry(dry bool, format string, args ...any) bool {
	switch {
	case dry && !m.policy.DryRun:
		m.w.tell("(ignored) "+format, args...)
		return false
	case dry:
		m.w.tell("(would) "+format, args...)
	default:
		if m.policy.DryRun {
			m.t.Fatalf("told in earnest in a dry run: "+format, args...)
		}
		m.w.tell(format, args...)
	}
	return true
}

func (m *sim) back(b status.Written) {
	b.OK, b.Why = m.w.refuse == "", m.w.refuse
	m.post(status.KindWritten, b)
}

// settled is what an onlooker sees in the end.
func (m *sim) seen() string {
	gates := make([]string, 0, len(m.w.gates))
	for _, s := range slices.Sorted(maps.Keys(m.w.gates)) {
		gates = append(gates, s[:2]+"="+string(m.w.gate(s)))
	}
	label := Absent
	if m.w.on {
		label = Present
	}
	return fmt.Sprintf("%s, gates %v, label %s, running %d", m.d.State(), gates, label, len(m.w.live()))
}
