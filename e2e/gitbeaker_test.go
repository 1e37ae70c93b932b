//go:build e2e && npm

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
)

// gitbeaker is the version that is installed from npm's registry; Node runs it.
const gitbeaker = "@gitbeaker/rest@43.8.0"

// script posts as a CI written in JavaScript would; only the host is another than GitLab's.
const script = `
import { Gitlab } from '@gitbeaker/rest';
const { HOST: host, TOKEN: token, SHA: sha } = process.env;
const out = [];
const post = async (auth, project, state, options) => {
  try {
    const s = await new Gitlab({ host, ...auth }).Commits.editStatus(project, sha, state, options);
    out.push([s.status, s.name, s.description, s.target_url, s.id > 0 && s.pipeline_id > 0].join(' '));
  } catch (e) {
    out.push([e.cause?.response?.status, e.cause?.description].join(' '));
  }
};
await post({ token }, 'octo/hello', 'running', { name: 'ci/x', description: 'building', targetUrl: 'https://ci.example/1', coverage: 12.5 });
await post({ oauthToken: token }, Number(process.env.PROJECT), 'success', { context: 'ci/x' });
await post({ token }, 'octo/hello', 'failed', { name: 'elsewhere' });
await post({ jobToken: token }, 'octo/hello', 'failed', { name: 'ci/x' });
console.log(JSON.stringify(out));
`

// An independent GitLab client posts statuses through version 1 of the status API.
func TestGitbeakerPostsStatuses(t *testing.T) {
	dir := t.TempDir()
	command := func(env []string, name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, errs.String())
		}
		return strings.TrimSpace(string(out))
	}
	bin, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	signalbox := filepath.Join(dir, "signalbox")
	command(nil, "go", "build", "-C", bin, "-o", signalbox, "./cmd/signalbox")
	command(nil, "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", gitbeaker)
	if err := os.WriteFile(filepath.Join(dir, "post.mjs"), []byte(script), 0o600); err != nil {
		t.Fatal(err)
	}

	lab := gitlabsandbox.New(time.Now)
	bot := lab.AddUser("project_1_bot_ab", true)
	project := lab.AddProject("octo/hello", map[*gitlabsandbox.User]int{bot: gitlabsandbox.Developer})
	sha := project.Push("main")
	api := httptest.NewServer(lab.Handler())
	defer api.Close()
	env := []string{
		"SIGNALBOX_STORE=file:" + filepath.Join(dir, "signalbox.db"), "SIGNALBOX_LISTEN=127.0.0.1:0", "SIGNALBOX_GITLAB_URL=" + api.URL,
		"SIGNALBOX_GITLAB_TOKEN=" + bot.Token, "SIGNALBOX_GITLAB_WEBHOOK_SECRET=e2e-webhook-secret", "SIGNALBOX_LOG_FORMAT=json",
	}
	server := exec.CommandContext(context.WithoutCancel(t.Context()), signalbox, "serve")
	server.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	server.Stderr = log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		if err := server.Wait(); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	var address string
	until(t, "the server serves", func() bool {
		said, err := os.ReadFile(log.Name())
		if m := regexp.MustCompile(`"serving".*"address":"([^"]+)"`).FindSubmatch(said); err == nil && m != nil {
			address = string(m[1])
		}
		return address != ""
	})

	token := command(env, signalbox, "status", "token", "--project", "gitlab:octo/hello", "--context", "ci/*")
	said := command([]string{"HOST=http://" + address + "/api/v1", "TOKEN=" + token, "SHA=" + sha, "PROJECT=" + strconv.FormatInt(project.ID, 10)}, "node", "post.mjs")
	var got []string
	if err := json.Unmarshal([]byte(said), &got); err != nil {
		t.Fatalf("%s: %v", said, err)
	}
	want := []string{
		"running ci/x building https://ci.example/1 true", "success ci/x building https://ci.example/1 true",
		"403 403 Forbidden - the token is not for this context, but for ci/*",
		"401 401 Unauthorized - the token of a job cannot be used here; send one of signalbox status token as PRIVATE-TOKEN",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	if got := project.Statuses(sha); !slices.Equal(got, []string{"ci/x running", "ci/x success"}) {
		t.Errorf("the forge has %q", got)
	}
}
