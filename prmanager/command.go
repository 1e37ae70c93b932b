package prmanager

import (
	"regexp"
	"slices"
	"strings"
)

// Command is one thing that a comment asks for.
type Command struct {
	Verb Verb `json:"verb"`
	// SHA is what follows /ok-to-test, if it is a full object name; empty where it is missing or anything else.
	SHA string `json:"sha,omitempty"`
}

// Verb is what a command wants.
type Verb string

// The verbs.
const (
	VerbApprove Verb = "approve" // /ok-to-test SHA
	VerbCancel  Verb = "cancel"  // /ok-to-test cancel
	VerbRetest  Verb = "retest"  // /retest
)

var (
	commandLine = regexp.MustCompile(`^ {0,3}/(ok-to-test|retest)(?:[ \t]+(\S+))?[ \t]*$`)
	fence       = regexp.MustCompile("^ {0,3}(`{3,}|~{3,})")
	// Blocks whose content is quoted or shown and not said. A block that does not end reaches to the end.
	rawBlock = regexp.MustCompile(`(?is)<(pre|code|blockquote|details|script|style|textarea)\b|<!--`)
)

// Commands reads the commands of a comment: each on a line of its own, outside of quotes, code and HTML blocks, at most
// one of each verb, in order. What might be quoted is taken for quoted, since a command that is not seen can be given
// again.
func Commands(comment string) []Command {
	var out []Command
	inFence, quoted := "", false
	for line := range strings.Lines(withoutRaw(comment)) {
		line = strings.TrimRight(line, "\r\n")
		if m := fence.FindStringSubmatch(line); m != nil {
			switch {
			case inFence == "":
				inFence = m[1]
				continue
			case strings.HasPrefix(m[1], inFence) && strings.Trim(line, " `~") == "":
				inFence = ""
				continue
			}
		}
		blank := strings.TrimSpace(line) == ""
		switch {
		case inFence != "":
			continue
		case strings.HasPrefix(strings.TrimLeft(line, " "), ">"):
			quoted = true // also the lines after it, up to an empty one: Markdown counts them in
		case blank:
			quoted = false
		}
		if quoted || blank {
			continue
		}
		m := commandLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		spoken := m[2]
		c := Command{Verb: VerbRetest}
		switch {
		case m[1] == "ok-to-test" && spoken == "cancel":
			c.Verb = VerbCancel
		case m[1] == "ok-to-test":
			c.Verb = VerbApprove
			if isSHA(spoken) {
				c.SHA = spoken
			}
		case spoken != "":
			continue // /retest takes nothing
		}
		if !slices.ContainsFunc(out, func(o Command) bool { return o.Verb == c.Verb }) {
			out = append(out, c)
		}
	}
	return out
}

// withoutRaw blanks out HTML blocks, keeping the lines around them apart.
func withoutRaw(s string) string {
	var b strings.Builder
	for {
		at := rawBlock.FindStringSubmatchIndex(s)
		if at == nil {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:at[0]])
		b.WriteString("<>") // what follows on the line is not at its beginning
		end := "-->"
		if at[2] >= 0 {
			end = "</" + strings.ToLower(s[at[2]:at[3]])
		}
		rest := s[at[1]:]
		i := strings.Index(strings.ToLower(rest), end)
		if i < 0 {
			return b.String()
		}
		s = rest[i+len(end):]
	}
}
