package gitlab

import (
	"context"
	"strconv"
	"strings"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/status"
)

var _ status.Statuses = (*Client)(nil)

// WriteStatus posts a client's status: 1 call. GitLab itself decides whether that moves a job or makes one: it moves the
// pending or running job of ours with the same name in the same pipeline, and otherwise makes a new one that hides the
// old as retried; so a New run that comes before the end of the one before it takes that one's job over. That a job
// refuses the state it is in is no error; the receipt is then s's own, or read where s has none (1 call more). GitLab's
// refusals for good are permanent: 400, and 422 where a pipeline has as many jobs as it may. What runs cannot become
// skipped there; it is canceled, which passes as little (1 call more).
//
// Jobs stay in the pipeline of the first receipt. Where that is gone GitLab chooses one by s.Ref (1 call more); a
// pipeline that the client named is never exchanged for another (gl#443254).
func (c *Client) WriteStatus(ctx context.Context, s forge.Status) (forge.StatusReceipt, error) {
	s.TargetURL = link(s.TargetURL)
	return c.post(ctx, s)
}

// post posts a status as WriteStatus does, with whatever link.
func (c *Client) post(ctx context.Context, s forge.Status) (forge.StatusReceipt, error) {
	pid, err := commit(setStatus, s)
	if err != nil {
		return forge.StatusReceipt{}, err
	}
	text := wire.Cut(s.Description, maxField) // sent where it is empty too: the job would keep the text it had
	o := &gl.SetCommitStatusOptions{
		State: gl.BuildStateValue(s.State), Name: &s.Context, Ref: given(s.Ref), Coverage: s.Coverage, Description: &text,
		TargetURL: given(s.TargetURL),
	}
	if s.PipelineID != 0 {
		o.PipelineID = &s.PipelineID
	}
	made, _, err := c.api.Commits.SetCommitStatus(pid, s.SHA, o, with(ctx))
	again := true
	switch {
	case notThere(err) && o.PipelineID != nil && s.ID != "":
		o.PipelineID = nil
	case stuckIn(err) == string(gl.Running) && s.State == forge.StatusSkipped:
		o.State = gl.Canceled
	default:
		again = false
	}
	if again {
		made, _, err = c.api.Commits.SetCommitStatus(pid, s.SHA, o, with(ctx))
	}
	if err != nil {
		switch {
		case !already(stuckIn(err), s.State):
			return forge.StatusReceipt{}, unset(err)
		case s.ID != "":
			return forge.StatusReceipt{ID: s.ID, PipelineID: s.PipelineID}, nil
		}
		if made, err = c.newestJob(ctx, pid, s); err != nil || made == nil {
			return forge.StatusReceipt{}, err
		}
	}
	if made.ID == 0 {
		return forge.StatusReceipt{}, wire.Incomplete(setStatus)
	}
	return receiptOf(made), nil
}

// FindStatus says whether our newest status of this context (and ref, where one is given) shows what s says: 1 call.
// Its receipt is answered whatever it shows. A link cannot be taken from a job, so that none fits any. GitLab keeps no
// word of ours about the run: a New one is told from the run before it by the job.
func (c *Client) FindStatus(ctx context.Context, s forge.Status) (r forge.StatusReceipt, found bool, err error) {
	pid, err := commit("list commit statuses", s)
	if err != nil {
		return forge.StatusReceipt{}, false, err
	}
	newest, err := c.newestJob(ctx, pid, s)
	if err != nil || newest == nil {
		return forge.StatusReceipt{}, false, err
	}
	r = receiptOf(newest)
	url := link(s.TargetURL)
	return r, !(s.New && r.ID == s.ID) && isIn(newest.Status, s.State) && newest.Description == wire.Cut(s.Description, maxField) &&
		(url == "" || newest.TargetURL == url) && (s.Coverage == nil || newest.Coverage == *s.Coverage), nil
}

func (c *Client) newestJob(ctx context.Context, pid any, s forge.Status) (*gl.CommitStatus, error) {
	me, _, err := c.Self(ctx)
	if err != nil {
		return nil, err
	}
	return c.newestStatus(ctx, places{pid: pid, me: me.ID}, s.SHA, s.Context, s.Ref)
}

func commit(op string, s forge.Status) (pid any, err error) {
	if !forge.FullSHA(s.SHA) {
		return nil, wire.Permanent(op, errSHA)
	}
	return project(op, s.Repo)
}

func receiptOf(s *gl.CommitStatus) forge.StatusReceipt {
	return forge.StatusReceipt{ID: strconv.FormatInt(s.ID, 10), PipelineID: s.PipelineID}
}

// isIn says whether a job's state is as near to the wanted one as WriteStatus brings it.
func isIn(is string, want forge.StatusState) bool {
	return is == string(want) || want == forge.StatusSkipped && is == string(gl.Canceled)
}

// already says that a job which refused a state needs no more: it is in that state, or runs where it should wait.
func already(is string, want forge.StatusState) bool {
	return is == string(want) || is == string(forge.StatusRunning) && want == forge.StatusPending
}

// link is a client's URL if it is safe to be shown as a link and short enough, or none.
func link(url string) string {
	if !strings.HasPrefix(url, "https://") {
		return ""
	}
	return target(url)
}
