package relay

import (
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// flow is an installed flow with its counters.
type flow struct {
	key call.FlowKey

	// mu is nearly never waited for: only the reader of one socket takes it for each
	// packet, and others look now and then.
	mu sync.Mutex
	// path changes as a whole when the flow is updated.
	path     *path
	latch    latch
	stats    call.FlowStats
	sequence sequence
	keyed    key
	// lastRTP and reported are when RTP came and RTCP was copied last, zero if never.
	lastRTP, reported time.Time
	ended             bool
}

func newFlow(key call.FlowKey) *flow {
	return &flow{key: key, stats: call.FlowStats{Key: key}}
}

// install puts the flow on a path, and returns the one that it leaves, or nil.
func (f *flow) install(p *path, now time.Time) (replaced *path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var was call.Latch
	if f.path != nil {
		was = f.path.flow.Latch
	}
	f.latch.follow(was, p.flow.Latch, now)
	replaced, f.path = f.path, p
	return replaced
}

func (f *flow) snapshot() call.FlowStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.counted()
}

// end returns the final counters and the path; nothing is counted after it.
func (f *flow) end() (call.FlowStats, *path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	return f.counted(), f.path
}

// counted is called with f.mu held.
func (f *flow) counted() call.FlowStats {
	s := f.stats
	s.Lost, s.Reordered, s.Duplicated = f.sequence.lost(f.sequence.got), f.sequence.reordered, f.sequence.duplicated
	s.SSRC, s.Jitter = f.sequence.ssrc, f.sequence.jitterTime()
	s.Remote = f.remote()
	return s
}
