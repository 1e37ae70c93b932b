package sandbox

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// ServeGit makes a git repository on this machine what r is: its branch of the same name is the default branch, pull
// requests may be opened at its commits (PROptions.SHA), files are read from it, and git fetches it from
// URL/OWNER/NAME.git, by any SHA. A private one asks for a token that sees r, as the password. git must be installed.
func (r *Repo) ServeGit(ctx context.Context, dir string) error {
	tip, err := git(ctx, dir, "rev-parse", "--verify", "refs/heads/"+r.main)
	if err != nil {
		return err
	}
	all, err := git(ctx, dir, "rev-list", "--all")
	if err != nil {
		return err
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	for sha := range strings.FieldsSeq(string(all)) {
		if r.f.commits[sha] == nil {
			r.f.commits[sha] = &commit{sha: sha, tree: r.f.digits(40), root: r.root, author: r.owner, message: "Commit", at: r.f.now()}
		}
	}
	r.git, r.branches[r.main] = dir, strings.TrimSpace(string(tip))
	return nil
}

func git(ctx context.Context, dir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-C", dir, "-c", "uploadpack.allowAnySHA1InWant=true"}, args...)...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(said.Bytes()))
	}
	return out, nil
}

// file reads a file at a commit: a workflow, which stands on every branch, or what git has.
func (r *Repo) file(ctx context.Context, at *commit, name string) ([]byte, error) {
	if i := slices.IndexFunc(r.workflows, func(w *workflow) bool { return w.File == name }); i >= 0 {
		return []byte("name: " + r.workflows[i].title() + "\n"), nil
	}
	if r.git == "" {
		return nil, errors.New("there is no git to look into")
	}
	return git(ctx, r.git, "cat-file", "blob", at.sha+":"+name)
}

func (f *Forge) getContents(c *call) answer {
	at, file := c.repo.lookup(c.req.URL.Query().Get("ref")), c.path("path")
	if at == nil {
		return *notFound()
	}
	text, err := c.repo.file(c.req.Context(), at, file)
	if err != nil {
		return *notFound()
	}
	api, html := f.apiURL(c.repo, "/contents/"+file+"?ref="+at.sha), f.htmlURL(c.repo, "/blob/"+at.sha+"/"+file)
	blob := f.apiURL(c.repo, "/git/blobs/"+at.tree)
	return ok(object{
		"type": "file", "encoding": "base64", "size": len(text), "name": path.Base(file), "path": file, "sha": at.tree,
		"content": base64.StdEncoding.EncodeToString(text), "url": api, "git_url": blob, "html_url": html, "download_url": html,
		"_links": object{"self": api, "git": blob, "html": html},
	})
}

// fetch is git's own protocol over HTTP, for reading.
func (f *Forge) fetch(w http.ResponseWriter, r *http.Request) {
	name, is := strings.CutSuffix(r.PathValue("repo"), ".git")
	_, token, _ := r.BasicAuth()
	f.mu.Lock()
	repo := f.repo(r.PathValue("owner"), name)
	dir := ""
	if repo != nil && is {
		if cred := f.tokens[token]; !repo.private || cred != nil && (cred.install != nil && cred.install.sees(repo) && cred.permission("contents") != "" || cred.user != nil && rank(repo.role(cred.user)) > 0) {
			dir = repo.git
		}
	}
	f.mu.Unlock()
	if dir == "" {
		w.Header().Set("WWW-Authenticate", `Basic realm="GitHub"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	kind, args := "advertisement", []string{"upload-pack", "--stateless-rpc", "--advertise-refs", "."}
	if r.Method == http.MethodPost {
		kind, args = "result", []string{"upload-pack", "--stateless-rpc", "."}
	} else if r.URL.Query().Get("service") != "git-upload-pack" {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = z
	}
	w.Header().Set("Content-Type", "application/x-git-upload-pack-"+kind)
	if kind == "advertisement" {
		_, _ = io.WriteString(w, "001e# service=git-upload-pack\n0000") // who is gone is told by git, below
	}
	cmd := exec.CommandContext(r.Context(), "git", append([]string{"-C", dir, "-c", "uploadpack.allowAnySHA1InWant=true"}, args...)...)
	cmd.Env = append(cmd.Environ(), "GIT_PROTOCOL="+r.Header.Get("Git-Protocol"))
	cmd.Stdin, cmd.Stdout = body, w
	if err := cmd.Run(); err != nil {
		panic(http.ErrAbortHandler)
	}
}
