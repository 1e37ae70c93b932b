//go:build ignore

// Facts distils what the tests of this directory's parent hold the sandbox against, from two public npm packages:
//
//	npm pack @octokit/openapi@23.0.2 @octokit/webhooks-examples@7.6.1   # and unpack both
//	go run testdata/facts.go OPENAPI/generated/api.github.com.json EXAMPLES/api.github.com/index.json
//
// It writes openapi/github.json (of the endpoints below: the query parameters, and the schemas of bodies and answers, reduced
// to types, required names, nullability, enums, limits and formats) and testdata/payloads.json (of the events below: which keys every example has,
// and which keys some example has). Neither holds any example's values or the description's prose.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
)

// endpoints are those the sandbox serves and the description knows.
var endpoints = strings.Fields(`
	GET:/user GET:/users/{username} GET:/user/{account_id} GET:/rate_limit GET:/meta
	GET:/app GET:/app/installations POST:/app/installations/{installation_id}/access_tokens
	GET:/repos/{owner}/{repo}/installation GET:/installation/repositories
	GET:/orgs/{org}/teams/{team_slug}/memberships/{username} GET:/orgs/{org}/teams/{team_slug}/members
	GET:/repos/{owner}/{repo} GET:/repos/{owner}/{repo}/collaborators/{username}/permission
	GET:/repos/{owner}/{repo}/commits/{ref} GET:/repos/{owner}/{repo}/git/ref/{ref} GET:/repos/{owner}/{repo}/branches/{branch}
	GET:/repos/{owner}/{repo}/rules/branches/{branch}
	GET:/repos/{owner}/{repo}/pulls GET:/repos/{owner}/{repo}/pulls/{pull_number} PATCH:/repos/{owner}/{repo}/pulls/{pull_number}
	GET:/repos/{owner}/{repo}/issues/{issue_number}/events GET:/repos/{owner}/{repo}/issues/{issue_number}/timeline
	GET:/repos/{owner}/{repo}/issues/{issue_number}/comments POST:/repos/{owner}/{repo}/issues/{issue_number}/comments
	GET:/repos/{owner}/{repo}/issues/{issue_number}/labels POST:/repos/{owner}/{repo}/issues/{issue_number}/labels
	DELETE:/repos/{owner}/{repo}/issues/{issue_number}/labels/{name}
	GET:/repos/{owner}/{repo}/labels POST:/repos/{owner}/{repo}/labels GET:/repos/{owner}/{repo}/labels/{name}
	POST:/repos/{owner}/{repo}/check-runs PATCH:/repos/{owner}/{repo}/check-runs/{check_run_id}
	GET:/repos/{owner}/{repo}/check-runs/{check_run_id} GET:/repos/{owner}/{repo}/commits/{ref}/check-runs
	POST:/repos/{owner}/{repo}/statuses/{sha} GET:/repos/{owner}/{repo}/commits/{ref}/statuses GET:/repos/{owner}/{repo}/commits/{ref}/status
	POST:/repos/{owner}/{repo}/dispatches POST:/repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches
	GET:/repos/{owner}/{repo}/actions/workflows GET:/repos/{owner}/{repo}/actions/workflows/{workflow_id}
	GET:/repos/{owner}/{repo}/actions/workflows/{workflow_id}/runs GET:/repos/{owner}/{repo}/actions/runs
	GET:/repos/{owner}/{repo}/actions/runs/{run_id} POST:/repos/{owner}/{repo}/actions/runs/{run_id}/cancel
	POST:/repos/{owner}/{repo}/actions/runs/{run_id}/approve POST:/repos/{owner}/{repo}/actions/runs/{run_id}/rerun
	GET:/repos/{owner}/{repo}/actions/permissions/fork-pr-contributor-approval
	GET:/repos/{owner}/{repo}/hooks GET:/repos/{owner}/{repo}/hooks/{hook_id} GET:/repos/{owner}/{repo}/hooks/{hook_id}/deliveries
	GET:/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id} POST:/repos/{owner}/{repo}/hooks/{hook_id}/deliveries/{delivery_id}/attempts
	GET:/user/repos GET:/app/hook/config GET:/app/hook/deliveries GET:/app/hook/deliveries/{delivery_id} POST:/app/hook/deliveries/{delivery_id}/attempts
`)

// events are those the sandbox sends and the examples show.
var events = strings.Fields(`
	ping pull_request.opened pull_request.synchronize pull_request.labeled pull_request.unlabeled pull_request.closed pull_request.reopened
	pull_request.ready_for_review pull_request.converted_to_draft issue_comment.created issue_comment.edited check_run.created
	check_run.completed check_run.requested_action check_run.rerequested workflow_run.requested workflow_run.completed status
	merge_group.checks_requested
`)

type object = map[string]any

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: go run testdata/facts.go API.json EXAMPLES.json")
	}
	openapi(read[object](os.Args[1]))
	payloads(read[[]struct {
		Name     string
		Examples []object
	}](os.Args[2]))
}

func read[T any](name string) (v T) {
	b, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// write puts each second-level entry on its own line, so that a new package version gives a readable difference.
func write(name string, sections map[string]object) {
	var b bytes.Buffer
	b.WriteString("{")
	for i, section := range slices.Sorted(keys(sections)) {
		if i > 0 {
			b.WriteString(",")
		}
		fmt.Fprintf(&b, "\n%q: {", section)
		for j, key := range slices.Sorted(keys(sections[section])) {
			if j > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, "\n%q: %s", key, encode(sections[section][key]))
		}
		b.WriteString("\n}")
	}
	b.WriteString("\n}\n")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		log.Fatal(err)
	}
	return string(b)
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

func openapi(doc object) {
	schemas := doc["components"].(object)["schemas"].(object)
	responses := doc["components"].(object)["responses"].(object)
	parameters := doc["components"].(object)["parameters"].(object)
	used := object{}
	var reduce func(any) any
	reduce = func(x any) any {
		s, is := x.(object)
		if !is {
			return x // additionalProperties: true
		}
		if ref, is := s["$ref"].(string); is {
			name := ref[strings.LastIndex(ref, "/")+1:]
			if _, seen := used[name]; !seen {
				used[name] = nil
				used[name] = reduce(schemas[name])
			}
			return object{"$ref": name}
		}
		out := object{}
		for _, same := range []string{"type", "format", "nullable", "required", "enum", "minItems", "maxItems", "maxLength", "minimum", "maximum"} {
			if v, there := s[same]; there {
				out[same] = v
			}
		}
		for _, list := range []string{"oneOf", "anyOf", "allOf"} {
			for _, v := range asList(s[list]) {
				out[list] = append(asList(out[list]), reduce(v))
			}
		}
		if p, there := s["properties"].(object); there {
			q := object{}
			for k, v := range p {
				q[k] = reduce(v)
			}
			out["properties"] = q
		}
		for _, one := range []string{"items", "additionalProperties"} {
			if v, there := s[one]; there {
				out[one] = reduce(v)
			}
		}
		return out
	}
	body := func(content any) any {
		c, _ := content.(object)
		for _, kind := range []string{"application/json", "*/*"} {
			if m, there := c[kind].(object); there {
				return reduce(m["schema"])
			}
		}
		return nil
	}
	out := object{}
	for _, e := range endpoints {
		method, path, _ := strings.Cut(e, ":")
		op, there := doc["paths"].(object)[path].(object)[strings.ToLower(method)].(object)
		if !there {
			log.Fatalf("the description has no %s %s", method, path)
		}
		answers := object{}
		for status, r := range op["responses"].(object) {
			if ref, is := r.(object)["$ref"].(string); is {
				r = responses[ref[strings.LastIndex(ref, "/")+1:]]
			}
			answers[status] = body(r.(object)["content"])
		}
		entry := object{"answers": answers}
		query := object{}
		for _, p := range asList(op["parameters"]) {
			if ref, is := p.(object)["$ref"].(string); is {
				p = parameters[ref[strings.LastIndex(ref, "/")+1:]]
			}
			if p := p.(object); p["in"] == "query" {
				query[p["name"].(string)] = reduce(p["schema"])
			}
		}
		if len(query) > 0 {
			entry["query"] = query
		}
		if b, there := op["requestBody"].(object); there {
			entry["body"] = body(b["content"])
			entry["needed"] = b["required"] == true
		}
		out[method+" "+path] = entry
	}
	reduce(object{"$ref": "/basic-error"})
	reduce(object{"$ref": "/validation-error"})
	write("openapi/github.json", map[string]object{"endpoints": out, "schemas": used})
}

func asList(v any) []any { l, _ := v.([]any); return l }

// A shape is the keys of an object: name → its value's shape. "all" of a name says that every example has it.
func payloads(examples []struct {
	Name     string
	Examples []object
}) {
	out := object{}
	for _, e := range events {
		name, action, _ := strings.Cut(e, ".")
		var found []any
		for _, x := range examples {
			for _, body := range x.Examples {
				if x.Name == name && (action == "" || body["action"] == action) {
					found = append(found, body)
				}
			}
		}
		if found == nil {
			log.Fatalf("no example of %s", e)
		}
		out[e] = shape(found)
	}
	// Shapes that occur more than once are named, in an order that does not depend on maps.
	count := map[string]int{}
	var walk func(any)
	walk = func(v any) {
		o, _ := v.(object)
		for _, x := range o {
			walk(x)
			if s, is := x.(object); is && len(s) > 3 {
				count[encode(s)]++
			}
		}
	}
	walk(out)
	names, shared := map[string]string{}, object{}
	for _, text := range slices.Sorted(keys(count)) {
		if count[text] > 1 {
			names[text] = fmt.Sprintf("shape%03d", len(names))
		}
	}
	var replace func(any) any
	replace = func(v any) any {
		o, is := v.(object)
		if !is {
			return v
		}
		r := object{}
		for k, x := range o {
			r[k] = replace(x)
			if n := names[encode(x)]; n != "" {
				r[k] = n
			}
		}
		return r
	}
	for text, name := range names {
		var s object
		if err := json.Unmarshal([]byte(text), &s); err != nil {
			log.Fatal(err)
		}
		shared[name] = replace(s)
	}
	write("testdata/payloads.json", map[string]object{"events": replace(out).(object), "shapes": shared})
}

// shape merges examples of one thing. A name that not all of them have ends in "?".
func shape(examples []any) any {
	count, values := map[string]int{}, map[string][]any{}
	objects := 0
	for _, x := range examples {
		if list, is := x.([]any); is {
			if s := shape(list); s != nil {
				return object{"[]": s}
			}
		}
		o, is := x.(object)
		if !is {
			continue
		}
		objects++
		for k, v := range o {
			count[k]++
			values[k] = append(values[k], v)
		}
	}
	if objects == 0 {
		return nil
	}
	out := object{}
	for k, n := range count {
		name := k
		if n < objects {
			name += "?"
		}
		out[name] = nil
		if k != "permissions" { // names of an App's permissions are data
			out[name] = shape(values[k])
		}
	}
	return out
}
