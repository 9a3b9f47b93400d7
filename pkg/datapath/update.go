package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// Update tells where the realms are now: their points may be others, and devices may have come, gone, or
// been made again. Calls go on: flows stay, and packets that come in by places that stay find them at each
// moment. Programs are put on devices that have none of ours, be it that they have just been made in the
// place of others with the same index, and taken off those that have no point any more. Devices that do
// not exist are left out. It must be called in the network namespace of Open. The error joins those of
// devices; all others are served. If a device cannot be read nothing changes.
func (e *Engine) Update(realms []Realm) error {
	if err := validateRealms(realms); err != nil {
		return err
	}
	e.placing.Lock()
	defer e.placing.Unlock()
	if e.isClosed() {
		return ErrClosed
	}
	if err := e.sameRealms(realms); err != nil {
		return err
	}
	unfit, err := e.arrange(realms)
	if err != nil {
		return errors.Join(unfit, err)
	}
	errs := []error{unfit}
	for _, ifindex := range deviceList(e.here) {
		errs = append(errs, e.serve(ifindex))
	}
	errs = append(errs, e.leave(), writeGuard(e.objs, e.guard, realms))
	return errors.Join(errs...)
}

// Relist replaces the peers that are known and the prefixes that are denied; all else that the realms say
// is for Update. Flows that are installed keep what they were installed with. If there is no room in the
// kernel's lists, which a new engine makes as large as its configuration needs, nothing has changed.
func (e *Engine) Relist(realms []Realm, deny []netip.Prefix) error {
	if err := validateRealms(realms); err != nil {
		return err
	}
	e.placing.Lock()
	defer e.placing.Unlock()
	if e.isClosed() {
		return ErrClosed
	}
	if err := e.sameRealms(realms); err != nil {
		return err
	}
	former, guard := e.guard, e.guard
	guard.Deny = slices.Clone(deny)
	// The new entries come before the old ones go.
	for _, list := range []struct {
		what       string
		need, room int
	}{
		{"known addresses", len(knownOf(realms)), int(e.objs.Peers.MaxEntries()) / 2},
		{"denied prefixes", len(deny), int(e.objs.Deny.MaxEntries()) / 2},
	} {
		if list.need > list.room {
			return fmt.Errorf("there are %d %s, and the kernel's list has room for %d: a restart makes a larger one", list.need, list.what, list.room)
		}
	}
	e.setGuard(guard)
	if err := writeGuard(e.objs, guard, realms); err != nil {
		e.setGuard(former)
		return err
	}
	return nil
}

func (e *Engine) setGuard(guard Guard) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.guard = guard
}

func (e *Engine) isClosed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.closed
}

// sameRealms refuses what would move flows to other places in the table.
func (e *Engine) sameRealms(realms []Realm) error {
	if len(realms) != len(e.realms) {
		return fmt.Errorf("%d realms instead of %d: that takes a restart", len(realms), len(e.realms))
	}
	for _, r := range realms {
		was, known := e.realms[r.Number]
		if !known || was.Addr != r.Addr.Unmap() || was.Media != r.Media || was.SIPPort != r.SIPPort {
			return fmt.Errorf("realm %d has another number, address or ports: that takes a restart", r.Number)
		}
	}
	return nil
}

// present leaves out the points whose devices do not exist, or are not what the realm says: those are unfit.
// A device that could not be read may be fine: that is err, and nothing is known.
func (e *Engine) present(realms []Realm) (here []Realm, unfit, err error) {
	there := map[int]bool{}
	for _, ifindex := range deviceList(realms) {
		attrs, err := e.space.device(ifindex)
		if gone(err) {
			e.log.Info("a realm's device is not there yet", "ifindex", ifindex)
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		misfit := fits(attrs, isBare(realms, ifindex))
		there[ifindex], unfit = misfit == nil, errors.Join(unfit, misfit)
	}
	here = slices.Clone(realms)
	for i, r := range realms {
		here[i].Points = slices.DeleteFunc(slices.Clone(r.Points), func(p Point) bool { return !there[p.Ifindex] })
	}
	return here, unfit, nil
}

// fits tells whether a device is as the realms say.
func fits(attrs *netlink.LinkAttrs, bare bool) error {
	switch {
	case bare && hasLinkLayer(attrs):
		return fmt.Errorf("%s has a link layer, which is not what its realm says", attrs.Name)
	case !bare && !hasLinkLayer(attrs):
		return fmt.Errorf("%s has no link layer, which is not what its realm says", attrs.Name)
	}
	return nil
}

// linkDevices are the devices that XDP can redirect to.
func linkDevices(realms []Realm) map[int]bool {
	devices := map[int]bool{}
	for _, r := range realms {
		for _, p := range r.Points {
			if !p.Bare {
				devices[p.Ifindex] = true
			}
		}
	}
	return devices
}

// arrange brings the tables in step with the realms, but for what goes: that is for leave, when the
// programs are where they shall be. unfit tells of devices that are left out.
func (e *Engine) arrange(realms []Realm) (unfit, err error) {
	here, unfit, err := e.present(realms)
	if err != nil {
		return nil, err
	}
	if err := e.describe(realms); err != nil {
		return unfit, err
	}
	e.here = here
	if e.next, err = e.tables.layOut(spotsOf(e.objs.Realms.MaxEntries()), e.here, e.realms); err != nil {
		return unfit, err
	}
	devices := linkDevices(e.here)
	for ifindex := range devices {
		// A device that was made again is not in the table any more, whatever its index.
		var there uint32
		if err := e.objs.Devices.Lookup(uint32(ifindex), &there); err == nil {
			continue
		}
		if err := e.objs.Devices.Put(uint32(ifindex), uint32(ifindex)); err != nil {
			return unfit, fmt.Errorf("device with index %d: %w", ifindex, err)
		}
	}
	if err := e.tables.enter(e.objs, e.next); err != nil {
		return unfit, err
	}
	e.hops.serve(devices)
	return unfit, nil
}

// serve puts our programs on a device, in the place of those whose device has gone.
func (e *Engine) serve(ifindex int) error {
	if err := e.bury(ifindex); err != nil {
		return err
	}
	err := e.attach(ifindex, isTagged(e.here, ifindex))
	if err == nil {
		return nil
	}
	if _, missing := e.space.device(ifindex); gone(missing) {
		e.log.Info("a realm's device has just gone", "ifindex", ifindex, "reason", err)
		return nil
	}
	return err
}

// bury lets go of programs that do not run on the device any more: another one has its index, or somebody
// has removed them.
func (e *Engine) bury(ifindex int) error {
	for _, h := range slices.Clone(e.hooks) {
		if h.Ifindex != ifindex {
			continue
		}
		alive, err := e.runs(h)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", h.Device, h.Hook, err)
		}
		if alive {
			continue
		}
		e.log.Warn("our program does not run on this device any more: it is attached again", "device", h.Device, "hook", h.Hook)
		if h.Hook == hookXDP || e.hookOn(ifindex, hookXDP) == nil {
			// What was remembered is of the former device.
			if err := e.undo.drop(ifindex); err != nil {
				return err
			}
		}
		if err := e.takeOff(h); err != nil {
			return err
		}
	}
	return nil
}

// runs reports whether the device that has a hook's index runs its program.
func (e *Engine) runs(h *hook) (bool, error) {
	id, err := h.program()
	if errors.Is(err, errNoFilter) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return e.space.runs(station{h.Hook, h.Ifindex, id})
}

func (e *Engine) takeOff(h *hook) error {
	if err := h.detach(); err != nil && !gone(err) {
		return fmt.Errorf("%s: detach %s: %w", h.Device, h.Hook, err)
	}
	e.hooks = slices.DeleteFunc(e.hooks, func(other *hook) bool { return other == h })
	return nil
}

// leave takes the programs off devices that have no point any more, and clears the tables of them. What
// cannot be undone on a device stays remembered.
func (e *Engine) leave() error {
	if err := e.tables.shut(e.objs, e.next); err != nil {
		return err
	}
	stays := deviceList(e.here)
	for _, h := range slices.Clone(e.hooks) {
		if h.Ifindex == 0 || slices.Contains(stays, h.Ifindex) {
			continue
		}
		if err := e.takeOff(h); err != nil {
			return err
		}
		e.log.Info("kernel engine detached", "device", h.Device, "hook", h.Hook)
	}
	for _, ifindex := range e.undo.devices() {
		if slices.Contains(stays, ifindex) {
			continue
		}
		if err := e.undo.device(e.space, ifindex); err != nil {
			e.log.Warn("a device without a realm is not as it was before", "ifindex", ifindex, "error", err)
		}
	}
	return e.tables.clear(e.objs, e.next)
}
