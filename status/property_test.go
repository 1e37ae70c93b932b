package status

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/forge"
)

// oracle is the rule in its shortest words, over the newest Gate that arrived of each pull request.
type oracle struct {
	newest  map[int]Gate
	told    map[int]int64 // newest Seq whose Gate was news and asked to be told
	merged  bool
	changes int // messages that were news
}

func newOracle() *oracle { return &oracle{newest: map[int]Gate{}, told: map[int]int64{}} }

func (o *oracle) hears(g Gate) {
	if g.Seq <= o.newest[g.Ref.Number].Seq {
		return
	}
	o.newest[g.Ref.Number] = g
	o.changes++
	if g.Tell {
		o.told[g.Ref.Number] = g.Seq
	}
	o.merged = o.merged || g.Merged
}

// state is what must be shown; any = the check is left as it is.
func (o *oracle) state() (s forge.CheckState, anything bool) {
	open := false
	for _, g := range o.newest {
		if g.Open && g.Granted {
			return forge.CheckSuccess, false
		}
		open = open || g.Open
	}
	switch {
	case open:
		return forge.CheckActionRequired, false
	default:
		return forge.CheckCancelled, o.merged
	}
}

// lives draws the messages of up to four pull requests, with resends, in any order.
func lives(t *rapid.T) []Gate {
	var all []Gate
	for n := range rapid.IntRange(1, 4).Draw(t, "pulls") {
		n++
		for seq := range rapid.Int64Range(1, 5).Draw(t, "messages") {
			seq++
			g := Gate{Pull: pull(n), Ref: ref(n), SHA: sha, Check: gateName, Seq: seq, Title: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "title")}
			g.Open = rapid.Bool().Draw(t, "open")
			g.Granted = rapid.Bool().Draw(t, "granted")
			g.Merged = !g.Open && rapid.IntRange(0, 4).Draw(t, "merged") == 0
			g.Tell = rapid.Bool().Draw(t, "tell")
			all = append(all, g)
			if rapid.IntRange(0, 3).Draw(t, "resend") == 0 {
				all = append(all, g)
			}
		}
	}
	return rapid.Permutation(all).Draw(t, "order")
}

func TestGateProperties(t *testing.T) {
	faults := map[string][]fail{
		"all works":   {works},
		"weather":     {works, works, broken, limited, denied},
		"answers die": {works, works, lost, broken},
		"refusals":    {works, works, refused},
	}
	for name, sky := range faults {
		for _, crashes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/crashes=%t", name, crashes), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) { gateProperty(t, sky, crashes) })
			})
		}
	}
}

func gateProperty(t *rapid.T, sky []fail, crashes bool) {
	l, o := newLoop(t), newOracle()
	clean := len(sky) == 1 && !crashes
	storm := true
	l.hub.fail = func() fail {
		if !storm {
			return works
		}
		return rapid.SampledFrom(sky).Draw(t, "forge")
	}
	if crashes {
		left := rapid.IntRange(0, 6).Draw(t, "crashes")
		l.crash = func(at string) bool {
			if left == 0 || !rapid.Bool().Draw(t, "crash "+at) {
				return false
			}
			left--
			return true
		}
	}
	asked := map[string]bool{} // identities written
	l.hub.onWrite = func(c forge.Check) {
		if c.State == forge.CheckSuccess {
			// All mail was read (confirm), so the oracle knows what the decision knew.
			if s, _ := o.state(); s != forge.CheckSuccess && !(o.merged) {
				t.Fatalf("success written, the rule says %q", s)
			}
		}
		if clean && asked[c.ExternalID] {
			t.Fatalf("%s written twice", c.ExternalID)
		}
		asked[c.ExternalID] = true
	}
	for _, g := range lives(t) {
		o.hears(g)
		l.say(KindGate, g)
		for range rapid.IntRange(0, 4).Draw(t, "steps") {
			l.step()
		}
	}
	storm = false
	l.run()
	if slices.Contains(sky, refused) { // what was refused is asked for again by the next sweep
		l.reconcile = "sweep"
		l.run()
	}

	want, anything := o.state()
	if l.hub.runs == nil && want == forge.CheckCancelled {
		want = "" // nobody was open at any decision: no check says so
	}
	if got := l.document().Gates[gateName].Want.State; got != want && !anything {
		t.Fatalf("wanted %q, the rule says %q", got, want)
	}
	if got := l.hub.state(gateName); got != want && !anything {
		// A change taken back before it left needs no write.
		t.Fatalf("shown %q, the rule says %q", got, want)
	}
	if len(asked) > o.changes && clean {
		t.Fatalf("%d writes for %d changes", len(asked), o.changes)
	}
	if len(l.hub.bad) > 0 {
		t.Fatalf("the forge was asked what it should not be: %v", l.hub.bad)
	}
	for n, seq := range o.told {
		w := l.lastTold(n, "gate")
		if w.Seq < seq {
			t.Fatalf("#%d asked to be told of %d, told %+v", n, seq, w)
		}
		if newest := o.newest[n]; w.OK && w.Seq == newest.Seq && newest.Open && newest.Granted && w.State != forge.CheckSuccess {
			t.Fatalf("#%d was told %+v of its grant", n, w)
		}
	}
	for n := range o.newest {
		if _, ok := o.told[n]; !ok && len(l.told[pull(n).String()+"/gate"]) > 0 {
			t.Fatalf("#%d was told without asking", n)
		}
	}
}

// The wanted state does not depend on the order of the mail, but for what was never open when it was heard of.
func TestOrderDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := lives(t)
		second := rapid.Permutation(first).Draw(t, "other order")
		end := func(mail []Gate) forge.CheckState {
			l := newLoop(t)
			for _, g := range mail {
				l.say(KindGate, g)
			}
			l.run()
			return l.hub.state(gateName)
		}
		a, b := end(first), end(second)
		open := func(s forge.CheckState) bool { return s == forge.CheckSuccess }
		if open(a) != open(b) && !slices.ContainsFunc(first, func(g Gate) bool { return g.Merged }) {
			t.Fatalf("%q and %q", a, b)
		}
	})
}

func TestPresubmitProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newLoop(t)
		storm := true
		l.hub.fail = func() fail {
			if !storm {
				return works
			}
			return rapid.SampledFrom([]fail{works, works, works, lost, broken, limited}).Draw(t, "forge")
		}
		left := rapid.IntRange(0, 4).Draw(t, "crashes")
		l.crash = func(at string) bool {
			if left == 0 || rapid.IntRange(0, 3).Draw(t, "crash "+at) != 0 {
				return false
			}
			left--
			return true
		}
		type want struct {
			seq     int64
			attempt int
			state   forge.CheckState
		}
		owner := map[string]int{"sb1-z": 1, "sb1-a": 1, "sb1-m": 2}
		last, heard := map[string]want{}, map[string]int64{}
		seq := int64(0)
		states := []forge.CheckState{forge.CheckQueued, forge.CheckRunning, forge.CheckSuccess, forge.CheckFailure, forge.CheckCancelled}
		for range rapid.IntRange(1, 12).Draw(t, "mails") {
			k := rapid.SampledFrom(slices.Sorted(maps.Keys(owner))).Draw(t, "run")
			s := rapid.SampledFrom(states).Draw(t, "state")
			a := rapid.IntRange(1, 2).Draw(t, "attempt")
			n := rapid.Int64Range(max(1, seq-2), seq+1).Draw(t, "seq")
			seq = max(seq, n)
			l.presubmit(owner[k], k, n, s, a)
			if n > heard[k] {
				heard[k] = n
				if w := last[k]; a > w.attempt || a == w.attempt && steps(s) >= steps(w.state) {
					last[k] = want{n, a, s}
				}
			}
			for range rapid.IntRange(0, 4).Draw(t, "steps") {
				l.step()
			}
		}
		storm = false
		l.run()
		if len(l.hub.bad) > 0 {
			t.Fatalf("the forge was asked what it should not be: %v", l.hub.bad)
		}
		d := l.document()
		for k, w := range last {
			r := d.Runs[k]
			if r.pending() || r.Want.State != w.state || r.Want.Attempt != w.attempt {
				t.Fatalf("%s: %+v, want %+v", k, r.Write, w)
			}
			if told := l.lastTold(owner[k], k); told.Seq != heard[k] || told.OK != (r.Error == "") {
				t.Fatalf("%s told %+v, heard %d", k, told, heard[k])
			}
			if r.Error != "" || r.Shown == (Face{}) {
				continue
			}
			i := slices.IndexFunc(l.hub.runs, func(c forge.Check) bool { return c.ID == r.ID })
			if i < 0 || l.hub.runs[i].State != w.state || l.hub.runs[i].ExternalID != k {
				t.Fatalf("%s is shown as %+v", k, l.hub.runs)
			}
		}
		// The newest check run of the name is of a run that was not superseded.
		if c := l.hub.newest("presubmit"); c != nil && d.Runs[c.ExternalID].Error != "" {
			t.Fatalf("%s is on top: %s", c.ExternalID, encoded(l.hub.runs))
		}
	})
}
