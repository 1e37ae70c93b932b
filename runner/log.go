package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"github.com/klauspost/compress/s2"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/state"
)

// logQuota is how much text of one task is kept, before compression. What exceeds it is acknowledged, or its runner
// would send it for ever.
const logQuota = 16 << 20

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
// seal are counted and dropped.
func (d logBook) take(index int64, rows []*runnerv1.LogRow, seal bool) (logBook, []byte) {
	have := d.Len - index
	if have < 0 { // a gap: the runner sends again from Len
		return d, nil
	}
	var text []byte
	if have < int64(len(rows)) {
		rows = rows[have:]
		d.Len += int64(len(rows))
		if !d.Sealed && !d.Full {
			text = printed(rows)
			if d.Bytes+int64(len(text)) > logQuota {
				text = append(text[:max(0, logQuota-d.Bytes)], "\n"+logMarker+"\n"...)
				d.Full = true
			}
			d.Bytes += int64(len(text))
			d.Chunks++
		}
	}
	d.Sealed = d.Sealed || seal
	return d, text
}

// printed is how rows are kept: a line each, whatever they contain.
func printed(rows []*runnerv1.LogRow) []byte {
	var b bytes.Buffer
	lines := strings.NewReplacer("\r", "", "\n", "\\n", "\x1b", "")
	for _, r := range rows {
		b.WriteString(r.GetTime().AsTime().UTC().Format("2006-01-02T15:04:05.000Z "))
		_, _ = lines.WriteString(&b, strings.ToValidUTF8(r.GetContent(), "\uFFFD"))
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// append takes rows and answers how many are there now.
func (s *Service) append(ctx context.Context, task, index int64, rows []*runnerv1.LogRow, seal bool) (int64, error) {
	var ack int64
	_, err := actor.Ask(ctx, s.engine, s.logSubject(task), "", func(d logBook, _ time.Time) (actor.Step[logBook], error) {
		next, text := d.take(index, rows, seal)
		ack = next.Len
		if next == d {
			return actor.Step[logBook]{}, errUnchanged
		}
		step := actor.Step[logBook]{Next: next}
		if next.Chunks > d.Chunks {
			step.Put = []state.Record{{Key: rowsRecord(d.Chunks), Value: s2.Encode(nil, text), TTL: taskMemory}}
		}
		return step, nil
	})
	if err != nil && !errors.Is(err, errUnchanged) {
		return 0, fmt.Errorf("append to the log of task %d: %w", task, err)
	}
	return ack, nil
}

// WriteLog writes a task's log as it is now, and says whether more may come.
func (s *Service) WriteLog(ctx context.Context, w io.Writer, task int64) (more bool, err error) {
	subject := s.logSubject(task)
	v, err := actor.See(ctx, s.store, subject)
	if err != nil {
		return false, fmt.Errorf("read the log of task %d: %w", task, err)
	}
	var d logBook
	if len(v.Doc) > 0 {
		if err := json.Unmarshal(v.Doc, &d); err != nil {
			return false, fmt.Errorf("read the log of task %d: %w", task, err)
		}
	}
	for n := range d.Chunks {
		b, err := s.store.Record(ctx, subject, rowsRecord(n))
		if err == nil {
			b, err = s2.Decode(nil, b)
		}
		if err == nil {
			_, err = w.Write(b)
		}
		if err != nil {
			return false, fmt.Errorf("read the log of task %d: %w", task, err)
		}
	}
	return !d.Sealed, nil
}
