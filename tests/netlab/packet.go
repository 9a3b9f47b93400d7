package netlab

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// datagram is a UDP packet as it was on the wire.
type datagram struct {
	src, dst   netip.AddrPort
	dscp, ttl  uint8
	checksumOK bool // of IPv4 and UDP both; UDP without one is not ok in the lab
	payload    []byte
}

const (
	etherTypeIPv4  = 0x0800
	etherTypeARP   = 0x0806
	etherTypeVLAN  = 0x8100
	etherTypeQinQ  = 0x88a8
	protocolUDP    = 17
	etherHeaderLen = 14
	vlanTagLen     = 4
	udpHeaderLen   = 8
)

// parseUDP reads Ethernet, up to two tags, IPv4 and UDP; false for anything else,
// fragments included.
func parseUDP(frame []byte) (datagram, bool) {
	if len(frame) < etherHeaderLen {
		return datagram{}, false
	}
	etherType, ip := binary.BigEndian.Uint16(frame[12:]), frame[etherHeaderLen:]
	for tags := 0; tags < 2 && (etherType == etherTypeVLAN || etherType == etherTypeQinQ); tags++ {
		if len(ip) < vlanTagLen {
			return datagram{}, false
		}
		etherType, ip = binary.BigEndian.Uint16(ip[2:]), ip[vlanTagLen:]
	}
	if etherType != etherTypeIPv4 {
		return datagram{}, false
	}
	return parseUDPv4(ip)
}

// parseUDPv4 reads IPv4 and UDP.
func parseUDPv4(ip []byte) (datagram, bool) {
	if len(ip) < 20 || ip[0]>>4 != 4 {
		return datagram{}, false
	}
	headerLen, totalLen := int(ip[0]&0x0f)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:])&0x3fff != 0
	if headerLen < 20 || totalLen < headerLen+udpHeaderLen || totalLen > len(ip) || fragment || ip[9] != protocolUDP {
		return datagram{}, false
	}
	header, udp := ip[:headerLen], ip[headerLen:totalLen]
	if int(binary.BigEndian.Uint16(udp[4:])) != len(udp) {
		return datagram{}, false
	}
	src, dst := netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	return datagram{
		src:  netip.AddrPortFrom(src, binary.BigEndian.Uint16(udp)),
		dst:  netip.AddrPortFrom(dst, binary.BigEndian.Uint16(udp[2:])),
		dscp: ip[1] >> 2,
		ttl:  ip[8],
		checksumOK: sum(0, header) == 0xffff && binary.BigEndian.Uint16(udp[6:]) != 0 &&
			sum(pseudoHeader(ip, len(udp)), udp) == 0xffff,
		payload: udp[udpHeaderLen:],
	}, true
}

// pseudoHeader is the sum of what UDP's checksum takes from the IP header (RFC 768).
func pseudoHeader(ip []byte, length int) uint32 {
	return uint32(sum(protocolUDP+uint32(length), ip[12:20]))
}

// sum is the one's complement sum of RFC 1071, not inverted: 0xffff over data that
// holds its right checksum.
func sum(initial uint32, data []byte) uint16 {
	s := uint64(initial)
	for ; len(data) >= 2; data = data[2:] {
		s += uint64(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		s += uint64(data[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

type rtpHeader struct {
	marker      bool
	payloadType uint8
	seq         uint16
	timestamp   uint32
	ssrc        uint32
	payload     []byte
}

type kind uint8

const (
	kindOther kind = iota
	kindRTP
	kindRTCP
	kindSIP
)

// classify tells SIP, RTP and RTCP apart by their first bytes (RFC 5761 section 4 for
// the latter two).
func classify(payload []byte) kind {
	if len(payload) >= 8 && payload[0]>>6 == 2 {
		if payload[1] >= 192 && payload[1] <= 223 {
			return kindRTCP
		}
		if len(payload) >= 12 {
			return kindRTP
		}
		return kindOther
	}
	line, _, _ := bytes.Cut(payload, []byte("\r\n"))
	if bytes.HasPrefix(line, []byte("SIP/2.0 ")) || bytes.HasSuffix(line, []byte(" SIP/2.0")) {
		return kindSIP
	}
	return kindOther
}

// parseRTP reads the fixed header and skips contributing sources; the rest, with an
// extension and padding if any, is the payload that must arrive as it was sent.
func parseRTP(b []byte) (rtpHeader, bool) {
	start := 12 + 4*int(b[0]&0x0f)
	if start > len(b) {
		return rtpHeader{}, false
	}
	return rtpHeader{
		marker:      b[1]&0x80 != 0,
		payloadType: b[1] & 0x7f,
		seq:         binary.BigEndian.Uint16(b[2:]),
		timestamp:   binary.BigEndian.Uint32(b[4:]),
		ssrc:        binary.BigEndian.Uint32(b[8:]),
		payload:     b[12:],
	}, true
}
