package realm

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestFlap: a device goes down in mid-call and comes back; so do its next hops, at once and
// by themselves, and the neighbours are asked for again (M1).
func TestFlap(t *testing.T) {
	for _, row := range []struct {
		name     string
		down, up func(*testing.T, *lan)
	}{
		{"by command",
			func(t *testing.T, l *lan) { l.gateway.IP(t, "link set tdmgw down") },
			func(t *testing.T, l *lan) { l.gateway.IP(t, "link set tdmgw up") }},
		{"carrier lost",
			func(t *testing.T, l *lan) { l.peer.IP(t, "link set tdmpeer down") },
			carrierBack},
		// The kernel's next question would be a minute away.
		{"carrier lost while the neighbour is asked for", carrierLostAsking("60000", netlink.NUD_INCOMPLETE), carrierBack},
		{"carrier lost until the neighbour is given up", carrierLostAsking("100", netlink.NUD_FAILED), carrierBack},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLAN(t)
			n := l.make(t)
			n.refreshInterval = time.Hour // what is seen is not the refresh
			l.run(t, n)
			direct, beyond := l.watch(t, n, "192.0.2.10"), l.watch(t, n, "203.0.113.7")
			await(t, direct, header(0x10, 0x02))
			await(t, beyond, header(0x10, 0x02))
			row.down(t, l)
			for _, updates := range []<-chan call.NextHop{direct, beyond} {
				if got := await(t, updates, nil); got.Neighbour.IsValid() {
					t.Errorf("a device that is down is named for the stack to send by: %+v", got)
				}
			}
			row.up(t, l)
			awaitKnown(t, direct)
			awaitKnown(t, beyond)
			poll(t, "resolved anew", func() bool {
				entry, err := l.readEntry(t, "192.0.2.10")
				return err == nil && entry != nil && entry.State == netlink.NUD_REACHABLE
			})
			if len(direct) > 0 {
				t.Errorf("the neighbour was lost while it was asked for: %+v", <-direct)
			}
		})
	}
}

// awaitKnown waits for the neighbour as it was known before the device went.
func awaitKnown(t *testing.T, updates <-chan call.NextHop) {
	t.Helper()
	awaitWithin(t, updates, time.Second, func(h call.NextHop) bool {
		if h.Neighbour.IsValid() && len(h.L2) == 0 {
			t.Errorf("up again, what was known of the neighbour is forgotten: %+v", h)
		}
		return bytes.Equal(h.L2, header(0x10, 0x02))
	})
}

// TestCarrierTakesRoutesAlong: where the kernel takes routes for dead while the carrier is
// lost, they and their neighbours are there at once when it is back.
func TestCarrierTakesRoutesAlong(t *testing.T) {
	l := newRoutedLAN(t)
	sysctl(t, l.gateway, "conf/tdmgw/ignore_routes_with_linkdown", "1")
	l.gateway.IP(t, "route add default via 192.0.2.1")
	n := l.start(t)
	updates := l.watch(t, n, "203.0.113.7")
	await(t, updates, header(0x10, 0x02))
	l.peer.IP(t, "link set tdmpeer down")
	awaitVia(t, updates, "")
	l.peer.IP(t, "link set tdmpeer up")
	awaitKnown(t, updates)
}

// carrierLostAsking takes the carrier away and has something ask for the neighbour until
// its entry has a state; retransmission is the kernel's time between questions in ms.
func carrierLostAsking(retransmission string, state int) func(*testing.T, *lan) {
	return func(t *testing.T, l *lan) {
		l.tune(t, "retrans_time_ms", retransmission)
		index := l.index(t, "tdmgw")
		l.peer.IP(t, "link set tdmpeer down")
		poll(t, "carrier lost", func() bool { return !l.up(t) })
		for range 2 { // given up twice is given up for good, were the link not dead
			var err error
			l.gateway.Do(func() { err = use(index, netip.MustParseAddr("192.0.2.10")) })
			if err != nil {
				t.Fatal(err)
			}
			poll(t, "asked for", func() bool {
				entry, err := l.readEntry(t, "192.0.2.10")
				return err == nil && entry != nil && entry.State == state
			})
		}
	}
}

func carrierBack(t *testing.T, l *lan) { l.peer.IP(t, "link set tdmpeer up") }

// up reports whether the realm's device can send.
func (l *lan) up(t *testing.T) bool {
	t.Helper()
	var now realmLink
	var err error
	l.gateway.Do(func() { now, err = readLink(&realmLink{Network: Network{Config: l.config}}) })
	if err != nil {
		t.Fatal(err)
	}
	return now.up
}

func (l *lan) readEntry(t *testing.T, addr string) (entry *netlink.Neigh, err error) {
	t.Helper()
	index := l.index(t, "tdmgw")
	l.gateway.Do(func() { entry, err = readEntry(index, netip.MustParseAddr(addr)) })
	return entry, err
}

// TestFlapForgetsRoutes: the kernel drops a device's routes with it and tells nobody; the
// next hops wait for them to be made again.
func TestFlapForgetsRoutes(t *testing.T) {
	l := newRoutedLAN(t)
	l.gateway.IP(t, "route add 203.0.113.0/24 via 192.0.2.1")
	n := l.start(t)
	updates := l.watch(t, n, "203.0.113.7")
	await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "link set tdmgw down")
	awaitVia(t, updates, "")
	l.gateway.IP(t, "link set tdmgw up")
	poll(t, "device up", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.realms[0].ready() && len(n.due) == 0
	})
	select {
	case h := <-updates:
		t.Fatalf("without its route: %+v", h)
	default:
	}
	l.gateway.IP(t, "route add 203.0.113.0/24 via 192.0.2.1")
	await(t, updates, header(0x10, 0x02))
}

// TestDeviceMadeAgain: a device that is deleted and made again has another index, and may
// lead to other neighbours.
func TestDeviceMadeAgain(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	updates := l.watch(t, n, "192.0.2.10")
	before := await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "link del tdmgw")
	await(t, updates, nil)
	l.gateway.IP(t, "link add tdmgw address 02:00:00:00:00:04 type veth peer name tdmpeer address 02:00:00:00:00:12 netns "+l.peer.Path)
	l.peer.IP(t, "addr add 192.0.2.10/24 dev tdmpeer")
	l.peer.IP(t, "link set tdmpeer up")
	l.gateway.IP(t, "link set tdmgw up")
	l.gateway.IP(t, "addr add 192.0.2.2/24 dev tdmgw")
	after := awaitWithin(t, updates, limit, func(h call.NextHop) bool {
		if len(h.L2) != 0 && !bytes.Equal(h.L2, header(0x12, 0x04)) {
			t.Errorf("the neighbour of the former device: %+v", h)
		}
		return len(h.L2) != 0
	})
	if want := l.index(t, "tdmgw"); after.Ifindex != want || after.NeighbourIfindex != want || want == before.Ifindex {
		t.Errorf("next hop %+v, want device %d instead of %d", after, want, before.Ifindex)
	}
}

// TestAddressGone: nothing is sent in the name of an address that the device has no longer:
// another machine may have taken it over.
func TestAddressGone(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	updates := l.watch(t, n, "192.0.2.10")
	await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "addr del 192.0.2.2/24 dev tdmgw")
	awaitVia(t, updates, "")
	l.gateway.IP(t, "addr add 192.0.2.2/24 dev tdmgw")
	await(t, updates, header(0x10, 0x02))
}

// TestBridgePortIsNoDeletion: a device that leaves a bridge is told as deleted, in the
// bridge's family; it is there all the same.
func TestBridgePortIsNoDeletion(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	updates := l.watch(t, n, "192.0.2.10")
	await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "link add tdmbridge type bridge")
	l.gateway.IP(t, "link set tdmgw master tdmbridge")
	poll(t, "master known", func() bool { return l.master(n) != 0 })
	l.gateway.IP(t, "link set tdmgw nomaster")
	poll(t, "master gone", func() bool { return l.master(n) == 0 })
	select {
	case h := <-updates:
		t.Errorf("told %+v", h)
	default:
	}
}

func (l *lan) master(n *Neighbours) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.realms[0].master
}

// TestTun: a device without a link layer has neither header nor neighbours to resolve: its
// next hops are there while it is up.
func TestTun(t *testing.T) {
	l := newLAN(t)
	tun := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: "tdmtun"}, Mode: netlink.TUNTAP_MODE_TUN,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_MULTI_QUEUE, Queues: 1,
	}
	var err error
	l.gateway.Do(func() { err = netlink.LinkAdd(tun) })
	if err != nil {
		t.Fatalf("tun device: %v", err)
	}
	closeTun := func() {
		for _, fd := range tun.Fds {
			if err := fd.Close(); err != nil {
				t.Errorf("tun device: %v", err)
			}
		}
		tun.Fds = nil
	}
	t.Cleanup(closeTun)
	l.gateway.IP(t, "addr add 198.51.100.2/30 dev tdmtun")
	l.gateway.IP(t, "link set tdmtun up")
	l.gateway.IP(t, "route add 203.0.113.0/24 dev tdmtun")
	l.config = Config{Name: "tunnel", Interface: "tdmtun", Address: netip.MustParsePrefix("198.51.100.2/30")}
	n := l.start(t)
	want := func(dst string) func(call.NextHop) bool {
		index, addr := l.index(t, "tdmtun"), netip.MustParseAddr(dst)
		return func(h call.NextHop) bool {
			return h.Bare && h.L2 == nil && h.Ifindex == index && h.Neighbour == addr && h.NeighbourIfindex == index
		}
	}
	inside, beyond := l.watch(t, n, "198.51.100.1"), l.watch(t, n, "203.0.113.7")
	for dst, updates := range map[string]<-chan call.NextHop{"198.51.100.1": inside, "203.0.113.7": beyond} {
		if got := at(t, updates); !want(dst)(got) {
			t.Errorf("to %s: %+v", dst, got)
		}
	}
	l.gateway.IP(t, "link set tdmtun down")
	awaitWithin(t, inside, limit, func(h call.NextHop) bool { return !h.Bare })
	l.gateway.IP(t, "link set tdmtun up")
	awaitWithin(t, inside, limit, want("198.51.100.1"))
	closeTun() // its program has gone
	awaitWithin(t, inside, limit, func(h call.NextHop) bool { return !h.Bare })
}
