package prmanager

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/signalbox-ci/signalbox/forge"
	"github.com/signalbox-ci/signalbox/status"
)

var rewrite = flag.Bool("rewrite", false, "write what the stories came to into testdata/*.txt")

// TestStories plays testdata/*.txt: lines that begin with "> " are what people, clocks and machines do, the lines
// below each are every decision and every effect that follow from it. Run with -rewrite to record, and read the
// difference before committing it.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			was, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			is := play(t, was)
			if *rewrite {
				if err := os.WriteFile(file, is, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(was), string(is)); diff != "" {
				t.Errorf("-recorded +now:\n%s", diff)
			}
		})
	}
}

func play(t *testing.T, script []byte) []byte {
	t.Helper()
	st := &story{t: t, sim: newSim(t, newWorld())}
	var out bytes.Buffer
	lines := bufio.NewScanner(bytes.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "> "):
			fmt.Fprintln(&out, line)
			st.w.story = nil
			st.do(strings.Fields(line[2:]))
			for _, l := range st.w.story {
				fmt.Fprintln(&out, "  "+l)
			}
		case strings.HasPrefix(line, "#"), line == "":
			fmt.Fprintln(&out, line)
		}
	}
	return out.Bytes()
}

type story struct {
	t *testing.T
	*sim
	later []Note // made by the world, not delivered
	last  Note
}

// do plays one line. People's verbs deliver at once, unless "later" keeps the delivery for "deliver N".
func (st *story) do(f []string) {
	st.t.Helper()
	w, arg := st.w, func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	if f[0] == "later" {
		st.later = append(st.later, st.verb(f[1:]))
		return
	}
	switch f[0] {
	case "amid": // READ VERB: happens right before the forge answers the next read of that kind; its delivery is kept
		then := w.amid
		w.amid = func(op string) {
			if op != f[1] {
				return
			}
			if w.amid = nil; then != nil {
				then(op)
			}
			st.later = append(st.later, st.verb(f[2:]))
		}
	case "deliver":
		for _, n := range f[1:] {
			i, err := strconv.Atoi(n)
			if err != nil {
				st.t.Fatal(err)
			}
			st.hear(st.later[i-1])
		}
	case "again": // the last delivery, under another id
		st.hear(st.last)
	case "at-once": // N deliveries kept by later, in one turn
		for _, n := range st.later {
			st.post(KindPull, n)
		}
		st.later = nil
		st.run("")
	case "wait":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			st.t.Fatal(err)
		}
		st.pass(d)
	case "step":
		w.step, _ = time.ParseDuration(arg(1))
	case "down", "up":
		code, _ := strconv.Atoi(arg(2))
		if w.down[strings.ReplaceAll(arg(1), "_", " ")] = code; f[0] == "up" {
			w.down[strings.ReplaceAll(arg(1), "_", " ")] = 0
		}
	case "lag":
		p := w.pull
		if w.lagging = &p; arg(1) == "off" {
			w.lagging = nil
		}
	case "untrust":
		w.trusted[arg(1)] = false
	case "trust":
		w.trusted[arg(1)] = true
	case "checks-refused":
		w.refuse = strings.Join(f[1:], " ")
	case "policy":
		st.set(f[1:])
	case "effects":
		if st.held = arg(1) == "held"; !st.held {
			st.run("")
		}
	case "approve":
		st.post(KindOrder, Order{Ref: w.pull.Ref, SHA: sha(arg(1)), By: "root@host", Reason: strings.Join(f[2:], " ")})
		st.run("")
	case "revoke":
		st.post(KindOrder, Order{Ref: w.pull.Ref, Revoke: true, By: "root@host", Reason: strings.Join(f[1:], " ")})
		st.run("")
	case "reconcile":
		st.post(KindReconcile, Repair{Ref: w.pull.Ref, Why: "sweep"})
		st.run("")
	case "engine": // the engine asks for a comparison
		st.run(arg(1))
	case "report": // SHA STATE ATTEMPT RUN-ID
		attempt, _ := strconv.Atoi(arg(3))
		for _, k := range keys(st.d.Triggers) {
			if r := st.d.Triggers[k].Order.Run; strings.HasPrefix(r.SHA, arg(1)) {
				st.post(KindReport, Report{Key: r.Key, State: forge.CheckState(arg(2)), Attempt: attempt, RunID: strings.ReplaceAll(arg(4), "own", r.Key), URL: "https://ci.test/" + arg(4)})
			}
		}
		st.run("")
	case "told": // SHA N STATE TEXT: by the run's own token
		n, _ := strconv.ParseInt(arg(2), 10, 64)
		for _, k := range keys(st.d.Triggers) {
			if r := st.d.Triggers[k].Order.Run; strings.HasPrefix(r.SHA, arg(1)) {
				st.post(status.KindReported, status.Reported{
					Key: k, SHA: r.SHA, Seq: n, State: forge.CheckState(arg(3)), Description: strings.Join(f[4:], " "), URL: "https://ci.test/" + arg(2),
				})
			}
		}
		st.run("")
	case "lose": // the answer of the next effect
		st.lose = true
	case "jobs": // SHA STATE NAME=STATE:ATTEMPT:NOTE... "_" is a space in names and notes
		for _, k := range keys(st.d.Triggers) {
			if r := st.d.Triggers[k].Order.Run; strings.HasPrefix(r.SHA, arg(1)) && !st.d.Triggers[k].gone() {
				st.post(KindReport, Report{Key: r.Key, State: forge.CheckState(arg(2)), Attempt: 1, RunID: r.Key, Jobs: jobs(f[3:])})
			}
		}
		st.run("")
	case "became": // SHA STATE ATTEMPT: nobody tells of it
		attempt, _ := strconv.Atoi(arg(3))
		for k, s := range st.d.Triggers {
			if strings.HasPrefix(s.Order.Run.SHA, arg(1)) {
				w.after[k] = RunState{State: forge.CheckState(arg(2)), Attempt: attempt, Receipt: s.Order.Receipt, Jobs: jobs(f[min(4, len(f)):])}
			}
		}
	case "actions": // SHA ID STATUS CONCLUSION ATTEMPT FORK
		w.tick()
		id, _ := strconv.ParseInt(arg(2), 10, 64)
		attempt, _ := strconv.Atoi(arg(5))
		fork := w.pull.Head.RepoID
		if arg(6) != "" {
			fork++
		}
		st.post(status.KindNative, status.Native{
			SHA: sha(arg(1)), RunID: id, Status: arg(3), Conclusion: strings.Trim(arg(4), "-"), Attempt: attempt, HeadRepoID: fork, At: w.now,
		})
		st.run("")
	case "comment":
		st.post(KindComment, w.comment(f[1], strings.Join(f[2:], " ")))
		st.run("")
	case "press": // WHO WHAT SHA
		w.tick()
		p := status.Pressed{SHA: sha(arg(3)), What: arg(2), By: w.actor(arg(1)), At: w.now}
		for _, k := range keys(st.d.Triggers) {
			if st.d.Triggers[k].Order.Run.SHA == p.SHA && p.What == status.PressedRerun {
				p.Key = k
			}
		}
		st.post(status.KindPressed, p)
		st.run("")
	case "filed":
		for _, k := range slices.Sorted(maps.Keys(w.filed)) {
			w.tell("%s is %s's, from %s %s, run %q", k, w.filed[k].Subject, w.filed[k].Source.Event, w.filed[k].Source.Path, w.filed[k].RunID)
		}
	case "garbage":
		st.post(KindPull, []byte(`{"actions":7}`))
		st.run("")
	case "show":
		w.tell("%s", st.seen())
		w.tell("waits: %s", st.d.Waits())
	default:
		st.last = st.verb(f)
		st.hear(st.last)
	}
}

func (st *story) verb(f []string) Note {
	st.t.Helper()
	w := st.w
	switch f[0] {
	case "open":
		return w.open(f[1], f[2], f[3:]...)
	case "push":
		return w.push(f[1], f[2])
	case "label":
		if len(f) > 2 {
			return w.setLabel(f[1], f[2], true)
		}
		return w.setLabel(f[1], w.label, true)
	case "unlabel":
		return w.setLabel(f[1], w.label, false)
	case "base":
		return w.base(f[1], f[2])
	case "draft", "ready":
		return w.draft(f[1], f[0] == "draft")
	case "close", "merge":
		return w.close(f[1], f[0] == "merge")
	case "reopen":
		return w.reopen(f[1])
	case "assign":
		w.tick()
		return w.note(f[1], "assigned")
	}
	st.t.Fatalf("no such verb: %v", f)
	return Note{}
}

func (st *story) set(f []string) {
	st.t.Helper()
	for _, kv := range f {
		k, v, _ := strings.Cut(kv, "=")
		var rules []forge.Rule
		for r := range strings.SplitSeq(v, ",") {
			if kind, value, ok := strings.Cut(r, ":"); ok {
				rules = append(rules, forge.Rule{Kind: kind, Value: value})
			}
		}
		switch k {
		case "hold":
			st.policy.Hold, _ = time.ParseDuration(v)
		case "strict":
			st.policy.Strict = true
		case "trust":
			st.policy.Trust = rules
		case "auto":
			st.policy.Auto = rules
		case "presubmits":
			st.policy.Presubmits = nil
			for p := range strings.SplitSeq(v, ",") {
				if p != "" {
					st.policy.Presubmits = append(st.policy.Presubmits, presubmit(p))
				}
			}
		case "receipts":
			st.w.mute = v == "none"
		case "dry":
			st.policy.DryRun = v == "on"
		case "token":
			st.w.self = Self{Actor: st.w.actor(v)}
		default:
			st.t.Fatalf("no such policy: %s", kv)
		}
	}
}

func jobs(words []string) (out []Job) {
	for _, word := range words {
		name, rest, _ := strings.Cut(strings.ReplaceAll(word, "_", " "), "=")
		part := append(strings.Split(rest, ":"), "", "")
		n, _ := strconv.Atoi(part[1])
		out = append(out, Job{Name: name, State: forge.CheckState(strings.ReplaceAll(part[0], " ", "_")), Attempt: n, Note: part[2]})
	}
	return out
}

// presubmit reads "name", "name!" (native), "name*" (its runs are told of by deliveries) or "name?" (its CI cannot be
// asked).
func presubmit(p string) Presubmit {
	switch {
	case strings.HasSuffix(p, "!"):
		return Presubmit{Name: strings.TrimSuffix(p, "!"), Trigger: "actions", Native: true, Held: true}
	case strings.HasSuffix(p, "?"):
		return Presubmit{Name: strings.TrimSuffix(p, "?"), Trigger: "blind"}
	case strings.HasSuffix(p, "*"):
		return Presubmit{Name: strings.TrimSuffix(p, "*"), Trigger: "ci", Source: Source{Event: "workflow_dispatch", Path: ".github/workflows/presubmit.yml"}}
	}
	return Presubmit{Name: p, Trigger: "ci"}
}
