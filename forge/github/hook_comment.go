package github

import (
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// commentPayload is an issue_comment delivery. Its text is read for commands and goes no further.
type commentPayload struct {
	envelope
	Issue struct {
		Number      int       `json:"number"`
		User        *account  `json:"user"`
		PullRequest *struct{} `json:"pull_request"` // absent: an issue
	} `json:"issue"`
	Comment *struct {
		ID        int64     `json:"id"`
		User      *account  `json:"user"`
		Body      string    `json:"body"`
		CreatedAt time.Time `json:"created_at"`
	} `json:"comment"`

	commands []prmanager.Command
}

// longestComment is the longest comment, in bytes, that is read for commands. GitHub takes four times as much and more, but
// anybody may write one, and the sender waits for the answer.
const longestComment = 16 << 10

func (p *commentPayload) Rescue(w delivery.Wreck) {
	*p = commentPayload{envelope: salvaged(w)}
	issue := w.At("issue")
	p.Issue.Number = int(issue.At("number").Whole())
	if issue.At("pull_request").There() {
		p.Issue.PullRequest = &struct{}{}
	}
}

func (p *commentPayload) Address() (delivery.Address, string, error) {
	switch {
	case p.Action != "created": // an edited comment speaks in the name of whoever wrote it first
		return delivery.Address{}, "only created comments are read", nil
	case p.Issue.PullRequest == nil:
		return delivery.Address{}, "a comment on an issue", nil
	case p.Comment != nil && p.Comment.User.actor().ID != p.Sender.actor().ID:
		return delivery.Address{}, "a comment that its author did not send", nil
	case p.Comment != nil && len(p.Comment.Body) > longestComment:
		return delivery.Address{}, "a comment too long to be read for commands", nil
	}
	if p.Comment != nil {
		if p.commands = prmanager.Commands(p.Comment.Body); len(p.commands) == 0 {
			return delivery.Address{}, "a comment without a command", nil
		}
	}
	if p.Issue.Number <= 0 {
		return delivery.Address{}, "", &forge.BadDelivery{Field: "issue.number", Want: "a positive number"}
	}
	return delivery.Address{Kind: "pr", Key: strconv.Itoa(p.Issue.Number), Mail: prmanager.KindComment, Format: prmanager.Format}, "", nil
}

func (p *commentPayload) Mail(to forge.Routed) (any, string) {
	if p.Comment == nil {
		return nil, "comment: expected an object"
	}
	return prmanager.Comment{
		Ref: forge.Ref{Repo: to.Repo, Number: p.Issue.Number}, By: p.Sender.actor(), At: p.Comment.CreatedAt, ID: p.Comment.ID,
		Author: p.Issue.User.actor(), Commands: p.commands,
	}, ""
}
