package sipua

import (
	"strconv"
	"time"

	"github.com/emiago/sipgo/sip"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/header"
)

// inInvite is an INVITE of the peer, initial or not, until its ACK.
type inInvite struct {
	tx      *serverTx
	initial bool
	// late is true once no ACK came within 64*T1.
	late bool
	// timer sends again: the 2xx until its ACK, a provisional response each minute.
	timer    *time.Timer
	interval time.Duration
	deadline time.Time
}

// keepRinging is how often a provisional response is repeated, so that no proxy
// gives up (RFC 3261 section 13.3.1.1).
const keepRinging = time.Minute

func (in *inInvite) stop() {
	if in.timer != nil {
		in.timer.Stop()
	}
}

// invited makes a leg of an initial INVITE and hands it to the Handler.
func (s *Stack) invited(m *message) {
	l := newLeg(s, true)
	l.dialog = dialog{
		callID: m.callID, localTag: newTag(), remoteTag: m.fromTag,
		local: m.value(fTo), remote: m.value(fFrom),
		target: m.contact.URI, contact: "<sip:" + s.hostPort + ">",
		home: m.replyTo(),
	}
	l.local += ";tag=" + l.localTag
	l.remoteSeq = int64(m.cseq)
	l.learnRoutes(m, false)
	l.hop = l.home
	l.refresh(s, m)

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.register() != nil {
		s.refuse(m, overloaded)
		return
	}
	tx, ok := s.serve(m, l)
	if !ok {
		s.calls.Done()
		l.end()
		s.refuse(m, overloaded)
		return
	}
	l.in = &inInvite{tx: tx, initial: true}
	tx.respond(100, appendBody(s.appendResponse(make([]byte, 0, 768), m, 100, "Trying", ""), nil))
	invite := readInvite(m)
	go func() {
		defer s.calls.Done()
		s.cfg.Handler.Invite(l, invite)
		l.abandon()
	}()
}

// readInvite reduces an INVITE to what may cross to the other leg.
func readInvite(m *message) call.Invite {
	uri, _ := header.ParseURI(m.uri) // was checked
	id := header.ReadIdentity(m.from, m.to, m.list(fAsserted), m.list(fRemoteParty), m.value(fPrivacy))
	inv := call.Invite{
		Number: uri.Number(), From: id.From, To: id.To, Asserted: id.Asserted, Privacy: id.Privacy,
		Field: m.named, MaxForwards: m.maxForwards,
	}
	inv.Body, _ = m.sdp()
	for i := range m.fields {
		if f := &m.fields[i]; f.id == fOther {
			inv.Headers = header.Carry(inv.Headers, f.name, f.value)
		}
	}
	return inv
}

// reinvited takes a re-INVITE; mu is held.
func (l *leg) reinvited(tx *serverTx) {
	switch {
	case l.state != confirmed || l.due != nil:
		l.answer(tx, &fault{status: 487, phrase: "Request Terminated"})
	case l.in != nil && l.in.tx.status.Load() < 200:
		// RFC 3261 section 14.2; the wait is to be random, 0 to 10 s.
		l.answer(tx, &fault{status: 500, phrase: "Another INVITE Is Pending",
			extra: "Retry-After: " + strconv.Itoa(int(tx.req.cseq%10)+1) + "\r\n"})
	case l.in != nil || l.out != nil:
		l.answer(tx, &fault{status: 491, phrase: "Request Pending"})
	default:
		l.in = &inInvite{tx: tx}
		tx.respond(100, appendBody(l.s.appendResponse(make([]byte, 0, 768), tx.req, 100, "Trying", ""), nil))
		body, _ := tx.req.sdp()
		l.emit(call.Reinvited{Body: body})
	}
}

// Progress implements call.Leg.
func (l *leg) Progress(code int, reason string, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.in
	if in == nil || in.tx.status.Load() >= 200 || code < 101 || code > 199 {
		return ErrNotPending
	}
	in.tx.respond(code, l.invitation(in, code, phraseOf(code, reason), body))
	in.stop()
	in.timer = l.s.after(keepRinging, func() { l.ringAgain(in) })
	return nil
}

// invitation is a response that makes or confirms a dialog: 101-299.
func (l *leg) invitation(in *inInvite, code int, phrase string, body []byte) []byte {
	b := l.s.appendResponse(make([]byte, 0, 1024+len(body)), in.tx.req, code, phrase, l.localTag)
	b = appendField(b, "Contact", l.contact)
	if code >= 200 {
		b = append(b, allowField...)
	}
	return appendBody(b, body)
}

func (l *leg) ringAgain(in *inInvite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in == in && in.tx.status.Load() < 200 {
		in.tx.resend()
		in.timer.Reset(keepRinging)
	}
}

// Accept implements call.Leg.
func (l *leg) Accept(body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.in
	if in == nil || in.tx.status.Load() >= 200 {
		return ErrNotPending
	}
	if in.initial {
		l.state = confirmed
	} else {
		l.refresh(l.s, in.tx.req)
	}
	in.stop()
	in.tx.respond(200, l.invitation(in, 200, "OK", body))
	in.interval, in.deadline = sip.T1, time.Now().Add(64*sip.T1)
	in.timer = l.s.after(in.interval, func() { l.acceptAgain(in) })
	return nil
}

// acceptAgain repeats the 2xx until its ACK comes: after 0.5, 1, 2, 4, 4 ... s. If
// none comes in 64*T1 the peer has to be told that there is no call.
func (l *leg) acceptAgain(in *inInvite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in != in {
		return
	}
	left := time.Until(in.deadline)
	if left > 0 {
		in.tx.resend()
		in.interval = double(in.interval)
		in.timer.Reset(min(in.interval, left))
		return
	}
	in.late = true
	cause := call.Cause{Code: "no-ack", By: "peer", SIP: 408, Q850: 102, Text: "The peer did not acknowledge the answer."}
	if l.due != nil {
		cause = *l.due
		l.due = nil
	}
	l.emit(call.Ended{Cause: cause})
	l.closed = true
	l.hangUp(cause)
}

// Reject implements call.Leg.
func (l *leg) Reject(r call.Rejection) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.in == nil || l.in.tx.status.Load() >= 200 || r.Code < 300 || r.Code > 699 {
		return ErrNotPending
	}
	l.reject(l.in, r)
	return nil
}

// reject sends a final response of 300 or more; mu is held. The transaction sees to
// its ACK.
func (l *leg) reject(in *inInvite, r call.Rejection) {
	b := l.s.appendResponse(make([]byte, 0, 768), in.tx.req, r.Code, phraseOf(r.Code, r.Reason), l.localTag)
	b = appendReason(b, r.Q850)
	if r.RetryAfter > 0 {
		b = appendNumber(b, "Retry-After", uint64(r.RetryAfter))
	}
	in.stop()
	in.tx.respond(r.Code, appendBody(b, nil))
	l.in = nil
	if in.initial {
		l.end()
	}
}

// cancelled takes a CANCEL of tx.
func (l *leg) cancelled(tx *serverTx, m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.s.appendResponse(make([]byte, 0, 768), m, 200, "OK", l.localTag)
	l.s.count.response(200, false)
	_ = l.s.write(appendBody(b, nil), m.replyTo()) // the peer will ask again
	in := l.in
	if in == nil || in.tx != tx || !in.initial || tx.status.Load() >= 200 {
		// The CANCEL crossed our final response, which stands. A re-INVITE is let go
		// on to its end, so that both legs agree on the session.
		return
	}
	in.stop()
	l.answer(tx, &fault{status: 487, phrase: "Request Terminated"})
	l.emit(call.Ended{Cause: call.Cause{Code: "cancelled", By: "peer", SIP: 487, Q850: header.Q850(m.value(fReason)),
		Text: "The caller gave up before the answer."}})
	l.end()
}

// acknowledged takes an ACK inside the dialog.
func (l *leg) acknowledged(m *message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	in := l.in
	if in == nil || in.tx.status.Load() < 200 || m.cseq != in.tx.req.cseq || m.fromTag != l.remoteTag {
		return // again, or of a dialog that is not this one
	}
	in.stop()
	l.in = nil
	if l.due != nil {
		cause := *l.due
		l.due = nil
		l.hangUp(cause)
		return
	}
	body, _ := m.sdp()
	l.emit(call.Acked{Body: body})
}
