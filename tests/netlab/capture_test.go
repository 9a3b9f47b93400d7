package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// TestCapture: what one host sends to another over the router is seen at both, in
// order and whole, with TTL, DSCP and checksums as they are on the wire.
func TestCapture(t *testing.T) {
	lab := up(t, Default(true))
	captures := map[string]*Capture{}
	for _, host := range []string{Platform, CarrierA} {
		c, err := lab.Capture(host, PeerDevice)
		if err != nil {
			t.Fatal(err)
		}
		captures[host] = c
	}
	const packets = 500
	from := netip.AddrPortFrom(RealmOf(Platform).Peer, 6000)
	to := netip.AddrPortFrom(RealmOf(CarrierA).Peer, 6000)
	var conn *net.UDPConn
	err := lab.Do(Platform, func() (err error) {
		conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range packets {
		// Nobody listens there: a write may report the ICMP error of an earlier one instead.
		packet := rtpPacket(uint16(i), 77, fmt.Appendf(nil, "packet %d", i))
		_, err := conn.Write(packet)
		if errors.Is(err, syscall.ECONNREFUSED) {
			_, err = conn.Write(packet)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for host, out := range map[string]bool{Platform: true, CarrierA: false} {
		log, err := captures[host].Stop()
		if err != nil {
			t.Fatal(err)
		}
		s := log.Streams[StreamKey{Src: from, Dst: to, SSRC: 77, Out: out}]
		if s == nil || len(log.Streams) != 1 {
			t.Fatalf("%s: streams %v", host, log.Streams)
		}
		if len(s.Packets) != packets {
			t.Fatalf("%s: %d packets, want %d", host, len(s.Packets), packets)
		}
		wantTTL := uint8(64)
		if !out {
			wantTTL-- // the router's
		}
		for i, p := range s.Packets {
			if p.Seq != uint16(i) || string(p.Payload) != fmt.Sprintf("packet %d", i) || !p.ChecksumOK || p.TTL != wantTTL || p.DSCP != 0 {
				t.Fatalf("%s: packet %d is %+v", host, i, p)
			}
		}
		if _, err := captures[host].Stop(); err != nil {
			t.Errorf("%s: second Stop: %v", host, err)
		}
	}
	if _, err := lab.Capture(Platform, "nodev0"); err == nil {
		t.Error("a capture on no device")
	}
}
