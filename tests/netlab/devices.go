package netlab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// setUpHost prepares an empty namespace.
func (l *Lab) setUpHost(h Host) error {
	ns := l.hosts[h.Name]
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	if err := handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("lo up: %w", err)
	}
	for _, a := range h.Addresses {
		if err := addAddress(handle, lo, a); err != nil {
			return err
		}
	}
	if h.Switch {
		if err := addBridge(handle); err != nil {
			return err
		}
	}
	return inNetns(ns, func() error {
		sysctls := map[string]string{
			// No router solicitations and duplicate address probes among the packets counted.
			"/proc/sys/net/ipv6/conf/all/disable_ipv6":     "1",
			"/proc/sys/net/ipv6/conf/default/disable_ipv6": "1",
		}
		if h.Forward {
			sysctls["/proc/sys/net/ipv4/ip_forward"] = "1"
		}
		for path, value := range sysctls {
			err := os.WriteFile(path, []byte(value), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) { // a kernel without IPv6
				return err
			}
		}
		return nil
	})
}

// plug makes the link's veth pair, straight inside the two namespaces.
func (l *Lab) plug(link Link) error {
	a, err := netlink.NewHandleAt(l.hosts[link.A.Host])
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer a.Close()
	b, err := netlink.NewHandleAt(l.hosts[link.B.Host])
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer b.Close()

	pair := netlink.NewVeth(netlink.LinkAttrs{Name: link.A.Device})
	pair.PeerName = link.B.Device
	pair.PeerNamespace = netlink.NsFd(l.hosts[link.B.Host])
	if err := a.LinkAdd(pair); err != nil {
		return fmt.Errorf("veth: %w", err)
	}
	// Both ends are tuned before either comes up: a veth declares itself a target of XDP
	// redirects when it is opened, by what its other end asks for at that moment.
	for _, end := range []End{link.A, link.B} {
		if err := inNetns(l.hosts[end.Host], func() error { return tuneVeth(end.Device) }); err != nil {
			return fmt.Errorf("%s: %w", end.Device, err)
		}
	}
	if err := bringUp(a, link.A, link.VLAN); err != nil {
		return fmt.Errorf("%s: %w", link.A.Device, err)
	}
	if err := bringUp(b, link.B, link.VLAN); err != nil {
		return fmt.Errorf("%s: %w", link.B.Device, err)
	}
	return nil
}

// tuneVeth makes a veth behave like the network card it stands for.
func tuneVeth(device string) error {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("ethtool: %w", err)
	}
	defer e.Close()
	err = e.Change(device, map[string]bool{
		// veth takes frames redirected by XDP only while its end polls, and GRO makes it poll.
		"rx-gro": true,
		// A frame that XDP forwards is never finished by the kernel, so its checksum must be.
		"tx-checksum-ip-generic": false,
		// The tag belongs in the frame, where XDP looks for it.
		"rx-vlan-hw-parse":  false,
		"tx-vlan-hw-insert": false,
	})
	if err != nil {
		return fmt.Errorf("setting offloads: %w", err)
	}
	return nil
}

func bringUp(h *netlink.Handle, end End, vlan uint16) error {
	device, err := h.LinkByName(end.Device)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(device); err != nil {
		return fmt.Errorf("up: %w", err)
	}
	if vlan != 0 {
		attrs := netlink.LinkAttrs{Name: end.Device + "." + strconv.Itoa(int(vlan)), ParentIndex: device.Attrs().Index}
		tagged := &netlink.Vlan{LinkAttrs: attrs, VlanId: int(vlan), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
		if err := h.LinkAdd(tagged); err != nil {
			return fmt.Errorf("VLAN %d: %w", vlan, err)
		}
		if err := h.LinkSetUp(tagged); err != nil {
			return fmt.Errorf("VLAN %d up: %w", vlan, err)
		}
		device = tagged
	}
	if end.Access != 0 || len(end.Tagged) > 0 {
		return addPort(h, device, end)
	}
	if !end.Address.IsValid() {
		return nil
	}
	return addAddress(h, device, end.Address)
}

func addAddress(h *netlink.Handle, device netlink.Link, p netip.Prefix) error {
	if err := h.AddrAdd(device, &netlink.Addr{IPNet: ipNet(p)}); err != nil {
		return fmt.Errorf("address %v: %w", p, err)
	}
	return nil
}

// ipNet keeps the host part of the address.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (l *Lab) setUpRoute(host Host) error {
	if !host.Router.IsValid() {
		return nil
	}
	handle, err := netlink.NewHandleAt(l.hosts[host.Name])
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer handle.Close()
	if err := handle.RouteAdd(&netlink.Route{Gw: host.Router.AsSlice()}); err != nil {
		return fmt.Errorf("default route via %v: %w", host.Router, err)
	}
	return nil
}

// removeDevices takes the cables out of a namespace, so that they are gone even when
// somebody's shell keeps the namespace itself alive.
func removeDevices(ns netns.NsHandle) error {
	handle, err := netlink.NewHandleAt(ns)
	if err != nil {
		return fmt.Errorf("netlink: %w", err)
	}
	defer handle.Close()
	links, err := handle.LinkList()
	for errors.Is(err, netlink.ErrDumpInterrupted) { // somebody else's device came or went meanwhile
		links, err = handle.LinkList()
	}
	if err != nil {
		return fmt.Errorf("listing devices: %w", err)
	}
	var errs []error
	for _, link := range links {
		if link.Type() != "veth" {
			continue
		}
		// ENODEV: it went with its other end.
		if err := handle.LinkDel(link); err != nil && !errors.Is(err, syscall.ENODEV) {
			errs = append(errs, fmt.Errorf("removing %s: %w", link.Attrs().Name, err))
		}
	}
	return errors.Join(errs...)
}
