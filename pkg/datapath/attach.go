package datapath

import (
	"errors"
	"fmt"
	"log/slog"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Modes of attachment.
const (
	modeNative  = "native"
	modeGeneric = "generic"
)

// device is a network device with our program on it.
type device struct {
	name    string
	ifindex int
	mode    string
	link    link.Link
	// restore turns VLAN receive offload on again, if attach turned it off.
	restore func() error
}

// attach puts the program on a device. Frames must arrive with their VLAN tags: a tag that
// the device has taken off would put the packet into the untagged realm.
func attach(prog *ebpf.Program, ifindex int, tagged bool, log *slog.Logger) (*device, error) {
	ifi, err := net.InterfaceByIndex(ifindex)
	if err != nil {
		return nil, fmt.Errorf("device with index %d: %w", ifindex, err)
	}
	d := &device{name: ifi.Name, ifindex: ifindex, mode: modeNative}
	d.link, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil && !busy(err) {
		log.Warn("no native XDP on this device: generic mode costs several times the CPU", "device", d.name, "error", err)
		d.mode = modeGeneric
		d.link, err = link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: link.XDPGenericMode})
	}
	if busy(err) {
		return nil, fmt.Errorf("%s: %w: look at it with \"bpftool net\", remove it with \"ip link set dev %s xdp off\" "+
			"or by ending the process that attached it", d.name, ErrBusy, d.name)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: attach XDP: %w", d.name, err)
	}
	d.restore, err = disableVLANReceiveOffload(d.name)
	if err != nil {
		if tagged {
			return nil, errors.Join(fmt.Errorf("%s: turn VLAN receive offload off, without which no tagged realm works: %w", d.name, err), d.detach())
		}
		log.Debug("VLAN receive offload left as it is", "device", d.name, "error", err)
	}
	return d, nil
}

// busy: EBUSY for a program in the same mode, EEXIST for one in the other mode.
func busy(err error) bool {
	return errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EEXIST)
}

func (d *device) detach() error {
	var errs []error
	if err := d.link.Close(); err != nil {
		errs = append(errs, fmt.Errorf("%s: detach XDP: %w", d.name, err))
	}
	if d.restore != nil {
		if err := d.restore(); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("%s: turn VLAN receive offload on again: %w", d.name, err))
		}
	}
	return errors.Join(errs...)
}
