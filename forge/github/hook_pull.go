package github

import (
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
	"github.com/signalbox-ci/signalbox/forge/wire"
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

func (p *pullPayload) Rescue(w delivery.Wreck) {
	*p = pullPayload{
		envelope:    salvaged(w),
		Number:      int(w.At("number").Whole()),
		PullRequest: &pull{Number: int(w.At("pull_request").At("number").Whole())},
	}
}

func (p *pullPayload) Address() (delivery.Address, string, error) {
	number := p.number()
	if number <= 0 || p.Number != 0 && p.Number != number {
		return delivery.Address{}, "", &forge.BadDelivery{Field: "pull_request.number", Want: "a positive number"}
	}
	return delivery.Address{Kind: "pr", Key: strconv.Itoa(number), Mail: prmanager.KindPull, Format: prmanager.Format, Hint: true}, "", nil
}

func (p *pullPayload) number() int {
	if p.PullRequest == nil || p.PullRequest.Number == 0 {
		return p.Number
	}
	return p.PullRequest.Number
}

func (p *pullPayload) Mail(to forge.Routed) (any, string) {
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
	return prmanager.Action(wire.Cut(p.Action, 40))
}
