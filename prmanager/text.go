package prmanager

import (
	"strings"

	"github.com/signalbox-ci/signalbox/forge"
)

// Everything that outsiders choose passes one of these functions before it stands in a text: a login keeps only what
// the forges allow in one, free text loses whatever Markdown or a terminal could act on, a SHA is hexadecimal.

// name writes a person for texts: "@login", sanitised; "someone" for a deleted account.
func name(a forge.Actor) string {
	login := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune("-_.[]", r):
			return r
		}
		return -1
	}, a.Login)
	if login == "" {
		return "someone"
	}
	return "@" + cut(login, 60)
}

// plain keeps what is harmless in Markdown, HTML, a terminal and a log line, at most n characters.
func plain(s string, n int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', strings.ContainsRune(" -_.,:;()/+='?!#%", r):
			return r
		}
		return '·'
	}, cut(s, 4*n))
	return cut(s, n)
}

// short is the SHA as people write it.
func short(sha string) string {
	if !isSHA(sha) {
		return "?"
	}
	return sha[:7]
}

// isSHA says whether s is a full object name, SHA-1 or SHA-256, in lower-case hexadecimal.
func isSHA(s string) bool {
	if len(s) != 40 && len(s) != 64 {
		return false
	}
	return strings.Trim(s, "0123456789abcdef") == ""
}

// cut shortens s to at most n bytes, ending in "…" where something was cut, never in the middle of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	end := 0
	for i, r := range s {
		if i+len(string(r)) > n-len("…") {
			break
		}
		end = i + len(string(r))
	}
	return s[:end] + "…"
}
