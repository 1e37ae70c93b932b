package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
	statusapi "github.com/signalbox-ci/signalbox/status/api"
)

type statusCmd struct {
	Token    statusTokenCmd    `cmd:"" help:"Make a token with which a CI posts statuses."`
	List     statusListCmd     `cmd:"" help:"List the tokens that are good, and for what."`
	Revoke   statusRevokeCmd   `cmd:"" help:"End a token at once."`
	Transfer statusTransferCmd `cmd:"" help:"Give a context of one commit to another token."`
}

type statusTokenCmd struct {
	configured
	Project []string      `required:"" placeholder:"INSTANCE:OWNER/REPO" help:"What it may post to; may be given several times, for projects of one forge."`
	Context []string      `placeholder:"NAME" help:"Contexts that it may post, each a name or the beginning of names and then *. Without this, every context that belongs to nobody else."`
	For     time.Duration `placeholder:"DURATION" help:"How long it is good. Without this, until it is revoked."`
	output
}

func (statusTokenCmd) Help() string {
	return "The token is printed once; only its hash is kept.\n\nExample:\n  signalbox status token --project gitlab:octo/hello --context 'jenkins/*' --for 2160h"
}

// Run prints a token.
func (c statusTokenCmd) Run(ctx context.Context, p process) error {
	out, err := ask(ctx, c.Settings, p, "status-tokens", admin.grantStatus, statusGrant{c.Project, c.Context, c.For.String(), operatorName()})
	if err != nil {
		return err
	}
	return c.show(p.out, out, func(w io.Writer) { fmt.Fprintln(w, out.Token) })
}

type statusListCmd struct {
	configured
	output
}

func (statusListCmd) Help() string { return "Example:\n  signalbox status list" }

// Run prints what tokens there are.
func (c statusListCmd) Run(ctx context.Context, p process) error {
	list, err := look(ctx, c.Settings, p, func(a admin, ctx context.Context) ([]statusapi.Grant, error) { return statusapi.Grants(ctx, a.store) })
	if err != nil {
		return err
	}
	return c.show(p.out, list, func(w io.Writer) {
		if len(list) == 0 {
			fmt.Fprintln(w, "there is no token")
			return
		}
		fmt.Fprintln(w, "ID\tPROJECTS\tCONTEXTS\tMADE\tBY\tEXPIRES")
		for _, g := range list {
			var projects []string
			for _, r := range g.Repos {
				projects = append(projects, r.Instance+":"+r.Name)
			}
			contexts, expires := "*", "when revoked"
			if len(g.Contexts) > 0 {
				contexts = fmt.Sprintf("%q", g.Contexts)
			}
			if !g.Expires.IsZero() {
				expires = g.Expires.Format(time.RFC3339)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", g.ID, strings.Join(projects, ","), contexts, g.Created.Format(time.RFC3339), g.By, expires)
		}
	})
}

type statusRevokeCmd struct {
	configured
	ID string `arg:"" help:"The token's id, as status list shows it."`
}

func (statusRevokeCmd) Help() string { return "Example:\n  signalbox status revoke 3f1c9a7be0d24c55" }

// Run ends the token.
func (c statusRevokeCmd) Run(ctx context.Context, p process) error {
	return tell(ctx, c.Settings, p, "status-revocations", admin.revokeStatus, statusRevocation{c.ID})
}

type statusTransferCmd struct {
	configured
	Project string `required:"" placeholder:"INSTANCE:OWNER/REPO" help:"Where the commit is."`
	SHA     string `required:"" name:"sha" help:"The full commit."`
	Context string `required:"" placeholder:"NAME" help:"The context."`
	Ref     string `help:"The ref that it was posted with, if any."`
	To      string `required:"" placeholder:"ID" help:"Id of the token that is to own it, as status list shows it."`
}

func (statusTransferCmd) Help() string {
	return "A context belongs to the token that posted it first. After a rotation in the middle of a build the new one may take it over.\n\n" +
		"Example:\n  signalbox status transfer --project gitlab:octo/hello --sha 6dcb09b5b57875f334f61aebed695e2e4193db5e --context jenkins/unit --to 3f1c9a7be0d24c55"
}

// Run gives the context away.
func (c statusTransferCmd) Run(ctx context.Context, p process) error {
	if err := checkSHA(c.SHA); err != nil {
		return err
	}
	return tell(ctx, c.Settings, p, "status-transfers", admin.transferStatus, statusTransfer{c.Project, c.SHA, c.Context, c.Ref, c.To})
}

// statusGrant asks for a token of the status API.
type statusGrant struct {
	Projects []string `json:"projects"` // INSTANCE:OWNER/REPO
	Contexts []string `json:"contexts,omitempty"`
	Life     string   `json:"life"` // a duration; "0s" = until it is revoked
	By       string   `json:"by"`
}

type statusRevocation struct {
	ID string `json:"id"`
}

// statusTransfer asks for another owner of a context at one commit.
type statusTransfer struct {
	Project string `json:"project"`
	SHA     string `json:"sha"`
	Context string `json:"context"`
	Ref     string `json:"ref,omitempty"`
	To      string `json:"to"` // id of a token
}

func (a admin) grantStatus(ctx context.Context, g statusGrant) (made, error) {
	life, err := time.ParseDuration(g.Life)
	if err != nil || life != 0 && life < time.Minute {
		return made{}, usageError{fmt.Errorf("good for %q: expected a time from 1m", g.Life)}
	}
	out := statusapi.Grant{Contexts: g.Contexts, By: g.By}
	for _, c := range g.Contexts {
		if c == "" || strings.Contains(strings.TrimSuffix(c, "*"), "*") {
			return made{}, usageError{fmt.Errorf("context %q: expected a name, or the beginning of names and then *", c)}
		}
	}
	for _, p := range g.Projects {
		repo, err := a.named(ctx, p)
		if err != nil {
			return made{}, err
		}
		if out.Repos = append(out.Repos, repo); repo.Instance != out.Repos[0].Instance {
			return made{}, usageError{errors.New("the projects of one token are at one forge")}
		}
	}
	if len(out.Repos) == 0 {
		return made{}, usageError{errors.New("expected at least one project")}
	}
	token, err := statusapi.Issue(ctx, a.engine, out, life)
	return made{token}, err
}

func (a admin) revokeStatus(ctx context.Context, r statusRevocation) (done, error) {
	return done{true}, statusapi.Revoke(ctx, a.engine, r.ID)
}

// transferStatus finds the project among those of the token that is to own the context: it must be for them anyway.
func (a admin) transferStatus(ctx context.Context, t statusTransfer) (done, error) {
	grants, err := statusapi.Grants(ctx, a.store)
	if err != nil {
		return done{}, err
	}
	for _, g := range grants {
		for _, repo := range g.Repos {
			if g.ID != t.To || !strings.EqualFold(repo.Instance+":"+repo.Name, t.Project) {
				continue
			}
			err := status.NewClients(a.engine, a.store, nil).Transfer(ctx, status.Target{Repo: repo, SHA: t.SHA}, t.Context, t.Ref, t.To)
			var no *status.Refusal
			if errors.As(err, &no) {
				err = fmt.Errorf("%s at %s: %w", t.Context, t.SHA, errNoContext)
			}
			return done{true}, err
		}
	}
	return done{}, fmt.Errorf("%s for %s: %w", t.To, t.Project, statusapi.ErrNoToken)
}

var (
	errNoRepo    = errors.New("the forge shows us no such repository, or it is archived")
	errNoContext = errors.New("nobody posted such a context to this commit")
)

// named asks a forge which repository a person means.
func (a admin) named(ctx context.Context, what string) (forge.Repo, error) {
	at, repo, err := repoAt(a.forges, what)
	if err != nil {
		return forge.Repo{}, err
	}
	c, err := dial(at, nil, time.Now)
	if err != nil {
		return forge.Repo{}, err
	}
	repos, err := c.repositories(ctx, at.AppID != 0)
	if err != nil {
		return forge.Repo{}, fmt.Errorf("look for %s: %w", what, err)
	}
	if i := slices.IndexFunc(repos, func(r forge.Repo) bool { return strings.EqualFold(r.Name, repo.Name) }); i >= 0 {
		return repos[i], nil
	}
	return forge.Repo{}, fmt.Errorf("%s: %w", what, errNoRepo)
}
