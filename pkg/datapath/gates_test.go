package datapath

import (
	"bytes"
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
	// bare means that the device has no link layer (TC only): the header in front of IP is that of a
	// tunnel's outer packet.
	bare bool
	// priority is what TC sends it with, for 802.1p where that is not in its header.
	priority uint32
}

// answered is the exit of packets whose sender is told the MTU.
const answered = "drop fragmentation-needed"

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
	mtuPort
)

// tunnelMTU is what the way of mtuPort takes, in bytes: a packet of 20 ms of G.711, and no more.
const tunnelMTU = 200

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
		mtuPort:        {Kind: tandemWayKindWAY_BARE, Device: uint32(b.carrier)},
	}
	id := uint16(700)
	for port, way := range hops {
		id++
		if copy(way.L2[:], l2(0)); way.Kind > tandemWayKindWAY_LINK {
			way.L2 = bareWay(carrierPeer.Addr(), call.NextHop{PCP: 5})
		}
		if port == mtuPort {
			way.L2 = bareWay(netip.Addr{}, call.NextHop{MTU: tunnelMTU, PCP: 5})
		}
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
	xdp, tc, tunnel := newBench(t, 100), newBench(t, 100), newBench(t, 100)
	for _, b := range []*bench{xdp, tc, tunnel} {
		installGateFlows(t, b)
	}
	if err := tunnel.mark(1, tandemDeviceFlagDEVICE_BARE); err != nil {
		t.Fatal(err)
	}
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
			on := tc
			if row.bare {
				on = tunnel
			}
			checkTC(t, on, row, exit)
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
		if row.back || row.exit == answered {
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
		if exit == answered {
			want = tcRedirect
		}
		if verdict != want {
			t.Errorf("TC action %d, want %d", int32(verdict), int32(want))
		}
		switch {
		case verdict == tcRedirect && (skb.Mark != 0 || skb.Tstamp != 0 || skb.QueueMapping != 0):
			t.Errorf("leaves with mark %d, time %d, queue %d", skb.Mark, skb.Tstamp, skb.QueueMapping)
		case verdict == tcRedirect && skb.Priority != row.priority:
			t.Errorf("leaves with priority %d, want %d", skb.Priority, row.priority)
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
		case *layers.ICMPv4:
			add("ICMP %s, MTU %d", l.TypeCode, l.Seq)
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
