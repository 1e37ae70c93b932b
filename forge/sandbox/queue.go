package sandbox

import (
	"fmt"
	"strings"
)

// Group is a merge group: what the merge queue wants checked before it moves the base branch there.
type Group struct {
	SHA string

	pr   *PR
	base string // SHA
	ref  string
	done bool
}

// Enqueue puts the pull request into the merge queue as a group of its own, and asks for checks on the group's SHA.
func (p *PR) Enqueue(u *User) *Group {
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	base := p.repo.branches[p.base]
	g := &Group{pr: p, base: base, ref: fmt.Sprintf("gh-readonly-queue/%s/pr-%d-%s", p.base, p.Number, base)}
	g.SHA = p.f.commit(p.repo, u, fmt.Sprintf("Merge pull request #%d", p.Number), base, p.head)
	p.repo.branches[g.ref] = g.SHA
	p.f.deliverGroup(g, u, object{"action": "checks_requested"})
	return g
}

// Leave ends the group: merged (the base branch moves to its SHA and the pull request is closed), invalidated or
// dequeued. A group ends once.
func (g *Group) Leave(u *User, reason string) {
	p := g.pr
	p.f.mu.Lock()
	defer p.f.mu.Unlock()
	if g.done {
		return
	}
	g.done = true
	p.f.deliverGroup(g, u, object{"action": "destroyed", "reason": reason})
	delete(p.repo.branches, g.ref)
	if reason == "merged" {
		p.merge(u, g.SHA)
	}
}

func (f *Forge) deliverGroup(g *Group, sender *User, body object) {
	body["merge_group"] = object{
		"head_sha": g.SHA, "head_ref": "refs/heads/" + g.ref, "base_sha": g.base, "base_ref": "refs/heads/" + g.pr.base,
		"head_commit": f.headCommitView(f.commits[g.SHA]),
	}
	f.emit("merge_group", g.pr.repo, g.pr.Number, sender, body, nil)
}

// listRules answers the rules that hold for a branch: of those, the sandbox knows the merge queue.
func (f *Forge) listRules(c *call) answer {
	rules := []object{}
	if r := c.repo; r.mergeQueue && strings.EqualFold(c.path("branch"), r.main) {
		rules = append(rules, object{
			"type": "merge_queue", "ruleset_source_type": "Repository", "ruleset_source": r.fullName(), "ruleset_id": r.ID,
			"parameters": object{
				"check_response_timeout_minutes": 60, "grouping_strategy": "ALLGREEN", "max_entries_to_build": 5, "max_entries_to_merge": 5,
				"merge_method": "MERGE", "min_entries_to_merge": 1, "min_entries_to_merge_wait_minutes": 5,
			},
		})
	}
	return c.page(rules, "")
}
