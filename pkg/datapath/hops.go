package datapath

import (
	"fmt"
	"log/slog"
	"net/netip"
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
	source  NextHopSource
	table   *ebpf.Map
	devices map[int]uint16 // ifindex -> slot in the kernel's device map
	log     *slog.Logger

	mu    sync.Mutex
	ids   *slots
	byKey map[hopKey]*hop // nil when stopped
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
	value tandemNextHop
	ready chan struct{} // closed while resolved
}

func newHops(source NextHopSource, table *ebpf.Map, devices map[int]uint16, log *slog.Logger) *hops {
	return &hops{
		source:  source,
		table:   table,
		devices: devices,
		log:     log,
		ids:     newSlots(table.MaxEntries()),
		byKey:   map[hopKey]*hop{},
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
	if err := t.table.Put(id, tandemNextHop{}); err != nil {
		t.retire(h)
		return nil, fmt.Errorf("empty next hop %d: %w", id, err)
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
	if h.gone {
		return
	}
	way := h.table.way(h.key, next)
	if way == h.value.Way[h.value.Active] {
		return
	}
	resolved := way.Len != 0
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

// way is the kernel's form of a next hop. What the program cannot send is unresolved:
// its packets are dropped.
func (t *hops) way(key hopKey, next call.NextHop) tandemWay {
	if len(next.L2) == 0 {
		return tandemWay{}
	}
	device, ok := t.devices[next.Ifindex]
	if !ok {
		t.log.Warn("next hop leaves by a device without a realm", "realm", key.realm, "ifindex", next.Ifindex)
		return tandemWay{}
	}
	switch len(next.L2) {
	case 14, 18, 22: // with 0, 1, 2 VLAN tags
	default:
		t.log.Warn("next hop has no Ethernet header", "realm", key.realm, "length", len(next.L2))
		return tandemWay{}
	}
	way := tandemWay{Len: uint8(len(next.L2)), Device: device}
	copy(way.L2[:], next.L2)
	return way
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
