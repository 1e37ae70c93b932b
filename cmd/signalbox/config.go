package main

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
)

// Config is everything an operator has said, checked and with defaults filled in. It is plain data: building it does
// no I/O but reading the files it names (Settings.Resolve), and nothing changes it afterwards.
type Config struct {
	Listen string // address to listen on, "host:port"
	Store  Store
	// AllowEphemeral: a file: store is wanted even where the disk does not outlive the instance.
	AllowEphemeral bool
	Forges         []Forge // in order of Name; at least one after Resolve
	DryRun         bool    // look and decide, write nothing at a forge
	// Adopt: pull requests older than our first contact get a gate check at once instead of at their next event.
	Adopt      bool
	URL        string // where commands find a running server; empty = the socket, else the default port
	AdminToken Secret // unset = operator actions are off
	SecretKey  Secret // 32 raw bytes; unset = made once and kept in the store
	HTTPSecret Secret // "whsec_…", signs what goes to triggers of kind HTTP; set where there is one, after Resolve
	// HTTPPrivate lets triggers of kind HTTP, and alerts, speak to loopback and private addresses.
	HTTPPrivate bool
	LockTTL     time.Duration // how long a lease lasts without renewal
	Sweep       time.Duration // pause between two repairs
	AlertURL    string        // told when an alert fires or clears; empty = nobody is
	AlertSecret Secret        // "whsec_…", signs what goes there; set where AlertURL is, after Resolve
	AlertWait   time.Duration // how long a pull request may wait for an approval without an alert; 0 = for ever
	LogLevel    string        // debug, info, warn or error
	LogFormat   string        // json, console or gcp; empty = console on a terminal, else json

	repos     []pattern // allow-list; empty = every repository
	gate      gateKeys  // of every repository
	overrides []override
}

// Forge is one configured forge.
type Forge struct {
	Name   string // the instance: first part of every subject and of the webhook's path
	Kind   string // which adapter speaks to it: "github" or "gitlab"
	APIURL string // ends with "/"; of GitLab the address that people use
	// Token is set, or AppID and PrivateKey are.
	Token      Secret
	AppID      int64
	PrivateKey Secret // PEM, an RSA key that parses
	// WebhookSecrets has at least one entry, and none is empty: a delivery signed with any of them is genuine. On
	// GitLab it may be empty where SigningTokens is not.
	WebhookSecrets []Secret
	SigningTokens  []Secret // GitLab: "whsec_…"
}

// Gate is the policy of one repository.
type Gate struct {
	Label     string // the gate label; matched case-folded
	Check     string // name of the gate check
	Presubmit string // name of the presubmit check; see PresubmitName
	Trust     []forge.Rule
	Auto      []forge.Rule // whose pull requests run without asking; empty = everybody waits
	Hold      Hold
	Triggers  []Trigger // none = the gate works and starts nothing
}

// PresubmitName is the name of the check that shows the runs of one trigger: the plain name where there is one
// trigger, with the trigger's own name behind it where there are several.
func (g Gate) PresubmitName(t Trigger) string {
	if len(g.Triggers) < 2 {
		return g.Presubmit
	}
	return g.Presubmit + " / " + t.Name()
}

// Hold is how long after an untrusted push a label is too early to have meant it (docs/rules.md, Hold).
type Hold struct {
	For    time.Duration
	Strict bool // labels never grant where author or pusher is untrusted; elsewhere For holds
}

// Gate is the policy of repo: the gate of every repository, overlaid by each entry of "repositories" that matches its
// name, from the widest pattern to the narrowest. Its triggers are those that count at the repository's forge: how many
// they are decides what its checks are called (PresubmitName).
//
// Lookup is by the name last seen. Someone who can rename a repository can thereby move it under another entry; that
// takes an administrator of the repository.
func (c Config) Gate(repo forge.Repo) Gate {
	keys := c.gate
	for _, o := range c.overrides {
		if o.match(repo.Instance, repo.Name) {
			keys = keys.overlaid(o.keys)
		}
	}
	g := keys.gate()
	g.Triggers = slices.DeleteFunc(slices.Clone(g.Triggers), func(t Trigger) bool { return !c.fits(repo.Instance, t) })
	return g
}

// JobSecrets are what jobs on runners may ask for by name in repo: those of each entry of "repositories" that matches,
// the narrower entry's where two have the name. There are none for every repository.
func (c Config) JobSecrets(repo forge.Repo) map[string]string {
	out := map[string]string{}
	for _, o := range c.overrides {
		if o.match(repo.Instance, repo.Name) {
			for name, v := range o.secrets {
				out[name] = v.Reveal()
			}
		}
	}
	return out
}

// Triggers are all that any repository's gate names, each once.
func (c Config) Triggers() []Trigger {
	out := slices.Clone(or(c.gate.triggers, nil))
	for _, o := range c.overrides {
		for _, t := range or(o.keys.triggers, nil) {
			if !slices.Contains(out, t) {
				out = append(out, t)
			}
		}
	}
	return out
}

// runsJobs says whether any gate starts its presubmits on runners.
func (c Config) runsJobs() bool {
	return slices.ContainsFunc(c.Triggers(), func(t Trigger) bool { return t.Kind == Runner })
}

// Allowed says whether repo is on the allow-list; without a list every repository is.
func (c Config) Allowed(repo forge.Repo) bool {
	return len(c.repos) == 0 || slices.ContainsFunc(c.repos, func(p pattern) bool { return p.match(repo.Instance, repo.Name) })
}

// named are the repositories of the allow-list that one entry names in full, and whether there are other entries.
func (c Config) named(instance string) (names []string, wild bool) {
	for _, p := range c.repos {
		switch {
		case p.instance != "" && p.instance != instance:
		case p.prefix:
			wild = true
		default:
			names = append(names, p.name)
		}
	}
	return names, wild
}

// gateKeys is what one place says of a gate; nil = nothing said there.
type gateKeys struct {
	label, check, presubmit *string
	trust, auto             *[]forge.Rule
	hold                    *Hold
	triggers                *[]Trigger
}

// override is an entry of "repositories". Config keeps them from the widest to the narrowest.
type override struct {
	pattern
	keys    gateKeys
	secrets map[string]Secret
}

func (k gateKeys) overlaid(by gateKeys) gateKeys {
	return gateKeys{
		label: cmp.Or(by.label, k.label), check: cmp.Or(by.check, k.check), presubmit: cmp.Or(by.presubmit, k.presubmit),
		trust: cmp.Or(by.trust, k.trust), auto: cmp.Or(by.auto, k.auto), hold: cmp.Or(by.hold, k.hold), triggers: cmp.Or(by.triggers, k.triggers),
	}
}

func or[T any](p *T, otherwise T) T {
	if p != nil {
		return *p
	}
	return otherwise
}

// gate fills in the defaults that the README lists. Auto follows Trust of the same repository unless something was said.
func (k gateKeys) gate() Gate {
	g := Gate{
		Label:     or(k.label, "CICD"),
		Check:     or(k.check, "CI gate"),
		Presubmit: or(k.presubmit, "presubmit"),
		Trust:     or(k.trust, []forge.Rule{{Kind: "permission", Value: "write"}}),
		Hold:      or(k.hold, Hold{For: defaultHold}),
		Triggers:  or(k.triggers, nil),
	}
	g.Auto = or(k.auto, g.Trust)
	return g
}

const defaultHold = 2 * time.Minute

// pattern names repositories: OWNER/REPO, or OWNER/* for all beneath an owner (on GitLab that includes subgroups),
// of one instance or of all.
type pattern struct {
	instance string // empty = every instance
	name     string // lower case; of OWNER/* it is "owner/"
	prefix   bool
}

func (p pattern) match(instance, name string) bool {
	name = strings.ToLower(name)
	return (p.instance == "" || p.instance == instance) && (name == p.name || p.prefix && strings.HasPrefix(name, p.name))
}

// narrower orders patterns that match the same repository: more of the name first, then the one that says the instance.
func (p pattern) narrower(q pattern) int {
	return cmp.Or(len(p.name)-len(q.name), len(p.instance)-len(q.instance))
}
