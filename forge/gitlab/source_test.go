package gitlab

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
)

func TestFileAtACommit(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.EscapedPath()+"@"+r.URL.Query().Get("ref") == "/base/api/v4/projects/42/repository/files/%2Esignalbox%2Fpresubmit%2Eyaml/raw@abc" {
			fmt.Fprint(w, "jobs: []\n")
			return
		}
		if strings.HasSuffix(r.URL.Path, "/large/raw") {
			fmt.Fprint(w, strings.Repeat("x", maxSource+1))
			return
		}
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"message":"404 File Not Found"}`)
	}))
	defer web.Close()
	c, err := New(Options{Instance: "gitlab", URL: web.URL + "/base/", Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	repo := forge.Repo{Instance: "gitlab", ID: 42, Name: "group/sub/r"}
	if got, err := c.File(t.Context(), repo, "abc", ".signalbox/presubmit.yaml"); err != nil || string(got) != "jobs: []\n" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := c.File(t.Context(), repo, "abc", "other"); forge.Classify(err).Class != forge.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := c.File(t.Context(), repo, "abc", "large"); forge.Classify(err).Class != forge.Permanent {
		t.Errorf("%v", err)
	}
	if _, err := c.File(t.Context(), repo, "", ".signalbox/presubmit.yaml"); forge.Classify(err).Class != forge.Retriable {
		t.Errorf("without a commit: %v", err)
	}
	if got := c.Clone(repo); got != web.URL+"/base/group/sub/r.git" {
		t.Error(got)
	}
	if _, err := c.CheckoutToken(t.Context(), repo); forge.Classify(err).Class != forge.Permanent {
		t.Errorf("%v", err)
	}
}
