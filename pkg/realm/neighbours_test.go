package realm

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// lan is a gateway's namespace with one device towards a peer's.
type lan struct {
	gateway, peer *netspace.Space
	config        Config
}

func newLAN(t *testing.T) *lan {
	t.Helper()
	l := &lan{gateway: netspace.New(t), peer: netspace.New(t), config: Config{
		Name:      "platform",
		Interface: "tdmgw",
		Address:   netip.MustParsePrefix("192.0.2.2/24"),
		Gateway:   netip.MustParseAddr("192.0.2.1"),
	}}
	l.gateway.IP(t, "link add tdmgw address 02:00:00:00:00:02 type veth peer name tdmpeer address 02:00:00:00:00:10 netns "+l.peer.Path)
	l.gateway.IP(t, "addr add 192.0.2.2/24 dev tdmgw")
	l.gateway.IP(t, "link set tdmgw up")
	for _, addr := range []string{"192.0.2.1/24", "192.0.2.10/24"} {
		l.peer.IP(t, "addr add "+addr+" dev tdmpeer")
	}
	l.peer.IP(t, "link set tdmpeer up")
	return l
}

// inside runs f on a thread of its own in the namespace, until f returns.
func inside(t *testing.T, s *netspace.Space, f func()) (done <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		fd, err := os.Open(s.Path)
		if err != nil {
			t.Error(err)
			return
		}
		defer fd.Close()
		if err := unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	return ended
}

// start makes the realm's neighbours and follows events until the test ends.
func (l *lan) start(t *testing.T) *Neighbours {
	t.Helper()
	var n *Neighbours
	var err error
	l.gateway.Do(func() { n, err = NewNeighbours([]Config{l.config}, slog.New(slog.DiscardHandler)) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := inside(t, l.gateway, func() {
		if err := n.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return n
}

// watch returns what the watcher of an address is told.
func (l *lan) watch(t *testing.T, n *Neighbours, dst string) <-chan call.NextHop {
	t.Helper()
	updates := make(chan call.NextHop, 100)
	var stop func()
	var err error
	l.gateway.Do(func() { stop, err = n.Watch(1, netip.MustParseAddr(dst), func(h call.NextHop) { updates <- h }) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return updates
}

// await waits for the update that has this header; nil is unresolved.
func await(t *testing.T, updates <-chan call.NextHop, l2 []byte) call.NextHop {
	t.Helper()
	limit := time.After(20 * time.Second)
	var last call.NextHop
	for {
		select {
		case last = <-updates:
			if bytes.Equal(last.L2, l2) {
				return last
			}
		case <-limit:
			t.Fatalf("last next hop is %x, want %x", last.L2, l2)
		}
	}
}

func header(to, from byte) []byte {
	return []byte{2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0}
}

// TestNextHop: a neighbour resolves through ARP that nobody's traffic has asked for, what
// is beyond the subnet goes by the gateway, and each change is told (M1).
func TestNextHop(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	direct := l.watch(t, n, "192.0.2.10")
	beyond := l.watch(t, n, "203.0.113.7")
	hop := await(t, direct, header(0x10, 0x02))
	await(t, beyond, header(0x10, 0x02))
	var ifi *net.Interface
	l.gateway.Do(func() { ifi, _ = net.InterfaceByName("tdmgw") })
	if ifi == nil || hop.Ifindex != ifi.Index {
		t.Errorf("next hop by device %d, want that of %v", hop.Ifindex, ifi)
	}

	// The gateway fails over to another machine.
	l.gateway.IP(t, "neigh replace 192.0.2.1 lladdr 02:00:00:00:00:77 nud reachable dev tdmgw")
	await(t, beyond, header(0x77, 0x02))
	// The peer goes, and comes back.
	l.peer.IP(t, "link set tdmpeer down")
	await(t, direct, nil)
	l.peer.IP(t, "link set tdmpeer up")
	await(t, direct, header(0x10, 0x02))
	// Our own card is replaced.
	l.gateway.IP(t, "link set tdmgw address 02:00:00:00:00:03")
	await(t, direct, header(0x10, 0x03))
}

// TestStaleIsRefreshed: frames sent by XDP do not tell the kernel that a neighbour is in
// use, so its entry would go stale and stay so; it is asked again instead.
func TestStaleIsRefreshed(t *testing.T) {
	l := newLAN(t)
	l.gateway.Do(func() {
		if err := os.WriteFile("/proc/sys/net/ipv4/neigh/tdmgw/delay_first_probe_time", []byte("1"), 0); err != nil {
			t.Errorf("shorten the kernel's delay before a probe: %v", err)
		}
	})
	n := l.start(t)
	await(t, l.watch(t, n, "192.0.2.10"), header(0x10, 0x02))
	l.gateway.IP(t, "neigh change 192.0.2.10 dev tdmgw nud stale")
	limit := time.After(20 * time.Second)
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for out := ""; !strings.Contains(out, "REACHABLE"); {
		select {
		case <-again.C:
			out = l.gateway.IP(t, "neigh show 192.0.2.10")
		case <-limit:
			t.Fatalf("not asked again: %s", out)
		}
	}
}

// TestFlushKeepsTheHeader: an entry that is flushed tells nothing of the neighbour, which is
// asked anew while media goes on; it is unresolved when nobody answers.
func TestFlushKeepsTheHeader(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	updates := l.watch(t, n, "192.0.2.10")
	await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "neigh del 192.0.2.10 dev tdmgw")
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	limit := time.After(3 * time.Second) // before the next refresh
	for out := ""; !strings.Contains(out, "REACHABLE"); {
		select {
		case u := <-updates:
			if !bytes.Equal(u.L2, header(0x10, 0x02)) {
				t.Fatalf("the flush changed the next hop to %x", u.L2)
			}
		case <-again.C:
			out = l.gateway.IP(t, "neigh show 192.0.2.10")
		case <-limit:
			t.Fatalf("not asked again: %s", out)
		}
	}

	l.peer.IP(t, "address del 192.0.2.10/24 dev tdmpeer")
	l.gateway.IP(t, "neigh del 192.0.2.10 dev tdmgw")
	await(t, updates, nil)
}

// TestPermanentIsLeftAlone: an operator's static entry is used as it is, and stays static.
func TestPermanentIsLeftAlone(t *testing.T) {
	l := newLAN(t)
	l.gateway.IP(t, "neigh add 192.0.2.99 lladdr 02:00:00:00:00:99 nud permanent dev tdmgw")
	n := l.start(t)
	await(t, l.watch(t, n, "192.0.2.99"), header(0x99, 0x02))
	l.gateway.Do(n.refresh)
	if out := l.gateway.IP(t, "neigh show 192.0.2.99"); !strings.Contains(out, "PERMANENT") {
		t.Errorf("the static entry became %q", out)
	}
}

// TestNoRoute: a realm without a gateway reaches its subnet only.
func TestNoRoute(t *testing.T) {
	l := newLAN(t)
	l.config.Gateway = netip.Addr{}
	n := l.start(t)
	if _, err := n.Watch(1, netip.MustParseAddr("203.0.113.7"), nil); !errors.Is(err, ErrNoRoute) {
		t.Errorf("error %v is not ErrNoRoute", err)
	}
	if _, err := n.Watch(2, netip.MustParseAddr("192.0.2.10"), nil); err == nil {
		t.Error("a realm that is not there is watched")
	}
}

// TestTaggedHeader: the header of a VLAN realm carries its tag, on the physical device (N1).
func TestTaggedHeader(t *testing.T) {
	r := realmLink{
		Config:     Config{VLAN: 201},
		Attachment: Attachment{Ifindex: 3, AddressIfindex: 7},
		mac:        net.HardwareAddr{2, 0, 0, 0, 0, 2},
		up:         true,
	}
	got := r.nextHop(net.HardwareAddr{2, 0, 0, 0, 0, 0x10})
	want := []byte{2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 2, 0x81, 0, 0, 201, 8, 0}
	if got.Ifindex != 3 || !bytes.Equal(got.L2, want) {
		t.Errorf("next hop %d %x, want 3 %x", got.Ifindex, got.L2, want)
	}
	r.up = false
	if got := r.nextHop(net.HardwareAddr{2, 0, 0, 0, 0, 0x10}); len(got.L2) != 0 {
		t.Error("a device that is down sends")
	}
}

// TestAttach: what is missing is said for all realms at once, with the command that mends it.
func TestAttach(t *testing.T) {
	l := newLAN(t)
	address := netip.MustParsePrefix("192.0.2.3/24")
	var err error
	l.gateway.Do(func() {
		_, err = Attach([]Config{
			l.config,
			{Name: "gone", Interface: "tdmnone", Address: l.config.Address},
			{Name: "untagged", Interface: "tdmgw", VLAN: 201, Address: l.config.Address},
			{Name: "bare", Interface: "tdmgw", Address: address},
		})
	})
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, part := range []string{
		"realm gone: interface tdmnone",
		"ip link add link tdmgw name tdmgw.201 type vlan id 201",
		"ip address add 192.0.2.3/24 dev tdmgw",
	} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error does not say %q:\n%v", part, err)
		}
	}
	if strings.Contains(err.Error(), "realm platform") {
		t.Errorf("the realm that has everything is blamed:\n%v", err)
	}
}
