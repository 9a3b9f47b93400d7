package realm

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// link takes in that a device was made, changed or deleted. How it is now is asked of the
// kernel: a port that leaves its bridge is told as a deletion too.
func (n *Neighbours) link(data []byte) error {
	if len(data) < unix.SizeofIfInfomsg {
		return errShort
	}
	msg := nl.DeserializeIfInfomsg(data)
	attrs, err := nl.ParseRouteAttr(data[msg.Len():])
	if err != nil {
		return fmt.Errorf("link: %w", err)
	}
	name := ""
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME {
			name = string(bytes.TrimRight(a.Value, "\x00"))
		}
	}
	return n.relinkWhere(func(r *realmLink) bool {
		return r.AddressIfindex == int(msg.Index) || r.Ifindex == int(msg.Index) || r.knows(int(msg.Index), name)
	})
}

// address takes in that a device was given an address, or lost one. The kernel removes
// routes by that without an event of their own.
func (n *Neighbours) address(data []byte) error {
	if len(data) < unix.SizeofIfAddrmsg {
		return errShort
	}
	index := int(nl.DeserializeIfAddrmsg(data).Index)
	return n.relinkWhere(func(r *realmLink) bool { return r.AddressIfindex == index })
}

// knows reports whether a device is the realm's, or has the name of one.
func (r *realmLink) knows(index int, name string) bool {
	if !r.tunnelled() {
		return r.Device() == name
	}
	for i := range r.Tunnels {
		if TunnelDevice(r.Name, i+1) == name {
			return true
		}
	}
	return VRFName(r.Name) == name || slices.ContainsFunc(r.inner, func(t inner) bool { return t.ifindex == index })
}

func (n *Neighbours) relinkWhere(concerns func(*realmLink) bool) error {
	for i := range n.realms {
		n.mu.Lock()
		r := n.realms[i]
		n.mu.Unlock()
		if !concerns(&r) {
			continue
		}
		if err := n.relink(i, true); err != nil {
			return err
		}
	}
	return nil
}

// relink reads a realm's device and address as they are now, and doubts all that hangs on
// them: a device that went down has lost its routes (without events) and its neighbours.
// flapped says that what the kernel is asking may have been asked on a dead link.
// Only the goroutine of Run relinks.
func (n *Neighbours) relink(i int, flapped bool) error {
	n.mu.Lock()
	was := n.realms[i]
	n.mu.Unlock()
	now, err := readLink(&was)
	switch {
	case absent(err):
		if was.AddressIfindex != 0 {
			n.log.Warn("realm has no device", "realm", was.Name, "error", err)
		}
	case err != nil:
		return fmt.Errorf("realm %s: %w", was.Name, err)
	case !now.same(&was):
		n.log.Info("realm's device changed", "realm", now.Name, "device", now.Device(), "up", now.up,
			"addressed", now.addressed, "mac", now.mac.String(), "ifindex", now.AddressIfindex, "master", now.master)
	}

	var updates []pending
	var hops []realmAddr
	n.mu.Lock()
	n.realms[i] = now
	for key, h := range n.hops {
		if int(key.realm) != i+1 {
			continue
		}
		hops = append(hops, key)
		if now.AddressIfindex != was.AddressIfindex { // who was there need not be here
			*h = hop{told: h.told + 1, kept: h.kept, destinations: h.destinations}
		}
	}
	for _, d := range n.destinations {
		if int(d.realm) == i+1 {
			n.due[d] = struct{}{}
			updates = append(updates, d.collect()...)
		}
	}
	n.mu.Unlock()
	n.flush() // first, lest a device that is up again is told with the routes of before
	n.deliver(updates)
	for _, key := range hops {
		n.resolve(key, flapped)
	}
	return nil
}

// readLink finds a realm's device, the one it had or one that was made in its place, and
// reads its state. With an error that is absent it returns the realm without a device.
func readLink(r *realmLink) (realmLink, error) {
	now := realmLink{Network: r.Network}
	at := r.place
	var device netlink.Link
	var err error = netlink.LinkNotFoundError{}
	if at.AddressIfindex != 0 { // by its index, since it may have been renamed
		device, err = netlink.LinkByIndex(at.AddressIfindex)
	}
	if absent(err) {
		at, device, err = r.find()
	}
	if err != nil {
		return now, err
	}
	if now.addressed, err = hasAddress(device, r.Address.Addr()); err != nil {
		return now, err
	}
	now.place = at
	now.take(device.Attrs())
	return now, now.readInner()
}

// find finds the realm's devices by their names.
func (r *realmLink) find() (at place, device netlink.Link, err error) {
	if r.tunnelled() {
		if device, err = netlink.LinkByName(VRFName(r.Name)); err != nil {
			return place{}, nil, err
		}
		return place{AddressIfindex: device.Attrs().Index, Bare: true}, device, nil
	}
	physical, device, err := devices(r.Config)
	if err != nil {
		return place{}, nil, err
	}
	return newPlace(physical, device), device, nil
}

// readInner finds the xfrm interfaces that there are.
func (r *realmLink) readInner() error {
	for i := range r.Tunnels {
		device, err := netlink.LinkByName(TunnelDevice(r.Name, i+1))
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		r.inner = append(r.inner, inner{device.Attrs().Index, device.Attrs().MTU})
	}
	return nil
}
