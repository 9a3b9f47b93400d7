package media_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// audio describes a peer's audio by its payload types and the rtpmaps and fmtps of them.
func audio(addr, port, types string, lines ...string) string {
	for i, l := range lines {
		if !strings.HasPrefix(l, "a=") {
			lines[i] = "a=rtpmap:" + l
		}
	}
	return describe(addr, append([]string{"m=audio " + port + " RTP/AVP " + types}, lines...)...)
}

func fromCaller(types string, lines ...string) string {
	return audio(callerAddr, "40000", types, lines...)
}
func fromCallee(types string, lines ...string) string {
	return audio(calleeAddr, "50000", types, lines...)
}

// way writes the payloads of a flow: "8>0u 101>96e" with a and u for the law that is made,
// and e for events.
func (k *talk) way(from string) string {
	k.Helper()
	var list []string
	for _, p := range k.engine.from(k.T, from).Payloads {
		list = append(list, payload(p))
	}
	return strings.Join(list, " ")
}

func payload(p call.Payload) string {
	mark := map[call.Treatment]string{call.ALawToULaw: "u", call.ULawToALaw: "a", call.TelephoneEvent: "e"}[p.Treatment]
	return fmt.Sprintf("%d>%d%s", p.In, p.Out, mark)
}

// TestPayloadTypes: each leg keeps its own numbers, and packets get the one that their
// receiver asked for (M5, RFC 3264 section 6.1).
func TestPayloadTypes(t *testing.T) {
	const opus, events = " opus/48000/2", " telephone-event/8000"
	for _, tt := range []struct {
		name          string
		egress        media.Terms
		offer, answer string
		offered       string // to the callee
		answered      string // to the caller
		forward, back string // from the caller, from the callee
	}{
		{
			name:  "all the same",
			offer: fromCaller("8 101", "101"+events), answer: fromCallee("8 101", "101"+events),
			offered: "8 PCMA, 0 PCMU, 101 telephone-event", answered: "8 PCMA, 101 telephone-event",
			forward: "8>8 101>101e", back: "8>8 101>101e",
		},
		{
			name:   "events as the trunk has them",
			egress: media.Terms{EventType: 96},
			offer:  fromCaller("0 8 100", "100"+events), answer: fromCallee("0 96", "96"+events),
			offered: "0 PCMU, 8 PCMA, 96 telephone-event", answered: "0 PCMU, 100 telephone-event",
			forward: "0>0 100>96e", back: "0>0 96>100e",
		},
		{
			name:  "a codec in the way of the trunk's events",
			offer: fromCaller("101 0 8 96", "101"+opus, "96"+events), answer: fromCallee("96 101", "96"+opus, "101"+events),
			offered: "96 opus, 0 PCMU, 8 PCMA, 101 telephone-event", answered: "101 opus, 96 telephone-event",
			forward: "101>96 96>101e", back: "96>101 101>96e",
		},
		{
			name:   "events of two clocks, the wanted type at the usual one",
			egress: media.Terms{EventType: 96},
			offer:  fromCaller("111 0 8 100 101", "111"+opus, "100 telephone-event/48000", "101"+events), answer: fromCallee("0 96", "96"+events),
			offered: "111 opus, 0 PCMU, 8 PCMA, 100 telephone-event, 96 telephone-event", answered: "0 PCMU, 101 telephone-event",
			forward: "0>0 101>96e", back: "0>0 96>101e",
		},
		{
			name:  "events of two clocks, one of them by the wanted type",
			offer: fromCaller("111 0 8 101 100", "111"+opus, "101 telephone-event/48000", "100"+events), answer: fromCallee("111 101", "111"+opus, "101 telephone-event/48000"),
			offered: "111 opus, 0 PCMU, 8 PCMA, 101 telephone-event, 100 telephone-event", answered: "111 opus, 101 telephone-event",
			forward: "111>111 101>101e", back: "111>111 101>101e",
		},
		{
			name:  "the callee answers by numbers of its own",
			offer: fromCaller("96 101", "96"+opus, "101"+events), answer: fromCallee("111 110", "111"+opus, "110"+events),
			offered: "96 opus, 101 telephone-event", answered: "96 opus, 101 telephone-event",
			// It should send what it was offered, but some send what they answered.
			forward: "96>111 101>110e", back: "96>96 101>101e 111>96 110>101e",
		},
		{
			name:  "numbers of its own that mean something else",
			offer: fromCaller("96 101", "96"+opus, "101"+events), answer: fromCallee("101 96", "101"+opus, "96"+events),
			offered: "96 opus, 101 telephone-event", answered: "96 opus, 101 telephone-event",
			forward: "96>101 101>96e", back: "96>96 101>101e",
		},
		{
			name:  "two codecs of one name",
			offer: fromCaller("97 98", "97 AMR/8000", "98 AMR/8000", "a=fmtp:98 octet-align=1"), answer: fromCallee("98", "98 AMR/8000", "a=fmtp:98 octet-align=1"),
			offered: "97 AMR, 98 AMR", answered: "98 AMR",
			forward: "98>98", back: "98>98",
		},
		{
			name:  "a static codec by a dynamic number",
			offer: fromCaller("97 0", "97 PCMA/8000"), answer: fromCallee("8"),
			offered: "97 PCMA, 0 PCMU", answered: "97 PCMA",
			forward: "97>8", back: "97>97 8>97",
		},
		{
			name:  "a number that looks like RTCP is not passed on (RFC 5761 section 4)",
			offer: fromCaller("72 101", "72"+opus, "101"+events), answer: fromCallee("96 101", "96"+opus, "101"+events),
			offered: "96 opus, 101 telephone-event", answered: "72 opus, 101 telephone-event",
			forward: "72>96 101>101e", back: "96>72 101>101e",
		},
		{
			name:  "comfort noise on both sides",
			offer: fromCaller("8 0 13"), answer: fromCallee("8 13"),
			offered: "8 PCMA, 0 PCMU, 13 CN", answered: "8 PCMA, 13 CN",
			forward: "8>8 13>13", back: "8>8 13>13",
		},
		{
			name:  "comfort noise that only the caller wants",
			offer: fromCaller("8 0 13"), answer: fromCallee("8"),
			offered: "8 PCMA, 0 PCMU, 13 CN", answered: "8 PCMA",
			forward: "8>8", back: "8>8 13>13",
		},
		{
			name:  "comfort noise that only the callee wants",
			offer: fromCaller("8 0"), answer: fromCallee("8 13"),
			offered: "8 PCMA, 0 PCMU", answered: "8 PCMA",
			forward: "8>8 13>13", back: "8>8",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newBench(t).openWith(media.Terms{}, tt.egress)
			offered, answered := k.offer(call.Ingress, tt.offer), k.answer(call.Egress, tt.answer)
			got := []string{offered.formats(), answered.formats(), k.way(callerRTP), k.way(calleeRTP)}
			if diff := cmp.Diff([]string{tt.offered, tt.answered, tt.forward, tt.back}, got); diff != "" {
				t.Errorf("offered, answered, from the caller, from the callee (-want +got)\n%s", diff)
			}
		})
	}
}

// TestFmtpPasses: what a codec's parameters mean is between the peers (M4).
func TestFmtpPasses(t *testing.T) {
	k := newBench(t).open()
	offered := k.offer(call.Ingress, fromCaller("96", "96 opus/48000/2", "a=fmtp:96 useinbandfec=1;maxaveragebitrate=32000"))
	answered := k.answer(call.Egress, fromCallee("111", "111 opus/48000/2", "a=fmtp:111 usedtx=1"))
	if !strings.Contains(offered.body, "a=fmtp:96 useinbandfec=1;maxaveragebitrate=32000\r\n") ||
		!strings.Contains(answered.body, "a=fmtp:96 usedtx=1\r\n") {
		t.Errorf("offered:\n%s\nanswered:\n%s", offered.body, answered.body)
	}
}

// TestNumbersStay: what a payload type meant once on a leg it means for good, also when
// the offer comes from the other side (RFC 3264 section 8.3.2, M5).
func TestNumbersStay(t *testing.T) {
	k := newBench(t).openWith(media.Terms{EventType: 101}, media.Terms{EventType: 100})
	const opus, events = " opus/48000/2", " telephone-event/8000"
	k.offer(call.Ingress, fromCaller("111 8 0 97", "111"+opus, "97"+events))
	k.answer(call.Egress, fromCallee("111 100", "111"+opus, "100"+events))

	// The callee numbers anew what it offers; the caller's leg does not see it.
	back := k.offer(call.Egress, fromCallee("96 97 8 0 102", "96"+opus, "97 iLBC/8000", "102"+events))
	if got, want := back.formats(), "111 opus, 96 iLBC, 8 PCMA, 0 PCMU, 97 telephone-event"; got != want {
		t.Errorf("offered to the caller: %s, want %s", got, want)
	}
	answered := k.answer(call.Ingress, fromCaller("111 97", "111"+opus, "97"+events))
	if got, want := answered.formats(), "96 opus, 102 telephone-event"; got != want {
		t.Errorf("answered to the callee: %s, want %s", got, want)
	}
	if got, want := k.way(callerRTP), "111>96 97>102e"; got != want {
		t.Errorf("from the caller %s, want %s", got, want)
	}
	if got, want := k.way(calleeRTP), "96>111 102>97e"; got != want {
		t.Errorf("from the callee %s, want %s", got, want)
	}
}

// TestEventClocks: telephone-event runs on the clock of the codec beside it (RFC 4733
// section 2.1); peers that have it at 8000 Hz beside opus are let do so (M5).
func TestEventClocks(t *testing.T) {
	const opus, slow, fast = "96 opus/48000/2", "101 telephone-event/8000", "102 telephone-event/48000"
	for _, tt := range []struct {
		name              string
		offer, answer     string
		offered, answered string
	}{
		{"both, and opus is taken", fromCaller("96 8 0 101 102", opus, slow, fast), fromCallee("96 101 102", opus, slow, fast),
			"96 opus, 8 PCMA, 0 PCMU, 101 telephone-event, 102 telephone-event", "96 opus, 102 telephone-event"},
		{"both, and PCMA is taken", fromCaller("96 8 0 101 102", opus, slow, fast), fromCallee("8 101 102", slow, fast),
			"96 opus, 8 PCMA, 0 PCMU, 101 telephone-event, 102 telephone-event", "8 PCMA, 101 telephone-event"},
		{"only fast ones beside G.711", fromCaller("8 0 101 102", slow, fast), fromCallee("8 101", slow),
			"8 PCMA, 0 PCMU, 101 telephone-event", "8 PCMA, 101 telephone-event"},
		{"only slow ones beside opus", fromCaller("96 101", opus, slow), fromCallee("96 101", opus, slow),
			"96 opus, 101 telephone-event", "96 opus, 101 telephone-event"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newBench(t).open()
			offered, answered := k.offer(call.Ingress, tt.offer), k.answer(call.Egress, tt.answer)
			if offered.formats() != tt.offered || answered.formats() != tt.answered {
				t.Errorf("offered %s, want %s\nanswered %s, want %s", offered.formats(), tt.offered, answered.formats(), tt.answered)
			}
		})
	}
}

// TestDTMFSettings: in-band tones need G.711 and no events; none has no events (M5).
func TestDTMFSettings(t *testing.T) {
	const maps = "96 opus/48000/2"
	const events = "101 telephone-event/8000"
	for _, tt := range []struct {
		name            string
		ingress, egress media.DTMF
		want            string
	}{
		{"events", media.Events, media.Events, "96 opus, 8 PCMA, 9 G722, 0 PCMU, 101 telephone-event, 13 CN"},
		{"in-band for the callee", media.Events, media.Inband, "8 PCMA, 0 PCMU, 13 CN"},
		{"in-band for the caller", media.Inband, media.Events, "8 PCMA, 0 PCMU, 13 CN"},
		{"none for the callee", media.Events, media.None, "96 opus, 8 PCMA, 9 G722, 0 PCMU, 13 CN"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newBench(t).openWith(media.Terms{DTMF: tt.ingress}, media.Terms{DTMF: tt.egress})
			if got := k.offer(call.Ingress, fromCaller("96 8 9 0 101 13", maps, events)).formats(); got != tt.want {
				t.Errorf("offered %s, want %s", got, tt.want)
			}
		})
	}
	k := newBench(t).openWith(media.Terms{}, media.Terms{DTMF: media.Inband})
	if _, err := k.Offer(call.Ingress, []byte(fromCaller("96 9", maps))); !errors.Is(err, media.ErrNoCommonCodec) {
		t.Errorf("nothing that carries tones: %v", err)
	}
}

// TestLaws: A-law becomes mu-law and back when one side has only the one and the other
// only the other, and never otherwise (M14).
func TestLaws(t *testing.T) {
	only := func(codecs ...string) media.Terms { return media.Terms{Codecs: codecs} }
	for _, tt := range []struct {
		name              string
		ingress, egress   media.Terms
		offer, answer     string
		offered, answered string
		forward, back     string
	}{
		{
			name:  "the other law is offered last, and not needed",
			offer: fromCaller("8 9"), answer: fromCallee("8"), offered: "8 PCMA, 9 G722, 0 PCMU", answered: "8 PCMA",
			forward: "8>8", back: "8>8",
		},
		{
			name:  "the other law is all that the callee has",
			offer: fromCaller("8 101", "101 telephone-event/8000"), answer: fromCallee("0 101", "101 telephone-event/8000"),
			offered: "8 PCMA, 0 PCMU, 101 telephone-event", answered: "8 PCMA, 101 telephone-event",
			forward: "8>0u 101>101e", back: "0>8a 101>101e",
		},
		{
			name:  "mu-law to A-law",
			offer: fromCaller("0 13"), answer: fromCallee("8 13"), offered: "0 PCMU, 8 PCMA, 13 CN", answered: "0 PCMU, 13 CN",
			forward: "0>8a 13>13", back: "8>0u 13>13",
		},
		{
			name:  "the trunk allows one law only (no 488)",
			offer: fromCaller("8"), egress: only("PCMU"), answer: fromCallee("0"), offered: "0 PCMU", answered: "8 PCMA",
			forward: "8>0u", back: "0>8a",
		},
		{
			name:  "the caller's trunk allows one law of two",
			offer: fromCaller("0 8"), ingress: only("PCMA"), egress: only("PCMU"), answer: fromCallee("0"), offered: "0 PCMU", answered: "8 PCMA",
			forward: "8>0u", back: "0>8a",
		},
		{
			name:  "both laws in the offer",
			offer: fromCaller("8 0"), answer: fromCallee("0"), offered: "8 PCMA, 0 PCMU", answered: "0 PCMU",
			forward: "0>0", back: "0>0",
		},
		{
			name:  "the callee takes both and may send either",
			offer: fromCaller("8"), answer: fromCallee("0 8"), offered: "8 PCMA, 0 PCMU", answered: "8 PCMA",
			forward: "8>8", back: "8>8 0>8a",
		},
		{
			name:  "a third codec does without",
			offer: fromCaller("8 9"), answer: fromCallee("9 0"), offered: "8 PCMA, 9 G722, 0 PCMU", answered: "9 G722",
			forward: "9>9", back: "9>9 0>8a",
		},
		{
			name:  "the trunk does not allow the other law",
			offer: fromCaller("8"), egress: only("PCMA", "G729"), answer: fromCallee("8"), offered: "8 PCMA", answered: "8 PCMA",
			forward: "8>8", back: "8>8",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newBench(t).openWith(tt.ingress, tt.egress)
			offered, answered := k.offer(call.Ingress, tt.offer), k.answer(call.Egress, tt.answer)
			got := []string{offered.formats(), answered.formats(), k.way(callerRTP), k.way(calleeRTP)}
			if diff := cmp.Diff([]string{tt.offered, tt.answered, tt.forward, tt.back}, got); diff != "" {
				t.Errorf("offered, answered, from the caller, from the callee (-want +got)\n%s", diff)
			}
		})
	}
}

// TestConvertedCall: each side's record names its own codec, ptime stays as it is, and a
// re-INVITE from the other side is converted the other way round (M14, S7).
func TestConvertedCall(t *testing.T) {
	k := newBench(t).open()
	offered := k.offer(call.Ingress, fromCaller("8", "a=ptime:30"))
	answered := k.answer(call.Egress, fromCallee("0", "a=ptime:30"))
	if offered.desc.Audio().PTime != 30 || answered.desc.Audio().PTime != 30 {
		t.Errorf("ptime: offered\n%s\nanswered\n%s", offered.body, answered.body)
	}
	if ingress, egress, err := k.Media(); err != nil || ingress.Codec != "PCMA/8000" || egress.Codec != "PCMU/8000" {
		t.Errorf("codecs %s and %s, %v", ingress.Codec, egress.Codec, err)
	}
	if got := k.offer(call.Egress, fromCallee("0")).formats(); got != "0 PCMU, 8 PCMA" {
		t.Errorf("offered to the caller: %s", got)
	}
	if got := k.answer(call.Ingress, fromCaller("8")).formats(); got != "0 PCMU" {
		t.Errorf("answered to the callee: %s", got)
	}
	if f, r := k.way(callerRTP), k.way(calleeRTP); f != "8>0u" || r != "0>8a" {
		t.Errorf("from the caller %s, from the callee %s", f, r)
	}
}
