package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"github.com/klauspost/compress/s2"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// logQuota is how much text of one task is kept, before compression. What exceeds it is acknowledged, or its runner
// would send it for ever.
const logQuota = 16 << 20

// logPart is how much text one record has at most, so that whoever reads a log needs little memory at a time.
const logPart = 256 << 10

const logMarker = "[the log is longer than 16 MiB; the rest is not kept]"

// logBook is the document of one task's log, a subject of its own: rows come each second and must not make the pool
// wait. The rows are the records "rows/<n>", compressed.
type logBook struct {
	Len    int64 `json:"len"`   // rows taken, which is what the runner is told
	Bytes  int64 `json:"bytes"` // of text
	Chunks int   `json:"chunks"`
	Full   bool  `json:"full,omitempty"`
	Sealed bool  `json:"sealed,omitempty"`
}

func (s *Service) logSubject(task int64) state.Subject {
	return state.Subject{Instance: s.pool.Instance, Project: "-", Kind: "log", Key: s.pool.Key + "-" + strconv.FormatInt(task, 10)}
}

func rowsRecord(n int) string { return "rows/" + strconv.Itoa(n) }

// take decides an UpdateLog (R9): what is new is appended, a gap or a repetition changes nothing, and rows after the
// seal are counted and dropped. Rows that end as a masked value begins are left to the runner, which sends them again
// with what follows.
func (d logBook) take(index int64, rows []*runnerv1.LogRow, seal bool, m mask) (logBook, []byte) {
	have := d.Len - index
	if have < 0 { // a gap: the runner sends again from Len
		return d, nil
	}
	var text []byte
	if have < int64(len(rows)) {
		rows = rows[have:]
		if !d.Sealed && !d.Full {
			lines := make([]string, len(rows))
			for i, r := range rows {
				lines[i] = shown(r.GetContent())
			}
			if open := m.over(lines); !seal {
				rows = rows[:len(rows)-open]
			}
			text = printed(rows, lines)
			if d.Bytes+int64(len(text)) > logQuota {
				text = append(text[:max(0, logQuota-d.Bytes)], "\n"+logMarker+"\n"...)
				d.Full = true
			}
			d.Bytes += int64(len(text))
			if len(rows) > 0 {
				d.Chunks += len(parts(text))
			}
		}
		d.Len += int64(len(rows))
	}
	d.Sealed = d.Sealed || seal
	return d, text
}

// escapes are what a terminal would act on: control sequences, and strings up to their end.
var escapes = regexp.MustCompile(`\x1b\[[0-?]*[ -/]*[@-~]|\x1b[\]PX^_][^\x07\x1b]*(\x07|\x1b\\)?|\x1b[ -/]*[0-~]?`)

// shown is a row as a log shows it: one line of text that neither terminal nor browser acts on.
func shown(row string) string {
	row = escapes.ReplaceAllString(strings.ToValidUTF8(row, "\uFFFD"), "")
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return r
		case r == '\n':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r):
			return -1
		}
		return r
	}, row)
}

// printed is how rows are kept: a line each, with the runner's time.
func printed(rows []*runnerv1.LogRow, lines []string) []byte {
	var b bytes.Buffer
	for i, r := range rows {
		b.WriteString(r.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000Z "))
		b.WriteString(lines[i])
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// parts cuts text into what one record takes: at the end of a line, unless a line is longer than a part.
func parts(text []byte) (out [][]byte) {
	for len(text) > logPart {
		n := bytes.LastIndexByte(text[:logPart], '\n') + 1
		if n == 0 {
			for n = logPart; n > logPart-utf8.UTFMax && !utf8.RuneStart(text[n]); n-- {
			}
		}
		out, text = append(out, text[:n]), text[n:]
	}
	return append(out, text)
}

// append takes rows and answers how many are there now.
func (s *Service) append(ctx context.Context, task, index int64, rows []*runnerv1.LogRow, seal bool, m mask) (int64, error) {
	var ack int64
	_, err := actor.Ask(ctx, s.engine, s.logSubject(task), "", func(d logBook, _ time.Time) (actor.Step[logBook], error) {
		next, text := d.take(index, rows, seal, m)
		ack = next.Len
		if next == d {
			return actor.Step[logBook]{}, errUnchanged
		}
		step := actor.Step[logBook]{Next: next, Keep: taskMemory} // no longer than its rows
		if next.Chunks > d.Chunks {
			for i, part := range parts(text) {
				step.Put = append(step.Put, state.Record{Key: rowsRecord(d.Chunks + i), Value: s2.Encode(nil, part), TTL: taskMemory})
			}
		}
		return step, nil
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return 0, fmt.Errorf("append to the log of task %d: %w", task, err)
	}
	return ack, nil
}

// book is the document of a task's log; of one that has not begun it is empty.
func (s *Service) book(ctx context.Context, task int64) (d logBook, err error) {
	v, err := actor.See(ctx, s.store, s.logSubject(task))
	if err == nil && len(v.Doc) > 0 {
		err = json.Unmarshal(v.Doc, &d)
	}
	return d, err
}

// WriteLog writes a task's log as it is now, beginning with the part that an earlier call answered as next (0 = all of it),
// and says whether more may come. Each part is one Write, of at most 256 KiB.
func (s *Service) WriteLog(ctx context.Context, w io.Writer, task int64, from int) (next int, more bool, err error) {
	subject := s.logSubject(task)
	d, err := s.book(ctx, task)
	for next = min(max(from, 0), d.Chunks); err == nil && next < d.Chunks; next++ {
		var b []byte
		if b, err = s.store.Record(ctx, subject, rowsRecord(next)); errors.Is(err, state.ErrNotFound) {
			return d.Chunks, false, ErrLogGone
		}
		if err == nil {
			b, err = s2.Decode(nil, b)
		}
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			break
		}
	}
	if err != nil {
		return next, false, fmt.Errorf("read the log of task %d: %w", task, err)
	}
	return next, !d.Sealed, nil
}

// ErrLogGone says that a log was kept as long as logs are.
var ErrLogGone = errors.New("the log is not kept any more")
