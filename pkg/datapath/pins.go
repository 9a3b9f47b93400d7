package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// ABI numbers the meaning of what is pinned, and is ABI of bpf/include/tandem/abi.h. Sizes
// and names of fields need no number, since maps carry their BTF. An engine of another ABI
// copies the flows that it finds.
const ABI = 1

// Names below the directory of pins: links by device, the tracepoint's by program, maps by
// generation (a number) and name.
const (
	pinXDP  = "xdp-"
	pinTC   = "tc-"
	pinPoll = "poll-"
	pinUndo = "undo"
)

// pins is the pinned state below a directory, which is this process's own as long as it
// is open.
type pins struct {
	dir         string
	log         *slog.Logger
	lock        *os.File
	undo        *undo
	links       map[string]link.Link // of programs that run here, by name of the pin
	generations []*generation        // in the order of their making
	// running is the generation that each device's packets meet, when the engine was opened.
	running map[int]*generation
}

// openPins reads what is pinned below dir, which is made if need be. Errors wrap ErrNoBPFFS if nothing
// can be pinned there, and ErrBusy if another process has the directory.
func openPins(dir string, s *space, log *slog.Logger) (_ *pins, err error) {
	if err := needBPFFS(dir); err != nil {
		return nil, err
	}
	p := &pins{dir: dir, log: log, links: map[string]link.Link{}, running: map[int]*generation{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.lock, err = lockDir(dir); err != nil {
		return nil, err
	}
	if err := p.read(); err != nil {
		return nil, err
	}
	if p.undo, err = pinnedUndo(filepath.Join(dir, pinUndo)); err != nil {
		return nil, err
	}
	if err := p.survey(s); err != nil {
		return nil, err
	}
	return p, nil
}

// ours: a file has a name that we give.
func ours(f fs.DirEntry) bool {
	isNumber := func(s string) bool {
		_, err := strconv.ParseUint(s, 10, 32)
		return err == nil
	}
	if f.IsDir() {
		return isNumber(f.Name())
	}
	return f.Name() == pinUndo || slices.ContainsFunc([]string{pinXDP, pinTC, pinPoll}, func(prefix string) bool {
		number, ok := strings.CutPrefix(f.Name(), prefix)
		return ok && isNumber(number)
	})
}

// read loads links and generations.
func (p *pins) read() error {
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, f := range files {
		if !ours(f) {
			return fmt.Errorf("pins: %s is not ours: remove it, or set pins to another directory", filepath.Join(p.dir, f.Name()))
		}
	}
	for _, f := range files {
		path := filepath.Join(p.dir, f.Name())
		if f.IsDir() {
			number, err := strconv.Atoi(f.Name())
			if err != nil {
				return fmt.Errorf("pins: %s: %w", path, err)
			}
			g, err := readGeneration(path, number, p.log)
			if err != nil {
				return fmt.Errorf("pins: %w", err)
			}
			p.generations = append(p.generations, g)
			continue
		}
		if f.Name() == pinUndo {
			continue
		}
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			return fmt.Errorf("pins: %s: %w", path, err)
		}
		p.links[f.Name()] = l
	}
	slices.SortFunc(p.generations, func(a, b *generation) int { return a.number - b.number })
	return nil
}

// station is where a link has its program. The link tells the index of its device (0 if that is gone),
// but not the namespace of it.
type station struct {
	hook    string
	ifindex int
	program ebpf.ProgramID
}

func stationOf(l link.Link) (station, error) {
	info, err := l.Info()
	if err != nil {
		return station{}, err
	}
	if xdp := info.XDP(); xdp != nil {
		return station{hookXDP, int(xdp.Ifindex), info.Program}, nil
	}
	if tcx := info.TCX(); tcx != nil {
		return station{hookTCX, int(tcx.Ifindex), info.Program}, nil
	}
	return station{}, fmt.Errorf("a link of type %v is not ours", info.Type)
}

// drop removes a link: its program is detached, if its device is there still.
func (p *pins) drop(name string) error {
	l := p.links[name]
	delete(p.links, name)
	if err := errors.Join(l.Unpin(), l.Close()); err != nil {
		return fmt.Errorf("pins: remove %s: %w", name, err)
	}
	return nil
}

// take hands out a link that is there from former times, nil if there is none.
func (p *pins) take(name string) link.Link {
	if p == nil {
		return nil
	}
	l := p.links[name]
	delete(p.links, name)
	return l
}

// keep pins what has been attached. A filter needs no pin, and a link that has one keeps it.
func (p *pins) keep(a attached, name string) error {
	l, isLink := a.(pinnedLink)
	if p == nil || !isLink {
		return nil
	}
	if err := l.Pin(filepath.Join(p.dir, name)); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	return nil
}

// netns is the cookie of the network namespace that the pins were made in; 0 if nobody came to say it.
func (p *pins) netns() uint64 {
	for _, g := range slices.Backward(p.generations) {
		if g.about.Netns != 0 {
			return g.about.Netns
		}
	}
	return 0
}

// survey finds out which generation each device runs on, and drops what is stale: links whose device
// is gone or is another one by now, and what is remembered of devices of a former namespace.
func (p *pins) survey(s *space) error {
	progs, stale, elsewhere := map[int]ebpf.ProgramID{}, map[string]station{}, false
	for _, prefix := range []string{pinTC, pinXDP} { // what XDP takes, TC never sees
		for name, l := range p.links {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			at, err := stationOf(l)
			if err != nil {
				return fmt.Errorf("pins: %s: %w", name, err)
			}
			here := false
			if at.ifindex != 0 {
				if here, err = s.runs(at); err != nil {
					return fmt.Errorf("pins: %s: %w", name, err)
				}
				elsewhere = elsewhere || !here
			}
			if here && name == fmt.Sprint(prefix, at.ifindex) {
				progs[at.ifindex] = at.program
			} else {
				stale[name] = at
			}
		}
	}
	// A namespace that is gone may have given its devices back, with our programs on them.
	foreign := p.netns() != 0 && p.netns() != s.cookie
	if foreign && elsewhere {
		return fmt.Errorf("pins %s: %w: they belong to a gateway in another network namespace, whose calls go on: unload them there, "+
			"or give this one other pins; \"rm -r %s\" ends it all and detaches everything, whatever namespace it is in", p.dir, ErrBusy, p.dir)
	}
	for name, at := range stale {
		p.log.Warn("the device of a pinned link is gone, or is not the one here: the link is detached", "link", name, "ifindex", at.ifindex)
		if err := p.drop(name); err != nil {
			return err
		}
	}
	if foreign {
		if err := p.undo.forget(func(ifindex int) bool { return progs[ifindex] == 0 }); err != nil {
			return err
		}
	}
	for _, ifindex := range p.undo.devices() {
		if progs[ifindex] != 0 || !p.undo.has(ifindex, undoFilter) {
			continue
		}
		f, err := s.findFilter(ifindex)
		if err != nil {
			return err
		}
		if f != nil {
			progs[ifindex] = ebpf.ProgramID(f.Id)
		}
	}
	for ifindex, prog := range progs {
		g, err := p.generationOf(prog)
		if err != nil {
			return err
		}
		if g == nil {
			p.log.Warn("a program of ours runs on maps that are not pinned: its flows are lost", "ifindex", ifindex)
			continue
		}
		p.running[ifindex] = g
	}
	return nil
}

// generationOf is the generation whose maps a program uses, or nil.
func (p *pins) generationOf(id ebpf.ProgramID) (*generation, error) {
	used, err := mapsOf(id)
	if err != nil {
		return nil, err
	}
	for _, g := range p.generations {
		ids, err := g.ids()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(used, func(id ebpf.MapID) bool { return ids[id] }) {
			return g, nil
		}
	}
	return nil, nil
}

// newest is the youngest generation, live or not; nil if there is none.
func (p *pins) newest() *generation {
	if p == nil || len(p.generations) == 0 {
		return nil
	}
	return p.generations[len(p.generations)-1]
}

// live is the youngest generation that a program runs on; nil if there is none. It is
// complete: links come to a generation only after its maps are all pinned.
func (p *pins) live() *generation {
	var live *generation
	for _, g := range p.running {
		if live == nil || g.number > live.number {
			live = g
		}
	}
	return live
}

// uniform: all devices run on one generation.
func (p *pins) uniform() bool {
	live := p.live()
	for _, g := range p.running {
		if g != live {
			return false
		}
	}
	return true
}

// begin pins a new generation. Until a program runs on it a crash makes it rubbish.
func (p *pins) begin(g *generation, step func(string)) error {
	g.number = 1
	if newest := p.newest(); newest != nil {
		g.number = newest.number + 1
	}
	g.dir = filepath.Join(p.dir, strconv.Itoa(g.number))
	if err := os.Mkdir(g.dir, 0o700); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	p.generations = append(p.generations, g)
	step("make generation")
	for _, name := range g.names() {
		if err := g.maps[name].Pin(filepath.Join(g.dir, name)); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
		step("pin map")
	}
	return nil
}

// keepOnly removes every generation but one.
func (p *pins) keepOnly(keep *generation, step func(string)) error {
	for _, g := range slices.Clone(p.generations) {
		if g == keep {
			continue
		}
		if err := p.end(g, step); err != nil {
			return err
		}
	}
	return nil
}

// end removes a generation.
func (p *pins) end(g *generation, step func(string)) error {
	for _, name := range slices.Backward(g.names()) {
		m := g.maps[name]
		if err := errors.Join(m.Unpin(), m.Close()); err != nil {
			return fmt.Errorf("pins: remove %s/%s: %w", g.dir, name, err)
		}
		delete(g.maps, name)
		step("unpin map")
	}
	if err := os.Remove(g.dir); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	p.generations = slices.DeleteFunc(p.generations, func(other *generation) bool { return other == g })
	step("remove generation")
	return nil
}

// remove takes everything away: programs, devices' settings, maps, the directory.
func (p *pins) remove(s *space) error {
	var errs []error
	for name := range maps.Clone(p.links) {
		errs = append(errs, p.drop(name))
	}
	errs = append(errs, p.undo.all(s), p.keepOnly(nil, func(string) {}))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if err := p.undo.unpin(); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	if err := os.Remove(p.dir); err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	return nil
}

// close lets go of everything and leaves it as it is. It may be called on nil.
func (p *pins) close() error {
	if p == nil {
		return nil
	}
	errs := []error{p.undo.close()}
	for _, l := range p.links {
		errs = append(errs, l.Close())
	}
	for _, g := range p.generations {
		errs = append(errs, g.maps.close())
	}
	if p.lock != nil {
		errs = append(errs, p.lock.Close())
	}
	return errors.Join(errs...)
}

// Unload takes away all that engines with these pins have left in the kernel: programs,
// flows and maps go, VLAN receive offload is as it was. found is false if nothing is pinned.
// Where nothing could be seen the error wraps ErrNoBPFFS; an engine that is open with them,
// or whose calls go on in another network namespace, is one that wraps ErrBusy.
func Unload(dir string) (found bool, err error) {
	if err := needBPFFS(dir); err != nil {
		return false, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("pins: %w", err)
	}
	s, err := openSpace()
	if err != nil {
		return true, err
	}
	defer s.close()
	p, err := openPins(dir, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return true, err
	}
	return true, errors.Join(p.remove(s), p.close())
}
