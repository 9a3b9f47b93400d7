package sipua

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// A re-INVITE of the peer: told, answered, acknowledged; its Contact is the new
// target (S7, target refresh).
func TestReinvited(t *testing.T) {
	r := newRig(t)
	p, moved := r.peer("127.0.0.2"), r.peer("127.0.0.3")
	c, l := r.establish(p)
	hold := strings.Replace(c.next().request(methodInvite, "hold"), "alice@"+p.addr().String(), "moved@"+moved.addr().String(), 1)
	c.send(hold)
	if m := c.recv(); m.status != 100 {
		t.Errorf("first answer is %d", m.status)
	}
	if e := event[call.Reinvited](t, l); string(e.Body) != "hold" {
		t.Errorf("body %q", e.Body)
	}
	if err := l.Reinvite(nil); !errors.Is(err, ErrPending) {
		t.Errorf("Reinvite meanwhile: %v", err)
	}
	if err := l.Accept([]byte("held")); err != nil {
		t.Fatal(err)
	}
	if m := c.want("200"); m.body != "held" || m.toTag != c.toTag {
		t.Errorf("200 %+v", m)
	}
	c.send(c.ack(""))
	event[call.Acked](t, l)
	go closeLeg(t, l, hangup)
	bye := moved.want("BYE")
	if !strings.HasPrefix(bye.uri, "sip:moved@") {
		t.Errorf("BYE %s", bye.uri)
	}
	moved.send(moved.answer(bye, 200, "", ""))
}

// A refused re-INVITE leaves the call as it was, and its target too.
func TestReinvitedRefused(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	c, l := r.establish(p)
	c.send(strings.Replace(c.next().request(methodInvite, "video"), "alice@", "elsewhere@", 1))
	event[call.Reinvited](t, l)
	if err := l.Reject(call.Rejection{Code: 488}); err != nil {
		t.Fatal(err)
	}
	c.want("488")
	c.send(c.request(methodACK, "")) // same branch: for the transaction
	c.silence(3 * testT1)
	noEvent(t, l)
	go closeLeg(t, l, hangup)
	bye := c.want("BYE")
	if !strings.HasPrefix(bye.uri, "sip:alice@") {
		t.Errorf("BYE %s", bye.uri)
	}
	c.send(c.answer(bye, 200, "", ""))
}

// Two INVITEs at once: 500 with Retry-After for a second one of the peer, 491 if
// ours is on its way (RFC 3261 section 14.2).
func TestGlare(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	c, l := r.establish(p)
	first := c.next().request(methodInvite, "one")
	c.send(first)
	event[call.Reinvited](t, l)
	c.send(c.next().request(methodInvite, "two"))
	if m := c.want("500"); m.value(fRetryAfter) == "" {
		t.Error("500 without Retry-After")
	}
	c.send(c.request(methodACK, ""))
	if err := l.Reject(call.Rejection{Code: 488}); err != nil {
		t.Fatal(err)
	}
	c.want("488")

	if err := l.Reinvite([]byte("ours")); err != nil {
		t.Fatal(err)
	}
	ours := c.want("INVITE")
	if ours.cseq != 1 || ours.fromTag != c.toTag || ours.toTag != c.tag {
		t.Errorf("re-INVITE CSeq %d, tags %q %q", ours.cseq, ours.fromTag, ours.toTag)
	}
	c.send(c.next().request(methodInvite, "glare"))
	c.want("491")
	c.send(c.request(methodACK, ""))
	c.send(c.answer(ours, 491, "", ""))
	c.want("ACK")
	if e := event[call.Rejected](t, l); e.Code != 491 {
		t.Errorf("got %+v", e)
	}
	// Both calm down; then it works.
	if err := l.Reinvite([]byte("ours again")); err != nil {
		t.Fatal(err)
	}
	again := c.want("INVITE")
	c.send(c.answer(again, 200, "", "fine", fmt.Sprintf("Contact: <sip:new@%s>", p.addr())))
	if e := event[call.Accepted](t, l); string(e.Body) != "fine" {
		t.Errorf("body %q", e.Body)
	}
	if err := l.Ack(nil); err != nil {
		t.Fatal(err)
	}
	if ack := c.want("ACK"); ack.cseq != again.cseq || !strings.HasPrefix(ack.uri, "sip:new@") {
		t.Errorf("ACK %s CSeq %d", ack.uri, ack.cseq)
	}
	go closeLeg(t, l, hangup)
	c.send(c.answer(c.want("BYE"), 200, "", ""))
}

// A re-INVITE before the ACK of our 200 (lost, or overtaken) is 491.
func TestReinviteBeforeACK(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Accept(nil); err != nil {
		t.Fatal(err)
	}
	c.toTag = c.want("200").toTag
	ack := c.ack("")
	c.send(c.next().request(methodInvite, "early"))
	c.want("491")
	c.send(c.request(methodACK, ""))
	c.send(ack)
	event[call.Acked](t, l)
}

// A request that is older than one we have seen is 500 (RFC 3261 section 12.2.2).
func TestOldCSeq(t *testing.T) {
	r := newRig(t)
	c, l := r.establish(r.peer("127.0.0.2"))
	c.cseq = 5
	options := c.next().request(methodOptions, "")
	c.send(options)
	c.want("200")
	c.send(options) // again: the same answer, not 500
	if b := c.read(patience); !strings.HasPrefix(string(b), "SIP/2.0 200") {
		t.Errorf("retransmission answered with %s", b)
	}
	c.cseq = 1
	c.send(c.next().request(methodBye, ""))
	c.want("500")
	noEvent(t, l)
	c.cseq = 7
	c.send(c.next().request(methodBye, ""))
	c.want("200")
	event[call.Ended](t, l)
}

// A peer that lost the call answers 481: the leg ends, with a BYE for good measure.
func TestReinvitePeerGone(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	_, l := r.dialled(p)
	if err := l.Reinvite(nil); err != nil {
		t.Fatal(err)
	}
	p.send(p.answer(p.want("INVITE"), 481, "", ""))
	p.want("ACK")
	event[call.Rejected](t, l)
	if e := event[call.Ended](t, l); e.Cause.Code != "peer-gone" {
		t.Errorf("ended with %+v", e.Cause)
	}
	p.send(p.answer(p.want("BYE"), 481, "", ""))
	closeLeg(t, l, hangup)
}

// A leg that we dialled takes requests of the callee, but not with other tags.
func TestRequestsOfCallee(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	invite, l := r.dialled(p)
	callee := p.caller()
	callee.callID, callee.tag, callee.toTag = invite.callID, "callee", invite.fromTag
	callee.tag = "other"
	callee.send(callee.request(methodBye, ""))
	callee.want("481")
	callee.tag = "callee"
	callee.send(callee.next().request(methodInvite, "hold"))
	event[call.Reinvited](t, l)
	if err := l.Accept([]byte("held")); err != nil {
		t.Fatal(err)
	}
	callee.want("200")
	callee.send(callee.ack(""))
	event[call.Acked](t, l)
	callee.send(callee.next().request(methodBye, ""))
	callee.want("200")
	event[call.Ended](t, l)
}

// BYE of both sides at once: each is answered, Close returns, nothing is told twice.
func TestByeCrossesBye(t *testing.T) {
	r := newRig(t)
	c, l := r.establish(r.peer("127.0.0.2"))
	done := make(chan struct{})
	go func() { closeLeg(t, l, hangup); close(done) }()
	ours := c.want("BYE")
	c.send(c.next().request(methodBye, ""))
	c.want("200")
	c.send(c.answer(ours, 481, "", ""))
	<-done
	noEvent(t, l)
}

// A BYE that is never answered is repeated, and Close keeps to its deadline.
func TestByeUnanswered(t *testing.T) {
	r := newRig(t)
	c, l := r.establish(r.peer("127.0.0.2"))
	start := time.Now()
	closeLeg(t, l, hangup) // 64*T1 is within its patience
	if d := time.Since(start); d < 60*testT1 {
		t.Errorf("gave up after %s", d)
	}
	for c.read(testT1) != nil {
	}
	for text, n := range c.seen {
		if strings.HasPrefix(text, "BYE") && n < 8 {
			t.Errorf("BYE sent %d times", n)
		}
	}
}

// The peer hangs up while our re-INVITE waits for its answer or the answer for our
// Ack: both sides end, no INVITE stays without an end (S7).
func TestByeDuringReinvite(t *testing.T) {
	r := newRig(t)
	c, l := r.establish(r.peer("127.0.0.2"))
	if err := l.Reinvite(nil); err != nil {
		t.Fatal(err)
	}
	invite := c.want("INVITE")
	c.send(c.next().request(methodBye, ""))
	c.want("200")
	event[call.Ended](t, l)
	c.send(c.answer(invite, 200, "", "answer"))
	c.want("ACK")
	noEvent(t, l)

	p := r.peer("127.0.0.3")
	d, m := r.establish(p)
	if err := m.Reinvite(nil); err != nil {
		t.Fatal(err)
	}
	d.send(d.answer(d.want("INVITE"), 200, "", "answer"))
	event[call.Accepted](t, m)
	d.send(d.next().request(methodBye, ""))
	d.want("200")
	d.want("ACK")
	event[call.Ended](t, m)
}
