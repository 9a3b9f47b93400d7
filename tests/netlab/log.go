package netlab

import (
	"net/netip"
	"slices"
	"time"
)

// Log is what a capture saw on its interface.
type Log struct {
	Host string
	// Streams by what tells them apart on one interface.
	Streams map[StreamKey]*Stream
	// Messages are SIP, in the order of the wire.
	Messages []Message
	// RTCP and Other count the rest of UDP, fragments left out.
	RTCP, Other uint64
	// Wire counts every frame, of captures by [Lab.CaptureWire].
	Wire Census
}

// StreamKey identifies an RTP stream at one interface. Out is true for what the host
// sent.
type StreamKey struct {
	Src, Dst netip.AddrPort
	SSRC     uint32
	Out      bool
}

// Stream is the packets of one RTP stream, in the order of the wire.
type Stream struct {
	Packets []Packet

	// Running figures of RFC 3550 A.3 and A.8, in units of the clock.
	first, highest int64
	seen           int64
	transit        float64
	jitter         float64
}

// Packet is one RTP packet.
type Packet struct {
	Time        time.Time
	Seq         uint16
	Timestamp   uint32
	PayloadType uint8
	Marker      bool
	DSCP, TTL   uint8
	// ChecksumOK covers the IPv4 header and UDP with its payload.
	ChecksumOK bool
	// Payload is all that follows the fixed header.
	Payload []byte
}

// Totals are a capture's counts of RTP.
type Totals struct {
	// Sent and Received are packets that left and reached the host.
	Sent, Received uint64
	// Missing is expected minus received over all streams that reach the host, by
	// sequence number (RFC 3550 A.3): what was lost before the last packet that came.
	Missing uint64
	// Jitter is the mean over the streams that reach the host (RFC 3550 A.8), and
	// MaxJitter that of the worst, for a clock of 8 kHz.
	Jitter, MaxJitter time.Duration
}

// Merge puts together what captures at several devices of one host saw: the tunnels that the
// same calls pass.
func Merge(logs ...*Log) *Log {
	all := newLog(logs[0].Host)
	for _, log := range logs {
		all.Messages = append(all.Messages, log.Messages...)
		all.RTCP += log.RTCP
		all.Other += log.Other
	}
	slices.SortStableFunc(all.Messages, func(a, b Message) int { return a.Time.Compare(b.Time) })
	packets := map[StreamKey][]Packet{}
	for _, log := range logs {
		for key, s := range log.Streams {
			packets[key] = append(packets[key], s.Packets...)
		}
	}
	for key, of := range packets {
		slices.SortStableFunc(of, func(a, b Packet) int { return a.Time.Compare(b.Time) })
		s := &Stream{}
		for _, p := range of {
			s.add(p)
		}
		all.Streams[key] = s
	}
	return &all
}

// gap is the longest time without a packet of the stream, of those that are not over at from
// and begin before until. After the last packet it goes on until ended, when its sender ends.
func (s *Stream) gap(from, until, ended time.Time) time.Duration {
	var longest time.Duration
	for i := range s.Packets {
		begin, end := s.Packets[i].Time, ended
		if i+1 < len(s.Packets) {
			end = s.Packets[i+1].Time
		}
		if end.After(from) && begin.Before(until) {
			longest = max(longest, end.Sub(begin))
		}
	}
	return longest
}

// clockRate of the narrow-band codecs that the lab speaks, in Hz (RFC 3551).
const clockRate = 8000

func newLog(host string) Log {
	return Log{Host: host, Streams: make(map[StreamKey]*Stream)}
}

// add takes an Ethernet frame, or with bare an IP packet from a device without link layer.
func (l *Log) add(at time.Time, out, bare bool, frame []byte) {
	parse := parseUDP
	if bare {
		parse = parseUDPv4
	}
	d, ok := parse(frame)
	if !ok {
		return
	}
	switch classify(d.payload) {
	case kindRTP:
		l.addRTP(at, out, d)
	case kindRTCP:
		l.RTCP++
	case kindSIP:
		if m, ok := parseSIP(at, out, d); ok {
			l.Messages = append(l.Messages, m)
		}
	case kindOther:
		l.Other++
	}
}

func (l *Log) addRTP(at time.Time, out bool, d datagram) {
	h, ok := parseRTP(d.payload)
	if !ok {
		l.Other++
		return
	}
	key := StreamKey{Src: d.src, Dst: d.dst, SSRC: h.ssrc, Out: out}
	s := l.Streams[key]
	if s == nil {
		s = &Stream{Packets: make([]Packet, 0, 256)}
		l.Streams[key] = s
	}
	s.add(Packet{
		Time:        at,
		Seq:         h.seq,
		Timestamp:   h.timestamp,
		PayloadType: h.payloadType,
		Marker:      h.marker,
		DSCP:        d.dscp,
		TTL:         d.ttl,
		ChecksumOK:  d.checksumOK,
		Payload:     append([]byte(nil), h.payload...),
	})
}

func (s *Stream) add(p Packet) {
	arrival := float64(p.Time.UnixNano()) * clockRate / 1e9
	transit := arrival - float64(p.Timestamp)
	if len(s.Packets) == 0 {
		s.first, s.highest = int64(p.Seq), int64(p.Seq)
	} else {
		s.highest = max(s.highest, extend(s.highest, p.Seq))
		d := transit - s.transit
		s.jitter += (max(d, -d) - s.jitter) / 16
	}
	s.transit = transit
	s.seen++
	s.Packets = append(s.Packets, p)
}

// extend gives a sequence number the cycle that brings it nearest to the highest so far.
func extend(highest int64, seq uint16) int64 {
	return highest + int64(int16(seq-uint16(highest)))
}

// Jitter of the stream as it passed the interface (RFC 3550 A.8).
func (s *Stream) Jitter() time.Duration {
	return time.Duration(s.jitter / clockRate * float64(time.Second))
}

// Totals counts the log's RTP.
func (l *Log) Totals() Totals {
	var t Totals
	streams := 0
	for key, s := range l.Streams {
		if key.Out {
			t.Sent += uint64(s.seen)
			continue
		}
		t.Received += uint64(s.seen)
		t.Missing += uint64(max(0, s.highest-s.first+1-s.seen))
		t.Jitter += s.Jitter()
		t.MaxJitter = max(t.MaxJitter, s.Jitter())
		streams++
	}
	if streams > 0 {
		t.Jitter /= time.Duration(streams)
	}
	return t
}
