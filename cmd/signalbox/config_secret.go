package main

import (
	"fmt"
	"io"
	"net/url"
)

// Secret is a value that is used and never shown: however it is printed, logged or encoded, "[secret]" comes out
// (nothing, if it is unset). The text hides behind a pointer, because fmt reads an unexported field of a surrounding
// struct without asking its methods.
type Secret struct{ text *string }

// NewSecret hides text; the empty text is an unset secret.
func NewSecret(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal is the text itself, for the one place that uses it.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Set says whether there is a secret.
func (s Secret) Set() bool { return s.text != nil }

// String never reveals.
func (s Secret) String() string {
	if s.text == nil {
		return ""
	}
	return "[secret]"
}

// Format never reveals, whatever the verb.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText never reveals; encoding/json and YAML use it.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Store says where subjects are kept. A URL may carry a password, so that it prints without one.
type Store struct {
	Scheme  string // file, redis, rediss, redis-cluster, rediss-cluster or redis-sentinel
	Path    string // of scheme file: where the database is
	address Secret
}

// Reveal is the address as configured, password included.
func (s Store) Reveal() string { return s.address.Reveal() }

// String is the address without its password.
func (s Store) String() string {
	if s.Scheme == "file" {
		return "file:" + s.Path
	}
	return redacted(s.address.Reveal())
}

// Format prints like String, whatever the verb.
func (s Store) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// MarshalText encodes like String.
func (s Store) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// redacted cuts user and query out of a URL, the two places where passwords stand, and shows nothing of what is no URL.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "[secret]"
	}
	if u.User != nil {
		u.User = url.User("secret")
	}
	if u.RawQuery != "" {
		u.RawQuery = "secret"
	}
	return u.String()
}
