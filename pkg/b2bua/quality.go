package b2bua

import (
	"errors"

	"github.com/tandem-sbc/tandem/pkg/call"
	"github.com/tandem-sbc/tandem/pkg/media"
)

// TrunkMedia is what the peers of one trunk sent in calls that were answered (M11), from the
// answer on with all that came before it: early media, and what the caller sent in tries that
// failed. A trunk that did not take the call gets nothing for its announcement.
type TrunkMedia struct {
	Trunk, Realm string
	// Counters add up all calls since start, those that are up included.
	Counters MediaCounters
	// Live has one value for each leg of a call that is up.
	Live []LegQuality
}

// LegQuality is how a leg sounds now; see call.Media for the values, of which 0 is not known.
type LegQuality struct{ MOS, JitterMS, RTTMS float64 }

// MediaCounters add up the counters of call.Media.
type MediaCounters struct {
	Packets, Bytes, Lost, Reordered, Duplicated, Refused, OutOfPolicy, RemoteLost uint64
}

func (c *MediaCounters) add(m *call.Media) {
	c.Packets += m.Packets
	c.Bytes += m.Bytes
	c.Lost += m.Lost
	c.Reordered += m.Reordered
	c.Duplicated += m.Duplicated
	c.Refused += m.Refused
	c.OutOfPolicy += m.OutOfPolicy
	c.RemoteLost += m.RemoteLost
}

// Media returns the media of each trunk of the plan, in its order; calls by a trunk that is
// not there any more are left out. A call that ends in the meantime counts once. After an
// error live calls are missing.
func (g *Gateway) Media() ([]TrunkMedia, error) {
	trunks := g.cfg.Plan().Trunks.All()
	list := make([]TrunkMedia, len(trunks))
	index := make(map[string]*TrunkMedia, len(trunks))

	g.mu.Lock()
	live := g.live()
	for i, t := range trunks {
		list[i] = TrunkMedia{Trunk: t.Name(), Realm: t.Realm(), Counters: g.ended[t.Name()]}
		index[t.Name()] = &list[i]
	}
	g.mu.Unlock()

	answered := make(map[*media.Session][2]*TrunkMedia, len(live))
	for _, s := range live {
		s.mu.Lock()
		if s.isAnswered() {
			answered[s.media] = [2]*TrunkMedia{call.Ingress: index[s.info.Ingress.Trunk], call.Egress: index[s.info.Egress.Trunk]}
		}
		s.mu.Unlock()
	}
	err := read(g.cfg.Media, answered, func(legs [2]*TrunkMedia, sent *[2]call.Media) {
		for side, t := range legs {
			if t == nil {
				continue
			}
			m := &sent[side]
			t.Counters.add(m)
			t.Live = append(t.Live, LegQuality{MOS: m.MOS, JitterMS: m.JitterMS, RTTMS: m.RTTMS})
		}
	})
	return list, err
}

// read visits calls, by their media, with what both sides of each sent as of now or, if it
// ends in this moment, at its end. The engine is asked once for all of them. After an error
// those that could not be read are not visited.
func read[T any](m *media.Media, calls map[*media.Session]T, visit func(T, *[2]call.Media)) error {
	var sent [2]call.Media
	failed := m.Each(func(session *media.Session, ingress, egress call.Media) {
		if c, ours := calls[session]; ours {
			sent[call.Ingress], sent[call.Egress] = ingress, egress
			visit(c, &sent)
			delete(calls, session)
		}
	})
	// What is left has no ports yet, or has ended in this moment.
	for session, c := range calls {
		var err error
		sent[call.Ingress], sent[call.Egress], err = session.Media()
		switch {
		case errors.Is(err, media.ErrState):
			sent[call.Ingress], sent[call.Egress] = session.Close() // once more, for its last counters
		case err != nil:
			failed = err
			continue
		}
		visit(c, &sent)
	}
	return failed
}
