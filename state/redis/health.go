package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// acceptBelow is the percentage of maxmemory above which nothing new is accepted. What lies between is for the work
// that drains the store.
const acceptBelow = 85

// info is what INFO says. CONFIG would say more, but managed Redis often forbids it.
type info map[string]string

func infoOf(ctx context.Context, c *redis.Client, section ...string) (info, error) {
	v, err := c.Info(ctx, section...).Result()
	if err != nil {
		return nil, err
	}
	i := info{}
	for line := range strings.Lines(v) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			i[name] = value
		}
	}
	return i, nil
}

// suitable refuses a server on which the promises of a store do not hold.
func (i info) suitable(addr string) error {
	if v := i["valkey_version"]; v != "" {
		if !atLeast(v, 7, 2) {
			return fmt.Errorf("%s is Valkey %s: 7.2 or newer is needed", addr, v)
		}
	} else if v := i["redis_version"]; !atLeast(v, 7, 0) {
		return fmt.Errorf("%s is Redis %s: 7.0 or newer is needed", addr, v)
	}
	if p := i["maxmemory_policy"]; p != "noeviction" {
		return fmt.Errorf("%s has maxmemory-policy %s, which evicts leases and the ids of deliveries when memory is short, "+
			"so that work is done twice: set it to noeviction", addr, p)
	}
	return nil
}

func atLeast(version string, major, minor int) bool {
	part := strings.Split(version, ".")
	if len(part) < 2 {
		return false
	}
	x, err1 := strconv.Atoi(part[0])
	y, err2 := strconv.Atoi(part[1])
	return err1 == nil && err2 == nil && (x > major || x == major && y >= minor)
}

// usage is used and allowed memory in bytes; allowed 0 = no limit.
func (i info) usage() (used, allowed int64, err error) {
	used, err1 := strconv.ParseInt(i["used_memory"], 10, 64)
	allowed, err2 := strconv.ParseInt(i["maxmemory"], 10, 64)
	// Buffers for replicas and the append-only file do not count towards the limit. Not every server tells.
	buffers, _ := strconv.ParseInt(i["mem_not_counted_for_evict"], 10, 64)
	return used - buffers, allowed, errors.Join(err1, err2)
}

// Findings says, one sentence each, what about the servers' settings weakens Signalbox's promises although it can
// work with them. None: all is as recommended.
func (s *Store) Findings(ctx context.Context) ([]string, error) {
	var mu sync.Mutex
	var all []string
	err := s.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		i, err := infoOf(ctx, c)
		if err != nil {
			return err
		}
		found := i.persistence(ctx, c)
		if err := i.suitable(c.Options().Addr); err != nil {
			found = append(found, err.Error()) // changed since Open
		}
		if _, allowed, err := i.usage(); err != nil {
			return err
		} else if allowed == 0 {
			found = append(found, c.Options().Addr+" has no maxmemory: Signalbox cannot see it fill up and refuse in time, "+
				"and the system may kill it; set a limit below what the machine has")
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, found...)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the store's settings: %w", err)
	}
	slices.Sort(all)
	return all, nil
}

func (i info) persistence(ctx context.Context, c *redis.Client) []string {
	addr := c.Options().Addr
	if i["aof_enabled"] != "1" {
		return []string{addr + " keeps no append-only file: a restart loses what was acknowledged; set appendonly yes and appendfsync always"}
	}
	v, err := c.ConfigGet(ctx, "appendfsync").Result()
	if err != nil || v["appendfsync"] == "" {
		return []string{addr + " does not tell its appendfsync: see to it that it is always, or up to two seconds of what was acknowledged can be lost"}
	}
	if v["appendfsync"] != "always" {
		return []string{fmt.Sprintf("%s has appendfsync %s: if it is killed, up to two seconds of what was acknowledged can be lost; set it to always", addr, v["appendfsync"])}
	}
	return nil
}

// gauge remembers for a second, per server, whether its memory is too full to accept.
type gauge struct {
	mu   sync.Mutex
	seen map[string]reading
}

type reading struct {
	at   time.Time
	full bool
}

// full says whether the server of key is above the mark, as far as is known: what is sent to a server that cannot be
// asked gets its own answer.
func (g *gauge) full(ctx context.Context, client redis.UniversalClient, key string) bool {
	c, ok := client.(*redis.Client)
	if cc, cluster := client.(*redis.ClusterClient); cluster {
		var err error
		if c, err = cc.MasterForKey(ctx, key); err != nil {
			return false
		}
	} else if !ok {
		return false
	}
	addr := c.Options().Addr
	g.mu.Lock()
	last := g.seen[addr]
	fresh := time.Since(last.at) < time.Second
	if !fresh { // one caller asks, the others go by the last answer meanwhile
		g.put(addr, reading{time.Now(), last.full})
	}
	g.mu.Unlock()
	if fresh {
		return last.full
	}
	i, err := infoOf(ctx, c, "memory")
	if err != nil {
		return last.full
	}
	used, allowed, err := i.usage()
	full := err == nil && allowed > 0 && used*100 >= allowed*acceptBelow
	g.mu.Lock()
	defer g.mu.Unlock()
	g.put(addr, reading{time.Now(), full})
	return full
}

// put is for the owner of mu.
func (g *gauge) put(addr string, r reading) {
	if g.seen == nil {
		g.seen = map[string]reading{}
	}
	g.seen[addr] = r
}
