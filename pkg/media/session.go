package media

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/sdp"
)

// Session is the media of one call: two sides with a port pair each, and up to four
// flows (RTP and RTCP, both directions). Its methods may be called from any
// goroutine; offers and answers are expected from the one that owns the call.
type Session struct {
	media *Media

	mu    sync.Mutex
	sides [2]*side // the egress side is nil until SetEgress
	// offer is the last one made, answered or not: an answer may come several times
	// (18x, then 200).
	offer *offer
	// flows are those that are installed, the RTP ones first.
	flows []call.Flow
	codec call.Codec
	// before is what the ingress side sent during tries that came to nothing.
	before call.FlowStats

	closed bool
	final  [2]call.Media
}

// offer is what one side proposed, as it was passed on to the other.
type offer struct {
	from call.Side
	desc call.MediaDesc
	// audio is the index of the stream that is carried.
	audio    int
	answered bool
}

// SetEgress opens the egress side: it takes the ports of both sides, so that a lack
// of them shows before anyone is invited. A former egress side (a try that came to
// nothing) is closed, with its flows and ports; the ingress side keeps its port.
//
// Errors are ErrNoPorts, ErrState after Close, and an unknown realm.
func (s *Session) SetEgress(realm string, codecs []string) error {
	r, err := s.media.realm(realm)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return fmt.Errorf("%w: the session is closed", ErrState)
	}
	if s.sides[call.Egress] != nil {
		for i, st := range s.remove() {
			if s.flows[i].Key == s.sides[call.Ingress].key() {
				s.before = sum(s.before, st)
			}
		}
		s.flows, s.offer, s.codec = nil, nil, call.Codec{}
		s.sides[call.Egress].givePort()
		s.sides[call.Egress] = nil
	}
	egress := newSide(r, codecs)
	if err := egress.takePort(); err != nil {
		return err
	}
	if err := s.sides[call.Ingress].takePort(); err != nil {
		egress.givePort()
		return err
	}
	s.sides[call.Egress] = egress
	return nil
}

// Offer takes the offer of one side and returns the one for the other: our address
// and port in place of the peer's, the codecs that both trunks allow in the
// offerer's order, everything that is not carried refused in place. Nothing changes
// for the media until an Answer; an offer still unanswered is replaced.
//
// Errors are ErrBadSDP, ErrNoAudio, ErrNoCommonCodec and ErrState.
func (s *Session) Offer(from call.Side, body []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.sides[call.Egress] == nil {
		return nil, fmt.Errorf("%w: an offer on a session that is not open", ErrState)
	}
	desc, err := s.parse(from, body)
	if err != nil {
		return nil, err
	}
	audio := slices.IndexFunc(desc.Streams, func(st call.Stream) bool { return !st.Refused })
	if audio < 0 {
		return nil, ErrNoAudio
	}
	codecs := permitted(desc.Streams[audio].Codecs, s.sides[call.Ingress].codecs, s.sides[call.Egress].codecs)
	if codecs == nil {
		return nil, fmt.Errorf("%w: the offer has none that both trunks allow", ErrNoCommonCodec)
	}
	desc.Streams[audio].Codecs = codecs
	s.offer = &offer{from: from, desc: desc, audio: audio}
	return s.pass(from.Other(), desc, audio), nil
}

// Answer takes a side's answer to the other's offer and returns the one for the
// offerer. It may come several times for one offer: early (18x) and final (200). Once
// it has come, an empty body stands for the same again (RFC 3261 section 13.2.1). The
// flows are installed, or updated in place, before it returns. If it fails, what was
// agreed before stays as it is.
//
// Errors are ErrBadSDP, ErrNoCommonCodec, ErrState, and those of the engine.
func (s *Session) Answer(from call.Side, body []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.offer == nil || s.offer.from != from.Other() {
		return nil, fmt.Errorf("%w: an answer without an offer", ErrState)
	}
	if len(body) == 0 && s.offer.answered {
		return s.sides[from.Other()].told, nil
	}
	desc, err := s.parse(from, body)
	if err != nil {
		return nil, err
	}
	stream, err := s.offer.match(&desc)
	if err != nil {
		return nil, err
	}
	ends := [2]endpoint{s.sides[call.Ingress].peer, s.sides[call.Egress].peer}
	ends[from] = ends[from].moved(stream)
	ends[from.Other()] = ends[from.Other()].moved(&s.offer.desc.Streams[s.offer.audio])
	codec := speech(stream.Codecs)
	if err := s.install(s.route(ends, codec)); err != nil {
		return nil, err
	}
	for i, end := range ends {
		s.sides[i].peer = end
	}
	s.codec, s.offer.answered = codec, true
	return s.pass(from.Other(), desc, s.offer.audio), nil
}

// Rollback drops an offer that was refused: what was agreed before it stays. It does
// nothing if none is unanswered.
func (s *Session) Rollback() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offer != nil && !s.offer.answered {
		s.offer = nil
	}
}

// match fits an answer to the offer, line by line (RFC 3264 section 6), and returns
// its audio stream. desc is made to fit: lines that were left out count as refused.
func (o *offer) match(desc *call.MediaDesc) (*call.Stream, error) {
	if len(desc.Streams) > len(o.desc.Streams) {
		return nil, fmt.Errorf("%w: the answer has %d streams, the offer %d", ErrBadSDP, len(desc.Streams), len(o.desc.Streams))
	}
	if len(desc.Streams) <= o.audio || desc.Streams[o.audio].Refused {
		return nil, fmt.Errorf("%w: the answer refuses the audio", ErrNoCommonCodec)
	}
	// Everything but the audio was refused in the offer, and stays so.
	streams := slices.Clone(o.desc.Streams)
	stream := &streams[o.audio]
	media, proto := stream.Media, stream.Proto
	*stream = desc.Streams[o.audio]
	stream.Media, stream.Proto = media, proto
	desc.Streams = streams
	stream.Codecs = accepted(stream.Codecs, o.desc.Streams[o.audio].Codecs)
	if stream.Codecs == nil {
		return nil, fmt.Errorf("%w: the answer takes none that was offered", ErrNoCommonCodec)
	}
	return stream, nil
}

// pass writes a description for a side, with our own address in it.
func (s *Session) pass(to call.Side, desc call.MediaDesc, audio int) []byte {
	side := s.sides[to]
	streams := slices.Clone(desc.Streams)
	st := &streams[audio]
	// Hold in the old form reaches the other side as it is (S7).
	addr := side.realm.Addr
	if st.RTP.Addr().IsUnspecified() {
		addr = st.RTP.Addr()
	}
	st.RTP, st.RTCP = netip.AddrPortFrom(addr, side.port), netip.AddrPortFrom(addr, side.port+1)
	return side.tell(call.MediaDesc{Streams: streams})
}

// parse reads a description of one side.
func (s *Session) parse(from call.Side, body []byte) (call.MediaDesc, error) {
	desc, err := sdp.Parse(body)
	if err != nil {
		return desc, fmt.Errorf("%w: %w", ErrBadSDP, err)
	}
	if audio := desc.Audio(); audio != nil && (s.media.ours(audio.RTP) || s.media.ours(audio.RTCP)) {
		return desc, fmt.Errorf("%w: the media address %v is our own", ErrBadSDP, audio.RTP)
	}
	if len(desc.SetAside) > 0 {
		s.media.log.Debug("session description mended", "side", from, "local", s.sides[from].rtp(),
			slog.Any("set_aside", desc.SetAside))
	}
	return desc, nil
}
