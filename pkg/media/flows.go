package media

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// route makes the flows between two peers: from each one's address to our port on
// its side, out of our port on the other side, to the other one's address.
func (s *Session) route(ends [2]endpoint, codec call.Codec) []call.Flow {
	flows := make([]call.Flow, 0, 4)
	add := func(in, out *side, key, source, remote, dest netip.AddrPort, rtcp, hold bool) {
		// Without both addresses there is nobody to let in or to send to.
		if !remote.IsValid() || !dest.IsValid() {
			return
		}
		f := call.Flow{
			Key:      call.FlowKey{Realm: in.realm.Number, Local: key},
			Remote:   remote,
			OutRealm: out.realm.Number,
			Source:   source,
			Dest:     dest,
			DSCP:     out.realm.DSCP,
			RTCP:     rtcp,
			Hold:     hold,
		}
		if !rtcp {
			f.ClockRate = codec.ClockRate
		}
		flows = append(flows, f)
	}
	for from := range ends {
		in, out := s.sides[from], s.sides[1-from]
		add(in, out, in.rtp(), out.rtp(), ends[from].rtp, ends[1-from].rtp, false, ends[1-from].hold)
	}
	for from := range ends {
		in, out := s.sides[from], s.sides[1-from]
		add(in, out, in.rtcp(), out.rtcp(), ends[from].rtcp, ends[1-from].rtcp, true, ends[1-from].hold)
	}
	return flows
}

// install brings the engine in step with flows. Flows that are there already are
// updated in place: removing and adding them would lose packets.
func (s *Session) install(flows []call.Flow) error {
	if !slices.EqualFunc(flows, s.flows, call.Flow.Equal) && len(flows) > 0 {
		if err := s.media.engine.Install(flows); err != nil {
			return fmt.Errorf("media flows: %w", err)
		}
	}
	var stale []call.FlowKey
	for _, old := range s.flows {
		if !slices.ContainsFunc(flows, func(f call.Flow) bool { return f.Key == old.Key }) {
			stale = append(stale, old.Key)
		}
	}
	s.flows = flows
	if len(stale) > 0 {
		if _, err := s.media.engine.Remove(stale); err != nil {
			s.media.log.Warn("stale media flows not removed", "local", stale[0].Local, "error", err)
		}
	}
	return nil
}

// remove takes all flows out and returns their final counters, in the order of
// s.flows. A failure costs the counters, not the call's end.
func (s *Session) remove() []call.FlowStats {
	if len(s.flows) == 0 {
		return nil
	}
	stats, err := s.media.engine.Remove(keys(s.flows))
	if err != nil {
		s.media.log.Warn("media flows not removed", "local", s.flows[0].Key.Local, "error", err)
	}
	return stats[:min(len(stats), len(s.flows))]
}

// Media returns what each side sent, as of now. It fails when the session is closed
// or the engine cannot say.
func (s *Session) Media() (ingress, egress call.Media, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ingress, egress, fmt.Errorf("%w: the session is closed", ErrState)
	}
	var stats []call.FlowStats
	if len(s.flows) > 0 {
		if stats, err = s.media.engine.Snapshot(keys(s.flows)); err != nil {
			return ingress, egress, fmt.Errorf("media counters: %w", err)
		}
	}
	sent := s.sent(stats)
	return sent[call.Ingress], sent[call.Egress], nil
}

// Close removes the flows, puts the ports into quarantine and returns what each side
// sent. Further calls return the same again.
func (s *Session) Close() (ingress, egress call.Media) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		s.final = s.sent(s.remove())
		s.flows, s.offer = nil, nil
		for _, side := range s.sides {
			if side != nil {
				side.givePort()
			}
		}
	}
	return s.final[call.Ingress], s.final[call.Egress]
}

// sent sorts the counters of s.flows by the side that sent the packets.
func (s *Session) sent(stats []call.FlowStats) [2]call.Media {
	var sent [2]call.Media
	for i, side := range s.sides {
		if side == nil || side.port == 0 {
			continue
		}
		var st call.FlowStats
		for j := range min(len(stats), len(s.flows)) {
			if s.flows[j].Key == side.key() {
				st = stats[j]
			}
		}
		if call.Side(i) == call.Ingress {
			st = sum(s.before, st)
		}
		sent[i] = call.Media{
			Local: side.rtp(), Remote: side.peer.rtp,
			Packets: st.Packets, Bytes: st.Bytes, Lost: st.Lost, Reordered: st.Reordered, Refused: st.Refused,
			JitterMS: float64(st.Jitter) / float64(time.Millisecond),
		}
		if s.codec.Name != "" {
			sent[i].Codec = codecName(s.codec)
		}
	}
	return sent
}

// sum adds up the counters of two flows that followed each other; jitter is a
// running estimate, so the later one's holds.
func sum(a, b call.FlowStats) call.FlowStats {
	b.Packets += a.Packets
	b.Bytes += a.Bytes
	b.Lost += a.Lost
	b.Reordered += a.Reordered
	b.Refused += a.Refused
	return b
}

func keys(flows []call.Flow) []call.FlowKey {
	list := make([]call.FlowKey, len(flows))
	for i, f := range flows {
		list[i] = f.Key
	}
	return list
}

// codecName is how records name a codec, e.g. "PCMA/8000", "opus/48000/2".
func codecName(c call.Codec) string {
	if c.Channels > 1 {
		return fmt.Sprintf("%s/%d/%d", c.Name, c.ClockRate, c.Channels)
	}
	return fmt.Sprintf("%s/%d", c.Name, c.ClockRate)
}
