package prmanager

import (
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Kinds of mail about comments, runs and merge groups.
const (
	KindComment = "comment"     // forge → pull request, body Comment
	KindRun     = "run"         // pull request or group → the repository's runs, body RunOf
	KindGroup   = "merge_group" // forge → merge group, body Group
)

// RunsSubject is the subject that knows which run of the CI side belongs to whom.
func RunsSubject(repo forge.Repo) state.Subject {
	return state.Subject{Instance: repo.Instance, Project: strconv.FormatInt(repo.ID, 10), Kind: "repo", Key: "runs"}
}

// GroupSubject is the subject of one merge group of a merge queue; sha is its head.
func GroupSubject(repo forge.Repo, sha string) state.Subject {
	return state.Subject{Instance: repo.Instance, Project: strconv.FormatInt(repo.ID, 10), Kind: "mq", Key: sha}
}

// Comment is the forge-neutral form of a comment that was created on a pull request and has commands. Edited comments
// never become one: whoever may edit another's comment would speak in that one's name.
type Comment struct {
	Ref      forge.Ref   `json:"ref"`
	By       forge.Actor `json:"by"`
	At       time.Time   `json:"at"` // created_at
	ID       int64       `json:"id"`
	Author   forge.Actor `json:"author"` // of the pull request
	Commands []Command   `json:"commands"`
}

// RunOf tells the repository's runs that a run key is ours, whose it is, and (told again) which run it became.
type RunOf struct {
	Key     string        `json:"key"`
	Subject state.Subject `json:"subject"`          // whom to report to
	Source  Source        `json:"source"`           // what its run must come from, until the id is known
	RunID   string        `json:"run_id,omitempty"` // once known
	Over    bool          `json:"over,omitempty"`   // nothing more is to be reported
}

// Group is the forge-neutral form of a delivery about a merge group.
type Group struct {
	Repo    forge.Repo `json:"repo"`
	SHA     string     `json:"sha"` // head of the group
	BaseSHA string     `json:"base_sha"`
	BaseRef string     `json:"base_ref"`       // "refs/heads/main" or "main"
	Gone    bool       `json:"gone,omitempty"` // it was merged, dissolved or overtaken
	At      time.Time  `json:"at"`
}
