package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/url"
	"strconv"
)

// members are the members of a request on their way to what they mean: each is taken by its name, and what nobody has
// taken is unknown. What is wrong with one is kept under its name, so that a client learns of all at once. Only kinds
// are judged here; what a text may say is the commit's to judge.
type members struct {
	raw     map[string]json.RawMessage
	lenient bool // numbers may be written as texts: forms and GitLab's clients do
	wrong   map[string]string
}

func newMembers(lenient bool) members {
	return members{raw: map[string]json.RawMessage{}, lenient: lenient, wrong: map[string]string{}}
}

// read takes the members of a JSON object; ok is false where it is none. Names count exactly, unlike with encoding/json.
func read(body []byte, lenient bool) (m members, ok bool) {
	m = newMembers(lenient)
	d := json.NewDecoder(bytes.NewReader(body))
	if err := d.Decode(&m.raw); err != nil || m.raw == nil {
		return m, false
	}
	_, err := d.Token()
	return m, err == io.EOF
}

// add takes the members of a form or query; the last value of a name counts, as with GitLab.
func (m *members) add(values url.Values) {
	for name, list := range values {
		if b, err := json.Marshal(list[len(list)-1]); err == nil {
			m.raw[name] = b
		}
	}
}

// take answers a member once; nil = it is not there. GitLab's clients write null for that.
func (m *members) take(name string) json.RawMessage {
	v := m.raw[name]
	delete(m.raw, name)
	if m.lenient && string(v) == "null" {
		return nil
	}
	return v
}

func (m *members) text(name string) (s string) {
	if v := m.take(name); v != nil && (v[0] != '"' || json.Unmarshal(v, &s) != nil) {
		m.wrong[name] = "expected a text"
	}
	return s
}

// number takes a whole number from 1; 0 = it is not there.
func (m *members) number(name string) int64 {
	v := m.take(name)
	if v == nil {
		return 0
	}
	n, err := strconv.ParseInt(m.bare(v), 10, 64)
	if err != nil || n < 1 {
		m.wrong[name] = "expected a whole number from 1"
		return 0
	}
	return n
}

// fraction takes any number; nil = it is not there.
func (m *members) fraction(name string) *float64 {
	v := m.take(name)
	if v == nil {
		return nil
	}
	f, err := strconv.ParseFloat(m.bare(v), 64)
	if err != nil {
		m.wrong[name] = "expected a number"
	}
	return &f
}

// flag takes a yes or no of a query; no = it is not there.
func (m *members) flag(name string) bool {
	switch v := m.take(name); m.bare(v) {
	case "true":
		return true
	case "", "false":
	default:
		m.wrong[name] = "expected true or false"
	}
	return false
}

// bare is a number or word as it is written, without the quotes of a text where those are allowed.
func (m *members) bare(v json.RawMessage) string {
	var s string
	if m.lenient && json.Unmarshal(v, &s) == nil {
		return s
	}
	return string(v)
}

// done is the problem of everything that is wrong, members that nobody has taken included.
func (m *members) done() error {
	for name := range m.raw {
		m.wrong[shortened(name)] = "is not known here"
	}
	return refused(m.wrong)
}

// shortened keeps what a client wrote from filling an answer.
func shortened(s string) string {
	if r := []rune(s); len(r) > 64 {
		return string(r[:64]) + "…"
	}
	return s
}
