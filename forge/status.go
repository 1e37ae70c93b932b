package forge

// StatusState is what a client says of a run of its own, in the words of GitLab's commit statuses (docs/statuses.md).
type StatusState string

// The states of a Status.
const (
	StatusPending  StatusState = "pending"
	StatusRunning  StatusState = "running"
	StatusSuccess  StatusState = "success"
	StatusFailed   StatusState = "failed"
	StatusCanceled StatusState = "canceled"
	StatusSkipped  StatusState = "skipped"
)

// Terminal says whether the state ends a run.
func (s StatusState) Terminal() bool { return s != StatusPending && s != StatusRunning }

// Status is one status that a client of the status API wants shown on a commit. Everything a client wrote in it is
// hostile: it is shown, never followed.
type Status struct {
	Repo        Repo        `json:"repo"`
	SHA         string      `json:"sha"`
	Ref         string      `json:"ref,omitempty"` // branch or tag, where the client named one
	Context     string      `json:"context"`
	State       StatusState `json:"state"`
	Description string      `json:"description,omitempty"`
	TargetURL   string      `json:"target_url,omitempty"`
	Coverage    *float64    `json:"coverage,omitempty"` // percent
	// Run is our id of the run: the external id of a check run.
	Run string `json:"run"`
	// New: nothing of this run was written before. The forge gets a new check run or job; what it has of an earlier run
	// of the context stays as history.
	New bool `json:"new,omitempty"`
	// ID and PipelineID are those of the newest receipt in this context; of an earlier run where New is set.
	ID         string `json:"id,omitempty"`
	PipelineID int64  `json:"pipeline_id,omitempty"`
}

// StatusReceipt is what the forge made of a Status. ID is empty and PipelineID 0 where the forge has none.
type StatusReceipt struct {
	ID         string `json:"id,omitempty"`
	PipelineID int64  `json:"pipeline_id,omitempty"`
}
