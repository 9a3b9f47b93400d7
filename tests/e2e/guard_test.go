package e2e

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// What the gateway may add to a call's set-up while it is flooded, on a machine that the
// flood, the peers and the captures share with it.
const (
	floodedP50 = 20 * time.Millisecond
	floodedP99 = 250 * time.Millisecond
)

// S13, A3: hosts of two realms send 10 times as much SIP, and as much other UDP again, as
// the peers do. Every call is answered, and set-up stays fast; the flood gets no answer.
func TestFlood(t *testing.T) {
	g := start(t, netlab.GatewayOptions{Engine: call.EngineKernel})
	const calls, rate, perCall = 150, 30, 6 // messages that the peers send: three each
	const flood = 10 * rate * perCall
	var floods []*sprayer
	for _, host := range []string{netlab.Platform, netlab.CarrierA} {
		realm := netlab.RealmOf(host)
		addr := realm.Peer.As4()
		addr[3] = 66
		g.ip(t, host, "address", "add", netip.PrefixFrom(netip.AddrFrom4(addr), realm.Prefix.Bits()).String(), "dev", netlab.PeerDevice)
		floods = append(floods, g.sprayer(t, host, netip.AddrPortFrom(netip.AddrFrom4(addr), 5060)))
	}
	logs := g.capture(t, netlab.Platform, netlab.CarrierA)
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	for i, host := range []string{netlab.Platform, netlab.CarrierA} {
		flooding.Go(func() { floods[i].flood(t, netlab.RealmOf(host), flood/2, stop) })
	}
	before := g.status(t).Engine
	callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.AnswerSignal})
	caller := g.agent(t, netlab.Platform, sipp.Config{Scenario: sipp.CallSignal, SIPPort: 5070, Number: netlab.PrefixA, Calls: calls, Rate: rate})
	began := time.Now()
	stats := finish(t, caller, callee)
	length := time.Since(began)
	after := g.status(t).Engine
	close(stop)
	flooding.Wait()

	captured := logs()
	setUp := netlab.SetupAdded(netlab.Calls(captured...))
	var sent, heard uint64
	for _, f := range floods {
		sent += f.sent.Load()
		heard += f.received.Load()
	}
	t.Logf("%d packets of flood in %v; set-up added: %+v; dropped at the wire: %d", sent, length, setUp, guarded(after)-guarded(before))
	if stats.Successful != calls || setUp.Count != calls {
		t.Errorf("%d of %d calls answered: %+v", stats.Successful, calls, stats)
	}
	if setUp.P50 > floodedP50 || setUp.P99 > floodedP99 {
		t.Errorf("the gateway added %+v to the set-up, want at most %v and, for 1 %%, %v", setUp, floodedP50, floodedP99)
	}
	if want := uint64(length.Seconds() * flood * 2); sent < want/2 {
		t.Fatalf("only %d packets of flood, want about %d", sent, want)
	}
	if heard != 0 {
		t.Errorf("the flooders were sent %d packets", heard)
	}
	// Within its budget a source reaches a socket, to be ignored; most do not.
	if dropped := guarded(after) - guarded(before); dropped < sent*3/4 {
		t.Errorf("%d of %d packets were dropped at the wire", dropped, sent)
	}
}

// guarded counts what was dropped at the wire: by a budget, or for a media port without a flow.
func guarded(s call.EngineStats) uint64 {
	return exits(s, "sip-budget") + exits(s, "udp-budget") + exits(s, call.ExitNoFlow)
}

// flood sends so many packets of SIP a second until stop, and as many to other ports, by
// turns media ports and one that nothing listens at.
func (s *sprayer) flood(t *testing.T, realm netlab.Realm, perSecond int, stop <-chan struct{}) {
	const discard = 9
	sip := netip.AddrPortFrom(realm.Gateway, 5060)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	port, n := realm.FirstPort, 0
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for range perSecond / 100 {
			n++
			request := fmt.Sprintf("INVITE sip:+4989@%s SIP/2.0\r\nVia: SIP/2.0/UDP %s;branch=z9hG4bKf%d\r\nMax-Forwards: 70\r\n"+
				"From: <sip:a@b>;tag=f%d\r\nTo: <sip:+4989@%s>\r\nCall-ID: flood%d\r\nCSeq: 1 INVITE\r\nContact: <sip:a@%s>\r\nContent-Length: 0\r\n\r\n",
				realm.Gateway, s.addr, n, n, realm.Gateway, n, s.addr)
			if port++; port > realm.LastPort {
				port = realm.FirstPort
			}
			other := netip.AddrPortFrom(realm.Gateway, port)
			if n%2 == 0 {
				other = netip.AddrPortFrom(realm.Gateway, discard)
			}
			for _, p := range []struct {
				to     netip.AddrPort
				packet string
			}{{sip, request}, {other, "\x80\x08 noise noise"}} {
				if _, err := s.conn.WriteToUDPAddrPort([]byte(p.packet), p.to); err != nil {
					t.Errorf("%v to %v: %v", s.addr, p.to, err)
					return
				}
				s.sent.Add(1)
			}
		}
	}
}

// S13, M7: what a denied prefix sends gets nowhere: not to a socket, not to a flow that
// would learn from it.
func TestDenied(t *testing.T) {
	denied := netip.MustParseAddrPort("10.72.0.67:41000")
	s := newStage(t, start(t, netlab.GatewayOptions{
		Engine: call.EngineKernel, Guard: "{deny: [10.72.0.64/28]}",
		Trunks: map[string][]string{netlab.CarrierA: {"media_source: latch", "latch_window: 60s", "media_prefixes: [10.72.0.0/24]"}},
	}))
	s.ip(t, netlab.CarrierA, "address", "add", denied.Addr().String()+"/24", "dev", netlab.PeerDevice)
	near := s.phone(t, netlab.Platform, netip.AddrPortFrom(netlab.RealmOf(netlab.Platform).Peer, 40000))
	far := s.phone(t, netlab.CarrierA, netip.AddrPortFrom(netlab.RealmOf(netlab.CarrierA).Peer, 41000))
	outcast := s.phone(t, netlab.CarrierA, denied)
	caller, callee := s.pair(t)
	c := s.connect(t, caller, callee, pcma(caller, 40000), pcma(callee, 40000))

	inDatagrams := s.udpCounter(t, "InDatagrams")
	const packets = 50
	for range packets {
		outcast.say(c.toCaller, outcast.next())
		outcast.say(callee.gateway, []byte("OPTIONS sip:a@b SIP/2.0\r\n\r\n"))
	}
	s.await(t, "all of it at the wire", func() bool {
		e := s.status(t).Engine
		return exits(e, "denied")+exits(e, call.ExitSourceRefused)+exits(e, call.ExitForwarded) == 2*packets
	})
	if n := len(near.sounds()); n != 0 {
		t.Fatalf("the caller hears %d packets of a denied host, which was learned as the callee", n)
	}
	if now := s.udpCounter(t, "InDatagrams"); now != inDatagrams {
		t.Errorf("%d datagrams of a denied host reached a socket", now-inDatagrams)
	}
	talk := far.talk(c.toCaller)
	s.await(t, "the peer's speech", func() bool { return len(near.sounds()) > 50 })
	if missed := hears(t, talk(), c.toCallee, near); missed != 0 {
		t.Errorf("the caller missed the first %d packets of the peer", missed)
	}
	if n := len(outcast.sounds()); n != 0 {
		t.Errorf("the denied host was sent %d packets", n)
	}
	caller.hangUp(callee)
}
