package openapi_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox/openapi"
)

func describe(t *testing.T) *openapi.Description {
	t.Helper()
	d, err := openapi.GitHub()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const checkRuns = "/repos/acme/widgets/check-runs"

func TestRequest(t *testing.T) {
	d := describe(t)
	for name, c := range map[string]struct {
		method, target, body string
		want                 string // part of the error, "" = none
	}{
		"read":                     {"GET", "/repos/acme/widgets/pulls/7", "", ""},
		"Enterprise":               {"GET", "/api/v3/repos/acme/widgets/pulls/7", "", ""},
		"branch with a slash":      {"GET", "/repos/acme/widgets/branches/a/b", "", ""},
		"escaped label":            {"DELETE", "/repos/acme/widgets/issues/7/labels/a%2Fb", "", ""},
		"escaped, Enterprise":      {"DELETE", "/api/v3/repos/acme/widgets/issues/7/labels/a%2Fb", "", ""},
		"by number":                {"GET", "/repositories/5/pulls/7", "", ""},
		"unknown path":             {"GET", "/repos/acme/widgets/pull/7", "", "no endpoint"},
		"unknown method":           {"PUT", "/repos/acme/widgets/pulls/7", "", "no endpoint"},
		"unescaped label":          {"DELETE", "/repos/acme/widgets/issues/7/labels/a/b", "", "no endpoint"},
		"query":                    {"GET", "/repos/acme/widgets/actions/runs?event=push&per_page=100&page=2&exclude_pull_requests=true", "", ""},
		"unknown parameter":        {"GET", "/repos/acme/widgets/actions/runs?sort=asc", "", "sort is not known"},
		"parameter twice":          {"GET", "/repos/acme/widgets/actions/runs?page=1&page=2", "", "2 times"},
		"page too large":           {"GET", "/repos/acme/widgets/actions/runs?per_page=101", "", "out of range"},
		"page zero":                {"GET", "/repos/acme/widgets/actions/runs?page=0", "", "out of range"},
		"boolean":                  {"GET", "/repos/acme/widgets/actions/runs?exclude_pull_requests=1", "", "no boolean"},
		"not one of them":          {"GET", "/repos/acme/widgets/actions/runs?status=held", "", "not one of"},
		"broken query":             {"GET", "/repos/acme/widgets/actions/runs?page=%zz", "", "query"},
		"check":                    {"POST", checkRuns, `{"name":"x","head_sha":"y","status":"completed","conclusion":"success"}`, ""},
		"no body":                  {"POST", checkRuns, ``, "no body"},
		"not JSON":                 {"POST", checkRuns, `{`, "JSON"},
		"body where there is none": {"GET", "/user", `{}`, "none is expected"},
		"member missing":           {"POST", checkRuns, `{"name":"x","status":"queued"}`, "no head_sha"},
		"no conclusion":            {"PATCH", checkRuns + "/5", `{"status":"completed"}`, "no conclusion"},
		"unknown conclusion":       {"POST", checkRuns, `{"name":"x","head_sha":"y","status":"completed","conclusion":"ok"}`, "not one of"},
		"unknown member":           {"POST", checkRuns, `{"name":"x","head_sha":"y","state":"queued"}`, "state is not known"},
		"unknown member inside":    {"POST", checkRuns, `{"name":"x","head_sha":"y","output":{"title":"t","summary":"s","colour":"red"}}`, "colour is not known"},
		"label too long":           {"POST", checkRuns, `{"name":"x","head_sha":"y","actions":[{"label":"` + strings.Repeat("ä", 21) + `","identifier":"a","description":"d"}]}`, "longer than 20"},
		"label just fits":          {"POST", checkRuns, `{"name":"x","head_sha":"y","actions":[{"label":"` + strings.Repeat("ä", 20) + `","identifier":"a","description":"d"}]}`, ""},
		"too many actions":         {"POST", checkRuns, `{"name":"x","head_sha":"y","actions":[` + strings.Repeat(`{"label":"l","identifier":"a","description":"d"},`, 3) + `{"label":"l","identifier":"a","description":"d"}]}`, "4 items"},
		"a number for a string":    {"POST", checkRuns, `{"name":1,"head_sha":"y"}`, "not string"},
		"null":                     {"POST", checkRuns, `{"name":"x","head_sha":null}`, "null"},
		"bad time":                 {"POST", checkRuns, `{"name":"x","head_sha":"y","started_at":"today"}`, "no time"},
		"labels":                   {"POST", "/repos/acme/widgets/issues/7/labels", `{"labels":["a"]}`, ""},
		"bare list of labels":      {"POST", "/repos/acme/widgets/issues/7/labels", `["a"]`, "a list"},
		"no labels":                {"POST", "/repos/acme/widgets/issues/7/labels", `{"labels":[]}`, "0 items"},
		"free members":             {"POST", "/repos/acme/widgets/dispatches", `{"event_type":"x","client_payload":{"any":{"thing":1}}}`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest(c.method, c.target, strings.NewReader(c.body))
			r.Header.Set("User-Agent", "test")
			r.Header.Set("Content-Type", "application/json")
			err := d.Request(r, []byte(c.body))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	r := httptest.NewRequest(http.MethodPost, checkRuns, nil)
	if err := d.Request(r, nil); err == nil || !strings.Contains(err.Error(), "User-Agent") {
		t.Error(err)
	}
	r.Header.Set("User-Agent", "test")
	r.Header.Set("Content-Type", "text/plain")
	if err := d.Request(r, []byte(`{"name":"x","head_sha":"y"}`)); err == nil || !strings.Contains(err.Error(), "content type") {
		t.Error(err)
	}
}

func TestAnswer(t *testing.T) {
	d := describe(t)
	told := http.Header{"X-Github-Request-Id": {"1"}, "X-Ratelimit-Remaining": {"1"}}
	for name, c := range map[string]struct {
		target string
		status int
		header http.Header
		body   string
		want   string
	}{
		"good":           {"/repos/acme/widgets/collaborators/x/permission", 200, told, `{"permission":"read","role_name":"read","user":null}`, ""},
		"member missing": {"/repos/acme/widgets/collaborators/x/permission", 200, told, `{"permission":"read","user":null}`, "no role_name"},
		"wrong shape":    {"/repos/acme/widgets/collaborators/x/permission", 200, told, `[]`, "a list"},
		"not JSON":       {"/repos/acme/widgets/collaborators/x/permission", 200, told, ``, "end of JSON"},
		"no headers":     {"/repos/acme/widgets/collaborators/x/permission", 200, nil, `{}`, "headers"},
		"no such status": {"/repos/acme/widgets/collaborators/x/permission", 204, told, ``, "not in the description"},
		"refused":        {"/repos/acme/widgets/collaborators/x/permission", 403, told, `{"message":"no","documentation_url":"x"}`, ""},
		"refused badly":  {"/repos/acme/widgets/collaborators/x/permission", 403, told, `{"message":1}`, "not string"},
		"part of it all": {"/installation/repositories", 200, told, `{"total_count":1,"repositories":[{}]}`, "repositories[0]: no "},
		"unknown":        {"/zen", 200, told, ``, "no endpoint"},
	} {
		if err := d.Answer(httptest.NewRequest(http.MethodGet, c.target, nil), c.status, c.header, []byte(c.body)); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Both ways of looking on report what is wrong, once each, and change nothing.
func TestLookingOn(t *testing.T) {
	d := describe(t)
	const sent = `{"name":"x","colour":"red"}`
	var seen string
	var wrong []string
	report := func(err error) { wrong = append(wrong, err.Error()) }
	server := httptest.NewServer(d.Both(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		seen = string(b)
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "pot")
	}), report))
	defer server.Close()
	pool := &http.Transport{}
	defer pool.CloseIdleConnections()
	client := http.Client{Transport: d.Requests(pool, report)}
	res, err := client.Post(server.URL+checkRuns, "application/json", strings.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil || seen != sent || string(got) != "pot" || res.StatusCode != http.StatusTeapot {
		t.Errorf("sent %s, answered %d %s, %v", seen, res.StatusCode, got, err)
	}
	// No User-Agent before it leaves; what arrives has Go's, and lacks head_sha; the answer has no headers of GitHub's.
	if len(wrong) != 3 || !strings.Contains(wrong[0], "User-Agent") || !strings.Contains(wrong[1], "head_sha") || !strings.Contains(wrong[2], "headers") {
		t.Errorf("%q", wrong)
	}
}
