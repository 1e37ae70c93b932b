package lock

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/signalbox-ci/signalbox/state/redistest"
)

const key = "sb:{s017}:lk:github/1296269/pr/7"

// world is one keeper of keys with two instances on it, and the hands to play third parties.
type world struct {
	one, two Locker // as two instances would have them
	value    func(t *testing.T) string
	set      func(t *testing.T, token string)
	drop     func(t *testing.T)
}

// TestLocker holds Redis, on a real server, and Local, on virtual time, to the same promises.
func TestLocker(t *testing.T) {
	cases := []struct {
		name string
		run  func(*testing.T, world)
	}{
		{"the key's value is a UUID v4, new per acquisition", tokenIsUUID},
		{"a held key is busy and stays untouched", busy},
		{"of 64 at once one wins", oneWinner},
		{"renewal holds the key past its TTL", renewalHolds},
		{"a holder that stops renewing is lost at its deadline and taken over", takeover},
		{"a stale holder's release leaves the successor's key", staleRelease},
		{"extend after being taken says lost", extendTaken},
		{"the renewal notices that the key was taken", renewalTaken},
		{"a lost lease stays lost", lostStaysLost},
		{"extend publishes the new deadline", extendPublishes},
		{"paused means that nobody touches the key", pausedIsQuiet},
		{"resume renews again", resumes},
		{"release deletes the key and ends the context, even on an ended context", releases},
		{"release of a key that is gone is fine", releaseGone},
		{"an ended context takes nothing", endedContext},
		{"the lease outlives the context of its acquisition", outlivesAcquisition},
		{"all methods at once", allAtOnce},
	}
	t.Run("local", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				// The bubble fails the test if a goroutine is left.
				synctest.Test(t, func(t *testing.T) { c.run(t, localWorld()) })
			})
		}
	})
	t.Run("redis", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				s := redistest.Start(t, redistest.Options{})
				c.run(t, redisWorld(t, s, time.Second))
			})
		}
	})
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func localWorld() world {
	l := NewLocal(time.Second)
	return world{l, l,
		func(*testing.T) string {
			l.mu.Lock()
			defer l.mu.Unlock()
			if k := l.held[key]; time.Now().Before(k.until) {
				return k.token
			}
			return ""
		},
		func(_ *testing.T, token string) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.held[key] = localKey{token, time.Now().Add(time.Hour)}
		},
		func(*testing.T) {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.held, key)
		}}
}

func redisWorld(t *testing.T, s *redistest.Server, ttl time.Duration) world {
	c := s.Client()
	return world{NewRedis(s.Client(), ttl), NewRedis(s.Client(), ttl),
		func(t *testing.T) string {
			v, err := c.Get(t.Context(), key).Result()
			if err != nil && !errors.Is(err, redis.Nil) {
				t.Fatal(err)
			}
			return v
		},
		func(t *testing.T, token string) {
			if err := c.Set(t.Context(), key, token, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
		},
		func(t *testing.T) {
			if err := c.Del(t.Context(), key).Err(); err != nil {
				t.Fatal(err)
			}
		}}
}

// take takes the key and gives it back with the test.
func take(t *testing.T, l Locker) Lease {
	t.Helper()
	le, err := l.TryLock(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = le.Release(t.Context()) })
	return le
}

func release(t *testing.T, le Lease) {
	t.Helper()
	if err := le.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// lost waits for the end of the lease and wants it to be a loss.
func lost(t *testing.T, le Lease) {
	t.Helper()
	select {
	case <-le.Context().Done():
	case <-time.After(30 * time.Second):
		t.Fatal("the lease never ended")
	}
	if err := context.Cause(le.Context()); !errors.Is(err, ErrLost) {
		t.Fatalf("cause %v, want ErrLost", err)
	}
}

func alive(t *testing.T, le Lease) {
	t.Helper()
	if err := context.Cause(le.Context()); err != nil {
		t.Fatalf("the lease ended: %v", err)
	}
}

func wantValue(t *testing.T, w world, token string) {
	t.Helper()
	if v := w.value(t); v != token {
		t.Fatalf("the key holds %q, want %q", v, token)
	}
}

func tokenIsUUID(t *testing.T, w world) {
	a := take(t, w.one)
	if u, err := uuid.Parse(a.Token()); err != nil || u.Version() != 4 {
		t.Fatalf("token %q: version %v, %v", a.Token(), u.Version(), err)
	}
	wantValue(t, w, a.Token())
	release(t, a)
	if b := take(t, w.one); b.Token() == a.Token() {
		t.Fatal("the token came again")
	}
}

func busy(t *testing.T, w world) {
	a := take(t, w.one)
	for _, l := range []Locker{w.one, w.two} {
		if _, err := l.TryLock(t.Context(), key); !errors.Is(err, ErrBusy) {
			t.Fatalf("got %v, want ErrBusy", err)
		}
	}
	wantValue(t, w, a.Token())
	alive(t, a)
}

func oneWinner(t *testing.T, w world) {
	var wins atomic.Int32
	var all sync.WaitGroup
	for i := range 64 {
		l := w.one
		if i%2 == 1 {
			l = w.two
		}
		all.Go(func() {
			le, err := l.TryLock(t.Context(), key)
			if err == nil {
				wins.Add(1)
				t.Cleanup(func() { _ = le.Release(t.Context()) })
			} else if !errors.Is(err, ErrBusy) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := wins.Load(); n != 1 {
		t.Fatalf("%d winners", n)
	}
}

func renewalHolds(t *testing.T, w world) {
	a := take(t, w.one)
	first := a.Deadline()
	redistest.Until(t, "a time past the first deadline", func() bool { return time.Now().After(first.Add(w.one.TTL() / 2)) })
	alive(t, a)
	wantValue(t, w, a.Token())
	if !time.Now().Before(a.Deadline()) {
		t.Fatal("the published deadline was not moved")
	}
	a.Pause()
	lost(t, a) // the moved deadline ends it like the first would have
}

func takeover(t *testing.T, w world) {
	a := take(t, w.one)
	a.Pause()
	lost(t, a)
	if time.Now().Before(a.Deadline()) {
		t.Fatal("lost before the published deadline")
	}
	redistest.Until(t, "the key is free", func() bool { return w.value(t) == "" })
	b := take(t, w.two)
	wantValue(t, w, b.Token())
	alive(t, b)
}

func staleRelease(t *testing.T, w world) {
	a := take(t, w.one)
	a.Pause()
	redistest.Until(t, "the key is free", func() bool { return w.value(t) == "" })
	b := take(t, w.two)
	if err := a.Release(t.Context()); !errors.Is(err, ErrLost) {
		t.Fatalf("got %v, want ErrLost", err)
	}
	wantValue(t, w, b.Token())
	if err := a.Release(t.Context()); err != nil {
		t.Fatalf("second release: %v", err)
	}
	alive(t, b)
}

func extendTaken(t *testing.T, w world) {
	a := take(t, w.one)
	w.set(t, "another")
	if err := a.Extend(t.Context()); !errors.Is(err, ErrLost) {
		t.Fatalf("got %v, want ErrLost", err)
	}
	if err := context.Cause(a.Context()); !errors.Is(err, ErrLost) {
		t.Fatalf("the context goes on: %v", err)
	}
	wantValue(t, w, "another")
}

func renewalTaken(t *testing.T, w world) {
	a := take(t, w.one)
	w.set(t, "another")
	lost(t, a)
	wantValue(t, w, "another")
}

func lostStaysLost(t *testing.T, w world) {
	a := take(t, w.one)
	w.set(t, "another")
	lost(t, a)
	w.set(t, a.Token()) // as if the key could be had again
	if err := a.Extend(t.Context()); !errors.Is(err, ErrLost) {
		t.Fatalf("got %v, want ErrLost", err)
	}
}

func extendPublishes(t *testing.T, w world) {
	a := take(t, w.one)
	before, start := a.Deadline(), time.Now()
	redistest.Until(t, "the clock moves", func() bool { return time.Now().After(start) })
	if err := a.Extend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := a.Deadline(); !after.After(before) || after.After(time.Now().Add(w.one.TTL())) {
		t.Fatalf("deadline %v, before %v, now %v", after, before, time.Now())
	}
}

func pausedIsQuiet(t *testing.T, w world) {
	a := take(t, w.one)
	a.Pause()
	a.Pause()
	before := a.Deadline()
	if err := a.Extend(t.Context()); err == nil || errors.Is(err, ErrLost) {
		t.Fatalf("extend while paused: %v", err)
	}
	if a.Deadline() != before {
		t.Fatal("the deadline moved")
	}
	alive(t, a)
	lost(t, a)
}

func resumes(t *testing.T, w world) {
	a := take(t, w.one)
	a.Pause()
	before := a.Deadline()
	a.Resume()
	a.Resume()
	redistest.Until(t, "the deadline moves", func() bool { return a.Deadline().After(before) })
	alive(t, a)
	wantValue(t, w, a.Token())
}

func releases(t *testing.T, w world) {
	for _, pause := range []bool{false, true} {
		a := take(t, w.one)
		if pause {
			a.Pause()
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := a.Release(ctx); err != nil {
			t.Fatal(err)
		}
		wantValue(t, w, "")
		if err := context.Cause(a.Context()); !errors.Is(err, context.Canceled) {
			t.Fatalf("cause %v, want Canceled", err)
		}
		release(t, a)
		a.Pause()
		a.Resume()
		if err := a.Extend(t.Context()); err == nil {
			t.Fatal("a released lease was extended")
		}
		wantValue(t, w, "")
	}
}

func releaseGone(t *testing.T, w world) {
	a := take(t, w.one)
	a.Pause()
	w.drop(t) // as a commit does
	release(t, a)
}

func endedContext(t *testing.T, w world) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.one.TryLock(ctx, key); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v, want Canceled", err)
	}
	wantValue(t, w, "")
}

func outlivesAcquisition(t *testing.T, w world) {
	ctx, cancel := context.WithCancel(t.Context())
	a, err := w.one.TryLock(ctx, key)
	if err != nil {
		t.Fatal(err)
	}
	defer release(t, a)
	cancel()
	before := a.Deadline()
	redistest.Until(t, "the deadline moves", func() bool { return a.Deadline().After(before) })
	alive(t, a)
}

func allAtOnce(t *testing.T, w world) {
	a := take(t, w.one)
	var all sync.WaitGroup
	for _, f := range []func(){
		a.Pause, a.Resume,
		func() { _ = a.Extend(t.Context()) }, // paused now and then
		func() { _ = a.Deadline() },
	} {
		for range 4 {
			all.Go(func() {
				for range 25 {
					f()
				}
			})
		}
	}
	all.Wait()
	a.Resume()
	if err := a.Extend(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		all.Go(func() { release(t, a) })
	}
	all.Wait()
	wantValue(t, w, "")
}

// slowHold is a key whose keeper takes its time, and that notices when two touch it at once.
type slowHold struct {
	t       *testing.T
	touched atomic.Int32
	extends atomic.Int32
}

func (h *slowHold) touch(d time.Duration) {
	if h.touched.Add(1) != 1 {
		h.t.Error("two touch the key at once")
	}
	<-time.After(d)
	h.touched.Add(-1)
}

func (h *slowHold) extend(context.Context) (time.Time, error) {
	h.touch(100 * time.Millisecond)
	h.extends.Add(1)
	return time.Now().Add(time.Second), nil
}

func (h *slowHold) release(context.Context) error {
	h.touch(500 * time.Millisecond) // longer than it takes until the next renewal
	return nil
}

// Pause, Extend and Release meet a renewal that is under way.
func TestNobodyTouchesTheKeyBesideTheRenewal(t *testing.T) {
	for name, act := range map[string]func(*testing.T, Lease, *slowHold){
		"pause": func(t *testing.T, le Lease, h *slowHold) {
			le.Pause()
			if h.touched.Load() != 0 {
				t.Error("paused, but the renewal goes on")
			}
			n := h.extends.Load()
			lost(t, le)
			if h.extends.Load() != n {
				t.Error("renewed while paused")
			}
		},
		"extend": func(t *testing.T, le Lease, _ *slowHold) {
			if err := le.Extend(t.Context()); err != nil {
				t.Error(err)
			}
		},
		"pause meets extend": func(t *testing.T, le Lease, h *slowHold) {
			var one sync.WaitGroup
			one.Go(func() { _ = le.Extend(t.Context()) })
			synctest.Wait()
			le.Pause()
			if h.touched.Load() != 0 {
				t.Error("paused, but an extend goes on")
			}
			one.Wait()
		},
		"release": func(*testing.T, Lease, *slowHold) {},
		"a caller that does not wait": func(t *testing.T, le Lease, _ *slowHold) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := le.Extend(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want Canceled", err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &slowHold{t: t}
				le := newLease(t.Context(), "token", time.Second, h, time.Now().Add(time.Second))
				redistest.Until(t, "a renewal is under way", func() bool { return h.touched.Load() == 1 })
				act(t, le, h)
				release(t, le)
			})
		})
	}
}
