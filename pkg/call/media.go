package call

import (
	"net/netip"
	"time"
)

// Codec is one payload type of an audio stream (RFC 4566 rtpmap and fmtp).
type Codec struct {
	// Type is the RTP payload type, 0-127.
	Type uint8 `json:"type"`
	// Name is the encoding name in its registered spelling: "PCMA", "opus", "telephone-event".
	Name string `json:"name"`
	// ClockRate is in Hz; it is the unit of RTP timestamps.
	ClockRate uint32 `json:"clock_rate"`
	// Channels is 1 unless the rtpmap says more.
	Channels uint8 `json:"channels,omitempty"`
	// Params is the fmtp line's value, or empty.
	Params string `json:"params,omitempty"`
}

// Direction of a stream, as the side that sent the description sees it (RFC 3264).
type Direction uint8

// The four directions; SendRecv is the default of RFC 3264.
const (
	SendRecv Direction = iota
	SendOnly
	RecvOnly
	Inactive
)

func (d Direction) String() string {
	return [...]string{"sendrecv", "sendonly", "recvonly", "inactive"}[d]
}

// Stream is one m= line in its place.
type Stream struct {
	// Media and Proto are the line's own words, e.g. "audio" and "RTP/AVP".
	Media, Proto string
	// Formats are the line's format tokens, kept for a refusal (port 0) in place.
	Formats []string
	// Refused is true for a line that carries nothing: port 0, or media that
	// Tandem does not carry.
	Refused bool
	// RTP and RTCP are where the sender of the description wants to receive. An
	// unspecified address (0.0.0.0) is the old form of hold (RFC 2543).
	RTP, RTCP netip.AddrPort
	Direction Direction
	// Codecs in order of preference, telephone-event included.
	Codecs []Codec
	// PTime and MaxPTime are in ms, or 0.
	PTime, MaxPTime int
}

// MediaDesc is a session description reduced to what Tandem acts on.
type MediaDesc struct {
	Streams []Stream
	// SetAside lists what the tolerant reader left out or mended, for the log.
	SetAside []string
}

// Audio returns the first stream that is carried, or nil.
func (d *MediaDesc) Audio() *Stream {
	for i := range d.Streams {
		if !d.Streams[i].Refused {
			return &d.Streams[i]
		}
	}
	return nil
}

// FlowKey is where packets of a flow arrive: one of our ports in one realm.
type FlowKey struct {
	// Realm is the realm's number: its index in the config, from 1.
	Realm uint16
	Local netip.AddrPort
}

// Flow is one direction of one RTP or RTCP stream (M1). Packets to Key from Remote
// leave from Source to Dest. The zero Flow forwards nothing.
type Flow struct {
	Key FlowKey
	// Remote is the only source that is let in (strict, M7).
	Remote netip.AddrPort
	// OutRealm, Source and Dest say how the packet leaves.
	OutRealm uint16
	Source   netip.AddrPort
	Dest     netip.AddrPort
	// DSCP is 0-63 (M3).
	DSCP uint8
	// RTCP is true for the control stream: no loss and jitter are computed.
	RTCP bool
	// ClockRate is in Hz, for jitter; 0 counts packets only.
	ClockRate uint32
	// Hold drops (and counts) packets: the other side gave no address to send to.
	Hold bool
}

// FlowStats are the counters of one flow since it was installed; an update of the
// flow in place keeps them.
type FlowStats struct {
	Key     FlowKey `json:"-"`
	Packets uint64  `json:"packets"`
	Bytes   uint64  `json:"bytes"`
	// Lost is expected minus received by RTP sequence number (RFC 3550 A.3), never below 0.
	Lost uint64 `json:"lost"`
	// Reordered counts packets that came after a later one.
	Reordered uint64 `json:"reordered"`
	// Refused counts packets of another source than Remote.
	Refused uint64 `json:"refused"`
	// Jitter is the interarrival jitter of RFC 3550 section 6.4.1.
	Jitter time.Duration `json:"jitter"`
	// First and Last are when packets came, zero if none did.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
}

// Engines by name.
const (
	EngineAuto      = "auto"
	EngineKernel    = "kernel"
	EngineUserspace = "userspace"
)

// Exit is one way a packet left the media plane, counted since start.
type Exit struct {
	// Reason is a stable lower-case word, e.g. ExitForwarded.
	Reason string `json:"reason"`
	// Verdict is "forward", "drop" or "stack".
	Verdict string `json:"verdict"`
	Packets uint64 `json:"packets"`
}

// Reasons of Exit that both engines have. Each has more of its own.
const (
	ExitForwarded     = "forwarded"
	ExitNoFlow        = "no-flow"
	ExitSourceRefused = "source-refused"
	ExitNotRTP        = "not-rtp"
	ExitNotRTCP       = "not-rtcp"
	ExitHold          = "hold"
)

// EngineStats is what an engine says of itself.
type EngineStats struct {
	// Engine is EngineKernel or EngineUserspace.
	Engine string `json:"engine"`
	// Flows installed now.
	Flows int `json:"flows"`
	// KernelPackets and UserspacePackets count media packets forwarded by either.
	KernelPackets    uint64 `json:"kernel_packets"`
	UserspacePackets uint64 `json:"userspace_packets"`
	Exits            []Exit `json:"exits"`
}

// MediaEvent is something an engine saw on a flow, once per flow and kind.
type MediaEvent struct {
	Key  FlowKey
	Kind MediaEventKind
	// Source is where the packet came from.
	Source netip.AddrPort
}

// MediaEventKind says what was seen.
type MediaEventKind uint8

// Kinds of MediaEvent.
const (
	// MediaStarted is the first packet that was let in.
	MediaStarted MediaEventKind = 1 + iota
	// MediaRefused is the first packet of a source that is not the flow's Remote.
	MediaRefused
)

// NextHop is how a frame leaves towards an address: resolved once and kept fresh,
// so that no packet waits for a look-up.
type NextHop struct {
	// Ifindex is the device that sends, the physical one when the hop is tagged.
	Ifindex int
	// L2 is the whole link-layer header, VLAN tags included; empty means unresolved.
	L2 []byte
}
