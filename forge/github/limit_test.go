package github

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
)

// answers is a network that answers from a list, and counts.
type answers struct {
	sent int
	next func(sent int) *http.Response
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	a.sent++
	return a.next(a.sent), nil
}

func response(status int, body string, header ...string) *http.Response {
	r := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

const pullJSON = `{"number":7,"state":"open","updated_at":"2026-01-01T00:00:00Z","head":{"sha":"aa"},"base":{"sha":"bb","repo":{"id":5,"full_name":"acme/widgets"}}}`

// While a limit lasts nothing is sent; afterwards everything is.
func TestLimiter_pauses(t *testing.T) {
	const secondary = `{"message":"You have exceeded a secondary rate limit."}`
	for _, status := range []int{http.StatusForbidden, http.StatusTooManyRequests} {
		synctest.Test(t, func(t *testing.T) {
			net := &answers{next: func(sent int) *http.Response {
				if sent == 1 {
					// The end of the hourly window is told too, and must not be taken for the end of the pause.
					return response(status, secondary, "X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", "4000",
						"X-RateLimit-Reset", strconv.FormatInt(time.Now().Add(50*time.Minute).Unix(), 10))
				}
				return response(http.StatusOK, pullJSON)
			}}
			c := newClient(t, Options{Instance: "github", Token: "t", Transport: net})
			read := func() error {
				_, err := c.Pull(t.Context(), forge.Ref{Repo: forge.Repo{Name: "acme/widgets"}, Number: 7})
				return err
			}
			if err := read(); classOf(t, err) != forge.Contention {
				t.Fatal(err)
			}
			<-time.After(20 * time.Second) // synctest's clock
			err := read()
			if classOf(t, err) != forge.Contention || forge.Classify(err).After != 40*time.Second {
				t.Errorf("%v, after %v", err, forge.Classify(err).After)
			}
			if net.sent != 1 {
				t.Errorf("sent %d requests into the limit", net.sent-1)
			}
			<-time.After(41 * time.Second) // synctest's clock
			if err := read(); err != nil {
				t.Errorf("after the limit: %v", err)
			}
		})
	}
}

// The last of the hourly budget is for what matters.
func TestLimiter_reserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		remaining := 0
		reset := time.Now().Add(10 * time.Minute)
		net := &answers{next: func(int) *http.Response {
			return response(http.StatusOK, pullJSON, "X-RateLimit-Limit", "5000", "X-RateLimit-Remaining", strconv.Itoa(remaining),
				"X-RateLimit-Reset", strconv.FormatInt(reset.Unix(), 10), "X-RateLimit-Resource", "core")
		}}
		c := newClient(t, Options{Instance: "github", Token: "t", Transport: net})
		read := func(u forge.Urgency) error {
			_, err := c.Pull(forge.WithUrgency(t.Context(), u), forge.Ref{Repo: forge.Repo{Name: "acme/widgets"}, Number: 7})
			return err
		}
		for _, step := range []struct {
			remaining            int
			permitting, cosmetic bool // are sent
		}{
			{5000, true, true}, {1000, true, true}, {999, true, false}, {250, true, false}, {249, false, false}, {1, false, false},
		} {
			remaining = step.remaining
			if err := read(forge.Shutting); err != nil { // learns what remains
				t.Fatal(err)
			}
			for u, want := range map[forge.Urgency]bool{forge.Shutting: true, forge.Permitting: step.permitting, forge.Cosmetic: step.cosmetic} {
				err := read(u)
				if (err == nil) != want {
					t.Errorf("%d remain, urgency %d: %v", remaining, u, err)
				}
				if err != nil && (classOf(t, err) != forge.Contention || forge.Classify(err).After != 10*time.Minute || !strings.Contains(err.Error(), "kept for more urgent calls")) {
					t.Errorf("%d remain, urgency %d: %v after %v", remaining, u, err, forge.Classify(err).After)
				}
			}
		}
		<-time.After(11 * time.Minute) // synctest's clock
		if err := read(forge.Cosmetic); err != nil {
			t.Errorf("in the next window: %v", err)
		}
	})
}

// Against a forge that counts: the budget runs out, and the answer says when it is back.
func TestLimiter_sandbox(t *testing.T) {
	f := sandbox.New(sandbox.Options{RateLimit: 3})
	server, err := f.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	me := f.AddUser("me")
	repo := f.AddRepo("acme/widgets", sandbox.RepoOptions{Permissions: map[*sandbox.User]string{me: "write"}})
	pr := repo.OpenPR(me, sandbox.PROptions{})
	c := newClient(t, Options{Instance: "github", APIURL: server.URL, Token: me.Token})
	ref := forge.Ref{Repo: forge.Repo{ID: repo.ID, Name: "acme/widgets"}, Number: pr.Number}
	for range 3 {
		if _, err := c.Pull(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.Pull(t.Context(), ref)
	if after := forge.Classify(err).After; classOf(t, err) != forge.Contention || after < 50*time.Minute || after > time.Hour {
		t.Errorf("%v, after %v", err, after)
	}
	if n := len(f.Calls(0)); n > 4 {
		t.Errorf("%d calls", n)
	}
}
