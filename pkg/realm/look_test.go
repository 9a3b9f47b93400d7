package realm

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestLook: what there is, compared with what is wanted. Only what would make a difference counts.
func TestLook(t *testing.T) {
	core := clearRealm(1, "core", 201, "192.0.2.2/24")
	core.Gateway = addr("192.0.2.1")
	wantedDevice := func() *device {
		return &device{
			name: "tdmt.201", index: 7, kind: kindVLAN, alias: "tandem node core", parent: 2, elsewhere: -1, master: 11000, mtu: 1500, up: true,
			vlan: 201, protocol: netlink.VLAN_PROTOCOL_8021Q, priorities: true,
		}
	}
	gateway := route{table: 11000, to: everywhere, typ: unix.RTN_UNICAST, proto: protocol, index: 7, via: addr("192.0.2.1"), src: addr("192.0.2.2")}
	subnet := route{table: 11000, to: prefix("192.0.2.0/24"), typ: unix.RTN_UNICAST, proto: unix.RTPROT_KERNEL, scope: unix.RT_SCOPE_LINK, index: 7}
	kernelLocal := rule{from: everywhere, to: everywhere, table: unix.RT_TABLE_LOCAL, action: actionTable, proto: unix.RTPROT_KERNEL}
	for _, row := range []struct {
		name   string
		change func(s *snapshot, d *device)
		kind   string
		id     string
		have   string
		ok     bool
	}{
		{"device as wanted", nil, kindLink, "tdmt.201", "802.1q VLAN 201 of tdmt, priorities 0-7, in tdm-core, up", true},
		{"no device", func(s *snapshot, _ *device) { s.forget("tdmt.201") }, kindLink, "tdmt.201", "", false},
		{"another MTU is as good", func(_ *snapshot, d *device) { d.mtu = 1400 }, kindLink, "tdmt.201",
			"802.1q VLAN 201 of tdmt, priorities 0-7, in tdm-core, up", true},
		{"device that is down", func(_ *snapshot, d *device) { d.up = false }, kindLink, "tdmt.201",
			"802.1q VLAN 201 of tdmt, priorities 0-7, in tdm-core, down", false},
		{"device outside of its VRF", func(_ *snapshot, d *device) { d.master = 0 }, kindLink, "tdmt.201", "802.1q VLAN 201 of tdmt, priorities 0-7, up", false},
		{"device with other priorities", func(_ *snapshot, d *device) { d.priorities = false }, kindLink, "tdmt.201",
			"802.1q VLAN 201 of tdmt, other priorities, in tdm-core, up", false},
		{"device of somebody else", func(_ *snapshot, d *device) { d.alias = "mine" }, kindLink, "tdmt.201",
			`802.1q VLAN 201 of tdmt, priorities 0-7, in tdm-core, up, alias "mine"`, false},
		{"device on another", func(_ *snapshot, d *device) { d.elsewhere = 0 }, kindLink, "tdmt.201",
			"802.1q VLAN 201 of a device elsewhere, priorities 0-7, in tdm-core, up", false},
		{"device of another kind", func(_ *snapshot, d *device) { d.kind = "veth" }, kindLink, "tdmt.201", "veth device, in tdm-core, up", false},

		{"address", nil, kindAddress, "192.0.2.2 tdmt.201", "192.0.2.2/24 on tdmt.201", true},
		{"address with another length", func(s *snapshot, _ *device) { s.addresses[7][0].prefix = prefix("192.0.2.2/25") }, kindAddress, "192.0.2.2 tdmt.201", "", false},

		{"route", nil, kindRoute, "default", "default via 192.0.2.1 dev tdmt.201 src 192.0.2.2 table 11000", true},
		{"route by another router", func(s *snapshot, _ *device) { s.routes[0].via = addr("192.0.2.9") }, kindRoute, "default",
			"default via 192.0.2.9 dev tdmt.201 src 192.0.2.2 table 11000", false},
		{"route of somebody else", func(s *snapshot, _ *device) { s.routes[0].proto = unix.RTPROT_STATIC }, kindRoute, "default",
			"default via 192.0.2.1 dev tdmt.201 src 192.0.2.2 table 11000", false},
		{"route of another table", func(s *snapshot, _ *device) { s.routes[0].table = 254 }, kindRoute, "default", "", false},
		{"route with another metric", func(s *snapshot, _ *device) { s.routes[0].priority = 5 }, kindRoute, "default", "", false},
		{"route that the kernel made", nil, kindRoute, "192.0.2.0/24", "192.0.2.0/24 dev tdmt.201 src 192.0.2.2 table 11000", true},
		{"route that the kernel made, by another device", func(s *snapshot, _ *device) { s.routes[1].index = 2 }, kindRoute, "192.0.2.0/24",
			"192.0.2.0/24 dev tdmt table 11000", false},

		{"rules as the kernel has them", func(s *snapshot, _ *device) { s.rules = []rule{kernelLocal} }, kindRule, "local", "0: lookup local", false},
		{"rules as wanted", nil, kindRule, "local", "32765: lookup local", true},
		{"rules of somebody else, to the same end", func(s *snapshot, _ *device) { s.rules[0].proto = unix.RTPROT_STATIC }, kindRule, "local", "32765: lookup local", true},
		{"both rules", func(s *snapshot, _ *device) { s.rules = append(s.rules, kernelLocal) }, kindRule, "local", "0: lookup local", false},
		{"no rule at all", func(s *snapshot, _ *device) { s.rules = nil }, kindRule, "local", "", false},
		{"no rule for VRFs", func(s *snapshot, _ *device) { s.rules = nil }, kindRule, "VRF", "", false},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := wantedDevice()
			s := snapshot{
				devices:   map[string]*device{},
				names:     map[int]string{},
				addresses: map[int][]address{7: {{index: 7, prefix: core.Address, proto: protocol}}},
				routes:    []route{gateway, subnet},
				rules:     []rule{localLast{}.rule(), vrfFirst{}.rule()},
			}
			for _, d := range []*device{{name: trunk, index: 2, up: true}, {name: "tdm-core", index: 11000, kind: kindVRF, up: true}, d} {
				s.put(d)
			}
			if row.change != nil {
				row.change(&s, d)
			}
			v := &view{node: "node", realm: "core", home: &space{snapshot: s}}
			for _, w := range core.plan("node", 0, nil) {
				kind, name := w.id()
				if kind != row.kind || name != row.id {
					continue
				}
				if have, ok := w.look(v); have != row.have || ok != row.ok {
					t.Errorf("%q (%v), want %q (%v)", have, ok, row.have, row.ok)
				}
				return
			}
			t.Fatalf("%s %s is not wanted", row.kind, row.id)
		})
	}
}
