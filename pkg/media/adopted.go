package media

import (
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// adoptedIdle is how long a flow of a former process may be silent before it is removed:
// nobody is left who could say that its call has ended.
const adoptedIdle = 5 * time.Minute

// adopted are the flows at one port pair that a former process left in the engine. They
// forward on, and no session gets their ports until they are gone. The same goes for flows
// that a session of this process could not remove at its end.
type adopted struct {
	// realm that the pair was reserved in, nil if it is in no range any more.
	realm *realm
	keys  []call.FlowKey
	// packets are all that the flows have counted, and heard is when that changed last.
	packets uint64
	heard   time.Time
	// over means that the call is known to have ended, so that nothing is waited for.
	over bool
	// failing means that the engine did not remove them when it was last asked.
	failing bool
}

// stick has Run remove flows.
func (m *Media) stick(a *adopted) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stuck = append(m.stuck, a)
}

func (m *Media) takeStuck() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.adopted = append(m.adopted, m.stuck...)
	m.stuck = nil
}

// adopt reserves the ports of flows that are in the engine already.
func (m *Media) adopt(keys []call.FlowKey) {
	now := time.Now()
	pairs := make(map[call.FlowKey]*adopted, len(keys))
	for _, key := range keys {
		at := pair(key)
		a := pairs[at]
		if a == nil {
			a = &adopted{heard: now}
			for _, r := range m.realms {
				if r.Number == key.Realm && r.Addr == key.Local.Addr() && r.pool.Reserve(at.Local.Port()) {
					a.realm = r
				}
			}
			pairs[at] = a
			m.adopted = append(m.adopted, a)
		}
		a.keys = append(a.keys, key)
	}
}

// sweep removes adopted flows whose call is over, or that have been silent for too long;
// stats are those of all of them in their order.
func (m *Media) sweep(stats []call.FlowStats, now time.Time) {
	kept := m.adopted[:0]
	for _, a := range m.adopted {
		packets := uint64(0)
		for _, st := range stats[:len(a.keys)] {
			packets += st.Packets
		}
		stats = stats[len(a.keys):]
		if packets != a.packets {
			a.packets, a.heard = packets, now
		}
		if !a.over && now.Sub(a.heard) < adoptedIdle || !m.end(a) {
			kept = append(kept, a)
		}
	}
	clear(m.adopted[len(kept):])
	m.adopted = kept
}

// end removes adopted flows and puts their ports into quarantine.
func (m *Media) end(a *adopted) bool {
	if _, err := m.engine.Remove(a.keys); err != nil {
		if !a.failing {
			m.log.Warn("silent media flows of a former process not removed yet", "local", a.keys[0].Local, "error", err)
		}
		a.failing = true
		return false
	}
	m.log.Info("media flows of an ended call removed",
		"realm", a.keys[0].Realm, "local", a.keys[0].Local, "former_process", !a.over)
	if a.realm != nil {
		a.realm.pool.Put(pair(a.keys[0]).Local.Port())
	}
	return true
}
