package b2bua

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// attempt is the try of a trunk that is under way, or carries the call.
type attempt struct {
	trunk  *trunk.Trunk
	target netip.AddrPort
	policy *trunk.Policy
	// ctx is done when the try has to end for a reason outside of it: cut says which.
	ctx context.Context
	cut context.CancelCauseFunc

	// sent is when the INVITE went out, rang when the first ringing came, or the answer of a
	// call that did not ring.
	sent, rang time.Time
	// last is the status of the last response, 0 as long as there is none.
	last int
}

// offer offers the call to a target and, if that takes it, carries it to its end.
func (s *session) offer(a *attempt, invite call.Invite) (cause call.Cause, then verdict) {
	a.sent = time.Now()
	a.trunk.Attempt(trunk.Out)
	leg, err := s.cfg.Dialer.Dial(call.Target{Realm: a.trunk.Realm(), Addr: a.target, Transport: a.trunk.Transport()}, invite)
	if err != nil {
		return a.unsent(err)
	}
	defer func() {
		if s.isAnswered() {
			// Both hear of the end at once, however long one of them takes to answer.
			s.closeLeg(leg, cause, 0)
			s.closeLeg(s.ingress, cause, 0)
			s.closeLeg(leg, cause, closeTimeout)
		} else {
			// The caller, or the next trunk, does not wait for who did not take the call. What
			// still comes of it the leg cleans up.
			s.closeLeg(leg, cause, 0)
		}
	}()
	s.update(func(info *call.Info) { info.Egress = s.legRecord(leg, a.trunk) })

	if r := s.ring(a, leg); !r.answered {
		return r.cause, r.then
	}
	s.answered(a.trunk)
	return s.talk(leg), over
}

// inviteTo makes the INVITE for a trunk, with a media description of its own: nothing of that
// of an earlier try is left but the caller's side.
func (s *session) inviteTo(t *trunk.Trunk) (call.Invite, error) {
	if err := s.media.SetEgress(t.Realm(), terms(t)); err != nil {
		return call.Invite{}, err
	}
	invite := s.invite
	invite.MaxForwards--
	if invite.Body == nil {
		return invite, nil
	}
	var err error
	invite.Body, err = s.media.Offer(call.Ingress, invite.Body)
	return invite, err
}

// unsent is the end of an attempt whose INVITE did not leave. If the kernel says why, it
// speaks of the target.
func (a *attempt) unsent(err error) (call.Cause, verdict) {
	cause := causeUnreachable(a.trunk, err)
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		a.unanswered(cause)
	} else {
		a.outcome(trunk.Outcome{SIP: cause.SIP, Q850: cause.Q850})
	}
	return cause, nextTarget
}

// result is what an attempt came to before there was a call, or with it.
type result struct {
	cause    call.Cause
	then     verdict
	answered bool
}

// ring waits for the called side's answer, passing on what it hears on the way.
func (s *session) ring(a *attempt, leg call.Leg) result {
	patience := time.NewTimer(a.trunk.RingTimeout())
	defer patience.Stop()
	silence, stop := a.silence()
	defer stop()
	for {
		select {
		case ev := <-leg.Events():
			silence = nil
			if r, decided := s.hears(a, leg, ev); decided {
				return r
			}
		case ev := <-s.ingress.Events():
			if ended, ok := ev.(call.Ended); ok {
				return a.left(endedBy(call.Ingress, ended.Cause), over)
			}
		case <-silence:
			silence = nil
			if len(leg.Events()) == 0 { // else it is heard in this very moment
				return a.unanswered(causeSilent(a.trunk.Name(), a.trunk.NoResponse()))
			}
		case <-patience.C:
			return a.outOfPatience()
		case <-a.ctx.Done():
			cause, next := interrupted(a.ctx)
			if next {
				return a.moved(cause)
			}
			return a.left(cause, over)
		}
	}
}

// hears takes what happens on the leg of an attempt; decided is false while it goes on.
func (s *session) hears(a *attempt, leg call.Leg, event call.Event) (r result, decided bool) {
	switch ev := event.(type) {
	case call.Trying:
		a.hear(100)
	case call.Progressed:
		a.hear(ev.Code)
		s.progress(ev)
	case call.Accepted:
		a.hear(200)
		a.trunk.Heard(a.target, 200, 0)
		cause, answered := s.answer(leg, ev.Body)
		a.outcome(trunk.Outcome{Answered: answered, SIP: cause.SIP, Q850: cause.Q850})
		return result{cause: cause, answered: answered}, true
	case call.Rejected:
		return a.rejected(ev.Rejection), true
	case call.Ended:
		return a.lost(ev.Cause), true
	}
	return result{}, false
}

// silence is when a target that has given no response at all is left (T11): never if the
// config has it so, for SIP's own timer ends the attempt then.
func (a *attempt) silence() (<-chan time.Time, func() bool) {
	wait := a.trunk.NoResponse()
	if wait == 0 {
		return nil, func() bool { return false }
	}
	timer := time.NewTimer(wait)
	return timer.C, timer.Stop
}

// hear takes a response's status.
func (a *attempt) hear(status int) {
	a.last = status
	if status >= 180 && a.rang.IsZero() {
		a.rang = time.Now()
	}
}

// ringing reports whether the called party is known to have been reached.
func (a *attempt) ringing() bool { return !a.rang.IsZero() }

// rejected is the end of an attempt by a final response.
func (a *attempt) rejected(r call.Rejection) result {
	cause := causeRejected(a.trunk.Name(), r)
	if r.Silent && a.last == 0 {
		return a.unanswered(cause)
	}
	a.trunk.Heard(a.target, r.Code, time.Duration(r.RetryAfter)*time.Second)
	a.outcome(trunk.Outcome{SIP: r.Code, Q850: r.Q850})
	switch {
	case !a.policy.Retry(r.Code, r.Q850):
		return result{cause: cause, then: over}
	case r.Code == 408 || r.Code == 503:
		return result{cause: cause, then: nextTarget}
	}
	return result{cause: cause, then: nextTrunk}
}

// unanswered is the end of an attempt without any response. The leg goes on by itself: a late
// provisional response gets CANCEL, a late answer ACK and BYE.
func (a *attempt) unanswered(cause call.Cause) result {
	a.trunk.Unheard(a.target)
	a.outcome(trunk.Outcome{})
	return result{cause: cause, then: nextTarget}
}

// lost is the end of an attempt whose leg is gone. A call that rang is not begun again.
func (a *attempt) lost(why call.Cause) result {
	cause := causeLegLost(a.trunk.Name(), why)
	switch {
	case a.last == 0 && why.Code == "unreachable":
		return a.unanswered(cause)
	case a.ringing():
		return a.left(cause, over)
	}
	return a.left(cause, nextTrunk)
}

// outOfPatience is the end of an attempt that has lasted for as long as it may (T10). What
// neither rang nor answered until then is as good as timed out.
func (a *attempt) outOfPatience() result {
	cause := causeNoAnswer(a.trunk.Name(), a.trunk.RingTimeout(), a.ringing())
	switch {
	case a.ringing():
		return a.left(cause, over)
	case a.last == 0:
		return a.unanswered(cause)
	}
	a.trunk.Heard(a.target, 408, 0)
	a.outcome(trunk.Outcome{SIP: 408})
	if a.policy.Retry(408, 0) {
		return result{cause: cause, then: nextTarget}
	}
	return result{cause: cause, then: over}
}

// left is the end of an attempt that says nothing of the target but that it was heard.
func (a *attempt) left(cause call.Cause, then verdict) result {
	if a.last > 0 {
		a.trunk.Heard(a.target, a.last, 0)
	}
	a.outcome(trunk.Outcome{SIP: cause.SIP, Q850: cause.Q850})
	return result{cause: cause, then: then}
}

// moved is the end of an attempt whose realm is gone, whatever the target was about to say.
func (a *attempt) moved(cause call.Cause) result {
	a.outcome(trunk.Outcome{Moved: true, SIP: cause.SIP, Q850: cause.Q850})
	return result{cause: cause, then: nextTrunk}
}

// outcome counts what became of the attempt, once.
func (a *attempt) outcome(o trunk.Outcome) {
	if !a.rang.IsZero() {
		o.PDD = a.rang.Sub(a.sent)
	}
	a.trunk.Outcome(trunk.Out, o)
}

// progress passes a provisional response on, with its early media if it has any (S5).
// The phrase stays behind: peers write addresses and host names into it (S18).
func (s *session) progress(ev call.Progressed) {
	if s.rang.IsZero() && ev.Code >= 180 {
		s.rang = time.Now()
		s.update(func(info *call.Info) { info.State = call.Ringing })
	}
	var body []byte
	// An unreliable 18x cannot carry the offer of a call without one (RFC 3261 section 13.2.1).
	if ev.Body != nil && s.invite.Body != nil {
		answer, err := s.media.Answer(call.Egress, ev.Body)
		if err != nil {
			s.log.Warn("early media left out", "status", ev.Code, "error", err)
		}
		body = answer
	}
	if err := s.ingress.Progress(ev.Code, "", body); err != nil {
		s.log.Warn("provisional response not passed on", "status", ev.Code, "error", err)
	}
}

// answer turns the called side's 2xx into the caller's: media first, so that the
// first packet after the answer finds its way, then both signalling sides.
func (s *session) answer(leg call.Leg, body []byte) (cause call.Cause, answered bool) {
	if s.invite.Body == nil {
		return s.answerWithOffer(leg, body)
	}
	out, err := s.media.Answer(call.Egress, body)
	if ackErr := leg.Ack(nil); ackErr != nil {
		return causeLegFailed(leg, call.Egress, ackErr), false
	}
	if err != nil {
		return causeBadAnswer(call.Egress, err), false
	}
	return s.accept(out)
}

// answerWithOffer continues a delayed offer: the 2xx brings the offer, the caller's
// ACK will bring the answer.
func (s *session) answerWithOffer(leg call.Leg, offer []byte) (cause call.Cause, answered bool) {
	out, err := s.media.Offer(call.Egress, offer)
	if err != nil {
		if ackErr := leg.Ack(nil); ackErr != nil {
			err = fmt.Errorf("%w; %w", err, ackErr)
		}
		return causeBadAnswer(call.Egress, err), false
	}
	s.pending = &exchange{from: call.Ingress, delayed: true, initial: true}
	return s.accept(out)
}

func (s *session) accept(body []byte) (cause call.Cause, answered bool) {
	if err := s.ingress.Accept(body); err != nil {
		return causeLegFailed(s.ingress, call.Ingress, err), false
	}
	return call.Cause{}, true
}
