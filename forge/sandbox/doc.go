// Package sandbox is a forge in the same process: a world of users, repositories and pull requests that answers
// GitHub's REST API, sends GitHub's signed webhooks, and keeps its own record of what was asked of it. Signalbox's demo
// and tests run against it; no expectation of theirs is computed from what Signalbox says of itself.
//
// The world is changed by verbs (Repo.OpenPR, PR.Push, PR.Label, Run.Complete, …) and by API calls. Both record the
// webhook deliveries that GitHub would send; a Sender posts them, in order or not, once, twice or never.
package sandbox
