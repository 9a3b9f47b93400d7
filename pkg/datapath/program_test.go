package datapath

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket/layers"

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

// TestProgram is one row per gate and way out (M1, M3, M7): the packet, the verdict, the
// reason that is counted, and for what is sent the packet that comes out, byte by byte
// and with checksums that gopacket computes.
func TestProgram(t *testing.T) {
	const (
		plain = 20000 + 10*iota
		control
		held
		back
		toStack
		unresolved
		noDevice
		tagged
		untagged
		nobody
	)
	b := newBench(t, 100)
	b.hops.byRealm[5] = call.NextHop{}
	flows := map[uint16]func(*call.Flow){
		plain:    func(*call.Flow) {},
		control:  func(f *call.Flow) { f.RTCP = true },
		held:     func(f *call.Flow) { f.Hold = true },
		nobody:   func(f *call.Flow) { f.Remote = netip.AddrPort{} },
		tagged:   func(f *call.Flow) { f.Key.Realm = taggedPlatform; f.OutRealm = taggedCarrier },
		untagged: func(f *call.Flow) { f.Key.Realm = taggedPlatform },
		back: func(f *call.Flow) {
			f.OutRealm = taggedPlatform
			f.Source = netip.AddrPortFrom(platformAddr, back+2)
			f.Dest = platformPeer
		},
	}
	for port, change := range flows {
		f := toCarrier(port)
		change(&f)
		b.install(t, f)
	}
	// What Install does not make: a rule that is not to be sent, next hops that lead nowhere.
	rule := toRule(toCarrier(toStack), 0)
	b.table.activate(port(b, toStack), b.table.prepare(port(b, toStack), rule))
	rule = toRule(toCarrier(unresolved), 700)
	b.table.activate(port(b, unresolved), b.table.prepare(port(b, unresolved), rule))
	lost := tandemNextHop{Way: [2]tandemWay{{Len: 14, Device: 7}}}
	if err := b.objs.NextHops.Put(uint32(701), lost); err != nil {
		t.Fatal(err)
	}
	rule = toRule(toCarrier(noDevice), 701)
	b.table.activate(port(b, noDevice), b.table.prepare(port(b, noDevice), rule))

	in := func(port uint16, change ...func(*frame)) []byte {
		f := frame{src: platformPeer, dst: netip.AddrPortFrom(platformAddr, port), tos: 0x02, payload: rtp(1, 160, 1)}
		for _, c := range change {
			c(&f)
		}
		return f.build(t)
	}
	out := func(port uint16, change ...func(*frame)) []byte {
		f := frame{
			src: netip.AddrPortFrom(carrierAddr, port+2), dst: carrierPeer, ttl: 63,
			tos: 46<<2 | 0x02, payload: rtp(1, 160, 1), sent: true,
		}
		for _, c := range change {
			c(&f)
		}
		return f.build(t)
	}
	ip := func(mangle func(*layers.IPv4)) func(*frame) {
		return func(f *frame) { f.mangle = func(ip *layers.IPv4, _ *layers.UDP) { mangle(ip) } }
	}
	payload := func(p []byte) func(*frame) { return func(f *frame) { f.payload = p } }
	vlans := func(ids ...uint16) func(*frame) { return func(f *frame) { f.vlans = ids } }
	cut := func(in []byte, at int) []byte { return in[:at] }
	patch := func(in []byte, at int, value ...byte) []byte { copy(in[at:], value); return in }
	extension := append([]byte{0x8f}, rtp(1, 160, 1)[1:40]...) // 15 CSRCs announced, none there

	rows := []struct {
		name string
		in   []byte
		exit string
		out  []byte
	}{
		// parse: what is not plain UDP over IPv4 is the stack's.
		{"ARP", patch(in(plain), 12, 0x08, 0x06), "stack not-ipv4", nil},
		{"IPv6", patch(in(plain), 12, 0x86, 0xdd), "stack not-ipv4", nil},
		{"three tags", in(plain, vlans(1, 2, 3)), "stack not-ipv4", nil},
		{"IP options", patch(in(plain), 14, 0x46), "stack ip-options", nil},
		{"IP version 5", patch(in(plain), 14, 0x55), "stack malformed", nil},
		{"first fragment", in(plain, ip(func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })), "stack fragment", nil},
		{"later fragment", in(plain, ip(func(ip *layers.IPv4) { ip.FragOffset = 100 })), "stack fragment", nil},
		{"TCP", patch(in(plain), 23, 6), "stack not-udp", nil},
		{"half an IP header", cut(in(plain), 30), "stack malformed", nil},
		{"half a UDP header", cut(in(plain), 40), "stack malformed", nil},
		{"half a VLAN tag", cut(in(plain, vlans(201)), 16), "stack malformed", nil},
		{"shorter than its IP length", cut(in(plain), 100), "stack malformed", nil},
		{"UDP longer than IP", patch(in(plain), 38, 0xff, 0xff), "stack malformed", nil},
		{"UDP shorter than its header", patch(in(plain), 38, 0, 7), "stack malformed", nil},
		// realm
		{"VLAN without a realm", in(plain, vlans(999)), "stack no-realm", nil},
		{"two tags", in(plain, vlans(201, 201)), "stack no-realm", nil},
		{"another address", in(plain, func(f *frame) { f.dst = netip.AddrPortFrom(carrierAddr, plain) }), "stack not-local", nil},
		{"SIP", in(5060), "stack not-media", nil},
		{"below the media range", in(mediaPorts.First - 1), "stack not-media", nil},
		// flow
		{"media port without a flow", in(30000), "drop no-flow", nil},
		{"another realm's flow", in(tagged), "drop no-flow", nil},
		// source
		{"another port", in(plain, func(f *frame) { f.src = netip.AddrPortFrom(platformPeer.Addr(), 9) }), "drop source-refused", nil},
		{"another address of source", in(plain, func(f *frame) { f.src = carrierPeer }), "drop source-refused", nil},
		{"no remote known", in(nobody), "drop source-refused", nil},
		{"no remote known, source all zero", in(nobody, func(f *frame) { f.src = netip.MustParseAddrPort("0.0.0.0:0") }), "drop source-refused", nil},
		// RTP and RTCP
		{"RTP version 1", in(plain, payload(patch(rtp(1, 1, 1), 0, 0x40))), "drop not-rtp", nil},
		{"STUN", in(plain, payload(append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...))), "drop not-rtp", nil},
		{"empty datagram", in(plain, payload(nil)), "drop not-rtp", nil},
		{"half an RTP header", in(plain, payload(rtp(1, 1, 1)[:11])), "drop not-rtp", nil},
		{"contributors beyond the end", in(plain, payload(extension)), "drop not-rtp", nil},
		{"RTP on an RTCP port", in(control), "drop not-rtcp", nil},
		{"half an RTCP header", in(control, payload(rtcp()[:4])), "drop not-rtcp", nil},
		// next hop
		{"hold", in(held), "drop hold", nil},
		{"not the kernel's to send", in(toStack), "stack egress", nil},
		{"next hop unresolved", in(unresolved), "drop no-next-hop", nil},
		{"last hop", in(plain, func(f *frame) { f.ttl = 1 }), "drop ttl-expired", nil},
		{"no hop left", in(plain, ip(func(ip *layers.IPv4) { ip.TTL = 0 })), "drop ttl-expired", nil},
		{"device gone", in(noDevice), "drop no-device", nil},
		// sent
		{"RTP", in(plain), "forward forwarded", out(plain)},
		{"padding behind the packet", append(in(plain), 0, 0, 0), "forward forwarded", append(out(plain), 0, 0, 0)},
		{"RTP with one byte", in(plain, payload(rtpOf(1, 1, 1, 1))), "forward forwarded", out(plain, payload(rtpOf(1, 1, 1, 1)))},
		{"RTCP", in(control, payload(rtcp())), "forward forwarded", out(control, payload(rtcp()))},
		{"RTCP on the RTP port", in(plain, payload(rtcp())), "forward forwarded", out(plain, payload(rtcp()))},
		{"no UDP checksum", in(plain, func(f *frame) { f.noSum = true }), "forward forwarded", out(plain, func(f *frame) { f.noSum = true })},
		{"TTL 2", in(plain, func(f *frame) { f.ttl = 2 }), "forward forwarded", out(plain, func(f *frame) { f.ttl = 1 })},
		{"DSCP taken off, congestion kept", in(plain, func(f *frame) { f.tos = 0xff }), "forward forwarded", out(plain, func(f *frame) { f.tos = 46<<2 | 3 })},
		{"tag to tag", in(tagged, vlans(201)), "forward forwarded", out(tagged, vlans(202))},
		{"tag to none", in(untagged, vlans(201)), "forward forwarded", out(untagged)},
		{
			"none to tag, back where it came from", in(back), "forward forwarded",
			out(back, vlans(201), func(f *frame) { f.src = netip.AddrPortFrom(platformAddr, back+2); f.dst = platformPeer }),
		},
		{"priority tag is no VLAN", in(plain, vlans(0)), "forward forwarded", out(plain)},
	}
	left := map[string]bool{}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			before := b.exits(t)
			verdict, got := b.run(t, row.in)
			for exit, n := range b.exits(t) {
				switch d := n - before[exit]; {
				case exit == row.exit && d != 1:
					t.Errorf("%s counted %d times", exit, d)
				case exit != row.exit && d != 0:
					t.Errorf("left by %s instead of %s", exit, row.exit)
				}
			}
			left[row.exit] = true
			want := map[string]uint32{"stack": xdpPass, "drop": xdpDrop, "forward": xdpRedirect}[strings.Fields(row.exit)[0]]
			if row.name == "none to tag, back where it came from" {
				want = xdpTX
			}
			if verdict != want {
				t.Errorf("XDP action %d, want %d", verdict, want)
			}
			if row.out == nil {
				row.out = row.in // what the stack gets is untouched
			}
			if verdict != xdpDrop && !bytes.Equal(got, row.out) {
				t.Errorf("sent\n%x\nwant\n%x", got, row.out)
			}
		})
	}
	for exit := range b.exits(t) {
		// A program run has 256 bytes of headroom, and a tag takes 4.
		if !left[exit] && exit != "drop no-headroom" {
			t.Errorf("no row leaves by %q", exit)
		}
	}
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
	rule := tandemRule{Remote: addr4(f.Remote.Addr()), RemotePort: port16(f.Remote.Port())}
	b.table.activate(port(b, 20000), b.table.prepare(port(b, 20000), rule))
	if verdict, _ := b.run(t, in); verdict != xdpPass {
		t.Errorf("rule with a remote only: action %d instead of the stack", verdict)
	}
	rule.Flags = tandemRuleFlagRULE_SEND
	b.table.activate(port(b, 20000), b.table.prepare(port(b, 20000), rule))
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

// TestVerifierBudget keeps the program far below the verifier's limits, so that the gates
// to come have room on the oldest kernel too.
func TestVerifierBudget(t *testing.T) {
	b := newBench(t, 1)
	info, err := b.objs.TandemXdp.Info()
	if err != nil {
		t.Fatal(err)
	}
	steps, ok := info.VerifiedInstructions()
	if !ok {
		t.Fatal("the kernel does not say how many instructions it verified")
	}
	const limit = 20000 // of a million
	if steps > limit {
		t.Errorf("%d instructions verified, more than %d", steps, limit)
	}
	t.Logf("%d instructions verified", steps)
}
