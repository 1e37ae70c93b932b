package runner

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
)

// tree is a forge with one file.
type tree map[string]string

func (f tree) File(_ context.Context, _ forge.Repo, sha, path string) ([]byte, error) {
	if text, ok := f[sha+":"+path]; ok {
		return []byte(text), nil
	}
	return nil, &forge.Fault{Class: forge.NotFound, Op: "read file", Err: errors.New("no")}
}

func (tree) CheckoutToken(_ context.Context, r forge.Repo) (string, error) {
	if r.Name == "o/secret" {
		return "a token for " + r.Name, nil
	}
	return "", &forge.Fault{Class: forge.Permanent, Op: "make a checkout token", Err: errors.New("private repositories need the GitHub App")}
}

func (tree) Clone(r forge.Repo) string { return "https://forge.example.org/" + r.Name + ".git" }

func TestTrigger(t *testing.T) {
	s, _ := alone(t)
	r := run("r")
	file := r.BaseSHA + ":" + File
	tr := NewTrigger(s.Service, tree{file: "jobs:\n- {name: unit, runs-on: linux, steps: [{run: make}]}\n"})
	find := func() bool {
		_, found, err := tr.Find(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if find() {
		t.Fatal("found before it was started")
	}
	for range 2 {
		got, err := tr.Start(t.Context(), r)
		if err != nil || got != (forge.Receipt{ID: "r", URL: "https://ci.example.org/runs/r"}) {
			t.Fatalf("%+v, %v", got, err)
		}
	}
	if p, err := s.see(t.Context()); err != nil || !find() || len(p.Jobs) != 1 {
		t.Fatalf("%d jobs, %v", len(p.Jobs), err)
	}
	if st, err := tr.State(t.Context(), r, forge.Receipt{}); err != nil || st.State != forge.CheckQueued {
		t.Fatalf("%+v, %v", st, err)
	}
	for range 2 {
		if err := tr.Cancel(t.Context(), r, forge.Receipt{}); err != nil {
			t.Fatal(err)
		}
	}
	got := reports(t, s, r)
	if end := got[len(got)-1]; end.State != forge.CheckCancelled || end.URL != "https://ci.example.org/runs/r" {
		t.Fatalf("told %+v", got)
	}
	if st, err := tr.State(t.Context(), r, forge.Receipt{}); err != nil || st.State != forge.CheckCancelled {
		t.Fatalf("%+v, %v", st, err)
	}
	if st, err := tr.State(t.Context(), run("unknown"), forge.Receipt{}); err != nil || st.State != "" {
		t.Fatalf("%+v, %v", st, err)
	}

	private := run("p")
	private.Ref.Repo.Private = true
	at := func(base string) forge.Run {
		r := run("at-" + base)
		r.Base = base
		return r
	}
	for name, c := range map[string]struct {
		source tree
		run    forge.Run
		says   string
		theirs bool // who can mend it reads it in the check
	}{
		"private":   {nil, private, "need the GitHub App", false},
		"no file":   {nil, run("n"), ".signalbox/presubmit.yaml is not there at \"bbbbbbbbbbbb", true},
		"bad file":  {tree{file: "jobs:\n- name: x\n  uses: y\n"}, run("b"), `.signalbox/presubmit.yaml:3: unknown key "uses"`, true},
		"forge out": {tree{}, run("o"), "not there", true},
		"mended":    {tree{file: "jobs: []", "main:" + File: "jobs:\n- name: x\n  uses: y\n"}, at("main"), `.signalbox/presubmit.yaml:3: unknown key "uses"`, true},
		"odd name":  {tree{file: "jobs:\n- name: x\n  uses: y\n"}, at(strings.Repeat("c", 40)), `.signalbox/presubmit.yaml:3: unknown key "uses"`, true},
	} {
		_, err := NewTrigger(s.Service, c.source).Start(t.Context(), c.run)
		if f := forge.Classify(err); err == nil || f.Class != forge.Permanent || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", name, err)
		}
		if _, theirs := errors.AsType[*prmanager.Mistake](err); theirs != c.theirs {
			t.Errorf("%s: for the repository's people to mend: %v", name, theirs)
		}
	}
}
