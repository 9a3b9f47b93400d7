package datapath

import (
	"encoding/binary"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// packetRate is that of 400 calls, in packets per second.
const packetRate = 20000

// stream is RTP from the platform's peer to the carrier's.
type stream struct {
	sent, received, twice atomic.Int64
	stop                  chan struct{}
	sending               chan error
	conn                  *net.UDPConn
	began                 time.Time
}

// newStream sends packets of the first flow of twoWay.
func (w *wire) newStream(t *testing.T) *stream {
	t.Helper()
	f := twoWay()[0]
	s := &stream{stop: make(chan struct{}), sending: make(chan error, 1)}
	from := w.platform.dial(t, f.Remote, f.Key.Local)
	// Where the ring to the gateway is full the device stops the sender instead of dropping.
	w.platform.space.Run(t, "tc", "qdisc replace dev tdmpeer root pfifo limit 10000")
	var err error
	w.peer.space.Do(func() { s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(f.Dest)) })
	if err == nil {
		err = largeBuffer(s.conn)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close() })
	s.began = time.Now()
	go s.receive()
	go func() { s.sending <- s.send(from) }()
	s.advance(t, packetRate/100) // it flows
	return s
}

func largeBuffer(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	return errors.Join(err, set)
}

func (s *stream) send(conn *net.UDPConn) error {
	packet := rtp(0, 0, 0)
	for {
		select {
		case <-s.stop:
			return nil
		default:
		}
		due := int64(time.Since(s.began).Seconds() * packetRate)
		n := s.sent.Load()
		if n >= due {
			time.Sleep(500 * time.Microsecond)
			continue
		}
		// No burst larger than what a device's ring takes, however late we are.
		for end := min(due, n+64); n < end; n++ {
			binary.BigEndian.PutUint16(packet[2:], uint16(n))
			binary.BigEndian.PutUint32(packet[4:], uint32(n)*160)
			binary.BigEndian.PutUint64(packet[12:], uint64(n))
			if _, err := conn.Write(packet); err != nil {
				return err
			}
			s.sent.Add(1)
		}
	}
}

func (s *stream) receive() {
	buf := make([]byte, 2048)
	var seen []uint64
	for {
		n, err := s.conn.Read(buf)
		if err != nil {
			return // closed by the test's end
		}
		if n < 20 {
			continue
		}
		at := binary.BigEndian.Uint64(buf[12:])
		for uint64(len(seen)) <= at/64 {
			seen = append(seen, 0)
		}
		if seen[at/64]&(1<<(at%64)) != 0 {
			s.twice.Add(1)
			continue
		}
		seen[at/64] |= 1 << (at % 64)
		s.received.Add(1)
	}
}

// advance returns when n more packets have been sent.
func (s *stream) advance(t *testing.T, n int64) {
	t.Helper()
	want := s.sent.Load() + n
	for deadline := time.Now().Add(30 * time.Second); s.sent.Load() < want; time.Sleep(time.Millisecond) {
		select {
		case err := <-s.sending:
			t.Fatalf("the sender has ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the sender stands still")
		}
	}
}

// end stops the stream and asserts that every packet has arrived, once.
func (s *stream) end(t *testing.T) int64 {
	t.Helper()
	took := time.Since(s.began)
	close(s.stop)
	if err := <-s.sending; err != nil {
		t.Fatal(err)
	}
	sent := s.sent.Load()
	for deadline := time.Now().Add(5 * time.Second); s.received.Load() < sent && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if lost := sent - s.received.Load(); lost != 0 || s.twice.Load() != 0 {
		t.Errorf("of %d packets %d are lost and %d came twice", sent, lost, s.twice.Load())
	}
	rate := float64(sent) / took.Seconds()
	t.Logf("%d packets in %s, %.0f per second", sent, took.Round(time.Millisecond), rate)
	if rate < 0.9*packetRate {
		t.Errorf("only %.0f packets per second were sent: this proves nothing about %d", rate, packetRate)
	}
	return sent
}
