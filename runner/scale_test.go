package runner

import (
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"connectrpc.com/connect"

	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// crowd is a pool in which a runner holds one task and n-1 jobs wait for runners with a label. Run keys are as long as real
// ones. Where no runner has the label, all of them are let in.
type crowd struct {
	b      *testing.B
	s      *server
	peer   *peer
	task   int64
	wanted int
}

func newCrowd(b *testing.B, s *server, n int, label string) *crowd {
	b.Helper()
	c := &crowd{b: b, s: s, peer: register(b, s, "linux")}
	c.want("linux")
	c.task = c.fetch()
	for c.wanted < n {
		c.want(label)
	}
	redistest.Until(b, "all are let in", func() bool {
		return label == "linux" || c.fetch() == 0 && len(must[Pool](b)(s.see(b.Context())).Jobs) == n
	})
	return c
}

func (c *crowd) want(label string) {
	o := order(prmanager.RunKey(prmanager.Subject(run("").Ref), "head", "base", c.wanted, "presubmit"), spec("unit tests", false))
	o.URL, o.Jobs[0].RunsOn = c.s.runURL(o.Run), []string{label}
	if c.wanted++; c.s.want(c.b.Context(), o) != nil {
		c.b.Fatal("it is not wanted")
	}
}

func request[T any](c *crowd, m *T) *connect.Request[T] {
	r := connect.NewRequest(m)
	r.Header().Set(uuidHeader, c.peer.uuid)
	r.Header().Set(tokenHeader, c.peer.token)
	return r
}

func (c *crowd) fetch() int64 {
	return must[*connect.Response[runnerv1.FetchTaskResponse]](c.b)(calls{c.s.Service}.FetchTask(c.b.Context(), request(c, &runnerv1.FetchTaskRequest{}))).Msg.GetTask().GetId()
}

func (c *crowd) says(task int64, is runnerv1.Result) {
	must[*connect.Response[runnerv1.UpdateTaskResponse]](c.b)(calls{c.s.Service}.UpdateTask(c.b.Context(), request(c, &runnerv1.UpdateTaskRequest{
		State: &runnerv1.TaskState{Id: task, Result: is},
	})))
}

// BenchmarkScale tells what calls cost with a thousand open jobs, and how many times what they cost with ten: a heartbeat, a
// job from wish to end, and a heartbeat where no runner takes the others, so that all of them stand in the document.
func BenchmarkScale(b *testing.B) {
	for store, start := range map[string]func() *server{
		"embedded": func() *server { s, _ := alone(b); return s },
		"redis":    func() *server { return several(b, 1)[0] },
	} {
		for call, label := range map[string]string{"beat": "linux", "job": "linux", "beat among strangers": "other"} {
			b.Run(store+"/"+call, func(b *testing.B) {
				few, many := newCrowd(b, start(), 10, label), newCrowd(b, start(), maxOpenJobs, label)
				one := func(c *crowd) time.Duration {
					began := time.Now()
					if call != "job" {
						c.says(c.task, runnerv1.Result_RESULT_UNSPECIFIED)
						return time.Since(began)
					}
					c.want(label)
					task := c.fetch()
					c.says(task, runnerv1.Result_RESULT_UNSPECIFIED)
					c.says(task, runnerv1.Result_RESULT_FAILURE)
					return time.Since(began)
				}
				var short, long time.Duration
				for b.Loop() {
					short += one(few)
					long += one(many)
				}
				b.ReportMetric(float64(long)/float64(short), "ratio")
				b.ReportMetric(float64(len(encoded(must[Pool](b)(many.s.see(b.Context()))))), "document-bytes")
			})
		}
	}
}
