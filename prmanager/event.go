package prmanager

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// Kinds of mail a pull request reads, besides status.KindWritten, and the one format all of them are written in.
const (
	KindPull      = "pull_request" // body Note
	KindOrder     = "order"        // body Order
	KindReport    = "run_report"   // body Report
	KindReconcile = "reconcile"    // body Repair
	Format        = 1
)

// Subject is the subject of a pull request.
func Subject(ref forge.Ref) state.Subject {
	return state.Subject{
		Instance: ref.Repo.Instance, Project: strconv.FormatInt(ref.Repo.ID, 10), Kind: "pr", Key: strconv.Itoa(ref.Number),
	}
}

// Action is one thing that a delivery says has happened to a pull request, in words no forge owns.
type Action string

// The actions that the gate knows. An adapter passes a forge's own word where none of these fits: it is counted and
// makes no event.
const (
	ActionOpened      Action = "opened"
	ActionPushed      Action = "pushed" // Before and After are set
	ActionLabelled    Action = "labelled"
	ActionUnlabelled  Action = "unlabelled"
	ActionBaseChanged Action = "base_changed" // BaseFrom is set
	ActionDraft       Action = "draft"
	ActionReady       Action = "ready"
	ActionClosed      Action = "closed" // Pull.Merged tells merged from abandoned
	ActionReopened    Action = "reopened"
)

// Note is the forge-neutral form of one pull-request delivery: the mail body of KindPull, produced by the forge's
// adapter when the delivery is stored. It carries only what decisions need; titles, descriptions and branch texts of
// outsiders are left out.
type Note struct {
	// Actions is what the delivery reports, in the order to be applied. GitHub reports one at a time; one GitLab
	// update may label, push and retarget at once.
	Actions  []Action `json:"actions"`
	Delivery string   `json:"delivery,omitempty"` // the forge's id of the delivery, for the story only
	// Pull is the pull request as the payload shows it; Ref.Repo is complete, including the installation, and
	// Head.Name may be empty.
	Pull   forge.Pull  `json:"pull"`
	Sender forge.Actor `json:"sender"`
	// Before and After are the heads around a push. Before may be empty where the forge does not say.
	Before   string   `json:"before,omitempty"`
	After    string   `json:"after,omitempty"`
	Labels   []string `json:"labels,omitempty"`    // names of the labels that were added or removed
	BaseFrom string   `json:"base_from,omitempty"` // the base branch before the change
}

// Order is what an operator ordered on the command line or the operator page. It was authorised where it came in:
// no trust is looked up for it.
type Order struct {
	Ref    forge.Ref `json:"ref"`
	Revoke bool      `json:"revoke,omitempty"` // false = approve
	SHA    string    `json:"sha,omitempty"`    // the full commit that is approved; unused by a revoke
	By     string    `json:"by"`               // who the operator says to be
	Reason string    `json:"reason"`
}

// Report is what became of a run, told by whoever watches the CI side.
type Report struct {
	Key     string           `json:"key"`
	State   forge.CheckState `json:"state"`
	URL     string           `json:"url,omitempty"`
	RunID   string           `json:"run_id,omitempty"`  // the CI side's id of the run, where it has one
	Attempt int              `json:"attempt,omitempty"` // from 1; a later one follows a re-run
	Jobs    []Job            `json:"jobs,omitempty"`    // all that the run has, where the CI side tells of them
	Text    string           `json:"text,omitempty"`    // what the CI side says of it
	Heard   int64            `json:"heard,omitempty"`   // the commit's number of what it passed on; 0 = it did not
}

// Job is one job of a run, as the CI side tells of it. Its name is text from the base branch.
type Job struct {
	Name    string           `json:"name"`
	State   forge.CheckState `json:"state"`             // like a run's: only success is a pass
	Attempt int              `json:"attempt,omitempty"` // how often it was given to a machine; 0 = not yet
	Note    string           `json:"note,omitempty"`    // what people should know besides
	URL     string           `json:"url,omitempty"`     // of its log
}

// Repair asks a pull request to compare itself with the forge. A pull request that was never seen is adopted by it.
type Repair struct {
	Ref forge.Ref `json:"ref"`
	Why string    `json:"why,omitempty"` // "sweep", "takeover", … for the story
}

// Event is one thing that Decide handles. The set is closed: a new rule is a new type here and a new case in
// (*turn).apply.
type Event interface {
	event()
	// words tells the event in the story.
	words() string
}

// Sighting is a pull request as a delivery showed it; every event that comes from the forge embeds one.
type Sighting struct {
	Pull   forge.Pull
	Sender forge.Actor
}

type (
	// Opened may come late, like every delivery.
	Opened struct{ Sighting }
	// Pushed brings a new head. Before is empty where the forge does not say what was there.
	Pushed struct {
		Sighting
		Before, After string
	}
	// Labelled is a nudge to read the label history; it is no evidence by itself.
	Labelled struct {
		Sighting
		Labels []string
		Added  bool
	}
	// BaseChanged means another base branch.
	BaseChanged struct {
		Sighting
		From string
	}
	// DraftChanged made it a draft or made it ready.
	DraftChanged struct{ Sighting }
	// Closed is also the merge; Pull.Merged tells.
	Closed struct{ Sighting }
	// Reopened brings back no grant.
	Reopened struct{ Sighting }

	// ApproveCli is an operator's approval of one commit.
	ApproveCli struct{ Order }
	// RevokeCli is an operator's order to end whatever stands.
	RevokeCli struct{ Order }
	// Written is the commit's answer that a check is shown, or never will be.
	Written struct{ status.Written }
	// Effected is the end of one of our own effects.
	Effected struct{ actor.Result }
	// RunReported is the end, or the beginning, of a run at the CI side.
	RunReported struct{ Report }
	// Commented is a comment with commands.
	Commented struct{ Comment }
	// Pressed is a press on a check of ours.
	Pressed struct{ status.Pressed }
	// NativeRan is news of a run that the forge started by itself.
	NativeRan struct{ status.Native }
	// Reconcile compares with the forge.
	Reconcile struct{ Repair }
	// Unhandled is a delivery whose actions nobody handles. It changes nothing and is counted.
	Unhandled struct{ Actions []Action }
)

func (Opened) event()       {}
func (Pushed) event()       {}
func (Labelled) event()     {}
func (BaseChanged) event()  {}
func (DraftChanged) event() {}
func (Closed) event()       {}
func (Reopened) event()     {}
func (ApproveCli) event()   {}
func (RevokeCli) event()    {}
func (Written) event()      {}
func (Effected) event()     {}
func (RunReported) event()  {}
func (Commented) event()    {}
func (Pressed) event()      {}
func (NativeRan) event()    {}
func (Reconcile) event()    {}
func (Unhandled) event()    {}

func (e Opened) words() string {
	return "opened by " + name(e.Sender) + " at " + short(e.Pull.Head.SHA)
}
func (e Pushed) words() string { return "push of " + short(e.After) + " by " + name(e.Sender) }
func (e Labelled) words() string {
	if e.Added {
		return "label added by " + name(e.Sender)
	}
	return "label removed by " + name(e.Sender)
}
func (e BaseChanged) words() string { return "base branch changed by " + name(e.Sender) }

func (e DraftChanged) words() string {
	if e.Pull.Draft {
		return "made a draft by " + name(e.Sender)
	}
	return "made ready by " + name(e.Sender)
}
func (e Closed) words() string {
	if e.Pull.Merged {
		return "merged by " + name(e.Sender)
	}
	return "closed by " + name(e.Sender)
}
func (e Reopened) words() string { return "reopened by " + name(e.Sender) }
func (e ApproveCli) words() string {
	return "approval of " + short(e.SHA) + " ordered by " + plain(e.By, 40) + ": " + plain(e.Reason, 200)
}
func (e RevokeCli) words() string {
	return "revocation ordered by " + plain(e.By, 40) + ": " + plain(e.Reason, 200)
}
func (e Written) words() string {
	what := e.Key + " on " + short(e.SHA)
	if !e.OK {
		return "cannot be shown: " + what + ": " + plain(e.Why, 100)
	}
	return "shown: " + what + " " + string(e.State)
}
func (e Effected) words() string {
	w := e.Kind + " " + e.Key + ": " + string(e.Code)
	if e.Error != "" {
		w += ": " + plain(e.Error, 200)
	}
	return w
}
func (e RunReported) words() string {
	w := "run " + plain(e.Key, 40) + " is " + plain(string(e.State), 20)
	if e.Text != "" {
		w += ": " + plain(e.Text, 100)
	}
	return w
}
func (e Commented) words() string {
	w := "comment by " + name(e.By) + ":"
	for i, c := range e.Commands {
		if i > 0 {
			w += ","
		}
		switch c.Verb {
		case VerbApprove:
			w += " approve " + short(c.SHA)
		default:
			w += " " + plain(string(c.Verb), 20)
		}
	}
	return w
}
func (e Pressed) words() string {
	return plain(e.What, 20) + " pressed by " + name(e.By) + " on " + short(e.SHA)
}
func (e NativeRan) words() string {
	return "run of " + short(e.SHA) + " is " + string(nativeState(e.Native))
}
func (e Reconcile) words() string { return "reconcile: " + plain(e.Why, 40) }
func (e Unhandled) words() string {
	w := "nothing we handle"
	for _, a := range e.Actions {
		w += " " + plain(string(a), 40)
	}
	return w
}

// parse turns one mail of subject s into its events. The error says, in words that quote nothing of the body, why
// the mail can never be read.
func parse(s state.Subject, m state.Mail) ([]Event, error) {
	if m.Format != Format {
		return nil, fmt.Errorf("mail %q has format %d, this program reads %d", m.Kind, m.Format, Format)
	}
	switch m.Kind {
	case KindPull:
		n, err := decode[Note](m.Body)
		if err != nil {
			return nil, err
		}
		if err := n.check(s); err != nil {
			return nil, err
		}
		return n.events(), nil
	case KindOrder:
		o, err := decode[Order](m.Body)
		if err != nil {
			return nil, err
		}
		if Subject(o.Ref) != s {
			return nil, errForeign
		}
		if o.Revoke {
			return []Event{RevokeCli{o}}, nil
		}
		if !isSHA(o.SHA) {
			return nil, errSHA
		}
		return []Event{ApproveCli{o}}, nil
	case KindReport:
		r, err := decode[Report](m.Body)
		return []Event{RunReported{r}}, err
	case KindReconcile:
		r, err := decode[Repair](m.Body)
		if err == nil && Subject(r.Ref) != s {
			err = errForeign
		}
		return []Event{Reconcile{r}}, err
	case KindComment:
		c, err := decode[Comment](m.Body)
		if err == nil {
			err = c.check(s)
		}
		return []Event{Commented{c}}, err
	case status.KindPressed:
		p, err := decode[status.Pressed](m.Body)
		if err == nil && !isSHA(p.SHA) {
			err = errSHA
		}
		return []Event{Pressed{p}}, err
	case status.KindNative:
		n, err := decode[status.Native](m.Body)
		if err == nil && !isSHA(n.SHA) {
			err = errSHA
		}
		return []Event{NativeRan{n}}, err
	case status.KindReported:
		r, err := reportOf(m.Body)
		return []Event{RunReported{r}}, err
	case status.KindWritten:
		w, err := decode[status.Written](m.Body)
		return []Event{Written{w}}, err
	default:
		return nil, fmt.Errorf("no pull request reads mail of kind %q", plain(m.Kind, 40))
	}
}

// reportOf is what a run's own token said to the commit, as any other report.
func reportOf(body []byte) (Report, error) {
	r, err := decode[status.Reported](body)
	return Report{Key: r.Key, State: r.State, URL: r.URL, Text: r.Description, Heard: r.Seq}, err
}

// Why a mail can never be read.
var (
	errBody    = errors.New("the body is not what its kind says")
	errForeign = errors.New("the body belongs to another subject")
	errSHA     = errors.New("a commit is not named by a full hexadecimal SHA")
	errTime    = errors.New("the payload has no time")
	errLong    = errors.New("a field is longer than any forge allows")
)

func decode[T any](body []byte) (T, error) {
	var v T
	if err := json.Unmarshal(body, &v); err != nil {
		return v, errBody // the decoder's own text may quote the body
	}
	return v, nil
}

// Longest values taken from a delivery. Git itself ends ref names at about this length on common file systems.
const (
	maxName   = 255
	maxLabels = 100
)

func (n *Note) check(s state.Subject) error {
	p := &n.Pull
	switch {
	case Subject(p.Ref) != s:
		return errForeign
	case !isSHA(p.Head.SHA), n.Before != "" && !isSHA(n.Before), n.After != "" && !isSHA(n.After):
		return errSHA
	case p.UpdatedAt.IsZero():
		return errTime
	case len(p.Base.Name) > maxName, len(n.Actions) > maxLabels, len(n.Labels) > maxLabels, len(p.Ref.Repo.Name) > maxName:
		return errLong
	}
	for _, l := range n.Labels {
		if len(l) > 4*maxName {
			return errLong
		}
	}
	p.Head.Name = "" // an outsider chose it and nothing needs it
	return nil
}

func (c Comment) check(s state.Subject) error {
	switch {
	case Subject(c.Ref) != s:
		return errForeign
	case c.At.IsZero():
		return errTime
	case len(c.Commands) > maxLabels, len(c.Ref.Repo.Name) > maxName:
		return errLong
	}
	for _, said := range c.Commands {
		if said.SHA != "" && !isSHA(said.SHA) {
			return errSHA
		}
	}
	return nil
}

func (n *Note) events() []Event {
	at := Sighting{Pull: n.Pull, Sender: n.Sender}
	var out []Event
	var unknown []Action
	for _, a := range n.Actions {
		switch a {
		case ActionOpened:
			out = append(out, Opened{at})
		case ActionPushed:
			after := n.After
			if after == "" {
				after = n.Pull.Head.SHA
			}
			out = append(out, Pushed{at, n.Before, after})
		case ActionLabelled, ActionUnlabelled:
			out = append(out, Labelled{at, slices.Clone(n.Labels), a == ActionLabelled})
		case ActionBaseChanged:
			out = append(out, BaseChanged{at, n.BaseFrom})
		case ActionDraft, ActionReady:
			out = append(out, DraftChanged{at})
		case ActionClosed:
			out = append(out, Closed{at})
		case ActionReopened:
			out = append(out, Reopened{at})
		default:
			unknown = append(unknown, a)
		}
	}
	if len(out) == 0 {
		return []Event{Unhandled{unknown}}
	}
	return out
}
