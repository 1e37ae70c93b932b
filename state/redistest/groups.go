package redistest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Cluster is three masters without replicas that share the 16384 slots.
type Cluster struct{ Nodes []*Server }

// StartCluster runs a cluster and answers when every node says that it is whole.
func StartCluster(tb testing.TB, o Options) *Cluster {
	tb.Helper()
	c := &Cluster{}
	given := o.Args
	for range 3 {
		o.Args = append([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", strconv.Itoa(FreePort(tb)),
		}, given...)
		c.Nodes = append(c.Nodes, Start(tb, o))
	}
	ctx := tb.Context()
	const slots = 16384
	// Distinct epochs save the nodes the resolution of a conflict; they can be set only before the nodes meet.
	for i, n := range c.Nodes {
		if err := n.Client().Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
			tb.Fatalf("cluster node %d: %v", i, err)
		}
	}
	for i, n := range c.Nodes {
		cl := n.Client()
		if err := cl.ClusterAddSlotsRange(ctx, i*slots/3, (i+1)*slots/3-1).Err(); err != nil {
			tb.Fatalf("cluster node %d: %v", i, err)
		}
		for _, other := range c.Nodes {
			bus := other.args[slices.Index(other.args, "--cluster-port")+1]
			if err := cl.Do(ctx, "cluster", "meet", "127.0.0.1", other.Port, bus).Err(); err != nil {
				tb.Fatalf("cluster node %d: %v", i, err)
			}
		}
	}
	for _, n := range c.Nodes {
		cl := n.Client()
		Until(tb, "cluster node is whole", func() bool {
			info, err := cl.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384") &&
				strings.Contains(info, "cluster_known_nodes:3")
		})
	}
	return c
}

// URL is the cluster's redis-cluster:// URL, all nodes named.
func (c *Cluster) URL() string { return "redis-cluster://" + addrs(c.Nodes) }

// Sentinels is a master, its replica, and three sentinels that watch them under the name MasterName.
type Sentinels struct {
	Master, Replica *Server
	Watchers        []*Server
}

// MasterName is what the sentinels call the master.
const MasterName = "signalbox"

// StartSentinels runs the five processes and answers when the replica is in step and every sentinel knows the others.
// Sentinels declare the master down after half a second of silence.
func StartSentinels(tb testing.TB, o Options) *Sentinels {
	tb.Helper()
	g := &Sentinels{Master: Start(tb, o)}
	o.Args = append([]string{"--replicaof", fmt.Sprintf("127.0.0.1 %d", g.Master.Port), "--repl-diskless-sync-delay", "0"}, o.Args...)
	g.Replica = Start(tb, o)
	ctx := tb.Context()
	rc := g.Replica.Client()
	Until(tb, "replica is in step", func() bool {
		info, err := rc.Info(ctx, "replication").Result()
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	for range 3 {
		g.Watchers = append(g.Watchers, launch(tb, "redis-sentinel", 0, "", func(port int, dir string) []string {
			conf := filepath.Join(dir, "sentinel.conf")
			text := fmt.Sprintf("port %d\nbind 127.0.0.1\nprotected-mode no\ndir %s\nsentinel monitor %[3]s 127.0.0.1 %[4]d 2\n"+
				"sentinel down-after-milliseconds %[3]s 500\nsentinel failover-timeout %[3]s 3000\n", port, dir, MasterName, g.Master.Port)
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				tb.Fatalf("write sentinel.conf: %v", err)
			}
			return []string{conf}
		}))
	}
	for _, w := range g.Watchers {
		cl := w.Client()
		Until(tb, "sentinel knows replica and the other two", func() bool {
			m, err := cl.Do(ctx, "sentinel", "master", MasterName).Result()
			fields, ok := m.(map[any]any)
			return err == nil && ok && fields["num-slaves"] == "1" && fields["num-other-sentinels"] == "2"
		})
	}
	return g
}

// URL is the group's redis-sentinel:// URL.
func (g *Sentinels) URL() string { return "redis-sentinel://" + addrs(g.Watchers) + "/" + MasterName }

func addrs(servers []*Server) string {
	var all []string
	for _, s := range servers {
		all = append(all, s.Addr())
	}
	return strings.Join(all, ",")
}
