// Package gitlabsandbox is a small GitLab for tests: projects, forks, members, merge requests and pipelines that verbs
// move, a REST API that answers about them over real HTTP, and webhooks in GitLab's form. It knows what Signalbox uses
// and the rules that bite: what an update merges into one delivery, when a status may change, which commits a project
// takes statuses for.
package gitlabsandbox

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // object names of git, not a protection
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Roles, as access levels.
const (
	Guest      = 10
	Reporter   = 20
	Developer  = 30
	Maintainer = 40
)

// Forge is one GitLab. All its methods, and those of what it made, may be called from any goroutine.
type Forge struct {
	clock func() time.Time

	mu       sync.Mutex
	ids      int64
	users    []*User
	projects []*Project
	groups   map[string]map[int64]int // roles by path and account
	locks    locks
	lag      time.Duration  // until a pushed commit is seen
	before   func()         // runs once, before the next merge-request pipeline is made
	failing  map[string]int // by "METHOD route": how many more calls answer 502
	calls    []string
	pending  []delivery
}

// New makes an empty GitLab on a clock.
func New(clock func() time.Time) *Forge {
	return &Forge{clock: clock, ids: 100, groups: map[string]map[int64]int{}, locks: newLocks(), failing: map[string]int{}}
}

func (f *Forge) id() int64 { f.ids++; return f.ids }

func (f *Forge) sha() string {
	sum := sha1.Sum([]byte(fmt.Sprint("commit ", f.id()))) //nolint:gosec // as above
	return hex.EncodeToString(sum[:])
}

// User is an account.
type User struct {
	ID    int64
	Login string
	Token string
	Bot   bool
	State string // "active"
	Until string // the day on which every membership ends, "2026-12-31"; empty = never

	Scopes  []string // of the token
	Expires string   // its last day, "2026-12-31"; empty = never
}

// AddUser makes an account; bot: that of a project access token.
func (f *Forge) AddUser(login string, bot bool) *User {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := &User{ID: f.id(), Login: login, Bot: bot, State: "active", Scopes: []string{"api"}}
	u.Token = fmt.Sprintf("glpat-%s-%d", login, u.ID)
	f.users = append(f.users, u)
	return u
}

// Project is a repository with its merge requests.
type Project struct {
	ID   int64
	Path string

	f         *Forge
	members   map[int64]int
	hook      Hook
	merges    []*Merge
	pushes    []push
	pipelines []*Pipeline
	commits   map[string]commit // those of its own branches
	settings  map[string]any
	labels    map[string]bool   // known by name
	files     map[string]string // by path, on every branch
	jobs      []*Status
	posts     []Status
	size      int // of a pipeline, in jobs
	protected []string
}

// AddProject makes a project with members by role.
func (f *Forge) AddProject(path string, members map[*User]int) *Project {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &Project{ID: f.id(), Path: path, f: f, members: map[int64]int{}, commits: map[string]commit{}, size: 1000, labels: map[string]bool{}, files: map[string]string{}}
	p.settings = map[string]any{
		"visibility": "public", "default_branch": "main", "ci_config_path": ".gitlab-ci.yml@octo/ci", "merge_pipelines_enabled": false,
		"ci_allow_fork_pipelines_to_run_in_parent_project": true, "only_allow_merge_if_pipeline_succeeds": true, "allow_merge_on_skipped_pipeline": false,
		"ci_restrict_pipeline_cancellation_role": "developer",
	}
	for u, level := range members {
		p.members[u.ID] = level
	}
	f.projects = append(f.projects, p)
	return p
}

// Set changes a setting, by the API's name; a nil is one that this GitLab does not tell.
func (p *Project) Set(name string, value any) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.settings[name] = value; value == nil {
		delete(p.settings, name)
	}
}

// AddFile puts a file onto every branch.
func (p *Project) AddFile(path, text string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.files[path] = text
}

// AddGroup makes a group, "octo/crew", with members by role. Members of a group are members of those beneath it.
func (f *Forge) AddGroup(path string, members map[*User]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[path] = map[int64]int{}
	for u, level := range members {
		f.groups[path][u.ID] = level
	}
}

// SetMember changes a role; 0 ends the membership.
func (p *Project) SetMember(u *User, level int) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.members[u.ID] = level; level == 0 {
		delete(p.members, u.ID)
	}
}

// Merge is a merge request.
type Merge struct {
	IID int

	project, source      *Project
	author               *User
	branch, target, head string
	state                string
	draft                bool
	labels               []string
	history              []labelEvent
	notes                []*note
	created, updated     time.Time
}

type labelEvent struct {
	id    int64
	added bool
	label string
	by    *User
	at    time.Time
}

type note struct {
	id      int64
	body    string
	by      *User
	at      time.Time
	updated time.Time
}

// push is an event of a branch, complete as of its push.
type push struct {
	id                int64
	branch, from, sha string // from is empty of a new branch
	by                *User
	at                time.Time
}

// pushed puts a new commit onto a branch.
func (p *Project) pushed(by *User, branch, from string) string {
	sha, now := p.f.sha(), p.f.clock()
	p.commits[sha] = commit{branch, now}
	p.pushes = append(p.pushes, push{p.f.id(), branch, from, sha, by, now})
	return sha
}

// Note is a note as tests read it.
type Note struct {
	ID   int64
	By   string
	Body string
}

// Pipeline is a pipeline of a merge request, or one that statuses made.
type Pipeline struct {
	ID int64

	project *Project
	merge   *Merge // nil of one that statuses made
	sha     string
	ref     string
	source  string
	status  string
	by      *User
	created time.Time
	ended   time.Time

	archived bool
}

// Open opens a merge request into the project from a branch of source, which may be the project itself.
func (p *Project) Open(by *User, source *Project, labels ...string) *Merge {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	now := p.f.clock()
	m := &Merge{
		IID: len(p.merges) + 1, project: p, source: source, author: by, target: "main", state: "opened", created: now, updated: now,
		labels: labels,
	}
	m.branch = fmt.Sprintf("branch-%d", m.IID)
	m.head = source.pushed(by, m.branch, "")
	for _, l := range labels {
		m.history = append(m.history, labelEvent{p.f.id(), true, l, by, now})
	}
	p.merges = append(p.merges, m)
	m.tell(by, "open", "", nil)
	return m
}

// Change is what one update does, all at once.
type Change struct {
	Push   bool // a new commit on the source branch
	Add    []string
	Remove []string
	Target string
	Draft  *bool
	Titled bool // something that concerns nobody
}

// Update changes a merge request in one go and tells of it in one delivery.
func (m *Merge) Update(by *User, c Change) {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	m.update(by, c)
}

func (m *Merge) update(by *User, c Change) {
	f := m.project.f
	m.updated = f.clock()
	changes := map[string]any{}
	oldrev := ""
	if c.Push {
		oldrev = m.head
		m.head = m.source.pushed(by, m.branch, oldrev)
	}
	was := slices.Clone(m.labels)
	for _, l := range c.Remove {
		if i := slices.Index(m.labels, l); i >= 0 {
			m.labels = slices.Delete(slices.Clone(m.labels), i, i+1)
			m.history = append(m.history, labelEvent{f.id(), false, l, by, m.updated})
		}
	}
	for _, l := range c.Add {
		if !slices.Contains(m.labels, l) {
			m.labels = append(slices.Clone(m.labels), l)
			m.project.labels[l] = true
			m.history = append(m.history, labelEvent{f.id(), true, l, by, m.updated})
		}
	}
	if !slices.Equal(was, m.labels) {
		changes["labels"] = map[string]any{"previous": titles(was), "current": titles(m.labels)}
	}
	if c.Target != "" && c.Target != m.target {
		changes["target_branch"] = map[string]any{"previous": m.target, "current": c.Target}
		m.target = c.Target
	}
	if c.Draft != nil && *c.Draft != m.draft {
		changes["draft"] = map[string]any{"previous": m.draft, "current": *c.Draft}
		m.draft = *c.Draft
	}
	if c.Titled {
		changes["title"] = map[string]any{"previous": "a", "current": "b"}
	}
	if len(changes) > 0 || oldrev != "" {
		m.tell(by, "update", oldrev, changes)
	}
}

// Push adds a commit to the source branch.
func (m *Merge) Push(by *User) { m.Update(by, Change{Push: true}) }

// Label adds a label.
func (m *Merge) Label(by *User, label string) { m.Update(by, Change{Add: []string{label}}) }

// Unlabel removes a label.
func (m *Merge) Unlabel(by *User, label string) { m.Update(by, Change{Remove: []string{label}}) }

// Close closes without merging.
func (m *Merge) Close(by *User) { m.become(by, "closed", "close") }

// Merge merges.
func (m *Merge) Merge(by *User) { m.become(by, "merged", "merge") }

// Reopen opens again what was closed.
func (m *Merge) Reopen(by *User) { m.become(by, "opened", "reopen") }

func (m *Merge) become(by *User, state, action string) {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	m.now(by, state, action)
}

func (m *Merge) now(by *User, state, action string) {
	m.state, m.updated = state, m.project.f.clock()
	m.tell(by, action, "", nil)
}

// Comment writes a note.
func (m *Merge) Comment(by *User, text string) {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	m.comment(by, text)
}

func (m *Merge) comment(by *User, text string) *note {
	now := m.project.f.clock()
	n := &note{m.project.f.id(), text, by, now, now}
	m.notes = append(m.notes, n)
	m.tellNote(n, "create")
	m.obey(n)
	return n
}

// obey does what a note's lines order, in the name of who wrote it: GitLab's quick actions, of which there are more.
func (m *Merge) obey(n *note) {
	for line := range strings.Lines(n.body) {
		switch strings.TrimSpace(line) {
		case "/close":
			m.now(n.by, "closed", "close")
		case "/merge":
			m.now(n.by, "merged", "merge")
		}
	}
}

// Head is the newest commit.
func (m *Merge) Head() string {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	return m.head
}

// Labels are those that are on it now.
func (m *Merge) Labels() []string {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	return slices.Clone(m.labels)
}

// Notes are all of them, oldest first.
func (m *Merge) Notes() []Note {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	var out []Note
	for _, n := range m.notes {
		out = append(out, Note{n.id, n.by.Login, n.body})
	}
	return out
}

// Pipelines are those of the merge request, wherever they run, oldest first.
func (m *Merge) Pipelines() []*Pipeline {
	m.project.f.mu.Lock()
	defer m.project.f.mu.Unlock()
	var out []*Pipeline
	for _, in := range m.project.f.projects {
		for _, p := range in.pipelines {
			if p.merge == m {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, func(a, b *Pipeline) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// SHA is the commit that it runs.
func (p *Pipeline) SHA() string { return p.sha }

// Status is how it stands.
func (p *Pipeline) Status() string {
	p.project.f.mu.Lock()
	defer p.project.f.mu.Unlock()
	return p.status
}

// Become moves a pipeline and tells of it.
func (p *Pipeline) Become(status string) {
	p.project.f.mu.Lock()
	defer p.project.f.mu.Unlock()
	p.become(status)
}

func (p *Pipeline) become(status string) {
	if p.status = status; status != "running" && status != "pending" {
		p.ended = p.project.f.clock()
	}
	p.tell()
}

// BeforePipeline runs do once, before GitLab makes the next pipeline of a merge request.
func (f *Forge) BeforePipeline(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.before = do
}

// Fail makes the next n calls of a route ("GET /projects/{id}/merge_requests/{iid}") answer 502.
func (f *Forge) Fail(route string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failing[route] = n
}

// Calls are the routes that were called since the last time this was asked.
func (f *Forge) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.calls
	f.calls = nil
	return out
}
