package b2bua

import (
	"net/netip"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/trunk"
)

// Peer is an address that a call's signalling comes from, in its realm.
type Peer struct {
	Realm string
	Addr  netip.Addr
}

// InUse is whom the live calls speak with, and whom they may still come to.
type InUse struct {
	// Peers of legs that are up, or being tried.
	Peers map[Peer]struct{}
	// Hunting has the tables of calls that are not answered yet: they may try any trunk there.
	Hunting map[*trunk.Table]struct{}
}

// InUse reads all live calls, without their media.
func (g *Gateway) InUse() InUse {
	use := InUse{Peers: make(map[Peer]struct{}), Hunting: make(map[*trunk.Table]struct{})}
	for _, s := range g.all() {
		s.addTo(&use)
	}
	return use
}

func (s *session) addTo(use *InUse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add := func(realm string, addr netip.Addr) { use.Peers[Peer{realm, addr.Unmap()}] = struct{}{} }
	add(s.realm, s.ingress.Peer().Addr())
	if s.trying != nil {
		add(s.trying.trunk.Realm(), s.trying.target.Addr())
	}
	if !s.isAnswered() && s.info.State != call.Ending {
		use.Hunting[s.plan.Trunks] = struct{}{}
	}
}
