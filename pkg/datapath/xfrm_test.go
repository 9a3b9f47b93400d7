package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// The tunnels of two carriers, who have the same addresses, inside and outside.
var (
	outerOwn  = netip.MustParseAddr("198.18.0.1")
	outerPeer = netip.MustParseAddr("198.18.0.2")
)

const (
	platformVLAN = 200
	firstCarrier = 2 // realm number, and 3 the second's
	xfrmMTU      = 1200
)

// trunk is a gateway with a trunk: on one VLAN the platform in clear, on two others carriers behind ESP, with manual keys.
// The outer side of each tunnel is in a namespace of its own, the xfrm interface in the gateway's, in a VRF.
type trunk struct {
	gateway  *netspace.Space
	far      *netspace.Space // where the other end of the trunk is
	platform *netspace.Space
	carriers [2]*tunnelEnd
	index    int // of the trunk
	peerMAC  net.HardwareAddr
	ownMAC   net.HardwareAddr
	hops     *staticHops
}

// tunnelEnd is a carrier, and the gateway's side of its tunnel.
type tunnelEnd struct {
	vlan  int
	under *netspace.Space // of the gateway
	space *netspace.Space // of the carrier
	index int             // of the gateway's xfrm interface
}

// needTunnels skips the test where the kernel lacks what it is about.
func needTunnels(t *testing.T, s *netspace.Space) {
	t.Helper()
	s.IP(t, "link add tdmprobe type veth peer name tdmprobe2")
	for feature, args := range map[string]string{
		"802.1Q":          "link add link tdmprobe name tdmprobe.1 type vlan id 1",
		"VRF":             "link add tdmvrf type vrf table 9",
		"xfrm interfaces": "link add tdmxfrm type xfrm dev tdmprobe if_id 1",
	} {
		var out []byte
		var err error
		s.Do(func() { out, err = exec.Command("ip", strings.Fields(args)...).CombinedOutput() })
		if err != nil {
			netspace.Lacks(t, "this kernel has no %s: %s", feature, out)
		}
	}
}

func newTrunk(t *testing.T) *trunk {
	t.Helper()
	w := &trunk{gateway: netspace.New(t), far: netspace.New(t), hops: &staticHops{byRealm: map[uint16]call.NextHop{}}}
	needTunnels(t, netspace.New(t))
	w.gateway.IP(t, "link add tdmtrunk type veth peer name tdmfar netns "+w.far.Path)
	// Tags and checksums as on a wire.
	w.far.Run(t, "ethtool", "-K tdmfar txvlan off rxvlan off tx off gro on")
	w.gateway.Run(t, "ethtool", "-K tdmtrunk txvlan off rxvlan off tx off")
	w.gateway.IP(t, "link set tdmtrunk up")
	w.far.IP(t, "link set tdmfar up")
	own, peer := device(t, w.gateway, "tdmtrunk"), device(t, w.far, "tdmfar")
	w.index, w.ownMAC, w.peerMAC = own.Index, own.HardwareAddr, peer.HardwareAddr

	w.platform = netspace.New(t)
	w.vlan(t, w.far, "tdmfar", platformVLAN, w.platform, platformPeer.Addr(), 24)
	w.gateway.IP(t, "link add tdmvrf0 type vrf table 10")
	w.gateway.IP(t, "link set tdmvrf0 up")
	w.gateway.IP(t, fmt.Sprintf("link add link tdmtrunk name tdmtrunk.%d type vlan id %d", platformVLAN, platformVLAN))
	w.gateway.IP(t, fmt.Sprintf("link set tdmtrunk.%d master tdmvrf0 up", platformVLAN))
	w.gateway.IP(t, fmt.Sprintf("addr add %s/24 dev tdmtrunk.%d", platformAddr, platformVLAN))
	header := slices.Concat(w.peerMAC, w.ownMAC, []byte{0x81, 0, 5 << 5, platformVLAN, 0x08, 0})
	w.hops.byRealm[platform] = call.NextHop{Ifindex: w.index, L2: header}
	for i := range w.carriers {
		w.carriers[i] = w.connect(t, i)
		w.hops.byRealm[firstCarrier+uint16(i)] = call.NextHop{Ifindex: w.carriers[i].index, Bare: true, MTU: xfrmMTU, PCP: 5}
	}
	return w
}

func device(t *testing.T, s *netspace.Space, name string) (d *net.Interface) {
	t.Helper()
	var err error
	s.Do(func() { d, err = net.InterfaceByName(name) })
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}

// vlan makes a VLAN device, in the namespace that it is for.
func (w *trunk) vlan(t *testing.T, from *netspace.Space, parent string, id int, to *netspace.Space, addr netip.Addr, bits int) {
	t.Helper()
	name := fmt.Sprintf("%s.%d", parent, id)
	from.IP(t, fmt.Sprintf("link add link %s name %s type vlan id %d egress-qos-map 0:0 5:5", parent, name, id))
	from.IP(t, fmt.Sprintf("link set %s netns %s", name, to.Path))
	to.IP(t, fmt.Sprintf("addr add %s/%d dev %s", addr, bits, name))
	to.IP(t, fmt.Sprintf("link set %s up", name))
}

// connect makes a carrier and both sides of its tunnel.
func (w *trunk) connect(t *testing.T, i int) *tunnelEnd {
	t.Helper()
	c := &tunnelEnd{vlan: 101 + i, under: netspace.New(t), space: netspace.New(t)}
	w.vlan(t, w.gateway, "tdmtrunk", c.vlan, c.under, outerOwn, 30)
	w.vlan(t, w.far, "tdmfar", c.vlan, c.space, outerPeer, 30)
	name, vrf := fmt.Sprint("tdx", i), fmt.Sprint("tdmvrf", i+1)
	c.under.IP(t, fmt.Sprintf("link add %s type xfrm dev tdmtrunk.%d if_id 1", name, c.vlan))
	c.under.IP(t, fmt.Sprintf("link set %s netns %s", name, w.gateway.Path))
	w.gateway.IP(t, fmt.Sprintf("link add %s type vrf table %d", vrf, 11+i))
	w.gateway.IP(t, fmt.Sprintf("addr add %s/32 dev %s", tunnelAddr, vrf))
	w.gateway.IP(t, fmt.Sprintf("link set %s up", vrf))
	w.gateway.IP(t, fmt.Sprintf("link set %s master %s mtu %d up", name, vrf, xfrmMTU))
	w.gateway.IP(t, fmt.Sprintf("route add %s/32 dev %s table %d", tunnelPeer, name, 11+i))
	c.index = device(t, w.gateway, name).Index
	c.space.IP(t, fmt.Sprintf("link add tdmx type xfrm dev tdmfar.%d if_id 1", c.vlan))
	c.space.IP(t, fmt.Sprintf("addr add %s/32 dev tdmx", tunnelPeer))
	c.space.IP(t, "link set tdmx up")
	c.space.IP(t, fmt.Sprintf("route add %s/32 dev tdmx", tunnelAddr))
	key := func(n int) string { return "0x" + strings.Repeat(fmt.Sprintf("%02x", 16*i+n), 36) }
	for _, end := range []struct {
		space *netspace.Space
		own   netip.Addr
	}{{c.under, outerOwn}, {c.space, outerPeer}} {
		for n, way := range [][2]netip.Addr{{outerOwn, outerPeer}, {outerPeer, outerOwn}} {
			window := ""
			if way[1] == end.own {
				window = " replay-window 64"
			}
			end.space.IP(t, fmt.Sprintf("xfrm state add src %s dst %s proto esp spi 0x%x reqid 1 mode tunnel%s", way[0], way[1], 0x1001+n, window)+
				fmt.Sprintf(" aead rfc4106(gcm(aes)) %s 128 if_id 1 flag af-unspec", key(n+1)))
			for _, dir := range map[bool][]string{true: {"in", "fwd"}, false: {"out"}}[way[1] == end.own] {
				end.space.IP(t, fmt.Sprintf("xfrm policy add src 0.0.0.0/0 dst 0.0.0.0/0 dir %s if_id 1", dir)+
					fmt.Sprintf(" tmpl src %s dst %s proto esp reqid 1 mode tunnel", way[0], way[1]))
			}
		}
	}
	return c
}

// realms of the trunk: each with ports of its own.
func (w *trunk) realms() []Realm {
	realms := []Realm{{
		Number: platform, Points: []Point{{Ifindex: w.index, VLAN: platformVLAN}}, Addr: platformAddr,
		Media: call.PortRange{First: 20000, Last: 20999}, SIPPort: 5060, Peers: []netip.Addr{platformPeer.Addr()},
	}}
	for i, c := range w.carriers {
		realms = append(realms, Realm{
			Number: firstCarrier + uint16(i), Addr: tunnelAddr, SIPPort: 5060, Peers: []netip.Addr{tunnelPeer},
			Points: []Point{{Ifindex: c.index, Bare: true}, {Ifindex: w.index, VLAN: uint16(c.vlan), Underlay: true}},
			Media:  call.PortRange{First: uint16(21000 + 1000*i), Last: uint16(21999 + 1000*i)},
		})
	}
	return realms
}

func (w *trunk) open(t *testing.T) *Engine {
	t.Helper()
	return (&wire{gateway: w.gateway, hops: w.hops}).start(t, Config{Realms: w.realms(), MaxCalls: 10, NextHops: w.hops, Pins: newPins(t)})
}

// end is a realm's peer: where it sends and hears, and our address there.
type end struct {
	realm    uint16
	space    *netspace.Space
	device   string
	own      netip.Addr
	peer     netip.Addr
	port     uint16 // ours, of the realm's media ports
	peerPort uint16
	len      int // of the link-layer header
}

func (w *trunk) ends() map[string]end {
	return map[string]end{
		"platform": {platform, w.platform, fmt.Sprint("tdmfar.", platformVLAN), platformAddr, platformPeer.Addr(), 20000, 40000, 14},
		"carrier":  {firstCarrier, w.carriers[0].space, "tdmx", tunnelAddr, tunnelPeer, 21000, 41000, 0},
		"other":    {firstCarrier + 1, w.carriers[1].space, "tdmx", tunnelAddr, tunnelPeer, 22000, 42000, 0},
	}
}

// flow leads from one end to another; n tells flows between the same ends apart.
func (a end) flow(b end, n uint16) call.Flow {
	return call.Flow{
		Key: call.FlowKey{Realm: a.realm, Local: at(a.own, a.port+n)}, Remote: at(a.peer, a.peerPort+n),
		OutRealm: b.realm, Source: at(b.own, b.port+n), Dest: at(b.peer, b.peerPort+n), DSCP: 46, ClockRate: 8000,
	}
}

// dial opens the end's socket for a flow.
func (a end) dial(t *testing.T, f call.Flow) *net.UDPConn {
	t.Helper()
	return side{space: a.space}.dial(t, f.Remote, f.Key.Local)
}

// TestXfrm: calls between the platform's VLAN and a tunnel, and between two tunnels of carriers who have the same
// addresses inside and outside (N3, N5): 200 packets each way, none lost, byte for byte what they shall be, with right
// checksums; DSCP on the inner and the outer header, priority in the VLAN tag of both sides; nothing but ESP and ARP is on
// the tunnels' VLANs.
func TestXfrm(t *testing.T) {
	w := newTrunk(t)
	e := w.open(t)
	ends := w.ends()
	wire := newTap(t, w.far, "tdmfar")
	const n = 200
	for i, way := range [][2]string{{"carrier", "platform"}, {"platform", "carrier"}, {"carrier", "other"}, {"other", "carrier"}} {
		a, b := ends[way[0]], ends[way[1]]
		f := a.flow(b, uint16(2*i))
		f.Payloads = []call.Payload{{In: 8, Out: 0, Treatment: call.ALawToULaw}}
		if err := e.Install([]call.Flow{f}); err != nil {
			t.Fatal(err)
		}
		there := newTap(t, b.space, b.device)
		conn := a.dial(t, f)
		for seq := range n {
			payload := rtp(uint16(seq), uint32(seq)*160, 7)
			if _, err := conn.Write(payload); err != nil {
				t.Fatal(err)
			}
			got := there.rtpBehind(t, b.len).frame[b.len:]
			payload, _ = treated(payload, f.Payloads[0])
			if want := sentPacket(t, f, payload, got); !bytes.Equal(got, want) {
				t.Fatalf("%v, packet %d:\n%x\nwant\n%x", way, seq, got, want)
			}
			w.wantOnWire(t, wire, way, b)
		}
		if s := statsOf(t, e, []call.Flow{f})[0]; s.Packets != n || s.Lost != 0 || s.Reordered != 0 {
			t.Errorf("%v: counted %+v", way, s)
		}
	}
	exits := exitsOf(t, e)
	for realm, want := range map[uint16]uint64{platform: n, firstCarrier: 2 * n, firstCarrier + 1: n} {
		if got := exits[call.Exit{Realm: realm, Verdict: "forward", Reason: call.ExitForwarded}]; got != want {
			t.Errorf("realm %d: %d packets forwarded, want %d", realm, got, want)
		}
	}
	if got := exits[call.Exit{Realm: firstCarrier, Verdict: "stack", Reason: "underlay"}]; got < 2*n {
		t.Errorf("%d packets of the tunnel came in, want %d at least", got, 2*n)
	}
}

// rtpBehind returns the next frame that is as long as the tests' RTP.
func (p *tap) rtpBehind(t *testing.T, header int) seen {
	t.Helper()
	for {
		s, ok := p.read(t, true)
		if !ok {
			t.Fatal("nothing received")
		}
		if len(s.frame) == header+200 {
			return s
		}
	}
}

// wantOnWire asserts what the frame on the trunk looks like that brought the packet.
func (w *trunk) wantOnWire(t *testing.T, wire *tap, way [2]string, to end) {
	t.Helper()
	vlan, protocol, length := platformVLAN, byte(unix.IPPROTO_UDP), 218
	if to.realm != platform {
		// Outer IP, SPI and sequence, IV, the packet, padding with its length and the next header, ICV.
		vlan, protocol, length = w.carriers[to.realm-firstCarrier].vlan, unix.IPPROTO_ESP, 18+20+8+8+204+16
	}
	for {
		s, ok := wire.read(t, true)
		if !ok {
			t.Fatalf("%v: nothing is on the trunk", way)
		}
		if f := s.frame; binary.BigEndian.Uint16(f[16:]) == 0x0800 {
			tag := binary.BigEndian.Uint16(f[14:])
			if int(tag) != 5<<13|vlan || f[18+9] != protocol || f[18+1] != 46<<2 || len(f) != length {
				t.Errorf("%v: on the trunk is %x (%d bytes)", way, f[:min(len(f), 60)], len(f))
			}
			return
		} else if binary.BigEndian.Uint16(f[16:]) != 0x0806 {
			t.Logf("on the trunk: %x", f)
		}
	}
}

// TestClearText: what comes in clear where a tunnel ends is dropped and counted, be it UDP to a media port, TCP or IPv6, and the
// namespace of the tunnel's outer side sees nothing of it; ARP and ESP go on. So is what one realm's peer sends to
// another realm's address (N5).
func TestClearText(t *testing.T) {
	w := newTrunk(t)
	e := w.open(t)
	ends := w.ends()
	f := ends["carrier"].flow(ends["platform"], 0)
	if err := e.Install([]call.Flow{f}); err != nil {
		t.Fatal(err)
	}
	c := w.carriers[0]
	conn := ends["carrier"].dial(t, f)
	platformTap := newTap(t, w.platform, fmt.Sprint("tdmfar.", platformVLAN))
	through := func() {
		t.Helper()
		if _, err := conn.Write(rtp(1, 160, 1)); err != nil {
			t.Fatal(err)
		}
		platformTap.rtpBehind(t, 14)
	}
	through() // ARP, ESP
	under, wire := newTap(t, c.under, fmt.Sprint("tdmtrunk.", c.vlan)), newTap(t, w.far, "tdmfar")
	clear := func(change ...func(*frame)) []byte {
		in := frame{src: f.Remote, dst: f.Key.Local, vlans: []uint16{uint16(c.vlan)}, payload: rtp(1, 160, 1)}
		for _, change := range change {
			change(&in)
		}
		b := in.build(t)
		copy(b, w.ownMAC)
		copy(b[6:], w.peerMAC)
		return b
	}
	frames := [][]byte{
		clear(), clear(withPort(5060)), protocol(clear(), unix.IPPROTO_TCP), patch(clear(), 16, 0x86, 0xdd),
		clear(func(f *frame) { f.dst = at(outerOwn, 5060) }),
	}
	for _, frame := range frames {
		wire.send(t, frame)
	}
	toOther := clear(func(f *frame) {
		f.vlans, f.src, f.dst = []uint16{platformVLAN}, platformPeer, at(tunnelAddr, 5060)
	})
	wire.send(t, toOther)
	through()
	for {
		s, ok := under.read(t, false)
		if !ok {
			break
		}
		if kind := binary.BigEndian.Uint16(s.frame[12:]); kind != 0x0806 && (kind != 0x0800 || s.frame[14+9] != unix.IPPROTO_ESP) {
			t.Errorf("where the tunnel ends comes %x", s.frame)
		}
	}
	exits := exitsOf(t, e)
	for exit, want := range map[call.Exit]uint64{
		{Realm: firstCarrier, Verdict: "drop", Reason: "clear-text"}:     uint64(len(frames)),
		{Realm: platform, Verdict: "drop", Reason: "wrong-realm"}:        1,
		{Realm: firstCarrier + 1, Verdict: "drop", Reason: "clear-text"}: 0,
	} {
		if exits[exit] != want {
			t.Errorf("%+v: %d packets, want %d", exit, exits[exit], want)
		}
	}
}

// TestTunnelMTU: whoever sends what the tunnel does not take, and forbids fragments, is told so, from VLAN and from tunnel
// alike, and believes it (N7, RFC 1191). What may be fragmented arrives.
func TestTunnelMTU(t *testing.T) {
	w := newTrunk(t)
	e := w.open(t)
	ends := w.ends()
	for i, way := range [][2]string{{"platform", "carrier"}, {"other", "carrier"}} {
		a, b := ends[way[0]], ends[way[1]]
		f := a.flow(b, uint16(2*i))
		if err := e.Install([]call.Flow{f}); err != nil {
			t.Fatal(err)
		}
		there := newTap(t, b.space, b.device)
		conn := a.dial(t, f)
		discover(t, conn, unix.IP_PMTUDISC_DONT)
		large := rtpOf(1, 160, 1, xfrmMTU)
		if _, err := conn.Write(large); err != nil {
			t.Fatal(err)
		}
		for got := 0; got != len(large)+28; {
			s, ok := there.read(t, true)
			if !ok {
				t.Fatalf("%v: the large packet does not arrive", way)
			}
			got = len(s.frame)
		}
		discover(t, conn, unix.IP_PMTUDISC_DO)
		if _, err := conn.Write(large); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(10 * time.Second); pathMTU(t, conn) != xfrmMTU && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
		if got := pathMTU(t, conn); got != xfrmMTU {
			t.Errorf("%v: the sender believes in an MTU of %d, want %d", way, got, xfrmMTU)
		}
		if _, err := conn.Write(large); !errors.Is(err, unix.EMSGSIZE) {
			t.Errorf("%v: the sender sends on: %v", way, err)
		}
		exit := call.Exit{Realm: a.realm, Verdict: "drop", Reason: "fragmentation-needed"}
		if got := exitsOf(t, e)[exit]; got != 1 {
			t.Errorf("%v: %d packets answered, want 1", way, got)
		}
	}
}

func discover(t *testing.T, conn *net.UDPConn, how int) {
	t.Helper()
	onSocket(t, conn, func(fd int) error { return unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, how) })
}

func pathMTU(t *testing.T, conn *net.UDPConn) (mtu int) {
	t.Helper()
	onSocket(t, conn, func(fd int) (err error) {
		mtu, err = unix.GetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU)
		return err
	})
	return mtu
}

func onSocket(t *testing.T, conn *net.UDPConn, f func(fd int) error) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := errors.Join(raw.Control(func(fd uintptr) { failed = f(int(fd)) }), failed); err != nil {
		t.Fatal(err)
	}
}

// TestXfrmMadeAgain: the xfrm interface is deleted and made again with the same index, as the daemon does; Update puts the
// program on the new one, and the call goes on (N9).
func TestXfrmMadeAgain(t *testing.T) {
	w := newTrunk(t)
	e := w.open(t)
	ends := w.ends()
	f := ends["carrier"].flow(ends["platform"], 0)
	if err := e.Install([]call.Flow{f}); err != nil {
		t.Fatal(err)
	}
	there := newTap(t, w.platform, fmt.Sprint("tdmfar.", platformVLAN))
	conn := ends["carrier"].dial(t, f)
	c := w.carriers[0]
	for range 3 {
		for seq := range 20 {
			if _, err := conn.Write(rtp(uint16(seq), uint32(seq)*160, 7)); err != nil {
				t.Fatal(err)
			}
			there.rtpBehind(t, 14)
		}
		w.gateway.IP(t, "link del tdx0")
		c.under.IP(t, fmt.Sprintf("link add tdx0 index %d type xfrm dev tdmtrunk.%d if_id 1", c.index, c.vlan))
		c.under.IP(t, "link set tdx0 netns "+w.gateway.Path)
		w.gateway.IP(t, fmt.Sprintf("link set tdx0 master tdmvrf1 mtu %d up", xfrmMTU))
		if got := device(t, w.gateway, "tdx0").Index; got != c.index {
			t.Fatalf("the new device has index %d, not %d", got, c.index)
		}
		var err error
		w.gateway.Do(func() { err = e.Update(w.realms()) })
		if err != nil {
			t.Fatal(err)
		}
	}
}
