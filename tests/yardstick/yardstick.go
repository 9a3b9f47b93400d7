// Package yardstick measures what this machine takes now for work of a known kind, so that a
// limit in time can be held against it: processors that are shared with others are slower by
// half from one minute to the next.
package yardstick

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Memory of live calls: so many objects of the size of a session's parts, anywhere on the heap.
const (
	objects = 100_000
	rounds  = 10
)

type object struct {
	next *object
	part [8][64]byte
}

// usual is what Memory's round takes on the machines that limits were set on, when they are calm.
const usual = 14 * time.Millisecond

// Memory tells how many times longer than usual it takes now to go from object to object through
// memory that no cache holds, never less than 1.
func Memory(t testing.TB) float64 {
	t.Helper()
	chain := make([]object, objects)
	order := rand.Perm(objects)
	for i, at := range order {
		chain[at].next = &chain[order[(i+1)%objects]]
	}
	took := Best(t, rounds, func() {
		o := &chain[0]
		for range objects {
			o.part[0][0]++
			o.part[4][0]++
			o = o.next
		}
	})
	t.Logf("the yardstick takes %s, usually %s", took.Round(10*time.Microsecond), usual)
	return max(1, float64(took)/float64(usual))
}

// Best is the least CPU time that the process needs for a round of work, whichever goroutines
// do it. The clock is the scheduler's: getrusage is behind by up to a tick.
func Best(t testing.TB, rounds int, round func()) time.Duration {
	t.Helper()
	least := time.Hour
	for range rounds {
		begun := used(t)
		round()
		least = min(least, used(t)-begun)
	}
	return least
}

func used(t testing.TB) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}
