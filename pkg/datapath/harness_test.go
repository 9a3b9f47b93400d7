package datapath

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// The lab of the program tests: realm 1 (platform) is the loopback of a namespace, where
// program runs come in; realm 2 (carrier) is a veth device, so that sending is a redirect;
// realm 3 is realm 1's device with VLAN 201, realm 4 realm 2's with VLAN 202, realm 5 realm
// 1's with VLAN 201 within 300. Realm 6 has its tunnels' outer side in VLAN 400 of realm 1's device.
var (
	platformAddr = netip.MustParseAddr("192.0.2.2")
	carrierAddr  = netip.MustParseAddr("198.51.100.2")
	platformPeer = netip.MustParseAddrPort("192.0.2.10:20000")
	carrierPeer  = netip.MustParseAddrPort("198.51.100.10:30000")
	tunnelAddr   = netip.MustParseAddr("10.60.0.1")
	tunnelPeer   = netip.MustParseAddr("10.50.0.10")
	sharedPeer   = netip.MustParseAddr("192.0.2.77") // of realms 1 and 6
	mediaPorts   = call.PortRange{First: 16384, Last: 65535}
)

const (
	platform = 1 + iota
	carrier
	taggedPlatform
	taggedCarrier
	doubleTagged
	tunnelled
)

// underlayVLAN is the outer side of realm 6's tunnels.
const underlayVLAN = 400

// denied is what the guard of the lab refuses.
var denied = netip.MustParsePrefix("203.0.113.0/24")

// bench is an engine that is attached to nothing.
type bench struct {
	*Engine
	space   *netspace.Space
	hops    *staticHops
	carrier int // ifindex
}

func newBench(tb testing.TB, maxCalls int) *bench {
	tb.Helper()
	s := netspace.New(tb)
	s.IP(tb, "link add tdmcar type veth peer name tdmpeer")
	b := &bench{space: s, hops: &staticHops{byRealm: map[uint16]call.NextHop{}}}
	s.Do(func() {
		ifi, err := net.InterfaceByName("tdmcar")
		if err != nil {
			tb.Error(err)
			return
		}
		b.carrier = ifi.Index
		b.Engine, err = prepare(Config{
			Realms: []Realm{
				{Number: platform, Points: []Point{{Ifindex: 1}}, Media: mediaPorts, Addr: platformAddr, SIPPort: 5060,
					Peers: []netip.Addr{platformPeer.Addr(), sharedPeer}},
				{Number: carrier, Points: []Point{{Ifindex: ifi.Index}}, Media: mediaPorts, Addr: carrierAddr},
				{Number: taggedPlatform, Points: []Point{{Ifindex: 1, VLAN: 201}}, Media: mediaPorts, Addr: platformAddr},
				{Number: taggedCarrier, Points: []Point{{Ifindex: ifi.Index, VLAN: 202}}, Media: mediaPorts, Addr: carrierAddr},
				{Number: doubleTagged, Points: []Point{{Ifindex: 1, OuterVLAN: 300, VLAN: 201}}, Media: mediaPorts, Addr: platformAddr},
				{Number: tunnelled, Points: []Point{{Ifindex: 1, VLAN: underlayVLAN, Underlay: true}}, Media: mediaPorts, Addr: tunnelAddr,
					Peers: []netip.Addr{tunnelPeer, sharedPeer}},
			},
			Guard:    Guard{Deny: []netip.Prefix{denied}, SIPPerSecond: 1, UDPPerSecond: 1},
			MaxCalls: maxCalls,
			NextHops: b.hops,
		})
		if err != nil {
			tb.Error(err)
		}
	})
	if b.Engine == nil {
		tb.FailNow()
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	// The program is on a device that carries nothing, since else the kernel would wait some
	// 20 ms for RCU at each program run.
	s.Do(func() { attachTo(tb, b.objs.TandemXdp, b.carrier) })
	b.hops.byRealm[platform] = call.NextHop{Ifindex: 1, L2: l2(0)}
	b.hops.byRealm[carrier] = call.NextHop{Ifindex: b.carrier, L2: l2(0)}
	b.hops.byRealm[taggedPlatform] = call.NextHop{Ifindex: 1, L2: l2(201)}
	b.hops.byRealm[doubleTagged] = call.NextHop{Ifindex: 1, L2: l2(300, 201)}
	b.hops.byRealm[taggedCarrier] = call.NextHop{Ifindex: b.carrier, L2: l2(202)}
	return b
}

func (b *bench) install(tb testing.TB, flows ...call.Flow) {
	tb.Helper()
	if err := b.Install(flows); err != nil {
		tb.Fatal(err)
	}
}

// exits returns the packets that have left, by verdict and reason.
func (b *bench) exits(tb testing.TB) map[string]uint64 {
	tb.Helper()
	stats, err := b.Stats()
	if err != nil {
		tb.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, e := range stats.Exits {
		counts[e.Verdict+" "+e.Reason] += e.Packets
	}
	return counts
}

var errNoRoute = errors.New("no route")

// staticHops is a NextHopSource that knows one next hop per realm.
type staticHops struct {
	byRealm map[uint16]call.NextHop
	updates map[uint16]func(call.NextHop)
	onWatch func(update func(call.NextHop))
	mu      sync.Mutex // for those that are watched from several goroutines
	watched int
	stopped int
}

func (s *staticHops) Watch(realm uint16, _ netip.Addr, update func(call.NextHop)) (func(), error) {
	s.mu.Lock()
	next, ok := s.byRealm[realm]
	if ok {
		if s.updates == nil {
			s.updates = map[uint16]func(call.NextHop){}
		}
		s.updates[realm] = update
		s.watched++
	}
	s.mu.Unlock()
	if !ok {
		return nil, errNoRoute
	}
	update(next)
	if s.onWatch != nil {
		s.onWatch(update)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stopped++
	}, nil
}

var (
	nextMAC = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x11}
	ownMAC  = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x22}
)

// l2 is the header towards nextMAC with those tags, the outer one first; 0 is none.
func l2(vlans ...uint16) []byte {
	h := append(append([]byte{}, nextMAC...), ownMAC...)
	for _, vlan := range vlans {
		if vlan != 0 {
			h = binary.BigEndian.AppendUint16(h, 0x8100)
			h = binary.BigEndian.AppendUint16(h, vlan)
		}
	}
	return binary.BigEndian.AppendUint16(h, 0x0800)
}

func attachTo(tb testing.TB, prog *ebpf.Program, ifindex int) {
	tb.Helper()
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		tb.Error(err)
		return
	}
	tb.Cleanup(func() { _ = l.Close() })
}

// XDP actions, from linux/bpf.h.
const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpTX       = 3
	xdpRedirect = 4
)

// TC actions, from linux/pkt_cls.h, as a program run returns them.
const (
	tcUnspec   = 0xffffffff
	tcShot     = 2
	tcRedirect = 7
)
