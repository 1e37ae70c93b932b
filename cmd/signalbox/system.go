package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// What a store keeps for the service as a whole, in subjects of kind "system".

// remember compares a forge's address with the one this store was first used with: ids of one forge must never be
// taken for another's.
func remember(ctx context.Context, e *actor.Engine, f Forge) error {
	s := state.Subject{Instance: f.Name, Project: "-", Kind: "system", Key: "forge"}
	type known struct {
		URL string `json:"url"`
	}
	_, err := actor.Ask(ctx, e, s, "", func(d known, _ time.Time) (actor.Step[known], error) {
		if d.URL != "" && d.URL != f.APIURL {
			return actor.Step[known]{}, fmt.Errorf("forge %s: this store was first used with %s, and the configuration says %s; "+
				"give the new address a new instance name, or use a new store", f.Name, d.URL, f.APIURL)
		}
		return actor.Step[known]{Next: known{f.APIURL}}, nil
	})
	if err != nil {
		return fmt.Errorf("remember forge %s: %w", f.Name, err)
	}
	return nil
}

// secretKey is the configured key, or the one that the store's first server made.
func secretKey(ctx context.Context, e *actor.Engine, configured Secret) ([]byte, error) {
	if configured.Set() {
		return []byte(configured.Reveal()), nil
	}
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails
	type kept struct {
		Key []byte `json:"key"`
	}
	key, err := actor.Ask(ctx, e, state.Subject{Instance: "-", Project: "-", Kind: "system", Key: "secret"}, "", func(d kept, _ time.Time) (actor.Step[kept], error) {
		if len(d.Key) == 0 {
			d.Key = fresh
		}
		return actor.Step[kept]{Next: d, Reply: d.Key}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep a secret key in the store: %w", err)
	}
	return key, nil
}

// Pin remembers for ever which account a login in a `user:` rule means: the one it meant when it was first asked for.
func (w wiring) Pin(ctx context.Context, instance, login string, id int64) (int64, error) {
	login = strings.ToLower(login)
	s := state.Subject{Instance: instance, Project: "-", Kind: "system", Key: "pins"}
	type pins map[string]int64
	reply, err := actor.Ask(ctx, w.engine, s, "", func(d pins, _ time.Time) (actor.Step[pins], error) {
		if d == nil {
			d = pins{}
		}
		if d[login] == 0 {
			d[login] = id
		}
		return actor.Step[pins]{Next: d, Reply: mustJSON(d[login])}, nil
	})
	if err != nil {
		return 0, fmt.Errorf("pin user %s: %w", login, err)
	}
	var pinned int64
	if err := json.Unmarshal(reply, &pinned); err != nil {
		return 0, fmt.Errorf("pin user %s: %w", login, err)
	}
	return pinned, nil
}
