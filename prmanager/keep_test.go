package prmanager

import (
	"testing"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
)

// A merge group and the book of runs tell nobody of their end: that it is long since they heard of anything is all.
func TestGroupsAndRunsAreKeptForAWhile(t *testing.T) {
	now := time.Unix(1e9, 0)
	if k := NewGroups(Config{}).Decide(GroupSubject(testRepo, sha("a1")), GroupDoc{}, GroupFacts{}, actor.Inputs{}, now).Keep; k != kept {
		t.Errorf("a merge group is kept for %v", k)
	}
	if k := NewRuns(nil).Decide(RunsSubject(testRepo), RunsBook{}, RunFacts{}, actor.Inputs{}, now).Keep; k != kept {
		t.Errorf("the book of runs is kept for %v", k)
	}
}
