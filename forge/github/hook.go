package github

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	stdjson "encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-json"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
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

// Route says where a verified delivery goes, by house.md §2. A pull_request becomes mail for its subject; a ping and
// kinds that nobody handles are said to be so. The error is a *forge.BadDelivery: a header is missing, the body is
// not JSON, or it names no pull request. A body that names one but is otherwise malformed is routed with an empty
// mail body and the Flaw.
func (h *Hook) Route(header http.Header, body []byte) (forge.Routed, error) {
	to := forge.Routed{GUID: header.Get("X-GitHub-Delivery"), Event: header.Get("X-GitHub-Event")}
	switch {
	case to.GUID == "":
		return to, &forge.BadDelivery{Field: "X-GitHub-Delivery", Want: "the delivery's id"}
	case !eventName(to.Event):
		return to, &forge.BadDelivery{Field: "X-GitHub-Event", Want: "the event's name"}
	}
	if to.Event == "pull_request" {
		return h.pull(to, body)
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

// pull routes a pull_request delivery. The body is decoded once; only one that does not fit is looked at again.
func (h *Hook) pull(to forge.Routed, body []byte) (forge.Routed, error) {
	var p payload
	if err := json.Unmarshal(body, &p); err != nil {
		if !stdjson.Valid(body) {
			return to, errNotJSON()
		}
		to.Flaw = flaw(err)
		if p, err = rescue(body); err != nil {
			return to, err
		}
	}
	if p.PullRequest == nil {
		p.PullRequest = &pull{}
		to.Flaw = "pull_request: expected an object"
	}
	number := p.PullRequest.Number
	if number == 0 {
		number = p.Number
	}
	switch {
	case p.Repository == nil || p.Repository.ID <= 0:
		return to, &forge.BadDelivery{Field: "repository.id", Want: "a positive number"}
	case number <= 0 || p.Number != 0 && p.Number != number:
		return to, &forge.BadDelivery{Field: "pull_request.number", Want: "a positive number"}
	}
	to.Action = p.Action
	to.Repo = forge.Repo{Instance: h.instance, ID: p.Repository.ID, Name: p.Repository.Name, Private: p.Repository.Private}
	if p.Installation != nil {
		to.Repo.Installation = p.Installation.ID
	}
	to.Project, to.Kind, to.Key = strconv.FormatInt(to.Repo.ID, 10), "pr", strconv.Itoa(number)
	to.MailKind, to.Format, to.Hint = prmanager.KindPull, prmanager.Format, true
	if to.Flaw != "" {
		return to, nil
	}
	mail, err := json.Marshal(p.note(to, number))
	if err != nil {
		to.Flaw = flaw(err)
	}
	to.Body = mail
	return to, nil
}

// payload is what a decision needs of a pull_request delivery, and nothing else: titles, descriptions, the head
// branch's name and what the sender's account says of itself never enter the store as mail.
type payload struct {
	Action string `json:"action"`
	Number int    `json:"number"`
	Before string `json:"before"`
	After  string `json:"after"`
	Label  *struct {
		Name string `json:"name"`
	} `json:"label"`
	Changes struct {
		Base struct {
			Ref struct {
				From string `json:"from"`
			} `json:"ref"`
		} `json:"base"`
	} `json:"changes"`
	PullRequest *pull       `json:"pull_request"`
	Repository  *repository `json:"repository"`
	Sender      *account    `json:"sender"`
	// Installation is there for hooks of an App.
	Installation *struct {
		ID int64 `json:"id"`
	} `json:"installation"`
}

type pull struct {
	Number    int       `json:"number"`
	State     string    `json:"state"`
	Merged    bool      `json:"merged"`
	Draft     bool      `json:"draft"`
	User      *account  `json:"user"` // null: the account was deleted
	UpdatedAt time.Time `json:"updated_at"`
	Head      branch    `json:"head"`
	Base      branch    `json:"base"`
}

type branch struct {
	SHA  string      `json:"sha"`
	Ref  string      `json:"ref"`
	Repo *repository `json:"repo"` // null: the fork was deleted
}

type repository struct {
	ID      int64  `json:"id"`
	Name    string `json:"full_name"`
	Private bool   `json:"private"`
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

func (r *repository) id() int64 {
	if r == nil {
		return 0
	}
	return r.ID
}

func (p *payload) note(to forge.Routed, number int) prmanager.Note {
	live := p.PullRequest
	n := prmanager.Note{
		Actions: []prmanager.Action{action(p)}, Delivery: to.GUID,
		Pull: forge.Pull{
			Ref:  forge.Ref{Repo: to.Repo, Number: number},
			Open: live.State == "open", Merged: live.Merged, Draft: live.Draft,
			Author:    live.User.actor(),
			Head:      forge.Branch{SHA: live.Head.SHA, RepoID: live.Head.Repo.id()},
			Base:      forge.Branch{SHA: live.Base.SHA, Name: live.Base.Ref, RepoID: live.Base.Repo.id()},
			UpdatedAt: live.UpdatedAt,
		},
		Sender:   p.Sender.actor(),
		BaseFrom: p.Changes.Base.Ref.From,
	}
	if n.Actions[0] == prmanager.ActionPushed {
		n.Before, n.After = p.Before, p.After
	}
	if p.Label != nil { // without it the action is a nudge all the same: the label history is read
		n.Labels = []string{p.Label.Name}
	}
	return n
}

// action says GitHub's action in the gate's words. A word that the gate has none for is passed on as it is.
func action(p *payload) prmanager.Action {
	switch p.Action {
	case "opened":
		return prmanager.ActionOpened
	case "synchronize":
		return prmanager.ActionPushed
	case "labeled":
		return prmanager.ActionLabelled
	case "unlabeled":
		return prmanager.ActionUnlabelled
	case "converted_to_draft":
		return prmanager.ActionDraft
	case "ready_for_review":
		return prmanager.ActionReady
	case "closed":
		return prmanager.ActionClosed
	case "reopened":
		return prmanager.ActionReopened
	case "edited":
		if p.Changes.Base.Ref.From != "" {
			return prmanager.ActionBaseChanged
		}
	}
	return prmanager.Action(cut(p.Action, 40))
}

// rescue reads only what routes from a body that is JSON of the wrong shape.
func rescue(body []byte) (payload, error) {
	type id struct {
		ID any `json:"id"`
		// Name is a string, or of no use.
		Name any `json:"full_name"`
	}
	var r struct {
		Action      any `json:"action"`
		Number      any `json:"number"`
		PullRequest any `json:"pull_request"`
		Repository  id  `json:"repository"`
	}
	decoder := stdjson.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&r); err != nil {
		return payload{}, &forge.BadDelivery{Field: "repository", Want: "an object"}
	}
	whole := func(v any) int64 {
		n, _ := v.(stdjson.Number)
		i, err := n.Int64()
		if err != nil {
			return 0
		}
		return i
	}
	p := payload{Number: int(whole(r.Number)), PullRequest: &pull{}, Repository: &repository{ID: whole(r.Repository.ID)}}
	p.Action, _ = r.Action.(string)
	p.Repository.Name, _ = r.Repository.Name.(string)
	if fields, ok := r.PullRequest.(map[string]any); ok {
		p.PullRequest.Number = int(whole(fields["number"]))
	}
	return p, nil
}

// flaw says which field is wrong, in words that quote nothing of the body (the decoder's own do).
func flaw(err error) string {
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) && wrong.Field != "" {
		return wrong.Field + ": expected " + wrong.Type.String()
	}
	return "body: expected the shape of a pull_request delivery"
}

func errNotJSON() error { return &forge.BadDelivery{Field: "body", Want: "JSON"} }

// eventName keeps everything but names of GitHub's form out of answers, logs and metrics.
func eventName(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
}
