package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

// life is a pull request's life as deliveries in a file, one a line, with the facts of the moment beside some.
func life(t *testing.T) []byte {
	t.Helper()
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	f := sandbox.New(sandbox.Options{Seed: "replay", Clock: func() time.Time { return at }})
	mallory, maya := f.AddUser("mallory"), f.AddUser("maya")
	repo := f.AddRepo("octo/hello", sandbox.RepoOptions{Permissions: map[*sandbox.User]string{maya: "write"}})
	repo.AddHook("s", "*")
	pr := repo.OpenPR(mallory, sandbox.PROptions{Fork: true})
	at = at.Add(10 * time.Minute)
	pr.Label(maya, "CICD")
	labelled := at
	at = at.Add(10 * time.Minute)
	pr.Push(mallory)

	var out bytes.Buffer
	write := func(d sandbox.Delivery, facts string) {
		if facts != "" {
			facts = `,"facts":` + facts
		}
		fmt.Fprintf(&out, `{"headers":{"X-GitHub-Event":%q,"x-github-delivery":%q},"body":%s%s}`+"\n", d.Event, d.GUID, d.Body, facts)
	}
	for _, d := range f.Deliveries() {
		facts := ""
		switch d.Action {
		case "opened":
			facts = `{"trusted":{"mallory":false}}`
		case "labeled":
			var body struct {
				PR struct {
					Head, Base struct {
						SHA, Ref string
						Repo     struct{ ID int64 }
					}
				} `json:"pull_request"`
			}
			if err := json.Unmarshal(d.Body, &body); err != nil {
				t.Fatal(err)
			}
			head, base := body.PR.Head, body.PR.Base
			live := forge.Pull{
				Ref: forge.Ref{Repo: forge.Repo{Instance: "github", ID: repo.ID, Name: "octo/hello"}, Number: 1}, Open: true,
				Author: forge.Actor{ID: mallory.ID, Login: "mallory"}, UpdatedAt: labelled,
				Head: forge.Branch{SHA: head.SHA, Name: head.Ref, RepoID: head.Repo.ID}, Base: forge.Branch{SHA: base.SHA, Name: base.Ref, RepoID: base.Repo.ID},
			}
			entry := forge.LabelEntry{ID: 5, Added: true, Label: "CICD", Actor: forge.Actor{ID: maya.ID, Login: "maya"}, At: labelled}
			facts = fmt.Sprintf(`{"live":%s,"labels":%s,"trusted":{"maya":true,"mallory":false}}`, mustJSON(live), mustJSON([]forge.LabelEntry{entry}))
		}
		write(d, facts)
	}
	all := f.Deliveries()
	write(all[1], "") // sent again
	return out.Bytes()
}

func replayOf(t *testing.T, env []string, f files, args ...string) (int, string, string) {
	t.Helper()
	var o, e bytes.Buffer
	code := run(t.Context(), append([]string{"replay"}, args...), process{env, f.read, &o, &e})
	return code, o.String(), e.String()
}

func TestReplayGolden(t *testing.T) {
	golden := filepath.Join("testdata", "replay.golden")
	f := files{"life.ndjson": string(life(t))}
	env := []string{"SIGNALBOX_TRIGGER=workflow:presubmit.yml@signalbox-presubmit"}
	code, out, errs := replayOf(t, env, f, "life.ndjson")
	if code != exitOK || errs != "" {
		t.Fatalf("%d %q", code, errs)
	}
	for range 3 {
		if _, again, _ := replayOf(t, env, f, "life.ndjson"); again != out {
			t.Fatal("two replays differ")
		}
	}
	if *rewrite {
		if err := os.WriteFile(golden, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out != string(want) {
		t.Errorf("differs from %s (go test -run Golden -rewrite writes it anew):\n%s", golden, out)
	}
	for _, must := range []string{"Grant (label to", "Revoke (label of", "it arrived before", "the record does not answer"} {
		if !strings.Contains(out, must) {
			t.Errorf("lacks %q", must)
		}
	}
	_, strict, _ := replayOf(t, append(env, "SIGNALBOX_HOLD=strict"), f, "life.ndjson")
	if strict == out {
		t.Error("another configuration decides the same")
	}
}

// Whatever form a delivery is recorded in, it is the same delivery.
func TestReplayForms(t *testing.T) {
	first, _, _ := bytes.Cut(life(t)[bytes.IndexByte(life(t), '\n')+1:], []byte("\n"))
	var x struct {
		Headers map[string]string `json:"headers"`
		Body    json.RawMessage   `json:"body"`
	}
	if err := json.Unmarshal(first, &x); err != nil {
		t.Fatal(err)
	}
	text := mustJSON(string(x.Body))
	f := files{
		"line":    string(first),
		"array":   "[" + string(first) + "]",
		"text":    fmt.Sprintf(`{"headers":%s,"body":%s}`, mustJSON(x.Headers), text),
		"lists":   fmt.Sprintf(`{"headers":{"X-GitHub-Event":["pull_request"],"X-GitHub-Delivery":[%q]},"body":%s}`, x.Headers["x-github-delivery"], x.Body),
		"export":  fmt.Sprintf(`{"id":1,"guid":"x","delivered_at":"2026-11-21T08:00:00Z","event":"pull_request","request":{"headers":%s,"payload":%s}}`, mustJSON(x.Headers), x.Body),
		"payload": string(x.Body),
	}
	want := ""
	for _, name := range []string{"text", "lists", "export", "payload"} {
		code, out, errs := replayOf(t, nil, f, "--output", "json", name)
		var list []replayed
		if err := json.Unmarshal([]byte(out), &list); code != exitOK || err != nil || len(list) != 1 || list[0].Ref != "github:octo/hello#1" {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
			continue
		}
		list[0].Delivery = ""
		for i := range list[0].Story {
			list[0].Story[i].At = time.Time{}
		}
		if got := string(mustJSON(list[0])); want == "" {
			want = got
		} else if got != want {
			t.Errorf("%s decides\n%s\nand others\n%s", name, got, want)
		}
	}
	for _, name := range []string{"line", "array"} {
		if code, out, _ := replayOf(t, nil, f, name); code != exitOK || !strings.Contains(out, "github:octo/hello#1") {
			t.Errorf("%s: %d %s", name, code, out)
		}
	}
}

// Deliveries that come late are decided when they come: a pull request's time never goes back.
func TestReplayOfLateDeliveries(t *testing.T) {
	late := slices.Collect(bytes.Lines(life(t)))
	slices.Reverse(late)
	code, out, errs := replayOf(t, nil, files{"late": string(bytes.Join(late, nil))}, "--output", "json", "late")
	var list []replayed
	if err := json.Unmarshal([]byte(out), &list); code != exitOK || err != nil {
		t.Fatalf("%d %v %s", code, err, errs)
	}
	var last time.Time
	for _, x := range list {
		for _, l := range x.Story {
			if l.At.Before(last) {
				t.Errorf("%s is decided at %s, after %s", x.Action, l.At, last)
			}
			last = l.At
		}
	}
	if last.IsZero() {
		t.Error("nothing was decided")
	}
}

func TestReplayOfWhatIsNotDecided(t *testing.T) {
	f := files{
		"star":    `{"headers":{"X-GitHub-Event":"star","X-GitHub-Delivery":"1"},"body":{"action":"created"}}`,
		"ping":    `{"headers":{"X-GitHub-Event":"ping","X-GitHub-Delivery":"1"},"body":{}}`,
		"empty":   " \n",
		"broken":  `{"headers":`,
		"number":  `5`,
		"nobody":  `{"headers":{"X-GitHub-Event":"pull_request","X-GitHub-Delivery":"1"},"body":{"action":"opened"}}`,
		"flawed":  `{"headers":{"X-GitHub-Event":"pull_request","X-GitHub-Delivery":"1"},"body":{"action":"opened","number":1,"repository":{"id":5,"full_name":"o/r"},"pull_request":{"number":1,"head":5}}}`,
		"life":    string(life(t)),
		"unknown": `{"some":"thing"}`,
	}
	for _, c := range []struct {
		name, out, errs string
		code            int
		env             []string
	}{
		{"star", "nothing is decided: no handler for star", "", exitOK, nil},
		{"ping", "nothing is decided: a greeting", "", exitOK, nil},
		{"unknown", "nothing is decided: no handler for unknown", "", exitOK, nil},
		{"life", "SIGNALBOX_REPOS does not name octo/hello", "", exitOK, []string{"SIGNALBOX_REPOS=octo/other"}},
		{"nobody", "nothing is decided: repository.id: expected", "1 of 1 deliveries cannot be read", exitFailed, nil},
		{"flawed", "nothing is decided: cannot be read", "1 of 1 deliveries cannot be read", exitFailed, nil},
		{"empty", "", "holds no delivery", exitFailed, nil},
		{"broken", "", "not JSON", exitFailed, nil},
		{"number", "", "expected an object", exitFailed, nil},
		{"missing", "", "file does not exist", exitFailed, nil},
		{"github:hook:abc", "", "the store", exitFailed, []string{"SIGNALBOX_STORE=file:/nowhere/x.db"}},
	} {
		code, out, errs := replayOf(t, c.env, f, c.name)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
			t.Errorf("%s: %d\n%s\n%s", c.name, code, out, errs)
		}
	}
	if code, _, _ := replayOf(t, nil, f); code != exitUsage {
		t.Errorf("without a file: %d", code)
	}
}

func TestReplayOfAStoredDelivery(t *testing.T) {
	y := newYard(t, true)
	y.up()
	pr := y.repo.OpenPR(y.mallory, sandbox.PROptions{Fork: true})
	y.send()
	y.settle()
	guid := ""
	for _, d := range y.forge.Deliveries() {
		if d.Event == "pull_request" {
			guid = d.GUID
		}
	}
	for _, id := range []string{"github:hook:" + guid, fmt.Sprintf("github/%d/pr/%d@github:hook:%s", y.repo.ID, pr.Number, guid)} {
		if code, out, errs := y.command("replay", id); code != exitOK || !strings.Contains(out, "pull_request opened  "+guid+"  github:octo/hello#1") {
			t.Errorf("%s: %d %q %q", id, code, out, errs)
		}
	}
	if code, _, errs := y.command("replay", "github:hook:other"); code != exitFailed || !strings.Contains(errs, "no such delivery is stored") {
		t.Errorf("%d %q", code, errs)
	}
}

// A merge request's life at GitLab, in each form in which deliveries can be kept, decides as the server did.
func TestReplayOfGitLab(t *testing.T) {
	w := newWorks(t)
	mallory := w.forge.AddUser("mallory", false)
	type sent struct {
		header http.Header
		body   []byte
	}
	var got []sent
	box := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got = append(got, sent{r.Header, body})
		w.WriteHeader(http.StatusAccepted)
	}))
	defer box.Close()
	m := w.repo.Open(mallory, w.forge.AddProject("mallory/hello", nil))
	m.Label(w.maya, "CICD")
	m.Comment(w.maya, "thanks")
	w.repo.Open(w.maya, w.repo)
	if _, err := w.forge.Deliver(t.Context(), box.URL, false); err != nil {
		t.Fatal(err)
	}
	at := time.Now().UTC().Truncate(time.Second)
	facts := mustJSON(recordedFacts{
		Live: &forge.Pull{
			Ref: forge.Ref{Repo: forge.Repo{Instance: "gitlab", ID: w.repo.ID, Name: "octo/hello"}, Number: 1}, Open: true, UpdatedAt: at.Add(time.Minute),
			Author: forge.Actor{ID: mallory.ID, Login: "mallory"}, Head: forge.Branch{SHA: m.Head(), RepoID: 5}, Base: forge.Branch{Name: "main", RepoID: w.repo.ID},
		},
		Labels:  []forge.LabelEntry{{ID: 7, Added: true, Label: "CICD", Actor: forge.Actor{ID: w.maya.ID, Login: "maya"}, At: at.Add(time.Minute)}},
		Trusted: map[string]bool{"maya": true, "mallory": false},
	})
	for form, write := range map[string]func(s sent) string{
		"headers": func(s sent) string {
			return fmt.Sprintf(`{"headers":%s,"body":%s,"facts":%s}`, mustJSON(s.header), s.body, facts)
		},
		"export": func(s sent) string {
			return fmt.Sprintf(`{"id":1,"trigger":"merge_request_hooks","request_headers":%s,"request_data":%s,"facts":%s}`, mustJSON(s.header), s.body, facts)
		},
		"payload": func(s sent) string { return fmt.Sprintf(`{"body":%s,"facts":%s}`, s.body, facts) },
	} {
		file := ""
		for _, s := range got {
			file += write(s) + "\n"
		}
		code, out, errs := replayOf(t, w.env, files{"life": file}, "life")
		if code != exitOK || errs != "" {
			t.Fatalf("%s: %d %q", form, code, errs)
		}
		for _, must := range []string{
			"merge_request open  ", "gitlab:octo/hello#1", "Untrusted_Author", "Grant (label to " + m.Head()[:7], "would do (permitting): ", "nothing is decided: a note without a command",
			"gitlab:octo/hello#2",
		} {
			if !strings.Contains(out, must) {
				t.Errorf("%s lacks %q:\n%s", form, must, out)
			}
		}
		if code, out, _ := replayOf(t, append(slices.Clone(w.env), "SIGNALBOX_REPOS=octo/other"), files{"life": file}, "life"); code != exitOK || !strings.Contains(out, "does not name octo/hello") {
			t.Errorf("%s, another list: %d %s", form, code, out)
		}
	}
	l := newLab(t, signedHook)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, l.url, bytes.NewReader(got[0].body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = got[0].header
	if res, err := box.Client().Do(req); err != nil || res.StatusCode != http.StatusAccepted {
		t.Fatal(res, err)
	}
	id := got[0].header.Get("Idempotency-Key")
	if code, out, errs := replayOf(t, l.env, files{}, "gitlab:hook:"+id); code != exitOK || !strings.Contains(out, "merge_request open  "+id+"  gitlab:octo/hello#1") {
		t.Errorf("stored: %d %q %q", code, out, errs)
	}
	broken := `{"object_kind":"merge_request","project":{"id":5},"object_attributes":{"iid":1,"action":[]}}`
	if code, out, _ := replayOf(t, w.env, files{"broken": broken}, "broken"); code != exitFailed || !strings.Contains(out, "cannot be read") {
		t.Errorf("%d %s", code, out)
	}
}
