package runner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// File is where a repository defines its presubmit. It is read from the tip of the pull request's base branch, so that
// a pull request never changes the check that gates it.
const File = ".signalbox/presubmit.yaml"

// Limits of a definition.
const (
	maxFile        = 256 << 10
	maxJobs        = 64 // of one file, after its matrices
	maxSteps       = 100
	maxName        = 150 // of a job, with the values of its matrix: what its check is called must tell it from all others
	defaultTimeout = time.Hour
	maxTimeout     = 24 * time.Hour
)

// JobSpec is one job of a presubmit, its matrix resolved.
type JobSpec struct {
	Name      string            `json:"name"`
	RunsOn    []string          `json:"runs_on"` // a runner needs all of these labels
	Timeout   time.Duration     `json:"timeout"`
	RetrySafe bool              `json:"retry_safe,omitempty"` // may run again when its runner was lost
	Env       map[string]string `json:"env,omitempty"`
	Secrets   []string          `json:"secrets,omitempty"` // names; each step has the value in the variable of that name
	Steps     []StepSpec        `json:"steps"`
}

// StepSpec is one script of a job, run by bash in the checkout.
type StepSpec struct {
	Name string `json:"name,omitempty"`
	Run  string `json:"run"`
}

var (
	labelForm  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$`)
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_. -]{0,62}$`)
	secretForm = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,127}$`)
	envForm    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)
)

// at is an error with its place.
func at(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", File, n.Line, fmt.Errorf(format, args...))
}

// ParsePresubmit reads a definition; has says which secrets the repository has. Errors name file, line and reason; they
// are meant for the author.
func ParsePresubmit(text []byte, has func(secret string) bool) ([]JobSpec, error) {
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s: larger than %d KiB", File, maxFile>>10)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:1: the file is empty: expected jobs", File)
	} else if err != nil {
		return nil, fmt.Errorf("%s: %s", File, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: expected one document, found another", File)
	}
	if err := plain(&doc); err != nil {
		return nil, err
	}
	var list *yaml.Node
	if err := fields(doc.Content[0], "a mapping with jobs", map[string]func(*yaml.Node) error{
		"jobs": func(n *yaml.Node) error { list = n; return nil },
	}); err != nil {
		return nil, err
	}
	if list == nil || list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		return nil, at(doc.Content[0], "expected jobs, a list of at least one job")
	}
	var jobs []JobSpec
	for _, n := range list.Content {
		more, err := parseJob(n, has)
		if err != nil {
			return nil, err
		}
		for _, j := range more {
			if slices.ContainsFunc(jobs, func(o JobSpec) bool { return o.Name == j.Name }) {
				return nil, at(n, "a second job is named %q", j.Name)
			}
			jobs = append(jobs, j)
		}
		if len(jobs) > maxJobs {
			return nil, at(n, "more than %d jobs, counting each combination of a matrix", maxJobs)
		}
	}
	return jobs, nil
}

// plain refuses what makes a small file large or hard to read.
func plain(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return at(n, "anchors and aliases are not supported")
	}
	for _, c := range n.Content {
		if err := plain(c); err != nil {
			return err
		}
	}
	return nil
}

// fields hands each value of a mapping to the function for its key. A key that has none is an error.
func fields(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return at(n, "expected %s", what)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		f, ok := known[k.Value]
		switch {
		case !ok:
			var all []string
			for name := range known {
				all = append(all, name)
			}
			slices.Sort(all)
			return at(k, "unknown key %q: expected one of %s", k.Value, strings.Join(all, ", "))
		case seen[k.Value]:
			return at(k, "%s is given twice", k.Value)
		}
		seen[k.Value] = true
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// axis is one list of a matrix.
type axis struct {
	name   string
	values []string
}

func parseJob(n *yaml.Node, has func(secret string) bool) ([]JobSpec, error) {
	j := JobSpec{Timeout: defaultTimeout, Env: map[string]string{}}
	var axes []axis
	err := fields(n, "a job: a mapping with name, runs-on and steps", map[string]func(*yaml.Node) error{
		"name":    func(v *yaml.Node) error { return word(v, "name", nameForm, &j.Name) },
		"runs-on": func(v *yaml.Node) error { return labels(v, &j.RunsOn) },
		"timeout": func(v *yaml.Node) error {
			d, err := time.ParseDuration(v.Value)
			if v.Kind != yaml.ScalarNode || err != nil || d < time.Second || d > maxTimeout {
				return at(v, "timeout: expected a duration like 30m, from 1s to 24h")
			}
			j.Timeout = d
			return nil
		},
		"retry-safe": func(v *yaml.Node) error {
			if v.Decode(&j.RetrySafe) != nil || v.Tag != "!!bool" {
				return at(v, "retry-safe: expected true or false")
			}
			return nil
		},
		"env":     func(v *yaml.Node) error { return env(v, j.Env) },
		"secrets": func(v *yaml.Node) error { return secrets(v, has, &j.Secrets) },
		"matrix":  func(v *yaml.Node) (err error) { axes, err = matrix(v); return err },
		"steps":   func(v *yaml.Node) error { return steps(v, &j.Steps) },
	})
	switch {
	case err != nil:
		return nil, err
	case j.Name == "":
		return nil, at(n, "the job has no name")
	case len(j.RunsOn) == 0:
		return nil, at(n, "job %q has no runs-on: name the label of the runners it is for", j.Name)
	case len(j.Steps) == 0:
		return nil, at(n, "job %q has no steps", j.Name)
	}
	return combine(n, j, axes)
}

// combine makes a job for each combination of a matrix. Values reach the scripts as MATRIX_<NAME>.
func combine(n *yaml.Node, j JobSpec, axes []axis) ([]JobSpec, error) {
	type pick struct {
		words []string
		env   map[string]string
	}
	picks := []pick{{env: j.Env}}
	for _, a := range axes {
		var next []pick
		for _, p := range picks {
			for _, v := range a.values {
				e := map[string]string{"MATRIX_" + strings.ToUpper(strings.ReplaceAll(a.name, "-", "_")): v}
				for k, v := range p.env {
					if _, ok := e[k]; ok {
						return nil, at(n, "env sets %s, which the matrix of job %q sets", k, j.Name)
					}
					e[k] = v
				}
				next = append(next, pick{append(slices.Clone(p.words), v), e})
			}
		}
		if picks = next; len(picks) > maxJobs {
			return nil, at(n, "the matrix of job %q has more than %d combinations", j.Name, maxJobs)
		}
	}
	var out []JobSpec
	for _, p := range picks {
		for _, name := range j.Secrets {
			if _, ok := p.env[name]; ok {
				return nil, at(n, "job %q has %s as a secret and in env or matrix", j.Name, name)
			}
		}
		one := j
		one.Env = p.env
		if len(p.words) > 0 {
			one.Name = fmt.Sprintf("%s (%s)", j.Name, strings.Join(p.words, ", "))
		}
		if len(one.Name) > maxName {
			return nil, at(n, "the name %.40q… is longer than %d characters with the values of its matrix", one.Name, maxName)
		}
		out = append(out, one)
	}
	return out, nil
}

func word(n *yaml.Node, what string, form *regexp.Regexp, to *string) error {
	if n.Kind != yaml.ScalarNode || !form.MatchString(n.Value) {
		return at(n, "%s: expected a short word of letters, digits, and . _ -", what)
	}
	*to = n.Value
	return nil
}

func labels(n *yaml.Node, to *[]string) error {
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = n.Content
	}
	for _, l := range list {
		var s string
		if err := word(l, "runs-on", labelForm, &s); err != nil {
			return err
		}
		*to = append(*to, s)
	}
	return nil
}

// text takes a scalar that the runner must not evaluate: what is written is what runs.
func text(n *yaml.Node, what string, to *string) error {
	switch {
	case n.Kind != yaml.ScalarNode:
		return at(n, "%s: expected text", what)
	case strings.Contains(n.Value, "${{"):
		return at(n, "%s: ${{ … }} is not evaluated here: use an environment variable, like $MATRIX_GO", what)
	case strings.ContainsRune(n.Value, 0):
		return at(n, "%s: contains a zero byte", what)
	}
	*to = n.Value
	return nil
}

func env(n *yaml.Node, to map[string]string) error {
	if n.Kind != yaml.MappingNode {
		return at(n, "env: expected a mapping of names to values")
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		var v string
		if !envForm.MatchString(k.Value) {
			return at(k, "env: %q is no name of a variable", k.Value)
		}
		if own := reserved(k.Value); own != "" {
			return at(k, "env: names that begin with %s are set by the runner", own)
		}
		if _, twice := to[k.Value]; twice {
			return at(k, "env: %s is given twice", k.Value)
		}
		if err := text(n.Content[i+1], "env: "+k.Value, &v); err != nil {
			return err
		}
		to[k.Value] = v
	}
	return nil
}

func secrets(n *yaml.Node, has func(string) bool, to *[]string) error {
	if n.Kind != yaml.SequenceNode {
		return at(n, "secrets: expected a list of names")
	}
	for _, c := range n.Content {
		switch {
		case c.Kind != yaml.ScalarNode || !SecretName(c.Value) || !has(c.Value):
			return at(c, "secrets: this repository has no secret %.40q; the operator of Signalbox gives it one", c.Value)
		case slices.Contains(*to, c.Value):
			return at(c, "secrets: %s is named twice", c.Value)
		}
		*to = append(*to, c.Value)
	}
	return nil
}

// SecretName says whether a secret may have this name: that of a variable in capitals, and none that runners set.
func SecretName(s string) bool { return secretForm.MatchString(s) && reserved(s) == "" }

// reserved is the beginning of a name that the runner sets itself; empty = none.
func reserved(name string) string {
	for _, own := range []string{"SIGNALBOX_", "GITHUB_", "GITEA_", "FORGEJO_", "RUNNER_", "ACTIONS_"} {
		if strings.HasPrefix(strings.ToUpper(name), own) {
			return own
		}
	}
	return ""
}

func matrix(n *yaml.Node) ([]axis, error) {
	if n.Kind != yaml.MappingNode {
		return nil, at(n, "matrix: expected a mapping of names to lists")
	}
	var out []axis
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, list := n.Content[i], n.Content[i+1]
		a := axis{}
		if err := word(k, "matrix", labelForm, &a.name); err != nil {
			return nil, err
		}
		if !envForm.MatchString("M_"+strings.ReplaceAll(a.name, "-", "_")) || slices.ContainsFunc(out, func(o axis) bool { return strings.EqualFold(o.name, a.name) }) {
			return nil, at(k, "matrix: %q is no name of a variable, or is given twice", k.Value)
		}
		if list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
			return nil, at(list, "matrix: %s: expected a list of values", a.name)
		}
		for _, v := range list.Content {
			var s string
			if err := word(v, "matrix: "+a.name, nameForm, &s); err != nil {
				return nil, err
			}
			if slices.Contains(a.values, s) {
				return nil, at(v, "matrix: %s: %q is given twice", a.name, s)
			}
			a.values = append(a.values, s)
		}
		out = append(out, a)
	}
	return out, nil
}

func steps(n *yaml.Node, to *[]StepSpec) error {
	if n.Kind != yaml.SequenceNode || len(n.Content) > maxSteps {
		return at(n, "steps: expected a list of at most %d steps", maxSteps)
	}
	for _, c := range n.Content {
		var s StepSpec
		if err := fields(c, "a step: a mapping with run", map[string]func(*yaml.Node) error{
			"name": func(v *yaml.Node) error { return text(v, "name", &s.Name) },
			"run":  func(v *yaml.Node) error { return text(v, "run", &s.Run) },
		}); err != nil {
			return err
		}
		if strings.TrimSpace(s.Run) == "" {
			return at(c, "the step has nothing to run")
		}
		*to = append(*to, s)
	}
	return nil
}
