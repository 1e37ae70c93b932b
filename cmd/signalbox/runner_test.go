package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// A runner is invited by a command, registers over the protocol, is listed and removed.
func TestRunnerCommands(t *testing.T) {
	var app http.Handler
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { app.ServeHTTP(w, r) }))
	defer web.Close()
	env := []string{
		"SIGNALBOX_STORE=file:" + t.TempDir() + "/x.db", "SIGNALBOX_GITHUB_TOKEN=t", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=0123456789abcdef",
		"SIGNALBOX_GITHUB_API_URL=" + web.URL, "SIGNALBOX_TRIGGER=runner", "SIGNALBOX_URL=" + web.URL, "SIGNALBOX_ADMIN_TOKEN=0123456789abcdef0123456789abcdef",
	}
	cfg, err := Settings{}.Resolve(env, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := newApp(t.Context(), cfg, zap.NewNop(), appOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.store.Close()
	app = a.handler
	command := func(want int, args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, process{env, os.ReadFile, &out, &errs}); code != want {
			t.Fatalf("%v: %d %s", args, code, errs.String())
		}
		return strings.TrimSpace(out.String())
	}
	post := func(call, body string) (int, string) {
		t.Helper()
		res, err := web.Client().Post(web.URL+"/api/actions/runner.v1.RunnerService/"+call, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b)
	}

	if out := command(exitOK, "runner", "list"); out != "no runner is registered" {
		t.Errorf("%q", out)
	}
	var invited struct{ Token string }
	if err := json.Unmarshal([]byte(command(exitOK, "runner", "token", "--labels", "linux,big", "--output", "json")), &invited); err != nil {
		t.Fatal(err)
	}
	token := invited.Token
	if again := command(exitOK, "runner", "token", "--labels", "linux"); len(again) != len(token) || strings.ContainsAny(again, `{" `) {
		t.Errorf("as text: %q", again)
	}
	command(exitUsage, "runner", "token")
	command(exitUsage, "runner", "token", "--labels", "a b")
	command(exitUsage, "runner", "add", "--labels", "a b", "--name", "two")
	if code, body := post("Register", `{"token":"wrong","name":"one","labels":["linux"]}`); code != http.StatusBadRequest {
		t.Errorf("%d %s", code, body)
	}
	code, body := post("Register", `{"token":"`+token+`","name":"one","labels":["linux:host","other"]}`)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	if code, body := post("FetchTask", `{}`); code != http.StatusUnauthorized {
		t.Errorf("%d %s", code, body)
	}
	var list []struct {
		UUID, Name string
		Labels     []string
	}
	if err := json.Unmarshal([]byte(command(exitOK, "runner", "list", "--output", "json")), &list); err != nil || len(list) != 1 || list[0].Name != "one" || strings.Join(list[0].Labels, " ") != "linux" {
		t.Fatalf("%+v, %v", list, err)
	}
	if out := command(exitOK, "runner", "list"); !strings.Contains(out, list[0].UUID) || strings.Contains(out, token) {
		t.Errorf("%q", out)
	}
	command(exitOK, "runner", "remove", list[0].UUID)
	command(exitFailed, "runner", "remove", list[0].UUID)
	if out := command(exitOK, "runner", "list"); out != "no runner is registered" {
		t.Errorf("%q", out)
	}
	command(exitUsage, "runner", "add", "--labels", "linux")
	if out := command(exitOK, "runner", "add", "--labels", "linux", "--name", "two"); !regexp.MustCompile(`^uuid: [0-9a-f-]{36}\ntoken: [0-9a-f]{40}$`).MatchString(out) {
		t.Errorf("%q", out)
	}
	var added struct{ UUID, Token string }
	if err := json.Unmarshal([]byte(command(exitOK, "runner", "add", "--labels", "linux", "--name", "three", "--output", "json")), &added); err != nil || added.UUID == "" || added.Token == "" {
		t.Errorf("%+v, %v", added, err)
	}
	if out := command(exitOK, "runner", "list"); strings.Count(out, "never") != 2 || !strings.Contains(out, added.UUID) || strings.Contains(out, added.Token) {
		t.Errorf("%q", out)
	}
	res, err := web.Client().Get(web.URL + "/runs/sb1-unknown")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusNotFound {
		t.Errorf("an unknown run: %s", res.Status)
	}
}
