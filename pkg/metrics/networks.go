package metrics

import (
	"strconv"

	"github.com/tandem-sbc/tandem/pkg/call"
)

var (
	realmStates  = []string{call.RealmUp, call.RealmDegraded, call.RealmDown}
	objectStates = []string{call.ObjectOK, call.ObjectMissing, call.ObjectDiffers, call.ObjectFailed}
	// errorKinds are those that alerts are about; more of them come up as they happen.
	errorKinds   = []string{"replay", "integrity", "no_state"}
	tunnelStates = []string{call.TunnelDown, call.TunnelConnecting, call.TunnelUnverified, call.TunnelUp}
)

// networks sends what the realms have in the kernel (N9) and what they refused (N5).
func (c *Collector) networks(e emitter) {
	if c.sources.Networks == nil {
		return
	}
	for _, r := range c.sources.Networks() {
		e.add(realmUp, oneIf(r.State != call.RealmDown), r.Name)
		for _, state := range realmStates {
			e.add(realmState, oneIf(r.State == state), r.Name, state)
		}
		e.add(realmRepairs, float64(r.Repairs), r.Name)
		for reason, packets := range r.Leaks {
			e.add(realmLeaks, float64(packets), r.Name, reason)
		}
		if len(r.Objects) == 0 {
			continue // somebody else's network: that none is missing would say too much
		}
		objects := make(map[string]int, len(objectStates))
		for _, o := range r.Objects {
			objects[o.State]++
		}
		for _, state := range objectStates {
			e.add(realmObjects, float64(objects[state]), r.Name, state)
		}
	}
}

// tunnels sends the state and the counters of each tunnel (I7).
func (c *Collector) tunnels(e emitter) {
	if c.sources.Tunnels == nil {
		return
	}
	for _, t := range c.sources.Tunnels() {
		e.add(tunnelInfo, 1, t.Realm, t.Name, t.Keying, strconv.Itoa(t.Rank))
		e.add(tunnelUp, oneIf(t.State == call.TunnelUp), t.Realm, t.Name)
		e.add(tunnelActive, oneIf(t.Active), t.Realm, t.Name)
		for _, state := range tunnelStates {
			e.add(tunnelState, oneIf(t.State == state), t.Realm, t.Name, state)
		}
		if t.Cause != "" {
			e.add(tunnelCause, 1, t.Realm, t.Name, t.Cause)
		}
		if !t.Established.IsZero() {
			e.add(tunnelEstablished, float64(t.Established.UnixMilli())/1000, t.Realm, t.Name)
		}
		e.tunnelCounters(t)
		if m := t.Monitor; m != nil {
			e.add(monitorMissed, float64(m.Missed), t.Realm, t.Name)
			if m.Answers {
				e.add(monitorRTT, m.RTTMS/1000, t.Realm, t.Name)
			}
		}
	}
}

func (e emitter) tunnelCounters(t call.Tunnel) {
	e.add(tunnelRekeys, float64(t.IKERekeys), t.Realm, t.Name, "ike")
	e.add(tunnelRekeys, float64(t.ChildRekeys), t.Realm, t.Name, "child")
	e.add(tunnelRekeys, float64(t.KeyChanges), t.Realm, t.Name, "manual")
	e.add(tunnelDPD, float64(t.DPDFailures), t.Realm, t.Name)
	e.add(tunnelBytes, float64(t.In.Bytes), t.Realm, t.Name, "in")
	e.add(tunnelBytes, float64(t.Out.Bytes), t.Realm, t.Name, "out")
	e.add(tunnelPackets, float64(t.In.Packets), t.Realm, t.Name, "in")
	e.add(tunnelPackets, float64(t.Out.Packets), t.Realm, t.Name, "out")
	for _, kind := range errorKinds {
		if _, counted := t.Errors[kind]; !counted {
			e.add(tunnelErrors, 0, t.Realm, t.Name, kind) // so that a rate sees the first
		}
	}
	for kind, packets := range t.Errors {
		e.add(tunnelErrors, float64(packets), t.Realm, t.Name, kind)
	}
	for cause, times := range t.Failures {
		e.add(tunnelFailures, float64(times), t.Realm, t.Name, cause)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
