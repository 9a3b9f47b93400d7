package datapath

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

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

func withPort(port uint16) func(*frame) {
	return func(f *frame) { f.dst = netip.AddrPortFrom(f.dst.Addr(), port) }
}

func dontFragment(f *frame) { withIP(func(ip *layers.IPv4) { ip.Flags = layers.IPv4DontFragment })(f) }

// protocol makes an IP packet, in at most one tag, that of another protocol.
func protocol(in []byte, number byte) []byte {
	if isTag(in[12:]) {
		return patch(in, 18+9, number)
	}
	return patch(in, 14+9, number)
}

// twoFaced makes a packet begin with what stands behind 14 bytes, too.
func twoFaced(in []byte) []byte {
	copy(in[26:], []byte{0x08, 0x00})
	copy(in[28:34], in[14:20])
	copy(in, in[14:34])
	return in
}

// tellMTU is what the sender of a packet is told (RFC 1191 section 4): back to where the frame came from.
func tellMTU(t *testing.T, in []byte, swap bool) []byte {
	t.Helper()
	d, _ := takeApart(in)
	link := bytes.Clone(in[:d.link])
	if swap {
		copy(link, in[6:12])
		copy(link[6:], in[:6])
	}
	ip := &layers.IPv4{
		Version: 4, TOS: 0xc0, TTL: 64, Id: binary.BigEndian.Uint16(d.ip[4:]), Protocol: layers.IPProtocolICMPv4,
		SrcIP: d.dest.Addr().AsSlice(), DstIP: d.source.Addr().AsSlice(),
	}
	icmp := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: tunnelMTU}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, ip, icmp, gopacket.Payload(d.ip[:28])); err != nil {
		t.Fatal(err)
	}
	return append(link, buf.Bytes()...)
}

// options makes a packet's first 32 bits behind IP its options, and the next ones its ports.
func options(in []byte, port uint16) []byte { return optionsAt(in, 14, port) }

func optionsAt(in []byte, at int, port uint16) []byte {
	binary.BigEndian.PutUint16(in[at+24+2:], port)
	return patch(in, at, 0x46)
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
	// outer is a packet on the outer side of a tunnel.
	outer := func(change ...func(*frame)) []byte { return in(plainPort, append(change, withVLANs(underlayVLAN))...) }
	tooLarge := func() []byte { return in(mtuPort, dontFragment, withPayload(rtpOf(1, 160, 1, 161))) }

	return []gateRow{
		{gate: "parse_link", name: "half a VLAN tag", in: in(plainPort, withVLANs(201))[:16], exit: "stack malformed"},
		{gate: "parse_link", name: "a priority tag before two others", in: in(plainPort, withVLANs(0, 300, 201)), exit: "drop not-plain"},
		{gate: "parse_link", name: "priority tags behind a VLAN", in: in(plainPort, withVLANs(underlayVLAN, 0, 0)), exit: "drop not-plain"},
		{gate: "parse_link", name: "could begin at two places", in: twoFaced(in(plainPort)), exit: onlyTC, tc: "stack malformed", bare: true},

		{gate: "underlay", name: "ARP where tunnels end", in: patch(outer(), 16, 0x08, 0x06), exit: "stack not-ipv4"},
		{gate: "underlay", name: "LLDP where tunnels end", in: patch(outer(), 16, 0x88, 0xcc), exit: "stack not-ipv4"},
		{gate: "underlay", name: "ESP", in: protocol(outer(), 50), exit: "stack underlay"},
		{gate: "underlay", name: "ESP in fragments", in: protocol(outer(withIP(func(ip *layers.IPv4) { ip.FragOffset = 100 })), 50), exit: "stack underlay"},
		{gate: "underlay", name: "ESP of a denied source", in: protocol(outer(withSource("203.0.113.7:0")), 50), exit: "drop denied"},
		{gate: "underlay", name: "ICMP where tunnels end", in: protocol(outer(), 1), exit: "stack underlay"},
		{gate: "underlay", name: "IKE", in: outer(withPort(500)), exit: "stack underlay"},
		{gate: "underlay", name: "IKE with IP options", in: optionsAt(outer(withPort(500)), 18, 500), exit: "stack underlay"},
		{gate: "underlay", name: "IKE and ESP through NAT", in: outer(withPort(4500)), exit: "stack underlay"},
		{gate: "underlay", name: "IKE's first fragment", in: outer(withPort(500), withIP(func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })), exit: "stack underlay"},
		{gate: "underlay", name: "IKE's later fragment", in: outer(withIP(func(ip *layers.IPv4) { ip.FragOffset = 100 })), exit: "stack underlay"},
		{gate: "underlay", name: "media in clear", in: outer(), exit: "drop clear-text"},
		{gate: "underlay", name: "SIP in clear", in: outer(withPort(5060)), exit: "drop clear-text"},
		{gate: "underlay", name: "TCP in clear", in: protocol(outer(withPort(500)), 6), exit: "drop clear-text"},
		{gate: "underlay", name: "TCP in clear, a later fragment", in: protocol(outer(withIP(func(ip *layers.IPv4) { ip.FragOffset = 100 })), 6), exit: "drop clear-text"},
		{gate: "underlay", name: "several packets of TCP in one", in: protocol(outer(), 6), exit: onlyTC, tc: "drop clear-text", segments: true},
		{gate: "underlay", name: "IPv6 in clear", in: patch(outer(), 16, 0x86, 0xdd), exit: "drop clear-text"},
		{gate: "underlay", name: "IP version 5 in clear", in: patch(outer(), 18, 0x55), exit: "drop clear-text"},
		{gate: "underlay", name: "half an IP header in clear", in: outer()[:34], exit: "drop clear-text", tc: onlyXDP},

		{gate: "parse", name: "ARP", in: patch(in(plainPort), 12, 0x08, 0x06), exit: "stack not-ipv4"},
		{gate: "parse", name: "IPv6", in: patch(in(plainPort), 12, 0x86, 0xdd), exit: "stack not-ipv4"},
		{gate: "parse", name: "a tag too many", in: in(plainPort, withVLANs(300, 201, 3)), exit: "stack not-ipv4"},
		{gate: "parse", name: "IP version 5", in: patch(in(plainPort), 14, 0x55), exit: "stack malformed"},
		{gate: "parse", name: "half an IP header", in: in(plainPort)[:30], exit: "stack malformed", tc: onlyXDP},
		{gate: "parse", name: "several packets of IPv6 in one (GSO)", in: patch(in(plainPort), 12, 0x86, 0xdd), exit: onlyTC, tc: "stack not-ipv4", segments: true},

		{gate: "find_realm", name: "VLAN without a realm", in: in(plainPort, withVLANs(999)), exit: "stack no-realm"},
		{gate: "find_realm", name: "a priority tag before the VLAN", in: in(untaggedPort, withVLANs(0, 201)), exit: "forward forwarded", out: out(untaggedPort)},
		{gate: "find_realm", name: "a priority tag behind the VLAN", in: in(untaggedPort, withVLANs(201, 0)), exit: "forward forwarded", out: out(untaggedPort)},
		{gate: "find_realm", name: "two tags without a realm", in: in(plainPort, withVLANs(201, 201)), exit: "stack no-realm"},

		{gate: "guard", name: "media with IP options", in: options(in(plainPort), plainPort), exit: "drop not-plain"},
		{gate: "guard", name: "media in fragments", in: in(plainPort, withIP(func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })), exit: "drop not-plain"},
		{gate: "guard", name: "several packets of media in one", in: in(plainPort), exit: onlyTC, tc: "drop not-plain", segments: true},
		{gate: "guard", name: "IP options", in: options(in(5060), 5060), exit: "stack ip-options"},
		{gate: "guard", name: "first fragment", in: in(5060, withIP(func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments })), exit: "stack fragment"},
		{gate: "guard", name: "later fragment", in: in(plainPort, withIP(func(ip *layers.IPv4) { ip.FragOffset = 100 })), exit: "stack fragment"},
		{gate: "guard", name: "TCP", in: patch(in(plainPort), 23, 6), exit: "stack not-udp"},
		{gate: "guard", name: "half a UDP header", in: in(plainPort)[:40], exit: "stack malformed"},
		{gate: "guard", name: "shorter than its IP length", in: in(plainPort)[:100], exit: "stack malformed"},
		{gate: "guard", name: "UDP longer than IP", in: patch(in(plainPort), 38, 0xff, 0xff), exit: "stack malformed"},
		{gate: "guard", name: "UDP shorter than its header", in: patch(in(plainPort), 38, 0, 7), exit: "stack malformed"},
		{gate: "guard", name: "somebody else's address", in: in(plainPort, func(f *frame) { f.dst = netip.AddrPortFrom(carrierPeer.Addr(), plainPort) }), exit: "stack not-local"},
		{gate: "guard", name: "another realm's address", in: in(plainPort, func(f *frame) { f.dst = netip.AddrPortFrom(carrierAddr, plainPort) }), exit: "drop wrong-realm"},
		{gate: "guard", name: "TCP to another realm's address", in: protocol(in(22, func(f *frame) { f.dst = netip.AddrPortFrom(tunnelAddr, 22) }), 6), exit: "drop wrong-realm"},
		{gate: "guard", name: "another realm's peer", in: in(plainPort, withSource("10.50.0.10:5060"), func(f *frame) { f.dst = netip.AddrPortFrom(carrierPeer.Addr(), 1) }), exit: "drop wrong-realm"},
		{gate: "guard", name: "SIP of another realm's peer", in: in(5060, withSource("10.50.0.10:5060")), exit: "drop wrong-realm"},
		{gate: "guard", name: "ICMP of another realm's peer", in: protocol(in(5060, withSource("10.50.0.10:5060")), 1), exit: "drop wrong-realm"},
		{gate: "guard", name: "SIP of a peer in another VLAN than his", in: in(5060, withVLANs(201)), exit: "drop wrong-realm"},
		{gate: "guard", name: "SIP of a peer of two realms", in: in(5060, withSource("192.0.2.77:5060")), before: 5, exit: "stack not-media"},
		{gate: "guard", name: "SIP of a known peer", in: in(5060), exit: "stack not-media"},
		{gate: "guard", name: "SIP of a known peer, again and again", in: in(5060), before: 5, exit: "stack not-media"},
		{gate: "guard", name: "below the media range", in: in(mediaPorts.First - 1), exit: "stack not-media"},
		{gate: "guard", name: "SIP of a stranger", in: in(5060, withSource("192.0.2.66:5060")), exit: "stack not-media"},
		{gate: "guard", name: "SIP of a stranger beyond his budget", in: in(5060, withSource("192.0.2.67:5060")), before: 3, exit: "drop sip-budget"},
		{gate: "guard", name: "other UDP of a stranger", in: in(53, withSource("192.0.2.68:5060")), exit: "stack not-media"},
		{gate: "guard", name: "other UDP of a stranger beyond his budget", in: in(53, withSource("192.0.2.69:5060")), before: 3, exit: "drop udp-budget"},
		{gate: "guard", name: "SIP of a denied source", in: in(5060, withSource("203.0.113.7:5060")), exit: "drop denied"},
		{gate: "guard", name: "TCP of a denied source", in: patch(in(5060, withSource("203.0.113.7:5060")), 23, 6), exit: "drop denied"},
		{gate: "guard", name: "several packets of SIP in one", in: in(5060), exit: onlyTC, tc: "stack segments", segments: true},
		{gate: "guard", name: "several of a denied source in one", in: in(5060, withSource("203.0.113.7:5060")), exit: onlyTC, tc: "drop denied", segments: true},
		{gate: "guard", name: "several of another realm's peer in one", in: in(5060, withSource("10.50.0.10:5060")), exit: onlyTC, tc: "drop wrong-realm", segments: true},
		{gate: "guard", name: "several to another realm's address in one", in: in(plainPort, func(f *frame) { f.dst = netip.AddrPortFrom(carrierAddr, plainPort) }), exit: onlyTC, tc: "drop wrong-realm", segments: true},
		{gate: "guard", name: "several of a stranger in one, beyond his budget", in: in(53, withSource("192.0.2.70:5060")), before: 3, exit: onlyTC, tc: "drop udp-budget", segments: true},
		{gate: "guard", name: "several packets of TCP in one", in: protocol(in(5060, withSource("192.0.2.71:5060")), 6), before: 3, exit: onlyTC, tc: "stack not-udp", segments: true},
		{gate: "guard", name: "several packets of TCP of a denied source in one", in: protocol(in(5060, withSource("203.0.113.7:5060")), 6), exit: onlyTC, tc: "drop denied", segments: true},

		{gate: "find_flow", name: "media port without a flow", in: in(30000), exit: "drop no-flow"},
		{gate: "find_flow", name: "another realm's flow", in: in(taggedPort), exit: "drop no-flow"},

		{gate: "find_flow", name: "no flow, another realm's peer", in: in(30000, withSource("10.50.0.10:4000")), exit: "drop wrong-realm"},
		{gate: "check_source", name: "another realm's media", in: in(plainPort, withSource("10.50.0.10:4000")), exit: "drop wrong-realm"},
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
		{gate: "find_next_hop", name: "address resolved by the stack", in: in(neighbourPort), exit: "stack tc", tc: "forward forwarded", priority: 5, out: nil},
		{gate: "find_next_hop", name: "device without link layer", in: in(barePort), exit: "stack tc", tc: "forward forwarded", priority: 5, out: nil},

		{gate: "may_leave", name: "hold", in: in(heldPort), exit: "drop hold"},
		{gate: "may_leave", name: "no way known", in: in(unresolvedPort), exit: "drop no-next-hop"},
		{gate: "may_leave", name: "last hop", in: in(plainPort, func(f *frame) { f.ttl = 1 }), exit: "drop ttl-expired"},
		{gate: "may_leave", name: "no hop left", in: in(plainPort, withIP(func(ip *layers.IPv4) { ip.TTL = 0 })), exit: "drop ttl-expired"},

		{gate: "tell_mtu", name: "as large as the tunnel takes", in: in(mtuPort, dontFragment), exit: "stack tc", tc: "forward forwarded", priority: 5},
		{gate: "tell_mtu", name: "too large, may be fragmented", in: in(mtuPort, withPayload(rtpOf(1, 160, 1, 161))), exit: "stack tc", tc: "forward forwarded", priority: 5},
		{gate: "tell_mtu", name: "too large", in: tooLarge(), exit: "drop fragmentation-needed", out: tellMTU(t, tooLarge(), true)},
		{gate: "tell_mtu", name: "too large, out of a tunnel", in: tooLarge(), exit: onlyTC, tc: "drop fragmentation-needed", bare: true, out: tellMTU(t, tooLarge(), false)},
		{gate: "tell_mtu", name: "too large, of somebody else", in: in(mtuPort, dontFragment, withSource("192.0.2.10:9"), withPayload(rtpOf(1, 160, 1, 161))), exit: "drop source-refused"},

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
		{gate: "send", name: "out of a tunnel, the outer header in front", in: in(plainPort), exit: onlyTC, tc: "forward forwarded", bare: true, out: out(plainPort)},
		{gate: "send", name: "out of a tunnel, A-law to mu-law", in: in(lawPort, withPayload(typed(8, 0, 0xd5, 0x55))), exit: onlyTC, tc: "forward forwarded", bare: true, out: out(lawPort, withPayload(typed(0, 0, 0xfe, 0x7e)))},
		{gate: "send", name: "out of a tunnel, to tags", in: in(backPort), exit: onlyTC, tc: "forward forwarded", bare: true,
			out: out(backPort, withVLANs(201), func(f *frame) { f.src = netip.AddrPortFrom(platformAddr, backPort+2); f.dst = platformPeer })},
		{gate: "send", name: "from tunnel to tunnel", in: in(barePort), exit: onlyTC, tc: "forward forwarded", priority: 5, bare: true, out: append(in(barePort)[:14], out(barePort)[14:]...)},
		{gate: "send", name: "out of a tunnel, address resolved by the stack", in: in(neighbourPort), exit: onlyTC, tc: "forward forwarded", priority: 5, bare: true, out: append(append(make([]byte, 12), 0x08, 0x00), out(neighbourPort)[14:]...)},
		{gate: "send", name: "priority tag is no VLAN", in: in(plainPort, withVLANs(0)), exit: "forward forwarded", out: out(plainPort)},
	}
}
