package realm

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// snapshot is what there is in a network namespace, as it was read.
type snapshot struct {
	devices   map[string]*device
	names     map[int]string
	addresses map[int][]address // by the ifindex of their device
	routes    []route
	rules     []rule
}

// device is a network device as it is.
type device struct {
	name  string
	index int
	// kind is that of IFLA_INFO_KIND, e.g. "vlan".
	kind  string
	alias string
	group uint32
	// parent is the ifindex of the device that it stands on, in the namespace with the id
	// elsewhere, or in its own if that is negative.
	parent, elsewhere int
	master            int
	mtu               int
	up                bool
	// running is false while the device has no carrier.
	running bool

	vlan     uint16
	protocol netlink.VlanProtocol
	// priorities is true if 802.1p priorities are those of the packets, both ways.
	priorities bool
	table      int
	ifID       uint32
}

// hasCarrier reports whether packets come through. The flag is there with the carrier, the state up
// to a second later; dormant (802.1X) and testing are states of devices with one.
func hasCarrier(a *netlink.LinkAttrs) bool {
	return a.RawFlags&unix.IFF_LOWER_UP != 0 && a.OperState != netlink.OperDormant && a.OperState != netlink.OperTesting
}

func newDevice(link netlink.Link) *device {
	a := link.Attrs()
	d := &device{
		name: a.Name, index: a.Index, kind: link.Type(), alias: a.Alias, group: a.Group, parent: a.ParentIndex,
		elsewhere: a.NetNsID, master: a.MasterIndex, mtu: a.MTU, up: a.Flags&net.FlagUp != 0,
		running: hasCarrier(a),
	}
	switch link := link.(type) {
	case *netlink.Vlan:
		d.vlan, d.protocol = uint16(link.VlanId), link.VlanProtocol
		d.priorities = identical(link.IngressQosMap) && identical(link.EgressQosMap)
	case *netlink.Vrf:
		d.table = int(link.Table)
	case *netlink.Xfrmi:
		d.ifID = link.Ifid
	}
	return d
}

// maxPriority is the highest of 802.1p.
const maxPriority = 7

// priorityMap maps each priority to itself.
func priorityMap() map[uint32]uint32 {
	m := make(map[uint32]uint32, maxPriority+1)
	for p := uint32(0); p <= maxPriority; p++ {
		m[p] = p
	}
	return m
}

// identical reports whether a map of the kernel maps each priority to itself; it leaves out
// those that become 0.
func identical(m map[uint32]uint32) bool {
	for p := uint32(0); p <= maxPriority; p++ {
		if m[p] != p {
			return false
		}
	}
	return true
}

// read takes in everything that there is, but only such routes as are in one of the tables,
// or ours; all of them if there are no tables.
func (s *space) read(tables ...int) error {
	if err := s.readDevices(); err != nil {
		return fmt.Errorf("devices: %w", err)
	}
	addresses, err := s.listAddresses()
	if err != nil {
		return fmt.Errorf("addresses: %w", err)
	}
	s.addresses = make(map[int][]address)
	for _, a := range addresses {
		s.addresses[a.index] = append(s.addresses[a.index], a)
	}
	if s.routes, err = s.listRoutes(tables); err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	if s.rules, err = s.listRules(); err != nil {
		return fmt.Errorf("rules: %w", err)
	}
	return nil
}

func (s *space) readDevices() error {
	var links []netlink.Link
	var err error
	for range maxDumps {
		if links, err = s.handle.LinkList(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return err
	}
	s.devices, s.names = make(map[string]*device, len(links)), make(map[int]string, len(links))
	for _, link := range links {
		s.put(newDevice(link))
	}
	return nil
}

func (s *snapshot) put(d *device) { s.devices[d.name], s.names[d.index] = d, d.name }

// reread takes in what became of a device.
func (s *space) reread(name string) (*device, error) {
	link, err := s.handle.LinkByName(name)
	if err != nil {
		return nil, err
	}
	s.forget(name)
	d := newDevice(link)
	s.put(d)
	return d, nil
}

// forget drops a device that is gone.
func (s *snapshot) forget(name string) {
	if d := s.devices[name]; d != nil {
		delete(s.devices, name)
		delete(s.names, d.index)
	}
}

// bury drops a device that is gone, and what went with it.
func (s *snapshot) bury(name string) {
	d := s.devices[name]
	if d == nil {
		return
	}
	s.forget(name)
	delete(s.addresses, d.index)
	s.routes = slices.DeleteFunc(s.routes, func(r route) bool { return r.index == d.index })
}
