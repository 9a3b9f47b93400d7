package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var bodyScenarios = []scenario{
	{"M4 no common codec is 488", noCodec},
	{"M4 the order of codecs is the offerer's", codecOrder},
	{"M4 a codec that was not offered is no answer", wrongAnswer},
	{"M4 telephone-event, ptime and fmtp are kept", formats},
	{"M9 ports are even, not below 1024, and differ between calls", ports},
	{"M10 T.38 alone is 488", onlyMedia("m=image 45000 udptl t38")},
	{"M10 T.38, video and others are refused in place", inPlace},
	{"M10 a change to T.38 is refused and the call goes on", changeToFax},
	{"M10 video alone is 488", onlyMedia("m=video 45000 RTP/AVP 96\r\na=rtpmap:96 H264/90000")},
	{"M10 SRTP alone is 488", onlyMedia("m=audio 45000 RTP/SAVP 8")},
	{"S19 bodies that are no session description", badBodies},
	{"S19 bodies that are mended", oddBodies},
	{"S19 an answer that cannot be used ends the call", badAnswer},
	{"S19 a body of another type", otherBody},
	{"S19 a multipart body", multipart},
}

// refusedOffer sends an offer that must not reach the callee.
func refusedOffer(t *testing.T, s *stage, body string, status int) {
	t.Helper()
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).with(body)
	caller.send(inv)
	caller.refused(inv, status)
	callee.quiet(20 * time.Millisecond)
}

func noCodec(t *testing.T, s *stage) {
	caller := s.caller(t, "platform")
	refusedOffer(t, s, caller.sdp("m=audio 40000 RTP/AVP 3 97 101", "a=rtpmap:97 iLBC/8000", "a=rtpmap:101 telephone-event/8000"), 488)
}

func codecOrder(t *testing.T, s *stage) {
	for _, order := range []string{"18 9 0 8 111", "111 8 0 9 18", "0 111 18 8 9"} {
		caller, callee := s.pair(t)
		caller.send(caller.invite(callee.number).with(caller.sdp("m=audio 40000 RTP/AVP 3 "+order, "a=rtpmap:111 opus/48000/2")))
		inv := callee.take()
		wants(t, "the offer", inv.body, " RTP/AVP "+order+"\r\n")
		callee.send(callee.respond(inv, 200).with(callee.sdp("m=audio 40000 RTP/AVP 8 0")))
		wants(t, "the answer", caller.established().body, " RTP/AVP 8 0\r\n")
		callee.expect("ACK")
		caller.hangUp(callee)
	}
}

func wrongAnswer(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).with(caller.sdp("m=audio 40000 RTP/AVP 8"))
	caller.send(inv)
	got := callee.take()
	callee.send(callee.respond(got, 200).with(callee.sdp("m=audio 40000 RTP/AVP 18")))
	callee.expect("ACK")
	callee.over()
	caller.refused(inv, 503)
}

func formats(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number).with(caller.sdp(
		"m=audio 40000 RTP/AVP 111 18 100 101", "a=rtpmap:111 OPUS/48000/2", "a=fmtp:111 useinbandfec=1;maxaveragebitrate=20000", "a=fmtp:18 annexb=no",
		"a=rtpmap:100 telephone-event/48000", "a=fmtp:100 0-15", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15,66", "a=ptime:40", "a=maxptime:60",
	)))
	inv := callee.take()
	wants(t, "the offer", inv.body, " RTP/AVP 111 18 100 101\r\n", "a=rtpmap:111 opus/48000/2\r\n", "a=fmtp:111 useinbandfec=1;maxaveragebitrate=20000\r\n",
		"a=fmtp:18 annexb=no\r\n", "a=rtpmap:100 telephone-event/48000\r\n", "a=fmtp:100 0-15\r\n", "a=fmtp:101 0-15,66\r\n", "a=ptime:40\r\n", "a=maxptime:60\r\n")
	// The answerer numbers telephone-event in its own way, and the caller keeps its own (M5).
	callee.send(callee.respond(inv, 200).with(callee.sdp("m=audio 40000 RTP/AVP 18 96", "a=fmtp:18 annexb=no", "a=rtpmap:96 telephone-event/8000", "a=fmtp:96 0-15", "a=ptime:20")))
	wants(t, "the answer", caller.established().body, " RTP/AVP 18 101\r\n", "a=fmtp:18 annexb=no\r\n", "a=rtpmap:101 telephone-event/8000\r\n", "a=fmtp:101 0-15\r\n", "a=ptime:20\r\n")
	callee.expect("ACK")
	caller.hangUp(callee)
}

func ports(t *testing.T, s *stage) {
	used := map[string]bool{}
	for range 4 {
		caller, callee := s.call(t)
		for _, m := range append(caller.seen, callee.seen...) {
			_, line, found := strings.Cut(m.body, "m=audio ")
			if !found {
				continue
			}
			port, _, _ := strings.Cut(line, " ")
			if n := 0; used[port] {
				t.Errorf("port %s is used again at once", port)
			} else if _, err := fmt.Sscan(port, &n); err != nil || n%2 != 0 || n < 1024 {
				t.Errorf("port %s", port)
			}
			used[port] = true
		}
		caller.hangUp(callee)
	}
}

func onlyMedia(line string) func(*testing.T, *stage) {
	return func(t *testing.T, s *stage) {
		refusedOffer(t, s, s.caller(t, "platform").sdp(line), 488)
	}
}

// mediaLines are the m= lines of a body, reduced to media, "0" or "port", and formats.
func mediaLines(body string) []string {
	var lines []string
	for line := range strings.SplitSeq(body, "\r\n") {
		if f := strings.Fields(line); strings.HasPrefix(line, "m=") && len(f) > 3 {
			port := "port"
			if f[1] == "0" {
				port = "0"
			}
			lines = append(lines, f[0][2:]+" "+port+" "+f[2]+" "+strings.Join(f[3:], " "))
		}
	}
	return lines
}

func inPlace(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	offer := []string{
		"m=image 45000 udptl t38", "a=T38FaxVersion:0", "m=video 45002 RTP/AVP 96", "a=rtpmap:96 H264/90000",
		"m=audio 40000 RTP/AVP 8 0", "m=audio 40010 RTP/AVP 0", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "m=message 7654 TCP/MSRP *",
	}
	const want = "image 0 udptl t38|video 0 RTP/AVP 96|audio port RTP/AVP 8 0|audio 0 RTP/AVP 0|application 0 UDP/DTLS/SCTP webrtc-datachannel|message 0 TCP/MSRP *"
	caller.send(caller.invite(callee.number).with(caller.sdp(offer...)))
	inv := callee.take()
	if got := strings.Join(mediaLines(inv.body), "|"); got != want {
		t.Errorf("the callee was offered %s", got)
	}
	callee.send(callee.respond(inv, 200).with(callee.sdp(
		"m=image 0 udptl t38", "m=video 0 RTP/AVP 96", "m=audio 40000 RTP/AVP 8 0", "m=audio 0 RTP/AVP 0", "m=application 0 UDP/DTLS/SCTP webrtc-datachannel", "m=message 0 TCP/MSRP *",
	)))
	ok := caller.established()
	if got := strings.Join(mediaLines(ok.body), "|"); got != want {
		t.Errorf("the caller was answered %s", got)
	}
	callee.expect("ACK")
	caller.hangUp(callee)
}

func changeToFax(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	re := callee.within("INVITE").with(callee.sdp("m=image 45000 udptl t38"))
	callee.send(re)
	callee.refused(re, 488)
	caller.quiet(20 * time.Millisecond)
	// With the audio beside it, only the fax is refused.
	const both = "m=audio 40000 RTP/AVP 8 0"
	offered, answered := reinvite(callee, caller, callee.sdp(both, "m=image 45000 udptl t38"), caller.sdp(both, "m=image 0 udptl t38"))
	for _, m := range []*message{offered, answered} {
		if got := strings.Join(mediaLines(m.body), "|"); got != "audio port RTP/AVP 8 0|image 0 udptl t38" {
			t.Errorf("%s: %s", m.start, got)
		}
	}
	caller.hangUp(callee)
}

func badBodies(t *testing.T, s *stage) {
	p := s.caller(t, "platform")
	for name, body := range map[string]string{
		"words":             "hello, world",
		"nothing but lines": "\r\n\r\n",
		"NUL":               strings.Replace(p.sdp(), "s=", "s=\x00", 1),
		"short m=":          p.sdp("m=audio 40000"),
		"no c=":             strings.Replace(p.sdp(), "c=IN IP4 "+p.self.Addr().String()+"\r\n", "", 1),
		"port above 65535":  p.sdp("m=audio 140000 RTP/AVP 8"),
		"port below 1024":   p.sdp("m=audio 1022 RTP/AVP 8"),
		"IPv6":              strings.Replace(p.sdp(), "c=IN IP4 10.71.0.10", "c=IN IP6 2001:db8::1", 1),
		"multicast":         p.sdpAt("239.1.1.1"),
		"a name":            p.sdpAt("host.example"),
		"no m=":             p.sdp("a=sendrecv"),
		"audio refused":     p.sdp("m=audio 0 RTP/AVP 8"),
		"version 1":         strings.Replace(p.sdp(), "v=0", "v=1", 1),
		"many m=":           p.sdp(strings.Repeat("m=audio 40000 RTP/AVP 8\r\n", 40) + "a=x"),
		"many formats":      p.sdp("m=audio 40000 RTP/AVP" + strings.Repeat(" 8", 100)),
		"our own address":   p.sdpAt("10.71.0.2", "m=audio 16400 RTP/AVP 8"),
	} {
		caller, callee := s.pair(t)
		inv := caller.invite(callee.number).with(body)
		caller.send(inv)
		if m := caller.final(); m == nil || m.status() != 488 {
			t.Errorf("%s: answered %v, want 488", name, m)
		} else {
			caller.confirmRefusal(inv, m)
		}
		if m := callee.next(10 * time.Millisecond); m != nil {
			t.Errorf("%s: reached the callee:\n%s", name, m.raw)
		}
	}
}

// final is the next final response, or nil.
func (p *peer) final() *message {
	for {
		m := p.next(patience)
		if m == nil || m.status() >= 200 {
			return m
		}
	}
}

// What pion/sdp rejects and real peers send.
func oddBodies(t *testing.T, s *stage) {
	p := s.caller(t, "platform")
	for name, body := range map[string]string{
		"lower-case rtp/avp": p.sdp("m=audio 40000 rtp/avp 8"),
		"no final CRLF":      strings.TrimSuffix(p.sdp(plain), "\r\n"),
		"LF only":            strings.ReplaceAll(p.sdp(plain), "\r\n", "\n"),
		"no s= and t=":       "v=0\r\no=x 1 1 IN IP4 10.71.0.10\r\nc=IN IP4 10.71.0.10\r\nm=audio 40000 RTP/AVP 8\r\n",
		"c= after t=":        "v=0\r\no=x 1 1 IN IP4 10.71.0.10\r\ns=-\r\nt=0 0\r\nc=IN IP4 10.71.0.10\r\nm=audio 40000 RTP/AVP 8\r\n",
		"two c= lines":       p.sdp("c=IN IP4 10.71.0.11", plain),
		"b= unknown":         p.sdp("b=FOO:bar", plain, "b=X-:1"),
		"unknown lines":      p.sdp("y=1", plain, "w=2"),
		"blanks in o=":       strings.Replace(p.sdp(plain), "o=", "o=A Phone With Blanks ", 1),
		"session id of 30":   strings.Replace(p.sdp(plain), " 1 1 IN", " 123456789012345678901234567890 1 IN", 1),
		"junk attributes":    p.sdp(plain, "a=", "a=:", "a=rtpmap", "a=rtpmap:x y", "a=fmtp:999 z", "a=ptime:-3", "a=rtcp:0"),
	} {
		caller, callee := s.pair(t)
		caller.send(caller.invite(callee.number).with(body))
		inv := callee.take()
		if got := strings.Join(mediaLines(inv.body), "|"); got != "audio port RTP/AVP 8 0" {
			t.Errorf("%s: the callee was offered %s", name, got)
		}
		callee.answer(inv)
		caller.established()
		callee.expect("ACK")
		caller.hangUp(callee)
	}
}

func badAnswer(t *testing.T, s *stage) {
	for _, body := range []string{"", "nonsense", "v=0\r\no=- 1 1 IN IP4 10.72.0.10\r\ns=-\r\nc=IN IP4 10.72.0.10\r\nt=0 0\r\nm=audio 0 RTP/AVP 8\r\n"} {
		caller, callee := s.pair(t)
		inv := caller.invite(callee.number)
		caller.send(inv)
		got := callee.take()
		ok := callee.respond(got, 200)
		if body != "" {
			ok.with(body)
		}
		callee.send(ok)
		callee.expect("ACK")
		callee.over()
		caller.refused(inv, 503)
	}
}

func otherBody(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).set("Content-Type", "application/x-frob")
	caller.send(inv)
	if r := caller.refused(inv, 415); r.get("Accept") != "application/sdp" {
		t.Errorf("415 with Accept %q", r.get("Accept"))
	}
	callee.quiet(20 * time.Millisecond)
}

func multipart(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	inv := caller.invite(callee.number).set("Content-Type", "multipart/mixed;boundary=\"b 1\"")
	inv.body = "--b 1\r\nContent-Type: application/isup\r\n\r\n\x01\x02\x00\r\n--b 1\r\nContent-Type: application/sdp\r\n\r\n" + caller.sdp(plain) + "\r\n--b 1--\r\n"
	caller.send(inv)
	got := callee.take()
	if got.get("Content-Type") != "application/sdp" || !strings.HasPrefix(got.body, "v=0\r\n") {
		t.Errorf("the callee was offered:\n%s", got.raw)
	}
	callee.answer(got)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}
