package gitlab

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"

	gl "gitlab.com/gitlab-org/api/client-go/v2"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/forge/wire"
	"github.com/signalbox-ci/signalbox/status"
)

var _ status.Checks = (*Client)(nil)

// What GitLab takes, and how far we look for our own.
const (
	maxField  = 255 // runes of a status' description, bytes of its URL
	notePages = 10  // of 100 notes each
)

const setStatus = "set commit status"

// WriteCheck shows the check where GitLab can show it: as a commit status if a merge request of this project has the
// commit, and as one note, edited in place, on each merge request from a fork whose head it is: a status on a fork's
// commit would be refused or not shown. A part gets no note. What is shown already is not written again. The id is always empty: a status is
// found by its name, a note by its marker.
//
// A note is written only while the commit is the head, so that the end of a former head never covers the text of the
// present one. Where the head moves between the look and the write, the note is that of the former head until the next
// comparison; it names its commit.
func (c *Client) WriteCheck(ctx context.Context, check forge.Check) (id string, err error) {
	at, err := c.places(ctx, "write check", check)
	if err != nil {
		return "", err
	}
	if at.status {
		if err := c.writeStatus(ctx, at, check); err != nil {
			return "", err
		}
	}
	for _, number := range at.notes {
		if err := c.writeNote(ctx, at, number, check); err != nil {
			return "", err
		}
	}
	return "", nil
}

// FindCheck says whether all that WriteCheck would show is shown.
func (c *Client) FindCheck(ctx context.Context, check forge.Check) (id string, found bool, err error) {
	at, err := c.places(ctx, "find check", check)
	if err != nil {
		return "", false, err
	}
	if at.status {
		newest, err := c.newestStatus(ctx, at, check.SHA, check.Name, "")
		if err != nil || newest == nil || !shows(newest, check) {
			return "", false, err
		}
	}
	for _, number := range at.notes {
		note, err := c.ourNote(ctx, at, number, check.Name)
		if err != nil || note == nil || note.Body != noteText(check) {
			return "", false, err
		}
	}
	return "", true, nil
}

// places is where a check is to be shown.
type places struct {
	pid    any
	me     int64
	status bool
	ref    string  // source branch of a merge request of this project; empty = GitLab finds one
	head   bool    // the commit is that branch's head, so that it must be there
	notes  []int64 // merge requests from forks
}

func (c *Client) places(ctx context.Context, op string, check forge.Check) (places, error) {
	pid, err := project(op, check.Repo)
	if err != nil {
		return places{}, err
	}
	if !forge.FullSHA(check.SHA) {
		return places{}, wire.Permanent(op, errSHA)
	}
	me, _, err := c.Self(ctx)
	if err != nil {
		return places{}, err
	}
	at := places{pid: pid, me: me.ID, status: len(check.Pulls) == 0}
	for _, number := range check.Pulls {
		live, _, err := c.api.MergeRequests.GetMergeRequest(pid, int64(number), nil, with(ctx))
		if err != nil {
			if f := classify(op, err); f.Class != forge.NotFound {
				return places{}, f
			}
			continue // deleted: there is nothing to show it on
		}
		if live.TargetProjectID == 0 || live.SHA == "" {
			return places{}, wire.Incomplete(op)
		}
		head := live.SHA == check.SHA
		if live.SourceProjectID == live.TargetProjectID {
			if at.status = true; at.ref == "" || head && !at.head {
				at.ref, at.head = live.SourceBranch, head
			}
		} else if head && !check.Part && (isOpen(live.State) || check.State == forge.CheckCancelled) {
			at.notes = append(at.notes, int64(number))
		}
	}
	return at, nil
}

// writeStatus posts a commit status: 1 call to look, 1 to post. It goes into the pipeline that has our newest one of
// this name: without that GitLab would choose, and leave the old one pending in another.
func (c *Client) writeStatus(ctx context.Context, at places, check forge.Check) error {
	newest, err := c.newestStatus(ctx, at, check.SHA, check.Name, "")
	if err != nil {
		return err
	}
	s := forge.Status{
		Repo: check.Repo, SHA: check.SHA, Ref: at.ref, Context: check.Name, State: statusState(check.State), Description: check.Title,
		TargetURL: target(check.URL),
	}
	if newest != nil {
		if shows(newest, check) {
			return nil
		}
		if s.ID = receiptOf(newest).ID; newest.PipelineID != 0 {
			s.PipelineID, s.Ref = newest.PipelineID, newest.Ref
		}
	}
	_, err = c.post(ctx, s)
	return at.lagging(err)
}

// lagging makes of what is not found a replica that lags, where it must be there.
func (at places) lagging(err error) error {
	if f := (*forge.Fault)(nil); at.head && errors.As(err, &f) && f.Class == forge.NotFound {
		f.Class = forge.Retriable
	}
	return err
}

// unset is why a status could not be set.
func unset(err error) *forge.Fault {
	f := classify(setStatus, err)
	if f.Status == http.StatusForbidden {
		f.Err = fmt.Errorf("%w (on a protected branch GitLab takes statuses only from who may push or merge there)", f.Err)
	}
	return f
}

func notThere(err error) bool { return err != nil && errors.Is(err, gl.ErrNotFound) }

// transition is what GitLab says where a job refuses a state, most often the one that it has already.
var transition = regexp.MustCompile(`Cannot transition status via :\w+ from :(\w+)`)

// stuckIn is the state in which a job refused another, or empty.
func stuckIn(err error) string {
	var refused *gl.ErrorResponse
	if errors.As(err, &refused) && refused.StatusCode == http.StatusBadRequest {
		if m := transition.FindStringSubmatch(refused.Message); m != nil {
			return m[1]
		}
	}
	return ""
}

// newestStatus is our newest status of the name on the commit, and of the ref where one is given. Those of other accounts
// are not ours to update, and GitLab keeps them apart.
func (c *Client) newestStatus(ctx context.Context, at places, sha, name, ref string) (*gl.CommitStatus, error) {
	const op = "list commit statuses"
	list, _, err := c.api.Commits.GetCommitStatuses(at.pid, sha,
		&gl.GetCommitStatusesOptions{Name: &name, Ref: given(ref), ListOptions: gl.ListOptions{PerPage: 100}}, with(ctx))
	if err != nil {
		return nil, at.lagging(classify(op, err))
	}
	var newest *gl.CommitStatus
	for _, s := range list {
		if s.Name == name && s.Author.ID == at.me && (ref == "" || s.Ref == ref) && (newest == nil || s.ID > newest.ID) {
			newest = s
		}
	}
	return newest, nil
}

func shows(s *gl.CommitStatus, check forge.Check) bool {
	return s.Status == string(statusState(check.State)) && s.Description == wire.Cut(check.Title, maxField) && s.TargetURL == target(check.URL)
}

// statusState is the check in the words of commit statuses. Waiting for a maintainer is pending, not a failure.
func statusState(s forge.CheckState) forge.StatusState {
	switch s {
	case forge.CheckSuccess:
		return forge.StatusSuccess
	case forge.CheckFailure:
		return forge.StatusFailed
	case forge.CheckCancelled:
		return forge.StatusCanceled
	case forge.CheckRunning:
		return forge.StatusRunning
	case forge.CheckQueued, forge.CheckActionRequired:
	}
	return forge.StatusPending
}

// target is a URL that GitLab takes, or none.
func target(url string) string {
	if len(url) > maxField {
		return ""
	}
	return url
}

// writeNote writes or edits our note of this name: 1 call to look per 100 notes, 1 to write.
func (c *Client) writeNote(ctx context.Context, at places, number int64, check forge.Check) error {
	const op = "write note"
	note, err := c.ourNote(ctx, at, number, check.Name)
	if err != nil {
		return err
	}
	body := noteText(check)
	switch {
	case note == nil:
		_, _, err = c.api.Notes.CreateMergeRequestNote(at.pid, number, &gl.CreateMergeRequestNoteOptions{Body: &body}, with(ctx))
	case note.Body == body:
		return nil
	default:
		_, _, err = c.api.Notes.UpdateMergeRequestNote(at.pid, number, note.ID, &gl.UpdateMergeRequestNoteOptions{Body: &body}, with(ctx))
	}
	if err != nil {
		return classify(op, err)
	}
	return nil
}

// ourNote finds the oldest note by us that begins with the marker of the check.
func (c *Client) ourNote(ctx context.Context, at places, number int64, name string) (*gl.Note, error) {
	const op = "list notes"
	oldest, asc := "created_at", "asc"
	o := &gl.ListMergeRequestNotesOptions{OrderBy: &oldest, Sort: &asc, ListOptions: gl.ListOptions{PerPage: 100, Page: 1}}
	for range notePages {
		list, res, err := c.api.Notes.ListMergeRequestNotes(at.pid, number, o, with(ctx))
		if err != nil {
			return nil, classify(op, err)
		}
		for _, n := range list {
			if n.Author.ID == at.me && strings.HasPrefix(n.Body, marker(name)) {
				return n, nil
			}
		}
		if o.Page = res.NextPage; o.Page == 0 {
			return nil, nil
		}
	}
	return nil, wire.Permanent(op, errors.New("too many notes to find ours among them")) // a second one would never end
}

func marker(name string) string {
	return "<!-- signalbox: " + strings.ReplaceAll(name, "--", "- -") + " -->\n"
}

// order is the beginning of what GitLab would obey in the name of who writes it: a quick action, as "/merge".
var order = regexp.MustCompile(`(?m)^[ \t]*/`)

// noteText is the check as a note. Whatever others have put into it, GitLab notifies nobody of it and obeys none of it.
func noteText(check forge.Check) string {
	text := marker(check.Name) + "**" + check.Name + "** · " + strings.ReplaceAll(string(check.State), "_", " ") + " · " + check.SHA[:12] + "\n\n" + check.Title + "\n"
	if check.Summary != "" && check.Summary != check.Title {
		text += "\n" + check.Summary + "\n"
	}
	if check.URL != "" {
		text += "\n" + check.URL + "\n"
	}
	text = order.ReplaceAllString(strings.ReplaceAll(text, "\r", ""), "\u200b/")
	return strings.TrimSuffix(strings.ReplaceAll(text, "@", "@\u200b"), "\n")
}

// given is nil for an empty string: GitLab refuses some empty values.
func given(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

var errSHA = errors.New("expected a commit SHA in full")
