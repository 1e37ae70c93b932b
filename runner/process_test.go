package runner

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/prmanager"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// asServer makes this test binary a server on the Redis it names.
const asServer = "RUNNER_TEST_REDIS"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) == "" {
		m.Run()
		return
	}
	ctx, stop := context.WithCancel(context.Background()) //nolint:forbidigo // this is a process of its own
	go func() {                                           // the test holds the other end: no process outlives it
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	if err := serveAlone(ctx, os.Getenv(asServer)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// house is engine and service on a Redis.
func house(ctx context.Context, url string) (*server, error) {
	st, err := redis.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	e := actor.New(st, lock.NewRedis(st.Client(), 2*time.Second), actor.Options{})
	actor.Register(e, Kind, NewBehaviour(st.Record), actor.KindOptions{MailFormat: Format, Recall: true})
	actor.Register(e, "pr", ear{}, actor.KindOptions{MailFormat: prmanager.Format})
	s, err := New(Options{
		Engine: e, Store: st, Pool: Subject("test", "default"), Key: []byte("a key of the test"), Log: zap.NewNop(), Metrics: prometheus.NewRegistry(),
	})
	return &server{Service: s, engine: e, store: st}, err
}

// serveAlone serves on the listener that the test opened.
func serveAlone(ctx context.Context, url string) error {
	s, err := house(ctx, url)
	if err != nil {
		return err
	}
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	web := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: patience}
	go func() { _ = web.Serve(ln) }() // ends with the process
	return s.engine.Run(ctx)
}

// processes are servers that are processes of their own. What the test itself asks goes straight to their Redis. Each has
// a socket that stays open when it is killed, so that calls wait for the next one.
func processes(t *testing.T, n int) (out []*server, kill func(i int)) {
	t.Helper()
	url := redistest.Start(t, redistest.Options{}).URL()
	type process struct {
		socket *os.File
		cmd    *exec.Cmd
		stdin  io.Closer
	}
	all := make([]process, n)
	begin := func(p *process) {
		p.cmd = exec.Command(os.Args[0])
		p.cmd.Env = append(os.Environ(), asServer+"="+url)
		p.cmd.Stderr, p.cmd.ExtraFiles = os.Stderr, []*os.File{p.socket}
		var err error
		if p.stdin, err = p.cmd.StdinPipe(); err == nil {
			err = p.cmd.Start()
		}
		if err != nil {
			t.Error(err)
		}
	}
	end := func(p *process) {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // it was killed
	}
	for i := range all {
		s, err := house(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if all[i].socket, err = ln.(*net.TCPListener).File(); err != nil {
			t.Fatal(err)
		}
		s.url = "http://" + ln.Addr().String() + "/api/actions"
		_ = ln.Close() // the copy stays open
		begin(&all[i])
		t.Cleanup(func() { end(&all[i]) })
		out = append(out, s)
	}
	return out, func(i int) {
		end(&all[i])
		begin(&all[i])
	}
}
