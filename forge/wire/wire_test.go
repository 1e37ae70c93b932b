package wire

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/signalbox-ci/signalbox/forge"
)

func TestCut(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{
		{"", 3, ""}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"äöü", 3, "äöü"}, {"äöüß", 3, "äö…"}, {"日本語文", 2, "日…"},
	} {
		if got := Cut(c.in, c.n); got != c.want {
			t.Errorf("Cut(%q, %d) = %q, expected %q", c.in, c.n, got, c.want)
		}
	}
}

// Whatever another says, no text of ours carries a secret of either forge, a line break, or more than a line.
func TestSaid(t *testing.T) {
	for _, text := range []string{
		"ghp_sesame0123", "ghs_sesame", "github_pat_sesame_0", "glpat-sesame.x-y_z", "gldt-sesame", "glcbt-sesame", "whsec_sesame=",
		"Authorization: Bearer sesame", "private-token: sesame", "eyJhbGci.sesame.sesame", "http://user:sesame@proxy.example/",
		"https://x.example/?token=sesame", "sesame", strings.Repeat("x", 500),
	} {
		got := Said("before\r\n" + text + " after")
		if strings.Contains(got, "sesame") != (text == "sesame") || strings.ContainsAny(got, "\r\n") || len([]rune(got)) > maxSaid {
			t.Errorf("%q: %q", text, got)
		}
	}
}

// However long the list, its newest entries come, in order, without a gap, in at most three reads.
func TestNewest(t *testing.T) {
	for n := range 3*Page + 2 {
		var all []int
		for i := range n {
			all = append(all, i)
		}
		reads := 0
		got, err := Newest(func(page int) ([]int, int, error) {
			reads++
			pages := slices.Collect(slices.Chunk(all, Page))
			if page > len(pages) {
				return nil, len(pages), nil
			}
			return pages[page-1], len(pages), nil
		})
		if err != nil || reads > 3 || len(got) < min(n, few) || n <= Page && reads != 1 {
			t.Errorf("%d entries: %d in %d reads, %v", n, len(got), reads, err)
		}
		if !slices.Equal(got, all[max(0, n-len(got)):]) {
			t.Errorf("%d entries: the newest are %v", n, got)
		}
	}
	failing := errors.New("refused")
	for at := 1; at <= 3; at++ {
		reads := 0
		_, err := Newest(func(int) ([]int, int, error) {
			if reads++; reads == at {
				return nil, 0, failing
			}
			return make([]int, 10), 5, nil
		})
		if !errors.Is(err, failing) {
			t.Errorf("failure of read %d: %v", at, err)
		}
	}
}

// A credential leaves for the base's host and scheme only.
func TestGuard(t *testing.T) {
	var agents []string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { agents = append(agents, r.UserAgent()) }))
	defer server.Close()
	base, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	guard := NewGuard(server.Client().Transport, base)
	for address, want := range map[string]bool{server.URL + "/x": true, "https://" + base.Host: false, "http://elsewhere.invalid": false} {
		body := &closed{}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, address, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", "")
		res, err := guard.RoundTrip(req)
		if want {
			if err != nil {
				t.Errorf("%s: %v", address, err)
			} else if err = res.Body.Close(); err != nil {
				t.Error(err)
			}
			continue
		}
		if f := Fault("look", err); f.Class != forge.Permanent || !body.yes {
			t.Errorf("%s: %v, body closed: %t", address, err, body.yes)
		}
	}
	if !slices.Equal(agents, []string{Agent}) {
		t.Errorf("agents %q", agents)
	}
}

type closed struct{ yes bool }

func (*closed) Read([]byte) (int, error) { return 0, io.EOF }
func (c *closed) Close() error           { c.yes = true; return nil }
