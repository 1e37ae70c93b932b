package sandbox

// listUserRepos answers the repositories in which the token's user has a role.
func (f *Forge) listUserRepos(c *call) answer {
	if c.cred.install != nil {
		return *fail(403, "Resource not accessible by integration")
	}
	var seen []*Repo
	for _, r := range f.repos {
		if !r.deleted && (r.owner == c.cred.user || r.perms[c.cred.user] != "") {
			seen = append(seen, r)
		}
	}
	return c.page(views(seen, f.repoView), "")
}

// getAppHook answers how the App's webhook is set.
func (f *Forge) getAppHook(c *call) answer {
	a, no := f.jwtApp(c.req)
	if no != nil {
		return *no
	}
	return ok(a.Hook.config())
}
