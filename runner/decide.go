package runner

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// Reasons that a decision passes: metric label and log line (R12).
const (
	whyWanted    = "run wanted"
	whyCancelled = "run cancelled"
	whyAssigned  = "task assigned"
	whyKeyless   = "task assigned without request key"
	whyReplayed  = "task replayed"
	whyAccepted  = "task accepted"
	whyExpired   = "task never accepted"
	whyLost      = "runner lost"
	whyRevived   = "lost runner came back"
	whyNoVerdict = "success without verdict"
	whyTimeout   = "job timed out"
	whyForced    = "closed without the runner's word"
	whyEnded     = "task ended"
	whyLate      = "deadlines missed while no server was up"
	whyAbandoned = "no runner took the job"
)

// ended is the record of a task that has left the document.
type ended struct {
	Runner string `json:"runner"`
	Run    string `json:"run"`
	Job    string `json:"job"`
	Result Result `json:"result"`
}

// outcome is the record of a run that has ended.
type outcome struct {
	Result Result            `json:"result"`
	Jobs   map[string]Result `json:"jobs,omitempty"`
	Logs   []LogOf           `json:"logs,omitempty"`
	URL    string            `json:"url,omitempty"`
}

// waiting is the record of a seat.
type waiting struct {
	Run string `json:"run"`
}

func seatRecord(n int64) string           { return "seat/" + strconv.FormatInt(n, 10) }
func runRecord(key string) string         { return "run/" + key }
func resultRecord(key string) string      { return "result/" + key }
func jobRecord(id int64) string           { return "job/" + strconv.FormatInt(id, 10) }
func payloadRecord(task int64) string     { return "payload/" + strconv.FormatInt(task, 10) }
func taskRecord(task int64) string        { return "task/" + strconv.FormatInt(task, 10) }
func keyRecord(runner, key string) string { return "key/" + runner + "/" + key }

// turn is one decision under way: the document as it will be, and what goes out with it.
type turn struct {
	p       Pool
	now     time.Time
	changed bool // nothing is saved otherwise
	wishes  []actor.Wish
	put     []state.Record
	why     []string
}

func begin(p Pool, now time.Time) *turn { return &turn{p: p.clone(), now: now} }

func (t *turn) step() actor.Step[Pool] {
	s := actor.Step[Pool]{Next: t.p, Wishes: t.wishes, Wake: t.p.wake(), Put: t.put, Why: t.why}
	if t.p.waits() && t.p.room() > 0 {
		s.Wake = t.now
	}
	return s
}

func (t *turn) pass(why string) { t.changed, t.why = true, append(t.why, why) }

func (t *turn) keep(key string, v any, ttl time.Duration) {
	t.put = append(t.put, state.Record{Key: key, Value: encoded(v), TTL: ttl})
}

// wanted takes up a run. The caller has seen that its record is not there.
func (t *turn) wanted(o Order) {
	t.pass(whyWanted)
	if !t.spurned(o.Run.Key) {
		if t.p.waits() || t.p.room() <= 0 {
			t.p.LastSeat++
			o.Seat = t.p.LastSeat
			t.keep(seatRecord(o.Seat), waiting{o.Run.Key}, runMemory)
		} else {
			t.admit(o)
		}
	}
	t.keep(runRecord(o.Run.Key), o, runMemory)
}

// spurned ends a run that was cancelled before it was known.
func (t *turn) spurned(key string) bool {
	_, ok := t.p.Unwanted[key]
	if ok {
		delete(t.p.Unwanted, key)
		t.keep(resultRecord(key), outcome{Result: Cancelled}, runMemory)
	}
	return ok
}

// admit makes a run's jobs.
func (t *turn) admit(o Order) {
	t.changed = true
	t.p.Version++
	for _, d := range o.Jobs {
		t.p.LastJob++
		t.p.Jobs = append(t.p.Jobs, Job{
			ID: t.p.LastJob, Run: o.Run.Key, Name: d.Name, RunsOn: d.RunsOn, Timeout: d.Timeout, RetrySafe: d.RetrySafe,
			State: jobQueued, Since: t.now,
		})
		t.keep(jobRecord(t.p.LastJob), definition{Run: o.Run, Clone: o.Clone, Job: d}, 0)
	}
	if t.p.Runs == nil {
		t.p.Runs = map[string]Run{}
	}
	t.p.Runs[o.Run.Key] = Run{Key: o.Run.Key, Report: o.reportTo(), Open: len(o.Jobs), URL: o.URL}
	t.tell(o.Run.Key)
}

// waited takes up the runs that wait longest, as read from their records, as far as there is room. One that is nil was
// cancelled in its seat.
func (t *turn) waited(next []*Order) {
	for _, o := range next {
		if t.p.room() <= 0 {
			break
		}
		t.p.Seated++
		t.put, t.changed = append(t.put, state.Record{Key: seatRecord(t.p.Seated)}), true
		if o != nil && !t.spurned(o.Run.Key) {
			t.admit(*o)
		}
	}
	if len(next) > 0 {
		t.p.Starved = false
	}
}

// unwanted cancels a run: queued jobs end at once, runners are told to stop. A key that is not known yet is remembered.
// seat is the run's, 0 if it never had one.
func (t *turn) unwanted(key string, known bool, seat int64) {
	r, open := t.p.Runs[key]
	switch {
	case seat > t.p.Seated:
		t.pass(whyCancelled)
		t.keep(resultRecord(key), outcome{Result: Cancelled}, runMemory)
		t.put = append(t.put, state.Record{Key: seatRecord(seat)})
		return
	case !open && known, open && r.Cancel:
		return
	case !open:
		t.pass(whyCancelled)
		if t.p.Unwanted == nil {
			t.p.Unwanted = map[string]time.Time{}
		}
		t.p.Unwanted[key] = t.now.Add(cancelMemory)
		return
	}
	t.pass(whyCancelled)
	r.Cancel = true
	t.p.Runs[key] = r
	for _, j := range slices.Clone(t.p.Jobs) {
		switch {
		case j.Run != key:
		case j.State == jobQueued:
			t.finish(j.ID, Cancelled)
		default:
			for i := range t.p.Tasks {
				if k := &t.p.Tasks[i]; k.Job == j.ID && k.State != taskLost && k.CancelAt.IsZero() {
					k.CancelAt = t.now
				}
			}
		}
	}
}

// fetched is the answer to a FetchTask.
type fetched struct {
	Task   int64 // 0 = none
	Replay bool
	Spent  bool
	Need   int64 // the definition of this job must be read first, and whether the key is old
}

// seen notes the contact, so seldom that idle runners hardly write.
func (t *turn) seen(uuid string) {
	if r := t.p.Runners[uuid]; t.now.Sub(r.Seen) >= seenEvery {
		r.Seen, t.changed = t.now, true
		t.p.Runners[uuid] = r
	}
}

// looked is what was read for a FetchTask before it is decided.
type looked struct {
	job    int64 // whose definition was read
	served int64 // Runner.Tasks when the key's record was looked for
	spent  bool  // the record was there
	def    definition
	loan   loan
}

// fetch decides a FetchTask (R3). payload freezes what the runner gets.
func (t *turn) fetch(uuid, key string, l looked, payload func(task Task, j Job) ([]byte, error)) (fetched, error) {
	if k := t.p.keyed(uuid, key); k != nil {
		if k.State == taskLost || !k.CancelAt.IsZero() {
			return fetched{Spent: true}, nil
		}
		if k.State == taskLeased {
			k.LeaseUntil = t.now.Add(AcceptTTL)
			t.pass(whyReplayed)
		}
		return fetched{Task: k.ID, Replay: true}, nil
	}
	j := t.p.next(uuid, t.now)
	t.seen(uuid)
	r := t.p.Runners[uuid]
	switch {
	case r.Ephemeral && slices.ContainsFunc(t.p.Tasks, func(k Task) bool { return k.Runner == uuid }):
		return fetched{}, nil
	case j == nil:
		if t.p.waits() && !t.p.Starved && len(t.p.Jobs) < maxOpenJobs {
			t.p.Starved, t.changed = true, true
		}
		return fetched{}, nil
	case l.job != j.ID || key != "" && l.served != r.Tasks:
		return fetched{Need: j.ID}, nil
	case key != "" && l.spent:
		return fetched{Spent: true}, nil
	}
	t.drop(func(k Task) bool { return k.Job == j.ID }) // a lost one, which from now on never comes back
	t.p.LastTask++
	r.Tasks++
	r.Seen = t.now
	t.p.Runners[uuid] = r
	j.State = jobLeased
	j.Attempts++
	k := Task{ID: t.p.LastTask, Job: j.ID, Attempt: j.Attempts, Runner: uuid, Key: key, State: taskLeased, LeasedAt: t.now, LeaseUntil: t.now.Add(AcceptTTL)}
	b, err := payload(k, *j)
	if err != nil {
		return fetched{}, err
	}
	t.p.Tasks = append(t.p.Tasks, k)
	run := t.p.Runs[j.Run]
	run.Logs = append(run.Logs, LogOf{k.ID, j.Name, k.Attempt})
	t.p.Runs[j.Run] = run
	t.put = append(t.put, state.Record{Key: payloadRecord(k.ID), Value: b})
	t.tell(j.Run)
	t.pass(whyAssigned)
	if key == "" {
		t.pass(whyKeyless)
	} else {
		t.keep(keyRecord(uuid, key), k.ID, keyMemory)
	}
	return fetched{Task: k.ID}, nil
}

// drop takes tasks out of the document for good; their records say what the runner is answered from now on.
func (t *turn) drop(which func(Task) bool) {
	for _, k := range t.p.Tasks {
		if which(k) {
			t.close(k, InfraLost)
		}
	}
}

// close ends a task, and an ephemeral runner with it: code of pull requests has had its registration in its hands.
func (t *turn) close(k Task, r Result) {
	if r != Expired && t.p.Runners[k.Runner].Ephemeral {
		delete(t.p.Runners, k.Runner)
	}
	e := ended{Runner: k.Runner, Result: r}
	if j := t.p.job(k.Job); j != nil {
		e.Run, e.Job = j.Run, j.Name
	}
	t.p.Tasks = slices.DeleteFunc(slices.Clone(t.p.Tasks), func(o Task) bool { return o.ID == k.ID })
	t.keep(taskRecord(k.ID), e, taskMemory)
	t.put = append(t.put, state.Record{Key: payloadRecord(k.ID)})
	t.changed = true
}

// report is an UpdateTask or UpdateLog as the decision sees it.
type report struct {
	Runner  string
	Task    int64
	Result  Result // InProgress, Success, Failure or Cancelled
	Verdict Verdict
	Open    bool // the runner has begun a log and not sealed it
}

// reported is the answer: whether the task is in the document, and what the runner is told it is.
type reported struct {
	Known  bool
	Result Result
}

// report decides the word of a runner on a task (R5, R6, R8).
func (t *turn) report(r report) reported {
	k := t.p.task(r.Task)
	if k == nil || k.Runner != r.Runner {
		return reported{}
	}
	j := t.p.job(k.Job)
	if r.Verdict != "" && k.Verdict == "" {
		k.Verdict, t.changed = r.Verdict, true
	}
	if k.State == taskLost {
		k.State, j.State = taskRunning, jobRunning
		k.LeaseUntil = t.now.Add(HeartbeatTTL)
		t.pass(whyRevived)
		t.tell(j.Run)
	}
	if k.State == taskLeased && k.CancelAt.IsZero() {
		k.State, j.State, k.AcceptedAt = taskRunning, jobRunning, t.now
		k.LeaseUntil = t.now.Add(HeartbeatTTL)
		t.pass(whyAccepted)
		run := t.p.Runs[j.Run]
		run.Told = Started
		t.p.Runs[j.Run] = run
		t.tell(j.Run)
	}
	if r.Result != InProgress && k.Said == InProgress {
		k.Said, t.changed = r.Result, true
	}
	if r.Result != InProgress && !r.Open {
		return reported{true, t.conclude(*k, k.Said)}
	}
	if !k.CancelAt.IsZero() {
		return reported{true, Cancelled}
	}
	if k.LeaseUntil.Before(t.now.Add(HeartbeatTTL * 2 / 3)) {
		k.LeaseUntil, t.changed = t.now.Add(HeartbeatTTL), true
	}
	return reported{true, InProgress}
}

// conclude turns a runner's terminal report into a verdict: green takes the word of the payload's last step, too, for
// runners report success for what was cancelled or killed.
func (t *turn) conclude(k Task, said Result) Result {
	t.pass(whyEnded)
	is := Failure
	switch {
	case k.TimedOut:
	case !k.CancelAt.IsZero():
		is = Cancelled
	case said == Success && k.Verdict == verdictGood:
		is = Success
	case said == Success:
		t.pass(whyNoVerdict)
	}
	job := k.Job
	t.close(k, is)
	t.finish(job, is)
	return is
}

// finish ends a job, and its run with the last one.
func (t *turn) finish(id int64, is Result) {
	t.drop(func(k Task) bool { return k.Job == id })
	j := *t.p.job(id)
	t.p.Jobs = slices.DeleteFunc(slices.Clone(t.p.Jobs), func(o Job) bool { return o.ID == id })
	t.put = append(t.put, state.Record{Key: jobRecord(id)})
	t.changed = true
	r := t.p.Runs[j.Run]
	if r.Ended == nil {
		r.Ended = map[string]Result{}
	}
	r.Ended[j.Name] = is
	r.Open--
	if r.Open == 0 {
		r.Told = r.sum()
		t.keep(resultRecord(j.Run), outcome{Result: r.Told, Jobs: r.Ended, Logs: r.Logs, URL: r.URL}, runMemory)
	}
	t.p.Runs[j.Run] = r
	t.tell(j.Run)
	if r.Open == 0 {
		delete(t.p.Runs, j.Run)
	}
}

// sum is green if every job is.
func (r Run) sum() Result {
	is := Success
	for _, e := range r.Ended {
		switch {
		case e == Cancelled && r.Cancel:
			return Cancelled
		case e != Success:
			is = Failure
		}
	}
	return is
}

// tell tells the pull request how a run stands, all its jobs at once (R11): what comes later may come instead.
func (t *turn) tell(key string) {
	r := t.p.Runs[key]
	t.changed = true
	w := actor.Wish{
		Key: "report/" + key, Class: actor.Shutting, Kind: prmanager.KindReport, To: &r.Report,
		Want: encoded(prmanager.Report{Key: key, State: r.Told.check(), URL: r.URL, RunID: key, Attempt: 1, Jobs: t.p.told(r)}),
	}
	if i := slices.IndexFunc(t.wishes, func(o actor.Wish) bool { return o.Key == w.Key }); i >= 0 {
		t.wishes[i] = w
		return
	}
	t.wishes = append(t.wishes, w)
}

// told lists the jobs of an open run by name. A job that goes to another runner stays in progress: checks do not go back.
func (p *Pool) told(r Run) []prmanager.Job {
	jobs := make([]prmanager.Job, 0, len(r.Ended)+r.Open)
	for _, j := range p.Jobs {
		if j.Run != r.Key {
			continue
		}
		is := prmanager.Job{Name: j.Name, State: forge.CheckQueued, Attempt: j.Attempts}
		switch {
		case j.State == jobRunning:
			is.State = forge.CheckRunning
		case j.State == jobQueued && j.Attempts > 0, j.Attempts > 1:
			is.State, is.Note = forge.CheckRunning, "The runner was lost; another one is waited for"
		}
		jobs = append(jobs, is)
	}
	return r.done(jobs)
}

// done adds the jobs that have ended, and where the page of the run shows each.
func (r Run) done(jobs []prmanager.Job) []prmanager.Job {
	for name, is := range r.Ended {
		j := prmanager.Job{Name: name, State: is.check()}
		for _, l := range r.Logs {
			if l.Job == name {
				j.Attempt = l.Attempt
			}
		}
		switch is {
		case InfraLost:
			j.Note = "The runner was lost"
		case Abandoned:
			j.Note = "No runner took the job within a day"
		case InProgress, Started, Success, Failure, Cancelled, Expired:
		}
		jobs = append(jobs, j)
	}
	for i := range jobs {
		if r.URL != "" {
			jobs[i].URL = r.URL + "#" + Anchor(jobs[i].Name)
		}
	}
	slices.SortFunc(jobs, func(a, b prmanager.Job) int { return strings.Compare(a.Name, b.Name) })
	return jobs
}

// check is the state a check shows. There is no neutral and no skipped (R8).
func (r Result) check() forge.CheckState {
	switch r {
	case Started:
		return forge.CheckRunning
	case Success:
		return forge.CheckSuccess
	case Cancelled:
		return forge.CheckCancelled
	case InProgress:
		return forge.CheckQueued
	case Failure, InfraLost, Expired, Abandoned:
	}
	return forge.CheckFailure
}

// declare takes a runner's Declare as the hint that its process has started anew (R7), and narrows its labels (R2).
func (t *turn) declare(uuid, version string, labels []string) Runner {
	r := t.p.Runners[uuid]
	r.Labels = slices.DeleteFunc(names(labels), func(l string) bool { return !slices.Contains(r.Allowed, l) })
	r.Version, r.Seen, t.changed = clip(version, 100), t.now, true
	t.p.Runners[uuid] = r
	t.p.Version++
	for _, k := range slices.Clone(t.p.Tasks) {
		switch {
		case k.Runner != uuid:
		case k.State == taskLeased:
			t.expire(k)
		case k.State == taskRunning && k.LeaseUntil.After(t.now.Add(restartGrace)):
			t.p.task(k.ID).LeaseUntil = t.now.Add(restartGrace)
		}
	}
	return r
}

// elapse does what deadlines ask for (R6). If they were missed by long, no server was up to hear the heartbeats: every
// running task first gets one full lease.
func (t *turn) elapse() {
	for key, till := range t.p.Unwanted {
		if !till.After(t.now) {
			delete(t.p.Unwanted, key)
			t.changed = true
		}
	}
	if t.late() {
		t.pass(whyLate)
		for i := range t.p.Tasks {
			if k := &t.p.Tasks[i]; k.State == taskRunning {
				k.LeaseUntil = later(k.LeaseUntil, t.now.Add(HeartbeatTTL))
			}
		}
	}
	for _, k := range slices.Clone(t.p.Tasks) {
		due := t.p.deadline(k)
		if due.IsZero() || due.After(t.now) {
			continue
		}
		switch {
		case !k.CancelAt.IsZero():
			t.pass(whyForced)
			t.conclude(k, Cancelled)
		case k.State == taskLeased:
			t.expire(k)
		case k.Said != InProgress:
			t.conclude(k, k.Said)
		case !k.LeaseUntil.After(t.now):
			t.lose(k)
		default:
			t.pass(whyTimeout)
			own := t.p.task(k.ID)
			own.TimedOut, own.CancelAt = true, t.now
		}
	}
	for _, j := range slices.Clone(t.p.Jobs) {
		waited := t.now.Sub(j.Since) - abandonAfter
		switch {
		case j.State != jobQueued || waited < 0:
		case waited > lateWake: // while no server was up no runner could come
			t.p.job(j.ID).Since, t.changed = t.now.Add(AcceptTTL-abandonAfter), true
		default:
			t.pass(whyAbandoned)
			t.finish(j.ID, Abandoned)
		}
	}
}

// late says whether a lease ran out so long ago that no server can have been up since.
func (t *turn) late() bool {
	for _, k := range t.p.Tasks {
		if d := t.p.deadline(k); !d.IsZero() && t.now.Sub(d) > lateWake {
			return true
		}
	}
	return false
}

// expire takes a task back that its runner never spoke of; the job is queued at its old place and no attempt counted.
func (t *turn) expire(k Task) {
	t.pass(whyExpired)
	j := t.p.job(k.Job)
	if !k.CancelAt.IsZero() {
		t.conclude(k, Cancelled)
		return
	}
	j.State, j.Since = jobQueued, t.now
	j.Attempts--
	t.p.Version++
	t.close(k, Expired)
}

// lose gives a silent runner up.
func (t *turn) lose(k Task) {
	t.pass(whyLost)
	j := t.p.job(k.Job)
	if !j.RetrySafe || j.Attempts >= maxAttempts {
		t.close(k, InfraLost)
		t.finish(j.ID, InfraLost)
		return
	}
	j.State, j.Since, j.Avoid, j.AvoidTill = jobQueued, t.now, k.Runner, t.now.Add(AcceptTTL)
	t.p.task(k.ID).State = taskLost
	t.p.Version++
	t.tell(j.Run)
}

// names are labels without what some runners put behind a colon, each once.
func names(labels []string) []string {
	out := []string{}
	for _, l := range labels {
		l, _, _ = strings.Cut(l, ":")
		if labelForm.MatchString(l) && !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

func clip(s string, n int) string { return strings.ToValidUTF8(s[:min(len(s), n)], "") }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// encoded encodes values of our own types, which always encode.
func encoded(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err))
	}
	return b
}
