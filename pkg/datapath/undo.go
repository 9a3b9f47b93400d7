package datapath

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cilium/ebpf"
)

// maxDevices bounds the devices whose settings are remembered.
const maxDevices = 4096

// What undo remembers of a device.
const (
	undoVLANOffload   = 1 << iota // VLAN receive offload was on
	undoQdisc                     // the clsact qdisc is ours
	undoFilter                    // so is a filter there
	undoGROList                   // rx-gro-list was on
	undoGROForwarding             // rx-udp-gro-forwarding was on

	undoGRO      = undoGROList | undoGROForwarding
	undoOffloads = undoVLANOffload | undoGRO
)

// undo remembers what was done to devices and does not end with the programs. It is
// written before the deed, so that a crash forgets nothing.
type undo struct {
	done   map[int]uint32
	pinned *ebpf.Map // ifindex -> done; nil if nothing is pinned
}

// pinnedUndo is what is remembered at path.
func pinnedUndo(path string) (*undo, error) {
	u := &undo{done: map[int]uint32{}}
	var err error
	u.pinned, err = ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		u.pinned, err = ebpf.NewMap(&ebpf.MapSpec{
			Name: mapUndo, Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: maxDevices,
		})
		if err == nil {
			err = u.pinned.Pin(path)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("pins: %s: %w", path, err), u.close())
	}
	var ifindex, done uint32
	entries := u.pinned.Iterate()
	for entries.Next(&ifindex, &done) {
		u.done[int(ifindex)] = done
	}
	if err := entries.Err(); err != nil {
		return nil, errors.Join(fmt.Errorf("pins: %s: %w", path, err), u.close())
	}
	return u, nil
}

func (u *undo) devices() []int {
	var list []int
	for ifindex := range u.done {
		list = append(list, ifindex)
	}
	return list
}

func (u *undo) has(ifindex int, what uint32) bool { return u.done[ifindex]&what != 0 }

// remember that something is about to be done to a device.
func (u *undo) remember(ifindex int, what uint32) error {
	return u.write(ifindex, u.done[ifindex]|what)
}

func (u *undo) write(ifindex int, done uint32) error {
	u.done[ifindex] = done
	if u.pinned == nil {
		return nil
	}
	if err := u.pinned.Put(uint32(ifindex), u.done[ifindex]); err != nil {
		return fmt.Errorf("remember the settings of device %d: %w", ifindex, err)
	}
	return nil
}

// device puts a device back as it was. One that is gone is no error.
func (u *undo) device(s *space, ifindex int) error {
	var errs []error
	if u.has(ifindex, undoFilter) {
		errs = append(errs, s.removeFilter(ifindex))
	}
	if u.has(ifindex, undoQdisc) {
		errs = append(errs, s.removeQdisc(ifindex))
	}
	errs = append(errs, s.setOffloads(ifindex, u.done[ifindex]))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return u.drop(ifindex)
}

// offloads puts those back alone: while the programs stay, and no call is left that would lose its tags or
// its packets by it.
func (u *undo) offloads(s *space) error {
	var errs []error
	for _, ifindex := range u.devices() {
		if !u.has(ifindex, undoOffloads) {
			continue
		}
		if err := s.setOffloads(ifindex, u.done[ifindex]); err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, u.write(ifindex, u.done[ifindex]&^undoOffloads))
	}
	return errors.Join(errs...)
}

// drop forgets a device.
func (u *undo) drop(ifindex int) error {
	delete(u.done, ifindex)
	if u.pinned == nil {
		return nil
	}
	if err := u.pinned.Delete(uint32(ifindex)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("forget the settings of device %d: %w", ifindex, err)
	}
	return nil
}

// forget drops some devices and undoes nothing.
func (u *undo) forget(these func(ifindex int) bool) error {
	var errs []error
	for _, ifindex := range u.devices() {
		if these(ifindex) {
			errs = append(errs, u.drop(ifindex))
		}
	}
	return errors.Join(errs...)
}

// all puts every device back.
func (u *undo) all(s *space) error {
	var errs []error
	for _, ifindex := range u.devices() {
		errs = append(errs, u.device(s, ifindex))
	}
	return errors.Join(errs...)
}

func (u *undo) unpin() error {
	if u.pinned == nil {
		return nil
	}
	return u.pinned.Unpin()
}

func (u *undo) close() error {
	if u == nil || u.pinned == nil {
		return nil
	}
	return u.pinned.Close()
}
