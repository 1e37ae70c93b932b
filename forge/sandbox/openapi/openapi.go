// Package openapi holds REST calls against GitHub's own description of its API: requests, so that a client is as strict
// as GitHub, and answers, so that the sandbox forge is as real as GitHub. It is for tests; no program imports it.
//
// The description is reduced by ../testdata/facts.go to the endpoints that the sandbox serves. A call to any other is an
// error.
package openapi

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

//go:embed github.json
var github []byte

// schema is what facts.go keeps of an OpenAPI schema.
type schema struct {
	Ref        string             `json:"$ref"`
	Type       string             `json:"type"`
	Format     string             `json:"format"`
	Nullable   bool               `json:"nullable"`
	Required   []string           `json:"required"`
	Enum       []any              `json:"enum"`
	MinItems   int                `json:"minItems"`
	MaxItems   *int               `json:"maxItems"`
	MaxLength  *int               `json:"maxLength"`
	Properties map[string]*schema `json:"properties"`
	// More is set where an object may have other members: true, or their schema.
	More  json.RawMessage `json:"additionalProperties"`
	Items *schema         `json:"items"`
	OneOf []*schema       `json:"oneOf"`
	AnyOf []*schema       `json:"anyOf"`
	AllOf []*schema       `json:"allOf"`
}

type endpoint struct {
	Query   map[string]*schema
	Body    *schema
	Needed  bool // the body
	Answers map[string]*schema
}

// Description is GitHub's API. It is safe for concurrent use.
type Description struct {
	endpoints map[string]endpoint
	schemas   map[string]*schema
	mux       *http.ServeMux // finds the endpoint of a path; it serves nothing
}

// GitHub reads the description.
func GitHub() (*Description, error) {
	var facts struct {
		Endpoints map[string]endpoint
		Schemas   map[string]*schema
	}
	if err := json.Unmarshal(github, &facts); err != nil {
		return nil, fmt.Errorf("read the description of GitHub's API: %w", err)
	}
	d := &Description{endpoints: facts.Endpoints, schemas: facts.Schemas, mux: http.NewServeMux()}
	// Where GitHub's description is wrong about GitHub:
	account := d.endpoints["GET /app/installations"].Answers["200"].Items.Properties["account"]
	account.AnyOf, account.AllOf = account.AllOf, nil // a person or an enterprise, not both
	for _, pull := range []string{"pull-request", "pull-request-simple"} {
		head := d.schemas[pull].Properties["head"]
		head.Properties["repo"] = &schema{Nullable: true, AnyOf: []*schema{head.Properties["repo"]}} // null once the fork is deleted
	}
	for pattern := range d.endpoints {
		d.mux.Handle(route(pattern), named(pattern))
	}
	return d, nil
}

// route is the pattern as the mux takes it: go-github does not escape the slashes of a branch.
func route(pattern string) string {
	for _, rest := range []string{"git/ref/{ref}", "branches/{branch}"} {
		if strings.HasSuffix(pattern, rest) {
			return strings.TrimSuffix(pattern, "}") + "...}"
		}
	}
	return pattern
}

// named is a place in the mux that knows which endpoint it is.
type named string

func (named) ServeHTTP(http.ResponseWriter, *http.Request) {}

func (d *Description) find(r *http.Request) (name string, e endpoint, err error) {
	path := strings.TrimPrefix(r.URL.EscapedPath(), "/api/v3")         // an Enterprise Server's
	if numbered, is := strings.CutPrefix(path, "/repositories/"); is { // where GitHub redirects from a former name
		_, rest, _ := strings.Cut(numbered, "/")
		path = "/repos/-/-/" + rest
	}
	of := &url.URL{RawPath: path}
	if of.Path, err = url.PathUnescape(path); err != nil {
		return "", e, fmt.Errorf("%s %s: %w", r.Method, r.URL.Path, err)
	}
	handler, _ := d.mux.Handler(&http.Request{Method: r.Method, URL: of})
	place, known := handler.(named)
	if !known {
		return "", e, fmt.Errorf("%s %s: no endpoint of the description", r.Method, r.URL.Path)
	}
	return string(place), d.endpoints[string(place)], nil
}

// Request says what GitHub would object to: an endpoint that does not exist, a query parameter or a member of the body
// that it does not know, a value it does not take. It does not read r.Body; body is what was or will be sent.
func (d *Description) Request(r *http.Request, body []byte) error {
	name, e, err := d.find(r)
	if err != nil {
		return err
	}
	problem := func(format string, a ...any) error { return fmt.Errorf(name+": "+format, a...) }
	if r.Header.Get("User-Agent") == "" {
		return problem("no User-Agent")
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return problem("query: %w", err)
	}
	for key, list := range values {
		want := e.Query[key]
		switch {
		case want == nil:
			return problem("query parameter %s is not known", key)
		case len(list) != 1:
			return problem("query parameter %s %d times", key, len(list))
		}
		if why := parameter(want, key, list[0]); why != "" {
			return problem("query parameter %s: %s", key, why)
		}
	}
	body = bytes.TrimSpace(body)
	switch {
	case len(body) == 0 && e.Needed:
		return problem("no body")
	case len(body) == 0:
		return nil
	case e.Body == nil:
		return problem("a body where none is expected: %s", body)
	}
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problem("content type %q", r.Header.Get("Content-Type"))
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return problem("body: %w", err)
	}
	if why := d.wrong(e.Body, v, "body"); why != "" {
		return problem("%s", why)
	}
	if why := d.unknown([]*schema{e.Body}, v, "body"); why != "" {
		return problem("%s", why)
	}
	return nil
}

func parameter(want *schema, key, value string) string {
	switch {
	case want.Enum != nil && !slices.Contains(want.Enum, any(value)):
		return fmt.Sprintf("%q is not one of %v", value, want.Enum)
	case want.Type == "boolean" && value != "true" && value != "false":
		return fmt.Sprintf("%q is no boolean", value)
	case want.Type == "integer":
		n, err := strconv.Atoi(value)
		// The description says these only in prose.
		if err != nil || n < 1 || key == "per_page" && n > 100 {
			return value + " is out of range"
		}
	}
	return ""
}

// Answer says where an answer is not what GitHub would have said to the request.
func (d *Description) Answer(r *http.Request, status int, header http.Header, body []byte) error {
	name, e, err := d.find(r)
	if err != nil {
		return err
	}
	problem := func(format string, a ...any) error {
		return fmt.Errorf("%s, status %d: "+format, append([]any{name, status}, a...)...)
	}
	if header.Get("X-Github-Request-Id") == "" || header.Get("X-Ratelimit-Remaining") == "" {
		return problem("headers %v", header)
	}
	want, there := e.Answers[strconv.Itoa(status)]
	switch {
	case status == http.StatusUnprocessableEntity:
		want = &schema{AnyOf: []*schema{{Ref: "validation-error"}, {Ref: "basic-error"}}}
	case status >= 400 && (want == nil || !there):
		want = &schema{Ref: "basic-error"}
	case !there:
		return problem("not in the description")
	}
	if want == nil {
		if len(body) > 0 {
			return problem("a body where the description has none: %s", body)
		}
		return nil
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return problem("%w", err)
	}
	if list, is := v.([]any); is && strings.HasSuffix(name, "/events") {
		v = slices.DeleteFunc(list, undescribed)
	}
	if why := d.wrong(want, v, "answer"); why != "" {
		return problem("%s", why)
	}
	return nil
}

// undescribed are the issue events that GitHub sends and its description of this endpoint has forgotten: of the kinds
// without further fields, it has none but those of milestones, reviews and the like.
func undescribed(v any) bool {
	o, _ := v.(map[string]any)
	kind, _ := o["event"].(string)
	return slices.Contains([]string{"closed", "reopened", "merged", "base_ref_changed", "head_ref_force_pushed", "ready_for_review", "convert_to_draft"}, kind)
}

// wrong says where v does not match s; "" = it does.
func (d *Description) wrong(s *schema, v any, at string) string {
	if s.Ref != "" {
		s = d.schemas[s.Ref]
	}
	if v == nil {
		// A reference that may be null is named so; the description spells it in two ways.
		if s.Nullable || s.Type == "" && s.OneOf == nil && s.AnyOf == nil && s.AllOf == nil {
			return ""
		}
		return at + ": null"
	}
	for _, part := range s.AllOf {
		if w := d.wrong(part, v, at); w != "" {
			return w
		}
	}
	if ways := append(slices.Clone(s.OneOf), s.AnyOf...); ways != nil {
		var reasons []string
		for _, one := range ways {
			w := d.wrong(one, v, at)
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
		return d.wrongObject(s, x, at)
	case []any:
		return d.wrongList(s, x, at)
	case string:
		return wrongString(s, x, at)
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

func (d *Description) wrongObject(s *schema, x map[string]any, at string) string {
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
			if w := d.wrong(p, value, at+"."+name); w != "" {
				return w
			}
		}
	}
	return ""
}

func (d *Description) wrongList(s *schema, x []any, at string) string {
	switch {
	case s.Type != "" && s.Type != "array":
		return at + ": a list, not " + s.Type
	case len(x) < s.MinItems, s.MaxItems != nil && len(x) > *s.MaxItems:
		return fmt.Sprintf("%s: %d items", at, len(x))
	case s.Items == nil:
		return ""
	}
	for i, value := range x {
		if w := d.wrong(s.Items, value, fmt.Sprintf("%s[%d]", at, i)); w != "" {
			return w
		}
	}
	return ""
}

func wrongString(s *schema, x, at string) string {
	switch {
	case s.Type != "" && s.Type != "string":
		return at + ": a string, not " + s.Type
	case s.MaxLength != nil && utf8.RuneCountInString(x) > *s.MaxLength:
		return fmt.Sprintf("%s: longer than %d", at, *s.MaxLength)
	case s.Format == "date-time":
		if _, err := time.Parse(time.RFC3339, x); err != nil {
			return at + ": no time: " + x
		}
	case s.Format == "uri":
		if u, err := url.Parse(x); err != nil || !u.IsAbs() {
			return at + ": no URI: " + x
		}
	}
	return ""
}

// unknown says which member of v none of the schemas knows; "" = each is known, or anything may stand there. GitHub
// ignores some of those and refuses others; all of them are mistakes.
func (d *Description) unknown(of []*schema, v any, at string) string {
	var all []*schema
	for len(of) > 0 {
		s := of[0]
		of = of[1:]
		if s.Ref != "" {
			s = d.schemas[s.Ref]
		}
		all = append(all, s)
		of = slices.Concat(of, s.AllOf, s.OneOf, s.AnyOf)
	}
	switch x := v.(type) {
	case map[string]any:
		if all[0].More != nil {
			return ""
		}
		for name, value := range x {
			var known []*schema
			for _, s := range all {
				if p := s.Properties[name]; p != nil {
					known = append(known, p)
				}
			}
			if known == nil {
				return at + ": " + name + " is not known"
			}
			if w := d.unknown(known, value, at+"."+name); w != "" {
				return w
			}
		}
	case []any:
		var items []*schema
		for _, s := range all {
			if s.Items != nil {
				items = append(items, s.Items)
			}
		}
		for i, value := range x {
			if items != nil {
				if w := d.unknown(items, value, fmt.Sprintf("%s[%d]", at, i)); w != "" {
					return w
				}
			}
		}
	}
	return ""
}

// Requests is a transport that reports each request GitHub would object to, and sends it all the same.
func (d *Description) Requests(next http.RoundTripper, report func(error)) http.RoundTripper {
	return requests{d, next, report}
}

type requests struct {
	*Description
	next   http.RoundTripper
	report func(error)
}

// RoundTrip reads the body ahead, on a copy of the request.
func (t requests) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, errors.Join(fmt.Errorf("read the request's body: %w", err), r.Body.Close())
		}
		if err = r.Body.Close(); err != nil {
			return nil, fmt.Errorf("close the request's body: %w", err)
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	if err := t.Request(r, body); err != nil {
		t.report(err)
	}
	return t.next.RoundTrip(r)
}

// Both is a GitHub that reports each request and each answer that GitHub would not have known. An answer that the
// caller did not wait for is not held against anything.
func (d *Description) Both(next http.Handler, report func(error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if err := d.Request(r, body); err != nil {
			report(err)
		}
		d.hold(w, r, next, report)
	})
}

// Answers is Both for callers that GitHub may object to.
func (d *Description) Answers(next http.Handler, report func(error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.hold(w, r, next, report) })
}

func (d *Description) hold(w http.ResponseWriter, r *http.Request, next http.Handler, report func(error)) {
	asked := r.Clone(r.Context()) // next may strip a prefix
	got := httptest.NewRecorder()
	next.ServeHTTP(got, r)
	for name, values := range got.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(got.Code)
	_, _ = w.Write(got.Body.Bytes()) // the caller may have gone
	if r.Context().Err() != nil {
		return
	}
	if err := d.Answer(asked, got.Code, got.Header(), got.Body.Bytes()); err != nil {
		report(err)
	}
}
