// Package status is the subject of one commit, "<instance>/<project id>/commit/<sha>": every write at the forge for a
// commit goes through it, because forges count checks per SHA and lock per SHA. Pull requests mail it their state; it
// alone writes the gate check and the presubmit checks, and tells back.
package status

import (
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Kinds of mail between a pull request and its commit, and the format they are written in.
const (
	KindGate      = "gate"      // pull request → commit, body Gate
	KindPresubmit = "presubmit" // pull request → commit, body Presubmit
	KindWritten   = "written"   // commit → pull request, body Written
	KindReported  = "reported"  // commit → pull request, body Reported
	Format        = 1
)

// Subject is the subject of a commit.
func Subject(repo forge.Repo, sha string) state.Subject {
	return state.Subject{Instance: repo.Instance, Project: strconv.FormatInt(repo.ID, 10), Kind: "commit", Key: sha}
}

// Gate is what one pull request says of itself on one of its heads, current or former. The newest Seq of a pull
// request counts; a late older one is ignored.
type Gate struct {
	Pull   state.Subject `json:"pull"`
	Ref    forge.Ref     `json:"ref"`
	SHA    string        `json:"sha"`
	Check  string        `json:"check"`            // name of the gate check, policy
	Seq    int64         `json:"seq"`              // grows with each change of the pull request's gate, over all SHAs
	Open   bool          `json:"open"`             // the pull request is open and this SHA is its head
	Merged bool          `json:"merged,omitempty"` // leave the check as it is
	// Granted: a standing grant for this SHA whose trigger was accepted (or needs none).
	Granted bool   `json:"granted"`
	Title   string `json:"title"`
	Summary string `json:"summary"`
	// Tell asks for a Written to Pull once the forge shows it.
	Tell bool `json:"tell,omitempty"`
	Dry  bool `json:"dry,omitempty"` // decided in a dry run: never written for real
}

// Presubmit is the wanted state of the presubmit check of one run.
type Presubmit struct {
	Pull  state.Subject    `json:"pull"`
	Ref   forge.Ref        `json:"ref"`
	SHA   string           `json:"sha"`
	Key   string           `json:"key"`  // run key
	Name  string           `json:"name"` // name of the check
	Seq   int64            `json:"seq"`
	State forge.CheckState `json:"state"`
	Title string           `json:"title"`
	URL   string           `json:"url,omitempty"`
	// Attempt above 1 makes a new check run: a completed one cannot reopen.
	Attempt int `json:"attempt,omitempty"`
	// Jobs are the parts of the run, each with a check of its own named "<Name> / <job>". They show what State sums up.
	Jobs []Job `json:"jobs,omitempty"`
	Tell bool  `json:"tell,omitempty"`
	Dry  bool  `json:"dry,omitempty"` // as Gate.Dry
	// Heard is the newest Reported.Seq of this run that is taken into account. A Presubmit is told for each Reported,
	// also where it changed nothing: that is how its client learns that it did not count.
	Heard int64 `json:"heard,omitempty"`
}

// Job is the wanted state of the check of one job of a run.
type Job struct {
	Name  string           `json:"name"` // unique in its run
	State forge.CheckState `json:"state"`
	Title string           `json:"title,omitempty"`
	URL   string           `json:"url,omitempty"`
}

// Reported tells a pull request what the CI side of one of its triggered runs says of it, by the run's own token. What
// it is worth the pull request decides, and answers with a Presubmit. A newer one may come instead of an older.
type Reported struct {
	Key   string           `json:"key"` // run key
	SHA   string           `json:"sha"`
	Seq   int64            `json:"seq"`   // grows with each report of this run
	State forge.CheckState `json:"state"` // queued, in_progress, success, failure (also for skipped) or cancelled
	URL   string           `json:"url,omitempty"`
	// Description is what the CI side wrote: hostile text.
	Description string    `json:"description,omitempty"`
	Op          string    `json:"op"` // id of the operation
	At          time.Time `json:"at"` // store time of acceptance
}

// Written tells a pull request that the forge shows what was asked under Seq, or that it never will.
type Written struct {
	Key   string           `json:"key"` // "gate" or the run key
	SHA   string           `json:"sha"`
	Seq   int64            `json:"seq"`
	State forge.CheckState `json:"state"` // what is shown; for the gate it may differ from what one PR asked for
	OK    bool             `json:"ok"`
	Why   string           `json:"why,omitempty"` // why not
}
