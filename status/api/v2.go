package api

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

// Bounds of a key, a page and a long poll.
const (
	maxKey      = 128 // bytes
	perPage     = 20
	perPageMost = 100
	waitMost    = 20 // seconds
)

// create begins a run.
func (s *Service) create(c *call) (reply, error) {
	key, err := c.key("")
	if err != nil {
		return reply{}, err
	}
	m, err := c.members()
	if err != nil {
		return reply{}, err
	}
	in := status.Create{
		Context: m.text("context"), Ref: m.text("ref"), ExternalID: m.text("external_id"), PipelineID: m.number("pipeline_id"),
		Sequence: m.number("sequence"), Content: m.content(),
	}
	if err := m.done(); err != nil {
		return reply{}, err
	}
	if in.Context != "" {
		if err := c.mayPost(in.Context); err != nil {
			return reply{}, err
		}
	}
	a, err := s.opt.Clients.Create(c.Context(), c.by, c.at, in, key)
	return c.accepted(a), err
}

// update says how a run goes on.
func (s *Service) update(c *call) (reply, error) {
	run := c.PathValue("run")
	key, err := c.key(run)
	if err != nil {
		return reply{}, err
	}
	m, err := c.members()
	if err != nil {
		return reply{}, err
	}
	in := status.Update{Sequence: m.number("sequence"), Content: m.content()}
	if err := m.done(); err != nil {
		return reply{}, err
	}
	a, err := s.opt.Clients.Update(c.Context(), c.by, c.at, run, in, key)
	return c.accepted(a), err
}

// content takes what a create and an update have in common.
func (m *members) content() status.Content {
	return status.Content{
		State: forge.StatusState(m.text("state")), TargetURL: m.text("target_url"), Description: m.text("description"),
		Coverage: m.fraction("coverage"),
	}
}

// key is what makes a write idempotent. The same project may be named in two ways, which are one.
func (c *call) key(run string) (status.Key, error) {
	k := c.Header.Get("Idempotency-Key")
	if k == "" || len(k) > maxKey {
		return status.Key{}, refuse(http.StatusBadRequest, "idempotency_key_required",
			fmt.Sprintf("expected a header Idempotency-Key of 1 to %d characters, another for each write and the same when it is sent again", maxKey))
	}
	body := sha256.Sum256(c.body)
	return status.Key{Scope: c.Method + " " + run + " " + k, Body: hex.EncodeToString(body[:])}, nil
}

func (c *call) accepted(a status.Accepted) reply {
	out := reply{http.StatusAccepted, acceptedBody{
		Operation: shownOperation(a.Operation), Run: shownRun(a.Run, c.at),
		Links: links{operationLink(a.Operation.ID), runLink(c.at, a.Run.ID), commitLink(c.at)},
	}, map[string]string{"Location": operationLink(a.Operation.ID), "Retry-After": "1"}}
	if a.Existing {
		out.status = http.StatusOK
	}
	if a.Replayed {
		out.header["Idempotency-Replayed"] = "true"
	}
	return out
}

// run shows one run.
func (s *Service) run(c *call) (reply, error) {
	m, err := c.query()
	if err != nil {
		return reply{}, err
	}
	history := m.flag("history")
	if err := m.done(); err != nil {
		return reply{}, err
	}
	r, operations, err := s.opt.Clients.Run(c.Context(), c.at, c.PathValue("run"), history)
	if err != nil {
		return reply{}, err
	}
	out := shownRun(r, c.at)
	if history {
		out.History = &[]operationBody{}
		for _, o := range operations {
			*out.History = append(*out.History, shownOperation(o))
		}
	}
	return reply{http.StatusOK, out, nil}, nil
}

// list shows the runs of a commit.
func (s *Service) list(c *call) (reply, error) {
	m, err := c.query()
	if err != nil {
		return reply{}, err
	}
	f := status.Filter{
		Context: m.text("context"), Ref: m.text("ref"), PipelineID: m.number("pipeline_id"), State: forge.StatusState(m.text("state")),
		All: m.flag("all"),
	}
	page, per := max(m.number("page"), 1), m.number("per_page")
	if per == 0 {
		per = perPage
	}
	if per > perPageMost {
		m.wrong["per_page"] = fmt.Sprintf("expected at most %d", perPageMost)
	}
	switch f.State {
	case "", forge.StatusPending, forge.StatusRunning, forge.StatusSuccess, forge.StatusFailed, forge.StatusCanceled, forge.StatusSkipped:
	default:
		m.wrong["state"] = "expected pending, running, success, failed, canceled or skipped"
	}
	if err := m.done(); err != nil {
		return reply{}, err
	}
	runs, err := s.opt.Clients.List(c.Context(), c.at, f)
	if err != nil {
		return reply{}, err
	}
	total := int64(len(runs))
	last := max((total+per-1)/per, 1)
	from := min(page-1, last) * per
	shown := []runBody{}
	for _, r := range runs[min(from, total):min(from+per, total)] {
		shown = append(shown, shownRun(r, c.at))
	}
	header := map[string]string{"X-Total-Count": strconv.FormatInt(total, 10), "Link": c.pages(page, last)}
	return reply{http.StatusOK, shown, header}, nil
}

// pages are the links to the other pages of a list, which keep everything else that was asked for.
func (c *call) pages(page, last int64) string {
	q := c.URL.Query()
	var out []string
	link := func(rel string, n int64) {
		q.Set("page", strconv.FormatInt(n, 10))
		out = append(out, fmt.Sprintf("<%s?%s>; rel=%q", commitLink(c.at), q.Encode(), rel))
	}
	link("first", 1)
	if page > 1 {
		link("prev", min(page-1, last))
	}
	if page < last {
		link("next", page+1)
	}
	link("last", last)
	return strings.Join(out, ", ")
}

// operation shows one accepted write, at once where it has ended, else when it ends or the client's patience does.
func (s *Service) operation(c *call) (reply, error) {
	m, err := c.query()
	if err != nil {
		return reply{}, err
	}
	wait := m.seconds("wait", waitMost)
	if err := m.done(); err != nil {
		return reply{}, err
	}
	unknown := refuse(http.StatusNotFound, string(status.CodeNotFound), "no such operation is known, or it ended more than 14 days ago")
	id := c.PathValue("operation")
	at, ok := status.OperationAt(c.instance(), id)
	if !ok {
		return reply{}, unknown
	}
	if _, mine := c.grant.repo(at.Project); !mine {
		return reply{}, unknown
	}
	op, err := s.await(c.Context(), c.instance(), id, wait, func(o status.Operation) bool { return o.State.Final() })
	if err != nil {
		return reply{}, err
	}
	if c.scope != nil && op.RunID != c.scope.Key {
		return reply{}, unknown
	}
	out := reply{http.StatusOK, shownOperation(op), map[string]string{}}
	if !op.State.Final() {
		out.header["Retry-After"] = "1"
	}
	return out, nil
}

// seconds takes a whole number from 0 to most.
func (m *members) seconds(name string, most int) time.Duration {
	v := m.take(name)
	if v == nil {
		return 0
	}
	n, err := strconv.Atoi(m.bare(v))
	if err != nil || n < 0 || n > most {
		m.wrong[name] = fmt.Sprintf("expected a whole number from 0 to %d", most)
		return 0
	}
	return time.Duration(n) * time.Second
}

// What is shown of an operation and a run; openapi.yaml says what it means.
type (
	acceptedBody struct {
		Operation operationBody `json:"operation"`
		Run       runBody       `json:"run"`
		Links     links         `json:"links"`
	}
	links struct {
		Operation string `json:"operation"`
		Run       string `json:"run"`
		List      string `json:"list"`
	}
	operationBody struct {
		ID             string            `json:"id"`
		RunID          string            `json:"run_id"`
		Status         contentBody       `json:"status"`
		State          status.OpState    `json:"state"`
		Reason         string            `json:"reason,omitempty"`
		Order          status.Order      `json:"order"`
		EffectiveState forge.StatusState `json:"effective_state,omitempty"`
		SupersededBy   string            `json:"superseded_by,omitempty"`
		Tries          int               `json:"tries"`
		Contentions    int               `json:"contentions"`
		Crashes        int               `json:"crashes"`
		NextTryAt      time.Time         `json:"next_try_at,omitzero"`
		LastError      *status.Trouble   `json:"last_error,omitempty"`
		AcceptedAt     time.Time         `json:"accepted_at"`
		DeliveredAt    time.Time         `json:"delivered_at,omitzero"`
		ForgeRef       *status.ForgeRef  `json:"forge_ref,omitempty"`
	}
	contentBody struct {
		State       forge.StatusState `json:"state"`
		TargetURL   string            `json:"target_url,omitempty"`
		Description string            `json:"description,omitempty"`
		Coverage    *float64          `json:"coverage,omitempty"`
	}
	runBody struct {
		ID         string      `json:"id"`
		ExternalID string      `json:"external_id,omitempty"`
		Project    projectBody `json:"project"`
		SHA        string      `json:"sha"`
		Ref        string      `json:"ref,omitempty"`
		Context    string      `json:"context"`
		Owner      string      `json:"owner"`
		Attempt    int64       `json:"attempt"`
		contentBody
		PipelineID int64            `json:"pipeline_id,omitempty"`
		CreatedAt  time.Time        `json:"created_at"`
		UpdatedAt  time.Time        `json:"updated_at"`
		ForgeRef   *status.ForgeRef `json:"forge_ref,omitempty"`
		History    *[]operationBody `json:"history,omitempty"`
	}
	projectBody struct {
		ID   int64  `json:"id"`
		Path string `json:"path"`
	}
)

func shownContent(c status.Content) contentBody {
	return contentBody{c.State, c.TargetURL, c.Description, c.Coverage}
}

func shownOperation(o status.Operation) operationBody {
	return operationBody{
		o.ID, o.RunID, shownContent(o.Content), o.State, o.Reason, o.Order, o.Effective, o.SupersededBy, o.Tries, o.Contentions, o.Crashes, o.NextTryAt, o.LastError,
		o.AcceptedAt, o.DeliveredAt, o.ForgeRef,
	}
}

func shownRun(r status.Run, at status.Target) runBody {
	return runBody{
		ID: r.ID, ExternalID: r.ExternalID, Project: projectBody{at.Repo.ID, at.Repo.Name}, SHA: r.SHA, Ref: r.Ref, Context: r.Context, Owner: r.Owner,
		Attempt: r.Attempt, contentBody: shownContent(r.Content), PipelineID: r.PipelineID,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, ForgeRef: r.ForgeRef,
	}
}
