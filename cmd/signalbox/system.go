package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// keep changes what the store keeps for the service as a whole, in a subject of kind "system", and answers what is kept
// then. An error of change keeps everything as it was.
func keep[D any](ctx context.Context, e *actor.Engine, instance, key string, change func(*D) error) (kept D, err error) {
	s := state.Subject{Instance: instance, Project: "-", Kind: "system", Key: key}
	_, err = actor.Ask(ctx, e, s, "", func(d D, _ time.Time) (actor.Step[D], error) {
		err := change(&d)
		kept = d // of the last call, which is the one that is saved
		return actor.Step[D]{Next: d}, err
	})
	return kept, err
}

// remember compares a forge's address with the one this store was first used with: ids of one forge must never be
// taken for another's.
func remember(ctx context.Context, e *actor.Engine, f Forge) error {
	type known struct {
		URL string `json:"url"`
	}
	_, err := keep(ctx, e, f.Name, "forge", func(d *known) error {
		if d.URL != "" && d.URL != f.APIURL {
			return fmt.Errorf("forge %s: this store was first used with %s, and the configuration says %s; "+
				"give the new address a new instance name, or use a new store", f.Name, d.URL, f.APIURL)
		}
		d.URL = f.APIURL
		return nil
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
	type secret struct {
		Key []byte `json:"key"`
	}
	kept, err := keep(ctx, e, "-", "secret", func(d *secret) error {
		if len(d.Key) == 0 {
			d.Key = fresh
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("keep a secret key in the store: %w", err)
	}
	return kept.Key, nil
}

// Pin remembers for ever which account a login in a `user:` rule means: the one it meant when it was first asked for.
func (w wiring) Pin(ctx context.Context, instance, login string, id int64) (int64, error) {
	login = strings.ToLower(login)
	pins, err := keep(ctx, w.engine, instance, "pins", func(d *map[string]int64) error {
		if *d == nil {
			*d = map[string]int64{}
		}
		if (*d)[login] == 0 {
			(*d)[login] = id
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("pin user %s: %w", login, err)
	}
	return pins[login], nil
}

// wake plans the first work of a subject that wakes itself from then on.
func wake[D any](ctx context.Context, e *actor.Engine, s state.Subject, seed func(D, time.Time) actor.Step[D]) error {
	_, err := actor.Ask(ctx, e, s, "", func(d D, now time.Time) (actor.Step[D], error) { return seed(d, now), nil })
	if err != nil {
		return fmt.Errorf("wake %s: %w", s, err)
	}
	return nil
}
