package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
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

// wire is the gateway between two peers, each in a namespace of its own, over veth.
type wire struct {
	gateway        *netspace.Space
	platform, peer side
	hops           *staticHops
}

// side is one peer and the gateway's device towards it.
type side struct {
	space *netspace.Space
	name  string // the gateway's device
	index int
	addr  netip.AddrPort // the peer's media
	raw   int            // packet socket on the peer's device
}

func newWire(t *testing.T) *wire {
	t.Helper()
	w := &wire{gateway: netspace.New(t), hops: &staticHops{byRealm: map[uint16]call.NextHop{}}}
	w.platform = w.connect(t, "tdmplat", "192.0.2.2/24", platformPeer, platform)
	w.peer = w.connect(t, "tdmcarr", "198.51.100.2/24", carrierPeer, carrier)
	return w
}

func (w *wire) connect(t *testing.T, name, own string, peer netip.AddrPort, realm uint16) side {
	t.Helper()
	return w.connectAs(t, name, own, peer, realm, 0)
}

// connectAs gives the gateway's device an index of its own, unless it is 0.
func (w *wire) connectAs(t *testing.T, name, own string, peer netip.AddrPort, realm uint16, index int) side {
	t.Helper()
	s := side{space: netspace.New(t), name: name, addr: peer}
	as := ""
	if index != 0 {
		as = fmt.Sprint(" index ", index)
	}
	w.gateway.IP(t, "link add "+name+as+" type veth peer name tdmpeer netns "+s.space.Path)
	w.gateway.IP(t, "addr add "+own+" dev "+name)
	w.gateway.IP(t, "link set "+name+" up")
	s.space.IP(t, "addr add "+peer.Addr().String()+"/24 dev tdmpeer")
	s.space.IP(t, "link set tdmpeer up")
	// veth takes redirected frames only where the other end polls (GRO on), and a checksum
	// that the sender leaves to the device would never be made.
	s.space.Run(t, "ethtool", "-K tdmpeer gro on tx off")
	var gatewayEnd, peerEnd *net.Interface
	var err error
	w.gateway.Do(func() { gatewayEnd, err = net.InterfaceByName(name) })
	if err != nil {
		t.Fatal(err)
	}
	s.index = gatewayEnd.Index
	s.space.Do(func() {
		if peerEnd, err = net.InterfaceByName("tdmpeer"); err == nil {
			s.raw, err = openRaw(peerEnd.Index)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(s.raw) })
	header := append(append([]byte{}, peerEnd.HardwareAddr...), gatewayEnd.HardwareAddr...)
	w.hops.byRealm[realm] = call.NextHop{Ifindex: s.index, L2: append(header, 0x08, 0x00)}
	return s
}

// openRaw opens a socket that sees what the device receives, and waits 5 s for it.
func openRaw(ifindex int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	to := &unix.SockaddrLinklayer{Protocol: binary.NativeEndian.Uint16([]byte{0x08, 0x00}), Ifindex: ifindex}
	limit := unix.Timeval{Sec: 5}
	return fd, errors.Join(unix.Bind(fd, to), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit))
}

// receive returns the next UDP packet that comes in on the peer's device.
func (s side) receive(t *testing.T) []byte {
	t.Helper()
	buf := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(s.raw, buf, 0)
		if err != nil {
			t.Fatalf("peer of %s: nothing received: %v", s.name, err)
		}
		ll, ok := from.(*unix.SockaddrLinklayer)
		if ok && ll.Pkttype != unix.PACKET_OUTGOING && n > 34 && buf[23] == unix.IPPROTO_UDP {
			return buf[:n]
		}
	}
}

// dial opens the peer's media socket.
func (s side) dial(t *testing.T, from netip.AddrPort, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	var err error
	s.space.Do(func() { conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to)) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// open opens the engine in the gateway's namespace.
func (w *wire) open(t *testing.T) (e *Engine, err error) {
	t.Helper()
	w.gateway.Do(func() {
		e, err = Open(Config{
			Realms: []Realm{
				{Number: platform, Points: []Point{{Ifindex: w.platform.index}}, Media: mediaPorts, Addr: platformAddr},
				{Number: carrier, Points: []Point{{Ifindex: w.peer.index}}, Media: mediaPorts, Addr: carrierAddr},
			},
			MaxCalls: 10,
			NextHops: w.hops,
		})
	})
	return e, err
}

// twoWay are the four flows of a call, RTP both ways and RTCP both ways.
func twoWay() []call.Flow {
	flow := func(in, out uint16, inAddr, outAddr netip.Addr, remote, dest netip.AddrPort, local, source uint16) call.Flow {
		return call.Flow{
			Key:    call.FlowKey{Realm: in, Local: netip.AddrPortFrom(inAddr, local)},
			Remote: remote, OutRealm: out, Source: netip.AddrPortFrom(outAddr, source), Dest: dest,
			DSCP: 46, ClockRate: 8000,
		}
	}
	rtcpOf := func(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr(), a.Port()+1) }
	flows := []call.Flow{
		flow(platform, carrier, platformAddr, carrierAddr, platformPeer, carrierPeer, 20000, 24000),
		flow(carrier, platform, carrierAddr, platformAddr, carrierPeer, platformPeer, 24000, 20000),
		flow(platform, carrier, platformAddr, carrierAddr, rtcpOf(platformPeer), rtcpOf(carrierPeer), 20001, 24001),
		flow(carrier, platform, carrierAddr, platformAddr, rtcpOf(carrierPeer), rtcpOf(platformPeer), 24001, 20001),
	}
	flows[2].RTCP, flows[3].RTCP = true, true
	return flows
}

// TestKernel carries a call over veth (M1, M2, M3, M7): RTP and RTCP go both ways by XDP
// redirect and arrive byte for byte, marked, a hop older, with right checksums; a stranger
// is refused; the counters add up; after Close nothing is attached.
func TestKernel(t *testing.T) {
	w := newWire(t)
	e, err := w.open(t)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for _, a := range e.Attachments() {
		if a.Hook == hookXDP && a.Mode != modeNative {
			t.Errorf("%s is in %s mode", a.Device, a.Mode)
		}
	}
	flows := twoWay()
	if err := e.Install(flows); err != nil {
		t.Fatal(err)
	}

	const n = 100
	sides := map[uint16]side{platform: w.platform, carrier: w.peer}
	for i, f := range flows {
		conn := sides[f.Key.Realm].dial(t, f.Remote, f.Key.Local)
		for seq := range n {
			payload := rtp(uint16(seq), uint32(seq)*160, 7)
			if f.RTCP {
				payload = append(rtcp(), byte(seq), 0, 0, 0)
			}
			if _, err := conn.Write(payload); err != nil {
				t.Fatal(err)
			}
			got := sides[f.OutRealm].receive(t)
			want := frame{src: f.Source, dst: f.Dest, ttl: 63, tos: 46 << 2, payload: payload}.build(t)
			// The identification is the sender's own; with it comes the header's checksum.
			if sumIPv4(got[14:34]) != 0xffff {
				t.Fatalf("flow %d packet %d: IP checksum wrong: %x", i, seq, got[14:34])
			}
			copy(want[18:22], got[18:22])
			copy(want[24:26], got[24:26])
			if !bytes.Equal(got[14:], want[14:len(got)]) { // gopacket pads to Ethernet's minimum
				t.Fatalf("flow %d packet %d: got\n%x\nwant\n%x", i, seq, got[14:], want[14:])
			}
		}
	}

	// A stranger sends from the right address and a wrong port, then the peer once more: what
	// arrives next is the peer's.
	stranger := w.platform.dial(t, netip.AddrPortFrom(platformPeer.Addr(), 4000), flows[0].Key.Local)
	if _, err := stranger.Write(rtp(1, 1, 66)); err != nil {
		t.Fatal(err)
	}
	conn := w.platform.dial(t, netip.AddrPortFrom(platformPeer.Addr(), 4002), netip.AddrPortFrom(platformAddr, 30000))
	if _, err := conn.Write(rtp(1, 1, 66)); err != nil {
		t.Fatal(err)
	}
	stats, err := e.Remove([]call.FlowKey{flows[0].Key, flows[1].Key, flows[2].Key, flows[3].Key})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range stats {
		size, refused := uint64(172), uint64(0)
		if flows[i].RTCP {
			size = 12
		}
		if i == 0 {
			refused = 1
		}
		if s.Packets != n || s.Bytes != n*size || s.Lost != 0 || s.Reordered != 0 || s.Refused != refused {
			t.Errorf("flow %d: %+v", i, s)
		}
	}
	engine, err := e.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if engine.KernelPackets != 4*n {
		t.Errorf("%d packets forwarded, want %d", engine.KernelPackets, 4*n)
	}
	left := map[string]uint64{}
	for _, x := range engine.Exits {
		left[x.Reason] += x.Packets
	}
	for _, reason := range []string{call.ExitNoFlow, call.ExitSourceRefused} {
		if left[reason] != 1 {
			t.Errorf("%d packets left by %s, want 1", left[reason], reason)
		}
	}

	// What is not media goes on as if we were not there.
	sip := w.platform.dial(t, netip.AddrPortFrom(platformPeer.Addr(), 5060), netip.AddrPortFrom(platformAddr, 5060))
	var server *net.UDPConn
	w.gateway.Do(func() {
		server, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(platformAddr, 5060)))
	})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := sip.Write([]byte("OPTIONS")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if got, _, err := server.ReadFromUDP(buf); err != nil || string(buf[:got]) != "OPTIONS" {
		t.Errorf("SIP did not reach its socket: %v", err)
	}

	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	w.wantDetached(t)
}

// sumIPv4 is the one's complement sum of a header, all ones if its checksum is right.
func sumIPv4(h []byte) uint16 {
	var sum uint16
	for i := 0; i < len(h); i += 2 {
		sum = checksumSum(sum, binary.BigEndian.Uint16(h[i:]))
	}
	return sum
}

func (w *wire) wantDetached(t *testing.T) {
	t.Helper()
	if out := w.gateway.IP(t, "link show"); strings.Contains(out, "xdp") {
		t.Errorf("something is attached still:\n%s", out)
	}
}

// TestForeignProgram: a device that has an XDP program gives an error that names it and the
// remedy; the foreign program stays, and ours is taken off the devices it was put on before.
func TestForeignProgram(t *testing.T) {
	w := newWire(t)
	for _, mode := range []link.XDPAttachFlags{link.XDPDriverMode, link.XDPGenericMode} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type:         ebpf.XDP,
			AttachType:   ebpf.AttachXDP,
			License:      "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
		})
		if err != nil {
			t.Fatal(err)
		}
		var foreign link.Link
		w.gateway.Do(func() {
			foreign, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: w.peer.index, Flags: mode})
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.open(t)
		if !errors.Is(err, ErrBusy) {
			t.Fatalf("mode %d: error %v is not ErrBusy", mode, err)
		}
		for _, part := range []string{"tdmcarr", "ip link set dev tdmcarr xdp off"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("error %q does not say %q", err, part)
			}
		}
		if out := w.gateway.IP(t, "link show"); strings.Count(out, "prog/xdp") != 1 {
			t.Errorf("not just the foreign program is attached:\n%s", out)
		}
		if err := errors.Join(foreign.Close(), prog.Close()); err != nil {
			t.Fatal(err)
		}
		w.wantDetached(t)
	}
	// A second engine on the same devices is refused as well, and leaves the first alone.
	first, err := w.open(t)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.open(t); !errors.Is(err, ErrBusy) {
		t.Errorf("second engine: %v", err)
	}
	if out := w.gateway.IP(t, "link show"); strings.Count(out, "prog/xdp") != 2 {
		t.Errorf("the first engine is not attached to both devices any more:\n%s", out)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	w.wantDetached(t)
}

// TestTagsBeforeXDP: VLAN receive offload is off when XDP comes to a device. Else it would take tagged frames for
// those of the untagged realm, until the offload is off.
func TestTagsBeforeXDP(t *testing.T) {
	w := newWire(t)
	w.gateway.Run(t, "ethtool", "-K tdmplat rxvlan on")
	cfg := w.config("")
	cfg.Realms = pointed(cfg.Realms, carrier)
	flags := []uint32{ethtoolGetFlags, flagRxVLAN}
	cfg.step = func(name string) { // in the gateway's namespace
		if name != "attach xdp" {
			return
		}
		s, err := openSpace()
		if err == nil {
			defer s.close()
			err = ethtool(s.control, "tdmplat", flags)
		}
		if err != nil {
			t.Error(err)
		}
	}
	shut(t, w.start(t, cfg))
	if flags[1]&flagRxVLAN != 0 {
		t.Error("VLAN receive offload was on when XDP was attached")
	}
}

// TestDevices: VLAN receive offload is off while the program runs and put back as it was, a
// jumbo MTU is no hindrance, and a device without native XDP is served all the same.
func TestDevices(t *testing.T) {
	w := newWire(t)
	w.gateway.IP(t, "link set tdmplat mtu 9000") // too large for a program that cannot take fragments
	w.gateway.Run(t, "ethtool", "-K tdmplat rxvlan on")
	e, err := w.open(t)
	if err != nil {
		t.Fatal(err)
	}
	if out := w.gateway.Run(t, "ethtool", "-k tdmplat"); !strings.Contains(out, "rx-vlan-offload: off") {
		t.Errorf("VLAN receive offload hides tags from the program:\n%s", out)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if out := w.gateway.Run(t, "ethtool", "-k tdmplat"); !strings.Contains(out, "rx-vlan-offload: on") {
		t.Errorf("VLAN receive offload is not on again:\n%s", out)
	}

	// The loopback has no native mode.
	w.gateway.Do(func() {
		e, err = Open(Config{
			Realms:   []Realm{{Number: 1, Points: []Point{{Ifindex: 1}}, Media: mediaPorts, Addr: platformAddr}},
			NextHops: w.hops,
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	want := []Attachment{
		{Device: "lo", Ifindex: 1, Hook: hookXDP, Mode: modeGeneric},
		{Device: "lo", Ifindex: 1, Hook: hookTCX},
	}
	if got := e.Attachments(); !slices.Equal(got, want) {
		t.Errorf("attachments %+v, want %+v", got, want)
	}
}
