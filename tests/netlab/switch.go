package netlab

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// bridge is the device of a host that is a switch.
const bridge = "br0"

// addBridge makes a switch without ports. A port is in no VLAN but those it is given: the
// default of every bridge, VLAN 1 on all ports, would join all hosts.
func addBridge(h *netlink.Handle) error {
	filtering, none := true, uint16(0)
	br := &netlink.Bridge{
		LinkAttrs:       netlink.LinkAttrs{Name: bridge},
		VlanFiltering:   &filtering,
		VlanDefaultPVID: &none,
	}
	if err := h.LinkAdd(br); err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := h.LinkSetUp(br); err != nil {
		return fmt.Errorf("bridge up: %w", err)
	}
	return nil
}

func addPort(h *netlink.Handle, device netlink.Link, end End) error {
	br, err := h.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("bridge: %w", err)
	}
	if err := h.LinkSetMaster(device, br); err != nil {
		return fmt.Errorf("port of the switch: %w", err)
	}
	if end.Access != 0 {
		if err := h.BridgeVlanAdd(device, end.Access, true, true, false, true); err != nil {
			return fmt.Errorf("VLAN %d: %w", end.Access, err)
		}
	}
	for _, vlan := range end.Tagged {
		if err := h.BridgeVlanAdd(device, vlan, false, false, false, true); err != nil {
			return fmt.Errorf("tagged VLAN %d: %w", vlan, err)
		}
	}
	return nil
}
