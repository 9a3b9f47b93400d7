package datapath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxIfindex bounds the table that is indexed by interface: 4 MB.
const maxIfindex = 1 << 20

// Realm is a realm as the program needs to know it.
type Realm struct {
	// Number is from 1, and appears in flow keys.
	Number uint16
	// Ifindex is the physical device that XDP attaches to. Realms may share it.
	Ifindex int
	// VLAN is the 802.1Q tag, 1-4094, or 0 for untagged frames.
	VLAN uint16
	// Media are the UDP ports that belong to flows: packets to any other port are the
	// stack's, packets to one of these without a flow are dropped.
	Media call.PortRange
	// Addr is the realm's IPv4 address.
	Addr netip.Addr
}

// ports is the size of the media range.
func (r Realm) ports() uint32 { return uint32(r.Media.Last) - uint32(r.Media.First) + 1 }

// place is a realm and where its ports lie in the kernel's flow table.
type place struct {
	Realm
	flows uint32 // index of the first port
}

// flow is the index of the flow of one of the realm's media ports.
func (p place) flow(port uint16) uint32 { return p.flows + uint32(port-p.Media.First) }

// deviceList names each device once, in the order of the realms.
func deviceList(realms []Realm) []int {
	var list []int
	for _, r := range realms {
		if !slices.Contains(list, r.Ifindex) {
			list = append(list, r.Ifindex)
		}
	}
	return list
}

// writeDevices fills the table that redirects go by, and returns its slots by ifindex.
func writeDevices(table *ebpf.Map, realms []Realm) (map[int]uint16, error) {
	bySlot := map[int]uint16{}
	for slot, ifindex := range deviceList(realms) {
		if err := table.Put(uint32(slot), uint32(ifindex)); err != nil {
			return nil, fmt.Errorf("device with index %d: %w", ifindex, err)
		}
		bySlot[ifindex] = uint16(slot)
	}
	return bySlot, nil
}

// writeRealms fills the realm table, 4096 VLANs a device, and returns the realms by
// number with the ports that each has in the table of flows.
func writeRealms(objs *tandemObjects, realms []Realm, devices map[int]uint16) (map[uint16]place, error) {
	places := map[uint16]place{}
	var flows uint32
	for _, r := range realms {
		r.Addr = r.Addr.Unmap()
		first := uint32(devices[r.Ifindex]) * vlans
		value := tandemRealm{
			Addr:      addr4(r.Addr),
			Number:    r.Number,
			Device:    devices[r.Ifindex],
			FirstPort: r.Media.First,
			LastPort:  r.Media.Last,
			Flows:     flows,
		}
		if err := objs.Realms.Put(first+uint32(r.VLAN), value); err != nil {
			return nil, fmt.Errorf("realm %d: %w", r.Number, err)
		}
		if err := objs.Ingress.Put(uint32(r.Ifindex), tandemIngress{Realms: first + 1}); err != nil {
			return nil, fmt.Errorf("realm %d: interface index %d: %w", r.Number, r.Ifindex, err)
		}
		places[r.Number] = place{Realm: r, flows: flows}
		flows += r.ports()
	}
	return places, nil
}
