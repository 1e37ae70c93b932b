package status

import (
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// Kinds of mail that forges send about a commit, and what the commit tells its pull requests of it.
const (
	KindCheckRun    = "check_run"    // forge → commit, body CheckRun
	KindWorkflowRun = "workflow_run" // forge → commit (or the repository's runs), body WorkflowRun
	KindPressed     = "pressed"      // commit → pull request, body Pressed
	KindNative      = "native_run"   // commit → pull request, body Native
)

// CheckRun is the forge-neutral form of one delivery that says that a person pressed something on a check run. It
// proves nothing about whose check that is: any app and any workflow can make one of any name.
type CheckRun struct {
	Repo       forge.Repo `json:"repo"`
	SHA        string     `json:"sha"`      // check_run.head_sha
	CheckID    string     `json:"check_id"` // the forge's id of the check run
	Name       string     `json:"name"`
	ExternalID string     `json:"external_id,omitempty"`
	// Action is "requested_action" (a button; Identifier names it) or "rerequested".
	Action     string      `json:"action"`
	Identifier string      `json:"identifier,omitempty"`
	By         forge.Actor `json:"by"`               // the sender of the delivery
	At         time.Time   `json:"at,omitzero"`      // the forge's time, where the payload has one
	AppID      int64       `json:"app_id,omitempty"` // of the app that made the check
}

// The actions of a CheckRun.
const (
	ActionRequested   = "requested_action"
	ActionRerequested = "rerequested"
)

// WorkflowRun is the forge-neutral form of one delivery about a run of a workflow. Those of event "pull_request" go to
// the commit, whose head they run; of any other event to the repository's runs, since they sit on some branch's SHA.
type WorkflowRun struct {
	Repo  forge.Repo `json:"repo"`
	SHA   string     `json:"sha"` // head_sha; of a dispatched run that of the branch it was dispatched on
	RunID int64      `json:"run_id"`
	Event string     `json:"event"` // "pull_request", "workflow_dispatch", …
	Path  string     `json:"path"`  // ".github/workflows/presubmit.yml", without "@ref"
	// Key is the run key found in the display title; empty = none. A title is written by whoever wrote the workflow.
	Key        string    `json:"key,omitempty"`
	Status     string    `json:"status"`               // "requested", "in_progress", "completed", …
	Conclusion string    `json:"conclusion,omitempty"` // of a completed one
	URL        string    `json:"url,omitempty"`        // html_url
	Attempt    int       `json:"attempt,omitempty"`    // run_attempt, from 1
	HeadRepoID int64     `json:"head_repo_id,omitempty"`
	HeadBranch string    `json:"head_branch,omitempty"`
	At         time.Time `json:"at"` // updated_at
}

// What is pressed.
const (
	PressedApprove = "approve" // the button of the gate check
	PressedRerun   = "rerun"   // a re-run of a presubmit check
	PressedRecheck = "recheck" // a re-run of the gate check: look again, no approval
)

// Pressed tells a pull request what somebody pressed on a check of ours at SHA.
type Pressed struct {
	SHA  string      `json:"sha"`
	What string      `json:"what"`          // PressedApprove, …
	Key  string      `json:"key,omitempty"` // run key, of PressedRerun
	By   forge.Actor `json:"by"`
	At   time.Time   `json:"at,omitzero"` // as CheckRun.At
	// Others counts the other open pull requests at this SHA. An approval is told only where there are none.
	Others int `json:"others,omitempty"`
}

// Native tells a pull request of a run that the forge started by itself for the pull request event at SHA.
type Native struct {
	SHA        string    `json:"sha"`
	RunID      int64     `json:"run_id"`
	Status     string    `json:"status"`
	Conclusion string    `json:"conclusion,omitempty"`
	URL        string    `json:"url,omitempty"`
	HeadRepoID int64     `json:"head_repo_id,omitempty"`
	Attempt    int       `json:"attempt,omitempty"`
	At         time.Time `json:"at"`
}
