package media_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtcp"
	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/g711"
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
	return newPhoneAt(t, net.IPv4(127, 77, 1, 1))
}

func newPhoneAt(t *testing.T, addr net.IP) *phone {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: addr})
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

func (p *phone) sdp(lines ...string) string { return p.sdpWith("8", lines...) }

func (p *phone) sdpWith(types string, lines ...string) string {
	return describe(p.addr().Addr().String(),
		append([]string{"m=audio " + strconv.Itoa(int(p.addr().Port())) + " RTP/AVP " + types}, lines...)...)
}

// expect reads one packet that the phone gets.
func (p *phone) expect() []byte {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, _, err := p.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		p.t.Fatalf("nothing came: %v", err)
	}
	return buf[:n]
}

// expectNothing is asked after a packet that came behind all others has arrived elsewhere.
func (p *phone) expectNothing() {
	p.t.Helper()
	if err := p.conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		p.t.Fatal(err)
	}
	if n, from, err := p.conn.ReadFromUDPAddrPort(make([]byte, 2048)); err == nil {
		p.t.Errorf("%d bytes came from %v", n, from)
	}
}

// talkTo sends packets to where the phone was told, and wants them at the other one.
func (p *phone) talkTo(other *phone, told passed, packets int) {
	p.t.Helper()
	for range packets {
		p.seq++
		packet := p.packet()
		p.send(told, packet)
		if got := other.expect(); !bytes.Equal(got, packet) {
			p.t.Fatalf("got % x\nwant % x", got, packet)
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
	return overRelayWith(t, outside, media.Terms{})
}

// overRelayWith is overRelay with terms for the egress side, and with Run.
func overRelayWith(t *testing.T, outside call.PortRange, terms media.Terms) (*talk, *relay.Engine) {
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
	s, err := m.Open("inside", media.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetEgress("outside", terms); err != nil {
		t.Fatal(err)
	}
	b := &bench{T: t, m: m}
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
	b.run()
	return &talk{bench: b, Session: s}, engine
}

// waitPackets waits until a side has sent as many packets, delivered or not.
func (k *talk) waitPackets(from call.Side, packets uint64) {
	k.Helper()
	k.waitFor(fmt.Sprintf("%d packets of the %s side", packets, from), from, func(m call.Media) bool { return m.Packets == packets })
}

// waitFor polls the counters of a side.
func (k *talk) waitFor(what string, of call.Side, is func(call.Media) bool) {
	k.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	var last call.Media
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-tick.C {
		ingress, egress, err := k.Media()
		if err != nil {
			k.Fatal(err)
		}
		if last = [2]call.Media{ingress, egress}[of]; is(last) {
			return
		}
	}
	k.Fatalf("no %s: %+v", what, last)
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

	if err := k.SetEgress("outside", media.Terms{}); err != nil {
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

// TestConvertedCallOverRelay: a caller that has A-law only and a callee that has mu-law
// only hear each other, by the tables of G.711, each by payload types of its own (M5, M14).
func TestConvertedCallOverRelay(t *testing.T) {
	k, _ := overRelayWith(t, outsidePorts, media.Terms{EventType: 96})
	alice, bob := newPhone(t), newPhone(t)
	toBob := k.offer(call.Ingress, alice.sdpWith("8 101", "a=rtpmap:101 telephone-event/8000"))
	toAlice := k.answer(call.Egress, bob.sdpWith("0 96", "a=rtpmap:96 telephone-event/8000"))

	as := func(packet []byte, payloadType byte, table *[256]byte) []byte {
		packet = bytes.Clone(packet)
		packet[1] = packet[1]&0x80 | payloadType
		for i := 12; table != nil && i < len(packet); i++ {
			packet[i] = table[packet[i]]
		}
		return packet
	}
	check := func(from, to *phone, told passed, sent, want []byte) {
		t.Helper()
		from.send(told, sent)
		if got := to.expect(); !bytes.Equal(got, want) {
			t.Errorf("got % x\nwant % x", got, want)
		}
	}
	aliceSays := alice.packet()
	check(alice, bob, toAlice, aliceSays, as(aliceSays, 0, &g711.ALawToULaw))
	bobSays := as(bob.packet(), 0, nil)
	check(bob, alice, toBob, bobSays, as(bobSays, 8, &g711.ULawToALaw))

	// The key 5, once: as an event, with the number of the other leg and nothing converted.
	key := append(as(alice.packet()[:12], 101, nil), 5, 0x0a, 0, 160)
	check(alice, bob, toAlice, key, as(key, 96, nil))

	// A codec that was not agreed on gets nowhere.
	alice.send(toAlice, as(aliceSays, 9, nil))
	check(alice, bob, toAlice, aliceSays, as(aliceSays, 0, &g711.ALawToULaw))
	if ingress, _ := k.Close(); ingress.OutOfPolicy != 1 || ingress.Digits != 1 || ingress.Packets != 3 {
		t.Errorf("%+v, want 3 packets, 1 key and 1 out of policy", ingress)
	}
}

// TestLatchOverRelay: a callee behind NAT is heard and hears, though its SDP names an
// address that leads nowhere; who is not of its network gets nothing before, and nobody
// does after (M7).
func TestLatchOverRelay(t *testing.T) {
	k, _ := overRelayWith(t, outsidePorts, media.Terms{Latch: media.LatchTerms{
		Window: time.Minute, Allowed: []netip.Prefix{netip.MustParsePrefix("127.77.1.0/24")},
	}})
	alice, bob := newPhone(t), newPhone(t)
	stranger, neighbour := newPhoneAt(t, net.IPv4(127, 77, 2, 1)), newPhone(t)

	toBob := k.offer(call.Ingress, alice.sdp())
	toAlice := k.answer(call.Egress, describe("127.77.3.1", "m=audio 40000 RTP/AVP 8"))
	stranger.send(toBob, stranger.packet())
	neighbour.send(toBob, []byte("of the right network, and no RTP"))
	bob.talkTo(alice, toBob, 3)
	k.waitFor("learned source", call.Egress, func(m call.Media) bool { return m.Remote == bob.addr() })
	alice.talkTo(bob, toAlice, 3)

	neighbour.send(toBob, neighbour.packet())
	stranger.send(toBob, stranger.packet())
	bob.talkTo(alice, toBob, 3)
	alice.talkTo(bob, toAlice, 3)
	for _, other := range []*phone{stranger, neighbour} {
		other.expectNothing()
	}
	if _, egress := k.Close(); egress.Packets != 6 || egress.Refused != 4 {
		t.Errorf("%+v, want 6 packets and 4 refused", egress)
	}
}

// TestLatchAfterRingingOverRelay: a callee behind NAT that is described by a 183, and silent
// for longer than the window, is heard when it has picked up: the 200 opens the window again,
// also with the same SDP or none (M7, S5).
func TestLatchAfterRingingOverRelay(t *testing.T) {
	const window = time.Second
	for name, again := range map[string]bool{"same SDP": true, "no SDP": false} {
		t.Run(name, func(t *testing.T) {
			k, _ := overRelayWith(t, outsidePorts, media.Terms{Latch: media.LatchTerms{
				Window: window, Allowed: []netip.Prefix{netip.MustParsePrefix("127.77.1.0/24")},
			}})
			alice, bob := newPhone(t), newPhone(t)
			described := describe("127.77.3.1", "m=audio 40000 RTP/AVP 8")
			toBob := k.offer(call.Ingress, alice.sdp())
			toAlice := k.answer(call.Egress, described) // 183
			time.Sleep(window + window/10)              // it rings; what is waited for is the window's end itself
			bob.send(toBob, bob.packet())
			k.waitFor("packet refused behind the window", call.Egress, func(m call.Media) bool { return m.Refused == 1 })

			if !again {
				described = ""
			}
			k.answer(call.Egress, described) // 200
			bob.talkTo(alice, toBob, 3)
			k.waitFor("learned source", call.Egress, func(m call.Media) bool { return m.Remote == bob.addr() })
			alice.talkTo(bob, toAlice, 3)
		})
	}
}

// TestMuxOverRelay: RTCP of a caller that multiplexes passes between its RTP port and the
// callee's RTCP port, and tells the round trip (M2, M11).
func TestMuxOverRelay(t *testing.T) {
	k, _ := overRelay(t, outsidePorts)
	alice, bob, bobControl := newPhone(t), newPhone(t), newPhone(t)
	toBob := k.offer(call.Ingress, alice.sdp("a=rtcp-mux"))
	toAlice := k.answer(call.Egress, bob.sdp("a=rtcp:"+strconv.Itoa(int(bobControl.addr().Port()))))
	alice.talkTo(bob, toAlice, 3)

	report, err := (&rtcp.SenderReport{SSRC: 7, NTPTime: 0x1122334455667788}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	alice.send(toAlice, report)
	if got := bobControl.expect(); !bytes.Equal(got, report) {
		t.Errorf("got % x\nwant % x", got, report)
	}
	back, err := (&rtcp.ReceiverReport{SSRC: 9, Reports: []rtcp.ReceptionReport{{SSRC: 7, TotalLost: 1, LastSenderReport: 0x33445566}}}).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bobControl.conn.WriteToUDPAddrPort(back, above(toBob.desc.Audio().RTP)); err != nil {
		t.Fatal(err)
	}
	if got := alice.expect(); !bytes.Equal(got, back) {
		t.Errorf("got % x\nwant % x", got, back)
	}
	k.waitFor("round trip", call.Egress, func(m call.Media) bool { return m.RTTMS > 0 && m.RemoteLost == 1 })
	if ingress, _ := k.Close(); ingress.Packets != 3 {
		t.Errorf("the caller sent %d packets of RTP, want 3", ingress.Packets)
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
		s, err := m.Open("inside", media.Terms{})
		if err != nil {
			b.Fatal(err)
		}
		if err := s.SetEgress("outside", media.Terms{}); err != nil {
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
