package embedded

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/signalbox-ci/signalbox/state"
)

func letter(key, id string) state.Delivery {
	return state.Delivery{Subject: state.Subject{Instance: "github", Project: "1", Kind: "pr", Key: key}, ID: id, Kind: "letter", Raw: []byte("raw")}
}

// An operation that fails after it has written takes back what it wrote, and nothing of those that shared its
// transaction.
func TestOneOfAGroupFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signalbox.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}()
		boom := errors.New("boom")
		gate := make(chan struct{})
		runs := map[string]int{} // written by the writer's goroutine only
		var wg sync.WaitGroup
		send := func(id string, last error) {
			wg.Go(func() {
				err := s.do(t.Context(), func(w *tx) error {
					runs[id]++
					<-gate
					if _, err := w.accept(letter("1", id), []byte("raw")); err != nil {
						return err
					}
					return last
				})
				if !errors.Is(err, last) {
					t.Errorf("%s: %v, want %v", id, err, last)
				}
			})
			synctest.Wait() // now it runs, or waits for the writer
		}
		send("first", nil)
		send("second", nil)
		send("bad", boom)
		send("last", nil)
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := s.Accept(ctx, letter("1", "impatient")); !errors.Is(err, context.Canceled) {
				t.Errorf("an operation whose context ended before the writer took it up: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(gate)
		wg.Wait()
		n, err := s.Load(t.Context(), letter("1", "").Subject)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range n.Mail {
			got = append(got, fmt.Sprint(m.Seq, m.ID))
		}
		if fmt.Sprint(got) != "[1first 2second 3last]" {
			t.Errorf("mailbox: %v", got)
		}
		if runs["second"] != 2 {
			t.Errorf("the operations did not share a transaction: %v", runs)
		}
		if _, err := s.Raw(t.Context(), state.Subject{}, "bad"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("raw body of the failed one: %v", err)
		}
		var said, stored int64
		if err := s.do(t.Context(), func(w *tx) error {
			return w.row("SELECT raw_bytes, (SELECT sum(size) FROM raw) FROM meta", nil, &said, &stored)
		}); err != nil || said != stored {
			t.Errorf("raw bodies: said %d, stored %d, %v", said, stored, err)
		}
		if a, err := s.Accept(t.Context(), letter("1", "bad")); err != nil || a.Seq != 4 {
			t.Errorf("the failed one again: %+v, %v", a, err)
		}
	})
}

func TestCloseAwaitsWhatIsUnderWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "signalbox.db")
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(t.Context(), path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		gate := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.do(t.Context(), func(w *tx) error {
				<-gate
				_, err := w.accept(letter("1", "a"), nil)
				return err
			}); err != nil {
				t.Errorf("an operation under way: %v", err)
			}
		})
		synctest.Wait()
		closed := make(chan error, 1)
		wg.Go(func() { closed <- s.Close() })
		synctest.Wait()
		select {
		case err := <-closed:
			t.Errorf("closed under an operation: %v", err)
			closed <- err
		default:
		}
		close(gate)
		wg.Wait()
		if err := <-closed; err != nil {
			t.Error(err)
		}
	})
}

// A file that may not grow refuses what needs room, keeps the rest, and goes on when there is room again.
func TestFullFile(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "signalbox.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := s.do(t.Context(), func(w *tx) error { return w.exec("PRAGMA max_page_count = 100") }); err != nil {
		t.Fatal(err)
	}
	subject, n := letter("1", "").Subject, 0
	for ; ; n++ {
		d := letter("1", fmt.Sprint(n))
		d.Body = make([]byte, 3000)
		_, err := s.Accept(t.Context(), d)
		if errors.Is(err, state.ErrFull) {
			break
		}
		if err != nil || n > 200 {
			t.Fatalf("accept %d: %v", n, err)
		}
	}
	select {
	case <-s.Failed():
		t.Fatal("a full file ended the store")
	default:
	}
	if _, v, err := s.Begin(t.Context(), subject, "A", 1); err != nil || v != state.OK {
		t.Fatalf("begin: %v, %v", v, err)
	}
	if r, err := s.Commit(t.Context(), state.Commit{Subject: subject, Holder: "A", Doc: []byte("d"), Through: int64(n)}); err != nil || r.Verdict != state.OK {
		t.Fatalf("draining: %+v, %v", r, err)
	}
	if a, err := s.Accept(t.Context(), letter("1", fmt.Sprint(n))); err != nil || a.Seq != int64(n)+1 {
		t.Errorf("the refused one again: %+v, %v", a, err)
	}
}

// What durability rests on cannot be seen from outside without pulling the plug.
func TestSettings(t *testing.T) {
	s, err := Open(t.Context(), filepath.Join(t.TempDir(), "signalbox.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	for name, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "fullfsync": "1", "wal_autocheckpoint": "0", "query_only": "0"} {
		var got string
		if err := s.do(t.Context(), func(w *tx) error { return w.row("PRAGMA "+name, nil, &got) }); err != nil || got != want {
			t.Errorf("the writer's %s is %q, want %q, %v", name, got, want, err)
		}
	}
	if err := s.read(t.Context(), func(r *session) error { return r.exec("DELETE FROM meta") }); err == nil {
		t.Error("a reader can write")
	}
}
