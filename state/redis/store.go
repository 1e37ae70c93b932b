// Package redis keeps subjects in Redis 7.0 or newer, or Valkey 7.2 or newer: one server, one watched by sentinels,
// or a cluster. Everything a subject owns lives in the hash slot of its shard ({s000} to {s255}), its lease included,
// so that each operation is one script that runs as one step, on a cluster too. The scripts are the .lua files beside
// this one, each headed by its keys, arguments and answers.
//
// Keys, for the shard {s} of a subject:
//
//	sb:{s}:st:<subject>        hash: v version, s document, h holder, q last sequence number, f flag, x places in
//	                           indexes, b whom the last takeover found
//	sb:{s}:in:<subject>        list: the mailbox, "<seq> <accepted ms> <header JSON>\n<body>" each
//	sb:{s}:jr:<subject>        list: the journal
//	sb:{s}:lk:<subject>        string: the lease (state.Subject.LockKey)
//	sb:{s}:rec:<subject>:<key> string: a record
//	sb:{s}:due                 sorted set: subjects by when they are due, ms; one that is held, by the end of its lease
//	sb:{s}:ix:<name>           sorted set: "<label>\x00<subject>" by score; accept and commit keep
//	                           state.MailLabel of state.OldestSince themselves
//	sb:{s}:gone                string: the version of a subject that is not there; 0 where missing, never less than before
//	sb:{s}:dd:<id>             string: a delivery id that has taken effect
//	sb:{s}:raw:<id>            string: a body as it arrived, s2
//
// Times are the server's, in milliseconds, read inside the scripts. Every script may be sent again: go-redis does so
// by itself when an answer is lost.
package redis

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/state"
)

//go:embed *.lua
var sources embed.FS

// Store keeps subjects in Redis. It is safe for concurrent use. A call ends with the deadline of its context; a mere
// cancellation is noticed only between attempts, which last at most readTimeout.
type Store struct {
	client redis.UniversalClient
	memory gauge
	places names

	acceptOwn *redis.Script // accept where memory has run out

	accept, begin, load, confirm, commit, postpone *redis.Script
}

func newStore(client redis.UniversalClient) (*Store, error) {
	s := &Store{client: client}
	for name, script := range map[string]**redis.Script{
		"accept": &s.accept, "begin": &s.begin, "load": &s.load,
		"confirm": &s.confirm, "commit": &s.commit, "defer": &s.postpone,
	} {
		src, err := sources.ReadFile(name + ".lua")
		if err != nil {
			return nil, err
		}
		*script = redis.NewScript(string(src))
		if name == "accept" {
			s.acceptOwn = redis.NewScript(strings.Replace(string(src), "#!lua\n", "#!lua flags=allow-oom\n", 1))
		}
	}
	return s, nil
}

// Client is the connection to Redis, for leases to share (lock.NewRedis). It ends with the store.
func (s *Store) Client() redis.UniversalClient { return s.client }

// Close ends the connections. Operations under way fail.
func (s *Store) Close() error { return s.client.Close() }

// keys of one subject.
type keys struct{ tag, subject string }

func keysOf(s state.Subject) keys { return keys{shardTag(s.Shard()), s.String()} }

func shardTag(shard int) string { return fmt.Sprintf("sb:{s%03d}:", shard) }

func (k keys) state() string            { return k.tag + "st:" + k.subject }
func (k keys) mailbox() string          { return k.tag + "in:" + k.subject }
func (k keys) journal() string          { return k.tag + "jr:" + k.subject }
func (k keys) lease() string            { return k.tag + "lk:" + k.subject }
func (k keys) record(key string) string { return k.tag + "rec:" + k.subject + ":" + key }
func (k keys) due() string              { return k.tag + "due" }
func (k keys) gone() string             { return k.tag + "gone" }
func (k keys) index(name string) string { return k.tag + "ix:" + name }
func (k keys) delivery(id string) string {
	return k.tag + "dd:" + id
}
func (k keys) raw(id string) string { return k.tag + "raw:" + id }

// reply is what a script answered: a word, then fields.
type reply []any

// run runs a script; the server gets its text only where it does not know it yet.
func (s *Store) run(ctx context.Context, script *redis.Script, keys []string, args ...any) (reply, error) {
	r, err := script.Run(ctx, s.client, keys, args...).Slice()
	if err != nil {
		return nil, err
	}
	if len(r) == 0 {
		return nil, errors.New("empty answer of a script")
	}
	return r, nil
}

func (r reply) text(i int) string {
	if i < len(r) {
		v, _ := r[i].(string)
		return v
	}
	return ""
}

// number reads an integer, which Lua sends as such where it computed it and as text where it read it from a key.
func (r reply) number(i int) (int64, error) {
	if i >= len(r) {
		return 0, fmt.Errorf("answer of a script has %d fields, no number %d", len(r), i)
	}
	switch v := r[i].(type) {
	case int64:
		return v, nil
	case string:
		return strconv.ParseInt(v, 10, 64)
	}
	return 0, fmt.Errorf("field %d of a script's answer is a %T", i, r[i])
}

func (r reply) time(i int) (time.Time, error) {
	ms, err := r.number(i)
	return time.UnixMilli(ms).UTC(), err
}

// verdict reads the word of an answer to a fenced operation.
func (r reply) verdict() (state.Verdict, error) {
	switch w := r.text(0); w {
	case "OK":
		return state.OK, nil
	case "MOVED":
		return state.Moved, nil
	case "NOTOWNER":
		return state.NotOwner, nil
	default:
		return 0, fmt.Errorf("unknown answer %q of a script", w)
	}
}
