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
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
)

// operator carries out what an operator asks: through the running server, or on the store itself where none runs.
type operator interface {
	order(ctx context.Context, o order) (ordered, error)
	repair(ctx context.Context, r repair) error
	reconcile(ctx context.Context, r reconciliation) ([]ordered, error)
	redeliver(ctx context.Context) ([]ordered, error)
	runnerOperator
	statusOperator
}

// client speaks to a running server, over TCP with the admin token or over the socket beside the embedded file.
type client struct {
	base  string
	token Secret
	http  *http.Client
}

// direct works on the store itself.
type direct struct{ admin }

func (d direct) order(ctx context.Context, o order) (ordered, error) { return d.admin.order(ctx, o, 0) }

func (d direct) reconcile(ctx context.Context, r reconciliation) ([]ordered, error) {
	return d.admin.reconcile(ctx, r, 0)
}

func (d direct) redeliver(ctx context.Context) ([]ordered, error) { return d.admin.redeliver(ctx, 0) }

// askWithin bounds one question to the server; it waits for a decision itself (decideWait).
const askWithin = 2 * decideWait

// socketPath is where a server on an embedded file listens for commands; only its owner may connect.
func socketPath(c Store) string { return c.Path + ".sock" }

// connect finds whoever can carry out an order: SIGNALBOX_URL, the socket beside the embedded file, a server on the
// default port, and with none of them the store under its own lock. The function it answers must be called at the end.
func connect(ctx context.Context, s Settings, p process) (operator, func() error, error) {
	c, err := s.ResolveOffline(p.environ, p.readFile)
	if err != nil {
		return nil, nil, err
	}
	none := func() error { return nil }
	if c.URL != "" {
		return client{c.URL, c.AdminToken, &http.Client{Timeout: askWithin}}, none, nil
	}
	if c.Store.Scheme == "file" {
		if sock := socketPath(c.Store); answers(ctx, "unix", sock) {
			t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				var d net.Dialer
				return d.DialContext(ctx, "unix", sock)
			}}
			return client{"http://socket", c.AdminToken, &http.Client{Transport: t, Timeout: askWithin}}, none, nil
		}
		if _, err := os.Stat(c.Store.Path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("no server answers and there is no store at %s: set SIGNALBOX_URL or SIGNALBOX_STORE", c.Store.Path)
		}
	} else if c.AdminToken.Set() && answers(ctx, "tcp", "127.0.0.1:8080") {
		return client{"http://127.0.0.1:8080", c.AdminToken, &http.Client{Timeout: askWithin}}, none, nil
	}
	st, locker, err := openStore(ctx, c.Store, c.LockTTL, nil)
	if err != nil {
		return nil, nil, err
	}
	engine := actor.New(st, locker, actor.Options{Log: zap.NewNop()})
	return direct{admin{st, engine, c.Forges}}, st.Close, nil
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

func (c client) order(ctx context.Context, o order) (ordered, error) {
	var out ordered
	return out, c.post(ctx, "orders", o, &out)
}

func (c client) repair(ctx context.Context, r repair) error {
	return c.post(ctx, "repairs", r, nil)
}

func (c client) reconcile(ctx context.Context, r reconciliation) (out []ordered, err error) {
	return out, c.post(ctx, "reconciliations", r, &out)
}

func (c client) redeliver(ctx context.Context) (out []ordered, err error) {
	return out, c.post(ctx, "redeliveries", struct{}{}, &out)
}

func (c client) post(ctx context.Context, what string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.base, "/")+adminPath+what, bytes.NewReader(body))
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
		if json.Unmarshal(b, &fault) == nil && fault.Error.Message != "" {
			err = fmt.Errorf("the server refused: %s", fault.Error.Message)
			if res.StatusCode == http.StatusUnprocessableEntity {
				err = usageError{err} // as where no server runs
			}
			return err
		}
		return fmt.Errorf("the server answered %s", res.Status)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("the server's answer is not what it should be: %w", err)
	}
	return nil
}
