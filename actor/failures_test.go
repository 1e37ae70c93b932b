package actor_test

import (
	"context"
	"errors"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// Where each row of the table of failures in docs/rules.md, and each promise about giving up, is held to. A test is named by its
// file and its name, a case of the stores' conformance suite by its sentence.
func TestEveryFailureHasItsTest(t *testing.T) {
	for row, tests := range map[string][]string{
		"effect error":              {"actor/actor_test.go:TestFailuresTable", "actor/actor_test.go:TestGivingUp", "actor/backoff_test.go:TestBackoffs"},
		"panic in Do, timeout":      {"actor/failures_test.go:TestPanicAndTimeoutOfAnEffectAreTries"},
		"409, 429, rate limit":      {"actor/actor_test.go:TestFailuresTable", "actor/failures_test.go:TestContentionIsNeverGivenUp", "actor/backoff_test.go:TestBackoffs", "status/story_test.go:TestOutcome"},
		"own lock busy":             {"actor/failures_test.go:TestBusyLockFailsNobody", "state/statetest/beside.go:deferring moves a subject to the end of the lease"},
		"orderly stop, deploy":      {"actor/actor_test.go:TestOrderlyStopHandsBack", "cmd/signalbox/process_load_test.go:TestStopUnderLoadHandsEverythingOver"},
		"crash":                     {"actor/actor_test.go:TestCrashesBackOffAndQuarantine", "cmd/signalbox/process_crash_test.go:TestKillAtEveryBoundaryLosesAndDoublesNothing"},
		"suspects run alone":        {"actor/fault_test.go:TestSuspectsRunAlone"},
		"progress clears crashes":   {"actor/failures_test.go:TestProgressClearsCrashes"},
		"panic in Look or Decide":   {"actor/actor_test.go:TestPanicGivesUpOnlyTheGuiltyMail", "actor/actor_test.go:TestPanicWithoutMailQuarantines", "actor/failures_test.go:TestPanicInLookIsTriedAgainThenDead"},
		"undecodable mail":          {"actor/actor_test.go:TestUndecodableMailIsDeadAtOnce"},
		"newer document or mail":    {"actor/actor_test.go:TestNewerMailAndDocumentAreLeftAlone"},
		"permanent refusal":         {"actor/actor_test.go:TestGivingUp", "forge/github/classify_test.go:TestClassify", "forge/gitlab/client_test.go:TestClassify", "actor/dead_test.go:TestRefusalThatReconcileRepeatsSlowsDown"},
		"credential refused":        {"actor/actor_test.go:TestFailuresTable", "forge/github/classify_test.go:TestClassify_badToken"},
		"reserve of the credential": {"forge/github/limit_test.go:TestLimiter_reserve", "forge/gitlab/client_test.go:TestLimiter", "status/story_test.go:TestUrgency"},

		"giving up reconciles":             {"actor/actor_test.go:TestGivingUp"},
		"giving up lets the mailbox go on": {"actor/failures_test.go:TestMailboxGoesOnAfterGivingUp"},
		"giving up mail forgets its id":    {"actor/actor_test.go:TestPanicGivesUpOnlyTheGuiltyMail", "state/statetest/fence.go:a forgotten id is new work"},
		"dead letters retried, discarded":  {"actor/actor_test.go:TestDeadLetterRetriedAndDiscarded", "cmd/signalbox/process_cli_test.go:TestDeadLetterIsListedRetriedAndDiscarded"},
		"jobs shows and repairs":           {"cmd/signalbox/process_jobs_test.go:TestFailingEffectIsListedAndTriedAtOnce", "cmd/signalbox/process_jobs_test.go:TestRefusedStatusIsListedAndRetried", "cmd/signalbox/process_jobs_test.go:TestQuarantineIsListedAndReleased"},
		"dead letters kept 90 days":        {"actor/failures_test.go:TestDeadLettersAreKept90Days"},
		"shutting is never given up":       {"actor/actor_test.go:TestGivingUp", "actor/failures_test.go:TestShuttingIsTriedAtEachComparison"},
		"depth 1000":                       {"actor/fault_test.go:TestDeepMailboxReconciles", "state/statetest/mailbox.go:a hint to a deep mailbox raises the flag instead"},
		"depth 5000":                       {"state/statetest/mailbox.go:a full mailbox refuses and stores nothing"},
		"each alert fires and clears":      {"alerts/alerts_test.go:TestEachAlertFiresAndClearsItself", "cmd/signalbox/alerts_test.go:TestAlertStandsOnEveryInstanceUntilItsCauseIsGone"},
		"work that waits is found":         {"state/statetest/beside.go:oldest-since tells the age of the oldest unread mail, beside what commits place there"},
	} {
		for _, test := range tests {
			file, name, _ := strings.Cut(test, ":")
			text, err := os.ReadFile("../" + file)
			if err != nil {
				t.Errorf("%s: %v", row, err)
			} else if !strings.Contains(string(text), "func "+name+"(") && !strings.Contains(string(text), `name: "`+name+`"`) {
				t.Errorf("%s: there is no %s any more", row, test)
			}
		}
	}
}

func TestPanicAndTimeoutOfAnEffectAreTries(t *testing.T) {
	for name, ail := range map[string]func(context.Context) actor.Outcome{
		"panic": func(context.Context) actor.Outcome { panic("in the effect") },
		"timeout": func(ctx context.Context) actor.Outcome {
			<-ctx.Done()
			return actor.Outcome{Code: actor.Failed, Err: ctx.Err()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				var second actor.Entry
				b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
				b.do = func(ctx context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
					if n++; n == 1 {
						return ail(ctx)
					}
					second = e
					return actor.Outcome{Code: actor.Done}
				}
				x := newBench(t, b, actor.Options{})
				defer x.run(x.Engine)()
				x.tell("go")
				elapse(9 * time.Second)
				if v, _ := x.see(); name == "timeout" && v.Outbox[0].Tries != 0 {
					t.Error("ended before its time")
				}
				elapse(time.Minute)
				_, d := x.see()
				equal(t, "results", d.Results, []string{"w done"})
				if n != 2 || second.Tries != 1 || second.Unsure.IsZero() || second.LastError == "" {
					t.Errorf("%d attempts, the second of %+v", n, second)
				}
			})
		})
	}
}

func TestContentionIsNeverGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		b := &script{decide: wishing(wish("w", actor.Cosmetic, ""))}
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			if n++; n <= 300 {
				return actor.Outcome{Code: actor.Contention, Err: errors.New("busy")}
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{Poll: 10 * time.Second})
		defer x.run(x.Engine)()
		x.tell("go")
		elapse(time.Hour)
		if v, _ := x.see(); len(v.Outbox) != 1 || v.Outbox[0].Tries != 0 || v.Outbox[0].Contentions < 50 {
			t.Errorf("after an hour: %+v", v.Outbox)
		}
		elapse(5 * time.Hour)
		v, d := x.see()
		equal(t, "results", d.Results, []string{"w done"})
		if len(v.Dead) != 0 {
			t.Errorf("dead %v", v.Dead)
		}
	})
}

// Mail that reaches another instance while one holds the subject is the holder's: it comes in order, and costs nobody a
// try or a crash.
func TestBusyLockFailsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold, held := make(chan struct{}), make(chan struct{})
		b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		did := 0
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			if did++; did == 1 {
				close(held)
				<-hold
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("first")
		<-held
		turns := 0
		other := x.engine(&script{look: func(actor.Inputs) { turns++ }}, actor.Options{})
		defer x.run(other)()
		for _, body := range []string{"second", "third"} {
			if _, err := other.Tell(t.Context(), state.Delivery{Subject: subject, ID: "test:" + body, Kind: "note", Format: 1, Body: []byte(body)}); err != nil {
				t.Fatal(err)
			}
			elapse(2 * time.Second)
		}
		close(hold)
		synctest.Wait()
		v, d := x.see()
		equal(t, "mail", d.Seen, []string{"first", "second", "third"})
		if turns != 0 || v.Crashes != 0 || len(v.Outbox) != 0 || v.Unread != 0 {
			t.Errorf("%d turns of the other, %+v", turns, v)
		}
	})
}

// Crashes count only in a row: whatever was saved in between says that the next try is a first one.
func TestProgressClearsCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		die := func(at actor.Point) (after time.Duration) {
			died, began, decided := make(chan struct{}), time.Now(), false
			stop := x.run(x.engine(x.script, actor.Options{Trace: func(_ state.Subject, p actor.Point) {
				if decided = decided || p == actor.AtDecided; decided && p == at {
					after = time.Since(began)
					close(died)
					runtime.Goexit()
				}
			}}))
			<-died
			stop()
			return after
		}
		x.tell("one")
		for range 3 {
			die(actor.AtDecided)
		}
		if v, _ := x.see(); v.Crashes != 2 { // the third is found by whoever comes next
			t.Fatalf("%d crashes", v.Crashes)
		}
		die(actor.AtCommitted) // but with the decision saved
		if v, d := x.see(); v.Crashes != 0 || len(d.Seen) != 1 {
			t.Fatalf("after a save: %d crashes, seen %v", v.Crashes, d.Seen)
		}
		// It died after its save all the same, so this is a first crash again: nothing waits but for the lease.
		x.tell("two")
		if after := die(actor.AtDecided); after > ttl+2*time.Second {
			t.Errorf("waited %v as if it had crashed more than once", after)
		}
	})
}

func TestPanicInLookIsTriedAgainThenDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var at []time.Duration
		began := time.Now()
		b := &script{look: func(in actor.Inputs) {
			if len(in.Mail) > 0 && string(in.Mail[0].Body) == "bad" {
				at = append(at, time.Since(began).Round(10*time.Second))
				panic("cannot look")
			}
		}}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("bad")
		elapse(5 * time.Minute)
		x.tell("good")
		elapse(time.Minute)
		v, d := x.see()
		equal(t, "panics", at, []time.Duration{0, 0, 10 * time.Second, 70 * time.Second})
		equal(t, "mail", d.Seen, []string{"good"})
		letter, err := actor.ReadDeadLetter(t.Context(), x.store, subject, v.Dead[0].ID)
		if err != nil || letter.Mail == nil || string(letter.Mail.Body) != "bad" || !strings.Contains(letter.Why, "cannot look") {
			t.Errorf("%+v, %v", letter, err)
		}
	})
}

func TestMailboxGoesOnAfterGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for _, m := range in.Mail {
				s.Wishes = append(s.Wishes, wish(string(m.Body), actor.Permitting, ""))
			}
			return s
		}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			if e.Key == "never" {
				return actor.Outcome{Code: actor.Refused, Err: errors.New("never")}
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		x.tell("never")
		synctest.Wait()
		x.tell("other")
		synctest.Wait()
		v, d := x.see()
		equal(t, "results", d.Results, []string{"never refused", "other done"})
		if len(v.Dead) != 1 || len(v.Outbox) != 0 {
			t.Errorf("%+v", v)
		}
	})
}

func TestDeadLettersAreKept90Days(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			return actor.Outcome{Code: actor.Refused, Err: errors.New("never")}
		}
		x := newBench(t, b, actor.Options{Poll: 6 * time.Hour})
		defer x.run(x.Engine)()
		x.tell("go")
		synctest.Wait()
		v, _ := x.see()
		id := v.Dead[0].ID
		elapse(actor.DeadLife - time.Hour)
		if _, err := actor.ReadDeadLetter(t.Context(), x.store, subject, id); err != nil {
			t.Errorf("before its time: %v", err)
		}
		elapse(2 * time.Hour)
		if _, err := actor.ReadDeadLetter(t.Context(), x.store, subject, id); !errors.Is(err, actor.ErrNoDeadLetter) {
			t.Errorf("after its time: %v", err)
		}
		if err := x.Discard(t.Context(), subject, id, "tester"); err != nil {
			t.Errorf("its place is left and cannot be discarded: %v", err)
		}
	})
}

// A shutting wish that used up its tries is repeated every six hours, and whenever somebody looks at the outside; the
// alarm ends when it succeeds or when it is to be shut no more, and with nothing else.
func TestShuttingIsTriedAtEachComparison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		var last atomic.Pointer[string]
		var up atomic.Bool
		b := &script{}
		b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
			s := actor.Step[tally]{Next: d}
			for _, m := range in.Mail {
				switch body := string(m.Body); body {
				case "sweep":
					s.Compared = true
				case "chat":
				case "open":
					s.Wishes = append(s.Wishes, wish("gate", actor.Permitting, body))
				default:
					s.Wishes = append(s.Wishes, wish("gate", actor.Shutting, body))
				}
			}
			return s
		}
		b.do = func(_ context.Context, e actor.Entry, _ time.Time, _ func(context.Context) error) actor.Outcome {
			want := string(e.Want)
			last.Store(&want)
			tries.Add(1)
			if !up.Load() {
				return actor.Outcome{Code: actor.Failed, Err: errors.New("down")}
			}
			return actor.Outcome{Code: actor.Done}
		}
		x := newBench(t, b, actor.Options{Poll: 5 * time.Minute})
		defer x.run(x.Engine)()
		pass := func(d time.Duration) {
			elapse(d)
			synctest.Wait()
		}
		alarms := func() int {
			rows, err := x.store.List(t.Context(), actor.IndexOpenOutside, "", 10)
			if err != nil {
				t.Fatal(err)
			}
			return len(rows)
		}
		more := func(do func()) int64 {
			for n := tries.Load(); tries.Load() == n; { // so that the next planned one is hours away
				pass(time.Minute)
			}
			before := tries.Load()
			do()
			synctest.Wait()
			return tries.Load() - before
		}
		x.tell("shut")
		pass(6 * 24 * time.Hour)
		if n := alarms(); n != 1 {
			t.Fatalf("%d alarms after %d tries", n, tries.Load())
		}
		if n := more(func() { pass(24 * time.Hour) }); n < 3 || n > 5 {
			t.Errorf("%d tries in a day, want one every six hours", n)
		}
		if n := more(func() { x.tell("chat") }); n != 0 {
			t.Errorf("%d tries for mail that compares nothing", n)
		}
		if n := more(func() { x.tell("sweep") }); n != 1 {
			t.Errorf("%d tries for a comparison", n)
		}
		if n := more(func() {
			_, err := x.Tell(t.Context(), state.Delivery{Subject: subject, ID: "engine", Kind: actor.KindReconcile, Format: 1, Body: []byte("failover")})
			if err != nil {
				t.Error(err)
			}
		}); n != 1 {
			t.Errorf("%d tries for a reconcile of the engine", n)
		}
		if n := more(func() {
			if err := x.Retry(t.Context(), subject, "gate", "tester"); err != nil {
				t.Error(err)
			}
		}); n != 1 {
			t.Errorf("%d tries for an operator", n)
		}
		if err := x.Retry(t.Context(), subject, "nothing", "tester"); !errors.Is(err, actor.ErrNoDeadLetter) {
			t.Errorf("retry of nothing: %v", err)
		}
		x.tell("shut, in other words")
		if synctest.Wait(); alarms() != 1 || !strings.Contains(*last.Load(), "other words") {
			t.Errorf("%d alarms, last tried %s", alarms(), *last.Load())
		}
		x.tell("open")
		if synctest.Wait(); alarms() != 0 {
			t.Error("alarm for what is to be open")
		}
		x.tell("shut")
		pass(6 * 24 * time.Hour)
		up.Store(true)
		if x.tell("sweep"); alarms() != 1 {
			t.Error("no alarm the second time")
		}
		if synctest.Wait(); alarms() != 0 {
			t.Error("alarm for what is shut")
		}
	})
}

// What the alerts judge by: since when an entry has been put off, that it failed three times, and that a subject does
// anything but fail.
func TestPlacesOfAnEntryInTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var code atomic.Pointer[actor.Code]
		answers := func(c actor.Code) { code.Store(&c) }
		answers(actor.Contention)
		b := &script{decide: wishing(wish("w", actor.Permitting, ""))}
		b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
			return actor.Outcome{Code: *code.Load(), Err: errors.New("x")}
		}
		x := newBench(t, b, actor.Options{})
		defer x.run(x.Engine)()
		began := time.Now()
		pass := func(d time.Duration) {
			elapse(d)
			synctest.Wait()
		}
		at := func(index string) []time.Duration {
			rows, err := x.store.List(t.Context(), index, "", 10)
			if err != nil {
				t.Fatal(err)
			}
			var out []time.Duration
			for _, r := range rows {
				score := r.Score
				if index == actor.IndexTouched {
					score = -score
				}
				out = append(out, time.UnixMilli(int64(score)).Sub(began).Round(time.Second))
			}
			return out
		}
		x.tell("go")
		pass(time.Minute)
		equal(t, "contended", at(actor.IndexContended), []time.Duration{0})
		equal(t, "stuck", at(actor.IndexStuck), nil)
		equal(t, "failing", at(actor.IndexFailing), []time.Duration{0})
		answers(actor.Failed)
		pass(35 * time.Second)
		equal(t, "contended no more", at(actor.IndexContended), nil)
		pass(35 * time.Second)
		equal(t, "stuck", at(actor.IndexStuck), []time.Duration{0})
		equal(t, "touched by its decision only", at(actor.IndexTouched), []time.Duration{0})
		if rows := at(state.OldestSince); len(rows) != 1 || rows[0] < time.Minute {
			t.Errorf("a planned try waits from when it is due: %v", rows)
		}
		answers(actor.Done)
		pass(10 * time.Minute)
		for _, index := range []string{actor.IndexContended, actor.IndexStuck, actor.IndexFailing, state.OldestSince} {
			equal(t, index, at(index), nil)
		}
		if rows := at(actor.IndexTouched); len(rows) != 1 || rows[0] < 2*time.Minute {
			t.Errorf("touched: %v", rows)
		}
	})
}

// What flows through a key that fails, a newer wish every minute, does not make the failing young.
func TestTroubleOutlivesNewerWishes(t *testing.T) {
	for code, index := range map[actor.Code]string{actor.Failed: actor.IndexStuck, actor.Contention: actor.IndexContended} {
		t.Run(index, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &script{}
				b.decide = func(d tally, in actor.Inputs, _ time.Time) actor.Step[tally] {
					s := actor.Step[tally]{Next: d}
					for _, m := range in.Mail {
						s.Wishes = append(s.Wishes, wish("status", actor.Cosmetic, string(m.Body)))
					}
					return s
				}
				b.do = func(context.Context, actor.Entry, time.Time, func(context.Context) error) actor.Outcome {
					return actor.Outcome{Code: code, Err: errors.New("x")}
				}
				x := newBench(t, b, actor.Options{})
				defer x.run(x.Engine)()
				began := time.Now()
				for i := range 20 {
					x.tell(strconv.Itoa(i))
					elapse(time.Minute)
				}
				rows, err := x.store.List(t.Context(), index, "", 10)
				if err != nil || len(rows) != 1 || time.UnixMilli(int64(rows[0].Score)).Sub(began) > time.Minute {
					t.Errorf("%v, %v, began at %v", rows, err, began)
				}
			})
		})
	}
}

// Documents that no behaviour reads (the key of the tokens, say) are not told to reconcile, since nobody would take the
// mail; nor is what works by the clock.
func TestFailoverLeavesPlainDocumentsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newBench(t, &script{}, actor.Options{})
		store := &lossy{Store: x.store}
		e := actor.New(store, x.locker, actor.Options{})
		actor.Register(e, "script", &script{}, actor.KindOptions{})
		actor.Register(e, "system/watch", &script{}, actor.KindOptions{})
		actor.Register(e, "system/clock", &script{}, actor.KindOptions{Clockwork: true})
		keep := func(key string) state.Subject {
			s := state.Subject{Instance: "-", Project: "-", Kind: "system", Key: key}
			_, err := actor.Ask(t.Context(), e, s, "", func(d tally, _ time.Time) (actor.Step[tally], error) {
				return actor.Step[tally]{Next: d, Index: []state.Index{{Name: "kept", Label: key}}}, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		plain, watch, clock := keep("key"), keep("watch"), keep("clock")
		defer x.run(e)()
		elapse(time.Minute)
		other := "another history"
		store.identity.Store(&other)
		elapse(time.Minute)
		for s, told := range map[state.Subject]int{plain: 0, watch: 1, clock: 0} {
			v, err := actor.See(t.Context(), x.store, s)
			if err != nil || v.Unread != 0 || strings.Count(string(v.Doc), "failover") != told || !v.Due.IsZero() {
				t.Errorf("%s: %+v, %s, %v", s, v, v.Doc, err)
			}
		}
		if rows, err := x.store.List(t.Context(), "kept", "", 10); err != nil || !slices.ContainsFunc(rows, func(r state.Entry) bool { return r.Subject == plain }) {
			t.Errorf("%v, %v", rows, err)
		}
	})
}
