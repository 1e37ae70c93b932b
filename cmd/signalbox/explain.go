package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

type explainCmd struct {
	Settings `embed:""`
	Ref      string `arg:"" placeholder:"REF" help:"INSTANCE:OWNER/REPO#NUMBER"`
	Output   string `enum:"text,json" default:"text" help:"text or json."`
}

func (explainCmd) Help() string { return "Example:\n  signalbox explain github:octo/hello#7" }

// Run prints what the pull request waits for, then its story.
func (c explainCmd) Run(ctx context.Context, p process) (err error) {
	if err := checkRef(c.Ref); err != nil {
		return err
	}
	r, err := look(ctx, c.Settings, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	story, err := admin{store: r}.story(ctx, c.Ref)
	if err != nil {
		return err
	}
	if c.Output == "json" {
		return printJSON(p.out, story)
	}
	return story.print(p.out)
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

func decodePR(v actor.View) (prmanager.PR, error) {
	var d prmanager.PR
	if len(v.Doc) == 0 {
		return d, nil
	}
	if err := json.Unmarshal(v.Doc, &d); err != nil {
		return d, fmt.Errorf("decode the document: %w", err)
	}
	return d, nil
}

func (a admin) story(ctx context.Context, ref string) (story, error) {
	s, err := a.pull(ctx, ref)
	if err != nil {
		return story{}, err
	}
	v, err := actor.See(ctx, a.store, s)
	if err != nil {
		return story{}, err
	}
	d, err := decodePR(v)
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
	out := make([]line, 0, len(raw))
	for _, b := range raw {
		var l line
		if err := json.Unmarshal(b, &l); err != nil {
			return nil, fmt.Errorf("read the journal of %s: %w", s, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// sentence is what the pull request waits for now.
func (a admin) sentence(ctx context.Context, s state.Subject) (string, error) {
	d, err := a.document(ctx, s)
	if err != nil {
		return "", err
	}
	return d.Waits(), nil
}

func (s story) print(w io.Writer) error {
	b := &strings.Builder{}
	fmt.Fprintf(b, "%s  %s\n%s\n\n", s.Ref, s.State, s.Waits)
	for _, l := range s.Lines {
		l.print(b)
	}
	if len(s.Open) > 0 {
		fmt.Fprintln(b, "\nnot done yet:")
		for _, e := range s.Open {
			fmt.Fprintf(b, "  %s %s", e.Kind, e.Key)
			if e.LastError != "" {
				fmt.Fprintf(b, "  (%d tries, last: %s)", e.Tries, e.LastError)
			}
			fmt.Fprintln(b)
		}
	}
	if s.Unread > 0 {
		fmt.Fprintf(b, "\n%d events are stored and not decided yet\n", s.Unread)
	}
	for _, d := range s.Dead {
		fmt.Fprintf(b, "\ndead letter %s since %s: signalbox jobs list says why\n", d.ID, d.At.Format(time.RFC3339))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (l line) print(b *strings.Builder) {
	fmt.Fprintf(b, "%s  ", l.At.UTC().Format("2006-01-02 15:04:05"))
	if l.Effect != "" {
		fmt.Fprintf(b, "    %s %s: %s", l.Effect, l.Key, l.Code)
		if l.Error != "" {
			fmt.Fprintf(b, " (%s)", l.Error)
		}
		if l.Note != "" {
			fmt.Fprintf(b, " (%s)", l.Note)
		}
		fmt.Fprintln(b)
		return
	}
	if l.By != "" {
		fmt.Fprintf(b, "%s: %s\n", l.By, strings.Join(l.Why, ", "))
		return
	}
	fmt.Fprint(b, strings.Join(l.In, "; "))
	if len(l.Why) > 0 {
		fmt.Fprint(b, " → ", strings.Join(l.Why, ", "))
	}
	if len(l.Did) > 0 {
		fmt.Fprint(b, " → ", strings.Join(l.Did, ", "))
	}
	fmt.Fprintln(b)
}
