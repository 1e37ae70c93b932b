package github

import (
	"strconv"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
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

func (p *commentPayload) rescue(w wreck) {
	*p = commentPayload{}
	issue := w.at("issue")
	p.Issue.Number = int(issue.at("number").whole())
	if issue.at("pull_request").there() {
		p.Issue.PullRequest = &struct{}{}
	}
}

func (p *commentPayload) address() (address, string, error) {
	switch {
	case p.Action != "created": // an edited comment speaks in the name of whoever wrote it first
		return address{}, "only created comments are read", nil
	case p.Issue.PullRequest == nil:
		return address{}, "a comment on an issue", nil
	case p.Comment != nil && p.Comment.User.actor().ID != p.Sender.actor().ID:
		return address{}, "a comment that its author did not send", nil
	case p.Comment != nil && len(p.Comment.Body) > longestComment:
		return address{}, "a comment too long to be read for commands", nil
	}
	if p.Comment != nil {
		if p.commands = prmanager.Commands(p.Comment.Body); len(p.commands) == 0 {
			return address{}, "a comment without a command", nil
		}
	}
	if p.Issue.Number <= 0 {
		return address{}, "", &forge.BadDelivery{Field: "issue.number", Want: "a positive number"}
	}
	return address{kind: "pr", key: strconv.Itoa(p.Issue.Number), mail: prmanager.KindComment, format: prmanager.Format}, "", nil
}

func (p *commentPayload) mail(to forge.Routed) (any, string) {
	if p.Comment == nil {
		return nil, "comment: expected an object"
	}
	return prmanager.Comment{
		Ref: forge.Ref{Repo: to.Repo, Number: p.Issue.Number}, By: p.Sender.actor(), At: p.Comment.CreatedAt, ID: p.Comment.ID,
		Author: p.Issue.User.actor(), Commands: p.commands,
	}, ""
}
