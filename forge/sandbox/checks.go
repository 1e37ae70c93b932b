package sandbox

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// CheckRun is a check run. Its fields change; State reads what it shows now.
type CheckRun struct {
	ID int64

	f          *Forge
	repo       *Repo
	app        *App
	sha        string
	name       string
	externalID string
	details    string
	status     string
	conclusion string
	started    time.Time
	completed  time.Time
	title      *string
	summary    *string
	text       *string
	actions    []checkAction
}

type checkAction struct {
	Label       string `json:"label"`
	Description string `json:"description"`
	Identifier  string `json:"identifier"`
}

type status struct {
	id      int64
	sha     string
	context string
	state   string
	about   *string
	target  *string
	creator *User
	at      time.Time
}

type suiteKey struct {
	sha string
	app *App
}

// State is the conclusion, or the status while there is none.
func (x *CheckRun) State() string {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	return x.state()
}

func (x *CheckRun) state() string {
	if x.conclusion != "" {
		return x.conclusion
	}
	return x.status
}

// Check is the newest check run of this name on a commit, nil if there is none.
func (r *Repo) Check(sha, name string) *CheckRun {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	for _, x := range slices.Backward(r.checks) {
		if x.sha == sha && x.name == name {
			return x
		}
	}
	return nil
}

// DetailsURL is where the check's "Details" lead; empty = to the check's own page.
func (x *CheckRun) DetailsURL() string {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	return x.details
}

// ClickAction presses one of the check run's buttons. A button that is not there cannot be pressed: it answers false.
func (x *CheckRun) ClickAction(u *User, identifier string) bool {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	if x.status != "completed" || !slices.ContainsFunc(x.actions, func(a checkAction) bool { return a.Identifier == identifier }) {
		return false
	}
	x.f.deliverCheck(x, u, "requested_action", object{"requested_action": object{"identifier": identifier}})
	return true
}

// RequestRerun presses Re-run. GitHub asks the App; the check run itself stays as it is.
func (x *CheckRun) RequestRerun(u *User) {
	x.f.mu.Lock()
	defer x.f.mu.Unlock()
	x.f.deliverCheck(x, u, "rerequested", nil)
}

// checkInput is the body of a check run's creation and update; nil fields were not sent.
type checkInput struct {
	Name       *string    `json:"name"`
	HeadSHA    *string    `json:"head_sha"`
	DetailsURL *string    `json:"details_url"`
	ExternalID *string    `json:"external_id"`
	Status     *string    `json:"status"`
	Conclusion *string    `json:"conclusion"`
	Started    *time.Time `json:"started_at"`
	Completed  *time.Time `json:"completed_at"`
	Output     *struct {
		Title   *string `json:"title"`
		Summary *string `json:"summary"`
		Text    *string `json:"text"`
	} `json:"output"`
	Actions *[]checkAction `json:"actions"`
}

func (in *checkInput) refusal() *answer {
	if in.Status != nil && !slices.Contains([]string{"queued", "in_progress", "completed", "waiting", "requested", "pending"}, *in.Status) {
		return fail(422, fmt.Sprintf("Invalid request.\n\n%s is not a member of [\"queued\", \"in_progress\", \"completed\"].", *in.Status))
	}
	if in.Conclusion != nil && !slices.Contains([]string{
		"action_required", "cancelled", "failure", "neutral", "success", "skipped",
		"timed_out",
	}, *in.Conclusion) {
		return fail(422, fmt.Sprintf("Invalid request.\n\n%s is not a possible conclusion.", *in.Conclusion))
	}
	if in.Status != nil && *in.Status == "completed" && in.Conclusion == nil {
		return fail(422, "Invalid request.\n\n\"conclusion\" wasn't supplied.")
	}
	if in.Output != nil {
		if in.Output.Title == nil || in.Output.Summary == nil {
			return fail(422, "Invalid request.\n\n\"title\", \"summary\" weren't supplied.")
		}
		for field, v := range map[string]*string{"summary": in.Output.Summary, "text": in.Output.Text} {
			if v != nil && utf8.RuneCountInString(*v) > 65535 {
				return invalid(custom("CheckRun", field, "Only 65535 characters are allowed"))
			}
		}
	}
	if in.Actions != nil {
		if len(*in.Actions) > 3 {
			return fail(422, "Invalid request.\n\nNo more than 3 items are allowed; "+fmt.Sprint(len(*in.Actions))+" were supplied.")
		}
		for _, a := range *in.Actions {
			if a.Label == "" || a.Identifier == "" || a.Description == "" ||
				utf8.RuneCountInString(a.Label) > 20 || utf8.RuneCountInString(a.Identifier) > 20 || utf8.RuneCountInString(a.Description) > 40 {
				return fail(422, "Invalid request.\n\nAn action takes a label of at most 20, a description of at most 40 and an identifier of at most 20 characters.")
			}
		}
	}
	return nil
}

// apply writes what was sent. A completed run stays completed: only its conclusion and texts can change.
func (in *checkInput) apply(x *CheckRun, now time.Time) {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	set(&x.name, in.Name)
	set(&x.details, in.DetailsURL)
	set(&x.externalID, in.ExternalID)
	set(&x.conclusion, in.Conclusion)
	if x.status != "completed" {
		set(&x.status, in.Status)
	}
	if x.conclusion != "" {
		x.status = "completed"
	}
	if in.Started != nil {
		x.started = in.Started.UTC().Truncate(time.Second)
	}
	if x.status == "completed" {
		if x.completed.IsZero() {
			x.completed = now
		}
		if in.Completed != nil {
			x.completed = in.Completed.UTC().Truncate(time.Second)
		}
	}
	if in.Output != nil {
		x.title, x.summary, x.text = in.Output.Title, in.Output.Summary, in.Output.Text
	}
	if in.Actions != nil {
		x.actions = *in.Actions
	}
}

func (f *Forge) postCheck(c *call) answer {
	if c.cred.install == nil {
		return *fail(403, "You must authenticate via a GitHub App.")
	}
	var in checkInput
	if no := c.body(&in); no != nil {
		return *no
	}
	if in.Name == nil || *in.Name == "" || in.HeadSHA == nil || *in.HeadSHA == "" {
		return *fail(422, "Invalid request.\n\n\"name\", \"head_sha\" weren't supplied.")
	}
	if no := in.refusal(); no != nil {
		return *no
	}
	if len(*in.HeadSHA) != 40 || c.repo.lookup(*in.HeadSHA) == nil {
		return *fail(422, "No commit found for SHA: "+*in.HeadSHA)
	}
	x := &CheckRun{
		ID: f.id(), f: f, repo: c.repo, app: c.cred.install.app, sha: strings.ToLower(*in.HeadSHA), status: "queued", started: f.now(),
	}
	in.apply(x, f.now())
	if x.details == "" {
		x.details = f.url + "/" + x.app.slug
	}
	c.repo.checks = append(c.repo.checks, x)
	f.wroteCheck(c, x)
	f.deliverCheck(x, c.actor(), "created", nil)
	if x.status == "completed" {
		f.deliverCheck(x, c.actor(), "completed", nil)
	}
	return answer{status: 201, body: f.checkView(x)}
}

func (f *Forge) patchCheck(c *call) answer {
	if c.cred.install == nil {
		return *fail(403, "You must authenticate via a GitHub App.")
	}
	x := c.check()
	if x == nil {
		return *notFound()
	}
	if x.app != c.cred.install.app {
		return *fail(403, "Invalid app_id `"+fmt.Sprint(c.cred.install.app.ID)+"` - check run can only be modified by the GitHub App that created it.")
	}
	var in checkInput
	if no := c.body(&in); no != nil {
		return *no
	}
	if no := in.refusal(); no != nil {
		return *no
	}
	was := x.state()
	in.apply(x, f.now())
	f.wroteCheck(c, x)
	if x.status == "completed" && x.state() != was {
		f.deliverCheck(x, c.actor(), "completed", nil)
	}
	return ok(f.checkView(x))
}

func (f *Forge) wroteCheck(c *call, x *CheckRun) {
	w := Write{Kind: "check", Repo: x.repo, SHA: x.sha, Name: x.name, State: x.state(), ExternalID: x.externalID, ID: x.ID}
	if x.title != nil {
		w.Title = *x.title
	}
	f.write(c, w)
}

func (c *call) check() *CheckRun {
	for _, x := range c.repo.checks {
		if x.ID == c.id("id") {
			return x
		}
	}
	return nil
}

func (f *Forge) getCheck(c *call) answer {
	if x := c.check(); x != nil {
		return ok(f.checkView(x))
	}
	return *notFound()
}

// commitOf answers the commit the path names, or GitHub's 422.
func (c *call) commitOf() (*commit, *answer) {
	if x := c.repo.lookup(c.path("ref")); x != nil {
		return x, nil
	}
	return nil, fail(422, "No commit found for SHA: "+c.path("ref"))
}

// listChecks answers newest first. filter=latest, the default, shows the newest of each name and App.
func (f *Forge) listChecks(c *call) answer {
	at, no := c.commitOf()
	if no != nil {
		return *no
	}
	q := c.req.URL.Query()
	type kind struct {
		app  *App
		name string
	}
	seen := map[kind]bool{}
	var found []*CheckRun
	for _, x := range slices.Backward(c.repo.checks) {
		switch {
		case x.sha != at.sha:
		case q.Get("check_name") != "" && q.Get("check_name") != x.name:
		case q.Get("app_id") != "" && q.Get("app_id") != fmt.Sprint(x.app.ID):
		case q.Get("filter") != "all" && seen[kind{x.app, x.name}]:
		default:
			seen[kind{x.app, x.name}] = true
			if q.Get("status") == "" || q.Get("status") == x.status {
				found = append(found, x)
			}
		}
	}
	return c.page(views(found, f.checkView), "check_runs")
}

// maxStatuses is how many statuses GitHub takes per commit and context.
const maxStatuses = 1000

func (f *Forge) postStatus(c *call) answer {
	var in struct {
		State, Context string
		Description    *string
		TargetURL      *string `json:"target_url"`
	}
	if no := c.body(&in); no != nil {
		return *no
	}
	sha := strings.ToLower(c.path("sha"))
	if in.Context == "" {
		in.Context = "default"
	}
	count := 0
	for _, s := range c.repo.statuses {
		if s.sha == sha && s.context == in.Context {
			count++
		}
	}
	switch {
	case !slices.Contains([]string{"error", "failure", "pending", "success"}, in.State):
		return *invalid(custom("Status", "state", "state is not included in the list"))
	case len(sha) != 40 || c.repo.lookup(sha) == nil:
		return *fail(422, "No commit found for SHA: "+c.path("sha"))
	case in.Description != nil && utf8.RuneCountInString(*in.Description) > 140:
		return *invalid(custom("Status", "description", "description is too long (maximum is 140 characters)"))
	case utf8.RuneCountInString(in.Context) > 255:
		return *invalid(custom("Status", "context", "context is too long (maximum is 255 characters)"))
	case in.TargetURL != nil && *in.TargetURL != "" && !strings.HasPrefix(*in.TargetURL, "http://") && !strings.HasPrefix(*in.TargetURL, "https://"):
		return *invalid(custom("Status", "target_url", "target_url must use http(s) scheme"))
	case count >= maxStatuses:
		return *invalid(custom("Status", "base", "This SHA and context has reached the maximum number of statuses."))
	}
	s := &status{
		id: f.id(), sha: sha, context: in.Context, state: in.State, about: in.Description, target: in.TargetURL, creator: c.actor(), at: f.now(),
	}
	c.repo.statuses = append(c.repo.statuses, s)
	w := Write{Kind: "status", Repo: c.repo, SHA: sha, Name: s.context, State: s.state, ID: s.id}
	if s.about != nil {
		w.Title = *s.about
	}
	f.write(c, w)
	f.deliverStatus(c.repo, s)
	v := f.statusView(c.repo, s)
	v["creator"] = f.userView(s.creator)
	return answer{status: 201, body: v}
}

func (r *Repo) statusesOf(sha string) []*status {
	var found []*status
	for _, s := range slices.Backward(r.statuses) {
		if s.sha == sha {
			found = append(found, s)
		}
	}
	return found
}

func (f *Forge) listStatuses(c *call) answer {
	at, no := c.commitOf()
	if no != nil {
		return *no
	}
	return c.page(views(c.repo.statusesOf(at.sha), func(s *status) object {
		v := f.statusView(c.repo, s)
		v["creator"] = f.userView(s.creator)
		return v
	}), "")
}

func (f *Forge) getCombined(c *call) answer {
	at, no := c.commitOf()
	if no != nil {
		return *notFound()
	}
	seen := map[string]bool{}
	var newest []*status
	state := "success"
	for _, s := range c.repo.statusesOf(at.sha) {
		if seen[s.context] {
			continue
		}
		seen[s.context] = true
		newest = append(newest, s)
		switch {
		case s.state == "failure" || s.state == "error":
			state = "failure"
		case s.state == "pending" && state == "success":
			state = "pending"
		}
	}
	if newest == nil {
		state = "pending"
	}
	a := c.page(views(newest, func(s *status) object { return f.statusView(c.repo, s) }), "statuses")
	v := a.body.(object)
	v["state"], v["sha"], v["repository"] = state, at.sha, f.repoView(c.repo)
	v["commit_url"] = f.apiURL(c.repo, "/commits/"+at.sha)
	v["url"] = f.apiURL(c.repo, "/commits/"+at.sha+"/status")
	return a
}
