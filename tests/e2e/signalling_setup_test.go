package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

var setupScenarios = []scenario{
	{"S5 180 without SDP, 183 with SDP", ringing},
	{"S5 180 with SDP and several 18x", severalRings},
	{"S5 twelve 183, then 200", twelveProgress},
	{"S5 200 without SDP after a 183 with SDP", answeredEarly},
	{"S7 180 and 200 back to back", backToBack},
	{"S7 200 and 180 back to back", backToFront},
	{"S7 forked 2xx", forked},
	{"S7 forked 18x with one 2xx", forkedRinging},
	{"S8 delayed offer", delayedOffer},
	{"S12 a call from a carrier to the platform", fromCarrier},
	{"S19 an INVITE above 1300 bytes", func(t *testing.T, s *stage) { bigInvite(t, s, 1800) }},
	{"S19 an INVITE above 4000 bytes", func(t *testing.T, s *stage) { bigInvite(t, s, 5000) }},
	{"S19 an answer above 1300 bytes", bigAnswer},
}

func ringing(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	callee.send(callee.respond(inv, 180))
	r := caller.expect("180 INVITE")
	if r.body != "" || r.get("Content-Type") != "" || tagOf(r.get("To")) == "" || r.get("Contact") == "" {
		t.Errorf("a 180 without SDP became:\n%s", r.raw)
	}
	callee.send(callee.respond(inv, 183).with(callee.sdp()))
	p := caller.expect("183 INVITE")
	wants(t, "the 183", p.body, "m=audio ", "c=IN IP4 "+caller.gateway.Addr().String())
	callee.answer(inv)
	ok := caller.established()
	if tagOf(ok.get("To")) != tagOf(p.get("To")) || tagOf(ok.get("To")) != tagOf(r.get("To")) {
		t.Error("the tag changed on the way")
	}
	if ok.body != p.body {
		t.Errorf("the same answer reads otherwise in the 200 and the 183:\n%s\n%s", ok.body, p.body)
	}
	callee.expect("ACK")
	caller.hangUp(callee)
}

func severalRings(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	callee.send(callee.respond(inv, 100))
	for _, step := range []struct {
		status int
		sdp    bool
	}{{181, false}, {180, true}, {182, false}, {183, true}, {180, false}} {
		r := callee.respond(inv, step.status)
		if step.sdp {
			r.with(callee.sdp())
		}
		callee.send(r)
		got := caller.expect(fmt.Sprintf("%d INVITE", step.status))
		if (got.body != "") != step.sdp {
			t.Errorf("%d: body %q", step.status, got.body)
		}
	}
	callee.answer(inv)
	caller.established()
	callee.expect("ACK")
	callee.hangUp(caller)
}

func twelveProgress(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	for i := range 12 {
		callee.send(callee.respond(inv, 183).with(strings.Replace(callee.sdp(), "m=audio 40000", fmt.Sprintf("m=audio %d", 40000+2*i), 1)))
	}
	callee.answer(inv)
	for range 12 {
		// The same description again is no other message: some are repetitions.
		m := caller.next(patience)
		for m != nil && m.status() == 100 {
			m = caller.next(patience)
		}
		if m == nil {
			t.Fatal("the call was not answered")
		}
		if m.status() == 200 {
			caller.confirm(m)
			break
		}
	}
	callee.expect("ACK")
	caller.hangUp(callee)
}

// The answer was given in the 183; a carrier need not repeat it (RFC 3261 section
// 13.2.1: the first description is the answer).
func answeredEarly(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	callee.send(callee.respond(inv, 183).with(callee.sdp()))
	early := caller.expect("183 INVITE")
	callee.send(callee.respond(inv, 200))
	ok := caller.established()
	if ok.body != early.body {
		t.Errorf("the 200 has %q, the 183 had %q", ok.body, early.body)
	}
	callee.expect("ACK")
	caller.hangUp(callee)
}

// The order in which a carrier's responses arrive must not put a 180 behind the 200.
func backToBack(t *testing.T, s *stage) { burst(t, s, 180, 200) }

func backToFront(t *testing.T, s *stage) { burst(t, s, 200, 180) }

func burst(t *testing.T, s *stage, first, second int) {
	for range 20 {
		caller, callee := s.pair(t)
		caller.send(caller.invite(callee.number))
		inv := callee.take()
		var raw [2][]byte
		for i, status := range []int{first, second} {
			r := callee.respond(inv, status)
			if status == 200 {
				r.with(callee.sdp())
			}
			raw[i] = r.bytes()
		}
		callee.sendRaw(raw[0])
		callee.sendRaw(raw[1])
		callee.expect("ACK")
		answered := false
		for !answered {
			m := caller.next(patience)
			switch {
			case m == nil:
				t.Fatal("no answer")
			case m.status() == 200:
				answered = true
				caller.confirm(m)
			}
		}
		caller.quiet(20 * time.Millisecond)
		caller.hangUp(callee)
	}
}

// Two phones behind the carrier pick up: the first has the call, the other is thanked
// and let go.
func forked(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	other := response(inv, 200, "OK", "fork-"+callee.tag)
	other.add(fmt.Sprintf("Contact: <sip:fork@%s>", callee.self), fmt.Sprintf("Record-Route: <sip:%s;lr;fork>", callee.self)).with(callee.sdp())
	callee.answer(inv)
	callee.send(other)
	caller.established()
	var ackMine, ackFork, byeFork *message
	for range 3 {
		m := callee.next(patience)
		switch {
		case m == nil:
			t.Fatalf("the fork was not ended:\n%s", callee.log())
		case m.what() == "ACK" && tagOf(m.get("To")) == callee.tag:
			ackMine = m
		case m.what() == "ACK":
			ackFork = m
		case m.what() == "BYE":
			byeFork = m
			callee.send(response(m, 200, "OK", ""))
		}
	}
	if ackMine == nil || ackFork == nil || byeFork == nil {
		t.Fatalf("received:\n%s", callee.log())
	}
	for _, m := range []*message{ackFork, byeFork} {
		if tagOf(m.get("To")) != "fork-"+callee.tag || m.uri() != fmt.Sprintf("sip:fork@%s", callee.self) || !strings.Contains(m.get("Route"), ";fork") {
			t.Errorf("the fork got:\n%s", m.raw)
		}
	}
	// The 2xx of the fork again: its ACK was lost.
	count := len(callee.seen)
	callee.send(other)
	callee.quiet(50 * time.Millisecond)
	if len(callee.seen) != count+1 {
		t.Errorf("a repeated 2xx of a fork was answered with %d messages", len(callee.seen)-count)
	}
	callee.hangUp(caller)
}

func forkedRinging(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	callee.send(response(inv, 183, "Progress", "early-"+callee.tag).add(callee.contact()).with(callee.sdpAt("10.72.0.77")))
	caller.expect("183 INVITE")
	callee.answer(inv)
	caller.established()
	if ack := callee.expect("ACK"); tagOf(ack.get("To")) != callee.tag {
		t.Errorf("the ACK went to %q", ack.get("To"))
	}
	caller.hangUp(callee)
}

// S8: the offer comes in the 2xx, the answer in the ACK.
func delayedOffer(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.outside("INVITE", callee.number))
	inv := callee.take()
	if inv.body != "" {
		t.Errorf("an INVITE without an offer became one with:\n%s", inv.body)
	}
	callee.send(callee.respond(inv, 180))
	caller.expect("180 INVITE")
	callee.answer(inv)
	ok := caller.expect("200 INVITE")
	wants(t, "the offer", ok.body, "m=audio ", " RTP/AVP 8 0 101\r\n", "c=IN IP4 "+caller.gateway.Addr().String())
	callee.quiet(100 * time.Millisecond) // no ACK before there is an answer
	caller.remote, caller.target = ok.get("To"), addrURI(ok.get("Contact"))
	caller.send(caller.ack(ok).with(caller.sdp("m=audio 41000 RTP/AVP 0")))
	ack := callee.expect("ACK")
	wants(t, "the answer", ack.body, " RTP/AVP 0\r\n", "c=IN IP4 "+callee.gateway.Addr().String())
	caller.hangUp(callee)
}

func fromCarrier(t *testing.T, s *stage) {
	caller, callee := s.caller(t, netlab.CarrierB), s.callees(t, netlab.PrefixPlatform, netlab.Platform)[0]
	caller.send(caller.invite(callee.number).add("P-Asserted-Identity: \"Jane\" <sip:+4930555@10.73.0.10>"))
	inv := callee.take()
	wants(t, "the INVITE", inv.raw, "P-Asserted-Identity: \"Jane\" <sip:+4930555@10.71.0.2>\r\n")
	lacks(t, "the platform's INVITE", inv.raw, "10.73.", "10.72.")
	callee.answer(inv)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}

func bigInvite(t *testing.T, s *stage, size int) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	// The size is in what crosses: codecs with long parameters.
	body := []string{"m=audio 40000 RTP/AVP 8 96 97 98 99", "a=rtpmap:8 PCMA/8000"}
	for pt := 96; pt < 100; pt++ {
		body = append(body, fmt.Sprintf("a=rtpmap:%d opus/48000/2", pt), fmt.Sprintf("a=fmtp:%d x=%s", pt, strings.Repeat("y", size/4)))
	}
	caller.send(inv.with(caller.sdp(body...)))
	got := callee.take()
	if len(got.raw) < size || !strings.HasSuffix(got.raw, "\r\n") || fmt.Sprint(len(got.body)) != got.get("Content-Length") {
		t.Errorf("%d bytes arrived, Content-Length %s of %d", len(got.raw), got.get("Content-Length"), len(got.body))
	}
	callee.answer(got)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}

func bigAnswer(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number).with(caller.sdp("m=audio 40000 RTP/AVP 8 96", "a=rtpmap:96 opus/48000/2")))
	inv := callee.take()
	callee.send(callee.respond(inv, 200).with(callee.sdp("m=audio 40000 RTP/AVP 96", "a=rtpmap:96 opus/48000/2", "a=fmtp:96 x="+strings.Repeat("y", 4200))))
	if ok := caller.established(); len(ok.raw) < 4200 {
		t.Errorf("%d bytes arrived", len(ok.raw))
	}
	callee.expect("ACK")
	caller.hangUp(callee)
}
