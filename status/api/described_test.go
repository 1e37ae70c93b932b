package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

// TestMain holds the description to the tests where all of them ran: whatever it says must have been seen.
func TestMain(m *testing.M) {
	code := m.Run()
	whole := true
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.bench", "test.fuzz"} {
		whole = whole && flag.Lookup(name).Value.String() == ""
	}
	if code == 0 && whole {
		for _, what := range theDescription().unseen() {
			fmt.Fprintln(os.Stderr, "described, and no test has seen it:", what)
			code = 1
		}
	}
	os.Exit(code) //nolint:forbidigo // how a TestMain ends
}

// description is openapi.yaml, and what of it the tests have seen.
type description struct {
	doc  map[string]any
	mu   sync.Mutex
	seen map[string]bool
}

var theDescription = sync.OnceValue(func() *description {
	d := &description{seen: map[string]bool{}}
	b, err := describe()
	if err != nil {
		panic(err)
	}
	if err := json.Unmarshal(b, &d.doc); err != nil {
		panic(err)
	}
	return d
})

func object(v any, path ...string) map[string]any {
	for _, p := range path {
		o, _ := v.(map[string]any)
		v = o[p]
	}
	o, _ := v.(map[string]any)
	return o
}

// hold serves next and reports whatever it takes or answers that is not described.
func (d *description) hold(next http.Handler, report func(error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			report(fmt.Errorf("read %s %s: %w", r.Method, r.URL, err))
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		got := httptest.NewRecorder()
		next.ServeHTTP(got, r)
		maps.Copy(w.Header(), got.Header())
		w.WriteHeader(got.Code)
		_, _ = w.Write(got.Body.Bytes())
		for _, err := range d.compare(r, body, got) {
			report(fmt.Errorf("%s %s → %d: %w", r.Method, r.URL, got.Code, err))
		}
	})
}

// find is the path that a request is for, and where in the description it stands.
func (d *description) find(r *http.Request) (at string, item map[string]any) {
	for path, v := range object(d.doc, "paths") {
		item := object(v)
		bases := []any{map[string]any{"url": ""}}
		if own, ok := item["servers"].([]any); ok {
			bases = own
		}
		for _, base := range bases {
			want := strings.Split(object(base)["url"].(string)+path, "/")
			got := strings.Split(r.URL.EscapedPath(), "/")
			if slices.EqualFunc(want, got, func(w, g string) bool { return w == g || strings.HasPrefix(w, "{") && g != "" }) {
				return "paths." + path, item
			}
		}
	}
	return "", nil
}

func (d *description) compare(r *http.Request, body []byte, got *httptest.ResponseRecorder) (wrong []error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	bad := func(format string, a ...any) { wrong = append(wrong, fmt.Errorf(format, a...)) }
	at, item := d.find(r)
	op := object(item, strings.ToLower(r.Method))
	if item == nil || op == nil && got.Code != http.StatusMethodNotAllowed {
		bad("not described")
		return wrong
	}
	if op == nil { // what every path answers to another method
		ref := "#/components/responses/MethodNotAllowed"
		if old(r) {
			ref = "#/components/responses/OldMethodNotAllowed"
		}
		at, op = "x", map[string]any{"responses": map[string]any{"405": map[string]any{"$ref": ref}}}
	} else {
		at += "." + strings.ToLower(r.Method)
	}
	answer := object(op, "responses", fmt.Sprint(got.Code))
	if answer == nil {
		bad("the status is not described; the body is %s", got.Body)
		return wrong
	}
	d.seen[at+".responses."+fmt.Sprint(got.Code)] = true
	at += ".responses." + fmt.Sprint(got.Code)
	if ref, ok := answer["$ref"].(string); ok {
		at, answer = pointer(ref), d.deref(ref)
	}
	described := map[string]any{}
	for name, h := range object(answer, "headers") {
		described[http.CanonicalHeaderKey(name)] = h
	}
	for name := range got.Header() {
		switch name {
		case "Content-Type", "X-Content-Type-Options", "Cache-Control":
			continue
		}
		h := described[name]
		if h == nil {
			bad("header %s is not described", name)
			continue
		}
		d.seen[at+".headers."+name] = true
		if ref, ok := object(h)["$ref"].(string); ok {
			h = d.deref(ref)
		}
		bad2 := d.wrong(object(h, "schema"), at+".headers."+name+".schema", parsed(object(h, "schema"), got.Header().Get(name)))
		wrong = append(wrong, bad2...)
	}
	for name, h := range described {
		if ref, ok := object(h)["$ref"].(string); ok {
			h = d.deref(ref)
		}
		if object(h)["required"] == true && got.Header().Get(name) == "" {
			bad("header %s is missing", name)
		}
	}
	if kind := got.Header().Get("Content-Type"); kind != "application/json" {
		bad("content type %q", kind)
	}
	content := object(answer, "content", "application/json")
	var v any
	if err := json.Unmarshal(got.Body.Bytes(), &v); err != nil {
		bad("answer: %w", err)
	}
	wrong = append(wrong, d.wrong(object(content, "schema"), at+".content.application/json.schema", v)...)
	if got.Code < 300 {
		wrong = append(wrong, d.taken(item, op, r, body)...)
	}
	return wrong
}

// taken says what a request that was taken has that is not described.
func (d *description) taken(item, op map[string]any, r *http.Request, body []byte) (wrong []error) {
	params := map[string]map[string]any{}
	at := map[string]string{}
	list, _ := item["parameters"].([]any)
	more, _ := op["parameters"].([]any)
	for _, p := range slices.Concat(list, more) {
		o, where := object(p), ""
		if ref, ok := o["$ref"].(string); ok {
			o, where = d.deref(ref), pointer(ref)
		}
		key := fmt.Sprint(o["in"], " ", o["name"])
		params[key], at[key] = o, where
	}
	see := func(in, name, value string) {
		p := params[in+" "+name]
		if p == nil {
			wrong = append(wrong, fmt.Errorf("%s parameter %s is not described", in, name))
			return
		}
		if at[in+" "+name] != "" {
			d.seen[at[in+" "+name]] = true
		}
		d.seen[fmt.Sprintf("%p", p)] = true
		wrong = append(wrong, d.wrong(object(p, "schema"), at[in+" "+name]+".schema", parsed(object(p, "schema"), value))...)
	}
	for name, values := range r.URL.Query() {
		see("query", name, values[0])
	}
	for key, p := range params {
		name := p["name"].(string)
		switch {
		case p["in"] == "header" && r.Header.Get(name) != "":
			see("header", name, r.Header.Get(name))
		case p["required"] == true && p["in"] == "header":
			wrong = append(wrong, fmt.Errorf("%s is missing", key))
		}
	}
	if len(body) == 0 {
		return wrong
	}
	kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	content := object(op, "requestBody", "content", kind)
	if content == nil {
		return append(wrong, fmt.Errorf("content type %s is not described", kind))
	}
	d.seen[fmt.Sprintf("%p", content)] = true
	if kind != "application/json" {
		return wrong
	}
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		return append(wrong, err)
	}
	return append(wrong, d.wrong(object(content, "schema"), "request", v)...)
}

func pointer(ref string) string { return strings.ReplaceAll(strings.TrimPrefix(ref, "#/"), "/", ".") }

func (d *description) deref(ref string) map[string]any {
	return object(d.doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
}

// parsed is the text of a header or parameter as its schema sees it.
func parsed(schema map[string]any, s string) any {
	var v any
	if kind := schema["type"]; (kind == "integer" || kind == "boolean") && json.Unmarshal([]byte(s), &v) == nil {
		return v
	}
	return s
}

// wrong says where v does not match a schema, which is strict: what it does not name is wrong. It keeps what was seen.
func (d *description) wrong(s map[string]any, at string, v any) (out []error) {
	if ref, ok := s["$ref"].(string); ok {
		return d.wrong(d.deref(ref), pointer(ref), v)
	}
	bad := func(format string, a ...any) { out = append(out, fmt.Errorf(at+": "+format, a...)) }
	if s == nil {
		bad("no schema")
		return out
	}
	d.seen[at] = true
	kinds, _ := s["type"].([]any)
	if kinds == nil {
		kinds = []any{s["type"]}
	}
	if !slices.ContainsFunc(kinds, func(k any) bool { return is(k, v) }) {
		bad("%T is not %v", v, kinds)
		return out
	}
	if v == nil {
		d.seen[at+" null"] = true
		return nil
	}
	if enum, ok := s["enum"].([]any); ok {
		if !slices.Contains(enum, v) {
			bad("%v is not one of %v", v, enum)
		}
		d.seen[fmt.Sprint(at, " ", v)] = true
	}
	switch x := v.(type) {
	case string:
		out = append(out, wrongText(s, at, x)...)
	case float64:
		if least, ok := s["minimum"].(float64); ok && x < least {
			bad("%v is less than %v", x, least)
		}
		if most, ok := s["maximum"].(float64); ok && x > most {
			bad("%v is more than %v", x, most)
		}
	case []any:
		for _, e := range x {
			out = append(out, d.wrong(object(s, "items"), at+".items", e)...)
		}
	case map[string]any:
		for _, name := range array(s["required"]) {
			if _, ok := x[name.(string)]; !ok {
				bad("no %s", name)
			}
		}
		for name, e := range x {
			p := object(s, "properties", name)
			switch {
			case p != nil:
				out = append(out, d.wrong(p, at+"."+name, e)...)
				d.seen[at+"."+name] = true
			case s["additionalProperties"] == true:
			case object(s, "additionalProperties") != nil:
				out = append(out, d.wrong(object(s, "additionalProperties"), at+".*", e)...)
			default:
				bad("%s is not described", name)
			}
		}
	}
	return out
}

func array(v any) []any { a, _ := v.([]any); return a }

func is(kind, v any) bool {
	switch x := v.(type) {
	case nil:
		return kind == "null"
	case string:
		return kind == "string"
	case bool:
		return kind == "boolean"
	case float64:
		return kind == "number" || kind == "integer" && x == float64(int64(x))
	case []any:
		return kind == "array"
	default:
		return kind == "object"
	}
}

func wrongText(s map[string]any, at, x string) (out []error) {
	bad := func(format string, a ...any) { out = append(out, fmt.Errorf(at+": "+format, a...)) }
	if most, ok := s["maxLength"].(float64); ok && utf8.RuneCountInString(x) > int(most) {
		bad("longer than %v", most)
	}
	if least, ok := s["minLength"].(float64); ok && utf8.RuneCountInString(x) < int(least) {
		bad("shorter than %v", least)
	}
	if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(x) {
		bad("%q does not match %s", x, p)
	}
	switch s["format"] {
	case "date-time":
		if _, err := time.Parse(time.RFC3339, x); err != nil {
			bad("no time: %q", x)
		}
	case "uri-reference":
		if _, err := url.Parse(x); err != nil {
			bad("no address: %q", x)
		}
	}
	return out
}

// unseen is what of the description no test has met: operations with their statuses, headers, parameters, kinds of body,
// members, and the words of every enumeration.
func (d *description) unseen() (out []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	miss := func(key, what string) {
		if !d.seen[key] {
			out = append(out, what)
		}
	}
	var schema func(at string, s map[string]any)
	schema = func(at string, s map[string]any) {
		if s == nil || s["$ref"] != nil {
			return // where it points to is looked at by itself
		}
		for _, e := range array(s["enum"]) {
			miss(fmt.Sprint(at, " ", e), fmt.Sprint(at, " = ", e))
		}
		for _, k := range array(s["type"]) {
			if k == "null" {
				miss(at+" null", at+" = null")
			}
		}
		for name, p := range object(s, "properties") {
			miss(at+"."+name, at+"."+name)
			schema(at+"."+name, object(p))
		}
		schema(at+".items", object(s, "items"))
	}
	answer := func(at string, a map[string]any) {
		for name := range object(a, "headers") {
			miss(at+".headers."+http.CanonicalHeaderKey(name), at+" header "+name)
		}
		schema(at+".content.application/json.schema", object(a, "content", "application/json", "schema"))
	}
	for path, v := range object(d.doc, "paths") {
		for _, p := range array(object(v)["parameters"]) {
			d.missParameter(p, miss)
		}
		for method, o := range object(v) {
			op := object(o)
			for status, a := range object(op, "responses") {
				at := "paths." + path + "." + method + ".responses." + status
				miss(at, at)
				if object(a)["$ref"] == nil {
					answer(at, object(a))
				}
			}
			for kind, c := range object(op, "requestBody", "content") {
				miss(fmt.Sprintf("%p", object(c)), method+" "+path+" with "+kind)
			}
			for _, p := range array(op["parameters"]) {
				d.missParameter(p, miss)
			}
		}
	}
	for name, a := range object(d.doc, "components", "responses") {
		answer("components.responses."+name, object(a))
	}
	for name, s := range object(d.doc, "components", "schemas") {
		miss("components.schemas."+name, "components.schemas."+name)
		schema("components.schemas."+name, object(s))
	}
	slices.Sort(out)
	return out
}

func (d *description) missParameter(p any, miss func(key, what string)) {
	o := object(p)
	if ref, ok := o["$ref"].(string); ok {
		o = d.deref(ref)
	}
	if o["in"] != "path" {
		miss(fmt.Sprintf("%p", o), fmt.Sprint("parameter ", o["name"]))
	}
}
