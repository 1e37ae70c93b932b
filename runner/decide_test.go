package runner

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// testbed is a test, also one of rapid's.
type testbed interface {
	Fatalf(format string, args ...any)
	Helper()
	Context() context.Context
}

// bench is a pool without engine and store: decisions are applied as the engine would apply them.
type bench struct {
	t       testbed
	p       Pool
	now     time.Time
	wake    time.Time
	records map[string][]byte
	told    []prmanager.Report
	why     []string
}

func newBench(t testbed, runners ...string) *bench {
	b := &bench{t: t, now: time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC), records: map[string][]byte{}}
	b.do(func(x *turn) {
		for _, r := range runners {
			x.invite(registrationToken{Hash: hashed("t"), Labels: []string{"linux", "big"}, Expires: b.now.Add(time.Hour)})
			if _, ok := x.register("t", r, "secret", r, "v1", []string{"linux"}, false); !ok {
				t.Fatalf("register %s", r)
			}
		}
	})
	return b
}

func (b *bench) do(f func(x *turn)) {
	b.t.Helper()
	x := begin(b.p, b.now)
	before := string(encoded(b.p))
	f(x)
	if string(encoded(b.p)) != before {
		b.t.Fatalf("a decision changed the document it was given")
	}
	b.apply(x.step(), x.changed)
	if !x.changed && string(encoded(b.p)) != before {
		b.t.Fatalf("a decision says that nothing changed")
	}
}

func (b *bench) apply(s actor.Step[Pool], save bool) {
	if !save {
		if len(s.Wishes)+len(s.Put) > 0 {
			b.t.Fatalf("effects without a change: %+v", s)
		}
		return
	}
	b.p = Pool{}
	if err := json.Unmarshal(encoded(s.Next), &b.p); err != nil { // as the engine reads it next time
		b.t.Fatalf("read back: %v", err)
	}
	b.wake = s.Wake
	for _, r := range s.Put {
		if r.Value == nil {
			delete(b.records, r.Key)
		} else {
			b.records[r.Key] = r.Value
		}
	}
	for _, w := range s.Wishes {
		var r prmanager.Report
		if err := json.Unmarshal(w.Want, &r); err != nil || w.To == nil || w.Kind != prmanager.KindReport {
			b.t.Fatalf("wish %+v: %v", w, err)
		}
		b.told = append(b.told, r)
	}
	b.why = append(b.why, s.Why...)
}

func (b *bench) turn() {
	look := NewBehaviour(b.record)
	f := look.Look(b.t.Context(), state.Subject{}, b.p, actor.Inputs{}, b.now)
	b.apply(look.Decide(state.Subject{}, b.p, f, actor.Inputs{}, b.now), true)
}

func (b *bench) record(_ context.Context, _ state.Subject, key string) ([]byte, error) {
	if v, ok := b.records[key]; ok {
		return v, nil
	}
	return nil, state.ErrNotFound
}

// pass lets time pass; turns happen when they are due.
func (b *bench) pass(d time.Duration) {
	end := b.now.Add(d)
	for !b.wake.IsZero() && !b.wake.After(end) {
		b.now = later(b.now, b.wake)
		b.turn()
	}
	b.now = end
}

func run(key string) forge.Run {
	return forge.Run{Key: key, Ref: forge.Ref{Repo: forge.Repo{Instance: "test", ID: 1, Name: "o/r"}, Number: 7}, SHA: strings.Repeat("a", 40), BaseSHA: strings.Repeat("b", 40)}
}

func order(key string, jobs ...JobSpec) Order {
	if len(jobs) == 0 {
		jobs = []JobSpec{spec("unit", false)}
	}
	return Order{Run: run(key), Jobs: jobs}
}

func spec(name string, safe bool) JobSpec {
	return JobSpec{Name: name, RunsOn: []string{"linux"}, Timeout: time.Hour, RetrySafe: safe, Steps: []StepSpec{{Run: "true"}}}
}

func (b *bench) want(key string, jobs ...JobSpec) {
	b.do(func(x *turn) { x.wanted(order(key, jobs...)) })
}
func (b *bench) cancel(key string) {
	var seat int64
	raw := b.records[runRecord(key)]
	if raw != nil {
		seat = decoded[Order](raw).Seat
	}
	b.do(func(x *turn) { x.unwanted(key, raw != nil, seat) })
}

// fetch is FetchTask, with the rounds that the service makes.
func (b *bench) fetch(runner, key string) (got fetched) {
	var l looked
	for {
		b.do(func(x *turn) {
			var err error
			got, err = x.fetch(runner, key, l, func(k Task, _ Job) ([]byte, error) { return fmt.Appendf(nil, "payload %d", k.ID), nil })
			if err != nil {
				b.t.Fatalf("fetch: %v", err)
			}
		})
		if got.Need == 0 {
			return got
		}
		l = looked{job: got.Need, served: b.p.Runners[runner].Tasks, spent: b.records[keyRecord(runner, key)] != nil}
	}
}

func (b *bench) says(runner string, task int64, is Result, v Verdict) reported {
	return b.hears(report{Runner: runner, Task: task, Result: is, Verdict: v})
}

func (b *bench) hears(r report) (told reported) {
	b.do(func(x *turn) { told = x.report(r) })
	if !told.Known {
		if raw := b.records[taskRecord(r.Task)]; raw != nil {
			var e ended
			if json.Unmarshal(raw, &e) == nil && e.Runner == r.Runner {
				told = reported{true, e.Result}
				if r.Result == InProgress {
					told.Result = Cancelled
				}
			}
		}
	}
	return told
}

func (b *bench) expect(what string, got, want any) {
	b.t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		b.t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// states are what was told of the run after it was queued, in order.
func (b *bench) states() (out []forge.CheckState) {
	for _, r := range b.told {
		if r.State != forge.CheckQueued {
			out = append(out, r.State)
		}
	}
	return slices.Compact(out)
}

// jobs are what was told last of the jobs, in words.
func (b *bench) jobs() string {
	var out []string
	for _, j := range b.told[len(b.told)-1].Jobs {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %d %s", j.Name, j.State, j.Attempt, j.Note)))
	}
	return strings.Join(out, "; ")
}

const k1, k2 = "k1", "k2"

// The cases of the design's table, one story each.
func TestStories(t *testing.T) {
	for name, story := range map[string]func(b *bench){
		"green": func(b *bench) {
			b.want("r")
			got := b.fetch("A", k1)
			b.expect("fetched", got, fetched{Task: 1})
			b.expect("nothing told before the runner speaks", len(b.states()), 0)
			b.expect("beat", b.says("A", 1, InProgress, ""), reported{true, InProgress})
			b.expect("end", b.says("A", 1, Success, verdictGood), reported{true, Success})
			b.expect("told", b.states(), []forge.CheckState{forge.CheckRunning, forge.CheckSuccess})
			b.expect("left over", len(b.p.Jobs)+len(b.p.Tasks)+len(b.p.Runs), 0)
		},
		"the end waits for the rest of the log, and the first word on it counts": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.expect("early", b.hears(report{"A", 1, Success, verdictGood, true}), reported{true, InProgress})
			b.expect("told", b.states(), []forge.CheckState{forge.CheckRunning})
			b.expect("payload", string(b.records[payloadRecord(1)]), "payload 1")
			b.expect("end", b.says("A", 1, Failure, verdictBad), reported{true, Success})
			b.expect("told", b.states(), []forge.CheckState{forge.CheckRunning, forge.CheckSuccess})
		},
		"a log that nobody ends does not change the end": func(b *bench) {
			b.want("r", spec("one", true), spec("two", true))
			b.fetch("A", k1)
			b.fetch("B", k1)
			for range 59 { // the job may take an hour
				b.says("A", 1, InProgress, "")
				b.says("B", 2, InProgress, "")
				b.pass(time.Minute)
			}
			b.hears(report{"A", 1, Success, verdictGood, true})
			b.hears(report{"B", 2, Failure, "", true})
			b.pass(90 * time.Second)
			b.expect("not yet", b.jobs(), "one in_progress 1; two in_progress 1")
			b.pass(time.Minute)
			b.expect("end", b.jobs(), "one success 1; two failure 1")
		},
		"what is cancelled before its log has ended is cancelled": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.hears(report{"A", 1, Success, verdictGood, true})
			b.cancel("r")
			b.expect("early", b.hears(report{"A", 1, Success, verdictGood, true}), reported{true, Cancelled})
			b.expect("end", b.says("A", 1, Success, verdictGood), reported{true, Cancelled})
		},
		"a job that no runner takes fails after a day": func(b *bench) {
			odd := spec("odd", false)
			odd.RunsOn = []string{"windows"}
			b.want("r", spec("one", false), odd)
			b.fetch("A", k1)
			b.says("A", 1, Success, verdictGood)
			b.pass(abandonAfter - time.Second)
			b.expect("still waits", b.jobs(), "odd queued 0; one success 1")
			b.pass(2 * time.Second)
			b.expect("end", b.jobs(), "odd failure 0 No runner took the job within a day; one success 1")
			b.expect("told", b.states()[len(b.states())-1], forge.CheckFailure)
			b.expect("left over", len(b.p.Jobs)+len(b.p.Runs), 0)
		},
		"a job whose runner was lost waits a day anew": func(b *bench) {
			b.want("r", spec("one", true))
			b.pass(abandonAfter - time.Minute)
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.pass(HeartbeatTTL)
			b.expect("queued again", b.p.Jobs[0].Since, b.now)
			b.pass(abandonAfter - time.Second)
			b.expect("taken", b.fetch("A", k2), fetched{Task: 2})
		},
		"a day in which no server was up is no runner's fault": func(b *bench) {
			b.want("r")
			b.now = b.now.Add(2 * abandonAfter)
			b.turn()
			b.expect("still there", len(b.p.Jobs), 1)
			b.pass(AcceptTTL - time.Second)
			b.expect("taken", b.fetch("A", k1), fetched{Task: 1})
			b.pass(AcceptTTL + time.Second)
			b.expect("the day begins anew", b.wake, b.p.Jobs[0].Since.Add(abandonAfter))
		},
		"identical calls get one task": func(b *bench) {
			b.want("r", spec("one", false), spec("two", false))
			b.fetch("A", k1)
			b.expect("again", b.fetch("A", k1), fetched{Task: 1, Replay: true})
			b.expect("tasks", len(b.p.Tasks), 1)
			b.expect("payload", string(b.records[payloadRecord(1)]), "payload 1")
		},
		"retry after accept replays and leaves the lease alone": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			until := b.p.Tasks[0].LeaseUntil
			b.pass(10 * time.Second)
			b.expect("again", b.fetch("A", k1), fetched{Task: 1, Replay: true})
			b.expect("lease", b.p.Tasks[0].LeaseUntil, until)
		},
		"replay extends the lease of what is not accepted": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.pass(50 * time.Second)
			b.fetch("A", k1)
			b.pass(50 * time.Second)
			b.expect("beat", b.says("A", 1, InProgress, ""), reported{true, InProgress})
		},
		"retry after the end is spent": func(b *bench) {
			b.want("r", spec("one", false), spec("two", false))
			b.fetch("A", k1)
			b.says("A", 1, Success, verdictGood)
			b.expect("again", b.fetch("A", k1), fetched{Spent: true})
			b.expect("another key", b.fetch("A", k2), fetched{Task: 2})
		},
		"a key that was looked for before it was used is looked for again": func(b *bench) {
			b.want("r", spec("one", false), spec("two", false))
			before := looked{job: 2, served: b.p.Runners["A"].Tasks}
			b.fetch("A", k1)
			b.says("A", 1, Success, verdictGood)
			var got fetched
			b.do(func(x *turn) { got, _ = x.fetch("A", k1, before, nil) })
			b.expect("again", got, fetched{Need: 2})
		},
		"retry after expiry is spent": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.pass(61 * time.Second)
			b.expect("again", b.fetch("A", k1), fetched{Spent: true})
			b.expect("late word", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.expect("another key", b.fetch("A", k2), fetched{Task: 2})
			b.expect("attempt", b.p.Tasks[0].Attempt, 1)
		},
		"same key of another runner is another": func(b *bench) {
			b.want("r", spec("one", false), spec("two", false))
			b.fetch("A", k1)
			b.expect("other", b.fetch("B", k1), fetched{Task: 2})
		},
		"no key, lost answer: back after the accept lease": func(b *bench) {
			b.want("r")
			b.fetch("A", "")
			b.expect("nothing yet", b.fetch("A", ""), fetched{})
			b.pass(61 * time.Second)
			b.expect("then", b.fetch("A", ""), fetched{Task: 2})
			if !slices.Contains(b.why, whyKeyless) || !slices.Contains(b.why, whyExpired) {
				b.t.Fatalf("reasons %v", b.why)
			}
		},
		"Declare between: leased tasks are queued again": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.do(func(x *turn) { x.declare("A", "v2", []string{"linux"}) })
			b.expect("old key", b.fetch("A", k1), fetched{Spent: true})
			b.expect("new key", b.fetch("A", k2), fetched{Task: 2})
		},
		"Declare cuts the lease of a running task, a heartbeat keeps it": func(b *bench) {
			b.want("r", spec("one", false), spec("two", false))
			b.fetch("A", k1)
			b.fetch("A", k2)
			b.says("A", 1, InProgress, "")
			b.says("A", 2, InProgress, "")
			b.do(func(x *turn) { x.declare("A", "v2", []string{"linux"}) })
			b.says("A", 2, InProgress, "")
			b.pass(31 * time.Second)
			b.expect("silent", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.expect("alive", b.says("A", 2, InProgress, ""), reported{true, InProgress})
		},
		"Declare never widens": func(b *bench) {
			b.do(func(x *turn) { x.declare("A", "v2", []string{"linux:host", "big", "linux"}) })
			b.expect("labels", b.p.Runners["A"].Labels, []string{"linux"})
		},
		"labels decide": func(b *bench) {
			big := spec("one", false)
			big.RunsOn = []string{"linux", "big"}
			b.want("r", big, spec("two", false))
			b.expect("only the second", b.fetch("A", k1), fetched{Task: 1})
			b.expect("job", b.p.job(b.p.Tasks[0].Job).Name, "two")
			b.expect("no more", b.fetch("A", k2), fetched{})
		},
		"first terminal word wins": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, Failure, "")
			b.expect("later", b.says("A", 1, Success, verdictGood), reported{true, Failure})
			b.expect("told", b.states(), []forge.CheckState{forge.CheckFailure})
		},
		"success without the verdict fails": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.expect("end", b.says("A", 1, Success, ""), reported{true, Failure})
		},
		"a wrong verdict cannot be mended": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, verdictBad)
			b.expect("end", b.says("A", 1, Success, verdictGood), reported{true, Failure})
		},
		"the verdict may come before the end": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, verdictGood)
			b.expect("end", b.says("A", 1, Success, ""), reported{true, Success})
		},
		"cancelled, and the runner says success": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.cancel("r")
			b.expect("beat", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.expect("end", b.says("A", 1, Success, verdictGood), reported{true, Cancelled})
			b.expect("told", b.states()[1:], []forge.CheckState{forge.CheckCancelled})
		},
		"cancelled, and the runner goes on for ever": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.cancel("r")
			for range 13 {
				b.pass(5 * time.Second)
				b.expect("beat", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			}
			b.expect("closed", len(b.p.Tasks), 0)
			b.expect("told", b.states()[1:], []forge.CheckState{forge.CheckCancelled})
		},
		"cancelled before it was accepted: its key is spent": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.cancel("r")
			b.expect("again", b.fetch("A", k1), fetched{Spent: true})
			b.expect("beat", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.pass(61 * time.Second)
			b.expect("told", b.states(), []forge.CheckState{forge.CheckCancelled})
		},
		"cancelled while queued": func(b *bench) {
			b.want("r")
			b.cancel("r")
			b.expect("none", b.fetch("A", k1), fetched{})
			b.expect("told", b.states(), []forge.CheckState{forge.CheckCancelled})
		},
		"cancelled before it was wanted": func(b *bench) {
			b.cancel("r")
			b.want("r")
			b.expect("none", b.fetch("A", k1), fetched{})
			b.expect("forgotten", len(b.p.Unwanted), 0)
		},
		"a cancel of nobody's key is forgotten after a day": func(b *bench) {
			b.cancel("r")
			b.pass(25 * time.Hour)
			b.expect("forgotten", len(b.p.Unwanted), 0)
		},
		"cancel and Declare": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.cancel("r")
			b.do(func(x *turn) { x.declare("A", "v2", []string{"linux"}) })
			b.expect("told", b.states(), []forge.CheckState{forge.CheckCancelled})
			b.expect("left over", len(b.p.Jobs)+len(b.p.Tasks), 0)
		},
		"lost, not retry-safe": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.pass(181 * time.Second)
			b.expect("told", b.states()[1:], []forge.CheckState{forge.CheckFailure})
			b.expect("jobs", b.jobs(), "unit failure 1 The runner was lost")
			b.expect("late word", b.says("A", 1, Success, verdictGood), reported{true, InfraLost})
			var o outcome
			_ = json.Unmarshal(b.records[resultRecord("r")], &o)
			b.expect("job", o.Jobs["unit"], InfraLost)
		},
		"lost and taken back": func(b *bench) {
			b.want("r", spec("unit", true))
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.pass(181 * time.Second)
			b.expect("key", b.fetch("A", k1), fetched{Spent: true})
			b.expect("revived", b.says("A", 1, InProgress, ""), reported{true, InProgress})
			b.expect("not offered", b.fetch("B", k1), fetched{})
			b.says("A", 1, Success, verdictGood)
			b.expect("told", b.states()[1:], []forge.CheckState{forge.CheckSuccess})
		},
		"lost and given to another, never to come back": func(b *bench) {
			b.want("r", spec("unit", true))
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.pass(181 * time.Second)
			b.expect("jobs", b.jobs(), "unit in_progress 1 The runner was lost; another one is waited for")
			b.expect("not at once to the same", b.fetch("A", k2), fetched{})
			b.expect("the other", b.fetch("B", k1), fetched{Task: 2})
			b.expect("jobs", b.jobs(), "unit in_progress 2 The runner was lost; another one is waited for")
			b.expect("told to stop", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.expect("no verdict", b.says("A", 1, Success, verdictGood), reported{true, InfraLost})
			b.says("B", 2, InProgress, "")
			b.pass(181 * time.Second)
			b.expect("lost twice", b.states()[1:], []forge.CheckState{forge.CheckFailure})
		},
		"lost, then cancelled": func(b *bench) {
			b.want("r", spec("unit", true))
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.pass(181 * time.Second)
			b.cancel("r")
			b.expect("told to stop", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.expect("left over", len(b.p.Jobs)+len(b.p.Tasks), 0)
		},
		"heartbeats are saved seldom": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			saves := 0
			for range 180 {
				b.pass(time.Second)
				was := string(encoded(b.p))
				b.says("A", 1, InProgress, "")
				if string(encoded(b.p)) != was {
					saves++
				}
			}
			if saves < 2 || saves > 3 {
				b.t.Fatalf("%d saves in 3 minutes", saves)
			}
		},
		"a wake that is late gives running tasks a full lease": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.now = b.now.Add(10 * time.Minute) // no server
			b.turn()
			b.expect("still there", b.says("A", 1, Success, verdictGood), reported{true, Success})
		},
		"a wake a little late does not": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.now = b.now.Add(HeartbeatTTL + lateWake)
			b.turn()
			b.expect("lost", b.states()[1:], []forge.CheckState{forge.CheckFailure})
		},
		"timeout": func(b *bench) {
			j := spec("unit", false)
			j.Timeout = 5 * time.Minute
			b.want("r", j)
			b.fetch("A", k1)
			for range 61 {
				b.says("A", 1, InProgress, "")
				b.pass(5 * time.Second)
			}
			b.expect("told to stop", b.says("A", 1, InProgress, ""), reported{true, Cancelled})
			b.expect("red", b.says("A", 1, Success, verdictGood), reported{true, Failure})
		},
		"a task of another is not there": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.expect("other", b.says("B", 1, Success, verdictGood), reported{})
			b.expect("unknown", b.says("B", 99, InProgress, ""), reported{})
			b.says("A", 1, Success, verdictGood)
			b.expect("other, ended", b.says("B", 1, Success, verdictGood), reported{})
		},
		"one red job makes the run red, once all have ended": func(b *bench) {
			b.want("r", spec("two", false), spec("one", false))
			b.expect("jobs", b.jobs(), "one queued 0; two queued 0")
			b.fetch("A", k1)
			b.expect("jobs", b.jobs(), "one queued 0; two queued 1")
			b.fetch("B", k1)
			b.says("A", 1, InProgress, "")
			b.expect("jobs", b.jobs(), "one queued 1; two in_progress 1")
			b.says("A", 1, Failure, "")
			b.expect("jobs", b.jobs(), "one queued 1; two failure 1")
			b.expect("wait", b.states(), []forge.CheckState{forge.CheckRunning})
			b.says("B", 2, Success, verdictGood)
			b.expect("jobs", b.jobs(), "one success 1; two failure 1")
			b.expect("told", b.states(), []forge.CheckState{forge.CheckRunning, forge.CheckFailure})
		},
		"an ephemeral runner is gone after the task that it accepted": func(b *bench) {
			b.do(func(x *turn) { x.register("t", "E", "secret", "E", "v1", []string{"linux"}, true) })
			b.want("r", spec("one", false), spec("two", true))
			b.expect("fetched", b.fetch("E", k1), fetched{Task: 1})
			b.expect("no second", b.fetch("E", k2), fetched{})
			b.pass(AcceptTTL + time.Second)
			b.expect("another, for the first was not accepted", b.fetch("E", k2), fetched{Task: 2})
			b.says("E", 2, Success, verdictGood)
			b.expect("gone", len(b.p.Runners), 2)
			b.do(func(x *turn) { x.register("t", "F", "secret", "F", "v1", []string{"linux"}, true) })
			b.expect("fetched", b.fetch("F", k1), fetched{Task: 3})
			b.says("F", 3, InProgress, "")
			b.pass(HeartbeatTTL)
			b.expect("lost, and it may come back", b.fetch("F", k2), fetched{})
			b.expect("of another", b.fetch("A", k1), fetched{Task: 4})
			b.expect("gone", len(b.p.Runners), 2)
		},
		"a removed runner's tasks are lost": func(b *bench) {
			b.want("r")
			b.fetch("A", k1)
			b.says("A", 1, InProgress, "")
			b.do(func(x *turn) { x.remove("A") })
			b.pass(time.Second)
			b.expect("told", b.states()[1:], []forge.CheckState{forge.CheckFailure})
		},
	} {
		t.Run(name, func(t *testing.T) { story(newBench(t, "A", "B")) })
	}
}

// Beyond what fits runs wait, in order, and as many are let in as end. What nobody takes keeps nothing else from the
// runners that ask, up to a thousand open jobs.
func TestRunsWaitForRoom(t *testing.T) {
	b := newBench(t, "A")
	b.do(func(x *turn) { x.register("t", "B", "secret", "B", "v1", []string{"big"}, false) })
	wait := func(from, to int64) {
		t.Helper()
		b.expect("waiting", []int64{b.p.Seated, b.p.LastSeat}, []int64{from, to})
		for n := range b.p.LastSeat {
			if got := b.records[seatRecord(n+1)] != nil; got && n < from {
				t.Fatalf("seat %d has left its record", n+1)
			}
		}
	}
	for i := range maxQueued + 4 {
		b.want(fmt.Sprint("r", i))
	}
	b.expect("jobs", len(b.p.Jobs), maxQueued)
	wait(0, 4)
	b.cancel(fmt.Sprint("r", maxQueued+1))
	b.cancel("later")
	b.want("later")
	wait(0, 4)
	for i := range 2 {
		b.fetch("A", fmt.Sprint("k", i))
		b.want(fmt.Sprint("q", i)) // there is room, but others were here before
		if b.wake != b.now {
			t.Fatal("nobody comes to let the next in")
		}
		b.turn()
	}
	wait(3, 6)
	b.expect("last", b.p.Jobs[maxQueued+1].Run, fmt.Sprint("r", maxQueued+2))

	big := spec("unit", false)
	big.RunsOn = []string{"big"}
	for i := range maxOpenJobs {
		b.want(fmt.Sprint("s", i))
		if i == 100 {
			b.want("big", big)
		}
	}
	b.cancel("s101")
	b.cancel("unheard")
	b.do(func(x *turn) { x.unwanted("s102", false, 0) }) // it was looked for before it came
	var got fetched
	for i := 0; got.Task == 0 && i < 10; i++ {
		got = b.fetch("B", fmt.Sprint("k", i))
		b.turn()
	}
	if got.Task == 0 {
		t.Fatal("what nobody takes stands in the way")
	}
	room := len(b.p.Jobs)
	b.turn()
	b.expect("jobs that are let in for nobody", len(b.p.Jobs)-room, 0)
	for i := range maxOpenJobs / maxQueued * 2 {
		b.fetch("B", fmt.Sprint("l", i))
		b.turn()
	}
	b.expect("jobs", len(b.p.Jobs), maxOpenJobs)
	b.expect("let in without need, once some have ended", b.p.Starved, false)
	for _, key := range []string{fmt.Sprint("r", maxQueued+1), "later", "s101", "s102"} {
		if _, open := b.p.Runs[key]; open || decoded[outcome](b.records[resultRecord(key)]).Result != Cancelled {
			t.Errorf("run %s is not cancelled", key)
		}
	}
	if b.p.Unwanted["unheard"].IsZero() || len(b.p.Unwanted) != 1 {
		t.Errorf("remembered: %v", b.p.Unwanted)
	}
}

// While the records of those who wait cannot be read, nothing is lost.
func TestWaitingRunsThatCannotBeRead(t *testing.T) {
	b := newBench(t, "A")
	for i := range maxQueued + 1 {
		b.want(fmt.Sprint("r", i))
	}
	b.fetch("A", k1)
	broken := NewBehaviour(func(context.Context, state.Subject, string) ([]byte, error) { return nil, context.DeadlineExceeded })
	s := broken.Decide(state.Subject{}, b.p, broken.Look(t.Context(), state.Subject{}, b.p, actor.Inputs{}, b.now), actor.Inputs{}, b.now)
	b.expect("seat", s.Next.Seated, 0)
	b.expect("wake", s.Wake, b.now.Add(admitRetry))
}

func TestRegistration(t *testing.T) {
	b := newBench(t)
	try := func(token string, labels ...string) (ok bool) {
		b.do(func(x *turn) { _, ok = x.register(token, fmt.Sprint(len(x.p.Runners)), "s", "n", "v", labels, false) })
		return ok
	}
	b.do(func(x *turn) {
		x.invite(registrationToken{hashed("once"), []string{"linux"}, b.now.Add(time.Hour), true})
	})
	b.do(func(x *turn) {
		x.invite(registrationToken{hashed("hour"), []string{"linux", "arm"}, b.now.Add(time.Hour), false})
	})
	b.expect("bad token", try("no", "linux"), false)
	b.expect("no label of its own", try("once", "arm"), false)
	b.expect("once", try("once", "linux:host", "arm"), true)
	b.expect("allowed", b.p.Runners["0"].Allowed, []string{"linux"})
	b.expect("twice", try("once", "linux"), false)
	b.expect("hour", try("hour", "arm"), true)
	b.expect("hour again", try("hour"), true)
	b.expect("all that is granted", b.p.Runners["2"].Allowed, []string{"linux", "arm"})
	b.do(func(x *turn) { x.declare("2", "v", []string{"arm:host", "windows"}) })
	b.expect("declared", b.p.Runners["2"].Labels, []string{"arm"})
	b.now = b.now.Add(time.Hour)
	b.expect("expired", try("hour", "arm"), false)
	if raw := string(encoded(b.p)); strings.Contains(raw, `"once"`) || strings.Contains(raw, `"s"`) {
		t.Fatalf("a token stands in the document: %s", raw)
	}
	b.expect("listed", len(b.p.list()), len(slices.Collect(maps.Keys(b.p.Runners))))
}

func decoded[T any](b []byte) (v T) {
	if err := json.Unmarshal(b, &v); err != nil {
		panic(err)
	}
	return v
}
