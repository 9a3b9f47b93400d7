package realm

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// noTable is no VRF's: asking for it lists our routes alone.
const noTable = 1<<31 - 1

// prune removes what is ours in the realm's table, on its devices and in its namespace, and
// what the realm does not want.
func (v *view) prune(n Network, list []wanted) error {
	routes := map[where]map[key]bool{home: {}, outer: {}}
	addresses := make(map[inet]bool)
	rules := make(map[rule]bool)
	devices := map[where]map[string]bool{home: {}, outer: {loopback: true}}
	for _, w := range list {
		switch o := w.object.(type) {
		case way:
			routes[o.where][o.key()] = true
		case inet:
			addresses[inet{where: o.where, device: o.device, prefix: o.prefix}] = true
		case choice:
			rules[o.rule] = true
		case link:
			if o.kind != kindInterface || o.master != "" { // of a trunk that others use too we only want that it is up
				devices[o.where][o.name] = true
			}
		}
	}
	var errs []error
	remove := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
			return
		}
		v.removed = true
		v.log("removed "+what, "reason", "the config does not have it")
	}
	for _, w := range []where{home, outer} {
		s := v.in(w)
		if s == nil {
			continue
		}
		if w == outer {
			for _, d := range sorted(s.devices) {
				if v.ours(d) && !devices[w][d.name] {
					remove("device "+d.name, s.removeDevice(d))
				}
			}
		}
		for _, r := range slices.Clone(s.routes) {
			if r.proto == protocol && (w == outer || r.table == n.table()) && !routes[w][r.key()] {
				remove("route "+r.words(s.names[r.index]), s.dropRoute(r))
			}
		}
		for name := range devices[w] {
			d := s.devices[name]
			if d == nil {
				continue
			}
			for _, a := range slices.Clone(s.addresses[d.index]) {
				if a.ours(name) && !addresses[inet{where: w, device: name, prefix: a.prefix}] {
					remove(fmt.Sprintf("address %s of %s", a.prefix, name), s.dropAddress(a))
				}
			}
		}
	}
	if vrf := v.home.devices[VRFName(n.Name)]; vrf != nil && v.ours(vrf) {
		for _, d := range v.home.enslaved(vrf) {
			if !v.ours(d) && !devices[home][d.name] {
				remove("interface "+d.name+" from "+vrf.name, v.home.letGo(d))
			}
		}
	}
	if v.outer == nil {
		return errors.Join(errs...)
	}
	for _, r := range slices.Clone(v.outer.rules) {
		if r.proto == protocol && !rules[r] {
			remove("rule "+r.String(), v.outer.removeRule(r))
		}
	}
	return errors.Join(errs...)
}

// enslaved lists the devices in a VRF.
func (s *snapshot) enslaved(vrf *device) []*device {
	return slices.DeleteFunc(sorted(s.devices), func(d *device) bool { return d.master != vrf.index })
}

// letGo takes an interface that is not ours out of its VRF, without our addresses.
func (s *space) letGo(d *device) error {
	if err := s.dropOurs(d); err != nil {
		return err
	}
	if err := s.handle.LinkSetNoMaster(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index, Name: d.name}}); err != nil {
		return err
	}
	_, err := s.reread(d.name)
	return err
}

// dropOurs takes our addresses from a device.
func (s *space) dropOurs(d *device) error {
	for _, a := range slices.Clone(s.addresses[d.index]) {
		if !a.ours(d.name) {
			continue
		}
		if err := s.dropAddress(a); err != nil {
			return fmt.Errorf("address %s of %s: %w", a.prefix, d.name, err)
		}
	}
	return nil
}

func (s *space) dropRoute(r route) error {
	err := s.removeRoute(r)
	if err == nil {
		s.routes = slices.DeleteFunc(s.routes, func(o route) bool { return o == r })
	}
	return err
}

func (s *space) dropAddress(a address) error {
	err := s.removeAddress(a)
	if err == nil {
		s.addresses[a.index] = slices.DeleteFunc(s.addresses[a.index], func(o address) bool { return o == a })
	}
	return err
}

// sorted lists devices so that those that stand on others come first, and VRFs last: what is in
// a VRF must not be out of it before it is gone.
func sorted(devices map[string]*device) []*device {
	order := func(d *device) int {
		switch {
		case d.kind == kindXFRM:
			return 0
		case d.kind == kindVLAN && d.protocol == unix.ETH_P_8021Q:
			return 1
		case d.kind == kindVRF:
			return 3
		default:
			return 2
		}
	}
	list := make([]*device, 0, len(devices))
	for _, d := range devices {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *device) int {
		if c := order(a) - order(b); c != 0 {
			return c
		}
		return a.index - b.index
	})
	return list
}

// sweep removes what this node has made and no realm wants: devices, namespaces, routes of
// VRFs that are gone, rules.
func (n *Networks) sweep() (removed int, err error) {
	devices, paths, tables := make(map[string]bool), make(map[string]bool), make(map[int]bool)
	managed := false
	for _, k := range n.realms {
		if !k.managed() {
			continue
		}
		managed, tables[k.table()] = true, true
		for _, c := range k.claims() {
			devices[c.device] = true // also one that is on its way to the namespace
		}
		if k.tunnelled() {
			paths[NamespacePath(n.node, k.Name)] = true
		}
	}
	var errs []error
	done := func(what, name string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("remove %s %s: %w", what, name, err))
			return
		}
		removed++
		n.log.Info("network object removed: no realm wants it", "kind", what, "name", name)
	}

	v := view{node: n.node}
	var vrfs []*device
	for _, d := range sorted(n.home.devices) {
		switch m, marked := parseMark(d.alias); {
		case !marked || m.node != n.node || devices[d.name] || n.home.devices[d.name] == nil:
		case d.kind == kindVRF:
			vrfs = append(vrfs, d)
		case v.ours(d):
			done("device", d.name, n.home.removeDevice(d))
		}
	}
	for _, d := range vrfs {
		n.home.release(d, done)
		done("device", d.name, n.home.removeDevice(d))
	}
	for _, d := range n.home.devices { // somebody else's VRFs have routes of their own
		if d.kind == kindVRF {
			tables[d.table] = true
		}
	}
	for _, r := range slices.Clone(n.home.routes) {
		if r.proto == protocol && !tables[r.table] {
			done("route", r.words(n.home.names[r.index]), n.home.dropRoute(r))
		}
	}
	if err := n.sweepSpaces(paths, done); err != nil {
		errs = append(errs, err)
	}
	if !managed && !slices.ContainsFunc(sorted(n.home.devices), marked) {
		count, err := n.home.restoreLocal()
		removed += count
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// marked tells a device of this node or another.
func marked(d *device) bool {
	_, ok := parseMark(d.alias)
	return ok
}

// release takes our routes and addresses out of a VRF that is to go, so that interfaces that
// are not ours leave it without them.
func (s *space) release(vrf *device, done func(what, name string, err error)) {
	for _, d := range s.enslaved(vrf) {
		for _, a := range slices.Clone(s.addresses[d.index]) {
			if a.ours(d.name) {
				done("address", a.prefix.String()+" of "+d.name, s.dropAddress(a))
			}
		}
	}
	for _, r := range slices.Clone(s.routes) {
		if r.proto == protocol && r.table == vrf.table {
			done("route", r.words(s.names[r.index]), s.dropRoute(r))
		}
	}
}

// sweepSpaces removes namespaces of this node but those of the paths.
func (n *Networks) sweepSpaces(keep map[string]bool, done func(what, name string, err error)) error {
	paths, err := outerNames(n.node)
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range paths {
		if keep[path] {
			continue
		}
		there, err := isNamespace(path)
		if err != nil || !there {
			continue
		}
		s, err := openSpace(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("network namespace %s: %w", path, err))
			continue
		}
		m, err := s.owner()
		if err == nil && m.node == n.node && path == NamespacePath(m.node, m.realm) {
			if err = n.empty(s); err == nil { // without its name nobody would find what is left
				err = unname(path)
			}
			done("namespace", path, err)
		} else if err != nil {
			done("namespace", path, err)
		}
		s.close()
	}
	return errors.Join(errs...)
}

// empty removes our devices from a namespace: with a process in it, it outlives its name, and
// with it would the VLAN devices, whose tags are needed elsewhere.
func (n *Networks) empty(s *space) error {
	if err := s.readDevices(); err != nil {
		return err
	}
	v := view{node: n.node}
	var errs []error
	for _, d := range sorted(s.devices) {
		if d.name != loopback && v.ours(d) {
			errs = append(errs, s.removeDevice(d))
		}
	}
	return errors.Join(errs...)
}

// Remove takes away everything of a node that Networks has made in the network namespace of
// the calling thread. It returns how many things those were.
func Remove(node string) (removed int, err error) {
	n, err := NewNetworks(node, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	if err := n.home.read(noTable); err != nil {
		return 0, errors.Join(err, n.Close())
	}
	removed, err = n.sweep()
	return removed, errors.Join(err, n.Close())
}
