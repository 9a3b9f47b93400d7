package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tandem-sbc/tandem/pkg/call"
)

// resolveLimit is how long Install waits for next hops that are being resolved.
const resolveLimit = 250 * time.Millisecond

// Bounds of call.Flow.ClockRate.
const (
	minClockRate = 1000
	maxClockRate = 1_000_000
)

// installed is a flow in the kernel.
type installed struct {
	at     uint32         // in the flow table
	remote netip.AddrPort // as installed; see table.remote
	hop    *hop           // nil while on hold
}

// stats are the flow's counters as they are.
func (e *Engine) stats(f installed, key call.FlowKey, c clock) call.FlowStats {
	s := e.table.read(f.at, key, c)
	s.Remote = e.table.remote(f.at, f.remote)
	return s
}

// Install puts flows into the kernel, all or none. A flow whose key is there already is
// updated in place: no packet finds it missing, and its counters go on. Packets flow when
// Install returns; a next hop that is not resolved after 250 ms does not fail it, its
// packets are dropped until it is. Errors wrap ErrFull and ErrClosed.
func (e *Engine) Install(flows []call.Flow) error {
	if err := e.validate(flows); err != nil {
		return err
	}
	held, err := e.acquireHops(flows)
	if err != nil {
		e.releaseHops(held)
		return err
	}
	e.hops.wait(held, resolveLimit)
	replaced, err := e.write(flows, held)
	if err != nil {
		e.releaseHops(held)
		return err
	}
	e.releaseHops(replaced)
	return nil
}

// acquireHops returns one next hop per flow, nil for one on hold; after an error those
// it had got by then.
func (e *Engine) acquireHops(flows []call.Flow) ([]*hop, error) {
	held := make([]*hop, len(flows))
	for i, f := range flows {
		if f.Hold {
			continue
		}
		h, err := e.hops.acquire(hopKey{realm: f.OutRealm, dst: f.Dest.Addr().Unmap()})
		if err != nil {
			return held, err
		}
		held[i] = h
	}
	return held, nil
}

func (e *Engine) releaseHops(held []*hop) {
	for _, h := range held {
		if h != nil {
			e.hops.release(h)
		}
	}
}

// write makes the change, and returns the next hops that are no longer used by it.
func (e *Engine) write(flows []call.Flow, held []*hop) (replaced []*hop, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	added := 0
	for _, f := range flows {
		if _, ok := e.flows[canonical(f.Key)]; !ok {
			added++
		}
	}
	if len(e.flows)+added > e.maxFlows {
		return nil, fmt.Errorf("%w: %d flows", ErrFull, e.maxFlows)
	}
	now, err := monotonic()
	if err != nil {
		return nil, err
	}
	// Every rule before any port leads to one: the peers are let in together.
	actives, rules := make([]uint32, len(flows)), make([]tandemRule, len(flows))
	for i, f := range flows {
		var nextHop uint16
		if held[i] != nil {
			nextHop = held[i].id
		}
		rule := toRule(f, nextHop)
		if e.guard.denies(f.Remote.Addr()) {
			rule.RemotePort = 0 // lets nobody in
		}
		rules[i] = rule
		actives[i] = e.table.prepare(e.realms[f.Key.Realm].flow(f.Key.Local.Port()), f, rule, now)
	}
	for i, f := range flows {
		key := canonical(f.Key)
		at := e.realms[key.Realm].flow(key.Local.Port())
		e.table.activate(at, actives[i])
		e.table.settle(at)
		replaced = append(replaced, e.flows[key].hop)
		e.flows[key] = installed{at: at, remote: toRemote(rules[i].Remote, rules[i].RemotePort), hop: held[i]}
	}
	return replaced, nil
}

// Remove takes flows out and returns their final counters in the order of keys, zero for
// a key that has no flow.
func (e *Engine) Remove(keys []call.FlowKey) ([]call.FlowStats, error) {
	clk, err := readClock()
	if err != nil {
		return nil, err
	}
	stats := make([]call.FlowStats, len(keys))
	unused := make([]*hop, 0, len(keys))
	e.mu.Lock()
	if e.closed {
		e.mu.Unlock()
		return nil, ErrClosed
	}
	for i, key := range keys {
		key = canonical(key)
		stats[i].Key = key
		f, ok := e.flows[key]
		if !ok {
			continue
		}
		e.table.activate(f.at, 0)
		stats[i] = e.stats(f, key, clk) // after the removal: no packet comes behind the last counted
		delete(e.flows, key)
		unused = append(unused, f.hop)
	}
	e.mu.Unlock()
	e.releaseHops(unused)
	return stats, nil
}

// Snapshot returns the counters as they are, in the order of keys, zero for a key that
// has no flow.
func (e *Engine) Snapshot(keys []call.FlowKey) ([]call.FlowStats, error) {
	clk, err := readClock()
	if err != nil {
		return nil, err
	}
	stats := make([]call.FlowStats, len(keys))
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	for i, key := range keys {
		key = canonical(key)
		stats[i].Key = key
		if f, ok := e.flows[key]; ok {
			stats[i] = e.stats(f, key, clk)
		}
	}
	return stats, nil
}

// canonical writes an IPv4 address in one way only, so that keys compare.
func canonical(k call.FlowKey) call.FlowKey {
	k.Local = netip.AddrPortFrom(k.Local.Addr().Unmap(), k.Local.Port())
	return k
}

func (e *Engine) validate(flows []call.Flow) error {
	seen := make(map[call.FlowKey]bool, len(flows))
	for _, f := range flows {
		key := canonical(f.Key)
		if seen[key] {
			return fmt.Errorf("flow to %s in realm %d: given twice", key.Local, key.Realm)
		}
		seen[key] = true
		if err := e.validateFlow(f); err != nil {
			return fmt.Errorf("flow to %s in realm %d: %w", key.Local, key.Realm, err)
		}
	}
	return nil
}

func (e *Engine) validateFlow(f call.Flow) error {
	in, ok := e.realms[f.Key.Realm]
	switch {
	case !ok:
		return errors.New("no such realm")
	case f.Key.Local.Addr().Unmap() != in.Addr:
		return fmt.Errorf("the realm's address is %s", in.Addr)
	case !in.Media.Contains(f.Key.Local.Port()):
		return fmt.Errorf("the realm's media ports are %s", in.Media)
	case f.Remote.IsValid() && !f.Remote.Addr().Unmap().Is4():
		return fmt.Errorf("remote %s is not IPv4", f.Remote)
	case f.DSCP > 63:
		return fmt.Errorf("DSCP %d is not 0 to 63", f.DSCP)
	case f.ClockRate != 0 && (f.ClockRate < minClockRate || f.ClockRate > maxClockRate):
		return fmt.Errorf("clock rate %d Hz is neither 0 nor %d to %d", f.ClockRate, minClockRate, maxClockRate)
	case f.Mux && (f.RTCP || f.Key.Local.Port() == in.Media.Last):
		return errors.New("RTCP cannot go on at the port above")
	}
	if err := validateTerms(f); err != nil {
		return err
	}
	if f.Hold {
		return nil
	}
	out, ok := e.realms[f.OutRealm]
	dest := f.Dest.Addr().Unmap()
	switch {
	case !ok:
		return fmt.Errorf("no realm %d to leave by", f.OutRealm)
	case f.Source.Addr().Unmap() != out.Addr || f.Source.Port() == 0:
		return fmt.Errorf("source %s is not of realm %d with address %s", f.Source, f.OutRealm, out.Addr)
	case !dest.Is4() || dest.IsUnspecified() || dest.IsMulticast() || f.Dest.Port() == 0:
		return fmt.Errorf("destination %s cannot be sent to", f.Dest)
	}
	return nil
}

// validateTerms checks payload types and latch.
func validateTerms(f call.Flow) error {
	for i, p := range f.Payloads {
		again := func(o call.Payload) bool { return o.In == p.In }
		switch {
		case p.In > 127 || p.Out > 127:
			return fmt.Errorf("payload type %d to %d: above 127", p.In, p.Out)
		case p.Treatment > call.TelephoneEvent:
			return fmt.Errorf("payload type %d: treatment %d", p.In, p.Treatment)
		case slices.ContainsFunc(f.Payloads[:i], again):
			return fmt.Errorf("payload type %d is given twice", p.In)
		}
	}
	if f.Latch.Window == 0 {
		return nil
	}
	if n := len(f.Latch.Allowed); f.Latch.Window < 0 || n < 1 || n > call.MaxPrefixes {
		return fmt.Errorf("a latch of %s with %d prefixes", f.Latch.Window, n)
	}
	for _, p := range f.Latch.Allowed {
		if !p.IsValid() || !p.Addr().Is4() {
			return fmt.Errorf("latch: %s is no IPv4 prefix", p)
		}
	}
	return nil
}

// adoptFlows takes over what a former process left in the tables: flows, and the next
// hops that they leave by.
func (e *Engine) adoptFlows() {
	for _, r := range e.realms {
		for port := int(r.Media.First); port <= int(r.Media.Last); port++ {
			at := r.flow(uint16(port))
			f := &e.table.flows[at]
			if f.Active != 1 && f.Active != 2 {
				continue
			}
			rule := &f.Rule[f.Active-1]
			if e.guard.denies(netip.AddrFrom4(rule.Remote)) {
				e.table.closeLatch(&e.table.policies[at])
				rule.RemotePort = 0 // denied since
			}
			found := installed{at: at, remote: toRemote(rule.Remote, rule.RemotePort)}
			if rule.NextHop != 0 {
				var err error
				if found.hop, err = e.hops.adopt(rule.NextHop); err != nil {
					// Nobody would keep the header fresh, and its id is free for another destination.
					e.log.Error("flow ends: its next hop is not known any more", "realm", r.Number, "port", port, "error", err)
					e.table.activate(at, 0)
					continue
				}
			}
			key := call.FlowKey{Realm: r.Number, Local: netip.AddrPortFrom(r.Addr, uint16(port))}
			e.flows[key] = found
		}
	}
}
