package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/forge/gitlab"
	"github.com/signalbox-ci/signalbox/runner"
	"github.com/signalbox-ci/signalbox/state/redis"
)

type checkCmd struct {
	configured
	Fix  bool   `help:"Create what is missing where that is all there is to it: the gate label."`
	Repo string `arg:"" optional:"" placeholder:"REPO" help:"INSTANCE:OWNER/REPO, or OWNER/REPO where one forge is configured; without it, the repositories of the allow-list or of the App."`
	output
}

func (checkCmd) Help() string {
	return `Looks at what the configuration depends on and says what is wrong and how to mend it. Nothing is changed without --fix.
The exit status is 1 if there is a failure; warnings do not count.

Example:
  signalbox check --fix github:octo/hello`
}

// Severities of findings, worst first.
const (
	isFailure = "failure" // a promise does not hold, or nothing works
	isWarning = "warning" // it works, with less than it could
	isFine    = "ok"
)

// finding is one thing that was looked at.
type finding struct {
	Severity string `json:"severity"`
	Where    string `json:"where"` // "store", "github", "github:octo/hello"
	What     string `json:"what"`
	Mend     string `json:"mend,omitempty"`
}

// findings are all of them, in the order in which they were looked at.
type findings []finding

func (f *findings) add(severity, where, what, mend string) {
	*f = append(*f, finding{severity, where, what, mend})
}

// Run looks and tells.
func (c checkCmd) Run(ctx context.Context, p process) error {
	cfg, err := c.Resolve(p.environ, p.readFile)
	if err != nil {
		return err
	}
	only, err := c.only(cfg)
	if err != nil {
		return err
	}
	var all findings
	all.add(isFine, "configuration", "it is complete, and every value can be read", "")
	all.store(ctx, cfg.Store)
	for _, f := range cfg.Forges {
		if only.Name != "" && only.Instance != f.Name {
			continue
		}
		found, err := examine(ctx, cfg, f, c.Fix, only)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	err = c.show(p.out, all, func(w io.Writer) {
		for _, f := range all {
			fmt.Fprintf(w, "%-8s %s: %s\n", f.Severity, f.Where, f.What)
			if f.Mend != "" {
				fmt.Fprintf(w, "         → %s\n", f.Mend)
			}
		}
	})
	fails := slices.DeleteFunc(all, func(f finding) bool { return f.Severity != isFailure })
	if err == nil && len(fails) > 0 {
		err = fmt.Errorf("%d to be mended", len(fails))
	}
	return err
}

// only is the repository that was named, the zero Repo if none was.
func (c checkCmd) only(cfg Config) (forge.Repo, error) {
	if c.Repo == "" {
		return forge.Repo{}, nil
	}
	what := c.Repo
	if len(cfg.Forges) == 1 && !strings.Contains(what, ":") {
		what = cfg.Forges[0].Name + ":" + what
	}
	_, repo, err := repoAt(cfg.Forges, what)
	if errors.Is(err, errNoForge) {
		err = usageError{err}
	}
	return repo, err
}

// store looks at where state is kept.
func (f *findings) store(ctx context.Context, c Store) {
	if c.Scheme == "file" {
		dir := filepath.Dir(c.Path)
		switch i, err := os.Stat(dir); {
		case errors.Is(err, fs.ErrNotExist):
			f.add(isFailure, "store", "the directory "+dir+" does not exist", "create it, on a disk that outlives the process")
		case err != nil || !i.IsDir():
			f.add(isFailure, "store", dir+" cannot be used as a directory", "set SIGNALBOX_STORE to a file in one that can")
		default:
			f.add(isFine, "store", c.String()+": one process can use it", "")
		}
		return
	}
	s, err := redis.Open(ctx, c.Reveal())
	if err != nil {
		f.add(isFailure, "store", err.Error(), "mend the server's settings, or SIGNALBOX_STORE")
		return
	}
	found, err := s.Findings(ctx)
	if err = errors.Join(err, s.Close()); err != nil {
		f.add(isFailure, "store", err.Error(), "see to it that the server answers")
		return
	}
	for _, x := range found {
		severity := isWarning
		if strings.Contains(x, "maxmemory-policy") {
			severity = isFailure
		}
		f.add(severity, "store", x, "docs/operating.md says what Redis needs")
	}
	if len(found) == 0 {
		f.add(isFine, "store", c.String()+": keeps what it acknowledges and evicts nothing", "")
	}
}

// inspected is what is looked at of every forge.
type inspected interface {
	runner.Source
	HasLabel(ctx context.Context, repo forge.Repo, label string) (bool, error)
	MakeLabel(ctx context.Context, repo forge.Repo, label string) error
	RecentBots(ctx context.Context, repo forge.Repo) (byLogin map[string]int, err error)
}

// examination looks at one forge.
type examination struct {
	cfg   Config
	at    Forge
	c     inspected
	fix   bool
	found findings
}

// examine looks at one forge: at everything there, or at one repository.
func examine(ctx context.Context, cfg Config, f Forge, fix bool, only forge.Repo) (findings, error) {
	c, err := dial(f, nil, time.Now)
	if err != nil {
		return nil, err
	}
	x := &examination{cfg: cfg, at: f, fix: fix}
	me, bot, err := c.Self(ctx)
	if err != nil {
		x.found.add(isFailure, f.Name, "the forge does not take our credential: "+err.Error(), "check the token (of a GitHub App: its id and private key, and that it is installed) and the address")
		return x.found, nil
	}
	x.found.add(isFine, f.Name, "we are @"+me.Login, "")
	var repo func(context.Context, forge.Repo)
	switch client := c.forgeClient.(type) {
	case *github.Client:
		x.c = client
		g := &githubExamination{examination: x, c: client, hook: c.hook}
		g.credential()
		repo = g.repo
	case *gitlab.Client:
		x.c = client
		g := &gitlabExamination{examination: x, c: client}
		g.credential(ctx, me, bot)
		repo = g.repo
	}
	repos := []forge.Repo{only}
	if only.Name == "" {
		if repos, err = x.repos(ctx, c, bot); err != nil {
			x.found.add(isFailure, f.Name, "the repositories cannot be listed: "+err.Error(), "name one: signalbox check "+f.Name+":OWNER/REPO")
			return x.found, nil
		}
	}
	if len(repos) == 0 {
		x.found.add(isWarning, f.Name, "no repository is known to look at", "name one: signalbox check "+f.Name+":OWNER/REPO")
	}
	for _, r := range repos[:min(len(repos), reposChecked)] {
		repo(ctx, r)
	}
	if n := len(repos) - reposChecked; n > 0 {
		x.found.add(isWarning, f.Name, fmt.Sprintf("%d more repositories were not looked at", n), "name one: signalbox check "+f.Name+":OWNER/REPO")
	}
	return x.found, nil
}

// reposChecked bounds how many repositories are looked at where none is named.
const reposChecked = 20

// app says that we are a GitHub App.
func (x *examination) app() bool { return x.at.AppID != 0 }

// repos are those the allow-list names in full, or else those that the App or the access token is for.
func (x *examination) repos(ctx context.Context, c connected, bot bool) ([]forge.Repo, error) {
	var out []forge.Repo
	names, wild := x.cfg.named(x.at.Name)
	for _, n := range names {
		out = append(out, forge.Repo{Instance: x.at.Name, Name: n})
	}
	if len(names) > 0 && !wild {
		return out, nil
	}
	if !x.app() && !bot && !wild {
		return nil, nil // a person's token sees what is none of our business
	}
	list, err := c.repositories(ctx, x.app())
	return append(out, slices.DeleteFunc(list, func(r forge.Repo) bool { return !x.cfg.Allowed(r) })...), err
}

// unread tells that something cannot be looked at, which is no failure of what it is about.
func (x *examination) unread(where, what string, err error, mend string) {
	x.found.add(isWarning, where, what+" cannot be read: "+err.Error(), mend)
}

// allowed tells of a repository whose deliveries are not taken.
func (x *examination) allowed(r forge.Repo, where string) {
	if !x.cfg.Allowed(r) {
		x.found.add(isFailure, where, "SIGNALBOX_REPOS does not name it: its deliveries are answered and forgotten", "add "+r.Name+" to SIGNALBOX_REPOS")
	}
}

// hooked tells what judge finds wrong with a webhook, or that it is fine.
func (x *examination) hooked(where, address string, insecure bool, fine string, judge func(bad func(what, mend string))) {
	_, host, _ := strings.Cut(address, "://") // what else an address may carry is nobody's business
	host, _, _ = strings.Cut(host, "/")
	hook, before := "the webhook to "+host[strings.LastIndex(host, "@")+1:]+" ", len(x.found)
	judge(func(what, mend string) { x.found.add(isFailure, where, hook+what, mend) })
	if insecure {
		x.found.add(isWarning, where, hook+"does not verify our certificate", "enable SSL verification in its settings")
	}
	if len(x.found) == before {
		x.found.add(isFine, where, hook+fine, "")
	}
}

func (x *examination) label(ctx context.Context, r forge.Repo, where string, gate Gate) {
	has, err := x.c.HasLabel(ctx, r, gate.Label)
	switch {
	case err != nil:
		x.unread(where, "the label "+quote(gate.Label), err, "")
	case has:
		x.found.add(isFine, where, "the label "+quote(gate.Label)+" exists", "")
	case !x.fix:
		x.found.add(isFailure, where, "the label "+quote(gate.Label)+" does not exist: nobody can approve by it", "signalbox check --fix "+where+" creates it")
	default:
		if err := x.c.MakeLabel(ctx, r, gate.Label); err != nil {
			x.found.add(isFailure, where, "the label "+quote(gate.Label)+" cannot be created: "+err.Error(), "create it by hand")
			return
		}
		x.found.add(isFine, where, "the label "+quote(gate.Label)+" was created", "")
	}
}

// bots names the bots whose pull requests would wait for a person each time.
func (x *examination) bots(ctx context.Context, r forge.Repo, where string, gate Gate) {
	bots, err := x.c.RecentBots(ctx, r)
	if err != nil {
		x.unread(where, "the authors of recent pull requests", err, "")
		return
	}
	for _, login := range slices.Sorted(maps.Keys(bots)) {
		slug, isApp := strings.CutSuffix(login, "[bot]")
		rule := "user:" + login
		if isApp {
			rule = "app:" + slug
		}
		if slices.ContainsFunc(gate.Auto, func(r forge.Rule) bool {
			return r.Kind == "app" && strings.EqualFold(r.Value, slug) || r.Kind == "user" && strings.EqualFold(r.Value, login)
		}) {
			continue
		}
		x.found.add(isWarning, where, fmt.Sprintf("@%s opened %d of the last 100 pull requests and is not trusted to run CI unasked", login, bots[login]),
			"if it should be: add "+rule+" to SIGNALBOX_AUTO")
	}
}
