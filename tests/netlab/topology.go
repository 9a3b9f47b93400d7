package netlab

import (
	"errors"
	"fmt"
	"net/netip"
)

// Hosts of the default topology.
const (
	Gateway  = "gateway"
	Platform = "platform"
	CarrierA = "carrier-a"
	CarrierB = "carrier-b"
)

// PeerDevice is the one interface of each peer in the default topology.
const PeerDevice = "eth0"

// Topology is a network to be made: hosts and the cables between them.
type Topology struct {
	Hosts []Host
	Links []Link
}

// Host is a network namespace of its own.
type Host struct {
	// Name is unique in the topology and becomes the end of the namespace's name.
	Name string
	// Forward makes the kernel route IPv4 between the host's interfaces. The gateway
	// does not need it: it carries calls, not packets.
	Forward bool
	// Router is the next hop of the default route; the zero value means none.
	Router netip.Addr
	// Switch makes the host a VLAN-aware bridge; its ends of links are ports.
	Switch bool
	// Addresses that the host has on lo.
	Addresses []netip.Prefix
}

// Link is a cable, made as a veth pair.
type Link struct {
	A, B End
	// VLAN is the 802.1Q tag on the cable, 1-4094, or 0 for none. When set, the
	// addresses are on devices "<device>.<vlan>" (see [VLANSupported]).
	VLAN uint16
}

// End is one end of a link.
type End struct {
	Host string
	// Device is the interface's name within the host, at most 15 characters.
	Device string
	// Address with the length of its network; none is allowed where nothing needs one.
	Address netip.Prefix
	// Access makes the port of a switch an untagged one of that VLAN, Tagged a trunk with
	// those VLANs.
	Access uint16
	Tagged []uint16
}

// Realm is one attachment of the gateway in the default topology.
type Realm struct {
	// Name of the realm, and of the peer's host on the other end.
	Name string
	// Device is the gateway's interface.
	Device string
	// Gateway and Peer are the addresses of the two ends.
	Gateway, Peer netip.Addr
	// Prefix is the network they share.
	Prefix netip.Prefix
	// FirstPort and LastPort bound the gateway's media ports; realms never share one.
	FirstPort, LastPort uint16
}

// Realms are the gateway's attachments in the default topology: the platform and two
// carriers, a network and an interface each.
func Realms() []Realm {
	realm := func(name, device string, net byte, first, last uint16) Realm {
		return Realm{
			Name:      name,
			Device:    device,
			Gateway:   netip.AddrFrom4([4]byte{10, net, 0, 2}),
			Peer:      netip.AddrFrom4([4]byte{10, net, 0, 10}),
			Prefix:    netip.PrefixFrom(netip.AddrFrom4([4]byte{10, net, 0, 0}), 24),
			FirstPort: first,
			LastPort:  last,
		}
	}
	return []Realm{
		realm(Platform, "plat0", 71, 16384, 24575),
		realm(CarrierA, "cara0", 72, 24576, 28671),
		realm(CarrierB, "carb0", 73, 28672, 32767),
	}
}

// RealmOf returns the realm named, one of those of [Realms].
func RealmOf(name string) Realm {
	for _, r := range Realms() {
		if r.Name == name {
			return r
		}
	}
	return Realm{}
}

// Default is platform, gateway, carrier-a and carrier-b, each peer on a cable of its
// own to the gateway. With forward, the gateway routes between them like any router:
// for trying peers against each other without Tandem.
func Default(forward bool) Topology {
	t := Topology{Hosts: []Host{{Name: Gateway, Forward: forward}}}
	for _, r := range Realms() {
		peer := Host{Name: r.Name}
		if forward {
			peer.Router = r.Gateway
		}
		t.Hosts = append(t.Hosts, peer)
		t.Links = append(t.Links, Link{
			A: End{Host: Gateway, Device: r.Device, Address: netip.PrefixFrom(r.Gateway, r.Prefix.Bits())},
			B: End{Host: r.Name, Device: PeerDevice, Address: netip.PrefixFrom(r.Peer, r.Prefix.Bits())},
		})
	}
	return t
}

// validate finds what the kernel would refuse later with less clear words.
func (t Topology) validate() error {
	var errs []error
	hosts := map[string]bool{}
	for _, h := range t.Hosts {
		if h.Name == "" || hosts[h.Name] {
			errs = append(errs, fmt.Errorf("host %q: the name is empty or taken", h.Name))
		}
		hosts[h.Name] = true
	}
	devices := map[string]bool{}
	for _, l := range t.Links {
		if l.VLAN > 4094 {
			errs = append(errs, fmt.Errorf("link %s-%s: VLAN %d is above 4094", l.A.Host, l.B.Host, l.VLAN))
		}
		for _, e := range []End{l.A, l.B} {
			id := e.Host + "/" + e.Device
			switch {
			case !hosts[e.Host]:
				errs = append(errs, fmt.Errorf("link end %s: no such host", id))
			case len(e.Device) == 0 || len(e.Device) > 15 || devices[id]:
				errs = append(errs, fmt.Errorf("link end %s: the device's name is taken or not of 1-15 characters", id))
			case l.VLAN != 0 && !e.Address.IsValid():
				errs = append(errs, fmt.Errorf("link end %s: no address for VLAN %d", id, l.VLAN))
			}
			devices[id] = true
		}
	}
	return errors.Join(errs...)
}
