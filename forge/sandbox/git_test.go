package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A real git fetches a commit by its SHA, from a private repository with a token only, and the API has its files.
func TestServeGit(t *testing.T) {
	dir := t.TempDir()
	sh := func(want bool, in string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "git", append([]string{"-C", in, "-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "credential.helper="}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0")
		out, err := cmd.CombinedOutput()
		if (err == nil) != want {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	sh(true, dir, "init", "-q", "-b", "main", ".")
	if err := os.MkdirAll(filepath.Join(dir, ".signalbox"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".signalbox", "presubmit.yaml"), []byte("jobs: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sh(true, dir, "add", ".")
	sh(true, dir, "commit", "-qm", "one")
	sha := sh(true, dir, "rev-parse", "HEAD")
	for name, private := range map[string]bool{"public": false, "private": true} {
		t.Run(name, func(t *testing.T) {
			f := New(Options{Seed: t.Name()})
			server, err := f.Start()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = server.Close() })
			u := f.AddUser("u")
			r := f.AddRepo("o/r", RepoOptions{Private: private, Permissions: map[*User]string{u: "write"}})
			if err := r.ServeGit(t.Context(), dir); err != nil {
				t.Fatal(err)
			}
			if r.Tip("main") != sha || r.OpenPR(u, PROptions{SHA: sha}).Head() != sha {
				t.Error("the tip is not the repository's")
			}
			to := t.TempDir()
			sh(true, to, "init", "-q", ".")
			sh(!private, to, "fetch", "-q", "--depth", "1", server.URL+"/o/r.git", sha)
			sh(false, to, "fetch", "-q", "--depth", "1", server.URL+"/o/other.git", sha)
			sh(true, to, "fetch", "-q", "--depth", "1", strings.Replace(server.URL, "//", "//x:"+u.Token+"@", 1)+"/o/r.git", sha)
			if got := sh(true, to, "show", sha+":.signalbox/presubmit.yaml"); got != "jobs: []" {
				t.Errorf("fetched %q", got)
			}
		})
	}
}
