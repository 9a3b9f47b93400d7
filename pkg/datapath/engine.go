package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Errors that callers may test for.
var (
	// ErrFull: max_calls, or the number of different destinations, is reached.
	ErrFull = errors.New("the kernel's flow table is full")
	// ErrBusy: another XDP program is attached to a realm's device.
	ErrBusy = errors.New("another XDP program is attached")
	// ErrClosed: the engine is closed.
	ErrClosed = errors.New("the kernel engine is closed")
)

// Config is what an Engine is made from.
type Config struct {
	// Realms, at least one.
	Realms []Realm
	// MaxCalls bounds the flows, at four a call: 1 to 1,048,576; 0 is 16,384.
	MaxCalls int
	NextHops NextHopSource
	// Log may be nil.
	Log *slog.Logger
}

// Engine forwards flows in the kernel (M1). Its methods may be called from any
// goroutine.
type Engine struct {
	log     *slog.Logger
	objs    *tandemObjects
	exits   []call.Exit // names, by key of the exits map
	realms  map[uint16]place
	hops    *hops
	events  *events
	devices []*device

	maxFlows int

	mu     sync.Mutex
	closed bool
	table  *table
	flows  map[call.FlowKey]installed
}

// Open loads the program and attaches it to the realms' devices, in native mode where
// the driver has it and in generic mode otherwise. Close undoes it. A device that has
// another XDP program gives an error that wraps ErrBusy.
func Open(cfg Config) (_ *Engine, err error) {
	e, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()
	for _, ifindex := range deviceList(cfg.Realms) {
		tagged := slices.ContainsFunc(cfg.Realms, func(r Realm) bool { return r.Ifindex == ifindex && r.VLAN != 0 })
		d, err := attach(e.objs.TandemXdp, ifindex, tagged, e.log)
		if err != nil {
			return nil, err
		}
		e.devices = append(e.devices, d)
		e.log.Info("kernel engine attached", "device", d.name, "mode", d.mode)
	}
	return e, nil
}

// prepare does all of Open except attaching.
func prepare(cfg Config) (_ *Engine, err error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxCalls == 0 {
		cfg.MaxCalls = defaultMaxCalls
	}
	sizes := planSizes(cfg.MaxCalls, cfg.Realms)
	objs, spec, err := load(sizes)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, objs.Close())
		}
	}()
	e := &Engine{
		log:      cfg.Log,
		objs:     objs,
		maxFlows: cfg.MaxCalls * flowsPerCall,
		flows:    map[call.FlowKey]installed{},
	}
	if e.exits, err = exitNames(spec.Maps[tandemMapExits]); err != nil {
		return nil, err
	}
	devices, err := writeDevices(objs.Devices, cfg.Realms)
	if err != nil {
		return nil, err
	}
	if e.realms, err = writeRealms(objs, cfg.Realms, devices); err != nil {
		return nil, err
	}
	if e.table, err = mapTable(objs); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			e.table.unmap()
		}
	}()
	if e.events, err = readEvents(objs.Events, cfg.Log); err != nil {
		return nil, err
	}
	e.hops = newHops(cfg.NextHops, objs.NextHops, devices, cfg.Log)
	return e, nil
}

func (cfg *Config) validate() error {
	if len(cfg.Realms) == 0 {
		return errors.New("the kernel engine has no realm")
	}
	if cfg.NextHops == nil {
		return errors.New("the kernel engine has no source of next hops")
	}
	if cfg.MaxCalls < 0 || cfg.MaxCalls > maxMaxCalls {
		return fmt.Errorf("max_calls is %d, not 1 to %d", cfg.MaxCalls, maxMaxCalls)
	}
	numbers := map[uint16]bool{}
	places := map[[2]int]bool{}
	for _, r := range cfg.Realms {
		key := [2]int{r.Ifindex, int(r.VLAN)}
		switch {
		case r.Number == 0 || numbers[r.Number]:
			return fmt.Errorf("realm number %d is zero or used twice", r.Number)
		case places[key]:
			return fmt.Errorf("realm %d: interface index %d and VLAN %d have a realm already", r.Number, r.Ifindex, r.VLAN)
		case r.Ifindex <= 0 || r.Ifindex > maxIfindex:
			return fmt.Errorf("realm %d: interface index %d is not 1 to %d", r.Number, r.Ifindex, maxIfindex)
		case r.VLAN > 4094:
			return fmt.Errorf("realm %d: VLAN %d is not 0 to 4094", r.Number, r.VLAN)
		case !r.Addr.Unmap().Is4() || r.Addr.Unmap().IsUnspecified():
			return fmt.Errorf("realm %d: %s is not an IPv4 address", r.Number, r.Addr)
		case r.Media.First == 0 || r.Media.First > r.Media.Last:
			return fmt.Errorf("realm %d: media ports %s", r.Number, r.Media)
		}
		numbers[r.Number], places[key] = true, true
	}
	return nil
}

// Events yields what the program saw: the first packet let in and the first one refused,
// once per flow. It is closed by Close. While nobody reads, events wait in the kernel.
func (e *Engine) Events() <-chan call.MediaEvent { return e.events.out }

// Attachment is a device that the program is attached to.
type Attachment struct {
	Device  string
	Ifindex int
	// Mode is "native" or "generic".
	Mode string
}

// Attachments lists the devices, for status and metrics.
func (e *Engine) Attachments() []Attachment {
	list := make([]Attachment, 0, len(e.devices))
	for _, d := range e.devices {
		list = append(list, Attachment{Device: d.name, Ifindex: d.ifindex, Mode: d.mode})
	}
	return list
}

// Stats sums up the exits over all CPUs.
func (e *Engine) Stats() (call.EngineStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return call.EngineStats{}, ErrClosed
	}
	stats := call.EngineStats{
		Engine: call.EngineKernel,
		Flows:  len(e.flows),
		Exits:  slices.Clone(e.exits),
	}
	var perCPU []uint64
	for i := range stats.Exits {
		if err := e.objs.Exits.Lookup(tandemExit(i), &perCPU); err != nil {
			return call.EngineStats{}, fmt.Errorf("read the exit counters: %w", err)
		}
		for _, n := range perCPU {
			stats.Exits[i].Packets += n
		}
	}
	stats.KernelPackets = stats.Exits[tandemExitFORWARD_FORWARDED].Packets
	return stats, nil
}

// Close detaches the program and frees the maps. Flows that are still there end with it.
// It may be called more than once.
func (e *Engine) Close() error {
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	e.table.unmap()
	e.mu.Unlock()

	var errs []error
	for _, d := range e.devices {
		errs = append(errs, d.detach())
	}
	e.hops.stopAll()
	errs = append(errs, e.events.close(), e.objs.Close())
	return errors.Join(errs...)
}
