package sandbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// schema is what testdata/facts.go keeps of an OpenAPI schema.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Format     string             `json:"format"`
	Nullable   bool               `json:"nullable"`
	Required   []string           `json:"required"`
	Enum       []any              `json:"enum"`
	Properties map[string]*schema `json:"properties"`
	Items      *schema            `json:"items"`
	OneOf      []*schema          `json:"oneOf"`
	AnyOf      []*schema          `json:"anyOf"`
	AllOf      []*schema          `json:"allOf"`
}

type openapi struct {
	Endpoints map[string]struct {
		Body    *schema
		Answers map[string]*schema
	}
	Schemas map[string]*schema
}

// wrong says where v does not match s; "" = it does.
func (o *openapi) wrong(s *schema, v any, at string) string {
	if s.Ref != "" {
		s = o.Schemas[s.Ref]
	}
	if v == nil {
		// A reference that may be null is named so; the description spells it in two ways.
		if s.Nullable || s.Type == "" && s.OneOf == nil && s.AnyOf == nil && s.AllOf == nil {
			return ""
		}
		return at + ": null"
	}
	for _, part := range s.AllOf {
		if w := o.wrong(part, v, at); w != "" {
			return w
		}
	}
	if ways := append(slices.Clone(s.OneOf), s.AnyOf...); ways != nil {
		var reasons []string
		for _, one := range ways {
			w := o.wrong(one, v, at)
			if w == "" {
				reasons = nil
				break
			}
			reasons = append(reasons, w)
		}
		if reasons != nil {
			return at + ": none of: " + strings.Join(slices.Compact(reasons), "; ")
		}
	}
	if s.Enum != nil && !slices.Contains(s.Enum, v) {
		return fmt.Sprintf("%s: %v is not one of %v", at, v, s.Enum)
	}
	switch x := v.(type) {
	case map[string]any:
		if s.Type != "" && s.Type != "object" {
			return at + ": an object, not " + s.Type
		}
		for _, name := range s.Required {
			if _, there := x[name]; !there {
				return at + ": no " + name
			}
		}
		for name, value := range x {
			if p := s.Properties[name]; p != nil {
				if w := o.wrong(p, value, at+"."+name); w != "" {
					return w
				}
			}
		}
	case []any:
		if s.Type != "" && s.Type != "array" {
			return at + ": a list, not " + s.Type
		}
		for i, value := range x {
			if s.Items != nil {
				if w := o.wrong(s.Items, value, fmt.Sprintf("%s[%d]", at, i)); w != "" {
					return w
				}
			}
		}
	case string:
		switch {
		case s.Type != "" && s.Type != "string":
			return at + ": a string, not " + s.Type
		case s.Format == "date-time":
			if _, err := time.Parse(time.RFC3339, x); err != nil {
				return at + ": no time: " + x
			}
		case s.Format == "uri":
			if u, err := url.Parse(x); err != nil || !u.IsAbs() {
				return at + ": no URI: " + x
			}
		}
	case float64:
		if s.Type != "" && s.Type != "number" && (s.Type != "integer" || x != float64(int64(x))) {
			return at + ": a number, not " + s.Type
		}
	case bool:
		if s.Type != "" && s.Type != "boolean" {
			return at + ": a boolean, not " + s.Type
		}
	}
	return ""
}

// described serves the forge and holds every answer against GitHub's description of it.
type described struct {
	t    *testing.T
	api  openapi
	mux  *http.ServeMux
	next http.Handler
	// quiet lets answers pass that a Fault may have made up.
	quiet atomic.Bool
}

func newDescribed(t *testing.T) *described {
	t.Helper()
	d := &described{t: t, mux: http.NewServeMux()}
	readJSON(t, "testdata/openapi.json", &d.api)
	// Where GitHub's own description is wrong about GitHub:
	account := d.api.Endpoints["GET /app/installations"].Answers["200"].Items.Properties["account"]
	account.AnyOf, account.AllOf = account.AllOf, nil // a person or an enterprise, not both
	for _, pull := range []string{"pull-request", "pull-request-simple"} {
		head := d.api.Schemas[pull].Properties["head"]
		head.Properties["repo"] = &schema{Nullable: true, AnyOf: []*schema{head.Properties["repo"]}} // null once the fork is deleted
	}
	for pattern := range d.api.Endpoints {
		route := pattern
		for _, rest := range []string{"git/ref/{ref}", "branches/{branch}"} {
			if strings.HasSuffix(route, rest) {
				route = strings.TrimSuffix(route, "}") + "...}" // go-github does not escape the slashes of a branch
			}
		}
		d.mux.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) { d.hold(w, r, pattern) })
	}
	d.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { d.next.ServeHTTP(w, r) })
	return d
}

func readJSON(t *testing.T, name string, v any) {
	t.Helper()
	b, err := os.ReadFile(name)
	check(t, err)
	check(t, json.Unmarshal(b, v))
}

func (d *described) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/api/v3/") {
		http.StripPrefix("/api/v3", d.mux).ServeHTTP(w, r)
		return
	}
	d.mux.ServeHTTP(w, r)
}

func (d *described) hold(w http.ResponseWriter, r *http.Request, pattern string) {
	if d.quiet.Load() {
		d.next.ServeHTTP(w, r)
		return
	}
	got := httptest.NewRecorder()
	d.next.ServeHTTP(got, r)
	for name, values := range got.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(got.Code)
	_, err := w.Write(got.Body.Bytes())
	if err != nil {
		d.t.Error(err)
	}
	if got.Header().Get("X-Github-Request-Id") == "" || got.Header().Get("X-Ratelimit-Remaining") == "" {
		d.t.Errorf("%s: headers %v", pattern, got.Header())
	}
	want, there := d.api.Endpoints[pattern].Answers[fmt.Sprint(got.Code)]
	switch {
	case got.Code == 422:
		want = &schema{AnyOf: []*schema{{Ref: "validation-error"}, {Ref: "basic-error"}}}
	case got.Code >= 400 && (want == nil || !there):
		want = &schema{Ref: "basic-error"}
	case !there:
		d.t.Errorf("%s: the description knows no answer of status %d", pattern, got.Code)
		return
	}
	if want == nil {
		if got.Body.Len() > 0 {
			d.t.Errorf("%s: a body where the description has none: %s", pattern, got.Body)
		}
		return
	}
	var v any
	if err := json.NewDecoder(bytes.NewReader(got.Body.Bytes())).Decode(&v); err != nil {
		d.t.Errorf("%s: %v", pattern, err)
		return
	}
	if strings.HasSuffix(pattern, "/events") {
		v = slices.DeleteFunc(v.([]any), undescribed)
	}
	if why := d.api.wrong(want, v, ""); why != "" {
		d.t.Errorf("%s, status %d%s", pattern, got.Code, why)
	}
}

// undescribed are the issue events that GitHub sends and its description of this endpoint has forgotten: of the kinds
// without further fields, it has none but those of milestones, reviews and the like.
func undescribed(v any) bool {
	kind, _ := v.(map[string]any)["event"].(string)
	return slices.Contains([]string{"closed", "reopened", "merged", "base_ref_changed", "head_ref_force_pushed", "ready_for_review", "convert_to_draft"}, kind)
}
