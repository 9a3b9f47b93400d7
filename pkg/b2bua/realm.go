package b2bua

import (
	"context"
	"errors"
	"net/netip"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// interruption is why a call, or the try of a trunk, was ended from outside of it.
type interruption struct {
	cause call.Cause
	// next means that the call may go on by another trunk.
	next bool
}

func (i *interruption) Error() string { return i.cause.Text }

// interrupted says why ctx, which is that of a call or of a try, is done.
func interrupted(ctx context.Context) (cause call.Cause, next bool) {
	i := &interruption{cause: causeShutdown()}
	_ = errors.As(context.Cause(ctx), &i) // every cancel of ours gives one
	return i.cause, i.next
}

// interrupt cancels ctx for i, and reports whether nobody did so before.
func interrupt(ctx context.Context, cancel context.CancelCauseFunc, i *interruption) bool {
	cancel(i)
	return errors.Is(context.Cause(ctx), i)
}

// RealmDown has the calls that are being set up towards the realm go on by their next trunks,
// whether the called party rings there or not, and returns how many these are. Tell the trunks
// first (trunk.Table.RealmDown): then no call is on its way between the two. Calls that are
// answered, and those that came in by the realm, are left alone: HangupRealm is for them.
// Reason is as for the trunks.
func (g *Gateway) RealmDown(realm, reason string) (left int) {
	for _, s := range g.all() {
		if s.moveOn(realm, reason) {
			left++
		}
	}
	return left
}

// HangupRealm ends the calls that have a leg in the realm, answered or not, and returns how
// many these are. Both sides are told: with BYE, CANCEL, or the cause's SIP status. The records
// have the cause; if it does not say who ended the call, that is Tandem. A call that ends by
// itself in the same moment may keep its own cause.
func (g *Gateway) HangupRealm(realm string, cause call.Cause) (ended int) {
	if cause.By == "" {
		cause.By = byTandem
	}
	for _, s := range g.all() {
		if s.end(realm, cause) {
			ended++
		}
	}
	return ended
}

// all lists the calls that are up.
func (g *Gateway) all() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.live()
}

// moveOn ends the try of a trunk in the realm, if there is one that was not answered.
func (s *session) moveOn(realm, reason string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.trying
	if a == nil || a.trunk.Realm() != realm || s.isAnswered() {
		return false
	}
	return interrupt(a.ctx, a.cut, &interruption{cause: causeLeft(a.trunk.Name(), reason), next: true})
}

// end ends the call if it has a leg in the realm and is not at its end already.
func (s *session) end(realm string, cause call.Cause) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	egress := s.trying != nil && s.trying.trunk.Realm() == realm
	if s.realm != realm && !egress || s.info.State == call.Ending {
		return false
	}
	return interrupt(s.ctx, s.cut, &interruption{cause: cause})
}

// begin makes a try known to those outside; done takes it out again.
func (s *session) begin(t *trunk.Trunk, target netip.AddrPort) (a *attempt, done func()) {
	a = &attempt{trunk: t, target: target}
	a.ctx, a.cut = context.WithCancelCause(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying = a
	return a, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trying = nil
		a.cut(nil)
	}
}
