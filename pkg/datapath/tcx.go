package datapath

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// attachTC puts the program on what a device receives: by a tcx link where the kernel has
// that (6.6), else by a filter. Programs of others stay, behind ours, which leaves them
// what it does not forward or drop.
func (e *Engine) attachTC(ifindex int, _ string) (attached, string, error) {
	if !e.noTCX {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: ifindex, Program: e.objs.TandemTc, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
		})
		if err == nil {
			return pinnedLink{l}, hookTCX, nil
		}
		if !errors.Is(err, ebpf.ErrNotSupported) {
			return nil, "", fmt.Errorf("attach TC: %w", err)
		}
	}
	f, err := e.space.attachFilter(e.objs.TandemTc, ifindex, e.undo)
	if err != nil {
		return nil, "", fmt.Errorf("attach TC: %w", err)
	}
	return f, hookClsact, nil
}
