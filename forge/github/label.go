package github

import (
	"context"
	"errors"
	"fmt"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/prmanager"
)

var _ prmanager.Labeller = (*Client)(nil)

// SetLabel adds or removes one label: 1 call. What is so already is a success. A label that the repository lacks is
// created by adding it; a label or pull request that is gone needs no removing.
func (c *Client) SetLabel(ctx context.Context, ref forge.Ref, label string, present bool) error {
	op := "remove label"
	if present {
		op = "add label"
	}
	client, owner, name, err := c.on(ctx, ref.Repo)
	if err != nil {
		return err
	}
	escaped, ok := segment(label)
	if !ok {
		return wire.Permanent(op, errors.New("no usable label name"))
	}
	if present {
		// go-github v66 sends a bare list, which GitHub's description has given up.
		return c.post(ctx, client, op, fmt.Sprintf("repos/%s/%s/issues/%d/labels", owner, name, ref.Number),
			map[string][]string{"labels": {label}}, nil)
	}
	_, err = client.Issues.RemoveLabelForIssue(ctx, owner, name, ref.Number, escaped)
	if err = c.fault(op, err); wire.NotFound(err) {
		return nil
	}
	return err
}
