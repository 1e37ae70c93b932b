package gitlab

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlabsandbox"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

const (
	tokenA = "whsec_c2lnbmluZy1rZXktYS1vZi0zMi1ieXRlcy1sZW5ndGg="
	tokenB = "whsec_c2lnbmluZy1rZXktYi1vZi0zMi1ieXRlcy1sZW5ndGg="
)

var noon = time.Date(2026, 8, 3, 12, 0, 0, 0, time.UTC)

func newHook(t testing.TB) *Hook {
	t.Helper()
	h, err := NewHook(HookOptions{
		Instance: "gitlab", Secrets: []string{"old", "new"}, SigningTokens: []string{tokenA, tokenB}, Now: func() time.Time { return noon },
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestVerify(t *testing.T) {
	h, body := newHook(t), []byte(`{"a":1}`)
	sign := func(token, id string, at time.Time) string { return gitlabsandbox.Sign(token, id, at, body) }
	const at = "1785758400" // noon
	if noon.Unix() != 1785758400 {
		t.Fatalf("noon is %d", noon.Unix())
	}
	for name, c := range map[string]struct {
		header http.Header
		want   error
	}{
		"no proof":                        {headers(), forge.ErrSignatureMissing},
		"empty token":                     {headers("X-Gitlab-Token", ""), forge.ErrSignatureMissing},
		"token":                           {headers("X-Gitlab-Token", "new"), nil},
		"token that is being replaced":    {headers("X-Gitlab-Token", "old"), nil},
		"another token":                   {headers("X-Gitlab-Token", "newer"), forge.ErrSignatureWrong},
		"part of the token":               {headers("X-Gitlab-Token", "ne"), forge.ErrSignatureWrong},
		"signing token sent as plain one": {headers("X-Gitlab-Token", tokenA), forge.ErrSignatureWrong},
		"signed":                          {headers("webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", sign(tokenA, "m1", noon)), nil},
		"signed with the second":          {headers("webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", sign(tokenB, "m1", noon)), nil},
		"one of several signatures":       {headers("webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", "v1,AAAA v1a,BBBB "+sign(tokenB, "m1", noon)), nil},
		"signed, another id":              {headers("webhook-id", "m2", "webhook-timestamp", at, "webhook-signature", sign(tokenA, "m1", noon)), forge.ErrSignatureWrong},
		"signed at another time":          {headers("webhook-id", "m1", "webhook-timestamp", "1785758401", "webhook-signature", sign(tokenA, "m1", noon)), forge.ErrSignatureWrong},
		"signed 5 min ago":                {headers("webhook-id", "m1", "webhook-timestamp", "1785758100", "webhook-signature", sign(tokenA, "m1", noon.Add(-5*time.Minute))), nil},
		"signed too long ago":             {headers("webhook-id", "m1", "webhook-timestamp", "1785758099", "webhook-signature", sign(tokenA, "m1", noon.Add(-301*time.Second))), forge.ErrSignatureWrong},
		"signed in the future":            {headers("webhook-id", "m1", "webhook-timestamp", "1785758701", "webhook-signature", sign(tokenA, "m1", noon.Add(301*time.Second))), forge.ErrSignatureWrong},
		"no time":                         {headers("webhook-id", "m1", "webhook-signature", sign(tokenA, "m1", noon)), forge.ErrSignatureMalformed},
		"no id":                           {headers("webhook-timestamp", at, "webhook-signature", sign(tokenA, "", noon)), forge.ErrSignatureMalformed},
		"no version we know":              {headers("webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", strings.Replace(sign(tokenA, "m1", noon), "v1,", "v2,", 1)), forge.ErrSignatureMalformed},
		"bad signature, good token":       {headers("X-Gitlab-Token", "new", "webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", "v1,AAAA"), forge.ErrSignatureWrong},
		"empty signature, good token":     {headers("X-Gitlab-Token", "new", "webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", ""), forge.ErrSignatureMalformed},
		"invented header":                 {headers("X-Gitlab-Webhook-Signature", sign(tokenA, "m1", noon)), forge.ErrSignatureMissing},
	} {
		if err := h.Verify(c.header, body); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := h.Verify(headers("webhook-id", "m1", "webhook-timestamp", at, "webhook-signature", sign(tokenA, "m1", noon)), []byte(`{"a":2}`)); !errors.Is(err, forge.ErrSignatureWrong) {
		t.Errorf("another body: %v", err)
	}
}

func TestNewHookRefuses(t *testing.T) {
	now := time.Now
	for name, o := range map[string]HookOptions{
		"no name":         {Secrets: []string{"s"}, Now: now},
		"no clock":        {Instance: "gitlab", Secrets: []string{"s"}},
		"nothing":         {Instance: "gitlab", Now: now},
		"empty secret":    {Instance: "gitlab", Secrets: []string{""}, Now: now},
		"no prefix":       {Instance: "gitlab", SigningTokens: []string{"c2lnbmluZy1rZXktYS1vZi0zMi1ieXRlcy1sZW5ndGg="}, Now: now},
		"no base64":       {Instance: "gitlab", SigningTokens: []string{"whsec_!!!"}, Now: now},
		"short key":       {Instance: "gitlab", SigningTokens: []string{"whsec_c2lnbmluZy1rZXktYS1vZi0yMw=="}, Now: now},
		"key of no bytes": {Instance: "gitlab", SigningTokens: []string{"whsec_"}, Now: now},
	} {
		if _, err := NewHook(o); err == nil || strings.Contains(err.Error(), "c2lnbm") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGUID(t *testing.T) {
	h := newHook(t)
	body := []byte(`{}`)
	hash := h.guid(headers("X-Gitlab-Event", "Note Hook"), body)
	for name, c := range map[string]struct {
		header http.Header
		want   string
	}{
		"idempotency key":             {headers("Idempotency-Key", "k-1"), "k-1"},
		"webhook id":                  {headers("Webhook-Id", "w-1"), "w-1"},
		"of a signed one, the signed": {headers("Idempotency-Key", "k-1", "Webhook-Id", "w-1", "Webhook-Signature", "v1,x"), "w-1"},
		"shared event uuid":           {headers("X-Gitlab-Event", "Note Hook", "X-Gitlab-Event-UUID", "u-1", "X-Gitlab-Webhook-UUID", "u-2"), hash},
		"no plain key":                {headers("X-Gitlab-Event", "Note Hook", "Idempotency-Key", "a:b"), hash},
	} {
		if got := h.guid(c.header, body); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	if !plain(hash) || len(hash) != 64 {
		t.Errorf("hash %q", hash)
	}
	other, err := NewHook(HookOptions{Instance: "other", Secrets: []string{"s"}, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	for _, differs := range []string{
		h.guid(headers("X-Gitlab-Event", "Pipeline Hook"), body), h.guid(headers("X-Gitlab-Event", "Note Hook"), []byte(`{ }`)),
		other.guid(headers("X-Gitlab-Event", "Note Hook"), body),
	} {
		if differs == hash {
			t.Error("two deliveries have one id")
		}
	}
}

// routed is how a fixture ends.
type routed struct {
	forge.Routed
	Body  json.RawMessage `json:",omitempty"`
	Error string          `json:",omitempty"`
}

func TestRouteGolden(t *testing.T) {
	fixtures, err := filepath.Glob("testdata/hooks/*.json")
	if err != nil || len(fixtures) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range fixtures {
		t.Run(filepath.Base(name), func(t *testing.T) {
			event, body := fixture(t, name)
			to, err := newHook(t).Route(headers("X-Gitlab-Event", event, "Idempotency-Key", "k"), body)
			got := routed{Routed: to, Body: to.Body}
			if got.Routed.Body = nil; err != nil {
				got.Error = err.Error()
			}
			text, err := json.MarshalIndent(got, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			text = append(text, '\n')
			if bytes.Contains(to.Body, []byte("Ignore all rules")) || bytes.Contains(to.Body, []byte("ms-viewport")) {
				t.Error("what an outsider wrote is in the mail")
			}
			golden := strings.TrimSuffix(name, ".json") + ".golden"
			if *rewrite {
				if err := os.WriteFile(golden, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(text)); d != "" {
				t.Error(d)
			}
		})
	}
}

func fixture(t testing.TB, name string) (event string, body []byte) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Event string          `json:"event"`
		Body  json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal(text, &f); err != nil {
		t.Fatal(err)
	}
	return f.Event, f.Body
}

func TestRouteRefuses(t *testing.T) {
	h := newHook(t)
	for name, c := range map[string]struct{ event, body, field string }{
		"no event":         {"", `{}`, "X-Gitlab-Event"},
		"odd event":        {"Merge\nHook", `{}`, "X-Gitlab-Event"},
		"no JSON":          {"Merge Request Hook", `{`, "body"},
		"ignored, no JSON": {"Push Hook", `{`, "body"},
		"no iid":           {"Merge Request Hook", `{"project":{"id":1}}`, "object_attributes.iid"},
	} {
		_, err := h.Route(headers("X-Gitlab-Event", c.event), []byte(c.body))
		var bad *forge.BadDelivery
		if !errors.As(err, &bad) || bad.Field != c.field {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStamp(t *testing.T) {
	at := time.Date(2021, 9, 27, 5, 0, 1, 0, time.UTC)
	for text, want := range map[string]time.Time{
		`"2021-09-27T05:00:01Z"`: at, `"2021-09-27T07:00:01.999+02:00"`: at, `"2021-09-27 05:00:01 UTC"`: at, `"2021-09-27 07:00:01 +0200"`: at, `null`: {},
	} {
		if s := (stamp{noon}); s.UnmarshalJSON([]byte(text)) != nil || !s.Time.Equal(want) {
			t.Errorf("%s: %v", text, s)
		}
	}
	for _, text := range []string{`"2021-09-27 05:00:01 CEST"`, `"2021-09-27 05:00:01"`, `"yesterday"`, `""`, `1632718801`} {
		if s := (stamp{}); s.UnmarshalJSON([]byte(text)) == nil {
			t.Errorf("%s is %v", text, s)
		}
	}
}

// FuzzRoute: whatever comes, the parser ends, a delivery goes somewhere, is ignored or is refused, and nothing of a flaw
// quotes the body.
func FuzzRoute(f *testing.F) {
	fixtures, err := filepath.Glob("testdata/hooks/*.json")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range fixtures {
		event, body := fixture(f, name)
		f.Add(event, body)
	}
	forRecorded(f, func(_, event string, body []byte) { f.Add(event, body) })
	h := newHook(f)
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		to, err := h.Route(http.Header{"X-Gitlab-Event": {event}}, body)
		if !plain(to.GUID) {
			t.Errorf("id %q", to.GUID)
		}
		var bad *forge.BadDelivery
		switch {
		case err != nil:
			if !errors.As(err, &bad) {
				t.Errorf("error %v", err)
			}
		case to.Ignored != "":
		case to.Project == "" || to.Kind == "" || to.Key == "" || to.MailKind == "" || (len(to.Body) == 0) == (to.Flaw == ""):
			t.Errorf("goes nowhere: %+v", to)
		}
		if !json.Valid(body) && err == nil {
			t.Error("no JSON, and routed")
		}
	})
}
