package b2bua

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	platformPeer = "198.51.100.10:5060"
	carrierPeer  = "203.0.113.10:5060"
	backupPeer   = "203.0.113.20:5060"

	callerSDP = "v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 20000 RTP/AVP 8 0\r\n"
	calledSDP = "v=0\r\no=- 7 1 IN IP4 203.0.113.10\r\ns=-\r\nc=IN IP4 203.0.113.10\r\nt=0 0\r\nm=audio 30000 RTP/AVP 8\r\n"
	holdSDP   = "v=0\r\no=- 1 2 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 20000 RTP/AVP 8\r\na=sendonly\r\n"
	opusSDP   = "v=0\r\no=- 1 1 IN IP4 198.51.100.10\r\ns=-\r\nc=IN IP4 198.51.100.10\r\nt=0 0\r\nm=audio 20000 RTP/AVP 111\r\na=rtpmap:111 opus/48000/2\r\n"
)

// S5, M1: ringing and answer pass, and media is in place before the caller hears of it.
func TestCallAnsweredAndEndedByCaller(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := b.call(callerSDP)

	d := <-b.dialer.dialled
	if d.target.Addr.String() != carrierPeer || d.target.Realm != "outside" {
		t.Errorf("dialled %+v", d.target)
	}
	if d.invite.MaxForwards != 69 {
		t.Errorf("Max-Forwards is %d, want one less than it came with", d.invite.MaxForwards)
	}
	for _, leak := range []string{"198.51.100.10", "20000"} {
		if strings.Contains(string(d.invite.Body), leak) {
			t.Errorf("the offer tells the carrier of %s (S18):\n%s", leak, d.invite.Body)
		}
	}
	callee.emit(call.Progressed{Code: 180, Reason: "Ringing at 203.0.113.10"})
	if a := caller.expect(t, "progress"); a.code != 180 || a.body != nil || a.phrase != "" {
		t.Errorf("got %d %q with %d bytes, want 180 without SDP and without the peer's words (S18)", a.code, a.phrase, len(a.body))
	}
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	callee.expect(t, "ack")
	answer := caller.expect(t, "accept")
	if strings.Contains(string(answer.body), "203.0.113.10") {
		t.Errorf("the answer tells the platform of the carrier (S18):\n%s", answer.body)
	}
	if n := b.engine.installed(); n != 4 {
		t.Errorf("%d flows when the answer went out, want 4: RTP and RTCP each way", n)
	}
	caller.emit(call.Acked{})
	if info := b.live(t, call.Answered); info.Egress.Trunk != "carrier" || info.Answered.IsZero() {
		t.Errorf("live call: %+v", info)
	}
	caller.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
	callee.expect(t, "close")

	rec := b.record(t)
	if rec.Cause.Code != "normal-clearing" || rec.Cause.By != "ingress" {
		t.Errorf("cause %+v", rec.Cause)
	}
	if rec.Ingress.Media.Packets != 100 || rec.Egress.Media.Packets != 100 {
		t.Errorf("the record lacks the last counters: %+v %+v", rec.Ingress.Media, rec.Egress.Media)
	}
}

func TestCallEndedByCallee(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	callee.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
	caller.expect(t, "close")
	if rec := b.record(t); rec.Cause.By != "egress" || rec.Answered.IsZero() {
		t.Errorf("record %+v", rec)
	}
}

func TestCallerCancels(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	callee.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	caller.emit(call.Ended{Cause: call.Cause{Code: "cancelled", SIP: 487, Text: "The caller gave up."}})
	callee.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "cancelled" || rec.Cause.By != "ingress" || !rec.Answered.IsZero() {
		t.Errorf("record %+v", rec)
	}
}

func TestNobodyAnswers(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBenchWith(t, func(trunks []trunk.Config) { trunks[1].RingTimeout = 500 * time.Millisecond }, callee)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	callee.emit(call.Progressed{Code: 180})
	caller.expect(t, "progress")
	callee.expect(t, "close")
	if a := caller.expect(t, "close"); a.code != 480 {
		t.Errorf("the caller was told %d, want 480: the called party is known to have rung", a.code)
	}
	if rec := b.record(t); rec.Cause.Code != "no-answer" {
		t.Errorf("cause %+v", rec.Cause)
	}
}

func TestRefusedAtTheDoor(t *testing.T) {
	t.Run("no route", func(t *testing.T) {
		b := newBench(t)
		leg := newFakeLeg("caller", platformPeer)
		go func() {
			b.Invite("inside", leg, call.Invite{Number: "+331", MaxForwards: 70, Body: []byte(callerSDP)})
			b.done <- struct{}{}
		}()
		if a := leg.expect(t, "close"); a.code != 503 {
			t.Errorf("told %d", a.code)
		}
		if rec := b.record(t); rec.Cause.Code != "no-route" {
			t.Errorf("cause %+v", rec.Cause)
		}
	})
	t.Run("no codec in common", func(t *testing.T) {
		b := newBench(t)
		caller := b.call(opusSDP)
		if a := caller.expect(t, "close"); a.code != 488 {
			t.Errorf("told %d, want 488 (M4)", a.code)
		}
		if rec := b.record(t); rec.Cause.Code != "no-common-codec" {
			t.Errorf("cause %+v", rec.Cause)
		}
	})
	t.Run("draining", func(t *testing.T) {
		b := newBench(t)
		b.Drain()
		caller := b.call(callerSDP)
		if a := caller.expect(t, "close"); a.code != 503 {
			t.Errorf("told %d, want 503 (H6)", a.code)
		}
		b.record(t)
	})
	t.Run("trunk full", func(t *testing.T) {
		one, two := newFakeLeg("one", carrierPeer), newFakeLeg("two", carrierPeer)
		b := newBench(t, one, two)
		first, second := establish(t, b, one), establish(t, b, two)
		third := b.call(callerSDP)
		if a := third.expect(t, "close"); a.code != 503 {
			t.Errorf("told %d, want 503 (T3)", a.code)
		}
		<-b.records
		<-b.done
		for _, leg := range []*fakeLeg{first, second} {
			leg.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
		}
		<-b.records
		<-b.done
		b.record(t)
	})
}

// S7: hold is relayed end to end, and its answer back.
func TestReinviteIsRelayed(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)

	caller.emit(call.Reinvited{Body: []byte(holdSDP)})
	if a := callee.expect(t, "reinvite"); !strings.Contains(string(a.body), "a=sendonly") {
		t.Errorf("the hold was lost:\n%s", a.body)
	}
	callee.emit(call.Accepted{Body: []byte(strings.Replace(calledSDP, "7 1", "7 2", 1) + "a=recvonly\r\n")})
	callee.expect(t, "ack")
	if a := caller.expect(t, "accept"); !strings.Contains(string(a.body), "a=recvonly") {
		t.Errorf("the answer to the hold was lost:\n%s", a.body)
	}
	caller.emit(call.Acked{})

	// A refused one changes nothing, and the reason reaches who asked.
	callee.emit(call.Reinvited{Body: []byte(calledSDP)})
	caller.expect(t, "reinvite")
	caller.emit(call.Rejected{Rejection: call.Rejection{Code: 491, Reason: "Pending at 198.51.100.10"}})
	if a := callee.expect(t, "reject"); a.code != 491 || a.phrase != "" {
		t.Errorf("refused with %d %q, want 491 without the peer's words (S18)", a.code, a.phrase)
	}
	caller.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
	callee.expect(t, "close")
	b.record(t)
}

// S8: an INVITE without SDP is passed as such: the offer comes back in the 200, the
// answer goes out in the ACK.
func TestDelayedOffer(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := b.call("")
	if d := <-b.dialer.dialled; d.invite.Body != nil {
		t.Errorf("an offer was made up:\n%s", d.invite.Body)
	}
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	if a := caller.expect(t, "accept"); !strings.Contains(string(a.body), "m=audio") {
		t.Errorf("the offer did not reach the caller:\n%s", a.body)
	}
	caller.emit(call.Acked{Body: []byte(strings.Replace(callerSDP, "8 0", "8", 1))})
	if a := callee.expect(t, "ack"); !strings.Contains(string(a.body), "m=audio") {
		t.Errorf("the answer did not reach the called side:\n%s", a.body)
	}
	if n := b.engine.installed(); n != 4 {
		t.Errorf("%d flows, want 4", n)
	}
	caller.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
	callee.expect(t, "close")
	b.record(t)
}

const noAudioSDP = "v=0\r\no=- 9 9 IN IP4 192.0.2.99\r\ns=-\r\nc=IN IP4 192.0.2.99\r\nt=0 0\r\nm=audio 0 RTP/AVP 8\r\n"

// S7, S8: an answer that cannot be used leaves the two sides with different sessions, or with
// none. Both are told that the call is over.
func TestUnusableAnswerEndsTheCall(t *testing.T) {
	delayed := func(t *testing.T, b *bench, callee *fakeLeg) *fakeLeg {
		caller := b.call("")
		<-b.dialer.dialled
		callee.emit(call.Accepted{Body: []byte(calledSDP)})
		caller.expect(t, "accept")
		return caller
	}
	for _, row := range []struct {
		name   string
		begin  func(*testing.T, *bench, *fakeLeg) *fakeLeg
		happen func(t *testing.T, caller, callee *fakeLeg)
		text   string
	}{
		{"the ACK of a delayed offer has no answer", delayed, func(t *testing.T, caller, callee *fakeLeg) {
			caller.emit(call.Acked{})
			callee.expect(t, "ack")
		}, "The caller answered"},
		{"the ACK of a delayed offer refuses the audio", delayed, func(t *testing.T, caller, callee *fakeLeg) {
			caller.emit(call.Acked{Body: []byte(noAudioSDP)})
			callee.expect(t, "ack")
		}, "The caller answered"},
		{"the 2xx to a re-INVITE refuses the audio", establish, func(t *testing.T, caller, callee *fakeLeg) {
			caller.emit(call.Reinvited{Body: []byte(holdSDP)})
			callee.expect(t, "reinvite")
			callee.emit(call.Accepted{Body: []byte(noAudioSDP)})
			callee.expect(t, "ack")
			if a := caller.expect(t, "reject"); a.code != 488 {
				t.Errorf("the re-INVITE was refused with %d, want 488", a.code)
			}
		}, "The called side answered"},
		{"the ACK of a re-INVITE without SDP refuses the audio", establish, func(t *testing.T, caller, callee *fakeLeg) {
			caller.emit(call.Reinvited{})
			callee.expect(t, "reinvite")
			callee.emit(call.Accepted{Body: []byte(calledSDP)})
			caller.expect(t, "accept")
			caller.emit(call.Acked{Body: []byte(noAudioSDP)})
			callee.expect(t, "ack")
		}, "The caller answered"},
	} {
		t.Run(row.name, func(t *testing.T) {
			callee := newFakeLeg("callee", carrierPeer)
			b := newBench(t, callee)
			caller := row.begin(t, b, callee)
			row.happen(t, caller, callee)
			for _, leg := range []*fakeLeg{callee, caller} {
				if a := leg.expect(t, "close"); a.q850 != q850Incompatible {
					t.Errorf("the %s hears Q.850 %d, want %d", leg.name, a.q850, q850Incompatible)
				}
			}
			rec := b.record(t)
			if rec.Cause.Code != "bad-answer" || rec.Cause.By != "tandem" || !strings.HasPrefix(rec.Cause.Text, row.text) {
				t.Errorf("cause %+v", rec.Cause)
			}
		})
	}
}

// S7: a re-INVITE without SDP that nobody gives an answer to, or no usable offer, changes
// nothing, and the call goes on: re-INVITEs after it pass.
func TestReinviteWithoutAgreement(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)

	caller.emit(call.Reinvited{})
	callee.expect(t, "reinvite")
	callee.emit(call.Accepted{})
	callee.expect(t, "ack")
	if a := caller.expect(t, "reject"); a.code != 488 {
		t.Errorf("the re-INVITE was refused with %d, want 488", a.code)
	}

	caller.emit(call.Reinvited{})
	callee.expect(t, "reinvite")
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	caller.expect(t, "accept")
	caller.emit(call.Acked{})
	callee.expect(t, "ack")

	hold(t, caller, callee)
	if n := b.engine.installed(); n != 4 {
		t.Errorf("%d flows, want 4", n)
	}
	caller.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
	callee.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "normal-clearing" {
		t.Errorf("cause %+v", rec.Cause)
	}
}

// H6: draining waits for the last call; hanging up ends what is left, both sides told.
func TestDrainThenHangup(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	b.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := b.Wait(ctx); err == nil {
		t.Fatal("the gateway claims to be idle with a call up")
	}
	b.Hangup()
	callee.expect(t, "close")
	caller.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "shutdown" {
		t.Errorf("cause %+v", rec.Cause)
	}
	if err := b.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// S7: when the gateway ends a call, a side that does not answer its BYE does not keep the
// other one waiting for its own.
func TestBothSidesAreToldAtOnce(t *testing.T) {
	t.Parallel()
	callee := newFakeLeg("callee", carrierPeer)
	callee.deaf = true
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	b.live(t, call.Answered)
	began := time.Now()
	b.Hangup()
	caller.expect(t, "close")
	if after := time.Since(began); after >= closeTimeout {
		t.Errorf("the caller was told after %s", after)
	}
	b.record(t)
}

func TestDispositionsHaveDistinctCodes(t *testing.T) {
	var codes []string
	for _, d := range dispositions {
		codes = append(codes, d.code)
	}
	slices.Sort(codes)
	if n := len(slices.Compact(slices.Clone(codes))); n != len(codes) {
		t.Errorf("a cause code stands for two refusals: %v", codes)
	}
}

// A CANCEL that crosses the answer: the record says what happened, not that a leg failed.
func TestCancelCrossesAnswer(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := b.call(callerSDP)
	<-b.dialer.dialled
	b.engine.onInstall = func() {
		caller.emit(call.Ended{Cause: call.Cause{Code: "cancelled", SIP: 487, Text: "The caller gave up."}})
	}
	callee.emit(call.Accepted{Body: []byte(calledSDP)})
	callee.expect(t, "ack")
	callee.expect(t, "close")
	if rec := b.record(t); rec.Cause.Code != "cancelled" || !rec.Answered.IsZero() {
		t.Errorf("record %+v", rec)
	}
}

// S7: a re-INVITE that meets one of the other side gets 491 and ends nothing.
func TestGlareAcrossTheGateway(t *testing.T) {
	callee := newFakeLeg("callee", carrierPeer)
	b := newBench(t, callee)
	caller := establish(t, b, callee)
	callee.busy = true
	caller.emit(call.Reinvited{Body: []byte(holdSDP)})
	if a := caller.expect(t, "reject"); a.code != 491 {
		t.Errorf("refused with %d, want 491", a.code)
	}
	caller.emit(call.Ended{Cause: call.Cause{Code: "normal-clearing", SIP: 200, Text: "The peer hung up."}})
	callee.expect(t, "close")
	b.record(t)
}
