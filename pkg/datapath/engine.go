package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/cilium/ebpf"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Errors that callers may test for.
var (
	// ErrFull: max_calls, or the number of different destinations, is reached.
	ErrFull = errors.New("the kernel's flow table is full")
	// ErrBusy: another XDP program is attached to a realm's device, or another engine has
	// the pins.
	ErrBusy = errors.New("taken already")
	// ErrClosed: the engine is closed.
	ErrClosed = errors.New("the kernel engine is closed")
)

// Config is what an Engine is made from.
type Config struct {
	// Realms, at least one. Their points change by Engine.Update.
	Realms []Realm
	// MaxCalls bounds the flows, at four a call: 1 to 1,048,576; 0 is 16,384.
	MaxCalls int
	NextHops NextHopSource
	Guard    Guard
	// Pins is a directory on a bpffs, made if need be, for what shall outlive the process:
	// programs, maps and flows. An engine of its own needs one of its own. Empty: everything
	// goes with the process.
	Pins string
	// Log may be nil.
	Log *slog.Logger

	// For tests: clsact though the kernel has tcx; what is called after each step that a crash may
	// follow.
	noTCX bool
	step  func(name string)
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
	space   *space
	spec    *ebpf.CollectionSpec // what objs were loaded from
	target  *generation          // the maps in use
	pins    *pins                // nil: nothing is pinned
	undo    *undo
	hooks   []*hook
	adopted []call.FlowKey

	maxFlows  int
	guard     Guard
	noTCX     bool
	step      func(name string)
	migration *migration // while flows are copied

	// placing is held while devices and points change; mu is not waited for under it for long.
	placing sync.Mutex
	here    []Realm // with the points whose devices exist
	tables  tables  // as the programs have them
	next    tables  // as they shall have them

	mu     sync.Mutex
	closed bool
	table  *table
	flows  map[call.FlowKey]installed
}

// Open loads the programs and attaches them to the realms' devices: XDP in native mode where
// the driver has it and in generic mode otherwise, and TC. With Config.Pins it goes on with what
// a former engine left there: flows forward all the while, and Adopted lists them. Without,
// Close undoes it. Devices that are not what their realm says are left out, as by Update, and the
// log says so. A device that has another XDP program, and pins that another engine has, give an
// error that wraps ErrBusy.
func Open(cfg Config) (_ *Engine, err error) {
	e, err := prepare(cfg)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.giveUp())
		}
	}()
	for _, ifindex := range append(deviceList(e.here), 0) {
		if e.migration != nil {
			if err := e.migration.device(e.here, ifindex); err != nil {
				return nil, err
			}
			e.step("copy flows")
		}
		if ifindex == 0 {
			break
		}
		if err := e.serve(ifindex); err != nil {
			return nil, err
		}
	}
	if err := e.attachPoll(); err != nil {
		return nil, err
	}
	if err := e.complete(); err != nil {
		return nil, err
	}
	e.adopt()
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
	e := &Engine{
		log:      cfg.Log,
		maxFlows: cfg.MaxCalls * flowsPerCall,
		guard:    cfg.Guard,
		flows:    map[call.FlowKey]installed{},
		undo:     &undo{done: map[int]uint32{}},
		noTCX:    cfg.noTCX,
		step:     cfg.step,
	}
	if e.step == nil {
		e.step = func(string) {}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.giveUp())
		}
	}()
	if e.space, err = openSpace(); err != nil {
		return nil, err
	}
	if cfg.Pins != "" {
		e.pins, err = openPins(cfg.Pins, e.space, cfg.Log)
		switch {
		case errors.Is(err, ErrNoBPFFS):
			e.log.Error("NOTHING IS PINNED: a restart of the gateway will interrupt the media of all calls",
				"pins", cfg.Pins, "reason", err, "remedy", "mount a bpffs where this process sees it, and set pins to a directory in it")
		case err != nil:
			return nil, err
		default:
			e.undo = e.pins.undo
		}
	}
	if err = e.load(cfg); err != nil {
		return nil, err
	}
	if e.table, err = mapTable(e.objs); err != nil {
		return nil, err
	}
	if e.events, err = readEvents(e.objs.Events, cfg.Log); err != nil {
		return nil, err
	}
	e.hops = newHops(cfg.NextHops, e.objs, e.realms, cfg.Log)
	if e.tables, err = readTables(e.objs); err != nil {
		return nil, err
	}
	unfit, err := e.arrange(cfg.Realms)
	if err != nil {
		return nil, errors.Join(unfit, err)
	}
	if unfit != nil {
		e.log.Error("devices are left out", "error", unfit)
	}
	return e, nil
}

// load makes maps for the configuration, puts those that are pinned in their place if they fit, and
// loads the programs.
func (e *Engine) load(cfg Config) (err error) {
	sizes := planSizes(cfg.MaxCalls, cfg.Realms, len(cfg.Guard.Deny))
	sizes.nextHops = max(sizes.nextHops, e.pins.nextHops())
	spec, err := plan(sizes, cfg.Guard)
	if err != nil {
		return err
	}
	if e.exits, err = exitNames(spec); err != nil {
		return err
	}
	set, err := newMaps(spec)
	if err != nil {
		return err
	}
	e.target = &generation{maps: set}
	e.realms = placesOf(cfg.Realms)
	e.target.about = newAbout(cfg.Realms, e.realms, e.space)
	if spec.Maps[mapAbout], err = e.target.about.spec(); err != nil {
		return err
	}
	if set[mapAbout], err = ebpf.NewMap(spec.Maps[mapAbout]); err != nil {
		delete(set, mapAbout)
		return explain(err)
	}
	if e.pins != nil {
		if err := e.choose(spec); err != nil {
			return err
		}
	}
	e.spec = spec
	if e.objs, err = load(spec, e.target.maps); err != nil {
		return err
	}
	// In maps that were found the lists of the guard may be older than the configuration.
	return writeGuard(e.objs, cfg.Guard, cfg.Realms)
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
	return validateRealms(cfg.Realms)
}

// Events yields what the programs saw: see call.MediaEventKind. It is closed by Close. While
// nobody reads, events wait in the kernel, a MiB of them; what finds no room is counted
// (call.EngineStats.EventsLost).
func (e *Engine) Events() <-chan call.MediaEvent { return e.events.out }

// Attachment is one of our programs on a device.
type Attachment struct {
	Device  string
	Ifindex int
	// Hook is "xdp", "tcx" or, on kernels before 6.6, "clsact".
	Hook string
	// Mode of XDP is "native" or "generic"; TC has none.
	Mode string
	// Pinned: the program stays when the process ends.
	Pinned bool
}

// Attachments lists them, for status and metrics.
func (e *Engine) Attachments() []Attachment {
	e.placing.Lock()
	defer e.placing.Unlock()
	list := make([]Attachment, 0, len(e.hooks))
	for _, h := range e.hooks {
		if h.Ifindex != 0 {
			list = append(list, h.Attachment)
		}
	}
	return list
}

// Adopted lists the flows that were found in the kernel at Open. They forward until they are
// removed.
func (e *Engine) Adopted() []call.FlowKey { return slices.Clone(e.adopted) }

// Stats sums up the exits over all CPUs. With pins they go on over a restart, and start at zero
// when flows are copied into other maps.
func (e *Engine) Stats() (call.EngineStats, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return call.EngineStats{}, ErrClosed
	}
	stats := call.EngineStats{Engine: call.EngineKernel, Flows: len(e.flows)}
	var perCPU []tandemTally
	for realm := range e.objs.Exits.MaxEntries() {
		if err := e.objs.Exits.Lookup(realm, &perCPU); err != nil {
			return call.EngineStats{}, fmt.Errorf("read the exit counters: %w", err)
		}
		exits := slices.Clone(e.exits)
		for _, t := range perCPU {
			stats.EventsLost += t.EventsLost
			for i := range exits {
				exits[i].Realm = uint16(realm)
				exits[i].Packets += t.Packets[i]
			}
		}
		stats.KernelPackets += exits[tandemExitFORWARD_FORWARDED].Packets
		stats.Exits = append(stats.Exits, exits...)
	}
	return stats, nil
}

// Close ends the engine. With pins everything stays in the kernel and goes on forwarding, for
// the next Open or for Unload; only VLAN receive offload and GRO are put back, if no flow is left
// that would lose by it. Without pins the programs are detached and flows end with their maps. It may
// be called more than once.
func (e *Engine) Close() error {
	e.placing.Lock()
	defer e.placing.Unlock()
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil
	}
	e.closed = true
	idle := len(e.flows) == 0
	e.mu.Unlock()
	switch {
	case e.pins == nil:
		return errors.Join(e.detach(), e.letGo())
	case idle:
		if err := e.undo.offloads(e.space); err != nil {
			e.log.Warn("offloads are not on again, as they were before", "error", err)
		}
	}
	return e.letGo()
}

// giveUp ends an engine that could not be opened. What forwarded before goes on.
func (e *Engine) giveUp() error {
	e.closed = true
	if e.pins == nil {
		return errors.Join(e.detach(), e.letGo())
	}
	var err error
	if len(e.pins.running) == 0 {
		err = errors.Join(e.detach(), e.pins.remove(e.space))
	} else if e.target != e.pins.live() && len(e.hooks) == 0 && slices.Contains(e.pins.generations, e.target) {
		err = e.pins.end(e.target, e.step) // no program has come to it
	}
	return errors.Join(err, e.letGo())
}

// letGo closes what the process has of the engine.
func (e *Engine) letGo() error {
	var errs []error
	if e.migration != nil {
		errs = append(errs, e.migration.close())
	}
	for _, h := range e.hooks {
		errs = append(errs, h.close())
	}
	if e.hops != nil {
		e.hops.stopAll()
	}
	if e.events != nil {
		errs = append(errs, e.events.close())
	}
	if e.table != nil {
		e.mu.Lock()
		e.table.unmap()
		e.mu.Unlock()
	}
	if e.objs != nil {
		errs = append(errs, e.objs.Close())
	}
	if e.target != nil {
		errs = append(errs, e.target.maps.close())
	}
	errs = append(errs, e.pins.close())
	e.space.close()
	return errors.Join(errs...)
}
