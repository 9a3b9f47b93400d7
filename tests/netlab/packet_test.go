package netlab

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// frame builds a packet with gopacket, so that our reading is checked by another's writing.
func frame(t *testing.T, tags []uint16, tos uint8, payload []byte) []byte {
	t.Helper()
	eth := &layers.Ethernet{
		SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2},
		EthernetType: layers.EthernetTypeIPv4,
	}
	stack := []gopacket.SerializableLayer{eth}
	for range tags {
		eth.EthernetType = layers.EthernetTypeDot1Q
	}
	for i, id := range tags {
		tag := &layers.Dot1Q{VLANIdentifier: id, Type: layers.EthernetTypeDot1Q}
		if i == len(tags)-1 {
			tag.Type = layers.EthernetTypeIPv4
		}
		stack = append(stack, tag)
	}
	ip := &layers.IPv4{
		Version: 4, TTL: 63, TOS: tos, Protocol: layers.IPProtocolUDP,
		SrcIP: net.IP{10, 71, 0, 10}, DstIP: net.IP{10, 72, 0, 10},
	}
	udp := &layers.UDP{SrcPort: 6000, DstPort: 16384}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	stack = append(stack, ip, udp, gopacket.Payload(payload))
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, stack...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func rtpPacket(seq uint16, ssrc uint32, payload []byte) []byte {
	b := make([]byte, 12, 12+len(payload))
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*160)
	binary.BigEndian.PutUint32(b[8:], ssrc)
	return append(b, payload...)
}

func TestParseUDP(t *testing.T) {
	payload := []byte("an odd length")
	for _, tags := range [][]uint16{nil, {201}, {10, 201}} {
		d, ok := parseUDP(frame(t, tags, 46<<2|1, payload))
		if !ok {
			t.Fatalf("tags %v: not recognised", tags)
		}
		if d.src != netip.MustParseAddrPort("10.71.0.10:6000") || d.dst != netip.MustParseAddrPort("10.72.0.10:16384") {
			t.Errorf("tags %v: %v to %v", tags, d.src, d.dst)
		}
		if d.dscp != 46 || d.ttl != 63 || !d.checksumOK || !bytes.Equal(d.payload, payload) {
			t.Errorf("tags %v: DSCP %d, TTL %d, checksum ok %v, payload %q", tags, d.dscp, d.ttl, d.checksumOK, d.payload)
		}
	}
}

// TestParseUDPSeesDamage: one flipped bit anywhere in what the checksums cover is seen.
func TestParseUDPSeesDamage(t *testing.T) {
	whole := frame(t, nil, 0, []byte("longer than Ethernet pads"))
	for i := etherHeaderLen; i < len(whole); i++ {
		damaged := bytes.Clone(whole)
		damaged[i] ^= 0x10
		if d, ok := parseUDP(damaged); ok && d.checksumOK {
			t.Errorf("bit flipped in byte %d: checksums still right", i)
		}
	}
	none := bytes.Clone(whole)
	none[etherHeaderLen+26], none[etherHeaderLen+27] = 0, 0
	if d, ok := parseUDP(none); !ok || d.checksumOK {
		t.Errorf("UDP without a checksum: recognised %v, ok %v", ok, d.checksumOK)
	}
}

func TestParseUDPRefuses(t *testing.T) {
	whole := frame(t, nil, 0, []byte("longer than Ethernet pads"))
	for n := range len(whole) {
		if _, ok := parseUDP(whole[:n]); ok {
			t.Errorf("a frame cut to %d of %d bytes passes", n, len(whole))
		}
	}
	fragment := bytes.Clone(whole)
	fragment[etherHeaderLen+6] |= 0x20 // more fragments
	if _, ok := parseUDP(fragment); ok {
		t.Error("a fragment passes")
	}
}

func TestClassify(t *testing.T) {
	for _, tt := range []struct {
		name    string
		payload []byte
		want    kind
	}{
		{"RTP", rtpPacket(1, 2, []byte{3}), kindRTP},
		{"RTCP receiver report", []byte{0x80, 201, 0, 1, 0, 0, 0, 1}, kindRTCP},
		{"SIP request", []byte("OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\n\r\n"), kindSIP},
		{"SIP response", []byte("SIP/2.0 200 OK\r\n\r\n"), kindSIP},
		{"keep-alive", []byte("\r\n\r\n"), kindOther},
		{"empty", nil, kindOther},
		{"RTP cut short", rtpPacket(1, 2, nil)[:11], kindOther},
	} {
		if got := classify(tt.payload); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}
