package media_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// TestEarlyThenFinalAnswer: a 183 opens the way, the 200 says the same or moves it (S5).
func TestEarlyThenFinalAnswer(t *testing.T) {
	b := newBench(t)
	k := b.open()
	k.offer(call.Ingress, caller)
	early := k.answer(call.Egress, describe("203.0.113.99", "m=audio 55000 RTP/AVP 0"))
	if f := b.engine.from(t, callerRTP); f.Dest != netip.MustParseAddrPort("203.0.113.99:55000") {
		t.Errorf("early media goes to %v", f.Dest)
	}
	final := k.answer(call.Egress, callee)
	if f := b.engine.from(t, callerRTP); f.Dest != netip.MustParseAddrPort(calleeRTP) || len(b.engine.flows) != 4 {
		t.Errorf("media goes to %v, %d flows", f.Dest, len(b.engine.flows))
	}
	if early.id != final.id || early.version != "1" || final.version != "2" {
		t.Errorf("o= lines %s %s, then %s %s", early.id, early.version, final.id, final.version)
	}
	installs := b.engine.installs
	if again := k.answer(call.Egress, callee); again.body != final.body || b.engine.installs != installs {
		t.Errorf("the same answer again: %d installs more\n%s", b.engine.installs-installs, again.body)
	}
	if none := k.answer(call.Egress, ""); none.body != final.body || b.engine.installs != installs {
		t.Errorf("no description once one was given: %d installs more\n%s", b.engine.installs-installs, none.body)
	}
}

// TestHoldAndResume: each way of holding reaches the other side as what it is (S7).
func TestHoldAndResume(t *testing.T) {
	for _, tt := range []struct {
		name, hold, answer string
		passed             string // in the offer that the other side gets
		held               bool
	}{
		{"sendonly", caller + "a=sendonly\r\n", callee + "a=recvonly\r\n", "a=sendonly\r\n", false},
		{"inactive", caller + "a=inactive\r\n", callee + "a=inactive\r\n", "a=inactive\r\n", false},
		{"0.0.0.0", strings.Replace(caller, "c=IN IP4 "+callerAddr, "c=IN IP4 0.0.0.0", 1), callee, "c=IN IP4 0.0.0.0\r\n", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			k := b.open()
			first, firstAnswer := k.established()
			b.engine.send(t, calleeRTP, 100)

			held := k.offer(call.Ingress, tt.hold)
			if !strings.Contains(held.body, tt.passed) || held.id != first.id || held.version != "2" {
				t.Errorf("hold reaches the callee as\n%s", held.body)
			}
			k.answer(call.Egress, tt.answer)
			to, from := b.engine.from(t, calleeRTP), b.engine.from(t, callerRTP)
			if to.Hold != tt.held || from.Hold {
				t.Errorf("towards the holder: hold %v; from it: hold %v", to.Hold, from.Hold)
			}

			resumed := k.offer(call.Ingress, caller)
			if resumed.version != "3" || resumed.desc.Audio().RTP != first.desc.Audio().RTP {
				t.Errorf("resumed as\n%s", resumed.body)
			}
			answer := k.answer(call.Egress, callee)
			if f := b.engine.from(t, calleeRTP); f.Hold || f.Dest != netip.MustParseAddrPort(callerRTP) || answer.id != firstAnswer.id {
				t.Errorf("after resume: %+v", f)
			}
			if _, egress, err := k.Media(); err != nil || egress.Packets != 100 {
				t.Errorf("the counters did not survive: %+v, %v", egress, err)
			}
		})
	}
}

// TestHeldFromTheStart: an offer on 0.0.0.0 gives nobody to let in or to send to, so
// there is no flow until the peer names an address.
func TestHeldFromTheStart(t *testing.T) {
	b := newBench(t)
	k := b.open()
	offered := k.offer(call.Ingress, strings.Replace(caller, "c=IN IP4 "+callerAddr, "c=IN IP4 0.0.0.0", 1))
	k.answer(call.Egress, callee)
	if offered.desc.Audio().RTP.Addr().String() != "0.0.0.0" || len(b.engine.flows) != 0 {
		t.Errorf("%d flows; offered\n%s", len(b.engine.flows), offered.body)
	}
	k.established()
	if len(b.engine.flows) != 4 {
		t.Errorf("%d flows after resume", len(b.engine.flows))
	}
}

// TestAddressChange: a re-INVITE that moves a peer updates the flows in place; the
// other side is told nothing new, so its version stays (S7, RFC 3264 section 8).
func TestAddressChange(t *testing.T) {
	b := newBench(t)
	k := b.open()
	first, _ := k.established()
	b.engine.send(t, callerRTP, 50)

	moved := k.offer(call.Ingress, strings.NewReplacer(callerAddr, "198.51.100.77", "40000", "44000").Replace(caller))
	if moved.body != first.body {
		t.Errorf("the callee is told something else:\n%s", moved.body)
	}
	if f := b.engine.from(t, callerRTP); f.Key.Realm != 1 {
		t.Errorf("moved before the answer: %+v", f)
	}
	k.answer(call.Egress, callee)
	f := b.engine.from(t, "198.51.100.77:44000")
	if b.engine.sent[f.Key] != 50 || len(b.engine.flows) != 4 || b.engine.from(t, calleeRTP).Dest != f.Remote {
		t.Errorf("flow %+v with %d packets, %d flows", f, b.engine.sent[f.Key], len(b.engine.flows))
	}
}

// TestRejectedReinvite: what was agreed before stays; the next change has a version
// above the refused one's (S7).
func TestRejectedReinvite(t *testing.T) {
	b := newBench(t)
	k := b.open()
	first, _ := k.established()
	installs := b.engine.installs

	refused := k.offer(call.Ingress, strings.ReplaceAll(caller, callerAddr, "198.51.100.77")+"a=sendonly\r\n")
	k.Rollback()
	if b.engine.installs != installs || b.engine.from(t, callerRTP).Dest != netip.MustParseAddrPort(calleeRTP) {
		t.Error("the flows changed")
	}
	if _, err := k.Answer(call.Egress, []byte(callee)); !errors.Is(err, media.ErrState) {
		t.Errorf("an answer after the offer was refused: %v", err)
	}
	next := k.offer(call.Ingress, caller)
	if first.version != "1" || refused.version != "2" || next.version != "3" {
		t.Errorf("versions %s, %s, %s", first.version, refused.version, next.version)
	}
	k.answer(call.Egress, callee)
	// A refusal of something that was no offer leaves the last agreement alone.
	k.Rollback()
	if b.engine.installs != installs || len(b.engine.flows) != 4 {
		t.Error("a rollback without an offer changed the flows")
	}
}

// TestDelayedOffer: the offer comes from the called side, the answer from the caller (S8).
func TestDelayedOffer(t *testing.T) {
	b := newBench(t)
	k := b.open()
	offered := k.offer(call.Egress, describe(calleeAddr, "m=audio 50000 RTP/AVP 0 8"))
	if offered.desc.Audio().RTP.Addr().String() != inside || offered.codecs() != "PCMU PCMA" {
		t.Errorf("offered to the caller:\n%s", offered.body)
	}
	answered := k.answer(call.Ingress, describe(callerAddr, "m=audio 40000 RTP/AVP 8"))
	if answered.desc.Audio().RTP.Addr().String() != outside || answered.codecs() != "PCMA" {
		t.Errorf("answered to the callee:\n%s", answered.body)
	}
	if b.engine.from(t, callerRTP).Dest.String() != calleeRTP || b.engine.from(t, calleeRTP).Dest.String() != callerRTP {
		t.Errorf("flows %+v", b.engine.flows)
	}
}

// TestReinviteFromTheCallee changes the codec the other way round (S7).
func TestReinviteFromTheCallee(t *testing.T) {
	b := newBench(t)
	k := b.open()
	k.established()
	k.offer(call.Egress, describe(calleeAddr, "m=audio 50000 RTP/AVP 9"))
	k.answer(call.Ingress, describe(callerAddr, "m=audio 40000 RTP/AVP 9"))
	if ingress, egress, err := k.Media(); err != nil || ingress.Codec != "G722/8000" || egress.Codec != "G722/8000" {
		t.Errorf("%+v, %+v, %v", ingress, egress, err)
	}
}

// TestFailover: the next try gets an egress side of its own; the former one's flows
// and ports are gone, the caller's port stays, and what it sent is kept (T7).
func TestFailover(t *testing.T) {
	b := newBench(t)
	k := b.open()
	first, firstAnswer := k.established() // early media, then 503
	b.engine.send(t, callerRTP, 40)
	b.engine.send(t, calleeRTP, 30)

	if err := k.SetEgress("outside3", media.Terms{}); err != nil {
		t.Fatal(err)
	}
	if len(b.engine.flows) != 0 || b.m.PortsInUse() != 2 {
		t.Errorf("%d flows, %d port pairs; want 0, 2", len(b.engine.flows), b.m.PortsInUse())
	}
	if _, err := k.Answer(call.Egress, []byte(callee)); !errors.Is(err, media.ErrState) {
		t.Errorf("a late answer of the former try: %v", err)
	}
	second, secondAnswer := k.established()
	if second.desc.Audio().RTP.Addr().String() != outside3 || second.id == first.id || second.version != "1" {
		t.Errorf("offered to the second trunk:\n%s", second.body)
	}
	if secondAnswer.body != firstAnswer.body {
		t.Errorf("the caller is told something else:\n%s", secondAnswer.body)
	}
	b.engine.send(t, callerRTP, 2)
	b.engine.send(t, calleeRTP, 1)
	ingress, egress := k.Close()
	if ingress.Packets != 42 || egress.Packets != 1 {
		t.Errorf("ingress sent %d, egress %d; want 42, 1", ingress.Packets, egress.Packets)
	}
}

// TestClose: final counters, each on the side that sent, and the same again later (M11).
func TestClose(t *testing.T) {
	b := newBench(t)
	k := b.open()
	offered, answered := k.established()
	b.engine.send(t, callerRTP, 1000)
	b.engine.send(t, calleeRTP, 2000)
	b.engine.send(t, callerRTCP, 7) // not media
	live, _, err := k.Media()
	if err != nil {
		t.Fatal(err)
	}
	ingress, egress := k.Close()
	if live != ingress {
		t.Errorf("live %+v, final %+v", live, ingress)
	}
	want := call.Media{
		Local: answered.desc.Audio().RTP, Remote: netip.MustParseAddrPort(callerRTP), Codec: "PCMA/8000",
		Packets: 1000, Bytes: 172000, Lost: 100, JitterMS: 1,
	}
	if want.MOS = ingress.MOS; ingress != want || want.MOS <= 0 {
		t.Errorf("got %+v\nwant %+v", ingress, want)
	}
	if egress.Packets != 2000 || egress.Local != offered.desc.Audio().RTP || egress.Remote.String() != calleeRTP {
		t.Errorf("egress %+v", egress)
	}
	if i, e := k.Close(); i != ingress || e != egress {
		t.Errorf("closed again: %+v, %+v", i, e)
	}
}

// TestPortExhaustion: it shows before anyone is invited, and a refused call holds
// nothing (M9).
func TestPortExhaustion(t *testing.T) {
	b := newBenchWith(t, call.PortRange{First: 16384, Last: 16385})
	first := b.open()
	s, err := b.m.Open("inside", media.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // more than the egress range has
		if err := s.SetEgress("outside", media.Terms{}); !errors.Is(err, media.ErrNoPorts) {
			t.Fatalf("got %v, want ErrNoPorts", err)
		}
	}
	s.Close()
	if n := b.m.PortsInUse(); n != 2 {
		t.Errorf("%d port pairs in use, want the first call's 2", n)
	}
	first.Close()
	b.open().established()
}

// TestInstallFails: no half call stays, and the ports come back.
func TestInstallFails(t *testing.T) {
	b := newBench(t)
	b.engine.fail = errEngine
	k := b.open()
	k.offer(call.Ingress, caller)
	if _, err := k.Answer(call.Egress, []byte(callee)); !errors.Is(err, errEngine) {
		t.Errorf("got %v", err)
	}
	if ingress, egress, err := k.Media(); err != nil || ingress.Remote.IsValid() || egress.Codec != "" {
		t.Errorf("%+v, %+v, %v", ingress, egress, err)
	}
	k.Close()
	if n := b.m.PortsInUse(); n != 0 {
		t.Errorf("%d port pairs left", n)
	}
}

// TestUpdateFails: a re-INVITE that the engine cannot follow leaves the call as it was.
func TestUpdateFails(t *testing.T) {
	b := newBench(t)
	k := b.open()
	k.established()
	b.engine.fail = errEngine
	k.offer(call.Ingress, strings.ReplaceAll(caller, callerAddr, "198.51.100.77"))
	if _, err := k.Answer(call.Egress, []byte(callee)); !errors.Is(err, errEngine) {
		t.Errorf("got %v", err)
	}
	k.Rollback()
	if ingress, _, err := k.Media(); err != nil || ingress.Remote.String() != callerRTP {
		t.Errorf("%+v, %v", ingress, err)
	}
}
