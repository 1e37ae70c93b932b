package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/runner"
)

// Settings are the flags of every command that needs the configuration. A flag stands over the environment variable of
// the same name (--lock-ttl, SIGNALBOX_LOCK_TTL), and that over the key of the file (lock_ttl; for a gate, gate.label).
// An empty flag or variable is one that was not given. Secrets have no flags: a command line is public on its machine.
type Settings struct {
	Config         string `name:"config" placeholder:"FILE" help:"Read FILE (YAML) beneath flags and environment."`
	Listen         string `name:"listen" placeholder:"ADDR" help:"Listen on ADDR, HOST:PORT or :PORT; default :8080, or the variable PORT."`
	Store          string `name:"store" placeholder:"URL" help:"Keep state in file:PATH or redis://…; default file:./signalbox.db."`
	AllowEphemeral *bool  `name:"allow-ephemeral" negatable:"" help:"Accept a file store on Cloud Run, where it is lost with the instance."`
	Repos          string `name:"repos" placeholder:"LIST" help:"Handle only these repositories: OWNER/REPO, OWNER/*."`
	Label          string `name:"label" placeholder:"NAME" help:"Gate label; default CICD."`
	Check          string `name:"check" placeholder:"NAME" help:"Name of the gate check; default \"CI gate\"."`
	Presubmit      string `name:"presubmit" placeholder:"NAME" help:"Name of the presubmit check; default presubmit."`
	Trust          string `name:"trust" placeholder:"RULES" help:"Who may approve: permission:write (default), permission:maintain, team:ORG/SLUG, user:LOGIN, app:SLUG."`
	Auto           string `name:"auto" placeholder:"RULES" help:"Whose pull requests run without asking; default as --trust; none = everybody waits."`
	Hold           string `name:"hold" placeholder:"TIME" help:"How long after an untrusted push a label is too early: 2m (default), 0s, strict."`
	Trigger        string `name:"trigger" placeholder:"LIST" help:"What starts presubmits: actions_approval, workflow:FILE@REF, repository_dispatch, gitlab_pipeline, runner, http:URL."`
	HTTPPrivate    *bool  `name:"http-trigger-private" negatable:"" help:"Let http triggers and alerts speak to loopback and private addresses."`
	DryRun         *bool  `name:"dry-run" negatable:"" help:"Look and decide, but write nothing at the forge."`
	Adopt          *bool  `name:"adopt" negatable:"" help:"Give older pull requests a gate check at once; default on."`
	URL            string `name:"url" placeholder:"URL" help:"Where commands find the running server."`
	LockTTL        string `name:"lock-ttl" placeholder:"TIME" help:"Life of a lease without renewal; default 15s."`
	Sweep          string `name:"sweep" placeholder:"TIME" help:"Pause between repairs; default 1m."`
	AlertURL       string `name:"alert-url" placeholder:"URL" help:"Post to URL, signed, when an alert fires or clears."`
	AlertWait      string `name:"alert-wait" placeholder:"TIME" help:"Alert when a pull request waits longer for an approval; default 0s, never."`
	Log            string `name:"log" placeholder:"LEVEL" help:"debug, info (default), warn, error."`
	LogFormat      string `name:"log-format" placeholder:"FORMAT" help:"json (default), console (default on a terminal), gcp."`
}

// flags are the settings that were given, by key.
func (s Settings) flags() map[string]string {
	out := map[string]string{}
	for f, v := range reflect.ValueOf(s).Fields() {
		key := strings.ReplaceAll(f.Tag.Get("name"), "-", "_")
		switch v := v.Interface().(type) {
		case string:
			if v = strings.TrimSpace(v); v != "" {
				out[key] = v
			}
		case *bool:
			if v != nil {
				out[key] = strconv.FormatBool(*v)
			}
		}
	}
	return out
}

// Resolve builds the configuration of a process that serves. environ is as of os.Environ; files are read through
// readFile, their paths as written. Its error is Problems, all there are.
func (s Settings) Resolve(environ []string, readFile func(string) ([]byte, error)) (Config, error) {
	return s.resolve(environ, readFile, true)
}

// ResolveOffline is Resolve for a command that speaks to no forge (explain, jobs, replay): what is said must be right,
// but a forge may be missing, or lack its credentials.
func (s Settings) ResolveOffline(environ []string, readFile func(string) ([]byte, error)) (Config, error) {
	return s.resolve(environ, readFile, false)
}

// envPrefix begins every variable of ours but PORT.
const envPrefix = "SIGNALBOX_"

type resolver struct {
	flags    map[string]string
	env      map[string]string
	file     file
	read     func(string) ([]byte, error)
	serving  bool
	problems Problems
}

func (s Settings) resolve(environ []string, read func(string) ([]byte, error), serving bool) (Config, error) {
	r := &resolver{flags: s.flags(), env: map[string]string{}, read: read, serving: serving}
	for _, kv := range environ {
		if k, v, _ := strings.Cut(kv, "="); strings.TrimSpace(v) != "" {
			r.env[k] = strings.TrimSpace(v)
		}
	}
	if name := cmp.Or(s.Config, r.env[envPrefix+"CONFIG"]); name != "" {
		text, err := read(name)
		if err != nil {
			r.problems.add(name, "", fmt.Errorf("cannot be read: %w; expected a YAML file", err))
			return Config{}, r.problems // what is missing may stand there
		}
		var ok bool
		if r.file, ok = parseFile(name, text, &r.problems); !ok {
			return Config{}, r.problems
		}
	}
	r.overlay()
	c := r.config()
	if len(r.problems) > 0 {
		return Config{}, r.problems
	}
	return c, nil
}

// serviceLink matches the variables that Kubernetes sets in every pod for a Service called signalbox or signalbox-…:
// they carry our prefix and are none of ours.
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// overlay puts environment and flags over what the file says.
func (r *resolver) overlay() {
	known := map[string]func(given){envPrefix + "CONFIG": func(given) {}, "PORT": func(g given) { r.file.top.say("port", g) }}
	know := func(prefix string, s *section, keys []string) {
		for _, k := range keys {
			known[prefix+strings.ToUpper(k)] = func(g given) { s.say(k, g) }
		}
	}
	know(envPrefix, &r.file.top, topKeys())
	know(envPrefix, &r.file.gate, gateKeyNames())
	for _, name := range []string{kindGitHub, kindGitLab} { // which need no file
		i := slices.IndexFunc(r.file.forges, func(s *section) bool { return s.name == name })
		if i < 0 {
			i = len(r.file.forges)
			r.file.forges = append(r.file.forges, &section{place: inEnvironment, where: "environment", name: name})
		}
		know(envPrefix+strings.ToUpper(name)+"_", r.file.forges[i], forgeKeys(name))
	}
	_, pod := r.env["KUBERNETES_SERVICE_HOST"]
	for _, name := range slices.Sorted(maps.Keys(r.env)) {
		if say, ok := known[name]; ok {
			say(given{place: inEnvironment, where: "environment", key: name, values: []string{r.env[name]}})
		} else if strings.HasPrefix(name, envPrefix) && !(pod && serviceLink.MatchString("_"+strings.TrimPrefix(name, envPrefix))) {
			begins := name[:min(len(name), len(envPrefix)+1)]
			near := slices.DeleteFunc(slices.Sorted(maps.Keys(known)), func(k string) bool { return !strings.HasPrefix(k, begins) })
			r.problems.add("environment", name, fmt.Errorf("unknown variable; expected one of those in the README, with %s… %s", begins, cmp.Or(strings.Join(near, ", "), "none")))
		}
	}
	r.file.forges = slices.DeleteFunc(r.file.forges, func(s *section) bool { return s.place == inEnvironment && len(s.keys) == 0 })
	for k, v := range r.flags {
		g := given{place: onCommandLine, where: "command line", key: "--" + strings.ReplaceAll(k, "_", "-"), values: []string{v}}
		if slices.Contains(gateKeyNames(), k) {
			r.file.gate.say(k, g)
		} else {
			r.file.top.say(k, g)
		}
	}
}

// lookup finds a value by its key.
type lookup func(key string) (given, bool)

// read parses the value of a key; nil where none is given, or a problem is.
func read[T any](r *resolver, in lookup, key string, parse func(given) (T, error)) *T {
	g, ok := in(key)
	if !ok {
		return nil
	}
	v, err := parse(g)
	if err != nil {
		r.problems.add(g.where, g.key, err)
		return nil
	}
	return &v
}

func set[T any](p, v *T) {
	if v != nil {
		*p = *v
	}
}

// one is for a value that is not a list.
func one[T any](parse func(string) (T, error)) func(given) (T, error) {
	return func(g given) (v T, err error) {
		if g.list {
			return v, errors.New("found a list; expected one value")
		}
		return parse(g.values[0])
	}
}

// many is for a list; a value that is no list is one with commas.
func many[T any](parse func([]string) (T, error)) func(given) (T, error) {
	return func(g given) (v T, err error) {
		values := g.values
		if !g.list {
			values = strings.Split(values[0], ",")
		}
		for i := range values {
			values[i] = strings.TrimSpace(values[i])
		}
		if slices.Contains(values, "") || len(values) == 0 {
			return v, errors.New("an entry is empty; expected a list with a value in each place")
		}
		return parse(values)
	}
}

func (r *resolver) config() Config {
	c := Config{
		Listen: ":8080", Store: Store{Scheme: "file", Path: "./signalbox.db", address: NewSecret("file:./signalbox.db")},
		Adopt: true, LockTTL: 15 * time.Second, Sweep: time.Minute, LogLevel: "info",
	}
	top := r.file.top.get
	secret := r.orFile(top)
	set(&c.Listen, read(r, top, "listen", one(parseListen)))
	if r.flags["listen"] == "" { // PORT is the platform's word, and stands over SIGNALBOX_LISTEN
		set(&c.Listen, read(r, top, "port", one(parsePort)))
	}
	set(&c.Store, read(r, top, "store", one(parseStore)))
	set(&c.AllowEphemeral, read(r, top, "allow_ephemeral", one(parseBool)))
	set(&c.DryRun, read(r, top, "dry_run", one(parseBool)))
	set(&c.Adopt, read(r, top, "adopt", one(parseBool)))
	set(&c.URL, read(r, top, "url", one(parseURL("https://signalbox.example.org"))))
	set(&c.LockTTL, read(r, top, "lock_ttl", one(parseDuration(time.Second, 5*time.Minute, "15s"))))
	set(&c.Sweep, read(r, top, "sweep", one(parseDuration(time.Second, 24*time.Hour, "1m"))))
	set(&c.LogLevel, read(r, top, "log", one(parseOneOf("debug", "info", "warn", "error"))))
	set(&c.LogFormat, read(r, top, "log_format", one(parseOneOf("json", "console", "gcp"))))
	set(&c.AdminToken, read(r, secret, "admin_token", one(parseSecret)))
	set(&c.SecretKey, read(r, secret, "secret_key", one(parseSecretKey)))
	set(&c.HTTPSecret, read(r, secret, "http_trigger_secret", one(parseHTTPSecret)))
	set(&c.HTTPPrivate, read(r, top, "http_trigger_private", one(parseBool)))
	set(&c.AlertURL, read(r, top, "alert_url", one(parseURL("https://signalbox.example.org"))))
	set(&c.AlertSecret, read(r, secret, "alert_secret", one(parseHTTPSecret)))
	set(&c.AlertWait, read(r, top, "alert_wait", one(parseDuration(0, 365*24*time.Hour, "72h"))))
	set(&c.repos, read(r, top, "repos", many(each(parsePattern))))

	c.Forges = r.forges()
	c.gate = r.gateKeys(r.file.gate.get)
	r.repositories(&c)
	r.sound(c)
	if r.serving {
		r.durable(c)
		r.wants("http_trigger_secret", slices.ContainsFunc(c.Triggers(), func(t Trigger) bool { return t.Kind == HTTP }),
			"the secret that signs what goes to the http trigger, as made by: echo whsec_$(openssl rand -base64 32)")
		r.wants("alert_secret", c.AlertURL != "",
			"the secret that signs what goes to the receiver of alerts, as made by: echo whsec_$(openssl rand -base64 32)")
		// One that is kept in the same store would protect nothing.
		r.wants("secret_key", slices.ContainsFunc(c.overrides, func(o override) bool { return len(o.secrets) > 0 }),
			"the key that the repositories' secrets are sealed with while a task has them, as made by: openssl rand -base64 32")
	}
	return c
}

// orFile finds secrets, which stand under their key or in the file that stands under key_file. Said both ways in one
// place it is a contradiction; in two places, the higher one holds as for every key.
func (r *resolver) orFile(in lookup) lookup {
	return func(key string) (given, bool) {
		g, here := in(key)
		f, elsewhere := in(key + "_file")
		if here && elsewhere && g.place == f.place {
			r.problems.add(f.where, f.key, fmt.Errorf("%s is there too; expected one of the two", g.key))
			return given{}, false
		}
		if !elsewhere || here && g.place > f.place {
			return g, here
		}
		text := read(r, in, key+"_file", one(func(path string) (string, error) {
			b, err := r.read(path)
			if b = bytes.TrimSpace(b); err == nil && len(b) == 0 {
				err = fmt.Errorf("%s is empty", path)
			}
			if err != nil {
				err = fmt.Errorf("cannot be used: %w; expected the path of a file with the secret in it", err)
			}
			return string(b), err
		}))
		if text == nil {
			return given{}, false
		}
		f.values = []string{*text}
		return f, true
	}
}

// said says whether a secret was given, be it refused.
func said(in lookup, key string) bool {
	_, here := in(key)
	_, elsewhere := in(key + "_file")
	return here || elsewhere
}

// wants tells of a secret that is needed and missing.
func (r *resolver) wants(key string, needed bool, what string) {
	if needed && !said(r.file.top.get, key) {
		r.problems.add("environment", envPrefix+strings.ToUpper(key), errors.New("missing; expected "+what))
	}
}

// gateKeys parses what one place says of a gate.
func (r *resolver) gateKeys(in lookup) gateKeys {
	return gateKeys{
		label:     read(r, in, "label", one(parseName("a label", 50))), // GitHub's
		check:     read(r, in, "check", one(parseName("the name of a check", 100))),
		presubmit: read(r, in, "presubmit", one(parseName("the name of a check", 100))),
		trust:     read(r, in, "trust", many(each(parseRule))),
		auto:      read(r, in, "auto", many(parseAuto)),
		hold:      read(r, in, "hold", one(parseHold)),
		triggers:  read(r, in, "trigger", many(parseTriggers)),
	}
}

// repositories parses the gates of single repositories.
func (r *resolver) repositories(c *Config) {
	said := map[pattern]*section{}
	for _, s := range r.file.repositories {
		p, err := parsePattern(s.name)
		key := joined("repositories", s.name)
		if err != nil {
			r.problems.add(s.where, key, err)
			continue
		}
		if first, twice := said[p]; twice {
			r.problems.add(s.where, key, fmt.Errorf("the same repositories as at %s; expected once (upper and lower case are one)", first.where))
			continue
		}
		said[p] = s
		r.knownInstance(*c, s.where, key, p)
		c.overrides = append(c.overrides, override{pattern: p, keys: r.gateKeys(s.get), secrets: r.jobSecrets(s.secrets)})
	}
	slices.SortFunc(c.overrides, func(a, b override) int { return a.narrower(b.pattern) })

	// A repository under several entries has the keys of all of them. Those that match the name of an entry are those
	// that match a repository whose narrowest entry it is.
	instances := append(forgeNames(*c), "")
	if sameCheck(c.gate.gate()) {
		return // told by sound, once for all
	}
	for _, o := range c.overrides {
		for _, instance := range instances {
			g := c.Gate(forge.Repo{Instance: cmp.Or(o.instance, instance), Name: o.name})
			if sameCheck(g) {
				r.problems.add(said[o.pattern].where, joined("repositories", said[o.pattern].name), errGateIsPresubmit(g))
				break
			}
		}
	}
}

// sound looks at what single values cannot show.
func (r *resolver) sound(c Config) {
	if g := c.gate.gate(); sameCheck(g) {
		at, _ := r.file.gate.get("check")
		if p, ok := r.file.gate.get("presubmit"); ok && p.place >= at.place {
			at = p
		}
		r.problems.add(at.where, at.key, errGateIsPresubmit(g))
	}
	for _, t := range c.Triggers() {
		kind := t.forgeKind()
		if kind == "" || len(c.Forges) == 0 || slices.ContainsFunc(c.Forges, func(f Forge) bool { return f.Kind == kind }) {
			continue
		}
		at, ok := r.file.gate.get("trigger")
		if !ok {
			at = given{where: cmp.Or(r.file.top.where, "environment"), key: "repositories"}
		}
		r.problems.add(at.where, at.key, fmt.Errorf("%s starts nothing, since no forge of kind %s is configured", quote(t.String()), kind))
	}
	if at, ok := r.file.top.get("repos"); ok {
		for _, p := range c.repos {
			r.knownInstance(c, at.where, at.key, p)
		}
	}
}

// jobSecrets parses secrets for jobs on runners: NAME, or NAME_file for one in a file.
func (r *resolver) jobSecrets(in map[string]given) map[string]Secret {
	out := map[string]Secret{}
	for _, key := range slices.Sorted(maps.Keys(in)) {
		name := strings.TrimSuffix(key, "_file")
		if _, both := in[name]; both && name != key {
			continue // told with the other
		}
		if !runner.SecretName(name) {
			r.problems.add(in[key].where, in[key].key, errors.New("cannot name a secret; expected capitals, digits and _, and no beginning that runners use themselves (GITHUB_, SIGNALBOX_, …)"))
			continue
		}
		if v := read(r, r.orFile(section{keys: in}.get), name, one(parseJobSecret)); v != nil {
			out[name] = *v
		}
	}
	return out
}

func sameCheck(g Gate) bool { return strings.EqualFold(g.Check, g.Presubmit) }

func errGateIsPresubmit(g Gate) error {
	return fmt.Errorf("gate and presubmit would both write the check %s, so that one could stand in for the other; expected two names", quote(g.Check))
}

func (r *resolver) knownInstance(c Config, where, key string, p pattern) {
	names := forgeNames(c)
	if p.instance != "" && len(names) > 0 && !slices.Contains(names, p.instance) {
		r.problems.add(where, key, fmt.Errorf("%s is no configured forge; expected %s", quote(p.instance), strings.Join(names, ", ")))
	}
}

func forgeNames(c Config) []string {
	names := make([]string, len(c.Forges))
	for i, f := range c.Forges {
		names[i] = f.Name
	}
	return names
}

// forges parses those of the file, and those that the environment configures or completes.
func (r *resolver) forges() []Forge {
	if r.serving && len(r.file.forges) == 0 {
		r.problems.add("environment", "SIGNALBOX_GITHUB_WEBHOOK_SECRET", errors.New("no forge is configured; expected this with SIGNALBOX_GITHUB_TOKEN, or with "+
			"SIGNALBOX_GITHUB_APP_ID and SIGNALBOX_GITHUB_PRIVATE_KEY_FILE; or SIGNALBOX_GITLAB_WEBHOOK_SECRET with SIGNALBOX_GITLAB_TOKEN; or forges in a file"))
	}
	var out []Forge
	for _, s := range r.file.forges {
		out = append(out, r.forge(s))
	}
	slices.SortFunc(out, func(a, b Forge) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (r *resolver) forge(s *section) Forge {
	in := s.get
	f := Forge{Name: s.name, Kind: "github", APIURL: "https://api.github.com/"}
	if !instanceForm.MatchString(s.name) {
		r.problems.add(s.where, joined("forges", s.name), errors.New("cannot name a forge; expected 1 to 32 of a-z, 0-9 and -"))
	}
	if s.name == kindGitLab {
		f.Kind = kindGitLab
	}
	set(&f.Kind, read(r, in, "kind", one(parseOneOf(kindGitHub, kindGitLab))))
	url, like, foreign := "api_url", "https://github.example.org/api/v3/", []string{"url", "webhook_signing_token", "webhook_signing_token_file"}
	if f.Kind == kindGitLab {
		f.APIURL = "https://gitlab.com/"
		url, like, foreign = "url", "https://gitlab.example.org/", []string{"api_url", "app_id", "private_key", "private_key_file"}
	}
	for _, key := range foreign {
		if g, ok := in(key); ok {
			r.problems.add(g.where, g.key, fmt.Errorf("a forge of kind %s has no such key", f.Kind))
		}
	}
	set(&f.APIURL, read(r, in, url, one(parseURL(like))))
	f.APIURL = strings.TrimSuffix(f.APIURL, "/") + "/" // relative paths need it
	secret := r.orFile(in)
	set(&f.Token, read(r, secret, "token", one(parseSecret)))
	if f.Kind == kindGitLab {
		set(&f.SigningTokens, read(r, secret, "webhook_signing_token", many(each(parseSigningToken))))
	} else {
		set(&f.AppID, read(r, in, "app_id", one(parseAppID)))
		set(&f.PrivateKey, read(r, secret, "private_key", one(parsePrivateKey)))
	}
	set(&f.WebhookSecrets, read(r, secret, "webhook_secret", many(each(parseSecret))))
	if r.serving {
		r.credentials(s, f.Kind)
	}
	return f
}

// durable refuses a file store where the platform throws files away.
func (r *resolver) durable(c Config) {
	if _, cloudRun := r.env["K_SERVICE"]; !cloudRun || c.Store.Scheme != "file" || c.AllowEphemeral {
		return
	}
	at, ok := r.file.top.get("store")
	if !ok {
		at = given{where: "environment", key: envPrefix + "STORE"}
	}
	r.problems.add(at.where, at.key, fmt.Errorf("on Cloud Run (K_SERVICE is set) %s is lost with the instance; expected a redis URL, or %sALLOW_EPHEMERAL=1 for a trial", c.Store, envPrefix))
}

// credentials says what a forge lacks. A value that was given and refused is not missing: it is told once.
func (r *resolver) credentials(s *section, kind string) {
	in := s.get
	problem := func(key, text string) {
		name := joined(joined("forges", s.name), key)
		if s.place == inEnvironment {
			name = envPrefix + strings.ToUpper(s.name+"_"+key)
		}
		r.problems.add(s.where, name, errors.New(text))
	}
	if kind == kindGitLab {
		if !said(in, "webhook_secret") && !said(in, "webhook_signing_token") {
			problem("webhook_secret", "missing; expected the secret of the webhook, or its signing token: without one anybody could send deliveries")
		}
		if !said(in, "token") {
			problem("token", "missing; expected a project access token with the role Developer and the scope api")
		}
		return
	}
	if !said(in, "webhook_secret") {
		problem("webhook_secret", "missing; expected the secret of the webhook: without one anybody could send deliveries")
	}
	token, id, key := said(in, "token"), said(in, "app_id"), said(in, "private_key")
	switch {
	case token && (id || key):
		problem("token", "there is an App too; expected a token, or an App's id and key")
	case !token && !id && !key:
		problem("token", "missing; expected a token, or an App's id and private key")
	case id && !key:
		problem("private_key", "missing; expected the App's private key beside its id")
	case key && !id:
		problem("app_id", "missing; expected the App's id beside its private key")
	}
}
