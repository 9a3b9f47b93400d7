package datapath

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var update = flag.Bool("update", false, "rewrite the golden files, docs/gates.md among them")

// gateRow is a packet and what becomes of it: by XDP, and by TC on a device that XDP does
// not serve.
type gateRow struct {
	gate, name string
	in         []byte
	// exit is how it leaves, "verdict reason". tc is how it leaves TC if otherwise.
	exit, tc string
	// out is what is sent; nil for what is dropped, and for what the stack gets as it came.
	out []byte
	// before is how often the same packet went ahead.
	before int
	// segments makes it several packets in one (TC only).
	segments bool
	// back means that it leaves by the device it came by.
	back bool
}

const onlyTC, onlyXDP = "not by XDP", "not by TC"

// The ports of the rows' flows.
const (
	plainPort = 20000 + 10*iota
	controlPort
	heldPort
	backPort
	toStackPort
	unresolvedPort
	noDevicePort
	taggedPort
	untaggedPort
	nobodyPort
	termsPort
	lawPort
	muxPort
	neighbourPort
	barePort
	doublePort
)

// installGateFlows makes a flow for each way through the gates.
func installGateFlows(t *testing.T, b *bench) {
	t.Helper()
	flows := map[uint16]func(*call.Flow){
		plainPort:    func(*call.Flow) {},
		controlPort:  func(f *call.Flow) { f.RTCP = true },
		heldPort:     func(f *call.Flow) { f.Hold = true },
		nobodyPort:   func(f *call.Flow) { f.Remote = netip.AddrPort{} },
		taggedPort:   func(f *call.Flow) { f.Key.Realm, f.OutRealm = taggedPlatform, taggedCarrier },
		untaggedPort: func(f *call.Flow) { f.Key.Realm = taggedPlatform },
		backPort: func(f *call.Flow) {
			f.OutRealm = taggedPlatform
			f.Source = netip.AddrPortFrom(platformAddr, backPort+2)
			f.Dest = platformPeer
		},
		termsPort: func(f *call.Flow) {
			f.Payloads = []call.Payload{{In: 8, Out: 8}, {In: 96, Out: 101, Treatment: call.TelephoneEvent}, {In: 13, Out: 13}}
		},
		lawPort: func(f *call.Flow) {
			f.Payloads = []call.Payload{{In: 8, Out: 0, Treatment: call.ALawToULaw}, {In: 0, Out: 8, Treatment: call.ULawToALaw}}
		},
		muxPort:     func(f *call.Flow) { f.Mux = true },
		muxPort + 1: func(f *call.Flow) { f.RTCP = true },
		doublePort: func(f *call.Flow) {
			f.Key.Realm, f.OutRealm = doubleTagged, doubleTagged
			f.Source = netip.AddrPortFrom(platformAddr, doublePort+2)
			f.Dest = platformPeer
		},
	}
	for port, change := range flows {
		f := toCarrier(port)
		change(&f)
		b.install(t, f)
	}
	// What Install does not make: a rule that is not to be sent, next hops that lead nowhere
	// or by other ways.
	hops := map[uint16]tandemWay{
		unresolvedPort: {},
		noDevicePort:   {Kind: tandemWayKindWAY_LINK, Len: 14, Device: 4711},
		neighbourPort:  {Kind: tandemWayKindWAY_NEIGHBOUR, Device: uint32(b.carrier)},
		barePort:       {Kind: tandemWayKindWAY_BARE, Device: uint32(b.carrier)},
	}
	id := uint16(700)
	for port, way := range hops {
		id++
		copy(way.L2[:], l2(0))
		hop := tandemNextHop{Way: [2]tandemWay{way}, Source: addr4(carrierAddr)}
		if err := b.objs.NextHops.Put(uint32(id), hop); err != nil {
			t.Fatal(err)
		}
		setRule(b, port, toRule(toCarrier(port), id))
	}
	setRule(b, toStackPort, toRule(toCarrier(toStackPort), 0))
}

// setRule puts a rule into the table by itself.
func setRule(b *bench, p uint16, rule tandemRule) {
	at := port(b, p)
	b.table.activate(at, b.table.prepare(at, call.Flow{}, rule, 0))
}

// gateIn is a packet of the platform's peer as it arrives, gateOut the same as it leaves.
func gateIn(t *testing.T, port uint16, change ...func(*frame)) []byte {
	t.Helper()
	f := frame{src: platformPeer, dst: netip.AddrPortFrom(platformAddr, port), tos: 0x02, payload: rtp(1, 160, 1)}
	for _, c := range change {
		c(&f)
	}
	return f.build(t)
}

func gateOut(t *testing.T, port uint16, change ...func(*frame)) []byte {
	t.Helper()
	f := frame{
		src: netip.AddrPortFrom(carrierAddr, port+2), dst: carrierPeer, ttl: 63,
		tos: 46<<2 | 0x02, payload: rtp(1, 160, 1), sent: true,
	}
	for _, c := range change {
		c(&f)
	}
	return f.build(t)
}

func withPayload(p []byte) func(*frame)    { return func(f *frame) { f.payload = p } }
func withVLANs(ids ...uint16) func(*frame) { return func(f *frame) { f.vlans = ids } }
func withSource(a string) func(*frame)     { return func(f *frame) { f.src = netip.MustParseAddrPort(a) } }
func withIP(m func(*layers.IPv4)) func(*frame) {
	return func(f *frame) { f.mangle = func(ip *layers.IPv4, _ *layers.UDP) { m(ip) } }
}

func patch(in []byte, at int, value ...byte) []byte { copy(in[at:], value); return in }

// options makes a packet's first 32 bits behind IP its options, and the next ones its ports.
func options(in []byte, port uint16) []byte {
	binary.BigEndian.PutUint16(in[14+24+2:], port)
	return patch(in, 14, 0x46)
}

// typed is RTP of a payload type, octets of sound behind a header of that many contributors.
func typed(pt uint8, contributors int, octets ...byte) []byte {
	p := rtpOf(1, 160, 1, 0)
	p[0] |= byte(contributors)
	p[1] = p[1]&0x80 | pt
	return append(append(p, make([]byte, 4*contributors)...), octets...)
}

func gateRows(t *testing.T) []gateRow {
	in := func(port uint16, change ...func(*frame)) []byte { return gateIn(t, port, change...) }
	out := func(port uint16, change ...func(*frame)) []byte { return gateOut(t, port, change...) }
	contributors := append([]byte{0x8f}, rtp(1, 160, 1)[1:40]...) // 15 announced, none there
	long := make([]byte, 1600)
	stun := append([]byte{0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42}, make([]byte, 12)...)
	event := []byte{5, 10, 0, 160}

	return []gateRow{
		{gate: "parse", name: "ARP", in: patch(in(plainPort), 12, 0x08, 0x06), exit: "stack not-ipv4"},
		{gate: "parse", name: "IPv6", in: patch(in(plainPort), 12, 0x86, 0xdd), exit: "stack not-ipv4"},
		{gate: "parse", name: "three tags", in: in(plainPort, withVLANs(1, 2, 3)), exit: "stack not-ipv4"},
		{gate: "parse", name: "IP version 5", in: patch(in(plainPort), 14, 0x55), exit: "stack malformed"},
		{gate: "parse", name: "half an IP header", in: in(plainPort)[:30], exit: "stack malformed", tc: onlyXDP},
		{gate: "parse", name: "half a VLAN tag", in: in(plainPort, withVLANs(201))[:16], exit: "stack malformed"},
		{gate: "parse", name: "several packets in one (GSO)", in: in(plainPort), exit: onlyTC, tc: "stack segments", segments: true},

		{gate: "find_realm", name: "VLAN without a realm", in: in(plainPort, withVLANs(999)), exit: "stack no-realm"},
		{gate: "find_realm", name: "a priority tag before the VLAN", in: in(untaggedPort, withVLANs(0, 201)), exit: "forward forwarded", out: out(untaggedPort)},
		{gate: "find_realm", name: "a priority tag behind the VLAN", in: in(untaggedPort, withVLANs(201, 0)), exit: "forward forwarded", out: out(untaggedPort)},
		{gate: "find_realm", name: "two tags without a realm", in: in(plainPort, withVLANs(201, 201)), exit: "stack no-realm"},

		{gate: "guard", name: "media with IP options", in: options(in(plainPort), plainPort), exit: "drop not-plain"},
		{gate: "guard", name: "media in fragments", in: in(plainPort, withIP(func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })), exit: "drop not-plain"},
		{gate: "guard", name: "IP options", in: options(in(5060), 5060), exit: "stack ip-options"},
		{gate: "guard", name: "first fragment", in: in(5060, withIP(func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })), exit: "stack fragment"},
		{gate: "guard", name: "later fragment", in: in(plainPort, withIP(func(ip *layers.IPv4) { ip.FragOffset = 100 })), exit: "stack fragment"},
		{gate: "guard", name: "TCP", in: patch(in(plainPort), 23, 6), exit: "stack not-udp"},
		{gate: "guard", name: "half a UDP header", in: in(plainPort)[:40], exit: "stack malformed"},
		{gate: "guard", name: "shorter than its IP length", in: in(plainPort)[:100], exit: "stack malformed"},
		{gate: "guard", name: "UDP longer than IP", in: patch(in(plainPort), 38, 0xff, 0xff), exit: "stack malformed"},
		{gate: "guard", name: "UDP shorter than its header", in: patch(in(plainPort), 38, 0, 7), exit: "stack malformed"},
		{gate: "guard", name: "another address", in: in(plainPort, func(f *frame) { f.dst = netip.AddrPortFrom(carrierAddr, plainPort) }), exit: "stack not-local"},
		{gate: "guard", name: "SIP of a known peer", in: in(5060), exit: "stack not-media"},
		{gate: "guard", name: "SIP of a known peer, again and again", in: in(5060), before: 5, exit: "stack not-media"},
		{gate: "guard", name: "below the media range", in: in(mediaPorts.First - 1), exit: "stack not-media"},
		{gate: "guard", name: "SIP of a stranger", in: in(5060, withSource("192.0.2.66:5060")), exit: "stack not-media"},
		{gate: "guard", name: "SIP of a stranger beyond his budget", in: in(5060, withSource("192.0.2.67:5060")), before: 3, exit: "drop sip-budget"},
		{gate: "guard", name: "other UDP of a stranger", in: in(53, withSource("192.0.2.68:5060")), exit: "stack not-media"},
		{gate: "guard", name: "other UDP of a stranger beyond his budget", in: in(53, withSource("192.0.2.69:5060")), before: 3, exit: "drop udp-budget"},
		{gate: "guard", name: "SIP of a denied source", in: in(5060, withSource("203.0.113.7:5060")), exit: "drop denied"},
		{gate: "guard", name: "TCP of a denied source", in: patch(in(5060, withSource("203.0.113.7:5060")), 23, 6), exit: "drop denied"},

		{gate: "find_flow", name: "media port without a flow", in: in(30000), exit: "drop no-flow"},
		{gate: "find_flow", name: "another realm's flow", in: in(taggedPort), exit: "drop no-flow"},

		{gate: "check_source", name: "another port", in: in(plainPort, withSource("192.0.2.10:9")), exit: "drop source-refused"},
		{gate: "check_source", name: "another address of source", in: in(plainPort, func(f *frame) { f.src = carrierPeer }), exit: "drop source-refused"},
		{gate: "check_source", name: "no remote known", in: in(nobodyPort), exit: "drop source-refused"},
		{gate: "check_source", name: "no remote known, source all zero", in: in(nobodyPort, withSource("0.0.0.0:0")), exit: "drop source-refused"},

		{gate: "check_rtp", name: "RTP version 1", in: in(plainPort, withPayload(patch(rtp(1, 1, 1), 0, 0x40))), exit: "drop not-rtp"},
		{gate: "check_rtp", name: "STUN", in: in(plainPort, withPayload(stun)), exit: "drop not-rtp"},
		{gate: "check_rtp", name: "empty datagram", in: in(plainPort, withPayload(nil)), exit: "drop not-rtp"},
		{gate: "check_rtp", name: "half an RTP header", in: in(plainPort, withPayload(rtp(1, 1, 1)[:11])), exit: "drop not-rtp"},
		{gate: "check_rtp", name: "contributors beyond the end", in: in(plainPort, withPayload(contributors)), exit: "drop not-rtp"},
		{gate: "check_rtp", name: "RTP on an RTCP port", in: in(controlPort), exit: "drop not-rtcp"},
		{gate: "check_rtp", name: "half an RTCP header", in: in(controlPort, withPayload(rtcp()[:4])), exit: "drop not-rtcp"},
		{gate: "check_rtp", name: "payload type not agreed on", in: in(termsPort, withPayload(typed(18, 0, 1, 2, 3))), exit: "drop payload-type"},

		{gate: "demultiplex", name: "RTCP among RTP, agreed on", in: in(muxPort, withPayload(rtcp())), exit: "forward forwarded", out: out(muxPort+1, withPayload(rtcp()))},
		{gate: "find_next_hop", name: "not ours to send", in: in(toStackPort), exit: "stack egress"},
		{gate: "find_next_hop", name: "address resolved by the stack", in: in(neighbourPort), exit: "stack tc", tc: "forward forwarded", out: nil},
		{gate: "find_next_hop", name: "device without link layer", in: in(barePort), exit: "stack tc", tc: "forward forwarded", out: nil},

		{gate: "may_leave", name: "hold", in: in(heldPort), exit: "drop hold"},
		{gate: "may_leave", name: "no way known", in: in(unresolvedPort), exit: "drop no-next-hop"},
		{gate: "may_leave", name: "last hop", in: in(plainPort, func(f *frame) { f.ttl = 1 }), exit: "drop ttl-expired"},
		{gate: "may_leave", name: "no hop left", in: in(plainPort, withIP(func(ip *layers.IPv4) { ip.TTL = 0 })), exit: "drop ttl-expired"},

		{gate: "treat", name: "payload type as it is", in: in(termsPort), exit: "forward forwarded", out: out(termsPort)},
		{gate: "treat", name: "telephone-event 96 to 101", in: in(termsPort, withPayload(typed(96, 0, event...))), exit: "forward forwarded", out: out(termsPort, withPayload(typed(101, 0, event...)))},
		{gate: "treat", name: "the marker stays", in: in(termsPort, withPayload(typed(0x80|96, 0, event...))), exit: "forward forwarded", out: out(termsPort, withPayload(typed(0x80|101, 0, event...)))},
		{gate: "treat", name: "comfort noise", in: in(termsPort, withPayload(typed(13, 0, 60))), exit: "forward forwarded", out: out(termsPort, withPayload(typed(13, 0, 60)))},
		{gate: "treat", name: "A-law to mu-law", in: in(lawPort, withPayload(typed(8, 0, 0xd5, 0x55, 0x00, 0x80, 0x2a))), exit: "forward forwarded", out: out(lawPort, withPayload(typed(0, 0, 0xfe, 0x7e, 0x2a, 0xaa, 0x00)))},
		{gate: "treat", name: "A-law behind two contributors", in: in(lawPort, withPayload(typed(8, 2, 0xd5))), exit: "forward forwarded", out: out(lawPort, withPayload(typed(0, 2, 0xfe)))},
		{gate: "treat", name: "mu-law to A-law", in: in(lawPort, withPayload(typed(0, 0, 0xff, 0x7f))), exit: "forward forwarded", out: out(lawPort, withPayload(typed(8, 0, 0xd5, 0x55)))},
		{gate: "treat", name: "more sound than can be converted", in: in(lawPort, withPayload(typed(8, 0, long...))), exit: "drop too-long"},

		{gate: "send", name: "device gone", in: in(noDevicePort), exit: "drop no-device", tc: "forward forwarded"},
		{gate: "send", name: "RTP", in: in(plainPort), exit: "forward forwarded", out: out(plainPort)},
		{gate: "send", name: "padding behind the packet", in: append(in(plainPort), 0, 0, 0), exit: "forward forwarded", out: append(out(plainPort), 0, 0, 0)},
		{gate: "send", name: "RTP with one byte", in: in(plainPort, withPayload(rtpOf(1, 1, 1, 1))), exit: "forward forwarded", out: out(plainPort, withPayload(rtpOf(1, 1, 1, 1)))},
		{gate: "send", name: "RTCP", in: in(controlPort, withPayload(rtcp())), exit: "forward forwarded", out: out(controlPort, withPayload(rtcp()))},
		{gate: "send", name: "RTCP among RTP, unasked", in: in(plainPort, withPayload(rtcp())), exit: "forward forwarded", out: out(plainPort, withPayload(rtcp()))},
		{gate: "send", name: "no UDP checksum", in: in(plainPort, func(f *frame) { f.noSum = true }), exit: "forward forwarded", out: out(plainPort, func(f *frame) { f.noSum = true })},
		{gate: "send", name: "TTL 2", in: in(plainPort, func(f *frame) { f.ttl = 2 }), exit: "forward forwarded", out: out(plainPort, func(f *frame) { f.ttl = 1 })},
		{gate: "send", name: "DSCP taken off, congestion kept", in: in(plainPort, func(f *frame) { f.tos = 0xff }), exit: "forward forwarded", out: out(plainPort, func(f *frame) { f.tos = 46<<2 | 3 })},
		{gate: "send", name: "tag to tag", in: in(taggedPort, withVLANs(201)), exit: "forward forwarded", out: out(taggedPort, withVLANs(202))},
		{gate: "send", name: "tag to none", in: in(untaggedPort, withVLANs(201)), exit: "forward forwarded", out: out(untaggedPort)},
		{
			gate: "send", name: "none to tag, back where it came from", in: in(backPort), exit: "forward forwarded", back: true,
			out: out(backPort, withVLANs(201), func(f *frame) { f.src = netip.AddrPortFrom(platformAddr, backPort+2); f.dst = platformPeer }),
		},
		{
			gate: "send", name: "two tags to two tags", in: in(doublePort, withVLANs(300, 201)), exit: "forward forwarded", back: true,
			out: out(doublePort, withVLANs(300, 201), func(f *frame) { f.src = netip.AddrPortFrom(platformAddr, doublePort+2); f.dst = platformPeer }),
		},
		{gate: "send", name: "priority tag is no VLAN", in: in(plainPort, withVLANs(0)), exit: "forward forwarded", out: out(plainPort)},
	}
}

// skbuff is the part of struct __sk_buff that a program run takes and gives: the fields up
// to gso_size.
type skbuff struct {
	Len, PktType, Mark, QueueMapping, Protocol, VlanPresent, VlanTCI, VlanProto, Priority uint32
	IngressIfindex, Ifindex, TCIndex                                                      uint32
	CB                                                                                    [5]uint32
	Hash, TCClassid, Data, DataEnd, NapiID, Family, RemoteIP4, LocalIP4                   uint32
	RemoteIP6, LocalIP6                                                                   [4]uint32
	RemotePort, LocalPort, DataMeta                                                       uint32
	FlowKeys, Tstamp                                                                      uint64
	WireLen, GSOSegs                                                                      uint32
	Sk                                                                                    uint64
	GSOSize, TstampType                                                                   uint32
	Hwtstamp                                                                              uint64
}

// runTC sends one frame through the TC program.
func (b *bench) runTC(tb testing.TB, in []byte, segments bool) (verdict uint32, out []byte, skb skbuff) {
	tb.Helper()
	given := skbuff{Mark: 7, Tstamp: 12345}
	if segments {
		given.GSOSize, given.GSOSegs = 100, 2
	}
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64), Context: given, ContextOut: &skb}
	verdict, err := b.objs.TandemTc.Run(opts)
	if err != nil {
		tb.Fatal(err)
	}
	return verdict, opts.DataOut, skb
}

// checkExit runs a packet and sees by which exit alone it leaves.
func (b *bench) checkExit(t *testing.T, exit string, run func()) {
	t.Helper()
	before := b.exits(t)
	run()
	for x, n := range b.exits(t) {
		switch d := n - before[x]; {
		case x == exit && d != 1:
			t.Errorf("%s counted %d times", x, d)
		case x != exit && d != 0:
			t.Errorf("left by %s instead of %s", x, exit)
		}
	}
}

// TestGates is one row per gate and way out (M1, M3, M5, M7, M14, A3): the packet, the
// verdict, the reason that is counted, and for what is sent the packet that comes out, byte
// by byte and with checksums that gopacket computes; by XDP and by TC. docs/gates.md is made
// of the rows.
func TestGates(t *testing.T) {
	rows := gateRows(t)
	xdp, tc := newBench(t, 100), newBench(t, 100)
	installGateFlows(t, xdp)
	installGateFlows(t, tc)
	left := map[string]bool{}
	for _, row := range rows {
		t.Run("XDP/"+row.name, func(t *testing.T) {
			if row.exit == onlyTC {
				return
			}
			left[row.exit] = true
			checkXDP(t, xdp, row)
		})
		t.Run("TC/"+row.name, func(t *testing.T) {
			exit := row.tcExit()
			if exit == onlyXDP { // the kernel makes no skb of it
				return
			}
			left[exit] = true
			checkTC(t, tc, row, exit)
		})
	}
	for exit := range xdp.exits(t) {
		// A program run has 256 bytes of headroom, and tags take 8.
		if !left[exit] && exit != "drop no-headroom" {
			t.Errorf("no row leaves by %q", exit)
		}
	}
	golden(t, "../../docs/gates.md", gatesTable(t, rows))
}

func (r gateRow) tcExit() string {
	if r.tc != "" {
		return r.tc
	}
	return r.exit
}

func checkXDP(t *testing.T, b *bench, row gateRow) {
	for range row.before {
		b.run(t, row.in)
	}
	b.checkExit(t, row.exit, func() {
		verdict, got := b.run(t, row.in)
		want := map[string]uint32{"stack": xdpPass, "drop": xdpDrop, "forward": xdpRedirect}[strings.Fields(row.exit)[0]]
		if row.back {
			want = xdpTX
		}
		if verdict != want {
			t.Errorf("XDP action %d, want %d", verdict, want)
		}
		sent := row.out
		if sent == nil {
			sent = row.in // what the stack gets is untouched
		}
		if verdict != xdpDrop && !bytes.Equal(got, sent) {
			t.Errorf("sent\n%x\nwant\n%x", got, sent)
		}
	})
}

func checkTC(t *testing.T, b *bench, row gateRow, exit string) {
	for range row.before {
		b.runTC(t, row.in, false)
	}
	b.checkExit(t, exit, func() {
		verdict, got, skb := b.runTC(t, row.in, row.segments)
		want := map[string]uint32{"stack": tcUnspec, "drop": tcShot, "forward": tcRedirect}[strings.Fields(exit)[0]]
		if verdict != want {
			t.Errorf("TC action %d, want %d", int32(verdict), int32(want))
		}
		switch {
		case verdict == tcRedirect && (skb.Mark != 0 || skb.Tstamp != 0 || skb.QueueMapping != 0):
			t.Errorf("leaves with mark %d, time %d, queue %d", skb.Mark, skb.Tstamp, skb.QueueMapping)
		case verdict == tcUnspec && (skb.Mark != 7 || !bytes.Equal(got, row.in)):
			t.Errorf("the stack gets mark %d and\n%x\nwant mark 7 and\n%x", skb.Mark, got, row.in)
		case verdict == tcRedirect && row.out != nil && !bytes.Equal(got, withoutFirstTag(row.out)):
			// The kernel keeps an skb's first tag beside the frame, and puts it in when it sends.
			t.Errorf("sent\n%x\nwant\n%x", got, withoutFirstTag(row.out))
		}
	})
}

func withoutFirstTag(frame []byte) []byte {
	if frame[12] != 0x81 || frame[13] != 0 {
		return frame
	}
	return append(bytes.Clone(frame[:12]), frame[16:]...)
}

// golden compares text with a file, or writes it with -update.
func golden(t *testing.T, file, text string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if text != string(want) {
		t.Errorf("%s is stale: run go test ./pkg/datapath -run %s -update", file, t.Name())
	}
}

// gatesTable is docs/gates.md.
func gatesTable(t *testing.T, rows []gateRow) string {
	var text strings.Builder
	text.WriteString(`# Every gate and every way out

Generated by ` + "`go test ./pkg/datapath -run TestGates -update`" + ` from rows that run on the kernel, in XDP and in TC. The
flows of the rows take 192.0.2.10:20000 (the platform's peer) at 192.0.2.2 to 198.51.100.10:30000 (the carrier's) from
198.51.100.2, with DSCP 46. A packet that a row does not show leaving is dropped, or reaches the stack as it came.

| gate | packet | comes as | XDP | TC | leaves as |
|---|---|---|---|---|---|
`)
	for _, row := range rows {
		out := ""
		if row.out != nil {
			out = describeFrame(row.out)
		}
		fmt.Fprintf(&text, "| %s | %s | %s | %s | %s | %s |\n", row.gate, row.name, describeFrame(row.in), row.exit, row.tcExit(), out)
	}
	return text.String()
}

// describeFrame says what a frame is, in the order of its headers.
func describeFrame(frame []byte) string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	packet := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	for _, layer := range packet.Layers() {
		switch l := layer.(type) {
		case *layers.Dot1Q:
			add("VLAN %d", l.VLANIdentifier)
		case *layers.IPv4:
			add("%s > %s, TTL %d, TOS 0x%02x", l.SrcIP, l.DstIP, l.TTL, l.TOS)
		case *layers.UDP:
			add("ports %d > %d", uint16(l.SrcPort), uint16(l.DstPort))
			if p := l.Payload; len(p) >= 12 && p[0]>>6 == 2 && (p[1] < 192 || p[1] > 223) {
				add("RTP type %d, %d bytes", p[1]&0x7f, len(p)-12)
			} else {
				add("%d bytes", len(p))
			}
		}
	}
	if len(words) == 0 {
		return fmt.Sprintf("%d bytes", len(frame))
	}
	return strings.Join(words, ", ")
}
