package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/g711"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

// ends are the two phones of the treatment tests.
func (s *stage) ends(t *testing.T) (near, far *phone) {
	t.Helper()
	for _, host := range []string{netlab.Platform, netlab.CarrierA} {
		p := s.phone(t, host, netip.AddrPortFrom(netlab.RealmOf(host).Peer, 40000))
		near, far = far, p
	}
	return near, far
}

// M14: a side that has A-law alone and one that has mu-law alone talk to each other; every
// byte is converted, by the kernel if it is the engine.
func TestALawToMuLaw(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		s := newStage(t, start(t, netlab.GatewayOptions{
			Engine: engine,
			Trunks: map[string][]string{netlab.Platform: {"codecs: [PCMA]"}, netlab.CarrierA: {"codecs: [PCMU]"}},
		}))
		near, far := s.ends(t)
		far.pt = 0
		caller, callee := s.pair(t)
		c := s.connect(t, caller, callee,
			caller.sdp("m=audio 40000 RTP/AVP 8", "a=ptime:20"), callee.sdp("m=audio 40000 RTP/AVP 0", "a=ptime:20"))
		nearTalk, farTalk := near.talk(c.toCallee), far.talk(c.toCaller)
		s.await(t, "speech both ways", func() bool { return len(near.sounds()) > 100 && len(far.sounds()) > 100 })
		nearSaid, farSaid := nearTalk(), farTalk()
		for _, way := range []struct {
			said  [][]byte
			pt    byte
			table *[256]byte
			from  netip.AddrPort
			by    *phone
		}{
			{nearSaid, 0, &g711.ALawToULaw, c.toCaller, far},
			{farSaid, 8, &g711.ULawToALaw, c.toCallee, near},
		} {
			want := make([][]byte, len(way.said))
			for i, p := range way.said {
				want[i] = bytes.Clone(p)
				want[i][1] = way.pt
				g711.Convert(want[i][12:], way.table)
			}
			if missed := hears(t, want, way.from, way.by); missed != 0 {
				t.Errorf("%v missed the first %d packets", way.by.at, missed)
			}
		}
		sent := uint64(len(nearSaid) + len(farSaid))
		inKernel, inUserSpace := sent, uint64(0)
		if engine == call.EngineUserspace {
			inKernel, inUserSpace = inUserSpace, inKernel
		}
		if e := s.status(t).Engine; e.KernelPackets != inKernel || e.UserspacePackets != inUserSpace {
			t.Errorf("kernel %d and user space %d packets, want %d and %d", e.KernelPackets, e.UserspacePackets, inKernel, inUserSpace)
		}
		caller.hangUp(callee)
		record := s.record(t)
		if in, out := record.Ingress.Media.Codec, record.Egress.Media.Codec; in != "PCMA/8000" || out != "PCMU/8000" {
			t.Errorf("the record has the codecs %s and %s", in, out)
		}
	})
}

// M5: keys cross between two numbers of telephone-event; each is counted once in the
// record, and which one it was is told nowhere: it may be a digit of a card.
func TestKeys(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		s := newStage(t, start(t, netlab.GatewayOptions{Engine: engine, LogLevel: "debug"}))
		near, far := s.ends(t)
		caller, callee := s.pair(t)
		withEvents := func(p *peer, pt int) string {
			return p.sdp(fmt.Sprintf("m=audio 40000 RTP/AVP 8 %d", pt),
				fmt.Sprintf("a=rtpmap:%d telephone-event/8000", pt), fmt.Sprintf("a=fmtp:%d 0-15", pt), "a=ptime:20")
		}
		caller.send(caller.invite(callee.number).with(withEvents(caller, 96)))
		inv := callee.take()
		callee.send(callee.respond(inv, 200).with(withEvents(callee, 101)))
		ok := caller.established()
		callee.expect("ACK")
		caller.heard()
		wants(t, "the answer", ok.body, " RTP/AVP 8 96\r\n", "a=rtpmap:96 telephone-event/8000\r\n")
		toCaller, toCallee := audioOf(t, inv.body), audioOf(t, ok.body)

		quiet := s.daemon.Said()
		card := []byte{4, 9, 2, 9, 1, 7, 3, 3, 11}
		said := near.press(toCallee, 96, card...)
		answer := far.press(toCaller, 101, 10, 0)
		for _, way := range []struct {
			said [][]byte
			pt   byte
			by   *phone
		}{{said, 101, far}, {answer, 96, near}} {
			want := make([][]byte, len(way.said))
			for i, p := range way.said {
				want[i] = bytes.Clone(p)
				want[i][1] = p[1]&0x80 | way.pt
			}
			s.await(t, "all packets of the keys", func() bool { return len(way.by.sounds()) == len(want) })
			for i, heard := range way.by.sounds() {
				if !bytes.Equal(heard.packet, want[i]) {
					t.Fatalf("%v, packet %d:\n got %x\nwant %x", way.by.at, i, heard.packet, want[i])
				}
			}
		}
		s.await(t, "the keys in the live call", func() bool {
			calls, err := s.api.Calls(t.Context())
			return err == nil && len(calls) == 1 && calls[0].Ingress.Media.Digits == uint64(len(card)) && calls[0].Egress.Media.Digits == 2
		})
		// At the level of debug, too.
		if told := strings.TrimPrefix(s.daemon.Said(), quiet); told != "" {
			t.Errorf("the daemon wrote a log of keys:\n%s", told)
		}
		caller.hangUp(callee)
		record := s.record(t)
		if in, out := record.Ingress.Media.Digits, record.Egress.Media.Digits; in != uint64(len(card)) || out != 2 {
			t.Errorf("the record has %d and %d keys, want %d and 2", in, out, len(card))
		}
	})
}

// press sends keys as RFC 4733 has them: 5 packets in 100 ms with the end three times.
func (p *phone) press(to netip.AddrPort, pt byte, keys ...byte) (said [][]byte) {
	p.t.Helper()
	for _, key := range keys {
		timestamp := uint32(p.seq) * 160
		for i := range 5 {
			packet := p.next()[:16]
			if packet[1] = pt; i == 0 {
				packet[1] |= 0x80
			}
			copy(packet[4:], []byte{byte(timestamp >> 24), byte(timestamp >> 16), byte(timestamp >> 8), byte(timestamp)})
			duration := 160 * min(i+1, 3)
			copy(packet[12:], []byte{key, 10, byte(duration >> 8), byte(duration)})
			if i >= 2 {
				packet[13] |= 0x80
			}
			p.say(to, packet)
			said = append(said, slices.Clone(packet))
			time.Sleep(packetTime)
		}
	}
	return said
}
