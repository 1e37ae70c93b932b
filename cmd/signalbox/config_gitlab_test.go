package main

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
)

func TestGitLabFromTheEnvironment(t *testing.T) {
	c := resolve(t, Settings{}, []string{
		"SIGNALBOX_GITLAB_TOKEN=glpat-x", "SIGNALBOX_GITLAB_WEBHOOK_SECRET=a,b", "SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN=" + labSigning,
		"SIGNALBOX_GITLAB_URL=https://gitlab.example.org/git", "SIGNALBOX_TRIGGER=gitlab_pipeline",
	}, nil)
	if len(c.Forges) != 1 {
		t.Fatalf("forges: %+v", c.Forges)
	}
	f := c.Forges[0]
	if f.Name != "gitlab" || f.Kind != "gitlab" || f.APIURL != "https://gitlab.example.org/git/" || f.Token.Reveal() != "glpat-x" ||
		!slices.Equal(revealed(f.WebhookSecrets), []string{"a", "b"}) || !slices.Equal(revealed(f.SigningTokens), []string{labSigning}) {
		t.Errorf("forge: %+v", f)
	}
	if f := resolve(t, Settings{}, []string{"SIGNALBOX_GITLAB_TOKEN=x", "SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN=" + labSigning}, nil).Forges[0]; f.APIURL != "https://gitlab.com/" || len(f.WebhookSecrets) != 0 {
		t.Errorf("default: %+v", f)
	}
}

func TestBothForgesEachWithItsOwnTriggers(t *testing.T) {
	c := resolve(t, Settings{Config: "signalbox.yaml"}, []string{"SIGNALBOX_GITHUB_TOKEN=ghp_x", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=s"}, files{"signalbox.yaml": `
forges:
  work:
    kind: gitlab
    url: https://gitlab.example.org
    token: glpat-x
    webhook_signing_token: ` + labSigning + `
gate:
  trigger: [actions_approval, gitlab_pipeline]
`})
	w := wiring{cfg: c}
	for instance, want := range map[string]string{"github": "actions_approval", "work": "gitlab_pipeline"} {
		p := w.policy(forge.Repo{Instance: instance, ID: 1, Name: "octo/hello"})
		if len(p.Presubmits) != 1 || p.Presubmits[0].Trigger != want || !p.Presubmits[0].Native || p.Presubmits[0].Name != "presubmit" {
			t.Errorf("%s: %+v", instance, p.Presubmits)
		}
	}
}

// What clients of the status API may not write is what the gate of that forge writes, however they spell it: the triggers
// of another forge give its checks no other names.
func TestOurContexts(t *testing.T) {
	c := resolve(t, Settings{Config: "signalbox.yaml"}, []string{"SIGNALBOX_GITHUB_TOKEN=ghp_x", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=s"}, files{"signalbox.yaml": `
forges:
  work:
    kind: gitlab
    url: https://gitlab.example.org
    token: glpat-x
    webhook_signing_token: ` + labSigning + `
gate:
  trigger: [runner, gitlab_pipeline]
`})
	w := wiring{cfg: c}
	for _, x := range []struct {
		instance, context string
		want              bool
	}{
		{"github", "CI gate", true},
		{"github", "ci GATE", true},
		{"github", "presubmit", true},
		{"github", "presubmit / unit", true},
		{"github", "PRESUBMIT / unit", true},
		{"github", "pre\u017fubmit / unit", true}, // a letter that folds to an s, and is a byte longer
		{"github", "presubmit/unit", false},
		{"github", "presubmits / unit", false},
		{"github", "unit", false},
		{"work", "presubmit / gitlab_pipeline", true},
		{"work", "presubmit / runner", true},
		{"work", "presubmit / runner / unit", true},
		{"work", "presubmit / else", false},
	} {
		if got := w.ours(forge.Repo{Instance: x.instance, ID: 1, Name: "octo/hello"}, x.context); got != x.want {
			t.Errorf("%s: %q: %t", x.instance, x.context, got)
		}
	}
}

func TestGitLabRefused(t *testing.T) {
	base := []string{"SIGNALBOX_GITLAB_TOKEN=glpat-x", "SIGNALBOX_GITLAB_WEBHOOK_SECRET=s"}
	for name, c := range map[string]struct {
		env  []string
		want string
	}{
		"no token":              {[]string{"SIGNALBOX_GITLAB_WEBHOOK_SECRET=s"}, "environment: SIGNALBOX_GITLAB_TOKEN: missing"},
		"no secret":             {[]string{"SIGNALBOX_GITLAB_TOKEN=glpat-x"}, "environment: SIGNALBOX_GITLAB_WEBHOOK_SECRET: missing"},
		"no signing token":      {append([]string{"SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN=whsec_secret!"}, base...), "environment: SIGNALBOX_GITLAB_WEBHOOK_SIGNING_TOKEN: not a signing token"},
		"GitHub's key":          {append([]string{"SIGNALBOX_GITLAB_APP_ID=1"}, base...), "SIGNALBOX_GITLAB_APP_ID: unknown variable"},
		"GitHub's trigger":      {append([]string{"SIGNALBOX_TRIGGER=actions_approval"}, base...), `SIGNALBOX_TRIGGER: "actions_approval" starts nothing, since no forge of kind github is configured`},
		"its trigger elsewhere": {[]string{"SIGNALBOX_GITHUB_TOKEN=x", "SIGNALBOX_GITHUB_WEBHOOK_SECRET=s", "SIGNALBOX_TRIGGER=gitlab_pipeline"}, `"gitlab_pipeline" starts nothing`},
		"team, a way up":        {append([]string{"SIGNALBOX_TRUST=team:octo/../x"}, base...), `"team:octo/../x" is no rule of trust`},
		"team, a gap":           {append([]string{"SIGNALBOX_TRUST=team:octo//x"}, base...), `"team:octo//x" is no rule of trust`},
		"nothing":               {nil, "SIGNALBOX_GITLAB_WEBHOOK_SECRET with SIGNALBOX_GITLAB_TOKEN"},
	} {
		_, err := Settings{}.Resolve(c.env, files{}.read)
		var all Problems
		if !errors.As(err, &all) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "glpat-x") || strings.Contains(err.Error(), "secret!") {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := Settings{Config: "f.yaml"}.Resolve(nil, files{"f.yaml": "forges:\n  gitlab:\n    token: x\n    webhook_secret: s\n    app_id: 7\n"}.read)
	if err == nil || !strings.Contains(err.Error(), "f.yaml:5: forges.gitlab.app_id: a forge of kind gitlab has no such key") {
		t.Errorf("app_id in the file: %v", err)
	}
}
