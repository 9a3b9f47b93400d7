package e2e

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
	"github.com/tandem-sbc/tandem/tests/sipp"
)

// M7, RTP bleed (CVE-2025-53399): who sends RTP to every media port of a realm in the
// middle of calls, from another address or from the right one and another port, is sent
// nothing, and nothing of it reaches the peers, who lose nothing. Records and exits tell.
func TestRTPBleed(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		g := start(t, netlab.GatewayOptions{Engine: engine})
		realm := netlab.RealmOf(netlab.CarrierA)
		stranger := netip.AddrFrom4([4]byte{10, 72, 0, 66})
		g.ip(t, netlab.CarrierA, "address", "add", netip.PrefixFrom(stranger, realm.Prefix.Bits()).String(), "dev", netlab.PeerDevice)
		sprayers := []*sprayer{
			g.sprayer(t, netlab.CarrierA, netip.AddrPortFrom(stranger, 6000)),
			g.sprayer(t, netlab.CarrierA, netip.AddrPortFrom(realm.Peer, 7000)),
		}
		logs := g.capture(t, netlab.Platform, netlab.CarrierA)

		const calls = 3
		speech := sipp.Audio{Packets: 250}
		callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: speech})
		caller := g.agent(t, netlab.Platform, sipp.Config{
			Scenario: sipp.Call, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: calls, Rate: 50, Audio: speech,
		})
		g.awaitMedia(t, calls)
		before, noPorts := g.status(t).Engine, g.udpCounter(t, "NoPorts")
		sweeps := uint64(spray(t, realm, 2*time.Second, sprayers...))
		after := g.status(t).Engine
		if engine == call.EngineKernel {
			// A port without a flow is as silent as one with: no ICMP tells where the calls are.
			if now := g.udpCounter(t, "NoPorts"); now != noPorts {
				t.Errorf("%d datagrams reached the stack, which answers with ICMP", now-noPorts)
			}
		}
		finish(t, caller, callee)

		captured := logs()
		for _, log := range captured {
			takeOut(t, log, sprayers)
		}
		for _, s := range sprayers {
			if n := s.received.Load(); n != 0 {
				t.Errorf("%v was sent %d packets", s.addr, n)
			}
		}
		report := netlab.CompareMedia(netlab.Calls(captured...), captured...)
		if want := uint64(2 * calls * speech.Packets); !report.Clean() || report.Received != want {
			t.Errorf("the peers' own media did not come through, want %d packets: %+v", want, report)
		}

		// Each sweep meets an RTP and an RTCP flow of every call once for each sprayer.
		perPort := sweeps * uint64(len(sprayers))
		t.Logf("each port was sent %d packets", perPort)
		if n := exits(after, call.ExitSourceRefused) - exits(before, call.ExitSourceRefused); n != 2*calls*perPort {
			t.Errorf("%d packets left as %s, want %d", n, call.ExitSourceRefused, 2*calls*perPort)
		}
		if engine == call.EngineKernel { // in user space these ports have no socket
			ports := uint64(realm.LastPort-realm.FirstPort) + 1
			if n := exits(after, call.ExitNoFlow) - exits(before, call.ExitNoFlow); n != (ports-2*calls)*perPort {
				t.Errorf("%d packets left as %s, want %d", n, call.ExitNoFlow, (ports-2*calls)*perPort)
			}
		}
		records := g.records(t)
		if len(records) != calls {
			t.Fatalf("%d records, want %d", len(records), calls)
		}
		for _, r := range records {
			in, out := r.Ingress.Media, r.Egress.Media
			if out.Refused != perPort || in.Refused != 0 {
				t.Errorf("call %s: the record says of the carrier's side %d refused, of the platform's %d, want %d and 0", r.ID, out.Refused, in.Refused, perPort)
			}
			if in.Packets != uint64(speech.Packets) || out.Packets != uint64(speech.Packets) || in.Lost+out.Lost != 0 {
				t.Errorf("call %s: the record says %+v and %+v, want %d packets and none lost", r.ID, in, out, speech.Packets)
			}
		}
		// Once per flow, and no more than a line a second.
		if n := strings.Count(g.daemon.Said(), "media of a foreign source refused"); n < 1 || n > 4 {
			t.Errorf("the daemon said it %d times", n)
		}
	})
}

// The kernel engine sends by what the kernel knows of its neighbours: a flushed entry costs
// nothing, and after a peer's change of address only what was sent before the kernel
// learnt of it is lost. Media does not reach the stack meanwhile, which would tell the
// peer by ICMP that nobody listens.
func TestNeighbourChangesInMidCall(t *testing.T) {
	realm := netlab.RealmOf(netlab.CarrierA)
	rows := []struct {
		name   string
		change func(t *testing.T, g *gateway)
		lost   uint64 // at most
	}{
		{"entry flushed", func(t *testing.T, g *gateway) {
			g.ip(t, netlab.Gateway, "neigh", "flush", "dev", realm.Device)
		}, 0},
		{"peer's address changed", func(t *testing.T, g *gateway) {
			g.ip(t, netlab.CarrierA, "link", "set", netlab.PeerDevice, "address", "02:00:00:00:72:99")
		}, 5}, // the peer speaks every 20 ms, and then asks for us from its new address
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			g := start(t, netlab.GatewayOptions{Engine: call.EngineKernel})
			logs := g.capture(t, netlab.Platform, netlab.CarrierA)
			speech := sipp.Audio{Packets: 200}
			callee := g.agent(t, netlab.CarrierA, sipp.Config{Scenario: sipp.Answer, Audio: speech})
			caller := g.agent(t, netlab.Platform, sipp.Config{
				Scenario: sipp.Call, SIPPort: 5070, MediaPort: 6010, Number: netlab.PrefixA, Calls: 1, Audio: speech,
			})
			g.awaitMedia(t, 1)
			noPorts := g.udpCounter(t, "NoPorts")
			row.change(t, g)
			finish(t, caller, callee)

			captured := logs()
			report := netlab.CompareMedia(netlab.Calls(captured...), captured...)
			t.Logf("%d packets lost", report.Lost)
			if report.Sent != uint64(2*speech.Packets) || report.Lost > row.lost {
				t.Errorf("%d of %d packets lost, want at most %d of %d: %v", report.Lost, report.Sent, row.lost, 2*speech.Packets, report.Problems)
			}
			if report.Lost = 0; !report.Clean() {
				t.Errorf("what was not lost did not come through: %+v", report)
			}
			if now := g.udpCounter(t, "NoPorts"); now != noPorts {
				t.Errorf("%d datagrams reached the stack, which answers with ICMP", now-noPorts)
			}
		})
	}
}

// awaitMedia waits until so many calls speak both ways.
func (g *gateway) awaitMedia(t *testing.T, calls int) {
	t.Helper()
	g.await(t, "calls with media", func() bool {
		s := g.status(t)
		return s.Calls.Active == calls && s.Engine.KernelPackets+s.Engine.UserspacePackets > uint64(40*calls)
	})
}

// exits counts the packets that left for a reason, of all realms.
func exits(s call.EngineStats, reason string) (packets uint64) {
	for _, x := range s.Exits {
		if x.Reason == reason {
			packets += x.Packets
		}
	}
	return packets
}

// sprayerSSRC is of all that sprayers send.
const sprayerSSRC = 0x5badbeef

// sprayer is a source of RTP that nobody has asked for.
type sprayer struct {
	addr     netip.AddrPort
	conn     *net.UDPConn
	sent     atomic.Uint64
	received atomic.Uint64
}

// sprayer listens at a host until the test ends.
func (g *gateway) sprayer(t *testing.T, host string, addr netip.AddrPort) *sprayer {
	t.Helper()
	s := &sprayer{addr: addr}
	if err := g.Do(host, func() (err error) {
		s.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 2048)
		for {
			switch _, _, err := s.conn.ReadFromUDPAddrPort(buf); {
			case err == nil:
				s.received.Add(1)
			case errors.Is(err, net.ErrClosed):
				return
			}
		}
	}()
	t.Cleanup(func() {
		if err := s.conn.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return s
}

// spray sends to every media port of a realm, again and again for as long as said, and
// returns how many packets each port got from each sprayer.
func spray(t *testing.T, realm netlab.Realm, length time.Duration, sprayers ...*sprayer) (sweeps int) {
	t.Helper()
	packet := make([]byte, 12+160)
	packet[0], packet[1] = 0x80, 8 // RTP, PCMA
	binary.BigEndian.PutUint32(packet[8:], sprayerSSRC)
	for begin := time.Now(); time.Since(begin) < length; sweeps++ {
		binary.BigEndian.PutUint16(packet[2:], uint16(sweeps))
		binary.BigEndian.PutUint32(packet[4:], uint32(sweeps*160))
		for port := int(realm.FirstPort); port <= int(realm.LastPort); port++ {
			to := netip.AddrPortFrom(realm.Gateway, uint16(port))
			for _, s := range sprayers {
				if _, err := s.conn.WriteToUDPAddrPort(packet, to); err != nil {
					t.Errorf("%v to %v: %v", s.addr, to, err)
					return sweeps
				}
				s.sent.Add(1)
			}
			if port%64 == 0 {
				time.Sleep(time.Millisecond) // a spray, not a flood: the peers share these cores
			}
		}
	}
	return sweeps
}

// takeOut removes from a log what sprayers sent, and fails for each packet of theirs
// that arrived, or of anybody's that they got.
func takeOut(t *testing.T, log *netlab.Log, sprayers []*sprayer) {
	t.Helper()
	for key, stream := range log.Streams {
		for _, s := range sprayers {
			switch {
			case key.Out && key.Src == s.addr:
				delete(log.Streams, key)
			case !key.Out && key.Dst == s.addr:
				t.Errorf("%s: %d packets from %v to the sprayer %v", log.Host, len(stream.Packets), key.Src, s.addr)
			}
		}
		if !key.Out && key.SSRC == sprayerSSRC {
			t.Errorf("%s: %d packets of a sprayer arrived at %v", log.Host, len(stream.Packets), key.Dst)
		}
	}
}
