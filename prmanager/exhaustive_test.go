package prmanager

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

// The base alphabet. Each letter happens in the world and is told by one delivery, or by none where nothing changed.
const (
	letterOpen    = 'O' // an outsider opens; always first
	letterLabel   = 'L' // a maintainer labels
	letterOutside = 'l' // an outsider labels
	letterUnlabel = 'U' // a maintainer removes the label
	letterPush    = 'P' // the outsider pushes a new commit
	letterClose   = 'C'
	letterReopen  = 'R'
	letterComment = 'A' // a maintainer approves the head by comment
	letterPress   = 'B' // a maintainer presses the button on the head's gate
	labels        = "LlUPCR"
	approvals     = "LUPAB"
)

// delivery is what tells of something.
type delivery struct {
	kind string
	body any
}

// happens lets a letter happen; nil where it cannot, or changes nothing.
func (w *world) happens(letter byte, n int) *delivery {
	switch letter {
	case letterComment:
		w.approvals = append(w.approvals, Push{At: w.now.Add(w.step), SHA: w.pull.Head.SHA})
		return &delivery{KindComment, w.comment("mona", "/ok-to-test "+w.pull.Head.SHA)}
	case letterPress:
		w.tick()
		w.approvals = append(w.approvals, Push{At: w.now, SHA: w.pull.Head.SHA})
		return &delivery{status.KindPressed, status.Pressed{SHA: w.pull.Head.SHA, What: status.PressedApprove, By: w.actor("max"), At: w.now}}
	}
	if note, ok := w.happen(letter, n); ok {
		return &delivery{KindPull, note}
	}
	return nil
}

// happen is a letter that is told by a note.
func (w *world) happen(letter byte, n int) (note Note, ok bool) {
	switch letter {
	case letterOpen:
		return w.open("bob", "a0"), true
	case letterLabel, letterOutside:
		who := map[byte]string{letterLabel: "mona", letterOutside: "bob"}[letter]
		ok = !w.on
		return w.setLabel(who, w.label, true), ok
	case letterUnlabel:
		ok = w.on
		return w.setLabel("max", w.label, false), ok
	case letterPush:
		return w.push("bob", fmt.Sprintf("b%d", n)), true
	case letterClose:
		if !w.pull.Open {
			return Note{}, false
		}
		return w.close("bob", false), true
	case letterReopen:
		if w.pull.Open {
			return Note{}, false
		}
		return w.reopen("bob"), true
	}
	return Note{}, false
}

// rightful says from what really happened whether the gate may be open. sure is false where the newest entry is an
// outsider's over a maintainer's that only we removed: then shut is right as well.
func (w *world) rightful(hold time.Duration) (open, sure bool) {
	var decides *forge.LabelEntry
	sure = true
	for i, e := range w.entries {
		switch {
		case e.Actor.ID == w.self.Actor.ID:
		case !e.Added || w.trusted[e.Actor.Login]:
			decides, sure = &w.entries[i], true
		default:
			sure = false
		}
	}
	for _, a := range w.approvals {
		removed := slices.ContainsFunc(w.entries, func(e forge.LabelEntry) bool {
			return !e.Added && e.Actor.ID != w.self.Actor.ID && !e.At.Before(a.At)
		})
		if w.pull.Open && a.SHA == w.pull.Head.SHA && !a.At.Before(w.arrived[a.SHA]) && a.At.After(w.moved) && !removed {
			// Heard while a label stood it added nothing, and went with the label whose removal was heard later.
			return true, !slices.ContainsFunc(w.entries, func(e forge.LabelEntry) bool { return !e.Added && e.At.Before(a.At) })
		}
	}
	if !w.pull.Open || decides == nil || !decides.Added || decides.At.Before(w.arrived[w.pull.Head.SHA]) || !decides.At.After(w.moved) {
		return false, true
	}
	for _, p := range w.pushes {
		if decides.At.Before(p.At.Add(hold)) {
			return false, true
		}
	}
	return true, sure
}

// moves is when the world of a life moves on.
type moves string

const (
	before moves = "before" // it has come to rest before the first delivery
	told   moves = "told"   // as far as the deliveries tell
	amid   moves = "amid"   // and by one more letter at each look at it
)

// TestEveryOrder delivers what happened in every sequence of up to five letters, in every order, with one delivery
// doubled, to an actor that looks at the world as it is by then: first with everything over before the first delivery,
// then with the world moving on only as far as the deliveries tell, then with the next thing happening at every look at
// it. Once all are delivered and every question is
// settled the gate is open exactly if a maintainer's label stands for exactly the live head, and no run was started
// twice.
func TestEveryOrder(t *testing.T) {
	for _, c := range []struct {
		hold, step time.Duration
		world      moves
		alphabet   string
		every      int // of the longest lives, play one in so many
	}{
		{5 * time.Second, 10 * time.Second, before, labels, 1}, // labels come after the hold
		{5 * time.Second, 10 * time.Second, told, labels, 4},
		{5 * time.Second, 10 * time.Second, amid, labels, 7},
		{2 * time.Minute, 10 * time.Second, before, labels, 11}, // within it
		{0, 10 * time.Second, before, labels, 11},
		{0, 10 * time.Second, told, labels, 11},
		{0, 10 * time.Second, amid, labels, 11},
		{5 * time.Second, 10 * time.Second, before, approvals, 11},
		{5 * time.Second, 10 * time.Second, told, approvals, 29},
		{5 * time.Second, 10 * time.Second, amid, approvals, 29},
	} {
		t.Run(fmt.Sprintf("%s,hold=%s,step=%s,world=%s", c.alphabet, c.hold, c.step, c.world), func(t *testing.T) {
			t.Parallel()
			turn, lives, opened := 0, 0, 0
			var grow func(letters string)
			grow = func(letters string) {
				if c.world == before && !possible(letters) {
					return
				}
				permute(len(letters), func(order []int) {
					if t.Failed() {
						return
					}
					if turn++; len(order) == 5 && turn%c.every != 0 {
						return
					}
					lives++
					// The doubled delivery and its place go round, so that all come up.
					again, place := order[turn%len(order)], (turn/len(order))%(len(order)+1)
					order = slices.Insert(slices.Clone(order), place, again)
					if live(t, letters, order, c.hold, c.step, c.world) {
						opened++
					}
				})
				if len(letters) < 5 {
					for _, l := range c.alphabet {
						grow(letters + string(l))
					}
				}
			}
			grow(string(letterOpen))
			t.Logf("%d lives, %d of them end open", lives, opened)
			if opened == 0 {
				t.Error("no life ends open: this test shows nothing")
			}
		})
	}
}

// possible says whether every letter changes something when nobody interferes.
func possible(letters string) bool {
	w := newWorld()
	for i := range len(letters) {
		if w.happens(letters[i], i) == nil {
			return false
		}
	}
	return true
}

func permute(n int, f func([]int)) {
	order := make([]int, 0, n)
	var place func()
	place = func() {
		if len(order) == n {
			f(order)
			return
		}
		for i := range n {
			if !slices.Contains(order, i) {
				order = append(order, i)
				place()
				order = order[:len(order)-1]
			}
		}
	}
	place()
}

// live plays one life and answers whether the gate ends open.
func live(t *testing.T, letters string, order []int, hold, step time.Duration, moving moves) bool {
	t.Helper()
	w := newWorld()
	w.step = step
	m := newSim(t, w)
	m.policy.Hold, m.light = hold, true
	var notes []*delivery
	until := func(n int) {
		for i := len(notes); i < n; i++ {
			notes = append(notes, w.happens(letters[i], i))
		}
	}
	switch moving {
	case before:
		until(len(letters))
	case amid:
		w.amid = func(string) { until(min(len(notes)+1, len(letters))) }
	case told:
	}
	for _, i := range order {
		until(i + 1)
		if notes[i] != nil {
			m.post(notes[i].kind, notes[i].body)
			m.run("")
		}
	}
	m.pass(5 * time.Minute)

	open, sure := w.rightful(hold)
	gate := w.gate(w.pull.Head.SHA)
	is := m.d.Standing() != nil
	var wrong []string
	if is != open && (sure || is) {
		wrong = append(wrong, fmt.Sprintf("granted: %t, rightful: %t", is, open))
	}
	if (gate == forge.CheckSuccess) != is {
		wrong = append(wrong, fmt.Sprintf("the gate shows %s", gate))
	}
	if w.on != is {
		wrong = append(wrong, fmt.Sprintf("the label is there: %t", w.on))
	}
	if m.d.Head.SHA != w.pull.Head.SHA || m.d.Open != w.pull.Open {
		wrong = append(wrong, "the document has another head or state than the forge")
	}
	for _, r := range w.runs {
		if r.starts > 1 {
			wrong = append(wrong, "started twice: "+r.run.Key)
		}
	}
	if running := w.live(); is && !slices.Equal(running, []string{w.pull.Head.SHA}) || !is && len(running) > 0 {
		wrong = append(wrong, fmt.Sprintf("running: %v", running))
	}
	for s := range w.gates {
		if s != w.pull.Head.SHA && w.gate(s) == forge.CheckSuccess {
			wrong = append(wrong, "open on the former head "+s[:2])
		}
	}
	if len(m.outbox) > 0 || len(m.d.Questions) > 0 {
		wrong = append(wrong, fmt.Sprintf("left over: %v %v", m.outbox, m.d.Questions))
	}
	if wrong != nil {
		t.Errorf("%s delivered as %v:\n  %s\nentries %+v", letters, order, strings.Join(wrong, "\n  "), w.entries)
	}
	return is
}
