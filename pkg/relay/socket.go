package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// maxPacket is the longest datagram that is forwarded, in bytes of UDP payload.
// Audio and RTCP stay far below it.
const maxPacket = 2048

// readPause is the wait after a read that failed for another reason than Close, so
// that an error that stays cannot keep a core busy.
const readPause = 10 * time.Millisecond

// socket is one of our ports in one realm.
type socket struct {
	key  call.FlowKey
	conn *net.UDPConn
	// flow is the one that arrives here, nil if none does.
	flow atomic.Pointer[flow]
	// refs is how many paths use the socket; Engine.mu guards it.
	refs    int
	closing chan struct{}
	done    chan struct{}
}

// path is a flow's way from socket to socket. It does not change once made.
type path struct {
	flow    call.Flow
	in, out *socket
	// control is the message that sets the DSCP of each packet (IP_TOS).
	control []byte
}

// open makes the path of a flow, opening the sockets that are not open yet.
func (e *Engine) open(f call.Flow) (*path, error) {
	for _, a := range []netip.AddrPort{f.Key.Local, f.Remote, f.Source, f.Dest} {
		if !a.Addr().Is4() || a.Port() == 0 || a.Addr().IsUnspecified() {
			return nil, fmt.Errorf("%v is no IPv4 address and port", a)
		}
	}
	if f.DSCP > 63 {
		return nil, fmt.Errorf("DSCP %d is not from 0 to 63", f.DSCP)
	}
	in, err := e.acquire(f.Key)
	if err != nil {
		return nil, err
	}
	p := &path{flow: f, in: in, control: tosMessage(f.DSCP)}
	if p.out, err = e.acquire(call.FlowKey{Realm: f.OutRealm, Local: f.Source}); err != nil {
		e.release([]*path{p})
		return nil, err
	}
	return p, nil
}

// acquire returns the socket at key, opened if it is not there, with a reference
// for the caller. Engine.mu is held.
func (e *Engine) acquire(key call.FlowKey) (*socket, error) {
	if s := e.sockets[key]; s != nil {
		s.refs++
		return s, nil
	}
	device, known := e.devices[key.Realm]
	if !known {
		return nil, fmt.Errorf("realm %d is unknown", key.Realm)
	}
	conn, err := listen(key.Local, device)
	if err != nil {
		return nil, err
	}
	s := &socket{key: key, conn: conn, refs: 1, closing: make(chan struct{}), done: make(chan struct{})}
	e.sockets[key] = s
	go s.read(e)
	return s, nil
}

// release gives the sockets of paths back, and returns when those that nobody uses
// any more have handled their last packet. Engine.mu is held; no reader takes it.
func (e *Engine) release(paths []*path) {
	var last []*socket
	for _, p := range paths {
		for _, s := range []*socket{p.in, p.out} {
			if s == nil {
				continue
			}
			if s.refs--; s.refs > 0 {
				continue
			}
			delete(e.sockets, s.key)
			close(s.closing)
			if err := s.conn.Close(); err != nil {
				e.log.Warn("media socket not closed", "local", s.key.Local, "error", err)
			}
			last = append(last, s)
		}
	}
	// All are closed before the first is waited for: a reader may be writing to another.
	for _, s := range last {
		<-s.done
	}
}

func listen(local netip.AddrPort, device string) (*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		if device == "" {
			return nil
		}
		var bindErr error
		if err := raw.Control(func(fd uintptr) { bindErr = unix.BindToDevice(int(fd), device) }); err != nil {
			return err
		}
		if bindErr != nil {
			return fmt.Errorf("bind to device %q: %w", device, bindErr)
		}
		return nil
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

// read forwards packets until the socket is closed. Nothing is allocated per packet.
func (s *socket) read(e *Engine) {
	defer close(s.done)
	buf := make([]byte, maxPacket+1) // one more, to tell a longer packet
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			e.exits[s.forward(e, buf[:n], from)].Add(1)
		case errors.Is(err, net.ErrClosed):
			return
		default:
			e.log.Debug("media socket not read", "local", s.key.Local, "error", err)
			select {
			case <-s.closing:
				return
			case <-time.After(readPause):
			}
		}
	}
}

// forward takes one packet through the gates, in the kernel engine's order.
func (s *socket) forward(e *Engine, packet []byte, from netip.AddrPort) exit {
	f := s.flow.Load()
	if f == nil {
		return exitNoFlow
	}
	p := f.path.Load()
	if from != p.flow.Remote {
		if f.refused() {
			e.emit(call.MediaEvent{Key: f.key, Kind: call.MediaRefused, Source: from})
		}
		return exitSourceRefused
	}
	if len(packet) > maxPacket {
		return exitTooLong
	}
	if !plausible(packet, p.flow.RTCP) {
		if p.flow.RTCP {
			return exitNotRTCP
		}
		return exitNotRTP
	}
	if f.received(packet, &p.flow, time.Now()) {
		e.emit(call.MediaEvent{Key: f.key, Kind: call.MediaStarted, Source: from})
	}
	if p.flow.Hold {
		return exitHold
	}
	if _, _, err := p.out.conn.WriteMsgUDPAddrPort(packet, p.control, p.flow.Dest); err != nil {
		return exitSendFailed
	}
	return exitForwarded
}
