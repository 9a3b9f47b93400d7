package sipua

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/header"
)

// dialogKey finds the dialog of a request: the To tag is ours. The peer's tag is
// checked by the leg.
type dialogKey struct{ callID, localTag string }

// dialog is the state of RFC 3261 section 12 that requests of ours are made of.
type dialog struct {
	callID              string
	localTag, remoteTag string
	// local and remote are whole values, tag included: From and To of our requests.
	local, remote string
	// target is the peer's Contact URI as it stood (S9).
	target string
	routes []string
	// contact is the value of our Contact.
	contact string
	// hop is where requests go, home where the peer was first met.
	hop, home netip.AddrPort
	// seq is the CSeq number of our last request.
	seq uint32
}

// refresh takes the peer's Contact as the new remote target (RFC 3261 section 12.2).
func (d *dialog) refresh(s *Stack, m *message) {
	if !m.hasContact {
		return
	}
	if uri, err := header.ParseURI(m.contact.URI); err == nil && uri.Scheme == "sip" {
		d.target = strings.TrimSuffix(m.contact.URI, uri.Headers)
		d.hop = d.nextHop(s)
	}
}

// learnRoutes takes the route set: as it stands for the one who was called,
// reversed for the caller (RFC 3261 section 12.1).
func (d *dialog) learnRoutes(m *message, caller bool) {
	d.routes = nil
	for list := m.list(fRecordRoute); list != "" && len(d.routes) < maxRoutes; {
		a, rest, err := header.NextAddress(list)
		if err != nil {
			break
		}
		d.routes = append(d.routes, "<"+a.URI+">"+a.Params)
		list = rest
	}
	if caller {
		slices.Reverse(d.routes)
	}
}

const maxRoutes = 32

// path is the Request-URI and the Route values of a request. A first route without
// lr is a strict router's (RFC 3261 section 12.2.1.1).
func (d *dialog) path() (uri string, routes []string) {
	if len(d.routes) == 0 {
		return d.target, nil
	}
	first, err := header.ParseAddress(d.routes[0])
	if err != nil {
		return d.target, d.routes
	}
	if u, err := header.ParseURI(first.URI); err == nil {
		if _, loose := header.Param(u.Params, "lr"); !loose {
			return first.URI, append(slices.Clone(d.routes[1:]), "<"+d.target+">")
		}
	}
	return d.target, d.routes
}

// nextHop is the address of the first route or of the target if it is that of a
// known peer, else the one where the peer was met: a Contact must not make us send
// to strangers, and names are not resolved.
func (d *dialog) nextHop(s *Stack) netip.AddrPort {
	uri := d.target
	if len(d.routes) > 0 {
		if a, err := header.ParseAddress(d.routes[0]); err == nil {
			uri = a.URI
		}
	}
	u, err := header.ParseURI(uri)
	if err != nil {
		return d.home
	}
	addr, err := netip.ParseAddr(u.Host)
	if err != nil || !addr.Is4() || s.cfg.Peer(addr) == PeerUnknown {
		return d.home
	}
	if u.Port == 0 {
		u.Port = 5060
	}
	return netip.AddrPortFrom(addr, u.Port)
}
