package datapath

import (
	"errors"
	"fmt"
	"slices"
)

// Update tells where the realms are now: their points may be others, and devices may have come, gone, or
// been made again. Calls go on: flows stay, and packets that come in by places that stay find them at each
// moment. Programs are put on devices that have none of ours, be it that they have just been made in the
// place of others with the same index, and taken off those that have no point any more. Devices that do
// not exist are left out. It must be called in the network namespace of Open. The error joins those of
// devices; all others are served.
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
	if err := e.describe(realms); err != nil {
		return err
	}
	realms, err := e.present(realms)
	if err != nil {
		return err
	}
	if err := e.arrange(realms); err != nil {
		return err
	}
	e.hops.serve(linkDevices(realms))
	var errs []error
	for _, ifindex := range deviceList(realms) {
		errs = append(errs, e.serve(ifindex, isTagged(realms, ifindex)))
	}
	errs = append(errs, e.leave(realms), writeGuard(e.objs, e.guard, realms))
	return errors.Join(errs...)
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

// present leaves out the points whose devices do not exist.
func (e *Engine) present(realms []Realm) ([]Realm, error) {
	there := map[int]bool{}
	for _, ifindex := range deviceList(realms) {
		attrs, err := e.space.device(ifindex)
		if gone(err) {
			e.log.Info("a realm's device is not there yet", "ifindex", ifindex)
			continue
		}
		if err != nil {
			return nil, err
		}
		there[ifindex] = true
		bare := slices.ContainsFunc(realms, func(r Realm) bool {
			return slices.ContainsFunc(r.Points, func(p Point) bool { return p.Ifindex == ifindex && p.Bare })
		})
		if bare == hasLinkLayer(attrs) {
			return nil, fmt.Errorf("%s: has a link layer: %v, where the realm says otherwise", attrs.Name, !bare)
		}
	}
	realms = slices.Clone(realms)
	for i, r := range realms {
		realms[i].Points = slices.DeleteFunc(slices.Clone(r.Points), func(p Point) bool { return !there[p.Ifindex] })
	}
	return realms, nil
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

// arrange brings the tables in step with the realms, all of whose devices exist, but for what goes: that
// is for leave, when the programs are where they shall be.
func (e *Engine) arrange(realms []Realm) error {
	next, err := e.tables.layOut(spotsOf(e.objs.Realms.MaxEntries()), realms, e.realms)
	if err != nil {
		return err
	}
	for ifindex := range linkDevices(realms) {
		// A device that was made again is not in the table any more, whatever its index.
		var there uint32
		if err := e.objs.Devices.Lookup(uint32(ifindex), &there); err == nil {
			continue
		}
		if err := e.objs.Devices.Put(uint32(ifindex), uint32(ifindex)); err != nil {
			return fmt.Errorf("device with index %d: %w", ifindex, err)
		}
	}
	if err := e.tables.enter(e.objs, next); err != nil {
		return err
	}
	e.next = next
	return nil
}

// serve puts our programs on a device, in the place of those whose device has gone.
func (e *Engine) serve(ifindex int, tagged bool) error {
	if err := e.bury(ifindex); err != nil {
		return err
	}
	err := e.attach(ifindex, tagged)
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
		if h.Hook == hookXDP {
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
func (e *Engine) leave(realms []Realm) error {
	if err := e.tables.shut(e.objs, e.next); err != nil {
		return err
	}
	stays := deviceList(realms)
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
