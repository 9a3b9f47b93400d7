package realm

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// inet is an IPv4 address of a device.
type inet struct {
	where
	device string
	prefix netip.Prefix
	// label marks it on a device that is not ours.
	label string
}

func (a inet) id() (kind, name string) { return kindAddress, a.prefix.Addr().String() + " " + a.device }

func (a inet) want() string { return fmt.Sprintf("%s on %s", a.prefix, a.device) }

func (a inet) look(v *view) (have string, ok bool) {
	in, d := v.device(a.where, a.device)
	if d == nil {
		return "", false
	}
	for _, is := range in.addresses[d.index] {
		if is.prefix == a.prefix {
			return a.want(), true
		}
	}
	return "", false
}

func (a inet) mend(v *view) error {
	in, d := v.fit(a.where, a.device)
	if d == nil {
		return errWaiting
	}
	is := address{index: d.index, prefix: a.prefix, label: a.label, proto: protocol}
	if err := in.addAddress(is); err != nil && !isErrno(err, unix.EEXIST) {
		return err
	}
	in.addresses[d.index] = append(in.addresses[d.index], is)
	return nil
}

// way is a route.
type way struct {
	where
	device string // "" for one that leads nowhere
	route
	// kernels is true for one that the kernel makes of an address: whoever made it, it will do.
	kernels bool
}

// key is what the kernel tells routes of one table apart by.
type key struct {
	table    int
	to       netip.Prefix
	priority uint32
}

func (r route) key() key { return key{r.table, r.to, r.priority} }

func (w way) id() (kind, name string) {
	name = w.destination()
	if w.typ == unix.RTN_LOCAL {
		name = "local " + name
	}
	if w.priority != 0 {
		name += fmt.Sprintf(" metric %d", w.priority)
	}
	if w.where == outer {
		name += " (outer side)"
		if w.table != unix.RT_TABLE_MAIN {
			name += fmt.Sprintf(" table %d", w.table)
		}
	}
	return kindRoute, name
}

func (r route) destination() string {
	if r.to.Bits() == 0 {
		return "default"
	}
	return r.to.String()
}

// words says a route by the name of its device.
func (r route) words(device string) string {
	words := []string{}
	switch r.typ {
	case unix.RTN_UNICAST:
	case unix.RTN_LOCAL:
		words = append(words, "local")
	case unix.RTN_UNREACHABLE:
		words = append(words, "unreachable")
	default:
		words = append(words, fmt.Sprintf("type %d", r.typ))
	}
	words = append(words, r.destination())
	if r.via.IsValid() {
		words = append(words, "via "+r.via.String())
	}
	if device != "" {
		words = append(words, "dev "+device)
	}
	if r.src.IsValid() {
		words = append(words, "src "+r.src.String())
	}
	return strings.Join(append(words, fmt.Sprintf("table %d", r.table)), " ")
}

func (w way) want() string { return w.words(w.device) }

// index is the ifindex of the route's device; ok is false while there is none.
func (w way) index(v *view) (in *space, index int, ok bool) {
	if w.device == "" {
		in = v.in(w.where)
		return in, 0, in != nil
	}
	in, d := v.device(w.where, w.device)
	if d == nil {
		return in, 0, false
	}
	return in, d.index, d.up
}

func (w way) look(v *view) (have string, ok bool) {
	in := v.in(w.where)
	if in == nil {
		return "", false
	}
	_, index, _ := w.index(v)
	for _, is := range in.routes {
		if is.key() != w.key() {
			continue
		}
		if w.satisfied(is, index) {
			return w.want(), true
		}
		if have == "" {
			have = is.words(in.names[is.index])
		}
	}
	return have, false
}

// satisfied reports whether a route of the kernel is this one.
func (w way) satisfied(is route, index int) bool {
	if is.typ != w.typ || is.via != w.via || w.device != "" && is.index != index {
		return false
	}
	return w.kernels || is.src == w.src && is.proto == protocol
}

func (w way) mend(v *view) error {
	in, index, ok := w.index(v)
	if !ok || v.unfit[spot{w.where, w.device}] {
		return errWaiting
	}
	r := w.route
	r.index, r.proto = index, protocol
	change := in.addRoute
	for _, is := range in.routes {
		switch {
		case is.key() != r.key():
		case is.proto == protocol:
			change = in.replaceRoute
		case !w.kernels:
			return fmt.Errorf("a route %q %w: remove it with: ip route delete %s",
				is.words(in.names[is.index]), errForeign, is.words(in.names[is.index]))
		}
	}
	if err := change(r); err != nil && !isErrno(err, unix.EEXIST) {
		return err
	}
	in.routes = slices.DeleteFunc(in.routes, func(is route) bool { return is.key() == r.key() && is.proto == protocol })
	in.routes = append(in.routes, r)
	return nil
}

// choice is a rule of policy routing in the namespace of the outer side.
type choice struct{ rule }

func (c choice) id() (kind, name string) { return kindRule, fmt.Sprintf("%d (outer side)", c.priority) }

func (r rule) String() string {
	words := []string{fmt.Sprintf("%d:", r.priority)}
	if r.from.Bits() > 0 {
		words = append(words, "from "+r.from.String())
	}
	if r.to.Bits() > 0 {
		words = append(words, "to "+r.to.String())
	}
	switch {
	case r.l3mdev:
		words = append(words, "lookup [l3mdev-table]")
	case r.action == actionTable && r.table == unix.RT_TABLE_LOCAL:
		words = append(words, "lookup local")
	case r.action == actionTable:
		words = append(words, fmt.Sprintf("lookup %d", r.table))
	default:
		words = append(words, fmt.Sprintf("action %d", r.action))
	}
	return strings.Join(words, " ")
}

func (c choice) want() string { return c.rule.String() }

func (c choice) look(v *view) (have string, ok bool) {
	if v.outer == nil || !slices.Contains(v.outer.rules, c.rule) {
		return "", false
	}
	return c.want(), true
}

func (c choice) mend(v *view) error {
	if v.outer == nil {
		return errWaiting
	}
	if err := v.outer.addRule(c.rule); err != nil && !isErrno(err, unix.EEXIST) {
		return err
	}
	v.outer.rules = append(v.outer.rules, c.rule)
	return nil
}

// Priorities of rules at home.
const (
	vrfPriority   = 1000 // the kernel's own for VRFs
	localPriority = 32765
)

// vrfFirst is the rule that looks into the tables of VRFs, which the kernel makes with the
// first VRF.
type vrfFirst struct{}

func (vrfFirst) id() (kind, name string) { return kindRule, "VRF" }

func (vrfFirst) rule() rule {
	return rule{priority: vrfPriority, from: everywhere, to: everywhere, action: actionTable, l3mdev: true, proto: protocol}
}

func (f vrfFirst) want() string { return f.rule().String() }

func (f vrfFirst) look(v *view) (have string, ok bool) {
	for _, r := range v.home.rules {
		if r.l3mdev && r.from.Bits()+r.to.Bits() == 0 && !r.others {
			return r.String(), r.priority <= vrfPriority
		}
	}
	return "", false
}

func (f vrfFirst) mend(v *view) error {
	if err := v.home.addRule(f.rule()); err != nil && !isErrno(err, unix.EEXIST) {
		return err
	}
	v.home.rules = append(v.home.rules, f.rule())
	return nil
}

// localLast has the host's own addresses looked up behind the VRFs': else a packet of a
// carrier to the management address would be delivered, whatever device it came by (N6; the
// kernel's Documentation/networking/vrf.rst).
type localLast struct{}

func (localLast) id() (kind, name string) { return kindRule, "local" }

func (localLast) rule() rule {
	return rule{priority: localPriority, from: everywhere, to: everywhere, action: actionTable, table: unix.RT_TABLE_LOCAL, proto: protocol}
}

func (l localLast) want() string { return l.rule().String() + ", none before the VRFs" }

// local tells rules that look up the host's own addresses.
func (r rule) local() bool {
	return r.action == actionTable && !r.l3mdev && r.table == unix.RT_TABLE_LOCAL
}

func (l localLast) look(v *view) (have string, ok bool) {
	behind, before := "", ""
	for _, r := range v.home.rules {
		switch {
		case !r.local():
		case r.priority > vrfPriority:
			behind = r.String()
		case before == "":
			before = r.String()
		}
	}
	if before != "" {
		return before, false
	}
	return behind, behind != ""
}

// mend adds the new rule before it takes away the old one: a host without loses its own addresses.
func (l localLast) mend(v *view) error {
	if !slices.ContainsFunc(v.home.rules, func(r rule) bool { return r.local() && r.priority > vrfPriority }) {
		if err := v.home.addRule(l.rule()); err != nil && !isErrno(err, unix.EEXIST) {
			return err
		}
		v.home.rules = append(v.home.rules, l.rule())
	}
	for _, r := range slices.Clone(v.home.rules) {
		switch {
		case !r.local() || r.priority > vrfPriority:
		case r.priority != 0:
			return fmt.Errorf("rule %q %w, and has carriers reach the host's own addresses: remove it with: ip rule delete pref %d",
				r, errForeign, r.priority)
		default:
			if err := v.home.removeRule(r); err != nil {
				return err
			}
			v.home.rules = slices.DeleteFunc(v.home.rules, func(o rule) bool { return o == r })
		}
	}
	return nil
}

// restoreLocal gives the host its rules back.
func (s *space) restoreLocal() (removed int, err error) {
	i := slices.IndexFunc(s.rules, func(r rule) bool { return r.local() && r.proto == protocol })
	if i >= 0 {
		first := rule{from: everywhere, to: everywhere, action: actionTable, table: unix.RT_TABLE_LOCAL, proto: unix.RTPROT_KERNEL}
		if err := s.addRule(first); err != nil && !isErrno(err, unix.EEXIST) {
			return 0, fmt.Errorf("rule for the host's own addresses: %w", err)
		}
	}
	for _, r := range s.rules {
		if r.proto != protocol || !r.local() && !r.l3mdev {
			continue
		}
		if err := s.removeRule(r); err != nil {
			return removed, fmt.Errorf("rule %s: %w", r, err)
		}
		removed++
	}
	return removed, nil
}
