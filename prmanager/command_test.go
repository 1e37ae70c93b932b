package prmanager

import (
	"slices"
	"strings"
	"testing"
)

func TestCommands(t *testing.T) {
	sha := strings.Repeat("0123456789", 4)
	approve := Command{VerbApprove, sha}
	for name, c := range map[string]struct {
		text string
		want []Command
	}{
		"plain":                  {"/ok-to-test " + sha, []Command{approve}},
		"crlf and prose":         {"Looks fine.\r\n\r\n/ok-to-test " + sha + "\r\nthanks", []Command{approve}},
		"cancel":                 {"/ok-to-test cancel", []Command{{Verb: VerbCancel}}},
		"retest":                 {"/retest  ", []Command{{Verb: VerbRetest}}},
		"one of each verb":       {"/retest\n/retest\n/ok-to-test " + sha + "\n/ok-to-test", []Command{{Verb: VerbRetest}, approve}},
		"without a commit":       {"/ok-to-test", []Command{{Verb: VerbApprove}}},
		"short commit":           {"/ok-to-test " + sha[:12], []Command{{Verb: VerbApprove}}},
		"upper case":             {"/ok-to-test " + strings.Repeat("ABCDEF0123", 4), []Command{{Verb: VerbApprove}}},
		"in a sentence":          {"please /retest", nil},
		"with more behind":       {"/retest now", nil},
		"two words":              {"/ok-to-test " + sha + " please", nil},
		"quote":                  {"> /retest", nil},
		"lazy quote":             {"> he said\n/retest", nil},
		"after a quote":          {"> he said\n\n/retest", []Command{{Verb: VerbRetest}}},
		"fence":                  {"```\n/retest\n```\n", nil},
		"fence that never ends":  {"```\nx\n\n/retest", nil},
		"inner fence is shorter": {"````\n```\n/retest\n````\n/ok-to-test cancel", []Command{{Verb: VerbCancel}}},
		"other fence":            {"~~~\n```\n/retest\n~~~", nil},
		"indented code":          {"    /retest", nil},
		"tab":                    {"\t/retest", nil},
		"inline code":            {"`/retest`", nil},
		"html comment":           {"<!--\n/retest\n-->", nil},
		"html":                   {"<pre>\n/retest\n</pre>\n/ok-to-test cancel", []Command{{Verb: VerbCancel}}},
		"html that never ends":   {"<details>\n\n/retest", nil},
		"lone slash":             {"/", nil},
		"empty":                  {"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := Commands(c.text); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzCommands(f *testing.F) {
	f.Add("```\n/retest\n```\n> /ok-to-test cancel\n<pre>")
	f.Fuzz(func(t *testing.T, s string) {
		got := Commands(s)
		if len(got) > 3 {
			t.Errorf("%d commands", len(got))
		}
		for _, c := range got {
			if c.SHA != "" && !isSHA(c.SHA) {
				t.Errorf("commit %q", c.SHA)
			}
		}
		if len(Commands("<pre>"+s)) > 0 && !strings.Contains(strings.ToLower(s), "</pre") {
			t.Error("a command inside a block that never ends")
		}
	})
}
