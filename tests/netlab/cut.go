package netlab

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
)

// Cut makes a cable lose every packet, both ways, while both ends stay up: what a fault
// somewhere behind the next switch looks like. The end named may be either. Mend undoes it.
func (l *Lab) Cut(host, device string) error {
	return l.onCable(host, device, func(h *netlink.Handle, link netlink.Link) error {
		return h.QdiscReplace(netem(link, 100))
	})
}

// Mend lets the packets of a cable that was cut pass again, first those from the end named: a
// site that heard the gateway before would answer into the dead cable.
func (l *Lab) Mend(host, device string) error {
	return l.onCable(host, device, func(h *netlink.Handle, link netlink.Link) error {
		return h.QdiscDel(netem(link, 100))
	})
}

// netem loses a part of what leaves a device, in percent.
func netem(link netlink.Link, percent float32) *netlink.Netem {
	return netlink.NewNetem(netlink.QdiscAttrs{
		LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT,
	}, netlink.NetemQdiscAttrs{Loss: percent})
}

// onCable does something to both ends of a cable, the one named first.
func (l *Lab) onCable(host, device string, do func(*netlink.Handle, netlink.Link) error) error {
	for _, link := range l.topology.Links {
		for _, ends := range [][2]End{{link.A, link.B}, {link.B, link.A}} {
			if ends[0].Host == host && ends[0].Device == device {
				return errors.Join(l.onDevice(ends[0], do), l.onDevice(ends[1], do))
			}
		}
	}
	return fmt.Errorf("no cable at %s/%s", host, device)
}

func (l *Lab) onDevice(e End, do func(*netlink.Handle, netlink.Link) error) error {
	h, err := netlink.NewHandleAt(l.hosts[e.Host])
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer h.Close()
	link, err := h.LinkByName(e.Device)
	if err == nil {
		err = do(h, link)
	}
	if err != nil {
		return fmt.Errorf("%s/%s: %w", e.Host, e.Device, err)
	}
	return nil
}
