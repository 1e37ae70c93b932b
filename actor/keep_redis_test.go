package actor_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/signalbox-ci/signalbox/actor"
	"github.com/signalbox-ci/signalbox/lock"
	"github.com/signalbox-ci/signalbox/state"
	"github.com/signalbox-ci/signalbox/state/redis"
	"github.com/signalbox-ci/signalbox/state/redistest"
)

// Two processes drop subjects while both are told things of half of them: each mail is decided once, in the life it came
// to or in the next, and of the other half nothing is left.
func TestProcessesDropWhileMailComes(t *testing.T) {
	for name, start := range map[string]func() string{
		"one server": func() string { return redistest.Start(t, redistest.Options{}).URL() },
		"cluster":    func() string { return redistest.StartCluster(t, redistest.Options{}).URL() },
	} {
		t.Run(name, func(t *testing.T) { dropWhileMailComes(t, start()) })
	}
}

func dropWhileMailComes(t *testing.T, url string) {
	const told, silent = 150, 150
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var stores []*redis.Store
	var engines []*actor.Engine
	for range 2 {
		s, err := redis.Open(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		e := actor.New(s, lock.NewRedis(s.Client(), 5*time.Second), actor.Options{Poll: 20 * time.Millisecond})
		actor.Register(e, "script", &script{}, actor.KindOptions{})
		stores, engines = append(stores, s), append(engines, e)
	}
	of := func(i int) state.Subject {
		return state.Subject{Instance: "test", Project: "1", Kind: "script", Key: fmt.Sprint("k", i)}
	}
	long := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	doc := fmt.Appendf(nil, `{"format":1,"now":%q,"keep":1,"doc":{"Seen":["before"]}}`, long.Format(time.RFC3339))
	for i := range told + silent {
		if _, err := stores[0].Commit(ctx, state.Commit{
			Subject: of(i), Doc: doc, Wake: long, Index: []state.Index{{Name: "name", Label: of(i).Key}}, Journal: [][]byte{[]byte("line")},
		}); err != nil {
			t.Fatal(err)
		}
	}
	stop, end := context.WithCancel(ctx)
	ended := make(chan error, len(engines))
	for _, e := range engines {
		go func() { ended <- e.Run(stop) }()
	}
	for i := range told { // one after another, so that some are dropped before
		d := state.Delivery{Subject: of(i), ID: fmt.Sprint("test:x:", i), Kind: "note", Format: 1, Body: []byte("mail")}
		for _, e := range engines {
			if _, err := e.Tell(ctx, d); err != nil {
				t.Fatal(err)
			}
		}
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	lives := map[int]int{} // how many mails a subject has seen, to how many subjects
	for i := 0; i < told+silent; {
		v, err := actor.See(ctx, stores[1], of(i))
		if err != nil {
			t.Fatal(err)
		}
		var d tally
		if len(v.Doc) > 0 {
			if err := json.Unmarshal(v.Doc, &d); err != nil {
				t.Fatal(err)
			}
		}
		if i < told && v.Unread == 0 && slices.Contains(d.Seen, "mail") {
			if n := len(d.Seen); n > 2 || n == 2 && d.Seen[0] != "before" {
				t.Fatalf("%s has seen %v", of(i), d.Seen)
			}
			lives[len(d.Seen)]++
			i++
		} else if i >= told && len(v.Doc) == 0 {
			i++
		} else {
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s has seen %v: %+v", of(i), d.Seen, v)
			}
		}
	}
	t.Logf("mail came before the drop to %d, after it to %d", lives[2], lives[1])
	end()
	for range engines {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	rows, err := stores[0].List(ctx, "name", "", told+silent)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Errorf("listed still: %v", r)
	}
	look := func(ctx context.Context, c *goredis.Client) error {
		keys, err := c.Keys(ctx, "sb:*").Result()
		for _, k := range keys {
			for i := told; i < told+silent; i++ {
				if strings.HasSuffix(k, "/"+of(i).Key) {
					t.Errorf("left: %s", k)
				}
			}
		}
		return err
	}
	if c, cluster := stores[0].Client().(*goredis.ClusterClient); cluster {
		err = c.ForEachMaster(ctx, look)
	} else {
		err = look(ctx, stores[0].Client().(*goredis.Client))
	}
	if err != nil {
		t.Error(err)
	}
}
