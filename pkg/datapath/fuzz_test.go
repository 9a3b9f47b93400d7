package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Ports that only the fuzzed flows have; the others are those of the rows of gates_test.go.
const (
	latchPort = 21000 + 10*iota
	latchControlPort
	muxLawPort
)

// allowed is where the fuzzed latches may learn from.
var allowed = netip.MustParsePrefix("192.0.2.64/27")

// gateLab has a flow of each kind, and a model that says what may become of a packet.
type gateLab struct {
	*bench
	flows      map[call.FlowKey]call.Flow
	ways       map[netip.Addr]tandemWayKind // by destination
	generation uint32
	forwarded  int
	runs       uint64
}

func newGateLab(tb testing.TB) *gateLab {
	tb.Helper()
	l := &gateLab{bench: newBench(tb, 100), flows: map[call.FlowKey]call.Flow{}, ways: map[netip.Addr]tandemWayKind{}}
	event := call.Payload{In: 96, Out: 101, Treatment: call.TelephoneEvent}
	toULaw := call.Payload{In: 8, Out: 0, Treatment: call.ALawToULaw}
	toALaw := call.Payload{In: 0, Out: 8, Treatment: call.ULawToALaw}
	latch := call.Latch{Window: time.Hour, Allowed: []netip.Prefix{allowed}}
	for port, change := range map[uint16]func(*call.Flow){
		plainPort:    func(*call.Flow) {},
		controlPort:  func(f *call.Flow) { f.RTCP = true },
		heldPort:     func(f *call.Flow) { f.Hold = true },
		nobodyPort:   func(f *call.Flow) { f.Remote = netip.AddrPort{} },
		taggedPort:   func(f *call.Flow) { f.Key.Realm, f.OutRealm = taggedPlatform, taggedCarrier },
		untaggedPort: func(f *call.Flow) { f.Key.Realm = taggedPlatform },
		backPort: func(f *call.Flow) {
			f.OutRealm, f.Source, f.Dest = taggedPlatform, at(platformAddr, backPort+2), platformPeer
		},
		termsPort:   func(f *call.Flow) { f.Payloads = []call.Payload{{In: 8, Out: 8}, event, {In: 13, Out: 13}} },
		lawPort:     func(f *call.Flow) { f.Payloads = []call.Payload{toULaw, toALaw, event} },
		muxPort:     func(f *call.Flow) { f.Mux = true },
		muxPort + 1: func(f *call.Flow) { f.RTCP, f.Remote, f.DSCP = true, at(carrierPeer.Addr(), 7), 26 },
		muxLawPort:  func(f *call.Flow) { f.Mux, f.Payloads = true, []call.Payload{toULaw} }, // and no flow above
		doublePort: func(f *call.Flow) {
			f.Key.Realm, f.OutRealm, f.Source, f.Dest = doubleTagged, doubleTagged, at(platformAddr, doublePort+2), platformPeer
		},
		neighbourPort:    func(f *call.Flow) { f.Dest = at(carrierPeer.Addr().Next(), 30000) },
		barePort:         func(f *call.Flow) { f.Dest = at(carrierPeer.Addr().Next().Next(), 30000) },
		mtuPort:          func(f *call.Flow) { f.Dest = at(carrierPeer.Addr().Next().Next().Next(), 30000) },
		latchPort:        func(f *call.Flow) { f.Latch, f.Payloads = latch, []call.Payload{{In: 8, Out: 97}, event} },
		latchControlPort: func(f *call.Flow) { f.Latch, f.RTCP, f.Remote = latch, true, netip.AddrPort{} },
	} {
		f := toCarrier(port)
		change(&f)
		usual := l.hops.byRealm[carrier]
		l.ways[f.Dest.Addr()] = tandemWayKindWAY_LINK
		switch port {
		case neighbourPort:
			l.ways[f.Dest.Addr()] = tandemWayKindWAY_NEIGHBOUR
			l.hops.byRealm[carrier] = call.NextHop{Neighbour: f.Dest.Addr(), NeighbourIfindex: l.carrier}
		case barePort:
			l.ways[f.Dest.Addr()] = tandemWayKindWAY_BARE
			l.hops.byRealm[carrier] = call.NextHop{Ifindex: l.carrier, Bare: true}
		case mtuPort:
			l.ways[f.Dest.Addr()] = tandemWayKindWAY_BARE
			l.hops.byRealm[carrier] = call.NextHop{Ifindex: l.carrier, Bare: true, MTU: tunnelMTU}
		}
		l.install(tb, f)
		l.hops.byRealm[carrier] = usual
		l.flows[f.Key] = f
	}
	return l
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// unlearn opens the latches anew.
func (l *gateLab) unlearn(tb testing.TB) {
	tb.Helper()
	l.generation++
	for key, f := range l.flows {
		if f.Latch.Window != 0 {
			f.Latch.Generation = l.generation
			l.flows[key] = f
			l.install(tb, f)
		}
	}
}

// check runs a frame through both programs.
func (l *gateLab) check(t *testing.T, in []byte) {
	t.Helper()
	if len(in) < 14 || len(in) > 2500 { // less the kernel runs nothing on, more does not lie in one piece
		return
	}
	want := l.foretell(in)
	l.unlearn(t)
	l.runs++
	verdict, out := l.run(t, in)
	xdp := map[uint32]string{xdpPass: "stack", xdpDrop: "drop", xdpTX: "forward", xdpRedirect: "forward"}[verdict]
	back := want.flow.OutRealm == taggedPlatform || want.flow.OutRealm == doubleTagged
	switch {
	case want.verdict == "answer":
		wantAnswer(t, "XDP", in, out, verdict == xdpTX, true)
	case xdp == "forward" && (verdict == xdpTX) != back:
		t.Errorf("XDP: action %d", verdict)
	case want.way > tandemWayKindWAY_LINK: // TC's to send, or to drop
		l.compare(t, "XDP", in, out, xdp, toStack, nil)
	default:
		l.compare(t, "XDP", in, out, xdp, want, l.header(want))
	}

	l.checkTC(t, in, "TC", want)
	if err := l.mark(1, tandemDeviceFlagDEVICE_BARE); err != nil {
		t.Fatal(err)
	}
	l.checkTC(t, in, "TC of a tunnel", l.foretellBare(in))
	if err := l.mark(1, 0); err != nil {
		t.Fatal(err)
	}
}

// foretellBare is foretell for a device without link layer: what is in front of IP is of no account, but there
// must be no doubt about where that is.
func (l *gateLab) foretellBare(in []byte) fate {
	if !bytes.Equal(in[12:14], []byte{0x08, 0x00}) || len(in) < 34 || bytes.Equal(in[:20], in[14:34]) {
		return toStack
	}
	return l.foretell(in)
}

// checkTC runs a frame through the TC program.
func (l *gateLab) checkTC(t *testing.T, in []byte, program string, want fate) {
	t.Helper()
	l.unlearn(t)
	bare := program != "TC"
	verdict, out, err := l.tryTC(in)
	if errors.Is(err, unix.EINVAL) && len(in) < 14+40 {
		return // the kernel makes no skb of less than a header of IPv4 or IPv6
	}
	if err != nil {
		t.Fatalf("%s: %v: %x", program, err, in)
	}
	l.runs++
	tc := map[uint32]string{tcUnspec: "stack", tcShot: "drop", tcRedirect: "forward"}[verdict]
	header := l.header(want)
	switch {
	case want.verdict == "answer":
		wantAnswer(t, program, in, out, verdict == tcRedirect, !bare)
		return
	case want.verdict == "forward" && bare && want.way == tandemWayKindWAY_BARE:
		header = in[:14]
	case want.verdict == "forward" && want.way == tandemWayKindWAY_BARE:
		header = append(bytes.Clone(in[:12]), 0x08, 0x00)
	case want.verdict == "forward" && want.way == tandemWayKindWAY_NEIGHBOUR:
		header = append(make([]byte, 12), 0x08, 0x00) // the kernel's to write
	case header != nil:
		header = withoutFirstTag(header)
	}
	l.compare(t, program, in, out, tc, want, header)
}

// wantAnswer asserts that the sender of a packet is told the MTU.
func wantAnswer(t *testing.T, program string, in, out []byte, sent, swap bool) {
	t.Helper()
	if want := tellMTU(t, in, swap); !sent || !bytes.Equal(out, want) {
		t.Errorf("%s: to\n%x\nis answered (%v)\n%x\ninstead of\n%x", program, in, sent, out, want)
	}
}

// tryTC is runTC for frames that the kernel may not take.
func (l *gateLab) tryTC(in []byte) (verdict uint32, out []byte, err error) {
	opts := &ebpf.RunOptions{Data: in, DataOut: make([]byte, len(in)+64)}
	verdict, err = l.objs.TandemTc.Run(opts)
	return verdict, opts.DataOut, err
}

// header is the link-layer header by which a packet leaves.
func (l *gateLab) header(want fate) []byte {
	if want.verdict != "forward" {
		return nil
	}
	return l.hops.byRealm[want.flow.OutRealm].L2
}

// compare holds what a program did against what was foretold.
func (l *gateLab) compare(t *testing.T, program string, in, out []byte, verdict string, want fate, header []byte) {
	t.Helper()
	if verdict != want.verdict && (want.verdict != "" || verdict == "forward") {
		t.Errorf("%s: %q instead of %q: %x", program, verdict, want.verdict, in)
		return
	}
	switch {
	case verdict == "forward":
		l.forwarded++
		checkSent(t, program, in, out, want, header)
	case verdict == "stack" && !bytes.Equal(in, out):
		t.Errorf("%s: the stack gets\n%x\ninstead of\n%x", program, out, in)
	case verdict == "drop" && !bytes.Equal(in, out) && len(in) == len(out) && !mayBeSpoilt(in, out):
		t.Errorf("%s: dropped, and changed from\n%x\nto\n%x", program, in, out)
	}
}

// mayBeSpoilt: a payload that turns out to be too long to convert has its new payload type already.
func mayBeSpoilt(in, out []byte) bool {
	d, ok := takeApart(in)
	if !ok || (d.dest.Port() != lawPort && d.dest.Port() != muxLawPort) {
		return false
	}
	pt := d.link + 28 + 1
	return bytes.Equal(in[:pt], out[:pt]) && bytes.Equal(in[pt+1:], out[pt+1:])
}

// checkSent asserts that what left is the frame that came but for what the flow changes, and its
// checksums are right as gopacket computes them if those that came were.
func checkSent(t *testing.T, program string, in, out []byte, want fate, header []byte) {
	t.Helper()
	d, _ := takeApart(in)
	f, ip := want.flow, bytes.Clone(d.ip)
	ip[1] = ip[1]&3 | f.DSCP<<2
	ip[8]--
	copy(ip[12:], f.Source.Addr().AsSlice())
	copy(ip[16:], f.Dest.Addr().AsSlice())
	binary.BigEndian.PutUint16(ip[20:], f.Source.Port())
	binary.BigEndian.PutUint16(ip[22:], f.Dest.Port())
	copy(ip[28:], want.payload)
	if len(out) != len(header)+len(ip) {
		t.Errorf("%s: %d bytes sent instead of %d: %x", program, len(out), len(header)+len(ip), in)
		return
	}
	got := out[len(header):]
	copy(ip[10:12], got[10:12])
	copy(ip[26:28], got[26:28])
	if !bytes.Equal(out[:len(header)], header) || !bytes.Equal(got, ip) {
		t.Errorf("%s: of\n%x\nis sent\n%x\ninstead of, but for the checksums,\n%x%x", program, in, out, header, ip)
		return
	}
	wasIP, wasUDP := checksums(t, d.ip)
	isIP, isUDP := checksums(t, got)
	if right(d.ip[10:], wasIP) != right(got[10:], isIP) {
		t.Errorf("%s: IP checksum %x, right %04x; it came as %x, right %04x: %x", program, got[10:12], isIP, d.ip[10:12], wasIP, in)
	}
	none := bytes.Equal(d.ip[26:28], []byte{0, 0})
	switch {
	case none != bytes.Equal(got[26:28], []byte{0, 0}):
		t.Errorf("%s: UDP checksum %x became %x: %x", program, d.ip[26:28], got[26:28], in)
	case !none && right(d.ip[26:], wasUDP) != right(got[26:], isUDP):
		t.Errorf("%s: UDP checksum %x, right %04x; it came as %x, right %04x: %x", program, got[26:28], isUDP, d.ip[26:28], wasUDP, in)
	}
}

// right compares a checksum with the right one. All ones and zero are the same sum.
func right(field []byte, want uint16) bool {
	return binary.BigEndian.Uint16(field)%0xffff == want%0xffff
}

// checksums are those that gopacket computes for a packet.
func checksums(t *testing.T, packet []byte) (ip, udp uint16) {
	t.Helper()
	var l3 layers.IPv4
	var l4 layers.UDP
	total, length := int(binary.BigEndian.Uint16(packet[2:])), int(binary.BigEndian.Uint16(packet[24:]))
	err := errors.Join(l3.DecodeFromBytes(packet[:total], gopacket.NilDecodeFeedback),
		l4.DecodeFromBytes(packet[20:20+length], gopacket.NilDecodeFeedback), l4.SetNetworkLayerForChecksum(&l3))
	if err == nil {
		opts := gopacket.SerializeOptions{ComputeChecksums: true}
		err = gopacket.SerializeLayers(gopacket.NewSerializeBuffer(), opts, &l3, &l4, gopacket.Payload(packet[28:20+length]))
	}
	if err != nil {
		t.Fatalf("gopacket: %v: %x", err, packet)
	}
	return l3.Checksum, l4.Checksum
}

// FuzzGates: whatever comes in, nothing is written or sent without a flow whose source it comes from,
// what is sent is what the flow says, with right checksums, and what is not sent is untouched (M1, M3, M5, M7,
// M14, A3). The program is held against a model in Go, in XDP and in TC.
func FuzzGates(f *testing.F) {
	l := newGateLab(f)
	f.Fuzz(func(t *testing.T, in []byte) { l.check(t, in) })
}

const gateCorpus = "testdata/fuzz/FuzzGates"

// TestGateCorpus: the corpus that is kept begins with the packets of all rows.
func TestGateCorpus(t *testing.T) {
	if *update {
		if err := os.MkdirAll(gateCorpus, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	learn := func(p []byte) []byte { return gateIn(t, latchPort, withSource("192.0.2.70:4000"), withPayload(p)) }
	frames := map[string][]byte{
		"latch-rtp":         learn(typed(8, 0, 1, 2, 3)),
		"latch-other-type":  learn(typed(18, 0, 1, 2, 3)),
		"latch-rtcp":        learn(rtcp()),
		"latch-control":     gateIn(t, latchControlPort, withSource("192.0.2.70:4000"), withPayload(rtcp())),
		"law-extension":     gateIn(t, lawPort, withPayload(patch(typed(8, 0, 0xbe, 0xde, 0, 1, 9, 9, 9, 9, 0xd5), 0, 0x90))),
		"law-padding":       gateIn(t, lawPort, withPayload(patch(typed(8, 0, 0xd5, 0x55, 0, 2), 0, 0xa0))),
		"law-event":         gateIn(t, lawPort, withPayload(typed(96, 0, 5, 10, 0, 160))),
		"mux-none-above":    gateIn(t, muxLawPort, withPayload(rtcp())),
		"checksum-all-ones": patch(gateIn(t, plainPort), 40, 0xff, 0xff),
	}
	for _, row := range gateRows(t) {
		frames["row-"+strings.Trim(slug.Replace(strings.ToLower(row.gate+"-"+row.name)), "-")] = row.in
	}
	for name, frame := range frames {
		golden(t, filepath.Join(gateCorpus, name), fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", frame))
	}
}

var slug = strings.NewReplacer(" ", "-", ",", "", "(", "", ")", "", "_", "-")

// TestRandomPackets holds the same against 20,000 packets that are mostly almost right, which is
// where a program goes wrong.
func TestRandomPackets(t *testing.T) {
	l := newGateLab(t)
	rnd := rand.New(rand.NewPCG(1, 2026))
	var rows [][]byte
	for _, row := range gateRows(t) {
		rows = append(rows, row.in)
	}
	const n = 20000
	for range n {
		in := l.randomFrame(t, rnd)
		if rnd.IntN(4) == 0 {
			in = mutate(rnd, bytes.Clone(rows[rnd.IntN(len(rows))]))
		}
		l.check(t, in)
		if t.Failed() {
			t.Fatalf("after %d runs", l.runs)
		}
	}
	if l.forwarded < n/4 {
		t.Errorf("only %d of %d runs sent something: this proves little", l.forwarded, l.runs)
	}
	// Each run left by one exit.
	var all, forwarded uint64
	for exit, packets := range l.exits(t) {
		all += packets
		if exit == "forward forwarded" {
			forwarded = packets
		}
	}
	if all != l.runs || forwarded != uint64(l.forwarded) {
		t.Errorf("%d packets in %d runs, %d of them forwarded in %d", all, l.runs, forwarded, l.forwarded)
	}
	t.Logf("%d runs, %d sent", l.runs, l.forwarded)
}

// randomFrame is for a flow, and wrong in few ways or none.
func (l *gateLab) randomFrame(t *testing.T, rnd *rand.Rand) []byte {
	t.Helper()
	ports := []uint16{
		plainPort, controlPort, heldPort, nobodyPort, taggedPort, untaggedPort, backPort, termsPort, lawPort, lawPort,
		muxPort, muxPort + 1, muxLawPort, doublePort, neighbourPort, barePort, mtuPort, mtuPort, latchPort, latchControlPort, 30000, 5060,
	}
	port := ports[rnd.IntN(len(ports))]
	f := frame{src: platformPeer, dst: at(platformAddr, port), ttl: byte(1 + rnd.IntN(255)), tos: byte(rnd.Uint32())}
	flow := l.flowAt(port)
	if flow.Remote.IsValid() {
		f.src = flow.Remote
	}
	switch flow.Key.Realm {
	case taggedPlatform:
		f.vlans = []uint16{201}
	case doubleTagged:
		f.vlans = []uint16{300, 201}
	}
	if port == mtuPort && rnd.IntN(2) == 0 {
		dontFragment(&f)
	}
	switch rnd.IntN(14) {
	case 0:
		f.src = at(allowed.Addr().Next(), uint16(rnd.IntN(3)))
	case 1:
		f.src = at(denied.Addr().Next(), uint16(rnd.Uint32()))
	case 2:
		f.src = at(platformPeer.Addr(), uint16(rnd.Uint32()))
	case 3:
		f.vlans = [][]uint16{nil, {0}, {201}, {202}, {300, 201}, {201, 300}, {1, 2, 3}, {underlayVLAN}, {0, 1, 2}}[rnd.IntN(9)]
	case 4:
		f.dst = at(carrierAddr, port)
	case 5:
		f.src = at([]netip.Addr{tunnelPeer, sharedPeer}[rnd.IntN(2)], 5060)
	case 6:
		f.vlans, f.dst = []uint16{underlayVLAN}, at(f.dst.Addr(), []uint16{500, 4500, 501, port}[rnd.IntN(4)])
	}
	f.payload = randomPayload(rnd, flow)
	f.noSum = rnd.IntN(10) == 0
	in := f.build(t)
	if rnd.IntN(10) == 0 { // a wrong checksum
		in[14+4*len(f.vlans)+[]int{10, 11, 26, 27}[rnd.IntN(4)]] ^= byte(1 + rnd.IntN(255))
	}
	if rnd.IntN(5) == 0 {
		in = mutate(rnd, in)
	}
	return in
}

func (l *gateLab) flowAt(port uint16) call.Flow {
	for key, f := range l.flows {
		if key.Local.Port() == port {
			return f
		}
	}
	return call.Flow{}
}

func randomPayload(rnd *rand.Rand, f call.Flow) []byte {
	if f.RTCP || rnd.IntN(8) == 0 {
		report := append(rtcp(), make([]byte, rnd.IntN(600))...)
		report[1] = byte(190 + rnd.IntN(36))
		return report[:len(report)-rnd.IntN(3)]
	}
	size := rnd.IntN(200)
	if rnd.IntN(20) == 0 {
		size = 1400 + rnd.IntN(300)
	}
	p := rtpOf(uint16(rnd.Uint32()), rnd.Uint32(), rnd.Uint32(), size)
	p[1] = []byte{8, 0, 13, 18, 96, 97, 127}[rnd.IntN(7)] | byte(rnd.IntN(2))<<7
	if len(f.Payloads) > 0 && rnd.IntN(4) != 0 {
		p[1] = f.Payloads[rnd.IntN(len(f.Payloads))].In
	}
	switch rnd.IntN(8) {
	case 0: // contributors
		p[0] |= byte(rnd.IntN(16))
	case 1: // header extension
		p[0] |= 0x10
		if size > 4 {
			binary.BigEndian.PutUint16(p[14:], uint16(rnd.IntN(70)))
		}
	case 2: // padding
		p[0] |= 0x20
		p[len(p)-1] = byte(rnd.IntN(40))
	case 3:
		p[0] ^= byte(1) << rnd.IntN(8)
	case 4:
		p = p[:rnd.IntN(min(len(p), 20))]
	}
	return p
}

// mutate spoils bytes, or the length.
func mutate(rnd *rand.Rand, in []byte) []byte {
	for range 1 + rnd.IntN(3) {
		switch i := rnd.IntN(len(in)); rnd.IntN(6) {
		case 0:
			if in = in[:i]; len(in) == 0 {
				return in
			}
		case 1:
			in = append(in, make([]byte, rnd.IntN(40))...)
		case 2:
			in[i] = byte(rnd.Uint32())
		default:
			in[rnd.IntN(min(len(in), 60))] ^= 1 << rnd.IntN(8)
		}
	}
	return in
}
