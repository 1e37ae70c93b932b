package gitlab

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
)

// HookOptions say which GitLab sends, and with what it proves itself. One secret of either kind is needed; several of a
// kind are several that count, while one is being replaced.
type HookOptions struct {
	Instance      string
	Secrets       []string         // sent in X-Gitlab-Token
	SigningTokens []string         // "whsec_…", for deliveries signed as Standard Webhooks says
	Now           func() time.Time // judges the age of signed deliveries
}

// Hook is the receiving side of one GitLab: it verifies deliveries and says where they go. It makes no call, keeps
// nothing, and is safe for concurrent use.
//
// What a delivery says is a nudge, and the decision reads the live state: with a plain secret anybody who has seen one
// delivery can send others.
type Hook struct {
	instance string
	secrets  [][sha256.Size]byte
	keys     [][]byte
	now      func() time.Time
}

// NewHook makes the receiving side of an instance. A secret or token that is empty or malformed is refused.
func NewHook(o HookOptions) (*Hook, error) {
	switch {
	case o.Instance == "":
		return nil, errors.New("gitlab: the instance has no name")
	case o.Now == nil:
		return nil, errors.New("gitlab: no clock is given")
	case len(o.Secrets)+len(o.SigningTokens) == 0:
		return nil, errors.New("gitlab: neither a webhook secret nor a signing token is given")
	}
	h := &Hook{instance: o.Instance, now: o.Now}
	for _, s := range o.Secrets {
		if s == "" {
			return nil, errors.New("gitlab: a webhook secret is empty")
		}
		h.secrets = append(h.secrets, sha256.Sum256([]byte(s)))
	}
	for _, t := range o.SigningTokens {
		key, err := SigningKey(t)
		if err != nil {
			return nil, err
		}
		h.keys = append(h.keys, key)
	}
	return h, nil
}

// SigningKey is the key within a signing token. The error never contains the token.
func SigningKey(token string) ([]byte, error) {
	digits, ok := strings.CutPrefix(token, "whsec_")
	key, err := base64.StdEncoding.DecodeString(digits)
	if !ok || err != nil || len(key) < 24 { // Standard Webhooks: 24 to 64 bytes
		return nil, errors.New("gitlab: a webhook signing token is malformed; expected whsec_ and a key in base64")
	}
	return key, nil
}

// tolerance is how far the clock of a signed delivery may be from ours.
const tolerance = 5 * time.Minute

// Verify checks the signature where its header is present: then it must be good, whatever else was sent. Otherwise it
// checks X-Gitlab-Token. Neither takes a time that depends on where two values differ or which secret fits. The errors
// are forge.ErrSignatureMissing, …Malformed and …Wrong.
func (h *Hook) Verify(header http.Header, body []byte) error {
	if signed(header) {
		return h.verifySigned(header, body)
	}
	token := header.Get("X-Gitlab-Token")
	if token == "" {
		return forge.ErrSignatureMissing
	}
	given, fits := sha256.Sum256([]byte(token)), 0
	for _, s := range h.secrets {
		fits |= subtle.ConstantTimeCompare(given[:], s[:])
	}
	if fits == 0 {
		return forge.ErrSignatureWrong
	}
	return nil
}

func signed(header http.Header) bool { return len(header.Values("Webhook-Signature")) > 0 }

func (h *Hook) verifySigned(header http.Header, body []byte) error {
	id, stamp := header.Get("Webhook-Id"), header.Get("Webhook-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if id == "" || err != nil {
		return forge.ErrSignatureMalformed
	}
	var given [][]byte
	for _, value := range header.Values("Webhook-Signature") {
		for part := range strings.FieldsSeq(value) {
			version, digits, _ := strings.Cut(part, ",")
			if mac, err := base64.StdEncoding.DecodeString(digits); version == "v1" && err == nil {
				given = append(given, mac)
			}
		}
	}
	if len(given) == 0 {
		return forge.ErrSignatureMalformed
	}
	fits := false
	for _, key := range h.keys {
		mac := hmac.New(sha256.New, key)
		_, _ = mac.Write([]byte(id + "." + stamp + ".")) // a hash never fails
		_, _ = mac.Write(body)
		sum := mac.Sum(nil)
		for _, g := range given {
			fits = hmac.Equal(g, sum) || fits
		}
	}
	if age := h.now().Sub(time.Unix(seconds, 0)); !fits || age > tolerance || age < -tolerance {
		return forge.ErrSignatureWrong
	}
	return nil
}

// Route says where a verified delivery goes; kinds that nobody handles are said to be so. The error is a
// *forge.BadDelivery: the event's header is missing, the body is not JSON, or it names no subject. A body that names one
// but is otherwise malformed is routed with an empty mail body and the Flaw.
func (h *Hook) Route(header http.Header, body []byte) (forge.Routed, error) {
	event, ok := eventName(header.Get("X-Gitlab-Event"))
	to := forge.Routed{GUID: h.guid(header, body), Event: event}
	if !ok {
		return to, &forge.BadDelivery{Field: "X-Gitlab-Event", Want: "the event's name"}
	}
	if p := payloadOf(event); p != nil {
		return delivery.Read(h.instance, "project.id", to, body, p)
	}
	to.Ignored = "no handler for " + event
	return to, delivery.JSON(body)
}

// guid is what a delivery is recognised by when it is sent again. Older servers send no id: there it is a hash of all
// that was said. X-Gitlab-Event-UUID is shared by different deliveries and never taken.
func (h *Hook) guid(header http.Header, body []byte) string {
	ids := []string{header.Get("Idempotency-Key"), header.Get("Webhook-Id")}
	if signed(header) {
		ids = ids[1:] // the one that the signature covers
	}
	for _, id := range ids {
		if plain(id) {
			return id
		}
	}
	sum := sha256.New()
	for _, part := range []string{h.instance, header.Get("X-Gitlab-Event")} {
		_, _ = sum.Write([]byte(part + "\x00")) // a hash never fails
	}
	_, _ = sum.Write(body)
	return hex.EncodeToString(sum.Sum(nil))
}

// plain says whether an id may stand in keys and logs, as the edge demands.
func plain(id string) bool {
	return id != "" && len(id) <= 64 && !strings.ContainsFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// eventName makes "Merge Request Hook" "merge_request", and keeps everything but names of that form out of answers, logs
// and metrics.
func eventName(s string) (string, bool) {
	name := strings.ToLower(strings.ReplaceAll(strings.TrimSuffix(s, " Hook"), " ", "_"))
	return name, name != "" && len(name) <= 64 && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}

// Handles says whether deliveries of an event find somebody here; the name is that of Routed.Event.
func (*Hook) Handles(event string) bool { return payloadOf(event) != nil }

// payloadOf is where a delivery of an event is read into; nil = nobody handles any.
func payloadOf(event string) delivery.Payload {
	switch event {
	case "merge_request":
		return &mergePayload{}
	case "note":
		return &notePayload{}
	case "pipeline":
		return &pipelinePayload{}
	}
	return nil
}

// envelope is what every delivery about a project has.
type envelope struct {
	Project *struct {
		ID         int64  `json:"id"`
		Path       string `json:"path_with_namespace"`
		Visibility *int   `json:"visibility_level"` // 0 private, 10 internal, 20 public
	} `json:"project"`
	User *account `json:"user"`

	projectID int64 // of a wreck
}

// salvaged is what names the project in a body of the wrong shape.
func salvaged(w delivery.Wreck) envelope {
	return envelope{projectID: w.At("project").At("id").Whole()}
}

func (e *envelope) project() forge.Repo {
	if e.Project == nil {
		return forge.Repo{ID: e.projectID}
	}
	return forge.Repo{ID: e.Project.ID, Name: e.Project.Path, Private: e.Project.Visibility == nil || *e.Project.Visibility < 20}
}

type account struct {
	ID    int64  `json:"id"`
	Login string `json:"username"`
}

func (a *account) actor() forge.Actor {
	if a == nil {
		return forge.Actor{}
	}
	return actor(a.ID, a.Login)
}

// person is somebody of whom a payload tells the id only, unless it is the sender.
func (e *envelope) person(id int64) forge.Actor {
	if who := e.User.actor(); who.ID == id {
		return who
	}
	return forge.Actor{ID: id}
}

// stamp is a time as hooks write it, in one of three forms, cut to the second.
type stamp struct{ time.Time }

// UnmarshalJSON reads a time; null is the zero one.
func (s *stamp) UnmarshalJSON(b []byte) error {
	var text *string
	if err := stdjson.Unmarshal(b, &text); err != nil {
		return delivery.ErrTime
	}
	if text == nil {
		*s = stamp{}
		return nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05 UTC", "2006-01-02 15:04:05 -0700"} {
		if t, err := time.Parse(layout, *text); err == nil {
			*s = stamp{t.UTC().Truncate(time.Second)}
			return nil
		}
	}
	return delivery.ErrTime
}
