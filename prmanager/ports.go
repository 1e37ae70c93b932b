package prmanager

import (
	"context"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// Reader looks at the forge. Every error is a *forge.Fault.
type Reader interface {
	// Pull reads the live pull request.
	Pull(ctx context.Context, ref forge.Ref) (forge.Pull, error)
	// LabelHistory reads the newest page of label changes, oldest first, all labels.
	LabelHistory(ctx context.Context, ref forge.Ref) ([]forge.LabelEntry, error)
	// Trusted asks live whether who satisfies one rule in repo. The answer is about who.ID: a login that has been
	// taken over by another account is answered no. "Not found" is a no; every other failure is an error, never a no.
	Trusted(ctx context.Context, repo forge.Repo, who forge.Actor, rule forge.Rule) (bool, error)
	// Pushed asks whether it was who, the sender of the delivery that brought head, that pushed its commit onto its branch:
	// a forge may write a delivery when somebody else has pushed once more. What can never be seen is a no; what does not
	// show yet is an error.
	Pushed(ctx context.Context, head forge.Branch, who forge.Actor) (bool, error)
}

// Labeller writes labels. Setting what is so already is a success; removing a label that is gone (404) too.
type Labeller interface {
	SetLabel(ctx context.Context, ref forge.Ref, label string, present bool) error
}

// Trigger starts presubmits; one per SIGNALBOX_TRIGGER entry. Every error is a *forge.Fault.
type Trigger interface {
	// Start starts the run. The caller has confirmed before, and has looked for it where the trigger is a Finder. Where
	// it is none the run may be started again under its key, which starts nothing more. See Mistake.
	Start(ctx context.Context, run forge.Run) (forge.Receipt, error)
	// Cancel stops the run; a run that is gone or finished is a success. Where the trigger is no Finder the receipt may
	// be empty, and the run one that was never started.
	Cancel(ctx context.Context, run forge.Run, receipt forge.Receipt) error
}

// Mistake is within the error of a Start that the repository's own files forbid. Who can mend them reads it in the check;
// nothing is left for an operator to do, so it is the end of a run and no dead letter.
type Mistake struct{ Err error }

func (m *Mistake) Error() string { return m.Err.Error() }
func (m *Mistake) Unwrap() error { return m.Err }

// Finder is a Trigger whose CI side can be asked for a run started earlier under a key. At any other the CI knows runs
// by their keys.
type Finder interface {
	Find(ctx context.Context, run forge.Run) (receipt forge.Receipt, found bool, err error)
}

// Watcher is a Trigger that can say what became of a run, for results whose delivery was lost. The zero RunState means
// that there is none.
type Watcher interface {
	State(ctx context.Context, run forge.Run, receipt forge.Receipt) (RunState, error)
}

// RunState is a run as the CI side shows it. A native trigger answers for all its runs at once.
type RunState struct {
	Receipt forge.Receipt
	State   forge.CheckState // CheckActionRequired: held back until somebody approves it; empty = no such run
	Attempt int              // from 1
	Jobs    []Job            // as of a Report
}

// report is what is seen as if it had been told.
func (s RunState) report(key string) Report {
	return Report{Key: key, State: s.State, URL: s.Receipt.URL, RunID: s.Receipt.ID, Attempt: s.Attempt, Jobs: s.Jobs}
}

// Rerunner is a native Trigger that can run again what has ended at a commit.
type Rerunner interface {
	// Rerun lets go on what is held back, and runs again what had ended before asked, in the forge's time: sent twice
	// it does it once.
	Rerun(ctx context.Context, run forge.Run, asked time.Time) error
}

// Commenter writes comments: only ever the ready-to-paste answer to a command that lacks its SHA.
type Commenter interface {
	Comment(ctx context.Context, ref forge.Ref, text string) error
}
