package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

type explainCmd struct {
	configured
	Ref string `arg:"" placeholder:"REF" help:"INSTANCE:OWNER/REPO#NUMBER"`
	output
}

func (explainCmd) Help() string { return "Example:\n  signalbox explain github:octo/hello#7" }

// Run prints what the pull request waits for, then its story.
func (c explainCmd) Run(ctx context.Context, p process) (err error) {
	if err := checkRef(c.Ref); err != nil {
		return err
	}
	story, err := look(ctx, c.Settings, p, func(a admin, ctx context.Context) (story, error) { return a.story(ctx, c.Ref) })
	if err != nil {
		return err
	}
	return c.show(p.out, story, story.print)
}

// story is everything known of one pull request.
type story struct {
	Ref     string            `json:"ref"`
	Subject state.Subject     `json:"subject"`
	State   prmanager.State   `json:"state"`
	Waits   string            `json:"waits"`
	Head    string            `json:"head"`
	Grants  []prmanager.Grant `json:"grants"`
	Open    []actor.Entry     `json:"outbox"` // effects that are not done
	Unread  int               `json:"unread"`
	Dead    []actor.DeadRef   `json:"dead,omitempty"`
	Lines   []line            `json:"story"`
}

// line is one line of a subject's journal: a decision (In, Why, Did), an attempt at an effect, or an operator's act.
type line struct {
	At     time.Time `json:"at"`
	In     []string  `json:"in,omitempty"`
	Why    []string  `json:"why,omitempty"`
	Did    []string  `json:"did,omitempty"`
	State  string    `json:"state,omitempty"`
	Effect string    `json:"effect,omitempty"`
	Key    string    `json:"key,omitempty"`
	Code   string    `json:"code,omitempty"`
	Error  string    `json:"error,omitempty"`
	Note   string    `json:"note,omitempty"`
	By     string    `json:"by,omitempty"`
}

func (a admin) story(ctx context.Context, ref string) (story, error) {
	s, v, d, err := a.pull(ctx, ref)
	if err != nil {
		return story{}, err
	}
	out := story{
		Ref: ref, Subject: s, State: d.State(), Waits: d.Waits(), Head: d.Head.SHA, Grants: d.Grants,
		Open: v.Outbox, Unread: v.Unread, Dead: v.Dead,
	}
	out.Lines, err = a.journal(ctx, s)
	return out, err
}

// journalShown is how many lines of a story are shown, the newest.
const journalShown = 200

func (a admin) journal(ctx context.Context, s state.Subject) ([]line, error) {
	raw, err := a.store.Journal(ctx, s, journalShown)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", s, err)
	}
	out, err := lines(raw)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", s, err)
	}
	return out, nil
}

func lines(raw [][]byte) ([]line, error) {
	out := make([]line, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s story) print(w io.Writer) {
	fmt.Fprintf(w, "%s  %s\n%s\n\n", s.Ref, s.State, s.Waits)
	for _, l := range s.Lines {
		l.print(w)
	}
	if len(s.Open) > 0 {
		fmt.Fprintln(w, "\nnot done yet:")
		for _, e := range s.Open {
			fmt.Fprintf(w, "  %s %s", e.Kind, e.Key)
			if e.LastError != "" {
				fmt.Fprintf(w, "  (%d tries, last: %s)", e.Tries, e.LastError)
			}
			fmt.Fprintln(w)
		}
	}
	if s.Unread > 0 {
		fmt.Fprintf(w, "\n%d events are stored and not decided yet\n", s.Unread)
	}
	for _, d := range s.Dead {
		fmt.Fprintf(w, "\ndead letter %s since %s: signalbox jobs list says why\n", d.ID, d.At.Format(time.RFC3339))
	}
}

func (l line) print(w io.Writer) {
	fmt.Fprintf(w, "%s  ", l.At.UTC().Format(time.DateTime))
	switch {
	case l.Effect != "":
		fmt.Fprintf(w, "    %s %s: %s", l.Effect, l.Key, l.Code)
		for _, more := range []string{l.Error, l.Note} {
			if more != "" {
				fmt.Fprintf(w, " (%s)", more)
			}
		}
	case l.By != "":
		fmt.Fprintf(w, "%s: %s", l.By, strings.Join(l.Why, ", "))
	default:
		fmt.Fprint(w, strings.Join(l.In, "; "))
		for _, more := range [][]string{l.Why, l.Did} {
			if len(more) > 0 {
				fmt.Fprint(w, " → ", strings.Join(more, ", "))
			}
		}
	}
	fmt.Fprintln(w)
}
