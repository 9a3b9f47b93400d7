package relay

import (
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// readPause is the wait after a read that failed for another reason than Close, so
// that an error that stays cannot keep a core busy.
const readPause = 10 * time.Millisecond

// socket is one of our ports in one realm.
type socket struct {
	key   call.FlowKey
	conn  *net.UDPConn
	raw   syscall.RawConn // of conn
	realm *realm
	// flow is the one that arrives here, above the one that arrives at the next port,
	// for RTCP that shares this one; nil if none does.
	flow, above atomic.Pointer[flow]
	// refs is how many paths use the socket; Engine.mu guards it.
	refs    int
	closing chan struct{}
	done    chan struct{}
}

// path is a flow's way from socket to socket. It does not change once made.
type path struct {
	flow call.Flow
	// out is nil on hold, if the flow does not say where it would leave.
	in, out *socket
	dest    unix.RawSockaddrInet4
}

// open makes the path of a canonical flow, opening the sockets that are not open yet.
func (e *Engine) open(f call.Flow) (*path, error) {
	if err := validate(&f); err != nil {
		return nil, err
	}
	in, err := e.acquire(f.Key)
	if err != nil {
		return nil, err
	}
	p := &path{flow: f, in: in}
	if !sendable(f.Source) {
		return p, nil
	}
	if p.out, err = e.acquire(call.FlowKey{Realm: f.OutRealm, Local: f.Source}); err != nil {
		e.release([]*path{p})
		return nil, err
	}
	if !f.Hold {
		p.dest = sockaddr(f.Dest)
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
	r := e.realms[key.Realm]
	if r == nil {
		return nil, fmt.Errorf("realm %d is unknown", key.Realm)
	}
	conn, err := listen(key.Local, r.device)
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	s := &socket{key: key, conn: conn, raw: raw, realm: r, refs: 1, closing: make(chan struct{}), done: make(chan struct{})}
	s.above.Store(e.flows[above(key)])
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

// read forwards packets until the socket is closed. It never leaves the socket unread,
// whoever sends: what waits there would be the peer's.
func (s *socket) read(e *Engine) {
	defer close(s.done)
	// A batch is held only while there are packets in it: most sockets wait most of the time.
	var b *batch
	receive := func(fd uintptr) bool {
		b = e.batches.Get().(*batch)
		if b.receive(fd) {
			return true
		}
		e.batches.Put(b)
		return false
	}
	for {
		err := s.raw.Read(receive)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && b.readErr != 0 {
			err = b.readErr
			e.batches.Put(b)
		}
		if err == nil {
			s.forward(e, b)
			e.batches.Put(b)
			continue
		}
		e.log.Debug("media socket not read", "local", s.key.Local, "error", err)
		select {
		case <-s.closing:
			return
		case <-time.After(readPause):
		}
	}
}

// forward handles the packets of a batch.
func (s *socket) forward(e *Engine, b *batch) {
	now := time.Now()
	var counted tally
	for i := range b.received {
		p, tos := b.packet(i, now)
		x, way := s.judge(e, &p)
		counted[x]++
		if way != nil {
			b.leave(i, way, len(p.data), tos)
		}
	}
	failed := uint64(b.send())
	counted[exitForwarded] -= failed
	counted[exitSendFailed] += failed
	s.realm.exits.add(&counted)
}
