// Package quality tells how good a call sounds (M11): it joins what both sides report by
// RTCP with what an engine has counted, and rates the result by the E-model.
//
// For each side the package media does
//
//	near, far := reports.Of(side, other, rate), reports.Of(side.Other(), stats, rate)
//	mos := quality.Leg{Codec: "PCMA", Stats: stats, Near: near, Far: far}.MOS()
//
// with stats of the RTP flow that the side sends, and other those of the opposite one.
package quality

import (
	"errors"
	"fmt"
	"time"

	"github.com/pion/rtcp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// ErrBadRTCP means that a packet is not RTCP, or ends before its own length says.
var ErrBadRTCP = errors.New("bad RTCP")

// Bounds on what a peer can make us keep and believe.
const (
	// senderReports kept per side: RTCP comes in 5 s, and answers to all of them within a few.
	senderReports = 8
	// sources kept per side; a stream has one, until its sender changes it.
	sources = 4
	// maxRTT and maxJitter are beyond any call that somebody holds.
	maxRTT    = 10 * time.Second
	maxJitter = 10 * time.Second
)

// Reports joins the RTCP of a call's two sides, as it passes the gateway in between. The
// zero value has seen none. It keeps a fixed amount, whatever comes, and is not safe for
// concurrent use.
//
// It needs no clock but ours: a sender report of one side passes at t1, and the other
// side says how long it has held it (DLSR) in the report that passes at t2. What is left
// of t2-t1 is the round trip between us and that other side (RFC 3550 section 6.4.1).
type Reports struct {
	sides [2]side
}

// side is what one side has sent.
type side struct {
	// sent is a ring of sender reports that passed us, next the oldest of them.
	sent [senderReports]senderReport
	next int
	// heard are the sources that the side reports on; latest is the one that it did last.
	heard  [sources]source
	latest int
	rtt    time.Duration
}

type senderReport struct {
	ssrc uint32
	// ntp is the middle 32 bits of the timestamp, which a receiver gives back as LSR.
	ntp uint32
	at  time.Time
}

// source is what a side says of one stream that it receives.
type source struct {
	ssrc uint32
	// at is zero if there is none.
	at       time.Time
	lost     uint32
	fraction uint8
	// jitter is in units of the stream's clock.
	jitter uint32
}

// Report is what one side of a call says of the stream that it hears.
type Report struct {
	// Lost is how many packets the side misses since the start, wherever they were lost;
	// never more than there were.
	Lost uint64
	// Behind is how many of them had come to us: lost between us and the side. Packets that
	// we dropped while the side was on hold in the old form (call.Flow.Hold) count among them
	// if the side goes on counting over the hold.
	Behind uint64
	// Fraction of the packets that was lost in the last interval, 0 to 1.
	Fraction float64
	// Jitter as of the last report (RFC 3550 section 6.4.1); 0 if the clock rate is not known.
	Jitter time.Duration
	// RTT is the round trip between us and the side, smoothed; 0 is not known.
	RTT time.Duration
}

// Add takes RTCP that a side sent, and when it came: a whole datagram, or its first
// call.MaxReport bytes. What stands before an error counts. packet is not kept.
func (r *Reports) Add(from call.Side, packet []byte, at time.Time) error {
	packet = packet[:min(len(packet), call.MaxReport)]
	for len(packet) > 0 {
		var header rtcp.Header
		if err := header.Unmarshal(packet); err != nil {
			return fmt.Errorf("%w: %w", ErrBadRTCP, err)
		}
		length := 4 * (int(header.Length) + 1)
		if length > len(packet) {
			return fmt.Errorf("%w: %v says it has %d bytes, %d are there", ErrBadRTCP, header.Type, length, len(packet))
		}
		// Types that carry no reception reports are none of our concern, well-formed or not.
		switch header.Type {
		case rtcp.TypeSenderReport:
			var sr rtcp.SenderReport
			if err := sr.Unmarshal(packet[:length]); err != nil {
				return fmt.Errorf("%w: %w", ErrBadRTCP, err)
			}
			r.sides[from].sending(senderReport{sr.SSRC, uint32(sr.NTPTime >> 16), at})
			r.hearing(from, sr.Reports, at)
		case rtcp.TypeReceiverReport:
			var rr rtcp.ReceiverReport
			if err := rr.Unmarshal(packet[:length]); err != nil {
				return fmt.Errorf("%w: %w", ErrBadRTCP, err)
			}
			r.hearing(from, rr.Reports, at)
		}
		packet = packet[length:]
	}
	return nil
}

// Of is what a side reports of the stream that it hears. heard are that stream's
// statistics as it came to us from the other side, clockRate is the codec's, in Hz.
func (r *Reports) Of(side call.Side, heard call.FlowStats, clockRate uint32) Report {
	s := &r.sides[side]
	report := Report{RTT: s.rtt}
	latest := &s.heard[s.latest]
	if latest.at.IsZero() {
		return report
	}
	for i := range s.heard {
		report.Lost += uint64(s.heard[i].lost)
	}
	report.Lost = min(report.Lost, speechPackets(heard)+heard.Lost)
	report.Behind = report.Lost - min(report.Lost, heard.Lost)
	report.Fraction = float64(latest.fraction) / 256
	if clockRate > 0 {
		jitter := time.Duration(uint64(latest.jitter) * uint64(time.Second) / uint64(clockRate))
		if jitter <= maxJitter {
			report.Jitter = jitter
		}
	}
	return report
}

func (s *side) sending(sr senderReport) {
	s.sent[s.next] = sr
	s.next = (s.next + 1) % senderReports
}

// hearing takes the report blocks of a side.
func (r *Reports) hearing(from call.Side, blocks []rtcp.ReceptionReport, at time.Time) {
	s, other := &r.sides[from], &r.sides[from.Other()]
	for _, block := range blocks {
		s.latest = s.find(block.SSRC)
		heard := &s.heard[s.latest]
		heard.at = at
		heard.fraction, heard.jitter = block.FractionLost, block.Jitter
		// 24 bits with a sign: duplicates make it negative.
		if lost := int32(block.TotalLost<<8) >> 8; lost > 0 {
			heard.lost = max(heard.lost, uint32(lost))
		}
		if rtt, ok := other.roundTrip(block, at); ok {
			s.measured(rtt)
		}
	}
}

// find returns the place of a source, the one that was reported on the longest ago if it
// is a new one.
func (s *side) find(ssrc uint32) int {
	oldest := 0
	for i := range s.heard {
		if !s.heard[i].at.IsZero() && s.heard[i].ssrc == ssrc {
			return i
		}
		if s.heard[i].at.Before(s.heard[oldest].at) {
			oldest = i
		}
	}
	s.heard[oldest] = source{ssrc: ssrc}
	return oldest
}

// roundTrip is what a block of the other side says about a sender report of this one,
// and false if there was none or the time cannot be true.
func (s *side) roundTrip(block rtcp.ReceptionReport, at time.Time) (time.Duration, bool) {
	if block.LastSenderReport == 0 {
		return 0, false
	}
	for i := range s.sent {
		sr := &s.sent[i]
		if sr.at.IsZero() || sr.ntp != block.LastSenderReport || sr.ssrc != block.SSRC {
			continue
		}
		held := time.Duration(uint64(block.Delay) * uint64(time.Second) >> 16)
		rtt := at.Sub(sr.at) - held
		return rtt, rtt > 0 && rtt <= maxRTT
	}
	return 0, false
}

// measured smooths the round trip as TCP does (RFC 6298 section 2): one report that was
// late in the peer's own queues is no longer path.
func (s *side) measured(rtt time.Duration) {
	if s.rtt == 0 {
		s.rtt = rtt
		return
	}
	s.rtt += (rtt - s.rtt) / 8
}
