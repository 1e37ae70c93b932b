package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
)

const jobSecrets = `secret_key: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=
forges: {github: {token: t, webhook_secret: s}}
repositories:
  acme/*:
    secrets: {NPM_TOKEN: the-npm-token, SHARED: the-shared-secret}
  acme/pay:
    hold: strict
    secrets:
      NPM_TOKEN: another-npm-token
      DEPLOY_KEY_file: /deploy
`

// Secrets reach the jobs of the repositories they stand under, and are printed nowhere.
func TestJobSecrets(t *testing.T) {
	c := resolve(t, Settings{Config: "c.yaml"}, nil, files{"c.yaml": jobSecrets, "/deploy": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n"})
	for name, want := range map[string]map[string]string{
		"acme/pay":   {"NPM_TOKEN": "another-npm-token", "SHARED": "the-shared-secret", "DEPLOY_KEY": "-----BEGIN KEY-----\nabc\n-----END KEY-----"},
		"acme/web":   {"NPM_TOKEN": "the-npm-token", "SHARED": "the-shared-secret"},
		"other/acme": {},
	} {
		if d := cmp.Diff(want, c.JobSecrets(forge.Repo{Instance: "github", Name: name})); d != "" {
			t.Errorf("%s:\n%s", name, d)
		}
	}
	shown := fmt.Sprintf("%v %+v %#v", c, c, c)
	if b, err := json.Marshal(c); err == nil {
		shown += string(b)
	}
	if strings.Contains(shown, "npm-token") || strings.Contains(shown, "BEGIN KEY") {
		t.Error("a secret is printed")
	}
}

func TestJobSecretsAreRefused(t *testing.T) {
	for what, c := range map[string]struct{ from, to, want string }{
		"no key":       {"secret_key: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n", "", "environment: SIGNALBOX_SECRET_KEY: missing"},
		"bad name":     {"NPM_TOKEN: another", "npm_token: another", "c.yaml:9: repositories.acme/pay.secrets.npm_token: cannot name a secret"},
		"theirs":       {"NPM_TOKEN: another", "GITHUB_TOKEN: another", "c.yaml:9: repositories.acme/pay.secrets.GITHUB_TOKEN: cannot name a secret"},
		"short":        {"another-npm-token", "short", "c.yaml:9: repositories.acme/pay.secrets.NPM_TOKEN: not a secret for jobs"},
		"list":         {"another-npm-token", "[one-of-them]", "c.yaml:9: repositories.acme/pay.secrets.NPM_TOKEN: found a list"},
		"both":         {"DEPLOY_KEY_file: /deploy", "NPM_TOKEN_file: /deploy", "c.yaml:10: repositories.acme/pay.secrets.NPM_TOKEN_file: repositories.acme/pay.secrets.NPM_TOKEN is there too"},
		"no file":      {"/deploy", "/none", "c.yaml:10: repositories.acme/pay.secrets.DEPLOY_KEY_file: cannot be used"},
		"no mapping":   {"secrets: {NPM_TOKEN: the-npm-token, SHARED: the-shared-secret}", "secrets: [the-npm-token]", "c.yaml:5: repositories.acme/*.secrets: expected keys with values"},
		"of all gates": {"repositories:", "gate: {secrets: {A: the-npm-token}}\nrepositories:", "c.yaml:3: gate.secrets: unknown key"},
	} {
		text := strings.Replace(jobSecrets, c.from, c.to, 1)
		_, err := Settings{Config: "c.yaml"}.Resolve(nil, files{"c.yaml": text, "/deploy": "the-deploy-key"}.read)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: %v; want one problem: %s", what, err, c.want)
		} else if strings.Contains(err.Error(), "npm-token") {
			t.Errorf("%s: the refusal shows a secret: %v", what, err)
		}
	}
}
