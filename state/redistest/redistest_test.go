package redistest

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
)

func TestKilledServerComesBackWithItsData(t *testing.T) {
	s := Start(t, Options{AppendFsync: "always"})
	c := s.Client()
	if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Fatal("a killed server answers")
	}
	s.Restart()
	if v, err := c.Get(t.Context(), "k").Result(); v != "v" || err != nil {
		t.Fatalf("after restart: %q, %v", v, err)
	}
}

func TestStoppedServerAnswersWhenItGoesOn(t *testing.T) {
	s := Start(t, Options{MaxMemory: "64mb"})
	s.Stop()
	answer := make(chan error, 1)
	c := redis.NewClient(&redis.Options{Addr: s.Addr(), ReadTimeout: -1})
	t.Cleanup(func() { _ = c.Close() })
	go func() { answer <- c.Set(t.Context(), "k", "v", 0).Err() }()
	state := func() string {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/stat")
		return string(b)
	}
	if _, err := os.Stat("/proc/self/stat"); err == nil {
		Until(t, "the process is stopped", func() bool { return strings.Contains(state(), ") T ") })
	}
	s.Cont()
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
}

func TestClusterAndSentinelsComeUp(t *testing.T) {
	cl := redis.NewClusterClient(&redis.ClusterOptions{Addrs: strings.Split(addrs(StartCluster(t, Options{}).Nodes), ",")})
	t.Cleanup(func() { _ = cl.Close() })
	for _, k := range []string{"a", "b", "c", "d"} {
		if err := cl.Set(t.Context(), k, "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	g := StartSentinels(t, Options{})
	if !strings.HasSuffix(g.URL(), "/"+MasterName) {
		t.Fatal(g.URL())
	}
}

// The servers must not outlive a test process that is killed: this test runs itself as a child, kills it, and looks
// whether the child's server still answers.
func TestServerDiesWithTheTestProcess(t *testing.T) {
	const env = "REDISTEST_CHILD"
	if file := os.Getenv(env); file != "" {
		s := Start(t, Options{})
		if err := os.WriteFile(file+".new", []byte(strconv.Itoa(s.cmd.Process.Pid)), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
		<-t.Context().Done()
		return
	}
	if dieWithParent() == nil {
		t.Log("this system cannot tie a child to its parent; nothing is promised")
		return
	}
	file := t.TempDir() + "/pid"
	child := exec.Command(os.Args[0], "-test.run=^TestServerDiesWithTheTestProcess$", "-test.timeout=1m")
	child.Env = append(os.Environ(), env+"="+file, "TMPDIR="+t.TempDir())
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	Until(t, "the child's server runs", func() bool {
		b, err := os.ReadFile(file)
		if err == nil {
			pid, err = strconv.Atoi(string(b))
		}
		return err == nil
	})
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	Until(t, "the child's server is gone", func() bool {
		if stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat"); err == nil && strings.Contains(string(stat), ") Z ") {
			return true // dead; whoever adopted it has not reaped it yet
		}
		return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
	})
}
