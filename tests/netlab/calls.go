package netlab

import (
	"net/netip"
	"slices"
	"time"
)

// Leg is one dialog as its peer's interface saw it.
type Leg struct {
	Host   string
	CallID string
	// Number is the user part of the INVITE's Request-URI.
	Number string
	// Caller is true where the host sent the INVITE.
	Caller bool
	// Invited, Rang, Answered and Ended are when the first INVITE, the first 180 or
	// 183, the first 2xx to that INVITE and the first BYE crossed the interface.
	Invited, Rang, Answered, Ended time.Time
	// Status is the final one of the first INVITE, or 0.
	Status int
	// Peer and Gateway are where the host and its counterpart want RTP, from the first
	// descriptions that they sent.
	Peer, Gateway netip.AddrPort
	// Disordered counts provisional responses (but 100) behind the final one.
	Disordered int
	// Retransmitted counts repeated INVITEs.
	Retransmitted int

	cseq uint32
}

// Call is what the captures saw of one call: the caller's leg, and the callees' legs
// that carry the same number.
type Call struct {
	Number  string
	Caller  Leg
	Callees []Leg
}

// Callee is the leg that answered, or nil.
func (c *Call) Callee() *Leg {
	for i := range c.Callees {
		if c.Callees[i].Status/100 == 2 {
			return &c.Callees[i]
		}
	}
	return nil
}

// Calls puts the legs of several hosts together. The called number is what survives
// a gateway, so every call must have one of its own (those of package sipp have).
// Calls are in the order of their INVITEs; a callee's leg without a caller is left out.
func Calls(logs ...*Log) []Call {
	var calls []Call
	callees := map[string][]Leg{}
	for _, log := range logs {
		for _, leg := range legs(log) {
			if leg.Caller {
				calls = append(calls, Call{Number: leg.Number, Caller: leg})
			} else {
				callees[leg.Number] = append(callees[leg.Number], leg)
			}
		}
	}
	slices.SortStableFunc(calls, func(a, b Call) int { return a.Caller.Invited.Compare(b.Caller.Invited) })
	for i := range calls {
		calls[i].Callees = callees[calls[i].Number]
		slices.SortStableFunc(calls[i].Callees, func(a, b Leg) int { return a.Invited.Compare(b.Invited) })
	}
	return calls
}

// legs reads one host's dialogs, in the order of their INVITEs.
func legs(log *Log) []Leg {
	byID := map[string]*Leg{}
	var order []*Leg
	for _, m := range log.Messages {
		leg := byID[m.CallID]
		if leg == nil {
			if m.Method != "INVITE" || m.Status != 0 {
				continue
			}
			leg = &Leg{
				Host: log.Host, CallID: m.CallID, Number: m.Number,
				Caller: m.Out, Invited: m.Time, cseq: m.CSeq,
			}
			byID[m.CallID] = leg
			order = append(order, leg)
		} else if m.Method == "INVITE" && m.Status == 0 && m.CSeq == leg.cseq && m.Out == leg.Caller {
			leg.Retransmitted++
		}
		leg.read(m)
	}
	found := make([]Leg, len(order))
	for i, leg := range order {
		found[i] = *leg
	}
	return found
}

func (leg *Leg) read(m Message) {
	if addr, ok := AudioAddr(m.Body()); ok {
		switch {
		case m.Out && !leg.Peer.IsValid():
			leg.Peer = addr
		case !m.Out && !leg.Gateway.IsValid():
			leg.Gateway = addr
		}
	}
	switch {
	case m.Method == "BYE" && m.Status == 0 && leg.Ended.IsZero():
		leg.Ended = m.Time
	case m.Method != "INVITE" || m.Status <= 100 || m.CSeq != leg.cseq:
	case m.Status < 200 && leg.Status != 0:
		leg.Disordered++
	case m.Status < 200 && leg.Rang.IsZero():
		leg.Rang = m.Time
	case m.Status >= 200 && leg.Status == 0:
		leg.Status = m.Status
		if m.Status < 300 {
			leg.Answered = m.Time
		}
	}
}

// Away is how long the media of an answered call was away, in the worse direction: the longest
// time without a packet at its receiver, of those that are not over at from and begin before
// until. Media that does not come back is away until its sender ends.
func (c *Call) Away(from, until time.Time, logs ...*Log) time.Duration {
	callee := c.Callee()
	if callee == nil {
		return 0
	}
	return max(away(&c.Caller, callee, from, until, logs), away(callee, &c.Caller, from, until, logs))
}

func away(sender, receiver *Leg, from, until time.Time, logs []*Log) (longest time.Duration) {
	for _, log := range logs {
		for key, sent := range log.Streams {
			if log.Host != sender.Host || !key.Out || key.Src != sender.Peer || key.Dst != sender.Gateway {
				continue
			}
			received := streamAt(logs, receiver.Host, StreamKey{Src: receiver.Gateway, Dst: receiver.Peer, SSRC: key.SSRC})
			if received == nil {
				received = &Stream{Packets: sent.Packets[:1]} // away from its first packet on
			}
			longest = max(longest, received.gap(from, until, sent.Packets[len(sent.Packets)-1].Time))
		}
	}
	return longest
}

func streamAt(logs []*Log, host string, key StreamKey) *Stream {
	for _, log := range logs {
		if s := log.Streams[key]; s != nil && log.Host == host {
			return s
		}
	}
	return nil
}

// Percentiles of a set of durations.
type Percentiles struct {
	Count         int
	P50, P99, Max time.Duration
}

// SetupAdded is the time that the gateway adds to the set-up of answered calls: from
// INVITE to 2xx as the caller saw it, less the same as the callee saw it.
func SetupAdded(calls []Call) Percentiles {
	var added []time.Duration
	for _, c := range calls {
		callee := c.Callee()
		if callee == nil || c.Caller.Answered.IsZero() {
			continue
		}
		outer := c.Caller.Answered.Sub(c.Caller.Invited)
		inner := callee.Answered.Sub(callee.Invited)
		added = append(added, outer-inner)
	}
	return percentiles(added)
}

// percentiles by the nearest-rank method.
func percentiles(d []time.Duration) Percentiles {
	if len(d) == 0 {
		return Percentiles{}
	}
	slices.Sort(d)
	rank := func(p int) time.Duration { return d[max(0, (len(d)*p+99)/100-1)] }
	return Percentiles{Count: len(d), P50: rank(50), P99: rank(99), Max: d[len(d)-1]}
}
