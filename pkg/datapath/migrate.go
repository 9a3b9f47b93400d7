package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Maps that are copied, by what their entries belong to. The flow table comes first.
var (
	mapsOfFlows = []string{tandemMapFlows, tandemMapRares, tandemMapPolicies}
	mapsOfHops  = []string{tandemMapHopKeys, tandemMapNextHops}
)

// sums are the counters among the fields of a flow. What was counted on both sides of a
// migration is added up; of every other field the later value counts.
var sums = map[string]bool{
	"counters.packets": true, "counters.bytes": true,
	"refused": true, "out_of_policy": true, "before": true, "lost": true,
	"reordered": true, "duplicated": true, "ssrc_changes": true, "digits": true,
}

// migration copies flows from the generations that devices run on to another one: of each
// device right before its program is replaced. What is counted in the old maps after that is
// added at the end.
type migration struct {
	to     *generation
	spec   *ebpf.CollectionSpec // of the maps of to
	pairs  []pair
	copied []copied
	open   map[*ebpf.Map]*values // of both sides
}

// pair is a realm as it was and as it is now.
type pair struct {
	from     *generation
	old, now aboutRealm
	begun    bool // to be copied
}

// copied is the state of a flow when it was copied, in the new layout.
type copied struct {
	pair
	port  uint16
	state [][]byte // by mapsOfFlows
}

// newMigration finds for each realm where its flows are. It copies nothing yet.
func newMigration(p *pins, to *generation, spec *ebpf.CollectionSpec) *migration {
	m := &migration{to: to, spec: spec, open: map[*ebpf.Map]*values{}}
	for _, now := range to.about.Realms {
		if from, old, ok := p.former(now); ok && from != to {
			m.pairs = append(m.pairs, pair{from: from, old: old, now: now})
		}
	}
	return m
}

// begin opens what is to be copied, so that it is known early whether that can be, and copies the next
// hops.
func (m *migration) begin(live *generation) error {
	for _, p := range m.pairs {
		for _, name := range mapsOfFlows {
			if p.from.maps[name] == nil {
				continue
			}
			if _, err := m.values(p.from, name); err != nil {
				return err
			}
		}
	}
	if m.to == live {
		return nil // some devices were left behind by a crash; the next hops are there
	}
	return m.hops(live)
}

// former finds a realm in the generation that its devices run on; if they run on none,
// in the youngest that is live.
func (p *pins) former(now aboutRealm) (*generation, aboutRealm, bool) {
	for _, running := range []bool{true, false} {
		for _, g := range slices.Backward(p.generations) {
			old, ok := g.about.match(now)
			home, runs := p.home(old)
			if ok && home == g && runs == running {
				return g, old, true
			}
		}
	}
	return nil, aboutRealm{}, false
}

// home is the youngest generation that a device of a realm runs on; if they run on none, the youngest
// that is live.
func (p *pins) home(r aboutRealm) (home *generation, runs bool) {
	for _, place := range r.places() {
		if g := p.running[place.Ifindex]; g != nil && (home == nil || g.number > home.number) {
			home = g
		}
	}
	if home == nil {
		return p.live(), false
	}
	return home, true
}

// match finds a realm by its address and one of its places. Failing that its number will do: somebody
// has changed the device or the VLAN.
func (a about) match(now aboutRealm) (aboutRealm, bool) {
	here := now.places()
	byPlace := func(r aboutRealm) bool {
		return r.Addr == now.Addr && slices.ContainsFunc(r.places(), func(p aboutPlace) bool { return slices.Contains(here, p) })
	}
	byNumber := func(r aboutRealm) bool { return r.Addr == now.Addr && r.Number == now.Number }
	i := slices.IndexFunc(a.Realms, byPlace)
	if i < 0 {
		i = slices.IndexFunc(a.Realms, byNumber)
	}
	if i < 0 {
		return aboutRealm{}, false
	}
	return a.Realms[i], true
}

// hops copies the next hops under their ids.
func (m *migration) hops(from *generation) error {
	realms := map[uint16]uint16{} // numbers, old to new
	for _, now := range m.to.about.Realms {
		if old, ok := from.about.match(now); ok {
			realms[old.Number] = now.Number
		}
	}
	how := map[string][]move{}
	for _, name := range mapsOfHops {
		if from.maps[name] == nil {
			return nil // flows without next hops send nothing
		}
		var err error
		if how[name], err = m.how(from, name); err != nil {
			return err
		}
	}
	keys, hops := m.to.maps[tandemMapHopKeys], m.to.maps[tandemMapNextHops]
	for id := range from.maps[tandemMapHopKeys].MaxEntries() {
		oldKey, err := from.maps[tandemMapHopKeys].LookupBytes(id)
		if err != nil {
			return fmt.Errorf("read the key of next hop %d: %w", id, err)
		}
		var key tandemHopKey
		value := convert(oldKey, how[tandemMapHopKeys], keys.ValueSize())
		if err := binary.Read(bytes.NewReader(value), binary.NativeEndian, &key); err != nil {
			return fmt.Errorf("read the key of next hop %d: %w", id, err)
		}
		if key.Realm = realms[key.Realm]; key.Realm == 0 {
			continue
		}
		old, err := from.maps[tandemMapNextHops].LookupBytes(id)
		if err != nil {
			return fmt.Errorf("read next hop %d: %w", id, err)
		}
		value = convert(old, how[tandemMapNextHops], hops.ValueSize())
		if err := errors.Join(hops.Put(id, value), keys.Put(id, key)); err != nil {
			return fmt.Errorf("write next hop %d: %w", id, err)
		}
	}
	return nil
}

// how the values of a map are carried over.
func (m *migration) how(from *generation, name string) ([]move, error) {
	old, err := layout(from.maps[name], m.spec.Maps[name].Value)
	if err != nil {
		return nil, err
	}
	now, err := layout(m.to.maps[name], m.spec.Maps[name].Value)
	if err != nil {
		return nil, err
	}
	return moves(old, now), nil
}

// device copies the flows of realms that have a point on a device, but for those that were copied for
// another one; with index 0 those of realms that have none.
func (m *migration) device(realms []Realm, ifindex int) error {
	for i := range m.pairs {
		p := &m.pairs[i]
		at := slices.IndexFunc(realms, func(r Realm) bool { return r.Number == p.now.Number })
		here := slices.ContainsFunc(realms[at].Points, func(p Point) bool { return p.Ifindex == ifindex })
		if p.begun || !here && (ifindex != 0 || len(realms[at].Points) != 0) {
			continue
		}
		p.begun = true
		if err := m.flows(*p); err != nil {
			return err
		}
	}
	return nil
}

// flows copies those of a realm.
func (m *migration) flows(p pair) error {
	first, last := max(p.old.First, p.now.First), min(p.old.Last, p.now.Last)
	for port := uint32(first); port <= uint32(last); port++ {
		c := copied{pair: p, port: uint16(port)}
		var err error
		if c.state, err = m.read(c); err != nil {
			return err
		}
		if c.state == nil {
			continue
		}
		for i, name := range mapsOfFlows {
			to, err := m.values(m.to, name)
			if err != nil {
				return err
			}
			copy(to.at(c.now.at(c.port)), c.state[i])
		}
		m.copied = append(m.copied, c)
	}
	return nil
}

// read returns what the old maps have of a flow, in the new layout; nil if there is none.
func (m *migration) read(c copied) ([][]byte, error) {
	state := make([][]byte, len(mapsOfFlows))
	for i, name := range mapsOfFlows {
		size := m.to.maps[name].ValueSize()
		if c.from.maps[name] == nil { // not yet there in that ABI
			state[i] = make([]byte, size)
			continue
		}
		from, err := m.values(c.from, name)
		if err != nil {
			return nil, err
		}
		value := from.at(c.old.at(c.port))
		if i == 0 && binary.NativeEndian.Uint32(value[from.active:]) == 0 {
			return nil, nil
		}
		state[i] = convert(value, from.how, size)
		if name == tandemMapPolicies {
			openLatch(state[i])
		}
	}
	return state, nil
}

// openLatch takes back that a packet is about to win the latch of a policy: that packet writes
// into the old map, and whoever waited for it in the new one would wait for ever.
func openLatch(policy []byte) {
	state := policy[unsafe.Offsetof(tandemPolicy{}.State):]
	if binary.NativeEndian.Uint32(state) == uint32(tandemLatchStateLATCH_LEARNING) {
		binary.NativeEndian.PutUint32(state, uint32(tandemLatchStateLATCH_OPEN))
	}
}

// at is the index of a port in the flow table.
func (r aboutRealm) at(port uint16) uint32 { return r.Flows + uint32(port-r.First) }

// merge adds what was counted in the old maps since their flows were copied. No program may
// use them any more.
func (m *migration) merge() error {
	for i, name := range mapsOfFlows {
		to, err := m.values(m.to, name)
		if err != nil {
			return err
		}
		for _, c := range m.copied {
			late, err := m.read(c)
			if err != nil {
				return err
			}
			if late != nil {
				mergeValue(to.fields, c.state[i], late[i], to.at(c.now.at(c.port)))
			}
		}
	}
	return nil
}

// mergeValue brings into a value what happened to its original since the copy was made.
func mergeValue(fields []field, copied, late, value []byte) {
	for _, f := range fields {
		was, is, now := copied[f.offset:][:f.size], late[f.offset:][:f.size], value[f.offset:][:f.size]
		switch {
		case bytes.Equal(was, is):
		case sums[f.name] && f.size == 8:
			n := binary.NativeEndian.Uint64(is) - binary.NativeEndian.Uint64(was)
			addTo((*uint64)(unsafe.Pointer(&now[0])), n, atomic.AddUint64, atomic.LoadUint64)
		case sums[f.name] && f.size == 4:
			n := binary.NativeEndian.Uint32(is) - binary.NativeEndian.Uint32(was)
			addTo((*uint32)(unsafe.Pointer(&now[0])), n, atomic.AddUint32, atomic.LoadUint32)
		case bytes.Equal(was, now): // else the new program knows better
			copy(now, is)
		}
	}
}

// settle is how long an addition of ours is watched. The program adds without a lock: one
// of its additions may have begun before ours, and overwrites it within nanoseconds.
const settle = time.Microsecond

func addTo[T uint32 | uint64](counter *T, n T, add func(*T, T) T, load func(*T) T) {
	for {
		want := add(counter, n)
		for end := time.Now().Add(settle); time.Now().Before(end); {
		}
		if load(counter) >= want {
			return
		}
	}
}

// values are those of an array map, in memory.
type values struct {
	memory       []byte
	size, stride int
	fields       []field
	how          []move // to those of the migration's target
	active       uint32 // where a flow says whether it is there
}

// values opens a map of flows.
func (m *migration) values(g *generation, name string) (_ *values, err error) {
	in := g.maps[name]
	if v := m.open[in]; v != nil {
		return v, nil
	}
	if in.Type() != ebpf.Array || in.Flags()&unix.BPF_F_MMAPABLE == 0 {
		return nil, fmt.Errorf("%s/%s is not an array that can be mapped into memory", g.dir, name)
	}
	v := &values{size: int(in.ValueSize()), stride: (int(in.ValueSize()) + 7) &^ 7}
	if v.fields, err = layout(in, m.spec.Maps[name].Value); err != nil {
		return nil, err
	}
	if v.how, err = m.how(g, name); err != nil {
		return nil, err
	}
	if name == tandemMapFlows {
		i := slices.IndexFunc(v.fields, func(f field) bool { return f.name == "active" && f.size == 4 })
		if i < 0 {
			return nil, fmt.Errorf("%s/%s: flows that do not say whether they are active", g.dir, name)
		}
		v.active = v.fields[i].offset
	}
	page := unix.Getpagesize()
	length := (int(in.MaxEntries())*v.stride + page - 1) / page * page
	if v.memory, err = unix.Mmap(in.FD(), 0, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("%s/%s: map into memory: %w", g.dir, name, err)
	}
	m.open[in] = v
	return v, nil
}

func (v *values) at(i uint32) []byte { return v.memory[int(i)*v.stride:][:v.size] }

// lost counts the flows of live generations that have no place in the new one.
func (m *migration) lost(p *pins) (int, error) {
	n := -len(m.copied)
	for _, g := range p.generations {
		if g == m.to || g.maps[tandemMapFlows] == nil {
			continue
		}
		from, err := m.values(g, tandemMapFlows)
		if err != nil {
			return 0, err
		}
		for _, r := range g.about.Realms {
			if home, _ := p.home(r); home != g {
				continue
			}
			for port := uint32(r.First); port <= uint32(r.Last); port++ {
				if binary.NativeEndian.Uint32(from.at(r.at(uint16(port)))[from.active:]) != 0 {
					n++
				}
			}
		}
	}
	return n, nil
}

func (m *migration) close() error {
	var errs []error
	for _, v := range m.open {
		errs = append(errs, unix.Munmap(v.memory))
	}
	m.open = nil
	return errors.Join(errs...)
}

// waitForPrograms returns when every program that was running at the call has ended. Programs
// run under RCU, whose grace period this system call waits for; where it may not be used, as with
// nohz_full or under a seccomp filter, no packet takes as long as the sleep.
func waitForPrograms() {
	const membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL of linux/membarrier.h
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); errno != 0 {
		time.Sleep(50 * time.Millisecond)
	}
}
