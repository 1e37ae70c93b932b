package redis

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/klauspost/compress/s2"
	"github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/state"
)

// Due lists subjects whose time has come, those due longest first. On a cluster the time is one node's.
func (s *Store) Due(ctx context.Context, limit int) ([]state.Subject, error) {
	if limit <= 0 {
		return nil, nil
	}
	now, err := s.client.Time(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("list due subjects: %w", err)
	}
	rows, err := s.everyShard(ctx, func(p redis.Pipeliner, tag string) redis.Cmder {
		return p.ZRangeByScoreWithScores(ctx, tag+"due", &redis.ZRangeBy{Min: "-inf", Max: fmt.Sprint(now.UnixMilli()), Count: int64(limit)})
	})
	if err != nil {
		return nil, fmt.Errorf("list due subjects: %w", err)
	}
	var all []redis.Z
	for _, r := range rows {
		all = append(all, r.(*redis.ZSliceCmd).Val()...)
	}
	slices.SortStableFunc(all, func(a, b redis.Z) int { return cmp.Compare(a.Score, b.Score) })
	all = all[:min(limit, len(all))]
	due := make([]state.Subject, len(all))
	for i, z := range all {
		if due[i], err = state.ParseSubject(z.Member.(string)); err != nil {
			return nil, fmt.Errorf("list due subjects: %w", err)
		}
	}
	return due, nil
}

// everyShard reads something in every shard in one pipeline.
func (s *Store) everyShard(ctx context.Context, read func(redis.Pipeliner, string) redis.Cmder) ([]redis.Cmder, error) {
	return s.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i := range state.Shards {
			read(p, shardTag(i))
		}
		return nil
	})
}

// Record reads one record; state.ErrNotFound if there is none.
func (s *Store) Record(ctx context.Context, subject state.Subject, key string) ([]byte, error) {
	k := keysOf(subject)
	v, err := s.get(ctx, k.record(key))
	if err != nil {
		return nil, fmt.Errorf("record %s of %s: %w", key, k.subject, err)
	}
	return v, nil
}

// Raw reads the body of a delivery to the subject as it arrived; state.ErrNotFound if it came without one or its
// state.RawLife is over. The subject is needed because it alone tells the shard.
func (s *Store) Raw(ctx context.Context, subject state.Subject, id string) ([]byte, error) {
	v, err := s.get(ctx, keysOf(subject).raw(id))
	if err == nil {
		v, err = s2.Decode(nil, v)
	}
	if err != nil {
		return nil, fmt.Errorf("raw body of %s: %w", id, err)
	}
	return v, nil
}

func (s *Store) get(ctx context.Context, key string) ([]byte, error) {
	v, err := s.client.Get(ctx, key).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, state.ErrNotFound
	}
	return v, err
}

// Journal answers the newest limit lines of a subject's story, the oldest of them first.
func (s *Store) Journal(ctx context.Context, subject state.Subject, limit int) ([][]byte, error) {
	if limit <= 0 {
		return nil, nil
	}
	k := keysOf(subject)
	v, err := s.client.LRange(ctx, k.journal(), -int64(limit), -1).Result()
	if err != nil {
		return nil, fmt.Errorf("journal of %s: %w", k.subject, err)
	}
	lines := make([][]byte, len(v))
	for i := range v {
		lines[i] = []byte(v[i])
	}
	return lines, nil
}

// List reads an index over all shards: entries whose label begins with prefix, by score, then label, then subject.
// The shards are read one after another, so a subject that moves meanwhile may be missed or seen in its old place.
func (s *Store) List(ctx context.Context, index, prefix string, limit int) ([]state.Entry, error) {
	if limit <= 0 {
		return nil, nil
	}
	rows, err := s.everyShard(ctx, func(p redis.Pipeliner, tag string) redis.Cmder {
		if prefix == "" {
			return p.ZRangeWithScores(ctx, tag+"ix:"+index, 0, int64(limit)-1)
		}
		return p.ZRangeByLex(ctx, tag+"ix:"+index, &redis.ZRangeBy{Min: "[" + prefix, Max: after(prefix), Count: int64(limit)})
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", index, err)
	}
	var all []state.Entry
	add := func(member string, score float64) error {
		// A subject is path-escaped and so has no \x00; a label might.
		cut := strings.LastIndexByte(member, 0)
		subject, err := state.ParseSubject(member[cut+1:])
		if err != nil {
			return fmt.Errorf("list %s: %w", index, err)
		}
		all = append(all, state.Entry{Subject: subject, Index: state.Index{Name: index, Label: member[:max(cut, 0)], Score: score}})
		return nil
	}
	for _, r := range rows {
		switch r := r.(type) {
		case *redis.ZSliceCmd:
			for _, z := range r.Val() {
				if err := add(z.Member.(string), z.Score); err != nil {
					return nil, err
				}
			}
		case *redis.StringSliceCmd:
			for _, m := range r.Val() {
				if err := add(m, 0); err != nil {
					return nil, err
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b state.Entry) int {
		return cmp.Or(cmp.Compare(a.Score, b.Score), cmp.Compare(a.Label, b.Label), cmp.Compare(a.Subject.String(), b.Subject.String()))
	})
	return all[:min(limit, len(all))], nil
}

// after is the end, exclusive, of the members that begin with prefix.
func after(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return "(" + string(b[:i+1])
		}
	}
	return "+"
}

// Identity names the history the store is on: the replication ids of all masters. It changes when a replica takes
// over, and when a server starts again; acknowledged writes may be gone then.
func (s *Store) Identity(ctx context.Context) (string, error) {
	var mu sync.Mutex
	var ids []string
	err := s.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		i, err := infoOf(ctx, c, "replication")
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		ids = append(ids, i["master_replid"])
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("identity of the store: %w", err)
	}
	slices.Sort(ids) // the nodes of a cluster are asked all at once
	sum := sha256.Sum256([]byte(strings.Join(ids, " ")))
	return hex.EncodeToString(sum[:16]), nil
}

// Ping asks every master for a sign of life.
func (s *Store) Ping(ctx context.Context) error {
	err := s.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error { return c.Ping(ctx).Err() })
	if err != nil {
		return fmt.Errorf("ping: %w", err)
	}
	return nil
}

// eachMaster calls f for each server that takes writes, at the same time where there are several.
func (s *Store) eachMaster(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	switch c := s.client.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, f)
	case *redis.Client:
		return f(ctx, c)
	}
	return fmt.Errorf("unknown kind of client %T", s.client)
}
