package sipua

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// receiveBuffer is asked of the kernel, so that a burst waits there and not at the
// peers' retransmission timers.
const receiveBuffer = 8 << 20

// sendBuffer is where messages to hosts wait that the kernel still looks for, by ARP: up to 200 KiB
// each, which the usual buffer holds for one of them. It takes no memory that is not needed.
const sendBuffer = 64 << 20

// readPause is the wait after an error of the socket.
const readPause = 10 * time.Millisecond

// listenUDP opens the realm's socket.
func listenUDP(cfg *Config) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		ctlErr := raw.Control(func(fd uintptr) { err = prepare(int(fd), cfg) })
		if ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp4", cfg.Listen.String())
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("sipua: realm %s: %w; `ss -lunp` shows who has it", cfg.Realm, err)
	}
	if err != nil {
		return nil, fmt.Errorf("sipua: realm %s: %w", cfg.Realm, err)
	}
	return pc.(*net.UDPConn), nil
}

func prepare(fd int, cfg *Config) error {
	if cfg.Device != "" {
		if err := unix.BindToDevice(fd, cfg.Device); err != nil {
			return fmt.Errorf("bind to device %s: %w", cfg.Device, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TOS, int(cfg.DSCP)<<2); err != nil {
		return fmt.Errorf("set DSCP %d: %w", cfg.DSCP, err)
	}
	// After IP_TOS, which sets a priority of its own.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, int(cfg.Priority)); err != nil {
		return fmt.Errorf("set priority %d: %w", cfg.Priority, err)
	}
	// Beyond rmem_max and wmem_max only with CAP_NET_ADMIN; less than we ask for still works.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, sendBuffer)
	}
	return nil
}

// sender sends datagrams and waits for nothing: one that finds no room is not sent (EAGAIN). Who
// waits keeps the messages to all other peers waiting, too.
func sender(conn *net.UDPConn) (func(b []byte, to netip.AddrPort) error, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("sipua: %w", err)
	}
	return func(b []byte, to netip.AddrPort) (err error) {
		host := to.Addr().Unmap()
		if !host.Is4() {
			return fmt.Errorf("%s is not IPv4", to)
		}
		ctlErr := raw.Write(func(fd uintptr) bool {
			err = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: host.As4(), Port: int(to.Port())})
			return true
		})
		return cmp.Or(ctlErr, err)
	}, nil
}

// Rebind binds the socket to the device that has the config's name now, and reports whether that is
// another one: the kernel binds to an index, and a device that was made again may have a new one.
// Legs and transactions go on.
func (s *Stack) Rebind() (moved bool, err error) {
	if s.cfg.Device == "" {
		return false, nil
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return false, fmt.Errorf("sipua: realm %s: %w", s.cfg.Realm, err)
	}
	ctlErr := raw.Control(func(fd uintptr) { moved, err = rebind(int(fd), s.cfg.Device) })
	if err = errors.Join(ctlErr, err); err != nil {
		return false, fmt.Errorf("sipua: realm %s: bind to device %s: %w", s.cfg.Realm, s.cfg.Device, err)
	}
	return moved, nil
}

func rebind(fd int, device string) (moved bool, err error) {
	// ENODEV: the index is nobody's any more.
	bound, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err == nil && bound == device {
		return false, nil
	}
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return false, err
	}
	return true, unix.BindToDevice(fd, device)
}

// read takes each datagram all the way through, in order, until the socket is closed.
func (s *Stack) read() {
	buf := make([]byte, maxDatagram+1)
	for {
		n, src, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			// Unless it was closed the socket is still there (its device may have gone
			// down): read on, but do not spin.
			select {
			case <-s.quit:
				return
			case <-time.After(readPause):
				s.count.readErrors.Add(1)
			}
			continue
		}
		src = netip.AddrPortFrom(src.Addr().Unmap(), src.Port())
		if s.cfg.Peer(src.Addr()) == PeerUnknown {
			s.count.unknown.Add(1)
			continue
		}
		s.receive(buf[:n], src)
	}
}

// write sends one datagram. What the kernel refuses is counted and, to the caller,
// as good as lost on the way: timers deal with both. An error is returned for the
// one case in which it is better to know at once, the first sending of a request.
func (s *Stack) write(b []byte, to netip.AddrPort) error {
	if len(b) > oversize {
		s.count.oversize.Add(1)
	}
	err := s.transmit(b, to)
	if err == nil {
		return nil
	}
	s.count.sendErrors.Add(1)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOBUFS) {
		return nil // there is a way, and it is full
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) && slices.Contains(noWay, errno) {
		return fmt.Errorf("%w %s: %w", ErrUnreachable, to, errno)
	}
	return fmt.Errorf("sipua: send to %s: %w", to, err)
}

// noWay are the errors of a socket that has no route to the target: the realm's routing table
// says unreachable (no tunnel is up) or nothing, or its device or address is not there.
var noWay = []syscall.Errno{unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ENODEV}

// oversize is where RFC 3261 section 18.1.1 wants a congestion-controlled
// transport. With UDP only, such a message goes out in fragments and is counted.
const oversize = 1300
