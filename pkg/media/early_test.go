package media_test

import (
	"errors"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// T7: a try that has answered the caller's offer with early media and then failed binds the
// ones after it: whoever follows RFC 3261 section 13.2.1 goes by the first answer and ignores
// the others, so what the last callee speaks has to be what the first one promised.
func TestEarlyMediaOfAFailedTryIsKeptTo(t *testing.T) {
	const events = "a=rtpmap:101 telephone-event/8000"
	for _, row := range []struct {
		name string
		// early is what the first callee answered with, terms those of the second, that is
		// offered and answers.
		early   string
		terms   media.Terms
		offered string
		answers string
		// payload is how the caller's codec leaves then.
		payload call.Payload
	}{
		{"the codec of the answer alone is offered", "8 101", media.Terms{}, "8 PCMA, 0 PCMU, 101 telephone-event", "8 101", call.Payload{In: 8, Out: 8}},
		{"the other law of G.711 is converted (M14)", "8 101", media.Terms{Codecs: []string{"PCMU", "G722"}}, "0 PCMU, 101 telephone-event", "0 101",
			call.Payload{In: 8, Out: 0, Treatment: call.ALawToULaw}},
		{"also if the caller offered it itself", "8 101", media.Terms{}, "8 PCMA, 0 PCMU, 101 telephone-event", "0 101",
			call.Payload{In: 8, Out: 0, Treatment: call.ALawToULaw}},
		{"the first codec of several counts", "9 8 101", media.Terms{}, "9 G722, 101 telephone-event", "9 101", call.Payload{In: 9, Out: 9}},
	} {
		t.Run(row.name, func(t *testing.T) {
			k := newBench(t).open()
			offer := describe(callerAddr, "m=audio 40000 RTP/AVP 9 8 0 101", events)
			k.offer(call.Ingress, offer)
			early := k.answer(call.Egress, describe(calleeAddr, "m=audio 50000 RTP/AVP "+row.early, events))
			if err := k.SetEgress("outside3", row.terms); err != nil {
				t.Fatal(err)
			}
			if got := k.offer(call.Ingress, offer).formats(); got != row.offered {
				t.Errorf("offered %s, want %s", got, row.offered)
			}
			again := k.answer(call.Egress, describe(calleeAddr, "m=audio 52000 RTP/AVP "+row.answers, events))
			if again.desc.Audio().RTP != early.desc.Audio().RTP || again.desc.Audio().Codecs[0].Type != early.desc.Audio().Codecs[0].Type || again.id != early.id {
				t.Errorf("the caller was told\n%s\nand then\n%s", early.body, again.body)
			}
			if row.early != "9 8 101" && again.body != early.body {
				t.Errorf("the caller's answer has changed from\n%s\nto\n%s", early.body, again.body)
			}
			if got := k.engine.from(t, callerRTP).Payloads[0]; got != row.payload {
				t.Errorf("the caller's audio: %+v, want %+v", got, row.payload)
			}
			// Once the call is answered it may be changed to whatever both sides allow (S7).
			k.offer(call.Ingress, describe(callerAddr, "m=audio 40000 RTP/AVP 0 8 9 101", events))
			if len(row.terms.Codecs) == 0 {
				k.answer(call.Egress, describe(calleeAddr, "m=audio 52000 RTP/AVP 9 101", events))
			}
		})
	}
}

// A trunk that has nothing to go with the early media is no use; a callee that answers with
// what it was not offered is not believed. A try without early media binds nobody.
func TestEarlyMediaThatCannotBeKeptTo(t *testing.T) {
	k := newBench(t).open()
	offer := describe(callerAddr, "m=audio 40000 RTP/AVP 9 8")
	next := func(terms media.Terms) error {
		t.Helper()
		if err := k.SetEgress("outside3", terms); err != nil {
			t.Fatal(err)
		}
		_, err := k.Offer(call.Ingress, []byte(offer))
		return err
	}
	k.offer(call.Ingress, offer)
	if err := next(media.Terms{Codecs: []string{"PCMA"}}); err != nil {
		t.Errorf("nobody has answered yet: %v", err)
	}
	if err := next(media.Terms{}); err != nil {
		t.Fatal(err)
	}
	k.answer(call.Egress, describe(calleeAddr, "m=audio 50000 RTP/AVP 9"))
	if err := next(media.Terms{Codecs: []string{"PCMA"}}); !errors.Is(err, media.ErrEarlyMedia) || errors.Is(err, media.ErrNoCommonCodec) {
		t.Errorf("G722 was promised: %v, want ErrEarlyMedia", err)
	}
	if err := next(media.Terms{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Answer(call.Egress, []byte(describe(calleeAddr, "m=audio 50000 RTP/AVP 8"))); !errors.Is(err, media.ErrNoCommonCodec) {
		t.Errorf("PCMA was not offered: %v, want ErrNoCommonCodec", err)
	}
}
