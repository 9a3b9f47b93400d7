package realm

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// lookUp finds the neighbour that a destination is reached by now, and tells its watchers
// of a change.
func (n *Neighbours) lookUp(d *destination) error {
	updates, unread, err := n.follow(d)
	if err != nil {
		return err
	}
	if unread.addr.IsValid() {
		// Before anybody is told: what the kernel has in its table makes the next hop complete.
		n.resolve(unread, false)
	}
	n.deliver(updates)
	return nil
}

// follow attaches a destination to the neighbour that the kernel names. It returns the
// updates that are owed, and the neighbour if it has to be resolved.
func (n *Neighbours) follow(d *destination) (updates []pending, unread realmAddr, err error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	n.mu.Lock()
	r := n.realms[d.realm-1]
	delete(n.due, d) // now, so that what comes while the kernel is asked counts
	n.mu.Unlock()
	if !r.ready() { // the neighbour of before is kept for when relink asks again
		return nil, realmAddr{}, nil
	}

	to, err := r.lead(d.addr)

	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		if n.destinations[d.realmAddr] == d {
			n.due[d] = struct{}{}
		}
		return nil, realmAddr{}, err
	}
	updates, resolve := n.attach(d, to)
	if resolve {
		unread = realmAddr{d.realm, to.neighbour}
	}
	return updates, unread, nil
}

// flush looks up the ways that events have put in doubt.
func (n *Neighbours) flush() {
	n.mu.Lock()
	due := make([]*destination, 0, len(n.due))
	for d := range n.due {
		due = append(due, d)
	}
	n.mu.Unlock()
	failed := 0
	var last error
	for _, d := range due {
		if err := n.lookUp(d); err != nil {
			failed, last = failed+1, err
		}
	}
	if failed > 0 {
		n.log.Warn("routes not looked up: will be tried again", "destinations", failed, "error", last)
	}
}

// route takes in that a route was added, replaced or removed, in whatever table. What that
// means for a destination is asked of the kernel.
func (n *Neighbours) route(data []byte) error {
	if len(data) < unix.SizeofRtMsg {
		return errShort
	}
	msg := nl.DeserializeRtMsg(data)
	if msg.Family != unix.AF_INET || msg.Flags&unix.RTM_F_CLONED != 0 {
		return nil
	}
	attrs, err := nl.ParseRouteAttr(data[msg.Len():])
	if err != nil {
		return fmt.Errorf("route: %w", err)
	}
	to := netip.IPv4Unspecified() // that of a default route is left out
	for _, a := range attrs {
		if a.Attr.Type != unix.RTA_DST {
			continue
		}
		var ok bool
		if to, ok = netip.AddrFromSlice(a.Value); !ok {
			return fmt.Errorf("route: destination of %d bytes", len(a.Value))
		}
	}
	n.doubtRoutes(netip.PrefixFrom(to, int(msg.Dst_len)))
	return nil
}

// everywhere is what a rule or a next-hop object may concern.
var everywhere = netip.PrefixFrom(netip.IPv4Unspecified(), 0)

// doubtRoutes has the next flush look up the destinations inside a prefix.
func (n *Neighbours) doubtRoutes(to netip.Prefix) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.destinations {
		if to.Contains(d.addr) {
			n.due[d] = struct{}{}
		}
	}
}

// lead returns where packets to dst go: into the tunnel that the VRF's route names, which asks
// for no neighbour, or to a neighbour.
func (r *realmLink) lead(dst netip.Addr) (lead, error) {
	if !r.tunnelled() {
		neighbour, err := r.neighbour(dst)
		return lead{neighbour: neighbour}, err
	}
	route, err := r.ask(dst, true)
	if err != nil || route == nil {
		return lead{}, err
	}
	for _, t := range r.inner {
		if via(route, dst, t.ifindex).IsValid() {
			return lead{neighbour: dst, tunnel: t.ifindex, mtu: t.mtu}, nil
		}
	}
	return lead{}, nil
}

// neighbour returns who takes packets to dst: whom the kernel's routes on the realm's device
// name, or dst itself, or, beyond the subnet of a realm whose network is existing, its
// configured gateway. It is invalid if there is no way.
func (r *realmLink) neighbour(dst netip.Addr) (netip.Addr, error) {
	inside := r.Address.Contains(dst)
	if r.Gateway.IsValid() && !inside && !r.managed() { // a managed realm's VRF has it as a route, among others
		return r.Gateway, nil
	}
	route, err := r.ask(dst, true)
	if err == nil && route != nil && route.LinkIndex == 0 && len(route.MultiPath) == 0 {
		// A next-hop object with net.ipv4.nexthop_compat_mode off: the route itself tells nothing.
		route, err = r.ask(dst, false)
	}
	switch {
	case err != nil:
		return netip.Addr{}, fmt.Errorf("route to %s: %w", dst, err)
	case route != nil:
		return via(route, dst, r.AddressIfindex), nil
	case inside: // the config says so; a VRF or a /32 on the device may leave no such route
		return dst, nil
	default:
		return netip.Addr{}, nil
	}
}

// ask returns the kernel's route to dst among those by the realm's device and for its
// address, or nil if there is none. Without match the kernel says "on link" to that, and
// names the router of a next-hop object to the rest.
func (r *realmLink) ask(dst netip.Addr, match bool) (*netlink.Route, error) {
	routes, err := netlink.RouteGetWithOptions(dst.AsSlice(), &netlink.RouteGetOptions{
		OifIndex: r.AddressIfindex, SrcAddr: r.Address.Addr().AsSlice(), FIBMatch: match,
	})
	switch {
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), // none, or unreachable
		errors.Is(err, unix.EACCES), errors.Is(err, unix.EINVAL), // prohibit, blackhole
		errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENETDOWN): // an event is on its way
		return nil, nil
	case err != nil:
		return nil, err
	case len(routes) != 1:
		return nil, fmt.Errorf("%d answers", len(routes))
	default:
		return &routes[0], nil
	}
}

// via returns the neighbour of a route: its first live router on the device, or dst if the
// route has none. It is invalid for our own and broadcast addresses, and where Ethernet
// and IPv4 are not enough.
func via(route *netlink.Route, dst netip.Addr, device int) netip.Addr {
	if route.Type != unix.RTN_UNICAST {
		return netip.Addr{}
	}
	routers := route.MultiPath
	if len(routers) == 0 {
		routers = []*netlink.NexthopInfo{{
			LinkIndex: route.LinkIndex, Gw: route.Gw, Flags: route.Flags, Encap: route.Encap, Via: route.Via,
		}}
	}
	for _, h := range routers {
		if h.LinkIndex != device || h.Flags&unix.RTNH_F_DEAD != 0 || h.Encap != nil || h.Via != nil {
			continue
		}
		if h.Gw == nil {
			return dst
		}
		if router, ok := netip.AddrFromSlice(h.Gw.To4()); ok {
			return router
		}
	}
	return netip.Addr{}
}
