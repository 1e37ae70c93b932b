package github

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

func TestPull(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true, Draft: true, Branch: "evil`branch"})
	got, err := w.Pull(t.Context(), w.ref(pr))
	if err != nil {
		t.Fatal(err)
	}
	if got.UpdatedAt.IsZero() || got.Head.RepoID == 0 || got.Head.RepoID == w.repo.ID || got.SameRepo() {
		t.Errorf("%+v", got)
	}
	want := forge.Pull{
		Ref: w.ref(pr), Open: true, Draft: true, Author: who(w.outsider),
		Head:      forge.Branch{SHA: pr.Head(), Name: "evil`branch", RepoID: got.Head.RepoID},
		Base:      forge.Branch{SHA: w.repo.Tip("main"), Name: "main", RepoID: w.repo.ID},
		UpdatedAt: got.UpdatedAt,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}

	pr.DeleteFork()
	if got, err = w.Pull(t.Context(), w.ref(pr)); err != nil || got.Head.RepoID != 0 || got.SameRepo() {
		t.Errorf("deleted fork: %+v, %v", got, err)
	}
	own := w.repo.OpenPR(w.maintainer, sandbox.PROptions{})
	if got, err = w.Pull(t.Context(), w.ref(own)); err != nil || !got.SameRepo() || got.Draft {
		t.Errorf("own branch: %+v, %v", got, err)
	}
	own.Merge(w.owner)
	if got, err = w.Pull(t.Context(), w.ref(own)); err != nil || got.Open || !got.Merged {
		t.Errorf("merged: %+v, %v", got, err)
	}
	if _, err = w.Pull(t.Context(), forge.Ref{Repo: w.where(), Number: 999}); classOf(t, err) != forge.NotFound {
		t.Errorf("no such: %v", err)
	}
	reborn := w.ref(own)
	reborn.Repo.ID = 4711
	if _, err = w.Pull(t.Context(), reborn); classOf(t, err) != forge.Permanent {
		t.Errorf("another repository of this name: %v", err)
	}
}

// Null where GitHub has nothing to say; and answers that lack what must be there are no facts.
func TestPull_shapes(t *testing.T) {
	for body, class := range map[string]forge.Class{
		`{"number":7,"state":"open","user":null,"updated_at":"2026-01-01T00:00:00Z","head":{"sha":"aa","repo":null},"base":{"sha":"bb","repo":{"id":5}}}`: -1,
		`{"number":8,"state":"open","updated_at":"2026-01-01T00:00:00Z","head":{"sha":"aa"},"base":{"sha":"bb","repo":{"id":5}}}`:                         forge.Retriable,
		`{"number":7,"state":"open","head":{"sha":"aa"},"base":{"sha":"bb","repo":{"id":5}}}`:                                                             forge.Retriable,
		`{"number":7,"updated_at":"2026-01-01T00:00:00Z","head":{"sha":"aa"},"base":{"sha":"bb","repo":{"id":5}}}`:                                        forge.Retriable,
		`{"number":7,"state":"open","updated_at":"2026-01-01T00:00:00Z","head":null,"base":{"sha":"bb","repo":{"id":5}}}`:                                 forge.Retriable,
		`{"number":7,"state":"open","updated_at":"2026-01-01T00:00:00Z","head":{"sha":"aa"},"base":{"sha":"bb","repo":null}}`:                             forge.Retriable,
		`{}`: forge.Retriable, `null`: forge.Retriable, `[]`: forge.Retriable,
	} {
		c := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(body)) })
		got, err := c.Pull(t.Context(), forge.Ref{Repo: forge.Repo{ID: 5, Name: "acme/widgets"}, Number: 7})
		if class < 0 {
			if err != nil || got.Author != (forge.Actor{}) || got.Head.RepoID != 0 {
				t.Errorf("%s: %+v, %v", body, got, err)
			}
		} else if classOf(t, err) != class {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestLabelHistory(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	pr.Label(w.outsider, "CICD")
	pr.Retitle(w.outsider, "no label")
	pr.Unlabel(w.maintainer, "CICD")
	got, err := w.LabelHistory(t.Context(), w.ref(pr))
	if err != nil || len(got) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if a, b := got[0], got[1]; !a.Added || b.Added || a.Label != "CICD" || b.Label != "CICD" || a.ID >= b.ID || a.At.IsZero() ||
		a.Actor != who(w.outsider) || b.Actor != who(w.maintainer) {
		t.Errorf("%+v", got)
	}
}

// However long the history, its newest entries are seen, in order, with at least 50 behind them, in few calls.
func TestLabelHistory_long(t *testing.T) {
	for events, calls := range map[int]int{0: 1, 1: 1, 99: 1, 100: 1, 101: 2, 149: 2, 199: 2, 200: 2, 201: 3, 249: 3, 250: 2, 300: 2, 301: 3} {
		t.Run(fmt.Sprint(events), func(t *testing.T) {
			w := tokenWorld(t)
			pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
			for i := range events {
				if name := fmt.Sprintf("l%d", i/2); i%2 == 0 {
					pr.Label(w.outsider, name)
				} else {
					pr.Unlabel(w.outsider, name)
				}
			}
			var got []forge.LabelEntry
			made := w.calls(t, func() {
				var err error
				if got, err = w.LabelHistory(t.Context(), w.ref(pr)); err != nil {
					t.Fatal(err)
				}
			})
			if len(made) != calls {
				t.Errorf("%d calls, expected %d", len(made), calls)
			}
			if len(got) < min(events, 50) {
				t.Errorf("%d entries", len(got))
			}
			if !slices.IsSortedFunc(got, func(a, b forge.LabelEntry) int { return int(a.ID - b.ID) }) {
				t.Error("not oldest first")
			}
			if events > 0 {
				if last := got[len(got)-1]; last.Label != fmt.Sprintf("l%d", (events-1)/2) || last.Added != ((events-1)%2 == 0) {
					t.Errorf("the newest is %+v", last)
				}
			}
		})
	}
}

func TestLabelHistory_shapes(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`[
			{"id":1,"event":"labeled","actor":null,"label":{"name":"CICD"},"created_at":"2026-01-01T00:00:00Z"},
			{"id":2,"event":"labeled","actor":{"id":9,"login":"x[bot]","type":"Bot"},"label":null,"created_at":"2026-01-01T00:00:00Z"},
			{"id":3,"event":"renamed","actor":{"id":9},"rename":{"from":"a","to":"b"},"created_at":"2026-01-01T00:00:00Z"},
			{"id":4,"event":"unlabeled","actor":{"id":9,"login":"x[bot]","type":"Bot"},"label":{"name":"CICD"},"created_at":"2026-01-01T00:00:00Z"}]`))
	})
	got, err := c.LabelHistory(t.Context(), forge.Ref{Repo: forge.Repo{Name: "acme/widgets"}, Number: 7})
	if err != nil || len(got) != 2 || got[0].Actor != (forge.Actor{}) || got[1].Actor != (forge.Actor{ID: 9, Login: "x[bot]", Bot: true}) {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTrusted(t *testing.T) {
	w := appWorld(t)
	add := func(login, role string) forge.Actor {
		u := w.forge.AddUser(login)
		w.repo.SetPermission(u, role)
		return who(u)
	}
	admin, maintain, write := add("ada", "admin"), add("mia", "maintain"), add("wim", "write")
	triage, read, none := add("tim", "triage"), add("rea", "read"), add("nil", "")
	member, pending := add("mem", ""), add("pen", "")
	team := w.forge.AddTeam("acme", "crew", w.forge.AddUser("mem"))
	team.SetMember(w.forge.AddUser("pen"), "pending")
	// A maintainer was renamed and somebody else took the login: they are not the maintainer.
	old := w.forge.AddUser("was-here")
	w.repo.SetPermission(old, "admin")
	former := who(old)
	old.Rename("moved-on")
	usurper := who(w.forge.AddUser("was-here"))
	w.repo.SetPermission(w.forge.AddUser("was-here"), "write")
	bot := forge.Actor{ID: w.app.Bot.ID, Login: "signalbox-acme[bot]", Bot: true}
	w.repo.SetPermission(w.app.Bot, "write")
	foreignBot := forge.Actor{ID: 4711, Login: "signalbox-acme[bot]", Bot: true}
	personAsBot := forge.Actor{ID: w.app.Bot.ID, Login: "signalbox-acme[bot]"}
	gone := forge.Actor{ID: 999999, Login: "nobody-has-this"}

	rule := func(s string) forge.Rule {
		kind, value, _ := strings.Cut(s, ":")
		return forge.Rule{Kind: kind, Value: value}
	}
	for _, c := range []struct {
		name string
		who  forge.Actor
		rule string
		want bool
	}{
		{"admin", admin, "permission:write", true},
		{"maintain", maintain, "permission:write", true},
		{"write", write, "permission:write", true},
		{"triage", triage, "permission:write", false},
		{"read", read, "permission:write", false},
		{"none", none, "permission:write", false},
		{"admin", admin, "permission:maintain", true},
		{"maintain", maintain, "permission:maintain", true},
		{"write", write, "permission:maintain", false},
		{"maintain", maintain, "permission:admin", false},
		{"nobody has the login", gone, "permission:write", false},
		{"deleted account", forge.Actor{}, "permission:write", false},
		{"deleted account with a login", forge.Actor{Login: "ada"}, "permission:write", false},
		{"former login now another's", former, "permission:write", false},
		{"who took a login has its own rights", usurper, "permission:write", true},
		{"id of another", forge.Actor{ID: none.ID, Login: "ada"}, "permission:write", false},
		{"bot with write", bot, "permission:write", false},
		{"bot with write that says it is none", personAsBot, "permission:write", false},
		{"member", member, "team:acme/crew", true},
		{"pending member", pending, "team:acme/crew", false},
		{"no member", admin, "team:acme/crew", false},
		{"id of no member, login of one", forge.Actor{ID: none.ID, Login: "mem"}, "team:acme/crew", false},
		{"member under an old login", forge.Actor{ID: member.ID, Login: "once"}, "team:acme/crew", true},
		{"nobody has the id", gone, "team:acme/crew", false},
		{"no such team", member, "team:acme/void", false},
		{"bot in a team", bot, "team:acme/crew", false},
		{"user", write, "user:wim", true},
		{"user, other case", write, "user:WIM", true},
		{"another user", read, "user:wim", false},
		{"id of another", forge.Actor{ID: read.ID, Login: "wim"}, "user:wim", false},
		{"user does not exist", read, "user:nobody-has-this", false},
		{"app", bot, "app:signalbox-acme", true},
		{"app with another id", foreignBot, "app:signalbox-acme", false},
		{"app that says it is none", personAsBot, "app:signalbox-acme", false},
		{"another app", bot, "app:dependabot", false},
	} {
		t.Run(c.rule+"/"+c.name, func(t *testing.T) {
			got, err := w.Trusted(t.Context(), w.where(), c.who, rule(c.rule))
			if err != nil || got != c.want {
				t.Errorf("%v, %v; expected %v", got, err, c.want)
			}
		})
	}
	for _, bad := range []string{"permission:own", "permission:", "team:acme", "team:acme/", "team:a/b/c", "team:../crew", "user:", "user:a/b", "app:", "app:..", "role:x", ":"} {
		yes, err := w.Trusted(t.Context(), w.where(), bot, rule(bad))
		if !yes && err == nil { // a bot is refused before the rule is read
			yes, err = w.Trusted(t.Context(), w.where(), write, rule(bad))
		}
		if yes || err == nil && !strings.HasPrefix(bad, "app:") || err != nil && classOf(t, err) != forge.Permanent {
			t.Errorf("%s: %v, %v", bad, yes, err)
		}
	}
}

// What cannot be looked up is an error, never a no and never a yes (T17); and nothing is remembered (T22).
func TestTrusted_unknown(t *testing.T) {
	w := appWorld(t)
	w.forge.AddTeam("acme", "crew", w.maintainer)
	rules := []forge.Rule{{Kind: "permission", Value: "write"}, {Kind: "team", Value: "acme/crew"}, {Kind: "user", Value: "maria"}}
	for _, rule := range rules {
		if yes, err := w.Trusted(t.Context(), w.where(), who(w.maintainer), rule); !yes || err != nil {
			t.Fatalf("%s: %v, %v", rule, yes, err)
		}
	}
	for name, fault := range map[string]sandbox.Fault{
		"502":       {Status: 502, Body: "Unicorn"},
		"403":       {Status: 403, Body: `{"message":"Resource not accessible by integration"}`},
		"empty":     {Status: 200, Body: ``},
		"{}":        {Status: 200, Body: `{}`},
		"null":      {Status: 200, Body: `null`},
		"null user": {Status: 200, Body: `{"permission":"admin","user":null}`},
		"cut":       {Cut: true},
	} {
		w.forge.SetFault(func(*http.Request) *sandbox.Fault { return &fault })
		for _, rule := range rules {
			if yes, err := w.Trusted(t.Context(), w.where(), who(w.maintainer), rule); yes || err == nil {
				t.Errorf("%s: %s: %v, %v", name, rule, yes, err)
			}
		}
	}
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if strings.Contains(r.URL.Path, "/memberships/") {
			return &sandbox.Fault{Status: 200, Body: `{}`}
		}
		return nil
	})
	if yes, err := w.Trusted(t.Context(), w.where(), who(w.maintainer), rules[1]); yes || err == nil {
		t.Errorf("membership without state: %v, %v", yes, err)
	}
	w.forge.SetFault(nil)
	w.repo.SetPermission(w.maintainer, "read")
	if yes, err := w.Trusted(t.Context(), w.where(), who(w.maintainer), rules[0]); yes || err != nil {
		t.Errorf("after losing the right: %v, %v", yes, err)
	}
}

func TestSetLabel(t *testing.T) {
	w := tokenWorld(t)
	pr := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	for _, label := range []string{"CICD", "needs/ci", "100% sure?", "a b", "grün&#x", "..x", "%2F"} {
		for _, present := range []bool{true, true, false, false} {
			if err := w.SetLabel(t.Context(), w.ref(pr), label, present); err != nil {
				t.Errorf("%q, %v: %v", label, present, err)
			}
			if slices.Contains(pr.Labels(), label) != present {
				t.Errorf("%q, %v: labels are %q", label, present, pr.Labels())
			}
		}
	}
	pr.Label(w.outsider, "kept")
	for _, never := range []string{"", ".", ".."} { // as a path these would mean all labels, or the pull request
		if err := w.SetLabel(t.Context(), w.ref(pr), never, false); classOf(t, err) != forge.Permanent {
			t.Errorf("%q: %v", never, err)
		}
	}
	if !slices.Contains(pr.Labels(), "kept") {
		t.Error("the other label is gone")
	}
	if err := w.SetLabel(t.Context(), forge.Ref{Repo: w.where(), Number: 999}, "CICD", true); classOf(t, err) != forge.NotFound {
		t.Errorf("add to nothing: %v", err)
	}
	if err := w.SetLabel(t.Context(), w.ref(pr), strings.Repeat("x", 51), true); classOf(t, err) != forge.Permanent {
		t.Errorf("too long: %v", err)
	}
	w.forge.SetFault(func(*http.Request) *sandbox.Fault { return &sandbox.Fault{Status: 500} })
	for _, present := range []bool{true, false} {
		if err := w.SetLabel(t.Context(), w.ref(pr), "CICD", present); classOf(t, err) != forge.Retriable {
			t.Errorf("500: %v", err)
		}
	}
}
