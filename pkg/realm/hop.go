package realm

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// pcpShift is where the priority code point stands in a tag (IEEE 802.1Q section 9.6).
const pcpShift = 13

// realmLink is a realm with its devices as they are now; without its device its
// Attachment is zero.
type realmLink struct {
	Config
	Attachment
	// mac is the source of our frames; a bare device has no link-layer header.
	mac  net.HardwareAddr
	bare bool
	// up is false while the device cannot send.
	up bool
	// addressed is false while the device lacks the realm's address: another machine may
	// have taken it over, and nothing is sent in its name.
	addressed bool
	// master is the device that this one belongs to, e.g. its VRF, or 0.
	master int
}

func (r *realmLink) take(attrs *netlink.LinkAttrs) {
	r.mac = attrs.HardwareAddr
	r.bare = bare(attrs.EncapType)
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
	return r.Attachment == o.Attachment && string(r.mac) == string(o.mac) && r.bare == o.bare &&
		r.up == o.up && r.addressed == o.addressed && r.master == o.master
}

// nextHop is how a frame leaves to a neighbour, which may be invalid: there is no route.
func (r *realmLink) nextHop(neighbour netip.Addr, mac net.HardwareAddr) call.NextHop {
	if !r.ready() || !neighbour.IsValid() {
		return call.NextHop{}
	}
	next := call.NextHop{Ifindex: r.Ifindex, Bare: r.bare, Neighbour: neighbour, NeighbourIfindex: r.AddressIfindex}
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
