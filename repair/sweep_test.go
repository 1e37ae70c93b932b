package repair

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/alerts"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// within says how many there were in the busiest window of d.
func within(list []sent, d time.Duration) int {
	most, from := 0, 0
	for i := range list {
		for list[i].at.Sub(list[from].at) > d {
			from++
		}
		most = max(most, i-from+1)
	}
	return most
}

func (w *world) unknowns() []sent {
	return slices.DeleteFunc(slices.Clone(w.told), func(s sent) bool { return !s.unknown })
}

func TestFiveHundredOpenAtFirstStart(t *testing.T) {
	for name, installs := range map[string][]int64{"token": nil, "App": {71, 72, 73}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "o/a", "o/b", "o/c")
			if w.installs = installs; installs != nil {
				w.named = nil
			}
			for i := range 500 {
				w.open(w.repos[i%3], time.Duration(20+i)*time.Minute)
			}
			w.seed()
			w.run(time.Minute)
			if len(w.told) == 0 {
				t.Fatal("none was told in the first minute")
			}
			w.run(40 * time.Minute)
			if got, limit := within(w.unknowns(), time.Minute), 20*max(1, len(installs)); got > limit {
				t.Errorf("%d were told in one minute, expected at most %d", got, limit)
			}
			if len(w.told) != 500 || len(w.docs) != 500 {
				t.Errorf("%d were told and %d are known, expected 500", len(w.told), len(w.docs))
			}
			if w.biggest > 2000 {
				t.Errorf("a document of %d bytes", w.biggest)
			}
		})
	}
}

func TestAdoptOffLeavesThemAlone(t *testing.T) {
	w := newWorld(t, "o/a")
	w.make(Config{})
	w.open("o/a", time.Hour)
	known := w.open("o/a", 2*time.Hour)
	w.know(known)
	w.seed()
	w.run(time.Hour)
	for _, s := range w.told {
		if s.what != prmanager.Subject(known).String() {
			t.Errorf("told %s", s.what)
		}
	}
}

// A pull request that was just opened has its delivery under way: adopted, it would not be triggered.
func TestWaitsForTheDeliveryOfTheOpening(t *testing.T) {
	w := newWorld(t, "o/a")
	w.seed()
	w.run(5 * time.Minute)
	ref := w.open("o/a", 0)
	begun := w.now
	w.run(30 * time.Minute)
	if len(w.told) != 1 || w.told[0].what != prmanager.Subject(ref).String() || w.told[0].at.Sub(begun) < grace {
		t.Errorf("told %v", w.told)
	}
}

func TestUpdatedUnseenIsCompared(t *testing.T) {
	w := newWorld(t, "o/a", "o/b")
	ref := w.open("o/b", time.Hour)
	other := w.open("o/a", time.Hour)
	w.know(ref)
	w.know(other)
	w.seed()
	w.run(10 * time.Minute) // with the first comparison of all
	w.told = nil
	w.pull(ref).UpdatedAt = w.now
	changed := w.now
	w.pull(other).UpdatedAt = w.now
	w.know(other) // its delivery arrives
	w.run(20 * time.Minute)
	if len(w.told) != 1 || w.told[0].what != prmanager.Subject(ref).String() {
		t.Fatalf("told %v, expected only the one whose update nobody told of", w.told)
	}
	if d := w.told[0].at.Sub(changed); d < settle || d > 3*time.Minute {
		t.Errorf("told after %s", d)
	}
}

// What was open here and is closed there was closed while nobody told us.
func TestDeadHeadsAreFound(t *testing.T) {
	w := newWorld(t, "o/a")
	ref := w.open("o/a", time.Hour)
	w.know(ref)
	w.seed()
	w.run(10 * time.Minute)
	w.told = nil
	p := w.pull(ref)
	p.Open = false // and no updated_at shows it
	w.run(daily)
	if len(w.told) != 1 || !strings.Contains(w.told[0].id, ":all:") {
		t.Errorf("told %v", w.told)
	}
}

// After a gap each pull request updated meanwhile is looked at, also where a later delivery has hidden a lost one.
func TestAfterAGapNothingSeenCounts(t *testing.T) {
	w := newWorld(t, "o/a")
	refs := make([]forge.Ref, 30)
	for i := range refs {
		refs[i] = w.open("o/a", time.Hour)
		w.know(refs[i])
	}
	w.seed()
	w.run(10 * time.Minute)
	w.told = nil
	w.now = w.now.Add(30 * time.Minute)
	for _, r := range refs[:20] {
		w.pull(r).UpdatedAt = w.now
		w.know(r)
	}
	w.now = w.now.Add(30 * time.Minute)
	w.seed()
	w.run(30 * time.Minute)
	if len(w.told) != 20 {
		t.Errorf("%d were told, expected the 20 updated in the gap", len(w.told))
	}
}

func TestLostDeliveriesAreAskedFor(t *testing.T) {
	w := newWorld(t, "o/a")
	w.lose("before", "pull_request", 502) // before our first contact
	w.now = w.now.Add(time.Minute)
	w.seed()
	w.run(time.Hour)
	for i := range 300 {
		if w.lose(fmt.Sprint("g", i), "pull_request", 502); i%2 == 1 {
			w.lose(fmt.Sprint("g", i), "pull_request", 202)
		}
	}
	w.lose("star", "star", 502)
	w.run(20 * time.Minute)
	if len(w.asked) != 150 || within(w.asked, time.Minute) > 61 {
		t.Errorf("%d asked for, at most %d a minute", len(w.asked), within(w.asked, time.Minute))
	}
	w.run(10 * time.Hour)
	last := map[string]time.Time{}
	count := map[string]int{}
	for _, a := range w.asked {
		if d := a.at.Sub(last[a.what]); d < again {
			t.Errorf("%s asked for again after %s", a.what, d)
		}
		last[a.what] = a.at
		if count[a.what]++; count[a.what] > asks {
			t.Errorf("%s asked for %d times", a.what, count[a.what])
		}
	}
	if count["g0"] != asks || count["g1"] != 0 || count["star"] != 0 || count["before"] != 0 {
		t.Errorf("asked: g0 %d, g1 %d, star %d, before %d", count["g0"], count["g1"], count["star"], count["before"])
	}
	w.order(w.sweeper(), Order{Log: true}) // an operator means all that the log has, however often they were asked for
	w.asked = nil
	w.run(10 * time.Minute)
	if !slices.ContainsFunc(w.asked, func(s sent) bool { return s.what == "before" }) || !slices.ContainsFunc(w.asked, func(s sent) bool { return s.what == "g0" }) {
		t.Errorf("an order asked for %d", len(w.asked))
	}
}

// Comparing before the lost deliveries have come would judge without knowing who pushed.
func TestComparesAfterTheLogHasSettled(t *testing.T) {
	w := newWorld(t, "o/a")
	ref := w.open("o/a", time.Hour)
	w.know(ref)
	w.seed()
	w.run(10 * time.Minute)
	w.told = nil
	for i := range 60 {
		w.lose(fmt.Sprint("g", i), "pull_request", 502)
	}
	w.pull(ref).UpdatedAt = w.now
	w.run(20 * time.Minute)
	if len(w.told) == 0 || len(w.asked) < 60 || w.told[0].at.Sub(w.asked[59].at) < arrives {
		t.Errorf("told %v after %d were asked for", w.told, len(w.asked))
	}
}

// What was under way when the service stopped must not go on before the log has been read: a pull request would be
// adopted that was opened, pushed to and labelled meanwhile.
func TestAWalkFromBeforeAGapWaits(t *testing.T) {
	for name, installs := range map[string][]int64{"token": nil, "App": {71, 72}} {
		for _, after := range []time.Duration{0, time.Second, 5 * time.Second, 40 * time.Second, 61 * time.Second, 90 * time.Second, 10 * time.Minute} {
			w := newWorld(t, "o/a", "o/b")
			if w.installs = installs; installs != nil {
				w.named = nil
			}
			w.seed()
			w.run(after)
			w.now = w.now.Add(20 * time.Minute)
			w.open("o/a", 0)
			w.open("o/b", 0)
			for i := range 60 {
				w.lose(fmt.Sprint("g", i), "pull_request", 502)
			}
			w.now = w.now.Add(40 * time.Minute)
			w.seed()
			w.run(10 * time.Minute)
			if len(w.told) != 2 || len(w.asked) != 60 || w.told[0].at.Sub(w.asked[59].at) < arrives {
				t.Errorf("%s, stopped after %s: told %v after %d were asked for", name, after, w.told, len(w.asked))
			}
		}
	}
}

// What keeps deliveries from arriving shows in the index of the alert, and goes from it by itself.
func TestTroubleWithDeliveriesShowsAndEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		ail   func(*world)
		quiet time.Duration // it does not show after so long …
		shows time.Duration // … and does after so long more
		words string
		mend  func(*world)
		ends  time.Duration
	}{
		{
			"failing again", func(w *world) { w.lose("g", "pull_request", 502) }, time.Minute, 5 * time.Minute, "also when they are sent again",
			func(w *world) { w.lose("g", "pull_request", 202) }, 3 * time.Minute,
		}, {
			"failing for hours", func(w *world) {
				for i := range 30 {
					w.lose(fmt.Sprint("g", i), "pull_request", 502)
					w.run(8 * time.Minute)
				}
			}, 0, time.Second, "also when they are sent again",
			func(w *world) {
				for i := range 30 {
					w.lose(fmt.Sprint("g", i), "pull_request", 202)
				}
			}, 70 * time.Minute,
		}, {
			"never mended, but hours ago", func(w *world) { w.lose("g", "pull_request", 502) }, 0, 40 * time.Minute, "also when they are sent again",
			func(*world) {}, 6 * time.Hour,
		}, {
			"disabled", func(w *world) { w.nolog = &NoLog{Why: "x", Disabled: "the forge does not call it"} }, 0, 2 * time.Minute, "o/a: the forge does not call it",
			func(w *world) { w.nolog = nil }, 3 * time.Minute,
		}, {
			"nobody knows", func(w *world) { w.fail = func(string) error { return errDown } }, margin - time.Minute, 15 * time.Minute, "cannot be looked at",
			func(w *world) { w.fail = nil }, 15 * time.Minute,
		},
	} {
		w := newWorld(t, "o/a")
		w.seed()
		w.run(2 * time.Hour)
		at := func(when string, stands bool) {
			t.Helper()
			w.seed() // a process that starts changes nothing of it
			got := w.subject(w.sweeper()).index
			if !stands && len(got) > 0 || stands && (len(got) != 1 || got[0].Name != alerts.IndexHook || !strings.Contains(got[0].Label, c.words) || got[0].Score < float64(start.UnixMilli())) {
				t.Errorf("%s, %s: %+v", c.name, when, got)
			}
		}
		at("healthy", false)
		c.ail(w)
		if c.quiet > 0 {
			w.run(c.quiet)
			at("soon", false)
		}
		w.run(c.shows)
		at("ailing", true)
		c.mend(w)
		w.run(c.ends)
		at("mended", false)
	}
}

// A delivery that came when it was asked for is no trouble, and a dry run, which asks for none, knows of none.
func TestRepairedDeliveriesAreNoTrouble(t *testing.T) {
	for _, dry := range []bool{false, true} {
		w := newWorld(t, "o/a")
		w.make(Config{Adopt: true, DryRun: dry})
		w.seed()
		w.run(time.Hour)
		for i := range 40 {
			w.lose(fmt.Sprint("g", i), "pull_request", 502)
			if w.run(90 * time.Second); !dry {
				w.lose(fmt.Sprint("g", i), "pull_request", 202)
			}
			if got := w.subject(w.sweeper()).index; len(got) > 0 {
				t.Fatalf("dry %v, after %d: %+v", dry, i, got)
			}
		}
	}
}

func TestNoLogIsAState(t *testing.T) {
	w := newWorld(t, "o/a")
	w.nolog = &NoLog{Why: "HTTP 404"}
	ref := w.open("o/a", time.Hour)
	w.seed()
	w.run(time.Hour)
	x := w.subject(w.sweeper())
	if x.doc.NoLog == "" || !strings.Contains(x.doc.Words(), "no delivery log") || x.doc.Fault.Tries != 0 {
		t.Errorf("%q, %+v", x.doc.NoLog, x.doc.Fault)
	}
	if n := len(slices.DeleteFunc(slices.Clone(x.why), func(s string) bool { return s != LogMissing })); n != 1 {
		t.Errorf("told %d times", n)
	}
	if len(x.log) != 1 || !strings.Contains(x.log[0], "HTTP 404") {
		t.Errorf("the log says %q", x.log)
	}
	if len(w.told) != 1 || w.told[0].what != prmanager.Subject(ref).String() {
		t.Errorf("told %v", w.told)
	}
	w.nolog = nil
	if w.run(time.Minute * 2); x.doc.NoLog != "" {
		t.Errorf("still %q", x.doc.NoLog)
	}
}

func TestOneRepositoryThatRefusesStopsNoOther(t *testing.T) {
	w := newWorld(t, "o/a", "o/b")
	w.fail = func(op string) error {
		if strings.HasSuffix(op, "o/a") {
			return &forge.Fault{Class: forge.NotFound, Op: op, Status: 404, Err: errors.New("Not Found")}
		}
		return nil
	}
	w.open("o/b", time.Hour)
	w.seed()
	if w.run(10 * time.Minute); len(w.told) != 1 {
		t.Errorf("told %v", w.told)
	}
	if m := w.subject(w.sweeper()).doc.Missed; !strings.Contains(m, "o/a") {
		t.Errorf("missed %q", m)
	}
}

// A credential that is refused must not look like a forge where there is nothing to repair.
func TestRefusedCredentialMovesNothing(t *testing.T) {
	w := newWorld(t, "o/a")
	ref := w.open("o/a", time.Hour)
	w.know(ref)
	w.seed()
	w.run(10 * time.Minute)
	w.told = nil
	w.pull(ref).UpdatedAt = w.now
	w.fail = func(op string) error {
		return &forge.Fault{Class: forge.Auth, Op: op, Status: 401, Err: errors.New("Bad credentials")}
	}
	calls := w.calls
	w.run(5 * time.Hour)
	if n := w.calls - calls; n > 60 {
		t.Errorf("%d calls with a refused credential", n)
	}
	if said := w.subject(w.sweeper()).log; len(said) == 0 || len(said) > 2 || !strings.Contains(said[0], "Bad credentials") {
		t.Errorf("the log says %q of a refused credential; expected why, once for each walk", said)
	}
	w.fail = nil
	if w.run(30 * time.Minute); len(w.told) != 1 {
		t.Errorf("told %v", w.told)
	}
}

func TestDryRunAsksForNothing(t *testing.T) {
	w := newWorld(t, "o/a")
	w.make(Config{Adopt: true, DryRun: true})
	w.seed()
	w.run(time.Hour)
	w.lose("g", "pull_request", 502)
	w.run(time.Hour)
	if len(w.asked) != 0 || !slices.Contains(w.subject(w.sweeper()).why, NotAsked) {
		t.Errorf("asked for %v, why %v", w.asked, w.subject(w.sweeper()).why)
	}
}

func TestReconcileOrders(t *testing.T) {
	for name, installs := range map[string][]int64{"token": nil, "App": {71, 72}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, "o/a", "o/b")
			if w.installs = installs; installs != nil {
				w.named = nil
			}
			for range 5 {
				w.know(w.open("o/a", time.Hour))
				w.know(w.open("o/b", time.Hour))
			}
			w.seed()
			w.run(10 * time.Minute)
			w.told = nil
			w.order(w.sweeper(), Order{Full: true, Only: "O/B"})
			w.run(5 * time.Minute)
			if len(w.told) != 5 || !strings.HasPrefix(w.told[0].what, "github/2/") {
				t.Errorf("told %v, expected those of o/b", w.told)
			}
			w.told = nil
			w.order(w.sweeper(), Order{Full: true})
			if w.run(5 * time.Minute); len(w.told) != 10 {
				t.Errorf("told %d, expected all", len(w.told))
			}
		})
	}
}

// An order to compare that lay in the mailbox through a gap was given before the log was read.
func TestAStaleOrderIsNotFollowed(t *testing.T) {
	w := newWorld(t)
	s := Subject("github", "71")
	for age, want := range map[time.Duration]bool{0: true, time.Minute: true, 20 * time.Minute: false} {
		in := inputs(state.Mail{Seq: 1, Kind: KindOrder, Body: mustJSON(Order{Compare: true, At: start.Add(-age)})})
		if step := w.b.Decide(s, Sweep{}, Facts{}, in, start); step.Next.Updated.under() != want {
			t.Errorf("%s old: %+v", age, step.Next)
		}
	}
}

func TestForeignMailIsDead(t *testing.T) {
	w := newWorld(t)
	for _, m := range []state.Mail{{Seq: 3, Kind: "other", Body: []byte("{}")}, {Seq: 4, Kind: KindOrder, Body: []byte("[")}} {
		in := inputs(m)
		if step := w.b.Decide(w.sweeper(), Sweep{}, Facts{}, in, start); len(step.Dead) != 1 || step.Dead[0].Seq != m.Seq {
			t.Errorf("%+v: %+v", m, step.Dead)
		}
	}
}

// TestNothingIsLost: whatever fails and however slowly, in the end every pull request that changed unheard has been
// told, none at more than its lane's pace.
func TestNothingIsLost(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		seed := rapid.Uint64().Draw(r, "seed")
		rng := rand.New(rand.NewPCG(seed, 1))
		var repos []string
		for i := range rapid.IntRange(1, 20).Draw(r, "repositories") {
			repos = append(repos, fmt.Sprintf("o/r%02d", i))
		}
		w := newWorld(t, repos...)
		if rapid.Bool().Draw(r, "App") {
			w.installs, w.named = []int64{71, 72}, nil
		}
		for range rapid.IntRange(0, 60).Draw(r, "pulls") {
			ref := w.open(repos[rng.IntN(len(repos))], time.Duration(rng.IntN(5000))*time.Minute)
			if rng.IntN(2) == 0 {
				w.know(ref)
			}
		}
		bad := rapid.Float64Range(0, 0.5).Draw(r, "faults")
		w.fail = func(string) error {
			if rng.Float64() < bad {
				return errDown
			}
			return nil
		}
		w.seed()
		changed := map[string]time.Time{}
		for range 30 {
			w.run(time.Duration(rng.IntN(300)) * time.Second)
			if len(repos) == 0 || rng.IntN(2) == 0 {
				continue
			}
			if repo := repos[rng.IntN(len(repos))]; len(w.pulls[repo]) > 0 {
				p := &w.pulls[repo][rng.IntN(len(w.pulls[repo]))]
				p.UpdatedAt = w.now
				changed[prmanager.Subject(p.Ref).String()] = w.now
			}
		}
		w.fail = nil
		w.run(2 * time.Hour)
		for _, list := range w.pulls {
			for _, p := range list {
				if d, ok := w.docs[prmanager.Subject(p.Ref)]; !ok || d.SeenAt.Before(p.UpdatedAt) {
					r.Fatalf("%s was never told (known: %v, changed at %v)", p.Ref, ok, changed[prmanager.Subject(p.Ref).String()])
				}
			}
		}
		lanes := max(1, len(w.installs))
		if n := within(w.unknowns(), time.Minute); n > 20*lanes {
			r.Fatalf("%d adoptions in a minute", n)
		}
		if n := within(w.told, time.Minute); n > 81*lanes {
			r.Fatalf("%d tells in a minute", n)
		}
		if w.biggest > 3000 {
			r.Fatalf("a document of %d bytes", w.biggest)
		}
	})
}
