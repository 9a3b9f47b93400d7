package b2bua

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// T1: who has to do with the live calls: both peers of each, and whom a call that is not answered
// may still come to.
func TestInUse(t *testing.T) {
	first, second := newFakeLeg("first", carrierPeer), newFakeLeg("second", backupPeer)
	b := newBench(t, first, second)
	peer := func(realm, addr string) Peer { return Peer{realm, netip.MustParseAddrPort(addr).Addr()} }
	want := func(when string, hunting bool, peers ...Peer) {
		t.Helper()
		expected := InUse{Peers: make(map[Peer]struct{}), Hunting: make(map[*trunk.Table]struct{})}
		for _, p := range peers {
			expected.Peers[p] = struct{}{}
		}
		if hunting {
			expected.Hunting[b.trunks] = struct{}{}
		}
		got := b.InUse()
		if !maps.Equal(got.Peers, expected.Peers) {
			t.Errorf("%s: peers %v, want %v", when, got.Peers, expected.Peers)
		}
		if !maps.Equal(got.Hunting, expected.Hunting) {
			t.Errorf("%s: %d tables are hunted through, want %t", when, len(got.Hunting), hunting)
		}
	}
	want("before", false)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	first.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	want("ringing", true, peer("inside", platformPeer), peer("outside", carrierPeer))
	first.emit(call.Rejected{Rejection: call.Rejection{Code: 503}})
	<-b.dialer.dialled
	want("at the next trunk", true, peer("inside", platformPeer), peer("outside", backupPeer))
	second.emit(call.Accepted{Body: []byte(calledSDP)})
	second.expect(t, "ack")
	caller.expect(t, "accept")
	b.live(t, call.Answered) // a little later than the caller
	want("answered", false, peer("inside", platformPeer), peer("outside", backupPeer))
	bye(caller)
	second.expect(t, "close")
	b.record(t)
	want("after", false)
}
