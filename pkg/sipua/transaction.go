package sipua

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/emiago/sipgo/sip"

	"github.com/tandem-sbc/tandem/pkg/header"
)

// The state machines of sipgo only want to know what kind of message it is; what
// goes over the wire is written by our transactions. So all of them share these
// few messages, which nobody changes.
var (
	tokenInvite = token(sip.INVITE)
	tokenOther  = token(sip.OPTIONS) // stands for any method but INVITE
	tokenACK    = token(sip.ACK)

	tokenProvisional = sip.NewResponse(sip.StatusTrying, "")
	tokenSuccess     = sip.NewResponse(sip.StatusOK, "")
	tokenFailure     = sip.NewResponse(sip.StatusBadRequest, "")
)

func token(method sip.RequestMethod) *sip.Request {
	r := sip.NewRequest(method, sip.Uri{Scheme: "sip", Host: "invalid"})
	r.SetTransport("UDP")
	r.SetSource("0.0.0.0:0")
	r.AppendHeader(&sip.CSeqHeader{SeqNo: 1, MethodName: method})
	return r
}

func responseToken(status int) *sip.Response {
	switch {
	case status < 200:
		return tokenProvisional
	case status < 300:
		return tokenSuccess
	}
	return tokenFailure
}

// quiet is the logger of the state machines: what they have to say, we count.
var quiet = slog.New(slog.DiscardHandler)

// wire is the part of sip.Connection that a transaction has no use for: nothing
// is pooled, so nothing is referenced or closed.
type wire struct{}

func (wire) LocalAddr() net.Addr    { return nil }
func (wire) Ref(int) int            { return 1 }
func (wire) TryClose() (int, error) { return 1, nil }
func (wire) Close() error           { return nil }

// serverKey matches requests to transactions (RFC 3261 section 17.2.3). In legacy
// stands what RFC 2543 clients are told apart by.
type serverKey struct {
	branch, host string
	port         uint16
	method       string
	legacy       string
}

func (m *message) serverKey(method string) serverKey {
	k := serverKey{branch: m.via.Branch, host: m.via.Host, port: m.via.Port, method: method}
	if !strings.HasPrefix(k.branch, header.Cookie) {
		k.legacy = m.uri + "\x00" + m.fromTag + "\x00" + m.callID + "\x00" + strconv.Itoa(int(m.cseq))
	}
	return k
}

// mergeKey finds a request that reached us twice, on two ways (RFC 3261 section 8.2.2.2).
type mergeKey struct {
	callID, fromTag string
	cseq            uint32
}

// serverTx is a request that is being answered.
type serverTx struct {
	wire
	s   *Stack
	key serverKey
	fsm *sip.ServerTx
	req *message
	to  netip.AddrPort
	// leg that the request belongs to; nil for a REGISTER alone.
	leg *leg

	last   atomic.Pointer[[]byte] // the response that a retransmission gets again
	status atomic.Int32           // of last
	acked  atomic.Bool            // of a final response of 300 or more
	merge  *mergeKey
}

// serve opens the transaction of a request. It fails only if there are too many.
func (s *Stack) serve(m *message, l *leg) (*serverTx, bool) {
	tx := &serverTx{s: s, key: m.serverKey(m.method), req: m, to: m.replyTo(), leg: l}
	origin := tokenOther
	if m.method == methodInvite {
		origin = tokenInvite
		if m.toTag == "" {
			tx.merge = &mergeKey{m.callID, m.fromTag, m.cseq}
		}
	}
	tx.fsm = sip.NewServerTx("", origin, tx, quiet)
	tx.fsm.OnTerminate(func(string, error) { s.forgetServer(tx) })
	s.mu.Lock()
	if s.closed || len(s.servers) >= maxTransactions {
		s.mu.Unlock()
		return nil, false
	}
	s.servers[tx.key] = tx
	if tx.merge != nil {
		s.merges[*tx.merge] = tx
	}
	s.mu.Unlock()
	_ = tx.fsm.Init() // never fails
	return tx, true
}

func (s *Stack) forgetServer(tx *serverTx) {
	s.mu.Lock()
	delete(s.servers, tx.key)
	if tx.merge != nil && s.merges[*tx.merge] == tx {
		delete(s.merges, *tx.merge)
	}
	s.mu.Unlock()
}

// respond sends a response and keeps it for retransmissions.
func (tx *serverTx) respond(status int, b []byte) {
	tx.last.Store(&b)
	tx.status.Store(int32(status))
	tx.s.count.response(status, false)
	// An error means that the transaction is over; the peer has its answer or gave up.
	_ = tx.fsm.Respond(responseToken(status))
}

// again answers a retransmitted request.
func (tx *serverTx) again() {
	tx.s.count.retransmissionsIn.Add(1)
	if tx.last.Load() != nil {
		_ = tx.fsm.Receive(tx.fsm.Origin())
	}
}

// resend sends a 2xx once more: that is not the transaction's job (RFC 6026).
func (tx *serverTx) resend() {
	tx.s.count.retransmissionsOut.Add(1)
	if b := tx.last.Load(); b != nil {
		_ = tx.s.write(*b, tx.to)
	}
}

// ack takes the ACK of a final response of 300 or more; false means that it is not
// for this transaction.
func (tx *serverTx) ack() bool {
	if tx.status.Load() < 300 {
		return false
	}
	if tx.acked.Swap(true) {
		return true
	}
	// The state machine offers the ACK to a reader, and would keep a goroutine for
	// it until the transaction ends.
	_ = tx.fsm.Receive(tokenACK)
	select {
	case <-tx.fsm.Acks():
	case <-tx.fsm.Done():
	}
	return true
}

// WriteMsg implements sip.Connection. The state machine writes nothing but the
// response it was given last.
func (tx *serverTx) WriteMsg(sip.Message) error {
	if b := tx.last.Load(); b != nil {
		_ = tx.s.write(*b, tx.to) // as good as lost
	}
	return nil
}

// clientKey matches responses to transactions (RFC 3261 section 17.1.3).
type clientKey struct{ branch, method string }

// clientTx is a request of ours that waits for its answer.
type clientTx struct {
	wire
	s      *Stack
	key    clientKey
	fsm    *sip.ClientTx
	to     netip.AddrPort
	bytes  []byte
	status atomic.Int32           // of the last response that counted; 0 is none
	ack    atomic.Pointer[[]byte] // the ACK of a final response of 300 or more
	sent   atomic.Bool

	// unsent is why the request could not be sent at all.
	unsent error

	// onResponse takes responses in order, on the reader's goroutine. onFailure is called on
	// a goroutine of its own: with ErrNoResponse, the last call, if no final response came in
	// time, and with ErrUnreachable each time that the request could not be repeated for want
	// of a route, or, if it ends something, not be sent. The transaction goes on then.
	onResponse func(*clientTx, *message)
	onFailure  func(error)
}

// request opens a client transaction and sends b.
func (s *Stack) request(method, branch string, b []byte, to netip.AddrPort,
	onResponse func(*clientTx, *message), onFailure func(error)) (*clientTx, error) {
	tx := &clientTx{s: s, key: clientKey{branch, method}, to: to, bytes: b, onResponse: onResponse, onFailure: onFailure}
	origin := tokenOther
	if method == methodInvite {
		origin = tokenInvite
	}
	tx.fsm = sip.NewClientTx("", origin, tx, quiet)
	tx.fsm.OnTerminate(func(_ string, err error) { tx.over(err) })
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return nil, ErrClosed
	case len(s.clients) >= maxTransactions:
		s.mu.Unlock()
		return nil, ErrBusy
	}
	s.clients[tx.key] = tx
	s.mu.Unlock()
	s.count.request(method, false)
	if tx.fsm.Init() != nil {
		s.forgetClient(tx)
		return nil, tx.unsent
	}
	return tx, nil
}

func (s *Stack) forgetClient(tx *clientTx) {
	s.mu.Lock()
	delete(s.clients, tx.key)
	s.mu.Unlock()
}

// over is called by the state machine, which holds its lock meanwhile.
func (tx *clientTx) over(err error) {
	// A timer that fired too late leaves its error behind, so the status counts too.
	if !errors.Is(err, sip.ErrTransactionTimeout) || tx.status.Load() >= 200 {
		tx.s.forgetClient(tx)
		return
	}
	if tx.key.method == methodInvite {
		// The call is over for us, but a 2xx may still come: it has to be acknowledged
		// and ended, or the peer has a call that nobody hears.
		tx.s.after(64*sip.T1, func() { tx.s.forgetClient(tx) })
	} else {
		tx.s.forgetClient(tx)
	}
	tx.s.spawn(func() { tx.onFailure(ErrNoResponse) })
}

// receive tells the state machine of a response that changes its state. It must
// not be told of any other: it would sleep for T2 over a repeated failure, holding
// its lock, and waits for a reader of each response.
func (tx *clientTx) receive(status int) {
	tx.status.Store(int32(status))
	if tx.key.method != methodInvite && status >= 200 {
		// Timer K (here 32 s) would only absorb repeated responses, and those belong to
		// nothing anyway.
		tx.fsm.Terminate()
		return
	}
	if !tx.s.spawn(func() {
		select {
		case <-tx.fsm.Responses():
		case <-tx.fsm.Done():
		}
	}) {
		return
	}
	tx.fsm.Receive(responseToken(status))
}

// WriteMsg implements sip.Connection: the request, first and again, or its ACK.
func (tx *clientTx) WriteMsg(msg sip.Message) error {
	if r, ok := msg.(*sip.Request); ok && r.IsAck() {
		tx.sendAck()
		return nil
	}
	err := tx.s.write(tx.bytes, tx.to)
	first := !tx.sent.Swap(true)
	if !first {
		tx.s.count.retransmissionsOut.Add(1)
	}
	switch {
	case err == nil:
	case first && tx.key.method != methodBye && tx.key.method != methodCancel:
		tx.unsent = err
	case errors.Is(err, ErrUnreachable):
		// BYE and CANCEL are repeated all the same (RFC 3261 section 17.1.2.2, timer E): their
		// peer is told if there is a way again in time.
		tx.s.spawn(func() { tx.onFailure(err) })
	}
	return tx.unsent // otherwise it is as good as lost
}

func (tx *clientTx) sendAck() {
	if b := tx.ack.Load(); b != nil {
		tx.s.count.request(methodACK, false)
		_ = tx.s.write(*b, tx.to)
	}
}
