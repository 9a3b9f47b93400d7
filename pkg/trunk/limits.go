package trunk

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Reason is why a trunk does not take a call. The higher, the nearer the call was to being
// taken.
type Reason uint8

const (
	// NotRefused takes the call.
	NotRefused Reason = iota
	// Unusable is a trunk that is out of service, or not in service yet.
	Unusable
	// Closed takes no new calls by its administrative state (T1).
	Closed
	// RealmRateExceeded and RateExceeded have had their max_rate of calls (T4).
	RealmRateExceeded
	RateExceeded
	// RealmFull and Full have their max_calls already (T3).
	RealmFull
	Full
	// RegisterRateExceeded is of REGISTER requests, never of calls (T5).
	RegisterRateExceeded

	reasons
)

var reasonNames = [reasons]string{"none", "out-of-service", "closed", "realm-rate", "rate", "realm-full", "full", "register-rate"}

func (r Reason) String() string { return reasonNames[r] }

// Refusal says why a call has no slot, and when the next one may have.
type Refusal struct {
	Reason     Reason
	RetryAfter time.Duration
}

// retryAfter a refusal that does not tell when it will be over (T3).
const retryAfter = 5 * time.Second

// Limit is what a realm allows all its trunks together (T3, T4).
type Limit struct {
	// Name of the realm.
	Name string
	// MaxCalls at once, both directions together; 0 is no limit.
	MaxCalls int
	// MaxRate of new calls, each direction by itself; zero is no limit.
	MaxRate call.Rate
}

// limits are those of a trunk or a realm in one generation, ready for use.
type limits struct {
	maxCalls int
	// every is the time between two calls at an even rate, 0 without one; span is that of
	// as many as may come at once.
	every, span time.Duration
}

func newLimits(maxCalls int, r call.Rate) limits {
	return limits{maxCalls, r.Every(), r.Every() * time.Duration(r.Burst())}
}

// quota is what the calls of a trunk or a realm have used, whatever the generation.
type quota struct {
	// slots holds the active calls, inbound ones in the upper half and outbound
	// ones in the lower: one word, so that the limit is on both together (T3)
	// and no reader sees half a change.
	slots   atomic.Uint64
	buckets [2]bucket
}

func newQuota() *quota {
	q := new(quota)
	for i := range q.buckets {
		q.buckets[i].due.Store(math.MinInt64)
	}
	return q
}

// active calls by direction.
func (q *quota) active() (in, out int) {
	held := q.slots.Load()
	return int(held >> 32), int(held & 0xffffffff)
}

func (q *quota) full(l *limits) bool {
	if l.maxCalls == 0 {
		return false
	}
	in, out := q.active()
	return in+out >= l.maxCalls
}

// one call in the word of slots.
func one(dir Direction) uint64 {
	if dir == In {
		return 1 << 32
	}
	return 1
}

// enter takes a slot, unless all are taken; forced takes one at any rate.
func (q *quota) enter(dir Direction, l *limits, forced bool) bool {
	for {
		held := q.slots.Load()
		if in, out := int(held>>32), int(held&0xffffffff); !forced && l.maxCalls > 0 && in+out >= l.maxCalls {
			return false
		}
		if q.slots.CompareAndSwap(held, held+one(dir)) {
			return true
		}
	}
}

func (q *quota) leave(dir Direction) { q.slots.Add(-one(dir)) }

// bucket bounds a rate by the generic cell rate algorithm (ITU-T I.371 annex A): one
// word says when the next call is due if calls came evenly.
type bucket struct{ due atomic.Int64 }

// slack is how much later than this call's another one's clock may have been read.
const slack = time.Second

// next is when a call after one that comes now would be due, and how long that is too
// early. What is due later than these limits can have brought about was so by others, and
// does not count.
func (l *limits) next(due, now time.Duration) (next, early time.Duration) {
	if due > now+2*l.span+slack {
		due = now
	}
	next = max(due, now) + l.every
	return next, next - l.span - now
}

// take lets a call in, or says how long the next one has to wait. now is the time since
// any fixed moment.
func (b *bucket) take(l *limits, now time.Duration) (wait time.Duration, ok bool) {
	if l.every == 0 {
		return 0, true
	}
	for {
		due := b.due.Load()
		next, early := l.next(time.Duration(due), now)
		if early > 0 {
			return early, false
		}
		if b.due.CompareAndSwap(due, int64(next)) {
			return 0, true
		}
	}
}

// give takes a call back that take has let in.
func (b *bucket) give(l *limits) {
	if l.every != 0 {
		b.due.Add(-int64(l.every))
	}
}

// early is how long take would have a call wait that comes now; not above 0 is not at all.
func (b *bucket) early(l *limits, now time.Duration) time.Duration {
	_, early := l.next(time.Duration(b.due.Load()), now)
	return early
}

// Acquire takes a slot for one call. Without one there is a refusal with its reason, which
// is counted, and release is nil. Otherwise release gives the slot back; calling it again
// does nothing. An emergency call is held up by no limit (T3), but a trunk that is closed
// has no new calls in. Calls out are for Hunt to lead to trunks that take them.
func (t *Trunk) Acquire(dir Direction, emergency bool) (release func(), refusal Refusal) {
	if refusal = t.admit(dir, emergency, time.Since(t.epoch)); refusal.Reason != NotRefused {
		t.totals[dir].refused[refusal.Reason].Add(1)
		return nil, refusal
	}
	var released atomic.Bool
	return func() {
		if released.CompareAndSwap(false, true) {
			t.quota.leave(dir)
			t.realm.quota.leave(dir)
		}
	}, Refusal{}
}

func (t *Trunk) admit(dir Direction, emergency bool, now time.Duration) Refusal {
	realm := t.realm
	switch {
	case dir == In && t.health.closed():
		return Refusal{Closed, retryAfter}
	case !t.quota.enter(dir, &t.limits, emergency):
		return Refusal{Full, retryAfter}
	case !realm.quota.enter(dir, &realm.limits, emergency):
		t.quota.leave(dir)
		return Refusal{RealmFull, retryAfter}
	case emergency:
		return Refusal{}
	}
	wait, ok := t.quota.buckets[dir].take(&t.limits, now)
	reason := RateExceeded
	if ok {
		if wait, ok = realm.quota.buckets[dir].take(&realm.limits, now); ok {
			return Refusal{}
		}
		t.quota.buckets[dir].give(&t.limits)
		reason = RealmRateExceeded
	}
	t.quota.leave(dir)
	realm.quota.leave(dir)
	return Refusal{reason, wait}
}

// open says what would refuse a call out now: Full, RateExceeded or nothing.
func (q *quota) open(l *limits, now time.Duration) Refusal {
	if q.full(l) {
		return Refusal{Full, retryAfter}
	}
	if l.every != 0 {
		if early := q.buckets[Out].early(l, now); early > 0 {
			return Refusal{RateExceeded, early}
		}
	}
	return Refusal{}
}
