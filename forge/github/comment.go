package github

import (
	"context"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
)

var _ prmanager.Commenter = (*Client)(nil)

// Comment writes a comment on the pull request's conversation: 1 call.
func (c *Client) Comment(ctx context.Context, ref forge.Ref, text string) error {
	client, owner, name, err := c.on(ctx, ref.Repo)
	if err != nil {
		return err
	}
	_, _, err = client.Issues.CreateComment(ctx, owner, name, ref.Number, &gh.IssueComment{Body: &text})
	return c.fault("write comment", err)
}
