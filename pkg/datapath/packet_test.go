package datapath

import (
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// frame is a packet as a test describes it; the zero value of a field is the usual one.
type frame struct {
	src, dst netip.AddrPort
	vlans    []uint16
	ttl, tos uint8
	payload  []byte
	noSum    bool // UDP checksum zero
	sent     bool // as the program sends it: from our MAC, without VLAN priority
	mangle   func(ip *layers.IPv4, udp *layers.UDP)
}

// build makes the bytes of a frame.
func (f frame) build(tb testing.TB) []byte {
	tb.Helper()
	if f.ttl == 0 {
		f.ttl = 64
	}
	eth := &layers.Ethernet{SrcMAC: nextMAC, DstMAC: ownMAC, EthernetType: layers.EthernetTypeIPv4}
	priority := uint8(5)
	if f.sent {
		eth.SrcMAC, eth.DstMAC = ownMAC, nextMAC
		priority = 0
	}
	stack := []gopacket.SerializableLayer{eth}
	for i, id := range f.vlans {
		tag := &layers.Dot1Q{VLANIdentifier: id, Priority: priority, Type: layers.EthernetTypeIPv4}
		if i == 0 {
			eth.EthernetType = layers.EthernetTypeDot1Q
		} else {
			stack[i].(*layers.Dot1Q).Type = layers.EthernetTypeDot1Q
		}
		stack = append(stack, tag)
	}
	ip := &layers.IPv4{
		Version: 4, TTL: f.ttl, TOS: f.tos, Id: 4711, Protocol: layers.IPProtocolUDP,
		SrcIP: f.src.Addr().AsSlice(), DstIP: f.dst.Addr().AsSlice(),
	}
	udp := &layers.UDP{SrcPort: layers.UDPPort(f.src.Port()), DstPort: layers.UDPPort(f.dst.Port())}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		tb.Fatal(err)
	}
	if f.mangle != nil {
		f.mangle(ip, udp)
	}
	stack = append(stack, ip)
	if ip.Protocol == layers.IPProtocolUDP {
		stack = append(stack, udp)
	}
	stack = append(stack, gopacket.Payload(f.payload))
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, stack...); err != nil {
		tb.Fatal(err)
	}
	out := buf.Bytes()
	if f.noSum {
		at := 14 + 4*len(f.vlans) + 20 + 6
		out[at], out[at+1] = 0, 0
	}
	return out
}

// rtp is an RTP packet with 160 bytes of payload, as 20 ms of G.711 are.
func rtp(seq uint16, timestamp, ssrc uint32) []byte {
	return rtpOf(seq, timestamp, ssrc, 160)
}

func rtpOf(seq uint16, timestamp, ssrc uint32, size int) []byte {
	p := []byte{
		0x80, 8, byte(seq >> 8), byte(seq),
		byte(timestamp >> 24), byte(timestamp >> 16), byte(timestamp >> 8), byte(timestamp),
		byte(ssrc >> 24), byte(ssrc >> 16), byte(ssrc >> 8), byte(ssrc),
	}
	for i := range size {
		p = append(p, byte(int(seq)*7+i))
	}
	return p
}

// rtcp is a receiver report without blocks.
func rtcp() []byte { return []byte{0x80, 201, 0, 1, 1, 2, 3, 4} }
