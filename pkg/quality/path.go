package quality

import (
	"math"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Path is one direction of a call from mouth to ear, as far as a gateway can tell.
// Everything else has G.107's default values.
type Path struct {
	// Codec is the encoding name.
	Codec string
	// Delay is one way, mouth to ear.
	Delay time.Duration
	// Loss is the probability that a packet is not played out, 0 to 1.
	Loss float64
	// BurstRatio is how much longer bursts of loss are than random loss would make them;
	// 0 stands for 1.
	BurstRatio float64
}

// Default values' parts of R that neither delay nor loss change.
var (
	defaults        = Defaults()
	defaultNo       = defaults.noise()
	defaultRo       = 15 - 1.5*(defaults.SLR+defaultNo)
	defaultRoLessIs = defaultRo - defaults.simultaneous(defaultNo, defaultRo)
)

// R is the rating of the path, about 93 at best, and can be negative. It is false if nothing
// is published for the codec.
func (p Path) R() (float64, bool) {
	c, known := FindCodec(p.Codec)
	if !known {
		return 0, false
	}
	e := defaults
	e.Ta = max(0, milliseconds(p.Delay))
	e.T, e.Tr = e.Ta, 2*e.Ta
	loss := min(max(p.Loss, 0), 1)
	id := e.delay(defaultNo, defaultRo)
	return defaultRoLessIs - id - effective(c.Ie, c.Bpl, 100*loss, max(1, p.BurstRatio)), true
}

// MOS is the mean opinion score of the path, 1 to 4.5, or 0 if nothing is published for
// the codec.
func (p Path) MOS() float64 {
	r, known := p.R()
	if !known {
		return 0
	}
	return MOS(r)
}

// Leg is what is known of the stream that one side of a call sends.
type Leg struct {
	// Codec is the encoding name.
	Codec string
	// Stats are the stream's as it came to us.
	Stats call.FlowStats
	// Near is the report of the side that sends the stream, for its round trip.
	Near Report
	// Far is the report of the side that hears it; zero if it sends none.
	Far Report
}

// How a receiver is taken to play out what jitters.
//
// Delays beyond the shortest are taken to be exponentially distributed. The mean
// difference of two of them, which is what RFC 3550 calls jitter, is then the mean of the
// distribution, and exp(-b/jitter) of the packets come too late for a buffer of b. The
// buffer adapts: it holds six times the jitter (0.25 % come too late), within what phones
// and gateways are usually set to.
const (
	bufferPerJitter = 6
	minBuffer       = 40 * time.Millisecond
	maxBuffer       = 200 * time.Millisecond
)

// minPackets is a second of speech at 20 ms; a share of fewer says nothing.
const minPackets = 50

// MOS is the quality of what the side sends, as the other one hears it: 1 to 4.5. What
// happened before us is measured; what happened behind us counts as far as the other
// side reports it.
//
// Loss is what was lost before and behind us, and what comes too late for the other
// side's playout buffer. Delay is half of each round trip that is known, the buffer, and
// what the codec takes; a round trip that is not known counts as none.
//
// It is 0, not known, when less than a second of speech came or the codec has no
// published values. It allocates nothing.
func (l Leg) MOS() float64 {
	speech := speechPackets(l.Stats)
	received := speech - min(speech, l.Stats.Duplicated)
	if received < minPackets {
		return 0
	}
	c, known := FindCodec(l.Codec)
	if !known {
		return 0
	}
	lost := float64(l.Stats.Lost + l.Far.Behind)
	loss := min(1, lost/float64(received+l.Stats.Lost))
	buffer, late := playout(max(l.Stats.Jitter, l.Far.Jitter))
	return Path{
		Codec: l.Codec,
		Delay: (l.Near.RTT+l.Far.RTT)/2 + buffer + c.Delay,
		Loss:  1 - (1-loss)*(1-late),
	}.MOS()
}

// speechPackets leaves out the RTCP among the RTP.
func speechPackets(st call.FlowStats) uint64 { return st.Packets - min(st.Packets, st.Control) }

// playout is the length of the receiver's buffer for a jitter, and the share of packets
// that come too late for it.
func playout(jitter time.Duration) (buffer time.Duration, late float64) {
	if jitter <= 0 {
		return minBuffer, 0
	}
	buffer = min(max(bufferPerJitter*min(jitter, maxBuffer), minBuffer), maxBuffer)
	return buffer, math.Exp(-float64(buffer) / float64(jitter))
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
