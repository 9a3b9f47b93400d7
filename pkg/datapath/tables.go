package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
)

// tables are what the programs know of devices and tags: a device has the entries of its 4096 VLANs in
// realms, one without link layer has one; so has each pair of tags.
type tables struct {
	devices map[int]uint32 // interface index to the index in realms of its VLAN 0
	realms  map[uint32]tandemRealm
	tags    map[tandemDoubleTag]uint32 // index in realms
}

func newTables() tables {
	return tables{devices: map[int]uint32{}, realms: map[uint32]tandemRealm{}, tags: map[tandemDoubleTag]uint32{}}
}

// spots are the entries of realms: those of whole devices first, then single ones.
type spots struct {
	devices, single uint32
}

func (s spots) entries() uint32 { return s.devices*vlans + s.single }

// spotsOf takes the number of entries apart again; there are fewer single ones than a device has.
func spotsOf(entries uint32) spots { return spots{entries / vlans, entries % vlans} }

const (
	// devicesInRoom are the devices with a link layer that may be added to those of the start.
	devicesInRoom = 4
	// singlesInRoom are the tunnels and pairs of tags that a realm may come to have.
	singlesInRoom = 4
	maxSingles    = vlans - 64
)

// spotsFor is how many the realms need, with room for others that Update may bring: 96 KiB a device.
func spotsFor(realms []Realm) spots {
	devices, singles := map[int]bool{}, map[int]bool{}
	var pairs uint32
	for _, r := range realms {
		for _, p := range r.Points {
			switch {
			case p.Bare:
				singles[p.Ifindex] = true
			default:
				devices[p.Ifindex] = true
				if p.OuterVLAN != 0 {
					pairs++
				}
			}
		}
	}
	n := uint32(len(devices)) + devicesInRoom
	return spots{
		devices: (n + devicesInRoom - 1) / devicesInRoom * devicesInRoom,
		single:  min(inSteps(max(uint32(len(singles))+pairs, singlesInRoom*uint32(len(realms)))), maxSingles),
	}
}

// layOut makes the tables for realms. What was there before stays where it is, so that running calls do
// not notice, and nothing is put where something was: a packet may still be reading it.
func (t tables) layOut(room spots, realms []Realm, places map[uint16]place) (tables, error) {
	next := newTables()
	taken := t.taken()
	free := func(first, step, n uint32) (uint32, bool) {
		for i := range n {
			if at := first + i*step; !taken[at] {
				taken[at] = true
				return at, true
			}
		}
		return 0, false
	}
	single := room.devices * vlans
	for _, r := range realms {
		for _, p := range r.Points {
			at, known := next.devices[p.Ifindex]
			if !known {
				at, known = t.devices[p.Ifindex]
				known = known && (at >= single) == p.Bare
			}
			if !known && p.Bare {
				at, known = free(single, 1, room.single)
			} else if !known {
				at, known = free(0, vlans, room.devices)
			}
			if !known {
				return tables{}, errNoRoom
			}
			next.devices[p.Ifindex] = at
			at += uint32(p.VLAN)
			if p.OuterVLAN != 0 {
				tags := tandemDoubleTag{Device: uint32(p.Ifindex), Outer: p.OuterVLAN, Inner: p.VLAN}
				if at, known = t.tags[tags]; !known {
					if at, known = free(single, 1, room.single); !known {
						return tables{}, errNoRoom
					}
				}
				next.tags[tags] = at
			}
			next.realms[at] = toRealm(r, p, places[r.Number])
		}
	}
	return next, nil
}

var errNoRoom = errors.New("more devices than the tables of the kernel engine have room for: " +
	"restart the gateway, which carries the calls over")

// taken are the entries of realms in use, those of a device by its first.
func (t tables) taken() map[uint32]bool {
	taken := map[uint32]bool{}
	for _, at := range t.devices {
		taken[at] = true
	}
	for _, at := range t.tags {
		taken[at] = true
	}
	return taken
}

func toRealm(r Realm, p Point, at place) tandemRealm {
	value := tandemRealm{
		Addr:      addr4(r.Addr),
		Number:    r.Number,
		SipPort:   r.SIPPort,
		FirstPort: r.Media.First,
		LastPort:  r.Media.Last,
		Flows:     at.flows,
	}
	if p.Underlay {
		value.Flags = tandemRealmFlagREALM_UNDERLAY
	}
	return value
}

// readTables reads what maps say that were found.
func readTables(objs *tandemObjects) (tables, error) {
	t := newTables()
	ingress, err := arrayOf[tandemIngress](objs.Ingress)
	if err != nil {
		return tables{}, err
	}
	for ifindex, in := range ingress {
		if in.Realms != 0 {
			t.devices[ifindex] = in.Realms - 1
		}
	}
	realms, err := arrayOf[tandemRealm](objs.Realms)
	if err != nil {
		return tables{}, err
	}
	for at, r := range realms {
		if r != (tandemRealm{}) {
			t.realms[uint32(at)] = r
		}
	}
	var tags tandemDoubleTag
	var at uint32
	entries := objs.DoubleTagged.Iterate()
	for entries.Next(&tags, &at) {
		t.tags[tags] = at
	}
	if err := entries.Err(); err != nil {
		return tables{}, fmt.Errorf("read %s: %w", objs.DoubleTagged, err)
	}
	return t, nil
}

// arrayOf reads a whole array.
func arrayOf[V any](m *ebpf.Map) ([]V, error) {
	keys, values := make([]uint32, m.MaxEntries()), make([]V, m.MaxEntries())
	var at ebpf.MapBatchCursor
	n, err := m.BatchLookup(&at, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // the end
		return nil, fmt.Errorf("read %s: %w", m, err)
	}
	if n != len(values) || slices.Max(keys) != uint32(n-1) {
		return nil, fmt.Errorf("read %s: %d of %d entries", m, n, len(values))
	}
	return values, nil
}

// enter writes what is new: a device's realms before the device leads to them. Entries that lead to
// another realm now are cleared in between, so that no packet sees half of each.
func (t tables) enter(objs *tandemObjects, next tables) error {
	for at, value := range next.realms {
		was := t.realms[at]
		if was == value {
			continue
		}
		if was != (tandemRealm{}) {
			if err := objs.Realms.Put(at, tandemRealm{}); err != nil {
				return fmt.Errorf("realm %d: %w", was.Number, err)
			}
		}
		if err := objs.Realms.Put(at, value); err != nil {
			return fmt.Errorf("realm %d: %w", value.Number, err)
		}
		t.realms[at] = value
	}
	for tags, at := range next.tags {
		if was, known := t.tags[tags]; known && was == at {
			continue
		}
		if err := objs.DoubleTagged.Put(tags, at); err != nil {
			return fmt.Errorf("device %d: tags %d and %d: %w", tags.Device, tags.Outer, tags.Inner, err)
		}
		t.tags[tags] = at
	}
	for ifindex, at := range next.devices {
		if was, known := t.devices[ifindex]; known && was == at {
			continue
		}
		if err := objs.Ingress.Put(uint32(ifindex), tandemIngress{Realms: at + 1}); err != nil {
			return fmt.Errorf("device %d: %w", ifindex, err)
		}
		t.devices[ifindex] = at
	}
	return nil
}

// shut closes the devices that are gone out: their packets are the stack's.
func (t tables) shut(objs *tandemObjects, next tables) error {
	for ifindex := range t.devices {
		if _, stays := next.devices[ifindex]; stays {
			continue
		}
		if err := objs.Ingress.Put(uint32(ifindex), tandemIngress{}); err != nil {
			return fmt.Errorf("device %d: %w", ifindex, err)
		}
		delete(t.devices, ifindex)
	}
	return nil
}

// clear removes what no device leads to any more, and the places that have no realm.
func (t tables) clear(objs *tandemObjects, next tables) error {
	for tags := range t.tags {
		if _, stays := next.tags[tags]; stays {
			continue
		}
		if err := objs.DoubleTagged.Delete(tags); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("device %d: tags %d and %d: %w", tags.Device, tags.Outer, tags.Inner, err)
		}
		delete(t.tags, tags)
	}
	for at, was := range t.realms {
		if _, stays := next.realms[at]; stays {
			continue
		}
		if err := objs.Realms.Put(at, tandemRealm{}); err != nil {
			return fmt.Errorf("realm %d: %w", was.Number, err)
		}
		delete(t.realms, at)
	}
	return nil
}
