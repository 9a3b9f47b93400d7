package realm

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestAttach: what is missing is said for all realms at once, with the command that mends it.
func TestAttach(t *testing.T) {
	l := newLAN(t)
	address := netip.MustParsePrefix("192.0.2.3/24")
	var err error
	l.gateway.Do(func() {
		var n *Networks
		if n, err = NewNetworks("test", []Network{
			{Config: l.config},
			{Config: Config{Name: "gone", Interface: "tdmnone", Address: l.config.Address}},
			{Config: Config{Name: "untagged", Interface: "tdmgw", VLAN: 201, Address: l.config.Address}},
			{Config: Config{Name: "double", Interface: "tdmgw", OuterVLAN: 100, VLAN: 201, Address: l.config.Address}},
			{Config: Config{Name: "bare", Interface: "tdmgw", Address: address}},
		}, slog.New(l.log)); err == nil {
			err = n.Apply()
		}
	})
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, part := range []string{
		"realm gone: interface tdmnone",
		"ip link add link tdmgw name tdmgw.201 type vlan id 201",
		"ip link add link tdmgw name tdmgw.100 type vlan proto 802.1ad id 100",
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

// TestVLANCommand: the device of an outer tag is an 802.1ad one.
func TestVLANCommand(t *testing.T) {
	for _, row := range []struct {
		parent, name string
		tag          uint16
		protocol     netlink.VlanProtocol
		want         string
	}{
		{"eth1", "eth1.201", 201, netlink.VLAN_PROTOCOL_8021Q, "ip link add link eth1 name eth1.201 type vlan id 201"},
		{"eth1", "eth1.100", 100, netlink.VLAN_PROTOCOL_8021AD, "ip link add link eth1 name eth1.100 type vlan proto 802.1ad id 100"},
	} {
		if got := vlanCommand(row.parent, row.name, row.tag, row.protocol); got != row.want {
			t.Errorf("%s, want %s", got, row.want)
		}
	}
}

// TestOtherDevice: a device that only has the name of the realm's VLAN device is not it.
func TestOtherDevice(t *testing.T) {
	l := newLAN(t)
	l.gateway.IP(t, "link add tdmgw.201 type veth peer name tdmother")
	var err error
	l.gateway.Do(func() {
		_, err = attach(Config{Name: "carrier", Interface: "tdmgw", VLAN: 201, Address: l.config.Address})
	})
	if err == nil || !strings.Contains(err.Error(), "tdmgw.201 is another device, not the 802.1q VLAN 201 of tdmgw") {
		t.Errorf("error: %v", err)
	}
}
