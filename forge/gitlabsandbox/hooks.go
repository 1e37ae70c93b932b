package gitlabsandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Hook is a project's webhook. With a SigningToken deliveries are signed as Standard Webhooks says, with a Secret they
// carry it; both may be.
type Hook struct {
	Secret       string
	SigningToken string
	// URL and Status are what the API tells of it; Status is executable, temporarily_disabled or disabled.
	URL, Status string
	// Insecure: certificates are not verified. Less: merge requests and notes are not told of. Old: an older GitLab, which
	// does not say whether there is a secret or a signing token.
	Insecure, Less, Old bool
}

// SetHook makes the project tell of what happens.
func (p *Project) SetHook(h Hook) {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	p.hook = h
}

func (f *Forge) listHooks(c call) (int, any) {
	if c.p.members[c.me.ID] < Maintainer {
		return http.StatusForbidden, refusal("403 Forbidden")
	}
	list := []any{}
	if c.p.hook != (Hook{}) {
		h := c.p.hook
		v := map[string]any{
			"id": 1, "url": h.URL, "project_id": c.p.ID, "alert_status": h.Status, "disabled_until": nil, "enable_ssl_verification": !h.Insecure,
			"merge_requests_events": !h.Less, "note_events": !h.Less, "pipeline_events": true,
		}
		if !h.Old {
			v["token_present"], v["signing_token_present"] = h.Secret != "", h.SigningToken != ""
		}
		list = append(list, v)
	}
	return page(c, list)
}

type delivery struct {
	hook  Hook
	id    string
	event string
	body  map[string]any
	late  func() // completes the body when it is sent; nil = it is complete
}

// written is the body as it is sent.
func (f *Forge) written(d delivery) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d.late != nil {
		d.late()
	}
	return json.Marshal(d.body)
}

// Deliver sends what has happened since, in order, each twice if twice. It answers the statuses of the answers.
func (f *Forge) Deliver(ctx context.Context, url string, twice bool) ([]int, error) {
	f.mu.Lock()
	pending := f.pending
	f.pending = nil
	f.mu.Unlock()
	client := &http.Client{Timeout: 10 * time.Second} // as GitLab.com
	var statuses []int
	for _, d := range pending {
		body, err := f.written(d)
		if err != nil {
			return statuses, fmt.Errorf("deliver %s: %w", d.event, err)
		}
		for n := 0; n == 0 || n == 1 && twice; n++ {
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
			if err != nil {
				return statuses, fmt.Errorf("deliver %s: %w", d.event, err)
			}
			req.Header = d.header(f.clock(), body)
			res, err := client.Do(req)
			if err != nil {
				return statuses, fmt.Errorf("deliver %s: %w", d.event, err)
			}
			res.Body.Close()
			statuses = append(statuses, res.StatusCode)
		}
	}
	return statuses, nil
}

// Reverse turns the order around in which what has happened since will be sent.
func (f *Forge) Reverse() {
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Reverse(f.pending)
}

// Drop forgets what has happened since, as GitLab does while a hook is disabled.
func (f *Forge) Drop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = nil
}

// DropNewest forgets only the newest of it.
func (f *Forge) DropNewest() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = f.pending[:len(f.pending)-1]
}

func (d delivery) header(now time.Time, body []byte) http.Header {
	h := http.Header{}
	h.Set("Content-Type", "application/json")
	h.Set("User-Agent", "GitLab/18.9")
	h.Set("X-Gitlab-Event", d.event)
	h.Set("X-Gitlab-Event-UUID", "13792a34-cac6-4fda-95a8-c58e00a3954e") // shared: no delivery is told apart by it
	h.Set("Idempotency-Key", d.id)
	if d.hook.Secret != "" {
		h.Set("X-Gitlab-Token", d.hook.Secret)
	}
	if d.hook.SigningToken != "" {
		h.Set("Webhook-Id", d.id)
		h.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
		h.Set("Webhook-Signature", Sign(d.hook.SigningToken, d.id, now, body))
	}
	return h
}

// Sign is the signature of a delivery. A malformed token signs with nothing.
func Sign(token, id string, at time.Time, body []byte) string {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(token, "whsec_"))
	if err != nil {
		return "v1,"
	}
	mac := hmac.New(sha256.New, key)
	_, _ = fmt.Fprintf(mac, "%s.%d.", id, at.Unix())
	_, _ = mac.Write(body) // a hash never fails
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

func (p *Project) queue(event string, body map[string]any, late func()) {
	if p.hook != (Hook{}) {
		p.f.pending = append(p.f.pending, delivery{p.hook, fmt.Sprintf("6f1b-%d", p.f.id()), event, body, late})
	}
}

func told(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func (p *Project) told() map[string]any {
	return map[string]any{"id": p.ID, "path_with_namespace": p.Path, "visibility_level": 20, "web_url": "https://gitlab.example/" + p.Path}
}

func (u *User) told() map[string]any {
	return map[string]any{"id": u.ID, "username": u.Login, "name": u.Login, "email": "[REDACTED]"}
}

func titles(labels []string) []map[string]any {
	out := []map[string]any{}
	for i, l := range labels {
		out = append(out, map[string]any{"id": i + 1, "title": l, "color": "#000000"})
	}
	return out
}

func (m *Merge) attributes() map[string]any {
	return map[string]any{
		"id": 9000 + m.IID, "iid": m.IID, "author_id": m.author.ID, "state": m.state, "draft": m.draft, "work_in_progress": m.draft,
		"source_project_id": m.source.ID, "target_project_id": m.project.ID, "source_branch": m.branch, "target_branch": m.target,
		"title": "title", "description": "words of an outsider", "created_at": told(m.created), "updated_at": told(m.updated),
		"last_commit": map[string]any{"id": m.head, "message": "words of an outsider"},
	}
}

// tell queues a delivery. That of a push a worker writes later (app/services/merge_requests/refresh/web_hooks_service.rb):
// it shows the merge request as of that moment beside who made this push.
func (m *Merge) tell(by *User, action, oldrev string, changes map[string]any) {
	of := m.attributes()
	of["action"] = action
	var late func()
	if oldrev != "" {
		of["oldrev"] = oldrev
		late = func() { maps.Copy(of, m.attributes()) }
	}
	if changes == nil {
		changes = map[string]any{}
	}
	m.project.queue("Merge Request Hook", map[string]any{
		"object_kind": "merge_request", "event_type": "merge_request", "user": by.told(), "project": m.project.told(),
		"object_attributes": of, "labels": titles(m.labels), "changes": changes,
	}, late)
}

func (m *Merge) tellNote(n *note, action string) {
	m.project.queue("Note Hook", map[string]any{
		"object_kind": "note", "event_type": "note", "user": n.by.told(), "project": m.project.told(),
		"object_attributes": map[string]any{
			"id": n.id, "note": n.body, "noteable_type": "MergeRequest", "author_id": n.by.ID, "system": false, "action": action, //nolint:misspell // GitLab's word
			"created_at": told(n.at), "updated_at": told(n.updated),
		},
		"merge_request": m.attributes(),
	}, nil)
}

func (p *Pipeline) tell() {
	of := map[string]any{
		"id": p.ID, "ref": p.ref, "sha": p.sha, "source": p.source, "status": p.status, "created_at": told(p.created),
		"finished_at": nil, "url": p.url(),
	}
	if !p.ended.IsZero() {
		of["finished_at"] = told(p.ended)
	}
	body := map[string]any{
		"object_kind": "pipeline", "object_attributes": of, "user": p.by.told(), "project": p.project.told(), "merge_request": nil,
	}
	if p.merge != nil {
		body["merge_request"] = p.merge.attributes()
	}
	p.project.queue("Pipeline Hook", body, nil)
}

func (p *Pipeline) url() string {
	return fmt.Sprintf("https://gitlab.example/%s/-/pipelines/%d", p.project.Path, p.ID)
}
