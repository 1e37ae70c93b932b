package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/signalbox-ci/signalbox/prmanager"
)

// orderArgs are what approval and revocation have in common.
type orderArgs struct {
	configured
	Ref    string `arg:"" placeholder:"REF" help:"INSTANCE:OWNER/REPO#NUMBER"`
	Reason string `required:"" placeholder:"TEXT" help:"Why; kept in the audit trail."`
	output
}

type approveCmd struct {
	orderArgs
	SHA string `required:"" name:"sha" placeholder:"SHA" help:"The full commit that is approved; no other is."`
}

func (approveCmd) Help() string {
	return "Example:\n  signalbox approve github:octo/hello#7 --sha 6dcb09b5b57875f334f61aebed695e2e4193db5e --reason 'label service is down'"
}

// Run orders the approval of one commit.
func (c approveCmd) Run(ctx context.Context, p process) error {
	if err := checkSHA(c.SHA); err != nil {
		return err
	}
	return c.give(ctx, p, order{SHA: c.SHA})
}

type revokeCmd struct{ orderArgs }

func (revokeCmd) Help() string {
	return "Example:\n  signalbox revoke github:octo/hello#7 --reason 'approved by mistake'"
}

// Run orders the end of whatever approval stands.
func (c revokeCmd) Run(ctx context.Context, p process) error {
	return c.give(ctx, p, order{Revoke: true})
}

// errNotGranted is the end of an approval that does not stand.
var errNotGranted = errors.New("not approved: the commit is not the head of the open pull request")

// give carries an order out and tells what became of it.
func (c orderArgs) give(ctx context.Context, p process, o order) error {
	if err := checkRef(c.Ref); err != nil {
		return err
	}
	o.Ref, o.By, o.Reason = c.Ref, operatorName(), strings.TrimSpace(c.Reason)
	if o.Reason == "" {
		return usageError{errors.New("--reason is empty: expected why, for those who read the audit trail")}
	}
	out, err := ask(ctx, c.Settings, p, "orders", admin.order, o)
	if err != nil {
		return err
	}
	err = c.show(p.out, out, func(w io.Writer) { fmt.Fprintln(w, out) })
	if out.Refused {
		err = errors.Join(errNotGranted, err)
	}
	return err
}

// order is a break-glass approval or revocation.
type order struct {
	Ref    string `json:"ref"`
	Revoke bool   `json:"revoke,omitempty"`
	SHA    string `json:"sha,omitempty"`
	By     string `json:"by"`
	Reason string `json:"reason"`
}

func (a admin) order(ctx context.Context, o order) (ordered, error) {
	out, d, err := a.sendPull(ctx, o.Ref, prmanager.KindOrder, func(d prmanager.PR) any {
		return prmanager.Order{Ref: d.Ref, Revoke: o.Revoke, SHA: o.SHA, By: o.By, Reason: o.Reason}
	})
	g := d.Standing()
	out.Refused = out.Decided && !o.Revoke && len(d.Asked) == 0 && (g == nil || g.SHA != o.SHA)
	return out, err
}
