package media_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Our addresses on loopback, apart from those that other tests may use.
const relayInside, relayOutside = "127.77.0.1", "127.77.0.2"

// phone is a peer on loopback: it sends from where it receives (symmetric RTP).
type phone struct {
	t    *testing.T
	conn *net.UDPConn
	seq  uint16
}

func newPhone(t *testing.T) *phone {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 77, 1, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return &phone{t: t, conn: conn}
}

func (p *phone) addr() netip.AddrPort { return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *phone) sdp(lines ...string) string {
	return describe(p.addr().Addr().String(),
		append([]string{"m=audio " + strconv.Itoa(int(p.addr().Port())) + " RTP/AVP 8"}, lines...)...)
}

// talkTo sends packets to where the phone was told, and wants them at the other one.
func (p *phone) talkTo(other *phone, told passed, packets int) {
	p.t.Helper()
	buf := make([]byte, 2048)
	for range packets {
		p.seq++
		packet := p.packet()
		p.send(told, packet)
		if err := other.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			p.t.Fatal(err)
		}
		n, _, err := other.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			p.t.Fatalf("packet %d did not come: %v", p.seq, err)
		}
		if !bytes.Equal(buf[:n], packet) {
			p.t.Fatalf("got % x\nwant % x", buf[:n], packet)
		}
	}
}

func (p *phone) send(told passed, packet []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(packet, told.desc.Audio().RTP); err != nil {
		p.t.Fatal(err)
	}
}

func (p *phone) packet() []byte {
	b := make([]byte, 172)
	b[0], b[1] = 0x80, 8
	binary.BigEndian.PutUint16(b[2:], p.seq)
	binary.BigEndian.PutUint32(b[4:], uint32(p.seq)*160)
	for i := range b[12:] {
		b[12+i] = byte(i) * byte(p.seq)
	}
	return b
}

// overRelay is a session whose flows the relay really forwards.
func overRelay(t *testing.T, outside call.PortRange) (*talk, *relay.Engine) {
	t.Helper()
	engine, err := relay.New(relay.Config{Realms: []relay.Realm{{Number: 1}, {Number: 2}}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := media.New(media.Config{Engine: engine, Quarantine: time.Minute, Realms: []media.Realm{
		{Name: "inside", Number: 1, Addr: netip.MustParseAddr(relayInside), Ports: call.PortRange{First: 18000, Last: 18099}, DSCP: 46},
		{Name: "outside", Number: 2, Addr: netip.MustParseAddr(relayOutside), Ports: outside, DSCP: 46},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.Open("inside", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetEgress("outside", nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		st, err := engine.Stats()
		if err != nil || st.Flows != 0 || m.PortsInUse() != 0 {
			t.Errorf("left: %d flows, %d port pairs, %v", st.Flows, m.PortsInUse(), err)
		}
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return &talk{bench: &bench{T: t, m: m}, Session: s}, engine
}

// waitPackets waits until a side has sent as many packets, delivered or not.
func (k *talk) waitPackets(from call.Side, packets uint64) {
	k.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-tick.C {
		ingress, egress, err := k.Media()
		if err != nil {
			k.Fatal(err)
		}
		if [2]call.Media{ingress, egress}[from].Packets == packets {
			return
		}
	}
	k.Fatalf("the %s side has not sent %d packets", from, packets)
}

var outsidePorts = call.PortRange{First: 18100, Last: 18199}

// TestCallOverRelay is a call's media from the early answer to the last counter, with
// real packets: early media, talk, hold, resume from another address.
func TestCallOverRelay(t *testing.T) {
	k, _ := overRelay(t, outsidePorts)
	alice, bob := newPhone(t), newPhone(t)

	toBob := k.offer(call.Ingress, alice.sdp())
	toAlice := k.answer(call.Egress, bob.sdp())
	bob.talkTo(alice, toBob, 5) // ringback, before the 200
	k.answer(call.Egress, bob.sdp())
	alice.talkTo(bob, toAlice, 20)
	bob.talkTo(alice, toBob, 20)

	// Alice holds the old way: her music still reaches Bob, and he no longer her.
	held := strings.Replace(alice.sdp(), "c=IN IP4 127.77.1.1", "c=IN IP4 0.0.0.0", 1)
	k.offer(call.Ingress, held)
	k.answer(call.Egress, bob.sdp("a=recvonly"))
	bob.seq++
	bob.send(toBob, bob.packet())
	k.waitPackets(call.Egress, 26)
	alice.talkTo(bob, toAlice, 5)

	// She comes back from another device.
	desk := newPhone(t)
	k.offer(call.Ingress, desk.sdp())
	k.answer(call.Egress, bob.sdp())
	bob.talkTo(desk, toBob, 5)
	desk.talkTo(bob, toAlice, 5)
	alice.send(toAlice, alice.packet()) // no longer welcome
	desk.talkTo(bob, toAlice, 1)

	ingress, egress := k.Close()
	if ingress.Packets != 31 || ingress.Refused != 1 || ingress.Remote != desk.addr() {
		t.Errorf("ingress %+v, want 31 packets and 1 refused", ingress)
	}
	if egress.Packets != 31 || egress.Lost != 0 || egress.Bytes != 31*172 {
		t.Errorf("egress %+v, want 31 packets of 172 bytes and none lost", egress)
	}
}

// TestDelayedOfferOverRelay (S8).
func TestDelayedOfferOverRelay(t *testing.T) {
	k, _ := overRelay(t, outsidePorts)
	alice, bob := newPhone(t), newPhone(t)
	toAlice := k.offer(call.Egress, bob.sdp())
	toBob := k.answer(call.Ingress, alice.sdp())
	alice.talkTo(bob, toAlice, 3)
	bob.talkTo(alice, toBob, 3)
}

// TestFailoverOverRelay: the caller's socket serves the next try too (T7).
func TestFailoverOverRelay(t *testing.T) {
	k, engine := overRelay(t, outsidePorts)
	alice, bob, carol := newPhone(t), newPhone(t), newPhone(t)
	toBob := k.offer(call.Ingress, alice.sdp())
	toAlice := k.answer(call.Egress, bob.sdp())
	bob.talkTo(alice, toBob, 3)

	if err := k.SetEgress("outside", nil); err != nil {
		t.Fatal(err)
	}
	if st, err := engine.Stats(); err != nil || st.Flows != 0 {
		t.Errorf("%d flows between the tries, %v", st.Flows, err)
	}
	toCarol := k.offer(call.Ingress, alice.sdp())
	again := k.answer(call.Egress, carol.sdp())
	if again.body != toAlice.body {
		t.Errorf("the caller is told something else:\n%s", again.body)
	}
	alice.talkTo(carol, again, 3)
	carol.talkTo(alice, toCarol, 3)
}

// TestPortTakenOverRelay: a port that someone else holds fails the answer, and
// nothing of the call stays behind.
func TestPortTakenOverRelay(t *testing.T) {
	squatter, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(relayOutside+":18201")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := squatter.Close(); err != nil {
			t.Error(err)
		}
	})
	k, engine := overRelay(t, call.PortRange{First: 18200, Last: 18201})
	alice, bob := newPhone(t), newPhone(t)
	k.offer(call.Ingress, alice.sdp())
	if _, err := k.Answer(call.Egress, []byte(bob.sdp())); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("got %v, want EADDRINUSE", err)
	}
	if st, err := engine.Stats(); err != nil || st.Flows != 0 {
		t.Errorf("%d flows, %v", st.Flows, err)
	}
}

// BenchmarkSession is the media of one call without packets: offer, answer, close.
func BenchmarkSession(b *testing.B) {
	m, err := media.New(media.Config{Engine: newFakeEngine(), Realms: []media.Realm{
		{Name: "inside", Number: 1, Addr: netip.MustParseAddr(inside), Ports: call.PortRange{First: 16384, Last: 20000}},
		{Name: "outside", Number: 2, Addr: netip.MustParseAddr(outside), Ports: call.PortRange{First: 20000, Last: 24000}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	offer, answer := []byte(caller), []byte(callee)
	b.ReportAllocs()
	for b.Loop() {
		s, err := m.Open("inside", nil)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.SetEgress("outside", nil); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Offer(call.Ingress, offer); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Answer(call.Egress, answer); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
