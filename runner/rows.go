package runner

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"

	runnerv1 "code.gitea.io/actions-proto-go/runner/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Limits of the rows of one UpdateLog. No runner bounds them, and a row takes two bytes to send and eighty to decode.
const (
	rowLimit  = logQuota // in bytes: of a longer one not even the beginning would fit a log
	rowsLimit = 24 << 20 // bytes of all
	rowsCount = 1 << 18
)

// Numbers of the fields of an UpdateLogRequest.
const (
	fieldRows = 3
	fieldSeal = 4
)

var errForm = errors.New("rows are read as application/proto, plain or in gzip")

// trim bounds an UpdateLog before it is decoded.
func trim(r *http.Request) error {
	body := io.Reader(r.Body)
	switch packed := r.Header.Get("Content-Encoding"); {
	case r.Header.Get("Content-Type") != "application/proto" || packed != "" && packed != "gzip":
		return errForm
	case packed != "":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return fmt.Errorf("read rows: %w", err)
		}
		body = z
		r.Header.Del("Content-Encoding")
	}
	b, err := trimmed(bufio.NewReader(body))
	if err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	return nil
}

// trimmed reads an UpdateLogRequest of any size and leaves out what exceeds the limits: of a row that is too long all but
// the fact, and from where they are too many the rows and the seal. Those are not acknowledged, and their runner sends them
// again. Were the whole refused, it would send the whole again, and in the end give up what is left of the log.
func trimmed(r *bufio.Reader) (out []byte, err error) {
	rows, full, seal := 0, false, false
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			break
		}
		var v uint64 // of a number; of bytes how many follow
		if err == nil {
			v, err = binary.ReadUvarint(r)
		}
		num, kind := protowire.DecodeTag(tag)
		switch {
		case err != nil:
		case kind == protowire.VarintType && num == fieldSeal:
			seal = v != 0
		case kind == protowire.VarintType:
			out = protowire.AppendVarint(protowire.AppendVarint(out, tag), v)
		case kind != protowire.BytesType || v > math.MaxInt32:
			err = fmt.Errorf("field %d is malformed", num)
		case num != fieldRows || full || rows == rowsCount || len(out)+int(min(v, rowLimit)) > rowsLimit:
			full = full || num == fieldRows
			_, err = io.CopyN(io.Discard, r, int64(v))
		default:
			var b []byte
			b, err = row(r, int(v))
			out = protowire.AppendBytes(protowire.AppendVarint(out, tag), b)
			rows++
		}
		if err != nil {
			return nil, err
		}
	}
	if seal && !full {
		out = protowire.AppendVarint(protowire.AppendTag(out, fieldSeal, protowire.VarintType), 1)
	}
	return out, nil
}

// row reads a row of n bytes, or makes one that stands for it.
func row(r io.Reader, n int) ([]byte, error) {
	if n > rowLimit {
		if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
			return nil, err
		}
		return proto.Marshal(&runnerv1.LogRow{Time: timestamppb.Now(), Content: fmt.Sprintf("[a line of %d bytes is not kept]", n)})
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}
