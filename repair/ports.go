package repair

import (
	"context"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// Lister lists what there is at a forge, a page at a time. Pages count from 1; next is 0 after the last. Every error
// is a *forge.Fault.
type Lister interface {
	// Installations lists the App's installations that are not suspended.
	Installations(ctx context.Context, page int) (ids []int64, next int, err error)
	// Repos lists what an installation sees; 0 = what the token sees.
	Repos(ctx context.Context, installation int64, page int) (repos []forge.Repo, next int, err error)
	// Updated lists pull requests in any state, the one updated last first. A page that reaches back beyond since is
	// the last; what was not updated since then is left out.
	Updated(ctx context.Context, repo forge.Repo, since time.Time, page int) (pulls []Pull, next int, err error)
	// Open lists open pull requests, oldest first.
	Open(ctx context.Context, repo forge.Repo, page int) (pulls []Pull, next int, err error)
}

// Pull is a pull request as a listing shows it.
type Pull struct {
	Ref                  forge.Ref // complete, however little of the repository was known before
	Open                 bool
	CreatedAt, UpdatedAt time.Time // the forge's clock
}

// Log is the forge's log of deliveries: of the App's hook, or with a token of the hooks of a repository that are
// ours.
type Log interface {
	// Failed reads the log from the newest attempt back to since, or as far as one call goes; next is where to go on,
	// empty at the end. A delivery of which any attempt that was read arrived is not among the failed. The zero Repo
	// is the App. ErrNoLog: the forge keeps none, or does not show it to us.
	Failed(ctx context.Context, repo forge.Repo, since time.Time, from string) (failed []Delivery, next string, err error)
	// Redeliver asks the forge to send one again, under its old id. One that the log no longer has is a Fault of
	// class NotFound.
	Redeliver(ctx context.Context, repo forge.Repo, d Delivery) error
}

// Delivery is one that never arrived.
type Delivery struct {
	GUID  string    `json:"guid"` // the same for every attempt
	Event string    `json:"event"`
	Hook  int64     `json:"hook,omitempty"` // 0 = the App's
	ID    int64     `json:"id"`             // of the newest attempt
	At    time.Time `json:"at"`             // of the newest attempt, the forge's clock
}

// NoLog is an answer of Failed: there is no log that we could read. It is a state of the installation and nothing that
// goes away by asking again. Its text says why.
type NoLog struct {
	Why string
	// Disabled: the forge shows that it sends no deliveries at all, in words; empty = it shows nothing of the kind.
	Disabled string
}

func (e *NoLog) Error() string { return "no delivery log: " + e.Why }

// Store is what a sweep reads of ours, without taking part.
type Store interface {
	Load(ctx context.Context, s state.Subject) (state.Snapshot, error)
	Record(ctx context.Context, s state.Subject, key string) ([]byte, error)
	List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error)
}

// Forge is one configured forge as a sweep needs it.
type Forge struct {
	Lister Lister
	Log    Log
	// Handles says whether a delivery of this event would find somebody here.
	Handles func(event string) bool
	// Named are the repositories that the allow-list names in full, "owner/name"; Wild says that it has patterns
	// besides. With neither, a token's sweep covers the repositories known from documents.
	Named []string
	Wild  bool
}

// Config is what New needs. Every function must be safe for concurrent use.
type Config struct {
	Forge   func(instance string) (Forge, error)
	Allowed func(forge.Repo) bool
	Store   Store
	Tell    func(context.Context, state.Delivery) (state.Accepted, error)
	Every   time.Duration // pause between two sweeps
	Pace    Pace
	// Adopt: pull requests never heard of are told to look at themselves; otherwise they wait for their next event.
	Adopt bool
	// DryRun: nothing is asked of the forge but to be read.
	DryRun bool
}

// Pace is the time between two of a kind, so that arriving webhooks always find room.
type Pace struct {
	Adopt time.Duration // tells of pull requests never heard of
	Known time.Duration // tells of those we know
	Ask   time.Duration // requests to send a delivery again
}

// Unhurried is the pace of a service: at most 20 adoptions in any minute (docs/rules.md, Adoption), 60 comparisons, and a write to
// the forge each second, which is what GitHub asks of clients that write.
func Unhurried() Pace {
	return Pace{Adopt: 3200 * time.Millisecond, Known: time.Second, Ask: time.Second}
}
