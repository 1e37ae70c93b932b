package runner

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// What a runner reports at once is taken as it is, or its beginning, without the seal.
func TestTrimmedRows(t *testing.T) {
	rows := func(n int, text ...string) (out []*runnerv1.LogRow) {
		for range n {
			for _, s := range text {
				out = append(out, &runnerv1.LogRow{Time: timestamppb.New(time.Unix(1, 0)), Content: s})
			}
		}
		return out
	}
	mega, giant := strings.Repeat("x", 1<<20), strings.Repeat("x", rowLimit)
	for name, c := range map[string]struct {
		rows  []*runnerv1.LogRow
		want  int // rows, of which those not in other are as they were
		other map[int]string
	}{
		"none":                 {},
		"few":                  {rows: rows(3, "one", "", "two"), want: 9},
		"as many as may be":    {rows: rows(rowsCount, ""), want: rowsCount},
		"too many":             {rows: rows(rowsCount+1, ""), want: rowsCount},
		"too much":             {rows: rows(30, mega), want: 23},
		"one that is long":     {rows: rows(1, mega, "x"), want: 2},
		"one that is too long": {rows: rows(1, "a", giant, "b"), want: 3, other: map[int]string{1: "[a line of 16777225 bytes is not kept]"}},
	} {
		sent := &runnerv1.UpdateLogRequest{TaskId: 7, Index: 1 << 40, Rows: c.rows, NoMore: true}
		raw, err := proto.Marshal(sent)
		if err != nil {
			t.Fatal(err)
		}
		// A field that is new to us changes nothing.
		raw = append(protowire.AppendString(protowire.AppendTag(nil, 99, protowire.BytesType), "new"), raw...)
		var got runnerv1.UpdateLogRequest
		b, err := trimmed(bufio.NewReader(bytes.NewReader(raw)))
		if err == nil {
			err = proto.Unmarshal(b, &got)
		}
		if err != nil || len(got.GetRows()) != c.want || got.GetTaskId() != 7 || got.GetIndex() != 1<<40 {
			t.Errorf("%s: %v, %d rows of task %d from %d", name, err, len(got.GetRows()), got.GetTaskId(), got.GetIndex())
			continue
		}
		if want := c.want == len(c.rows); got.GetNoMore() != want {
			t.Errorf("%s: sealed %t, want %t", name, got.GetNoMore(), want)
		}
		for i, r := range got.GetRows() {
			if text, ok := c.other[i]; ok && (r.GetContent() != text || r.GetTime() == nil) || !ok && !proto.Equal(r, c.rows[i]) {
				t.Errorf("%s: row %d is %.100q", name, i, r.GetContent())
			}
		}
	}
}

// Rows that end too soon, or are none, are refused before anything is decoded.
func TestMalformedRows(t *testing.T) {
	whole, err := proto.Marshal(&runnerv1.UpdateLogRequest{TaskId: 7, Rows: []*runnerv1.LogRow{{Content: "one"}}})
	if err != nil {
		t.Fatal(err)
	}
	long := protowire.AppendVarint(protowire.AppendTag(nil, fieldRows, protowire.BytesType), rowLimit+1)
	for name, c := range map[string]struct {
		body, form, packed string
		ok, foreign        bool
	}{
		"whole":             {body: string(whole), ok: true},
		"nothing":           {ok: true},
		"cut in a row":      {body: string(whole[:len(whole)-1])},
		"cut in a length":   {body: string(whole[:3])},
		"cut in a long row": {body: string(long) + "x"},
		"endless":           {body: string(protowire.AppendVarint(protowire.AppendTag(nil, fieldRows, protowire.BytesType), 1<<63))},
		"a fixed number":    {body: string(protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), 7))},
		"a group":           {body: string(protowire.AppendTag(nil, 3, protowire.StartGroupType)) + "\x00"},
		"JSON":              {body: "{}", form: "application/json", foreign: true},
		"not packed":        {body: string(whole), packed: "gzip"},
		"packed otherwise":  {body: string(whole), packed: "br", foreign: true},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(c.body))
		r.Header.Set("Content-Type", "application/proto")
		if c.form != "" {
			r.Header.Set("Content-Type", c.form)
		}
		if c.packed != "" {
			r.Header.Set("Content-Encoding", c.packed)
		}
		err := trim(r)
		if (err == nil) != c.ok || errors.Is(err, errForm) != c.foreign {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := io.ReadAll(r.Body); c.ok && (err != nil || string(b) != c.body || r.ContentLength != int64(len(b))) {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

// A runner that has more than is taken at once gets rid of it all, row by row, and its log is sealed in the end.
func TestMoreRowsThanAreTakenAtOnce(t *testing.T) {
	s, _ := alone(t)
	p := register(t, s, "linux")
	if err := s.want(t.Context(), order("r")); err != nil {
		t.Fatal(err)
	}
	id := must[*runnerv1.FetchTaskResponse](t)(p.keyed(s, "")).GetTask().GetId()
	left := append(make([]string, rowsCount), strings.Repeat("x", rowLimit), "the end")
	var sent int64
	for range 3 {
		ack := must[int64](t)(p.rows(id, sent, true, left...))
		left, sent = left[ack-sent:], ack
	}
	var b strings.Builder
	if _, more, err := s.WriteLog(t.Context(), &b, id, 0); err != nil || more || len(left) > 0 {
		t.Errorf("%v, more %t, %d rows left", err, more, len(left))
	}
	if text := b.String(); strings.Count(text, " the end\n") != 1 || strings.Count(text, "bytes is not kept]\n") != 1 || strings.Count(text, "\n") != rowsCount+2 {
		t.Errorf("%d lines, …%q", strings.Count(text, "\n"), text[len(text)-200:])
	}
}
