package gitlab

import (
	"context"
	"errors"
	"strings"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// maxSource is the largest file that File answers, in bytes.
const maxSource = 1 << 20

// File reads one file of a project at a commit, or at the tip of a branch: 1 call. A Fault of class NotFound says that it
// is not there.
func (c *Client) File(ctx context.Context, repo forge.Repo, at, path string) ([]byte, error) {
	const op = "read file"
	pid, err := project(op, repo)
	if err != nil {
		return nil, err
	}
	if at == "" { // GitLab would answer the default branch's
		return nil, &forge.Fault{Class: forge.Retriable, Op: op, Err: errors.New("GitLab still prepares the merge request")}
	}
	text, _, err := c.api.RepositoryFiles.GetRawFile(pid, path, &gl.GetRawFileOptions{Ref: &at}, with(ctx))
	if err != nil {
		return nil, classify(op, err)
	}
	if len(text) > maxSource {
		return nil, wire.Permanent(op, errors.New("it is larger than 1 MiB"))
	}
	return text, nil
}

// Clone is the address at which git finds a public project.
func (c *Client) Clone(repo forge.Repo) string {
	u := *c.api.BaseURL()
	u.Path = strings.TrimSuffix(u.Path, "api/v4/") + repo.Name + ".git"
	return u.String()
}

// CheckoutToken refuses: GitLab makes no token that reads one project for an hour, and ours can do far more.
func (c *Client) CheckoutToken(context.Context, forge.Repo) (string, error) {
	return "", wire.Permanent("make a checkout token", errors.New("private projects cannot be run on runners from GitLab: it has no token that would read one project only, for the time of a job"))
}
