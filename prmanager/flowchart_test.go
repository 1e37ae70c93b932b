package prmanager

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// reasons reads the Reason constants from their source, so that none can be left out of a list.
func reasons(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, s)
		}
		return true
	})
	if len(out) < 20 {
		t.Fatalf("only %d reasons found", len(out))
	}
	return out
}

// TestFlowchart: every Reason is a box of flowchart.md, every box a Reason.
func TestFlowchart(t *testing.T) {
	text, err := os.ReadFile("../flowchart.md")
	if err != nil {
		t.Fatal(err)
	}
	boxes := map[string]bool{}
	charts := regexp.MustCompile("(?s)```mermaid\nflowchart TD\n(.*?)```").FindAllSubmatch(text, -1)
	for _, chart := range charts {
		for line := range strings.Lines(string(chart[1])) {
			line = regexp.MustCompile(`\|[^|]*\|`).ReplaceAllString(line, "")
			for box := range strings.SplitSeq(line, "-->") {
				boxes[strings.TrimSpace(box)] = true
			}
		}
	}
	known := reasons(t)
	for _, r := range known {
		if !boxes[r] {
			t.Errorf("%s is a reason and no box", r)
		}
	}
	for _, b := range slices.Sorted(maps.Keys(boxes)) {
		if !slices.Contains(known, b) {
			t.Errorf("%q is a box and no reason", b)
		}
	}
}
