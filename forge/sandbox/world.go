package sandbox

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options says how a sandbox forge is made. The zero value is usable.
type Options struct {
	// Clock is the forge's clock: every created_at, updated_at and delivery time, shown in whole seconds as GitHub
	// does. nil = time.Now. Credentials and rate-limit windows live on the wall clock instead, because the clients
	// that hold them do.
	Clock func() time.Time
	// Seed makes SHAs, tokens and delivery GUIDs. Two forges with the same seed and the same verbs are equal.
	Seed string
	// URL is the address that links in answers and payloads begin with, without a slash at the end. Start sets it
	// to the listener's; "" = "http://sandbox.invalid".
	URL string
	// RateLimit is how many calls one credential has per hour; 0 = 5000.
	RateLimit int
}

// Forge is a world of users, repositories and pull requests, changed by verbs and by the REST API that it serves as
// an http.Handler. It is safe for concurrent use. One mutex orders everything: a verb or an API call is one atomic
// step, and what it changes, records and delivers bears increasing sequence numbers.
type Forge struct {
	clock func() time.Time
	seed  string
	limit int
	mux   *http.ServeMux

	mu      sync.Mutex
	stirred *sync.Cond // a delivery became due, or a Sender closes
	url     string
	fault   func(*http.Request) *Fault

	made    uint64 // SHAs, tokens and GUIDs made so far
	lastID  int64
	seq     int
	users   []*User
	repos   []*Repo
	teams   []*Team
	apps    []*App
	commits map[string]*commit
	tokens  map[string]*credential
	windows map[string]*window // rate limits by token
	hooks   []*Hook

	deliveries []*delivery
	due        []*delivery // to be sent, in order
	attempts   []*Attempt
	calls      []Call
	writes     []Write
	runs       []*Run // of all repositories, oldest first
}

// New makes an empty world. The caller serves it (Forge is an http.Handler) or uses Start.
func New(o Options) *Forge {
	f := &Forge{
		clock: o.Clock, seed: o.Seed, limit: o.RateLimit, url: strings.TrimSuffix(o.URL, "/"),
		lastID: 1_000_000, commits: map[string]*commit{}, tokens: map[string]*credential{}, windows: map[string]*window{},
	}
	if f.clock == nil {
		f.clock = time.Now
	}
	if f.url == "" {
		f.url = "http://sandbox.invalid"
	}
	if f.limit == 0 {
		f.limit = 5000
	}
	f.stirred = sync.NewCond(&f.mu)
	f.mux = f.routes()
	return f
}

// now is the forge's time in whole seconds, as GitHub stores it.
func (f *Forge) now() time.Time { return f.clock().UTC().Truncate(time.Second) }

// id hands out ids, increasing over all kinds, so that no id is ever right for two things by accident.
func (f *Forge) id() int64 { f.lastID++; return f.lastID }

func (f *Forge) next() int { f.seq++; return f.seq }

// digits makes n hex digits that only the seed and the count so far decide.
func (f *Forge) digits(n int) string {
	f.made++
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d", f.seed, f.made))
	return hex.EncodeToString(sum[:])[:n]
}

// guid is shaped like a random UUID.
func (f *Forge) guid() string {
	d := f.digits(32)
	return d[:8] + "-" + d[8:12] + "-4" + d[13:16] + "-a" + d[17:20] + "-" + d[20:]
}

// User is a person, an organisation or an App's bot. Its ID never changes; its login may.
type User struct {
	ID    int64
	Token string // what authenticates API calls of this account; "" for organisations and bots

	f       *Forge
	login   string
	kind    string // User, Organization, Bot
	gone    bool
	app     *App // of a bot
	created time.Time
}

// Login is the account's present name.
func (u *User) Login() string {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	return u.login
}

// Rename gives the account another login; its old one is free for AddUser at once.
func (u *User) Rename(login string) {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	u.login = login
}

// Delete deletes the account: its login is free, its token is nobody's, and what it did was done by null.
func (u *User) Delete() {
	u.f.mu.Lock()
	defer u.f.mu.Unlock()
	u.gone = true
	delete(u.f.tokens, u.Token)
}

// AddUser adds a person, or answers the one who has this login.
func (f *Forge) AddUser(login string) *User {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u := f.user(login); u != nil {
		return u
	}
	u := f.account(login, "User")
	u.Token = "sandbox_" + f.digits(36)
	f.tokens[u.Token] = &credential{user: u}
	return u
}

func (f *Forge) account(login, kind string) *User {
	u := &User{ID: f.id(), f: f, login: login, kind: kind, created: f.now()}
	f.users = append(f.users, u)
	return u
}

func (f *Forge) user(login string) *User {
	for _, u := range f.users {
		if !u.gone && strings.EqualFold(u.login, login) {
			return u
		}
	}
	return nil
}

// Team is a team of an organisation.
type Team struct {
	f       *Forge
	id      int64
	org     *User
	slug    string
	members map[*User]string // state: active or pending
}

// AddTeam adds a team with active members; the organisation is made if there is none.
func (f *Forge) AddTeam(org, slug string, members ...*User) *Team {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &Team{f: f, id: f.id(), org: f.owner(org), slug: slug, members: map[*User]string{}}
	for _, m := range members {
		t.members[m] = "active"
	}
	f.teams = append(f.teams, t)
	return t
}

// SetMember sets a membership to "active" or "pending"; "" ends it.
func (t *Team) SetMember(u *User, state string) {
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	if state == "" {
		delete(t.members, u)
		return
	}
	t.members[u] = state
}

func (f *Forge) owner(login string) *User {
	if u := f.user(login); u != nil {
		return u
	}
	return f.account(login, "Organization")
}

// RepoOptions says how a repository is made.
type RepoOptions struct {
	Private       bool
	DefaultBranch string            // "" = main
	Branches      []string          // further branches, each with a commit of its own
	Permissions   map[*User]string  // admin, maintain, write, triage, read
	Labels        []string          // labels that exist from the start
	Workflows     []WorkflowOptions // files on every branch
	MergeQueue    bool              // the default branch asks for GitHub's merge queue
}

// Repo is a repository. Its ID never changes.
type Repo struct {
	ID int64

	f          *Forge
	owner      *User
	name       string
	private    bool
	fork       bool
	root       *Repo // what it was forked from, or itself: forks share commits
	deleted    bool
	main       string
	branches   map[string]string // name → SHA
	perms      map[*User]string
	labels     []*label
	workflows  []*workflow
	mergeQueue bool
	git        string // folder of the real repository that this is; empty = there is none
	pulls      []*PR
	checks     []*CheckRun
	statuses   []*status
	suites     map[suiteKey]int64
	created    time.Time
	pushed     time.Time
}

// AddRepo adds the repository "owner/name". An owner that is no user yet becomes an organisation.
func (f *Forge) AddRepo(name string, o RepoOptions) *Repo {
	f.mu.Lock()
	defer f.mu.Unlock()
	owner, short, _ := strings.Cut(name, "/")
	r := f.repository(f.owner(owner), short, o.DefaultBranch)
	r.private, r.mergeQueue = o.Private, o.MergeQueue
	for _, b := range o.Branches {
		r.branches[b] = f.commit(r, r.owner, "Begin "+b, r.branches[r.main])
	}
	for u, p := range o.Permissions {
		r.perms[u] = p
	}
	for _, l := range o.Labels {
		r.addLabel(l, "ededed", "")
	}
	for _, w := range o.Workflows {
		r.workflows = append(r.workflows, &workflow{WorkflowOptions: w, id: f.id(), created: f.now()})
	}
	return r
}

func (f *Forge) repository(owner *User, name, main string) *Repo {
	if main == "" {
		main = "main"
	}
	r := &Repo{
		ID: f.id(), f: f, owner: owner, name: name, main: main, branches: map[string]string{}, perms: map[*User]string{},
		suites: map[suiteKey]int64{}, created: f.now(), pushed: f.now(),
	}
	r.root = r
	r.branches[main] = f.commit(r, owner, "Begin")
	f.repos = append(f.repos, r)
	return r
}

// forkOf answers u's fork of r, made when first needed.
func (f *Forge) forkOf(r *Repo, u *User) *Repo {
	for _, x := range f.repos {
		if x.fork && x.root == r && x.owner == u && !x.deleted {
			return x
		}
	}
	x := f.repository(u, r.name, r.main)
	x.fork, x.root, x.private = true, r, r.private
	for b, sha := range r.branches {
		x.branches[b] = sha
	}
	return x
}

// Name is "owner/name".
func (r *Repo) Name() string {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.fullName()
}

func (r *Repo) fullName() string { return r.owner.login + "/" + r.name }

// SetPermission gives u a role (admin, maintain, write, triage, read); "" takes it away.
func (r *Repo) SetPermission(u *User, role string) {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if role == "" {
		delete(r.perms, u)
		return
	}
	r.perms[u] = role
}

// Advance puts a new commit on a branch, as a direct push by u would, and answers its SHA.
func (r *Repo) Advance(u *User, branch string) string {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	r.branches[branch] = r.f.commit(r, u, "Advance "+branch, r.branches[branch])
	r.pushed = r.f.now()
	return r.branches[branch]
}

// Tip is the SHA a branch points at, "" if there is no such branch.
func (r *Repo) Tip(branch string) string {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.branches[branch]
}

// role is what u may do in r: admin, maintain, write, triage, read or none.
func (r *Repo) role(u *User) string {
	if u == r.owner {
		return "admin"
	}
	if p := r.perms[u]; p != "" {
		return p
	}
	if r.private {
		return "none"
	}
	return "read"
}

// rank orders the roles.
func rank(role string) int {
	switch role {
	case "admin":
		return 5
	case "maintain":
		return 4
	case "write":
		return 3
	case "triage":
		return 2
	case "read":
		return 1
	}
	return 0
}

func (f *Forge) repo(owner, name string) *Repo {
	for _, r := range f.repos {
		if !r.deleted && strings.EqualFold(r.owner.login, owner) && strings.EqualFold(r.name, name) {
			return r
		}
	}
	return nil
}

type commit struct {
	sha     string
	tree    string
	root    *Repo // every repository of this root's network knows it
	author  *User
	message string
	parents []string
	at      time.Time
}

func (f *Forge) commit(r *Repo, author *User, message string, parents ...string) string {
	parents = slices.DeleteFunc(parents, func(sha string) bool { return sha == "" })
	c := &commit{
		sha: f.digits(40), tree: f.digits(40), root: r.root, author: author, message: message, at: f.now(), parents: parents,
	}
	f.commits[c.sha] = c
	return c.sha
}

// lookup finds a commit that r can show, by SHA or by branch name.
func (r *Repo) lookup(ref string) *commit {
	if sha, ok := r.branches[strings.TrimPrefix(ref, "heads/")]; ok {
		ref = sha
	}
	if c := r.f.commits[strings.ToLower(ref)]; c != nil && c.root == r.root {
		return c
	}
	return nil
}
