package relay

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	rtpHeader  = 12 // bytes, RFC 3550 section 5.1
	rtcpHeader = 8  // bytes of header and one SSRC, RFC 3550 section 6.4.2
)

// flow is an installed flow with its counters.
type flow struct {
	key call.FlowKey
	// path changes as a whole when the flow is updated.
	path atomic.Pointer[path]

	// mu is nearly never waited for: only the reader of one socket counts, and
	// others look now and then.
	mu       sync.Mutex
	stats    call.FlowStats
	sequence sequence
	ended    bool
}

func newFlow(key call.FlowKey) *flow {
	return &flow{key: key, stats: call.FlowStats{Key: key}}
}

// isRTCP tells the packet types that no RTP payload type may look like (RFC 5761
// section 4).
func isRTCP(packet []byte) bool { return packet[1] >= 192 && packet[1] <= 223 }

// plausible reports whether a packet can be what its port is for. RTCP on the RTP
// port is let through: some peers multiplex unasked (RFC 5761).
func plausible(packet []byte, rtcp bool) bool {
	if len(packet) < rtcpHeader || packet[0]>>6 != 2 {
		return false
	}
	if rtcp || isRTCP(packet) {
		return isRTCP(packet)
	}
	return len(packet) >= rtpHeader+4*int(packet[0]&0x0f) // the header and its CSRCs
}

// received counts a packet that was let in; it reports whether it is the first.
func (f *flow) received(packet []byte, def *call.Flow, now time.Time) (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return false
	}
	first = f.stats.Packets == 0
	if first {
		f.stats.First = now
	}
	f.stats.Last = now
	f.stats.Packets++
	f.stats.Bytes += uint64(len(packet))
	if !isRTCP(packet) {
		f.sequence.received(
			binary.BigEndian.Uint32(packet[8:]),
			binary.BigEndian.Uint16(packet[2:]),
			binary.BigEndian.Uint32(packet[4:]),
			now.Sub(f.stats.First), def.ClockRate)
	}
	return first
}

// refused counts a packet of a foreign source; it reports whether it is the first.
func (f *flow) refused() (first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stats.Refused++
	return f.stats.Refused == 1
}

func (f *flow) snapshot() call.FlowStats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Lost, s.Reordered, s.Jitter = f.sequence.lost(f.sequence.got), f.sequence.reordered, f.sequence.jitterTime()
	return s
}

// end returns the final counters; nothing is counted after it.
func (f *flow) end() call.FlowStats {
	f.mu.Lock()
	f.ended = true
	f.mu.Unlock()
	return f.snapshot()
}
