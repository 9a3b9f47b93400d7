package netlab

import (
	"fmt"
	"net/netip"
)

// More hosts of the trunk topology, and devices there.
const (
	Switch     = "switch"
	Management = "management"
	// CarrierC is a third carrier, on a clear VLAN.
	CarrierC = "carrier-c"
	// TrunkDevice is the gateway's one interface for all sites, ManagementDevice that for
	// the management host; TrunkPort is the switch's end of the trunk.
	TrunkDevice      = "trunk0"
	ManagementDevice = "mgmt0"
	TrunkPort        = "t-gateway"
)

// Addresses of the management network.
var (
	GatewayManagement = netip.MustParsePrefix("10.99.0.1/24")
	ManagementHost    = netip.MustParsePrefix("10.99.0.10/24")
)

// Site is what is at the far end of one of the gateway's realms in the trunk topology. Its
// name is that of the host, the realm and the trunk.
type Site struct {
	Name string
	// VLAN of a clear site.
	VLAN uint16
	// Gateway is the gateway's address in the realm, Peer the site's own for SIP and RTP.
	Gateway netip.Prefix
	Peer    netip.Addr
	// FirstPort and LastPort bound the gateway's media ports in the realm.
	FirstPort, LastPort uint16
	// Uplinks are the tunnels, the primary first; none is a clear site.
	Uplinks []Uplink
}

// Uplink is one way from the gateway to a site: a VLAN with a tunnel over it.
type Uplink struct {
	// Name of the tunnel.
	Name string
	// VLAN is that on the trunk; the site's own device is untagged.
	VLAN uint16
	// Gateway and Peer are the outer addresses of the two ends.
	Gateway, Peer netip.Prefix
}

// Inner networks of the tunnelled sites: those of all carriers, and the gateway's to them.
var (
	CarrierNetwork = netip.MustParsePrefix("10.50.0.0/24")
	GatewayNetwork = netip.MustParsePrefix("10.60.0.0/24")
)

// Sites are a platform on a clear VLAN; two carriers with the same outer and the same inner
// addresses, the first with a backup; a third carrier on a clear VLAN.
func Sites() []Site {
	inner, carrier := netip.PrefixFrom(netip.MustParseAddr("10.60.0.1"), 32), netip.MustParseAddr("10.50.0.10")
	return []Site{
		{
			Name: Platform, VLAN: 200, Gateway: netip.MustParsePrefix("10.71.0.2/24"), Peer: netip.MustParseAddr("10.71.0.10"),
			FirstPort: 16384, LastPort: 17407,
		}, {
			Name: CarrierA, Gateway: inner, Peer: carrier, FirstPort: 17408, LastPort: 18431,
			Uplinks: []Uplink{uplink("a-primary", 101, 0), uplink("a-backup", 111, 4)},
		}, {
			Name: CarrierB, Gateway: inner, Peer: carrier, FirstPort: 18432, LastPort: 19455,
			Uplinks: []Uplink{uplink("b-primary", 102, 0)},
		}, {
			Name: CarrierC, VLAN: 103, Gateway: netip.MustParsePrefix("10.73.0.2/24"), Peer: netip.MustParseAddr("10.73.0.10"),
			FirstPort: 19456, LastPort: 20479,
		},
	}
}

// uplink has the addresses net+1 and net+2 of 192.0.2.0/24 (RFC 5737).
func uplink(name string, vlan uint16, net byte) Uplink {
	return Uplink{
		Name: name, VLAN: vlan,
		Gateway: netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, net + 1}), 30),
		Peer:    netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, net + 2}), 30),
	}
}

// ManySites are n carriers, each behind a tunnel on a VLAN of its own from 301 on, all with
// the same inner addresses. One host has the far ends of all tunnels, so those addresses
// differ.
func ManySites(n int) []Site {
	sites := make([]Site, n)
	for i := range sites {
		first := uint16(20480 + 16*i)
		sites[i] = Site{
			Name: fmt.Sprintf("carrier-%02d", i+1), Gateway: netip.PrefixFrom(netip.MustParseAddr("10.60.0.1"), 32),
			Peer: netip.MustParseAddr("10.50.0.10"), FirstPort: first, LastPort: first + 15,
			Uplinks: []Uplink{uplink(fmt.Sprintf("tunnel-%02d", i+1), uint16(301+i), byte(4*i))},
		}
	}
	return sites
}

// SiteOf returns the site named, one of those of [Sites].
func SiteOf(name string) Site {
	for _, s := range Sites() {
		if s.Name == name {
			return s
		}
	}
	return Site{}
}

// Device is the site's interface at an uplink, by its place.
func Device(uplink int) string { return fmt.Sprintf("eth%d", uplink) }

// ManyHost has the far ends of all tunnels of [ManySites].
const ManyHost = "carriers"

// TunnelDevice is the xfrm interface that a tunnelled site's inner traffic passes, by the
// place of its uplink.
func TunnelDevice(uplink int) string { return fmt.Sprintf("xfrm%d", uplink) }

// Trunked is a gateway with one tagged interface, a switch, the sites behind the switch's
// untagged ports, and a management host on a network of its own. The gateway's trunk has no
// devices and addresses above it: those are the daemon's to make.
func Trunked(sites []Site) Topology {
	t := Topology{Hosts: []Host{{Name: Gateway}, {Name: Switch, Switch: true}, {Name: Management}}}
	trunk := End{Host: Switch, Device: TrunkPort}
	var cables []Link
	plug := func(host string, device int, vlan uint16, address netip.Prefix) {
		trunk.Tagged = append(trunk.Tagged, vlan)
		cables = append(cables, Link{
			A: End{Host: Switch, Device: fmt.Sprintf("p%d", vlan), Access: vlan},
			B: End{Host: host, Device: Device(device), Address: address},
		})
	}
	for _, s := range sites {
		t.Hosts = append(t.Hosts, s.host())
		if len(s.Uplinks) == 0 {
			plug(s.Name, 0, s.VLAN, netip.PrefixFrom(s.Peer, s.Gateway.Bits()))
		}
		for i, u := range s.Uplinks {
			plug(s.Name, i, u.VLAN, u.Peer)
		}
	}
	t.Links = append(cables,
		Link{A: End{Host: Gateway, Device: TrunkDevice}, B: trunk},
		Link{
			A: End{Host: Gateway, Device: ManagementDevice, Address: GatewayManagement},
			B: End{Host: Management, Device: PeerDevice, Address: ManagementHost},
		})
	return t
}

// host of a site; a tunnelled one has its inner address on lo.
func (s Site) host() Host {
	h := Host{Name: s.Name}
	if len(s.Uplinks) > 0 {
		h.Addresses = []netip.Prefix{netip.PrefixFrom(s.Peer, 32)}
	}
	return h
}

// TrunkedToOne is [Trunked] with all tunnels of the sites ending in one host: it returns that
// one too, with the uplinks in the order of the sites.
func TrunkedToOne(sites []Site) (Topology, Site) {
	all := Site{Name: ManyHost, Gateway: sites[0].Gateway, Peer: sites[0].Peer}
	for _, s := range sites {
		all.Uplinks = append(all.Uplinks, s.Uplinks...)
	}
	return Trunked([]Site{all}), all
}

// Connections are what a tunnelled site's charon has to load for its uplinks.
func (s Site) Connections() []Connection {
	connections := make([]Connection, len(s.Uplinks))
	for i, u := range s.Uplinks {
		connections[i] = Connection{
			Name: u.Name, Local: u.Peer.Addr(), Remote: u.Gateway.Addr(), LocalID: PeerID(s.Name), RemoteID: GatewayID,
			LocalNetwork: CarrierNetwork, RemoteNetwork: GatewayNetwork, IfID: uint32(i + 1), Secret: SharedSecret,
		}
	}
	return connections
}
