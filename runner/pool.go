// Package runner lends presubmit jobs to stock Forgejo and Gitea runners, over their own protocol (runner.v1), so that
// a job is neither lost between server and runner nor run twice.
//
// A pool is a subject of the engine. Its document holds what is open: runs, their jobs, the tasks that runners hold
// under a lease, and the runners themselves. Every call of a runner is one Ask, that is one pure decision and one
// compare-and-swap, so each uniqueness here (one open task for a job, one task for a request key, one verdict) is a
// property of a function and holds for any number of servers. Payloads, definitions and what has ended are records;
// logs are subjects of their own. Verdicts are told to the pull request as mail.
package runner

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/signalbox-ci/signalbox/state"
)

// Times of a task. They suit runners that ask every 1 to 30 seconds.
const (
	// AcceptTTL is how long an assigned task waits for its runner's first report. It exceeds the runners' own timeout
	// of FetchTask (30 s) by a few rounds, so that a retry with the same key still finds its task.
	AcceptTTL = 60 * time.Second
	// HeartbeatTTL is how long a running task may be silent.
	HeartbeatTTL = 180 * time.Second
	// restartGrace is what is left of a running task's lease once its runner has declared itself anew.
	restartGrace = 30 * time.Second
	// cancelGrace is how long a runner is told to cancel before the task is closed without its word.
	cancelGrace = 60 * time.Second
	// lateWake: deadlines missed by more than this were missed because no server was up, not because runners were silent.
	lateWake = 30 * time.Second
	// abandonAfter is how long a job waits for a runner; as with Forgejo's ABANDONED_JOB_TIMEOUT, its default.
	abandonAfter = 24 * time.Hour
)

const (
	maxOpenJobs  = 1000 // beyond, runs wait outside the document
	maxQueued    = 64   // queued ones among them, as long as each runner that asks finds its job there
	maxAttempts  = 2    // of a retry-safe job whose runner was lost
	cancelMemory = 24 * time.Hour
	keyMemory    = 24 * time.Hour
	runMemory    = 35 * 24 * time.Hour
	taskMemory   = 35 * 24 * time.Hour
	seenEvery    = time.Minute // how exactly Runner.Seen is kept
)

// Subject is the subject of a pool.
func Subject(instance, name string) state.Subject {
	return state.Subject{Instance: instance, Project: "-", Kind: Kind, Key: name}
}

// Kind is the kind of subject a pool is.
const Kind = "pool"

// Pool is the document.
type Pool struct {
	Version  int64                `json:"version,omitempty"` // the protocol's tasks_version, less one
	LastJob  int64                `json:"last_job,omitempty"`
	LastTask int64                `json:"last_task,omitempty"`
	LastID   int64                `json:"last_runner,omitempty"`
	Runners  map[string]Runner    `json:"runners,omitempty"` // by uuid
	Tokens   []registrationToken  `json:"tokens,omitempty"`
	Runs     map[string]Run       `json:"runs,omitempty"`     // by run key; those with an open job
	Jobs     []Job                `json:"jobs,omitempty"`     // open ones, oldest first
	Tasks    []Task               `json:"tasks,omitempty"`    // open ones, and lost ones that may still come back
	Unwanted map[string]time.Time `json:"unwanted,omitempty"` // cancelled before they were known, until when remembered

	// Runs that came when there was no room have no jobs yet, and stand in records by the number of their seat. Those up to
	// Seated have left. Starved: a runner found nothing for itself among the queued jobs, so more are let in.
	LastSeat int64 `json:"last_seat,omitempty"`
	Seated   int64 `json:"seated,omitempty"`
	Starved  bool  `json:"starved,omitempty"`
}

// Runner is a registered runner.
type Runner struct {
	ID        int64     `json:"id"`
	Name      string    `json:"name"`
	TokenHash string    `json:"token_hash"`
	Allowed   []string  `json:"allowed"`             // labels granted at registration
	Labels    []string  `json:"labels"`              // labels declared, among the allowed
	Version   string    `json:"version,omitempty"`   // as declared
	Tasks     int64     `json:"tasks,omitempty"`     // ever assigned
	Seen      time.Time `json:"seen,omitzero"`       // last contact, to a minute
	Ephemeral bool      `json:"ephemeral,omitempty"` // goes with the first task that it has accepted
}

// registrationToken lets runners register.
type registrationToken struct {
	Hash    string    `json:"hash"`
	Labels  []string  `json:"labels"`
	Expires time.Time `json:"expires"`
	Once    bool      `json:"once,omitempty"`
}

// Run is one wanted run of a presubmit. What it came to is kept as a record.
type Run struct {
	Key    string            `json:"key"`
	Report state.Subject     `json:"report"` // who is told
	Open   int               `json:"open"`   // jobs that have not ended
	Ended  map[string]Result `json:"ended,omitempty"`
	Cancel bool              `json:"cancel,omitempty"`
	Told   Result            `json:"told,omitempty"`
	URL    string            `json:"url,omitempty"` // of its page
	Logs   []LogOf           `json:"logs,omitempty"`
}

// LogOf says which task's log belongs to which attempt at which job.
type LogOf struct {
	Task    int64  `json:"task"`
	Job     string `json:"job"`
	Attempt int    `json:"attempt"`
}

// jobState says where a job is.
type jobState string

// The states of an open job.
const (
	jobQueued  jobState = "queued"
	jobLeased  jobState = "leased"  // assigned, the runner has not spoken
	jobRunning jobState = "running" // the runner has spoken
)

// Job is one job of a run. Its definition is the record "job/<id>".
type Job struct {
	ID        int64         `json:"id"`
	Run       string        `json:"run"`
	Name      string        `json:"name"`
	RunsOn    []string      `json:"runs_on"`
	Timeout   time.Duration `json:"timeout"`
	RetrySafe bool          `json:"retry_safe,omitempty"`
	State     jobState      `json:"state"`
	Since     time.Time     `json:"since"`              // when it was queued, the last time
	Attempts  int           `json:"attempts,omitempty"` // tasks that were accepted, or are leased
	Avoid     string        `json:"avoid,omitempty"`    // uuid of the runner that was lost with it
	AvoidTill time.Time     `json:"avoid_till,omitzero"`
}

// taskState says where a task is.
type taskState string

// The states of a task in the document. All others have left it.
const (
	taskLeased  taskState = "leased"
	taskRunning taskState = "running"
	taskLost    taskState = "lost" // its job is queued again; a report takes it back until another task has it
)

// Task is one attempt at a job, in the hands of one runner. Its frozen payload is the record "payload/<id>".
type Task struct {
	ID         int64     `json:"id"`
	Job        int64     `json:"job"`
	Attempt    int       `json:"attempt"`
	Runner     string    `json:"runner"`
	Key        string    `json:"key,omitempty"` // request key it was fetched with
	State      taskState `json:"state"`
	LeasedAt   time.Time `json:"leased_at"`
	AcceptedAt time.Time `json:"accepted_at,omitzero"`
	LeaseUntil time.Time `json:"lease_until"`
	CancelAt   time.Time `json:"cancel_at,omitzero"` // since when the runner is told to stop
	TimedOut   bool      `json:"timed_out,omitempty"`
	Verdict    Verdict   `json:"verdict,omitempty"`

	// Said is how it ended, in the runner's first word, while the rest of its log is to come: Forgejo's runner may say so
	// before the last rows, and always does again after them.
	Said Result `json:"said,omitempty"`
}

// Verdict is what the output of a payload's last step said. The first word counts.
type Verdict string

// The verdicts; none is the empty one.
const (
	verdictGood Verdict = "good"
	verdictBad  Verdict = "bad"
)

// Result is how a job, task or run ended, or the runner says it did.
type Result string

// The results. A runner's own SKIPPED is a Failure to us.
const (
	InProgress Result = ""
	Started    Result = "running" // only ever told
	Success    Result = "success"
	Failure    Result = "failure"
	Cancelled  Result = "cancelled"
	InfraLost  Result = "infra_lost" // the runner was lost and the job may not run again
	Expired    Result = "expired"    // of a task only: never accepted
	Abandoned  Result = "abandoned"  // of a job only: no runner took it
)

func (p Pool) clone() Pool {
	p.Runners, p.Runs, p.Unwanted = maps.Clone(p.Runners), maps.Clone(p.Runs), maps.Clone(p.Unwanted)
	for k, r := range p.Runs {
		r.Ended, r.Logs = maps.Clone(r.Ended), slices.Clone(r.Logs)
		p.Runs[k] = r
	}
	p.Tokens, p.Jobs, p.Tasks = slices.Clone(p.Tokens), slices.Clone(p.Jobs), slices.Clone(p.Tasks)
	return p
}

func (p *Pool) job(id int64) *Job {
	i := slices.IndexFunc(p.Jobs, func(j Job) bool { return j.ID == id })
	if i < 0 {
		return nil
	}
	return &p.Jobs[i]
}

func (p *Pool) task(id int64) *Task {
	i := slices.IndexFunc(p.Tasks, func(t Task) bool { return t.ID == id })
	if i < 0 {
		return nil
	}
	return &p.Tasks[i]
}

// keyed finds the task that a runner has fetched with key.
func (p *Pool) keyed(runner, key string) *Task {
	i := slices.IndexFunc(p.Tasks, func(t Task) bool { return key != "" && t.Runner == runner && t.Key == key })
	if i < 0 {
		return nil
	}
	return &p.Tasks[i]
}

// next finds the oldest job that a runner may have now. A job that was lost with this very runner is left to others
// for a while: in host mode its processes may still be alive there.
func (p *Pool) next(uuid string, now time.Time) *Job {
	labels := p.Runners[uuid].Labels
	for i := range p.Jobs {
		j := &p.Jobs[i]
		if j.State != jobQueued || j.Avoid == uuid && now.Before(j.AvoidTill) {
			continue
		}
		if !slices.ContainsFunc(j.RunsOn, func(l string) bool { return !slices.Contains(labels, l) }) {
			return j
		}
	}
	return nil
}

// room is how many more jobs may be let in now. A run is let in whole, so that one may exceed it.
func (p *Pool) room() int {
	free, queued := maxOpenJobs-len(p.Jobs), 0
	for _, j := range p.Jobs {
		if j.State == jobQueued {
			queued++
		}
	}
	if p.Starved {
		return min(free, maxQueued)
	}
	return min(free, maxQueued-queued)
}

// waits says whether runs wait for room.
func (p *Pool) waits() bool { return p.Seated < p.LastSeat }

// deadline is when a task wants a turn even if nobody speaks; zero = never.
func (p *Pool) deadline(t Task) time.Time {
	switch {
	case t.State == taskLost:
		return time.Time{}
	case !t.CancelAt.IsZero():
		return t.CancelAt.Add(cancelGrace)
	}
	d := t.LeaseUntil
	if j := p.job(t.Job); j != nil && t.State == taskRunning && t.Said == InProgress {
		if end := t.AcceptedAt.Add(j.Timeout); end.Before(d) {
			d = end
		}
	}
	return d
}

// wake is the earliest deadline.
func (p *Pool) wake() (at time.Time) {
	for _, t := range p.Tasks {
		if d := p.deadline(t); !d.IsZero() && (at.IsZero() || d.Before(at)) {
			at = d
		}
	}
	for _, j := range p.Jobs {
		if d := j.Since.Add(abandonAfter); j.State == jobQueued && (at.IsZero() || d.Before(at)) {
			at = d
		}
	}
	for _, d := range p.Unwanted {
		if at.IsZero() || d.Before(at) {
			at = d
		}
	}
	return at
}

func (p *Pool) list() []Listed {
	out := []Listed{}
	for _, id := range slices.SortedFunc(maps.Keys(p.Runners), func(a, b string) int { return cmp.Compare(p.Runners[a].ID, p.Runners[b].ID) }) {
		r := p.Runners[id]
		v := Listed{UUID: id, Name: r.Name, Labels: r.Labels, Version: r.Version, Seen: r.Seen}
		for _, t := range p.Tasks {
			if t.Runner == id && t.State != taskLost {
				v.Tasks = append(v.Tasks, t.ID)
			}
		}
		out = append(out, v)
	}
	return out
}
