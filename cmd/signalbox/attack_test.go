package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/github"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// The attacks of docs/rules.md that concern GitHub, against a real process, with a forge that the attacker changes between
// our calls. Each names the change of our code that makes it fail. Elsewhere: T19 in process_crash_test.go (a crash at
// every boundary), T20 in process_pause_test.go (a paused holder); T21 and T33 concern GitLab; T32 concerns runners.

// attack is a world with one process, and an outsider's pull request that waits.
func attack(t *testing.T, more ...string) (*world, *sandbox.PR) {
	t.Helper()
	t.Parallel()
	w := begin(t, fileStore(t), more...)
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.shut(pr)
	return w, pr
}

// approved is attack, gone on until maya has labelled the head.
func approved(t *testing.T, more ...string) (*world, *sandbox.PR) {
	t.Helper()
	w, pr := attack(t, more...)
	w.later(10 * time.Minute)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.open(pr)
	return w, pr
}

func (w *world) later(d time.Duration) { w.ahead.Add(int64(d)) }

func (w *world) comments(u *sandbox.User, p *sandbox.PR, body string) { w.act(); p.Comment(u, body) }

// meddle runs an act of the attacker's once, in the middle of the first call that matches.
func (w *world) meddle(match func(*http.Request) bool, act func()) {
	var once sync.Once
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if match(r) {
			once.Do(act)
		}
		return nil
	})
}

// Fails if the time of a label is compared neither with the arrival of the head nor with the pushes: either suffices.
func TestAttack_T01_LateLabel(t *testing.T) {
	w, pr := attack(t)
	w.labels(w.maya, pr)
	label := w.delivery(pr, "labeled")
	w.must(w.servers[0].sender.Drop(label.GUID))
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.send(label.GUID)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails without the hold.
func TestAttack_T02_PushThenLabelInsideTheHold(t *testing.T) {
	w, pr := attack(t, "SIGNALBOX_HOLD=2m")
	w.later(10 * time.Minute)
	w.pushes(w.mallory, pr)
	w.later(40 * time.Second)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
	w.later(3 * time.Minute)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.open(pr)
}

// Fails if anything but the forge's own time of arrival counts: the commit pushed here is the oldest there is.
func TestAttack_T03_BackDatedCommit(t *testing.T) {
	w, pr := attack(t, "SIGNALBOX_HOLD=2m")
	old := pr.Head()
	w.later(10 * time.Minute)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.later(10 * time.Minute)
	w.act()
	pr.ForcePush(w.mallory, old)
	w.later(30 * time.Second)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, old, 0)
}

// Fails if a grant survives its head, or if a cancelled run's key is used again.
func TestAttack_T04_ThereAndBack(t *testing.T) {
	w, pr := approved(t)
	first := pr.Head()
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.act()
	pr.ForcePush(w.mallory, first)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, first, 1)
	w.later(10 * time.Minute)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.gate(pr, first, "success")
	w.triggered(pr, first, 2) // the first run was cancelled: a new one under a new key
}

// Fails if a grant survives the closing, and its label is not asked whether it came after the reopening: either suffices.
func TestAttack_T05_CloseReopen(t *testing.T) {
	w, pr := approved(t)
	w.act()
	pr.Close(w.mallory)
	w.settle(pr)
	w.act()
	pr.Reopen(w.mallory)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 1)
}

// Fails if a grant survives the change of its base.
func TestAttack_T06_OtherBase(t *testing.T) {
	w, pr := approved(t)
	w.act()
	pr.ChangeBase(w.mallory, "ci")
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 1)
}

// Fails if grants are looked up by commit and not by pull request.
func TestAttack_T07_SameCommitInAStrangersPull(t *testing.T) {
	w, pr := approved(t)
	eve := w.forge.AddUser("eve")
	w.act()
	other := w.repo.OpenPR(eve, sandbox.PROptions{Fork: true, SHA: pr.Head()})
	w.settle(pr, other)
	w.triggered(other, other.Head(), 0)
	w.label(other, false)
	w.act()
	pr.Close(w.maya)
	w.settle(pr, other)
	w.shut(other) // the check on the shared commit is shut again
}

// Fails if the label's presence counts and not who set it.
func TestAttack_T08_TriageLabels(t *testing.T) {
	w, pr := attack(t)
	w.labels(w.mallory, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if a bot's write permission makes it a person.
func TestAttack_T09_BotLabelsForAnOutsider(t *testing.T) {
	w, pr := attack(t)
	helper := w.forge.AddApp(sandbox.AppOptions{Slug: "labeller", Owner: "octo", Secret: hookSecret})
	w.repo.SetPermission(helper.Bot, "write")
	w.labels(helper.Bot, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if labels at creation are not looked up in the history.
func TestAttack_T10_LabelAtCreation(t *testing.T) {
	w, first := attack(t)
	w.act()
	pr := w.repo.OpenPR(w.mallory, sandbox.PROptions{Fork: true, Labels: []string{gateLabel}})
	w.settle(first, pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if anything approves but the live commit, named in full.
func TestAttack_T11_ShortAndOldCommits(t *testing.T) {
	w, pr := attack(t)
	old := pr.Head()
	w.comments(w.maya, pr, "/ok-to-test "+old[:12])
	w.comments(w.maya, pr, "/ok-to-test "+old[:39]+"A")
	w.settle(pr)
	w.shut(pr)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.comments(w.maya, pr, "/ok-to-test "+old)
	w.comments(w.mallory, pr, "/ok-to-test "+pr.Head())
	w.settle(pr)
	w.shut(pr)
	w.comments(w.maya, pr, "/ok-to-test "+pr.Head())
	w.settle(pr)
	w.open(pr)
}

// Fails if anybody may ask for a run again.
func TestAttack_T12_RetestByAnOutsider(t *testing.T) {
	w, pr := approved(t)
	eve := w.forge.AddUser("eve")
	w.comments(eve, pr, "/retest")
	w.settle(pr)
	w.open(pr) // one trigger, as before
}

// Fails if a re-run of a former head's check starts anything.
func TestAttack_T13_RerunOfAFormerHead(t *testing.T) {
	w, pr := approved(t)
	old := pr.Head()
	check := w.repo.Check(old, "presubmit")
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.act()
	check.RequestRerun(w.maya)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, old, 1)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if the author's trust covers whoever pushes.
func TestAttack_T14_OutsiderPushesToATrustedAuthorsPull(t *testing.T) {
	w, _ := attack(t)
	pr := w.opens(w.maya)
	w.settle(pr)
	w.open(pr)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if the author's trust covers whoever pushes, also where the author is a trusted bot.
func TestAttack_T15_DependabotsBranchEdited(t *testing.T) {
	w, _ := attack(t, "SIGNALBOX_AUTO=permission:write,app:dependabot")
	bot := w.forge.AddApp(sandbox.AppOptions{Slug: "dependabot", Owner: "octo", Secret: hookSecret}).Bot
	w.act()
	pr := w.repo.OpenPR(bot, sandbox.PROptions{})
	w.settle(pr)
	w.open(pr)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if edited comments count, or quotes, or code.
func TestAttack_T16_EditedQuotedAndCodedCommands(t *testing.T) {
	w, pr := attack(t)
	w.comments(w.maya, pr, "looks good")
	w.act()
	pr.EditComment(w.maya, "/ok-to-test "+pr.Head())
	w.comments(w.maya, pr, "> /ok-to-test "+pr.Head())
	w.comments(w.maya, pr, "```\n/ok-to-test "+pr.Head()+"\n```")
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if an error of the forge counts as an answer.
func TestAttack_T17_ForgeDownDuringTheTrustLookup(t *testing.T) {
	w, pr := attack(t)
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if strings.HasSuffix(r.URL.Path, "/permission") {
			return &sandbox.Fault{Refuse: true}
		}
		return nil
	})
	w.labels(w.maya, pr)
	w.deliver()
	w.until("the lookup has failed", func() bool { return w.passed(w.subject(pr), "Unsure") > 0 })
	w.gate(pr, pr.Head(), "action_required")
	w.triggered(pr, pr.Head(), 0)
	w.forge.SetFault(nil)
	w.settle(pr)
	w.open(pr)
}

// Fails if shutting waits for the label to be gone, or gives up on it.
func TestAttack_T18_RemovalOfTheLabelFails(t *testing.T) {
	w, pr := approved(t)
	w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
		if r.Method == http.MethodDelete {
			return &sandbox.Fault{Refuse: true}
		}
		return nil
	})
	w.pushes(w.mallory, pr)
	w.deliver()
	w.until("the gate is shut all the same", func() bool { return w.repo.Gate(pr.Head(), gateCheck) == "action_required" })
	w.until("the run is cancelled all the same", func() bool { return w.running(pr) == 0 })
	w.forge.SetFault(nil)
	w.settle(pr)
	w.shut(pr)
}

// Fails if trust is remembered beyond the turn that asked for it.
func TestAttack_T22_ApproverLosesMembership(t *testing.T) {
	w, pr := approved(t)
	w.repo.SetPermission(w.maya, "read")
	w.pushes(w.maya, pr)
	w.settle(pr)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if label names are folded beyond ASCII.
func TestAttack_T23_TwinOfTheLabel(t *testing.T) {
	w, pr := attack(t)
	w.act()
	pr.Label(w.maya, "\u0421ICD") // a Cyrillic letter
	w.act()
	pr.Label(w.maya, "\u0421I\u0421D")
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails without pins: whoever takes a login that was given up would take its trust.
func TestAttack_T24_LoginTakenOver(t *testing.T) {
	w, pr := approved(t, "SIGNALBOX_TRUST=user:maya")
	w.maya.Rename("maya-the-first")
	thief := w.forge.AddUser("maya")
	w.repo.SetPermission(thief, "triage")
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.later(10 * time.Minute)
	w.labels(thief, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if anything of the pull request's content is read: policy is the server's. T35 asks the same of its base.
func TestAttack_T25_T35_OwnGateConfiguration(t *testing.T) {
	w, _ := attack(t)
	w.act()
	pr := w.repo.OpenPR(w.mallory, sandbox.PROptions{Fork: true, Base: "ci", Title: "SIGNALBOX_AUTO=user:mallory", Body: "/ok-to-test"})
	w.settle(pr)
	w.shut(pr)
	for _, c := range w.forge.Calls(0) {
		if strings.Contains(c.Path, "/contents/") || strings.Contains(c.Path, "/git/trees") {
			t.Errorf("content was read: %s %s", c.Method, c.Path)
		}
	}
}

// Fails if a check is known by its name. What another App or workflow writes is not ours, and its buttons approve nothing.
func TestAttack_T26_SameNameByAnotherApp(t *testing.T) {
	w, pr := attack(t)
	foreign := w.foreignCheck(pr.Head())
	w.act()
	if !foreign.ClickAction(w.maya, "approve") {
		t.Fatal("the other App's check has no button")
	}
	w.act()
	foreign.RequestRerun(w.maya)
	w.settle(pr)
	w.label(pr, false)
	w.triggered(pr, pr.Head(), 0)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.shut(pr)
	w.foreignCheck(pr.Head())
	w.labels(w.maya, pr)
	w.settle(pr)
	w.open(pr)
	w.unlabels(w.maya, pr)
	w.settle(pr)
	w.shut(pr) // we do not take the other App's success for ours, nor ours for shown
}

// foreignCheck has another App show a green check of the gate's name, with a button like ours.
func (w *world) foreignCheck(sha string) *sandbox.CheckRun {
	w.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	w.must(err)
	app := w.forge.AddApp(sandbox.AppOptions{Slug: "foreign-" + sha[:7], Owner: "octo", Key: &key.PublicKey, Events: []string{"fork"}, Secret: hookSecret})
	app.Install(w.repo)
	c, err := github.New(github.Options{
		Instance: "github", APIURL: w.wire.server.URL + "/", AppID: app.ID,
		PrivateKey: pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}),
	})
	w.must(err)
	_, err = c.WriteCheck(w.Context(), forge.Check{
		Repo: forge.Repo{Instance: "github", ID: w.repo.ID, Name: w.repo.Name()}, SHA: sha, Name: gateCheck,
		ExternalID: "gate:1", State: forge.CheckSuccess, Title: "All good", Summary: "All good", Approve: true,
	})
	w.must(err)
	return w.repo.Check(sha, gateCheck)
}

// Fails if anything hangs on check suites, which a commit with "skip-checks: true" does not get.
func TestAttack_T27_CommitWithoutCheckSuites(t *testing.T) {
	w, pr := attack(t)
	body := []byte(`{"action":"completed","check_suite":{"head_sha":"` + pr.Head() + `","conclusion":"success"},"repository":{"id":1,"full_name":"octo/hello"}}`)
	a := w.servers[0].request(map[string]string{
		"Content-Type": "application/json", "X-GitHub-Delivery": "c0ffee", "X-GitHub-Event": "check_suite",
		"X-Hub-Signature-256": sandbox.Sign(hookSecret, body),
	}, body)
	if a.status != http.StatusOK {
		t.Errorf("a check suite is answered %+v, want 200", a)
	}
	w.settle(pr)
	w.shut(pr)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.open(pr)
	for _, c := range w.forge.Calls(0) {
		if strings.Contains(c.Path, "check-suites") {
			t.Errorf("asked for check suites: %s %s", c.Method, c.Path)
		}
	}
}

// Fails if a merge or close leaves a neutral or open check behind on the commit.
func TestAttack_T28_CloseAndBringBack(t *testing.T) {
	w, pr := attack(t)
	w.act()
	pr.Close(w.mallory)
	w.settle(pr)
	w.gate(pr, pr.Head(), "cancelled")
	w.act()
	again := w.repo.OpenPR(w.mallory, sandbox.PROptions{Fork: true, SHA: pr.Head(), Branch: "again"})
	w.settle(pr, again)
	w.shut(again)
	w.act()
	again.Close(w.mallory)
	w.act()
	pr.Reopen(w.mallory)
	w.settle(pr, again)
	w.shut(pr)
	for _, x := range w.forge.Writes(0) {
		if x.State == "neutral" || x.State == "skipped" {
			t.Errorf("%s was written", x.State)
		}
	}
}

// Fails if deliveries decide and not the history: the removal is told last, and was first.
func TestAttack_T29_RemovedAndAddedToldReversed(t *testing.T) {
	w, pr := approved(t)
	w.unlabels(w.maya, pr)
	w.labels(w.maya, pr)
	w.order(pr, "labeled", "unlabeled")
	w.settle(pr)
	w.gate(pr, pr.Head(), "success")
	w.label(pr, true)
	if n := w.running(pr); n != 1 {
		t.Errorf("%d runs go on, want 1:\n%s", n, w.told(pr))
	}
}

// Fails if the first pull request at a commit owns its check.
func TestAttack_T30_SquattedCommit(t *testing.T) {
	w, first := attack(t)
	mayas := w.opens(w.maya)
	sha := mayas.Head()
	w.must(w.servers[0].sender.Drop(w.delivery(mayas, "opened").GUID)) // GitHub is slow to tell
	w.act()
	squat := w.repo.OpenPR(w.mallory, sandbox.PROptions{Fork: true, SHA: sha, Branch: "squat"})
	w.settle(first, squat)
	w.shut(squat)
	w.send(w.delivery(mayas, "opened").GUID)
	w.settle(first, squat, mayas)
	w.open(mayas)
	w.triggered(squat, sha, 0)
	w.label(squat, false)
}

// Fails if only the newest entry of the history is judged.
func TestAttack_T31_TriagerPutsTheLabelBack(t *testing.T) {
	w, pr := approved(t)
	w.unlabels(w.maya, pr)
	w.labels(w.mallory, pr)
	w.order(pr, "labeled") // of the removal nobody tells yet
	w.settle(pr)
	w.shut(pr)
}

// Fails if an App is trusted on a branch that its fork's owner controls.
func TestAttack_T34_DependabotInTheAttackersFork(t *testing.T) {
	w, _ := attack(t, "SIGNALBOX_AUTO=permission:write,app:dependabot", "SIGNALBOX_TRUST=permission:write,app:dependabot")
	bot := w.forge.AddApp(sandbox.AppOptions{Slug: "dependabot", Owner: "octo", Secret: hookSecret}).Bot
	w.act()
	pr := w.repo.OpenPR(bot, sandbox.PROptions{Fork: true})
	w.settle(pr)
	w.shut(pr)
	w.labels(bot, pr)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if our own label writes, made on a person's token, count as that person's approval.
func TestAttack_T36_OnAPersonsToken(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.env = slices.DeleteFunc(w.env, func(kv string) bool {
		return strings.HasPrefix(kv, "SIGNALBOX_GITHUB_APP_ID") || strings.HasPrefix(kv, "SIGNALBOX_GITHUB_PRIVATE_KEY")
	})
	w.env = append(w.env, "SIGNALBOX_GITHUB_TOKEN="+w.maya.Token)
	w.repo.AddHook(hookSecret, "*")
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.gate(pr, pr.Head(), "pending")
	w.labels(w.maya, pr) // she herself: counts like anyone's
	w.settle(pr)
	w.open(pr)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	w.gate(pr, pr.Head(), "pending")
	w.label(pr, false)
	w.triggered(pr, pr.Head(), 0)
	w.send(w.delivery(pr, "labeled").GUID)
	w.settle(pr)
	w.gate(pr, pr.Head(), "pending")
	w.triggered(pr, pr.Head(), 0)
	own := w.opens(w.maya) // runs by trust; the label that we then set as her must stay a picture
	late := w.holds(false, func(r *http.Request, _ []byte) bool {
		return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/labels")
	})
	w.deliver()
	w.held(late)
	w.pushes(w.mallory, own)
	w.act()
	late.release() // our label arrives after the push, in her name
	w.settle(own)
	w.gate(own, own.Head(), "pending")
	w.triggered(own, own.Head(), 0)
}

// Fails if "Update branch" carries a grant over a push in between.
func TestAttack_T37_UpdateBranchOverAnOutsidersPush(t *testing.T) {
	w, pr := approved(t)
	w.act()
	pr.UpdateBranch(w.maya)
	w.settle(pr)
	w.open(pr) // of the approved commit: carried over
	w.pushes(w.mallory, pr)
	late := w.delivery(pr, "synchronize") // nobody tells of it before the button is pressed
	w.must(w.servers[0].sender.Drop(late.GUID))
	w.act()
	pr.UpdateBranch(w.maya)
	w.settle(pr)
	w.shut(pr)
	w.send(late.GUID)
	w.settle(pr)
	w.shut(pr)
	w.triggered(pr, pr.Head(), 0)
}

// Fails if the gate opens before the presubmit's check is there: for a moment everything required would be green.
func TestAttack_T38_MergeBetweenGateAndPresubmit(t *testing.T) {
	w, pr := approved(t)
	queued, opened := -1, -1
	for i, x := range w.forge.Writes(0) {
		switch {
		case x.SHA != pr.Head() || x.Kind != "check":
		case x.Name == "presubmit" && queued < 0:
			queued = i
		case x.Name == gateCheck && x.State == "success" && opened < 0:
			opened = i
		}
	}
	if queued < 0 || opened < queued {
		t.Errorf("presubmit check at %d, gate open at %d", queued, opened)
	}
	if s := w.repo.Check(pr.Head(), "presubmit").State(); s != "queued" {
		t.Errorf("presubmit shows %s", s)
	}
}

// Fails if a run that nobody approved is not cancelled when it shows up.
func TestAttack_T39_RerunInTheCIsOwnPage(t *testing.T) {
	w, pr := approved(t)
	w.pushes(w.mallory, pr)
	w.settle(pr)
	if n := w.running(pr); n != 0 {
		t.Fatalf("%d runs go on", n)
	}
	w.act()
	for _, r := range w.repo.Runs() {
		r.Rerun(w.maya)
	}
	w.deliver()
	w.until("the re-run is cancelled", func() bool { w.deliver(); return w.running(pr) == 0 })
	w.settle(pr)
	w.shut(pr)
}

// The attacker pushes in the middle of our calls: whatever was on its way is for the approved commit, and is taken back.
func TestAttack_PushBetweenOurCalls(t *testing.T) {
	for name, match := range map[string]func(*http.Request) bool{
		"before the live read": func(r *http.Request) bool {
			return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/pulls/1")
		},
		"before the history": func(r *http.Request) bool {
			return r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/issues/1/")
		},
		"before the lookup": func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/permission") },
		"before the check": func(r *http.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/check-runs")
		},
		"before the trigger": func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/dispatches") },
		"before the label": func(r *http.Request) bool {
			return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/labels")
		},
	} {
		t.Run(name, func(t *testing.T) {
			w, pr := attack(t)
			approvedSHA := pr.Head()
			pushed := false
			w.labels(w.maya, pr)
			w.meddle(match, func() { pushed = true; w.pushes(w.mallory, pr) })
			w.settle(pr)
			if !pushed { // we set no label that is there already
				w.pushes(w.mallory, pr)
				w.settle(pr)
			}
			w.shut(pr)
			w.triggered(pr, pr.Head(), 0)
			if got := w.repo.Gate(approvedSHA, gateCheck); got == "success" {
				t.Errorf("the former head still shows %s:\n%s", got, w.told(pr))
			}
		})
	}
}
