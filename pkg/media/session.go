package media

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	// talk is what the last answer settled, speech what each side speaks by it.
	talk   talk
	speech [2]speech
	// promised is the codec that the caller was told of by a try that came to nothing; the
	// zero value is none.
	promised call.Codec
	// flows are those that are installed; inbound are the keys of the RTP that each side
	// sends, zero if it has no flow.
	flows   []call.Flow
	inbound [2]call.FlowKey
	// epoch counts the changes of inbound, and Close: who has read counters without mu sees
	// by it whether they are still the session's.
	epoch uint64
	// before is what the ingress side sent during tries that came to nothing.
	before call.FlowStats
	// left are flows that are not wanted any more and that the engine did not remove.
	left    []call.FlowKey
	reports reports
	watch   watch

	closed bool
	final  [2]call.Media
}

// offer is what one side proposed, and how it was passed on to the other.
type offer struct {
	from call.Side
	// streams as the offerer described them; audio is the index of the one that is carried.
	streams []call.Stream
	audio   int
	formats []format
	// mux means that it was passed on with a=rtcp-mux.
	mux      bool
	answered bool
}

func (o *offer) stream() *call.Stream { return &o.streams[o.audio] }

// SetEgress opens the egress side: it takes the ports of both sides, so that a lack
// of them shows before anyone is invited. A former egress side (a try that came to
// nothing) is closed, with its flows and ports; the ingress side keeps its port. If the try
// has answered the caller's offer with early media, the caller goes by that for good and
// ignores what other descriptions say (RFC 3261 section 13.2.1): the offer is passed on with
// the one codec of that answer from now on, or with the other law of G.711 (M14).
//
// Errors are ErrNoPorts, ErrState after Close, and an unknown realm.
func (s *Session) SetEgress(realm string, terms Terms) error {
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
		s.before = sum(s.before, s.remove()[call.Ingress])
		s.promise()
		s.offer, s.talk, s.speech = nil, talk{}, [2]speech{}
		s.reports.forget()
		s.release(s.sides[call.Egress])
		s.sides[call.Egress] = nil
	}
	egress := newSide(r, terms)
	if err := egress.takePort(); err != nil {
		return err
	}
	if err := s.sides[call.Ingress].takePort(); err != nil {
		egress.givePort()
		return err
	}
	s.sides[call.Egress] = egress
	s.media.enter(s)
	return nil
}

// promise remembers by which codec the caller was answered.
func (s *Session) promise() {
	if s.offer != nil && s.offer.answered && s.offer.from == call.Ingress {
		s.promised = s.talk.codec(call.Ingress)
	}
}

// keepPromise leaves of the caller's first offer what can be answered as it was before, so
// that nothing of what the caller was told becomes untrue.
func (s *Session) keepPromise(codecs []call.Codec) []call.Codec {
	return slices.DeleteFunc(codecs, func(c call.Codec) bool { return !auxiliary(c) && !same(c, s.promised) })
}

// Offer takes the offer of one side and returns the one for the other: our address
// and port in place of the peer's, the codecs that both trunks allow in the
// offerer's order, everything that is not carried refused in place. An offerer that has
// one law of G.711 only is helped out with the other (M14), and telephone-event gets the
// payload type that the other side's trunk asks for (M5). Nothing changes for the media
// until an Answer; an offer still unanswered is replaced.
//
// Errors are ErrBadSDP, ErrNoAudio, ErrNoCommonCodec, ErrEarlyMedia and ErrState.
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
	o := &offer{from: from, streams: desc.Streams}
	o.audio = slices.IndexFunc(desc.Streams, func(st call.Stream) bool { return !st.Refused })
	if o.audio < 0 {
		return nil, ErrNoAudio
	}
	missing := ErrNoCommonCodec
	if from == call.Ingress && s.talk.agreed == nil && s.promised.Name != "" {
		o.stream().Codecs = s.keepPromise(o.stream().Codecs)
		missing = ErrEarlyMedia
	}
	this, other := s.sides[from], s.sides[from.Other()]
	terms := [2]Terms{call.Ingress: s.sides[call.Ingress].terms, call.Egress: s.sides[call.Egress].terms}
	for _, c := range o.stream().Codecs {
		this.note(c)
	}
	o.formats = other.number(propose(o.stream().Codecs, from, terms), from.Other())
	if !speaks(o.formats) {
		return nil, fmt.Errorf("%w: the offer has none that both trunks allow", missing)
	}
	// Multiplexing is each leg's own affair (M2). We do not begin it, but keep to it.
	o.mux = other.peer.mux
	s.offer = o
	return s.pass(from.Other(), *o.stream(), codecs(o.formats, from.Other()), o.mux), nil
}

// Answer takes a side's answer to the other's offer and returns the one for the
// offerer. It may come several times for one offer: early (18x) and final (200). Once
// it has come, an empty body stands for the same again (RFC 3261 section 13.2.1). The
// flows are installed, or updated in place, before it returns. A source that was not learned
// yet may be from now on, for the window of the side's terms (M7). If it fails, what was
// agreed before stays as it is.
//
// Errors are ErrBadSDP, ErrNoCommonCodec, ErrState, and those of the engine.
func (s *Session) Answer(from call.Side, body []byte) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := from.Other()
	if s.closed || s.offer == nil || s.offer.from != to {
		return nil, fmt.Errorf("%w: an answer without an offer", ErrState)
	}
	ends := s.ends()
	if len(body) == 0 && s.offer.answered {
		ends[from], ends[to] = ends[from].answered(), ends[to].answered()
		if err := s.settle(ends, s.talk); err != nil {
			return nil, err
		}
		return s.sides[to].told, nil
	}
	desc, err := s.parse(from, body)
	if err != nil {
		return nil, err
	}
	offered := s.offer.stream()
	stream, err := s.offer.match(&desc)
	if err != nil {
		return nil, err
	}
	settled := talk{answerer: from}
	settled.comfort[from], settled.comfort[to] = comfortType(stream.Codecs), comfortType(offered.Codecs)
	if settled.agreed, settled.spare = accept(stream.Codecs, s.offer.formats, from); settled.agreed == nil {
		return nil, fmt.Errorf("%w: the answer takes none that was offered", ErrNoCommonCodec)
	}
	ends[from] = ends[from].moved(stream, stream.Mux && s.offer.mux)
	ends[to] = ends[to].moved(offered, offered.Mux)
	if err := s.settle(ends, settled); err != nil {
		return nil, err
	}
	for _, f := range settled.agreed {
		s.sides[from].noteNew(f.wants[from], f.codec[from])
	}
	s.offer.answered = true
	return s.pass(to, *stream, codecs(settled.agreed, to), offered.Mux), nil
}

// ends are where the two peers are, as agreed so far.
func (s *Session) ends() [2]endpoint {
	return [2]endpoint{s.sides[call.Ingress].peer, s.sides[call.Egress].peer}
}

// settle puts what was agreed on into the engine, and then remembers it.
func (s *Session) settle(ends [2]endpoint, settled talk) error {
	before := s.flows
	if err := s.install(s.route(ends, settled)); err != nil {
		return err
	}
	if directions(ends) != directions(s.ends()) || !slices.EqualFunc(before, s.flows, sameWay) {
		s.watch.begin(time.Now())
	}
	for i, end := range ends {
		s.sides[i].peer = end
	}
	s.talk = settled
	s.speech = [2]speech{newSpeech(settled.codec(call.Ingress)), newSpeech(settled.codec(call.Egress))}
	return nil
}

// sameWay reports whether flows differ in nothing but who may be learned. That changes with
// each answer, and a peer that refreshes the session is not heard by it (M8).
func sameWay(a, b call.Flow) bool {
	a.Latch, b.Latch = call.Latch{}, call.Latch{}
	return a.Equal(b)
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
// its audio stream. Lines that were left out count as refused.
func (o *offer) match(desc *call.MediaDesc) (*call.Stream, error) {
	if len(desc.Streams) > len(o.streams) {
		return nil, fmt.Errorf("%w: the answer has %d streams, the offer %d", ErrBadSDP, len(desc.Streams), len(o.streams))
	}
	if len(desc.Streams) <= o.audio || desc.Streams[o.audio].Refused {
		return nil, fmt.Errorf("%w: the answer refuses the audio", ErrNoCommonCodec)
	}
	stream := desc.Streams[o.audio]
	stream.Media, stream.Proto = o.stream().Media, o.stream().Proto
	return &stream, nil
}

// pass writes the description of one side's stream for the other, with our own address
// in it. What is not carried was refused in the offer, and stays so in its place.
func (s *Session) pass(to call.Side, stream call.Stream, codecs []call.Codec, mux bool) []byte {
	side := s.sides[to]
	// Hold in the old form reaches the other side as it is (S7).
	addr := side.realm.Addr
	if stream.RTP.Addr().IsUnspecified() {
		addr = stream.RTP.Addr()
	}
	stream.RTP, stream.RTCP = netip.AddrPortFrom(addr, side.port), netip.AddrPortFrom(addr, side.port+1)
	stream.Codecs, stream.Mux = codecs, mux
	streams := slices.Clone(s.offer.streams)
	streams[s.offer.audio] = stream
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

// latched follows a peer to the source that the engine has learned: what is for the peer
// goes there from now on (M7). The engine is asked who that is, since whoever says that
// something was learned may say it of a place that the peer has left since. said is what
// was said.
func (s *Session) latched(side call.Side, key call.FlowKey, said netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.ContainsFunc(s.flows, func(f call.Flow) bool { return f.Key == key && f.Latch.Window > 0 }) {
		return // gone meanwhile
	}
	log := s.media.log.With("realm", key.Realm, "local", key.Local)
	stats, err := s.media.snapshot(&batch{keys: []call.FlowKey{key}})
	if err != nil {
		log.Warn("learned media source not known yet", "error", err)
		return
	}
	ends := s.ends()
	where := &ends[side].rtp
	if key != s.sides[side].key() {
		where = &ends[side].rtcp
	}
	source := stats[0].Remote
	switch {
	case !source.IsValid() || source == where.shunned:
		return
	case source == where.addr():
		if said == source { // it is where it was described to be, and stays so for good
			where.learned = source
			s.sides[side].peer = ends[side]
		}
		return
	}
	log = log.With("source", source, "described", where.described)
	if s.media.ours(source) || source.Port() < call.LowestMediaPort {
		where.shunned = source
		s.sides[side].peer = ends[side]
		log.Warn("learned media source not sent to: a forged one, or a port that no media may go to")
		return
	}
	failed := *where
	*where = place{described: where.described, learned: source, generation: where.generation}
	if err := s.settle(ends, s.talk); err != nil {
		if failed.failing != source {
			log.Error("learned media source not sent to yet", "error", err)
		}
		failed.failing = source
		*where = failed
		s.sides[side].peer = ends[side]
		return
	}
	log.Info("media source learned")
}
