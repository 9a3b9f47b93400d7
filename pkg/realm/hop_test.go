package realm

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// TestHopFromState: the header has the tags of the realm, the priority in each of them, on
// the physical device (N1); what cannot send is unresolved, and says to whom it would.
func TestHopFromState(t *testing.T) {
	router := netip.MustParseAddr("192.0.2.1")
	addresses := []byte{2, 0, 0, 0, 0, 0x10, 2, 0, 0, 0, 0, 2}
	hop := func(l2 ...byte) call.NextHop {
		h := call.NextHop{Ifindex: 3, Neighbour: router, NeighbourIfindex: 7}
		if len(l2) > 0 {
			h.L2 = append(append([]byte(nil), addresses...), l2...)
		}
		return h
	}
	bareHop := hop()
	bareHop.Bare = true
	bareHopOf := func(mtu int) call.NextHop {
		h := bareHop
		h.MTU = mtu
		return h
	}
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x10}
	for _, row := range []struct {
		name   string
		change func(*realmLink)
		to     netip.Addr
		mac    net.HardwareAddr
		want   call.NextHop
	}{
		{"untagged has no priority", func(r *realmLink) { r.PCP = 5 }, router, mac, hop(8, 0)},
		{"one tag", func(r *realmLink) { r.VLAN = 201 }, router, mac, hop(0x81, 0, 0, 201, 8, 0)},
		{"one tag, voice", func(r *realmLink) { r.VLAN, r.PCP = 201, 5 }, router, mac, hop(0x81, 0, 0xa0, 201, 8, 0)},
		{"highest tag and priority", func(r *realmLink) { r.VLAN, r.PCP = 4094, 7 }, router, mac, hop(0x81, 0, 0xef, 0xfe, 8, 0)},
		{"two tags", func(r *realmLink) { r.OuterVLAN, r.VLAN, r.PCP = 100, 201, 5 }, router, mac,
			hop(0x88, 0xa8, 0xa0, 100, 0x81, 0, 0xa0, 201, 8, 0)},
		{"no link layer", func(r *realmLink) { r.bare, r.mac = true, nil }, router, nil, bareHop},
		{"no link layer, with an MTU", func(r *realmLink) { r.bare, r.mac, r.mtu = true, nil, 1400 }, router, nil, bareHopOf(1400)},
		{"no link layer, down", func(r *realmLink) { r.bare, r.mac, r.up = true, nil, false }, router, nil, call.NextHop{}},
		{"unresolved", func(*realmLink) {}, router, nil, hop()},
		{"an address that is not Ethernet's", func(*realmLink) {}, router, make(net.HardwareAddr, 20), hop()},
		{"no route", func(*realmLink) {}, netip.Addr{}, nil, call.NextHop{}},
		{"down", func(r *realmLink) { r.up = false }, router, mac, call.NextHop{}},
		{"our address is elsewhere", func(r *realmLink) { r.addressed = false }, router, mac, call.NextHop{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := realmLink{
				place:     place{Ifindex: 3, AddressIfindex: 7},
				mac:       net.HardwareAddr{2, 0, 0, 0, 0, 2},
				up:        true,
				addressed: true,
			}
			row.change(&r)
			if row.want.Neighbour.IsValid() {
				row.want.PCP = r.PCP // for the kernel's stack, which sends what L2 does not
			}
			if diff := cmp.Diff(row.want, r.nextHop(lead{neighbour: row.to}, row.mac), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
