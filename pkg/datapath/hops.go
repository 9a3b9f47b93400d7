package datapath

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// NextHopSource knows how frames leave a realm towards an address. Package realm
// implements it.
type NextHopSource interface {
	// Watch calls update at once with what is known and again at each change, one call
	// at a time, until stop. It does not block on resolution. dst is IPv4.
	Watch(realm uint16, dst netip.Addr, update func(call.NextHop)) (stop func(), err error)
}

type hopKey struct {
	realm uint16
	dst   netip.Addr
}

// hops is the next-hop table: one kernel entry per destination in use, shared by the
// flows that go there and kept fresh by the source.
type hops struct {
	source NextHopSource
	table  *ebpf.Map
	keys   *ebpf.Map // what the entries lead to, for a successor
	realms map[uint16]place
	log    *slog.Logger

	mu      sync.Mutex
	ids     *slots
	byKey   map[hopKey]*hop // nil when stopped
	devices map[int]bool    // that XDP can redirect to: replaced, never changed. Under serving
	serving sync.RWMutex
}

// hop is one entry. Its own lock orders updates against its end, and is never held
// while the source is called.
type hop struct {
	table *hops
	key   hopKey
	id    uint16
	refs  int // under table.mu
	stop  func()

	mu    sync.Mutex
	gone  bool
	told  call.NextHop // by the source
	value tandemNextHop
	ready chan struct{} // closed while resolved
}

func newHops(source NextHopSource, objs *tandemObjects, realms map[uint16]place, log *slog.Logger) *hops {
	return &hops{
		source: source,
		table:  objs.NextHops,
		keys:   objs.HopKeys,
		realms: realms,
		log:    log,
		ids:    newSlots(objs.NextHops.MaxEntries()),
		byKey:  map[hopKey]*hop{},
	}
}

// acquire returns the entry for a destination, watching it from the first user on.
func (t *hops) acquire(key hopKey) (*hop, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey == nil {
		return nil, ErrClosed
	}
	if h := t.byKey[key]; h != nil {
		h.refs++
		return h, nil
	}
	id := t.ids.get(time.Now())
	if id == 0 {
		return nil, fmt.Errorf("%w: no more than %d destinations at a time", ErrFull, t.ids.size-1)
	}
	h := &hop{table: t, key: key, id: uint16(id), refs: 1, ready: make(chan struct{})}
	h.value.Source = addr4(t.realms[key.realm].Addr)
	if err := h.write(); err != nil {
		t.retire(h)
		return nil, err
	}
	stop, err := t.source.Watch(key.realm, key.dst, h.update)
	if err != nil {
		t.retire(h)
		return nil, fmt.Errorf("next hop to %s in realm %d: %w", key.dst, key.realm, err)
	}
	h.stop = stop
	t.byKey[key] = h
	return h, nil
}

// write makes the kernel's entry anew.
func (h *hop) write() error {
	if err := h.table.table.Put(uint32(h.id), h.value); err != nil {
		return fmt.Errorf("next hop %d: %w", h.id, err)
	}
	key := tandemHopKey{Addr: addr4(h.key.dst), Realm: h.key.realm}
	if err := h.table.keys.Put(uint32(h.id), key); err != nil {
		return fmt.Errorf("key of next hop %d: %w", h.id, err)
	}
	return nil
}

// adopt takes over the entry that a former process left under an id. Packets go on by it;
// the source is asked anew.
func (t *hops) adopt(id uint16) (*hop, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var left tandemHopKey
	if err := t.keys.Lookup(uint32(id), &left); err != nil {
		return nil, fmt.Errorf("key of next hop %d: %w", id, err)
	}
	key := hopKey{realm: left.Realm, dst: netip.AddrFrom4(left.Addr)}
	if h := t.byKey[key]; h != nil {
		if h.id != id {
			return nil, fmt.Errorf("next hops %d and %d lead to the same destination", h.id, id)
		}
		h.refs++
		return h, nil
	}
	h := &hop{table: t, key: key, id: id, refs: 1, ready: make(chan struct{})}
	if err := t.table.Lookup(uint32(id), &h.value); err != nil {
		return nil, fmt.Errorf("next hop %d: %w", id, err)
	}
	if !t.ids.take(uint32(id)) {
		return nil, fmt.Errorf("next hop %d leads to two destinations", id)
	}
	h.value.Active &= 1
	if h.value.Way[h.value.Active].Kind != tandemWayKindWAY_NONE {
		close(h.ready)
	}
	stop, err := t.source.Watch(key.realm, key.dst, h.update)
	if err != nil {
		t.retire(h)
		return nil, fmt.Errorf("next hop to %s in realm %d: %w", key.dst, key.realm, err)
	}
	h.stop = stop
	t.byKey[key] = h
	return h, nil
}

// release gives an entry back; the last user's ends the watch.
func (t *hops) release(h *hop) {
	t.mu.Lock()
	h.refs--
	last := h.refs == 0 && t.byKey[h.key] == h // not if stopAll was first
	if last {
		delete(t.byKey, h.key)
		t.retire(h)
	}
	t.mu.Unlock()
	if last {
		h.stop()
	}
}

// retire ends an entry's updates. Its header stays until the id is given out again: the
// last packets that were sent by it may be reading it. The caller holds t.mu.
func (t *hops) retire(h *hop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	t.ids.put(uint32(h.id), time.Now())
	if err := t.keys.Put(uint32(h.id), tandemHopKey{}); err != nil {
		t.log.Error("key of a next hop not cleared", "id", h.id, "error", err)
	}
}

// stopAll ends every watch; the kernel's entries go with their map.
func (t *hops) stopAll() {
	t.mu.Lock()
	all := t.byKey
	t.byKey = nil
	t.mu.Unlock()
	for _, h := range all {
		h.mu.Lock()
		h.gone = true
		h.mu.Unlock()
		h.stop()
	}
}

// update writes what the source knows. The new header goes into the way that packets do
// not use, then the ways are swapped: none is ever sent with half a header.
func (h *hop) update(next call.NextHop) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = next
	h.apply()
}

// again looks at what the source said last: its device may be a realm's by now, or not any more.
func (h *hop) again() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told.Ifindex != 0 {
		h.apply()
	}
}

// apply brings the kernel's entry in step. The caller holds h.mu.
func (h *hop) apply() {
	if h.gone {
		return
	}
	way := h.table.way(h.key, h.told)
	if way == h.value.Way[h.value.Active] {
		return
	}
	resolved := way.Kind == tandemWayKindWAY_LINK || way.Kind == tandemWayKindWAY_BARE
	value, idle := h.value, 1-h.value.Active
	value.Way[idle] = way
	err := h.table.table.Put(uint32(h.id), value)
	if err == nil {
		value.Active = idle
		err = h.table.table.Put(uint32(h.id), value)
	}
	if err != nil {
		h.table.log.Error("next hop not written", "realm", h.key.realm, "error", err)
		return
	}
	h.value = value
	select {
	case <-h.ready:
		if !resolved {
			h.ready = make(chan struct{})
		}
	default:
		if resolved {
			close(h.ready)
		}
	}
}

// way is the kernel's form of a next hop. What the programs cannot send is no way: its
// packets are dropped.
func (t *hops) way(key hopKey, next call.NextHop) tandemWay {
	switch len(next.L2) {
	case 0:
		return t.wayWithoutHeader(next)
	case 14, 18, 22: // with 0, 1, 2 VLAN tags
	default:
		t.log.Warn("next hop has no Ethernet header", "realm", key.realm, "length", len(next.L2))
		return tandemWay{}
	}
	if !t.isDevice(next.Ifindex) {
		t.log.Warn("next hop leaves by a device without a realm", "realm", key.realm, "ifindex", next.Ifindex)
		return tandemWay{}
	}
	way := tandemWay{Kind: tandemWayKindWAY_LINK, Len: uint8(len(next.L2)), Device: uint32(next.Ifindex)}
	copy(way.L2[:], next.L2)
	return way
}

// wayWithoutHeader is how packets leave by a device that has no link layer, or by the
// kernel's own neighbour table while the header is not known.
func (t *hops) wayWithoutHeader(next call.NextHop) tandemWay {
	switch {
	case next.Bare && next.Ifindex > 0:
		way := tandemWay{Kind: tandemWayKindWAY_BARE, Device: uint32(next.Ifindex)}
		way.L2 = bareWay(netip.Addr{}, next)
		return way
	case next.Neighbour.Unmap().Is4() && next.NeighbourIfindex > 0:
		way := tandemWay{Kind: tandemWayKindWAY_NEIGHBOUR, Device: uint32(next.NeighbourIfindex)}
		way.L2 = bareWay(next.Neighbour, next)
		return way
	}
	return tandemWay{}
}

// isDevice reports whether XDP can redirect to a device: those of realms.
func (t *hops) isDevice(ifindex int) bool {
	t.serving.RLock()
	defer t.serving.RUnlock()
	return t.devices[ifindex]
}

// serve tells which devices XDP can redirect to. Next hops by a device that was none before are known
// already.
func (t *hops) serve(devices map[int]bool) {
	t.serving.Lock()
	t.devices = devices
	t.serving.Unlock()
	t.mu.Lock()
	all := slices.Collect(maps.Values(t.byKey))
	t.mu.Unlock()
	for _, h := range all {
		h.again()
	}
}

// wait returns when every hop is resolved or the time is over, whichever comes first.
func (t *hops) wait(hs []*hop, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, h := range hs {
		if h == nil {
			continue
		}
		h.mu.Lock()
		ready := h.ready
		h.mu.Unlock()
		select {
		case <-ready:
		case <-timer.C:
			return
		}
	}
}
