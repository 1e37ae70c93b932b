package runner

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// ours is what we derive from the server's key for a task, so that nothing secret is stored and a replay needs nothing
// new (R4).
func ours(key []byte, what string, task int64) string {
	return derived(key, what, strconv.FormatInt(task, 10))
}

func derived(key []byte, what, of string) string {
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "runner/%s/%s", what, of)
	return hex.EncodeToString(m.Sum(nil))[:40]
}

// nonce is what the last step of a task's payload hands back (R8).
func nonce(key []byte, task int64) string { return ours(key, "verdict", task) }

func hashed(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// same compares in constant time.
func same(hash, token string) bool {
	return subtle.ConstantTimeCompare([]byte(hash), []byte(hashed(token))) == 1
}

// random is 160 bits.
func random() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// invite adds a registration token and drops those that have expired.
func (t *turn) invite(i registrationToken) {
	kept := []registrationToken{i}
	for _, o := range t.p.Tokens {
		if o.Expires.After(t.now) {
			kept = append(kept, o)
		}
	}
	t.p.Tokens, t.changed = kept, true
}

// invites says whether there is such a registration token. Whether it still is good the decision says.
func (p Pool) invites(token string) bool {
	return slices.ContainsFunc(p.Tokens, func(o registrationToken) bool { return same(o.Hash, token) })
}

// register admits a runner if its token is one of ours. Its labels are those of the token that it asks for; they are
// all it can ever have. One that asks for none gets all: Forgejo's of version 13 names them in its Declare only.
func (t *turn) register(token, uuid, secret, name, version string, asked []string, ephemeral bool) (r Runner, ok bool) {
	found := -1
	for i, o := range t.p.Tokens {
		if same(o.Hash, token) && o.Expires.After(t.now) {
			found = i
		}
	}
	if found < 0 {
		return Runner{}, false
	}
	o := t.p.Tokens[found]
	if len(asked) == 0 {
		asked = o.Labels
	}
	for _, l := range names(asked) {
		for _, granted := range o.Labels {
			if l == granted {
				r.Allowed = append(r.Allowed, l)
			}
		}
	}
	if len(r.Allowed) == 0 {
		return Runner{}, false
	}
	if o.Once {
		t.p.Tokens = append(t.p.Tokens[:found:found], t.p.Tokens[found+1:]...)
	}
	r.Name, r.Version, r.Seen, r.Ephemeral = name, clip(version, 100), t.now, ephemeral
	return t.enlist(uuid, secret, r), true
}

// enlist makes r one of the pool's runners. Its labels are all that are allowed, until it declares fewer.
func (t *turn) enlist(uuid, secret string, r Runner) Runner {
	t.p.LastID++
	r.ID, r.Name, r.TokenHash, r.Labels = t.p.LastID, clip(r.Name, 100), hashed(secret), r.Allowed
	if t.p.Runners == nil {
		t.p.Runners = map[string]Runner{}
	}
	t.p.Runners[uuid] = r
	t.changed = true
	return r
}

// remove takes a runner out. Its tasks end as if it had fallen silent.
func (t *turn) remove(uuid string) bool {
	if _, ok := t.p.Runners[uuid]; !ok {
		return false
	}
	delete(t.p.Runners, uuid)
	t.changed = true
	for i := range t.p.Tasks {
		if k := &t.p.Tasks[i]; k.Runner == uuid && k.LeaseUntil.After(t.now) {
			k.LeaseUntil = t.now.Add(time.Millisecond)
		}
	}
	return true
}
