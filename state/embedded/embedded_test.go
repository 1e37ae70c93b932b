package embedded_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
	"github.com/signalbox-ci/signalbox/state/statetest"
)

// clock is a store's time that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 21, 12, 0, 0, 123456789, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// path is a place for a store that is deleted after the test.
func path(t testing.TB) string { return filepath.Join(t.TempDir(), "signalbox.db") }

// open opens the store at path until the test ends.
func open(t testing.TB, path string, opts embedded.Options) *embedded.Store {
	t.Helper()
	s, err := embedded.Open(t.Context(), path, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func subject(n int) state.Subject {
	return state.Subject{Instance: "github", Project: "1296269", Kind: "pr", Key: fmt.Sprint(n)}
}

func letter(s state.Subject, id string) state.Delivery {
	return state.Delivery{Subject: s, ID: "t:test:" + id, Kind: "letter", Body: []byte("body of " + id)}
}

func accept(t testing.TB, s *embedded.Store, d state.Delivery) state.Accepted {
	t.Helper()
	a, err := s.Accept(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// query asks the file itself, past the store, for one value.
func query[T any](t testing.TB, path, q string) T {
	t.Helper()
	v := column[T](t, path, q)
	if len(v) != 1 {
		t.Fatalf("%s: %d rows", q, len(v))
	}
	return v[0]
}

// column asks the file itself for the values of a column.
func column[T any](t testing.TB, path, q string) (list []T) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	rows, err := db.QueryContext(t.Context(), q)
	if err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		t.Fatalf("%s: %v", q, err)
	}
	return list
}

func TestConformance(t *testing.T) {
	statetest.Run(t, func(t *testing.T) statetest.Harness {
		c, p := newClock(), path(t)
		return statetest.Harness{
			Store: open(t, p, embedded.Options{Now: c.now}), Advance: c.advance,
			Left: func(tb testing.TB) (left []string) {
				for _, table := range column[string](tb, p, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT IN ('meta', 'delivery', 'raw')") {
					if n := query[int](tb, p, "SELECT count(*) FROM "+table); n > 0 {
						left = append(left, fmt.Sprint(n, " of ", table))
					}
				}
				return left
			},
		}
	})
}

func TestEverythingIsThereAfterReopening(t *testing.T) {
	p := path(t)
	one := open(t, p, embedded.Options{})
	s := subject(1)
	d := letter(s, "a")
	d.Raw = []byte("raw")
	accept(t, one, d)
	if _, err := one.Commit(t.Context(), state.Commit{
		Subject: s, Doc: []byte("doc"), SetFlag: true, Index: []state.Index{{Name: "waiting", Label: "l", Score: 1.5}},
		Put: []state.Record{{Key: "r", Value: []byte("v")}}, Journal: [][]byte{[]byte("line")},
	}); err != nil {
		t.Fatal(err)
	}
	before, err := one.Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	name, err := one.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}

	if _, err := os.Stat(p + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("closing left a log behind: %v", err)
	}
	two := open(t, p, embedded.Options{})
	after, err := two.Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if after.Version != 1 || string(after.Doc) != "doc" || !after.Flagged || len(after.Mail) != 1 || !after.Wake.Equal(before.Wake) {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
	if a := accept(t, two, d); !a.Duplicate {
		t.Errorf("the delivery again: %+v", a)
	}
	raw, err := two.Raw(t.Context(), d.Subject, d.ID)
	if err != nil || string(raw) != "raw" {
		t.Errorf("raw body: %q, %v", raw, err)
	}
	if again, err := two.Identity(t.Context()); err != nil || again != name {
		t.Errorf("identity %q, then %q, %v", name, again, err)
	}
	other := open(t, path(t), embedded.Options{})
	if again, err := other.Identity(t.Context()); err != nil || again == name {
		t.Errorf("another file has the same identity %q, %v", again, err)
	}
}

func TestHeldSubjectsAreDueAfterReopening(t *testing.T) {
	p, c := path(t), newClock()
	one := open(t, p, embedded.Options{Now: c.now})
	held, idle := subject(1), subject(2)
	if _, _, err := one.Begin(t.Context(), held, "A", time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Commit(t.Context(), state.Commit{Subject: idle, Doc: []byte("d"), Wake: c.now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	if err := one.Close(); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Second)
	two := open(t, p, embedded.Options{Now: c.now})
	due, err := two.Due(t.Context(), 10)
	if err != nil || len(due) != 1 || due[0] != held {
		t.Errorf("due: %v, %v", due, err)
	}
	n, _, err := two.Begin(t.Context(), held, "B", time.Hour)
	if err != nil || n.Holder != "A" {
		t.Errorf("the crash is not seen: %+v, %v", n, err)
	}
}

func TestOneProcessWrites(t *testing.T) {
	p := path(t)
	open(t, p, embedded.Options{})
	link := filepath.Join(t.TempDir(), "other.db")
	if err := os.Symlink(p, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{p, link, filepath.Join(filepath.Dir(p), ".", "signalbox.db")} {
		s, err := embedded.Open(t.Context(), name, embedded.Options{})
		if err == nil {
			_ = s.Close()
			t.Fatalf("opened twice, as %s", name)
		}
		if !errors.Is(err, embedded.ErrInUse) || !strings.Contains(err.Error(), ".db.lock") || !strings.Contains(err.Error(), fmt.Sprintf("process %d;", os.Getpid())) {
			t.Errorf("second opener: %v", err)
		}
	}
}

func TestOnlyItsOwnerMayRead(t *testing.T) {
	p := path(t)
	accept(t, open(t, p, embedded.Options{}), letter(subject(1), "a"))
	files, err := os.ReadDir(filepath.Dir(p))
	if err != nil || len(files) < 3 {
		t.Fatalf("files: %v, %v", files, err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

func TestOddNames(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a?mode=memory", "b%41", "c#d", "ü e", "f&g=h"} {
		s := open(t, filepath.Join(dir, name), embedded.Options{})
		accept(t, s, letter(subject(1), "a"))
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	t.Chdir(dir)
	open(t, "relative.db", embedded.Options{})
	if _, err := os.Stat(filepath.Join(dir, "relative.db")); err != nil {
		t.Error(err)
	}
}

func TestRefusesWhatItCannotRead(t *testing.T) {
	alter := func(p string, statements ...string) {
		db, err := sql.Open("sqlite", "file:"+p)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = db.Close() }()
		for _, q := range statements {
			if _, err := db.ExecContext(t.Context(), q); err != nil {
				t.Fatalf("%s: %v", q, err)
			}
		}
	}
	newer := path(t)
	if err := open(t, newer, embedded.Options{}).Close(); err != nil {
		t.Fatal(err)
	}
	alter(newer, "PRAGMA user_version = 99")
	foreign := path(t)
	alter(foreign, "CREATE TABLE recipes (title TEXT)")
	garbage := path(t)
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no database"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := path(t)
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(t.TempDir(), "no", "such.db")

	for name, c := range map[string]struct {
		path  string
		want  error
		write bool // whether it may be opened for writing
	}{
		"newer": {newer, state.ErrTooNew, false}, "foreign": {foreign, nil, false}, "garbage": {garbage, nil, false},
		"missing": {missing, os.ErrNotExist, false}, "empty": {empty, nil, true},
	} {
		before, _ := os.ReadFile(c.path)
		r, err := embedded.OpenReadOnly(t.Context(), c.path)
		if err == nil {
			_ = r.Close()
			t.Errorf("%s was opened to read", name)
		} else if !strings.Contains(err.Error(), c.path) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s, to read: %v", name, err)
		}
		s, err := embedded.Open(t.Context(), c.path, embedded.Options{})
		if err == nil {
			err = s.Close()
			if !c.write || err != nil {
				t.Errorf("%s was opened: %v", name, err)
			}
			continue
		}
		if c.write || !strings.Contains(err.Error(), c.path) || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if after, _ := os.ReadFile(c.path); !bytes.Equal(before, after) {
			t.Errorf("%s was changed", name)
		}
	}
}

func TestReadOnlyBesideARunningServer(t *testing.T) {
	p := path(t)
	s := open(t, p, embedded.Options{})
	accept(t, s, letter(subject(1), "a"))
	r, err := embedded.OpenReadOnly(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		n, err := r.Load(t.Context(), subject(1))
		if err != nil || len(n.Mail) != i+1 {
			t.Fatalf("after %d: %+v, %v", i+1, n, err)
		}
		accept(t, s, letter(subject(1), fmt.Sprint(i)))
	}
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Without a server too.
	if r, err = embedded.OpenReadOnly(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if due, err := r.Due(t.Context(), 10); err != nil || len(due) != 1 {
		t.Errorf("due: %v, %v", due, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestClosedStoreAnswersErrors(t *testing.T) {
	s := open(t, path(t), embedded.Options{})
	accept(t, s, letter(subject(1), "a"))
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Accept(t.Context(), letter(subject(1), "b")); err == nil {
		t.Error("accept")
	}
	if _, err := s.Load(t.Context(), subject(1)); err == nil {
		t.Error("load")
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("ping")
	}
	select {
	case <-s.Failed():
		t.Error("closing is no failure")
	default:
	}
}

func TestClosingUnderLoadAnswersEverybody(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	p := path(t)
	s, err := embedded.Open(t.Context(), p, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	stored := 0
	var wg sync.WaitGroup
	ready := make(chan struct{}, 8)
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				if _, err := s.Accept(t.Context(), letter(subject(i), fmt.Sprint(i, ".", n))); err != nil {
					return
				}
				mu.Lock()
				stored++
				mu.Unlock()
				if n == 5 {
					ready <- struct{}{}
				}
			}
		})
	}
	for range 8 {
		<-ready
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if got := query[int](t, p, "SELECT count(*) FROM mail"); got != stored {
		t.Errorf("%d accepts were answered, %d are stored", stored, got)
	}
}

// A context that ends before the writer has taken the operation up leaves nothing behind, and one that ends later
// does not spoil the answer.
func TestContextOfAnOperation(t *testing.T) {
	p := path(t)
	s := open(t, p, embedded.Options{})
	var wg sync.WaitGroup
	var mu sync.Mutex
	stored := 0
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			_, err := s.Accept(ctx, letter(subject(i%7), fmt.Sprint(i)))
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				stored++
			case !errors.Is(err, context.Canceled):
				t.Error(err)
			}
		})
		wg.Go(cancel)
	}
	wg.Wait()
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := query[int](t, p, "SELECT count(*) FROM mail"); got != stored {
		t.Errorf("%d accepts were answered, %d are stored", stored, got)
	}
}

func TestWorksInABubble(t *testing.T) {
	p := path(t)
	synctest.Test(t, func(t *testing.T) {
		s, err := embedded.Open(t.Context(), p, embedded.Options{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if _, err := s.Commit(t.Context(), state.Commit{Subject: subject(1), Doc: []byte("d"), Wake: start.Add(24 * time.Hour)}); err != nil {
			t.Fatal(err)
		}
		for want := range 2 {
			if due, err := s.Due(t.Context(), 10); err != nil || len(due) != want {
				t.Errorf("after %v: %v, %v", time.Since(start), due, err)
			}
			<-time.After(25 * time.Hour)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestRetention(t *testing.T) {
	p, c := path(t), newClock()
	s := open(t, p, embedded.Options{Now: c.now})
	const n = 450 // more than two chunks
	for i := range n {
		d := letter(subject(i), fmt.Sprint(i))
		d.Raw = []byte("raw")
		accept(t, s, d)
	}
	var put []state.Record
	for i := range n {
		put = append(put, state.Record{Key: fmt.Sprint(i), Value: []byte("v"), TTL: time.Hour})
	}
	put = append(put, state.Record{Key: "kept", Value: []byte("v")})
	if _, err := s.Commit(t.Context(), state.Commit{Subject: subject(1), Doc: []byte("d"), Put: put}); err != nil {
		t.Fatal(err)
	}
	counts := func() [3]int {
		// Each Ping is a group, after which one chunk of each table is looked at; the last waits for the one before.
		for range 5 {
			if err := s.Ping(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		return [3]int{
			query[int](t, p, "SELECT count(*) FROM delivery"), query[int](t, p, "SELECT count(*) FROM raw"),
			query[int](t, p, "SELECT count(*) FROM record"),
		}
	}
	for _, step := range []struct {
		pass time.Duration
		want [3]int
	}{
		{0, [3]int{n, n, n + 1}},
		{2 * time.Hour, [3]int{n, n, 1}},
		{state.RawLife, [3]int{n, 0, 1}},
		{state.IDLife, [3]int{0, 0, 1}},
	} {
		c.advance(step.pass)
		if got := counts(); got != step.want {
			t.Errorf("after %v more: %v ids, raw bodies, records; want %v", step.pass, got, step.want)
		}
	}
	if got := query[int](t, p, "SELECT raw_bytes FROM meta"); got != 0 {
		t.Errorf("raw bodies are said to have %d bytes", got)
	}
	if got := query[int](t, p, "SELECT count(*) FROM mail"); got != n {
		t.Errorf("%d of %d mail are left: mail has no time to live", got, n)
	}
}

func TestRawQuotaDropsTheOldest(t *testing.T) {
	p := path(t)
	const quota = 10_000
	body := func(i int) []byte { // incompressible
		b := make([]byte, 1000)
		for j := range b {
			b[j] = byte((i*7919 + j*j*31 + j) * 2654435761 >> 13)
		}
		return b
	}
	for _, round := range []int{0, 1} { // a second time after reopening: the sum must have been kept
		s := open(t, p, embedded.Options{RawQuota: quota})
		for i := range 30 {
			d := letter(subject(i), fmt.Sprint(round, ".", i))
			d.Raw = body(i)
			accept(t, s, d)
			size := query[int](t, p, "SELECT ifnull(sum(length(body)), 0) FROM raw")
			if said := query[int](t, p, "SELECT raw_bytes FROM meta"); size > quota || said != size {
				t.Fatalf("after body %d: %d bytes stored, %d said, quota %d", i, size, said, quota)
			}
		}
		for i := range 30 {
			got, err := s.Raw(t.Context(), state.Subject{}, fmt.Sprintf("t:test:%d.%d", round, i))
			if kept := err == nil && bytes.Equal(got, body(i)); kept != (i >= 21) || err != nil && !errors.Is(err, state.ErrNotFound) {
				t.Errorf("body %d of 30: kept %v, %v", i, kept, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheLogStaysSmall(t *testing.T) {
	p := path(t)
	s := open(t, p, embedded.Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := range 200 {
				d := letter(subject(i), fmt.Sprint(i, ".", n))
				d.Body = make([]byte, 1000)
				if _, err := s.Accept(t.Context(), d); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	info, err := os.Stat(p + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 20<<20 {
		t.Errorf("after 3200 accepts of 1 KB the log has %d bytes", info.Size())
	}
	if data, err := os.Stat(p); err != nil || data.Size() < 2<<20 {
		t.Errorf("nothing was carried over into the database: %d bytes, %v", data.Size(), err)
	}
}
