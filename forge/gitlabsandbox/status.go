package gitlabsandbox

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// commit is what a branch of a project has.
type commit struct {
	branch string
	at     time.Time // of its push
}

// Push puts a new commit on a branch of the project and answers it; no merge request need have it.
func (p *Project) Push(branch string) string {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	sha := p.f.sha()
	p.commits[sha] = commit{branch, p.f.clock()}
	return sha
}

// LagReplicas makes every commit that was or will be pushed be unknown to the API until d after its push.
func (f *Forge) LagReplicas(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lag = d
}

// seen is the commit as a replica shows it.
func (p *Project) seen(sha string) (commit, bool) {
	c, ok := p.commits[sha]
	return c, ok && !p.f.clock().Before(c.at.Add(p.f.lag))
}

// locks are the exclusive locks of commits, one for a project and SHA, whatever the name of the status.
type locks struct {
	hold  time.Duration
	until map[string]time.Time // by project and SHA
	next  map[string]int       // by SHA: how many more posts meet it
}

func newLocks() locks { return locks{until: map[string]time.Time{}, next: map[string]int{}} }

// HoldLocks makes every post that is taken hold the lock of its commit for d after it. Whoever posts meanwhile is
// answered 409, at once: a real GitLab lets them wait up to 10 s before.
func (f *Forge) HoldLocks(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locks.hold = d
}

// LockCommit makes the next n posts of a status to the commit meet its lock.
func (f *Forge) LockCommit(sha string, n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.locks.next[sha] = n
}

func (l locks) held(key, sha string, now time.Time) bool {
	if l.next[sha] > 0 {
		l.next[sha]--
		return true
	}
	return now.Before(l.until[key])
}

// LimitPipelines is how many jobs a pipeline of the project takes; 1000 unless said otherwise.
func (p *Project) LimitPipelines(jobs int) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.size = jobs
}

// Protect leaves a branch to Maintainers.
func (p *Project) Protect(branch string) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.protected = append(p.protected, branch)
}

// ArchivePipelines makes every pipeline so old that it takes no statuses any more.
func (p *Project) ArchivePipelines() {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	for _, old := range p.pipelines {
		old.archived = true
	}
}

// Status is a commit status: a job of the stage "external", as it is or as it was when a post was taken.
type Status struct {
	Job, Pipeline                                     int64
	SHA, Ref, Name, State, Description, TargetURL, By string
	Coverage                                          float64

	by      *User
	at      time.Time
	retried bool // hidden by a newer job of the name
}

// Posts are the statuses of a commit that were taken, in the order in which they were.
func (p *Project) Posts(sha string) []Status {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	var out []Status
	for _, s := range p.posts {
		if s.SHA == sha {
			out = append(out, s)
		}
	}
	return out
}

// Statuses are the states that a commit's status went through, oldest first, as "name state".
func (p *Project) Statuses(sha string) []string {
	var out []string
	for _, s := range p.Posts(sha) {
		out = append(out, s.Name+" "+s.State)
	}
	return out
}

// Shown are the statuses of a commit that count: the newest job of each name in each pipeline.
func (p *Project) Shown(sha string) []Status {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	var out []Status
	for _, s := range p.jobs {
		if s.SHA == sha && !s.retried {
			out = append(out, *s)
		}
	}
	return out
}

func (s *Status) shown() map[string]any {
	return map[string]any{
		"id": s.Job, "sha": s.SHA, "ref": s.Ref, "name": s.Name, "status": s.State, "description": nullable(s.Description), "target_url": nullable(s.TargetURL),
		"coverage": s.Coverage, "pipeline_id": s.Pipeline, "author": s.by.shown(), "created_at": shown(s.at),
	}
}

func nullable(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func (f *Forge) listStatuses(c call) (int, any) {
	sha, q := c.PathValue("sha"), c.URL.Query()
	if _, ok := c.p.seen(sha); !ok {
		return 404, refusal("404 Commit Not Found")
	}
	is := func(key, value string) bool { return q.Get(key) == "" || q.Get(key) == value }
	out := []map[string]any{}
	for _, s := range c.p.jobs {
		if s.SHA == sha && is("name", s.Name) && is("ref", s.Ref) && is("pipeline_id", strconv.FormatInt(s.Pipeline, 10)) &&
			(!s.retried || q.Get("all") == "true") {
			out = append(out, s.shown())
		}
	}
	return page(c, out)
}

// event is the transition that leads to a state, and the states it starts from; a new job is "created".
func event(state string) (name string, from []string) {
	switch state {
	case "pending":
		return "enqueue", []string{"created"}
	case "running":
		return "run", []string{"created", "pending"}
	case "success", "canceled":
		return map[string]string{"success": "success", "canceled": "cancel"}[state], []string{"created", "pending", "running"}
	case "failed":
		return "drop", []string{"created", "pending", "running"}
	case "skipped":
		return "skip", []string{"created", "pending"}
	}
	return "", nil
}

// postStatus keeps GitLab's rules (app/services/ci/create_commit_status_service.rb): one post at a time for a commit; the
// commit must be on a branch of this project; it goes into the newest pipeline of the commit, of any source, or into a
// new one; it moves a running or pending job of the same pipeline, ref, name and account, or makes a new one, which hides
// the older of that name.
func (f *Forge) postStatus(c call) (int, any) {
	sha, now, state, ref := c.PathValue("sha"), f.clock(), c.text("state"), c.text("ref")
	name := cmp.Or(c.text("name"), c.text("context"), "default")
	event, from := event(state)
	if event == "" {
		return 400, map[string]any{"error": "state does not have a valid value"}
	}
	lock := fmt.Sprint(c.p.ID, " ", sha)
	if f.locks.held(lock, sha, now) {
		return 409, refusal("409 Conflict: Resource lock")
	}
	at, ok := c.p.seen(sha)
	if !ok {
		return 404, refusal("404 Commit Not Found")
	}
	in, answer := c.external(sha, ref, name)
	if answer != nil {
		return answer.status, refusal(answer.text)
	}
	on := cmp.Or(ref, at.branch)
	if in != nil {
		on = in.ref
	}
	if slices.Contains(c.p.protected, on) && c.p.members[c.me.ID] < Maintainer { // app/policies/ci/pipeline_policy.rb
		return 403, refusal("403 Forbidden")
	}
	for field, text := range map[string]string{"ref": ref, "name": name, "target_url": c.text("target_url"), "description": c.text("description")} {
		if utf8.RuneCountInString(text) > 255 {
			return 400, map[string]any{"message": map[string]any{field: []string{"is too long (maximum is 255 characters)"}}}
		}
	}
	if url := c.text("target_url"); url != "" && !strings.HasPrefix(url, "https://") && !strings.HasPrefix(url, "http://") {
		return 400, map[string]any{"message": map[string]any{"target_url": []string{"is blocked: Only allowed schemes are http, https"}}}
	}
	var job *Status
	if in != nil {
		if job = c.moved(in, name); job != nil && !slices.Contains(from, job.State) {
			return 400, refusal(fmt.Sprintf("Cannot transition status via :%s from :%s (Reason(s): Status cannot transition via %q)", event, job.State, event))
		}
	} else {
		in = c.p.pipeline(nil, sha, on, "external", "pending", c.me)
	}
	if job == nil {
		for _, old := range c.p.jobs {
			old.retried = old.retried || old.Pipeline == in.ID && old.Name == name
		}
		job = &Status{Job: f.id(), Pipeline: in.ID, SHA: sha, Ref: in.ref, Name: name, By: c.me.Login, by: c.me, at: now}
		c.p.jobs = append(c.p.jobs, job)
	}
	job.State = state
	for field, to := range map[string]*string{"description": &job.Description, "target_url": &job.TargetURL} {
		if _, given := c.body[field]; given {
			*to = c.text(field)
		}
	}
	if x, given := c.body["coverage"].(float64); given {
		job.Coverage = x
	}
	c.p.posts = append(c.p.posts, *job)
	f.locks.until[lock] = now.Add(f.locks.hold)
	return 201, job.shown()
}

type refused struct {
	status int
	text   string
}

// external is the pipeline that a status goes into; nil = a new one.
func (c call) external(sha, ref, name string) (*Pipeline, *refused) {
	id, named := c.body["pipeline_id"].(float64)
	for _, p := range slices.Backward(c.p.pipelines) {
		if p.archived || p.sha != sha || ref != "" && p.ref != ref || named && p.ID != int64(id) {
			continue
		}
		jobs := 0
		for _, s := range c.p.jobs {
			if s.Pipeline == p.ID {
				jobs++
			}
		}
		switch full := jobs >= c.p.size && c.moved(p, name) == nil; {
		case full && named:
			return nil, &refused{422, "The number of jobs has exceeded the limit"}
		case full:
			return nil, nil
		}
		return p, nil
	}
	if named {
		return nil, &refused{404, "404 Pipeline for pipeline_id, sha and ref Not Found"}
	}
	return nil, nil
}

// moved is the job that a post of the caller's moves; nil = it makes one.
func (c call) moved(in *Pipeline, name string) *Status {
	for _, s := range c.p.jobs {
		if s.Pipeline == in.ID && s.Name == name && s.by == c.me && (s.State == "pending" || s.State == "running") {
			return s
		}
	}
	return nil
}
