package sandbox

import (
	"crypto/rsa"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v4"
)

// credential is what a token stands for: a person, or an App in one installation.
type credential struct {
	user    *User
	install *Installation     // of a token for some repositories only: a copy that sees these
	perms   map[string]string // of a token that may do less than its App; nil = as the App
	expires time.Time         // zero = never
}

// AppOptions says how a GitHub App is made.
type AppOptions struct {
	Slug        string
	Owner       string // login; made an organisation if there is none
	Key         *rsa.PublicKey
	Permissions map[string]string // "checks": "write", …; nil = what Signalbox's recipes ask for
	Events      []string          // webhook events beside ping; nil = what Signalbox's recipes ask for
	Secret      string            // webhook secret
}

// App is a GitHub App. It acts as its bot user, "slug[bot]".
type App struct {
	ID   int64
	Bot  *User
	Hook *Hook // the App's webhook

	f        *Forge
	slug     string
	owner    *User
	key      *rsa.PublicKey
	perms    map[string]string
	installs []*Installation
	created  time.Time
}

// Installation is an App on one account: on all its repositories, or on some.
type Installation struct {
	ID int64

	app     *App
	account *User
	repos   []*Repo // nil = all of the account
	created time.Time
}

// AddApp registers an App. Its webhook begins with a ping, as every webhook does.
func (f *Forge) AddApp(o AppOptions) *App {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := &App{ID: f.id(), f: f, slug: o.Slug, owner: f.owner(o.Owner), key: o.Key, perms: o.Permissions, created: f.now()}
	if a.perms == nil {
		a.perms = map[string]string{
			"metadata": "read", "pull_requests": "write", "checks": "write", "actions": "write",
			"contents": "write", "statuses": "write", "merge_queues": "read", "members": "read",
		}
	}
	a.Bot = f.account(o.Slug+"[bot]", "Bot")
	a.Bot.app = a
	events := o.Events
	if events == nil {
		events = []string{"pull_request", "issue_comment", "check_run", "merge_group", "workflow_run"}
	}
	a.Hook = &Hook{ID: f.id(), f: f, app: a, events: events, secret: o.Secret, created: f.now()}
	f.apps, f.hooks = append(f.apps, a), append(f.hooks, a.Hook)
	f.ping(a.Hook)
	return a
}

// Install installs the App on the owner of the repositories, for these only.
func (a *App) Install(first *Repo, more ...*Repo) *Installation {
	return a.install(first.owner, append([]*Repo{first}, more...))
}

// InstallAll installs the App on an account, for all its repositories, also those to come.
func (a *App) InstallAll(account *User) *Installation { return a.install(account, nil) }

func (a *App) install(account *User, repos []*Repo) *Installation {
	a.f.mu.Lock()
	defer a.f.mu.Unlock()
	i := &Installation{ID: a.f.id(), app: a, account: account, repos: repos, created: a.f.now()}
	a.installs = append(a.installs, i)
	return i
}

// on answers a's installation that sees r, nil if none.
func (a *App) on(r *Repo) *Installation {
	for _, i := range a.installs {
		if i.sees(r) {
			return i
		}
	}
	return nil
}

func (i *Installation) sees(r *Repo) bool {
	return i.account == r.owner && !r.deleted && (i.repos == nil || slices.Contains(i.repos, r))
}

// actor is the account behind a credential.
func (c *credential) actor() *User {
	if c.install != nil {
		return c.install.app.Bot
	}
	return c.user
}

// bearer is the secret of an Authorization header, "" if there is none of a form that GitHub takes.
func bearer(r *http.Request) string {
	kind, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if strings.EqualFold(kind, "bearer") || strings.EqualFold(kind, "token") {
		return strings.TrimSpace(secret)
	}
	return ""
}

// credential answers whom the request's token stands for; nil = nobody. An expired token stands for nobody.
func (f *Forge) credential(r *http.Request) *credential {
	c := f.tokens[bearer(r)]
	if c == nil || !c.expires.IsZero() && !time.Now().Before(c.expires) {
		return nil
	}
	return c
}

// jwtApp answers the App that signed the request's token, or GitHub's refusal.
func (f *Forge) jwtApp(r *http.Request) (*App, *answer) {
	var app *App
	var claims jwt.RegisteredClaims
	_, err := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"})).ParseWithClaims(bearer(r), &claims, func(*jwt.Token) (any, error) {
		for _, a := range f.apps {
			if claims.Issuer == strconv.FormatInt(a.ID, 10) || claims.Issuer == a.clientID() {
				app = a
				return a.key, nil
			}
		}
		return nil, fmt.Errorf("no App has the issuer %q", claims.Issuer)
	})
	switch {
	case err != nil:
		return nil, fail(401, "A JSON web token could not be decoded")
	case claims.ExpiresAt == nil:
		return nil, fail(401, "Missing 'exp' claim in assertion")
	case claims.ExpiresAt.After(time.Now().Add(10*time.Minute + time.Second)):
		return nil, fail(401, "'Expiration time' claim ('exp') is too far in the future")
	}
	return app, nil
}

func (a *App) clientID() string { return fmt.Sprintf("Iv1.%016x", a.ID) }

// need is what an operation on a repository takes: of an App a permission, of a person a role.
type need struct {
	app   string // permission's name, with ":write" for more than reading
	role  string
	hide  bool   // a person without the role is answered 404 instead of 403
	words string // of the 403; "" = GitHub's usual sentence
}

// refusal checks n for the call's credential on r; nil = allowed. r may be nil, for a repository that is not there.
func (f *Forge) refusal(cred *credential, r *Repo, n need) *answer {
	if r == nil {
		return notFound()
	}
	name, write := strings.CutSuffix(n.app, ":write")
	if i := cred.install; i != nil {
		has := cred.permission(name)
		switch {
		case !i.sees(r) && r.private:
			return notFound()
		case i.sees(r) && (has == "write" || has == "read" && !write):
			return nil
		case !i.sees(r) && n.role == "read" && !write: // what everybody may read of a public repository
			return nil
		}
		return fail(403, "Resource not accessible by integration")
	}
	role := r.role(cred.user)
	switch {
	case rank(role) == 0:
		return notFound()
	case rank(role) >= rank(n.role):
		return nil
	case n.hide:
		return notFound()
	case n.words != "":
		return fail(403, n.words)
	}
	return fail(403, "Must have admin rights to Repository.")
}

// permission is what an App's token may do: write, read or nothing.
func (c *credential) permission(name string) string {
	if c.perms != nil {
		return c.perms[name]
	}
	return c.install.app.perms[name]
}

func (f *Forge) getApp(c *call) answer {
	a, no := f.jwtApp(c.req)
	if no != nil {
		return *no
	}
	v := f.appView(a)
	v["installations_count"] = len(a.installs)
	return ok(v)
}

func (f *Forge) listInstallations(c *call) answer {
	a, no := f.jwtApp(c.req)
	if no != nil {
		return *no
	}
	return c.page(views(a.installs, f.installationView), "")
}

func (f *Forge) repoInstallation(c *call) answer {
	a, no := f.jwtApp(c.req)
	if no != nil {
		return *no
	}
	if r := f.repo(c.path("owner"), c.path("repo")); r != nil {
		if i := a.on(r); i != nil {
			return ok(f.installationView(i))
		}
	}
	return *notFound()
}

func (f *Forge) accessToken(c *call) answer {
	a, no := f.jwtApp(c.req)
	if no != nil {
		return *no
	}
	var in struct {
		RepositoryIDs []int64           `json:"repository_ids"`
		Permissions   map[string]string `json:"permissions"`
	}
	if no := c.body(&in); no != nil {
		return *no
	}
	for _, i := range a.installs {
		if strconv.FormatInt(i.ID, 10) != c.path("id") {
			continue
		}
		cred := &credential{install: i, expires: time.Now().Add(time.Hour)}
		perms := maps.Clone(a.perms)
		if in.Permissions != nil {
			for name, want := range in.Permissions {
				if a.perms[name] == "" || want == "write" && a.perms[name] != "write" {
					return *fail(422, "The permissions requested are not granted to this installation.")
				}
			}
			cred.perms, perms = in.Permissions, in.Permissions
		}
		if len(in.RepositoryIDs) > 0 {
			some := *i
			some.repos = nil
			for _, r := range f.repos {
				if slices.Contains(in.RepositoryIDs, r.ID) && i.sees(r) {
					some.repos = append(some.repos, r)
				}
			}
			if len(some.repos) != len(in.RepositoryIDs) {
				return *fail(422, "There is at least one repository that does not exist or is not accessible to the parent installation.")
			}
			cred.install = &some
		}
		token := "sandbox_installation_" + f.digits(36)
		f.tokens[token] = cred
		return answer{status: 201, body: object{
			"token": token, "expires_at": stamp(cred.expires.UTC()), "permissions": perms,
			"repository_selection": cred.install.selection(),
		}}
	}
	return *notFound()
}

func (i *Installation) selection() string {
	if i.repos == nil {
		return "all"
	}
	return "selected"
}

func (f *Forge) installationRepos(c *call) answer {
	i := c.cred.install
	if i == nil {
		return *fail(403, "You must authenticate with an installation access token in order to list repositories for an installation.")
	}
	var seen []*Repo
	for _, r := range f.repos {
		if i.sees(r) {
			seen = append(seen, r)
		}
	}
	return c.page(views(seen, f.repoView), "repositories")
}

func (f *Forge) appView(a *App) object {
	return object{
		"id": a.ID, "slug": a.slug, "node_id": node("App", a.ID), "client_id": a.clientID(), "owner": f.userView(a.owner),
		"name": a.slug, "description": "", "external_url": f.url + "/" + a.slug, "html_url": f.url + "/apps/" + a.slug,
		"created_at": stamp(a.created), "updated_at": stamp(a.created), "permissions": maps.Clone(a.perms),
		"events": slices.Clone(a.Hook.events),
	}
}

func (f *Forge) installationView(i *Installation) object {
	api := fmt.Sprintf("%s/app/installations/%d", f.url, i.ID)
	return object{
		"id": i.ID, "account": f.userView(i.account), "repository_selection": i.selection(),
		"access_tokens_url": api + "/access_tokens", "repositories_url": f.url + "/installation/repositories",
		"html_url": fmt.Sprintf("%s/settings/installations/%d", f.url, i.ID), "app_id": i.app.ID, "client_id": i.app.clientID(),
		"app_slug": i.app.slug, "target_id": i.account.ID, "target_type": i.account.kind, "permissions": maps.Clone(i.app.perms),
		"events": slices.Clone(i.app.Hook.events), "created_at": stamp(i.created), "updated_at": stamp(i.created),
		"single_file_name": nil, "has_multiple_single_files": false, "single_file_paths": []string{},
		"suspended_by": nil, "suspended_at": nil,
	}
}
