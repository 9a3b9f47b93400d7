package relay

import (
	"github.com/tandem-sbc/tandem/pkg/call"
)

const (
	eventPayload = 4      // bytes, RFC 4733 section 2.3
	lastDigit    = 15     // events 0-15 are keys (RFC 4733 section 3.2)
	longestEvent = 0xffff // in timestamp units: a longer one goes on in another segment
	lateEvent    = 240000 // likewise: 5 s at 48 kHz, 30 s at 8 kHz
)

// key is the telephone key that was reported last.
type key struct {
	known     bool
	event     uint8
	ssrc      uint32
	timestamp uint32
}

// pressed takes in a packet of a key, and reports whether it is the first that came of
// it. All packets of a key have one timestamp; a key held for longer than that can count
// goes on where its last segment ends (RFC 4733 section 2.5.1.3). What comes late, of a
// key before, was reported then.
func (k *key) pressed(event uint8, ssrc, timestamp uint32) bool {
	if k.known && ssrc == k.ssrc {
		if age := k.timestamp - timestamp; age < lateEvent {
			return false
		}
		if event == k.event && timestamp == k.timestamp+longestEvent {
			k.timestamp = timestamp
			return false
		}
	}
	*k = key{known: true, event: event, ssrc: ssrc, timestamp: timestamp}
	return true
}

// hear reports keys (M5), never in the log: they may be card numbers. The caller holds f.mu.
func (f *flow) hear(e *Engine, p *packet) {
	payload, ok := p.body()
	if !ok || len(payload) < eventPayload || payload[0] > lastDigit {
		return
	}
	if f.keyed.pressed(payload[0], p.ssrc(), p.timestamp()) {
		f.stats.Digits++
		ev := p.event(f.key, call.MediaDigit)
		ev.Digit = payload[0]
		e.emit(ev)
	}
}
