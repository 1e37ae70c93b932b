package github

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/delivery"
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

// Route says where a verified delivery goes, by docs/architecture.md; a ping and kinds that nobody handles are said to be so. The
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
		return delivery.Read(h.instance, "repository.id", to, body, p)
	}
	if err := delivery.JSON(body); err != nil {
		return to, err
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
func payloadOf(event string) delivery.Payload {
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

// About is the action and the repository.
func (e *envelope) About() (string, forge.Repo) {
	repo := forge.Repo{ID: e.Repository.id()}
	if repo.ID != 0 {
		repo.Name, repo.Private = e.Repository.Name, e.Repository.Private
	}
	if e.Installation != nil {
		repo.Installation = e.Installation.ID
	}
	return e.Action, repo
}

// salvaged is what names the repository in a body of the wrong shape.
func salvaged(w delivery.Wreck) envelope {
	repo := w.At("repository")
	return envelope{Action: w.At("action").Text(), Repository: &repository{ID: repo.At("id").Whole(), Name: repo.At("full_name").Text()}}
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

// eventName keeps everything but names of GitHub's form out of answers, logs and metrics.
func eventName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}
