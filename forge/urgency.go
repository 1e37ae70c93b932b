package forge

import "context"

// Urgency says what a call is for, so that an adapter can keep the last of a credential's budget for what matters
// (docs/rules.md, Failures): below 20 % cosmetic calls wait, below 5 % permitting ones too, shutting ones never.
type Urgency int

// The urgencies, most urgent first. A context without one is Shutting: looking a fact up never waits for a reserve.
const (
	Shutting Urgency = iota
	Permitting
	Cosmetic
)

type urgencyKey struct{}

// WithUrgency marks every call made under the context.
func WithUrgency(ctx context.Context, u Urgency) context.Context {
	return context.WithValue(ctx, urgencyKey{}, u)
}

// UrgencyOf is what WithUrgency set, or Shutting.
func UrgencyOf(ctx context.Context) Urgency {
	u, _ := ctx.Value(urgencyKey{}).(Urgency)
	return u
}
