package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/forge/gitlab"
	"github.com/signalbox-ci/signalbox/prmanager"
	sweeps "github.com/signalbox-ci/signalbox/repair"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/status"
	"github.com/signalbox-ci/signalbox/webhook"
)

// forgeClient is what the service needs of a forge, whichever it is.
type forgeClient interface {
	prmanager.Reader
	prmanager.Labeller
	prmanager.Commenter
	status.Checks
	status.Statuses
	sweeps.Lister
	sweeps.Log
	runner.Source
	// Self says who we are, and whether that is a bot whose labels are never anybody's will.
	Self(ctx context.Context) (me forge.Actor, app bool, err error)
}

// forgeHook is the receiving side of a forge.
type forgeHook interface {
	webhook.Forge
	Handles(event string) bool
}

// connected is one configured forge.
type connected struct {
	forgeClient
	title string // what texts call it
	hook  forgeHook
	// starter is the adapter of a trigger that belongs to this kind of forge.
	starter func(Trigger) (prmanager.Trigger, error)
}

// dial makes both sides of a forge; now is the clock by which signed deliveries are old. It makes no call.
func dial(f Forge, transport http.RoundTripper, now func() time.Time) (c connected, err error) {
	if f.Kind == kindGitLab {
		c, err = dialGitLab(f, transport, now)
	} else {
		c, err = dialGitHub(f, transport)
	}
	if err != nil {
		return connected{}, fmt.Errorf("forge %s: %w", f.Name, err)
	}
	return c, nil
}

func dialGitLab(f Forge, transport http.RoundTripper, now func() time.Time) (connected, error) {
	c, err := gitlab.New(gitlab.Options{Instance: f.Name, URL: f.APIURL, Token: f.Token.Reveal(), Transport: transport})
	if err != nil {
		return connected{}, err
	}
	h, err := gitlab.NewHook(gitlab.HookOptions{
		Instance: f.Name, Secrets: revealed(f.WebhookSecrets), SigningTokens: revealed(f.SigningTokens), Now: now,
	})
	return connected{c, "GitLab", h, func(Trigger) (prmanager.Trigger, error) { return c.Pipeline(), nil }}, err
}

func dialGitHub(f Forge, transport http.RoundTripper) (connected, error) {
	c, err := github.New(github.Options{
		Instance: f.Name, APIURL: f.APIURL, Token: f.Token.Reveal(), AppID: f.AppID, PrivateKey: []byte(f.PrivateKey.Reveal()),
		Transport: transport,
	})
	if err != nil {
		return connected{}, err
	}
	h, err := github.NewHook(f.Name, revealed(f.WebhookSecrets))
	return connected{c, "GitHub", h, func(t Trigger) (prmanager.Trigger, error) {
		switch t.Kind {
		case RepositoryDispatch:
			return c.Dispatch(), nil
		case Workflow:
			return c.Workflow(t.File, t.Ref)
		default:
			return c.Approval(), nil
		}
	}}, err
}

// repositories are all of the App's installations, or all that the token sees.
func (c connected) repositories(ctx context.Context, app bool) (all []forge.Repo, err error) {
	installations := []int64{0}
	if app {
		if installations, err = pages(func(page int) ([]int64, int, error) { return c.Installations(ctx, page) }); err != nil {
			return nil, err
		}
	}
	for _, i := range installations {
		list, err := pages(func(page int) ([]forge.Repo, int, error) { return c.Repos(ctx, i, page) })
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

// pages reads a list to its end.
func pages[T any](read func(page int) ([]T, int, error)) (all []T, err error) {
	for page := 1; page != 0; {
		var list []T
		if list, page, err = read(page); err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	return all, nil
}

func revealed(secrets []Secret) []string {
	out := make([]string, len(secrets))
	for i, s := range secrets {
		out[i] = s.Reveal()
	}
	return out
}

// The kinds of forge.
const (
	kindGitHub = "github"
	kindGitLab = "gitlab"
)

// forgeKind is the kind of forge that a trigger belongs to; empty = any.
func (t Trigger) forgeKind() string {
	switch t.Kind {
	case ActionsApproval, Workflow, RepositoryDispatch:
		return kindGitHub
	case GitLabPipeline:
		return kindGitLab
	default:
		return ""
	}
}

// native says that the forge shows the runs on the pull request by itself.
func (t Trigger) native() bool { return t.Kind == ActionsApproval || t.Kind == GitLabPipeline }

// fits says whether a trigger can start anything at an instance. A gate of several forges names the triggers of all; at
// each of them only its own count.
func (c Config) fits(instance string, t Trigger) bool {
	kind := t.forgeKind()
	return kind == "" || !slices.ContainsFunc(c.Forges, func(f Forge) bool { return f.Name == instance && f.Kind != kind })
}
