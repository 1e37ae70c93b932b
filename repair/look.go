package repair

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// Facts are what one look found, in the order of the walks. The zero Facts are of a look that was not due.
type Facts struct {
	Found []Found
	// Fault is why the look ended early, empty if it did not; After is how long the forge asked to be left alone.
	Fault string
	After time.Duration
}

// Found is one step of a walk.
type Found struct {
	Walk path
	From Cursor // where the walk stood before
	To   Cursor // where it stands when all of this has been taken
	Over bool   // there is nothing after it

	Pulls    []Seen
	Lost     []Lost
	Installs []int64
	NoLog    string
	Disabled string // why no deliveries are sent at all
	Missed   string // why this repository cannot be looked at
}

// Seen is a pull request and what we know of it.
type Seen struct {
	Pull
	Known  bool      // it has a document
	Here   bool      // … in which it is open
	SeenAt time.Time // the newest we were shown; the forge's clock
	Name   string    // what its repository is called in the document
	At     Cursor    // where to stand to see it again
	All    bool      // it comes from our documents: told because it is open there
}

// Lost is a delivery that did not arrive, and what we remember of having asked for it.
type Lost struct {
	Delivery
	Repo  forge.Repo
	Asked time.Time // zero = never
	N     int       // how often
}

// look is one look at work.
type look struct {
	*Behaviour
	f     Forge
	s     state.Subject
	d     Sweep
	now   time.Time
	calls int
	items int
	pages map[int]page
}

// page is one page of the list of repositories.
type page struct {
	repos []forge.Repo
	next  int
}

// Look goes on with the walks that are under way, as far as one look may.
func (b *Behaviour) Look(ctx context.Context, s state.Subject, d Sweep, in actor.Inputs, now time.Time) Facts {
	d, _ = b.begin(s, d, in, now)
	if len(d.walks()) == 0 || now.Before(d.Look) {
		return Facts{}
	}
	f, err := b.forge(s.Instance)
	if err != nil {
		return Facts{Fault: "the forge cannot be asked: " + err.Error()}
	}
	ctx = forge.WithUrgency(ctx, forge.Cosmetic) // the last of the budget is for what shuts and opens gates
	l := &look{Behaviour: b, f: f, s: s, d: d, now: now, pages: map[int]page{}}
	var facts Facts
	for _, p := range d.walks() {
		err := l.walk(ctx, p, &facts)
		if err == nil {
			continue
		}
		fault := forge.Classify(err)
		facts.Fault, facts.After = err.Error(), max(facts.After, fault.After)
		if fault.Class != forge.Retriable {
			break // what limits or refuses us does so everywhere
		}
	}
	return facts
}

// walk goes on with one walk until it is over or enough was read.
func (l *look) walk(ctx context.Context, p path, facts *Facts) error {
	at := l.d.walk(p).At
	for l.calls < calls && l.items < items {
		found := Found{Walk: p, From: at, To: at}
		if p == throughInstalls {
			ids, next, err := l.f.Lister.Installations(ctx, at.Page)
			if err != nil {
				return fmt.Errorf("list installations: %w", err)
			}
			l.calls++
			found.Installs, found.To, found.Over = ids, Cursor{Page: next}, next == 0
		} else if err := l.step(ctx, &found); err != nil {
			return err
		}
		facts.Found = append(facts.Found, found)
		if found.Over {
			return nil
		}
		at = found.To
	}
	return nil
}

// step takes one page of one repository.
func (l *look) step(ctx context.Context, found *Found) error {
	at := found.From
	here, err := l.places(ctx, found.Walk, at.Page)
	if err != nil {
		return err
	}
	if at.Place >= len(here.repos) {
		found.To, found.Over = Cursor{Page: here.next}, here.next == 0
		return nil
	}
	repo, token := here.repos[at.Place], ""
	if only := l.d.Full.Only; found.Walk != throughAll || only == "" || strings.EqualFold(only, repo.Name) {
		token, err = l.in(ctx, repo, found)
	}
	if found.To = (Cursor{Page: at.Page, Place: at.Place, Token: token}); token == "" {
		found.To = Cursor{Page: at.Page, Place: at.Place + 1}
	}
	return err
}

// in looks at one repository; token is where to go on within it, empty when it is done. A repository that refuses to
// be looked at is left out: it must not keep the others from their turn.
func (l *look) in(ctx context.Context, repo forge.Repo, found *Found) (token string, err error) {
	l.calls++
	switch found.Walk {
	case throughLog:
		token, err = l.log(ctx, repo, found)
	case throughUpdated:
		token, err = l.updated(ctx, repo, found)
	default:
		token, err = l.open(ctx, repo, found)
	}
	if f := (*forge.Fault)(nil); errors.As(err, &f) && f.Class != forge.Contention && f.Status >= 400 && f.Status < 500 &&
		f.Class != forge.Retriable && f.Status != unauthorized {
		found.Missed = repo.Name + ": " + err.Error()
		return "", nil
	}
	return token, err
}

// unauthorized is the status of a refused credential, which is no repository's fault.
const unauthorized = 401

// places lists repositories: the App itself for the log of an App; what an installation sees; for a token what the
// allow-list names, then what the token sees, or without a list what we know.
func (l *look) places(ctx context.Context, p path, n int) (page, error) {
	if known, ok := l.pages[n]; ok && l.s.Key != Root {
		return known, nil
	}
	var here page
	id := installation(l.s.Key)
	switch {
	case l.s.Key == Root:
		return page{repos: []forge.Repo{{Instance: l.s.Instance}}}, nil
	case id == 0 && len(l.f.Named) == 0 && !l.f.Wild:
		known, err := l.known(ctx)
		if err != nil {
			return page{}, err
		}
		here.repos = known
	case id == 0 && n <= 1:
		for _, name := range l.f.Named {
			here.repos = append(here.repos, forge.Repo{Instance: l.s.Instance, Name: name})
		}
		if l.f.Wild {
			here.next = 2
		}
	default:
		from := max(n, 1)
		if id == 0 {
			from-- // the first page is the named ones
		}
		l.calls++
		repos, next, err := l.f.Lister.Repos(ctx, id, from)
		if err != nil {
			return page{}, fmt.Errorf("list repositories: %w", err)
		}
		named := func(r forge.Repo) bool {
			return id == 0 && slices.ContainsFunc(l.f.Named, func(n string) bool { return strings.EqualFold(n, r.Name) })
		}
		here.repos = slices.DeleteFunc(repos, func(r forge.Repo) bool { return !l.allowed(r) || named(r) })
		if here.next = next; next != 0 && id == 0 {
			here.next++
		}
	}
	l.pages[n] = here
	return here, nil
}

// everything is more entries than any index has.
const everything = 1 << 20

// known are the repositories of the pull requests that have documents, by id.
func (l *look) known(ctx context.Context) ([]forge.Repo, error) {
	rows, err := l.store.List(ctx, "name", l.s.Instance+":", everything)
	if err != nil {
		return nil, fmt.Errorf("list known pull requests: %w", err)
	}
	names := map[int64]string{}
	for _, r := range rows {
		id, err := strconv.ParseInt(r.Subject.Project, 10, 64)
		name, _, ok := strings.Cut(strings.TrimPrefix(r.Label, l.s.Instance+":"), "#")
		if err == nil && ok && r.Subject.Kind == "pr" {
			names[id] = name
		}
	}
	var out []forge.Repo
	for id, name := range names {
		if repo := (forge.Repo{Instance: l.s.Instance, ID: id, Name: name}); l.allowed(repo) {
			out = append(out, repo)
		}
	}
	slices.SortFunc(out, func(a, b forge.Repo) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

func (l *look) log(ctx context.Context, repo forge.Repo, found *Found) (string, error) {
	lost, next, err := l.f.Log.Failed(ctx, repo, l.d.Log.Floor, found.From.Token)
	if none := (*NoLog)(nil); errors.As(err, &none) {
		where := strings.TrimPrefix(repo.Name+": ", ": ")
		if found.NoLog = where + none.Why; none.Disabled != "" {
			found.Disabled = where + none.Disabled
		}
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the delivery log: %w", err)
	}
	for _, d := range lost {
		if !l.f.Handles(d.Event) {
			continue
		}
		x := Lost{Delivery: d, Repo: repo}
		b, err := l.store.Record(ctx, l.s, memoryKey(d.GUID))
		if err == nil {
			var m memory
			if err = json.Unmarshal(b, &m); err == nil {
				x.Asked, x.N = m.At, m.N
			}
		}
		if err != nil && !errors.Is(err, state.ErrNotFound) {
			return "", fmt.Errorf("read what was asked for: %w", err)
		}
		found.Lost = append(found.Lost, x)
	}
	l.items += len(lost)
	return next, nil
}

// split reads a token of a list of pull requests: a page, and how many of it have been taken.
func split(token string) (page, taken int) {
	p, t, _ := strings.Cut(token, ".")
	page, _ = strconv.Atoi(p) // a token is our own
	taken, _ = strconv.Atoi(t)
	return max(page, 1), taken
}

func join(page, taken int) string { return strconv.Itoa(page) + "." + strconv.Itoa(taken) }

func (l *look) updated(ctx context.Context, repo forge.Repo, found *Found) (string, error) {
	w := l.d.Updated
	since := w.Since
	if since.IsZero() {
		since = l.d.First
	}
	n, taken := split(found.From.Token)
	pulls, next, err := l.f.Lister.Updated(ctx, repo, since.Add(-margin), n)
	if err != nil {
		return "", fmt.Errorf("list pull requests updated lately: %w", err)
	}
	return l.pulls(ctx, pulls, n, taken, next, found)
}

// open takes first the open pull requests among our documents, then those of the forge. The first finds what is open
// here and not there any more, the second what was never heard of.
func (l *look) open(ctx context.Context, repo forge.Repo, found *Found) (string, error) {
	if label, ours := strings.CutPrefix(found.From.Token, ours); ours || found.From.Token == "" {
		l.calls-- // the store is not the forge
		return l.documents(ctx, repo, label, found)
	}
	n, taken := split(found.From.Token)
	pulls, next, err := l.f.Lister.Open(ctx, repo, n)
	if err != nil {
		return "", fmt.Errorf("list open pull requests: %w", err)
	}
	return l.pulls(ctx, pulls, n, taken, next, found)
}

// ours begins the token of a position among our documents; the label of the last one taken follows.
const ours = "="

func (l *look) documents(ctx context.Context, repo forge.Repo, label string, found *Found) (string, error) {
	prefix := l.s.Instance + ":" + repo.Name + "#"
	rows, err := l.store.List(ctx, "name", prefix, everything)
	if err != nil {
		return "", fmt.Errorf("list known pull requests: %w", err)
	}
	last := label
	for _, r := range rows {
		if r.Label <= label || r.Subject.Kind != "pr" {
			continue
		}
		if l.items >= items {
			return ours + last, nil
		}
		x := Seen{All: true, At: Cursor{Page: found.From.Page, Place: found.From.Place, Token: ours + last}}
		if err := l.recall(ctx, r.Subject, &x); err != nil {
			return "", err
		}
		if last = r.Label; x.Here {
			found.Pulls = append(found.Pulls, x)
		}
		l.items++
	}
	return join(1, 0), nil
}

// pulls says of each that was listed what we know of it.
func (l *look) pulls(ctx context.Context, list []Pull, n, taken, next int, found *Found) (string, error) {
	for i, p := range list {
		if i < taken {
			continue
		}
		x := Seen{Pull: p, At: Cursor{Page: found.From.Page, Place: found.From.Place, Token: join(n, i)}}
		if err := l.recall(ctx, prmanager.Subject(p.Ref), &x); err != nil {
			return "", err
		}
		found.Pulls = append(found.Pulls, x)
		l.items++
	}
	if next == 0 {
		return "", nil
	}
	return join(next, 0), nil
}

// recall fills in what the document of a pull request says.
func (l *look) recall(ctx context.Context, s state.Subject, x *Seen) error {
	v, err := actor.See(ctx, l.store, s)
	if err != nil {
		return fmt.Errorf("recall %s: %w", s, err)
	}
	if x.Known = len(v.Doc) > 0 || v.Unread > 0; len(v.Doc) == 0 {
		return nil
	}
	var pr prmanager.PR
	if err := json.Unmarshal(v.Doc, &pr); err != nil {
		return nil //nolint:nilerr // written by newer code: what it knows is not for us to compare
	}
	x.Here, x.SeenAt, x.Name = pr.Open, pr.SeenAt, pr.Ref.Repo.Name
	if x.Ref.Number == 0 {
		x.Ref = pr.Ref
	}
	return nil
}
