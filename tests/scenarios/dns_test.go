package scenarios

import (
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/miekg/dns"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// nameServer is the DNS of carrier-a, at alpha's address.
type nameServer struct {
	server *dns.Server
	ended  chan struct{}

	mu sync.Mutex
	// addresses by name; a name with none gets no answer.
	addresses map[string][]netip.Addr
}

// dns is "dns NAME PEER...".
func (s *stage) dns(_ *testscript.TestScript, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	var addresses []netip.Addr
	for _, word := range args[1:] {
		at, ok := places[word]
		if !ok {
			return errUsage
		}
		addresses = append(addresses, at.addr)
	}
	if s.names == nil {
		names, err := s.serveNames()
		if err != nil {
			return err
		}
		s.names = names
	}
	s.names.mu.Lock()
	defer s.names.mu.Unlock()
	s.names.addresses[dns.Fqdn(args[0])] = addresses
	return nil
}

func (s *stage) serveNames() (*nameServer, error) {
	at := places["alpha"]
	var conn net.PacketConn
	err := s.Do(at.host, func() (err error) {
		conn, err = net.ListenPacket("udp4", netip.AddrPortFrom(at.addr, 53).String())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("DNS of %s: %w", netlab.CarrierA, err)
	}
	n := &nameServer{ended: make(chan struct{}), addresses: make(map[string][]netip.Addr)}
	ready := make(chan struct{})
	n.server = &dns.Server{PacketConn: conn, Handler: n, NotifyStartedFunc: func() { close(ready) }}
	go func() {
		defer close(n.ended)
		_ = n.server.ActivateAndServe() // what goes wrong the story notices
	}()
	<-ready
	return n, nil
}

func (n *nameServer) close() {
	if n == nil {
		return
	}
	_ = n.server.Shutdown()
	<-n.ended
}

// ServeDNS answers for A, with a time to live of 1 s. Of SRV there is none.
func (n *nameServer) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	name := question.Question[0].Name
	n.mu.Lock()
	addresses, known := n.addresses[name]
	n.mu.Unlock()
	answer := new(dns.Msg).SetReply(question)
	switch {
	case !known:
		answer.Rcode = dns.RcodeNameError
	case len(addresses) == 0:
		return
	case question.Question[0].Qtype == dns.TypeA:
		for _, a := range addresses {
			answer.Answer = append(answer.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: a.AsSlice(),
			})
		}
	}
	_ = w.WriteMsg(answer) // a resolver that is gone does not matter
}
