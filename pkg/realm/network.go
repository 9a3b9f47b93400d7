package realm

import (
	"net/netip"
	"slices"
)

// Network is a realm's network as it is wanted.
type Network struct {
	// Number is that of flow keys, from 1.
	Number uint16
	Config
	// Tunnels in order of rank: the first is the primary. Only managed realms have any.
	Tunnels []Tunnel
}

// Tunnel is what the network has to know of a tunnel: its outer side, and who is behind it.
type Tunnel struct {
	Name string
	// Interface, VLAN and OuterVLAN are where its outer packets come and go. An untagged outer side
	// cannot be: the interface itself would have to leave this namespace.
	Interface       string
	VLAN, OuterVLAN uint16
	// Local is our outer address with its prefix length; Remote the peer's, Gateway the next hop to it
	// or invalid if it is in the subnet.
	Local   netip.Prefix
	Gateway netip.Addr
	Remote  netip.Addr
	// Networks are reached through the tunnel.
	Networks []netip.Prefix
	// MTU of the xfrm interface, in bytes (N7).
	MTU int
}

// attachment is the outer side's place in the network, as a config has it.
func (t Tunnel) attachment() Config {
	return Config{Interface: t.Interface, VLAN: t.VLAN, OuterVLAN: t.OuterVLAN}
}

// tunnelled reports whether all of the realm's traffic goes through tunnels.
func (n Network) tunnelled() bool { return len(n.Tunnels) > 0 }

// managed reports whether the realm's devices are ours.
func (n Network) managed() bool { return n.Network == Managed }

// device is what the realm's sockets are bound to.
func (n Network) device() string {
	if n.managed() {
		return VRFName(n.Name)
	}
	return n.Device()
}

// table is the routing table of the realm's VRF: the media ranges of a node are disjoint,
// so that nobody else has this number, and it stays the same whatever else is in the config.
func (n Network) table() int { return int(n.MediaPorts.First) }

// rank returns the rank of the tunnel of that name, from 1, or 0.
func (n Network) rank(tunnel string) int {
	return slices.IndexFunc(n.Tunnels, func(t Tunnel) bool { return t.Name == tunnel }) + 1
}
