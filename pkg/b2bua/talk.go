package b2bua

import (
	"errors"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// requestPending asks a peer to try its re-INVITE again a little later (RFC 3261
// section 14.1).
var requestPending = call.Rejection{Code: 491, Reason: "Request Pending"}

// disagreement is an answer that cannot be used. Who gave it goes by it from then on, and the
// other side does not, or has nothing else to go by; so the call has to end.
type disagreement struct{ cause call.Cause }

func (d disagreement) Error() string { return d.cause.Text }

// talk carries an answered call until one side, or Tandem, ends it.
func (s *session) talk(egress call.Leg) call.Cause {
	legs := [...]call.Leg{call.Ingress: s.ingress, call.Egress: egress}
	defer s.ending()
	for {
		var side call.Side
		var event call.Event
		select {
		case event = <-s.ingress.Events():
			side = call.Ingress
		case event = <-egress.Events():
			side = call.Egress
		case silence := <-s.media.Silent():
			return causeSilence(silence)
		case <-s.ctx.Done():
			cause, _ := interrupted(s.ctx)
			return cause
		}
		if ended, ok := event.(call.Ended); ok {
			return endedBy(side, ended.Cause)
		}
		if err := s.renegotiate(legs[side], legs[side.Other()], side, event); err != nil {
			if broken := (disagreement{}); errors.As(err, &broken) {
				return broken.cause
			}
			// Nothing was sent, because the leg has moved on meanwhile. If it is gone, its
			// Ended is under way and has the reason.
			s.log.Warn("re-negotiation not passed on", "from", side, "error", err)
		}
	}
}

// renegotiate relays an offer and its answer end to end: hold, resume, a change of
// codec or address (S7). this had the event, other is the leg across. After a disagreement
// the call cannot go on.
func (s *session) renegotiate(this, other call.Leg, side call.Side, event call.Event) error {
	switch ev := event.(type) {
	case call.Reinvited:
		return s.relayOffer(this, other, side, ev.Body)
	case call.Accepted:
		return s.relayAnswer(this, other, side, ev.Body)
	case call.Rejected:
		if s.pending == nil || s.pending.from == side {
			return nil
		}
		s.media.Rollback()
		s.pending = nil
		ev.Reason = "" // may name what is on that side (S18)
		return other.Reject(ev.Rejection)
	case call.Acked:
		return s.relayAck(other, side, ev.Body)
	}
	return nil
}

// relayOffer takes a re-INVITE across.
func (s *session) relayOffer(this, other call.Leg, side call.Side, body []byte) error {
	if s.pending != nil {
		// The other side's offer is still under way (RFC 3261 section 14.2).
		return this.Reject(requestPending)
	}
	var offer []byte
	if body != nil {
		var err error
		if offer, err = s.media.Offer(side, body); err != nil {
			s.log.Warn("re-INVITE refused", "side", side, "error", err)
			return this.Reject(causeMedia(err).Rejection())
		}
	}
	if err := other.Reinvite(offer); err != nil {
		// The other side's own INVITE is not over yet: glare, seen from here.
		s.media.Rollback()
		return errors.Join(err, this.Reject(requestPending))
	}
	s.pending = &exchange{from: side, delayed: body == nil}
	return nil
}

// relayAnswer takes the 2xx to a relayed re-INVITE back.
func (s *session) relayAnswer(this, other call.Leg, side call.Side, body []byte) error {
	if s.pending == nil || s.pending.from == side {
		// Nothing of ours was asked: acknowledge, so that the peer stops repeating it.
		return this.Ack(nil)
	}
	if s.pending.delayed {
		offer, err := s.media.Offer(side, body)
		if err != nil {
			// Without an answer both sides keep what they had.
			s.log.Warn("offer in a 2xx refused", "side", side, "error", err)
			s.pending = nil
			return errors.Join(this.Ack(nil), other.Reject(causeMedia(err).Rejection()))
		}
		return other.Accept(offer)
	}
	s.pending = nil
	answer, err := s.media.Answer(side, body)
	ackErr := this.Ack(nil)
	if err != nil {
		return s.breakOff(side, err, errors.Join(ackErr, other.Reject(causeMedia(err).Rejection())))
	}
	if ackErr != nil {
		return ackErr
	}
	return other.Accept(answer)
}

// breakOff is the end of a call whose one side gave an answer that cannot be used. told is
// what came of telling the legs: one that is gone has a reason of its own, and its Ended is
// under way.
func (s *session) breakOff(side call.Side, err, told error) error {
	s.log.Warn("answer refused", "side", side, "error", err)
	if told != nil {
		return told
	}
	return disagreement{causeBadAnswer(side, err)}
}

// relayAck takes the answer of a delayed offer across; any other ACK ends where it came. A
// call that began with a delayed offer has no media until then (S8).
func (s *session) relayAck(other call.Leg, side call.Side, body []byte) error {
	if s.pending == nil || !s.pending.delayed || s.pending.from != side {
		return nil
	}
	initial := s.pending.initial
	s.pending = nil
	answer, err := s.media.Answer(side, body)
	switch {
	case err == nil:
		return other.Ack(answer)
	case body == nil && !initial:
		// Without an answer both sides keep what they had, and the call goes on by it.
		s.log.Warn("re-INVITE came to nothing: no answer in the ACK", "side", side)
		s.media.Rollback()
		return other.Ack(nil)
	}
	// The other side waits for an ACK whatever it carries.
	return s.breakOff(side, err, other.Ack(nil))
}
