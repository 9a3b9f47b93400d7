package relay

import (
	"encoding/binary"
)

const (
	rtpVersion      = 2
	rtpHeader       = 12 // bytes, RFC 3550 section 5.1
	extensionHeader = 4  // bytes, RFC 3550 section 5.3.1
	rtcpHeader      = 8  // bytes of header and one SSRC, RFC 3550 section 6.4.2

	// Bits of the first byte, and of the second.
	paddingBit   = 0x20
	extensionBit = 0x10
	csrcCount    = 0x0f
	markerBit    = 0x80

	// What no RTP payload type may look like (RFC 5761 section 4).
	firstRTCP = 192
	lastRTCP  = 223
)

// parse says whether the packet can be what a port for RTP, or one for RTCP, is for:
// exitForwarded if so. RTCP on the RTP port can be: some peers multiplex unasked.
func (p *packet) parse(rtcpPort bool) exit {
	not := exitNotRTP
	if rtcpPort {
		not = exitNotRTCP
	}
	switch {
	case p.tooLong:
		return exitTooLong
	case len(p.data) < rtcpHeader || p.data[0]>>6 != rtpVersion:
		return not
	}
	p.rtcp = p.data[1] >= firstRTCP && p.data[1] <= lastRTCP
	if !p.rtcp && (rtcpPort || len(p.data) < p.headerLen()) {
		return not
	}
	return exitForwarded
}

func (p *packet) sequence() uint16   { return binary.BigEndian.Uint16(p.data[2:]) }
func (p *packet) timestamp() uint32  { return binary.BigEndian.Uint32(p.data[4:]) }
func (p *packet) ssrc() uint32       { return binary.BigEndian.Uint32(p.data[8:]) }
func (p *packet) payloadType() uint8 { return p.data[1] &^ markerBit }

func (p *packet) setPayloadType(t uint8) { p.data[1] = p.data[1]&markerBit | t }

// headerLen is the length of the fixed header and the CSRCs.
func (p *packet) headerLen() int { return rtpHeader + 4*int(p.data[0]&csrcCount) }

// body is what lies between the headers, extension included, and the padding; false if
// those say that they are longer than the packet.
func (p *packet) body() ([]byte, bool) {
	start, end := p.headerLen(), len(p.data)
	if p.data[0]&extensionBit != 0 {
		if end < start+extensionHeader {
			return nil, false
		}
		start += extensionHeader + 4*int(binary.BigEndian.Uint16(p.data[start+2:]))
	}
	if p.data[0]&paddingBit != 0 {
		end -= int(p.data[end-1])
	}
	if end < start {
		return nil, false
	}
	return p.data[start:end], true
}
