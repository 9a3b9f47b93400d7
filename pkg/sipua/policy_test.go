package sipua

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// What is asked of us outside a dialog, and the answer (S2, S3, S19).
func TestScreen(t *testing.T) {
	r := newRig(t)
	p := r.peer("127.0.0.2")
	loop := fmt.Sprintf("Via: SIP/2.0/UDP 10.0.0.1;branch=z9hG4bK1, SIP/2.0/UDP %s;branch=z9hG4bKours", r.stack.Addr())
	multipart := func(kind string) string {
		return "--b\r\nContent-Type: text/plain\r\n\r\nhi\r\n--b\r\nc : " + kind + "\r\n\r\nv=0\r\n--b--\r\n"
	}
	for _, tc := range []struct {
		name, method, body string
		extra              []string
		edit               []string // old, new
		status             string
		field              string
	}{
		{name: "OPTIONS", method: "OPTIONS", status: "200", field: "Allow: " + allowed},
		{name: "OPTIONS says what it accepts", method: "OPTIONS", status: "200", field: "Accept: application/sdp"},
		{name: "INFO", method: "INFO", status: "200"},
		{name: "SUBSCRIBE", method: "SUBSCRIBE", status: "405", field: "Allow: " + allowed},
		{name: "MESSAGE", method: "MESSAGE", status: "405"},
		{name: "UPDATE", method: "UPDATE", status: "405"},
		{name: "PRACK", method: "PRACK", status: "405"},
		{name: "PUBLISH", method: "PUBLISH", status: "405"},
		{name: "REGISTER", method: "REGISTER", status: "405"},
		{name: "unknown method", method: "FROBNICATE", status: "501", field: "Allow: " + allowed},
		{name: "method in lower case is another", method: "invite", status: "501"},
		{name: "REFER", method: "REFER", status: "603"},
		{name: "NOTIFY", method: "NOTIFY", status: "481"},
		{name: "BYE of nothing", method: "BYE", status: "481"},
		{name: "no more hops", method: "INVITE", edit: []string{"Max-Forwards: 70", "Max-Forwards: 0"}, status: "483"},
		{name: "OPTIONS with no more hops ends here", method: "OPTIONS", edit: []string{"Max-Forwards: 70", "Max-Forwards: 0"}, status: "200"},
		{name: "loop", method: "INVITE", extra: []string{loop}, status: "482"},
		{name: "extension", method: "INVITE", extra: []string{"Require: 100rel", "Require: timer"}, status: "420", field: "Unsupported: 100rel, timer"},
		{name: "extension of proxies", method: "OPTIONS", extra: []string{"Proxy-Require: foo"}, status: "200"},
		{name: "body without type", method: "INVITE", body: "x", edit: []string{"Content-Type", "X"}, status: "400"},
		{name: "body of another type", method: "INVITE", body: "x", edit: []string{"application/sdp", "application/isup"}, status: "415", field: "Accept: application/sdp"},
		{name: "multipart without SDP", method: "INVITE", body: multipart("application/isup"), edit: []string{"application/sdp", `multipart/mixed;boundary="b"`}, status: "415"},
		{name: "encoded body", method: "INVITE", body: "x", extra: []string{"Content-Encoding: gzip"}, status: "415", field: "Accept-Encoding: identity"},
		{name: "wants no SDP", method: "INVITE", extra: []string{"Accept: text/plain, text/html"}, status: "406"},
		{name: "no Contact", method: "INVITE", edit: []string{"Contact:", "X-Contact:"}, status: "400"},
		{name: "Contact of another scheme", method: "INVITE", edit: []string{"Contact: <sip:", "Contact: <http:"}, status: "400"},
		{name: "another scheme", method: "OPTIONS", edit: []string{"OPTIONS sip:", "OPTIONS http:"}, status: "416"},
		{name: "sips needs TLS", method: "OPTIONS", edit: []string{"OPTIONS sip:", "OPTIONS sips:"}, status: "416"},
		{name: "version", method: "OPTIONS", edit: []string{" SIP/2.0\r\nVia", " SIP/3.0\r\nVia"}, status: "505"},
		{name: "long Request-URI", method: "OPTIONS", edit: []string{"sip:+4930123@", "sip:" + strings.Repeat("9", 3000) + "@"}, status: "414"},
		{name: "many headers", method: "OPTIONS", extra: []string{strings.Repeat("X: y\r\n", 600) + "X: y"}, status: "513"},
		{name: "one header on many lines", method: "OPTIONS", extra: []string{"X: y" + strings.Repeat("\r\n y", 10000)}, status: "513"},
		{name: "long body", method: "INVITE", body: strings.Repeat("x", 40000), status: "413"},
		{name: "UPDATE in a dialog", method: "UPDATE", edit: []string{"To: <sip:+4930123@127.0.0.1>", "To: <sip:x@y>;tag=1"}, status: "405"},
		{name: "INVITE in an unknown dialog", method: "INVITE", edit: []string{"To: <sip:+4930123@127.0.0.1>", "To: <sip:x@y>;tag=1"}, status: "481"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.t = t
			c := p.caller()
			text := c.request(tc.method, tc.body, tc.extra...)
			if tc.edit != nil {
				edited := strings.Replace(text, tc.edit[0], tc.edit[1], 1)
				if edited == text {
					t.Fatal("nothing to edit")
				}
				text = edited
			}
			c.send(text)
			m := c.want(tc.status)
			name, want, _ := strings.Cut(tc.field, ": ")
			found := tc.field == ""
			for _, f := range m.fields {
				found = found || f.name == name && f.value == want
			}
			if !found || m.toTag == "" {
				t.Errorf("tag %q, fields %v, want %s", m.toTag, m.fields, tc.field)
			}
			// A retransmission gets the very same answer, tag included.
			c.send(text)
			if b := c.read(patience); c.seen[string(b)] != 2 {
				t.Errorf("another answer the second time: %s", b)
			}
		})
	}
	if st := r.stack.Stats(); st.Legs != 0 || st.Transactions != 0 {
		t.Errorf("%d legs, %d transactions kept", st.Legs, st.Transactions)
	}
}

// T5: REGISTER requests of a source that has a limit are counted, each once however often it is
// repeated; within the limit they get what S3 says, beyond it 503 with Retry-After, in whole
// seconds and not longer than an hour. A source without a limit leaves nothing behind.
func TestRegister(t *testing.T) {
	// The next answers; a limit is asked on the reader's goroutine.
	waits := make(chan time.Duration, 16)
	var asked atomic.Int32
	r := newRigIn(t, here, func(c *Config) {
		c.Register = func(src netip.Addr) (time.Duration, bool) {
			if src != netip.MustParseAddr("127.0.0.2") {
				return 0, false
			}
			asked.Add(1)
			return <-waits, true
		}
	})
	p := r.peer("127.0.0.2")
	again := func(c *caller, text string) {
		t.Helper()
		c.send(text)
		if b := c.read(patience); c.seen[string(b)] != 2 {
			t.Errorf("another answer the second time: %s", b)
		}
	}
	for _, row := range []struct {
		wait       time.Duration
		status     string
		retryAfter string
	}{
		{0, "405", ""},
		{1, "503", "1"},
		{time.Second, "503", "1"},
		{6100 * time.Millisecond, "503", "7"},
		{24 * time.Hour, "503", "3600"},
		{0, "405", ""},
	} {
		c := p.caller()
		text := c.request(methodRegister, "")
		before := asked.Load()
		waits <- row.wait
		c.send(text)
		m := c.want(row.status)
		if got := m.value(fRetryAfter); got != row.retryAfter || m.toTag == "" {
			t.Errorf("to wait %s: Retry-After %q, want %q; tag %q", row.wait, got, row.retryAfter, m.toTag)
		}
		if row.wait > 0 {
			waits <- row.wait // a refused one asks again
			again(c, text)
			continue
		}
		if !slices.ContainsFunc(m.fields, func(f field) bool { return f.name == "Allow" && f.value == allowed }) {
			t.Errorf("405 without Allow: %v", m.fields)
		}
		again(c, text)
		if n := asked.Load() - before; n != 1 {
			t.Errorf("a request and its repetition were counted %d times", n)
		}
	}
	kept := r.stack.Stats().Transactions
	if kept != 2 {
		t.Errorf("%d transactions, want those of the 2 that were let in", kept)
	}
	free := r.peer("127.0.0.3").caller()
	for range 3 {
		text := free.next().request(methodRegister, "")
		free.send(text)
		free.want("405")
		again(free, text)
	}
	if st := r.stack.Stats(); st.Transactions > kept || st.Legs != 0 {
		t.Errorf("%d transactions and %d legs are kept", st.Transactions, st.Legs)
	}
}

// In a dialog INFO is 405 (document 001 section 2.5.4), REFER is declined, NOTIFY
// has no subscription, OPTIONS is answered; the call goes on.
func TestRequestsInDialog(t *testing.T) {
	r := newRig(t)
	c, l := r.establish(r.peer("127.0.0.2"))
	for method, status := range map[string]string{"INFO": "405", "UPDATE": "405", "REFER": "603", "NOTIFY": "481", "OPTIONS": "200", "FOO": "501"} {
		c.send(c.next().request(method, ""))
		c.want(status)
	}
	noEvent(t, l)
	c.send(c.next().request(methodBye, ""))
	c.want("200")
	event[call.Ended](t, l)
}

// The same request on two ways is a merged one: 482 for the second (RFC 3261
// section 8.2.2.2); a retransmission is not.
func TestMergedRequest(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	first := c.request(methodInvite, "offer")
	c.send(first)
	in := r.inboundLeg()
	c.branch += "fork"
	c.send(c.request(methodInvite, "offer"))
	c.want("482")
	c.send(first)
	if err := in.leg.Reject(call.Rejection{Code: 486}); err != nil {
		t.Fatal(err)
	}
	c.want("486")
	select {
	case <-r.in:
		t.Error("a second call")
	default:
	}
}

// SDP inside multipart/mixed is found (RFC 5621).
func TestMultipart(t *testing.T) {
	r := newRig(t)
	c := r.peer("127.0.0.2").caller()
	body := "preamble\r\n--x y\r\nContent-Type: application/isup\r\n\r\n\x00\x01\r\n--x y\r\nContent-Type: Application/SDP;v=1\r\n" +
		"Content-Disposition: session\r\n\r\nv=0\r\ns=-\r\n\r\n--x y--\r\n"
	c.send(strings.Replace(c.request(methodInvite, body), "application/sdp", `multipart/mixed; boundary="x y"`, 1))
	if got := string(r.inboundLeg().invite.Body); got != "v=0\r\ns=-\r\n" {
		t.Errorf("got %q", got)
	}
}

// A source that is no peer gets no answer and costs no parsing (S13). Keep-alives
// of peers get none either.
func TestUnknownSource(t *testing.T) {
	r := newRig(t)
	p, stranger := r.peer("127.0.0.2"), r.peer("127.0.0.99")
	stranger.send(stranger.caller().request(methodOptions, ""))
	p.send("\r\n\r\n")
	p.send("\x00")
	c := p.caller()
	c.send(c.request(methodOptions, ""))
	c.want("200")
	stranger.silence(2 * testT1)
	if st := r.stack.Stats(); st.UnknownSources != 1 || st.ParseErrors != 1 || st.Requests["OPTIONS"].In != 1 {
		t.Errorf("counted %+v", st)
	}
}

// Responses go where RFC 3261 section 18.2.2 and RFC 3581 say.
func TestReplyTo(t *testing.T) {
	r := newRig(t)
	from, to := r.peer("127.0.0.2"), r.peer("127.0.0.2")
	c := from.caller()
	text := c.request(methodOptions, "")
	plain := strings.Replace(text, fmt.Sprintf("%s;branch=%s;rport", from.addr(), c.branch), fmt.Sprintf("%s;branch=%s", to.addr(), c.branch), 1)
	c.send(plain)
	if m := to.want("200"); strings.Contains(m.via.Text, "received") {
		t.Errorf("Via %q", m.via.Text)
	}
	from.silence(testT1)
}

// Limits of Config.
func TestConfigCheck(t *testing.T) {
	good := Config{Listen: netip.MustParseAddrPort("127.0.0.1:0"), Peer: func(netip.Addr) PeerKind { return 0 },
		Handler: handler(nil), Log: quiet}
	for name, spoil := range map[string]func(*Config){
		"unspecified address": func(c *Config) { c.Listen = netip.MustParseAddrPort("0.0.0.0:5060") },
		"IPv6":                func(c *Config) { c.Listen = netip.MustParseAddrPort("[::1]:5060") },
		"DSCP":                func(c *Config) { c.DSCP = 64 },
		"no handler":          func(c *Config) { c.Handler = nil },
		"no such device":      func(c *Config) { c.Device = "tdmnone0" },
		"not our address":     func(c *Config) { c.Listen = netip.MustParseAddrPort("192.0.2.1:5060") },
	} {
		cfg := good
		spoil(&cfg)
		if s, err := Listen(cfg); err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Close()
		}
	}
	s, err := Listen(good)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Dial(call.Target{Addr: s.Addr()}, call.Invite{}); err == nil {
		t.Error("Dial on a closed stack is no error")
	}
	if _, err := s.Dial(call.Target{Transport: "tls"}, call.Invite{}); err == nil {
		t.Error("Dial over TLS is no error")
	}
}
