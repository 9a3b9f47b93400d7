package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// tap sees what a device receives, and sends what it is given, frame by frame.
type tap struct {
	fd int
}

// seen is a frame with its tags in their place.
type seen struct {
	frame []byte
	// partial: the sender has left the checksum to the device.
	partial bool
}

func newTap(t *testing.T, s *netspace.Space, device string) *tap {
	t.Helper()
	p := &tap{fd: -1}
	var err error
	s.Do(func() {
		var ifi *net.Interface
		if ifi, err = net.InterfaceByName(device); err != nil {
			return
		}
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return
		}
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		err = errors.Join(unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifi.Index}),
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
			unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}))
	})
	if err != nil {
		t.Fatalf("%s: %v", device, err)
	}
	t.Cleanup(func() { _ = unix.Close(p.fd) })
	return p
}

// From linux/if_packet.h.
const (
	csumNotReady  = 1 << 3
	vlanValid     = 1 << 4
	vlanTPIDValid = 1 << 6
)

// read returns the next frame that comes in; false if there is none (in 5 s, with wait).
func (p *tap) read(t *testing.T, wait bool) (s seen, ok bool) {
	t.Helper()
	flags := unix.MSG_DONTWAIT
	if wait {
		flags = 0
	}
	buf, oob := make([]byte, 4096), make([]byte, 128)
	for {
		n, oobn, _, from, err := unix.Recvmsg(p.fd, buf, oob, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.EAGAIN) {
			return s, false
		}
		if err != nil {
			t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		s.frame = bytes.Clone(buf[:n])
		control, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range control {
			if c.Header.Level != unix.SOL_PACKET || c.Header.Type != unix.PACKET_AUXDATA {
				continue
			}
			// struct tpacket_auxdata
			status := binary.NativeEndian.Uint32(c.Data)
			s.partial = status&csumNotReady != 0
			if status&vlanValid == 0 {
				continue
			}
			tpid := uint16(0x8100)
			if status&vlanTPIDValid != 0 {
				tpid = binary.NativeEndian.Uint16(c.Data[18:])
			}
			tag := binary.BigEndian.AppendUint16(nil, tpid)
			tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(c.Data[16:]))
			s.frame = slices.Insert(s.frame, 12, tag...)
		}
		return s, true
	}
}

// rtp returns the next frame that is long enough to be the tests' RTP.
func (p *tap) rtp(t *testing.T) seen {
	t.Helper()
	for {
		s, ok := p.read(t, true)
		if !ok {
			t.Fatal("nothing received")
		}
		if len(s.frame) > 200 {
			return s
		}
	}
}

func (p *tap) send(t *testing.T, frame []byte) {
	t.Helper()
	if _, err := unix.Write(p.fd, frame); err != nil {
		t.Fatal(err)
	}
}

// tun is a device without link layer whose other end is the test.
type tun struct {
	*os.File
	index int
}

func (w *wire) openTun(t *testing.T) *tun {
	t.Helper()
	request, err := unix.NewIfreq("tdmtun")
	if err != nil {
		t.Fatal(err)
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	var fd int
	w.gateway.Do(func() {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
		}
	})
	if err != nil {
		t.Fatalf("tun device: %v", err)
	}
	d := &tun{File: os.NewFile(uintptr(fd), "tdmtun")}
	t.Cleanup(func() { _ = d.Close() })
	w.gateway.IP(t, "link set tdmtun up")
	var ifi *net.Interface
	w.gateway.Do(func() { ifi, err = net.InterfaceByName("tdmtun") })
	if err != nil {
		t.Fatal(err)
	}
	d.index = ifi.Index
	return d
}

// receive returns the next UDP packet that leaves by the device.
func (d *tun) receive(t *testing.T) []byte {
	t.Helper()
	if err := d.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := d.Read(buf)
		if err != nil {
			t.Fatalf("tun: %v", err)
		}
		if n > 28 && buf[0]>>4 == 4 && buf[9] == unix.IPPROTO_UDP { // not IPv6's own
			return buf[:n]
		}
	}
}

// overTunnel is the gateway's configuration with the carrier behind a tun device.
func (w *wire) overTunnel(t *testing.T) (*tun, Config) {
	t.Helper()
	d, cfg := w.openTun(t), w.config("")
	cfg.Realms[1].Points = []Point{{Ifindex: d.index, Bare: true}}
	w.hops.byRealm[carrier] = call.NextHop{Ifindex: d.index, Bare: true}
	return d, cfg
}

// sentPacket is what a flow sends for a payload, from IP on, but for what is the sender's own: the
// identification, DF, and with them the header's checksum, which are taken from got after a check.
func sentPacket(t *testing.T, f call.Flow, payload, got []byte) []byte {
	t.Helper()
	if len(got) < 28 || sumIPv4(got[:20]) != 0xffff {
		t.Fatalf("IP checksum wrong: %x", got)
	}
	want := frame{src: f.Source, dst: f.Dest, ttl: 63, tos: f.DSCP << 2, payload: payload}.build(t)[14 : 14+28+len(payload)]
	copy(want[4:8], got[4:8])
	copy(want[10:12], got[10:12])
	return want
}

// wantGRO asserts that what merges packets of UDP for others is "on" or "off".
func (w *wire) wantGRO(t *testing.T, device, state string) {
	t.Helper()
	out := w.gateway.Run(t, "ethtool", "-k "+device)
	for feature := range groFeatures {
		if !strings.Contains(out, feature+": "+state) {
			t.Errorf("%s of %s is not %s:\n%s", feature, device, state, out)
		}
	}
}

// burst sends n packets of RTP that the device receives in one poll.
func burst(t *testing.T, conn *net.UDPConn, n int) {
	t.Helper()
	var packets []byte
	for seq := range n {
		packets = append(packets, rtp(uint16(seq), uint32(seq)*160, 7)...)
	}
	onSocket(t, conn, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_SEGMENT, len(packets)/n) })
	if _, err := conn.Write(packets); err != nil {
		t.Fatal(err)
	}
}

// TestGRO: routers are often set up to merge packets of UDP that they forward. It would make one packet of
// several of media on their way from XDP into a tunnel, and that is no RTP any more. So it is off while the engine
// is there, and back on afterwards. If somebody turns it on under a call, what it merges is dropped, and nobody is
// told that the port is unreachable; the next Update turns it off.
func TestGRO(t *testing.T) {
	w := newWire(t)
	d, cfg := w.overTunnel(t)
	devices := []string{"tdmplat", "tdmtun"}
	turnOn := func() {
		for _, device := range devices {
			w.gateway.Run(t, "ethtool", "-K "+device+" gro on rx-udp-gro-forwarding on rx-gro-list on")
		}
	}
	turnOn()
	cfg.Pins = newPins(t)
	e := w.start(t, cfg)
	flow := twoWay()[0]
	if err := e.Install([]call.Flow{flow}); err != nil {
		t.Fatal(err)
	}
	conn := w.platform.dial(t, flow.Remote, flow.Key.Local)
	const n = 8
	through := func() {
		t.Helper()
		for _, device := range devices {
			w.wantGRO(t, device, "off")
		}
		burst(t, conn, n)
		for seq := range n {
			got, payload := d.receive(t), rtp(uint16(seq), uint32(seq)*160, 7)
			if want := sentPacket(t, flow, payload, got); !bytes.Equal(got, want) {
				t.Fatalf("packet %d into the tunnel:\n%x\nwant\n%x", seq, got, want)
			}
		}
	}
	through()

	turnOn()
	burst(t, conn, n)
	dropped := call.Exit{Realm: platform, Verdict: "drop", Reason: "not-plain"}
	for deadline := time.Now().Add(5 * time.Second); exitsOf(t, e)[dropped] == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("nothing merged was dropped: %v", exitsOf(t, e))
		}
	}
	w.update(t, e, cfg.Realms)
	through() // and no write is refused by an ICMP message

	shut(t, e)
	w.unload(t, cfg.Pins)
	for _, device := range devices {
		w.wantGRO(t, device, "on")
	}
}

// TestTunnel: a call between an Ethernet device and one without link layer (M2). XDP leaves what is for
// the tunnel to TC; TC gives what comes out of it the next hop's header, with the tags and priorities that it
// has. Both ways packets are marked, a hop older, with right checksums (M3), and counted once.
func TestTunnel(t *testing.T) {
	w := newWire(t)
	d, cfg := w.overTunnel(t)
	e := w.start(t, cfg)
	flows := twoWay()
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	const n = 50
	out := w.platform.dial(t, flows[0].Remote, flows[0].Key.Local)
	for seq := range n {
		payload := rtp(uint16(seq), uint32(seq)*160, 7)
		if _, err := out.Write(payload); err != nil {
			t.Fatal(err)
		}
		got := d.receive(t)
		if want := sentPacket(t, flows[0], payload, got); !bytes.Equal(got, want) {
			t.Fatalf("packet %d into the tunnel:\n%x\nwant\n%x", seq, got, want)
		}
	}

	peer := newTap(t, w.platform.space, "tdmpeer")
	plain := w.hops.byRealm[platform]
	for _, tags := range [][]byte{nil, {0x81, 0, 0xa0, 201}, {0x88, 0xa8, 0x61, 0x2c, 0x81, 0, 0xc0, 201}} {
		hop := plain
		hop.L2 = slices.Insert(slices.Clone(plain.L2), 12, tags...)
		w.hops.updates[platform](hop)
		for seq := range n {
			payload := rtp(uint16(seq), uint32(seq)*160, 8)
			in := frame{src: flows[1].Remote, dst: flows[1].Key.Local, tos: 1, payload: payload}.build(t)[14:]
			if _, err := d.Write(in); err != nil {
				t.Fatal(err)
			}
			got := peer.rtp(t).frame
			want := frame{src: flows[1].Source, dst: flows[1].Dest, ttl: 63, tos: flows[1].DSCP<<2 | 1, payload: payload}.build(t)[14:]
			if want = append(slices.Clone(hop.L2), want...); !bytes.Equal(got, want) {
				t.Fatalf("packet %d out of the tunnel, tags %x:\n%x\nwant\n%x", seq, tags, got, want)
			}
		}
	}
	if s := statsOf(t, e, flows); s[0].Packets != n || s[1].Packets != 3*n || s[0].Lost != 0 {
		t.Errorf("counted %+v and %+v", s[0], s[1])
	}
	exits := exitsOf(t, e)
	if got := exits[call.Exit{Realm: platform, Verdict: "stack", Reason: "tc"}]; got != n {
		t.Errorf("XDP handed %d packets to TC, want %d", got, n)
	}
	for realm, want := range map[uint16]uint64{platform: n, carrier: 3 * n} {
		if got := exits[call.Exit{Realm: realm, Verdict: "forward", Reason: call.ExitForwarded}]; got != want {
			t.Errorf("realm %d: %d packets forwarded, want %d", realm, got, want)
		}
	}
}

func statsOf(t *testing.T, e *Engine, flows []call.Flow) []call.FlowStats {
	t.Helper()
	stats, err := e.Snapshot(keys(flows))
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// exitsOf are the packets by exit.
func exitsOf(t *testing.T, e *Engine) map[call.Exit]uint64 {
	t.Helper()
	stats, err := e.Stats()
	if err != nil {
		t.Fatal(err)
	}
	exits := map[call.Exit]uint64{}
	for _, x := range stats.Exits {
		n := x.Packets
		x.Packets = 0
		exits[x] += n
	}
	return exits
}

// TestFirstPacketsResolve: a call may begin before the next hop's address is known (M2). The kernel's own
// neighbour table asks for it, with the first packets in hand, and sends them; not one is lost, and once
// the header is known XDP goes on by itself.
func TestFirstPacketsResolve(t *testing.T) {
	w := newWire(t)
	known := w.hops.byRealm[carrier]
	w.hops.byRealm[carrier] = call.NextHop{Neighbour: carrierPeer.Addr(), NeighbourIfindex: w.peer.index}
	e := w.start(t, w.config(""))
	flows := twoWay()[:1]
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	peerMAC := net.HardwareAddr(known.L2[:6]).String()
	if out := w.gateway.IP(t, "neigh show dev tdmcarr"); strings.Contains(out, peerMAC) {
		t.Fatalf("the kernel knows the peer before: %s", out)
	}
	const n = 60
	conn := w.platform.dial(t, flows[0].Remote, flows[0].Key.Local)
	half := func(first int) {
		t.Helper()
		for seq := first; seq < first+n; seq++ {
			if _, err := conn.Write(rtp(uint16(seq), uint32(seq)*160, 7)); err != nil {
				t.Fatal(err)
			}
		}
		for seq := first; seq < first+n; seq++ {
			got := w.peer.receive(t)
			want := sentPacket(t, flows[0], rtp(uint16(seq), uint32(seq)*160, 7), got[14:])
			if !bytes.Equal(got[14:], want) || !bytes.Equal(got[:14], known.L2) {
				t.Fatalf("packet %d:\n%x\nwant\n%x%x", seq, got, known.L2, want)
			}
		}
	}
	half(0)
	if out := w.gateway.IP(t, "neigh show dev tdmcarr"); !strings.Contains(out, peerMAC) {
		t.Errorf("the kernel does not know the peer: %s", out)
	}
	w.hops.updates[carrier](known)
	half(n)
	exits := exitsOf(t, e)
	for exit, want := range map[call.Exit]uint64{
		{Realm: platform, Verdict: "stack", Reason: "tc"}:                 n,
		{Realm: platform, Verdict: "forward", Reason: call.ExitForwarded}: 2 * n,
		{Realm: platform, Verdict: "drop", Reason: "no-next-hop"}:         0,
	} {
		if exits[exit] != want {
			t.Errorf("%+v: %d packets, want %d", exit, exits[exit], want)
		}
	}
	if s := statsOf(t, e, flows)[0]; s.Packets != 2*n || s.Lost != 0 || s.Reordered != 0 {
		t.Errorf("counted %+v", s)
	}
}

// TestTags: one address and port untagged, in a VLAN, and in a VLAN within another are three flows that
// do not meet (M2), though the peer's address and port are the same too. Tags are the wire's, put there and taken by
// raw frames; what leaves has those of the next hop's header, priority included (IEEE 802.1Q 9.6).
func TestTags(t *testing.T) {
	w := newWire(t)
	const doubleCarrier = doubleTagged + 1
	narrow := call.PortRange{First: 20000, Last: 20999}
	cfg := w.config("")
	cfg.Realms = []Realm{
		{Number: platform, Points: []Point{{Ifindex: w.platform.index}}, Media: narrow, Addr: platformAddr},
		{Number: taggedPlatform, Points: []Point{{Ifindex: w.platform.index, VLAN: 201}}, Media: narrow, Addr: platformAddr},
		{Number: doubleTagged, Points: []Point{{Ifindex: w.platform.index, OuterVLAN: 300, VLAN: 201}}, Media: narrow, Addr: platformAddr},
		{Number: carrier, Points: []Point{{Ifindex: w.peer.index}}, Media: narrow, Addr: carrierAddr},
		{Number: taggedCarrier, Points: []Point{{Ifindex: w.peer.index, VLAN: 202}}, Media: narrow, Addr: carrierAddr},
		{Number: doubleCarrier, Points: []Point{{Ifindex: w.peer.index, OuterVLAN: 301, VLAN: 203}}, Media: narrow, Addr: carrierAddr},
	}
	plain := w.hops.byRealm[carrier]
	withTags := func(tags ...byte) call.NextHop {
		return call.NextHop{Ifindex: plain.Ifindex, L2: slices.Insert(slices.Clone(plain.L2), 12, tags...)}
	}
	w.hops.byRealm[taggedCarrier] = withTags(0x81, 0, 0xa0, 202)
	w.hops.byRealm[doubleCarrier] = withTags(0x88, 0xa8, 0x61, 0x2d, 0x81, 0, 0xc0, 203)
	e := w.start(t, cfg)

	// More tags, and fewer, on the way.
	out := map[uint16]uint16{platform: taggedCarrier, taggedPlatform: doubleCarrier, doubleTagged: carrier}
	tags := map[uint16][]uint16{platform: nil, taggedPlatform: {201}, doubleTagged: {300, 201}}
	var flows []call.Flow
	for _, in := range []uint16{platform, taggedPlatform, doubleTagged} {
		f := toCarrier(20000)
		f.Key.Realm, f.OutRealm, f.Dest = in, out[in], at(carrierPeer.Addr(), 30000+in)
		flows = append(flows, f)
	}
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	from, to := newTap(t, w.platform.space, "tdmpeer"), newTap(t, w.peer.space, "tdmpeer")
	const n = 20
	for seq := range n {
		for _, f := range flows {
			payload := rtp(uint16(seq), uint32(seq)*160, uint32(f.Key.Realm))
			from.send(t, frame{src: f.Remote, dst: f.Key.Local, vlans: tags[f.Key.Realm], payload: payload}.build(t))
			want := frame{src: f.Source, dst: f.Dest, ttl: 63, tos: f.DSCP << 2, payload: payload}.build(t)[14:]
			want = append(slices.Clone(w.hops.byRealm[f.OutRealm].L2), want...)
			if got := to.rtp(t).frame; !bytes.Equal(got, want) {
				t.Fatalf("tags %v:\n%x\nwant\n%x", tags[f.Key.Realm], got, want)
			}
		}
	}
	// One of them ends. Its packets stop, and the others do not take them.
	if _, err := e.Remove(keys(flows[1:2])); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{1, 0, 2} {
		f := flows[i]
		from.send(t, frame{src: f.Remote, dst: f.Key.Local, vlans: tags[f.Key.Realm], payload: rtp(n, n*160, uint32(f.Key.Realm))}.build(t))
	}
	for _, i := range []int{0, 2} {
		got := to.rtp(t).frame
		header := len(w.hops.byRealm[flows[i].OutRealm].L2)
		if port := binary.BigEndian.Uint16(got[header+22:]); port != flows[i].Dest.Port() {
			t.Errorf("a packet for port %d instead of %d: %x", port, flows[i].Dest.Port(), got)
		}
	}
	for i, s := range statsOf(t, e, flows) {
		if want := map[int]uint64{0: n + 1, 1: 0, 2: n + 1}[i]; s.Packets != want || s.Lost != 0 || s.SSRCChanges != 0 {
			t.Errorf("tags %v: %+v", tags[flows[i].Key.Realm], s)
		}
	}
	if got := exitsOf(t, e)[call.Exit{Realm: taggedPlatform, Verdict: "drop", Reason: call.ExitNoFlow}]; got != 1 {
		t.Errorf("%d packets found no flow in VLAN 201, want 1", got)
	}
}

// Fields of struct __sk_buff.
const (
	skbLen          = 0
	skbMark         = 8
	skbQueueMapping = 12
	skbTstamp       = 152
)

// noted is what a packet has with it besides its bytes.
type noted struct {
	Mark, Queue uint32
	Time        uint64
	Packets     uint64
}

// laden is what markerProgram gives to each packet.
var laden = noted{Mark: 7, Queue: 3, Time: 1 << 62}

// markerProgram is what policy routing, a NIC or a former hop leave with a packet.
func markerProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	return newProgram(t, &ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Imm(asm.R2, int32(laden.Mark)),
		asm.StoreMem(asm.R1, skbMark, asm.R2, asm.Word),
		asm.Mov.Imm(asm.R2, int32(laden.Queue)),
		asm.StoreMem(asm.R1, skbQueueMapping, asm.R2, asm.Word),
		asm.LoadImm(asm.R2, int64(laden.Time), asm.DWord),
		asm.StoreMem(asm.R1, skbTstamp, asm.R2, asm.DWord),
		asm.Mov.Imm(asm.R0, -1),
		asm.Return(),
	}})
}

// noteProgram writes down what long packets have with them.
func noteProgram(t *testing.T) (*ebpf.Program, func() noted) {
	t.Helper()
	notes, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 24, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notes.Close() })
	prog := newProgram(t, &ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, skbLen, asm.Word),
		asm.JLT.Imm(asm.R7, 150, "out"),
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.LoadMapPtr(asm.R1, notes.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R1, asm.R6, skbMark, asm.Word),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, skbQueueMapping, asm.Word),
		asm.StoreMem(asm.R0, 4, asm.R1, asm.Word),
		asm.LoadMem(asm.R1, asm.R6, skbTstamp, asm.DWord),
		asm.StoreMem(asm.R0, 8, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R0, 16, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 16, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	}})
	return prog, func() (n noted) {
		t.Helper()
		if err := notes.Lookup(uint32(0), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func (w *wire) attachTCX(t *testing.T, prog *ebpf.Program, ifindex int, where ebpf.AttachType, anchor link.Anchor) {
	t.Helper()
	var l link.Link
	var err error
	w.gateway.Do(func() {
		l, err = link.AttachTCX(link.TCXOptions{Interface: ifindex, Program: prog, Attach: where, Anchor: anchor})
	})
	if err != nil {
		t.Fatalf("tcx, which Linux has from 6.6 on: %v", err)
	}
	t.Cleanup(func() { _ = l.Close() })
}

// TestNothingIsCarriedAlong: a mark would have a packet routed anew, a time in the future would have fq hold
// it back, a queue may not exist on the other device. TC sends packets with none of them, both ways between Ethernet
// and a tunnel; packets that it leaves to the stack keep theirs.
func TestNothingIsCarriedAlong(t *testing.T) {
	w := newWire(t)
	d, cfg := w.overTunnel(t)
	e := w.start(t, cfg)
	flows := twoWay()
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}
	marker := markerProgram(t)
	behind, atStack := noteProgram(t)
	toTunnel, inTunnel := noteProgram(t)
	toPeer, onWire := noteProgram(t)
	for _, device := range []int{w.platform.index, d.index} {
		w.attachTCX(t, marker, device, ebpf.AttachTCXIngress, link.Head())
	}
	w.attachTCX(t, behind, w.platform.index, ebpf.AttachTCXIngress, link.Tail())
	w.attachTCX(t, toTunnel, d.index, ebpf.AttachTCXEgress, nil)
	w.attachTCX(t, toPeer, w.platform.index, ebpf.AttachTCXEgress, nil)

	w.listen(t, at(platformAddr, 5060)) // else the stack answers
	payload := rtp(1, 160, 7)
	sip := w.platform.dial(t, at(platformPeer.Addr(), 5060), at(platformAddr, 5060))
	media := w.platform.dial(t, flows[0].Remote, flows[0].Key.Local)
	for _, conn := range []*net.UDPConn{sip, media} {
		if _, err := conn.Write(payload); err != nil {
			t.Fatal(err)
		}
	}
	d.receive(t)
	if _, err := d.Write(frame{src: flows[1].Remote, dst: flows[1].Key.Local, payload: payload}.build(t)[14:]); err != nil {
		t.Fatal(err)
	}
	w.platform.receive(t)

	want := laden
	want.Packets = 1
	if got := atStack(); got != want { // else the rest would prove nothing
		t.Errorf("the stack gets %+v, want %+v", got, want)
	}
	for way, got := range map[string]noted{"into the tunnel": inTunnel(), "out of the tunnel": onWire()} {
		if got.Mark != 0 || got.Time != 0 || got.Queue != 0 || got.Packets != 1 {
			t.Errorf("%s leaves %+v", way, got)
		}
	}
}

// TestChecksumOffload: in the same machine, as between containers, packets come with checksums that a device was to
// finish. What TC sends of them arrives with right ones, whether a device without offload finishes them or the
// packet goes into a tunnel, and although the payload is another one (A-law to mu-law, M14).
func TestChecksumOffload(t *testing.T) {
	for _, way := range []string{"tunnel", "neighbour"} {
		for _, treatment := range []call.Treatment{call.AsIs, call.ALawToULaw} {
			t.Run(fmt.Sprintf("%s, treatment %d", way, treatment), func(t *testing.T) {
				w := newWire(t)
				w.platform.space.Run(t, "ethtool", "-K tdmpeer tx on")
				arriving := newTap(t, w.gateway, "tdmplat")
				var receive func() []byte
				var e *Engine
				if way == "tunnel" {
					d, cfg := w.overTunnel(t)
					e = w.start(t, cfg)
					receive = func() []byte { return d.receive(t) }
				} else {
					w.gateway.Run(t, "ethtool", "-K tdmcarr tx off")
					w.hops.byRealm[carrier] = call.NextHop{Neighbour: carrierPeer.Addr(), NeighbourIfindex: w.peer.index}
					e = w.start(t, w.config(""))
					receive = func() []byte { return w.peer.receive(t)[14:] }
				}
				f := twoWay()[0]
				f.Payloads = []call.Payload{{In: 8, Out: 0, Treatment: treatment}}
				if err := e.Install([]call.Flow{f}); err != nil {
					t.Fatal(err)
				}
				conn := w.platform.dial(t, f.Remote, f.Key.Local)
				for seq := range 20 {
					payload := rtpOf(uint16(seq), uint32(seq)*160, 7, 160+seq) // odd lengths too
					if _, err := conn.Write(payload); err != nil {
						t.Fatal(err)
					}
					if !arriving.rtp(t).partial {
						t.Fatal("the checksum is whole already: this proves nothing")
					}
					got := receive()
					sent, ok := treated(payload, f.Payloads[0])
					if want := sentPacket(t, f, sent, got); !ok || !bytes.Equal(got, want) {
						t.Fatalf("packet %d:\n%x\nwant\n%x", seq, got, want)
					}
				}
			})
		}
	}
}

// listen opens a socket of the gateway's own.
func (w *wire) listen(t *testing.T, on netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	w.gateway.Do(func() { conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(on)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}
