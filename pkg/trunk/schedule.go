package trunk

import "time"

// Without an interval of its own a trunk has one of 25 s to 35 s, by its name (T6).
const (
	shortestInterval = 25 * time.Second
	intervalSpread   = 10 * time.Second
)

// rhythm is when the targets of a trunk are probed as long as nothing is the matter. It hangs on
// the name and the clock alone: neither a restart nor an outage of many trunks brings them into step.
type rhythm struct{ interval, offset time.Duration }

// newRhythm spreads trunks by the FNV-1a hash of their names; an interval of 0 is chosen by it too.
func newRhythm(name string, interval time.Duration) rhythm {
	sum := fnv(name)
	if interval <= 0 {
		interval = shortestInterval + time.Duration(sum%uint64(intervalSpread))
	}
	// Names that differ in their last letter only have sums that are near each other.
	return rhythm{interval, time.Duration(mix(sum) % uint64(interval))}
}

// next is the time of the next probe of target i of n, which take turns within the interval. It
// is after now, and at most the interval later.
func (r rhythm) next(now time.Time, i, n int) time.Time {
	phase := int64(r.offset) + int64(r.interval)*int64(i)/int64(max(n, 1))
	past := (now.UnixNano() - phase) % int64(r.interval)
	if past < 0 {
		past += int64(r.interval)
	}
	return now.Add(r.interval - time.Duration(past))
}

// item is a trunk in the queue of the supervisor.
type item struct {
	*Trunk
	// due is when something is to be done for the trunk, other than what it waits for.
	due time.Time
	// waits: it has a probe due, and stands in line for it.
	waits bool
	// index in the queue.
	index int
	// state that was logged last.
	state string
}

// queue is a heap by due (container/heap).
type queue []*item

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	it := x.(*item)
	it.index = len(*q)
	*q = append(*q, it)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	old := *q
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return it
}
