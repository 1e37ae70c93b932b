package forge

import (
	"errors"
	"fmt"
)

// Routed is where a verified delivery goes. A forge's hook fills it from a few fields of the body; the webhook edge
// stores it without knowing the forge. Exactly one of three things holds: Ping, Ignored is not empty, or the
// delivery has a subject (Project, Kind and Key are all set).
type Routed struct {
	GUID   string // delivery id, the same on a redelivery; never empty
	Event  string // the forge's name of the event, for logs and metrics
	Action string // its action, may be empty

	Ping    bool   // the forge greets a new hook: 200, nothing stored
	Ignored string // why nobody handles it: 200, nothing stored

	// Project, Kind and Key are the parts of the subject after the instance: "1296269", "pr", "7".
	Project, Kind, Key string
	Repo               Repo // as the delivery shows it; for the allow-list and for logs

	// MailKind, Format and Body are the mail: what Body is, in which format. Body is empty where the subject is
	// known but the rest could not be read; the mail is stored all the same, so that a person sees it as a dead
	// letter, and Flaw says what is wrong.
	MailKind string
	Format   int
	Body     []byte
	Flaw     string
	// Hint marks mail that can be re-read at the forge and may be dropped in a flood (state.Delivery).
	Hint bool
}

// Errors of a hook's Verify. Their texts may be shown to the sender (401).
var (
	ErrSignatureMissing   = errors.New("signature missing: the hook has no secret")
	ErrSignatureMalformed = errors.New("signature malformed")
	ErrSignatureWrong     = errors.New("signature wrong: other secret, form-encoded hook, or a proxy that rewrites the body")
)

// BadDelivery is the error of a hook's Route for a delivery that names no subject because it is malformed: not
// JSON, a missing header, a wrong type. The edge answers 400 with its text, which never quotes the body.
type BadDelivery struct {
	Field string // header or JSON path, "X-GitHub-Delivery", "repository.id"; "body" for the whole
	Want  string // what was expected there
}

func (e *BadDelivery) Error() string { return fmt.Sprintf("%s: expected %s", e.Field, e.Want) }
