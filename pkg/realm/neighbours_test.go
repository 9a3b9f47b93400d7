package realm

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestNextHop: a neighbour resolves through ARP that nobody's traffic has asked for, what
// is beyond the subnet goes by the gateway, and each change is told (M1).
func TestNextHop(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	direct := l.watch(t, n, "192.0.2.10")
	beyond := l.watch(t, n, "203.0.113.7")
	hop := await(t, direct, header(0x10, 0x02))
	await(t, beyond, header(0x10, 0x02))
	if want := l.index(t, "tdmgw"); hop.Ifindex != want || hop.NeighbourIfindex != want {
		t.Errorf("next hop by devices %d and %d, want %d", hop.Ifindex, hop.NeighbourIfindex, want)
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
	l.tune(t, "delay_first_probe_time", "1")
	n := l.make(t)
	n.refreshInterval = time.Second
	l.run(t, n)
	await(t, l.watch(t, n, "192.0.2.10"), header(0x10, 0x02))
	l.gateway.IP(t, "neigh change 192.0.2.10 dev tdmgw nud stale")
	poll(t, "asked again", func() bool { return strings.Contains(l.gateway.IP(t, "neigh show 192.0.2.10"), "REACHABLE") })
}

// TestSilentNeighbourStaysResolved: a call lasts many times as long as the kernel trusts an
// entry, and nothing but ARP is ever heard of the neighbour: it is probed before that
// matters, and the call never notices (M1).
func TestSilentNeighbourStaysResolved(t *testing.T) {
	l := newLAN(t)
	l.tune(t, "base_reachable_time_ms", "3000") // 30 s; half as much to half as much again is taken
	l.tune(t, "delay_first_probe_time", "1")    // 5 s
	l.tune(t, "retrans_time_ms", "100")         // 1 s
	n := l.make(t)
	n.refreshInterval = time.Second
	l.run(t, n)
	updates := l.watch(t, n, "192.0.2.10")
	await(t, updates, header(0x10, 0x02))
	confirmed := neighbourEvents(t, l)
	for probed := 0; probed < 2; {
		select {
		case u := <-updates:
			t.Fatalf("the call was told of %+v", u)
		case state := <-confirmed:
			switch state {
			case netlink.NUD_FAILED, netlink.NUD_INCOMPLETE:
				t.Fatalf("the kernel has lost the neighbour: state %#x", state)
			case netlink.NUD_PROBE:
				probed++
			}
		case <-time.After(limit):
			t.Fatal("not probed")
		}
	}
}

// neighbourEvents tells the states that the peer's entry goes through.
func neighbourEvents(t *testing.T, l *lan) <-chan int {
	t.Helper()
	events, done := make(chan netlink.NeighUpdate, 1000), make(chan struct{})
	var err error
	l.gateway.Do(func() { err = netlink.NeighSubscribe(events, done) })
	if err != nil {
		t.Fatal(err)
	}
	states := make(chan int, 1000)
	var reader sync.WaitGroup
	reader.Go(func() {
		for e := range events {
			if e.IP.String() == "192.0.2.10" {
				states <- e.State
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		reader.Wait()
	})
	return states
}

// TestResolvedIsToldAtOnce: a call to a neighbour that is known already, to us or to the
// kernel, has its header before Watch returns: it never waits for ARP.
func TestResolvedIsToldAtOnce(t *testing.T) {
	want := header(0x10, 0x02)
	t.Run("another call goes there", func(t *testing.T) {
		l := newLAN(t)
		n := l.start(t)
		await(t, l.watch(t, n, "203.0.113.7"), want)
		if got := at(t, l.watch(t, n, "203.0.113.8")); !bytes.Equal(got.L2, want) {
			t.Errorf("told %+v", got)
		}
	})
	t.Run("the first call through the configured gateway", func(t *testing.T) {
		l := newLAN(t)
		n := l.start(t)
		poll(t, "gateway resolved without a call", func() bool {
			return strings.Contains(l.gateway.IP(t, "neigh show 192.0.2.1"), "REACHABLE")
		})
		poll(t, "and known", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return len(n.hops[realmAddr{1, l.config.Gateway}].mac) != 0
		})
		if got := at(t, l.watch(t, n, "203.0.113.7")); !bytes.Equal(got.L2, want) {
			t.Errorf("told %+v", got)
		}
	})
	t.Run("an entry of the kernel's that is stale", func(t *testing.T) {
		l := newLAN(t)
		l.gateway.IP(t, "neigh add 192.0.2.10 lladdr 02:00:00:00:00:10 nud stale dev tdmgw")
		n := l.make(t) // no events: what is told comes from the table
		if got := at(t, l.watch(t, n, "192.0.2.10")); !bytes.Equal(got.L2, want) {
			t.Errorf("told %+v", got)
		}
	})
	t.Run("unresolved names the neighbour for the stack to ask", func(t *testing.T) {
		l := newLAN(t)
		got := at(t, l.watch(t, l.make(t), "203.0.113.7"))
		if got.L2 != nil || got.Neighbour != l.config.Gateway || got.NeighbourIfindex != l.index(t, "tdmgw") {
			t.Errorf("told %+v", got)
		}
	})
}

// TestDeviceComesLater: the device of a realm whose network is existing may come after the daemon, and
// another one may have its name: there is no next hop then, and nobody else suffers.
func TestDeviceComesLater(t *testing.T) {
	t.Run("there is none", func(t *testing.T) {
		l := newLAN(t)
		l.gateway.IP(t, "link del tdmgw") // and tdmpeer, its other end
		updates := l.watch(t, l.start(t), "192.0.2.10")
		if h := at(t, updates); h.Ifindex != 0 || h.NeighbourIfindex != 0 {
			t.Errorf("without its device: %+v", h)
		}
		l.gateway.IP(t, "link add tdmgw address 02:00:00:00:00:02 type veth peer name tdmpeer address 02:00:00:00:00:10 netns "+l.peer.Path)
		l.gateway.IP(t, "addr add 192.0.2.2/24 dev tdmgw")
		l.gateway.IP(t, "link set tdmgw up")
		l.peer.IP(t, "addr add 192.0.2.10/24 dev tdmpeer")
		l.peer.IP(t, "link set tdmpeer up")
		await(t, updates, header(0x10, 0x02))
	})
	t.Run("another has its name", func(t *testing.T) {
		l := newLAN(t)
		l.gateway.IP(t, "link add tdmgw.201 type veth peer name tdmother")
		l.config.VLAN = 201
		if h := at(t, l.watch(t, l.make(t), "192.0.2.10")); h.Ifindex != 0 || h.NeighbourIfindex != 0 {
			t.Errorf("by a device that is not the realm's: %+v", h)
		}
	})
}

// TestTakeoverIsFollowed: another machine takes the neighbour's address over and announces
// it (VRRP, gratuitous ARP): calls go on to it at once.
func TestTakeoverIsFollowed(t *testing.T) {
	l := newLAN(t)
	n := l.start(t)
	updates := l.watch(t, n, "203.0.113.7")
	await(t, updates, header(0x10, 0x02))
	sysctl(t, l.peer, "conf/tdmpeer/arp_notify", "1") // announce a changed MAC address
	l.peer.IP(t, "link set tdmpeer address 02:00:00:00:00:11")
	awaitWithin(t, updates, time.Second, func(h call.NextHop) bool {
		if len(h.L2) == 0 {
			t.Error("unresolved in between")
		}
		return bytes.Equal(h.L2, header(0x11, 0x02))
	})
}

// TestFlushKeepsTheHeader: an entry that is flushed tells nothing of the neighbour, which is
// asked anew while media goes on; it is unresolved when nobody answers.
func TestFlushKeepsTheHeader(t *testing.T) {
	l := newLAN(t)
	n := l.make(t)
	n.refreshInterval = time.Hour // what is seen is not the refresh
	l.run(t, n)
	updates := l.watch(t, n, "192.0.2.10")
	await(t, updates, header(0x10, 0x02))
	l.gateway.IP(t, "neigh del 192.0.2.10 dev tdmgw")
	poll(t, "asked again", func() bool { return strings.Contains(l.gateway.IP(t, "neigh show 192.0.2.10"), "REACHABLE") })
	select {
	case u := <-updates:
		t.Fatalf("the flush changed the next hop to %+v", u)
	default:
	}

	l.peer.IP(t, "address del 192.0.2.10/24 dev tdmpeer")
	l.gateway.IP(t, "neigh del 192.0.2.10 dev tdmgw")
	await(t, updates, nil)
}

// TestOthersEntriesAreLeftAlone: an entry that an operator, a routing daemon or the kernel
// itself keeps is used as it is, and stays theirs.
func TestOthersEntriesAreLeftAlone(t *testing.T) {
	for _, row := range []struct{ name, command, keeps string }{
		{"static", "neigh add 192.0.2.10 lladdr 02:00:00:00:00:10 nud permanent dev tdmgw", "PERMANENT"},
		{"learned elsewhere", "neigh add 192.0.2.10 lladdr 02:00:00:00:00:10 nud reachable extern_learn dev tdmgw", "extern_learn"},
		{"managed", "neigh add 192.0.2.10 managed dev tdmgw", "managed"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := newLAN(t)
			l.gateway.IP(t, row.command)
			n := l.start(t)
			await(t, l.watch(t, n, "192.0.2.10"), header(0x10, 0x02))
			l.gateway.Do(n.refresh)
			if out := l.gateway.IP(t, "neigh show 192.0.2.10"); !strings.Contains(out, row.keeps) {
				t.Errorf("the entry became %q", out)
			}
		})
	}
}
