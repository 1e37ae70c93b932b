package redis

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestParseURL(t *testing.T) {
	for url, want := range map[string]target{
		"redis://h":                              {hosts: []string{"h:6379"}},
		"redis://h:1/2":                          {hosts: []string{"h:1"}, db: 2},
		"redis://h/?db=3":                        {hosts: []string{"h:6379"}, db: 3},
		"rediss://:p%40ss%2Fw@h:1":               {hosts: []string{"h:1"}, tls: true, password: "p@ss/w"},
		"redis://u:a:b@[::1]:1":                  {hosts: []string{"[::1]:1"}, user: "u", password: "a:b"},
		"redis://[::1]":                          {hosts: []string{"[::1]:6379"}},
		"redis-cluster://a,b:1":                  {kind: "cluster", hosts: []string{"a:6379", "b:1"}},
		"rediss-cluster://u:p@a":                 {kind: "cluster", tls: true, user: "u", password: "p", hosts: []string{"a:6379"}},
		"redis-sentinel://a,b:1/main":            {kind: "sentinel", hosts: []string{"a:26379", "b:1"}, master: "main"},
		"rediss-sentinel://u:p@a/ma%20in?db=4":   {kind: "sentinel", tls: true, user: "u", password: "p", hosts: []string{"a:26379"}, master: "ma in", db: 4},
		"redis-sentinel://127.0.0.1:1,a/m%2Fn/o": {kind: "sentinel", hosts: []string{"127.0.0.1:1", "a:26379"}, master: "m/n/o"},
	} {
		got, err := parseURL(url)
		if err != nil {
			t.Errorf("%s: %v", url, err)
			continue
		}
		if diff := cmp.Diff(&want, got, cmp.AllowUnexported(target{})); diff != "" {
			t.Errorf("%s:\n%s", url, diff)
		}
	}
}

func TestParseURLRefusesWithoutShowingSecrets(t *testing.T) {
	for url, says := range map[string]string{
		"":                                   "expected redis://",
		"secret":                             "expected redis://",
		"http://u:secret@h":                  "unknown scheme",
		"redis-://u:secret@h":                "unknown scheme",
		"redis-ring://u:secret@h":            "unknown scheme",
		"redis://u:secret%zz@h":              "percent-encoded",
		"redis://u:secret@":                  "no host:port",
		"redis://u:secret@h:1:2":             "no host:port",
		"redis://u:secret@a,b":               "one host",
		"redis://u:secret@h/x":               "database number",
		"redis://u:secret@h/-1":              "database number",
		"redis://u:secret@h/1?db=1":          "twice",
		"redis://u:secret@h?pool_size=3":     "unknown parameter",
		"redis://u:secret@h?db=%zz":          "badly encoded",
		"redis-cluster://u:secret@h/1":       "numbered databases",
		"redis-cluster://u:secret@h?db=1":    "numbered databases",
		"redis-sentinel://u:secret@h":        "name of the master",
		"redis-sentinel://u:secret@h/m?db=x": "database number",
	} {
		_, err := parseURL(url)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want it to speak of %q", url, err, says)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", url, err)
		}
	}
}

func TestSuitable(t *testing.T) {
	for _, c := range []struct {
		i    info
		says string
	}{
		{info{"redis_version": "7.0.0", "maxmemory_policy": "noeviction"}, ""},
		{info{"redis_version": "10.1", "maxmemory_policy": "noeviction"}, ""},
		{info{"redis_version": "7.2.4", "valkey_version": "8.0.1", "maxmemory_policy": "noeviction"}, ""},
		{info{"redis_version": "6.2.14", "maxmemory_policy": "noeviction"}, "7.0 or newer"},
		{info{"redis_version": "7.2.4", "valkey_version": "7.1.9", "maxmemory_policy": "noeviction"}, "7.2 or newer"},
		{info{"maxmemory_policy": "noeviction"}, "7.0 or newer"},
		{info{"redis_version": "7.0.0", "maxmemory_policy": "volatile-lru"}, "evicts leases"},
		{info{"redis_version": "7.0.0"}, "evicts leases"},
	} {
		err := c.i.suitable("h:1")
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v, want %q", c.i, err, c.says)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	one := redistest.Start(t, redistest.Options{})
	evicting := redistest.Start(t, redistest.Options{Policy: "allkeys-lru"})
	cluster := redistest.StartCluster(t, redistest.Options{})
	locked := redistest.Start(t, redistest.Options{})
	if err := locked.Client().ConfigSet(t.Context(), "requirepass", "right").Err(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(t.Context(), "redis://:right@"+locked.Addr()); err != nil {
		t.Error(err)
	} else {
		_ = s.Close()
	}
	at := func(s *redistest.Server) string { return s.Addr() }
	for url, says := range map[string]string{
		"redis-cluster://" + at(one):                      "the URL says redis-cluster, but " + at(one) + " is a server by itself: use redis",
		"redis-sentinel://" + at(one) + "/m":              "a server by itself",
		"redis://" + at(cluster.Nodes[0]):                 "a node of a cluster: use redis-cluster",
		"redis-sentinel://" + at(cluster.Nodes[0]) + "/m": "a node of a cluster",
		evicting.URL():                   "maxmemory-policy allkeys-lru",
		"redis://u:secret@" + at(locked): "WRONGPASS",
		"redis://127.0.0.1:1":            "connection refused",
	} {
		s, err := Open(t.Context(), url)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want it to speak of %q", url, err, says)
		}
	}
}

func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		o    redistest.Options
		says []string
	}{
		"as recommended":     {redistest.Options{AppendFsync: "always", MaxMemory: "64mb"}, nil},
		"no persistence":     {redistest.Options{MaxMemory: "64mb"}, []string{"keeps no append-only file"}},
		"fsync each second":  {redistest.Options{AppendFsync: "everysec", MaxMemory: "64mb"}, []string{"appendfsync everysec"}},
		"no limit":           {redistest.Options{AppendFsync: "always"}, []string{"no maxmemory"}},
		"CONFIG is withheld": {redistest.Options{AppendFsync: "always", MaxMemory: "64mb", Args: []string{"--rename-command", "CONFIG", ""}}, []string{"does not tell its appendfsync"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), redistest.Start(t, c.o).URL())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			got, err := s.Findings(t.Context())
			if err != nil || len(got) != len(c.says) {
				t.Fatalf("%q, %v, want %q", got, err, c.says)
			}
			for i := range got {
				if !strings.Contains(got[i], c.says[i]) {
					t.Errorf("%q does not speak of %q", got[i], c.says[i])
				}
			}
		})
	}
}

// What Redis itself refuses, between two looks of ours at its memory or for want of disk, is "full" too.
func TestRefusalsOfRedisAreFull(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *redistest.Server){
		"OOM": func(t *testing.T, server *redistest.Server) {
			t.Helper()
			if err := server.Client().ConfigSet(t.Context(), "maxmemory", "1kb").Err(); err != nil {
				t.Fatal(err)
			}
		},
		"MISCONF": func(t *testing.T, server *redistest.Server) {
			t.Helper()
			if err := os.RemoveAll(server.Dir); err != nil {
				t.Fatal(err)
			}
			c := server.Client()
			if err := c.BgSave(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
			redistest.Until(t, "the snapshot has failed", func() bool {
				i, err := infoOf(t.Context(), c)
				return err == nil && i["rdb_last_bgsave_status"] == "err"
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := redistest.Start(t, redistest.Options{Args: []string{"--save", "3600 1"}})
			s, err := Open(t.Context(), server.URL())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			s.memory.put(server.Addr(), reading{at: time.Now().Add(time.Hour)}) // looked at, had room
			spoil(t, server)
			d := state.Delivery{Subject: state.Subject{Instance: "i", Project: "p", Kind: "k", Key: "1"}, ID: "a"}
			if a, err := s.Accept(t.Context(), d); !errors.Is(err, state.ErrFull) || !strings.Contains(err.Error(), name) {
				t.Fatalf("%+v, %v, want ErrFull for %s", a, err, name)
			}
			if n, err := s.Load(t.Context(), d.Subject); err != nil || len(n.Mail) != 0 {
				t.Fatalf("stored: %+v, %v", n, err)
			}
		})
	}
}
