package main

import (
	"strings"
	"testing"
)

// Nothing was started, since the workflow file does not exist: there is nothing to cancel, and no dead letter about it.
func TestCancelOfARunWhoseWorkflowDoesNotExistIsDone(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t), "SIGNALBOX_TRIGGER=workflow:gone.yml@ci")
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.labels(w.maya, pr)
	w.settle(pr)
	w.unlabels(w.maya, pr)
	w.settle(pr)
	out := w.command(exitOK, "", nil, "jobs", "list")
	if strings.Contains(out, "to cancel it") {
		t.Errorf("dead letter of a cancel:\n%s", out)
	}
}

// An approval that was not granted, because the commit is not the head, must not end with 0.
func TestApprovalOfAnotherCommitFails(t *testing.T) {
	t.Parallel()
	w := begin(t, fileStore(t))
	w.serve(1)
	pr := w.opens(w.mallory)
	w.settle(pr)
	w.command(exitFailed, "", nil, "approve", "github:octo/hello#1", "--sha", strings.Repeat("0", 40), "--reason", "x")
	w.settle(pr)
	w.shut(pr)
}
