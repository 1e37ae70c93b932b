package api

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// RunLife is how long a token of one run is good, from when it was made.
const RunLife = 24 * time.Hour

// runPrefix begins every token of one run, so that it can be told from a token of a project and found where it leaks.
const runPrefix = "sbrun_"

// errRunToken is every reason why a run's token is refused: whoever shows one that is not ours learns nothing of why.
var errRunToken = errors.New("the token is not one of ours, or it has expired")

// Scope is what a token of one run is good for: to say how that run goes, and to read it. Nothing of it is stored.
type Scope struct {
	Instance string `json:"i"`
	Project  int64  `json:"p"`
	SHA      string `json:"s"`
	Key      string `json:"k"` // run key, which is the id of the run
	Context  string `json:"c"` // name of the presubmit's check
	Expires  int64  `json:"x"` // Unix seconds
}

// MintRun makes the token with which a CI tells how one presubmit run goes, good for RunLife from now. secret is the
// server's secret key. The same run at the same second has the same token.
func MintRun(secret []byte, run forge.Run, now time.Time) string {
	claims, err := json.Marshal(Scope{
		Instance: run.Ref.Repo.Instance, Project: run.Ref.Repo.ID, SHA: run.SHA, Key: run.Key, Context: run.Presubmit,
		Expires: now.Add(RunLife).Unix(),
	})
	if err != nil {
		panic(fmt.Sprintf("encode a scope: %v", err)) // plain strings and numbers
	}
	text := base64.RawURLEncoding.EncodeToString(claims)
	return runPrefix + text + "." + base64.RawURLEncoding.EncodeToString(signed(secret, text))
}

// ReadRun answers what a token of MintRun is good for, if it is one and has not expired at now.
func ReadRun(secret []byte, token string, now time.Time) (Scope, error) {
	text, mac, _ := strings.Cut(strings.TrimPrefix(token, runPrefix), ".")
	got, err := base64.RawURLEncoding.DecodeString(mac)
	if err != nil || !strings.HasPrefix(token, runPrefix) || !hmac.Equal(got, signed(secret, text)) {
		return Scope{}, errRunToken
	}
	claims, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return Scope{}, errRunToken
	}
	var s Scope
	if err := json.Unmarshal(claims, &s); err != nil || now.Unix() >= s.Expires {
		return Scope{}, errRunToken
	}
	return s, nil
}

// signed is the signature beneath text, under a key that is derived for this use alone.
func signed(secret []byte, text string) []byte {
	own := hmac.New(sha256.New, secret)
	own.Write([]byte("signalbox status run token 1"))
	m := hmac.New(sha256.New, own.Sum(nil))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// RunURL is where a CI tells by PATCH how one presubmit run goes. base is the address of the service.
func RunURL(base string, run forge.Run) string {
	return strings.TrimSuffix(base, "/") + "/api/v2/projects/" + strconv.FormatInt(run.Ref.Repo.ID, 10) + "/commits/" +
		url.PathEscape(run.SHA) + "/statuses/" + url.PathEscape(run.Key)
}
