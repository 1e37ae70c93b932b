package webhook

import (
	"net/http"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Keys of the access log; docs/operating.md lists them. Bodies, signatures and secrets have none.
const (
	keyDelivery = "delivery"
	keySubject  = "subject"
	keyReason   = "reason"
	keyRequest  = "request"
	keyInstance = "instance"
	keyEvent    = "event"
	keyAction   = "action"
	keyRepo     = "repo"
	keyStatus   = "status"
	keyBytes    = "bytes"
	keyTook     = "took"
	keyFlaw     = "flaw"
)

// record counts a request and writes its one line. An instance that is not configured is a stranger's text: it is
// neither a label nor logged.
func (h *Handler) record(a answer, instance, request string, took time.Duration) {
	if _, known := h.forges[instance]; !known {
		instance = ""
	}
	h.count.WithLabelValues(instance, string(a.outcome)).Inc()

	level := zapcore.InfoLevel
	switch {
	case a.status >= http.StatusInternalServerError:
		level = zapcore.ErrorLevel
	case a.status >= http.StatusBadRequest, a.routed.Flaw != "":
		level = zapcore.WarnLevel
	}
	line := h.log.Check(level, "delivery "+string(a.outcome))
	if line == nil {
		return
	}
	fields := []zap.Field{
		zap.String(keyRequest, request), zap.String(keyInstance, instance), zap.Int(keyStatus, a.status),
		zap.String(keyReason, string(a.outcome)), zap.Int(keyBytes, a.bytes), zap.Duration(keyTook, took),
	}
	text := func(key, value string) {
		const most = 200 // whoever knows the secret may still send nonsense
		if value != "" {
			fields = append(fields, zap.String(key, value[:min(len(value), most)]))
		}
	}
	text(keyDelivery, a.delivery)
	text(keySubject, a.subject)
	text(keyEvent, a.routed.Event)
	text(keyAction, a.routed.Action)
	text(keyRepo, a.routed.Repo.Name)
	text(keyFlaw, a.routed.Flaw)
	if a.code != "" {
		text("error", a.message)
	}
	if a.cause != nil {
		fields = append(fields, zap.NamedError("cause", a.cause))
	}
	line.Write(fields...)
}
