package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

// ErrNoRun says that no run has this key, or that the link lacks what a private repository's needs.
var ErrNoRun = errors.New("no such run")

// View is a run as its page shows it.
type View struct {
	Run   forge.Run
	State string    // queued, running, success, failure or cancelled
	Over  bool      // nothing changes any more
	Jobs  []JobView // in the order of their file
	Logs  []LogOf   // in the order the tasks were assigned; it only grows
}

// JobView is one job of it.
type JobView struct {
	Name  string `json:"name"`
	State string `json:"state"` // queued, assigned, running, success, failure, cancelled, runner lost or no runner took it
}

// Anchor is where the page of a run shows a job: the fragment of its address, without the "#".
func Anchor(job string) string { return "job-" + url.PathEscape(job) }

// pageKey is how a run's address names it. A run key is a digest of what outsiders may know or guess, so that the links
// of private repositories are signed.
func (s *Service) pageKey(run forge.Run) string {
	if !run.Ref.Repo.Private {
		return run.Key
	}
	return run.Key + "." + derived(s.key, "page", run.Key)
}

// View reads a run by what its address names it.
func (s *Service) View(ctx context.Context, name string) (View, error) {
	key, _, _ := strings.Cut(name, ".")
	v, err := s.view(ctx, key)
	if err == nil && v.Run.Ref.Repo.Private && !same(hashed(s.pageKey(v.Run)), name) {
		err = ErrNoRun
	}
	if err != nil {
		return View{}, fmt.Errorf("look at run %.40q: %w", key, err)
	}
	return v, nil
}

func (s *Service) view(ctx context.Context, key string) (v View, err error) {
	var o Order
	switch found, err := s.read(ctx, runRecord(key), &o); {
	case err != nil:
		return View{}, err
	case !found:
		return View{}, ErrNoRun
	}
	p, err := s.see(ctx)
	if err != nil {
		return View{}, err
	}
	v = View{Run: o.Run, State: InProgress.word()}
	r, open := p.Runs[key]
	ended := r.Ended
	if open {
		v.State, v.Logs = r.Told.word(), r.Logs
	} else {
		var is outcome
		if v.Over, err = s.read(ctx, resultRecord(key), &is); err != nil {
			return View{}, err
		}
		v.State, v.Logs, ended = is.Result.word(), is.Logs, is.Jobs
	}
	for _, d := range o.Jobs {
		j := JobView{d.Name, InProgress.word()}
		if is, ok := ended[d.Name]; ok {
			j.State = is.word()
		} else if v.Over { // it was never made
			j.State = v.State
		}
		if i := slices.IndexFunc(p.Jobs, func(o Job) bool { return o.Run == key && o.Name == d.Name }); i >= 0 {
			switch p.Jobs[i].State {
			case jobLeased:
				j.State = "assigned"
			case jobRunning:
				j.State = Started.word()
			case jobQueued:
			}
		}
		v.Jobs = append(v.Jobs, j)
	}
	return v, nil
}

// read decodes one record of the pool; found is false if it is not there.
func (s *Service) read(ctx context.Context, record string, to any) (found bool, err error) {
	raw, err := s.store.Record(ctx, s.pool, record)
	if errors.Is(err, state.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, to)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", record, err)
	}
	return true, nil
}

// word is a result as people read it.
func (r Result) word() string {
	switch r {
	case InProgress:
		return "queued"
	case InfraLost:
		return "runner lost"
	case Abandoned:
		return "no runner took it"
	case Started, Success, Failure, Cancelled, Expired:
	}
	return string(r)
}
