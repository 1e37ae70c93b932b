package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-github/v66/github"
	"go.uber.org/goleak"

	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// SetFault stops holding answers against the description while faults may make them up.
func (s *stage) SetFault(pick func(*http.Request) *sandbox.Fault) {
	s.described.quiet.Store(pick != nil)
	s.Forge.SetFault(pick)
}

// faulty makes one kind of request fail.
func (s *stage) faulty(method, path string, f *sandbox.Fault) {
	s.SetFault(func(r *http.Request) *sandbox.Fault {
		if r.Method == method && strings.HasSuffix(r.URL.Path, path) {
			return f
		}
		return nil
	})
}

func TestFaults(t *testing.T) {
	s := newStage(t)
	ctx, api := t.Context(), s.as(s.owner.Token)
	label := func() error {
		_, _, err := api.Issues.AddLabelsToIssue(ctx, "acme", "widget", 1, []string{"CICD"})
		return err
	}
	for _, x := range []struct {
		name         string
		fault        sandbox.Fault
		status       int // 0 = the connection is cut
		done         bool
		lost, denied bool
	}{
		{name: "refused", fault: sandbox.Fault{Refuse: true}, denied: true},
		{name: "bad gateway", fault: sandbox.Fault{Status: 502}, status: 502, denied: true},
		{name: "lost answer", fault: sandbox.Fault{Cut: true}, done: true, lost: true},
		{name: "wrong answer", fault: sandbox.Fault{Status: 502, Perform: true}, status: 502, done: true, lost: true},
	} {
		s.faulty("POST", "/labels", &x.fault)
		since := s.Seq()
		err := label()
		var answered *github.ErrorResponse
		if got := errors.As(err, &answered); got != (x.status != 0) || got && answered.Response.StatusCode != x.status || err == nil {
			t.Errorf("%s: %v", x.name, err)
		}
		equal(t, x.name+": performed", len(s.pr.Labels()) == 1, x.done)
		equal(t, x.name+": written", len(s.Writes(since)) == 1, x.done)
		calls := s.Calls(since)
		equal(t, x.name+": calls", len(calls), 1)
		equal(t, x.name+": record", fmt.Sprint(calls[0].Lost, calls[0].Denied, calls[0].Actor), fmt.Sprint(x.lost, x.denied, "olivia"))
		s.pr.Unlabel(s.alice, "CICD")
	}

	s.faulty("POST", "/labels", sandbox.SecondaryLimit(403, 7*time.Second))
	var slow *github.AbuseRateLimitError
	if err := label(); !errors.As(err, &slow) || slow.GetRetryAfter() != 7*time.Second {
		t.Errorf("secondary limit: %v", err)
	}
	s.SetFault(nil)
	api = s.as(s.owner.Token) // one that remembers no limit
	check(t, label())
}

// A picker may change the world between two calls of a client.
func TestWorldChangesBetweenCalls(t *testing.T) {
	s := newStage(t)
	before := s.pr.Head()
	s.SetFault(func(r *http.Request) *sandbox.Fault {
		if r.PathValue("number") == "1" {
			s.pr.Push(s.mallory)
		}
		return nil
	})
	p, _, err := s.asApp().PullRequests.Get(t.Context(), "acme", "widget", 1)
	check(t, err)
	if p.GetHead().GetSHA() == before {
		t.Error("the world did not change")
	}
}

func TestDelay(t *testing.T) {
	s := newStage(t)
	api := s.as(s.owner.Token)
	gate, reached := make(chan struct{}), make(chan struct{}, 2)
	s.SetFault(func(*http.Request) *sandbox.Fault {
		reached <- struct{}{}
		return &sandbox.Fault{Wait: gate}
	})
	result, since := make(chan error, 1), s.Seq()
	post := func(ctx context.Context) {
		_, _, err := api.Issues.AddLabelsToIssue(ctx, "acme", "widget", 1, []string{"CICD"})
		result <- err
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	wait.Go(func() { post(ctx) })
	<-reached
	cancel()
	if err := <-result; err == nil {
		t.Error("answered before it was released")
	}
	limit := time.After(10 * time.Second)
	for noted := false; !noted; {
		calls := s.Calls(since)
		noted = len(calls) == 1 && calls[0].Denied
		select {
		case <-limit:
			t.Fatal("a caller that went away is still waited for")
		case <-time.After(time.Millisecond):
		}
	}
	wait.Go(func() { post(t.Context()) })
	<-reached
	equal(t, "performed before it was released", len(s.pr.Labels()), 0)
	close(gate)
	check(t, <-result)
	equal(t, "performed", len(s.pr.Labels()), 1)
}

func TestRateLimit(t *testing.T) {
	f := sandbox.New(sandbox.Options{RateLimit: 2})
	server, err := f.Start()
	check(t, err)
	defer func() { check(t, server.Close()) }()
	token := f.AddUser("alice").Token
	fresh := func() *github.Client { // a client that has been told of no limit yet
		api, err := github.NewClient(nil).WithAuthToken(token).WithEnterpriseURLs(server.URL, server.URL)
		check(t, err)
		return api
	}
	for range 2 {
		_, _, err := fresh().Users.Get(t.Context(), "")
		check(t, err)
	}
	limits, _, err := fresh().RateLimit.Get(t.Context())
	check(t, err)
	equal(t, "remaining", limits.GetCore().Remaining, 0)
	_, _, err = fresh().Users.Get(t.Context(), "")
	var limited *github.RateLimitError
	if !errors.As(err, &limited) {
		t.Errorf("got %v", err)
	}
	anybody, err := github.NewClient(nil).WithEnterpriseURLs(server.URL, server.URL)
	check(t, err)
	meta, _, err := anybody.Meta.Get(t.Context())
	check(t, err)
	equal(t, "hooks", len(meta.Hooks), 2)
}

func TestServerEnds(t *testing.T) {
	leak := goleak.IgnoreCurrent()
	f := sandbox.New(sandbox.Options{})
	server, err := f.Start()
	check(t, err)
	client := &http.Client{Transport: &http.Transport{}}
	res, err := client.Get(server.URL + "/meta")
	check(t, err)
	check(t, res.Body.Close())
	equal(t, "status", res.StatusCode, 200)
	client.CloseIdleConnections()
	check(t, server.Close())
	goleak.VerifyNone(t, leak)
}

// Many clients and verbs at once: the record counts every call once, in order.
func TestConcurrently(t *testing.T) {
	s := newStage(t)
	since := s.Seq()
	api := s.asApp()
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for j := range 10 {
				if _, _, err := api.Issues.AddLabelsToIssue(t.Context(), "acme", "widget", 1, []string{fmt.Sprint(i, "-", j)}); err != nil {
					t.Error(err)
				}
				s.pr.Push(s.mallory)
			}
		})
	}
	wait.Wait()
	last := since
	for _, c := range s.Calls(since) {
		if c.Seq <= last {
			t.Fatalf("call %d after %d", c.Seq, last)
		}
		last = c.Seq
	}
	equal(t, "calls", len(s.Calls(since)), 81) // and one for the token
	equal(t, "writes", len(s.Writes(since)), 80)
	equal(t, "labels", len(s.pr.Labels()), 80)
}
