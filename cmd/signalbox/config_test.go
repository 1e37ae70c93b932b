package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"

	"github.com/signalbox-ci/signalbox/forge"
)

const example = "../../docs/signalbox.example.yaml"

// httpSecret signs what goes to http triggers.
const httpSecret = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// minimal is the least environment that serves.
func minimal() []string {
	return []string{"SIGNALBOX_GITHUB_TOKEN=ghp_token", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=hook-secret"}
}

// files are those that a configuration may name.
type files map[string]string

func (f files) read(name string) ([]byte, error) {
	text, ok := f[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

func privateKey(t testing.TB) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}))
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// A key that has been converted is as good as GitHub's own.
func TestPrivateKeyInPKCS8(t *testing.T) {
	block, _ := pem.Decode([]byte(privateKey(t)))
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := parsePrivateKey(pkcs8(t, key)); err != nil || !s.Set() {
		t.Error(err)
	}
}

func resolve(t testing.TB, s Settings, environ []string, f files) Config {
	t.Helper()
	c, err := s.Resolve(environ, f.read)
	if err != nil {
		t.Fatalf("refused:\n%v", err)
	}
	return c
}

func repo(name string) forge.Repo { return forge.Repo{Instance: "github", ID: 1, Name: name} }

func TestEnvironmentAloneIsEnough(t *testing.T) {
	c := resolve(t, Settings{}, minimal(), nil)
	if c.Listen != ":8080" || c.Store.String() != "file:./signalbox.db" || c.DryRun || !c.Adopt || c.LockTTL != 15*time.Second ||
		c.Sweep != time.Minute || c.LogLevel != "info" || c.LogFormat != "" || c.AdminToken.Set() || c.SecretKey.Set() {
		t.Errorf("defaults: %+v", c)
	}
	if len(c.Forges) != 1 {
		t.Fatalf("forges: %+v", c.Forges)
	}
	f := c.Forges[0]
	if f.Name != "github" || f.Kind != "github" || f.APIURL != "https://api.github.com/" || f.Token.Reveal() != "ghp_token" ||
		len(f.WebhookSecrets) != 1 || f.WebhookSecrets[0].Reveal() != "hook-secret" {
		t.Errorf("forge: %+v", f)
	}
	write := []forge.Rule{{Kind: "permission", Value: "write"}}
	want := Gate{Label: "CICD", Check: "CI gate", Presubmit: "presubmit", Trust: write, Auto: write, Hold: Hold{For: 2 * time.Minute}}
	if d := cmp.Diff(want, c.Gate(repo("acme/widgets"))); d != "" {
		t.Errorf("gate (-want +got):\n%s", d)
	}
	if !c.Allowed(repo("anybody/anything")) {
		t.Error("without a list, every repository is allowed")
	}
}

func TestEveryVariable(t *testing.T) {
	key := strings.Repeat("k", 32)
	pemKey := privateKey(t)
	c := resolve(t, Settings{}, []string{
		"SIGNALBOX_LISTEN=127.0.0.1:9000", "SIGNALBOX_STORE=rediss://user:pass@redis:6379/1", "SIGNALBOX_ALLOW_EPHEMERAL=1",
		"SIGNALBOX_REPOS=Acme/*, other/one", "SIGNALBOX_LABEL=ok to test", "SIGNALBOX_CHECK=gate", "SIGNALBOX_PRESUBMIT=ci",
		"SIGNALBOX_TRUST=permission:maintain,team:acme/core,user:ada,app:release-bot", "SIGNALBOX_AUTO=none", "SIGNALBOX_HOLD=90s",
		"SIGNALBOX_TRIGGER=actions_approval, workflow:pre.yml@signalbox-presubmit,repository_dispatch,http:https://ci.example/start?x=1",
		"SIGNALBOX_DRY_RUN=true", "SIGNALBOX_ADOPT=off", "SIGNALBOX_URL=https://box.example", "SIGNALBOX_ADMIN_TOKEN=admin",
		"SIGNALBOX_SECRET_KEY=" + base64.StdEncoding.EncodeToString([]byte(key)), "SIGNALBOX_LOCK_TTL=9s", "SIGNALBOX_SWEEP=5m",
		"SIGNALBOX_LOG=debug", "SIGNALBOX_LOG_FORMAT=gcp", "SIGNALBOX_GITHUB_API_URL=http://127.0.0.1:1234/api/v3",
		"SIGNALBOX_GITHUB_APP_ID=42", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=/key.pem", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=new, old",
		"SIGNALBOX_HTTP_TRIGGER_SECRET=" + httpSecret, "SIGNALBOX_HTTP_TRIGGER_PRIVATE=1",
		"SIGNALBOX_ALERT_URL=https://pager.example/in", "SIGNALBOX_ALERT_SECRET=" + httpSecret, "SIGNALBOX_ALERT_WAIT=72h", "UNRELATED=x", "SIGNALBOX_CONFIG=",
	}, files{"/key.pem": pemKey})
	if c.Listen != "127.0.0.1:9000" || c.Store.Reveal() != "rediss://user:pass@redis:6379/1" || c.Store.Scheme != "rediss" || !c.AllowEphemeral ||
		!c.DryRun || c.Adopt || c.URL != "https://box.example" || c.AdminToken.Reveal() != "admin" || c.SecretKey.Reveal() != key ||
		c.LockTTL != 9*time.Second || c.Sweep != 5*time.Minute || c.LogLevel != "debug" || c.LogFormat != "gcp" ||
		c.HTTPSecret.Reveal() != httpSecret || !c.HTTPPrivate ||
		c.AlertURL != "https://pager.example/in" || c.AlertSecret.Reveal() != httpSecret || c.AlertWait != 72*time.Hour {
		t.Errorf("%+v", c)
	}
	f := c.Forges[0]
	if f.APIURL != "http://127.0.0.1:1234/api/v3/" || f.AppID != 42 || f.PrivateKey.Reveal() != strings.TrimSpace(pemKey) || f.Token.Set() ||
		len(f.WebhookSecrets) != 2 || f.WebhookSecrets[1].Reveal() != "old" {
		t.Errorf("%+v", f)
	}
	want := Gate{
		Label: "ok to test", Check: "gate", Presubmit: "ci",
		Trust: []forge.Rule{{Kind: "permission", Value: "maintain"}, {Kind: "team", Value: "acme/core"}, {Kind: "user", Value: "ada"}, {Kind: "app", Value: "release-bot"}},
		Auto:  []forge.Rule{}, Hold: Hold{For: 90 * time.Second},
		Triggers: []Trigger{
			{Kind: ActionsApproval}, {Kind: Workflow, File: "pre.yml", Ref: "signalbox-presubmit"}, {Kind: RepositoryDispatch},
			{Kind: HTTP, URL: "https://ci.example/start?x=1"},
		},
	}
	g := c.Gate(repo("acme/widgets"))
	if d := cmp.Diff(want, g); d != "" {
		t.Errorf("gate (-want +got):\n%s", d)
	}
	var names []string
	for _, tr := range g.Triggers {
		names = append(names, g.PresubmitName(tr))
	}
	if d := cmp.Diff([]string{"ci / actions_approval", "ci / pre.yml", "ci / repository_dispatch", "ci / ci.example"}, names); d != "" {
		t.Errorf("names of the checks (-want +got):\n%s", d)
	}
	for name, want := range map[string]bool{"acme/widgets": true, "ACME/Widgets": true, "other/one": true, "other/two": false, "acmeish/x": false, "acme": false} {
		if c.Allowed(repo(name)) != want {
			t.Errorf("allowed %s: %v", name, !want)
		}
	}
}

// A flag stands above a variable, a variable above the file, the file above the default; PORT above SIGNALBOX_LISTEN.
func TestPrecedence(t *testing.T) {
	f := files{
		"box.yaml": "listen: \":1\"\nlock_ttl: 20s\ngate: {hold: 3m, label: filed}\nforges: {github: {token: in-file, webhook_secret: filed}}\n",
		"token":    "from-a-file\n",
	}
	at := func(s Settings, environ ...string) Config {
		s.Config = "box.yaml"
		return resolve(t, s, environ, f)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"file over default", at(Settings{}).LockTTL, 20 * time.Second},
		{"environment over file", at(Settings{}, "SIGNALBOX_LOCK_TTL=30s").LockTTL, 30 * time.Second},
		{"flag over environment", at(Settings{LockTTL: "40s"}, "SIGNALBOX_LOCK_TTL=30s").LockTTL, 40 * time.Second},
		{"empty is not given", at(Settings{}, "SIGNALBOX_LOCK_TTL= ").LockTTL, 20 * time.Second},
		{"gate from the file", at(Settings{}).Gate(repo("a/b")).Hold.For, 3 * time.Minute},
		{"gate from the environment", at(Settings{}, "SIGNALBOX_HOLD=4m").Gate(repo("a/b")).Hold.For, 4 * time.Minute},
		{"other keys stay", at(Settings{}, "SIGNALBOX_HOLD=4m").Gate(repo("a/b")).Label, "filed"},
		{"gate from a flag", at(Settings{Hold: "strict"}, "SIGNALBOX_HOLD=4m").Gate(repo("a/b")).Hold.Strict, true},
		{"listen from the file", at(Settings{}).Listen, ":1"},
		{"PORT over listen", at(Settings{}, "PORT=3", "SIGNALBOX_LISTEN=:2").Listen, ":3"},
		{"flag over PORT", at(Settings{Listen: ":4"}, "PORT=3", "SIGNALBOX_LISTEN=:2").Listen, ":4"},
		{"forge from the file", at(Settings{}).Forges[0].Token.Reveal(), "in-file"},
		{"forge completed by the environment", at(Settings{}, "SIGNALBOX_GITHUB_TOKEN=in-env").Forges[0].Token.Reveal(), "in-env"},
		{"a secret's file in the environment over a secret in the file", at(Settings{}, "SIGNALBOX_GITHUB_TOKEN_FILE=token").Forges[0].Token.Reveal(), "from-a-file"},
		{"a secret in the environment over a secret's file in the file", resolve(t, Settings{Config: "filed.yaml"}, []string{"SIGNALBOX_GITHUB_TOKEN=in-env"},
			files{"filed.yaml": "forges: {github: {token_file: token, webhook_secret: filed}}\n", "token": "from-a-file\n"}).Forges[0].Token.Reveal(), "in-env"},
		{"the file's own secret stays", at(Settings{}, "SIGNALBOX_GITHUB_TOKEN=in-env").Forges[0].WebhookSecrets[0].Reveal(), "filed"},
		{"file named by the environment", resolve(t, Settings{}, []string{"SIGNALBOX_CONFIG=box.yaml"}, f).LockTTL, 20 * time.Second},
	} {
		if d := cmp.Diff(c.want, c.got); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
	}
}

func TestExampleFile(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	c := resolve(t, Settings{Config: "signalbox.yaml"}, nil, files{
		"signalbox.yaml": string(text), "/run/secrets/admin": "admin-token\n", "/run/secrets/github-app.pem": privateKey(t),
		"/run/secrets/octocorp-token": "ghp_x", "/run/secrets/octocorp-hook": "one,two\n",
		"/run/secrets/http-trigger": httpSecret, "/run/secrets/alerts": httpSecret, "/run/secrets/key": base64.StdEncoding.EncodeToString(make([]byte, 32)), "/run/secrets/npm": "npm-token\n",
	})
	if len(c.Forges) != 2 || c.Forges[0].AppID != 123456 || c.Forges[1].Name != "octocorp" || len(c.Forges[1].WebhookSecrets) != 2 {
		t.Errorf("forges: %+v", c.Forges)
	}
	octo := func(name string) forge.Repo { return forge.Repo{Instance: "octocorp", ID: 2, Name: name} }
	if !c.Allowed(octo("Platform/api")) || c.Allowed(repo("platform/api")) {
		t.Error("platform/* is meant on octocorp only")
	}
	plain, payments, widgets, platform := c.Gate(repo("other/x")), c.Gate(repo("Acme/Payments")), c.Gate(repo("acme/widgets")), c.Gate(octo("platform/api"))
	if !cmp.Equal(plain.Auto, plain.Trust) || plain.Hold.Strict || plain.Triggers[0].Kind != ActionsApproval {
		t.Errorf("gate of every repository: %+v", plain)
	}
	if len(widgets.Auto) != 2 || widgets.Auto[1].String() != "app:dependabot" || widgets.Hold.Strict {
		t.Errorf("gate of acme/*: %+v", widgets)
	}
	if len(payments.Trust) != 2 || len(payments.Auto) != 0 || !payments.Hold.Strict || payments.Triggers[0].File != "presubmit.yml" || payments.Label != "CICD" {
		t.Errorf("gate of acme/payments: %+v", payments)
	}
	if platform.Label != "ok-to-test" || len(platform.Triggers) != 2 || c.Gate(repo("platform/api")).Label != "CICD" {
		t.Errorf("gate of octocorp:platform/*: %+v", platform)
	}

	// The example shows every key there is.
	var doc map[string]any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	for _, k := range slices.Concat(topKeys(), gateKeyNames(), forgeKeys(kindGitHub), forgeKeys(kindGitLab), []string{"kind"}) {
		if base := strings.TrimSuffix(k, "_file"); !strings.Contains(string(text), base) {
			t.Errorf("the example does not mention %s", k)
		}
	}
}

// Overlaid key by key: the narrower pattern holds, whatever the order of the file.
func TestNarrowerPatternHolds(t *testing.T) {
	f := files{"c.yaml": `
gate: {label: every, check: every, hold: 1m}
repositories:
  acme/widgets: {label: exact}
  github:acme/*: {label: forge-owner, check: forge-owner}
  acme/*: {label: owner, check: owner, presubmit: owners}
  github:acme/widgets: {hold: strict}
  acme/widgets/*: {label: beneath}
`}
	c := resolve(t, Settings{Config: "c.yaml"}, minimal(), f)
	got := map[string]string{}
	for _, name := range []string{"github:acme/widgets", "gitlab:acme/widgets", "github:acme/other", "gitlab:acme/widgets/deep", "github:acmeish/x"} {
		instance, path, _ := strings.Cut(name, ":")
		g := c.Gate(forge.Repo{Instance: instance, Name: path})
		got[name] = fmt.Sprint(g.Label, " ", g.Check, " ", g.Presubmit, " ", g.Hold.Strict)
	}
	want := map[string]string{
		"github:acme/widgets":      "exact forge-owner owners true",
		"gitlab:acme/widgets":      "exact owner owners false",
		"github:acme/other":        "forge-owner forge-owner owners false",
		"gitlab:acme/widgets/deep": "beneath owner owners false",
		"github:acmeish/x":         "every every presubmit false",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("gates (-want +got):\n%s", d)
	}
}

// Each refusal says where, which key, what is wrong and what was expected.
func TestRefusals(t *testing.T) {
	const ok = "forges: {github: {token: t, webhook_secret: s}}\n"
	file := func(text string) files { return files{"c.yaml": text} }
	env := func(more ...string) []string { return append(minimal(), more...) }
	for name, c := range map[string]struct {
		set  Settings
		env  []string
		file files // c.yaml is read if it is there
		want []string
	}{
		// files
		"no such file":          {set: Settings{Config: "gone.yaml"}, want: []string{"gone.yaml: cannot be read: open gone.yaml: file does not exist; expected a YAML file"}},
		"not YAML":              {file: file("a: [1\n"), want: []string{"c.yaml:1: not YAML: did not find expected ',' or ']'"}},
		"two documents":         {file: file(ok + "---\na: 1\n"), want: []string{"c.yaml: more than one YAML document; expected one"}},
		"a list for a file":     {file: file("- a\n"), env: minimal(), want: []string{"c.yaml:1: expected keys with values: listen, "}},
		"a list for forges":     {file: file("forges: [github]\n"), env: minimal(), want: []string{"c.yaml:1: forges: expected names with keys beneath each"}},
		"text for a gate":       {file: file(ok + "gate: strict\n"), want: []string{"c.yaml:2: gate: expected keys with values: label, "}},
		"unknown key":           {file: file(ok + "\nlok_ttl: 9s\n"), want: []string{"c.yaml:3: lok_ttl: unknown key; expected one of listen, "}},
		"unknown key of a gate": {file: file(ok + "gate:\n  labels: x\n"), want: []string{"c.yaml:3: gate.labels: unknown key; expected one of label, check, presubmit, trust, auto, hold, trigger"}},
		"unknown key of a repository": {file: file(ok + "repositories:\n  a/b:\n    holt: 1m\n"),
			want: []string{"c.yaml:4: repositories.a/b.holt: unknown key"}},
		"unknown key of a forge": {file: file("forges:\n  github:\n    token: t\n    webhook_secret: s\n    secrets: x\n"),
			want: []string{"c.yaml:5: forges.github.secrets: unknown key; expected one of api_url, "}},
		"key twice":        {file: file(ok + "sweep: 1m\nsweep: 2m\n"), want: []string{"c.yaml:3: sweep: already said on line 2; expected once"}},
		"forge twice":      {file: file("forges:\n  github: {token: t, webhook_secret: s}\n  github: {}\n"), want: []string{"c.yaml:3: forges.github: already said on line 2; expected once"}},
		"empty value":      {file: file(ok + "sweep:\n"), want: []string{"c.yaml:2: sweep: no value; expected one, or no such line"}},
		"null":             {file: file(ok + "gate: {label: ~}\n"), want: []string{"c.yaml:2: gate.label: no value; expected one"}},
		"mapping as value": {file: file(ok + "sweep: {every: 1m}\n"), want: []string{"c.yaml:2: sweep: no value; expected one"}},
		"list as value":    {file: file(ok + "sweep: [1m]\n"), want: []string{"c.yaml:2: sweep: found a list; expected one value"}},
		"empty list":       {file: file(ok + "repos: []\n"), want: []string{"c.yaml:2: repos: an entry is empty; expected a list"}},

		// environment and flags
		"unknown variable": {env: env("SIGNALBOX_LABELS=x"), want: []string{"environment: SIGNALBOX_LABELS: unknown variable; expected one of those in the README, with SIGNALBOX_L… SIGNALBOX_LABEL, SIGNALBOX_LISTEN, "}},
		"service link without Kubernetes": {env: env("SIGNALBOX_SERVICE_HOST=10.0.0.1"),
			want: []string{"environment: SIGNALBOX_SERVICE_HOST: unknown variable"}},
		"bad flag":           {set: Settings{LockTTL: "soon"}, env: minimal(), want: []string{`command line: --lock-ttl: "soon" is no duration; expected a number with its unit, like 15s`}},
		"empty entry":        {env: env("SIGNALBOX_REPOS=a/b,,c/d"), want: []string{"environment: SIGNALBOX_REPOS: an entry is empty"}},
		"duration: no unit":  {env: env("SIGNALBOX_LOCK_TTL=15"), want: []string{`environment: SIGNALBOX_LOCK_TTL: "15" is no duration`}},
		"duration: too long": {env: env("SIGNALBOX_LOCK_TTL=10m"), want: []string{`environment: SIGNALBOX_LOCK_TTL: "10m" is out of bounds; expected 1s to 5m0s`}},
		"duration: too short": {file: file(ok + "sweep: 1ms\n"),
			want: []string{`c.yaml:2: sweep: "1ms" is out of bounds; expected 1s to 24h0m0s`}},
		"hold: words":        {env: env("SIGNALBOX_HOLD=Strict"), want: []string{`environment: SIGNALBOX_HOLD: "Strict" is no time to hold; expected a duration like 2m, 0s for none, or strict`}},
		"hold: negative":     {env: env("SIGNALBOX_HOLD=-2m"), want: []string{`environment: SIGNALBOX_HOLD: "-2m" is no time to hold`}},
		"bool":               {env: env("SIGNALBOX_DRY_RUN=maybe"), want: []string{`environment: SIGNALBOX_DRY_RUN: "maybe" is neither yes nor no`}},
		"level":              {env: env("SIGNALBOX_LOG=warning"), want: []string{`environment: SIGNALBOX_LOG: "warning" is none of them; expected debug, info, warn, error`}},
		"format":             {env: env("SIGNALBOX_LOG_FORMAT=xml"), want: []string{`environment: SIGNALBOX_LOG_FORMAT: "xml" is none of them`}},
		"listen":             {env: env("SIGNALBOX_LISTEN=8080"), want: []string{`environment: SIGNALBOX_LISTEN: "8080" is no address to listen on; expected HOST:PORT or :PORT`}},
		"listen: port":       {env: env("SIGNALBOX_LISTEN=:70000"), want: []string{`environment: SIGNALBOX_LISTEN: ":70000" is no address`}},
		"port":               {env: env("PORT=http"), want: []string{`environment: PORT: "http" is no port; expected 1 to 65535`}},
		"url":                {env: env("SIGNALBOX_URL=box.example"), want: []string{`environment: SIGNALBOX_URL: "box.example" is no absolute http or https URL`}},
		"url with password":  {env: env("SIGNALBOX_URL=https://me:hunter2@box.example"), want: []string{"environment: SIGNALBOX_URL: a URL with a user or password in it"}},
		"secret key: short":  {env: env("SIGNALBOX_SECRET_KEY=aHVudGVyMg=="), want: []string{"environment: SIGNALBOX_SECRET_KEY: not a key; expected 32 bytes in base64"}},
		"admin token: words": {env: env("SIGNALBOX_ADMIN_TOKEN=hunter2 hunter2"), want: []string{"environment: SIGNALBOX_ADMIN_TOKEN: a space or line break within it; expected one word"}},
		"label: too long":    {env: env("SIGNALBOX_LABEL=" + strings.Repeat("x", 51)), want: []string{"environment: SIGNALBOX_LABEL: ", "cannot be a label; expected 1 to 50 characters"}},
		"check: line break":  {env: env("SIGNALBOX_CHECK=CI\ngate"), want: []string{`environment: SIGNALBOX_CHECK: "CI\ngate" cannot be the name of a check`}},
		"gate is presubmit":  {env: env("SIGNALBOX_CHECK=CI", "SIGNALBOX_PRESUBMIT=ci"), want: []string{`environment: SIGNALBOX_PRESUBMIT: gate and presubmit would both write the check "CI"`}},
		"gate is presubmit of a repository": {file: file(ok + "repositories:\n  a/b: {presubmit: CI gate}\n"),
			want: []string{`c.yaml:3: repositories.a/b: gate and presubmit would both write the check "CI gate"`}},

		"gate is presubmit of two entries together": {file: file("forges: {octo: {token: t, webhook_secret: s}}\nrepositories:\n  a/b: {presubmit: X}\n  octo:a/*: {check: x}\n"),
			want: []string{`c.yaml:3: repositories.a/b: gate and presubmit would both write the check "x"`}},

		// stores
		"store: no scheme":      {env: env("SIGNALBOX_STORE=hunter2"), want: []string{"environment: SIGNALBOX_STORE: no scheme; expected file:PATH, redis://"}},
		"store: other scheme":   {env: env("SIGNALBOX_STORE=reds://:hunter2@x"), want: []string{`environment: SIGNALBOX_STORE: unknown scheme "reds"`}},
		"store: no host":        {env: env("SIGNALBOX_STORE=redis:6379"), want: []string{"environment: SIGNALBOX_STORE: redis: without a host"}},
		"store: raw password":   {env: env("SIGNALBOX_STORE=redis://:hunter2%zz@x:6379"), want: []string{"environment: SIGNALBOX_STORE: redis: without a host, or its password is not percent-encoded"}},
		"store: no file":        {env: env("SIGNALBOX_STORE=file:"), want: []string{`environment: SIGNALBOX_STORE: "file:" names no file`}},
		"store: host of a file": {env: env("SIGNALBOX_STORE=file://data/x.db"), want: []string{`environment: SIGNALBOX_STORE: "file://data/x.db" names a host; expected file:PATH`}},
		"file on Cloud Run": {env: env("K_SERVICE=box", "SIGNALBOX_STORE=file:/tmp/x.db"),
			want: []string{"environment: SIGNALBOX_STORE: on Cloud Run (K_SERVICE is set) file:/tmp/x.db is lost with the instance; expected a redis URL, or SIGNALBOX_ALLOW_EPHEMERAL=1 for a trial"}},
		"default file on Cloud Run": {env: env("K_SERVICE=box"), want: []string{"environment: SIGNALBOX_STORE: on Cloud Run (K_SERVICE is set) file:./signalbox.db is lost"}},
		"file of the file on Cloud Run": {env: env("K_SERVICE=box"), file: file("store: file:x.db\n"),
			want: []string{"c.yaml:1: store: on Cloud Run (K_SERVICE is set) file:x.db is lost"}},

		// rules, triggers, patterns
		"trust: other permission": {env: env("SIGNALBOX_TRUST=permission:admin"),
			want: []string{`environment: SIGNALBOX_TRUST: "permission:admin" is no rule of trust; expected permission:write, permission:maintain, team:ORG/SLUG, user:LOGIN or app:SLUG`}},
		"trust: other kind":       {env: env("SIGNALBOX_TRUST=role:write"), want: []string{`environment: SIGNALBOX_TRUST: "role:write" is no rule of trust; expected`}},
		"trust: team without org": {env: env("SIGNALBOX_TRUST=team:core"), want: []string{`"team:core" is no rule of trust`}},
		"trust: nobody":           {env: env("SIGNALBOX_TRUST=user:"), want: []string{`"user:" is no rule of trust`}},
		"trust: none":             {env: env("SIGNALBOX_TRUST=none"), want: []string{`"none" is no rule of trust`}},
		"trust: each bad rule": {file: file(ok + "gate:\n  trust: [user:ok, x, 'user:a b']\n"),
			want: []string{`c.yaml:3: gate.trust: "x" is no rule of trust`, `c.yaml:3: gate.trust: "user:a b" is no rule of trust`}},
		"auto: none and others":      {env: env("SIGNALBOX_AUTO=none,user:ada"), want: []string{"environment: SIGNALBOX_AUTO: none stands among other rules; expected none alone, or rules"}},
		"trigger: unknown":           {env: env("SIGNALBOX_TRIGGER=workflows:a.yml@b"), want: []string{`environment: SIGNALBOX_TRIGGER: "workflows:a.yml@b" is no trigger; expected actions_approval, workflow:FILE@REF, repository_dispatch, gitlab_pipeline, runner or http:URL`}},
		"trigger: no ref":            {env: env("SIGNALBOX_TRIGGER=workflow:a.yml"), want: []string{`"workflow:a.yml" names no branch to run on; expected workflow:FILE@REF`}},
		"trigger: odd ref":           {env: env("SIGNALBOX_TRIGGER=workflow:a.yml@a..b"), want: []string{`"workflow:a.yml@a..b" names no branch`}},
		"trigger: path":              {env: env("SIGNALBOX_TRIGGER=workflow:.github/workflows/a.yml@b"), want: []string{"names no workflow file; expected workflow:FILE@REF"}},
		"trigger: no YAML":           {env: env("SIGNALBOX_TRIGGER=workflow:a@b"), want: []string{`"workflow:a@b" names no workflow file`}},
		"trigger: more than it says": {env: env("SIGNALBOX_TRIGGER=actions_approval:x"), want: []string{`actions_approval takes nothing behind it, but found "actions_approval:x"`}},
		"trigger: bad URL":           {env: env("SIGNALBOX_TRIGGER=http:ftp://x"), want: []string{`"ftp://x" is no absolute http or https URL; expected http:URL`}},
		"alerts: no secret":          {env: env("SIGNALBOX_ALERT_URL=https://pager/a"), want: []string{`environment: SIGNALBOX_ALERT_SECRET: missing; expected the secret`}},
		"alerts: bad URL":            {env: env("SIGNALBOX_ALERT_URL=pager", "SIGNALBOX_ALERT_SECRET="+httpSecret), want: []string{`SIGNALBOX_ALERT_URL: "pager" is no absolute`}},
		"alerts: bad wait":           {env: env("SIGNALBOX_ALERT_WAIT=3d"), want: []string{`SIGNALBOX_ALERT_WAIT: "3d" is no duration`}},
		"trigger: no secret":         {env: env("SIGNALBOX_TRIGGER=http:https://ci/a"), want: []string{`environment: SIGNALBOX_HTTP_TRIGGER_SECRET: missing; expected the secret`}},
		"trigger: bad secret":        {env: env("SIGNALBOX_TRIGGER=http:https://ci/a", "SIGNALBOX_HTTP_TRIGGER_SECRET=hidden"), want: []string{`SIGNALBOX_HTTP_TRIGGER_SECRET: not a signing secret; expected whsec_`}},
		"trigger: same check":        {env: env("SIGNALBOX_TRIGGER=http:https://ci/a,http:https://ci/b"), want: []string{`two triggers would both write the check "ci"`}},
		"repos: no owner":            {env: env("SIGNALBOX_REPOS=widgets"), want: []string{`environment: SIGNALBOX_REPOS: "widgets" names no repository; expected OWNER/REPO or OWNER/*`}},
		"repos: everything":          {env: env("SIGNALBOX_REPOS=*"), want: []string{`"*" names no repository`}},
		"repos: more before it":      {env: env("SIGNALBOX_REPOS=a b/c"), want: []string{`"a b/c" names no repository`}},
		"repos: star inside":         {env: env("SIGNALBOX_REPOS=acme/wid*"), want: []string{`"acme/wid*" names no repository`}},
		"repos: other forge":         {env: env("SIGNALBOX_REPOS=githup:a/b"), want: []string{`environment: SIGNALBOX_REPOS: "githup" is no configured forge; expected github`}},
		"repositories: bad pattern":  {file: file(ok + "repositories:\n  acme: {hold: 1m}\n"), want: []string{`c.yaml:3: repositories.acme: "acme" names no repository`}},
		"repositories: one in two cases": {file: file(ok + "repositories:\n  a/b: {hold: 1m}\n  A/B: {hold: 2m}\n"),
			want: []string{"c.yaml:4: repositories.A/B: the same repositories as at c.yaml:3; expected once"}},
		"repositories: other forge": {file: file(ok + "repositories:\n  gitlab:a/b: {hold: 1m}\n"), want: []string{`c.yaml:3: repositories.gitlab:a/b: "gitlab" is no configured forge`}},
		"repositories: bad value":   {file: file(ok + "repositories:\n  a/b:\n    hold: long\n"), want: []string{`c.yaml:4: repositories.a/b.hold: "long" is no time to hold`}},

		// forges and their secrets
		"no forge": {want: []string{"environment: SIGNALBOX_GITHUB_WEBHOOK_SECRET: no forge is configured; expected this with SIGNALBOX_GITHUB_TOKEN, or with SIGNALBOX_GITHUB_APP_ID and SIGNALBOX_GITHUB_PRIVATE_KEY_FILE"}},
		"no webhook secret": {env: []string{"SIGNALBOX_GITHUB_TOKEN=t"},
			want: []string{"environment: SIGNALBOX_GITHUB_WEBHOOK_SECRET: missing; expected the secret of the webhook"}},
		"no credential": {file: file("forges:\n  octo: {webhook_secret: s}\n"), want: []string{"c.yaml:2: forges.octo.token: missing; expected a token, or an App's id and private key"}},
		"App without key": {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_APP_ID=1"},
			want: []string{"environment: SIGNALBOX_GITHUB_PRIVATE_KEY: missing; expected the App's private key beside its id"}},
		"key without App": {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=k"}, file: files{"k": privateKey(t)},
			want: []string{"environment: SIGNALBOX_GITHUB_APP_ID: missing"}},
		"token and App": {env: env("SIGNALBOX_GITHUB_APP_ID=1"), want: []string{"environment: SIGNALBOX_GITHUB_TOKEN: there is an App too; expected a token, or an App's id and key"}},
		"App id":        {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_APP_ID=my-app", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=k"}, file: files{"k": privateKey(t)}, want: []string{`environment: SIGNALBOX_GITHUB_APP_ID: "my-app" is no App id; expected the number`}},
		"unreadable key": {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_APP_ID=1", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=gone.pem"},
			want: []string{"environment: SIGNALBOX_GITHUB_PRIVATE_KEY_FILE: cannot be used: open gone.pem: file does not exist; expected the path of a file with the secret in it"}},
		"key that is none": {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_APP_ID=1", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=k"}, file: files{"k": "hunter2"},
			want: []string{"environment: SIGNALBOX_GITHUB_PRIVATE_KEY_FILE: not a PEM private key; expected the .pem file"}},
		"key that is a broken PEM": {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_APP_ID=1", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=k"}, file: files{"k": "-----BEGIN RSA PRIVATE KEY-----\naHVudGVyMg==\n-----END RSA PRIVATE KEY-----\n"},
			want: []string{"environment: SIGNALBOX_GITHUB_PRIVATE_KEY_FILE: not a PEM private key"}},
		"key of another kind": {env: []string{"SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_GITHUB_APP_ID=1", "SIGNALBOX_GITHUB_PRIVATE_KEY_FILE=k"}, file: files{"k": pkcs8(t, ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)))},
			want: []string{"environment: SIGNALBOX_GITHUB_PRIVATE_KEY_FILE: not a PEM private key; expected the .pem file that GitHub made for the App (RSA)"}},
		"empty secret file": {file: files{"c.yaml": "forges:\n  octo: {token_file: t, webhook_secret: s}\n", "t": "\n"},
			want: []string{"c.yaml:2: forges.octo.token_file: cannot be used: t is empty"}},
		"secret twice": {env: env("SIGNALBOX_GITHUB_TOKEN_FILE=t"), want: []string{"environment: SIGNALBOX_GITHUB_TOKEN_FILE: SIGNALBOX_GITHUB_TOKEN is there too; expected one of the two"}},
		"empty webhook secret": {env: []string{"SIGNALBOX_GITHUB_TOKEN=t", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=new,"},
			want: []string{"environment: SIGNALBOX_GITHUB_WEBHOOK_SECRET: an entry is empty"}},
		"API URL":       {env: env("SIGNALBOX_GITHUB_API_URL=github.example"), want: []string{`environment: SIGNALBOX_GITHUB_API_URL: "github.example" is no absolute http or https URL; expected one like https://github.example.org/api/v3/`}},
		"kind":          {file: file("forges:\n  forge: {kind: gitea, token: t, webhook_secret: s}\n"), want: []string{`c.yaml:2: forges.forge.kind: "gitea" is none of them; expected github, gitlab`}},
		"name of forge": {file: file("forges:\n  My Forge: {token: t, webhook_secret: s}\n"), want: []string{"c.yaml:2: forges.My Forge: cannot name a forge; expected 1 to 32 of a-z, 0-9 and -"}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, ok := c.file["c.yaml"]; ok && c.set.Config == "" {
				c.set.Config = "c.yaml"
				if c.env == nil && !strings.Contains(c.file["c.yaml"], "forges") {
					c.env = minimal()
				}
			}
			_, err := c.set.Resolve(c.env, c.file.read)
			var ps Problems
			if !errors.As(err, &ps) {
				t.Fatalf("accepted, or %T: %v", err, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("says\n%v\nwant in it\n%s", err, want)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("shows a secret: %v", err)
			}
			if len(ps) > len(c.want) {
				t.Errorf("says more than that:\n%v", err)
			}
		})
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := Settings{Config: "c.yaml", Sweep: "often"}.Resolve(
		[]string{"SIGNALBOX_HOLT=1m", "SIGNALBOX_TRUST=me", "K_SERVICE=box"},
		files{"c.yaml": "lissen: x\nforges:\n  octo: {app_id: 0}\nrepositories:\n  a: {hold: 1}\n"}.read)
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("%T %v", err, err)
	}
	var got []string
	for _, p := range ps {
		got = append(got, p.Where+" "+p.Key)
	}
	want := []string{
		"c.yaml:1 lissen", "environment SIGNALBOX_HOLT", "command line --sweep", "c.yaml:3 forges.octo.app_id",
		"c.yaml:3 forges.octo.webhook_secret", "c.yaml:3 forges.octo.private_key", "environment SIGNALBOX_TRUST",
		"c.yaml:5 repositories.a", "environment SIGNALBOX_STORE",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("problems (-want +got):\n%s\n%v", d, err)
	}
}

// A pod that stands beside a Service called signalbox finds variables with our prefix that are none of ours.
func TestKubernetesServiceLinks(t *testing.T) {
	resolve(t, Settings{}, append(minimal(), "KUBERNETES_SERVICE_HOST=10.0.0.1", "SIGNALBOX_SERVICE_HOST=10.0.0.2",
		"SIGNALBOX_SERVICE_PORT=80", "SIGNALBOX_SERVICE_PORT_HTTP=80", "SIGNALBOX_PORT=tcp://10.0.0.2:80", "SIGNALBOX_PORT_80_TCP=tcp://10.0.0.2:80",
		"SIGNALBOX_PORT_80_TCP_ADDR=10.0.0.2", "SIGNALBOX_REDIS_SERVICE_HOST=10.0.0.3", "SIGNALBOX_REDIS_PORT_6379_TCP_PROTO=tcp"), nil)
	_, err := Settings{}.Resolve(append(minimal(), "KUBERNETES_SERVICE_HOST=10.0.0.1", "SIGNALBOX_LABELL=x"), files(nil).read)
	if err == nil {
		t.Error("a misspelling passes for a service link")
	}
}

func TestOfflineNeedsNoForge(t *testing.T) {
	c, err := Settings{}.ResolveOffline([]string{"K_SERVICE=box", "SIGNALBOX_STORE=file:x.db"}, files(nil).read)
	if err != nil || c.Store.Path != "x.db" || len(c.Forges) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := (Settings{Hold: "x"}).ResolveOffline(nil, files(nil).read); err == nil {
		t.Error("what is said must be right all the same")
	}
	c, err = Settings{Config: "c.yaml"}.ResolveOffline(nil, files{"c.yaml": "forges: {octo: {}}\nrepos: ['octo:a/*']\n"}.read)
	if err != nil || len(c.Forges) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestSecretsAreNeverShown(t *testing.T) {
	const hidden = "hunter2"
	c := resolve(t, Settings{}, []string{
		"SIGNALBOX_GITHUB_TOKEN=" + hidden, "SIGNALBOX_GITHUB_WEBHOOK_SECRET=" + hidden, "SIGNALBOX_ADMIN_TOKEN=" + hidden,
		"SIGNALBOX_STORE=redis-sentinel://me:" + hidden + "@s1,s2/master?password=" + hidden,
	}, nil)
	type outer struct {
		inner Secret // fmt asks no method of an unexported field
		store Store
	}
	o := outer{c.AdminToken, c.Store}
	var shown bytes.Buffer
	for _, v := range []any{c, &c, c.Forges, c.AdminToken, &c.AdminToken, o, &o, c.Store, []Secret{c.AdminToken}, map[Secret]int{c.AdminToken: 1}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			fmt.Fprintf(&shown, verb+"\n", v)
		}
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	asYAML, err := yaml.Marshal(c.Forges)
	if err != nil {
		t.Fatal(err)
	}
	shown.Write(asJSON)
	shown.Write(asYAML)
	for _, s := range []string{hidden, fmt.Sprintf("%x", hidden)} {
		if strings.Contains(shown.String(), s) {
			t.Errorf("%s in:\n%s", s, shown.String())
		}
	}
	if !strings.Contains(string(asJSON), `"[secret]"`) || c.AdminToken.String() != "[secret]" || c.SecretKey.String() != "" {
		t.Errorf("%s", asJSON)
	}
	if got := c.Store.String(); !strings.Contains(got, "s1,s2/master") {
		t.Errorf("the rest of the address should be seen: %s", got)
	}
}

// Whatever the file says, reading it ends in a configuration or in problems that name it.
func FuzzConfigFile(f *testing.F) {
	text, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add("a: &a [*a]\n")
	f.Add("? {a: b}\n: c\n")
	f.Add("repos: &r [a/b]\nrepositories: {a/b: {trust: *r}}\n<<: {sweep: 1m}\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Settings{Config: "c.yaml"}.ResolveOffline(nil, files{"c.yaml": text}.read)
		var ps Problems
		switch {
		case err == nil:
			if g := c.Gate(repo("acme/widgets")); g.Label == "" || strings.EqualFold(g.Check, g.Presubmit) || c.LockTTL <= 0 {
				t.Errorf("accepted without sense: %+v", c)
			}
		case !errors.As(err, &ps) || len(ps) == 0:
			t.Errorf("%T: %v", err, err)
		}
		for _, p := range ps {
			if !strings.HasPrefix(p.Where, "c.yaml") || p.Text == "" {
				t.Errorf("does not say where or what: %+v", p)
			}
		}
	})
}
