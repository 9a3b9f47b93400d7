package realm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestRepair: any one object that somebody takes away comes back, by itself (N9).
func TestRepair(t *testing.T) {
	r := newRig(t)
	n := r.applied(t, twoRealms()...)
	if err := n.Activate(carrier, "main"); err != nil {
		t.Fatal(err)
	}
	r.run(t, n)
	inOuter := "-n " + NamespaceName(r.node, carrier) + " "
	for _, row := range []struct{ what, command string }{
		{"VLAN device", "link delete " + trunk + ".201"},
		{"VLAN device of the outer side", inOuter + "link delete " + trunk + ".301"},
		{"VRF", "link delete tdm-core"},
		{"VRF of a realm with tunnels", "link delete tdm-carrie-c58d"},
		{"xfrm interface", "link delete tdx1-carri-c58d"},
		{"xfrm interface down", "link set tdx1-carri-c58d down"},
		{"VLAN device down", "link set " + trunk + ".201 down"},
		{"trunk down", "link set " + trunk + " down"},
		{"VLAN device out of its VRF", "link set " + trunk + ".201 nomaster"},
		{"MTU of a tunnel", "link set tdx2-carri-c58d mtu 1300"},
		{"802.1p map", "link set " + trunk + ".201 type vlan egress-qos-map 5:1"},
		{"address", "addr delete 192.0.2.2/24 dev " + trunk + ".201"},
		{"address of a VRF", "addr delete 10.60.0.1/32 dev tdm-carrie-c58d"},
		{"address of the outer side", inOuter + "addr delete 198.51.100.6/30 dev " + trunk + ".302"},
		{"default route", "route delete default via 192.0.2.1 table 11000"},
		{"static route", "route delete 203.0.113.0/24 table 11000"},
		{"route that leads nowhere", "route delete unreachable default metric 4278198272 table 12000"},
		{"route of the subnet", "route delete 192.0.2.0/24 table 11000"},
		{"route of the own address", "route delete local 10.60.0.1 table 12000"},
		{"route into a tunnel", "route delete 10.51.0.0/24 table 12000"},
		{"route that somebody changed", "route replace default via 192.0.2.77 dev " + trunk + ".201 table 11000 proto 116"},
		{"route of the outer side", inOuter + "route delete default via 198.51.100.5 table 2"},
		{"rule of the outer side", inOuter + "rule delete pref 1002"},
		{"rule for VRFs", "rule delete pref 1000"},
		{"rule for the host's own addresses", "rule delete pref 32765"},
		{"rule of the host's own addresses before the VRFs", "rule add pref 0 lookup local"},
	} {
		t.Run(row.what, func(t *testing.T) {
			r.repaired(t, n, func() { r.home.IP(t, row.command) })
		})
	}
	for _, key := range []string{
		"ipv4/conf/" + trunk + ".201/rp_filter", "ipv4/conf/tdx1-carri-c58d/forwarding", "ipv4/udp_l3mdev_accept",
		"ipv4/conf/" + trunk + "/arp_ignore", "ipv6/conf/tdm-core/disable_ipv6",
	} {
		t.Run("sysctl "+filepath.Base(key), func(t *testing.T) {
			r.repaired(t, n, func() {
				r.home.Do(func() {
					value, err := os.ReadFile("/proc/sys/net/" + key)
					if err == nil {
						value[0] ^= 1
						err = os.WriteFile("/proc/sys/net/"+key, value, 0)
					}
					if err != nil {
						t.Error(err)
					}
				})
			})
		})
	}
	t.Run("namespace", func(t *testing.T) {
		before := n.realms[1].outer.info
		r.repaired(t, n, func() { r.home.IP(t, "netns delete "+NamespaceName(r.node, carrier)) })
		if now, err := os.Stat(NamespacePath(r.node, carrier)); err != nil || !os.SameFile(now, before) {
			t.Errorf("another namespace has the name (%v): the tunnels' security associations are lost", err)
		}
	})
	if got := r.home.IP(t, "route get vrf tdm-carrie-c58d 10.51.0.10"); !strings.Contains(got, "dev tdx1-carri-c58d") {
		t.Errorf("after all of it, the route into the tunnel: %s", got)
	}
}

// repaired does something to an object, and waits until it has been put back and stays so.
func (r *rig) repaired(t *testing.T, n *Networks, damage func()) {
	t.Helper()
	repairs := func() (sum uint64) {
		for _, s := range n.Status() {
			sum += s.Repairs
		}
		return sum
	}
	before := repairs()
	damage()
	began := time.Now()
	poll(t, "put back", func() bool { return repairs() > before && drift(n) == "" })
	t.Logf("put back in %v", time.Since(began).Round(time.Millisecond))
	r.apply(t, n) // what is left shows now
	if s := status(t, n, carrier); s.State != call.RealmUp || s.Tunnel != "main" {
		t.Errorf("realm %s is %s (%s), by %q", s.Name, s.State, s.Reason, s.Tunnel)
	}
	for name, index := range map[string]int{"tdm-core": 11000, "tdm-carrie-c58d": 12000, "tdx1-carri-c58d": 12001, "tdx2-carri-c58d": 12002} {
		if d := r.home.IP(t, "-o link show "+name); !strings.HasPrefix(d, fmt.Sprintf("%d: ", index)) {
			t.Errorf("%s has another ifindex: %s", name, d)
		}
	}
}

// TestRestart: an object that was taken away while no daemon ran is put back by the next, and a
// namespace that lost its name is found again by the process in it: security associations go on.
func TestRestart(t *testing.T) {
	r := newRig(t)
	n := r.applied(t, twoRealms()...)
	path := NamespacePath(r.node, carrier)
	before := n.realms[1].outer.info
	inhabit(t, path)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	r.home.IP(t, "netns delete "+filepath.Base(path))
	r.home.IP(t, "link delete "+trunk+".201")
	r.applied(t, twoRealms()...)
	if now, err := os.Stat(path); err != nil || !os.SameFile(now, before) {
		t.Errorf("the namespace with a process in it was not found again (%v)", err)
	}
}
