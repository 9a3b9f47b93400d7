package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tandem-sbc/tandem/tests/netlab"
)

// patience is how long a peer waits for a message that has to come at once.
const patience = 4 * time.Second

// stage is a lab with raw SIP peers at its hosts.
type stage struct {
	*gateway
	boards map[string]*board
	seq    atomic.Uint32
}

// board is the socket behind a host's well-known SIP port. It hands each message to
// the peer that plays the called number or has the Call-ID.
type board struct {
	conn *net.UDPConn

	mu      sync.Mutex
	numbers map[string]*peer
	calls   map[string]*peer
}

func newStage(t *testing.T, g *gateway) *stage {
	t.Helper()
	s := &stage{gateway: g, boards: map[string]*board{}}
	for _, r := range netlab.Realms() {
		b := &board{conn: g.listen(t, r.Name, 5060), numbers: map[string]*peer{}, calls: map[string]*peer{}}
		s.boards[r.Name] = b
		go b.serve()
	}
	return s
}

// listen opens a socket within a host.
func (g *gateway) listen(t *testing.T, host string, port uint16) *net.UDPConn {
	t.Helper()
	return g.listenAt(t, host, netip.AddrPortFrom(netlab.RealmOf(host).Peer, port))
}

func (g *gateway) listenAt(t *testing.T, host string, addr netip.AddrPort) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := g.Do(host, func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addr))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (b *board) serve() {
	buf := make([]byte, 65536)
	for {
		n, src, err := b.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		m := read(string(buf[:n]))
		b.mu.Lock()
		p := b.calls[m.get("Call-ID")]
		if p == nil && m.what() == "INVITE" {
			if p = b.numbers[m.number()]; p != nil {
				b.calls[m.get("Call-ID")] = p
			}
		}
		b.mu.Unlock()
		switch {
		case p != nil:
			p.in <- m
		case m.what() == "INVITE": // a message of another test's debris
			answer := response(m, 486, "Busy Here", "nobody")
			_, _ = b.conn.WriteToUDPAddrPort(answer.bytes(), src)
		}
	}
}

// peer is one end of one scenario: a SIP user agent that does only what it is told.
type peer struct {
	t       *testing.T
	conn    *net.UDPConn
	self    netip.AddrPort
	gateway netip.AddrPort
	// number is what a callee is called by.
	number string
	in     chan *message
	// seen is all that was received, in order; known finds repetitions.
	seen  []*message
	known map[string]bool

	// The dialog.
	callID, tag   string
	local, remote string
	target        string
	routes        []string
	cseq          int
	branches      int
}

func (s *stage) peer(t *testing.T, host string, conn *net.UDPConn) *peer {
	id := s.seq.Add(1)
	self := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	return &peer{
		t: t, conn: conn, self: netip.AddrPortFrom(self.Addr().Unmap(), self.Port()),
		gateway: netip.AddrPortFrom(netlab.RealmOf(host).Gateway, 5060),
		in:      make(chan *message, 256), known: map[string]bool{},
		callID: fmt.Sprintf("call%d-%s", id, host), tag: fmt.Sprintf("tag%d-%s", id, host), cseq: 1,
	}
}

// caller is a peer with a socket of its own.
func (s *stage) caller(t *testing.T, host string) *peer {
	t.Helper()
	p := s.peer(t, host, s.listen(t, host, 0))
	go func() {
		buf := make([]byte, 65536)
		for {
			n, _, err := p.conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			p.in <- read(string(buf[:n]))
		}
	}()
	return p
}

// callees are peers behind the well-known port of one host, or of several that may be
// tried for the same number.
func (s *stage) callees(t *testing.T, prefix string, hosts ...string) []*peer {
	t.Helper()
	number := fmt.Sprintf("%s%07d", prefix, s.seq.Add(1))
	var peers []*peer
	for _, host := range hosts {
		b := s.boards[host]
		p := s.peer(t, host, b.conn)
		p.number = number
		b.mu.Lock()
		b.numbers[number] = p
		b.mu.Unlock()
		t.Cleanup(func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			delete(b.numbers, number)
		})
		peers = append(peers, p)
	}
	return peers
}

// pair is a caller at the platform and a callee at carrier-a.
func (s *stage) pair(t *testing.T) (caller, callee *peer) {
	t.Helper()
	return s.caller(t, netlab.Platform), s.callees(t, netlab.PrefixA, netlab.CarrierA)[0]
}

// call is a pair in an answered call.
func (s *stage) call(t *testing.T) (caller, callee *peer) {
	t.Helper()
	caller, callee = s.pair(t)
	caller.send(caller.invite(callee.number))
	callee.answer(callee.take())
	caller.established()
	callee.expect("ACK")
	caller.heard()
	return caller, callee
}

// sdp is a plain description of the peer.
func (p *peer) sdp(lines ...string) string {
	return p.sdpAt(p.self.Addr().String(), lines...)
}

func (p *peer) sdpAt(addr string, lines ...string) string {
	if len(lines) == 0 {
		lines = []string{"m=audio 40000 RTP/AVP 8 0 101", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15", "a=ptime:20"}
	}
	head := []string{"v=0", "o=" + p.tag + " 1 1 IN IP4 " + p.self.Addr().String(), "s=" + p.tag, "c=IN IP4 " + addr, "t=0 0"}
	return strings.Join(append(head, lines...), "\r\n") + "\r\n"
}

// request is an in-dialog request, or one outside of any before there is a dialog.
func (p *peer) request(method, uri string) *message {
	m := &message{start: method + " " + uri + " SIP/2.0"}
	p.branches++
	m.add(fmt.Sprintf("Via: SIP/2.0/UDP %s;branch=z9hG4bK-%s-%d", p.self, p.tag, p.branches))
	for _, r := range p.routes {
		m.add("Route: " + r)
	}
	return m.add(
		"Max-Forwards: 70", "From: "+p.local, "To: "+p.remote, "Call-ID: "+p.callID,
		fmt.Sprintf("CSeq: %d %s", p.cseq, method), p.contact(),
	)
}

func (p *peer) contact() string { return fmt.Sprintf("Contact: <sip:c-%s@%s>", p.tag, p.self) }

// outside is a request out of dialog.
func (p *peer) outside(method, number string) *message {
	uri := fmt.Sprintf("sip:%s@%s", number, p.gateway.Addr())
	p.local = fmt.Sprintf("<sip:+4940111@%s>;tag=%s", p.self.Addr(), p.tag)
	p.remote = "<" + uri + ">"
	return p.request(method, uri)
}

// invite is an initial INVITE with an offer.
func (p *peer) invite(number string) *message { return p.outside("INVITE", number).with(p.sdp()) }

// within is a new request in the dialog.
func (p *peer) within(method string) *message {
	p.cseq++
	return p.request(method, p.target)
}

func (p *peer) send(m *message) { p.sendRaw(m.bytes()) }

func (p *peer) sendRaw(b []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(b, p.gateway); err != nil {
		p.t.Fatal(err)
	}
}

// respond makes a response of the peer, with its Contact where that makes a dialog.
func (p *peer) respond(m *message, status int) *message {
	r := response(m, status, "Fine", p.tag)
	if m.what() == "INVITE" && status > 100 && status < 300 {
		r.add(p.contact())
	}
	return r
}

// take waits for the INVITE that opens the callee's dialog.
func (p *peer) take() *message {
	p.t.Helper()
	m := p.expect("INVITE")
	p.callID = m.get("Call-ID")
	p.local, p.remote = m.get("To")+";tag="+p.tag, m.get("From")
	p.target = addrURI(m.get("Contact"))
	p.cseq = 100
	return m
}

// answer accepts an INVITE with a description.
func (p *peer) answer(m *message) {
	p.t.Helper()
	p.send(p.respond(m, 200).with(p.sdp()))
}

// established waits for the caller's 200, acknowledges it and returns it.
func (p *peer) established() *message {
	p.t.Helper()
	ok := p.expect("200 INVITE")
	p.confirm(ok)
	return ok
}

// confirm takes the dialog of a 200 and acknowledges it.
func (p *peer) confirm(ok *message) {
	p.t.Helper()
	p.remote, p.target = ok.get("To"), addrURI(ok.get("Contact"))
	p.send(p.ack(ok))
}

// heard waits until the gateway has taken all that p has sent so far: what the other
// side sends from now on comes behind it.
func (p *peer) heard() {
	p.t.Helper()
	p.send(p.within("OPTIONS"))
	p.expect("200 OPTIONS")
}

// ack acknowledges a 2xx.
func (p *peer) ack(ok *message) *message {
	number, _, _ := strings.Cut(ok.get("CSeq"), " ")
	return p.request("ACK", p.target).set("CSeq", number+" ACK")
}

// refused waits for a final failure of the INVITE and acknowledges it.
func (p *peer) refused(invite *message, status int) *message {
	p.t.Helper()
	m := p.expect(fmt.Sprintf("%d INVITE", status))
	p.confirmRefusal(invite, m)
	return m
}

// confirmRefusal acknowledges a final failure.
func (p *peer) confirmRefusal(invite, m *message) {
	p.t.Helper()
	ack := &message{start: strings.Replace(invite.start, "INVITE", "ACK", 1)}
	number, _, _ := strings.Cut(m.get("CSeq"), " ")
	ack.add("Via: "+invite.get("Via"), "Max-Forwards: 70", "From: "+m.get("From"), "To: "+m.get("To"),
		"Call-ID: "+m.get("Call-ID"), "CSeq: "+number+" ACK")
	p.send(ack)
}

// cancel is the CANCEL of an INVITE.
func (p *peer) cancel(invite *message) *message {
	number, _, _ := strings.Cut(invite.get("CSeq"), " ")
	c := &message{start: strings.Replace(invite.start, "INVITE", "CANCEL", 1)}
	return c.add("Via: "+invite.get("Via"), "Max-Forwards: 70", "From: "+invite.get("From"), "To: "+invite.get("To"),
		"Call-ID: "+invite.get("Call-ID"), "CSeq: "+number+" CANCEL")
}

// next is the next message that is not a repetition, or nil after a while.
func (p *peer) next(within time.Duration) *message {
	timeout := time.After(within)
	for {
		select {
		case m := <-p.in:
			p.seen = append(p.seen, m)
			if p.known[m.raw] {
				continue
			}
			p.known[m.raw] = true
			return m
		case <-timeout:
			return nil
		}
	}
}

// expect waits for what must come next: "BYE", "200 BYE". A 100 is passed over.
func (p *peer) expect(what string) *message {
	p.t.Helper()
	return p.expectWithin(patience, what)
}

func (p *peer) expectWithin(d time.Duration, what string) *message {
	p.t.Helper()
	for {
		m := p.next(d)
		switch {
		case m == nil:
			p.t.Fatalf("%s waited in vain for %s; it received:\n%s", p.tag, what, p.log())
		case m.status() == 100:
		case m.what() == what:
			return m
		default:
			p.t.Fatalf("%s got %q, want %s; it received:\n%s", p.tag, m.start, what, p.log())
		}
	}
}

// quiet asserts that nothing new comes for a while.
func (p *peer) quiet(d time.Duration) {
	p.t.Helper()
	for {
		m := p.next(d)
		if m == nil {
			return
		}
		if m.status() != 100 {
			p.t.Fatalf("%s got %q unasked", p.tag, m.start)
		}
	}
}

func (p *peer) log() string {
	var b strings.Builder
	for _, m := range p.seen {
		fmt.Fprintf(&b, "  %s (%s)\n", m.start, m.get("CSeq"))
	}
	return b.String()
}

// hangUp ends a call by p and lets the other side agree.
func (p *peer) hangUp(other *peer) {
	p.t.Helper()
	p.send(p.within("BYE"))
	p.expect("200 BYE")
	other.over()
}

// over waits for the gateway's BYE and answers it.
func (p *peer) over() *message {
	p.t.Helper()
	bye := p.expect("BYE")
	p.send(p.respond(bye, 200))
	return bye
}
