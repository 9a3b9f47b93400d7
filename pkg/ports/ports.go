// Package ports hands out the port pairs of a realm's media range: an even port
// for RTP and the odd one above it for RTCP (M9).
//
// A pair that comes back is kept out of use for a time, and then goes to the end
// of a queue over the whole range: late packets of an ended call must not arrive
// in the middle of the next one.
package ports

import (
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// ErrExhausted means that every pair is in use or in quarantine.
var ErrExhausted = errors.New("no media port free")

// Pool holds the pairs of one range. Its methods may be called from any goroutine.
type Pool struct {
	quarantine time.Duration
	now        func() time.Time

	mu sync.Mutex
	// queue is a ring in the order in which pairs are handed out; as pairs enter it
	// in the order of their release, the head is always the one that rested longest.
	queue []pair
	head  int
	free  int
	// out has a bit per pair that is in use, so that a second Put is harmless.
	out  []bool
	base uint16
}

// pair is a free port pair.
type pair struct {
	port uint16
	// ready is when its quarantine ends.
	ready time.Time
}

// New returns a pool of all whole pairs in r from call.LowestMediaPort on. Quarantine is how long a released
// pair rests, 0 for not at all; now tells the time (time.Now outside tests).
//
// The first round over the range is in random order. A daemon that is started
// again would otherwise begin with the very ports that its predecessor's calls are
// still being sent to.
func New(r call.PortRange, quarantine time.Duration, now func() time.Time) *Pool {
	first, last := max(int(r.First), call.LowestMediaPort), int(r.Last)
	first += first % 2
	p := &Pool{quarantine: quarantine, now: now, base: uint16(first)}
	for port := first; port+1 <= last; port += 2 {
		p.queue = append(p.queue, pair{port: uint16(port)})
	}
	rand.Shuffle(len(p.queue), func(i, j int) {
		p.queue[i], p.queue[j] = p.queue[j], p.queue[i]
	})
	p.free = len(p.queue)
	p.out = make([]bool, len(p.queue))
	return p
}

// Get takes a pair and returns its even port; the port above belongs to the caller
// too. The error is ErrExhausted.
func (p *Pool) Get() (uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == 0 {
		return 0, ErrExhausted
	}
	next := p.queue[p.head]
	if !next.ready.IsZero() && p.now().Before(next.ready) {
		return 0, ErrExhausted
	}
	p.head = (p.head + 1) % len(p.queue)
	p.free--
	p.out[p.index(next.port)] = true
	return next.port, nil
}

// Reserve takes a certain pair, by its even port, as if Get had returned it: it is in use
// already by someone whom the pool does not know of. It reports whether the pair was there
// to take; one in quarantine is.
func (p *Pool) Reserve(port uint16) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range p.free {
		at := func(i int) *pair { return &p.queue[(p.head+i)%len(p.queue)] }
		if at(i).port != port {
			continue
		}
		// Those in front of it move up, so that the queue stays in its order.
		for ; i > 0; i-- {
			*at(i) = *at(i - 1)
		}
		p.head = (p.head + 1) % len(p.queue)
		p.free--
		p.out[p.index(port)] = true
		return true
	}
	return false
}

// Put gives a pair back by its even port. A port that is not in use is ignored.
func (p *Pool) Put(port uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.index(port)
	if port%2 != 0 || port < p.base || i >= len(p.out) || !p.out[i] {
		return
	}
	p.out[i] = false
	back := pair{port: port}
	if p.quarantine > 0 {
		back.ready = p.now().Add(p.quarantine)
	}
	p.queue[(p.head+p.free)%len(p.queue)] = back
	p.free++
}

// InUse is the number of pairs that are handed out now; those in quarantine are not.
func (p *Pool) InUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) - p.free
}

// Size is the number of pairs in the range.
func (p *Pool) Size() int { return len(p.out) }

func (p *Pool) index(port uint16) int { return int(port-p.base) / 2 }
