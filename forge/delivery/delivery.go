// Package delivery reads the body of a webhook delivery, whichever forge sends it, into a forge.Routed. It is decoded
// once into what the adapter wants of that kind of delivery and nothing else; a body of the wrong shape is looked at
// again (Wreck), so that what names a subject reaches it, and a person sees a dead letter instead of nobody anything.
package delivery

import (
	stdjson "encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/goccy/go-json"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
)

// Payload is what is read of one kind of delivery, and nothing else: titles, descriptions and what accounts say of
// themselves never enter the store as mail.
type Payload interface {
	// About is what the delivery calls itself beyond its event, and its repository; an ID of 0 is none.
	About() (action string, repo forge.Repo)
	// Rescue reads anew, from a body of the wrong shape, what routes, and forgets all else.
	Rescue(body Wreck)
	// Address says which mail for which subject it is, or why nobody handles it. The error is a *forge.BadDelivery.
	Address() (to Address, ignored string, err error)
	// Mail is its forge-neutral form, or what is wrong with it.
	Mail(to forge.Routed) (body any, flaw string)
}

// Address is a subject of a repository, and what kind of mail goes there.
type Address struct {
	Kind, Key string
	Mail      string
	Format    int
	Hint      bool // can be read again at the forge
}

// ErrTime is for a Payload's times that are none: the flaw then says so.
var ErrTime = errors.New("expected a time")

// Longest mail, in bytes, and action, in runes, that a delivery can become.
const (
	maxMail   = 64 << 10
	maxAction = 40
)

// JSON says that a body is JSON; the error is a *forge.BadDelivery. (goccy takes some of what is not.)
func JSON(body []byte) error {
	if !stdjson.Valid(body) {
		return &forge.BadDelivery{Field: "body", Want: "JSON"}
	}
	return nil
}

// Read reads the body of a verified delivery to an instance into p, and completes to, of which the id and the event are
// known; named is the JSON path of the repository's id. The error is a *forge.BadDelivery. A body that names a subject
// but is otherwise malformed is routed with an empty mail body and the Flaw.
func Read(instance, named string, to forge.Routed, body []byte, p Payload) (forge.Routed, error) {
	if err := JSON(body); err != nil {
		return to, err
	}
	if err := json.Unmarshal(body, p); err != nil {
		to.Flaw = flaw(err)
		w := Wreck(body)
		if !w.object() {
			return to, &forge.BadDelivery{Field: "body", Want: "an object"}
		}
		p.Rescue(w)
	}
	action, repo := p.About()
	to.Action = wire.Cut(action, maxAction)
	at, ignored, err := p.Address()
	if ignored != "" {
		to.Flaw, to.Ignored = "", ignored
		return to, nil
	}
	if to.Repo = repo; repo.ID <= 0 {
		return to, &forge.BadDelivery{Field: named, Want: "a positive number"}
	}
	if err != nil {
		return to, err
	}
	to.Repo.Instance = instance
	to.Project, to.Kind, to.Key = strconv.FormatInt(repo.ID, 10), at.Kind, at.Key
	to.MailKind, to.Format, to.Hint = at.Mail, at.Format, at.Hint
	if to.Flaw != "" {
		return to, nil
	}
	mail, wrong := p.Mail(to)
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

// Wreck is a JSON value of which no shape can be relied on. What is not there, or is something else, reads as zero.
type Wreck stdjson.RawMessage

// At is a member of an object.
func (w Wreck) At(member string) Wreck {
	var members map[string]stdjson.RawMessage
	if stdjson.Unmarshal(w, &members) != nil {
		return nil
	}
	return Wreck(members[member])
}

// There says that it is there and not null.
func (w Wreck) There() bool { return len(w) > 0 && string(w) != "null" }

func (w Wreck) object() bool { return strings.HasPrefix(strings.TrimLeft(string(w), " \t\r\n"), "{") }

// Whole is a whole number.
func (w Wreck) Whole() int64 {
	n, err := strconv.ParseInt(string(w), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Text is a string.
func (w Wreck) Text() string {
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
	if errors.Is(err, ErrTime) {
		return "body: expected times"
	}
	return "body: expected the shape of its event"
}
