package sipua

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var sampleInvite = call.Invite{
	Number: "+4930123", From: call.Party{Display: "Alice", User: "+4989555"}, To: call.Party{User: "+4930123"},
	MaxForwards: 69, Body: []byte("v=0\r\n"),
}

// BenchmarkParse reads a typical INVITE.
func BenchmarkParse(b *testing.B) {
	text := []byte(strings.Join([]string{
		"INVITE sip:+4930123@192.0.2.2:5060 SIP/2.0",
		"Via: SIP/2.0/UDP 192.0.2.10:5060;rport;branch=z9hG4bKPj1b2c3d4e5f",
		"Record-Route: <sip:192.0.2.10;lr;did=1a2.3b4>",
		"Max-Forwards: 70",
		`From: "Alice" <sip:+4989555@192.0.2.10>;tag=a1b2c3d4`,
		"To: <sip:+4930123@192.0.2.2>",
		"Call-ID: 5d4c3b2a1@192.0.2.10",
		"CSeq: 20911 INVITE",
		"Contact: <sip:alice@192.0.2.10:5060;alias=1>",
		"Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, INFO, REFER, NOTIFY",
		"Supported: replaces, norefersub",
		"User-Agent: bench",
		`P-Asserted-Identity: "Alice" <sip:+4989555@192.0.2.10>`,
		"Content-Type: application/sdp",
		"Content-Length: 5", "", "v=0\r\n",
	}, "\r\n"))
	src := netip.MustParseAddrPort("192.0.2.10:5060")
	b.ReportAllocs()
	for b.Loop() {
		if _, f := parse(text, src); f != nil {
			b.Fatal(f)
		}
	}
}

// BenchmarkCall is the signalling of one leg, INVITE to BYE, without sockets.
func BenchmarkCall(b *testing.B) {
	s, sent := deaf(b)
	src := netip.MustParseAddrPort("127.0.0.2:5060")
	p := &peer{}
	last := func() *message {
		all := sent()
		m, f := parse([]byte(all[len(all)-1]), s.addr)
		if f != nil {
			b.Fatal(f)
		}
		return m
	}
	b.ReportAllocs()
	for b.Loop() {
		s.transmit = captureLast(&sent)
		l, err := s.dial(src, &sampleInvite)
		if err != nil {
			b.Fatal(err)
		}
		invite := last()
		s.receive([]byte(p.answer(invite, 180, "callee", "")), src)
		<-l.Events()
		s.receive([]byte(p.answer(invite, 200, "callee", "v=0", "Contact: <sip:callee@127.0.0.2>")), src)
		<-l.Events()
		if err := l.Ack(nil); err != nil {
			b.Fatal(err)
		}
		l.(*leg).mu.Lock()
		l.(*leg).hangUp(hangup)
		l.(*leg).mu.Unlock()
		s.receive([]byte(p.answer(last(), 200, "", "")), src)
	}
}

// captureLast keeps only the last message, so that a benchmark does not measure its log.
func captureLast(sent *func() []string) func([]byte, netip.AddrPort) error {
	var text string
	*sent = func() []string { return []string{text} }
	return func(msg []byte, _ netip.AddrPort) error {
		text = string(msg)
		return nil
	}
}
