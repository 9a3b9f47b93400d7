package datapath

import (
	"bytes"
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// changing names the maps whose contents are no configuration, or are brought in step at each
// start. All others must be the same for pinned maps to fit.
var changing = map[string]bool{
	tandemMapRealms: true, tandemMapDoubleTagged: true, tandemMapDevices: true, mapAbout: true,
	tandemMapFlows: true, tandemMapRares: true, tandemMapPolicies: true, tandemMapNextHops: true, tandemMapHopKeys: true,
	tandemMapIngress: true, tandemMapPeers: true, tandemMapDeny: true, tandemMapStrangers: true,
	tandemMapExits: true, tandemMapReadings: true, tandemMapEvents: true,
}

// newAbout says what a generation of maps for these realms is for.
func newAbout(realms []Realm, places map[uint16]place, s *space) about {
	what := about{ABI: ABI, Netns: s.cookie}
	for _, r := range realms {
		now := aboutRealm{
			Number: r.Number, Addr: r.Addr.Unmap(), First: r.Media.First, Last: r.Media.Last, Flows: places[r.Number].flows,
		}
		for i, p := range r.Points {
			if i == 0 {
				now.Ifindex, now.VLAN, now.OuterVLAN = p.Ifindex, p.VLAN, p.OuterVLAN
			} else {
				now.More = append(now.More, aboutPlace{p.Ifindex, p.VLAN, p.OuterVLAN})
			}
		}
		what.Realms = append(what.Realms, now)
	}
	return what
}

// describe writes down where the realms are now, for the next process.
func (e *Engine) describe(realms []Realm) error {
	e.target.about = newAbout(realms, e.realms, e.space)
	text, err := e.target.about.text()
	if err != nil {
		return err
	}
	if err := e.target.maps[mapAbout].Put(uint32(0), text); err != nil {
		return fmt.Errorf("describe the maps: %w", err)
	}
	return nil
}

// moves reports whether a realm's flows would lie elsewhere in the table, or be another realm's.
func (a about) moves(now about) bool {
	return len(a.Realms) != len(now.Realms) || slices.ContainsFunc(now.Realms, func(r aboutRealm) bool {
		was, known := a.match(r)
		return !known || was.Number != r.Number || was.First != r.First || was.Last != r.Last || was.Flows != r.Flows
	})
}

// nextHops is how many the live maps have room for: ids in use stay what they are.
func (p *pins) nextHops() uint32 {
	if p == nil {
		return 0
	}
	if g := p.live(); g != nil && g.maps[tandemMapNextHops] != nil {
		return g.maps[tandemMapNextHops].MaxEntries()
	}
	return 0
}

// choose sets the maps to run on: those of the live generation if they are just like the fresh
// ones, else the fresh ones. Then what is in the live ones is to be copied.
func (e *Engine) choose(spec *ebpf.CollectionSpec) error {
	live, fresh := e.pins.live(), e.target
	if live == nil {
		// What is there belongs to devices that are gone, or to nothing since a crash.
		if err := e.pins.keepOnly(nil, e.step); err != nil {
			return err
		}
		return e.pins.begin(fresh, e.step)
	}
	difference, err := live.differs(spec, fresh)
	if err != nil {
		return err
	}
	if difference == "" {
		e.target = live
		e.log.Info("the kernel engine goes on with the flows it has found", "pins", live.dir)
		if err := fresh.maps.close(); err != nil {
			return err
		}
		if e.pins.uniform() {
			return nil
		}
	} else {
		e.log.Info("the kernel engine copies the flows it has found", "pins", live.dir, "because", difference)
		if err := e.pins.begin(fresh, e.step); err != nil {
			return err
		}
	}
	e.migration = newMigration(e.pins, e.target, spec)
	if err := e.migration.begin(live); err != nil {
		e.log.Error("FLOWS END: what is pinned cannot be carried over", "pins", live.dir, "reason", err)
		err := e.migration.close()
		e.migration = nil
		return err
	}
	return nil
}

// differs says in what a generation is not as a fresh one, "" if it is.
func (g *generation) differs(spec *ebpf.CollectionSpec, fresh *generation) (string, error) {
	if g.about.ABI != fresh.about.ABI {
		return fmt.Sprintf("ABI %d became %d", g.about.ABI, fresh.about.ABI), nil
	}
	if g.about.moves(fresh.about) {
		return "the realms are others", nil
	}
	for _, name := range shared(spec) {
		there, now := g.maps[name], fresh.maps[name]
		if there == nil {
			return "map " + name + " is new", nil
		}
		if err := spec.Maps[name].Compatible(there); err != nil {
			return fmt.Sprintf("map %s: %s", name, err), nil
		}
		was, err := layout(there, spec.Maps[name].Value)
		if err != nil {
			return "", err
		}
		is, err := layout(now, spec.Maps[name].Value)
		if err != nil {
			return "", err
		}
		if !slices.Equal(was, is) {
			return "map " + name + " has other fields", nil
		}
		if changing[name] {
			continue
		}
		same, err := sameContents(there, now)
		if err != nil {
			return "", fmt.Errorf("compare map %s: %w", name, err)
		}
		if !same {
			return "map " + name + " has other contents", nil
		}
	}
	return "", nil
}

// sameContents compares two maps of one type and size.
func sameContents(a, b *ebpf.Map) (bool, error) {
	if a.Type() == ebpf.Array || a.Type() == ebpf.DevMap {
		for i := range a.MaxEntries() {
			if same, err := sameEntry(a, b, i); !same || err != nil {
				return false, err
			}
		}
		return true, nil
	}
	entries := 0
	var key, value []byte
	in := a.Iterate()
	for in.Next(&key, &value) {
		if same, err := sameEntry(a, b, key); !same || err != nil {
			return false, err
		}
		entries++
	}
	if err := in.Err(); err != nil {
		return false, err
	}
	in = b.Iterate()
	for in.Next(&key, &value) {
		entries--
	}
	return entries == 0, in.Err()
}

func sameEntry(a, b *ebpf.Map, key any) (bool, error) {
	one, err := a.LookupBytes(key) // nil if there is none
	if err != nil {
		return false, err
	}
	other, err := b.LookupBytes(key)
	return bytes.Equal(one, other), err
}

// complete ends a start: what was counted in old maps meanwhile is added, what is no longer in
// use is removed, and it is asserted that the programs are ours and run on the pinned maps.
func (e *Engine) complete() error {
	if err := e.dropLinks(); err != nil {
		return err
	}
	if err := e.leave(); err != nil {
		return err
	}
	if e.pins == nil {
		return nil
	}
	if err := e.verify(); err != nil {
		return err
	}
	if e.migration != nil && len(e.migration.copied) > 0 {
		waitForPrograms()
		e.step("wait")
		if err := e.migration.merge(); err != nil {
			return err
		}
		e.step("merge")
	}
	if e.migration != nil {
		lost, err := e.migration.lost(e.pins)
		if err != nil {
			return err
		}
		if lost > 0 {
			e.log.Warn("flows end: their realms or ports are not configured any more", "flows", lost)
		}
		err = e.migration.close()
		e.migration = nil
		if err != nil {
			return err
		}
	}
	return e.pins.keepOnly(e.target, e.step)
}

// dropLinks takes our programs of former times off devices that have no realm any more.
func (e *Engine) dropLinks() error {
	if e.pins == nil {
		return nil
	}
	for name := range maps.Clone(e.pins.links) {
		if err := e.pins.drop(name); err != nil {
			return err
		}
		e.step("leave " + name)
	}
	return nil
}

// verify asserts that on each hook runs the program of this process, by what the link says and by
// what the device does, and that the maps it uses are the pinned ones.
func (e *Engine) verify() error {
	for _, h := range e.hooks {
		id, err := h.program()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", h.Device, h.Hook, err)
		}
		info, err := h.prog.Info()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", h.Device, h.Hook, err)
		}
		if ours, _ := info.ID(); ours != id {
			return fmt.Errorf("%s: %s: program %d is attached instead of ours, %d", h.Device, h.Hook, id, ours)
		}
		if h.Ifindex != 0 {
			here, err := e.space.runs(station{h.Hook, h.Ifindex, id})
			if err != nil {
				return fmt.Errorf("%s: %s: %w", h.Device, h.Hook, err)
			}
			if !here {
				return fmt.Errorf("%s: %s: program %d is attached, but not to the device that is here", h.Device, h.Hook, id)
			}
		}
		source := e.spec.Programs[tandemProgTandemTc]
		switch h.Hook {
		case hookXDP:
			source = e.spec.Programs[tandemProgTandemXdp]
		case hookPoll:
			source = e.spec.Programs[tandemProgTandemBurst]
		}
		if err := e.verifyMaps(id, source); err != nil {
			return fmt.Errorf("%s: %s: %w", h.Device, h.Hook, err)
		}
	}
	return nil
}

func (e *Engine) verifyMaps(id ebpf.ProgramID, source *ebpf.ProgramSpec) error {
	used, err := mapsOf(id)
	if err != nil {
		return err
	}
	names := map[string]bool{}
	for _, ins := range source.Instructions {
		if ins.IsLoadFromMap() {
			names[ins.Reference()] = true
		}
	}
	if len(used) != len(names) {
		return fmt.Errorf("the attached program uses %d maps, not %d", len(used), len(names))
	}
	for name := range names {
		pinned := e.target.maps[name]
		if pinned == nil {
			continue // settings of this program
		}
		id, err := mapID(pinned)
		if err != nil {
			return fmt.Errorf("map %s: %w", name, err)
		}
		if !slices.Contains(used, id) {
			return fmt.Errorf("the attached program does not use the pinned map %s", name)
		}
	}
	return nil
}

// adopt makes the flows known that were found.
func (e *Engine) adopt() {
	if e.pins == nil {
		return
	}
	e.adoptFlows()
	e.adopted = slices.SortedFunc(maps.Keys(e.flows), func(a, b call.FlowKey) int {
		return cmp.Or(cmp.Compare(a.Realm, b.Realm), a.Local.Compare(b.Local))
	})
	if len(e.adopted) > 0 {
		e.log.Info("flows adopted", "flows", len(e.adopted))
	}
}
