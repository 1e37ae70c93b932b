package status

import (
	"context"

	"github.com/signalbox-ci/signalbox/forge"
)

// Statuses is what the statuses of clients need of a forge. Every error is a *forge.Fault; what the forge refuses
// because it shows that already is no error.
type Statuses interface {
	// FindStatus says whether the newest status of our own in s.Context on s.SHA is of s.Run (where the forge keeps
	// that) and shows what s says, and answers its receipt.
	FindStatus(ctx context.Context, s forge.Status) (r forge.StatusReceipt, found bool, err error)
	// WriteStatus shows s, whatever is shown before: the order is the caller's.
	WriteStatus(ctx context.Context, s forge.Status) (forge.StatusReceipt, error)
}
