package e2e

import (
	"strings"
	"testing"
	"time"
)

var dialogScenarios = []scenario{
	{"S7 BYE from both sides at once", byeBoth},
	{"S7 BYE again gets its answer again", byeAgain},
	{"S7 a request after the end of the dialog", afterEnd},
	{"S7 a request with a CSeq too low", lowCSeq},
	{"S7 hold by sendonly and resume", hold("a=sendonly", "a=recvonly")},
	{"S7 hold by inactive and resume", hold("a=inactive", "a=inactive")},
	{"S7 hold by 0.0.0.0 and resume", holdZero},
	{"S7 re-INVITE from both sides at once", glare},
	{"S7 re-INVITE before the ACK", tooEarly},
	{"S7 re-INVITE without SDP", reinviteDelayed},
	{"S7 a refused re-INVITE leaves the call up", reinviteRefused},
	{"S7 re-INVITE with a new address and codec", reinviteMoves},
	{"S7 re-INVITE moves the target", reinviteTarget},
	{"S7 CANCEL of a re-INVITE", reinviteCancelled},
	{"S7 BYE during a re-INVITE", reinviteBye},
	{"S7 481 to a re-INVITE ends the call", reinviteGone},
}

func byeBoth(t *testing.T, s *stage) {
	for range 5 {
		caller, callee := s.call(t)
		a, b := caller.within("BYE"), callee.within("BYE")
		caller.send(a)
		callee.send(b)
		for _, p := range []*peer{caller, callee} {
			for answered := false; !answered; {
				m := p.next(patience)
				switch {
				case m == nil:
					t.Fatalf("no answer to the BYE:\n%s", p.log())
				case m.what() == "BYE":
					p.send(p.respond(m, 200))
				case m.what() == "200 BYE":
					answered = true
				default:
					t.Errorf("got %q", m.start)
				}
			}
		}
		for _, p := range []*peer{caller, callee} {
			if m := p.next(20 * time.Millisecond); m != nil {
				p.send(p.respond(m, 200))
			}
		}
	}
}

func byeAgain(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	bye := caller.within("BYE")
	caller.send(bye)
	ok := caller.expect("200 BYE")
	caller.send(bye)
	caller.quiet(100 * time.Millisecond)
	if n := caller.repeated(ok); n != 2 {
		t.Errorf("%d answers to two BYEs", n)
	}
	callee.over()
}

func afterEnd(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	caller.hangUp(callee)
	for _, p := range []*peer{caller, callee} {
		p.send(p.within("BYE"))
		p.expect("481 BYE")
		re := p.within("INVITE").with(p.sdp())
		p.send(re)
		p.refused(re, 481)
	}
}

func lowCSeq(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	caller.cseq = 10
	caller.send(caller.request("OPTIONS", caller.target))
	caller.expect("200 OPTIONS")
	caller.cseq = 9
	caller.send(caller.request("OPTIONS", caller.target))
	caller.expect("500 OPTIONS")
	caller.cseq = 10
	caller.hangUp(callee)
}

// reinvite sends an offer through the call and returns what the other side was offered
// and what this side was answered.
func reinvite(p, other *peer, offer, answer string) (offered, answered *message) {
	p.t.Helper()
	p.send(p.within("INVITE").with(offer))
	offered = other.expect("INVITE")
	other.send(other.respond(offered, 200).with(answer))
	answered = p.expect("200 INVITE")
	p.send(p.ack(answered))
	other.expect("ACK")
	p.heard()
	return offered, answered
}

const plain = "m=audio 40000 RTP/AVP 8"

func hold(offer, answer string) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		caller, callee := s.call(t)
		for _, pair := range [][2]*peer{{caller, callee}, {callee, caller}} {
			p, other := pair[0], pair[1]
			offered, answered := reinvite(p, other, p.sdp(plain, offer), other.sdp(plain, answer))
			wants(t, "the offer", offered.body, offer+"\r\n", "c=IN IP4 "+other.gateway.Addr().String())
			wants(t, "the answer", answered.body, answer+"\r\n", "c=IN IP4 "+p.gateway.Addr().String())
			lacks(t, "the offer", offered.body, "m=audio 0 ")
			offered, answered = reinvite(p, other, p.sdp(plain), other.sdp(plain))
			wants(t, "the offer to resume", offered.body, "a=sendrecv\r\n")
			wants(t, "the answer to resume", answered.body, "a=sendrecv\r\n")
		}
		caller.hangUp(callee)
	}
}

// origin is the id and the version of a description.
func origin(t *testing.T, m *message) (id, version string) {
	t.Helper()
	_, line, _ := strings.Cut(m.body, "\r\no=")
	f := strings.Fields(line)
	if len(f) < 6 {
		t.Fatalf("no o= line:\n%s", m.body)
	}
	return f[1], f[2]
}

func holdZero(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	held, _ := reinvite(caller, callee, caller.sdpAt("0.0.0.0", plain), callee.sdp(plain, "a=recvonly"))
	wants(t, "the hold", held.body, "c=IN IP4 0.0.0.0\r\n")
	resumed, _ := reinvite(caller, callee, caller.sdp(plain), callee.sdp(plain))
	lacks(t, "the resumption", resumed.body, "0.0.0.0")
	wants(t, "the resumption", resumed.body, "c=IN IP4 "+callee.gateway.Addr().String())
	heldID, heldVersion := origin(t, held)
	id, version := origin(t, resumed)
	if id != heldID || version <= heldVersion {
		t.Errorf("o= %s %s, then %s %s", heldID, heldVersion, id, version)
	}
	caller.hangUp(callee)
}

func glare(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	a, b := caller.within("INVITE").with(caller.sdp(plain, "a=sendonly")), callee.within("INVITE").with(callee.sdp(plain, "a=inactive"))
	caller.send(a)
	callee.send(b)
	// Each peer has one of its own pending and refuses the other's, as the gateway does.
	own := map[*peer]*message{caller: a, callee: b}
	for deadline := time.Now().Add(patience); len(own) > 0; {
		if time.Now().After(deadline) {
			t.Fatalf("a re-INVITE was not answered; received:\n%s and\n%s", caller.log(), callee.log())
		}
		for _, p := range []*peer{caller, callee} {
			switch m := p.next(20 * time.Millisecond); {
			case m == nil:
			case m.what() == "INVITE":
				p.send(p.respond(m, 491))
			case m.what() == "491 INVITE":
				p.confirmRefusal(own[p], m)
				delete(own, p)
			}
		}
	}
	for _, p := range []*peer{caller, callee} {
		for m := p.next(100 * time.Millisecond); m != nil; m = p.next(100 * time.Millisecond) {
			if m.what() == "INVITE" {
				p.send(p.respond(m, 491))
			}
		}
		p.heard()
	}
	// The call is still up and takes the next one.
	reinvite(callee, caller, callee.sdp(plain), caller.sdp(plain))
	caller.hangUp(callee)
}

func tooEarly(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	callee.answer(callee.take())
	ok := caller.expect("200 INVITE")
	callee.expect("ACK")
	// The caller's ACK is not there yet when the callee asks.
	re := callee.within("INVITE").with(callee.sdp(plain))
	callee.send(re)
	callee.refused(re, 491)
	caller.confirm(ok)
	caller.quiet(50 * time.Millisecond)
	callee.hangUp(caller)
}

func reinviteDelayed(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	for _, pair := range [][2]*peer{{caller, callee}, {callee, caller}} {
		p, other := pair[0], pair[1]
		p.send(p.within("INVITE"))
		asked := other.expect("INVITE")
		if asked.body != "" {
			t.Errorf("an offer came from nowhere:\n%s", asked.body)
		}
		other.send(other.respond(asked, 200).with(other.sdp("m=audio 40000 RTP/AVP 0 8")))
		offered := p.expect("200 INVITE")
		wants(t, "the offer", offered.body, "RTP/AVP 0 8\r\n")
		other.quiet(50 * time.Millisecond)
		p.send(p.ack(offered).with(p.sdp("m=audio 42000 RTP/AVP 0")))
		wants(t, "the answer", other.expect("ACK").body, "RTP/AVP 0\r\n")
		p.heard()
	}
	caller.hangUp(callee)
}

func reinviteRefused(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	for _, status := range []int{488, 491, 500, 603} {
		re := caller.within("INVITE").with(caller.sdp(plain))
		caller.send(re)
		callee.send(callee.respond(callee.expect("INVITE"), status))
		callee.expect("ACK")
		caller.refused(re, status)
	}
	// One that the gateway itself refuses.
	re := caller.within("INVITE").with(caller.sdp("m=audio 40000 RTP/AVP 99", "a=rtpmap:99 frob/8000"))
	caller.send(re)
	caller.refused(re, 488)
	callee.quiet(50 * time.Millisecond)
	reinvite(callee, caller, callee.sdp(plain), caller.sdp(plain))
	caller.hangUp(callee)
}

func reinviteMoves(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	offered, answered := reinvite(callee, caller, callee.sdpAt("10.72.0.10", "m=audio 45000 RTP/AVP 0", "a=ptime:30"), caller.sdp("m=audio 46000 RTP/AVP 0", "a=ptime:30"))
	wants(t, "the offer", offered.body, "RTP/AVP 0 8\r\n", "a=ptime:30\r\n")
	wants(t, "the answer", answered.body, "RTP/AVP 0\r\n", "a=ptime:30\r\n")
	caller.hangUp(callee)
}

func reinviteTarget(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	moved := "sip:moved@" + caller.self.String()
	caller.send(caller.within("INVITE").set("Contact", "<"+moved+">").with(caller.sdp(plain)))
	callee.answer(callee.expect("INVITE"))
	caller.send(caller.ack(caller.expect("200 INVITE")))
	callee.expect("ACK")
	callee.send(callee.within("BYE"))
	callee.expect("200 BYE")
	if bye := caller.over(); bye.uri() != moved {
		t.Errorf("BYE to %q, want %q", bye.uri(), moved)
	}
}

// Both sides agree on what became of it, whatever that is, and the call is up.
func reinviteCancelled(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	re := caller.within("INVITE").with(caller.sdp(plain, "a=sendonly"))
	caller.send(re)
	got := callee.expect("INVITE")
	caller.send(caller.cancel(re))
	caller.expect("200 CANCEL")
	callee.send(callee.respond(got, 200).with(callee.sdp(plain, "a=recvonly")))
	caller.send(caller.ack(caller.expect("200 INVITE")))
	callee.expect("ACK")
	caller.hangUp(callee)
}

func reinviteBye(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	re := caller.within("INVITE").with(caller.sdp(plain, "a=sendonly"))
	caller.send(re)
	got := callee.expect("INVITE")
	callee.send(callee.within("BYE"))
	callee.send(callee.respond(got, 487))
	for range 2 {
		if m := callee.next(patience); m == nil || m.what() != "200 BYE" && m.what() != "ACK" {
			t.Fatalf("the callee received:\n%s", callee.log())
		}
	}
	bye := false
	for range 2 {
		m := caller.next(patience)
		for m != nil && m.status() == 100 {
			m = caller.next(patience)
		}
		switch {
		case m == nil:
			t.Fatalf("the caller received:\n%s", caller.log())
		case m.what() == "BYE":
			bye = true
			caller.send(caller.respond(m, 200))
		case m.what() == "487 INVITE":
			caller.confirmRefusal(re, m)
		}
	}
	if !bye {
		t.Errorf("the caller was not told:\n%s", caller.log())
	}
}

func reinviteGone(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	re := caller.within("INVITE").with(caller.sdp(plain))
	caller.send(re)
	callee.send(callee.respond(callee.expect("INVITE"), 481))
	callee.expect("ACK")
	callee.send(callee.respond(callee.expect("BYE"), 481))
	caller.refused(re, 481)
	caller.over()
}
