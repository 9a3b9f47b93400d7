package resolve

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// TestSRV: the whole set of a name counts, with priorities and weights, the service by
// the trunk's transport (T9, RFC 3263 section 4).
func TestSRV(t *testing.T) {
	s := serveDNS(
		t,
		"_sip._udp.example.com. 60 IN SRV 10 60 5060 a.example.com.",
		"_sip._udp.example.com. 60 IN SRV 10 40 5062 b.example.com.",
		"_sip._udp.example.com. 60 IN SRV 20 0 5060 C.Example.com.",
		"_sip._tcp.example.com. 60 IN SRV 0 0 5070 a.example.com.",
		"_sips._tcp.example.com. 60 IN SRV 0 0 5071 a.example.com.",
		"a.example.com. 30 IN A 192.0.2.1",
		"a.example.com. 300 IN A 192.0.2.2",
		"b.example.com. 300 IN A 192.0.2.3",
		"c.example.com. 300 IN A 192.0.2.4",
	)
	f, err := lookup(t, testConfig(s), "example.com", UDP)
	if err != nil {
		t.Fatal(err)
	}
	want := []Endpoint{
		{ap("192.0.2.1:5060"), "a.example.com", 10, 60},
		{ap("192.0.2.2:5060"), "a.example.com", 10, 60},
		{ap("192.0.2.3:5062"), "b.example.com", 10, 40},
		{ap("192.0.2.4:5060"), "c.example.com", 20, 0},
	}
	if diff := cmp.Diff(want, f.set.endpoints, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Errorf("targets (-want +got):\n%s", diff)
	}
	if f.ttl != 30*time.Second {
		t.Errorf("the shortest TTL is 30s, not %s", f.ttl)
	}
	for via, want := range map[Transport]string{TCP: "192.0.2.1:5070 192.0.2.2:5070", TLS: "192.0.2.1:5071 192.0.2.2:5071"} {
		if f, err := lookup(t, testConfig(s), "example.com", via); err != nil || f.set.String() != want {
			t.Errorf("%s: %s, %v; want %s", via, f.set, err, want)
		}
	}
}

// TestAddressFallback: without SRV records the addresses count, with the default port;
// a port that is written says to ask for addresses only (RFC 3263 section 4.2).
func TestAddressFallback(t *testing.T) {
	s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1", "a.example.com. 60 IN A 192.0.2.2", "a.example.com. 60 IN AAAA 2001:db8::1")
	for _, tt := range []struct {
		target string
		via    Transport
		want   string
		asked  []string
	}{
		{"a.example.com", UDP, "192.0.2.1:5060 192.0.2.2:5060", []string{"udp SRV _sip._udp.a.example.com.", "udp A a.example.com."}},
		{"a.example.com", TLS, "192.0.2.1:5061 192.0.2.2:5061", []string{"udp SRV _sips._tcp.a.example.com.", "udp A a.example.com."}},
		{"A.example.com:5080", UDP, "192.0.2.1:5080 192.0.2.2:5080", []string{"udp A a.example.com."}},
	} {
		f, err := lookup(t, testConfig(s), tt.target, tt.via)
		if err != nil || f.set.String() != tt.want {
			t.Errorf("%s: %s, %v; want %s", tt.target, f.set, err, tt.want)
		}
		if asked := s.questions(); !slices.Equal(asked, tt.asked) {
			t.Errorf("%s: asked %q, want %q", tt.target, asked, tt.asked)
		}
	}
}

// TestDenied: that there is nothing is an answer, and no failure of DNS.
func TestDenied(t *testing.T) {
	s := serveDNS(
		t,
		"v6.example.com. 60 IN AAAA 2001:db8::1",
		"_sip._udp.gone.example.com. 60 IN SRV 0 0 0 .",
		"gone.example.com. 60 IN A 192.0.2.1",
		"_sip._udp.hollow.example.com. 60 IN SRV 0 0 5060 v6.example.com.",
		"_sip._udp.portless.example.com. 60 IN SRV 0 0 0 gone.example.com.",
		"odd.example.com. 60 IN A 224.0.0.1",
		"odd.example.com. 60 IN A 0.0.0.0",
	)
	for target, want := range map[string]error{
		"nobody.example.com":   errNoSuchName,
		"v6.example.com":       errNoAddress,
		"odd.example.com":      errNoAddress,
		"gone.example.com":     errWithdrawn,
		"hollow.example.com":   errNoAddress,
		"portless.example.com": errNoAddress,
	} {
		if f, err := lookup(t, testConfig(s), target, UDP); err != nil || !errors.Is(f.denied, want) || f.set.Len() > 0 {
			t.Errorf("%s: %s, denied: %v, error: %v; want %v", target, f.set, f.denied, err, want)
		}
	}
}

// TestAliases: CNAME records are followed, also by ourselves where the server does not,
// and a loop ends.
func TestAliases(t *testing.T) {
	s := serveDNS(
		t,
		"_sip._udp.www.example.com. 60 IN CNAME _sip._udp.example.com.",
		"_sip._udp.example.com. 60 IN SRV 1 1 5060 one.example.com.",
		"one.example.com. 20 IN CNAME two.example.com.",
		"two.example.com. 60 IN A 192.0.2.1",
		"loop.example.com. 60 IN CNAME pool.example.com.",
		"pool.example.com. 60 IN CNAME loop.example.com.",
		"dangling.example.com. 60 IN CNAME nobody.example.com.",
		`odd.example.com. 60 IN CNAME \027[2J.example.com.`,
	)
	check := func(kind string) {
		f, err := lookup(t, testConfig(s), "www.example.com", UDP)
		if err != nil || f.set.String() != "192.0.2.1:5060" || f.set.At(0).Host != "one.example.com" || f.ttl != 20*time.Second {
			t.Errorf("%s: %s for %s, %v", kind, f.set, f.ttl, err)
		}
		if f, err := lookup(t, testConfig(s), "dangling.example.com", UDP); err != nil || !errors.Is(f.denied, errNoSuchName) {
			t.Errorf("%s: dangling: %v, %v", kind, f.denied, err)
		}
		if _, err := lookup(t, testConfig(s), "loop.example.com:5060", UDP); !errors.Is(err, errAliases) {
			t.Errorf("%s: a loop: %v", kind, err)
		}
		if _, err := lookup(t, testConfig(s), "odd.example.com:5060", UDP); err == nil || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: an alias that nobody has: %v", kind, err)
		}
	}
	check("recursive server")
	s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool { // one alias at a time
		reply := s.answer(q)
		if len(reply.Answer) > 1 && reply.Answer[0].Header().Rrtype == dns.TypeCNAME {
			reply.Answer = reply.Answer[:1]
			reply.Rcode = dns.RcodeSuccess
		}
		_ = w.WriteMsg(reply)
		return true
	})
	check("authoritative server")
}

// TestTruncation: an answer beyond a datagram comes by TCP, and a set is bounded.
func TestTruncation(t *testing.T) {
	var zone []string
	for i := range 100 {
		zone = append(zone, fmt.Sprintf("_sip._udp.big.example.com. 60 IN SRV %d 1 5060 a%d.with-a-long-name.big.example.com.", 100-i, i),
			fmt.Sprintf("a%d.with-a-long-name.big.example.com. 60 IN A 192.0.2.%d", i, i+1))
	}
	s := serveDNS(t, zone...)
	f, err := lookup(t, testConfig(s), "big.example.com", UDP)
	if err != nil || f.set.Len() != maxEndpoints || f.set.At(0).Addr != ap("192.0.2.100:5060") {
		t.Fatalf("%d targets, first %s, %v", f.set.Len(), f.set, err)
	}
	if asked := s.questions(); !slices.Contains(asked, "tcp SRV _sip._udp.big.example.com.") {
		t.Errorf("asked %q", asked)
	}
}

// TestServersInTurn: a server that is dead or refuses is left for the next one, and the
// one that answered is asked first from then on.
func TestServersInTurn(t *testing.T) {
	for kind, bad := range map[string]func(dns.ResponseWriter, *dns.Msg) bool{
		"silent":    silent,
		"SERVFAIL":  refuse(dns.RcodeServerFailure),
		"REFUSED":   refuse(dns.RcodeRefused),
		"malformed": func(w dns.ResponseWriter, _ *dns.Msg) bool { _, _ = w.Write([]byte("hello")); return true },
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dead, good := serveDNS(t), serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
			dead.instead(bad)
			cfg := testConfig(dead, good)
			cfg.Timeout = 2 * time.Second
			c := New(cfg, Options{}).client
			for range 2 {
				if f, err := asker(c.ask).find(t.Context(), mustTarget(t, "a.example.com"), UDP, Set{}); err != nil || f.set.Len() != 1 {
					t.Fatalf("%s, %v", f.set, err)
				}
			}
			if asked := dead.questions(); len(asked) != 1 {
				t.Errorf("the bad server was asked %d times: %q", len(asked), asked)
			}
		})
	}
	t.Run("all dead", func(t *testing.T) {
		dead := serveDNS(t)
		dead.instead(silent)
		cfg := testConfig(dead)
		cfg.Timeout = 100 * time.Millisecond
		_, err := lookup(t, cfg, "a.example.com:5060", UDP)
		if !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), dead.addr) {
			t.Errorf("the error has to name the server and the reason: %v", err)
		}
		if asked := dead.questions(); len(asked) != 2 {
			t.Errorf("%d attempts, want 2", len(asked))
		}
	})
}

// TestForeignAnswers: only the answer to the question counts (RFC 5452), whatever else
// comes from the server's address.
func TestForeignAnswers(t *testing.T) {
	poison, err := dns.NewRR("a.example.com. 60 IN A 203.0.113.66")
	if err != nil {
		t.Fatal(err)
	}
	forge := func(q *dns.Msg, change func(*dns.Msg)) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{poison}
		change(m)
		return m
	}
	s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
	s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
		_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Id++ }))
		_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Question[0].Name = "b.example.com." }))
		_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA }))
		_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Question = nil }))
		_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Response = false }))
		_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }))
		return false
	})
	if f, err := lookup(t, testConfig(s), "a.example.com:5060", UDP); err != nil || f.set.String() != "192.0.2.1:5060" {
		t.Errorf("%s, %v", f.set, err)
	}
	t.Run("a flood of them ends in TCP", func(t *testing.T) {
		s.questions()
		s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
			if w.LocalAddr().Network() == "tcp" {
				return false
			}
			for range 2 * maxForeign {
				_ = w.WriteMsg(forge(q, func(m *dns.Msg) { m.Id++ }))
			}
			return true
		})
		if f, err := lookup(t, testConfig(s), "a.example.com:5060", UDP); err != nil || f.set.String() != "192.0.2.1:5060" {
			t.Errorf("%s, %v", f.set, err)
		}
		if asked := s.questions(); !slices.Contains(asked, "tcp A a.example.com.") {
			t.Errorf("asked %q", asked)
		}
	})
	t.Run("records of other names", func(t *testing.T) {
		s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
			m := s.answer(q)
			other, _ := dns.NewRR("b.example.com. 60 IN A 203.0.113.66")
			m.Answer, m.Extra = append(m.Answer, other), append(m.Extra, poison)
			_ = w.WriteMsg(m)
			return true
		})
		if f, err := lookup(t, testConfig(s), "a.example.com:5060", UDP); err != nil || f.set.String() != "192.0.2.1:5060" {
			t.Errorf("%s, %v", f.set, err)
		}
	})
}

// TestUnforeseeable: each question has its own id and port (RFC 5452 section 9.2).
func TestUnforeseeable(t *testing.T) {
	s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
	type source struct {
		id   uint16
		port string
	}
	sources := make(chan source, 20)
	s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
		sources <- source{q.Id, w.RemoteAddr().String()}
		return false
	})
	ids, ports := make(map[uint16]bool), make(map[string]bool)
	for range cap(sources) {
		if _, err := lookup(t, testConfig(s), "a.example.com:5060", UDP); err != nil {
			t.Fatal(err)
		}
		from := <-sources
		ids[from.id], ports[from.port] = true, true
	}
	if len(ids) < cap(sources)-2 || len(ports) < cap(sources)-2 { // two may meet by chance
		t.Errorf("%d questions had %d ids and %d ports", cap(sources), len(ids), len(ports))
	}
}

// TestNoEDNS: a server from before EDNS is asked the old way (RFC 6891 section 7).
func TestNoEDNS(t *testing.T) {
	s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
	for kind, refusal := range map[string]func(q *dns.Msg) *dns.Msg{
		"with the question":    func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeFormatError) },
		"without the question": func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcodeFormatError(q) },
	} {
		s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
			if q.IsEdns0() == nil {
				return false
			}
			m := refusal(q)
			if kind == "without the question" {
				m.Question = nil
			}
			_ = w.WriteMsg(m)
			return true
		})
		if f, err := lookup(t, testConfig(s), "a.example.com:5060", UDP); err != nil || f.set.Len() != 1 {
			t.Errorf("%s: %s, %v", kind, f.set, err)
		}
	}
}

// TestPartOfAnSRVSet: a host of which nothing is known does not take the others away, and
// its last known addresses stay.
func TestPartOfAnSRVSet(t *testing.T) {
	s := serveDNS(
		t,
		"_sip._udp.example.com. 300 IN SRV 10 1 5060 a.example.com.",
		"_sip._udp.example.com. 300 IN SRV 20 1 5060 b.example.com.",
		"a.example.com. 300 IN A 192.0.2.1",
	)
	s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
		return q.Question[0].Name == "b.example.com." && refuse(dns.RcodeServerFailure)(w, q)
	})
	ask := asker(New(testConfig(s), Options{}).client.ask)
	f, err := ask.find(t.Context(), mustTarget(t, "example.com"), UDP, Set{})
	if err != nil || f.set.String() != "192.0.2.1:5060" || f.missing == nil {
		t.Errorf("%s, missing: %v, %v", f.set, f.missing, err)
	}
	last := newSet([]Endpoint{{ap("192.0.2.7:5062"), "b.example.com", 1, 2}, {ap("192.0.2.8:5060"), "gone.example.com", 1, 2}})
	f, err = ask.find(t.Context(), mustTarget(t, "example.com"), UDP, last)
	if err != nil || f.set.String() != "192.0.2.1:5060 192.0.2.7:5060" || f.set.At(1).Priority != 20 {
		t.Errorf("%+v, %v", f.set, err)
	}
}

// TestSockets: the config's servers are asked through the realm, those of the host's
// resolv.conf the host's way.
func TestSockets(t *testing.T) {
	s := serveDNS(t, "a.example.com. 60 IN A 192.0.2.1")
	var hooked []string
	o := Options{
		Local: netip.MustParseAddr("127.0.0.9"),
		Control: func(network, _ string, _ syscall.RawConn) error {
			hooked = append(hooked, network)
			return nil
		},
	}
	from := make(chan string, 2)
	s.instead(func(w dns.ResponseWriter, q *dns.Msg) bool {
		host, _, _ := net.SplitHostPort(w.RemoteAddr().String())
		from <- w.LocalAddr().Network() + " " + host
		if w.LocalAddr().Network() == "udp" {
			m := s.answer(q)
			m.Truncated = true
			_ = w.WriteMsg(m)
			return true
		}
		return false
	})
	c := New(testConfig(s), o).client
	if _, err := c.ask(t.Context(), question{"a.example.com.", 1}); err != nil {
		t.Fatal(err)
	}
	if got := []string{<-from, <-from}; !slices.Equal(got, []string{"udp 127.0.0.9", "tcp 127.0.0.9"}) || !slices.Equal(hooked, []string{"udp4", "tcp4"}) {
		t.Errorf("asked from %q, hook called for %q", got, hooked)
	}

	t.Run("a hook that fails", func(t *testing.T) {
		want := errors.New("no such device")
		c := New(testConfig(s), Options{Control: func(string, string, syscall.RawConn) error { return want }}).client
		if _, err := c.ask(t.Context(), question{"a.example.com.", 1}); !errors.Is(err, want) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("resolv.conf", func(t *testing.T) {
		c := New(Config{}, o).client
		c.resolvConf = filepath.Join(t.TempDir(), "resolv.conf")
		if _, err := c.servers(); !errors.Is(err, errNoServers) {
			t.Errorf("no file: %v", err)
		}
		const text = "# comment\nsearch example.com\nnameserver 192.0.2.53\nnameserver bad\nnameserver 192.0.2.53\n nameserver 2001:db8::53\n"
		if err := os.WriteFile(c.resolvConf, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		want := []server{{ap("192.0.2.53:53"), true}, {ap("[2001:db8::53]:53"), true}}
		if got, err := c.servers(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%v, %v; want %v", got, err, want)
		}
	})
}
