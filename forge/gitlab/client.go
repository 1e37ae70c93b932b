// Package gitlab is everything Signalbox knows of GitLab: who we are there, what a delivery means (Hook), how facts are
// read, how labels, statuses and notes are written, and how pipelines are started. Every error that leaves the package
// is a *forge.Fault, made by the one classifier in classify.go. A "pull request" of the other packages is a merge
// request here, and its number the iid.
//
// # API budget
//
// Calls per fact or effect, held by TestBudget:
//
//	Pull                     1
//	Pushed                   1
//	LabelHistory             1 up to 100 label events; at most 3 beyond
//	Trusted permission, user 1; team 1; app none
//	SetLabel                 1
//	WriteCheck               status: 1 per merge request of the commit, 1 list, 1 post; note: 1 per merge request, 1 list, 1 write
//	FindCheck                as WriteCheck without the write
//	WriteStatus              1; 2 where the pipeline is gone, or a job refuses the state it has and its id is not known
//	FindStatus               1
//	gitlab_pipeline          start 1 (2 where the head moved), find 1, cancel 1 + 2 per pipeline that has not ended, state 1
//
// Once per process: Self 1.
package gitlab

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// Options say which GitLab, and who we are there.
type Options struct {
	Instance string // configured name of the forge, "gitlab"
	URL      string // where people see it, "https://gitlab.com/"; the API is beneath it
	Token    string // project access token (recommended), group or personal access token, scope api
	// Transport is what talks to the network; nil = a pool of our own. It is wrapped, never closed.
	Transport http.RoundTripper
}

// Client is one GitLab with one identity. It is safe for concurrent use, owns no goroutine, and keeps nothing about
// merge requests or people: every fact is read live.
type Client struct {
	instance string
	api      *gl.Client

	mu   sync.Mutex
	self forge.Actor // zero until asked for
	bot  bool        // self is the account of a project or group access token
}

// New checks the options and prepares the client; it makes no call. Its errors name the option at fault and never
// contain a secret.
func New(o Options) (*Client, error) {
	base, err := url.Parse(o.URL)
	switch {
	case o.Instance == "":
		return nil, errors.New("gitlab: the instance has no name")
	case err != nil || base.Host == "" || base.Scheme != "https" && base.Scheme != "http":
		return nil, errors.New("gitlab: URL: expected https://HOST/")
	case base.User != nil || base.RawQuery != "" || base.Fragment != "":
		return nil, errors.New("gitlab: URL: expected no user, query or fragment")
	case o.Token == "":
		return nil, errors.New("gitlab: no token is given")
	case strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, errors.New("gitlab: the token contains a space, a line break or another character that no token has")
	}
	api, err := gl.NewClient(o.Token,
		gl.WithBaseURL(base.String()),
		gl.WithUserAgent(wire.Agent),
		// When to ask again is the engine's business, and a call must never wait in here.
		gl.WithoutRetries(), gl.WithCustomLimiter(never{}),
		gl.WithHTTPClient(&http.Client{
			Transport: wire.NewLimiter(wire.NewGuard(o.Transport, base), told),
			// A moved project answers GET with a redirect and refuses writes; ids never move.
			CheckRedirect: func(*http.Request, []*http.Request) error { return wire.ErrRedirect },
		}),
	)
	if err != nil {
		return nil, errors.New("gitlab: URL: expected https://HOST/")
	}
	return &Client{instance: o.Instance, api: api}, nil
}

// never is a rate limiter that never waits: wire.Limiter answers at once instead.
type never struct{}

func (never) Wait(context.Context) error { return nil }

// with marks a call of client-go with its context.
func with(ctx context.Context) gl.RequestOptionFunc { return gl.WithContext(ctx) }

// project is the id of a repository as client-go takes it; a Repo known by name only is found by that.
func project(op string, r forge.Repo) (any, error) {
	switch {
	case r.ID > 0:
		return r.ID, nil
	case projectPath.MatchString(r.Name):
		return r.Name, nil
	}
	return nil, wire.Permanent(op, errors.New("expected the id or the path of a project"))
}

// projectPath is a path of groups and a project. A segment that ends in a dot, as "..", is none of GitLab's.
var projectPath = regexp.MustCompile(`^` + pathSegment + `(/` + pathSegment + `)+$`)

const pathSegment = `([A-Za-z0-9_.][A-Za-z0-9_.-]*[A-Za-z0-9_-]|[A-Za-z0-9_])`

// Self says who we are; app says that it is the bot account of a project or group access token, whose labels are ours
// and nobody's will. It is asked for once per process.
func (c *Client) Self(ctx context.Context) (me forge.Actor, app bool, err error) {
	c.mu.Lock()
	me, app = c.self, c.bot
	c.mu.Unlock()
	if me.ID != 0 {
		return me, app, nil
	}
	const op = "ask who we are"
	user, _, err := c.api.Users.CurrentUser(with(ctx))
	if err != nil {
		return forge.Actor{}, false, classify(op, err)
	}
	if user.ID == 0 || user.Username == "" {
		return forge.Actor{}, false, wire.Incomplete(op)
	}
	me = actor(user.ID, user.Username)
	app = user.Bot || me.Bot
	me.Bot = app
	c.mu.Lock()
	defer c.mu.Unlock()
	c.self, c.bot = me, app
	return me, app, nil
}

// botName is how GitLab calls the accounts of access tokens and service accounts. GitLab tells it nowhere else where a
// person is named, and a person who takes such a name only loses trust by it.
var botName = regexp.MustCompile(`^(project|group)_\d+_bot(_\w+)?$|^service_account_`)

func actor(id int64, login string) forge.Actor {
	return forge.Actor{ID: id, Login: login, Bot: botName.MatchString(login)}
}

// second cuts a time to what hooks tell: API answers have milliseconds, hooks do not, and the two are compared.
func second(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Second)
}
