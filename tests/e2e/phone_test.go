package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// packetTime of a phone's speech.
const packetTime = 20 * time.Millisecond

// phone is a peer's media socket: it speaks RTP and keeps what it hears.
type phone struct {
	t    *testing.T
	conn *net.UDPConn
	at   netip.AddrPort
	// ssrc and pt of what it speaks; no two phones of a test speak alike.
	ssrc uint32
	pt   uint8

	seq uint16 // of the next packet; only talk and say use it

	mu    sync.Mutex
	heard []sound
}

// sound is a packet that a phone heard.
type sound struct {
	at     time.Time
	from   netip.AddrPort
	packet []byte
}

// phone opens the socket of a phone at a host, at an address that the host has.
func (g *gateway) phone(t *testing.T, host string, at netip.AddrPort) *phone {
	t.Helper()
	p := &phone{t: t, at: at, pt: 8, ssrc: uint32(at.Port())<<16 | uint32(at.Addr().As4()[1])}
	if err := g.Do(host, func() (err error) {
		p.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.listen()
	}()
	t.Cleanup(func() {
		if err := p.conn.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return p
}

func (p *phone) listen() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.conn.ReadFromUDPAddrPort(buf)
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // an ICMP error for what it sent before
			continue
		}
		p.mu.Lock()
		p.heard = append(p.heard, sound{time.Now(), from, bytes.Clone(buf[:n])})
		p.mu.Unlock()
	}
}

// sounds is what it has heard so far.
func (p *phone) sounds() []sound {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]sound(nil), p.heard...)
}

// next is its next packet of speech; no two have the same payload.
func (p *phone) next() []byte {
	b := make([]byte, 12+160)
	b[0], b[1] = 0x80, p.pt
	binary.BigEndian.PutUint16(b[2:], p.seq)
	binary.BigEndian.PutUint32(b[4:], uint32(p.seq)*160)
	binary.BigEndian.PutUint32(b[8:], p.ssrc)
	for i := range b[12:] {
		b[12+i] = byte(i) + byte(p.seq) ^ byte(p.seq>>8)
	}
	p.seq++
	return b
}

// say sends one packet.
func (p *phone) say(to netip.AddrPort, packet []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(packet, to); err != nil {
		p.t.Fatalf("%v to %v: %v", p.at, to, err)
	}
}

// talk speaks every 20 ms until its result is called, which returns what was said.
func (p *phone) talk(to netip.AddrPort) (stop func() [][]byte) {
	var said [][]byte
	var failed error
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(packetTime)
		defer tick.Stop()
		for {
			packet := p.next()
			if _, err := p.conn.WriteToUDPAddrPort(packet, to); err != nil {
				failed = err
				return
			}
			said = append(said, packet)
			select {
			case <-quit:
				return
			case <-tick.C:
			}
		}
	}()
	var once sync.Once
	stop = func() [][]byte {
		p.t.Helper()
		once.Do(func() { close(quit) })
		<-done
		if failed != nil {
			p.t.Errorf("%v to %v: %v", p.at, to, failed)
		}
		return said
	}
	p.t.Cleanup(func() { stop() })
	return stop
}

// hears asserts that of what was said at least from packet first on all was heard, once,
// in order and as it was, from one source; by tells phones apart that may have heard it.
// It returns how many at the beginning were not.
func hears(t *testing.T, said [][]byte, from netip.AddrPort, by ...*phone) (missed int) {
	t.Helper()
	var heard []sound
	deadline := time.Now().Add(patience)
	for {
		heard = heard[:0]
		for _, p := range by {
			heard = append(heard, p.sounds()...)
		}
		if len(heard) > 0 && bytes.Equal(heard[len(heard)-1].packet, said[len(said)-1]) || time.Now().After(deadline) {
			break
		}
		time.Sleep(packetTime)
	}
	if len(heard) == 0 {
		t.Errorf("%v heard nothing of %d packets", by[len(by)-1].at, len(said))
		return len(said)
	}
	for missed < len(said) && !bytes.Equal(said[missed], heard[0].packet) {
		missed++
	}
	rest := said[missed:]
	if len(heard) != len(rest) {
		t.Errorf("%v heard %d packets, want %d: %s", by[len(by)-1].at, len(heard), len(rest), gaps(heard))
	}
	for i := range min(len(heard), len(rest)) {
		if !bytes.Equal(heard[i].packet, rest[i]) {
			t.Errorf("%v: packet %d of %d is not what was said: %s\n got %x\nwant %x",
				by[len(by)-1].at, i, len(rest), gaps(heard), heard[i].packet, rest[i])
			break
		}
		if heard[i].from != from {
			t.Errorf("%v: packet %d came from %v, want %v", by[len(by)-1].at, i, heard[i].from, from)
			break
		}
	}
	return missed
}

// gaps describes where sequence numbers are missing.
func gaps(heard []sound) string {
	var b strings.Builder
	for i := 1; i < len(heard); i++ {
		last, this := sequence(heard[i-1].packet), sequence(heard[i].packet)
		if this != last+1 {
			fmt.Fprintf(&b, "%d follows %d after %v; ", this, last, heard[i].at.Sub(heard[i-1].at).Round(time.Millisecond))
		}
	}
	return b.String()
}

func sequence(packet []byte) uint16 {
	if len(packet) < 4 {
		return 0
	}
	return binary.BigEndian.Uint16(packet[2:])
}

// audioOf is where the sender of a description wants its audio.
func audioOf(t *testing.T, sdp string) netip.AddrPort {
	t.Helper()
	addr, ok := netlab.AudioAddr([]byte(sdp))
	if !ok {
		t.Fatalf("no audio in\n%s", sdp)
	}
	return addr
}

// speaking is a call with a phone at each end.
type speaking struct {
	caller, callee *peer
	// toCallee and toCaller are where the gateway takes the audio of the caller and of
	// the callee.
	toCallee, toCaller netip.AddrPort
}

// connect makes a call whose sides describe their audio so.
func (s *stage) connect(t *testing.T, caller, callee *peer, offer, answer string) speaking {
	t.Helper()
	c := speaking{caller: caller, callee: callee}
	caller.send(caller.invite(callee.number).with(offer))
	inv := callee.take()
	c.toCaller = audioOf(t, inv.body)
	callee.send(callee.respond(inv, 200).with(answer))
	c.toCallee = audioOf(t, caller.established().body)
	callee.expect("ACK")
	caller.heard()
	return c
}

// pcma is the description of a phone that only has A-law.
func pcma(p *peer, port uint16) string {
	return p.sdp(fmt.Sprintf("m=audio %d RTP/AVP 8", port), "a=ptime:20")
}
