// Package relay is the user-space media engine: it forwards RTP and RTCP through
// plain UDP sockets. It serves where the kernel engine (package datapath) cannot
// run, with the same contract, the same source check and the same counters.
package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// ErrClosed means that the engine was closed before.
var ErrClosed = errors.New("media relay is closed")

// maxEvents is how many events wait for a reader; more are dropped. There are at
// most two per flow.
const maxEvents = 1024

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
	devices map[uint16]string
	log     *slog.Logger
	exits   exits
	events  chan call.MediaEvent

	mu sync.Mutex
	// sockets by the realm and address they are bound to. A flow holds the one it
	// reads from and the one it leaves by, which is where the opposite flow arrives.
	sockets map[call.FlowKey]*socket
	flows   map[call.FlowKey]*flow
	closed  bool
}

// New returns an Engine without flows.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		devices: make(map[uint16]string, len(cfg.Realms)),
		log:     cfg.Log,
		events:  make(chan call.MediaEvent, maxEvents),
		sockets: make(map[call.FlowKey]*socket),
		flows:   make(map[call.FlowKey]*flow),
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	for _, r := range cfg.Realms {
		if _, twice := e.devices[r.Number]; twice {
			return nil, fmt.Errorf("realm %d given twice", r.Number)
		}
		e.devices[r.Number] = r.Device
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
	for _, f := range flows {
		p, err := e.open(f)
		if err != nil {
			e.release(paths)
			return fmt.Errorf("flow at %v: %w", f.Key.Local, err)
		}
		paths = append(paths, p)
	}
	// From here on nothing fails. The sockets are all open before the first flow
	// forwards, so no packet sees half a call.
	var replaced []*path
	for _, p := range paths {
		f := e.flows[p.flow.Key]
		if f == nil {
			f = newFlow(p.flow.Key)
			e.flows[p.flow.Key] = f
		}
		if old := f.path.Swap(p); old != nil {
			replaced = append(replaced, old)
		}
		p.in.flow.Store(f)
	}
	e.release(replaced)
	return nil
}

// Remove takes flows out, waits until their last packet has been handled, and
// returns their final counters in the order of keys; those of an unknown key are zero.
func (e *Engine) Remove(keys []call.FlowKey) ([]call.FlowStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	gone := make([]*flow, len(keys))
	paths := make([]*path, 0, len(keys))
	for i, key := range keys {
		f := e.flows[key]
		if f == nil {
			continue
		}
		delete(e.flows, key)
		p := f.path.Load()
		p.in.flow.Store(nil)
		gone[i], paths = f, append(paths, p)
	}
	e.release(paths)
	stats := make([]call.FlowStats, len(keys))
	for i, f := range gone {
		stats[i] = call.FlowStats{Key: keys[i]}
		if f != nil {
			stats[i] = f.end()
		}
	}
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
		stats[i] = call.FlowStats{Key: key}
		if f := e.flows[key]; f != nil {
			stats[i] = f.snapshot()
		}
	}
	return stats, nil
}

// Events yields what was seen on flows, once per flow and kind. Close closes it.
func (e *Engine) Events() <-chan call.MediaEvent { return e.events }

// Stats returns what the engine did since it was made.
func (e *Engine) Stats() (call.EngineStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return call.EngineStats{
		Engine:           call.EngineUserspace,
		Flows:            len(e.flows),
		UserspacePackets: e.exits[exitForwarded].Load(),
		Exits:            e.exits.list(),
	}, nil
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
		paths = append(paths, f.path.Load())
		delete(e.flows, key)
	}
	e.release(paths)
	close(e.events)
	return nil
}

// emit reports an event. It never blocks: a reader that is slow misses some.
func (e *Engine) emit(ev call.MediaEvent) {
	select {
	case e.events <- ev:
	default:
	}
}
