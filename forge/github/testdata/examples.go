//go:build ignore

// Examples distils the deliveries that GitHub shows as examples, from the public npm package of them, for all the servers
// that it knows (github.com and Enterprise Servers):
//
//	npm pack @octokit/webhooks-examples@7.6.1   # and unpack it
//	go run testdata/examples.go PACKAGE          # in forge/github
//
// It writes testdata/examples.json: of each example of the events below, the members that Hook.Route reads, with their
// values; texts that people wrote are left out, unless they are a command or a run key. Nothing else of the example is kept,
// and examples that become equal are kept once. Before it keeps one, it holds that Route says the same of both forms.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/prmanager"
)

type object = map[string]any

// keep says which members to keep: nil = the value as it is.
var (
	account    = object{"id": nil, "login": nil, "type": nil}
	repository = object{"id": nil, "full_name": nil, "private": nil}
	branch     = object{"sha": nil, "ref": nil, "repo": repository}
	envelope   = object{
		"action": nil, "repository": repository, "sender": account, "installation": object{"id": nil},
		"organization": object{"id": nil, "login": nil},
	}
	events = map[string]object{
		"pull_request": {
			"number": nil, "before": nil, "after": nil, "label": object{"name": nil},
			"changes": object{"base": object{"ref": object{"from": nil}}},
			"pull_request": object{
				"number": nil, "state": nil, "merged": nil, "draft": nil, "user": account, "updated_at": nil, "head": branch, "base": branch,
			},
		},
		"issue_comment": {
			"issue":   object{"number": nil, "user": account, "pull_request": object{}},
			"comment": object{"id": nil, "user": account, "body": nil, "created_at": nil},
		},
		"check_run": {
			"check_run":        object{"id": nil, "name": nil, "head_sha": nil, "external_id": nil, "app": object{"id": nil}},
			"requested_action": object{"identifier": nil},
		},
		"workflow_run": {
			"workflow_run": object{
				"id": nil, "event": nil, "path": nil, "display_title": nil, "status": nil, "conclusion": nil, "html_url": nil,
				"run_attempt": nil, "head_sha": nil, "head_branch": nil, "head_repository": repository, "updated_at": nil,
			},
		},
		"merge_group": {
			"merge_group": object{
				"head_sha": nil, "head_ref": nil, "base_sha": nil, "base_ref": nil, "head_commit": object{"id": nil, "timestamp": nil},
			},
		},
		"check_suite":  {"check_suite": object{"id": nil, "head_sha": nil}},
		"label":        {"label": object{"id": nil}},
		"membership":   {"scope": nil, "member": account, "team": object{"id": nil, "slug": nil}},
		"team":         {"team": object{"id": nil, "slug": nil}},
		"installation": {"installation": object{"id": nil, "app_id": nil, "account": account}},
	}
)

func reduce(v any, shape object) any {
	o, is := v.(object)
	if !is || shape == nil {
		return v
	}
	out := object{}
	for name, inner := range shape {
		if value, there := o[name]; there {
			in, _ := inner.(object)
			out[name] = reduce(value, in)
		}
	}
	return out
}

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: go run testdata/examples.go PACKAGE")
	}
	files, err := filepath.Glob(filepath.Join(os.Args[1], "*", "index.json"))
	if err != nil || len(files) == 0 {
		log.Fatal("no examples in ", os.Args[1])
	}
	hook, err := github.NewHook("github", []string{"unused"})
	check(err)
	kept := map[string][]string{}
	for _, file := range files {
		var examples []struct {
			Name     string
			Examples []object
		}
		b, err := os.ReadFile(file)
		check(err)
		check(json.Unmarshal(b, &examples))
		for _, e := range examples {
			shape, wanted := events[e.Name]
			if !wanted {
				continue
			}
			whole := object{}
			for _, part := range []object{envelope, shape} {
				for name, inner := range part {
					whole[name] = inner
				}
			}
			for _, full := range e.Examples {
				small := reduce(full, whole).(object)
				silence(small)
				before, after := encode(full), encode(small)
				if a, b := route(hook, e.Name, before), route(hook, e.Name, after); a != b {
					log.Fatalf("%s: of the example Route says\n%s\nand of what is kept\n%s", e.Name, a, b)
				}
				if text := string(after); !slices.Contains(kept[e.Name], text) {
					kept[e.Name] = append(kept[e.Name], text)
				}
			}
		}
	}
	var out bytes.Buffer
	out.WriteString("{")
	for i, name := range slices.Sorted(keys(events)) {
		if i > 0 {
			out.WriteString(",")
		}
		fmt.Fprintf(&out, "\n%q: [\n%s\n]", name, strings.Join(kept[name], ",\n"))
	}
	out.WriteString("\n}\n")
	check(os.WriteFile("testdata/examples.json", out.Bytes(), 0o644))
}

// silence leaves out what people wrote.
func silence(o object) {
	if comment, is := o["comment"].(object); is {
		if body, _ := comment["body"].(string); len(prmanager.Commands(body)) == 0 {
			comment["body"] = ""
		}
	}
	if run, is := o["workflow_run"].(object); is {
		if title, _ := run["display_title"].(string); !strings.Contains(title, "sb1-") {
			delete(run, "display_title")
		}
	}
}

func route(hook *github.Hook, event string, body []byte) string {
	to, err := hook.Route(http.Header{"X-Github-Event": {event}, "X-Github-Delivery": {"1"}}, body)
	return fmt.Sprintf("%+v %s %v", to, to.Body, err)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	check(err)
	return b
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func keys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
