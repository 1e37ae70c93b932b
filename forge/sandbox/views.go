package sandbox

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The views are GitHub's JSON shapes of things, in answers and in payloads alike. All are called under the mutex.

func (f *Forge) apiURL(r *Repo, path ...any) string {
	return f.url + "/repos/" + r.fullName() + fmt.Sprint(path...)
}

func (f *Forge) htmlURL(r *Repo, path ...any) string {
	return f.url + "/" + r.fullName() + fmt.Sprint(path...)
}

func (f *Forge) userView(u *User) object {
	api, html := f.url+"/users/"+u.login, f.url+"/"+u.login
	if u.app != nil {
		html = f.url + "/apps/" + u.app.slug
	}
	return object{
		"login": u.login, "id": u.ID, "node_id": node(u.kind, u.ID), "avatar_url": fmt.Sprintf("%s/avatars/u/%d?v=4", f.url, u.ID),
		"gravatar_id": "", "url": api, "html_url": html, "followers_url": api + "/followers",
		"following_url": api + "/following{/other_user}", "gists_url": api + "/gists{/gist_id}",
		"starred_url": api + "/starred{/owner}{/repo}", "subscriptions_url": api + "/subscriptions",
		"organizations_url": api + "/orgs", "repos_url": api + "/repos", "events_url": api + "/events{/privacy}",
		"received_events_url": api + "/received_events", "type": u.kind, "site_admin": false, "user_view_type": "public",
	}
}

// userOrNull is userView where nobody and deleted accounts are null.
func (f *Forge) userOrNull(u *User) any {
	if u == nil || u.gone {
		return nil
	}
	return f.userView(u)
}

// profileView is what /user and /users/LOGIN show beside the short form.
func (f *Forge) profileView(u *User) object {
	v := f.userView(u)
	maps.Copy(v, object{
		"name": u.login, "company": nil, "blog": "", "location": nil, "email": nil, "hireable": nil, "bio": nil, "twitter_username": nil,
		"public_repos": 0, "public_gists": 0, "followers": 0, "following": 0, "created_at": stamp(u.created), "updated_at": stamp(u.created),
	})
	return v
}

func (f *Forge) organizationView(u *User) object {
	api := f.url + "/orgs/" + u.login
	return object{
		"login": u.login, "id": u.ID, "node_id": node("Organization", u.ID), "url": api, "repos_url": api + "/repos", "events_url": api + "/events",
		"hooks_url": api + "/hooks", "issues_url": api + "/issues", "members_url": api + "/members{/member}",
		"public_members_url": api + "/public_members{/member}", "avatar_url": fmt.Sprintf("%s/avatars/u/%d?v=4", f.url, u.ID), "description": "",
	}
}

func (f *Forge) repoView(r *Repo) object {
	open := 0
	for _, p := range r.pulls {
		if p.open {
			open++
		}
	}
	forks := 0
	for _, x := range f.repos {
		if x.fork && x.root == r && !x.deleted {
			forks++
		}
	}
	visibility := "public"
	if r.private {
		visibility = "private"
	}
	html := f.htmlURL(r, "")
	host := strings.TrimPrefix(strings.TrimPrefix(f.url, "https://"), "http://")
	v := object{
		"id": r.ID, "node_id": node("Repository", r.ID), "name": r.name, "full_name": r.fullName(), "private": r.private,
		"owner": f.userView(r.owner), "html_url": html, "description": nil, "fork": r.fork, "url": f.apiURL(r, ""),
		"created_at": stamp(r.created), "updated_at": stamp(r.pushed), "pushed_at": stamp(r.pushed),
		"git_url": "git://" + host + "/" + r.fullName() + ".git", "ssh_url": "git@" + host + ":" + r.fullName() + ".git",
		"clone_url": html + ".git", "svn_url": html, "mirror_url": nil, "homepage": nil, "language": nil, "license": nil,
		"size": 0, "stargazers_count": 0, "watchers_count": 0, "watchers": 0, "forks_count": forks, "forks": forks,
		"open_issues_count": open, "open_issues": open, "has_issues": true, "has_projects": true, "has_downloads": true, "has_wiki": true,
		"has_pages": false, "has_discussions": false, "archived": false, "disabled": false, "allow_forking": true, "is_template": false,
		"web_commit_signoff_required": false, "topics": []string{}, "visibility": visibility, "default_branch": r.main, "custom_properties": object{},
	}
	for field, path := range map[string]string{
		"archive": "/{archive_format}{/ref}", "assignees": "/assignees{/user}", "blobs": "/git/blobs{/sha}", "branches": "/branches{/branch}",
		"collaborators": "/collaborators{/collaborator}", "comments": "/comments{/number}", "commits": "/commits{/sha}",
		"compare": "/compare/{base}...{head}", "contents": "/contents/{+path}", "contributors": "/contributors",
		"deployments": "/deployments", "downloads": "/downloads", "events": "/events", "forks": "/forks",
		"git_commits": "/git/commits{/sha}", "git_refs": "/git/refs{/sha}", "git_tags": "/git/tags{/sha}", "hooks": "/hooks",
		"issue_comment": "/issues/comments{/number}", "issue_events": "/issues/events{/number}", "issues": "/issues{/number}",
		"keys": "/keys{/key_id}", "labels": "/labels{/name}", "languages": "/languages", "merges": "/merges",
		"milestones": "/milestones{/number}", "notifications": "/notifications{?since,all,participating}", "pulls": "/pulls{/number}",
		"releases": "/releases{/id}", "stargazers": "/stargazers", "statuses": "/statuses/{sha}", "subscribers": "/subscribers",
		"subscription": "/subscription", "tags": "/tags", "teams": "/teams", "trees": "/git/trees{/sha}",
	} {
		v[field+"_url"] = f.apiURL(r, "") + path
	}
	return v
}

func (f *Forge) labelView(r *Repo, l *label) object {
	return object{
		"id": l.id, "node_id": node("Label", l.id), "url": f.apiURL(r, "/labels/", url.PathEscape(l.name)), "name": l.name,
		"color": l.color, "default": false, "description": l.description,
	}
}

// association is what GitHub calls author_association. It is here to be complete: it says nothing about rights.
func (f *Forge) association(r *Repo, u *User) string {
	switch {
	case u == r.owner:
		return "OWNER"
	case r.perms[u] != "":
		return "COLLABORATOR"
	}
	return "CONTRIBUTOR"
}

// pullView shows p as it was at s: the full form, of GET and of payloads.
func (f *Forge) pullView(p *PR, s pullState) object {
	r := p.repo
	api, html, issue := f.apiURL(r, "/pulls/", p.Number), f.htmlURL(r, "/pull/", p.Number), f.apiURL(r, "/issues/", p.Number)
	v := object{
		"url": api, "id": p.ID, "node_id": node("PullRequest", p.ID), "html_url": html, "diff_url": html + ".diff", "patch_url": html + ".patch",
		"issue_url": issue, "number": p.Number, "state": "closed", "locked": false, "title": s.title, "user": f.userOrNull(p.author), "body": nil,
		"created_at": stamp(p.created), "updated_at": stamp(s.updated), "closed_at": maybe(s.closed), "merged_at": nil,
		"merge_commit_sha": nil, "assignee": nil, "assignees": []object{}, "requested_reviewers": []object{}, "requested_teams": []object{},
		"labels":    views(s.labels, func(l *label) object { return f.labelView(r, l) }),
		"milestone": nil, "draft": s.draft, "commits_url": api + "/commits", "review_comments_url": api + "/comments",
		"review_comment_url": f.apiURL(r, "/pulls/comments{/number}"), "comments_url": issue + "/comments",
		"statuses_url": f.apiURL(r, "/statuses/"+s.head),
		"head":         f.endView(p.headRepo, p.branch, s.head), "base": f.endView(r, s.base, s.baseSHA),
		"_links": object{
			"self": object{"href": api}, "html": object{"href": html}, "issue": object{"href": issue}, "comments": object{"href": issue + "/comments"},
			"review_comments": object{"href": api + "/comments"}, "review_comment": object{"href": f.apiURL(r, "/pulls/comments{/number}")},
			"commits": object{"href": api + "/commits"}, "statuses": object{"href": f.apiURL(r, "/statuses/"+s.head)},
		},
		"author_association": f.association(r, p.author), "auto_merge": nil, "active_lock_reason": nil,
		"merged": s.merged, "mergeable": nil, "rebaseable": nil, "mergeable_state": "unknown", "merged_by": f.userOrNull(s.mergedBy),
		"comments": len(p.comments), "review_comments": 0, "maintainer_can_modify": p.headRepo.fork, "commits": s.commits,
		"additions": s.commits, "deletions": 0, "changed_files": 1,
	}
	if s.open {
		v["state"] = "open"
	}
	if s.body != "" {
		v["body"] = s.body
	}
	if s.merged {
		v["merged_at"], v["merge_commit_sha"] = stamp(s.closed), s.mergeSHA
	}
	return v
}

// endView is the head or the base of a pull request; a deleted fork is null.
func (f *Forge) endView(r *Repo, branch, sha string) object {
	v := object{"label": r.owner.login + ":" + branch, "ref": branch, "sha": sha, "user": f.userView(r.owner), "repo": nil}
	if !r.deleted {
		v["repo"] = f.repoView(r)
	}
	return v
}

// shortPulls are the open pull requests at sha, as checks and runs list them: not those that come from forks.
func (f *Forge) shortPulls(r *Repo, sha string) []object {
	short := func(x *Repo) object { return object{"id": x.ID, "url": f.apiURL(x, ""), "name": x.name} }
	out := []object{}
	for _, p := range r.pulls {
		if p.open && p.head == sha && p.headRepo == r {
			out = append(out, object{
				"url": f.apiURL(r, "/pulls/", p.Number), "id": p.ID, "number": p.Number,
				"head": object{"ref": p.branch, "sha": p.head, "repo": short(p.headRepo)},
				"base": object{"ref": p.base, "sha": p.baseSHA, "repo": short(r)},
			})
		}
	}
	return out
}

// issueView is the pull request as an issue, in issue_comment payloads.
func (f *Forge) issueView(p *PR) object {
	api, html := f.apiURL(p.repo, "/issues/", p.Number), f.htmlURL(p.repo, "/pull/", p.Number)
	pull := f.pullView(p, p.pullState)
	v := object{
		"url": api, "repository_url": f.apiURL(p.repo, ""), "labels_url": api + "/labels{/name}", "comments_url": api + "/comments",
		"events_url": api + "/events", "html_url": html, "timeline_url": api + "/timeline", "state_reason": nil, "performed_via_github_app": nil,
		"reactions": f.reactionsView(api),
		"pull_request": object{
			"url": pull["url"], "html_url": html, "diff_url": html + ".diff", "patch_url": html + ".patch", "merged_at": pull["merged_at"],
		},
	}
	for _, same := range []string{
		"id", "node_id", "number", "title", "user", "labels", "state", "locked", "assignee", "assignees", "milestone",
		"comments", "created_at", "updated_at", "closed_at", "author_association", "active_lock_reason", "body", "draft",
	} {
		v[same] = pull[same]
	}
	return v
}

func (f *Forge) reactionsView(api string) object {
	return object{
		"url": api + "/reactions", "total_count": 0, "+1": 0, "-1": 0, "laugh": 0, "hooray": 0, "confused": 0, "heart": 0, "rocket": 0, "eyes": 0,
	}
}

func (f *Forge) commentView(p *PR, x *comment) object {
	api := f.apiURL(p.repo, "/issues/comments/", x.id)
	return object{
		"url": api, "html_url": f.htmlURL(p.repo, "/pull/", p.Number, "#issuecomment-", x.id), "issue_url": f.apiURL(p.repo, "/issues/", p.Number),
		"id": x.id, "node_id": node("IssueComment", x.id), "user": f.userOrNull(x.user), "created_at": stamp(x.at), "updated_at": stamp(x.at),
		"author_association": f.association(p.repo, x.user), "body": x.body, "reactions": f.reactionsView(api),
		"performed_via_github_app": f.via(x.user),
	}
}

// via is the App through which an account acts, null for people.
func (f *Forge) via(u *User) any {
	if u.app == nil {
		return nil
	}
	return f.appView(u.app)
}

func (f *Forge) eventView(p *PR, e *issueEvent) object {
	switch e.kind {
	case "committed":
		v := f.gitCommitView(p.repo, f.commits[e.commit])
		v["event"] = e.kind
		return v
	case "commented":
		v := f.commentView(p, e.said)
		v["event"], v["actor"] = e.kind, f.userOrNull(e.actor)
		return v
	}
	v := object{
		"id": e.id, "node_id": node("Event", e.id), "url": f.apiURL(p.repo, "/issues/events/", e.id), "actor": f.userOrNull(e.actor),
		"event": e.kind, "commit_id": nil, "commit_url": nil, "created_at": stamp(e.at), "performed_via_github_app": f.via(e.actor),
	}
	switch e.kind {
	case "labeled", "unlabeled":
		v["label"] = object{"name": e.label.name, "color": e.label.color}
	case "renamed":
		v["rename"] = object{"from": e.was, "to": e.is}
	case "closed", "reopened":
		v["state_reason"] = nil
	}
	if e.commit != "" {
		v["commit_id"], v["commit_url"] = e.commit, f.apiURL(p.repo, "/commits/"+e.commit)
	}
	return v
}

func person(u *User, at time.Time) object {
	return object{"name": u.login, "email": u.login + "@users.noreply.invalid", "date": stamp(at)}
}

// gitCommitView is a commit as the git database knows it.
func (f *Forge) gitCommitView(r *Repo, c *commit) object {
	return object{
		"sha": c.sha, "node_id": node("Commit", 0) + c.sha[:8], "url": f.apiURL(r, "/git/commits/"+c.sha), "html_url": f.htmlURL(r, "/commit/"+c.sha),
		"author": person(c.author, c.at), "committer": person(c.author, c.at), "message": c.message,
		"tree":         object{"sha": c.tree, "url": f.apiURL(r, "/git/trees/"+c.tree)},
		"parents":      f.parentsView(r, c),
		"verification": object{"verified": false, "reason": "unsigned", "signature": nil, "payload": nil, "verified_at": nil},
	}
}

func (f *Forge) parentsView(r *Repo, c *commit) []object {
	return views(c.parents, func(sha string) object {
		return object{"sha": sha, "url": f.apiURL(r, "/commits/"+sha), "html_url": f.htmlURL(r, "/commit/"+sha)}
	})
}

func (f *Forge) commitView(r *Repo, c *commit) object {
	git := f.gitCommitView(r, c)
	api := f.apiURL(r, "/commits/"+c.sha)
	return object{
		"sha": c.sha, "node_id": git["node_id"], "url": api, "html_url": git["html_url"], "comments_url": api + "/comments",
		"author": f.userView(c.author), "committer": f.userView(c.author), "parents": git["parents"],
		"commit": object{
			"url": git["url"], "author": git["author"], "committer": git["committer"], "message": c.message, "tree": git["tree"],
			"comment_count": 0, "verification": git["verification"],
		},
	}
}

func (f *Forge) checkView(x *CheckRun) object {
	api := f.apiURL(x.repo, "/check-runs/", x.ID)
	suite := x.repo.suites[suiteKey{x.sha, x.app}]
	if suite == 0 {
		suite = f.id()
		x.repo.suites[suiteKey{x.sha, x.app}] = suite
	}
	str := func(s *string) any {
		if s == nil {
			return nil
		}
		return *s
	}
	v := object{
		"id": x.ID, "node_id": node("CheckRun", x.ID), "head_sha": x.sha, "name": x.name, "external_id": x.externalID, "url": api,
		"html_url": f.htmlURL(x.repo, "/runs/", x.ID), "details_url": x.details, "status": x.status, "conclusion": nil,
		"started_at": maybe(x.started), "completed_at": maybe(x.completed),
		"output": object{
			"title": str(x.title), "summary": str(x.summary), "text": str(x.text), "annotations_count": 0, "annotations_url": api + "/annotations",
		},
		"check_suite": f.suiteView(x, suite), "app": f.appView(x.app), "pull_requests": f.shortPulls(x.repo, x.sha),
	}
	if x.conclusion != "" {
		v["conclusion"] = x.conclusion
	}
	return v
}

// suiteView is the suite in a check run: GitHub's API shows its id only, its payloads all of this.
func (f *Forge) suiteView(x *CheckRun, id int64) object {
	state, conclusion := "completed", any("success")
	for _, y := range x.repo.checks {
		if y.sha == x.sha && y.app == x.app && y.status != "completed" {
			state, conclusion = "in_progress", nil
		}
	}
	branch := any(nil)
	for b, sha := range x.repo.branches {
		if sha == x.sha {
			branch = b
		}
	}
	return object{
		"id": id, "node_id": node("CheckSuite", id), "head_branch": branch, "head_sha": x.sha, "status": state, "conclusion": conclusion,
		"url": f.apiURL(x.repo, "/check-suites/", id), "before": nil, "after": x.sha, "pull_requests": f.shortPulls(x.repo, x.sha),
		"app": f.appView(x.app), "created_at": stamp(x.started), "updated_at": stamp(x.started),
	}
}

func (f *Forge) statusView(r *Repo, s *status) object {
	v := object{
		"id": s.id, "node_id": node("StatusContext", s.id), "url": f.apiURL(r, "/statuses/"+s.sha), "state": s.state, "context": s.context,
		"description": nil, "target_url": nil, "created_at": stamp(s.at), "updated_at": stamp(s.at),
		"avatar_url": fmt.Sprintf("%s/avatars/u/%d?v=4", f.url, s.creator.ID),
	}
	if s.about != nil {
		v["description"] = *s.about
	}
	if s.target != nil && *s.target != "" {
		v["target_url"] = *s.target
	}
	return v
}

func (f *Forge) workflowView(r *Repo, w *workflow) object {
	return object{
		"id": w.id, "node_id": node("Workflow", w.id), "name": w.title(), "path": w.File, "state": "active", "created_at": stamp(w.created),
		"updated_at": stamp(w.created), "url": f.apiURL(r, "/actions/workflows/", w.id), "html_url": f.htmlURL(r, "/blob/"+r.main+"/"+w.File),
		"badge_url": f.htmlURL(r, "/workflows/"+strings.ReplaceAll(w.title(), " ", "%20")+"/badge.svg"),
	}
}

// headCommitView is the form of a commit inside runs and merge groups.
func (f *Forge) headCommitView(c *commit) object {
	who := object{"name": c.author.login, "email": c.author.login + "@users.noreply.invalid"}
	return object{"id": c.sha, "tree_id": c.tree, "message": c.message, "timestamp": stamp(c.at), "author": who, "committer": who}
}

func (f *Forge) runView(x *Run) object {
	r := x.repo
	api, html := f.apiURL(r, "/actions/runs/", x.ID), f.htmlURL(r, "/actions/runs/", x.ID)
	head := r
	if x.pr != nil {
		head = x.pr.headRepo
	}
	v := object{
		"id": x.ID, "name": x.flow.title(), "node_id": node("WorkflowRun", x.ID), "check_suite_id": x.ID, "check_suite_node_id": node("CheckSuite", x.ID),
		"head_branch": x.branch, "head_sha": x.sha, "path": x.flow.File, "run_number": x.number, "run_attempt": x.attempt,
		"referenced_workflows": []object{}, "event": x.Event, "status": x.status, "conclusion": nil, "workflow_id": x.flow.id, "url": api,
		"html_url": html, "pull_requests": f.shortPulls(r, x.sha), "created_at": stamp(x.created), "updated_at": stamp(x.updated),
		"actor": f.userView(x.actor), "triggering_actor": f.userView(x.actor), "run_started_at": stamp(x.started), "jobs_url": api + "/jobs",
		"logs_url": api + "/logs", "check_suite_url": f.apiURL(r, "/check-suites/", x.ID), "artifacts_url": api + "/artifacts",
		"cancel_url": api + "/cancel", "rerun_url": api + "/rerun", "previous_attempt_url": nil,
		"workflow_url": f.apiURL(r, "/actions/workflows/", x.flow.id), "display_title": x.title,
		"head_commit": f.headCommitView(f.commits[x.sha]),
		"repository":  f.shortRepo(r), "head_repository": f.shortRepo(head),
	}
	if x.attempt > 1 {
		v["previous_attempt_url"] = fmt.Sprintf("%s/attempts/%d", api, x.attempt-1)
	}
	if x.conclusion != "" {
		v["conclusion"] = x.conclusion
	}
	return v
}

// shortRepo is the form inside a workflow run: what repoView has, without counts and times.
func (f *Forge) shortRepo(r *Repo) object {
	v := f.repoView(r)
	maps.DeleteFunc(v, func(field string, _ any) bool {
		return !strings.HasSuffix(field, "_url") &&
			!slices.Contains([]string{"id", "node_id", "name", "full_name", "private", "owner", "description", "fork", "url"}, field)
	})
	for _, field := range []string{"git_url", "ssh_url", "clone_url", "svn_url", "mirror_url"} {
		delete(v, field)
	}
	return v
}

func (f *Forge) getUser(c *call) answer {
	if c.cred.install != nil {
		return *fail(403, "Resource not accessible by integration")
	}
	v := f.profileView(c.cred.user)
	v["user_view_type"] = "public"
	return ok(v)
}

func (f *Forge) getUserByLogin(c *call) answer {
	if u := f.user(c.path("login")); u != nil {
		return ok(f.profileView(u))
	}
	return *notFound()
}

func (f *Forge) getUserByID(c *call) answer {
	for _, u := range f.users {
		if !u.gone && u.ID == c.id("id") {
			return ok(f.profileView(u))
		}
	}
	return *notFound()
}

func (f *Forge) getRepo(c *call) answer {
	v := f.repoView(c.repo)
	v["subscribers_count"], v["network_count"] = 0, v["forks_count"]
	if c.repo.owner.kind == "Organization" {
		v["organization"] = f.userView(c.repo.owner)
	}
	if c.repo.fork {
		v["parent"], v["source"] = f.repoView(c.repo.root), f.repoView(c.repo.root)
	}
	role := c.repo.role(c.actor())
	if c.cred.install == nil {
		v["permissions"] = object{
			"admin": rank(role) >= rank("admin"), "maintain": rank(role) >= rank("maintain"), "push": rank(role) >= rank("write"),
			"triage": rank(role) >= rank("triage"), "pull": true,
		}
	}
	return ok(v)
}

// getPermission answers the four old permissions in permission and the real role in role_name.
func (f *Forge) getPermission(c *call) answer {
	u := f.user(c.path("login"))
	if u == nil {
		return *fail(404, c.path("login")+" is not a user")
	}
	role := c.repo.role(u)
	permission := map[string]string{"maintain": "write", "triage": "read"}[role]
	if permission == "" {
		permission = role
	}
	who := f.userView(u)
	who["role_name"] = role
	who["permissions"] = object{
		"admin": rank(role) >= rank("admin"), "maintain": rank(role) >= rank("maintain"), "push": rank(role) >= rank("write"),
		"triage": rank(role) >= rank("triage"), "pull": rank(role) >= rank("read"),
	}
	return ok(object{"permission": permission, "role_name": role, "user": who})
}

func (c *call) team() *Team {
	for _, t := range c.f.teams {
		if strings.EqualFold(t.org.login, c.path("org")) && t.slug == c.path("slug") {
			if i := c.cred.install; i == nil || i.account == t.org && i.app.perms["members"] != "" {
				return t
			}
		}
	}
	return nil
}

func (f *Forge) getMembership(c *call) answer {
	t, u := c.team(), f.user(c.path("login"))
	if t == nil || u == nil || t.members[u] == "" {
		return *notFound()
	}
	return ok(object{
		"url": fmt.Sprintf("%s/organizations/%d/team/%d/memberships/%s", f.url, t.org.ID, t.id, u.login), "role": "member", "state": t.members[u],
	})
}

// listMembers shows active members only.
func (f *Forge) listMembers(c *call) answer {
	t := c.team()
	if t == nil {
		return *notFound()
	}
	var active []*User
	for _, u := range f.users {
		if t.members[u] == "active" {
			active = append(active, u)
		}
	}
	return c.page(views(active, f.userView), "")
}

func (f *Forge) getCommit(c *call) answer {
	at, no := c.commitOf()
	if no != nil {
		return *no
	}
	v := f.commitView(c.repo, at)
	v["stats"], v["files"] = object{"total": 1, "additions": 1, "deletions": 0}, []object{}
	return ok(v)
}

func (f *Forge) getRef(c *call) answer {
	branch, is := strings.CutPrefix(c.path("ref"), "heads/")
	sha := c.repo.branches[branch]
	if !is || sha == "" {
		return *notFound()
	}
	return ok(object{
		"ref": "refs/heads/" + branch, "node_id": node("Ref", c.repo.ID) + branch, "url": f.apiURL(c.repo, "/git/refs/heads/"+branch),
		"object": object{"sha": sha, "type": "commit", "url": f.apiURL(c.repo, "/git/commits/"+sha)},
	})
}

func (f *Forge) getBranch(c *call) answer {
	branch := c.path("branch")
	sha := c.repo.branches[branch]
	if sha == "" {
		return *fail(404, "Branch not found")
	}
	api := f.apiURL(c.repo, "/branches/"+branch)
	return ok(object{
		"name": branch, "commit": f.commitView(c.repo, f.commits[sha]), "protected": false, "protection_url": api + "/protection",
		"_links":     object{"self": api, "html": f.htmlURL(c.repo, "/tree/"+branch)},
		"protection": object{"enabled": false, "required_status_checks": object{"enforcement_level": "off", "contexts": []string{}, "checks": []object{}}},
	})
}
