package sipua

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/emiago/sipgo/sip"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/header"
)

// outInvite is an INVITE of ours, initial or not.
type outInvite struct {
	tx      *clientTx
	initial bool
	seq     uint32
	// dialog as it was when the INVITE was sent: CANCEL and the ACK of a failure
	// repeat its Request-URI and routes.
	sent   dialog
	branch string

	provisional bool // a provisional response came: CANCEL is allowed
	final       bool // a final response came, or none in time
	accepted    bool // the final response was a 2xx
	cancelSent  bool
	// tag of the 2xx that decided, ack its ACK; others by their tags.
	tag   string
	ack   []byte
	extra map[string][]byte
}

// maxForks bounds the 2xx of one INVITE that are cleaned up.
const maxForks = 16

func (s *Stack) dial(to netip.AddrPort, inv *call.Invite) (call.Leg, error) {
	l := newLeg(s, false)
	target := appendTarget(nil, inv.Number, to)
	l.dialog = dialog{
		callID: newTag(), localTag: newTag(),
		target: string(target), contact: "<sip:" + s.hostPort + ">",
		hop: to, home: to, seq: 1,
	}
	if inv.From.Anonymous {
		// Document 001 section 2.11: From and Contact say anonymous, both parts.
		l.contact = `"anonymous" <sip:anonymous@` + s.hostPort + ">"
	}
	l.local = string(append(header.AppendFrom(nil, inv.From, s.host), ";tag="+l.localTag...))
	l.remote = string(header.AppendParty(nil, inv.To, to.Addr().String()))
	out := &outInvite{initial: true, seq: l.seq, sent: l.dialog, branch: newBranch()}
	b := s.appendRequest(make([]byte, 0, 1024+len(inv.Body)), methodInvite, &l.dialog, l.seq, out.branch, inv.MaxForwards)
	b = appendBody(s.appendInvite(b, inv), inv.Body)

	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.register(); err != nil {
		return nil, err
	}
	if err := l.send(out, b); err != nil {
		l.end()
		return nil, err
	}
	l.first = out
	return l, nil
}

func appendTarget(b []byte, number string, to netip.AddrPort) []byte {
	b = append(b, "sip:"...)
	if number != "" {
		b = header.AppendUser(b, number)
		b = append(b, '@')
	}
	b = to.Addr().AppendTo(b)
	if to.Port() != 5060 {
		b = append(b, ':')
		b = strconv.AppendUint(b, uint64(to.Port()), 10)
	}
	return b
}

// send opens the transaction of an INVITE; mu is held, so that no response is
// handled before the timers run.
func (l *leg) send(out *outInvite, b []byte) error {
	tx, err := l.s.request(methodInvite, out.branch, b, l.hop,
		func(_ *clientTx, m *message) { l.answered(out, m) },
		func(err error) { l.failed(out, err) })
	if err != nil {
		return err
	}
	out.tx, l.out = tx, out
	return nil
}

// Reinvite implements call.Leg.
func (l *leg) Reinvite(body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.state != confirmed || l.due != nil:
		return ErrNotPending
	case l.in != nil || l.out != nil:
		return ErrPending
	}
	l.seq++
	out := &outInvite{seq: l.seq, sent: l.dialog, branch: newBranch()}
	b := l.s.appendRequest(make([]byte, 0, 1024+len(body)), methodInvite, &l.dialog, l.seq, out.branch, 70)
	return l.send(out, appendBody(b, body))
}

// answered takes a response to an INVITE of ours.
func (l *leg) answered(out *outInvite, m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.callID != l.callID || m.fromTag != l.localTag {
		l.s.count.strays.Add(1)
		return
	}
	switch {
	case m.status < 200:
		l.progressed(out, m)
	case m.status < 300:
		l.accepted(out, m)
	case !out.final:
		l.rejected(out, m)
	default:
		// Again, or a fork's: its ACK was lost, or is due (RFC 3261 section 17.1.1.2).
		l.s.count.retransmissionsIn.Add(1)
		if !out.accepted && m.toTag == out.tag {
			out.tx.sendAck()
		}
	}
}

func (l *leg) progressed(out *outInvite, m *message) {
	if out.final {
		return // came after the answer: the order was lost on the way
	}
	first := !out.provisional
	if first {
		out.provisional = true
		out.tx.receive(m.status)
	}
	switch {
	case l.due != nil:
		l.cancelWhenAllowed()
	case !out.initial:
	case m.status > 100:
		body, _ := m.sdp()
		l.emit(call.Progressed{Code: m.status, Reason: m.phrase, Body: body})
	case first:
		l.emit(call.Trying{})
	}
}

// accepted takes a 2xx: the one that decides, again, or of another fork.
func (l *leg) accepted(out *outInvite, m *message) {
	switch {
	case !out.final:
		out.final, out.accepted, out.tag = true, true, m.toTag
		out.tx.receive(m.status)
	case out.accepted && m.toTag == out.tag:
		l.s.count.retransmissionsIn.Add(1)
		if out.ack != nil {
			l.s.count.request(methodACK, false)
			_ = l.s.write(out.ack, l.hop) // as good as lost
		}
		return
	default:
		if out.initial {
			l.refuseFork(out, m)
		}
		return
	}
	if out.initial {
		if l.state != early { // the stack is going down
			l.refuseFork(out, m)
			return
		}
		l.state = confirmed
		l.remoteTag, l.remote = m.toTag, m.value(fTo)
		l.learnRoutes(m, true)
		l.hop = l.nextHop(l.s)
	}
	if l.state == confirmed {
		l.refresh(l.s, m)
	}
	if l.state != confirmed || l.due != nil {
		// Nobody waits for it any more: it crossed our CANCEL or our BYE.
		l.acknowledge(out, nil)
		if l.due != nil {
			cause := *l.due
			l.due = nil
			l.sendBye(cause)
		}
		return
	}
	body, _ := m.sdp()
	l.emit(call.Accepted{Body: body})
}

// acknowledge sends the ACK of a 2xx and keeps it; mu is held.
func (l *leg) acknowledge(out *outInvite, body []byte) {
	b := l.s.appendRequest(make([]byte, 0, 768+len(body)), methodACK, &l.dialog, out.seq, newBranch(), 70)
	out.ack = appendBody(b, body)
	if l.out == out {
		l.out = nil
	}
	l.s.count.request(methodACK, false)
	_ = l.s.write(out.ack, l.hop) // if it is lost the 2xx comes again
}

// Ack implements call.Leg.
func (l *leg) Ack(body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out == nil || !l.out.accepted {
		return ErrNotPending
	}
	l.acknowledge(l.out, body)
	return nil
}

// rejected takes the first final response of 300 or more; mu is held.
func (l *leg) rejected(out *outInvite, m *message) {
	out.final, out.tag = true, m.toTag
	ack := out.sent
	ack.remote = m.value(fTo)
	b := appendBody(l.s.appendRequest(make([]byte, 0, 768), methodACK, &ack, out.seq, out.branch, 70), nil)
	out.tx.ack.Store(&b)
	out.tx.receive(m.status) // sends it
	l.fail(out, call.Rejection{
		Code: m.status, Reason: header.Phrase(m.phrase), Q850: header.Q850(m.list(fReason)),
		RetryAfter: m.retryAfter(),
	})
}

// retryAfter is the Retry-After field in seconds, at most a day; 0 is none.
func (m *message) retryAfter() int {
	seconds, _ := strconv.Atoi(firstWord(m.value(fRetryAfter)))
	return max(0, min(seconds, 86400))
}

func firstWord(s string) string {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return s[:i]
		}
	}
	return s
}

// failed takes the end of the transaction without any response, or that the way to the peer
// is gone.
func (l *leg) failed(out *outInvite, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case out.final:
	case errors.Is(err, ErrUnreachable):
		l.strand(out, err)
	default:
		out.final = true
		l.fail(out, call.Rejection{Code: 408, Reason: "Request Timeout", Silent: true})
	}
}

// strand gives up an initial INVITE that nobody has answered with anything when the way to
// the peer is gone: the call may go elsewhere at once (T11). Somebody may have got it all the
// same, and is sent a CANCEL as soon as he is heard of. mu is held.
func (l *leg) strand(out *outInvite, err error) {
	if !out.initial || out.provisional || l.due != nil || l.state != early {
		return
	}
	reason := err
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		reason = errno
	}
	l.due = &call.Cause{
		Code: "unreachable", By: "tandem", SIP: 503, Q850: 38,
		Text: fmt.Sprintf("There is no way to %s any more: %s.", l.home, reason),
	}
	l.emit(call.Ended{Cause: *l.due})
	l.closed = true
}

// fail reports that an INVITE of ours was refused; mu is held.
func (l *leg) fail(out *outInvite, r call.Rejection) {
	if l.out == out {
		l.out = nil
	}
	l.emit(call.Rejected{Rejection: r})
	if out.initial {
		l.end()
		return
	}
	if (r.Code == 481 || r.Code == 408) && l.state == confirmed {
		// The peer does not know the dialog, or is gone (RFC 3261 section 12.2.1.2).
		cause := call.Cause{Code: "peer-gone", By: "peer", SIP: r.Code, Q850: 102, Text: "The peer lost the call."}
		l.emit(call.Ended{Cause: cause})
		l.closed = true
		l.sendBye(cause)
	}
}

// cancelWhenAllowed sends CANCEL if a provisional response has come (RFC 3261
// section 9.1); else the next one brings us here again. mu is held.
func (l *leg) cancelWhenAllowed() {
	out := l.first
	if out == nil || !out.provisional || out.final || out.cancelSent {
		return
	}
	out.cancelSent = true
	b := l.s.appendRequest(make([]byte, 0, 768), methodCancel, &out.sent, out.seq, out.branch, 70)
	b = appendBody(appendReason(b, l.due.Q850), nil)
	// Same hop, Via, Route as the INVITE; its answer says nothing of interest, nor does its
	// failure: the INVITE has its own end, at the latest that of forsake.
	_, _ = l.s.request(methodCancel, out.branch, b, out.sent.hop, func(tx *clientTx, m *message) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if m.status >= 200 && tx.status.Load() < 200 {
			tx.receive(m.status)
		}
	}, func(error) {})
	// A peer that answers the CANCEL but never the INVITE must not keep us.
	l.s.after(64*sip.T1, func() { l.forsake(out) })
}

// forsake ends a cancelled INVITE that never got its final response.
func (l *leg) forsake(out *outInvite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !out.final {
		out.final = true
		l.end()
		out.tx.fsm.Terminate()
	}
}

// refuseFork acknowledges and ends the dialog of a 2xx that nobody takes: of
// another fork, or later than the end of the INVITE. mu is held.
func (l *leg) refuseFork(out *outInvite, m *message) {
	d := out.sent
	d.remoteTag, d.remote = m.toTag, m.value(fTo)
	d.learnRoutes(m, true)
	d.hop = d.nextHop(l.s)
	d.refresh(l.s, m)
	ack, again := out.extra[m.toTag]
	if again {
		l.s.count.retransmissionsIn.Add(1)
		l.s.count.request(methodACK, false)
		_ = l.s.write(ack, d.hop) // as good as lost
		return
	}
	if len(out.extra) >= maxForks {
		return
	}
	ack = appendBody(l.s.appendRequest(make([]byte, 0, 768), methodACK, &d, out.seq, newBranch(), 70), nil)
	if out.extra == nil {
		out.extra = make(map[string][]byte)
	}
	out.extra[m.toTag] = ack
	l.s.count.request(methodACK, false)
	_ = l.s.write(ack, d.hop) // as good as lost
	branch := newBranch()
	bye := appendBody(l.s.appendRequest(make([]byte, 0, 768), methodBye, &d, out.seq+1, branch, 70), nil)
	_, _ = l.s.request(methodBye, branch, bye, d.hop, func(tx *clientTx, m *message) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if m.status >= 200 && tx.status.Load() < 200 {
			tx.receive(m.status)
		}
	}, func(error) {})
}
