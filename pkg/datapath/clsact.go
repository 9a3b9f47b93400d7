package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Where our filter is, on kernels without tcx (before 6.6). It is found again by these: it
// stays when the process ends, with or without pins.
const (
	filterName     = "tandem_tc"
	filterHandle   = 0x74646d // "tdm"
	filterPriority = 1        // before every filter of others
)

// filter is the TC program on a device by a clsact qdisc.
type filter struct {
	space   *space
	ifindex int
}

func ourFilter(ifindex int) *netlink.BpfFilter {
	return &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: filterHandle,
			Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Name:         filterName,
		DirectAction: true,
	}
}

// findFilter returns our filter on a device, nil if there is none.
func (s *space) findFilter(ifindex int) (*netlink.BpfFilter, error) {
	filters, err := s.netlink.FilterList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}, netlink.HANDLE_MIN_INGRESS)
	if gone(err) || errors.Is(err, unix.EINVAL) { // EINVAL: it has no clsact qdisc
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the filters of device %d: %w", ifindex, err)
	}
	for _, f := range filters {
		if ours, ok := f.(*netlink.BpfFilter); ok && ours.Handle == filterHandle && ours.Priority == filterPriority {
			return ours, nil
		}
	}
	return nil, nil
}

// attachFilter puts the program on a device, in the place of a former one of ours.
func (s *space) attachFilter(prog *ebpf.Program, ifindex int, u *undo) (*filter, error) {
	qdiscs, err := s.netlink.QdiscList(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}})
	if err != nil {
		return nil, fmt.Errorf("list the qdiscs: %w", err)
	}
	has := false
	for _, q := range qdiscs {
		has = has || q.Attrs().Parent == netlink.HANDLE_INGRESS // clsact and ingress share the place
	}
	if !has {
		if err := u.remember(ifindex, undoQdisc); err != nil {
			return nil, err
		}
		if err := s.netlink.QdiscAdd(clsact(ifindex)); err != nil {
			return nil, fmt.Errorf("add a clsact qdisc: %w", err)
		}
	}
	if err := u.remember(ifindex, undoFilter); err != nil {
		return nil, err
	}
	f := &filter{space: s, ifindex: ifindex}
	return f, f.replace(prog)
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// removeFilter takes our filter off a device. One that is gone is no error.
func (s *space) removeFilter(ifindex int) error {
	f, err := s.findFilter(ifindex)
	if err != nil || f == nil {
		return err
	}
	if err := s.netlink.FilterDel(f); err != nil && !gone(err) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("device %d: remove the filter: %w", ifindex, err)
	}
	return nil
}

// removeQdisc removes the clsact qdisc that we made, unless others use it by now.
func (s *space) removeQdisc(ifindex int) error {
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: ifindex}}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		filters, err := s.netlink.FilterList(l, parent)
		if gone(err) || errors.Is(err, unix.EINVAL) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list the filters of device %d: %w", ifindex, err)
		}
		if len(filters) > 0 {
			return nil
		}
	}
	if err := s.netlink.QdiscDel(clsact(ifindex)); err != nil && !gone(err) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("device %d: remove the clsact qdisc: %w", ifindex, err)
	}
	return nil
}

var errNoFilter = errors.New("the filter is gone")

func (f *filter) program() (ebpf.ProgramID, error) {
	found, err := f.space.findFilter(f.ifindex)
	if err != nil {
		return 0, err
	}
	if found == nil {
		return 0, errNoFilter
	}
	return ebpf.ProgramID(found.Id), nil
}

// replace is atomic: the kernel swaps the filter under its handle and priority.
func (f *filter) replace(prog *ebpf.Program) error {
	ours := ourFilter(f.ifindex)
	ours.Fd = prog.FD()
	if err := f.space.netlink.FilterReplace(ours); err != nil {
		return fmt.Errorf("set the filter: %w", err)
	}
	return nil
}

// detach takes off the filter; the qdisc goes with what else is undone.
func (f *filter) detach() error { return f.space.removeFilter(f.ifindex) }

func (f *filter) close() error { return nil }
