package e2e

import (
	"fmt"
	"strings"
	"testing"
)

var hidingScenarios = []scenario{
	{"S18 topology is hidden in an answered call", hiddenAnswered},
	{"S18 topology is hidden in a refused call", hiddenRefused},
}

// secrets adds to a message of a peer everything that must stay on its side, with
// marks that are easily found.
func secrets(m *message, mark string) *message {
	m.add(
		"Record-Route: <sip:rr-"+mark+".example;lr>",
		"Subject: subject-"+mark,
		"Organization: org-"+mark,
		"Warning: 399 warn-"+mark+".example \"text-"+mark+"\"",
		"User-Agent: ua-"+mark, "Server: server-"+mark,
		"X-Secret: secret-"+mark,
		"P-Charging-Vector: icid-value="+mark,
		"History-Info: <sip:hi-"+mark+"@hi.example>;index=1",
		"Reply-To: <sip:reply-"+mark+"@x.example>",
		"Call-Info: <http://info-"+mark+".example/>",
		"Alert-Info: <http://alert-"+mark+".example/>",
		"Error-Info: <sip:error-"+mark+"@x.example>",
		"Reason: SIP;cause=200;text=\"reason-"+mark+"\"",
	)
	m.start = strings.Replace(m.start, "Fine", "phrase-"+mark+" "+mark+".example", 1)
	return m
}

// secretSDP is a description that tells a lot about who wrote it.
func (p *peer) secretSDP(mark string) string {
	return "v=0\r\no=user-" + mark + " 777 777 IN IP4 " + p.self.Addr().String() + "\r\ns=session-" + mark + "\r\ni=info-" + mark +
		"\r\nu=http://" + mark + ".example/\r\ne=" + mark + "@x.example\r\nc=IN IP4 " + p.self.Addr().String() + "\r\nt=0 0\r\na=tool:" + mark +
		"\r\nm=audio 40000 RTP/AVP 8\r\ni=" + mark + "\r\nc=IN IP4 " + p.self.Addr().String() + "\r\na=rtcp:40001 IN IP4 " + p.self.Addr().String() +
		"\r\na=candidate:1 1 UDP 1 " + p.self.Addr().String() + " 40000 typ host\r\na=cname:" + mark + "\r\na=x-" + mark + "\r\n"
}

// hidden checks every byte that one leg received for what belongs to the other.
func hidden(t *testing.T, who, other *peer, mark string) {
	t.Helper()
	if len(who.seen) == 0 {
		t.Error("nothing was received")
	}
	for _, m := range who.seen {
		lacks(t, "a message of "+who.tag, m.raw,
			mark, other.tag, other.callID, other.self.Addr().String(), other.gateway.Addr().String(), other.self.String(), "z9hG4bK-"+other.tag)
		// What the gateway uses on the other leg is as telling as what the peer does.
		for _, o := range other.seen {
			if id := o.get("Call-ID"); id != m.get("Call-ID") {
				lacks(t, "a message of "+who.tag, m.raw, id)
			}
			for _, name := range []string{"From", "To"} {
				if tag := tagOf(o.get(name)); tag != "" {
					lacks(t, "a message of "+who.tag, m.raw, tag)
				}
			}
			_, branch, _ := strings.Cut(o.get("Via"), "branch=")
			lacks(t, "a message of "+who.tag, m.raw, branch)
		}
	}
}

const callerMark, calleeMark = "near-mark", "far-mark"

func (p *peer) secretInvite(number string) *message {
	m := secrets(p.invite(number), callerMark).with(p.secretSDP(callerMark))
	return m.add(
		fmt.Sprintf("Via: SIP/2.0/UDP via-%s.example;branch=z9hG4bK-%s-deep", callerMark, p.tag),
		fmt.Sprintf("Diversion: <sip:+49401@%s>;reason=unconditional;privacy=off;x=%s", p.self.Addr(), callerMark),
		fmt.Sprintf("P-Asserted-Identity: <sip:+49402@%s;x=%s>", p.self.Addr(), callerMark),
		"User-to-User: 616263;encoding=hex", "x-inin-cnv: 7f2a",
	)
}

func hiddenAnswered(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.secretInvite(callee.number))
	inv := callee.take()
	// What is to cross does.
	wants(t, "the INVITE", inv.raw, "Diversion: <sip:+49401@10.72.0.2>;reason=unconditional;privacy=off\r\n",
		"P-Asserted-Identity: <sip:+49402@10.72.0.2>\r\n", "User-to-User: 616263;encoding=hex\r\n", "x-inin-cnv: 7f2a\r\n")
	secret := func(status int) *message {
		return secrets(callee.respond(inv, status), calleeMark).with(callee.secretSDP(calleeMark))
	}
	callee.send(secret(100))
	callee.send(secret(180))
	caller.expect("180 INVITE")
	callee.send(secret(183))
	caller.expect("183 INVITE")
	callee.send(secret(200))
	caller.established()
	callee.expect("ACK")
	caller.heard()
	// A re-INVITE of each side, one taken, one refused, and the end.
	re := secrets(callee.within("INVITE"), calleeMark).with(callee.secretSDP(calleeMark))
	callee.send(re)
	got := caller.expect("INVITE")
	caller.send(secrets(caller.respond(got, 200), callerMark).with(caller.secretSDP(callerMark)))
	callee.send(callee.ack(callee.expect("200 INVITE")))
	caller.expect("ACK")
	callee.heard()
	again := secrets(caller.within("INVITE"), callerMark).with(caller.secretSDP(callerMark))
	caller.send(again)
	callee.send(secrets(callee.respond(callee.expect("INVITE"), 488), calleeMark))
	callee.expect("ACK")
	caller.refused(again, 488)
	callee.send(secrets(callee.within("BYE"), calleeMark))
	callee.expect("200 BYE")
	caller.over()
	hidden(t, caller, callee, calleeMark)
	hidden(t, callee, caller, callerMark)
}

func hiddenRefused(t *testing.T, s *stage) {
	for _, status := range []int{302, 400, 404, 486, 500, 503, 603} {
		caller, callee := s.pair(t)
		inv := caller.secretInvite(callee.number)
		caller.send(inv)
		got := callee.take()
		callee.send(secrets(callee.respond(got, status), calleeMark).add(callee.contact()))
		callee.expect("ACK")
		m := caller.next(patience)
		for m != nil && m.status() == 100 {
			m = caller.next(patience)
		}
		if m == nil {
			t.Fatalf("no answer to a call refused with %d", status)
		}
		caller.confirmRefusal(inv, m)
		hidden(t, caller, callee, calleeMark)
		hidden(t, callee, caller, callerMark)
	}
}
