package realm

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// newRoutedLAN is a realm without a gateway of its own, with a second router, and another
// carrier's device beside it.
func newRoutedLAN(t *testing.T) *lan {
	t.Helper()
	l := newLAN(t)
	l.config.Gateway = netip.Addr{}
	l.gateway.IP(t, "neigh add 192.0.2.7 lladdr 02:00:00:00:00:07 nud permanent dev tdmgw")
	l.gateway.IP(t, "link add tdmother type veth peer name tdmfar")
	l.gateway.IP(t, "addr add 198.51.100.2/24 dev tdmother")
	l.gateway.IP(t, "link set tdmother up")
	l.gateway.IP(t, "link set tdmfar up")
	return l
}

// TestRouteIsFollowed: without a configured gateway a peer beyond the subnet is reached as
// the kernel's routes say, and each change reaches a call that lasts, at once (M1).
func TestRouteIsFollowed(t *testing.T) {
	l := newRoutedLAN(t)
	n := l.start(t)
	updates := l.watch(t, n, "203.0.113.7")
	if got := at(t, updates); got.Neighbour.IsValid() || got.L2 != nil {
		t.Fatalf("without a route: %+v", got)
	}
	for _, step := range []struct {
		command string
		via     string
		l2      []byte
	}{
		{"route add 203.0.113.0/24 via 192.0.2.1", "192.0.2.1", header(0x10, 0x02)},
		{"route replace 203.0.113.0/24 via 192.0.2.7", "192.0.2.7", header(0x07, 0x02)},
		{"route del 203.0.113.0/24", "", nil},
		{"route add default via 192.0.2.7", "192.0.2.7", header(0x07, 0x02)},
		{"route add 203.0.113.7/32 via 192.0.2.1", "192.0.2.1", header(0x10, 0x02)},
		{"route replace unreachable 203.0.113.7/32", "", nil},
		{"route del unreachable 203.0.113.7/32", "192.0.2.7", header(0x07, 0x02)},
		{"route add 203.0.113.0/24 dev tdmgw scope link", "203.0.113.7", nil},
		{"route del 203.0.113.0/24", "192.0.2.7", header(0x07, 0x02)},
		// Policy: the realm's address has a table of its own.
		{"route add default via 192.0.2.1 table 77", "", nil},
		{"rule add from 192.0.2.2 lookup 77", "192.0.2.1", header(0x10, 0x02)},
		{"rule del from 192.0.2.2 lookup 77", "192.0.2.7", header(0x07, 0x02)},
	} {
		l.gateway.IP(t, step.command)
		if strings.Contains(step.command, "table 77") {
			continue // nothing points to it yet
		}
		got := awaitVia(t, updates, step.via)
		if step.l2 != nil && !bytes.Equal(got.L2, step.l2) { // the second router's entry is always there, the first's is by now
			got = await(t, updates, step.l2)
		}
		if want := l.index(t, "tdmgw"); step.via != "" && (got.Ifindex != want || got.NeighbourIfindex != want) {
			t.Errorf("%s: by devices %d and %d, want %d", step.command, got.Ifindex, got.NeighbourIfindex, want)
		}
	}
}

// TestOtherDevicesRouteIsNone: what is routed out by another carrier's device never leaves
// by it, nor does the realm's own neighbour hear of it (N3).
func TestOtherDevicesRouteIsNone(t *testing.T) {
	l := newRoutedLAN(t)
	l.gateway.IP(t, "route add 203.0.113.0/24 via 198.51.100.1")
	n := l.start(t)
	updates := l.watch(t, n, "203.0.113.7")
	if got := at(t, updates); got.Neighbour.IsValid() {
		t.Fatalf("route by another device: %+v", got)
	}
	l.gateway.IP(t, "route replace 203.0.113.0/24 via 192.0.2.7")
	await(t, updates, header(0x07, 0x02))
	l.gateway.IP(t, "route replace 203.0.113.0/24 via 198.51.100.1")
	awaitVia(t, updates, "")
	l.gateway.IP(t, "route add default via 192.0.2.7") // less specific, but the realm's own
	await(t, updates, header(0x07, 0x02))
}

// TestHostRouteInTheSubnet: a peer inside the subnet may be behind a router all the same,
// also where a gateway is configured for what is outside.
func TestHostRouteInTheSubnet(t *testing.T) {
	l := newRoutedLAN(t)
	l.config.Gateway = netip.MustParseAddr("192.0.2.1")
	n := l.start(t)
	updates := l.watch(t, n, "192.0.2.10")
	await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "route add 192.0.2.10/32 via 192.0.2.7")
	awaitVia(t, updates, "192.0.2.7")
	l.gateway.IP(t, "route del 192.0.2.10/32")
	if got := awaitVia(t, updates, "192.0.2.10"); !bytes.Equal(got.L2, header(0x10, 0x02)) {
		await(t, updates, header(0x10, 0x02))
	}
}

// TestConfiguredGatewayIsAuthoritative: routes do not matter where the config names a gateway.
func TestConfiguredGatewayIsAuthoritative(t *testing.T) {
	l := newRoutedLAN(t)
	l.config.Gateway = netip.MustParseAddr("192.0.2.1")
	l.gateway.IP(t, "route add 203.0.113.0/24 via 192.0.2.7")
	n := l.make(t)
	if got := at(t, l.watch(t, n, "203.0.113.7")); got.Neighbour != l.config.Gateway {
		t.Errorf("told %+v", got)
	}
}

// TestOwnAddressIsNoNeighbour: nothing is asked for our own or the broadcast address.
func TestOwnAddressIsNoNeighbour(t *testing.T) {
	l := newRoutedLAN(t)
	n := l.make(t)
	for _, dst := range []string{"192.0.2.2", "192.0.2.255"} {
		if got := at(t, l.watch(t, n, dst)); got.Neighbour.IsValid() {
			t.Errorf("%s: %+v", dst, got)
		}
	}
}

// TestNextHopObject: a route by a next-hop object follows the object, which changes without
// an event of the route if net.ipv4.nexthop_compat_mode is off.
func TestNextHopObject(t *testing.T) {
	for _, compat := range []string{"1", "0"} {
		t.Run("compat_mode "+compat, func(t *testing.T) {
			l := newRoutedLAN(t)
			sysctl(t, l.gateway, "nexthop_compat_mode", compat)
			l.gateway.IP(t, "nexthop add id 1 via 192.0.2.1 dev tdmgw")
			l.gateway.IP(t, "route add 203.0.113.0/24 nhid 1")
			n := l.start(t)
			updates := l.watch(t, n, "203.0.113.7")
			await(t, updates, header(0x10, 0x02))
			l.gateway.IP(t, "nexthop replace id 1 via 192.0.2.7 dev tdmgw")
			await(t, updates, header(0x07, 0x02))
			l.gateway.IP(t, "nexthop del id 1")
			awaitVia(t, updates, "")
		})
	}
}

// TestVia: of several routers the first live one on the realm's device is taken.
func TestVia(t *testing.T) {
	dst, first, second := netip.MustParseAddr("203.0.113.7"), net.IPv4(192, 0, 2, 1), net.IPv4(192, 0, 2, 3)
	route := func(routers ...*netlink.NexthopInfo) *netlink.Route {
		return &netlink.Route{Type: unix.RTN_UNICAST, MultiPath: routers}
	}
	for _, row := range []struct {
		name  string
		route *netlink.Route
		want  string
	}{
		{"a router", &netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 3, Gw: first}, "192.0.2.1"},
		{"on link", &netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 3}, "203.0.113.7"},
		{"another device", &netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 4, Gw: first}, "invalid IP"},
		{"ours", &netlink.Route{Type: unix.RTN_LOCAL, LinkIndex: 3}, "invalid IP"},
		{"an IPv6 router (RFC 8950)", &netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 3, Via: &netlink.Via{}}, "invalid IP"},
		{"MPLS", &netlink.Route{Type: unix.RTN_UNICAST, LinkIndex: 3, Gw: first, Encap: &netlink.MPLSEncap{}}, "invalid IP"},
		{"the first", route(&netlink.NexthopInfo{LinkIndex: 3, Gw: first}, &netlink.NexthopInfo{LinkIndex: 3, Gw: second}), "192.0.2.1"},
		{"not another device's", route(&netlink.NexthopInfo{LinkIndex: 4, Gw: first},
			&netlink.NexthopInfo{LinkIndex: 3, Gw: second}), "192.0.2.3"},
		{"not a dead one", route(&netlink.NexthopInfo{LinkIndex: 3, Gw: first, Flags: unix.RTNH_F_DEAD},
			&netlink.NexthopInfo{LinkIndex: 3, Gw: second}), "192.0.2.3"},
		{"none is left", route(&netlink.NexthopInfo{LinkIndex: 4, Gw: first}), "invalid IP"},
	} {
		if got := via(row.route, dst, 3); got.String() != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// TestManyDestinations: a change of route reaches each of many calls, with few updates for
// each, and nothing is left of them afterwards.
func TestManyDestinations(t *testing.T) {
	const destinations, churn = 2000, 50
	l := newRoutedLAN(t)
	l.gateway.IP(t, "neigh add 192.0.2.8 lladdr 02:00:00:00:00:08 nud permanent dev tdmgw")
	l.gateway.IP(t, "route add default via 192.0.2.7")
	n := l.start(t)
	var told, arrived atomic.Int64
	want := header(0x08, 0x02)
	stops := make([]func(), 0, destinations)
	for i := range destinations {
		stops = append(stops, l.watchBy(t, n, fmt.Sprintf("10.1.%d.%d", i/250, 1+i%250), func(h call.NextHop) {
			told.Add(1)
			if bytes.Equal(h.L2, want) {
				arrived.Add(1)
			}
		}))
	}
	if got := told.Load(); got != destinations {
		t.Errorf("%d updates for %d destinations that were resolved at once", got, destinations)
	}
	// Routes of no concern come and go meanwhile, as from a routing daemon.
	var batch strings.Builder
	for i := range churn {
		fmt.Fprintf(&batch, "route add 10.2.%d.0/24 via 192.0.2.7\n", i)
	}
	batch.WriteString("route replace default via 192.0.2.8\n")
	for i := range churn {
		fmt.Fprintf(&batch, "route del 10.2.%d.0/24 via 192.0.2.7\n", i)
	}
	l.batch(t, batch.String())
	poll(t, "everybody told of the new router", func() bool { return arrived.Load() == destinations })
	if got := told.Load(); got != 2*destinations {
		t.Errorf("%d updates for %d destinations with one change", got, destinations)
	}

	for _, stop := range stops {
		stop()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.destinations)+len(n.hops)+len(n.due) != 0 {
		t.Errorf("left behind: %d destinations, %d hops, %d due", len(n.destinations), len(n.hops), len(n.due))
	}
}

// batch runs many commands of iproute2 at once.
func (l *lan) batch(t *testing.T, commands string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(commands), 0o600); err != nil {
		t.Fatal(err)
	}
	l.gateway.IP(t, "-batch "+file)
}

// TestLostEvents: events that came while we were held up, more than the socket holds, are
// made good by reading everything again.
func TestLostEvents(t *testing.T) {
	l := newRoutedLAN(t)
	l.gateway.IP(t, "route add 203.0.113.0/24 via 192.0.2.7")
	l.gateway.IP(t, "route add 203.0.114.0/24 via 192.0.2.7")
	var interrupted logged
	l.log = slog.NewTextHandler(&interrupted, nil)
	n := l.start(t)
	held, release := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	l.watchBy(t, n, "203.0.113.7", func(h call.NextHop) {
		if h.Neighbour == netip.MustParseAddr("192.0.2.1") && first.CompareAndSwap(false, true) {
			close(held)
			<-release
		}
	})
	routed := l.watch(t, n, "203.0.114.7")
	resolved := l.watch(t, n, "192.0.2.7")
	await(t, routed, header(0x07, 0x02))
	await(t, resolved, header(0x07, 0x02))

	l.gateway.IP(t, "route replace 203.0.113.0/24 via 192.0.2.1")
	select {
	case <-held:
	case <-time.After(limit):
		t.Fatal("the change was not told")
	}
	var batch strings.Builder
	for i := range 8000 { // ten times what the buffer holds
		fmt.Fprintf(&batch, "neigh replace 192.0.2.%d lladdr 02:00:00:00:%02x:%02x nud permanent dev tdmgw\n", 100+i%100, i>>8, i&255)
	}
	batch.WriteString("route del 203.0.114.0/24\n")
	batch.WriteString("neigh replace 192.0.2.7 lladdr 02:00:00:00:00:77 nud permanent dev tdmgw\n")
	l.batch(t, batch.String())
	close(release)
	awaitVia(t, routed, "")
	await(t, resolved, header(0x77, 0x02))
	if !strings.Contains(interrupted.String(), unix.ENOBUFS.Error()) {
		t.Errorf("nothing was lost:\n%s", interrupted.String())
	}
}

// logged is what was logged so far.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// TestWatchersComeAndGo: calls begin and end while routes and devices change; the one that
// is left has what is true in the end, and the others leave nothing.
func TestWatchersComeAndGo(t *testing.T) {
	const callers, calls = 4, 200
	l := newRoutedLAN(t)
	l.gateway.IP(t, "route add default via 192.0.2.1")
	n := l.start(t)
	updates := l.watch(t, n, "203.0.113.7")
	var running []<-chan struct{}
	for caller := range callers {
		running = append(running, inside(t, l.gateway, func() {
			for i := range calls {
				stop, err := n.Watch(1, netip.AddrFrom4([4]byte{203, 0, 113, byte((caller + i) % 10)}), func(call.NextHop) {})
				if err != nil {
					t.Errorf("watch: %v", err)
					return
				}
				stop()
			}
		}))
	}
	for i := range 10 {
		l.gateway.IP(t, "route replace default via 192.0.2.7")
		l.gateway.IP(t, fmt.Sprintf("link set tdmgw address 02:00:00:00:01:%02x", i))
		l.gateway.IP(t, "route replace default via 192.0.2.1")
	}
	l.gateway.IP(t, "link set tdmgw address 02:00:00:00:00:03")
	for _, done := range running {
		<-done
	}
	await(t, updates, header(0x10, 0x03))
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.destinations) != 1 || len(n.hops) != 1 {
		t.Errorf("%d destinations and %d hops are left of one call", len(n.destinations), len(n.hops))
	}
}

// TestUnknownRealm: a realm that is not there is not watched.
func TestUnknownRealm(t *testing.T) {
	n := newLAN(t).make(t)
	for _, realm := range []uint16{0, 2} {
		if _, err := n.Watch(realm, netip.MustParseAddr("192.0.2.10"), nil); err == nil {
			t.Errorf("realm %d is watched", realm)
		}
	}
}
