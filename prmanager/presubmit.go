package prmanager

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Stage is how far a presubmit has come.
type Stage string

// The stages of a presubmit.
const (
	Checking   Stage = "checking"   // its check is being shown; nothing was started
	Sent       Stage = "sent"       // the trigger is in the outbox
	Accepted   Stage = "accepted"   // the CI side took it
	Refused    Stage = "refused"    // the check or the trigger was refused for good
	Cancelled  Stage = "cancelled"  // by us; the cancel may still be in the outbox
	Superseded Stage = "superseded" // asked for again: its result, if any, counts no more
)

// Source is where the runs of a trigger come from, as the forge's deliveries about workflow runs name it.
type Source struct {
	Event string `json:"event"`          // "workflow_dispatch"; empty = no delivery tells of its runs
	Path  string `json:"path,omitempty"` // ".github/workflows/presubmit.yml"; empty = any
}

// Started is the record of one run key. While it is there the key is not triggered again.
type Started struct {
	Order   RunOrder         `json:"order"`
	Base    string           `json:"base"`
	N       int              `json:"n"` // the run counter in the key
	Native  bool             `json:"native,omitempty"`
	Source  Source           `json:"source,omitzero"`
	Stage   Stage            `json:"stage"`
	Result  forge.CheckState `json:"result,omitempty"` // of the newest attempt; empty = nothing reported
	Attempt int              `json:"attempt,omitempty"`
	URL     string           `json:"url,omitempty"`
	Text    string           `json:"text,omitempty"`    // what the CI side said last
	Why     string           `json:"why,omitempty"`     // of Refused; of a native one also what could not be approved
	Asked   bool             `json:"asked,omitempty"`   // the trigger has been wished for
	Pending bool             `json:"pending,omitempty"` // … and no result has come
	Stray   bool             `json:"stray,omitempty"`   // it was over, and goes on without a grant: to be cancelled
	Void    int              `json:"void,omitempty"`    // attempts up to this one went on without a grant: nobody's result
	Undone  bool             `json:"undone,omitempty"`  // the cancel has been wished for
	Settled bool             `json:"settled,omitempty"` // the cancel is done
	Begun   time.Time        `json:"begun,omitzero"`    // store time

	// Jobs are those of the newest attempt, by name. Each has a check of its own; that of the run is their sum.
	Jobs []Job `json:"jobs,omitempty"`

	// Shown and ShownAttempt are what its check was last told to show, under number Seq. News: there is more to tell.
	Shown        forge.CheckState `json:"shown,omitempty"`
	ShownAttempt int              `json:"shown_attempt,omitempty"`
	Seq          int64            `json:"seq,omitempty"`
	News         bool             `json:"news,omitempty"`
	Heard        int64            `json:"heard,omitempty"` // newest Report.Heard: its commit waits for an answer

	// The repository's runs know the key before the trigger may leave (Filed), and later the run's id too.
	Filing  bool   `json:"filing,omitempty"`
	Filed   bool   `json:"filed,omitempty"`
	FiledID string `json:"filed_id,omitempty"`

	// Runs are those that a native trigger let go on, by the forge's id. Again: more of them are held back.
	Runs  map[string]NativeRun `json:"runs,omitempty"`
	Again bool                 `json:"again,omitempty"`
}

// NativeRun is one run that the forge starts by itself.
type NativeRun struct {
	State   forge.CheckState `json:"state"` // CheckActionRequired: held back
	Attempt int              `json:"attempt,omitempty"`
	At      time.Time        `json:"at"` // the forge's time
}

// done says whether its result is final.
func (s Started) done() bool { return s.Result != "" && s.Result.Completed() }

// gone says that it counts no more.
func (s Started) gone() bool { return s.Stage == Cancelled || s.Stage == Superseded }

// stopping says that it must not go on.
func (s Started) stopping() bool { return s.Stage == Cancelled || s.Stray }

// triggersKept bounds the records of a pull request; those of the head and those not settled are always kept.
const triggersKept = 100

// RunOrder is what a trigger is told; the Want of its wish.
type RunOrder struct {
	Trigger string        `json:"trigger"`        // name of the trigger
	Base    string        `json:"base,omitempty"` // branch name, compared with the live one before starting; never sent
	Run     forge.Run     `json:"run"`
	Receipt forge.Receipt `json:"receipt,omitzero"` // for a cancel
	// Rerun: of a native trigger, also run again what had ended before; zero = only let go on what is held back.
	Rerun time.Time `json:"rerun,omitzero"`
	// Native: the trigger answers for whatever runs at the commit; there is no one run to be found.
	Native bool `json:"native,omitempty"`
	Dry    bool `json:"dry,omitempty"` // wished for in a dry run: never done for real
}

// bench is the part of a decision that deals with runs; pull requests and merge groups share it. Everything is computed
// from the records: what is wished for is what the records say has not been wished for yet.
type bench struct {
	s        state.Subject
	ref      forge.Ref
	now      time.Time
	dry      bool
	runs     map[string]Started // the decision's own copy
	seq      *int64             // numbers what is told to commits
	reassert func(Started) bool // its check is to be told again
	want     func(actor.Wish, string)
	pass     func(Reason, ...string)
}

// keys lists the run keys by age.
func keys(runs map[string]Started) []string {
	return slices.SortedFunc(maps.Keys(runs), func(a, b string) int {
		return cmp.Or(runs[a].Begun.Compare(runs[b].Begun), strings.Compare(a, b))
	})
}

// written books that the check of a run is shown, or never will be.
func (b bench) written(w status.Written) {
	s, ok := b.runs[w.Key]
	if !ok || s.Seq != w.Seq || s.Stage != Checking {
		return
	}
	b.pass(shownOr(w.OK))
	if s.Stage = Sent; !w.OK {
		s.Stage, s.Why = Refused, "its check cannot be shown: "+plain(w.Why, 100)
	}
	b.runs[w.Key] = s
}

func shownOr(ok bool) Reason {
	if ok {
		return CheckShown
	}
	return CheckRefused
}

// effected books how an effect about a run ended.
func (b bench) effected(r actor.Result) {
	_, key, _ := strings.Cut(r.Key, "/")
	s, ok := b.runs[key]
	if !ok {
		return
	}
	switch {
	case r.Kind == KindTrigger:
		s = b.triggered(s, r)
	case r.Code != actor.Done:
	case r.Kind == KindRun:
		s.Filed = true
	case r.Kind == KindCancel && s.Undone:
		s.Settled, s.Undone, s.Stray = s.stopping(), s.stopping(), false
	}
	b.runs[key] = s
}

// triggered books how a trigger ended.
func (b bench) triggered(s Started, r actor.Result) Started {
	s.Pending = false
	switch {
	case r.Code == actor.Dropped:
		s.Settled = true
	case r.Code == actor.Done:
		b.pass(TriggerTaken, plain(s.Order.Run.Presubmit, 60))
		var made forge.Receipt
		if json.Unmarshal(r.Data, &made) == nil && made.ID != "" { // none is a receipt too
			s.Order.Receipt = made
		}
		s.URL = cmp.Or(s.URL, s.Order.Receipt.URL)
		switch {
		case s.stopping(): // started after all
			s.Undone, s.Settled = false, false
		case s.Stage == Sent:
			s.Stage = Accepted
		case s.Stage == Refused, s.Stage == Accepted:
			s.Stage, s.Why = Accepted, ""
		}
	case s.Stage == Sent:
		s.Stage, s.Why = Refused, plain(r.Error, 200)
		b.pass(TriggerRefused, s.Why)
	case s.Stage == Accepted: // a native one whose later runs cannot be approved
		s.Why = "a run that Actions holds back cannot be approved: " + plain(r.Error, 120)
		b.pass(TriggerRefused, s.Why)
	}
	return s
}

// reported books what became of a run. Only one that counts has a say; one that goes on without a grant is cancelled.
func (b bench) reported(r Report, counts func(Started) bool) {
	s, ok := b.runs[r.Key]
	late := r.Heard != 0 && r.Heard <= s.Heard
	if ok && r.Heard > s.Heard { // answered in any case
		s.Heard, s.News = r.Heard, true
		b.runs[r.Key] = s
	}
	id, attempt, had := s.Order.Receipt.ID, max(r.Attempt, 1), max(s.Attempt, 1)
	r.State = concluded(r.State)
	counted := ok && counts(s)
	if !ok || late || s.Native || id != "" && r.RunID != "" && id != r.RunID || attempt < had || attempt == had && s.done() || counted && attempt <= s.Void {
		b.pass(RunStale)
		return
	}
	if id == "" && r.RunID != "" {
		s.Order.Receipt = forge.Receipt{ID: r.RunID, URL: r.URL}
	}
	if !counted {
		b.pass(RunStale)
		b.runs[r.Key] = s.strayed(r.State, attempt)
		return
	}
	if attempt > had {
		s.Jobs = nil
	}
	s, changed := s.hear(r.Jobs)
	b.pass(RunReport, strings.Join(append([]string{string(r.State)}, changed...), ", "))
	if r.State != forge.CheckQueued || attempt > had {
		s.Result = r.State
	}
	s.Stage, s.Attempt = Accepted, attempt
	s.URL, s.Text = cmp.Or(r.URL, s.URL), plain(r.Text, 140)
	b.runs[r.Key] = s
}

// behind says whether a look at the run has shown more than was reported.
func (s Started) behind(is RunState) bool {
	heard, _ := s.hear(is.Jobs)
	return is.State != "" && (is.State != s.Result && (s.Result != "" || is.State != forge.CheckQueued) || is.Attempt > max(s.Attempt, 1) || heard.News && !s.News)
}

// concluded makes what a run has come to one of five states. Whatever else it may end in is no pass (P10).
func concluded(s forge.CheckState) forge.CheckState {
	switch s {
	case forge.CheckQueued, forge.CheckRunning, forge.CheckSuccess, forge.CheckCancelled:
		return s
	case forge.CheckFailure, forge.CheckActionRequired:
	}
	return forge.CheckFailure
}

// Bounds of what is taken of a run's jobs.
const (
	jobsKept   = 64
	maxJobName = 150 // bytes
	jobsTold   = 5   // named in one line of the story
)

// hear books what is told of the jobs, and answers in words what is new. No job goes back, whatever comes late or twice.
func (s Started) hear(told []Job) (Started, []string) {
	var changed []string
	s.Jobs = slices.Clone(s.Jobs)
	for _, j := range told {
		j.Name, j.State, j.Note = plain(j.Name, maxJobName), concluded(j.State), plain(j.Note, 100)
		i, known := slices.BinarySearchFunc(s.Jobs, j.Name, func(o Job, name string) int { return strings.Compare(o.Name, name) })
		switch {
		case j.Name == "", !known && len(s.Jobs) >= jobsKept:
			continue
		case !known:
			s.Jobs = slices.Insert(s.Jobs, i, Job{Name: j.Name})
		}
		was := s.Jobs[i]
		back := was.State == forge.CheckRunning && j.State == forge.CheckQueued || known && was.State.Completed()
		if back || j.Attempt < was.Attempt || j == was {
			continue
		}
		if s.Jobs[i] = j; was.State != j.State || was.Note != j.Note {
			s.News = true
		}
		word := j.Name + " " + string(j.State)
		if j.State == forge.CheckQueued && j.Attempt > 0 {
			word = j.Name + " assigned" // its runner speaks within seconds: worth a line of the story, and no write
		}
		changed = append(changed, word)
	}
	if more := len(changed) - jobsTold; more > 0 {
		changed = append(changed[:jobsTold], strconv.Itoa(more)+" more jobs")
	}
	return s, changed
}

// parts is what the checks of the jobs should show.
func (s Started) parts() []status.Job {
	var out []status.Job
	for _, j := range s.Jobs {
		p := status.Job{Name: j.Name, State: j.State, Title: cmp.Or(j.Note, words(j.State)), URL: j.URL}
		switch {
		case j.State.Completed():
		case s.gone(), s.Result == forge.CheckCancelled:
			p.State, p.Title = forge.CheckCancelled, "Cancelled with its run"
		case s.done():
			p.State, p.Title = forge.CheckFailure, "Nobody told how it ended"
		}
		out = append(out, p)
	}
	return out
}

// failed names the jobs that failed.
func (s Started) failed() []string {
	var out []string
	for _, p := range s.parts() {
		if p.State == forge.CheckFailure {
			out = append(out, p.Name)
		}
	}
	return out
}

// words is a state as people read it.
func words(s forge.CheckState) string { return strings.ReplaceAll(string(s), "_", " ") }

// strayed makes a run that goes on although it does not count be cancelled: also one that had its result and that
// somebody has re-run in the CI's own page. What comes of that attempt is nobody's result.
func (s Started) strayed(now forge.CheckState, attempt int) Started {
	if now.Completed() || !s.Asked || s.Undone && !s.Settled {
		return s
	}
	s.Stray, s.Undone, s.Settled = s.Stage != Cancelled, false, false
	s.Void = max(s.Void, attempt)
	return s
}

// supersede makes room for another run of the same presubmit. What goes on is cancelled; native runs are not ours to
// stop for that.
func (s Started) supersede() Started {
	s.Stray = s.Asked && !s.Native && !s.done()
	s.Stage, s.Undone, s.Settled = Superseded, false, !s.Stray
	return s
}

// cancels wishes for the end of what must not go on.
func (b bench) cancels(reassert bool) {
	for _, key := range keys(b.runs) {
		s := b.runs[key]
		// It has run, only the trigger's own answer is missing: nothing may start it now.
		over := s.done() && s.Pending && !s.Native
		if !over && (!s.stopping() || !s.Asked || s.Settled || s.Undone && !reassert) {
			continue
		}
		// The same key as the trigger: one that still waits and was never attempted vanishes together with this. A
		// native one may have let runs go on before.
		b.want(actor.Wish{Key: "run/" + key, Class: actor.Shutting, Kind: KindCancel, Want: encoded(b.order(s)), Undo: s.Pending && !s.Native}, "cancel "+key)
		s.Undone, s.Pending = true, false
		b.runs[key] = s
	}
}

func (b bench) order(s Started) RunOrder {
	s.Order.Dry = b.dry
	return s.Order
}

// file tells the repository's runs which keys are ours: before the trigger may leave, and again once a run's id is
// known.
func (b bench) file() {
	for _, key := range keys(b.runs) {
		s := b.runs[key]
		if s.Source.Event == "" || s.Filing && s.FiledID == s.Order.Receipt.ID || !s.Filing && s.Stage == Cancelled {
			continue
		}
		s.Filing, s.FiledID = true, s.Order.Receipt.ID
		b.runs[key] = s
		to := RunsSubject(b.ref.Repo)
		b.want(actor.Wish{Key: "file/" + key, Class: actor.Permitting, Kind: KindRun, To: &to, Want: encoded(RunOf{
			Key: key, Subject: b.s, Source: s.Source, RunID: s.FiledID,
		})}, "")
	}
}

// checks tells the commits what the presubmit checks of ours should show.
func (b bench) checks() {
	for _, key := range keys(b.runs) {
		s := b.runs[key]
		show, title := forge.CheckQueued, cmp.Or(s.Text, "Queued")
		switch {
		case s.Native:
			continue
		case s.done() || !s.gone() && s.Result != "":
			show, title = s.Result, cmp.Or(s.Text, words(s.Result))
			if failed := s.failed(); len(failed) > 0 {
				title += ": " + cut(strings.Join(failed, ", "), 100)
			}
		case s.Stage == Superseded:
			show, title = forge.CheckCancelled, "Cancelled: asked for again"
		case s.Stage == Cancelled:
			show, title = forge.CheckCancelled, "Cancelled: the approval no longer stands"
		case s.Stage == Refused:
			show, title = forge.CheckFailure, "Cannot be started: "+s.Why
		}
		if show == s.Shown && max(s.Attempt, 1) == max(s.ShownAttempt, 1) && !s.News && !b.reassert(s) {
			continue
		}
		*b.seq++
		s.Shown, s.ShownAttempt, s.Seq, s.News = show, s.Attempt, *b.seq, false
		b.runs[key] = s
		to := status.Subject(b.ref.Repo, s.Order.Run.SHA)
		w := actor.Wish{Key: "check/" + key, Class: actor.Permitting, Kind: status.KindPresubmit, To: &to, Want: encoded(status.Presubmit{
			Pull: b.s, Ref: b.ref, SHA: s.Order.Run.SHA, Key: key, Name: s.Order.Run.Presubmit, Seq: s.Seq,
			State: show, Title: title, URL: s.URL, Attempt: s.Attempt, Tell: s.Stage == Checking, Heard: s.Heard, Jobs: s.parts(), Dry: b.dry,
		})}
		if show == forge.CheckCancelled || show == forge.CheckFailure {
			w.Class = actor.Shutting
		}
		b.want(w, "check "+plain(s.Order.Run.Presubmit, 60)+" "+string(show))
	}
}

func (b bench) triggers() {
	for _, key := range keys(b.runs) {
		s := b.runs[key]
		first := s.Stage == Sent && !s.Asked && (s.Source.Event == "" || s.Filed)
		again := s.Again && s.Asked && !s.Pending && !s.gone()
		if !first && !again {
			continue
		}
		o := b.order(s)
		words := "trigger " + key
		if again {
			o.Rerun, words = time.Time{}, "approve more runs of "+key
		}
		s.Asked, s.Pending, s.Again = true, true, false
		b.runs[key] = s
		b.want(actor.Wish{Key: "run/" + key, Class: actor.Permitting, Kind: KindTrigger, Want: encoded(o)}, words)
	}
}
