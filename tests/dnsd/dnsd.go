// Package dnsd is a DNS server on loopback for tests, by another implementation than ours.
package dnsd

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Server answers by UDP from a zone that may change while it runs.
type Server struct {
	t    testing.TB
	addr string

	mu    sync.Mutex
	zone  []dns.RR
	dead  bool
	asked int
}

// Serve starts a server with records in zone-file form. It ends with the test.
func Serve(t testing.TB, zone ...string) *Server {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, addr: conn.LocalAddr().String()}
	s.Set(zone...)
	ready, done := make(chan struct{}), make(chan error, 1)
	server := &dns.Server{PacketConn: conn, Handler: s, NotifyStartedFunc: func() { close(ready) }}
	go func() { done <- server.ActivateAndServe() }()
	<-ready
	t.Cleanup(func() {
		if err := server.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.addr }

// Set replaces the zone.
func (s *Server) Set(zone ...string) {
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

// Die makes the server answer nothing but that it has failed, or ends that.
func (s *Server) Die(dead bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = dead
}

// Asked is how many questions have come since the last time.
func (s *Server) Asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.asked
	s.asked = 0
	return n
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.dead {
		_ = w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)) // the client may have gone
		return
	}
	reply := new(dns.Msg).SetReply(q)
	exists := false
	for _, rr := range s.zone {
		if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			continue
		}
		exists = true
		if rr.Header().Rrtype == q.Question[0].Qtype {
			reply.Answer = append(reply.Answer, rr)
		}
	}
	if !exists {
		reply.Rcode = dns.RcodeNameError
	}
	_ = w.WriteMsg(reply)
}
