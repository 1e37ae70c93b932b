package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strings"
)

// REF is what people type: INSTANCE:OWNER/REPO#N; owners nest on GitLab.
var refForm = regexp.MustCompile(`^[a-z0-9-]{1,32}:[^\s#:]+/[^\s#:]+#[1-9][0-9]{0,9}$`)

// shaForm is a full commit: a prefix can be made to fit another commit.
var shaForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func checkRef(ref string) error {
	if !refForm.MatchString(ref) {
		return usageError{fmt.Errorf("%q: expected INSTANCE:OWNER/REPO#NUMBER, for example github:octo/hello#7", ref)}
	}
	return nil
}

type approveCmd struct {
	Settings `embed:""`
	Ref      string `arg:"" placeholder:"REF" help:"INSTANCE:OWNER/REPO#NUMBER"`
	SHA      string `required:"" name:"sha" placeholder:"SHA" help:"The full commit that is approved; no other is."`
	Reason   string `required:"" placeholder:"TEXT" help:"Why; kept in the audit trail."`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (approveCmd) Help() string {
	return "Example:\n  signalbox approve github:octo/hello#7 --sha 6dcb09b5b57875f334f61aebed695e2e4193db5e --reason 'label service is down'"
}

// Run orders the approval of one commit.
func (c approveCmd) Run(ctx context.Context, p process) error {
	if err := checkRef(c.Ref); err != nil {
		return err
	}
	if !shaForm.MatchString(c.SHA) {
		return usageError{fmt.Errorf("--sha %q: expected the full commit, 40 or 64 hexadecimal digits in lower case", c.SHA)}
	}
	return give(ctx, p, c.Settings, order{Ref: c.Ref, SHA: c.SHA, Reason: c.Reason}, c.Output)
}

type revokeCmd struct {
	Settings `embed:""`
	Ref      string `arg:"" placeholder:"REF" help:"INSTANCE:OWNER/REPO#NUMBER"`
	Reason   string `required:"" placeholder:"TEXT" help:"Why; kept in the audit trail."`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (revokeCmd) Help() string {
	return "Example:\n  signalbox revoke github:octo/hello#7 --reason 'approved by mistake'"
}

// Run orders the end of whatever approval stands.
func (c revokeCmd) Run(ctx context.Context, p process) error {
	if err := checkRef(c.Ref); err != nil {
		return err
	}
	return give(ctx, p, c.Settings, order{Ref: c.Ref, Revoke: true, Reason: c.Reason}, c.Output)
}

// errNotGranted is the end of an approval that does not stand.
var errNotGranted = errors.New("not approved: the commit is not the head of the open pull request")

// give carries an order out and tells what became of it.
func give(ctx context.Context, p process, s Settings, o order, output string) (err error) {
	if o.Reason = strings.TrimSpace(o.Reason); o.Reason == "" {
		return usageError{errors.New("--reason is empty: expected why, for those who read the audit trail")}
	}
	op, done, err := connect(ctx, s, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	o.By = operatorName()
	out, err := op.order(ctx, o)
	if err != nil {
		return err
	}
	if output == "json" {
		err = printJSON(p.out, out)
		if out.Refused {
			err = errors.Join(err, errNotGranted)
		}
		return err
	}
	if out.Refused {
		return fmt.Errorf("%s: %w: %s", out.Ref, errNotGranted, out.Story)
	}
	if !out.Decided {
		_, err = fmt.Fprintf(p.out, "%s: stored; it is decided as soon as a server runs on this store\n", out.Ref)
		return err
	}
	_, err = fmt.Fprintf(p.out, "%s: %s\n", out.Ref, out.Story)
	return err
}

// operatorName is who the audit trail names: the account on this machine.
func operatorName() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}
