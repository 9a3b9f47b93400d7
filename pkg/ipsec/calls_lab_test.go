package ipsec

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
)

// calls sends 50 packets a second through the tunnel and has the peer send each back.
type calls struct {
	t        *testing.T
	cancel   context.CancelFunc
	done     sync.WaitGroup
	mu       sync.Mutex
	sent     uint32
	answered map[uint32]bool
}

func (l *ikeLab) stream() *calls {
	l.t.Helper()
	var ours, theirs net.PacketConn
	l.in(l.theirs, func() (err error) {
		theirs, err = net.ListenPacket("udp4", netip.AddrPortFrom(peerInner, 4000).String())
		return err
	})
	l.in(l.ours, func() (err error) {
		ours, err = net.ListenPacket("udp4", netip.AddrPortFrom(ourInner, 4000).String())
		return err
	})
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.t.Context()))
	s := &calls{t: l.t, cancel: cancel, answered: make(map[uint32]bool)}
	s.done.Go(func() {
		b := make([]byte, 64)
		for {
			n, from, err := theirs.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = theirs.WriteTo(b[:n], from)
		}
	})
	s.done.Go(func() {
		b := make([]byte, 64)
		for {
			n, _, err := ours.ReadFrom(b)
			if err != nil {
				return
			}
			if n >= 4 {
				s.mu.Lock()
				s.answered[binary.BigEndian.Uint32(b)] = true
				s.mu.Unlock()
			}
		}
	})
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(peerInner, 4000))
	s.done.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				// What is under way comes in.
				time.Sleep(300 * time.Millisecond)
				_ = ours.Close()
				_ = theirs.Close()
				return
			case <-tick.C:
				s.mu.Lock()
				s.sent++
				n := s.sent
				s.mu.Unlock()
				// What cannot be sent is lost, as on the wire.
				_, _ = ours.WriteTo(binary.BigEndian.AppendUint32(nil, n), to)
			}
		}
	})
	l.t.Cleanup(func() { cancel(); s.done.Wait() })
	return s
}

// end stops it and returns how many were sent, and which have no answer.
func (s *calls) end() (sent int, lost []uint32) {
	s.cancel()
	s.done.Wait()
	for n := uint32(1); n <= s.sent; n++ {
		if !s.answered[n] {
			lost = append(lost, n)
		}
	}
	return int(s.sent), lost
}

// raced counts the packets that a kernel has dropped because the SA chosen for them was deleted
// before they got to it. A rekey leaves microseconds for that, or milliseconds on emulated
// processors that wait for the host.
func (l *ikeLab) raced() int {
	l.t.Helper()
	var dropped uint64
	for _, path := range []string{l.ours, l.theirs} {
		l.in(path, func() error {
			f, err := os.Open("/proc/thread-self/net/xfrm_stat")
			if err != nil {
				return err
			}
			defer f.Close()
			values, err := readStatistics(f)
			dropped += values["XfrmOutStateInvalid"]
			return err
		})
	}
	return int(dropped)
}
