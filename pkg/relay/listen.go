package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketBuffer is asked for in each direction, in bytes: room for some 1,000 packets of audio
// while a reader waits for a CPU, and for what a flood brings along.
const socketBuffer = 1 << 20

// listen opens the socket of a media port.
func listen(local netip.AddrPort, device string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var optErr error
		if err := raw.Control(func(fd uintptr) { optErr = prepare(int(fd), device) }); err != nil {
			return err
		}
		return optErr
	}}
	// Binding does not wait for anything, so there is nothing for a context to end.
	conn, err := lc.ListenPacket(context.Background(), "udp4", local.String())
	if err != nil {
		return nil, err
	}
	udp, ok := conn.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T is no UDP socket", conn), conn.Close())
	}
	return udp, nil
}

// prepare sets the options of a socket before it is bound.
func prepare(fd int, device string) error {
	if device != "" {
		if err := unix.BindToDevice(fd, device); err != nil {
			return fmt.Errorf("bind to device %q: %w", device, err)
		}
	}
	for _, o := range []struct {
		name                        string
		level, option, value, force int
	}{
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer, unix.SO_RCVBUFFORCE},
		{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer, unix.SO_SNDBUFFORCE},
		{"SO_TIMESTAMPNS", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1, 0},
		{"IP_RECVTOS", unix.IPPROTO_IP, unix.IP_RECVTOS, 1, 0},
		{"SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST, 0, 0}, // Go allows it, and a peer may name any address
	} {
		// Beyond net.core.rmem_max and wmem_max with CAP_NET_ADMIN only; without it less has to do.
		if o.force != 0 && unix.SetsockoptInt(fd, o.level, o.force, o.value) == nil {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	return nil
}
