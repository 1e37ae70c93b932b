package gitlab

import (
	"strconv"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/status"
)

// notePayload is a note delivery. Its text is read for commands and goes no further.
type notePayload struct {
	envelope
	Note *struct {
		ID        int64  `json:"id"`
		Text      string `json:"note"`
		On        string `json:"noteable_type"` //nolint:misspell // GitLab's word
		AuthorID  int64  `json:"author_id"`
		System    bool   `json:"system"`
		Action    string `json:"action"` // older servers: absent
		CreatedAt stamp  `json:"created_at"`
		UpdatedAt stamp  `json:"updated_at"`
	} `json:"object_attributes"`
	Merge *struct {
		IID      int   `json:"iid"`
		AuthorID int64 `json:"author_id"`
		TargetID int64 `json:"target_project_id"`
	} `json:"merge_request"`
}

// longestNote is GitLab's limit, 1 000 000 characters, in bytes of UTF-8.
const longestNote = 4_000_000

// Rescue reads no note: one that cannot be read can be written again.
func (p *notePayload) Rescue(w delivery.Wreck) { *p = notePayload{envelope: salvaged(w)} }

func (p *notePayload) About() (string, forge.Repo) {
	if p.Note == nil {
		return "", p.project()
	}
	return p.Note.Action, p.project()
}

func (p *notePayload) Address() (delivery.Address, string, error) {
	n := p.Note
	switch {
	case n == nil:
		return delivery.Address{}, "", &forge.BadDelivery{Field: "object_attributes", Want: "a note"}
	case n.On != "MergeRequest" || p.Merge == nil:
		return delivery.Address{}, "a note that is on no merge request", nil
	// An edited note speaks in the name of whoever wrote it first.
	case n.Action != "" && n.Action != "create", n.Action == "" && !n.CreatedAt.Equal(n.UpdatedAt.Time):
		return delivery.Address{}, "only created notes are read", nil
	case n.System, n.AuthorID != p.User.actor().ID:
		return delivery.Address{}, "a note that its author did not send", nil
	case len(n.Text) > longestNote || len(prmanager.Commands(n.Text)) == 0:
		return delivery.Address{}, "a note without a command", nil
	case p.Merge.IID <= 0:
		return delivery.Address{}, "", &forge.BadDelivery{Field: "merge_request.iid", Want: "a positive number"}
	}
	return delivery.Address{Kind: "pr", Key: strconv.Itoa(p.Merge.IID), Mail: prmanager.KindComment, Format: prmanager.Format}, "", nil
}

func (p *notePayload) Mail(to forge.Routed) (any, string) {
	if p.Merge.TargetID != to.Repo.ID {
		return nil, "merge_request.target_project_id: expected the id of the project"
	}
	return prmanager.Comment{
		Ref: forge.Ref{Repo: to.Repo, Number: p.Merge.IID}, By: p.User.actor(), At: p.Note.CreatedAt.Time, ID: p.Note.ID,
		Author: p.person(p.Merge.AuthorID), Commands: prmanager.Commands(p.Note.Text),
	}, ""
}

// pipelinePayload is a pipeline delivery. Only those of merge requests are handled, and by the commit, as GitHub's runs
// of event pull_request are: whose pipeline it is the merge requests tell by the source project. One on a merge result
// sits on a commit that is nobody's head.
type pipelinePayload struct {
	envelope
	Pipeline *pipeline `json:"object_attributes"`
	Merge    *struct {
		SourceID int64 `json:"source_project_id"`
		TargetID int64 `json:"target_project_id"`
	} `json:"merge_request"`
}

type pipeline struct {
	ID         int64  `json:"id"`
	SHA        string `json:"sha"`
	Source     string `json:"source"`
	Status     string `json:"status"`
	URL        string `json:"url"`
	CreatedAt  stamp  `json:"created_at"`
	FinishedAt stamp  `json:"finished_at"`
}

func (p *pipelinePayload) Rescue(w delivery.Wreck) {
	*p = pipelinePayload{envelope: salvaged(w)}
	of := w.At("object_attributes")
	if source, sha := of.At("source").Text(), of.At("sha").Text(); source != "" {
		p.Pipeline = &pipeline{SHA: sha, Source: source}
	}
}

func (p *pipelinePayload) About() (string, forge.Repo) {
	if p.Pipeline == nil {
		return "", p.project()
	}
	return p.Pipeline.Status, p.project()
}

func (p *pipelinePayload) Address() (delivery.Address, string, error) {
	switch {
	case p.Pipeline == nil:
		return delivery.Address{}, "", &forge.BadDelivery{Field: "object_attributes", Want: "a pipeline"}
	case p.Pipeline.Source != mergeRequestEvent:
		return delivery.Address{}, "a pipeline of no merge request", nil
	case p.Merge == nil && p.Project != nil: // of a wreck nobody can say it
		return delivery.Address{}, "a pipeline whose merge request was deleted", nil
	case p.Merge != nil && p.Merge.TargetID != p.project().ID:
		return delivery.Address{}, "a pipeline that runs in the fork", nil
	case !forge.FullSHA(p.Pipeline.SHA):
		return delivery.Address{}, "", &forge.BadDelivery{Field: "object_attributes.sha", Want: "a commit SHA in full"}
	}
	return delivery.Address{Kind: "commit", Key: p.Pipeline.SHA, Mail: status.KindWorkflowRun, Format: status.Format, Hint: true}, "", nil
}

func (p *pipelinePayload) Mail(to forge.Routed) (any, string) {
	run := p.Pipeline
	if run.ID <= 0 {
		return nil, "object_attributes.id: expected a positive number"
	}
	is, conclusion := words(run.Status)
	at := run.CreatedAt.Time // the only other time that is told
	if !run.FinishedAt.IsZero() {
		at = run.FinishedAt.Time
	}
	return status.WorkflowRun{
		Repo: to.Repo, SHA: run.SHA, RunID: run.ID, Event: "pull_request", Status: is, Conclusion: conclusion, URL: run.URL,
		Attempt: 1, HeadRepoID: p.Merge.SourceID, At: at,
	}, ""
}
