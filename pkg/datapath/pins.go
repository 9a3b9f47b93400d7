package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	links       map[string]link.Link // of devices that exist, by name of the pin
	generations []*generation        // in the order of their making
	// running is the generation that each device's packets meet, when the engine was opened.
	running map[int]*generation
}

// openPins reads what is pinned below dir, which is made if need be. It is nil without an
// error if nothing can be pinned, which is said loudly. Another process that has the
// directory gives an error that wraps ErrBusy.
func openPins(dir string, s *space, log *slog.Logger) (_ *pins, err error) {
	if dir == "" {
		return nil, nil
	}
	if err := needBPFFS(dir); errors.Is(err, errNoBPFFS) {
		log.Error("NOTHING IS PINNED: a restart of the gateway will interrupt the media of all calls",
			"pins", dir, "reason", err, "remedy", "mount a bpffs where this process sees it, and set pins to a directory in it")
		return nil, nil
	} else if err != nil {
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
	if p.undo, err = pinnedUndo(filepath.Join(dir, pinUndo)); err != nil {
		return nil, err
	}
	if err := p.read(); err != nil {
		return nil, err
	}
	return p, p.survey(s)
}

// read loads links and generations. Links of devices that are gone are removed.
func (p *pins) read() error {
	files, err := os.ReadDir(p.dir)
	if err != nil {
		return fmt.Errorf("pins: %w", err)
	}
	for _, f := range files {
		path := filepath.Join(p.dir, f.Name())
		if f.IsDir() {
			number, err := strconv.Atoi(f.Name())
			if err != nil {
				return fmt.Errorf("pins: %s is not ours", path)
			}
			g, err := readGeneration(path, number)
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
		if strings.HasPrefix(f.Name(), pinPoll) {
			continue
		}
		if at, err := linkDevice(l); err != nil {
			return fmt.Errorf("pins: %s: %w", path, err)
		} else if at == 0 {
			if err := p.drop(f.Name()); err != nil {
				return err
			}
		}
	}
	slices.SortFunc(p.generations, func(a, b *generation) int { return a.number - b.number })
	return nil
}

// linkDevice is the index of the device that a link is attached to, 0 if it is gone.
func linkDevice(l link.Link) (int, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	if xdp := info.XDP(); xdp != nil {
		return int(xdp.Ifindex), nil
	}
	if tcx := info.TCX(); tcx != nil {
		return int(tcx.Ifindex), nil
	}
	return 0, fmt.Errorf("a link of type %v is not ours", info.Type)
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

// survey finds out which generation each device runs on. State without any program is
// stale: its devices are gone, and its flows with them.
func (p *pins) survey(s *space) error {
	progs := map[int]ebpf.ProgramID{}
	for _, prefix := range []string{pinTC, pinXDP} { // what XDP takes, TC never sees
		for name, l := range p.links {
			if !strings.HasPrefix(name, prefix) {
				continue
			}
			info, err := l.Info()
			if err != nil {
				return fmt.Errorf("pins: %s: %w", name, err)
			}
			ifindex, err := linkDevice(l)
			if err != nil {
				return fmt.Errorf("pins: %s: %w", name, err)
			}
			progs[ifindex] = info.Program
		}
	}
	if g := p.newest(); g != nil && g.about.Netns != 0 && g.about.Netns != s.cookie {
		if len(progs) > 0 {
			return fmt.Errorf("pins %s: %w: they belong to a gateway in another network namespace, whose calls go on: "+
				"unload them there, or give this one other pins", p.dir, ErrBusy)
		}
		return p.undo.forget() // that namespace is gone, and its devices with it
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
	step("make generation")
	for name, m := range g.maps {
		if err := m.Pin(filepath.Join(g.dir, name)); err != nil {
			return fmt.Errorf("pins: %w", err)
		}
		step("pin map")
	}
	p.generations = append(p.generations, g)
	return nil
}

// keepOnly removes every generation but one.
func (p *pins) keepOnly(keep *generation, step func(string)) error {
	for _, g := range slices.Clone(p.generations) {
		if g == keep {
			continue
		}
		for name, m := range g.maps {
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
	}
	return nil
}

// remove takes everything away: programs, devices' settings, maps, the directory.
func (p *pins) remove(s *space) error {
	var errs []error
	for name := range p.links {
		errs = append(errs, p.drop(name))
	}
	if g := p.newest(); g == nil || g.about.Netns == s.cookie {
		errs = append(errs, p.undo.all(s))
	}
	errs = append(errs, p.keepOnly(nil, func(string) {}))
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
// flows and maps go, VLAN receive offload is as it was. Nothing pinned is no error; an
// engine that is open with them is one that wraps ErrBusy.
func Unload(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := openSpace()
	if err != nil {
		return err
	}
	defer s.close()
	p, err := openPins(dir, s, slog.New(slog.DiscardHandler))
	if err != nil || p == nil {
		return err
	}
	return errors.Join(p.remove(s), p.close())
}
