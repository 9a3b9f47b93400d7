package datapath

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// space is the network namespace that the engine was opened in. Its sockets stay there,
// whichever thread uses them.
type space struct {
	netlink *netlink.Handle
	control int    // socket for ioctl
	cookie  uint64 // unlike the inode number of a namespace, never used again
}

func openSpace() (_ *space, err error) {
	s := &space{}
	if s.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
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
	l, err := s.netlink.LinkByIndex(ifindex)
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
	l, err := s.netlink.LinkByIndex(ifindex)
	if err != nil {
		return false, fmt.Errorf("device with index %d: %w", ifindex, err)
	}
	return l.Type() != "tuntap", nil
}
