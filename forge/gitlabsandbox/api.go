package gitlabsandbox

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Handler is the REST API beneath /api/v4.
func (f *Forge) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(call) (int, any){
		"GET /user":                                                     func(c call) (int, any) { return 200, c.me.shown() },
		"GET /users/{id}":                                               f.getUser,
		"GET /personal_access_tokens/self":                              f.getToken,
		"GET /groups/{group}/members/all/{user}":                        f.getGroupMember,
		"GET /projects":                                                 f.listProjects,
		"GET /projects/{id}":                                            f.getProject,
		"GET /projects/{id}/events":                                     f.listEvents,
		"GET /projects/{id}/labels/{label}":                             f.getLabel,
		"POST /projects/{id}/labels":                                    f.postLabel,
		"GET /projects/{id}/repository/files/{path}/raw":                f.getFile,
		"GET /projects/{id}/members/all/{user}":                         f.getMember,
		"GET /projects/{id}/merge_requests":                             f.listMerges,
		"GET /projects/{id}/merge_requests/{iid}":                       f.getMerge,
		"PUT /projects/{id}/merge_requests/{iid}":                       f.putMerge,
		"GET /projects/{id}/merge_requests/{iid}/resource_label_events": f.labelEvents,
		"GET /projects/{id}/merge_requests/{iid}/notes":                 f.listNotes,
		"POST /projects/{id}/merge_requests/{iid}/notes":                f.postNote,
		"PUT /projects/{id}/merge_requests/{iid}/notes/{note}":          f.putNote,
		"POST /projects/{id}/merge_requests/{iid}/pipelines":            f.postPipeline,
		"GET /projects/{id}/hooks":                                      f.listHooks,
		"GET /projects/{id}/pipelines":                                  f.listPipelines,
		"GET /projects/{id}/pipelines/{pipeline}":                       f.getPipeline,
		"POST /projects/{id}/pipelines/{pipeline}/cancel":               f.cancelPipeline,
		"GET /projects/{id}/repository/commits/{sha}/statuses":          f.listStatuses,
		"POST /projects/{id}/statuses/{sha}":                            f.postStatus,
	} {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /api/v4"+path, func(w http.ResponseWriter, r *http.Request) { f.answer(w, r, pattern, answer) })
	}
	return mux
}

// call is one request, with the forge locked.
type call struct {
	*http.Request
	me    *User
	w     http.ResponseWriter
	p     *Project
	merge *Merge
	body  map[string]any
}

func (f *Forge) answer(w http.ResponseWriter, r *http.Request, route string, answer func(call) (int, any)) {
	if before := f.firstBefore(route); before != nil {
		before()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, route)
	status, body := f.prepared(w, r, route, answer)
	if text, ok := body.(raw); ok {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, string(text)) // as below
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client has gone: there is nobody left to tell
}

func (f *Forge) firstBefore(route string) func() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.HasSuffix(route, "{iid}/pipelines") || f.failing[route] > 0 {
		return nil
	}
	do := f.before
	f.before = nil
	return do
}

func (f *Forge) prepared(w http.ResponseWriter, r *http.Request, route string, answer func(call) (int, any)) (int, any) {
	if f.failing[route] > 0 {
		f.failing[route]--
		return http.StatusBadGateway, refusal("bad gateway")
	}
	c := call{Request: r, w: w, body: map[string]any{}}
	if i := slices.IndexFunc(f.users, func(u *User) bool { return u.Token == r.Header.Get("Private-Token") }); i >= 0 {
		c.me = f.users[i]
	} else {
		return http.StatusUnauthorized, refusal("401 Unauthorized")
	}
	if r.ContentLength > 0 {
		if err := json.NewDecoder(r.Body).Decode(&c.body); err != nil {
			return http.StatusBadRequest, refusal("400 Bad request")
		}
	}
	if id := r.PathValue("id"); strings.Contains(route, "/projects/{id}") {
		i := slices.IndexFunc(f.projects, func(p *Project) bool { return strconv.FormatInt(p.ID, 10) == id || p.Path == id })
		if i < 0 {
			return http.StatusNotFound, refusal("404 Project Not Found")
		}
		c.p = f.projects[i]
	}
	if iid := r.PathValue("iid"); iid != "" {
		i := slices.IndexFunc(c.p.merges, func(m *Merge) bool { return strconv.Itoa(m.IID) == iid })
		if i < 0 {
			return http.StatusNotFound, refusal("404 Not found")
		}
		c.merge = c.p.merges[i]
	}
	if r.Method != http.MethodGet && c.p.members[c.me.ID] < Developer {
		return http.StatusForbidden, refusal("403 Forbidden")
	}
	return answer(c)
}

func refusal(text string) any { return map[string]any{"message": text} }

func (c call) text(key string) string { s, _ := c.body[key].(string); return s }

// page cuts a list as the query asks and says so in the headers.
func page[T any](c call, all []T) (int, any) {
	n, _ := strconv.Atoi(c.URL.Query().Get("page"))
	per, _ := strconv.Atoi(c.URL.Query().Get("per_page"))
	n, per = max(n, 1), min(cmp.Or(per, 20), 100)
	h := c.w.Header()
	h.Set("X-Total", strconv.Itoa(len(all)))
	h.Set("X-Total-Pages", strconv.Itoa((len(all)+per-1)/per))
	h.Set("X-Page", strconv.Itoa(n))
	h.Set("X-Per-Page", strconv.Itoa(per))
	if n*per < len(all) {
		h.Set("X-Next-Page", strconv.Itoa(n+1))
	}
	out := all[min((n-1)*per, len(all)):min(n*per, len(all))]
	return http.StatusOK, append([]T{}, out...)
}

func shown(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func (u *User) shown() map[string]any {
	return map[string]any{"id": u.ID, "username": u.Login, "name": u.Login, "state": u.State, "bot": u.Bot}
}

func (f *Forge) user(id string) *User {
	for _, u := range f.users {
		if strconv.FormatInt(u.ID, 10) == id {
			return u
		}
	}
	return nil
}

func (f *Forge) getUser(c call) (int, any) {
	if u := f.user(c.PathValue("id")); u != nil {
		return 200, u.shown()
	}
	return 404, refusal("404 User Not Found")
}

func (f *Forge) getToken(c call) (int, any) {
	v := map[string]any{"id": 1, "scopes": c.me.Scopes, "active": true, "expires_at": nil}
	if c.me.Expires != "" {
		v["expires_at"] = c.me.Expires
	}
	return 200, v
}

// getGroupMember finds members of the group and of those above it.
func (f *Forge) getGroupMember(c call) (int, any) {
	path := c.PathValue("group")
	if f.groups[path] == nil {
		return 404, refusal("404 Group Not Found")
	}
	u, level := f.user(c.PathValue("user")), 0
	for ok := true; u != nil && ok; {
		level = max(level, f.groups[path][u.ID])
		i := strings.LastIndex(path, "/")
		if ok = i > 0; ok {
			path = path[:i]
		}
	}
	if level == 0 {
		return 404, refusal("404 Not found")
	}
	return 200, u.member(level)
}

// member is a membership. GitLab shows one that has ended until it is removed, once a day.
func (u *User) member(level int) map[string]any {
	m := u.shown()
	m["access_level"], m["expires_at"] = level, nullable(u.Until)
	return m
}

func (f *Forge) getProject(c call) (int, any) {
	v := maps.Clone(c.p.settings)
	v["id"], v["path_with_namespace"] = c.p.ID, c.p.Path
	v["permissions"] = map[string]any{"project_access": map[string]any{"access_level": c.p.members[c.me.ID]}, "group_access": nil}
	return 200, v
}

// listEvents knows events of pushes. Those of a private project are its members' (lib/api/project_events.rb).
func (f *Forge) listEvents(c call) (int, any) {
	q := c.URL.Query()
	if c.p.settings["visibility"] == "private" && c.p.members[c.me.ID] == 0 {
		return 404, refusal("404 Project Not Found")
	}
	if q.Get("action") != "pushed" {
		return 400, map[string]any{"error": "action does not have a valid value"}
	}
	var out []map[string]any
	for _, e := range c.p.pushes {
		action := "pushed"
		if e.from == "" {
			action = "created"
		}
		out = append(out, map[string]any{
			"id": e.id, "project_id": c.p.ID, "action_name": action + " to", "target_id": nil, "target_type": nil, "author_id": e.by.ID,
			"author": e.by.shown(), "author_username": e.by.Login, "created_at": shown(e.at),
			"push_data": map[string]any{
				"commit_count": 1, "action": action, "ref_type": "branch", "commit_from": nullable(e.from), "commit_to": e.sha, "ref": e.branch,
				"commit_title": "words of an outsider", "ref_count": nil,
			},
		})
	}
	if q.Get("sort") != "asc" {
		slices.Reverse(out)
	}
	return page(c, out)
}

func (f *Forge) getLabel(c call) (int, any) {
	if name := c.PathValue("label"); c.p.labels[name] {
		return 200, map[string]any{"id": 1, "name": name}
	}
	return 404, refusal("404 Label Not Found")
}

func (f *Forge) postLabel(c call) (int, any) {
	name := c.text("name")
	if c.p.labels[name] || name == "" || c.text("color") == "" {
		return 409, refusal("Label already exists")
	}
	c.p.labels[name] = true
	return 201, map[string]any{"id": 1, "name": name}
}

func (f *Forge) getFile(c call) (int, any) {
	if text, ok := c.p.files[c.PathValue("path")]; ok && c.URL.Query().Get("ref") != "" {
		return 200, raw(text)
	}
	return 404, refusal("404 File Not Found")
}

// raw is an answer that is no JSON.
type raw string

func (f *Forge) listProjects(c call) (int, any) {
	var out []map[string]any
	for _, p := range f.projects {
		if p.members[c.me.ID] > 0 {
			out = append(out, map[string]any{"id": p.ID, "path_with_namespace": p.Path, "visibility": "public"})
		}
	}
	return page(c, out)
}

func (f *Forge) getMember(c call) (int, any) {
	u := f.user(c.PathValue("user"))
	if u == nil || c.p.members[u.ID] == 0 {
		return 404, refusal("404 Not found")
	}
	return 200, u.member(c.p.members[u.ID])
}

func (m *Merge) shown() map[string]any {
	return map[string]any{
		"id": 9000 + m.IID, "iid": m.IID, "project_id": m.project.ID, "state": m.state, "draft": m.draft, "sha": m.head,
		"author": m.author.shown(), "source_branch": m.branch, "target_branch": m.target, "source_project_id": m.source.ID,
		"target_project_id": m.project.ID, "labels": append([]string{}, m.labels...), "created_at": shown(m.created), "updated_at": shown(m.updated),
		"references": map[string]any{"full": fmt.Sprintf("%s!%d", m.project.Path, m.IID)},
		"diff_refs":  map[string]any{"base_sha": strings.Repeat("b", 40), "head_sha": m.head, "start_sha": strings.Repeat("b", 40)},
	}
}

func (f *Forge) listMerges(c call) (int, any) {
	q := c.URL.Query()
	since, _ := time.Parse(time.RFC3339, q.Get("updated_after"))
	var out []map[string]any
	for _, m := range c.p.merges {
		if s := q.Get("state"); (s == "" || s == "all" || s == m.state) && !m.updated.Before(since) {
			out = append(out, m.shown())
		}
	}
	if q.Get("sort") == "desc" {
		slices.SortStableFunc(out, func(a, b map[string]any) int {
			return cmp.Compare(fmt.Sprint(b["updated_at"]), fmt.Sprint(a["updated_at"]))
		})
	}
	return page(c, out)
}

func (f *Forge) getMerge(c call) (int, any) { return 200, c.merge.shown() }

func (f *Forge) putMerge(c call) (int, any) {
	list := func(key string) []string {
		if s := c.text(key); s != "" {
			return strings.Split(s, ",")
		}
		return nil
	}
	c.merge.update(c.me, Change{Add: list("add_labels"), Remove: list("remove_labels")})
	return 200, c.merge.shown()
}

func (f *Forge) labelEvents(c call) (int, any) {
	var out []map[string]any
	for _, e := range c.merge.history {
		action := "remove"
		if e.added {
			action = "add"
		}
		out = append(out, map[string]any{
			"id": e.id, "action": action, "created_at": shown(e.at), "user": e.by.shown(), "label": map[string]any{"id": 1, "name": e.label},
		})
	}
	return page(c, out)
}

func (n *note) shown() map[string]any {
	return map[string]any{"id": n.id, "body": n.body, "author": n.by.shown(), "system": false, "created_at": shown(n.at), "updated_at": shown(n.updated)}
}

func (f *Forge) listNotes(c call) (int, any) {
	var out []map[string]any
	for _, n := range c.merge.notes {
		out = append(out, n.shown())
	}
	return page(c, out)
}

func (f *Forge) postNote(c call) (int, any) {
	if c.text("body") == "" {
		return 400, refusal("400 Bad request - Note {:note=>[\"can't be blank\"]}")
	}
	return 201, c.merge.comment(c.me, c.text("body")).shown()
}

func (f *Forge) putNote(c call) (int, any) {
	for _, n := range c.merge.notes {
		if strconv.FormatInt(n.id, 10) != c.PathValue("note") {
			continue
		}
		if n.by != c.me {
			return 403, refusal("403 Forbidden")
		}
		n.body, n.updated = c.text("body"), f.clock()
		c.merge.tellNote(n, "update")
		c.merge.obey(n)
		return 200, n.shown()
	}
	return 404, refusal("404 Note Not Found")
}

func (p *Pipeline) shown() map[string]any {
	return map[string]any{
		"id": p.ID, "project_id": p.project.ID, "sha": p.sha, "ref": p.ref, "source": p.source, "status": p.status, "web_url": p.url(),
		"created_at": shown(p.created), "updated_at": shown(cmp.Or(p.ended, p.created)), "user": p.by.shown(),
	}
}

func (p *Project) pipeline(m *Merge, sha, ref, source, state string, by *User) *Pipeline {
	run := &Pipeline{ID: p.f.id(), project: p, merge: m, sha: sha, ref: ref, source: source, status: state, by: by, created: p.f.clock()}
	p.pipelines = append(p.pipelines, run)
	run.tell()
	return run
}

// postPipeline runs a fork's merge request in the fork where the project does not let it run here
// (app/services/merge_requests/create_pipeline_service.rb).
func (f *Forge) postPipeline(c call) (int, any) {
	m := c.merge
	in, ref := c.p, fmt.Sprintf("refs/merge-requests/%d/head", m.IID)
	if m.source != c.p && c.p.settings["ci_allow_fork_pipelines_to_run_in_parent_project"] == false {
		in, ref = m.source, m.branch
	}
	if in.members[c.me.ID] < Developer {
		return 400, map[string]any{"message": map[string]any{"base": []string{"Insufficient permissions to create a new pipeline"}}}
	}
	return 200, in.pipeline(m, m.head, ref, "merge_request_event", "pending", c.me).shown()
}

func (f *Forge) listPipelines(c call) (int, any) {
	q := c.URL.Query()
	is := func(key, value string) bool { return q.Get(key) == "" || q.Get(key) == value }
	var out []map[string]any
	for _, p := range slices.Backward(c.p.pipelines) {
		if is("sha", p.sha) && is("ref", p.ref) && is("source", p.source) && is("username", p.by.Login) {
			out = append(out, p.shown())
		}
	}
	return page(c, out)
}

func (c call) pipeline() *Pipeline {
	for _, p := range c.p.pipelines {
		if strconv.FormatInt(p.ID, 10) == c.PathValue("pipeline") {
			return p
		}
	}
	return nil
}

func (f *Forge) getPipeline(c call) (int, any) {
	if p := c.pipeline(); p != nil {
		return 200, p.shown()
	}
	return 404, refusal("404 Pipeline Not Found")
}

// cancelPipeline answers whoever may cancel alike, whatever the state was.
func (f *Forge) cancelPipeline(c call) (int, any) {
	p, least := c.pipeline(), map[any]int{"developer": Developer, "maintainer": Maintainer}[c.p.settings["ci_restrict_pipeline_cancellation_role"]]
	switch {
	case p == nil:
		return 404, refusal("404 Pipeline Not Found")
	case least == 0, c.p.members[c.me.ID] < least:
		return 403, refusal("403 Forbidden")
	}
	if p.status == "pending" || p.status == "running" {
		p.become("canceled")
	}
	return 200, p.shown()
}
