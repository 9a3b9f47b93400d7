package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var (
	u16 = &btf.Int{Name: "unsigned short", Size: 2}
	u32 = &btf.Int{Name: "unsigned int", Size: 4}
	u64 = &btf.Int{Name: "unsigned long long", Size: 8}
)

// structOf lays members out one behind the other.
func structOf(name string, members ...btf.Member) *btf.Struct {
	s := &btf.Struct{Name: name}
	for _, m := range members {
		size, _ := btf.Sizeof(m.Type)
		m.Offset = btf.Bits(s.Size) * 8
		s.Size += uint32(size)
		s.Members = append(s.Members, m)
	}
	return s
}

// oldMap is a map with values of a type.
func oldMap(t *testing.T, value *btf.Struct) *ebpf.Map {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Array, KeySize: 4, ValueSize: value.Size, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE, Key: u32, Value: value,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m
}

// TestLayoutsByName: a value is carried into another layout by the names of its fields, as they are in
// the kernel's copy of the type; what is new is zero, what is gone is left behind.
func TestLayoutsByName(t *testing.T) {
	newPins(t) // skips without root
	way := func(first, second string) *btf.Struct {
		return structOf("way", btf.Member{Name: first, Type: u16}, btf.Member{Name: second, Type: u16})
	}
	old := oldMap(t, structOf("hop",
		btf.Member{Name: "retired", Type: u64},
		btf.Member{Name: "count", Type: u32},
		btf.Member{Name: "addr", Type: &btf.Array{Type: &btf.Int{Size: 1}, Index: u32, Nelems: 4}},
		btf.Member{Name: "ways", Type: &btf.Array{Type: way("port", "vlan"), Index: u32, Nelems: 2}},
	))
	now := structOf("hop",
		btf.Member{Name: "ways", Type: &btf.Array{Type: way("vlan", "port"), Index: u32, Nelems: 3}},
		btf.Member{Name: "fresh", Type: u32},
		btf.Member{Name: "addr", Type: &btf.Array{Type: &btf.Int{Size: 1}, Index: u32, Nelems: 4}},
		btf.Member{Name: "count", Type: u64},
	)
	from, err := layout(old, now)
	if err != nil {
		t.Fatal(err)
	}
	to, err := layout(oldMap(t, now), now)
	if err != nil {
		t.Fatal(err)
	}
	value := []byte{
		9, 9, 9, 9, 9, 9, 9, 9, // retired
		1, 2, 3, 4, // count
		192, 0, 2, 1,
		10, 11, 20, 21, 30, 31, 40, 41, // port, vlan; port, vlan
	}
	want := []byte{
		20, 21, 10, 11, 40, 41, 30, 31, 0, 0, 0, 0, // one way more
		0, 0, 0, 0, // fresh
		192, 0, 2, 1,
		1, 2, 3, 4, 0, 0, 0, 0, // wider
	}
	if got := convert(value, moves(from, to), now.Size); !bytes.Equal(got, want) {
		t.Errorf("\ngot  %v\nwant %v", got, want)
	}
	if fields, err := layout(old, structOf("renamed")); err != nil || len(fields) != 0 {
		t.Errorf("a type that was not there has fields %v (%v)", fields, err)
	}
}

// TestSumsAreFields: what is added up when flows are copied are fields of the maps of today.
func TestSumsAreFields(t *testing.T) {
	spec, err := loadTandem()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range mapsOfFlows {
		fields, err := appendFields(nil, "", 0, spec.Maps[name].Value)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range fields {
			found[f.name] = true
		}
	}
	for name := range sums {
		if !found[name] {
			t.Errorf("no flow has a field %s", name)
		}
	}
}

// TestMerge: what the old program did to a flow after the copy is not lost: counters are added; of all
// else the new program's word counts, if it has said one.
func TestMerge(t *testing.T) {
	fields := []field{{"counters.packets", 0, 8}, {"digits", 8, 4}, {"counters.highest", 12, 4}, {"rule[0].remote_port", 16, 2}, {"counters.state", 18, 1}}
	value := func(packets uint64, digits, highest uint32, port uint16, state byte) []byte {
		b := make([]byte, 24)
		binary.NativeEndian.PutUint64(b, packets)
		binary.NativeEndian.PutUint32(b[8:], digits)
		binary.NativeEndian.PutUint32(b[12:], highest)
		binary.NativeEndian.PutUint16(b[16:], port)
		b[18] = state
		return b
	}
	copied, late := value(100, 3, 70100, 5000, 1), value(107, 4, 70107, 6000, 1)
	for _, tt := range []struct {
		name      string
		now, want []byte
	}{
		{"no packet since", value(100, 3, 70100, 5000, 1), value(107, 4, 70107, 6000, 1)},
		{"packets since", value(110, 3, 70117, 5000, 3), value(117, 4, 70117, 6000, 3)},
	} {
		mergeValue(fields, copied, late, tt.now)
		if !bytes.Equal(tt.now, tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %v", tt.name, tt.now, tt.want)
		}
	}
}

// TestCopiedLatchIsOpen: whoever wins a latch while its policy is copied writes into the old map; the copy
// waits for the next one, and takes over who has won when the old programs have ended.
func TestCopiedLatchIsOpen(t *testing.T) {
	for state, want := range map[tandemLatchState]tandemLatchState{
		tandemLatchStateLATCH_CLOSED: tandemLatchStateLATCH_CLOSED, tandemLatchStateLATCH_OPEN: tandemLatchStateLATCH_OPEN,
		tandemLatchStateLATCH_LEARNING: tandemLatchStateLATCH_OPEN, tandemLatchStateLATCH_LOCKED: tandemLatchStateLATCH_LOCKED,
	} {
		policy := tandemPolicy{Until: 1, State: state}
		openLatch(unsafe.Slice((*byte)(unsafe.Pointer(&policy)), unsafe.Sizeof(policy)))
		if policy.State != want {
			t.Errorf("state %d became %d, want %d", state, policy.State, want)
		}
	}
}

// TestRealmsMatch: a realm is found again by its place and address, whatever its number is by now.
func TestRealmsMatch(t *testing.T) {
	realm := func(number, vlan uint16, ifindex int) aboutRealm {
		return aboutRealm{Number: number, VLAN: vlan, Ifindex: ifindex, Addr: platformAddr}
	}
	was := about{Realms: []aboutRealm{realm(1, 0, 7), realm(2, 201, 7), realm(3, 202, 8)}}
	for _, tt := range []struct {
		name string
		now  aboutRealm
		want uint16
	}{
		{"as it was", realm(2, 201, 7), 2},
		{"another realm in front", realm(3, 201, 7), 2},
		{"another VLAN", realm(2, 300, 7), 2},
		{"another device", realm(3, 202, 9), 3},
		{"new", realm(4, 300, 7), 0},
	} {
		if got, _ := was.match(tt.now); got.Number != tt.want {
			t.Errorf("%s: realm %d, want %d", tt.name, got.Number, tt.want)
		}
	}
}

// older makes the types of the maps those of an ABI that never was: flows and their rare parts are
// longer, and a counter has another name.
func older(spec *ebpf.CollectionSpec) {
	for _, name := range []string{tandemMapFlows, tandemMapRares} {
		now := spec.Maps[name].Value.(*btf.Struct)
		was := &btf.Struct{Name: now.Name, Size: now.Size + 8, Members: slices.Clone(now.Members)}
		for i, m := range was.Members {
			if m.Name == "digits" {
				was.Members[i].Name = "keys_pressed"
			}
		}
		was.Members = append(was.Members, btf.Member{Name: "retired", Type: u64, Offset: btf.Bits(now.Size) * 8})
		spec.Maps[name].Value, spec.Maps[name].ValueSize = was, was.Size
	}
}

// leaveOlder does what an engine of an older ABI does: it forwards flows in maps of its own layout, and
// its process ends.
func (w *wire) leaveOlder(t *testing.T, cfg Config, flows []call.Flow) {
	t.Helper()
	e := &Engine{log: slog.New(slog.DiscardHandler), step: func(string) {}}
	must := func(err error) {
		if err != nil {
			t.Error(err)
			panic(err)
		}
	}
	w.gateway.Do(func() {
		var err error
		e.space, err = openSpace()
		must(err)
		e.pins, err = openPins(cfg.Pins, e.space, e.log)
		must(err)
		e.undo = e.pins.undo
		spec, err := plan(planSizes(cfg.MaxCalls, cfg.Realms, 0), Guard{})
		must(err)
		older(spec)
		set, err := newMaps(spec)
		must(err)
		e.realms = placesOf(cfg.Realms)
		what := newAbout(cfg.Realms, e.realms, e.space)
		what.ABI = 0
		aboutSpec, err := what.spec()
		must(err)
		set[mapAbout], err = ebpf.NewMap(aboutSpec)
		must(err)
		spec.Maps[mapAbout] = aboutSpec
		e.target = &generation{maps: set, about: what}
		must(e.pins.begin(e.target, e.step))
		e.objs, err = load(spec, set)
		must(err)
		e.tables, e.hops = newTables(), newHops(w.hops, e.objs, e.realms, e.log)
		unfit, err := e.arrange(cfg.Realms)
		must(errors.Join(unfit, err))
		text, err := what.text() // not of today's engine
		must(err)
		must(set[mapAbout].Put(uint32(0), text))
		for i, f := range flows {
			id := uint32(i + 1)
			hop := tandemNextHop{Source: addr4(f.Source.Addr())}
			l2 := w.hops.byRealm[f.OutRealm]
			hop.Way[0] = tandemWay{Kind: tandemWayKindWAY_LINK, Len: uint8(len(l2.L2)), Device: uint32(l2.Ifindex)}
			copy(hop.Way[0].L2[:], l2.L2)
			must(e.objs.NextHops.Put(id, hop))
			must(e.objs.HopKeys.Put(id, tandemHopKey{Addr: addr4(f.Dest.Addr()), Realm: f.OutRealm}))
			flow := tandemFlow{Active: 1, Former: 1}
			flow.Rule[0] = toRule(f, uint16(id))
			value := append(slices.Clone(unsafe.Slice((*byte)(unsafe.Pointer(&flow)), unsafe.Sizeof(flow))), make([]byte, 8)...)
			must(e.objs.Flows.Put(e.realms[f.Key.Realm].flow(f.Key.Local.Port()), value))
		}
		for _, ifindex := range deviceList(e.here) {
			must(e.attach(ifindex, false))
		}
	})
	if err := e.letGo(); err != nil {
		t.Fatal(err)
	}
}

// TestOtherABI: flows that an engine of another ABI has left, in maps of another layout, are carried over
// under 20,000 packets per second. None is lost, and each is counted.
func TestOtherABI(t *testing.T) {
	w := newWire(t)
	cfg := w.config(newPins(t))
	flows := twoWay()
	w.leaveOlder(t, cfg, flows[:2])
	s := w.newStream(t)
	s.advance(t, packetRate/10)
	var log bytes.Buffer
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	e := w.start(t, cfg)
	wantAdopted(t, e, flows[:2])
	if want := fmt.Sprintf("ABI 0 became %d", ABI); !strings.Contains(log.String(), want) {
		t.Errorf("%q is not said: %s", want, log.String())
	}
	if err := e.Install(flows); err != nil { // a re-INVITE: the counters go on
		t.Fatal(err)
	}
	s.advance(t, packetRate/10)
	sent := s.end(t)
	stats, err := e.Remove(keys(flows))
	if err != nil {
		t.Fatal(err)
	}
	if got := stats[0]; got.Packets != uint64(sent) || got.Lost != 0 || got.Digits != 0 {
		t.Errorf("%d packets were sent, counted are %+v", sent, got)
	}
	if got := generationsIn(t, cfg.Pins); !slices.Equal(got, []string{"2"}) {
		t.Errorf("generations %v are pinned", got)
	}
	shut(t, e)
	w.unload(t, cfg.Pins)
}
