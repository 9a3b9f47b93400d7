package media_test

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// TestOfferAnswer: each side is told our address and nothing of the other (S18), and
// four flows connect them (M1) with the mark of the realm they leave in (M3).
func TestOfferAnswer(t *testing.T) {
	b := newBench(t)
	k := b.open()
	offered := k.offer(call.Ingress, caller)
	if n := len(b.engine.flows); n != 0 {
		t.Fatalf("%d flows before an answer", n)
	}
	answered := k.answer(call.Egress, callee)

	out, in := offered.desc.Audio(), answered.desc.Audio()
	if out.RTP.Addr().String() != outside || in.RTP.Addr().String() != inside || out.RTP.Port()%2 != 0 || in.RTP.Port()%2 != 0 {
		t.Errorf("offered %v, answered %v", out.RTP, in.RTP)
	}
	for _, leak := range []string{callerAddr, inside, "peer", "s=call"} {
		if strings.Contains(offered.body, leak) {
			t.Errorf("the callee is told %q:\n%s", leak, offered.body)
		}
	}
	if offered.codecs() != "PCMA PCMU telephone-event" || out.PTime != 20 || answered.codecs() != "PCMA telephone-event" {
		t.Errorf("offered:\n%s\nanswered:\n%s", offered.body, answered.body)
	}
	if in.Codecs[1].Params != "0-15" {
		t.Errorf("fmtp of telephone-event: %q (M5)", in.Codecs[1].Params)
	}

	key := func(realm uint16, a netip.AddrPort) call.FlowKey { return call.FlowKey{Realm: realm, Local: a} }
	at := netip.MustParseAddrPort
	want := map[call.FlowKey]call.Flow{}
	payloads := []call.Payload{{In: 8, Out: 8}, {In: 101, Out: 101, Treatment: call.TelephoneEvent}}
	for _, f := range []call.Flow{
		{Key: key(1, in.RTP), Remote: at(callerRTP), OutRealm: 2, Source: out.RTP, Dest: at(calleeRTP), DSCP: 34, ClockRate: 8000, Payloads: payloads},
		{Key: key(2, out.RTP), Remote: at(calleeRTP), OutRealm: 1, Source: in.RTP, Dest: at(callerRTP), DSCP: 46, ClockRate: 8000, Payloads: payloads},
		{Key: key(1, in.RTCP), Remote: at(callerRTCP), OutRealm: 2, Source: out.RTCP, Dest: at(calleeRTCP), DSCP: 34, RTCP: true},
		{Key: key(2, out.RTCP), Remote: at(calleeRTCP), OutRealm: 1, Source: in.RTCP, Dest: at(callerRTCP), DSCP: 46, RTCP: true},
	} {
		want[f.Key] = f
	}
	if diff := cmp.Diff(want, b.engine.flows, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("flows (-want +got)\n%s", diff)
	}
}

// TestRTCPElsewhere: a=rtcp is honoured, and never told on (RFC 3605, M2).
func TestRTCPElsewhere(t *testing.T) {
	b := newBench(t)
	k := b.open()
	offered := k.offer(call.Ingress, caller+"a=rtcp:45678\r\n")
	k.answer(call.Egress, callee)
	if strings.Contains(offered.body, "rtcp") {
		t.Errorf("told on:\n%s", offered.body)
	}
	if f := b.engine.from(t, calleeRTCP); f.Dest != netip.MustParseAddrPort(callerAddr+":45678") {
		t.Errorf("RTCP goes to %v", f.Dest)
	}
}

// TestCodecPolicy: the offerer's order, cut to what both trunks allow (M4).
func TestCodecPolicy(t *testing.T) {
	const maps = "a=rtpmap:96 opus/48000/2\r\na=rtpmap:101 telephone-event/8000"
	for _, tt := range []struct {
		name            string
		ingress, egress []string
		formats         string
		want            string
	}{
		{"no policy", nil, nil, "96 8 0 101 13", "opus PCMA PCMU telephone-event CN"},
		{"offerer's order", []string{"PCMU", "PCMA", "opus"}, []string{"PCMU", "PCMA"}, "8 96 0 101", "PCMA PCMU telephone-event"},
		{"names in any case", []string{"pcma", "OPUS"}, []string{"Opus"}, "8 96", "opus"},
		{"both lists count", []string{"opus", "G729"}, []string{"PCMU", "G729"}, "96 0 18", "G729"},
		{"nothing in common", []string{"opus"}, []string{"PCMU"}, "96 0 101", ""},
		{"the only law on both sides is converted (M14)", []string{"PCMA"}, []string{"PCMU"}, "0 8 101", "PCMU telephone-event"},
		{"events are no codec", []string{"PCMA", "telephone-event"}, nil, "101 13", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k := newBench(t).openWith(media.Terms{Codecs: tt.ingress}, media.Terms{Codecs: tt.egress})
			offer := describe(callerAddr, "m=audio 40000 RTP/AVP "+tt.formats, maps)
			if tt.want == "" {
				if _, err := k.Offer(call.Ingress, []byte(offer)); !errors.Is(err, media.ErrNoCommonCodec) {
					t.Errorf("got %v, want ErrNoCommonCodec", err)
				}
				return
			}
			if got := k.offer(call.Ingress, offer).codecs(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

// TestAnswerIsHeldToTheOffer (RFC 3264 section 6).
func TestAnswerIsHeldToTheOffer(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         string // codecs that are left
		err          error
	}{
		{"other payload type for the same codec", describe(calleeAddr, "m=audio 50000 RTP/AVP 97", "a=rtpmap:97 pcma/8000"), "PCMA", nil},
		{"one that was not offered", describe(calleeAddr, "m=audio 50000 RTP/AVP 9 8"), "PCMA", nil},
		{"events that were not offered", describe(calleeAddr, "m=audio 50000 RTP/AVP 8 13"), "PCMA", nil},
		{"another clock rate", describe(calleeAddr, "m=audio 50000 RTP/AVP 97", "a=rtpmap:97 PCMA/16000"), "", media.ErrNoCommonCodec},
		{"only what was not offered", describe(calleeAddr, "m=audio 50000 RTP/AVP 9 101", "a=rtpmap:101 telephone-event/8000"), "", media.ErrNoCommonCodec},
		{"audio refused", describe(calleeAddr, "m=audio 0 RTP/AVP 8"), "", media.ErrNoCommonCodec},
		{"a stream too many", describe(calleeAddr, "m=audio 50000 RTP/AVP 8", "m=audio 50002 RTP/AVP 8"), "", media.ErrBadSDP},
		{"no stream", describe(calleeAddr), "", media.ErrNoCommonCodec},
		{"not SDP", "hello", "", media.ErrBadSDP},
		{"empty", "", "", media.ErrBadSDP},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			k := b.open()
			k.offer(call.Ingress, caller)
			if tt.err == nil {
				if got := k.answer(call.Egress, tt.answer).codecs(); got != tt.want {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				return
			}
			if _, err := k.Answer(call.Egress, []byte(tt.answer)); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			if len(b.engine.flows) != 0 {
				t.Error("flows for an answer that was refused")
			}
		})
	}
}

// TestRefusedInPlace: what is not carried keeps its place with port 0, on both sides
// (RFC 3264 section 6, M10).
func TestRefusedInPlace(t *testing.T) {
	fax := []string{"m=image 41000 udptl t38", "m=audio 40000 RTP/AVP 8", "m=video 41004 RTP/AVP 97", "a=rtpmap:97 H264/90000"}
	for name, answer := range map[string]string{
		"refused too":  describe(calleeAddr, "m=image 0 udptl t38", "m=audio 50000 RTP/AVP 8", "m=video 0 RTP/AVP 97"),
		"taken anyway": describe(calleeAddr, "m=image 5 udptl t38", "m=audio 50000 RTP/AVP 8", "m=video 50002 RTP/AVP 97"),
		"left out":     describe(calleeAddr, "m=image 0 udptl t38", "m=audio 50000 RTP/AVP 8"),
	} {
		t.Run(name, func(t *testing.T) {
			k := newBench(t).open()
			offered, answered := k.offer(call.Ingress, describe(callerAddr, fax...)), k.answer(call.Egress, answer)
			for _, p := range []passed{offered, answered} {
				if len(p.desc.Streams) != 3 || !p.desc.Streams[0].Refused || p.desc.Streams[1].Refused || !p.desc.Streams[2].Refused ||
					!strings.Contains(p.body, "m=image 0 udptl t38\r\n") || !strings.Contains(p.body, "m=video 0 RTP/AVP 97\r\n") {
					t.Errorf("got\n%s", p.body)
				}
			}
		})
	}
}

// TestNoAudio: T.38 alone is refused as a whole, and the call goes on as it was (M10).
func TestNoAudio(t *testing.T) {
	b := newBench(t)
	k := b.open()
	k.established()
	before := b.engine.installs
	_, err := k.Offer(call.Egress, []byte(describe(calleeAddr, "m=audio 0 RTP/AVP 8", "m=image 41000 udptl t38")))
	if !errors.Is(err, media.ErrNoAudio) || !errors.Is(err, media.ErrNoCommonCodec) {
		t.Errorf("got %v, want ErrNoAudio", err)
	}
	if b.engine.installs != before || len(b.engine.flows) != 4 {
		t.Error("the flows changed")
	}
}

// TestOwnAddress: a peer that names one of our ports would make packets go in circles.
func TestOwnAddress(t *testing.T) {
	k := newBench(t).open()
	for name, body := range map[string]string{
		"RTP":  describe(outside, "m=audio 20002 RTP/AVP 8"),
		"RTCP": describe(callerAddr, "m=audio 40000 RTP/AVP 8", "a=rtcp:20003 IN IP4 "+outside),
	} {
		if _, err := k.Offer(call.Ingress, []byte(body)); !errors.Is(err, media.ErrBadSDP) {
			t.Errorf("%s: got %v, want ErrBadSDP", name, err)
		}
	}
}

// TestOutOfOrder: a wrong sequence is an error, never a panic.
func TestOutOfOrder(t *testing.T) {
	b := newBench(t)
	s, err := b.m.Open("inside", media.Terms{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Offer(call.Ingress, []byte(caller)); !errors.Is(err, media.ErrState) {
		t.Errorf("offer before the egress side: %v", err)
	}
	if err := s.SetEgress("nowhere", media.Terms{}); err == nil {
		t.Error("an unknown realm was taken")
	}
	if err := s.SetEgress("outside", media.Terms{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Answer(call.Egress, []byte(callee)); !errors.Is(err, media.ErrState) {
		t.Errorf("answer without an offer: %v", err)
	}
	if _, err := s.Offer(call.Ingress, []byte(caller)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Answer(call.Ingress, []byte(caller)); !errors.Is(err, media.ErrState) {
		t.Errorf("answer to the own offer: %v", err)
	}
	s.Rollback()
	s.Close()
	s.Rollback()
	if _, err := s.Offer(call.Ingress, []byte(caller)); !errors.Is(err, media.ErrState) {
		t.Errorf("offer after Close: %v", err)
	}
	if err := s.SetEgress("outside", media.Terms{}); !errors.Is(err, media.ErrState) {
		t.Errorf("SetEgress after Close: %v", err)
	}
	if _, _, err := s.Media(); !errors.Is(err, media.ErrState) {
		t.Errorf("Media after Close: %v", err)
	}
	if _, err := b.m.Open("nowhere", media.Terms{}); err == nil {
		t.Error("an unknown realm was opened")
	}
}

// TestNewChecksRealms: a Media that could not work is not made.
func TestNewChecksRealms(t *testing.T) {
	good := media.Realm{Name: "a", Number: 1, Addr: netip.MustParseAddr(inside), Ports: call.PortRange{First: 16384, Last: 16403}, DSCP: 46}
	for name, change := range map[string]func(*media.Realm){
		"same name":   func(r *media.Realm) { r.Name = "a" },
		"same number": func(r *media.Realm) { r.Number = 1 },
		"IPv6":        func(r *media.Realm) { r.Addr = netip.MustParseAddr("2001:db8::1") },
		"no address":  func(r *media.Realm) { r.Addr = netip.Addr{} },
		"DSCP":        func(r *media.Realm) { r.DSCP = 64 },
		"no pair":     func(r *media.Realm) { r.Ports.Last = r.Ports.First },
	} {
		other := good
		other.Name, other.Number = "b", 2
		change(&other)
		if _, err := media.New(media.Config{Engine: newFakeEngine(), Realms: []media.Realm{good, other}}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := media.New(media.Config{Realms: []media.Realm{good}}); err == nil {
		t.Error("no engine: taken")
	}
}

// TestRunReportsForeignSources: a refused source is in the log, once per event (M7).
func TestRunReportsForeignSources(t *testing.T) {
	engine := newFakeEngine()
	lines := make(chan string, 1)
	m, err := media.New(media.Config{Engine: engine, Log: slog.New(slog.NewTextHandler(lineWriter(lines), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	engine.events <- call.MediaEvent{Kind: call.MediaStarted}
	engine.events <- call.MediaEvent{Kind: call.MediaRefused, Source: netip.MustParseAddrPort("203.0.113.66:4444")}
	if line := <-lines; !strings.Contains(line, "203.0.113.66:4444") || !strings.Contains(line, "WARN") {
		t.Errorf("got %s", line)
	}
	close(engine.events) // the engine may end first
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}
