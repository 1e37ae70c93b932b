package runner

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"connectrpc.com/connect"
	"github.com/google/uuid"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"github.com/signalbox-ci/signalbox/forge"
)

const (
	oneLine  = "correct-horse-battery"
	keyLines = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
)

func TestMask(t *testing.T) {
	m := newMask(map[string]string{"A": oneLine, "K": keyLines, "B": "battery-staple", "S": "tab\tand\x1b[1m bold"}, "the-nonce")
	for name, c := range map[string]struct {
		rows, want []string
		open       int
	}{
		"plain":           {[]string{"no secret here;"}, []string{"no secret here;"}, 0},
		"within":          {[]string{"x" + oneLine + "y" + oneLine + "."}, []string{"x***y***."}, 0},
		"overlap":         {[]string{"correct-horse-battery-staple."}, []string{"***."}, 0},
		"escapes within":  {[]string{"correct-\x1b[31mhorse-\r\x00battery."}, []string{"***."}, 0},
		"over rows":       {[]string{"> correct-", "horse-bat", "tery."}, []string{"> ***", "***", "***."}, 0},
		"one letter each": {strings.Split(oneLine+".", ""), append(slices.Repeat([]string{masked}, len(oneLine)), "."), 0},
		"line of a key":   {[]string{"  MIIEvQIBADANBgkq"}, []string{"  ***"}, 0},
		"whole key":       {strings.Split(keyLines+".", "\n"), []string{masked, masked, masked, masked, "."}, 0},
		"key in one row":  {[]string{strings.ReplaceAll(keyLines, "\n", "") + "."}, []string{"***."}, 0},
		"may begin":       {[]string{"x", "xcorrect-ho"}, []string{"x", "xcorrect-ho"}, 1},
		"may go on":       {[]string{"x", "xco", "rrect-"}, []string{"x", "xco", "rrect-"}, 2},
		"a word, whole":   {[]string{"the-nonce-of-this"}, []string{"***-of-this"}, 0},
		"a word, cut":     {[]string{"the-no"}, []string{"the-no"}, 0},
		"cleaned value":   {[]string{"tab\tand bold."}, []string{"***."}, 0},
	} {
		lines := make([]string, len(c.rows))
		for i, r := range c.rows {
			lines[i] = shown(r)
		}
		if open := m.over(lines); open != c.open || !slices.Equal(lines, c.want) {
			t.Errorf("%s: %q, %d open; want %q, %d", name, lines, open, c.want, c.open)
		}
	}
}

// However a value is cut into rows and these into calls, nothing of it stays but letters that stood alone anyway.
func TestMaskHidesEveryCut(t *testing.T) {
	m := newMask(map[string]string{"A": oneLine, "K": keyLines})
	rapid.Check(t, func(t *rapid.T) {
		var rows []*runnerv1.LogRow
		for _, part := range rapid.SliceOfN(rapid.SampledFrom([]string{oneLine, keyLines, "co", "rrect", " ", "-", "x\n", "c"}), 1, 8).Draw(t, "parts") {
			for len(part) > 0 {
				n := rapid.IntRange(1, len(part)).Draw(t, "cut")
				rows = append(rows, &runnerv1.LogRow{Content: part[:n]})
				part = part[n:]
			}
		}
		var d logBook
		var text strings.Builder
		for sent := 0; ; {
			to := rapid.IntRange(sent, len(rows)).Draw(t, "sent")
			next, b := d.take(d.Len, rows[d.Len:to], to == len(rows), m)
			if next.Len < d.Len || next.Len > int64(to) {
				t.Fatalf("ack %d after %d of %d", next.Len, d.Len, to)
			}
			d = next
			text.Write(b)
			if sent = to; d.Sealed {
				break
			}
		}
		if d.Len != int64(len(rows)) {
			t.Fatalf("%d of %d rows taken", d.Len, len(rows))
		}
		var all strings.Builder
		for line := range strings.Lines(text.String()) {
			all.WriteString(strings.TrimSuffix(line[len("1970-01-01T00:00:00.000Z "):], "\n"))
		}
		for _, needle := range m.values {
			if strings.Contains(all.String(), needle) {
				t.Fatalf("%q is seen in %q", needle, all.String())
			}
		}
	})
}

func TestShown(t *testing.T) {
	for row, want := range map[string]string{
		"\x1b[31;1mred\x1b[0m \x1b]0;title\x07text\x1b]8;;http://x\x1b\\link": "red textlink",
		"a\rb\x00c\x7fd\u009b31me\u202ef\u2066g\tt":                           "abcd31mefg\tt",
		"bad \xff utf8, two\nlines \x1b":                                      "bad \uFFFD utf8, two lines ",
		"👩‍🚒 <b>&amp;":                                                        "👩‍🚒 <b>&amp;",
	} {
		if got := shown(row); got != want {
			t.Errorf("%q: %q, want %q", row, got, want)
		}
	}
}

// A secret reaches its task, and nothing else: neither a record in clear, nor a log, nor what is left once it has ended.
func TestSecretFromAssignmentToEnd(t *testing.T) {
	s, c := alone(t)
	core, said := observer.New(zap.DebugLevel)
	s.log = zap.New(core)
	held := map[string]string{"NPM_TOKEN": oneLine, "OTHER": "not asked for at all"}
	s.secret = func(forge.Repo) map[string]string { return held }
	s.source = func(string) (Source, error) { return tree{}, nil }
	p := register(t, s, "linux")
	o := order("r", JobSpec{Name: "unit", RunsOn: []string{"linux"}, Timeout: time.Hour, Secrets: []string{"NPM_TOKEN"}, Steps: []StepSpec{{Run: "make"}}})
	o.Run.Ref.Repo.Private, o.Run.Ref.Repo.Name, o.Clone = true, "o/secret", "https://forge.example.org/o/secret.git"
	if err := s.want(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	key := uuid.NewString()
	task := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, key)).GetTask()
	if got := task.GetSecrets(); got["NPM_TOKEN"] != oneLine || got[checkoutToken] != "a token for o/secret" || got["OTHER"] != "" {
		t.Errorf("secrets %v", got)
	}
	if text := string(task.GetWorkflowPayload()); strings.Contains(text, oneLine) || strings.Contains(text, "a token for") || !strings.Contains(text, "NPM_TOKEN: ${{ secrets.NPM_TOKEN }}") {
		t.Errorf("workflow\n%s", text)
	}
	record, err := s.store.Record(t.Context(), s.pool, payloadRecord(task.GetId()))
	if err != nil || strings.Contains(string(record), oneLine) {
		t.Errorf("the record is readable: %v", err)
	}
	if _, err := s.open(task.GetId()+1, record); err == nil {
		t.Error("the payload of one task opens as another's")
	}
	held["NPM_TOKEN"] = "another-horse-another-battery"
	again := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, key)).GetTask()
	if again.GetSecrets()["NPM_TOKEN"] != oneLine {
		t.Error("the replay has another secret")
	}
	must[int64](t)(p.rows(task.GetId(), 0, false, "login with "+oneLine, "and a token for o/secret "+verdictOf(task)["verdict"], "corr"))
	if ack := must[int64](t)(p.rows(task.GetId(), 2, false, "correct-horse-", "battery.")); ack != 4 {
		t.Errorf("ack %d", ack)
	}
	if ack := must[int64](t)(p.rows(task.GetId(), 4, false, "ends as the task's own token begins: "+task.GetSecrets()[taskToken][:7])); ack != 5 {
		t.Errorf("ack %d: the row is held back", ack)
	}
	for i, want := range []runnerv1.Result{runnerv1.Result_RESULT_UNSPECIFIED, runnerv1.Result_RESULT_SUCCESS} {
		// The first word on the end comes before the last rows.
		r := must[*runnerv1.UpdateTaskResponse](t)(p.update(task.GetId(), runnerv1.Result_RESULT_SUCCESS, verdictOf(task)))
		if is := r.GetState().GetResult(); is != want {
			t.Errorf("the end is answered %v, want %v", is, want)
		}
		if ack := must[int64](t)(p.rows(task.GetId(), 5+int64(i), true, "late "+oneLine)); ack != 6+int64(i) {
			t.Errorf("ack %d of rows after the end", ack)
		}
	}
	var log strings.Builder
	if _, _, err := s.WriteLog(t.Context(), &log, task.GetId(), 0); err != nil {
		t.Fatal(err)
	}
	if want := "1970-01-01T00:00:00.000Z "; !strings.HasPrefix(log.String(), want+"login with ***\n"+want+"and *** ***\n"+want+"***\n"+want+"***.\n"+want+"ends as") ||
		!strings.HasSuffix(log.String(), want+"late ***\n") || strings.Count(log.String(), "\n") != 6 {
		t.Errorf("log\n%s", log.String())
	}
	if _, err := s.store.Record(t.Context(), s.pool, payloadRecord(task.GetId())); err == nil {
		t.Error("the payload outlives its task")
	}

	// Named, and configured no more: the job ends and says so.
	delete(held, "NPM_TOKEN")
	gone := o
	gone.Run.Key = "gone"
	if err := s.want(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	if text := string(must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask().GetWorkflowPayload()); !strings.Contains(text, "the secret NPM_TOKEN is not given") || strings.Contains(text, "run: make") {
		t.Errorf("workflow\n%s", text)
	}

	// A server with another key: the task is neither handed out again nor an error, and its job comes back.
	if err := s.cancel(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	o.Run.Key, o.Jobs[0].Secrets = "key", nil
	if err := s.want(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	key = uuid.NewString()
	must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, key))
	if s.sealed, err = sealing([]byte("another key")); err != nil {
		t.Fatal(err)
	}
	if got, err := p.keyed(s, key); err != nil || got.GetTask() != nil {
		t.Errorf("%v, %v", got.GetTask(), err)
	}
	c.forward(AcceptTTL + time.Second)
	for _, e := range said.All() {
		if text := e.Message + fmt.Sprint(e.ContextMap()); strings.Contains(text, oneLine) || strings.Contains(text, "a token for") {
			t.Errorf("the server's log says %q", text)
		}
	}
}

// A forge that is down keeps the job waiting; one that says no ends it.
func TestCheckoutTokenIsRefused(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	o := order("r")
	o.Run.Ref.Repo.Private = true
	if err := s.want(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	down := error(&forge.Fault{Class: forge.Retriable, Op: "x", Err: errCut})
	s.source = func(string) (Source, error) { return nil, down }
	if _, err := p.keyed(s, ""); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("%v", err)
	}
	s.source = func(string) (Source, error) { return tree{}, nil }
	if text := string(must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask().GetWorkflowPayload()); !strings.Contains(text, "need the GitHub App") {
		t.Errorf("workflow\n%s", text)
	}
}
