// Package dnsd is a DNS server for tests, by another implementation than ours.
package dnsd

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Server answers by UDP from a zone that may change while it runs.
type Server struct {
	t      testing.TB // of Serve
	server *dns.Server
	done   chan error

	mu    sync.Mutex
	zone  []dns.RR
	dead  bool
	mute  bool
	asked int
}

// Start starts a server on a socket, which Close closes. It knows no name.
func Start(conn net.PacketConn) *Server {
	s := &Server{done: make(chan error, 1)}
	ready := make(chan struct{})
	s.server = &dns.Server{PacketConn: conn, Handler: s, NotifyStartedFunc: func() { close(ready) }}
	go func() { s.done <- s.server.ActivateAndServe() }()
	<-ready
	return s
}

// Close ends the server.
func (s *Server) Close() error {
	if err := s.server.Shutdown(); err != nil {
		return err
	}
	return <-s.done
}

// Serve starts a server on loopback with records in zone-file form. It ends with the test.
func Serve(t testing.TB, zone ...string) *Server {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := Start(conn)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	s.t = t
	s.Set(zone...)
	return s
}

// Addr is where the server listens.
func (s *Server) Addr() string { return s.server.PacketConn.LocalAddr().String() }

// Set replaces the zone of a server of a test.
func (s *Server) Set(zone ...string) {
	s.t.Helper()
	if err := s.Replace(zone...); err != nil {
		s.t.Fatal(err)
	}
}

// Replace replaces the zone.
func (s *Server) Replace(zone ...string) error {
	records := make([]dns.RR, len(zone))
	for i, line := range zone {
		var err error
		if records[i], err = dns.NewRR(line); err != nil {
			return fmt.Errorf("record %q: %w", line, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.zone = records
	return nil
}

// Mute makes the server answer nothing at all, or ends that.
func (s *Server) Mute(mute bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mute = mute
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
	if s.mute {
		return
	}
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
