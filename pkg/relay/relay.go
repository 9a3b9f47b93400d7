// Package relay is the user-space media engine: it forwards RTP and RTCP through
// plain UDP sockets. It serves where the kernel engine (package datapath) cannot
// run, with the same contract, the same source check and the same counters.
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// ErrClosed means that the engine was closed before.
var ErrClosed = errors.New("media relay is closed")

// Realm says where the sockets of a realm are bound.
type Realm struct {
	// Number is the realm's number in flow keys.
	Number uint16
	// Device is what the sockets are bound to (SO_BINDTODEVICE), so that a packet of
	// one realm can neither come in nor leave through another; empty for any device.
	Device string
}

// Config is what an Engine works with.
type Config struct {
	Realms []Realm
	// Log may be nil.
	Log *slog.Logger
}

// Engine forwards media in user space. It implements media.Engine; its methods may
// be called from any goroutine.
type Engine struct {
	// realms by number; they do not change.
	realms     map[uint16]*realm
	log        *slog.Logger
	batches    sync.Pool // of *batch
	refusals   *refusals
	events     chan call.MediaEvent
	eventsLost atomic.Uint64

	mu sync.Mutex
	// sockets by the realm and address they are bound to. A flow holds the one it
	// reads from and the one it leaves by, which is where the opposite flow arrives.
	sockets map[call.FlowKey]*socket
	flows   map[call.FlowKey]*flow
	closed  bool
}

// realm is a Realm with its counters.
type realm struct {
	device string
	exits  exits
}

// New returns an Engine without flows.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		realms:   make(map[uint16]*realm, len(cfg.Realms)),
		log:      cfg.Log,
		batches:  sync.Pool{New: func() any { return newBatch() }},
		refusals: newRefusals(),
		events:   make(chan call.MediaEvent, maxEvents),
		sockets:  make(map[call.FlowKey]*socket),
		flows:    make(map[call.FlowKey]*flow),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	for _, r := range cfg.Realms {
		if e.realms[r.Number] != nil {
			return nil, fmt.Errorf("realm %d given twice", r.Number)
		}
		e.realms[r.Number] = &realm{device: r.Device}
	}
	return e, nil
}

// Install puts all flows in place or none. A flow whose key is there already is
// updated in place: it keeps its socket and its counters.
func (e *Engine) Install(flows []call.Flow) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return ErrClosed
	}
	paths := make([]*path, 0, len(flows))
	seen := make(map[call.FlowKey]bool, len(flows))
	for _, f := range flows {
		f = canonical(f)
		p, err := e.open(f)
		if err == nil {
			paths = append(paths, p)
			if seen[f.Key] {
				err = errors.New("given twice")
			}
		}
		if err != nil {
			e.release(paths)
			return fmt.Errorf("flow to %v in realm %d: %w", f.Key.Local, f.Key.Realm, err)
		}
		seen[f.Key] = true
	}
	// From here on nothing fails. The sockets are all open before the first flow
	// forwards, so no packet sees half a call.
	now := time.Now()
	var replaced []*path
	for _, p := range paths {
		f := e.flows[p.flow.Key]
		if f == nil {
			f = newFlow(p.flow.Key)
		}
		if old := f.install(p, now); old != nil {
			replaced = append(replaced, old)
		}
		e.place(f.key, f)
	}
	e.release(replaced)
	return nil
}

// place has packets to key, and RTCP that shares the port below, find f; nil for none.
func (e *Engine) place(key call.FlowKey, f *flow) {
	if f == nil {
		delete(e.flows, key)
	} else {
		e.flows[key] = f
	}
	if s := e.sockets[key]; s != nil {
		s.flow.Store(f)
	}
	if s := e.sockets[below(key)]; s != nil {
		s.above.Store(f)
	}
}

// above is the RTCP port of an RTP port, below the other way round (RFC 3550 section 11).
func above(k call.FlowKey) call.FlowKey {
	k.Local = netip.AddrPortFrom(k.Local.Addr(), k.Local.Port()+1)
	return k
}

func below(k call.FlowKey) call.FlowKey {
	k.Local = netip.AddrPortFrom(k.Local.Addr(), k.Local.Port()-1)
	return k
}

// Remove takes flows out and returns their final counters in the order of keys; those of
// an unknown key are zero. When it returns nothing is counted any more, and ports that no
// other flow leaves by are free.
func (e *Engine) Remove(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	stats := make([]call.FlowStats, len(keys))
	paths := make([]*path, 0, len(keys))
	for i, key := range keys {
		key = canonicalKey(key)
		stats[i].Key = key
		f := e.flows[key]
		if f == nil {
			continue
		}
		e.place(key, nil)
		var p *path
		stats[i], p = f.end()
		paths = append(paths, p)
	}
	e.release(paths)
	return stats, nil
}

// Snapshot returns counters as of now in the order of keys; those of an unknown key
// are zero.
func (e *Engine) Snapshot(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	stats := make([]call.FlowStats, len(keys))
	for i, key := range keys {
		key = canonicalKey(key)
		stats[i].Key = key
		if f := e.flows[key]; f != nil {
			stats[i] = f.snapshot()
		}
	}
	return stats, nil
}

// Events yields what was seen on flows. Close closes it.
func (e *Engine) Events() <-chan call.MediaEvent { return e.events }

// Stats returns what the engine did since it was made.
func (e *Engine) Stats() (call.EngineStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := call.EngineStats{Engine: call.EngineUserspace, Flows: len(e.flows), EventsLost: e.eventsLost.Load()}
	for _, number := range slices.Sorted(maps.Keys(e.realms)) {
		r := e.realms[number]
		st.Exits = append(st.Exits, r.exits.list(number)...)
		st.UserspacePackets += r.exits[exitForwarded].Load()
	}
	return st, nil
}

// Close removes every flow and returns when no goroutine is left. Closing again does nothing.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil
	}
	e.closed = true
	paths := make([]*path, 0, len(e.flows))
	for key, f := range e.flows {
		_, p := f.end()
		paths = append(paths, p)
		delete(e.flows, key)
	}
	e.release(paths)
	close(e.events)
	return nil
}
