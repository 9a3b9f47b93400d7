package relay

import "time"

// The limits of the statistics, which are those of the kernel engine
// (bpf/include/tandem/statistics.h): both engines give the same numbers for the same packets.
const (
	// maxDropout is from how far ahead a sequence number no longer continues a
	// stream, maxMisorder from how far behind (RFC 3550 appendix A.1).
	maxDropout  = 3000
	maxMisorder = 100
	// maxJitterTicks is from where a step of the timestamp is a new start, not time
	// that passed; maxTransit is what one packet may add to the jitter.
	maxJitterTicks = 1 << 20
	maxTransit     = 250 * time.Millisecond
	// offset keeps packets that are late for the very first one above zero.
	offset = 1 << 16
)

// sequence keeps the reception statistics of a stream: what was expected against
// what came (RFC 3550 A.1, A.3), and the interarrival jitter (A.8).
type sequence struct {
	running bool
	ssrc    uint32
	highest uint32 // extended sequence number, with offset
	base    uint32 // likewise, the lowest of this run
	got     uint64 // packets of this run, without duplicates
	// seen has a bit for each sequence number that came, bit 0 for highest, bit 1 for
	// the one below it.
	seen uint64
	// suspect is the sequence number that would prove that the sender has started
	// anew, plus 1; 0 is none.
	suspect uint32
	// before is what the runs before this one lost.
	before                uint64
	reordered, duplicated uint64

	// timestamp came at arrival, which is counted from the flow's first packet.
	referenced bool
	timestamp  uint32
	arrival    time.Duration
	jitter     uint32 // ns, times 16
}

// received takes in one packet, which came at now. clock is in Hz, 0 for no jitter.
func (s *sequence) received(ssrc uint32, seq uint16, timestamp uint32, now time.Duration, clock uint32) {
	delta := int16(seq - uint16(s.highest))
	switch {
	case !s.running, ssrc != s.ssrc:
		s.start(ssrc, seq, s.got)
	case delta > 0 && delta < maxDropout:
		s.highest += uint32(delta)
		s.seen = s.seen<<delta | 1
	case delta <= 0 && delta > -maxMisorder:
		s.late(uint32(-delta))
	case s.suspect == uint32(seq)+1:
		// Two in a row: the sender has started anew, and the one before belongs to it.
		s.start(ssrc, seq-1, s.got)
		s.highest++
		s.got, s.seen = 1, 3
	default:
		s.suspect = uint32(seq+1) + 1
		s.got-- // a stray makes up for no loss
	}
	s.got++
	if clock != 0 {
		s.arrived(timestamp, now, clock)
	}
}

// late takes in a packet of the run that came after one that is back packets later, or
// after itself. One that came before was received then: it makes up for no loss.
func (s *sequence) late(back uint32) {
	bit := uint64(1) << back // 0 from 64 on: too old to tell
	if s.seen&bit != 0 {
		s.duplicated++
		s.got-- // received counts it
		return
	}
	s.seen |= bit
	s.reordered++
	s.base = min(s.base, s.highest-back)
}

// start closes a run of sequence numbers of which got packets came, and begins one
// whose first packet is first.
func (s *sequence) start(ssrc uint32, first uint16, got uint64) {
	s.before = s.lost(got)
	s.running, s.ssrc, s.suspect = true, ssrc, 0
	s.base, s.highest = offset+uint32(first), offset+uint32(first)
	s.got, s.seen, s.referenced = 0, 1, false
}

// lost is expected minus received over all runs, if got packets of this one came.
// It is never below 0: duplicates do not make up for another run's loss.
func (s *sequence) lost(got uint64) uint64 {
	if !s.running {
		return 0
	}
	expected := uint64(s.highest-s.base) + 1
	return s.before + expected - min(expected, got)
}

// arrived brings the jitter up to date. Packets that repeat a timestamp (the updates
// of one telephone-event, RFC 4733) say nothing of the network and are passed over.
func (s *sequence) arrived(timestamp uint32, now time.Duration, clock uint32) {
	ticks := int32(timestamp - s.timestamp)
	if s.referenced {
		if ticks == 0 {
			return
		}
		if -maxJitterTicks < ticks && ticks < maxJitterTicks {
			sent := time.Duration(ticks) * time.Second / time.Duration(clock)
			transit := min((now - s.arrival - sent).Abs(), maxTransit)
			s.jitter += uint32(transit) - (s.jitter+8)>>4
		}
	}
	s.referenced, s.timestamp, s.arrival = true, timestamp, now
}

func (s *sequence) jitterTime() time.Duration { return time.Duration(s.jitter >> 4) }
