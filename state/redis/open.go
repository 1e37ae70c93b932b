package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	dialTimeout = 2 * time.Second
	readTimeout = 3 * time.Second
	// connections per server: as many as there are turns in a process, and some for accepting beside them.
	poolSize = 80
)

// Open connects to the Redis that url names and refuses one on which Signalbox's promises would not hold: older than
// 7.0 (Valkey 7.2), with an eviction policy other than noeviction, or of another kind than the scheme says.
//
//	redis://[user:password@]host[:port][/db]                              one server
//	redis-cluster://[user:password@]host[:port][,host[:port]…]            a cluster; the hosts are where to begin
//	redis-sentinel://[user:password@]host[:port][,…]/name[?db=n]          the master that these sentinels call name
//
// With rediss for redis everything goes over TLS. Ports are 6379 where none is given, 26379 for sentinels. User and
// password are the servers', not the sentinels'; special characters are percent-encoded. Errors never show them.
func Open(ctx context.Context, url string) (*Store, error) {
	t, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("store URL: %w", err)
	}
	if err := t.check(ctx); err != nil {
		return nil, fmt.Errorf("open %s: %w", t, err)
	}
	s, err := newStore(t.client())
	if err != nil {
		return nil, err
	}
	err = s.eachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
		i, err := infoOf(ctx, c)
		if err != nil {
			return err
		}
		return i.suitable(c.Options().Addr)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", t, err), s.Close())
	}
	return s, nil
}

// target is a parsed URL.
type target struct {
	kind           string // "", "cluster" or "sentinel"
	tls            bool
	hosts          []string
	user, password string
	master         string // sentinel only
	db             int
}

// String is the URL without user and password.
func (t *target) String() string {
	v := t.scheme() + "://" + strings.Join(t.hosts, ",")
	if t.master != "" {
		v += "/" + t.master
	}
	return v
}

func (t *target) scheme() string {
	v := "redis"
	if t.tls {
		v = "rediss"
	}
	if t.kind != "" {
		v += "-" + t.kind
	}
	return v
}

// parseURL is written by hand because net/url knows no lists of hosts and shows the password in its errors.
func parseURL(v string) (*target, error) {
	scheme, rest, ok := strings.Cut(v, "://")
	if !ok {
		return nil, errors.New("expected redis://, redis-cluster:// or redis-sentinel://, or the same with rediss")
	}
	t := &target{}
	base, kind, _ := strings.Cut(scheme, "-")
	if base != "redis" && base != "rediss" || kind == "" && base != scheme || kind != "" && kind != "cluster" && kind != "sentinel" {
		return nil, fmt.Errorf("unknown scheme %q: expected redis, redis-cluster or redis-sentinel, or the same with rediss", scheme)
	}
	t.tls, t.kind = base == "rediss", kind
	rest, query, _ := strings.Cut(rest, "?")
	authority, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		user, password, _ := strings.Cut(authority[:at], ":")
		var err1, err2 error
		t.user, err1 = url.PathUnescape(user)
		t.password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return nil, errors.New("user or password is badly percent-encoded")
		}
		authority = authority[at+1:]
	}
	port := "6379"
	if kind == "sentinel" {
		port = "26379"
	}
	for _, h := range strings.Split(authority, ",") {
		host, p, err := net.SplitHostPort(h)
		if err != nil {
			host, p, err = net.SplitHostPort(h + ":" + port)
		}
		if err != nil || host == "" {
			return nil, fmt.Errorf("%q is no host:port", h)
		}
		t.hosts = append(t.hosts, net.JoinHostPort(host, p))
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("the part after ? is badly encoded")
	}
	db := params.Get("db")
	for name := range params {
		if name != "db" {
			return nil, fmt.Errorf("unknown parameter %q: only db is known", name)
		}
	}
	switch kind {
	case "":
		if len(t.hosts) > 1 {
			return nil, errors.New("one host for redis://; several are redis-cluster:// or redis-sentinel://")
		}
		if db == "" {
			db = path
		} else if path != "" {
			return nil, errors.New("the database is given twice")
		}
	case "cluster":
		if path != "" || db != "" {
			return nil, errors.New("a cluster has no numbered databases")
		}
	case "sentinel":
		if t.master, err = url.PathUnescape(path); err != nil || t.master == "" {
			return nil, errors.New("the sentinels' name of the master is missing: redis-sentinel://host,host/name")
		}
	}
	if db != "" {
		if t.db, err = strconv.Atoi(db); err != nil || t.db < 0 {
			return nil, fmt.Errorf("%q is no database number", db)
		}
	}
	return t, nil
}

// options are the settings that all kinds share.
func (t *target) options() *redis.UniversalOptions {
	o := &redis.UniversalOptions{
		Addrs: t.hosts, MasterName: t.master, IsClusterMode: t.kind == "cluster", DB: t.db,
		Username: t.user, Password: t.password,
		// Without it go-redis ignores deadlines on the socket, and a server that hangs holds every caller.
		ContextTimeoutEnabled: true,
		DialTimeout:           dialTimeout, ReadTimeout: readTimeout, WriteTimeout: readTimeout,
		// Commands are sent again anyway; a dial that is repeated inside each of these would only add up.
		DialerRetries:            1,
		PoolSize:                 poolSize,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if t.tls {
		o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return o
}

func (t *target) client() redis.UniversalClient {
	o := t.options()
	switch t.kind {
	case "cluster":
		return redis.NewClusterClient(o.Cluster())
	case "sentinel":
		return redis.NewFailoverClient(o.Failover())
	}
	return redis.NewClient(o.Simple())
}

// check asks the hosts what they are, before a client for the wrong kind gives an error that nobody understands.
func (t *target) check(ctx context.Context) error {
	var failed error
	for _, host := range t.hosts {
		o := t.options()
		if t.kind == "sentinel" {
			o.Username, o.Password, o.DB = "", "", 0
		}
		o.Addrs = []string{host}
		c := redis.NewClient(o.Simple())
		i, err := infoOf(ctx, c)
		_ = c.Close() // nothing was written
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", host, err))
			continue
		}
		is, plain := "redis", "a server by itself"
		if i["cluster_enabled"] == "1" {
			is, plain = "redis-cluster", "a node of a cluster"
		} else if i["redis_mode"] == "sentinel" {
			is, plain = "redis-sentinel", "a sentinel"
		}
		if said := strings.Replace(t.scheme(), "rediss", "redis", 1); said != is {
			return fmt.Errorf("the URL says %s, but %s is %s: use %s", said, host, plain, is)
		}
		return nil
	}
	return failed
}
