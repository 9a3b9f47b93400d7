package sipua

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/emiago/sipgo/sip"
	"go.uber.org/goleak"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/header"
)

// The clock of the tests: 64*T1 is 3.2 s.
const (
	testT1 = 50 * time.Millisecond
	testT2 = 400 * time.Millisecond
)

func TestMain(m *testing.M) {
	sip.SetTimers(testT1, testT2, 200*time.Millisecond)
	goleak.VerifyTestMain(m)
}

const patience = 5 * time.Second

// handler makes a Handler of a function.
type handler func(call.Leg, call.Invite)

func (h handler) Invite(l call.Leg, i call.Invite) { h(l, i) }

// rig is a stack on loopback and scripted peers that talk bytes to it.
type rig struct {
	t     *testing.T
	stack *Stack
	end   func() // tells Run to end
	stop  func() // ends Run and waits for it
	in    chan inbound
}

type inbound struct {
	leg    call.Leg
	invite call.Invite
	done   chan struct{} // close it to let the Handler return
}

// newRig starts a stack that knows 127.0.0.1 to 127.0.0.9 and hands inbound calls
// to rig.in.
func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigIn(t, here, func(*Config) {})
}

// here is the test's own network namespace; netspace.Space.Do is another.
func here(f func()) { f() }

// newRigIn starts a stack in the namespace that do runs in, after a change to its config.
func newRigIn(t *testing.T, do func(func()), change func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, in: make(chan inbound, 16)}
	quit := make(chan struct{})
	cfg := Config{
		Realm: "test", Listen: netip.MustParseAddrPort("127.0.0.1:0"), DSCP: 24, UserAgent: "tandem",
		Peer: func(a netip.Addr) PeerKind {
			if a.As4()[3] < 10 {
				return PeerCarrier
			}
			return PeerUnknown
		},
		Handler: handler(func(l call.Leg, i call.Invite) {
			in := inbound{l, i, make(chan struct{})}
			r.in <- in
			select {
			case <-in.done:
			case <-quit:
			}
		}),
		Log: slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	var stack *Stack
	var err error
	do(func() { stack, err = Listen(cfg) })
	if err != nil {
		t.Fatal(err)
	}
	r.stack = stack
	ctx, cancel := context.WithCancel(context.Background())
	r.end = cancel
	ended := make(chan error, 1)
	go func() { ended <- stack.Run(ctx) }()
	stopped := false
	r.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		close(quit)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Error("Run does not end")
		}
		if st := stack.Stats(); st.Legs != 0 || st.Transactions != 0 {
			t.Errorf("left behind: %d legs, %d transactions", st.Legs, st.Transactions)
		}
	}
	t.Cleanup(r.stop)
	return r
}

// inboundLeg waits for the call that the stack hands over.
func (r *rig) inboundLeg() inbound {
	r.t.Helper()
	select {
	case in := <-r.in:
		return in
	case <-time.After(patience):
		r.t.Fatal("no inbound call")
		return inbound{}
	}
}

// peer is a UDP socket with a script.
type peer struct {
	t     *testing.T
	conn  *net.UDPConn
	stack netip.AddrPort
	// seen counts datagrams by their bytes: recv returns each only once, so that
	// retransmissions do not disturb a script.
	seen map[string]int
}

func (r *rig) peer(addr string) *peer {
	r.t.Helper()
	return r.peerIn(here, addr)
}

func (r *rig) peerIn(do func(func()), addr string) *peer {
	r.t.Helper()
	var conn *net.UDPConn
	var err error
	do(func() {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr+":0")))
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return &peer{t: r.t, conn: conn, stack: r.stack.Addr(), seen: map[string]int{}}
}

func (p *peer) addr() netip.AddrPort { return p.conn.LocalAddr().(*net.UDPAddr).AddrPort() }

func (p *peer) target() call.Target {
	return call.Target{Realm: "test", Addr: p.addr(), Transport: "udp"}
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort([]byte(text), p.stack); err != nil {
		p.t.Fatal(err)
	}
}

// read returns the next datagram, new or not, or nil when d has passed.
func (p *peer) read(d time.Duration) []byte {
	p.t.Helper()
	buf := make([]byte, maxDatagram)
	_ = p.conn.SetReadDeadline(time.Now().Add(d))
	n, err := p.conn.Read(buf)
	if err != nil {
		if os.IsTimeout(err) {
			return nil
		}
		p.t.Fatal(err)
	}
	p.seen[string(buf[:n])]++
	return buf[:n]
}

// recv returns the next message that was not seen before.
func (p *peer) recv() *message {
	p.t.Helper()
	for {
		b := p.read(patience)
		if b == nil {
			p.t.Fatal("nothing received")
		}
		if p.seen[string(b)] > 1 {
			continue
		}
		m, f := parse(b, p.stack)
		if f != nil {
			p.t.Fatalf("malformed: %v\n%s", f, b)
		}
		return m
	}
}

// want receives a message of a method or status; "100" is passed over unless wanted.
func (p *peer) want(what string) *message {
	p.t.Helper()
	for {
		m := p.recv()
		got := m.method
		if m.status != 0 {
			got = strconv.Itoa(m.status)
		}
		if got == what {
			return m
		}
		if got != "100" {
			p.t.Fatalf("got %s %s, want %s\n%v", got, m.phrase, what, m.fields)
		}
	}
}

// silence makes sure that nothing new comes for a while.
func (p *peer) silence(d time.Duration) {
	p.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		if b := p.read(time.Until(end)); b != nil && p.seen[string(b)] == 1 {
			p.t.Fatalf("unexpected:\n%s", b)
		}
	}
}

// answer is a response to a request of the stack, with the header lines in extra.
// A body is sent as SDP.
func (p *peer) answer(m *message, status int, tag, body string, extra ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "SIP/2.0 %d Some Phrase\r\n", status)
	for _, f := range m.fields {
		switch f.id {
		case fVia, fFrom, fCallID, fCSeq, fRecordRoute:
			b.WriteString(f.name + ": " + f.value + "\r\n")
		case fTo:
			b.WriteString("To: " + f.value)
			if m.toTag == "" && tag != "" {
				b.WriteString(";tag=" + tag)
			}
			b.WriteString("\r\n")
		}
	}
	for _, e := range extra {
		b.WriteString(e + "\r\n")
	}
	if body != "" {
		b.WriteString("Content-Type: application/sdp\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}

// caller is the other end of an inbound call.
type caller struct {
	*peer
	callID, tag, toTag string
	branch             string
	cseq               int
}

var callNumber int

func (p *peer) caller() *caller {
	callNumber++
	return &caller{peer: p, callID: fmt.Sprintf("call-%d@caller", callNumber), tag: fmt.Sprintf("from%d", callNumber),
		branch: fmt.Sprintf("%sb%d", header.Cookie, callNumber), cseq: 1}
}

// request is a request of the caller; branch and cseq are its current ones.
func (c *caller) request(method, body string, extra ...string) string {
	to := "<sip:+4930123@127.0.0.1>"
	if c.toTag != "" {
		to += ";tag=" + c.toTag
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s sip:+4930123@%s SIP/2.0\r\n", method, c.stack)
	fmt.Fprintf(&b, "Via: SIP/2.0/UDP %s;branch=%s;rport\r\n", c.addr(), c.branch)
	fmt.Fprintf(&b, "Max-Forwards: 70\r\nFrom: \"Alice\" <sip:+4989555@10.9.8.7>;tag=%s\r\nTo: %s\r\n", c.tag, to)
	fmt.Fprintf(&b, "Call-ID: %s\r\nCSeq: %d %s\r\n", c.callID, c.cseq, method)
	if method == methodInvite {
		fmt.Fprintf(&b, "Contact: <sip:alice@%s;x=y>\r\n", c.addr())
	}
	for _, e := range extra {
		b.WriteString(e + "\r\n")
	}
	if body != "" {
		b.WriteString("Content-Type: application/sdp\r\n")
	}
	fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(body), body)
	return b.String()
}

// next starts a new transaction in the dialog.
func (c *caller) next() *caller {
	c.cseq++
	c.branch += "n"
	return c
}

// ack is the ACK of a 2xx.
func (c *caller) ack(body string) string {
	branch := c.branch
	c.branch += "ack"
	text := c.request(methodACK, body)
	c.branch = branch
	return text
}

// establish makes an inbound call and confirms it.
func (r *rig) establish(p *peer) (*caller, call.Leg) {
	r.t.Helper()
	c := p.caller()
	c.send(c.request(methodInvite, "offer"))
	l := r.inboundLeg().leg
	if err := l.Accept([]byte("answer")); err != nil {
		r.t.Fatal(err)
	}
	c.toTag = c.want("200").toTag
	c.send(c.ack(""))
	event[call.Acked](r.t, l)
	return c, l
}

// dialled makes an outbound call and confirms it.
func (r *rig) dialled(p *peer) (*message, call.Leg) {
	r.t.Helper()
	l, err := r.stack.Dial(p.target(), call.Invite{Number: "+49301", MaxForwards: 69, Body: []byte("offer")})
	if err != nil {
		r.t.Fatal(err)
	}
	invite := p.want("INVITE")
	p.send(p.answer(invite, 200, "callee", "answer", fmt.Sprintf("Contact: <sip:callee@%s;transport=udp;x-id=7>", p.addr())))
	event[call.Accepted](r.t, l)
	if err := l.Ack(nil); err != nil {
		r.t.Fatal(err)
	}
	p.want("ACK")
	return invite, l
}

// event returns the leg's next event, which has to be of type E.
func event[E call.Event](t *testing.T, l call.Leg) E {
	t.Helper()
	select {
	case e := <-l.Events():
		got, ok := e.(E)
		if !ok {
			t.Fatalf("got %T %+v, want %T", e, e, got)
		}
		return got
	case <-time.After(patience):
		var want E
		t.Fatalf("no event, want %T", want)
		return want
	}
}

func noEvent(t *testing.T, l call.Leg) {
	t.Helper()
	select {
	case e := <-l.Events():
		t.Fatalf("unexpected %T %+v", e, e)
	default:
	}
}

// closeLeg closes a leg and makes sure that it is done within the test's patience.
func closeLeg(t *testing.T, l call.Leg, cause call.Cause) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l.Close(ctx, cause)
	if ctx.Err() != nil {
		t.Error("Close took too long")
	}
}

var hangup = call.Cause{Code: "normal-clearing", By: "ingress", SIP: 200, Q850: 16}
