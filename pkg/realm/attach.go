package realm

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
)

// place is where a realm's devices are now.
type place struct {
	// Ifindex is the physical device that frames come and go on.
	Ifindex int
	// AddressIfindex is the device with the realm's address: the physical one, its VLAN device, or
	// the VRF of a realm with tunnels.
	AddressIfindex int
	// Bare means that the physical device has no link layer (tun, ipip, xfrm): packets come as IP.
	Bare bool
}

// attach finds the devices and the address of a realm whose network is existing. What is
// missing is reported with the command that mends it.
func attach(r Config) (place, error) {
	physical, device, err := devices(r)
	if err != nil {
		return place{}, err
	}
	has, err := hasAddress(device, r.Address.Addr())
	if err != nil {
		return place{}, err
	}
	if !has {
		return place{}, fmt.Errorf("device %s does not have the address %s; add it with: ip address add %s dev %s",
			r.Device(), r.Address.Addr(), r.Address, r.Device())
	}
	return newPlace(physical, device), nil
}

func newPlace(physical, device netlink.Link) place {
	return place{Ifindex: physical.Attrs().Index, AddressIfindex: device.Attrs().Index, Bare: bare(physical.Attrs().EncapType)}
}

// errOtherDevice means that the name of a VLAN device is taken.
var errOtherDevice = errors.New("is another device")

// devices finds the physical device and the one with the address. absent tells the errors
// of a device that is not there.
func devices(r Config) (physical, device netlink.Link, err error) {
	physical, err = netlink.LinkByName(r.Interface)
	if err != nil {
		return nil, nil, fmt.Errorf("interface %s: %w; `ip link` lists those that exist", r.Interface, err)
	}
	device = physical
	if r.OuterVLAN != 0 {
		if device, err = vlanDevice(device, r.outerDevice(), r.OuterVLAN, netlink.VLAN_PROTOCOL_8021AD); err != nil {
			return nil, nil, err
		}
	}
	if r.VLAN != 0 {
		if device, err = vlanDevice(device, r.Device(), r.VLAN, netlink.VLAN_PROTOCOL_8021Q); err != nil {
			return nil, nil, err
		}
	}
	return physical, device, nil
}

func vlanDevice(parent netlink.Link, name string, tag uint16, protocol netlink.VlanProtocol) (netlink.Link, error) {
	device, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("VLAN device %s: %w; make it with: %s", name, err, vlanCommand(parent.Attrs().Name, name, tag, protocol))
	}
	vlan, ok := device.(*netlink.Vlan)
	if !ok || vlan.VlanId != int(tag) || vlan.VlanProtocol != protocol || vlan.Attrs().ParentIndex != parent.Attrs().Index {
		return nil, fmt.Errorf("%s %w, not the %s VLAN %d of %s; remove it, and make it with: %s", name, errOtherDevice,
			protocol, tag, parent.Attrs().Name, vlanCommand(parent.Attrs().Name, name, tag, protocol))
	}
	return device, nil
}

// vlanCommand makes a VLAN device.
func vlanCommand(parent, name string, tag uint16, protocol netlink.VlanProtocol) string {
	kind := "vlan"
	if protocol != netlink.VLAN_PROTOCOL_8021Q {
		kind += " proto " + protocol.String()
	}
	return fmt.Sprintf("ip link add link %s name %s type %s id %d", parent, name, kind, tag)
}

// absent reports whether an error of devices means that there is no such device.
func absent(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound) || errors.Is(err, errOtherDevice)
}

// maxDumps bounds how often a list is asked for again because it changed meanwhile.
const maxDumps = 5

func hasAddress(link netlink.Link, want netip.Addr) (bool, error) {
	var err error
	for range maxDumps {
		var addrs []netlink.Addr
		addrs, err = netlink.AddrList(link, syscall.AF_INET)
		for _, a := range addrs {
			if got, ok := netip.AddrFromSlice(a.IP.To4()); ok && got == want {
				return true, nil
			}
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	return false, nil
}
