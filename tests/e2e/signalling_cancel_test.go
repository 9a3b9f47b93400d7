package e2e

import (
	"testing"
	"time"
)

var cancelScenarios = []scenario{
	{"S7 CANCEL before any provisional response", cancelEarly},
	{"S7 CANCEL before any response, then a 200", cancelUnheard},
	{"S7 CANCEL after 180", cancelRinging},
	{"S7 CANCEL repeats the hop, Via and Route of the INVITE", cancelPath},
	{"S7 CANCEL crosses the carrier's 200", cancelCrossed},
	{"S7 a 200 long after the CANCEL and a 487", lateAnswer},
	{"S7 CANCEL crosses our 200", cancelTooLate},
	{"S7 BYE before the answer", byeEarly},
}

// lossScenarios wait for 64*T1.
var lossScenarios = []scenario{
	{"S7 200 repeated until the ACK", answerRepeated},
	{"S7 lost ACK ends both sides", lostACK},
	{"S7 lost ACK of a delayed offer ends both sides", lostAnswer},
	{"S7 the carrier repeats its 200 until our ACK", ackRepeated},
	{"S7 the carrier repeats its 486 until our ACK", refusalRepeated},
}

// cancelled gives up and acknowledges the 487 that the caller gets for it.
func (p *peer) cancelled(invite *message) {
	p.t.Helper()
	p.send(p.cancel(invite))
	p.expect("200 CANCEL")
	p.refused(invite, 487)
}

func cancelEarly(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	caller.cancelled(inv)
	// No CANCEL may go out before a provisional response (RFC 3261 section 9.1).
	callee.quiet(200 * time.Millisecond)
	callee.send(callee.respond(got, 180))
	callee.endCancelled(got)
	caller.quiet(50 * time.Millisecond)
}

// endCancelled plays a carrier that gives up as it is told.
func (p *peer) endCancelled(invite *message) {
	p.t.Helper()
	c := p.expect("CANCEL")
	if c.get("Via") != invite.get("Via") || c.uri() != invite.uri() || c.get("To") != invite.get("To") || c.get("From") != invite.get("From") {
		p.t.Errorf("the CANCEL does not match its INVITE:\n%s\n%s", c.raw, invite.raw)
	}
	p.send(p.respond(c, 200))
	p.send(p.respond(invite, 487))
	p.expect("ACK")
}

func cancelUnheard(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	caller.cancelled(inv)
	callee.answer(got)
	callee.expect("ACK")
	callee.over()
	caller.quiet(50 * time.Millisecond)
}

func cancelRinging(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 180))
	caller.expect("180 INVITE")
	caller.cancelled(inv)
	callee.endCancelled(got)
	caller.quiet(50 * time.Millisecond)
}

// The provisional response's Record-Route must not lead the CANCEL astray.
func cancelPath(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 180).add("Record-Route: <sip:10.72.0.10:5999;lr>"))
	caller.expect("180 INVITE")
	caller.cancelled(inv)
	c := callee.expect("CANCEL")
	if len(c.all("Route")) != 0 || c.get("Via") != got.get("Via") {
		t.Errorf("CANCEL:\n%s", c.raw)
	}
	callee.send(callee.respond(c, 200))
	callee.send(callee.respond(got, 487))
	callee.expect("ACK")
}

func cancelCrossed(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 180))
	caller.expect("180 INVITE")
	caller.cancelled(inv)
	c := callee.expect("CANCEL")
	callee.answer(got)
	callee.send(callee.respond(c, 200))
	callee.expect("ACK")
	callee.over()
	caller.quiet(50 * time.Millisecond)
}

func lateAnswer(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 180))
	caller.expect("180 INVITE")
	caller.cancelled(inv)
	callee.endCancelled(got)
	time.Sleep(time.Second)
	other := response(got, 200, "OK", "late-"+callee.tag).add(callee.contact()).with(callee.sdp())
	callee.send(other)
	if ack := callee.expect("ACK"); tagOf(ack.get("To")) != "late-"+callee.tag {
		t.Errorf("the ACK is for %q", ack.get("To"))
	}
	callee.over()
}

func cancelTooLate(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	callee.answer(callee.take())
	ok := caller.expect("200 INVITE")
	caller.send(caller.cancel(inv))
	caller.expect("200 CANCEL")
	caller.confirm(ok)
	callee.expect("ACK")
	callee.quiet(50 * time.Millisecond)
	caller.hangUp(callee)
}

func byeEarly(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 180))
	ringing := caller.expect("180 INVITE")
	caller.remote, caller.target = ringing.get("To"), addrURI(ringing.get("Contact"))
	caller.send(caller.within("BYE"))
	caller.expect("200 BYE")
	caller.refused(inv, 487)
	callee.endCancelled(got)
}

// repeated counts how often a peer has received the same message by now.
func (p *peer) repeated(m *message) int {
	n := 0
	for _, seen := range p.seen {
		if seen.raw == m.raw {
			n++
		}
	}
	return n
}

func answerRepeated(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	callee.answer(callee.take())
	ok := caller.expect("200 INVITE")
	callee.expect("ACK")
	// After 0.5, 1 and 2 s more.
	caller.quiet(3800 * time.Millisecond)
	if n := caller.repeated(ok); n != 4 {
		t.Errorf("%d times the 200 in 3.8 s, want 4", n)
	}
	caller.confirm(ok)
	caller.quiet(100 * time.Millisecond)
	before := caller.repeated(ok)
	caller.quiet(4500 * time.Millisecond)
	if n := caller.repeated(ok); n != before {
		t.Errorf("the 200 goes on after its ACK")
	}
	caller.hangUp(callee)
}

func lostACK(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	callee.answer(callee.take())
	ok := caller.expect("200 INVITE")
	callee.expect("ACK")
	bye := caller.expectWithin(40*time.Second, "BYE")
	caller.send(caller.respond(bye, 200))
	if n := caller.repeated(ok); n < 10 || n > 12 {
		t.Errorf("%d times the 200 in 64*T1", n)
	}
	callee.over()
}

func lostAnswer(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.outside("INVITE", callee.number))
	callee.answer(callee.take())
	caller.expect("200 INVITE")
	bye := caller.expectWithin(40*time.Second, "BYE")
	caller.send(caller.respond(bye, 200))
	// The carrier's 200 is acknowledged before its dialog is ended.
	callee.expect("ACK")
	callee.over()
}

func ackRepeated(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	got := callee.take()
	callee.answer(got)
	caller.established()
	ack := callee.expect("ACK")
	for range 3 {
		callee.answer(got)
	}
	callee.quiet(100 * time.Millisecond)
	if n := callee.repeated(ack); n != 4 {
		t.Errorf("%d ACKs of 4 times the same 200", n)
	}
	caller.hangUp(callee)
}

func refusalRepeated(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 486))
	caller.refused(inv, 486)
	ack := callee.expect("ACK")
	if ack.get("Via") != got.get("Via") || tagOf(ack.get("To")) != callee.tag {
		t.Errorf("ACK:\n%s", ack.raw)
	}
	callee.send(callee.respond(got, 486))
	callee.quiet(100 * time.Millisecond)
	if n := callee.repeated(ack); n != 2 {
		t.Errorf("%d ACKs of the same 486 twice", n)
	}
}
