package datapath

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// toCarrier is the flow of the rows below: what the platform's peer sends goes to the
// carrier's.
func toCarrier(port uint16) call.Flow {
	return call.Flow{
		Key:       call.FlowKey{Realm: platform, Local: netip.AddrPortFrom(platformAddr, port)},
		Remote:    platformPeer,
		OutRealm:  carrier,
		Source:    netip.AddrPortFrom(carrierAddr, port+2),
		Dest:      carrierPeer,
		DSCP:      46,
		ClockRate: 8000,
	}
}

// run sends one frame through the program.
func (b *bench) run(tb testing.TB, in []byte) (verdict uint32, out []byte) {
	tb.Helper()
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64)}
	verdict, err := b.objs.TandemXdp.Run(opts)
	if err != nil {
		tb.Fatal(err)
	}
	return verdict, opts.DataOut
}

// port is the index of a port of the platform realm in the flow table.
func port(b *bench, p uint16) uint32 { return b.realms[platform].flow(p) }

// TestChecksums compares the incremental checksums with computed ones over random
// addresses, ports and payloads, and over the one payload in 65,536 for which the UDP
// checksum becomes zero, which means none and so is sent as its complement (RFC 768).
func TestChecksums(t *testing.T) {
	b := newBench(t, 100)
	rnd := rand.New(rand.NewPCG(3, 4))
	addr := func() netip.Addr {
		return netip.AddrFrom4([4]byte{byte(1 + rnd.IntN(200)), byte(rnd.Uint32()), byte(rnd.Uint32()), byte(rnd.Uint32())})
	}
	check := func(f call.Flow, ttl, tos uint8, payload []byte) {
		t.Helper()
		b.install(t, f)
		in := frame{src: f.Remote, dst: f.Key.Local, ttl: ttl, tos: tos, payload: payload}.build(t)
		_, got := b.run(t, in)
		want := frame{src: f.Source, dst: f.Dest, ttl: ttl - 1, tos: tos&3 | f.DSCP<<2, payload: payload, sent: true}.build(t)
		if !bytes.Equal(got, want) {
			t.Fatalf("flow %+v: sent\n%x\nwant\n%x", f, got, want)
		}
	}
	for range 500 {
		f := toCarrier(20000)
		f.Remote = netip.AddrPortFrom(addr(), uint16(1+rnd.IntN(65535)))
		f.Dest = netip.AddrPortFrom(addr(), uint16(1+rnd.IntN(65535)))
		f.Source = netip.AddrPortFrom(carrierAddr, uint16(1+rnd.IntN(65535)))
		f.DSCP = uint8(rnd.IntN(64))
		check(f, uint8(2+rnd.IntN(254)), uint8(rnd.Uint32()), rtpOf(uint16(rnd.Uint32()), rnd.Uint32(), rnd.Uint32(), rnd.IntN(200)))
	}

	f := toCarrier(20000)
	payload := rtpOf(1, 1, 1, 4)
	sent := frame{src: f.Source, dst: f.Dest, payload: payload, sent: true}.build(t)
	// Adding a checksum to the words that it covers makes the sum all ones, that is: zero.
	sum := uint32(binary.BigEndian.Uint16(sent[40:])) + uint32(binary.BigEndian.Uint16(payload[14:]))
	binary.BigEndian.PutUint16(payload[14:], uint16(sum+sum>>16))
	sent = frame{src: f.Source, dst: f.Dest, payload: payload, sent: true}.build(t)
	if sum := binary.BigEndian.Uint16(sent[40:]); sum != 0xffff && sum != 0 {
		t.Fatalf("checksum %04x: this payload was to make it zero", sum)
	}
	b.install(t, f)
	_, got := b.run(t, frame{src: f.Remote, dst: f.Key.Local, payload: payload}.build(t))
	if sum := binary.BigEndian.Uint16(got[40:]); sum != 0xffff {
		t.Errorf("a checksum of zero is sent as %04x", sum)
	}
}

// TestAllZeroIsSafe: with nothing configured every packet is the stack's, and a flow whose
// rule is all zero lets nobody in.
func TestAllZeroIsSafe(t *testing.T) {
	b := newBench(t, 1)
	f := toCarrier(20000)
	in := frame{src: f.Remote, dst: f.Key.Local, payload: rtp(1, 1, 1)}.build(t)

	b.table.activate(port(b, 20000), 1)
	if verdict, _ := b.run(t, in); verdict != xdpDrop {
		t.Errorf("zero rule: action %d instead of a drop", verdict)
	}
	rule := tandemRule{Remote: addr4(f.Remote.Addr()), RemotePort: port16(f.Remote.Port()), Flags: tandemRuleFlagRULE_ANY}
	b.table.activate(port(b, 20000), b.table.prepare(port(b, 20000), call.Flow{}, rule, 0))
	if verdict, _ := b.run(t, in); verdict != xdpPass {
		t.Errorf("rule with a remote only: action %d instead of the stack", verdict)
	}
	rule.Egress = tandemEgressEGRESS_NEXT_HOP
	b.table.activate(port(b, 20000), b.table.prepare(port(b, 20000), call.Flow{}, rule, 0))
	if verdict, _ := b.run(t, in); verdict != xdpDrop {
		t.Errorf("next hop 0: action %d instead of a drop", verdict)
	}
	for at := range uint32(2 * vlans) {
		if err := b.objs.Realms.Put(at, tandemRealm{}); err != nil {
			t.Fatal(err)
		}
	}
	if verdict, _ := b.run(t, in); verdict != xdpPass {
		t.Errorf("no realm: action %d instead of the stack", verdict)
	}
}
