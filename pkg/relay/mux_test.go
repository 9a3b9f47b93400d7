package relay

import (
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// muxed is a call whose side a multiplexes RTCP with RTP, and whose side b does not: b has
// a socket for each.
type muxed struct {
	*Engine
	a, rtp, rtcp *peer
	// flows are RTP and RTCP from a, then the same to a.
	flows []call.Flow
}

func newMuxed(t *testing.T) *muxed {
	t.Helper()
	m := &muxed{Engine: newEngine(t), a: newPeer(t), rtp: newPeer(t), rtcp: newPeer(t)}
	near, far := freePort(t), freePort(t)
	media := between(m.a.addr(), loopback(near), loopback(far), m.rtp.addr())
	control := between(m.a.addr(), loopback(near+1), loopback(far+1), m.rtcp.addr())
	for i := range control {
		control[i].RTCP, control[i].ClockRate = true, 0
	}
	media[0].Mux = true
	// What comes from b's RTCP port leaves to a from the port that a knows.
	control[1].Source = media[0].Key.Local
	m.flows = []call.Flow{media[0], control[0], media[1], control[1]}
	if err := m.Install(m.flows); err != nil {
		t.Fatal(err)
	}
	return m
}

// end waits for the last packet.
func (m *muxed) end(t *testing.T) []call.FlowStats {
	t.Helper()
	keys := make([]call.FlowKey, len(m.flows))
	for i, f := range m.flows {
		keys[i] = f.Key
	}
	stats, err := m.Remove(keys)
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// TestMux: RTCP that comes among RTP is counted and leaves by the flow of the port above,
// and the other way back to the one port (M2, RFC 5761).
func TestMux(t *testing.T) {
	m := newMuxed(t)
	m.a.send(m.flows[0].Key.Local, rtp(1))
	m.rtp.expect(rtp(1))
	m.a.send(m.flows[0].Key.Local, receiverReport())
	if from, _ := m.rtcp.expect(receiverReport()); from != m.flows[1].Source {
		t.Errorf("RTCP leaves from %v, want %v", from, m.flows[1].Source)
	}
	m.rtcp.send(m.flows[3].Key.Local, receiverReport())
	if from, _ := m.a.expect(receiverReport()); from != m.flows[0].Key.Local {
		t.Errorf("RTCP to a leaves from %v, want %v", from, m.flows[0].Key.Local)
	}
	wantEvents(t, m.Engine,
		call.MediaEvent{Key: m.flows[0].Key, Kind: call.MediaStarted, Source: m.a.addr()},
		call.MediaEvent{Key: m.flows[1].Key, Kind: call.MediaStarted, Source: m.a.addr()},
		call.MediaEvent{Key: m.flows[1].Key, Kind: call.MediaReport, Source: m.a.addr(), Packet: receiverReport()},
		call.MediaEvent{Key: m.flows[3].Key, Kind: call.MediaStarted, Source: m.rtcp.addr()},
		call.MediaEvent{Key: m.flows[3].Key, Kind: call.MediaReport, Source: m.rtcp.addr(), Packet: receiverReport()})
	for i, s := range m.end(t) {
		if want := []uint64{1, 1, 0, 1}[i]; s.Packets != want {
			t.Errorf("flow %d counted %d, want %d", i, s.Packets, want)
		}
	}
}

// TestMuxOfOthers: the source is checked where the packet came in, for RTCP too (M7).
func TestMuxOfOthers(t *testing.T) {
	m := newMuxed(t)
	m.rtcp.send(m.flows[0].Key.Local, receiverReport())
	waitExit(t, m.Engine, call.ExitSourceRefused)
	if s := m.end(t); s[0].Refused != 1 || s[1].Refused != 0 || s[1].Packets != 0 {
		t.Errorf("RTP flow %+v\nRTCP flow %+v", s[0], s[1])
	}
	m.rtcp.nothing()
}

// TestMuxHold: whether RTCP is sent on is for its own flow to say (S7).
func TestMuxHold(t *testing.T) {
	m := newMuxed(t)
	m.flows[1].Hold = true
	if err := m.Install(m.flows[1:2]); err != nil {
		t.Fatal(err)
	}
	m.a.send(m.flows[0].Key.Local, receiverReport())
	waitExit(t, m.Engine, call.ExitHold)
	m.a.send(m.flows[0].Key.Local, rtp(1))
	m.rtp.expect(rtp(1))
	if s := m.end(t); s[0].Packets != 1 || s[1].Packets != 1 {
		t.Errorf("counted %d and %d, want 1 and 1", s[0].Packets, s[1].Packets)
	}
}

// TestMuxOfRTCP: what comes to the RTCP port itself is not the next port's.
func TestMuxOfRTCP(t *testing.T) {
	d := newDoor(t, call.Flow{Remote: alice, RTCP: true, Mux: true})
	d.want(alice, receiverReport(), exitForwarded)
}

// TestMuxWithoutFlowAbove: without a flow above there is nowhere to go; one that comes
// later, in whatever order, is found (M2).
func TestMuxWithoutFlowAbove(t *testing.T) {
	m := newMuxed(t)
	for range 2 {
		if _, err := m.Remove([]call.FlowKey{m.flows[1].Key}); err != nil {
			t.Fatal(err)
		}
		before := exitCount(t, m.Engine, call.ExitNoFlow)
		m.a.send(m.flows[0].Key.Local, receiverReport())
		waitExitAbove(t, m.Engine, call.ExitNoFlow, before)
		if err := m.Install(m.flows[1:2]); err != nil {
			t.Fatal(err)
		}
		m.a.send(m.flows[0].Key.Local, receiverReport())
		m.rtcp.expect(receiverReport())
	}
	// The RTP port is opened while the RTCP flow is there.
	if _, err := m.Remove([]call.FlowKey{m.flows[0].Key, m.flows[2].Key, m.flows[3].Key}); err != nil {
		t.Fatal(err)
	}
	if err := m.Install(m.flows[:1]); err != nil {
		t.Fatal(err)
	}
	m.a.send(m.flows[0].Key.Local, receiverReport())
	m.rtcp.expect(receiverReport())
}
