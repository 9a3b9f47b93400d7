package e2e

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

var hostileScenarios = []scenario{
	{"S19 the 50 messages of RFC 4475", torture},
	{"S19 datagrams that are not SIP", junk},
	{"S19 responses that nobody asked for", strays},
	{"S19 requests of the wrong dialog", forged},
}

// alive makes a good call.
func alive(t *testing.T, s *stage) {
	t.Helper()
	caller, callee := s.call(t)
	caller.hangUp(callee)
}

// What each message is answered is checked in package sipua; here the daemon has to
// live through all of them, from both sides, and serve the next call.
func torture(t *testing.T, s *stage) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/emiago/sipgo").Output()
	if err != nil {
		t.Fatalf("finding sipgo's module: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "sip", "testdata", "torture", "*", "*.dat"))
	if err != nil || len(files) != 50 {
		t.Fatalf("%d messages, want 50 (%v)", len(files), err)
	}
	for _, host := range []string{netlab.Platform, netlab.CarrierA} {
		p := s.caller(t, host)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p.sendRaw(data)
			// Each also torn and with its end repeated.
			p.sendRaw(data[:len(data)/2])
			p.sendRaw(append(bytes.Clone(data), data[len(data)/2:]...))
		}
		p.callID = "after-" + p.callID
		p.send(p.outside("OPTIONS", ""))
		for m := p.next(patience); ; m = p.next(patience) {
			if m == nil {
				t.Fatal("the daemon does not answer any more")
			}
			if m.get("Call-ID") == p.callID {
				break
			}
		}
	}
	alive(t, s)
}

func junk(t *testing.T, s *stage) {
	p := s.caller(t, netlab.Platform)
	inv := string(p.invite("+49891").bytes())
	for _, text := range []string{
		"\r\n\r\n", "\x00", "\r\n", strings.Repeat("\xff", 1400), "GET / HTTP/1.1\r\n\r\n", "INVITE", "INVITE sip:x SIP/2.0", "SIP/2.0", "SIP/2.0 200 OK\r\n\r\n",
		strings.Repeat("a", 60000), "INVITE sip:x SIP/2.0\r\n" + strings.Repeat("X: y\r\n", 9000) + "\r\n",
		"INVITE sip:x SIP/2.0\r\n" + strings.Repeat(" folded\r\n", 5000),
		strings.Replace(inv, "Content-Length: ", "Content-Length: 999999999999999999999", 1),
		strings.Replace(inv, "Content-Length: ", "Content-Length: -", 1),
		strings.Replace(inv, "CSeq: 1", "CSeq: 4294967296", 1),
		strings.Replace(inv, "Call-ID", "X-ID", 1), strings.Replace(inv, "From:", "Frm:", 1), strings.Replace(inv, "To:", "Toto:", 1),
		strings.Replace(inv, "Via:", "Vvia:", 1), strings.Replace(inv, "branch=", "branch", 1),
		strings.Replace(inv, "Contact:", "Contact: <sip:a@b>\r\nContact:", 1),
	} {
		p.sendRaw([]byte(text))
	}
	alive(t, s)
}

// strays answers what was never sent, with the branch of something that was.
func strays(t *testing.T, s *stage) {
	caller, callee := s.pair(t)
	caller.send(caller.invite(callee.number))
	inv := callee.take()
	for _, change := range []func(*message) *message{
		func(m *message) *message {
			return m.set("Via", "SIP/2.0/UDP "+callee.gateway.String()+";branch=z9hG4bKnever")
		},
		func(m *message) *message { return m.set("Call-ID", "another") },
		func(m *message) *message { return m.set("From", "<sip:x@y>;tag=another") },
		func(m *message) *message { return m.set("CSeq", "1 BYE") },
		func(m *message) *message { return m.add("Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKnext") },
	} {
		callee.send(change(callee.respond(inv, 200)).with(callee.sdp()))
	}
	callee.send(callee.respond(inv, 180))
	caller.expect("180 INVITE")
	callee.answer(inv)
	caller.established()
	callee.expect("ACK")
	caller.hangUp(callee)
}

// forged sends requests into somebody else's call; it goes on.
func forged(t *testing.T, s *stage) {
	caller, callee := s.call(t)
	other := s.caller(t, netlab.Platform)
	for _, change := range []func(*message) *message{
		func(m *message) *message { return m.set("From", "<sip:x@y>;tag=guess") },
		func(m *message) *message { return m.set("To", "<sip:x@y>;tag=guess") },
		func(m *message) *message { return m.set("Call-ID", callee.callID) },
	} {
		m := caller.within("BYE")
		m.set("Via", fmt.Sprintf("SIP/2.0/UDP %s;branch=z9hG4bK-forged-%d", netip.AddrPortFrom(other.self.Addr(), other.self.Port()), caller.cseq))
		other.send(change(m))
		other.expect("481 BYE")
	}
	callee.quiet(20 * time.Millisecond)
	caller.heard()
	caller.hangUp(callee)
}
