package e2e

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// M8: a call in which nobody says anything any more, or never did, is ended towards both
// sides with a cause of its own; one on hold and one in which one side talks go on.
func TestSilence(t *testing.T) {
	engines(t, func(t *testing.T, engine string) {
		const idle = 10 * time.Second
		s := newStage(t, start(t, netlab.GatewayOptions{
			Engine: engine, Trunks: map[string][]string{netlab.Platform: {"idle_timeout: " + idle.String()}},
		}))
		type quiet struct {
			speaking
			near, far *phone
		}
		port := uint16(40000)
		begin := func() quiet {
			q := quiet{
				near: s.phone(t, netlab.Platform, netip.AddrPortFrom(netlab.RealmOf(netlab.Platform).Peer, port)),
				far:  s.phone(t, netlab.CarrierA, netip.AddrPortFrom(netlab.RealmOf(netlab.CarrierA).Peer, port)),
			}
			caller, callee := s.pair(t)
			q.speaking = s.connect(t, caller, callee, pcma(caller, port), pcma(callee, port))
			port += 2
			return q
		}
		never, ended, held, oneSided := begin(), begin(), begin(), begin()
		dumb := time.Now()
		for _, q := range []quiet{ended, held} {
			near, far := q.near.talk(q.toCallee), q.far.talk(q.toCaller)
			s.await(t, "speech both ways", func() bool { return len(q.near.sounds()) > 20 && len(q.far.sounds()) > 20 })
			near()
			far()
		}
		silent := time.Now()
		hold := held.caller.within("INVITE").with(held.caller.sdp("m=audio 40004 RTP/AVP 8", "a=ptime:20", "a=sendonly"))
		held.caller.send(hold)
		offer := held.callee.expect("INVITE")
		held.callee.send(held.callee.respond(offer, 200).with(held.callee.sdp("m=audio 40004 RTP/AVP 8", "a=ptime:20", "a=recvonly")))
		held.caller.confirm(held.caller.expect("200 INVITE"))
		held.callee.expect("ACK")
		held.caller.heard()
		oneSided.far.talk(oneSided.toCaller)

		over := func(p *peer, since time.Time) {
			t.Helper()
			bye := p.expectWithin(idle+patience, "BYE")
			if after := time.Since(since); after < idle {
				t.Errorf("%s got BYE after %v, want %v at least", p.tag, after, idle)
			}
			p.send(p.respond(bye, 200))
			wants(t, "Reason", bye.get("Reason"), "Q.850", "cause=102")
		}
		over(never.caller, dumb)
		over(never.callee, dumb)
		over(ended.caller, silent)
		over(ended.callee, silent)
		records := s.records(t)
		s.await(t, "two records", func() bool {
			records = s.records(t)
			return len(records) == 2
		})
		for _, r := range records {
			if r.Cause.Code != "media-timeout" || r.Cause.By != "tandem" || r.Cause.Q850 != 102 ||
				!strings.HasPrefix(r.Cause.Text, "No media came from either side for 1") {
				t.Errorf("cause %+v", r.Cause)
			}
		}
		// The others have been as quiet for longer by now, and live.
		for _, q := range []quiet{held, oneSided} {
			for _, p := range []*peer{q.caller, q.callee} {
				p.quiet(2 * time.Second)
			}
		}
		for _, q := range []quiet{held, oneSided} {
			q.caller.hangUp(q.callee)
		}
	})
}
