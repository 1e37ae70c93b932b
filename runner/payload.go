package runner

import (
	"fmt"
	"strconv"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"gopkg.in/yaml.v3"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state"
)

// Order is a run with all its jobs.
type Order struct {
	Run  forge.Run `json:"run"`
	Jobs []JobSpec `json:"jobs"`
	URL  string    `json:"url,omitempty"`  // of the run's page
	Seat int64     `json:"seat,omitempty"` // where it waited; 0 = there was room
	// Clone is the repository's address for git.
	Clone string `json:"clone"`
}

// reportTo is who wanted the run: a pull request, or without a number a merge group.
func (o Order) reportTo() state.Subject {
	if o.Run.Ref.Number == 0 {
		return prmanager.GroupSubject(o.Run.Ref.Repo, o.Run.SHA)
	}
	return prmanager.Subject(o.Run.Ref)
}

// definition is what a job's payload is made of, kept until the job ends.
type definition struct {
	Run   forge.Run `json:"run"`
	Clone string    `json:"clone"`
	Job   JobSpec   `json:"job"`
}

// workflow is the one-job workflow file that runners take (R10).
type workflow struct {
	Name string                 `yaml:"name"`
	On   string                 `yaml:"on"`
	Jobs map[string]workflowJob `yaml:"jobs"`
}

type workflowJob struct {
	Name    string            `yaml:"name"`
	RunsOn  []string          `yaml:"runs-on"`
	Outputs map[string]string `yaml:"outputs"`
	Env     map[string]string `yaml:"env,omitempty"`
	Steps   []workflowStep    `yaml:"steps"`
}

type workflowStep struct {
	ID    string            `yaml:"id,omitempty"`
	Name  string            `yaml:"name,omitempty"`
	Shell string            `yaml:"shell"`
	Env   map[string]string `yaml:"env,omitempty"`
	Run   string            `yaml:"run"`
}

// jobID is the job's key in the workflow. The runner needs one; nobody sees it.
const jobID = "presubmit"

// loan is what a task gets beside its definition: looked up when it is assigned, and frozen with it.
type loan struct {
	secrets map[string]string // by name
	token   string            // of the checkout; empty = the repository is public
	broken  string            // why the job cannot run: then all it does is to say so and fail
}

// checkoutToken is the name of the checkout's token among a task's secrets. No repository's secret can have it.
const checkoutToken = "SIGNALBOX_CHECKOUT_TOKEN"

// taskToken is the name that runners give the task's own token, which is good for nothing here.
const taskToken = "GITEA_TOKEN"

// checkout fetches one commit. The address and the SHA come as variables, so nothing is quoted by us. A token goes from
// its variable to git by a helper that answers for the repository's host only: it is in no command line and no file.
const checkout = `git init -q .
git -c credential.helper= -c credential."${SIGNALBOX_CLONE%/"$SIGNALBOX_REPOSITORY"*}".helper='!f() { test "$1" = get && test -n "$SIGNALBOX_CHECKOUT_TOKEN" && printf "username=x-access-token\npassword=%s\n" "$SIGNALBOX_CHECKOUT_TOKEN"; }; f' \
  fetch -q --no-tags --depth 1 "$SIGNALBOX_CLONE" "$SIGNALBOX_SHA"
git -c advice.detachedHead=false checkout -q FETCH_HEAD
test "$(git rev-parse HEAD)" = "$SIGNALBOX_SHA"
`

// freeze makes the bytes that a task hands its runner, each time it is fetched (R3a, R10). The verdict's word is known
// to its own step only, and secrets to the steps of the repository. They are in the task's own list, too, where runners
// find what they must mask.
func freeze(key []byte, k Task, d definition, l loan) ([]byte, error) {
	const shell = "bash"
	// Gitea's runner writes into this map and cannot stand an empty one.
	given := map[string]string{taskToken: ours(key, "task", k.ID)}
	var list []workflowStep
	switch {
	case l.broken != "":
		list = []workflowStep{{
			Name: "refused", Shell: shell, Run: "echo \"$SIGNALBOX_REFUSED\"\nexit 1\n", Env: map[string]string{"SIGNALBOX_REFUSED": l.broken},
		}}
	case d.Clone != "":
		env := map[string]string{"SIGNALBOX_CLONE": d.Clone, "GIT_TERMINAL_PROMPT": "0"}
		if l.token != "" {
			given[checkoutToken] = l.token
			env[checkoutToken] = "${{ secrets." + checkoutToken + " }}"
		}
		list = []workflowStep{{Name: "checkout", Shell: shell, Run: checkout, Env: env}}
	}
	if l.broken == "" {
		var env map[string]string
		for name, v := range l.secrets {
			if env == nil {
				env = map[string]string{}
			}
			given[name], env[name] = v, "${{ secrets."+name+" }}"
		}
		for _, s := range d.Job.Steps {
			list = append(list, workflowStep{Name: s.Name, Shell: shell, Run: s.Run, Env: env})
		}
	}
	list = append(list, workflowStep{
		ID: "verdict", Name: "verdict", Shell: shell, Run: `echo "verdict=$SIGNALBOX_VERDICT" >> "$GITHUB_OUTPUT"`,
		Env: map[string]string{"SIGNALBOX_VERDICT": nonce(key, k.ID)},
	})
	environ := map[string]string{
		"CI": "true", "SIGNALBOX_SHA": d.Run.SHA, "SIGNALBOX_BASE_SHA": d.Run.BaseSHA, "SIGNALBOX_RUN": d.Run.Key,
		"SIGNALBOX_PR": strconv.Itoa(d.Run.Ref.Number), "SIGNALBOX_REPOSITORY": d.Run.Ref.Repo.Name,
	}
	for name, v := range d.Job.Env {
		environ[name] = v
	}
	text, err := yaml.Marshal(workflow{Name: "presubmit", On: "pull_request", Jobs: map[string]workflowJob{jobID: {
		Name: d.Job.Name, RunsOn: d.Job.RunsOn, Env: environ, Steps: list,
		Outputs: map[string]string{"verdict": "${{ steps.verdict.outputs.verdict }}"},
	}}})
	if err != nil {
		return nil, fmt.Errorf("write the workflow of task %d: %w", k.ID, err)
	}
	context, err := surroundings(key, k, d.Run)
	if err != nil {
		return nil, fmt.Errorf("write the context of task %d: %w", k.ID, err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(&runnerv1.Task{
		Id: k.ID, WorkflowPayload: text, Context: context, Secrets: given,
	})
	if err != nil {
		return nil, fmt.Errorf("encode task %d: %w", k.ID, err)
	}
	return b, nil
}

// surroundings is the context that runners insist on. Nothing in it comes from the pull request but its number and SHA.
func surroundings(key []byte, k Task, run forge.Run) (*structpb.Struct, error) {
	ref, name := "refs/heads/presubmit", "presubmit"
	if n := run.Ref.Number; n != 0 {
		ref, name = fmt.Sprintf("refs/pull/%d/head", n), fmt.Sprintf("%d/head", n)
	}
	token, id := ours(key, "task", k.ID), strconv.FormatInt(k.Job, 10)
	// Nobody fetches an action from here: a payload has only scripts. But a runner refuses a context without it.
	const nowhere = "https://actions.invalid"
	return structpb.NewStruct(map[string]any{
		"job": jobID, "event_name": "pull_request", "event": map[string]any{}, "actor": "signalbox",
		"repository": run.Ref.Repo.Name, "repository_owner": owner(run.Ref.Repo.Name), "sha": run.SHA,
		"ref": ref, "ref_name": name, "ref_type": "branch", "head_ref": "", "base_ref": "",
		"run_id": id, "run_number": id, "run_attempt": strconv.Itoa(k.Attempt), "retention_days": "30",
		"token": token, "gitea_runtime_token": token, "forgejo_runtime_token": token,
		"gitea_default_actions_url": nowhere, "forgejo_default_actions_url": nowhere,
		"workflow": "presubmit", "action": "", "api_url": "", "server_url": "",
	})
}

func owner(name string) string {
	for i := range name {
		if name[i] == '/' {
			return name[:i]
		}
	}
	return name
}
