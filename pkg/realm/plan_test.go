package realm

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// lines are the objects of a plan in words.
func lines(list []wanted) []string {
	var all []string
	for _, w := range list {
		kind, name := w.id()
		all = append(all, kind+" "+name+": "+w.want())
	}
	return all
}

const (
	quietWords  = "accept_redirects=0 send_redirects=0 accept_source_route=0 forwarding=0 disable_ipv6=1"
	strictWords = "rp_filter=1 arp_ignore=1 arp_announce=2 " + quietWords
)

// TestPlan: what each kind of realm wants of the kernel, in the order in which it is made. What
// keeps packets in comes before what lets them out.
func TestPlan(t *testing.T) {
	vrf := func(name, table string) []string {
		return []string{
			"link " + name + ": VRF of table " + table + ", up",
			"route default metric 4278198272: unreachable default table " + table,
			"sysctl " + name + ": " + quietWords,
			"sysctl host: tcp_l3mdev_accept=0 udp_l3mdev_accept=0 raw_l3mdev_accept=0 conf/all/accept_redirects=0 conf/all/rp_filter=0",
			"rule VRF: 1000: lookup [l3mdev-table]",
			"rule local: 32765: lookup local, none before the VRFs",
		}
	}
	tagged := clearRealm(1, "core", 201, "192.0.2.2/24")
	tagged.Gateway, tagged.MTU = addr("192.0.2.1"), 1400
	tagged.Routes = []Route{{prefix("203.0.113.0/24"), addr("192.0.2.9")}}
	double := clearRealm(1, "core", 201, "192.0.2.2/31")
	double.OuterVLAN = 100
	plain := clearRealm(1, "core", 0, "192.0.2.2/32")
	tunnels := tunnelRealm(2, "carrier", "10.60.0.1/24",
		tunnel("main", 301, "198.51.100.2/30", "198.51.100.1", "10.50.0.0/24"),
		tunnel("backup", 301, "198.51.100.2/30", "203.0.113.7", "10.50.0.0/24"))
	tunnels.Tunnels[1].Gateway = addr("198.51.100.1")
	outer := []string{
		"namespace tdm-node-carrier: /run/netns/tdm-node-carrier",
		"sysctl namespace: ip_forward=0 conf/all/accept_redirects=0 conf/all/rp_filter=1 ipv6/conf/all/disable_ipv6=1 ipv6/conf/default/disable_ipv6=1",
		"link tdmt: interface, up",
		"sysctl tdmt: rp_filter=1 arp_ignore=1",
		"link tdmt.301: 802.1q VLAN 301 of tdmt, priorities 0-7, up",
		"sysctl tdmt.301: " + strictWords,
		"address 198.51.100.2 tdmt.301: 198.51.100.2/30 on tdmt.301",
		"route local 198.51.100.2/32 (outer side) table 255: local 198.51.100.2/32 dev tdmt.301 src 198.51.100.2 table 255",
		"route 198.51.100.0/30 (outer side): 198.51.100.0/30 dev tdmt.301 src 198.51.100.2 table 254",
		"link tdx1-carrier: xfrm interface 1 on tdmt.301, in tdm-carrier, MTU 1200, up",
		"sysctl tdx1-carrier: rp_filter=0 " + quietWords,
		"address 10.60.0.1 tdm-carrier: 10.60.0.1/32 on tdm-carrier",
		"route local 10.60.0.1/32: local 10.60.0.1/32 dev tdm-carrier src 10.60.0.1 table 12000",
		"route default metric 2 (outer side): default via 198.51.100.1 dev tdmt.301 src 198.51.100.2 table 254",
		"route default (outer side) table 2: default via 198.51.100.1 dev tdmt.301 src 198.51.100.2 table 2",
		"rule 1002 (outer side): 1002: from 198.51.100.2/32 to 203.0.113.7/32 lookup 2",
		"link tdx2-carrier: xfrm interface 2 on tdmt.301, in tdm-carrier, MTU 1200, up",
		"sysctl tdx2-carrier: rp_filter=0 " + quietWords,
	}
	for _, row := range []struct {
		name   string
		realm  Network
		active int
		want   []string
	}{
		{"tagged", tagged, 0, append(vrf("tdm-core", "11000"),
			"link tdmt: interface, up",
			"sysctl tdmt: rp_filter=1 arp_ignore=1",
			"link tdmt.201: 802.1q VLAN 201 of tdmt, priorities 0-7, in tdm-core, MTU 1400, up",
			"sysctl tdmt.201: "+strictWords,
			"address 192.0.2.2 tdmt.201: 192.0.2.2/24 on tdmt.201",
			"route local 192.0.2.2/32: local 192.0.2.2/32 dev tdmt.201 src 192.0.2.2 table 11000",
			"route 192.0.2.0/24: 192.0.2.0/24 dev tdmt.201 src 192.0.2.2 table 11000",
			"route default: default via 192.0.2.1 dev tdmt.201 src 192.0.2.2 table 11000",
			"route 203.0.113.0/24: 203.0.113.0/24 via 192.0.2.9 dev tdmt.201 src 192.0.2.2 table 11000",
		)},
		{"two tags", double, 0, append(vrf("tdm-core", "11000"),
			"link tdmt: interface, up",
			"sysctl tdmt: rp_filter=1 arp_ignore=1",
			"link tdmt.100: 802.1ad VLAN 100 of tdmt, priorities 0-7, up",
			"sysctl tdmt.100: "+strictWords,
			"link tdmt.100.201: 802.1q VLAN 201 of tdmt.100, priorities 0-7, in tdm-core, up",
			"sysctl tdmt.100.201: "+strictWords,
			"address 192.0.2.2 tdmt.100.201: 192.0.2.2/31 on tdmt.100.201",
			"route local 192.0.2.2/32: local 192.0.2.2/32 dev tdmt.100.201 src 192.0.2.2 table 11000",
			"route 192.0.2.2/31: 192.0.2.2/31 dev tdmt.100.201 src 192.0.2.2 table 11000",
		)},
		{"untagged, with a single address", plain, 0, append(vrf("tdm-core", "11000"),
			"link tdmt: interface, in tdm-core, up",
			"sysctl tdmt: "+strictWords,
			"address 192.0.2.2 tdmt: 192.0.2.2/32 on tdmt",
			"route local 192.0.2.2/32: local 192.0.2.2/32 dev tdmt src 192.0.2.2 table 11000",
		)},
		{"no tunnel is active", tunnels, 0, append(vrf("tdm-carrier", "12000"), outer...)},
		{"the backup is active", tunnels, 2, append(append(vrf("tdm-carrier", "12000"), outer...),
			"route 10.50.0.0/24: 10.50.0.0/24 dev tdx2-carrier src 10.60.0.1 table 12000",
			"route 10.50.0.0/24 metric 100: 10.50.0.0/24 dev tdx1-carrier src 10.60.0.1 table 12000",
			"route 10.50.0.0/24 metric 101: 10.50.0.0/24 dev tdx2-carrier src 10.60.0.1 table 12000",
		)},
	} {
		t.Run(row.name, func(t *testing.T) {
			if diff := cmp.Diff(row.want, lines(row.realm.plan("node", row.active, map[string]string{"tdmt.100": "core"}))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestJudge: a realm is down without what it cannot do without, degraded without the rest; a tunnel's
// objects are the tunnel's.
func TestJudge(t *testing.T) {
	object := func(vital bool, state, problem string, ranks ...int) outcome {
		return outcome{NetworkObject: call.NetworkObject{Kind: "link", Name: "x", State: state, Problem: problem}, vital: vital, ranks: ranks}
	}
	good := object(true, call.ObjectOK, "")
	for _, row := range []struct {
		name           string
		list           []outcome
		tunnels        int
		active, silent string
		state, reason  string
	}{
		{"all there", []outcome{good}, 0, "", "", call.RealmUp, ""},
		{"all there, by a tunnel", []outcome{good}, 2, "main", "", call.RealmUp, ""},
		{"no tunnel", []outcome{good}, 2, "", "", call.RealmDown, "no tunnel is up"},
		{"no carrier", []outcome{good}, 0, "", "eth1.201", call.RealmDown, "eth1.201 has no carrier"},
		{"nothing vital", []outcome{object(false, call.ObjectDiffers, ""), good}, 0, "", "", call.RealmDegraded, "link x is differs"},
		{"something vital", []outcome{object(false, call.ObjectMissing, ""), object(true, call.ObjectMissing, "")}, 0, "", "",
			call.RealmDown, "link x is missing"},
		{"the reason is what failed, not what waits for it",
			[]outcome{object(true, call.ObjectMissing, ""), object(true, call.ObjectFailed, "cannot")}, 0, "", "", call.RealmDown, "link x: cannot"},
		{"one of two tunnels", []outcome{object(true, call.ObjectFailed, "cannot", 1), good}, 2, "backup", "", call.RealmDegraded, "link x: cannot"},
		{"something of each tunnel that it can do without", []outcome{object(false, call.ObjectFailed, "cannot", 1, 2)}, 2, "main", "",
			call.RealmDegraded, "link x: cannot"},
		{"what both tunnels need", []outcome{object(true, call.ObjectFailed, "cannot", 1, 2)}, 2, "main", "", call.RealmDown, "link x: cannot"},
		{"each of the tunnels", []outcome{object(true, call.ObjectMissing, "", 1), object(true, call.ObjectFailed, "cannot", 2)}, 2, "main", "",
			call.RealmDown, "link x: cannot"},
	} {
		t.Run(row.name, func(t *testing.T) {
			state, reason := judge(row.list, row.tunnels, row.active, row.silent)
			if state != row.state || reason != row.reason {
				t.Errorf("%s (%s), want %s (%s)", state, reason, row.state, row.reason)
			}
		})
	}
}

// TestNames: names of devices are no longer than Linux allows, depend on nothing but the realm's
// name, and differ where the realms' names do.
func TestNames(t *testing.T) {
	for _, row := range []struct{ got, want string }{
		{VRFName("a"), "tdm-a"},
		{VRFName("elevenchars"), "tdm-elevenchars"},
		{VRFName("twelve.chars"), "tdm-twelve-" + VRFName("twelve.chars")[11:]},
		{TunnelDevice("a", 1), "tdx1-a"},
		{TunnelDevice("ten_chars1", 2), "tdx2-ten_chars1"},
		{NamespaceName("gw-1", "a"), "tdm-gw-1-a"},
		{NamespacePath("gw-1", "a"), "/run/netns/tdm-gw-1-a"},
	} {
		if row.got != row.want || len(row.got) > maxInterface && !strings.HasPrefix(row.got, "/") {
			t.Errorf("%q, want %q", row.got, row.want)
		}
	}
	var all []string
	for _, name := range []string{"carrier-number-one", "carrier-number-two", "carrier-number-three", strings.Repeat("x", 63)} {
		for _, device := range []string{VRFName(name), TunnelDevice(name, 1), TunnelDevice(name, 12)} {
			if len(device) > maxInterface || slices.Contains(all, device) {
				t.Errorf("%s: device %q", name, device)
			}
			all = append(all, device)
		}
	}
}

// TestValidateNetworks: what realms and tunnels may not ask for.
func TestValidateNetworks(t *testing.T) {
	one := func(change func(*Network)) []Network {
		n := twoRealms()[1]
		change(&n)
		return []Network{n}
	}
	for _, row := range []struct {
		name string
		list []Network
		want string
	}{
		{"OK", twoRealms(), ""},
		{"OK same addresses", []Network{clearRealm(1, "a", 201, "192.0.2.2/24"), clearRealm(2, "b", 202, "192.0.2.2/24")}, ""},
		{"bad existing network with tunnels", one(func(n *Network) { n.Network = Existing }),
			`[0].network: "existing" has tunnels, and their devices are for the daemon to make; say network: managed`},
		{"bad gateway beside tunnels (N4)", one(func(n *Network) { n.Gateway = addr("10.60.0.2") }),
			"[0].gateway: 10.60.0.2 leads past the realm's tunnels; remove it; a tunnel has a gateway of its own"},
		{"bad routes beside tunnels (N4)", one(func(n *Network) { n.Routes = twoRealms()[0].Routes }),
			"[0].routes: they lead past the realm's tunnels; remove them, and give the prefixes as networks of the tunnels"},
		{"bad untagged tunnel", one(func(n *Network) { n.Tunnels[0].VLAN = 0 }),
			"[0].tunnels[0].vlan: is missing: untagged, all of tdmt would have to leave this network namespace; give the VLAN of the tunnel's outer side"},
		{"bad address on two VLANs", one(func(n *Network) { n.Tunnels[1].Local = n.Tunnels[0].Local }),
			`[0].tunnels[1].local: 198.51.100.2 is on tdmt.301 already, for tunnel "main"; give each VLAN an address of its own`},
		{"bad subnet on two VLANs", one(func(n *Network) { n.Tunnels[1].Local = prefix("198.51.100.5/29") }),
			`[0].tunnels[1].local: 198.51.100.5/29 overlaps 198.51.100.2/30 on tdmt.301, for tunnel "main"; give each VLAN a subnet of its own`},
		{"bad tunnel twice", one(func(n *Network) { n.Tunnels[1] = n.Tunnels[0] }),
			`[0].tunnels[1].remote: 198.51.100.2 to 198.51.100.1 is tunnel "main" (number 1) already; give one of the two another local or remote address`},
		{"bad VLAN of two realms", []Network{clearRealm(1, "a", 301, "192.0.2.2/24"), twoRealms()[1]},
			`[1].vlan: tdmt.301 is realm "a"'s already; give each realm an interface or a vlan of its own`},
	} {
		t.Run(row.name, func(t *testing.T) {
			got := ""
			if err := ValidateNetworks(row.list).Err(); err != nil {
				got = err.Error()
			}
			if diff := cmp.Diff(row.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
