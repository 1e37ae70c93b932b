package embedded_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// A full disk is an answer, and once there is room again everything goes on. The disk is a small one in memory, in a
// mount namespace of the child's own.
func TestFullDisk(t *testing.T) {
	if p := os.Getenv(childPath); p != "" {
		fillTheDisk(t, p)
		return
	}
	c := child(t, path(t))
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.Output()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		cannot(t, fmt.Sprintf("user namespaces (%v)", err))
	}
	if err != nil {
		t.Fatalf("the child: %v\n%s", err, out)
	}
	if strings.Contains(string(out), noMount) {
		cannot(t, "mounts in user namespaces")
	}
}

// cannot fails where the machine lacks what the test needs: a promise that was not tried is not kept.
func cannot(t *testing.T, lacks string) {
	t.Helper()
	t.Fatalf("this machine allows no %s, and without them there is no small disk to fill; run the tests as root, or allow them (sysctl kernel.unprivileged_userns_clone=1)", lacks)
}

// noMount is what the child prints where it may not mount.
const noMount = "no mount"

func fillTheDisk(t *testing.T, path string) {
	dir := filepath.Dir(path)
	if err := syscall.Mount("signalbox", dir, "tmpfs", 0, "size=6m"); errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		_, _ = os.Stdout.WriteString(noMount + "\n")
		return
	} else if err != nil {
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := embedded.Open(t.Context(), path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	stored := 0
	fill := func() {
		t.Helper()
		for refused := 0; refused < 20; {
			d := letter(subject(1), fmt.Sprint(stored))
			d.Body = make([]byte, 3000)
			_, err := s.Accept(t.Context(), d)
			switch {
			case err == nil:
				stored++
			case errors.Is(err, state.ErrFull):
				refused++
			default:
				t.Fatalf("after %d deliveries: %v", stored, err)
			}
		}
	}
	fill()
	n, err := s.Load(t.Context(), subject(1))
	if err != nil || len(n.Mail) != state.MailBatch {
		t.Fatalf("reading on a full disk: %d mail, %v", len(n.Mail), err)
	}
	before := stored
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	fill()
	if stored < before+100 {
		t.Errorf("%d deliveries before there was room, %d after", before, stored)
	}
	select {
	case <-s.Failed():
		t.Errorf("a full disk ended the store: %v", s.Ping(t.Context()))
	default:
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	s = open(t, path, embedded.Options{})
	sane(t, path)
	if got := query[int](t, path, "SELECT count(*) FROM mail"); got != stored {
		t.Errorf("%d acknowledged, %d stored", stored, got)
	}
}
