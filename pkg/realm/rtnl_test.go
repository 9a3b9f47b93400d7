package realm

import (
	"math"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// bytesOf is a message as it is sent, without its netlink header.
func bytesOf(list []nl.NetlinkRequestData) []byte {
	var b []byte
	for _, d := range list {
		b = append(b, d.Serialize()...)
	}
	return b
}

var byValue = cmp.Options{cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmp.AllowUnexported(address{}, route{}, rule{})}

// TestMessages: what is written is what is read.
func TestMessages(t *testing.T) {
	a := address{index: 7, prefix: prefix("192.0.2.2/24"), label: "eth1:tdm", proto: protocol}
	if got, err := parseAddress(bytesOf(a.message())); err != nil || got != a {
		t.Errorf("address: %+v (%v), want %+v", got, err, a)
	}
	for _, r := range []route{
		{table: 16384, to: prefix("203.0.113.0/24"), typ: unix.RTN_UNICAST, proto: protocol, index: 9, via: addr("192.0.2.1"), src: addr("192.0.2.2")},
		{table: 16384, to: everywhere, priority: lastMetric, typ: unix.RTN_UNREACHABLE, proto: protocol},
		{table: 255, to: prefix("192.0.2.2/32"), typ: unix.RTN_LOCAL, proto: protocol, scope: unix.RT_SCOPE_HOST, index: 3},
	} {
		got, err := parseRoute(bytesOf(r.message()))
		if diff := cmp.Diff(r, got, byValue); diff != "" || err != nil {
			t.Errorf("route: %v; -want +got:\n%s", err, diff)
		}
	}
	for _, r := range []rule{
		localLast{}.rule(), vrfFirst{}.rule(),
		{priority: 1001, from: prefix("192.0.2.2/32"), to: prefix("192.0.2.1/32"), table: 1, action: actionTable, proto: protocol},
	} {
		got, err := parseRule(bytesOf(r.message()))
		if diff := cmp.Diff(r, got, byValue); diff != "" || err != nil {
			t.Errorf("rule: %v; -want +got:\n%s", err, diff)
		}
	}
}

// TestBadMessages: what the kernel would never say is an error, not a guess.
func TestBadMessages(t *testing.T) {
	good := bytesOf(route{table: 5, to: prefix("203.0.113.0/24"), typ: unix.RTN_UNICAST}.message())
	for name, data := range map[string][]byte{
		"nothing":           nil,
		"half a header":     good[:unix.SizeofRtMsg-1],
		"half an attribute": good[:len(good)-2],
		"a length of 0":     append(slices.Clone(good), 0, 0, 0, 0),
		"a length too long": append(slices.Clone(good), 9, 0, unix.RTA_OIF, 0, 1, 2, 3, 4),
		"a short number":    append(slices.Clone(good), 6, 0, unix.RTA_OIF, 0, 1, 2, 0, 0),
		"a long prefix":     append([]byte{unix.AF_INET, 33}, good[2:]...),
		"an IPv6 router":    append(slices.Clone(good), append([]byte{20, 0, unix.RTA_GATEWAY, 0}, make([]byte, 16)...)...),
	} {
		if r, err := parseRoute(data); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

// FuzzMessages: whatever is said of an address, route, rule, device or neighbour, it is an error or
// something that makes sense.
func FuzzMessages(f *testing.F) {
	f.Add(bytesOf(address{index: 7, prefix: prefix("192.0.2.2/24"), label: "x", proto: protocol}.message()))
	f.Add(bytesOf(route{table: 16384, to: prefix("203.0.113.0/24"), typ: unix.RTN_UNICAST, index: 9, via: addr("192.0.2.1")}.message()))
	f.Add(bytesOf(rule{priority: 1001, from: prefix("192.0.2.2/32"), to: everywhere, table: 1, action: actionTable}.message()))
	f.Add(append(make([]byte, unix.SizeofIfInfomsg), 7, 0, unix.IFLA_IFNAME, 0, 'l', 'o', 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, err := parseAddress(data); err == nil && !a.prefix.IsValid() {
			t.Errorf("address %+v", a)
		}
		if r, err := parseRoute(data); err == nil && (!r.to.IsValid() || r.table < 0 || r.table > math.MaxUint32) {
			t.Errorf("route %+v", r)
		}
		if r, err := parseRule(data); err == nil && (!r.from.IsValid() || !r.to.IsValid() || r.table < 0) {
			t.Errorf("rule %+v", r)
		}
		if _, name, err := parseLink(data); err == nil && len(name) > len(data) {
			t.Errorf("link %q", name)
		}
	})
}

// FuzzMark: an alias that is read as ours is one that we would write.
func FuzzMark(f *testing.F) {
	for _, alias := range []string{"tandem gw1 carrier-a", "tandem gw1 carrier-a main", "tandem gw1", "tandem  x", "tandem a b ", "", "Tandem a b"} {
		f.Add(alias)
	}
	f.Fuzz(func(t *testing.T, alias string) {
		if m, ok := parseMark(alias); ok && m.String() != alias {
			t.Errorf("%q is read as %q", alias, m)
		}
	})
}

// TestHasCarrier: a link that has just come up has its carrier before its state says so.
func TestHasCarrier(t *testing.T) {
	for _, row := range []struct {
		flags uint32
		state netlink.LinkOperState
		want  bool
	}{
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperUp, true},
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperUnknown, true},
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperDown, true},
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperDormant, false},
		{unix.IFF_UP | unix.IFF_LOWER_UP, netlink.OperTesting, false},
		{unix.IFF_UP, netlink.OperUp, false},
		{unix.IFF_UP, netlink.OperLowerLayerDown, false},
		{0, netlink.OperDown, false},
	} {
		if got := hasCarrier(&netlink.LinkAttrs{RawFlags: row.flags, OperState: row.state}); got != row.want {
			t.Errorf("flags %#x, %s: %t", row.flags, row.state, got)
		}
	}
}

// TestDevice: a device is read with what is compared of it; what the kernel leaves out of a map of
// priorities becomes 0.
func TestReadDevice(t *testing.T) {
	told := priorityMap()
	delete(told, 0) // as the kernel tells it
	other := priorityMap()
	other[5] = 1
	attrs := netlink.LinkAttrs{Name: "eth1.201", Index: 7, ParentIndex: 2, NetNsID: -1, MasterIndex: 11000, MTU: 1500, RawFlags: unix.IFF_UP, OperState: netlink.OperLowerLayerDown}
	for _, row := range []struct {
		name string
		link netlink.Link
		want device
	}{
		{"VLAN", &netlink.Vlan{LinkAttrs: attrs, VlanId: 201, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q, IngressQosMap: told, EgressQosMap: told},
			device{kind: kindVLAN, vlan: 201, protocol: netlink.VLAN_PROTOCOL_8021Q, priorities: true}},
		{"VLAN with other priorities", &netlink.Vlan{LinkAttrs: attrs, VlanId: 201, IngressQosMap: told, EgressQosMap: other}, device{kind: kindVLAN, vlan: 201}},
		{"VLAN without priorities", &netlink.Vlan{LinkAttrs: attrs, VlanId: 201}, device{kind: kindVLAN, vlan: 201}},
		{"VRF", &netlink.Vrf{LinkAttrs: attrs, Table: 11000}, device{kind: kindVRF, table: 11000}},
		{"xfrm", &netlink.Xfrmi{LinkAttrs: attrs, Ifid: 2}, device{kind: kindXFRM, ifID: 2}},
	} {
		want := row.want
		want.name, want.index, want.parent, want.elsewhere, want.master, want.mtu = "eth1.201", 7, 2, -1, 11000, 1500
		if got := newDevice(row.link); *got != want {
			t.Errorf("%s: %+v, want %+v", row.name, *got, want)
		}
	}
}
