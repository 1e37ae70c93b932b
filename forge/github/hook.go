package github

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/goccy/go-json"

	"github.com/signalbox-ci/signalbox/forge"
)

// Hook is the receiving side of one GitHub: it verifies deliveries and says where they go. It makes no call, keeps
// nothing, and is safe for concurrent use.
//
// GitHub signs the body only. The event's name and the delivery's id are headers, so whoever has seen one delivery
// can send its body again under another id; what a delivery says is therefore a nudge, and the decision reads the
// live state.
type Hook struct {
	instance string
	secrets  [][]byte
}

// NewHook makes the receiving side of an instance. Several secrets are several that count, while one is being
// replaced; none, or an empty one, is refused, since anybody could sign with it.
func NewHook(instance string, secrets []string) (*Hook, error) {
	if instance == "" {
		return nil, errors.New("github: the instance has no name")
	}
	if len(secrets) == 0 {
		return nil, errors.New("github: no webhook secret is given")
	}
	h := &Hook{instance: instance}
	for _, s := range secrets {
		if s == "" {
			return nil, errors.New("github: a webhook secret is empty")
		}
		h.secrets = append(h.secrets, []byte(s))
	}
	return h, nil
}

// Verify checks X-Hub-Signature-256, the HMAC-SHA256 of the raw body, against every secret, in a time that does not
// depend on where they differ or which one fits. The older SHA-1 header is not looked at. The errors are
// forge.ErrSignatureMissing, …Malformed and …Wrong.
func (h *Hook) Verify(header http.Header, body []byte) error {
	value := header.Get("X-Hub-Signature-256")
	if value == "" {
		return forge.ErrSignatureMissing
	}
	digits, ok := strings.CutPrefix(value, "sha256=")
	given, err := hex.DecodeString(digits)
	if !ok || err != nil || len(given) != sha256.Size {
		return forge.ErrSignatureMalformed
	}
	fits := false
	for _, secret := range h.secrets {
		mac := hmac.New(sha256.New, secret)
		_, _ = mac.Write(body) // a hash never fails
		fits = hmac.Equal(given, mac.Sum(nil)) || fits
	}
	if !fits {
		return forge.ErrSignatureWrong
	}
	return nil
}

// Route says where a verified delivery goes, by house.md §2; a ping and kinds that nobody handles are said to be so. The
// error is a *forge.BadDelivery: a header is missing, the body is not JSON, or it names no subject. A body that names one
// but is otherwise malformed is routed with an empty mail body and the Flaw.
func (h *Hook) Route(header http.Header, body []byte) (forge.Routed, error) {
	to := forge.Routed{GUID: header.Get("X-GitHub-Delivery"), Event: header.Get("X-GitHub-Event")}
	switch {
	case to.GUID == "":
		return to, &forge.BadDelivery{Field: "X-GitHub-Delivery", Want: "the delivery's id"}
	case !eventName(to.Event):
		return to, &forge.BadDelivery{Field: "X-GitHub-Event", Want: "the event's name"}
	}
	if p := payloadOf(to.Event); p != nil {
		return h.route(to, body, p)
	}
	if !stdjson.Valid(body) {
		return to, errNotJSON()
	}
	if to.Event == "ping" {
		to.Ping = true
	} else {
		to.Ignored = "no handler for " + to.Event
	}
	return to, nil
}

// Handles says whether some deliveries of an event go anywhere.
func (*Hook) Handles(event string) bool { return payloadOf(event) != nil }

// payloadOf is where a delivery of an event is read into; nil = nobody handles any.
func payloadOf(event string) payload {
	switch event {
	case "pull_request":
		return &pullPayload{}
	case "issue_comment":
		return &commentPayload{}
	case "check_run":
		return &checkPayload{}
	case "workflow_run":
		return &runPayload{}
	case "merge_group":
		return &groupPayload{}
	}
	return nil
}

// payload is what is read of one kind of delivery, and nothing else: titles, descriptions and what the sender's account
// says of itself never enter the store as mail.
type payload interface {
	shared() *envelope
	// rescue reads anew, from a body of the wrong shape, what routes.
	rescue(body wreck)
	// address says which mail for which subject it is, or why nobody handles it. The error is a *forge.BadDelivery.
	address() (to address, ignored string, err error)
	// mail is its forge-neutral form, or what is wrong with it.
	mail(to forge.Routed) (body any, flaw string)
}

// address is a subject of a repository, and what kind of mail goes there.
type address struct {
	kind, key string
	mail      string
	format    int
	hint      bool // can be read again at the forge
}

// envelope is what every delivery about a repository has.
type envelope struct {
	Action     string      `json:"action"`
	Repository *repository `json:"repository"`
	Sender     *account    `json:"sender"`
	// Installation is there for hooks of an App.
	Installation *struct {
		ID int64 `json:"id"`
	} `json:"installation"`
}

func (e *envelope) shared() *envelope { return e }

// maxMail is the longest mail, in bytes, that a delivery of GitHub's can become.
const maxMail = 64 << 10

// route routes a delivery into p. The body is decoded once; only one that does not fit is looked at again.
func (h *Hook) route(to forge.Routed, body []byte, p payload) (forge.Routed, error) {
	if err := json.Unmarshal(body, p); err != nil {
		if !stdjson.Valid(body) {
			return to, errNotJSON()
		}
		to.Flaw = flaw(err)
		w := wreck(body)
		repo := w.at("repository")
		if !w.object() || repo.there() && !repo.object() {
			return to, &forge.BadDelivery{Field: "repository", Want: "an object"}
		}
		p.rescue(w)
		e := p.shared()
		e.Action, e.Repository = w.at("action").text(), &repository{ID: repo.at("id").whole(), Name: repo.at("full_name").text()}
	}
	e := p.shared()
	to.Action = e.Action
	at, ignored, err := p.address()
	if ignored != "" {
		to.Flaw, to.Ignored = "", ignored
		return to, nil
	}
	if e.Repository.id() <= 0 {
		return to, &forge.BadDelivery{Field: "repository.id", Want: "a positive number"}
	}
	if err != nil {
		return to, err
	}
	to.Repo = forge.Repo{Instance: h.instance, ID: e.Repository.ID, Name: e.Repository.Name, Private: e.Repository.Private}
	if e.Installation != nil {
		to.Repo.Installation = e.Installation.ID
	}
	to.Project, to.Kind, to.Key = strconv.FormatInt(to.Repo.ID, 10), at.kind, at.key
	to.MailKind, to.Format, to.Hint = at.mail, at.format, at.hint
	if to.Flaw != "" {
		return to, nil
	}
	mail, wrong := p.mail(to)
	if to.Flaw = wrong; wrong != "" {
		return to, nil
	}
	if to.Body, err = stdjson.Marshal(mail); err != nil { // goccy does not know omitzero
		to.Flaw = flaw(err)
	} else if len(to.Body) > maxMail {
		to.Flaw, to.Body = "body: expected fields of ordinary length", nil
	}
	return to, nil
}

type repository struct {
	ID      int64  `json:"id"`
	Name    string `json:"full_name"`
	Private bool   `json:"private"`
}

func (r *repository) id() int64 {
	if r == nil {
		return 0
	}
	return r.ID
}

type account struct {
	ID    int64  `json:"id"`
	Login string `json:"login"`
	Type  string `json:"type"`
}

func (a *account) actor() forge.Actor {
	if a == nil {
		return forge.Actor{}
	}
	return forge.Actor{ID: a.ID, Login: a.Login, Bot: a.Type == "Bot"}
}

// wreck is a JSON value of which no shape can be relied on. What is not there, or is something else, reads as zero.
type wreck stdjson.RawMessage

func (w wreck) at(member string) wreck {
	var members map[string]stdjson.RawMessage
	if stdjson.Unmarshal(w, &members) != nil {
		return nil
	}
	return wreck(members[member])
}

func (w wreck) there() bool { return len(w) > 0 && string(w) != "null" }

func (w wreck) object() bool { return strings.HasPrefix(strings.TrimLeft(string(w), " \t\r\n"), "{") }

func (w wreck) whole() int64 {
	n, err := strconv.ParseInt(string(w), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

func (w wreck) text() string {
	var s string
	if stdjson.Unmarshal(w, &s) != nil {
		return ""
	}
	return s
}

// flaw says which field is wrong, in words that quote nothing of the body (the decoder's own do).
func flaw(err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) && wrong.Field != "" {
		return wrong.Field + ": expected " + wrong.Type.String()
	}
	return "body: expected the shape of its event"
}

func errNotJSON() error { return &forge.BadDelivery{Field: "body", Want: "JSON"} }

// eventName keeps everything but names of GitHub's form out of answers, logs and metrics.
func eventName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}
