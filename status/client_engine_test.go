package status

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state/embedded"
)

// lab is a forge whose commits are locked for a while now and then, as GitLab's are by a pipeline: a call for such a
// commit waits for the lock for some time, and then is told 409. A call whose caller has gone goes on.
type lab struct {
	mu     sync.Mutex
	locked map[string]time.Time // by SHA
	landed map[string][]forge.Status
	busy   func() time.Duration // for how long a commit is locked after a call; nil = never
	n      int
	busied int // calls told 409
	gone   int // calls whose caller did not wait
}

func (f *lab) FindCheck(context.Context, forge.Check) (string, bool, error) { return "", false, nil }
func (f *lab) WriteCheck(context.Context, forge.Check) (string, error)      { return "", nil }

func (f *lab) FindStatus(_ context.Context, s forge.Status) (forge.StatusReceipt, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range slices.Backward(f.landed[s.SHA]) {
		if x.Context == s.Context {
			return forge.StatusReceipt{ID: x.ID, PipelineID: 1}, x.Run == s.Run && x.State == s.State && x.Description == s.Description, nil
		}
	}
	return forge.StatusReceipt{}, false, nil
}

func (f *lab) WriteStatus(ctx context.Context, s forge.Status) (forge.StatusReceipt, error) {
	f.mu.Lock()
	free := time.Until(f.locked[s.SHA])
	f.mu.Unlock()
	patience := 30 * time.Second // more than ours
	if f.busy != nil && rand.IntN(2) == 0 {
		patience = 10 * time.Second
	}
	if free > patience {
		select {
		case <-time.After(patience):
			f.count(&f.busied)
			return forge.StatusReceipt{}, &forge.Fault{Class: forge.Contention, Op: "write status", Status: 409, Err: errors.New("locked")}
		case <-ctx.Done():
			f.count(&f.gone)
			return forge.StatusReceipt{}, &forge.Fault{Class: forge.Retriable, Op: "write status", Err: ctx.Err()}
		}
	}
	done := make(chan forge.StatusReceipt, 1)
	time.AfterFunc(free, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.n++
		s.ID = fmt.Sprint(f.n)
		f.landed[s.SHA] = append(f.landed[s.SHA], s)
		if f.busy != nil {
			f.locked[s.SHA] = time.Now().Add(f.busy())
		}
		done <- forge.StatusReceipt{ID: s.ID, PipelineID: 1}
	})
	select {
	case r := <-done:
		return r, nil
	case <-ctx.Done():
		f.count(&f.gone)
		return forge.StatusReceipt{}, &forge.Fault{Class: forge.Retriable, Op: "write status", Err: ctx.Err()}
	}
}

func (f *lab) count(n *int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*n++
}

// plant is an engine on a real store with that forge, on virtual time.
type plant struct {
	*Clients
	lab    *lab
	store  *embedded.Store
	engine *actor.Engine
}

func inPlant(t *testing.T, f func(t *testing.T, p *plant)) {
	t.Helper()
	inSlowPlant(t, 10*time.Second, f)
}

// inSlowPlant is one that looks so seldom for what is due, so that months pass quickly.
func inSlowPlant(t *testing.T, poll time.Duration, f func(t *testing.T, p *plant)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		store, err := embedded.Open(t.Context(), filepath.Join(t.TempDir(), "x.db"), embedded.Options{Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		p := &plant{lab: &lab{locked: map[string]time.Time{}, landed: map[string][]forge.Status{}}, store: store}
		e := actor.New(store, lock.NewLocal(15*time.Second), actor.Options{Poll: poll})
		actor.Register(e, "commit", New(func(string) (Forge, error) { return p.lab, nil }, func(forge.Repo) bool { return false }),
			actor.KindOptions{MailFormat: Format, EffectTimeout: EffectTimeout})
		p.engine, p.Clients = e, NewClients(e, store, func(forge.Repo, string) bool { return false })
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		defer func() {
			stop()
			if err := errors.Join(<-ended, store.Close()); err != nil {
				t.Error(err)
			}
		}()
		f(t, p)
	})
}

func elapse(d time.Duration) { <-time.After(d) }

func (p *plant) state(t *testing.T, a Accepted) string {
	t.Helper()
	o, err := p.Operation(t.Context(), repo.Instance, a.Operation.ID)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(o.State) + " " + o.Reason)
}

// at is a commit of its own for each n.
func at(n int) Target { return Target{repo, fmt.Sprintf("%040x", n)} }

func TestSameKeyConcurrently(t *testing.T) {
	inPlant(t, func(t *testing.T, p *plant) {
		const callers = 50
		answers := make([]Accepted, callers)
		key := Key{Scope: "POST /statuses k", Body: "digest"}
		r := Create{Context: "a", Content: said(forge.StatusRunning)}
		var all sync.WaitGroup
		for i := range callers {
			all.Go(func() {
				for {
					var err error
					if answers[i], err = p.Create(t.Context(), team, at(1), r, key); err == nil {
						return
					}
					if !errors.Is(err, actor.ErrBusy) {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		made := 0
		for _, a := range answers {
			if a.Operation.ID != answers[0].Operation.ID || !a.Operation.AcceptedAt.Equal(answers[0].Operation.AcceptedAt) || a.Run.Repo != repo {
				t.Errorf("%+v", a)
			}
			if !a.Replayed {
				made++
			}
		}
		if made != 1 {
			t.Errorf("%d were the first", made)
		}
		key.Body = "another"
		_, err := p.Create(t.Context(), team, at(1), r, key)
		refuses(t, err, CodeKeyReused)
		key.Body = "digest"
		if a, err := p.Create(t.Context(), Caller{Principal: "other"}, at(1), Create{Context: "b", Content: r.Content}, key); err != nil || a.Replayed {
			t.Errorf("the key of another principal: %+v, %v", a, err)
		}
		elapse(25 * time.Hour)
		if a, err := p.Create(t.Context(), team, at(1), r, key); err != nil || a.Replayed || a.Operation.Order.Attempt != 2 {
			t.Errorf("a day later: %+v, %v", a, err)
		}
	})
}

func TestSameExternalIDConcurrently(t *testing.T) {
	inPlant(t, func(t *testing.T, p *plant) {
		var mu sync.Mutex
		runs, begun := map[string]bool{}, 0
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for {
					a, err := p.Create(t.Context(), team, at(1), Create{Context: "a", ExternalID: "job", Content: said(forge.StatusRunning)}, Key{})
					if errors.Is(err, actor.ErrBusy) {
						continue
					}
					mu.Lock()
					defer mu.Unlock()
					if err != nil || a.Operation.Order != (Order{1, 1}) {
						t.Errorf("%+v, %v", a, err)
					}
					runs[a.Run.ID] = true
					if !a.Existing {
						begun++
					}
					return
				}
			})
		}
		all.Wait()
		if len(runs) != 1 || begun != 1 {
			t.Errorf("runs %v, begun %d", runs, begun)
		}
	})
}

// How an operation ended is told for 14 days, and nothing else is ever told of it.
func TestOperationsAreForgotten(t *testing.T) {
	inPlant(t, func(t *testing.T, p *plant) {
		var all []Accepted
		for _, s := range []forge.StatusState{forge.StatusRunning, forge.StatusSuccess} {
			a, err := p.Create(t.Context(), team, at(1), Create{Context: "a", Content: said(s)}, Key{})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, a)
			elapse(time.Minute)
		}
		for day := range 20 {
			for i, a := range all {
				o, err := p.Operation(t.Context(), repo.Instance, a.Operation.ID)
				if (err == nil && o.State != OpDelivered) || (err != nil && day < 14) || (err == nil && day > 18) {
					t.Errorf("day %d: the status number %d is %s, %v", day, i+1, o.State, err)
				}
				if err != nil {
					refuses(t, err, CodeNotFound)
				}
			}
			elapse(24 * time.Hour)
		}
	})
}

// A push that waits for the forge's lock hinders no acceptance, and an old call that waited in vain leaves nothing.
func TestAcceptedDuringAPush(t *testing.T) {
	inPlant(t, func(t *testing.T, p *plant) {
		began := time.Now()
		p.lab.locked[at(1).SHA] = began.Add(20 * time.Second)
		first, err := p.Create(t.Context(), team, at(1), Create{Context: "a", Content: said(forge.StatusRunning)}, Key{})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // its push is out
		second, err := p.Update(t.Context(), team, at(1), first.Run.ID, Update{Content: said(forge.StatusSuccess)}, Key{})
		if err != nil {
			t.Fatal(err)
		}
		v1, err := p.Post(t.Context(), team, at(1), Create{Context: "old", Content: said(forge.StatusRunning)})
		if err != nil || !time.Now().Equal(began) || !v1.Operation.Waiting {
			t.Errorf("accepted after %s, %v: %+v", time.Since(began), err, v1.Operation)
		}
		if got := p.state(t, first); got != "accepted" && got != "delivering" {
			t.Errorf("on its way: %s", got)
		}
		if got := p.state(t, second); got != "accepted" {
			t.Errorf("behind it: %s", got)
		}
		elapse(10 * time.Second)
		if did, err := p.Withdraw(t.Context(), at(1), v1.Operation.ID); err != nil || !did {
			t.Errorf("withdrawn: %t, %v", did, err)
		}
		elapse(11 * time.Second)
		synctest.Wait()
		for a, want := range map[*Accepted]string{&first: "delivered", &second: "delivered"} {
			if got := p.state(t, *a); got != want {
				t.Errorf("in the end: %s, want %s", got, want)
			}
		}
		if n := len(p.lab.landed[at(1).SHA]); n != 2 {
			t.Errorf("%d were shown: %s", n, encoded(p.lab.landed))
		}
		if did, err := p.Withdraw(t.Context(), at(1), v1.Operation.ID); err != nil || did {
			t.Errorf("withdrawn twice: %t, %v", did, err)
		}
		// Claimed, it cannot be taken back, and its outcome is waited for.
		p.lab.locked[at(1).SHA] = time.Now().Add(12 * time.Second)
		v1, err = p.Post(t.Context(), team, at(1), Create{Context: "old", Content: said(forge.StatusRunning)})
		if err != nil {
			t.Fatal(err)
		}
		elapse(10 * time.Second)
		if did, err := p.Withdraw(t.Context(), at(1), v1.Operation.ID); err != nil || did {
			t.Errorf("withdrawn: %t, %v", did, err)
		}
		elapse(3 * time.Second)
		if got := p.state(t, v1); got != "delivered" {
			t.Errorf("in the end: %s", got)
		}
	})
}

func TestTransfer(t *testing.T) {
	inPlant(t, func(t *testing.T, p *plant) {
		a, err := p.Create(t.Context(), team, at(1), Create{Context: "a", Ref: "main", Content: said(forge.StatusRunning)}, Key{})
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, p.Transfer(t.Context(), at(1), "a", "", "new"), CodeNotFound)
		if err := p.Transfer(t.Context(), at(1), "a", "main", "new"); err != nil {
			t.Error(err)
		}
		_, err = p.Update(t.Context(), team, at(1), a.Run.ID, Update{Content: said(forge.StatusSuccess)}, Key{})
		refuses(t, err, CodeContextOwned)
		if _, err = p.Update(t.Context(), Caller{Principal: "new"}, at(1), a.Run.ID, Update{Content: said(forge.StatusSuccess)}, Key{}); err != nil {
			t.Error(err)
		}
		if run, _, err := p.Run(t.Context(), at(1), a.Run.ID, false); err != nil || run.Owner != "new" {
			t.Errorf("%+v, %v", run, err)
		}
	})
}

// The storm that the service is for: 1000 statuses on 20 commits, 8 clients that repeat and reorder them, commits that
// are locked for up to a minute. Every operation ends delivered or superseded, no commit goes backwards, each ends in
// its newest, and no acceptance waits.
func TestStorm(t *testing.T) {
	const commits, contexts, statuses, clients = 20, 5, 10, 8
	inPlant(t, func(t *testing.T, p *plant) {
		p.lab.busy = func() time.Duration { return time.Duration(rand.Int64N(int64(time.Minute))) }
		type post struct {
			commit, context int
			sequence        int64
		}
		var mu sync.Mutex
		var posts []post
		runs, ops := map[string]string{}, map[string]Accepted{}
		text := func(x post) string { return fmt.Sprint(x.sequence) }
		for c := range commits {
			for x := range contexts {
				a, err := p.Create(t.Context(), team, at(c), Create{Context: fmt.Sprint(x), Sequence: 1, Content: said(forge.StatusPending, "1")}, Key{})
				if err != nil {
					t.Fatal(err)
				}
				runs[fmt.Sprint(c, x)], ops[a.Operation.ID] = a.Run.ID, a
				for s := int64(2); s <= statuses; s++ {
					posts = append(posts, post{c, x, s}, post{c, x, s}) // each is sent twice
				}
			}
		}
		rand.Shuffle(len(posts), func(i, j int) { posts[i], posts[j] = posts[j], posts[i] })
		var all sync.WaitGroup
		for n := range clients {
			all.Go(func() {
				for i := n; i < len(posts); i += clients {
					x := posts[i]
					say := said(forge.StatusRunning, text(x))
					if x.sequence == statuses {
						say.State = forge.StatusSuccess
					}
					began := time.Now()
					key := Key{Scope: fmt.Sprint(x), Body: text(x)}
					a, err := p.Update(t.Context(), team, at(x.commit), runs[fmt.Sprint(x.commit, x.context)], Update{Sequence: x.sequence, Content: say}, key)
					for errors.Is(err, actor.ErrBusy) {
						a, err = p.Update(t.Context(), team, at(x.commit), runs[fmt.Sprint(x.commit, x.context)], Update{Sequence: x.sequence, Content: say}, key)
					}
					if waited := time.Since(began); err != nil || waited > 5*time.Second {
						t.Errorf("%v after %s", err, waited)
					}
					mu.Lock()
					ops[a.Operation.ID] = a
					mu.Unlock()
					elapse(time.Duration(rand.Int64N(int64(2 * time.Second))))
				}
			})
		}
		all.Wait()
		elapse(time.Hour)
		synctest.Wait()

		if p.lab.busied == 0 || p.lab.gone == 0 {
			t.Errorf("no storm: %d calls were told 409, %d were given up", p.lab.busied, p.lab.gone)
		}
		ended := map[string]int{}
		for _, a := range ops {
			got, _, _ := strings.Cut(p.state(t, a), " ")
			ended[got]++
		}
		if len(ops) != commits*contexts*statuses || ended["delivered"]+ended["superseded"] != len(ops) {
			t.Errorf("of %d operations: %v", len(ops), ended)
		}
		for c := range commits {
			newest := map[string]int{}
			for _, s := range p.lab.landed[at(c).SHA] {
				var is int
				if _, err := fmt.Sscan(s.Description, &is); err != nil || is < newest[s.Context] {
					t.Errorf("%d/%s went back from %d to %d, %v", c, s.Context, newest[s.Context], is, err)
				}
				newest[s.Context] = is
			}
			for x := range contexts {
				if newest[fmt.Sprint(x)] != statuses {
					t.Errorf("%d/%d ended in %d", c, x, newest[fmt.Sprint(x)])
				}
			}
		}
	})
}
