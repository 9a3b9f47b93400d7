package realm

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink"
)

// Attachment is a realm's place in the network as it is now.
type Attachment struct {
	// Ifindex is the physical device that frames come and go on.
	Ifindex int
	// AddressIfindex is the device with the realm's address: the physical one, or its VLAN device.
	AddressIfindex int
}

// Attach finds the devices and addresses of all realms, in the order of the config.
// Making them is not its business yet: what is missing is reported, all of it at once,
// with the command that mends it.
func Attach(realms []Config) ([]Attachment, error) {
	list := make([]Attachment, len(realms))
	var errs []error
	for i, r := range realms {
		var err error
		if list[i], err = attach(r); err != nil {
			errs = append(errs, fmt.Errorf("realm %s: %w", r.Name, err))
		}
	}
	return list, errors.Join(errs...)
}

func attach(r Config) (Attachment, error) {
	physical, err := netlink.LinkByName(r.Interface)
	if err != nil {
		return Attachment{}, fmt.Errorf("interface %s: %w; `ip link` lists those that exist", r.Interface, err)
	}
	device := physical
	if r.VLAN != 0 {
		if device, err = netlink.LinkByName(r.Device()); err != nil {
			return Attachment{}, fmt.Errorf("VLAN device %s: %w; make it with: ip link add link %s name %s type vlan id %d",
				r.Device(), err, r.Interface, r.Device(), r.VLAN)
		}
		if vlan, ok := device.(*netlink.Vlan); !ok || vlan.VlanId != int(r.VLAN) || vlan.Attrs().ParentIndex != physical.Attrs().Index {
			return Attachment{}, fmt.Errorf("device %s is not VLAN %d of %s", r.Device(), r.VLAN, r.Interface)
		}
	}
	has, err := hasAddress(device, r.Address.Addr())
	if err != nil {
		return Attachment{}, err
	}
	if !has {
		return Attachment{}, fmt.Errorf("device %s does not have the address %s; add it with: ip address add %s dev %s",
			r.Device(), r.Address.Addr(), r.Address, r.Device())
	}
	return Attachment{Ifindex: physical.Attrs().Index, AddressIfindex: device.Attrs().Index}, nil
}

func hasAddress(link netlink.Link, want netip.Addr) (bool, error) {
	addrs, err := netlink.AddrList(link, syscall.AF_INET)
	if err != nil {
		return false, fmt.Errorf("addresses of %s: %w", link.Attrs().Name, err)
	}
	for _, a := range addrs {
		if got, ok := netip.AddrFromSlice(a.IP.To4()); ok && got == want {
			return true, nil
		}
	}
	return false, nil
}
