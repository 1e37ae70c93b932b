package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

const (
	tokenPrefix = "sbstatus_"    // begins every token of a project, as runPrefix those of a run
	tokenIndex  = "status-token" // where the tokens that were not revoked are listed
	tokensMost  = 1000           // listed at once
)

// ErrNoToken says that no token of that id is known, or that it was revoked before.
var ErrNoToken = errors.New("no such token is known")

// Grant is what a token of projects is good for, as it is stored: the token itself is not.
type Grant struct {
	ID string `json:"id"` // the principal that contexts belong to
	// Repos are of one instance, and complete: nobody asks the forge for them again.
	Repos []forge.Repo `json:"repos"`
	// Contexts are names, or beginnings of names followed by "*"; empty = every context.
	Contexts []string  `json:"contexts,omitempty"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires,omitzero"` // zero = when it is revoked
	By       string    `json:"by"`               // who made it, for those who read the list
}

// kept is the document of one token.
type kept struct {
	Grant
	Hash    string    `json:"hash"` // SHA-256 of the token, in hex
	Revoked time.Time `json:"revoked,omitzero"`
}

func tokenSubject(id string) state.Subject {
	return state.Subject{Instance: "-", Project: "-", Kind: "system", Key: tokenIndex + ":" + id}
}

// Issue makes a token for g.Repos and g.Contexts, good for life (0 = until it is revoked), and answers it: this once,
// since only its hash is kept.
func Issue(ctx context.Context, e *actor.Engine, g Grant, life time.Duration) (string, error) {
	g.ID = random(8)
	token := tokenPrefix + g.ID + "_" + random(20)
	_, err := actor.Ask(ctx, e, tokenSubject(g.ID), "", func(_ kept, now time.Time) (actor.Step[kept], error) {
		if g.Created = now; life > 0 {
			g.Expires = now.Add(life)
		}
		return actor.Step[kept]{Next: kept{Grant: g, Hash: hashed(token)}, Index: []state.Index{{Name: tokenIndex, Label: g.ID}}}, nil
	})
	if err != nil {
		return "", fmt.Errorf("keep the token: %w", err)
	}
	return token, nil
}

// Revoke ends a token: no request after it is admitted, on any server. What it owns stays its own.
func Revoke(ctx context.Context, e *actor.Engine, id string) error {
	_, err := actor.Ask(ctx, e, tokenSubject(id), "", func(k kept, now time.Time) (actor.Step[kept], error) {
		if k.Hash == "" || !k.Revoked.IsZero() {
			return actor.Step[kept]{}, ErrNoToken
		}
		k.Revoked = now
		return actor.Step[kept]{Next: k}, nil
	})
	if err != nil {
		return fmt.Errorf("revoke token %q: %w", id, err)
	}
	return nil
}

// Grants lists the tokens that were not revoked, oldest first.
func Grants(ctx context.Context, s Store) ([]Grant, error) {
	rows, err := s.List(ctx, tokenIndex, "", tokensMost)
	if err != nil {
		return nil, fmt.Errorf("list tokens: %w", err)
	}
	out := make([]Grant, 0, len(rows))
	for _, r := range rows {
		k, err := grant(ctx, s, r.Label)
		if err != nil {
			return nil, err
		}
		out = append(out, k.Grant)
	}
	slices.SortFunc(out, func(a, b Grant) int { return a.Created.Compare(b.Created) })
	return out, nil
}

func grant(ctx context.Context, s Store, id string) (k kept, err error) {
	v, err := actor.See(ctx, s, tokenSubject(id))
	if err != nil {
		return kept{}, fmt.Errorf("read token %q: %w", id, err)
	}
	if len(v.Doc) == 0 {
		return kept{}, nil
	}
	if err := json.Unmarshal(v.Doc, &k); err != nil {
		return kept{}, fmt.Errorf("read token %q: %w", id, err)
	}
	return k, nil
}

// admitted says what token is good for at now; ok is false where it is none of ours, has expired or was revoked.
func admitted(ctx context.Context, s Store, token string, now time.Time) (g Grant, ok bool, err error) {
	id, _, found := strings.Cut(strings.TrimPrefix(token, tokenPrefix), "_")
	if !found || !strings.HasPrefix(token, tokenPrefix) || len(id) != 16 {
		return Grant{}, false, nil
	}
	k, err := grant(ctx, s, id)
	if err != nil {
		return Grant{}, false, err
	}
	same := subtle.ConstantTimeCompare([]byte(k.Hash), []byte(hashed(token))) == 1
	if !same || !k.Revoked.IsZero() || !k.Expires.IsZero() && !now.Before(k.Expires) {
		return Grant{}, false, nil
	}
	return k.Grant, true, nil
}

// covers says whether the grant admits a context.
func (g Grant) covers(context string) bool {
	return len(g.Contexts) == 0 || slices.ContainsFunc(g.Contexts, func(c string) bool {
		beginning, wide := strings.CutSuffix(c, "*")
		return c == context || wide && strings.HasPrefix(context, beginning)
	})
}

// repo finds a project by the forge's id or by its path, whose case no forge minds.
func (g Grant) repo(project string) (forge.Repo, bool) {
	i := slices.IndexFunc(g.Repos, func(r forge.Repo) bool {
		return fmt.Sprint(r.ID) == project || strings.EqualFold(r.Name, project)
	})
	if i < 0 {
		return forge.Repo{}, false
	}
	return g.Repos[i], true
}

func hashed(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// random is n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
