package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/tests/netlab"
)

var failoverScenarios = []scenario{
	{"T10 a carrier that gives no response, and no_response is off", silentCarrier},
	{"T10 a carrier that rings for ever", ringsForEver},
	{"T7 480 with no circuit goes on to the second carrier", failsOver(480, 0, "Reason: Q.850;cause=34")},
	{"T7 503 goes on to the second carrier", failsOver(503, 0)},
	{"T7 500 goes on to the second carrier", failsOver(500, 0)},
	{"T7 408 goes on to the second carrier", failsOver(408, 0)},
	{"T7 503 after early media goes on to the second carrier", failsOver(503, 183)},
	{"T7 both carriers fail", bothFail},
	{"S20 302", mapped(302, 480)},
	{"S20 400", mapped(400, 503)},
	{"S20 401", mapped(401, 503)},
	{"S20 403", mapped(403, 403)},
	{"S20 404", mapped(404, 404)},
	{"S20 420", mapped(420, 503)},
	{"S20 480", mapped(480, 480)},
	{"S20 484", mapped(484, 484)},
	{"S20 486", mapped(486, 486)},
	{"S20 488", mapped(488, 488)},
	{"S20 600", mapped(600, 600)},
	{"S20 603", mapped(603, 603)},
	{"S20 699", mapped(699, 603)},
}

// both is a caller whose number either carrier may get, carrier-a first.
func (s *stage) both(t *testing.T) (caller, first, second *peer) {
	t.Helper()
	callees := s.callees(t, "+1555", netlab.CarrierA, netlab.CarrierB)
	return s.caller(t, netlab.Platform), callees[0], callees[1]
}

// failsOver refuses with a status, after a provisional one unless that is 0.
func failsOver(status, early int, fields ...string) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		caller, first, second := s.both(t)
		caller.send(caller.invite(first.number))
		got := first.take()
		if early > 0 {
			first.send(first.respond(got, early).with(first.sdp()))
			caller.expect("183 INVITE")
		}
		first.send(first.respond(got, status).add(fields...))
		first.expect("ACK")
		again := second.take()
		lacks(t, "the second carrier's INVITE", again.raw, "10.72.", got.get("Call-ID"), tagOf(got.get("From")))
		second.answer(again)
		ok := caller.established()
		lacks(t, "the answer", ok.raw, "10.72.", "10.73.")
		second.expect("ACK")
		first.quiet(50 * time.Millisecond)
		caller.hangUp(second)
	}
}

func bothFail(t *testing.T, s *stage) {
	caller, first, second := s.both(t)
	inv := caller.invite(first.number)
	caller.send(inv)
	for _, p := range []*peer{first, second} {
		p.send(p.respond(p.take(), 503))
		p.expect("ACK")
	}
	if r := caller.refused(inv, 503); r.get("Retry-After") == "" {
		t.Errorf("503 without Retry-After:\n%s", r.raw)
	}
}

// mapped refuses with one status and expects another at the caller; nobody else is tried.
func mapped(status, want int) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		caller, first, second := s.both(t)
		inv := caller.invite(first.number)
		caller.send(inv)
		got := first.take()
		first.send(first.respond(got, status).add("Contact: <sip:elsewhere@10.72.0.10>", "Reason: Q.850;cause=29"))
		first.expect("ACK")
		r := caller.refused(inv, want)
		lacks(t, "the refusal", r.raw, "10.72.", "elsewhere")
		wants(t, "the refusal", r.raw, "Reason: Q.850;cause=29\r\n")
		second.quiet(50 * time.Millisecond)
	}
}

// T11, T6: a carrier that gives no response costs half a second, and what wakes up too late is
// sent away; a 503 with Retry-After keeps calls off a carrier for that time.
func TestFailoverWithHealth(t *testing.T) {
	s := newStage(t, start(t, netlab.GatewayOptions{Engine: call.EngineUserspace, Strategy: "priority"}))
	before := s.status(t)
	t.Run("T11 a late answer", func(t *testing.T) { leftInSilence(t, s, 200) })
	t.Run("T11 late ringing", func(t *testing.T) { leftInSilence(t, s, 180) })
	t.Run("T11 a late 100", func(t *testing.T) { leftInSilence(t, s, 100) })
	t.Run("T6 Retry-After", func(t *testing.T) {
		failsOver(503, 0, "Retry-After: 120")(t, s)
		caller, first, second := s.both(t)
		caller.send(caller.invite(first.number))
		second.answer(second.take())
		caller.established()
		second.expect("ACK")
		first.quiet(50 * time.Millisecond)
		caller.hangUp(second)
	})
	s.settled(t, before)
}

// A carrier that is down costs the ring timeout and hardly more.
func silentCarrier(t *testing.T, s *stage) {
	caller, first, second := s.both(t)
	begun := time.Now()
	caller.send(caller.invite(first.number))
	got := first.take()
	again := second.expectWithin(ringTimeout+10*time.Second, "INVITE")
	if took := time.Since(begun); took > ringTimeout+time.Second {
		t.Errorf("the second carrier was called after %v, the ring timeout is %v", took, ringTimeout)
	}
	second.callID = again.get("Call-ID")
	second.answer(again)
	caller.established()
	second.expect("ACK")
	// The first one wakes up: nobody waits for it any more.
	first.answer(got)
	first.expect("ACK")
	first.over()
	caller.send(caller.within("BYE"))
	caller.expect("200 BYE")
	second.over()
}

// leftInSilence has the first carrier wake up with a response after the second one has the call.
func leftInSilence(t *testing.T, s *stage, late int) {
	caller, first, second := s.both(t)
	begun := time.Now()
	caller.send(caller.invite(first.number))
	got := first.take()
	again := second.take()
	second.send(second.respond(again, 180))
	caller.expect("180 INVITE")
	if took := time.Since(begun); took > time.Second {
		t.Errorf("the caller heard the second carrier ring after %v, want 1s at most", took)
	}
	if late == 200 {
		first.answer(got)
		first.expect("ACK")
		first.over()
	} else {
		first.send(first.respond(got, late))
		c := first.expect("CANCEL")
		first.send(first.respond(c, 200))
		first.send(first.respond(got, 487))
		first.expect("ACK")
	}
	second.answer(again)
	caller.established()
	second.expect("ACK")
	caller.hangUp(second)
}

func ringsForEver(t *testing.T, s *stage) {
	caller, first, second := s.both(t)
	inv := caller.invite(first.number)
	caller.send(inv)
	got := first.take()
	first.send(first.respond(got, 180))
	caller.expect("180 INVITE")
	c := first.expectWithin(ringTimeout+2*time.Second, "CANCEL")
	first.send(first.respond(c, 200))
	first.send(first.respond(got, 487))
	first.expect("ACK")
	r := caller.refused(inv, 480)
	if !strings.Contains(r.get("Reason"), "cause=19") {
		t.Errorf("Reason %q, want no answer (19)", r.get("Reason"))
	}
	second.quiet(50 * time.Millisecond)
}
