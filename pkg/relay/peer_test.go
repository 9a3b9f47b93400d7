package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 5 * time.Second

// peer is an endpoint on loopback that sees what it gets, DSCP included.
type peer struct {
	t    testing.TB
	conn *net.UDPConn
}

func newPeer(t testing.TB) *peer {
	t.Helper()
	return newPeerAt(t, "127.0.0.1")
}

func newPeerAt(t testing.TB, addr string) *peer {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if ctlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_RECVTOS, 1) }); ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	conn, err := lc.ListenPacket(context.Background(), "udp4", addr+":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return &peer{t: t, conn: conn.(*net.UDPConn)}
}

func (p *peer) addr() netip.AddrPort { return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *peer) send(to netip.AddrPort, packet []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(packet, to); err != nil {
		p.t.Fatal(err)
	}
}

// expect reads one packet and returns its source and DSCP.
func (p *peer) expect(packet []byte) (netip.AddrPort, int) {
	p.t.Helper()
	from, tos := p.expectTOS(packet)
	return from, tos >> 2
}

// expectTOS returns the congestion bits too.
func (p *peer) expectTOS(packet []byte) (netip.AddrPort, int) {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		p.t.Fatal(err)
	}
	buf, control := make([]byte, 4096), make([]byte, 64)
	n, cn, _, from, err := p.conn.ReadMsgUDPAddrPort(buf, control)
	if err != nil {
		p.t.Fatalf("nothing came: %v", err)
	}
	if !bytes.Equal(buf[:n], packet) {
		p.t.Fatalf("got % x\nwant % x", buf[:n], packet)
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil || len(messages) != 1 {
		p.t.Fatalf("%d control messages, %v", len(messages), err)
	}
	return from, int(messages[0].Data[0])
}

// nothing reads what has come by now, which is to be nothing.
func (p *peer) nothing() {
	p.t.Helper()
	raw, err := p.conn.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := raw.Control(func(fd uintptr) {
		if n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
			p.t.Errorf("got %d bytes, %v", n, err)
		}
	}); err != nil {
		p.t.Fatal(err)
	}
}

// rtp is a packet of 160 bytes of payload.
func rtp(seq uint16) []byte {
	b := make([]byte, 172)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], seq)
	binary.BigEndian.PutUint32(b[4:], uint32(seq)*160)
	binary.BigEndian.PutUint32(b[8:], 0xfeedbeef)
	for i := range b[12:] {
		b[12+i] = byte(i) ^ byte(seq)
	}
	return b
}

// receiverReport is the smallest RTCP packet.
func receiverReport() []byte { return []byte{0x80, 201, 0, 1, 1, 2, 3, 4} }

// freePort returns an even port on loopback that was free, and the one above too.
func freePort(t testing.TB) uint16 {
	t.Helper()
	for range 50 {
		a, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		port := a.LocalAddr().(*net.UDPAddr).Port
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		if port%2 != 0 {
			continue
		}
		b, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port + 1})
		if err != nil {
			continue
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		return uint16(port)
	}
	t.Fatal("no free port pair")
	return 0
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// pair is a relay between two peers: RTP both ways.
type pair struct {
	*Engine
	a, b  *peer
	flows []call.Flow // a to b, b to a
}

func (p *pair) keys() []call.FlowKey { return []call.FlowKey{p.flows[0].Key, p.flows[1].Key} }

// in is where a sends to.
func (p *pair) in() netip.AddrPort { return p.flows[0].Key.Local }

func (p *pair) stats(t *testing.T) []call.FlowStats {
	t.Helper()
	s, err := p.Snapshot(p.keys())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newEngine(t testing.TB) *Engine {
	t.Helper()
	e, err := New(Config{Realms: []Realm{{Number: 1}, {Number: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if len(e.sockets) != 0 {
			t.Errorf("%d sockets left", len(e.sockets))
		}
	})
	return e
}

func newPair(t testing.TB) *pair {
	t.Helper()
	p := &pair{Engine: newEngine(t), a: newPeer(t), b: newPeer(t)}
	p.flows = between(p.a.addr(), loopback(freePort(t)), loopback(freePort(t)), p.b.addr())
	if err := p.Install(p.flows); err != nil {
		t.Fatal(err)
	}
	return p
}

// between makes the two RTP flows of a call: peer a in realm 1, peer b in realm 2.
func between(a, nearA, nearB, b netip.AddrPort) []call.Flow {
	return []call.Flow{
		{Key: call.FlowKey{Realm: 1, Local: nearA}, Remote: a, OutRealm: 2, Source: nearB, Dest: b, DSCP: 46, ClockRate: 8000},
		{Key: call.FlowKey{Realm: 2, Local: nearB}, Remote: b, OutRealm: 1, Source: nearA, Dest: a, DSCP: 34, ClockRate: 8000},
	}
}

// exitCount is over all realms.
func exitCount(t *testing.T, e *Engine, reason string) uint64 {
	t.Helper()
	s, err := e.Stats()
	if err != nil {
		t.Fatal(err)
	}
	known, n := false, uint64(0)
	for _, x := range s.Exits {
		if x.Reason == reason {
			known = true
			n += x.Packets
		}
	}
	if !known {
		t.Fatalf("no exit %q", reason)
	}
	return n
}

// waitExit waits until a packet has left by an exit.
func waitExit(t *testing.T, e *Engine, reason string) {
	t.Helper()
	waitExitAbove(t, e, reason, 0)
}

// waitExitAbove waits until more packets than before have left by an exit.
func waitExitAbove(t *testing.T, e *Engine, reason string, before uint64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-tick.C {
		if exitCount(t, e, reason) > before {
			return
		}
	}
	t.Fatalf("no more than %d packets left by %q", before, reason)
}
