package github

import (
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// pullPayload is a pull_request delivery.
type pullPayload struct {
	envelope
	Number int    `json:"number"`
	Before string `json:"before"`
	After  string `json:"after"`
	Label  *struct {
		Name string `json:"name"`
	} `json:"label"`
	Changes struct {
		Base struct {
			Ref struct {
				From string `json:"from"`
			} `json:"ref"`
		} `json:"base"`
	} `json:"changes"`
	PullRequest *pull `json:"pull_request"`
}

type pull struct {
	Number    int       `json:"number"`
	State     string    `json:"state"`
	Merged    bool      `json:"merged"`
	Draft     bool      `json:"draft"`
	User      *account  `json:"user"` // null: the account was deleted
	UpdatedAt time.Time `json:"updated_at"`
	Head      branch    `json:"head"`
	Base      branch    `json:"base"`
}

type branch struct {
	SHA  string      `json:"sha"`
	Ref  string      `json:"ref"`
	Repo *repository `json:"repo"` // null: the fork was deleted
}

func (p *pullPayload) rescue(w wreck) {
	*p = pullPayload{
		Number:      int(w.at("number").whole()),
		PullRequest: &pull{Number: int(w.at("pull_request").at("number").whole())},
	}
}

func (p *pullPayload) address() (address, string, error) {
	number := p.number()
	if number <= 0 || p.Number != 0 && p.Number != number {
		return address{}, "", &forge.BadDelivery{Field: "pull_request.number", Want: "a positive number"}
	}
	return address{kind: "pr", key: strconv.Itoa(number), mail: prmanager.KindPull, format: prmanager.Format, hint: true}, "", nil
}

func (p *pullPayload) number() int {
	if p.PullRequest == nil || p.PullRequest.Number == 0 {
		return p.Number
	}
	return p.PullRequest.Number
}

func (p *pullPayload) mail(to forge.Routed) (any, string) {
	if p.PullRequest == nil {
		return nil, "pull_request: expected an object"
	}
	return p.note(to, p.number()), ""
}

func (p *pullPayload) note(to forge.Routed, number int) prmanager.Note {
	live := p.PullRequest
	n := prmanager.Note{
		Actions: []prmanager.Action{action(p)}, Delivery: to.GUID,
		Pull: forge.Pull{
			Ref:  forge.Ref{Repo: to.Repo, Number: number},
			Open: live.State == "open", Merged: live.Merged, Draft: live.Draft,
			Author:    live.User.actor(),
			Head:      forge.Branch{SHA: live.Head.SHA, RepoID: live.Head.Repo.id()},
			Base:      forge.Branch{SHA: live.Base.SHA, Name: live.Base.Ref, RepoID: live.Base.Repo.id()},
			UpdatedAt: live.UpdatedAt,
		},
		Sender:   p.Sender.actor(),
		BaseFrom: p.Changes.Base.Ref.From,
	}
	if n.Actions[0] == prmanager.ActionPushed {
		n.Before, n.After = p.Before, p.After
	}
	if p.Label != nil { // without it the action is a nudge all the same: the label history is read
		n.Labels = []string{p.Label.Name}
	}
	return n
}

// action says GitHub's action in the gate's words. A word that the gate has none for is passed on as it is.
func action(p *pullPayload) prmanager.Action {
	switch p.Action {
	case "opened":
		return prmanager.ActionOpened
	case "synchronize":
		return prmanager.ActionPushed
	case "labeled":
		return prmanager.ActionLabelled
	case "unlabeled":
		return prmanager.ActionUnlabelled
	case "converted_to_draft":
		return prmanager.ActionDraft
	case "ready_for_review":
		return prmanager.ActionReady
	case "closed":
		return prmanager.ActionClosed
	case "reopened":
		return prmanager.ActionReopened
	case "edited":
		if p.Changes.Base.Ref.From != "" {
			return prmanager.ActionBaseChanged
		}
	}
	return prmanager.Action(cut(p.Action, 40))
}
