package embedded_test

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// childPath is the environment variable by which a test that runs itself again as a child tells it the store's path.
const childPath = "SIGNALBOX_TEST_CHILD_STORE"

// child prepares this very test to be run again in a process of its own, on the store at path.
func child(t *testing.T, path string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.timeout=60s", "-test.v=false")
	c.Env = append(os.Environ(), childPath+"="+path)
	c.Stderr = os.Stderr
	return c
}

// linesUntilKilled runs the child, kills it with SIGKILL after it has printed some lines, and answers all lines that
// it had printed by then. A line stands for something that the store had acknowledged.
func linesUntilKilled(t *testing.T, c *exec.Cmd, after int) []string {
	t.Helper()
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var lines []string
	scan := bufio.NewScanner(out)
	for scan.Scan() {
		lines = append(lines, scan.Text())
		if len(lines) == after {
			if err := c.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	err = c.Wait()
	if status, ok := c.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("the child ended by itself after %d lines: %v", len(lines), err)
	}
	if len(lines) < after {
		t.Fatalf("killed after %d lines, wanted %d", len(lines), after)
	}
	return lines
}

// sane checks the file itself.
func sane(t *testing.T, path string) {
	t.Helper()
	if got := query[string](t, path, "PRAGMA integrity_check"); got != "ok" {
		t.Fatalf("integrity check: %s", got)
	}
	if got := query[int](t, path, "SELECT count(*) FROM subject WHERE unread <> (SELECT count(*) FROM mail WHERE subject = subject.id)"); got != 0 {
		t.Fatalf("%d subjects have another number of mail than they say", got)
	}
	if got := query[int](t, path, "SELECT count(*) FROM subject WHERE unread > 0 AND due IS NULL"); got != 0 {
		t.Fatalf("%d subjects have mail and are not scheduled", got)
	}
	if got := query[int](t, path, "SELECT (SELECT raw_bytes FROM meta) - (SELECT ifnull(sum(size), 0) FROM raw)"); got != 0 {
		t.Fatalf("the sum of raw bodies is wrong by %d", got)
	}
}

func TestKilledWhileAccepting(t *testing.T) {
	if p := os.Getenv(childPath); p != "" {
		acceptForEver(t, p)
		return
	}
	p := path(t)
	acknowledged := 0
	for round := range 8 {
		ids := linesUntilKilled(t, child(t, p), 1+rand.IntN(400))
		acknowledged += len(ids)
		if round%2 == 1 { // a command may be the first to look after a crash
			r, err := embedded.OpenReadOnly(t.Context(), p)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Due(t.Context(), 1); err != nil {
				t.Error(err)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		s := open(t, p, embedded.Options{})
		sane(t, p)
		stored := map[string]int{}
		for _, id := range column[string](t, p, "SELECT id FROM mail") {
			stored[id]++
		}
		for _, id := range ids {
			if stored[id] != 1 {
				t.Errorf("round %d: acknowledged delivery %s is there %d times", round, id, stored[id])
			}
			if _, err := s.Raw(t.Context(), state.Subject{}, id); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		id := ids[rand.IntN(len(ids))]
		if a := accept(t, s, state.Delivery{Subject: subject(0), ID: id, Kind: "letter"}); !a.Duplicate {
			t.Errorf("round %d: delivery %s again: %+v", round, id, a)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if total, distinct := query[int](t, p, "SELECT count(*) FROM mail"), query[int](t, p, "SELECT count(DISTINCT id) FROM mail"); total != distinct || total < acknowledged {
		t.Errorf("%d acknowledged, %d mail, %d different", acknowledged, total, distinct)
	}
}

// acceptForEver accepts deliveries, some of them twice, and prints the id of each after it was acknowledged.
func acceptForEver(t *testing.T, path string) {
	s := open(t, path, embedded.Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; ; n++ {
				d := letter(subject(rand.IntN(50)), fmt.Sprintf("%d-%d-%d", os.Getpid(), i, n))
				d.Raw = make([]byte, 2000)
				for range 1 + rand.IntN(2) {
					if _, err := s.Accept(t.Context(), d); err != nil {
						t.Error(err)
						return
					}
				}
				if _, err := os.Stdout.WriteString(d.ID + "\n"); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestKilledWhileCommitting(t *testing.T) {
	if p := os.Getenv(childPath); p != "" {
		turnForEver(t, p)
		return
	}
	p := path(t)
	saved := map[string]int64{}
	for round := range 6 {
		for _, line := range linesUntilKilled(t, child(t, p), 1+rand.IntN(200)) {
			var key string
			var version int64
			if _, err := fmt.Sscan(line, &key, &version); err != nil {
				t.Fatal(err)
			}
			saved[key] = max(saved[key], version)
		}
		s := open(t, p, embedded.Options{})
		sane(t, p)
		for key, version := range saved {
			who := state.Subject{Instance: "github", Project: "1296269", Kind: "pr", Key: key}
			n, err := s.Load(t.Context(), who)
			if err != nil {
				t.Fatal(err)
			}
			lines, err := s.Journal(t.Context(), who, state.JournalKept)
			if err != nil {
				t.Fatal(err)
			}
			if n.Version < version || string(n.Doc) != fmt.Sprint(n.Version) || len(lines) != int(min(n.Version, state.JournalKept)) || string(lines[len(lines)-1]) != fmt.Sprint(n.Version) {
				t.Errorf("round %d, subject %s: acknowledged version %d, found version %d, document %q, %d lines of journal, the last %q",
					round, key, version, n.Version, n.Doc, len(lines), lines[len(lines)-1])
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// turnForEver begins and commits, and prints subject and version after each commit was acknowledged.
func turnForEver(t *testing.T, path string) {
	s := open(t, path, embedded.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			who := subject(i)
			for n := 0; ; n++ {
				if _, err := s.Accept(t.Context(), letter(who, fmt.Sprintf("%d-%d-%d", os.Getpid(), i, n))); err != nil {
					t.Error(err)
					return
				}
				token := fmt.Sprint(os.Getpid(), ".", n)
				b, _, err := s.Begin(t.Context(), who, token, 1<<40)
				if err != nil {
					t.Error(err)
					return
				}
				text := fmt.Append(nil, b.Version+1)
				c := state.Commit{Subject: who, Holder: token, Version: b.Version, Doc: text, Journal: [][]byte{text}, Through: 1 << 40, Release: n%3 != 0}
				if r, err := s.Commit(t.Context(), c); err != nil || r.Verdict != state.OK {
					t.Errorf("%+v, %v", r, err)
					return
				}
				if _, err := fmt.Fprintf(os.Stdout, "%s %d\n", who.Key, b.Version+1); err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
}

// A write that fails for another reason than a full disk ends the store. The reason here is a limit on the size of
// files, which a process can set for itself.
func TestDiskErrorIsTheEnd(t *testing.T) {
	if p := os.Getenv(childPath); p != "" {
		acceptUntilTheDiskFails(t, p)
		return
	}
	p := path(t)
	out, err := child(t, p).Output()
	if err != nil {
		t.Fatalf("the child: %v\n%s", err, out)
	}
	ids := strings.Fields(strings.TrimSuffix(string(out), "PASS\n"))
	s := open(t, p, embedded.Options{})
	sane(t, p)
	for _, id := range ids {
		if a := accept(t, s, state.Delivery{Subject: subject(1), ID: id, Kind: "letter"}); !a.Duplicate {
			t.Errorf("acknowledged delivery %s: %+v", id, a)
		}
	}
	if len(ids) < 10 {
		t.Errorf("only %d deliveries before the limit", len(ids))
	}
}

func acceptUntilTheDiskFails(t *testing.T, path string) {
	s, err := embedded.Open(t.Context(), path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: 512 << 10, Max: 512 << 10}); err != nil {
		t.Fatal(err)
	}
	for n := 0; ; n++ {
		d := letter(subject(1), fmt.Sprint(n))
		d.Body = make([]byte, 5000)
		if _, err = s.Accept(t.Context(), d); err != nil {
			break
		}
		if _, err := os.Stdout.WriteString(d.ID + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	if errors.Is(err, state.ErrFull) {
		t.Errorf("a failed write is called a full disk: %v", err)
	}
	<-s.Failed()
	if _, err := s.Accept(t.Context(), letter(subject(1), "after")); err == nil {
		t.Error("accept after the failure")
	}
	if _, err := s.Load(t.Context(), subject(1)); err == nil {
		t.Error("load after the failure")
	}
	if err := s.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "failed") {
		t.Errorf("ping after the failure: %v", err)
	}
	// The log cannot be carried over now; the next to open the file recovers it.
	_ = s.Close()
}
