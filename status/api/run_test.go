package api

import (
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

var presubmitRun = forge.Run{
	Key: "sb1-abcdefghijklmnopqrstuvwxyz", Ref: forge.Ref{Repo: forge.Repo{Instance: "github", ID: 7, Name: "octo/hello"}, Number: 3},
	SHA: strings.Repeat("a", 40), Presubmit: "presubmit",
}

func TestRunTokenIsGoodForItsRunAndItsTime(t *testing.T) {
	secret, now := []byte("a secret key of thirty-two bytes"), time.Unix(1_800_000_000, 0)
	token := MintRun(secret, presubmitRun, now)
	got, err := ReadRun(secret, token, now.Add(RunLife-time.Second))
	want := Scope{"github", 7, presubmitRun.SHA, presubmitRun.Key, "presubmit", now.Add(RunLife).Unix()}
	if err != nil || got != want {
		t.Errorf("%+v %v", got, err)
	}
	body, mac, _ := strings.Cut(strings.TrimPrefix(token, runPrefix), ".")
	other := MintRun(secret, forge.Run{Key: "sb1-other"}, now)
	otherBody, _, _ := strings.Cut(strings.TrimPrefix(other, runPrefix), ".")
	for name, bad := range map[string]string{
		"empty": "", "no prefix": body + "." + mac, "prefix alone": runPrefix, "no signature": runPrefix + body,
		"empty signature": runPrefix + body + ".", "another's signature": runPrefix + otherBody + "." + mac,
		"shortened": token[:len(token)-1], "padded": token + "=", "another secret's": MintRun([]byte("other"), presubmitRun, now),
	} {
		if s, err := ReadRun(secret, bad, now); err == nil || s != (Scope{}) {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}
	if _, err := ReadRun(secret, token, now.Add(RunLife)); err == nil {
		t.Error("good beyond its time")
	}
	if u := RunURL("https://ci.example/", presubmitRun); u != "https://ci.example/api/v2/projects/7/commits/"+presubmitRun.SHA+"/statuses/"+presubmitRun.Key {
		t.Error(u)
	}
}
