package media

import (
	"net/netip"
	"time"
)

// Terms are what the trunk of one side asks of its media.
type Terms struct {
	// Codecs that the trunk allows, in any spelling; empty allows all (M4).
	Codecs []string
	// DTMF is how keys travel on the trunk; EventType is the payload type that it is
	// offered telephone-event with, 96-127, and 0 is 101 (M5).
	DTMF      DTMF
	EventType uint8
	Latch     LatchTerms
	// Idle ends a two-way call in which neither side has sent anything for that long,
	// IdleOneWay one in which who should send has not (M8). 0 is never. Of both sides'
	// terms the shorter time counts.
	Idle, IdleOneWay time.Duration
}

// DTMF is how keys travel (M5).
type DTMF uint8

// The ways that keys travel.
const (
	// Events are telephone-events beside the audio (RFC 4733).
	Events DTMF = iota
	// Inband are tones in the audio: only G.711 carries them, so nothing else is agreed
	// on, and telephone-event is left out.
	Inband
	// None leaves telephone-event out.
	None
)

// eventType is EventType with its default.
func (t Terms) eventType() uint8 {
	if t.EventType == 0 {
		return 101
	}
	return t.EventType
}

// LatchTerms are how a side's media source may be learned (M7). The zero value is
// strict: only what the description names is let in.
type LatchTerms struct {
	// Window is how long it may be learned after an answer, early or final, or a changed
	// description. What was learned stays until another place is described.
	Window time.Duration
	// Allowed are the IPv4 prefixes to learn from; what goes beyond call.MaxPrefixes is
	// left out.
	Allowed []netip.Prefix
	// Described allows the address of the peer's description too, at any port.
	Described bool
}
