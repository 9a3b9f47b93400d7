package media

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// route makes the flows between two peers: from each one's address to our port on
// its side, out of our port on the other side, to the other one's address.
func (s *Session) route(ends [2]endpoint, settled talk) []call.Flow {
	flows := make([]call.Flow, 0, 4)
	add := func(from call.Side, key call.FlowKey, remote, source, dest netip.AddrPort) *call.Flow {
		// Without both addresses there is nobody to let in or to send to.
		if !remote.IsValid() || !dest.IsValid() {
			return &call.Flow{}
		}
		out := s.sides[from.Other()].realm
		flows = append(flows, call.Flow{
			Key: key, Remote: remote, OutRealm: out.Number, Source: source, Dest: dest, DSCP: out.DSCP,
			Hold: ends[from.Other()].hold,
		})
		return &flows[len(flows)-1]
	}
	for _, from := range []call.Side{call.Ingress, call.Egress} {
		in, out, here, there := s.sides[from], s.sides[from.Other()], ends[from], ends[from.Other()]
		f := add(from, in.key(), here.rtp.addr(), out.rtp(), there.rtp.addr())
		f.ClockRate, f.Payloads = settled.codec(from).ClockRate, settled.payloads(from)
		f.Mux, f.Latch = here.mux, in.latch(here.rtp)
	}
	for _, from := range []call.Side{call.Ingress, call.Egress} {
		in, out, here, there := s.sides[from], s.sides[from.Other()], ends[from], ends[from.Other()]
		source := out.rtcp()
		if there.mux {
			source = out.rtp()
		}
		f := add(from, in.control(), here.control(), source, there.control())
		f.RTCP = true
		if !here.mux {
			f.Latch = in.latch(here.rtcp)
		}
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
	s.keep(flows)
	s.drop(stale)
	return nil
}

// drop takes flows out and returns their final counters, none if the engine fails: that costs
// the counters, not what is under way. Their ports are kept out of use then, see release.
func (s *Session) drop(flows []call.FlowKey) []call.FlowStats {
	if len(flows) == 0 {
		return nil
	}
	stats, err := s.media.engine.Remove(flows)
	if err != nil {
		s.media.log.Warn("media flows not removed", "local", flows[0].Local, "error", err)
		s.left = append(s.left, flows...)
	}
	return stats
}

// release gives a side's ports back: into quarantine, or, with flows left there, only when
// Run has removed them. The next call's media would leave by them.
func (s *Session) release(side *side) {
	s.media.leave(side)
	var left []call.FlowKey
	s.left = slices.DeleteFunc(s.left, func(key call.FlowKey) bool {
		if pair(key) != side.key() {
			return false
		}
		left = append(left, key)
		return true
	})
	if len(left) == 0 {
		side.givePort()
		return
	}
	s.media.stick(&adopted{realm: side.realm, keys: left, over: true, failing: true})
	side.port = 0
}

// keep remembers which flows are installed.
func (s *Session) keep(flows []call.Flow) {
	var inbound [2]call.FlowKey
	for i, side := range s.sides {
		if side != nil && slices.ContainsFunc(flows, func(f call.Flow) bool { return f.Key == side.key() }) {
			inbound[i] = side.key()
		}
	}
	if inbound != s.inbound {
		s.epoch++
	}
	s.flows, s.inbound = flows, inbound
	s.left = slices.DeleteFunc(s.left, func(key call.FlowKey) bool {
		return slices.ContainsFunc(flows, func(f call.Flow) bool { return f.Key == key })
	})
}

// remove takes all flows out and returns the final counters of the RTP that each side sent.
func (s *Session) remove() (sides [2]call.FlowStats) {
	stats := s.drop(keys(s.flows))
	for i := range min(len(stats), len(s.flows)) {
		if side := slices.Index(s.inbound[:], s.flows[i].Key); side >= 0 {
			sides[side] = stats[i]
		}
	}
	s.keep(nil)
	return sides
}

func keys(flows []call.Flow) []call.FlowKey {
	list := make([]call.FlowKey, len(flows))
	for i, f := range flows {
		list[i] = f.Key
	}
	return list
}
