package b2bua

import (
	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/number"
	"github.com/tandem-sbc/tandem/pkg/route"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// request is what routes see of the call, and whether it is one for help (T3, T12). A stranger has
// no numbering.
func (s *session) request() (r route.Request, emergency bool) {
	inv := &s.invite
	r = route.Request{Called: inv.Number, Caller: caller(inv), To: inv.To.User, Headers: inv.Field, At: s.info.Started}
	if s.from != nil {
		r.Trunk, r.Plan, r.DemandE164 = s.from.Name(), number.Plan(s.from.Numbering()), s.from.DemandE164()
	}
	return r.Urgent(s.plan.Trunks.Emergency)
}

// caller is who is known to call, or empty if that is withheld.
func caller(inv *call.Invite) string {
	switch {
	case inv.From.Anonymous:
		return ""
	case inv.Asserted != nil:
		return inv.Asserted.User
	}
	return inv.From.User
}

// route finds the call's way, and gives the INVITE the numbers that it goes out with.
func (s *session) route(r route.Request) (trunk.Hunt, *call.Cause) {
	if r.Incomplete() != nil {
		cause := causeIncomplete(s.from.Name())
		return trunk.Hunt{}, &cause
	}
	match, ok := s.plan.Routes.Route(r)
	if !ok {
		cause := causeNoRoute(s.from.Name())
		return trunk.Hunt{}, &cause
	}
	s.translate(&match)
	s.invite.Field = nil // or the whole message would stay for as long as the call
	// The number before its translation: that is what a config's emergency numbers are.
	if match.Group != "" {
		return s.plan.Trunks.Hunt(match.Group, r.Number()), nil
	}
	return s.plan.Trunks.HuntTrunk(match.Trunk, r.Number()), nil
}

// translate gives the INVITE the numbers of the route that takes it.
func (s *session) translate(m *route.Match) {
	inv := &s.invite
	inv.Number, inv.To.User = m.Called, m.To
	if !inv.From.Anonymous {
		inv.From.User = m.TranslateCaller(inv.From.User)
	}
	if inv.Asserted != nil {
		asserted := *inv.Asserted
		asserted.User = m.TranslateCaller(asserted.User)
		inv.Asserted = &asserted
	}
}
