package gitlab

import (
	"slices"
	"strconv"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// mergePayload is a merge-request delivery.
type mergePayload struct {
	envelope
	Merge  *mergeRequest `json:"object_attributes"`
	Labels []label       `json:"labels"`
	// Changes is what one update did, often several things at once, and often nothing that concerns us.
	Changes struct {
		Labels *struct {
			Previous []label `json:"previous"`
			Current  []label `json:"current"`
		} `json:"labels"`
		Draft *struct {
			Current bool `json:"current"`
		} `json:"draft"`
		TargetBranch *struct {
			Previous string `json:"previous"`
		} `json:"target_branch"`
	} `json:"changes"`
}

type label struct {
	Title string `json:"title"`
}

// mergeRequest is a merge request as deliveries show it.
type mergeRequest struct {
	IID        int    `json:"iid"`
	AuthorID   int64  `json:"author_id"`
	State      string `json:"state"`
	Draft      bool   `json:"draft"`
	WIP        bool   `json:"work_in_progress"` // what older servers call a draft
	SourceID   int64  `json:"source_project_id"`
	TargetID   int64  `json:"target_project_id"`
	Target     string `json:"target_branch"`
	UpdatedAt  stamp  `json:"updated_at"`
	LastCommit *struct {
		ID string `json:"id"`
	} `json:"last_commit"`
	Action string `json:"action"`
	OldRev string `json:"oldrev"` // only where the code changed: the head before
}

func (p *mergePayload) Rescue(w delivery.Wreck) {
	of := w.At("object_attributes")
	*p = mergePayload{envelope: salvaged(w), Merge: &mergeRequest{IID: int(of.At("iid").Whole()), Action: of.At("action").Text()}}
}

func (p *mergePayload) About() (string, forge.Repo) {
	if p.Merge == nil {
		return "", p.project()
	}
	return p.Merge.Action, p.project()
}

func (p *mergePayload) Address() (delivery.Address, string, error) {
	broken := p.Project == nil // a wreck: nobody can say what it changed
	switch {
	case p.Merge == nil || p.Merge.IID <= 0:
		return delivery.Address{}, "", &forge.BadDelivery{Field: "object_attributes.iid", Want: "a positive number"}
	case !broken && len(p.actions()) == 0:
		return delivery.Address{}, "nothing changed that we handle", nil
	}
	return delivery.Address{Kind: "pr", Key: strconv.Itoa(p.Merge.IID), Mail: prmanager.KindPull, Format: prmanager.Format, Hint: true}, "", nil
}

// actions is what the delivery reports, in the gate's words, what shuts before what opens: a label that came together
// with a push is judged with the push known (attack T21). The action's name alone says little: an update says what it
// did in its changes, and other actions may carry changes too.
func (p *mergePayload) actions() []prmanager.Action {
	var out []prmanager.Action
	switch p.Merge.Action {
	case "close", "merge":
		out = append(out, prmanager.ActionClosed)
	case "reopen":
		out = append(out, prmanager.ActionReopened)
	case "open":
		out = append(out, prmanager.ActionOpened)
	}
	if p.Merge.OldRev != "" {
		out = append(out, prmanager.ActionPushed)
	}
	if p.Changes.TargetBranch != nil {
		out = append(out, prmanager.ActionBaseChanged)
	}
	added, removed := p.labels()
	if d := p.Changes.Draft; d != nil && d.Current {
		out = append(out, prmanager.ActionDraft)
	}
	if removed != nil {
		out = append(out, prmanager.ActionUnlabelled)
	}
	if d := p.Changes.Draft; d != nil && !d.Current {
		out = append(out, prmanager.ActionReady)
	}
	if added != nil {
		out = append(out, prmanager.ActionLabelled)
	}
	return out
}

// labels is which came and which went; nil = none. Those of a new merge request came with it.
func (p *mergePayload) labels() (added, removed []string) {
	was, is := []label(nil), p.Labels
	if c := p.Changes.Labels; c != nil {
		was, is = c.Previous, c.Current
	} else if p.Merge.Action != "open" {
		return nil, nil
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			added = append(added, l.Title)
		}
	}
	for _, l := range was {
		if !slices.Contains(is, l) {
			removed = append(removed, l.Title)
		}
	}
	return added, removed
}

func (p *mergePayload) Mail(to forge.Routed) (any, string) {
	m := p.Merge
	switch {
	case m.TargetID != to.Repo.ID:
		return nil, "object_attributes.target_project_id: expected the id of the project"
	case m.LastCommit == nil:
		return nil, "object_attributes.last_commit: expected an object"
	}
	added, removed := p.labels()
	n := prmanager.Note{
		Actions: p.actions(), Delivery: to.GUID,
		Pull: forge.Pull{
			Ref:  forge.Ref{Repo: to.Repo, Number: m.IID},
			Open: isOpen(m.State), Merged: m.State == merged, Draft: m.Draft || m.WIP,
			Author: p.person(m.AuthorID),
			Head:   forge.Branch{SHA: m.LastCommit.ID, RepoID: m.SourceID},
			Base:   forge.Branch{Name: m.Target, RepoID: m.TargetID}, UpdatedAt: m.UpdatedAt.Time,
		},
		Sender: p.User.actor(),
		Labels: append(removed, added...),
	}
	if slices.Contains(n.Actions, prmanager.ActionPushed) {
		// The head as of now, not necessarily what the sender pushed onto OldRev: GitLab's worker writes it some time
		// after the push (merge_requests/refresh/web_hooks_service.rb). So nothing says what this head was pushed onto.
		n.After = m.LastCommit.ID
	}
	if b := p.Changes.TargetBranch; b != nil {
		n.BaseFrom = b.Previous
	}
	return n, ""
}
