package call

import (
	"net/netip"
	"slices"
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
	// Mux means that RTCP may come and go among the RTP (a=rtcp-mux, RFC 5761).
	Mux bool
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
	// Payloads are the payload types that are let in, the main codec first; packets of
	// others are dropped. An empty list lets all in as they are. RTCP has none.
	Payloads []Payload
	// Mux means that RTCP that arrives among the RTP belongs to the flow at the port above
	// (RFC 5761): it is counted there and leaves by that flow's Source and Dest.
	Mux bool
	// Latch, unless zero, lets the flow learn another Remote once.
	Latch Latch
}

// Equal reports whether two flows say the same.
func (f Flow) Equal(o Flow) bool {
	return f.Key == o.Key && f.Remote == o.Remote && f.OutRealm == o.OutRealm && f.Source == o.Source &&
		f.Dest == o.Dest && f.DSCP == o.DSCP && f.RTCP == o.RTCP && f.ClockRate == o.ClockRate &&
		f.Hold == o.Hold && f.Mux == o.Mux && slices.Equal(f.Payloads, o.Payloads) &&
		f.Latch.Window == o.Latch.Window && f.Latch.Generation == o.Latch.Generation &&
		slices.Equal(f.Latch.Allowed, o.Latch.Allowed)
}

// Payload says what becomes of packets of one payload type (M5, M14).
type Payload struct {
	// In and Out are the payload type as it arrives and as it leaves, 0-127.
	In, Out uint8
	// Treatment of the payload itself.
	Treatment Treatment
}

// Treatment of a payload on its way.
type Treatment uint8

// Treatments.
const (
	// AsIs leaves the payload alone.
	AsIs Treatment = iota
	// ALawToULaw and ULawToALaw convert G.711 byte by byte (ITU-T G.711 tables 3 and 4).
	ALawToULaw
	ULawToALaw
	// TelephoneEvent leaves the payload alone and reports each key once (RFC 4733).
	TelephoneEvent
)

// MaxPrefixes bounds Latch.Allowed.
const MaxPrefixes = 8

// Latch is how a flow may learn its Remote (M7): the first source that is allowed and
// sends a plausible packet within the window becomes the only one, for good. Remote
// itself is let in all the time until then; when it sends first, it is locked in.
type Latch struct {
	// Window begins with Install; 0 is strict: nothing is ever learned.
	Window time.Duration
	// Generation tells a changed description from a repeated one: an Install with
	// the Generation that is there keeps what was learned and the window that runs;
	// another one begins anew.
	Generation uint32
	// Allowed are the IPv4 prefixes to learn from, 1 to MaxPrefixes of them.
	Allowed []netip.Prefix
}

// FlowStats are the counters of one flow since it was installed; an update of the
// flow in place keeps them.
type FlowStats struct {
	Key FlowKey `json:"-"`
	// Remote is the source that is let in now: the flow's own Remote, or what was learned in
	// its place (M7). It is the zero value if nobody is let in.
	Remote  netip.AddrPort `json:"remote"`
	Packets uint64         `json:"packets"`
	Bytes   uint64         `json:"bytes"`
	// Control counts those of Packets that were RTCP among the RTP of a flow without Mux;
	// in an RTCP flow it is 0.
	Control uint64 `json:"control"`
	// Lost is expected minus received by RTP sequence number (RFC 3550 A.3), never below 0.
	Lost uint64 `json:"lost"`
	// Reordered counts packets that came after a later one.
	Reordered uint64 `json:"reordered"`
	// Duplicated counts packets that came again; they are not counted as received when
	// loss is computed.
	Duplicated uint64 `json:"duplicated"`
	// Refused counts packets of another source than Remote.
	Refused uint64 `json:"refused"`
	// OutOfPolicy counts packets of Remote that were dropped: not RTP (or RTCP), or of a
	// payload type that was not agreed on. The latter are not Lost: they came.
	OutOfPolicy uint64 `json:"out_of_policy"`
	// Digits counts keys pressed (RFC 4733 events 0-15), not packets.
	Digits uint64 `json:"digits"`
	// SSRC is the last seen, in host order; SSRCChanges counts those that replaced another.
	SSRC        uint32 `json:"ssrc"`
	SSRCChanges uint64 `json:"ssrc_changes"`
	// Gap is the longest time between two packets in a row.
	Gap time.Duration `json:"gap"`
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

// Exit is one way packets left the media plane, counted since start, by realm.
type Exit struct {
	// Realm is the number of the realm that the packets came in by; 0 is none, or not
	// known yet.
	Realm uint16 `json:"realm"`
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
	ExitPayloadType   = "payload-type"
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
	// EventsLost counts events that were not delivered because nobody read them in time,
	// or because a flow sent too many RTCP packets.
	EventsLost uint64 `json:"events_lost"`
}

// MediaEvent is something an engine saw on a flow.
type MediaEvent struct {
	Key  FlowKey
	Kind MediaEventKind
	// At is when the packet came.
	At time.Time
	// Source is where it came from.
	Source netip.AddrPort
	// Digit is the key of a MediaDigit: 0-9, 10 is *, 11 is #, 12-15 are A-D.
	Digit uint8
	// SSRC is the new one of a MediaSSRC.
	SSRC uint32
	// Packet is the RTCP of a MediaReport, cut off after MaxReport bytes.
	Packet []byte
}

// MaxReport is how much of an RTCP packet is copied; a report with its description
// has about 100 bytes.
const MaxReport = 512

// ReportGap is the least time between two copies of RTCP of one flow; the ones in
// between are forwarded but not copied (EngineStats.EventsLost). RFC 3550 section 6.2
// allows one in 5 s, and less only for the first.
const ReportGap = 100 * time.Millisecond

// MediaEventKind says what was seen.
type MediaEventKind uint8

// Kinds of MediaEvent.
const (
	// MediaStarted is the first packet of a flow that was let in.
	MediaStarted MediaEventKind = 1 + iota
	// MediaRefused is a source that sends to where it may not. It comes once per source
	// and realm until the source has been quiet for a minute, however many ports and
	// packets it tries; Key is the first one tried.
	MediaRefused
	// MediaLatched is a flow's Remote learned: Source, for good.
	MediaLatched
	// MediaDigit is a key pressed, once per key (RFC 4733).
	MediaDigit
	// MediaSSRC is another synchronisation source in a flow that had one.
	MediaSSRC
	// MediaReport is a copy of RTCP, at most one per flow in ReportGap.
	MediaReport
)

// NextHop is how a frame leaves towards an address: resolved once and kept fresh,
// so that no packet waits for a look-up.
type NextHop struct {
	// Ifindex is the device that sends, the physical one when the hop is tagged.
	Ifindex int
	// L2 is the whole link-layer header, VLAN tags included; empty means unresolved, or
	// Bare.
	L2 []byte
	// Bare means that the device has no link layer (tun, ipip, xfrm): packets leave as IP.
	Bare bool
	// Neighbour and its device let the kernel's stack resolve and send while L2 is
	// unresolved; invalid and 0 if there is no route.
	Neighbour        netip.Addr
	NeighbourIfindex int
	// MTU is the largest IP packet that a Bare device takes, in bytes; 0 is not known, and not asked for.
	MTU int
	// PCP is the 802.1p priority (0-7) of packets that leave Bare or by Neighbour: it becomes their priority
	// in the kernel (SO_PRIORITY), which a VLAN device on their way maps. L2 has its own.
	PCP uint8
}
