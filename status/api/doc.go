// Package api is the HTTP face of the commit-status service (docs/statuses.md): requests are judged, handed to the
// commit's subject, and answered once they are durably stored. It makes no call to a forge.
package api
