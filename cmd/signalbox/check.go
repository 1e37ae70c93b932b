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
	"github.com/signalbox-ci/signalbox/state/redis"
)

type checkCmd struct {
	Settings `embed:""`
	Fix      bool   `help:"Create what is missing where that is all there is to it: the gate label."`
	Repo     string `arg:"" optional:"" placeholder:"REPO" help:"INSTANCE:OWNER/REPO, or OWNER/REPO where one forge is configured; without it, the repositories of the allow-list or of the App."`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
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
		if f.Kind == kindGitLab {
			all.gitlab(ctx, f)
			continue
		}
		x, err := newExamination(cfg, f, c.Fix)
		if err != nil {
			return err
		}
		x.forge(ctx, only)
		all = append(all, x.found...)
	}
	if err := all.print(p.out, c.Output); err != nil {
		return err
	}
	n := 0
	for _, f := range all {
		if f.Severity == isFailure {
			n++
		}
	}
	if n > 0 {
		return fmt.Errorf("%d to be mended", n)
	}
	return nil
}

// only is the repository that was named, the zero Repo if none was.
func (c checkCmd) only(cfg Config) (forge.Repo, error) {
	if c.Repo == "" {
		return forge.Repo{}, nil
	}
	instance, name, ok := strings.Cut(c.Repo, ":")
	if !ok && len(cfg.Forges) == 1 {
		instance, name = cfg.Forges[0].Name, c.Repo
	}
	if !repoForm.MatchString(instance + ":" + name) {
		return forge.Repo{}, usageError{fmt.Errorf("%q: expected INSTANCE:OWNER/REPO, for example github:octo/hello", c.Repo)}
	}
	if !slices.ContainsFunc(cfg.Forges, func(f Forge) bool { return f.Name == instance }) {
		return forge.Repo{}, usageError{fmt.Errorf("%s: %w", instance, errNoForge)}
	}
	return forge.Repo{Instance: instance, Name: name}, nil
}

func (f findings) print(w io.Writer, output string) error {
	if output == "json" {
		return printJSON(w, f)
	}
	b := &strings.Builder{}
	for _, x := range f {
		fmt.Fprintf(b, "%-8s %s: %s\n", x.Severity, x.Where, x.What)
		if x.Mend != "" {
			fmt.Fprintf(b, "         → %s\n", x.Mend)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
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

// gitlab asks who we are there. What the hook and the project must have is said by docs/recipes/gitlab.md: a project's
// own token may not read its hooks.
func (f *findings) gitlab(ctx context.Context, at Forge) {
	c, err := dial(at, nil, time.Now)
	if err != nil {
		f.add(isFailure, at.Name, err.Error(), "see to the forge's configuration")
		return
	}
	me, bot, err := c.Self(ctx)
	switch {
	case err != nil:
		f.add(isFailure, at.Name, err.Error(), "see to the address and the token")
	case !bot:
		f.add(isWarning, at.Name, "the token is a person's: "+me.Login, "use a project access token with the role Developer: code of merge requests gets its job token")
	default:
		f.add(isFine, at.Name, "GitLab answers; we are "+me.Login, "")
	}
}

// examination looks at one forge.
type examination struct {
	cfg   Config
	at    Forge
	c     *github.Client
	hook  *github.Hook
	fix   bool
	found findings
}

func newExamination(cfg Config, f Forge, fix bool) (*examination, error) {
	c, err := github.New(github.Options{
		Instance: f.Name, APIURL: f.APIURL, Token: f.Token.Reveal(), AppID: f.AppID, PrivateKey: []byte(f.PrivateKey.Reveal()),
	})
	if err != nil {
		return nil, fmt.Errorf("forge %s: %w", f.Name, err)
	}
	h, err := github.NewHook(f.Name, []string{"unused"})
	if err != nil {
		return nil, fmt.Errorf("forge %s: %w", f.Name, err)
	}
	return &examination{cfg: cfg, at: f, c: c, hook: h, fix: fix}, nil
}

func (x *examination) app() bool { return x.at.AppID != 0 }

// events are those of the recipes that find somebody here.
func (x *examination) events() []string {
	return slices.DeleteFunc([]string{"pull_request", "issue_comment", "check_run", "merge_group", "workflow_run"}, func(e string) bool { return !x.hook.Handles(e) })
}

// reposChecked bounds how many repositories are looked at where none is named.
const reposChecked = 20

func (x *examination) forge(ctx context.Context, only forge.Repo) {
	me, _, err := x.c.Self(ctx)
	if err != nil {
		x.found.add(isFailure, x.at.Name, "the forge does not take our credential: "+err.Error(), "check SIGNALBOX_GITHUB_TOKEN, or the App's id and private key, and that the App is installed")
		return
	}
	x.found.add(isFine, x.at.Name, "we are @"+me.Login, "")
	if !x.app() {
		x.found.add(isWarning, x.at.Name, "with a token the gate is a commit status, which anyone with statuses: write can overwrite; there are no buttons, and no merge queue",
			"use a GitHub App: docs/operating.md lists its permissions")
	}
	repos := []forge.Repo{only}
	if only.Name == "" {
		if repos, err = x.repos(ctx); err != nil {
			x.found.add(isFailure, x.at.Name, "the repositories cannot be listed: "+err.Error(), "name one: signalbox check "+x.at.Name+":OWNER/REPO")
			return
		}
	}
	if len(repos) == 0 {
		x.found.add(isWarning, x.at.Name, "no repository is known to look at", "name one: signalbox check "+x.at.Name+":OWNER/REPO")
	}
	for _, r := range repos[:min(len(repos), reposChecked)] {
		x.repo(ctx, r)
	}
	if n := len(repos) - reposChecked; n > 0 {
		x.found.add(isWarning, x.at.Name, fmt.Sprintf("%d more repositories were not looked at", n), "name one: signalbox check "+x.at.Name+":OWNER/REPO")
	}
}

// repos are those the allow-list names in full, or else those the App sees.
func (x *examination) repos(ctx context.Context) ([]forge.Repo, error) {
	var out []forge.Repo
	names, wild := x.cfg.named(x.at.Name)
	for _, n := range names {
		out = append(out, forge.Repo{Instance: x.at.Name, Name: n})
	}
	if len(names) > 0 && !wild {
		return out, nil
	}
	installations := []int64{0}
	if x.app() {
		var err error
		if installations, err = pages(func(page int) ([]int64, int, error) { return x.c.Installations(ctx, page) }); err != nil {
			return nil, err
		}
	} else if !wild {
		return nil, nil // a person's token sees what is none of our business
	}
	for _, i := range installations {
		list, err := pages(func(page int) ([]forge.Repo, int, error) { return x.c.Repos(ctx, i, page) })
		if err != nil {
			return nil, err
		}
		out = append(out, slices.DeleteFunc(list, func(r forge.Repo) bool { return !x.cfg.Allowed(r) })...)
	}
	return out, nil
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

// repo looks at one repository.
func (x *examination) repo(ctx context.Context, r forge.Repo) {
	where := x.at.Name + ":" + r.Name
	found, branch, err := x.c.Named(ctx, r)
	if err != nil {
		x.found.add(isFailure, where, "it cannot be seen: "+err.Error(), "install the App on it, or give the token access")
		return
	}
	r, where = found, x.at.Name+":"+found.Name
	if !x.cfg.Allowed(r) {
		x.found.add(isFailure, where, "SIGNALBOX_REPOS does not name it: its deliveries are answered and forgotten", "add "+r.Name+" to SIGNALBOX_REPOS")
	}
	gate := x.cfg.Gate(r)
	queue := x.protection(ctx, r, where, branch, gate)
	x.rights(ctx, r, where, gate, queue)
	x.webhook(ctx, r, where)
	x.label(ctx, r, where, gate)
	x.approval(ctx, r, where, gate)
	x.bots(ctx, r, where, gate)
}

// unread tells that something cannot be looked at, which is no failure of what it is about.
func (x *examination) unread(where, what string, err error, mend string) {
	x.found.add(isWarning, where, what+" cannot be read: "+err.Error(), mend)
}

func (x *examination) protection(ctx context.Context, r forge.Repo, where, branch string, gate Gate) (queue bool) {
	p, err := x.c.Protection(ctx, r, branch)
	if err != nil {
		x.unread(where, "the protection of "+branch, err, "give the App Contents: read, the token access to the repository")
		return false
	}
	if p.MergeQueue && !x.app() {
		x.found.add(isFailure, where, branch+" has a merge queue, and with a token no check of a merge group can be written: nothing would ever merge",
			"use a GitHub App, or take the merge queue off")
	}
	names := []string{gate.Check}
	for _, t := range gate.Triggers {
		if t.Kind != ActionsApproval {
			names = append(names, gate.PresubmitName(t))
		}
	}
	for i, name := range names {
		x.required(where, branch, name, i == 0, p)
	}
	return p.MergeQueue
}

func (x *examination) required(where, branch, name string, isGate bool, p github.Protection) {
	mend := "Settings → Rules → Rulesets: require " + quote(name) + " on " + branch
	if x.app() {
		mend += ", with our App as its source"
	}
	severity := isWarning
	if isGate {
		severity = isFailure
	}
	i := slices.IndexFunc(p.Required, func(q github.Required) bool { return q.Name == name })
	if i < 0 {
		x.found.add(severity, where, branch+" does not require the check "+quote(name)+": pull requests can be merged without it", mend)
		return
	}
	// Where several rules name it, one that pins it to us is enough, and one that pins it to somebody else spoils all.
	ours, others := false, false
	for _, q := range p.Required {
		if q.Name == name {
			ours = ours || q.App == x.at.AppID && x.app()
			others = others || q.App != 0 && q.App != x.at.AppID
		}
	}
	switch {
	case others:
		x.found.add(isFailure, where, "the required check "+quote(name)+" is pinned to another App: ours can never satisfy it", mend)
	case x.app() && !ours:
		x.found.add(isFailure, where, "the required check "+quote(name)+" is not pinned to our App: any workflow that may write checks or statuses can forge it", mend)
	default:
		x.found.add(isFine, where, branch+" requires the check "+quote(name), "")
	}
}

// rights compares what we may do with what the gate does.
func (x *examination) rights(ctx context.Context, r forge.Repo, where string, gate Gate, queue bool) {
	have, err := x.c.Rights(ctx, r)
	if err != nil {
		x.unread(where, "what we may do", err, "")
		return
	}
	teams := slices.ContainsFunc(slices.Concat(gate.Trust, gate.Auto), func(r forge.Rule) bool { return r.Kind == "team" })
	if !x.app() {
		x.scopes(where, have, r.Private, teams)
		return
	}
	need := map[string]string{"metadata": "read", "pull_requests": "write", "checks": "write", "contents": "read"}
	for _, t := range gate.Triggers {
		switch t.Kind {
		case Workflow, ActionsApproval:
			need["actions"] = "write"
		case RepositoryDispatch:
			need["contents"] = "write"
		case HTTP, GitLabPipeline, Runner:
		}
	}
	if teams {
		need["members"] = "read"
	}
	if queue {
		need["merge_queues"] = "read"
	}
	before := len(x.found)
	for _, name := range slices.Sorted(maps.Keys(need)) {
		if got := have.Permissions[name]; got != need[name] && got != "write" && got != "admin" {
			x.found.add(isFailure, where, fmt.Sprintf("the App lacks the permission %s: %s", name, need[name]),
				"grant it in the App's settings, then accept it in the installation's")
		}
	}
	for _, e := range x.events() {
		if !slices.Contains(have.Events, e) && (e != "merge_group" || queue) {
			x.found.add(isFailure, where, "the App's webhook does not send "+e, "tick the event in the App's settings")
		}
	}
	if len(x.found) == before {
		x.found.add(isFine, where, "the App has every permission and event it needs", "")
	}
}

func (x *examination) scopes(where string, have github.Rights, private, teams bool) {
	switch {
	case have.Fine:
		x.found.add(isWarning, where, "the token does not tell what it may do",
			"see to it that it has Pull requests, Commit statuses and Actions: read and write; Contents and Webhooks: read")
	case !slices.Contains(have.Scopes, "repo") && (private || !slices.Contains(have.Scopes, "public_repo")):
		x.found.add(isFailure, where, "the token lacks the scope repo", "make one that has it, or a fine-grained one")
	case teams && !slices.ContainsFunc(have.Scopes, func(s string) bool { return strings.HasSuffix(s, ":org") }):
		x.found.add(isFailure, where, "the token lacks the scope read:org, and the policy names a team", "make one that has it")
	default:
		x.found.add(isFine, where, "the token has the scopes it needs", "")
	}
}

func (x *examination) webhook(ctx context.Context, r forge.Repo, where string) {
	list, err := x.c.Webhooks(ctx, r)
	if err != nil {
		x.unread(where, "the webhook", err, "without it there is no delivery log either: lost deliveries are only found by comparing; give the token Webhooks: read")
		return
	}
	path := "/webhooks/" + x.at.Name
	hooks := slices.DeleteFunc(slices.Clone(list), func(h github.Webhook) bool { return !h.Ours })
	if len(hooks) == 0 {
		x.found.add(isFailure, where, "no webhook sends to "+path, "set the address of the webhook to https://YOUR-HOST"+path)
		return
	}
	for _, h := range hooks {
		before := len(x.found)
		bad := func(what, mend string) { x.found.add(isFailure, where, "the webhook to "+host(h.URL)+" "+what, mend) }
		if !h.Active {
			bad("is switched off", "tick Active in its settings")
		}
		if h.ContentType != "json" {
			bad("sends forms", "set its content type to application/json")
		}
		if !h.Secret {
			bad("has no secret: every delivery is refused", "set it to SIGNALBOX_GITHUB_WEBHOOK_SECRET")
		}
		for _, e := range x.events() {
			if !x.app() && !slices.Contains(h.Events, e) && !slices.Contains(h.Events, "*") && e != "merge_group" && e != "check_run" {
				bad("does not send "+e, "tick the event in its settings")
			}
		}
		if h.Insecure {
			x.found.add(isWarning, where, "the webhook to "+host(h.URL)+" does not verify our certificate", "enable SSL verification in its settings")
		}
		if len(x.found) == before {
			x.found.add(isFine, where, "the webhook to "+host(h.URL)+" is active, signed, and sends JSON", "")
		}
	}
}

// host leaves out what else an address may carry.
func host(address string) string {
	_, rest, _ := strings.Cut(address, "://")
	rest, _, _ = strings.Cut(rest, "/")
	return rest[strings.LastIndex(rest, "@")+1:]
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

func (x *examination) approval(ctx context.Context, r forge.Repo, where string, gate Gate) {
	if !slices.ContainsFunc(gate.Triggers, func(t Trigger) bool { return t.Kind == ActionsApproval }) {
		return
	}
	const all, mend = "all_external_contributors", "Settings → Actions → General: require approval for all external contributors"
	switch policy, err := x.c.ForkApproval(ctx, r); {
	case err != nil:
		x.unread(where, "the approval policy of Actions", err, mend+" (see to it by hand, or give us Administration: read)")
	case policy != all:
		x.found.add(isFailure, where, "Actions holds back runs by the policy "+policy+": others start without approval", mend)
	default:
		x.found.add(isFine, where, "Actions holds back the runs of all external contributors", "")
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
		slug := strings.TrimSuffix(login, "[bot]")
		if slices.ContainsFunc(gate.Auto, func(r forge.Rule) bool {
			return r.Kind == "app" && strings.EqualFold(r.Value, slug) || r.Kind == "user" && strings.EqualFold(r.Value, login)
		}) {
			continue
		}
		x.found.add(isWarning, where, fmt.Sprintf("@%s opened %d of the last 100 pull requests and is not trusted to run CI unasked", login, bots[login]),
			"if it should be: add app:"+slug+" to SIGNALBOX_AUTO")
	}
}
