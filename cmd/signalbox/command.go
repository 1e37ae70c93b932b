package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/user"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
)

// What commands share: how they print, and how they find the running server or the store.

// configured are the flags of every command that needs the configuration.
type configured struct {
	Settings `embed:"" group:"Configuration, which the README explains:"`
}

// output is the flag of every command that prints data.
type output struct {
	Output string `enum:"text,json" default:"text" help:"text or json."`
}

// show prints v as JSON, or else what text writes, tabs as columns.
func (o output) show(to io.Writer, v any, text func(w io.Writer)) error {
	var b bytes.Buffer
	if o.Output == "json" {
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return err
		}
	} else {
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		text(w)
		_ = w.Flush() // into memory
	}
	_, err := b.WriteTo(to)
	return err
}

// look reads something from the store of a command's settings. A server may be running on it.
func look[T any](ctx context.Context, s Settings, p process, read func(admin, context.Context) (T, error)) (out T, err error) {
	c, err := s.ResolveOffline(p.environ, p.readFile)
	if err != nil {
		return out, err
	}
	return lookInto(ctx, c.Store, read)
}

func lookInto[T any](ctx context.Context, c Store, read func(admin, context.Context) (T, error)) (out T, err error) {
	st, err := openReader(ctx, c)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return read(admin{store: st}, ctx)
}

// ask has something done that operators may do: by the running server, in whose admin API it stands under name, or by
// do on the store itself, under its own lock, where none runs.
func ask[In, Out any](ctx context.Context, s Settings, p process, name string, do func(admin, context.Context, In) (Out, error), in In) (out Out, err error) {
	c, err := s.ResolveOffline(p.environ, p.readFile)
	if err != nil {
		return out, err
	}
	if at, ok := find(ctx, c); ok {
		err = at.post(ctx, name, in, &out)
		return out, err
	}
	if _, err := os.Stat(c.Store.Path); c.Store.Scheme == "file" && errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("no server answers and there is no store at %s: set SIGNALBOX_URL or SIGNALBOX_STORE", c.Store.Path)
	}
	st, locker, err := openStore(ctx, c.Store, c.LockTTL, nil)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	return do(admin{store: st, engine: actor.New(st, locker, actor.Options{Log: zap.NewNop()}), forges: c.Forges}, ctx, in)
}

// tell is ask for what has no answer but that it is done.
func tell[In any](ctx context.Context, s Settings, p process, name string, do func(admin, context.Context, In) (done, error), in In) error {
	if _, err := ask(ctx, s, p, name, do, in); err != nil {
		return err
	}
	_, err := fmt.Fprintln(p.out, "done")
	return err
}

// client speaks to a running server: over TCP with the admin token, or over the socket beside the embedded file.
type client struct {
	base  string
	token Secret
	http  http.Client
}

// askWithin bounds one question to the server; it waits for a decision itself (decideWait).
const askWithin = 2 * decideWait

// socketPath is where a server on an embedded file listens for commands; only its owner may connect.
func socketPath(c Store) string { return c.Path + ".sock" }

// find looks for a server at SIGNALBOX_URL, at the socket beside the embedded file, or else on the default port.
func find(ctx context.Context, c Config) (client, bool) {
	const byDefault = "127.0.0.1:8080"
	at := client{c.URL, c.AdminToken, http.Client{Timeout: askWithin}}
	switch sock := socketPath(c.Store); {
	case c.URL != "":
	case c.Store.Scheme == "file" && answers(ctx, "unix", sock):
		at.base = "http://socket"
		at.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", sock)
		}}
	case c.Store.Scheme != "file" && c.AdminToken.Set() && answers(ctx, "tcp", byDefault):
		at.base = "http://" + byDefault
	default:
		return client{}, false
	}
	return at, true
}

func answers(ctx context.Context, network, address string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

func (c client) post(ctx context.Context, what string, in, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.base, "/")+adminPath+what, bytes.NewReader(mustJSON(in)))
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token.Set() {
		req.Header.Set("Authorization", "Bearer "+c.token.Reveal())
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if res.StatusCode >= 300 {
		var fault apiError
		if json.Unmarshal(b, &fault) != nil || fault.Error.Message == "" {
			return fmt.Errorf("the server answered %s", res.Status)
		}
		err = fmt.Errorf("the server refused: %s", fault.Error.Message)
		if res.StatusCode == http.StatusUnprocessableEntity {
			err = usageError{err} // as where no server runs
		}
		return err
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer is not what it should be: %w", err)
	}
	return nil
}

// REF is what people type: INSTANCE:OWNER/REPO#N; owners nest on GitLab.
var refForm = regexp.MustCompile(`^[a-z0-9-]{1,32}:[^\s#:]+/[^\s#:]+#[1-9][0-9]{0,9}$`)

func checkRef(ref string) error {
	if !refForm.MatchString(ref) {
		return usageError{fmt.Errorf("%q: expected INSTANCE:OWNER/REPO#NUMBER, for example github:octo/hello#7", ref)}
	}
	return nil
}

// shaForm is a full commit: a prefix can be made to fit another commit.
var shaForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

func checkSHA(sha string) error {
	if !shaForm.MatchString(sha) {
		return usageError{fmt.Errorf("--sha %q: expected the full commit, 40 or 64 hexadecimal digits in lower case", sha)}
	}
	return nil
}

// repoForm is a repository as people type it.
var repoForm = regexp.MustCompile(`^[a-z0-9-]{1,32}:[^\s#:]+/[^\s#:]+$`)

// errNoForge: an order for a forge that this configuration does not have.
var errNoForge = errors.New("no such forge is configured")

// repoAt is a repository that somebody named, and the forge it is at.
func repoAt(forges []Forge, what string) (Forge, forge.Repo, error) {
	if !repoForm.MatchString(what) {
		return Forge{}, forge.Repo{}, usageError{fmt.Errorf("%q: expected INSTANCE:OWNER/REPO, for example github:octo/hello", what)}
	}
	instance, name, _ := strings.Cut(what, ":")
	i := slices.IndexFunc(forges, func(f Forge) bool { return f.Name == instance })
	if i < 0 {
		return Forge{}, forge.Repo{}, fmt.Errorf("%s: %w", instance, errNoForge)
	}
	return forges[i], forge.Repo{Instance: instance, Name: name}, nil
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
