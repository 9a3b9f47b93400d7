package media

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/ports"
	"github.com/tandem-sbc/tandem/pkg/sdp"
)

// side is one leg's half of a session.
type side struct {
	realm *realm
	terms Terms
	// port is our RTP port, RTCP is the one above; 0 until taken.
	port   uint16
	origin sdp.Origin
	// told is the last description that the peer was sent.
	told []byte
	// known are the payload types that were ever used on this leg.
	known []call.Codec
	// peer is where the peer receives, and so sends from (symmetric RTP, M1).
	peer endpoint
}

func newSide(r *realm, terms Terms) *side {
	return &side{
		realm:  r,
		terms:  terms,
		origin: sdp.Origin{SessionID: newSessionID(), Version: 1, Addr: r.Addr},
		peer:   endpoint{rtp: newPlace(), rtcp: newPlace()},
	}
}

// takePort makes sure that the side has a port pair.
func (s *side) takePort() error {
	if s.port != 0 {
		return nil
	}
	port, err := s.realm.pool.Get()
	if errors.Is(err, ports.ErrExhausted) {
		return fmt.Errorf("%w in realm %q (%v)", ErrNoPorts, s.realm.Name, s.realm.Ports)
	}
	if err != nil {
		return fmt.Errorf("realm %q: %w", s.realm.Name, err)
	}
	s.port = port
	return nil
}

// givePort puts the port pair into quarantine.
func (s *side) givePort() {
	if s.port != 0 {
		s.realm.pool.Put(s.port)
		s.port = 0
	}
}

func (s *side) rtp() netip.AddrPort  { return netip.AddrPortFrom(s.realm.Addr, s.port) }
func (s *side) rtcp() netip.AddrPort { return netip.AddrPortFrom(s.realm.Addr, s.port+1) }

// key is the flow of the RTP that this side's peer sends, control that of its RTCP.
func (s *side) key() call.FlowKey     { return call.FlowKey{Realm: s.realm.Number, Local: s.rtp()} }
func (s *side) control() call.FlowKey { return call.FlowKey{Realm: s.realm.Number, Local: s.rtcp()} }

// tell writes a description for the side's peer. The version goes up by one when
// and only when it differs from what the peer was told last (RFC 3264 section 8).
func (s *side) tell(d call.MediaDesc) []byte {
	body := sdp.Build(d, s.origin)
	if s.told != nil && !bytes.Equal(body, s.told) {
		s.origin.Version++
		body = sdp.Build(d, s.origin)
	}
	s.told = body
	return body
}

// latch is how a flow from the peer may learn its source (M7). One that is learned already
// stays so for good, also in flows that begin anew because the call goes to another trunk.
func (s *side) latch(from place) call.Latch {
	terms := s.terms.Latch
	if terms.Window <= 0 || from.learned.IsValid() {
		return call.Latch{}
	}
	allowed := slices.Clone(terms.Allowed)
	if terms.Described {
		// First, since it is the likeliest and must not fall off the end.
		allowed = slices.Insert(allowed, 0, netip.PrefixFrom(from.described.Addr(), from.described.Addr().BitLen()))
	}
	if len(allowed) == 0 {
		return call.Latch{}
	}
	return call.Latch{
		Window: terms.Window, Generation: from.generation, Allowed: allowed[:min(len(allowed), call.MaxPrefixes)],
	}
}

// endpoint is a peer's media as agreed on.
type endpoint struct {
	rtp, rtcp place
	// mux means that the peer's RTCP comes and goes with its RTP (RFC 5761).
	mux bool
	// hold is the old form of hold: the peer named 0.0.0.0 (RFC 2543). The addresses
	// are those from before then, since it may go on sending music from there.
	hold      bool
	direction call.Direction
}

// moved is the endpoint that a stream describes, once the exchange is answered.
func (e endpoint) moved(stream *call.Stream, mux bool) endpoint {
	e.mux, e.direction = mux, stream.Direction
	e.hold = stream.RTP.Addr().IsUnspecified()
	if e.hold {
		return e.answered()
	}
	e.rtp = e.rtp.moved(stream.RTP)
	control := stream.RTCP
	if control.Addr().IsUnspecified() {
		control = netip.AddrPort{}
	}
	e.rtcp = e.rtcp.moved(control)
	return e
}

// answered is the endpoint after an answer that says nothing new of it.
func (e endpoint) answered() endpoint {
	e.rtp, e.rtcp = e.rtp.moved(e.rtp.described), e.rtcp.moved(e.rtcp.described)
	return e
}

// control is where the peer's RTCP comes and goes.
func (e endpoint) control() netip.AddrPort {
	if e.mux {
		return e.rtp.addr()
	}
	return e.rtcp.addr()
}

// place is where a peer receives one stream, and so sends it from.
type place struct {
	described netip.AddrPort
	// learned replaces described once the engine has latched on to it; it may be the same.
	// shunned was learned, too, and is not sent to: see Session.latched.
	learned, shunned netip.AddrPort
	// failing is a learned source that the engine does not send to yet, as the log knows.
	failing netip.AddrPort
	// generation goes up each time that a source may be learned anew (call.Latch).
	generation uint32
}

// newPlace begins with a generation that no flow of an earlier call at the same port has: one
// that could not be removed would keep whom it has learned.
func newPlace() place { return place{generation: rand.Uint32()} }

func (p place) addr() netip.AddrPort {
	if p.learned.IsValid() {
		return p.learned
	}
	return p.described
}

// moved keeps what was learned unless something else is described: only then may a source be
// learned again. Where none was learned yet each answer opens the window anew: a callee behind
// NAT that was described by a 183 may send first when it has picked up (M7).
func (p place) moved(to netip.AddrPort) place {
	if to == p.described && p.learned.IsValid() {
		return p
	}
	return place{described: to, generation: p.generation + 1}
}
