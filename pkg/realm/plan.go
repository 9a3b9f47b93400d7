package realm

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lastMetric is that of the unreachable default route, behind any that somebody adds
// (the kernel's Documentation/networking/vrf.rst).
const lastMetric = 4278198272

// What devices of ours answer to, and to whom (N2, N5). rp_filter 1 is strict (RFC 3704). On an
// xfrm interface it is off: even the loose mode is strict on a device without address, and
// drops what comes by another tunnel than the one that the route names. Its security
// association has told the source already, and its selectors the addresses.
var (
	quiet = []setting{
		{"ipv4/conf/%s/accept_redirects", "0"},
		{"ipv4/conf/%s/send_redirects", "0"},
		{"ipv4/conf/%s/accept_source_route", "0"},
		{"ipv4/conf/%s/forwarding", "0"},
		{"ipv6/conf/%s/disable_ipv6", "1"},
	}
	strict = append([]setting{
		{"ipv4/conf/%s/rp_filter", "1"},
		{"ipv4/conf/%s/arp_ignore", "1"},
		{"ipv4/conf/%s/arp_announce", "2"},
	}, quiet...)
	tunnelled = append([]setting{{"ipv4/conf/%s/rp_filter", "0"}}, quiet...)

	// untagged is for an interface that only carries tagged frames.
	untagged = []setting{{"ipv4/conf/%s/rp_filter", "1"}, {"ipv4/conf/%s/arp_ignore", "1"}}

	// outerSpace is for the namespace of the tunnels' outer side. There and at home the value for
	// all devices counts too: for redirects whichever of the two allows, for rp_filter the larger.
	outerSpace = []setting{
		{"ipv4/ip_forward", "0"},
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/all/rp_filter", "1"},
		{"ipv6/conf/all/disable_ipv6", "1"},
		{"ipv6/conf/default/disable_ipv6", "1"},
	}
	// host keeps sockets that are bound to no VRF from what comes in by one (N6). rp_filter is left
	// to each device.
	host = []setting{
		{"ipv4/tcp_l3mdev_accept", "0"},
		{"ipv4/udp_l3mdev_accept", "0"},
		{"ipv4/raw_l3mdev_accept", "0"},
		{"ipv4/conf/all/accept_redirects", "0"},
		{"ipv4/conf/all/rp_filter", "0"},
	}
)

// plan is what a managed realm wants of the kernel, in the order in which it is made: what
// keeps its packets in comes before what lets them out. active is the rank of the tunnel that
// traffic leaves by, or 0; shared names the realm that marks a service tag's device.
func (n Network) plan(node string, active int, shared map[string]string) []wanted {
	p := planner{Network: n, node: node, shared: shared}
	p.vrf()
	if n.tunnelled() {
		p.add(true, 0, namespace{path: NamespacePath(node, n.Name), mark: p.mark("")}, sysctls{where: outer, list: outerSpace})
		for i := range n.Tunnels {
			p.tunnel(i + 1)
		}
		if active > 0 {
			p.networks(active)
		}
		return p.list
	}
	p.clear()
	return p.list
}

type planner struct {
	Network
	node   string
	shared map[string]string
	list   []wanted
}

// add adds objects that the tunnel of a rank wants, or the realm if it is 0. Tunnels may share
// some.
func (p *planner) add(vital bool, rank int, objects ...object) {
	for _, o := range objects {
		kind, name := o.id()
		i := slices.IndexFunc(p.list, func(w wanted) bool {
			k, n := w.id()
			return k == kind && n == name
		})
		if i < 0 {
			i = len(p.list)
			p.list = append(p.list, wanted{object: o, vital: vital})
		}
		if rank != 0 {
			p.list[i].ranks = append(p.list[i].ranks, rank)
		}
	}
}

func (p *planner) mark(tunnel string) mark { return mark{p.node, p.Name, tunnel} }

func (p *planner) vrf() {
	name := VRFName(p.Name)
	p.add(true, 0,
		link{name: name, index: p.table(), settings: quiet, shape: shape{kind: kindVRF, table: p.table(), alias: p.mark("").String()}},
		way{route: route{table: p.table(), to: everywhere, priority: lastMetric, typ: unix.RTN_UNREACHABLE}},
	)
	p.add(false, 0, sysctls{device: name, list: quiet})
	p.guard(name, sysctls{list: host}, vrfFirst{}, localLast{})
}

// guard adds what has to be there before any device is put into the VRF (N6).
func (p *planner) guard(vrf string, objects ...object) {
	before := len(p.list)
	p.add(true, 0, objects...)
	for i := range p.list[before:] {
		p.list[before+i].guards = vrf
	}
}

// trunk wants the interface, and on it the device of the service tag; it returns the name of
// what the VLAN device stands on.
func (p *planner) trunk(c Config, rank int) (parent string) {
	p.add(true, rank, link{name: c.Interface, shape: shape{kind: kindInterface}})
	p.add(false, 0, sysctls{device: c.Interface, list: untagged, unlessAddressed: true})
	if c.OuterVLAN == 0 {
		return c.Interface
	}
	name := c.outerDevice()
	owner := p.mark("")
	owner.realm = p.shared[name]
	p.add(true, rank, link{name: name, settings: strict, shape: shape{
		kind: kindVLAN, parent: c.Interface, vlan: c.OuterVLAN, protocol: netlink.VLAN_PROTOCOL_8021AD, priorities: true, alias: owner.String(),
	}})
	p.add(false, 0, sysctls{device: name, list: strict})
	return name
}

// clear is a realm without tunnels.
func (p *planner) clear() {
	device, vrf, table := p.Device(), VRFName(p.Name), p.table()
	address := inet{device: device, prefix: p.Address}
	if p.VLAN == 0 {
		address.label = device + labelSuffix
		p.add(true, 0, link{name: device, settings: strict, alone: true, address: realmAddress(p.Address),
			shape: shape{kind: kindInterface, master: vrf, mtu: int(p.MTU)}})
	} else {
		parent := p.trunk(p.Config, 0)
		p.add(true, 0, link{name: device, settings: strict, shape: shape{
			kind: kindVLAN, parent: parent, vlan: p.VLAN, protocol: netlink.VLAN_PROTOCOL_8021Q, priorities: true,
			master: vrf, mtu: int(p.MTU), alias: p.mark("").String(),
		}})
	}
	p.add(false, 0, sysctls{device: device, list: strict})
	p.add(true, 0, address)
	p.onDevice(home, 0, device, table, p.Address)
	if p.Gateway.IsValid() {
		p.add(false, 0, p.by(home, device, route{table: table, to: everywhere, via: p.Gateway, src: p.Address.Addr()}))
	}
	for _, r := range p.Routes {
		p.add(false, 0, p.by(home, device, route{table: table, to: r.To.Masked(), via: r.Via, src: p.Address.Addr()}))
	}
}

func realmAddress(p netip.Prefix) address { return address{prefix: p} }

// onDevice are the routes that the kernel makes of an address: somebody may take them away.
func (p *planner) onDevice(w where, rank int, device string, table int, prefix netip.Prefix) {
	own, local := prefix.Addr(), table
	if w == outer {
		local = unix.RT_TABLE_LOCAL
	}
	p.add(true, rank, way{where: w, device: device, kernels: true, route: route{
		table: local, to: netip.PrefixFrom(own, own.BitLen()), typ: unix.RTN_LOCAL, scope: unix.RT_SCOPE_HOST, src: own,
	}})
	if prefix.IsSingleIP() {
		return
	}
	p.add(false, rank, way{where: w, device: device, kernels: true, route: route{
		table: table, to: prefix.Masked(), typ: unix.RTN_UNICAST, scope: unix.RT_SCOPE_LINK, src: own,
	}})
}

// by is a unicast route.
func (p *planner) by(w where, device string, r route) way {
	r.typ = unix.RTN_UNICAST
	if !r.via.IsValid() {
		r.scope = unix.RT_SCOPE_LINK
	}
	return way{where: w, device: device, route: r}
}

// tunnel is the outer side of the tunnel of a rank, and its xfrm interface.
func (p *planner) tunnel(rank int) {
	t := p.Tunnels[rank-1]
	at := t.attachment()
	parent, device := p.trunk(at, rank), at.Device()
	p.add(true, rank, link{where: outer, name: device, settings: strict, shape: shape{
		kind: kindVLAN, parent: parent, vlan: t.VLAN, protocol: netlink.VLAN_PROTOCOL_8021Q, priorities: true,
		mtu: int(p.MTU), alias: p.mark(t.Name).String(),
	}})
	p.add(false, 0, sysctls{where: outer, device: device, list: strict})
	p.add(true, rank, inet{where: outer, device: device, prefix: t.Local})
	p.onDevice(outer, rank, device, unix.RT_TABLE_MAIN, t.Local)
	if t.Gateway.IsValid() {
		p.gateway(rank, t, device)
	}

	name := TunnelDevice(p.Name, rank)
	p.add(true, rank, link{name: name, index: p.table() + rank, settings: tunnelled, shape: shape{
		kind: kindXFRM, parent: device, ifID: uint32(rank), master: VRFName(p.Name), mtu: t.MTU, alias: p.mark(t.Name).String(),
	}})
	p.add(false, 0, sysctls{device: name, list: tunnelled})
	if rank == 1 {
		own := netip.PrefixFrom(p.Address.Addr(), p.Address.Addr().BitLen())
		p.add(true, 0, inet{device: VRFName(p.Name), prefix: own})
		p.onDevice(home, 0, VRFName(p.Name), p.table(), own)
	}
}

// gateway is the way to a tunnel's peer beyond the subnet. Tunnels of one realm may have the
// same peer behind different routers: each has a table of its own, by its rank.
func (p *planner) gateway(rank int, t Tunnel, device string) {
	local := t.Local.Addr()
	p.add(false, rank, p.by(outer, device, route{table: unix.RT_TABLE_MAIN, to: everywhere, priority: uint32(rank), via: t.Gateway, src: local}))
	if t.Local.Contains(t.Remote) {
		return
	}
	p.add(false, rank,
		p.by(outer, device, route{table: rank, to: everywhere, via: t.Gateway, src: local}),
		choice{rule{
			priority: uint32(vrfPriority + rank), from: netip.PrefixFrom(local, local.BitLen()), to: netip.PrefixFrom(t.Remote, t.Remote.BitLen()),
			table: rank, action: actionTable, proto: protocol,
		}})
}

// standbyMetric is that of the first tunnel's standby routes.
const standbyMetric = 100

// networks are the routes by the active tunnel, and behind them, by metric, those of all tunnels
// that lead to the same: an xfrm interface only takes what a route by it leads to, and flows of
// the kernel plane leave by the tunnel of before until each was told of a change. Without an
// active tunnel there are none (N4).
func (p *planner) networks(active int) {
	for _, to := range p.Tunnels[active-1].Networks {
		p.add(false, 0, p.network(active, to, 0))
	}
	for i, t := range p.Tunnels {
		for _, to := range p.Tunnels[active-1].Networks {
			if t.leadsTo(to) {
				p.add(false, i+1, p.network(i+1, to, uint32(standbyMetric+i)))
			}
		}
	}
}

func (t Tunnel) leadsTo(to netip.Prefix) bool {
	return slices.ContainsFunc(t.Networks, func(n netip.Prefix) bool { return n.Bits() <= to.Bits() && n.Contains(to.Addr()) })
}

func (p *planner) network(rank int, to netip.Prefix, metric uint32) way {
	return p.by(home, TunnelDevice(p.Name, rank), route{table: p.table(), to: to.Masked(), priority: metric, src: p.Address.Addr()})
}

// claim is a device that a managed realm makes, and where.
type claim struct {
	where
	// space is the realm whose namespace it is in, "" at home.
	space, device string
}

func (c claim) String() string {
	if c.where == home {
		return "device " + c.device
	}
	return fmt.Sprintf("device %s of realm %q's tunnels", c.device, c.space)
}

// claims are the devices that the realm makes.
func (n Network) claims() []claim {
	var list []claim
	for _, w := range n.plan("", 0, nil) {
		if l, ok := w.object.(link); ok && l.kind != kindInterface {
			c := claim{where: l.where, device: l.name}
			if l.where == outer {
				c.space = n.Name
			}
			list = append(list, c)
		}
	}
	return list
}
