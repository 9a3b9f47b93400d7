package datapath

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/g711"
)

// fate is what the model says of a packet.
type fate struct {
	// verdict is as Exit.Verdict; "" is what the guard's budgets decide: the stack, or dropped; "answer" is
	// that the sender is told the MTU.
	verdict string
	flow    call.Flow
	way     tandemWayKind
	payload []byte // as it leaves
}

var (
	toStack = fate{verdict: "stack"}
	dropped = fate{verdict: "drop"}
)

// datagram is a frame taken apart as far as it is IPv4.
type datagram struct {
	realm  uint16
	link   int // length of the header
	ip     []byte
	udp    []byte // nil unless it is UDP in one piece
	source netip.AddrPort
	dest   netip.AddrPort
}

// linkHeader is what a frame begins with.
type linkHeader struct {
	vlans []uint16 // without those that are a priority only (IEEE 802.1Q 6.9)
	kind  uint16   // of what follows
	len   int
}

// readLink reads up to two tags; false if the frame ends before.
func readLink(in []byte) (l linkHeader, ok bool) {
	l.len = 14
	for tags := 0; tags < 2 && isTag(in[l.len-2:]); tags++ {
		if len(in) < l.len+4 {
			return l, false
		}
		if id := binary.BigEndian.Uint16(in[l.len:]) & 0xfff; id != 0 {
			l.vlans = append(l.vlans, id)
		}
		l.len += 4
	}
	l.kind = binary.BigEndian.Uint16(in[l.len-2:])
	return l, true
}

// realm is the one that frames with these tags are in, 0 if none.
func (l linkHeader) realm() uint16 {
	return map[string]uint16{
		"[]": platform, "[201]": taggedPlatform, "[300 201]": doubleTagged, fmt.Sprint([]uint16{underlayVLAN}): tunnelled,
	}[fmt.Sprint(l.vlans)]
}

// takeApart reads a frame; false is for frames that no realm has anything to do with.
func takeApart(in []byte) (d datagram, ok bool) {
	l, whole := readLink(in)
	if !whole {
		return d, false
	}
	d.realm, d.link, d.ip = l.realm(), l.len, in[l.len:]
	if d.realm == 0 || l.kind != 0x0800 || len(d.ip) < 20 || d.ip[0]>>4 != 4 {
		return d, false
	}
	source, dest := netip.AddrFrom4([4]byte(d.ip[12:])), netip.AddrFrom4([4]byte(d.ip[16:]))
	d.source, d.dest = at(source, 0), at(dest, 0)
	fragment := binary.BigEndian.Uint16(d.ip[6:])&0x3fff != 0
	if d.ip[0] != 0x45 || d.ip[9] != unix.IPPROTO_UDP || fragment || len(d.ip) < 28 {
		return d, true
	}
	udp := d.ip[20:]
	total, length := int(binary.BigEndian.Uint16(d.ip[2:])), int(binary.BigEndian.Uint16(udp[4:]))
	if length < 8 || 20+length > total || total > len(d.ip) {
		return d, true
	}
	d.udp = udp[:length]
	d.source, d.dest = at(source, binary.BigEndian.Uint16(udp)), at(dest, binary.BigEndian.Uint16(udp[2:]))
	return d, true
}

func isTag(b []byte) bool { t := binary.BigEndian.Uint16(b); return t == 0x8100 || t == 0x88a8 }

// foretell is the model: the contract and the RFCs in Go, and nothing of the program.
func (l *gateLab) foretell(in []byte) fate {
	if link, whole := readLink(in); whole && isTag(in[link.len-2:]) && len(link.vlans) < 2 {
		return dropped // hidden behind a priority
	} else if whole && link.realm() == tunnelled {
		return underlayFate(link, in[link.len:])
	}
	d, ok := takeApart(in)
	switch {
	case !ok:
		return toStack
	case d.dest.Addr() == platformAddr:
	case denied.Contains(d.source.Addr()), d.dest.Addr() == carrierAddr, d.dest.Addr() == tunnelAddr, astray(d):
		return dropped
	default:
		return toStack
	}
	if d.udp == nil || !mediaPorts.Contains(d.dest.Port()) {
		return strangerFate(d)
	}
	flow, ok := l.flows[call.FlowKey{Realm: d.realm, Local: d.dest}]
	if !ok {
		return dropped
	}
	payload := d.udp[8:]
	kind, terms, agreed := inspect(flow, payload)
	learns := flow.Latch.Window != 0 && allowed.Contains(d.source.Addr()) && d.source.Port() != 0 &&
		agreed && (kind == "rtp") != flow.RTCP
	letIn := flow.Remote.IsValid() && flow.Remote.Port() != 0 && d.source == flow.Remote
	if !agreed || (!letIn && !learns) {
		return dropped
	}
	if kind == "rtcp" && flow.Mux {
		above := call.FlowKey{Realm: d.realm, Local: at(platformAddr, d.dest.Port()+1)}
		if flow, ok = l.flows[above]; !ok {
			return dropped
		}
	}
	if flow.Hold {
		return dropped
	}
	f := fate{verdict: "forward", flow: flow, way: l.ways[flow.Dest.Addr()], payload: payload}
	if d.dest.Port() == mtuPort && d.ip[6]&0x40 != 0 && binary.BigEndian.Uint16(d.ip[2:]) > tunnelMTU && d.ip[8] > 1 {
		f.verdict = "answer"
		return f
	}
	if kind == "rtp" {
		f.payload, ok = treated(payload, terms)
	}
	if d.ip[8] < 2 || !ok {
		f.verdict = "drop"
	}
	return f
}

// astray: a packet is of a peer of another realm, and of its own not.
func astray(d datagram) bool {
	peers := map[netip.Addr][]uint16{platformPeer.Addr(): {platform}, tunnelPeer: {tunnelled}, sharedPeer: {platform, tunnelled}}
	of := peers[d.source.Addr()]
	return len(of) > 0 && !slices.Contains(of, d.realm)
}

// underlayFate is what becomes of a packet on the outer side of a tunnel (N5).
func underlayFate(l linkHeader, ip []byte) fate {
	switch {
	case l.kind != 0x0800 && l.kind != 0x86dd:
		return toStack
	case l.kind == 0x86dd, len(ip) < 20, ip[0]>>4 != 4, !ofTunnels(ip), denied.Contains(netip.AddrFrom4([4]byte(ip[12:]))):
		return dropped
	}
	return toStack
}

func ofTunnels(ip []byte) bool {
	header := int(ip[0]&0xf) * 4
	switch {
	case ip[9] == unix.IPPROTO_ESP, ip[9] == unix.IPPROTO_ICMP:
		return true
	case ip[9] != unix.IPPROTO_UDP:
		return false
	case binary.BigEndian.Uint16(ip[6:])&0x1fff != 0:
		return true
	case header < 20, len(ip) < header+8:
		return false
	}
	port := binary.BigEndian.Uint16(ip[header+2:])
	return port == 500 || port == 4500
}

// strangerFate is what the guard makes of a packet that is no media in one piece: the peer of the lab is known.
func strangerFate(d datagram) fate {
	header := int(d.ip[0]&0xf) * 4
	fragment := binary.BigEndian.Uint16(d.ip[6:])
	switch {
	case (header > 20 || header == 20 && fragment&0x2000 != 0) && fragment&0x1fff == 0 && d.ip[9] == unix.IPPROTO_UDP &&
		len(d.ip) >= header+8 && mediaPorts.Contains(binary.BigEndian.Uint16(d.ip[header+2:])):
		return dropped // the stack would answer
	case d.realm == platform && (d.source.Addr() == platformPeer.Addr() || d.source.Addr() == sharedPeer):
		return toStack
	case denied.Contains(d.source.Addr()), astray(d):
		return dropped
	case d.ip[0] == 0x45 && d.ip[9] != unix.IPPROTO_UDP:
		return toStack
	}
	return fate{}
}

// inspect says whether a payload is RTP or RTCP, what becomes of its payload type, and
// whether the flow takes it (RFC 3550 5.1, RFC 5761 section 4).
func inspect(f call.Flow, payload []byte) (kind string, terms call.Payload, agreed bool) {
	if len(payload) < 8 || payload[0]>>6 != 2 {
		return "", terms, false
	}
	if payload[1] >= 192 && payload[1] <= 223 {
		return "rtcp", terms, true
	}
	if f.RTCP || len(payload) < 12+4*int(payload[0]&0xf) {
		return "", terms, false
	}
	pt := payload[1] & 0x7f
	for _, p := range f.Payloads {
		if p.In == pt {
			return "rtp", p, true
		}
	}
	return "rtp", call.Payload{In: pt, Out: pt}, len(f.Payloads) == 0
}

// treated is RTP as the other side gets it; false if it cannot be converted.
func treated(rtp []byte, terms call.Payload) (out []byte, ok bool) {
	out = bytes.Clone(rtp)
	out[1] = rtp[1]&0x80 | terms.Out
	table := map[call.Treatment]*[256]byte{call.ALawToULaw: &g711.ALawToULaw, call.ULawToALaw: &g711.ULawToALaw}[terms.Treatment]
	if table == nil {
		return out, true
	}
	start, end := 12+4*int(rtp[0]&0xf), len(rtp)
	if rtp[0]&0x10 != 0 {
		if len(rtp) < start+4 {
			return nil, false
		}
		words := int(binary.BigEndian.Uint16(rtp[start+2:]))
		if start += 4 + 4*words; words > 64 {
			return nil, false
		}
	}
	if rtp[0]&0x20 != 0 {
		if end -= int(rtp[len(rtp)-1]); len(rtp) > 2048 {
			return nil, false
		}
	}
	if start > end || end-start > 1504 {
		return nil, false
	}
	for i := start; i < end; i++ {
		out[i] = table[out[i]]
	}
	return out, true
}
