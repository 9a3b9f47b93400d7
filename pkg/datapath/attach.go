package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Hooks, where a program is attached to a device.
const (
	hookXDP    = "xdp"
	hookTCX    = "tcx"
	hookClsact = "clsact"
	hookPoll   = "napi_poll" // of no device: where the kernel has polled one
)

// Modes of the XDP hook.
const (
	modeNative  = "native"
	modeGeneric = "generic"
)

// attached is a program on a device.
type attached interface {
	// program is the one that runs there.
	program() (ebpf.ProgramID, error)
	// replace puts another one in its place: each packet meets one of the two.
	replace(*ebpf.Program) error
	// detach takes it off for good.
	detach() error
	// close lets go of it, and leaves it there if it is pinned.
	close() error
}

// pinnedLink is attached by a link. One that is not pinned ends with the process.
type pinnedLink struct {
	link.Link
}

func (l pinnedLink) program() (ebpf.ProgramID, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	return info.Program, nil
}

func (l pinnedLink) replace(prog *ebpf.Program) error { return l.Update(prog) }

func (l pinnedLink) detach() error { return errors.Join(l.Unpin(), l.Close()) }

func (l pinnedLink) close() error { return l.Close() }

// Attached lists our programs on devices, whoever has attached them and with which pins. A process that
// may not look at programs gets an error that wraps fs.ErrPermission.
func Attached(ifindexes ...int) (list []Attachment, err error) {
	s, err := openSpace()
	if err != nil {
		return nil, err
	}
	defer s.close()
	for _, ifindex := range ifindexes {
		attrs, err := s.device(ifindex)
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, hook := range []string{hookXDP, hookTCX, hookClsact} {
			running, err := s.programs(hook, ifindex)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", attrs.Name, err)
			}
			for _, id := range running {
				ours, err := isOurs(id)
				if err != nil {
					return nil, fmt.Errorf("%s: %s program: %w", attrs.Name, hook, err)
				}
				if ours {
					list = append(list, Attachment{Device: attrs.Name, Ifindex: ifindex, Hook: hook})
				}
			}
		}
	}
	return list, nil
}

// isOurs knows a program by its name. One that is gone is not.
func isOurs(id ebpf.ProgramID) (bool, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("program %d: %w", id, err)
	}
	defer prog.Close()
	info, err := prog.Info()
	if err != nil {
		return false, fmt.Errorf("program %d: %w", id, err)
	}
	return info.Name == tandemProgTandemXdp || info.Name == tandemProgTandemTc, nil
}

// hook is one of our programs on a device.
type hook struct {
	Attachment
	attached
	prog *ebpf.Program // that shall run there
}

// attach puts the programs on a device, or in the place of those that run there from
// former times; those of this process stay. Frames must arrive with their VLAN tags from the first one
// on: a tag that the device has taken off would put the packet into the untagged realm.
func (e *Engine) attach(ifindex int, tagged bool) error {
	attrs, err := e.space.device(ifindex)
	if err != nil {
		return err
	}
	e.keepPackets(ifindex, attrs.Name)
	if hasLinkLayer(attrs) {
		if err := e.keepTags(ifindex, attrs.Name, tagged); err != nil {
			return fmt.Errorf("%s: %w", attrs.Name, err)
		}
		if e.hookOn(ifindex, hookXDP) == nil {
			if err := e.attachHook(ifindex, attrs.Name, pinXDP, e.objs.TandemXdp, e.attachXDP); err != nil {
				return fmt.Errorf("%s: %w", attrs.Name, err)
			}
		}
	}
	if err := e.flag(ifindex); err != nil {
		return fmt.Errorf("%s: %w", attrs.Name, err)
	}
	if e.hookOn(ifindex, hookTCX, hookClsact) != nil {
		return nil
	}
	if err := e.attachHook(ifindex, attrs.Name, pinTC, e.objs.TandemTc, e.attachTC); err != nil {
		return fmt.Errorf("%s: %w", attrs.Name, err)
	}
	return nil
}

// hookOn is our program at one of these hooks of a device, nil if there is none.
func (e *Engine) hookOn(ifindex int, hooks ...string) *hook {
	i := slices.IndexFunc(e.hooks, func(h *hook) bool { return h.Ifindex == ifindex && slices.Contains(hooks, h.Hook) })
	if i < 0 {
		return nil
	}
	return e.hooks[i]
}

// flag lets the programs know what kind of device it is: whether XDP runs there, and whether the ends of
// its bursts are told.
func (e *Engine) flag(ifindex int) error {
	flags := tandemDeviceFlagDEVICE_BARE
	if xdp := e.hookOn(ifindex, hookXDP); xdp != nil {
		flags = tandemDeviceFlagDEVICE_XDP
		polled := e.hookOn(0, hookPoll) != nil && xdp.Mode == modeNative
		if polled {
			var err error
			if polled, err = e.space.isPolled(ifindex); err != nil {
				return err
			}
		}
		if polled {
			flags |= tandemDeviceFlagDEVICE_BURST
		}
	}
	return e.mark(ifindex, flags)
}

func (e *Engine) mark(ifindex int, flags tandemDeviceFlag) error {
	var in tandemIngress
	if err := e.objs.Ingress.Lookup(uint32(ifindex), &in); err != nil {
		return fmt.Errorf("read the table of devices: %w", err)
	}
	if in.Flags == flags {
		return nil
	}
	in.Flags = flags
	if err := e.objs.Ingress.Put(uint32(ifindex), in); err != nil {
		return fmt.Errorf("write the table of devices: %w", err)
	}
	return nil
}

// attachHook replaces the program of a pinned link, or attaches one by fresh and pins it.
func (e *Engine) attachHook(ifindex int, device, pin string, prog *ebpf.Program,
	fresh func(ifindex int, device string) (attached, string, error)) error {
	name := fmt.Sprint(pin, ifindex)
	h := &hook{Attachment: Attachment{Device: device, Ifindex: ifindex}, prog: prog}
	if l := e.pins.take(name); l != nil {
		if err := l.Update(prog); err == nil {
			h.attached, h.Hook = pinnedLink{l}, hookXDP
			if pin == pinTC {
				h.Hook = hookTCX
			}
		} else if err := e.forsake(l, device, err); err != nil {
			return err
		}
	}
	if h.attached == nil {
		var err error
		if h.attached, h.Hook, err = fresh(ifindex, device); err != nil {
			return err
		}
	}
	e.hooks = append(e.hooks, h)
	if err := e.pins.keep(h.attached, name); err != nil {
		return err
	}
	e.step("attach " + h.Hook)
	if h.Hook == hookXDP {
		attrs, err := e.space.device(ifindex)
		if err != nil {
			return err
		}
		h.Mode = modeNative
		if attrs.Xdp != nil && attrs.Xdp.AttachMode == nl.XDP_ATTACHED_SKB {
			h.Mode = modeGeneric
		}
	}
	h.Pinned = e.pins != nil
	e.log.Info("kernel engine attached", "device", device, "hook", h.Hook, "mode", h.Mode, "pinned", h.Pinned)
	return nil
}

// attachPoll has the programs told where bursts end. Devices that they come from are marked last,
// when that is so; what was attached before stays until then. Without it each packet reads the clock.
func (e *Engine) attachPoll() error {
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: hookPoll, Program: e.objs.TandemBurst})
	if err != nil {
		e.log.Warn("no tracepoint "+hookPoll+": every packet reads the clock, which costs some 30 ns", "error", err)
		return nil
	}
	h := &hook{Attachment: Attachment{Hook: hookPoll}, attached: pinnedLink{l}, prog: e.objs.TandemBurst}
	e.hooks = append(e.hooks, h)
	id, err := h.program()
	if err != nil {
		return fmt.Errorf("%s: %w", hookPoll, err)
	}
	// The name is a new one, since such a link takes no other program.
	if err := e.pins.keep(h.attached, fmt.Sprint(pinPoll, id)); err != nil {
		return err
	}
	e.step("attach " + hookPoll)
	for _, h := range e.hooks {
		if h.Hook != hookXDP {
			continue
		}
		if err := e.flag(h.Ifindex); err != nil {
			return err
		}
	}
	return nil
}

// forsake gives up a link that does not take our program, such as one that was made for a program
// without an attach type: EINVAL; or one whose device has just gone: ENOLINK.
func (e *Engine) forsake(l link.Link, device string, reason error) error {
	if !errors.Is(reason, unix.EINVAL) && !errors.Is(reason, unix.ENOLINK) {
		return errors.Join(reason, l.Close())
	}
	e.log.Error("the attached program cannot be replaced: it is detached, and packets are lost until ours is there",
		"device", device, "reason", reason)
	return pinnedLink{l}.detach()
}

func (e *Engine) attachXDP(ifindex int, device string) (attached, string, error) {
	l, err := link.AttachXDP(link.XDPOptions{Program: e.objs.TandemXdp, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil && !busy(err) {
		native := err
		l, err = link.AttachXDP(link.XDPOptions{Program: e.objs.TandemXdp, Interface: ifindex, Flags: link.XDPGenericMode})
		if err == nil {
			e.log.Warn("no native XDP on this device: generic mode costs several times the CPU", "device", device, "error", native)
		}
	}
	if busy(err) {
		return nil, "", fmt.Errorf("%w: look at it with \"bpftool net\", remove it with \"ip link set dev %s xdp off\" "+
			"or by ending the process that attached it, or, if it is a gateway's with other pins, by unloading those", ErrBusy, device)
	}
	if err != nil {
		return nil, "", fmt.Errorf("attach XDP: %w", err)
	}
	return pinnedLink{l}, hookXDP, nil
}

// keepTags turns VLAN receive offload off. It is put back when a process ends and leaves no flow, which
// would lose its tags: changing it resets many NICs, so that a restart under calls leaves it alone.
func (e *Engine) keepTags(ifindex int, device string, tagged bool) error {
	err := e.space.clearVLANReceiveOffload(device, func() error {
		defer e.step("remember VLAN receive offload")
		return e.undo.remember(ifindex, undoVLANOffload)
	})
	if err != nil && tagged {
		return fmt.Errorf("turn VLAN receive offload off, without which no tagged realm works: %w", err)
	}
	if err != nil && e.hookOn(ifindex, hookTCX, hookClsact) == nil { // once served, it was said
		e.log.Warn("VLAN receive offload left on: tagged frames would be taken for untagged ones", "device", device, "error", err)
	}
	return nil
}

// keepPackets turns off what makes one packet of several of media on their way to TC, which can only drop it.
func (e *Engine) keepPackets(ifindex int, device string) {
	err := e.space.clearGRO(device, func(on uint32) error {
		defer e.step("remember GRO")
		return e.undo.remember(ifindex, on)
	})
	if err != nil && e.hookOn(ifindex, hookTCX, hookClsact) == nil { // once served, it was said
		e.log.Warn("GRO of forwarded UDP may be on: media that it merges is dropped as not-plain", "device", device, "error", err)
	}
}

// busy: EBUSY for a program in the same mode, EEXIST for one in the other mode.
func busy(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)
}

// detach takes the programs off all devices, and puts these back as they were.
func (e *Engine) detach() error {
	var errs []error
	for _, h := range e.hooks {
		if err := h.detach(); err != nil {
			errs = append(errs, fmt.Errorf("%s: detach %s: %w", h.Device, h.Hook, err))
		}
	}
	return errors.Join(append(errs, e.undo.all(e.space))...)
}
