package relay

import "time"

// maxDropout is how far ahead a sequence number may be and still continue a stream;
// maxMisorder is how far behind (RFC 3550 appendix A.1). Beyond them the sender has
// started its numbers anew.
const (
	maxDropout  = 3000
	maxMisorder = 100
)

// sequence keeps the reception statistics of a stream: what was expected against
// what came (RFC 3550 A.3) and the interarrival jitter (A.8).
type sequence struct {
	started bool
	ssrc    uint32
	base    uint32 // extended sequence number of the first packet
	max     uint32 // highest extended sequence number so far
	got     uint64 // packets since base
	// missed is what earlier parts of the stream lost, before the SSRC changed or
	// the numbers started anew.
	missed    uint64
	reordered uint64

	transit uint32
	jitter  uint32 // in timestamp units, times 16
	clock   uint32
}

// received takes in one packet; since is its arrival time, counted from the first.
func (s *sequence) received(ssrc uint32, seq uint16, timestamp uint32, since time.Duration, clock uint32) {
	switch ahead := seq - uint16(s.max); {
	case !s.started, ssrc != s.ssrc:
		s.restart(ssrc, seq)
	case ahead == 0:
		s.got++ // a duplicate: received, neither lost nor late
	case ahead < maxDropout:
		s.max += uint32(ahead)
		s.got++
	case ahead > 65535-maxMisorder:
		s.reordered++
		s.got++
	default:
		s.restart(ssrc, seq)
	}
	s.arrived(timestamp, since, clock)
}

// restart begins a new part of the stream; what the former one lost is kept.
func (s *sequence) restart(ssrc uint32, seq uint16) {
	missed, reordered, jitter, clock := s.lost(), s.reordered, s.jitter, s.clock
	// One turn ahead, so that a late packet right after the first is not below zero.
	first := 1<<16 + uint32(seq)
	*s = sequence{
		started: true, ssrc: ssrc, base: first, max: first, got: 1,
		missed: missed, reordered: reordered, jitter: jitter, clock: clock,
	}
}

// lost is expected minus received, never below 0 (duplicates may outweigh losses).
func (s *sequence) lost() uint64 {
	if !s.started {
		return 0
	}
	expected := uint64(s.max-s.base) + 1
	if expected <= s.got {
		return s.missed
	}
	return s.missed + expected - s.got
}

// arrived brings the jitter up to date. The first packet of a part has nothing to be
// compared with, nor has one whose clock is another than before.
func (s *sequence) arrived(timestamp uint32, since time.Duration, clock uint32) {
	if clock == 0 {
		return
	}
	units := uint64(since/time.Second)*uint64(clock) + uint64(since%time.Second)*uint64(clock)/uint64(time.Second)
	transit := uint32(units) - timestamp
	comparable := s.got > 1 && s.clock == clock
	d := int32(transit - s.transit)
	s.transit = transit
	if s.clock != clock {
		s.clock, s.jitter = clock, 0
	}
	if !comparable {
		return
	}
	// A sender's clock may jump, or lie: bounded so, the sum stays within its 32 bits.
	s.jitter += min(magnitude(d), 1<<27) - (s.jitter+8)>>4
}

func magnitude(d int32) uint32 {
	if d < 0 {
		return -uint32(d)
	}
	return uint32(d)
}

func (s *sequence) jitterTime() time.Duration {
	if s.clock == 0 {
		return 0
	}
	return time.Duration(s.jitter>>4) * time.Second / time.Duration(s.clock)
}
