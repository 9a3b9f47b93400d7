package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
)

// Stream is what a Sender sends: flows of G.711 A-law with right sequence numbers, time
// stamps and checksums, one packet of each flow after the other in a shuffled order.
type Stream struct {
	// Flows is from 1 to MaxFlows.
	Flows int
	// Source and Dest are those of the first flow; each further one has both ports 2 higher.
	Source, Dest netip.AddrPort
	// Gateway is the link-layer address that all is sent to.
	Gateway net.HardwareAddr
	// Payload is the audio of a packet in bytes, 20 to 1400; 0 is 160 (20 ms).
	Payload int
}

// MaxFlows is every second port.
const MaxFlows = 1 << 15

// Places in a frame, as in bpf/traffic.bpf.c.
const (
	atIP   = 14
	atUDP  = atIP + 20
	atRTP  = atUDP + 8
	atTag  = atRTP + 12
	tagLen = 20
	// headLen is what the generator writes, anew for each packet.
	headLen = 80

	defaultPayload = 160
	maxPayload     = 1400
	payloadPCMA    = 8    // RFC 3551
	magic          = 0x54 // each of the first four bytes of the payload
	filler         = 0xd5 // silence
)

func (s *Stream) validate() error {
	last := 2 * (s.Flows - 1)
	switch {
	case s.Flows < 1 || s.Flows > MaxFlows:
		return fmt.Errorf("%d flows are not 1 to %d", s.Flows, MaxFlows)
	case !s.Source.Addr().Is4() || !s.Dest.Addr().Is4():
		return errors.New("source and destination are IPv4")
	case int(s.Source.Port())+last > math.MaxUint16 || int(s.Dest.Port())+last > math.MaxUint16:
		return fmt.Errorf("ports for %d flows end above %d", s.Flows, math.MaxUint16)
	case len(s.Gateway) != 6:
		return fmt.Errorf("%q is no Ethernet address", s.Gateway)
	case s.Payload < tagLen || s.Payload > maxPayload:
		return fmt.Errorf("payload of %d bytes is not %d to %d", s.Payload, tagLen, maxPayload)
	}
	return nil
}

// frame is a packet of the stream without what differs between them: ports, sequence
// number, RTP time stamp, SSRC, tag and UDP checksum.
func (s *Stream) frame(from net.HardwareAddr) []byte {
	f := make([]byte, atTag+s.Payload)
	copy(f, s.Gateway)
	copy(f[6:], from)
	binary.BigEndian.PutUint16(f[12:], 0x0800)

	ip := f[atIP:]
	ip[0], ip[8], ip[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[6:], 0x4000) // don't fragment: the identification may be 0
	copy(ip[12:], s.Source.Addr().AsSlice())
	copy(ip[16:], s.Dest.Addr().AsSlice())
	binary.NativeEndian.PutUint16(ip[10:], ^fold(sum(ip[:20])))

	udp := f[atUDP:]
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp)))
	f[atRTP], f[atRTP+1] = 0x80, payloadPCMA
	for i := range f[atTag:] {
		f[atTag+i] = filler
	}
	for i := range tagLen {
		f[atTag+i] = 0
		if i < 4 {
			f[atTag+i] = magic
		}
	}
	return f
}

// checksum is that of the UDP datagram and its pseudo header in a frame, neither folded
// nor inverted.
func checksum(f []byte) uint32 {
	pseudo := append([]byte{0, 17}, f[atUDP+4:atUDP+6]...)
	return sum(f[atIP+12:]) + sum(pseudo)
}

// sum adds up 16-bit words in the machine's own order, in which RFC 1071 works as well.
func sum(b []byte) (s uint32) {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.NativeEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(binary.NativeEndian.Uint16([]byte{b[0], 0}))
	}
	return s
}

func fold(s uint32) uint16 {
	s = s&0xffff + s>>16
	return uint16(s&0xffff + s>>16)
}

// stride is a step through n flows that meets each once and neighbours far apart.
func stride(n int) int {
	for s := int(float64(n) * 0.618); s > 1; s-- {
		if gcd(s, n) == 1 {
			return s
		}
	}
	return 1
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
