package realm

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// States of the kernel's entries.
const (
	usable = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY | netlink.NUD_PROBE | netlink.NUD_PERMANENT | netlink.NUD_NOARP
	static = netlink.NUD_PERMANENT | netlink.NUD_NOARP
)

// fixed tells an entry that somebody else keeps: an operator, a routing daemon, or the
// kernel by itself.
func fixed(entry *netlink.Neigh) bool {
	return entry.State&static != 0 || entry.Flags&netlink.NTF_EXT_LEARNED != 0 || entry.FlagsExt&netlink.NTF_EXT_MANAGED != 0
}

// resolve takes over what the kernel knows of a neighbour and asks it to find out. After a
// flap what it is finding out begins anew: its next question may be a second away.
func (n *Neighbours) resolve(key realmAddr, flapped bool) {
	n.mu.Lock()
	r, h := &n.realms[key.realm-1], n.hops[key]
	if h == nil || r.bare || !r.ready() { // relink comes here again
		n.mu.Unlock()
		return
	}
	name, device, told := r.Name, r.AddressIfindex, h.told
	n.mu.Unlock()

	entry, err := readEntry(device, key.addr)
	if err != nil {
		// It might be a static one, so it is not asked for: refresh comes here again.
		n.log.Warn("neighbour not read", "realm", name, "address", key.addr, "error", err)
		return
	}

	failing := flapped && entry != nil && entry.State&usable == 0 && !fixed(entry)
	var updates []pending
	n.mu.Lock()
	switch {
	case failing: // on a link that was dead, which tells nothing of the neighbour
		h.read, h.fixed, h.doubted = true, false, false
	case h.told == told && h.take(entry):
		updates = h.collect()
	}
	leave := h.fixed
	n.mu.Unlock()
	n.deliver(updates)
	if leave {
		return
	}
	if failing {
		if err := netlink.NeighDel(entry); err != nil && !errors.Is(err, unix.ENOENT) {
			n.log.Warn("neighbour not asked anew", "realm", name, "address", key.addr, "error", err)
		}
	}
	if err := use(device, key.addr); err != nil {
		n.log.Warn("neighbour not probed", "realm", name, "address", key.addr, "error", err)
	}
}

// readEntry returns the kernel's entry of a neighbour, or nil if it has none.
func readEntry(device int, addr netip.Addr) (*netlink.Neigh, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, 0)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_INET, Index: uint32(device)})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, addr.AsSlice()))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV):
		return nil, nil
	case err != nil:
		return nil, err
	case len(messages) != 1:
		return nil, fmt.Errorf("%d answers", len(messages))
	default:
		return netlink.NeighDeserialize(messages[0])
	}
}

// use tells the kernel that a neighbour is in use, as sending to it would: an unknown one
// is asked for, a stale one is asked again.
func use(device int, addr netip.Addr) error {
	return netlink.NeighSet(&netlink.Neigh{
		LinkIndex: device, Family: unix.AF_INET, IP: addr.AsSlice(), Flags: netlink.NTF_USE, State: netlink.NUD_NONE,
	})
}

// take takes in the kernel's entry, nil if it has none, and returns whether packets have
// to be sent otherwise. The caller holds mu.
func (h *hop) take(entry *netlink.Neigh) (changed bool) {
	h.read = true
	if entry == nil {
		h.fixed, h.doubted = false, len(h.mac) != 0
		return false
	}
	h.fixed = fixed(entry)
	mac := h.mac
	switch {
	case entry.State&usable != 0:
		mac, h.doubted = entry.HardwareAddr, false
	case entry.State&netlink.NUD_FAILED == 0: // the kernel is asking
	case h.doubted, h.fixed:
		mac = nil
	default:
		h.doubted = true
	}
	changed = string(mac) != string(h.mac)
	h.mac = mac
	return changed
}

// entry takes in that the kernel has made, changed or deleted an entry: flushed, or
// removed to make room.
func (n *Neighbours) entry(data []byte, deleted bool) error {
	if len(data) < unix.SizeofNdMsg {
		return errShort
	}
	entry, err := netlink.NeighDeserialize(data)
	if err != nil {
		return fmt.Errorf("neighbour: %w", err)
	}
	addr, ok := netip.AddrFromSlice(entry.IP.To4())
	if entry.Family != unix.AF_INET || !ok || entry.Flags&netlink.NTF_PROXY != 0 {
		return nil // a bridge's table is told as neighbours too
	}
	told := entry
	if deleted {
		told = nil
	}
	var updates []pending
	ask := false
	n.mu.Lock()
	for i := range n.realms {
		r, h := &n.realms[i], n.hops[realmAddr{uint16(i + 1), addr}]
		if h == nil || r.AddressIfindex != entry.LinkIndex {
			continue
		}
		doubted := h.doubted
		h.told++
		if !r.ready() && entry.State&usable == 0 { // asked on a dead link
			continue
		}
		if h.take(told) {
			updates = append(updates, h.collect()...)
		}
		if r.ready() && !r.bare && !h.fixed && (deleted || h.doubted && !doubted) {
			ask = true
		}
	}
	n.mu.Unlock()
	n.deliver(updates)
	if !ask {
		return nil
	}
	// By broadcast, since the kernel has no use for what it knew.
	if err := use(entry.LinkIndex, addr); err != nil {
		n.log.Debug("neighbour not probed", "address", addr, "error", err)
	}
	return nil
}

// refresh keeps every watched neighbour in use.
func (n *Neighbours) refresh() {
	var unread []realmAddr
	devices := make(map[realmAddr]int)
	n.mu.Lock()
	for key, h := range n.hops {
		r := &n.realms[key.realm-1]
		switch {
		case r.bare || !r.ready() || h.fixed:
		case !h.read:
			unread = append(unread, key)
		default:
			devices[key] = r.AddressIfindex
		}
	}
	n.mu.Unlock()
	for _, key := range unread {
		n.resolve(key, false)
	}
	for key, device := range devices {
		if err := use(device, key.addr); err != nil {
			n.log.Debug("neighbour not probed", "address", key.addr, "error", err)
		}
	}
}
