package github

import (
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/status"
)

// checkPayload is a check_run delivery. Only what a person presses is handled: results of checks are nobody's business
// here, and those of other apps are told apart by the commit, which knows ours.
type checkPayload struct {
	envelope
	CheckRun *struct {
		ID         int64  `json:"id"`
		Name       string `json:"name"`
		HeadSHA    string `json:"head_sha"`
		ExternalID string `json:"external_id"`
		App        struct {
			ID int64 `json:"id"`
		} `json:"app"`
	} `json:"check_run"`
	RequestedAction struct {
		Identifier string `json:"identifier"`
	} `json:"requested_action"`

	sha string // of a wreck
}

func (p *checkPayload) Rescue(w delivery.Wreck) {
	*p = checkPayload{envelope: salvaged(w), sha: w.At("check_run").At("head_sha").Text()}
}

func (p *checkPayload) Address() (delivery.Address, string, error) {
	if p.Action != status.ActionRequested && p.Action != status.ActionRerequested {
		return delivery.Address{}, "nobody pressed anything on the check run", nil
	}
	if p.CheckRun != nil {
		p.sha = p.CheckRun.HeadSHA
	}
	if !forge.FullSHA(p.sha) {
		return delivery.Address{}, "", &forge.BadDelivery{Field: "check_run.head_sha", Want: "a commit SHA in full"}
	}
	return delivery.Address{Kind: "commit", Key: p.sha, Mail: status.KindCheckRun, Format: status.Format}, "", nil
}

func (p *checkPayload) Mail(to forge.Routed) (any, string) {
	run := p.CheckRun
	if run.ID <= 0 {
		return nil, "check_run.id: expected a positive number"
	}
	return status.CheckRun{
		Repo: to.Repo, SHA: run.HeadSHA, CheckID: strconv.FormatInt(run.ID, 10), Name: run.Name, ExternalID: run.ExternalID,
		Action: p.Action, Identifier: p.RequestedAction.Identifier, By: p.Sender.actor(), AppID: run.App.ID,
	}, ""
}

// runPayload is a workflow_run delivery.
type runPayload struct {
	envelope
	Run *struct {
		ID         int64       `json:"id"`
		Event      string      `json:"event"`
		Path       string      `json:"path"`
		Title      string      `json:"display_title"`
		Status     string      `json:"status"`
		Conclusion string      `json:"conclusion"`
		URL        string      `json:"html_url"`
		Attempt    int         `json:"run_attempt"`
		HeadSHA    string      `json:"head_sha"`
		HeadBranch string      `json:"head_branch"`
		HeadRepo   *repository `json:"head_repository"` // null: the fork was deleted
		UpdatedAt  time.Time   `json:"updated_at"`
	} `json:"workflow_run"`

	event, sha, key string // also of a wreck
}

// runKey is a run key as a workflow's run-name shows it (docs/recipes/workflow-dispatch.md).
var runKey = regexp.MustCompile(`\bsb1-[a-z2-7]{26}\b`)

// keyIn finds the one run key of a title; "" where there is none, or where two contradict each other.
func keyIn(title string) string {
	key := ""
	for _, k := range runKey.FindAllString(title, -1) {
		if key != "" && k != key {
			return ""
		}
		key = k
	}
	return key
}

func (p *runPayload) Rescue(w delivery.Wreck) {
	run := w.At("workflow_run")
	*p = runPayload{envelope: salvaged(w), event: run.At("event").Text(), sha: run.At("head_sha").Text(), key: keyIn(run.At("display_title").Text())}
}

func (p *runPayload) Address() (delivery.Address, string, error) {
	if run := p.Run; run != nil {
		p.event, p.sha, p.key = run.Event, run.HeadSHA, keyIn(run.Title)
	}
	to := delivery.Address{Mail: status.KindWorkflowRun, Format: status.Format, Hint: true}
	switch p.event {
	case "pull_request":
		if !forge.FullSHA(p.sha) {
			return to, "", &forge.BadDelivery{Field: "workflow_run.head_sha", Want: "a commit SHA in full"}
		}
		to.Kind, to.Key = "commit", p.sha
	case "workflow_dispatch", "repository_dispatch":
		if p.key == "" {
			return to, "a run that no run key names", nil
		}
		to.Kind, to.Key = "repo", "runs"
	default:
		// Titles of other events are written by outsiders: a pull request's, an issue's, a commit message.
		return to, "a run that nobody here starts", nil
	}
	return to, "", nil
}

func (p *runPayload) Mail(to forge.Routed) (any, string) {
	run := p.Run
	switch {
	case run.ID <= 0:
		return nil, "workflow_run.id: expected a positive number"
	case !forge.FullSHA(run.HeadSHA):
		return nil, "workflow_run.head_sha: expected a commit SHA in full"
	}
	path, _, _ := strings.Cut(run.Path, "@")
	return status.WorkflowRun{
		Repo: to.Repo, SHA: run.HeadSHA, RunID: run.ID, Event: run.Event, Path: path, Key: p.key, Status: run.Status,
		Conclusion: run.Conclusion, URL: run.URL, Attempt: run.Attempt, HeadRepoID: run.HeadRepo.id(), HeadBranch: run.HeadBranch,
		At: run.UpdatedAt,
	}, ""
}

// groupPayload is a merge_group delivery.
type groupPayload struct {
	envelope
	Group *struct {
		HeadSHA    string `json:"head_sha"`
		BaseSHA    string `json:"base_sha"`
		BaseRef    string `json:"base_ref"`
		HeadCommit struct {
			Timestamp time.Time `json:"timestamp"` // the forge makes this commit itself, when it makes the group
		} `json:"head_commit"`
	} `json:"merge_group"`

	sha string // of a wreck
}

func (p *groupPayload) Rescue(w delivery.Wreck) {
	*p = groupPayload{envelope: salvaged(w), sha: w.At("merge_group").At("head_sha").Text()}
}

func (p *groupPayload) Address() (delivery.Address, string, error) {
	if p.Action != "checks_requested" && p.Action != "destroyed" {
		return delivery.Address{}, "nothing happened to the merge group that we handle", nil
	}
	if p.Group != nil {
		p.sha = p.Group.HeadSHA
	}
	if !forge.FullSHA(p.sha) {
		return delivery.Address{}, "", &forge.BadDelivery{Field: "merge_group.head_sha", Want: "a commit SHA in full"}
	}
	return delivery.Address{Kind: "mq", Key: p.sha, Mail: prmanager.KindGroup, Format: prmanager.Format}, "", nil
}

func (p *groupPayload) Mail(to forge.Routed) (any, string) {
	if !forge.FullSHA(p.Group.BaseSHA) {
		return nil, "merge_group.base_sha: expected a commit SHA in full"
	}
	return prmanager.Group{
		Repo: to.Repo, SHA: p.Group.HeadSHA, BaseSHA: p.Group.BaseSHA, BaseRef: p.Group.BaseRef, Gone: p.Action == "destroyed",
		At: p.Group.HeadCommit.Timestamp,
	}, ""
}
