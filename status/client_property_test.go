package status

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/forge"
)

// client is the oracle of one ordering scope: what was accepted, and by the rules in their shortest words what counts.
type client struct {
	runs    []string
	ordered map[string]bool
	ops     map[string]Order  // by id
	said    map[string]string // text by id
	now     Said              // what counts
	count   string            // its id
	waiting []Accepted
}

func (c *client) counts(id string, s Said) {
	finished := s.Attempt == c.now.Attempt && c.now.State.Terminal() && !s.State.Terminal()
	if s.Compare(c.now.Order) > 0 && !finished {
		c.now, c.count = s, id
	}
}

func TestStatusProperties(t *testing.T) {
	skies := map[string][]fail{
		"all works": {works},
		"weather":   {works, works, broken, limited, denied, absent},
		"late":      {works, lost, late, late},
		"refusals":  {works, works, refused, late},
	}
	for name, sky := range skies {
		for _, crashes := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/crashes=%t", name, crashes), func(t *testing.T) {
				rapid.Check(t, func(t *rapid.T) { statusProperty(t, sky, crashes) })
			})
		}
	}
}

var clientStates = []forge.StatusState{
	forge.StatusPending, forge.StatusRunning, forge.StatusSuccess, forge.StatusFailed, forge.StatusCanceled, forge.StatusSkipped,
}

func statusProperty(t *rapid.T, sky []fail, crashes bool) {
	l := newLoop(t)
	storm := true
	l.hub.fate = func() fail {
		if !storm {
			return works
		}
		return rapid.SampledFrom(sky).Draw(t, "forge")
	}
	l.hub.delay = func() time.Duration { return time.Duration(rapid.IntRange(1, 40).Draw(t, "late")) * time.Second }
	if crashes {
		left := rapid.IntRange(0, 5).Draw(t, "crashes")
		l.crash = func(at string) bool {
			if left == 0 || rapid.IntRange(0, 3).Draw(t, "crash "+at) != 0 {
				return false
			}
			left--
			return true
		}
	}
	scopes := map[string]*client{}
	for _, name := range []string{"build", "test"} {
		scopes[name] = &client{ordered: map[string]bool{}, ops: map[string]Order{}, said: map[string]string{}}
	}
	final := map[string]OpState{}
	claims := func() {
		for name, c := range scopes {
			// What left Waiting was claimed, in the order of arrival.
			still := l.document().Contexts[scopeOf(name, "")].Waiting
			for len(c.waiting) > 0 {
				w := c.waiting[0]
				if slices.ContainsFunc(still, func(s Said) bool { return s.Order == w.Operation.Order }) {
					break
				}
				c.counts(w.Operation.ID, Said{Order: w.Operation.Order, Content: w.Operation.Content})
				c.waiting = c.waiting[1:]
			}
		}
	}
	// What is final once stays so.
	watch := func() {
		for _, c := range scopes {
			for id := range c.ops {
				o := l.operation(id)
				if o == nil {
					t.Fatalf("%s is gone", id)
				}
				if was, ended := final[id]; ended && was != o.State {
					t.Fatalf("%s was %s and is %s", id, was, o.State)
				}
				if o.State.Final() {
					final[id] = o.State
				}
			}
		}
	}
	n := 0
	draw := func() Content {
		n++
		text := fmt.Sprintf("d%d", n)
		if rapid.IntRange(0, 4).Draw(t, "same text") == 0 {
			text = "same"
		}
		return Content{State: rapid.SampledFrom(clientStates).Draw(t, "state"), Description: text}
	}
	for range rapid.IntRange(1, 25).Draw(t, "requests") {
		name := rapid.SampledFrom([]string{"build", "test"}).Draw(t, "context")
		c := scopes[name]
		var a Accepted
		var err error
		say, v1 := draw(), false
		switch kind := rapid.IntRange(0, 9).Draw(t, "request"); {
		case kind < 2 || kind < 6 && len(c.runs) == 0:
			sequence := int64(0)
			if rapid.Bool().Draw(t, "ordered") {
				sequence = rapid.Int64Range(1, 3).Draw(t, "sequence")
			}
			a, err = l.create(Create{Context: name, Sequence: sequence, Content: say})
			if err != nil {
				t.Fatal(err)
			}
			c.runs, c.ordered[a.Run.ID] = append(c.runs, a.Run.ID), sequence > 0
		case kind < 6:
			run := rapid.SampledFrom(c.runs).Draw(t, "run")
			u := Update{Content: say}
			if c.ordered[run] {
				u.Sequence = rapid.Int64Range(1, 9).Draw(t, "sequence")
			}
			if a, err = l.update(run, u); err != nil {
				t.Fatal(err)
			}
		case kind < 9:
			v1 = true
			if a, err = l.post(Create{Context: name, Content: say}); err != nil {
				continue // the newest run is ordered by its client
			}
		default:
			if len(c.waiting) > 0 {
				i := rapid.IntRange(0, len(c.waiting)-1).Draw(t, "withdrawn")
				id := c.waiting[i].Operation.ID
				if !l.withdraw(id) || l.operation(id) != nil {
					t.Fatalf("%s waits and cannot be withdrawn", id)
				}
				delete(c.ops, id)
				c.waiting = slices.Delete(c.waiting, i, i+1)
			}
		}
		if a.Operation.ID != "" {
			o := a.Operation
			for id, other := range c.ops {
				if other == o.Order && !c.ordered[o.RunID] || id == o.ID {
					t.Fatalf("%s and %s have the order %v", id, o.ID, o.Order)
				}
			}
			c.ops[o.ID], c.said[o.ID] = o.Order, o.Description
			switch {
			case o.Waiting:
				c.waiting = append(c.waiting, a)
			case v1: // it repeated what is shown
			default:
				c.counts(o.ID, Said{Order: o.Order, Content: o.Content})
			}
		}
		for range rapid.IntRange(0, 4).Draw(t, "steps") {
			l.step()
			claims()
		}
		if rapid.IntRange(0, 3).Draw(t, "look") == 0 {
			watch()
		}
		l.now = l.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "seconds")) * time.Second)
	}
	storm = false
	l.rest()
	l.now = l.now.Add(time.Minute) // whatever was late has landed
	l.hub.arrive()
	claims()
	watch()

	for name, c := range scopes {
		was := Order{}
		reached := map[string]bool{}
		for i, s := range l.hub.landed {
			if s.Context != name {
				continue
			}
			// Of those who said this, the first that is not older than what was shown before.
			var may []string
			for id := range c.ops {
				if o := l.operation(id); c.said[id] == s.Description && o.Content.State == s.State && runOfOp(id) == s.Run && c.ops[id].Compare(was) >= 0 {
					may = append(may, id)
				}
			}
			if len(may) == 0 {
				t.Fatalf("%s went backwards at %d: %s\nafter %v of %v", name, i, encoded(l.hub.landed), was, c.ops)
			}
			first := slices.MinFunc(may, func(a, b string) int { return c.ops[a].Compare(c.ops[b]) })
			was = c.ops[first]
			reached[s.Description] = true
		}
		d := l.document().Contexts[scopeOf(name, "")]
		if d.Effective.Order != c.now.Order || !d.Effective.same(c.now.Content) && c.count != "" {
			t.Fatalf("%s: %+v counts, the rules say %+v", name, d.Effective, c.now)
		}
		if c.count == "" {
			continue
		}
		if end := final[c.count]; end != OpDelivered && end != OpFailed {
			t.Fatalf("%s: the newest ended %q", name, end)
		}
		if is, _ := l.hub.shown(name, ""); final[c.count] == OpDelivered && (is.State != c.now.State || is.Description != c.now.Description) {
			t.Fatalf("%s shows %+v, what counts is %+v", name, is, c.now)
		}
		for _, id := range slices.Sorted(maps.Keys(c.ops)) {
			switch end := final[id]; {
			case !end.Final():
				t.Fatalf("%s has not ended: %+v", id, l.operation(id))
			case end == OpFailed && !slices.Contains(sky, refused) && !slices.Contains(sky, absent):
				t.Fatalf("%s failed: %+v", id, l.operation(id))
			case end == OpDelivered && !reached[c.said[id]]:
				t.Fatalf("%s is said to be delivered, and never was shown", id)
			}
		}
	}
}

func runOfOp(id string) string {
	_, run, _, _ := parseOperation(subject.Instance, id)
	return run
}
