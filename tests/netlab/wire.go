package netlab

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// What a frame on a wire carries.
const (
	FrameARP  = "arp"
	FrameESP  = "esp" // in IP or in UDP
	FrameIKE  = "ike"
	FrameICMP = "icmp"
	FrameUDP  = "udp"
	FrameTCP  = "tcp"
	// FrameFragment is a later piece of an IPv4 packet.
	FrameFragment = "fragment"
	// FrameOther is anything else, FrameControl what a switch says to its neighbours.
	FrameOther   = "other"
	FrameControl = "control"
)

// Frame is what the census of a wire tells apart.
type Frame struct {
	// Out is what left the interface.
	Out bool
	// VLAN and Priority (802.1p) of the outermost tag, 0 without one.
	VLAN     uint16
	Priority uint8
	// Kind is one of those above; Src, Dst and DSCP of the outermost IPv4 header.
	Kind     string
	Src, Dst netip.Addr
	DSCP     uint8
}

func (f Frame) String() string {
	way := "in"
	if f.Out {
		way = "out"
	}
	return fmt.Sprintf("%s VLAN %d priority %d %s %v > %v DSCP %d", way, f.VLAN, f.Priority, f.Kind, f.Src, f.Dst, f.DSCP)
}

// Census counts frames.
type Census map[Frame]uint64

// Count is the number of frames that the filter accepts.
func (c Census) Count(accept func(Frame) bool) (n uint64) {
	for f, count := range c {
		if accept(f) {
			n += count
		}
	}
	return n
}

// Without lists what is left when frames of these kinds are taken away, of one VLAN.
func (c Census) Without(vlan uint16, kinds ...string) []string {
	var left []string
	for f, count := range c {
		if f.VLAN == vlan && !slices.Contains(kinds, f.Kind) {
			left = append(left, fmt.Sprintf("%d x %v", count, f))
		}
	}
	slices.Sort(left)
	return left
}

func (c Census) String() string {
	var lines []string
	for f, count := range c {
		lines = append(lines, fmt.Sprintf("%d x %v", count, f))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// readFrame looks at an Ethernet frame whose outermost tag, if any, is given as the kernel
// took it off, or stands in the frame.
func readFrame(out bool, tag *uint16, frame []byte) Frame {
	f := Frame{Out: out, Kind: FrameOther}
	if len(frame) < etherHeaderLen {
		return f
	}
	etherType, rest := binary.BigEndian.Uint16(frame[12:]), frame[etherHeaderLen:]
	for etherType == etherTypeVLAN || etherType == etherTypeQinQ {
		if len(rest) < vlanTagLen {
			return f
		}
		if tag == nil {
			tci := binary.BigEndian.Uint16(rest)
			tag = &tci
		}
		etherType, rest = binary.BigEndian.Uint16(rest[2:]), rest[vlanTagLen:]
	}
	if tag != nil {
		f.VLAN, f.Priority = *tag&0x0fff, uint8(*tag>>13)
	}
	switch {
	case etherType == etherTypeARP:
		f.Kind = FrameARP
	// 802.3 lengths, with the bridge's spanning tree among them, LLDP and loopback tests.
	case etherType < 0x0600 || etherType == 0x88cc || etherType == 0x9000:
		f.Kind = FrameControl
	case etherType == etherTypeIPv4 && len(rest) >= 20:
		f.readIPv4(rest)
	}
	return f
}

func (f *Frame) readIPv4(ip []byte) {
	f.Src, f.Dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	f.DSCP = ip[1] >> 2
	header := int(ip[0]&0x0f) * 4
	if header < 20 || header > len(ip) {
		return
	}
	if binary.BigEndian.Uint16(ip[6:])&0x1fff != 0 {
		f.Kind = FrameFragment
		return
	}
	switch ip[9] {
	case 1:
		f.Kind = FrameICMP
	case 6:
		f.Kind = FrameTCP
	case protocolUDP:
		f.Kind = udpKind(ip[header:])
	case 50:
		f.Kind = FrameESP
	}
}

// udpKind tells IKE and ESP in UDP from the rest (RFC 3948 section 2).
func udpKind(udp []byte) string {
	if len(udp) < udpHeaderLen {
		return FrameUDP
	}
	port := func(p uint16) bool {
		return binary.BigEndian.Uint16(udp) == p || binary.BigEndian.Uint16(udp[2:]) == p
	}
	body := udp[udpHeaderLen:]
	switch {
	case port(500):
		return FrameIKE
	case !port(4500):
		return FrameUDP
	case len(body) >= 4 && binary.BigEndian.Uint32(body) != 0:
		return FrameESP
	default: // the non-ESP marker, or a keep-alive
		return FrameIKE
	}
}
