package sandbox

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WorkflowOptions is what the sandbox knows of a workflow file.
type WorkflowOptions struct {
	File    string   // path, .github/workflows/presubmit.yml
	Name    string   // "" = the file
	On      []string // workflow_dispatch, repository_dispatch, pull_request
	Types   []string // of repository_dispatch; nil = all
	Inputs  []Input  // of workflow_dispatch
	RunName string   // run-name; understands ${{ inputs.X }} and ${{ github.event.client_payload.X }}
}

// Input is a declared input of workflow_dispatch.
type Input struct {
	Name     string
	Required bool
	Default  string
}

type workflow struct {
	WorkflowOptions
	id      int64
	runs    int
	created time.Time
}

func (w *workflow) title() string {
	if w.Name != "" {
		return w.Name
	}
	return w.File
}

// Run is a workflow run.
type Run struct {
	ID    int64
	Event string // workflow_dispatch, repository_dispatch, pull_request
	// Inputs are a workflow_dispatch's inputs, or a repository_dispatch's client_payload.
	Inputs map[string]any

	f          *Forge
	repo       *Repo
	flow       *workflow
	number     int
	attempt    int
	actor      *User
	pr         *PR // of pull_request
	branch     string
	sha        string
	title      string
	status     string
	conclusion string
	held       bool // waits for a maintainer's approval
	created    time.Time
	started    time.Time
	updated    time.Time
}

// State is the conclusion, or the status (queued, in_progress) while there is none.
func (x *Run) State() string {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	if x.conclusion != "" {
		return x.conclusion
	}
	return x.status
}

// SHA is the commit it runs at: of a dispatch, the tip of the ref it was dispatched on.
func (x *Run) SHA() string { return x.sha }

// Start lets a queued run begin. A run in another state is left alone.
func (x *Run) Start() {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	if x.status != "queued" {
		return
	}
	x.status, x.updated = "in_progress", x.f.now()
	x.f.deliverRun(x, x.actor, "in_progress")
}

// Complete ends a run that is queued or in progress: success, failure, cancelled, skipped, neutral, timed_out, …
func (x *Run) Complete(conclusion string) {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	x.complete(x.actor, conclusion)
}

func (x *Run) complete(u *User, conclusion string) bool {
	if x.status == "completed" {
		return false
	}
	x.status, x.conclusion, x.updated = "completed", conclusion, x.f.now()
	x.f.deliverRun(x, u, "completed")
	return true
}

// Rerun presses Re-run all jobs: the same run, one attempt later. A run that has not completed is left alone.
func (x *Run) Rerun(u *User) {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	x.rerun(u)
}

func (x *Run) rerun(u *User) bool {
	if x.status != "completed" {
		return false
	}
	x.attempt++
	x.queue(u)
	return true
}

func (x *Run) queue(u *User) {
	x.status, x.conclusion, x.held = "queued", "", false
	x.actor, x.started, x.updated = u, x.f.now(), x.f.now()
	x.f.deliverRun(x, u, "requested")
}

var expression = regexp.MustCompile(`\$\{\{\s*(?:inputs|github\.event\.inputs|github\.event\.client_payload)\.(\w+)\s*\}\}`)

// start begins a run of w.
func (f *Forge) start(r *Repo, w *workflow, u *User, x Run) *Run {
	w.runs++
	x.ID, x.f, x.repo, x.flow, x.number, x.attempt, x.actor = f.id(), f, r, w, w.runs, 1, u
	x.created, x.started, x.updated, x.status = f.now(), f.now(), f.now(), "queued"
	if w.RunName != "" {
		x.title = expression.ReplaceAllStringFunc(w.RunName, func(e string) string {
			if v, there := x.Inputs[expression.FindStringSubmatch(e)[1]]; there {
				return fmt.Sprint(v)
			}
			return ""
		})
	}
	run := &x
	if x.held {
		run.status, run.conclusion = "completed", "action_required"
	}
	f.runs = append(f.runs, run)
	f.deliverRun(run, u, "requested")
	if x.held {
		f.deliverRun(run, u, "completed")
	}
	return run
}

// startNative starts what runs on pull_request by itself. From a fork and by someone without write permission a run
// is held until a maintainer approves it ("Require approval for all external contributors").
func (f *Forge) startNative(p *PR, u *User) {
	r := p.repo
	for _, w := range r.workflows {
		if slices.Contains(w.On, "pull_request") {
			held := p.headRepo != r && (rank(r.role(u)) < rank("write") || rank(r.role(p.author)) < rank("write"))
			f.start(r, w, u, Run{Event: "pull_request", pr: p, branch: p.branch, sha: p.head, title: p.title, held: held})
		}
	}
}

func (f *Forge) getForkApproval(*call) answer {
	return ok(object{"approval_policy": "all_external_contributors"})
}

func (f *Forge) postDispatch(c *call) answer {
	var in struct {
		EventType string         `json:"event_type"`
		Payload   map[string]any `json:"client_payload"`
	}
	if no := c.body(&in); no != nil {
		return *no
	}
	switch {
	case in.EventType == "":
		return *fail(422, "Invalid request.\n\n\"event_type\" wasn't supplied.")
	case len(in.EventType) > 100:
		return *fail(422, "Invalid request.\n\nOnly 100 characters are allowed; "+strconv.Itoa(len(in.EventType))+" were supplied.")
	case len(in.Payload) > 10:
		return *fail(422, "Invalid request.\n\nNo more than 10 properties are allowed; "+strconv.Itoa(len(in.Payload))+" were supplied.")
	}
	r := c.repo
	for _, w := range r.workflows {
		if slices.Contains(w.On, "repository_dispatch") && (w.Types == nil || slices.Contains(w.Types, in.EventType)) {
			x := f.start(r, w, c.actor(), Run{
				Event: "repository_dispatch", Inputs: in.Payload, branch: r.main, sha: r.branches[r.main], title: in.EventType,
			})
			f.wroteDispatch(c, x, text(in.Payload["key"]))
		}
	}
	return answer{status: 204}
}

// wroteDispatch records what a run was started for: the names are those of Signalbox's recipes.
func (f *Forge) wroteDispatch(c *call, x *Run, key string) {
	f.write(c, Write{
		Kind: "dispatch", Repo: c.repo, PR: number(x.Inputs["pr"]), SHA: text(x.Inputs["sha"]), Name: x.flow.File, Key: key, ID: x.ID,
	})
}

// workflow finds the workflow that the path names by file name or id.
func (c *call) workflow() *workflow {
	for _, w := range c.repo.workflows {
		if path.Base(w.File) == c.path("file") || strconv.FormatInt(w.id, 10) == c.path("file") {
			return w
		}
	}
	return nil
}

func (f *Forge) postWorkflowDispatch(c *call) answer {
	w := c.workflow()
	if w == nil {
		return *notFound()
	}
	var in struct {
		Ref     string
		Inputs  map[string]any
		Details bool `json:"return_run_details"`
	}
	if no := c.body(&in); no != nil {
		return *no
	}
	if in.Ref == "" {
		return *fail(422, "Invalid request.\n\n\"ref\" wasn't supplied.")
	}
	branch := strings.TrimPrefix(in.Ref, "refs/heads/")
	sha := c.repo.branches[branch]
	if sha == "" {
		return *fail(422, "No ref found for: "+in.Ref)
	}
	if !slices.Contains(w.On, "workflow_dispatch") {
		return *fail(422, "Workflow does not have 'workflow_dispatch' trigger")
	}
	inputs := maps.Clone(in.Inputs)
	if inputs == nil {
		inputs = map[string]any{}
	}
	var strange []string
	for _, name := range slices.Sorted(maps.Keys(inputs)) {
		if !slices.ContainsFunc(w.Inputs, func(i Input) bool { return i.Name == name }) {
			strange = append(strange, strconv.Quote(name))
		}
	}
	if strange != nil {
		return *fail(422, "Unexpected inputs provided: ["+strings.Join(strange, ", ")+"]")
	}
	for _, i := range w.Inputs {
		switch v, given := inputs[i.Name]; {
		case (!given || v == "") && i.Required && i.Default == "":
			return *fail(422, "Required input '"+i.Name+"' not provided")
		case !given && i.Default != "":
			inputs[i.Name] = i.Default
		}
	}
	x := f.start(c.repo, w, c.actor(), Run{Event: "workflow_dispatch", Inputs: inputs, branch: branch, sha: sha, title: w.title()})
	f.wroteDispatch(c, x, text(inputs["signalbox"]))
	if !in.Details {
		return answer{status: 204}
	}
	return ok(object{
		"workflow_run_id": x.ID, "run_url": f.apiURL(c.repo, "/actions/runs/", x.ID),
		"html_url": f.htmlURL(c.repo, "/actions/runs/", x.ID),
	})
}

func (f *Forge) listWorkflows(c *call) answer {
	return c.page(views(c.repo.workflows, func(w *workflow) object { return f.workflowView(c.repo, w) }), "workflows")
}

func (f *Forge) getWorkflow(c *call) answer {
	if w := c.workflow(); w != nil {
		return ok(f.workflowView(c.repo, w))
	}
	return *notFound()
}

// listRuns answers newest first, of one workflow where the path names it.
func (f *Forge) listRuns(c *call) answer {
	var only *workflow
	if c.path("file") != "" {
		if only = c.workflow(); only == nil {
			return *notFound()
		}
	}
	q := c.req.URL.Query()
	within, err := between(q.Get("created"))
	if err != nil {
		return *invalid(problem("WorkflowRun", "created", "invalid"))
	}
	is := func(name, value string) bool { return q.Get(name) == "" || q.Get(name) == value }
	var found []*Run
	for _, x := range slices.Backward(f.runs) {
		if x.repo == c.repo && (only == nil || x.flow == only) && within(x.created) && is("head_sha", x.sha) && is("event", x.Event) &&
			is("branch", x.branch) && is("actor", x.actor.login) && (is("status", x.status) || is("status", x.conclusion)) {
			found = append(found, x)
		}
	}
	return c.page(views(found, f.runView), "workflow_runs")
}

// between reads GitHub's search syntax for times: T, >T, >=T, <T, <=T, A..B, with * for an open end.
func between(s string) (func(time.Time) bool, error) {
	parse := func(s string) (from, to time.Time, err error) {
		if day, err := time.Parse(time.DateOnly, s); err == nil {
			return day, day.Add(24*time.Hour - time.Second), nil
		}
		t, err := time.Parse(time.RFC3339, s)
		return t, t, err
	}
	var lower, upper func(time.Time) bool
	always := func(time.Time) bool { return true }
	from, to, ranged := strings.Cut(s, "..")
	switch {
	case s == "":
		return always, nil
	case ranged:
	case strings.HasPrefix(s, ">="), strings.HasPrefix(s, "<="), strings.HasPrefix(s, ">"), strings.HasPrefix(s, "<"):
		sign := strings.TrimRight(s[:2], "0123456789")
		a, b, err := parse(s[len(sign):])
		return func(t time.Time) bool {
			switch sign {
			case ">=":
				return !t.Before(a)
			case "<=":
				return !t.After(b)
			case ">":
				return t.After(b)
			}
			return t.Before(a)
		}, err
	default:
		from, to = s, s
	}
	lower, upper = always, always
	if from != "*" {
		a, _, err := parse(from)
		if err != nil {
			return nil, err
		}
		lower = func(t time.Time) bool { return !t.Before(a) }
	}
	if to != "*" {
		_, b, err := parse(to)
		if err != nil {
			return nil, err
		}
		upper = func(t time.Time) bool { return !t.After(b) }
	}
	return func(t time.Time) bool { return lower(t) && upper(t) }, nil
}

func (c *call) run() *Run {
	for _, x := range c.f.runs {
		if x.ID == c.id("id") && x.repo == c.repo {
			return x
		}
	}
	return nil
}

func (f *Forge) getRun(c *call) answer {
	if x := c.run(); x != nil {
		return ok(f.runView(x))
	}
	return *notFound()
}

func (f *Forge) cancelRun(c *call) answer {
	x := c.run()
	if x == nil {
		return *notFound()
	}
	if !x.complete(c.actor(), "cancelled") {
		return *fail(409, "Cannot cancel a workflow run that is completed.")
	}
	f.wroteRun(c, x, "cancel")
	return answer{status: 202, body: object{}}
}

func (f *Forge) approveRun(c *call) answer {
	x := c.run()
	switch {
	case x == nil:
		return *notFound()
	case x.pr == nil || x.pr.headRepo == x.repo:
		return *fail(403, "This run is not from a fork pull request")
	case !x.held:
		return *fail(403, "This run is not waiting for approval")
	}
	x.queue(x.actor)
	f.wroteRun(c, x, "approve")
	return answer{status: 201, body: object{}}
}

func (f *Forge) rerunRun(c *call) answer {
	x := c.run()
	if x == nil {
		return *notFound()
	}
	if !x.rerun(c.actor()) {
		return *fail(403, "This workflow is already running")
	}
	f.wroteRun(c, x, "rerun")
	return answer{status: 201, body: object{}}
}

func (f *Forge) wroteRun(c *call, x *Run, kind string) {
	w := Write{Kind: kind, Repo: x.repo, PR: number(x.Inputs["pr"]), SHA: text(x.Inputs["sha"]), Name: x.flow.File, ID: x.ID}
	if x.pr != nil {
		w.PR, w.SHA = x.pr.Number, x.sha
	}
	f.write(c, w)
}
