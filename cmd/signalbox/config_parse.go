package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v4"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/gitlab"
	"github.com/signalbox-ci/signalbox/forge/httptrigger"
	"github.com/signalbox-ci/signalbox/runner"
)

// The functions here read one value each. Their errors end in what was expected; they quote the value, except where
// it is a secret.

// TriggerKind is a way of starting presubmits (docs/recipes).
type TriggerKind string

// The kinds of trigger.
const (
	ActionsApproval    TriggerKind = "actions_approval"
	Workflow           TriggerKind = "workflow"
	RepositoryDispatch TriggerKind = "repository_dispatch"
	HTTP               TriggerKind = "http"
	GitLabPipeline     TriggerKind = "gitlab_pipeline"
	Runner             TriggerKind = "runner"
)

// Trigger is one entry of SIGNALBOX_TRIGGER.
type Trigger struct {
	Kind TriggerKind
	File string // Workflow: name of the file beneath .github/workflows
	Ref  string // Workflow: branch or tag it is dispatched on
	URL  string // HTTP: where the request goes
}

// Name is the trigger in the name of its check: its kind, or what tells it apart from others of that kind. It never
// contains a path or query of a URL.
func (t Trigger) Name() string {
	switch t.Kind {
	case Workflow:
		return t.File
	case HTTP:
		if u, err := url.Parse(t.URL); err == nil {
			return u.Host
		}
	default:
	}
	return string(t.Kind)
}

// String is the trigger as it is configured: what tells it apart from every other.
func (t Trigger) String() string {
	switch t.Kind {
	case Workflow:
		return string(t.Kind) + ":" + t.File + "@" + t.Ref
	case HTTP:
		return string(t.Kind) + ":" + t.URL
	default:
		return string(t.Kind)
	}
}

func parseTrigger(v string) (Trigger, error) {
	kind, rest, _ := strings.Cut(v, ":")
	switch TriggerKind(kind) {
	case ActionsApproval, RepositoryDispatch, GitLabPipeline, Runner:
		if v != kind {
			return Trigger{}, fmt.Errorf("%s takes nothing behind it, but found %s", kind, quote(v))
		}
		return Trigger{Kind: TriggerKind(kind)}, nil
	case Workflow:
		file, ref, _ := strings.Cut(rest, "@")
		if ext := path.Ext(file); ext != ".yml" && ext != ".yaml" || path.Base(file) != file {
			return Trigger{}, fmt.Errorf("%s names no workflow file; expected workflow:FILE@REF, FILE like presubmit.yml without a folder", quote(v))
		}
		if ref == "" || strings.ContainsFunc(ref, notInRef) || strings.HasPrefix(ref, "-") || strings.Contains(ref, "..") {
			return Trigger{}, fmt.Errorf("%s names no branch to run on; expected workflow:FILE@REF, REF a protected branch like signalbox-presubmit", quote(v))
		}
		return Trigger{Kind: Workflow, File: file, Ref: ref}, nil
	case HTTP:
		if err := checkURL(rest); err != nil {
			return Trigger{}, fmt.Errorf("%w; expected http:URL like http:https://ci.example.org/start", err)
		}
		return Trigger{Kind: HTTP, URL: rest}, nil
	}
	return Trigger{}, fmt.Errorf("%s is no trigger; expected actions_approval, workflow:FILE@REF, repository_dispatch, gitlab_pipeline, runner or http:URL", quote(v))
}

// notInRef is what git refuses in the name of a ref.
func notInRef(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune(`~^:?*[\`, r)
}

// parseTriggers refuses two triggers that would write the same check.
func parseTriggers(vs []string) ([]Trigger, error) {
	ts, err := each(parseTrigger)(vs)
	names := map[string]bool{}
	for _, t := range ts {
		if names[t.Name()] {
			return nil, errors.Join(err, fmt.Errorf("two triggers would both write the check %s; expected each file, host or kind once", quote(t.Name())))
		}
		names[t.Name()] = true
	}
	return ts, err
}

// Names of owners, repositories, logins and slugs as forges have them; a bot's login may end in [bot]. The name of a
// forge stands in paths, keys and references, so that it is short and plain.
const (
	aName      = `[\w.-]*[\w-][\w.-]*(?:\[bot\])?`
	anInstance = `[a-z0-9][a-z0-9-]{0,31}`
)

var (
	instanceForm = regexp.MustCompile(`^` + anInstance + `$`)
	patternForm  = regexp.MustCompile(`^(?:(` + anInstance + `):)?((?:` + aName + `/)+)(` + aName + `|\*)$`)
	// GitLab's groups nest.
	ruleForm = regexp.MustCompile(`^(?:permission:(?:write|maintain)|team:` + aName + `(?:/` + aName + `)+|(?:user|app):` + aName + `)$`)
)

func parseRule(v string) (forge.Rule, error) {
	kind, value, _ := strings.Cut(v, ":")
	if !ruleForm.MatchString(v) {
		return forge.Rule{}, fmt.Errorf("%s is no rule of trust; expected permission:write, permission:maintain, team:ORG/SLUG, user:LOGIN or app:SLUG", quote(v))
	}
	return forge.Rule{Kind: kind, Value: value}, nil
}

// parseAuto reads rules of trust, but "none" alone is the empty list.
func parseAuto(vs []string) ([]forge.Rule, error) {
	if len(vs) == 1 && vs[0] == "none" {
		return []forge.Rule{}, nil
	}
	if slices.Contains(vs, "none") {
		return nil, errors.New("none stands among other rules; expected none alone, or rules")
	}
	return each(parseRule)(vs)
}

func parseHold(v string) (Hold, error) {
	if v == "strict" {
		return Hold{For: defaultHold, Strict: true}, nil
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 {
		return Hold{}, fmt.Errorf("%s is no time to hold; expected a duration like 2m, 0s for none, or strict", quote(v))
	}
	return Hold{For: d}, nil
}

func parsePattern(v string) (pattern, error) {
	m := patternForm.FindStringSubmatch(v)
	if m == nil {
		return pattern{}, fmt.Errorf("%s names no repository; expected OWNER/REPO or OWNER/*, in front of it INSTANCE: if it is meant for one forge only", quote(v))
	}
	name, all := strings.CutSuffix(strings.ToLower(m[2]+m[3]), "*")
	return pattern{instance: m[1], name: name, prefix: all}, nil
}

// parseName reads a name that people see; a is what it is of.
func parseName(a string, longest int) func(string) (string, error) {
	return func(v string) (string, error) {
		if v == "" || utf8.RuneCountInString(v) > longest || strings.ContainsFunc(v, unicode.IsControl) || strings.TrimSpace(v) != v {
			return "", fmt.Errorf("%s cannot be %s; expected 1 to %d characters", quote(v), a, longest)
		}
		return v, nil
	}
}

// parseDuration reads a duration within bounds, both allowed.
func parseDuration(least, most time.Duration, like string) func(string) (time.Duration, error) {
	return func(v string) (time.Duration, error) {
		d, err := time.ParseDuration(v)
		if err != nil {
			return 0, fmt.Errorf("%s is no duration; expected a number with its unit, like %s", quote(v), like)
		}
		if d < least || d > most {
			return 0, fmt.Errorf("%s is out of bounds; expected %s to %s", quote(v), least, most)
		}
		return d, nil
	}
}

func parseBool(v string) (bool, error) {
	switch strings.ToLower(v) {
	case "1", "true", "on", "yes":
		return true, nil
	case "0", "false", "off", "no":
		return false, nil
	}
	return false, fmt.Errorf("%s is neither yes nor no; expected true or false (also on, off, yes, no, 1, 0)", quote(v))
}

func parseOneOf(allowed ...string) func(string) (string, error) {
	return func(v string) (string, error) {
		if slices.Contains(allowed, v) {
			return v, nil
		}
		return "", fmt.Errorf("%s is none of them; expected %s", quote(v), strings.Join(allowed, ", "))
	}
}

func parseListen(v string) (string, error) {
	host, port, err := net.SplitHostPort(v)
	if n, nerr := strconv.Atoi(port); err != nil || nerr != nil || n < 0 || n > 65535 || strings.ContainsFunc(host, unicode.IsSpace) {
		return "", fmt.Errorf("%s is no address to listen on; expected HOST:PORT or :PORT", quote(v))
	}
	return v, nil
}

func parsePort(v string) (string, error) {
	if n, err := strconv.Atoi(v); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("%s is no port; expected 1 to 65535", quote(v))
	}
	return ":" + v, nil
}

func parseStore(v string) (Store, error) {
	const want = "expected file:PATH, redis://HOST:PORT, rediss://…, redis-cluster://…, rediss-cluster://… or redis-sentinel://…"
	schemes := []string{"file", "redis", "rediss", "redis-cluster", "rediss-cluster", "redis-sentinel"}
	scheme, rest, found := strings.Cut(v, ":")
	if !found || !slices.Contains(schemes, scheme) {
		// The rest may hold a password: only the scheme is quoted, and only where there is one.
		if !found {
			return Store{}, errors.New("no scheme; " + want)
		}
		return Store{}, fmt.Errorf("unknown scheme %s; %s", quote(scheme), want)
	}
	if scheme == "file" {
		if strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///") {
			return Store{}, fmt.Errorf("%s names a host; expected file:PATH, like file:./signalbox.db", quote(v))
		}
		if rest = strings.TrimPrefix(rest, "//"); rest == "" || strings.HasSuffix(rest, "/") {
			return Store{}, fmt.Errorf("%s names no file; expected file:PATH, like file:./signalbox.db", quote(v))
		}
		return Store{Scheme: scheme, Path: rest, address: NewSecret(v)}, nil
	}
	// Neither the address nor the error of url.Parse is shown: both hold the password.
	if u, err := url.Parse(v); err != nil || u.Host == "" {
		return Store{}, fmt.Errorf("%s: without a host, or its password is not percent-encoded; %s", scheme, want)
	}
	return Store{Scheme: scheme, address: NewSecret(v)}, nil
}

// checkURL accepts absolute http and https URLs without user and password.
func checkURL(v string) error {
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return errors.New("not a URL")
	case u.User != nil:
		return errors.New("a URL with a user or password in it")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Fragment != "":
		return fmt.Errorf("%s is no absolute http or https URL", quote(v))
	}
	return nil
}

func parseURL(like string) func(string) (string, error) {
	return func(v string) (string, error) {
		if err := checkURL(v); err != nil {
			return "", fmt.Errorf("%w; expected one like %s", err, like)
		}
		return v, nil
	}
}

func parseAppID(v string) (int64, error) {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("%s is no App id; expected the number on the App's settings page", quote(v))
	}
	return n, nil
}

func parsePrivateKey(v string) (Secret, error) {
	if _, err := jwt.ParseRSAPrivateKeyFromPEM([]byte(v)); err != nil {
		return Secret{}, errors.New("not a PEM private key; expected the .pem file that GitHub made for the App (RSA)")
	}
	return NewSecret(v), nil
}

func parseSecretKey(v string) (Secret, error) {
	const size = 32
	b, err := base64.StdEncoding.DecodeString(v)
	if err != nil || len(b) != size {
		return Secret{}, fmt.Errorf("not a key; expected %d bytes in base64, as printed by: openssl rand -base64 %d", size, size)
	}
	return NewSecret(string(b)), nil
}

func parseHTTPSecret(v string) (Secret, error) {
	if _, err := httptrigger.ParseSecret(v); err != nil {
		return Secret{}, err
	}
	return NewSecret(v), nil
}

func parseSecret(v string) (Secret, error) {
	if strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return Secret{}, errors.New("a space or line break within it; expected one word")
	}
	return NewSecret(v), nil
}

// parseJobSecret takes text of several lines too, a key for example.
func parseJobSecret(v string) (Secret, error) {
	const most = 48 << 10
	if len(v) < runner.MinSecret || len(v) > most || strings.ContainsRune(v, 0) || !utf8.ValidString(v) {
		return Secret{}, fmt.Errorf("not a secret for jobs; expected text of %d bytes to 48 KiB (a shorter one could not be masked in logs)", runner.MinSecret)
	}
	return NewSecret(v), nil
}

func parseSigningToken(v string) (Secret, error) {
	if _, err := gitlab.SigningKey(v); err != nil {
		return Secret{}, errors.New("not a signing token; expected whsec_ and a key in base64, as GitLab shows it once")
	}
	return NewSecret(v), nil
}

// each reads every entry and joins the errors of those it cannot.
func each[T any](parse func(string) (T, error)) func([]string) ([]T, error) {
	return func(vs []string) (out []T, err error) {
		for _, v := range vs {
			t, bad := parse(v)
			if bad == nil {
				out = append(out, t)
			}
			err = errors.Join(err, bad)
		}
		return out, err
	}
}

// quote shows a value in a message, cut so that a mistaken paste of a whole file does not fill the terminal.
func quote(v string) string {
	const most = 80
	if len(v) > most {
		return strconv.Quote(strings.ToValidUTF8(v[:most], "")) + "…"
	}
	return strconv.Quote(v)
}
