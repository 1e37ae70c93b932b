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
	source  runner.Source // what runners check out
}

var (
	_ forgeClient = (*github.Client)(nil)
	_ forgeClient = (*gitlab.Client)(nil)
)

// dial makes both sides of a forge; now is the clock by which signed deliveries are old. It makes no call.
func dial(f Forge, transport http.RoundTripper, now func() time.Time) (connected, error) {
	if f.Kind == kindGitLab {
		c, err := gitlab.New(gitlab.Options{Instance: f.Name, URL: f.APIURL, Token: f.Token.Reveal(), Transport: transport})
		if err != nil {
			return connected{}, fmt.Errorf("forge %s: %w", f.Name, err)
		}
		h, err := gitlab.NewHook(gitlab.HookOptions{
			Instance: f.Name, Secrets: revealed(f.WebhookSecrets), SigningTokens: revealed(f.SigningTokens), Now: now,
		})
		if err != nil {
			return connected{}, fmt.Errorf("forge %s: %w", f.Name, err)
		}
		return connected{c, "GitLab", h, func(Trigger) (prmanager.Trigger, error) { return c.Pipeline(), nil }, c}, nil
	}
	c, err := github.New(github.Options{
		Instance: f.Name, APIURL: f.APIURL, Token: f.Token.Reveal(), AppID: f.AppID, PrivateKey: []byte(f.PrivateKey.Reveal()),
		Transport: transport,
	})
	if err != nil {
		return connected{}, fmt.Errorf("forge %s: %w", f.Name, err)
	}
	h, err := github.NewHook(f.Name, revealed(f.WebhookSecrets))
	if err != nil {
		return connected{}, fmt.Errorf("forge %s: %w", f.Name, err)
	}
	return connected{c, "GitHub", h, func(t Trigger) (prmanager.Trigger, error) {
		switch t.Kind {
		case RepositoryDispatch:
			return c.Dispatch(), nil
		case Workflow:
			return c.Workflow(t.File, t.Ref)
		default:
			return c.Approval(), nil
		}
	}, c}, nil
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
