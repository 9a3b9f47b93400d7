package resolve

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dnsServer is a real DNS server on loopback, by another implementation than ours.
type dnsServer struct {
	t    testing.TB
	addr string

	mu    sync.Mutex
	zone  []dns.RR
	asked []string // "udp SRV _sip._udp.example.com."
	// respond does something else than to answer, if it is set and returns true.
	respond func(w dns.ResponseWriter, q *dns.Msg) bool
	servers []*dns.Server
}

// serveDNS starts a server with records in zone-file form.
func serveDNS(t testing.TB, zone ...string) *dnsServer {
	t.Helper()
	s := &dnsServer{t: t}
	s.set(zone...)
	s.start("127.0.0.1:0")
	t.Cleanup(s.stop)
	return s
}

// start listens by UDP and TCP on one port.
func (s *dnsServer) start(addr string) {
	s.t.Helper()
	pc, err := net.ListenPacket("udp4", addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.addr = pc.LocalAddr().String()
	l, err := net.Listen("tcp4", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.servers = []*dns.Server{{PacketConn: pc, Handler: s}, {Listener: l, Handler: s}}
	for _, server := range s.servers {
		ready := make(chan struct{})
		server.NotifyStartedFunc = func() { close(ready) }
		go func() {
			if err := server.ActivateAndServe(); err != nil {
				s.t.Error(err)
			}
		}()
		<-ready
	}
}

func (s *dnsServer) stop() {
	for _, server := range s.servers {
		if err := server.Shutdown(); err != nil {
			s.t.Error(err)
		}
	}
	s.servers = nil
}

// set replaces the zone.
func (s *dnsServer) set(zone ...string) {
	s.t.Helper()
	records := make([]dns.RR, len(zone))
	for i, line := range zone {
		var err error
		if records[i], err = dns.NewRR(line); err != nil {
			s.t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = records
}

// instead makes the server do something else than to answer; nil is to answer.
func (s *dnsServer) instead(respond func(dns.ResponseWriter, *dns.Msg) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.respond = respond
}

// questions returns what was asked since the last time.
func (s *dnsServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// ServeDNS implements dns.Handler.
func (s *dnsServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	s.asked = append(s.asked, fmt.Sprintf("%s %s %s", w.LocalAddr().Network(), dns.TypeToString[q.Question[0].Qtype], q.Question[0].Name))
	respond := s.respond
	s.mu.Unlock()
	if respond != nil && respond(w, q) {
		return
	}
	reply := s.answer(q)
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if opt := q.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
		}
		reply.Truncate(size)
	}
	_ = w.WriteMsg(reply) // the client may have gone
}

// answer answers as a recursive server does: with the aliases and what they lead to.
func (s *dnsServer) answer(q *dns.Msg) *dns.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := new(dns.Msg).SetReply(q)
	reply.Compress = true
	name, exists := strings.ToLower(q.Question[0].Name), false
	for hops := 0; hops < 20; hops++ {
		next := ""
		for _, rr := range s.zone {
			if !strings.EqualFold(rr.Header().Name, name) {
				continue
			}
			exists = true
			if alias, ok := rr.(*dns.CNAME); ok {
				next = strings.ToLower(alias.Target)
				reply.Answer = append(reply.Answer, rr)
			} else if rr.Header().Rrtype == q.Question[0].Qtype {
				reply.Answer = append(reply.Answer, rr)
			}
		}
		if next == "" {
			break
		}
		name, exists = next, false
	}
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	return reply
}

// silent is a server that has died.
func silent(dns.ResponseWriter, *dns.Msg) bool { return true }

// refuse answers with a code.
func refuse(code int) func(dns.ResponseWriter, *dns.Msg) bool {
	return func(w dns.ResponseWriter, q *dns.Msg) bool {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, code))
		return true
	}
}

// testConfig asks servers. Its timeout is one for a busy machine.
func testConfig(servers ...*dnsServer) Config {
	var c Config
	c.SetDefaults()
	c.Timeout = 10 * time.Second
	for _, s := range servers {
		c.Servers = append(c.Servers, s.addr)
	}
	return c
}

func mustTarget(t testing.TB, text string) Target {
	t.Helper()
	target, err := ParseTarget(text)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// lookup asks DNS once, without a cache.
func lookup(t testing.TB, c Config, target string, via Transport) (found, error) {
	t.Helper()
	return asker(New(c, Options{}).client.ask).find(t.Context(), mustTarget(t, target), via, Set{})
}

func addrs(s Set) []string {
	var list []string
	for i := range s.Len() {
		list = append(list, s.At(i).Addr.String())
	}
	return list
}

func ap(text string) netip.AddrPort { return netip.MustParseAddrPort(text) }
