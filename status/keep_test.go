package status

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/state"
)

func (p *plant) knows(t *testing.T, s state.Subject) bool {
	t.Helper()
	synctest.Wait()
	n, err := p.store.Load(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return n.Doc != nil
}

// What a client sees of a commit that was dropped is what docs/statuses.md says under "How long".
func TestACommitIsDroppedAfterItsTime(t *testing.T) {
	inSlowPlant(t, 6*time.Hour, func(t *testing.T, p *plant) {
		of := at(1)
		first, err := p.Create(t.Context(), team, of, Create{Context: "a", Content: said(forge.StatusSuccess)}, Key{})
		if err != nil {
			t.Fatal(err)
		}
		elapse(kept - 24*time.Hour)
		if !p.knows(t, of.Subject()) {
			t.Fatal("dropped too early")
		}
		other := Caller{Principal: "other"}
		_, err = p.Create(t.Context(), other, of, Create{Context: "a", Content: said(forge.StatusFailed)}, Key{})
		refuses(t, err, CodeContextOwned)
		elapse(48 * time.Hour)
		if p.knows(t, of.Subject()) {
			t.Fatal("still known")
		}
		_, err = p.Operation(t.Context(), repo.Instance, first.Operation.ID)
		refuses(t, err, CodeNotFound)
		_, err = p.Update(t.Context(), team, of, first.Run.ID, Update{Content: said(forge.StatusFailed)}, Key{})
		refuses(t, err, CodeNotFound)

		again, err := p.Create(t.Context(), other, of, Create{Context: "a", Content: said(forge.StatusFailed)}, Key{})
		if err != nil || again.Run.Attempt != 1 {
			t.Fatalf("%+v, %v", again, err)
		}
		elapse(time.Minute)
		if got := p.state(t, again); got != "delivered" {
			t.Errorf("the status of the next owner: %s", got)
		}
	})
}

func TestTheHeadOfAnOpenPullRequestStays(t *testing.T) {
	inSlowPlant(t, 6*time.Hour, func(t *testing.T, p *plant) {
		of := at(1)
		seq := int64(0)
		tell := func(open bool) {
			t.Helper()
			seq++
			body, err := json.Marshal(Gate{Pull: state.Subject{Instance: repo.Instance, Project: "1296269", Kind: "pr", Key: "7"}, Ref: forge.Ref{Repo: repo, Number: 7}, SHA: of.SHA, Check: "gate", Seq: seq, Open: open, Title: "t"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.engine.Tell(t.Context(), state.Delivery{Subject: of.Subject(), ID: string(body), Kind: KindGate, Format: 1, Body: body}); err != nil {
				t.Fatal(err)
			}
		}
		tell(true)
		elapse(3 * kept)
		if !p.knows(t, of.Subject()) {
			t.Fatal("dropped under an open pull request")
		}
		tell(false)
		elapse(kept - 24*time.Hour)
		if !p.knows(t, of.Subject()) {
			t.Error("dropped too early")
		}
		elapse(48 * time.Hour)
		if p.knows(t, of.Subject()) {
			t.Error("still known")
		}
	})
}
