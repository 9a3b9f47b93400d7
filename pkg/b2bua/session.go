package b2bua

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admit"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// session is one call. Only its own goroutine writes; mu lets others read info and trying.
type session struct {
	*Gateway
	log     *slog.Logger
	plan    Plan
	realm   string
	ingress call.Leg
	invite  call.Invite
	// from is the trunk that the call came in on, by the one that has answered it, or nil.
	from, by *trunk.Trunk
	media    *media.Session
	// ctx is done when the call has to end for a reason outside of it: cut says which.
	ctx context.Context
	cut context.CancelCauseFunc

	// offer in flight between the legs, nil when none is.
	pending *exchange

	mu   sync.Mutex
	info call.Info
	// trying is the try that is under way, or carries the call; nil between two.
	trying *attempt

	rang, done time.Time
	attempts   []call.Attempt
}

// exchange is an offer of one side that the other has not answered yet.
type exchange struct {
	// from sent the INVITE or re-INVITE.
	from call.Side
	// delayed means that the INVITE had no body: the offer comes in the 2xx and the
	// answer in the ACK (RFC 3261 section 13.2.1).
	delayed bool
	// initial means that the call has no media before it is answered: it began with a
	// delayed offer.
	initial bool
}

// run is the call. The order of the defers is the order of its end reversed: the legs
// are closed first (a try closes its own, and both if it was answered), then the media, so
// that packets under way while the other side is told still pass; then the record is written.
func (s *session) run(draining bool) {
	var cause call.Cause
	defer func() { s.finish(cause) }()
	defer func() { s.closeMedia() }()
	defer func() { s.closeLeg(s.ingress, cause, closeTimeout) }()
	defer s.ending()

	from := s.plan.Trunks.ByPeer(s.realm, s.ingress.Peer().Addr())
	s.from = from
	s.update(func(info *call.Info) { info.Ingress = s.legRecord(s.ingress, from) })
	request, emergency := s.request()
	if refused := admit.Admit(admit.Request{
		Trunk: from, Draining: draining, Emergency: emergency, Active: s.Totals().Active, MaxCalls: s.cfg.MaxCalls, MaxForwards: s.invite.MaxForwards,
	}); refused != nil {
		cause = *refused
		return
	}
	release, refusal := from.Acquire(trunk.In, emergency)
	if refusal.Reason != trunk.NotRefused {
		cause = admit.Refused(from, refusal.Reason.String(), refusal.RetryAfter)
		return
	}
	defer release()
	from.Attempt(trunk.In)
	defer func() { s.countFailure(cause) }()

	way, refused := s.route(request)
	if refused != nil {
		cause = *refused
		return
	}
	session, err := s.cfg.Media.Open(from.Realm(), terms(from))
	if err != nil {
		cause = causeMedia(err)
		return
	}
	s.setMedia(session)
	cause = s.hunt(way, emergency)
}

// finish accounts for the call and writes its record.
func (s *session) finish(cause call.Cause) {
	s.countTalk()
	r := call.Record{
		ID:       s.info.ID,
		Node:     s.cfg.Node,
		From:     s.info.From,
		To:       s.info.To,
		Started:  s.info.Started,
		Rang:     s.rang,
		Answered: s.info.Answered,
		Ended:    s.done,
		Cause:    cause,
		Ingress:  s.info.Ingress,
		Egress:   s.info.Egress,
		Attempts: s.attempts,
	}
	if s.media != nil {
		r.Engine = s.cfg.Engine
	}
	switch {
	case !r.Rang.IsZero():
		r.SetupMS = r.Rang.Sub(r.Started).Milliseconds()
	case !r.Answered.IsZero():
		r.SetupMS = r.Answered.Sub(r.Started).Milliseconds()
	}
	if !r.Answered.IsZero() {
		r.DurationMS = r.Ended.Sub(r.Answered).Milliseconds()
	}
	s.cfg.Records.Write(r)
	s.log.Info("call ended", "cause", cause.Code, "by", cause.By, "sip", cause.SIP, "text", cause.Text,
		"ingress", r.Ingress.Trunk, "egress", r.Egress.Trunk, "setup_ms", r.SetupMS, "duration_ms", r.DurationMS)
}

// closeLeg ends a leg and waits for its peer, also when the call was ended from outside.
func (s *session) closeLeg(leg call.Leg, cause call.Cause, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.stop), patience)
	defer cancel()
	leg.Close(ctx, cause)
}

func (s *session) closeMedia() {
	if s.media == nil {
		return
	}
	ingress, egress := s.media.Close()
	s.update(func(info *call.Info) { info.Ingress.Media, info.Egress.Media = ingress, egress })
}

// countFailure counts a call in that ends unanswered.
func (s *session) countFailure(cause call.Cause) {
	if !s.isAnswered() {
		s.from.Outcome(trunk.In, trunk.Outcome{SIP: cause.SIP, Q850: cause.Q850, PDD: s.ringDelay()})
	}
}

// ringDelay is from the INVITE to the first ringing; 0 is none.
func (s *session) ringDelay() time.Duration {
	if s.rang.IsZero() {
		return 0
	}
	return s.rang.Sub(s.info.Started)
}

// answered is the moment from which the call is charged for.
func (s *session) answered(by *trunk.Trunk) {
	s.by = by
	s.update(func(info *call.Info) { info.State, info.Answered = call.Answered, time.Now() })
	delay := s.ringDelay()
	if delay == 0 {
		delay = s.info.Answered.Sub(s.info.Started)
	}
	s.from.Outcome(trunk.In, trunk.Outcome{Answered: true, PDD: delay})
	s.countAnswer()
}

// countTalk counts the end of an answered call for both trunks, each with what its peer sent.
func (s *session) countTalk() {
	if !s.isAnswered() {
		return
	}
	talk := s.done.Sub(s.info.Answered)
	s.from.Ended(trunk.In, talk, s.info.Ingress.Media.MOS)
	s.by.Ended(trunk.Out, talk, s.info.Egress.Media.MOS)
}

// ending is the moment in which the call is over but for the good-byes: until then it is charged
// for.
func (s *session) ending() {
	s.update(func(info *call.Info) { info.State = call.Ending })
	if s.done.IsZero() {
		s.done = time.Now()
	}
}

func (s *session) isAnswered() bool { return !s.info.Answered.IsZero() }

func (s *session) update(change func(*call.Info)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.info)
}

func (s *session) setMedia(m *media.Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.media = m
}

// legRecord describes a leg; t may be nil for a caller that is no trunk of ours.
func (s *session) legRecord(leg call.Leg, t *trunk.Trunk) call.LegRecord {
	r := call.LegRecord{CallID: leg.CallID(), Local: leg.Local(), Remote: leg.Peer()}
	if t != nil {
		r.Trunk, r.Realm = t.Name(), t.Realm()
	}
	return r
}
