package sandbox

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// PR is a pull request. Number and ID never change.
type PR struct {
	ID     int64
	Number int

	f        *Forge
	repo     *Repo
	author   *User
	headRepo *Repo
	branch   string
	created  time.Time
	pullState
	past     []pullState // what reads showed before, oldest first, the present one last
	lag      int
	events   []*issueEvent
	comments []*comment
}

// pullState is the part of a pull request that changes.
type pullState struct {
	title, body   string
	head          string // SHA
	base, baseSHA string
	draft         bool
	open          bool
	merged        bool
	mergedBy      *User
	mergeSHA      string
	labels        []*label
	commits       int
	updated       time.Time
	closed        time.Time
}

type label struct {
	id                       int64
	name, color, description string
}

// issueEvent is one line of a pull request's history.
type issueEvent struct {
	id     int64
	kind   string // GitHub's name of the event; "committed" and "commented" only in the timeline
	actor  *User
	at     time.Time
	label  *label
	was    string // of renamed
	is     string
	commit string
	said   *comment
}

type comment struct {
	id   int64
	user *User
	body string
	at   time.Time
}

// PROptions says how a pull request is opened.
type PROptions struct {
	Title  string // "" = one that names the branch
	Body   string
	Branch string // head branch, made with a commit of the author's if it is new; "" = "change-N"
	Base   string // "" = the default branch
	Fork   bool   // the head lives in the author's fork
	Draft  bool
	SHA    string   // open it at a commit that is known already; "" = a new one
	Labels []string // set at creation, by the author
}

// OpenPR opens a pull request.
func (r *Repo) OpenPR(author *User, o PROptions) *PR {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	p := &PR{
		ID: f.id(), Number: len(r.pulls) + 1, f: f, repo: r, author: author, headRepo: r, branch: o.Branch, created: f.now(),
		pullState: pullState{title: o.Title, body: o.Body, base: o.Base, draft: o.Draft, open: true},
	}
	if o.Fork {
		p.headRepo = f.forkOf(r, author)
	}
	if p.branch == "" {
		p.branch = "change-" + strconv.Itoa(p.Number)
	}
	if p.title == "" {
		p.title = "Change " + p.branch
	}
	if p.base == "" {
		p.base = r.main
	}
	p.baseSHA = r.branches[p.base]
	p.head = o.SHA
	if p.head == "" {
		p.head = p.headRepo.branches[p.branch]
	}
	if p.head == "" {
		p.head = f.commit(r, author, p.title, p.baseSHA)
	}
	p.headRepo.branches[p.branch] = p.head
	p.commits = 1
	p.happened(author, issueEvent{kind: "committed", commit: p.head})
	r.pulls = append(r.pulls, p)
	p.touch()
	f.deliverPull(p, author, "opened", nil)
	for _, name := range o.Labels {
		p.addLabel(author, name)
	}
	f.startNative(p, author)
	return p
}

// touch ends a change: the pull request was updated now.
func (p *PR) touch() {
	p.updated = p.f.now()
	p.labels = slices.Clone(p.labels)
	p.past = append(p.past, p.pullState)
}

// Lag makes reads of this pull request answer what it was n changes ago; 0 = the present.
func (p *PR) Lag(n int) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.lag = n
}

// Head is the live head SHA.
func (p *PR) Head() string {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	return p.head
}

// Labels are the names of the labels it has.
func (p *PR) Labels() []string {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	var names []string
	for _, l := range p.labels {
		names = append(names, l.name)
	}
	return names
}

// Push puts a new commit on the head branch and answers its SHA.
func (p *PR) Push(u *User) string {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	sha := p.f.commit(p.repo, u, "Change something", p.headRepo.branches[p.branch])
	p.move(u, sha, false)
	return sha
}

// ForcePush moves the head branch to a commit that is known, for example an earlier head.
func (p *PR) ForcePush(u *User, sha string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.move(u, sha, true)
}

// UpdateBranch merges the base branch into the head branch, as the button of that name does.
func (p *PR) UpdateBranch(u *User) string {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	sha := p.f.commit(p.repo, u, "Merge branch '"+p.base+"' into "+p.branch, p.headRepo.branches[p.branch], p.repo.branches[p.base])
	p.move(u, sha, false)
	return sha
}

// move changes the head. A closed pull request keeps the head it had, as at GitHub, while its branch moves on.
func (p *PR) move(u *User, sha string, forced bool) {
	if p.headRepo.deleted {
		return
	}
	before := p.head
	p.headRepo.branches[p.branch] = sha
	p.headRepo.pushed = p.f.now()
	if !p.open || sha == before {
		return
	}
	p.head, p.baseSHA = sha, p.repo.branches[p.base]
	p.commits++
	if forced {
		p.happened(u, issueEvent{kind: "head_ref_force_pushed", commit: sha})
	} else {
		p.happened(u, issueEvent{kind: "committed", commit: sha})
	}
	p.touch()
	p.f.deliverPull(p, u, "synchronize", object{"before": before, "after": sha})
	p.f.startNative(p, u)
}

func (p *PR) happened(u *User, e issueEvent) {
	e.id, e.actor, e.at = p.f.id(), u, p.f.now()
	p.events = append(p.events, &e)
}

// Label adds a label, making it in the repository if it is new. A label that is there already changes nothing.
func (p *PR) Label(u *User, name string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.addLabel(u, name)
}

func (p *PR) addLabel(u *User, name string) bool {
	if p.labelled(name) != nil {
		return false
	}
	l := p.repo.label(name)
	if l == nil {
		l = p.repo.addLabel(name, "ededed", "")
	}
	p.labels = append(p.labels, l)
	p.happened(u, issueEvent{kind: "labeled", label: l})
	p.touch()
	p.f.deliverPull(p, u, "labeled", object{"label": p.f.labelView(p.repo, l)})
	return true
}

// Unlabel removes a label. One that is not there changes nothing.
func (p *PR) Unlabel(u *User, name string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.dropLabel(u, name)
}

func (p *PR) dropLabel(u *User, name string) bool {
	l := p.labelled(name)
	if l == nil {
		return false
	}
	p.labels = slices.DeleteFunc(slices.Clone(p.labels), func(x *label) bool { return x == l })
	p.happened(u, issueEvent{kind: "unlabeled", label: l})
	p.touch()
	p.f.deliverPull(p, u, "unlabeled", object{"label": p.f.labelView(p.repo, l)})
	return true
}

func (p *PR) labelled(name string) *label {
	for _, l := range p.labels {
		if strings.EqualFold(l.name, name) {
			return l
		}
	}
	return nil
}

// label finds a label of the repository. GitHub's label names ignore case.
func (r *Repo) label(name string) *label {
	for _, l := range r.labels {
		if strings.EqualFold(l.name, name) {
			return l
		}
	}
	return nil
}

func (r *Repo) addLabel(name, color, description string) *label {
	l := &label{id: r.f.id(), name: name, color: color, description: description}
	r.labels = append(r.labels, l)
	return l
}

// Comment writes a comment.
func (p *PR) Comment(u *User, body string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.comment(u, body)
}

func (p *PR) comment(u *User, body string) *comment {
	said := &comment{id: p.f.id(), user: u, body: body, at: p.f.now()}
	p.comments = append(p.comments, said)
	p.happened(u, issueEvent{kind: "commented", said: said})
	p.touch()
	p.f.deliverComment(p, u, said, "created", nil)
	return said
}

// EditComment changes the newest comment.
func (p *PR) EditComment(u *User, body string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if len(p.comments) == 0 {
		return
	}
	said := p.comments[len(p.comments)-1]
	was := said.body
	said.body = body
	p.touch()
	p.f.deliverComment(p, u, said, "edited", object{"changes": object{"body": object{"from": was}}})
}

// Retitle changes the title.
func (p *PR) Retitle(u *User, title string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.retitle(u, title)
}

func (p *PR) retitle(u *User, title string) {
	was := p.title
	p.title = title
	p.happened(u, issueEvent{kind: "renamed", was: was, is: title})
	p.touch()
	p.f.deliverPull(p, u, "edited", object{"changes": object{"title": object{"from": was}}})
}

// ReadyForReview ends a draft.
func (p *PR) ReadyForReview(u *User) { p.setDraft(u, false, "ready_for_review", "ready_for_review") }

// ConvertToDraft makes it a draft.
func (p *PR) ConvertToDraft(u *User) { p.setDraft(u, true, "convert_to_draft", "converted_to_draft") }

func (p *PR) setDraft(u *User, draft bool, event, action string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if p.draft == draft {
		return
	}
	p.draft = draft
	p.happened(u, issueEvent{kind: event})
	p.touch()
	p.f.deliverPull(p, u, action, nil)
}

// ChangeBase points it at another branch.
func (p *PR) ChangeBase(u *User, branch string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.rebase(u, branch)
}

func (p *PR) rebase(u *User, branch string) {
	from, sha := p.base, p.baseSHA
	p.base, p.baseSHA = branch, p.repo.branches[branch]
	p.happened(u, issueEvent{kind: "base_ref_changed"})
	p.touch()
	p.f.deliverPull(p, u, "edited", object{"changes": object{
		"base": object{"ref": object{"from": from}, "sha": object{"from": sha}},
	}})
}

// Close closes it unmerged.
func (p *PR) Close(u *User) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.end(u)
}

func (p *PR) end(u *User) {
	if !p.open {
		return
	}
	p.open, p.closed = false, p.f.now()
	p.happened(u, issueEvent{kind: "closed"})
	p.touch()
	p.f.deliverPull(p, u, "closed", nil)
}

// Merge merges it: the base branch gets a merge commit.
func (p *PR) Merge(u *User) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if !p.open {
		return
	}
	p.merge(u, p.f.commit(p.repo, u, fmt.Sprintf("Merge pull request #%d", p.Number), p.repo.branches[p.base], p.head))
}

func (p *PR) merge(u *User, sha string) {
	p.repo.branches[p.base], p.repo.pushed = sha, p.f.now()
	p.merged, p.mergedBy, p.mergeSHA = true, u, sha
	p.happened(u, issueEvent{kind: "merged", commit: sha})
	p.end(u)
}

// Reopen opens it again at what its branch points at now. A merged one stays closed.
func (p *PR) Reopen(u *User) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.reopen(u)
}

func (p *PR) reopen(u *User) {
	if p.open || p.merged {
		return
	}
	p.open, p.closed = true, time.Time{}
	if !p.headRepo.deleted {
		p.head = p.headRepo.branches[p.branch]
	}
	p.happened(u, issueEvent{kind: "reopened"})
	p.touch()
	p.f.deliverPull(p, u, "reopened", nil)
	p.f.startNative(p, u)
}

// DeleteFork deletes the head repository: from now on it is null. A head in the base repository stays.
func (p *PR) DeleteFork() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.headRepo.deleted = p.headRepo.fork
}

// pull finds the pull request that the path names.
func (c *call) pull() *PR {
	n := int(c.id("number"))
	if n < 1 || n > len(c.repo.pulls) {
		return nil
	}
	return c.repo.pulls[n-1]
}

func (f *Forge) getPull(c *call) answer {
	if p := c.pull(); p != nil {
		return ok(f.pullView(p, p.past[max(len(p.past)-1-p.lag, 0)]))
	}
	return *notFound()
}

func (f *Forge) listPulls(c *call) answer {
	q := c.req.URL.Query()
	state, order, direction := q.Get("state"), q.Get("sort"), q.Get("direction")
	if !slices.Contains([]string{"", "open", "closed", "all"}, state) {
		return *invalid(problem("PullRequest", "state", "invalid"))
	}
	var found []*PR
	for _, p := range c.repo.pulls {
		switch {
		case (state == "" || state == "open") && !p.open, state == "closed" && p.open:
		case q.Get("base") != "" && q.Get("base") != p.base:
		case q.Get("head") != "" && q.Get("head") != p.headRepo.owner.login+":"+p.branch:
		default:
			found = append(found, p)
		}
	}
	slices.SortStableFunc(found, func(a, b *PR) int {
		if order == "updated" {
			return a.updated.Compare(b.updated)
		}
		return a.Number - b.Number
	})
	if direction == "desc" || direction == "" && (order == "" || order == "created") {
		slices.Reverse(found)
	}
	return c.page(views(found, func(p *PR) object {
		v := f.pullView(p, p.pullState)
		for _, detail := range []string{
			"merged", "mergeable", "rebaseable", "mergeable_state", "merged_by", "comments",
			"review_comments", "maintainer_can_modify", "commits", "additions", "deletions", "changed_files",
		} {
			delete(v, detail)
		}
		return v
	}), "")
}

func (f *Forge) patchPull(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	var in struct {
		Title, Body, State, Base *string
	}
	if no := c.body(&in); no != nil {
		return *no
	}
	switch {
	case in.Base != nil && c.repo.branches[*in.Base] == "":
		return *invalid(problem("PullRequest", "base", "invalid"))
	case in.State != nil && *in.State != "open" && *in.State != "closed":
		return *invalid(problem("PullRequest", "state", "invalid"))
	case in.State != nil && *in.State == "open" && p.merged:
		return *invalid(custom("PullRequest", "state", "state cannot be changed. The pull request cannot be reopened."))
	}
	if in.Title != nil && *in.Title != p.title {
		p.retitle(c.actor(), *in.Title)
	}
	if in.Body != nil && *in.Body != p.body {
		was := p.body
		p.body = *in.Body
		p.touch()
		f.deliverPull(p, c.actor(), "edited", object{"changes": object{"body": object{"from": was}}})
	}
	if in.Base != nil && *in.Base != p.base {
		p.rebase(c.actor(), *in.Base)
	}
	if in.State != nil && *in.State == "closed" {
		p.end(c.actor())
	}
	if in.State != nil && *in.State == "open" {
		p.reopen(c.actor())
	}
	return ok(f.pullView(p, p.pullState))
}

// listEvents leaves out what GitHub shows in the timeline only.
func (f *Forge) listEvents(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	var events []*issueEvent
	for _, e := range p.events {
		if e.kind != "committed" && e.kind != "commented" {
			events = append(events, e)
		}
	}
	return c.page(views(events, func(e *issueEvent) object { return f.eventView(p, e) }), "")
}

func (f *Forge) listTimeline(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	return c.page(views(p.events, func(e *issueEvent) object { return f.eventView(p, e) }), "")
}

func (f *Forge) listComments(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	return c.page(views(p.comments, func(x *comment) object { return f.commentView(p, x) }), "")
}

func (f *Forge) postComment(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	var in struct{ Body string }
	if no := c.body(&in); no != nil {
		return *no
	}
	if in.Body == "" {
		return *invalid(problem("IssueComment", "body", "missing_field"))
	}
	said := p.comment(c.actor(), in.Body)
	f.write(c, Write{Kind: "comment", Repo: c.repo, PR: p.Number, SHA: p.head, Title: in.Body, ID: said.id})
	return answer{status: 201, body: f.commentView(p, said)}
}

func (f *Forge) listIssueLabels(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	return c.page(views(p.labels, func(l *label) object { return f.labelView(c.repo, l) }), "")
}

// postIssueLabels takes {"labels": […]} and the bare list, of names or of objects with a name, as GitHub does.
func (f *Forge) postIssueLabels(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	var in any
	if no := c.body(&in); no != nil {
		return *no
	}
	if o, is := in.(object); is {
		in = o["labels"]
	}
	list, is := in.([]any)
	if !is {
		return *fail(422, "Invalid request.\n\nNo subschema in \"oneOf\" matched.")
	}
	var names []string
	for _, x := range list {
		if o, is := x.(object); is {
			x = o["name"]
		}
		name := text(x)
		if name == "" || len([]rune(name)) > 50 {
			return *invalid(custom("Label", "name", "name is missing or too long (maximum is 50 characters)"))
		}
		names = append(names, name)
	}
	for _, name := range names {
		if p.addLabel(c.actor(), name) {
			f.write(c, Write{Kind: "label", Repo: c.repo, PR: p.Number, SHA: p.head, Name: name})
		}
	}
	return ok(views(p.labels, func(l *label) object { return f.labelView(c.repo, l) }))
}

func (f *Forge) deleteIssueLabel(c *call) answer {
	p := c.pull()
	if p == nil {
		return *notFound()
	}
	if !p.dropLabel(c.actor(), c.path("name")) {
		return *fail(404, "Label does not exist")
	}
	f.write(c, Write{Kind: "unlabel", Repo: c.repo, PR: p.Number, SHA: p.head, Name: c.path("name")})
	return ok(views(p.labels, func(l *label) object { return f.labelView(c.repo, l) }))
}

func (f *Forge) listLabels(c *call) answer {
	return c.page(views(c.repo.labels, func(l *label) object { return f.labelView(c.repo, l) }), "")
}

func (f *Forge) getLabel(c *call) answer {
	if l := c.repo.label(c.path("name")); l != nil {
		return ok(f.labelView(c.repo, l))
	}
	return *notFound()
}

func (f *Forge) postLabel(c *call) answer {
	var in struct{ Name, Color, Description string }
	if no := c.body(&in); no != nil {
		return *no
	}
	switch {
	case in.Name == "":
		return *invalid(problem("Label", "name", "missing_field"))
	case c.repo.label(in.Name) != nil:
		return *invalid(problem("Label", "name", "already_exists"))
	case in.Color == "":
		in.Color = "ededed"
	}
	return answer{status: 201, body: f.labelView(c.repo, c.repo.addLabel(in.Name, in.Color, in.Description))}
}
