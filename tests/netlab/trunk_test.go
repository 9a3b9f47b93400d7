package netlab

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-sbc/tandem/tests/netspace"
)

// trunked brings a trunk topology up, or skips where the kernel cannot.
func trunked(t *testing.T, topology Topology) *Lab {
	t.Helper()
	requireRoot(t)
	lack, err := TunnelsLack()
	if err != nil {
		t.Fatal(err)
	}
	if len(lack) > 0 {
		netspace.Lacks(t, "this kernel lacks %s: use `make test-vm`", strings.Join(lack, ", "))
	}
	return up(t, topology)
}

// gatewayTunnel is the daemon's part, by hand: an uplink's VLAN in the gateway's own
// namespace, a charon that starts the tunnel, and the site's inner network behind it.
func gatewayTunnel(t *testing.T, lab *Lab, s Site) (own *Charon) {
	t.Helper()
	for i, u := range s.Uplinks {
		h, err := netlink.NewHandleAt(lab.hosts[Gateway])
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		trunk, err := h.LinkByName(TrunkDevice)
		if err != nil {
			t.Fatal(err)
		}
		vlan := &netlink.Vlan{LinkAttrs: netlink.LinkAttrs{Name: "vlan" + u.Name, ParentIndex: trunk.Attrs().Index}, VlanId: int(u.VLAN), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		if err := h.LinkAdd(vlan); err != nil {
			t.Fatal(err)
		}
		x := &netlink.Xfrmi{LinkAttrs: netlink.LinkAttrs{Name: "x" + u.Name, ParentIndex: vlan.Index}, Ifid: uint32(i + 1)}
		if err := h.LinkAdd(x); err != nil {
			t.Fatal(err)
		}
		for _, link := range []netlink.Link{vlan, x} {
			if err := h.LinkSetUp(link); err != nil {
				t.Fatal(err)
			}
		}
		if err := addAddress(h, vlan, u.Gateway); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := addAddress(h, x, s.Gateway); err != nil {
				t.Fatal(err)
			}
			if err := h.RouteAdd(&netlink.Route{LinkIndex: x.Index, Dst: ipNet(CarrierNetwork), Src: s.Gateway.Addr().AsSlice(), Scope: netlink.SCOPE_LINK}); err != nil {
				t.Fatal(err)
			}
		}
	}
	own, err := lab.Charon(Gateway)
	if err != nil {
		t.Fatal(err)
	}
	if err := own.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	var connections []Connection
	for i, u := range s.Uplinks {
		connections = append(connections, Connection{
			Name: u.Name, Local: u.Gateway.Addr(), Remote: u.Peer.Addr(), LocalID: GatewayID, RemoteID: PeerID(s.Name),
			LocalNetwork: GatewayNetwork, RemoteNetwork: CarrierNetwork, IfID: uint32(i + 1), Secret: SharedSecret,
			Child: []string{"start_action = start"},
		})
	}
	if err := own.Load(t.Context(), connections...); err != nil {
		t.Fatal(err)
	}
	return own
}

// TestTrunk tries the trunk topology without the daemon: a tunnel between two charons over
// tagged frames, a census of the wire in which nothing is in clear, a cable that is cut.
func TestTrunk(t *testing.T) {
	site := SiteOf(CarrierA)
	lab := trunked(t, Trunked(Sites()))
	if err := lab.Terminate(site); err != nil {
		t.Fatal(err)
	}
	wire, err := lab.CaptureWire(Switch, TrunkPort)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := lab.Capture(CarrierA, TunnelDevice(0))
	if err != nil {
		t.Fatal(err)
	}
	peer, err := lab.Charon(CarrierA)
	if err != nil {
		t.Fatal(err)
	}
	if err := peer.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := peer.Load(t.Context(), site.Connections()...); err != nil {
		t.Fatal(err)
	}
	own := gatewayTunnel(t, lab, site)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		sas, err := peer.ListSAs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(sas, "INSTALLED") == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no two tunnels:\n%s\nthe gateway's charon:\n%s\nthe site's:\n%s", sas, own.Log(), peer.Log())
		}
	}
	ping := func() error {
		return lab.Command(t.Context(), Gateway, "ping", "-q", "-c", "2", "-i", "0.2", "-W", "1", site.Peer.String()).Run()
	}
	if err := ping(); err != nil {
		t.Errorf("through the tunnel: %v\n%s", err, peer.Log())
	}
	if err := lab.Cut(CarrierA, Device(0)); err != nil {
		t.Fatal(err)
	}
	if ping() == nil {
		t.Error("an echo came over a cable that is cut")
	}
	if err := lab.Mend(CarrierA, Device(0)); err != nil {
		t.Fatal(err)
	}
	if err := ping(); err != nil {
		t.Errorf("over the mended cable: %v", err)
	}
	log, err := wire.Stop()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := inner.Stop(); err != nil {
		t.Fatal(err)
	}
	if left := log.Wire.Without(101, FrameESP, FrameIKE, FrameARP); len(left) > 0 {
		t.Errorf("VLAN 101 has %q", left)
	}
	for _, kind := range []string{FrameESP, FrameIKE, FrameARP} {
		for _, out := range []bool{false, true} {
			if log.Wire.Count(func(f Frame) bool { return f.VLAN == 101 && f.Kind == kind && f.Out == out }) == 0 {
				t.Errorf("no %s with out = %v on VLAN 101:\n%v", kind, out, log.Wire)
			}
		}
	}
}

// TestReadFrame: the census tells what is in clear.
func TestReadFrame(t *testing.T) {
	ipv4 := func(protocol byte, body ...byte) []byte {
		b := []byte{0x45, 46 << 2, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
		return append(b, body...)
	}
	udp := func(port byte, high byte, body ...byte) []byte {
		return ipv4(17, append([]byte{high, port, high, port, 0, 0, 0, 0}, body...)...)
	}
	frame := func(etherType uint16, body []byte, tags ...uint16) []byte {
		b := make([]byte, 12)
		for _, tag := range tags {
			b = append(b, 0x81, 0, byte(tag>>8), byte(tag))
		}
		return append(append(b, byte(etherType>>8), byte(etherType)), body...)
	}
	fragment := ipv4(17, 1, 2, 3, 4)
	fragment[7] = 1
	tag := uint16(5<<13 | 101)
	for name, tt := range map[string]struct {
		frame    []byte
		tag      *uint16
		kind     string
		vlan     uint16
		priority uint8
	}{
		"ESP, the tag in the frame":      {frame: frame(0x0800, ipv4(50), tag), kind: FrameESP, vlan: 101, priority: 5},
		"ESP, the tag taken off":         {frame: frame(0x0800, ipv4(50)), tag: &tag, kind: FrameESP, vlan: 101, priority: 5},
		"two tags: the outer one counts": {frame: frame(0x0800, ipv4(50), tag, 7), kind: FrameESP, vlan: 101, priority: 5},
		"IKE":                            {frame: frame(0x0800, udp(0xf4, 0x01)), kind: FrameIKE},
		"IKE behind NAT":                 {frame: frame(0x0800, udp(0x94, 0x11, 0, 0, 0, 0, 1)), kind: FrameIKE},
		"ESP behind NAT":                 {frame: frame(0x0800, udp(0x94, 0x11, 0, 0, 1, 0, 1)), kind: FrameESP},
		"SIP":                            {frame: frame(0x0800, udp(0xc4, 0x13)), kind: FrameUDP},
		"fragment":                       {frame: frame(0x0800, fragment), kind: FrameFragment},
		"TCP":                            {frame: frame(0x0800, ipv4(6)), kind: FrameTCP},
		"ICMP":                           {frame: frame(0x0800, ipv4(1)), kind: FrameICMP},
		"ARP":                            {frame: frame(0x0806, nil), kind: FrameARP},
		"spanning tree":                  {frame: frame(39, nil), kind: FrameControl},
		"IPv6":                           {frame: frame(0x86dd, make([]byte, 40)), kind: FrameOther},
		"cut off":                        {frame: []byte{1, 2}, kind: FrameOther},
	} {
		got := readFrame(true, tt.tag, tt.frame)
		if got.Kind != tt.kind || got.VLAN != tt.vlan || got.Priority != tt.priority || !got.Out {
			t.Errorf("%s: %v", name, got)
		}
		if tt.kind == FrameESP && (got.DSCP != 46 || got.Src != netip.MustParseAddr("192.0.2.1")) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestWhatTheGatewayLeaves: processes in namespaces that the lab's gateway made end with the
// lab, and the namespaces too, also of a charon whose namespace has lost its name.
func TestWhatTheGatewayLeaves(t *testing.T) {
	lab := up(t, Default(false))
	names := []string{nodePrefix(lab.ID()) + "realm", nodePrefix(lab.ID()) + "nameless"}
	var left []*Process
	for _, name := range names {
		ns, err := createNetns(name)
		if err != nil {
			t.Fatal(err)
		}
		defer ns.Close()
		lab.hosts[name] = ns // so that Command finds it
		p := lab.Command(context.Background(), name, "sleep", "600")
		if name == names[1] {
			p.Env = []string{"STRONGSWAN_CONF=" + lab.IPsecRun() + "/realm/strongswan.conf"}
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		lab.disown(p) // as a process that the daemon has started
		left = append(left, p)
	}
	if err := deleteNetns(names[1]); err != nil {
		t.Fatal(err)
	}
	if err := lab.Close(); err != nil {
		t.Fatal(err)
	}
	for i, p := range left {
		select {
		case <-p.Done():
		case <-time.After(5 * time.Second):
			t.Errorf("the process in %s lives", names[i])
		}
		if _, err := os.Stat(netnsDir + "/" + names[i]); err == nil {
			t.Errorf("the namespace %s is there still", names[i])
		}
	}
}
