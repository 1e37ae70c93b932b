package lock

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/state/redistest"
)

func TestExtendIsTriedAgainWhileRedisHangs(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	a := take(t, redisWorld(t, s, 6*time.Second).one)
	s.Stop()
	if err := a.Extend(t.Context()); err == nil || errors.Is(err, ErrLost) {
		t.Fatalf("extend against a stopped server: %v", err)
	}
	alive(t, a)
	s.Cont()
	before := a.Deadline()
	redistest.Until(t, "the renewal gets through", func() bool { return a.Deadline().After(before) })
	alive(t, a)
}

func TestLeaseEndsAtItsDeadlineWhileRedisHangs(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	w := redisWorld(t, s, time.Second)
	a := take(t, w.one)
	s.Stop()
	lost(t, a)
	s.Cont()
	redistest.Until(t, "the key ends by its TTL or the release", func() bool {
		err := a.Release(t.Context())
		return (err == nil || errors.Is(err, ErrLost)) && w.value(t) == ""
	})
}

func TestTryLockEndsWithItsContextWhileRedisHangs(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	l := redisWorld(t, s, time.Minute).one
	release(t, take(t, l)) // a connection stands
	s.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := l.TryLock(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, want DeadlineExceeded", err)
	}
	// Without a deadline of the caller's the attempt has its own.
	if _, err := l.TryLock(t.Context(), key); err == nil || errors.Is(err, ErrBusy) {
		t.Fatalf("got %v, want a fault", err)
	}
	s.Cont()
}

// A context that ends after Redis has set the key and before the answer is looked at must not leave the key behind.
func TestContextEndedDuringTheAttemptLeavesNothing(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	w := redisWorld(t, s, time.Minute)
	for name, answer := range map[string]error{"answered": nil, "answer lost": errors.New("connection reset")} {
		ctx, cancel := context.WithCancel(t.Context())
		h := &hook{after: func(cmd redis.Cmder) error {
			var replaced error
			if cmd.Name() == "set" && ctx.Err() == nil {
				if w.value(t) == "" {
					t.Errorf("%s: the key was not set", name)
				}
				cancel()
				replaced = answer
			}
			return replaced
		}}
		c := s.Client()
		c.AddHook(h)
		if _, err := NewRedis(c, time.Minute).TryLock(ctx, key); !errors.Is(err, context.Canceled) {
			t.Fatalf("%s: got %v, want Canceled", name, err)
		}
		wantValue(t, w, "")
	}
}

// hook may replace the outcome of a command that was executed.
type hook struct{ after func(redis.Cmder) error }

func (h *hook) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (h *hook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if e := h.after(cmd); e != nil {
			cmd.SetErr(e)
			return e
		}
		return err
	}
}

func (h *hook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestAFullRedisStillGivesLeases(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Options{})
	c := s.Client()
	w := redisWorld(t, s, time.Second)
	if err := c.ConfigSet(t.Context(), "maxmemory", "1kb").Err(); err != nil {
		t.Fatal(err)
	}
	if err := c.Set(t.Context(), "k", "v", 0).Err(); !redis.HasErrorPrefix(err, "OOM") {
		t.Fatalf("the server is not full: %v", err)
	}
	a := take(t, w.one)
	wantValue(t, w, a.Token())
	if err := a.Extend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.two.TryLock(t.Context(), key); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v, want ErrBusy", err)
	}
	release(t, a)
	wantValue(t, w, "")
}

func TestNewRedisRefusesAClientThatIgnoresDeadlines(t *testing.T) {
	for _, c := range []redis.UniversalClient{
		redis.NewClient(&redis.Options{Addr: "127.0.0.1:1"}),
		redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}}),
	} {
		defer c.Close()
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%T was taken", c)
				}
			}()
			NewRedis(c, time.Second)
		}()
	}
}
