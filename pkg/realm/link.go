package realm

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Kinds of devices.
const (
	kindInterface = "interface" // somebody else's
	kindVLAN      = "vlan"
	kindVRF       = "vrf"
	kindXFRM      = "xfrm"
)

// link is a network device.
type link struct {
	where
	name string
	// index is the ifindex that it should have if that is free: sockets that are bound to it and
	// the kernel engine's tables then go on working after it was made anew. 0 is any.
	index int
	shape
	// settings are those that it has to have before it is up.
	settings []setting
	// alone means that the interface may have no address but the realm's: it goes into the VRF
	// with all it has.
	alone   bool
	address address
}

// shape is what is compared of a device.
type shape struct {
	kind string
	// parent is the device that it stands on: of a VLAN device at home, of an xfrm interface
	// in the namespace of the outer side.
	parent   string
	vlan     uint16
	protocol netlink.VlanProtocol
	table    int
	ifID     uint32

	// What follows can be changed without making it anew. An empty alias or master and an MTU of 0
	// leave those of an interface as they are.
	alias      string
	master     string
	mtu        int
	priorities bool
	down       bool
}

// same reports whether nothing differs that only a new device can have.
func (s shape) same(o shape) bool {
	return s.kind == o.kind && s.parent == o.parent && s.vlan == o.vlan && s.protocol == o.protocol &&
		s.table == o.table && s.ifID == o.ifID
}

func (s shape) String() string {
	var words []string
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch s.kind {
	case kindVLAN:
		add("%s VLAN %d of %s", s.protocol, s.vlan, s.parent)
		if s.priorities {
			add("priorities 0-7")
		} else {
			add("other priorities")
		}
	case kindVRF:
		add("VRF of table %d", s.table)
	case kindXFRM:
		add("xfrm interface %d on %s", s.ifID, s.parent)
	case kindInterface:
		add("interface")
	default:
		add("%s device", s.kind)
	}
	if s.master != "" {
		add("in %s", s.master)
	}
	if s.mtu != 0 {
		add("MTU %d", s.mtu)
	}
	if s.down {
		add("down")
	} else {
		add("up")
	}
	return strings.Join(words, ", ")
}

func (l link) id() (kind, name string) { return kindLink, l.name }

func (l link) want() string { return l.shape.String() }

func (l link) look(v *view) (have string, ok bool) {
	_, d := v.device(l.where, l.name)
	if d == nil {
		return "", false
	}
	is := l.actual(v, d)
	have = is.String()
	if is.alias != l.alias {
		have += fmt.Sprintf(", alias %q", is.alias)
	}
	return have, is == l.shape && (!l.alone || len(l.strangers(v.home)) == 0)
}

// actual is the shape that a device has, without what this link leaves as it is.
func (l link) actual(v *view, d *device) shape {
	s := shape{
		kind: d.kind, vlan: d.vlan, protocol: d.protocol, table: d.table, ifID: d.ifID, alias: d.alias,
		master: v.in(l.where).names[d.master], mtu: d.mtu, priorities: d.priorities, down: !d.up,
	}
	if l.kind == kindInterface {
		s = shape{kind: kindInterface, master: s.master, mtu: s.mtu, down: s.down}
		if l.master == "" {
			s.master = ""
		}
	}
	if l.mtu == 0 {
		s.mtu = 0
	}
	switch {
	case l.kind == kindVLAN && (d.elsewhere >= 0) == bool(l.where): // it stands on a device at home
		s.parent = v.home.names[d.parent]
	case l.kind == kindXFRM && v.inOuter(d):
		s.parent = v.outer.names[d.parent]
	case l.kind == kindVLAN, l.kind == kindXFRM:
		s.parent = "a device elsewhere"
	}
	return s
}

// outerID is how the kernel numbers the namespace of the outer side at home; -1 is not at all.
func (v *view) outerID() (int, error) {
	id, err := v.home.handle.GetNetNsIdByFd(int(v.outer.file.Fd()))
	if err != nil {
		return -1, fmt.Errorf("number of network namespace %s: %w", NamespaceName(v.node, v.realm), err)
	}
	return id, nil
}

// inOuter reports whether what a device at home stands on is in the namespace of the outer side.
func (v *view) inOuter(d *device) bool {
	if v.outer == nil || d.elsewhere < 0 {
		return false
	}
	id, err := v.outerID() // makeable has the error before anything comes of it
	return err == nil && d.elsewhere == id
}

func (l link) mend(v *view) error {
	in, d := v.device(l.where, l.name)
	if in == nil {
		return errWaiting
	}
	if l.kind == kindInterface {
		return l.mendInterface(v, in, d)
	}
	if d != nil && !v.ours(d) {
		return fmt.Errorf("a device %s is there and %w: remove it with: ip link delete %s, or say network: existing",
			l.name, errForeign, l.name)
	}
	if d == nil || !l.actual(v, d).same(l.shape) {
		if err := l.makeable(v); err != nil {
			return err
		}
		if d != nil {
			if err := l.discard(v, in, d); err != nil {
				return fmt.Errorf("remove the former %s: %w", l.name, err)
			}
		}
		if err := l.make(v); err != nil {
			return err
		}
		v.made = true
		var err error
		if l.kind == kindVRF { // with the first one the kernel makes a rule
			if in.rules, err = in.listRules(); err != nil {
				return err
			}
		}
		if d, err = in.reread(l.name); err != nil {
			return err
		}
		if err := (sysctls{where: l.where, device: l.name, list: l.settings}).write(in); err != nil {
			return err
		}
	}
	if err := l.adjust(v, in, d); err != nil {
		return err
	}
	_, err := in.reread(l.name)
	return err
}

func (l link) mendInterface(v *view, in *space, d *device) error {
	if d == nil {
		return fmt.Errorf("interface %s does not exist; `ip link` lists those that do", l.name)
	}
	if l.master != "" && d.master != 0 && in.names[d.master] != l.master {
		return fmt.Errorf("interface %s belongs to %s: take it out with: ip link set %s nomaster", l.name, in.names[d.master], l.name)
	}
	if strangers := l.strangers(in); l.alone && len(strangers) > 0 {
		return fmt.Errorf("interface %s has addresses that would go into the realm's VRF with it (%s): take them away, or say network: existing",
			l.name, strings.Join(strangers, ", "))
	}
	if err := (sysctls{where: l.where, device: l.name, list: l.settings}).write(in); err != nil {
		return err
	}
	if err := l.adjust(v, in, d); err != nil {
		return err
	}
	_, err := in.reread(l.name)
	return err
}

// strangers are addresses of the interface that the realm has not.
func (l link) strangers(in *space) []string {
	var list []string
	d := in.devices[l.name]
	if d == nil {
		return nil
	}
	for _, a := range in.addresses[d.index] {
		if a.prefix != l.address.prefix && !a.ours(l.name) {
			list = append(list, a.prefix.String())
		}
	}
	return list
}

// makeable tells what stands in the way of making the device, before a former one is removed.
func (l link) makeable(v *view) error {
	switch l.kind {
	case kindVRF:
		if d := l.rival(v); d != nil && !v.ours(d) {
			return fmt.Errorf("table %d is that of the VRF %s, which %w: remove it, or begin the realm's media_ports at another port",
				l.table, d.name, errForeign)
		}
	case kindVLAN:
		if _, parent := v.fit(home, l.parent); parent == nil {
			return errWaiting
		}
	case kindXFRM:
		if _, parent := v.fit(outer, l.parent); parent == nil {
			return errWaiting
		}
		_, err := v.outerID()
		return err
	}
	return nil
}

// rival is another VRF that has the table, or nil.
func (l link) rival(v *view) *device {
	for _, d := range v.home.devices {
		if d.kind == kindVRF && d.table == l.table && d.name != l.name {
			return d
		}
	}
	return nil
}

// discard removes a device, after what is in it if it is a VRF was stopped.
func (l link) discard(v *view, in *space, d *device) error {
	if d.kind == kindVRF {
		for _, slave := range in.enslaved(d) {
			if err := v.quarantine(in, slave); err != nil {
				return err
			}
		}
	}
	return in.removeDevice(d)
}

// quarantine stops traffic of a device that is outside of its VRF, where all of the host would be
// in its reach: our addresses go, and a device of ours is set down. An interface that is not
// ours stays up, since others may stand on it; without an address it takes nothing (rp_filter).
func (v *view) quarantine(in *space, d *device) error {
	if err := in.dropOurs(d); err != nil {
		return err
	}
	if !v.ours(d) || !d.up {
		return nil
	}
	if err := in.handle.LinkSetDown(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index, Name: d.name}}); err != nil {
		return fmt.Errorf("set down %s: %w", d.name, err)
	}
	d.up = false
	return nil
}

// make makes the device where it belongs; it is down, and has its name and little else.
func (l link) make(v *view) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = l.name, protocol
	if v.home.names[l.index] == "" && v.in(l.where).names[l.index] == "" {
		attrs.Index = l.index
	}
	var err error
	switch l.kind {
	case kindVLAN:
		err = l.makeVLAN(v, attrs)
	case kindVRF:
		if l.rival(v) != nil { // another realm's, which gets a table of its own in this pass too
			return errWaiting
		}
		err = v.home.handle.LinkAdd(&netlink.Vrf{LinkAttrs: attrs, Table: uint32(l.table)})
	case kindXFRM:
		err = l.makeXFRM(v, attrs)
	}
	if isErrno(err, unix.EOPNOTSUPP) {
		feature, module := l.feature()
		return fmt.Errorf("the kernel has no %s for %s: load it with: modprobe %s, or make the realm's devices yourself and say network: existing: %w",
			feature, l.name, module, err)
	}
	return err
}

// feature is what a kernel has to have for the device.
func (l link) feature() (name, module string) {
	switch l.kind {
	case kindVLAN:
		return "802.1Q VLAN devices", "8021q"
	case kindVRF:
		return "VRF", "vrf"
	default:
		return "xfrm interfaces", "xfrm_interface"
	}
}

func (l link) makeVLAN(v *view, attrs netlink.LinkAttrs) error {
	parent := v.home.devices[l.parent]
	attrs.ParentIndex = parent.index
	d := v.home.devices[l.name]
	if d == nil || l.where == home {
		err := v.home.handle.LinkAdd(&netlink.Vlan{
			LinkAttrs: attrs, VlanId: int(l.vlan), VlanProtocol: l.protocol, IngressQosMap: priorityMap(), EgressQosMap: priorityMap(),
		})
		switch {
		case isErrno(err, unix.EEXIST):
			return fmt.Errorf("%s VLAN %d of %s is %s's, which %w: remove that device, or say network: existing",
				l.protocol, l.vlan, l.parent, v.home.holder(parent.index, l.vlan, l.protocol), errForeign)
		case err != nil:
			return err
		}
		if l.where == home {
			return nil
		}
		if d, err = v.home.reread(l.name); err != nil {
			return err
		}
	} else if !v.ours(d) {
		return fmt.Errorf("a device %s is there and %w: remove it with: ip link delete %s", l.name, errForeign, l.name)
	}
	return v.move(d, v.home, v.outer)
}

// holder names the device that has a tag.
func (s *snapshot) holder(parent int, vlan uint16, protocol netlink.VlanProtocol) string {
	for _, d := range s.devices {
		if d.kind == kindVLAN && d.parent == parent && d.elsewhere < 0 && d.vlan == vlan && d.protocol == protocol {
			return d.name
		}
	}
	return "a device in another network namespace"
}

// makeXFRM makes the interface where its security associations are, and moves it home.
func (l link) makeXFRM(v *view, attrs netlink.LinkAttrs) error {
	d := v.outer.devices[l.name]
	if d == nil {
		attrs.ParentIndex = v.outer.devices[l.parent].index
		err := v.outer.handle.LinkAdd(&netlink.Xfrmi{LinkAttrs: attrs, Ifid: l.ifID})
		if err == nil {
			d, err = v.outer.reread(l.name)
		}
		if err != nil {
			return err
		}
	}
	return v.move(d, v.outer, v.home)
}

// move takes a device to another namespace.
func (v *view) move(d *device, from, to *space) error {
	err := from.handle.LinkSetNsFd(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index}}, int(to.file.Fd()))
	if err != nil {
		return fmt.Errorf("move %s to %s: %w", d.name, to.file.Name(), err)
	}
	from.bury(d.name)
	return nil
}

// adjust changes what differs.
func (l link) adjust(v *view, in *space, d *device) error {
	at := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index, Name: d.name}}
	if l.alias != "" && d.alias != l.alias {
		if err := in.handle.LinkSetAlias(at, l.alias); err != nil {
			return fmt.Errorf("alias: %w", err)
		}
	}
	if err := l.enslave(v, in, d); err != nil {
		return err
	}
	if l.mtu != 0 && d.mtu != l.mtu {
		if err := in.handle.LinkSetMTU(at, l.mtu); err != nil {
			return fmt.Errorf("MTU %d, which may not be more than that of %s: %w", l.mtu, l.parent, err)
		}
	}
	if l.priorities && !d.priorities {
		// By name alone: with the index too, Linux 6.1 takes it for a renaming, and refuses that while it is up.
		if err := in.handle.LinkModify(&netlink.Vlan{
			LinkAttrs: netlink.LinkAttrs{Name: d.name, TxQLen: -1}, VlanId: int(l.vlan),
			IngressQosMap: priorityMap(), EgressQosMap: priorityMap(),
		}); err != nil {
			return fmt.Errorf("802.1p priorities: %w", err)
		}
	}
	if !d.up {
		if err := in.handle.LinkSetUp(at); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	return nil
}

// enslave puts the device into its VRF. One that cannot be there is stopped.
func (l link) enslave(v *view, in *space, d *device) error {
	if l.master == "" {
		return nil
	}
	_, vrf := v.fit(l.where, l.master)
	inside := in.names[d.master] == l.master
	switch {
	case vrf != nil && inside:
		return nil
	case vrf == nil && inside:
		return errWaiting
	}
	err := errWaiting
	if vrf != nil {
		at := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index, Name: d.name}}
		if err = in.handle.LinkSetMasterByIndex(at, vrf.index); err == nil {
			return nil
		}
		err = fmt.Errorf("enslave to %s: %w", l.master, err)
	}
	if e := v.quarantine(in, d); e != nil {
		return e
	}
	return err
}

// removeDevice deletes a device; one that is gone already is no error.
func (s *space) removeDevice(d *device) error {
	err := s.handle.LinkDel(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: d.index, Name: d.name}})
	if isErrno(err, unix.ENODEV) || errors.As(err, &netlink.LinkNotFoundError{}) {
		err = nil
	}
	if err == nil {
		s.bury(d.name)
	}
	return err
}
