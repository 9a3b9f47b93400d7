package relay

import (
	"slices"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/g711"
)

// judge takes one packet through the gates, in the kernel engine's order, and returns
// the path that it leaves by; nil if it does not.
func (s *socket) judge(e *Engine, p *packet) (exit, *path) {
	f := s.flow.Load()
	if f == nil {
		return exitNoFlow, nil
	}
	x, muxed := f.enter(e, p)
	if x != exitForwarded {
		return x, nil
	}
	if muxed {
		if f = s.above.Load(); f == nil {
			return exitNoFlow, nil
		}
	}
	return f.cross(e, p)
}

// enter has the gates that say whether a packet is let in: by its source (M7), and by
// what was agreed on. RTCP that is muxed belongs to the flow of the port above.
func (f *flow) enter(e *Engine, p *packet) (x exit, muxed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return exitNoFlow, false
	}
	def := &f.path.flow
	x = p.parse(def.RTCP)
	if x == exitForwarded && !p.rtcp && !p.agreed(def.Payloads) {
		x = exitPayloadType
	}
	if !f.letIn(e, p, x == exitForwarded) {
		f.stats.Refused++
		if e.refusals.first(f.key.Realm, p.from.Addr(), p.at) {
			e.emit(p.event(f.key, call.MediaRefused))
		}
		return exitSourceRefused, false
	}
	if x != exitForwarded {
		f.stats.OutOfPolicy++
	}
	if s := &f.sequence; x == exitPayloadType && s.running && s.ssrc == p.ssrc() {
		// It did come, so its sequence number is not lost.
		s.received(p.ssrc(), p.sequence(), p.timestamp(), p.at.Sub(f.stats.First), 0)
	}
	return x, p.rtcp && def.Mux && !def.RTCP
}

// agreed finds what becomes of the payload type, and reports whether it is let in.
func (p *packet) agreed(payloads []call.Payload) bool {
	t := p.payloadType()
	if len(payloads) == 0 {
		p.payload = call.Payload{In: t, Out: t}
		return true
	}
	i := slices.IndexFunc(payloads, func(l call.Payload) bool { return l.In == t })
	if i < 0 {
		return false
	}
	p.payload = payloads[i]
	return true
}

// cross counts a packet that was let in, and makes it the other side's.
func (f *flow) cross(e *Engine, p *packet) (exit, *path) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return exitNoFlow, nil
	}
	f.count(e, p)
	if f.path.flow.Hold {
		return exitHold, nil
	}
	if !p.rtcp && !f.treat(e, p) {
		return exitNotRTP, nil
	}
	return exitForwarded, f.path
}

// treat converts the payload (M14), hears keys in it (M5), and gives it the other side's
// type. It reports false where there is nothing to convert for all that the headers say:
// the other side would take the octets for another law's, which is noise at full level.
func (f *flow) treat(e *Engine, p *packet) bool {
	switch p.payload.Treatment {
	case call.AsIs:
	case call.ALawToULaw:
		if !p.convert(&g711.ALawToULaw) {
			return false
		}
	case call.ULawToALaw:
		if !p.convert(&g711.ULawToALaw) {
			return false
		}
	case call.TelephoneEvent:
		f.hear(e, p)
	}
	p.setPayloadType(p.payload.Out)
	return true
}

func (p *packet) convert(law *[256]byte) bool {
	payload, ok := p.body()
	if ok {
		g711.Convert(payload, law)
	}
	return ok
}
