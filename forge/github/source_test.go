package github

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
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

// The token is asked for this repository and for reading alone, as the App; a personal token is never lent.
func TestCheckoutToken(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	status, said := http.StatusCreated, `{"token":"ghs_x","expires_at":"2026-11-21T20:00:00Z"}`
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/app/installations/7/access_tokens" || strings.TrimSpace(string(body)) != `{"repository_ids":[42],"permissions":{"contents":"read"}}` {
			t.Errorf("%s %s %s", r.Method, r.URL.Path, body)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, said)
	}))
	defer web.Close()
	c, err := New(Options{
		Instance: "github", APIURL: web.URL, AppID: 1,
		PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	})
	if err != nil {
		t.Fatal(err)
	}
	repo := forge.Repo{Instance: "github", ID: 42, Name: "o/r", Installation: 7, Private: true}
	if got, err := c.CheckoutToken(t.Context(), repo); err != nil || got != "ghs_x" {
		t.Errorf("%q, %v", got, err)
	}
	said = `{}`
	if got, err := c.CheckoutToken(t.Context(), repo); err == nil {
		t.Errorf("%q of an empty answer", got)
	}
	status, said = http.StatusUnprocessableEntity, `{"message":"There is at least one repository that does not exist or is not accessible to the parent installation."}`
	if _, err := c.CheckoutToken(t.Context(), repo); forge.Classify(err).Class != forge.Permanent {
		t.Errorf("%v", err)
	}
	if c, err = New(Options{Instance: "github", APIURL: web.URL, Token: "t"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.CheckoutToken(t.Context(), repo); err == nil || forge.Classify(err).Class != forge.Permanent || !strings.Contains(err.Error(), "private repositories need the GitHub App") {
		t.Errorf("%v", err)
	}
}
