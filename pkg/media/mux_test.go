package media_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

const muxLine = "a=rtcp-mux\r\n"

// TestMux (M2, RFC 5761 section 5.1.1): an offer of multiplexing is taken on the
// offerer's own leg, and is not told to the other side.
func TestMux(t *testing.T) {
	b := newBench(t)
	k := b.open()
	// An a=rtcp that a multiplexing peer gives for those who do not is passed over.
	offered := k.offer(call.Ingress, caller+muxLine+"a=rtcp:45678\r\n")
	// The callee says it unasked; that is no agreement.
	answered := k.answer(call.Egress, callee+muxLine)
	if strings.Contains(offered.body, muxLine) || !strings.Contains(answered.body, muxLine) {
		t.Errorf("offered:\n%s\nanswered:\n%s", offered.body, answered.body)
	}

	in, out := answered.desc.Audio(), offered.desc.Audio()
	rtp := b.engine.from(t, callerRTP)
	if back := b.engine.from(t, calleeRTP); !rtp.Mux || back.Mux {
		t.Errorf("multiplexed: from the caller %t, from the callee %t; want only the caller's", rtp.Mux, back.Mux)
	}
	// What of the caller's RTCP comes in at the RTP port belongs to the flow above: it
	// leaves by our RTCP port. The flow's own port lets in nobody but the caller.
	control := b.engine.flows[call.FlowKey{Realm: 1, Local: above(in.RTP)}]
	if control.Remote.String() != callerRTP || control.Source != above(out.RTP) || control.Dest.String() != calleeRTCP || control.Latch.Window != 0 {
		t.Errorf("the caller's RTCP: %+v", control)
	}
	// The other way RTCP goes to where the caller has his RTP, from our RTP port.
	if f := b.engine.from(t, calleeRTCP); f.Source != in.RTP || f.Dest.String() != callerRTP {
		t.Errorf("the callee's RTCP: %+v", f)
	}
}

// TestMuxIsKept: a leg that multiplexes goes on so when the offer comes from us, unless
// its peer no longer wants to (RFC 8035).
func TestMuxIsKept(t *testing.T) {
	b := newBench(t)
	k := b.open()
	k.offer(call.Ingress, caller+muxLine)
	k.answer(call.Egress, callee)

	if again := k.offer(call.Egress, callee); !strings.Contains(again.body, muxLine) {
		t.Errorf("offered to the caller:\n%s", again.body)
	}
	if back := k.answer(call.Ingress, caller+muxLine); strings.Contains(back.body, muxLine) {
		t.Errorf("answered to the callee:\n%s", back.body)
	}
	if !b.engine.from(t, callerRTP).Mux {
		t.Error("no longer multiplexed")
	}
	k.offer(call.Egress, callee)
	k.answer(call.Ingress, caller)
	if b.engine.from(t, callerRTP).Mux || b.engine.from(t, calleeRTCP).Dest.String() != callerRTCP {
		t.Error("still multiplexed though the caller has stopped")
	}
}

// above is the RTCP port of an RTP port.
func above(rtp netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(rtp.Addr(), rtp.Port()+1)
}
