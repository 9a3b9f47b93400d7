package relay

import (
	"bytes"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// count brings the flow's counters up to date. The caller holds f.mu.
func (f *flow) count(e *Engine, p *packet) {
	if f.stats.Packets == 0 {
		f.stats.First = p.at
		e.emit(p.event(f.key, call.MediaStarted))
	}
	f.stats.Last = p.at
	f.stats.Packets++
	f.stats.Bytes += uint64(len(p.data))
	if p.rtcp {
		if !f.path.flow.RTCP {
			f.stats.Control++
		}
		f.report(e, p)
		return
	}
	if !f.lastRTP.IsZero() {
		f.stats.Gap = max(f.stats.Gap, p.at.Sub(f.lastRTP))
	}
	f.lastRTP = p.at

	ssrc := p.ssrc()
	if f.sequence.running && ssrc != f.sequence.ssrc {
		f.stats.SSRCChanges++
		ev := p.event(f.key, call.MediaSSRC)
		ev.SSRC = ssrc
		e.emit(ev)
	}
	clock := f.path.flow.ClockRate
	if p.payload.Treatment == call.TelephoneEvent {
		clock = 0 // its timestamps say when the key was pressed, not when the packet was sent
	}
	f.sequence.received(ssrc, p.sequence(), p.timestamp(), p.at.Sub(f.stats.First), clock)
}

// report copies RTCP (M2), at a rate that a peer cannot raise.
func (f *flow) report(e *Engine, p *packet) {
	if !f.reported.IsZero() && p.at.Sub(f.reported) < call.ReportGap {
		e.eventsLost.Add(1)
		return
	}
	f.reported = p.at
	ev := p.event(f.key, call.MediaReport)
	ev.Packet = bytes.Clone(p.data[:min(len(p.data), call.MaxReport)])
	e.emit(ev)
}
