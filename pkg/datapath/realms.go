package datapath

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	// maxIfindex bounds the two tables that are indexed by interface: 8 MB each.
	maxIfindex = 1 << 20
	// maxPoints bounds the points of a realm: a trunk, and tunnels with both of their sides, and room.
	maxPoints = 16
)

// Realm is a realm as the program needs to know it.
type Realm struct {
	// Number is from 1, and appears in flow keys.
	Number uint16
	// Points are where its packets come in, and its tunnels' outer packets. None, or devices that do not
	// exist yet, are no error: Engine.Update tells of them when they do.
	Points []Point
	// Media are the UDP ports that belong to flows: packets to any other port are the
	// stack's, packets to one of these without a flow are dropped.
	Media call.PortRange
	// Addr is the realm's IPv4 address.
	Addr netip.Addr
	// SIPPort is where the realm's SIP stack listens; the guard budgets it by itself.
	SIPPort uint16
	// Peers are the addresses of the realm's trunks: the guard lets them be, and other realms have no
	// business with them.
	Peers []netip.Addr
	// Room is for how many Peers there is room at the least: they may become more later.
	Room int
}

// Point is a place in the network: a device, and the tags of the frames there. It belongs to one realm.
type Point struct {
	// Ifindex is the physical device that XDP attaches to, or one without link layer. Points may share it.
	Ifindex int
	// VLAN is the 802.1Q tag, 1-4094, or 0 for untagged frames.
	VLAN uint16
	// OuterVLAN is the tag in front of it, 1-4094, or 0 if there is none.
	OuterVLAN uint16
	// Bare means that the device has no link layer (tun, ipip, xfrm).
	Bare bool
	// Underlay means that the realm's tunnels have their outer side here: nothing but ESP, IKE and what
	// these need is let in (N5).
	Underlay bool
}

// ports is the size of the media range.
func (r Realm) ports() uint32 { return uint32(r.Media.Last) - uint32(r.Media.First) + 1 }

// place is where a realm's ports lie in the kernel's flow table. Its points are not told here: they change.
type place struct {
	Realm
	flows uint32 // index of the first port
}

// flow is the index of the flow of one of the realm's media ports.
func (p place) flow(port uint16) uint32 { return p.flows + uint32(port-p.Media.First) }

// placesOf lays the ports of the realms out in the table of flows.
func placesOf(realms []Realm) map[uint16]place {
	places := map[uint16]place{}
	var flows uint32
	for _, r := range realms {
		r.Addr, r.Points = r.Addr.Unmap(), nil
		places[r.Number] = place{Realm: r, flows: flows}
		flows += r.ports()
	}
	return places
}

// deviceList names each device once, in the order of the realms.
func deviceList(realms []Realm) []int {
	var list []int
	for _, r := range realms {
		for _, p := range r.Points {
			if !slices.Contains(list, p.Ifindex) {
				list = append(list, p.Ifindex)
			}
		}
	}
	return list
}

// isTagged reports whether a device has a point with a tag.
func isTagged(realms []Realm, ifindex int) bool {
	return slices.ContainsFunc(realms, func(r Realm) bool {
		return slices.ContainsFunc(r.Points, func(p Point) bool { return p.Ifindex == ifindex && p.VLAN != 0 })
	})
}

// isBare reports whether the realms say that a device has no link layer.
func isBare(realms []Realm, ifindex int) bool {
	return slices.ContainsFunc(realms, func(r Realm) bool {
		return slices.ContainsFunc(r.Points, func(p Point) bool { return p.Ifindex == ifindex && p.Bare })
	})
}

// validateRealms checks realms by themselves and against each other.
func validateRealms(realms []Realm) error {
	numbers, places, bare := map[uint16]bool{}, map[Point]bool{}, map[int]bool{}
	for _, r := range realms {
		switch {
		case r.Number == 0 || numbers[r.Number]:
			return fmt.Errorf("realm number %d is zero or used twice", r.Number)
		case !r.Addr.Unmap().Is4() || r.Addr.Unmap().IsUnspecified():
			return fmt.Errorf("realm %d: %s is not an IPv4 address", r.Number, r.Addr)
		case r.Media.First == 0 || r.Media.First > r.Media.Last:
			return fmt.Errorf("realm %d: media ports %s", r.Number, r.Media)
		case len(r.Points) > maxPoints:
			return fmt.Errorf("realm %d: %d points, more than %d", r.Number, len(r.Points), maxPoints)
		}
		numbers[r.Number] = true
		for _, p := range r.Points {
			if err := p.validate(); err != nil {
				return fmt.Errorf("realm %d: %w", r.Number, err)
			}
			at := Point{Ifindex: p.Ifindex, VLAN: p.VLAN, OuterVLAN: p.OuterVLAN}
			if was, known := bare[p.Ifindex]; places[at] || known && was != p.Bare {
				return fmt.Errorf("realm %d: interface index %d and VLAN %d have a realm already, or have and have not a link layer",
					r.Number, p.Ifindex, p.VLAN)
			}
			places[at], bare[p.Ifindex] = true, p.Bare
		}
	}
	return nil
}

func (p Point) validate() error {
	switch {
	case p.Ifindex <= 0 || p.Ifindex > maxIfindex:
		return fmt.Errorf("interface index %d is not 1 to %d", p.Ifindex, maxIfindex)
	case p.VLAN > 4094 || p.OuterVLAN > 4094 || (p.OuterVLAN != 0 && p.VLAN == 0):
		return fmt.Errorf("VLAN %d within %d: each is 0 to 4094, and an outer one needs an inner one", p.VLAN, p.OuterVLAN)
	case p.Bare && (p.VLAN != 0 || p.Underlay):
		return fmt.Errorf("interface index %d has no link layer, so neither tags nor the outer side of a tunnel", p.Ifindex)
	}
	return nil
}
