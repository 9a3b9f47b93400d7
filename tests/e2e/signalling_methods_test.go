package e2e

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

const allow = "INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, REFER, NOTIFY"

var methodScenarios = []scenario{
	{"S2 OPTIONS out of dialog", outOfDialog("OPTIONS", 200)},
	{"S2 INFO out of dialog", outOfDialog("INFO", 200)},
	{"S2 REFER out of dialog is declined", outOfDialog("REFER", 603)},
	{"S2 BYE of no dialog", outOfDialog("BYE", 481)},
	{"S2 CANCEL of no INVITE", outOfDialog("CANCEL", 481)},
	{"S2 OPTIONS in the dialog, from both sides", func(t *testing.T, s *stage) { inDialog(t, s, "OPTIONS", 200) }},
	{"S3 SUBSCRIBE", outOfDialog("SUBSCRIBE", 405)},
	{"S3 MESSAGE", outOfDialog("MESSAGE", 405)},
	{"S3 UPDATE", outOfDialog("UPDATE", 405)},
	{"S3 PRACK", outOfDialog("PRACK", 405)},
	{"S3 PUBLISH", outOfDialog("PUBLISH", 405)},
	{"S3 REGISTER", outOfDialog("REGISTER", 405)},
	{"S3 T5 REGISTER requests beyond a trunk's rate", registerRate},
	{"S3 in-dialog INFO", func(t *testing.T, s *stage) { inDialog(t, s, "INFO", 405) }},
	{"S3 in-dialog UPDATE", func(t *testing.T, s *stage) { inDialog(t, s, "UPDATE", 405) }},
	{"S3 in-dialog PRACK", func(t *testing.T, s *stage) { inDialog(t, s, "PRACK", 405) }},
	{"S3 in-dialog MESSAGE", func(t *testing.T, s *stage) { inDialog(t, s, "MESSAGE", 405) }},
	{"S3 in-dialog SUBSCRIBE", func(t *testing.T, s *stage) { inDialog(t, s, "SUBSCRIBE", 405) }},
	{"S3 unknown method", outOfDialog("FROBNICATE", 501)},
	{"S3 unknown method in the dialog", func(t *testing.T, s *stage) { inDialog(t, s, "FROBNICATE", 501) }},
	{"S6 in-dialog REFER is declined and the call goes on", func(t *testing.T, s *stage) { inDialog(t, s, "REFER", 603) }},
	{"S9 compact headers, unknown headers, Via echoed", compactHeaders},
	{"S9 the whole Contact URI is the Request-URI", wholeContact},
	{"S9 Record-Route and Route honoured", recordRoute},
	{"S9 a strict router is honoured", strictRoute},
	{"S13 an unknown source gets nothing", unknownSource},
	{"S19 no hops left", noHops},
	{"S19 Max-Forwards counts down", hops},
	{"S19 merged request", merged},
	{"S19 a request that went through here", looped},
	{"S19 a required extension that is not known", extension},
	{"S19 a retransmitted INVITE makes no second call", retransmitted},
}

// outOfDialog sends one request of a peer at each side and expects its answer.
func outOfDialog(method string, status int) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		for _, host := range []string{netlab.Platform, netlab.CarrierA} {
			p := s.caller(t, host)
			m := p.outside(method, "+49891")
			if method == "REFER" {
				m.add("Refer-To: <sip:+49892@" + p.gateway.Addr().String() + ">")
			}
			p.send(m)
			answered(t, m, p.expect(fmt.Sprintf("%d %s", status, method)))
		}
	}
}

// A trunk that sends more REGISTER requests than it may is told when to come again. What it
// repeats is not counted, and its calls go on.
func registerRate(t *testing.T, s *stage) {
	p := s.caller(t, netlab.CarrierB)
	send := func() *message {
		m := p.outside("REGISTER", "+49891")
		p.cseq++
		p.send(m)
		return m
	}
	for range registersB {
		m := send()
		first := p.expect("405 REGISTER")
		answered(t, m, first)
		p.send(m)
		select {
		case again := <-p.in:
			if again.raw != first.raw {
				t.Errorf("a repetition got another answer:\n%s", again.raw)
			}
		case <-time.After(patience):
			t.Fatal("a repetition got no answer")
		}
	}
	m := send()
	r := p.expect("503 REGISTER")
	answered(t, m, r)
	// One is due each 20 minutes.
	if wait, err := strconv.Atoi(r.get("Retry-After")); err != nil || wait < 1100 || wait > 1200 {
		t.Errorf("Retry-After: %q", r.get("Retry-After"))
	}
	trunks, err := s.api.Trunks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range trunks {
		want := uint64(0)
		if tr.Name == netlab.CarrierB {
			want = 1
		}
		if got := tr.In.Refused["register-rate"]; got != want {
			t.Errorf("trunk %s: %d REGISTER requests refused, want %d", tr.Name, got, want)
		}
	}
	caller, callee := s.caller(t, netlab.CarrierB), s.callees(t, "+4940", netlab.Platform)[0]
	caller.send(caller.invite(callee.number))
	callee.answer(callee.take())
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}

// answered checks what every response has to repeat, and Allow where it is due.
func answered(t *testing.T, m, r *message) {
	t.Helper()
	for _, name := range []string{"Via", "From", "Call-ID", "CSeq"} {
		if r.get(name) != m.get(name) {
			t.Errorf("%s: %q, the request's was %q", name, r.get(name), m.get(name))
		}
	}
	if !strings.HasPrefix(r.get("To"), m.get("To")) || tagOf(r.get("To")) == "" {
		t.Errorf("To: %q, the request's was %q", r.get("To"), m.get("To"))
	}
	_, method, _ := strings.Cut(m.get("CSeq"), " ")
	if s := r.status(); (s == 405 || s == 501 || method == "OPTIONS") && r.get("Allow") != allow {
		t.Errorf("%d with Allow %q", s, r.get("Allow"))
	}
	lacks(t, "Allow", r.get("Allow"), "UPDATE", "PRACK", "SUBSCRIBE", "REGISTER")
}

// inDialog sends a request within a call, from either side; the call survives it.
func inDialog(t *testing.T, s *stage, method string, status int) {
	caller, callee := s.call(t)
	for _, p := range []*peer{caller, callee} {
		m := p.within(method)
		if method == "REFER" {
			m.add("Refer-To: <sip:+49892@" + p.gateway.Addr().String() + ">")
		}
		p.send(m)
		answered(t, m, p.expect(fmt.Sprintf("%d %s", status, method)))
	}
	caller.quiet(50 * time.Millisecond)
	callee.hangUp(caller)
}

func compactHeaders(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	m := caller.invite(callee.number)
	via := fmt.Sprintf("SIP/2.0/UDP %s ;Branch=z9hG4bKodd; x=\"a;b\" ;rport", caller.self)
	for i, f := range m.fields {
		name, value, _ := strings.Cut(f, ":")
		if short, ok := map[string]string{"From": "f", "To": "t", "Call-ID": "I", "Contact": "m", "Content-Type": "c"}[name]; ok {
			m.fields[i] = short + " :" + value
		} else if name == "Via" {
			m.fields[i] = "v: " + via
		}
	}
	m.add("k: timer, 100rel", "x: 1800", "s: lunch", "o: presence", "r: <sip:x@y>", "u: z", "X-Strange: \"unbalanced", "b: <sip:x@y>")
	raw := strings.Replace(string(m.bytes()), "Content-Length:", "l:", 1)
	caller.sendRaw([]byte(raw))
	callee.answer(callee.take())
	ok := caller.expect("200 INVITE")
	want := strings.Replace(via, ";rport", fmt.Sprintf(";rport=%d;received=%s", caller.self.Port(), caller.self.Addr()), 1)
	if ok.get("Via") != want {
		t.Errorf("Via %q, want %q", ok.get("Via"), want)
	}
	caller.confirm(ok)
	callee.expect("ACK")
	// And compact in the dialog, from the other side.
	bye := callee.within("BYE")
	text := string(bye.bytes())
	for long, short := range map[string]string{"From:": "f:", "To:": "t:", "Call-ID:": "i:", "Via:": "v:", "Content-Length:": "l:"} {
		text = strings.Replace(text, "\r\n"+long, "\r\n"+short, 1)
	}
	callee.sendRaw([]byte(text))
	callee.expect("200 BYE")
	caller.over()
}

func wholeContact(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	uri := func(p *peer, user string) string {
		return fmt.Sprintf("sip:%s;a=b@%s;transport=udp;x-opaque=%%41;y", user, p.self)
	}
	caller.send(caller.invite(callee.number).set("Contact", "\"Me, myself\" <"+uri(caller, "one")+">;q=0.5"))
	inv := callee.take()
	callee.send(callee.respond(inv, 200).set("Contact", "<"+uri(callee, "two")+">").with(callee.sdp()))
	caller.established()
	if got := callee.expect("ACK").uri(); got != uri(callee, "two") {
		t.Errorf("ACK goes to %q", got)
	}
	callee.send(callee.within("BYE"))
	callee.expect("200 BYE")
	if got := caller.over().uri(); got != uri(caller, "one") {
		t.Errorf("BYE goes to %q", got)
	}
}

// Both sides have proxies in the path: the gateway's requests in the dialog name them,
// in the right order for each side.
func recordRoute(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	near, far := func(p *peer) string { return fmt.Sprintf("<sip:%s;lr;n=1>", p.self) }, "<sip:far.example;lr>"
	caller.send(caller.invite(callee.number).add("Record-Route: "+near(caller)+", "+far, "Record-Route: <sip:third.example;lr>"))
	inv := callee.take()
	lacks(t, "the callee's INVITE", inv.raw, "Record-Route", "third.example")
	callee.send(callee.respond(inv, 180).add("Record-Route: "+far, "Record-Route: "+near(callee)))
	ringing := caller.expect("180 INVITE")
	if rr := ringing.all("Record-Route"); strings.Join(rr, ", ") != near(caller)+", "+far+", <sip:third.example;lr>" {
		t.Errorf("180 with Record-Route %q", rr)
	}
	callee.send(callee.respond(inv, 200).add("Record-Route: "+far, "Record-Route: "+near(callee)).with(callee.sdp()))
	ok := caller.expect("200 INVITE")
	if rr := ok.all("Record-Route"); len(rr) != 2 {
		t.Errorf("200 with Record-Route %q", rr)
	}
	caller.confirm(ok)
	ack := callee.expect("ACK")
	if got := strings.Join(ack.all("Route"), ", "); got != near(callee)+", "+far {
		t.Errorf("ACK with Route %q", got)
	}
	if ack.uri() != addrURI(callee.contact()) {
		t.Errorf("ACK to %q", ack.uri())
	}
	callee.send(callee.within("BYE"))
	callee.expect("200 BYE")
	if got := strings.Join(caller.over().all("Route"), ", "); got != near(caller)+", "+far+", <sip:third.example;lr>" {
		t.Errorf("BYE with Route %q", got)
	}
}

func strictRoute(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	strict := fmt.Sprintf("sip:old@%s", callee.self)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	callee.send(callee.respond(inv, 200).add("Record-Route: <" + strict + ">").with(callee.sdp()))
	caller.established()
	ack := callee.expect("ACK")
	if ack.uri() != strict || ack.get("Route") != "<"+addrURI(callee.contact())+">" {
		t.Errorf("ACK to %q with Route %q", ack.uri(), ack.all("Route"))
	}
	caller.hangUp(callee)
}

func unknownSource(t *testing.T, s *stage) {
	stranger := netip.MustParseAddr("10.71.0.99")
	s.ip(t, netlab.Platform, "addr", "add", stranger.String()+"/24", "dev", netlab.PeerDevice)
	_, callee := s.pair(t)
	conn := s.listenAt(t, netlab.Platform, netip.AddrPortFrom(stranger, 5060))
	p := s.peer(t, netlab.Platform, conn)
	p.send(p.outside("OPTIONS", ""))
	p.send(p.outside("FROBNICATE", "x"))
	p.send(p.invite(callee.number))
	p.sendRaw([]byte("INVITE sip:broken\r\n\r\n"))
	if err := conn.SetReadDeadline(time.Now().Add(400 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	if n, err := conn.Read(buf); err == nil {
		t.Errorf("a stranger was answered: %q", buf[:n])
	}
	callee.quiet(50 * time.Millisecond)
}

func noHops(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).set("Max-Forwards", "0")
	caller.send(inv)
	caller.refused(inv, 483)
	callee.quiet(50 * time.Millisecond)
	// An OPTIONS has arrived where it was to go.
	caller.send(caller.outside("OPTIONS", callee.number).set("Max-Forwards", "0"))
	caller.expect("200 OPTIONS")
}

func hops(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number).set("Max-Forwards", "7"))
	inv := callee.take()
	if inv.get("Max-Forwards") != "6" {
		t.Errorf("Max-Forwards %q", inv.get("Max-Forwards"))
	}
	callee.answer(inv)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}

// The same request by another way: same Call-ID, tag and CSeq, another branch.
func merged(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	caller.send(inv)
	first := callee.take()
	again := caller.invite(callee.number)
	caller.send(again)
	caller.refused(again, 482)
	callee.answer(first)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}

func looped(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).add(fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bKours", caller.gateway))
	caller.send(inv)
	caller.refused(inv, 482)
	callee.quiet(50 * time.Millisecond)
}

func extension(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).add("Require: 100rel, x-frob")
	caller.send(inv)
	if got := caller.refused(inv, 420).get("Unsupported"); got != "100rel, x-frob" {
		t.Errorf("Unsupported: %q", got)
	}
	callee.quiet(50 * time.Millisecond)
}

func retransmitted(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number)
	for range 3 {
		caller.send(inv)
	}
	first := callee.take()
	callee.quiet(100 * time.Millisecond)
	callee.answer(first)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}
