package b2bua

import (
	"errors"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// requestPending asks a peer to try its re-INVITE again a little later (RFC 3261
// section 14.1).
var requestPending = call.Rejection{Code: 491, Reason: "Request Pending"}

// talk carries an answered call until one side, or Tandem, ends it.
func (s *session) talk(egress call.Leg) call.Cause {
	legs := [...]call.Leg{call.Ingress: s.ingress, call.Egress: egress}
	defer s.update(func(info *call.Info) { info.State = call.Ending })
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
		case <-s.stop.Done():
			return causeShutdown()
		}
		if ended, ok := event.(call.Ended); ok {
			return endedBy(side, ended.Cause)
		}
		if err := s.renegotiate(legs[side], legs[side.Other()], side, event); err != nil {
			// Nothing was sent, because the leg has moved on meanwhile. If it is gone, its
			// Ended is under way and has the reason.
			s.log.Warn("re-negotiation not passed on", "from", side, "error", err)
		}
	}
}

// renegotiate relays an offer and its answer end to end: hold, resume, a change of
// codec or address (S7). this had the event, other is the leg across.
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
			s.log.Warn("offer in a 2xx refused", "side", side, "error", err)
			s.pending = nil
			if err := this.Ack(nil); err != nil {
				return err
			}
			return other.Reject(causeMedia(err).Rejection())
		}
		return other.Accept(offer)
	}
	s.pending = nil
	answer, err := s.media.Answer(side, body)
	if ackErr := this.Ack(nil); ackErr != nil {
		return ackErr
	}
	if err != nil {
		s.log.Warn("answer to a re-INVITE refused", "side", side, "error", err)
		s.media.Rollback()
		return other.Reject(causeMedia(err).Rejection())
	}
	return other.Accept(answer)
}

// relayAck takes the answer of a delayed offer across; any other ACK ends where it came.
func (s *session) relayAck(other call.Leg, side call.Side, body []byte) error {
	if s.pending == nil || !s.pending.delayed || s.pending.from != side {
		return nil
	}
	s.pending = nil
	answer, err := s.media.Answer(side, body)
	if err != nil {
		s.log.Warn("answer in an ACK refused", "side", side, "error", err)
		s.media.Rollback()
		// The other side waits for an ACK whatever it carries.
		return other.Ack(nil)
	}
	return other.Ack(answer)
}
