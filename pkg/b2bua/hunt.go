package b2bua

import (
	"net/netip"
	"time"

	"github.com/tandem-sbc/tandem/pkg/admit"
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// hunt is a call's way through the trunks of its route until one takes it (T7).
type hunt struct {
	*session
	way       trunk.Hunt
	emergency bool
	begun     time.Time
	// tries so far, and what came of the last one.
	tries int
	cause call.Cause
	// refused is why the last trunk that was to be tried had no slot after all, unfit why the
	// last one could not be offered this call.
	refused, unfit *call.Cause
}

// verdict says how a call goes on after a try.
type verdict uint8

const (
	// over: the call has ended, or must not go on.
	over verdict = iota
	// nextTrunk may be tried.
	nextTrunk
	// nextTarget of the same trunk may be tried, or else the next trunk: it was the target
	// that failed (RFC 3263 section 4.3).
	nextTarget
)

// hunt carries the call to its end by the first trunk that takes it, and says how it ended.
func (s *session) hunt(way trunk.Hunt, emergency bool) call.Cause {
	h := hunt{session: s, way: way, emergency: emergency, begun: time.Now()}
	for {
		t, ok := h.way.Next(time.Now())
		if !ok {
			return h.nobody()
		}
		if h.visit(t) == over {
			return h.cause
		}
	}
}

// visit tries a trunk, and after a target that failed its next one.
func (h *hunt) visit(t *trunk.Trunk) verdict {
	var tried []netip.AddrPort
	for {
		target, ok := t.NextTarget(tried...)
		switch {
		case !ok && len(tried) == 0:
			h.way.Untried(t, trunk.Refusal{Reason: trunk.Unusable})
			return nextTrunk
		case !ok || len(tried) > 0 && !h.way.Again(time.Now()):
			return nextTrunk
		}
		if !h.rest() {
			return over
		}
		if then := h.try(t, target); then != nextTarget {
			return then
		}
		tried = append(tried, target)
	}
}

// rest waits between two tries. It reports whether the call goes on: the caller may be gone,
// or the time may be up.
func (h *hunt) rest() bool {
	if h.tries == 0 {
		return true
	}
	policy := h.way.Policy()
	if policy.Total > 0 && time.Since(h.begun)+policy.Pause > policy.Total {
		return false
	}
	pause := time.NewTimer(policy.Pause)
	defer pause.Stop()
	for {
		select {
		case ev := <-h.ingress.Events():
			if ended, ok := ev.(call.Ended); ok {
				h.cause = endedBy(call.Ingress, ended.Cause)
				return false
			}
		case <-h.ctx.Done():
			h.cause, _ = interrupted(h.ctx)
			return false
		case <-pause.C:
			return true
		}
	}
}

// try takes a slot of the trunk for one attempt. A trunk that refuses it was not tried.
func (h *hunt) try(t *trunk.Trunk, target netip.AddrPort) verdict {
	// Known before the state is read, so that either of them tells of a realm that goes down.
	a, done := h.begin(t, target)
	defer done()
	if h.ctx.Err() != nil {
		h.cause, _ = interrupted(h.ctx)
		return over
	}
	if a.ctx.Err() != nil || !t.InService() {
		h.way.Untried(t, trunk.Refusal{Reason: trunk.Unusable})
		return nextTrunk
	}
	invite, err := h.inviteTo(t)
	if err != nil {
		// Nothing is known of the called party, and another trunk may have a codec in common with
		// the caller, or ports (S20).
		cause := causeMedia(err)
		h.unfit = &cause
		h.way.Untried(t, trunk.Refusal{})
		h.note(t, target, cause, 0)
		return nextTrunk
	}
	release, refusal := t.Acquire(trunk.Out, h.emergency)
	if refusal.Reason != trunk.NotRefused {
		cause := admit.Refused(t, refusal.Reason.String(), refusal.RetryAfter)
		h.refused = &cause
		h.way.Untried(t, refusal)
		return nextTrunk
	}
	defer release()
	h.tries++
	a.policy = h.way.Policy()
	begun := time.Now()
	var then verdict
	h.cause, then = h.offer(a, invite)
	if !h.isAnswered() {
		h.note(t, target, h.cause, time.Since(begun))
	}
	return then
}

// note keeps for the record why a trunk does not carry the call.
func (h *hunt) note(t *trunk.Trunk, target netip.AddrPort, why call.Cause, took time.Duration) {
	h.attempts = append(h.attempts, call.Attempt{Trunk: t.Name(), Target: target, Cause: why, DurationMS: took.Milliseconds()})
}

// nobody explains that no trunk is left, or no try: by the last one or, if there was none, by
// the trunk that was nearest to one. Only if none fits the call it is the call's own fault.
func (h *hunt) nobody() call.Cause {
	if h.tries > 0 {
		return h.cause
	}
	t, why := h.way.PassedOver()
	switch {
	case h.refused != nil:
		return *h.refused
	case t == nil && h.unfit != nil:
		return *h.unfit
	case t == nil:
		return causeNoTrunk()
	case why.Reason == trunk.Unusable || why.Reason == trunk.Closed:
		return causeOutOfService(t.Name(), t.Condition())
	}
	return admit.Refused(t, why.Reason.String(), why.RetryAfter)
}
