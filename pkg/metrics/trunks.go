package metrics

// trunkStates are all there are (T1).
var trunkStates = []string{"in-service", "degraded", "probing", "out-of-service", "draining"}

// refusals are all reasons why a trunk has no slot for a call (T3, T4), and the one of
// REGISTER requests (T5).
var refusals = []string{"full", "realm-full", "rate", "realm-rate", "closed", "register-rate"}

// outcomes are all that an attempt can come to (T6).
var outcomes = []string{"answered", "busy", "no-answer", "rejected", "bad-number", "refused", "failed", "silent", "moved"}

// groups sends how calls are shared among the members of groups (T2, T14).
func (c *Collector) groups(e emitter) {
	if c.sources.Groups == nil {
		return
	}
	for _, m := range c.sources.Groups() {
		e.add(groupShare, m.Share, m.Group, m.Trunk)
		e.add(groupMultiplier, m.Multiplier, m.Group, m.Trunk)
	}
}

func (c *Collector) trunks(e emitter) {
	if c.sources.Trunks == nil {
		return
	}
	for _, t := range c.sources.Trunks() {
		e.add(trunkInService, oneIf(t.InService), t.Name, t.Realm)
		for _, state := range trunkStates {
			e.add(trunkState, oneIf(state == t.State), t.Name, t.Realm, state)
		}
		e.add(trunkChanges, float64(t.Changes), t.Name, t.Realm)
		e.add(trunkMaxCalls, float64(t.MaxCalls), t.Name, t.Realm, t.Kind)
		e.add(trunkMaxRate, t.MaxRate, t.Name, t.Realm)
		e.trunkDirection(t, "in", t.In)
		e.trunkDirection(t, "out", t.Out)
		for _, at := range t.Targets {
			e.add(trunkTarget, oneIf(at.Alive), t.Name, t.Realm, at.Address)
			e.add(trunkProbeFailures, float64(at.Failures), t.Name, t.Realm, at.Address)
			if at.RoundTrip > 0 {
				e.add(trunkRTT, at.RoundTrip, t.Name, t.Realm, at.Address)
			}
		}
	}
}

func (e emitter) trunkDirection(t Trunk, direction string, d TrunkDirection) {
	e.add(trunkActive, float64(d.Active), t.Name, t.Realm, direction)
	e.add(trunkAttempts, float64(d.Attempts), t.Name, t.Realm, direction)
	e.add(trunkCalls, float64(d.Answers), t.Name, t.Realm, direction, "answered")
	e.add(trunkCalls, float64(d.Failures), t.Name, t.Realm, direction, "failed")
	for _, class := range outcomes {
		e.add(trunkOutcomes, float64(d.Outcomes[class]), t.Name, t.Realm, direction, class)
	}
	for _, reason := range refusals {
		e.add(trunkRefused, float64(d.Refused[reason]), t.Name, t.Realm, direction, reason)
	}
	r := d.Recent
	if r.Decided > 0 {
		e.add(trunkASR, r.ASR, t.Name, t.Realm, direction)
		e.add(trunkNER, r.NER, t.Name, t.Realm, direction)
	}
	if r.PDD > 0 {
		e.add(trunkPDD, r.PDD, t.Name, t.Realm, direction)
	}
	if r.ACD > 0 {
		e.add(trunkACD, r.ACD, t.Name, t.Realm, direction)
	}
}
