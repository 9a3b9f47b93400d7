package datapath

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// Maps of Go's own, that no program reads.
const (
	mapAbout = "about"
	mapUndo  = "undo"
)

// mapSet are maps by name.
type mapSet map[string]*ebpf.Map

// close may be called more than once.
func (s mapSet) close() error {
	var errs []error
	for _, m := range s {
		errs = append(errs, m.Close())
	}
	clear(s)
	return errors.Join(errs...)
}

// about says what a generation of maps was made for, so that it can be read without
// knowing the layout of any other map.
type about struct {
	ABI    int
	Netns  uint64 // cookie of the network namespace
	Realms []aboutRealm
}

// aboutRealm is what flows are found by: a realm's places, address and media ports, and the
// index of the first of these in the flow table. What is written stays as it is, whatever
// becomes of Realm: the first place is where it was when a realm had just one.
type aboutRealm struct {
	Number, VLAN, OuterVLAN uint16
	Ifindex                 int // 0: no place
	Addr                    netip.Addr
	First, Last             uint16
	Flows                   uint32
	More                    []aboutPlace `json:",omitempty"`
}

// aboutPlace is a device, and the tags of the frames there.
type aboutPlace struct {
	Ifindex         int
	VLAN, OuterVLAN uint16
}

// places are all of them.
func (r aboutRealm) places() []aboutPlace {
	if r.Ifindex == 0 {
		return nil
	}
	return append([]aboutPlace{{r.Ifindex, r.VLAN, r.OuterVLAN}}, r.More...)
}

// aboutRoom is what a realm may take in writing, in bytes: twice what one with 16 places does, so that
// realms with other places need no other map.
const aboutRoom = 2048

// text is a in writing.
func (a about) text() ([]byte, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("describe the maps: %w", err)
	}
	size := aboutRoom * (1 + len(a.Realms))
	if len(text) > size {
		return nil, fmt.Errorf("describe the maps: %d bytes do not fit %d", len(text), size)
	}
	return append(text, make([]byte, size-len(text))...), nil
}

// spec is a map that holds a.
func (a about) spec() (*ebpf.MapSpec, error) {
	text, err := a.text()
	if err != nil {
		return nil, err
	}
	return &ebpf.MapSpec{
		Name: mapAbout, Type: ebpf.Array, KeySize: 4, ValueSize: uint32(len(text)), MaxEntries: 1,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: text}},
	}, nil
}

func readAbout(m *ebpf.Map) (a about, err error) {
	text, err := m.LookupBytes(uint32(0))
	if err == nil {
		err = json.Unmarshal([]byte(strings.TrimRight(string(text), "\x00")), &a)
	}
	if err != nil {
		return about{}, err
	}
	return a, nil
}

// generation is one pinned set of maps. It is live while an attached program uses it;
// one that no program uses was left by a crash, and is rubbish.
type generation struct {
	number int
	dir    string
	maps   mapSet
	about  about
}

// names of the maps in the order of pinning: what they are for comes first.
func (g *generation) names() []string {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(g.maps)), func(name string) bool { return name == mapAbout })
	if g.maps[mapAbout] == nil {
		return names
	}
	return append([]string{mapAbout}, names...)
}

func readGeneration(dir string, number int, log *slog.Logger) (_ *generation, err error) {
	g := &generation{number: number, dir: dir, maps: mapSet{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.maps.close())
		}
	}()
	files, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dir, f.Name()), nil)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(dir, f.Name()), err)
		}
		g.maps[f.Name()] = m
	}
	if m := g.maps[mapAbout]; m != nil { // none if a crash came before it was pinned
		if g.about, err = readAbout(m); err != nil {
			log.Error("FLOWS END: it cannot be read what the pinned maps are for", "pins", dir, "reason", err)
		}
	}
	return g, nil
}

// ids of the maps.
func (g *generation) ids() (map[ebpf.MapID]bool, error) {
	ids := map[ebpf.MapID]bool{}
	for name, m := range g.maps {
		id, err := mapID(m)
		if err != nil {
			return nil, fmt.Errorf("%s/%s: %w", g.dir, name, err)
		}
		ids[id] = true
	}
	return ids, nil
}

func mapID(m *ebpf.Map) (ebpf.MapID, error) {
	info, err := m.Info()
	if err != nil {
		return 0, err
	}
	id, ok := info.ID()
	if !ok {
		return 0, errors.New("the kernel tells no map ids")
	}
	return id, nil
}

// mapsOf lists the maps that a program in the kernel uses.
func mapsOf(id ebpf.ProgramID) ([]ebpf.MapID, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", id, err)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return nil, fmt.Errorf("program %d: %w", id, err)
	}
	used, ok := info.MapIDs()
	if !ok {
		return nil, fmt.Errorf("program %d: the kernel does not tell its maps", id)
	}
	return used, nil
}
