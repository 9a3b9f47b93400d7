package media

import (
	"slices"
	"strings"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// format is one codec of a call as both sides know it. An offer makes it, the answer
// completes it.
type format struct {
	// codec as each side names it. The two differ in what they say beside the name, and in
	// the law of G.711 where that is converted (M14).
	codec [2]call.Codec
	// wants is the payload type in the side's own description: what it is sent.
	wants [2]uint8
	// told is the payload type in what the side was told: what it should send.
	told [2]uint8
}

func (f format) converted() bool { return !same(f.codec[call.Ingress], f.codec[call.Egress]) }

// same reports whether two codecs are one, by what an rtpmap says.
func same(a, b call.Codec) bool {
	return strings.EqualFold(a.Name, b.Name) && a.ClockRate == b.ClockRate && max(a.Channels, 1) == max(b.Channels, 1)
}

// G.711 in its two laws, with the payload types of RFC 3551.
var (
	aLaw = call.Codec{Type: 8, Name: "PCMA", ClockRate: 8000, Channels: 1}
	uLaw = call.Codec{Type: 0, Name: "PCMU", ClockRate: 8000, Channels: 1}
)

// comfort is comfort noise in its usual form (RFC 3389), which peers send unasked too.
var comfort = call.Codec{Type: 13, Name: "CN", ClockRate: 8000, Channels: 1}

func isEvent(c call.Codec) bool { return strings.EqualFold(c.Name, "telephone-event") }

// auxiliary formats share a stream with a codec and carry no speech by themselves.
func auxiliary(c call.Codec) bool { return isEvent(c) || strings.EqualFold(c.Name, "CN") }

func has(codecs []call.Codec, c call.Codec) bool {
	return slices.ContainsFunc(codecs, func(o call.Codec) bool { return same(o, c) })
}

// allows reports whether a codec may be used under the terms (M4, M5).
func (t Terms) allows(c call.Codec) bool {
	switch {
	case isEvent(c):
		return t.DTMF == Events
	case auxiliary(c):
		return true
	case t.DTMF == Inband && !same(c, aLaw) && !same(c, uLaw):
		return false
	}
	return len(t.Codecs) == 0 || slices.ContainsFunc(t.Codecs, func(n string) bool { return strings.EqualFold(n, c.Name) })
}

// propose makes the formats of an offer for the other side: the codecs that both trunks
// allow, in the offerer's order (M4), behind them the other law of G.711 if the offerer
// has only one (M14), and what goes along with them. It is nil if there is no codec.
func propose(offered []call.Codec, from call.Side, terms [2]Terms) []format {
	to := from.Other()
	var own []call.Codec
	for _, c := range offered {
		if terms[from].allows(c) {
			own = append(own, c)
		}
	}
	var formats []format
	last := 0 // behind the last one that carries speech
	add := func(at int, own, other call.Codec) {
		f := format{}
		f.codec[from], f.codec[to] = own, other
		f.wants[from] = own.Type
		formats = slices.Insert(formats, at, f)
		if !auxiliary(own) {
			last = at + 1
		}
	}
	for _, c := range own {
		if terms[to].allows(c) {
			add(len(formats), c, c)
		}
	}
	for _, law := range [][2]call.Codec{{aLaw, uLaw}, {uLaw, aLaw}} {
		i := slices.IndexFunc(own, func(c call.Codec) bool { return same(c, law[0]) })
		if i >= 0 && !has(own, law[1]) && terms[to].allows(law[1]) {
			add(last, own[i], law[1])
		}
	}
	if last == 0 {
		return nil
	}
	return matchEvents(formats)
}

// accept completes the formats of an offer with an answer: in the order of the answer,
// by payload type or else by name, since the answerer may use payload types of its own
// (RFC 3264 section 6.1). agreed is nil if no codec is left. spare are conversions that
// are not needed: the answerer may send their codec all the same, because it was offered.
func accept(answered []call.Codec, formats []format, from call.Side) (agreed, spare []format) {
	to := from.Other()
	left := slices.Clone(formats)
	plain, converted := false, false
	for _, c := range answered {
		is := func(f format) bool { return same(f.codec[from], c) }
		i := slices.IndexFunc(left, func(f format) bool { return f.told[from] == c.Type && is(f) })
		if i < 0 {
			i = slices.IndexFunc(left, is)
		}
		if i < 0 {
			continue
		}
		f := left[i]
		left = slices.Delete(left, i, i+1)
		f.wants[from], f.told[to] = c.Type, f.wants[to]
		f.codec[from].Params, f.codec[to].Params = c.Params, c.Params
		agreed = append(agreed, f)
		plain = plain || !auxiliary(c) && !f.converted()
		converted = converted || f.converted()
	}
	if !plain && !converted {
		return nil, nil
	}
	if plain {
		agreed = slices.DeleteFunc(agreed, func(f format) bool {
			if f.converted() {
				spare = append(spare, f)
			}
			return f.converted()
		})
	}
	return matchEvents(agreed), spare
}

// matchEvents keeps the telephone-events that run on the clock of a codec, as they must
// (RFC 4733 section 2.1). If none does all stay: peers have them at 8000 Hz beside opus.
func matchEvents(formats []format) []format {
	clocks := make(map[uint32]bool)
	for _, f := range formats {
		if c := f.codec[0]; !auxiliary(c) {
			clocks[c.ClockRate] = true
		}
	}
	fits := func(f format) bool { return isEvent(f.codec[0]) && clocks[f.codec[0].ClockRate] }
	if !slices.ContainsFunc(formats, fits) {
		return formats
	}
	return slices.DeleteFunc(formats, func(f format) bool { return isEvent(f.codec[0]) && !fits(f) })
}

// number gives the formats of an offer their payload types on the side that it is made
// to. What a number meant once on a leg it means for good (RFC 3264 section 8.3.2). What
// finds no number is left out.
func (s *side) number(formats []format, to call.Side) []format {
	var taken [128]bool
	var numbered []int
	for _, i := range s.order(formats, to) {
		if n, ok := s.payloadType(formats[i].codec[to], &taken); ok {
			taken[n] = true
			formats[i].told[to] = n
			numbered = append(numbered, i)
		}
	}
	slices.Sort(numbered)
	kept := make([]format, len(numbered))
	for at, i := range numbered {
		f := formats[i]
		f.codec[to].Type = f.told[to]
		s.note(f.codec[to])
		kept[at] = f
	}
	return kept
}

// order is in which order formats choose their payload types: telephone-event first, as
// its type is the operator's wish, and of several the one that has it already, or else
// the one at 8000 Hz, which most peers mean.
func (s *side) order(formats []format, to call.Side) []int {
	rank := func(c call.Codec) int {
		switch {
		case !isEvent(c):
			return 3
		case c.Type == s.terms.eventType():
			return 0
		case c.ClockRate == aLaw.ClockRate:
			return 1
		}
		return 2
	}
	order := make([]int, len(formats))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return rank(formats[a].codec[to]) - rank(formats[b].codec[to]) })
	return order
}

// payloadType finds the number of a codec on this leg; taken are those of the offer so far.
func (s *side) payloadType(c call.Codec, taken *[128]bool) (uint8, bool) {
	meaning := func(n uint8) (call.Codec, bool) {
		i := slices.IndexFunc(s.known, func(k call.Codec) bool { return k.Type == n })
		if i < 0 {
			return call.Codec{}, false
		}
		return s.known[i], true
	}
	free := func(n uint8) bool {
		m, known := meaning(n)
		return !taken[n] && (!known || same(m, c))
	}
	if m, known := meaning(c.Type); known && same(m, c) && !taken[c.Type] {
		return c.Type, true
	}
	for _, k := range s.known {
		if same(k, c) && !taken[k.Type] {
			return k.Type, true
		}
	}
	if isEvent(c) && free(s.terms.eventType()) {
		return s.terms.eventType(), true
	}
	if free(c.Type) && !likeRTCP(c.Type) {
		return c.Type, true
	}
	for n := uint8(96); n <= 127; n++ {
		if free(n) {
			return n, true
		}
	}
	return 0, false
}

// likeRTCP reports whether packets of a payload type look like RTCP when they have the
// marker (RFC 5761 section 4). A peer that uses one on its own leg is not helped by being
// refused, but its number is not passed on.
func likeRTCP(payloadType uint8) bool { return payloadType >= 64 && payloadType <= 95 }

// note remembers what a payload type means on this leg.
func (s *side) note(c call.Codec) {
	i := slices.IndexFunc(s.known, func(k call.Codec) bool { return k.Type == c.Type })
	if i < 0 {
		s.known = append(s.known, c)
		return
	}
	s.known[i] = c
}

// noteNew remembers a payload type that the peer brought in with an answer. One that we
// use ourselves keeps its meaning.
func (s *side) noteNew(n uint8, c call.Codec) {
	if !slices.ContainsFunc(s.known, func(k call.Codec) bool { return k.Type == n }) {
		c.Type = n
		s.known = append(s.known, c)
	}
}

// speaks reports whether one of the formats carries speech.
func speaks(formats []format) bool {
	return slices.ContainsFunc(formats, func(f format) bool { return !auxiliary(f.codec[call.Ingress]) })
}

// codecs are the formats as a side is told of them: with what each is by told.
func codecs(formats []format, to call.Side) []call.Codec {
	list := make([]call.Codec, len(formats))
	for i, f := range formats {
		list[i] = f.codec[to]
		list[i].Type = f.told[to]
	}
	return list
}

// talk is what an answer settled about codecs.
type talk struct {
	// agreed are the formats in use; spare ones may only come from the answerer.
	agreed, spare []format
	answerer      call.Side
	// comfort is the payload type by which each side listed comfort noise, 0 if it did not.
	comfort [2]uint8
}

// codec is the one that carries a side's speech, the zero value before an answer.
func (k talk) codec(of call.Side) call.Codec {
	i := slices.IndexFunc(k.agreed, func(f format) bool { return !auxiliary(f.codec[of]) })
	if i < 0 {
		return call.Codec{}
	}
	return k.agreed[i].codec[of]
}

// payloads are what is let in from a side and how it goes on to the other (M5, M14).
func (k talk) payloads(from call.Side) []call.Payload {
	to := from.Other()
	var list []call.Payload
	add := func(in, out uint8, t call.Treatment) {
		if !slices.ContainsFunc(list, func(p call.Payload) bool { return p.In == in }) {
			list = append(list, call.Payload{In: in, Out: out, Treatment: t})
		}
	}
	formats := slices.Clone(k.agreed)
	if k.answerer == from {
		formats = append(formats, k.spare...)
	}
	// The main codec first: engines have a short way for it.
	slices.SortStableFunc(formats, func(a, b format) int { return rank(a.codec[from]) - rank(b.codec[from]) })
	for _, f := range formats {
		add(f.told[from], f.wants[to], f.treatment(from))
	}
	// Peers send comfort noise unasked; who has not listed it does not get it.
	if out := k.comfort[to]; out != 0 {
		add(comfort.Type, out, call.AsIs)
	}
	// Some peers send by the payload types of their own description. Where these do not
	// mean something else it is clear what they are.
	for _, f := range formats {
		add(f.wants[from], f.wants[to], f.treatment(from))
	}
	return list
}

func rank(c call.Codec) int {
	if auxiliary(c) {
		return 1
	}
	return 0
}

func (f format) treatment(from call.Side) call.Treatment {
	switch {
	case isEvent(f.codec[from]):
		return call.TelephoneEvent
	case !f.converted():
		return call.AsIs
	case same(f.codec[from], aLaw):
		return call.ALawToULaw
	default:
		return call.ULawToALaw
	}
}

// comfortType is the payload type of comfort noise in a description, 0 if it has none.
func comfortType(codecs []call.Codec) uint8 {
	i := slices.IndexFunc(codecs, func(c call.Codec) bool { return same(c, comfort) })
	if i < 0 {
		return 0
	}
	return codecs[i].Type
}
