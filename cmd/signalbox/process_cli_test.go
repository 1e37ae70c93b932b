package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// command runs signalbox with the world's settings and more, and wants an exit code and words on either output.
func (w *world) command(code int, words string, more []string, args ...string) (out string) {
	w.Helper()
	cmd := exec.CommandContext(w.Context(), os.Args[0], args...)
	cmd.Env = append(append(slices.Clone(w.env), asSignalbox+"=1"), more...)
	cmd.Dir = w.dir
	var said, complained bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &complained
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		w.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.Contains(said.String()+complained.String(), words) {
		w.Errorf("signalbox %s\nended with %d, want %d and %q:\n%s%s", strings.Join(args, " "), got, code, words, said.String(), complained.String())
	}
	if code == exitOK && complained.Len() > 0 {
		w.Errorf("signalbox %s complains and ends with 0:\n%s", strings.Join(args, " "), complained.String())
	}
	if code != exitOK && complained.Len() == 0 {
		w.Errorf("signalbox %s fails without a word on standard error", strings.Join(args, " "))
	}
	return said.String()
}

// read decodes what --output json printed.
func decoded[T any](t *testing.T, out string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Errorf("%v in: %s", err, out)
	}
	return v
}

func TestCommandsSayWhatIsWrongWithThem(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	const ref = "github:octo/hello#1"
	sha := pr.Head()
	for _, c := range []struct {
		code  int
		words string
		args  []string
	}{
		{exitOK, "signalbox ", []string{"version"}},
		{exitOK, `"version"`, []string{"version", "--output", "json"}},
		{exitOK, "Example:", []string{"approve", "--help"}},
		{exitUsage, "unexpected argument", []string{"nonsense"}},
		{exitUsage, "expected", []string{}},
		{exitUsage, "expected INSTANCE:OWNER/REPO#NUMBER", []string{"explain", "octo/hello#1"}},
		{exitUsage, "expected INSTANCE:OWNER/REPO#NUMBER", []string{"explain", "github:octo/hello#0"}},
		{exitUsage, "--output", []string{"explain", ref, "--output", "xml"}},
		{exitFailed, "no such pull request is known here", []string{"explain", "github:octo/hello#99"}},
		{exitOK, "nothing needs a person", []string{"jobs"}},
		{exitOK, "nothing needs a person", []string{"jobs", "list"}},
		{exitOK, `"jobs": []`, []string{"jobs", "list", "--output", "json"}},
		{exitUsage, "expected instance/project/kind/key", []string{"jobs", "retry", "nonsense", "e1"}},
		{exitFailed, "no such dead letter", []string{"jobs", "retry", w.subject(pr).String(), "e99"}},
		{exitFailed, "no such dead letter", []string{"jobs", "discard", w.subject(pr).String(), "e99"}},
		{exitUsage, "retry releases it", []string{"jobs", "discard", w.subject(pr).String()}},
		{exitUsage, "40 or 64 hexadecimal digits", []string{"approve", ref, "--sha", sha[:7], "--reason", "x"}},
		{exitUsage, "40 or 64 hexadecimal digits", []string{"approve", ref, "--sha", strings.ToUpper(sha), "--reason", "x"}},
		{exitUsage, "--reason", []string{"approve", ref, "--sha", sha}},
		{exitUsage, "--reason is empty", []string{"approve", ref, "--sha", sha, "--reason", " "}},
		{exitUsage, "--sha", []string{"approve", ref, "--reason", "x"}},
		{exitUsage, "--reason", []string{"revoke", ref}},
		{exitUsage, "expected INSTANCE:OWNER/REPO#NUMBER", []string{"revoke", "hello", "--reason", "x"}},
		{exitFailed, "no such pull request is known here", []string{"approve", "github:octo/hello#99", "--sha", sha, "--reason", "x"}},
		{exitUsage, "wrong.yaml:1", []string{"jobs", "list", "--config", "wrong.yaml"}},
		{exitUsage, "missing.yaml", []string{"jobs", "list", "--config", "missing.yaml"}},
	} {
		w.must(os.WriteFile(filepath.Join(w.dir, "wrong.yaml"), []byte("lock_tlt: 15s\n"), 0o600))
		w.command(c.code, c.words, nil, c.args...)
	}
	w.command(exitUsage, "SIGNALBOX_LABLE", []string{"SIGNALBOX_LABLE=x"}, "jobs", "list")
	w.command(exitFailed, "nowhere.db", []string{"SIGNALBOX_STORE=file:nowhere.db"}, "explain", ref)
	w.command(exitFailed, "no server answers and there is no store", []string{"SIGNALBOX_STORE=file:nowhere.db"},
		"approve", ref, "--sha", sha, "--reason", "x")
	if exists(filepath.Join(w.dir, "nowhere.db")) {
		t.Error("a command that only looks made a store")
	}
	w.shut(pr)
}

func TestSecondServerOnOneFileIsRefused(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	second := w.spawn()
	if code := second.wait(); code != exitFailed || !strings.Contains(second.said(), "another") {
		t.Errorf("ended with %d:\n%s", code, second.said())
	}
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.shut(pr)
}

func TestExplainTellsTheStory(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.labels(w.maya, pr)
	w.settle(pr)
	text := w.command(exitOK, "github:octo/hello#1  running", nil, "explain", "github:octo/hello#1")
	for _, words := range []string{"opened by @mallory", "Untrusted_Author", "label added by @maya", "Grant", "Approved by @maya for " + pr.Head()[:7]} {
		if !strings.Contains(text, words) {
			t.Errorf("the story does not say %q:\n%s", words, text)
		}
	}
	s := decoded[story](t, w.command(exitOK, "", nil, "explain", "github:octo/hello#1", "--output", "json"))
	if s.Head != pr.Head() || s.State != "running" || len(s.Grants) != 1 || len(s.Lines) < 3 || len(s.Open) > 0 || s.Unread > 0 {
		t.Errorf("the story in JSON: %+v", s)
	}
}

// approves walks an approval and its revocation through the command line.
func (w *world) approves(pr *sandbox.PR, more ...string) {
	w.Helper()
	const ref = "github:octo/hello#1"
	w.command(exitOK, "Approved by operator", more, "approve", ref, "--sha", pr.Head(), "--reason", "the label service is down")
	w.settle(pr)
	w.open(pr)
	out := w.command(exitOK, "", more, "revoke", ref, "--reason", "by mistake", "--output", "json")
	if o := decoded[ordered](w.T, out); !o.Stored || !o.Decided || !strings.Contains(o.Story, "revoked by operator") {
		w.Errorf("the revocation in JSON: %+v", o)
	}
	w.settle(pr)
	w.shut(pr)
}

func TestOperatorApprovesOverTheSocket(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.approves(pr)
	info, err := os.Stat(strings.TrimPrefix(w.env[0], "SIGNALBOX_STORE=file:") + ".sock")
	w.must(err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %o, want 600", info.Mode().Perm())
	}
}

func TestOperatorApprovesOverHTTP(t *testing.T) {
	t.Parallel()
	token := "SIGNALBOX_ADMIN_TOKEN=" + strings.Repeat("secret", 8)
	w := begin(t, redisStore(t).URL(), token)
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	approve := []string{"approve", "github:octo/hello#1", "--sha", pr.Head(), "--reason", "x"}
	w.command(exitFailed, "SIGNALBOX_ADMIN_TOKEN", []string{"SIGNALBOX_URL=" + s.url, "SIGNALBOX_ADMIN_TOKEN=" + strings.Repeat("wrong", 8)}, approve...)
	w.shut(pr)
	w.approves(pr, "SIGNALBOX_URL="+s.url)
	w.command(exitFailed, "ask the server", []string{"SIGNALBOX_URL=http://127.0.0.1:1"}, approve...)
}

func TestOperatorAPIIsOffWithoutAToken(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.command(exitFailed, "SIGNALBOX_ADMIN_TOKEN is not set", []string{"SIGNALBOX_URL=" + s.url},
		"approve", "github:octo/hello#1", "--sha", pr.Head(), "--reason", "x")
	w.shut(pr)
}

func TestOperatorApprovesWithoutAServer(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	s.kill() // it leaves its socket behind
	w.command(exitOK, "decided as soon as a server runs", nil, "approve", "github:octo/hello#1", "--sha", pr.Head(), "--reason", "x")
	w.command(exitOK, "1 events are stored and not decided yet", nil, "explain", "github:octo/hello#1")
	w.serve(1)
	w.settle(pr)
	w.open(pr)
}

// A trigger that the forge refuses for good ends as a dead letter, which a person lists, retries and discards.
func TestDeadLetterIsListedRetriedAndDiscarded(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t), "SIGNALBOX_TRIGGER=workflow:gone.yml@ci")
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.labels(w.maya, pr)
	buried := func(after string) (j job) {
		w.until("there is another dead letter than "+after, func() bool {
			for _, j = range decoded[jobs](t, w.command(exitOK, "", nil, "jobs", "list", "--output", "json")).Jobs {
				if j.State == "dead" && j.ID != after {
					return true
				}
			}
			return false
		})
		return j
	}
	none := func() {
		t.Helper()
		if left := decoded[jobs](t, w.command(exitOK, "", nil, "jobs", "list", "--output", "json")).Jobs; len(left) > 0 {
			t.Errorf("still listed: %+v", left)
		}
	}
	w.deliver()
	first := buried("")
	if first.Subject != w.subject(pr) || !strings.Contains(first.Why, "404") || first.Since.IsZero() {
		t.Fatalf("dead letter: %+v, want the refused trigger", first)
	}
	w.gate(pr, pr.Head(), "action_required")
	w.command(exitOK, "dead letter "+first.ID, nil, "explain", "github:octo/hello#1")
	text := w.command(exitOK, "STATE", nil, "jobs", "list")
	if !regexp.MustCompile(`dead +` + regexp.QuoteMeta(first.Subject.String()) + ` +` + first.ID + ` `).MatchString(text) {
		t.Errorf("the list does not show it:\n%s", text)
	}

	w.command(exitOK, "done", nil, "jobs", "retry", first.Subject.String(), first.ID) // over the socket
	second := buried(first.ID)
	w.command(exitFailed, "no such dead letter", nil, "jobs", "retry", first.Subject.String(), first.ID)
	s.kill()
	w.command(exitOK, "done", nil, "jobs", "retry", second.Subject.String(), second.ID) // on the store itself
	none()
	w.serve(1)
	third := buried(second.ID)
	w.command(exitOK, "done", nil, "jobs", "discard", third.Subject.String(), third.ID)
	none()
	if story := w.told(pr); !strings.Contains(story, "retried dead letter "+first.ID) || !strings.Contains(story, "discarded dead letter "+third.ID) {
		t.Errorf("the audit trail does not tell of it:\n%s", story)
	}
}

func TestDemoEndsWithZeroOnlyIfEveryExpectationHeld(t *testing.T) {
	t.Parallel()
	w := &world{T: t, dir: t.TempDir()}
	w.command(exitOK, "Every expectation held.", nil, "demo", "--exit")

	cut := exec.CommandContext(t.Context(), os.Args[0], "demo", "--exit")
	cut.Env = []string{asSignalbox + "=1"}
	out, err := cut.StdoutPipe()
	w.must(err)
	w.must(cut.Start())
	_, err = out.Read(make([]byte, 1))
	w.must(err)
	w.must(cut.Process.Signal(syscall.SIGTERM))
	_, _ = bytes.NewBuffer(nil).ReadFrom(out)
	var ended *exec.ExitError
	if err := cut.Wait(); !errors.As(err, &ended) || ended.ExitCode() != exitFailed {
		t.Errorf("a demo that was cut short: %v, want exit status 1", err)
	}
}
