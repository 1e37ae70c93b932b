package actor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
)

// KindReconcile is the mail kind that the engine itself understands: it reaches Decide as Inputs.Reconcile, with the
// body as the reason.
const KindReconcile = "engine.reconcile"

// Options of an Engine; the zero value of each field takes the default named with it.
type Options struct {
	Turns      int           // most turns at once in this process; 64
	Poll       time.Duration // longest wait between looks for due subjects, jittered down to 70 %; 1 s
	KeepLease  time.Duration // longest time one turn keeps its lease before it hands back; 5 min
	Grace      time.Duration // what running effects get after Run's context ended; 6 s
	Log        *zap.Logger   // none
	Registerer prometheus.Registerer
	// Trace is called at the boundaries of a turn (the Point constants), in order. Fault injection and debug logs use
	// it; it must not call back into the engine.
	Trace func(s state.Subject, point Point)
}

// Point is a boundary inside a turn at which a process may die.
type Point string

// The points of a turn, in order of a turn with one effect.
const (
	AtLocked    Point = "locked"    // lease taken, nothing entered in the document
	AtBegun     Point = "begun"     // token entered
	AtDecided   Point = "decided"   // decision made, nothing saved
	AtCommitted Point = "committed" // decision saved
	AtDoing     Point = "doing"     // before an effect
	AtDone      Point = "done"      // effect done, outcome not saved
	AtReleased  Point = "released"  // turn over
)

// Engine runs the subjects of all kinds registered with it. Make one per process and store.
type Engine struct {
	store   Store
	locker  lock.Locker
	opt     Options
	log     *zap.Logger
	metrics metrics
	kinds   map[string]*kind
	suspect chan struct{} // one place: subjects that crashed twice run one at a time

	mu       sync.Mutex
	taking   bool // turns may start
	hard     context.Context
	running  map[state.Subject]bool // value: mail came meanwhile, run again
	queue    []state.Subject        // waiting for one of the places
	queued   map[state.Subject]bool
	room     chan struct{} // a token: a turn ended well, and nobody waits for its place
	asking   map[state.Subject]*line
	recalled map[state.Subject]*envelope // as last asked, of kinds with Recall
	turns    sync.WaitGroup
	identity string
	lookUp   time.Time // until then every effect is looked up before its first try
}

// KindOptions belong to one kind of subject.
type KindOptions struct {
	// EffectTimeout bounds one Do; 10 s.
	EffectTimeout time.Duration
	// MailFormat is the newest format of mail the behaviour reads; 1. Newer mail waits for newer code.
	MailFormat int
	// Clockwork: its subjects wake themselves. That they do is no sign that work gets done, and after a failover they
	// catch up by themselves, so they stand in no IndexTouched.
	Clockwork bool
	// Recall: its subjects are few and asked many times a second. Each process keeps the document that it last asked,
	// decoded, and an Ask that finds the same bytes decodes nothing. So what an Ask is given it must not change.
	Recall bool
}

// kind is a Behaviour with its types erased.
type kind struct {
	KindOptions
	look   func(ctx context.Context, s state.Subject, doc json.RawMessage, in Inputs, now time.Time) (looked, error)
	decide func(s state.Subject, l looked, in Inputs, now time.Time) (decided, error)
	do     func(ctx context.Context, s state.Subject, e Entry, now time.Time, confirm func(context.Context) error) Outcome
}

type looked struct{ doc, facts any }

// decided is a Step with its document encoded.
type decided struct {
	Step[json.RawMessage]
}

// New makes an engine. It starts nothing before Run.
func New(store Store, locker lock.Locker, opt Options) *Engine {
	if opt.Turns == 0 {
		opt.Turns = 64
	}
	if opt.Poll == 0 {
		opt.Poll = time.Second
	}
	if opt.KeepLease == 0 {
		opt.KeepLease = 5 * time.Minute
	}
	if opt.Grace == 0 {
		opt.Grace = 6 * time.Second
	}
	if opt.Log == nil {
		opt.Log = zap.NewNop()
	}
	if opt.Trace == nil {
		opt.Trace = func(state.Subject, Point) {}
	}
	return &Engine{
		store: store, locker: locker, opt: opt, log: opt.Log, metrics: newMetrics(opt.Registerer),
		kinds: map[string]*kind{}, suspect: make(chan struct{}, 1),
		running: map[state.Subject]bool{}, queued: map[state.Subject]bool{}, room: make(chan struct{}, 1),
		asking: map[state.Subject]*line{}, recalled: map[state.Subject]*envelope{},
	}
}

// Register adds the behaviour of one kind of subject, or as "kind/key" that of those with this key alone. All are
// registered before Run, Tell and Ask. A subject that none fits is a document for Ask, and does nothing by itself.
func Register[D, F any](e *Engine, name string, b Behaviour[D, F], opt KindOptions) {
	if opt.EffectTimeout == 0 {
		opt.EffectTimeout = 10 * time.Second
	}
	if opt.MailFormat == 0 {
		opt.MailFormat = 1
	}
	e.kinds[name] = &kind{
		KindOptions: opt,
		look: func(ctx context.Context, s state.Subject, doc json.RawMessage, in Inputs, now time.Time) (looked, error) {
			d, err := decodeDoc[D](doc)
			if err != nil {
				return looked{}, err
			}
			return looked{d, b.Look(ctx, s, d, in, now)}, nil
		},
		decide: func(s state.Subject, l looked, in Inputs, now time.Time) (decided, error) {
			return encodeStep(b.Decide(s, l.doc.(D), l.facts.(F), in, now))
		},
		do: b.Do,
	}
}

// kindOf answers nil where nothing fits.
func (e *Engine) kindOf(s state.Subject) *kind {
	if k := e.kinds[s.Kind+"/"+s.Key]; k != nil {
		return k
	}
	return e.kinds[s.Kind]
}

func decodeDoc[D any](doc json.RawMessage) (D, error) {
	var d D
	if len(doc) > 0 {
		if err := json.Unmarshal(doc, &d); err != nil {
			return d, fmt.Errorf("decode %T: %w", d, err)
		}
	}
	return d, nil
}

func encodeStep[D any](s Step[D]) (decided, error) {
	doc, err := json.Marshal(s.Next)
	if err != nil {
		return decided{}, fmt.Errorf("encode %T: %w", s.Next, err)
	}
	return decided{Step[json.RawMessage]{doc, s.Wishes, s.Wake, s.Keep, s.Compared, s.Index, s.Put, s.Journal, s.Dead, s.Reply, s.Why, s.Trouble}}, nil
}

// Tell stores a delivery for its subject and wakes the subject's actor here. When it answers nil the delivery is
// durable. It never waits for the subject's lease, and it works before Run, during an orderly stop and after it, as
// long as the store is open.
func (e *Engine) Tell(ctx context.Context, d state.Delivery) (state.Accepted, error) {
	a, err := e.store.Accept(ctx, d)
	if err != nil {
		return a, fmt.Errorf("store mail %s for %s: %w", d.ID, d.Subject, err)
	}
	if !a.Duplicate {
		e.poke(d.Subject)
	}
	return a, nil
}

// Run handles due subjects until ctx ends. Then no new turn starts, running effects get Grace, leases are handed back,
// and Run returns once every turn has ended. It answers nil on an orderly end.
func (e *Engine) Run(ctx context.Context) error {
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	e.mu.Lock()
	e.taking, e.hard = true, hard
	e.mu.Unlock()
	e.fill()

	e.poll(ctx)

	e.mu.Lock()
	e.taking = false
	e.mu.Unlock()
	stop := time.AfterFunc(e.opt.Grace, kill)
	defer stop.Stop()
	e.turns.Wait()
	return nil
}

// poll looks for due subjects until ctx ends. It is the wake-up after a holder's death and for everything planned.
func (e *Engine) poll(ctx context.Context) {
	for {
		most := 4 * e.opt.Turns
		due, err := e.store.Due(ctx, most)
		if err != nil && ctx.Err() == nil {
			e.log.Warn("cannot look for due subjects", zap.Error(err))
		}
		for _, s := range due {
			e.poke(s)
		}
		if err == nil {
			e.watchHistory(ctx)
		}
		var room chan struct{}
		if len(due) == most {
			room = e.room // there may be more, and what is to be dropped must not keep the rest waiting
		}
		select {
		case <-ctx.Done():
			return
		case <-room:
		case <-time.After(time.Duration(float64(e.opt.Poll) * (0.7 + 0.3*rand.Float64()))):
		}
	}
}

// queueBound limits the subjects remembered beyond the running ones; the store remembers the rest.
const queueBound = 10000

// poke asks for a turn of s in this process: now if there is a place, else when one gets free.
func (e *Engine) poke(s state.Subject) {
	e.mu.Lock()
	if _, busy := e.running[s]; busy {
		e.running[s] = true
	} else if !e.queued[s] && len(e.queue) < queueBound {
		e.queued[s] = true
		e.queue = append(e.queue, s)
	}
	e.mu.Unlock()
	e.fill()
}

// fill starts queued subjects while there are places.
func (e *Engine) fill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.taking && len(e.queue) > 0 && len(e.running) < e.opt.Turns {
		s := e.queue[0]
		e.queue = e.queue[1:]
		delete(e.queued, s)
		e.running[s] = false
		e.turns.Add(1)
		go e.work(e.hard, s)
	}
}

// work runs turns of one subject until it has nothing to do here.
func (e *Engine) work(hard context.Context, s state.Subject) {
	defer e.turns.Done()
	for {
		err := e.turn(hard, s)
		if err != nil {
			e.log.Warn("turn ended early", zap.Stringer("subject", s), zap.Error(err))
		}
		e.mu.Lock()
		again := e.running[s] && e.taking && err == nil
		if again {
			e.running[s] = false
		} else {
			delete(e.running, s)
		}
		if err == nil && len(e.queue) == 0 {
			select {
			case e.room <- struct{}{}:
			default:
			}
		}
		e.mu.Unlock()
		if !again {
			e.fill()
			return
		}
	}
}

func (e *Engine) stopping() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.taking
}

// failoverWindow is how far back acknowledged writes may be missing after a failover, and how long afterwards every
// effect is looked up first (guarantee 1).
const failoverWindow = 15 * time.Minute

// watchHistory notices that the store is on another history than before (a Redis failover or a restore) and makes
// every subject touched lately compare itself with the outside.
func (e *Engine) watchHistory(ctx context.Context) {
	id, err := e.store.Identity(ctx)
	if err != nil {
		if ctx.Err() == nil {
			e.log.Warn("cannot read the store's identity", zap.Error(err))
		}
		return
	}
	e.mu.Lock()
	before := e.identity
	e.mu.Unlock()
	if before == id {
		return
	}
	if before != "" {
		e.mu.Lock()
		e.lookUp = time.Now().Add(failoverWindow)
		e.mu.Unlock()
		n, err := e.reconcileTouched(ctx, id)
		if err != nil {
			// The identity stays the old one, so the next look starts again; the mail's ids make that harmless.
			e.log.Warn("cannot start the reconcile after a failover", zap.Error(err))
			return
		}
		e.log.Warn("the store changed its history: reconciling", zap.Int("subjects", n))
	}
	e.mu.Lock()
	e.identity = id
	e.mu.Unlock()
}

func (e *Engine) reconcileTouched(ctx context.Context, id string) (int, error) {
	rows, err := e.store.List(ctx, IndexTouched, "", 1<<20)
	if err != nil {
		return 0, fmt.Errorf("list touched subjects: %w", err)
	}
	n := 0
	for _, r := range rows {
		// The newest row stands for "now" on the store's clock.
		if rows[0].Score+float64(failoverWindow.Milliseconds()) < r.Score {
			break
		}
		_, err := e.Tell(ctx, state.Delivery{
			Subject: r.Subject, ID: "engine:failover:" + id + ":" + r.Subject.String(),
			Kind: KindReconcile, Format: 1, Body: []byte("failover"), Hint: true,
		})
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

func (e *Engine) lookUpFirst() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return time.Now().Before(e.lookUp)
}

// ErrBusy says that an Ask lost the race for its subject too often; nothing was saved. Ask again later.
var ErrBusy = errors.New("subject busy")
