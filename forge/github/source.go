package github

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"

	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// maxSource is the largest file that File answers, in bytes: GitHub's contents API gives no more inline.
const maxSource = 1 << 20

// File reads one file of a repository at a commit, or at the tip of a branch: 1 call. A Fault of class NotFound says that
// it is not there, or is no file.
func (c *Client) File(ctx context.Context, repo forge.Repo, at, path string) ([]byte, error) {
	const op = "read file"
	client, owner, name, err := c.on(ctx, repo)
	if err != nil {
		return nil, err
	}
	file, _, _, err := client.Repositories.GetContents(ctx, owner, name, path, &gh.RepositoryContentGetOptions{Ref: at})
	if err != nil {
		return nil, c.fault(op, err)
	}
	if file == nil || file.GetType() != "file" {
		return nil, &forge.Fault{Class: forge.NotFound, Op: op, Status: http.StatusNotFound, Err: errors.New("it is no file")}
	}
	if file.GetSize() > maxSource {
		return nil, wire.Permanent(op, errors.New("it is larger than 1 MiB"))
	}
	text, err := file.GetContent()
	if err != nil {
		return nil, wire.Incomplete(op)
	}
	return []byte(text), nil
}

// Clone is the address at which git finds a public repository.
func (c *Client) Clone(repo forge.Repo) string {
	u := url.URL{Scheme: c.base.Scheme, Host: strings.TrimPrefix(c.base.Host, "api."), Path: "/" + repo.Name + ".git"}
	return u.String()
}

// CheckoutToken mints a token of the App that reads the contents of this repository and nothing else, for at most an
// hour: 1 call. A personal token is never lent: it can do more, elsewhere too, and for longer.
func (c *Client) CheckoutToken(ctx context.Context, repo forge.Repo) (string, error) {
	const op = "make a checkout token"
	if c.app == nil {
		return "", wire.Permanent(op, errors.New("private repositories need the GitHub App: runners would have no token to check them out with"))
	}
	id := repo.Installation
	if id == 0 {
		owner, name, ok := strings.Cut(repo.Name, "/")
		if !ok || !plain(owner) || !plain(name) {
			return "", wire.Permanent(op, errName)
		}
		var err error
		if id, err = c.installation(ctx, owner, name); err != nil {
			return "", err
		}
	}
	token, _, err := c.app.Apps.CreateInstallationToken(ctx, id, &gh.InstallationTokenOptions{
		RepositoryIDs: []int64{repo.ID}, Permissions: &gh.InstallationPermissions{Contents: gh.String("read")},
	})
	if err != nil {
		return "", c.fault(op, err)
	}
	if token.GetToken() == "" {
		return "", wire.Incomplete(op)
	}
	return token.GetToken(), nil
}
