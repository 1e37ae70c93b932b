package github

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/sandbox"
	"github.com/signalbox-ci/signalbox/repair"
)

func TestInstallationsAndRepos(t *testing.T) {
	w := appWorld(t)
	w.app.InstallAll(w.outsider)
	ids, next, err := w.Installations(t.Context(), 1)
	if err != nil || next != 0 || len(ids) != 2 {
		t.Fatalf("%v, next %d: %v", ids, next, err)
	}
	repos, next, err := w.Repos(t.Context(), ids[0], 1)
	want := forge.Repo{Instance: "github", ID: w.repo.ID, Name: "acme/widgets", Installation: ids[0]}
	if err != nil || next != 0 || !slices.Equal(repos, []forge.Repo{want}) {
		t.Errorf("%+v, next %d: %v", repos, next, err)
	}
}

func TestInstallationsLeavesOutTheSuspended(t *testing.T) {
	_, key := appKey(t)
	server := serve(t, func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte(`[{"id":5,"suspended_at":"2026-01-02T03:04:05Z"},{"id":6}]`))
	})
	c := newClient(t, Options{Instance: "github", APIURL: server.base.String(), AppID: 1, PrivateKey: key})
	if ids, _, err := c.Installations(t.Context(), 1); err != nil || !slices.Equal(ids, []int64{6}) {
		t.Errorf("%v: %v", ids, err)
	}
}

func TestReposOfATokenInTheWorld(t *testing.T) {
	w := tokenWorld(t)
	w.forge.AddRepo("other/private", sandbox.RepoOptions{})
	repos, next, err := w.Repos(t.Context(), 0, 1)
	if err != nil || next != 0 || len(repos) != 1 || repos[0] != w.where() {
		t.Errorf("%+v, next %d: %v", repos, next, err)
	}
}

func TestReposOfAToken(t *testing.T) {
	c := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/user/repos" || r.URL.Query().Get("page") != "2" {
			rw.WriteHeader(http.StatusTeapot)
			return
		}
		rw.Header().Set("Link", `<http://x/user/repos?page=3>; rel="next"`)
		_, _ = rw.Write([]byte(`[{"id":1,"full_name":"a/b","private":true},{"id":2,"full_name":"a/old","archived":true}]`))
	})
	repos, next, err := c.Repos(t.Context(), 0, 2)
	if err != nil || next != 3 || len(repos) != 1 || repos[0] != (forge.Repo{Instance: "github", ID: 1, Name: "a/b", Private: true}) {
		t.Errorf("%+v, next %d: %v", repos, next, err)
	}
}

func TestUpdatedPulls(t *testing.T) {
	for name, w := range map[string]*world{"token": tokenWorld(t), "App": appWorld(t)} {
		t.Run(name, func(t *testing.T) {
			for range 120 {
				w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
			}
			last := w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
			last.Close(w.outsider)
			named := forge.Repo{Instance: "github", Name: "acme/widgets"} // the id is not known before
			first, next, err := w.Updated(t.Context(), named, time.Now().Add(-time.Hour), 1)
			if err != nil || next != 2 || len(first) != 100 {
				t.Fatalf("%d, next %d: %v", len(first), next, err)
			}
			if p := first[0]; p.Ref.Number != last.Number || p.Open || p.Ref.Repo.ID != w.repo.ID || p.UpdatedAt.IsZero() || p.CreatedAt.IsZero() {
				t.Errorf("the newest is %+v", p)
			}
			if _, next, err := w.Updated(t.Context(), w.where(), time.Now().Add(-time.Hour), 2); err != nil || next != 0 {
				t.Errorf("next %d: %v", next, err)
			}
			if none, next, err := w.Updated(t.Context(), w.where(), time.Now().Add(time.Hour), 1); err != nil || next != 0 || len(none) != 0 {
				t.Errorf("since tomorrow: %d, next %d: %v", len(none), next, err)
			}
			open, next, err := w.Open(t.Context(), w.where(), 1)
			if err != nil || next != 2 || open[0].Ref.Number != 1 {
				t.Errorf("open begins with %+v, next %d: %v", open[0], next, err)
			}
			other := w.where()
			other.ID++
			if _, _, err := w.Open(t.Context(), other, 1); classOf(t, err) != forge.NotFound {
				t.Errorf("another repository under the name: %v", err)
			}
		})
	}
}

// logWorld has a hook of ours and deliveries: "lost" twice, "late" lost and then arrived, "fine", and those of a hook
// of somebody else.
func logWorld(t *testing.T, w *world) (lost, late string, sender *sandbox.Sender) {
	t.Helper()
	if w.app == nil {
		w.repo.AddHook("s", "pull_request")
	}
	server := serve(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-GitHub-Event") == "ping" {
			rw.WriteHeader(http.StatusInternalServerError)
		}
	})
	sender = w.forge.NewSender(server.base.String() + "webhooks/github")
	t.Cleanup(sender.Close)
	if err := sender.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
	}
	due := w.forge.Due()
	due = slices.DeleteFunc(due, func(d sandbox.Delivery) bool { return d.Event != "pull_request" })
	lost, late = due[0].GUID, due[1].GUID
	for _, guid := range []string{lost, late, lost} {
		if err := sender.Drop(guid); err != nil {
			t.Fatal(err)
		}
	}
	for _, guid := range []string{late, due[2].GUID} {
		if _, err := sender.Send(t.Context(), guid); err != nil {
			t.Fatal(err)
		}
	}
	return lost, late, sender
}

func TestFailedDeliveriesAndRedeliver(t *testing.T) {
	for name, w := range map[string]*world{"token": tokenWorld(t), "App": appWorld(t)} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			lost, _, _ := logWorld(t, w)
			failed, next, err := w.Failed(ctx, w.where(), time.Now().Add(-time.Hour), "")
			failed = slices.DeleteFunc(failed, func(d repair.Delivery) bool { return d.Event == "ping" })
			if err != nil || next != "" || len(failed) != 1 || failed[0].GUID != lost || failed[0].Event != "pull_request" {
				t.Fatalf("%+v, next %q: %v; expected one entry for %s", failed, next, err, lost)
			}
			if none, _, err := w.Failed(ctx, w.where(), time.Now().Add(time.Hour), ""); err != nil || len(none) != 0 {
				t.Errorf("since tomorrow: %+v: %v", none, err)
			}
			if err := w.Redeliver(ctx, w.where(), failed[0]); err != nil {
				t.Fatal(err)
			}
			if due := w.forge.Due(); due[len(due)-1].GUID != lost {
				t.Errorf("due is %s", due[len(due)-1].GUID)
			}
			failed[0].ID = 1
			if err := w.Redeliver(ctx, w.where(), failed[0]); classOf(t, err) != forge.NotFound {
				t.Errorf("an attempt that is gone: %v", err)
			}
		})
	}
}

// More attempts than one call reads: the next call goes on where it ended.
func TestFailedGoesOn(t *testing.T) {
	for name, w := range map[string]*world{"token": tokenWorld(t), "App": appWorld(t)} {
		t.Run(name, func(t *testing.T) {
			if w.app == nil {
				w.repo.AddHook("s", "pull_request")
			}
			sender := w.forge.NewSender("http://127.0.0.1:1/webhooks/github")
			want := map[string]bool{}
			for range 1050 {
				w.repo.OpenPR(w.outsider, sandbox.PROptions{Fork: true})
			}
			for _, d := range w.forge.Due() {
				want[d.GUID] = true
				if err := sender.Drop(d.GUID); err != nil {
					t.Fatal(err)
				}
			}
			from, calls := "", 0
			for {
				list, next, err := w.Failed(t.Context(), w.where(), time.Now().Add(-time.Hour), from)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range list {
					delete(want, d.GUID)
				}
				calls++
				if from = next; next == "" {
					break
				}
			}
			if calls < 2 || len(want) != 0 {
				t.Errorf("%d calls, %d not seen", calls, len(want))
			}
		})
	}
}

func TestNoDeliveryLog(t *testing.T) {
	w := tokenWorld(t)
	w.repo.AddHook("s", "pull_request")
	w.forge.NewSender("http://somebody.else/hook")
	var none *repair.NoLog
	if _, _, err := w.Failed(t.Context(), w.where(), time.Now(), ""); !errors.As(err, &none) {
		t.Errorf("only others' hooks: %v", err)
	}
	w.forge.NewSender("http://us/base/webhooks/github/")
	stranger := newClient(t, Options{Instance: "github", APIURL: w.url, Token: w.maintainer.Token})
	if _, _, err := stranger.Failed(t.Context(), w.where(), time.Now(), ""); !errors.As(err, &none) {
		t.Errorf("no right to see hooks: %v", err)
	}
	for _, status := range []int{403, 404, 500, 429} {
		w.forge.SetFault(func(r *http.Request) *sandbox.Fault {
			return &sandbox.Fault{Status: status, Body: fmt.Sprintf(`{"message":"Status %d"}`, status)}
		})
		_, _, err := w.Failed(t.Context(), w.where(), time.Now(), "")
		if got, want := errors.As(err, &none), status == 403 || status == 404; got != want || err == nil {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// A limit is not the answer that there is no log.
func TestALimitIsNoMissingLog(t *testing.T) {
	w := tokenWorld(t)
	w.forge.SetFault(func(*http.Request) *sandbox.Fault { return sandbox.SecondaryLimit(http.StatusForbidden, time.Minute) })
	if _, _, err := w.Failed(t.Context(), w.where(), time.Now(), ""); classOf(t, err) != forge.Contention {
		t.Errorf("%v", err)
	}
}

func TestHandles(t *testing.T) {
	h, err := NewHook("github", []string{"s"})
	if err != nil {
		t.Fatal(err)
	}
	for event, want := range map[string]bool{"pull_request": true, "issue_comment": true, "check_run": true, "workflow_run": true, "merge_group": true, "ping": false, "star": false, "not an event": false, "": false} {
		if h.Handles(event) != want {
			t.Errorf("%q: %v", event, !want)
		}
	}
}
