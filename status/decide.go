package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Reasons, in the journal, the log and the metrics.
const (
	whyLate       = "Late_Ignored"         // something newer of the same sender is known
	whyShut       = "Gate_Shut"            // an open pull request has this head, none has a grant
	whyOpen       = "Gate_Open"            // an open pull request with this head has a grant
	whyCancelled  = "Gate_Cancelled"       // none is open any more
	whyMerged     = "Gate_Left_Merged"     // none is open any more, and one was merged
	whyNever      = "Gate_Never_Needed"    // none was ever open
	whyShared     = "Shared_Commit"        // several open pull requests have this head
	whyBackwards  = "Presubmit_Backwards"  // a run does not go back from completed, nor from running to queued
	whyPresubmit  = "Presubmit_Changed"    // a run has a new wanted state
	whyReplaced   = "Presubmit_Superseded" // a newer run of the same pull request is shown
	whyName       = "Name_Belongs_To_Gate" // a presubmit may never write the gate check
	whyNothing    = "Nothing_To_Cancel"    // a run that was never shown needs no check that says cancelled
	whySame       = "Shown_As_Wanted"      // read back: the forge shows it
	whyDiffers    = "Reasserted"           // read back: the forge shows something else
	whyUnknown    = "Cannot_Read_Back"     // read back: no answer
	whyRefused    = "Write_Refused"        // the forge refuses the check for good
	whyCrowded    = "Too_Many_Pulls"       // a pull request lost its place in the document
	whyUnreadable = "Mail_Unreadable"      // a dead letter
	whyNobody     = "Mail_Unknown"         // a kind that nobody reads here: done and counted
	whyPressed    = "Pressed"              // on a check of ours: the pull requests are told
	whyNotOurs    = "Check_Not_Ours"       // a press on a check that is not ours, or not the newest
	whyWhichPull  = "Which_Pull"           // approved on a commit that several pull requests share: nobody is told
	whyNative     = "Native_Run"           // a run that the forge started by itself: the pull requests are told
	whyDry        = "Dry_Run_Ignored"      // told in a dry run that is over
	whyDryOver    = "Dry_Run_Over"         // everything begins anew
)

const (
	sharedTwo  = "two PRs share this commit: use the label on the one you mean"
	sharedMany = "several PRs share this commit: use the label on the one you mean"
	noPull     = "No open pull request has this commit as its head."
)

// gateFace is the rule of the gate check (docs/rules.md, Gate check): success iff any open pull request at the SHA has a standing
// grant; else action_required if any is open; else cancelled, but nothing where one was merged or none was ever open.
// pulls are those of this gate, by number.
func gateFace(g GateCheck, pulls []Pull) (Face, string) {
	open := stillOpen(pulls)
	granted := slices.IndexFunc(open, func(p Pull) bool { return p.Granted })
	switch {
	case granted >= 0:
		return spoken(forge.CheckSuccess, open[granted], open), whyOpen
	case len(open) > 0:
		return spoken(forge.CheckActionRequired, open[0], open), whyShut
	case g.Seq == 0:
		return Face{}, whyNever
	case g.Merged:
		return g.Want, whyMerged
	case g.Want.State == forge.CheckCancelled:
		return g.Want, whyCancelled // one more that leaves changes no text
	}
	f := Face{State: forge.CheckCancelled, Title: "Closed", Summary: noPull}
	if i := slices.IndexFunc(pulls, func(p Pull) bool { return p.Title != "" }); i >= 0 {
		f.Title = pulls[i].Title // of the one that left just now: the others have lost their texts
	}
	return f, whyCancelled
}

func stillOpen(pulls []Pull) []Pull {
	return slices.DeleteFunc(slices.Clone(pulls), func(p Pull) bool { return !p.Open })
}

// spoken is the face in the words of the deciding pull request. Where several share the commit the summary says so
// and names them by number.
func spoken(s forge.CheckState, by Pull, open []Pull) Face {
	f := Face{State: s, Title: cmp.Or(by.Title, string(s)), Summary: by.Summary}
	if len(open) < 2 {
		return f
	}
	shared := sharedTwo
	if len(open) > 2 {
		shared = sharedMany
	}
	var b strings.Builder
	b.WriteString(shared + "\n")
	for _, p := range open[:min(len(open), maxListed)] {
		who := "merge group"
		if p.Number != 0 {
			who = fmt.Sprintf("#%d", p.Number)
		}
		fmt.Fprintf(&b, "\n- %s: %s", who, escaped(p.Title))
	}
	if len(open) > maxListed {
		b.WriteString("\n- and more")
	}
	f.Summary = b.String()
	return f
}

// escaped makes plain text safe within one line of Markdown: titles name people, and people choose their names.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r < ' ' || r == 0x7f:
			r = ' '
		case strings.ContainsRune("\\`*_{}[]<>()#+-.!|~&@:", r):
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// decision is one Decide at work on its own copy of the document.
type decision struct {
	s       state.Subject
	d       Document
	now     time.Time
	wishes  []actor.Wish
	dead    []actor.DeadMail
	puts    []state.Record
	why     []string
	in, did []string
	dry     func(forge.Repo) bool
}

func (t *decision) because(why string) {
	if !slices.Contains(t.why, why) {
		t.why = append(t.why, why)
	}
}

// results books how entries ended.
func (t *decision) results(results []actor.Result) {
	for _, r := range results {
		if r.Kind == kindStatus {
			t.statusResult(r)
		}
		if r.Kind != kindCheck {
			continue // a Written was delivered; the engine keeps the others
		}
		var o order
		if err := json.Unmarshal(r.Want, &o); err != nil {
			continue // not written by this code; what it was for is asked for again while it is pending
		}
		t.in = append(t.in, fmt.Sprintf("%s %s %s", r.Key, o.Check.State, r.Code))
		var done receipt
		if r.Code == actor.Done && json.Unmarshal(r.Data, &done) == nil && done.Early {
			t.d.Recheck = t.now.Add(Settle)
		}
		if r.Code == actor.Refused || r.Code == actor.GivenUp {
			t.because(whyRefused)
		}
		if o.Run == "" {
			g := t.d.Gates[o.Check.Name]
			g.answer(r, o)
			t.d.Gates[o.Check.Name] = g
		} else if run, ok := t.d.Runs[o.Run]; ok {
			before := run.ID
			run.answer(r, o)
			if r.Code == actor.Done && (run.ID == "" || run.ID != before) {
				t.d.Count++
				run.Made = t.d.Count
			}
			t.d.Runs[o.Run] = run
		}
	}
}

// readBack compares what the forge shows with what we believe it shows, and asks again where they differ.
func (t *decision) readBack(facts Facts) {
	t.d.Recheck = time.Time{}
	for _, name := range slices.Sorted(maps.Keys(t.d.Gates)) {
		g := t.d.Gates[name]
		t.compare(&g.Write, facts[gateFact(name)])
		t.d.Gates[name] = g
	}
	for _, key := range t.d.runsByAge() {
		r := t.d.Runs[key]
		t.compare(&r.Write, facts[runFact(key)])
		t.d.Runs[key] = r
	}
}

func (t *decision) compare(w *Write, f Fact) {
	switch {
	case w.pending(): // its entry will look for itself
	case w.Error != "" && w.Want != Face{}:
		w.again()
		t.because(whyDiffers)
	case f.Seq == 0 || f.Seq != w.ShownSeq: // not looked at
	case f.Unknown != "":
		t.because(whyUnknown)
		if at := t.now.Add(f.After); f.After > 0 && (t.d.Recheck.IsZero() || at.Before(t.d.Recheck)) {
			t.d.Recheck = at
		}
	case f.Shown:
		t.because(whySame)
	default:
		w.again()
		t.because(whyDiffers)
	}
}

// mail takes what pull requests say. Whatever cannot be read or is not about this commit becomes a dead letter.
func (t *decision) mail(mail []state.Mail) {
	for _, m := range mail {
		t.d.Count++
		var err error
		switch m.Kind {
		case KindGate:
			var g Gate
			if err = json.Unmarshal(m.Body, &g); err == nil {
				err = t.addressed(g.Pull, g.Ref, g.SHA, g.Check, g.Seq)
			}
			switch {
			case err != nil:
			case g.Dry && !t.dry(g.Ref.Repo):
				t.because(whyDry)
			default:
				t.gate(g)
			}
		case KindPresubmit:
			var p Presubmit
			if err = json.Unmarshal(m.Body, &p); err == nil {
				err = t.addressed(p.Pull, p.Ref, p.SHA, p.Name, p.Seq)
			}
			if err == nil && p.Key == "" {
				err = fmt.Errorf("no run key")
			}
			switch {
			case err != nil:
			case p.Dry && !t.dry(p.Ref.Repo):
				t.because(whyDry)
			default:
				t.presubmit(p)
			}
		case KindCheckRun:
			var c CheckRun
			if err = json.Unmarshal(m.Body, &c); err == nil {
				err = t.about(c.Repo, c.SHA)
			}
			if err == nil {
				t.pressed(c)
			}
		case KindWorkflowRun:
			var w WorkflowRun
			if err = json.Unmarshal(m.Body, &w); err == nil {
				err = t.about(w.Repo, w.SHA)
			}
			if err == nil {
				t.native(w)
			}
		default:
			t.because(whyNobody)
		}
		if err != nil {
			t.because(whyUnreadable)
			t.dead = append(t.dead, actor.DeadMail{Seq: m.Seq, Reason: fmt.Sprintf("mail %q to %s: %v", m.Kind, t.s, err)})
		}
	}
}

// addressed says what is wrong with a message that is not for this commit.
func (t *decision) addressed(pull state.Subject, ref forge.Ref, sha, check string, seq int64) error {
	switch to := Subject(ref.Repo, sha); {
	case to != t.s:
		return fmt.Errorf("meant for %s", to)
	case pull.Instance != t.s.Instance || pull.Project != t.s.Project || pull.Kind == "" || pull.Key == "":
		return fmt.Errorf("sent by %s of another project", pull)
	case check == "":
		return fmt.Errorf("the check has no name")
	case seq <= 0:
		return fmt.Errorf("seq %d: expected 1 or more", seq)
	}
	return nil
}

// about says what is wrong with a delivery that is not about this commit.
func (t *decision) about(repo forge.Repo, sha string) error {
	if to := Subject(repo, sha); to != t.s {
		return fmt.Errorf("meant for %s", to)
	}
	return nil
}

// pressed tells the pull requests what somebody pressed. The check must be the one that we show now, by the forge's
// own id of it: a name or an external id proves nothing, and what is pressed on an older page may have meant an older
// state.
func (t *decision) pressed(c CheckRun) {
	t.in = append(t.in, fmt.Sprintf("%s on check %s", c.Action, c.CheckID))
	say := func(to state.Subject, what, key string, others int) {
		t.because(whyPressed)
		t.did = append(t.did, fmt.Sprintf("tell %s %s", to, what))
		t.wishes = append(t.wishes, actor.Wish{
			Key: fmt.Sprintf("pressed/%s/%d", to, t.d.Count), Class: actor.Permitting, Kind: KindPressed, To: &to,
			Want: encoded(Pressed{SHA: t.s.Key, What: what, Key: key, By: c.By, At: c.At, Others: others}),
		})
	}
	for _, k := range t.d.runsByAge() {
		if r := t.d.Runs[k]; c.CheckID != "" && r.ID == c.CheckID && c.Action == ActionRerequested {
			say(r.Pull, PressedRerun, cmp.Or(r.Of, k), 0) // one job alone is not run again
			return
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.d.Gates)) {
		if c.CheckID == "" || t.d.Gates[name].ID != c.CheckID {
			continue
		}
		open := stillOpen(t.d.at(name))
		switch {
		case c.Action == ActionRerequested:
			for _, p := range open {
				say(p.Subject, PressedRecheck, "", len(open)-1)
			}
		case c.Action != ActionRequested || c.Identifier != PressedApprove:
			t.because(whyNotOurs)
		case len(open) == 1:
			say(open[0].Subject, PressedApprove, "", 0)
		default:
			t.because(whyWhichPull) // the summary says which, and what to do
		}
		return
	}
	t.because(whyNotOurs)
}

// native tells every pull request of this commit, also those whose head it no longer is, of a run that the forge
// started by itself: each knows whether it may go on. Whose run it is they tell by the head repository.
func (t *decision) native(w WorkflowRun) {
	if w.Event != "pull_request" {
		t.because(whyNobody)
		return
	}
	for _, k := range slices.Sorted(maps.Keys(t.d.Pulls)) {
		p := t.d.Pulls[k]
		if p.Number == 0 {
			continue // a merge group
		}
		t.because(whyNative)
		t.wishes = append(t.wishes, actor.Wish{
			Key: fmt.Sprintf("native/%s/%d", k, t.d.Count), Class: actor.Shutting, Kind: KindNative, To: &p.Subject,
			Want: encoded(Native{
				SHA: t.s.Key, RunID: w.RunID, Status: w.Status, Conclusion: w.Conclusion, URL: w.URL,
				HeadRepoID: w.HeadRepoID, Attempt: w.Attempt, At: w.At,
			}),
		})
	}
}

func (t *decision) gate(m Gate) {
	key := m.Pull.String()
	p, known := t.d.Pulls[key]
	t.in = append(t.in, fmt.Sprintf("gate %s seq %d open=%t granted=%t", key, m.Seq, m.Open, m.Granted))
	if known && m.Seq <= p.Said {
		t.because(whyLate)
		if m.Seq == p.Said && m.Tell {
			p.Tell = true // asked again: told again, written nothing
			t.d.Pulls[key] = p
		}
		return
	}
	t.d.Repo = m.Ref.Repo
	t.d.Pulls[key] = Pull{
		Subject: m.Pull, Number: m.Ref.Number, Check: m.Check, Said: m.Seq, Heard: t.d.Count,
		Open: m.Open, Granted: m.Granted, Title: cut(m.Title, maxTitle), Summary: cut(m.Summary, maxSummary),
		Owed: Owed{Tell: m.Tell || p.Tell, Since: fresh},
	}
	g := t.d.Gates[m.Check]
	g.Merged = g.Merged || m.Merged
	t.d.Gates[m.Check] = g
}

// steps orders the states of one attempt.
func steps(s forge.CheckState) int {
	switch s {
	case forge.CheckQueued:
		return 1
	case forge.CheckRunning:
		return 2
	default:
		return 3
	}
}

func (t *decision) presubmit(m Presubmit) {
	r, known := t.d.Runs[m.Key]
	t.in = append(t.in, fmt.Sprintf("presubmit %s seq %d %s", m.Key, m.Seq, m.State))
	if known && m.Seq <= r.Said {
		t.because(whyLate)
		if m.Seq == r.Said && m.Tell {
			r.Tell = true
			t.d.Runs[m.Key] = r
		}
		return
	}
	if !known {
		r = RunCheck{Pull: m.Pull, Name: m.Name, Born: t.d.Count}
		r.Report.Count, r.Report.N, r.Report.Ended = m.Heard, m.Heard, m.Heard // a run that had left is back
	}
	t.d.Repo = m.Ref.Repo
	r.Said, r.Tell, r.Since = m.Seq, r.Tell || m.Tell, fresh
	r.Report.Heard = max(r.Report.Heard, m.Heard)
	t.d.Runs[m.Key] = t.wanted(r, known, Face{State: m.State, Title: m.Title, URL: m.URL, Attempt: m.Attempt})
	for _, j := range m.Jobs[:min(len(m.Jobs), maxJobs)] {
		if j.Name == "" {
			continue
		}
		key := m.Key + "/" + j.Name
		r, known := t.d.Runs[key]
		if !known {
			r = RunCheck{Pull: m.Pull, Name: m.Name + " / " + j.Name, Of: m.Key, Born: t.d.Count}
		}
		r.Said, r.Since = m.Seq, fresh
		t.d.Runs[key] = t.wanted(r, known, Face{State: j.State, Title: j.Title, URL: j.URL, Attempt: m.Attempt})
	}
}

// wanted makes f the wanted face of a run or job, unless it would go back.
func (t *decision) wanted(r RunCheck, known bool, f Face) RunCheck {
	f.Title, f.Attempt = cut(f.Title, maxTitle), max(f.Attempt, 1)
	switch f.State {
	case forge.CheckQueued, forge.CheckRunning, forge.CheckSuccess, forge.CheckFailure, forge.CheckCancelled:
	default:
		f.State = forge.CheckFailure // P10: whatever else a run may end in is no pass
	}
	if known && (f.Attempt < r.Want.Attempt || f.Attempt == r.Want.Attempt && steps(f.State) < steps(r.Want.State)) {
		t.because(whyBackwards)
	} else if r.change(f) {
		t.because(whyPresubmit)
		if f.State == forge.CheckCancelled && r.Shown == (Face{}) && r.Error == "" {
			t.because(whyNothing)
			r.takeBack()
		}
	} else if r.Error != "" && !r.pending() {
		r.again()
	}
	return r
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// gates applies the rule to every gate and wishes for what is not shown.
func (t *decision) gates() {
	for _, name := range slices.Sorted(maps.Keys(t.d.Gates)) {
		g, pulls := t.d.Gates[name], t.d.at(name)
		f, why := gateFace(g, pulls)
		news := slices.ContainsFunc(pulls, func(p Pull) bool { return p.Since == fresh })
		if changed := g.change(f); changed || news {
			t.because(why)
		}
		if news && g.Error != "" && !g.pending() {
			g.again() // refused once; somebody has something new to say
		}
		if len(stillOpen(pulls)) > 1 {
			t.because(whyShared)
		}
		for _, p := range pulls {
			if p.Since == fresh {
				p.Since = g.Seq
				t.d.Pulls[p.Subject.String()] = p
			}
		}
		t.ask(&g.Write, order{Check: forge.Check{
			Name: name, ExternalID: gateID(g.Seq), Approve: g.Want.State == forge.CheckActionRequired, Pulls: numbers(pulls),
		}})
		t.d.Gates[name] = g
	}
}

// runs wishes for the presubmit checks: one at a time for each name, since forges show the newest of a name; the
// oldest run first, but no run of a pull request after a newer one of the same pull request is shown
// (docs/statuses.md, 1). One that is only on its way may still be taken back: it settles nothing.
func (t *decision) runs() {
	busy, newer := map[string]string{}, map[string]bool{}
	keys := t.d.runsByAge()
	for _, k := range slices.Backward(keys) {
		r := t.d.Runs[k]
		if r.Since == fresh {
			r.Since = r.Seq
		}
		line := r.Pull.String() + "\x00" + r.Name
		switch {
		case !r.pending():
		case t.isGate(r.Name):
			t.because(whyName)
			r.settle("the name of the check belongs to the gate")
		case r.out():
			busy[r.Name] = k
		case newer[line]:
			t.because(whyReplaced)
			r.settle("a newer run is shown")
		}
		newer[line] = newer[line] || r.Shown != Face{}
		t.d.Runs[k] = r
	}
	for _, k := range keys {
		r := t.d.Runs[k]
		if first, taken := busy[r.Name]; !r.pending() || taken && first != k {
			continue
		}
		busy[r.Name] = k
		if r.Of != "" && r.Class == actor.Permitting {
			r.Class = actor.Cosmetic // no opening waits for it: it comes after all others, and when the budget allows
		}
		c := forge.Check{Name: r.Name, ExternalID: k, Pulls: t.d.owner(r), Part: r.Of != ""}
		if !r.Shown.State.Completed() && r.Shown.Attempt == r.Want.Attempt {
			c.ID = r.ID // a completed check run cannot reopen: a new one is made
		}
		t.ask(&r.Write, order{Run: k, Check: c})
		t.d.Runs[k] = r
	}
}

func (t *decision) isGate(name string) bool {
	for g := range t.d.Gates {
		if strings.EqualFold(g, name) {
			return true
		}
	}
	return false
}

// ask wishes for w while its end is not known. Asking for the same again changes nothing.
func (t *decision) ask(w *Write, o order) {
	if !w.pending() {
		return
	}
	if w.Asked < w.Seq {
		t.did = append(t.did, fmt.Sprintf("write %s %s", o.Check.Name, w.Want.State))
	}
	w.Asked = w.Seq
	o.Seq, o.Attempt = w.Seq, w.Want.Attempt
	o.Check, o.Dry = faced(o.Check, t.d.Repo, t.s.Key, w.Want), t.dry(t.d.Repo)
	t.wishes = append(t.wishes, actor.Wish{
		Key: "check/" + o.Check.Name, Class: w.Class, Kind: kindCheck, Want: encoded(o), Undo: w.Undo == w.Seq,
	})
}

func faced(c forge.Check, repo forge.Repo, sha string, f Face) forge.Check {
	c.Repo, c.SHA = repo, sha
	c.State, c.Title, c.Summary, c.URL = f.State, f.Title, f.Summary, f.URL
	return c
}

func gateID(seq int64) string { return fmt.Sprintf("gate:%d", seq) }

// tell pays what is owed: to everyone whose message is covered by what the forge shows, or was refused.
func (t *decision) tell() {
	for _, k := range slices.Sorted(maps.Keys(t.d.Pulls)) {
		p := t.d.Pulls[k]
		g := t.d.Gates[p.Check]
		if t.written(p.Subject, "gate", p.Said, p.Owed, g.Write) {
			p.Tell = false
			t.d.Pulls[k] = p
		}
	}
	for _, k := range slices.Sorted(maps.Keys(t.d.Runs)) {
		r := t.d.Runs[k]
		if t.written(r.Pull, k, r.Said, r.Owed, r.Write) {
			r.Tell = false
			t.d.Runs[k] = r
		}
	}
}

func (t *decision) written(to state.Subject, key string, said int64, o Owed, w Write) bool {
	if !o.Tell || o.Since > w.Ended || w.Error != "" && w.pending() {
		return false
	}
	m := Written{Key: key, SHA: t.s.Key, Seq: said, State: w.Shown.State, OK: w.Error == "", Why: w.Error}
	if m.OK && w.Shown == (Face{}) {
		m.State = w.Want.State // nothing needed to be shown
	}
	t.say(to, m)
	return true
}

// say wishes for one Written; a newer one to the same about the same replaces an older that was not delivered.
func (t *decision) say(to state.Subject, m Written) {
	t.did = append(t.did, fmt.Sprintf("tell %s %s seq %d ok=%t", to, m.Key, m.Seq, m.OK))
	t.wishes = append(t.wishes, actor.Wish{
		Key: "written/" + to.String() + "/" + m.Key, Class: actor.Permitting, Kind: KindWritten, Want: encoded(m), To: &to,
	})
}

// encoded is v as JSON; v is always one of this package's own plain structs.
func encoded(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("status: encode %T: %v", v, err))
	}
	return b
}

// line is one line of the commit's story.
type line struct {
	At  time.Time `json:"at"`
	In  []string  `json:"in,omitempty"`
	Why []string  `json:"why,omitempty"`
	Did []string  `json:"did,omitempty"`
}

// step ends the decision.
func (t *decision) step() actor.Step[Document] {
	for _, p := range t.d.squeeze() {
		t.because(whyCrowded)
		t.say(p.Subject, Written{Key: "gate", SHA: t.s.Key, Seq: p.Said, Why: "too many pull requests share this commit"})
	}
	step := actor.Step[Document]{Next: t.d, Wishes: t.wishes, Wake: t.d.wake(), Put: t.puts, Dead: t.dead, Why: t.why}
	if !slices.ContainsFunc(slices.Collect(maps.Values(t.d.Pulls)), func(p Pull) bool { return p.Open }) {
		step.Keep = kept // an open one may wait for its approval longer, without a word
	}
	if t.d.Repo.Name != "" {
		step.Index = []state.Index{{Name: "name", Label: fmt.Sprintf("%s:%s@%.12s", t.d.Repo.Instance, t.d.Repo.Name, t.s.Key)}}
	}
	if len(t.in)+len(t.why)+len(t.did) > 0 {
		step.Journal = [][]byte{encoded(line{At: t.now, In: t.in, Why: t.why, Did: t.did})}
	}
	return step
}
