package datapath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxIfindex bounds the two tables that are indexed by interface: 8 MB each.
const maxIfindex = 1 << 20

// Realm is a realm as the program needs to know it.
type Realm struct {
	// Number is from 1, and appears in flow keys.
	Number uint16
	// Ifindex is the physical device that XDP attaches to. Realms may share it.
	Ifindex int
	// VLAN is the 802.1Q tag, 1-4094, or 0 for untagged frames.
	VLAN uint16
	// OuterVLAN is the tag in front of it, 1-4094, or 0 if there is none.
	OuterVLAN uint16
	// Media are the UDP ports that belong to flows: packets to any other port are the
	// stack's, packets to one of these without a flow are dropped.
	Media call.PortRange
	// Addr is the realm's IPv4 address.
	Addr netip.Addr
	// SIPPort is where the realm's SIP stack listens; the guard budgets it by itself.
	SIPPort uint16
	// Peers are the addresses of the realm's trunks: the guard lets them be.
	Peers []netip.Addr
	// Bare means that the device has no link layer.
	Bare bool
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

// writeDevices fills the table that XDP redirects by.
func writeDevices(table *ebpf.Map, realms []Realm) error {
	for _, r := range realms {
		if r.Bare {
			continue // XDP cannot send there
		}
		if err := table.Put(uint32(r.Ifindex), uint32(r.Ifindex)); err != nil {
			return fmt.Errorf("device with index %d: %w", r.Ifindex, err)
		}
	}
	return nil
}

// writeRealms fills the realm table, 4096 VLANs a device and behind them the realms with
// two tags, and returns the realms by number with the ports that each has in the table of
// flows.
func writeRealms(objs *tandemObjects, realms []Realm) (map[uint16]place, error) {
	places := map[uint16]place{}
	devices := deviceList(realms)
	var flows uint32
	double := uint32(len(devices)) * vlans
	for _, r := range realms {
		r.Addr = r.Addr.Unmap()
		first := uint32(slices.Index(devices, r.Ifindex)) * vlans
		at := first + uint32(r.VLAN)
		if r.OuterVLAN != 0 {
			at, double = double, double+1
			tags := tandemDoubleTag{Device: uint32(r.Ifindex), Outer: r.OuterVLAN, Inner: r.VLAN}
			if err := objs.DoubleTagged.Put(tags, at); err != nil {
				return nil, fmt.Errorf("realm %d: tags: %w", r.Number, err)
			}
		}
		value := tandemRealm{
			Addr:      addr4(r.Addr),
			Number:    r.Number,
			SipPort:   r.SIPPort,
			FirstPort: r.Media.First,
			LastPort:  r.Media.Last,
			Flows:     flows,
		}
		if err := objs.Realms.Put(at, value); err != nil {
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
