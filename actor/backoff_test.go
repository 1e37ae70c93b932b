package actor

import (
	"testing"
	"time"
)

// The distances of the table of failures in docs/rules.md.
func TestBackoffs(t *testing.T) {
	const samples = 2000
	for n := 1; n <= 40; n++ {
		want := 6 * time.Hour
		if n <= 15 {
			want = time.Second << (n - 1)
		}
		for range samples {
			if d := tryBackoff(n); d < want*8/10 || d > want*12/10 {
				t.Fatalf("try %d waits %v, want %v ± 20%%", n, d, want)
			}
		}
	}
	for k := 1; k <= 40; k++ {
		most := 30 * time.Second
		if k <= 7 {
			most = 250 * time.Millisecond << (k - 1)
		}
		var least, longest time.Duration = time.Hour, 0
		for range samples {
			d := contentionBackoff(k)
			least, longest = min(least, d), max(longest, d)
		}
		if least <= 0 || least > most/10 || longest > most+time.Millisecond || longest < most*9/10 {
			t.Errorf("contention %d waits %v to %v, want anything up to %v", k, least, longest, most)
		}
	}
	for n, want := range map[int]time.Duration{1: 0, 2: 10 * time.Second, 3: time.Minute, 4: 5 * time.Minute} {
		if d := crashBackoff(n); d != want {
			t.Errorf("crash %d waits %v, want %v", n, d, want)
		}
	}
	for n, want := range map[int]time.Duration{1: 0, 2: 10 * time.Second, 3: time.Minute} {
		if d := panicBackoff(n); d != want {
			t.Errorf("panic %d waits %v, want %v", n, d, want)
		}
	}
}
