package media

import (
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// Silence is why a call should end: nothing came of what was expected (M8).
type Silence struct {
	// OneWay means that IdleOneWay has passed, not Idle.
	OneWay bool
	// For is how long nothing came, to about a second.
	For time.Duration
}

// Silent yields one value, when the call should end for want of media (M8), and is never
// closed. The watch begins with the first call of Silent: whoever waits for an answer
// does not watch yet. It needs Media.Run.
//
// A side is expected to send if its own description says that it sends, the other's that
// it receives, and the other is not on hold in the old form (0.0.0.0). Only RTP that is
// let in counts; RTCP is no sign of life, among the RTP neither. Time runs from the last
// packet, or from when the watch, or what the sides agreed on, began or changed. Limits are
// the shorter ones of both sides' Terms.
//
//   - Both are expected: after Idle in which neither has sent, or after IdleOneWay in
//     which one of them has not.
//   - One is expected: after IdleOneWay in which that one has not sent, whatever the
//     other does.
//   - Nobody is expected (hold on both sides): after IdleOneWay in which nobody has sent.
func (s *Session) Silent() <-chan Silence {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch.out == nil {
		s.watch.out = make(chan Silence, 1)
		s.watch.begin(time.Now())
	}
	return s.watch.out
}

// watch is how long each side of a session has been silent. It tells by the counters, not
// by the times that the engine gives: those are of another clock, and a step of the wall
// clock would end every call.
type watch struct {
	// out is nil until somebody wants to know; said means that it was written to.
	out  chan Silence
	said bool
	// heard is when packets, the counter of RTP, was last seen to change.
	packets [2]uint64
	heard   [2]time.Time
}

func (w *watch) begin(now time.Time) { w.heard = [2]time.Time{now, now} }

func (w *watch) on() bool { return w.out != nil && !w.said }

// look takes in a session's counters and speaks up if it has been silent for too long.
func (v view) look(stats []call.FlowStats, now time.Time) {
	s := v.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.epoch != v.epoch {
		return // the next look will see the counters of the flows that took their place
	}
	w := &s.watch
	for i, st := range v.of(stats) {
		// RTCP among the RTP comes from a peer whose speech has ended, too.
		if speech := speechPackets(st); speech != w.packets[i] {
			w.packets[i], w.heard[i] = speech, now
		}
	}
	if silence := s.silence(now); silence != (Silence{}) {
		w.said = true
		w.out <- silence
	}
}

// silence is what Silent tells, or the zero value if there is nothing to tell.
func (s *Session) silence(now time.Time) Silence {
	ends, terms := s.ends(), [2]Terms{s.sides[call.Ingress].terms, s.sides[call.Egress].terms}
	quiet := [2]time.Duration{now.Sub(s.watch.heard[call.Ingress]), now.Sub(s.watch.heard[call.Egress])}
	both, missing := min(quiet[0], quiet[1]), time.Duration(0)
	expected := directions(ends)
	for i := range expected {
		if expected[i] {
			missing = max(missing, quiet[i])
		}
	}
	switch expected {
	case [2]bool{true, true}:
		if limit := shorter(terms[0].Idle, terms[1].Idle); limit > 0 && both >= limit {
			return Silence{For: both}
		}
	case [2]bool{false, false}:
		missing = both
	}
	if limit := shorter(terms[0].IdleOneWay, terms[1].IdleOneWay); limit > 0 && missing >= limit {
		return Silence{OneWay: true, For: missing}
	}
	return Silence{}
}

// sends reports whether a peer is expected to send RTP to another.
func sends(from, to endpoint) bool {
	out := from.direction == call.SendRecv || from.direction == call.SendOnly
	in := to.direction == call.SendRecv || to.direction == call.RecvOnly
	return out && in && !to.hold
}

// directions are what of two endpoints decides who is expected to send.
func directions(ends [2]endpoint) [2]bool {
	return [2]bool{sends(ends[0], ends[1]), sends(ends[1], ends[0])}
}

// shorter is the shorter of two limits, of which 0 is none.
func shorter(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
