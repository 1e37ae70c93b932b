package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// Problem is one thing wrong with the configuration, told so that it can be mended without reading our source.
type Problem struct {
	Where string // "signalbox.yaml:12", "environment" or "command line"
	Key   string // as the operator writes it there
	Text  string // what is wrong and what was expected; never a secret
}

func (p Problem) String() string {
	if p.Key == "" {
		return p.Where + ": " + p.Text
	}
	return p.Where + ": " + p.Key + ": " + p.Text
}

// Problems is everything wrong with a configuration, in the order it was read: never the first alone, because each
// start costs its operator a deploy.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (ps *Problems) add(where, key string, err error) {
	// A joined error is several problems of one key.
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			ps.add(where, key, e)
		}
		return
	}
	*ps = append(*ps, Problem{Where: where, Key: key, Text: err.Error()})
}

// place orders where a value can stand: the higher holds.
type place int

const (
	inFile place = iota
	inEnvironment
	onCommandLine
)

// given is a value as the operator wrote it, and where.
type given struct {
	place      place
	where, key string
	values     []string
	list       bool // written as a list; where it is not, a list key is split at its commas
}

// section is a mapping of the file: its values by key.
type section struct {
	place       place
	where, name string
	keys        map[string]given
	inner       map[string]*yaml.Node // what has keys of its own
	secrets     map[string]given      // of a repository: keys that the file chooses
}

func (s section) get(key string) (given, bool) { g, ok := s.keys[key]; return g, ok }

// say puts a value over what stood there.
func (s *section) say(key string, g given) {
	if s.keys == nil {
		s.keys = map[string]given{}
	}
	s.keys[key] = g
}

// file is a configuration file as written: nothing parsed yet, but no unknown key in it.
type file struct {
	top          section
	gate         section
	forges       []*section // by order of the file, as are the repositories
	repositories []*section
}

// topKeys, gateKeyNames and forgeKeys are every key there is. Those of the top and of a gate are also a variable,
// SIGNALBOX_ and the key in capitals; those of a forge that is named after its kind too, with that between.
func topKeys() []string {
	return []string{
		"listen", "store", "allow_ephemeral", "repos", "dry_run", "adopt", "url", "admin_token", "admin_token_file",
		"secret_key", "secret_key_file", "lock_ttl", "sweep", "log", "log_format", "http_trigger_secret", "http_trigger_secret_file",
		"http_trigger_private", "alert_url", "alert_secret", "alert_secret_file", "alert_wait",
	}
}

func gateKeyNames() []string {
	return []string{"label", "check", "presubmit", "trust", "auto", "hold", "trigger"}
}

func forgeKeys(kind string) []string {
	if kind == kindGitLab {
		return []string{"url", "token", "token_file", "webhook_secret", "webhook_secret_file", "webhook_signing_token", "webhook_signing_token_file"}
	}
	return []string{"api_url", "token", "token_file", "app_id", "private_key", "private_key_file", "webhook_secret", "webhook_secret_file"}
}

// parseFile reads a YAML document into sections. What it cannot place becomes a problem, and the rest is read on; ok is
// false where the text is no YAML, so that nothing is known of what it says.
func parseFile(name string, text []byte, ps *Problems) (f file, ok bool) {
	r := fileReader{name: name, problems: ps}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var doc, second yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return f, true // an empty file says nothing
	case err != nil:
		where, text := name, strings.TrimPrefix(err.Error(), "yaml: ")
		if line, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok && text != line+": "+rest {
			where, text = name+":"+line, rest
		}
		ps.add(where, "", fmt.Errorf("not YAML: %s", text))
		return f, false
	}
	if err := dec.Decode(&second); !errors.Is(err, io.EOF) {
		ps.add(name, "", errors.New("more than one YAML document; expected one"))
	}
	f.top = r.section(doc.Content[0], "", topKeys(), "gate", "forges", "repositories")
	if n := f.top.inner["gate"]; n != nil {
		f.gate = r.section(n, "gate", gateKeyNames())
	}
	f.forges = r.sections(f.top.inner["forges"], "forges", append(forgeKeys(kindGitHub), "kind", "url", "webhook_signing_token", "webhook_signing_token_file"))
	f.repositories = r.sections(f.top.inner["repositories"], "repositories", gateKeyNames(), "secrets")
	return f, true
}

type fileReader struct {
	name     string
	problems *Problems
}

func (r fileReader) at(n *yaml.Node) string { return fmt.Sprintf("%s:%d", r.name, n.Line) }

// entries are the pairs of a mapping, each key once.
func (r fileReader) entries(n *yaml.Node, name string) (out [][2]*yaml.Node) {
	seen := map[string]int{}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if line, twice := seen[key.Value]; twice {
			r.problems.add(r.at(key), joined(name, key.Value), fmt.Errorf("already said on line %d; expected once", line))
			continue
		}
		seen[key.Value] = key.Line
		out = append(out, [2]*yaml.Node{key, resolved(n.Content[i+1])})
	}
	return out
}

// resolved follows an alias to its anchor. An alias to an alias cannot be written.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

// section reads the leaves of one mapping, whose keys are the operator's own where none is known, and finds the inner ones.
func (r fileReader) section(n *yaml.Node, name string, known []string, inner ...string) section {
	s := section{where: r.at(n), name: name, keys: map[string]given{}, inner: map[string]*yaml.Node{}}
	all := strings.Join(slices.Concat(known, inner), ", ")
	if n.Kind != yaml.MappingNode {
		r.problems.add(r.at(n), name, errors.New("expected keys with values: "+all))
	}
	for _, e := range r.entries(n, name) {
		key, value := e[0].Value, e[1]
		switch path := joined(name, key); {
		case slices.Contains(inner, key):
			s.inner[key] = value
		case known != nil && !slices.Contains(known, key):
			r.problems.add(r.at(e[0]), path, errors.New("unknown key; expected one of "+all))
		default:
			if g, ok := r.leaf(value, path); ok {
				s.keys[key] = g
			}
		}
	}
	return s
}

// sections reads a mapping of names to sections, or nothing. Those of repositories may have "secrets" inside.
func (r fileReader) sections(n *yaml.Node, name string, known []string, inner ...string) (out []*section) {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.problems.add(r.at(n), name, errors.New("expected names with keys beneath each"))
	}
	for _, e := range r.entries(n, name) {
		path := joined(name, e[0].Value)
		s := r.section(e[1], path, known, inner...)
		if n := s.inner["secrets"]; n != nil {
			s.secrets = r.section(n, joined(path, "secrets"), nil).keys
		}
		s.where, s.name = r.at(e[0]), e[0].Value
		out = append(out, &s)
	}
	return out
}

// leaf reads a value: a scalar, or a list of scalars.
func (r fileReader) leaf(n *yaml.Node, path string) (given, bool) {
	g := given{where: r.at(n), key: path}
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items, g.list = n.Content, true
	}
	for _, item := range items {
		item = resolved(item)
		if item.Kind != yaml.ScalarNode || item.Tag == "!!null" || strings.TrimSpace(item.Value) == "" {
			r.problems.add(r.at(item), path, errors.New("no value; expected one, or no such line"))
			return g, false
		}
		g.values = append(g.values, strings.TrimSpace(item.Value))
	}
	return g, true
}

func joined(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
