package api

import (
	"bytes"
	"cmp"
	"fmt"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

const (
	// deprecated is when version 1 was: with its first release, since it is only for clients that cannot change yet.
	deprecated = 1795219200 // 2026-11-21
	// pushWithin is how long a call in flight can take, until its end is recorded.
	pushWithin = status.EffectTimeout + 2*time.Second
	// defaultContext is GitLab's.
	defaultContext = "default"
	codeLocked     = string(status.CodeBusy)
)

func old(r *http.Request) bool { return strings.HasPrefix(r.URL.Path, "/api/v1/") }

// deprecate says on every answer what to use instead (RFC 9745). There is no Sunset: version 1 stays.
func deprecate(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Deprecation", "@"+strconv.Itoa(deprecated))
	w.Header().Set("Link", fmt.Sprintf("</api/v2/projects/%s/commits/%s/statuses>; rel=%q",
		url.PathEscape(r.PathValue("project")), url.PathEscape(r.PathValue("sha")), "successor-version"))
}

func locked() *problem {
	return refuse(http.StatusConflict, codeLocked, "Resource lock").with("Retry-After", "5")
}

// post accepts a status as GitLab does and waits until the forge shows it. Its order is that of its arrival. One that
// no turn has taken up after Options.Wait is withdrawn; of one that is on its way the truth is told. A client that goes
// away meanwhile hears nothing, and its status stays.
func (s *Service) post(c *call) (reply, error) {
	m, err := c.oldMembers()
	if err != nil {
		return reply{}, err
	}
	in := status.Create{
		Context: cmp.Or(m.text("name"), m.text("context"), defaultContext), Ref: m.text("ref"), PipelineID: m.number("pipeline_id"),
		Content: m.content(),
	}
	if err := refused(m.wrong); err != nil { // members that are not known here mean nothing, as at GitLab
		return reply{}, err
	}
	if err := c.mayPost(in.Context); err != nil {
		return reply{}, err
	}
	a, err := s.opt.Clients.Post(c.Context(), c.by, c.at, in)
	if err != nil {
		return reply{}, err
	}
	final := func(o status.Operation) bool { return o.State.Final() }
	op, err := s.await(c.Context(), c.instance(), a.Operation.ID, s.opt.Wait, final)
	if err != nil {
		return reply{}, err
	}
	if !final(op) {
		withdrawn, err := s.opt.Clients.Withdraw(c.Context(), c.at, op.ID)
		if err != nil {
			return reply{}, err
		}
		if withdrawn {
			return reply{}, locked()
		}
		// A call that is in flight ends soon; one that the forge has put off may take as long as it likes.
		put := func(o status.Operation) bool { return final(o) || o.NextTryAt.After(s.opt.Now()) }
		if op, err = s.await(c.Context(), c.instance(), op.ID, pushWithin, put); err != nil {
			return reply{}, err
		}
	}
	switch op.State {
	case status.OpFailed:
		return reply{}, failure(op)
	case status.OpDelivered, status.OpSuperseded: // the latter as if it had been shown for a moment
		return reply{http.StatusCreated, oldStatus(a.Run, op), nil}, nil
	default:
		return reply{http.StatusAccepted, oldStatus(a.Run, op), map[string]string{"Location": operationLink(op.ID), "Retry-After": "1"}}, nil
	}
}

// oldMembers reads a request as GitLab does: query, then body, which may be JSON or either kind of form.
func (c *call) oldMembers() (m members, err error) {
	if m, err = c.query(); err != nil || len(bytes.TrimSpace(c.body)) == 0 {
		return m, err
	}
	kind, params, err := mime.ParseMediaType(c.Header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	switch kind {
	case "application/json":
		body, ok := read(c.body, true)
		if !ok {
			return m, errMalformed()
		}
		for name, v := range body.raw {
			m.raw[name] = v
		}
	case "application/x-www-form-urlencoded":
		values, err := url.ParseQuery(string(c.body))
		if err != nil {
			return m, errMalformed()
		}
		m.add(values)
	case "multipart/form-data":
		form, err := multipart.NewReader(bytes.NewReader(c.body), params["boundary"]).ReadForm(maxBody)
		if err != nil || len(form.File) > 0 {
			return m, errMalformed()
		}
		m.add(form.Value)
	default:
		return m, refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "expected JSON or a form")
	}
	return m, nil
}

// failure is what the forge refused for good, in its own status where a client of GitLab expects that.
func failure(op status.Operation) error {
	p := refuse(http.StatusUnprocessableEntity, "failed", cmp.Or(op.Reason, "the forge refuses the status"))
	if e := op.LastError; e != nil {
		p.message = e.Message
		switch e.Code {
		case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound:
			p.status = e.Code
		}
	}
	if op.Reason == status.ReasonContextOwned {
		p.status = http.StatusForbidden
	}
	return p
}

// oldBody is a commit status in GitLab's form.
type oldBody struct {
	ID           int64             `json:"id"`
	SHA          string            `json:"sha"`
	Ref          string            `json:"ref"`
	Status       forge.StatusState `json:"status"`
	Name         string            `json:"name"`
	TargetURL    *string           `json:"target_url"`
	Description  *string           `json:"description"`
	CreatedAt    time.Time         `json:"created_at"`
	StartedAt    *time.Time        `json:"started_at"`
	FinishedAt   *time.Time        `json:"finished_at"`
	AllowFailure bool              `json:"allow_failure"`
	Coverage     *float64          `json:"coverage"`
	PipelineID   int64             `json:"pipeline_id"`
	Author       oldAuthor         `json:"author"`
}

type oldAuthor struct {
	ID        int64   `json:"id"`
	Username  string  `json:"username"`
	Name      string  `json:"name"`
	State     string  `json:"state"`
	AvatarURL *string `json:"avatar_url"`
	WebURL    *string `json:"web_url"`
}

// oldStatus shows what the client posted, and what the forge made of it as far as that is known.
func oldStatus(r status.Run, op status.Operation) oldBody {
	out := oldBody{
		SHA: r.SHA, Ref: r.Ref, Status: op.Content.State, Name: r.Context, CreatedAt: r.CreatedAt,
		Coverage: op.Coverage, PipelineID: r.PipelineID, Author: oldAuthor{Username: "signalbox", Name: "Signalbox", State: "active"},
	}
	if f := op.ForgeRef; f != nil {
		out.ID, _ = strconv.ParseInt(f.ID, 10, 64) // 0 where the forge has no number for it
		out.PipelineID = cmp.Or(f.PipelineID, out.PipelineID)
	}
	set := func(to **string, v string) {
		if v != "" {
			*to = &v
		}
	}
	set(&out.TargetURL, op.TargetURL)
	set(&out.Description, op.Description)
	if out.Status != forge.StatusPending {
		out.StartedAt = &r.CreatedAt
	}
	if out.Status.Terminal() {
		out.FinishedAt = &op.AcceptedAt
	}
	return out
}
