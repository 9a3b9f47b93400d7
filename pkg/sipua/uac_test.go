package sipua

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

func (r *rig) dial(p *peer) (call.Leg, *message) {
	r.t.Helper()
	l, err := r.stack.Dial(p.target(), call.Invite{Number: "+49301", MaxForwards: 69, Body: []byte("offer")})
	if err != nil {
		r.t.Fatal(err)
	}
	return l, p.want("INVITE")
}

func contact(p *peer) string { return fmt.Sprintf("Contact: <sip:callee@%s>", p.addr()) }

// 12 x 183, then 200: all are told and the 200 is acknowledged. sipgo's WaitAnswer
// gives up after ten responses.
func TestManyProvisionals(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	p.send(p.answer(invite, 100, "", ""))
	for i := range 12 {
		p.send(p.answer(invite, 183, "callee", fmt.Sprintf("early %d", i)))
	}
	p.send(p.answer(invite, 200, "callee", "answer", contact(p)))
	event[call.Trying](t, l)
	for i := range 12 {
		if e := event[call.Progressed](t, l); e.Code != 183 || string(e.Body) != fmt.Sprintf("early %d", i) {
			t.Errorf("%d: %+v", i, e)
		}
	}
	if e := event[call.Accepted](t, l); string(e.Body) != "answer" {
		t.Errorf("answer %q", e.Body)
	}
	if err := l.Ack(nil); err != nil {
		t.Fatal(err)
	}
	p.want("ACK")
	p.send(p.answer(invite, 180, "callee", "")) // late: is not told
	go closeLeg(t, l, hangup)
	p.send(p.answer(p.want("BYE"), 200, "", ""))
}

// A flood of provisional responses that nobody reads must not block the stack nor
// push out what counts.
func TestProvisionalFlood(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	for i := range 500 {
		p.send(p.answer(invite, 183, "callee", fmt.Sprint(i)))
	}
	p.send(p.answer(invite, 486, "callee", ""))
	p.want("ACK")
	n := 0
	for {
		e := <-l.Events()
		if rejected, ok := e.(call.Rejected); ok {
			if rejected.Code != 486 || n != eventRoom {
				t.Errorf("%d after %d provisional responses", rejected.Code, n)
			}
			return
		}
		n++
	}
}

// What goes out is made of the call's values and our addresses only (S18).
func TestOutboundInvite(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, err := r.stack.Dial(p.target(), call.Invite{
		Number: "+49 30#1", From: call.Party{Display: `A "B"`, User: "+4989"}, To: call.Party{User: "+4930"},
		Asserted: &call.Party{User: "+49891"}, Privacy: "none", MaxForwards: 42,
		Headers: []call.Header{{Name: "x-inin-cnv", Value: "1-2"}, {Name: "Diversion", Value: "<sip:+4940@nobody.invalid>;reason=unconditional"}},
		Body:    []byte("offer"),
	})
	if err != nil {
		t.Fatal(err)
	}
	m := p.want("INVITE")
	got := map[string]string{}
	for _, f := range m.fields {
		got[f.name] += f.value
	}
	us, them := r.stack.Addr().String(), p.addr()
	for name, want := range map[string]string{
		"Via":                 "SIP/2.0/UDP " + us + ";branch=" + m.via.Branch,
		"Max-Forwards":        "42",
		"From":                `"A \"B\"" <sip:+4989@127.0.0.1>;tag=` + m.fromTag,
		"To":                  "<sip:+4930@127.0.0.2>",
		"Call-ID":             l.CallID(),
		"CSeq":                "1 INVITE",
		"Contact":             "<sip:" + us + ">",
		"Allow":               allowed,
		"User-Agent":          "tandem",
		"P-Asserted-Identity": "<sip:+49891@127.0.0.1>",
		"Privacy":             "none",
		"x-inin-cnv":          "1-2",
		"Diversion":           "<sip:+4940@127.0.0.1>;reason=unconditional",
		"Content-Type":        "application/sdp",
		"Content-Length":      "5",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("more than was asked for: %v", got)
	}
	if want := fmt.Sprintf("sip:+49%%2030%%231@%s", them); m.uri != want {
		t.Errorf("Request-URI %q, want %q", m.uri, want)
	}
	if !strings.HasPrefix(m.via.Branch, "z9hG4bK") || len(m.fromTag) < 20 {
		t.Errorf("branch %q, tag %q", m.via.Branch, m.fromTag)
	}
	p.send(p.answer(m, 603, "x", ""))
	event[call.Rejected](t, l)
}

// An anonymous caller is so in From and in Contact, and keeps the asserted identity
// (document 001 section 2.11, S12).
func TestAnonymous(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, err := r.stack.Dial(p.target(), call.Invite{Number: "1", From: call.Party{Display: "Bob", User: "77", Anonymous: true},
		Asserted: &call.Party{User: "77"}})
	if err != nil {
		t.Fatal(err)
	}
	m := p.want("INVITE")
	if m.from.Display != "anonymous" || m.from.URI != "sip:anonymous@anonymous.invalid" ||
		m.contact.Display != "anonymous" || m.contact.URI != "sip:anonymous@"+r.stack.Addr().String() ||
		m.value(fPrivacy) != "id" || m.value(fAsserted) != "<sip:77@127.0.0.1>" {
		t.Errorf("From %+v, Contact %+v, Privacy %q, PAI %q", m.from, m.contact, m.value(fPrivacy), m.value(fAsserted))
	}
	p.send(p.answer(m, 486, "x", ""))
	event[call.Rejected](t, l)
}

// ACK and BYE go to the callee's whole Contact URI, along its routes reversed (S9).
func TestDialogOfCaller(t *testing.T) {
	r := newRig(t)
	p, proxy := r.peer("127.0.0.2"), r.peer("127.0.0.3")
	l, invite := r.dial(p)
	uri := "sip:callee@10.255.255.1:5999;transport=udp;gr;x-unknown=%41"
	p.send(p.answer(invite, 200, "callee", "answer", "Contact: \"C\" <"+uri+">;expires=60",
		"Record-Route: <sip:far.example.com;lr>", fmt.Sprintf("Record-Route: <sip:%s;lr>", proxy.addr())))
	event[call.Accepted](t, l)
	if err := l.Ack(nil); err != nil {
		t.Fatal(err)
	}
	ack := proxy.want("ACK")
	var routes []string
	for _, f := range ack.fields {
		if f.name == "Route" {
			routes = append(routes, f.value)
		}
	}
	if want := fmt.Sprintf("<sip:%s;lr>|<sip:far.example.com;lr>", proxy.addr()); ack.uri != uri || strings.Join(routes, "|") != want {
		t.Errorf("ACK %s by %q, want %s by %q", ack.uri, routes, uri, want)
	}
	if ack.cseq != invite.cseq || ack.via.Branch == invite.via.Branch || ack.toTag != "callee" {
		t.Errorf("ACK CSeq %d, branch %s, tag %s", ack.cseq, ack.via.Branch, ack.toTag)
	}
	go closeLeg(t, l, hangup)
	bye := proxy.want("BYE")
	if bye.uri != uri || bye.cseq != 2 {
		t.Errorf("BYE %s, CSeq %d", bye.uri, bye.cseq)
	}
	proxy.send(proxy.answer(bye, 200, "", ""))
}

// A Contact that is no known peer does not make us send to a stranger.
func TestContactOfStranger(t *testing.T) {
	r := newRig(t)
	p, stranger := r.peer("127.0.0.2"), r.peer("127.0.0.77")
	l, invite := r.dial(p)
	p.send(p.answer(invite, 200, "callee", "answer", contact(stranger)))
	event[call.Accepted](t, l)
	if err := l.Ack(nil); err != nil {
		t.Fatal(err)
	}
	if ack := p.want("ACK"); !strings.Contains(ack.uri, stranger.addr().String()) {
		t.Errorf("Request-URI %s", ack.uri)
	}
	stranger.silence(testT1)
	go closeLeg(t, l, hangup)
	p.send(p.answer(p.want("BYE"), 200, "", ""))
}

// A 2xx that is repeated is acknowledged again with the same ACK, and told once.
func TestRepeated200(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	ok := p.answer(invite, 200, "callee", "answer", contact(p))
	p.send(ok)
	p.send(ok) // before our ACK
	event[call.Accepted](t, l)
	if err := l.Ack([]byte("late answer")); err != nil {
		t.Fatal(err)
	}
	if ack := p.want("ACK"); ack.body != "late answer" {
		t.Errorf("ACK with body %q", ack.body)
	}
	if err := l.Ack(nil); !errors.Is(err, ErrNotPending) {
		t.Errorf("second Ack: %v", err)
	}
	p.send(ok)
	if b := p.read(patience); p.seen[string(b)] != 2 {
		t.Errorf("not the same ACK: %s", b)
	}
	noEvent(t, l)
	go closeLeg(t, l, hangup)
	p.send(p.answer(p.want("BYE"), 200, "", ""))
}

// A refusal says all it knows; when repeated it is acknowledged again.
func TestRejected(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	no := p.answer(invite, 503, "callee", "", `Reason: Q.850;cause=42;text="busy, really"`, "Retry-After: 18 (lunch);duration=60")
	p.send(no)
	want := call.Rejection{Code: 503, Reason: "Some Phrase", Q850: 42, RetryAfter: 18}
	if e := event[call.Rejected](t, l); e.Rejection != want {
		t.Errorf("got %+v, want %+v", e.Rejection, want)
	}
	p.want("ACK")
	p.send(no)
	if b := p.read(patience); p.seen[string(b)] != 2 {
		t.Errorf("not the same ACK: %s", b)
	}
	closeLeg(t, l, hangup)
}

// No response at all is a silent 408 after 64*T1 (T11 tells it from a refusal). A 200
// that comes even later is acknowledged and ended.
func TestUnanswered(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	if e := event[call.Rejected](t, l); e.Code != 408 || !e.Silent {
		t.Errorf("got %+v", e)
	}
	for p.read(testT1) != nil { // retransmissions
	}
	var sent int
	for text, n := range p.seen {
		if strings.HasPrefix(text, "INVITE") {
			sent = n
		}
	}
	if sent < 6 || sent > 7 {
		t.Errorf("INVITE sent %d times, want 7", sent)
	}
	p.send(p.answer(invite, 200, "late", "answer", contact(p)))
	p.want("ACK")
	p.send(p.answer(p.want("BYE"), 200, "", ""))
}

// Messages above 1300 bytes are sent and read, and counted (S19: nothing is cut).
func TestLongMessages(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	long := strings.Repeat("a=x\r\n", 4000)
	l, err := r.stack.Dial(p.target(), call.Invite{Number: "1", MaxForwards: 70, Body: []byte(long)})
	if err != nil {
		t.Fatal(err)
	}
	invite := p.want("INVITE")
	if invite.body != long {
		t.Errorf("body of %d bytes, want %d", len(invite.body), len(long))
	}
	p.send(p.answer(invite, 200, "callee", long, contact(p)))
	if e := event[call.Accepted](t, l); string(e.Body) != long {
		t.Errorf("answer of %d bytes", len(e.Body))
	}
	if err := l.Ack(nil); err != nil {
		t.Fatal(err)
	}
	p.want("ACK")
	if n := r.stack.Stats().Oversize; n != 1 {
		t.Errorf("counted %d", n)
	}
	go closeLeg(t, l, hangup)
	p.send(p.answer(p.want("BYE"), 200, "", ""))
}

// Responses of one peer are told in the order in which they came.
func TestOrderOutbound(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	for range 50 {
		l, invite := r.dial(p)
		ringing, ok := p.answer(invite, 180, "c", ""), p.answer(invite, 200, "c", "answer", contact(p))
		p.send(ringing)
		p.send(ok)
		event[call.Progressed](t, l)
		event[call.Accepted](t, l)
		if err := l.Ack(nil); err != nil {
			t.Fatal(err)
		}
		p.want("ACK")
		go closeLeg(t, l, hangup)
		p.send(p.answer(p.want("BYE"), 200, "", ""))
	}
}

// A response that is not for us, or not of this dialog, changes nothing.
func TestForeignResponses(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	l, invite := r.dial(p)
	ok := p.answer(invite, 200, "callee", "answer", contact(p))
	for _, forged := range []string{
		strings.Replace(ok, invite.via.Branch, "z9hG4bKguess", 1),
		strings.Replace(ok, "\r\nFrom:", "\r\nVia: SIP/2.0/UDP 10.0.0.1\r\nFrom:", 1),
		strings.Replace(ok, invite.fromTag, "guess", 1),
		strings.Replace(ok, "Call-ID: ", "Call-ID: x", 1),
		strings.Replace(ok, "UDP 127.0.0.1", "UDP 127.0.0.9", 1),
	} {
		p.send(forged)
	}
	p.send(p.answer(invite, 404, "callee", ""))
	if e := event[call.Rejected](t, l); e.Code != 404 {
		t.Errorf("got %+v", e)
	}
	if n := r.stack.Stats().Strays; n != 5 {
		t.Errorf("%d strays, want 5", n)
	}
}
