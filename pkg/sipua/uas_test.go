package sipua

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// An inbound call from INVITE to the caller's BYE.
func TestInboundCall(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer", "User-to-User: 0a0b;encoding=hex", "X-Other: stays here"))
	if m := c.recv(); m.status != 100 || m.toTag != "" {
		t.Errorf("first answer is %d with tag %q, want 100 without", m.status, m.toTag)
	}
	in := r.inboundLeg()
	// T12: routes may look at any field, the others stay here.
	for name, value := range map[string]string{"x-other": "stays here", "User-To-User": "0a0b;encoding=hex", "X-None": ""} {
		if got := in.invite.Field(name); got != value {
			t.Errorf("%s is %q, want %q", name, got, value)
		}
	}
	in.invite.Field = nil
	want := call.Invite{Number: "+4930123", From: call.Party{Display: "Alice", User: "+4989555"}, To: call.Party{User: "+4930123"},
		MaxForwards: 70, Headers: []call.Header{{Name: "User-to-User", Value: "0a0b;encoding=hex"}}, Body: []byte("offer")}
	if got := fmt.Sprintf("%+v", in.invite); got != fmt.Sprintf("%+v", want) {
		t.Errorf("got  %s\nwant %+v", got, want)
	}
	if in.leg.CallID() != c.callID || in.leg.Peer() != c.addr() || in.leg.Local() != r.stack.Addr() {
		t.Errorf("leg is %s %s %s", in.leg.CallID(), in.leg.Peer(), in.leg.Local())
	}
	// S5: 180 without a body and 183 with one.
	if err := in.leg.Progress(180, "", nil); err != nil {
		t.Fatal(err)
	}
	ringing := c.want("180")
	if ringing.body != "" || ringing.phrase != "Ringing" {
		t.Errorf("180 is %q with body %q", ringing.phrase, ringing.body)
	}
	if err := in.leg.Progress(183, "", []byte("early")); err != nil {
		t.Fatal(err)
	}
	if m := c.want("183"); m.body != "early" || m.toTag != ringing.toTag {
		t.Errorf("183 has tag %q and body %q", m.toTag, m.body)
	}
	if err := in.leg.Accept([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	ok := c.want("200")
	if ok.body != "answer" || ok.toTag != ringing.toTag || ok.contact.URI != "sip:"+r.stack.Addr().String() {
		t.Errorf("200 has tag %q, contact %q, body %q", ok.toTag, ok.contact.URI, ok.body)
	}
	c.toTag = ok.toTag
	c.send(c.ack(""))
	event[call.Acked](t, in.leg)
	c.next().send(c.request(methodBye, "", "Reason: SIP;cause=200, Q.850 ; cause=16 ;text=\"bye\""))
	c.want("200")
	if e := event[call.Ended](t, in.leg); e.Cause.Code != "normal-clearing" || e.Cause.Q850 != 16 {
		t.Errorf("ended with %+v", e.Cause)
	}
	closeLeg(t, in.leg, hangup) // says nothing more
	c.silence(2 * testT1)
	// The dialog is gone.
	c.next().send(c.request(methodBye, ""))
	c.want("481")
}

// An answered call that we end: BYE to the whole Contact URI, with the Q.850 cause (S9).
func TestInboundCallEndedByUs(t *testing.T) {
	r := newRig(t)
	c, l := r.establish(r.peer("127.0.0.2"))
	done := make(chan struct{})
	go func() { closeLeg(t, l, hangup); close(done) }()
	bye := c.want("BYE")
	if bye.uri != fmt.Sprintf("sip:alice@%s;x=y", c.addr()) || bye.value(fReason) != "Q.850;cause=16" {
		t.Errorf("BYE %s, Reason %q", bye.uri, bye.value(fReason))
	}
	if bye.fromTag != c.toTag || bye.toTag != c.tag {
		t.Errorf("tags %q %q", bye.fromTag, bye.toTag)
	}
	c.send(c.answer(bye, 200, "", ""))
	<-done
	noEvent(t, l)
}

// A refusal carries cause and Retry-After, is sent again until its ACK, and ends the leg.
func TestReject(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Reject(call.Rejection{Code: 503, Q850: 34, RetryAfter: 5}); err != nil {
		t.Fatal(err)
	}
	m := c.want("503")
	if m.value(fReason) != "Q.850;cause=34" || m.value(fRetryAfter) != "5" {
		t.Errorf("503 with Reason %q, Retry-After %q", m.value(fReason), m.value(fRetryAfter))
	}
	if b := c.read(patience); c.seen[string(b)] != 2 {
		t.Fatalf("503 is not sent again before its ACK: %s", b)
	}
	c.toTag = m.toTag
	c.send(c.request(methodACK, "")) // same branch
	time.Sleep(2 * testT1)
	for c.read(testT1) != nil { // what was on its way
	}
	c.silence(4 * testT1)
	if err := l.Accept(nil); err == nil {
		t.Error("Accept after Reject is no error")
	}
}

// A 200 is repeated after 0.5, 1, 2, 4, 4 ... s until the ACK; without one the call
// is ended with BYE after 64*T1 (S7, lost ACK).
func TestLostACK(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Accept([]byte("answer")); err != nil {
		t.Fatal(err)
	}
	var times []time.Time
	var bye *message
	for bye == nil {
		b := c.read(patience)
		m, f := parse(b, c.stack)
		if f != nil {
			t.Fatal(f)
		}
		switch {
		case m.status == 200:
			times = append(times, time.Now())
		case m.method == methodBye:
			bye = m
		}
	}
	// 64*T1 = 3.2 s: at 0, 0.05, 0.15, 0.35, 0.75, then each 0.4 s: 0.75+6*0.4 = 3.15.
	if len(times) < 9 || len(times) > 12 {
		t.Errorf("200 sent %d times, want 11", len(times))
	}
	for i, want := range []time.Duration{testT1, 2 * testT1, 4 * testT1, testT2, testT2} {
		if got := times[i+1].Sub(times[i]); got < want*7/10 || got > want*2 {
			t.Errorf("interval %d is %s, want %s", i, got, want)
		}
	}
	if e := event[call.Ended](t, l); e.Cause.Code != "no-ack" {
		t.Errorf("ended with %+v", e.Cause)
	}
	c.send(c.answer(bye, 200, "", ""))
	closeLeg(t, l, hangup)
}

// Close between our 200 and its ACK: BYE has to wait for the ACK (RFC 3261 section 15).
func TestCloseBeforeACK(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Accept(nil); err != nil {
		t.Fatal(err)
	}
	c.toTag = c.want("200").toTag
	done := make(chan struct{})
	go func() { closeLeg(t, l, hangup); close(done) }()
	c.silence(2 * testT1)
	c.send(c.ack(""))
	c.send(c.answer(c.want("BYE"), 200, "", ""))
	<-done
}

// CANCEL: 200 to it, 487 to the INVITE, both with the leg's tag (S7).
func TestCancelled(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Progress(180, "", nil); err != nil {
		t.Fatal(err)
	}
	tag := c.want("180").toTag
	c.send(c.request(methodCancel, "", `Reason: Q.850;cause=31`))
	ok, terminated := c.want("200"), c.want("487")
	if ok.cseqMethod != methodCancel || terminated.cseqMethod != methodInvite || ok.toTag != tag || terminated.toTag != tag {
		t.Errorf("tags %q %q, want %q", ok.toTag, terminated.toTag, tag)
	}
	if e := event[call.Ended](t, l); e.Cause.Code != "cancelled" || e.Cause.SIP != 487 || e.Cause.Q850 != 31 {
		t.Errorf("ended with %+v", e.Cause)
	}
	if err := l.Accept(nil); err == nil {
		t.Error("Accept after CANCEL is no error")
	}
	c.toTag = tag
	c.send(c.request(methodACK, ""))
	closeLeg(t, l, hangup)
}

// A CANCEL that crosses our 200 gets 200 and changes nothing (S7).
func TestCancelCrosses200(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Accept(nil); err != nil {
		t.Fatal(err)
	}
	c.toTag = c.want("200").toTag
	tag := c.toTag
	c.toTag = ""
	c.send(c.request(methodCancel, ""))
	if m := c.want("200"); m.cseqMethod != methodCancel {
		t.Errorf("200 is for %s", m.cseqMethod)
	}
	c.toTag = tag
	c.send(c.ack(""))
	event[call.Acked](t, l)
	c.next().send(c.request(methodBye, ""))
	c.want("200")
	event[call.Ended](t, l)
}

// A CANCEL of nothing is 481; an ACK of nothing gets no answer.
func TestCancelUnknown(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodCancel, ""))
	c.want("481")
	c.send(c.request(methodACK, ""))
	c.silence(2 * testT1)
}

// A BYE before the answer ends the INVITE with 487 (RFC 3261 section 15.1.2).
func TestByeBeforeAnswer(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Progress(180, "", nil); err != nil {
		t.Fatal(err)
	}
	c.toTag = c.want("180").toTag
	c.next().send(c.request(methodBye, ""))
	if m := c.want("200"); m.cseqMethod != methodBye {
		t.Errorf("200 is for %s", m.cseqMethod)
	}
	c.want("487")
	if e := event[call.Ended](t, l); e.Cause.Code != "cancelled" {
		t.Errorf("ended with %+v", e.Cause)
	}
}

// A delayed offer: INVITE without a body, our offer in the 200, the answer in the
// ACK (S8). Some send that ACK with the INVITE's branch.
func TestDelayedOffer(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, ""))
	in := r.inboundLeg()
	if in.invite.Body != nil {
		t.Errorf("body %q", in.invite.Body)
	}
	if err := in.leg.Accept([]byte("offer")); err != nil {
		t.Fatal(err)
	}
	c.toTag = c.want("200").toTag
	ack := c.request(methodACK, "answer")
	c.send(ack)
	if e := event[call.Acked](t, in.leg); string(e.Body) != "answer" {
		t.Errorf("ACK with body %q", e.Body)
	}
	c.send(ack) // again: nothing happens
	c.next().send(c.request(methodBye, ""))
	c.want("200")
	event[call.Ended](t, in.leg)
}

// Via comes back as it came, but for rport and received; Record-Route too; requests
// of ours then follow the routes (S9).
func TestViaAndRoutes(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	routes := []string{fmt.Sprintf("<sip:%s;lr;ftag=1>;x=1", c.addr()), "<sip:far.example.com;lr>"}
	odd := fmt.Sprintf(`SIP/2.0/UDP  host.example:5999;RPort ;alias;x="a;b,c";branch=%s`, c.branch)
	second := "SIP/2.0/TCP 10.1.1.1;branch=z9hG4bKold;keep=1 , SIP/2.0/TLS 10.1.1.2"
	text := c.request(methodInvite, "offer", "Record-Route: "+strings.Join(routes, " , "), "Via: "+second)
	plain := fmt.Sprintf("SIP/2.0/UDP %s;branch=%s;rport", c.addr(), c.branch)
	c.send(strings.Replace(text, plain, odd, 1))
	l := r.inboundLeg().leg
	if err := l.Accept(nil); err != nil {
		t.Fatal(err)
	}
	ok := c.want("200")
	var vias []string
	for _, f := range ok.fields {
		if f.id == fVia {
			vias = append(vias, f.value)
		}
	}
	wantTop := strings.Replace(odd, "RPort ", fmt.Sprintf("RPort=%d ", c.addr().Port()), 1) + ";received=127.0.0.2"
	if len(vias) != 2 || vias[0] != wantTop || vias[1] != second {
		t.Errorf("got  %q\nwant %q", vias, []string{wantTop, second})
	}
	if got := ok.value(fRecordRoute); got != strings.Join(routes, " , ") {
		t.Errorf("Record-Route %q", got)
	}
	c.toTag = ok.toTag
	c.send(c.ack(""))
	event[call.Acked](t, l)
	go closeLeg(t, l, hangup)
	bye := c.want("BYE")
	var got []string
	for _, f := range bye.fields {
		if f.name == "Route" {
			got = append(got, f.value)
		}
	}
	if strings.Join(got, "|") != strings.Join(routes, "|") {
		t.Errorf("Route %q, want %q", got, routes)
	}
	c.send(c.answer(bye, 200, "", ""))
}

// Compact headers are read everywhere (S9), also those that sipgo does not know.
func TestCompactHeaders(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	text := c.request(methodInvite, "offer", "k: replaces", "x: 1800", "s: hello", "r: <sip:a@b>", "b: <sip:a@b>", "o: talk", "u: talk", "a: *", "e: identity")
	for long, short := range map[string]string{"Via": "v", "From": "f", "To": "t", "Call-ID": "i", "Contact": "m", "Content-Type": "c", "Content-Length": "l"} {
		text = strings.Replace(text, "\r\n"+long+":", "\r\n"+short+" :", 1)
	}
	c.send(text)
	in := r.inboundLeg()
	if in.invite.From.User != "+4989555" || string(in.invite.Body) != "offer" || in.leg.CallID() != c.callID {
		t.Errorf("read as %+v", in.invite)
	}
	// An encoding by its compact name is an encoding.
	d := r.peer("127.0.0.3").caller()
	d.send(d.request(methodInvite, "offer", "e: gzip"))
	d.want("415")
}

// Messages that follow each other at once are told in that order (sipgo's
// transport layer would handle each on a goroutine of its own).
func TestOrderInbound(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	for range 50 {
		c := p.caller()
		c.send(c.request(methodInvite, "offer"))
		l := r.inboundLeg().leg
		if err := l.Accept(nil); err != nil {
			t.Fatal(err)
		}
		c.toTag = c.want("200").toTag
		ack := c.ack("")
		bye := c.next().request(methodBye, "")
		c.send(ack)
		c.send(bye)
		event[call.Acked](t, l)
		event[call.Ended](t, l)
		c.want("200")
	}
}

// The Handler's leg is ended when it forgets to, and Run ends what is left.
func TestForgottenLeg(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	close(r.inboundLeg().done)
	c.want("500")

	d, confirmedLeg := r.establish(r.peer("127.0.0.3"))
	e := r.peer("127.0.0.4").caller()
	e.send(e.request(methodInvite, "offer"))
	early := r.inboundLeg().leg
	r.end()
	event[call.Ended](t, confirmedLeg)
	event[call.Ended](t, early)
	d.want("BYE")
	e.want("503")
	closeLeg(t, early, hangup)
}
