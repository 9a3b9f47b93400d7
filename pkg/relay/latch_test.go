package relay

import (
	"net/netip"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const latchWindow = 5 * time.Second

// latching is a flow of PCMA that learns, for alice behind a NAT.
func latching() call.Flow {
	return call.Flow{
		Remote:   alice,
		Payloads: []call.Payload{{In: 8, Out: 8}},
		Latch:    call.Latch{Window: latchWindow, Generation: 1, Allowed: allowedHere},
	}
}

// TestLatchLearnsOnce: the first that is allowed and sends media becomes the only one that
// is let in; the address of the description is not any more (M7).
func TestLatchLearnsOnce(t *testing.T) {
	d := newDoor(t, latching())
	d.want(natted, rtp(1), exitForwarded)
	d.want(natted, rtp(2), exitForwarded)
	d.want(alice, rtp(3), exitSourceRefused)
	d.wait(latchWindow)
	d.want(natted, rtp(4), exitForwarded)
	wantEvents(t, d.e,
		call.MediaEvent{Key: d.f.key, Kind: call.MediaLatched, Source: natted},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaStarted, Source: natted},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaRefused, Source: alice})
	if s := d.f.snapshot(); s.Packets != 3 || s.Refused != 1 || s.Remote != natted {
		t.Errorf("let in %d, refused %d, who is let in is %v; want 3, 1, %v", s.Packets, s.Refused, s.Remote, natted)
	}
}

// TestLatchLearnsNothing: what nothing is learned from, and that the peer who is meant
// loses nothing by it (M7).
func TestLatchLearnsNothing(t *testing.T) {
	version1, comedia, csrcs := rtp(1), rtp(1), rtp(1)[:rtpHeader]
	version1[0], comedia[1], csrcs[0] = 0x40, 0, 0x81
	noPort := netip.AddrPortFrom(natted.Addr(), 0)
	for name, tt := range map[string]struct {
		from netip.AddrPort
		data []byte
		wait time.Duration
	}{
		"another network":            {outsider, rtp(1), 0},
		"after the window":           {natted, rtp(1), latchWindow},
		"another version":            {natted, version1, 0},
		"a type not agreed on":       {natted, comedia, 0},
		"CSRCs that are not there":   {natted, csrcs, 0},
		"RTCP":                       {natted, receiverReport(), 0},
		"empty":                      {natted, nil, 0},
		"a port nobody can be at":    {noPort, rtp(1), 0},
		"another protocol with 0x80": {natted, []byte{0x80, 8, 0, 1, 0, 0, 0, 0}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, latching())
			d.wait(tt.wait)
			d.want(tt.from, tt.data, exitSourceRefused)
			if got := kinds(events(d.e), call.MediaLatched); len(got) != 0 {
				t.Errorf("learned %+v", got)
			}
			d.want(alice, rtp(2), exitForwarded)
		})
	}
}

// TestLatchRemoteFirst: the peer that sends from where it said so is locked in, and
// nobody can take its place (M7). It need not be among the prefixes.
func TestLatchRemoteFirst(t *testing.T) {
	def := latching()
	def.Remote = outsider
	d := newDoor(t, def)
	d.want(outsider, rtp(1), exitForwarded)
	d.want(natted, rtp(2), exitSourceRefused)
	if got := kinds(events(d.e), call.MediaLatched); len(got) != 1 || got[0].Source != outsider {
		t.Errorf("latched %+v", got)
	}
}

// TestLatchRemoteWithoutMedia: what Remote sends that is not media of the stream locks
// nobody in (M7).
func TestLatchRemoteWithoutMedia(t *testing.T) {
	d := newDoor(t, latching())
	d.want(alice, []byte("not RTP at all"), exitNotRTP)
	d.want(alice, receiverReport(), exitForwarded)
	d.want(natted, rtp(1), exitForwarded)
	d.want(alice, rtp(2), exitSourceRefused)
}

// TestLatchAfterTheWindow: Remote is let in still, and not locked in (M7).
func TestLatchAfterTheWindow(t *testing.T) {
	d := newDoor(t, latching())
	d.wait(latchWindow)
	d.want(alice, rtp(1), exitForwarded)
	d.want(natted, rtp(2), exitSourceRefused)
	if got := kinds(events(d.e), call.MediaLatched); len(got) != 0 {
		t.Errorf("latched %+v after the window", got)
	}
	if got := d.f.snapshot().Remote; got != alice {
		t.Errorf("who is let in is %v", got)
	}
}

// TestLatchWithoutRemote: a description without an address lets nobody in, but who is
// learned (M7).
func TestLatchWithoutRemote(t *testing.T) {
	noPort := netip.AddrPortFrom(alice.Addr(), 0)
	for name, tt := range map[string]struct{ remote, from netip.AddrPort }{
		"no address": {netip.AddrPort{}, alice},
		"port 0":     {noPort, noPort},
	} {
		t.Run(name, func(t *testing.T) {
			def := latching()
			def.Remote, def.Latch.Allowed = tt.remote, []netip.Prefix{netip.PrefixFrom(natted.Addr(), 32)}
			d := newDoor(t, def)
			d.want(tt.from, rtp(1), exitSourceRefused)
			d.want(natted, rtp(2), exitForwarded)

			def.Latch = call.Latch{}
			d = newDoor(t, def)
			d.want(tt.from, rtp(1), exitSourceRefused)
			d.want(natted, rtp(2), exitSourceRefused)
			if got := d.f.snapshot().Remote; got != (netip.AddrPort{}) {
				t.Errorf("who is let in is %v", got)
			}
		})
	}
}

// TestLatchOfRTCP: the control stream learns from RTCP alone (M7).
func TestLatchOfRTCP(t *testing.T) {
	def := latching()
	def.RTCP, def.Payloads = true, nil
	d := newDoor(t, def)
	d.want(natted, rtp(1), exitSourceRefused)
	d.want(natted, receiverReport()[:7], exitSourceRefused)
	d.want(natted, receiverReport(), exitForwarded)
	d.want(alice, receiverReport(), exitSourceRefused)
}

// TestLatchStrict: without a window there is nothing to learn in, whatever is allowed (M7).
func TestLatchStrict(t *testing.T) {
	def := latching()
	def.Latch.Window = 0
	d := newDoor(t, def)
	d.want(natted, rtp(1), exitSourceRefused)
	d.want(alice, rtp(2), exitForwarded)
	wantEvents(t, d.e,
		call.MediaEvent{Key: d.f.key, Kind: call.MediaRefused, Source: natted},
		call.MediaEvent{Key: d.f.key, Kind: call.MediaStarted, Source: alice})
}

// TestLatchGenerations: a repeated description keeps what was learned and its window, a
// changed one begins anew with the address it gives (M7).
func TestLatchGenerations(t *testing.T) {
	def := latching()
	d := newDoor(t, def)
	d.want(natted, rtp(1), exitForwarded)

	same := def
	same.DSCP, same.Remote = 46, alice
	d.install(same)
	d.want(natted, rtp(2), exitForwarded)
	d.want(alice, rtp(3), exitSourceRefused)

	moved := def
	moved.Latch.Generation++
	d.install(moved)
	if got := d.f.snapshot().Remote; got != alice {
		t.Errorf("moved: who is let in is %v", got)
	}
	d.want(alice, rtp(4), exitForwarded)
	d.want(natted, rtp(5), exitSourceRefused)
	if got := kinds(events(d.e), call.MediaLatched); len(got) != 2 || got[0].Source != natted || got[1].Source != alice {
		t.Errorf("latched %+v, want once per generation", got)
	}

}

// TestLatchOnAndOff: a strict description ends what was learned, and a window that is
// asked for later begins then (M7).
func TestLatchOnAndOff(t *testing.T) {
	d := newDoor(t, latching())
	d.want(natted, rtp(1), exitForwarded)
	strict := latching()
	strict.Latch.Window = 0
	d.install(strict)
	d.want(natted, rtp(2), exitSourceRefused)
	d.want(alice, rtp(3), exitForwarded)
	d.wait(latchWindow)
	d.install(latching())
	d.want(natted, rtp(4), exitForwarded)
}

// TestLatchWindowRunsOn: repeating a description does not keep the window open (M7).
func TestLatchWindowRunsOn(t *testing.T) {
	d := newDoor(t, latching())
	for range 5 {
		d.wait(latchWindow / 5)
		d.install(latching())
	}
	d.want(natted, rtp(1), exitSourceRefused)
	again := latching()
	again.Latch.Generation++
	d.install(again)
	d.want(natted, rtp(2), exitForwarded)
}

// TestSpray: a third host that sends to both ports before, in and after the window gets
// nothing and changes nothing; the two peers, one behind a NAT, lose nothing (M7).
func TestSpray(t *testing.T) {
	p := newPair(t)
	sprayer := newPeerAt(t, "127.66.0.1")
	behind := newPeer(t)
	spray := func() {
		for i := range 20 {
			sprayer.send(p.flows[i%2].Key.Local, rtp(uint16(i)))
		}
	}
	talk := func(a *peer, seq uint16) {
		a.send(p.in(), rtp(seq))
		p.b.expect(rtp(seq))
		p.b.send(p.flows[1].Key.Local, rtp(seq))
		a.expect(rtp(seq))
	}
	spray()
	talk(p.a, 1)

	// The peer turns up somewhere else than the new description says, and is followed.
	p.flows[0].Latch = call.Latch{Window: time.Minute, Generation: 1, Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}
	p.flows[1].Dest = behind.addr()
	if err := p.Install(p.flows); err != nil {
		t.Fatal(err)
	}
	spray()
	for seq := range uint16(5) {
		talk(behind, seq+2)
		spray()
	}
	s := p.stats(t)
	if s[0].Packets != 6 || s[0].Lost != 0 || s[1].Packets != 6 || s[1].Lost != 0 {
		t.Errorf("%+v", s)
	}
	if got := kinds(events(p.Engine), call.MediaRefused); len(got) != 2 {
		t.Errorf("%d reports of one spray, want one per realm", len(got))
	}
	if _, err := p.Remove(p.keys()); err != nil { // waits for the last packet
		t.Fatal(err)
	}
	sprayer.nothing()
}
