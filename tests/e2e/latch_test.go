package e2e

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// M7: a third host sends RTP to the whole media range of a carrier's realm, before, during
// and after the window in which the carrier's source may be learned, for 10 s. It is sent
// nothing, it changes nothing, and the two peers lose nothing, whether the trunk learns or
// not; the log has a line of it, not thousands. Of the two trunks one carries a peer behind
// NAT, which speaks from another port than it says and is sent its media there.
func TestSprayAroundTheLatch(t *testing.T) {
	const window, spraying = 3 * time.Second, 10 * time.Second
	for _, source := range []string{"strict", "latch"} {
		t.Run(source, func(t *testing.T) {
			engines(t, func(t *testing.T, engine string) {
				s := newStage(t, start(t, netlab.GatewayOptions{
					Engine: engine, Guard: "{sip_per_second: 0, udp_per_second: 0}", // the flows are to meet all of it
					Trunks: map[string][]string{netlab.CarrierA: {"media_source: " + source, "latch_window: " + window.String()}},
				}))
				realm := netlab.RealmOf(netlab.CarrierA)
				third := netip.AddrFrom4([4]byte{10, 72, 0, 66})
				s.ip(t, netlab.CarrierA, "address", "add", netip.PrefixFrom(third, realm.Prefix.Bits()).String(), "dev", netlab.PeerDevice)
				sprayer := s.sprayer(t, netlab.CarrierA, netip.AddrPortFrom(third, 6000))

				caller, callee := s.pair(t)
				described := s.phone(t, netlab.CarrierA, netip.AddrPortFrom(realm.Peer, 40000))
				near := s.phone(t, netlab.Platform, netip.AddrPortFrom(netlab.RealmOf(netlab.Platform).Peer, 40000))
				far := described
				if source == "latch" {
					far = s.phone(t, netlab.CarrierA, netip.AddrPortFrom(realm.Peer, 41000))
				}

				sprayed := make(chan int, 1)
				go func() { sprayed <- spray(t, realm, spraying, sprayer) }()
				s.await(t, "spray", func() bool { return sprayer.sent.Load() > 1000 })
				c := s.connect(t, caller, callee, pcma(caller, 40000), pcma(callee, 40000))
				answered := time.Now()
				// The callee is let in half-way through the window.
				nearTalk := near.talk(c.toCallee)
				time.Sleep(window / 2)
				farTalk := far.talk(c.toCaller)
				sweeps := <-sprayed
				if since := time.Since(answered); since < window+time.Second {
					t.Fatalf("the spray ended %v after the answer: it is to outlast the window of %v", since, window)
				}
				farSaid, nearSaid := farTalk(), nearTalk()

				hears(t, farSaid, c.toCallee, near)
				if source == "latch" {
					// What was for the peer before it was learned went to where it said.
					early := described.sounds()
					late := hears(t, nearSaid, c.toCaller, far)
					if late != len(early) {
						t.Errorf("of %d packets for the peer behind NAT, %d went to where it said and %d did not come to where it is", len(nearSaid), len(early), late)
					}
				} else if missed := hears(t, nearSaid, c.toCaller, far); missed != 0 {
					t.Errorf("the callee missed the first %d packets", missed)
				}
				if n := sprayer.received.Load(); n != 0 {
					t.Errorf("the sprayer was sent %d packets", n)
				}
				if n := strings.Count(s.daemon.Said(), "media of a foreign source refused"); n != 1 {
					t.Errorf("the daemon said %d times that it refused media, want once:\n%s", n, s.daemon.Said())
				}
				wantLearned := source == "latch"
				if learned := strings.Contains(s.daemon.Said(), "media source learned"); learned != wantLearned {
					t.Errorf("a source was learned: %t, want %t", learned, wantLearned)
				}

				caller.hangUp(callee)
				record := s.record(t)
				in, out := record.Ingress.Media, record.Egress.Media
				if in.Packets != uint64(len(nearSaid)) || in.Lost != 0 || in.Refused != 0 || out.Packets != uint64(len(farSaid)) || out.Lost != 0 {
					t.Errorf("the record says of the sides\n%+v\n%+v\nwant %d and %d packets, none lost", in, out, len(nearSaid), len(farSaid))
				}
				if out.Refused == 0 || out.Refused > uint64(sweeps) {
					t.Errorf("%d packets were refused of %d sweeps", out.Refused, sweeps)
				}
				if out.Remote != far.at {
					t.Errorf("the record has the callee's media at %v, want %v", out.Remote, far.at)
				}
			})
		})
	}
}

// record waits for the record of the only call.
func (s *stage) record(t *testing.T) call.Record {
	t.Helper()
	var records []call.Record
	s.await(t, "the record", func() bool {
		records = s.records(t)
		return len(records) == 1
	})
	return records[0]
}

// M7: a peer that changes its description may be learned anew, by another source; the old
// one is out from then on.
func TestLatchAgainAfterReinvite(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		s := newStage(t, start(t, netlab.GatewayOptions{
			Engine: engine, Trunks: map[string][]string{netlab.CarrierA: {"media_source: latch", "latch_window: 3s"}},
		}))
		realm := netlab.RealmOf(netlab.CarrierA)
		caller, callee := s.pair(t)
		near := s.phone(t, netlab.Platform, netip.AddrPortFrom(netlab.RealmOf(netlab.Platform).Peer, 40000))
		first := s.phone(t, netlab.CarrierA, netip.AddrPortFrom(realm.Peer, 41000))
		second := s.phone(t, netlab.CarrierA, netip.AddrPortFrom(realm.Peer, 42000))
		c := s.connect(t, caller, callee, pcma(caller, 40000), pcma(callee, 40000))
		reaches := func(p *phone) {
			t.Helper()
			before := len(p.sounds())
			s.await(t, fmt.Sprintf("media for the peer at %v", p.at), func() bool {
				p.say(c.toCaller, p.next())
				near.say(c.toCallee, near.next())
				return len(p.sounds()) > before
			})
		}
		reaches(first)
		second.say(c.toCaller, second.next()) // too late: the first is locked in

		again := callee.within("INVITE").with(pcma(callee, 44000))
		callee.send(again)
		offer := caller.expect("INVITE")
		caller.send(caller.respond(offer, 200).with(pcma(caller, 40000)))
		ok := callee.expect("200 INVITE")
		callee.send(callee.ack(ok))
		caller.expect("ACK")
		callee.heard()
		reaches(second)
		before := len(near.sounds())
		first.say(c.toCaller, first.next())
		second.say(c.toCaller, second.next())
		s.await(t, "the second source", func() bool { return len(near.sounds()) > before })
		for _, heard := range near.sounds()[before:] {
			if by := binary.BigEndian.Uint32(heard.packet[8:]); by != second.ssrc {
				t.Errorf("the caller hears SSRC %x, want %x", by, second.ssrc)
			}
		}
		caller.hangUp(callee)
	})
}
