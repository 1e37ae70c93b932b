// Package forge holds the words every forge shares: repositories, pull requests, people, checks, runs, and the
// classes of error a forge can answer with. It does no I/O and imports nothing of ours, so that the decision code
// (prmanager, status) and the adapters (forge/github, forge/gitlab) can speak to each other without knowing each other.
package forge

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Repo names a repository by its immutable ID; Name is what it was called when last seen, kept only because REST
// paths and people need it. Two Repos are the same if Instance and ID are.
type Repo struct {
	Instance     string `json:"instance"`               // configured name of the forge, for example "github"
	ID           int64  `json:"id"`                     // the forge's id, never reused
	Name         string `json:"name"`                   // "owner/name"; may change
	Installation int64  `json:"installation,omitempty"` // GitHub App installation that sees the repository; 0 with a token
	Private      bool   `json:"private,omitempty"`
}

// Ref names one pull request (GitLab: merge request, Number is the iid).
type Ref struct {
	Repo   Repo `json:"repo"`
	Number int  `json:"number"`
}

// String is the form people type and logs show: INSTANCE:OWNER/REPO#N.
func (r Ref) String() string { return fmt.Sprintf("%s:%s#%d", r.Repo.Instance, r.Repo.Name, r.Number) }

// Actor is a person, bot or App at the forge. ID decides; Login is for texts only. The zero Actor is a deleted
// account ("ghost") or one the forge did not name, and is trusted by nobody.
type Actor struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Bot   bool   `json:"bot,omitempty"`
}

// Pull is a pull request as the forge shows it at one moment.
type Pull struct {
	Ref    Ref    `json:"ref"`
	Open   bool   `json:"open"`
	Merged bool   `json:"merged,omitempty"`
	Draft  bool   `json:"draft,omitempty"`
	Author Actor  `json:"author"`
	Head   Branch `json:"head"`
	Base   Branch `json:"base"`
	// UpdatedAt is the forge's clock. A live Pull older than a payload means that the API lags (docs/rules.md P1).
	UpdatedAt time.Time `json:"updated_at"`
}

// Branch is one end of a pull request. RepoID is 0 where the fork was deleted.
type Branch struct {
	SHA    string `json:"sha"`
	Name   string `json:"name"`
	RepoID int64  `json:"repo_id"`
}

// SameRepo says whether the head branch lives in the base repository.
func (p Pull) SameRepo() bool { return p.Head.RepoID != 0 && p.Head.RepoID == p.Base.RepoID }

// LabelEntry is one line of the label history of a pull request: GitHub's issue events "labeled" and "unlabeled",
// GitLab's resource label events. IDs grow with time.
type LabelEntry struct {
	ID    int64     `json:"id"`
	Added bool      `json:"added"`
	Label string    `json:"label"`
	Actor Actor     `json:"actor"`
	At    time.Time `json:"at"` // the forge's clock
}

// CheckState is what a check shows. There is no neutral and no skipped on purpose: both satisfy a required check
// (docs/rules.md P10).
type CheckState string

// The states of a check, in the words of GitHub's check runs; forge adapters map them to what their forge has.
const (
	CheckQueued         CheckState = "queued"
	CheckRunning        CheckState = "in_progress"
	CheckSuccess        CheckState = "success"
	CheckFailure        CheckState = "failure"
	CheckActionRequired CheckState = "action_required"
	CheckCancelled      CheckState = "cancelled"
)

// Completed says whether the state is final for one check run.
func (s CheckState) Completed() bool { return s != CheckQueued && s != CheckRunning }

// Check is a check run or commit status that should be shown on a commit.
type Check struct {
	Repo       Repo       `json:"repo"`
	SHA        string     `json:"sha"`
	Name       string     `json:"name"`
	ExternalID string     `json:"external_id"` // idempotency key: "gate:<seq>" or a run key
	State      CheckState `json:"state"`
	Title      string     `json:"title"`             // adapters cut it to what the forge takes (GitHub status: 140)
	Summary    string     `json:"summary,omitempty"` // Markdown; never contains anything an outsider wrote unescaped
	URL        string     `json:"url,omitempty"`     // details link
	// ID is the forge's id of a check run to update; empty = create a new one. Adapters whose forge only has
	// append-only statuses ignore it.
	ID string `json:"id,omitempty"`
	// Approve asks for the button `Approve this commit` (identifier "approve"); only check runs have one.
	Approve bool `json:"approve,omitempty"`
	// Pulls are the numbers of the pull requests with this head or former head that the check is about, for a forge
	// that cannot show every commit's checks (GitLab: those of forks). Empty = nobody knows.
	Pulls []int `json:"pulls,omitempty"`
	// Part: it shows one part of what another check sums up; not worth a note where a forge shows checks as notes.
	Part bool `json:"part,omitempty"`
}

// Run is one presubmit run to be started or cancelled. It carries only what may leave towards CI: SHAs, numbers,
// our key, the repository; never a title, branch, login or label of the pull request (docs/rules.md, What leaves).
type Run struct {
	Key        string `json:"key"` // run key, "sb1-" + 26 characters
	Ref        Ref    `json:"ref"`
	SHA        string `json:"sha"`
	BaseSHA    string `json:"base_sha"`
	Base       string `json:"base,omitempty"` // branch at whose tip we read; empty = BaseSHA for good; never sent
	HeadRepoID int64  `json:"head_repo_id"`
	Presubmit  string `json:"presubmit"` // name of the presubmit's check
}

// Receipt is what the CI side answered to a started run. ID is empty where the forge gives none
// (repository_dispatch).
type Receipt struct {
	ID  string `json:"id,omitempty"`
	URL string `json:"url,omitempty"`
}

// FullSHA says that s is a commit SHA in full. It keeps everything but commits out of paths and out of what goes to CI.
func FullSHA(s string) bool {
	return (len(s) == 40 || len(s) == 64) && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f')
	})
}

// Class says what a failed call means for the one who made it (docs/rules.md, Failures).
type Class int

// The classes of a Fault.
const (
	Retriable  Class = iota // network, 5xx, 408: a try is counted; the call may have taken effect
	Contention              // 409, 429, rate limits: no try is counted, nothing took effect
	Auth                    // 401, or 403 that speaks of the credential: pause this credential's effects
	Permanent               // 400, 403, 404, 422 that another attempt will not change
	NotFound                // 404 where the caller may give it a meaning; otherwise permanent
)

func (c Class) String() string {
	return [...]string{"retriable", "contention", "auth", "permanent", "not found"}[c]
}

// Fault is the error every adapter answers with. Its text names the operation and what the forge said, never a
// secret or a payload body.
type Fault struct {
	Class  Class
	Op     string        // "read pull request", …
	Status int           // HTTP status, 0 if no answer came
	After  time.Duration // wait at least this long; 0 = the caller's own backoff
	Err    error
}

func (f *Fault) Error() string {
	if f.Status != 0 {
		return fmt.Sprintf("%s: %s (HTTP %d): %v", f.Op, f.Class, f.Status, f.Err)
	}
	return fmt.Sprintf("%s: %s: %v", f.Op, f.Class, f.Err)
}

func (f *Fault) Unwrap() error { return f.Err }

// Classify finds the Fault in err. An error that is none (a context's end, a bug) counts as Retriable: it is
// neither a yes nor a no.
func Classify(err error) Fault {
	var f *Fault
	if errors.As(err, &f) {
		return *f
	}
	return Fault{Class: Retriable, Op: "call the forge", Err: err}
}

// Rule is one entry of SIGNALBOX_TRUST or SIGNALBOX_AUTO: {permission, write}, {permission, maintain},
// {team, ORG/SLUG}, {user, LOGIN}, {app, SLUG}.
type Rule struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

func (r Rule) String() string { return r.Kind + ":" + r.Value }
