package redis_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
	"github.com/signalbox-ci/signalbox/state/statetest"
)

func TestConformance(t *testing.T) {
	t.Run("one server", func(t *testing.T) { conformance(t, redistest.Start(t, redistest.Options{}).URL()) })
	t.Run("cluster", func(t *testing.T) { conformance(t, redistest.StartCluster(t, redistest.Options{}).URL()) })
}

func conformance(t *testing.T, url string) {
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		s := open(t, url)
		c := s.Client()
		flush := func(ctx context.Context, c *goredis.Client) error { return c.FlushAll(ctx).Err() }
		if err := eachMaster(t.Context(), c, flush); err != nil {
			t.Fatal(err)
		}
		return statetest.Harness{
			Store: s,
			Lock: func(tb testing.TB, s state.Subject, token string, ttl time.Duration) {
				if err := c.Set(tb.Context(), s.LockKey(), token, ttl).Err(); err != nil {
					tb.Error(err)
				}
			},
			Unlock: func(tb testing.TB, s state.Subject) {
				if err := c.Del(tb.Context(), s.LockKey()).Err(); err != nil {
					tb.Error(err)
				}
			},
			Token: func(tb testing.TB, s state.Subject) string {
				v, err := c.Get(tb.Context(), s.LockKey()).Result()
				if err != nil && !errors.Is(err, goredis.Nil) {
					tb.Error(err)
				}
				return v
			},
			Left: func(tb testing.TB) (left []string) {
				var mu sync.Mutex
				if err := eachMaster(tb.Context(), c, func(ctx context.Context, c *goredis.Client) error {
					keys, err := c.Keys(ctx, "*").Result()
					mu.Lock()
					defer mu.Unlock()
					left = append(left, slices.DeleteFunc(keys, func(k string) bool { return besides.MatchString(k) })...)
					return err
				}); err != nil {
					tb.Error(err)
				}
				return left
			},
		}
	})
}

// besides are the keys that belong to no subject. Of the last there is one in each shard.
var besides = regexp.MustCompile(`^sb:{s\d{3}}:(dd:.*|raw:.*|gone)$`)

func open(tb testing.TB, url string) *redis.Store {
	tb.Helper()
	s, err := redis.Open(tb.Context(), url)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

func eachMaster(ctx context.Context, c goredis.UniversalClient, f func(context.Context, *goredis.Client) error) error {
	if cc, ok := c.(*goredis.ClusterClient); ok {
		return cc.ForEachMaster(ctx, f)
	}
	return f(ctx, c.(*goredis.Client))
}
