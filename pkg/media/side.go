package media

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/ports"
	"github.com/tandem-sbc/tandem/pkg/sdp"
)

// side is one leg's half of a session.
type side struct {
	realm  *realm
	codecs []string
	// port is our RTP port, RTCP is the one above; 0 until taken.
	port   uint16
	origin sdp.Origin
	// told is the last description that the peer was sent.
	told []byte
	// peer is where the peer receives, and so sends from (symmetric RTP, M1).
	peer endpoint
}

// endpoint is a peer's media address as agreed on.
type endpoint struct {
	rtp, rtcp netip.AddrPort
	// hold is the old form of hold: the peer named 0.0.0.0 (RFC 2543). The addresses
	// are those from before then, since it may go on sending music from there.
	hold bool
}

func newSide(r *realm, codecs []string) *side {
	return &side{
		realm:  r,
		codecs: codecs,
		origin: sdp.Origin{SessionID: newSessionID(), Version: 1, Addr: r.Addr},
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

// key is the flow of the RTP that this side's peer sends.
func (s *side) key() call.FlowKey { return call.FlowKey{Realm: s.realm.Number, Local: s.rtp()} }

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

// moved is where the peer receives according to its stream.
func (e endpoint) moved(stream *call.Stream) endpoint {
	if stream.RTP.Addr().IsUnspecified() {
		e.hold = true
		return e
	}
	moved := endpoint{rtp: stream.RTP}
	if stream.RTCP.IsValid() && !stream.RTCP.Addr().IsUnspecified() {
		moved.rtcp = stream.RTCP
	}
	return moved
}
