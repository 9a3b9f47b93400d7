package b2bua

import (
	"context"
	"fmt"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admit"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// try offers the call to one trunk and, if that takes it, carries it to its end.
// next means that the call was not taken and another trunk may be tried.
func (s *session) try(t *trunk.Trunk) (cause call.Cause, next bool) {
	// Known before the state is read, so that either of them tells of a realm that goes down.
	ctx, over := s.begin(t)
	defer over()
	if ctx.Err() != nil {
		return interrupted(ctx)
	}
	if c := t.Condition(); c.State != trunk.InService {
		return causeOutOfService(t.Name(), c), true
	}
	release, ok := t.Acquire(trunk.Out)
	if !ok {
		return admit.TrunkFull(t), true
	}
	defer release()
	t.Attempt(trunk.Out)
	defer func() { s.countFailure(t, trunk.Out) }()

	if err := s.media.SetEgress(t.Realm(), terms(t)); err != nil {
		return causeMedia(err), true
	}
	invite := s.invite
	invite.MaxForwards--
	if invite.Body != nil {
		body, err := s.media.Offer(call.Ingress, invite.Body)
		if err != nil {
			// Another trunk may have a codec in common with the caller.
			return causeMedia(err), true
		}
		invite.Body = body
	}
	leg, err := s.cfg.Dialer.Dial(call.Target{Realm: t.Realm(), Addr: t.Target(), Transport: t.Transport()}, invite)
	if err != nil {
		return causeUnreachable(t, err), true
	}
	defer func() {
		if s.isAnswered() {
			// Both hear of the end at once, however long one of them takes to answer.
			s.closeLeg(leg, cause, 0)
			s.closeLeg(s.ingress, cause, 0)
			s.closeLeg(leg, cause, closeTimeout)
		} else {
			// The caller, or the next trunk, does not wait for who did not take the call.
			s.closeLeg(leg, cause, 0)
		}
	}()
	s.update(func(info *call.Info) { info.Egress = s.legRecord(leg, t) })

	if cause, next, answered := s.ring(ctx, leg, t); !answered {
		return cause, next
	}
	s.answered(t)
	return s.talk(leg), false
}

// ring waits for the called side's answer, passing on what it hears on the way.
func (s *session) ring(ctx context.Context, leg call.Leg, t *trunk.Trunk) (cause call.Cause, next, answered bool) {
	patience := time.NewTimer(t.RingTimeout())
	defer patience.Stop()
	rang := false
	for {
		select {
		case ev := <-leg.Events():
			switch ev := ev.(type) {
			case call.Progressed:
				rang = rang || ev.Code >= 180
				s.progress(ev)
			case call.Accepted:
				cause, answered = s.answer(leg, ev.Body)
				return cause, false, answered
			case call.Rejected:
				cause, next = causeRejected(t.Name(), ev.Rejection)
				return cause, next, false
			case call.Ended:
				return causeLegLost(t.Name(), ev.Cause), !rang, false
			}
		case ev := <-s.ingress.Events():
			if ended, ok := ev.(call.Ended); ok {
				return endedBy(call.Ingress, ended.Cause), false, false
			}
		case <-patience.C:
			cause, next = causeNoAnswer(t.Name(), t.RingTimeout(), rang)
			return cause, next, false
		case <-ctx.Done():
			cause, next = interrupted(ctx)
			return cause, next, false
		}
	}
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
