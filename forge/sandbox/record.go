package sandbox

import (
	"slices"
	"strconv"
	"time"
)

// Call is one request that reached the API. Seq orders calls, writes and deliveries among each other.
type Call struct {
	Seq    int
	At     time.Time // the forge's clock
	Method string
	Path   string // without the query, without /api/v3
	Query  string
	Actor  string // login at that time; "" = no token of a person or an installation (an App's own JWT, or nothing valid)
	Status int    // what was answered, or would have been where Lost
	Lost   bool   // performed, but a Fault kept the answer from the caller
	Denied bool   // a Fault answered instead: nothing was performed
}

// Write is one change that an API call made at the forge: the record of what a gate did to the world.
type Write struct {
	Seq   int
	At    time.Time
	Actor string
	// Kind is check, status, label, unlabel, dispatch (a run started), approve, cancel, rerun, or comment.
	Kind       string
	Repo       *Repo
	PR         int    // 0 where GitHub does not say; of a dispatch: what its inputs say
	SHA        string // likewise
	Name       string // of the check, the status' context, the label, or the workflow's file
	State      string // of a check: its conclusion, or its status while it has none; of a status: its state
	Title      string // of a check: its output's title; of a status: its description
	ExternalID string // of a check
	Key        string // run key of a dispatch
	ID         int64  // of the check run, status, or workflow run
}

// Trigger is one started run as the gate means it. For an approved run of Actions, Key is "".
type Trigger struct {
	Repo *Repo
	PR   int
	SHA  string
	Key  string
}

func (f *Forge) write(c *call, w Write) {
	w.Seq, w.At, w.Actor = f.next(), f.now(), c.actor().login
	f.writes = append(f.writes, w)
}

// Calls answers the API calls after a sequence number (0 = all), oldest first.
func (f *Forge) Calls(since int) []Call {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, c := range f.calls {
		if c.Seq > since {
			return slices.Clone(f.calls[i:])
		}
	}
	return nil
}

// Writes answers what API calls changed after a sequence number (0 = all), oldest first.
func (f *Forge) Writes(since int) []Write {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, w := range f.writes {
		if w.Seq > since {
			return slices.Clone(f.writes[i:])
		}
	}
	return nil
}

// Triggers counts the runs that API calls started, by what they were started for.
func (f *Forge) Triggers() map[Trigger]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	count := map[Trigger]int{}
	for _, w := range f.writes {
		if w.Kind == "dispatch" || w.Kind == "approve" {
			count[Trigger{w.Repo, w.PR, w.SHA, w.Key}]++
		}
	}
	return count
}

// Seq is the last sequence number given out.
func (f *Forge) Seq() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.seq
}

// Gate is the state that the newest check run or commit status of this name shows on a commit: a conclusion
// (success, action_required, …), a status while there is none, or a status' state; "" if there is neither.
func (r *Repo) Gate(sha, name string) string {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	var state string
	var newest int64
	for _, x := range r.checks {
		if x.sha == sha && x.name == name && x.ID > newest {
			state, newest = x.state(), x.ID
		}
	}
	for _, s := range r.statuses {
		if s.sha == sha && s.context == name && s.id > newest {
			state, newest = s.state, s.id
		}
	}
	return state
}

// Runs answers the runs of a repository, oldest first.
func (r *Repo) Runs() []*Run {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	var runs []*Run
	for _, x := range r.f.runs {
		if x.repo == r {
			runs = append(runs, x)
		}
	}
	return runs
}

// number reads a number as a dispatch's inputs hold it, 0 if it is none.
func number(v any) int {
	switch v := v.(type) {
	case string:
		n, err := strconv.Atoi(v)
		if err != nil {
			return 0
		}
		return n
	case float64:
		return int(v)
	}
	return 0
}

func text(v any) string {
	s, _ := v.(string)
	return s
}
