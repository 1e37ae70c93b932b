package github

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
)

// maxSource is the largest file that File answers, in bytes: GitHub's contents API gives no more inline.
const maxSource = 1 << 20

// File reads one file of a repository at a commit: 1 call. A Fault of class NotFound says that it is not there, or is
// no file.
func (c *Client) File(ctx context.Context, repo forge.Repo, sha, path string) ([]byte, error) {
	const op = "read file"
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return nil, err
	}
	file, _, _, err := client.Repositories.GetContents(ctx, owner, name, path, &gh.RepositoryContentGetOptions{Ref: sha})
	if err != nil {
		return nil, c.fault(op, err)
	}
	if file == nil || file.GetType() != "file" {
		return nil, &forge.Fault{Class: forge.NotFound, Op: op, Status: http.StatusNotFound, Err: errors.New("it is no file")}
	}
	if file.GetSize() > maxSource {
		return nil, permanent(op, errors.New("it is larger than 1 MiB"))
	}
	text, err := file.GetContent()
	if err != nil {
		return nil, incomplete(op)
	}
	return []byte(text), nil
}

// Clone is the address at which git finds a public repository.
func (c *Client) Clone(repo forge.Repo) string {
	u := url.URL{Scheme: c.base.Scheme, Host: strings.TrimPrefix(c.base.Host, "api."), Path: "/" + repo.Name + ".git"}
	return u.String()
}
