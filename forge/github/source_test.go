package github

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
)

func TestFileAtACommit(t *testing.T) {
	const text = "jobs: []\n"
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path + "@" + r.URL.Query().Get("ref") {
		case "/repos/o/r/contents/.signalbox/presubmit.yaml@abc":
			fmt.Fprintf(w, `{"type":"file","encoding":"base64","size":9,"content":%q}`, base64.StdEncoding.EncodeToString([]byte(text)))
		case "/repos/o/r/contents/.signalbox@abc":
			fmt.Fprint(w, `[]`)
		default:
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"Not Found"}`)
		}
	}))
	defer web.Close()
	c, err := New(Options{Instance: "github", APIURL: web.URL, Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	repo := forge.Repo{Instance: "github", ID: 1, Name: "o/r"}
	if got, err := c.File(t.Context(), repo, "abc", ".signalbox/presubmit.yaml"); err != nil || string(got) != text {
		t.Errorf("%q, %v", got, err)
	}
	for _, at := range [][2]string{{"abc", ".signalbox"}, {"abc", "other"}, {"def", ".signalbox/presubmit.yaml"}} {
		if _, err := c.File(t.Context(), repo, at[0], at[1]); err == nil || forge.Classify(err).Class != forge.NotFound {
			t.Errorf("%v: %v", at, err)
		}
	}
	if got := c.Clone(repo); got != web.URL+"/o/r.git" {
		t.Error(got)
	}
	for api, want := range map[string]string{"": "https://github.com/o/r.git", "https://ghe.example.org/api/v3/": "https://ghe.example.org/o/r.git"} {
		c, err := New(Options{Instance: "github", APIURL: api, Token: "t"})
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Clone(repo); got != want || strings.Contains(got, "api") {
			t.Errorf("%q: %s", api, got)
		}
	}
}
