package api

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/status"
)

// problem is an answer that is no success, as the table in docs/statuses.md has it. It never quotes what a client sent but for the
// names of members.
type problem struct {
	status  int
	code    string
	message string
	fields  map[string]string // by member of the body or parameter of the query: what is wrong with it
	header  http.Header
}

func (p *problem) Error() string { return p.code + ": " + p.message }

func refuse(status int, code, message string) *problem {
	return &problem{status: status, code: code, message: message, header: http.Header{}}
}

func (p *problem) with(header, value string) *problem {
	p.header.Set(header, value)
	return p
}

// refused is the answer to members that are wrong; nil where none is.
func refused(wrong map[string]string) error {
	if len(wrong) == 0 {
		return nil
	}
	p := refuse(http.StatusUnprocessableEntity, string(status.CodeInvalid), "some members of the request are not what this path takes")
	p.fields = wrong
	return p
}

// judged is the problem that err is for the client. What only a person can mend is logged, under the id that the client
// is told.
func (s *Service) judged(r *http.Request, err error, id string) *problem {
	var p *problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, actor.ErrBusy), errors.Is(err, state.ErrFull), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
	default:
		s.opt.Log.Error("a status request failed", zap.String("request", id), zap.String("method", r.Method), zap.Error(err))
	}
	return refuse(http.StatusServiceUnavailable, "not_stored", "nothing was stored; send the same request again").with("Retry-After", "1")
}

// envelope is the body of a problem in version 2.
type envelope struct {
	Error struct {
		Code      string            `json:"code"`
		Message   string            `json:"message"`
		Fields    map[string]string `json:"fields,omitempty"`
		RequestID string            `json:"request_id"`
	} `json:"error"`
}

func (p *problem) write(w http.ResponseWriter, id string) {
	var e envelope
	e.Error.Code, e.Error.Message, e.Error.Fields, e.Error.RequestID = p.code, p.message, p.fields, id
	maps.Copy(w.Header(), p.header)
	write(w, p.status, e)
}

// writeOld tells a problem in GitLab's form, which its clients show as it is.
func (p *problem) writeOld(w http.ResponseWriter) {
	text := strconv.Itoa(p.status) + " " + http.StatusText(p.status)
	if p.code != codeLocked {
		text += " - " + p.message
	} else {
		text += ": Resource lock" // clients know it by these words
	}
	for _, name := range slices.Sorted(maps.Keys(p.fields)) {
		text += "; " + name + " " + p.fields[name]
	}
	maps.Copy(w.Header(), p.header)
	write(w, p.status, map[string]string{"message": text})
}

func write(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone: nobody is left to tell
}

// takesJSON says whether an Accept header admits an answer of ours.
func takesJSON(accept string) bool {
	if accept == "" {
		return true
	}
	for part := range strings.SplitSeq(accept, ",") {
		kind, params, _ := strings.Cut(part, ";")
		switch strings.ToLower(strings.TrimSpace(kind)) {
		case "*/*", "application/*", "application/json":
		default:
			continue
		}
		q, weighed := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
		if weight, err := strconv.ParseFloat(q, 64); !weighed || err != nil || weight > 0 {
			return true
		}
	}
	return false
}
