// Package github is everything Signalbox knows of GitHub: who we are there (a token or an App), what a delivery
// means (Hook), how facts are read, how labels and checks are written, and how presubmits are started. Every error
// that leaves the package is a *forge.Fault, made by the one classifier in classify.go.
//
// # API budget
//
// Calls per fact or effect, held by TestBudget:
//
//	Pull                            1
//	LabelHistory                    1 up to 100 issue events; at most 3 beyond
//	Trusted permission, user, app   1; team 2; nothing for a deleted account, nor for a bot asked by permission or team
//	SetLabel                        1
//	WriteCheck                      1 to create or complete, 2 to update otherwise (a completed run must not be reopened)
//	FindCheck                       1 per 100 checks of that name (token: statuses of the commit)
//	WriteStatus, FindStatus         as WriteCheck, FindCheck
//	repository_dispatch, workflow   start 1, find 1 per 100 runs (at most 3), cancel 1 by id
//	actions_approval                start 1 + one per run that is held back
//	Installations, Repos            1 per 100
//	Updated, Open                   1 per 100 pull requests
//	Failed                          1 per 100 attempts (at most 10); token 1 more
//	Redeliver                       1
//
// Once per process: Self 1 (token), 4 (App). Per hour and installation of an App: one token. Where a repository's
// installation is not known from a delivery: one lookup.
package github

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/bradleyfalzon/ghinstallation/v2"
	gh "github.com/google/go-github/v66/github"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// Options say which GitHub, and who we are there: either Token, or AppID and PrivateKey.
type Options struct {
	Instance   string // configured name of the forge, "github"
	APIURL     string // empty = https://api.github.com/; see baseURL for Enterprise
	Token      string // personal access token, classic or fine-grained
	AppID      int64
	PrivateKey []byte // PEM (PKCS#1 or PKCS#8) of the App
	// Transport is what talks to the network; nil = a pool of our own. It is wrapped, never closed.
	Transport http.RoundTripper
}

// Client is one GitHub with one identity. It is safe for concurrent use, owns no goroutine, and keeps nothing about
// pull requests or people: every fact is read live.
type Client struct {
	instance string
	base     *url.URL
	guard    *wire.Guard // carries no credential

	token *gh.Client // token mode, else nil

	appID int64
	key   []byte
	app   *gh.Client // signs as the App itself; may read only /app/… and installations

	mu            sync.Mutex
	installations map[int64]*gh.Client
	installedAt   map[string]int64 // repository name, lower case → installation, where a Repo did not say
	self          forge.Actor      // zero until asked for
}

// New checks the options and prepares the client; it makes no call. Its errors name the option at fault and never
// contain a secret.
func New(o Options) (*Client, error) {
	base, err := baseURL(cmp.Or(o.APIURL, "https://api.github.com/"))
	if err != nil {
		return nil, err
	}
	if o.Instance == "" {
		return nil, errors.New("github: the instance has no name")
	}
	c := &Client{
		instance: o.Instance, base: base, guard: wire.NewGuard(o.Transport, base),
		appID: o.AppID, key: o.PrivateKey,
		installations: map[int64]*gh.Client{}, installedAt: map[string]int64{},
	}
	switch app := o.AppID != 0 || len(o.PrivateKey) > 0; {
	case app && o.Token != "":
		return nil, errors.New("github: give a token or an App, not both")
	case o.Token != "":
		if strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, errors.New("github: the token contains a space, a line break or another character that no token has")
		}
		c.token = c.over(bearer{c.guard, o.Token})
	case !app:
		return nil, errors.New("github: neither a token nor an App is given")
	case o.AppID <= 0:
		return nil, errors.New("github: the App has a private key but no id")
	default:
		signer, err := ghinstallation.NewAppsTransport(c.guard, o.AppID, o.PrivateKey)
		if err != nil {
			return nil, errors.New("github: the App's private key is not an RSA key in PEM form")
		}
		c.app = c.over(signer)
	}
	return c, nil
}

// baseURL reads the address of the REST API. A path is taken as given. Without one, GitHub's own API hosts ("api.…")
// and loopback addresses serve at the root, every other host is an Enterprise Server and serves at /api/v3/.
func baseURL(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("github: API URL: expected https://HOST/")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("github: API URL: expected no user, query or fragment")
	}
	if strings.Trim(u.Path, "/") == "" {
		u.Path = "/"
		ip := net.ParseIP(u.Hostname())
		local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
		if !local && !strings.HasPrefix(u.Host, "api.") {
			u.Path = "/api/v3/"
		}
	}
	if !strings.HasSuffix(u.Path, "/") {
		u.Path += "/"
	}
	return u, nil
}

// over makes a REST client whose requests get their credential from auth and share its limits.
func (c *Client) over(auth http.RoundTripper) *gh.Client {
	client := gh.NewClient(&http.Client{
		Transport: wire.NewLimiter(auth, told),
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			// A renamed repository answers GET with 301 and writes with 307. A 301 or 302 to a write would
			// become a GET whose 200 looks like a success of the write.
			if req.Method != via[0].Method || len(via) > 3 {
				return wire.ErrRedirect
			}
			return nil
		},
	})
	client.BaseURL, client.UserAgent = c.base, wire.Agent
	return client
}

// on is the REST client for a repository, and its owner and name as they stand in paths.
func (c *Client) on(ctx context.Context, repo forge.Repo) (client *gh.Client, owner, name string, err error) {
	owner, name, ok := strings.Cut(repo.Name, "/")
	if !ok || !plain(owner) || !plain(name) {
		return nil, "", "", wire.Permanent("name the repository", errName)
	}
	if c.token != nil {
		return c.token, owner, name, nil
	}
	id := repo.Installation
	if id == 0 {
		if id, err = c.installation(ctx, owner, name); err != nil {
			return nil, "", "", err
		}
	}
	client, err = c.as(id)
	return client, owner, name, err
}

// plain says whether s may stand in a path as it is: GitHub's owners and repositories have no other characters.
// "." and ".." would be resolved away, so that the request would go to another resource.
func plain(s string) bool {
	return s != "" && s != "." && s != ".." && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	})
}

// segment escapes what people wrote (labels, logins, file names) for one path segment. Dots alone cannot be escaped:
// DELETE …/labels/. would remove every label.
func segment(s string) (string, bool) {
	return url.PathEscape(s), s != "" && s != "." && s != ".."
}

// as is the REST client of one installation of the App. Each has a signer of its own: ghinstallation writes into a
// shared one without a lock.
func (c *Client) as(installation int64) (*gh.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.installations[installation]; known != nil {
		return known, nil
	}
	auth, err := ghinstallation.New(c.guard, c.appID, installation, c.key)
	if err != nil {
		return nil, wire.Permanent("sign as the App", errors.New("unreadable private key"))
	}
	auth.InstallationTokenOptions = &gh.InstallationTokenOptions{} // {}: without it the body would be null, which is no object
	auth.BaseURL = strings.TrimSuffix(c.base.String(), "/")
	client := c.over(auth)
	c.installations[installation] = client
	return client, nil
}

// installation looks up which installation of the App sees a repository, once per name, and anew once
// the installation gives no token any more (fault).
func (c *Client) installation(ctx context.Context, owner, name string) (int64, error) {
	key := strings.ToLower(owner + "/" + name)
	c.mu.Lock()
	id := c.installedAt[key]
	c.mu.Unlock()
	if id != 0 {
		return id, nil
	}
	const op = "find the App's installation"
	found, _, err := c.app.Apps.FindRepositoryInstallation(ctx, owner, name)
	if err != nil {
		f := classify(op, err)
		if f.Class == forge.NotFound {
			// Not a "no" to whatever was asked: we cannot see the repository at all.
			f.Class = forge.Auth
		}
		return 0, f
	}
	if found.GetID() == 0 {
		return 0, wire.Incomplete(op)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.installedAt[key] = found.GetID()
	return found.GetID(), nil
}

// Self says who we are: the token's user, or the bot of the App (app is true). It is asked for once per process.
// An App that is installed nowhere has nobody to ask as: that is a Fault of class NotFound.
func (c *Client) Self(ctx context.Context) (me forge.Actor, app bool, err error) {
	c.mu.Lock()
	me = c.self
	c.mu.Unlock()
	if me.ID != 0 {
		return me, c.app != nil, nil
	}
	const op = "ask who we are"
	client, login := c.token, ""
	if c.app != nil {
		if client, login, err = c.bot(ctx, op); err != nil {
			return forge.Actor{}, true, err
		}
	}
	user, _, err := client.Users.Get(ctx, login)
	if err != nil {
		return forge.Actor{}, c.app != nil, c.fault(op, err)
	}
	if me = actor(user); me.ID == 0 {
		return forge.Actor{}, c.app != nil, wire.Incomplete(op)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self = me
	return me, c.app != nil, nil
}

// bot finds the login of the App's own bot and an installation to ask about it as: the App's signature alone is not
// accepted for users.
func (c *Client) bot(ctx context.Context, op string) (*gh.Client, string, error) {
	app, _, err := c.app.Apps.Get(ctx, "")
	if err != nil {
		return nil, "", c.fault(op, err)
	}
	list, _, err := c.app.Apps.ListInstallations(ctx, &gh.ListOptions{PerPage: 1})
	if err != nil {
		return nil, "", c.fault(op, err)
	}
	login, ok := segment(app.GetSlug())
	if !ok {
		return nil, "", wire.Incomplete(op)
	}
	if len(list) == 0 || list[0].GetID() == 0 {
		return nil, "", &forge.Fault{Class: forge.NotFound, Op: op, Err: errors.New("the App is installed nowhere")}
	}
	client, err := c.as(list[0].GetID())
	return client, login + url.PathEscape("[bot]"), err
}

var errName = errors.New("expected OWNER/NAME")

// bearer adds a personal access token. It clones the request, as a RoundTripper must.
type bearer struct {
	next  http.RoundTripper
	token string
}

// RoundTrip sends the request with the token.
func (b bearer) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(req)
}

// actor is how GitHub's user looks to everybody else; nil (a deleted account) is the zero Actor.
func actor(u *gh.User) forge.Actor {
	return forge.Actor{ID: u.GetID(), Login: u.GetLogin(), Bot: u.GetType() == "Bot"}
}
