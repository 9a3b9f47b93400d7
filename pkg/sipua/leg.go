package sipua

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/header"
)

// legState is how far a leg has come.
type legState uint8

const (
	early     legState = iota // no 2xx yet
	confirmed                 // a 2xx was sent or received
	closing                   // our BYE is on its way
	ended                     // the dialog is gone
)

// leg is one dialog with its INVITEs. It implements call.Leg.
//
// Its state is changed by the reader, by timers and by the call's goroutine, all
// under mu. What is done under mu never waits: sending is a system call, and the
// state machines are told only what they take at once.
type leg struct {
	s       *Stack
	inbound bool
	events  chan call.Event
	done    chan struct{} // closed when ended

	mu     sync.Mutex
	state  legState
	closed bool // the call has let go of the leg: no more events
	dialog
	// remoteSeq is the CSeq number of the peer's last request, -1 before the first.
	remoteSeq int64
	// in is the peer's INVITE that is not answered or whose 2xx is not acknowledged,
	// out is ours of which the same is true. They exclude each other.
	in  *inInvite
	out *outInvite
	// first is our initial INVITE; it outlives out, for late and forked answers.
	first *outInvite
	// due is why the leg is to be ended as soon as the protocol lets us: after an
	// ACK (inbound), after a provisional response (outbound).
	due *call.Cause
}

// Events beyond eventRoom are kept for what must not be lost: a peer can send any
// number of provisional responses, but of the others only what the call asked for.
const (
	eventCapacity = 32
	eventRoom     = 24
)

func newLeg(s *Stack, inbound bool) *leg {
	return &leg{s: s, inbound: inbound, remoteSeq: -1, events: make(chan call.Event, eventCapacity), done: make(chan struct{})}
}

// register makes the dialog known, unless the stack takes no more.
func (l *leg) register() error {
	s := l.s
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ending:
		return ErrClosed
	case len(s.dialogs) >= maxDialogs:
		return ErrBusy
	}
	s.dialogs[dialogKey{l.callID, l.localTag}] = l
	if l.inbound {
		s.calls.Add(1) // for the goroutine of the Handler
	}
	return nil
}

// CallID implements call.Leg.
func (l *leg) CallID() string { return l.callID }

// Peer implements call.Leg.
func (l *leg) Peer() netip.AddrPort { return l.home }

// Local implements call.Leg.
func (l *leg) Local() netip.AddrPort { return l.s.addr }

// Events implements call.Leg.
func (l *leg) Events() <-chan call.Event { return l.events }

// emit tells the call; mu is held. It never blocks.
func (l *leg) emit(e call.Event) {
	if l.closed || l.state == ended {
		return
	}
	if _, optional := e.(call.Progressed); optional && len(l.events) >= eventRoom {
		return
	}
	select {
	case l.events <- e:
	default:
	}
}

// end takes the dialog out of the stack; mu is held.
func (l *leg) end() {
	if l.state == ended {
		return
	}
	l.state = ended
	if l.in != nil {
		l.in.stop()
		l.in = nil
	}
	l.out = nil
	l.s.mu.Lock()
	delete(l.s.dialogs, dialogKey{l.callID, l.localTag})
	l.s.mu.Unlock()
	close(l.done)
}

// request takes a request of the peer inside the dialog, other than ACK and CANCEL.
func (l *leg) request(m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == ended || l.state == early && !l.inbound || m.fromTag != l.remoteTag {
		l.s.refuse(m, noTransaction)
		return
	}
	tx, ok := l.s.serve(m, l)
	if !ok {
		l.s.refuse(m, overloaded)
		return
	}
	if int64(m.cseq) <= l.remoteSeq {
		l.answer(tx, &fault{status: 500, phrase: "CSeq Out Of Order"})
		return
	}
	l.remoteSeq = int64(m.cseq)
	switch m.method {
	case methodBye:
		l.bye(tx)
	case methodInvite:
		l.reinvited(tx)
	case methodOptions:
		l.answer(tx, &fault{status: 200, phrase: "OK", extra: allowField + acceptField})
	default: // REFER; the rest does not get here
		l.answer(tx, declined)
	}
}

var overloaded = &fault{status: 503, phrase: "Service Unavailable", extra: "Retry-After: 5\r\n"}

// answer sends a final response without a body.
func (l *leg) answer(tx *serverTx, f *fault) {
	b := l.s.appendResponse(make([]byte, 0, 768), tx.req, f.status, f.phrase, l.localTag)
	b = append(b, f.extra...)
	tx.respond(f.status, appendBody(b, nil))
}

// bye takes the peer's BYE, also one that crosses ours.
func (l *leg) bye(tx *serverTx) {
	l.answer(tx, &fault{status: 200, phrase: "OK"})
	cause := call.Cause{Code: "normal-clearing", By: "peer", SIP: 200, Q850: header.Q850(tx.req.value(fReason)), Text: "The peer hung up."}
	if in := l.in; in != nil && in.tx.status.Load() < 200 {
		// RFC 3261 section 15.1.2: what is still pending ends with 487.
		l.answer(in.tx, &fault{status: 487, phrase: "Request Terminated"})
		if in.initial {
			cause.Code, cause.SIP, cause.Text = "cancelled", 487, "The caller hung up before the answer."
		}
	}
	if l.out != nil && l.out.accepted {
		// The 2xx that the call has not acknowledged yet will not be now.
		l.acknowledge(l.out, nil)
	}
	l.emit(call.Ended{Cause: cause})
	l.end()
}

// sendBye ends a confirmed dialog; mu is held.
func (l *leg) sendBye(cause call.Cause) {
	l.state = closing
	l.seq++
	branch := newBranch()
	b := l.s.appendRequest(make([]byte, 0, 768), methodBye, &l.dialog, l.seq, branch, 70)
	b = appendBody(appendReason(b, cause.Q850), nil)
	over := func(error) {
		l.mu.Lock()
		l.end()
		l.mu.Unlock()
	}
	_, err := l.s.request(methodBye, branch, b, l.hop, func(tx *clientTx, m *message) {
		// Whatever the final answer is, 481 and 408 included, the dialog is over.
		l.mu.Lock()
		defer l.mu.Unlock()
		if m.status >= 200 && tx.status.Load() < 200 {
			tx.receive(m.status)
			l.end()
		}
	}, over)
	if err != nil {
		l.end()
	}
}

// Close implements call.Leg.
func (l *leg) Close(ctx context.Context, cause call.Cause) {
	l.mu.Lock()
	l.closed = true
	l.hangUp(cause)
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
	}
}

// hangUp ends the leg in the way its state asks for, or notes that it is due; mu
// is held.
func (l *leg) hangUp(cause call.Cause) {
	if l.due != nil {
		return
	}
	switch {
	case l.state == early && l.inbound:
		l.reject(l.in, cause.Rejection())
	case l.state == early:
		l.due = &cause
		l.cancelWhenAllowed()
	case l.state == confirmed:
		if in := l.in; in != nil {
			if in.tx.status.Load() < 200 {
				l.reject(in, call.Rejection{Code: 487})
			} else if !in.late {
				// BYE has to wait for the ACK (RFC 3261 section 15).
				l.due = &cause
				return
			}
		}
		if l.out != nil && l.out.accepted {
			l.acknowledge(l.out, nil)
		}
		l.sendBye(cause)
	}
}

// shutdown says goodbye once and lets the call end; nothing is waited for.
func (l *leg) shutdown() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.state == ended {
		return
	}
	cause := call.Cause{Code: "shutdown", By: "tandem", SIP: 503, Text: "The gateway is shutting down."}
	l.emit(call.Ended{Cause: cause})
	l.hangUp(cause)
	l.end()
}

// abandon ends a leg whose handler returned without doing so.
func (l *leg) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.hangUp(call.Cause{Code: "abandoned", By: "tandem", SIP: 500, Text: "The call was let go of without an end."})
}

// double is the next interval of a retransmission (RFC 3261 section 13.3.1.4).
func double(d time.Duration) time.Duration { return min(2*d, sip.T2) }
