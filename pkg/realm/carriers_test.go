package realm

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netspace"
)

// ip runs iproute2 in the namespace of the calling thread.
func ip(args string) (string, error) {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	return string(out), err
}

// inhabit has a process live in a named namespace until the test ends.
func inhabit(t *testing.T, path string) {
	t.Helper()
	s, err := openSpace(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	var cmd *exec.Cmd
	err = s.do(func() error {
		cmd = exec.Command("sleep", "600")
		return cmd.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it has ended, then
		_ = cmd.Wait()         // "signal: killed"
	})
}

// peer is a carrier's namespace on a VLAN of the trunk.
func (r *rig) peer(t testing.TB, vlan int, address string) *netspace.Space {
	t.Helper()
	s := netspace.New(t)
	name := fmt.Sprintf("tdmp%d", vlan)
	r.far.IP(t, fmt.Sprintf("link add link %s name %s type vlan id %d", farTrunk, name, vlan))
	r.far.IP(t, fmt.Sprintf("link set %s netns %s", name, s.Path))
	s.IP(t, "addr add "+address+" dev "+name)
	s.IP(t, "link set "+name+" up")
	return s
}

// TestOverlap: two carriers with the same addresses, and the gateway with the same address
// towards both: each realm's socket reaches its own (N2).
func TestOverlap(t *testing.T) {
	r := newRig(t)
	r.applied(t, clearRealm(1, "a", 201, "192.0.2.2/24"), clearRealm(2, "b", 202, "192.0.2.2/24"))
	for vlan, name := range map[int]string{201: "a", 202: "b"} {
		echo(t, dial(t, r.peer(t, vlan, "192.0.2.10/24"), "", "192.0.2.10:5060"), name)
	}
	for _, name := range []string{"a", "b"} {
		conn := dial(t, r.home, VRFName(name), "192.0.2.2:5060")
		for range 3 {
			if got := ask(t, conn, "192.0.2.10:5060", limit); got != name {
				t.Errorf("realm %s: answer %q", name, got)
			}
		}
	}
}

// TestWeakHost: a carrier that sends to the host's management address, or to another realm's
// address, gets nothing: neither ICMP nor UDP nor TCP, and no ARP (N6). The same carrier reaches
// its realm's address.
func TestWeakHost(t *testing.T) {
	r := newRig(t)
	r.home.IP(t, "link add tdmmgmt type veth peer name tdmmgmt2")
	r.home.IP(t, "link set tdmmgmt2 up")
	r.home.IP(t, "link set tdmmgmt up")
	r.home.IP(t, "addr add 10.99.0.1/24 dev tdmmgmt")
	r.applied(t, clearRealm(1, "a", 201, "192.0.2.2/24"), clearRealm(2, "b", 202, "198.51.100.2/24"))
	carrier := r.peer(t, 201, "192.0.2.10/24")
	for _, bind := range []string{"10.99.0.1:8080", "127.0.0.1:8081", "0.0.0.0:8082"} {
		echo(t, dial(t, r.home, "", bind), "management")
	}
	echo(t, dial(t, r.home, VRFName("b"), "198.51.100.2:5060"), "b")
	echo(t, dial(t, r.home, VRFName("a"), "192.0.2.2:5060"), "a")
	listen(t, r.home, "10.99.0.1:8080")
	listen(t, r.home, "0.0.0.0:8083")

	conn := dial(t, carrier, "", "192.0.2.10:0")
	if got := ask(t, conn, "192.0.2.2:5060", limit); got != "a" {
		t.Fatalf("the realm's own address answers %q", got)
	}
	for _, to := range []string{"10.99.0.1", "198.51.100.2"} {
		carrier.IP(t, "route add "+to+"/32 via 192.0.2.2")
		for _, port := range []string{"8080", "8082", "5060"} {
			if got := ask(t, conn, to+":"+port, time.Second); got != "" {
				t.Errorf("%s:%s answers %q", to, port, got)
			}
		}
		if ping(carrier, to) {
			t.Errorf("%s answers ICMP echo", to)
		}
		for _, port := range []string{"8080", "8083"} {
			if err := connect(carrier, to+":"+port); err == nil {
				t.Errorf("%s:%s takes a TCP connection", to, port)
			} else if !strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s:%s answers TCP: %v", to, port, err)
			}
		}
	}
	// A socket that is bound to no VRF does not take what comes to the realm's own address either.
	if got := ask(t, conn, "192.0.2.2:8082", time.Second); got != "" {
		t.Errorf("a socket without a VRF answers %q at the realm's address", got)
	}
	if err := connect(carrier, "192.0.2.2:8083"); err == nil {
		t.Error("a listener without a VRF takes a connection at the realm's address")
	}
	// Nor does ARP tell that the address is here.
	carrier.IP(t, "route flush 10.99.0.1/32")
	carrier.IP(t, "route add 10.99.0.1/32 dev tdmp201")
	if got := ask(t, conn, "10.99.0.1:8080", time.Second); got != "" {
		t.Errorf("management answers %q", got)
	}
	if got := carrier.IP(t, "neigh show 10.99.0.1"); strings.Contains(got, "lladdr") {
		t.Errorf("ARP for the management address was answered: %s", got)
	}
	// The rules are what keeps it out: with those of a plain host it answers.
	carrier.IP(t, "route replace 10.99.0.1/32 via 192.0.2.2")
	r.home.IP(t, "rule add pref 0 lookup local")
	poll(t, "an answer without the rules", func() bool { return ping(carrier, "10.99.0.1") })
}

// ping reports whether an address answers ICMP echo requests.
func ping(from *netspace.Space, to string) (answers bool) {
	from.Do(func() { answers = exec.Command("ping", "-c", "2", "-i", "0.2", "-W", "1", to).Run() == nil })
	return answers
}

// TestNextHops: media of a managed realm finds its neighbour in the VRF; that of one with tunnels
// leaves by the active tunnel, and a change of tunnel is told within milliseconds (I6). What still
// comes to the interface of the tunnel of before is let through.
func TestNextHops(t *testing.T) {
	r := newRig(t)
	realms := twoRealms()
	n := r.networks(t, realms...)
	l := &lan{gateway: r.home, log: n.log.Handler()}
	var hops *Neighbours
	var err error
	r.home.Do(func() { hops, err = NewNeighbours(realms, n.log) })
	if err != nil {
		t.Fatalf("before the devices are there: %v", err)
	}
	l.run(t, hops)
	watch := func(realm uint16, dst string) <-chan call.NextHop {
		updates := make(chan call.NextHop, 1000)
		var stop func()
		r.home.Do(func() { stop, err = hops.Watch(realm, netip.MustParseAddr(dst), func(h call.NextHop) { updates <- h }) })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
		return updates
	}
	core, inner := watch(1, "192.0.2.10"), watch(2, "10.50.0.10")
	routed := watch(1, "203.0.113.9")
	far := r.peer(t, 201, "192.0.2.10/24")
	far.IP(t, "addr add 192.0.2.9/24 dev tdmp201")
	r.apply(t, n)
	trunkIndex := indexOf(t, r.home, trunk)
	hop := awaitWithin(t, core, limit, func(h call.NextHop) bool { return len(h.L2) > 0 })
	if hop.Ifindex != trunkIndex || len(hop.L2) != 18 || hop.L2[14] != 5<<5 || hop.L2[15] != 201 {
		t.Errorf("next hop of the clear realm: %+v", hop)
	}
	if hop = awaitWithin(t, routed, limit, func(h call.NextHop) bool { return len(h.L2) > 0 }); hop.Neighbour != addr("192.0.2.9") {
		t.Errorf("next hop beyond the subnet: %+v", hop)
	}

	for i, name := range []string{"main", "backup", "main", "", "backup"} {
		began := time.Now()
		if err := n.Activate(carrier, name); err != nil {
			t.Fatal(err)
		}
		want := map[string]call.NextHop{
			"main":   {Ifindex: 12001, Bare: true, Neighbour: addr("10.50.0.10"), NeighbourIfindex: 12001, MTU: 1200, PCP: 5},
			"backup": {Ifindex: 12002, Bare: true, Neighbour: addr("10.50.0.10"), NeighbourIfindex: 12002, MTU: 1200, PCP: 5},
		}[name]
		awaitWithin(t, inner, limit, func(h call.NextHop) bool { return equal(h, want) })
		took := time.Since(began)
		for _, device := range []string{"tdx1-carri-c58d", "tdx2-carri-c58d"} {
			var reached error
			r.home.Do(func() { _, reached = ip("route get 10.50.0.10 oif " + device) })
			if (reached == nil) != (name != "") {
				t.Errorf("active is %q: a route by %s: %v", name, device, reached)
			}
		}
		t.Logf("change %d, to %q: told after %v", i, name, took)
		if took > 500*time.Millisecond { // the machine may be emulated, and shared
			t.Errorf("change to %q told after %v", name, took)
		}
	}
	// An interface that goes takes its routes with it, without a word: those of the other one are left.
	r.home.IP(t, "link delete tdx2-carri-c58d")
	awaitWithin(t, inner, limit, func(h call.NextHop) bool { return h.Ifindex == 12001 })
	r.apply(t, n)
	awaitWithin(t, inner, limit, func(h call.NextHop) bool { return h.Ifindex == 12002 })
}

func indexOf(t testing.TB, s *netspace.Space, name string) int {
	t.Helper()
	t.Helper()
	var ifi *net.Interface
	var err error
	s.Do(func() { ifi, err = net.InterfaceByName(name) })
	if err != nil {
		t.Fatal(err)
	}
	return ifi.Index
}

// TestMissingFeature: a kernel without the feature is told of with the realm, the module and
// the other way.
func TestMissingFeature(t *testing.T) {
	s := netspace.New(t)
	var err error
	s.Do(func() { _, err = ip("link add tdmvrf type vrf table 5") })
	if err == nil {
		t.Skip("the kernel has VRF")
	}
	s.IP(t, "link add "+trunk+" type veth peer name "+farTrunk)
	r := &rig{home: s, node: fmt.Sprintf("tdm%d", os.Getpid()), log: &logged{}}
	n := r.refused(t, "realm a: link tdm-a: the kernel has no VRF for tdm-a: load it with: modprobe vrf, "+
		"or make the realm's devices yourself and say network: existing", clearRealm(1, "a", 201, "192.0.2.2/24"))
	if s := status(t, n, "a"); s.State != call.RealmDown {
		t.Errorf("realm is %s", s.State)
	}
}
