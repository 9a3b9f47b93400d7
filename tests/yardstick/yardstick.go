// Package yardstick holds limits in time against what this machine takes now for work of a known
// kind: processors that are shared with others are slower by half from one minute to the next.
package yardstick

import (
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Memory of live calls: so many objects of the size of a session's parts, anywhere on the heap.
const objects = 100_000

type object struct {
	next *object
	part [8][64]byte
}

const (
	// usual is what a walk takes on the machines that limits were set on, when they are calm.
	usual  = 10 * time.Millisecond
	rounds = 10
)

// Holds checks that a piece of work that visits the memory of live calls needs no more CPU time
// than a limit, or as many times more as it takes now to walk from object to object through
// memory that no cache holds. Whichever goroutines do the work, the best of ten rounds counts, and
// each is taken beside a walk.
func Holds(t testing.TB, what string, limit time.Duration, work func()) {
	t.Helper()
	chain := make([]object, objects)
	order := rand.Perm(objects)
	for i, at := range order {
		chain[at].next = &chain[order[(i+1)%objects]]
	}
	runtime.GC() // what came before is no part of the work
	best, walk := time.Hour, time.Hour
	for range rounds {
		walk = min(walk, cpuTime(t, func() {
			o := &chain[0]
			for range objects {
				o.part[0][0]++
				o.part[4][0]++
				o = o.next
			}
		}))
		best = min(best, cpuTime(t, work))
	}
	allowed := time.Duration(float64(limit) * max(1, float64(walk)/float64(usual)))
	t.Logf("%s takes %s of CPU; %s are allowed now, for the yardstick takes %s and usually %s", what,
		best.Round(10*time.Microsecond), allowed.Round(10*time.Microsecond), walk.Round(10*time.Microsecond), usual)
	if best > allowed {
		t.Errorf("%s takes %s of CPU, more than %s", what, best, allowed)
	}
}

// cpuTime is what the process uses for a piece of work. The clock is the scheduler's: getrusage is
// behind by up to a tick.
func cpuTime(t testing.TB, work func()) time.Duration {
	t.Helper()
	begun := used(t)
	work()
	return used(t) - begun
}

func used(t testing.TB) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}
