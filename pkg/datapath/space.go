package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is the network namespace that the engine was opened in. Its sockets stay there,
// whichever thread uses them.
type space struct {
	netlink *netlink.Handle
	link    func(ifindex int) (netlink.Link, error) // of netlink; tests have it fail
	control int                                     // socket for ioctl
	cookie  uint64                                  // unlike the inode number of a namespace, never used again
}

func openSpace() (_ *space, err error) {
	s := &space{}
	if s.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	s.link = s.netlink.LinkByIndex
	if s.control, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		s.netlink.Close()
		return nil, fmt.Errorf("open a control socket: %w", err)
	}
	if s.cookie, err = unix.GetsockoptUint64(s.control, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
		s.close()
		return nil, fmt.Errorf("cookie of the network namespace: %w", err)
	}
	return s, nil
}

// close may be called on nil.
func (s *space) close() {
	if s == nil {
		return
	}
	s.netlink.Close()
	_ = unix.Close(s.control)
}

// gone: the device does not exist any more.
func gone(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.As(err, &notFound)
}

func (s *space) device(ifindex int) (*netlink.LinkAttrs, error) {
	l, err := s.link(ifindex)
	if err != nil {
		return nil, fmt.Errorf("device with index %d: %w", ifindex, err)
	}
	return l.Attrs(), nil
}

// hasLinkLayer: frames of the device begin with an Ethernet header. Those of tunnels begin with IP.
func hasLinkLayer(attrs *netlink.LinkAttrs) bool {
	return attrs.EncapType == "ether" || attrs.EncapType == "loopback"
}

// isPolled: with native XDP the device hands over packets by NAPI. A tap does so when somebody writes
// to it.
func (s *space) isPolled(ifindex int) (bool, error) {
	l, err := s.link(ifindex)
	if err != nil {
		return false, fmt.Errorf("device with index %d: %w", ifindex, err)
	}
	return l.Type() != "tuntap", nil
}

// runs reports whether the device that has a station's index here runs its program, as the device
// itself tells.
func (s *space) runs(at station) (bool, error) {
	running, err := s.programs(at.hook, at.ifindex)
	return slices.Contains(running, at.program), err
}

// programs are those that a device runs at a hook. One that is gone runs none.
func (s *space) programs(hook string, ifindex int) ([]ebpf.ProgramID, error) {
	switch hook {
	case hookXDP:
		attrs, err := s.device(ifindex)
		if gone(err) || err == nil && (attrs.Xdp == nil || attrs.Xdp.ProgId == 0) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		return []ebpf.ProgramID{ebpf.ProgramID(attrs.Xdp.ProgId)}, nil
	case hookTCX:
		found, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
		if gone(err) || errors.Is(err, unix.EINVAL) || errors.Is(err, ebpf.ErrNotSupported) { // EINVAL: before 6.6
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("device %d: %w", ifindex, err)
		}
		var running []ebpf.ProgramID
		for _, p := range found.Programs {
			running = append(running, p.ID)
		}
		return running, nil
	default:
		f, err := s.findFilter(ifindex)
		if err != nil || f == nil {
			return nil, err
		}
		return []ebpf.ProgramID{ebpf.ProgramID(f.Id)}, nil
	}
}
