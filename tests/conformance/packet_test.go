package conformance

import (
	"encoding/binary"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Payload types of the tests (RFC 3551; events are dynamic).
const (
	pcmu         = 0
	pcma         = 8
	comfortNoise = 13
	events       = 101
)

// ssrc of streams that have only one.
const ssrc = 0x7a0de3

// rtp is a packet of RFC 3550 section 5.1.
type rtp struct {
	pt        uint8
	marker    bool
	seq       uint16
	timestamp uint32
	ssrc      uint32
	csrc      []uint32
	// extension is the body of a header extension, a multiple of 4 bytes, or nil.
	extension []byte
	payload   []byte
	// padding is its length, the count included; 0 is none.
	padding uint8
}

func (p rtp) bytes() []byte {
	b := make([]byte, 12, 12+4*len(p.csrc)+4+len(p.extension)+len(p.payload)+int(p.padding))
	b[0] = 2<<6 | uint8(len(p.csrc))
	b[1] = p.pt
	if p.marker {
		b[1] |= 0x80
	}
	binary.BigEndian.PutUint16(b[2:], p.seq)
	binary.BigEndian.PutUint32(b[4:], p.timestamp)
	binary.BigEndian.PutUint32(b[8:], p.ssrc)
	for _, c := range p.csrc {
		b = binary.BigEndian.AppendUint32(b, c)
	}
	if p.extension != nil {
		b[0] |= 1 << 4
		b = append(b, 0xbe, 0xde) // RFC 8285, which makes no difference
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.extension)/4))
		b = append(b, p.extension...)
	}
	b = append(b, p.payload...)
	if p.padding > 0 {
		b[0] |= 1 << 5
		for i := range p.padding - 1 {
			b = append(b, 0xa0+i)
		}
		b = append(b, p.padding)
	}
	return b
}

// speech is 20 ms of A-law: no two sequence numbers have the same payload.
func speech(seq uint16) []byte { return spoken(ssrc, seq) }

func spoken(by uint32, seq uint16) []byte {
	payload := make([]byte, 160)
	for i := range payload {
		payload[i] = byte(i) ^ byte(seq) ^ byte(seq>>8)
	}
	return rtp{pt: pcma, seq: seq, timestamp: uint32(seq) * 160, ssrc: by, payload: payload}.bytes()
}

// numbered is speech by sequence numbers.
func numbered(seqs ...uint16) [][]byte {
	packets := make([][]byte, len(seqs))
	for i, seq := range seqs {
		packets[i] = speech(seq)
	}
	return packets
}

// ofType is a packet with another payload type and marker bit.
func ofType(packet []byte, pt uint8, marker bool) []byte {
	b := append([]byte{}, packet...)
	if b[1] = pt; marker {
		b[1] |= 0x80
	}
	return b
}

// receiverReport is the smallest RTCP packet (RFC 3550 section 6.4.2); id tells them apart.
func receiverReport(id byte) []byte { return []byte{0x80, 201, 0, 1, 1, 2, 3, id} }

// senderReport has n report blocks (RFC 3550 section 6.4.1).
func senderReport(n int) []byte {
	b := make([]byte, 28+24*n)
	b[0], b[1] = 0x80|byte(n), 200
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)/4-1))
	for i := 4; i < len(b); i++ {
		b[i] = byte(i)
	}
	return b
}

// key is one press of a telephone key (RFC 4733 section 2.5.1).
type key struct {
	event uint8
	// timestamp is when it went down; seq is that of the first packet.
	timestamp uint32
	seq       uint16
	ssrc      uint32
	pt        uint8
}

// packet is the i-th one of the press, 20 ms each at 8 kHz.
func (k key) packet(i int, end bool) []byte {
	payload := []byte{k.event, 10, 0, 0}
	if end {
		payload[1] |= 0x80
	}
	binary.BigEndian.PutUint16(payload[2:], uint16(160*(i+1)))
	return rtp{
		pt: k.pt, marker: i == 0, seq: k.seq + uint16(i), timestamp: k.timestamp, ssrc: k.ssrc, payload: payload,
	}.bytes()
}

// press is the key's packets: the first with the marker, updates, and the end three times.
func (k key) press(updates int) [][]byte {
	var packets [][]byte
	for i := range updates + 4 {
		packets = append(packets, k.packet(i, i > updates))
	}
	return packets
}

// counted is what a flow counts that lets in just these packets, in order, of one stream.
func counted(packets ...[]byte) call.FlowStats {
	var s call.FlowStats
	for _, p := range packets {
		s.Packets++
		s.Bytes += uint64(len(p))
		if len(p) >= 12 && (p[1] < 192 || p[1] > 223) {
			s.SSRC = binary.BigEndian.Uint32(p[8:])
		}
	}
	return s
}
