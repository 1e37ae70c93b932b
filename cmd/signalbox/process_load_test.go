package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// lane is the life of one pull request under load: whatever happens is sent at once, each delivery to another process,
// the next one when the one before is stored.
type lane struct {
	w        *world
	pr       *sandbox.PR
	dice     *rand.Rand
	approved bool     // what the gate must come to
	heads    []string // approved ones
	sent     []sandbox.Delivery
	again    bool // send some twice
	flaps    int  // labels that the gate has had to take off: after six within ten minutes it stops to
}

// send sends everything of this pull request that is due.
func (l *lane) send() {
	for _, d := range l.w.forge.Due() {
		if d.PR != l.pr.Number {
			continue
		}
		l.w.send(d.GUID)
		l.sent = append(l.sent, d)
		if l.again && l.dice.IntN(3) == 0 {
			l.w.send(l.sent[l.dice.IntN(len(l.sent))].GUID)
		}
	}
}

// live lets n things happen, at random.
func (l *lane) live(n int) {
	w := l.w
	for range n {
		if w.Failed() {
			return
		}
		switch roll := l.dice.IntN(4); {
		case l.approved && roll == 0:
			w.unlabels(w.maya, l.pr)
			l.approved = false
		case l.approved:
			w.pushes(w.mallory, l.pr)
			l.approved = false
			l.flaps++
		case roll == 0 || l.flaps == 4:
			w.pushes(w.mallory, l.pr)
		case roll == 1:
			l.bare()
			w.labels(w.mallory, l.pr)
			l.flaps++
		default:
			l.bare()
			w.labels(w.maya, l.pr)
			l.approved = true
			l.heads = append(l.heads, l.pr.Head())
			if l.dice.IntN(2) == 0 {
				l.opens()
			}
		}
		l.send()
	}
}

// opens waits until the approval has had its effect; otherwise the next thing may overtake it.
func (l *lane) opens() {
	if !eventually(func() bool { l.send(); return l.w.repo.Gate(l.pr.Head(), gateCheck) == "success" }) {
		l.w.Errorf("the gate of #%d never opened; its story:\n%s", l.pr.Number, l.w.told(l.pr))
	}
}

// bare waits until the label is off: nobody can set a label that is there.
func (l *lane) bare() {
	if !eventually(func() bool { l.send(); return len(l.pr.Labels()) == 0 }) {
		l.w.Errorf("the label of #%d never went; its story:\n%s", l.pr.Number, l.w.told(l.pr))
	}
}

// words are the first words of a delivery in the story of its pull request.
func words(d sandbox.Delivery) string {
	var in struct {
		After  string
		Sender struct{ Login string }
	}
	if err := json.Unmarshal(d.Body, &in); err != nil {
		return err.Error()
	}
	switch d.Action {
	case "opened":
		return "opened by @" + in.Sender.Login
	case "synchronize":
		return "push of " + in.After[:7] + " by @" + in.Sender.Login
	case "labeled":
		return "label added by @" + in.Sender.Login
	case "unlabeled":
		return "label removed by @" + in.Sender.Login
	}
	return d.Action
}

// inOrder wants every delivery decided once, in the order in which it was stored.
func (l *lane) inOrder() {
	var want, got []string
	for _, d := range l.sent {
		want = append(want, words(d))
	}
	for _, x := range l.w.journal(l.w.subject(l.pr)) {
		for _, in := range x.In {
			if strings.HasPrefix(in, "opened by") || strings.HasPrefix(in, "push of") || strings.HasPrefix(in, "label ") && !strings.HasPrefix(in, "label label") {
				got = append(got, strings.SplitN(in, " at ", 2)[0])
			}
		}
	}
	if !slices.Equal(got, want) {
		l.w.Errorf("#%d was decided in another order than its deliveries were stored in:\n got %q\nwant %q", l.pr.Number, got, want)
	}
}

// right wants the final state.
func (l *lane) right() {
	if l.approved {
		l.w.gate(l.pr, l.pr.Head(), "success")
		l.w.label(l.pr, true)
	} else {
		l.w.shut(l.pr)
	}
}

// load runs lanes over all processes and answers how many deliveries there were.
func (w *world) load(pulls, events int, again bool) (lanes []*lane, sent int) {
	var wait sync.WaitGroup
	var total atomic.Int64
	for i := range pulls {
		l := &lane{w: w, pr: w.opens(w.mallory), dice: rand.New(rand.NewPCG(1, uint64(i))), again: again}
		lanes = append(lanes, l)
		wait.Go(func() {
			l.send()
			l.live(events)
			total.Add(int64(len(l.sent)))
		})
	}
	wait.Wait()
	return lanes, int(total.Load())
}

// rest lets everything come to rest and checks it.
func (w *world) rest(lanes []*lane) {
	w.Helper()
	busy := "nothing was looked at"
	var pulls []*sandbox.PR
	for _, l := range lanes {
		pulls = append(pulls, l.pr)
	}
	if !eventually(func() bool {
		for _, l := range lanes {
			l.send()
		}
		busy = w.busy(pulls)
		return busy == "" && !slices.ContainsFunc(w.forge.Due(), func(d sandbox.Delivery) bool { return d.PR > 0 })
	}) {
		w.Fatalf("it never came to rest: %s", busy)
	}
	for _, l := range lanes {
		l.right()
		l.inOrder()
	}
	for t, n := range w.forge.Triggers() {
		if n != 1 {
			w.Errorf("run key %s of #%d was triggered %d times, want once", t.Key, t.PR, n)
		}
	}
	for t := range w.forge.Triggers() {
		i := slices.IndexFunc(lanes, func(l *lane) bool { return l.pr.Number == t.PR })
		if i < 0 || !slices.Contains(lanes[i].heads, t.SHA) {
			w.Errorf("#%d was triggered at %.7s, which nobody has approved", t.PR, t.SHA)
		}
	}
	if len(w.wire.overlaps) > 0 {
		w.Errorf("two writes at once for one subject: %v", w.wire.overlaps)
	}
}

func TestManyEventsOverThreeProcessesKeepTheirOrder(t *testing.T) {
	t.Parallel()
	pulls, want := 40, 400
	if soak() {
		pulls, want = 200, 2000
	}
	w := begin(t, redisStore(t).URL(), "SIGNALBOX_LOCK_TTL=10s")
	w.serve(3)
	w.deliver()
	lanes, _ := w.load(pulls, 9, true)
	w.rest(lanes)
	sent := 0
	for _, l := range lanes {
		sent += len(l.sent)
	}
	t.Logf("%d events of %d pull requests, %d triggers, %d API calls", sent, pulls, len(w.forge.Triggers()), len(w.forge.Calls(0)))
	if sent < want*9/10 {
		t.Errorf("only %d events, meant to be about %d", sent, want)
	}
}

// Each of three processes is told to stop under load, one after another, and a new one takes its place. The sender
// goes on to another process only where a connection fails; any 5xx would be seen.
func TestStopUnderLoadHandsEverythingOver(t *testing.T) {
	t.Parallel()
	w := begin(t, redisStore(t).URL(), "SIGNALBOX_LOCK_TTL=30s")
	first := w.serve(3)
	w.deliver()
	var lanes []*lane
	done := make(chan struct{})
	go func() { // joined below
		defer close(done)
		lanes, _ = w.load(20, 9, false)
	}()
	for _, s := range first {
		before := w.forge.Seq()
		w.until("there is load", func() bool { return w.forge.Seq() > before+20 || isClosed(done) })
		w.spawn().ready()
		s.signal(syscall.SIGTERM)
		if code := s.wait(); code != exitOK {
			t.Errorf("a process that was told to stop ended with %d:\n%s", code, tail(s.said(), 20))
		}
	}
	<-done
	w.rest(lanes)
	for _, d := range w.forge.Deliveries() {
		for _, a := range d.Attempts {
			if a.Status >= 400 {
				t.Errorf("delivery %s was answered %d", d.GUID, a.Status)
			}
		}
	}
	for _, l := range lanes {
		subjects := []string{fmt.Sprint(w.passed(w.subject(l.pr), "Taken_Over"))}
		for _, sha := range append(slices.Clone(l.heads), l.pr.Head()) {
			subjects = append(subjects, fmt.Sprint(w.passed(w.commit(sha), "Taken_Over")))
		}
		if slices.ContainsFunc(subjects, func(n string) bool { return n != "0" }) {
			t.Errorf("#%d was not handed over but taken over:\n%s", l.pr.Number, w.told(l.pr))
		}
	}
}

// What is on its way when the process is told to stop is stored and answered before it ends.
func TestDeliveryUnderWayAtAStopIsStored(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	s := w.serve(1)[0]
	pr := w.opens(w.mallory)
	d := w.delivery(pr, "opened")
	half := len(d.Body) / 2
	c := s.raw(fmt.Sprintf("POST /webhooks/github HTTP/1.1\r\nHost: signalbox\r\nContent-Type: application/json\r\nX-GitHub-Event: pull_request\r\n"+
		"X-GitHub-Delivery: %s\r\nX-Hub-Signature-256: %s\r\nContent-Length: %d\r\n\r\n%s", d.GUID, sandbox.Sign(hookSecret, d.Body), len(d.Body), d.Body[:half]))
	// The process has taken the connection: it answers one that came later.
	s.ready()
	s.signal(syscall.SIGTERM)
	w.until("it is stopping", func() bool { return strings.Contains(s.said(), `"stopping"`) })
	_, err := c.Write(d.Body[half:])
	w.must(err)
	if got := answerOn(w, c); got != http.StatusAccepted {
		t.Errorf("answered %d, want 202", got)
	}
	if code := s.wait(); code != exitOK {
		t.Errorf("ended with %d:\n%s", code, s.said())
	}
	if a := w.serve(1)[0].post(d); a.Duplicate == nil || !*a.Duplicate {
		t.Errorf("sent again it is answered %+v, want a duplicate", a)
	}
	w.settle(pr)
	w.shut(pr)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
