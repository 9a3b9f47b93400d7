package realm

import (
	"encoding/binary"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// pcpShift is where the priority code point stands in a tag (IEEE 802.1Q section 9.6).
const pcpShift = 13

// realmLink is a realm with its devices as they are now; without its device its
// place is zero.
type realmLink struct {
	Network
	place
	// mac is the source of our frames; a bare device has no link-layer header.
	mac  net.HardwareAddr
	bare bool
	// up is false while the device cannot send.
	up bool
	// addressed is false while the device lacks the realm's address: another machine may
	// have taken it over, and nothing is sent in its name.
	addressed bool
	// mtu is that of a device without link layer, in bytes.
	mtu int
	// inner are the xfrm interfaces of a realm with tunnels that there are.
	inner []inner
	// master is the device that this one belongs to, e.g. its VRF, or 0.
	master int
}

// inner is the xfrm interface of a tunnel.
type inner struct{ ifindex, mtu int }

func (r *realmLink) take(attrs *netlink.LinkAttrs) {
	r.mac = attrs.HardwareAddr
	if r.bare = r.tunnelled() || bare(attrs.EncapType); r.bare {
		r.mtu = attrs.MTU
	}
	// As the kernel's netif_oper_up has it: many devices do not tell their state.
	r.up = attrs.Flags&net.FlagUp != 0 && (attrs.OperState == netlink.OperUp || attrs.OperState == netlink.OperUnknown)
	r.master = attrs.MasterIndex
}

// bare tells devices that carry IP without a header by their ARPHRD type. Of others than
// these and Ethernet no next hop is ever resolved.
func bare(encapsulation string) bool {
	switch encapsulation {
	case "none", "ipip", "gre", "ppp": // "none" is tun and xfrm
		return true
	default:
		return false
	}
}

// ready reports whether media can leave.
func (r *realmLink) ready() bool { return r.up && r.addressed }

// same reports whether nothing that next hops depend on has changed.
func (r *realmLink) same(o *realmLink) bool {
	return r.place == o.place && string(r.mac) == string(o.mac) && r.bare == o.bare &&
		r.up == o.up && r.addressed == o.addressed && r.master == o.master && r.mtu == o.mtu && slices.Equal(r.inner, o.inner)
}

// nextHop is how a frame leaves by a lead to a neighbour with an address.
func (r *realmLink) nextHop(to lead, mac net.HardwareAddr) call.NextHop {
	switch {
	case !r.ready() || !to.neighbour.IsValid():
		return call.NextHop{}
	case r.tunnelled():
		return call.NextHop{Ifindex: to.tunnel, Bare: true, Neighbour: to.neighbour, NeighbourIfindex: to.tunnel, MTU: to.mtu, PCP: r.PCP}
	}
	next := call.NextHop{
		Ifindex: r.Ifindex, Bare: r.bare, Neighbour: to.neighbour, NeighbourIfindex: r.AddressIfindex, MTU: r.mtu, PCP: r.PCP,
	}
	if !r.bare && len(mac) == 6 && len(r.mac) == 6 {
		next.L2 = r.header(mac)
	}
	return next
}

func (r *realmLink) header(to net.HardwareAddr) []byte {
	l2 := make([]byte, 0, 22)
	l2 = append(append(l2, to...), r.mac...)
	priority := uint16(r.PCP) << pcpShift
	if r.OuterVLAN != 0 {
		l2 = binary.BigEndian.AppendUint16(l2, unix.ETH_P_8021AD)
		l2 = binary.BigEndian.AppendUint16(l2, priority|r.OuterVLAN)
	}
	if r.VLAN != 0 {
		l2 = binary.BigEndian.AppendUint16(l2, unix.ETH_P_8021Q)
		l2 = binary.BigEndian.AppendUint16(l2, priority|r.VLAN)
	}
	return binary.BigEndian.AppendUint16(l2, unix.ETH_P_IP)
}
