package runner

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/forge"
)

// Whatever is asked in whatever order: a job has at most one open task, a key one task and a task one key, a run one
// verdict, green only by the word of the task that holds the job, and in the end every run ends.
func TestModel(t *testing.T) {
	visited := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		runners := []string{"A", "B", "C"}
		b := newBench(t, runners...)
		runs, keys := 0, 0
		byKey := map[string]int64{} // runner/key → task
		given := map[int64]string{} // task → runner/key
		holder := map[int64]string{}
		good := map[int64]bool{} // tasks whose runner said success, with the verdict, while they were theirs
		fetch := func(r, key string) {
			got := b.fetch(r, key)
			if got.Task == 0 {
				return
			}
			at := r + "/" + key
			if was, ok := holder[got.Task]; ok && was != r {
				t.Fatalf("task %d is given to %s and to %s", got.Task, was, r)
			}
			holder[got.Task] = r
			if key == "" {
				if got.Replay {
					t.Fatalf("a replay without a key")
				}
				return
			}
			if id, ok := byKey[at]; ok && id != got.Task {
				t.Fatalf("key %s leads to tasks %d and %d", at, id, got.Task)
			}
			if k, ok := given[got.Task]; ok && k != at {
				t.Fatalf("task %d goes out under %s and %s", got.Task, k, at)
			}
			if _, ok := byKey[at]; ok != got.Replay {
				t.Fatalf("key %s: replay is %v", at, got.Replay)
			}
			byKey[at], given[got.Task] = got.Task, at
		}
		who := func() string { return rapid.SampledFrom(runners).Draw(t, "runner") }
		task := func() int64 { return rapid.Int64Range(max(1, b.p.LastTask-4), b.p.LastTask+1).Draw(t, "task") }
		t.Repeat(map[string]func(*rapid.T){
			"want": func(*rapid.T) {
				runs++
				var jobs []JobSpec
				for i := range rapid.IntRange(1, 3).Draw(t, "jobs") {
					jobs = append(jobs, spec(fmt.Sprint("j", i), rapid.Bool().Draw(t, "safe")))
				}
				b.want(fmt.Sprint("r", runs), jobs...)
			},
			"cancel": func(*rapid.T) { b.cancel(fmt.Sprint("r", rapid.IntRange(max(1, runs-3), runs+1).Draw(t, "run"))) },
			"fetch, new key": func(*rapid.T) {
				keys++
				fetch(who(), fmt.Sprint("k", keys))
			},
			"fetch, old key": func(*rapid.T) {
				if n := len(b.p.Tasks); n > 0 && rapid.Bool().Draw(t, "open key") {
					k := b.p.Tasks[rapid.IntRange(0, n-1).Draw(t, "open")]
					fetch(k.Runner, k.Key)
					return
				}
				fetch(who(), fmt.Sprint("k", rapid.IntRange(max(0, keys-3), keys).Draw(t, "key")))
			},
			"fetch, no key": func(*rapid.T) { fetch(who(), "") },
			"beat":          func(*rapid.T) { b.says(who(), task(), InProgress, "") },
			"all beat": func(*rapid.T) {
				for id := range b.p.LastTask {
					b.says(holder[id+1], id+1, InProgress, "")
				}
			},
			"silence": func(*rapid.T) { b.pass(HeartbeatTTL + time.Second) },
			"end": func(*rapid.T) {
				r, id := who(), task()
				if n := len(b.p.Tasks); n > 0 && rapid.Bool().Draw(t, "own") {
					k := b.p.Tasks[rapid.IntRange(0, n-1).Draw(t, "open")]
					r, id = k.Runner, k.ID
				}
				is := rapid.SampledFrom([]Result{Success, Success, Failure, Cancelled}).Draw(t, "result")
				v := rapid.SampledFrom([]Verdict{verdictGood, verdictGood, "", verdictBad}).Draw(t, "verdict")
				if k := b.p.task(id); k != nil && k.Runner == r && is == Success && k.CancelAt.IsZero() && (k.Verdict == verdictGood || k.Verdict == "" && v == verdictGood) {
					good[id] = true
				}
				b.hears(report{r, id, is, v, rapid.Bool().Draw(t, "log is open")})
			},
			"declare": func(*rapid.T) { r := who(); b.do(func(x *turn) { x.declare(r, "v", []string{"linux"}) }) },
			"pass":    func(*rapid.T) { b.pass(time.Duration(rapid.IntRange(1, 100).Draw(t, "s")) * time.Second) },
			"outage": func(*rapid.T) {
				b.now = b.now.Add(time.Duration(rapid.IntRange(1, 600).Draw(t, "s")) * time.Second)
				b.turn()
			},
			"": func(*rapid.T) { b.sound(good) },
		})
		for i := 0; len(b.p.Jobs) > 0; i++ {
			if i > 1000 {
				t.Fatalf("never ends: %+v", b.p)
			}
			keys++
			if got := b.fetch("A", fmt.Sprint("k", keys)); got.Task != 0 {
				good[got.Task] = true
				b.says("A", got.Task, Success, verdictGood)
			}
			b.pass(30 * time.Second)
			b.sound(good)
		}
		for i := range runs {
			if b.records[resultRecord(fmt.Sprint("r", i+1))] == nil {
				t.Fatalf("run r%d has no result", i+1)
			}
		}
		for _, k := range b.p.Tasks {
			t.Fatalf("task %d is left over", k.ID)
		}
		for _, w := range b.why {
			visited[w] = true
		}
	})
	for _, w := range []string{
		whyWanted, whyCancelled, whyAssigned, whyKeyless, whyReplayed, whyAccepted, whyExpired, whyLost, whyRevived, whyNoVerdict, whyForced, whyEnded, whyLate, whyTimeout,
	} {
		if !visited[w] && w != whyTimeout { // an hour passes in few of the histories
			t.Errorf("no history passed %q", w)
		}
	}
}

// sound checks what must hold after every decision.
func (b *bench) sound(good map[int64]bool) {
	b.t.Helper()
	holds := map[int64]int{}
	for _, k := range b.p.Tasks {
		j := b.p.job(k.Job)
		if j == nil {
			b.t.Fatalf("task %d has no job", k.ID)
		}
		if k.State == taskLost {
			if j.State != jobQueued {
				b.t.Fatalf("lost task %d of a job that is %s", k.ID, j.State)
			}
			continue
		}
		holds[k.Job]++
		if string(j.State) != string(k.State) {
			b.t.Fatalf("task %d is %s, its job %s", k.ID, k.State, j.State)
		}
		if b.records[payloadRecord(k.ID)] == nil {
			b.t.Fatalf("task %d has no payload", k.ID)
		}
	}
	open := map[string]int{}
	for _, j := range b.p.Jobs {
		open[j.Run]++
		if want := map[bool]int{true: 0, false: 1}[j.State == jobQueued]; holds[j.ID] != want {
			b.t.Fatalf("job %d is %s with %d open tasks", j.ID, j.State, holds[j.ID])
		}
		if b.records[jobRecord(j.ID)] == nil {
			b.t.Fatalf("job %d has no definition", j.ID)
		}
	}
	for key, r := range b.p.Runs {
		if r.Open == 0 || r.Open != open[key] {
			b.t.Fatalf("run %s says %d open jobs, there are %d", key, r.Open, open[key])
		}
	}
	ends := map[string]int{}
	for _, r := range b.told {
		if r.State.Completed() {
			if ends[r.Key]++; ends[r.Key] > 1 {
				b.t.Fatalf("run %s has two verdicts", r.Key)
			}
		}
		for _, j := range r.Jobs {
			if r.State.Completed() && !j.State.Completed() || r.State == forge.CheckSuccess && j.State != r.State {
				b.t.Fatalf("run %s is told to be %s, with %+v", r.Key, r.State, j)
			}
		}
	}
	for id := range b.p.LastTask {
		var e ended
		raw := b.records[taskRecord(id+1)]
		if raw == nil {
			continue
		}
		if err := json.Unmarshal(raw, &e); err != nil || e.Result == Success && !good[id+1] {
			b.t.Fatalf("task %d is green without its runner's word", id+1)
		}
	}
	if len(b.p.Tasks) > 0 && b.wake.IsZero() {
		for _, k := range b.p.Tasks {
			if k.State != taskLost {
				b.t.Fatalf("nobody wakes for task %d", k.ID)
			}
		}
	}
}
