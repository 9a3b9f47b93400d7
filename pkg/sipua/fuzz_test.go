package sipua

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FuzzReceive gives a stack one datagram after another: it must never panic, and
// each datagram gets a defined answer or a defined drop (S19).
func FuzzReceive(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(tortureDir(f), "*", "*.dat"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	s, sent := deaf(f)
	src := netip.MustParseAddrPort("127.0.0.2:5070")
	f.Fuzz(func(t *testing.T, data []byte) {
		before, n := s.Stats(), len(sent())
		s.receive(data, src)
		after, answers := s.Stats(), sent()[n:]
		requests := uint64(0)
		for m := range after.Requests {
			requests += after.Requests[m].In - before.Requests[m].In
		}
		trimmed := bytes.TrimLeft(data, "\r\n")
		switch {
		case len(trimmed) == 0:
			if len(answers) > 0 {
				t.Error("a keep-alive was answered")
			}
		case after.ParseErrors > before.ParseErrors || after.Strays > before.Strays:
			// Dropped, or refused at once.
		case requests == 1:
			ack := bytes.HasPrefix(trimmed, []byte(methodACK+" "))
			if len(answers) == 0 && !ack && after.Retransmissions.In == before.Retransmissions.In {
				t.Error("a request was not answered")
			}
		default:
			if after.Legs == before.Legs && after.Retransmissions.In == before.Retransmissions.In {
				t.Error("nothing was counted")
			}
		}
		for _, a := range answers {
			// What we send has to be what we would take, if it echoes nothing malformed.
			head, _, ok := strings.Cut(a, "\r\n\r\n")
			if !ok || !strings.HasPrefix(head, "SIP/2.0 ") {
				t.Errorf("malformed answer %q", a)
			}
		}
	})
}

// FuzzResponse does the same with the responses to an INVITE of ours: the fuzzer
// writes what follows the fields that match it to the transaction.
func FuzzResponse(f *testing.F) {
	f.Add("200 OK", "Contact: <sip:a@127.0.0.2>\r\nRecord-Route: <sip:127.0.0.3;lr>\r\n", ";tag=1", "v=0\r\n")
	f.Add("183 Progress", "Content-Type: multipart/mixed;boundary=x\r\n", ";tag=2", "--x\r\n\r\n--x--")
	f.Add("486 Busy", "Reason: Q.850;cause=17\r\nRetry-After: 9999999999999999999\r\n", "", "")
	f.Add("100 Trying", "", "", "")
	f.Fuzz(func(t *testing.T, status, fields, tag, body string) {
		s, sent := deaf(t)
		p := &peer{}
		l, err := s.dial(netip.MustParseAddrPort("127.0.0.2:5060"), &sampleInvite)
		if err != nil {
			t.Fatal(err)
		}
		invite, flaw := parse([]byte(sent()[0]), s.addr)
		if flaw != nil {
			t.Fatal(flaw)
		}
		text := p.answer(invite, 200, "", "")
		text = strings.Replace(text, "200 Some Phrase", status, 1)
		text = strings.Replace(text, "\r\nCall-ID", tag+"\r\n"+fields+"Call-ID", 1)
		text = strings.Replace(text, "Content-Length: 0\r\n\r\n", "\r\n"+body, 1)
		for range 2 {
			s.receive([]byte(text), netip.MustParseAddrPort("127.0.0.2:5060"))
		}
		l.(*leg).abandon()
		for _, a := range sent() {
			if _, flaw := parse([]byte(a), s.addr); flaw != nil {
				t.Errorf("we sent what we would not take (%s): %q", flaw.phrase, a)
			}
		}
	})
}
