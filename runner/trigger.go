package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// Source reads what a run is made of at its forge. Every error is a *forge.Fault.
type Source interface {
	// File reads one file of a repository at a commit, or at the tip of a branch; a Fault of class NotFound if it is not there.
	File(ctx context.Context, repo forge.Repo, at, path string) ([]byte, error)
	// Clone is the address at which git finds the repository; it contains no credential.
	Clone(repo forge.Repo) string
	// CheckoutToken is a fresh password for git, good for reading this repository and for nothing else.
	CheckoutToken(ctx context.Context, repo forge.Repo) (string, error)
}

// Trigger starts runs in a pool. It asks rather than tells: Find must see what Start has done, or the cancel of a run
// whose start was not recorded would find nothing and leave it alive.
type Trigger struct {
	service *Service
	source  Source
}

var (
	_ prmanager.Trigger = (*Trigger)(nil)
	_ prmanager.Finder  = (*Trigger)(nil)
	_ prmanager.Watcher = (*Trigger)(nil)
)

// NewTrigger is the trigger of one forge.
func NewTrigger(s *Service, source Source) *Trigger { return &Trigger{s, source} }

// Find answers whether the pool has ever taken the run up.
func (t *Trigger) Find(ctx context.Context, run forge.Run) (forge.Receipt, bool, error) {
	_, err := t.service.store.Record(ctx, t.service.pool, runRecord(run.Key))
	if errors.Is(err, state.ErrNotFound) {
		return forge.Receipt{}, false, nil
	}
	if err != nil {
		return forge.Receipt{}, false, fault("look for run "+run.Key, forge.Retriable, err)
	}
	return t.receipt(run), true, nil
}

func (t *Trigger) receipt(run forge.Run) forge.Receipt {
	return forge.Receipt{ID: run.Key, URL: t.service.runURL(run)}
}

// Start reads the definition at the tip of the base branch and puts its jobs into the pool, once for each run key.
func (t *Trigger) Start(ctx context.Context, run forge.Run) (forge.Receipt, error) {
	const op = "start on runners"
	if run.Ref.Repo.Private { // each task gets its own; this one shows, where the author sees it, that there will be one
		if _, err := t.source.CheckoutToken(ctx, run.Ref.Repo); err != nil {
			return forge.Receipt{}, err
		}
	}
	// BaseSHA is as old as the newest push, and what is wrong with the definition may have been mended since.
	tip := run.Base
	if tip == "" || forge.FullSHA(tip) { // a branch may have such a name, and then it is not what would be read
		tip = run.BaseSHA
	}
	text, err := t.source.File(ctx, run.Ref.Repo, tip, File)
	if f := forge.Classify(err); err != nil && f.Class == forge.NotFound {
		return forge.Receipt{}, fault(op, forge.Permanent, &prmanager.Mistake{Err: fmt.Errorf("%s is not there at %.60q, the tip of the base branch", File, tip)})
	} else if err != nil {
		return forge.Receipt{}, err
	}
	secrets := t.service.secretsOf(run.Ref.Repo)
	jobs, err := ParsePresubmit(text, func(name string) bool { _, ok := secrets[name]; return ok })
	if err != nil {
		return forge.Receipt{}, fault(op, forge.Permanent, &prmanager.Mistake{Err: err})
	}
	o := Order{Run: run, Jobs: jobs, URL: t.service.runURL(run), Clone: t.source.Clone(run.Ref.Repo)}
	if err := t.service.want(ctx, o); err != nil {
		return forge.Receipt{}, fault(op, class(err), err)
	}
	return t.receipt(run), nil
}

// Cancel stops the run; one that is not known yet will never start, for a day.
func (t *Trigger) Cancel(ctx context.Context, run forge.Run, _ forge.Receipt) error {
	if err := t.service.cancel(ctx, run.Key); err != nil {
		return fault("cancel presubmit on runners", class(err), err)
	}
	return nil
}

// State answers what became of the run, and of its jobs.
func (t *Trigger) State(ctx context.Context, run forge.Run, _ forge.Receipt) (prmanager.RunState, error) {
	v, err := t.service.became(ctx, run.Key)
	if err != nil {
		return prmanager.RunState{}, fault("read run "+run.Key, forge.Retriable, err)
	}
	if !v.Known {
		return prmanager.RunState{}, nil
	}
	return prmanager.RunState{Receipt: t.receipt(run), State: v.Result.check(), Attempt: 1, Jobs: v.Told}, nil
}

func fault(op string, c forge.Class, err error) error {
	return &forge.Fault{Class: c, Op: op, Err: err}
}

func class(err error) forge.Class {
	if errors.Is(err, actor.ErrBusy) {
		return forge.Contention
	}
	return forge.Retriable
}

// want takes a run up once, however often it is asked for.
func (s *Service) want(ctx context.Context, o Order) error {
	if _, err := s.store.Record(ctx, s.pool, runRecord(o.Run.Key)); err == nil {
		return nil
	} else if !errors.Is(err, state.ErrNotFound) {
		return fmt.Errorf("look for run %s: %w", o.Run.Key, err)
	}
	// The reply's id makes two at once one.
	_, err := actor.Ask(ctx, s.engine, s.pool, "want/"+o.Run.Key, func(p Pool, now time.Time) (actor.Step[Pool], error) {
		t := begin(p, now)
		t.wanted(o)
		s := t.step()
		s.Reply = []byte("wanted") // an empty one would not be kept
		return s, nil
	})
	if err != nil {
		return fmt.Errorf("want run %s: %w", o.Run.Key, err)
	}
	return nil
}

func (s *Service) cancel(ctx context.Context, key string) error {
	var o Order
	known, err := s.read(ctx, runRecord(key), &o)
	if err != nil {
		return err
	}
	return s.ask(ctx, func(t *turn) error {
		t.unwanted(key, known, o.Seat)
		return nil
	})
}

// became is what became of a run.
type became struct {
	Known  bool
	Result Result            // InProgress, Started, or how it ended
	Jobs   map[string]Result // of the jobs that have ended
	Logs   []LogOf
	Told   []prmanager.Job // all of its jobs, as its pull request is told
}

// became reads what became of a run.
func (s *Service) became(ctx context.Context, key string) (became, error) {
	p, err := s.see(ctx)
	if err != nil {
		return became{}, err
	}
	if r, open := p.Runs[key]; open {
		return became{true, r.Told, r.Ended, r.Logs, p.told(r)}, nil
	}
	for _, record := range []string{resultRecord(key), runRecord(key)} {
		var o outcome
		found, err := s.read(ctx, record, &o)
		if err != nil {
			return became{}, err
		}
		if !found {
			continue
		}
		return became{true, o.Result, o.Jobs, o.Logs, Run{Ended: o.Jobs, Logs: o.Logs, URL: o.URL}.done(nil)}, nil
	}
	return became{}, nil
}
